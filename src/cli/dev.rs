//! `postern dev`: a whole cluster in one process, for one machine.
//!
//! Loopback only, with a data and a profile directory of its own; the person's own `~/.postern` and `pg_service.conf` are not
//! touched. The person's certificate comes over the administrator's socket, so that no login is weaker on the network
//! because of it.

use super::admin_client::AdminClient;
use super::auth_sign::{sign_person, write_out};
use super::dev_database::{self, DB_NAME, DB_USER};
use super::signals;
use super::start::workers;
use super::throwaway_postgres::{Installation, ThrowawayPostgres};
use super::{Failure, Outcome, terminal};
use crate::actors::host::{Runtimes, run_system};
use crate::config::Config;
use crate::model::{Endpoint, SystemClock};
use crate::node::{self, InProcess, Node, NodeEnd, Order};
use crate::pki::PrivateKey;
use crate::telemetry::logging::{self, LogFormat, LogOutput};
use crate::web::api::{PutResources, ResourcesPut};
use clap::{Args, Subcommand};
use hyper::Method;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

const PERSON: &str = "dev";
const SERVICE: &str = "demo";
/// A working day.
const PERSON_TTL: Duration = Duration::from_secs(12 * 3600);

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevArgs {
    #[command(subcommand)]
    verb: Option<DevVerb>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum DevVerb {
    /// Print the settings that psql needs, for `eval "$(postern dev env)"`.
    #[command(after_help = "Example:\n  postern dev env\n  eval \"$(postern dev env)\" && psql")]
    Env {
        #[command(flatten)]
        dir: DirArgs,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Reach the database through a real tunnel, although all is in one process.
    #[arg(long)]
    tunnel: bool,
    /// Use a PostgreSQL that runs already (host:port), instead of a throw-away one. It has to trust this cluster; what to set
    /// up is printed.
    #[arg(long, value_name = "HOST:PORT")]
    uri: Option<String>,
    /// Where clients connect; port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7432")]
    listen: SocketAddr,
    /// Log more than warnings; a level, as in `info`.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: String,
    #[command(flatten)]
    dir: DirArgs,
}

#[derive(Debug, Args)]
struct DirArgs {
    /// Where the cluster's state and the profile are kept [default: ~/.postern-dev].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DirArgs {
    fn root(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.data_dir {
            return std::path::absolute(dir).map_err(Failure::failed);
        }
        usual_dir().ok_or_else(|| {
            Failure::usage("there is no home directory to keep the cluster in; name one with --data-dir DIR")
        })
    }
}

/// Where this account's `postern dev` keeps its cluster unless told otherwise; it is the node's data directory, too.
pub fn usual_dir() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".postern-dev"))
}

/// The files of one `postern dev`.
struct Places {
    node: PathBuf,
    profile: PathBuf,
    /// Says which throw-away PostgreSQL belongs to this directory.
    postgres_record: PathBuf,
}

impl Places {
    fn below(root: &Path) -> Self {
        Self {
            node: root.to_owned(),
            profile: root.join("profile"),
            postgres_record: root.join("throw-away-postgres"),
        }
    }

    fn env(&self) -> PathBuf {
        self.profile.join("env")
    }
}

pub fn run(args: DevArgs) -> Outcome {
    match args.verb {
        Some(DevVerb::Env { dir }) => print_env(&Places::below(&dir.root()?)),
        None => {
            logging::start(&args.run.log, LogFormat::Text, LogOutput::Stderr).map_err(Failure::usage)?;
            let places = Places::below(&args.run.dir.root()?);
            run_system(workers(), |runtimes| serve(args.run, places, runtimes))
        }
    }
}

fn print_env(places: &Places) -> Outcome {
    match std::fs::read_to_string(places.env()) {
        Ok(text) => {
            print!("{text}");
            Ok(())
        }
        Err(_) => Err(Failure::failed(format!(
            "no `postern dev` runs with the directory {}; start it first: postern dev",
            places.node.display()
        ))),
    }
}

/// Where the database is to come from.
enum Source {
    ThrowAway(Installation, u16),
    Running(Endpoint),
}

async fn serve(args: RunArgs, places: Places, runtimes: Runtimes) -> Outcome {
    if !args.listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "--listen {} is not an address of this machine only; `postern dev` is for loopback, for a real cluster use \
             `postern start`",
            args.listen
        )));
    }
    let source = match &args.uri {
        Some(uri) => Source::Running(Endpoint::parse_database_uri(uri).map_err(Failure::usage)?),
        None => Source::ThrowAway(
            Installation::find().map_err(Failure::failed)?,
            dev_database::free_port()?,
        ),
    };
    let endpoint = match &source {
        Source::Running(endpoint) => endpoint.clone(),
        Source::ThrowAway(_, port) => Endpoint {
            host: "127.0.0.1".to_owned(),
            port: *port,
        },
    };
    let config = config(&args, &places, &endpoint)?;
    let orders = signals::orders(None, config.shutdown_grace)?;
    let in_process = if args.tunnel {
        InProcess::Tunnel
    } else {
        InProcess::Direct
    };
    let mut node = node::start(config, in_process, runtimes, SystemClock::shared()).await?;
    let lived = live(&mut node, source, &places, orders).await;
    node.stop().await;
    remove_profile(&places);
    lived
}

/// From the started node to its end: the database beside it, the person, what to type, and waiting.
async fn live(node: &mut Node, source: Source, places: &Places, orders: mpsc::Receiver<Order>) -> Outcome {
    let client = AdminClient::new(&places.node);
    dev_database::sweep(&places.postgres_record).await?;
    let (postgres, uri) = match source {
        Source::ThrowAway(installation, port) => {
            let server = dev_database::start(installation, &client, port, places.postgres_record.clone()).await?;
            (Some(server), None)
        }
        Source::Running(endpoint) => (None, Some(endpoint)),
    };
    let outcome = prepare_and_wait(node, &client, places, uri.as_ref(), orders).await;
    if let Some(server) = postgres {
        stop_postgres(server, &outcome).await?;
    }
    outcome
}

async fn stop_postgres(server: ThrowawayPostgres, outcome: &Outcome) -> Outcome {
    match dev_database::stop(server).await {
        // The first fault is the one to report.
        Err(failure) if outcome.is_ok() => Err(failure),
        _ => Ok(()),
    }
}

async fn prepare_and_wait(
    node: &mut Node,
    client: &AdminClient,
    places: &Places,
    uri: Option<&Endpoint>,
    orders: mpsc::Receiver<Order>,
) -> Outcome {
    let address = node
        .proxy_address
        .ok_or_else(|| Failure::internal("the proxy does not listen"))?;
    create_person(client).await?;
    write_profile(client, places, address).await?;
    tokio::time::timeout(Duration::from_secs(15), node.phase.view().ready())
        .await
        .map_err(|_| Failure::failed("the agent's tunnel did not come up; see the log with --log info"))?;
    print_ready(node, places, address, uri);
    match node.run(orders).await {
        NodeEnd::Stopped => {
            println!("\nStopped.");
            Ok(())
        }
        NodeEnd::Condemned(why) => Err(Failure::failed(why)),
        NodeEnd::Exhausted(why) => Err(Failure::internal(why)),
    }
}

/// The configuration that this command stands for; `config/dev.yaml` is the same as a file.
fn config(args: &RunArgs, places: &Places, database: &Endpoint) -> Result<Config, Failure> {
    // JSON texts are YAML texts.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let text = format!(
        "version: v3\n\
         postern:\n  nodename: dev\n  data_dir: {data_dir}\n  shutdown_grace: 0s\n\
         auth_service:\n  enabled: yes\n  cluster_name: dev\n  listen_addr: 127.0.0.1:0\n\
         proxy_service:\n  enabled: yes\n  web_listen_addr: {listen}\n\
         db_service:\n  enabled: yes\n  databases:\n  - name: {SERVICE}\n    description: A database to try\n    \
         protocol: postgres\n    uri: {uri}\n    static_labels:\n      env: dev\n",
        data_dir = quoted(&places.node.to_string_lossy()),
        listen = quoted(&args.listen.to_string()),
        uri = quoted(&database.to_string()),
    );
    Config::parse(&text, "postern dev").map_err(Failure::usage)
}

async fn create_person(client: &AdminClient) -> Outcome {
    let yaml = format!(
        "kind: user\nversion: v2\nmetadata:\n  name: {PERSON}\nspec:\n  roles: [access]\n  traits:\n    \
         db_users: [{DB_USER}]\n    db_names: [{DB_NAME}]\n"
    );
    let _put: ResourcesPut = client
        .send(
            Method::PUT,
            "/v1/resources",
            &PutResources {
                yaml,
                replace: true,
                instead_of: None,
            },
        )
        .await?;
    Ok(())
}

/// The person's certificate and the settings for psql, readable by this account only.
async fn write_profile(client: &AdminClient, places: &Places, address: SocketAddr) -> Outcome {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&places.profile)
        .map_err(|error| Failure::failed(format!("{}: {error}", places.profile.display())))?;
    let key = PrivateKey::generate().map_err(Failure::internal)?;
    let signed = sign_person(client, &key, PERSON, Some(SERVICE.to_owned()), PERSON_TTL).await?;
    let [key_file, crt, cas] = write_out(&places.profile.join(PERSON), &key, &signed)?;
    let path = |name: &str| shell_quoted(&places.profile.join(name).to_string_lossy());
    let env = format!(
        "export PGHOST=localhost\nexport PGHOSTADDR={host}\nexport PGPORT={port}\nexport PGUSER={DB_USER}\nexport PGDATABASE={DB_NAME}\n\
         export PGSSLMODE=verify-full\nexport PGSSLROOTCERT={ca}\nexport PGSSLCERT={certificate}\nexport PGSSLKEY={key}\n",
        host = address.ip(),
        port = address.port(),
        ca = path(&cas),
        certificate = path(&crt),
        key = path(&key_file),
    );
    crate::pki::pem::write_private(&places.env(), env.as_bytes()).map_err(Failure::failed)
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn print_ready(node: &Node, places: &Places, address: SocketAddr, uri: Option<&Endpoint>) {
    let dir = match usual_dir() {
        Some(default) if default == places.node => String::new(),
        _ => format!(" --data-dir {}", shell_quoted(&places.node.to_string_lossy())),
    };
    let data_dir = shell_quoted(&places.node.to_string_lossy());
    println!(
        "Postern is ready: cluster {} on {address}, database {SERVICE}.\n",
        node.identity.cluster
    );
    if let Some(endpoint) = uri {
        println!(
            "  The PostgreSQL at {} has to trust this cluster. On its host, use the files and lines of:",
            endpoint
        );
        println!(
            "    postern ctl --data-dir {data_dir} auth sign --format=db --host={} --out=server --ttl=2190h\n",
            endpoint.host
        );
        println!(
            "  Clients log in as the database user {DB_USER:?} to the database {DB_NAME:?}; both have to exist there.\n"
        );
    }
    println!("  In another terminal, as the person {PERSON:?} who has the role \"access\":");
    println!("    eval \"$(postern dev env{dir})\"");
    println!("    psql -c 'select * from orders'");
    println!("  What the role does not allow:");
    println!("    psql -U postgres -c 'select 1'");
    println!("  Who ran what:");
    println!("    postern ctl --data-dir {data_dir} audit ls");
    println!("  Who may do what:");
    println!("    postern ctl --data-dir {data_dir} get role/access");
    println!("\nCtrl-C stops the cluster and removes its database.");
}

/// The profile goes with the process; the state stays for the next start.
fn remove_profile(places: &Places) {
    match std::fs::remove_dir_all(&places.profile) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let text = terminal::printable(&error.to_string());
            eprintln!("postern: {} was not removed: {text}", places.profile.display());
        }
        _ => {}
    }
}

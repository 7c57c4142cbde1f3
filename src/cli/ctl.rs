//! `postern ctl`: the administrator's verbs, over the socket in auth's data directory.

use super::admin_client::AdminClient;
use super::audit::{self, AuditArgs};
use super::auth_sign::{self, AuthArgs};
use super::identity_files::IdentityFiles;
use super::people_client::PeopleClient;
use super::tokens::{self, TokenVerb};
use super::users::{self, UserVerb};
use super::{Failure, Outcome, terminal};
use crate::config::{Config, DEFAULT_DATA_DIR, DEFAULT_WEB_PORT, default_config_path};
use crate::model::{Endpoint, percent_encoded};
use crate::web::api::{PutResources, ResourceQuery, Resources, ResourcesPut, Status};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Table;
use hyper::Method;
use std::io::Read as _;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CtlArgs {
    /// Auth's data directory.
    #[arg(long, global = true, value_name = "DIR", env = "POSTERN_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Auth's configuration file, for its data directory.
    #[arg(short, long, global = true, value_name = "FILE", conflicts_with = "data_dir")]
    config: Option<PathBuf>,
    /// Administer from another machine, as a person: PREFIX.crt, PREFIX.key and PREFIX.cas, as `ctl auth sign` writes them. The
    /// person's roles decide what is allowed.
    #[arg(
        short,
        long,
        global = true,
        value_name = "PREFIX",
        conflicts_with = "config",
        requires = "proxy"
    )]
    identity: Option<PathBuf>,
    /// The proxy by which auth is reached with --identity.
    #[arg(long, global = true, value_name = "HOST:PORT", requires = "identity")]
    proxy: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The cluster, its CA pins and its nodes.
    #[command(after_help = "Example:\n  postern ctl status")]
    Status {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Create roles and users from a YAML file.
    #[command(after_help = "Example:\n  postern ctl create -f role.yaml")]
    Create {
        /// Replace what is there.
        #[arg(short, long)]
        force: bool,
        /// The file; `-` is standard input.
        file: PathBuf,
    },
    /// Show resources: roles, users, dbs, locks, nodes, or one of them: role/NAME.
    #[command(after_help = "Example:\n  postern ctl get role/access")]
    Get {
        what: String,
        #[arg(long, value_enum, default_value_t = Format::Yaml)]
        format: Format,
    },
    /// Remove a resource: role/NAME, user/NAME, db/NAME, lock/NAME, or a node from the cluster: node/NAME.
    #[command(after_help = "Example:\n  postern ctl rm role/orders-reader")]
    Rm { what: String },
    /// The databases that agents serve.
    #[command(subcommand)]
    Db(DbVerb),
    /// People, and the links by which they set a password.
    #[command(subcommand)]
    Users(UserVerb),
    /// Tokens by which nodes join the cluster.
    #[command(subcommand)]
    Tokens(TokenVerb),
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Certificates.
    Auth(AuthArgs),
}

#[derive(Debug, Subcommand)]
enum DbVerb {
    /// List databases by agent.
    #[command(after_help = "Example:\n  postern ctl db ls")]
    Ls {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
enum AuditVerb {
    /// List events, oldest first.
    #[command(after_help = "Example:\n  postern ctl audit ls --user alice --db orders --since 1h")]
    Ls(AuditArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
    Yaml,
}

pub fn run(args: CtlArgs) -> Outcome {
    let client = client(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    runtime.block_on(carry_out(&client, args.verb))
}

/// What was said on the command line, else the auth service of this machine.
fn client(args: &CtlArgs) -> Result<AdminClient, Failure> {
    match (&args.identity, &args.proxy) {
        (Some(prefix), Some(proxy)) => {
            let proxy = Endpoint::parse(proxy, DEFAULT_WEB_PORT).map_err(Failure::usage)?;
            let files = IdentityFiles::read(prefix)?;
            let client = PeopleClient::new(proxy, &files.host_authorities, Some(&files.credentials))?;
            Ok(AdminClient::remote(client))
        }
        _ => Ok(AdminClient::new(&data_dir(args)?)),
    }
}

fn data_dir(args: &CtlArgs) -> Result<PathBuf, Failure> {
    if let Some(dir) = &args.data_dir {
        return Ok(dir.clone());
    }
    match args.config.clone().or_else(default_config_path) {
        Some(path) => Ok(Config::load(&path).map_err(Failure::usage)?.data_dir),
        None => Ok(DEFAULT_DATA_DIR.into()),
    }
}

async fn carry_out(client: &AdminClient, verb: Verb) -> Outcome {
    match verb {
        Verb::Status { format } => status(client, format).await,
        Verb::Create { force, file } => create(client, force, &file).await,
        Verb::Get { what, format } => get(client, &what, format).await,
        Verb::Rm { what } => remove(client, &what).await,
        Verb::Db(DbVerb::Ls { format }) => databases(client, format).await,
        Verb::Users(verb) => users::run(client, verb).await,
        Verb::Tokens(verb) => tokens::run(client, verb).await,
        Verb::Audit(AuditVerb::Ls(args)) => audit::list(client, args).await,
        Verb::Auth(args) => auth_sign::run(client, args).await,
    }
}

async fn status(client: &AdminClient, format: Format) -> Outcome {
    let status: Status = client.get("/v1/status", &serde_json::Value::Null).await?;
    if format != Format::Text {
        return print_as(&status, format);
    }
    println!("Cluster  {}", status.cluster);
    println!("Version  {}", status.version);
    for pin in &status.ca_pins {
        println!("CA pin   {pin}");
    }
    let mut table = table(&["Node", "Services", "Databases"]);
    for node in &status.nodes {
        let databases: Vec<&str> = node.databases.iter().map(|database| database.name.as_str()).collect();
        table.add_row([
            terminal::one_line(&node.name),
            node.kinds.join(","),
            databases.join(", "),
        ]);
    }
    println!("\n{table}");
    Ok(())
}

async fn create(client: &AdminClient, replace: bool, file: &std::path::Path) -> Outcome {
    let mut yaml = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut yaml)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut yaml))
    };
    read.map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    // Read here first: a mistake is told with the file's name, and nothing is sent.
    crate::policy::parse_resources(&yaml).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let put: ResourcesPut = client
        .send(Method::PUT, "/v1/resources", &PutResources { yaml, replace })
        .await?;
    for done in put.done {
        let verb = if done.replaced { "updated" } else { "created" };
        println!("{} {:?} has been {verb}", done.kind, done.name);
    }
    Ok(())
}

async fn get(client: &AdminClient, what: &str, format: Format) -> Outcome {
    let (kind, name) = match what.split_once('/') {
        Some((kind, name)) => (kind.to_owned(), Some(name.to_owned())),
        None => (what.to_owned(), None),
    };
    let found: Resources = client.get("/v1/resources", &ResourceQuery { kind, name }).await?;
    match format {
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&found.documents).map_err(Failure::internal)?
        ),
        _ => {
            for document in found.yaml {
                println!("---\n{}", terminal::printable(document.trim_end()));
            }
        }
    }
    Ok(())
}

async fn remove(client: &AdminClient, what: &str) -> Outcome {
    let Some((kind, name)) = what.split_once('/') else {
        return Err(Failure::usage(format!(
            "{what:?} names no resource; write role/NAME, user/NAME, db/NAME, lock/NAME or node/NAME"
        )));
    };
    let path = format!("/v1/resources/{}/{}", percent_encoded(kind), percent_encoded(name));
    let _removed: serde_json::Value = client.delete(&path).await?;
    println!("{kind} {name:?} has been deleted");
    Ok(())
}

async fn databases(client: &AdminClient, format: Format) -> Outcome {
    let status: Status = client.get("/v1/status", &serde_json::Value::Null).await?;
    let rows: Vec<_> = status
        .nodes
        .iter()
        .flat_map(|node| node.databases.iter().map(move |database| (node, database)))
        .collect();
    if format != Format::Text {
        let rows: Vec<_> = rows
            .iter()
            .map(|(node, database)| {
                serde_json::json!({
                    "name": database.name, "description": database.description, "labels": database.labels,
                    "uri": database.uri, "agent": node.name,
                })
            })
            .collect();
        return print_as(&rows, format);
    }
    let mut table = table(&["Name", "Description", "Labels", "URI", "Agent"]);
    for (node, database) in rows {
        table.add_row([
            terminal::one_line(&database.name),
            terminal::one_line(&database.description),
            terminal::one_line(&crate::model::Labels(database.labels.clone()).to_string()),
            terminal::one_line(&database.uri),
            terminal::one_line(&node.name),
        ]);
    }
    println!("{table}");
    Ok(())
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    table
}

pub(super) fn print_as(value: &impl serde::Serialize, format: Format) -> Outcome {
    let text = match format {
        Format::Yaml => serde_saphyr::to_string(value).map_err(Failure::internal)?,
        Format::Json | Format::Text => serde_json::to_string_pretty(value).map_err(Failure::internal)?,
    };
    println!("{text}");
    Ok(())
}

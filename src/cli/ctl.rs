//! `postern ctl`: the administrator's verbs, over the socket in auth's data directory, or as a person through a proxy.

use super::admin_client::AdminClient;
use super::audit::{self, AuditArgs};
use super::auth_sign::{self, AuthArgs};
use super::inventory::{self, DbVerb, NodeVerb};
use super::lock::{self, AccessVerb, LockArgs};
use super::names::Program;
use super::terminal::{printable, printable_json};
use super::tokens::{self, TokenVerb};
use super::users::{self, UserVerb};
use super::{Failure, Outcome, auth_choice, edit, resources, status};
use crate::telemetry::logging::{self, LogFormat, LogOutput};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Table;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CtlArgs {
    /// Auth's data directory; where neither it nor --config nor --identity is given, the auth service of this machine is asked,
    /// else auth by the login.
    #[arg(long, global = true, value_name = "DIR", env = "POSTERN_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Auth's configuration file, for its data directory.
    #[arg(short, long, global = true, value_name = "FILE", conflicts_with = "data_dir")]
    config: Option<PathBuf>,
    /// Say on standard error what is done.
    #[arg(short, long, global = true)]
    debug: bool,
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
    /// The cluster, its authorities, what is not well in it and what ends soon.
    #[command(after_help = "Example:\n  postern ctl status")]
    Status {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Create roles and users from a YAML file.
    #[command(
        after_help = "Examples:\n  postern ctl create -f role.yaml\n  postern ctl get all | postern ctl create -f -"
    )]
    Create {
        /// Replace what is there.
        #[arg(short, long)]
        force: bool,
        /// The file; `-` is standard input.
        file: PathBuf,
    },
    /// Show resources: role, user, db, lock, node, token, cert_authority, db_server.
    #[command(
        after_help = "Examples:\n  postern ctl get role/access\n  postern ctl get users,nodes --format=text\n  \
        postern ctl get all > backup.yaml"
    )]
    Get {
        /// KIND or KIND/NAME, with commas between several; `all` is what `create` can read back.
        what: String,
        #[arg(long, value_enum, default_value_t = Format::Yaml)]
        format: Format,
    },
    /// Remove a resource: role/NAME, user/NAME, db/NAME, lock/NAME, token/NAME, or a node from the cluster: node/NAME.
    #[command(after_help = "Example:\n  postern ctl rm role/orders-reader")]
    Rm {
        /// KIND/NAME
        what: String,
    },
    /// Change a role or a user in an editor: that of POSTERN_EDITOR, TELEPORT_EDITOR, VISUAL or EDITOR, else vi.
    #[command(after_help = "Example:\n  postern ctl edit role/orders-reader")]
    Edit {
        /// KIND/NAME
        what: String,
    },
    /// The nodes of the cluster.
    #[command(subcommand)]
    Nodes(NodeVerb),
    /// The databases that agents serve.
    #[command(subcommand)]
    Db(DbVerb),
    /// People, and the links by which they set a password.
    #[command(subcommand)]
    Users(UserVerb),
    /// Tokens by which nodes join the cluster.
    #[command(subcommand)]
    Tokens(TokenVerb),
    /// Keep a person, a role or a node out of all sessions: those that are open end.
    #[command(after_help = "Examples:\n  \
        postern ctl lock --user=alice --message='under investigation' --ttl=12h\n  \
        postern ctl get locks")]
    Lock(LockArgs),
    /// Who may use what, and why.
    #[command(subcommand)]
    Access(AccessVerb),
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Certificates.
    Auth(AuthArgs),
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

pub fn run(program: Program, args: CtlArgs) -> Outcome {
    if args.debug {
        logging::start("debug", LogFormat::Text, LogOutput::Stderr).map_err(Failure::usage)?;
    }
    let client = client(program, &args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    runtime.block_on(carry_out(&client, program, args.verb))
}

/// What was said on the command line, else what is found.
fn client(program: Program, args: &CtlArgs) -> Result<AdminClient, Failure> {
    match (&args.identity, &args.proxy) {
        (Some(prefix), Some(proxy)) => auth_choice::as_person(prefix, proxy),
        _ => match auth_choice::named(args.data_dir.as_deref(), args.config.as_deref())? {
            Some(client) => Ok(client),
            None => auth_choice::found(program),
        },
    }
}

async fn carry_out(client: &AdminClient, program: Program, verb: Verb) -> Outcome {
    match verb {
        Verb::Status { format } => status::print(client, program, format).await,
        Verb::Create { force, file } => resources::create(client, force, &file).await,
        Verb::Get { what, format } => resources::get(client, &what, format).await,
        Verb::Rm { what } => resources::remove(client, &what).await,
        Verb::Edit { what } => edit::edit(client, program, &what).await,
        Verb::Nodes(verb) => inventory::nodes(client, verb).await,
        Verb::Db(verb) => inventory::databases(client, verb).await,
        Verb::Users(verb) => users::run(client, verb).await,
        Verb::Tokens(verb) => tokens::run(client, verb).await,
        Verb::Lock(args) => lock::lock(client, args).await,
        Verb::Access(verb) => lock::access(client, verb).await,
        Verb::Audit(AuditVerb::Ls(args)) => audit::list(client, args).await,
        Verb::Auth(args) => auth_sign::run(client, program, args).await,
    }
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    table
}

pub(super) fn print_as(value: &impl serde::Serialize, format: Format) -> Outcome {
    let text = match format {
        Format::Yaml => printable(&serde_saphyr::to_string(value).map_err(Failure::internal)?),
        Format::Json | Format::Text => printable_json(&serde_json::to_string_pretty(value).map_err(Failure::internal)?),
    };
    println!("{text}");
    Ok(())
}

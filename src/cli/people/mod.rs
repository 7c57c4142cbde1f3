//! What people type who use databases: `postern login`, `postern db ls`, …; also under the name `tsh`.

mod choice;
mod connection;
mod database;
mod list;
mod login;
mod prompt;
mod service_file;
mod session;
mod status;

use super::ctl::Format;
use super::names::Program;
use super::people_client::PeopleClient;
use super::profile::{Home, ProfileError};
use super::{Failure, Outcome};
use clap::{Args, Subcommand, ValueEnum};
use session::Session;

/// Which login a command is for.
#[derive(Debug, Args)]
pub struct At {
    /// The proxy, host:port; without a port 443 and 3080 are tried. The last one when left out.
    #[arg(long, value_name = "HOST[:PORT]")]
    proxy: Option<String>,
    /// Your name in the cluster.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum PeopleCommand {
    /// Log in with password and one-time code, for as long as your roles allow.
    #[command(after_help = "Examples:\n  postern login --proxy=proxy.example.com --user=alice\n  \
        postern login --proxy=proxy.example.com:3080 --ca-pin=sha256:…")]
    Login(LoginArgs),
    /// Log out: remove keys and certificates from this machine.
    #[command(after_help = "Examples:\n  postern logout\n  postern logout --proxy=proxy.example.com:443 --user=alice")]
    Logout {
        #[command(flatten)]
        at: At,
    },
    /// Show who you are, where, and until when.
    #[command(after_help = "Example:\n  postern status")]
    Status {
        #[arg(short, long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print the current proxy and cluster, for `eval`.
    #[command(after_help = "Example:\n  postern env")]
    Env {
        /// Print what takes them away again.
        #[arg(long)]
        unset: bool,
    },
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    #[command(flatten)]
    at: At,
    /// How long: minutes, or a duration such as 8h. Never longer than your roles allow.
    #[arg(long, value_name = "MINUTES")]
    ttl: Option<String>,
    /// Believe whatever answers at the first contact; from then on only that cluster.
    #[arg(long)]
    insecure: bool,
    /// The cluster's CA pin, as `ctl status` prints it. Several while the authority is rotated.
    #[arg(long, value_name = "PIN")]
    ca_pin: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum PeopleDbVerb {
    /// List the databases that you may use.
    #[command(after_help = "Examples:\n  postern db ls\n  postern db ls env=dev --format=json")]
    Ls(ListArgs),
    /// Get a certificate for a database, and make it a service of psql.
    #[command(after_help = "Example:\n  postern db login --db-user=reader --db-name=orders example")]
    Login(DatabaseArgs),
    /// Remove the certificate for a database, or those for all.
    #[command(after_help = "Examples:\n  postern db logout example\n  postern db logout")]
    Logout {
        #[command(flatten)]
        at: At,
        database: Option<String>,
    },
    /// Run psql on a database, with a certificate for it.
    #[command(after_help = "Example:\n  postern db connect --db-user=reader --db-name=orders example")]
    Connect(DatabaseArgs),
    /// Print the settings of a database that you are logged in to, for `eval`.
    #[command(after_help = "Example:\n  postern db env example\n  eval \"$(postern db env example)\"")]
    Env {
        #[command(flatten)]
        at: At,
        #[arg(short, long, value_enum, default_value_t)]
        format: Format,
        database: Option<String>,
    },
    /// Print how other programs connect to a database that you are logged in to.
    #[command(after_help = "Example:\n  postern db config --format=cmd example")]
    Config {
        #[command(flatten)]
        at: At,
        /// `cmd` is the command line of psql.
        #[arg(short, long, value_enum, default_value_t)]
        format: ConfigFormat,
        database: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    at: At,
    /// Only those with these labels: env=dev,team=orders.
    labels: Option<String>,
    /// Show protocol, address and expiry too.
    #[arg(short, long)]
    verbose: bool,
    /// Only those with all of these words, commas between them, in name, description or labels.
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    search: Vec<String>,
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
pub struct DatabaseArgs {
    #[command(flatten)]
    at: At,
    /// The database user to be.
    #[arg(short = 'u', long, value_name = "USER")]
    db_user: Option<String>,
    /// The database in the server to open.
    #[arg(short = 'n', long, value_name = "NAME")]
    db_name: Option<String>,
    /// The database, as `db ls` names it.
    database: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ConfigFormat {
    #[default]
    Text,
    Cmd,
    Json,
    Yaml,
}

pub fn run(program: Program, command: PeopleCommand) -> Outcome {
    match command {
        PeopleCommand::Login(args) => wait(login::log_in(program, &args)),
        PeopleCommand::Logout { at } => login::log_out(&at),
        PeopleCommand::Status { format } => status::show(program, format),
        PeopleCommand::Env { unset } => status::environment(program, unset),
    }
}

pub fn run_db(program: Program, verb: PeopleDbVerb) -> Outcome {
    match verb {
        PeopleDbVerb::Ls(args) => wait(list::list(program, &args)),
        PeopleDbVerb::Login(args) => wait(database::log_in(program, &args)),
        PeopleDbVerb::Logout { at, database } => database::log_out(program, &at, database.as_deref()),
        PeopleDbVerb::Connect(args) => wait(database::connect(program, &args)),
        PeopleDbVerb::Env { at, format, database } => database::environment(program, &at, format, database.as_deref()),
        PeopleDbVerb::Config { at, format, database } => database::config(program, &at, format, database.as_deref()),
    }
}

/// The client of whoever is logged in; `None` where nobody is.
///
/// # Errors
/// The login has expired, or cannot be read.
pub fn client_of_login(program: Program) -> Result<Option<PeopleClient>, Failure> {
    let home = match Home::of_environment() {
        // A service's account.
        Err(ProfileError::NoHome) => return Ok(None),
        home => home.map_err(Failure::failed)?,
    };
    let at = At {
        proxy: None,
        user: None,
    };
    let Some(profile) = at.profile(&home)? else {
        return Ok(None);
    };
    if home.credentials(&profile).map_err(Failure::failed)?.is_none() {
        return Ok(None);
    }
    let names_login = match program {
        Program::Postern | Program::Tsh => program,
        Program::Tctl | Program::Teleport => Program::Tsh,
    };
    Session::open(names_login, &at)?.client().map(Some)
}

fn wait(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    runtime.block_on(work)
}

//! The command line: what people type, and what they read back.
//!
//! Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong, 70 the program cannot go on
//! (`EX_SOFTWARE` of sysexits.h), 141 done, but nobody reads what it prints any more.

// First: its macros stand in place of std's from here on.
#[macro_use]
mod output;

mod actor;
mod actors;
mod actors_text;
mod admin_client;
mod audit;
mod auth_choice;
mod auth_export;
mod auth_sign;
mod command_line;
mod configure;
mod ctl;
mod db_service;
mod deadline;
mod debug;
mod debug_client;
mod dev;
mod dev_database;
mod edit;
mod first_contact;
mod http_exchange;
mod identity_files;
mod inventory;
mod lock;
mod names;
mod node_flags;
mod people;
pub mod people_client;
pub mod profile;
mod refused_flags;
mod resources;
mod signals;
mod start;
mod status;
mod terminal;
pub mod throwaway_postgres;
mod tokens;
mod trace;
mod trace_text;
mod users;

use clap::{Parser, Subcommand};
use names::Program;
use output::Ended;
use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

const WRONG_USAGE: u8 = 2;
const CANNOT_GO_ON: u8 = 70;

/// Access to PostgreSQL without passwords, VPNs or shared accounts.
#[derive(Debug, Parser)]
#[command(name = "postern", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Node(NodeCommand),
    /// Databases: use them, or run the database service.
    #[command(subcommand)]
    Db(DbCommand),
    #[command(flatten)]
    People(people::PeopleCommand),
    /// Run a whole cluster in one process, with a database to try, for this machine only.
    #[command(after_help = "Example:\n  postern dev\n  eval \"$(postern dev env)\" && psql")]
    Dev(dev::DevArgs),
    /// Look into a node: who lives in it, where each of them stands, and what is stuck.
    #[command(after_help = "Examples:\n  postern actors\n  postern actors --stuck\n  \
        postern actors --sort=mailbox --watch\n  postern actors --node db-1")]
    Actors(actors::ActorsArgs),
    /// Look at one actor of a node: where it stands, and what happened to it lately.
    #[command(after_help = "Examples:\n  postern actor ca\n  postern actor listener/connection#00c0ffee00c0ffee")]
    Actor(actor::ActorArgs),
    /// Trace one connection through proxy and agent: where it is now, what it waits for, and what happened for it.
    #[command(
        after_help = "Examples:\n  postern trace --user alice\n  postern trace 00c0ffee00c0ffee --follow\n  \
        postern trace 00c0ffee00c0ffee --save trace.json\n  postern trace show trace.json"
    )]
    Trace(trace::TraceArgs),
    /// Change what a node logs, while it runs.
    #[command(after_help = "Example:\n  postern debug set-log-level debug")]
    Debug(debug::DebugArgs),
    /// Administer the cluster: on the machine of its auth service, or elsewhere as whoever is logged in.
    Ctl(ctl::CtlArgs),
}

#[derive(Debug, Subcommand)]
enum DbCommand {
    #[command(flatten)]
    People(people::PeopleDbVerb),
    #[command(flatten)]
    Node(db_service::DbVerb),
}

/// What whoever runs nodes types; also under the name `teleport`.
#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Run the services of a configuration file, or of the flags alone.
    #[command(after_help = "Examples:\n  postern start --config /etc/postern.yaml\n  \
        postern start --roles=proxy --auth-server=auth.internal:3025 \\\n     --token=/tmp/token --ca-pin=sha256:…")]
    Start(Box<start::StartArgs>),
    /// Make a configuration file, or check one.
    #[command(after_help = "Examples:\n  \
        postern configure --acme --acme-email=admin@example.com \\\n     --cluster-name=gate.example.com > /etc/postern.yaml\n  \
        postern configure --roles=proxy --auth-server=auth.internal:3025 \\\n     --token=/tmp/token --ca-pin=sha256:… --output=file\n  \
        postern configure --test=/etc/postern.yaml")]
    Configure(Box<configure::ConfigureArgs>),
    /// Print the version.
    #[command(after_help = "Example:\n  postern version")]
    Version,
}

/// Why a command failed, with its exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn failed(message: impl ToString) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
        }
    }

    /// The same, with what to do next.
    fn and(self, next: &str) -> Self {
        let message = format!("{}; {next}", self.message);
        Self { message, ..self }
    }

    /// With the exit code of a program that was run.
    fn with_code(code: u8, message: impl ToString) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }

    fn usage(message: impl ToString) -> Self {
        Self {
            code: WRONG_USAGE,
            message: message.to_string(),
        }
    }

    fn internal(message: impl ToString) -> Self {
        Self {
            code: CANNOT_GO_ON,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<crate::node::StartError> for Failure {
    fn from(error: crate::node::StartError) -> Self {
        match &error {
            crate::node::StartError::Config(_) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

type Outcome = Result<(), Failure>;

pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let program = Program::called_by(arguments.first().map(OsString::as_os_str));
    let outcome = command_line::read(program, &arguments).and_then(|command| carry_out(program, command));
    let outcome = match (outcome, output::end()) {
        (Ok(()), Ended::NobodyReads) => return ExitCode::from(output::NOBODY_READS),
        (Ok(()), Ended::Failed(error)) => Err(Failure::failed(format!(
            "standard output cannot be written: {error}; what was printed is not complete"
        ))),
        (outcome, _) => outcome,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{program}: {}", terminal::printable(&failure.message));
            ExitCode::from(failure.code)
        }
    }
}

fn carry_out(program: Program, command: Command) -> Outcome {
    match command {
        Command::Node(NodeCommand::Start(args)) => start::run(&args),
        Command::Node(NodeCommand::Configure(args)) => configure::run(program, &args),
        Command::Node(NodeCommand::Version) => version(),
        Command::Db(DbCommand::Node(verb)) => db_service::run(program, &verb),
        Command::Db(DbCommand::People(verb)) => people::run_db(program, verb),
        Command::People(command) => people::run(program, command),
        Command::Dev(args) => dev::run(args),
        Command::Actors(args) => ask(actors::run(program, args)),
        Command::Actor(args) => ask(actor::run(program, args)),
        Command::Trace(args) => ask(trace::run(program, args)),
        Command::Debug(args) => ask(debug::run(program, args)),
        Command::Ctl(args) => ctl::run(program, args),
    }
}

/// A command that only asks and prints.
fn ask(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    runtime.block_on(work)
}

fn version() -> Outcome {
    println!("Postern v{}", env!("CARGO_PKG_VERSION"));
    if crate::telemetry::fault::ENABLED {
        println!("built with fault-points: for tests only");
    }
    Ok(())
}

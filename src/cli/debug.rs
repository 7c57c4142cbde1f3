//! `postern debug`: what is changed in a node while it runs.

use super::Outcome;
use super::debug_client::{DebugClient, WhichNode};
use super::names::Program;
use super::terminal::one_line;
use crate::web::debug::LogLevel;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct DebugArgs {
    #[command(subcommand)]
    verb: DebugVerb,
}

#[derive(Debug, Subcommand)]
enum DebugVerb {
    /// Print what the node logs at the moment.
    #[command(after_help = "Example:\n  postern debug get-log-level")]
    GetLogLevel {
        #[command(flatten)]
        which: WhichNode,
    },
    /// Change what the node logs, until it ends.
    #[command(after_help = "Examples:\n  postern debug set-log-level debug\n  \
        postern debug set-log-level info,postern::actors=trace")]
    SetLogLevel {
        /// error, warn, info, debug or trace; or a list of targets with levels.
        level: String,
        #[command(flatten)]
        which: WhichNode,
    },
}

pub async fn run(program: Program, args: DebugArgs) -> Outcome {
    let said: LogLevel = match args.verb {
        DebugVerb::GetLogLevel { which } => {
            let client = DebugClient::of(&which, program).await?;
            client.log_level(None).await?
        }
        DebugVerb::SetLogLevel { level, which } => {
            let client = DebugClient::of(&which, program).await?;
            client.log_level(Some(&LogLevel { level })).await?
        }
    };
    println!("{}", one_line(&said.level));
    Ok(())
}

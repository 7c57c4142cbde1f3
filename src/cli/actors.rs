//! `postern actors`: who lives in a node, where each of them stands, and what is stuck.

use super::debug_client::{DebugClient, WhichNode};
use super::names::Program;
use super::terminal::{emphasised, printable_json, width};
use super::{Failure, Outcome, actors_text, output};
use crate::telemetry::view::NodeView;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::io::IsTerminal as _;
use std::time::Duration;

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// To the upper left, and nothing below.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

#[derive(Debug, Args)]
pub struct ActorsArgs {
    #[command(flatten)]
    which: WhichNode,
    /// In which order; by anything but the path it is a list, the greatest first.
    #[arg(long, value_enum, default_value_t)]
    sort: SortBy,
    /// Only those of this kind: `connection`, `ca`, …
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only those in this state.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only those that something is wrong with.
    #[arg(long)]
    stuck: bool,
    /// Every one of many that are alike.
    #[arg(short, long)]
    all: bool,
    /// Look again each second, until Ctrl-C.
    #[arg(short, long, conflicts_with = "format")]
    watch: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SortBy {
    #[default]
    Path,
    /// Messages that wait.
    Mailbox,
    /// Time in handlers, in all.
    Busy,
    Restarts,
    /// How long they live.
    Age,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// What of a node is shown.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    pub sort: SortBy,
    pub kind: Option<String>,
    pub state: Option<String>,
    pub stuck: bool,
    pub all: bool,
}

pub async fn run(program: Program, args: ActorsArgs) -> Outcome {
    let client = DebugClient::of(&args.which, program).await?;
    let shown = Shown {
        sort: args.sort,
        kind: args.kind,
        state: args.state,
        stuck: args.stuck,
        all: args.all,
    };
    loop {
        let view: NodeView = client.get("/actors", &Value::Null).await?;
        if args.format == Format::Json {
            return print_json(&view);
        }
        if args.watch && std::io::stdout().is_terminal() {
            print!("{CLEAR}");
        }
        print!("{}", emphasised(&actors_text::page(&view, &shown, width())));
        if !args.watch || !output::is_open() {
            return Ok(());
        }
        println!("");
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

pub(super) fn print_json(value: &impl serde::Serialize) -> Outcome {
    let json = serde_json::to_string_pretty(value).map_err(Failure::internal)?;
    println!("{}", printable_json(&json));
    Ok(())
}

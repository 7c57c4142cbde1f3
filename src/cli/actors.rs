//! `postern actors`: who lives in a node, where each of them stands, and what is stuck.

use super::debug_client::{DebugClient, WhichNode};
use super::names::Program;
use super::terminal::{emphasised, printable_json, width};
use super::{Failure, Outcome, actors_text, output};
use crate::telemetry::view::{ActorView, NodeView};
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

impl Shown {
    /// Those that are asked for, in the order that is asked for.
    pub fn chosen<'a>(&self, view: &'a NodeView) -> Vec<&'a ActorView> {
        let asked_for = |actor: &&ActorView| self.is_asked_for(actor, view);
        let mut actors: Vec<&ActorView> = view.actors.iter().filter(asked_for).collect();
        if self.sort != SortBy::Path {
            actors.sort_by_key(|actor| std::cmp::Reverse(weight(actor, self.sort)));
        }
        actors
    }

    fn is_asked_for(&self, actor: &ActorView, view: &NodeView) -> bool {
        let is_stuck = || {
            let mut named = view.findings.iter().flat_map(|finding| [&finding.room, &finding.peer]);
            named.any(|room| *room == actor.path)
                || actor.connection.as_ref().is_some_and(|connection| {
                    view.findings
                        .iter()
                        .any(|finding| finding.connection.as_ref() == Some(connection))
                })
        };
        self.kind.as_ref().is_none_or(|kind| *kind == actor.kind)
            && self.state.as_ref().is_none_or(|state| *state == actor.state)
            && (!self.stuck || is_stuck())
    }

    /// The same for programs: what is stuck, the relays and the ends are the node's all the same.
    pub fn of_json(&self, mut view: NodeView) -> NodeView {
        view.actors = self.chosen(&view).into_iter().cloned().collect();
        view
    }
}

fn weight(actor: &ActorView, by: SortBy) -> u64 {
    match by {
        SortBy::Path => 0,
        SortBy::Mailbox => actor.queued.into(),
        SortBy::Busy => actor.busy_us,
        SortBy::Restarts => actor.restarts.into(),
        SortBy::Age => actor.age_us,
    }
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
            return print_json(&shown.of_json(view));
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

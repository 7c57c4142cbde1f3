//! One causal tree of the parts that the processes have of one connection.
//!
//! Within a process a record names its cause. Between two of them the id of the message that was sent joins what arrived to it. So
//! the tree is the same whatever the processes' clocks say, and their times are told from the beginning of the connection at its
//! proxy: another process' times are moved so that nothing arrives before it was sent.

mod lines;
mod place;
mod standing;
mod steps;
#[cfg(test)]
mod tests;

pub use lines::{Line, Section, since_begin};

use super::record::RecordKind;
use super::stuck::lasting;
use super::view::{RecordView, Side, Trace, TracePart};
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceTree {
    pub connection: String,
    /// What the clock of its first process showed when the connection began.
    pub began: Option<String>,
    /// A cause before what it caused, with its depth: flat, so that no reader needs to nest as deep as a chain is long.
    pub steps: Vec<Step>,
    /// What is not in the tree, and why.
    pub gaps: Vec<String>,
    /// Where it is now, the cause of what is stuck first.
    pub now: Vec<Standing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Message,
    /// A message from another process.
    Arrived,
    Started,
    Exited,
    State,
}

/// One message, or one step of an actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub depth: u32,
    /// The place of its cause among the steps.
    pub parent: Option<usize>,
    pub node: String,
    /// Since the connection began; negative of what caused it.
    pub at_us: i64,
    pub kind: StepKind,
    pub what: String,
    pub from: Option<String>,
    pub to: String,
    /// In the mailbox, of a message that was handled.
    pub queued_us: Option<u64>,
    pub busy_us: Option<u64>,
    /// From its sending to its answer.
    pub answered_us: Option<u64>,
    /// It will never be handled.
    pub dropped: bool,
}

impl Step {
    /// It was sent, and that is the last that is known of it.
    pub fn is_open(&self) -> bool {
        let is_over = self.busy_us.is_some() || self.answered_us.is_some() || self.dropped;
        self.kind == StepKind::Message && !is_over
    }
}

/// How something of the connection stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub node: String,
    pub side: Side,
    pub sentence: String,
    /// What to do next, where something is stuck.
    pub next: Option<String>,
}

impl TraceTree {
    pub fn of(trace: &Trace) -> Self {
        let placed = place::place(&trace.parts);
        let (steps, first) = steps::tree(&placed);
        let mut gaps: Vec<String> = placed.iter().filter_map(|part| overwritten(part.part)).collect();
        let apart = placed.iter().filter(|part| !part.is_joined);
        gaps.extend(apart.map(|part| {
            format!(
                "nothing joins the part of {} to another: its times are from its own beginning",
                part.part.node
            )
        }));
        gaps.extend(without_its_proxy(trace));
        let mut missing: Vec<_> = trace.missing.iter().collect();
        missing.sort_by(|a, b| (&a.node, &a.why).cmp(&(&b.node, &b.why)));
        gaps.extend(
            missing
                .iter()
                .map(|part| format!("no part of {}: {}", part.node, part.why)),
        );
        let parts: Vec<&TracePart> = placed.iter().map(|part| part.part).collect();
        Self {
            connection: trace.connection.clone(),
            began: first,
            steps,
            gaps,
            now: standing::standing(&trace.connection, &parts),
        }
    }
}

/// An agent asks nobody: who asks it is told where the other half is.
fn without_its_proxy(trace: &Trace) -> Option<String> {
    // Who was asked and gave none says so itself.
    if !trace.missing.is_empty() || trace.parts.iter().any(|part| part.side == Side::Proxy) {
        return None;
    }
    let agent = trace.parts.iter().find(|part| part.side == Side::Agent)?;
    let arrived = |record: &&RecordView| record.kind == RecordKind::Arrived && record.connection.is_some();
    let opened = agent
        .records
        .iter()
        .find(arrived)
        .and_then(|record| record.from.as_deref());
    let proxy = opened.unwrap_or("its proxy");
    Some(format!(
        "the part of {proxy}, as this was asked at the agent: on the machine of {proxy}, postern trace {} shows both",
        trace.connection
    ))
}

/// How much of its beginning a process has forgotten.
fn overwritten(part: &TracePart) -> Option<String> {
    let whole_since = Timestamp::parse_rfc3339(part.whole_since.as_deref()?)?;
    let relays = part.relays.iter().map(|relay| relay.age_us);
    let age = part
        .actors
        .iter()
        .filter(|actor| actor.connection.is_some())
        .map(|actor| actor.age_us)
        .chain(relays)
        .max()?;
    let began = Timestamp::parse_rfc3339(&part.at)? - Duration::from_micros(age);
    (whole_since > began).then(|| {
        let lost = lasting(whole_since.since(began));
        format!("the record of {} of the first {lost} is overwritten", part.node)
    })
}

/// What takes less than some milliseconds is told to the tenth of one.
fn length(micros: u64) -> String {
    const TENTHS_BELOW_US: u64 = 10_000;
    if micros < TENTHS_BELOW_US {
        let tenths = micros.div_ceil(100);
        return format!("{}.{} ms", tenths / 10, tenths % 10);
    }
    lasting(Duration::from_micros(micros))
}

//! One causal tree of the parts that the processes have of one connection.
//!
//! Within a process a record names its cause. Between two of them the id of the message that was sent joins what arrived to it. So
//! the tree is the same whatever the processes' clocks say, and their times are told from the beginning of the connection at its
//! proxy: another process' times are moved so that nothing arrives before it was sent.

mod lines;
mod place;
mod steps;
#[cfg(test)]
mod tests;

pub use lines::{Line, Section};

use super::stuck::{StuckRule, by_depth, lasting};
use super::view::{Finding, Side, Trace, TracePart};
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
            now: standing(&trace.connection, &parts),
        }
    }
}

/// How much of its beginning a process has forgotten.
fn overwritten(part: &TracePart) -> Option<String> {
    let whole_since = Timestamp::parse_rfc3339(part.whole_since.as_deref()?)?;
    let relay = part.relay.as_ref().map(|relay| relay.age_us);
    let age = part
        .actors
        .iter()
        .filter(|actor| actor.connection.is_some())
        .map(|actor| actor.age_us)
        .chain(relay)
        .max()?;
    let began = Timestamp::parse_rfc3339(&part.at)? - Duration::from_micros(age);
    (whole_since > began).then(|| {
        let lost = lasting(whole_since.since(began));
        format!("the record of {} of the first {lost} is overwritten", part.node)
    })
}

fn standing(connection: &str, parts: &[&TracePart]) -> Vec<Standing> {
    let mut now = Vec::new();
    for (part, finding) in sorted_findings(parts) {
        now.push(Standing {
            node: part.node.clone(),
            sentence: finding.sentence.clone(),
            next: Some(finding.next.clone()),
        });
    }
    for part in parts {
        let mut say = |sentence| {
            now.push(Standing {
                node: part.node.clone(),
                sentence,
                next: None,
            });
        };
        for actor in &part.actors {
            let serves = actor.connection.as_deref() == Some(connection);
            let is_its = |of: &Option<String>| of.as_deref() == Some(connection) || (serves && of.is_none());
            if let Some(in_hand) = actor.in_hand.as_ref().filter(|in_hand| is_its(&in_hand.connection)) {
                let age = length(in_hand.age_us);
                say(format!("{} has had {} in hand for {age}", actor.path, in_hand.message));
            }
            for wait in actor.waits.iter().filter(|wait| is_its(&wait.connection)) {
                let age = length(wait.age_us);
                say(format!(
                    "{} has waited {age} for {} ({})",
                    actor.path, wait.to, wait.message
                ));
            }
        }
        if let Some(relay) = &part.relay {
            let way = |way: &super::view::WayView| {
                format!(
                    "{} bytes, waits for {} since {}",
                    way.bytes,
                    way.waits_for,
                    length(way.still_us)
                )
            };
            say(format!(
                "the relay to {} has been {} for {}; to upstream: {}; to client: {}",
                relay.upstream,
                relay.state,
                length(relay.state_age_us),
                way(&relay.to_upstream),
                way(&relay.to_client)
            ));
        }
    }
    now
}

/// The cause first. Who is silent is told by the agent, where it has a part; the proxy would tell it again.
fn sorted_findings<'a>(parts: &[&'a TracePart]) -> Vec<(&'a TracePart, &'a Finding)> {
    let all = parts
        .iter()
        .flat_map(|part| part.findings.iter().map(move |finding| (*part, finding)));
    let mut found: Vec<(&TracePart, &Finding)> = all.collect();
    let is_silence = |(_, finding): &(&TracePart, &Finding)| finding.rule == StuckRule::UpstreamSilent.label();
    if found
        .iter()
        .any(|found| is_silence(found) && found.0.side == Side::Agent)
    {
        found.retain(|found| !(is_silence(found) && found.0.side == Side::Proxy));
    }
    found.sort_by(|(a, one), (b, other)| {
        let (depth, other_depth) = (by_depth(&one.rule, Some(a.side)), by_depth(&other.rule, Some(b.side)));
        let youngest_first = one.rule == StuckRule::ReplyOverdue.label();
        let age = if youngest_first {
            one.age_us.cmp(&other.age_us)
        } else {
            other.age_us.cmp(&one.age_us)
        };
        depth
            .cmp(&other_depth)
            .then(age)
            .then_with(|| (&a.node, &one.room, &one.sentence).cmp(&(&b.node, &other.room, &other.sentence)))
    });
    found
}

fn length(micros: u64) -> String {
    lasting(Duration::from_micros(micros))
}

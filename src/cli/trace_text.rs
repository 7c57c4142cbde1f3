//! A connection's trace as text: who it is of and where it is now, what is wrong, and what happened for it, cause before effect.

use super::actors_text::findings;
use super::ctl::table;
use super::terminal::{grouped, lasted, one_line};
use crate::telemetry::record::RecordKind;
use crate::telemetry::view::{ConnectionView, NodeView, RecordView, RelayView, Side, Trace, TracePart, WayView};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Ended connections that are listed where none fits.
const ENDED_SHOWN: usize = 5;
/// A chain of causes further in than this is not indented any more.
const DEPTH_MAX: usize = 12;

/// The whole page.
pub fn page(trace: &Trace) -> String {
    let mut out = format!("Connection {}\n", one_line(&trace.connection));
    for part in &trace.parts {
        out.push_str(&head(part));
    }
    for missing in &trace.missing {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "  nothing from {}: {}",
            one_line(&missing.node),
            one_line(&missing.why)
        );
    }
    let all: Vec<_> = trace.parts.iter().flat_map(|part| part.findings.clone()).collect();
    out.push_str(&findings(&all));
    out.push('\n');
    for step in steps(trace) {
        out.push_str(&step);
        out.push('\n');
    }
    out
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Proxy => "proxy",
        Side::Agent => "agent",
    }
}

fn head(part: &TracePart) -> String {
    let mut out = format!(
        "  {} ({}), at {}: ",
        one_line(&part.node),
        side(part.side),
        one_line(&part.at)
    );
    match (&part.relay, part.actors.last()) {
        (Some(relay), _) => out.push_str(&relayed(relay)),
        (None, Some(actor)) => {
            let _ = write!(
                out,
                "not relayed; {} is {} for {}",
                one_line(&actor.path),
                one_line(&actor.state),
                lasted(actor.state_age_us)
            );
        }
        (None, None) => out.push_str("nobody serves it any more"),
    }
    out.push('\n');
    if let Some(since) = &part.whole_since {
        let _ = writeln!(
            out,
            "    its record before {} may have been overwritten",
            one_line(since)
        );
    }
    out
}

fn relayed(relay: &RelayView) -> String {
    format!(
        "{} as {} to {} ({}), since {}\n    client {}, then {}, process {} of PostgreSQL\n    {} for {}\n    to PostgreSQL: {}\n    \
         to the client: {}",
        one_line(&relay.user),
        one_line(&relay.db_user),
        one_line(&relay.database),
        one_line(&relay.db_name),
        lasted(relay.age_us),
        one_line(&relay.client),
        one_line(&relay.upstream),
        relay.process_id,
        one_line(&relay.state),
        lasted(relay.state_age_us),
        way(&relay.to_upstream),
        way(&relay.to_client),
    )
}

fn way(way: &WayView) -> String {
    let waits = match way.waits_for.as_str() {
        "source" => "nothing to read",
        "audit" => "held back until the audit trail takes more",
        "sink" => "its reader takes no more",
        "done" => "closed",
        other => return format!("{} bytes, {}", grouped(way.bytes), one_line(other)),
    };
    format!("{} bytes, {waits} for {}", grouped(way.bytes), lasted(way.still_us))
}

/// What happened, a line for each record, indented below what caused it.
pub fn steps(trace: &Trace) -> Vec<String> {
    let mut lines = Vec::new();
    for part in &trace.parts {
        let mut depths: HashMap<u64, usize> = HashMap::new();
        for record in &part.records {
            // The cause of what arrived is another process's, whose numbers mean nothing here.
            let cause = record.cause.filter(|_| record.kind != RecordKind::Arrived);
            let own = depths.get(&record.id).copied();
            let below = cause.and_then(|cause| depths.get(&cause)).map_or(0, |depth| depth + 1);
            let depth = own.unwrap_or(below).min(DEPTH_MAX);
            depths.insert(record.id, depth);
            lines.push(format!(
                "{}  {:<12}  {}{}",
                one_line(&record.at),
                one_line(&part.node),
                "  ".repeat(depth),
                said(record)
            ));
        }
    }
    lines
}

fn said(record: &RecordView) -> String {
    let (what, to) = (one_line(&record.what), one_line(&record.to));
    let from = record.from.as_deref().map_or_else(|| "outside".to_owned(), one_line);
    match record.kind {
        RecordKind::Sent => format!("{what}: {from} -> {to}"),
        RecordKind::Handled => format!(
            "{what}: {to} was done with it in {}, after {} in the mailbox",
            lasted(record.busy_us),
            lasted(record.queued_us)
        ),
        RecordKind::Dropped => format!("{what}: {from} -> {to} was dropped and will never be handled"),
        RecordKind::Answered => format!("{what}: answered after {}", lasted(record.queued_us)),
        RecordKind::Arrived => format!("{what}: arrived at {to}"),
        RecordKind::Started => format!("{to} began"),
        RecordKind::Exited => format!("{to} ended: {what}"),
        RecordKind::State => format!("{to} is {what}"),
    }
}

/// Several fit: each with what to type.
pub fn several(found: &[ConnectionView], flags: &str) -> String {
    let mut table = table(&["Since", "Side", "User", "Database", "State", "Client", "Trace it with"]);
    for view in found {
        let relay = view.relay.as_ref();
        let of = |field: fn(&RelayView) -> &String| relay.map_or_else(String::new, |relay| one_line(field(relay)));
        table.add_row([
            lasted(view.age_us),
            side(view.side).to_owned(),
            of(|relay| &relay.user),
            of(|relay| &relay.database),
            one_line(&view.state),
            of(|relay| &relay.client),
            format!("postern trace {}{}", one_line(&view.connection), one_line(flags)),
        ]);
    }
    format!("{table}\n")
}

/// None fits: what has ended lately.
pub fn none_fits(node: &NodeView) -> String {
    let mut out = format!("No connection of node {} fits.\n", one_line(&node.node));
    let ended = node
        .exits
        .iter()
        .filter_map(|exit| Some((exit, exit.connection.as_ref()?)));
    let ended: Vec<_> = ended.take(ENDED_SHOWN).collect();
    if !ended.is_empty() {
        out.push_str("Ended lately, of whomever:\n");
    }
    for (exit, connection) in ended {
        let _ = writeln!(
            out,
            "  {}  {}: postern trace {}",
            one_line(&exit.at),
            one_line(&exit.why),
            one_line(connection)
        );
    }
    out
}

#[cfg(test)]
#[path = "trace_text_tests.rs"]
pub(super) mod tests;

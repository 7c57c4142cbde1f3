//! A node's actors as text: what is stuck first, then the tree with where each of them stands, then who failed lately.

use super::actors::{Shown, SortBy};
use super::terminal::{fitted, grouped, lasted, one_line, wrapped};
use crate::audit::WRITER_THREAD;
use crate::telemetry::view::{ActorView, Finding, LeftOut, NodeView};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Of actors that differ by their number only, more than this are one line; a screen has some fifty.
const ALIKE_MAX: usize = 20;
/// Between two columns.
const GAP: &str = "  ";
/// A cell that has fewer characters says nothing any more.
const CELL_MIN: usize = 10;
/// Ends that are shown; the others are in JSON.
const EXITS_SHOWN: usize = 5;
/// The reason of a failure, where nothing bounds the width of a line.
const WHY_CHARS: usize = 60;

const HEADER: [&str; 7] = [
    "ACTOR",
    "STATE",
    "MAILBOX",
    "IN HAND",
    "WAITS FOR",
    "RESTARTS",
    "LAST FAILURE",
];

/// The whole page.
pub fn page(view: &NodeView, shown: &Shown, width: Option<usize>) -> String {
    let mut out = wrapped("", &head(view), width);
    out.push_str(&left_out(view.left_out, width));
    out.push_str(&findings(&view.findings, width));
    let rows = rows(view, shown);
    let count = rows.len();
    out.push('\n');
    out.push_str(&columns(rows, width));
    if count == 0 {
        out.push_str("no actor is of that kind and state\n");
    }
    out.push_str(&exits(view, width));
    out
}

fn head(view: &NodeView) -> String {
    let id = if view.node_id.is_empty() {
        "not joined yet".to_owned()
    } else {
        one_line(&view.node_id)
    };
    format!(
        "Node {} ({id}): {}, version {}, up {}, at {}",
        one_line(&view.node),
        one_line(&view.services.join(", ")),
        one_line(&view.version),
        lasted(view.uptime_us),
        one_line(&view.at)
    )
}

/// That the answer of a node elsewhere was too long.
fn left_out(left_out: LeftOut, width: Option<usize>) -> String {
    let LeftOut {
        actors,
        exits,
        relays,
        findings,
    } = left_out;
    let parts = [
        (findings, "findings"),
        (actors, "actors"),
        (relays, "relays"),
        (exits, "ends"),
    ];
    let parts: Vec<_> = parts.iter().filter(|(count, _)| *count > 0).collect();
    if parts.is_empty() {
        return String::new();
    }
    let counted: Vec<_> = parts.iter().map(|(count, what)| format!("{count} {what}")).collect();
    let said = format!(
        "{} did not fit into the answer, those at rest first; on the machine of the node all are shown: postern actors",
        counted.join(", ")
    );
    wrapped("CUT    ", &said, width)
}

/// What is stuck, each with its next step; also that nothing is.
fn findings(findings: &[Finding], width: Option<usize>) -> String {
    if findings.is_empty() {
        return "Nothing is stuck.\n".to_owned();
    }
    let mut out = String::new();
    for finding in findings {
        let sentence = format!("{} [{}]", one_line(&finding.sentence), one_line(&finding.rule));
        out.push_str(&wrapped("STUCK  ", &sentence, width));
        let room = one_line(&finding.room);
        let at = if finding.peer.is_empty() || finding.peer == finding.room {
            room
        } else {
            format!("{room}, because of {}", one_line(&finding.peer))
        };
        out.push_str(&wrapped("       where: ", &at, width));
        out.push_str(&wrapped("       next: ", &one_line(&finding.next), width));
    }
    out
}

fn rows(view: &NodeView, shown: &Shown) -> Vec<[String; 7]> {
    let actors = shown.chosen(view);
    if shown.sort != SortBy::Path {
        return actors.iter().map(|actor| row(one_line(&actor.path), actor)).collect();
    }
    let is_whole_tree = shown.kind.is_none() && shown.state.is_none() && !shown.stuck;
    if !is_whole_tree {
        return actors.iter().map(|actor| row(one_line(&actor.path), actor)).collect();
    }
    tree(&actors, shown.all)
}

/// The tree: children below their parents, and many of a kind in one line.
fn tree(actors: &[&ActorView], all: bool) -> Vec<[String; 7]> {
    let mut alike: BTreeMap<(&str, &str), Vec<&ActorView>> = BTreeMap::new();
    for actor in actors.iter().filter(|actor| last(&actor.path).contains('#')) {
        alike.entry((parent(&actor.path), &actor.kind)).or_default().push(actor);
    }
    let (mut told, mut folded, mut rows) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for actor in actors {
        let above = parent(&actor.path);
        if folded.contains(above) {
            folded.insert(actor.path.as_str());
            continue;
        }
        let indent = "  ".repeat(actor.path.matches('/').count());
        let key = (above, actor.kind.as_str());
        match alike.get(&key).filter(|many| !all && many.len() > ALIKE_MAX) {
            Some(many) if last(&actor.path).contains('#') => {
                folded.insert(actor.path.as_str());
                if told.insert(key) {
                    rows.push(many_row(&indent, &actor.kind, many));
                }
            }
            _ => rows.push(row(format!("{indent}{}", one_line(last(&actor.path))), actor)),
        }
    }
    rows
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// `connection# 1,203 (1,190 relaying, 13 opening)`
fn many_row(indent: &str, kind: &str, many: &[&ActorView]) -> [String; 7] {
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for actor in many {
        *states.entry(&actor.state).or_default() += 1;
    }
    let mut states: Vec<_> = states.into_iter().collect();
    states.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let states: Vec<String> = states
        .iter()
        .map(|(state, count)| format!("{} {}", grouped(*count), one_line(state)))
        .collect();
    let name = format!(
        "{indent}{}# {} ({})",
        one_line(kind),
        grouped(many.len() as u64),
        states.join(", ")
    );
    let mut row: [String; 7] = Default::default();
    row[0] = name;
    row
}

fn row(name: String, actor: &ActorView) -> [String; 7] {
    let in_hand = actor.in_hand.as_ref().map_or_else(String::new, |in_hand| {
        format!("{} {}", one_line(&in_hand.message), lasted(in_hand.age_us))
    });
    let waits = actor.waits.first().map_or_else(String::new, |oldest| {
        let oldest = format!(
            "{} -> {} {}",
            one_line(&oldest.message),
            one_line(&oldest.to),
            lasted(oldest.age_us)
        );
        match actor.waiting {
            0 | 1 => oldest,
            several => format!("{oldest}, of {several}"),
        }
    });
    let mailbox = mailbox(actor);
    let restarts = if actor.restarts == 0 {
        String::new()
    } else {
        actor.restarts.to_string()
    };
    let failure = actor.last_failure.as_ref().map_or_else(String::new, |failure| {
        format!("{} {}", one_line(&failure.at), shortened(&one_line(&failure.why)))
    });
    [name, one_line(&actor.state), mailbox, in_hand, waits, restarts, failure]
}

/// `3/64`; of what is counted in bytes, `0/8 MiB`; nothing where there is none.
pub fn mailbox(actor: &ActorView) -> String {
    match (actor.queued, actor.bound) {
        (_, 0) => String::new(),
        (queued, bound) if actor.path == WRITER_THREAD => format!("{}/{}", sized(queued), sized(bound)),
        (queued, bound) => format!("{queued}/{bound}"),
    }
}

fn sized(bytes: u32) -> String {
    const KIB: u32 = 1024;
    const MIB: u32 = 1024 * KIB;
    match bytes {
        0 => "0".to_owned(),
        bytes if bytes >= MIB => format!("{} MiB", bytes.div_ceil(MIB)),
        bytes => format!("{} KiB", bytes.div_ceil(KIB)),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(WHY_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Rows under their header, without the columns in which nothing is, and no wider than the terminal: what does not fit ends in an
/// ellipsis, the longest cells first.
fn columns(rows: Vec<[String; 7]>, width: Option<usize>) -> String {
    let is_used: Vec<bool> = (0..HEADER.len())
        .map(|column| column < 3 || rows.iter().any(|row| !row[column].is_empty()))
        .collect();
    let header = HEADER.map(str::to_owned);
    // A line about many has nothing in the other columns, and may be longer than any name.
    let is_wide = |row: &[String; 7]| row[1..].iter().all(String::is_empty);
    let longest = |column: usize| {
        let cells = rows.iter().filter(|row| column > 0 || !is_wide(row)).chain([&header]);
        cells.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let used = || (0..HEADER.len()).filter(|column| is_used[*column]);
    let mut widths: Vec<usize> = (0..HEADER.len()).map(longest).collect();
    narrow(&mut widths, &is_used, width);
    let mut out = String::new();
    for row in [&header].into_iter().chain(&rows) {
        let mut line = String::new();
        for column in used() {
            let (cell, cells) = (&row[column], widths[column]);
            let cell = if is_wide(row) {
                cell.clone()
            } else {
                fitted(cell, Some(cells))
            };
            let _ = write!(line, "{cell:<cells$}{GAP}");
        }
        out.push_str(&fitted(line.trim_end(), width));
        out.push('\n');
    }
    out
}

/// Takes from the widest column until all fit, but leaves each wide enough to be read.
fn narrow(widths: &mut [usize], is_used: &[bool], width: Option<usize>) {
    let Some(width) = width else { return };
    loop {
        let used = widths.iter().zip(is_used).filter(|(_, is_used)| **is_used);
        let total: usize = used.map(|(cells, _)| cells + GAP.len()).sum();
        let widest = widths.iter_mut().zip(is_used).filter(|(_, is_used)| **is_used);
        let widest = widest.map(|(cells, _)| cells).max();
        match widest {
            Some(cells) if total > width + GAP.len() && *cells > CELL_MIN => *cells -= 1,
            _ => return,
        }
    }
}

fn exits(view: &NodeView, width: Option<usize>) -> String {
    let failed: Vec<_> = view.exits.iter().filter(|exit| exit.failed).collect();
    if failed.is_empty() {
        return String::new();
    }
    let mut out = "\nFailed lately:\n".to_owned();
    for exit in failed.iter().take(EXITS_SHOWN) {
        let who = format!("  {}  {}: ", one_line(&exit.at), one_line(&exit.path));
        out.push_str(&fitted(&format!("{who}{}", one_line(&exit.why)), width));
        out.push('\n');
    }
    if failed.len() > EXITS_SHOWN {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  and {} more: --format=json has them", failed.len() - EXITS_SHOWN);
    }
    out
}

#[cfg(test)]
#[path = "actors_text_tests.rs"]
pub(super) mod tests;

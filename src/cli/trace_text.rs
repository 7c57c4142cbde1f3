//! A connection's trace as text: who it is of, what is wrong and what to do about it, where it is now, and what happened for it,
//! cause before effect.

use super::ctl::table;
use super::terminal::{fitted, grouped, lasted, one_line, wrapped};
use crate::telemetry::tree::{Line, Section, Standing, TraceTree, since_begin};
use crate::telemetry::view::{ConnectionView, ExitView, NodeView, RelayView, Side, Trace, Whose};
use std::collections::HashSet;
use std::fmt::Write as _;

/// Ended connections that are listed where none that lives fits: a screen has more.
const ENDED_SHOWN: usize = 10;
/// A chain of causes further in than this is not indented any more.
const DEPTH_MAX: u32 = 12;
/// Around each cell of a list.
const CELL_SPACE: usize = 2;
/// A cell of a list that has fewer characters says nothing any more.
const CELL_MIN: usize = 6;
/// `+123.4ms`
const OFFSET_CHARS: usize = 8;

/// The whole page, in lines of so many characters where a terminal shows it.
pub fn page(trace: &Trace, width: Option<usize>) -> String {
    let tree = TraceTree::of(trace);
    let mut out = head(trace, &tree);
    // Two tunnels of one agent say the same.
    let mut said = HashSet::new();
    for stuck in tree.now.iter().filter(|standing| standing.next.is_some()) {
        if !said.insert(&stuck.sentence) {
            continue;
        }
        let next = stuck.next.as_deref().unwrap_or_default();
        out.push_str(&wrapped("STUCK  ", &one_line(&stuck.sentence), width));
        out.push_str(&wrapped("       next: ", &one_line(next), width));
    }
    out.push_str(&standing(trace, &tree, width));
    let steps = lines(tree.lines().filter(|line| line.section == Section::Step));
    if steps.is_empty() {
        out.push_str("\nNothing of it is in the record any more.\n");
        return out;
    }
    out.push_str("\nWhat happened, from cause to effect\n");
    for step in steps {
        out.push_str(&fitted(&step, width));
        out.push('\n');
    }
    out
}

/// Each step of the tree in a line of its own.
pub fn news(trace: &Trace) -> Vec<String> {
    lines(TraceTree::of(trace).news())
}

/// The relay that says most of the connection, and whether it is one that has ended.
fn relay(trace: &Trace) -> Option<(&RelayView, bool)> {
    let live = trace
        .parts
        .iter()
        .flat_map(|part| &part.relays)
        .map(|relay| (relay, false));
    let ended = trace.parts.iter().flat_map(|part| &part.ended);
    let ended = ended.filter_map(|exit| Some((exit.relay.as_deref()?, true)));
    live.chain(ended).next()
}

fn head(trace: &Trace, tree: &TraceTree) -> String {
    let id = one_line(&trace.connection);
    let began = tree.began.as_deref().map(|began| format!("since {}", one_line(began)));
    let Some((relay, is_over)) = relay(trace) else {
        let began = began.unwrap_or_else(|| "of which nothing is in the record any more".to_owned());
        let session = if is_over(trace) {
            "there was no session"
        } else {
            "there is no session yet"
        };
        return match trace.parts.iter().find_map(|part| part.whose.as_ref()) {
            Some(whose) => {
                let client = one_line(&whose.client);
                format!(
                    "Connection {id}: {}\n  from {client}, {began}: {session}\n",
                    for_what(whose)
                )
            }
            None => format!("Connection {id}, {began}: {session}, and it is not known whose it is\n"),
        };
    };
    let lasting = lasted(relay.age_us);
    let since = began.map_or_else(|| "since".to_owned(), |began| format!("{began}, for"));
    let mut out = format!(
        "Connection {id}: {}\n  from {}, {since} {lasting}\n",
        for_what(&relay.whose()),
        one_line(&relay.client),
    );
    let all = trace.parts.iter().flat_map(|part| &part.relays);
    let nearest = one_line(&all.last().unwrap_or(relay).upstream);
    let server = if nearest.starts_with("PostgreSQL") {
        nearest
    } else {
        format!("PostgreSQL behind {nearest}")
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "  process {} of {server}; {} bytes to it, {} to the client{}",
        relay.process_id,
        grouped(relay.to_upstream.bytes),
        grouped(relay.to_client.bytes),
        if is_over { "" } else { " so far" },
    );
    out
}

/// Who it is, as whom, and to what.
fn for_what(whose: &Whose) -> String {
    let to = match whose.database.as_str() {
        "" => "no database that the certificate names".to_owned(),
        database => one_line(database),
    };
    let [user, db_user, db_name] = [&whose.user, &whose.db_user, &whose.db_name].map(|name| one_line(name));
    format!("{user} as {db_user} to {to} (database {db_name})")
}

fn standing(trace: &Trace, tree: &TraceTree, width: Option<usize>) -> String {
    let rooms: Vec<&Standing> = tree.now.iter().filter(|standing| standing.next.is_none()).collect();
    let mut out = if is_over(trace) {
        "\nHow it ended\n".to_owned()
    } else {
        "\nWhere it is now\n".to_owned()
    };
    let node_chars = rooms.iter().map(|room| room.node.chars().count()).max().unwrap_or(0);
    for room in rooms {
        let first = format!("  {}  {:<node_chars$}  ", room.side.label(), one_line(&room.node));
        out.push_str(&wrapped(&first, &one_line(&room.sentence), width));
    }
    for gap in &tree.gaps {
        out.push_str(&wrapped("  not shown: ", &one_line(gap), width));
    }
    out
}

/// Nobody works for it any more, as far as is known.
pub fn is_over(trace: &Trace) -> bool {
    !trace.parts.iter().any(crate::telemetry::view::TracePart::lives)
}

/// How it ended, as the one nearest to the client says it.
pub fn how_it_ended(trace: &Trace) -> String {
    let mut exits = trace.parts.iter().flat_map(|part| &part.ended);
    exits.next().map_or_else(
        || "The connection has ended.".to_owned(),
        |exit| {
            format!(
                "The connection has ended at {}: {}",
                one_line(&exit.at),
                one_line(&exit.why)
            )
        },
    )
}

fn lines(steps: impl Iterator<Item = Line>) -> Vec<String> {
    let steps: Vec<Line> = steps.collect();
    let node_chars = steps.iter().map(|line| line.node.chars().count()).max().unwrap_or(0);
    let line = |line: &Line| {
        let mut said = line.texts.iter().map(|text| one_line(text));
        let subject = said.next().unwrap_or_default();
        let details: Vec<String> = said.collect();
        let colon = if details.is_empty() { "" } else { ": " };
        format!(
            "{:>OFFSET_CHARS$}  {:<node_chars$}  {}{subject}{colon}{}",
            line.at_us.map(since_begin).unwrap_or_default(),
            one_line(&line.node),
            "  ".repeat(line.depth.min(DEPTH_MAX) as usize),
            details.join("; "),
        )
    };
    steps.iter().map(line).collect()
}

/// Several fit: each with what to type. One that passes both sides of one process is one.
pub fn several(found: &[ConnectionView], flags: &str, width: Option<usize>) -> String {
    let mut seen = HashSet::new();
    let firsts = found.iter().filter(|view| seen.insert(&view.connection));
    let rows = firsts.map(|first| {
        let of_it = || found.iter().filter(|view| view.connection == first.connection);
        // The one nearest to the client sees most.
        let nearest = of_it().find(|view| view.side == Side::Proxy).unwrap_or(first);
        let mut sides: Vec<&str> = of_it().map(|view| view.side.label()).collect();
        sides.sort_unstable_by(|a, b| b.cmp(a));
        sides.dedup();
        let whose = of_it().find_map(ConnectionView::whose);
        let of = |field: fn(&Whose) -> &String| whose.as_ref().map_or_else(String::new, |whose| one_line(field(whose)));
        [
            lasted(nearest.age_us),
            sides.join(", "),
            of(|whose| &whose.user),
            of(|whose| &whose.database),
            one_line(&nearest.state),
            of(|whose| &whose.client),
            trace_with(&nearest.connection, flags),
        ]
    });
    let header = ["Since", "Side", "User", "Database", "State", "Client", "Trace it with"];
    listed(header, rows.collect(), width)
}

/// A table no wider than the terminal: the widest cells are cut first, but never the last, which is to be typed.
fn listed<const COLUMNS: usize>(header: [&str; COLUMNS], rows: Vec<[String; COLUMNS]>, width: Option<usize>) -> String {
    let header = header.map(str::to_owned);
    let longest = |column: usize| {
        let cells = rows.iter().chain([&header]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let mut widths: [usize; COLUMNS] = std::array::from_fn(longest);
    let last = COLUMNS.saturating_sub(1);
    while width.is_some_and(|width| widths.iter().map(|cells| cells + CELL_SPACE).sum::<usize>() > width) {
        match widths.iter_mut().take(last).max() {
            Some(widest) if *widest > CELL_MIN => *widest -= 1,
            _ => break,
        }
    }
    let cut = |row: &[String; COLUMNS]| -> [String; COLUMNS] {
        std::array::from_fn(|column| fitted(&row[column], Some(widths[column])))
    };
    let header = cut(&header);
    let mut table = table(&header.each_ref().map(String::as_str));
    for row in &rows {
        table.add_row(cut(row));
    }
    format!("{table}\n")
}

fn trace_with(connection: &str, flags: &str) -> String {
    format!("postern trace {}{}", one_line(connection), one_line(flags))
}

/// Which connections are meant.
#[derive(Debug, Clone, Default)]
pub struct Meant<'a> {
    pub user: Option<&'a str>,
    pub database: Option<&'a str>,
    pub state: Option<&'a str>,
}

impl Meant<'_> {
    /// The state is that of the relay; one that never had a session ended in none.
    fn fits(&self, exit: &ExitView) -> bool {
        let relay = exit.relay.as_deref();
        let was = |state: &str| relay.is_some_and(|relay| relay.state == state);
        Whose::fits(exit.whose().as_ref(), self.user, self.database) && self.state.is_none_or(was)
    }
}

/// None that lives fits: those that do of the ones that ended lately.
pub fn none_fits(node: &NodeView, meant: &Meant<'_>, flags: &str, width: Option<usize>) -> String {
    let mut out = format!("No open connection of node {} fits.\n", one_line(&node.node));
    let mut seen = HashSet::new();
    let of_connections = node.exits.iter().filter(|exit| meant.fits(exit));
    let ended: Vec<(&ExitView, &String)> = of_connections
        .filter_map(|exit| Some((exit, exit.connection.as_ref()?)))
        .filter(|(_, connection)| seen.insert(*connection))
        .collect();
    if ended.is_empty() {
        out.push_str("None that ended lately does, either.\n");
        return out;
    }
    out.push_str("Ended lately, the last one first:\n");
    let rows = ended.iter().take(ENDED_SHOWN).map(|(exit, connection)| {
        let (whose, relay) = (exit.whose(), exit.relay.as_deref());
        let of = |field: fn(&Whose) -> &String| whose.as_ref().map_or_else(String::new, |whose| one_line(field(whose)));
        [
            one_line(&exit.at),
            of(|whose| &whose.user),
            of(|whose| &whose.database),
            relay.map_or_else(String::new, |relay| one_line(&relay.state)),
            one_line(&exit.why),
            trace_with(connection, flags),
        ]
    });
    let header = ["Ended", "User", "Database", "State", "How", "Trace it with"];
    out.push_str(&listed(header, rows.collect(), width));
    if ended.len() > ENDED_SHOWN {
        let _ = writeln!(out, "and {} more", ended.len() - ENDED_SHOWN);
    }
    out
}

#[cfg(test)]
#[path = "trace_text_tests.rs"]
pub(super) mod tests;

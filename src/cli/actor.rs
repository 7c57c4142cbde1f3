//! `postern actor PATH`: where one actor stands, and what happened to it lately.

use super::actors::{Format, print_json};
use super::debug_client::{DebugClient, WhichNode};
use super::names::Program;
use super::terminal::{grouped, lasted, one_line};
use super::{Failure, Outcome, actors_text};
use crate::model::percent_encoded;
use crate::telemetry::observe::ActorAnswer;
use crate::telemetry::record::RecordKind;
use crate::telemetry::view::{ActorView, RecordView};
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub struct ActorArgs {
    /// Its path, the end of it, or the beginning of its name.
    path: String,
    #[command(flatten)]
    which: WhichNode,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub async fn run(program: Program, args: ActorArgs) -> Outcome {
    let client = DebugClient::of(&args.which, program).await?;
    let path: Vec<String> = args.path.split('/').map(percent_encoded).collect();
    let answer: ActorAnswer = client.get(&format!("/actors/{}", path.join("/")), &Value::Null).await?;
    match (args.format, answer) {
        (Format::Json, answer) => print_json(&answer),
        (Format::Text, ActorAnswer::One { actor, records }) => {
            print!("{}", text(&actor, &records));
            Ok(())
        }
        (Format::Text, ActorAnswer::Several(paths)) => Err(Failure::usage(format!(
            "{} fits several actors; type the path of one:\n  {}",
            args.path,
            paths.join("\n  ")
        ))),
        (Format::Text, ActorAnswer::Nobody) => Err(Failure::failed(format!(
            "no actor {} lives in this node; `postern actors` lists them",
            args.path
        ))),
    }
}

fn text(actor: &ActorView, records: &[RecordView]) -> String {
    let mut out = snapshot(actor);
    if records.is_empty() {
        out.push_str("\nNothing of it is in the record.\n");
        return out;
    }
    out.push_str("\nLately, oldest first:\n");
    for record in records {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {}  {}", one_line(&record.at), sentence(record, &actor.path));
    }
    out
}

fn snapshot(actor: &ActorView) -> String {
    let mut lines = vec![
        (
            "state",
            format!("{} for {}", one_line(&actor.state), lasted(actor.state_age_us)),
        ),
        (
            "lives",
            format!("for {}{}", lasted(actor.age_us), where_it_lives(actor)),
        ),
        ("mailbox", mailbox(actor)),
        ("in hand", in_hand(actor)),
    ];
    let waits = actor.waits.iter().map(|wait| {
        let connection = for_connection(wait.connection.as_ref());
        format!(
            "{} -> {}, for {} of at most {}{connection}",
            one_line(&wait.message),
            one_line(&wait.to),
            lasted(wait.age_us),
            lasted(wait.within_us)
        )
    });
    lines.extend(waits.map(|wait| ("waits for", wait)));
    match actor.waiting as usize {
        0 => lines.push(("waits for", "nothing".to_owned())),
        more if more > actor.waits.len() => {
            lines.push((
                "waits for",
                format!("{} more", grouped((more - actor.waits.len()) as u64)),
            ));
        }
        _ => {}
    }
    lines.push((
        "handled",
        format!("{} messages, {} in all", grouped(actor.handled), lasted(actor.busy_us)),
    ));
    lines.push(("restarts", restarts(actor)));
    lines.extend(actor.connection.as_ref().map(|id| ("connection", one_line(id))));
    let mut out = format!("{} ({})\n", one_line(&actor.path), one_line(&actor.rule));
    for (name, value) in lines {
        let _ = writeln!(out, "  {name:<10}  {value}");
    }
    out
}

fn where_it_lives(actor: &ActorView) -> String {
    actor
        .runtime
        .as_ref()
        .map_or_else(String::new, |runtime| format!(", on the runtime {}", one_line(runtime)))
}

fn mailbox(actor: &ActorView) -> String {
    match (actor.rule.as_str(), actor.queued, actor.bound) {
        ("thread", _, 0) => "none: it is a thread that works for actors".to_owned(),
        ("thread", ..) => actors_text::mailbox(actor),
        (_, queued, bound) if queued >= bound => format!("full: {queued} of {bound} wait"),
        (_, queued, bound) => format!("{queued} of {bound} wait"),
    }
}

fn in_hand(actor: &ActorView) -> String {
    actor.in_hand.as_ref().map_or_else(
        || "nothing".to_owned(),
        |in_hand| {
            let connection = for_connection(in_hand.connection.as_ref());
            format!(
                "{} since {}{connection}",
                one_line(&in_hand.message),
                lasted(in_hand.age_us)
            )
        },
    )
}

fn for_connection(connection: Option<&String>) -> String {
    connection.map_or_else(String::new, |id| format!(", for connection {}", one_line(id)))
}

fn restarts(actor: &ActorView) -> String {
    match (&actor.last_failure, actor.restarts) {
        (_, 0) => "none".to_owned(),
        (None, count) => count.to_string(),
        (Some(failure), count) => format!(
            "{count}, the last at {}: {}",
            one_line(&failure.at),
            one_line(&failure.why)
        ),
    }
}

/// A record as a sentence about the actor of this path.
fn sentence(record: &RecordView, path: &str) -> String {
    let what = one_line(&record.what);
    let to = one_line(&record.to);
    let from = record.from.as_deref().map_or_else(|| "outside".to_owned(), one_line);
    let said = match record.kind {
        RecordKind::Sent if record.to == path => format!("was sent {what} by {from}"),
        RecordKind::Sent => format!("sent {what} to {to}"),
        RecordKind::Handled => format!(
            "handled {what} from {from} in {}, {} after it was sent",
            lasted(record.busy_us),
            lasted(record.queued_us)
        ),
        RecordKind::Dropped if record.to == path => format!("{what} from {from} was dropped: it will never be handled"),
        RecordKind::Dropped => format!("{what} to {to} was dropped: it will never be handled"),
        RecordKind::Answered => format!(
            "{what} was answered after {}, by {}",
            lasted(record.queued_us),
            if record.to == path { &from } else { &to }
        ),
        RecordKind::Arrived => format!("{what} arrived from another process"),
        RecordKind::Started => "began".to_owned(),
        RecordKind::Exited => format!("ended: {what}"),
        RecordKind::State => format!("is {what} from here on"),
    };
    format!("{said}{}", for_connection(record.connection.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::actors_text::tests::actor;
    use crate::telemetry::view::FailureView;

    #[test]
    fn an_actor_is_told_in_words() {
        let mut actor = actor("ca");
        actor.restarts = 1;
        actor.last_failure = Some(FailureView {
            at: "2026-01-31T12:00:00.000Z".to_owned(),
            why: "panicked\u{1b}[2J".to_owned(),
        });
        let record = RecordView {
            at: "2026-01-31T12:00:01.000Z".to_owned(),
            at_us: 1,
            kind: RecordKind::Handled,
            what: "IssueDbClient".to_owned(),
            id: 7,
            cause: None,
            connection: Some("00000000deadbeef".to_owned()),
            from: Some("agent/upstream#1".to_owned()),
            to: "ca".to_owned(),
            queued_us: 250,
            busy_us: 1_500,
        };
        let expected = "\
ca (permanent)
  state       serving for 1m05s
  lives       for 1m05s, on the runtime control
  mailbox     3 of 64 wait
  in hand     IssueDbClient since 2.1s, for connection 00000000deadbeef
  waits for   WriteKey -> store, for 1.9s of at most 15.0s
  waits for   2 more
  handled     1,234 messages, 12ms in all
  restarts    1, the last at 2026-01-31T12:00:00.000Z: panicked\\u{1b}[2J

Lately, oldest first:
  2026-01-31T12:00:01.000Z  handled IssueDbClient from agent/upstream#1 in 1.5ms, 0.3ms after it was sent, for connection 00000000deadbeef
";
        assert_eq!(text(&actor, &[record]), expected);
    }
}

//! The event that says what became of requests: for each of its results the request's number, and in sum what readers of Teleport's
//! log look for (`success`, `affected_records`, `error`).

use crate::audit::{EventBuilder, FieldValue};
use crate::protocol::postgres::answers::{CopyDirection, Word};
use crate::protocol::postgres::results::{Batch, Copied, Ended, Outcome};

pub fn result_event(event: EventBuilder, batch: Batch<'_>) -> EventBuilder {
    let rows = batch.outcomes.iter().filter_map(|outcome| outcome.rows);
    let failed = batch.outcomes.iter().find_map(|outcome| match outcome.ended {
        Ended::Failed { sqlstate, .. } => Some(sqlstate),
        _ => None,
    });
    let mut event = event
        .field("success", failed.is_none())
        .field("affected_records", rows.fold(0, u64::saturating_add));
    if let Some(sqlstate) = failed {
        event = event.field("error", sqlstate.as_ref().map_or("unknown", |code| code.as_str()));
    }
    if batch.skipped > 0 {
        event = event.field("skipped", batch.skipped);
    }
    if batch.in_doubt {
        event = event.field("in_doubt", true);
    }
    event.field("results", Listed(batch.outcomes))
}

/// Numbers and words of PostgreSQL's, which need no escaping.
struct Listed<'a>(&'a [Outcome]);

impl FieldValue for Listed<'_> {
    fn append_to(&self, line: &mut String) {
        line.push_str("\":[");
        for (at, outcome) in self.0.iter().enumerate() {
            if at > 0 {
                line.push(',');
            }
            Members { line, any: false }.of(outcome);
        }
        line.push(']');
    }
}

/// The members of one result.
struct Members<'a> {
    line: &'a mut String,
    any: bool,
}

impl Members<'_> {
    fn number(&mut self, name: &str, number: impl Into<Option<u64>>) {
        if let Some(number) = number.into() {
            self.raw(name, &[itoa::Buffer::new().format(number)]);
        }
    }

    fn word(&mut self, name: &str, word: &str) {
        self.raw(name, &["\"", word, "\""]);
    }

    fn raw(&mut self, name: &str, value: &[&str]) {
        self.line.push_str(if self.any { ",\"" } else { "{\"" });
        self.any = true;
        self.line.push_str(name);
        self.line.push_str("\":");
        value.iter().for_each(|part| self.line.push_str(part));
    }

    fn of(mut self, outcome: &Outcome) {
        self.number("request", outcome.request);
        self.number("parsed", outcome.parsed);
        match &outcome.ended {
            Ended::Completed(tag) => self.word("command", tag.as_ref().map_or("", Word::as_str)),
            Ended::Empty => self.word("command", ""),
            Ended::Suspended => self.raw("suspended", &["true"]),
            Ended::Failed { at, severity, sqlstate } => {
                self.word("failed_at", at.label());
                for (name, word) in [("severity", severity), ("sqlstate", sqlstate)] {
                    if let Some(word) = word {
                        self.word(name, word.as_str());
                    }
                }
            }
        }
        self.number("rows", outcome.rows);
        if let Some(copied) = &outcome.copied {
            self.copied(copied);
        }
        self.line.push('}');
    }

    fn copied(&mut self, copied: &Copied) {
        let (direction, is_in, is_out) = match copied.direction {
            CopyDirection::In => ("in", true, false),
            CopyDirection::Out => ("out", false, true),
            CopyDirection::Both => ("both", true, true),
        };
        self.word("copy", direction);
        self.number("bytes_in", is_in.then_some(copied.bytes_in));
        self.number("bytes_out", is_out.then_some(copied.bytes_out));
    }
}

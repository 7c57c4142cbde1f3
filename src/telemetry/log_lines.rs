//! How a line of the log is written: its time, and the flat JSON object.

use crate::model::{Clock, SystemClock};
use serde_json::{Map, Value};
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::registry::LookupSpan;

/// RFC 3339 in UTC, with milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct UtcTime;

impl FormatTime for UtcTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", SystemClock.now())
    }
}

/// One object a line, with nothing nested: `timestamp`, `level`, `message`, `component`, then the fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // What came through the crate `log` names where it is from in fields.
        let component = fields
            .log_target
            .unwrap_or_else(|| event.metadata().target().to_owned());
        let mut line = Map::with_capacity(fields.others.len() + 4);
        line.insert("timestamp".to_owned(), SystemClock.now().to_string().into());
        line.insert(
            "level".to_owned(),
            event.metadata().level().as_str().to_ascii_lowercase().into(),
        );
        line.insert("message".to_owned(), fields.message.into());
        line.insert("component".to_owned(), component.into());
        for (name, value) in fields.others {
            // The four above keep their meaning.
            line.entry(name).or_insert(value);
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    log_target: Option<String>,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match field.name() {
            "message" => self.message = text(value),
            "log.target" => self.log_target = Some(text(value)),
            name if name.starts_with("log.") => {}
            name => self.others.push((name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }
}

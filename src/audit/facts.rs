//! What an event can be found by, read from its line.

use super::AuditError;
use crate::model::Timestamp;
use serde::Deserialize;
use std::borrow::Cow;

/// What can be asked for. Borrowed from the line wherever nothing in it is escaped.
#[derive(Debug, Default)]
pub(super) struct Facts<'l> {
    /// Microseconds since 1970.
    pub time: i64,
    pub event: Cow<'l, str>,
    pub user: Option<Cow<'l, str>>,
    pub db_service: Option<Cow<'l, str>>,
    pub sid: Option<Cow<'l, str>>,
}

impl<'l> Facts<'l> {
    /// Reads them from an event. One that is JSON but has no time, or text where none belongs, is indexed by what it has: it is
    /// kept, and can be found.
    pub fn of(event: &'l str) -> Result<Self, AuditError> {
        #[derive(Deserialize)]
        struct Usual<'l> {
            #[serde(borrow)]
            time: Cow<'l, str>,
            #[serde(borrow)]
            event: Cow<'l, str>,
            #[serde(borrow)]
            user: Option<Text<'l>>,
            #[serde(borrow)]
            db_service: Option<Text<'l>>,
            #[serde(borrow)]
            sid: Option<Text<'l>>,
        }
        /// serde borrows a `Cow` that is a field, and copies one in an `Option`.
        #[derive(Deserialize)]
        struct Text<'l>(#[serde(borrow)] Cow<'l, str>);
        let text = |text: Option<Text<'l>>| text.map(|text| text.0);
        let micros = |time: &str| Timestamp::parse_rfc3339(time).map_or(0, Timestamp::as_micros);
        if let Ok(usual) = serde_json::from_str::<Usual<'_>>(event) {
            return Ok(Self {
                time: micros(&usual.time),
                event: usual.event,
                user: text(usual.user),
                db_service: text(usual.db_service),
                sid: text(usual.sid),
            });
        }
        let odd: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(event).map_err(|e| AuditError::NotAnEvent { why: e.to_string() })?;
        let text = |name: &str| {
            odd.get(name)
                .and_then(|v| v.as_str())
                .map(|text| Cow::Owned(text.to_owned()))
        };
        Ok(Self {
            time: micros(&text("time").unwrap_or_default()),
            event: text("event").unwrap_or_default(),
            user: text("user"),
            db_service: text("db_service"),
            sid: text("sid"),
        })
    }
}

//! Who may ask what of the administrator's API: whoever opened the socket on auth's machine may all, a person what the `rules` of
//! their roles allow. Every route asks here before it does anything.

use super::routes::{Api, Failed, bad};
use crate::model::Principal;
use crate::policy::{ResourceKind, RuleDenied, Verb, may};
use axum::http::StatusCode;
use std::sync::Arc;

/// Who asks.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The process at the other end of the administrator's socket.
    Local { uid: u32 },
    /// Somebody with a certificate of a login.
    Person(Arc<Principal>),
}

impl Caller {
    /// For the audit log.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Local { uid } => format!("local administrator (uid {uid})"),
            Self::Person(principal) => principal.name.to_string(),
        }
    }
}

impl From<RuleDenied> for Failed {
    fn from(denied: RuleDenied) -> Self {
        Self(StatusCode::FORBIDDEN, denied.refusal().message)
    }
}

impl Api {
    /// By the rules of this moment.
    pub(super) fn permit(&self, resource: ResourceKind, verb: Verb) -> Result<(), Failed> {
        let Caller::Person(principal) = &self.caller else {
            return Ok(());
        };
        let permitted = may(
            &*self.snapshot()?,
            &principal.name,
            resource,
            verb,
            self.parts.clock.now(),
        );
        permitted.map_err(|denied| {
            tracing::info!(user = %principal.name, %denied, "a request of a person is refused");
            denied.into()
        })
    }

    /// The same for a kind as it is typed: `role`, `roles`.
    pub(super) fn permit_word(&self, word: &str, verb: Verb) -> Result<(), Failed> {
        if matches!(self.caller, Caller::Local { .. }) {
            return Ok(());
        }
        let singular = word.strip_suffix('s').unwrap_or(word);
        let kind = ResourceKind::parse(word).or_else(|| ResourceKind::parse(singular));
        let kind = kind.ok_or_else(|| bad(format!("{word:?} is not a kind of resource")))?;
        self.permit(kind, verb)
    }

    /// Reading one document, or all of a kind.
    pub(super) fn permit_reading(&self, word: &str, all: bool) -> Result<(), Failed> {
        if all {
            self.permit_word(word, Verb::List)?;
        }
        self.permit_word(word, Verb::Read)
    }

    /// What replaces may create too: whether it is there is not asked first.
    pub(super) fn permit_writing(&self, word: &str, replace: bool) -> Result<(), Failed> {
        if replace {
            self.permit_word(word, Verb::Update)?;
        }
        self.permit_word(word, Verb::Create)
    }
}

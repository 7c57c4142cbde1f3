//! Who may ask what of the administrator's API: whoever opened the socket on auth's machine may all, a person what the `rules` of
//! their roles allow. Every route asks here before it does anything.

use super::routes::{Api, Failed, bad};
use crate::model::Principal;
use crate::policy::{ResourceKind, RuleDenied, Verb, may};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

/// The routes that ask the rules, and are therefore served to people; `*` is a name, `**` one or more. A route that is not here is for the
/// administrator's socket only, so that a new one is closed until it asks.
const FOR_PEOPLE: &[&str] = &[
    "/v1/status",
    "/v1/resources",
    "/v1/resources/*/*",
    "/v1/certificates/person",
    "/v1/certificates/database",
    "/v1/tokens",
    "/v1/tokens/remove",
    "/v1/users",
    "/v1/users/*",
    "/v1/users/*/reset",
    "/v1/audit",
    "/v1/authorities",
    "/v1/locks",
    "/v1/access/explain",
    "/v1/nodes/*/actors",
    "/v1/nodes/*/actors/**",
    "/v1/connections",
    "/v1/connections/*/trace",
];

pub(super) fn is_for_people(path: &str) -> bool {
    FOR_PEOPLE.iter().any(|route| {
        let (mut parts, mut asked) = (route.split('/'), path.split('/'));
        let same = parts.by_ref().all(|part| match part {
            "**" => asked.by_ref().count() > 0,
            part => asked.next().is_some_and(|asked| part == "*" || part == asked),
        });
        same && asked.next().is_none()
    })
}

/// Lets a person through to the routes that ask the rules.
pub(super) async fn only_for_people(request: Request, next: Next) -> Result<Response, Failed> {
    if is_for_people(request.uri().path()) {
        return Ok(next.run(request).await);
    }
    let why = "this is done on the machine of the auth service only, with its data directory";
    Err(Failed(StatusCode::FORBIDDEN, why.to_owned()))
}

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
        self.ruled(principal, resource, verb)?.map_err(|denied| {
            tracing::info!(user = %principal.name, reason = %denied, "a request of a person is refused");
            denied.into()
        })
    }

    /// The same where it does not matter to the answer, so that nothing is refused.
    pub(super) fn is_permitted(&self, resource: ResourceKind, verb: Verb) -> Result<bool, Failed> {
        let Caller::Person(principal) = &self.caller else {
            return Ok(true);
        };
        Ok(self.ruled(principal, resource, verb)?.is_ok())
    }

    fn ruled(
        &self,
        principal: &Principal,
        resource: ResourceKind,
        verb: Verb,
    ) -> Result<Result<(), RuleDenied>, Failed> {
        let now = self.parts.clock.now();
        Ok(may(&*self.snapshot()?, &principal.name, resource, verb, now))
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

    /// Reading one document, or all of a kind. No answer holds a secret: tokens are masked, keys never leave auth.
    pub(super) fn permit_reading(&self, word: &str, all: bool) -> Result<(), Failed> {
        if all {
            self.permit_word(word, Verb::List)?;
        }
        self.permit_word(word, Verb::ReadNoSecrets)
    }

    /// What replaces may create too: whether it is there is not asked first.
    pub(super) fn permit_writing(&self, word: &str, replace: bool) -> Result<(), Failed> {
        if replace {
            self.permit_word(word, Verb::Update)?;
        }
        self.permit_word(word, Verb::Create)
    }
}

#[cfg(test)]
mod tests {
    use super::is_for_people;

    #[test]
    fn a_route_that_does_not_ask_the_rules_is_closed_to_people() {
        for open in [
            "/v1/status",
            "/v1/resources/role/a",
            "/v1/users/alice/reset",
            "/v1/nodes/db-1/actors/agent/upstream",
        ] {
            assert!(is_for_people(open), "{open}");
        }
        for closed in [
            "/v1/new",
            "/v1/nodes/db-1",
            "/v1/users/alice/new",
            "/v1/resources/role/a/b",
            "/v1/status/",
            "/",
            "",
        ] {
            assert!(!is_for_people(closed), "{closed}");
        }
    }
}

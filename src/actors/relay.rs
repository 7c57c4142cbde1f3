//! The relay of a session, and what watches its two directions.
//!
//! A [`SessionRelay`] cannot be built without a [`Permit`]: that is the whole point of the type.

use super::host::{Behavior, Ctx};
use super::session_taps::{AnswerTap, BoundaryTap, RequestTap, taps};
use super::sessions::Watched;
use super::trail::Trail;
use crate::audit::{EventBuilder, EventKind, SessionFields};
use crate::model::{Refusal, RefusalKind};
use crate::net::copy::{Counts, EndSignal, Relay, RelayEnd};
use crate::net::direction::Tap;
use crate::policy::Permit;
use crate::protocol::postgres::backend;
use crate::telemetry::relays::{Gauge, RelaySpec};
use tokio::io::{AsyncRead, AsyncWrite};

/// The relay of one allowed session.
pub struct SessionRelay<C, U, TU, TC> {
    permit: Permit,
    end: EndSignal,
    /// Boxed, so that the task that runs it holds it once: a future keeps room for each place that a value is moved through, and
    /// this one has a client's whole TLS in it.
    relay: Box<Relay<C, U, RequestTap<TU>, BoundaryTap<TC>>>,
}

/// How a session was, seen from its relay.
#[derive(Debug)]
pub struct SessionOutcome {
    pub counts: Counts,
    /// `None` for an end of the client's or PostgreSQL's own.
    pub refusal: Option<Refusal>,
    /// Its connection broke, where nothing was refused.
    pub client_lost: bool,
}

impl SessionOutcome {
    /// For the views, where it is more than that client or PostgreSQL was done. `client` is who is nearer to the client.
    pub fn ending(&self, client: &str) -> Option<String> {
        match &self.refusal {
            Some(refusal) => Some(refusal.kind.ending()),
            None => self.client_lost.then(|| format!("{client} lost")),
        }
    }

    /// The event of a session that this node ended because of its limits, a lock or the rules; nothing for other ends.
    pub fn disconnected(&self, trail: &Trail, session: &SessionFields) -> Option<EventBuilder> {
        use RefusalKind::{AccessRevoked, CertificateExpired, IdleTimeout};
        let refusal = self.refusal.as_ref()?;
        let ours = matches!(refusal.kind, AccessRevoked | CertificateExpired | IdleTimeout);
        ours.then(|| {
            trail
                .session_event(EventKind::ClientDisconnected, session)
                .field("reason", refusal.message.as_str())
        })
    }
}

impl<C, U, TU, TC> SessionRelay<C, U, TU, TC>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    TU: Tap,
    TC: AnswerTap,
{
    /// From here on everybody sees it, as `seen`. `watching` are the taps towards the upstream and towards the client.
    pub fn new(permit: Permit, watched: Watched, client: C, upstream: U, watching: (TU, TC), seen: RelaySpec) -> Self {
        let gauge = Gauge::begin(seen);
        let (to_upstream, to_client) = taps(watching, watched.rest, &gauge);
        Self {
            permit,
            end: watched.end,
            relay: Box::new(Relay::new(client, upstream, to_upstream, to_client, gauge)),
        }
    }

    /// What is said to the client before anything is copied.
    pub fn client(&mut self) -> &mut C {
        self.relay.client()
    }

    /// Copies until the end, and tells the client why where that is for us to say. `upstream_lost` words the loss of the
    /// other side.
    pub async fn run(mut self, upstream_lost: impl FnOnce(&Permit) -> Refusal) -> SessionOutcome {
        let mut client_lost = false;
        let refusal = match self.relay.run(self.end).await {
            RelayEnd::Finished | RelayEnd::UpstreamLost(_) if ends_as_expected(&self.relay) => None,
            RelayEnd::Finished | RelayEnd::UpstreamLost(_) => Some(upstream_lost(&self.permit)),
            RelayEnd::Refused(refusal) => Some(refusal),
            RelayEnd::Unwatched => Some(unwatched()),
            RelayEnd::ClientLost(error) => {
                tracing::debug!(%error, "client lost");
                client_lost = true;
                None
            }
        };
        match &refusal {
            Some(refusal) => self.relay.last_words(&backend::error_response(refusal)).await,
            None => self.relay.close().await,
        }
        SessionOutcome {
            counts: self.relay.counts(),
            refusal,
            client_lost,
        }
    }
}

/// What the views tell of a connection that PostgreSQL did not let in.
pub const UPSTREAM_SAID_NO: &str = "PostgreSQL said no";

/// Ends the actor of a connection, with what there is to say of it.
pub fn stop_because<B: Behavior>(why: Option<String>, ctx: &mut Ctx<'_, B>) {
    match why {
        Some(why) => ctx.stop_because(why),
        None => ctx.stop(),
    }
}

/// The client was done, or the upstream has said why it is.
fn ends_as_expected<C, U, TU, TC>(relay: &Relay<C, U, RequestTap<TU>, BoundaryTap<TC>>) -> bool
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    TU: Tap,
    TC: AnswerTap,
{
    relay.client_closed() || relay.to_upstream_tap().said_goodbye() || relay.to_client_tap().explained()
}

fn unwatched() -> Refusal {
    Refusal::new(
        RefusalKind::Internal,
        "this session is over: the part of the node that watches over sessions had to be rebuilt",
    )
    .hint("connect again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_session_ended_is_told_by_what_ended_it() {
        let ended = |refusal: Option<RefusalKind>, client_lost| {
            let outcome = SessionOutcome {
                counts: Counts::default(),
                refusal: refusal.map(|kind| Refusal::new(kind, "why")),
                client_lost,
            };
            outcome.ending("client")
        };
        assert_eq!(ended(None, false), None, "the client or PostgreSQL was done");
        assert_eq!(ended(None, true).as_deref(), Some("client lost"));
        let lost = ended(Some(RefusalKind::AgentLost), false);
        assert_eq!(lost.as_deref(), Some("agent lost: 08006"));
    }
}

//! One stream that a proxy opened: a client's connection to PostgreSQL, a cancel, or a question about a connection.
//!
//! **Owns** the stream and, later, the connection to PostgreSQL.
//! **Hears** nothing; its steps are its own, each the continuation of the one before.
//! **Tells** `sessions` and `cancels` of its session; the audit trail of its start, its statements and its end.
//! **Never** believes the proxy's decision: it verifies the person's certificate and decides itself, about databases of its
//! own configuration.
//! **Ends** with the stream. Temporary.

use super::address::{Address, Origin};
use super::admission::{Declined, OpenRelay, OpenSession, Ready, prepare};
use super::agent::{AgentParts, GetUpstreamClient};
use super::agent_question::answer_proxy;
use super::audit_taps::audit_taps;
use super::cancels::upstream::{Ask, Wanted, cancel};
use super::host::{Behavior, Ctx, spawn_here};
use super::relay::{SessionOutcome, SessionRelay, UPSTREAM_SAID_NO, stop_because};
use super::trail::Trail;
use super::tunnel::answer;
use crate::audit::EventKind;
use crate::model::{MessageId, NodeId, Refusal, RefusalKind, Secret};
use crate::net::BoxStream;
use crate::net::frames::{self, ReadFrameError, read_frame, write_frame};
use crate::net::tls::HANDSHAKE_DEADLINE;
use crate::policy::Permit;
use crate::protocol::tunnel::{DbToProxy, Frame, Header, ProxyToDb, STREAM_ACCEPTED};
use crate::telemetry::label::Label;
use crate::telemetry::metrics::METRICS;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// Everything from the proxy's frame to PostgreSQL's ReadyForQuery. The reference's connect timeout is a minute; a client
/// that waits longer than this has given up.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

pub struct Upstream {
    stream: Option<BoxStream>,
    /// The proxy at its other end, as the views name it.
    from: Arc<str>,
    proxy: Option<NodeId>,
    parts: Arc<AgentParts>,
    client: Address<GetUpstreamClient>,
    session: Option<OpenSession>,
    /// Gone with the actor.
    alive: Arc<()>,
}

impl Upstream {
    pub fn new(
        stream: Option<BoxStream>,
        (from, proxy): (Arc<str>, Option<NodeId>),
        parts: Arc<AgentParts>,
        client: Address<GetUpstreamClient>,
    ) -> Self {
        Self {
            stream,
            from,
            proxy,
            parts,
            client,
            session: None,
            alive: Arc::new(()),
        }
    }

    fn received(
        &mut self,
        ask: Result<Option<Frame<ProxyToDb>>, ReadFrameError>,
        stream: BoxStream,
        ctx: &mut Ctx<'_, Self>,
    ) {
        match ask {
            Ok(Some(Frame {
                header,
                body: Some(ProxyToDb::InspectConnection { connection }),
            })) => {
                let (parts, proxy, id) = (self.parts.clone(), self.proxy, header.id);
                let done = async move {
                    let asked = (stream, id);
                    answer_proxy(&parts.inspector, &parts.opened_by, proxy, connection, asked).await;
                };
                ctx.run(done, |_, (), ctx| ctx.stop());
            }
            Ok(Some(Frame {
                header,
                body: Some(ProxyToDb::CancelQuery { connection }),
            })) => {
                ctx.serve_only(connection);
                ctx.arrived(Label::of("CancelQuery"), self.from.clone(), Some(MessageId(header.id)));
                self.cancel(Wanted::Connection(connection), None, (stream, header.id), ctx);
            }
            Ok(Some(Frame {
                header,
                body:
                    Some(ProxyToDb::CancelStatement {
                        connection,
                        client_address,
                    }),
            })) => {
                ctx.serve_only(connection);
                ctx.arrived(
                    Label::of("CancelStatement"),
                    self.from.clone(),
                    Some(MessageId(header.id)),
                );
                let wanted = Wanted::Connection(connection);
                self.cancel(wanted, Some(client_address), (stream, header.id), ctx);
            }
            Ok(Some(Frame {
                header,
                body:
                    Some(ProxyToDb::CancelByKey {
                        process_id,
                        key,
                        client_address,
                    }),
            })) => {
                ctx.arrived(Label::of("CancelByKey"), self.from.clone(), Some(MessageId(header.id)));
                let wanted = Wanted::ByKey { process_id, key };
                self.cancel(wanted, Some(client_address), (stream, header.id), ctx);
            }
            Ok(Some(Frame {
                header,
                body:
                    Some(ProxyToDb::OpenRelay {
                        connection,
                        session,
                        person,
                        service,
                        db_user,
                        db_name,
                        parameters,
                        client_address,
                        cancel_secret,
                        policy_version: _,
                    }),
            })) => {
                ctx.serve_only(connection);
                ctx.arrived(Label::of("OpenRelay"), self.from.clone(), Some(MessageId(header.id)));
                ctx.state("deciding");
                let alive = Arc::downgrade(&self.alive);
                self.parts.opened_by.note(connection, self.proxy, alive);
                let ask = OpenRelay {
                    connection,
                    session,
                    person,
                    service,
                    db_user,
                    db_name,
                    parameters,
                    client_address,
                    cancel_secret: Secret::new(cancel_secret),
                    proxy: self.proxy,
                };
                self.open(ask, header.id, stream, ctx);
            }
            Ok(Some(Frame { header, .. })) => refuse(
                stream,
                Some(header),
                "this message does not open a stream",
                ctx,
                &self.parts.trail,
            ),
            Ok(None) => ctx.stop(),
            Err(ReadFrameError::Refused { header, error }) => {
                refuse(stream, header, &error.to_string(), ctx, &self.parts.trail);
            }
            Err(ReadFrameError::Io(error)) => {
                tracing::debug!(%error, "a stream ended before it said what it is for");
                ctx.stop();
            }
        }
    }

    fn cancel(&self, wanted: Wanted, client_address: Option<String>, asked: (BoxStream, u64), ctx: &mut Ctx<'_, Self>) {
        ctx.state("cancelling");
        let (parts, origin) = (self.parts.clone(), ctx.origin());
        let ask = Ask {
            wanted,
            client_address,
            proxy: self.proxy,
        };
        let done = async move { answer_cancel(&parts, ask, asked, &origin).await };
        ctx.run(done, |_, (), ctx| ctx.stop());
    }

    fn open(&mut self, ask: OpenRelay, id: u64, stream: BoxStream, ctx: &mut Ctx<'_, Self>) {
        let (parts, client, origin) = (self.parts.clone(), self.client.clone(), ctx.origin());
        let opened = async move { (prepare(&parts, &client, &ask, &origin, OPEN_DEADLINE).await, stream) };
        ctx.run(opened, move |upstream, (opened, stream), ctx| match opened {
            Ok(ready) => upstream.relay(ready, id, stream, ctx),
            Err(declined) => decline(declined, id, stream, ctx),
        });
    }

    fn relay(&mut self, ready: Ready, id: u64, stream: BoxStream, ctx: &mut Ctx<'_, Self>) {
        let Ready {
            permit,
            watched,
            session,
            postgres,
            process_id,
            greeting,
            seen,
        } = ready;
        let taps = audit_taps(&self.parts.trail, &session.fields, watched.strict.clone());
        self.session = Some(session);
        ctx.state("relaying");
        let counted = METRICS.agent.open();
        let mut relay = SessionRelay::new(permit, watched, stream, postgres, taps, seen);
        let task = spawn_here(async move {
            let _counted = counted;
            let proxy = relay.client();
            write_frame(proxy, &answer(id, DbToProxy::RelayOpened { process_id })).await?;
            proxy.write_all(&greeting).await?;
            proxy.flush().await?;
            drop(greeting);
            Ok::<_, io::Error>(relay.run(upstream_lost).await)
        });
        ctx.run(task.join(), |upstream, outcome, ctx| upstream.ended(outcome, ctx));
    }

    fn ended(&mut self, outcome: Result<io::Result<SessionOutcome>, String>, ctx: &mut Ctx<'_, Self>) {
        let Some(mut session) = self.session.take() else {
            return ctx.stop();
        };
        session.ended = true;
        ctx.state("closing");
        let (trail, origin) = (self.parts.trail.clone(), ctx.origin());
        if let Ok(Ok(outcome)) = &outcome
            && let Some(event) = outcome.disconnected(&trail, &session.fields)
        {
            trail.note_now(event);
        }
        let why = match &outcome {
            Ok(Ok(outcome)) => outcome.ending("proxy"),
            Ok(Err(_)) => Some("proxy lost".to_owned()),
            Err(_) => Some("relay failed".to_owned()),
        };
        let mut event = trail.session_event(EventKind::SessionEnded, &session.fields);
        event = match outcome {
            Ok(Ok(SessionOutcome { counts, refusal, .. })) => {
                METRICS.agent.ended(refusal.as_ref().map(|refusal| refusal.kind));
                METRICS.agent.relayed(counts.to_upstream, counts.to_client);
                let event = event
                    .field("bytes_from_client", counts.to_upstream)
                    .field("bytes_to_client", counts.to_client);
                match refusal {
                    Some(refusal) => event.field("reason", refusal.message),
                    None => event,
                }
            }
            Ok(Err(error)) => {
                METRICS.agent.failed.one_more();
                event.field("reason", format!("the proxy went away: {error}"))
            }
            Err(panic) => {
                METRICS.agent.failed.one_more();
                event.field("reason", format!("the relay failed: {panic}"))
            }
        };
        let written = async move {
            trail.note_end(&origin, event).await;
            drop(session);
        };
        ctx.run(written, move |_, (), ctx| stop_because(why, ctx));
    }
}

fn upstream_lost(permit: &Permit) -> Refusal {
    Refusal::new(
        RefusalKind::UpstreamLost,
        format!(
            "the database server of {} closed the connection without a reason",
            permit.service()
        ),
    )
    .hint("it may have been restarted or killed; its own log says more")
}

fn decline(declined: Declined, id: u64, mut stream: BoxStream, ctx: &mut Ctx<'_, Upstream>) {
    ctx.state("refusing");
    let why = match &declined {
        Declined::Refused(refusal) => refusal.kind.ending(),
        Declined::UpstreamSaidNo(_) => UPSTREAM_SAID_NO.to_owned(),
    };
    let body = match declined {
        Declined::Refused(refusal) => {
            tracing::info!(kind = refusal.kind.label(), reason = %refusal, "session refused");
            METRICS.agent.refused.of(refusal.kind).one_more();
            DbToProxy::Declined(refusal)
        }
        Declined::UpstreamSaidNo(error_response) => DbToProxy::UpstreamSaidNo { error_response },
    };
    let said = async move {
        let written = write_frame(&mut stream, &answer(id, body)).await;
        written.and(stream.shutdown().await)
    };
    ctx.run(said, move |_, _proxy_gone, ctx| ctx.stop_because(why));
}

fn refuse(mut stream: BoxStream, header: Option<Header>, why: &str, ctx: &mut Ctx<'_, Upstream>, trail: &Trail) {
    tracing::warn!(reason = why, "a proxy's message was refused");
    ctx.state("refusing");
    trail.note_now(
        trail
            .event(EventKind::PeerRefused)
            .field("peer_kinds", "proxy")
            .field("message", why),
    );
    let why = why.to_owned();
    let said = async move {
        let written = frames::refuse::<DbToProxy>(&mut stream, header.as_ref(), &why).await;
        written.and(stream.shutdown().await)
    };
    ctx.run(said, |_, _proxy_gone, ctx| ctx.stop());
}

/// Cancels, and tells the proxy.
async fn answer_cancel(parts: &AgentParts, ask: Ask, (mut stream, id): (BoxStream, u64), origin: &Origin) {
    let body = cancel(parts, ask, origin).await;
    if let Err(error) = write_frame(&mut stream, &answer(id, body)).await {
        tracing::debug!(%error, "the proxy did not wait for the answer to a cancel");
    }
}

impl Behavior for Upstream {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        let Some(mut stream) = self.stream.take() else {
            return ctx.stop();
        };
        ctx.state("reading");
        let (origin, from) = (ctx.origin(), self.from.clone());
        let first = async move {
            let _waits = origin.waits_for("first frame", from, HANDSHAKE_DEADLINE);
            let read = async {
                // At once, whatever comes: until then the proxy's multiplexer counts the stream as unacknowledged.
                stream.write_all(&[STREAM_ACCEPTED]).await?;
                stream.flush().await?;
                read_frame::<ProxyToDb>(&mut stream).await
            };
            let ask = tokio::time::timeout(HANDSHAKE_DEADLINE, read)
                .await
                .unwrap_or_else(|_| Err(ReadFrameError::Io(io::ErrorKind::TimedOut.into())));
            (ask, stream)
        };
        ctx.run(first, |upstream, (ask, stream), ctx| {
            upstream.received(ask, stream, ctx)
        });
    }
}

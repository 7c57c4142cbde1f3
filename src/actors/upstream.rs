//! One stream that a proxy opened: a client's connection to PostgreSQL, or a cancel.
//!
//! **Owns** the stream and, later, the connection to PostgreSQL.
//! **Hears** nothing; its steps are its own, each the continuation of the one before.
//! **Tells** `sessions` and `cancels` of its session; the audit trail of its start, its statements and its end.
//! **Never** believes the proxy's decision: it verifies the person's certificate and decides itself, about databases of its
//! own configuration.
//! **Ends** with the stream. Temporary.

use super::address::{Address, Origin};
use super::agent::{AgentParts, GetUpstreamClient, not_served};
use super::cancels::{FindUpstreamKey, ForgetKey, UpstreamKey, UpstreamTarget};
use super::host::{Behavior, Ctx, spawn_here};
use super::relay::{AuditTap, SessionOutcome, SessionRelay};
use super::sessions::{EndSignal, RegisterSession, SessionClosed};
use super::trail::{About, Trail};
use super::tunnel::answer;
use crate::audit::{EventKind, SessionFields};
use crate::model::{ConnectionId, DbName, DbUser, Refusal, RefusalKind, ServiceName, SessionId};
use crate::net::BoxStream;
use crate::net::frames::{ReadFrameError, read_frame, write_frame};
use crate::net::socket::Tcp;
use crate::net::tls::{ClientTls, HANDSHAKE_DEADLINE};
use crate::net::upstream::{self, UpstreamAnswer};
use crate::pki::verify_person;
use crate::policy::{AccessRequest, Denial, Permit, decide};
use crate::protocol::postgres::backend::backend_key_data;
use crate::protocol::tunnel::{DbToProxy, Frame, ProxyToDb, STREAM_ACCEPTED};
use rustls_pki_types::CertificateDer;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// Everything from the proxy's frame to PostgreSQL's ReadyForQuery. The reference's connect timeout is a minute; a client
/// that waits longer than this has given up.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);
const ASK_DEADLINE: Duration = Duration::from_secs(15);

pub struct Upstream {
    stream: Option<BoxStream>,
    parts: Arc<AgentParts>,
    client: Address<GetUpstreamClient>,
    session: Option<OpenSession>,
}

/// What has to be given back when the session is over, however it ends.
struct OpenSession {
    session: SessionId,
    connection: ConnectionId,
    origin: Origin,
    fields: Arc<SessionFields>,
    parts: Arc<AgentParts>,
    ended: bool,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        // Both are told rather than asked; a mailbox that is full of them is being emptied.
        let _full = self.parts.closed.tell(&self.origin, SessionClosed(self.session));
        let _full = self.parts.forget_key.tell(&self.origin, ForgetKey(self.connection));
        if !self.ended {
            let event = self
                .parts
                .trail
                .session_event(EventKind::SessionEnded, &self.fields)
                .field("reason", "the agent's part of the session failed");
            self.parts.trail.note_now(event);
        }
    }
}

/// What the proxy asked for.
struct OpenRelay {
    connection: ConnectionId,
    session: SessionId,
    person: Vec<Vec<u8>>,
    service: ServiceName,
    db_user: DbUser,
    db_name: DbName,
    parameters: Vec<(String, String)>,
    client_address: String,
    cancel_secret: crate::model::Secret<Vec<u8>>,
}

/// An allowed session with its PostgreSQL.
struct Ready {
    permit: Permit,
    end: EndSignal,
    session: OpenSession,
    postgres: ClientTls<Tcp>,
    process_id: u32,
    /// PostgreSQL's first answers, with our key in place of its own.
    greeting: Vec<u8>,
}

/// Why there is no session.
enum Declined {
    Refused(Refusal),
    /// PostgreSQL's own ErrorResponse.
    UpstreamSaidNo(Vec<u8>),
}

impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Upstream {
    pub fn new(stream: Option<BoxStream>, parts: Arc<AgentParts>, client: Address<GetUpstreamClient>) -> Self {
        Self {
            stream,
            parts,
            client,
            session: None,
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
                body: Some(ProxyToDb::CancelQuery { connection }),
            })) => {
                ctx.serve(connection);
                let (parts, origin) = (self.parts.clone(), ctx.origin());
                let done = async move { cancel(&parts, connection, stream, header.id, &origin).await };
                ctx.run(done, |_, (), ctx| ctx.stop());
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
                ctx.serve(connection);
                let ask = OpenRelay {
                    connection,
                    session,
                    person,
                    service,
                    db_user,
                    db_name,
                    parameters,
                    client_address,
                    cancel_secret: crate::model::Secret::new(cancel_secret),
                };
                self.open(ask, header.id, stream, ctx);
            }
            Ok(Some(Frame { header, .. })) => refuse(
                stream,
                header.id,
                "this message does not open a stream",
                ctx,
                &self.parts.trail,
            ),
            Ok(None) => ctx.stop(),
            Err(ReadFrameError::Refused { id, error }) => {
                refuse(stream, id.unwrap_or(0), &error.to_string(), ctx, &self.parts.trail);
            }
            Err(ReadFrameError::Io(error)) => {
                tracing::debug!(%error, "a stream ended before it said what it is for");
                ctx.stop();
            }
        }
    }

    fn open(&mut self, ask: OpenRelay, id: u64, stream: BoxStream, ctx: &mut Ctx<'_, Self>) {
        let (parts, client, origin) = (self.parts.clone(), self.client.clone(), ctx.origin());
        let opened = async move {
            let opened = tokio::time::timeout(OPEN_DEADLINE, prepare(&parts, &client, &ask, &origin)).await;
            let opened = opened.unwrap_or_else(|_| {
                Err(Declined::Refused(Refusal::new(
                    RefusalKind::UpstreamUnreachable,
                    format!("the database server did not let the session in within {OPEN_DEADLINE:?}"),
                )))
            });
            (opened, stream)
        };
        ctx.run(opened, move |upstream, (opened, stream), ctx| match opened {
            Ok(ready) => upstream.relay(ready, id, stream, ctx),
            Err(declined) => decline(declined, id, stream, ctx),
        });
    }

    fn relay(&mut self, ready: Ready, id: u64, mut stream: BoxStream, ctx: &mut Ctx<'_, Self>) {
        let Ready {
            permit,
            end,
            session,
            postgres,
            process_id,
            greeting,
        } = ready;
        let tap = AuditTap::new(self.parts.trail.clone(), session.fields.clone());
        self.session = Some(session);
        let task = spawn_here(async move {
            write_frame(&mut stream, &answer(id, DbToProxy::RelayOpened { process_id })).await?;
            stream.write_all(&greeting).await?;
            stream.flush().await?;
            let relay = SessionRelay::new(permit, stream, postgres, tap);
            Ok::<_, io::Error>(relay.run(end, upstream_lost).await)
        });
        ctx.run(task.join(), |upstream, outcome, ctx| upstream.ended(outcome, ctx));
    }

    fn ended(&mut self, outcome: Result<io::Result<SessionOutcome>, String>, ctx: &mut Ctx<'_, Self>) {
        let Some(mut session) = self.session.take() else {
            return ctx.stop();
        };
        session.ended = true;
        let trail = self.parts.trail.clone();
        let mut event = trail.session_event(EventKind::SessionEnded, &session.fields);
        event = match outcome {
            Ok(Ok(SessionOutcome { counts, refusal })) => {
                let event = event
                    .field("bytes_from_client", counts.to_upstream)
                    .field("bytes_to_client", counts.to_client);
                match refusal {
                    Some(refusal) => event.field("reason", refusal.message),
                    None => event,
                }
            }
            Ok(Err(error)) => event.field("reason", format!("the proxy went away: {error}")),
            Err(panic) => event.field("reason", format!("the relay failed: {panic}")),
        };
        let written = async move {
            if let Err(refusal) = trail.write(event).await {
                tracing::error!(%refusal, "the end of a session is not on the audit log");
            }
            drop(session);
        };
        ctx.run(written, |_, (), ctx| ctx.stop());
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

/// The agent's own decision, and all that has to be there before the first byte.
async fn prepare(
    parts: &Arc<AgentParts>,
    client: &Address<GetUpstreamClient>,
    ask: &OpenRelay,
    origin: &Origin,
) -> Result<Ready, Declined> {
    let (request, permit) = authorise(parts, ask).await?;
    let database = parts
        .databases
        .get(permit.service())
        .ok_or_else(|| not_served(permit.service()))?;
    let register = RegisterSession {
        session: ask.session,
        connection: ask.connection,
        request: request.clone(),
        policy_version: permit.policy_version(),
    };
    let end = parts
        .register
        .ask(origin, register, ASK_DEADLINE)
        .await
        .map_err(|error| unavailable(&error))??;
    let uri = database.endpoint.to_string();
    let fields = parts.trail.session_fields(about(ask, &request, &uri));
    let mut session = OpenSession {
        session: ask.session,
        connection: ask.connection,
        origin: origin.clone(),
        fields,
        parts: parts.clone(),
        // Until PostgreSQL has let it in, nothing has begun that would have to end.
        ended: true,
    };
    let want = GetUpstreamClient {
        connection: ask.connection,
        person: permit.person().clone(),
        person_until: permit.until(),
        chain: ask.person.clone(),
        service: permit.service().clone(),
        db_user: permit.db_user().clone(),
        db_name: permit.db_name().clone(),
    };
    let tls = client
        .ask(origin, want, ASK_DEADLINE)
        .await
        .map_err(|error| unavailable(&error))??;
    let opened = upstream::open(
        &database.endpoint,
        &tls,
        permit.db_user(),
        permit.db_name(),
        &ask.parameters,
    )
    .await;
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(answer) => return Err(failed_start(parts, &session, &permit, answer).await),
    };
    let event = started(parts, &session, &permit)
        .field("success", true)
        .field("client_addr", &ask.client_address)
        .field("postgres_pid", opened.key.process_id);
    parts.trail.write(event).await?;
    session.ended = false;
    opened
        .greeting
        .extend(backend_key_data(opened.key.process_id, &ask.cancel_secret));
    let process_id = opened.key.process_id;
    let target = UpstreamTarget {
        endpoint: database.endpoint.clone(),
        tls,
        key: Arc::new(opened.key),
        session: session.fields.clone(),
    };
    let keep = UpstreamKey(ask.connection, target);
    parts
        .keep_key
        .ask(origin, keep, ASK_DEADLINE)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(Ready {
        permit,
        end,
        session,
        postgres: opened.stream,
        process_id,
        greeting: opened.greeting,
    })
}

async fn authorise(parts: &AgentParts, ask: &OpenRelay) -> Result<(AccessRequest, Permit), Refusal> {
    let now = parts.clock.now();
    let chain: Vec<CertificateDer<'_>> = ask
        .person
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let principal = verify_person(&chain, &parts.anchors, now).map_err(|error| {
        tracing::warn!(%error, "the proxy forwarded a certificate that does not verify here");
        Refusal::new(
            RefusalKind::CertificateInvalid,
            format!("the agent does not accept the certificate: {error}"),
        )
    })?;
    let database = parts
        .databases
        .get(&ask.service)
        .ok_or_else(|| not_served(&ask.service))?;
    let request = AccessRequest {
        principal: Arc::new(principal),
        service: ask.service.clone(),
        labels: database.labels.clone(),
        db_user: ask.db_user.clone(),
        db_name: ask.db_name.clone(),
    };
    let snapshot = parts.policy.current()?;
    match decide(&snapshot, &request, now) {
        Ok(permit) => Ok((request, permit)),
        Err(denial) => {
            let uri = database.endpoint.to_string();
            denied(
                &parts.trail,
                about(ask, &request, &uri),
                &denial,
                "agent",
                snapshot.version,
            )
            .await?;
            Err(denial.refusal())
        }
    }
}

fn about<'a>(ask: &'a OpenRelay, request: &'a AccessRequest, uri: &'a str) -> About<'a> {
    About {
        person: &request.principal.name,
        session: ask.session,
        connection: ask.connection,
        service: &ask.service,
        uri,
        db_user: &ask.db_user,
        db_name: &ask.db_name,
    }
}

/// Audits a denial; the client hears of it when it is on disk.
pub async fn denied(trail: &Trail, about: About<'_>, denial: &Denial, by: &str, version: u64) -> Result<(), Refusal> {
    let fields = trail.session_fields(about);
    let mut event = trail
        .session_event(EventKind::SessionDenied, &fields)
        .field("success", false)
        .field("decided_by", by)
        .field("error", "access to db denied")
        .field("message", denial.to_string())
        .field("policy_version", version);
    if let Some(role) = denial.role() {
        event = event.field("decision_role", role.as_str());
    }
    trail.write(event).await
}

fn started(parts: &AgentParts, session: &OpenSession, permit: &Permit) -> crate::audit::EventBuilder {
    parts
        .trail
        .session_event(EventKind::SessionStarted, &session.fields)
        .field("decided_by", "agent")
        .field("decision_role", permit.role().as_str())
        .field("policy_version", permit.policy_version())
}

/// A session that was allowed and did not come about.
async fn failed_start(parts: &AgentParts, session: &OpenSession, permit: &Permit, answer: UpstreamAnswer) -> Declined {
    let (why, declined) = match answer {
        UpstreamAnswer::Refused(refusal) => (refusal.message.clone(), Declined::Refused(refusal)),
        UpstreamAnswer::SaidNo { why, error_response } => (why, Declined::UpstreamSaidNo(error_response)),
    };
    let event = parts
        .trail
        .session_event(EventKind::SessionDenied, &session.fields)
        .field("success", false)
        .field("decided_by", "agent")
        .field("decision_role", permit.role().as_str())
        .field("policy_version", permit.policy_version())
        .field("error", why);
    match parts.trail.write(event).await {
        Ok(()) => declined,
        Err(refusal) => Declined::Refused(refusal),
    }
}

fn unavailable(error: &super::address::AskError) -> Refusal {
    tracing::error!(%error, "a connection could not be prepared");
    Refusal::new(RefusalKind::Internal, "a part of the agent did not answer in time")
        .hint("connect again; the agent's log says more")
}

fn decline(declined: Declined, id: u64, mut stream: BoxStream, ctx: &mut Ctx<'_, Upstream>) {
    let body = match declined {
        Declined::Refused(refusal) => {
            tracing::info!(kind = refusal.kind.label(), reason = %refusal, "session refused");
            DbToProxy::Declined(refusal)
        }
        Declined::UpstreamSaidNo(error_response) => DbToProxy::UpstreamSaidNo { error_response },
    };
    let said = async move {
        let written = write_frame(&mut stream, &answer(id, body)).await;
        written.and(stream.shutdown().await)
    };
    ctx.run(said, |_, _proxy_gone, ctx| ctx.stop());
}

fn refuse(mut stream: BoxStream, id: u64, why: &str, ctx: &mut Ctx<'_, Upstream>, trail: &Trail) {
    tracing::warn!(why, "a proxy's message was refused");
    trail.note_now(
        trail
            .event(EventKind::PeerRefused)
            .field("peer_kinds", "proxy")
            .field("message", why),
    );
    let frame = Frame::<DbToProxy>::refused(id, why);
    let said = async move {
        let written = write_frame(&mut stream, &frame).await;
        written.and(stream.shutdown().await)
    };
    ctx.run(said, |_, _proxy_gone, ctx| ctx.stop());
}

async fn cancel(parts: &AgentParts, connection: ConnectionId, mut stream: BoxStream, id: u64, origin: &Origin) {
    let target = parts
        .find_key
        .ask(origin, FindUpstreamKey(connection), ASK_DEADLINE)
        .await;
    let body = match target {
        Ok(Some(target)) => {
            let sent = upstream::cancel(&target.endpoint, &target.tls, &target.key).await;
            let event = parts
                .trail
                .session_event(EventKind::SessionCancelled, &target.session)
                .field("success", sent.is_ok());
            parts.trail.note(event).await;
            match sent {
                Ok(()) => DbToProxy::CancelForwarded,
                Err(error) => DbToProxy::Declined(Refusal::new(RefusalKind::UpstreamUnreachable, error.to_string())),
            }
        }
        Ok(None) => DbToProxy::Declined(Refusal::new(
            RefusalKind::ProtocolViolation,
            "the connection is not there any more",
        )),
        Err(error) => DbToProxy::Declined(unavailable(&error)),
    };
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
        let first = async move {
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

//! The proxy's decision about one client, and the way to an agent that opens the session.
//!
//! In this order: the certificate, the database service it is for, the roles, the registration of the session, the audit
//! trail, and only then an agent.

use super::address::Origin;
use super::agent_way::AgentWay;
use super::cancels::{CancelKey, ClientKey, ClientTarget};
use super::certificate_words::certificate_refusal;
use super::connection::{ConnectionParts, OpenSession, ProxyParts};
use super::peers::PeerQuestion;
use super::sessions::{RegisterSession, Watched};
use super::strangers::Matter;
use super::trail::About;
use super::tunnels::{Candidate, Lookup};
use crate::audit::EventKind;
use crate::model::names::MAX_IDENTIFIER_BYTES;
use crate::model::{ConnectionId, DbUser, NodeName, Principal, Refusal, RefusalKind, Secret, ServiceName, SessionId};
use crate::net::BoxStream;
use crate::net::frames::{AnswerError, read_answer, write_frame};
use crate::pki::{CertificateError, entropy, verify_person};
use crate::policy::{AccessRequest, Permit, decide, effective_db_name};
use crate::protocol::postgres::StartupMessage;
use crate::protocol::postgres::startup::{LONG_CANCEL_KEY_BYTES, REPLICATION, SHORT_CANCEL_KEY_BYTES};
use crate::protocol::tunnel::{DbToProxy, Frame, FrameKind, Header, ProxyToDb, STREAM_ACCEPTED};
use crate::telemetry::relays::RelaySpec;
use crate::telemetry::view::{Side, Whose};
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

const ASK_DEADLINE: Duration = Duration::from_secs(15);
/// An agent says at once that it has a stream; one that does not is gone, and the next one is tried.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(5);
/// The agent has its own deadline for PostgreSQL below this one.
const OPEN_DEADLINE: Duration = Duration::from_secs(40);

/// A client that has sent its StartupMessage.
pub struct Client {
    pub connection: ConnectionId,
    pub peer: SocketAddr,
    pub runtime: usize,
    pub chain: Vec<CertificateDer<'static>>,
    pub startup: StartupMessage,
}

pub enum Opened {
    Session(Box<OpenedSession>),
    /// PostgreSQL refused; its ErrorResponse.
    UpstreamSaidNo(Vec<u8>),
}

pub struct OpenedSession {
    pub permit: Permit,
    pub watched: Watched,
    pub session: OpenSession,
    pub stream: BoxStream,
    pub agent: String,
    /// As the views show it.
    pub seen: RelaySpec,
}

/// A client that is turned away, and whether the audit log has it already.
struct Failed {
    refusal: Refusal,
    audited: bool,
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        let audited = false;
        Self { refusal, audited }
    }
}

impl Failed {
    fn audited(refusal: Refusal) -> Self {
        let audited = true;
        Self { refusal, audited }
    }
}

/// Whatever it comes to is on the audit log.
pub async fn open_session(parts: &Arc<ConnectionParts>, client: &Client, origin: &Origin) -> Result<Opened, Refusal> {
    let session = SessionId::from_random(entropy::bytes());
    let failed = match attempt(parts, client, session, origin).await {
        Ok(opened) => return Ok(opened),
        Err(failed) => failed,
    };
    if !failed.audited {
        let event = parts
            .trail
            .event(EventKind::SessionDenied)
            .field("sid", session.to_string())
            .field("connection", client.connection.to_string())
            .field("addr.remote", client.peer.to_string())
            .field("db_user", shortened(client.startup.user()))
            .field("success", false)
            .field("decided_by", "proxy")
            .field("error", failed.refusal.message.as_str());
        parts.trail.note(event).await;
    }
    Err(failed.refusal)
}

/// What a client says of itself before it is checked, for the audit log and the views: as much of it as a name can have.
fn shortened(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_IDENTIFIER_BYTES))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

async fn attempt(
    parts: &Arc<ConnectionParts>,
    client: &Client,
    session: SessionId,
    origin: &Origin,
) -> Result<Opened, Failed> {
    let proxy = parts.proxy.as_ref().ok_or_else(not_a_proxy)?;
    let principal = identify(parts, client).await?;
    origin.from.is_for(whose(client, &principal));
    let mut parameters = client.startup.passed_parameters()?;
    let service = service_of(&principal)?;
    let mut candidates = candidates(parts, proxy, client, &service)?;
    let (request, permit) = authorise(parts, client, principal, service, &mut candidates, session, origin).await?;
    if let Some(replication) = permit.replication() {
        parameters.push((REPLICATION.to_owned(), replication.parameter().to_owned()));
    }
    let register = RegisterSession {
        session,
        connection: client.connection,
        request: request.clone(),
        policy_version: permit.policy_version(),
        options: *permit.options(),
    };
    let fields = parts
        .trail
        .session_fields(about(client, &request, session, &candidates[0].uri));
    let watched = match proxy.register.ask(origin, register, ASK_DEADLINE).await {
        Ok(Ok(watched)) => watched,
        Ok(Err(refusal)) if refusal.kind == RefusalKind::MaxConnections => {
            parts.trail.reject(&fields, &refusal, origin).await?;
            return Err(Failed::audited(refusal));
        }
        Ok(Err(refusal)) => return Err(refusal.into()),
        Err(error) => return Err(unavailable(&error).into()),
    };
    let open = OpenSession {
        session,
        connection: client.connection,
        origin: origin.clone(),
        fields: fields.clone(),
        parts: parts.clone(),
        alive: Arc::new(()),
    };
    let event = parts
        .trail
        .session_event(EventKind::SessionRouted, &fields)
        .field("success", true)
        .field("decided_by", "proxy")
        .field("decision_role", permit.role().as_str())
        .field("policy_version", permit.policy_version())
        .field("addr.remote", client.peer.to_string());
    parts.trail.write_for(origin, event).await?;
    origin.enters("opening");
    let secret = Secret::new(cancel_secret(&client.startup));
    let ask = ProxyToDb::OpenRelay {
        connection: client.connection,
        session,
        person: client.chain.iter().map(|certificate| certificate.to_vec()).collect(),
        service: permit.service().clone(),
        db_user: permit.db_user().clone(),
        db_name: permit.db_name().clone(),
        parameters,
        client_address: client.peer.to_string(),
        cancel_secret: secret.expose().clone(),
        policy_version: permit.policy_version(),
    };
    let passes_to = |candidate: &Candidate| {
        let way = candidate.way.clone();
        proxy.agents.note(client.connection, way, Arc::downgrade(&open.alive));
    };
    let (stream, candidate, process_id) = match first_that_opens(&candidates, &ask, origin, passes_to).await? {
        Answer::Opened {
            stream,
            candidate,
            process_id,
        } => (stream, candidate, process_id),
        Answer::UpstreamSaidNo(error_response) => {
            return Ok(Opened::UpstreamSaidNo(error_response));
        }
    };
    let key = ClientKey {
        connection: client.connection,
        key: CancelKey::new(process_id, &secret),
        target: ClientTarget {
            agent: candidate.way.clone(),
            alive: Arc::downgrade(&open.alive),
        },
    };
    proxy
        .keep_key
        .ask(origin, key, ASK_DEADLINE)
        .await
        .map_err(|error| unavailable(&error))?;
    let seen = RelaySpec {
        connection: client.connection,
        session,
        side: Side::Proxy,
        whose: Whose {
            user: permit.person().to_string(),
            database: permit.service().to_string(),
            db_user: permit.db_user().to_string(),
            db_name: permit.db_name().to_string(),
            client: client.peer.to_string(),
        },
        upstream: candidate.way.peer().to_string(),
        process_id,
    };
    Ok(Opened::Session(Box::new(OpenedSession {
        permit,
        watched,
        session: open,
        stream,
        agent: candidate.way.name.to_string(),
        seen,
    })))
}

/// The secret of the cancel key that this client is given: as long as it can read.
fn cancel_secret(startup: &StartupMessage) -> Vec<u8> {
    if startup.has_long_cancel_keys() {
        entropy::bytes::<LONG_CANCEL_KEY_BYTES>().to_vec()
    } else {
        entropy::bytes::<SHORT_CANCEL_KEY_BYTES>().to_vec()
    }
}

/// Who this is, from the certificate that TLS has let through; what is wrong with it is said in words.
async fn identify(parts: &ConnectionParts, client: &Client) -> Result<Principal, Failed> {
    let error = match verify_person(
        &client.chain,
        &parts.identity.in_use().identity.anchors,
        parts.clock.now(),
    ) {
        Ok(principal) => return Ok(principal),
        Err(error) => error,
    };
    let refused = Failed::audited(certificate_refusal(&error));
    // Anybody can do this, as often as they like.
    let is_stranger = matches!(error, CertificateError::Missing);
    if is_stranger && !parts.door.strangers.is_to_be_told(Matter::NoCertificate, client.peer) {
        return Err(refused);
    }
    let event = parts
        .trail
        .event(EventKind::AuthFailed)
        .field("addr.remote", client.peer.to_string())
        .field("connection", client.connection.to_string())
        .field("db_user", shortened(client.startup.user()))
        .field("success", false)
        .field("error", error.to_string());
    if is_stranger {
        tracing::info!(peer = %client.peer, reason = %error, "client refused");
    }
    parts.trail.note(event).await;
    Err(refused)
}

/// As the views show it before there is a session: the person is known, and what they ask for is not decided yet.
fn whose(client: &Client, principal: &Principal) -> Whose {
    let route = principal.route.as_ref();
    let db_user = client.startup.user();
    Whose {
        user: principal.name.to_string(),
        database: route.map(|route| route.service.to_string()).unwrap_or_default(),
        db_user: shortened(db_user).to_owned(),
        db_name: shortened(client.startup.database().unwrap_or(db_user)).to_owned(),
        client: client.peer.to_string(),
    }
}

fn service_of(principal: &Principal) -> Result<ServiceName, Refusal> {
    principal.route.as_ref().map(|route| route.service.clone()).ok_or_else(|| {
        Refusal::new(
            RefusalKind::DatabaseUnknown,
            "this certificate names no database service, so it is not known which database is meant",
        )
        .hint("use a certificate that was issued for one: postern ctl auth sign --format=file --user=NAME --db-service=DATABASE")
    })
}

fn candidates(
    parts: &ConnectionParts,
    proxy: &ProxyParts,
    client: &Client,
    service: &ServiceName,
) -> Result<Vec<Candidate>, Refusal> {
    match proxy
        .routes
        .routes()
        .lookup(service, client.runtime, client.connection.as_u64())
    {
        Lookup::Candidates(candidates) => Ok(candidates),
        Lookup::Offline { agent, since } => Err(offline(service, &agent, since)),
        Lookup::Withdrawn { agent } => Err(withdrawn(service, &agent)),
        Lookup::Unknown => Err(Refusal::new(
            RefusalKind::DatabaseUnknown,
            format!(
                "database {service:?} not found among registered databases in cluster {:?}",
                parts.cluster
            ),
        )
        .hint("to see those that you may use: postern db ls; an administrator sees all: postern ctl db ls")),
    }
}

fn withdrawn(service: &ServiceName, agent: &NodeName) -> Refusal {
    Refusal::new(
        RefusalKind::AgentUnreachable,
        format!("database {service} is served by agent {agent}, which is going down and takes no new sessions"),
    )
    .hint("try again when the agent is back; it connects by itself")
}

fn offline(service: &ServiceName, agent: &NodeName, since: crate::model::Timestamp) -> Refusal {
    let since = if since.as_secs() == 0 {
        String::new()
    } else {
        format!(" since {since}")
    };
    Refusal::new(
        RefusalKind::AgentUnreachable,
        format!("database {service} is served by agent {agent}, which has been offline{since}"),
    )
    .hint("check the agent's log; it connects again by itself when it is back")
}

/// Decides for the labels that the agents announce. Agents of one service should agree on them; where they do not, those
/// stay that have the labels which were decided on.
async fn authorise(
    parts: &ConnectionParts,
    client: &Client,
    principal: Principal,
    service: ServiceName,
    candidates: &mut Vec<Candidate>,
    session: SessionId,
    origin: &Origin,
) -> Result<(AccessRequest, Permit), Failed> {
    let bad_name = |error: crate::model::NameError| Refusal::new(RefusalKind::AccessDenied, error.to_string());
    let db_user = DbUser::new(client.startup.user()).map_err(bad_name)?;
    // What PostgreSQL would use: an empty name falls to the user's.
    let replication = client.startup.replication();
    let db_name = effective_db_name(client.startup.database(), &db_user, replication).map_err(bad_name)?;
    let snapshot = parts.policy.current()?;
    let mut request = AccessRequest {
        principal: Arc::new(principal),
        service,
        labels: candidates[0].labels.clone(),
        db_user,
        db_name,
        replication,
        nodes: Vec::new(),
        client_ip: Some(client.peer.ip()),
    };
    let here = (parts.trail.node, parts.trail.node_name.clone());
    let mut denied = None;
    for candidate in candidates.iter() {
        request.labels = candidate.labels.clone();
        request.nodes = vec![here.clone(), (candidate.way.node, candidate.way.name.clone())];
        match decide(&snapshot, &request, parts.clock.now()) {
            Ok(permit) => {
                let usable = |candidate: &Candidate| {
                    let node = (candidate.way.node, candidate.way.name.clone());
                    let locked = snapshot.lock_in_force(&request.principal.name, &[], &[node], parts.clock.now());
                    candidate.labels == request.labels && locked.is_none()
                };
                candidates.retain(usable);
                // Which agent takes the session is not known yet, and it decides for itself, also when the rules change.
                request.nodes = vec![here];
                return Ok((request, permit));
            }
            Err(denial) => _ = denied.get_or_insert(denial),
        }
    }
    let denial = denied.ok_or_else(|| Refusal::new(RefusalKind::AgentUnreachable, "no agent serves this database"))?;
    let about = about(client, &request, session, &candidates[0].uri);
    parts
        .trail
        .deny(about, &denial, "proxy", snapshot.version, origin)
        .await?;
    Err(Failed::audited(denial.refusal()))
}

fn about<'a>(client: &Client, request: &'a AccessRequest, session: SessionId, uri: &'a str) -> About<'a> {
    About {
        person: &request.principal.name,
        session,
        connection: client.connection,
        service: &request.service,
        uri,
        db_user: &request.db_user,
        db_name: &request.db_name,
        replication: request.replication,
    }
}

enum Answer {
    Opened {
        stream: BoxStream,
        candidate: Candidate,
        process_id: u32,
    },
    UpstreamSaidNo(Vec<u8>),
}

/// Tries the agents in their order. One that cannot be reached, or that is lost before it has answered, passes the turn: no byte
/// of the client's has gone through it. An agent's answer is final.
async fn first_that_opens(
    candidates: &[Candidate],
    ask: &ProxyToDb,
    origin: &Origin,
    passes_to: impl Fn(&Candidate),
) -> Result<Answer, Refusal> {
    let mut tried = Vec::new();
    let mut lost = None;
    let mut refused = None;
    for candidate in candidates {
        // Before it answers: one that does not is the one to be asked why.
        passes_to(candidate);
        let question = origin.asks("OpenRelay", candidate.way.peer(), OPEN_DEADLINE);
        let mut stream = match begin(&candidate.way, ask, origin, &question).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(agent = %candidate.way.name, %error, "agent not reached");
                tried.push(format!("{} ({error})", candidate.way.name));
                continue;
            }
        };
        let answer = tokio::time::timeout(OPEN_DEADLINE, read_answer::<DbToProxy>(&mut stream)).await;
        return match answer {
            Ok(Ok(DbToProxy::RelayOpened { process_id })) => Ok(Answer::Opened {
                stream,
                candidate: candidate.clone(),
                process_id,
            }),
            // It has said so to this proxy, but this client was faster.
            Ok(Ok(DbToProxy::Declined(refusal))) if refusal.kind == RefusalKind::ShuttingDown => {
                tried.push(format!("{} (it is going down)", candidate.way.name));
                continue;
            }
            Ok(Ok(DbToProxy::Declined(refusal))) => Err(refusal),
            Ok(Ok(DbToProxy::UpstreamSaidNo { error_response })) => Ok(Answer::UpstreamSaidNo(error_response)),
            Ok(Ok(_)) => Err(bad_answer(&candidate.way.name, "an answer to another question")),
            // It has done nothing, and the next one may be of another version.
            Ok(Err(AnswerError::Refused { why })) => {
                tracing::error!(agent = %candidate.way.name, reason = why, "an agent does not take what this proxy asks");
                refused = Some(candidate.way.name.clone());
                continue;
            }
            Ok(Err(AnswerError::Unreadable(error))) => Err(bad_answer(&candidate.way.name, &error.to_string())),
            Ok(Err(AnswerError::Ended | AnswerError::Io(_))) => {
                tracing::warn!(agent = %candidate.way.name, "agent lost while it opened a session");
                lost = Some(candidate.way.name.clone());
                continue;
            }
            Err(_) => Err(Refusal::new(
                RefusalKind::AgentUnreachable,
                format!(
                    "agent {} did not open the session within {OPEN_DEADLINE:?}",
                    candidate.way.name
                ),
            )),
        };
    }
    if let Some(agent) = refused {
        return Err(not_known_to(&agent));
    }
    if let Some(agent) = lost {
        let why = format!("agent {agent} went away while it opened the session");
        return Err(Refusal::new(RefusalKind::AgentLost, why).hint("connect again"));
    }
    Err(Refusal::new(
        RefusalKind::AgentUnreachable,
        format!("no agent of this database can be reached; tried: {}", tried.join(", ")),
    )
    .hint("check the agents' logs; they connect again by themselves"))
}

/// Opens a stream, sends what it is for, and hears that the agent has it.
pub(super) async fn begin(
    agent: &AgentWay,
    ask: &ProxyToDb,
    origin: &Origin,
    question: &PeerQuestion,
) -> io::Result<BoxStream> {
    let _waits = origin.waits_for("acceptance", agent.peer(), ACCEPT_DEADLINE);
    let begun = async {
        let mut stream = agent.transport.open(origin).await.map_err(io::Error::other)?;
        write_frame(&mut stream, &ask_frame(ask, origin, question)).await?;
        accepted(&mut stream).await?;
        Ok(stream)
    };
    tokio::time::timeout(ACCEPT_DEADLINE, begun).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("silent for {ACCEPT_DEADLINE:?}"),
        ))
    })
}

fn ask_frame(ask: &ProxyToDb, origin: &Origin, question: &PeerQuestion) -> Frame<ProxyToDb> {
    let header = Header {
        id: question.id(),
        kind: FrameKind::Ask {
            deadline_ms: u32::try_from(OPEN_DEADLINE.as_millis()).unwrap_or(u32::MAX),
        },
        cause: question.cause(),
        connection: origin.connection.map(ConnectionId::as_u64),
    };
    Frame::new(header, ask.clone())
}

pub(super) async fn accepted(stream: &mut BoxStream) -> io::Result<()> {
    match stream.read_u8().await? {
        STREAM_ACCEPTED => Ok(()),
        other => Err(io::Error::other(format!("status byte {other}"))),
    }
}

fn bad_answer(agent: &NodeName, why: &str) -> Refusal {
    tracing::error!(%agent, reason = why, "an agent's answer was not understood");
    Refusal::new(
        RefusalKind::Internal,
        format!("agent {agent} answered what this proxy does not know"),
    )
    .hint("the proxy may be of an older version; an administrator should upgrade it, and the proxy's log says more")
}

fn not_known_to(agent: &NodeName) -> Refusal {
    Refusal::new(
        RefusalKind::Internal,
        format!("agent {agent} does not know what this proxy asks of it"),
    )
    .hint("the agent may be of an older version; an administrator should upgrade it, and the proxy's log says more")
}

fn unavailable(error: &super::address::AskError) -> Refusal {
    tracing::error!(%error, "a connection could not be prepared");
    Refusal::new(
        RefusalKind::Unavailable,
        "a part of the proxy that a connection needs failed or is overloaded",
    )
    .hint("try again; if it lasts, the proxy's log says more")
}

fn not_a_proxy() -> Refusal {
    Refusal::new(RefusalKind::NotSupported, "this node is not a proxy")
}

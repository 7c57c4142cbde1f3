//! The agent's own decision about a session, and all that has to be there before its first byte.
//!
//! In this order: the person's certificate, the database of this agent's own configuration, the roles, the registration of the
//! session, the certificate for PostgreSQL, PostgreSQL itself, and the audit trail. The proxy has decided before; nothing of
//! that is believed here.

use super::address::{Address, AskError, Origin};
use super::agent::{AgentParts, GetUpstreamClient, not_served};
use super::cancels::{CancelKey, ForgetKey, UpstreamKey, UpstreamTarget};
use super::certificate_words::certificate_refusal;
use super::sessions::{RegisterSession, SessionClosed, Watched};
use super::trail::About;
use crate::audit::{EventBuilder, EventKind, SessionFields};
use crate::model::{
    ConnectionId, DbName, DbUser, NodeId, PersonName, Refusal, RefusalKind, Replication, Secret, ServiceName, SessionId,
};
use crate::net::BoxStream;
use crate::net::upstream::{self, UpstreamAnswer};
use crate::pki::verify_person;
use crate::policy::{AccessRequest, Permit, decide, effective_db_name};
use crate::protocol::postgres::backend::backend_key_data;
use crate::protocol::postgres::parameters::ParameterRule;
use crate::protocol::postgres::startup::CANCEL_KEY_BYTES;
use crate::telemetry::relays::RelaySpec;
use crate::telemetry::view::{Side, Whose};
use rustls_pki_types::CertificateDer;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// An actor of this process that has not answered by then never will.
const ASK_DEADLINE: Duration = Duration::from_secs(15);

/// What has to be given back when the session is over, however it ends.
pub struct OpenSession {
    pub session: SessionId,
    pub connection: ConnectionId,
    pub origin: Origin,
    pub fields: Arc<SessionFields>,
    pub parts: Arc<AgentParts>,
    pub ended: bool,
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
pub struct OpenRelay {
    pub connection: ConnectionId,
    pub session: SessionId,
    pub person: Vec<Vec<u8>>,
    pub service: ServiceName,
    pub db_user: DbUser,
    pub db_name: DbName,
    pub parameters: Vec<(String, String)>,
    pub client_address: String,
    pub cancel_secret: Secret<Vec<u8>>,
    /// Who asked, by its certificate; `None` is the one in this process.
    pub proxy: Option<NodeId>,
}

/// An allowed session with its PostgreSQL.
pub struct Ready {
    pub permit: Permit,
    pub watched: Watched,
    pub session: OpenSession,
    pub postgres: BoxStream,
    pub process_id: u32,
    /// PostgreSQL's first answers, with our key in place of its own.
    pub greeting: Vec<u8>,
    /// As the views show it.
    pub seen: RelaySpec,
}

/// Why there is no session.
pub enum Declined {
    Refused(Refusal),
    /// PostgreSQL's own ErrorResponse.
    UpstreamSaidNo(Vec<u8>),
}

impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Names and values, in the client's order.
type Parameters = Vec<(String, String)>;

/// Start-up parameters as a proxy may send them: only those that may pass, each once, and a replication connection in the one
/// spelling of its mode, which is decided on and not passed. One that is named like a part of the decision would come after it
/// and win.
fn check_parameters(parameters: &[(String, String)]) -> Result<(Parameters, Option<Replication>), Refusal> {
    let refused = |name: &str| {
        tracing::error!(
            parameter = name,
            "the proxy sent a start-up parameter that may not pass"
        );
        Refusal::new(
            RefusalKind::ProtocolViolation,
            format!("the proxy sent the start-up parameter {name:?}, which may not pass"),
        )
    };
    let (mut passed, mut replication) = (Vec::new(), None);
    for (at, (name, value)) in parameters.iter().enumerate() {
        let twice = parameters[..at]
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name));
        match ParameterRule::of(name, value) {
            _ if twice => return Err(refused(name)),
            ParameterRule::Pass => passed.push((name.clone(), value.clone())),
            ParameterRule::Replicate(mode) if value == mode.parameter() => replication = Some(mode),
            _ => return Err(refused(name)),
        }
    }
    Ok((passed, replication))
}

/// A secret that no client could be given would end its session in a way that nobody understands.
fn check_secret(secret: &Secret<Vec<u8>>) -> Result<(), Refusal> {
    let length = secret.expose().len();
    if CANCEL_KEY_BYTES.contains(&length) {
        return Ok(());
    }
    tracing::error!(length, "the proxy sent a cancel secret that no client can be given");
    let what = format!("the proxy sent a cancel secret of {length} bytes; 4 to 256 bytes are allowed");
    Err(Refusal::new(RefusalKind::ProtocolViolation, what))
}

/// Why it did not come about, and whether the audit log has it already.
struct Failed {
    declined: Declined,
    audited: bool,
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self {
            declined: Declined::Refused(refusal),
            audited: false,
        }
    }
}

/// The agent's own decision, and all that has to be there before the first byte. Whatever it comes to is on the audit log.
pub async fn prepare(
    parts: &Arc<AgentParts>,
    client: &Address<GetUpstreamClient>,
    ask: &OpenRelay,
    origin: &Origin,
    within: Duration,
) -> Result<Ready, Declined> {
    let attempt = tokio::time::timeout(within, attempt(parts, client, ask, origin)).await;
    let failed = match attempt {
        Ok(Ok(ready)) => return Ok(ready),
        Ok(Err(failed)) => failed,
        Err(_) => Failed::from(Refusal::new(
            RefusalKind::UpstreamUnreachable,
            format!("the database server did not let the session in within {within:?}"),
        )),
    };
    if let (Declined::Refused(refusal), false) = (&failed.declined, failed.audited) {
        let event = parts
            .trail
            .event(EventKind::SessionDenied)
            .field("sid", ask.session.to_string())
            .field("connection", ask.connection.to_string())
            .field("db_service", ask.service.as_str())
            .field("db_user", ask.db_user.as_str())
            .field("db_name", ask.db_name.as_str())
            .field("success", false)
            .field("decided_by", "agent")
            .field("error", refusal.message.as_str());
        parts.trail.write_for(origin, event).await?;
    }
    Err(failed.declined)
}

async fn attempt(
    parts: &Arc<AgentParts>,
    client: &Address<GetUpstreamClient>,
    ask: &OpenRelay,
    origin: &Origin,
) -> Result<Ready, Failed> {
    let (parameters, replication) = check_parameters(&ask.parameters)?;
    check_secret(&ask.cancel_secret)?;
    let (request, permit) = authorise(parts, ask, replication, origin).await?;
    let register = RegisterSession {
        session: ask.session,
        connection: ask.connection,
        request: request.clone(),
        policy_version: permit.policy_version(),
        options: *permit.options(),
    };
    let database = parts
        .databases
        .get(permit.service())
        .ok_or_else(|| not_served(permit.service()))?;
    let uri = database.endpoint.to_string();
    let fields = parts.trail.session_fields(about(ask, &request, &uri));
    let watched = match parts.register.ask(origin, register, ASK_DEADLINE).await {
        Ok(Ok(watched)) => watched,
        Ok(Err(refusal)) if refusal.kind == RefusalKind::MaxConnections => {
            parts.trail.reject(&fields, &refusal, origin).await?;
            let declined = Declined::Refused(refusal);
            let audited = true;
            return Err(Failed { declined, audited });
        }
        Ok(Err(refusal)) => return Err(refusal.into()),
        Err(error) => return Err(unavailable(&error).into()),
    };
    // Again: from here on the news that it is not served any more, or not as it was, reaches this session.
    let database = parts
        .databases
        .get(permit.service())
        .ok_or_else(|| not_served(permit.service()))?;
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
        database: database.clone(),
        db_user: permit.db_user().clone(),
        db_name: permit.db_name().clone(),
    };
    let tls = client
        .ask(origin, want, ASK_DEADLINE)
        .await
        .map_err(|error| unavailable(&error))??;
    origin.enters("connecting");
    let peer: Arc<str> = format!("PostgreSQL at {}", database.endpoint).into();
    let opened = upstream::open(
        parts.dial.as_ref(),
        &database.endpoint,
        &tls,
        upstream::Asked {
            db_user: permit.db_user(),
            db_name: permit.db_name(),
            replication: permit.replication(),
            parameters: &parameters,
        },
        &|step, within| origin.waits_for(step, peer.clone(), within),
    )
    .await;
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(answer) => {
            return Err(Failed {
                declined: failed_start(parts, &session, &permit, answer, origin).await,
                audited: true,
            });
        }
    };
    let event = started(parts, &session, &permit)
        .field("success", true)
        .field("client_addr", &ask.client_address)
        .field("postgres_pid", opened.key.process_id);
    // From here on a start may be on disk, whether this is waited for or not.
    session.ended = false;
    parts.trail.write_for(origin, event).await?;
    opened
        .greeting
        .extend(backend_key_data(opened.key.process_id, &ask.cancel_secret));
    let process_id = opened.key.process_id;
    let target = UpstreamTarget {
        endpoint: database.endpoint.clone(),
        trust: database.trust.clone(),
        key: Arc::new(opened.key),
        proxy: ask.proxy,
        session: Arc::downgrade(&session.fields),
    };
    let keep = UpstreamKey {
        connection: ask.connection,
        key: CancelKey::new(process_id, &ask.cancel_secret),
        target,
    };
    parts
        .keep_key
        .ask(origin, keep, ASK_DEADLINE)
        .await
        .map_err(|error| unavailable(&error))?;
    let seen = RelaySpec {
        connection: ask.connection,
        session: ask.session,
        side: Side::Agent,
        whose: whose(ask, permit.person()),
        upstream: peer.to_string(),
        process_id,
    };
    Ok(Ready {
        permit,
        watched,
        session,
        postgres: opened.stream,
        process_id,
        greeting: opened.greeting,
        seen,
    })
}

async fn authorise(
    parts: &AgentParts,
    ask: &OpenRelay,
    replication: Option<Replication>,
    origin: &Origin,
) -> Result<(AccessRequest, Permit), Failed> {
    let now = parts.clock.now();
    let chain: Vec<CertificateDer<'_>> = ask
        .person
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let principal = verify_person(&chain, &parts.anchors, now).map_err(|error| {
        tracing::warn!(%error, "the proxy forwarded a certificate that does not verify here");
        certificate_refusal(&error)
    })?;
    let client_ip = client_ip(&ask.client_address)?;
    origin.from.is_for(whose(ask, &principal.name));
    let database = parts
        .databases
        .get(&ask.service)
        .ok_or_else(|| not_served(&ask.service))?;
    // As the proxy has it already, but for one that would have a physical replication decided under a database's name.
    let db_name = effective_db_name(Some(ask.db_name.as_str()), &ask.db_user, replication)
        .map_err(|error| Refusal::new(RefusalKind::AccessDenied, error.to_string()))?;
    let request = AccessRequest {
        principal: Arc::new(principal),
        service: ask.service.clone(),
        labels: database.labels.clone(),
        db_user: ask.db_user.clone(),
        db_name,
        replication,
        nodes: vec![(parts.trail.node, parts.trail.node_name.clone())],
        client_ip: Some(client_ip),
    };
    let snapshot = parts.policy.current()?;
    match decide(&snapshot, &request, now) {
        Ok(permit) => Ok((request, permit)),
        Err(denial) => {
            let uri = database.endpoint.to_string();
            parts
                .trail
                .deny(about(ask, &request, &uri), &denial, "agent", snapshot.version, origin)
                .await?;
            Err(Failed {
                declined: Declined::Refused(denial.refusal()),
                audited: true,
            })
        }
    }
}

/// As the views show it; who the person is has been verified here.
fn whose(ask: &OpenRelay, person: &PersonName) -> Whose {
    Whose {
        user: person.to_string(),
        database: ask.service.to_string(),
        db_user: ask.db_user.to_string(),
        db_name: ask.db_name.to_string(),
        client: ask.client_address.clone(),
    }
}

fn client_ip(address: &str) -> Result<IpAddr, Refusal> {
    address.parse().map(|address: SocketAddr| address.ip()).map_err(|_| {
        tracing::error!(
            peer = address,
            "the proxy's client address is not an address with a port"
        );
        Refusal::new(
            RefusalKind::Internal,
            "the proxy did not say where this connection comes from",
        )
    })
}

fn about<'a>(ask: &'a OpenRelay, request: &'a AccessRequest, uri: &'a str) -> About<'a> {
    About {
        person: &request.principal.name,
        session: ask.session,
        connection: ask.connection,
        service: &ask.service,
        uri,
        db_user: &ask.db_user,
        db_name: &request.db_name,
        replication: request.replication,
    }
}

fn started(parts: &AgentParts, session: &OpenSession, permit: &Permit) -> EventBuilder {
    parts
        .trail
        .session_event(EventKind::SessionStarted, &session.fields)
        .field("decided_by", "agent")
        .field("decision_role", permit.role().as_str())
        .field("policy_version", permit.policy_version())
}

/// A session that was allowed and did not come about.
async fn failed_start(
    parts: &AgentParts,
    session: &OpenSession,
    permit: &Permit,
    answer: UpstreamAnswer,
    origin: &Origin,
) -> Declined {
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
    match parts.trail.write_for(origin, event).await {
        Ok(()) => declined,
        Err(refusal) => Declined::Refused(refusal),
    }
}

pub fn unavailable(error: &AskError) -> Refusal {
    tracing::error!(%error, "a connection could not be prepared");
    Refusal::new(
        RefusalKind::Unavailable,
        "a part of the agent that a connection needs failed or is overloaded",
    )
    .hint("try again; if it lasts, the agent's log says more")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_proxy_cannot_add_a_parameter_that_wins_over_the_decision() {
        for name in [
            "database",
            "user",
            "DATABASE",
            "replication",
            "Replication",
            "options",
            "role",
            "session_authorization",
        ] {
            let smuggled = parameters(&[("application_name", "psql"), (name, "payroll")]);
            assert!(check_parameters(&smuggled).is_err(), "{name}");
        }
        let twice = parameters(&[("DateStyle", "ISO"), ("datestyle", "German")]);
        assert!(check_parameters(&twice).is_err());
        let usual = parameters(&[("application_name", "psql"), ("client_encoding", "UTF8")]);
        assert_eq!(check_parameters(&usual).expect("they pass"), (usual, None));
    }

    #[test]
    fn a_replication_connection_is_taken_out_of_the_parameters_and_decided_on() {
        for (value, expected) in [
            ("true", Some(Replication::Physical)),
            ("database", Some(Replication::Logical)),
            // What a proxy would have left out, or spelled otherwise.
            ("false", None),
            ("on", None),
            ("TRUE", None),
        ] {
            let asked = parameters(&[("replication", value), ("application_name", "pg_receivewal")]);
            match expected {
                Some(mode) => {
                    let passed = parameters(&[("application_name", "pg_receivewal")]);
                    assert_eq!(check_parameters(&asked).expect(value), (passed, Some(mode)));
                }
                None => assert!(check_parameters(&asked).is_err(), "{value}"),
            }
        }
        let twice = parameters(&[("replication", "true"), ("replication", "database")]);
        assert!(check_parameters(&twice).is_err());
    }
}

//! A client's CancelRequest on a proxy: carried to the agent of its session. Where this proxy did not give out the key, another
//! one did: each agent is asked whether it is a session of its own, as every agent has a tunnel to every proxy.

use super::{CancelFailed, CancelFailure, CancelKey, FoundElsewhere, Tried, TryCancel};
use crate::actors::address::{Address, Origin};
use crate::actors::agent_way::AgentWay;
use crate::actors::connection::ConnectionParts;
use crate::actors::routing::begin;
use crate::actors::tunnels::RoutesView;
use crate::model::ConnectionId;
use crate::net::frames::{AnswerError, read_answer};
use crate::protocol::postgres::startup::CancelRequest;
use crate::protocol::tunnel::{DbToProxy, ProxyToDb};
use futures::{StreamExt as _, stream};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const ASK_DEADLINE: Duration = Duration::from_secs(15);
/// The agent connects to PostgreSQL, which takes it 15 seconds at most.
const CARRY_DEADLINE: Duration = Duration::from_secs(20);
/// For the answers of the other agents when one has said that it has cancelled: those that are there have answered by then.
const OTHERS_DEADLINE: Duration = Duration::from_secs(1);
/// Searches of a proxy at once, and how long one waits for its turn.
const SEARCHES_AT_ONCE: usize = 64;
const TURN_DEADLINE: Duration = Duration::from_secs(5);
/// Agents that one search asks at once; each that has not the key says so at once.
const AGENTS_AT_ONCE: usize = 32;

/// What the cancels of a proxy use.
pub struct CancelParts {
    pub try_cancel: Address<TryCancel>,
    pub found_elsewhere: Address<FoundElsewhere>,
    pub failed: Address<CancelFailed>,
    pub searches: Arc<Semaphore>,
}

impl CancelParts {
    pub fn searches() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(SEARCHES_AT_ONCE))
    }
}

/// A CancelRequest, and how it came.
pub struct Asked {
    pub request: CancelRequest,
    pub is_encrypted: bool,
    pub from: SocketAddr,
    /// Of the proxy, for the tunnels that live there.
    pub runtime: usize,
}

/// What an agent made of it.
enum Carried {
    Done,
    /// The session is there, and PostgreSQL was not asked.
    NotDone(String),
    NotItsKey,
}

/// Carries it to the agent of the session that its key belongs to. Why it failed is on the log and on the audit log.
pub async fn carry(parts: &ConnectionParts, asked: Asked, origin: &Origin) -> Result<(), CancelFailure> {
    let Some(proxy) = &parts.proxy else {
        return Err(CancelFailure::NotCarried);
    };
    let cancels = &proxy.cancels;
    let carried = attempt(cancels, &proxy.routes, &asked, origin).await;
    if let Err(why) = &carried
        && why.is_audited()
    {
        let (from, why) = (asked.from, *why);
        // Where there is no room, as many are counted as one needs to know of.
        let _full = cancels.failed.tell(origin, CancelFailed { from, why });
    }
    carried
}

async fn attempt(
    cancels: &CancelParts,
    routes: &RoutesView,
    asked: &Asked,
    origin: &Origin,
) -> Result<(), CancelFailure> {
    let key = CancelKey::new(asked.request.process_id, &asked.request.secret);
    let ask = TryCancel {
        key,
        from: asked.from.ip(),
        is_encrypted: asked.is_encrypted,
    };
    let tried = cancels.try_cancel.ask(origin, ask, ASK_DEADLINE).await;
    match tried {
        Ok(Tried::Here(connection, target)) => {
            let agent = target.agent;
            // The record of the cancel is also the connection's that it is for.
            let origin = &origin.clone().for_connection(connection);
            let carried = ask_owner(&agent, connection, asked.from, origin).await;
            carried.map_err(|why| not_carried(&agent, asked.from, &why))
        }
        Ok(Tried::Elsewhere) => {
            let found = search(cancels, routes, key, asked, origin).await?;
            let _full = cancels.found_elsewhere.tell(origin, FoundElsewhere(asked.from.ip()));
            match found {
                (_, Carried::NotDone(why)) => Err(not_carried(&found.0, asked.from, &why)),
                _ => Ok(()),
            }
        }
        Ok(Tried::Failed(why)) => Err(why),
        Err(error) => {
            tracing::error!(peer = %asked.from, %error, "cancel not carried out");
            Err(CancelFailure::NotCarried)
        }
    }
}

fn not_carried(agent: &AgentWay, from: SocketAddr, why: &str) -> CancelFailure {
    tracing::info!(peer = %from, agent = %agent.name, reason = why, "cancel not carried out");
    CancelFailure::NotCarried
}

/// Asks the agent of a session that this proxy opened.
async fn ask_owner(
    agent: &AgentWay,
    connection: ConnectionId,
    from: SocketAddr,
    origin: &Origin,
) -> Result<(), String> {
    let client_address = from.to_string();
    let answer = if agent.is_older.get() {
        Err(AnswerError::Refused { why: String::new() })
    } else {
        let ask = ProxyToDb::CancelStatement {
            connection,
            client_address,
        };
        ask_agent(agent, &ask, "CancelStatement", origin).await
    };
    let answer = match answer {
        // It does the same, and does not audit who asked.
        Err(AnswerError::Refused { .. }) => {
            agent.is_older.set();
            ask_agent(agent, &ProxyToDb::CancelQuery { connection }, "CancelQuery", origin).await
        }
        answer => answer,
    };
    match answer {
        Ok(DbToProxy::CancelForwarded) => Ok(()),
        Ok(DbToProxy::Declined(refusal)) => Err(refusal.message),
        Ok(_) => Err("the agent answered another question".to_owned()),
        Err(error) => Err(format!("the agent was asked: {error}")),
    }
}

/// Asks every agent whether it has this key; the one that has it cancels. An agent whose program does not know the question is
/// not asked again on the same tunnel.
async fn search(
    cancels: &CancelParts,
    routes: &RoutesView,
    key: CancelKey,
    asked: &Asked,
    origin: &Origin,
) -> Result<(AgentWay, Carried), CancelFailure> {
    let turn = tokio::time::timeout(TURN_DEADLINE, cancels.searches.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return Err(CancelFailure::Busy);
    };
    let ask = ProxyToDb::CancelByKey {
        process_id: key.process_id,
        key: key.digest,
        client_address: asked.from.to_string(),
    };
    let agents = routes.routes().agents(asked.runtime);
    let mut answers = stream::iter(agents.into_iter().filter(|agent| !agent.is_older.get()))
        .map(|agent| {
            let ask = &ask;
            async move {
                let carried = ask_by_key(&agent, ask, origin).await;
                (agent, carried)
            }
        })
        .buffer_unordered(AGENTS_AT_ONCE);
    let is_its_key = |(_, carried): &(AgentWay, Carried)| std::future::ready(!matches!(carried, Carried::NotItsKey));
    let found = answers.by_ref().filter(is_its_key).next().await;
    // An agent that lies does not keep the one that has the key from being asked.
    let _late = tokio::time::timeout(OTHERS_DEADLINE, answers.for_each(|_| std::future::ready(()))).await;
    found.ok_or(CancelFailure::NoSuchKey)
}

async fn ask_by_key(agent: &AgentWay, ask: &ProxyToDb, origin: &Origin) -> Carried {
    match ask_agent(agent, ask, "CancelByKey", origin).await {
        Ok(DbToProxy::CancelForwarded) => Carried::Done,
        Ok(DbToProxy::Declined(refusal)) => Carried::NotDone(refusal.message),
        Ok(_) => Carried::NotItsKey,
        Err(error) => {
            if let AnswerError::Refused { .. } = error {
                agent.is_older.set();
            }
            tracing::debug!(agent = %agent.name, %error, "an agent was not asked for a cancel key");
            Carried::NotItsKey
        }
    }
}

async fn ask_agent(
    agent: &AgentWay,
    ask: &ProxyToDb,
    what: &'static str,
    origin: &Origin,
) -> Result<DbToProxy, AnswerError> {
    let question = origin.asks(what, agent.peer(), CARRY_DEADLINE);
    let mut stream = begin(agent, ask, origin, &question).await?;
    tokio::time::timeout(CARRY_DEADLINE, read_answer::<DbToProxy>(&mut stream))
        .await
        .unwrap_or_else(|_| Err(AnswerError::Io(std::io::ErrorKind::TimedOut.into())))
}

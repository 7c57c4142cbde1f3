//! What a proxy asks an agent of a connection that it opened there, and what the agent answers.
//!
//! The question is a stream of its own on the connection's tunnel, so that it is answered also where the connection's own stream
//! is stuck. An agent answers for the connections of the proxy that asks, and of no other. Ids and names only: nothing is audited.

use super::address::Origin;
use super::agent_way::AgentWay;
use super::inspector::{Inspector, parse};
use super::passages::Passages;
use super::routing::accepted;
use super::tunnel::answer;
use crate::model::{ConnectionId, MessageId, Moment, NodeId};
use crate::net::BoxStream;
use crate::net::frames::{AnswerError, read_answer, write_frame};
use crate::protocol::tunnel::{DbToProxy, Frame, FrameKind, Header, PART_MAX_BYTES, ProxyToDb};
use crate::telemetry::view::{MissingPart, TracePart};
use std::io;
use std::time::Duration;

/// Somebody waits for it and wants to know most of all who does not answer.
pub const AGENT_DEADLINE: Duration = Duration::from_secs(2);

/// The agent's part, where it has one; or why there is none.
pub async fn ask_agent(
    way: &AgentWay,
    connection: ConnectionId,
    origin: &Origin,
) -> Result<Option<TracePart>, MissingPart> {
    let asked = tokio::time::timeout(AGENT_DEADLINE, exchange(way, connection, origin)).await;
    let why = match asked {
        Ok(Ok(DbToProxy::Inspected { json })) if json.is_empty() => return Ok(None),
        Ok(Ok(DbToProxy::Inspected { json })) if json.len() <= PART_MAX_BYTES => match parse(&json) {
            Ok(part) => return Ok(Some(part)),
            Err(error) => format!("agent {} answered with what is no part of a trace: {error}", way.name),
        },
        Ok(Ok(DbToProxy::NotInspected { why })) => format!("agent {}: {why}", way.name),
        Ok(Ok(_)) => format!("agent {} answered another question", way.name),
        Ok(Err(AnswerError::Refused { .. })) => format!(
            "agent {} does not know this question: it is of an older version; update it",
            way.name
        ),
        Ok(Err(error)) => format!("agent {} could not be asked: {error}", way.name),
        Err(_) => format!("agent {} did not answer within {AGENT_DEADLINE:?}", way.name),
    };
    Err(MissingPart {
        node: way.name.to_string(),
        why: match way.transport.last_heard() {
            Some(heard) => format!("{why}; {}", last_heard(heard)),
            None => why,
        },
    })
}

fn last_heard(heard: Moment) -> String {
    let ago = Moment::now().since(heard);
    format!("this proxy last heard from it {} s ago", ago.as_secs())
}

async fn exchange(way: &AgentWay, connection: ConnectionId, origin: &Origin) -> Result<DbToProxy, AnswerError> {
    let mut stream = way.transport.open(origin).await.map_err(io::Error::other)?;
    let header = Header {
        id: MessageId::next().0,
        kind: FrameKind::Ask {
            deadline_ms: u32::try_from(AGENT_DEADLINE.as_millis()).unwrap_or(u32::MAX),
        },
        cause: None,
        connection: Some(connection.as_u64()),
    };
    let ask = ProxyToDb::InspectConnection { connection };
    write_frame(&mut stream, &Frame::new(header, ask)).await?;
    accepted(&mut stream).await?;
    read_answer::<DbToProxy>(&mut stream).await
}

/// On the agent: answers the proxy, whose connection it has to be.
pub async fn answer_proxy(
    inspector: &Inspector,
    opened_by: &Passages<Option<NodeId>>,
    proxy: Option<NodeId>,
    connection: ConnectionId,
    (mut stream, id): (BoxStream, u64),
) {
    let body = if opened_by.find(connection) == Some(proxy) {
        match inspector.part(connection).await {
            Ok(json) => DbToProxy::Inspected { json },
            Err(why) => DbToProxy::NotInspected { why },
        }
    } else {
        let why = format!("it knows of no connection {connection} that this proxy opened, or not any more");
        DbToProxy::NotInspected { why }
    };
    if let Err(error) = write_frame(&mut stream, &answer(id, body)).await {
        tracing::debug!(%error, "the proxy did not wait for the part of a trace");
    }
}

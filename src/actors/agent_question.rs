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

#[cfg(test)]
mod tests {
    use super::super::agent_way::Older;
    use super::super::tunnels::Transport;
    use super::*;
    use crate::net::frames::{read_frame, refuse};
    use crate::net::mux::{self, Inbound, Mux, MuxSide, MuxStream, Window};
    use crate::protocol::tunnel::STREAM_ACCEPTED;
    use tokio::io::AsyncWriteExt as _;

    fn tunnel() -> (AgentWay, Inbound, Mux) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mux, _, drive_near) = mux::start(near, MuxSide::Accepted, Window::FIXED);
        let (agents_end, inbound, drive_far) = mux::start(far, MuxSide::Dialled, Window::FIXED);
        tokio::spawn(drive_near);
        tokio::spawn(drive_far);
        let way = AgentWay {
            node: NodeId::from_random([7; 16]),
            name: "agent-1".parse().unwrap(),
            transport: Transport::Tunnel(mux),
            is_older: Older::default(),
        };
        (way, inbound, agents_end)
    }

    async fn asked(way: &AgentWay) -> Result<Option<TracePart>, MissingPart> {
        ask_agent(way, ConnectionId::from_random([1; 8]), &Origin::outside("test")).await
    }

    fn why(asked: Result<Option<TracePart>, MissingPart>) -> String {
        let missing = asked.expect_err("no part");
        assert_eq!(missing.node, "agent-1");
        missing.why
    }

    /// Accepts the next stream, and reads what the proxy asks.
    async fn accept(inbound: &mut Inbound) -> (MuxStream, Header) {
        let mut stream = inbound.recv().await.unwrap();
        stream.write_all(&[STREAM_ACCEPTED]).await.unwrap();
        stream.flush().await.unwrap();
        let question = read_frame::<ProxyToDb>(&mut stream).await.unwrap().unwrap();
        assert!(matches!(question.body, Some(ProxyToDb::InspectConnection { .. })));
        (stream, question.header)
    }

    async fn answers(inbound: &mut Inbound, body: DbToProxy) {
        let (mut stream, header) = accept(inbound).await;
        write_frame(&mut stream, &answer(header.id, body)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_does_not_know_the_question_is_named_and_the_tunnel_lives() {
        let (way, mut inbound, _agent) = tunnel();
        let refuses = async {
            let (mut stream, header) = accept(&mut inbound).await;
            refuse::<DbToProxy>(&mut stream, Some(&header), "no").await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked(&way), refuses);
        let older = "agent agent-1 does not know this question: it is of an older version; update it";
        assert!(why(answer).starts_with(older));
        let nothing = DbToProxy::Inspected { json: Vec::new() };
        let (answer, ()) = tokio::join!(asked(&way), answers(&mut inbound, nothing));
        assert_eq!(answer, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_silent_or_shows_what_is_no_part_is_named() {
        let (way, mut inbound, _agent) = tunnel();
        let silent = why(asked(&way).await);
        assert!(silent.starts_with("agent agent-1 did not answer within 2s"), "{silent}");
        drop(inbound.recv().await);
        let nonsense = DbToProxy::Inspected { json: b"{}".to_vec() };
        let (answer, ()) = tokio::join!(asked(&way), answers(&mut inbound, nonsense));
        assert!(why(answer).contains("with what is no part of a trace"));
        let not_shown = DbToProxy::NotInspected { why: "no".to_owned() };
        let (answer, ()) = tokio::join!(asked(&way), answers(&mut inbound, not_shown));
        assert!(why(answer).starts_with("agent agent-1: no"));
    }
}

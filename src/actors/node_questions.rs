//! What auth asks a node about itself, on a stream that auth opens on the node's own link.
//!
//! It is all that auth asks; everything else is a question of the node's. A node of an older version takes no such stream and
//! resets it, which does no harm to either.

use super::address::Origin;
use super::inspector::Inspector;
use super::tunnel::answer;
use crate::model::{MessageId, NodeId, NodeKind};
use crate::net::frames::{ReadFrameError, decode, read_frame, read_frame_bytes, refuse, write_frame};
use crate::net::mux::{Inbound, Mux, MuxStream};
use crate::pki::HostIdentity;
use crate::protocol::tunnel::{
    AuthToNode, DbToAuth, Dialect, Frame, FrameKind, Header, Inspection, MAX_HEADER_BYTES, ProxyToAuth, Wire, frame,
};
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

/// Twice what a proxy gives its agent for its part, so that an agent that does not answer is told of by its proxy.
pub const NODE_DEADLINE: Duration = Duration::from_secs(4);
/// Questions of one node that are under way: people who look at the same time. Each answer is at most 2 MiB.
const QUESTIONS_AT_ONCE: usize = 8;

/// Why a node's answer is not there. To be read after the node's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("has no connection to auth at the moment")]
    NotLinked,
    #[error("is asked by too many at the moment; ask again")]
    Busy,
    #[error("did not answer within {NODE_DEADLINE:?}")]
    Silent,
    #[error("does not know this question: it is of an older version; update it")]
    Older,
    #[error("answers: {0}")]
    NotShown(String),
    #[error("could not be asked: {0}")]
    Broken(String),
}

/// The nodes that auth can ask: by their links, which write it.
#[derive(Clone, Default)]
pub struct LinkedNodes(Arc<Mutex<HashMap<NodeId, Vec<Linked>>>>);

#[derive(Clone)]
struct Linked {
    kinds: Vec<NodeKind>,
    mux: Mux,
    /// Of this link only; it tells two links of one node apart, too.
    room: Arc<Semaphore>,
}

/// The node can be asked for as long as this lives.
pub(super) struct LinkEntry {
    nodes: LinkedNodes,
    node: NodeId,
    room: Arc<Semaphore>,
}

impl Drop for LinkEntry {
    fn drop(&mut self) {
        let mut nodes = self.nodes.linked();
        let Some(links) = nodes.get_mut(&self.node) else { return };
        links.retain(|linked| !Arc::ptr_eq(&linked.room, &self.room));
        if links.is_empty() {
            nodes.remove(&self.node);
        }
    }
}

impl LinkedNodes {
    fn linked(&self) -> MutexGuard<'_, HashMap<NodeId, Vec<Linked>>> {
        // Each use leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, peer: &HostIdentity, mux: Mux) -> LinkEntry {
        let (node, room) = (peer.node_id, Arc::new(Semaphore::new(QUESTIONS_AT_ONCE)));
        let linked = Linked {
            kinds: peer.kinds.clone(),
            mux,
            room: room.clone(),
        };
        self.linked().entry(node).or_default().push(linked);
        LinkEntry {
            nodes: self.clone(),
            node,
            room,
        }
    }

    /// The node's answer, JSON of the question's kind.
    pub async fn ask(&self, node: NodeId, question: Inspection) -> Result<Vec<u8>, NoAnswer> {
        // A node that comes again has two for a while: the newest is the one that lives.
        let newest = |links: &Vec<Linked>| links.last().cloned();
        let linked = self.linked().get(&node).and_then(newest).ok_or(NoAnswer::NotLinked)?;
        let _place = linked.room.try_acquire().map_err(|_| NoAnswer::Busy)?;
        let asked = tokio::time::timeout(NODE_DEADLINE, exchange(&linked, question)).await;
        asked.map_err(|_| NoAnswer::Silent)?
    }
}

async fn exchange(linked: &Linked, question: Inspection) -> Result<Vec<u8>, NoAnswer> {
    let broken = |error: io::Error| NoAnswer::Broken(error.to_string());
    let mut stream = linked
        .mux
        .open()
        .await
        .map_err(|error| NoAnswer::Broken(error.to_string()))?;
    let header = Header {
        id: MessageId::next().0,
        kind: FrameKind::Ask {
            deadline_ms: u32::try_from(NODE_DEADLINE.as_millis()).unwrap_or(u32::MAX),
        },
        cause: None,
        connection: None,
    };
    write_frame(&mut stream, &Frame::new(header, AuthToNode::Inspect { question }))
        .await
        .map_err(broken)?;
    let max = DbToAuth::MAX_BYTES.max(ProxyToAuth::MAX_BYTES) + MAX_HEADER_BYTES;
    let answered = match read_frame_bytes(&mut stream, Dialect::DbToAuth, max).await {
        Ok(Some(bytes)) => understand(&linked.kinds, &bytes),
        // What a node does that takes no streams.
        Ok(None) => Err(NoAnswer::Older),
        Err(ReadFrameError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset && !linked.mux.is_down() => {
            Err(NoAnswer::Older)
        }
        Err(error) => Err(NoAnswer::Broken(error.to_string())),
    };
    // A stream that is only dropped is reset, which the node would take for a loss.
    let _gone = stream.shutdown().await;
    answered
}

/// Decodes by the enum of the node's kind, as its questions are.
fn understand(kinds: &[NodeKind], bytes: &[u8]) -> Result<Vec<u8>, NoAnswer> {
    let says = |dialect: Dialect| frame::dialect_of(bytes) == Some(dialect as u8);
    let is = |kind: NodeKind| kinds.contains(&kind);
    let as_proxy = is(NodeKind::Proxy) && (says(Dialect::ProxyToAuth) || !is(NodeKind::Db));
    let broken = |error: ReadFrameError| NoAnswer::Broken(error.to_string());
    let other = || NoAnswer::Broken("it answered another question".to_owned());
    if as_proxy {
        let Frame { header, body } = decode::<ProxyToAuth>(bytes).map_err(broken)?;
        return match body {
            Some(ProxyToAuth::Inspected { json }) => Ok(json),
            Some(ProxyToAuth::NotInspected { why }) => Err(NoAnswer::NotShown(why)),
            Some(_) => Err(other()),
            None => Err(refused(&header)),
        };
    }
    let Frame { header, body } = decode::<DbToAuth>(bytes).map_err(broken)?;
    match body {
        Some(DbToAuth::Inspected { json }) => Ok(json),
        Some(DbToAuth::NotInspected { why }) => Err(NoAnswer::NotShown(why)),
        Some(_) => Err(other()),
        None => Err(refused(&header)),
    }
}

fn refused(header: &Header) -> NoAnswer {
    match &header.kind {
        FrameKind::Refused { .. } => NoAnswer::Older,
        _ => NoAnswer::Broken("its answer is empty".to_owned()),
    }
}

/// On the node: answers every stream that auth opens, until the link ends.
pub(super) async fn answer_auth(mut inbound: Inbound, inspector: &Inspector, kind: NodeKind, origin: &Origin) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            stream = inbound.recv(), if open.len() < QUESTIONS_AT_ONCE => match stream {
                Some(stream) => open.push(tokio::time::timeout(NODE_DEADLINE, answer_one(stream, inspector, kind, origin))),
                None => return,
            },
            Some(answered) = open.next(), if !open.is_empty() => {
                if let Ok(Err(error)) = answered {
                    tracing::debug!(%error, "a question of auth's was not answered");
                }
            }
        }
    }
}

async fn answer_one(mut stream: MuxStream, inspector: &Inspector, kind: NodeKind, origin: &Origin) -> io::Result<()> {
    let answered = match read_frame::<AuthToNode>(&mut stream).await {
        Ok(Some(Frame {
            header,
            body: Some(AuthToNode::Inspect { question }),
        })) => {
            let shown = inspector.answer(question, origin).await.map_err(|why| why.to_string());
            write_answer(&mut stream, kind, header.id, shown).await
        }
        Ok(Some(frame)) => {
            refused_by(
                &mut stream,
                kind,
                Some(&frame.header),
                "this message does not open a stream",
            )
            .await
        }
        Ok(None) => Ok(()),
        Err(ReadFrameError::Refused { header, error }) => {
            refused_by(&mut stream, kind, header.as_ref(), &error.to_string()).await
        }
        Err(ReadFrameError::Io(error)) => Err(error),
    };
    answered.and(stream.shutdown().await)
}

async fn write_answer(
    stream: &mut MuxStream,
    kind: NodeKind,
    id: u64,
    shown: Result<Vec<u8>, String>,
) -> io::Result<()> {
    let as_proxy = kind == NodeKind::Proxy;
    match shown {
        Ok(json) if as_proxy => write_frame(stream, &answer(id, ProxyToAuth::Inspected { json })).await,
        Err(why) if as_proxy => write_frame(stream, &answer(id, ProxyToAuth::NotInspected { why })).await,
        Ok(json) => write_frame(stream, &answer(id, DbToAuth::Inspected { json })).await,
        Err(why) => write_frame(stream, &answer(id, DbToAuth::NotInspected { why })).await,
    }
}

async fn refused_by(stream: &mut MuxStream, kind: NodeKind, header: Option<&Header>, why: &str) -> io::Result<()> {
    match kind {
        NodeKind::Proxy => refuse::<ProxyToAuth>(stream, header, why).await,
        _ => refuse::<DbToAuth>(stream, header, why).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::net::mux::{self, MuxSide, Window};

    /// A node that auth has a link with, and what auth opens on it.
    fn linked(nodes: &LinkedNodes, kind: NodeKind) -> (LinkEntry, Inbound, HostIdentity) {
        let peer = HostIdentity {
            node_id: NodeId::from_random([7; 16]),
            node_name: "peer".parse().unwrap(),
            cluster: "test.example".parse().unwrap(),
            kinds: vec![kind],
            valid_until: Timestamp::from_secs(0),
        };
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mux, _, drive_near) = mux::start(near, MuxSide::Accepted, Window::FIXED);
        let (_, inbound, drive_far) = mux::start(far, MuxSide::Dialled, Window::FIXED);
        tokio::spawn(drive_near);
        tokio::spawn(drive_far);
        (nodes.enter(&peer, mux), inbound, peer)
    }

    async fn asked(nodes: &LinkedNodes, peer: &HostIdentity) -> Result<Vec<u8>, NoAnswer> {
        nodes.ask(peer.node_id, Inspection::Actors).await
    }

    /// Takes one stream, reads the question, and answers with this message.
    async fn answers<B: Wire>(inbound: &mut Inbound, body: B) {
        let mut stream = inbound.recv().await.unwrap();
        let question = read_frame::<AuthToNode>(&mut stream).await.unwrap().unwrap();
        assert!(matches!(question.body, Some(AuthToNode::Inspect { .. })));
        write_frame(&mut stream, &answer(question.header.id, body))
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_answers_in_the_dialect_of_its_kind() {
        let nodes = LinkedNodes::default();
        let (_entry, mut inbound, peer) = linked(&nodes, NodeKind::Proxy);
        let json = b"{}".to_vec();
        let shown = ProxyToAuth::Inspected { json: json.clone() };
        let (answer, ()) = tokio::join!(asked(&nodes, &peer), answers(&mut inbound, shown));
        assert_eq!(answer, Ok(json.clone()));
        let why = "it is asked by too many".to_owned();
        let not_shown = ProxyToAuth::NotInspected { why: why.clone() };
        let (answer, ()) = tokio::join!(asked(&nodes, &peer), answers(&mut inbound, not_shown));
        assert_eq!(answer, Err(NoAnswer::NotShown(why)));
        let (answer, ()) = tokio::join!(
            asked(&nodes, &peer),
            answers(&mut inbound, DbToAuth::Inspected { json })
        );
        assert!(matches!(answer, Err(NoAnswer::Broken(_))), "it is no agent: {answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_takes_no_streams_or_refuses_the_question_is_of_an_older_version() {
        let nodes = LinkedNodes::default();
        let (_entry, mut inbound, peer) = linked(&nodes, NodeKind::Db);
        let refuses = async {
            let mut stream = inbound.recv().await.unwrap();
            let question = read_frame::<AuthToNode>(&mut stream).await.unwrap().unwrap();
            refused_by(&mut stream, NodeKind::Db, Some(&question.header), "no")
                .await
                .unwrap();
            stream.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked(&nodes, &peer), refuses);
        assert_eq!(answer, Err(NoAnswer::Older));
        drop(inbound);
        assert_eq!(asked(&nodes, &peer).await, Err(NoAnswer::Older));
        assert_eq!(asked(&nodes, &peer).await, Err(NoAnswer::Older), "its link goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_silent_is_waited_for_and_asked_by_a_few_at_a_time() {
        let nodes = LinkedNodes::default();
        let (entry, _inbound, peer) = linked(&nodes, NodeKind::Db);
        let many = (0..=QUESTIONS_AT_ONCE).map(|_| asked(&nodes, &peer));
        let mut answers = futures::future::join_all(many).await;
        assert_eq!(answers.pop(), Some(Err(NoAnswer::Busy)));
        assert_eq!(answers, vec![Err(NoAnswer::Silent); QUESTIONS_AT_ONCE]);
        drop(entry);
        assert_eq!(asked(&nodes, &peer).await, Err(NoAnswer::NotLinked));
    }
}

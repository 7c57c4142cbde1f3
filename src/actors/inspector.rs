//! What this process answers when it is asked about itself: by auth on behalf of a person, by the debug service, and on an agent
//! by the proxy of a connection.
//!
//! Looking costs a thread some milliseconds on a node with many connections, so it is done beside the actors, for a few askers at
//! a time.

use super::address::Origin;
use super::agent_question::ask_agent;
use super::agent_way::AgentWay;
use super::passages::Passages;
use crate::model::{ConnectionId, NodeId};
use crate::protocol::tunnel::{Inspection, PART_MAX_BYTES};
use crate::telemetry::observe::{ActorAnswer, ConnectionFilter, Observer, SharedObserver};
use crate::telemetry::panics;
use crate::telemetry::view::{ConnectionView, LeftOut, MissingPart, NodeView, Side, Trace, TracePart};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Looks at a time; each may hold a copy of all that a node has to show.
const LOOKS_AT_ONCE: usize = 4;
/// For one of those places. Whoever asks waits two seconds for all.
const PLACE_WITHIN: Duration = Duration::from_secs(1);
/// Of one answer to auth: some 3000 actors. It stays below what auth reads of a node in one message.
const ANSWER_MAX_BYTES: usize = 1536 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotShown {
    #[error("it is asked by too many at the moment; ask again")]
    Busy,
    #[error("it could not look at itself: {0}")]
    Failed(String),
}

/// The connections of a node, as many as fit into an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionList {
    pub connections: Vec<ConnectionView>,
    /// Those that did not fit.
    pub left_out: usize,
}

/// Shared by all that ask.
#[derive(Clone)]
pub struct Inspector {
    observer: SharedObserver,
    node: NodeId,
    /// Which agent has a connection; nothing where no proxy is.
    agents: Passages<AgentWay>,
    room: Arc<Semaphore>,
}

pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

impl Inspector {
    pub fn new(observer: SharedObserver, node: NodeId, agents: Passages<AgentWay>) -> Self {
        Self {
            observer,
            node,
            agents,
            room: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Observer) -> Result<T, NotShown> + Send + 'static,
    ) -> Result<T, NotShown> {
        let place = tokio::time::timeout(PLACE_WITHIN, self.room.clone().acquire_owned()).await;
        // The semaphore is never closed.
        let Ok(Ok(place)) = place else {
            return Err(NotShown::Busy);
        };
        let observer = self.observer.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let seen = work(&mut observer.observer());
            drop(place);
            seen
        });
        looked.await.map_err(|error| NotShown::Failed(panics::of_task(error)))?
    }

    /// What this process has of a connection, as JSON of bounded length; empty where it has nothing.
    pub async fn part(&self, connection: ConnectionId) -> Result<Vec<u8>, String> {
        let part = self.look(move |observer| {
            observer
                .part(connection)
                .map_or_else(|| Ok(Vec::new()), |part| bounded_part(part).map(|(_, json)| json))
        });
        part.await.map_err(|why| why.to_string())
    }

    /// The connection as this process and, where it is the connection's proxy, its agent see it.
    pub async fn trace(&self, connection: ConnectionId, origin: &Origin) -> Result<Trace, NotShown> {
        let own = self.look(move |observer| {
            let part = observer.part(connection).map(bounded_part).transpose()?;
            Ok(part.map(|(part, _)| part))
        });
        let (own, others) = tokio::join!(own, self.parts_of_others(connection, origin));
        let (mut parts, missing) = others;
        parts.splice(0..0, own?);
        Ok(Trace {
            connection: connection.to_string(),
            parts,
            missing,
        })
    }

    /// What other processes have of a connection of this proxy.
    pub async fn parts_of_others(
        &self,
        connection: ConnectionId,
        origin: &Origin,
    ) -> (Vec<TracePart>, Vec<MissingPart>) {
        match self.agents.find(connection) {
            // An agent of this process has its part in this process's.
            Some(way) if way.node != self.node => match ask_agent(&way, connection, origin).await {
                Ok(part) => (part.into_iter().collect(), Vec::new()),
                Err(missing) => (Vec::new(), vec![missing]),
            },
            _ => (Vec::new(), Vec::new()),
        }
    }

    /// The answer to a question of auth's, as JSON: a [`NodeView`], an [`ActorAnswer`], a [`ConnectionList`], or a [`Trace`].
    pub async fn answer(&self, question: Inspection, origin: &Origin) -> Result<Vec<u8>, NotShown> {
        match question {
            Inspection::Actors => self.look(|observer| bounded_view(observer.look())).await,
            Inspection::Actor { path } => self.look(move |observer| bounded_actor(observer.actor(&path))).await,
            Inspection::Connections { user, database, state } => {
                let filter = ConnectionFilter {
                    user: user.map(|user| user.to_string()),
                    database,
                    state,
                    // The agent of this process has the same connections.
                    side: Some(Side::Proxy),
                };
                self.look(move |observer| bounded_list(observer.connections(&filter)))
                    .await
            }
            Inspection::Trace { connection } => json(&self.trace(connection, origin).await?),
        }
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, NotShown> {
    serde_json::to_vec(value).map_err(|error| NotShown::Failed(error.to_string()))
}

/// Of a name that fits too many, the first.
fn bounded_actor(mut answer: ActorAnswer) -> Result<Vec<u8>, NotShown> {
    loop {
        let bytes = json(&answer)?;
        match &mut answer {
            ActorAnswer::Several(paths) if bytes.len() > ANSWER_MAX_BYTES => paths.truncate(paths.len() / 2),
            _ => return Ok(bytes),
        }
    }
}

/// The oldest records go first; from when on they are whole is said.
fn bounded_part(mut part: TracePart) -> Result<(TracePart, Vec<u8>), NotShown> {
    loop {
        let bytes = json(&part)?;
        if bytes.len() <= PART_MAX_BYTES {
            return Ok((part, bytes));
        }
        if part.records.is_empty() {
            let what = format!("its part is longer than {PART_MAX_BYTES} bytes without any record");
            return Err(NotShown::Failed(what));
        }
        part.records.drain(..part.records.len().div_ceil(2));
        part.whole_since = Some(
            part.records
                .first()
                .map_or_else(|| part.at.clone(), |record| record.at.clone()),
        );
    }
}

/// Actors of connections with nothing to do go first, and relays that are idle; how many is said.
fn bounded_view(view: NodeView) -> Result<Vec<u8>, NotShown> {
    bounded_view_of(view, ANSWER_MAX_BYTES)
}

fn bounded_view_of(mut view: NodeView, max_bytes: usize) -> Result<Vec<u8>, NotShown> {
    let bytes = json(&view)?;
    if bytes.len() <= max_bytes {
        return Ok(bytes);
    }
    let count = |view: &NodeView| LeftOut {
        actors: view.actors.len(),
        exits: view.exits.len(),
        relays: view.relays.len(),
        findings: view.findings.len(),
    };
    let all = count(&view);
    view.actors
        .retain(|actor| actor.rule != "temporary" || actor.in_hand.is_some() || !actor.waits.is_empty());
    view.relays.retain(|relay| relay.state != "idle");
    loop {
        let shown = count(&view);
        view.left_out = LeftOut {
            actors: all.actors - shown.actors,
            exits: all.exits - shown.exits,
            relays: all.relays - shown.relays,
            findings: all.findings - shown.findings,
        };
        let bytes = json(&view)?;
        if bytes.len() <= max_bytes || shown == LeftOut::default() {
            return Ok(bytes);
        }
        view.actors.truncate(shown.actors / 2);
        view.exits.truncate(shown.exits / 2);
        view.relays.truncate(shown.relays / 2);
        view.findings.truncate(shown.findings / 2);
    }
}

fn bounded_list(connections: Vec<ConnectionView>) -> Result<Vec<u8>, NotShown> {
    bounded_list_of(connections, ANSWER_MAX_BYTES)
}

fn bounded_list_of(connections: Vec<ConnectionView>, max_bytes: usize) -> Result<Vec<u8>, NotShown> {
    let left_out = 0;
    let mut list = ConnectionList { connections, left_out };
    loop {
        let bytes = json(&list)?;
        if bytes.len() <= max_bytes || list.connections.is_empty() {
            return Ok(bytes);
        }
        let kept = list.connections.len() / 2;
        list.left_out += list.connections.len() - kept;
        list.connections.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::host::{Behavior, Spec, run_system, start_on};
    use crate::telemetry::observe::About;

    struct Quiet;

    impl Behavior for Quiet {
        const MAILBOX: usize = 1;
    }

    /// A look at a process with at least so many actors at rest, whatever else lives in it.
    fn crowded(actors: usize) -> NodeView {
        run_system(1, |runtimes| async move {
            let start = |number| {
                let spec = Spec::temporary(&format!("quiet#{number}"));
                start_on(&runtimes.control, spec, Arc::new(|_| {}), || Quiet)
            };
            let _all: Vec<_> = (0..actors).map(start).collect();
            Observer::new(About::default()).look()
        })
    }

    #[test]
    fn a_view_that_is_too_long_leaves_out_those_at_rest_first_and_says_how_many() {
        let view = crowded(200);
        let all = view.actors.len();
        let whole = json(&view).expect("JSON").len();
        let bytes = bounded_view_of(view.clone(), whole).expect("it fits");
        assert_eq!(parse::<NodeView>(&bytes).expect("a view"), view);
        for max_bytes in [whole - 1, 2000, 1] {
            let bytes = bounded_view_of(view.clone(), max_bytes).expect("cut");
            let cut: NodeView = parse(&bytes).expect("a view");
            assert!(bytes.len() <= max_bytes || cut.actors.is_empty(), "{max_bytes}");
            assert!(cut.left_out.actors >= 200 && cut.actors.len() + cut.left_out.actors == all);
            let invented = cut.findings.iter().filter(|finding| !view.findings.contains(finding));
            assert_eq!(invented.count(), 0);
        }
    }

    #[test]
    fn a_list_of_connections_that_is_too_long_says_how_many_are_left_out() {
        let one = |number: u64| ConnectionView {
            connection: format!("{number:016x}"),
            node: "proxy-1".to_owned(),
            side: Side::Proxy,
            relay: None,
            whose: None,
            waits_for: Vec::new(),
            state: "opening".to_owned(),
            age_us: number,
        };
        let bytes = bounded_list_of((0..100).map(one).collect(), 2000).expect("cut");
        let list: ConnectionList = parse(&bytes).expect("a list");
        assert!(bytes.len() <= 2000 && !list.connections.is_empty());
        assert_eq!(list.connections.len() + list.left_out, 100);
    }
}

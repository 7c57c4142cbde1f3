//! What runs on the nodes: their actors, the connections that pass through them, and the trace of one. Auth asks the nodes over
//! their links; a node that does not answer is named, and the others' answers are shown.
//!
//! Every look by rule is on the audit log before it is answered, as it shows what others do. What the rules keep from a person
//! they may still see of connections of their own: how far it has come and what is wrong with it.

use super::permits::Caller;
use super::routes::{Answer, Api, Failed, bad};
use super::trace_api::{ConnectionsQuery, FoundConnections};
use crate::actors::inspector::ConnectionList;
use crate::actors::inventory::NodeRecord;
use crate::actors::node_questions::NODE_DEADLINE;
use crate::audit::EventKind;
use crate::model::{ConnectionId, NodeKind, PersonName};
use crate::policy::{ResourceKind, Verb};
use crate::protocol::tunnel::Inspection;
use crate::telemetry::view::{ActorView, MissingPart, Trace, TracePart};
use axum::Json;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::StatusCode;
use futures::future::join_all;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Looks at once of all who have no rule: each asks every node, whose places are for those who have one as well.
const OWN_LOOKS_MAX: usize = 2;
/// Names and states are shorter.
const WORD_MAX_BYTES: usize = 256;

/// Room for those who look at connections of their own without a rule.
pub struct OwnLooks(Semaphore);

impl Default for OwnLooks {
    fn default() -> Self {
        Self(Semaphore::new(OWN_LOOKS_MAX))
    }
}

impl OwnLooks {
    /// For as long as the nodes are asked. Nobody waits: a place is free again within a few seconds.
    fn begin(&self) -> Result<SemaphorePermit<'_>, Failed> {
        self.0.try_acquire().map_err(|_| {
            let why = format!(
                "{OWN_LOOKS_MAX} people look at connections of their own at the moment, which is as many as may at once; \
                 repeat this in a few seconds, or ask for a role that allows \"read\" and \"list\" on \"trace\""
            );
            Failed(StatusCode::SERVICE_UNAVAILABLE, why)
        })
    }
}

pub(super) async fn actors(State(api): State<Api>, Path(name): Path<String>) -> Answer<Value> {
    api.permit(ResourceKind::Trace, Verb::List)?;
    let node = one_node(&api, &name)?;
    looks(&api, "actors", node.name.as_str()).await?;
    view(&api, &node, Inspection::Actors).await
}

pub(super) async fn actor(State(api): State<Api>, Path((name, path)): Path<(String, String)>) -> Answer<Value> {
    api.permit(ResourceKind::Trace, Verb::Read)?;
    let node = one_node(&api, &name)?;
    looks(&api, "actors", node.name.as_str()).await?;
    let path = short(Some(path))?.ok_or_else(|| bad("name an actor"))?;
    view(&api, &node, Inspection::Actor { path }).await
}

pub(super) async fn connections(
    State(api): State<Api>,
    UrlQuery(query): UrlQuery<ConnectionsQuery>,
) -> Answer<FoundConnections> {
    let user = query.user.map(PersonName::new).transpose().map_err(bad)?;
    let is_own = is_caller(&api, user.as_ref().map(PersonName::as_str));
    let _place = if is_own && !api.is_permitted(ResourceKind::Trace, Verb::List)? {
        Some(api.parts.own_looks.begin()?)
    } else {
        None
    };
    if !is_own {
        api.permit(ResourceKind::Trace, Verb::List)?;
        looks(&api, "connections", user.as_ref().map_or("*", PersonName::as_str)).await?;
    }
    let question = Inspection::Connections {
        user,
        database: short(query.db)?,
        state: short(query.state)?,
    };
    let mut found = FoundConnections::default();
    for answered in ask_all::<ConnectionList>(&api, NodeKind::Proxy, &question).await {
        match answered {
            Ok(mut list) => {
                found.connections.append(&mut list.connections);
                found.left_out += list.left_out;
            }
            Err(missing) => found.missing.push(missing),
        }
    }
    Ok(Json(found))
}

/// A word to look for; an empty one does not matter.
fn short(word: Option<String>) -> Result<Option<String>, Failed> {
    match word.filter(|word| !word.is_empty()) {
        Some(word) if word.len() > WORD_MAX_BYTES => Err(bad("nothing has so long a name")),
        word => Ok(word),
    }
}

pub(super) async fn trace(State(api): State<Api>, Path(id): Path<String>) -> Answer<Trace> {
    let connection: ConnectionId = id.parse().map_err(|_| {
        bad(format!(
            "{id:?} is not the id of a connection: 16 hexadecimal digits, as in errors, logs and the audit log"
        ))
    })?;
    let permitted = api.permit(ResourceKind::Trace, Verb::Read);
    let place = match &permitted {
        Ok(()) => {
            looks(&api, "trace", &connection.to_string()).await?;
            None
        }
        Err(_) => Some(api.parts.own_looks.begin()?),
    };
    let gathered = gather(&api, connection).await;
    drop(place);
    let trace = match permitted {
        Ok(()) => gathered,
        Err(denied) => own(gathered, |user| is_caller(&api, Some(user))).ok_or(denied)?,
    };
    if trace.parts.is_empty() && trace.missing.is_empty() {
        let why = format!(
            "no node has anything of connection {connection}; each remembers its last some hundred connections, and only of the \
             time since it started"
        );
        return Err(Failed(StatusCode::NOT_FOUND, why));
    }
    Ok(Json(trace))
}

/// The caller is the person of this name, and no administrator of the machine.
fn is_caller(api: &Api, user: Option<&str>) -> bool {
    match &api.caller {
        Caller::Person(principal) => user == Some(principal.name.as_str()),
        Caller::Local { .. } => false,
    }
}

/// On the audit log, or it is not done.
async fn looks(api: &Api, what: &str, name: &str) -> Result<(), Failed> {
    let event = api.change(EventKind::TraceRead, name).field("looked_at", what);
    api.parts.trail.write(event).await.map_err(|refusal| {
        let why = format!("this is shown only when the audit log says so, and it could not be written: {refusal}");
        Failed(StatusCode::SERVICE_UNAVAILABLE, why)
    })
}

/// A node that is alive, by its name or its id.
fn one_node(api: &Api, name: &str) -> Result<NodeRecord, Failed> {
    let mut named = api.parts.inventory.nodes();
    named.retain(|node| node.name.as_str() == name || node.node.to_string() == name);
    match named.len() {
        0 => {
            let why = format!("no node called {name:?} is alive; to see those that are: postern ctl nodes ls");
            Err(Failed(StatusCode::NOT_FOUND, why))
        }
        1 => Ok(named.remove(0)),
        _ => {
            let ids: Vec<String> = named.iter().map(|node| node.node.to_string()).collect();
            Err(bad(format!(
                "several nodes are called {name:?}; name one by its id: {}",
                ids.join(", ")
            )))
        }
    }
}

/// As the node wrote it: one of a newer version may show more than this one knows of.
async fn view(api: &Api, node: &NodeRecord, question: Inspection) -> Answer<Value> {
    match ask::<Value>(api, node, question).await {
        Ok(view) => Ok(Json(view)),
        Err(MissingPart { why, .. }) => Err(Failed(StatusCode::BAD_GATEWAY, why)),
    }
}

async fn ask<T: DeserializeOwned>(api: &Api, node: &NodeRecord, question: Inspection) -> Result<T, MissingPart> {
    let answered = if node.node == api.parts.trail.node {
        let origin = api.origin();
        let looked = tokio::time::timeout(NODE_DEADLINE, api.parts.inspector.answer(question, &origin)).await;
        match looked {
            Ok(looked) => looked.map_err(|why| format!("answers: {why}")),
            Err(_) => Err(format!("did not answer within {NODE_DEADLINE:?}")),
        }
    } else {
        let asked = api.parts.linked.ask(node.node, question).await;
        asked.map_err(|why| why.to_string())
    };
    let read = answered.and_then(|json| {
        serde_json::from_slice(&json).map_err(|error| format!("answered what is not understood: {error}"))
    });
    read.map_err(|why| MissingPart {
        node: node.name.to_string(),
        why: format!("node {} (version {}) {why}", node.name, node.report.version),
    })
}

/// All that are alive and of this kind, at the same time.
async fn ask_all<T: DeserializeOwned>(api: &Api, kind: NodeKind, question: &Inspection) -> Vec<Result<T, MissingPart>> {
    let nodes = api.parts.inventory.nodes();
    let asked = nodes.iter().filter(|node| node.kinds.contains(&kind));
    join_all(asked.map(|node| ask(api, node, question.clone()))).await
}

/// From the proxies, each with its agent's part; where none has anything, from the agents; and what auth has.
async fn gather(api: &Api, connection: ConnectionId) -> Trace {
    let question = Inspection::Trace { connection };
    let mut trace = merged(connection, ask_all(api, NodeKind::Proxy, &question).await);
    if trace.parts.is_empty() {
        let agents = merged(connection, ask_all(api, NodeKind::Db, &question).await);
        let is_new = |missing: &MissingPart| !trace.missing.contains(missing);
        let missing: Vec<MissingPart> = agents.missing.into_iter().filter(is_new).collect();
        trace.missing.extend(missing);
        trace.parts = agents.parts;
    }
    let own = api.parts.trail.node_name.as_str();
    if !trace.parts.iter().any(|part| part.node == own) {
        // It is this process: what it could not show would be missing in its log, too.
        let seen = api.parts.inspector.trace(connection, &api.origin()).await;
        trace.parts.extend(seen.into_iter().flat_map(|seen| seen.parts));
    }
    trace
}

/// Where one has the connection, those that did not answer are not missed.
fn merged(connection: ConnectionId, answers: Vec<Result<Trace, MissingPart>>) -> Trace {
    let (mut parts, mut missing, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(mut seen) => {
                parts.append(&mut seen.parts);
                missing.append(&mut seen.missing);
            }
            Err(away) => silent.push(away),
        }
    }
    if parts.is_empty() {
        missing.append(&mut silent);
    }
    Trace {
        connection: connection.to_string(),
        parts,
        missing,
    }
}

/// What a person sees of a connection of their own without a rule: how far it has come, and what is wrong with it, for as long as it
/// is open.
fn own(mut trace: Trace, is_caller: impl Fn(&str) -> bool) -> Option<Trace> {
    let serves = |actor: &ActorView| actor.whose.is_some() && actor.connection.as_ref() == Some(&trace.connection);
    let is_own = |part: &TracePart| {
        let relayed = part.relays.iter().map(|relay| &relay.user);
        let served = part.actors.iter().filter_map(|actor| actor.whose.as_ref());
        let ended = part.ended.iter().filter_map(|exit| exit.whose.as_ref());
        let known = served.chain(ended).chain(&part.whose).map(|whose| &whose.user);
        let is_open = !part.relays.is_empty() || part.actors.iter().any(serves);
        // One of which nobody knows yet whose it is, is nobody's.
        is_open && relayed.chain(known).all(|user| is_caller(user))
    };
    trace.parts.retain(is_own);
    if trace.parts.is_empty() {
        return None;
    }
    for part in &mut trace.parts {
        part.records.clear();
        part.ended.clear();
        part.actors.retain(serves);
        for actor in &mut part.actors {
            actor.last_failure = None;
        }
        part.findings
            .retain(|finding| finding.connection.as_ref() == Some(&trace.connection));
    }
    Some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::view::{Side, Whose};

    #[test]
    fn those_without_a_rule_look_two_at_a_time_and_one_more_reads_what_to_do() {
        let looks = OwnLooks::default();
        let places = [looks.begin(), looks.begin()];
        assert!(places.iter().all(Result::is_ok));
        let Err(Failed(status, why)) = looks.begin() else {
            panic!("there is no third place")
        };
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why.contains("in a few seconds"), "{why}");
        drop(places);
        assert!(looks.begin().is_ok());
    }

    fn whose(user: &str) -> Option<Whose> {
        let user = user.to_owned();
        Some(Whose {
            user,
            ..Whose::default()
        })
    }

    fn actor(path: &str, connection: &str, of: Option<Whose>) -> ActorView {
        let actor = serde_json::json!({
            "path": path, "kind": "connection", "rule": "temporary", "runtime": null, "state": "opening", "state_age_us": 1,
            "age_us": 1, "queued": 0, "bound": 4, "in_hand": null, "waits": [], "waiting": 0, "handled": 0, "busy_us": 0,
            "restarts": 0, "last_failure": null, "connection": connection, "whose": of,
        });
        serde_json::from_value(actor).expect("an actor")
    }

    fn trace(actors: Vec<ActorView>, of: Option<Whose>) -> Trace {
        let part = TracePart {
            node: "proxy-1".to_owned(),
            side: Side::Proxy,
            at: String::new(),
            records: Vec::new(),
            whole_since: None,
            actors,
            relays: Vec::new(),
            findings: Vec::new(),
            ended: Vec::new(),
            whose: of,
        };
        Trace {
            connection: "00000000deadbeef".to_owned(),
            parts: vec![part],
            missing: Vec::new(),
        }
    }

    #[test]
    fn a_connection_of_ones_own_is_seen_before_its_relay_and_nothing_of_others() {
        let is_alice = |user: &str| user == "alice";
        let id = "00000000deadbeef";
        let opening = || actor("listener/connection#1", id, whose("alice"));
        let helper = actor("ca", "", None);
        let seen = own(trace(vec![opening(), helper], whose("alice")), is_alice).expect("hers");
        let paths: Vec<&str> = seen.parts[0].actors.iter().map(|actor| &*actor.path).collect();
        assert_eq!(paths, ["listener/connection#1"]);

        let of_bob = actor("listener/connection#1", id, whose("bob"));
        assert!(own(trace(vec![of_bob], whose("bob")), is_alice).is_none());
        let of_nobody = actor("listener/connection#1", id, None);
        assert!(
            own(trace(vec![of_nobody], None), is_alice).is_none(),
            "nobody knows yet whose it is"
        );
        assert!(own(trace(Vec::new(), whose("alice")), is_alice).is_none(), "it is over");
        let of_two = actor("agent/upstream#1", id, whose("bob"));
        assert!(own(trace(vec![opening(), of_two], whose("alice")), is_alice).is_none());
    }
}

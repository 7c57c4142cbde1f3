//! What the debug socket is asked.

use super::DebugParts;
use crate::model::ConnectionId;
use crate::telemetry::logging;
use crate::telemetry::view::{ActorView, ConnectionView, NodeView, RecordView, Side, Trace, TracePart};
use crate::web::api::Problem;
use crate::web::routes::{Answer, Failed, bad};
use axum::extract::{DefaultBodyLimit, Path, Query as UrlQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A level, or the name of an actor: a screenful is more than enough.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// For the parts of other processes; what is there by then is shown.
const OTHERS_DEADLINE: Duration = Duration::from_secs(10);

/// `GET /v1/actors/{path}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActorPage {
    pub actor: ActorView,
    /// The last of it, oldest first.
    pub records: Vec<RecordView>,
}

/// `GET /v1/connections`: those that fit all that is said.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ConnectionsQuery {
    pub user: Option<String>,
    /// The database service.
    pub db: Option<String>,
    pub state: Option<String>,
    pub side: Option<Side>,
}

/// `/v1/log-level`: a level, or a list of targets with levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    pub level: String,
}

#[derive(Clone)]
struct Asked {
    parts: Arc<DebugParts>,
    uid: u32,
}

pub(super) fn router(parts: Arc<DebugParts>, uid: u32) -> Router {
    Router::new()
        .route("/v1/actors", get(actors))
        .route("/v1/actors/{*path}", get(actor))
        .route("/v1/connections", get(connections))
        .route("/v1/connections/{id}/trace", get(trace))
        .route("/v1/log-level", get(log_level).put(set_log_level))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(Asked { parts, uid })
}

/// For everybody else.
pub(super) fn refusing(uid: u32) -> Router {
    let error = format!(
        "the debug socket is for root and the account that runs the node (uid {}), and you are uid {uid}; repeat the command \
         with sudo or as that account",
        nix::unistd::geteuid()
    );
    Router::new().fallback(|| async { (StatusCode::FORBIDDEN, Json(Problem { error })) })
}

async fn actors(State(asked): State<Asked>) -> Json<NodeView> {
    Json(asked.parts.node.look())
}

async fn actor(State(asked): State<Asked>, Path(path): Path<String>) -> Answer<ActorPage> {
    let (actor, records) = asked.parts.node.actor(&path).ok_or_else(|| {
        Failed(
            StatusCode::NOT_FOUND,
            format!("no actor {path} lives in this node; `postern actors` lists them"),
        )
    })?;
    Ok(Json(ActorPage { actor, records }))
}

async fn connections(
    State(asked): State<Asked>,
    UrlQuery(query): UrlQuery<ConnectionsQuery>,
) -> Json<Vec<ConnectionView>> {
    Json(asked.parts.node.connections(&query))
}

async fn log_level() -> Json<LogLevel> {
    Json(LogLevel {
        level: logging::level(),
    })
}

async fn set_log_level(State(asked): State<Asked>, Json(wanted): Json<LogLevel>) -> Answer<LogLevel> {
    logging::set_level(&wanted.level).map_err(bad)?;
    tracing::info!(uid = asked.uid, "the log level was set at the debug socket");
    Ok(log_level().await)
}

async fn trace(State(asked): State<Asked>, Path(id): Path<String>) -> Answer<Trace> {
    let id: ConnectionId = id.parse().map_err(|_| {
        bad(format!(
            "{id:?} is not the id of a connection: 16 hexadecimal digits, as in the log"
        ))
    })?;
    let own = asked.parts.node.part(id);
    let ask_others = asked.parts.others.borrow().clone();
    let others = tokio::time::timeout(OTHERS_DEADLINE, ask_others(id))
        .await
        .unwrap_or_default();
    let mut missing = Vec::new();
    let mut parts: Vec<TracePart> = own.into_iter().collect();
    for part in others {
        match part {
            Ok(part) => parts.push(part),
            Err(part) => missing.push(part),
        }
    }
    if parts.is_empty() && missing.is_empty() {
        return Err(Failed(
            StatusCode::NOT_FOUND,
            format!("nothing is known of the connection {id} here: it is not of this node, or too long ago"),
        ));
    }
    Ok(Json(Trace {
        connection: id.to_string(),
        parts,
        missing,
    }))
}

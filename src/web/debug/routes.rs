//! What the debug socket is asked.

use super::DebugParts;
use crate::model::ConnectionId;
use crate::telemetry::logging;
use crate::telemetry::observe::{ActorAnswer, ConnectionFilter};
use crate::telemetry::view::{ConnectionView, NodeView, Side, Trace, TracePart};
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
    let router = Router::new()
        .route("/v1/actors", get(actors))
        .route("/v1/actors/{*path}", get(actor))
        .route("/v1/connections", get(connections))
        .route("/v1/connections/{id}/trace", get(trace))
        .route("/v1/log-level", get(log_level).put(set_log_level))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES));
    #[cfg(feature = "fault-points")]
    let router = router.route("/v1/fault", axum::routing::post(faults::inject));
    router.with_state(Asked { parts, uid })
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
    Json(asked.parts.observer.observer().look())
}

async fn actor(State(asked): State<Asked>, Path(path): Path<String>) -> Answer<ActorAnswer> {
    match asked.parts.observer.observer().actor(&path) {
        ActorAnswer::Nobody => Err(Failed(
            StatusCode::NOT_FOUND,
            format!("no actor {path} lives in this node; `postern actors` lists them"),
        )),
        answer => Ok(Json(answer)),
    }
}

async fn connections(
    State(asked): State<Asked>,
    UrlQuery(query): UrlQuery<ConnectionsQuery>,
) -> Json<Vec<ConnectionView>> {
    let filter = ConnectionFilter {
        user: query.user,
        database: query.db,
        state: query.state,
        side: query.side,
    };
    Json(asked.parts.observer.observer().connections(&filter))
}

async fn log_level() -> Json<LogLevel> {
    Json(LogLevel {
        level: logging::level(),
    })
}

async fn set_log_level(State(asked): State<Asked>, Json(wanted): Json<LogLevel>) -> Answer<LogLevel> {
    logging::set_level(&wanted.level, asked.uid).map_err(bad)?;
    Ok(log_level().await)
}

async fn trace(State(asked): State<Asked>, Path(id): Path<String>) -> Answer<Trace> {
    let id: ConnectionId = id.parse().map_err(|_| {
        bad(format!(
            "{id:?} is not the id of a connection: 16 hexadecimal digits, as in the log"
        ))
    })?;
    let own = asked.parts.observer.observer().part(id);
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

/// What tests do to the actors of a real process; not in a program that is given to anybody.
#[cfg(feature = "fault-points")]
mod faults {
    use super::{Answer, Json, bad};
    use crate::telemetry::fault::{self, Fault};
    use crate::telemetry::label::Label;
    use serde::{Deserialize, Serialize};
    use std::time::Duration;

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum How {
        Handler,
        Message,
        Future,
        Start,
        Block,
        Hold,
    }

    #[derive(Deserialize)]
    pub struct Wanted {
        /// A path.
        actor: String,
        how: How,
        /// Of `message`: its kind, one that was sent before.
        #[serde(default)]
        message: String,
        /// Of `start`: at how many builds.
        #[serde(default)]
        times: u32,
        /// Of `block` and `hold`: for how long.
        #[serde(default)]
        seconds: u64,
    }

    #[derive(Serialize)]
    pub struct Done {}

    pub async fn inject(Json(wanted): Json<Wanted>) -> Answer<Done> {
        let lasting = Duration::from_secs(wanted.seconds);
        let fault = match wanted.how {
            How::Handler => Fault::Handler,
            How::Message => {
                let kind = Label::known(&wanted.message);
                Fault::Message(kind.ok_or_else(|| bad(format!("no message {:?} was ever sent", wanted.message)))?)
            }
            How::Future => Fault::Future,
            How::Start => Fault::Start { builds: wanted.times },
            How::Block => Fault::Block(lasting),
            How::Hold => Fault::Hold(lasting),
        };
        fault::inject(&wanted.actor, fault).map_err(bad)?;
        Ok(Json(Done {}))
    }
}

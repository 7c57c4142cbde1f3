//! One request and its answer over a stream that is open already: the administrator's socket, a proxy, or auth through one.

use super::Failure;
use crate::net::Stream;
use crate::web::api::Problem;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The longest answer to a question of a person.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Above the largest answer of the audit log that anybody would read in one piece.
const ANSWER_MAX_BYTES: usize = 256 * 1024 * 1024;

pub(super) struct Answered {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answered {
    /// What was asked for, or why not, in the words of whoever answered.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if self.status.is_success() {
            return serde_json::from_slice(&self.body)
                .map_err(|error| Failure::internal(format!("the answer is not understood: {error}")));
        }
        let why = serde_json::from_slice::<Problem>(&self.body).map_or_else(
            |_| String::from_utf8_lossy(&self.body).into_owned(),
            |problem| problem.error,
        );
        if why.is_empty() {
            return Err(Failure::failed(format!(
                "the answer is {} without a reason: is the other side of another version?",
                self.status
            )));
        }
        Err(Failure::failed(why))
    }
}

pub(super) async fn exchange(
    stream: impl Stream,
    host: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Answered, Failure> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(Failure::failed)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(Failure::internal)?;
    // With the answer the sender is dropped, which ends the connection: a proxy would keep it for another request.
    let answer = async move {
        let answer = sender.send_request(request).await.map_err(Failure::failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(Failure::failed)?.to_bytes();
        Ok(Answered { status, body })
    };
    // The connection has to be polled for the answer to come, and ends with it; how it is closed after that is of no concern.
    let (answer, _ended) = tokio::join!(answer, connection);
    answer
}

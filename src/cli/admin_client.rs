//! The client of the administrator's socket.

use super::Failure;
use crate::model::percent_encoded;
use crate::net::socket;
use crate::node::data_dir::admin_socket_in;
use crate::web::api::Problem;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest answer to a question of an administrator.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

pub struct AdminClient {
    socket: PathBuf,
}

impl AdminClient {
    pub fn new(data_dir: &Path) -> Self {
        Self {
            socket: admin_socket_in(data_dir),
        }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, Failure> {
        let query = query_string(query)?;
        self.call(Method::GET, &format!("{path}{query}"), Bytes::new()).await
    }

    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(Failure::internal)?;
        self.call(method, path, body.into()).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        let answered = tokio::time::timeout(ANSWER_DEADLINE, self.exchange(method, path, body)).await;
        let (ok, bytes) = answered.map_err(|_| Failure::failed("auth did not answer in time; its log says more"))??;
        if ok {
            return serde_json::from_slice(&bytes)
                .map_err(|error| Failure::internal(format!("auth's answer is not understood: {error}")));
        }
        let why = serde_json::from_slice::<Problem>(&bytes).map_or_else(
            |_| String::from_utf8_lossy(&bytes).into_owned(),
            |problem| problem.error,
        );
        Err(Failure::failed(why))
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(bool, Bytes), Failure> {
        tracing::debug!(%method, path, socket = %self.socket.display(), "asking auth");
        let stream = socket::connect_admin(&self.socket)
            .await
            .map_err(|error| Failure::failed(not_reached(&self.socket, &error)))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Failure::failed)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "admin")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(Failure::internal)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(Failure::failed)?;
            let ok = answer.status().is_success();
            let body = answer.into_body().collect().await.map_err(Failure::failed)?;
            Ok((ok, body.to_bytes()))
        };
        // The connection has to be polled for the answer to come, and ends with it.
        let (answer, _ended) = tokio::join!(answer, connection);
        answer
    }
}

/// Why nobody answers at the socket, and what to do about it.
fn not_reached(socket: &Path, error: &std::io::Error) -> String {
    let shown = socket.display();
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return format!(
            "no auth service answers at {shown}: {error}; run this on the auth node, as the account that runs it, and name its \
             data directory with --data-dir or --config"
        );
    }
    // What is in a directory that one may not enter cannot be looked at; the directory itself can.
    let owned = socket
        .ancestors()
        .find_map(|path| Some((path, path.symlink_metadata().ok()?.uid())));
    let owner = match owned {
        Some((path, uid)) => format!("{} belongs to {}", path.display(), account(uid)),
        None => "it belongs to another account".to_owned(),
    };
    format!(
        "permission denied on auth's socket {shown}: {owner}, and you are {}; only its owner administers the cluster through it, \
         so repeat the command with sudo or as that account",
        account(nix::unistd::geteuid().as_raw())
    )
}

fn account(uid: u32) -> String {
    let found = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    match found {
        Some(user) => format!("{} (uid {uid})", user.name),
        None => format!("uid {uid}"),
    }
}

/// `?key=value` of the fields that are set.
fn query_string(query: &impl Serialize) -> Result<String, Failure> {
    let value = serde_json::to_value(query).map_err(Failure::internal)?;
    let mut out = String::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        out.push_str(&percent_encoded(&value));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_not_open_the_socket_reads_whose_it_is_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("data/admin.sock");
        let said = not_reached(&socket, &std::io::ErrorKind::PermissionDenied.into());
        let me = format!("(uid {})", nix::unistd::geteuid());
        for part in [
            "data/admin.sock",
            "sudo",
            &format!("{} belongs to", directory.path().display()),
            &me,
        ] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        let said = not_reached(&socket, &std::io::ErrorKind::NotFound.into());
        assert!(said.contains("on the auth node") && !said.contains("sudo"), "{said}");
    }
}

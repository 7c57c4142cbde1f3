//! The client of the administrator's API: over the socket on auth's machine, or as a person through a proxy.

use super::Failure;
use super::http_exchange::{ANSWER_DEADLINE, Answered, exchange};
use super::people_client::PeopleClient;
use crate::model::percent_encoded;
use crate::net::socket;
use crate::node::data_dir::admin_socket_in;
use hyper::Method;
use hyper::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How auth is reached.
enum Way {
    Socket(PathBuf),
    Remote(Box<PeopleClient>),
}

pub struct AdminClient {
    way: Way,
}

impl AdminClient {
    pub fn new(data_dir: &Path) -> Self {
        Self {
            way: Way::Socket(admin_socket_in(data_dir)),
        }
    }

    /// As a person, whose roles decide over each question.
    pub fn remote(client: PeopleClient) -> Self {
        Self {
            way: Way::Remote(Box::new(client)),
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
        let answered = match &self.way {
            Way::Socket(socket) => tokio::time::timeout(ANSWER_DEADLINE, over(socket, method, path, body))
                .await
                .map_err(|_| Failure::failed("auth did not answer in time; its log says more"))??,
            Way::Remote(client) => client.call(method, path, body).await?,
        };
        answered.read()
    }
}

/// Why nobody answers at the socket, and what to do about it.
fn not_reached(socket: &Path, error: &std::io::Error) -> String {
    let shown = socket.display();
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return format!(
            "no auth service answers at {shown}: {error}; run this on the auth node, as the account that runs it, and name its \
             data directory with --data-dir or --config; or log in on this machine, and what your roles allow is done from here"
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

async fn over(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<Answered, Failure> {
    let stream = socket::connect_admin(socket)
        .await
        .map_err(|error| Failure::failed(not_reached(socket, &error)))?;
    tracing::debug!(%method, uri = path, path = %socket.display(), "asking auth");
    exchange(stream, "admin", method, path, body).await
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

//! The client of a node's debug service: over `debug.sock` on the node's own machine, or of a node elsewhere through auth.

use super::admin_client::{AdminClient, account, query_string};
use super::http_exchange::{ANSWER_DEADLINE, exchange};
use super::names::Program;
use super::terminal::one_line;
use super::{Failure, auth_choice};
use crate::config::{Config, DEFAULT_DATA_DIR, default_config_path};
use crate::model::{ConnectionId, percent_encoded};
use crate::net::socket;
use crate::node::data_dir::debug_socket_in;
use crate::telemetry::view::{ConnectionView, Trace};
use crate::web::debug::{ConnectionsQuery, LogLevel};
use crate::web::trace_api::FoundConnections;
use clap::Args;
use hyper::Method;
use hyper::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Which node is looked into.
#[derive(Debug, Args)]
pub struct WhichNode {
    /// The data directory of a node on this machine. Where neither it nor --config nor --node is given, the node that runs here
    /// is asked: that of /etc/postern.yaml, of /var/lib/postern, or of `postern dev`.
    #[arg(long, value_name = "DIR", env = "POSTERN_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration file of a node on this machine, for its data directory.
    #[arg(short, long, value_name = "FILE", conflicts_with = "data_dir")]
    config: Option<PathBuf>,
    /// A node of the cluster, on whatever machine: it is asked through auth, and your roles decide whether you may.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Ask through auth as this person: PREFIX.crt, PREFIX.key and PREFIX.cas, as `ctl auth sign` writes them.
    #[arg(
        short,
        long,
        value_name = "PREFIX",
        conflicts_with = "config",
        requires_all = ["proxy", "node"]
    )]
    identity: Option<PathBuf>,
    /// The proxy by which auth is reached with --identity.
    #[arg(long, value_name = "HOST:PORT", requires = "identity")]
    proxy: Option<String>,
}

enum Way {
    Socket(PathBuf),
    ThroughAuth(Box<AdminClient>, String),
}

pub struct DebugClient {
    way: Way,
}

impl DebugClient {
    /// The client of the node that is meant.
    pub async fn of(which: &WhichNode, program: Program) -> Result<Self, Failure> {
        let (data_dir, config) = (which.data_dir.as_deref(), which.config.as_deref());
        let Some(node) = &which.node else {
            let socket = match (data_dir, config) {
                (Some(dir), _) => debug_socket_in(dir),
                (None, Some(path)) => debug_socket_in(&Config::load(path).map_err(Failure::usage)?.data_dir),
                (None, None) => found(program).await?,
            };
            tracing::debug!(path = %socket.display(), "the node's debug socket");
            return Ok(Self {
                way: Way::Socket(socket),
            });
        };
        let client = match (&which.identity, &which.proxy) {
            (Some(prefix), Some(proxy)) => auth_choice::as_person(prefix, proxy)?,
            _ => match auth_choice::named(data_dir, config)? {
                Some(client) => client,
                None => auth_choice::found(program)?,
            },
        };
        Ok(Self {
            way: Way::ThroughAuth(Box::new(client), node.clone()),
        })
    }

    /// Asks for what is at `path`, below the node.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, Failure> {
        match &self.way {
            Way::Socket(socket) => {
                let uri = format!("/v1{path}{}", query_string(query)?);
                over(socket, Method::GET, &uri, Bytes::new()).await
            }
            Way::ThroughAuth(client, node) => client.get(&below(node, path), query).await,
        }
    }

    /// The connections that fit: of this node, or elsewhere those that lead through the node, as the proxies know them.
    pub async fn connections(&self, query: &ConnectionsQuery) -> Result<Vec<ConnectionView>, Failure> {
        let Way::ThroughAuth(client, node) = &self.way else {
            return self.get("/connections", query).await;
        };
        let found: FoundConnections = client.get("/v1/connections", query).await?;
        for silent in &found.missing {
            eprintln!("{}: {}", one_line(&silent.node), one_line(&silent.why));
        }
        if found.left_out > 0 {
            eprintln!(
                "{} more connections did not fit into the answer; say of whom or to which: --user, --db, --state",
                found.left_out
            );
        }
        let agent = format!("agent {node}");
        let leads_through = |view: &ConnectionView| {
            let upstream = view.relay.as_ref().map(|relay| &relay.upstream);
            view.node == *node || upstream == Some(&agent) || view.waits_for.contains(&agent)
        };
        Ok(found.connections.into_iter().filter(leads_through).collect())
    }

    /// A connection through all nodes that it passes.
    pub async fn trace(&self, connection: ConnectionId) -> Result<Trace, Failure> {
        let path = format!("/connections/{connection}/trace");
        match &self.way {
            Way::Socket(_) => self.get(&path, &()).await,
            // Auth finds the proxy that has it, and asks the others by way of it.
            Way::ThroughAuth(client, _) => client.get(&format!("/v1{path}"), &()).await,
        }
    }

    /// What the node logs, which is for its own machine only.
    pub async fn log_level(&self, change: Option<&LogLevel>) -> Result<LogLevel, Failure> {
        match (&self.way, change) {
            (Way::ThroughAuth(..), _) => Err(Failure::usage(
                "the log level of a node is read and changed on its own machine; leave --node out there",
            )),
            (Way::Socket(_), None) => self.get("/log-level", &()).await,
            (Way::Socket(socket), Some(level)) => {
                let body = serde_json::to_vec(level).map_err(Failure::internal)?;
                over(socket, Method::PUT, "/v1/log-level", body.into()).await
            }
        }
    }

    /// What has to be typed after a verb to reach the same node again.
    pub fn flags(which: &WhichNode) -> String {
        let named = [
            (
                "--data-dir",
                which.data_dir.as_ref().map(|dir| dir.display().to_string()),
            ),
            ("--config", which.config.as_ref().map(|path| path.display().to_string())),
            ("--node", which.node.clone()),
            (
                "--identity",
                which.identity.as_ref().map(|prefix| prefix.display().to_string()),
            ),
            ("--proxy", which.proxy.clone()),
        ];
        let said = |(flag, value): (&str, Option<String>)| Some(format!(" {flag} {}", value?));
        named.into_iter().filter_map(said).collect()
    }
}

fn below(node: &str, path: &str) -> String {
    format!("/v1/nodes/{}{path}", percent_encoded(node))
}

async fn over<T: DeserializeOwned>(socket: &Path, method: Method, uri: &str, body: Bytes) -> Result<T, Failure> {
    let answered = async {
        let stream = socket::connect_owners(socket)
            .await
            .map_err(|error| Failure::failed(not_reached(socket, &error)))?;
        exchange(stream, "debug", method, uri, body).await
    };
    tokio::time::timeout(ANSWER_DEADLINE, answered)
        .await
        .map_err(|_| {
            Failure::failed(format!(
                "no answer at {} in time: the process is stopped, or the machine has no time for it",
                socket.display()
            ))
        })??
        .read()
}

/// The socket of the one node that runs on this machine.
async fn found(program: Program) -> Result<PathBuf, Failure> {
    let mut places: Vec<PathBuf> = Vec::new();
    if let Some(path) = default_config_path() {
        match Config::load(&path) {
            Ok(config) => places.push(config.data_dir),
            // What can be found without it is looked at.
            Err(error) => tracing::debug!(%error, "the configuration file is passed over"),
        }
    }
    places.push(PathBuf::from(DEFAULT_DATA_DIR));
    places.extend(std::env::home_dir().map(|home| home.join(".postern-dev")));
    places.dedup();
    let mut forbidden = None;
    let mut alive = Vec::new();
    for dir in &places {
        let socket = debug_socket_in(dir);
        match socket::connect_owners(&socket).await {
            Ok(_) => alive.push(dir),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                forbidden.get_or_insert_with(|| not_reached(&socket, &error));
            }
            Err(error) => tracing::debug!(path = %socket.display(), %error, "nobody answers"),
        }
    }
    match (alive.as_slice(), forbidden) {
        ([dir], _) => Ok(debug_socket_in(dir)),
        ([], Some(why)) => Err(Failure::failed(why)),
        ([], None) => Err(Failure::failed(format!(
            "no node runs on this machine at its usual places ({}); name its data directory with --data-dir, its configuration \
             with --config, or a node elsewhere with --node (`{} nodes ls` lists them)",
            listed(&places),
            program.ctl(),
        ))),
        (several, _) => Err(Failure::usage(format!(
            "several nodes run on this machine; say which with --data-dir: {}",
            listed(several)
        ))),
    }
}

fn listed<P: AsRef<Path>>(places: &[P]) -> String {
    let shown: Vec<String> = places.iter().map(|dir| dir.as_ref().display().to_string()).collect();
    shown.join(", ")
}

/// Why nobody answers at the socket, and what to do about it.
fn not_reached(socket: &Path, error: &io::Error) -> String {
    let shown = socket.display();
    if error.kind() != io::ErrorKind::PermissionDenied {
        return format!(
            "no node answers at {shown}: {error}; run this on the machine of the node, with the data directory that its \
             configuration names, or ask a node elsewhere with --node"
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
        "permission denied on the debug socket {shown}: {owner}, and you are {}; only root and the account that runs the node \
         may look into it, so repeat the command with sudo or as that account",
        account(nix::unistd::geteuid().as_raw())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reaches_no_node_reads_which_socket_and_what_to_do() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = debug_socket_in(&directory.path().join("data"));
        let said = not_reached(&socket, &io::ErrorKind::PermissionDenied.into());
        for part in [
            "data/debug.sock",
            "sudo",
            "root and the account that runs the node",
            &format!("{} belongs to", directory.path().display()),
        ] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        let said = not_reached(&socket, &io::ErrorKind::NotFound.into());
        assert!(said.contains("--node") && !said.contains("sudo"), "{said}");
    }
}

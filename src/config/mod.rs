//! The configuration file: YAML with the keys of the guide, read into types with every default applied.
//!
//! A key that nobody knows, one that this version does not act on, and a value of the wrong type are errors that name the
//! file, the line and the column: a setting is never accepted in silence. Files that the configuration names (tokens, pins)
//! are read when they are needed, not when the configuration is.
//!
//! Parts: `file` reads YAML into a tree with places; `section` and `keys` see that every key is known; `resolve` and
//! `services` turn the tree into types; `changes` compares two of them; `settings` puts what a command line says into it; `address` and `secret_file` are values with rules of their own.

mod address;
mod changes;
mod databases;
mod error;
mod file;
mod keys;
mod resolve;
mod secret_file;
mod section;
mod services;
mod settings;
#[cfg(test)]
mod tests;

pub use crate::model::{Endpoint, IpNetwork};
pub use address::{AddressError, ListenAddr, ListenHost};
pub use error::{ConfigError, Place};
pub use secret_file::{MIN_STATIC_TOKEN_BYTES, PinSource, StaticToken, TokenSource};
pub use settings::{AcmeSetting, DatabaseSetting, JoinSetting, KeyPairSetting, Settings, Written};

use crate::model::{ClusterName, Labels, NodeKind, NodeName, ServiceName};
use crate::policy::{DatabaseTlsMode, ResourceMatcher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A configuration that names some hundred databases is about 50 KiB; something far larger is not a configuration.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
pub const DEFAULT_DATA_DIR: &str = "/var/lib/postern";
/// Where the file is looked for, in this order.
pub const CONFIG_PATHS: [&str; 2] = ["/etc/postern.yaml", "/etc/teleport.yaml"];
pub const DEFAULT_AUTH_PORT: u16 = 3025;
pub const DEFAULT_WEB_PORT: u16 = 3080;
/// The port of the reference's documentation.
pub const DEFAULT_DIAG_PORT: u16 = 3000;
/// PostgreSQL's own (chapter 20.3).
pub const DEFAULT_POSTGRES_PORT: u16 = 5432;
/// How long new connections are still decided without word from auth.
pub const DEFAULT_POLICY_MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// Below this, one slow heartbeat would refuse everybody.
pub const MIN_POLICY_MAX_AGE: Duration = Duration::from_secs(10);
/// Above this, someone whose role was removed could still connect for too long while auth is away.
pub const MAX_POLICY_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// What Kubernetes gives a process by default, and a third of systemd's patience.
pub const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// SIGTERM is for whoever wants the node to end; who can wait for longer sends SIGQUIT.
pub const MAX_SHUTDOWN_GRACE: Duration = Duration::from_secs(60 * 60);
/// More than a machine has cores that would have one node.
pub const MAX_WORKER_THREADS: usize = 256;

/// The version of the file's format: which of the addresses of auth and proxy may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1,
    V2,
    V3,
}

/// A whole configuration, checked and with defaults applied.
#[derive(Debug, Clone)]
pub struct Config {
    pub version: Version,
    pub nodename: NodeName,
    pub data_dir: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub auth_token: Option<TokenSource>,
    pub ca_pins: Vec<PinSource>,
    /// Where this node joins; `None` only where auth runs in this process.
    pub join: Option<JoinAddress>,
    pub log: LogConfig,
    /// Where `/healthz`, `/readyz` and `/metrics` are served; nowhere by default.
    pub diag_addr: Option<ListenAddr>,
    /// How long sessions may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// Threads for connections; by default as many as suit the machine.
    pub worker_threads: Option<usize>,
    /// The services; `None` where one does not run here.
    pub auth: Option<AuthConfig>,
    pub proxy: Option<ProxyConfig>,
    pub db: Option<DbConfig>,
}

/// Where a node finds its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinAddress {
    /// `auth_server` or `auth_servers`: tried in order. Format versions 1 and 2 have no other key, so that it may be a proxy.
    Auth(Vec<Endpoint>),
    /// `proxy_server`.
    Proxy(Endpoint),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    pub severity: Severity,
    pub format: LogFormat,
    pub output: LogOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Severity {
    /// The word that `tracing` knows the level by.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOutput {
    Stderr,
    Stdout,
    /// Lines are added at its end.
    File(PathBuf),
}

#[derive(Debug, Clone)]
pub struct AuthConfig {
    pub cluster_name: ClusterName,
    pub listen_addr: ListenAddr,
    pub tokens: Vec<StaticToken>,
    pub policy_max_age: Duration,
}

/// The files of a certificate that the proxy presents to people, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The chain, the proxy's own certificate first.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    pub web_listen_addr: ListenAddr,
    /// What clients and agents connect to; the first is printed in commands. Empty: the node's name and the listening port.
    pub public_addr: Vec<Endpoint>,
    /// What is presented to people; without one the host authority's certificate.
    pub https_keypairs: Vec<KeyPair>,
    /// Whether a CancelRequest is taken that comes without TLS, as psql and most drivers send it.
    pub cancel_without_tls: bool,
    /// Asked for, and not acted on by this version: whoever starts the proxy warns of it.
    pub acme: Option<AcmeConfig>,
    pub proxy_protocol: ProxyProtocol,
}

/// Whether balancers say for whom they connect (the PROXY protocol).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// They do not, and a header is refused: whoever sent one could be anybody.
    #[default]
    Off,
    /// Every connection begins with a header.
    On {
        /// Whose headers are believed; nobody else may connect. Empty: everybody's.
        from: Vec<IpNetwork>,
    },
}

/// A public certificate by ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeConfig {
    /// Where the issuer writes to.
    pub email: Option<String>,
    /// The issuer's directory; `None` is Let's Encrypt's.
    pub uri: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DbConfig {
    pub databases: Vec<DatabaseConfig>,
    /// Which registered databases (`kind: db`) are served, too: those that one of these matches.
    pub resources: Vec<ResourceMatcher>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    pub name: ServiceName,
    pub description: String,
    pub protocol: DbProtocol,
    pub uri: Endpoint,
    pub static_labels: Labels,
    /// In addition to the static ones; none has the name of one of those.
    pub dynamic_labels: Vec<DynamicLabel>,
    pub tls: DbTls,
    /// PostgreSQL's own certificate, where the agent sees to it.
    pub server_certificate: Option<ServerCertificateConfig>,
}

/// PostgreSQL's certificate, made and renewed by the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificateConfig {
    /// Of the files, without `.key`, `.crt` and `.cas`.
    pub out: PathBuf,
    /// Of those that the database has: the host of `uri` and `tls.server_name`. Never empty.
    pub hosts: Vec<String>,
    pub ttl: Duration,
    /// Run when there is a new certificate; empty: nothing is run.
    pub reload_command: Vec<String>,
    /// The account that the files are for.
    pub owner: Option<String>,
}

/// A label whose value is the first line that a command prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicLabel {
    pub name: String,
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    pub period: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbProtocol {
    Postgres,
}

/// How the agent verifies PostgreSQL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DbTls {
    pub mode: DatabaseTlsMode,
    /// The name that PostgreSQL's certificate must carry, where it is not the host of `uri`.
    pub server_name: Option<String>,
    /// PEM; `None` is the cluster's own db CA.
    pub ca_cert_file: Option<PathBuf>,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is larger than [`MAX_FILE_BYTES`], is not UTF-8, or says something that is refused.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&Self::read_text(path)?, &path.display().to_string())
    }

    fn read_text(path: &Path) -> Result<String, ConfigError> {
        let cannot_read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(cannot_read)?;
        let origin = path.display().to_string();
        let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotText { origin: origin.clone() })?;
        check_size(&text, &origin)?;
        Ok(text)
    }

    /// Reads a configuration from `text`; `origin` is what error messages call it.
    ///
    /// # Errors
    /// As of [`Config::load`].
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        check_size(text, origin)?;
        resolve::config(file::parse(text, origin)?)
    }

    /// The services that run in this process, in the order in which they start.
    pub fn services(&self) -> Vec<NodeKind> {
        let runs = |kind: &NodeKind| match kind {
            NodeKind::Auth => self.auth.is_some(),
            NodeKind::Proxy => self.proxy.is_some(),
            NodeKind::Db => self.db.is_some(),
        };
        NodeKind::ALL.into_iter().filter(runs).collect()
    }
}

fn check_size(text: &str, origin: &str) -> Result<(), ConfigError> {
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge {
            origin: origin.to_owned(),
            max: MAX_FILE_BYTES,
        });
    }
    Ok(())
}

/// The file to read when the command line names none: the first of [`CONFIG_PATHS`] that exists.
pub fn default_config_path() -> Option<PathBuf> {
    CONFIG_PATHS.iter().map(PathBuf::from).find(|path| path.exists())
}

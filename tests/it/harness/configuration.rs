//! The configuration files of a cluster's nodes, as an operator would write them.

use super::{Postgres, TestDir};
use std::path::{Path, PathBuf};

pub const CLUSTER_NAME: &str = "test.example";
/// The database service that every cluster of these tests has.
pub const SERVICE: &str = "orders";
/// A token that admits proxies.
pub const PROXY_TOKEN: &str = "proxy-0123456789abcdef0123456789abcdef";
/// A token that admits agents.
pub const DB_TOKEN: &str = "db-0123456789abcdef0123456789abcdef";

/// What one node's file says. Port 0 lets the system choose, so that no test has a fixed port.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub name: &'static str,
    pub data_dir: PathBuf,
    pub auth_port: Option<u16>,
    /// Whether auth's file has tokens, one for each kind of node.
    pub has_tokens: bool,
    pub proxy_port: Option<u16>,
    /// The entries of `databases`, where the node is an agent.
    pub databases: Option<String>,
    /// More lines of the section about the process.
    pub process: String,
    /// More lines of auth's section.
    pub auth_lines: &'static str,
    /// More lines of `proxy_service`.
    pub proxy: String,
    /// Where a node without auth joins, and by which authority it knows that it is there.
    pub join: Option<Join>,
}

#[derive(Debug, Clone)]
pub struct Join {
    key: &'static str,
    port: u16,
    token: String,
    ca_pin: String,
}

impl Join {
    pub fn at_auth(port: u16, ca_pin: &str) -> Self {
        Self {
            key: "auth_server",
            port,
            token: PROXY_TOKEN.to_owned(),
            ca_pin: ca_pin.to_owned(),
        }
    }

    pub fn through_proxy(port: u16, ca_pin: &str) -> Self {
        Self {
            key: "proxy_server",
            port,
            token: DB_TOKEN.to_owned(),
            ca_pin: ca_pin.to_owned(),
        }
    }

    /// With a token that was added, in place of those of auth's configuration.
    pub fn presenting(mut self, token: &str) -> Self {
        token.trim().clone_into(&mut self.token);
        self
    }
}

impl NodeConfig {
    pub fn new(name: &'static str, data_dir: impl AsRef<Path>) -> Self {
        Self {
            name,
            data_dir: data_dir.as_ref().to_owned(),
            auth_port: None,
            has_tokens: true,
            proxy_port: None,
            databases: None,
            process: String::new(),
            auth_lines: "",
            proxy: String::new(),
            join: None,
        }
    }

    pub fn with_auth_lines(mut self, lines: &'static str) -> Self {
        self.auth_lines = lines;
        self
    }

    pub fn with_process(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.process);
        self
    }

    pub fn with_auth(mut self) -> Self {
        self.auth_port = Some(0);
        self
    }

    pub fn without_tokens(mut self) -> Self {
        self.has_tokens = false;
        self
    }

    pub fn with_proxy(mut self) -> Self {
        self.proxy_port = Some(0);
        self
    }

    pub fn with_databases(mut self, entries: &str) -> Self {
        self.databases = Some(entries.to_owned());
        self
    }

    pub fn joining(mut self, join: Join) -> Self {
        self.join = Some(join);
        self
    }

    pub fn yaml(&self) -> String {
        let mut text = format!(
            "version: v3\npostern:\n  nodename: {}\n  data_dir: {}\n",
            self.name,
            self.data_dir.display()
        );
        text += &self.process;
        if let Some(Join {
            key,
            port,
            token,
            ca_pin,
        }) = &self.join
        {
            text += &format!("  {key}: localhost:{port}\n  auth_token: {token}\n  ca_pin: {ca_pin}\n");
        }
        if let Some(port) = self.auth_port {
            text += &format!(
                "auth_service:\n  enabled: yes\n  cluster_name: {CLUSTER_NAME}\n  listen_addr: 127.0.0.1:{port}\n"
            );
            text += self.auth_lines;
            if self.has_tokens {
                text += &format!("  tokens: [\"proxy:{PROXY_TOKEN}\", \"db:{DB_TOKEN}\"]\n");
            }
        }
        if let Some(port) = self.proxy_port {
            text += &format!(
                "proxy_service:\n  enabled: yes\n  web_listen_addr: 127.0.0.1:{port}\n  public_addr: localhost\n"
            );
            text += &self.proxy;
        }
        if let Some(databases) = &self.databases {
            text += &format!("db_service:\n  enabled: yes\n  databases:\n{databases}");
        }
        text
    }
}

/// An entry of `databases`; `tls` is the inside of its `tls:` section, or empty.
pub fn database(name: &str, uri: &str, tls: &str) -> String {
    format!(
        "  - name: {name}\n    protocol: postgres\n    uri: {uri}\n    static_labels: {{env: test}}\n    tls: {{{tls}}}\n"
    )
}

pub fn usual_database(postgres: &Postgres) -> String {
    database(SERVICE, &format!("localhost:{}", postgres.port), "")
}

/// A new self-signed certificate for localhost in `web.crt` and `web.key` of the directory.
pub fn web_certificate(directory: &TestDir) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    (
        directory.write("web.crt", made.cert.pem()),
        directory.write("web.key", made.signing_key.serialize_pem()),
    )
}

/// The line of `proxy_service` that has the proxy present it.
pub fn presenting(certificate: &Path, key: &Path) -> String {
    format!(
        "  https_keypairs: [{{cert_file: {}, key_file: {}}}]\n",
        certificate.display(),
        key.display()
    )
}

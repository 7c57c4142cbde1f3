//! What a command line says of the configuration. It is put into the tree of the file, or into an empty one, as if it stood
//! there: the same rules check it and refuse it in the same words, with the flag in the file's place. The tree is also what
//! `configure` prints, so that what is printed can be read.

use super::error::{ConfigError, Place};
use super::file::{self, Key, Node, Value};
use super::{Config, ListenHost, resolve};
use crate::model::{Labels, NodeKind, Secret};
use std::net::IpAddr;
use std::path::Path;

/// What errors call the settings that no single flag is to blame for.
const ORIGIN: &str = "the command line";
/// The two names of the section about the process.
const PROCESS: [&str; 2] = ["teleport", "postern"];

/// Settings of a command line; what is not set is the file's, or has its default.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub nodename: Option<String>,
    pub data_dir: Option<String>,
    pub pid_file: Option<String>,
    pub diag_addr: Option<String>,
    /// A token, or the absolute path of a file with one.
    pub auth_token: Option<Secret<String>>,
    pub ca_pins: Vec<String>,
    pub join: Option<JoinSetting>,
    /// Exactly these services run.
    pub services: Option<Vec<NodeKind>>,
    /// Where auth and proxy listen, on the ports that they have.
    pub listen_ip: Option<IpAddr>,
    pub cluster_name: Option<String>,
    pub web_listen_addr: Option<String>,
    pub public_addr: Option<String>,
    pub acme: Option<AcmeSetting>,
    pub keypair: Option<KeyPairSetting>,
    /// One database more than the file has.
    pub database: Option<DatabaseSetting>,
}

/// Where to join, in place of every address of the file.
#[derive(Debug, Clone)]
pub struct JoinSetting {
    /// As it was typed, for errors.
    pub flag: &'static str,
    pub address: String,
    /// Whether the address is a proxy's; the format's versions 1 and 2 do not tell them apart.
    pub is_proxy: bool,
}

/// Absolute paths.
#[derive(Debug, Clone)]
pub struct KeyPairSetting {
    pub cert_file: String,
    pub key_file: String,
}

#[derive(Debug, Clone)]
pub struct AcmeSetting {
    pub email: Option<String>,
}

#[derive(Debug, Clone)]
pub struct DatabaseSetting {
    pub name: String,
    pub description: Option<String>,
    pub protocol: String,
    pub uri: String,
    pub labels: Labels,
    pub ca_cert_file: Option<String>,
}

/// The words of a file that is written anew.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// `v1`, `v2` or `v3`.
    pub version: &'a str,
    /// What the section about the process is called: `teleport` or `postern`.
    pub process: &'a str,
}

impl Settings {
    /// Whether nothing is set.
    pub fn says_nothing(&self) -> bool {
        let tree = node(ORIGIN, Value::Map(Vec::new()));
        self.listen_ip.is_none() && matches!(self.onto(tree).value, Value::Map(entries) if entries.is_empty())
    }

    /// The file that says these settings, checked as a file is.
    ///
    /// # Errors
    /// A setting is refused, or the settings are not a whole configuration.
    pub fn write(&self, words: Written<'_>) -> Result<(String, Config), ConfigError> {
        let tree = self.onto(empty(words));
        let text = file::write(&tree)?;
        Ok((text, self.resolve(tree)?))
    }

    /// The configuration of the file at `path`, with these settings in place of the file's; without a file, of the settings
    /// alone.
    ///
    /// # Errors
    /// As of [`Config::load`], and when a setting is refused.
    pub fn load(&self, path: Option<&Path>) -> Result<Config, ConfigError> {
        let tree = match path {
            Some(path) => {
                let text = Config::read_text(path)?;
                file::parse(&text, &path.display().to_string())?
            }
            None => empty(Written {
                version: "v3",
                process: "postern",
            }),
        };
        self.resolve(self.onto(tree))
    }

    fn resolve(&self, tree: Node) -> Result<Config, ConfigError> {
        let mut config = resolve::config(tree)?;
        if let Some(ip) = self.listen_ip {
            let auth = config.auth.as_mut().map(|auth| &mut auth.listen_addr);
            let proxy = config.proxy.as_mut().map(|proxy| &mut proxy.web_listen_addr);
            for address in auth.into_iter().chain(proxy) {
                address.host = ListenHost::Ip(ip);
            }
        }
        Ok(config)
    }

    fn onto(&self, mut root: Node) -> Node {
        let process = PROCESS
            .into_iter()
            .find(|name| root.get(name).is_some())
            .unwrap_or("postern");
        let mut of_process = |key: &str, flag: &str, value: Option<&str>| {
            if let Some(value) = value {
                root.put(&[process, key], text(flag, value));
            }
        };
        of_process("nodename", "--nodename", self.nodename.as_deref());
        of_process("data_dir", "--data-dir", self.data_dir.as_deref());
        of_process("pid_file", "--pid-file", self.pid_file.as_deref());
        of_process("diag_addr", "--diag-addr", self.diag_addr.as_deref());
        let token = self.auth_token.as_ref().map(|token| token.expose().as_str());
        of_process("auth_token", "--token", token);
        if !self.ca_pins.is_empty() {
            let pins = self.ca_pins.iter().map(|pin| text("--ca-pin", pin)).collect();
            root.put(&[process, "ca_pin"], node("--ca-pin", Value::List(pins)));
        }
        if let Some(join) = &self.join {
            join.onto(&mut root, process);
        }
        if let Some(kinds) = &self.services {
            enable(&mut root, kinds);
        }
        let mut of_service = |path: &[&str], flag: &str, value: Option<&str>| {
            if let Some(value) = value {
                root.put(path, text(flag, value));
            }
        };
        of_service(
            &["auth_service", "cluster_name"],
            "--cluster-name",
            self.cluster_name.as_deref(),
        );
        of_service(
            &["proxy_service", "web_listen_addr"],
            ORIGIN,
            self.web_listen_addr.as_deref(),
        );
        of_service(
            &["proxy_service", "public_addr"],
            "--public-addr",
            self.public_addr.as_deref(),
        );
        if let Some(acme) = &self.acme {
            of_service(&["proxy_service", "acme", "enabled"], "--acme", Some("yes"));
            of_service(
                &["proxy_service", "acme", "email"],
                "--acme-email",
                acme.email.as_deref(),
            );
        }
        if let Some(pair) = &self.keypair {
            let mut entry = node("--cert-file", Value::Map(Vec::new()));
            entry.put(&["cert_file"], text("--cert-file", &pair.cert_file));
            entry.put(&["key_file"], text("--key-file", &pair.key_file));
            root.push(&["proxy_service", "https_keypairs"], entry);
        }
        if let Some(database) = &self.database {
            root.push(&["db_service", "databases"], database.node());
        }
        root
    }
}

impl JoinSetting {
    fn onto(&self, root: &mut Node, process: &str) {
        let has_both =
            matches!(root.get("version"), Some(Node { value: Value::Scalar(version), .. }) if version == "v3");
        if let Some(section) = root.get_mut(process) {
            section.remove(&["auth_server", "auth_servers", "proxy_server"]);
        }
        let address = text(self.flag, &self.address);
        match (has_both, self.is_proxy) {
            (true, true) => root.put(&[process, "proxy_server"], address),
            (true, false) => root.put(&[process, "auth_server"], address),
            (false, _) => root.put(&[process, "auth_servers"], node(self.flag, Value::List(vec![address]))),
        }
    }
}

impl DatabaseSetting {
    fn node(&self) -> Node {
        let mut entry = node("--name", Value::Map(Vec::new()));
        let mut put = |path: &[&str], flag: &str, value: Option<&str>| {
            if let Some(value) = value {
                entry.put(path, text(flag, value));
            }
        };
        put(&["name"], "--name", Some(&self.name));
        put(&["description"], "--description", self.description.as_deref());
        put(&["protocol"], "--protocol", Some(&self.protocol));
        put(&["uri"], "--uri", Some(&self.uri));
        for (key, value) in &self.labels.0 {
            put(&["static_labels", key], "--labels", Some(value));
        }
        put(&["tls", "ca_cert_file"], "--ca-cert", self.ca_cert_file.as_deref());
        entry
    }
}

/// Says of every service whether it runs; of one that the file does not have and that does not run, nothing.
fn enable(root: &mut Node, kinds: &[NodeKind]) {
    for kind in NodeKind::ALL {
        let section = match kind {
            NodeKind::Auth => "auth_service",
            NodeKind::Proxy => "proxy_service",
            NodeKind::Db => "db_service",
        };
        if kinds.contains(&kind) {
            root.put(&[section, "enabled"], text("--roles", "yes"));
        } else if root.get(section).is_some() {
            root.put(&[section, "enabled"], text("--roles", "no"));
        }
    }
}

fn empty(words: Written<'_>) -> Node {
    let mut root = node(ORIGIN, Value::Map(Vec::new()));
    root.put(&["version"], text("--version", words.version));
    root.put(&[words.process], node(ORIGIN, Value::Map(Vec::new())));
    root
}

fn node(flag: &str, value: Value) -> Node {
    Node {
        place: Place::whole(flag),
        value,
    }
}

fn text(flag: &str, value: &str) -> Node {
    node(flag, Value::Scalar(value.to_owned()))
}

impl Node {
    fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(k, _)| k.name == key).map(|(_, node)| node)
    }

    fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Value::Map(entries) = &mut self.value else {
            return None;
        };
        entries.iter_mut().find(|(k, _)| k.name == key).map(|(_, node)| node)
    }

    fn remove(&mut self, keys: &[&str]) {
        if let Value::Map(entries) = &mut self.value {
            entries.retain(|(key, _)| !keys.contains(&key.name.as_str()));
        }
    }

    /// Puts `value` at `path`, in place of what is there. Where something on the way is no section, nothing is changed: the
    /// file is refused for it.
    fn put(&mut self, path: &[&str], value: Self) {
        match path {
            [] => *self = value,
            [key, rest @ ..] => {
                if let Some(child) = self.child(key, &value.place) {
                    child.put(rest, value);
                }
            }
        }
    }

    /// Adds `item` to the list at `path`.
    fn push(&mut self, path: &[&str], item: Self) {
        match path {
            [] => match &mut self.value {
                Value::List(items) => items.push(item),
                Value::Null => self.value = Value::List(vec![item]),
                Value::Scalar(_) | Value::Map(_) => {}
            },
            [key, rest @ ..] => {
                if let Some(child) = self.child(key, &item.place) {
                    child.push(rest, item);
                }
            }
        }
    }

    /// The value of `key`, made where there is none.
    fn child(&mut self, key: &str, place: &Place) -> Option<&mut Self> {
        if matches!(self.value, Value::Null) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else {
            return None;
        };
        let at = entries.iter().position(|(k, _)| k.name == key).unwrap_or(entries.len());
        if at == entries.len() {
            let new = Node {
                place: place.clone(),
                value: Value::Null,
            };
            let key = Key {
                place: place.clone(),
                name: key.to_owned(),
            };
            entries.push((key, new));
        }
        entries.get_mut(at).map(|(_, node)| node)
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;

//! Databases that are registered as resources, and which of them an agent serves.
//!
//! `kind: db`, `version: v3`, as Teleport's. An agent serves those whose labels one of its `db_service.resources` matches.

use super::document::{Node, read_json, read_yaml};
use super::error::{Problem, ResourceError};
use super::fields::{Fields, bad_name, bad_value, text, text_within, unknown_version};
use super::matchers::{LabelPattern, LabelSelector, Section, WILDCARD};
use super::resource::{self, Header};
use crate::model::{Endpoint, Labels, ServiceName, Traits};
use serde_json::json;
use std::collections::BTreeMap;

const VERSION: &str = "v3";
/// The one protocol that is spoken.
const PROTOCOL: &str = "postgres";
const DEFAULT_PORT: u16 = 5432;
/// Bytes of `ca_cert`: more than ten certificates of a usual size.
const MAX_CA_BYTES: usize = 64 * 1024;
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// Regular expressions of one matcher; with the size of each it bounds its memory at 16 MiB.
const MAX_MATCHER_REGEXES: usize = 64;

const FIELDS_NOT_ENFORCED: &[&str] = &[
    "ad",
    "admin_user",
    "aws",
    "azure",
    "gcp",
    "mongo_atlas",
    "mysql",
    "oracle",
];

/// How PostgreSQL's certificate is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DatabaseTlsMode {
    /// The authority and the name.
    #[default]
    VerifyFull,
    /// The authority.
    VerifyCa,
    Insecure,
}

impl DatabaseTlsMode {
    const ALL: [(Self, &'static str); 3] = [
        (Self::VerifyFull, "verify-full"),
        (Self::VerifyCa, "verify-ca"),
        (Self::Insecure, "insecure"),
    ];

    pub fn from_label(label: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == label);
        found.map(|(mode, _)| *mode)
    }

    pub fn label(self) -> &'static str {
        let found = Self::ALL.iter().find(|(mode, _)| *mode == self);
        found.map_or("verify-full", |(_, label)| label)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseTls {
    pub mode: DatabaseTlsMode,
    /// In PEM. Without it the cluster's own authority counts.
    pub ca_cert: Option<String>,
    /// The name in PostgreSQL's certificate, where it is not the host of the `uri`.
    pub server_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseResource {
    pub name: ServiceName,
    pub description: Option<String>,
    pub labels: Labels,
    pub endpoint: Endpoint,
    pub tls: DatabaseTls,
}

impl DatabaseResource {
    pub(super) const KIND: &'static str = "db";

    /// Reads one database.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse_yaml(text: &str) -> Result<Self, ResourceError> {
        let documents = read_yaml(text)?;
        Self::from_node(resource::only_document(&documents, Self::KIND)?)
    }

    /// Reads one database from the form that `Resource::to_json` writes.
    pub fn from_json(text: &str) -> Result<Self, ResourceError> {
        Self::from_node(&read_json(text)?)
    }

    pub(super) fn from_node(node: &Node) -> Result<Self, ResourceError> {
        let header = Header::read(node, Self::KIND)?;
        let name = ServiceName::new(header.name).map_err(|e| bad_name("metadata.name", e, header.name_at))?;
        Self::from_header(&header, name).map_err(|error| error.about(Self::KIND, header.name))
    }

    fn from_header(header: &Header<'_>, name: ServiceName) -> Result<Self, ResourceError> {
        header.check_keys()?;
        if header.version != VERSION {
            return Err(unknown_version(Self::KIND, header.version, VERSION, header.version_at));
        }
        let spec = Fields::of(header.document.require("spec")?, "spec")?;
        refuse_dynamic_labels(&spec)?;
        spec.only(&["protocol", "uri", "tls"], "field", FIELDS_NOT_ENFORCED)?;
        let protocol = spec.require("protocol")?;
        let spoken = text(protocol, "spec.protocol")?;
        if spoken != PROTOCOL {
            let reason = "it is not a protocol of this version; it speaks postgres";
            return Err(bad_value("spec.protocol", spoken, reason, protocol.at));
        }
        Ok(Self {
            name,
            description: header.description.map(str::to_owned),
            labels: header.labels()?,
            endpoint: read_uri(&spec)?,
            tls: spec
                .mapping("tls")?
                .map_or_else(|| Ok(DatabaseTls::default()), |fields| DatabaseTls::read(&fields))?,
        })
    }

    pub(super) fn to_value(&self) -> serde_json::Value {
        let mut spec = json!({ "protocol": PROTOCOL, "uri": self.endpoint.to_string() });
        if self.tls != DatabaseTls::default() {
            spec["tls"] = self.tls.to_value();
        }
        json!({
            "kind": Self::KIND,
            "version": VERSION,
            "metadata": resource::metadata(self.name.as_str(), self.description.as_deref(), &self.labels),
            "spec": spec,
        })
    }
}

impl DatabaseTls {
    fn read(fields: &Fields<'_>) -> Result<Self, ResourceError> {
        fields.only(
            &["mode", "ca_cert", "server_name"],
            "field",
            &["trust_system_cert_pool"],
        )?;
        let mode = match fields.get("mode") {
            None => DatabaseTlsMode::default(),
            Some(node) => {
                let place = fields.below("mode");
                let value = text(node, &place)?;
                let reason = "it is not a mode; there are verify-full, verify-ca and insecure";
                DatabaseTlsMode::from_label(value).ok_or_else(|| bad_value(&place, value, reason, node.at))?
            }
        };
        let ca_cert = match fields.get("ca_cert") {
            None => None,
            Some(node) => {
                let place = fields.below("ca_cert");
                let pem = text_within(node, &place, MAX_CA_BYTES)?;
                if !pem.contains(PEM_BEGIN) {
                    let shown: String = pem.chars().take(32).collect();
                    let reason = "it holds no certificate in PEM; give the text of the file, not its path";
                    return Err(bad_value(&place, &shown, reason, node.at));
                }
                Some(pem.to_owned())
            }
        };
        let server_name = fields.text("server_name")?.filter(|name| !name.is_empty());
        Ok(Self {
            mode,
            ca_cert,
            server_name: server_name.map(str::to_owned),
        })
    }

    fn to_value(&self) -> serde_json::Value {
        let mut value = json!({ "mode": self.mode.label() });
        for (key, text) in [("ca_cert", &self.ca_cert), ("server_name", &self.server_name)] {
            if let Some(text) = text {
                value[key] = text.as_str().into();
            }
        }
        value
    }
}

/// A resource would make the agent run what its writer likes.
fn refuse_dynamic_labels(spec: &Fields<'_>) -> Result<(), ResourceError> {
    const KEY: &str = "dynamic_labels";
    let Some(node) = spec.get(KEY) else {
        return Ok(());
    };
    let problem = Problem::UnknownKey {
        key: KEY.to_owned(),
        place: spec.place.clone(),
        advice: "commands run on the agent's machine, so an agent takes them from its own configuration file only; use labels \
                 here, or put the database into that file"
            .to_owned(),
    };
    Err(ResourceError::new(problem).at(node.at))
}

/// `host:port` or `postgres://host:port`; the port may be left out.
fn read_uri(spec: &Fields<'_>) -> Result<Endpoint, ResourceError> {
    let node = spec.require("uri")?;
    let place = spec.below("uri");
    let uri = text(node, &place)?;
    // What stands before an `@` may be a password, so it is not repeated.
    let shown = uri.rsplit_once('@').map_or(uri, |(_, after)| after);
    parse_uri(uri).map_err(|reason| bad_value(&place, shown, reason, node.at))
}

fn parse_uri(uri: &str) -> Result<Endpoint, &'static str> {
    let rest = match uri.split_once("://") {
        Some(("postgres" | "postgresql", rest)) => rest.strip_suffix('/').unwrap_or(rest),
        Some(_) => return Err("it must be host:port or postgres://host:port"),
        None => uri,
    };
    if rest.contains(['@', '/', '?', '#']) {
        return Err("it holds more than host and port; user, database and options are the client's to give");
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or("a [ is not closed")?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| "only an IPv6 address stands in brackets")?;
            match after {
                "" => (host, None),
                after => (
                    host,
                    Some(after.strip_prefix(':').ok_or("after ] a :port is expected")?),
                ),
            }
        }
        None => match rest.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address stands in brackets, as in [::1]:5432");
            }
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(allowed) {
        return Err("it names no host; write host:port");
    }
    let port = port.map_or(Ok(DEFAULT_PORT), str::parse);
    match port {
        Ok(port) if port > 0 => Ok(Endpoint {
            host: host.to_owned(),
            port,
        }),
        _ => Err("a port is a number from 1 to 65535"),
    }
}

/// One entry of `db_service.resources`: which registered databases an agent serves. All keys must match, each by any of its
/// values; `'*': '*'` matches all, no key nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceMatcher(LabelSelector);

impl ResourceMatcher {
    /// # Errors
    /// What is wrong with a value: a template (there is no person), an expression that does not compile, too many of them.
    pub fn new(labels: &BTreeMap<String, Vec<String>>) -> Result<Self, String> {
        let mut selector = LabelSelector::default();
        for (key, values) in labels {
            if key == WILDCARD && !matches!(values.as_slice(), [only] if only == WILDCARD) {
                return Err("the key \"*\" goes with the one value \"*\" only; name the key".to_owned());
            }
            let patterns = values.iter().map(|value| Self::pattern(key, value));
            selector.0.insert(key.clone(), patterns.collect::<Result<_, _>>()?);
        }
        let regexes: usize = selector.0.values().flatten().map(LabelPattern::regexes).sum();
        if regexes > MAX_MATCHER_REGEXES {
            return Err(format!(
                "it has {regexes} regular expressions; at most {MAX_MATCHER_REGEXES} are allowed"
            ));
        }
        Ok(Self(selector))
    }

    fn pattern(key: &str, value: &str) -> Result<LabelPattern, String> {
        let pattern =
            LabelPattern::parse(value).map_err(|reason| format!("label {key:?}, value {value:?}: {reason}"))?;
        if pattern.is_template() {
            return Err(format!(
                "label {key:?}, value {value:?}: a template stands for a person's traits, and there is no person here; write \
                 the value"
            ));
        }
        Ok(pattern)
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.check(labels, &Traits::new(), Section::Allow).is_ok()
    }
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;

//! From the tree to the sections of the three services.

use super::address::{ListenAddr, is_dns_name};
use super::error::ConfigError;
use super::file::{Node, Value};
use super::resolve::absolute_path;
use super::secret_file::StaticToken;
use super::section::{Section, Text};
use super::{
    AcmeConfig, AuthConfig, DEFAULT_AUTH_PORT, DEFAULT_POLICY_MAX_AGE, DEFAULT_WEB_PORT, DatabaseConfig, DbConfig,
    DbProtocol, DbTls, KeyPair, MAX_POLICY_MAX_AGE, MIN_POLICY_MAX_AGE, ProxyConfig, keys,
};
use crate::model::Endpoint;
use crate::model::{ClusterName, Labels, NodeName, ServiceName};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Shown beside a database's name; longer texts break the table of `db ls`.
const MAX_DESCRIPTION_BYTES: usize = 512;

/// Resolves `auth_service`; `None` when it says `enabled: no`. What a disabled section says is checked all the same.
pub(super) fn auth(node: Node, nodename: &NodeName) -> Result<Option<AuthConfig>, ConfigError> {
    let mut section = Section::open(node, "auth_service", &keys::AUTH)?;
    let enabled = section.flag("enabled")?.unwrap_or(true);
    let cluster_name = match section.text("cluster_name", "a name")? {
        Some(text) => text.read(str::parse::<ClusterName>)?,
        None => ClusterName::new(nodename.as_str())
            .map_err(|error| section.missing("cluster_name", format!("the node's name cannot be used ({error})")))?,
    };
    let tokens = section.texts("tokens", "a list of kinds:secret")?;
    let config = AuthConfig {
        cluster_name,
        listen_addr: listen_addr(&mut section, "listen_addr", DEFAULT_AUTH_PORT)?,
        tokens: tokens
            .iter()
            .map(|text| text.read(StaticToken::parse))
            .collect::<Result<_, _>>()?,
        policy_max_age: policy_max_age(&mut section)?,
    };
    Ok(enabled.then_some(config))
}

fn policy_max_age(section: &mut Section) -> Result<Duration, ConfigError> {
    let Some(text) = section.text("policy_max_age", "a duration such as 5m")? else {
        return Ok(DEFAULT_POLICY_MAX_AGE);
    };
    let age = text.read(parse_duration)?;
    if (MIN_POLICY_MAX_AGE..=MAX_POLICY_MAX_AGE).contains(&age) {
        Ok(age)
    } else {
        Err(text.refuse(format!("{:?} is not between 10s and 1h", text.value)))
    }
}

/// Reads `90s`, `5m`, `1h30m`: whole numbers with a unit each.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write for example 30s, 5m or 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u32 = rest[..unit_at].parse().map_err(|_| bad())?;
        let unit_and_rest = &rest[unit_at..];
        let next = unit_and_rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit_and_rest.len());
        let seconds = match &unit_and_rest[..next] {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            _ => return Err(bad()),
        };
        total += Duration::from_secs(u64::from(number) * seconds);
        rest = &unit_and_rest[next..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

/// Resolves `proxy_service`; `None` when it says `enabled: no`.
pub(super) fn proxy(node: Node) -> Result<Option<ProxyConfig>, ConfigError> {
    let mut section = Section::open(node, "proxy_service", &keys::PROXY)?;
    let enabled = section.flag("enabled")?.unwrap_or(true);
    let web_listen_addr = listen_addr(&mut section, "web_listen_addr", DEFAULT_WEB_PORT)?;
    // A public address without a port has that of the listener, also where the system chooses it.
    let port = web_listen_addr.port;
    let public_addr = section
        .texts("public_addr", "an address host:port or a list of them")?
        .iter()
        .map(|text| text.read(|value| Endpoint::parse(value, port)))
        .collect::<Result<_, _>>()?;
    let config = ProxyConfig {
        web_listen_addr,
        public_addr,
        https_keypairs: keypairs(&mut section)?,
        acme: acme(&mut section)?,
    };
    Ok(enabled.then_some(config))
}

fn keypairs(section: &mut Section) -> Result<Vec<KeyPair>, ConfigError> {
    let entries = match section.take("https_keypairs") {
        None => return Ok(Vec::new()),
        Some(Node {
            value: Value::List(entries),
            ..
        }) => entries,
        Some(other) => {
            return Err(other.wrong_type("https_keypairs in proxy_service", "a list of cert_file and key_file"));
        }
    };
    entries.into_iter().map(keypair).collect()
}

fn keypair(node: Node) -> Result<KeyPair, ConfigError> {
    let mut pair = Section::open(node, "an entry of https_keypairs", &keys::KEYPAIR)?;
    let mut path = |key: &'static str| match pair.text(key, "a path")? {
        Some(text) => absolute_path(&text),
        None => Err(pair.missing(key, "a certificate is of no use without its key")),
    };
    Ok(KeyPair {
        cert_file: path("cert_file")?,
        key_file: path("key_file")?,
    })
}

/// Off unless it says `enabled: yes`, as in Teleport: a file may keep the e-mail address of an issuer that it does not use.
fn acme(section: &mut Section) -> Result<Option<AcmeConfig>, ConfigError> {
    let name = section.subject("acme");
    let Some(node) = section.take("acme") else {
        return Ok(None);
    };
    let mut acme = Section::open(node, &name, &keys::ACME)?;
    let enabled = acme.flag("enabled")?.unwrap_or(false);
    let email = acme.text("email", "an e-mail address")?;
    if let Some(text) = &email
        && (!text.value.contains('@') || text.value.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        return Err(text.refuse(format!("{:?} is not an e-mail address", text.value)));
    }
    let uri = acme.text("uri", "an https:// address")?;
    if let Some(text) = uri.as_ref().filter(|text| !text.value.starts_with("https://")) {
        return Err(text.refuse(format!("{:?} must begin with https://", text.value)));
    }
    let config = AcmeConfig {
        email: email.map(|text| text.value),
        uri: uri.map(|text| text.value),
    };
    Ok(enabled.then_some(config))
}

fn listen_addr(section: &mut Section, key: &str, default_port: u16) -> Result<ListenAddr, ConfigError> {
    match section.text(key, "an address host:port")? {
        Some(text) => text.read(|value| ListenAddr::parse(value, default_port)),
        None => Ok(ListenAddr::any_v4(default_port)),
    }
}

/// Resolves `db_service`; `None` when it says `enabled: no`.
pub(super) fn db(node: Node) -> Result<Option<DbConfig>, ConfigError> {
    let mut section = Section::open(node, "db_service", &keys::DB)?;
    let enabled = section.flag("enabled")?.unwrap_or(true);
    let entries = match section.take("databases") {
        None => Vec::new(),
        Some(Node {
            value: Value::List(entries),
            ..
        }) => entries,
        Some(other) => {
            return Err(other.wrong_type("databases in db_service", "a list of databases"));
        }
    };
    let mut databases: Vec<DatabaseConfig> = Vec::with_capacity(entries.len());
    let mut lines: BTreeMap<ServiceName, u64> = BTreeMap::new();
    for entry in entries {
        let place = entry.place.clone();
        let database = database(entry)?;
        if let Some(first_line) = lines.insert(database.name.clone(), place.line) {
            return Err(ConfigError::DuplicateDatabase {
                place,
                name: database.name.to_string(),
                first_line,
            });
        }
        databases.push(database);
    }
    if enabled && databases.is_empty() {
        return Err(section.missing(
            "databases",
            "a database service without a database has nothing to serve",
        ));
    }
    Ok(enabled.then_some(DbConfig { databases }))
}

fn database(node: Node) -> Result<DatabaseConfig, ConfigError> {
    let mut section = Section::open(node, "an entry of databases", &keys::DATABASE)?;
    let name = match section.text("name", "a name")? {
        Some(text) => text.read(str::parse::<ServiceName>)?,
        None => return Err(section.missing("name", "people connect to a database by its name")),
    };
    section.name = format!("database {name:?}");
    let uri = match section.text("uri", "an address host:port")? {
        Some(text) => text.read(Endpoint::parse_database_uri)?,
        None => {
            return Err(section.missing("uri", "it is where PostgreSQL listens, for example db.example.com:5432"));
        }
    };
    Ok(DatabaseConfig {
        name,
        description: description(&mut section)?,
        protocol: protocol(&mut section)?,
        uri,
        static_labels: static_labels(&mut section)?,
        tls: database_tls(&mut section)?,
    })
}

fn description(section: &mut Section) -> Result<String, ConfigError> {
    match section.text("description", "a text")? {
        None => Ok(String::new()),
        Some(text) if text.value.len() > MAX_DESCRIPTION_BYTES => {
            Err(text.refuse(format!("it is longer than {MAX_DESCRIPTION_BYTES} bytes")))
        }
        Some(text) if text.value.chars().any(char::is_control) => {
            Err(text.refuse("it must be one line without control characters"))
        }
        Some(text) => Ok(text.value),
    }
}

fn protocol(section: &mut Section) -> Result<DbProtocol, ConfigError> {
    match section.text("protocol", "postgres")? {
        None => Err(section.missing("protocol", "say `protocol: postgres`")),
        Some(text) if text.value == "postgres" => Ok(DbProtocol::Postgres),
        Some(text) => Err(text.refuse(format!("{:?} is not supported; Postern speaks postgres", text.value))),
    }
}

fn static_labels(section: &mut Section) -> Result<Labels, ConfigError> {
    let subject = section.subject("static_labels");
    let entries = match section.take("static_labels") {
        None => return Ok(Labels::default()),
        Some(Node {
            value: Value::Map(entries),
            ..
        }) => entries,
        Some(other) => return Err(other.wrong_type(&subject, "labels written key: value")),
    };
    let mut labels = BTreeMap::new();
    for (key, value) in entries {
        let text = value.into_text(&subject, "labels written key: value")?;
        if key.name.trim().is_empty() {
            return Err(text.refuse("a label must have a key"));
        }
        labels.insert(key.name, text.value);
    }
    Ok(Labels(labels))
}

fn database_tls(section: &mut Section) -> Result<DbTls, ConfigError> {
    let name = section.subject("tls");
    let Some(node) = section.take("tls") else {
        return Ok(DbTls::default());
    };
    let mut tls = Section::open(node, &name, &keys::DATABASE_TLS)?;
    if let Some(text) = tls.text("mode", "verify-full")? {
        check_tls_mode(&text)?;
    }
    let server_name = match tls.text("server_name", "a host name")? {
        Some(text) if text.value.parse::<IpAddr>().is_ok() || is_dns_name(&text.value) => Some(text.value),
        Some(text) => return Err(text.refuse(format!("{:?} is not a host name", text.value))),
        None => None,
    };
    let ca_cert_file = tls
        .text("ca_cert_file", "a path")?
        .map(|text| absolute_path(&text))
        .transpose()?;
    Ok(DbTls {
        server_name,
        ca_cert_file,
    })
}

fn check_tls_mode(text: &Text) -> Result<(), ConfigError> {
    match text.value.as_str() {
        "verify-full" => Ok(()),
        "verify-ca" | "insecure" => Err(text.refuse(format!(
            "{:?} is not supported by this version of Postern; it verifies chain and name (verify-full), and server_name says \
             which name the certificate has",
            text.value
        ))),
        other => Err(text.refuse(format!("{other:?} is not a mode; there is verify-full"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn the_age_of_the_policy_has_a_unit_and_limits() {
        let age = |text: &str| {
            let config = Config::parse(&format!("auth_service: {{policy_max_age: {text}}}"), "x");
            config.map(|config| config.auth.map(|auth| auth.policy_max_age))
        };
        assert_eq!(age("1m30s").expect("valid"), Some(Duration::from_secs(90)));
        for bad in [
            "300",
            "5 m",
            "m",
            "99999999999h",
            "4294967295h",
            "1s",
            "2h",
            "-5m",
            "5µ",
        ] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }
}

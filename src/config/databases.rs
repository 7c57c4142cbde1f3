//! From the tree to the section of the database service.

use super::address::is_dns_name;
use super::error::ConfigError;
use super::file::{Node, Value};
use super::resolve::absolute_path;
use super::section::Section;
use super::{DatabaseConfig, DbConfig, DbProtocol, DbTls, DynamicLabel, ServerCertificateConfig, keys, services};
use crate::model::{Endpoint, Labels, ServiceName};
use crate::policy::{DatabaseTlsMode, ResourceMatcher};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Shown beside a database's name; longer texts break the table of `db ls`.
const MAX_DESCRIPTION_BYTES: usize = 512;
/// Commands of one database; each is a process every period.
const MAX_DYNAMIC_LABELS: usize = 16;
/// A program with more arguments than this is a script, and belongs into a file.
const MAX_COMMAND_WORDS: usize = 64;
/// Below this the agent would do little else than start processes.
const MIN_LABEL_PERIOD: Duration = Duration::from_secs(1);
/// Three months, the reference's for such certificates.
const DEFAULT_SERVER_TTL: Duration = Duration::from_secs(2190 * 3600);
/// Half of it is the time that auth may be away without harm.
const MIN_SERVER_TTL: Duration = Duration::from_secs(3600);
/// What auth signs at most for an agent.
const MAX_SERVER_TTL: Duration = Duration::from_secs(2400 * 3600);
const DEFAULT_LABEL_PERIOD: Duration = Duration::from_secs(60);

/// Resolves `db_service`; `None` when it says `enabled: no`.
pub(super) fn db_service(node: Node) -> Result<Option<DbConfig>, ConfigError> {
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
    let resources = resources(&mut section)?;
    if enabled && databases.is_empty() && resources.is_empty() {
        return Err(section.missing(
            "databases",
            "a database service without a database has nothing to serve; or say with `resources` which registered ones",
        ));
    }
    Ok(enabled.then_some(DbConfig { databases, resources }))
}

/// The matchers of registered databases.
fn resources(section: &mut Section) -> Result<Vec<ResourceMatcher>, ConfigError> {
    let entries = match section.take("resources") {
        None => return Ok(Vec::new()),
        Some(Node {
            value: Value::List(entries),
            ..
        }) => entries,
        Some(other) => return Err(other.wrong_type(&section.subject("resources"), "a list of labels")),
    };
    entries
        .into_iter()
        .map(|entry| {
            let mut entry = Section::open(entry, "an entry of resources", &keys::RESOURCE_MATCHER)?;
            let place = entry.place.clone();
            let subject = entry.subject("labels");
            let labels = match entry.take("labels") {
                Some(Node {
                    value: Value::Map(labels),
                    ..
                }) if !labels.is_empty() => labels,
                None
                | Some(Node {
                    value: Value::Map(_), ..
                }) => {
                    return Err(entry.missing("labels", "without any it matches no database; '*': '*' matches all"));
                }
                Some(other) => return Err(other.wrong_type(&subject, "labels written key: value")),
            };
            let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (key, value) in labels {
                wanted.insert(key.name, values(value, &subject)?);
            }
            ResourceMatcher::new(&wanted).map_err(|reason| ConfigError::BadValue { place, subject, reason })
        })
        .collect()
}

/// A value or a list of values of a label.
fn values(node: Node, subject: &str) -> Result<Vec<String>, ConfigError> {
    match node {
        Node {
            value: Value::List(items),
            ..
        } => items
            .into_iter()
            .map(|item| {
                item.into_text(subject, "a value or a list of them")
                    .map(|text| text.value)
            })
            .collect(),
        node => Ok(vec![node.into_text(subject, "a value or a list of them")?.value]),
    }
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
    let static_labels = static_labels(&mut section)?;
    let tls = database_tls(&mut section)?;
    let server_certificate = server_certificate(&mut section, &uri, &tls)?;
    Ok(DatabaseConfig {
        name,
        description: description(&mut section)?,
        protocol: protocol(&mut section)?,
        uri,
        server_certificate,
        tls,
        dynamic_labels: dynamic_labels(&mut section, &static_labels)?,
        static_labels,
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

/// Labels whose values are what commands print.
fn dynamic_labels(section: &mut Section, fixed: &Labels) -> Result<Vec<DynamicLabel>, ConfigError> {
    let subject = section.subject("dynamic_labels");
    let place = section.place.clone();
    let entries = match section.take("dynamic_labels") {
        None => return Ok(Vec::new()),
        Some(Node {
            value: Value::List(entries),
            ..
        }) => entries,
        Some(other) => return Err(other.wrong_type(&subject, "a list of name, command and period")),
    };
    if entries.len() > MAX_DYNAMIC_LABELS {
        return Err(ConfigError::BadValue {
            place,
            subject,
            reason: format!("there are {}; at most {MAX_DYNAMIC_LABELS} are run", entries.len()),
        });
    }
    let mut labels: Vec<DynamicLabel> = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut entry = Section::open(entry, &format!("an entry of {subject}"), &keys::DYNAMIC_LABEL)?;
        let name = entry
            .text("name", "a label's key")?
            .ok_or_else(|| entry.missing("name", "it is the label's key"))?;
        if name.value.trim().is_empty() {
            return Err(name.refuse("a label must have a key"));
        }
        if fixed.get(&name.value).is_some() {
            return Err(name.refuse(format!(
                "{:?} is a static label of this database, too; a label has one value",
                name.value
            )));
        }
        if labels.iter().any(|other| other.name == name.value) {
            return Err(name.refuse(format!("{:?} stands there twice", name.value)));
        }
        labels.push(DynamicLabel {
            command: command(&mut entry, "command")?
                .ok_or_else(|| entry.missing("command", "its output is the label's value"))?,
            period: period(&mut entry)?,
            name: name.value,
        });
    }
    Ok(labels)
}

/// A program with its arguments. No shell reads it, so a program that is looked for in a PATH is one that somebody else may choose.
fn command(section: &mut Section, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
    let words = section.texts(key, "a list: the program and its arguments")?;
    if words.len() > MAX_COMMAND_WORDS {
        return Err(words[MAX_COMMAND_WORDS].refuse(format!("it has more than {MAX_COMMAND_WORDS} words")));
    }
    match words.first() {
        None => Ok(None),
        Some(program) if program.value.trim().is_empty() => Err(program.refuse("the program has no name")),
        Some(program) if words.len() == 1 && program.value.contains(char::is_whitespace) => Err(program.refuse(
            "no shell reads it; write program and arguments as a list, as in [\"/usr/bin/stat\", \"-c\", \"%Y\", \"/etc/hosts\"]",
        )),
        Some(_) => Ok(Some(words.into_iter().map(|word| word.value).collect())),
    }
}

fn period(section: &mut Section) -> Result<Duration, ConfigError> {
    let Some(text) = section.text("period", "a duration such as 1m")? else {
        return Ok(DEFAULT_LABEL_PERIOD);
    };
    let period = text.read(services::parse_duration)?;
    if period < MIN_LABEL_PERIOD {
        return Err(text.refuse(format!("{:?} is shorter than 1s, the least", text.value)));
    }
    Ok(period)
}

fn database_tls(section: &mut Section) -> Result<DbTls, ConfigError> {
    let name = section.subject("tls");
    let Some(node) = section.take("tls") else {
        return Ok(DbTls::default());
    };
    let mut tls = Section::open(node, &name, &keys::DATABASE_TLS)?;
    let mode = match tls.text("mode", "verify-full, verify-ca or insecure")? {
        None => DatabaseTlsMode::default(),
        Some(text) => DatabaseTlsMode::from_label(&text.value).ok_or_else(|| {
            text.refuse(format!(
                "{:?} is not a mode; there are verify-full (chain and name), verify-ca (chain only) and insecure (nothing)",
                text.value
            ))
        })?,
    };
    let server_name = match tls.text("server_name", "a host name")? {
        Some(text) if text.value.parse::<IpAddr>().is_ok() || is_dns_name(&text.value) => Some(text.value),
        Some(text) => return Err(text.refuse(format!("{:?} is not a host name", text.value))),
        None => None,
    };
    let ca_cert_file = tls
        .text("ca_cert_file", "a path")?
        .map(|text| match mode {
            DatabaseTlsMode::Insecure => Err(text.refuse(
                "with mode: insecure no authority is looked at; remove one of the two (verify-ca checks the authority and not the name)",
            )),
            _ => absolute_path(&text),
        })
        .transpose()?;
    Ok(DbTls {
        mode,
        server_name,
        ca_cert_file,
    })
}

fn server_certificate(
    section: &mut Section,
    uri: &Endpoint,
    tls: &DbTls,
) -> Result<Option<ServerCertificateConfig>, ConfigError> {
    let name = section.subject("server_certificate");
    let Some(node) = section.take("server_certificate") else {
        return Ok(None);
    };
    let place = node.place.clone();
    let mut entry = Section::open(node, &name, &keys::SERVER_CERTIFICATE)?;
    if tls.ca_cert_file.is_some() {
        return Err(ConfigError::BadValue {
            place,
            subject: name,
            reason: "the certificate is of the cluster's authority, and tls.ca_cert_file says to believe another; remove one of \
                     the two"
                .to_owned(),
        });
    }
    let out = match entry.text("out", "a path without an ending")? {
        Some(text) => absolute_path(&text)?,
        None => return Err(entry.missing("out", "it is where the files go: OUT.key, OUT.crt and OUT.cas")),
    };
    let mut own = vec![uri.host.trim_matches(['[', ']']).to_owned()];
    own.extend(tls.server_name.clone());
    let mut hosts = Vec::new();
    for text in entry.texts("hosts", "a host name or a list of them")? {
        if !own.iter().any(|host| host.eq_ignore_ascii_case(&text.value)) {
            return Err(text.refuse(format!(
                "{:?} is neither the host of uri nor tls.server_name, and auth signs an agent's database for those only",
                text.value
            )));
        }
        hosts.push(text.value);
    }
    if hosts.is_empty() {
        hosts = own.split_off(own.len() - 1);
    }
    let ttl = match entry.text("ttl", "a duration such as 2190h")? {
        None => DEFAULT_SERVER_TTL,
        Some(text) => {
            let ttl = text.read(services::parse_duration)?;
            if !(MIN_SERVER_TTL..=MAX_SERVER_TTL).contains(&ttl) {
                return Err(text.refuse(format!("{:?} is not between 1h and 2400h", text.value)));
            }
            ttl
        }
    };
    Ok(Some(ServerCertificateConfig {
        out,
        hosts,
        ttl,
        reload_command: command(&mut entry, "reload_command")?.unwrap_or_default(),
        owner: entry.text("owner", "an account of the system")?.map(|text| text.value),
    }))
}

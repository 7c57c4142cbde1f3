//! From the tree to [`Config`]: the whole file, and the part about the process.

use super::error::{ConfigError, Place};
use super::file::{Node, Value};
use super::secret_file::{PinSource, TokenSource};
use super::section::{Section, Text};
use super::{
    Config, DEFAULT_AUTH_PORT, DEFAULT_DATA_DIR, DEFAULT_DIAG_PORT, DEFAULT_SHUTDOWN_GRACE, DEFAULT_WEB_PORT,
    JoinAddress, ListenAddr, LogConfig, LogFormat, LogOutput, MAX_SHUTDOWN_GRACE, MAX_WORKER_THREADS, Severity,
    Version, databases, keys, services,
};
use crate::model::Endpoint;
use crate::model::NodeName;
use std::path::PathBuf;
use std::time::Duration;

/// Where Linux says the machine's name.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

/// Resolves the whole file.
pub(super) fn config(root: Node) -> Result<Config, ConfigError> {
    let mut file = Section::open(root, "the file", &keys::FILE)?;
    let version = version(&mut file)?;
    for service in keys::FOREIGN_SERVICES {
        refuse_foreign(&mut file, service)?;
    }
    let mut process = process_section(&mut file)?;
    let nodename = nodename(&mut process)?;
    let data_dir = path(&mut process, "data_dir")?.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
    let pid_file = path(&mut process, "pid_file")?;
    let auth_token = process
        .text("auth_token", "a token or the path of a file")?
        .map(|text| TokenSource::new(&text.value));
    let ca_pins = ca_pins(&mut process)?;
    let join = join(&mut process, version)?;
    let log = log(&mut process)?;
    let diag_addr = diag_addr(&mut process)?;
    let shutdown_grace = shutdown_grace(&mut process)?;
    let worker_threads = worker_threads(&mut process)?;
    let auth = match file.take("auth_service") {
        Some(node) => services::auth(node, &nodename)?,
        None => None,
    };
    let proxy = file.take("proxy_service").map(services::proxy).transpose()?.flatten();
    let db = file
        .take("db_service")
        .map(databases::db_service)
        .transpose()?
        .flatten();
    if auth.is_none() && proxy.is_none() && db.is_none() {
        let place = Place::whole(&file.place.origin);
        return Err(ConfigError::NoService { place });
    }
    if auth.is_none() {
        require_join(&process, version, join.as_ref(), proxy.is_some())?;
    }
    Ok(Config {
        version,
        nodename,
        data_dir,
        pid_file,
        auth_token,
        ca_pins,
        join,
        log,
        diag_addr,
        shutdown_grace,
        worker_threads,
        auth,
        proxy,
        db,
    })
}

fn version(file: &mut Section) -> Result<Version, ConfigError> {
    let Some(text) = file.text("version", "v1, v2 or v3")? else {
        return Ok(Version::V1);
    };
    match text.value.as_str() {
        "v1" => Ok(Version::V1),
        "v2" => Ok(Version::V2),
        "v3" => Ok(Version::V3),
        other => Err(text.refuse(format!("there is no version {other:?}; there are v1, v2 and v3"))),
    }
}

fn refuse_foreign(file: &mut Section, service: &str) -> Result<(), ConfigError> {
    let Some(node) = file.take(service) else {
        return Ok(());
    };
    let refusal = ConfigError::ForeignService {
        place: node.place.clone(),
        service: service.to_owned(),
    };
    let only_enabled = match &node.value {
        Value::Map(entries) => entries.iter().all(|(key, _)| key.name == "enabled"),
        _ => false,
    };
    if !only_enabled {
        return Err(refusal);
    }
    let mut section = Section::open(node, service, &keys::FOREIGN_SERVICE)?;
    match section.flag("enabled")? {
        Some(false) => Ok(()),
        _ => Err(refusal),
    }
}

fn process_section(file: &mut Section) -> Result<Section, ConfigError> {
    let empty = Node {
        place: file.place.clone(),
        value: Value::Null,
    };
    match (file.take("teleport"), file.take("postern")) {
        (Some(_), Some(second)) => Err(ConfigError::BadValue {
            place: second.place,
            subject: "postern in the file".to_owned(),
            reason: "`teleport` and `postern` are two names of one section; keep one of them".to_owned(),
        }),
        (Some(node), None) => Section::open(node, "teleport", &keys::PROCESS),
        (None, Some(node)) => Section::open(node, "postern", &keys::PROCESS),
        (None, None) => Section::open(empty, "postern", &keys::PROCESS),
    }
}

fn nodename(process: &mut Section) -> Result<NodeName, ConfigError> {
    if let Some(text) = process.text("nodename", "a name")? {
        return text.read(str::parse::<NodeName>);
    }
    std::fs::read_to_string(HOSTNAME_FILE)
        .map_err(|error| error.to_string())
        .and_then(|name| NodeName::new(name.trim()).map_err(|error| error.to_string()))
        .map_err(|why| process.missing("nodename", format!("the machine's own name cannot be used ({why})")))
}

fn path(process: &mut Section, key: &str) -> Result<Option<PathBuf>, ConfigError> {
    let Some(text) = process.text(key, "a path")? else {
        return Ok(None);
    };
    absolute_path(&text).map(Some)
}

/// A path that means the same whatever directory the process was started in.
pub(super) fn absolute_path(text: &Text) -> Result<PathBuf, ConfigError> {
    if text.value.starts_with('/') && !text.value.contains('\0') {
        Ok(PathBuf::from(&text.value))
    } else {
        Err(text.refuse(format!("{:?} must be an absolute path, beginning with /", text.value)))
    }
}

fn ca_pins(process: &mut Section) -> Result<Vec<PinSource>, ConfigError> {
    let pins = process.texts("ca_pin", "a pin, a list of pins or the path of a file")?;
    pins.iter().map(|text| text.read(PinSource::parse)).collect()
}

/// Version 3 has `auth_server` or `proxy_server`; versions 1 and 2 have the list `auth_servers`.
fn join(process: &mut Section, version: Version) -> Result<Option<JoinAddress>, ConfigError> {
    let auth_server = process.text("auth_server", "an address host:port")?;
    let proxy_server = process.text("proxy_server", "an address host:port")?;
    let auth_servers = process.texts("auth_servers", "an address host:port or a list of them")?;
    let wrong_version = if version == Version::V3 {
        auth_servers
            .first()
            .map(|text| (text, "version v3 has no auth_servers; use auth_server or proxy_server"))
    } else {
        auth_server
            .as_ref()
            .or(proxy_server.as_ref())
            .map(|text| (text, "this key needs `version: v3`; before that it is auth_servers"))
    };
    if let Some((text, reason)) = wrong_version {
        return Err(text.refuse(reason));
    }
    match (auth_server, proxy_server) {
        (Some(_), Some(proxy)) => {
            Err(proxy.refuse("auth_server and proxy_server exclude each other; keep one of them"))
        }
        (Some(auth), None) => Ok(Some(JoinAddress::Auth(vec![endpoint(&auth, DEFAULT_AUTH_PORT)?]))),
        (None, Some(proxy)) => Ok(Some(JoinAddress::Proxy(endpoint(&proxy, DEFAULT_WEB_PORT)?))),
        (None, None) if auth_servers.is_empty() => Ok(None),
        (None, None) => {
            let all = auth_servers.iter().map(|text| endpoint(text, DEFAULT_AUTH_PORT));
            Ok(Some(JoinAddress::Auth(all.collect::<Result<_, _>>()?)))
        }
    }
}

fn require_join(
    process: &Section,
    version: Version,
    join: Option<&JoinAddress>,
    proxy: bool,
) -> Result<(), ConfigError> {
    let key = match (version, proxy) {
        (Version::V3, true) => "auth_server",
        (Version::V3, false) => "proxy_server",
        _ => "auth_servers",
    };
    match join {
        None => Err(process.missing(
            key,
            "auth_service does not run in this process, so the node must know where its cluster is",
        )),
        Some(JoinAddress::Proxy(_)) if proxy => {
            Err(process.missing(key, "a proxy without auth_service joins at auth, not at another proxy"))
        }
        Some(_) => Ok(()),
    }
}

fn endpoint(text: &Text, default_port: u16) -> Result<Endpoint, ConfigError> {
    text.read(|value| Endpoint::parse(value, default_port))
}

fn diag_addr(process: &mut Section) -> Result<Option<ListenAddr>, ConfigError> {
    let text = process.text("diag_addr", "an address host:port")?;
    text.map(|text| text.read(|value| ListenAddr::parse(value, DEFAULT_DIAG_PORT)))
        .transpose()
}

fn shutdown_grace(process: &mut Section) -> Result<Duration, ConfigError> {
    let Some(text) = process.text("shutdown_grace", "a duration such as 30s")? else {
        return Ok(DEFAULT_SHUTDOWN_GRACE);
    };
    let grace = text.read(services::parse_duration)?;
    if grace <= MAX_SHUTDOWN_GRACE {
        Ok(grace)
    } else {
        Err(text.refuse(format!(
            "{:?} is more than 1h; to wait for sessions without hurry, stop the node with SIGQUIT",
            text.value
        )))
    }
}

fn worker_threads(process: &mut Section) -> Result<Option<usize>, ConfigError> {
    let text = process.text("worker_threads", "a number of threads")?;
    text.map(|text| match text.value.parse() {
        Ok(count @ 1..=MAX_WORKER_THREADS) => Ok(count),
        _ => Err(text.refuse(format!(
            "{:?} is not a number of threads: from 1, and as many as the machine has cores are enough; at most {MAX_WORKER_THREADS}",
            text.value
        ))),
    })
    .transpose()
}

fn log(process: &mut Section) -> Result<LogConfig, ConfigError> {
    let mut config = LogConfig {
        severity: Severity::Info,
        format: LogFormat::Text,
        output: LogOutput::Stderr,
    };
    let Some(node) = process.take("log") else {
        return Ok(config);
    };
    let mut log = Section::open(node, "log", &keys::LOG)?;
    if let Some(text) = log.text("severity", "a severity")? {
        config.severity = match text.value.to_ascii_lowercase().as_str() {
            "trace" => Severity::Trace,
            "debug" => Severity::Debug,
            "info" => Severity::Info,
            "warn" | "warning" => Severity::Warn,
            "error" | "err" => Severity::Error,
            other => {
                return Err(text.refuse(format!(
                    "{other:?} is not a severity; there are trace, debug, info, warn and error"
                )));
            }
        };
    }
    if let Some(text) = log.text("output", "stderr, stdout or the path of a file")? {
        config.output = match text.value.as_str() {
            "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            path if path.starts_with('/') && !path.ends_with('/') => LogOutput::File(path.into()),
            "syslog" => {
                return Err(text.refuse(
                    "\"syslog\" is not supported by this version of Postern; under systemd, the journal takes what is written to stderr"
                        .to_owned(),
                ));
            }
            other => {
                return Err(text.refuse(format!(
                    "{other:?} is not a place for the log; there are stderr, stdout and the path of a file, which begins with /"
                )));
            }
        };
    }
    if let Some(node) = log.take("format") {
        let mut format = Section::open(node, "log.format", &keys::LOG_FORMAT)?;
        if let Some(text) = format.text("output", "text or json")? {
            config.format = match text.value.as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                other => {
                    return Err(text.refuse(format!("{other:?} is not a format; there are text and json")));
                }
            };
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted_from_one_to_their_bound() {
        let threads = |text: &str| {
            let file = format!("postern: {{worker_threads: {text}}}\nauth_service: {{}}");
            Config::parse(&file, "/etc/postern.yaml").map(|config| config.worker_threads)
        };
        assert_eq!(threads("1").expect("the fewest"), Some(1));
        assert_eq!(threads("256").expect("the most"), Some(MAX_WORKER_THREADS));
        for bad in ["0", "257", "-1", "2.5", "many"] {
            let error = threads(bad).expect_err(bad).to_string();
            assert!(
                error.contains("worker_threads") && error.contains("at most 256"),
                "{error}"
            );
        }
    }
}

//! What the operator reads when the configuration is refused.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A position in a file: `/etc/postern.yaml:12:3`. Lines and columns count from 1; line 0 means the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub origin: Arc<str>,
    pub line: u64,
    pub column: u64,
}

impl Place {
    pub(super) fn whole(origin: &str) -> Self {
        Self {
            origin: origin.into(),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.origin)
        } else {
            write!(f, "{}:{}:{}", self.origin, self.line, self.column)
        }
    }
}

/// Why a configuration was refused. No variant holds the value of a token.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{origin}: the configuration is larger than {max} bytes; is this the right file?")]
    TooLarge { origin: String, max: u64 },
    #[error("{origin}: the configuration is not UTF-8 text; is this the right file?")]
    NotText { origin: String },
    #[error("{place}: not valid YAML: {message}")]
    Syntax { place: Place, message: String },
    #[error("the configuration cannot be written as YAML: {reason}; shorten what the flags say")]
    NotWritten { reason: String },
    #[error("{place}: unknown key {key:?} in {section}; {advice}")]
    UnknownKey {
        place: Place,
        key: String,
        section: String,
        advice: String,
    },
    #[error("{place}: {key:?} in {section} is known but not supported by this version of Postern; remove it")]
    NotSupported { place: Place, key: String, section: String },
    #[error("{place}: {service} is a service that Postern does not have; it may only say `enabled: no`")]
    ForeignService { place: Place, service: String },
    #[error("{place}: {subject} must be {expected}, not {found}")]
    WrongType {
        place: Place,
        subject: String,
        expected: &'static str,
        found: &'static str,
    },
    #[error("{place}: {subject}: {reason}")]
    BadValue {
        place: Place,
        subject: String,
        reason: String,
    },
    #[error("{place}: {section} needs {key:?}: {reason}")]
    Missing {
        place: Place,
        section: String,
        key: &'static str,
        reason: String,
    },
    #[error(
        "{place}: the database name {name:?} is already used on line {first_line}; give each database its own name"
    )]
    DuplicateDatabase {
        place: Place,
        name: String,
        first_line: u64,
    },
    #[error(
        "{place}: no service is enabled; say `enabled: yes` in at least one of auth_service, proxy_service and db_service"
    )]
    NoService { place: Place },
    #[error("cannot read {what} from {}: {source}", path.display())]
    ReadFile {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{what} in {} {rule}", path.display())]
    BadFile {
        what: &'static str,
        path: PathBuf,
        rule: String,
    },
}

//! Names of things, checked once at the border and carried as types from there.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// PostgreSQL cuts identifiers at 63 bytes (NAMEDATALEN - 1); a longer one would be decided on in full and used cut.
pub const MAX_IDENTIFIER_BYTES: usize = 63;
/// A label of a DNS name (RFC 1035, section 2.3.4): services are named in host names and file names.
pub const MAX_SERVICE_BYTES: usize = 63;
/// Names of people may be e-mail addresses (RFC 5321, section 4.5.3.1: 64 + 1 + 255).
pub const MAX_PERSON_BYTES: usize = 320;

/// Why a text is not a name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{what} must not be empty")]
    Empty { what: &'static str },
    #[error("{what} is {length} bytes long; at most {max} are allowed")]
    TooLong {
        what: &'static str,
        length: usize,
        max: usize,
    },
    #[error("{what} {name:?} must not contain {bad:?}; allowed are {allowed}")]
    BadCharacter {
        what: &'static str,
        name: String,
        bad: char,
        allowed: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $allowed:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text: String = text.into();
                if text.is_empty() {
                    return Err(NameError::Empty { what: $what });
                }
                if text.len() > $max {
                    return Err(NameError::TooLong { what: $what, length: text.len(), max: $max });
                }
                let allowed: fn(char) -> bool = $check;
                if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
                    return Err(NameError::BadCharacter { what: $what, name: text, bad, allowed: $allowed });
                }
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

fn dns_like(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_'
}

name!(
    /// The cluster: one set of certificate authorities and rules.
    ClusterName, "a cluster name", 253, "letters, digits, '.', '-' and '_'", dns_like
);
name!(
    /// A node's name, for people; the `NodeId` is what decides.
    NodeName, "a node name", 253, "letters, digits, '.', '-' and '_'", dns_like
);
name!(
    /// A registered database service, `example` in `db connect example`.
    ServiceName, "a database service name", MAX_SERVICE_BYTES, "letters, digits and '-'",
    |c| c.is_ascii_alphanumeric() || c == '-'
);
name!(
    /// A role.
    RoleName, "a role name", 255, "letters, digits, '.', '-', '_', ':' and '@'",
    |c| dns_like(c) || c == ':' || c == '@'
);
name!(
    /// A person (or a machine that acts as one).
    PersonName, "a user name", MAX_PERSON_BYTES, "printable characters without '/', quotes and spaces",
    |c| !c.is_control() && !c.is_whitespace() && !matches!(c, '/' | '\\' | '"' | '\'' | '`')
);
name!(
    /// A lock; `ctl lock` names it with a UUID.
    LockName, "a lock name", 255, "letters, digits, '.', '-' and '_'", dns_like
);
name!(
    /// A PostgreSQL role that a session logs in as. Compared byte for byte, never folded.
    DbUser, "a database user", MAX_IDENTIFIER_BYTES, "anything but control characters", |c| !c.is_control()
);
name!(
    /// A database inside a PostgreSQL server. Compared byte for byte, never folded.
    DbName, "a database name", MAX_IDENTIFIER_BYTES, "anything but control characters", |c| !c.is_control()
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_refused_says_what_is_wrong_with_it() {
        let refused = ServiceName::new("my db").expect_err("a space");
        assert_eq!(
            refused.to_string(),
            "a database service name \"my db\" must not contain ' '; allowed are letters, digits and '-'"
        );
        assert_eq!(
            DbUser::new("").expect_err("empty").to_string(),
            "a database user must not be empty"
        );
        assert!(DbUser::new("x".repeat(64)).is_err(), "PostgreSQL would cut it");
    }

    #[test]
    fn a_name_is_checked_when_it_is_read_too() {
        assert!(serde_json::from_str::<DbName>("\"a\\u0000b\"").is_err());
        assert!(serde_json::from_str::<DbName>("\"app\"").is_ok());
    }
}

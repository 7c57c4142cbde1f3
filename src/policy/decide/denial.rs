//! The denial: which role and which rule said no, for operators and the audit log; and the little of it that a client reads.

use crate::model::{DbName, DbUser, PersonName, Refusal, RefusalKind, Replication, RoleName, ServiceName, Timestamp};
use crate::policy::lock::Lock;
use std::fmt;
use std::net::IpAddr;

/// What a client reads, whatever the reason: the text that users of Teleport know.
pub const DENIED_MESSAGE: &str = "access to db denied. User does not have permissions. Confirm database user and name.";
/// What a client reads below it. It says nothing about what any role holds.
pub const DENIED_HINT: &str = "ask an administrator, or see which databases you may use";
/// The same of whoever asked for a replication connection: what they asked for, and not what they have.
pub const REPLICATION_HINT: &str =
    "this is a replication connection, which is allowed by roles with db_replication only; ask an administrator";
/// What a client reads whose certificate is pinned to another address, or to none where a role asks for it.
pub const PINNED_IP_MESSAGE: &str = "pinned IP doesn't match observed client IP";

/// How a role's `allow` met a request that it did not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    pub role: RoleName,
    /// What of labels, database user and database name does not match, each as a sentence; never empty.
    pub misses: Vec<String>,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "role {:?}: {}", self.role.as_str(), self.misses.join("; "))
    }
}

/// Why a request is refused. `Display` is the whole reasoning, for operators and the audit log, never for clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error("{} (lock {})", .0.sentence(), .0.name)]
    Locked(Box<Lock>),
    #[error("there is no user {:?}: removed since the certificate was issued, or not known on this node yet", .person.as_str())]
    UnknownPerson { person: PersonName },
    #[error("the certificate of {:?} expired at {until}", .person.as_str())]
    Expired { person: PersonName, until: Timestamp },
    #[error(
        "the certificate of {:?} is bound to database service {:?}, but {:?} was asked for",
        .person.as_str(), .bound.as_str(), .requested.as_str()
    )]
    OtherService {
        person: PersonName,
        bound: ServiceName,
        requested: ServiceName,
    },
    #[error(
        "a role of {:?} asks for certificates that are used from one address only; this one {}, and the client {}",
        .person.as_str(), pinned_words(*.pinned), observed_words(*.observed)
    )]
    PinnedIp {
        person: PersonName,
        pinned: Option<IpAddr>,
        observed: Option<IpAddr>,
    },
    #[error("role {:?} denies it: {rule}", .role.as_str())]
    DeniedByRole {
        role: RoleName,
        rule: String,
        replication: Option<Replication>,
    },
    #[error("{0}")]
    NotAllowed(Box<NotAllowed>),
}

fn pinned_words(pinned: Option<IpAddr>) -> String {
    pinned.map_or_else(|| "is pinned to none".to_owned(), |ip| format!("is pinned to {ip}"))
}

fn observed_words(observed: Option<IpAddr>) -> String {
    observed.map_or_else(
        || "cannot be seen from here".to_owned(),
        |ip| format!("connects from {ip}"),
    )
}

/// No role allows the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAllowed {
    pub person: PersonName,
    pub service: ServiceName,
    pub db_user: DbUser,
    pub db_name: DbName,
    pub replication: Option<Replication>,
    /// The roles that were asked, the nearest to allowing it first.
    pub considered: Vec<Shortfall>,
    /// Roles that the person has by name and that do not exist.
    pub missing: Vec<RoleName>,
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no role of {:?} allows database user {:?} and database name {:?} at database service {:?}",
            self.person.as_str(),
            self.db_user.as_str(),
            self.db_name.as_str(),
            self.service.as_str()
        )?;
        if let Some(replication) = self.replication {
            write!(f, ", for {} replication", replication.label())?;
        }
        match self.considered.split_first() {
            None => f.write_str("; no role was asked")?,
            Some((nearest, others)) => {
                write!(f, "; nearest is {nearest}")?;
                if !others.is_empty() {
                    let others: Vec<_> = others.iter().map(|s| format!("{:?}", s.role.as_str())).collect();
                    write!(f, "; also asked: {}", others.join(", "))?;
                }
            }
        }
        for role in &self.missing {
            write!(f, "; role {:?} does not exist and grants nothing", role.as_str())?;
        }
        Ok(())
    }
}

fn denied(replication: Option<Replication>) -> Refusal {
    let hint = replication.map_or(DENIED_HINT, |_| REPLICATION_HINT);
    Refusal::new(RefusalKind::AccessDenied, DENIED_MESSAGE).hint(hint)
}

impl Denial {
    /// The role that denied, or that came nearest to allowing.
    pub fn role(&self) -> Option<&RoleName> {
        match self {
            Self::DeniedByRole { role, .. } => Some(role),
            Self::NotAllowed(not_allowed) => not_allowed.considered.first().map(|s| &s.role),
            Self::Locked(_)
            | Self::UnknownPerson { .. }
            | Self::Expired { .. }
            | Self::OtherService { .. }
            | Self::PinnedIp { .. } => None,
        }
    }

    /// What the client reads. Only what it knows from its own certificate is said beyond the fixed text.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Locked(lock) => Refusal::new(RefusalKind::Locked, lock.sentence())
                .hint("ask an administrator; it lasts until the lock expires or is removed"),
            Self::PinnedIp { .. } => Refusal::new(RefusalKind::AccessDenied, PINNED_IP_MESSAGE)
                .hint("log in again from the address that you connect from"),
            Self::Expired { until, .. } => Refusal::new(
                RefusalKind::CertificateExpired,
                format!("your certificate expired at {until}"),
            )
            .hint("log in again"),
            Self::OtherService { bound, .. } => Refusal::new(RefusalKind::AccessDenied, DENIED_MESSAGE).hint(format!(
                "your certificate is for database service {:?}; log in to the one that you want to use",
                bound.as_str()
            )),
            Self::UnknownPerson { .. } => denied(None),
            Self::DeniedByRole { replication, .. } => denied(*replication),
            Self::NotAllowed(not_allowed) => denied(not_allowed.replication),
        }
    }
}

//! Why Postern refused or ended something, in the words and the SQLSTATE that a client reads.
//!
//! One closed list: the kind is the metric label, the audit code and the SQLSTATE at once. The message is written by the
//! room that refuses; it holds only what the client may read.

use serde::{Deserialize, Serialize};
use std::fmt;

/// On whose side the cause lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    Client,
    Upstream,
    Agent,
    Us,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $label:literal, $sqlstate:literal, $side:ident;)*) => {
        /// The closed list of causes. SQLSTATEs are those of PostgreSQL's appendix A.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum RefusalKind { $($(#[$doc])* $kind,)* }

        impl RefusalKind {
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// A stable word for logs, metrics and the audit log.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$kind => $label,)* }
            }

            pub const fn sqlstate(self) -> &'static str {
                match self { $(Self::$kind => $sqlstate,)* }
            }

            pub const fn side(self) -> Side {
                match self { $(Self::$kind => Side::$side,)* }
            }

            /// How a connection ended because of it, for the views: `agent lost: 08006`.
            pub fn ending(self) -> String {
                format!("{}: {}", self.label().replace('_', " "), self.sqlstate())
            }
        }
    };
}

kinds! {
    /// The roles do not allow it.
    AccessDenied => "access_denied", "42501", Client;
    /// A role, a lock or a removal ended a session that had been allowed.
    AccessRevoked => "access_revoked", "57P01", Client;
    /// No certificate, or one that does not identify a person of this cluster.
    CertificateInvalid => "certificate_invalid", "28000", Client;
    CertificateExpired => "certificate_expired", "28000", Client;
    /// The client spoke PostgreSQL without TLS.
    TlsRequired => "tls_required", "28000", Client;
    /// The client broke the protocol.
    ProtocolViolation => "protocol_violation", "08P01", Client;
    /// The client asked for something that this version does not carry.
    NotSupported => "not_supported", "0A000", Client;
    /// No database service of that name, or none was named.
    DatabaseUnknown => "database_unknown", "3D000", Client;
    /// No agent of the database can be reached.
    AgentUnreachable => "agent_unreachable", "08001", Agent;
    /// The agent went away in the middle of a session.
    AgentLost => "agent_lost", "08006", Agent;
    /// PostgreSQL cannot be reached.
    UpstreamUnreachable => "upstream_unreachable", "08001", Upstream;
    /// PostgreSQL has TLS switched off.
    UpstreamWithoutTls => "upstream_without_tls", "08001", Upstream;
    /// PostgreSQL's certificate does not verify.
    UpstreamUntrusted => "upstream_untrusted", "08001", Upstream;
    /// PostgreSQL does not accept our certificate.
    UpstreamRefusedCertificate => "upstream_refused_certificate", "28000", Upstream;
    /// PostgreSQL went away in the middle of a session.
    UpstreamLost => "upstream_lost", "08006", Upstream;
    /// This node has not heard from auth for longer than `policy_max_age`.
    PolicyStale => "policy_stale", "57P03", Us;
    /// The audit log cannot be written; nothing goes on unseen.
    AuditUnavailable => "audit_unavailable", "57P03", Us;
    /// A limit of this node is reached.
    TooMany => "too_many", "53300", Us;
    /// The node is going down.
    ShuttingDown => "shutting_down", "57P01", Us;
    /// A fault of ours. The log has the details.
    Internal => "internal", "XX000", Us;
    /// A lock on the person, a role or a node is in force: insufficient privilege, as without a role, until it is lifted.
    Locked => "locked", "42501", Client;
    /// The client sent nothing for as long as its roles allow.
    IdleTimeout => "idle_timeout", "57P05", Client;
    /// The person has as many sessions as their roles allow.
    MaxConnections => "max_connections", "53300", Client;
    /// A part of the node failed while it was needed and is there again in a moment, or it has too much to do.
    Unavailable => "unavailable", "57P03", Us;
}

/// A refusal as the client reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_label_of_its_own_and_a_sqlstate_of_five_characters() {
        let mut labels: Vec<_> = RefusalKind::ALL.iter().map(|k| k.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), RefusalKind::ALL.len());
        assert!(RefusalKind::ALL.iter().all(|k| k.sqlstate().len() == 5));
        assert_eq!(RefusalKind::AgentLost.ending(), "agent lost: 08006");
    }
}

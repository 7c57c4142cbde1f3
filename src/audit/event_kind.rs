//! The closed list of events: a name for people and a code for filters. Names and codes are Teleport's (`lib/events/codes.go`),
//! so that what reads its log reads ours; codes that begin with `P` are our own.

macro_rules! events {
    ($($(#[$doc:meta])* $kind:ident => $name:literal, $code:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $kind,)* }

        impl EventKind {
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// Ends with `I` (it happened), `W` (it was refused or failed) or `E` (an error).
            pub const fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)* }
            }
        }
    };
}

events! {
    SessionStarted => "db.session.start", "TDB00I";
    SessionDenied => "db.session.start", "TDB00W";
    SessionEnded => "db.session.end", "TDB01I";
    Query => "db.session.query", "TDB02I";
    /// What became of requests, up to a ReadyForQuery.
    Result => "db.session.result", "TDB10I";
    MalformedPacket => "db.session.malformed_packet", "TDB06I";
    StatementParsed => "db.session.postgres.statements.parse", "TPG00I";
    StatementBound => "db.session.postgres.statements.bind", "TPG01I";
    StatementExecuted => "db.session.postgres.statements.execute", "TPG02I";
    StatementClosed => "db.session.postgres.statements.close", "TPG03I";
    FunctionCalled => "db.session.postgres.function", "TPG04I";
    UserCreated => "user.create", "T1002I";
    UserUpdated => "user.update", "T1003I";
    UserDeleted => "user.delete", "T1004I";
    LoggedIn => "user.login", "T1000I";
    /// A password login that was refused; `error` says why, which the person is not told.
    LoginFailed => "user.login", "T1000W";
    PasswordChanged => "user.password_change", "T1005I";
    MfaAdded => "mfa.add", "T1006I";
    /// An invitation or a reset, of any `type`.
    InviteCreated => "reset_password_token.create", "T6000I";
    /// Someone without a valid certificate tried.
    AuthFailed => "auth", "T3007W";
    RoleCreated => "role.created", "T9000I";
    RoleDeleted => "role.deleted", "T9001I";
    RoleUpdated => "role.updated", "T9002I";
    DatabaseCreated => "db.create", "TDB03I";
    DatabaseUpdated => "db.update", "TDB04I";
    DatabaseDeleted => "db.delete", "TDB05I";
    LockCreated => "lock.created", "TLK00I";
    LockDeleted => "lock.deleted", "TLK01I";
    TokenCreated => "join_token.create", "TJT00I";
    TokenDeleted => "join_token.delete", "PJT00I";
    CertificateIssued => "cert.create", "TC000I";
    CertificateRefused => "cert.create", "TC000W";
    NodeJoined => "instance.join", "TJ002I";
    NodeJoinFailed => "instance.join", "TJ002E";
    /// The proxy's own decision that a connection may go to an agent, which decides again.
    SessionRouted => "db.session.route", "PDB00I";
    /// A session that Postern ended: its limits, a lock, or rules that changed.
    ClientDisconnected => "client.disconnect", "T3006I";
    /// A session that was refused because of those that are open.
    SessionRejected => "session.rejected", "T1006W";
    SessionCancelled => "db.session.cancel", "PDB01I";
    /// A request to cancel that no session's key fits, or that was not looked at. Strangers can cause it: those of one address
    /// within a minute are two events, with `failures` in the second.
    CancelFailed => "db.session.cancel", "PDB01W";
    /// A message of a peer that its kind may not send.
    PeerRefused => "peer.refused", "PND01W";
    /// An administrator removed a node from the cluster.
    NodeRemoved => "node.remove", "PND02I";
    NodeStarted => "node.started", "PND00I";
    /// Somebody looked at what runs on a node, at connections of others, or at the trace of one.
    TraceRead => "trace.read", "PTR00I";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_code_of_its_own() {
        let mut codes: Vec<_> = EventKind::ALL.iter().map(|k| k.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), EventKind::ALL.len());
    }

    #[test]
    fn names_and_codes_need_no_escaping() {
        let plain = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_')
        };
        assert!(EventKind::ALL.iter().all(|k| plain(k.name()) && plain(k.code())));
    }
}

//! What of each kind of actor is true whatever the machine: one row of the fault table each.

/// One kind of actor.
pub struct Row {
    pub kind: &'static str,
    pub rule: &'static str,
    /// Messages that wait for it at most.
    pub mailbox: u64,
    /// Where the state of a rebuilt one comes from.
    pub rebuilt_from: &'static str,
    /// What those who asked it read meanwhile.
    pub askers: &'static str,
    pub lost: &'static str,
    /// Those whose message it has in hand when it fails, where the campaign has somebody ask.
    pub asked: Option<Asked>,
}

/// A message, and who sends it.
#[derive(Clone, Copy)]
pub enum Asked {
    /// A client that connects as this database user reads 57P03 with the hint to try again.
    ByClient(&'static str, &'static str),
    /// `ctl` with these arguments fails, and says that one has to look and repeat.
    ByCtl(&'static str, &'static [&'static str]),
}

impl Row {
    const fn by_client(self, message: &'static str) -> Self {
        self.by_db_user(message, "app")
    }

    const fn by_db_user(mut self, message: &'static str, db_user: &'static str) -> Self {
        self.asked = Some(Asked::ByClient(message, db_user));
        self
    }

    const fn by_ctl(mut self, message: &'static str, arguments: &'static [&'static str]) -> Self {
        self.asked = Some(Asked::ByCtl(message, arguments));
        self
    }
}

const fn row(
    kind: &'static str,
    rule: &'static str,
    mailbox: u64,
    rebuilt_from: &'static str,
    askers: &'static str,
    lost: &'static str,
) -> Row {
    Row {
        kind,
        rule,
        mailbox,
        rebuilt_from,
        askers,
        lost,
        asked: None,
    }
}

const P: &str = "permanent";
const SAME_CONNECTION: &str = "new clients: 57P03, try again";
const CTL: &str = "`ctl`: the actor failed; look and repeat";
const NOBODY: &str = "nobody asks it";
const NOTHING: &str = "nothing";

/// Every kind of actor that there is.
pub const ROWS: &[Row] = &[
    row(
        "accounts",
        P,
        64,
        "the store",
        "logins and links: try again",
        "how often each address has tried",
    )
    .by_ctl("CreateInvite", &["users", "reset", "alice"]),
    row("admin", P, 4, "its socket", NOBODY, NOTHING),
    row(
        "agent",
        P,
        1024,
        "nothing to rebuild",
        SAME_CONNECTION,
        "kept certificates for PostgreSQL; auth is asked again",
    )
    .by_client("GetUpstreamClient"),
    row(
        "agent-sessions",
        P,
        1024,
        "`SessionsStock`; decides again",
        SAME_CONNECTION,
        NOTHING,
    )
    .by_client("RegisterSession"),
    row(
        "audit",
        P,
        4,
        "the spool on disk",
        NOBODY,
        "nothing; a batch may be sent twice and is stored once",
    ),
    row(
        "audit-log",
        P,
        64,
        "the log on disk",
        "shippers repeat; `audit ls`: repeat",
        NOTHING,
    )
    .by_ctl("QueryAudit", &["audit", "ls"]),
    row(
        "auth-link",
        P,
        256,
        "dials auth again",
        "new clients: 57P03, try again, where auth is needed",
        "questions to auth in hand",
    )
    .by_db_user("IssueDbClient", "loader"),
    row("auth-listener", P, 64, "its socket", NOBODY, NOTHING),
    row(
        "ca",
        P,
        256,
        "the authorities in memory",
        "nodes and people: try again",
        NOTHING,
    )
    .by_db_user("IssueDbClient", "loader"),
    row(
        "cancels",
        P,
        1024,
        "`Keys`",
        SAME_CONNECTION,
        "a cancel in hand, and how often addresses have failed",
    )
    .by_client("ClientKey"),
    row(
        "connection",
        "temporary",
        4,
        "not rebuilt",
        NOBODY,
        "the connection that it serves",
    ),
    row(
        "databases",
        P,
        4,
        "`ServedStock`; looks and asks for labels again",
        NOBODY,
        NOTHING,
    ),
    row(
        "dialer",
        "transient",
        4,
        "`TunnelSlot`; the tunnel stays up",
        NOBODY,
        NOTHING,
    ),
    row("dialers", P, 64, "`DialersStock`; its dialers live on", NOBODY, NOTHING),
    row("identity", P, 4, "`IdentityStock`", NOBODY, NOTHING),
    row(
        "inventory",
        P,
        512,
        "`InventoryStock`",
        "heartbeats: the next one",
        NOTHING,
    ),
    row(
        "joins",
        P,
        64,
        "nothing to rebuild",
        "a node that joins: refused with the reason, joins again",
        "a use of a token, where it was taken already",
    ),
    row(
        "link",
        "temporary",
        4,
        "the node dials again",
        NOBODY,
        "the questions of that node in hand",
    ),
    row(
        "links",
        P,
        1024,
        "nothing to rebuild; links live on",
        NOBODY,
        "a connection of a node in hand; it comes again",
    ),
    row("listener", P, 64, "its socket; connections live on", NOBODY, NOTHING),
    row("own-databases", P, 4, "`DatabasesStock`", NOBODY, NOTHING),
    row("own-heartbeat", P, 4, "the node's report", NOBODY, NOTHING),
    row("own-policy", P, 4, "`Published`", NOBODY, NOTHING),
    row(
        "policy",
        P,
        16,
        "`PolicyStock`",
        "whoever brings rules brings them again",
        NOTHING,
    ),
    row(
        "proxy-sessions",
        P,
        1024,
        "`SessionsStock`; decides again",
        SAME_CONNECTION,
        NOTHING,
    )
    .by_client("RegisterSession"),
    row("rbac", P, 64, "the store; published rules stay in force", CTL, NOTHING)
        .by_ctl("RemoveResource", &["rm", "role/nobody"]),
    row("server-certificates", P, 4, "the files", NOBODY, NOTHING),
    row("tokens", P, 64, "the store and the configuration", CTL, NOTHING).by_ctl("ListTokens", &["tokens", "ls"]),
    row(
        "tunnel",
        "transient",
        4,
        "`Carrier`; the connection stays up",
        NOBODY,
        NOTHING,
    ),
    row(
        "tunnels",
        P,
        1024,
        "`RoutesStock`; tunnels live on",
        NOBODY,
        "a tunnel that is just dialled; the agent dials again",
    ),
    row(
        "upstream",
        "temporary",
        4,
        "not rebuilt",
        NOBODY,
        "the connection that it serves",
    ),
    row(
        "upstream-cancels",
        P,
        1024,
        "`Keys`",
        SAME_CONNECTION,
        "a cancel in hand",
    )
    .by_client("UpstreamKey"),
];

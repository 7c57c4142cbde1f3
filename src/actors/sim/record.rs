//! What happened in a simulated world, in its order: the only thing that the invariants look at.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// By the number of the client that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An event is on the disk of a node.
    OnDisk {
        node: usize,
        event: String,
        sid: Option<String>,
        client: Option<u64>,
        statement: Option<String>,
        /// The number of the request that it is about, or those whose results it has.
        requests: Vec<u64>,
    },
    /// A node may decide by these rules from now on.
    Told {
        node: usize,
        rules: usize,
    },
    /// A node decides by these rules and no others from now on.
    Rules {
        node: usize,
        version: u64,
        rules: usize,
    },
    Connected {
        client: u64,
        person: &'static str,
        db_user: &'static str,
    },
    /// The client has read AuthenticationOk.
    LetIn {
        client: u64,
    },
    /// The client has read the whole answer to its request of this number.
    Answered {
        client: u64,
        request: u64,
    },
    /// The client has read an ErrorResponse.
    ReadError {
        client: u64,
        sqlstate: String,
    },
    /// The client has read the end of its connection.
    ReadEnd {
        client: u64,
    },
    /// The client's side of its connection is gone.
    Left {
        client: u64,
    },
    /// PostgreSQL has read a StartupMessage, on this connection of this agent's.
    StartupSeen {
        client: u64,
        dial: u64,
        agent: usize,
    },
    /// PostgreSQL has read a statement.
    StatementSeen {
        client: u64,
        statement: String,
    },
    /// The agent has let go of its connection to PostgreSQL.
    LetGo {
        dial: u64,
    },
    /// PostgreSQL's side of it is gone.
    PostgresEnded {
        dial: u64,
    },
    Act(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    pub at: Duration,
    pub what: What,
}

#[derive(Clone)]
pub struct Record {
    began: Instant,
    all: Arc<Mutex<Vec<Happened>>>,
}

impl Record {
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            all: Arc::default(),
        }
    }

    pub fn note(&self, what: What) {
        let at = self.began.elapsed();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Happened { at, what });
    }

    pub fn all(&self) -> Vec<Happened> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One line for each; for whoever looks into a seed that fails.
pub fn in_lines(all: &[Happened]) -> String {
    all.iter().fold(String::new(), |mut text, Happened { at, what }| {
        let _ = writeln!(text, "{:>9.3} {what:?}", at.as_secs_f64());
        text
    })
}

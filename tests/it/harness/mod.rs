//! What the tests stand on: real nodes as processes of their own, a real PostgreSQL for each cluster, and real clients.
//!
//! Nothing outlives the test binary: processes end when their owner is dropped, and what a killed test run leaves behind is
//! ended and removed by the [`process`] reaper.

pub mod browser;
pub mod client;
pub mod cluster;
pub mod configuration;
pub mod https;
pub mod namespaces;
pub mod page;
pub mod person;
pub mod postgres;
pub mod process;
pub mod session;
pub mod sign_up;
pub mod strace;
pub mod wait;
pub mod wire;

pub use client::Client;
pub use cluster::{Cluster, Form, Kind, shared};
pub use configuration::NodeConfig;
pub use postgres::Postgres;
pub use process::{Output, Process, TestDir, run};
pub use session::Session;
pub use wait::{Stopwatch, figure, until};
pub use wire::{ServerError, Wire};

use std::process::Command;
use std::time::Duration;

/// How long a test waits for what usually takes a moment, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Within this a client has to learn of a loss or a removal, and a restarted agent has to serve.
pub const FIVE_SECONDS: Duration = Duration::from_secs(5);

/// A command line of the program, with nothing of the caller's environment that could change what it does.
pub fn postern(home: &std::path::Path) -> Command {
    // A campaign measures the optimised program.
    let program = std::env::var_os("POSTERN_PROGRAM");
    let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_postern").into()));
    clean_environment(&mut command, home);
    command
}

/// Removes what libpq, psql and Postern read from the environment, and gives the command a home directory of its own.
pub fn clean_environment(command: &mut Command, home: &std::path::Path) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["PG", "POSTERN_", "TELEPORT_", "RUST_LOG", "CARGO", "PSQL"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .env("NO_COLOR", "1")
        .env("PAGER", "cat");
}

/// Runs each named test in both forms of a cluster: all services in one process, and auth, proxy and agent apart.
macro_rules! in_both_forms {
    ($($test:ident),* $(,)?) => {
        mod in_one_process {
            $(#[test] fn $test() { super::$test($crate::harness::Form::OneProcess); })*
        }
        mod with_nodes_apart {
            $(#[test] fn $test() { super::$test($crate::harness::Form::Apart); })*
        }
    };
}
pub(crate) use in_both_forms;

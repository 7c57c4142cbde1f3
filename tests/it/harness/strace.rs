//! The system calls of a node, counted by strace: a matter of the program, and hardly of the machine or of what else it does.
//!
//! strace slows what it watches, so that nothing that is counted is timed as well.

use super::process::{Process, TestDir};
use super::{PATIENCE, until};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// Attached to every thread of a process, those to come too, until it is asked for what it has counted.
#[derive(Debug)]
pub struct Strace {
    process: Process,
    table: PathBuf,
    _directory: TestDir,
}

impl Strace {
    /// Returns when strace has hold of every thread.
    ///
    /// # Panics
    /// Where this account may not trace, or strace is not there: a test that counts nothing would pass for ever.
    #[track_caller]
    pub fn attach(node: &Process) -> Self {
        let directory = TestDir::new();
        let table = directory.join("calls");
        let mut command = Command::new("strace");
        command
            .args(["-qq", "-f", "-c", "-p", &node.id().to_string(), "-o"])
            .arg(&table);
        let there = Command::new("strace").arg("-V").output();
        assert!(
            there.is_ok(),
            "strace is not there; run `make test-tools`, which installs it"
        );
        let mut process = Process::start("strace", command, directory.join("log")).ended_with(Signal::SIGINT);
        until(&format!("strace has hold of {}", node.name), PATIENCE, || {
            if let Some(code) = process.exit_code() {
                panic!(
                    "strace may not trace {} (exit code {code}): {}\nCounting system calls takes root, or the capability SYS_PTRACE, or \
                     kernel.yama.ptrace_scope=0.",
                    node.name,
                    process.log_tail()
                );
            }
            holds_all(process.id(), node.id()).then_some(())
        });
        Self {
            process,
            table,
            _directory: directory,
        }
    }

    /// Lets go of the process, and gives the calls that it made meanwhile, by name.
    #[track_caller]
    pub fn detach(mut self) -> Calls {
        self.process.send(Signal::SIGINT);
        self.process.wait(PATIENCE);
        let table = std::fs::read_to_string(&self.table).unwrap_or_default();
        let calls = Calls(table.lines().filter_map(row).collect());
        assert!(calls.all() > 0, "strace has counted nothing: {table}");
        calls
    }
}

/// strace says nothing when it has attached; proc_pid_status(5) does, of every thread.
fn holds_all(tracer: u32, of: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{of}/task")).expect("the process lives");
    threads.flatten().all(|thread| {
        // A thread that has ended meanwhile has no file.
        std::fs::read_to_string(thread.path().join("status")).map_or(true, |status| {
            let mut lines = status.lines().filter_map(|line| line.strip_prefix("TracerPid:"));
            lines.any(|id| id.trim() == tracer.to_string())
        })
    })
}

/// A row of the table: % time, seconds, usecs/call, calls, errors where there are any, name.
fn row(line: &str) -> Option<(String, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (name, calls) = (fields.last()?, fields.get(3)?.parse().ok()?);
    (fields.len() > 4 && *name != "total").then(|| ((*name).to_owned(), calls))
}

/// How often each call was made.
#[derive(Debug)]
pub struct Calls(BTreeMap<String, u64>);

impl Calls {
    pub fn all(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn of(&self, names: &[&str]) -> u64 {
        names.iter().filter_map(|name| self.0.get(*name)).sum()
    }

    /// The calls for a unit of work, the most frequent first; those that are less than a hundredth of all are left out.
    pub fn for_each_of(&self, units: f64) -> String {
        let mut shown: Vec<(&String, &u64)> = self.0.iter().filter(|(_, calls)| **calls * 100 >= self.all()).collect();
        shown.sort_by(|a, b| b.1.cmp(a.1));
        let each = |(name, calls): (&String, &u64)| format!("{name} {:.2}", *calls as f64 / units);
        shown.into_iter().map(each).collect::<Vec<_>>().join(", ")
    }
}

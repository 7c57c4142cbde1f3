//! Child processes and directories that do not outlive the test: not a failed one, not a killed one.

use super::wait::Stopwatch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// How long a process may take to end in order.
const CLEAN_UP: Duration = Duration::from_secs(10);
/// Lines of a process's log that a failed test shows.
const LOG_TAIL_LINES: usize = 40;

/// A shell whose standard input only the test binary holds. When that ends, however it ends, the shell ends the processes and
/// removes the directories that it was told of. A static of Rust is never dropped, and a killed binary drops nothing.
#[expect(clippy::zombie_processes, reason = "it outlives us by design")]
static REAPER: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    const SCRIPT: &str = r#"
        trap '' INT TERM HUP
        pids= dirs=
        while read -r verb what; do
            case $verb in
                end) pids="$pids $what" ;;
                forget) rest=; for p in $pids; do [ "$p" = "$what" ] || rest="$rest $p"; done; pids=$rest ;;
                remove) dirs="$dirs $what" ;;
            esac
        done
        for p in $pids; do kill -INT "$p"; done
        tries=0
        for p in $pids; do
            while kill -0 "$p" && [ $tries -lt 30 ]; do sleep 0.1; tries=$((tries + 1)); done
        done
        for p in $pids; do kill -KILL "$p"; done
        for d in $dirs; do rm -rf "$d"; done
    "#;
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh runs");
    Mutex::new(shell.stdin.take().expect("its standard input is a pipe"))
});

fn tell_reaper(line: &str) {
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    drop(writeln!(reaper, "{line}"));
}

/// A directory that everyone may enter, as PostgreSQL runs under an account of its own. Removed when dropped.
#[derive(Debug)]
pub struct TestDir(tempfile::TempDir);

impl TestDir {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("postern-it-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary directory");
        tell_reaper(&format!("remove {}", directory.path().display()));
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file into the directory.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

/// A process that writes into a log file and is killed when dropped. A test that fails shows the end of the log.
#[derive(Debug)]
pub struct Process {
    pub name: String,
    pub log: PathBuf,
    child: Child,
    end_with: Signal,
    ended: bool,
}

impl Process {
    /// Starts `command` with both outputs appended to `log`.
    pub fn start(name: &str, mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).expect("the log");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log"))
            .stderr(file);
        let child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        tell_reaper(&format!("end {}", child.id()));
        Self {
            name: name.to_owned(),
            log,
            child,
            end_with: Signal::SIGKILL,
            ended: false,
        }
    }

    /// What it is sent when it is dropped, where SIGKILL would leave something behind.
    #[must_use]
    pub fn ended_with(mut self, signal: Signal) -> Self {
        self.end_with = signal;
        self
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn send(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.id()).expect("a process id")), signal).expect("the process is there");
    }

    /// Its exit code, once it has ended; -1 when a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("our own child")?;
        self.forget();
        Some(status.code().unwrap_or(-1))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> i32 {
        let what = format!("{} ends; its log:\n{}", self.name, self.log_tail());
        super::until(&what, limit, || self.exit_code())
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) {
        if !self.ended {
            drop(self.child.kill());
            drop(self.child.wait());
            self.forget();
        }
    }

    fn forget(&mut self) {
        if !self.ended {
            self.ended = true;
            tell_reaper(&format!("forget {}", self.id()));
        }
    }

    /// The most memory it ever held, in MiB (`VmHWM` of proc_pid_status(5)).
    pub fn peak_memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number");
        kib / 1024
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log_tail());
        }
        if self.ended {
            return;
        }
        if self.end_with != Signal::SIGKILL {
            end(&mut self.child, self.end_with);
        }
        self.kill9();
    }
}

/// Sends `signal` and gives the process a while to clean up after itself before it is killed.
fn end(child: &mut Child, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)), signal);
    let started = Stopwatch::start();
    while started.elapsed() < CLEAN_UP && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child.kill());
    drop(child.wait());
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    /// -1 when a signal ended it.
    pub code: i32,
}

impl Output {
    /// Its standard output, where it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "it failed\nstdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// Its standard error, where it failed with `code`.
    #[track_caller]
    pub fn failed_with(self, code: i32) -> String {
        assert_eq!(
            self.code, code,
            "another exit code was expected\nstdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stderr
    }
}

/// Runs a command to its end; one that has not ended within `limit` is killed and fails the test.
#[track_caller]
pub fn run(mut command: Command, limit: Duration) -> Output {
    let name = format!("{:?}", command.get_program());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let started = Stopwatch::start();
    let status = loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            break status;
        }
        if started.elapsed() > limit {
            end(&mut child, Signal::SIGTERM);
            let (stdout, stderr) = (stdout.join(), stderr.join());
            panic!(
                "{name} did not end within {} s\nstdout: {stdout:?}\nstderr: {stderr:?}",
                limit.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output {
        stdout: stdout.join().expect("read"),
        stderr: stderr.join().expect("read"),
        code: status.code().unwrap_or(-1),
    }
}

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(from.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

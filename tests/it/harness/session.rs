//! A psql that stays connected: statements go in one at a time, and what it says is read as it comes.

use super::wait::until_ok;
use super::{Client, PATIENCE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug)]
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
    said: Arc<Mutex<String>>,
    /// Its certificate has to be there as long as psql may read it.
    _client: Client,
}

impl Session {
    /// psql reading statements from a pipe.
    pub fn open(client: &Client) -> Self {
        let mut psql = client.psql_command();
        psql.args(["-v", "ON_ERROR_STOP=0"]);
        Self::spawn(psql, client)
    }

    /// psql on a terminal of its own, where a written Ctrl-C does what it does under a person's hands.
    pub fn on_a_terminal(client: &Client) -> Self {
        let psql = client.psql_command();
        let mut line = psql.get_program().to_string_lossy().into_owned();
        for argument in psql.get_args() {
            line += &format!(" {}", argument.to_string_lossy());
        }
        line = line.replace("ON_ERROR_STOP=1", "ON_ERROR_STOP=0");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]);
        client.connects(&mut script);
        script.env("TERM", "dumb");
        Self::spawn(script, client)
    }

    fn spawn(mut command: Command, client: &Client) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("psql starts");
        let said = Arc::new(Mutex::new(String::new()));
        listen(child.stdout.take().expect("piped"), Arc::clone(&said));
        listen(child.stderr.take().expect("piped"), Arc::clone(&said));
        let input = child.stdin.take();
        Self {
            child,
            input,
            said,
            _client: client.clone(),
        }
    }

    /// Types a line. A psql that is gone does not hear it; what it said before tells why.
    pub fn say(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    pub fn press_ctrl_c(&mut self) {
        self.write(b"\x03");
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(input) = &mut self.input {
            drop(input.write_all(bytes).and_then(|()| input.flush()));
        }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until psql has said `text`, and returns everything that it said.
    #[track_caller]
    pub fn hears(&self, text: &str, limit: Duration) -> String {
        until_ok(&format!("psql says {text:?}"), limit, || {
            let said = self.said();
            if said.contains(text) { Ok(said) } else { Err(said) }
        })
    }

    /// Sends a statement and waits for `answer`, which must not be part of the statement.
    #[track_caller]
    pub fn ask(&mut self, statement: &str, answer: &str) {
        self.say(statement);
        self.hears(answer, PATIENCE);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.input = None;
        let _ = kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX)),
            Signal::SIGTERM,
        );
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn listen(mut from: impl Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]);
            said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    });
}

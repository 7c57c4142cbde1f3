//! Running a command of the configuration, with an end and bounds.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// What is read of each of a command's two streams; one that writes more is not the right command.
const OUTPUT_MAX_BYTES: usize = 4096;

/// Kills the command and all that it started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nothing of it may be left by now.
            let _gone = killpg(leader, Signal::SIGKILL);
        }
    }
}

#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub output: Vec<u8>,
    pub errors: Vec<u8>,
}

/// Runs a command without a shell, with the agent's PATH and nothing else of its environment: what else is there may be secret.
///
/// # Errors
/// It cannot be started, or takes longer than `within` or writes too much, and then it is killed with all that it started.
pub async fn run(command: &[String], within: Duration) -> Result<Ran, String> {
    let [program, arguments @ ..] = command else {
        return Err("there is no command".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(leader.map(Pid::from_raw));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let done = async { tokio::try_join!(read(stdout), read(stderr), child.wait()) };
    match tokio::time::timeout(within, done).await {
        Ok(Ok((output, errors, status))) => {
            // The process is reaped, and its number may be another's by now.
            group.0 = None;
            Ok(Ran { status, output, errors })
        }
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} was not done within {within:?} and has been killed")),
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(stream) = stream else { return Ok(bytes) };
    stream.take(OUTPUT_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > OUTPUT_MAX_BYTES {
        return Err(io::Error::other(format!(
            "it writes more than {OUTPUT_MAX_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// The first line of what a command wrote, without what would spoil a log or a table.
pub fn first_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &[&str]) -> Vec<String> {
        command.iter().map(|word| (*word).to_owned()).collect()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_command_is_run_without_a_shell_and_without_our_environment() {
        let ran = run(&words(&["echo", "$HOME; id"]), LONG).await.expect("runs");
        assert_eq!(first_line(&ran.output), "$HOME; id");
        let ran = run(&words(&["env"]), LONG).await.expect("runs");
        let text = String::from_utf8(ran.output).expect("text");
        assert!(text.lines().all(|line| line.starts_with("PATH=")), "{text}");
        let error = run(&words(&["/no/such/program"]), LONG)
            .await
            .expect_err("nothing runs");
        assert!(error.starts_with("/no/such/program cannot be started"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_or_writes_without_end_is_killed_with_its_children() {
        let directory = tempfile::tempdir().expect("a directory");
        let mark = directory.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", mark.display());
        let error = run(&words(&["sh", "-c", &script]), Duration::from_secs(1)).await.err();
        assert!(error.expect("it hangs").contains("was not done within 1s"));
        let child: i32 = std::fs::read_to_string(&mark)
            .expect("it ran")
            .trim()
            .parse()
            .expect("a number");
        // The child is init's by now, or a zombie of a container without one.
        let is_gone = || {
            let status = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            status.is_empty() || status.contains(") Z ")
        };
        let gone = async {
            while !is_gone() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, gone).await.expect("it is killed");
        let error = run(&words(&["yes"]), LONG).await.expect_err("it never ends");
        assert!(error.contains("writes more than 4096 bytes"), "{error}");
    }
}

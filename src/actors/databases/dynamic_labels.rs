//! The value of a dynamic label: the first line that a command prints.

use super::command;
use std::time::Duration;

/// A command that takes longer hangs, and the next run would find it still there.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);
/// A label's value is shown in tables and sent with every heartbeat.
const VALUE_MAX_BYTES: usize = 256;

/// Runs the command of a label.
///
/// # Errors
/// Why there is no value.
pub async fn value_of(command: &[String]) -> Result<String, String> {
    let ran = command::run(command, COMMAND_DEADLINE).await?;
    if !ran.status.success() {
        let said = command::first_line(&ran.errors);
        return Err(format!("{}: {said}", ran.status));
    }
    let value = command::first_line(&ran.output);
    if value.is_empty() {
        return Err("it printed nothing".to_owned());
    }
    if value.len() > VALUE_MAX_BYTES {
        return Err(format!("its first line is longer than {VALUE_MAX_BYTES} bytes"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn printed_by(script: &str) -> Result<String, String> {
        value_of(&["sh", "-c", script].map(str::to_owned)).await
    }

    #[tokio::test]
    async fn the_value_is_the_first_line_and_a_failure_says_why() {
        assert_eq!(
            printed_by("printf '\\n  primary \\nmore\\n'").await,
            Ok("primary".to_owned())
        );
        let failed = printed_by("echo no server >&2; exit 3").await;
        assert_eq!(failed, Err("exit status: 3: no server".to_owned()));
        assert_eq!(printed_by("true").await, Err("it printed nothing".to_owned()));
        assert!(printed_by("printf %0300d 1").await.is_err());
    }
}

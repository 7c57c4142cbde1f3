//! The log: lines on stderr or stdout, as text or as JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogOutput {
    #[default]
    Stderr,
    Stdout,
}

/// Starts the log. `severity` is a level (`info`) or a list of targets with levels; `POSTERN_LOG` comes before it. What other
/// crates say through `log` is in it too: actix and yamux are mute otherwise.
///
/// # Errors
/// `severity` (or `POSTERN_LOG`) is neither.
pub fn start(severity: &str, format: LogFormat, output: LogOutput) -> Result<(), String> {
    let directives = std::env::var("POSTERN_LOG").unwrap_or_else(|_| severity.to_ascii_lowercase());
    let filter = EnvFilter::builder().parse(&directives).map_err(|error| {
        format!("{directives:?} says nothing that can be logged by ({error}); write a level: error, warn, info, debug or trace")
    })?;
    let writer = match output {
        LogOutput::Stderr => BoxMakeWriter::new(std::io::stderr),
        LogOutput::Stdout => BoxMakeWriter::new(std::io::stdout),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false);
    // A second start in one process (as tests do) keeps the first log.
    let _already = match format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    super::panics::install_hook();
    Ok(())
}

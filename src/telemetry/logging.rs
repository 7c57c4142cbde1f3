//! The log: lines on stderr, on stdout or in a file, as text or as JSON; its level can be changed while the program runs.

use super::log_directives::{self, Directives};
use super::log_lines::{JsonLine, UtcTime};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogOutput {
    #[default]
    Stderr,
    Stdout,
    /// Lines are added at its end; it is made where it is not there.
    File(PathBuf),
}

/// The log of this process, of which there is one.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    filter: reload::Handle<Targets, Registry>,
    directives: Mutex<String>,
    file: Option<&'static LogFile>,
}

/// Starts the log. `severity` is a level (`info`) or a list of targets with levels; `POSTERN_LOG` comes before it. What other
/// crates say through `log` is in it too: actix and yamux are mute otherwise.
///
/// # Errors
/// `severity` (or `POSTERN_LOG`) is neither, or the file cannot be opened.
pub fn start(severity: &str, format: LogFormat, output: LogOutput) -> Result<(), String> {
    let given = std::env::var("POSTERN_LOG").unwrap_or_else(|_| severity.to_owned());
    let directives = log_directives::parse(&given)?;
    let (log, subscriber) = Log::new(&directives, format, output)?;
    // A second start in one process (as tests do) keeps the first log.
    if subscriber.try_init().is_ok() {
        log.change(directives)?;
        let _first = LOG.set(log);
    }
    super::panics::install_hook();
    Ok(())
}

/// Changes what is logged from now on, until the process ends: a level, or a list of targets with levels. Who (`uid`) does it is
/// logged before and after, as one of the two may be a level at which nothing is.
///
/// # Errors
/// A sentence that names what is wrong and what is allowed; nothing has changed then.
pub fn set_level(directives: &str, uid: u32) -> Result<(), String> {
    let directives = log_directives::parse(directives)?;
    let log = LOG.get().ok_or("this process has no log")?;
    log.change_for(directives, uid)
}

/// What is logged at the moment, as [`set_level`] takes it.
pub fn level() -> String {
    LOG.get().map_or_else(|| "off".to_owned(), Log::level)
}

/// Opens the file of the log again, where it has one: after it was moved away, lines go to a new one.
///
/// # Errors
/// It cannot be opened; the log goes on in the one before.
pub fn reopen() -> Result<(), String> {
    LOG.get().and_then(|log| log.file).map_or(Ok(()), LogFile::reopen)
}

impl Log {
    /// A log that lets everything through until it is told what to log: the bridge from `log` keeps to the limit that it
    /// finds at its start.
    fn new(
        directives: &Directives,
        format: LogFormat,
        output: LogOutput,
    ) -> Result<(Self, impl Subscriber + Send + Sync + 'static), String> {
        let mut file = None;
        let writer = match output {
            LogOutput::Stderr => BoxMakeWriter::new(io::stderr),
            LogOutput::Stdout => BoxMakeWriter::new(io::stdout),
            LogOutput::File(path) => {
                // One for the life of the process, as the subscriber that writes to it.
                let opened: &'static LogFile = Box::leak(Box::new(LogFile::open(path)?));
                file = Some(opened);
                BoxMakeWriter::new(opened)
            }
        };
        let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
        let lines = match format {
            LogFormat::Text => lines.with_timer(UtcTime).with_target(false).boxed(),
            LogFormat::Json => lines.event_format(JsonLine).boxed(),
        };
        let (all, filter) = reload::Layer::new(Targets::new().with_default(tracing::Level::TRACE));
        let log = Self {
            filter,
            directives: Mutex::new(directives.text.clone()),
            file,
        };
        Ok((log, Registry::default().with(all).with(lines)))
    }

    fn change_for(&self, directives: Directives, uid: u32) -> Result<(), String> {
        tracing::info!(
            uid,
            log_level = directives.text,
            "the log level is changed at the debug socket"
        );
        self.change(directives)?;
        tracing::info!(
            uid,
            log_level = self.level(),
            "the log level was changed at the debug socket"
        );
        Ok(())
    }

    fn change(&self, Directives { text, filter }: Directives) -> Result<(), String> {
        // Held over the change, so that what is told is what is in force.
        let mut held = self.directives.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter
            .reload(filter)
            .map_err(|error| format!("the log level was not changed: {error}"))?;
        *held = text;
        Ok(())
    }

    fn level(&self) -> String {
        self.directives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: PathBuf) -> Result<Self, String> {
        let file = Mutex::new(append_to(&path)?);
        Ok(Self { path, file })
    }

    fn reopen(&self) -> Result<(), String> {
        let file = append_to(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

/// Names of people and their addresses are in it, so it is not for everybody.
fn append_to(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    opened.map_err(|error| {
        format!(
            "the log file {} cannot be opened: {error}; log.output names it, and its directory has to be there and writable",
            path.display()
        )
    })
}

impl<'a> MakeWriter<'a> for &'static LogFile {
    type Writer = &'static LogFile;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// A line comes in one piece.
impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_flat_json_in_a_file_and_the_level_changes_while_the_program_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("postern.log");
        let info = log_directives::parse("info").expect("a level");
        let (log, subscriber) = Log::new(&info, LogFormat::Json, LogOutput::File(path.clone())).expect("a log");
        let change = |level: &str| log.change(log_directives::parse(level)?);
        let _this_thread = tracing::subscriber::set_default(subscriber);
        change("info").expect("a level");
        tracing::info!(peer = %"127.0.0.1:1", failures = 3, "a line of this test");
        tracing::debug!("not yet");
        change("debug").expect("a level");
        assert_eq!(log.level(), "debug");
        tracing::debug!("from here on");
        assert!(change("verbose").expect_err("no level").contains("debug or trace"));
        assert_eq!(log.level(), "debug");
        let moved = dir.path().join("postern.log.1");
        std::fs::rename(&path, &moved).expect("moved");
        log.file.expect("a file").reopen().expect("a new file");
        tracing::info!("in the new file");
        let read = |path: &Path| std::fs::read_to_string(path).expect("the log");
        let (before, after) = (read(&moved), read(&path));
        let line = before.lines().next().expect("the line");
        let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect("an object");
        let names: Vec<&str> = line.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["timestamp", "level", "message", "component", "peer", "failures"]
        );
        let time = line["timestamp"].as_str().expect("a time");
        assert!(time.len() == 24 && time.ends_with('Z') && time.contains('T'), "{time}");
        assert_eq!((&line["level"], &line["failures"]), (&"info".into(), &3.into()));
        assert_eq!(line["component"], "postern::telemetry::logging::tests");
        let after_off = {
            let nobody = log_directives::parse("off").expect("a level");
            log.change_for(nobody, 4711).expect("changed");
            tracing::error!("of which nobody reads");
            read(&path)
        };
        let told = after_off.lines().last().expect("the change");
        assert!(
            told.contains("the log level is changed") && told.contains("4711"),
            "{told}"
        );
        let again = log_directives::parse("info").expect("a level");
        log.change_for(again, 4712).expect("changed");
        let (told, all) = (read(&path), read(&path));
        let told = told.lines().last().expect("the change");
        assert!(
            told.contains("the log level was changed") && told.contains("4712"),
            "{told}"
        );
        assert!(!all.contains("of which nobody reads"));
        assert!(before.contains("from here on") && !before.contains("not yet"));
        assert!(after.contains("in the new file") && !before.contains("in the new file"));
    }
}

//! `postern trace`: one connection through the processes that it passes, or the connections that there are.

use super::actors::{Format, print_json};
use super::debug_client::{DebugClient, WhichNode};
use super::names::Program;
use super::terminal::{emphasised, one_line, width};
use super::{Failure, Outcome, output, trace_text};
use crate::model::ConnectionId;
use crate::telemetry::view::{NodeView, Trace};
use crate::web::debug::ConnectionsQuery;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks of `--follow`.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// A trace has some thirty records for each process; a file beyond this is none.
const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The id of a connection, as the log and the audit trail have it; or `show FILE`, for what --save wrote. Without it, the
    /// one connection that fits is traced, and several are listed.
    #[arg(value_name = "CONNECTION", num_args = 0..=2)]
    what: Vec<String>,
    /// Only connections of this person.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only connections to this database.
    #[arg(long, value_name = "DATABASE")]
    db: Option<String>,
    /// Only connections in this state: `busy`, `idle`, …
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Go on with what happens, until the connection ends or Ctrl-C.
    #[arg(short, long, conflicts_with = "format")]
    follow: bool,
    /// Write the trace as JSON into this file, which only you can read.
    #[arg(long, value_name = "FILE", conflicts_with = "follow")]
    save: Option<PathBuf>,
    #[command(flatten)]
    which: WhichNode,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl TraceArgs {
    fn query(&self) -> ConnectionsQuery {
        ConnectionsQuery {
            user: self.user.clone(),
            db: self.db.clone(),
            state: self.state.clone(),
            side: None,
        }
    }

    fn meant(&self) -> trace_text::Meant<'_> {
        trace_text::Meant {
            user: self.user.as_deref(),
            database: self.db.as_deref(),
            state: self.state.as_deref(),
        }
    }
}

pub async fn run(program: Program, args: TraceArgs) -> Outcome {
    match args.what.as_slice() {
        [show, file] if show == "show" => return print(&read(Path::new(file))?, args.format),
        [one] if one == "show" => {
            return Err(Failure::usage(
                "name the file that --save wrote: postern trace show FILE",
            ));
        }
        [_, _] => {
            return Err(Failure::usage(
                "a trace is of one connection: name one, or none to list them",
            ));
        }
        _ => {}
    }
    let client = DebugClient::of(&args.which, program).await?;
    let Some(connection) = chosen(&client, &args).await? else {
        return Ok(());
    };
    let trace = client.trace(connection).await?;
    if let Some(file) = &args.save {
        save(&trace, file)?;
        println!(
            "Saved to {}; postern trace show {0} prints it.",
            one_line(&file.display().to_string())
        );
        return Ok(());
    }
    print(&trace, args.format)?;
    if args.follow {
        return follow(&client, connection, &trace).await;
    }
    Ok(())
}

/// The connection that is meant; `None` when it was said which there are.
async fn chosen(client: &DebugClient, args: &TraceArgs) -> Result<Option<ConnectionId>, Failure> {
    if let Some(named) = args.what.first() {
        let id = named.parse().map_err(|_| {
            Failure::usage(format!(
                "{named:?} is not the id of a connection: 16 hexadecimal digits, as in the log"
            ))
        })?;
        return Ok(Some(id));
    }
    let found = client.connections(&args.query()).await?;
    let ids: BTreeSet<&str> = found.iter().map(|view| view.connection.as_str()).collect();
    if let Some(id) = ids.first().filter(|_| ids.len() == 1) {
        return id
            .parse()
            .map(Some)
            .map_err(|_| Failure::internal("the node names no connection"));
    }
    if args.format == Format::Json {
        print_json(&found)?;
    } else if ids.is_empty() {
        let node: NodeView = client.get("/actors", &Value::Null).await?;
        print!(
            "{}",
            trace_text::none_fits(&node, &args.meant(), &DebugClient::flags(&args.which), width())
        );
    } else {
        print!(
            "{}",
            trace_text::several(&found, &DebugClient::flags(&args.which), width())
        );
    }
    not_chosen(args, ids.len())?;
    Ok(None)
}

/// It was said which connections there are; that was all that was asked, unless one is to be written or followed.
fn not_chosen(args: &TraceArgs, fit: usize) -> Outcome {
    let what = match (&args.save, args.follow) {
        (Some(_), _) => "saved",
        (None, true) => "followed",
        (None, false) => return Ok(()),
    };
    let why = match fit {
        0 => format!("no open connection fits, so nothing is {what}; one that ended lately is named by its id"),
        _ => format!("{fit} connections fit, and one at a time is {what}: repeat this with the id of one of the list"),
    };
    Err(Failure::failed(why))
}

fn print(trace: &Trace, format: Format) -> Outcome {
    match format {
        Format::Json => print_json(trace),
        Format::Text => {
            print!("{}", emphasised(&trace_text::page(trace, width())));
            Ok(())
        }
    }
}

/// Prints what is new, until nobody serves the connection any more.
async fn follow(client: &DebugClient, connection: ConnectionId, first: &Trace) -> Outcome {
    let mut told: BTreeSet<String> = trace_text::news(first).into_iter().collect();
    if trace_text::is_over(first) {
        println!("{}", trace_text::how_it_ended(first));
        return Ok(());
    }
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let trace = client.trace(connection).await?;
        let news = trace_text::news(&trace);
        for line in news.iter().filter(|line| !told.contains(*line)) {
            println!("{line}");
        }
        told = news.into_iter().collect();
        if trace_text::is_over(&trace) {
            println!("{}", trace_text::how_it_ended(&trace));
            return Ok(());
        }
        if !output::is_open() {
            return Ok(());
        }
    }
}

fn save(trace: &Trace, file: &Path) -> Outcome {
    let why = |error: std::io::Error| {
        Failure::failed(format!(
            "the trace cannot be written to {}: {error}; name a file that is not there yet",
            file.display()
        ))
    };
    let json = serde_json::to_vec_pretty(trace).map_err(Failure::internal)?;
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(why)?;
    out.write_all(&json).map_err(why)
}

fn read(file: &Path) -> Result<Trace, Failure> {
    let why = |error: &dyn std::fmt::Display| {
        Failure::failed(format!(
            "{} is not a trace that can be read: {error}; `postern trace --save FILE` writes one",
            file.display()
        ))
    };
    let length = std::fs::metadata(file).map_err(|error| why(&error))?.len();
    if length > FILE_MAX_BYTES {
        return Err(why(&format!("it has {length} bytes")));
    }
    let json = std::fs::read(file).map_err(|error| why(&error))?;
    serde_json::from_slice(&json).map_err(|error| why(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: TraceArgs,
    }

    #[test]
    fn what_cannot_be_saved_or_followed_as_none_is_chosen_fails_and_says_so() {
        let args = |words: &[&str]| {
            let line = <Line as clap::Parser>::try_parse_from([&["trace"], words].concat());
            line.expect("flags").args
        };
        let two = not_chosen(&args(&["--save", "f"]), 2).expect_err("nothing is written");
        assert_eq!(two.code, 1);
        assert!(
            two.message.contains("2 connections fit") && two.message.contains("saved"),
            "{two}"
        );
        let none = not_chosen(&args(&["--save", "f"]), 0).expect_err("nothing is written");
        assert!(
            none.code == 1 && none.message.contains("no open connection fits"),
            "{none}"
        );
        let followed = not_chosen(&args(&["--follow"]), 3).expect_err("nothing is followed");
        assert!(followed.message.contains("followed"), "{followed}");
        assert!(
            not_chosen(&args(&["--user", "alice"]), 2).is_ok(),
            "the list was asked for"
        );
    }

    #[test]
    fn a_saved_trace_is_its_owners_is_read_again_and_never_written_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("t.json");
        let trace = trace_text::tests::trace();
        save(&trace, &file).expect("saved");
        assert_eq!(file.metadata().expect("there").mode() & 0o777, 0o600);
        assert_eq!(read(&file).expect("read"), trace);
        assert!(
            save(&trace, &file)
                .expect_err("there")
                .to_string()
                .contains("not there yet")
        );
        std::fs::write(&file, "{}").expect("ours");
        assert!(read(&file).expect_err("none").to_string().contains("--save FILE"));
    }
}

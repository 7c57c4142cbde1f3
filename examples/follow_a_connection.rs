//! Follows one connection message by message through proxy and agent until it ends, as a program: the debug socket of a node, its
//! JSON, and the causal tree that `postern trace` draws from it.
//!
//! ```text
//! postern dev --tunnel                                       # one terminal
//! eval "$(postern dev env)"; psql -c 'select pg_sleep(60)'   # another
//! cargo run --example follow_a_connection -- ~/.postern-dev  # a third
//! ```

use postern::telemetry::tree::TraceTree;
use postern::telemetry::view::{ConnectionView, Trace};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::error::Error;
use std::io::{Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One question at the debug socket in a node's data directory. It is for root and the node's own account.
fn ask<T: DeserializeOwned>(data_dir: &Path, path: &str) -> Result<T, Box<dyn Error>> {
    let mut socket = UnixStream::connect(data_dir.join("debug.sock"))?;
    // HTTP/1.0: the answer ends with the connection.
    write!(socket, "GET {path} HTTP/1.0\r\nhost: postern\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if !head.starts_with("HTTP/1.0 200") {
        return Err(body.to_owned().into());
    }
    Ok(serde_json::from_str(body)?)
}

/// Writes who is connected and, of the first of them, everything that happened and happens for it, until it has ended.
pub fn follow(data_dir: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let connections: Vec<ConnectionView> = ask(data_dir, "/v1/connections")?;
    for connection in &connections {
        writeln!(out, "{} {}", connection.connection, connection.state)?;
    }
    let Some(first) = connections.first() else {
        writeln!(out, "nobody is connected")?;
        return Ok(());
    };
    let mut told: BTreeSet<String> = BTreeSet::new();
    loop {
        let trace: Trace = ask(data_dir, &format!("/v1/connections/{}/trace", first.connection))?;
        let now = lines(&trace);
        for line in now.iter().filter(|line| !told.contains(*line)) {
            writeln!(out, "{line}")?;
        }
        told = now.into_iter().collect();
        if !trace.parts.iter().any(|part| part.lives()) {
            writeln!(out, "the connection has ended")?;
            return Ok(());
        }
        out.flush()?;
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whatever there is to say of a connection at this moment. What lasts is said in other words each time, and told again.
fn lines(trace: &Trace) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in trace.parts.iter().flat_map(|part| &part.findings) {
        lines.push(format!("stuck: {} (next: {})", finding.sentence, finding.next));
    }
    for missing in &trace.missing {
        lines.push(format!("{} has said nothing: {}", missing.node, missing.why));
    }
    for line in TraceTree::of(trace).news() {
        let at = line.at_us.map(|us| format!("{:+.1} ms", us as f64 / 1000.0));
        let indent = "  ".repeat(line.depth as usize);
        let texts = line.texts.join(" ");
        lines.push(format!(
            "{:>12} {:<10} {indent}{texts}",
            at.unwrap_or_default(),
            line.node
        ));
    }
    lines
}

#[allow(dead_code, reason = "the tests call `follow` themselves")]
fn main() -> Result<(), Box<dyn Error>> {
    let data_dir = std::env::args_os()
        .nth(1)
        .ok_or("usage: follow_a_connection DATA_DIR")?;
    follow(Path::new(&data_dir), &mut std::io::stdout())
}

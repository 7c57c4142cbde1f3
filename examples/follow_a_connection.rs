//! Follows one connection message by message through proxy and agent, as a program: the debug socket of a node, its JSON, and the
//! causal tree that `postern trace` draws from it.
//!
//! ```text
//! postern dev --tunnel                                       # one terminal
//! eval "$(postern dev env)"; psql -c 'select pg_sleep(60)'   # another
//! cargo run --example follow_a_connection -- ~/.postern-dev  # a third
//! ```

use postern::telemetry::tree::TraceTree;
use postern::telemetry::view::{ConnectionView, Trace};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::io::{Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

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

/// Writes who is connected and, of the first of them, where it stands and everything that happened for it.
pub fn follow(data_dir: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let connections: Vec<ConnectionView> = ask(data_dir, "/v1/connections")?;
    for connection in &connections {
        writeln!(out, "{} {}", connection.connection, connection.state)?;
    }
    let Some(first) = connections.first() else {
        writeln!(out, "nobody is connected")?;
        return Ok(());
    };
    let trace: Trace = ask(data_dir, &format!("/v1/connections/{}/trace", first.connection))?;
    for part in &trace.parts {
        for finding in &part.findings {
            writeln!(out, "stuck: {} (next: {})", finding.sentence, finding.next)?;
        }
    }
    for missing in &trace.missing {
        writeln!(out, "{} has said nothing: {}", missing.node, missing.why)?;
    }
    for line in TraceTree::of(&trace).lines() {
        let at = line.at_us.map(|us| format!("{:+.1} ms", us as f64 / 1000.0));
        let indent = "  ".repeat(line.depth as usize);
        let texts = line.texts.join(" ");
        writeln!(out, "{:>12} {:<10} {indent}{texts}", at.unwrap_or_default(), line.node)?;
    }
    Ok(())
}

#[allow(dead_code, reason = "the tests call `follow` themselves")]
fn main() -> Result<(), Box<dyn Error>> {
    let data_dir = std::env::args_os()
        .nth(1)
        .ok_or("usage: follow_a_connection DATA_DIR")?;
    follow(Path::new(&data_dir), &mut std::io::stdout())
}

//! Every byte that nodes have written, and all that they answer to whoever looks into them.

use crate::harness::cluster::Node;
use crate::harness::process::run;
use crate::harness::wire::dial;
use crate::harness::{PATIENCE, TestDir, postern};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Something that was written or answered.
#[derive(Debug)]
pub struct Place {
    pub what: String,
    pub bytes: Vec<u8>,
    /// The audit log, or a spool.
    pub is_trail: bool,
}

impl Place {
    fn new(what: String, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            what,
            bytes: bytes.into(),
            is_trail: false,
        }
    }
}

/// All of a node that runs.
pub fn of(node: &Node) -> Vec<Place> {
    let name = node.config.name;
    let mut places = vec![
        Place::new(format!("{name}: stderr"), node.process().log_text()),
        Place::new(format!("{name}: /metrics"), http(dial(node.diag_port()), "/metrics")),
    ];
    debug_answers(node, &mut places);
    saved_traces(node, &mut places);
    files(name, &node.config.data_dir, &mut places);
    places
}

fn http(mut stream: impl Read + Write, path: &str) -> Vec<u8> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    answer
}

/// What the debug socket answers.
pub fn debug(node: &Node, path: &str) -> Vec<u8> {
    at_socket(node, "debug.sock", path)
}

/// What auth answers to the administrator of its machine.
pub fn admin(auth: &Node, path: &str) -> Vec<u8> {
    at_socket(auth, "admin.sock", path)
}

fn at_socket(node: &Node, socket: &str, path: &str) -> Vec<u8> {
    let socket = node.config.data_dir.join(socket);
    http(UnixStream::connect(socket).expect("it listens"), path)
}

pub fn json(answer: &[u8]) -> Value {
    let text = String::from_utf8_lossy(answer);
    let (_, body) = text.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn texts<'a>(list: &'a Value, field: &str) -> impl Iterator<Item = String> + use<'a> {
    let field = field.to_owned();
    let list = list.as_array().into_iter().flatten();
    list.filter_map(move |one| one[&field].as_str().map(str::to_owned))
}

/// The connections that a node knows, those that have ended too.
pub fn connections(node: &Node) -> BTreeSet<String> {
    let actors = json(&debug(node, "/v1/actors"));
    let open = json(&debug(node, "/v1/connections"));
    let ended = texts(&actors["exits"], "connection");
    texts(&open, "connection").chain(ended).collect()
}

fn debug_answers(node: &Node, places: &mut Vec<Place>) {
    let actors = debug(node, "/v1/actors");
    let mut paths = vec!["/v1/connections".to_owned(), "/v1/log-level".to_owned()];
    paths
        .extend(texts(&json(&actors)["actors"], "path").map(|path| format!("/v1/actors/{}", path.replace('#', "%23"))));
    paths.extend(connections(node).iter().map(|id| format!("/v1/connections/{id}/trace")));
    places.push(Place::new(format!("{}: /v1/actors", node.config.name), actors));
    for path in paths {
        let what = format!("{}: {path}", node.config.name);
        places.push(Place::new(what, debug(node, &path)));
    }
}

/// The traces of the open connections, as `postern trace --save` writes them, and as it prints them.
fn saved_traces(node: &Node, places: &mut Vec<Place>) {
    let directory = TestDir::new();
    let open = json(&debug(node, "/v1/connections"));
    for id in texts(&open, "connection").collect::<BTreeSet<_>>() {
        let file = directory.join(&id);
        let trace = |words: &[&str]| {
            let mut command = postern(directory.path());
            command
                .args(["trace", &id])
                .args(words)
                .arg("--data-dir")
                .arg(&node.config.data_dir);
            run(command, PATIENCE).ok()
        };
        trace(&["--save", &file.display().to_string()]);
        let what = format!("{}: the trace of {id}", node.config.name);
        places.push(Place::new(format!("{what}, printed"), trace(&[])));
        places.push(Place::new(
            format!("{what}, saved"),
            std::fs::read(&file).expect("saved"),
        ));
    }
}

fn files(name: &str, directory: &Path, places: &mut Vec<Place>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            files(name, &entry.path(), places);
        } else if kind.is_file() {
            // A segment of a spool goes away when all of it is confirmed.
            let Ok(bytes) = std::fs::read(entry.path()) else {
                continue;
            };
            let mut place = Place::new(format!("{name}: {}", entry.path().display()), bytes);
            place.is_trail = directory
                .components()
                .any(|part| ["log", "spool"].contains(&&*part.as_os_str().to_string_lossy()));
            places.push(place);
        }
    }
}

//! The rules about the source: which room may use which, and what may be named where. A rule that is only written down does not
//! hold for long.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The rooms in their order: a room uses those of the rows before its own, never its neighbours or what comes after.
const ORDER: [&[&str]; 8] = [
    &["model"],
    &["policy", "protocol"],
    &["pki", "store", "config"],
    &["net", "audit"],
    &["actors"],
    &["web"],
    &["node"],
    &["cli"],
];
/// `telemetry` knows `model` only, and is known to those that run things: actors, and threads that work for them.
const TELEMETRY_USERS: [&str; 7] = ["store", "net", "audit", "actors", "web", "node", "cli"];
/// Of a long file nobody sees the whole.
const MAX_LINES: usize = 600;

struct Source {
    /// Below `src`, with `/`.
    name: String,
    room: String,
    /// Without comments.
    code: String,
    lines: usize,
}

impl Source {
    /// The part that is compiled into the program: tests may stand on any room.
    fn shipped(&self) -> &str {
        let is_test =
            self.name.ends_with("tests.rs") || self.name.contains("/tests/") || self.name.ends_with("store/suite.rs");
        if is_test {
            ""
        } else {
            self.code.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
        }
    }

    /// The rooms that the shipped part names.
    fn uses(&self) -> BTreeSet<String> {
        let pattern =
            regex::Regex::new(r"\bcrate::(?:\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}|([a-z_]+))").expect("a pattern");
        let mut rooms = BTreeSet::new();
        for found in pattern.captures_iter(self.shipped()) {
            if let Some(room) = found.get(2) {
                rooms.insert(room.as_str().to_owned());
            }
            if let Some(group) = found.get(1) {
                rooms.extend(outermost_names(group.as_str()));
            }
        }
        rooms.remove(&self.room);
        rooms
    }
}

/// `model::{A, B}, pki` has the outermost names `model` and `pki`.
fn outermost_names(group: &str) -> Vec<String> {
    let (mut depth, mut part, mut names) = (0, String::new(), Vec::new());
    for letter in group.chars().chain([',']) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let name = part.trim().split("::").next().unwrap_or_default().trim().to_owned();
                if !name.is_empty() {
                    names.push(name);
                }
                part.clear();
            }
            _ if depth == 0 => part.push(letter),
            _ => {}
        }
    }
    names
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("the source").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files(&root().join("src"), &mut paths);
    assert!(paths.len() > 20, "the source is where it was");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let name = path
            .strip_prefix(root().join("src"))
            .expect("below")
            .display()
            .to_string();
        let room = name.split(['/', '.']).next().expect("a name").to_owned();
        let uncommented = |line: &str| {
            if line.trim_start().starts_with("//") {
                String::new()
            } else {
                line.to_owned()
            }
        };
        let code = text.lines().map(uncommented).collect::<Vec<_>>().join("\n");
        Source {
            name,
            room,
            code,
            lines: text.lines().count(),
        }
    };
    paths.into_iter().map(read).collect()
}

fn place(room: &str) -> Option<(usize, usize)> {
    ORDER
        .iter()
        .enumerate()
        .find_map(|(row, rooms)| Some((row, rooms.iter().position(|other| *other == room)?)))
}

fn may_use(room: &str, used: &str) -> bool {
    match (place(room), place(used)) {
        _ if room == "telemetry" => used == "model",
        _ if used == "telemetry" => TELEMETRY_USERS.contains(&room),
        (Some(here), Some(there)) => there.0 < here.0,
        _ => false,
    }
}

#[test]
fn rooms_depend_on_each_other_in_one_direction() {
    let mut wrong = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| !["lib", "main"].contains(&source.room.as_str()))
    {
        for used in source.uses().iter().filter(|used| !may_use(&source.room, used)) {
            wrong.push(format!("src/{} uses {used}", source.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "not allowed (the order is in tests/it/architecture.rs):\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_order_knows_every_room() {
    let unknown: BTreeSet<_> = sources()
        .into_iter()
        .map(|source| source.room)
        .filter(|room| place(room).is_none() && !["telemetry", "lib", "main"].contains(&room.as_str()))
        .collect();
    assert!(unknown.is_empty(), "give these rooms a place in the order: {unknown:?}");
}

/// The files of the program whose code matches the pattern.
fn naming(pattern: &str) -> Vec<String> {
    let pattern = regex::Regex::new(pattern).expect("a pattern");
    sources()
        .iter()
        .filter(|source| pattern.is_match(source.shipped()))
        .map(|source| source.name.clone())
        .collect()
}

#[test]
fn bincode_is_named_in_one_file() {
    let files = naming(r"\bbincode\b");
    assert!(
        files.len() == 1 && files[0].starts_with("protocol/tunnel/"),
        "{files:?}"
    );
}

#[test]
fn peers_of_version_1_know_nothing_of_todays_messages() {
    for file in ["bytes.rs", "v1.rs"] {
        let text = std::fs::read_to_string(root().join("tests/it/frozen").join(file)).expect("the museum");
        assert!(!text.contains("postern::"), "{file} names the program");
    }
}

#[test]
fn actix_is_named_in_the_actor_host_only() {
    let elsewhere: Vec<_> = naming(r"\bactix(_rt)?::|\buse actix")
        .into_iter()
        .filter(|file| !file.starts_with("actors/host/"))
        .collect();
    assert_eq!(elsewhere, Vec::<String>::new());
}

#[test]
fn sockets_are_named_in_one_file() {
    assert_eq!(naming(r"\btokio::net\b|\btokio::\{[^;]*\bnet\b"), ["net/socket.rs"]);
}

#[test]
fn the_clock_is_read_in_one_file() {
    assert_eq!(
        naming(r"\bSystemTime::now\b|\bjiff::[A-Za-z:]*now\b"),
        ["model/clock.rs"]
    );
    assert_eq!(
        naming(r"\bstd::time::Instant\b|\bstd::time::\{[^;]*\bInstant\b"),
        // The second counts failures at the moments that it is told.
        ["model/clock.rs", "model/failures.rs"]
    );
}

#[test]
fn unsafe_code_is_forbidden() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    assert!(manifest.lines().any(|line| line.trim() == "unsafe_code = \"forbid\""));
    assert_eq!(naming(r"\bunsafe\s*(\{|fn|impl)"), Vec::<String>::new());
}

#[test]
fn no_source_file_is_longer_than_600_lines() {
    let long: Vec<_> = sources()
        .iter()
        .filter(|s| s.lines > MAX_LINES)
        .map(|s| format!("{} has {}", s.name, s.lines))
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn no_room_is_a_drawer_for_anything() {
    let vague = |source: &Source| {
        ["util", "utils", "common", "helpers", "misc"]
            .iter()
            .any(|word| source.name.split(['/', '.']).any(|part| part == *word))
    };
    let found: Vec<_> = sources().into_iter().filter(vague).map(|source| source.name).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn every_file_of_tests_is_part_of_the_one_binary() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = std::fs::read_to_string(directory.join("main.rs")).expect("the list of modules");
    for entry in std::fs::read_dir(&directory).expect("tests") {
        let path = entry.expect("a file").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let is_module = path.is_dir() || path.extension().is_some_and(|extension| extension == "rs");
        assert!(
            !is_module || name == "main" || main.contains(&format!("mod {name};")),
            "tests/it/main.rs does not name {name}, so its tests never run"
        );
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let page = std::fs::read_to_string(root().join("docs/threat-model.md")).expect("the page");
    let mut paths = Vec::new();
    files(&root().join("src"), &mut paths);
    files(&root().join("tests/it"), &mut paths);
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("UTF-8");
    let code: String = paths.iter().map(read).collect();
    let named = regex::Regex::new(r"`(?:…|[a-z_]+)(?:::[a-z_]+)*::([a-z0-9_]+)`").expect("an expression");
    let named: Vec<&str> = named
        .captures_iter(&page)
        .filter_map(|found| found.get(1))
        .map(|name| name.as_str())
        .collect();
    assert!(named.len() > 50, "the tables are where they were");
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !code.contains(&format!("fn {name}(")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Three numbers of a version; what follows them does not count here.
fn version(text: &str) -> [u32; 3] {
    let numbers: Vec<u32> = text
        .split(['.', '-', '+'])
        .map_while(|part| part.parse().ok())
        .collect();
    [0, 1, 2].map(|place| numbers.get(place).copied().unwrap_or(0))
}

#[test]
fn known_faults_of_crates_are_below_the_floors_of_what_is_built() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).expect("UTF-8");
    let (deny, lock) = (read("deny.toml"), read("Cargo.lock"));
    let package = regex::Regex::new(r#"name = "([^"]+)"\nversion = "([^"]+)""#).expect("an expression");
    let built: Vec<(&str, [u32; 3])> = package
        .captures_iter(&lock)
        .map(|found| {
            let [name, number] = found.extract().1;
            (name, version(number))
        })
        .collect();
    let floor = regex::Regex::new(r#"crate = "([a-z0-9-]+):<([0-9.]+)""#).expect("an expression");
    let mut floors = BTreeSet::new();
    for found in floor.captures_iter(&deny) {
        let [name, least] = found.extract().1;
        floors.insert(name);
        let below: Vec<_> = built
            .iter()
            .filter(|(other, number)| *other == name && *number < version(least))
            .collect();
        assert!(below.is_empty(), "{name} below {least}: {below:?}");
    }
    for name in [
        "yamux",
        "h2",
        "rustls",
        "rustls-webpki",
        "bytes",
        "tokio",
        "tokio-postgres",
        "postgres-protocol",
        "lru",
        "sqlx",
    ] {
        assert!(floors.contains(name), "{name} has no floor in deny.toml");
    }
    assert!(built.iter().any(|(name, _)| *name == "yamux"), "the lock file is read");
}

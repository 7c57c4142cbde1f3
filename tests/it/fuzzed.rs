//! The corpus of the fuzz targets, each file as it is and with small changes to it, the same in every run. What the fuzzer found
//! once is found again here, without a fuzzer. See "Fuzzing" in CONTRIBUTING.md. POSTERN_CHANGES=100 makes a hundred times as many changes.

#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;

use std::path::{Path, PathBuf};
use targets::{ALL, Target};

/// Of a file longer than this the changes are left out: they would take longer than what is seen in them is worth.
const MAX_CHANGED_BYTES: usize = 16 * 1024;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has no corpus");
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("a file of the corpus");
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// Numbers that look random and are the same in every run (a linear congruence, Knuth's MMIX).
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

/// One change: a bit, a byte of those that lengths and signs turn on, the end cut off, a part twice, or the end of another file.
fn changed(bytes: &[u8], other: &[u8], draws: &mut Draws) -> Vec<u8> {
    const SHARP: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfb, 0xfd, 0xfe, 0xff];
    let mut out = bytes.to_vec();
    let at = draws.below(out.len());
    match draws.below(5) {
        0 => out.truncate(at),
        1 => {
            let end = at + draws.below(out.len() - at + 1);
            out.splice(at..at, bytes[at..end].iter().copied());
        }
        2 => {
            out.truncate(at);
            out.extend_from_slice(&other[draws.below(other.len())..]);
        }
        change => {
            if let Some(byte) = out.get_mut(at) {
                *byte = if change == 3 {
                    *byte ^ 1 << draws.below(8)
                } else {
                    SHARP[draws.below(8)]
                };
            }
        }
    }
    out
}

/// Names the input that fails: its file and its bytes, which belong into the corpus then.
fn run(target: &Target, path: &Path, bytes: &[u8]) {
    struct Name<'a>(&'a Path, &'a [u8]);
    impl Drop for Name<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}, perhaps changed: {}", self.0.display(), self.1.escape_ascii());
            }
        }
    }
    let _name = Name(path, bytes);
    (target.run)(bytes);
}

fn replay(name: &str, changes: usize) {
    let target = ALL
        .iter()
        .find(|target| target.name == name)
        .expect("a target of that name");
    let corpus = corpus(name);
    let times = std::env::var("POSTERN_CHANGES").map_or(1, |times| times.parse().expect("a number"));
    let changes = changes * times;
    let mut draws = Draws(17);
    for (path, bytes) in &corpus {
        run(target, path, bytes);
        if bytes.len() > MAX_CHANGED_BYTES {
            continue;
        }
        for _ in 0..changes {
            let (_, other) = &corpus[draws.below(corpus.len())];
            let mut input = changed(bytes, other, &mut draws);
            if draws.below(2) == 0 {
                input = changed(&input, other, &mut draws);
            }
            run(target, path, &input);
        }
    }
}

macro_rules! replayed {
    ($($name:ident: $changes:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), $changes);
        })*

        #[test]
        fn every_target_is_replayed_and_every_corpus_has_a_target() {
            let mut replayed = [$(stringify!($name)),*];
            replayed.sort_unstable();
            let mut targets: Vec<_> = ALL.iter().map(|target| target.name).collect();
            targets.sort_unstable();
            assert_eq!(replayed[..], targets[..]);
            let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let names = |directory: &str| {
                let entries = std::fs::read_dir(fuzz.join(directory)).expect("a directory");
                let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
                names.sort();
                names.iter().map(|path| path.file_stem().expect("a name").display().to_string()).collect::<Vec<_>>()
            };
            assert_eq!(names("corpus"), targets);
            assert_eq!(names("fuzz_targets"), targets);
        }
    };
}

// So many changes to each file that a target takes a fraction of a second; those that write to a disk get fewer.
replayed! {
    startup: 200,
    proxy_header: 200,
    frontend: 15,
    backend: 40,
    exchange: 200,
    node_frames: 20,
    node_messages: 60,
    config: 20,
    resources: 20,
    words: 40,
    certificates: 20,
    audit_spool: 2,
    audit_log: 2,
}

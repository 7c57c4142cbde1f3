//! What is fuzzed: readers of bytes that a peer, a person or a disk gives, each with the properties that hold for all bytes.
//!
//! Only the library's public interface is used. A property that does not hold is a panic, which the fuzzer keeps the input of and
//! a test fails by.

mod audit;
mod backend;
mod certificates;
mod documents;
mod edge;
mod frontend;
mod nodes;
mod startup;
mod words;

/// One reader with its properties. Its corpus is `fuzz/corpus/NAME`.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const ALL: &[Target] = &[
    Target {
        name: "startup",
        run: startup::startup,
    },
    Target {
        name: "proxy_header",
        run: edge::proxy_header,
    },
    Target {
        name: "frontend",
        run: frontend::frontend,
    },
    Target {
        name: "backend",
        run: backend::backend,
    },
    Target {
        name: "exchange",
        run: backend::exchange,
    },
    Target {
        name: "node_frames",
        run: nodes::frames,
    },
    Target {
        name: "node_messages",
        run: nodes::messages,
    },
    Target {
        name: "config",
        run: documents::config,
    },
    Target {
        name: "resources",
        run: documents::resources,
    },
    Target {
        name: "words",
        run: words::words,
    },
    Target {
        name: "certificates",
        run: certificates::certificates,
    },
    Target {
        name: "audit_spool",
        run: audit::spool,
    },
    Target {
        name: "audit_log",
        run: audit::log,
    },
];

/// Beyond this many bytes a stream is not given byte by byte, which would take too long.
const MAX_SINGLE_BYTES: usize = 2048;

/// Ways to cut a stream: byte by byte, and in pieces whose sizes come from the bytes themselves, small and large.
fn splits(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let seed = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut all = Vec::new();
    if bytes.len() <= MAX_SINGLE_BYTES {
        all.push(bytes.chunks(1).collect());
    }
    for (most, salt) in [(9, 1), (5_000, 2)] {
        let (mut rest, mut draw) = (bytes, seed ^ salt);
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            draw = draw
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let size = 1 + (draw >> 33) as usize % most;
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        all.push(chunks);
    }
    all
}

/// Bytes that a sequence of three may stand for, and all of them together.
const MAX_EXPANDED: usize = 300 * 1024;

/// Lets a short input stand for a long stream: `0xfe n b` is `n` times 256 bytes `b`. Inputs of a fuzzer are short, and what is
/// said in parts begins at 64 KiB.
fn expanded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (0xfe, [times, byte, after @ ..]) if out.len() + 256 * usize::from(*times) <= MAX_EXPANDED => {
                out.resize(out.len() + 256 * usize::from(*times), *byte);
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Errors are for people: of some length, and without what would write on their terminals.
fn is_a_sentence(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(
        !text.is_empty() && text.chars().count() < 2000,
        "{} characters: {text}",
        text.chars().count()
    );
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "control characters: {text:?}"
    );
}

//! The largest things that clients send and read, and what they cost the nodes in memory. A campaign: PostgreSQL and the client need gigabytes.

use super::Row;
use super::psycopg::function_as;
use crate::harness::{Cluster, Form, Stopwatch, figure};

/// What a node may hold at its most, whatever passes.
const MEMORY_LIMIT_MIB: u64 = 100;

const FUNCTIONS: &[&str] = &[
    "most_parameters",
    "ten_thousand_in_a_pipeline",
    "large_row",
    "large_parameter",
    "large_statement",
];

pub const ROWS: &[Row] = &[
    Row {
        what: "65,535 parameters of a statement",
        result: "works",
    },
    Row {
        what: "10,000 statements in one pipeline, 20 MB of results",
        result: "works",
    },
    Row {
        what: "a row of 500 MB",
        result: "works",
    },
    Row {
        what: "a parameter of 256 MB",
        result: "works",
    },
    Row {
        what: "a statement of 512 MB",
        result: "works",
    },
    Row {
        what: "the most memory that any node held meanwhile",
        result: "below 100 MB",
    },
];

#[test]
#[ignore = "gigabytes in PostgreSQL and the client: make campaign-large"]
fn the_largest_things_pass_in_little_memory() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    for name in FUNCTIONS {
        let started = Stopwatch::start();
        function_as(&client, name);
        figure(&format!(
            "{name}: {:.1} s, peak memory in MB {:?}",
            started.elapsed().as_secs_f32(),
            cluster.peak_memory()
        ));
    }
    for (node, peak) in cluster.peak_memory() {
        assert!(peak < MEMORY_LIMIT_MIB, "{node} held {peak} MB");
    }
}

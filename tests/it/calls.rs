//! The system calls that a statement and a megabyte cost proxy and agent: what tells, on any machine and beside anything, that the
//! path of bytes writes, reads and waits no more often than it has to.
//!
//! One client, so that nothing of others shares a call: with more of them a statement costs less. The optimised program makes the
//! same calls. A bound is a quarter above what was seen in a dozen runs, some of them beside a busy loop for each processor.

use crate::harness::strace::{Calls, Strace};
use crate::harness::{Cluster, Form, Kind, Stopwatch, Wire, figure};

const STATEMENTS: usize = 2000;
/// So many before it is counted: buffers are there, and the rules have been read.
const WARM: usize = 50;
/// 64 MiB.
const ROWS: usize = 65_536;
/// With its line feed.
const ROW: usize = 1024;
const ROWS_OF_A_MESSAGE: usize = 32;

const WRITES: &[&str] = &[
    "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg",
];
const READS: &[&str] = &[
    "read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg", "recvmmsg",
];
const WAITS: &[&str] = &["epoll_wait", "epoll_pwait", "epoll_pwait2"];

/// A node is asked and is answered, so that it does twice what one message needs. Fewer than that cannot be: whoever counts fewer
/// has not counted all threads.
const MESSAGES_OF_A_STATEMENT: f64 = 2.0;
/// Seen: 2.1 to 2.3. The proxy writes into the tunnel and to the client, the agent to PostgreSQL and into the tunnel: one flush for
/// each turn, below yamux too. The rest carries events to auth (a batch each 200 ms) and wakes threads.
const WRITES_FOR_A_STATEMENT: f64 = 2.5;
/// Seen: 2.0 to 2.1. From the same sockets the other way. None is for nothing: a read that did not fill its buffer says by itself that
/// nothing is left.
const READS_FOR_A_STATEMENT: f64 = 2.5;
/// Seen: 2.0 to 2.3. Before each message there is nothing to do, and the thread waits.
const WAITS_FOR_A_STATEMENT: f64 = 2.5;
/// Seen: 6.2 to 7.4, the most where it took 20 s. Two each of the above; events into the agent's spool, memory, locks.
const CALLS_FOR_A_STATEMENT: f64 = 7.5;

/// Seen: 31 to 37. 30.5 reads of 32 KiB (`READ_BYTES`) from the socket under TLS, and some that find less.
const READS_FOR_A_MB: f64 = 46.0;
/// Seen: 18.5 to 21.6. A turn's frames, with their headers, fill what gathers below yamux (`GATHER_BYTES`), but for those that end with
/// the window: a quarter of a MB.
const WRITES_INTO_THE_TUNNEL_FOR_A_MB: f64 = 27.0;
/// Seen: 22 to 26. 15.3 writes of 64 KiB (`COPY_BYTES`, and what rustls takes at once), and what lets the sender of the stream go on, with
/// each half of its window of 256 KiB.
const WRITES_OUT_OF_THE_TUNNEL_FOR_A_MB: f64 = 32.0;
/// Seen: 55 to 79. The above, and 1 to 15 waits where the other end was slower, which depends on the machine, as does the memory
/// (up to 10) that threads take and give back.
const CALLS_FOR_A_MB: f64 = 98.0;

/// What a node does by itself for each second, on top: announcements, heartbeats, the audit trail, metrics. Seen at rest: up to 116
/// while events of the last statements were on their way, 36 to 50 otherwise.
const BACKGROUND_A_SECOND: f64 = 100.0;
/// Of these, calls of one kind. Seen in runs of 20 s and of 4 s: 10 to 32.
const BACKGROUND_OF_A_KIND_A_SECOND: f64 = 25.0;

/// The most that a unit of work may cost.
struct Most {
    writes: f64,
    reads: f64,
    waits: f64,
    all: f64,
}

const STATEMENT: Most = Most {
    writes: WRITES_FOR_A_STATEMENT,
    reads: READS_FOR_A_STATEMENT,
    waits: WAITS_FOR_A_STATEMENT,
    all: CALLS_FOR_A_STATEMENT,
};
const MB_INTO_THE_TUNNEL: Most = Most {
    writes: WRITES_INTO_THE_TUNNEL_FOR_A_MB,
    reads: READS_FOR_A_MB,
    waits: CALLS_FOR_A_MB,
    all: CALLS_FOR_A_MB,
};
const MB_OUT_OF_THE_TUNNEL: Most = Most {
    writes: WRITES_OUT_OF_THE_TUNNEL_FOR_A_MB,
    ..MB_INTO_THE_TUNNEL
};

/// What one node called, for how much work, and how long it took.
struct Counted {
    node: String,
    calls: Calls,
    units: f64,
    seconds: f64,
}

impl Counted {
    /// What was too much, in words.
    fn beyond(&self, most: &Most) -> Vec<String> {
        let kinds = [
            (
                "writes",
                self.calls.of(WRITES),
                most.writes,
                BACKGROUND_OF_A_KIND_A_SECOND,
            ),
            ("reads", self.calls.of(READS), most.reads, BACKGROUND_OF_A_KIND_A_SECOND),
            ("waits", self.calls.of(WAITS), most.waits, BACKGROUND_OF_A_KIND_A_SECOND),
            ("calls", self.calls.all(), most.all, BACKGROUND_A_SECOND),
        ];
        let too_many = kinds.into_iter().filter_map(|(kind, calls, most, background)| {
            let allowed = most * self.units + background * self.seconds;
            (calls as f64 > allowed).then(|| {
                format!(
                    "{}: {calls} {kind} for {:.0} in {:.1} s, where {allowed:.0} are allowed: {}",
                    self.node,
                    self.units,
                    self.seconds,
                    self.calls.for_each_of(self.units)
                )
            })
        });
        too_many.collect()
    }

    /// Every statement has passed this node, there and back.
    fn is_whole(&self) -> bool {
        let messages = MESSAGES_OF_A_STATEMENT * self.units;
        [WRITES, READS]
            .iter()
            .all(|kind| self.calls.of(kind) as f64 >= messages)
    }
}

/// What proxy and agent call while `work` is done.
fn count(cluster: &Cluster, unit: &str, units: f64, work: impl FnOnce()) -> [Counted; 2] {
    // What the first calls while strace takes hold of the second counts, too.
    let started = Stopwatch::start();
    let nodes = [Kind::Proxy, Kind::Agent].map(|kind| cluster.node(kind).process());
    let attached = nodes.map(Strace::attach);
    work();
    let calls = attached.map(Strace::detach);
    let seconds = started.elapsed().as_secs_f64();
    let counted = |(node, calls): (&str, Calls)| Counted {
        node: node.to_owned(),
        calls,
        units,
        seconds,
    };
    let [of_proxy, of_agent] = calls;
    let both = [(nodes[0].name.as_str(), of_proxy), (nodes[1].name.as_str(), of_agent)].map(counted);
    for one in &both {
        figure(&format!(
            "system calls of {} for {unit}, of {units:.0} in {seconds:.1} s: {:.1} ({})",
            one.node,
            one.calls.all() as f64 / units,
            one.calls.for_each_of(units)
        ));
    }
    both
}

#[test]
fn a_statement_of_a_client_alone_costs_each_node_one_write_there_and_one_back() {
    let cluster = Cluster::start(Form::Apart);
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("allowed");
    let mut simple = |times| {
        for _ in 0..times {
            assert_eq!(wire.query("select 1"), Ok(vec!["1".to_owned()]));
        }
    };
    simple(WARM);
    let of_simple = count(&cluster, "a simple statement", STATEMENTS as f64, || simple(STATEMENTS));

    wire.send(&[(b'P', b"one\0select 1\0\0\0"), (b'S', b"")]);
    assert_eq!(wire.types_to(b'Z'), "1Z");
    let mut prepared = |times| {
        for _ in 0..times {
            wire.send(&[(b'B', b"\0one\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0"), (b'S', b"")]);
            assert_eq!(wire.types_to(b'Z'), "2DCZ");
        }
    };
    prepared(WARM);
    let of_prepared = count(&cluster, "a prepared statement", STATEMENTS as f64, || {
        prepared(STATEMENTS);
    });

    let all: Vec<Counted> = of_simple.into_iter().chain(of_prepared).collect();
    assert!(all.iter().all(Counted::is_whole), "strace has not counted every thread");
    let beyond: Vec<String> = all.iter().flat_map(|one| one.beyond(&STATEMENT)).collect();
    assert!(beyond.is_empty(), "{}", beyond.join("\n"));
}

#[test]
fn a_megabyte_of_a_copy_costs_each_node_no_more_calls_than_its_buffers_make_it() {
    let cluster = Cluster::start(Form::Apart);
    cluster.postgres.admin(
        "app",
        "create unlogged table sink (line text); alter table sink owner to app",
    );
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("allowed");
    let megabytes = (ROWS * ROW) as f64 / 1e6;

    let rows = format!("select repeat('x', {}) from generate_series(1, {ROWS})", ROW - 1);
    let [proxy_down, agent_down] = count(&cluster, "a MB down", megabytes, || {
        wire.begin_query(&format!("copy ({rows}) to stdout"));
        let types = wire.types_to(b'Z');
        assert_eq!(types.matches('d').count(), ROWS);
    });

    let mut line = vec![b'y'; ROW - 1];
    line.push(b'\n');
    let lines = line.repeat(ROWS_OF_A_MESSAGE);
    let [proxy_up, agent_up] = count(&cluster, "a MB up", megabytes, || {
        wire.begin_query("copy sink from stdin");
        wire.hears(b'G');
        for _ in 0..ROWS / ROWS_OF_A_MESSAGE {
            wire.send(&[(b'd', &lines)]);
        }
        wire.send(&[(b'c', b"")]);
        assert_eq!(wire.types_to(b'Z'), "CZ");
    });
    assert_eq!(
        cluster.postgres.admin("app", "select count(*) from sink").trim(),
        ROWS.to_string()
    );

    let beyond: Vec<String> = [
        (agent_down, MB_INTO_THE_TUNNEL),
        (proxy_down, MB_OUT_OF_THE_TUNNEL),
        (proxy_up, MB_INTO_THE_TUNNEL),
        (agent_up, MB_OUT_OF_THE_TUNNEL),
    ]
    .iter()
    .flat_map(|(one, most)| one.beyond(most))
    .collect();
    assert!(beyond.is_empty(), "{}", beyond.join("\n"));
}

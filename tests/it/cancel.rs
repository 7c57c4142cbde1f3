//! Ctrl-C in psql, and every other way to a cancel: through any proxy, with and without TLS; and what it does not do.

use crate::clients::function_as;
use crate::harness::cluster::{role, user};
use crate::harness::wire::{cancel_encrypted, cancel_plain};
use crate::harness::{
    Client, Cluster, FIVE_SECONDS, Form, PATIENCE, Session, Stopwatch, Wire, figure, in_both_forms, shared, until,
};
use crate::proxies::{More, at, connects};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread;

in_both_forms! {
    ctrl_c_in_psql_cancels_the_statement_and_the_session_goes_on,
    ctrl_c_works_after_the_certificates_of_the_session_have_ended,
    a_cancel_request_with_a_wrong_key_cancels_nothing,
    each_version_of_the_protocol_is_answered_as_postgresql_18_does,
    a_cancel_reaches_only_the_session_that_owns_the_key,
    a_key_of_a_session_that_is_over_cancels_nothing,
    postgresqls_own_key_is_told_to_nobody,
}

fn ctrl_c_in_psql_cancels_the_statement_and_the_session_goes_on(form: Form) {
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::on_a_terminal(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    psql.say("select pg_sleep(60) /* to be cancelled */;");
    cluster.postgres.wait_until_runs("app", "to be cancelled");
    let pressed = Stopwatch::start();
    psql.press_ctrl_c();
    psql.hears("57014", FIVE_SECONDS);
    figure(&format!(
        "Ctrl-C to 57014, {form:?}: {} ms",
        pressed.elapsed().as_millis()
    ));
    psql.ask("select 'still ' || 'here';", "still here");
    cluster.audited("alice", "PDB01I", |event| {
        event["success"] == true
            && event["addr.remote"]
                .as_str()
                .is_some_and(|from| from.starts_with("127.0.0.1:"))
    });
}

/// The agent's certificate for PostgreSQL ends with the person's.
fn ctrl_c_works_after_the_certificates_of_the_session_have_ended(form: Form) {
    let cluster = shared(form);
    // Somebody for whom the agent has no certificate yet.
    cluster
        .create(&(role("lingering", "app") + "---\n" + &user("lingerer", "lingering", "")))
        .ok();
    let client = cluster.signed_client(&["--db-service", "orders", "--ttl=5s"], "lingerer", "app", "app");
    let mut psql = Session::on_a_terminal(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    until("the certificate has ended", PATIENCE, || Wire::connect(&client).err());
    // PostgreSQL looks at whole seconds.
    thread::sleep(std::time::Duration::from_secs(2));
    psql.say("select pg_sleep(60) /* cancelled late */;");
    cluster.postgres.wait_until_runs("app", "cancelled late");
    psql.press_ctrl_c();
    psql.hears("57014", FIVE_SECONDS);
}

fn a_cancel_request_with_a_wrong_key_cancels_nothing(form: Form) {
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::open(&client);
    psql.say("select pg_sleep(1.5) /* not to be cancelled */, 'slept ' || 'well';");
    cluster.postgres.wait_until_runs("app", "not to be cancelled");
    for process_id in [1u32, 2, 3, 4, 1000] {
        let key = [process_id.to_be_bytes(), 0x0102_0304u32.to_be_bytes()].concat();
        cancel_plain(client.port, &key);
        cancel_encrypted(&client, &key);
    }
    psql.hears("slept well", FIVE_SECONDS * 2);
}

fn each_version_of_the_protocol_is_answered_as_postgresql_18_does(form: Form) {
    const UNKNOWN: &str = "_pq_.test_protocol_negotiation";
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let negotiation = |minor: u8, options: &[&str]| -> Option<Vec<u8>> {
        let mut body = vec![0, 3, 0, minor, 0, 0, 0, u8::try_from(options.len()).expect("few")];
        for option in options {
            body.extend(option.as_bytes());
            body.push(0);
        }
        Some(body)
    };
    for (minor, options, negotiated, secret_bytes) in [
        (0, &[][..], None, 4),
        (0, &[UNKNOWN], negotiation(0, &[UNKNOWN]), 4),
        (1, &[], None, 4),
        (2, &[], None, 32),
        (2, &[UNKNOWN], negotiation(2, &[UNKNOWN]), 32),
        (3, &[], negotiation(2, &[]), 32),
        (9_999, &[UNKNOWN], negotiation(2, &[UNKNOWN]), 32),
    ] {
        let parameters: Vec<_> = options.iter().flat_map(|name| [*name, "on"]).collect();
        let mut wire = Wire::connect_speaking(&client, minor, &parameters).expect("allowed");
        assert_eq!(wire.negotiated, negotiated, "3.{minor} {options:?}");
        assert_eq!(wire.cancel_key.len(), 4 + secret_bytes, "3.{minor} {options:?}");
        wire.begin_query(&format!("select pg_sleep(60) /* asked in 3.{minor} {form:?} */"));
        cluster
            .postgres
            .wait_until_runs("app", &format!("asked in 3.{minor} {form:?}"));
        cancel_encrypted(&client, &wire.cancel_key);
        assert_eq!(wire.ended_with(FIVE_SECONDS).code, "57014");
    }
}

/// A session that does something which is found by `name`.
fn busy(cluster: &Cluster, client: &Client, minor: u16, name: &str) -> Wire {
    let mut wire = Wire::connect_speaking(client, minor, &[]).expect("allowed");
    wire.begin_query(&format!("select pg_sleep(60) /* {name} */"));
    cluster.postgres.wait_until_runs(&client.db_name, name);
    wire
}

/// Closes a session, and waits until PostgreSQL has ended it, before which its key is worth something.
fn ends(cluster: &Cluster, wire: Wire) {
    let process_id = u32::from_be_bytes(wire.cancel_key[..4].try_into().expect("four bytes"));
    drop(wire);
    until("its PostgreSQL has ended", PATIENCE, || {
        let left = format!("select count(*) from pg_stat_activity where pid = {process_id}");
        (cluster.postgres.admin("app", &left).trim() == "0").then_some(())
    });
}

fn a_cancel_reaches_only_the_session_that_owns_the_key(form: Form) {
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    for minor in [0, 2] {
        let name = |which| format!("{which} of two in 3.{minor} {form:?}");
        let mut first = busy(&cluster, &client, minor, &name("the first"));
        let mut second = busy(&cluster, &client, minor, &name("the second"));
        // The process id of one with the secret of the other is nobody's key.
        let mixed = [&first.cancel_key[..4], &second.cancel_key[4..]].concat();
        cancel_plain(client.port, &mixed);
        cancel_plain(client.port, &second.cancel_key);
        assert_eq!(second.ended_with(FIVE_SECONDS).code, "57014");
        cluster.postgres.wait_until_runs("app", &name("the first"));
        cancel_plain(client.port, &first.cancel_key);
        assert_eq!(first.ended_with(FIVE_SECONDS).code, "57014");
    }
}

fn a_key_of_a_session_that_is_over_cancels_nothing(form: Form) {
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let over = Wire::connect(&client).expect("allowed");
    let key = over.cancel_key.clone();
    ends(&cluster, over);
    let name = format!("a replayed key {form:?}");
    let mut wire = busy(&cluster, &client, 0, &name);
    cancel_plain(client.port, &key);
    cancel_encrypted(&client, &key);
    cluster.postgres.wait_until_runs("app", &name);
    // That it would have been cancelled shows its own key, twice.
    for _ in 0..2 {
        cancel_plain(client.port, &wire.cancel_key);
        assert_eq!(wire.ended_with(FIVE_SECONDS).code, "57014");
        wire.hears(b'Z');
        wire.begin_query(&format!("select pg_sleep(60) /* {name} */"));
        cluster.postgres.wait_until_runs("app", &name);
    }
}

fn postgresqls_own_key_is_told_to_nobody(form: Form) {
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let name = format!("the key at PostgreSQL {form:?}");
    let mut wire = busy(&cluster, &client, 0, &name);
    // PostgreSQL takes a CancelRequest from anybody who has its key: the client has another one.
    cancel_plain(cluster.postgres.port, &wire.cancel_key);
    cluster.postgres.wait_until_runs("app", &name);
    cancel_plain(client.port, &wire.cancel_key);
    assert_eq!(wire.ended_with(FIVE_SECONDS).code, "57014");
}

/// A cluster with more proxies, each for one test.
struct Stage {
    cluster: Cluster,
    more: More,
    /// Where clients are cancelled whose sessions are elsewhere.
    other: usize,
    flooded: usize,
    /// With `cancel_without_tls: no`.
    with_tls_only: usize,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let cluster = Cluster::start(Form::Apart);
    let mut more = More::new();
    let other = more.proxy(&cluster, "proxy-2");
    let flooded = more.proxy(&cluster, "proxy-3");
    let with_tls_only = more.proxy_with(&cluster, "proxy-4", "  cancel_without_tls: no\n");
    Stage {
        cluster,
        more,
        other,
        flooded,
        with_tls_only,
    }
});

impl Stage {
    /// A client whose proxy has the agent's tunnels.
    fn client_at(&self, proxy: usize) -> Client {
        let client = at(&self.cluster.client("alice", "app", "app"), self.more.port(proxy));
        drop(connects("the agent has found the proxy", &client));
        client
    }

    fn failed(&self, node: &str) -> Vec<serde_json::Value> {
        let events = self.cluster.audit(&["--event", "db.session.cancel"]);
        let of_node = |event: &serde_json::Value| event["code"] == "PDB01W" && event["server_hostname"] == node;
        events.into_iter().filter(of_node).collect()
    }
}

/// A balancer in front of two proxies: the first connection goes to one, all others to the other.
fn balancer(first: u16, others: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let to = if number == 0 { first } else { others };
            let (Ok(client), Ok(proxy)) = (client, TcpStream::connect((Ipv4Addr::LOCALHOST, to))) else {
                return;
            };
            for (mut from, mut to) in [
                (
                    client.try_clone().expect("a socket"),
                    proxy.try_clone().expect("a socket"),
                ),
                (proxy, client),
            ] {
                thread::spawn(move || {
                    let _either_end = std::io::copy(&mut from, &mut to);
                    let _closed = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    port
}

#[test]
fn a_cancel_that_reaches_another_proxy_finds_its_session() {
    let stage = &*STAGE;
    let client = stage.cluster.client("alice", "app", "app");
    let there = stage.client_at(stage.other);
    let mut over = Vec::new();
    for (minor, encrypted) in [(0, false), (0, true), (2, false), (2, true)] {
        let name = format!("cancelled elsewhere in 3.{minor} {encrypted}");
        let mut wire = busy(&stage.cluster, &client, minor, &name);
        let asked = Stopwatch::start();
        if encrypted {
            cancel_encrypted(&there, &wire.cancel_key);
        } else {
            cancel_plain(there.port, &wire.cancel_key);
        }
        figure(&format!(
            "cancel at another proxy, 3.{minor}, TLS {encrypted}: {} ms",
            asked.elapsed().as_millis()
        ));
        assert_eq!(wire.ended_with(FIVE_SECONDS).code, "57014", "{name}");
        let key = wire.cancel_key.clone();
        ends(&stage.cluster, wire);
        // Replayed, it cancels nothing, and is answered in the same way.
        cancel_plain(there.port, &key);
        over = key;
    }
    assert!(stage.failed("proxy-1").is_empty(), "nobody has failed there");
    until("a replayed key is audited", PATIENCE, || {
        // PostgreSQL ends a moment before the agent has written the session's end.
        cancel_plain(there.port, &over);
        stage.failed("proxy-2").into_iter().find(|event| {
            event["error"] == "no session has this key"
                && event["addr.remote"]
                    .as_str()
                    .is_some_and(|from| from.starts_with("127.0.0.1:"))
        })
    });
}

#[test]
fn ctrl_c_of_psql_and_cancels_of_libpq_18_work_behind_a_balancer_of_two_proxies() {
    let stage = &*STAGE;
    let client = stage.cluster.client("alice", "app", "app");
    let there = stage.client_at(stage.other).port;
    let balanced = || at(&client, balancer(client.port, there));
    let mut psql = Session::on_a_terminal(&balanced());
    psql.ask("select 'con' || 'nected';", "connected");
    psql.say("select pg_sleep(60) /* through a balancer */;");
    stage.cluster.postgres.wait_until_runs("app", "through a balancer");
    psql.press_ctrl_c();
    psql.hears("57014", FIVE_SECONDS);
    psql.ask("select 'still ' || 'here';", "still here");
    for function in ["cancel_encrypted", "cancel_plain"] {
        function_as(&balanced(), function);
    }
}

#[test]
fn without_tls_nothing_is_cancelled_where_the_configuration_says_so_and_with_tls_it_is() {
    let stage = &*STAGE;
    let client = stage.client_at(stage.with_tls_only);
    let mut wire = busy(&stage.cluster, &client, 2, "with TLS only");
    cancel_plain(client.port, &wire.cancel_key);
    until("it is audited", PATIENCE, || {
        let failed = stage.failed("proxy-4");
        failed
            .into_iter()
            .find(|event| event["error"].as_str().is_some_and(|why| why.contains("without TLS")))
    });
    stage.cluster.postgres.wait_until_runs("app", "with TLS only");
    cancel_encrypted(&client, &wire.cancel_key);
    assert_eq!(wire.ended_with(FIVE_SECONDS).code, "57014");
}

#[test]
fn a_flood_of_wrong_keys_is_one_event_and_stops_no_long_key() {
    const FLOOD: u32 = 300;
    let stage = &*STAGE;
    let client = stage.client_at(stage.flooded);
    let mut short = busy(&stage.cluster, &client, 0, "a short key in a flood");
    let mut long = busy(&stage.cluster, &client, 2, "a long key in a flood");
    let flooding = Stopwatch::start();
    for guess in 0..FLOOD {
        let key = [&short.cancel_key[..4], &guess.to_be_bytes()].concat();
        cancel_plain(client.port, &key);
    }
    figure(&format!("{FLOOD} wrong cancels: {} ms", flooding.elapsed().as_millis()));
    cancel_plain(client.port, &long.cancel_key);
    assert_eq!(long.ended_with(FIVE_SECONDS).code, "57014");
    // The address has a try again within 3 seconds.
    until("the short key is looked at again", PATIENCE, || {
        cancel_plain(client.port, &short.cancel_key);
        let left = "select count(*) from pg_stat_activity where query ~ 'a short key in a flood' and state = 'active' \
                    and pid <> pg_backend_pid()";
        (stage.cluster.postgres.admin("app", left).trim() == "0").then_some(())
    });
    assert_eq!(short.ended_with(FIVE_SECONDS).code, "57014");
    let failed = until("the flood is audited", PATIENCE, || {
        let failed = stage.failed("proxy-3");
        (!failed.is_empty()).then_some(failed)
    });
    // The window may have ended in between: a first, a number, and the next first.
    assert!(failed.len() <= 3, "{failed:#?}");
}

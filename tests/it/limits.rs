//! What ends or refuses a session before its time: locks, idle and expired sessions, too many of them, another address; and what
//! `ctl access explain` says of it.

use crate::harness::cluster::user;
use crate::harness::configuration::SERVICE;
use crate::harness::wire::ServerError;
use crate::harness::{
    Client, Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Session, Wire, in_both_forms, shared, until,
};
use postern::model::{PersonName, Route, ServiceName, SystemClock, Traits};
use postern::pki::pem::certificates_to_pem;
use postern::pki::{CertificateAuthority, PersonProfile, PrivateKey, SealKey};
use postern::store::{SqliteStore, Store as _};
use serde_json::Value;
use std::time::Duration;

in_both_forms! {
    a_lock_on_a_person_or_a_role_ends_open_sessions_and_lets_in_again_when_it_expires,
    a_person_who_is_removed_is_told_so,
    a_session_that_sends_nothing_is_ended_also_in_a_transaction_and_a_busy_one_is_not,
    a_session_ends_with_its_certificate_where_a_role_says_so_and_lives_on_where_none_does,
    a_shorter_limit_takes_effect_on_open_sessions,
    more_sessions_than_the_roles_allow_are_refused,
    a_certificate_pinned_to_another_address_is_refused_where_a_role_asks_for_it,
    a_certificate_that_is_not_pinned_is_refused_where_a_role_asks_for_it,
    an_explanation_names_roles_rules_options_and_locks,
}

/// A role for everything with these options, and the person who has it.
fn person_with(name: &str, options: &str) -> String {
    format!(
        "kind: role\nversion: v7\nmetadata: {{name: role-of-{name}}}\nspec:\n  options: {{{options}}}\n  allow: {{db_labels: \
         {{'*': '*'}}, db_users: [app], db_names: ['*']}}\n---\n{}",
        user(name, &format!("role-of-{name}"), "")
    )
}

#[track_caller]
fn ends(wire: &mut Wire, code: &str, words: &str) -> ServerError {
    let error = wire.ended_with(FIVE_SECONDS);
    assert_eq!(
        (error.severity.as_str(), error.code.as_str()),
        ("FATAL", code),
        "{error:?}"
    );
    assert!(error.message.contains(words) && !error.hint.is_empty(), "{error:?}");
    error
}

#[track_caller]
fn open(cluster: &Cluster, person: &str) -> Wire {
    let mut wire = Wire::connect(&cluster.client(person, "app", "app")).expect("allowed");
    wire.query("select 1").expect("allowed");
    wire
}

/// The name out of `Created a lock with name "…".`
#[track_caller]
fn locked(cluster: &Cluster, arguments: &[&str]) -> String {
    let said = cluster.ctl(&[&["lock"], arguments].concat()).ok();
    let name = said.strip_prefix("Created a lock with name \"");
    let name = name.and_then(|rest| rest.trim_end().strip_suffix("\"."));
    name.unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn a_lock_on_a_person_or_a_role_ends_open_sessions_and_lets_in_again_when_it_expires(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("lockee", "")).ok();
    let client = cluster.client("lockee", "app", "app");
    let mut psql = Session::open(&client);
    psql.say("select pg_sleep(60) /* of a lockee */;");
    cluster.postgres.wait_until_runs("app", "of a lockee");
    let on_role = locked(&cluster, &["--role=role-of-lockee", "--message=closed", "--ttl=1h"]);
    let said = psql.hears("lock targeting", FIVE_SECONDS);
    assert!(
        said.contains("57P01") && said.contains("Role:\"role-of-lockee\" is in force: closed"),
        "{said}"
    );
    cluster.audited("lockee", "T3006I", |event| {
        event["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("lock targeting"))
    });
    let listed = cluster.ctl(&["get", "locks"]).ok();
    assert!(listed.contains(&on_role) && listed.contains("expires"), "{listed}");
    cluster.ctl(&["rm", &format!("locks/{on_role}")]).ok();

    let mut wire = until("the lock is lifted", FIVE_SECONDS, || Wire::connect(&client).ok());
    wire.query("select 1").expect("allowed");
    locked(&cluster, &["--user=lockee", "--ttl=3s"]);
    ends(&mut wire, "57P01", "lock targeting User:\"lockee\" is in force");
    let error = Wire::connect(&client).err().expect("locked");
    assert_eq!(error.code, "42501", "{error:?}");
    assert!(error.message.contains("lock targeting User:\"lockee\""), "{error:?}");
    until("the lock has expired", PATIENCE, || {
        Wire::connect(&client).ok().map(drop)
    });

    let both = ["lock", "--user=x", "--ttl=1h", "--expires=2099-01-01T00:00:00Z"];
    let said = cluster.ctl(&both).failed_with(2);
    assert!(said.contains("use only one of --expires and --ttl"), "{said}");
    cluster.ctl(&["lock", "--user=x", "--role=y"]).failed_with(2);
    cluster.ctl(&["lock"]).failed_with(2);
}

fn a_person_who_is_removed_is_told_so(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("leaver", "")).ok();
    let mut wire = open(&cluster, "leaver");
    cluster.ctl(&["rm", "user/leaver"]).ok();
    ends(&mut wire, "57P01", "leaver may no longer use");
}

fn a_session_that_sends_nothing_is_ended_also_in_a_transaction_and_a_busy_one_is_not(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("dozer", "client_idle_timeout: 2s")).ok();
    let (mut resting, mut within) = (open(&cluster, "dozer"), open(&cluster, "dozer"));
    within.query("begin").expect("allowed");
    let mut busy = open(&cluster, "dozer");
    busy.begin_query("select pg_sleep(6)");
    for wire in [&mut resting, &mut within] {
        ends(wire, "57P05", "Client exceeded idle timeout of 2s");
    }
    let event = cluster.audited("dozer", "T3006I", |_| true);
    assert_eq!(
        (event["event"].as_str(), event["reason"].as_str()),
        (Some("client.disconnect"), Some("Client exceeded idle timeout of 2s"))
    );
    busy.hears(b'Z');
    busy.query("select 1")
        .expect("a session that waits for its answer is not idle");
}

fn a_session_ends_with_its_certificate_where_a_role_says_so_and_lives_on_where_none_does(form: Form) {
    let cluster = shared(form);
    cluster
        .create(&person_with("short", "disconnect_expired_cert: true"))
        .ok();
    cluster.create(&person_with("long", "")).ok();
    let options = ["--db-service", SERVICE, "--ttl=6s"];
    let connect = |person| Wire::connect(&cluster.signed_client(&options, person, "app", "app")).expect("allowed");
    let (mut lives_on, mut ending) = (connect("long"), connect("short"));
    let error = ending.ended_with(FIVE_SECONDS * 2);
    assert_eq!(error.code, "28000", "{error:?}");
    assert!(
        error.message.starts_with("client certificate expired at 20"),
        "{error:?}"
    );
    assert!(error.hint.contains("log in again"), "{error:?}");
    cluster.audited("short", "T3006I", |event| {
        event["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("client certificate expired at"))
    });
    lives_on
        .query("select 1")
        .expect("without the option it outlives its certificate");
}

fn a_shorter_limit_takes_effect_on_open_sessions(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("patient", "client_idle_timeout: 1h")).ok();
    let mut wire = open(&cluster, "patient");
    cluster.create(&person_with("patient", "client_idle_timeout: 1s")).ok();
    ends(&mut wire, "57P05", "Client exceeded idle timeout of 1s");
}

fn more_sessions_than_the_roles_allow_are_refused(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("many", "max_connections: 2")).ok();
    let client = cluster.client("many", "app", "app");
    let (first, mut second) = (open(&cluster, "many"), open(&cluster, "many"));
    let error = Wire::connect(&client).err().expect("two are open");
    assert_eq!(error.code, "53300", "{error:?}");
    assert!(error.message.contains("many may have 2"), "{error:?}");
    cluster.audited("many", "T1006W", |event| event["event"] == "session.rejected");
    drop(first);
    until("the first one is closed", FIVE_SECONDS, || {
        Wire::connect(&client).ok().map(drop)
    });
    second.query("select 1").expect("it is not touched");
}

fn a_certificate_that_is_not_pinned_is_refused_where_a_role_asks_for_it(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("pinned", "pin_source_ip: true")).ok();
    let error = Wire::connect(&cluster.client("pinned", "app", "app"))
        .err()
        .expect("not pinned");
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("42501", "pinned IP doesn't match observed client IP")
    );
}

fn a_certificate_pinned_to_another_address_is_refused_where_a_role_asks_for_it(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("elsewhere", "pin_source_ip: true")).ok();
    let client = cluster.client("elsewhere", "app", "app");
    pin(&cluster, &client, "elsewhere", "192.0.2.7");
    let error = Wire::connect(&client).err().expect("pinned to another address");
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("42501", "pinned IP doesn't match observed client IP")
    );
    assert!(error.hint.contains("address"), "{error:?}");
    pin(&cluster, &client, "elsewhere", "127.0.0.1");
    let mut wire = Wire::connect(&client).expect("pinned to this address");
    wire.query("select 1").expect("allowed");
}

/// Puts a certificate in place of the client's that is pinned to an address, as a login makes them: by the cluster's own
/// authority, read from auth's data directory.
fn pin(cluster: &Cluster, client: &Client, person: &str, address: &str) {
    let data_dir = &cluster.node(Kind::Auth).config.data_dir;
    let clock = SystemClock::shared();
    let store = SqliteStore::open(&data_dir.join("backend/state.sqlite"), clock.clone()).expect("the store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let record = runtime.expect("a runtime").block_on(store.get("/ca/user"));
    let record = record.expect("the store answers").expect("the authority");
    let seal = SealKey::load_or_create(&data_dir.join("seal.key")).expect("the key");
    let authority = CertificateAuthority::from_record(&record.value, &seal).expect("the authority");
    let profile = PersonProfile {
        name: PersonName::new(person).expect("a name"),
        roles: Vec::new(),
        traits: Traits::new(),
        mfa: true,
        route: Some(Route {
            service: ServiceName::new(SERVICE).expect("a name"),
            db_user: None,
            db_name: None,
        }),
        pinned_ip: Some(address.parse().expect("an address")),
    };
    let key = std::fs::read_to_string(client.prefix.with_extension("key")).expect("the client's key");
    let key = PrivateKey::from_pem(&key).expect("a key").public_key();
    let now = clock.now();
    let signed = authority.issue_person(&profile, &key, now + Duration::from_secs(600), now);
    let pem = certificates_to_pem(&[signed.expect("a certificate")]).expect("PEM");
    std::fs::write(client.prefix.with_extension("crt"), pem).expect("ours");
}

fn an_explanation_names_roles_rules_options_and_locks(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("why", "max_connections: 7")).ok();
    let service = format!("--db={}", SERVICE);
    let explain = ["access", "explain", "why", service.as_str(), "--db-user=app"];
    let said = cluster.ctl(&explain).ok();
    for words in [
        "ALLOWED: why as database user \"app\" and database name \"app\"",
        "role \"role-of-why\" would allow",
        "option max_connections: 7, from role \"role-of-why\"",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    let lock = locked(
        &cluster,
        &["--user=why", "--message=wait", "--expires=2099-01-01T00:00:00Z"],
    );
    let said = cluster
        .ctl(&[&explain[..], &["--db-name=other", "--format=json"]].concat())
        .ok();
    let agents: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(agents[0]["allowed"], false, "{said}");
    assert_eq!(agents[0]["explanation"]["locks"][0]["name"], lock.as_str(), "{said}");
    assert_eq!(agents[0]["explanation"]["db_name"], "other", "{said}");
    let nobody = ["access", "explain", "why", "--db=nowhere", "--db-user=app"];
    let said = cluster.ctl(&nobody).failed_with(1);
    assert!(
        said.contains("no agent serves database \"nowhere\"") && said.contains(SERVICE),
        "{said}"
    );
}

#[test]
fn a_lock_on_an_agent_or_a_proxy_ends_the_sessions_through_it() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    for node in ["agent-1", "proxy-1"] {
        let mut wire = until("alice is let in", FIVE_SECONDS, || Wire::connect(&client).ok());
        wire.query("select 1").expect("allowed");
        let lock = locked(&cluster, &[&format!("--node={node}"), "--message=suspicious"]);
        let words = format!("lock targeting Node:\"{node}\" is in force: suspicious");
        ends(&mut wire, "57P01", &words);
        let error = Wire::connect(&client).err().expect("locked");
        assert_eq!(error.code, "42501", "{error:?}");
        assert!(error.message.contains(&words), "{error:?}");
        cluster.ctl(&["rm", &format!("lock/{lock}")]).ok();
    }
}

#[test]
fn a_published_lock_and_its_end_need_no_auth_that_is_alive() {
    let mut cluster = Cluster::start(Form::Apart);
    cluster.create(&person_with("outsider", "")).ok();
    let client = cluster.client("outsider", "app", "app");
    let mut wire = open(&cluster, "outsider");
    locked(&cluster, &["--user=outsider", "--ttl=8s"]);
    ends(&mut wire, "57P01", "lock targeting User:\"outsider\"");
    cluster.node_mut(Kind::Auth).kill9();
    let error = Wire::connect(&client).err().expect("locked");
    assert_eq!(error.code, "42501", "{error:?}");
    until("the lock has expired", PATIENCE + Duration::from_secs(10), || {
        // The agent has no certificate for this database user yet without auth, or has it from before.
        Wire::connect(&client).ok().map(drop)
    });
}

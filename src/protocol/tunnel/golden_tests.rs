//! Version 1: every message of every dialect, byte for byte.
//!
//! A message that is added gets a line of its own in `wire-v1.txt` (run the test with `POSTERN_BLESS=1`, and look at the difference
//! before it is committed: only additions may show). `frozen/wire-v1.txt` is version 1 as it was frozen; nothing rewrites it. A
//! frozen line that changes means that a node of today does not understand one of yesterday.

use super::*;
use crate::model::{
    ConnectionId, Endpoint, Labels, NodeId, NodeKind, Refusal, RefusalKind, Secret, SessionId, Timestamp,
};
use data_encoding::HEXLOWER;
use std::fmt::Write as _;

const GOLDEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wire-v1.txt"));

const FROZEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/frozen/wire-v1.txt"));
/// Of the frozen file, so that nobody changes it in passing.
const FROZEN_SHA256: &str = "8cc0892b14f4f8f6ff6909990f68283ef846bf2d7a7b633dda2ef7bd64ff26df";

fn header(kind: FrameKind) -> Header {
    Header {
        id: 7,
        kind,
        cause: Some(300),
        connection: Some(0x0123_4567_89ab_cdef),
    }
}

/// The name, the bytes, and that they decode to what they were.
fn sample<B: Wire + PartialEq>(name: &str, body: B) -> (String, Vec<u8>) {
    let frame = Frame::new(header(FrameKind::Ask { deadline_ms: 15_000 }), body);
    let bytes = frame.encode().unwrap();
    assert_eq!(Frame::decode(&bytes[PREFIX_BYTES..]), Ok(frame), "{name}");
    (format!("{}::{name}", B::DIALECT), bytes)
}

fn database() -> DatabaseRecord {
    DatabaseRecord {
        service: "orders".parse().unwrap(),
        description: "Orders".into(),
        labels: Labels::parse("env=dev,team=a").unwrap(),
        uri: "db.example.com:5432".into(),
        hosts: vec!["db".into(), "db.internal".into()],
    }
}

fn report() -> NodeReport {
    NodeReport {
        version: "0.1.0".into(),
        instance: 0x0123_4567_89ab_cdef,
        started: Timestamp::from_secs(1_600_000_000),
        databases: vec![database()],
        health: vec![DatabaseHealth {
            service: "orders".parse().unwrap(),
            state: HealthState::Unhealthy,
            since: Timestamp::from_secs(1_700_000_000),
            detail: "refused".into(),
            certificate_until: Some(Timestamp::from_secs(1_800_000_000)),
        }],
        proxy_addresses: vec![proxy_address()],
    }
}

fn proxy_address() -> Endpoint {
    Endpoint {
        host: "proxy.example.com".into(),
        port: 443,
    }
}

fn heard() -> AuthToNode {
    AuthToNode::Heard {
        proxies: vec![ProxyRecord {
            node: NodeId::from_random([7; 16]),
            name: "proxy-1".parse().unwrap(),
            addresses: vec![proxy_address()],
        }],
    }
}

fn samples() -> Vec<(String, Vec<u8>)> {
    let mut all = joining();
    all.extend(to_auth());
    all.extend(from_auth());
    all.extend(of_accounts());
    all.extend(tunnel());
    all.extend(inspections());
    all.extend(cancels());
    let refused = Frame::<AuthToNode>::refused(7, "no");
    all.push(("Refused".into(), refused.encode().unwrap()));
    let stored = || AuthToNode::AuditStored { last_seq: 1 };
    let tell = Frame::new(header(FrameKind::Tell), stored());
    all.push(("Tell".into(), tell.encode().unwrap()));
    let answer = Frame::new(header(FrameKind::Answer), stored());
    all.push(("Answer".into(), answer.encode().unwrap()));
    all
}

fn joining() -> Vec<(String, Vec<u8>)> {
    let anchors = Anchors {
        user: vec![vec![1]],
        host: vec![vec![2], vec![3]],
        db: vec![],
        db_client: vec![vec![4, 5]],
    };
    vec![
        sample(
            "Join",
            JoinToAuth::Join {
                token: "0123456789abcdef".into(),
                name: "agent-1".parse().unwrap(),
                kinds: vec![NodeKind::Auth, NodeKind::Proxy, NodeKind::Db],
                csr: vec![9, 8],
                hosts: vec!["proxy.example.com".into()],
            },
        ),
        sample(
            "Joined",
            JoinAnswer::Joined {
                cluster: "root".parse().unwrap(),
                certificate: vec![6],
                anchors,
            },
        ),
        sample("Refused", JoinAnswer::Refused { why: "no".into() }),
    ]
}

fn to_auth() -> Vec<(String, Vec<u8>)> {
    let lines = || vec!["{}".to_owned(), "{\"a\":1}".to_owned()];
    vec![
        sample("WatchPolicy", DbToAuth::WatchPolicy { have: Some(5) }),
        sample("Heartbeat", DbToAuth::Heartbeat { report: report() }),
        sample(
            "ShipAudit",
            DbToAuth::ShipAudit {
                spool: "ab".into(),
                first_seq: 70_000,
                lines: lines(),
            },
        ),
        sample(
            "IssueDbClient",
            DbToAuth::IssueDbClient {
                person: vec![vec![1, 2]],
                service: "orders".parse().unwrap(),
                db_user: "app".parse().unwrap(),
                db_name: "shop".parse().unwrap(),
                csr: vec![3],
            },
        ),
        sample(
            "RenewHost",
            DbToAuth::RenewHost {
                csr: vec![3],
                hosts: vec![],
            },
        ),
        sample(
            "IssueDbServer",
            DbToAuth::IssueDbServer {
                service: "orders".parse().unwrap(),
                hosts: vec!["db.internal".into()],
                ttl_secs: 3600,
                csr: vec![1],
            },
        ),
        sample("WatchPolicy", ProxyToAuth::WatchPolicy { have: None }),
        sample(
            "RenewHost",
            ProxyToAuth::RenewHost {
                csr: vec![3],
                hosts: vec!["proxy.example.com".into()],
            },
        ),
        sample("Heartbeat", ProxyToAuth::Heartbeat { report: report() }),
        sample("LookAtInvite", ProxyToAuth::LookAtInvite { token: secret("ab12") }),
        sample(
            "AcceptInvite",
            ProxyToAuth::AcceptInvite {
                token: secret("ab12"),
                password: secret("correct horse"),
                code: secret("123456"),
                client_address: "192.0.2.1:5000".into(),
            },
        ),
        sample(
            "ShipAudit",
            ProxyToAuth::ShipAudit {
                spool: "ab".into(),
                first_seq: 1,
                lines: lines(),
            },
        ),
    ]
}

fn secret(text: &str) -> SecretText {
    SecretText(Secret::new(text.to_owned()))
}

fn of_accounts() -> Vec<(String, Vec<u8>)> {
    let mut all = vec![
        sample(
            "Invitation",
            AuthToNode::Invitation {
                person: "alice".parse().unwrap(),
                is_reset: true,
                expires: Timestamp::from_secs(1_700_000_000),
                otp_uri: secret("otpauth://totp/root:alice?secret=AB"),
                otp_secret: secret("AB"),
            },
        ),
        sample("InviteAccepted", AuthToNode::InviteAccepted),
    ];
    for kind in [
        AccountRefusal::NoInvite,
        AccountRefusal::InviteExpired,
        AccountRefusal::InviteUsed,
        AccountRefusal::PasswordTooShort,
        AccountRefusal::PasswordTooLong,
        AccountRefusal::WrongCode,
        AccountRefusal::TooMany,
        AccountRefusal::Busy,
        AccountRefusal::Unavailable,
    ] {
        let why = "no".to_owned();
        all.push(sample(
            &format!("AccountRefused({kind:?})"),
            AuthToNode::AccountRefused { kind, why },
        ));
    }
    all
}

fn from_auth() -> Vec<(String, Vec<u8>)> {
    vec![
        sample("Heard", heard()),
        sample("AuditStored", AuthToNode::AuditStored { last_seq: 70_001 }),
        sample(
            "DbClientIssued",
            AuthToNode::DbClientIssued {
                certificate: vec![1],
                not_after: Timestamp::from_secs(1_700_000_000),
            },
        ),
        sample(
            "PolicyPublished",
            AuthToNode::PolicyPublished {
                version: 12,
                published_at: Timestamp::from_secs(1_700_000_000),
                documents: vec!["{}".into()],
                max_age_secs: 300,
            },
        ),
        sample("PolicyConfirmed", AuthToNode::PolicyConfirmed { version: 12 }),
        sample("Declined", AuthToNode::Declined { why: "no".into() }),
        sample("RunsTwice", AuthToNode::RunsTwice { why: "no".into() }),
        sample("Undecided", AuthToNode::Undecided { why: "no".into() }),
        sample(
            "HostIssued",
            AuthToNode::HostIssued {
                certificate: vec![1],
                not_after: Timestamp::from_secs(1_700_000_000),
            },
        ),
        sample(
            "DbServerIssued",
            AuthToNode::DbServerIssued {
                certificate: vec![1],
                not_after: Timestamp::from_secs(1_700_000_000),
                clients: vec![vec![2]],
            },
        ),
    ]
}

fn inspections() -> Vec<(String, Vec<u8>)> {
    let connection = ConnectionId::from_random([1; 8]);
    let connections = Inspection::Connections {
        user: Some("alice".parse().unwrap()),
        database: Some("orders".into()),
        state: Some("busy".into()),
    };
    let mut all: Vec<_> = [
        ("Inspect(Actors)", Inspection::Actors),
        ("Inspect(Actor)", Inspection::Actor { path: "tunnels".into() }),
        ("Inspect(Connections)", connections),
        ("Inspect(Trace)", Inspection::Trace { connection }),
    ]
    .into_iter()
    .map(|(name, question)| sample(name, AuthToNode::Inspect { question }))
    .collect();
    let (json, why) = (|| b"{}".to_vec(), || "no".to_owned());
    all.extend([
        sample("Inspected", DbToAuth::Inspected { json: json() }),
        sample("NotInspected", DbToAuth::NotInspected { why: why() }),
        sample("Inspected", ProxyToAuth::Inspected { json: json() }),
        sample("NotInspected", ProxyToAuth::NotInspected { why: why() }),
        sample("InspectConnection", ProxyToDb::InspectConnection { connection }),
        sample("Inspected", DbToProxy::Inspected { json: json() }),
        sample("NotInspected", DbToProxy::NotInspected { why: why() }),
    ]);
    all
}

fn cancels() -> Vec<(String, Vec<u8>)> {
    let client_address = || "192.0.2.1:5001".to_owned();
    let by_key = ProxyToDb::CancelByKey {
        process_id: 4711,
        key: KeyDigest([5; KeyDigest::BYTES]),
        client_address: client_address(),
    };
    let statement = ProxyToDb::CancelStatement {
        connection: ConnectionId::from_random([1; 8]),
        client_address: client_address(),
    };
    vec![
        sample("CancelStatement", statement),
        sample("CancelByKey", by_key),
        sample("KeyUnknown", DbToProxy::KeyUnknown),
    ]
}

fn tunnel() -> Vec<(String, Vec<u8>)> {
    let connection = ConnectionId::from_random([1; 8]);
    let mut all = vec![
        sample(
            "OpenRelay",
            ProxyToDb::OpenRelay {
                connection,
                session: SessionId::from_random([2; 16]),
                person: vec![vec![1, 2], vec![3]],
                service: "orders".parse().unwrap(),
                db_user: "app".parse().unwrap(),
                db_name: "shop".parse().unwrap(),
                parameters: vec![("application_name".into(), "psql".into())],
                client_address: "192.0.2.1:5000".into(),
                cancel_secret: vec![1, 2, 3, 4],
                policy_version: 12,
            },
        ),
        sample("CancelQuery", ProxyToDb::CancelQuery { connection }),
        sample("Announced", ProxyToDb::Announced),
        sample(
            "Announce",
            DbToProxy::Announce {
                name: "agent-1".parse().unwrap(),
                databases: vec![database()],
                health: report().health,
            },
        ),
        sample("RelayOpened", DbToProxy::RelayOpened { process_id: 4711 }),
        sample(
            "UpstreamSaidNo",
            DbToProxy::UpstreamSaidNo {
                error_response: b"E\0\0\0\x05\0".to_vec(),
            },
        ),
        sample("CancelForwarded", DbToProxy::CancelForwarded),
    ];
    for kind in RefusalKind::ALL {
        let refusal = Refusal::new(*kind, "no").hint("next");
        all.push(sample(
            &format!("Declined({})", kind.label()),
            DbToProxy::Declined(refusal),
        ));
    }
    all
}

#[test]
fn every_message_of_version_1_has_the_bytes_that_it_always_had() {
    let mut text =
        String::from("# Frames of version 1, whole, in hexadecimal. See src/protocol/tunnel/golden_tests.rs.\n");
    for (name, bytes) in samples() {
        writeln!(text, "{name} {}", HEXLOWER.encode(&bytes)).unwrap();
    }
    if std::env::var_os("POSTERN_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wire-v1.txt");
        std::fs::write(path, &text).unwrap();
        return;
    }
    for (ours, golden) in text.lines().zip(GOLDEN.lines()) {
        assert_eq!(ours, golden);
    }
    assert_eq!(
        text.lines().count(),
        GOLDEN.lines().count(),
        "messages were added or taken away"
    );
}

/// The frame decoded in the dialect that it names, and encoded again.
fn there_and_back(frame: &[u8]) -> Vec<u8> {
    fn of<B: Wire>(frame: &[u8]) -> Vec<u8> {
        let decoded = Frame::<B>::decode(&frame[PREFIX_BYTES..]).unwrap();
        decoded.encode().unwrap()
    }
    match frame[PREFIX_BYTES + 1] {
        1 => of::<JoinToAuth>(frame),
        2 => of::<JoinAnswer>(frame),
        3 => of::<DbToAuth>(frame),
        4 => of::<ProxyToAuth>(frame),
        5 => of::<AuthToNode>(frame),
        6 => of::<ProxyToDb>(frame),
        7 => of::<DbToProxy>(frame),
        other => panic!("dialect {other}"),
    }
}

#[test]
fn every_frozen_message_is_the_same_value_and_the_same_bytes_today() {
    // That a sample decodes to its own value is asserted where it is made.
    let today: std::collections::BTreeMap<_, _> = samples().into_iter().collect();
    let mut lines = 0;
    for line in FROZEN.lines().filter(|line| !line.starts_with('#')) {
        let (name, hex) = line.split_once(' ').unwrap();
        let frozen = HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert_eq!(today.get(name), Some(&frozen), "{name}");
        assert_eq!(there_and_back(&frozen), frozen, "{name}");
        lines += 1;
    }
    assert_eq!(lines, 69);
}

#[test]
fn the_frozen_file_is_the_one_that_was_frozen() {
    use aws_lc_rs::digest::{SHA256, digest};
    assert_eq!(
        HEXLOWER.encode(digest(&SHA256, FROZEN.as_bytes()).as_ref()),
        FROZEN_SHA256
    );
}

#[test]
fn messages_are_only_ever_added_to_version_1() {
    let living: std::collections::BTreeSet<_> = GOLDEN.lines().collect();
    let gone: Vec<_> = FROZEN.lines().filter(|line| !living.contains(line)).collect();
    assert_eq!(gone, Vec::<&str>::new());
}

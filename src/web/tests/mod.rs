//! The API for people over real actors and a real store, with a clock that stands still; requests come over memory, with the
//! certificate chain that TLS would have checked.

mod crowded;
mod logins;
mod rules;

use super::admin::{AdminParts, OwnLooks};
use super::people::PeopleApi;
use crate::actors::accounts::{AcceptInvite, AccountParts, Accounts, CreateInvite, InviteKind, LookAtInvite};
use crate::actors::address::Origin;
use crate::actors::audit_log::AuditLogKeeper;
use crate::actors::ca::{Authorities, Ca};
use crate::actors::carried::{PersonConnection, ServePeople as _};
use crate::actors::host::{ActorRef, Behavior, Runtimes, Spec, run_system, start_on};
use crate::actors::inspector::Inspector;
use crate::actors::inventory::{Inventory, InventoryStock, NodeHeard, NodeRecord};
use crate::actors::node_questions::LinkedNodes;
use crate::actors::passages::Passages;
use crate::actors::rbac::{Published, Rbac};
use crate::actors::tokens::Tokens;
use crate::actors::trail::Trail;
use crate::audit::{AuditLog, EventContext, Spool, SpoolLimits};
use crate::model::clock::HeldClock;
use crate::model::{
    Clock as _, ClusterName, Labels, NodeId, NodeKind, NodeName, PersonName, Secret, SharedClock, Timestamp,
};
use crate::pki::pem::certificates_from_pem;
use crate::pki::{CaKind, CertificateAuthority, PersonProfile, PrivateKey, SealKey, entropy};
use crate::policy::{Resource, parse_resources, presets};
use crate::protocol::tunnel::{DatabaseRecord, NodeReport};
use crate::store::{SqliteStore, Store};
use crate::telemetry::observe::{About, Observer};
use data_encoding::{BASE32_NOPAD, BASE64};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const START: Timestamp = Timestamp::from_secs(1_700_000_010);
const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse";
const CLIENT: &str = "192.0.2.1:5000";

const PEOPLE: &str = "kind: role\nversion: v7\nmetadata: {name: dev}\nspec:\n  options: {max_session_ttl: 8h}\n  allow:\n    \
    db_labels: {env: dev}\n    db_users: [app]\n    db_names: ['*']\n---\n\
    kind: role\nversion: v7\nmetadata: {name: pinned}\nspec:\n  options: {pin_source_ip: true}\n---\n\
    kind: user\nversion: v2\nmetadata: {name: alice}\nspec: {roles: [dev]}\n---\n\
    kind: user\nversion: v2\nmetadata: {name: pat}\nspec: {roles: [dev, pinned]}\n---\n\
    kind: user\nversion: v2\nmetadata: {name: eve}\nspec: {roles: [editor]}\n---\n\
    kind: user\nversion: v2\nmetadata: {name: otto}\nspec: {roles: [auditor]}\n---\n\
    kind: user\nversion: v2\nmetadata: {name: locked}\nspec: {roles: [dev]}\n---\n\
    kind: lock\nversion: v2\nmetadata: {name: stop}\nspec:\n  target: {user: locked}\n  message: ask the security team\n";

struct Room {
    api: PeopleApi,
    accounts: ActorRef<Accounts>,
    inventory: ActorRef<Inventory>,
    authorities: Arc<Authorities>,
    trail: Trail,
    clock: Arc<HeldClock>,
    key: PrivateKey,
    _directory: tempfile::TempDir,
}

/// An answer: its status and its body.
#[derive(Debug)]
struct Said(u16, Value);

impl Room {
    async fn start(runtimes: &Runtimes) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let held = HeldClock::at(START);
        let clock: SharedClock = held.clone();
        let store: Arc<dyn Store> = SqliteStore::open(&directory.path().join("store.sqlite"), clock.clone()).unwrap();
        let roles = presets().unwrap().into_iter().map(Resource::Role);
        for resource in parse_resources(PEOPLE).unwrap().into_iter().chain(roles) {
            let key = format!("/{}/{}", resource.kind(), resource.name());
            store.create(&key, resource.to_json().into_bytes(), None).await.unwrap();
        }
        let cluster = ClusterName::new("gate.example").unwrap();
        let spool = directory.path().join("spool");
        let trail = Trail {
            spool: Spool::open(&spool, SpoolLimits::default(), clock.clone(), entropy::fill).unwrap(),
            context: EventContext::new(&cluster, clock.clone(), entropy::fill),
            node: NodeId::from_random([1; 16]),
            node_name: NodeName::new("auth-1").unwrap(),
        };
        let authority = |kind| CertificateAuthority::generate(kind, &cluster, START).unwrap();
        let authorities = Arc::new(Authorities {
            user: authority(CaKind::User),
            host: authority(CaKind::Host),
            db: authority(CaKind::Db),
            db_client: authority(CaKind::DbClient),
        });
        let published = Published::default();
        let stock = InventoryStock::default();
        let view = stock.view(clock.clone());
        let accounts = {
            let parts = AccountParts {
                cluster: cluster.clone(),
                store: store.clone(),
                seal: Arc::new(SealKey::load_or_create(&directory.path().join("seal.key")).unwrap()),
                published: published.clone(),
                trail: trail.clone(),
                clock: clock.clone(),
            };
            started(runtimes, "accounts", move || Accounts::new(parts.clone()))
        };
        let rbac = {
            let (store, trail, clock, published) = (store.clone(), trail.clone(), clock.clone(), published.clone());
            started(runtimes, "rbac", move || {
                Rbac::new(store.clone(), trail.clone(), clock.clone(), published.clone())
            })
        };
        let ca = {
            let (authorities, published, view) = (authorities.clone(), published.clone(), view.clone());
            let (trail, clock) = (trail.clone(), clock.clone());
            started(runtimes, "ca", move || {
                Ca::new(
                    authorities.clone(),
                    published.clone(),
                    view.clone(),
                    trail.clone(),
                    clock.clone(),
                )
            })
        };
        let tokens = {
            let (store, clock) = (store.clone(), clock.clone());
            started(runtimes, "tokens", move || {
                Tokens::new(Arc::new(Vec::new()), store.clone(), clock.clone())
            })
        };
        let inventory = {
            let clock = clock.clone();
            started(runtimes, "inventory", move || {
                Inventory::new(stock.clone(), clock.clone())
            })
        };
        let log = Arc::new(Mutex::new(AuditLog::open(&directory.path().join("log")).unwrap()));
        let audit_log = started(runtimes, "audit-log", move || AuditLogKeeper::new(log.clone()));
        let mut rules = published.subscribe();
        rules.wait_for(Option::is_some).await.unwrap();
        let parts = AdminParts {
            cluster,
            anchors: authorities.anchors(),
            clock,
            trail: trail.clone(),
            published,
            inventory: view,
            put: rbac.address(),
            remove: rbac.address(),
            remove_node: rbac.address(),
            forget_node: inventory.address(),
            issue_person: ca.address(),
            issue_db_server: ca.address(),
            query: audit_log.address(),
            add_token: tokens.address(),
            list_tokens: tokens.address(),
            remove_token: tokens.address(),
            create_invite: accounts.address(),
            forget_account: accounts.address(),
            log_in: accounts.address(),
            linked: LinkedNodes::default(),
            inspector: Inspector::new(
                Observer::new(About::default()).shared(),
                trail.node,
                Passages::default(),
            ),
            own_looks: OwnLooks::default(),
        };
        let room = Self {
            api: PeopleApi::new(Arc::new(parts)),
            accounts,
            inventory,
            authorities,
            trail,
            clock: held,
            key: PrivateKey::generate().unwrap(),
            _directory: directory,
        };
        room.hear_agent().await;
        room
    }

    /// An agent that serves `orders` (env=dev) and `payroll` (env=prod).
    async fn hear_agent(&self) {
        let database = |name: &str, env: &str| DatabaseRecord {
            service: name.parse().unwrap(),
            description: "made up".to_owned(),
            labels: Labels::parse(&format!("env={env}")).unwrap(),
            uri: "db.internal:5432".to_owned(),
            hosts: vec!["db.internal".to_owned()],
        };
        let record = NodeRecord {
            node: NodeId::from_random([2; 16]),
            name: NodeName::new("agent-1").unwrap(),
            kinds: vec![NodeKind::Db],
            report: NodeReport {
                version: String::new(),
                instance: 1,
                started: START,
                databases: vec![database("orders", "dev"), database("payroll", "prod")],
                health: Vec::new(),
                proxy_addresses: Vec::new(),
            },
        };
        let link = Arc::downgrade(&Arc::new(()));
        let heard = NodeHeard { record, link };
        let heard = self
            .inventory
            .address()
            .ask(&Origin::outside("test"), heard, SOON)
            .await;
        heard.unwrap().unwrap();
    }

    /// A certificate that the user authority signed, whatever the roles say.
    fn signed(
        &self,
        name: &str,
        ttl: Duration,
        change: impl FnOnce(&mut PersonProfile),
    ) -> Vec<CertificateDer<'static>> {
        let mut profile = PersonProfile {
            name: PersonName::new(name).unwrap(),
            roles: Vec::new(),
            traits: Default::default(),
            mfa: true,
            route: None,
            pinned_ip: None,
        };
        change(&mut profile);
        let now = self.clock.now();
        let public = self.key.public_key();
        vec![
            self.authorities
                .user
                .issue_person(&profile, &public, now + ttl, now)
                .unwrap(),
        ]
    }

    fn person(&self, name: &str) -> Vec<CertificateDer<'static>> {
        self.signed(name, Duration::from_secs(3600), |_| {})
    }

    fn csr(&self) -> String {
        BASE64.encode(&self.key.csr("me").unwrap())
    }

    async fn ask_from(
        &self,
        client: &str,
        chain: &[CertificateDer<'static>],
        method: &str,
        path: &str,
        body: &Value,
    ) -> Said {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        let person = PersonConnection {
            stream: Box::new(far),
            chain: chain.to_vec(),
            client: client.parse().unwrap(),
        };
        let served = tokio::spawn(self.api.serve(person));
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: auth\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        near.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        served.await.unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        Said(status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    async fn ask(&self, chain: &[CertificateDer<'static>], method: &str, path: &str, body: &Value) -> Said {
        self.ask_from(CLIENT, chain, method, path, body).await
    }

    async fn get(&self, chain: &[CertificateDer<'static>], path: &str) -> Said {
        self.ask(chain, "GET", path, &Value::Null).await
    }

    /// Sets the password, and gives the secret of the one-time codes.
    async fn join(&self, name: &str) -> Vec<u8> {
        let origin = Origin::outside("test");
        let person = PersonName::new(name).unwrap();
        let invite = CreateInvite {
            by: "test".to_owned(),
            person,
            ttl: SOON,
            kind: InviteKind::Invite,
        };
        let token = self
            .accounts
            .address()
            .ask(&origin, invite, SOON)
            .await
            .unwrap()
            .unwrap()
            .token;
        let look = LookAtInvite { token: token.clone() };
        let shown = self.accounts.address().ask(&origin, look, SOON).await.unwrap().unwrap();
        let secret = BASE32_NOPAD.decode(shown.otp_secret.expose().as_bytes()).unwrap();
        let accept = AcceptInvite {
            token,
            password: Secret::new(PASSWORD.to_owned()),
            code: Secret::new(self.code(&secret)),
            client_address: CLIENT.to_owned(),
        };
        self.accounts
            .address()
            .ask(&origin, accept, SOON)
            .await
            .unwrap()
            .unwrap();
        self.pass(Duration::from_secs(60)).await;
        secret
    }

    /// RFC 6238 with the usual six digits and thirty seconds.
    fn code(&self, secret: &[u8]) -> String {
        use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
        let step = self.clock.now().as_secs() / 30;
        let tag = sign(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret), &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[19] & 15);
        let number = u32::from_be_bytes(tag[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", number % 1_000_000)
    }

    async fn log_in(&self, name: &str, password: &str, code: &str, ttl_secs: Option<u64>) -> Said {
        let body = json!({ "user": name, "password": password, "code": code, "ttl_secs": ttl_secs, "csr": self.csr() });
        self.ask(&[], "POST", "/v1/login", &body).await
    }

    async fn pass(&self, time: Duration) {
        self.clock.move_to(self.clock.now() + time);
        self.hear_agent().await;
    }

    fn events(&self, code: &str) -> Vec<Value> {
        let batch = self.trail.spool.next_batch(10_000, usize::MAX).unwrap();
        let lines = batch.map(|batch| batch.lines).unwrap_or_default();
        let events = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        events.filter(|event: &Value| event["code"] == code).collect()
    }
}

impl Said {
    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.0, 200, "{}", self.1);
        self.1
    }

    #[track_caller]
    fn refused(self, status: u16, words: &str) {
        let said = self.1["error"].as_str().unwrap_or_default();
        assert!(
            self.0 == status && said.contains(words),
            "{status} {words:?}: {} {}",
            self.0,
            self.1
        );
    }
}

fn chain_of(answer: &Value) -> Vec<CertificateDer<'static>> {
    certificates_from_pem(answer["certificate"].as_str().unwrap().as_bytes(), "the answer").unwrap()
}

fn started<B: Behavior>(runtimes: &Runtimes, name: &str, make: impl FnMut() -> B + Send + 'static) -> ActorRef<B> {
    start_on(&runtimes.workers[0], Spec::permanent(name), Arc::new(|_| {}), make)
}

fn in_a_room<F: Future<Output = ()>>(test: impl FnOnce(Room) -> F) {
    run_system(1, |runtimes| async move { test(Room::start(&runtimes).await).await });
}

//! Accounts over a real store, with a clock that stands still and a second actor beside the first.

mod invitations;
mod logins;

use super::code::{CodeSecret, STEP_SECS};
use super::*;
use crate::actors::address::{Address, Message, Origin};
use crate::actors::host::{ActorRef, Runtimes, Spec, run_system, start_on};
use crate::audit::{EventContext, Spool, SpoolLimits};
use crate::model::clock::HeldClock;
use crate::model::{Clock as _, NodeId, NodeName, Traits};
use crate::pki::entropy;
use crate::policy::{PolicySnapshot, UserRecord};
use crate::store::SqliteStore;
use data_encoding::BASE32_NOPAD;
use futures::future::join_all;

const SOON: Duration = Duration::from_secs(60);
const START: Timestamp = Timestamp::from_secs(1_700_000_010);
const PASSWORD: &str = "correct horse";

struct Room {
    accounts: ActorRef<Accounts>,
    /// A second actor over the same store, as a second auth would be.
    other: ActorRef<Accounts>,
    parts: AccountParts,
    clock: Arc<HeldClock>,
    _directory: tempfile::TempDir,
}

/// How an account stands in the store.
struct Status {
    has_password: bool,
    locked_until: Option<Timestamp>,
    invited_until: Option<Timestamp>,
}

/// Somebody who has accepted an invitation.
struct Alice {
    secret: CodeSecret,
}

fn published(names: &[&str]) -> Option<Arc<PolicySnapshot>> {
    let mut snapshot = PolicySnapshot::empty(1, START);
    for name in names {
        let name = person(name);
        let record = UserRecord::new(name.clone(), Vec::new(), Traits::new());
        snapshot.users.insert(name, record);
    }
    Some(Arc::new(snapshot))
}

fn person(name: &str) -> PersonName {
    PersonName::new(name).unwrap()
}

fn secret(text: impl Into<String>) -> Secret<String> {
    Secret::new(text.into())
}

impl Room {
    fn start(runtimes: &Runtimes) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = HeldClock::at(START);
        let store = SqliteStore::open(&directory.path().join("store.sqlite"), clock.clone()).unwrap();
        let cluster = ClusterName::new("gate.example").unwrap();
        let spool = directory.path().join("spool");
        let parts = AccountParts {
            store,
            seal: Arc::new(SealKey::load_or_create(&directory.path().join("seal.key")).unwrap()),
            published: Published::default(),
            trail: Trail {
                spool: Spool::open(&spool, SpoolLimits::default(), clock.clone(), entropy::fill).unwrap(),
                context: EventContext::new(&cluster, clock.clone(), entropy::fill),
                node: NodeId::from_random([1; 16]),
                node_name: NodeName::new("auth-1").unwrap(),
            },
            clock: clock.clone(),
            cluster,
        };
        parts.published.send_replace(published(&["alice", "bob"]));
        let start = |name: &str| {
            let parts = parts.clone();
            start_on(
                &runtimes.workers[0],
                Spec::permanent(name),
                Arc::new(|_| {}),
                move || Accounts::new(parts.clone()),
            )
        };
        Self {
            accounts: start("accounts"),
            other: start("other-accounts"),
            parts,
            clock,
            _directory: directory,
        }
    }

    fn address<M: Message>(&self, number: usize) -> Address<M>
    where
        Accounts: Handle<M>,
    {
        [&self.accounts, &self.other][number % 2].address()
    }

    async fn ask<M: Message>(&self, message: M) -> M::Reply
    where
        Accounts: Handle<M>,
    {
        ask(&self.address(0), message).await
    }

    async fn invite(&self, name: &str, kind: InviteKind) -> Secret<String> {
        self.ask(invite(name, kind, INVITE_TTL)).await.unwrap().token
    }

    /// Accepts an invitation.
    async fn join(&self, name: &str) -> Alice {
        let token = self.invite(name, InviteKind::Invite).await;
        let alice = self.look(&token).await;
        self.ask(accept(&token, &alice.code(self))).await.unwrap();
        self.pass(Duration::from_secs(60));
        alice
    }

    async fn look(&self, token: &Secret<String>) -> Alice {
        let token = token.clone();
        let shown = self.ask(LookAtInvite { token }).await.unwrap();
        let bytes = BASE32_NOPAD.decode(shown.otp_secret.expose().as_bytes()).unwrap();
        Alice {
            secret: CodeSecret::from_bytes(Secret::new(bytes)),
        }
    }

    async fn log_in(&self, name: &str, password: &str, code: &str) -> Result<PersonName, LoginRefused> {
        self.ask(log_in(name, password, code, &entropy::bytes::<4>())).await
    }

    /// The login is refused as every other, and the audit log has this reason.
    #[track_caller]
    fn refused(&self, answer: &Result<PersonName, LoginRefused>, why: &str) {
        let said = answer.as_ref().unwrap_err().to_string();
        assert_eq!(said, "invalid username, password or second factor");
        let event = self.events("T1000W").pop().unwrap();
        assert!(event["error"].as_str().unwrap().contains(why), "{why:?}: {event}");
    }

    async fn status(&self, name: &str) -> Status {
        let item = self.parts.store.get(&account_key(&person(name))).await.unwrap();
        let account: Account = item.map(|item| read(&item).unwrap()).unwrap_or_default();
        let now = self.clock.now();
        Status {
            has_password: account.credential.is_some(),
            locked_until: account.failures.locked_until(now),
            invited_until: account.invite.map(|open| open.expires).filter(|until| now < *until),
        }
    }

    fn events(&self, code: &str) -> Vec<serde_json::Value> {
        let batch = self.parts.trail.spool.next_batch(10_000, usize::MAX).unwrap();
        let lines = batch.map(|batch| batch.lines).unwrap_or_default();
        let events = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        events
            .filter(|event: &serde_json::Value| event["code"] == code)
            .collect()
    }

    /// What the actors do, with room for hashes of its own.
    fn books(&self) -> Books {
        Books {
            parts: self.parts.clone(),
            hasher: Hasher::new(),
        }
    }

    /// As many hashes as run at once.
    fn cores(&self) -> u32 {
        u32::try_from(Hasher::new().cores.available_permits()).unwrap()
    }

    fn pass(&self, time: Duration) {
        self.clock.move_to(self.clock.now() + time);
    }
}

impl Alice {
    fn code(&self, room: &Room) -> String {
        self.code_after(room, 0)
    }

    fn code_after(&self, room: &Room, steps: i64) -> String {
        let code = self.secret.code_at(room.clock.now().as_secs() / STEP_SECS + steps);
        String::from_utf8(code.to_vec()).unwrap()
    }
}

async fn ask<M: Message>(address: &Address<M>, message: M) -> M::Reply {
    address.ask(&Origin::outside("test"), message, SOON).await.unwrap()
}

fn invite(name: &str, kind: InviteKind, ttl: Duration) -> CreateInvite {
    CreateInvite {
        by: "test".to_owned(),
        person: person(name),
        ttl,
        kind,
    }
}

fn accept(token: &Secret<String>, code: &str) -> AcceptInvite {
    AcceptInvite {
        token: token.clone(),
        password: secret(PASSWORD),
        code: secret(code),
        client_address: "192.0.2.1:5000".to_owned(),
    }
}

/// From an address of its own, so that the limit of one address is not what refuses.
fn log_in(name: &str, password: &str, code: &str, address: &[u8; 4]) -> LogIn {
    LogIn {
        person: name.to_owned(),
        password: secret(password),
        code: secret(code),
        client_address: std::net::Ipv4Addr::from(*address).to_string(),
    }
}

fn in_a_room<F: Future<Output = ()>>(test: impl FnOnce(Room) -> F) {
    run_system(1, |runtimes| async move { test(Room::start(&runtimes)).await });
}

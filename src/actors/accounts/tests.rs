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
        let person = person(name);
        self.ask(AccountStatus { person }).await.unwrap()
    }

    fn events(&self, code: &str) -> Vec<serde_json::Value> {
        let batch = self.parts.trail.spool.next_batch(10_000, usize::MAX).unwrap();
        let lines = batch.map(|batch| batch.lines).unwrap_or_default();
        let events = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        events
            .filter(|event: &serde_json::Value| event["code"] == code)
            .collect()
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

#[test]
fn an_invitation_is_looked_at_often_and_accepted_once_and_then_the_person_logs_in() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        assert!(token.expose().len() == 32 && token.expose().bytes().all(|b| b.is_ascii_hexdigit()));
        let alice = room.look(&token).await;
        assert_eq!(alice.secret.bytes(), room.look(&token).await.secret.bytes());
        assert_eq!(room.status("alice").await.invited_until, Some(START + INVITE_TTL));
        room.ask(accept(&token, &alice.code(&room))).await.unwrap();
        let status = room.status("alice").await;
        assert!(status.has_password && status.invited_until.is_none());
        let again = room.ask(accept(&token, &alice.code_after(&room, 1))).await.unwrap_err();
        assert!(again.to_string().contains("has been used"), "{again}");
        let shown = room.ask(LookAtInvite { token }).await;
        assert!(matches!(shown, Err(AccountError::InviteUsed)), "{shown:?}");
        room.pass(Duration::from_secs(60));
        assert_eq!(
            room.log_in("alice", PASSWORD, &alice.code(&room)).await,
            Ok(person("alice"))
        );
        for (code, user) in [
            ("T6000I", "test"),
            ("T1005I", "alice"),
            ("T1006I", "alice"),
            ("T1000I", "alice"),
        ] {
            assert_eq!(room.events(code)[0]["user"], user, "{code}");
        }
        assert_eq!(room.events("T1005I")[0]["addr.remote"], "192.0.2.1:5000");
    });
}

#[test]
fn the_store_has_neither_the_token_nor_the_password_nor_the_secret_of_the_codes() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        let shown = room.ask(LookAtInvite { token: token.clone() }).await.unwrap();
        assert!(!format!("{shown:?}").contains(shown.otp_secret.expose()));
        let before = room.parts.store.range("/", 100).await.unwrap();
        let alice = room.look(&token).await;
        room.ask(accept(&token, &alice.code(&room))).await.unwrap();
        for item in before
            .into_iter()
            .chain(room.parts.store.range("/", 100).await.unwrap())
        {
            let text = item.key.clone() + &String::from_utf8_lossy(&item.value);
            for secret in [token.expose().as_str(), PASSWORD, shown.otp_secret.expose()] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    });
}

#[test]
fn of_those_who_race_for_an_invitation_one_wins() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        let alice = room.look(&token).await;
        let code = alice.code(&room);
        let tries = (0..12).map(|number| {
            let mut message = accept(&token, &code);
            message.password = secret(format!("{PASSWORD} {number}"));
            let address = room.address(number);
            async move { ask(&address, message).await }
        });
        let answers = join_all(tries).await;
        let winners: Vec<usize> = (0..12).filter(|number| answers[*number].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        for lost in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(matches!(lost, AccountError::InviteUsed), "{lost:?}");
        }
        room.pass(Duration::from_secs(60));
        let password = format!("{PASSWORD} {}", winners[0]);
        room.log_in("alice", &password, &alice.code(&room)).await.unwrap();
    });
}

#[test]
fn an_invitation_needs_a_long_password_and_the_code_and_is_not_used_up_by_mistakes() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        let alice = room.look(&token).await;
        let mut short = accept(&token, &alice.code(&room));
        short.password = secret("elevenchars");
        let said = room.ask(short).await.unwrap_err().to_string();
        assert!(said.contains("at least 12 characters"), "{said}");
        for code in ["", "123", &alice.code_after(&room, 3), &alice.code_after(&room, -2)] {
            let wrong = room.ask(accept(&token, code)).await;
            assert!(matches!(wrong, Err(AccountError::WrongCode)), "{wrong:?}");
        }
        room.ask(accept(&token, &alice.code(&room))).await.unwrap();
    });
}

#[test]
fn an_invitation_ends_at_its_time_and_another_text_is_none() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        room.pass(INVITE_TTL - Duration::from_micros(1));
        let alice = room.look(&token).await;
        room.pass(Duration::from_micros(1));
        let said = room.ask(accept(&token, &alice.code(&room))).await.unwrap_err();
        assert!(matches!(said, AccountError::InviteExpired), "{said}");
        assert_eq!(room.status("alice").await.invited_until, None);
        for token in [String::new(), "0".repeat(32), "ä".repeat(16), "x".repeat(100_000)] {
            let said = room.ask(LookAtInvite { token: secret(token) }).await.unwrap_err();
            assert!(matches!(said, AccountError::NoInvite), "{said}");
        }
    });
}

#[test]
fn an_invitation_is_for_somebody_who_exists_and_for_a_time_within_the_limits() {
    in_a_room(|room| async move {
        let said = room
            .ask(invite("carol", InviteKind::Invite, INVITE_TTL))
            .await
            .unwrap_err();
        assert!(said.to_string().contains("no user \"carol\""), "{said}");
        for (kind, ttl, good) in [
            (InviteKind::Invite, INVITE_TTL_MAX, true),
            (InviteKind::Invite, INVITE_TTL_MAX + Duration::from_secs(1), false),
            (InviteKind::Reset, RESET_TTL_MAX, true),
            (InviteKind::Reset, RESET_TTL_MAX + Duration::from_secs(1), false),
            (InviteKind::Reset, Duration::ZERO, false),
        ] {
            let made = room.ask(invite("alice", kind, ttl)).await;
            assert_eq!(made.is_ok(), good, "{kind:?} {ttl:?}");
        }
    });
}

#[test]
fn a_reset_takes_the_password_the_older_link_and_the_lock_away() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        for _ in 0..FAILURES_MAX {
            room.log_in("alice", "wrong password", "000000").await.unwrap_err();
        }
        assert!(room.status("alice").await.locked_until.is_some());
        let first = room.invite("alice", InviteKind::Reset).await;
        let second = room.invite("alice", InviteKind::Reset).await;
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "no password");
        let old = room.ask(LookAtInvite { token: first }).await;
        assert!(matches!(old, Err(AccountError::InviteUsed)), "{old:?}");
        let anew = room.look(&second).await;
        assert_ne!(anew.secret.bytes(), alice.secret.bytes());
        room.ask(accept(&second, &anew.code(&room))).await.unwrap();
        assert_eq!(room.status("alice").await.locked_until, None);
        room.pass(Duration::from_secs(60));
        room.log_in("alice", PASSWORD, &anew.code(&room)).await.unwrap();
    });
}

#[test]
fn a_code_logs_in_once_and_so_does_none_that_is_older() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        let alice = room.look(&token).await;
        let (early, code) = (alice.code_after(&room, -1), alice.code(&room));
        room.ask(accept(&token, &code)).await.unwrap();
        for used in [&code, &early] {
            let answer = room.log_in("alice", PASSWORD, used).await;
            room.refused(&answer, "used before");
        }
        let next = alice.code_after(&room, 1);
        room.log_in("alice", PASSWORD, &next).await.unwrap();
        let answer = room.log_in("alice", PASSWORD, &next).await;
        room.refused(&answer, "used before");
        let answer = room.log_in("alice", PASSWORD, &alice.code_after(&room, 2)).await;
        room.refused(&answer, "code is wrong");
    });
}

#[test]
fn of_logins_that_race_with_one_code_one_wins() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let code = alice.code(&room);
        let tries = (0..4).map(|number| {
            let address = room.address(number);
            let message = log_in("alice", PASSWORD, &code, &entropy::bytes());
            async move { ask(&address, message).await }
        });
        let answers = join_all(tries).await;
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(won, 1, "{answers:?}");
    });
}

#[test]
fn every_login_that_is_refused_reads_the_same_and_the_audit_log_knows_why() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let code = alice.code(&room);
        let long = "x".repeat(1_000_000);
        for (name, password, code, why) in [
            ("alice", "wrong password", code.as_str(), "password is wrong"),
            ("alice", PASSWORD, "000000", "code is wrong"),
            ("alice", &long, &code, "password is wrong"),
            ("bob", PASSWORD, &code, "no password"),
            ("carol", PASSWORD, &code, "no such user"),
            ("Alice", PASSWORD, &code, "no such user"),
            ("alice\n", PASSWORD, &code, "not one of a user"),
            (&long, PASSWORD, &code, "not one of a user"),
        ] {
            let answer = room.log_in(name, password, code).await;
            room.refused(&answer, why);
            assert!(room.events("T1000W").pop().unwrap()["user"].as_str().unwrap().len() <= 255);
        }
        room.log_in("alice", PASSWORD, &code).await.unwrap();
    });
}

#[test]
fn a_login_of_somebody_unknown_or_locked_waits_for_a_hash_like_every_other() {
    in_a_room(|room| async move {
        let books = Books {
            parts: room.parts.clone(),
            hasher: Hasher::new(),
        };
        room.join("alice").await;
        for _ in 0..FAILURES_MAX {
            room.log_in("alice", "wrong password", "").await.unwrap_err();
        }
        let cores = u32::try_from(books.hasher.cores.available_permits()).unwrap();
        for name in ["alice", "bob", "carol", "not a name"] {
            let held = books.hasher.cores.clone().acquire_many_owned(cores).await.unwrap();
            let mut login = Box::pin(books.clone().log_in(log_in(name, PASSWORD, "000000", &[192, 0, 2, 1])));
            let waited = tokio::time::timeout(Duration::from_millis(200), &mut login).await;
            assert!(waited.is_err(), "{name} was answered without a hash");
            drop(held);
            assert_eq!(login.await, Err(LoginRefused::Denied));
        }
    });
}

#[test]
fn five_failures_lock_an_account_for_twenty_minutes_also_for_the_right_password() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        for _ in 0..FAILURES_MAX - 1 {
            let answer = room.log_in("alice", "wrong password", "000000").await;
            room.refused(&answer, "password is wrong");
        }
        room.log_in("alice", PASSWORD, &alice.code(&room)).await.unwrap();
        for _ in 0..FAILURES_MAX {
            let answer = room.log_in("alice", "wrong password", "000000").await;
            room.refused(&answer, "password is wrong");
        }
        let until = room.clock.now() + LOCKED_FOR;
        assert_eq!(room.status("alice").await.locked_until, Some(until));
        room.pass(LOCKED_FOR - Duration::from_micros(1));
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "locked until");
        room.pass(Duration::from_micros(1));
        room.log_in("alice", PASSWORD, &alice.code(&room)).await.unwrap();
    });
}

#[test]
fn guesses_that_come_at_once_get_no_more_tries_than_guesses_in_a_row() {
    in_a_room(|room| async move {
        room.join("alice").await;
        let guesses = (0..20).map(|number| {
            let address = room.address(number);
            let message = log_in("alice", "wrong password", "000000", &entropy::bytes());
            async move { ask(&address, message).await }
        });
        assert!(join_all(guesses).await.iter().all(Result::is_err));
        let events = room.events("T1000W");
        let tried = events
            .iter()
            .filter(|event| event["error"] == "the password is wrong")
            .count();
        assert_eq!(tried, FAILURES_MAX, "{events:?}");
    });
}

#[test]
fn a_login_that_finds_no_room_is_told_to_wait_and_counts_as_no_failure() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let books = Books {
            parts: room.parts.clone(),
            hasher: Hasher::new(),
        };
        let taken: Vec<_> = std::iter::repeat_with(|| books.hasher.enter())
            .take_while(Result::is_ok)
            .collect();
        for _ in 0..=FAILURES_MAX {
            let login = books
                .clone()
                .log_in(log_in("alice", PASSWORD, "000000", &[192, 0, 2, 1]));
            assert_eq!(login.await, Err(LoginRefused::TooMany));
        }
        drop(taken);
        let login = log_in("alice", PASSWORD, &alice.code(&room), &[192, 0, 2, 1]);
        assert_eq!(books.log_in(login).await, Ok(person("alice")));
    });
}

#[test]
fn an_address_that_tries_too_often_is_told_to_wait_and_others_are_not() {
    in_a_room(|room| async move {
        let busy = [192, 0, 2, 7];
        let mut refused = 0;
        for _ in 0..42 {
            let answer = room.ask(log_in("carol", PASSWORD, "000000", &busy)).await;
            refused += usize::from(answer == Err(LoginRefused::TooMany));
        }
        assert_eq!(refused, 2);
        let answer = room.ask(log_in("carol", PASSWORD, "000000", &[192, 0, 2, 8])).await;
        assert_eq!(answer, Err(LoginRefused::Denied));
        let told = room.events("T1000W");
        let told = told
            .iter()
            .filter(|e| e["error"].as_str().unwrap().contains("too often"));
        assert_eq!(told.count(), 1);
    });
}

#[test]
fn somebody_who_was_removed_cannot_log_in_and_comes_back_without_the_old_password() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        room.parts.published.send_replace(published(&["bob"]));
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "no such user");
        room.parts.published.send_replace(published(&["alice", "bob"]));
        room.invite("alice", InviteKind::Invite).await;
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "no password");
    });
}

#[test]
fn an_account_that_is_forgotten_has_no_password_and_no_link() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let token = room.invite("bob", InviteKind::Invite).await;
        for name in ["alice", "bob", "carol"] {
            let person = person(name);
            room.ask(ForgetAccount { person }).await.unwrap();
            assert!(!room.status(name).await.has_password);
        }
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "no password");
        let shown = room.ask(LookAtInvite { token }).await;
        assert!(matches!(shown, Err(AccountError::NoInvite)), "{shown:?}");
        let left = room.parts.store.range("/account/", 10).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    });
}

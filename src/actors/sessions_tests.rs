use super::super::host::{ActorRef, Runtimes, Spec, run_system, start_on};
use super::super::policy::{Policy, PolicyReceived, PolicyStock};
use super::*;
use crate::actors::address::{Message, Origin};
use crate::model::clock::{Clock as _, HeldClock};
use crate::model::{ClusterName, DbName, DbUser, Labels, PersonName, Principal, ServiceName, Timestamp, Traits};
use crate::policy::parse_resources;

/// More than any limit of these tests, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);
const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const HOUR: Duration = Duration::from_secs(3600);

struct Room {
    sessions: ActorRef<Sessions>,
    policy: ActorRef<Policy>,
    view: PolicyView,
    clock: Arc<HeldClock>,
    #[cfg_attr(not(feature = "fault-points"), expect(dead_code, reason = "only faults need it"))]
    stock: SessionsStock,
}

/// alice, who may do everything, with these options and what else there is.
fn snapshot(version: u64, options: &str, more: &str) -> Arc<PolicySnapshot> {
    let yaml = format!(
        "kind: user\nversion: v2\nmetadata: {{name: alice}}\nspec: {{roles: [open]}}\n---\n\
         kind: role\nversion: v7\nmetadata: {{name: open}}\nspec: {{options: {{{options}}}, \
         allow: {{db_labels: {{'*': '*'}}, db_users: ['*'], db_names: ['*']}}}}\n{more}"
    );
    let mut snapshot = PolicySnapshot::empty(version, START);
    for resource in parse_resources(&yaml).unwrap() {
        snapshot.add(resource).unwrap();
    }
    Arc::new(snapshot)
}

fn request() -> AccessRequest {
    AccessRequest {
        principal: Arc::new(Principal {
            name: PersonName::new("alice").unwrap(),
            cluster: ClusterName::new("gate.example").unwrap(),
            roles: Vec::new(),
            traits: Traits::new(),
            mfa: false,
            valid_until: START + HOUR,
            route: None,
            pinned_ip: None,
        }),
        service: ServiceName::new("orders").unwrap(),
        labels: Labels::default(),
        db_user: DbUser::new("app").unwrap(),
        db_name: DbName::new("app").unwrap(),
        replication: None,
        nodes: Vec::new(),
        client_ip: None,
    }
}

impl Room {
    async fn start(runtimes: &Runtimes, options: &str) -> Self {
        let (stock, clock) = (PolicyStock::default(), HeldClock::at(START));
        let view = stock.view(clock.clone());
        let runtime = &runtimes.workers[0];
        let policy_clock = clock.clone();
        let policy = start_on(runtime, Spec::permanent("policy"), Arc::new(|_| {}), move || {
            Policy::new(stock.clone(), policy_clock.clone())
        });
        let stock = SessionsStock::default();
        let parts = (stock.clone(), view.clone(), clock.clone());
        // A name of its own, for the faults that are done to it.
        let name = format!("sessions-{:?}", std::thread::current().id());
        let sessions = start_on(runtime, Spec::permanent(&name), Arc::new(|_| {}), move || {
            let (stock, view, clock) = parts.clone();
            Sessions::new(stock, view, clock)
        });
        let room = Self {
            sessions,
            policy,
            view,
            clock,
            stock,
        };
        room.publish(1, options, "").await;
        room
    }

    async fn publish(&self, version: u64, options: &str, more: &str) {
        let (snapshot, max_age) = (snapshot(version, options, more), HOUR);
        ask(&self.policy.address(), PolicyReceived { snapshot, max_age }).await;
    }

    async fn open(&self, number: u8) -> Result<Watched, Refusal> {
        let rules = self.view.current().unwrap();
        let request = request();
        let register = RegisterSession {
            session: SessionId::from_random([number; 16]),
            connection: ConnectionId::from_random([number; 8]),
            options: rules.options_of(&request.principal.name),
            request,
            policy_version: rules.version,
        };
        ask(&self.sessions.address(), register).await
    }

    async fn refused(&self, number: u8) -> Refusal {
        self.open(number).await.err().expect("refused")
    }
}

async fn ask<M: Message>(address: &crate::actors::address::Address<M>, message: M) -> M::Reply {
    address.ask(&Origin::outside("test"), message, SOON).await.unwrap()
}

/// What the relay of a session is told.
async fn ended(watched: &mut Watched) -> Refusal {
    let told = tokio::time::timeout(SOON, watched.end.recv()).await;
    match *told.expect("in time").expect("a reason") {
        End::Now(refusal) => refusal,
        End::WhenIdle(refusal) => panic!("not at once: {refusal}"),
    }
}

fn in_a_room<F: Future<Output = ()>>(options: &'static str, test: impl FnOnce(Room) -> F) {
    run_system(1, |runtimes| async move {
        test(Room::start(&runtimes, options).await).await
    });
}

#[test]
fn a_person_has_as_many_sessions_as_the_roles_allow_and_no_more() {
    in_a_room("max_connections: 2", |room| async move {
        let first = room.open(1).await.unwrap();
        let _second = room.open(2).await.unwrap();
        let refusal = room.refused(3).await;
        assert_eq!(refusal.kind.sqlstate(), "53300");
        assert!(refusal.message.contains("alice may have 2"), "{refusal}");
        // A relay that is gone makes room, whether or not its end was heard.
        drop(first);
        let _third = room.open(3).await.unwrap();
        room.refused(4).await;
        let closed = SessionClosed(SessionId::from_random([2; 16]));
        ask(&room.sessions.address(), closed).await;
        let _fourth = room.open(4).await.unwrap();
        room.publish(2, "max_connections: 0", "").await;
        let _unlimited = (room.open(5).await.unwrap(), room.open(6).await.unwrap());
    });
}

#[test]
fn a_shorter_idle_timeout_ends_the_sessions_that_rest_and_no_others() {
    in_a_room("client_idle_timeout: 1h", |room| async move {
        let (mut resting, mut busy) = (room.open(1).await.unwrap(), room.open(2).await.unwrap());
        resting.rest.answered(true);
        busy.rest.client_spoke(false);
        room.publish(2, "client_idle_timeout: 1s", "").await;
        let refusal = ended(&mut resting).await;
        assert_eq!(
            (refusal.kind, refusal.message.as_str()),
            (RefusalKind::IdleTimeout, "Client exceeded idle timeout of 1s")
        );
        assert!(busy.end.try_recv().is_err());
    });
}

#[test]
fn strict_audit_binds_open_sessions_as_soon_as_the_rules_have_it() {
    in_a_room("", |room| async move {
        let session = room.open(1).await.unwrap();
        let becomes = async |strict| {
            while session.strict.is_set() != strict {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(!session.strict.is_set());
        room.publish(2, "audit: strict", "").await;
        assert!(room.open(2).await.unwrap().strict.is_set());
        tokio::time::timeout(SOON, becomes(true)).await.unwrap();
        room.publish(3, "audit: default", "").await;
        tokio::time::timeout(SOON, becomes(false)).await.unwrap();
    });
}

#[test]
fn a_session_ends_with_its_certificate_once_a_role_says_so() {
    in_a_room("", |room| async move {
        let mut session = room.open(1).await.unwrap();
        room.clock.move_to(START + HOUR);
        room.publish(2, "max_connections: 5", "").await;
        let _second = room.open(2).await.unwrap();
        assert!(session.end.try_recv().is_err(), "it outlives its certificate");
        room.publish(3, "disconnect_expired_cert: true", "").await;
        let refusal = ended(&mut session).await;
        assert_eq!(refusal.kind, RefusalKind::CertificateExpired);
        assert!(
            refusal.message.starts_with("client certificate expired at 2023-"),
            "{refusal}"
        );
    });
}

#[test]
fn a_lock_that_begins_to_exist_ends_the_session_with_its_words() {
    in_a_room("", |room| async move {
        let mut session = room.open(1).await.unwrap();
        let lock = "---\nkind: lock\nversion: v2\nmetadata: {name: l}\nspec: {target: {role: open}, message: closed}\n";
        room.publish(2, "", lock).await;
        let refusal = ended(&mut session).await;
        assert_eq!(refusal.kind.sqlstate(), "57P01");
        assert!(
            refusal
                .message
                .contains("lock targeting Role:\"open\" is in force: closed"),
            "{refusal}"
        );
    });
}

#[test]
fn a_lock_that_has_expired_keeps_nobody_out_though_no_news_came() {
    in_a_room("", |room| async move {
        let until = START + Duration::from_secs(60);
        let lock = format!(
            "---\nkind: lock\nversion: v2\nmetadata: {{name: l}}\nspec: {{target: {{user: alice}}, expires: '{until}'}}\n"
        );
        room.publish(2, "", &lock).await;
        let decide_now = || decide(&room.view.current().unwrap(), &request(), room.clock.now()).is_ok();
        assert!(!decide_now());
        room.clock.move_to(until);
        assert!(decide_now());
        let mut session = room.open(1).await.unwrap();
        room.publish(3, "max_connections: 9", &lock).await;
        let _second = room.open(2).await.unwrap();
        assert!(session.end.try_recv().is_err());
        // Not even one whose certificate ended while the lock was in force.
        room.clock.move_to(START + HOUR);
        let rules = snapshot(4, "", &lock);
        let mut old = request();
        Arc::make_mut(&mut old.principal).valid_until = START + Duration::from_secs(1);
        assert!(still_allowed(&rules, &old, room.clock.now()).is_ok());
    });
}

#[cfg(feature = "fault-points")]
mod failures {
    use super::*;
    use crate::telemetry::fault::{Fault, inject};
    use tokio::sync::mpsc::error::TryRecvError;

    /// alice may do nothing any more.
    const NOTHING: &str =
        "---\nkind: lock\nversion: v2\nmetadata: {name: closed}\nspec: {target: {user: alice}, message: closed}\n";

    impl Room {
        fn fails(&self, fault: Fault) {
            inject(self.sessions.name(), fault).unwrap();
        }
    }

    #[test]
    fn sessions_outlive_a_failure_of_the_actor_and_are_watched_over_after_it() {
        in_a_room("max_connections: 2", |room| async move {
            let mut first = room.open(1).await.unwrap();
            room.fails(Fault::Handler);
            let mut second = room.open(2).await.unwrap();
            assert_eq!(
                first.end.try_recv().err(),
                Some(TryRecvError::Empty),
                "it goes on, and is watched over"
            );
            room.refused(3).await;
            room.publish(2, "", NOTHING).await;
            assert_eq!(ended(&mut first).await.kind, RefusalKind::AccessRevoked);
            assert_eq!(ended(&mut second).await.kind, RefusalKind::AccessRevoked);
        });
    }

    #[test]
    fn a_session_that_is_denied_while_the_actor_is_rebuilt_ends() {
        in_a_room("", |room| async move {
            let mut session = room.open(1).await.unwrap();
            room.fails(Fault::Start { builds: 4 });
            room.publish(2, "", NOTHING).await;
            assert_eq!(ended(&mut session).await.kind, RefusalKind::AccessRevoked);
        });
    }

    #[test]
    fn a_session_whose_end_was_not_heard_is_forgotten_by_the_rebuilt_actor() {
        in_a_room("", |room| async move {
            drop(room.open(1).await.unwrap());
            let _lives = room.open(2).await.unwrap();
            assert_eq!(room.stock.table().open.len(), 2);
            room.fails(Fault::Handler);
            let _lives_too = room.open(3).await.unwrap();
            assert_eq!(room.stock.table().open.len(), 2);
        });
    }

    #[test]
    fn a_node_that_drains_goes_on_with_it_after_a_failure() {
        in_a_room("", |room| async move {
            let mut session = room.open(1).await.unwrap();
            let refusal = Refusal::new(RefusalKind::ShuttingDown, "the node goes down");
            room.sessions
                .address()
                .tell(&Origin::outside("test"), Drain(refusal.clone()))
                .unwrap();
            let told = session.end.recv().await.expect("a reason");
            assert!(matches!(*told, End::WhenIdle(_)));
            room.fails(Fault::Handler);
            assert_eq!(room.refused(2).await, refusal);
            drop(session);
            ask(&room.sessions.address(), SessionClosed(SessionId::from_random([1; 16]))).await;
            ask(&room.sessions.address(), Drain(refusal)).await;
        });
    }
}

//! The sessions that are open on this node.
//!
//! **Owns** every open session: what was allowed, and the way to end it.
//! **Hears** `RegisterSession` (asked before the first byte), `SessionClosed`, `EndService`, `Drain`, `EndAll`.
//! **Tells** a session's relay that it is over, at once or as soon as it is idle, with the reason that its client reads.
//! **Never** touches a byte of a session.
//! **Ends** with the node. After a failure it knows of no session; those that were open lost their registration with it and
//! are ended, because a session that nobody can end must not go on.

use super::address::{Promise, Reply, message};
use super::host::{Behavior, Ctx, Handle};
use super::policy::PolicyView;
use crate::model::{ConnectionId, Refusal, RefusalKind, ServiceName, SessionId, SharedClock};
use crate::net::copy::{ENDS, End};
use crate::policy::{AccessRequest, Denial, PolicySnapshot, decide};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::sync::mpsc;

/// Sessions on one node; the reference's `max_connections`.
pub const SESSIONS_MAX: usize = 15_000;

/// A client that does not read does not hold up the end of the node.
pub const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(3);
const LAST_WORDS_POLL: Duration = Duration::from_millis(10);

/// How often it is looked whether the last session of a node that drains has ended.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// How often the log says how many there are left.
const DRAIN_LOG_EVERY: Duration = Duration::from_secs(5);

/// How long a session that is over may stay in the list when its mailbox was full.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// A session is about to begin. The answer is its end signal: the relay gets it, and ends when it is told to, or when the other
/// end of it is dropped.
pub struct RegisterSession {
    pub session: SessionId,
    pub connection: ConnectionId,
    pub request: AccessRequest,
    /// Of the decision that allowed it.
    pub policy_version: u64,
}

pub struct SessionClosed(pub SessionId);

/// Says when the session has to end. Closed without a word, it means that nobody watches over the session any more.
pub type EndSignal = mpsc::Receiver<End>;

/// The node is going down: every session ends with this reason as soon as it is idle, and none begins any more. Answered when
/// the last one has ended, however long that takes; whoever does not want to wait any longer sends [`EndAll`].
pub struct Drain(pub Refusal);

/// The node is going down: every session ends with this reason, and none begins any more. Answered when they have ended, or
/// when [`LAST_WORDS_DEADLINE`] has passed.
pub struct EndAll(pub Refusal);

/// A database service is not served any more as it was: its sessions end with this reason.
pub struct EndService {
    pub service: ServiceName,
    pub refusal: Refusal,
}

message!(
    RegisterSession => Result<EndSignal, Refusal>,
    SessionClosed => (),
    EndService => (),
    Drain => (),
    EndAll => (),
);

struct Open {
    connection: ConnectionId,
    request: AccessRequest,
    end: mpsc::Sender<End>,
}

pub struct Sessions {
    open: HashMap<SessionId, Open>,
    /// Those that were told to end and may still be at their last words.
    ending: HashSet<SessionId>,
    /// Why no session begins any more.
    going_down: Option<Refusal>,
    policy: PolicyView,
    clock: SharedClock,
}

impl Sessions {
    pub fn new(policy: PolicyView, clock: SharedClock) -> Self {
        Self {
            open: HashMap::new(),
            ending: HashSet::new(),
            going_down: None,
            policy,
            clock,
        }
    }

    fn await_news(&self, ctx: &mut Ctx<'_, Self>) {
        let mut policy = self.policy.clone();
        ctx.run(
            async move { (policy.changed().await, policy) },
            |sessions, (news, policy), ctx| {
                sessions.policy = policy;
                if let Some(snapshot) = news {
                    sessions.decide_again(&snapshot);
                    sessions.await_news(ctx);
                }
            },
        );
    }

    /// A session whose relay is gone says so; where its word did not find room in the mailbox, this finds it.
    fn sweep_later(ctx: &mut Ctx<'_, Self>) {
        ctx.after(SWEEP_EVERY, |sessions, ctx| {
            sessions.open.retain(|_, open| !open.end.is_closed());
            Self::sweep_later(ctx);
        });
    }

    fn await_ends(&self, left: Duration, promise: Promise<()>, ctx: &mut Ctx<'_, Self>) {
        if self.ending.is_empty() || left.is_zero() {
            return promise.keep(());
        }
        ctx.after(LAST_WORDS_POLL, move |sessions, ctx| {
            sessions.await_ends(left.saturating_sub(LAST_WORDS_POLL), promise, ctx);
        });
    }

    fn await_idle(&self, since_said: Duration, promise: Promise<()>, ctx: &mut Ctx<'_, Self>) {
        if self.open.is_empty() {
            return promise.keep(());
        }
        let mut since_said = since_said + DRAIN_POLL;
        if since_said >= DRAIN_LOG_EVERY {
            tracing::info!(actor = %ctx.name(), sessions_left = self.open.len(), "draining");
            since_said = Duration::ZERO;
        }
        ctx.after(DRAIN_POLL, move |sessions, ctx| {
            sessions.await_idle(since_said, promise, ctx)
        });
    }

    fn decide_again(&mut self, snapshot: &PolicySnapshot) {
        let now = self.clock.now();
        let denied: Vec<(SessionId, Refusal)> = self
            .open
            .iter()
            .filter_map(|(id, open)| Some((*id, still_allowed(snapshot, &open.request, now).err()?)))
            .collect();
        for (id, refusal) in denied {
            if let Some(open) = self.open.remove(&id) {
                tracing::info!(session = %id, connection = %open.connection, reason = %refusal, "session ended");
                // A relay that is gone already needs no reason.
                let _gone = open.end.try_send(End::Now(refusal));
            }
        }
    }
}

/// Decides about a session that has been allowed before. Its certificate may have expired meanwhile; whether that ends a
/// session is an option of the roles and not the question here.
fn still_allowed(
    snapshot: &PolicySnapshot,
    request: &AccessRequest,
    now: crate::model::Timestamp,
) -> Result<(), Refusal> {
    let at = now.min(request.principal.valid_until - Duration::from_micros(1));
    match decide(snapshot, request, at) {
        Ok(_permit) => Ok(()),
        Err(denial) => {
            tracing::debug!(%denial, "no longer allowed");
            if let Denial::Locked(lock) = &denial {
                let why = format!("this session is over: {}", lock.sentence());
                return Err(Refusal::new(RefusalKind::AccessRevoked, why));
            }
            Err(Refusal::new(
                RefusalKind::AccessRevoked,
                format!(
                    "this session is over: the cluster's rules changed, and {} may no longer use database user {} and \
                     database {} of {}",
                    request.principal.name, request.db_user, request.db_name, request.service
                ),
            )
            .hint("ask an administrator; a new session will be allowed again when the rules are"))
        }
    }
}

impl Behavior for Sessions {
    /// A burst of clients registers at once: one message when a session opens, one when it closes.
    const MAILBOX: usize = 1024;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.await_news(ctx);
        Self::sweep_later(ctx);
    }
}

impl Handle<RegisterSession> for Sessions {
    fn handle(
        &mut self,
        RegisterSession {
            session,
            connection,
            request,
            policy_version,
        }: RegisterSession,
        _: &mut Ctx<'_, Self>,
    ) -> Reply<Result<EndSignal, Refusal>> {
        if let Some(refusal) = &self.going_down {
            return Reply::Now(Err(refusal.clone()));
        }
        if self.open.len() >= SESSIONS_MAX {
            return Reply::Now(Err(Refusal::new(
                RefusalKind::TooMany,
                format!("this node has {SESSIONS_MAX} sessions open, which is its limit"),
            )));
        }
        // The rules may have changed between the decision and now; from now on the news reaches this session.
        if self.policy.version().is_some_and(|newest| newest > policy_version) {
            let again = self
                .policy
                .current()
                .and_then(|snapshot| still_allowed(&snapshot, &request, self.clock.now()));
            if let Err(refusal) = again {
                return Reply::Now(Err(refusal));
            }
        }
        if self.open.contains_key(&session) {
            tracing::error!(%session, "a session of this id is open already");
            return Reply::Now(Err(Refusal::new(RefusalKind::Internal, "this session is open already")));
        }
        let (end, signal) = mpsc::channel(ENDS);
        self.open.insert(
            session,
            Open {
                connection,
                request,
                end,
            },
        );
        Reply::Now(Ok(signal))
    }
}

impl Handle<SessionClosed> for Sessions {
    fn handle(&mut self, SessionClosed(session): SessionClosed, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.open.remove(&session);
        self.ending.remove(&session);
        Reply::Now(())
    }
}

impl Handle<EndService> for Sessions {
    fn handle(&mut self, EndService { service, refusal }: EndService, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.open.retain(|id, open| {
            let is_of_it = open.request.service == service;
            if is_of_it {
                tracing::info!(session = %id, connection = %open.connection, reason = %refusal, "session ended");
                // A relay that is gone already needs no reason.
                let _gone = open.end.try_send(End::Now(refusal.clone()));
            }
            !is_of_it
        });
        Reply::Now(())
    }
}

impl Handle<Drain> for Sessions {
    fn handle(&mut self, Drain(refusal): Drain, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        if self.going_down.is_none() {
            for open in self.open.values() {
                // A relay that is gone needs no reason.
                let _gone = open.end.try_send(End::WhenIdle(refusal.clone()));
            }
            self.going_down = Some(refusal);
        }
        tracing::info!(actor = %ctx.name(), sessions_left = self.open.len(), "draining");
        let (reply, promise) = Reply::later();
        self.await_idle(Duration::ZERO, promise, ctx);
        reply
    }
}

impl Handle<EndAll> for Sessions {
    fn handle(&mut self, EndAll(refusal): EndAll, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        self.going_down = Some(refusal.clone());
        for (id, open) in self.open.drain() {
            if open.end.try_send(End::Now(refusal.clone())).is_ok() {
                self.ending.insert(id);
            }
        }
        let (reply, promise) = Reply::later();
        self.await_ends(LAST_WORDS_DEADLINE, promise, ctx);
        reply
    }
}

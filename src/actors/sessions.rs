//! The sessions that are open on this node.
//!
//! **Owns** every open session: what was allowed, and the way to end it.
//! **Hears** `RegisterSession` (asked before the first byte), `SessionClosed`, `EndAll`.
//! **Tells** a session's relay that it is over, with the reason that its client reads.
//! **Never** touches a byte of a session.
//! **Ends** with the node. After a failure it knows of no session; those that were open lost their registration with it and
//! are ended, because a session that nobody can end must not go on.

use super::address::{Promise, Reply, message};
use super::host::{Behavior, Ctx, Handle};
use super::policy::PolicyView;
use crate::model::{ConnectionId, Refusal, RefusalKind, SessionId, SharedClock};
use crate::policy::{AccessRequest, Denial, PolicySnapshot, decide};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::sync::oneshot;

/// Sessions on one node; the reference's `max_connections`.
pub const SESSIONS_MAX: usize = 15_000;

/// A client that does not read does not hold up the end of the node.
pub const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(3);
const LAST_WORDS_POLL: Duration = Duration::from_millis(10);

/// How long a session that is over may stay in the list when its mailbox was full.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// A session is about to begin. The answer is its end signal: the relay gets it, and ends when it speaks or is dropped.
pub struct RegisterSession {
    pub session: SessionId,
    pub connection: ConnectionId,
    pub request: AccessRequest,
    /// Of the decision that allowed it.
    pub policy_version: u64,
}

pub struct SessionClosed(pub SessionId);

/// Resolves when the session has to end. An error means that nobody watches over it any more.
pub type EndSignal = oneshot::Receiver<Refusal>;

/// The node is going down: every session ends with this reason, and none begins any more. Answered when they have ended, or
/// when [`LAST_WORDS_DEADLINE`] has passed.
pub struct EndAll(pub Refusal);

message!(RegisterSession => Result<EndSignal, Refusal>, SessionClosed => (), EndAll => ());

struct Open {
    connection: ConnectionId,
    request: AccessRequest,
    end: oneshot::Sender<Refusal>,
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
                let _gone = open.end.send(refusal);
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
        let (end, signal) = oneshot::channel();
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

impl Handle<EndAll> for Sessions {
    fn handle(&mut self, EndAll(refusal): EndAll, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        self.going_down = Some(refusal.clone());
        for (id, open) in self.open.drain() {
            if open.end.send(refusal.clone()).is_ok() {
                self.ending.insert(id);
            }
        }
        let (reply, promise) = Reply::later();
        self.await_ends(LAST_WORDS_DEADLINE, promise, ctx);
        reply
    }
}

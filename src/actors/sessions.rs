//! The sessions that are open on this node.
//!
//! **Owns** every open session: what was allowed, its limits, and the way to end it.
//! **Hears** `RegisterSession` (asked before the first byte), `SessionClosed`, `EndService`, `Drain`, `EndAll`.
//! **Tells** a session's relay that it is over, at once or as soon as it is idle, with the reason that its client reads.
//! **Never** touches a byte of a session.
//! **Ends** with the node. What it owns is kept outside of its state ([`SessionsStock`]): a rebuild ends no session, and decides
//! again about each of them. When the actor is gone for good the stock goes with it, and the relays end, because a session that
//! nobody can end must not go on.

use super::address::{Promise, Reply, message};
use super::host::{Behavior, Ctx, Handle};
use super::open_sessions::{Open, OpenSessions};
use super::policy::PolicyView;
use super::session_limits::{Limits, RestMark, StrictMark};
use super::sessions_stock::{SessionsStock, Table};
use crate::model::{ConnectionId, Refusal, RefusalKind, ServiceName, SessionId, SharedClock};
use crate::net::copy::{ENDS, End, EndSignal};
use crate::policy::{AccessRequest, Denial, PolicySnapshot, SessionOptions, decide};
use crate::telemetry::panics;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
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

/// How often every session's limits are looked at: one look costs some nanoseconds, and none of them ends later than this after
/// its time.
const LIMITS_EVERY: Duration = Duration::from_secs(1);

/// A session is about to begin. The answer is what its relay gets: it ends when its end signal says so, or when the other end of
/// that is dropped.
pub struct RegisterSession {
    pub session: SessionId,
    pub connection: ConnectionId,
    pub request: AccessRequest,
    /// Of the decision that allowed it.
    pub policy_version: u64,
    pub options: SessionOptions,
}

pub struct SessionClosed(pub SessionId);

/// What binds a relay to whoever watches over its session.
pub struct Watched {
    /// Says when the session has to end. Closed without a word, it means that nobody watches over the session any more.
    pub end: EndSignal,
    pub rest: RestMark,
    pub strict: StrictMark,
}

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
    RegisterSession => Result<Watched, Refusal>,
    SessionClosed => (),
    EndService => (),
    Drain => (),
    EndAll => (),
);

pub struct Sessions {
    stock: SessionsStock,
    policy: PolicyView,
    clock: SharedClock,
}

impl Sessions {
    pub fn new(stock: SessionsStock, policy: PolicyView, clock: SharedClock) -> Self {
        Self { stock, policy, clock }
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
            sessions.stock.table().open.sweep();
            Self::sweep_later(ctx);
        });
    }

    /// Certificates end and rests grow without any news.
    fn look_at_limits_later(ctx: &mut Ctx<'_, Self>) {
        ctx.after(LIMITS_EVERY, |sessions, ctx| {
            let now = sessions.clock.now();
            sessions.end_those(|open| open.limits.overstepped(now));
            Self::look_at_limits_later(ctx);
        });
    }

    fn await_ends(&self, left: Duration, promise: Promise<()>, ctx: &mut Ctx<'_, Self>) {
        if self.stock.table().ending.is_empty() || left.is_zero() {
            return promise.keep(());
        }
        ctx.after(LAST_WORDS_POLL, move |sessions, ctx| {
            sessions.await_ends(left.saturating_sub(LAST_WORDS_POLL), promise, ctx);
        });
    }

    fn await_idle(&self, since_said: Duration, promise: Promise<()>, ctx: &mut Ctx<'_, Self>) {
        let open = self.stock.table().open.len();
        if open == 0 {
            return promise.keep(());
        }
        let mut since_said = since_said + DRAIN_POLL;
        if since_said >= DRAIN_LOG_EVERY {
            tracing::info!(actor = %ctx.name(), sessions_left = open, "draining");
            since_said = Duration::ZERO;
        }
        ctx.after(DRAIN_POLL, move |sessions, ctx| {
            sessions.await_idle(since_said, promise, ctx)
        });
    }

    fn decide_again(&self, snapshot: &PolicySnapshot) {
        let now = self.clock.now();
        self.end_those(|open| match still_allowed(snapshot, &open.request, now) {
            Ok(options) => {
                open.limits.replace(options);
                None
            }
            Err(refusal) => Some(refusal),
        });
    }

    /// Ends the sessions for which there is a reason. One that cannot be looked at without a panic is one of them: the others
    /// are not to fall with it, and what cannot be decided is not allowed.
    fn end_those(&self, mut reason: impl FnMut(&mut Open) -> Option<Refusal>) {
        let mut table = self.stock.table();
        let mut look = |id, open: &mut Open| {
            catch_unwind(AssertUnwindSafe(|| reason(open))).unwrap_or_else(|panic| Some(undecided(id, panic.as_ref())))
        };
        let over = table.open.iter_mut();
        let over: Vec<_> = over.filter_map(|(id, open)| Some((id, look(id, open)?))).collect();
        for (id, refusal) in over {
            if let Some(open) = table.open.remove(id) {
                tracing::info!(session = %id, connection = %open.connection, reason = %refusal, "session ended");
                // A relay that is gone already needs no reason.
                let _gone = open.end.try_send(Box::new(End::Now(refusal)));
            }
        }
    }

    /// The options that the newest rules give a session which is about to begin.
    fn options_now(
        &self,
        session: SessionId,
        request: &AccessRequest,
        policy_version: u64,
        options: SessionOptions,
    ) -> Result<SessionOptions, Refusal> {
        if self.policy.version().is_none_or(|newest| newest <= policy_version) {
            return Ok(options);
        }
        let snapshot = self.policy.current()?;
        let now = self.clock.now();
        catch_unwind(AssertUnwindSafe(|| still_allowed(&snapshot, request, now)))
            .unwrap_or_else(|panic| Err(undecided(session, panic.as_ref())))
    }

    /// Whether the person may have one more.
    fn check_room(open: &OpenSessions, request: &AccessRequest, options: &SessionOptions) -> Result<(), Refusal> {
        if open.len() >= SESSIONS_MAX {
            return Err(Refusal::new(
                RefusalKind::TooMany,
                format!("this node has {SESSIONS_MAX} sessions open, which is its limit"),
            ));
        }
        let (Some(limit), person) = (options.max_connections, &request.principal.name) else {
            return Ok(());
        };
        if u64::try_from(open.count_of(person)).is_ok_and(|count| count < u64::from(limit.get())) {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalKind::MaxConnections,
            format!("too many connections: {person} may have {limit} at a time here (max_connections of the roles)"),
        )
        .hint("close a connection that is not needed, or ask an administrator"))
    }
}

/// The reason for the end of a session about which the decision failed.
fn undecided(session: SessionId, panic: &(dyn std::any::Any + Send)) -> Refusal {
    tracing::error!(%session, error = panics::text(panic), "the decision about a session failed");
    Refusal::new(
        RefusalKind::Internal,
        "this session is over: whether it is still allowed could not be decided, because of a fault of Postern",
    )
    .hint("connect again; the node's log says more")
}

/// Decides about a session that has been allowed before. Its certificate may have expired meanwhile; whether that ends a
/// session is an option of the roles and not the question here.
fn still_allowed(
    snapshot: &PolicySnapshot,
    request: &AccessRequest,
    now: crate::model::Timestamp,
) -> Result<SessionOptions, Refusal> {
    let valid = (now >= request.principal.valid_until).then(|| {
        let mut valid = request.clone();
        Arc::make_mut(&mut valid.principal).valid_until = now + Duration::from_secs(1);
        valid
    });
    match decide(snapshot, valid.as_ref().unwrap_or(request), now) {
        Ok(permit) => Ok(*permit.options()),
        Err(denial) => {
            tracing::debug!(reason = %denial, "no longer allowed");
            if let Denial::Locked(lock) = &denial {
                let why = format!("this session is over: {}", lock.sentence());
                return Err(Refusal::new(RefusalKind::AccessRevoked, why)
                    .hint("ask an administrator; it lasts until the lock expires or is removed"));
            }
            let how = request.replication.map_or("", |_| " for replication");
            Err(Refusal::new(
                RefusalKind::AccessRevoked,
                format!(
                    "this session is over: the cluster's rules changed, and {} may no longer use database user {} and \
                     database {} of {}{how}",
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
        // Of the sessions of a state before this one, as long as there was none nobody watched over them.
        self.stock.table().open.sweep();
        if let Some(newest) = self.policy.newest() {
            self.decide_again(&newest);
        }
        self.await_news(ctx);
        Self::sweep_later(ctx);
        Self::look_at_limits_later(ctx);
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
            options,
        }: RegisterSession,
        _: &mut Ctx<'_, Self>,
    ) -> Reply<Result<Watched, Refusal>> {
        // The rules may have changed between the decision and now; from now on the news reaches this session.
        let options = match self.options_now(session, &request, policy_version, options) {
            Ok(options) => options,
            Err(refusal) => return Reply::Now(Err(refusal)),
        };
        let mut table = self.stock.table();
        if let Some(refusal) = &table.going_down {
            return Reply::Now(Err(refusal.clone()));
        }
        if let Err(refusal) = Self::check_room(&table.open, &request, &options) {
            return Reply::Now(Err(refusal));
        }
        if table.open.contains(session) {
            tracing::error!(%session, "a session of this id is open already");
            return Reply::Now(Err(Refusal::new(RefusalKind::Internal, "this session is open already")));
        }
        let (end, signal) = mpsc::channel(ENDS);
        let (rest, strict) = (RestMark::default(), StrictMark::default());
        let limits = Limits::new(options, request.principal.valid_until, rest.clone(), strict.clone());
        table.open.insert(
            session,
            Open {
                connection,
                request,
                limits,
                end,
            },
        );
        let end = signal;
        Reply::Now(Ok(Watched { end, rest, strict }))
    }
}

impl Handle<SessionClosed> for Sessions {
    fn handle(&mut self, SessionClosed(session): SessionClosed, _: &mut Ctx<'_, Self>) -> Reply<()> {
        let mut table = self.stock.table();
        table.open.remove(session);
        table.ending.remove(&session);
        Reply::Now(())
    }
}

impl Handle<EndService> for Sessions {
    fn handle(&mut self, EndService { service, refusal }: EndService, _: &mut Ctx<'_, Self>) -> Reply<()> {
        for (id, open) in self.stock.table().open.take_of(&service) {
            tracing::info!(session = %id, connection = %open.connection, reason = %refusal, "session ended");
            // A relay that is gone already needs no reason.
            let _gone = open.end.try_send(Box::new(End::Now(refusal.clone())));
        }
        Reply::Now(())
    }
}

impl Handle<Drain> for Sessions {
    fn handle(&mut self, Drain(refusal): Drain, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        let sessions_left = {
            let mut table = self.stock.table();
            let Table { open, going_down, .. } = &mut *table;
            if going_down.is_none() {
                for open in open.values() {
                    // A relay that is gone needs no reason.
                    let _gone = open.end.try_send(Box::new(End::WhenIdle(refusal.clone())));
                }
                *going_down = Some(refusal);
            }
            open.len()
        };
        tracing::info!(actor = %ctx.name(), sessions_left, "draining");
        let (reply, promise) = Reply::later();
        self.await_idle(Duration::ZERO, promise, ctx);
        reply
    }
}

impl Handle<EndAll> for Sessions {
    fn handle(&mut self, EndAll(refusal): EndAll, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        {
            let mut table = self.stock.table();
            let Table {
                open,
                ending,
                going_down,
            } = &mut *table;
            *going_down = Some(refusal.clone());
            for (id, open) in open.drain() {
                if open.end.try_send(Box::new(End::Now(refusal.clone()))).is_ok() {
                    ending.insert(id);
                }
            }
        }
        let (reply, promise) = Reply::later();
        self.await_ends(LAST_WORDS_DEADLINE, promise, ctx);
        reply
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;

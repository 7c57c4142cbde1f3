//! Messages and the addresses they are sent to.
//!
//! A collaborator is an [`Address`] of one message type, given to an actor's constructor: whoever holds it cannot tell, and
//! need not care, whether the other end is a local actor or a remote one ([`auth_link`](super::auth_link)). Two ways to send:
//!
//! - [`Address::tell`] never waits. It fails when the mailbox is full or its actor is gone, and the sender decides what
//!   that means; nothing is dropped in silence.
//! - [`Address::ask`] waits for the answer, for room in the mailbox too, and never longer than its deadline.

use crate::model::{ConnectionId, MessageId, Moment};
use crate::telemetry::label::Label;
use crate::telemetry::record::{self, Record, RecordKind};
use crate::telemetry::registry::Seat;
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A typed message. Commands are imperative (`OpenStream`), notices in the past tense (`StreamClosed`).
pub trait Message: Send + 'static {
    /// `()` where nothing but the fact that it was handled is to be said.
    type Reply: Send + 'static;
    const NAME: &'static str;
    /// The name as a number, for the record.
    fn label() -> Label;
}

/// Declares message types: `message!(Name => Reply)`.
macro_rules! message {
    ($($name:ty => $reply:ty),+ $(,)?) => {
        $(impl $crate::actors::address::Message for $name {
            type Reply = $reply;
            const NAME: &'static str = stringify!($name);

            fn label() -> $crate::telemetry::label::Label {
                static LABEL: std::sync::OnceLock<$crate::telemetry::label::Label> = std::sync::OnceLock::new();
                *LABEL.get_or_init(|| $crate::telemetry::label::Label::of(stringify!($name)))
            }
        })+
    };
}
pub(crate) use message;

/// From whom a message comes, because of what, and for which connection.
#[derive(Debug, Clone)]
pub struct Origin {
    pub from: Arc<Seat>,
    pub cause: Option<MessageId>,
    pub connection: Option<ConnectionId>,
}

impl Origin {
    /// The start of a causal chain: a signal, a timer, a person's request.
    pub fn outside(from: &str) -> Self {
        Self {
            from: Seat::outside(from),
            cause: None,
            connection: None,
        }
    }

    #[must_use]
    pub fn for_connection(mut self, connection: ConnectionId) -> Self {
        self.connection = Some(connection);
        self
    }
}

/// What travels with a message: enough to draw the causal tree, never its content.
#[derive(Debug, Clone)]
pub struct Meta {
    pub id: MessageId,
    pub origin: Origin,
    pub sent: Moment,
}

impl Meta {
    pub(super) fn new(origin: &Origin) -> Self {
        Self {
            id: MessageId::next(),
            origin: origin.clone(),
            sent: Moment::now(),
        }
    }

    /// A record of this message.
    pub fn record(&self, kind: RecordKind, at: Moment, what: Label, to: &Arc<str>) -> Record {
        Record {
            at,
            kind,
            what,
            id: self.id,
            cause: self.origin.cause,
            connection: self.origin.connection,
            from: Some(self.origin.from.path().clone()),
            to: to.clone(),
            queued_ns: 0,
            busy_ns: 0,
        }
    }
}

pub struct Envelope<M: Message> {
    pub message: M,
    pub meta: Meta,
    pub reply_to: Option<oneshot::Sender<Reply<M::Reply>>>,
}

/// What a handler returns: the answer, or the promise of one.
pub enum Reply<R> {
    Now(R),
    Later(oneshot::Receiver<R>),
}

impl<R> Reply<R> {
    /// An answer that comes later, usually from the continuation of `ctx.run`. Dropping the promise tells the asker
    /// [`AskError::Failed`].
    pub fn later() -> (Self, Promise<R>) {
        let (sender, receiver) = oneshot::channel();
        (Self::Later(receiver), Promise(sender))
    }
}

/// The duty to answer one ask.
#[derive(Debug)]
pub struct Promise<R>(oneshot::Sender<R>);

impl<R> Promise<R> {
    /// An asker that has given up is not an error: its deadline is its own affair.
    pub fn keep(self, answer: R) {
        let _gave_up = self.0.send(answer);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    #[error("the mailbox is full")]
    Full,
    #[error("the actor has ended")]
    Closed,
}

/// How an ask ended without an answer. What it says about delivery is part of the type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The message was not handled and never will be.
    #[error("{message} was not sent to {to}: {why}")]
    NotSent {
        to: Arc<str>,
        message: &'static str,
        why: String,
    },
    /// The other side does not accept this message from us.
    #[error("{to} refused {message}: {why}")]
    Refused {
        to: Arc<str>,
        message: &'static str,
        why: String,
    },
    /// The actor failed while it had the message in hand.
    #[error("{to} failed while it handled {message}")]
    Failed { to: Arc<str>, message: &'static str },
    /// The deadline passed. It may or may not have been handled.
    #[error("{to} did not answer {message} within {within:?}")]
    Unknown {
        to: Arc<str>,
        message: &'static str,
        within: Duration,
    },
}

/// What an address leads to. Implemented by the host for local actors, and by closures in tests.
pub trait Deliver<M: Message>: Send + Sync {
    fn offer(&self, envelope: Envelope<M>) -> Result<(), TellError>;
    /// Resolves when the message is in the mailbox; waits for room.
    fn deliver(&self, envelope: Envelope<M>) -> BoxFuture<'static, Result<(), TellError>>;
}

/// Where one type of message can be sent.
pub struct Address<M: Message> {
    to: Arc<str>,
    inner: Arc<dyn Deliver<M>>,
}

impl<M: Message> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self {
            to: self.to.clone(),
            inner: self.inner.clone(),
        }
    }
}

impl<M: Message> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}<{}>", self.to, M::NAME)
    }
}

impl<M: Message> Address<M> {
    pub fn new(to: Arc<str>, inner: Arc<dyn Deliver<M>>) -> Self {
        Self { to, inner }
    }

    pub fn to(&self) -> &Arc<str> {
        &self.to
    }

    pub fn tell(&self, origin: &Origin, message: M) -> Result<(), TellError> {
        let envelope = self.envelope(origin, message, None);
        let meta = envelope.meta.clone();
        let result = self.inner.offer(envelope);
        if let Err(error) = result {
            self.dropped(&meta);
            tracing::debug!(from = ?origin.from, to = %self.to, message_kind = M::NAME, %error, "message not sent");
        }
        result
    }

    /// Waits for room and then only until the message is in the mailbox: for notices that must not be lost, sent from a
    /// place that can wait.
    pub async fn tell_when_room(&self, origin: &Origin, message: M) -> Result<(), TellError> {
        let envelope = self.envelope(origin, message, None);
        let meta = envelope.meta.clone();
        let result = self.inner.deliver(envelope).await;
        if result.is_err() {
            self.dropped(&meta);
        }
        result
    }

    fn dropped(&self, meta: &Meta) {
        record::write(meta.record(RecordKind::Dropped, Moment::now(), M::label(), &self.to));
    }

    /// The message on its way, and the record that it was sent.
    fn envelope(&self, origin: &Origin, message: M, reply_to: Option<oneshot::Sender<Reply<M::Reply>>>) -> Envelope<M> {
        let meta = Meta::new(origin);
        record::write(meta.record(RecordKind::Sent, meta.sent, M::label(), &self.to));
        Envelope {
            message,
            meta,
            reply_to,
        }
    }

    pub async fn ask(&self, origin: &Origin, message: M, within: Duration) -> Result<M::Reply, AskError> {
        let (sender, receiver) = oneshot::channel();
        let envelope = self.envelope(origin, message, Some(sender));
        let meta = envelope.meta.clone();
        let to = self.to.clone();
        let _waits = origin.from.waits(M::label(), to, within, origin.connection, meta.sent);
        let deadline = tokio::time::Instant::now() + within;
        let answer = self.answer(envelope, receiver, deadline, within).await;
        if matches!(answer, Err(AskError::NotSent { .. })) {
            self.dropped(&meta);
        }
        let now = Moment::now();
        let mut answered = meta.record(RecordKind::Answered, now, M::label(), &self.to);
        answered.queued_ns = nanos(now.since(meta.sent));
        record::write(answered);
        answer
    }

    async fn answer(
        &self,
        envelope: Envelope<M>,
        receiver: oneshot::Receiver<Reply<M::Reply>>,
        deadline: tokio::time::Instant,
        within: Duration,
    ) -> Result<M::Reply, AskError> {
        let not_sent = |why: String| AskError::NotSent {
            to: self.to.clone(),
            message: M::NAME,
            why,
        };
        match tokio::time::timeout_at(deadline, self.inner.deliver(envelope)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(not_sent(error.to_string())),
            Err(_) => return Err(not_sent(format!("its mailbox stayed full for {within:?}"))),
        }
        let answer = async {
            match receiver.await {
                Ok(Reply::Now(answer)) => Ok(answer),
                Ok(Reply::Later(promised)) => promised.await.map_err(drop),
                Err(_) => Err(()),
            }
        };
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(())) => Err(AskError::Failed {
                to: self.to.clone(),
                message: M::NAME,
            }),
            Err(_) => Err(AskError::Unknown {
                to: self.to.clone(),
                message: M::NAME,
                within,
            }),
        }
    }
}

/// A length for the record.
pub(super) fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

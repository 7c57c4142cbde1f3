//! What follows the messages of a session in its two directions: where they end, and whether the session is idle.

use super::session_limits::RestMark;
use crate::model::{Refusal, RefusalKind};
use crate::net::copy::Tap;
use crate::protocol::postgres::{Direction, Exchange, FrameWalker};
use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Both directions' knowledge of the session. They are polled by one task.
type Shared = Rc<RefCell<Exchange>>;

/// The taps of one session: towards PostgreSQL around `to_upstream`, and towards the client. Both write into `rest`.
pub fn taps<T: Tap>(to_upstream: T, rest: RestMark) -> (RequestTap<T>, BoundaryTap) {
    let exchange = Shared::default();
    let requests = RequestTap {
        inner: to_upstream,
        frames: FrameWalker::new(Direction::Frontend),
        exchange: exchange.clone(),
        rest: rest.clone(),
    };
    let boundary = BoundaryTap {
        frames: FrameWalker::new(Direction::Backend),
        exchange,
        rest,
    };
    (requests, boundary)
}

/// Notes the client's requests before the inner tap sees them. It costs a few branches for each message.
pub struct RequestTap<T> {
    inner: T,
    frames: FrameWalker,
    exchange: Shared,
    rest: RestMark,
}

impl<T: Tap> Tap for RequestTap<T> {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let mut exchange = self.exchange.borrow_mut();
        let followed = self.frames.walk(chunk, |piece| {
            if piece.last() {
                exchange.sent(piece.message_type);
            }
        });
        // The agent refuses what is no message, in its own words; here it only means that nothing is known any more.
        if followed.is_err() {
            exchange.lose();
        }
        self.rest
            .client_spoke(self.frames.at_boundary() && exchange.is_answered());
        drop(exchange);
        self.inner.observe(chunk)
    }

    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_admit(cx)
    }

    fn said_goodbye(&self) -> bool {
        self.inner.said_goodbye()
    }

    fn is_idle(&self) -> bool {
        self.frames.at_boundary()
    }
}

/// Follows the messages to the client, so that an error of ours is said between two of them and never inside one.
pub struct BoundaryTap {
    frames: FrameWalker,
    exchange: Shared,
    rest: RestMark,
}

impl BoundaryTap {
    /// The upstream's last message was an error: if it closes now, the client knows why.
    pub fn explained(&self) -> bool {
        self.frames.ended_with_error() && self.frames.at_boundary()
    }
}

impl Tap for BoundaryTap {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let mut exchange = self.exchange.borrow_mut();
        let followed = self
            .frames
            .walk(chunk, |piece| match (piece.last(), piece.message_type) {
                (true, b'Z') => {
                    exchange.ready(piece.body.first().copied().unwrap_or_default());
                    self.rest.answered(exchange.is_answered());
                }
                (true, other) => exchange.received(other),
                (false, _) => {}
            });
        followed.map_err(|error| {
            tracing::error!(%error, "PostgreSQL's answer cannot be followed");
            Refusal::new(
                RefusalKind::UpstreamLost,
                "the database server sent something that is not PostgreSQL's protocol",
            )
        })
    }

    fn missing_to_boundary(&self) -> usize {
        match (self.frames.at_boundary(), self.frames.left() as usize) {
            (true, _) => 0,
            // Somewhere in a header: the next byte tells more.
            (false, 0) => 1,
            (false, left) => left,
        }
    }

    /// After an error that answers no request the other side is about to close, and has said why.
    fn is_idle(&self) -> bool {
        self.frames.at_boundary() && !self.frames.ended_with_error() && self.exchange.borrow().is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::super::session_limits::Limits;
    use super::*;
    use crate::model::Timestamp;
    use crate::net::copy::NoTap;
    use crate::policy::SessionOptions;
    use std::time::Duration;

    fn message(message_type: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short");
        [&[message_type][..], &length.to_be_bytes(), body].concat()
    }

    fn ready(status: u8) -> Vec<u8> {
        message(b'Z', &[status])
    }

    /// What passed so far leaves the session idle.
    fn is_idle((requests, boundary): &(RequestTap<NoTap>, BoundaryTap)) -> bool {
        requests.is_idle() && boundary.is_idle()
    }

    /// A session whose start-up is answered.
    fn session() -> (RequestTap<NoTap>, BoundaryTap) {
        let mut session = taps(NoTap, RestMark::default());
        assert!(!is_idle(&session), "the start-up is not answered");
        session.1.observe(&ready(b'I')).expect("sound");
        assert!(is_idle(&session));
        session
    }

    #[test]
    fn a_session_is_idle_with_the_last_byte_of_its_answer_and_busy_with_the_first_of_a_request() {
        let mut session = session();
        for byte in message(b'Q', b"select 1\0") {
            session.0.observe(&[byte]).expect("sound");
            assert!(!is_idle(&session), "a part of a request");
        }
        let answer = [message(b'C', b"SELECT 1\0"), ready(b'I')].concat();
        for (at, byte) in answer.iter().enumerate() {
            assert!(!is_idle(&session), "{at} of {} bytes", answer.len());
            session.1.observe(&[*byte]).expect("sound");
        }
        assert!(is_idle(&session));
    }

    #[test]
    fn transactions_and_pipelines_are_busy_to_their_ends() {
        let mut session = session();
        let pipeline = [message(b'P', b"\0begin\0\0\0"), message(b'S', b""), message(b'S', b"")].concat();
        session.0.observe(&pipeline).expect("sound");
        session.1.observe(&ready(b'I')).expect("sound");
        assert!(!is_idle(&session), "the second Sync is not answered");
        session.1.observe(&ready(b'T')).expect("sound");
        assert!(!is_idle(&session), "a transaction is open");
        session.0.observe(&message(b'Q', b"commit\0")).expect("sound");
        session
            .1
            .observe(&[message(b'E', b"SERROR\0\0"), ready(b'E')].concat())
            .expect("sound");
        assert!(!is_idle(&session), "the transaction failed and is not over");
        session.0.observe(&message(b'Q', b"rollback\0")).expect("sound");
        session.1.observe(&ready(b'I')).expect("sound");
        assert!(is_idle(&session));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_the_client_sends_begins_a_rest_anew_and_an_open_transaction_rests() {
        let rest = RestMark::default();
        let mut session = taps(NoTap, rest.clone());
        let options = SessionOptions {
            client_idle_timeout: Some(Duration::from_secs(60)),
            ..SessionOptions::default()
        };
        let mut limits = Limits::new(options, Timestamp::from_secs(2), rest);
        let mut idle_in = async |seconds: u64| {
            // One look to find the rest, one at its end.
            let _found = limits.overstepped(Timestamp::from_secs(1));
            tokio::time::advance(Duration::from_secs(seconds)).await;
            limits.overstepped(Timestamp::from_secs(1)).is_some()
        };
        assert!(!idle_in(600).await, "the start-up is not answered");
        session.1.observe(&ready(b'I')).expect("sound");
        session.0.observe(&message(b'Q', b"begin\0")).expect("sound");
        assert!(!idle_in(600).await, "the query is not answered");
        session.1.observe(&ready(b'T')).expect("sound");
        assert!(!idle_in(50).await);
        session.1.observe(&message(b'A', b"\0\0\0\0n\0\0")).expect("sound");
        assert!(idle_in(10).await, "a notification is nothing that the client sent");
        session.0.observe(&message(b'Q', b"commit\0")[..3]).expect("sound");
        assert!(!idle_in(600).await, "a request is under way");
        session.0.observe(&message(b'Q', b"commit\0")[3..]).expect("sound");
        session.1.observe(&ready(b'I')).expect("sound");
        assert!(!idle_in(59).await);
        session.0.observe(&message(b'H', b"")).expect("sound");
        assert!(!idle_in(59).await, "a Flush asks for nothing, but somebody sent it");
        assert!(idle_in(1).await);
    }

    #[test]
    fn copy_data_is_busy_however_long_the_client_pauses() {
        let mut session = session();
        session
            .0
            .observe(&message(b'Q', b"copy t from stdin\0"))
            .expect("sound");
        session.1.observe(&message(b'G', b"\0\0\0")).expect("sound");
        assert!(!is_idle(&session));
        session
            .0
            .observe(&[message(b'd', b"1\n"), message(b'c', b"")].concat())
            .expect("sound");
        assert!(!is_idle(&session), "the end of the data is not answered");
        session
            .1
            .observe(&[message(b'C', b"COPY 1\0"), ready(b'I')].concat())
            .expect("sound");
        assert!(is_idle(&session));
    }

    #[test]
    fn after_an_error_that_nobody_asked_for_the_session_is_left_to_whoever_said_it() {
        let mut session = session();
        session.1.observe(&message(b'E', b"SFATAL\0C57P01\0\0")).expect("sound");
        assert!(!is_idle(&session));
        assert!(session.1.explained());
    }

    #[test]
    fn what_is_no_message_leaves_the_session_busy() {
        let mut session = session();
        session.0.observe(b"Q\0\0\0\x01").expect("the inner tap is asked");
        session.1.observe(&ready(b'I')).expect("sound");
        assert!(!is_idle(&session));
    }
}

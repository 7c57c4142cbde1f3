//! What follows the messages of a session in its two directions: where they end, and whether the session is idle.

use super::session_limits::RestMark;
use crate::model::{Refusal, RefusalKind};
use crate::net::direction::{NoTap, Tap};
use crate::protocol::postgres::{Direction, Exchange, FrameWalker, Piece};
use crate::telemetry::relays::{Gauge, Turn, WaitsFor};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The client's last message.
const TERMINATE: u8 = b'X';

/// Both directions' knowledge of the session. They are polled by one task.
type Shared = Rc<RefCell<Conversation>>;

#[derive(Default)]
struct Conversation {
    exchange: Exchange,
    /// The client has sent a part of a message.
    in_request: bool,
}

impl Conversation {
    /// Everything is answered, and the client has begun nothing.
    fn rests(&self) -> bool {
        !self.in_request && self.exchange.is_answered()
    }

    fn turn(&self) -> Turn {
        if self.exchange.owes_answer() {
            Turn::Busy
        } else if self.exchange.streams() {
            Turn::Streaming
        } else if self.in_request || self.exchange.takes_data() {
            Turn::Sending
        } else if self.exchange.is_idle() {
            Turn::Idle
        } else {
            Turn::InTransaction
        }
    }
}

/// Watches the messages to the client, as [`BoundaryTap`] finds them.
pub trait AnswerTap {
    /// Called for each piece, before it is passed on.
    fn see(&mut self, piece: &Piece<'_>);

    /// As [`Tap::poll_admit`].
    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>>;
}

impl AnswerTap for NoTap {
    fn see(&mut self, _: &Piece<'_>) {}

    fn poll_admit(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }
}

/// The taps of one session: towards PostgreSQL and towards the client, around those that are given. Both write into `rest` and
/// `gauge`.
pub fn taps<T: Tap, A: AnswerTap>(
    (to_upstream, to_client): (T, A),
    rest: RestMark,
    gauge: &Arc<Gauge>,
) -> (RequestTap<T>, BoundaryTap<A>) {
    let conversation = Shared::default();
    let requests = RequestTap {
        inner: to_upstream,
        frames: FrameWalker::new(Direction::Frontend),
        conversation: conversation.clone(),
        rest: rest.clone(),
        gauge: gauge.clone(),
        said_goodbye: false,
    };
    let boundary = BoundaryTap {
        inner: to_client,
        frames: FrameWalker::new(Direction::Backend),
        conversation,
        rest,
        gauge: gauge.clone(),
    };
    (requests, boundary)
}

/// Notes the client's requests before the inner tap sees them. It costs a few branches for each message.
pub struct RequestTap<T> {
    inner: T,
    frames: FrameWalker,
    conversation: Shared,
    rest: RestMark,
    gauge: Arc<Gauge>,
    said_goodbye: bool,
}

impl<T> RequestTap<T> {
    /// The client has said Terminate.
    pub fn said_goodbye(&self) -> bool {
        self.said_goodbye
    }
}

impl<T: Tap> Tap for RequestTap<T> {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let mut conversation = self.conversation.borrow_mut();
        let followed = self.frames.walk(chunk, |piece| {
            if piece.last() {
                conversation.exchange.sent(piece.message_type);
                self.said_goodbye |= piece.message_type == TERMINATE;
            }
        });
        // The agent refuses what is no message, in its own words; here it only means that nothing is known any more.
        if followed.is_err() {
            conversation.exchange.lose();
        }
        conversation.in_request = !self.frames.at_boundary();
        self.rest.client_spoke(conversation.rests());
        self.gauge.turn(conversation.turn());
        drop(conversation);
        self.inner.observe(chunk)
    }

    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_admit(cx)
    }

    fn held_by(&self) -> WaitsFor {
        self.inner.held_by()
    }

    fn is_idle(&self) -> bool {
        self.frames.at_boundary()
    }
}

/// Follows the messages to the client, so that an error of ours is said between two of them and never inside one.
pub struct BoundaryTap<A> {
    inner: A,
    frames: FrameWalker,
    conversation: Shared,
    rest: RestMark,
    gauge: Arc<Gauge>,
}

impl<A> BoundaryTap<A> {
    /// The upstream's last message was an error: if it closes now, the client knows why.
    pub fn explained(&self) -> bool {
        self.frames.ended_with_error() && self.frames.at_boundary()
    }
}

impl<A: AnswerTap> Tap for BoundaryTap<A> {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let mut conversation = self.conversation.borrow_mut();
        let in_request = conversation.in_request;
        let exchange = &mut conversation.exchange;
        let followed = self.frames.walk(chunk, |piece| {
            self.inner.see(&piece);
            match (piece.last(), piece.message_type) {
                (true, b'Z') => {
                    exchange.ready(piece.body.first().copied().unwrap_or_default());
                    self.rest.answered(!in_request && exchange.is_answered());
                }
                (true, other) => exchange.received(other),
                (false, _) => {}
            }
        });
        self.gauge.turn(conversation.turn());
        followed.map_err(|error| {
            tracing::error!(%error, "PostgreSQL's answer cannot be followed");
            Refusal::new(
                RefusalKind::UpstreamLost,
                "the database server sent something that is not PostgreSQL's protocol",
            )
        })
    }

    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_admit(cx)
    }

    fn missing_to_boundary(&self) -> usize {
        match (self.frames.at_boundary(), self.frames.left() as usize) {
            (true, _) => 0,
            // Somewhere in a header: the next byte tells more.
            (false, 0) => 1,
            (false, left) => left,
        }
    }

    /// A ReadyForQuery says that what was asked for is done and on record: no part of it goes on before that is so.
    fn owed(&self) -> Option<usize> {
        let is_ready_for_query = self.frames.message_type() == Some(b'Z');
        let goes_on = self.frames.at_boundary() || self.frames.left() > 0 && !is_ready_for_query;
        goes_on.then(|| self.missing_to_boundary())
    }

    /// After an error that answers no request the other side is about to close, and has said why.
    fn is_idle(&self) -> bool {
        self.frames.at_boundary() && !self.frames.ended_with_error() && self.conversation.borrow().exchange.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::super::session_limits::{Limits, StrictMark};
    use super::*;
    use crate::model::{ConnectionId, Timestamp};
    use crate::net::copy::{ENDS, Relay};
    use crate::policy::SessionOptions;
    use crate::telemetry::record;
    use crate::telemetry::relays::RelaySpec;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn gauge_of(connection: ConnectionId) -> Arc<Gauge> {
        Gauge::begin(RelaySpec::of_a_test(connection))
    }

    fn gauge() -> Arc<Gauge> {
        gauge_of(ConnectionId::from_random(*b"tap-test"))
    }

    fn message(message_type: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short");
        [&[message_type][..], &length.to_be_bytes(), body].concat()
    }

    fn ready(status: u8) -> Vec<u8> {
        message(b'Z', &[status])
    }

    /// What passed so far leaves the session idle.
    fn is_idle((requests, boundary): &(RequestTap<NoTap>, BoundaryTap<NoTap>)) -> bool {
        requests.is_idle() && boundary.is_idle()
    }

    /// A session whose start-up is answered.
    fn session() -> (RequestTap<NoTap>, BoundaryTap<NoTap>) {
        let mut session = taps((NoTap, NoTap), RestMark::default(), &gauge());
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
        let mut session = taps((NoTap, NoTap), rest.clone(), &gauge());
        let options = SessionOptions {
            client_idle_timeout: Some(Duration::from_secs(60)),
            ..SessionOptions::default()
        };
        let mut limits = Limits::new(options, Timestamp::from_secs(2), rest, StrictMark::default());
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
    fn a_replication_that_streams_is_neither_idle_nor_at_rest_and_nobody_is_waited_for() {
        let rest = RestMark::default();
        let mut session = taps((NoTap, NoTap), rest.clone(), &gauge());
        let gauge = session.0.gauge.clone();
        session.1.observe(&ready(b'I')).expect("sound");
        session
            .0
            .observe(&message(b'Q', b"START_REPLICATION 0/0\0"))
            .expect("sound");
        session.1.observe(&message(b'W', b"\0\0\0")).expect("sound");
        let keepalive = message(b'd', b"k");
        let status = message(b'd', b"r");
        for _ in 0..3 {
            session.1.observe(&keepalive[..3]).expect("sound");
            session.1.observe(&keepalive[3..]).expect("sound");
            session.0.observe(&status).expect("sound");
            assert!(!is_idle(&session));
            assert_eq!(gauge.state(), "streaming");
        }
        let limits = SessionOptions {
            client_idle_timeout: Some(Duration::from_nanos(1)),
            ..SessionOptions::default()
        };
        let mut limits = Limits::new(limits, Timestamp::from_secs(2), rest, StrictMark::default());
        for _ in 0..2 {
            assert!(limits.overstepped(Timestamp::from_secs(1)).is_none(), "it rests");
        }
        session.0.observe(&message(b'c', b"")).expect("sound");
        assert_eq!(gauge.state(), "busy", "its end is not answered");
        let end = [message(b'c', b""), message(b'C', b"COPY 0\0"), ready(b'I')].concat();
        session.1.observe(&end).expect("sound");
        assert!(is_idle(&session));
        assert_eq!(gauge.state(), "idle");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_begins_no_rest_where_the_client_has_begun_to_send_the_next_request() {
        let rest = RestMark::default();
        let mut session = taps((NoTap, NoTap), rest.clone(), &gauge());
        session.1.observe(&ready(b'I')).expect("sound");
        let query = message(b'Q', b"select 1\0");
        let one_and_a_part = [&query[..], &query[..3]].concat();
        session.0.observe(&one_and_a_part).expect("sound");
        session.1.observe(&ready(b'I')).expect("sound");
        let options = SessionOptions {
            client_idle_timeout: Some(Duration::from_secs(60)),
            ..SessionOptions::default()
        };
        let mut limits = Limits::new(options, Timestamp::from_secs(2), rest, StrictMark::default());
        let mut overstepped = async || {
            tokio::time::advance(Duration::from_secs(600)).await;
            limits.overstepped(Timestamp::from_secs(1)).is_some()
        };
        assert!(!overstepped().await, "a request is under way");
        session.0.observe(&query[3..]).expect("sound");
        session.1.observe(&ready(b'I')).expect("sound");
        assert!(!overstepped().await, "the look that finds the rest");
        assert!(overstepped().await);
    }

    #[test]
    fn a_client_that_has_said_that_it_is_done_is_known_on_both_sides_of_a_tunnel() {
        let mut session = session();
        let goodbye = message(b'X', b"");
        session.0.observe(&goodbye[..4]).expect("sound");
        assert!(!session.0.said_goodbye());
        session.0.observe(&goodbye[4..]).expect("sound");
        assert!(session.0.said_goodbye());
    }

    #[test]
    fn a_row_is_finished_whatever_is_held_back_and_a_ready_for_query_is_not() {
        let mut session = session();
        let mut owed_after = |bytes: &[u8]| {
            session.1.observe(bytes).expect("sound");
            session.1.owed()
        };
        let row = message(b'D', b"\0\x01\0\0\0\x01x");
        assert_eq!(owed_after(&row[..3]), None, "nobody knows how long it is");
        assert_eq!(owed_after(&row[3..8]), Some(row.len() - 8));
        assert_eq!(owed_after(&row[8..]), Some(0));
        assert_eq!(owed_after(&ready(b'I')[..5]), None);
        assert_eq!(owed_after(b"I"), Some(0));
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

    #[test]
    fn the_gauge_says_whose_turn_it_is() {
        let mut session = session();
        let gauge = session.0.gauge.clone();
        assert_eq!(gauge.state(), "idle");
        let query = message(b'Q', b"begin\0");
        session.0.observe(&query[..3]).expect("sound");
        assert_eq!(
            gauge.state(),
            "sending",
            "a part of a request waits for nobody but the client"
        );
        session.0.observe(&query[3..]).expect("sound");
        assert_eq!(gauge.state(), "busy");
        session.1.observe(&message(b'C', b"BEGIN\0")).expect("sound");
        assert_eq!(gauge.state(), "busy");
        session.1.observe(&ready(b'T')).expect("sound");
        assert_eq!(gauge.state(), "idle in transaction");
        session
            .0
            .observe(&message(b'Q', b"copy t from stdin\0"))
            .expect("sound");
        session.1.observe(&message(b'G', b"\0\0\0")).expect("sound");
        assert_eq!(gauge.state(), "sending", "PostgreSQL waits for the data");
        session.0.observe(&message(b'c', b"")).expect("sound");
        assert_eq!(gauge.state(), "busy");
        session.1.observe(&ready(b'I')).expect("sound");
        assert_eq!(gauge.state(), "idle");
    }

    #[tokio::test]
    async fn a_database_server_that_does_not_answer_is_what_its_client_waits_for_and_nothing_is_recorded_of_statements()
    {
        let connection = ConnectionId::from_random(*b"silentpg");
        let gauge = gauge_of(connection);
        let (to_upstream, to_client) = taps((NoTap, NoTap), RestMark::default(), &gauge);
        let ((mut client, near_client), (mut postgres, near_postgres)) =
            (tokio::io::duplex(1024), tokio::io::duplex(1024));
        let mut relay = Relay::new(near_client, near_postgres, to_upstream, to_client, gauge.clone());
        let (_watches, ends) = tokio::sync::mpsc::channel(ENDS);
        let query = message(b'Q', b"select pg_sleep(3600)\0");
        let talk = async {
            let mut heard = [0; 64];
            postgres.write_all(&ready(b'I')).await.expect("a pipe");
            for _ in 0..200 {
                client.read_exact(&mut heard[..6]).await.expect("an answer");
                client.write_all(&query).await.expect("a pipe");
                postgres.read_exact(&mut heard[..query.len()]).await.expect("a query");
                assert_eq!(gauge.state(), "busy");
                postgres.write_all(&ready(b'I')).await.expect("a pipe");
            }
            client.read_exact(&mut heard[..6]).await.expect("an answer");
            assert_eq!(gauge.state(), "idle");
            client.write_all(&query).await.expect("a pipe");
            postgres.read_exact(&mut heard[..query.len()]).await.expect("a query");
            while gauge.to_upstream.waits_for() != WaitsFor::Source {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            end = relay.run(ends) => panic!("{end:?}"),
            () = talk => {}
        }
        assert_eq!((gauge.state(), gauge.to_client.waits_for()), ("busy", WaitsFor::Source));
        assert_eq!(gauge.to_upstream.bytes(), 201 * query.len() as u64);
        assert!(record::find(|record| record.connection == Some(connection)).is_empty());
    }
}

//! How a relay ends when somebody else ends it, and what its client is told.

use super::super::direction::NoTap;
use super::tests::{Counting, gauge, relay, run_until, unending};
use super::*;
use crate::model::RefusalKind;
use crate::net::test_thread::block_on;
use std::cell::Cell;
use std::rc::Rc;
use tokio::io::duplex;

#[test]
fn last_words_come_between_two_messages_and_never_inside_one() {
    block_on(async {
        let (mut client, mut upstream, mut relay) = relay(4096, NoTap);
        // Two messages and a half; the rest of the third is still to come.
        upstream.write_all(&[7; 25]).await.unwrap();
        let (end, ended) = mpsc::channel(ENDS);
        let ending = async {
            let mut first = [0; 25];
            client.read_exact(&mut first).await.unwrap();
            end.try_send(Box::new(now())).unwrap();
        };
        let run = relay.run(ended);
        let ((), how) = tokio::join!(ending, run);
        assert!(matches!(how, RelayEnd::Refused(_)), "{how:?}");
        // What comes after the third message is not the client's any more.
        upstream.write_all(&[7; 5]).await.unwrap();
        upstream.write_all(&[8; 10]).await.unwrap();
        relay.last_words(b"LAST").await;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [&[7; 5][..], b"LAST"].concat());
    });
}

#[test]
fn nothing_is_said_when_the_message_under_way_never_ends() {
    block_on(async {
        let (mut client, mut upstream, mut relay) = relay(4096, NoTap);
        upstream.write_all(&[7; 5]).await.unwrap();
        drop(upstream);
        let end = relay.run(unending()).await;
        assert!(matches!(end, RelayEnd::Finished), "{end:?}");
        relay.last_words(b"LAST").await;
        drop(relay);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [7; 5], "the error would be read as part of the message");
    });
}

/// Messages of ten bytes each. Agrees until it is told not to.
struct HoldsBack {
    messages: Counting,
    holds: Rc<Cell<bool>>,
    /// What it is told to do with what it holds.
    fails: bool,
}

impl Tap for HoldsBack {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        self.messages.observe(chunk)
    }

    fn poll_admit(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        match (self.holds.get(), self.fails) {
            (false, _) => Poll::Ready(Ok(())),
            (true, false) => Poll::Pending,
            (true, true) => Poll::Ready(Err(Refusal::new(RefusalKind::Internal, "not on record"))),
        }
    }

    fn missing_to_boundary(&self) -> usize {
        self.messages.missing_to_boundary()
    }
}

/// What the client has when a relay is over whose tap agreed to `agreed` bytes of the upstream's and not to what came later.
async fn heard_of(agreed: usize, later: usize, fails: bool) -> Vec<u8> {
    let (mut client, near_client) = duplex(4096);
    let (mut upstream, near_upstream) = duplex(4096);
    let holds = Rc::new(Cell::new(false));
    let tap = HoldsBack {
        messages: Counting::default(),
        holds: holds.clone(),
        fails,
    };
    let mut relay = Relay::new(near_client, near_upstream, NoTap, tap, gauge());
    upstream.write_all(&vec![7; agreed]).await.unwrap();
    run_until(&mut relay, |gauge| gauge.to_client.bytes() == agreed as u64).await;
    holds.set(true);
    upstream.write_all(&vec![8; later]).await.unwrap();
    let (end, ended) = mpsc::channel(ENDS);
    if !fails {
        run_until(&mut relay, |gauge| gauge.to_client.waits_for() == WaitsFor::Audit).await;
        end.try_send(Box::new(now())).unwrap();
    }
    let how = relay.run(ended).await;
    assert!(matches!(how, RelayEnd::Refused(_)), "{how:?}");
    relay.last_words(b"LAST").await;
    drop(relay);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    heard
}

#[test]
fn last_words_pass_on_nothing_that_a_tap_holds_back_but_the_rest_of_the_message_under_way() {
    block_on(async {
        for fails in [false, true] {
            assert_eq!(heard_of(20, 10, fails).await, [&[7; 20][..], b"LAST"].concat());
            assert_eq!(heard_of(25, 15, fails).await, [&[7; 25][..], &[8; 5], b"LAST"].concat());
        }
    });
}

fn now() -> End {
    End::Now(Refusal::new(RefusalKind::AccessRevoked, "over"))
}

fn when_idle() -> End {
    End::WhenIdle(Refusal::new(RefusalKind::ShuttingDown, "over when idle"))
}

/// Each byte that is sent is a request, and each byte that comes back its answer.
#[derive(Clone, Default)]
struct Owed(Rc<Cell<isize>>);

struct Asks(Owed);
struct Answers(Owed);

impl Tap for Asks {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        self.0.0.set(self.0.0.get() + chunk.len() as isize);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        true
    }
}

impl Tap for Answers {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        self.0.0.set(self.0.0.get() - chunk.len() as isize);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.0.0.get() == 0
    }
}

#[test]
fn a_relay_that_is_told_to_end_when_it_is_idle_passes_what_is_owed_and_nothing_new() {
    block_on(async {
        let (mut client, near_client) = duplex(64);
        let (mut upstream, near_upstream) = duplex(64);
        let owed = Owed::default();
        let mut relay = Relay::new(near_client, near_upstream, Asks(owed.clone()), Answers(owed), gauge());
        let (end, ends) = mpsc::channel(ENDS);
        let talk = async {
            client.write_all(b"ab").await.unwrap();
            let mut asked = [0; 2];
            upstream.read_exact(&mut asked).await.unwrap();
            end.try_send(Box::new(when_idle())).unwrap();
            upstream.write_all(b"A").await.unwrap();
            let mut answers = [0; 2];
            client.read_exact(&mut answers[..1]).await.unwrap();
            upstream.write_all(b"B").await.unwrap();
            client.read_exact(&mut answers[1..]).await.unwrap();
            // Too late: the session is over.
            client.write_all(b"c").await.unwrap();
            answers
        };
        let (answers, how) = tokio::join!(talk, relay.run(ends));
        assert!(matches!(how, RelayEnd::Refused(_)), "{how:?}");
        assert_eq!(&answers, b"AB");
        drop(relay);
        let mut more = Vec::new();
        upstream.read_to_end(&mut more).await.unwrap();
        assert!(more.is_empty(), "what came too late was passed on");
    });
}

#[test]
fn a_relay_that_is_idle_ends_at_once_and_a_busy_one_when_it_is_told_again() {
    block_on(async {
        let (_client, _upstream, mut relay) = relay(64, NoTap);
        let (end, ends) = mpsc::channel(ENDS);
        end.try_send(Box::new(when_idle())).unwrap();
        let wait = Duration::from_millis(50);
        let run = relay.run(ends);
        tokio::pin!(run);
        assert!(
            tokio::time::timeout(wait, &mut run).await.is_err(),
            "a tap that cannot tell counts as busy"
        );
        end.try_send(Box::new(now())).unwrap();
        let RelayEnd::Refused(refusal) = run.await else {
            panic!("not refused")
        };
        assert_eq!(refusal.kind, RefusalKind::AccessRevoked);

        let ((_client, near_client), (_upstream, near_upstream)) = (duplex(64), duplex(64));
        let owed = Owed::default();
        let mut relay = Relay::new(near_client, near_upstream, Asks(owed.clone()), Answers(owed), gauge());
        let (end, ends) = mpsc::channel(ENDS);
        end.try_send(Box::new(when_idle())).unwrap();
        let RelayEnd::Refused(refusal) = relay.run(ends).await else {
            panic!("not refused")
        };
        assert_eq!(refusal.kind, RefusalKind::ShuttingDown);
    });
}

#[test]
fn a_relay_that_nobody_can_end_any_more_says_so() {
    block_on(async {
        let (_client, _upstream, mut relay) = relay(64, NoTap);
        let (end, ends) = mpsc::channel(ENDS);
        drop(end);
        assert!(matches!(relay.run(ends).await, RelayEnd::Unwatched));
    });
}

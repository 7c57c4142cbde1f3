//! Waiting for what nearly never comes, in a task that is polled for something else all the time.

use std::task::{Context, Poll, Waker};
use tokio::sync::mpsc;

/// A receiver that is asked at every turn of its task. A channel that is polled locks twice to say that it is empty; here a few loads do,
/// as long as the task that it would wake is still the one that asks.
#[derive(Debug)]
pub struct Rare<T> {
    receiver: mpsc::Receiver<T>,
    wakes: Option<Waker>,
}

impl<T> Rare<T> {
    pub fn new(receiver: mpsc::Receiver<T>) -> Self {
        Self { receiver, wakes: None }
    }

    /// As [`mpsc::Receiver::poll_recv`].
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let is_awaited = self.wakes.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        // Whoever sends after this line wakes the task.
        if is_awaited && self.receiver.is_empty() && !self.receiver.is_closed() {
            return Poll::Pending;
        }
        let received = self.receiver.poll_recv(cx);
        self.wakes = received.is_pending().then(|| cx.waker().clone());
        received
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future as _, poll_fn};
    use std::pin::pin;

    #[tokio::test]
    async fn what_comes_between_two_turns_and_the_end_are_told_and_wake_the_task() {
        let (sender, receiver) = mpsc::channel(2);
        let mut rare = Rare::new(receiver);
        let (mut turns, mut heard) = (0, Vec::new());
        let sending = async {
            for number in 0..4 {
                tokio::task::yield_now().await;
                sender.send(number).await.expect("it is received");
            }
            tokio::task::yield_now().await;
            drop(sender);
        };
        let receiving = poll_fn(|cx| {
            turns += 1;
            loop {
                match rare.poll_recv(cx) {
                    Poll::Ready(Some(number)) => heard.push(number),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        tokio::join!(tokio::spawn(async {}), sending, receiving)
            .0
            .expect("it ends");
        assert_eq!(heard, [0, 1, 2, 3]);
        assert!(turns > 1, "it waited");
    }

    #[tokio::test]
    async fn a_task_that_took_over_is_the_one_that_is_woken() {
        let (sender, receiver) = mpsc::channel(1);
        let mut rare = Rare::new(receiver);
        let first = futures::task::noop_waker();
        assert!(rare.poll_recv(&mut Context::from_waker(&first)).is_pending());
        let task = tokio::spawn(async move { poll_fn(|cx| rare.poll_recv(cx)).await });
        tokio::task::yield_now().await;
        sender.send(7).await.expect("it is received");
        let mut task = pin!(task);
        assert_eq!(poll_fn(|cx| task.as_mut().poll(cx)).await.expect("it ends"), Some(7));
    }
}

//! Where answers come: one subscription, and for each request a subject below it.
//!
//! The client's own requests leave an entry behind for each that is not answered, for ever; these do not.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Message, Subscriber};
use futures_util::Stream;
use tokio::sync::oneshot;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    prefix: Arc<str>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    answers: HashMap<u64, oneshot::Sender<Message>>,
}

/// A request whose answer is awaited, until it is dropped.
#[derive(Debug)]
pub(super) struct Awaited {
    inbox: Inbox,
    number: u64,
    answer: oneshot::Receiver<Message>,
}

impl Inbox {
    /// Below `prefix`, which nobody else uses.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), waiting: Arc::default() }
    }

    /// What to subscribe to.
    pub(super) fn subject(&self) -> String {
        format!("{}.*", self.prefix)
    }

    /// Gives answers to those who wait for them, until the subscription ends.
    pub(super) async fn deliver(self, mut answers: Subscriber) {
        while let Some(message) = next(&mut answers).await {
            let Some(number) = message.subject.rsplit('.').next().and_then(|token| token.parse().ok()) else {
                continue;
            };
            let waiting = self.lock().answers.remove(&number);
            if let Some(waiting) = waiting {
                // Who has given up meanwhile needs none.
                let _ = waiting.send(message);
            }
        }
    }

    /// A subject for one answer.
    pub(super) fn expect(&self) -> Awaited {
        let (told, answer) = oneshot::channel();
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.answers.insert(number, told);
        Awaited { inbox: self.clone(), number, answer }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Each change is one call: whole whatever happens.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    /// The subject to reply to.
    pub(super) fn subject(&self) -> String {
        format!("{}.{}", self.inbox.prefix, self.number)
    }

    /// The answer; `None` if the subscription has ended.
    pub(super) async fn answer(&mut self) -> Option<Message> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.inbox.lock().answers.remove(&self.number);
    }
}

/// The next message of a subscription.
pub(super) async fn next(subscriber: &mut Subscriber) -> Option<Message> {
    std::future::poll_fn(|cx| Pin::new(&mut *subscriber).poll_next(cx)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let inbox = Inbox::new("_INBOX.x");
        let (first, second) = (inbox.expect(), inbox.expect());
        assert_eq!((first.subject(), second.subject()), ("_INBOX.x.0".to_owned(), "_INBOX.x.1".to_owned()));
        drop(first);
        assert_eq!(inbox.lock().answers.len(), 1);
        drop(second);
        assert!(inbox.lock().answers.is_empty());
    }
}

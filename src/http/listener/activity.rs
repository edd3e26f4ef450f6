//! What a connection is doing, and until when it may.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::telemetry::Limit;

use super::ConnectionLimits;

/// Shared by the driver of a connection, its service and its stream. Takes `now`.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// When each request that is not answered yet began, in the order in which they did.
    under_way: BTreeMap<u64, Instant>,
    begun: u64,
    /// When the head began that is being read.
    head: Option<Instant>,
    /// Since when there is no request.
    quiet: Instant,
}

impl Activity {
    /// A connection that was made now: its first head is awaited from here.
    pub(super) fn new(now: Instant) -> Arc<Self> {
        let state = State { under_way: BTreeMap::new(), begun: 0, head: Some(now), quiet: now };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    /// Bytes came. Between requests they are the beginning of a head.
    pub(super) fn received(&self, now: Instant) {
        let mut state = self.state();
        if state.under_way.is_empty() && state.head.is_none() {
            state.head = Some(now);
            self.changed.notify_one();
        }
    }

    /// A head is complete. The request is under way until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>, now: Instant) -> UnderWay {
        let mut state = self.state();
        state.begun += 1;
        let number = state.begun;
        state.under_way.insert(number, now);
        state.head = None;
        self.changed.notify_one();
        UnderWay { activity: Arc::clone(self), number }
    }

    /// Whether no request is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.state().under_way.is_empty()
    }

    /// When the connection meets which limit, if nothing changes.
    pub(super) fn due(&self, limits: &ConnectionLimits) -> (Instant, Limit) {
        let state = self.state();
        match (state.under_way.first_key_value(), state.head) {
            (Some((_, begun)), _) => (*begun + limits.answer_time, Limit::AnswerTime),
            (None, Some(head)) => (head + limits.header_time, Limit::HeaderTime),
            (None, None) => (state.quiet + limits.idle_time, Limit::IdleTime),
        }
    }

    /// Waits for what may change [`Activity::due`].
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn end(&self, now: Instant, number: u64) {
        let mut state = self.state();
        state.under_way.remove(&number);
        state.quiet = now;
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one call: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.activity.end(super::connection::now(), self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    #[test]
    fn each_phase_has_its_limit() {
        let limits = ConnectionLimits::public(&Config::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let activity = Activity::new(start);
        assert_eq!(activity.due(&limits), (at(10), Limit::HeaderTime), "the first head");
        activity.received(at(3));
        assert_eq!(activity.due(&limits), (at(10), Limit::HeaderTime), "a byte now and then gains no time");
        let first = activity.begin(at(4));
        let second = activity.begin(at(5));
        activity.received(at(6));
        assert_eq!(activity.due(&limits), (at(24), Limit::AnswerTime), "the oldest request");
        drop(first);
        assert_eq!(activity.due(&limits), (at(25), Limit::AnswerTime));
        assert!(!activity.is_quiet());
        drop(second);
        assert!(activity.is_quiet());
        let (due, limit) = activity.due(&limits);
        assert!(limit == Limit::IdleTime && due >= at(60), "{limit:?}");
        activity.received(at(30));
        assert_eq!(activity.due(&limits), (at(40), Limit::HeaderTime), "the next head");
    }
}

//! When which session wants to be woken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::message::SlotKey;

/// How late a session may be woken. Nothing it waits for is due to the millisecond: it is woken in the first turn that the
/// shard makes after its time for whatever reason, mostly a frame, and only where there is none is the shard woken for it. To
/// wake costs more than what a session has to do, and thousands of sessions wait.
pub const SLACK: Duration = Duration::from_millis(40);

/// The soonest that a session is woken after it was looked at: one that wants to be woken at once, and then again, must not keep
/// the shard from everything else. A DTLS 1.3 client whose peer's flight has a hole is such a one: it acknowledges at once.
const SOONEST: Duration = Duration::from_millis(4);

/// A queue of wake-ups with at most a few entries a session.
///
/// An entry is not removed when its session reschedules: the session remembers the time it is scheduled for, and a
/// popped entry that does not match is stale. A later wake-up is not queued again until the earlier one has fired, so
/// that consent checks, which move a deadline every few seconds, cost nothing here.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u32, u32)>>,
}

impl Timers {
    /// Wakes `key` at `at`, but not within [`SOONEST`] of `now`, unless `scheduled` says that it is woken earlier anyway.
    pub(super) fn schedule(&mut self, now: Instant, key: SlotKey, at: Instant, scheduled: &mut Option<Instant>) {
        let at = at.max(now + SOONEST);
        if scheduled.is_none_or(|earlier| at < earlier) {
            *scheduled = Some(at);
            self.heap.push(Reverse((at, key.slot, key.generation)));
        }
    }

    /// When the next wake-up, stale or not, has to be looked at.
    pub(super) fn latest(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at + SLACK)
    }

    /// A wake-up that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, SlotKey)> {
        let Reverse((at, slot, generation)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some((at, SlotKey { slot, generation }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_earlier_wake_up_replaces_a_later_one_and_a_later_one_waits() {
        let now = Instant::now();
        let mut timers = Timers::default();
        let key = SlotKey { slot: 7, generation: 1 };
        let at = |s| now + Duration::from_secs(s);
        let mut scheduled = None;
        timers.schedule(now, key, at(5), &mut scheduled);
        timers.schedule(now, key, at(9), &mut scheduled);
        assert_eq!((scheduled, timers.heap.len()), (Some(at(5)), 1));
        timers.schedule(now, key, at(2), &mut scheduled);
        assert_eq!((scheduled, timers.latest()), (Some(at(2)), Some(at(2) + SLACK)));
        assert_eq!(timers.pop_due(at(1)), None);
        assert_eq!(timers.pop_due(at(3)), Some((at(2), key)));
        assert_eq!(timers.pop_due(at(3)), None, "the stale entry is not due yet");
    }

    #[test]
    fn who_wants_to_be_woken_at_once_is_not_woken_in_the_same_turn() {
        let now = Instant::now();
        let mut timers = Timers::default();
        let key = SlotKey { slot: 7, generation: 1 };
        for at in [now, now - Duration::from_secs(1)] {
            timers.schedule(now, key, at, &mut None);
            assert_eq!(timers.pop_due(now), None);
            assert_eq!(timers.pop_due(now + SOONEST), Some((now + SOONEST, key)));
        }
    }

    #[test]
    fn wake_ups_within_the_slack_of_the_first_are_one() {
        let now = Instant::now();
        let mut timers = Timers::default();
        let at = |ms| now + Duration::from_millis(ms);
        for (slot, ms) in [50, 10, 30, 51].into_iter().enumerate() {
            timers.schedule(now, SlotKey { slot: slot as u32, generation: 1 }, at(ms), &mut None);
        }
        assert_eq!(timers.pop_due(at(9)), None, "not before its time");
        let latest = timers.latest().expect("some wait");
        assert_eq!(latest, at(50));
        let woken = std::iter::from_fn(|| timers.pop_due(latest)).map(|(_, key)| key.slot);
        assert_eq!(woken.collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(timers.latest(), Some(at(91)));
    }
}

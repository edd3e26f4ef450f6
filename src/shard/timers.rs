//! When which session wants to be woken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::message::SlotKey;

/// Sessions are woken at multiples of this only. Nothing they wait for is due to the millisecond, and thousands of them would
/// else wake the shard thousands of times a second.
pub const TICK: Duration = Duration::from_millis(4);

/// The first multiple of [`TICK`] since `epoch` that is not before `at`.
pub(super) fn tick(epoch: Instant, at: Instant) -> Instant {
    let ticks = at.saturating_duration_since(epoch).as_nanos().div_ceil(TICK.as_nanos());
    epoch + Duration::from_nanos_u128(ticks * TICK.as_nanos())
}

/// A queue of wake-ups with at most a few entries a session.
///
/// An entry is not removed when its session reschedules: the session remembers the time it is scheduled for, and a
/// popped entry that does not match is stale. A later wake-up is not queued again until the earlier one has fired, so
/// that consent checks, which move a deadline every few seconds, cost nothing here.
#[derive(Debug)]
pub(super) struct Timers {
    epoch: Instant,
    heap: BinaryHeap<Reverse<(Instant, u32, u32)>>,
}

impl Timers {
    pub(super) fn new(epoch: Instant) -> Self {
        Self { epoch, heap: BinaryHeap::new() }
    }

    /// Wakes `key` at the tick after `at`, unless `scheduled` says that it is woken earlier anyway.
    pub(super) fn schedule(&mut self, key: SlotKey, at: Instant, scheduled: &mut Option<Instant>) {
        let at = tick(self.epoch, at);
        if scheduled.is_none_or(|earlier| at < earlier) {
            *scheduled = Some(at);
            self.heap.push(Reverse((at, key.slot, key.generation)));
        }
    }

    /// The next wake-up, stale or not.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
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
        let mut timers = Timers::new(now);
        let key = SlotKey { slot: 7, generation: 1 };
        let at = |s| now + Duration::from_secs(s);
        let mut scheduled = None;
        timers.schedule(key, at(5), &mut scheduled);
        timers.schedule(key, at(9), &mut scheduled);
        assert_eq!((scheduled, timers.heap.len()), (Some(at(5)), 1));
        timers.schedule(key, at(2), &mut scheduled);
        assert_eq!((scheduled, timers.next()), (Some(at(2)), Some(at(2))));
        assert_eq!(timers.pop_due(at(1)), None);
        assert_eq!(timers.pop_due(at(3)), Some((at(2), key)));
        assert_eq!(timers.pop_due(at(3)), None, "the stale entry is not due yet");
    }

    #[test]
    fn wake_ups_that_are_close_together_are_one() {
        let epoch = Instant::now();
        let mut timers = Timers::new(epoch);
        let at = |us| epoch + Duration::from_micros(us);
        for (slot, us) in [4_001, 5_000, 8_000, 8_001].into_iter().enumerate() {
            timers.schedule(SlotKey { slot: slot as u32, generation: 1 }, at(us), &mut None);
        }
        assert_eq!(timers.next(), Some(at(8_000)), "not before it is due");
        let woken = std::iter::from_fn(|| timers.pop_due(at(8_000))).map(|(_, key)| key.slot);
        assert_eq!(woken.collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(timers.next(), Some(at(12_000)));
    }
}

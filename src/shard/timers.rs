//! When which session wants to be woken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::message::SlotKey;

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
    /// Wakes `key` at `at`, unless `scheduled` says that it is woken earlier anyway.
    pub(super) fn schedule(&mut self, key: SlotKey, at: Instant, scheduled: &mut Option<Instant>) {
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
        let (mut timers, now) = (Timers::default(), Instant::now());
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
}

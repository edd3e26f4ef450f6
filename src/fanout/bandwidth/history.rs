//! What was sent, run by run, until the peer has told what became of it.

use std::array;

/// Runs remembered: with 80 a second and a probe's 100 on top, more than a second of them.
pub(super) const RUNS: usize = 192;

/// A longer run is not remembered: no frame has so many packets, and half of the numbers must never be under way.
const LONGEST_RUN: u16 = 0x4000;

/// Packets that left at once.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// The transport-wide number of the first.
    first: u16,
    packets: u16,
    bytes: u32,
    /// Microseconds since the beginning; wraps after 71 minutes.
    sent: u32,
}

/// A packet that feedback tells of for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Its share of the run's bytes.
    pub bytes: u32,
    /// Microseconds since the beginning; wraps.
    pub sent: u32,
    /// Packets since the last one known were never told of: a feedback was lost.
    pub is_after_gap: bool,
}

/// The last runs sent, oldest first, in a ring. Each number is looked up once at most, in rising order: what comes
/// again, or comes late, is unknown.
#[derive(Debug)]
pub(super) struct History {
    runs: [Run; RUNS],
    oldest: u8,
    len: u8,
    /// Numbers below are settled; always that of a packet remembered, or the next to be sent.
    cursor: u16,
}

/// `a` is not behind `b`, on a circle of 65,536 numbers.
pub(super) fn is_at_or_after(a: u16, b: u16) -> bool {
    a.wrapping_sub(b) < 0x8000
}

impl History {
    pub(super) fn new() -> Self {
        Self { runs: array::from_fn(|_| Run::default()), oldest: 0, len: 0, cursor: 0 }
    }

    fn run(&self, n: u8) -> Run {
        self.runs[(usize::from(self.oldest) + usize::from(n)) % RUNS]
    }

    /// The number after the last one sent.
    fn end(&self) -> u16 {
        match self.len {
            0 => self.cursor,
            len => {
                let last = self.run(len - 1);
                last.first.wrapping_add(last.packets)
            }
        }
    }

    /// How many numbers there are from the first that is remembered to the last: more a feedback has nothing to say of.
    pub(super) fn numbers(&self) -> u16 {
        if self.len == 0 { 0 } else { self.end().wrapping_sub(self.run(0).first) }
    }

    /// `number` was sent, or something behind it.
    fn has_reached(&self, number: u16) -> bool {
        self.len > 0 && !is_at_or_after(number, self.end())
    }

    /// `number` was told of or passed over.
    pub(super) fn is_settled(&self, number: u16) -> bool {
        !is_at_or_after(number, self.cursor)
    }

    /// Remembers a run; the oldest is forgotten for it.
    pub(super) fn push(&mut self, first: u16, packets: u16, bytes: u32, sent: u32) {
        if packets == 0 || packets > LONGEST_RUN {
            return;
        }
        // Numbers that go back, or far ahead, are of another session.
        if self.len == 0 || !is_at_or_after(first, self.end()) {
            (self.len, self.cursor) = (0, first);
        }
        let end = first.wrapping_add(packets);
        while self.len > 0 && (usize::from(self.len) == RUNS || !is_at_or_after(end.wrapping_sub(1), self.run(0).first))
        {
            self.oldest = (self.oldest + 1) % RUNS as u8;
            self.len -= 1;
        }
        self.runs[(usize::from(self.oldest) + usize::from(self.len)) % RUNS] = Run { first, packets, bytes, sent };
        self.len += 1;
        // What is forgotten is settled.
        if !is_at_or_after(self.cursor, self.run(0).first) {
            self.cursor = self.run(0).first;
        }
    }

    /// What was sent as `number`, if that is not settled yet; it is then, and so is all before it. Runs before it are
    /// forgotten, so that all look-ups together cost no more than the runs and numbers there are.
    pub(super) fn settle(&mut self, number: u16) -> Option<Sent> {
        if !is_at_or_after(number, self.cursor) || !self.has_reached(number) {
            return None;
        }
        let is_after_gap = number != self.cursor;
        self.cursor = number.wrapping_add(1);
        while self.len > 1 && !is_at_or_after(self.run(0).first.wrapping_add(self.run(0).packets - 1), number) {
            self.oldest = (self.oldest + 1) % RUNS as u8;
            self.len -= 1;
        }
        let run = self.run(0);
        let is_in_run = number.wrapping_sub(run.first) < run.packets;
        is_in_run.then(|| Sent { bytes: run.bytes / u32::from(run.packets), sent: run.sent, is_after_gap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(bytes: u32, sent: u32) -> Option<Sent> {
        Some(Sent { bytes, sent, is_after_gap: false })
    }

    #[test]
    fn each_packet_is_found_once_and_in_order() {
        let mut history = History::new();
        history.push(65_534, 4, 400, 7);
        history.push(2, 1, 30, 9);
        assert_eq!(history.numbers(), 5);
        for number in [65_534, 65_535, 0, 1] {
            assert_eq!(history.settle(number), sent(100, 7), "{number}");
            assert_eq!(history.settle(number), None, "{number} again");
        }
        assert_eq!(history.settle(3), None, "never sent");
        assert_eq!(history.settle(2), sent(30, 9));
    }

    #[test]
    fn what_was_passed_over_is_settled() {
        let mut history = History::new();
        history.push(0, 10, 1000, 1);
        assert_eq!(history.settle(4), Some(Sent { bytes: 100, sent: 1, is_after_gap: true }));
        assert_eq!(history.settle(3), None);
        assert!(history.is_settled(3) && !history.is_settled(5));
    }

    #[test]
    fn what_is_overwritten_is_unknown() {
        let mut history = History::new();
        for n in 0..RUNS as u16 + 10 {
            history.push(n, 1, 100, n.into());
        }
        assert_eq!(usize::from(history.numbers()), RUNS);
        assert_eq!(history.settle(9), None);
        assert_eq!(history.settle(10), sent(100, 10));
    }

    #[test]
    fn no_more_than_half_of_the_numbers_is_ever_under_way() {
        let mut history = History::new();
        for n in 0..20_u16 {
            history.push(n.wrapping_mul(5000), 5000, 1, 0);
            assert!(history.numbers() <= 0x8000);
        }
    }

    #[test]
    fn numbers_that_go_back_begin_anew_and_a_hole_is_nothing() {
        let mut history = History::new();
        history.push(1000, 5, 500, 1);
        history.push(10, 5, 500, 2);
        assert_eq!(history.settle(1000), None);
        history.push(20, 1, 7, 3);
        assert_eq!(history.settle(10), sent(100, 2));
        assert_eq!(history.settle(17), None, "between two runs");
        assert!(history.settle(20).is_some());
    }
}

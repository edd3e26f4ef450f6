//! What was sent and what arrived of it in the last half second.

use std::array;

use super::delay::since;

/// So much of the time is kept, in pieces.
const PIECES: usize = 10;
const PIECE_US: u32 = 50_000;

/// Less is no measurement.
const LEAST_US: u32 = 200_000;

/// So many pieces of five tell what a narrow path lets through.
const LEAST_LIMITED: usize = 3;

/// When so much of what is sent is received, the path is not what limits it.
const UNLIMITED: f64 = 0.9;

/// A step from packet to packet that is longer is no step: nothing was sent, or the peer makes its times up.
const LONGEST_STEP_US: i32 = 2_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    sent_bytes: u32,
    received_bytes: u32,
    /// How long it took to send, and to arrive.
    sent_us: u32,
    arrived_us: u32,
}

/// Bit rates of what the peer told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    pub sent: u64,
    /// Never more than `sent`: when a peer says that something arrived is its word alone.
    pub received: u64,
}

/// A window over packets that feedback told of. Both rates are of the same packets, so that they can be compared; what
/// a lost feedback would have told of is in neither.
#[derive(Debug)]
pub(super) struct Meter {
    pieces: [Piece; PIECES],
    newest: u8,
    last_sent: Option<u32>,
    last_arrival: Option<u32>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { pieces: array::from_fn(|_| Piece::default()), newest: 0, last_sent: None, last_arrival: None }
    }

    /// A packet of `bytes` was sent and arrived, or is lost. `is_after_gap`: those before it are unknown.
    pub(super) fn add(&mut self, bytes: u32, sent: u32, arrival: Option<u32>, is_after_gap: bool) {
        if is_after_gap {
            (self.last_sent, self.last_arrival) = (None, None);
        }
        let sent_us = self.last_sent.replace(sent).map(|before| since(sent, before));
        // An overtaken packet does not turn time back.
        let arrived_us = match (arrival, self.last_arrival) {
            (Some(arrival), Some(before)) => since(arrival, before).max(0),
            _ => 0,
        };
        if arrived_us > 0 || self.last_arrival.is_none() {
            self.last_arrival = arrival.or(self.last_arrival);
        }
        let Some(sent_us) = sent_us.filter(|us| (0..=LONGEST_STEP_US).contains(us)) else { return };
        if arrived_us > LONGEST_STEP_US {
            self.last_arrival = arrival;
            return;
        }
        if self.pieces[usize::from(self.newest)].sent_us >= PIECE_US {
            self.newest = (self.newest + 1) % PIECES as u8;
            self.pieces[usize::from(self.newest)] = Piece::default();
        }
        let piece = &mut self.pieces[usize::from(self.newest)];
        piece.sent_bytes = piece.sent_bytes.saturating_add(bytes);
        piece.received_bytes = piece.received_bytes.saturating_add(if arrival.is_some() { bytes } else { 0 });
        piece.sent_us = piece.sent_us.saturating_add(sent_us.unsigned_abs());
        piece.arrived_us = piece.arrived_us.saturating_add(arrived_us.unsigned_abs());
    }

    /// Of the last half second; `None` before 200 ms of sending are known.
    pub(super) fn rates(&self) -> Option<Rates> {
        self.over(PIECES)
    }

    /// Of the last quarter: what a bottleneck that has just become narrow lets through.
    pub(super) fn latest(&self) -> Option<Rates> {
        self.over(PIECES / 2)
    }

    fn over(&self, pieces: usize) -> Option<Rates> {
        let sum = self.newest(pieces).copied().reduce(|a, b| Piece {
            sent_bytes: a.sent_bytes.saturating_add(b.sent_bytes),
            received_bytes: a.received_bytes.saturating_add(b.received_bytes),
            sent_us: a.sent_us.saturating_add(b.sent_us),
            arrived_us: a.arrived_us.saturating_add(b.arrived_us),
        });
        sum.filter(|sum| sum.sent_us >= LEAST_US).map(|sum| sum.rates())
    }

    /// What came through in those pieces of the last quarter of a second in which more than `above` was sent and the
    /// path did not carry all: the median, for the bottleneck became narrow within one of them, and in another less was
    /// sent from some moment on. It is over the time of arrival alone, since a queue that drains is faster than what is
    /// sent then: a peer may make it as high as it likes, and nobody is to be believed more for it.
    pub(super) fn carried(&self, above: u64) -> Option<u64> {
        let mut rates = [0; PIECES / 2];
        let is_limited = |piece: &&Piece| piece.rates().sent > above && piece.rates().are_limited();
        let carried =
            self.newest(PIECES / 2).filter(is_limited).map(|piece| rate(piece.received_bytes, piece.arrived_us));
        let found = rates.iter_mut().zip(carried).map(|(slot, rate)| *slot = rate).count();
        let rates = &mut rates[..found];
        rates.sort_unstable();
        if found < LEAST_LIMITED { None } else { rates.get(found / 2).copied() }
    }

    fn newest(&self, pieces: usize) -> impl Iterator<Item = &Piece> {
        let newest = (0..pieces).map(|n| &self.pieces[(usize::from(self.newest) + PIECES - n) % PIECES]);
        newest.filter(|piece| piece.sent_us > 0)
    }
}

/// In bit/s.
fn rate(bytes: u32, us: u32) -> u64 {
    u64::from(bytes) * 8_000_000 / u64::from(us.max(1))
}

impl Piece {
    fn rates(&self) -> Rates {
        Rates {
            sent: rate(self.sent_bytes, self.sent_us),
            received: rate(self.received_bytes, self.sent_us.max(self.arrived_us)),
        }
    }
}

impl Rates {
    /// Less arrives than was sent: the path is what limits it.
    pub(super) fn are_limited(self) -> bool {
        (self.received as f64) < UNLIMITED * self.sent as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1250 bytes each 10 ms: 1 Mbit/s; they arrive each `step` microseconds.
    fn metered(packets: u32, step: u32, is_lost: impl Fn(u32) -> bool) -> Option<Rates> {
        let mut meter = Meter::new();
        for n in 0..packets {
            meter.add(1250, n * 10_000, (!is_lost(n)).then(|| 77 + n * step), false);
        }
        meter.rates()
    }

    #[test]
    fn what_arrives_as_it_was_sent_is_as_fast() {
        assert_eq!(metered(60, 10_000, |_| false), Some(Rates { sent: 1_000_000, received: 1_000_000 }));
    }

    #[test]
    fn a_bottleneck_shows_in_what_is_received_and_haste_does_not() {
        let slow = metered(60, 20_000, |_| false).expect("known");
        assert_eq!((slow.sent, slow.received), (1_000_000, 500_000));
        assert_eq!(metered(60, 1, |_| false).expect("known").received, 1_000_000, "the peer may say what it likes");
    }

    #[test]
    fn what_is_sent_after_a_bottleneck_was_full_does_not_say_what_it_carries() {
        let mut meter = Meter::new();
        for n in 0..30 {
            meter.add(1250, n * 10_000, Some(n * 20_000), false);
        }
        assert_eq!((meter.carried(0), meter.carried(1_000_001)), (Some(500_000), None));
        for n in 30..41 {
            meter.add(125, n * 10_000, Some(600_000 + n), false);
        }
        assert_eq!(meter.carried(0), Some(500_000), "what waited comes at once");
        for n in 41..60 {
            meter.add(125, n * 10_000, Some(600_000 + n * 10_000), false);
        }
        assert_eq!(meter.carried(0), None);
    }

    #[test]
    fn what_is_lost_was_sent() {
        let lossy = metered(61, 10_000, |n| n % 2 == 1).expect("known");
        assert_eq!(lossy.sent, 1_000_000);
        assert!((480_000..=520_000).contains(&lossy.received));
    }

    #[test]
    fn little_is_no_measurement_and_a_gap_is_in_neither_rate() {
        assert_eq!(metered(20, 10_000, |_| false), None);
        let mut meter = Meter::new();
        for n in (0..30).chain(60..90) {
            meter.add(1250, n * 10_000, Some(n * 10_000), n == 60);
        }
        assert_eq!(meter.rates(), Some(Rates { sent: 1_000_000, received: 1_000_000 }));
    }
}

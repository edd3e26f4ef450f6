//! Counters of signals and of where their time went: plain numbers, summed over shards.

use std::time::Duration;

use crate::qos::{Bounds, TimeHistogram};

use super::outcome::{Outcome, Refused, Status};

/// A part of a signal's round trip. Exported as `tableside_bet_signal_rtt_seconds{leg}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Leg {
    /// Between player and edge and back, by RTCP.
    LastMile,
    /// On the edge.
    Edge,
    /// To the bet service and back, its own time included.
    Upstream,
    /// All of it, by the player's own clock.
    Total,
}

impl Leg {
    /// Every leg with its name, in the order of the discriminants.
    pub const ALL: [(Leg, &'static str); 4] =
        [(Leg::LastMile, "last_mile"), (Leg::Edge, "edge"), (Leg::Upstream, "upstream"), (Leg::Total, "total")];
}

/// Of a signal's legs: the edge's is held to a millisecond, a deadline is counted in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LegBounds;

impl Bounds for LegBounds {
    const SECONDS: &'static [f64] =
        &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
}

/// Of settlements: a wheel takes seconds, the stakes of a full table a minute or two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SettleBounds;

impl Bounds for SettleBounds {
    const SECONDS: &'static [f64] =
        &[0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 75.0, 90.0, 120.0];
}

/// Of a signal's legs.
pub type LegHistogram = TimeHistogram<LegBounds>;

/// Of settlements.
pub type SettleHistogram = TimeHistogram<SettleBounds>;

/// What became of signals, and how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BetCounts {
    /// By [`Status`] discriminant: first outcomes, one for each signal. What comes late is not counted again.
    pub outcomes: [u64; Status::ALL.len()],
    /// By [`Refused`] discriminant.
    pub refused: [u64; Refused::ALL.len()],
    /// Answers that came after `unconfirmed`.
    pub late: u64,
    /// By [`Leg`] discriminant.
    pub legs: [LegHistogram; Leg::ALL.len()],
}

impl BetCounts {
    /// Counts those of another as well.
    pub fn add(&mut self, other: &Self) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(own, more)| *own += more);
        self.refused.iter_mut().zip(other.refused).for_each(|(own, more)| *own += more);
        self.late += other.late;
        self.legs.iter_mut().zip(&other.legs).for_each(|(own, more)| own.add(more));
    }

    /// Counts the first outcome of a signal.
    pub fn count(&mut self, outcome: &Outcome) {
        self.outcomes[outcome.status() as usize] += 1;
        if let Outcome::Refused(reason) = outcome {
            self.refused[*reason as usize] += 1;
        }
    }

    /// Counts how long a part took.
    pub fn observe(&mut self, leg: Leg, duration: Duration) {
        self.legs[leg as usize].observe(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_all_below_are_counted_with_it() {
        let mut histogram = LegHistogram::default();
        [100, 101, 1000, 6_000_000].into_iter().for_each(|us| histogram.observe(Duration::from_micros(us)));
        let mut sum = histogram;
        sum.add(&histogram);
        let counts: Vec<u64> = sum.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 4, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6]);
        assert_eq!((sum.count(), sum.sum()), (8, 12.002402));
        assert!(LegBounds::SECONDS.is_sorted() && SettleBounds::SECONDS.is_sorted());
    }

    #[test]
    fn a_refusal_is_counted_with_its_reason() {
        let mut counts = BetCounts::default();
        counts.count(&Outcome::Accepted);
        counts.count(&Outcome::Refused(Refused::TooLarge));
        assert_eq!((counts.outcomes, counts.refused), ([1, 0, 1, 0], [0, 1, 0, 0, 0, 0]));
    }
}

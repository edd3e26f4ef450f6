//! Counts of durations by size, for a Prometheus histogram.

use std::marker::PhantomData;
use std::time::Duration;

/// The most bounds that a histogram has.
const MOST_BOUNDS: usize = 15;

/// Upper bounds of a histogram's buckets, in seconds, rising, at most 15; one more bucket takes what is above.
pub trait Bounds: Copy + std::fmt::Debug + Default + PartialEq + 'static {
    /// The bounds.
    const SECONDS: &'static [f64];
}

/// From a round trip on the same continent to what nobody would call live.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LiveBounds;

impl Bounds for LiveBounds {
    const SECONDS: &'static [f64] = &[0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2];
}

/// How often something took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimeHistogram<B: Bounds> {
    /// By the bounds, each bucket by itself; the one behind the last is for what is above.
    counts: [u64; MOST_BOUNDS + 1],
    sum: Duration,
    bounds: PhantomData<B>,
}

/// Of what players report.
pub type Histogram = TimeHistogram<LiveBounds>;

impl<B: Bounds> TimeHistogram<B> {
    /// Counts one.
    pub fn observe(&mut self, duration: Duration) {
        const { assert!(B::SECONDS.len() <= MOST_BOUNDS) };
        let seconds = duration.as_secs_f64();
        self.counts[B::SECONDS.iter().take_while(|bound| seconds > **bound).count()] += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// Counts those of another as well.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(own, more)| *own += more);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in seconds.
    pub fn sum(&self) -> f64 {
        self.sum.as_secs_f64()
    }

    /// For each bound, how many were no longer than that.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let up_to = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        B::SECONDS.iter().copied().zip(up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(milliseconds: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        milliseconds.iter().for_each(|ms| histogram.observe(Duration::from_millis(*ms)));
        histogram
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_all_below_are_counted_with_it() {
        let histogram = of(&[0, 10, 11, 20, 400, 3200, 3201]);
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 4, 4, 4, 4, 5, 5, 5, 6]);
        assert_eq!((histogram.count(), histogram.sum()), (7, 6.842));
    }

    #[test]
    fn two_are_added_bucket_by_bucket() {
        let mut sum = of(&[5, 300]);
        sum.add(&of(&[5, 9000]));
        assert_eq!(sum, of(&[5, 300, 5, 9000]));
    }
}

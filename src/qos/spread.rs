//! How far apart durations are that many players report.

use std::time::Duration;

/// Values below this many milliseconds have a bucket for each; above it each octave has half as many.
const EXACT: usize = 64;

/// Up to 2¹⁶ ms, 65.5 s: ten octaves.
const BUCKETS: usize = EXACT + 10 * EXACT / 2;

/// What is above the lower and below the upper end is left out: a twentieth of all at each.
const LEFT_OUT: u64 = 20;

/// Durations by size, finely enough to tell how far they are apart: to a millisecond below 64 ms, to
/// 3 % above. 1.5 KB however many there are, nothing while there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    counts: Vec<u32>,
}

impl Spread {
    /// Counts one.
    pub fn observe(&mut self, duration: Duration) {
        self.counts.resize(BUCKETS, 0);
        let count = &mut self.counts[bucket(duration)];
        *count = count.saturating_add(1);
    }

    /// Counts those of another as well.
    pub fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, more)| *own = own.saturating_add(*more));
    }

    /// The 95th percentile minus the 5th, in seconds; 0 where there are less than two.
    pub fn width(&self) -> f64 {
        let total: u64 = self.counts.iter().copied().map(u64::from).sum();
        let low = total.div_ceil(LEFT_OUT);
        let milliseconds = |rank| self.ranked(rank).map_or(0.0, milliseconds_in);
        (milliseconds(total - total / LEFT_OUT) - milliseconds(low)) / 1000.0
    }

    /// The bucket of the `rank`-th smallest, from 1.
    fn ranked(&self, rank: u64) -> Option<usize> {
        let up_to = self.counts.iter().scan(0, |sum, count| {
            *sum += u64::from(*count);
            Some(*sum)
        });
        up_to.into_iter().position(|sum| sum >= rank.max(1))
    }
}

/// The bucket of a duration; the last takes what is above.
fn bucket(duration: Duration) -> usize {
    let milliseconds = usize::try_from(duration.as_millis()).unwrap_or(usize::MAX);
    if milliseconds < EXACT {
        return milliseconds;
    }
    let (octave, half) = (milliseconds.ilog2() - EXACT.ilog2(), EXACT / 2);
    let within = (milliseconds >> (octave + 1)) - half;
    (EXACT + octave as usize * half + within).min(BUCKETS - 1)
}

/// The middle of what a bucket takes.
fn milliseconds_in(bucket: usize) -> f64 {
    let Some(above) = bucket.checked_sub(EXACT) else { return bucket as f64 };
    let (octave, half) = (above / (EXACT / 2), EXACT / 2);
    let width = 1_usize << (octave + 1);
    ((above % half + half) * width) as f64 + (width - 1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(milliseconds: impl IntoIterator<Item = u64>) -> Spread {
        let mut spread = Spread::default();
        milliseconds.into_iter().for_each(|ms| spread.observe(Duration::from_millis(ms)));
        spread
    }

    #[test]
    fn one_player_alone_and_those_who_see_the_same_are_not_apart() {
        assert_eq!(Spread::default().width(), 0.0);
        assert_eq!(of([300]).width(), 0.0);
        assert_eq!(of([300; 50]).width(), 0.0);
    }

    #[test]
    fn two_players_are_apart_by_what_is_between_them() {
        assert_eq!(of([20, 50]).width(), 0.03);
        let width = of([120, 220, 120, 220, 120, 220]).width();
        assert!((0.097..=0.103).contains(&width), "{width}");
    }

    #[test]
    fn a_twentieth_at_each_end_is_left_out() {
        assert_eq!(of((0..38).map(|_| 50).chain([10, 60_000])).width(), 0.0);
        assert_eq!(of((0..37).map(|_| 40).chain([63, 63, 63])).width(), 0.023, "three of forty are more than that");
    }

    #[test]
    fn spreads_of_shards_are_added() {
        let mut sum = of([20]);
        sum.add(&Spread::default());
        sum.add(&of([50]));
        assert_eq!(sum, of([20, 50]));
        let mut none = Spread::default();
        none.add(&of([20, 50]));
        assert_eq!(none, sum);
    }

    proptest! {
        #[test]
        fn a_bucket_tells_what_is_in_it_to_three_percent(milliseconds in 0_u64..65_536) {
            let middle = milliseconds_in(bucket(Duration::from_millis(milliseconds)));
            prop_assert!((middle - milliseconds as f64).abs() <= 0.016 * milliseconds as f64, "{middle}");
        }

        #[test]
        fn no_duration_is_too_long(milliseconds in any::<u64>()) {
            prop_assert!(bucket(Duration::from_millis(milliseconds)) < BUCKETS);
            prop_assert!(bucket(Duration::MAX) < BUCKETS);
        }
    }
}

//! How long to wait before something is tried again.

use std::time::Duration;

/// Waits that double from the first to the longest, each cut by chance by up to a half: nodes that lost the same service
/// in the same moment do not come back to it in the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// Never longer than that.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after `failures` in a row, at least one. `random` is a new number each time.
    pub fn delay(&self, failures: u32, random: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        // 32 bits of chance are more than anybody sees.
        let share = f64::from((random >> 32) as u32) / f64::from(u32::MAX);
        whole.mul_f64(0.5 + share / 2.0)
    }
}

/// A number for [`Backoff::delay`]. Without random numbers the longest wait is taken each time, which is no harm.
pub(super) fn chance() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(500) };

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits = [1, 2, 3, 5, 6, 7, 1000].map(|failures| BACKOFF.delay(failures, u64::MAX).as_millis());
        assert_eq!(waits, [20, 40, 80, 320, 500, 500, 500]);
        assert_eq!(BACKOFF.delay(3, 0).as_millis(), 40);
    }

    proptest! {
        #[test]
        fn chance_takes_up_to_a_half(failures: u32, random: u64) {
            let (whole, wait) = (BACKOFF.delay(failures, u64::MAX), BACKOFF.delay(failures, random));
            prop_assert!(wait >= whole / 2 && wait <= whole, "{:?} of {:?}", wait, whole);
        }
    }
}

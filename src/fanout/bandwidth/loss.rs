//! Whether more is lost than a bad path loses by itself.
//!
//! draft-ietf-rmcat-gcc-02 §6 looks at the share lost between two reports: above 10 % is congestion. Between two
//! feedbacks of 100 ms that is noise: losses come in bursts, and of 30 packets four are often lost on a path that loses
//! 5 % on the whole. So what is above the limit is summed up, and what is below taken off again (Page's cumulative
//! sum): bursts cancel out, heavy loss is found as soon as it can be told from them.

/// Above this share loss is congestion (§6 has 10 %). The sum falls as long as less is lost.
const LIMIT: f32 = 0.11;

/// Packets above the limit that are too many. On a path that loses 5 % in bursts of four, less than one packet in a
/// million gets there; 20 % at 290 packets a second get there in 1.5 s, 77 % in a fifth of a second.
const TOO_MANY: f32 = 40.0;

/// Of losses in a row so many count: a short blackout says nothing of how much the path carries.
const ROW: u8 = 8;

/// The weight of a packet in the share that is told.
const WEIGHT: f32 = 0.005;

/// The loss half of congestion control.
#[derive(Debug, Default)]
pub(super) struct Loss {
    above: f32,
    row: u8,
    share: f32,
}

impl Loss {
    /// A packet arrived or not. `true` if too many did not; said again when as many again are halfway lost.
    pub(super) fn add(&mut self, is_lost: bool) -> bool {
        self.row = if is_lost { self.row.saturating_add(1) } else { 0 };
        self.share += WEIGHT * (f32::from(u8::from(is_lost)) - self.share);
        if self.row > ROW {
            return false;
        }
        self.above = (self.above + f32::from(u8::from(is_lost)) - LIMIT).max(0.0);
        let are_too_many = self.above >= TOO_MANY;
        if are_too_many {
            self.above = TOO_MANY / 2.0;
        }
        are_too_many
    }

    /// So little was lost lately that there may be room for more.
    pub(super) fn is_low(&self) -> bool {
        self.above < TOO_MANY / 4.0
    }

    /// The share lost of about the last 200 packets, 0 to 1.
    pub(super) fn share(&self) -> f32 {
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The packet at which it is said that too many are lost.
    fn found(lost: impl Iterator<Item = bool>) -> Option<usize> {
        let mut loss = Loss::default();
        lost.into_iter().position(|is_lost| loss.add(is_lost))
    }

    #[test]
    fn one_packet_in_ten_may_be_lost_for_ever() {
        assert_eq!(found((0..100_000).map(|n| n % 10 == 0)), None);
        assert_eq!(found((0..100_000).map(|n| n % 80 < 4)), None, "bursts of four");
    }

    #[test]
    fn one_in_five_is_too_many_after_a_while_and_four_in_five_soon() {
        let found_at = found((0..10_000).map(|n| n % 5 == 0)).expect("found");
        assert!((400..500).contains(&found_at), "{found_at}");
        let found_at = found((0..10_000).map(|n| n % 5 != 0)).expect("found");
        assert!(found_at < 70, "{found_at}");
    }

    #[test]
    fn a_short_blackout_is_no_congestion() {
        assert_eq!(found((0..10_000).map(|n| n % 1000 < 100)), None);
    }

    #[test]
    fn the_share_is_that_of_the_last_packets() {
        let mut loss = Loss::default();
        for n in 0..2000 {
            loss.add(n % 4 == 0);
        }
        assert!((0.23..0.27).contains(&loss.share()) && !loss.is_low());
        for _ in 0..2000 {
            loss.add(false);
        }
        assert!(loss.share() < 0.01 && loss.is_low());
    }
}

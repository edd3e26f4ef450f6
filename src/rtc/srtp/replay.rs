//! Which packets of one source were received (RFC 3711 §3.3.1, §3.3.2).

/// The indices received of one source: the highest, and a bitmap of those just below it.
///
/// The bitmap is a ring of words, so that moving on clears whole words instead of shifting (the idea of RFC 6479). It
/// can tell about the highest index and at least `(WORDS - 1) * 64` before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplayWindow<const WORDS: usize> {
    highest: u64,
    words: [u64; WORDS],
}

impl<const WORDS: usize> ReplayWindow<WORDS> {
    /// How far below the highest index a packet is still accepted.
    pub(super) const REACH: u64 = (WORDS as u64 - 1) * 64;

    /// The window after the first packet.
    pub(super) fn starting_at(index: u64) -> Self {
        let mut window = Self { highest: index, words: [0; WORDS] };
        window.mark(index);
        window
    }

    /// The highest index received.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether a packet with this index may be accepted: not received yet, and not too old to know.
    pub(super) fn admits(&self, index: u64) -> bool {
        if index > self.highest {
            return true;
        }
        self.highest - index <= Self::REACH && self.words[word(index, WORDS)] & bit(index) == 0
    }

    /// Notes a packet that was authenticated and that [`ReplayWindow::admits`].
    pub(super) fn accept(&mut self, index: u64) {
        if index > self.highest {
            let steps = (index / 64 - self.highest / 64).min(WORDS as u64);
            for step in 1..=steps {
                self.words[word(self.highest + step * 64, WORDS)] = 0;
            }
            self.highest = index;
        }
        self.mark(index);
    }

    fn mark(&mut self, index: u64) {
        self.words[word(index, WORDS)] |= bit(index);
    }
}

fn word(index: u64, words: usize) -> usize {
    (index / 64) as usize % words
}

fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

/// The likely index of a packet, given the highest so far (RFC 3711 §3.3.1, appendix A).
///
/// With a rollover counter of 0 a sequence number far ahead is taken as a leap and not as lying before the first
/// rollover, where nothing can be. The tag decides in any case.
pub(super) fn estimate_index(highest: u64, sequence: u16) -> u64 {
    const HALF: u16 = 1 << 15;
    let (roc, last) = ((highest >> 16) as u32, highest as u16);
    let roc = if last < HALF && sequence > last && sequence - last > HALF {
        roc.saturating_sub(1)
    } else if last >= HALF && last - HALF > sequence {
        roc.saturating_add(1)
    } else {
        roc
    };
    u64::from(roc) << 16 | u64::from(sequence)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_index_follows_the_sequence_number_over_a_rollover() {
        assert_eq!(estimate_index(0x0_fff0, 0xfff5), 0x0_fff5);
        assert_eq!(estimate_index(0x0_fff0, 0x0005), 0x1_0005);
        assert_eq!(estimate_index(0x1_0005, 0xfff1), 0x0_fff1);
        assert_eq!(estimate_index(0x1_0005, 0x8004), 0x1_8004);
        assert_eq!(estimate_index(0x0_0005, 0xfff1), 0x0_fff1, "nothing lies before the first rollover");
        assert_eq!(estimate_index(0xffff_ffff_ffff, 0), 0xffff_ffff_0000, "the counter ends, it does not begin anew");
    }

    proptest! {
        #[test]
        fn any_index_within_half_the_sequence_space_is_found(highest in 0x1_0000_u64..1 << 47, distance in -0x7fff_i64..=0x7fff) {
            let index = highest.checked_add_signed(distance).unwrap();
            prop_assert_eq!(estimate_index(highest, index as u16), index);
        }

        #[test]
        fn the_window_agrees_with_a_set(steps in prop::collection::vec(-400_i64..400, 1..300), start in 0_u64..100_000) {
            const WORDS: usize = 4;
            let mut window = ReplayWindow::<WORDS>::starting_at(start);
            let mut seen = BTreeSet::from([start]);
            for step in steps {
                let index = window.highest().saturating_add_signed(step);
                let highest = *seen.last().unwrap();
                let fresh = !seen.contains(&index) && index + ReplayWindow::<WORDS>::REACH >= highest;
                prop_assert_eq!(window.admits(index), fresh);
                if fresh {
                    window.accept(index);
                    seen.insert(index);
                    prop_assert!(!window.admits(index));
                }
                prop_assert_eq!(window.highest(), *seen.last().unwrap());
            }
        }
    }
}

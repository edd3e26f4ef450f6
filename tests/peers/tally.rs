//! What arrived of one RTP stream, by its sequence numbers (RFC 3550 §5.1).

use std::collections::BTreeSet;

/// Counts packets and remembers which numbers have not come yet, so that a repaired or late packet closes its gap.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Packets that came for the first time.
    pub packets: u64,
    /// Packets that had come before.
    pub repeated: u64,
    highest: Option<u64>,
    missing: BTreeSet<u64>,
}

impl Tally {
    /// Takes the number of an arrival. What comes before the very first number is a packet and no gap.
    pub fn receive(&mut self, sequence_number: u16) {
        let Some(highest) = self.highest else {
            // One cycle above zero: a number before the first has room.
            self.highest = Some((1 << 16) + u64::from(sequence_number));
            self.packets = 1;
            return;
        };
        let ahead = i64::from(sequence_number.wrapping_sub(highest as u16) as i16);
        let number = highest.saturating_add_signed(ahead);
        if ahead > 0 {
            self.missing.extend(highest + 1..number);
            self.highest = Some(number);
        } else if !self.missing.remove(&number) {
            self.repeated += 1;
            return;
        }
        self.packets += 1;
    }

    /// Numbers between the first and the highest that never came.
    pub fn missing(&self) -> u64 {
        self.missing.len() as u64
    }
}

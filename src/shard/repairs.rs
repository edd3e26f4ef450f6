//! What a player has been sent again lately.

use std::time::{Duration, Instant};

use super::session::Budget;

/// Repairs that are remembered: at 2.5 Mbit/s and 5 % loss, those of five seconds.
const REMEMBERED: usize = 64;

/// A repair is on its way for so long at least, and at most, whatever is known of the path.
const LEAST: Duration = Duration::from_millis(10);
const MOST: Duration = Duration::from_millis(500);

/// Decides which repairs a player gets.
///
/// Players ask for what is missing again and again: Chromium each 100 ms, until it comes. Where a queue on the path takes longer
/// than that, each packet would be sent several times, and the queue would be filled by them. So what was sent is not sent again
/// as long as it may be on its way.
#[derive(Debug)]
pub(super) struct Repairs {
    budget: Budget,
    /// Made for the first repair: most players never need one.
    sent: Option<Box<Sent>>,
}

/// Sequence numbers and when they were sent, the oldest overwritten first.
#[derive(Debug)]
struct Sent {
    numbers: Vec<(u16, Instant)>,
    next: usize,
}

impl Repairs {
    /// Of a player that has asked for nothing.
    pub(super) const fn new() -> Self {
        Self { budget: Budget::of_repairs(), sent: None }
    }

    /// Whether the packet of this number may still be on its way, where one takes `round_trip` to come and to be missed.
    pub(super) fn is_under_way(&self, now: Instant, number: u16, round_trip: Duration) -> bool {
        let under_way = round_trip.clamp(LEAST, MOST);
        self.numbers().iter().any(|(sent, at)| *sent == number && now < *at + under_way)
    }

    /// How often it is to be sent, if there is room: twice where the repair may well be lost as the packet was, which costs a few
    /// bytes, where another round costs a freeze. A packet that is asked for again has lost a round already.
    pub(super) fn copies_of(&self, number: u16, is_losing: bool) -> usize {
        1 + usize::from(is_losing || self.numbers().iter().any(|(sent, _)| *sent == number))
    }

    /// Whether there may be another repair. The packet of this number counts as sent then.
    pub(super) fn take(&mut self, now: Instant, number: u16) -> bool {
        if !self.budget.take(now) {
            return false;
        }
        let new = || Box::new(Sent { numbers: Vec::with_capacity(REMEMBERED), next: 0 });
        let Sent { numbers, next } = &mut **self.sent.get_or_insert_with(new);
        match numbers.iter().position(|(sent, _)| *sent == number) {
            Some(at) => numbers[at].1 = now,
            None if numbers.len() < REMEMBERED => numbers.push((number, now)),
            None => {
                numbers[*next] = (number, now);
                *next = (*next + 1) % REMEMBERED;
            }
        }
        true
    }

    /// Whether there may be a packet that was not asked for. If it is, that counts for itself.
    pub(super) fn take_unasked(&mut self, now: Instant) -> bool {
        self.budget.take(now)
    }

    fn numbers(&self) -> &[(u16, Instant)] {
        self.sent.as_ref().map_or(&[], |sent| &sent.numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn asked(repairs: &mut Repairs, now: Instant, number: u16, round_trip: Duration) -> bool {
        !repairs.is_under_way(now, number, round_trip) && repairs.take(now, number)
    }

    #[test]
    fn what_may_be_on_its_way_is_not_sent_again() {
        let (mut repairs, now) = (Repairs::new(), Instant::now());
        assert!(asked(&mut repairs, now, 7, 80 * MS));
        assert!(!asked(&mut repairs, now + 79 * MS, 7, 80 * MS));
        assert!(asked(&mut repairs, now + 79 * MS, 8, 80 * MS), "another");
        assert!(asked(&mut repairs, now + 80 * MS, 7, 80 * MS), "it was lost as well");
        assert!(!asked(&mut repairs, now + 100 * MS, 7, 80 * MS), "and counts anew");
    }

    #[test]
    fn whatever_is_believed_of_the_path_it_is_asked_for_again_in_time() {
        let (mut repairs, now) = (Repairs::new(), Instant::now());
        assert!(asked(&mut repairs, now, 7, Duration::ZERO));
        assert!(!asked(&mut repairs, now + LEAST / 2, 7, Duration::ZERO), "twice in one NACK");
        assert!(asked(&mut repairs, now + LEAST, 7, Duration::ZERO));
        assert!(asked(&mut repairs, now + LEAST + MOST, 7, Duration::from_secs(60)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut repairs, mut now) = (Repairs::new(), Instant::now());
        for number in 0..1000_u16 {
            now += 10 * MS;
            assert!(asked(&mut repairs, now, number, MOST));
        }
        let numbers = &repairs.sent.as_ref().expect("some were sent").numbers;
        assert_eq!((numbers.len(), numbers.capacity()), (REMEMBERED, REMEMBERED));
        assert!(!asked(&mut repairs, now, 999, MOST) && !asked(&mut repairs, now, 999 - 40, MOST));
        assert!(asked(&mut repairs, now, 999 - REMEMBERED as u16, MOST), "forgotten");
    }
}

//! Repairs that a receiver asks for once and cannot do without.
//!
//! libwebrtc asks for a packet each 100 ms, but only until a later frame has come that needs nothing of what is missing
//! (`FrameContinuous`, `ClearUpTo`). Frames of the lowest spatial layer need nothing of the upper ones, so of those a packet is asked
//! for once. Yet a picture without the end of its highest layer is not shown, and then nothing is that rests on its lowest: the
//! picture stands for three seconds, after which Chromium asks for a keyframe. So what is asked for of an upper layer, in pictures of
//! the base layer in time, is remembered here until it has come.

use std::time::{Duration, Instant};

use crate::rtc::rtcp::TwccFeedback;

use super::core::Shard;
use super::session::Session;

/// How often is tried what could not be sent, as there was no room for it.
const TICK: Duration = Duration::from_millis(20);

/// After so long a keyframe is the sooner help.
const LASTS: Duration = Duration::from_secs(1);

/// So many of a player are remembered: the packets of two large pictures of 2.5 Mbit/s.
const MOST: usize = 32;

/// What a player has asked for and has not got yet, as far as that is known. Nothing is allocated before the first.
#[derive(Debug, Default)]
pub(super) struct Owed(Vec<Repair>);

#[derive(Debug)]
struct Repair {
    number: u16,
    asked: Instant,
    /// The transport-wide numbers of the copies that are on their way, and how many of them are lost. No copies: it waits.
    first: u16,
    copies: u16,
    lost: u16,
    /// All copies of one time were lost.
    was_lost: bool,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The packet of this sequence number could not be sent now.
    pub(super) fn put_off(&mut self, now: Instant, number: u16) {
        self.note(now, number, 0, 0);
    }

    /// It was sent so many times, with the transport-wide numbers from `first` on.
    pub(super) fn sent(&mut self, now: Instant, number: u16, first: u16, copies: u16) {
        self.note(now, number, first, copies);
    }

    fn note(&mut self, now: Instant, number: u16, first: u16, copies: u16) {
        if let Some(known) = self.0.iter_mut().find(|repair| repair.number == number) {
            (known.first, known.copies, known.lost) = (first, copies, 0);
        } else if self.0.len() < MOST {
            self.0.reserve_exact(MOST - self.0.len());
            self.0.push(Repair { number, asked: now, first, copies, lost: 0, was_lost: false });
        }
    }

    /// There is nothing to repair any more.
    pub(super) fn forget(&mut self, number: u16) {
        self.0.retain(|repair| repair.number != number);
    }

    /// The receiver says of a transport-wide number whether it has come.
    fn hear(&mut self, number: u16, has_come: bool) {
        let is_of = |repair: &Repair| number.wrapping_sub(repair.first) < repair.copies;
        let Some(at) = self.0.iter().position(is_of) else { return };
        let repair = &mut self.0[at];
        repair.lost += u16::from(!has_come);
        if has_come {
            self.0.swap_remove(at);
        } else if repair.lost == repair.copies {
            (repair.copies, repair.was_lost) = (0, true);
        }
    }

    /// What is to be sent.
    fn waiting(&self) -> impl Iterator<Item = u16> {
        self.0.iter().filter(|repair| repair.copies == 0).map(|repair| repair.number)
    }

    /// Forgets what is too old; whether some of that was never sent, or lost and not heard of since.
    fn give_up(&mut self, now: Instant) -> bool {
        let is_over = |repair: &Repair| now >= repair.asked + LASTS;
        let is_missing = self.0.iter().any(|repair| is_over(repair) && (repair.copies == 0 || repair.was_lost));
        self.0.retain(|repair| !is_over(repair));
        is_missing
    }
}

impl Shard {
    /// A player is owed something: it is looked after.
    pub(super) fn owe(&mut self, now: Instant, slot: u32) {
        if !self.owing.contains(&slot) {
            self.owing.push(slot);
            self.owed_due.get_or_insert(now + TICK);
        }
    }

    /// A player says what has come.
    pub(super) fn hear_of_repairs(&mut self, slot: u32, feedback: &TwccFeedback<'_>) {
        let session = self.sessions[slot as usize].session.as_deref_mut();
        let Some(owed) = session.and_then(Session::player_mut).map(|player| &mut player.owed) else { return };
        if !owed.is_empty() {
            feedback.statuses().for_each(|(number, delta)| owed.hear(number, delta.is_some()));
        }
    }

    /// Sends what players are owed, as far as there is room now.
    pub(super) fn repay(&mut self, now: Instant) {
        let mut owing = std::mem::take(&mut self.owing);
        owing.retain(|slot| self.repay_player(now, *slot));
        self.owing = owing;
        self.owed_due = (!self.owing.is_empty()).then_some(now + TICK);
    }

    /// `false` once nothing is owed to it.
    fn repay_player(&mut self, now: Instant, slot: u32) -> bool {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return false };
        let id = session.table;
        let Some(player) = session.player_mut() else { return false };
        let (layer, rests) = (player.layer, player.rests(now));
        if player.owed.give_up(now) && !rests && player.keyframes.take(now) {
            player.owed.0.clear();
            self.want_keyframe(now, id, layer);
            return false;
        }
        let (mut numbers, mut count) = ([0; MOST], 0);
        for (place, number) in numbers.iter_mut().zip(player.owed.waiting()) {
            *place = number;
            count += 1;
        }
        let is_left = !player.owed.is_empty();
        if count > 0 {
            self.repair_owed(now, slot, &numbers[..count]);
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn waiting(owed: &Owed) -> Vec<u16> {
        owed.waiting().collect()
    }

    #[test]
    fn what_is_lost_again_waits_and_what_has_come_is_not_owed() {
        let (mut owed, now) = (Owed::default(), Instant::now());
        owed.put_off(now, 7);
        assert_eq!(waiting(&owed), [7]);
        owed.sent(now, 7, u16::MAX, 2);
        owed.hear(u16::MAX - 1, false);
        owed.hear(1, true);
        assert_eq!((waiting(&owed), owed.is_empty()), (vec![], false), "of others");
        owed.hear(u16::MAX, false);
        assert_eq!(waiting(&owed), [0; 0], "the other copy may come");
        owed.hear(0, false);
        assert_eq!(waiting(&owed), [7]);
        owed.sent(now, 7, 20, 2);
        owed.hear(20, false);
        owed.hear(21, true);
        assert!(owed.is_empty());
    }

    #[test]
    fn what_was_never_sent_in_time_is_given_up() {
        let (mut owed, now) = (Owed::default(), Instant::now());
        owed.put_off(now, 7);
        owed.sent(now, 8, 100, 1);
        owed.put_off(now + 500 * MS, 7);
        assert!(!owed.give_up(now + 999 * MS) && waiting(&owed) == [7]);
        assert!(owed.give_up(now + LASTS), "since it was asked for first");
        assert!(owed.is_empty());
        owed.sent(now, 8, 100, 1);
        assert!(!owed.give_up(now + LASTS) && owed.is_empty(), "it may have come, for all that is known");
        owed.sent(now, 8, 100, 1);
        owed.hear(100, false);
        owed.sent(now + 900 * MS, 8, 120, 2);
        assert!(owed.give_up(now + LASTS), "it was lost before");
    }

    #[test]
    fn what_is_owed_is_bounded() {
        let (mut owed, now) = (Owed::default(), Instant::now());
        (0..1000).for_each(|number| owed.put_off(now, number));
        assert_eq!((waiting(&owed).len(), owed.0.capacity()), (MOST, MOST));
        owed.forget(3);
        assert!(!waiting(&owed).contains(&3));
    }
}

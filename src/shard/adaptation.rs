//! Which layer the path to a player carries, and when to find out whether it carries a better one.
//!
//! Pure: what layers take and what the path carries in, a layer out. What the path carries is [`Bandwidth`]'s to say.
//!
//! # Down
//!
//! At once, where more was sent than the path carries and what is left of the estimate is less than the layer takes: to the
//! best layer that fits, with what sound needs set aside. Sound itself is always sent.
//!
//! # Up
//!
//! Media alone cannot show that there is room for more than is sent. So once the path has been calm for a while, padding is
//! sent beside the media, at a rate that is higher by a part; if that arrives, again by a part more, until it is what the next
//! better layer takes. A step that fails has filled the queue by some ten milliseconds, and the next is tried only after a
//! while, longer with each failure. A layer that was too much after all is tried ever more rarely.

use std::time::{Duration, Instant};

use crate::fanout::{Bandwidth, Lacked, ProbeOutcome, Usage};
use crate::rtc::rtcp::TwccFeedback;

use super::points::{Choice, OperatingPoint};

/// What sound takes, in bit/s: Opus as browsers send it, with its headers.
const SOUND: u64 = 80_000;

/// Bytes of the headers below UDP's payload: IPv4, which most have.
const IP_AND_UDP: u32 = 28;

/// What headers and repairs add to a layer's payload, in percent.
const OVERHEAD: u64 = 108;

/// After overuse the estimate is 85 % of what arrived. A layer may take this much of it, in percent: 92 % of what arrived.
const SHARE: u64 = 108;

/// What came through when there was overuse, of which the estimate is a part, in percent.
const CAME_THROUGH: u64 = 117;

/// Repairs get this part of what the layer takes at least.
const LEAST_FOR_REPAIRS: u64 = 8;

/// The most that is saved up for them.
const REPAIR_BURST: Duration = Duration::from_millis(200);

/// A layer is taken up only with so much room above what it takes, in percent: rates waver.
const ROOM: u64 = 112;

/// Each step of a probe is so much more than what is known to arrive, in percent.
const STEP: u64 = 160;

/// A probe wants padding for no longer.
const PROBE: Duration = Duration::from_millis(500);

/// Overuse explains a low estimate for so long.
const RECENT: Duration = Duration::from_secs(2);

/// How long the path must have been calm before the first probe …
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// … and at most, however often probes failed.
const MOST_WAIT: Duration = Duration::from_secs(10);

/// For the next layer after one was taken up.
const NEXT_WAIT: Duration = Duration::from_secs(1);

/// A layer that is too much so soon after it was taken up was a mistake …
const RELAPSE: Duration = Duration::from_secs(10);

/// … that is made again only after a time that doubles up to this.
const MOST_WAIT_AFTER_RELAPSE: Duration = Duration::from_secs(60);

/// The path has carried less than the only encoding for so long …
const STARVED: Duration = Duration::from_secs(3);

/// … that the player gets none of it for so long, and again as soon as it is too much after that. Each try fills the queue, which loses
/// sound as well: shorter rests would cost more of that.
const REST: Duration = Duration::from_millis(1500);

/// The overuse that ends a try may be of a large keyframe alone. So often a try has as long as the first had.
const LONG_TRY: Duration = Duration::from_secs(15);

/// A publisher's own keyframe is waited for so long after a rest, and twice as long after the next, before one is asked for: that
/// takes from the picture of everybody.
const OWN_KEYFRAME: Duration = Duration::from_secs(2);

/// A frame that lets a player in to more temporal layers is waited for so long before a keyframe is asked for.
const CLIMB: Duration = Duration::from_secs(3);

/// Whether padding can be sent to a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// It can.
    Possible,
    /// Too many others get some.
    NotNow,
    /// It takes no repetitions, or does not say which packets arrive.
    Impossible,
}

/// A time without the only encoding, after which a keyframe lets the player in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) ends: Instant,
    /// No keyframe is asked for on its account before.
    pub(super) asks_from: Instant,
}

/// The last of them.
#[derive(Clone, Copy, Debug)]
struct Rested {
    /// When it ends.
    ended: Instant,
    /// When the path last had all of [`STARVED`] to show what it carries.
    tried: Instant,
}

/// The adaptation of one player.
#[derive(Debug)]
pub(super) struct Adaptation {
    pub(super) bandwidth: Bandwidth,
    /// It says what arrives. Else its own estimate is all there is, and means what it says.
    has_feedback: bool,
    /// The path has carried less than the best layer takes. Until that is seen, it is taken to carry it.
    is_limited: bool,
    overused: Option<Instant>,
    /// When a better layer was last taken up.
    rose: Option<Instant>,
    /// When the probe began that runs.
    probing: Option<Instant>,
    /// Since when the path carries less than the only encoding.
    starved_since: Option<Instant>,
    /// Since when it lacks layers that it is to get.
    climbing_since: Option<Instant>,
    rested: Option<Rested>,
    /// When the next probe may begin.
    next_probe: Instant,
    /// Up to when the allowance for repairs is spent, while the path is full.
    repairs_earned: Instant,
    /// How long after the next failure.
    wait: Duration,
    /// The most that `wait` grows to.
    most_wait: Duration,
}

impl Adaptation {
    /// Of a player that gets media from now on.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bandwidth: Bandwidth::new(now),
            has_feedback: false,
            is_limited: false,
            overused: None,
            rose: None,
            probing: None,
            starved_since: None,
            climbing_since: None,
            rested: None,
            next_probe: now + FIRST_WAIT,
            repairs_earned: now,
            wait: FIRST_WAIT,
            most_wait: MOST_WAIT,
        }
    }

    /// The player says what arrived.
    pub(super) fn handle_feedback(&mut self, now: Instant, feedback: &TwccFeedback<'_>) {
        self.has_feedback = true;
        self.bandwidth.handle_feedback(now, feedback.reference_ticks(), feedback.statuses());
    }

    /// The player says what it believes that its path carries. Who says what arrives is not asked for that.
    pub(super) fn handle_remb(&mut self, now: Instant, bits_per_second: u64) {
        if !self.has_feedback {
            self.bandwidth.handle_remb(now, bits_per_second);
        }
    }

    /// Looked at now and then: whether feedback has stopped to come, which [`Adaptation::decide`] has to know of.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = self.bandwidth.poll_timeout().is_some_and(|at| now >= at);
        if is_due {
            self.bandwidth.padding_due(now);
        }
        is_due
    }

    /// What to send, of `points`, the best first, where `current` is sent now. Asked after each feedback.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        points: &[OperatingPoint],
        current: Choice,
        padding: Padding,
    ) -> Option<Choice> {
        let outcome = self.probe_outcome(now);
        let best = points.first().map(|point| point.choice);
        let Some(estimate) = self.bandwidth.estimate(now) else { return best };
        if estimate.usage == Usage::Overuse {
            self.overused = Some(now);
            self.next_probe = self.next_probe.max(now + self.wait);
        }
        let Some(at) = position(points, current) else {
            return if self.is_limited { best_within(points, estimate.bits_per_second) } else { best };
        };
        // What it has is no point any more: all of the layer may be more than the path is known to carry.
        if self.is_limited && points[at].choice != current && !fits(&points[at], estimate.bits_per_second) {
            return best_within(&points[at..], estimate.bits_per_second);
        }
        let current = points[at].choice;
        let is_overused = self.is_overused(now);
        if is_overused && !fits(&points[at], estimate.bits_per_second) {
            let fitting = best_within(&points[at..], estimate.bits_per_second);
            if fitting != Some(current) {
                self.fall(now);
            }
            return fitting;
        }
        if !self.is_limited {
            return best;
        }
        let Some(better) = at.checked_sub(1).and_then(|at| points.get(at)) else {
            // The best of those that come now may be less than the best that there is: only one that was taken up proves more.
            self.is_limited = self.rose.is_none_or(|rose| now < rose + RELAPSE);
            return Some(current);
        };
        let needed = takes(better) * ROOM / 100;
        match outcome {
            Some(ProbeOutcome::Sustained(rate)) if rate >= needed => return Some(self.rise(now, better.choice)),
            // The next step at once.
            Some(ProbeOutcome::Sustained(_)) => self.next_probe = now,
            Some(ProbeOutcome::Failed) => self.put_off(now),
            None => {}
        }
        let is_calm = !self.has_feedback || !is_overused;
        if now < self.next_probe || self.probing.is_some() || !is_calm {
            return Some(current);
        }
        match padding {
            // There is no other way to know than to believe it, or to try.
            Padding::Impossible => return Some(self.rise(now, better.choice)),
            Padding::NotNow => return Some(current),
            Padding::Possible => {}
        }
        let known = estimate.bits_per_second.max(estimate.received_bits_per_second);
        self.probing = Some(now);
        self.bandwidth.begin_probe(now, needed.min(known * STEP / 100));
        Some(current)
    }

    /// Whether the path has room for a repair of `bytes`, beside what is sent now. While more is sent than it carries, repairs get no more
    /// than media leave of it: else they would keep the queue full that loses what they repair.
    pub(super) fn may_repair(
        &mut self,
        now: Instant,
        points: &[OperatingPoint],
        current: Choice,
        bytes: usize,
    ) -> bool {
        let Some(estimate) = self.bandwidth.estimate(now).filter(|_| self.is_overused(now)) else { return true };
        let takes = position(points, current).map_or(0, |at| takes(&points[at]));
        // Who gets fewer spatial or temporal layers has no keyframe to come: each frame waits for what is missing of those before it,
        // and the queue can do so for a while.
        let whole = points.iter().find(|point| point.choice.layer == current.layer);
        let room = match whole.is_none_or(|whole| whole.choice == current) {
            true => estimate.bits_per_second,
            false => estimate.bits_per_second.saturating_mul(CAME_THROUGH) / 100,
        };
        let left = room.saturating_sub(takes).max(takes / LEAST_FOR_REPAIRS);
        let elapsed = now.saturating_duration_since(self.repairs_earned).min(REPAIR_BURST);
        // What was earned, as the time that it takes to earn it.
        let costs = Duration::from_secs_f64(bytes as f64 * 8.0 / left.max(1) as f64);
        if elapsed < costs {
            return false;
        }
        self.repairs_earned = now - elapsed + costs;
        true
    }

    /// Whether the path does not carry this.
    pub(super) fn is_too_much(&self, now: Instant, points: &[OperatingPoint], current: Choice) -> bool {
        let estimate = self.bandwidth.estimate(now);
        let point = position(points, current).map(|at| &points[at]);
        self.is_overused(now)
            && estimate.zip(point).is_some_and(|(estimate, point)| !fits(point, estimate.bits_per_second))
    }

    /// Whether, and for how long, the player is better off without the only encoding that there is: since the path has carried less for
    /// long, or still does after a rest. Asked after each [`Adaptation::decide`].
    ///
    /// More than the path carries tears nearly every frame. What a try brings are the first tenths of a second, whose excess the queue
    /// takes; after that neither picture nor sound gain by it.
    pub(super) fn rest(&mut self, now: Instant, points: &[OperatingPoint], current: Choice) -> Option<Rest> {
        let last = self.rested.filter(|last| now < last.ended + RELAPSE);
        // What was seen before a rest says nothing of what comes after it.
        let is_seen = last.is_none_or(|last| self.overused.is_some_and(|overused| overused > last.ended));
        let is_starved = self.has_feedback && points.len() == 1 && self.is_too_much(now, points, current);
        if !(is_starved && is_seen) {
            self.starved_since = None;
            return None;
        }
        let short_try = last.filter(|last| last.ended < last.tried + LONG_TRY);
        let patience = if short_try.is_some() { Duration::ZERO } else { STARVED };
        if now < *self.starved_since.get_or_insert(now) + patience {
            return None;
        }
        let ended = now + REST;
        let asks_from = ended + if last.is_some() { 2 * OWN_KEYFRAME } else { OWN_KEYFRAME };
        self.starved_since = None;
        self.rested = Some(Rested { ended, tried: short_try.map_or(now, |last| last.tried) });
        Some(Rest { ends: ended, asks_from })
    }

    /// Whether the player still lacks layers that were taken up for it: until it gets them, nothing is known of them. Returns whether a
    /// keyframe is to be asked for, as no other frame lets it in: hardly any does to spatial layers. Asked before each
    /// [`Adaptation::decide`].
    pub(super) fn climbs(&mut self, now: Instant, lacked: Option<Lacked>) -> bool {
        let Some(lacked) = lacked else {
            self.climbing_since = None;
            return false;
        };
        self.rose = self.rose.map(|_| now);
        self.next_probe = self.next_probe.max(now + NEXT_WAIT);
        let is_due = match self.climbing_since {
            Some(since) => now >= since + CLIMB,
            None => lacked == Lacked::SpatialLayers,
        };
        if is_due {
            self.climbing_since = Some(now);
        }
        self.climbing_since.get_or_insert(now);
        is_due
    }

    /// Packets were sent at once, with the transport-wide numbers from `first` to before `next`; `bytes` of UDP payload in all.
    pub(super) fn note_sent(&mut self, now: Instant, first: u16, next: u16, bytes: usize) {
        let packets = next.wrapping_sub(first);
        if packets > 0 {
            self.bandwidth.handle_sent(now, first, packets, bytes as u32 + u32::from(packets) * IP_AND_UDP);
        }
    }

    /// Whether a probe wants padding.
    pub(super) fn is_probing(&self, now: Instant) -> bool {
        self.probing.is_some_and(|began| now < began + PROBE)
    }

    /// Whether a low estimate means that the path is full. What a player estimates itself always does.
    fn is_overused(&self, now: Instant) -> bool {
        !self.has_feedback || self.overused.is_some_and(|overused| now < overused + RECENT)
    }

    /// What came of the probe that ran; one of which nothing is heard has failed.
    fn probe_outcome(&mut self, now: Instant) -> Option<ProbeOutcome> {
        let began = self.probing?;
        let outcome = self.bandwidth.take_probe_outcome(now);
        let is_lost = now >= began + PROBE + RECENT;
        let outcome = outcome.or(is_lost.then_some(ProbeOutcome::Failed))?;
        self.probing = None;
        Some(outcome)
    }

    fn rise(&mut self, now: Instant, choice: Choice) -> Choice {
        self.rose = Some(now);
        self.next_probe = now + NEXT_WAIT;
        choice
    }

    fn fall(&mut self, now: Instant) {
        self.is_limited = true;
        let is_relapse = self.rose.take().is_some_and(|rose| now < rose + RELAPSE);
        if is_relapse {
            self.most_wait = MOST_WAIT_AFTER_RELAPSE;
            self.wait = (self.wait * 2).min(self.most_wait);
        } else {
            (self.wait, self.most_wait) = (FIRST_WAIT, MOST_WAIT);
        }
        self.probing = None;
        self.bandwidth.cancel_probe();
        self.next_probe = now + self.wait;
    }

    fn put_off(&mut self, now: Instant) {
        self.next_probe = now + self.wait;
        self.wait = (self.wait * 2).min(self.most_wait);
    }
}

/// What a point takes of a path, in bit/s.
fn takes(point: &OperatingPoint) -> u64 {
    point.bits_per_second * OVERHEAD / 100 + SOUND
}

fn fits(point: &OperatingPoint, bits_per_second: u64) -> bool {
    takes(point) <= bits_per_second.saturating_mul(SHARE) / 100
}

/// The best of `points` that fits, else the least.
fn best_within(points: &[OperatingPoint], bits_per_second: u64) -> Option<Choice> {
    points.iter().find(|point| fits(point, bits_per_second)).or(points.last()).map(|point| point.choice)
}

/// Where what is sent now stands. Spatial and temporal layers come and go with what the publisher does: if just this is no point any
/// more, the least one with all that it has.
fn position(points: &[OperatingPoint], current: Choice) -> Option<usize> {
    let has_all = |point: &OperatingPoint| {
        let (highest, had) = (point.choice.highest, current.highest);
        point.choice.layer == current.layer && highest.spatial >= had.spatial && highest.temporal >= had.temporal
    };
    points.iter().rposition(has_all).or_else(|| points.iter().rposition(|point| point.choice.layer == current.layer))
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::message::LayerIndex;
    use crate::fanout::Highest;

    const SMALL: Choice = whole(0);
    const MIDDLE: Choice = whole(1);
    const LARGE: Choice = whole(2);

    const fn whole(layer: usize) -> Choice {
        Choice::all(LayerIndex(layer))
    }

    const fn point(choice: Choice, bits_per_second: u64) -> OperatingPoint {
        OperatingPoint { choice, bits_per_second }
    }

    /// The best first: 2 Mbit/s, 500 and 150 kbit/s.
    const OFFERS: [OperatingPoint; 3] = [point(LARGE, 2_000_000), point(MIDDLE, 500_000), point(SMALL, 150_000)];

    /// A player that says what it believes its path carries, once a second.
    struct Player {
        now: Instant,
        adaptation: Adaptation,
        layer: Choice,
        padding: Padding,
    }

    impl Player {
        fn new(padding: Padding) -> Self {
            let now = Instant::now();
            Self { now, adaptation: Adaptation::new(now), layer: LARGE, padding }
        }

        fn says(&mut self, offers: &[OperatingPoint], bits_per_second: u64) -> Choice {
            self.now += Duration::from_secs(1);
            self.adaptation.bandwidth.handle_remb(self.now, bits_per_second);
            self.layer = self.adaptation.decide(self.now, offers, self.layer, self.padding).expect("some are offered");
            self.layer
        }
    }

    #[test]
    fn the_best_layer_is_taken_until_the_path_is_seen_to_carry_less() {
        let mut player = Player::new(Padding::Impossible);
        assert_eq!(
            player.adaptation.decide(player.now, &OFFERS, SMALL, Padding::Possible),
            Some(LARGE),
            "nothing is known"
        );
        assert_eq!(player.says(&OFFERS, 3_000_000), LARGE);
        assert_eq!(player.says(&OFFERS, 800_000), MIDDLE);
        assert_eq!(player.says(&OFFERS, 100_000), SMALL);
        assert_eq!(player.says(&OFFERS, 50_000), SMALL, "less than all: the least");
    }

    #[test]
    fn a_layer_is_taken_up_after_a_while_and_kept_without_room_to_spare() {
        let mut player = Player::new(Padding::Impossible);
        player.says(&OFFERS, 800_000);
        let takes = takes(&OFFERS[0]);
        let layers: Vec<Choice> = (0..3).map(|_| player.says(&OFFERS, takes * ROOM / 100)).collect();
        assert_eq!(layers, [MIDDLE, MIDDLE, LARGE]);
        assert_eq!(player.says(&OFFERS, takes), LARGE);
    }

    #[test]
    fn a_limit_outlasts_the_silence_of_the_best_layer() {
        let mut player = Player::new(Padding::NotNow);
        assert_eq!(player.says(&OFFERS, 800_000), MIDDLE);
        assert_eq!(player.says(&OFFERS[1..], 800_000), MIDDLE, "the best of what comes");
        for _ in 0..30 {
            assert_eq!(player.says(&OFFERS, 800_000), MIDDLE, "and the better one is not taken up unseen");
        }
    }

    #[test]
    fn a_layer_that_is_gone_is_replaced_by_what_fits() {
        let mut player = Player::new(Padding::Impossible);
        player.says(&OFFERS, 800_000);
        assert_eq!(player.says(&[OFFERS[0], OFFERS[2]], 800_000), SMALL);
        let mut unlimited = Player::new(Padding::Impossible);
        unlimited.layer = SMALL;
        assert_eq!(unlimited.says(&OFFERS[..2], 3_000_000), LARGE);
        assert_eq!(
            unlimited.adaptation.decide(unlimited.now, &[], LARGE, Padding::Possible),
            None,
            "nothing comes at all"
        );
    }

    #[test]
    fn temporal_layers_go_first_and_come_back_last() {
        let half = Choice { highest: Highest::temporal(1), ..LARGE };
        let points = [OFFERS[0], point(half, 1_200_000), OFFERS[1], OFFERS[2]];
        let mut player = Player::new(Padding::Impossible);
        assert_eq!(player.says(&points, 1_500_000), half);
        assert_eq!(player.says(&points, 1_300_000), half, "kept without room to spare");
        assert_eq!(player.says(&points, 800_000), MIDDLE);
        let path: Vec<Choice> = (0..12).map(|_| player.says(&points, 3_000_000)).collect();
        let first = |choice| path.iter().position(|other| *other == choice);
        assert!(first(half) < first(LARGE) && first(half).is_some(), "{path:?}");
    }

    #[test]
    fn a_temporal_layer_that_comes_no_more_is_nobodys_limit() {
        let half = Choice { highest: Highest::temporal(1), ..LARGE };
        let mut player = Player::new(Padding::Impossible);
        player.says(&[OFFERS[0], point(half, 1_200_000), OFFERS[1]], 1_500_000);
        assert_eq!(player.layer, half);
        assert_eq!(player.says(&[point(LARGE, 1_200_000), OFFERS[1]], 1_500_000), LARGE);
    }

    #[test]
    fn all_of_a_layer_is_not_given_where_a_part_of_it_is_no_point_any_more() {
        let half = Choice { highest: Highest::temporal(1), ..LARGE };
        let mut player = Player::new(Padding::Possible);
        assert_eq!(player.says(&[OFFERS[0], point(half, 1_200_000), OFFERS[1]], 1_500_000), half);
        // What arrives is known, and the path is calm.
        player.adaptation.has_feedback = true;
        let better_next = [OFFERS[0], point(MIDDLE, 1_250_000), OFFERS[2]];
        assert_eq!(player.says(&better_next, 1_500_000), MIDDLE, "and not what the path does not carry");
    }

    #[test]
    fn what_was_taken_up_counts_from_when_it_is_given() {
        let mut player = Player::new(Padding::Impossible);
        let half = Choice { highest: Highest::temporal(1), ..LARGE };
        let points = [OFFERS[0], point(half, 1_200_000)];
        assert_eq!(player.says(&points, 1_500_000), half);
        while player.says(&points, 5_000_000) != LARGE {}
        let mut asked = 0;
        for _ in 0..30 {
            asked += usize::from(player.adaptation.climbs(player.now, Some(Lacked::TemporalLayers)));
            player.says(&points, 5_000_000);
            assert!(player.adaptation.is_limited, "it has not had it yet");
        }
        assert_eq!(asked, 9, "every three seconds, but not at once");
        for _ in 0..12 {
            assert!(!player.adaptation.climbs(player.now, None));
            player.says(&points, 5_000_000);
        }
        assert!(!player.adaptation.is_limited);
    }

    #[test]
    fn the_only_encoding_rests_after_a_while_and_at_once_if_it_is_too_much_again() {
        let only = [OFFERS[0]];
        let mut player = Player::new(Padding::Impossible);
        player.adaptation.has_feedback = true;
        let (mut rests, mut has_rested) = (Vec::new(), false);
        for second in 0..14 {
            player.says(&only, 800_000);
            if has_rested {
                let by_what_was_before = player.adaptation.rest(player.now, &only, LARGE);
                assert_eq!(by_what_was_before, None, "{second}");
            }
            player.adaptation.overused = Some(player.now);
            let rest = player.adaptation.rest(player.now, &only, LARGE);
            has_rested = rest.is_some();
            if let Some(Rest { ends, asks_from }) = rest {
                rests.push((second, (ends - player.now).as_millis(), (asks_from - ends).as_secs()));
                player.now = ends;
            }
        }
        assert_eq!(rests[..2], [(3, 1500, 2), (4, 1500, 4)]);
        let begun: Vec<i32> = rests.iter().map(|rest| rest.0).collect();
        assert_eq!(begun, [3, 4, 5, 6, 7, 8, 9, 13], "after fifteen seconds it has three again");
        player.says(&only, 3_000_000);
        assert_eq!(player.adaptation.rest(player.now, &only, LARGE), None, "it fits");
        assert_eq!(player.adaptation.rest(player.now, &OFFERS, LARGE), None, "there is something less");
    }

    #[test]
    fn who_cannot_be_probed_is_tried_ever_more_rarely() {
        let mut player = Player::new(Padding::Impossible);
        let mut tried = Vec::new();
        for second in 0..200_u32 {
            let before = player.layer;
            // The middle layer goes; with the large one, the path shows its limit.
            let carries = if before == LARGE { 800_000 } else { 1_000_000 };
            if player.says(&OFFERS, carries) == LARGE && before != LARGE {
                tried.push(second);
            }
        }
        let waits: Vec<u32> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits.len() >= 4 && waits.windows(2).all(|pair| pair[1] >= pair[0]), "{waits:?}");
        assert!(*waits.last().expect("some") >= 60, "{waits:?}");
    }
}

//! Which layers of a simulcast come, and which of them is the best.
//!
//! Pure: packets and time in, the order out. Which of them a player gets is [`super::layers`]' to say.
//!
//! # What is better
//!
//! Not what the offer lists first: RFC 8853 §5.1 has its order say what the sender would rather keep, browsers list from
//! small to large and OBS from large to small. Of two layers the one with the larger picture is better, as their keyframes
//! say, or else `max-width` and `max-height`. Where that decides nothing, it is the one with clearly more bits.
//!
//! # When
//!
//! A layer is silent once others have gone on without it for a while; senders stop the upper ones when they are short of
//! CPU or bandwidth. From a silent layer to the next best one at once; to a better one only when it has come steadily, and
//! the longer so the more often that went wrong.
//!
//! # The order of all
//!
//! A highest layer is a place among all layers of the publisher, silent ones too. What was seen of them last is what counts:
//! the pictures, or the bits while both came. Of one that never came, nothing is known but its place in the offer, which goes
//! from small to large, or the other way if that is so of the others; an encoder that comes again is taken to go the way it
//! went before.

use std::time::{Duration, Instant};

use crate::media::{PictureSize, RateWindow};

use super::message::{LayerIndex, LayerOffer, LayerShares};

/// How long a layer must be quiet …
const SILENCE: Duration = Duration::from_millis(300);

/// … while one other sends so many frames, to count as silent. A slow screen share is quiet in all its layers.
const FRAMES_MISSED: u8 = 3;

/// How long a better layer must have come without a break.
const STEADY: Duration = Duration::from_secs(1);

/// The most that the steady time grows to for a sender whose upper layers come and go.
const MOST_STEADY: Duration = Duration::from_secs(30);

/// A layer that falls silent so soon after the switch to it was a mistake.
const RELAPSE: Duration = Duration::from_secs(10);

/// Since when two layers must come for their bits to be compared for good: what is measured goes back so far.
const COMPARABLE: Duration = Duration::from_secs(2);

/// How much more bits are clearly more, in percent.
const CLEARLY_MORE: f64 = 1.3;

/// A packet as the ladder sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) layer: LayerIndex,
    /// Payload bytes.
    pub(super) len: usize,
    /// The first packet of a frame to arrive.
    pub(super) begins_frame: bool,
    /// What its keyframe says.
    pub(super) picture: Option<PictureSize>,
}

/// The layers of one medium.
#[derive(Debug)]
pub(super) struct Ladder {
    layers: Vec<Facts>,
    best: Option<LayerIndex>,
    /// All of them, from the least to the best.
    order: Vec<LayerIndex>,
    /// Two of them were compared: the order goes the right way.
    is_compared: bool,
    /// When the best became it, if it is better than the one before.
    rose: Option<Instant>,
    steady: Duration,
    /// Which layers come, or which is the best, is not what it was.
    changed: bool,
}

/// What is known of a layer.
#[derive(Debug, Default)]
struct Facts {
    /// The offer's word on it, until a keyframe tells.
    declared: Option<PictureSize>,
    picture: Option<PictureSize>,
    rate: RateWindow,
    /// Since when it comes without a break, and when it last did. `None` while it is silent.
    steady_since: Option<Instant>,
    last: Option<Instant>,
    /// For each layer, the frames that it sent since this one's last packet.
    missed: Vec<u8>,
}

impl Ladder {
    /// Nothing has come yet; the offer says this much about the layers' pictures.
    pub(super) fn new(declared: impl Iterator<Item = Option<PictureSize>>) -> Self {
        let mut layers: Vec<Facts> = declared.map(|declared| Facts { declared, ..Facts::default() }).collect();
        let count = layers.len();
        layers.iter_mut().for_each(|facts| facts.missed = vec![0; count]);
        let order = (0..count).map(LayerIndex).collect();
        Self { layers, best: None, order, is_compared: false, rose: None, steady: STEADY, changed: false }
    }

    /// The order that a former publisher's layers had is taken for these, if they are as many, until it is seen
    /// otherwise.
    pub(super) fn expect_order(&mut self, order: &[LayerIndex]) {
        if order.len() == self.order.len() {
            self.order.copy_from_slice(order);
        }
    }

    /// The best layer that comes.
    pub(super) fn best(&self) -> Option<LayerIndex> {
        self.best
    }

    /// A packet came.
    pub(super) fn handle_packet(&mut self, now: Instant, seen: &Seen) {
        let LayerIndex(at) = seen.layer;
        if seen.begins_frame {
            self.layers.iter_mut().for_each(|other| other.missed[at] = other.missed[at].saturating_add(1));
        }
        let facts = &mut self.layers[at];
        facts.rate.add(now, seen.len as u64);
        let picture = seen.picture.or(facts.picture);
        self.changed |= std::mem::replace(&mut facts.picture, picture) != picture;
        facts.missed.fill(0);
        facts.last = Some(now);
        self.changed |= facts.steady_since.is_none();
        facts.steady_since.get_or_insert(now);
        self.decide(now);
    }

    /// All layers, from the least to the best, whether they come or not.
    pub(super) fn order(&mut self, now: Instant) -> &[LayerIndex] {
        let count = self.order.len();
        let pairs = || (0..count).flat_map(|low| (low + 1..count).map(move |high| (low, high)));
        if !self.is_compared {
            let found = pairs().find_map(|(low, high)| self.surely_better(now, self.order[low], self.order[high]));
            if found == Some(true) {
                self.order.reverse();
            }
            self.is_compared = found.is_some();
        }
        for (low, high) in pairs() {
            if self.surely_better(now, self.order[low], self.order[high]) == Some(true) {
                self.order.swap(low, high);
            }
        }
        &self.order
    }

    /// Whether the order of [`Ladder::offers`] may have changed since the last call, or that of all layers.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The layers to choose from: the best, and those that come and are less.
    pub(super) fn offers(&self, now: Instant) -> Vec<LayerOffer> {
        let comes = |at: &usize| self.layers[*at].steady_since.is_some();
        let mut left: Vec<LayerIndex> = (0..self.layers.len()).filter(comes).map(LayerIndex).collect();
        let Some(best) = self.best else { return Vec::new() };
        left.retain(|layer| *layer != best && !self.is_better(now, *layer, best));
        let mut order = vec![best];
        while let Some(next) = left.iter().copied().reduce(|a, b| if self.is_better(now, b, a) { b } else { a }) {
            left.retain(|layer| *layer != next);
            order.push(next);
        }
        let offer = |layer: LayerIndex| LayerOffer {
            layer,
            bits_per_second: (self.layers[layer.0].rate.per_second(now) * 8.0) as u64,
            shares: LayerShares::default(),
        };
        order.into_iter().map(offer).collect()
    }

    fn decide(&mut self, now: Instant) {
        for facts in &mut self.layers {
            if facts.steady_since.is_some() && facts.is_silent(now) {
                facts.steady_since = None;
                self.changed = true;
            }
        }
        let target = self.target(now);
        if target != self.best {
            let rises = self.best.zip(target).is_some_and(|(before, after)| self.is_better(now, after, before));
            self.rose = rises.then_some(now);
            self.best = target;
            self.changed = true;
        }
        if self.rose.is_some_and(|rose| now >= rose + RELAPSE) {
            self.rose = None;
            self.steady = STEADY;
        }
    }

    /// The layer that ought to be the best.
    fn target(&mut self, now: Instant) -> Option<LayerIndex> {
        let best = self.best.filter(|LayerIndex(at)| self.layers[*at].steady_since.is_some());
        if self.best.is_some() && best.is_none() && self.rose.take().is_some() {
            self.steady = (self.steady * 2).min(MOST_STEADY);
        }
        let ready = |facts: &Facts| match best {
            Some(_) => facts.steady_since.is_some_and(|since| now >= since + self.steady),
            None => facts.steady_since.is_some(),
        };
        let candidates = (0..self.layers.len()).filter(|at| ready(&self.layers[*at])).map(LayerIndex);
        // Who leads keeps the lead until it is clearly beaten: bit rates waver.
        candidates.fold(best, |best, layer| match best {
            Some(best) if !self.is_better(now, layer, best) => Some(best),
            _ => Some(layer),
        })
    }

    fn is_better(&self, now: Instant, LayerIndex(a): LayerIndex, LayerIndex(b): LayerIndex) -> bool {
        let (a, b) = (&self.layers[a], &self.layers[b]);
        match (a.area(), b.area()) {
            (Some(a), Some(b)) if a != b => a > b,
            _ => a.rate.per_second(now) > b.rate.per_second(now) * CLEARLY_MORE,
        }
    }
}

impl Ladder {
    /// Whether `a` is better than `b`, or `b` than `a`, by what does not change while one of them is silent; `None` where
    /// neither is known to be.
    fn surely_better(&self, now: Instant, LayerIndex(a): LayerIndex, LayerIndex(b): LayerIndex) -> Option<bool> {
        let (a, b) = (&self.layers[a], &self.layers[b]);
        if let Some((a, b)) = a.area().zip(b.area()).filter(|(a, b)| a != b) {
            return Some(a > b);
        }
        let is_measured = |facts: &Facts| facts.steady_since.is_some_and(|since| now >= since + COMPARABLE);
        let (of_a, of_b) = (a.rate.per_second(now), b.rate.per_second(now));
        let is_clear = of_a > of_b * CLEARLY_MORE || of_b > of_a * CLEARLY_MORE;
        (is_measured(a) && is_measured(b) && is_clear).then_some(of_a > of_b)
    }
}

impl Facts {
    fn area(&self) -> Option<u64> {
        self.picture.or(self.declared).map(PictureSize::area)
    }

    fn is_silent(&self, now: Instant) -> bool {
        let quiet = self.last.is_none_or(|last| now >= last + SILENCE);
        quiet && self.missed.iter().any(|frames| *frames >= FRAMES_MISSED)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: LayerIndex = LayerIndex(0);
    const MIDDLE: LayerIndex = LayerIndex(1);
    const LARGE: LayerIndex = LayerIndex(2);

    fn picture(LayerIndex(at): LayerIndex) -> PictureSize {
        PictureSize { width: 320 << at, height: 180 << at }
    }

    /// A sender of three layers at 30 frames a second.
    struct Sender {
        now: Instant,
        ladder: Ladder,
        sizes: bool,
    }

    impl Sender {
        fn new(sizes: bool) -> Self {
            Self { now: Instant::now(), ladder: Ladder::new([None; 3].into_iter()), sizes }
        }

        /// Sends one frame of each of `layers`.
        fn frame(&mut self, layers: &[LayerIndex]) {
            self.now += Duration::from_millis(33);
            for &layer in layers {
                let seen = Seen {
                    layer,
                    len: 500 << layer.0,
                    begins_frame: true,
                    picture: self.sizes.then(|| picture(layer)),
                };
                self.ladder.handle_packet(self.now, &seen);
            }
        }

        fn frames(&mut self, count: usize, layers: &[LayerIndex]) {
            (0..count).for_each(|_| self.frame(layers));
        }

        fn order(&self) -> Vec<LayerIndex> {
            self.ladder.offers(self.now).iter().map(|offer| offer.layer).collect()
        }
    }

    #[test]
    fn the_first_layer_is_the_best_at_once_and_a_better_one_when_it_is_steady() {
        for sizes in [true, false] {
            let mut sender = Sender::new(sizes);
            sender.frames(1, &[SMALL]);
            assert!(sender.ladder.take_changed());
            assert_eq!(sender.order(), [SMALL]);
            sender.frames(28, &[SMALL, MIDDLE, LARGE]);
            assert_eq!(sender.order(), [SMALL], "not steady for a second");
            sender.ladder.take_changed();
            sender.frames(10, &[SMALL, MIDDLE, LARGE]);
            assert!(sender.ladder.take_changed());
            assert_eq!(sender.order(), [LARGE, MIDDLE, SMALL], "sizes known: {sizes}");
            sender.frames(30, &[SMALL, MIDDLE, LARGE]);
            assert!(!sender.ladder.take_changed(), "and so it stays");
        }
    }

    #[test]
    fn offers_say_what_a_layer_takes() {
        let mut sender = Sender::new(true);
        sender.frames(90, &[SMALL, MIDDLE, LARGE]);
        let offers = sender.ladder.offers(sender.now);
        let rates = offers.iter().map(|offer| offer.bits_per_second as f64 / (1000.0 / 33.0 * 8.0 * 500.0));
        rates.zip([4.0, 2.0, 1.0]).for_each(|(rate, expected)| assert!((rate / expected - 1.0).abs() < 0.05, "{rate}"));
    }

    #[test]
    fn what_the_offer_lists_first_is_not_what_is_best() {
        let largest_first = [Some(picture(LARGE)), Some(picture(SMALL)), None];
        let mut sender = Sender::new(false);
        sender.ladder = Ladder::new(largest_first.into_iter());
        // By bits the second would win: the size that was declared goes before.
        sender.frames(60, &[SMALL, MIDDLE]);
        assert_eq!(sender.order(), [SMALL, MIDDLE], "the first was declared the larger one");
    }

    #[test]
    fn a_silent_layer_gives_way_to_the_next_lower_within_half_a_second() {
        let mut sender = Sender::new(true);
        sender.frames(60, &[SMALL, MIDDLE, LARGE]);
        sender.frames(8, &[SMALL, MIDDLE]);
        assert_eq!(sender.order(), [LARGE, MIDDLE, SMALL], "a hiccup");
        sender.frames(4, &[SMALL, MIDDLE]);
        assert_eq!(sender.order(), [MIDDLE, SMALL]);
        sender.frames(15, &[SMALL]);
        assert_eq!(sender.order(), [SMALL]);
    }

    #[test]
    fn a_lower_layer_that_falls_silent_is_no_choice_any_more() {
        let mut sender = Sender::new(true);
        sender.frames(60, &[SMALL, MIDDLE, LARGE]);
        sender.ladder.take_changed();
        sender.frames(15, &[SMALL, LARGE]);
        assert!(sender.ladder.take_changed());
        assert_eq!(sender.order(), [LARGE, SMALL]);
    }

    fn all(sender: &mut Sender) -> Vec<usize> {
        sender.ladder.order(sender.now).iter().map(|layer| layer.0).collect()
    }

    #[test]
    fn the_order_of_all_is_the_offers_until_two_were_seen_to_go_the_other_way() {
        let mut sender = Sender::new(true);
        assert_eq!(all(&mut sender), [0, 1, 2]);
        sender.frame(&[LARGE]);
        assert_eq!(all(&mut sender), [0, 1, 2], "one alone says nothing of the others");
        sender.frame(&[SMALL, MIDDLE]);
        sender.frames(60, &[SMALL]);
        assert_eq!(all(&mut sender), [0, 1, 2], "silence changes nothing");

        let mut reversed = Sender::new(true);
        let offered = |layer: usize| Some(picture(LayerIndex(2 - layer)));
        reversed.ladder = Ladder::new([offered(0), offered(1), None].into_iter());
        assert_eq!(all(&mut reversed), [2, 1, 0], "and so the third is the least");
    }

    #[test]
    fn without_sizes_the_order_of_all_goes_by_bits_and_outlasts_silence() {
        let mut sender = Sender::new(false);
        sender.ladder.expect_order(&[LARGE, SMALL]);
        assert_eq!(all(&mut sender), [0, 1, 2], "of another number of layers");
        sender.ladder.expect_order(&[LARGE, MIDDLE, SMALL]);
        sender.frames(10, &[SMALL, MIDDLE, LARGE]);
        assert_eq!(all(&mut sender), [2, 1, 0], "as expected, as long as little is known");
        sender.frames(65, &[SMALL, MIDDLE, LARGE]);
        assert_eq!(all(&mut sender), [0, 1, 2]);
        sender.frames(90, &[SMALL]);
        assert_eq!(all(&mut sender), [0, 1, 2], "though the silent ones have no bits");
    }

    #[test]
    fn a_size_that_is_new_is_told() {
        let mut sender = Sender::new(true);
        sender.frames(60, &[SMALL, MIDDLE]);
        assert_eq!(all(&mut sender), [0, 1, 2]);
        sender.ladder.take_changed();
        let seen = Seen { layer: SMALL, len: 500, begins_frame: true, picture: Some(picture(LARGE)) };
        sender.ladder.handle_packet(sender.now, &seen);
        assert!(sender.ladder.take_changed());
        assert_eq!(all(&mut sender), [1, 0, 2]);
    }

    #[test]
    fn a_picture_that_stands_still_in_all_layers_changes_nothing() {
        let mut sender = Sender::new(true);
        sender.frames(60, &[SMALL, MIDDLE, LARGE]);
        for _ in 0..5 {
            sender.now += Duration::from_secs(2);
            sender.frame(&[SMALL, MIDDLE, LARGE]);
            assert_eq!(sender.order(), [LARGE, MIDDLE, SMALL]);
        }
    }

    #[test]
    fn an_upper_layer_that_comes_and_goes_is_believed_less_each_time() {
        let mut sender = Sender::new(true);
        sender.frame(&[LARGE]);
        sender.frames(60, &[SMALL, LARGE]);
        let mut waits = Vec::new();
        for _ in 0..4 {
            sender.frames(15, &[SMALL]);
            assert_eq!(sender.ladder.best(), Some(SMALL));
            let mut wait = 0;
            while sender.ladder.best() == Some(SMALL) {
                sender.frames(1, &[SMALL, LARGE]);
                wait += 1;
            }
            waits.push(wait / 30);
        }
        assert_eq!(waits, [1, 2, 4, 8], "seconds");
        sender.frames(330, &[SMALL, LARGE]);
        sender.frames(15, &[SMALL]);
        sender.frames(40, &[SMALL, LARGE]);
        assert_eq!(sender.ladder.best(), Some(LARGE), "forgiven after ten seconds without a relapse");
    }

    proptest! {
        /// Whatever comes and goes, what leads in the end is what would be chosen afresh, and nothing is offered twice.
        #[test]
        fn in_the_end_the_best_that_comes_leads(
            phases in prop::collection::vec((1usize..100, 1usize..8), 1..8),
            sizes: bool,
        ) {
            let mut sender = Sender::new(sizes);
            let of = |set: usize| (0..3).filter(|n| set & 1 << n != 0).map(LayerIndex).collect::<Vec<_>>();
            for (frames, set) in &phases {
                sender.frames(*frames, &of(*set));
                let mut order = sender.order();
                prop_assert_eq!(order.first().copied(), sender.ladder.best());
                order.sort();
                order.dedup();
                prop_assert_eq!(order.len(), sender.order().len());
                prop_assert_eq!(all(&mut sender), [0, 1, 2], "and silence makes no layer another");
            }
            let mut last = of(phases.last().expect("one at least").1);
            sender.frames(31 * 30, &last);
            last.reverse();
            prop_assert_eq!(sender.order(), last);
        }
    }
}

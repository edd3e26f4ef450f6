//! What there is to choose from for a player: operating points, each a layer of a simulcast with some of its temporal layers.
//!
//! Pure: what the layers take in, the points out, the best first. Which of them a player gets is [`super::adaptation`]'s to say.
//!
//! # The order
//!
//! Temporal layers go first when a path is short of bits: the best layer at half its frame rate comes before the next layer, if
//! it takes more than that. A quarter of the frame rate comes only where there is no further layer: a smaller picture that moves
//! is better than a sharp one that does not.

use std::time::{Duration, Instant};

use crate::fanout::{ALL_TEMPORAL_LAYERS, HeaderClass};
use crate::media::{Codec, PayloadFacts, Position};

use super::message::{LayerIndex, LayerOffer, TEMPORAL_LAYERS, TemporalShares};

/// A point with fewer temporal layers takes so much less than the one before, in percent, or is none.
const WORTHWHILE: u64 = 95;

/// What it takes may waver by so much, in percent, before a point is none any more.
const WAVERS: u64 = 4;

/// A layer, and the highest of its temporal layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) layer: LayerIndex,
    /// [`ALL_TEMPORAL_LAYERS`] for all.
    pub(super) temporal: u8,
}

impl Choice {
    /// All of a layer.
    pub(super) fn all(layer: LayerIndex) -> Self {
        Self { layer, temporal: ALL_TEMPORAL_LAYERS }
    }
}

/// A choice, and what it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct OperatingPoint {
    pub(super) choice: Choice,
    /// Payload bits per second.
    pub(super) bits_per_second: u64,
}

/// The points of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Points {
    all: Vec<OperatingPoint>,
    whole: Vec<OperatingPoint>,
}

impl Points {
    /// Of layers, the best first, where these were the points `before`.
    pub(super) fn of(offers: &[LayerOffer], before: &Self) -> Self {
        let whole = |offer: &LayerOffer| OperatingPoint {
            choice: Choice::all(offer.layer),
            bits_per_second: offer.bits_per_second,
        };
        let mut all = Vec::new();
        for (n, offer) in offers.iter().enumerate() {
            all.push(whole(offer));
            push_thinned(&mut all, offer, offers.get(n + 1), before);
        }
        Self { all, whole: offers.iter().map(whole).collect() }
    }

    /// Those for a player of this class.
    pub(super) fn for_class(&self, codec: Codec, class: &HeaderClass) -> &[OperatingPoint] {
        if may_be_thinned(codec, class) { &self.all } else { &self.whole }
    }
}

/// Whether the player's receiver goes on where a frame was left out: by VP8's picture ids, which are made to go on, or by the numbers
/// alone where a publisher leaves those out; by what VP9's descriptor says of references, or by dependency descriptors. A decoder of
/// H.264 may miss the frame, whatever the receiver says.
fn may_be_thinned(codec: Codec, class: &HeaderClass) -> bool {
    matches!(codec, Codec::Vp8 | Codec::Vp9) || class.dependency_descriptor.is_some()
}

/// Adds the points of `offer` with fewer temporal layers that lie between it and `next`.
fn push_thinned(points: &mut Vec<OperatingPoint>, offer: &LayerOffer, next: Option<&LayerOffer>, was: &Points) {
    let top = offer.temporal.highest();
    let lowest = if next.is_some() { top.saturating_sub(1) } else { 0 };
    for temporal in (lowest..top).rev() {
        let bits_per_second = offer.temporal.part_of(offer.bits_per_second, temporal);
        let choice = Choice { layer: offer.layer, temporal };
        let before = points.last().map_or(0, |point| point.bits_per_second);
        let wavers = if was.all.iter().any(|point| point.choice == choice) { WAVERS } else { 0 };
        let is_more_than_next = next.is_none_or(|next| bits_per_second > next.bits_per_second * (100 - wavers) / 100);
        if bits_per_second < before * (WORTHWHILE + wavers) / 100 && is_more_than_next {
            points.push(OperatingPoint { choice, bits_per_second });
        }
    }
}

/// Whether what a track's packets say of temporal layers is good for leaving some out.
#[derive(Debug, Default)]
pub(super) struct Layering {
    epoch: u32,
    /// The timestamp and the layer of the last packet that named one.
    last: Option<(u32, u8)>,
    is_mixed: bool,
}

impl Layering {
    /// What a packet says, without what is not good for that: then it is of every layer, as one that names none.
    ///
    /// Of frames that have one timestamp, spatial layers that is, all or none can be left out: where they are of
    /// several temporal layers (`L2T2_KEY_SHIFT`), nothing is. And but for VP8 and VP9, only a dependency descriptor
    /// says when more layers can be given again, and that a receiver misses nothing.
    pub(super) fn check(&mut self, codec: Codec, at: Position, is_described: bool, said: PayloadFacts) -> PayloadFacts {
        if self.epoch != at.epoch {
            *self = Self { epoch: at.epoch, ..Self::default() };
        }
        let Some(layer) = said.temporal_layer else { return said };
        let last = self.last.replace((at.timestamp, layer));
        self.is_mixed |= last.is_some_and(|(timestamp, other)| timestamp == at.timestamp && other != layer);
        let is_enough = is_described || matches!(codec, Codec::Vp8 | Codec::Vp9);
        if is_enough && !self.is_mixed { said } else { PayloadFacts { temporal_layer: None, climb: None, ..said } }
    }
}

/// From one mark to the next.
const MARKS: Duration = Duration::from_secs(1);

/// In less time nothing is known.
const LEAST_MEASURED: Duration = Duration::from_millis(200);

/// What the temporal layers of a track take, over the last one to two seconds: counted at each packet, looked at now and then.
#[derive(Debug, Default)]
pub(super) struct TemporalRates {
    bytes: [u64; TEMPORAL_LAYERS],
    /// What it was some time ago, the older first.
    marks: [Option<Mark>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    bytes: [u64; TEMPORAL_LAYERS],
}

impl TemporalRates {
    /// A packet with so many bytes of payload came.
    pub(super) fn add(&mut self, now: Instant, layer: Option<u8>, bytes: usize) {
        if self.marks[1].is_none() {
            self.mark(now);
        }
        self.bytes[usize::from(layer.unwrap_or(0)).min(TEMPORAL_LAYERS - 1)] += bytes as u64;
    }

    /// Looked at now and then: what is longer ago is forgotten.
    pub(super) fn mark(&mut self, now: Instant) {
        if self.marks[1].is_none_or(|last| now >= last.at + MARKS) {
            self.marks = [self.marks[1], Some(Mark { at: now, bytes: self.bytes })];
        }
    }

    /// Bits per second of each layer; all 0 before enough has come.
    pub(super) fn shares(&self, now: Instant) -> TemporalShares {
        let since = self.marks[0].or(self.marks[1]);
        let elapsed = since.map(|mark| now.saturating_duration_since(mark.at)).unwrap_or_default();
        let Some(mark) = since.filter(|_| elapsed >= LEAST_MEASURED) else { return TemporalShares::default() };
        let bits_per_second = |at: usize| (self.bytes[at] - mark.bytes[at]) * 8_000 / elapsed.as_millis() as u64;
        TemporalShares(std::array::from_fn(bits_per_second))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::facts;

    fn offer(layer: usize, shares: [u64; TEMPORAL_LAYERS]) -> LayerOffer {
        let temporal = TemporalShares(shares);
        LayerOffer { layer: LayerIndex(layer), bits_per_second: temporal.total(), temporal }
    }

    fn listed(points: &[OperatingPoint]) -> Vec<(usize, u8, u64)> {
        points.iter().map(|p| (p.choice.layer.0, p.choice.temporal, p.bits_per_second)).collect()
    }

    const ALL: u8 = ALL_TEMPORAL_LAYERS;

    fn points_of(offers: &[LayerOffer]) -> Points {
        Points::of(offers, &Points::default())
    }

    #[test]
    fn one_layer_goes_down_to_its_base() {
        let points = points_of(&[offer(0, [400, 200, 400, 0])]);
        assert_eq!(listed(&points.all), [(0, ALL, 1000), (0, 1, 600), (0, 0, 400)]);
        assert_eq!(listed(&points.whole), [(0, ALL, 1000)]);
        assert_eq!(listed(&points_of(&[offer(0, [1000, 0, 0, 0])]).all), [(0, ALL, 1000)]);
    }

    #[test]
    fn half_the_frames_of_a_better_layer_come_before_the_next_layer() {
        let (large, small) = (offer(2, [800, 400, 800, 0]), offer(0, [100, 50, 100, 0]));
        let points = points_of(&[large, small]);
        assert_eq!(listed(&points.all), [(2, ALL, 2000), (2, 1, 1200), (0, ALL, 250), (0, 1, 150), (0, 0, 100)]);
        // Where the next layer takes as much, it is the better picture.
        let points = points_of(&[large, offer(0, [1300, 0, 0, 0])]);
        assert_eq!(listed(&points.all), [(2, ALL, 2000), (0, ALL, 1300)]);
    }

    #[test]
    fn a_layer_that_takes_hardly_anything_is_not_worth_a_point() {
        let points = points_of(&[offer(0, [500, 470, 30, 0])]);
        assert_eq!(listed(&points.all), [(0, ALL, 1000), (0, 0, 500)]);
    }

    #[test]
    fn a_point_does_not_come_and_go_with_what_wavers() {
        let listed = |temporal: u64, next: u64, before: &Points| {
            let points = Points::of(&[offer(1, [temporal, 1000 - temporal, 0, 0]), offer(0, [next, 0, 0, 0])], before);
            (points.all.iter().any(|point| point.choice == Choice { layer: LayerIndex(1), temporal: 0 }), points)
        };
        let none = Points::default();
        let (is_there, points) = listed(600, 500, &none);
        assert!(is_there);
        for (temporal, next, stays) in [(960, 500, true), (600, 610, true), (995, 500, false), (600, 640, false)] {
            assert!(!listed(temporal, next, &none).0, "{temporal} is no point by itself");
            assert_eq!(listed(temporal, next, &points).0, stays, "{temporal} above {next}");
        }
    }

    #[test]
    fn layers_are_believed_where_they_are_enough_to_go_by() {
        let said = PayloadFacts { temporal_layer: Some(2), ..facts(Codec::Vp8, &[0x90, 0x20, 0xa0, 0x51]) };
        let at = |epoch, timestamp| Position { epoch, index: 0, timestamp };
        let mut layering = Layering::default();
        for (codec, is_described, believed) in [
            (Codec::Vp8, false, true),
            (Codec::Vp9, false, true),
            (Codec::Av1, false, false),
            (Codec::H265, false, false),
            (Codec::Av1, true, true),
            (Codec::H264, true, true),
        ] {
            let checked = layering.check(codec, at(0, 7), is_described, said);
            assert_eq!(checked.temporal_layer.is_some() && checked.climb.is_some(), believed, "{codec}");
            assert_eq!(PayloadFacts { temporal_layer: said.temporal_layer, climb: said.climb, ..checked }, said);
        }
        let lower = PayloadFacts { temporal_layer: Some(1), ..said };
        assert_eq!(layering.check(Codec::Vp9, at(0, 8), false, lower), lower, "another frame");
        let none = PayloadFacts { temporal_layer: None, ..said };
        assert_eq!(layering.check(Codec::Vp9, at(0, 8), false, none), none);
        let layers = [8, 9].map(|time| layering.check(Codec::Vp9, at(0, time), false, said).temporal_layer);
        assert_eq!(layers, [None; 2], "two of one time, and from then on");
        assert_eq!(layering.check(Codec::Vp9, at(1, 9), false, said), said, "another publisher");
    }

    #[test]
    fn shares_are_of_the_last_one_to_two_seconds() {
        let (mut rates, start) = (TemporalRates::default(), Instant::now());
        assert_eq!(rates.shares(start), TemporalShares::default());
        // A hundred packets a second, half of them of the base layer; the highest comes for four seconds.
        for n in 0..1000_u64 {
            let now = start + Duration::from_millis(10 * n);
            rates.mark(now);
            let layer = [Some(0), Some(1), None, Some(9)][n as usize % 4].filter(|layer| *layer < 9 || n < 400);
            if layer.is_some() || n % 4 == 2 {
                rates.add(now, layer, 1000);
            }
            if n == 10 {
                assert_eq!(rates.shares(now), TemporalShares::default(), "too early");
            }
            let shares = rates.shares(now).0.map(|share| share / 10_000);
            match n {
                399 => assert_eq!(shares, [40, 20, 0, 20]),
                700 => assert_eq!(shares, [40, 20, 0, 0]),
                _ => {}
            }
        }
        assert_eq!(rates.shares(start + Duration::from_secs(3600)).highest(), 1, "and of longer if nobody looks");
    }

    proptest! {
        #[test]
        fn every_layer_is_there_as_a_whole_and_fewer_temporal_layers_take_less(
            shares in prop::collection::vec(prop::array::uniform4(0_u64..2_000_000), 0..4),
        ) {
            let offers: Vec<LayerOffer> = shares.iter().enumerate().map(|(n, shares)| offer(n, *shares)).collect();
            let points = points_of(&offers);
            let whole: Vec<_> = points.all.iter().filter(|p| p.choice.temporal == ALL).copied().collect();
            prop_assert_eq!(&whole, &points.whole);
            for pair in points.all.windows(2).filter(|pair| pair[1].choice.temporal != ALL) {
                prop_assert!(pair[1].bits_per_second < pair[0].bits_per_second);
                prop_assert_eq!(pair[1].choice.layer, pair[0].choice.layer);
            }
        }
    }
}

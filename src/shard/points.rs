//! What there is to choose from for a player: operating points, each a layer of a simulcast with some of its spatial and temporal
//! layers.
//!
//! Pure: what the layers take in, the points out, the best first. Which of them a player gets is [`super::adaptation`]'s to say.
//!
//! # The order
//!
//! A spatial layer with those below it is as a layer of a simulcast. Temporal layers go first when a path is short of bits: the best
//! layer at half its frame rate comes before the next layer, if it takes more than that. A quarter of the frame rate comes only where there is no further layer: a smaller picture that moves
//! is better than a sharp one that does not.

use std::time::{Duration, Instant};

use crate::fanout::{HeaderClass, Highest};
use crate::media::{Codec, PayloadFacts, Position, SPATIAL_LAYERS};

use super::message::{LayerIndex, LayerOffer, LayerShares, TEMPORAL_LAYERS, TemporalShares};

/// A point with fewer temporal layers takes so much less than the one before, in percent, or is none.
const WORTHWHILE: u64 = 95;

/// What it takes may waver by so much, in percent, before a point is none any more.
const WAVERS: u64 = 4;

/// A layer, and the highest of its spatial and temporal layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) layer: LayerIndex,
    pub(super) highest: Highest,
}

impl Choice {
    /// All of a layer.
    pub(super) const fn all(layer: LayerIndex) -> Self {
        Self { layer, highest: Highest::ALL }
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
    /// Of layers, the best first, with spatial layers up to `spatial` at most, where these were the points `before`.
    pub(super) fn of(offers: &[LayerOffer], spatial: u8, before: &Self) -> Self {
        let whole = |offer: &LayerOffer| OperatingPoint {
            choice: Choice::all(offer.layer),
            bits_per_second: offer.bits_per_second,
        };
        let mut all = Vec::new();
        let tiers: Vec<Tier> = offers.iter().flat_map(|offer| Tier::of(offer, spatial, before)).collect();
        for (n, tier) in tiers.iter().enumerate() {
            all.push(tier.point);
            push_thinned(&mut all, tier, tiers.get(n + 1), before);
        }
        Self { all, whole: offers.iter().map(whole).collect() }
    }

    /// Those for a player of this class.
    pub(super) fn for_class(&self, codec: Codec, class: &HeaderClass) -> &[OperatingPoint] {
        if may_be_thinned(codec, class) { &self.all } else { &self.whole }
    }

    /// By how much something has to take less than the point before to be one: what was one may waver.
    fn worthwhile(&self, choice: Choice) -> u64 {
        WORTHWHILE + self.wavers(choice)
    }

    fn wavers(&self, choice: Choice) -> u64 {
        if self.all.iter().any(|point| point.choice == choice) { WAVERS } else { 0 }
    }
}

/// A layer with its spatial layers up to one of them, and all temporal layers.
#[derive(Clone, Copy, Debug)]
struct Tier {
    point: OperatingPoint,
    temporal: TemporalShares,
}

impl Tier {
    /// The tiers of a layer, the best first: with all of the spatial layers up to `limit`, and with fewer where that takes less.
    fn of(offer: &LayerOffer, limit: u8, was: &Points) -> Vec<Self> {
        let shares = &offer.shares;
        let top = shares.highest_spatial();
        let tier = |spatial: u8| {
            let temporal = shares.up_to(spatial);
            let part =
                u128::from(offer.bits_per_second) * u128::from(temporal.total()) / u128::from(shares.total().max(1));
            let bits_per_second = if spatial < top { part as u64 } else { offer.bits_per_second };
            let highest = Highest { spatial, ..Highest::ALL };
            Self { point: OperatingPoint { choice: Choice { layer: offer.layer, highest }, bits_per_second }, temporal }
        };
        let mut tiers = vec![tier(limit)];
        for lower in (0..top.min(limit)).rev().map(tier) {
            let Some(before) = tiers.last().map(|before| before.point.bits_per_second) else { break };
            let takes = lower.point.bits_per_second;
            if takes > 0 && takes < before * was.worthwhile(lower.point.choice) / 100 {
                tiers.push(lower);
            }
        }
        tiers
    }
}

/// Whether the player's receiver goes on where a frame was left out: by VP8's picture ids, which are made to go on, or by the numbers
/// alone where a publisher leaves those out; by what VP9's descriptor says of references, or by dependency descriptors. A decoder of
/// H.264 may miss the frame, whatever the receiver says.
pub(super) fn may_be_thinned(codec: Codec, class: &HeaderClass) -> bool {
    matches!(codec, Codec::Vp8 | Codec::Vp9) || class.dependency_descriptor.is_some()
}

/// Adds the points of `tier` with fewer temporal layers that lie between it and `next`.
fn push_thinned(points: &mut Vec<OperatingPoint>, tier: &Tier, next: Option<&Tier>, was: &Points) {
    let (whole, top) = (tier.point, tier.temporal.highest());
    let lowest = if next.is_some() { top.saturating_sub(1) } else { 0 };
    for temporal in (lowest..top).rev() {
        let bits_per_second = tier.temporal.part_of(whole.bits_per_second, temporal);
        let choice = Choice { highest: Highest { temporal, ..whole.choice.highest }, ..whole.choice };
        let before = points.last().map_or(0, |point| point.bits_per_second);
        let next = next.map(|next| next.point.bits_per_second);
        let is_more_than_next = next.is_none_or(|next| bits_per_second > next * (100 - was.wavers(choice)) / 100);
        if bits_per_second < before * was.worthwhile(choice) / 100 && is_more_than_next {
            points.push(OperatingPoint { choice, bits_per_second });
        }
    }
}

/// Whether what a track's packets say of layers is good for leaving some out.
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
    /// Of frames that have one timestamp, spatial layers that is, the temporal layer has to be one: where they are of several
    /// (`L2T2_KEY_SHIFT`), the larger picture would come and go with it, and no temporal layer is left out. And but for VP8
    /// and VP9, only a dependency descriptor says when more layers can be given again, and that a receiver misses nothing.
    pub(super) fn check(&mut self, codec: Codec, at: Position, is_described: bool, said: PayloadFacts) -> PayloadFacts {
        if self.epoch != at.epoch {
            *self = Self { epoch: at.epoch, ..Self::default() };
        }
        if !is_described && !matches!(codec, Codec::Vp8 | Codec::Vp9) {
            return PayloadFacts { temporal_layer: None, spatial_layer: None, climb: None, ..said };
        }
        let Some(layer) = said.temporal_layer else { return said };
        let last = self.last.replace((at.timestamp, layer));
        self.is_mixed |= last.is_some_and(|(timestamp, other)| timestamp == at.timestamp && other != layer);
        if self.is_mixed { PayloadFacts { temporal_layer: None, climb: None, ..said } } else { said }
    }
}

/// From one mark to the next.
const MARKS: Duration = Duration::from_secs(1);

/// In less time nothing is known.
const LEAST_MEASURED: Duration = Duration::from_millis(200);

/// What the layers of a track take, over the last one to two seconds: counted at each packet, looked at now and then.
#[derive(Debug, Default)]
pub(super) struct LayerRates {
    bytes: Counts,
    /// What it was some time ago, the older first.
    marks: [Option<Mark>; 2],
}

/// By spatial and temporal layer.
type Counts = [[u64; TEMPORAL_LAYERS]; SPATIAL_LAYERS];

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    bytes: Counts,
}

impl LayerRates {
    /// A packet with so many bytes of payload came.
    pub(super) fn add(&mut self, now: Instant, facts: &PayloadFacts, bytes: usize) {
        if self.marks[1].is_none() {
            self.mark(now);
        }
        let place = |layer: Option<u8>, most: usize| usize::from(layer.unwrap_or(0)).min(most - 1);
        let spatial = place(facts.spatial_layer, SPATIAL_LAYERS);
        self.bytes[spatial][place(facts.temporal_layer, TEMPORAL_LAYERS)] += bytes as u64;
    }

    /// Looked at now and then: what is longer ago is forgotten.
    pub(super) fn mark(&mut self, now: Instant) {
        if self.marks[1].is_none_or(|last| now >= last.at + MARKS) {
            self.marks = [self.marks[1], Some(Mark { at: now, bytes: self.bytes })];
        }
    }

    /// Bits per second of each layer; all 0 before enough has come.
    pub(super) fn shares(&self, now: Instant) -> LayerShares {
        let since = self.marks[0].or(self.marks[1]);
        let elapsed = since.map(|mark| now.saturating_duration_since(mark.at)).unwrap_or_default();
        let Some(mark) = since.filter(|_| elapsed >= LEAST_MEASURED) else { return LayerShares::default() };
        let grown = |spatial: usize, at: usize| self.bytes[spatial][at] - mark.bytes[spatial][at];
        let bits_per_second = |spatial, at| grown(spatial, at) * 8_000 / elapsed.as_millis() as u64;
        let of_one = |spatial| TemporalShares(std::array::from_fn(|at| bits_per_second(spatial, at)));
        LayerShares(std::array::from_fn(of_one))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::facts;

    fn offer(layer: usize, shares: [u64; TEMPORAL_LAYERS]) -> LayerOffer {
        spatial_offer(layer, &[shares])
    }

    /// A layer whose spatial layers take this.
    fn spatial_offer(layer: usize, spatial: &[[u64; TEMPORAL_LAYERS]]) -> LayerOffer {
        let of_one = |at: usize| TemporalShares(spatial.get(at).copied().unwrap_or_default());
        let shares = LayerShares(std::array::from_fn(of_one));
        LayerOffer { layer: LayerIndex(layer), bits_per_second: shares.total(), shares }
    }

    fn listed(points: &[OperatingPoint]) -> Vec<(usize, u8, u64)> {
        points.iter().map(|p| (p.choice.layer.0, p.choice.highest.temporal, p.bits_per_second)).collect()
    }

    const ALL: u8 = u8::MAX;

    fn points_of(offers: &[LayerOffer]) -> Points {
        Points::of(offers, ALL, &Points::default())
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

    fn tiers(points: &[OperatingPoint]) -> Vec<(u8, u8, u64)> {
        let highest = |p: &OperatingPoint| (p.choice.highest.spatial, p.choice.highest.temporal, p.bits_per_second);
        points.iter().map(highest).collect()
    }

    #[test]
    fn spatial_layers_are_given_up_one_by_one_and_temporal_ones_before_them() {
        let l3t2 = spatial_offer(0, &[[60, 40, 0, 0], [180, 120, 0, 0], [600, 1000, 0, 0]]);
        let points = points_of(&[l3t2]);
        let expected = [(ALL, ALL, 2000), (ALL, 0, 840), (1, ALL, 400), (1, 0, 240), (0, ALL, 100), (0, 0, 60)];
        assert_eq!(tiers(&points.all), expected);
        assert_eq!(tiers(&points.whole), [(ALL, ALL, 2000)]);
        // Up to a highest one, whether there are more or not.
        assert_eq!(
            tiers(&Points::of(&[l3t2], 1, &points).all),
            [(1, ALL, 400), (1, 0, 240), (0, ALL, 100), (0, 0, 60)]
        );
        assert_eq!(tiers(&Points::of(&[l3t2], 0, &points).all), [(0, ALL, 100), (0, 0, 60)]);
        assert_eq!(tiers(&Points::of(&[offer(0, [100, 0, 0, 0])], 4, &points).all), [(4, ALL, 100)]);
        assert_eq!(tiers(&Points::of(&[LayerOffer::unmeasured(LayerIndex(0))], 1, &points).all), [(1, ALL, 0)]);
        // One that takes next to nothing is none, nor one that does not come.
        let uneven = spatial_offer(0, &[[0; 4], [100, 0, 0, 0], [2, 0, 0, 0], [1000, 0, 0, 0]]);
        assert_eq!(tiers(&points_of(&[uneven]).all), [(ALL, ALL, 1102), (2, ALL, 102)]);
    }

    #[test]
    fn a_layer_that_takes_hardly_anything_is_not_worth_a_point() {
        let points = points_of(&[offer(0, [500, 470, 30, 0])]);
        assert_eq!(listed(&points.all), [(0, ALL, 1000), (0, 0, 500)]);
    }

    #[test]
    fn a_point_does_not_come_and_go_with_what_wavers() {
        let listed = |temporal: u64, next: u64, before: &Points| {
            let points =
                Points::of(&[offer(1, [temporal, 1000 - temporal, 0, 0]), offer(0, [next, 0, 0, 0])], ALL, before);
            (
                points
                    .all
                    .iter()
                    .any(|point| point.choice == Choice { layer: LayerIndex(1), highest: Highest::temporal(0) }),
                points,
            )
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
        let said = PayloadFacts {
            temporal_layer: Some(2),
            spatial_layer: Some(1),
            ..facts(Codec::Vp8, &[0x90, 0x20, 0xa0, 0x51])
        };
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
            assert_eq!(checked.spatial_layer.is_some(), believed, "{codec}");
            let PayloadFacts { temporal_layer, spatial_layer, climb, .. } = said;
            assert_eq!(PayloadFacts { temporal_layer, spatial_layer, climb, ..checked }, said);
        }
        let lower = PayloadFacts { temporal_layer: Some(1), ..said };
        assert_eq!(layering.check(Codec::Vp9, at(0, 8), false, lower), lower, "another frame");
        let none = PayloadFacts { temporal_layer: None, ..said };
        assert_eq!(layering.check(Codec::Vp9, at(0, 8), false, none), none);
        let mixed = [8, 9].map(|time| layering.check(Codec::Vp9, at(0, time), false, said));
        assert_eq!(mixed.map(|said| said.temporal_layer), [None; 2], "two of one time, and from then on");
        assert_eq!(mixed.map(|said| said.spatial_layer), [Some(1); 2]);
        assert_eq!(layering.check(Codec::Vp9, at(1, 9), false, said), said, "another publisher");
    }

    #[test]
    fn shares_are_of_the_last_one_to_two_seconds() {
        let (mut rates, start) = (LayerRates::default(), Instant::now());
        let none = LayerShares::default();
        assert_eq!(rates.shares(start), none);
        // A hundred packets a second, half of them of the base layer; the highest comes for four seconds.
        for n in 0..1000_u64 {
            let now = start + Duration::from_millis(10 * n);
            rates.mark(now);
            let layer = [Some(0), Some(1), None, Some(9)][n as usize % 4].filter(|layer| *layer < 9 || n < 400);
            if layer.is_some() || n % 4 == 2 {
                rates.add(now, &PayloadFacts { temporal_layer: layer, ..PayloadFacts::default() }, 1000);
            }
            if n == 10 {
                assert_eq!(rates.shares(now), none, "too early");
            }
            let shares = rates.shares(now).0[0].0.map(|share| share / 10_000);
            match n {
                399 => assert_eq!(shares, [40, 20, 0, 20]),
                700 => assert_eq!(shares, [40, 20, 0, 0]),
                _ => {}
            }
        }
        assert_eq!(
            rates.shares(start + Duration::from_secs(3600)).up_to(0).highest(),
            1,
            "and of longer if nobody looks"
        );
    }

    proptest! {
        #[test]
        fn every_layer_is_there_as_a_whole_and_fewer_temporal_layers_take_less(
            shares in prop::collection::vec(prop::array::uniform4(0_u64..2_000_000), 0..4),
        ) {
            let offers: Vec<LayerOffer> = shares.iter().enumerate().map(|(n, shares)| offer(n, *shares)).collect();
            let points = points_of(&offers);
            let whole: Vec<_> = points.all.iter().filter(|p| p.choice.highest.temporal == ALL).copied().collect();
            prop_assert_eq!(&whole, &points.whole);
            for pair in points.all.windows(2).filter(|pair| pair[1].choice.highest.temporal != ALL) {
                prop_assert!(pair[1].bits_per_second < pair[0].bits_per_second);
                prop_assert_eq!(pair[1].choice.layer, pair[0].choice.layer);
            }
        }
    }
}

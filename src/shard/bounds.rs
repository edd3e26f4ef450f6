//! How high players may go, and what there is for those who share a highest layer.
//!
//! Pure: the layers of a publisher in, points to choose from and counts of what was offered out. A highest layer is a place
//! in the order of all of them, whether they come or not: who may have the two least ones is not given the third while one
//! of the two is silent. It is looked at where the layers change and where a player's is chosen, never at a packet to a
//! player. Of a publisher of one encoding, it is a place in the order of that one's spatial layers.

use crate::config::MaxLayer;
use crate::fanout::ALL_SPATIAL_LAYERS;
use crate::qos::Offered;

use super::message::{LayerIndex, LayerOffer};
use super::points::Points;

/// Which of a table's bounds a player has; the first, which is none, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BoundId(u8);

/// The bounds of a table's players. They stay as long as the table, of which there are at most as many as places.
#[derive(Debug)]
pub(super) struct Bounds {
    all: Vec<Bound>,
    /// All layers of the publisher, from the least to the best. Empty before anything is known of them.
    order: Vec<LayerIndex>,
    /// A layer of theirs may have several spatial layers.
    has_spatial: bool,
}

/// What there is up to a highest layer.
#[derive(Debug)]
struct Bound {
    highest: Option<MaxLayer>,
    best: LayerIndex,
    points: Points,
    /// The highest spatial layer of a player's layer.
    spatial: u8,
    offered: Offered,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { all: vec![Bound::of(None)], order: Vec::new(), has_spatial: false }
    }
}

impl Bounds {
    /// The bound of a player that is given no layer above `highest`, where `offers` come now.
    pub(super) fn of(&mut self, highest: Option<MaxLayer>, offers: &[LayerOffer]) -> BoundId {
        // The highest place there is bounds nothing.
        let highest = highest.filter(|highest| highest.place() < MaxLayer::HIGHEST.into());
        let known = self.all.iter().position(|bound| bound.highest == highest);
        let at = known.unwrap_or(self.all.len());
        if known.is_none() {
            let mut bound = Bound::of(highest);
            bound.take(offers, &self.order, self.has_spatial);
            self.all.push(bound);
        }
        BoundId(at as u8)
    }

    /// These layers come, the best first, of those in `order`, from the least to the best. Returns whether the order is
    /// new.
    pub(super) fn take(&mut self, offers: &[LayerOffer], order: &[LayerIndex]) -> bool {
        let is_new = self.order != order;
        self.order.clear();
        self.order.extend_from_slice(order);
        let has_spatial = self.has_spatial;
        self.all.iter_mut().for_each(|bound| bound.take(offers, order, has_spatial));
        is_new
    }

    /// Whether the layers of the publisher may have several spatial layers each, by their codec.
    pub(super) fn expect_spatial_layers(&mut self, may_have: bool) {
        self.has_spatial = may_have;
    }

    /// Nothing comes any more, and what comes next is another publication's.
    pub(super) fn forget_layers(&mut self) {
        self.take(&[], &[]);
    }

    /// All layers of the publisher, from the least to the best.
    pub(super) fn order(&self) -> &[LayerIndex] {
        &self.order
    }

    /// The best layer that comes, for a player of this bound; where none of its layers comes, the one that it waits
    /// for.
    pub(super) fn best(&self, id: BoundId) -> LayerIndex {
        self.bound(id).best
    }

    /// Whether a player of this bound may have the layer.
    pub(super) fn allows(&self, id: BoundId, layer: LayerIndex) -> bool {
        self.bound(id).allows(&self.order, layer)
    }

    /// The highest spatial layer that a player of this bound may have of its layer.
    pub(super) fn highest_spatial(&self, id: BoundId) -> u8 {
        self.bound(id).spatial
    }

    /// Whether there is more than one layer for a player of this bound, when all come.
    pub(super) fn has_several(&self, id: BoundId) -> bool {
        self.bound(id).within(&self.order).len() > 1
    }

    /// What there is to choose from.
    pub(super) fn points(&self, id: BoundId) -> &Points {
        &self.bound(id).points
    }

    /// A packet of a layer came, and maybe the first of a frame.
    pub(super) fn count(&mut self, layer: LayerIndex, spatial: Option<u8>, bytes: usize, begins_frame: bool) {
        for bound in self.all.iter_mut().filter(|bound| bound.best == layer) {
            let is_above = spatial > Some(bound.spatial);
            bound.offered.bytes += if is_above { 0 } else { bytes as u64 };
            bound.offered.frames += u64::from(begins_frame);
        }
    }

    /// What every player of this bound was offered by now: the best layer that it may have.
    pub(super) fn offered(&self, id: BoundId) -> Offered {
        self.bound(id).offered
    }

    fn bound(&self, BoundId(at): BoundId) -> &Bound {
        &self.all[usize::from(at)]
    }
}

impl Bound {
    fn of(highest: Option<MaxLayer>) -> Self {
        let (best, points, offered) = (LayerIndex::default(), Points::default(), Offered::default());
        Self { highest, best, points, spatial: ALL_SPATIAL_LAYERS, offered }
    }

    fn take(&mut self, offers: &[LayerOffer], order: &[LayerIndex], has_spatial: bool) {
        let is_place = has_spatial && order.len() == 1;
        let place = self.highest.filter(|_| is_place).map(|highest| highest.place() as u8);
        self.spatial = place.unwrap_or(ALL_SPATIAL_LAYERS);
        let allowed = offers.iter().filter(|offer| self.allows(order, offer.layer));
        let allowed: Vec<LayerOffer> = allowed.copied().collect();
        let awaited = self.within(order).last().copied().unwrap_or_default();
        self.best = allowed.first().map_or(awaited, |offer| offer.layer);
        self.points = Points::of(&allowed, self.spatial, &self.points);
    }

    fn allows(&self, order: &[LayerIndex], layer: LayerIndex) -> bool {
        self.highest.is_none() || order.is_empty() || self.within(order).contains(&layer)
    }

    /// The layers up to the highest.
    fn within<'a>(&self, order: &'a [LayerIndex]) -> &'a [LayerIndex] {
        let count = self.highest.map_or(order.len(), |highest| order.len().min(highest.place() + 1));
        &order[..count]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::{LayerShares, TemporalShares};
    use super::*;
    use crate::fanout::ALL_TEMPORAL_LAYERS;
    use crate::media::Codec;
    use crate::shard::testing::class;

    /// Three layers of an offer from large to small, which take 2,000, 500 and 100 bits a second.
    const ORDER: [LayerIndex; 3] = [LayerIndex(2), LayerIndex(1), LayerIndex(0)];

    fn offer(layer: usize) -> LayerOffer {
        let base = [2000, 500, 100][layer];
        LayerOffer {
            layer: LayerIndex(layer),
            bits_per_second: base,
            shares: LayerShares::of_one(TemporalShares([base / 2, base / 2, 0, 0])),
        }
    }

    fn listed(bounds: &Bounds, id: BoundId) -> Vec<(usize, u8)> {
        let points = bounds.points(id).for_class(Codec::Vp8, &class());
        points.iter().map(|point| (point.choice.layer.0, point.choice.highest.temporal)).collect()
    }

    const ALL: u8 = ALL_TEMPORAL_LAYERS;

    #[test]
    fn there_is_nothing_above_a_bound_whatever_comes() {
        let mut bounds = Bounds::default();
        let early = bounds.of(MaxLayer::new(1), &[]);
        assert!(bounds.allows(early, LayerIndex(0)), "nothing is known of any");
        assert!(bounds.take(&[offer(0), offer(1), offer(2)], &ORDER));
        assert!(!bounds.take(&[offer(0), offer(1), offer(2)], &ORDER), "that is no news");
        let least = bounds.of(MaxLayer::new(0), &[offer(0), offer(1), offer(2)]);
        let none = bounds.of(None, &[]);
        assert_eq!(listed(&bounds, none), [(0, ALL), (0, 0), (1, ALL), (1, 0), (2, ALL), (2, 0)]);
        assert_eq!(listed(&bounds, early), [(1, ALL), (1, 0), (2, ALL), (2, 0)], "with their temporal layers");
        assert_eq!(listed(&bounds, least), [(2, ALL), (2, 0)]);
        assert_eq!([none, early, least].map(|id| bounds.has_several(id)), [true, true, false]);
        assert_eq!([0, 1, 2].map(|layer| bounds.allows(early, LayerIndex(layer))), [false, true, true]);

        bounds.take(&[offer(0)], &ORDER);
        assert_eq!((listed(&bounds, early), bounds.best(early)), (vec![], LayerIndex(1)), "the one that it waits for");
        assert_eq!((listed(&bounds, least), bounds.best(least)), (vec![], LayerIndex(2)));
        bounds.forget_layers();
        assert_eq!((bounds.best(early), bounds.order()), (LayerIndex(0), &[][..]));
    }

    #[test]
    fn what_a_player_was_offered_is_the_best_that_it_may_have() {
        let mut bounds = Bounds::default();
        let (none, least) = (bounds.of(None, &[]), bounds.of(MaxLayer::new(0), &[]));
        bounds.take(&[offer(0), offer(2)], &ORDER);
        for frame in 0..60 {
            bounds.count(LayerIndex(0), None, 1000, true);
            if frame % 2 == 0 {
                bounds.count(LayerIndex(2), None, 100, true);
            }
        }
        assert_eq!(bounds.offered(none), Offered { frames: 60, bytes: 60_000 });
        assert_eq!(bounds.offered(least), Offered { frames: 30, bytes: 3000 });
        bounds.take(&[offer(0)], &ORDER);
        bounds.count(LayerIndex(0), None, 1000, true);
        assert_eq!(bounds.offered(least).frames, 30, "nothing, while nothing comes that it may have");
    }

    #[test]
    fn of_the_only_encoding_spatial_layers_are_counted() {
        let mut bounds = Bounds::default();
        let (none, least) = (bounds.of(None, &[]), bounds.of(MaxLayer::new(0), &[]));
        let highest = |bounds: &Bounds| [none, least].map(|id| bounds.highest_spatial(id));
        bounds.take(&[offer(0)], &ORDER[2..]);
        assert_eq!(highest(&bounds), [ALL, ALL], "of a codec without any");
        bounds.expect_spatial_layers(true);
        bounds.take(&[offer(0)], &ORDER[2..]);
        assert_eq!(highest(&bounds), [ALL, 0]);
        let late = bounds.of(MaxLayer::new(1), &[offer(0)]);
        assert_eq!(bounds.highest_spatial(late), 1);
        for spatial in 0..3 {
            bounds.count(LayerIndex(0), Some(spatial), 100, spatial == 0);
        }
        let offered = [none, late, least].map(|id| bounds.offered(id));
        assert_eq!(offered, [300, 200, 100].map(|bytes| Offered { frames: 1, bytes }));
        assert!(bounds.allows(least, LayerIndex(0)) && !bounds.has_several(none));
        bounds.take(&[offer(0), offer(2)], &ORDER);
        assert_eq!(highest(&bounds), [ALL, ALL], "layers of a simulcast are");
    }

    #[test]
    fn players_of_a_kind_share_a_bound() {
        let mut bounds = Bounds::default();
        let all: Vec<BoundId> = (0..=u8::MAX).map(|place| bounds.of(MaxLayer::new(place), &[])).collect();
        assert_eq!(bounds.all.len(), usize::from(MaxLayer::HIGHEST) + 1);
        assert_eq!(bounds.of(MaxLayer::new(3), &[]), all[3]);
        assert_eq!(all[usize::from(MaxLayer::HIGHEST)], BoundId::default(), "of the most layers that there can be");
    }

    proptest! {
        /// Whatever comes, in whatever order: what there is to choose from is the part of all points up to the bound.
        #[test]
        fn a_bound_takes_layers_away_and_nothing_else(
            order in Just(vec![0_usize, 1, 2]).prop_shuffle(),
            comes in prop::collection::vec(any::<bool>(), 3),
            place in 0..=MaxLayer::HIGHEST,
        ) {
            let order: Vec<LayerIndex> = order.into_iter().map(LayerIndex).collect();
            let coming = order.iter().rev().filter(|layer| comes[layer.0]);
            let offers: Vec<LayerOffer> = coming.map(|layer| offer(layer.0)).collect();
            let mut bounds = Bounds::default();
            bounds.take(&offers, &order);
            let id = bounds.of(MaxLayer::new(place), &offers);
            let within = &order[..order.len().min(usize::from(place) + 1)];
            let is_whole = |point: &(usize, u8)| point.1 == ALL;
            let whole = |id| listed(&bounds, id).into_iter().filter(is_whole).map(|point| LayerIndex(point.0));
            let expected: Vec<LayerIndex> = whole(BoundId::default()).filter(|layer| within.contains(layer)).collect();
            prop_assert_eq!(whole(id).collect::<Vec<_>>(), expected);
            prop_assert!(bounds.allows(id, bounds.best(id)));
        }
    }
}

//! What comes of one track of a publisher on its way into the ring, at the table's home.

use crate::media::{Codec, DescriptorNumbers, DescriptorReader, PacketPool, ParameterSets, SpatialTies, Timeline};

use super::capture_times::CaptureTimes;
use super::points::{LayerRates, Layering};

/// How a publisher's numbers become the track's. Outlives the track: a table that begins anew goes on above all numbers it
/// ever used.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) timeline: Timeline,
    pub(super) pool: PacketPool,
    /// For keyframes of H.264 and H.265 that come without them.
    pub(super) parameter_sets: ParameterSets,
    pub(super) descriptors: DescriptorNumbers,
    pub(super) descriptor_reader: DescriptorReader,
    pub(super) ties: SpatialTies,
    pub(super) layering: Layering,
    /// What its spatial and temporal layers take.
    pub(super) rates: LayerRates,
    pub(super) capture_times: CaptureTimes,
    ring_packets: usize,
}

impl Source {
    pub(super) fn new(codec: Codec, ring_packets: usize) -> Self {
        Self {
            timeline: Timeline::new(codec.clock_rate()),
            pool: PacketPool::new(pool_size(ring_packets)),
            parameter_sets: ParameterSets::new(codec),
            descriptors: DescriptorNumbers::default(),
            descriptor_reader: DescriptorReader::default(),
            ties: SpatialTies::default(),
            layering: Layering::default(),
            rates: LayerRates::default(),
            capture_times: CaptureTimes::default(),
            ring_packets,
        }
    }

    /// The track is over: frees its memory.
    pub(super) fn rest(&mut self) {
        self.pool = PacketPool::new(pool_size(self.ring_packets));
    }
}

/// Rings of other shards hold a packet a little longer than ours.
fn pool_size(ring_packets: usize) -> usize {
    ring_packets + ring_packets / 4
}

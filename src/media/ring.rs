//! The recent past of a track: for joiners, for retransmission, for whoever reads it later.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Packet;

/// Keyframes remembered as candidates for a join: more than one, since the newest may be incomplete for a while.
const KEYFRAMES: usize = 8;

/// What [`PacketRing::insert`] did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Kept; it follows the newest one, or is the first of the ring or of an epoch.
    Next,
    /// Kept as the newest; before it, packets have not come yet.
    Gap {
        /// How many: the indexes just below the packet's own.
        missing: u64,
    },
    /// Kept; a newer one came before.
    Late,
    /// Dropped: the ring has a packet with this index.
    Duplicate,
    /// Dropped: the ring is beyond it, or it belongs to an epoch that is over.
    TooOld,
}

/// A fixed number of slots for the newest packets of one track and epoch, found by index.
///
/// The ring of another shard is built by inserting clones of the same packets. Getters change nothing, `insert` is
/// constant in time but for gaps, of which each missing index costs a slot to be cleared, at most the ring's length.
#[derive(Debug)]
pub struct PacketRing {
    slots: Box<[Option<Arc<Packet>>]>,
    /// One past the newest index; 0 while empty.
    head: u64,
    /// The lowest index inserted in this epoch; the ring may be beyond it.
    lowest: u64,
    epoch: u32,
    /// A packet of each of the newest keyframes, by index; those without parameter sets included.
    keyframes: VecDeque<Keyframe>,
}

#[derive(Clone, Copy, Debug)]
struct Keyframe {
    index: u64,
    timestamp: u32,
}

impl PacketRing {
    /// An empty ring of `slots` packets.
    ///
    /// # Panics
    /// If `slots` is not a power of two.
    pub fn new(slots: usize) -> Self {
        assert!(slots.is_power_of_two(), "{slots} slots are not a power of two");
        Self {
            slots: vec![None; slots].into_boxed_slice(),
            head: 0,
            lowest: 0,
            epoch: 0,
            keyframes: VecDeque::with_capacity(KEYFRAMES),
        }
    }

    /// Keeps `packet`, and lets go of those it displaces. A packet of a new epoch displaces all: they belong to
    /// another source, and none of them helps to decode it.
    pub fn insert(&mut self, packet: Arc<Packet>) -> Inserted {
        let index = packet.index;
        if self.is_empty() || is_later_epoch(packet.epoch, self.epoch) {
            self.begin(packet.epoch, index);
        } else if packet.epoch != self.epoch {
            return Inserted::TooOld;
        }
        let inserted = if index >= self.head {
            self.advance(index)
        } else if self.head - index > self.capacity() {
            return Inserted::TooOld;
        } else if self.get(index).is_some() {
            return Inserted::Duplicate;
        } else {
            Inserted::Late
        };
        self.lowest = self.lowest.min(index);
        if packet.facts.keyframe {
            self.remember(Keyframe { index, timestamp: packet.timestamp });
        }
        let slot = self.slot(index);
        self.slots[slot] = Some(packet);
        inserted
    }

    /// The packet with this index.
    pub fn get(&self, index: u64) -> Option<&Arc<Packet>> {
        self.slots[self.slot(index)].as_ref().filter(|packet| packet.index == index)
    }

    /// One past the newest index, 0 while the ring is empty.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The oldest index that the ring holds; equal to [`PacketRing::head`] while it is empty.
    pub fn oldest(&self) -> u64 {
        let start = self.lowest.max(self.head.saturating_sub(self.capacity()));
        (start..self.head).find(|index| self.get(*index).is_some()).unwrap_or(self.head)
    }

    /// The epoch of every packet in the ring.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number of slots.
    pub fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    /// No packet was ever inserted.
    pub fn is_empty(&self) -> bool {
        self.head == 0
    }

    /// Whether the packets just before `index`, as far as they have this timestamp, carry parameter sets.
    pub fn has_parameter_sets_before(&self, index: u64, timestamp: u32) -> bool {
        let frame = (0..index).rev().map_while(|index| self.get(index).filter(|packet| packet.timestamp == timestamp));
        frame.into_iter().any(|packet| packet.facts.parameter_sets)
    }

    /// Where a joiner starts: the first packet of the newest keyframe that is complete, with its parameter sets and all
    /// that leads them (H.264 AUD, SEI). `None` if the ring holds none, so also where the group of pictures is longer
    /// than the ring.
    ///
    /// Packets missing *behind* that keyframe do not disqualify it. Usually they are only late, and the joiner gets
    /// them when they come, as everybody does. If they are lost, an older keyframe would not help either: its own group
    /// of pictures ends in the newer one, and whoever decodes that meets the same loss.
    pub fn gop_start(&self) -> Option<u64> {
        self.keyframes.iter().rev().find_map(|keyframe| {
            let start = self.joinable_from(keyframe)?;
            self.is_complete_from(keyframe).then_some(start)
        })
    }

    fn begin(&mut self, epoch: u32, index: u64) {
        self.slots.fill(None);
        self.keyframes.clear();
        self.epoch = epoch;
        self.head = index;
        self.lowest = index;
    }

    /// Moves the head past `index`, clearing the slots of what will be missing.
    fn advance(&mut self, index: u64) -> Inserted {
        let missing = index - self.head;
        for skipped in self.head.max(index.saturating_sub(self.capacity()))..index {
            let slot = self.slot(skipped);
            self.slots[slot] = None;
        }
        self.head = index + 1;
        if missing == 0 { Inserted::Next } else { Inserted::Gap { missing } }
    }

    /// Notes a packet of a keyframe unless its frame is noted already; forgets the oldest.
    fn remember(&mut self, keyframe: Keyframe) {
        let at = self.keyframes.partition_point(|other| other.index < keyframe.index);
        let is_same_frame =
            |neighbour: usize| self.keyframes.get(neighbour).is_some_and(|other| other.timestamp == keyframe.timestamp);
        if is_same_frame(at) || at.checked_sub(1).is_some_and(is_same_frame) {
            return;
        }
        if self.keyframes.len() < KEYFRAMES {
            self.keyframes.insert(at, keyframe);
        } else if at > 0 {
            self.keyframes.pop_front();
            self.keyframes.insert(at - 1, keyframe);
        }
    }

    /// The first packet of the run that leads to `keyframe` within its frame, if the run has the parameter sets.
    ///
    /// Whether packets are missing before the run does not matter: what stands before the parameter sets is not needed.
    fn joinable_from(&self, keyframe: &Keyframe) -> Option<u64> {
        let mut start = None;
        let mut has_parameter_sets = false;
        for index in (0..=keyframe.index).rev() {
            let Some(packet) = self.get(index).filter(|packet| packet.timestamp == keyframe.timestamp) else { break };
            has_parameter_sets |= packet.facts.parameter_sets;
            start = Some(index);
        }
        start.filter(|_| has_parameter_sets)
    }

    /// Whether everything from `keyframe` to the end of its frame is there: to the marker or to another timestamp.
    fn is_complete_from(&self, keyframe: &Keyframe) -> bool {
        (keyframe.index..self.head)
            .map_while(|index| self.get(index))
            .any(|packet| packet.timestamp != keyframe.timestamp || packet.marker)
    }

    fn slot(&self, index: u64) -> usize {
        (index & (self.capacity() - 1)) as usize
    }
}

/// Whether epoch `a` follows `b`; the counter may wrap.
fn is_later_epoch(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::media::{ClearPacket, Codec, Position, facts};

    fn packet(epoch: u32, index: u64, timestamp: u32, marker: bool, payload: &[u8]) -> Arc<Packet> {
        let clear = ClearPacket {
            position: Position { epoch, index, timestamp },
            marker,
            facts: facts(Codec::H264, payload),
            arrival: Instant::now(),
            capture: None,
            dependency_descriptor: &[],
            payload,
        };
        Arc::new(Packet::new(&clear).expect("short"))
    }

    const AUD: &[u8] = &[0x09, 0xf0];
    const SEI: &[u8] = &[0x06, 0x05];
    const SPS: &[u8] = &[0x67, 0x42];
    const PPS: &[u8] = &[0x68, 0xce];
    const IDR: &[u8] = &[0x65, 0x88];
    const IDR_REST: &[u8] = &[0x65, 0x08];
    const STAP_A: &[u8] = &[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce, 0, 2, 0x65, 0x88];
    const SLICE: &[u8] = &[0x41, 0x9a];

    /// Frames of payloads, each with its own timestamp and a marker at its end, indexes from 100.
    fn stream(frames: &[&[&[u8]]]) -> Vec<Arc<Packet>> {
        let mut packets = Vec::new();
        for (n, frame) in frames.iter().enumerate() {
            for (at, payload) in frame.iter().enumerate() {
                let index = 100 + packets.len() as u64;
                packets.push(packet(0, index, 3000 * n as u32, at + 1 == frame.len(), payload));
            }
        }
        packets
    }

    fn ring_of(slots: usize, packets: &[Arc<Packet>], missing: &[u64]) -> PacketRing {
        let mut ring = PacketRing::new(slots);
        for packet in packets.iter().filter(|packet| !missing.contains(&packet.index)) {
            ring.insert(Arc::clone(packet));
        }
        ring
    }

    #[test]
    fn what_insert_says() {
        let mut ring = PacketRing::new(8);
        let mut insert = |epoch, index| ring.insert(packet(epoch, index, 0, false, SLICE));
        assert_eq!(insert(0, 100), Inserted::Next);
        assert_eq!(insert(0, 101), Inserted::Next);
        assert_eq!(insert(0, 104), Inserted::Gap { missing: 2 });
        assert_eq!(insert(0, 102), Inserted::Late);
        assert_eq!(insert(0, 102), Inserted::Duplicate);
        assert_eq!(insert(0, 99), Inserted::Late, "overtaken by the first of all");
        assert_eq!(insert(0, 97), Inserted::Late, "the oldest slot");
        assert_eq!(insert(0, 96), Inserted::TooOld);
        assert_eq!(insert(1, 70_000), Inserted::Next, "a new epoch misses nothing");
        assert_eq!(insert(0, 105), Inserted::TooOld);
        assert_eq!(ring.oldest()..ring.head(), 70_000..70_001);
        assert!(ring.get(104).is_none());
    }

    #[test]
    fn a_jump_lets_go_of_everything() {
        let first = packet(0, 100, 0, false, SLICE);
        let mut ring = PacketRing::new(4);
        ring.insert(Arc::clone(&first));
        assert_eq!(ring.insert(packet(0, 40_000, 0, false, SLICE)), Inserted::Gap { missing: 39_899 });
        assert_eq!(Arc::strong_count(&first), 1);
        assert_eq!(ring.oldest(), 40_000);
    }

    #[test]
    fn an_empty_ring_has_nothing() {
        let ring = PacketRing::new(4);
        assert!(ring.is_empty() && ring.get(0).is_none() && ring.gop_start().is_none());
        assert_eq!((ring.oldest(), ring.head()), (0, 0));
    }

    #[test]
    fn joiners_start_where_the_keyframe_starts() {
        let cases: [(&str, &[&[u8]]); 5] = [
            ("one STAP-A", &[STAP_A, IDR_REST]),
            ("separate packets", &[SPS, PPS, IDR, IDR_REST]),
            ("led by a delimiter", &[AUD, SPS, PPS, IDR]),
            ("led by SEI", &[SEI, SPS, PPS, SEI, IDR]),
            ("a STAP-A of parameter sets", &[&STAP_A[..9], IDR]),
        ];
        for (name, keyframe) in cases {
            let packets = stream(&[&[SLICE], keyframe, &[SLICE, SLICE]]);
            assert_eq!(ring_of(64, &packets, &[]).gop_start(), Some(101), "{name}");
        }
    }

    #[test]
    fn an_idr_without_parameter_sets_is_no_join_point() {
        let packets = stream(&[&[SLICE], &[IDR, IDR_REST], &[SLICE]]);
        assert_eq!(ring_of(64, &packets, &[]).gop_start(), None);
        let packets = stream(&[&[SPS, PPS], &[IDR], &[SLICE]]);
        assert_eq!(ring_of(64, &packets, &[]).gop_start(), None, "parameter sets of another frame");
        let packets = stream(&[&[SPS, PPS, SLICE], &[SLICE]]);
        assert_eq!(ring_of(64, &packets, &[]).gop_start(), None, "parameter sets without an IDR");
    }

    #[test]
    fn an_incomplete_keyframe_leaves_the_one_before() {
        let packets = stream(&[&[SPS, PPS, IDR], &[SLICE], &[SPS, PPS, IDR, IDR_REST], &[SLICE]]);
        assert_eq!(ring_of(64, &packets, &[]).gop_start(), Some(104));
        for missing in 105..=107 {
            assert_eq!(ring_of(64, &packets, &[missing]).gop_start(), Some(100), "without {missing}");
        }
        assert_eq!(ring_of(64, &packets[..7], &[]).gop_start(), Some(100), "still arriving");
        let mut ring = ring_of(64, &packets, &[106]);
        assert_eq!(ring.insert(Arc::clone(&packets[6])), Inserted::Late);
        assert_eq!(ring.gop_start(), Some(104), "completed by a late packet");
    }

    #[test]
    fn a_keyframe_of_many_slices_does_not_crowd_out_the_one_before() {
        let mut large = vec![SPS, PPS, IDR];
        large.extend([IDR_REST; 20]);
        let packets = stream(&[&[STAP_A], &[SLICE], &large]);
        assert_eq!(ring_of(64, &packets[..24], &[]).gop_start(), Some(100));
        assert_eq!(ring_of(64, &packets, &[]).gop_start(), Some(102));
    }

    #[test]
    fn a_loss_behind_the_keyframe_does_not_disqualify_it() {
        let packets = stream(&[&[STAP_A], &[SLICE], &[STAP_A], &[SLICE], &[SLICE]]);
        assert_eq!(ring_of(64, &packets, &[103]).gop_start(), Some(102));
        assert_eq!(ring_of(64, &packets, &[101]).gop_start(), Some(102));
    }

    #[test]
    fn a_changed_timestamp_ends_a_keyframe_without_marker() {
        let unmarked: Vec<_> = stream(&[&[STAP_A, IDR_REST], &[SLICE]])
            .iter()
            .map(|p| packet(0, p.index, p.timestamp, false, p.payload()))
            .collect();
        assert_eq!(ring_of(64, &unmarked[..2], &[]).gop_start(), None, "its end is not known yet");
        assert_eq!(ring_of(64, &unmarked, &[]).gop_start(), Some(100));
    }

    #[test]
    fn a_group_of_pictures_longer_than_the_ring_is_no_join() {
        let mut frames: Vec<&[&[u8]]> = vec![&[SPS, PPS, IDR]];
        frames.extend([&[SLICE][..]; 6]);
        let packets = stream(&frames);
        assert_eq!(ring_of(8, &packets[..8], &[]).gop_start(), Some(100));
        assert_eq!(ring_of(8, &packets, &[]).gop_start(), None, "the SPS has left");
    }

    #[test]
    fn only_keyframes_count_however_many_there_were() {
        let packets = stream(&[&[STAP_A] as &[&[u8]]; 30]);
        assert_eq!(ring_of(64, &packets, &[]).gop_start(), Some(129));
        let mut backwards = PacketRing::new(64);
        backwards.insert(Arc::clone(&packets[29]));
        for packet in packets.iter().rev().skip(1) {
            assert_eq!(backwards.insert(Arc::clone(packet)), Inserted::Late);
        }
        assert_eq!(backwards.gop_start(), Some(129));
    }

    /// The ring as it is meant: every packet of the epoch that is within `slots` of the newest.
    #[derive(Default)]
    struct Model {
        epoch: u32,
        packets: BTreeMap<u64, Arc<Packet>>,
    }

    impl Model {
        fn insert(&mut self, slots: u64, packet: &Arc<Packet>) -> Inserted {
            if !self.packets.is_empty() && packet.epoch < self.epoch {
                return Inserted::TooOld;
            }
            if packet.epoch > self.epoch {
                self.packets.clear();
                self.epoch = packet.epoch;
            }
            let newest = self.packets.keys().next_back().copied();
            if newest.is_some_and(|newest| packet.index + slots <= newest) {
                return Inserted::TooOld;
            }
            if self.packets.contains_key(&packet.index) {
                return Inserted::Duplicate;
            }
            self.packets.insert(packet.index, Arc::clone(packet));
            let head = self.packets.keys().next_back().map_or(0, |newest| newest + 1);
            self.packets.retain(|index, _| index + slots >= head);
            match newest {
                None => Inserted::Next,
                Some(newest) if packet.index < newest => Inserted::Late,
                Some(newest) if packet.index == newest + 1 => Inserted::Next,
                Some(newest) => Inserted::Gap { missing: packet.index - newest - 1 },
            }
        }

        /// Slow and plain: looks at every frame from the newest.
        fn gop_start(&self) -> Option<u64> {
            let head = self.packets.keys().next_back()? + 1;
            let mut frames: Vec<(u64, u64)> = Vec::new();
            for packet in self.packets.values() {
                match frames.last_mut() {
                    Some((_, end))
                        if *end == packet.index && self.packets[&(*end - 1)].timestamp == packet.timestamp =>
                    {
                        *end += 1;
                    }
                    _ => frames.push((packet.index, packet.index + 1)),
                }
            }
            frames.into_iter().rev().find_map(|(start, end)| {
                let run = || self.packets.range(start..end).map(|(_, packet)| packet);
                let sps = run().position(|packet| packet.facts.parameter_sets)?;
                run().skip(sps).find(|packet| packet.facts.keyframe)?;
                let ended = run().next_back()?.marker || end < head && self.packets.contains_key(&end);
                ended.then_some(start)
            })
        }
    }

    proptest! {
        #[test]
        fn the_ring_is_its_model(
            start in prop_oneof![Just(65_536u64 - 40), 1u64..200_000],
            moves in prop::collection::vec((prop_oneof![9 => -20i64..24, 1 => -100i64..200], 0u32..100), 1..200),
        ) {
            let (mut ring, mut model) = (PacketRing::new(16), Model::default());
            let (mut at, mut epoch) = (start + 200, 0);
            for (step, dice) in moves {
                if dice == 0 {
                    epoch += 1;
                    at += 70_000;
                }
                let index = at.saturating_add_signed(step);
                at = at.max(index);
                let epoch = if dice == 1 { epoch.max(1) - 1 } else { epoch };
                let packet = packet(epoch, index, 0, false, &index.to_be_bytes());
                prop_assert_eq!(ring.insert(Arc::clone(&packet)), model.insert(16, &packet));

                let held = || (ring.oldest()..ring.head()).filter_map(|index| ring.get(index));
                let indexes: Vec<u64> = held().map(|packet| packet.index).collect();
                prop_assert!(indexes.iter().eq(model.packets.keys()));
                prop_assert!(held().zip(model.packets.values()).all(|(held, meant)| Arc::ptr_eq(held, meant)));
                prop_assert_eq!(ring.oldest(), indexes[0]);
            }
        }

        #[test]
        fn joiners_start_where_the_model_says(
            choices in prop::collection::vec(0usize..5, 1..40),
            priorities in prop::collection::vec((0usize..6, 0u8..12), 400),
        ) {
            const FILLER: &[&[u8]] = &[SLICE; 3];
            let keyframes: [&[&[u8]]; 3] = [&[STAP_A, IDR_REST], &[AUD, SPS, PPS, IDR, IDR_REST], &[IDR]];
            // With three packets between keyframes, no more of them fit the ring than it remembers.
            let frames: Vec<&[&[u8]]> = choices
                .iter()
                .flat_map(|choice| [Some(FILLER), keyframes.get(*choice).copied()])
                .flatten()
                .collect();
            let packets = stream(&frames);
            let mut order: Vec<usize> = (0..packets.len()).collect();
            order.sort_by_key(|at| at + priorities[*at].0);
            let (mut ring, mut model) = (PacketRing::new(32), Model::default());
            for at in order {
                // One in twelve is lost.
                if priorities[at].1 != 0 {
                    ring.insert(Arc::clone(&packets[at]));
                    model.insert(32, &packets[at]);
                    prop_assert_eq!(ring.gop_start(), model.gop_start());
                }
            }
        }
    }
}

//! The layers of a publisher's simulcast: one is forwarded, and one may wait with its keyframe to take over.
//!
//! A layer takes over only with a whole keyframe, at the end of a frame of the old one: until then its packets are held
//! here. So no frame is torn, whatever is lost in those moments, and the old layer goes on meanwhile if it still comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::media::{
    ClearPacket, Codec, MediaKind, Packet, PacketPool, PacketRing, PictureSize, Position, facts, picture_size,
};
use crate::rtc::sdp::SimulcastLayer;

use super::core::Shard;
use super::inbound::{Carried, Inbound, LayerIndex};
use super::ingest::Arrival;
use super::layer_choice::{LayerChoice, Seen};

/// Packets held of the layer that is to take over: a keyframe of 600 KB, or some seconds of a small layer.
const HELD_PACKETS: usize = 512;

/// How long a whole keyframe waits for the old layer to end its frame. Longer than a repair takes from a studio nearby.
const PATIENCE: Duration = Duration::from_millis(100);

/// By how much sender reports may contradict the arrivals about the time between two layers. Beyond that they are wrong.
const GREATEST_DISAGREEMENT: Duration = Duration::from_secs(1);

/// The simulcast side of a medium.
#[derive(Debug)]
pub(super) struct Simulcast {
    pub(super) choice: LayerChoice,
    held: Held,
    /// Since when the held keyframe is whole.
    whole_since: Option<Instant>,
}

/// The newest packets of the layer that is to take over.
#[derive(Debug)]
struct Held {
    layer: Option<LayerIndex>,
    /// Counts the times that holding began: the ring forgets what is of an older one.
    epoch: u32,
    /// By the layer's own extended sequence numbers and timestamps.
    ring: PacketRing,
    pool: PacketPool,
}

impl Simulcast {
    pub(super) fn new(layers: &[SimulcastLayer]) -> Self {
        let declared = |layer: &SimulcastLayer| layer.max_picture.map(|(width, height)| PictureSize { width, height });
        Self {
            choice: LayerChoice::new(layers.iter().map(declared)),
            held: Held {
                layer: None,
                epoch: 0,
                ring: PacketRing::new(HELD_PACKETS),
                pool: PacketPool::new(HELD_PACKETS + 1),
            },
            whole_since: None,
        }
    }

    /// Takes a packet of a layer; returns whether it is to be forwarded.
    pub(super) fn handle_packet(
        &mut self,
        now: Instant,
        codec: Codec,
        layer: LayerIndex,
        carried: &Carried<'_>,
        arrival: &Arrival<'_>,
    ) -> bool {
        let facts = facts(codec, arrival.payload);
        let leads = facts.keyframe || facts.parameter_sets;
        let seen = Seen {
            layer,
            len: arrival.payload.len(),
            begins_frame: carried.begins_frame,
            keyframe: leads,
            picture: if leads { picture_size(codec, arrival.payload) } else { None },
        };
        self.choice.handle_packet(now, &seen);
        if self.held.layer != self.choice.wanted() {
            self.held.begin(self.choice.wanted());
            self.whole_since = None;
        }
        if let Some(index) = carried.index.filter(|_| self.held.layer == Some(layer)) {
            let position = Position { epoch: self.held.epoch, index, timestamp: arrival.timestamp };
            self.held.hold(&ClearPacket {
                position,
                marker: arrival.marker,
                facts,
                arrival: now,
                capture: arrival.capture,
                dependency_descriptor: arrival.dependency_descriptor,
                payload: arrival.payload,
            });
        }
        self.choice.in_use() == Some(layer)
    }

    /// Where the held layer begins if it is to take over now: its keyframe is whole, and `between_frames` says that the
    /// old layer has ended one, or it does not do so in time.
    fn takeover(&mut self, now: Instant, between_frames: bool) -> Option<u64> {
        let start = self.held.keyframe()?;
        let since = *self.whole_since.get_or_insert(now);
        (between_frames || now >= since + PATIENCE).then_some(start)
    }
}

impl Held {
    fn begin(&mut self, layer: Option<LayerIndex>) {
        self.layer = layer;
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Where the newest whole keyframe begins.
    fn keyframe(&self) -> Option<u64> {
        self.layer?;
        // Until the layer's first packet, the ring has those of the last one that was held.
        (self.ring.epoch() == self.epoch).then(|| self.ring.gop_start())?
    }

    fn hold(&mut self, clear: &ClearPacket<'_>) {
        // Who sends what is too long has it counted when it is forwarded.
        if let Ok(packet) = self.pool.store(clear) {
            self.ring.insert(packet);
        }
    }
}

impl Inbound {
    fn takeover(&mut self, now: Instant) -> Option<u64> {
        let simulcast = self.simulcast.as_mut()?;
        let old = simulcast.choice.in_use();
        let between_frames = old.is_none_or(|LayerIndex(at)| self.layers[at].is_between_frames());
        simulcast.takeover(now, between_frames)
    }
}

impl Shard {
    /// After a packet of a simulcast: asks the wanted layer for its keyframe, and lets it take over when it is time.
    pub(super) fn steer_layers(&mut self, now: Instant, slot: u32, medium: usize) {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let Some(publisher) = session.publisher_mut() else { return };
        let inbound = &mut publisher.inbound[medium];
        let Some(simulcast) = &mut inbound.simulcast else { return };
        let request = simulcast.choice.take_keyframe_request(now);
        let takeover = inbound.takeover(now);
        if let Some(layer) = request {
            self.send_keyframe_request(slot, Some(layer));
        }
        if let Some(start) = takeover {
            self.switch_layer(now, slot, medium, start);
        }
    }

    /// The held layer takes over, with the packet that it holds at `start`.
    fn switch_layer(&mut self, now: Instant, slot: u32, medium: usize, start: u64) {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let id = session.table;
        let Some(inbound) = session.publisher_mut().map(|publisher| &mut publisher.inbound[medium]) else { return };
        let Some(simulcast) = &mut inbound.simulcast else { return };
        let (old, new) = (simulcast.choice.in_use(), simulcast.choice.wanted());
        let ring = &simulcast.held.ring;
        let mut packets: Vec<Arc<Packet>> = std::mem::take(&mut self.scratch);
        packets.extend((start..ring.head()).filter_map(|index| ring.get(index).cloned()));
        simulcast.choice.handle_switch(now);
        simulcast.held.begin(None);
        simulcast.whole_since = None;
        let (Some(first), Some(new)) = (packets.first(), new) else { return };
        let Some(table) = self.tables.get_mut(&id) else { return };
        let (Some(home), Some(track)) = (&mut table.home, &table.video) else { return };
        let Some(source) = home.source_mut(MediaKind::Video) else { return };
        if let Some(by_arrival) = source.timeline.timestamp_at(first.arrival) {
            let same_time = old.and_then(|old| inbound.same_time(old, new, first.timestamp));
            let by_reports = same_time.and_then(|timestamp| source.timeline.translate(timestamp));
            let limit = GREATEST_DISAGREEMENT.as_secs() as u32 * inbound.codec.clock_rate();
            let agrees = |at: &u32| (at.wrapping_sub(by_arrival) as i32).unsigned_abs() <= limit;
            let at = by_reports.filter(agrees).unwrap_or(by_arrival);
            source.switch_layer(now, &track.ring, (first.index as u16, first.timestamp), at);
            table.report.layer_switches += 1;
        }
        for packet in &packets {
            let arrival = Arrival {
                kind: MediaKind::Video,
                sequence_number: packet.index as u16,
                timestamp: packet.timestamp,
                marker: packet.marker,
                capture: packet.capture,
                dependency_descriptor: packet.dependency_descriptor(),
                red: false,
                payload: packet.payload(),
            };
            if let Err(reason) = self.ingest(now, id, arrival) {
                self.dropped(reason, 1);
            }
        }
        packets.clear();
        self.scratch = packets;
    }
}

//! A table as one shard sees it: its tracks, its players, and at home its publisher.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fanout::{HeaderClass, Layout, Stamps};
use crate::media::{
    AbsSendTime, Codec, DescriptorNumbers, FrameTracker, Inserted, MediaKind, Packet, PacketPool, PacketRing,
    ParameterSets, RateWindow, Timeline,
};
use crate::qos::{Offered, TableQos};
use crate::rtc::sdp::{StreamParameters, TableMedia};

use super::message::{ShardId, TableSpec, TableState, TrackClock};
use super::pacing::{self, Pacer};
use super::report::TableReport;
use super::session::Player;

/// A table on this shard.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) spec: TableSpec,
    pub(super) state: TableState,
    pub(super) video: Option<Track>,
    pub(super) audio: Option<Track>,
    /// Slots of connected players.
    pub(super) players: Vec<u32>,
    /// What only the home shard has.
    pub(super) home: Option<Home>,
    /// Away from home: whether the home shard sends us the tracks.
    pub(super) subscribed: bool,
    /// Away from home: when the last player left.
    pub(super) idle_since: Option<Instant>,
    pub(super) keyframe_wanted: KeyframeMerger,
    pub(super) qos: TableQos,
    /// Players that have ceased to report how they play, when that was last looked at.
    pub(super) silent: u64,
    pub(super) report: TableReport,
}

impl Table {
    pub(super) fn new(spec: TableSpec, here: ShardId) -> Self {
        let home = (spec.home == here).then(Home::default);
        Self {
            spec,
            state: TableState::Absent,
            video: None,
            audio: None,
            players: Vec::new(),
            home,
            subscribed: false,
            idle_since: None,
            keyframe_wanted: KeyframeMerger::default(),
            qos: TableQos::default(),
            silent: 0,
            report: TableReport::default(),
        }
    }

    /// What every player with video was offered by now.
    pub(super) fn offered(&self) -> Offered {
        self.video.as_ref().map(|track| track.offered).unwrap_or_default()
    }

    /// A connected player leaves.
    pub(super) fn leave_classes(&mut self, player: Option<&Player>) {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let class = player.and_then(|p| p.down(kind)).map(|down| down.class);
            if let (Some(class), Some(track)) = (class, self.track_mut(kind)) {
                track.leave_class(class);
            }
        }
    }

    pub(super) fn track(&self, kind: MediaKind) -> Option<&Track> {
        match kind {
            MediaKind::Audio => self.audio.as_ref(),
            MediaKind::Video => self.video.as_ref(),
        }
    }

    pub(super) fn track_mut(&mut self, kind: MediaKind) -> Option<&mut Track> {
        match kind {
            MediaKind::Audio => self.audio.as_mut(),
            MediaKind::Video => self.video.as_mut(),
        }
    }

    /// The track, made anew unless there is one of this codec.
    pub(super) fn ensure_track(&mut self, kind: MediaKind, codec: Codec) -> &mut Track {
        let ring_packets = self.spec.ring_packets;
        let slot = match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        };
        if slot.as_ref().is_none_or(|t| t.codec != codec) {
            // Audio is never replayed: the ring holds what a NACK may ask for.
            let packets = if kind == MediaKind::Audio { (ring_packets / 8).max(128) } else { ring_packets };
            *slot = Some(Track::new(codec, packets));
        }
        slot.as_mut().expect("just made")
    }
}

/// The publisher's side of a table.
#[derive(Debug, Default)]
pub(super) struct Home {
    /// The slot of the WHIP session, or none for a publisher inside the process.
    pub(super) publisher: Option<u32>,
    /// The slot of one that takes over once it is connected.
    pub(super) successor: Option<u32>,
    pub(super) media: TableMedia,
    /// Shards that have players of the table.
    pub(super) subscribers: Vec<ShardId>,
    pub(super) last_packet: Option<Instant>,
    /// When the table was paused.
    pub(super) paused_since: Option<Instant>,
    /// When a publisher connected that has sent nothing yet.
    pub(super) begun: Option<Instant>,
    pub(super) video: Option<Source>,
    pub(super) audio: Option<Source>,
    pub(super) rate: RateWindow,
    /// Publisher's NTP clock minus ours, NTP 32.32; the largest seen, since delay only makes it smaller.
    pub(super) clock_offset: Option<i64>,
}

impl Home {
    pub(super) fn source_mut(&mut self, kind: MediaKind) -> Option<&mut Source> {
        match kind {
            MediaKind::Audio => self.audio.as_mut(),
            MediaKind::Video => self.video.as_mut(),
        }
    }
}

/// How a publisher's numbers become the track's, and what arrived whole. Outlives the track: a table that begins anew
/// goes on above all numbers it ever used, and its counters only grow.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) timeline: Timeline,
    pub(super) frames: FrameTracker,
    pub(super) pool: PacketPool,
    /// For keyframes of H.264 and H.265 that come without them.
    pub(super) parameter_sets: ParameterSets,
    pub(super) descriptors: DescriptorNumbers,
    ring_packets: usize,
    /// The epoch that another layer of the same source began.
    layer_epoch: Option<u32>,
}

impl Source {
    pub(super) fn new(codec: Codec, ring_packets: usize) -> Self {
        Self {
            timeline: Timeline::new(codec.clock_rate()),
            frames: FrameTracker::new(),
            pool: PacketPool::new(pool_size(ring_packets)),
            parameter_sets: ParameterSets::new(codec),
            descriptors: DescriptorNumbers::default(),
            ring_packets,
            layer_epoch: None,
        }
    }

    /// Another layer of the same picture takes over: `first` is the sequence number and timestamp that it begins with,
    /// `at` the track's timestamp for that time. `ring` still holds the old layer.
    pub(super) fn switch_layer(&mut self, now: Instant, ring: &PacketRing, first: (u16, u32), at: u32) {
        self.frames.switch_layer(ring);
        self.layer_epoch = self.timeline.switch_layer(now, first, at);
    }

    /// A packet of another epoch than that of `ring` has come. Returns whether its source is another, with a clock of its
    /// own.
    pub(super) fn enter_epoch(&mut self, epoch: u32, ring: &PacketRing) -> bool {
        let is_layer = self.layer_epoch.take() == Some(epoch);
        self.parameter_sets.restart();
        if !is_layer {
            self.frames.flush(ring);
        }
        !is_layer
    }

    /// The track is over: counts what is left of it and frees its memory.
    pub(super) fn rest(&mut self, ring: &PacketRing) {
        self.frames.flush(ring);
        self.pool = PacketPool::new(pool_size(self.ring_packets));
    }
}

/// Rings of other shards hold a packet a little longer than ours.
fn pool_size(ring_packets: usize) -> usize {
    ring_packets + ring_packets / 4
}

/// The time between the frame that begins at `index` and the one before, by their timestamps.
fn frame_interval(ring: &PacketRing, index: u64, clock_rate: u32) -> Option<Duration> {
    let (before, first) = (ring.get(index.checked_sub(1)?)?, ring.get(index)?);
    let ticks = first.timestamp.wrapping_sub(before.timestamp);
    (ticks > 0).then(|| Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / u64::from(clock_rate)))
}

/// The recent past of one medium, and how players see it.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) codec: Codec,
    pub(super) ring: PacketRing,
    /// The first index no flush has taken yet.
    pub(super) flushed: Option<u64>,
    /// Packets that arrived after the flush that would have taken them.
    pub(super) late: Vec<Arc<Packet>>,
    /// What no flush had taken when a new epoch began, and the index up to which it had: the ring forgets it, and it is the
    /// end of the old layer's last frame.
    pub(super) ending: VecDeque<Arc<Packet>>,
    pub(super) ending_from: u64,
    /// In the shard's queue of tracks with something to send.
    pub(super) queued: bool,
    pub(super) classes: Vec<HeaderClass>,
    pub(super) layouts: Vec<Layout>,
    /// Connected players by class. A class without any is free for another: players choose payload types and ids, and
    /// every class costs a layout of each packet.
    members: Vec<u32>,
    pub(super) clock: Option<TrackClock>,
    pub(super) pacer: Pacer,
    /// What came new into the ring, and so was offered to every player.
    pub(super) offered: Offered,
    newest_timestamp: Option<u32>,
}

impl Track {
    fn new(codec: Codec, ring_packets: usize) -> Self {
        Self {
            codec,
            ring: PacketRing::new(ring_packets),
            flushed: None,
            late: Vec::new(),
            ending: VecDeque::new(),
            ending_from: 0,
            queued: false,
            classes: Vec::new(),
            layouts: Vec::new(),
            members: Vec::new(),
            clock: None,
            pacer: Pacer::default(),
            offered: Offered::default(),
            newest_timestamp: None,
        }
    }

    /// Takes a packet into the ring; `false` if it brought nothing new.
    pub(super) fn insert(&mut self, packet: Arc<Packet>) -> bool {
        let index = packet.index;
        if packet.epoch != self.ring.epoch() && index >= self.ring.head() {
            self.keep_ending();
        }
        let inserted = self.ring.insert(packet.clone());
        if is_new(inserted) {
            self.offered.bytes += packet.payload().len() as u64;
            // By timestamps alone: a marker may come late, and some senders forget it.
            if index + 1 == self.ring.head()
                && self.newest_timestamp.replace(packet.timestamp) != Some(packet.timestamp)
            {
                self.offered.frames += 1;
            }
            let flushed = *self.flushed.get_or_insert(index);
            if index < flushed {
                self.late.push(packet);
            }
        }
        is_new(inserted)
    }

    fn keep_ending(&mut self) {
        let Some(flushed) = self.flushed else { return };
        // A source that begins again and again without a flush between has only its last end sent.
        self.ending.clear();
        self.pacer.reset();
        self.ending_from = flushed.max(self.ring.oldest());
        self.ending.extend((self.ending_from..self.ring.head()).filter_map(|index| self.ring.get(index).cloned()));
        self.flushed = Some(flushed.max(self.ring.head()));
    }

    /// Whether a flush would find anything.
    pub(super) fn has_pending(&self) -> bool {
        !self.late.is_empty() || !self.ending.is_empty() || self.flushed.is_some_and(|f| f < self.ring.head())
    }

    /// When the first of the packets arrived that wait to be flushed, if the newest of them does not end a frame: then
    /// the rest is on its way. `None` if nothing is to be waited for.
    pub(super) fn unfinished_since(&self) -> Option<Instant> {
        let waits = self.codec.kind() == MediaKind::Video && self.late.is_empty() && self.ending.is_empty();
        let newest = self.ring.get(self.ring.head().checked_sub(1)?).filter(|newest| waits && !newest.marker)?;
        Some(self.flushed.and_then(|first| self.ring.get(first)).map_or(newest.arrival, |first| first.arrival))
    }

    /// Whether a flush would find video at the live edge that is to be spread: a frame that is there as a whole, so much of one at
    /// once that its publisher does not spread it, or what is left of one.
    pub(super) fn is_paced(&self) -> bool {
        let nothing_else = self.late.is_empty() && self.ending.is_empty();
        let is_video = self.codec.kind() == MediaKind::Video;
        let is_burst = || self.flushed.is_some_and(|flushed| self.ring.head().saturating_sub(flushed) >= pacing::BURST);
        is_video && nothing_else && (self.pacer.is_spreading() || self.unfinished_since().is_none() || is_burst())
    }

    /// Up to which index a flush may take what waits from `next` on, at most `most`.
    ///
    /// # Errors
    /// Nothing before that time.
    pub(super) fn allowed(&mut self, now: Instant, next: u64, most: u64) -> Result<u64, Instant> {
        let (ring, rate) = (&self.ring, self.codec.clock_rate());
        self.pacer.allow(now, next, ring.head(), most, || frame_interval(ring, next, rate))
    }

    /// The class of a player that negotiated `stream`, which counts as one of its members until
    /// [`Table::leave_classes`].
    pub(super) fn join_class(&mut self, stream: &StreamParameters, ssrc: u32) -> usize {
        let class = HeaderClass {
            payload_type: stream.payload_type,
            red: stream.red.as_ref().map(|red| red.payload_type),
            ssrc,
            transport_cc: stream.extensions.transport_cc.filter(|_| stream.feedback.transport_cc),
            playout_delay: stream.extensions.playout_delay,
            abs_capture_time: stream.extensions.abs_capture_time,
            abs_send_time: stream.extensions.abs_send_time,
            dependency_descriptor: stream.extensions.dependency_descriptor,
        };
        let known = self.classes.iter().position(|c| *c == class);
        let at = known.or_else(|| self.members.iter().position(|members| *members == 0)).unwrap_or(self.classes.len());
        if at == self.classes.len() {
            self.classes.push(class);
            self.layouts.push(Layout::default());
            self.members.push(0);
        }
        self.classes[at] = class;
        self.members[at] += 1;
        at
    }

    fn leave_class(&mut self, class: usize) {
        self.members[class] -= 1;
        while self.members.last() == Some(&0) {
            self.members.pop();
            self.classes.pop();
            self.layouts.pop();
        }
    }

    /// What headers of its packets carry beside the packets' own.
    pub(super) fn stamps(&self, spec: &TableSpec, send_time: AbsSendTime) -> Stamps {
        let clock_offset = self.clock.and_then(|clock| clock.offset);
        Stamps { playout_delay: spec.playout_delay, clock_offset, send_time }
    }

    /// The RTP timestamp at `now` by the track's clock, for sender reports.
    pub(super) fn timestamp_at(&self, now: Instant) -> Option<u32> {
        let clock = self.clock?;
        let rate = u128::from(self.codec.clock_rate());
        let ticks = |d: Duration| (d.as_micros() * rate / 1_000_000) as u32;
        Some(match now.checked_duration_since(clock.instant) {
            Some(after) => clock.timestamp.wrapping_add(ticks(after)),
            None => clock.timestamp.wrapping_sub(ticks(clock.instant - now)),
        })
    }
}

fn is_new(inserted: Inserted) -> bool {
    matches!(inserted, Inserted::Next | Inserted::Gap { .. } | Inserted::Late)
}

/// Merges keyframe requests: at most one per interval goes to the publisher.
#[derive(Debug, Default)]
pub(super) struct KeyframeMerger {
    wanted: bool,
    last: Option<Instant>,
}

/// At most one keyframe request per track in this time.
pub(super) const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

impl KeyframeMerger {
    /// Somebody needs a keyframe.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// A keyframe came: nobody needs one any more.
    pub(super) fn satisfied(&mut self) {
        self.wanted = false;
    }

    /// Whether a request may be sent now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now >= last + KEYFRAME_INTERVAL)
    }

    /// Whether a request is to be sent now.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.wanted && self.is_due(now);
        if due {
            self.wanted = false;
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtc::sdp::{ExtensionIds, Feedback};

    fn stream(payload_type: u8) -> StreamParameters {
        StreamParameters {
            codec: Codec::Vp8,
            payload_type,
            fmtp: String::new(),
            rtx_payload_type: None,
            red: None,
            parameter_sets: Vec::new(),
            feedback: Feedback::default(),
            extensions: ExtensionIds::default(),
            directed_extensions: ExtensionIds::default(),
            remote_ssrc: None,
            remote_rtx_ssrc: None,
            layers: Vec::new(),
        }
    }

    #[test]
    fn header_classes_go_with_their_players() {
        let mut track = Track::new(Codec::Vp8, 256);
        let watching = track.join_class(&stream(96), 1);
        for _ in 0..10 {
            // Players that come and go, each with a payload type of its own.
            let passing: Vec<usize> =
                (97..127).map(|payload_type| track.join_class(&stream(payload_type), 1)).collect();
            assert_eq!(track.join_class(&stream(96), 1), watching, "equal headers are one class");
            track.leave_class(watching);
            passing.into_iter().for_each(|class| track.leave_class(class));
        }
        assert_eq!((track.classes.len(), track.layouts.len()), (1, 1));
        assert_eq!(track.classes[watching].payload_type, 96);

        let (a, b) = (track.join_class(&stream(97), 1), track.join_class(&stream(98), 1));
        track.leave_class(a);
        assert_eq!(track.join_class(&stream(99), 1), a, "a free place is taken again");
        assert_eq!((track.classes[a].payload_type, track.classes[b].payload_type), (99, 98));
    }

    #[test]
    fn keyframe_requests_are_merged() {
        let (mut merger, now) = (KeyframeMerger::default(), Instant::now());
        assert!(!merger.take_due(now), "nobody asked");
        (0..100).for_each(|_| merger.want());
        assert!(merger.take_due(now));
        merger.want();
        assert!(!merger.take_due(now + Duration::from_millis(499)));
        assert!(merger.take_due(now + KEYFRAME_INTERVAL));
        merger.want();
        merger.satisfied();
        assert!(!merger.take_due(now + Duration::from_secs(9)), "the keyframe came by itself");
    }
}

//! A table as one shard sees it: its tracks, its players, and at home its publisher.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fanout::{ALL_SPATIAL_LAYERS, HeaderClass, Highest, Layout, Stamps};
use crate::media::{
    AbsCaptureTime, AbsSendTime, Codec, FrameCounts, FrameTracker, Inserted, MediaKind, Packet, PacketRing, RateWindow,
};
use crate::qos::{Breach, TableQos};
use crate::rtc::rtcp::NtpTime;
use crate::rtc::sdp::{StreamParameters, TableMedia};

use super::bounds::{BoundId, Bounds};
use super::ledger::LostBefore;
use super::message::{LayerIndex, LayerOffer, ShardId, TableSpec, TableState, TrackClock, TrackId};
use super::pacing::{self, Pacer};
use super::points::{Choice, OperatingPoint, may_be_thinned};
use super::report::TableReport;
use super::session::Player;
use super::source::Source;

/// A table on this shard.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) spec: TableSpec,
    pub(super) state: TableState,
    /// One for each layer that a publisher has had.
    pub(super) video: Vec<Track>,
    pub(super) audio: Option<Track>,
    /// The layers that come, the best first.
    pub(super) layers: Vec<LayerOffer>,
    /// What there is to choose from of these, by how high players may go.
    pub(super) bounds: Bounds,
    pub(super) video_classes: Classes,
    pub(super) audio_classes: Classes,
    /// Slots of connected players.
    pub(super) players: Vec<u32>,
    /// What only the home shard has.
    pub(super) home: Option<Home>,
    /// Away from home: whether the home shard sends us the tracks.
    pub(super) subscribed: bool,
    /// Away from home: when the last player left.
    pub(super) idle_since: Option<Instant>,
    /// Slots of players that are to get no more of their layers.
    pub(super) leaving: Vec<u32>,
    /// Frames that were left out for players and are not taken off those that are forwarded yet.
    pub(super) unforwarded: u64,
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
            video: Vec::new(),
            audio: None,
            layers: Vec::new(),
            bounds: Bounds::default(),
            video_classes: Classes::default(),
            audio_classes: Classes::default(),
            players: Vec::new(),
            home,
            subscribed: false,
            idle_since: None,
            leaving: Vec::new(),
            unforwarded: 0,
            qos: TableQos::default(),
            silent: 0,
            report: TableReport::default(),
        }
    }

    /// The layer that is best of those that come.
    pub(super) fn best_layer(&self) -> LayerIndex {
        self.layers.first().map(|offer| offer.layer).unwrap_or_default()
    }

    /// What there is to choose from for a player of this class of video and this bound.
    pub(super) fn points_for(&self, class: usize, bound: BoundId) -> &[OperatingPoint] {
        let codec = self.codec(MediaKind::Video).unwrap_or(Codec::H264);
        self.bounds.points(bound).for_class(codec, &self.video_classes.classes[class])
    }

    /// What a player of this class and this bound gets where the path is no reason to give it less.
    pub(super) fn best_for(&self, class: usize, bound: BoundId) -> Choice {
        let codec = self.codec(MediaKind::Video).unwrap_or(Codec::H264);
        let spatial = match may_be_thinned(codec, &self.video_classes.classes[class]) {
            true => self.bounds.highest_spatial(bound),
            false => ALL_SPATIAL_LAYERS,
        };
        Choice { layer: self.bounds.best(bound), highest: Highest { spatial, ..Highest::ALL } }
    }

    /// A connected player joins its tracks.
    pub(super) fn join_tracks(&mut self, slot: u32, player: &Player) {
        for id in player.tracks().into_iter().flatten() {
            if let Some(track) = self.track_mut(id) {
                track.players.push(slot);
            }
        }
    }

    /// A connected player leaves.
    pub(super) fn leave_tracks(&mut self, slot: u32, player: &Player) {
        for id in player.tracks().into_iter().flatten() {
            if let Some(track) = self.track_mut(id) {
                track.players.retain(|other| *other != slot);
            }
            if let Some(class) = player.down(id.kind()).map(|down| down.class) {
                self.classes_mut(id.kind()).leave(class);
            }
        }
        self.leaving.retain(|other| *other != slot);
        for track in &mut self.video {
            track.waiting.retain(|other| *other != slot);
        }
    }

    /// What the codec of a medium is, while there is a track of it.
    pub(super) fn codec(&self, kind: MediaKind) -> Option<Codec> {
        match kind {
            MediaKind::Audio => self.audio.as_ref().map(|track| track.codec),
            MediaKind::Video => self.video.first().map(|track| track.codec),
        }
    }

    /// Which tracks there are.
    pub(super) fn track_ids(&self) -> Vec<TrackId> {
        let video = (0..self.video.len()).map(|layer| TrackId::Video(LayerIndex(layer)));
        self.audio.iter().map(|_| TrackId::Audio).chain(video).collect()
    }

    pub(super) fn track(&self, id: TrackId) -> Option<&Track> {
        match id {
            TrackId::Audio => self.audio.as_ref(),
            TrackId::Video(LayerIndex(layer)) => self.video.get(layer),
        }
    }

    pub(super) fn track_mut(&mut self, id: TrackId) -> Option<&mut Track> {
        match id {
            TrackId::Audio => self.audio.as_mut(),
            TrackId::Video(LayerIndex(layer)) => self.video.get_mut(layer),
        }
    }

    pub(super) fn classes_mut(&mut self, kind: MediaKind) -> &mut Classes {
        match kind {
            MediaKind::Audio => &mut self.audio_classes,
            MediaKind::Video => &mut self.video_classes,
        }
    }

    /// Makes the track unless there is one of this codec, and before it all lower layers.
    pub(super) fn ensure_track(&mut self, id: TrackId, codec: Codec) {
        let ring_packets = self.spec.ring_packets;
        match id {
            // Audio is never replayed: the ring holds what a NACK may ask for.
            TrackId::Audio if self.codec(MediaKind::Audio) != Some(codec) => {
                self.audio = Some(Track::new(codec, (ring_packets / 8).max(128)));
            }
            TrackId::Audio => {}
            TrackId::Video(LayerIndex(layer)) => {
                self.bounds.expect_spatial_layers(codec.has_spatial_layers());
                if self.codec(MediaKind::Video).is_some_and(|present| present != codec) {
                    self.video.clear();
                }
                while self.video.len() <= layer {
                    self.video.push(Track::new(codec, ring_packets));
                }
            }
        }
    }

    /// The timestamp of `from` at the time for which `to` has `timestamp` in a packet that arrived then: by the publisher's
    /// sender reports, unless they contradict the arrivals. `None` while there is nothing to compare.
    pub(super) fn same_time(&self, from: LayerIndex, to: LayerIndex, packet: &Packet) -> Option<u32> {
        let (from, to) = (self.track(TrackId::Video(from))?, self.track(TrackId::Video(to))?);
        let by_arrival = from.timestamp_by_arrival(packet.arrival)?;
        let limit = GREATEST_DISAGREEMENT.as_secs() as u32 * from.codec.clock_rate();
        let agrees = |at: &u32| (at.wrapping_sub(by_arrival) as i32).unsigned_abs() <= limit;
        let by_reports = same_time_by_reports(from, to, packet.timestamp);
        Some(by_reports.filter(agrees).unwrap_or(by_arrival))
    }
}

/// By how much sender reports may contradict the arrivals. Beyond that they are wrong.
const GREATEST_DISAGREEMENT: Duration = Duration::from_secs(1);

fn same_time_by_reports(from: &Track, to: &Track, timestamp: u32) -> Option<u32> {
    let (from_clock, to_clock) = (from.clock?, to.clock?);
    let between = to_clock.capture?.ntp.offset_from(from_clock.capture?.ntp);
    let ticks = (i128::from(between) * i128::from(from.codec.clock_rate())) >> 32;
    let after_report = timestamp.wrapping_sub(to_clock.timestamp);
    Some(from_clock.timestamp.wrapping_add(ticks as u32).wrapping_add(after_report))
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
    /// One for each layer that a publisher has had.
    pub(super) video: Vec<Source>,
    pub(super) audio: Option<Source>,
    /// When the others were last told what the layers take.
    pub(super) layers_told: Option<Instant>,
    pub(super) rate: RateWindow,
    /// Publisher's NTP clock minus ours, NTP 32.32; the largest seen, since delay only makes it smaller.
    pub(super) clock_offset: Option<i64>,
}

impl Home {
    pub(super) fn source_mut(&mut self, id: TrackId) -> Option<&mut Source> {
        match id {
            TrackId::Audio => self.audio.as_mut(),
            TrackId::Video(LayerIndex(layer)) => self.video.get_mut(layer),
        }
    }
}

impl Home {
    /// The first of a track; video layers are added in order.
    pub(super) fn add_source(&mut self, id: TrackId, source: Source) {
        match id {
            TrackId::Audio => self.audio = Some(source),
            TrackId::Video(_) => self.video.push(source),
        }
    }
}

/// The time between the frame that begins at `index` and the one before, by their timestamps.
fn frame_interval(ring: &PacketRing, index: u64, clock_rate: u32) -> Option<Duration> {
    let (before, first) = (ring.get(index.checked_sub(1)?)?, ring.get(index)?);
    let ticks = first.timestamp.wrapping_sub(before.timestamp);
    (ticks > 0).then(|| Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / u64::from(clock_rate)))
}

/// The recent past of one medium or layer, and who gets it.
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
    /// Slots of the players that get it.
    pub(super) players: Vec<u32>,
    /// Slots of players that go on with it at its next keyframe.
    pub(super) waiting: Vec<u32>,
    /// None of them goes on with a keyframe before this index.
    pub(super) waiting_from: u64,
    pub(super) keyframe_wanted: KeyframeMerger,
    /// What is before it came before the layer was silent for a while: nobody begins there.
    pub(super) resumed_at: u64,
    /// Which frames came whole.
    pub(super) frames: FrameTracker,
    /// Those that [`Track::take_frames`] has told.
    counted: FrameCounts,
    pub(super) lost_before: LostBefore,
    /// Where the last frame was lost.
    pub(super) broken_by: Breach,
    /// Where the keyframe begins that began to go out last.
    pub(super) last_keyframe: Option<u64>,
    pub(super) clock: Option<TrackClock>,
    pub(super) pacer: Pacer,
    /// The timestamp of the newest packet, and when it first came.
    newest: Option<(u32, Instant)>,
}

/// What [`Track::insert`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fresh {
    /// The packet was not there yet.
    pub(super) packet: bool,
    /// The first of its frame.
    pub(super) frame: bool,
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
            players: Vec::new(),
            waiting: Vec::new(),
            waiting_from: u64::MAX,
            keyframe_wanted: KeyframeMerger::default(),
            resumed_at: 0,
            frames: FrameTracker::new(),
            counted: FrameCounts::default(),
            lost_before: LostBefore::default(),
            broken_by: Breach::default(),
            last_keyframe: None,
            clock: None,
            pacer: Pacer::default(),
            newest: None,
        }
    }

    /// Counts the frames that are decided since the last call.
    pub(super) fn take_frames(&mut self, now: Instant) -> FrameCounts {
        self.frames.observe(&self.ring, now);
        let counts = self.frames.counts();
        let before = std::mem::replace(&mut self.counted, counts);
        FrameCounts {
            whole: counts.whole - before.whole,
            lost: counts.lost - before.lost,
            vanished: counts.vanished - before.vanished,
            broken: counts.broken - before.broken,
        }
    }

    /// Whether all that was received can have been sent: no packet is missing, and none waits that came late.
    pub(super) fn has_no_hole(&self) -> bool {
        self.late.is_empty() && self.frames.position() == self.ring.head()
    }

    /// Whether the keyframe that was asked for is long in coming.
    pub(super) fn is_due_again(&self, now: Instant) -> bool {
        self.keyframe_wanted.last.is_none_or(|last| now >= last + ASKED_AGAIN)
    }

    /// Where a keyframe may begin with which a player goes on that has another layer: at one that has just come, or is coming.
    pub(super) fn next_keyframe_from(&self, now: Instant) -> u64 {
        let recent = |start: &u64| self.ring.get(*start).is_some_and(|packet| now < packet.arrival + JUST_NOW);
        if let Some(start) = self.ring.gop_start().filter(recent) {
            return start;
        }
        let newest = self.ring.head().checked_sub(1).and_then(|newest| self.ring.get(newest));
        let Some(unfinished) = newest.filter(|newest| !newest.marker) else { return self.ring.head() };
        let is_same =
            |index: &u64| self.ring.get(*index).is_some_and(|packet| packet.timestamp == unfinished.timestamp);
        (0..=unfinished.index).rev().take_while(is_same).last().unwrap_or(unfinished.index)
    }

    /// Whether there is a whole keyframe from `index` on.
    pub(super) fn has_keyframe_from(&self, index: u64) -> bool {
        self.ring.gop_start().is_some_and(|start| start >= index)
    }

    /// Frames that end from `index` on, among those that were counted.
    pub(super) fn frames_since(&self, index: u64) -> u64 {
        self.ends(index..self.frames.position())
    }

    /// Frames that end before `index`, among those that are not counted yet.
    pub(super) fn frames_until(&self, index: u64) -> u64 {
        self.ends(self.frames.position()..index)
    }

    fn ends(&self, indices: Range<u64>) -> u64 {
        let ends = |index: &u64| self.ring.get(*index).is_some_and(|packet| packet.marker);
        indices.filter(ends).count() as u64
    }

    /// The newest packet with something in it before `cursor`, if it is not long ago.
    pub(super) fn last_before(&self, cursor: u64) -> Option<&Packet> {
        let recent = (cursor.saturating_sub(64)..cursor).rev();
        recent
            .filter_map(|index| self.ring.get(index))
            .map(|packet| &**packet)
            .find(|packet| !packet.payload().is_empty())
    }

    /// Takes a packet into the ring.
    pub(super) fn insert(&mut self, packet: Arc<Packet>) -> Fresh {
        let index = packet.index;
        if packet.epoch != self.ring.epoch() && index >= self.ring.head() {
            self.keep_ending();
            self.frames.flush(&self.ring);
        }
        let (timestamp, arrival) = (packet.timestamp, packet.arrival);
        let begins_frame = self.begins_frame(index, timestamp);
        let inserted = self.ring.insert(packet.clone());
        if !is_new(inserted) {
            return Fresh::default();
        }
        let flushed = *self.flushed.get_or_insert(index);
        if index < flushed {
            self.late.push(packet);
        }
        if begins_frame {
            self.newest = Some((timestamp, arrival));
        }
        Fresh { packet: true, frame: begins_frame }
    }

    /// Whether a packet that is not in the ring yet is the first of its frame that came. By timestamps alone: a marker may come
    /// late, and some senders forget it.
    pub(super) fn begins_frame(&self, index: u64, timestamp: u32) -> bool {
        self.newest.is_none_or(|(newest, _)| newest != timestamp) && index >= self.ring.head()
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

    /// What the timestamp is at `instant` by the arrival of the newest frame.
    fn timestamp_by_arrival(&self, instant: Instant) -> Option<u32> {
        let (timestamp, arrival) = self.newest?;
        Some(timestamp_at(timestamp, arrival, instant, self.codec))
    }

    /// When a packet that arrives `now` was captured, by the publisher's clock as its sender reports have told it. `None` while
    /// they have not, and where they contradict the arrivals.
    pub(super) fn captured_at(&self, now: Instant, timestamp: u32) -> Option<AbsCaptureTime> {
        let clock = self.clock?;
        let measured = clock.capture?.ntp;
        let elapsed = now.checked_duration_since(clock.instant)?;
        let expected = timestamp_at(clock.timestamp, clock.instant, now, self.codec);
        let ahead = timestamp.wrapping_sub(expected) as i32;
        if ahead.unsigned_abs() > GREATEST_DISAGREEMENT.as_secs() as u32 * self.codec.clock_rate() {
            return None;
        }
        let ahead = (i64::from(ahead) << 32) / i64::from(self.codec.clock_rate());
        Some(AbsCaptureTime { ntp: measured.plus(elapsed).0.wrapping_add_signed(ahead), offset: None })
    }

    /// What headers of its packets carry beside the packets' own.
    pub(super) fn stamps(&self, spec: &TableSpec, send_time: AbsSendTime) -> Stamps {
        let clock_offset = self.clock.and_then(|clock| clock.capture).map(|capture| capture.offset);
        Stamps { playout_delay: spec.playout_delay, clock_offset, send_time }
    }

    /// The RTP timestamp of what was captured at `captured`, by the publisher's sender reports. Where those are not there, or of a
    /// clock that does not tell the time of day, by when its packets came: `at` is that time by our clock.
    pub(super) fn timestamp_of_capture(&self, captured: NtpTime, at: Instant) -> Option<u32> {
        let clock = self.clock?;
        match clock.capture.filter(|capture| capture.offset.unsigned_abs() <= GREATEST_CLOCK_ERROR) {
            Some(capture) => {
                let after = i128::from(captured.offset_from(capture.ntp)) * i128::from(self.codec.clock_rate());
                Some(clock.timestamp.wrapping_add((after >> 32) as u32))
            }
            None => self.timestamp_at(at),
        }
    }

    /// The RTP timestamp at `now` by the track's clock, for sender reports.
    pub(super) fn timestamp_at(&self, now: Instant) -> Option<u32> {
        let clock = self.clock?;
        Some(timestamp_at(clock.timestamp, clock.instant, now, self.codec))
    }
}

/// How far a publisher's clock may be from ours to be one that tells the time of day: what keeps no time at all is further away.
const GREATEST_CLOCK_ERROR: u64 = 5 << 32;

/// The timestamp at `now`, where it was `timestamp` at `then`.
fn timestamp_at(timestamp: u32, then: Instant, now: Instant, codec: Codec) -> u32 {
    let ticks = |d: Duration| (d.as_micros() * u128::from(codec.clock_rate()) / 1_000_000) as u32;
    match now.checked_duration_since(then) {
        Some(after) => timestamp.wrapping_add(ticks(after)),
        None => timestamp.wrapping_sub(ticks(then - now)),
    }
}

/// The header classes of a medium's players: choose payload types and ids as they may, equal ones are one class.
#[derive(Debug, Default)]
pub(super) struct Classes {
    pub(super) classes: Vec<HeaderClass>,
    /// The headers of what is being sent, by class.
    pub(super) layouts: Vec<Layout>,
    /// Connected players by class. A class without any is free for another: players choose payload types and ids, and
    /// every class costs a layout of each packet.
    members: Vec<u32>,
}

impl Classes {
    /// The class of a player that negotiated `stream`, which counts as one of its members until [`Classes::leave`].
    pub(super) fn join(&mut self, stream: &StreamParameters, ssrc: u32) -> usize {
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

    fn leave(&mut self, class: usize) {
        self.members[class] -= 1;
        while self.members.last() == Some(&0) {
            self.members.pop();
            self.classes.pop();
            self.layouts.pop();
        }
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

/// Who waits for a keyframe to change layers asks again after this time. Encoders that take no requests have one every few
/// seconds.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// A keyframe of another layer that came so recently does as well as one that is asked for.
const JUST_NOW: Duration = Duration::from_millis(200);

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
    use super::super::message::CaptureClock;
    use super::super::testing::roulette;
    use super::*;
    use crate::media::{ClearPacket, PayloadFacts, Position};
    use crate::rtc::rtcp::NtpTime;
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
    fn a_capture_is_looked_up_by_the_publishers_clock_unless_that_tells_no_time_of_day() {
        let (mut track, instant) = (Track::new(Codec::Vp8, 64), Instant::now());
        let ntp = NtpTime::from_unix(Duration::from_secs(1_790_000_000));
        let two_seconds_later = ntp.plus(Duration::from_secs(2));
        assert_eq!(track.timestamp_of_capture(ntp, instant), None, "nothing came yet");
        let mut at = |capture| {
            track.clock = Some(TrackClock { instant, timestamp: 1000, capture });
            // By our clock it was one second later.
            track.timestamp_of_capture(two_seconds_later, instant + Duration::from_secs(1))
        };
        assert_eq!(at(Some(CaptureClock { ntp, offset: 1 << 32 })), Some(181_000));
        assert_eq!(at(Some(CaptureClock { ntp, offset: -(6 << 32) })), Some(91_000));
        assert_eq!(at(None), Some(91_000));
        let capture = Some(CaptureClock { ntp: two_seconds_later.plus(Duration::from_secs(1)), offset: 0 });
        assert_eq!(at(capture), Some(1000_u32.wrapping_sub(90_000)), "before the report");
    }

    #[test]
    fn header_classes_go_with_their_players() {
        let mut classes = Classes::default();
        let watching = classes.join(&stream(96), 1);
        for _ in 0..10 {
            // Players that come and go, each with a payload type of its own.
            let passing: Vec<usize> = (97..127).map(|payload_type| classes.join(&stream(payload_type), 1)).collect();
            assert_eq!(classes.join(&stream(96), 1), watching, "equal headers are one class");
            classes.leave(watching);
            passing.into_iter().for_each(|class| classes.leave(class));
        }
        assert_eq!((classes.classes.len(), classes.layouts.len()), (1, 1));
        assert_eq!(classes.classes[watching].payload_type, 96);

        let (a, b) = (classes.join(&stream(97), 1), classes.join(&stream(98), 1));
        classes.leave(a);
        assert_eq!(classes.join(&stream(99), 1), a, "a free place is taken again");
        assert_eq!((classes.classes[a].payload_type, classes.classes[b].payload_type), (99, 98));
    }

    #[test]
    fn sender_reports_tell_which_timestamps_are_the_same_time() {
        let (now, mut table) = (Instant::now(), Table::new(roulette(), ShardId(0)));
        let [small, large] = [LayerIndex(0), LayerIndex(1)];
        table.ensure_track(TrackId::Video(large), Codec::Vp8);
        let packet = |timestamp, arrival| {
            let clear = ClearPacket {
                position: Position { epoch: 0, index: 0, timestamp },
                marker: true,
                facts: PayloadFacts::default(),
                arrival,
                capture: None,
                dependency_descriptor: &[],
                payload: &[],
            };
            Packet::new(&clear).expect("short")
        };
        let keyframe = packet(100, now + Duration::from_millis(20));
        assert_eq!(table.same_time(small, large, &keyframe), None, "nothing to compare with");
        let small_newest = 1000_u32.wrapping_sub(45_000);
        table.video[0].insert(Arc::new(packet(small_newest, now)));
        assert_eq!(table.same_time(small, large, &keyframe), Some(small_newest.wrapping_add(1800)), "by the arrivals");

        let second = NtpTime::from_unix(Duration::from_secs(1_700_000_000));
        let clock = |ntp, timestamp| {
            Some(TrackClock { instant: now, timestamp, capture: Some(CaptureClock { ntp, offset: 0 }) })
        };
        table.video[0].clock = clock(second.plus(Duration::from_millis(500)), 1000);
        table.video[1].clock = clock(second, u32::MAX - 99);
        // 200 ticks after `second` in the new layer; the old one was 45,000 ticks before its 1000 then.
        let same = table.same_time(small, large, &keyframe).expect("both are known");
        assert!(same.abs_diff(small_newest.wrapping_add(200)) <= 1, "{same}");

        table.video[1].clock = clock(second.plus(Duration::from_secs(5)), u32::MAX - 99);
        let same = table.same_time(small, large, &keyframe);
        assert_eq!(
            same,
            Some(small_newest.wrapping_add(1800)),
            "reports that contradict the arrivals are not believed"
        );
    }

    #[test]
    fn a_capture_time_follows_from_the_clock_however_long_ago_it_was_measured() {
        let (now, mut track) = (Instant::now(), Track::new(Codec::Vp8, 64));
        assert_eq!(track.captured_at(now, 1000), None, "nothing was measured");
        let ntp = NtpTime::from_unix(Duration::from_secs(1_700_000_000));
        track.clock = Some(TrackClock { instant: now, timestamp: 1000, capture: None });
        assert_eq!(track.captured_at(now, 1000), None, "there was no sender report");
        track.clock =
            Some(TrackClock { instant: now, timestamp: 1000, capture: Some(CaptureClock { ntp, offset: 5 }) });
        for seconds in [0, 1, 3600, 100_000] {
            let after = Duration::from_secs(seconds);
            let timestamp = 1000_u32.wrapping_add((seconds * 90_000) as u32);
            // It came a tenth of a second after it was captured.
            let capture = track.captured_at(now + after + Duration::from_millis(100), timestamp).expect("known");
            let off = NtpTime(capture.ntp).offset_from(ntp.plus(after));
            assert!(off.unsigned_abs() < 1 << 18 && capture.offset.is_none(), "{off} / 2^32 s after {after:?}");
            let contradicts = timestamp.wrapping_add(91_000);
            assert_eq!(track.captured_at(now + after, contradicts), None);
        }
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

//! The frame ledger: which frames came whole from the publisher, and which did not.

use std::mem;
use std::time::{Duration, Instant};

use super::{Packet, PacketRing, RateWindow};

/// A packet that is missing for this long is lost: any retransmission would have come.
const PATIENCE: Duration = Duration::from_millis(500);

/// A packet that is this far behind the newest is lost whatever the time. Far more than the packets of a large
/// keyframe, which come in one burst: a loss at the burst's head must leave time for its retransmission.
const HORIZON: u64 = 512;

/// Frames of a track since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Every packet came.
    pub whole: u64,
    /// At least one packet never came; frames that vanished altogether included, by estimate.
    pub lost: u64,
    /// Of the lost ones, those that vanished altogether.
    pub vanished: u64,
    /// Of the whole ones, those behind a lost one and before the next keyframe: a decoder is likely to have no use for them.
    pub broken: u64,
}

/// Counts the frames of a video track, reading its ring in index order.
///
/// A frame is a run of packets with one timestamp. It ends with the marker, or where the timestamp changes. Reading
/// stops at a missing packet until it comes, or until it is lost: after 500 ms, or when the ring is 512 packets (or
/// half its slots) ahead of it. If it comes later still, the counts stay as they are.
///
/// # Whose was a lost packet?
/// If the packets before and after the hole have the same timestamp, their frame's. Else the hole is shared out: one
/// packet to the frame before if that has not ended, one to the frame after if its first packet there cannot be a first
/// one ([`PayloadFacts::starts_frame`](super::PayloadFacts::starts_frame)). Of what then remains, each packet can stand
/// for a whole frame: as many are counted as fit into the step of the timestamp by the usual frame interval, but not
/// more than packets remain. If none fits, the remainder belonged to the frames at the edges of the hole.
#[derive(Clone, Debug, Default)]
pub struct FrameTracker {
    /// `None` before the first packet.
    epoch: Option<u32>,
    /// The next index to be read.
    next: u64,
    /// When the packet behind the hole at `next` arrived; `None` while there is no hole.
    hole_since: Option<Instant>,
    /// Packets given up between the last one read and `next`.
    given_up: u64,
    frame: Option<Frame>,
    /// The usual step of the timestamp from frame to frame, in ticks.
    interval: Option<u32>,
    /// A frame is lost, and no keyframe has come since.
    is_broken: bool,
    counts: FrameCounts,
    last_lost: Option<u64>,
    whole_rate: RateWindow,
}

/// The frame being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    timestamp: u32,
    /// Of its last packet that came.
    index: u64,
    is_damaged: bool,
    /// Refers to no other.
    is_keyframe: bool,
    /// It is counted; packets with its timestamp may still follow.
    has_ended: bool,
    /// When its last packet arrived.
    arrival: Instant,
}

/// What a hole between two frames took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Losses {
    end_of_previous: bool,
    start_of_next: bool,
    whole_frames: u64,
}

impl FrameTracker {
    /// A ledger without frames.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what is new in `ring`. To be called after each insertion, or after each batch, and now and then while
    /// nothing comes.
    pub fn observe(&mut self, ring: &PacketRing, now: Instant) {
        self.read(ring, |tracker, ring| tracker.is_lost(ring, now));
    }

    /// Reads all there is and gives up what is missing: the publisher is gone. To be called before a new epoch enters
    /// the ring. A frame whose end has not come by then is not counted.
    pub fn flush(&mut self, ring: &PacketRing) {
        self.read(ring, |_, _| true);
        self.frame = None;
    }

    /// The next index to be read: below the ring's head while it waits for a missing packet.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The frames that are decided.
    pub fn counts(&self) -> FrameCounts {
        self.counts
    }

    /// The last packet of the last frame that was lost in part.
    pub fn last_lost(&self) -> Option<u64> {
        self.last_lost
    }

    /// How many frames fit strictly between two whose timestamps are `step` ticks apart, by the usual interval; 0 while that
    /// is not known.
    pub fn frames_within(&self, step: u32) -> u64 {
        frames_between(step, self.interval)
    }

    /// Whole frames per second over the last two seconds.
    pub fn fps(&self, now: Instant) -> f64 {
        self.whole_rate.per_second(now)
    }

    fn read(&mut self, ring: &PacketRing, give_up: impl Fn(&mut Self, &PacketRing) -> bool) {
        if ring.is_empty() {
            return;
        }
        self.enter_epoch(ring);
        self.skip_to(ring.head().saturating_sub(ring.capacity()));
        while self.next < ring.head() {
            if let Some(packet) = ring.get(self.next) {
                self.hole_since = None;
                self.read_packet(packet);
            } else if give_up(self, ring) {
                self.given_up += 1;
            } else {
                break;
            }
            self.next += 1;
        }
    }

    fn enter_epoch(&mut self, ring: &PacketRing) {
        if self.epoch.replace(ring.epoch()) != Some(ring.epoch()) {
            self.next = ring.oldest();
            self.hole_since = None;
            self.given_up = 0;
            self.frame = None;
            self.interval = None;
        }
    }

    /// Gives up what has left the ring unread: only a jump of the index by more than the ring's length does that.
    fn skip_to(&mut self, oldest: u64) {
        if self.next < oldest {
            self.given_up += oldest - self.next;
            self.next = oldest;
        }
    }

    /// Whether the missing packet at `next` will not come any more.
    fn is_lost(&mut self, ring: &PacketRing, now: Instant) -> bool {
        if ring.head() - self.next > HORIZON.min(ring.capacity() / 2) {
            return true;
        }
        let behind = || (self.next..ring.head()).find_map(|index| ring.get(index)).map_or(now, |packet| packet.arrival);
        let since = *self.hole_since.get_or_insert_with(behind);
        now.saturating_duration_since(since) >= PATIENCE
    }

    fn read_packet(&mut self, packet: &Packet) {
        // Padding alone (a bandwidth probe) has an index but no part in a frame.
        if packet.payload().is_empty() {
            return;
        }
        let missing = mem::take(&mut self.given_up);
        match &mut self.frame {
            Some(frame) if frame.timestamp == packet.timestamp => {
                frame.index = packet.index;
                frame.is_damaged |= missing > 0;
                frame.is_keyframe |= packet.facts.keyframe;
                frame.arrival = frame.arrival.max(packet.arrival);
            }
            Some(_) => self.begin_next_frame(packet, missing),
            None => self.frame = Some(Frame::new(packet, missing > 0 || !packet.facts.starts_frame)),
        }
        if packet.marker {
            self.end_frame();
        }
    }

    /// The timestamp has changed: ends the frame before and begins another, with `missing` packets lost between.
    fn begin_next_frame(&mut self, packet: &Packet, missing: u64) {
        let Some(previous) = &mut self.frame else { return };
        let step = packet.timestamp.wrapping_sub(previous.timestamp);
        let (mut is_damaged, mut vanished) = (false, 0);
        if missing == 0 {
            self.interval = Some(smoothed(self.interval, step)).filter(|interval| *interval > 0);
        } else {
            let between = frames_between(step, self.interval);
            let losses = share_out(missing, previous.has_ended, packet.facts.starts_frame, between);
            previous.is_damaged |= losses.end_of_previous;
            is_damaged = losses.start_of_next;
            vanished = losses.whole_frames;
        }
        self.end_frame();
        self.counts.lost += vanished;
        self.counts.vanished += vanished;
        self.is_broken |= vanished > 0;
        self.frame = Some(Frame::new(packet, is_damaged));
    }

    /// Counts the current frame, once.
    fn end_frame(&mut self) {
        let Some(frame) = self.frame.as_mut().filter(|frame| !frame.has_ended) else { return };
        frame.has_ended = true;
        if frame.is_damaged {
            self.counts.lost += 1;
            self.last_lost = Some(frame.index);
            self.is_broken = true;
        } else {
            self.is_broken &= !frame.is_keyframe;
            self.counts.whole += 1;
            self.counts.broken += u64::from(self.is_broken);
            self.whole_rate.add(frame.arrival, 1);
        }
    }
}

impl Frame {
    fn new(packet: &Packet, is_damaged: bool) -> Self {
        let is_keyframe = packet.facts.keyframe;
        let Packet { timestamp, index, arrival, .. } = *packet;
        Self { timestamp, index, is_damaged, is_keyframe, has_ended: false, arrival }
    }
}

/// Shares `missing` packets, at least one, out between two frames and those that vanished between them.
fn share_out(missing: u64, previous_has_ended: bool, next_starts: bool, frames_between: u64) -> Losses {
    let start_of_next = !next_starts;
    let mut rest = missing - u64::from(start_of_next);
    // A sender that never sets the marker leaves every frame open: then there must be a packet to spare for its end.
    let end_of_previous = !previous_has_ended && rest > 0;
    rest -= u64::from(end_of_previous);
    let whole_frames = frames_between.min(rest);
    let nobodys = !start_of_next && !end_of_previous && whole_frames == 0;
    Losses { end_of_previous, start_of_next: start_of_next || nobodys, whole_frames }
}

/// How many frames fit strictly between two that are `step` ticks apart; 0 while the interval is not known.
fn frames_between(step: u32, interval: Option<u32>) -> u64 {
    let (Some(interval), 0..) = (interval, step as i32) else { return 0 };
    let steps = (u64::from(step) + u64::from(interval) / 2) / u64::from(interval);
    steps.saturating_sub(1)
}

/// The interval after another `step`, moved by an eighth: one skipped frame must not double it. Steps back are ignored.
fn smoothed(interval: Option<u32>, step: u32) -> u32 {
    let before = interval.unwrap_or(0);
    match (interval, step as i32) {
        (_, ..=0) => before,
        (None, _) => step,
        (Some(_), _) => (before - before / 8).saturating_add(step / 8),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::media::{ClearPacket, PayloadFacts, Position};

    const MS: Duration = Duration::from_millis(1);
    const TICKS: u32 = 3000;

    /// A track whose packets can be lost, late or repeated, on a clock that moves by one frame a timestamp.
    struct Track {
        start: Instant,
        ring: PacketRing,
        tracker: FrameTracker,
    }

    impl Track {
        fn new() -> Self {
            Self { start: Instant::now(), ring: PacketRing::new(2048), tracker: FrameTracker::new() }
        }

        fn time(&self, packet: &Sent) -> Instant {
            self.start + 33 * MS * packet.frame
        }

        fn receive(&mut self, packet: &Sent) {
            self.receive_at(packet, self.time(packet));
        }

        fn receive_at(&mut self, packet: &Sent, now: Instant) {
            let clear = ClearPacket {
                position: Position {
                    epoch: packet.epoch,
                    index: packet.index,
                    // Wraps after the first frames.
                    timestamp: 0u32.wrapping_sub(10 * TICKS).wrapping_add(packet.frame * TICKS),
                },
                marker: packet.marker,
                facts: PayloadFacts { starts_frame: packet.first, ..PayloadFacts::default() },
                arrival: now,
                capture: None,
                dependency_descriptor: &[],
                payload: packet.payload,
            };
            self.ring.insert(Arc::new(Packet::new(&clear).expect("short")));
            self.tracker.observe(&self.ring, now);
        }

        fn counts(&self) -> (u64, u64) {
            let FrameCounts { whole, lost, .. } = self.tracker.counts();
            (whole, lost)
        }

        fn flushed(mut self) -> (u64, u64) {
            self.tracker.flush(&self.ring);
            self.counts()
        }
    }

    #[derive(Clone, Debug)]
    struct Sent {
        epoch: u32,
        index: u64,
        frame: u32,
        first: bool,
        marker: bool,
        payload: &'static [u8],
    }

    /// Frames of so many packets each.
    fn sent(sizes: &[usize]) -> Vec<Sent> {
        let packets = sizes.iter().enumerate().flat_map(|(frame, size)| (0..*size).map(move |at| (frame, at, *size)));
        packets
            .enumerate()
            .map(|(n, (frame, at, size))| Sent {
                epoch: 0,
                index: 70_000 + n as u64,
                frame: frame as u32,
                first: at == 0,
                marker: at + 1 == size,
                payload: b"slice",
            })
            .collect()
    }

    /// Counts after all packets but the lost ones, by their place in the stream.
    fn counts_without(packets: &[Sent], lost: &[usize]) -> (u64, u64) {
        let mut track = Track::new();
        for (at, packet) in packets.iter().enumerate() {
            if !lost.contains(&at) {
                track.receive(packet);
            }
        }
        track.flushed()
    }

    #[test]
    fn whole_frames_count_when_their_marker_comes() {
        let mut track = Track::new();
        let packets = sent(&[3, 2]);
        track.receive(&packets[0]);
        track.receive(&packets[1]);
        assert_eq!(track.counts(), (0, 0));
        track.receive(&packets[2]);
        assert_eq!(track.counts(), (1, 0));
    }

    #[test]
    fn a_late_packet_mends_its_frame() {
        let mut track = Track::new();
        for at in [0, 2, 3, 4, 1, 5] {
            track.receive(&sent(&[2, 2, 2])[at]);
        }
        assert_eq!(track.counts(), (3, 0));
    }

    #[test]
    fn a_loss_takes_the_frame_it_was_in() {
        let packets = sent(&[3, 3, 3, 3, 3, 3]);
        for (name, lost, expected) in [
            ("start", &[9][..], (5, 1)),
            ("middle", &[10], (5, 1)),
            ("end", &[11], (5, 1)),
            ("end and next start", &[11, 12], (4, 2)),
            ("a whole frame", &[9, 10, 11], (5, 1)),
            ("two whole frames", &[9, 10, 11, 12, 13, 14], (4, 2)),
            ("end, a whole frame, start", &[8, 9, 10, 11, 12], (3, 3)),
            ("two losses in one frame", &[9, 11], (5, 1)),
            ("start of the first", &[0], (5, 1)),
        ] {
            assert_eq!(counts_without(&packets, lost), expected, "{name}");
        }
    }

    #[test]
    fn a_frame_whose_second_packet_looks_like_a_first_one_is_lost_with_its_first() {
        // H.264: an SPS is lost, and the PPS behind it could lead a frame as well.
        let mut packets = sent(&[3; 6]);
        packets[10].first = true;
        assert_eq!(counts_without(&packets, &[9]), (5, 1));
    }

    #[test]
    fn a_single_packet_frame_that_vanishes_is_seen_in_the_timestamps() {
        assert_eq!(counts_without(&sent(&[1; 10]), &[5]), (9, 1));
        assert_eq!(counts_without(&sent(&[1; 10]), &[5, 7]), (8, 2));
    }

    #[test]
    fn an_encoder_that_skips_frames_loses_none() {
        let mut packets = sent(&[2; 10]);
        for packet in &mut packets[10..] {
            packet.frame += 4;
        }
        assert_eq!(counts_without(&packets, &[]), (10, 0));
        assert_eq!(counts_without(&packets, &[10]), (9, 1), "one packet is one frame at most");
    }

    #[test]
    fn without_markers_the_timestamp_ends_a_frame() {
        let mut packets = sent(&[2; 8]);
        for packet in &mut packets {
            packet.marker = false;
        }
        assert_eq!(counts_without(&packets, &[]), (7, 0), "the last one has no end yet");
        assert_eq!(counts_without(&packets, &[8]), (6, 1), "start of a frame");
        assert_eq!(counts_without(&packets, &[9]), (6, 1), "end of a frame");
    }

    #[test]
    fn a_missing_packet_is_given_up_after_500_ms_though_little_follows() {
        let mut track = Track::new();
        let packets = sent(&[2, 2, 2, 2]);
        for at in [0, 1, 2, 4, 5] {
            track.receive(&packets[at]);
        }
        let hole_seen = track.time(&packets[4]);
        track.tracker.observe(&track.ring, hole_seen + 499 * MS);
        assert_eq!(track.counts(), (1, 0));
        track.tracker.observe(&track.ring, hole_seen + 500 * MS);
        assert_eq!(track.counts(), (2, 1));
        track.receive_at(&packets[3], hole_seen + 501 * MS);
        assert_eq!(track.counts(), (2, 1), "too late");
    }

    #[test]
    fn a_missing_packet_is_given_up_512_packets_behind_though_no_time_passes() {
        let mut track = Track::new();
        let packets = sent(&[2; 300]);
        let now = track.start;
        for packet in packets.iter().filter(|packet| packet.index != 70_003).take(513) {
            track.receive_at(packet, now);
            assert_eq!(track.counts().1, 0);
        }
        for packet in &packets[514..516] {
            track.receive_at(packet, now);
        }
        assert_eq!(track.counts(), (257, 1));
    }

    #[test]
    fn padding_is_part_of_no_frame() {
        let mut packets = sent(&[2, 1, 2]);
        packets[2].payload = b"";
        packets[2].marker = false;
        assert_eq!(counts_without(&packets, &[]), (2, 0));
    }

    #[test]
    fn a_jump_beyond_the_ring_is_counted_by_its_timestamps() {
        let mut packets = sent(&[1; 20]);
        for packet in &mut packets[10..] {
            packet.index += 20_000;
            packet.frame += 100;
        }
        assert_eq!(counts_without(&packets, &[]), (20, 100));
    }

    #[test]
    fn a_new_epoch_is_no_loss() {
        let mut track = Track::new();
        let mut packets = sent(&[2; 6]);
        for packet in &mut packets[6..] {
            packet.epoch = 1;
            packet.index += 70_000;
            packet.frame += 500;
        }
        for packet in &packets {
            track.receive(packet);
        }
        assert_eq!(track.flushed(), (6, 0));
    }

    #[test]
    fn fps_follow_the_frames() {
        let mut track = Track::new();
        let packets = sent(&[2; 300]);
        for packet in &packets {
            track.receive(packet);
        }
        let end = track.time(&packets[599]);
        assert!((track.tracker.fps(end) - 30.3).abs() < 1.0);
        assert_eq!(track.tracker.fps(end + 5000 * MS), 0.0);
    }

    proptest! {
        #[test]
        fn every_frame_is_counted_once(
            sizes in prop::collection::vec(1usize..6, 10..80),
            fates in prop::collection::vec((0usize..10, 0usize..12, any::<bool>()), 400),
        ) {
            let packets = sent(&sizes);
            // The first frames make the interval known, the last one makes losses before it seen: these come.
            let guarded = |packet: &Sent| packet.frame < 3 || packet.frame as usize + 1 == sizes.len();
            let lost = |at: usize| fates[at].0 == 0 && !guarded(&packets[at]);
            let mut order = Vec::new();
            for (at, packet) in packets.iter().enumerate().filter(|(at, _)| !lost(*at)) {
                let delay = if guarded(packet) { 0 } else { fates[at].1 };
                order.push((at + delay, at));
                if fates[at].2 {
                    order.push((at + delay + 3, at));
                }
            }
            order.sort();
            let mut track = Track::new();
            for (_, at) in order {
                track.receive(&packets[at]);
            }
            let damaged = |frame: usize| (0..packets.len()).any(|at| packets[at].frame as usize == frame && lost(at));
            let expected = (0..sizes.len()).filter(|frame| damaged(*frame)).count() as u64;
            prop_assert_eq!(track.flushed(), (sizes.len() as u64 - expected, expected));
        }
    }
}

//! A publisher's clear packets on their way through the room `media`, and into the headers for two classes of players.

use std::time::{Duration, Instant};

use tableside::fanout::{HeaderClass, Layout, Stamps};
use tableside::media::{
    AbsCaptureTime, AbsSendTime, ClearPacket, Codec, DescriptorNumbers, FrameTracker, HeaderFields, Inserted,
    MAX_DESCRIPTOR, MAX_PAYLOAD, Packet, PacketPool, PacketRing, Placement, PlayoutDelay, RtpHeader, Timeline, facts,
    red_facts, write_header,
};
use tableside::rtc::rtcp::{LossDetector, LossPolicy, ReceptionStats};

use crate::input::{Input, chunk};

const SLOTS: usize = 64;
const CAPTURE_TIME: u8 = 4;
const DESCRIPTOR: u8 = 12;
const RED: u8 = 63;

/// A track, as the shard keeps it.
struct Track {
    now: Instant,
    codec: Codec,
    timeline: Timeline,
    pool: PacketPool,
    ring: PacketRing,
    frames: FrameTracker,
    losses: LossDetector,
    reception: ReceptionStats,
    descriptors: DescriptorNumbers,
    layout: Layout,
}

/// Packets one after the other: how much later, and the packet itself.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let codec = Codec::ALL[input.below(Codec::ALL.len())];
    let mut track = Track {
        now: Instant::now(),
        codec,
        timeline: Timeline::new(codec.clock_rate()),
        pool: PacketPool::new(2 * SLOTS),
        ring: PacketRing::new(SLOTS),
        frames: FrameTracker::new(),
        losses: LossDetector::new(LossPolicy::default()),
        reception: ReceptionStats::new(1, codec.clock_rate()),
        descriptors: DescriptorNumbers::default(),
        layout: Layout::default(),
    };
    while !input.is_empty() {
        match input.byte() {
            0..=3 => track.timeline.restart(),
            4..=7 => track.now += Duration::from_millis(input.word().into()),
            8..=11 => drop(track.losses.take_requests(track.now, Duration::from_millis(20)).count()),
            late => {
                track.now += Duration::from_millis(u64::from(late % 8));
                track.handle(input.chunk());
            }
        }
    }
    track.frames.flush(&track.ring);
}

impl Track {
    fn handle(&mut self, bytes: &[u8]) {
        let Ok(header) = RtpHeader::parse(bytes) else { return };
        let placement = self.timeline.place(self.now, header.sequence_number, header.timestamp);
        let Placement::At(position) = placement else { return };
        let payload = header.payload(bytes);
        let is_red = self.codec == Codec::Opus && header.payload_type == RED;
        let described = header.extension(bytes, DESCRIPTOR).unwrap_or_default();
        let mut buffer = [0; MAX_DESCRIPTOR];
        let stored = self.pool.store(&ClearPacket {
            position,
            marker: header.marker,
            facts: if is_red { red_facts(payload) } else { facts(self.codec, payload) },
            dependency_descriptor: self.descriptors.rewrite(position.epoch, described, &mut buffer),
            arrival: self.now,
            capture: header.extension(bytes, CAPTURE_TIME).and_then(AbsCaptureTime::decode),
            payload,
        });
        let Ok(packet) = stored else { return assert!(payload.len() > MAX_PAYLOAD) };
        assert_eq!(position.index as u16, header.sequence_number, "an index ends in its sequence number");
        self.reception.handle_rtp(self.now, position.index, position.timestamp);
        self.losses.handle_packet(self.now, position.index);
        match self.ring.insert(packet) {
            Inserted::Duplicate | Inserted::TooOld => return,
            Inserted::Next | Inserted::Gap { .. } | Inserted::Late => {}
        }
        self.frames.observe(&self.ring, self.now);
        self.check(position.index);
    }

    fn check(&mut self, index: u64) {
        let kept = self.ring.get(index).expect("what was inserted is there");
        assert_eq!(kept.index, index);
        assert!(self.ring.oldest() <= index && index < self.ring.head());
        assert!(self.ring.head() - self.ring.oldest() <= SLOTS as u64);
        assert!(self.losses.missing() <= 256, "what is looked for is bounded");
        assert!(self.pool.allocated() <= 4 * SLOTS as u64, "memory is recycled");
        if let Some(start) = self.ring.gop_start() {
            let timestamp = self.ring.get(start).map(|packet| packet.timestamp);
            for index in start..self.ring.head() {
                let packet = self.ring.get(index).expect("the keyframe that one joins at is complete");
                if packet.marker || Some(packet.timestamp) != timestamp {
                    break;
                }
            }
        }
        assert!(self.frames.fps(self.now) >= 0.0);
        let _ = self.reception.report(self.now);
        self.lay_out();
    }

    fn lay_out(&mut self) {
        let newest = self.ring.head().saturating_sub(9).max(self.ring.oldest())..self.ring.head();
        let packets: Vec<&Packet> = newest.filter_map(|index| self.ring.get(index).map(|p| &**p)).collect();
        for (id, red) in [(3, Some(RED)), (200, None)] {
            let class = HeaderClass {
                payload_type: 111,
                red,
                ssrc: 0x1111_1110,
                transport_cc: Some(id),
                playout_delay: Some(5),
                abs_capture_time: Some(CAPTURE_TIME),
                abs_send_time: red,
                dependency_descriptor: Some(DESCRIPTOR),
            };
            let playout_delay = PlayoutDelay { min_ms: 0, max_ms: 100 };
            let stamps = Stamps { playout_delay, clock_offset: Some(-1), send_time: AbsSendTime(7) };
            self.layout.rebuild(&class, &stamps, packets.iter().copied());
            for (n, packet) in packets.iter().enumerate() {
                let laid_out = self.layout.get(n);
                let header = RtpHeader::parse_header(laid_out.header).expect("what we write can be read");
                assert_eq!(header.header_len, laid_out.header.len());
                assert_eq!(header.extension(laid_out.header, id).map(<[u8]>::len), Some(2));
                assert!(laid_out.payload_offset <= packet.payload().len());
            }
        }
    }
}

/// Frames as a publisher sends them, with a keyframe, a loss, a late packet, and another publisher after it.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let of_type = |payload_type: u8, sequence_number: u16, timestamp: u32, marker: bool, payload: &[u8]| {
        let fields = HeaderFields { padding: false, marker, payload_type, sequence_number, timestamp, ssrc: 7 };
        let mut bytes = [0; 64];
        let capture = [0, 0, 0, 5, 0x80, 0, 0, 0];
        let elements: [(u8, &[u8]); 2] = [(CAPTURE_TIME, &capture), (DESCRIPTOR, &[0xc1, 0, 7, 0x80])];
        let header_len = write_header(&mut bytes, &fields, &elements).expect("room").header_len;
        [&[17], &chunk(&[&bytes[..header_len], payload].concat())[..]].concat()
    };
    let packet = |sequence, timestamp, marker, payload: &[u8]| of_type(96, sequence, timestamp, marker, payload);
    let key = super::payload::VP8_KEYFRAME;
    let inter = [0x10, 0x51, 1, 2];
    let vp8 = [
        vec![2],
        packet(65_534, 1000, false, key),
        packet(65_535, 1000, true, &[0, 1, 2]),
        packet(1, 4000, true, &inter),
        packet(0, 4000, false, &inter),
        packet(4, 10_000, true, &inter),
        vec![4, 0, 50, 8],
        vec![0],
        packet(30_000, 77, true, key),
    ];
    let h264 = [
        vec![0],
        packet(1, 1, false, super::payload::H264_STAP_A),
        packet(2, 1, false, &[0x7c, 0x85, 0x88]),
        packet(3, 1, true, &[0x7c, 0x45, 1]),
        packet(4, 3001, true, &[0x41, 0x9a]),
    ];
    let opus = [
        vec![5],
        of_type(RED, 0, 0, false, super::payload::RED),
        packet(1, 1, false, &[0xfc, 1, 2]),
        packet(2, 961, false, &[0xfc, 1, 2]),
    ];
    vec![vp8.concat(), h264.concat(), opus.concat()]
}

//! The clear header of each packet of a batch, laid out once per class of players.

use crate::media::{
    AbsCaptureTime, AbsSendTime, FIXED_HEADER_LEN, HeaderFields, MAX_PAYLOAD, Packet, PlayoutDelay, write_header,
};

/// The largest datagram we send: the ingest limit of 1500 bytes of payload, a header with extensions, padding and tag.
pub const MAX_DATAGRAM: usize = MAX_PAYLOAD + FIXED_HEADER_LEN + MAX_EXTENSIONS + MAX_PADDING + 16;

/// The most bytes a header extension block takes: 4 of head, and transport-wide number, abs-send-time, playout delay,
/// abs-capture-time and the lead of a dependency descriptor, in the two-byte form and padded. The descriptor itself counts
/// as payload: a packet has [`MAX_PAYLOAD`] bytes for both.
const MAX_EXTENSIONS: usize = 4 + (2 + 2) + (2 + 3) + (2 + 3) + (2 + 16) + 2 + 3;

/// A packet is padded by at most so much to reach the size of its neighbours.
const MAX_PADDING: usize = 16;

/// RTP padding by length: zeros, the last byte is the count (RFC 3550 §5.1).
static PADDING: [[u8; MAX_PADDING]; MAX_PADDING + 1] = padding_table();

const fn padding_table() -> [[u8; MAX_PADDING]; MAX_PADDING + 1] {
    let mut table = [[0; MAX_PADDING]; MAX_PADDING + 1];
    let mut n = 1;
    while n <= MAX_PADDING {
        table[n][n - 1] = n as u8;
        n += 1;
    }
    table
}

/// What makes headers equal between players.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeaderClass {
    /// The payload type this class negotiated.
    pub payload_type: u8,
    /// The payload type of RED (RFC 2198), for packets that came in it. Without it, or where the blocks name another
    /// payload type than this class has, only the primary block is sent.
    pub red: Option<u8>,
    /// The table's SSRC for the track.
    pub ssrc: u32,
    /// Extension id of the transport-wide sequence number.
    pub transport_cc: Option<u8>,
    /// Extension id of the playout delay.
    pub playout_delay: Option<u8>,
    /// Extension id of abs-capture-time.
    pub abs_capture_time: Option<u8>,
    /// Extension id of abs-send-time.
    pub abs_send_time: Option<u8>,
    /// Extension id of the dependency descriptor.
    pub dependency_descriptor: Option<u8>,
}

/// What headers carry beside the packets' own, the same for every class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// The table's playout delay.
    pub playout_delay: PlayoutDelay,
    /// The publisher's capture clock minus ours, NTP 32.32 signed: an edge that writes its own sender reports must carry
    /// it in abs-capture-time.
    pub clock_offset: Option<i64>,
    /// When the headers are laid out. The seal follows at once, in the same turn of the shard's loop unless the kernel is
    /// slow to take what is before it.
    pub send_time: AbsSendTime,
}

/// Headers for a batch of packets, for one class. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Layout {
    bytes: Vec<u8>,
    headers: Vec<Header>,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    start: u32,
    len: u16,
    payload_offset: u16,
    /// Offset of the transport-wide number in the header; 0 for none.
    transport_cc: u8,
    /// Offset of the dependency descriptor; 0 for none.
    descriptor: u8,
    padding: u8,
}

/// A header ready to be copied and patched.
#[derive(Clone, Copy, Debug)]
pub struct LaidOut<'a> {
    /// The clear header. Sequence number and transport-wide number are zero.
    pub header: &'a [u8],
    /// Where the transport-wide number goes, where negotiated.
    pub transport_cc: Option<usize>,
    /// Where the dependency descriptor begins; 0 without one.
    pub descriptor: u8,
    /// Where in the packet's payload the part begins that is sent: all of it, or the primary block of RED.
    pub payload_offset: usize,
    /// RTP padding that follows the payload.
    pub padding: &'static [u8],
}

impl Layout {
    /// Lays out the headers of `packets` for `class`, forgetting what was there.
    pub fn rebuild<'p>(
        &mut self,
        class: &HeaderClass,
        stamps: &Stamps,
        packets: impl Iterator<Item = &'p Packet> + Clone,
    ) {
        self.bytes.clear();
        self.headers.clear();
        for packet in packets.clone() {
            self.push_header(class, stamps, packet);
        }
        self.equalise(packets);
    }

    /// The header of the `n`-th packet of the batch.
    // Otherwise it is for the way in which the compiler divides the crate to say whether this is a call for each packet.
    #[inline]
    pub fn get(&self, n: usize) -> LaidOut<'_> {
        let h = self.headers[n];
        let start = h.start as usize;
        LaidOut {
            header: &self.bytes[start..start + usize::from(h.len)],
            transport_cc: (h.transport_cc > 0).then_some(usize::from(h.transport_cc)),
            descriptor: h.descriptor,
            payload_offset: usize::from(h.payload_offset),
            padding: &PADDING[usize::from(h.padding)][..usize::from(h.padding)],
        }
    }

    fn push_header(&mut self, class: &HeaderClass, stamps: &Stamps, packet: &Packet) {
        let (payload_type, payload_offset) = class.payload_of(packet);
        let fields = HeaderFields {
            padding: false,
            marker: packet.marker,
            payload_type,
            sequence_number: 0,
            timestamp: packet.timestamp,
            ssrc: class.ssrc,
        };
        let playout_delay = stamps.playout_delay.encode();
        let capture = offset_capture(packet.capture, stamps.clock_offset);
        let (send_time, descriptor) = (stamps.send_time.encode(), packet.dependency_descriptor());
        let mut elements: [(u8, &[u8]); 5] = [(0, &[]); 5];
        let mut count = 0;
        let mut add = |id: Option<u8>, value| {
            if let Some(id) = id {
                elements[count] = (id, value);
                count += 1;
            }
        };
        add(class.transport_cc, &[0, 0]);
        add(class.abs_send_time, &send_time);
        add(class.playout_delay.filter(|_| packet.facts.keyframe || packet.facts.parameter_sets), &playout_delay);
        add(class.abs_capture_time.filter(|_| packet.capture.is_some()), &capture);
        let descriptor_id = class.dependency_descriptor.filter(|_| !descriptor.is_empty());
        add(descriptor_id, descriptor);
        let start = self.bytes.len();
        self.bytes.resize(start + FIXED_HEADER_LEN + MAX_EXTENSIONS + descriptor.len(), 0);
        let layout = write_header(&mut self.bytes[start..], &fields, &elements[..count])
            .expect("negotiated ids are never 0, and the buffer is for the longest block");
        self.bytes.truncate(start + layout.header_len);
        let offset_of = |id: Option<u8>| id.and_then(|id| layout.value_offset(id)).unwrap_or(0) as u8;
        self.headers.push(Header {
            start: start as u32,
            len: layout.header_len as u16,
            payload_offset,
            transport_cc: offset_of(class.transport_cc),
            descriptor: offset_of(descriptor_id),
            padding: 0,
        });
    }

    /// Pads packets of one frame that are nearly as large as its largest to that size: equal sizes make one GSO run.
    /// Encoders split a frame "about equally", and an extension on the first packet breaks a run as well.
    fn equalise<'p>(&mut self, packets: impl Iterator<Item = &'p Packet> + Clone) {
        let mut first = 0;
        let followed = packets.clone().zip(packets.skip(1).map(Some).chain([None]));
        let mut largest = 0;
        let mut frame: [u16; 256] = [0; 256];
        for (n, (packet, next)) in followed.enumerate() {
            let header = &self.headers[n];
            let size = usize::from(header.len) + packet.payload().len() - usize::from(header.payload_offset);
            frame[(n - first) % 256] = size as u16;
            largest = largest.max(size);
            let ends = next.is_none_or(|next| next.timestamp != packet.timestamp) || n - first == 255;
            if ends {
                for i in first..=n {
                    let missing = largest - usize::from(frame[i - first]);
                    // A packet without payload is a placeholder in the numbering, not media.
                    if missing > 0 && missing <= MAX_PADDING && usize::from(frame[i - first]) > 64 {
                        let header = &mut self.headers[i];
                        header.padding = missing as u8;
                        self.bytes[header.start as usize] |= 0x20;
                    }
                }
                first = n + 1;
                largest = 0;
            }
        }
    }
}

impl HeaderClass {
    /// The payload type of `packet`, and where the part of its payload begins that goes with it.
    fn payload_of(&self, packet: &Packet) -> (u8, u16) {
        match (packet.facts.primary, self.red) {
            (None, _) => (self.payload_type, 0),
            (Some(primary), Some(red)) if primary.payload_type == self.payload_type => (red, 0),
            (Some(primary), _) => (self.payload_type, primary.offset),
        }
    }
}

/// The 16-byte form (abs-capture-time §"Timestamp interpolation"): capture clock = sender's clock + offset. What the
/// publisher estimated between its capture clock and its own sender clock is kept, and our offset to it is added.
fn offset_capture(capture: Option<AbsCaptureTime>, clock_offset: Option<i64>) -> [u8; AbsCaptureTime::MAX_LEN] {
    let mut value = [0; AbsCaptureTime::MAX_LEN];
    if let Some(AbsCaptureTime { ntp, offset }) = capture {
        let offset = offset.unwrap_or(0).wrapping_add(clock_offset.unwrap_or(0));
        AbsCaptureTime { ntp, offset: Some(offset) }.encode(&mut value);
    }
    value
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::{SendBatch, TrafficClass};
    use super::*;
    use crate::media::{ClearPacket, PayloadFacts, Position, RtpHeader, red_facts};
    use crate::rtc::TransportAddress;

    const PLAIN: HeaderClass = HeaderClass {
        payload_type: 96,
        red: None,
        ssrc: 0x1234_5678,
        transport_cc: None,
        playout_delay: None,
        abs_capture_time: None,
        abs_send_time: None,
        dependency_descriptor: None,
    };
    const STAMPS: Stamps = Stamps {
        playout_delay: PlayoutDelay { min_ms: 0, max_ms: 100 },
        clock_offset: None,
        send_time: AbsSendTime(0x0012_3456),
    };
    const CAPTURE: AbsCaptureTime = AbsCaptureTime { ntp: 0x0123_4567_89ab_cdef, offset: Some(1000) };
    const TAG_LEN: usize = 16;

    fn class(transport_cc: u8, playout_delay: u8, abs_capture_time: u8) -> HeaderClass {
        HeaderClass {
            transport_cc: Some(transport_cc),
            playout_delay: Some(playout_delay),
            abs_capture_time: Some(abs_capture_time),
            ..PLAIN
        }
    }

    fn clear(timestamp: u32, payload: &[u8]) -> ClearPacket<'_> {
        ClearPacket {
            position: Position { epoch: 0, index: 0, timestamp },
            marker: false,
            facts: PayloadFacts::default(),
            arrival: Instant::now(),
            capture: None,
            dependency_descriptor: &[],
            payload,
        }
    }

    fn packet(timestamp: u32, keyframe: bool, capture: Option<AbsCaptureTime>, payload_len: usize) -> Packet {
        let payload = vec![0xaa; payload_len];
        let facts = PayloadFacts { keyframe, ..Default::default() };
        Packet::new(&ClearPacket { facts, capture, ..clear(timestamp, &payload) }).expect("short enough")
    }

    fn layout(class: &HeaderClass, clock_offset: Option<i64>, packets: &[Packet]) -> Layout {
        let mut layout = Layout::default();
        layout.rebuild(class, &Stamps { clock_offset, ..STAMPS }, packets.iter());
        layout
    }

    /// The `n`-th packet in the clear, as a receiver sees it after decryption.
    fn datagram(layout: &Layout, packets: &[Packet], n: usize) -> Vec<u8> {
        let laid_out = layout.get(n);
        [laid_out.header, &packets[n].payload()[laid_out.payload_offset..], laid_out.padding].concat()
    }

    #[test]
    fn both_forms_carry_what_the_class_negotiated() {
        let packets = [packet(90_000, true, Some(CAPTURE), 100)];
        for (class, profile) in [(class(3, 5, 14), [0xbe, 0xde]), (class(3, 5, 15), [0x10, 0x00])] {
            let layout = layout(&class, Some(-400), &packets);
            let bytes = datagram(&layout, &packets, 0);
            let header = RtpHeader::parse(&bytes).expect("well-formed");
            assert_eq!(bytes[12..14], profile);
            assert_eq!((header.payload_type, header.ssrc, header.timestamp), (96, 0x1234_5678, 90_000));
            let value = |id: Option<u8>| header.extension(&bytes, id.expect("negotiated")).expect("present");
            assert_eq!(value(class.transport_cc), [0, 0]);
            assert_eq!(PlayoutDelay::decode(value(class.playout_delay)), Some(STAMPS.playout_delay));
            let capture = AbsCaptureTime { offset: Some(600), ..CAPTURE };
            assert_eq!(AbsCaptureTime::decode(value(class.abs_capture_time)), Some(capture));
            assert_eq!(header.payload(&bytes), packets[0].payload());
        }
    }

    #[test]
    fn the_place_of_the_transport_wide_number_is_known_in_both_forms() {
        let packets = [packet(0, true, Some(CAPTURE), 100)];
        for class in [class(3, 5, 9), class(20, 5, 9)] {
            let layout = layout(&class, None, &packets);
            let mut bytes = datagram(&layout, &packets, 0);
            let at = layout.get(0).transport_cc.expect("negotiated");
            bytes[at..at + 2].copy_from_slice(&[0x12, 0x34]);
            let header = RtpHeader::parse(&bytes).expect("well-formed");
            assert_eq!(header.extension(&bytes, class.transport_cc.expect("given")), Some(&[0x12, 0x34][..]));
        }
    }

    #[test]
    fn nothing_negotiated_is_a_plain_header() {
        let packets = [packet(0, true, Some(CAPTURE), 100)];
        let layout = layout(&PLAIN, Some(1), &packets);
        assert_eq!((layout.get(0).header.len(), layout.get(0).transport_cc), (FIXED_HEADER_LEN, None));
    }

    #[test]
    fn an_extension_is_left_out_where_it_says_nothing() {
        let packets = [packet(0, false, None, 100)];
        let class = class(3, 5, 9);
        let bytes = datagram(&layout(&class, Some(1), &packets), &packets, 0);
        let header = RtpHeader::parse(&bytes).expect("well-formed");
        assert_eq!(header.extensions(&bytes).map(|(id, _)| id).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn red_goes_to_those_who_have_it_and_the_primary_block_to_the_others() {
        let payload = [0x80 | 111, 0x0f, 0x00, 0x02, 111, 1, 2, 7, 8, 9];
        let clear = ClearPacket { facts: red_facts(&payload), payload: &payload, ..clear(960, &[]) };
        let packets = [Packet::new(&clear).expect("short enough")];
        let opus = HeaderClass { payload_type: 111, ..PLAIN };
        let sent = |class: &HeaderClass| {
            let bytes = datagram(&layout(class, None, &packets), &packets, 0);
            let header = RtpHeader::parse(&bytes).expect("well-formed");
            (header.payload_type, header.payload(&bytes).to_vec())
        };
        assert_eq!(sent(&HeaderClass { red: Some(63), ..opus }), (63, payload.to_vec()));
        assert_eq!(sent(&opus), (111, vec![7, 8, 9]));
        // Its blocks would name a payload type that this player does not know.
        assert_eq!(sent(&HeaderClass { red: Some(63), payload_type: 109, ..PLAIN }), (109, vec![7, 8, 9]));
    }

    #[test]
    fn a_dependency_descriptor_is_passed_on_in_whichever_form_it_needs() {
        let class = HeaderClass { transport_cc: Some(3), dependency_descriptor: Some(12), ..PLAIN };
        for (len, profile) in [(3, [0xbe, 0xde]), (16, [0xbe, 0xde]), (17, [0x10, 0x00]), (255, [0x10, 0x00])] {
            let value = vec![0xd5; len];
            let clear = ClearPacket { dependency_descriptor: &value, ..clear(0, &[1; 900]) };
            let packets = [Packet::new(&clear).expect("short enough")];
            let layout = layout(&class, None, &packets);
            let bytes = datagram(&layout, &packets, 0);
            let header = RtpHeader::parse(&bytes).expect("well-formed");
            assert_eq!(bytes[12..14], profile, "{len} bytes");
            assert_eq!(header.extension(&bytes, 12), Some(&value[..]));
            assert_eq!(header.extension(&bytes, 3), Some(&[0, 0][..]));
            assert!(layout.get(0).transport_cc.is_some());
            assert!(bytes.len() + TAG_LEN <= MAX_DATAGRAM);
        }
        let without = HeaderClass { dependency_descriptor: None, ..class };
        let packets = [packet(0, false, None, 100)];
        assert_eq!(datagram(&layout(&without, None, &packets), &packets, 0).len(), 12 + 8 + 100);
    }

    #[test]
    fn abs_send_time_is_when_the_header_was_laid_out() {
        let packets = [packet(0, false, None, 100)];
        let bytes = datagram(&layout(&HeaderClass { abs_send_time: Some(2), ..PLAIN }, None, &packets), &packets, 0);
        let header = RtpHeader::parse(&bytes).expect("well-formed");
        assert_eq!(header.extension(&bytes, 2), Some(&[0x12, 0x34, 0x56][..]));
    }

    #[test]
    fn packets_of_nearly_one_size_are_padded_into_one_run() {
        let packets = [1163, 1163, 1164, 1164].map(|size| packet(0, false, None, size - FIXED_HEADER_LEN));
        let layout = layout(&PLAIN, None, &packets);
        let mut batch = SendBatch::with_capacity(10_000, 4);
        for n in 0..packets.len() {
            let bytes = datagram(&layout, &packets, n);
            let player = TransportAddress::udp(([192, 0, 2, 1], 4000).into());
            batch.push(player, TrafficClass::Video, bytes.len(), |out| {
                out.copy_from_slice(&bytes);
                bytes.len()
            });
            // RFC 3550 §5.1: the padding is no part of the payload.
            let header = RtpHeader::parse(&bytes).expect("well-formed");
            assert_eq!(header.payload(&bytes), packets[n].payload());
        }
        let runs: Vec<_> = batch.messages().iter().map(|m| (m.segments(), m.segment_size)).collect();
        assert_eq!(runs, [(4, 1164)]);
    }

    #[test]
    fn an_extension_on_the_first_packet_does_not_break_the_run() {
        let packets = [true, false, false].map(|keyframe| packet(0, keyframe, None, 1100));
        let layout = layout(&class(3, 5, 9), None, &packets);
        let sizes: Vec<_> = (0..packets.len()).map(|n| datagram(&layout, &packets, n).len()).collect();
        assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
        assert_eq!(layout.get(1).padding.last(), Some(&4), "what the playout delay takes");
    }

    #[test]
    fn padding_ends_at_its_limit_and_at_the_frame() {
        let lens = [(0, 1000), (0, 1000 - MAX_PADDING), (0, 999 - MAX_PADDING), (3000, 998), (3000, 997)];
        let packets = lens.map(|(timestamp, len)| packet(timestamp, false, None, len));
        let layout = layout(&PLAIN, None, &packets);
        let padding: Vec<_> = (0..packets.len()).map(|n| layout.get(n).padding.len()).collect();
        assert_eq!(padding, [0, MAX_PADDING, 0, 0, 1]);
    }

    #[test]
    fn a_layout_forgets_the_batch_before() {
        let mut layout = layout(&class(3, 5, 9), None, &[packet(0, true, None, 100), packet(0, false, None, 100)]);
        layout.rebuild(&PLAIN, &STAMPS, [packet(7, false, None, 100)].iter());
        assert_eq!(layout.headers.len(), 1);
        assert_eq!(layout.get(0).header[4..8], 7_u32.to_be_bytes());
        assert!(layout.get(0).padding.is_empty());
    }

    fn some_packet() -> impl Strategy<Value = (u32, bool, bool, usize)> {
        let len = prop_oneof![3 => 1130_usize..1170, 1 => 0_usize..=MAX_PAYLOAD, 1 => 40_usize..90];
        (0_u32..3, prop::bool::weighted(0.2), any::<bool>(), len)
    }

    /// Different extension ids: those up to 14 leave the one-byte form possible.
    fn three_of(highest: u8) -> impl Strategy<Value = Vec<u8>> {
        prop::sample::subsequence((1..=highest).collect::<Vec<_>>(), 3).prop_shuffle()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Every header can be read, gives the payload back, and is padded exactly as far as its own frame asks.
        #[test]
        fn padding_equalises_within_a_frame_and_nothing_else(
            packets in prop::collection::vec(some_packet(), 1..40),
            ids in prop_oneof![three_of(14), three_of(255)],
            negotiated: [bool; 3],
        ) {
            let id = |n: usize| negotiated[n].then_some(ids[n]);
            let class = HeaderClass { transport_cc: id(0), playout_delay: id(1), abs_capture_time: id(2), ..PLAIN };
            let packets: Vec<_> = packets
                .into_iter()
                .map(|(timestamp, keyframe, captured, len)| packet(timestamp, keyframe, captured.then_some(CAPTURE), len))
                .collect();
            let layout = layout(&class, None, &packets);
            let size = |n: usize| layout.get(n).header.len() + packets[n].payload().len();
            let mut first = 0;
            for frame in packets.chunk_by(|a, b| a.timestamp == b.timestamp) {
                let numbers = first..first + frame.len();
                let largest = numbers.clone().map(size).max().expect("not empty");
                for n in numbers {
                    let (bytes, padding) = (datagram(&layout, &packets, n), layout.get(n).padding);
                    let missing = largest - size(n);
                    let is_padded = (1..=MAX_PADDING).contains(&missing) && size(n) > 64;
                    prop_assert_eq!(padding.len(), if is_padded { missing } else { 0 });
                    prop_assert_eq!(bytes[0] & 0x20 != 0, is_padded);
                    prop_assert!(bytes.len() + TAG_LEN <= MAX_DATAGRAM);
                    let header = RtpHeader::parse(&bytes).expect("well-formed");
                    prop_assert_eq!(header.payload(&bytes), packets[n].payload());
                    prop_assert_eq!(header.timestamp, packets[n].timestamp);
                }
                first += frame.len();
            }
        }
    }
}

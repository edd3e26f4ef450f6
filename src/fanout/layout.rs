//! The clear header of each packet of a batch, laid out once per class of players.

use crate::media::{AbsCaptureTime, FIXED_HEADER_LEN, HeaderFields, MAX_PAYLOAD, Packet, PlayoutDelay, write_header};

/// The largest datagram we send: the ingest limit of 1500 bytes of payload, a header with extensions, padding and tag.
pub const MAX_DATAGRAM: usize = MAX_PAYLOAD + FIXED_HEADER_LEN + MAX_EXTENSIONS + MAX_PADDING + 16;

/// The most bytes a header extension block takes: 4 of head, and transport-wide number, playout delay and
/// abs-capture-time, in the two-byte form and padded.
const MAX_EXTENSIONS: usize = 4 + (2 + 2) + (2 + 3) + (2 + 16) + 3;

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
    /// The table's SSRC for the track.
    pub ssrc: u32,
    /// Extension id of the transport-wide sequence number.
    pub transport_cc: Option<u8>,
    /// Extension id of the playout delay.
    pub playout_delay: Option<u8>,
    /// Extension id of abs-capture-time.
    pub abs_capture_time: Option<u8>,
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
    len: u8,
    /// Offset of the transport-wide number in the header; 0 for none.
    transport_cc: u8,
    padding: u8,
}

/// A header ready to be copied and patched.
#[derive(Clone, Copy, Debug)]
pub struct LaidOut<'a> {
    /// The clear header. Sequence number and transport-wide number are zero.
    pub header: &'a [u8],
    /// Where the transport-wide number goes, where negotiated.
    pub transport_cc: Option<usize>,
    /// RTP padding that follows the payload.
    pub padding: &'static [u8],
}

impl Layout {
    /// Lays out the headers of `packets` for `class`, forgetting what was there.
    ///
    /// `clock_offset` is the publisher's capture clock minus ours, NTP 32.32 signed: an edge that writes its own
    /// sender reports must carry it in abs-capture-time.
    pub fn rebuild<'p>(
        &mut self,
        class: &HeaderClass,
        playout_delay: PlayoutDelay,
        clock_offset: Option<i64>,
        packets: impl Iterator<Item = &'p Packet> + Clone,
    ) {
        self.bytes.clear();
        self.headers.clear();
        for packet in packets.clone() {
            self.push_header(class, playout_delay, clock_offset, packet);
        }
        self.equalise(packets);
    }

    /// The header of the `n`-th packet of the batch.
    pub fn get(&self, n: usize) -> LaidOut<'_> {
        let h = self.headers[n];
        let start = h.start as usize;
        LaidOut {
            header: &self.bytes[start..start + usize::from(h.len)],
            transport_cc: (h.transport_cc > 0).then_some(usize::from(h.transport_cc)),
            padding: &PADDING[usize::from(h.padding)][..usize::from(h.padding)],
        }
    }

    fn push_header(
        &mut self,
        class: &HeaderClass,
        playout_delay: PlayoutDelay,
        clock_offset: Option<i64>,
        packet: &Packet,
    ) {
        let fields = HeaderFields {
            padding: false,
            marker: packet.marker,
            payload_type: class.payload_type,
            sequence_number: 0,
            timestamp: packet.timestamp,
            ssrc: class.ssrc,
        };
        let playout_delay = playout_delay.encode();
        let capture = offset_capture(packet.capture, clock_offset);
        let mut elements: [(u8, &[u8]); 3] = [(0, &[]); 3];
        let mut count = 0;
        let mut add = |id: Option<u8>, value| {
            if let Some(id) = id {
                elements[count] = (id, value);
                count += 1;
            }
        };
        add(class.transport_cc, &[0, 0]);
        add(class.playout_delay.filter(|_| packet.facts.keyframe || packet.facts.parameter_sets), &playout_delay);
        add(class.abs_capture_time.filter(|_| packet.capture.is_some()), &capture);
        let start = self.bytes.len();
        self.bytes.resize(start + FIXED_HEADER_LEN + MAX_EXTENSIONS, 0);
        let layout = write_header(&mut self.bytes[start..], &fields, &elements[..count])
            .expect("negotiated ids are never 0, and the buffer is for the longest block");
        self.bytes.truncate(start + layout.header_len);
        let transport_cc = class.transport_cc.and_then(|id| layout.value_offset(id)).unwrap_or(0);
        self.headers.push(Header {
            start: start as u32,
            len: layout.header_len as u8,
            transport_cc: transport_cc as u8,
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
            let size = usize::from(self.headers[n].len) + packet.payload().len();
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

    use super::*;
    use crate::media::{ClearPacket, PayloadFacts, Position, RtpHeader};

    const DELAY: PlayoutDelay = PlayoutDelay { min_ms: 0, max_ms: 200 };
    const CAPTURE: AbsCaptureTime = AbsCaptureTime { ntp: 0x0102_0304_0506_0708, offset: None };

    const ONE_BYTE: HeaderClass = HeaderClass {
        payload_type: 96,
        ssrc: 0x0a0b_0c0d,
        transport_cc: Some(3),
        playout_delay: Some(5),
        abs_capture_time: Some(9),
    };

    /// An id above 14 asks for the two-byte form (RFC 8285 §4.3).
    const TWO_BYTE: HeaderClass = HeaderClass { abs_capture_time: Some(15), ..ONE_BYTE };

    const BARE: HeaderClass =
        HeaderClass { transport_cc: None, playout_delay: None, abs_capture_time: None, ..ONE_BYTE };

    /// The first packet of a keyframe, with the capture time.
    fn head(timestamp: u32, len: usize) -> Packet {
        packet(timestamp, len, PayloadFacts { keyframe: true, ..PayloadFacts::default() }, Some(CAPTURE))
    }

    fn rest(timestamp: u32, len: usize) -> Packet {
        packet(timestamp, len, PayloadFacts::default(), None)
    }

    fn packet(timestamp: u32, len: usize, facts: PayloadFacts, capture: Option<AbsCaptureTime>) -> Packet {
        let clear = ClearPacket {
            position: Position { epoch: 0, index: 7, timestamp },
            marker: true,
            facts,
            arrival: Instant::now(),
            capture,
            payload: &vec![1; len],
        };
        Packet::new(&clear).expect("short enough")
    }

    fn lay_out(class: &HeaderClass, packets: &[Packet]) -> Layout {
        let mut layout = Layout::default();
        layout.rebuild(class, DELAY, Some(1), packets.iter());
        layout
    }

    /// Sizes before encryption, header and padding included.
    fn sizes(layout: &Layout, packets: &[Packet]) -> Vec<usize> {
        (0..packets.len())
            .map(|n| layout.get(n).header.len() + packets[n].payload().len() + layout.get(n).padding.len())
            .collect()
    }

    fn padding(layout: &Layout, packets: &[Packet]) -> Vec<usize> {
        (0..packets.len()).map(|n| layout.get(n).padding.len()).collect()
    }

    #[test]
    fn a_header_in_the_one_byte_form() {
        let layout = lay_out(&ONE_BYTE, &[head(0x0102_0304, 1000)]);
        let laid_out = layout.get(0);
        let fixed = [0x90, 0x80 | 96, 0, 0, 1, 2, 3, 4, 0x0a, 0x0b, 0x0c, 0x0d];
        let block = [
            &[0xbe, 0xde, 0, 6, 0x31, 0, 0, 0x52, 0, 0, 20, 0x9f][..],
            &[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1],
        ]
        .concat();
        assert_eq!(laid_out.header, [&fixed[..], &block].concat());
        assert_eq!((laid_out.transport_cc, laid_out.padding), (Some(17), &[][..]));
    }

    #[test]
    fn a_header_in_the_two_byte_form() {
        let layout = lay_out(&TWO_BYTE, &[head(0, 1000)]);
        let laid_out = layout.get(0);
        let block = [
            &[0x10, 0, 0, 7, 3, 2, 0, 0, 5, 3, 0, 0, 20, 15, 16][..],
            &[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0],
        ]
        .concat();
        assert_eq!(laid_out.header[12..], block);
        assert_eq!(laid_out.transport_cc, Some(18));
    }

    #[test]
    fn what_a_class_has_not_negotiated_is_not_there() {
        let layout = lay_out(&BARE, &[head(0, 1000)]);
        assert_eq!((layout.get(0).header.len(), layout.get(0).transport_cc), (12, None));
        assert_eq!(layout.get(0).header[0], 0x80);
        let only_on_heads = lay_out(&HeaderClass { transport_cc: None, ..ONE_BYTE }, &[rest(0, 1000)]);
        assert_eq!(only_on_heads.get(0).header.len(), 12);
    }

    #[test]
    fn the_clock_offset_is_added_to_the_publishers_own() {
        let packet = packet(0, 9, PayloadFacts::default(), Some(AbsCaptureTime { offset: Some(-5), ..CAPTURE }));
        let layout = lay_out(&HeaderClass { transport_cc: None, ..ONE_BYTE }, &[packet]);
        assert_eq!(layout.get(0).header[25..33], (-4_i64).to_be_bytes());
    }

    #[test]
    fn a_frame_that_was_split_about_equally_is_padded_into_one_run() {
        let packets = [1163, 1163, 1164, 1164].map(|len| rest(0, len));
        let layout = lay_out(&BARE, &packets);
        assert_eq!(padding(&layout, &packets), [1, 1, 0, 0]);
        assert_eq!(sizes(&layout, &packets), [1176; 4]);
        let announced: Vec<bool> = (0..4).map(|n| layout.get(n).header[0] & 0x20 != 0).collect();
        assert_eq!(announced, [true, true, false, false]);
    }

    #[test]
    fn an_extension_on_the_first_packet_does_not_break_the_run() {
        for class in
            [HeaderClass { playout_delay: None, ..ONE_BYTE }, HeaderClass { abs_capture_time: None, ..ONE_BYTE }]
        {
            let packets = [head(0, 1100), rest(0, 1100), rest(0, 1100)];
            let layout = lay_out(&class, &packets);
            let difference = layout.get(0).header.len() - layout.get(1).header.len();
            assert!(difference > 0);
            assert_eq!(padding(&layout, &packets), [0, difference, difference]);
        }
    }

    #[test]
    fn far_sizes_other_frames_and_placeholders_are_left_alone() {
        let cases: [(&str, Vec<Packet>); 4] = [
            ("too far", vec![rest(0, 1000), rest(0, 1000 - MAX_PADDING - 1)]),
            ("another frame", vec![rest(0, 1000), rest(3000, 999)]),
            ("small parameter sets", vec![rest(0, 40), rest(0, 50)]),
            ("no payload", vec![rest(0, 10), rest(0, 0)]),
        ];
        for (name, packets) in cases {
            assert!(padding(&lay_out(&BARE, &packets), &packets).iter().all(|len| *len == 0), "{name}");
        }
        let farthest = [rest(0, 1000), rest(0, 1000 - MAX_PADDING)];
        assert_eq!(padding(&lay_out(&BARE, &farthest), &farthest), [0, MAX_PADDING]);
    }

    fn class() -> impl Strategy<Value = HeaderClass> {
        let id = || prop::option::of(1..=255_u8);
        (id(), id(), id()).prop_map(|(transport_cc, playout_delay, abs_capture_time)| HeaderClass {
            transport_cc,
            playout_delay,
            abs_capture_time,
            ..ONE_BYTE
        })
    }

    fn packets() -> impl Strategy<Value = Vec<Packet>> {
        let size = prop_oneof![3 => 1150..1180_usize, 1 => 0..=MAX_PAYLOAD];
        prop::collection::vec((0..4_u32, size, any::<bool>()), 1..300).prop_map(|mut packets| {
            packets.sort_by_key(|(frame, ..)| *frame);
            let make =
                |(frame, len, first): (u32, usize, bool)| if first { head(frame, len) } else { rest(frame, len) };
            packets.into_iter().map(make).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Header, payload and padding are together an RTP packet with the same payload, which fits into a datagram and
        /// is never longer than the longest of its frame.
        #[test]
        fn every_packet_is_whole(class in class(), packets in packets()) {
            let layout = lay_out(&class, &packets);
            let bare: Vec<usize> = (0..packets.len()).map(|n| layout.get(n).header.len() + packets[n].payload().len()).collect();
            for (n, packet) in packets.iter().enumerate() {
                let laid_out = layout.get(n);
                let whole = [laid_out.header, packet.payload(), laid_out.padding].concat();
                prop_assert!(whole.len() + 16 <= MAX_DATAGRAM);
                prop_assert!(laid_out.padding.len() <= MAX_PADDING);
                let header = RtpHeader::parse(&whole).expect("RTP");
                prop_assert_eq!(header.payload(&whole), packet.payload());
                if let (Some(id), Some(at)) = (class.transport_cc, laid_out.transport_cc) {
                    prop_assert_eq!(&whole[at..at + 2], &[0, 0]);
                    prop_assert_eq!(header.extension(&whole, id).map(<[u8]>::len), Some(2));
                }
                let largest = packets.iter().zip(&bare).filter(|(p, _)| p.timestamp == packet.timestamp).map(|(_, l)| *l).max();
                prop_assert!(laid_out.padding.is_empty() || Some(whole.len()) <= largest);
            }
        }
    }
}

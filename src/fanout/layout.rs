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

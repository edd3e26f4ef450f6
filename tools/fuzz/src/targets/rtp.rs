//! RTP headers: as they come, and as our writer lays them out.

use tableside::media::{
    AbsCaptureTime, FIXED_HEADER_LEN, HeaderFields, MAX_ELEMENTS, PlayoutDelay, RtpHeader, write_header,
};

use crate::input::Input;

/// The first byte chooses between reading and writing.
pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    if first & 1 == 0 { read(rest) } else { write(&mut Input::new(rest)) }
}

fn read(packet: &[u8]) {
    for header in [RtpHeader::parse(packet), RtpHeader::parse_header(packet)].into_iter().flatten() {
        assert!(header.header_len >= FIXED_HEADER_LEN);
        assert!(header.header_len + header.payload(packet).len() + usize::from(header.padding_len) <= packet.len());
        let mut values = 0;
        for (id, value) in header.extensions(packet) {
            assert_ne!(id, 0);
            values += value.len();
            assert!(header.extension(packet, id).is_some());
            let _ = PlayoutDelay::decode(value).map(PlayoutDelay::encode);
            if let Some(capture) = AbsCaptureTime::decode(value) {
                assert_eq!(AbsCaptureTime::decode(capture.encode(&mut [0; 16])), Some(capture));
            }
        }
        assert!(values <= header.header_len);
        // A shorter packet than the one parsed is a mistake of ours, and still no panic.
        let shorter = &packet[..packet.len() / 2];
        header.payload(shorter);
        header.extensions(shorter).count();
        let _ = header.resolve_padding(shorter);
    }
}

fn write(input: &mut Input<'_>) {
    let fields = HeaderFields {
        padding: false,
        marker: input.flag(),
        payload_type: input.byte() & 0x7f,
        sequence_number: input.word(),
        timestamp: input.long(),
        ssrc: input.long(),
    };
    let room = usize::from(input.word() % 1024);
    let mut elements: Vec<(u8, &[u8])> = Vec::new();
    while !input.is_empty() && elements.len() <= MAX_ELEMENTS {
        elements.push((input.byte(), input.short()));
    }
    let mut packet = vec![0xee; room];
    let Ok(layout) = write_header(&mut packet, &fields, &elements) else { return };
    let header = RtpHeader::parse(&packet).expect("what we write can be read");
    assert_eq!(header.header_len, layout.header_len);
    assert_eq!((header.marker, header.payload_type), (fields.marker, fields.payload_type));
    assert_eq!((header.sequence_number, header.timestamp), (fields.sequence_number, fields.timestamp));
    assert_eq!(header.ssrc, fields.ssrc);
    let read: Vec<(u8, &[u8])> = header.extensions(&packet).collect();
    assert_eq!(read, elements);
}

/// RTP packets as a browser's and an encoder's publisher send them.
pub(crate) fn packets() -> Vec<Vec<u8>> {
    let fixed = |first: u8, second: u8| {
        let mut packet = vec![first, second, 0x12, 0x34, 0, 1, 0xe2, 0x40, 0x22, 0x22, 0x22, 0x20];
        if first & 0x10 != 0 {
            // transport-wide number, mid, abs-send-time
            packet.extend([0xbe, 0xde, 0, 3, 0x31, 0, 7, 0x40, b'1', 0x22, 1, 2, 3, 0, 0, 0]);
        }
        packet
    };
    let vp8 = [fixed(0x90, 0x60), super::payload::VP8_KEYFRAME.to_vec()].concat();
    let h264 = [fixed(0x80, 0xe0), super::payload::H264_STAP_A.to_vec()].concat();
    let padded = [fixed(0xb0, 0x60), vec![0, 0, 0, 4]].concat();
    let mut two_byte = fixed(0x80, 0x6f);
    two_byte[0] |= 0x11;
    two_byte.extend([0, 0, 0, 9, 0x10, 0x00, 0, 2, 5, 3, 0, 0xa0, 0x64, 0, 16, 0, 0xfc, 1, 2]);
    vec![vp8, h264, padded, two_byte]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let read = packets().into_iter().map(|packet| [&[0], &packet[..]].concat());
    let head = [1, 1, 96, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 1, 0];
    let one_byte = [&head[..], &[3, 2, 0, 7, 5, 3, 0, 0, 0]].concat();
    let two_byte = [&head[..], &[3, 2, 0, 7, 200, 0]].concat();
    read.chain([one_byte, two_byte]).collect()
}

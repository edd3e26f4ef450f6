//! Facts of RTP payloads, of every codec whatever the payload was meant to be.

use tableside::media::{Codec, PayloadFacts, facts};

const CODECS: [Codec; 3] = [Codec::H264, Codec::Vp8, Codec::Opus];

pub(super) const VP8_KEYFRAME: &[u8] =
    &[0x90, 0xe0, 0x81, 0x23, 0x07, 0x40, 0x50, 0x01, 0x9d, 0x01, 0x2a, 0, 5, 0xd0, 2];
/// SPS, PPS and the head of an IDR slice.
pub(super) const H264_STAP_A: &[u8] = &[
    0x78, 0, 8, 0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x28, 0, 4, 0x68, 0xce, 0x3c, 0x80, 0, 4, 0x65, 0x88, 0x84, 0,
];

pub(crate) fn run(payload: &[u8]) {
    for codec in CODECS {
        let read = facts(codec, payload);
        if payload.is_empty() {
            assert_eq!(read, PayloadFacts::default(), "{codec} reads what is not there");
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let fu_a_start = [0x7c, 0x85, 0x88, 0x84, 0];
    let fu_a = [0x7c, 0x05, 1, 2, 3];
    let slice = [0x41, 0x9a, 0x24];
    let opus = [0xfc, 1, 2, 3];
    let vp8_interframe = [0x90, 0x80, 0x23, 0x51, 1];
    [VP8_KEYFRAME, H264_STAP_A, &fu_a_start, &fu_a, &slice, &opus, &vp8_interframe].map(<[u8]>::to_vec).to_vec()
}

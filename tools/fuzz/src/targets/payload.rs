//! RTP payloads: facts of every codec whatever the payload was meant to be, parameter sets, and RED.

use tableside::media::{Codec, ParameterSets, PayloadFacts, RedPayload, facts, red_facts};

pub(super) const VP8_KEYFRAME: &[u8] =
    &[0x90, 0xe0, 0x81, 0x23, 0x07, 0x40, 0x50, 0x01, 0x9d, 0x01, 0x2a, 0, 5, 0xd0, 2];
/// SPS, PPS and the head of an IDR slice.
pub(super) const H264_STAP_A: &[u8] = &[
    0x78, 0, 8, 0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x28, 0, 4, 0x68, 0xce, 0x3c, 0x80, 0, 4, 0x65, 0x88, 0x84, 0,
];
/// Two blocks of Opus.
pub(super) const RED: &[u8] = &[0xef, 0x0f, 0x00, 0x02, 0x6f, 1, 2, 7, 8, 9];

pub(crate) fn run(payload: &[u8]) {
    for codec in Codec::ALL {
        let read = facts(codec, payload);
        if payload.is_empty() {
            assert_eq!(read, PayloadFacts::default(), "{codec} reads what is not there");
        }
        let mut sets = ParameterSets::new(codec);
        sets.observe(payload);
        if let Some(made) = sets.payload() {
            assert!(facts(codec, made).parameter_sets, "what is made of parameter sets has some");
            let mut again = ParameterSets::new(codec);
            again.observe(made);
            assert_eq!(again.payload(), Some(made), "what we write can be read");
        }
    }
    assert_eq!(red_facts(payload).primary.is_some(), RedPayload::parse(payload).is_some());
    if let Some(red) = RedPayload::parse(payload) {
        let redundant: usize = red.redundant().map(|block| block.payload.len()).sum();
        assert!(redundant < payload.len() && usize::from(red.primary.offset) < payload.len());
    }
}

/// What encoders send, of each codec.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let h264: [&[u8]; 4] = [H264_STAP_A, &[0x7c, 0x85, 0x88, 0x84, 0], &[0x7c, 0x05, 1, 2, 3], &[0x41, 0x9a, 0x24]];
    let vp8: [&[u8]; 2] = [VP8_KEYFRAME, &[0x90, 0x80, 0x23, 0x51, 1]];
    // A key picture with a scalability structure; a frame of an upper layer; flexible mode with references.
    let vp9: [&[u8]; 3] = [
        &[0xaa, 0x81, 0x23, 0x00, 0x07, 0x58, 0, 160, 0, 90, 1, 64, 0, 180, 2, 128, 1, 104, 1, 0x14, 1, 0x82, 0x49],
        &[0xe8, 0x23, 0x23, 0x07, 0x86],
        &[0xd8, 0x81, 0x24, 0x03, 0x04, 0x86],
    ];
    // Sequence header and frame, the latter without a length; elements each with its length; a continuation.
    let av1: [&[u8]; 3] = [&[0x28, 3, 0x08, 0, 0, 0x30, 0x10], &[0x00, 2, 0x34, 0x08, 3, 0x30, 0x10, 1], &[0x90, 1, 2]];
    // Aggregated VPS, SPS and PPS; the start of a fragmented IDR; PACI around a slice.
    let h265: [&[u8]; 3] = [
        &[0x60, 1, 0, 3, 0x40, 1, 0x0c, 0, 3, 0x42, 1, 1, 0, 3, 0x44, 1, 0xc0],
        &[0x62, 1, 0x93, 0xaf],
        &[0x64, 1, 0x02, 0x10, 0xff, 0x80],
    ];
    let audio: [&[u8]; 2] = [RED, &[0xfc, 1, 2, 3]];
    let all = [&h264[..], &vp8, &vp9, &av1, &h265, &audio];
    all.concat().into_iter().map(<[u8]>::to_vec).collect()
}

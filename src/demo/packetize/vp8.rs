//! RFC 7741, with a picture id of 15 bits: a receiver then notices a frame that is lost whole.

use super::{PacketizeError, Payloads, equal_pieces};

/// Bits of the payload descriptor (RFC 7741 §4.2).
const EXTENDED: u8 = 0x80;
const START_OF_PARTITION: u8 = 0x10;
const PICTURE_ID_PRESENT: u8 = 0x80;
const LONG_PICTURE_ID: u8 = 0x80;

const DESCRIPTOR: usize = 4;

/// Increments by one per frame and wraps at 2¹⁵.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PictureId(u16);

impl PictureId {
    fn take(&mut self) -> [u8; 2] {
        let [high, low] = self.0.to_be_bytes();
        self.0 = (self.0 + 1) & 0x7fff;
        [LONG_PICTURE_ID | high, low]
    }
}

/// The frame counts as one partition: §4.4 allows to cut anywhere, S marks the first packet, PID stays 0.
pub(super) fn packetize(
    frame: &[u8],
    picture_id: &mut PictureId,
    max_payload: usize,
    out: &mut Payloads,
) -> Result<(), PacketizeError> {
    if frame.is_empty() {
        return Err(PacketizeError::Empty);
    }
    let [high, low] = picture_id.take();
    for (i, piece) in equal_pieces(frame, max_payload - DESCRIPTOR).enumerate() {
        let start = if i == 0 { START_OF_PARTITION } else { 0 };
        out.push(&[&[EXTENDED | start, PICTURE_ID_PRESENT, high, low], piece]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::demo::clip::Clip;
    use crate::demo::packetize::Packetizer;
    use crate::media::Codec;

    /// The picture id and the frame; panics where the descriptors do not belong together.
    fn depacketize(payloads: &Payloads) -> (u16, Vec<u8>) {
        let mut ids = Vec::new();
        let mut frame = Vec::new();
        for (i, payload) in payloads.iter().enumerate() {
            let [first, extension, high, low, piece @ ..] = payload else { panic!("no descriptor") };
            assert_eq!(*first, if i == 0 { 0x90 } else { 0x80 });
            assert_eq!(*extension, 0x80);
            assert_eq!(high & 0x80, 0x80);
            ids.push(u16::from_be_bytes([high & 0x7f, *low]));
            frame.extend(piece);
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "one frame, one picture id");
        (ids[0], frame)
    }

    #[test]
    fn the_clip_survives() {
        let mut packetizer = Packetizer::new(Codec::Vp8, 1150);
        let mut out = Payloads::default();
        for (i, frame) in Clip::vp8().unwrap().video.iter().enumerate() {
            packetizer.packetize(&frame.data, &mut out).unwrap();
            assert_eq!(depacketize(&out), (i as u16, frame.data.to_vec()));
        }
    }

    #[test]
    fn picture_ids_wrap_at_15_bits_and_an_empty_frame_takes_none() {
        let mut packetizer = Packetizer::new(Codec::Vp8, 64);
        let mut out = Payloads::default();
        for i in 0..=0x8000u32 {
            packetizer.packetize(&[1], &mut out).unwrap();
            assert_eq!(depacketize(&out).0, (i & 0x7fff) as u16);
        }
        assert_eq!(packetizer.packetize(&[], &mut out), Err(PacketizeError::Empty));
        packetizer.packetize(&[1], &mut out).unwrap();
        assert_eq!(depacketize(&out).0, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_frame_survives(frame in proptest::collection::vec(any::<u8>(), 1..2000), max_payload in 64usize..300) {
            let mut out = Payloads::default();
            Packetizer::new(Codec::Vp8, max_payload).packetize(&frame, &mut out).unwrap();
            prop_assert!(out.iter().all(|payload| payload.len() <= max_payload));
            prop_assert_eq!(depacketize(&out).1, frame);
        }
    }
}

//! Frames of upper spatial layers that do not need the one below them in their picture, made to say that they do.
//!
//! Where an upper layer rests on the one below in key pictures alone (`L3T3_KEY`), or never (`S3T3`), Chromium shows a picture as soon as the
//! frame of its highest layer is there, whatever is missing below it (`FrameBuffer`). If a packet of the lower frame was lost, its
//! repair is too late then, every later frame of the lower layer lacks a reference, no picture can be shown any more, and after three
//! seconds Chromium asks for a keyframe. A receiver waits for the repair if the upper frame refers to the lower one. It costs nothing
//! here: who is given a spatial layer is given those below as well.
//!
//! By RFC 9628 §4.2, D says that a layer frame depends on the one below it in the same picture. Here the encoder has not made that
//! dependency: the node makes it, by what it forwards.

use super::dependency_descriptor::MAX_DESCRIPTOR;
use super::{Codec, DescriptorReader, Packet, vp9};

/// That a frame of an upper spatial layer has one of the layer below in its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    /// A packet of it is just before.
    Known,
    /// What is just before is missing, and pictures had one there before.
    Supposed,
}

/// Finds out of which frames it may be said that they rest on the one below: a receiver would wait forever for one that there is not.
#[derive(Debug, Default)]
pub struct SpatialTies {
    /// The last frame of an upper layer whose packet before was there came behind one of the layer below.
    comes_behind: bool,
    /// A payload that says so. Empty until the first.
    payload: Vec<u8>,
    /// A dependency descriptor that says so.
    descriptor: Option<Box<[u8; MAX_DESCRIPTOR]>>,
}

impl SpatialTies {
    /// What is known of the frame below that of a packet of an upper `spatial` layer, in its picture, `timestamp`. `before` is the packet
    /// just before it in its track.
    pub fn lower(&mut self, before: Option<&Packet>, timestamp: u32, spatial: u8) -> Option<Lower> {
        // Padding is of no picture.
        let Some(before) = before.filter(|before| !before.payload().is_empty()) else {
            return self.comes_behind.then_some(Lower::Supposed);
        };
        let layer = before.facts.spatial_layer.filter(|_| before.timestamp == timestamp);
        if layer == Some(spatial) {
            // Of the same frame, which matters of VP9 alone: there each packet says it.
            return vp9::rests_on_lower(before.payload()).then_some(Lower::Known);
        }
        self.comes_behind = layer.is_some_and(|layer| layer + 1 == spatial);
        self.comes_behind.then_some(Lower::Known)
    }

    /// Another source has come.
    pub fn restart(&mut self) {
        self.comes_behind = false;
    }

    /// Payload and dependency descriptor of a packet whose frame has that one below it, as they are passed on. `reader` has read the
    /// descriptor, if the packet is the first of its frame.
    pub fn tie<'a>(
        &'a mut self,
        codec: Codec,
        lower: Lower,
        reader: Option<&mut DescriptorReader>,
        (mut payload, mut descriptor): (&'a [u8], &'a [u8]),
    ) -> (&'a [u8], &'a [u8]) {
        if codec == Codec::Vp9 {
            self.payload.clear();
            self.payload.extend_from_slice(payload);
            vp9::rest_on_lower(&mut self.payload);
            payload = &self.payload;
        }
        if let Some(reader) = reader {
            let buffer = self.descriptor.get_or_insert_with(|| Box::new([0; MAX_DESCRIPTOR]));
            let len = reader.refer_to_lower(descriptor, lower == Lower::Known, buffer);
            descriptor = len.map_or(descriptor, |len| &buffer[..len]);
        }
        (payload, descriptor)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::media::{ClearPacket, Position, facts};

    /// Flexible mode: I, P, L, F, B or not, a picture id; the layer; one reference; a byte of the frame.
    fn payload(spatial: u8, begins: bool) -> Vec<u8> {
        vec![0xf0 | u8::from(begins) << 3, 0x05, spatial << 1, 0x02, 0x86]
    }

    fn packet(timestamp: u32, payload: &[u8]) -> Packet {
        let clear = ClearPacket {
            position: Position { epoch: 0, index: 0, timestamp },
            marker: false,
            facts: facts(Codec::Vp9, payload),
            arrival: Instant::now(),
            capture: None,
            dependency_descriptor: &[],
            payload,
        };
        Packet::new(&clear).expect("short")
    }

    fn tied(ties: &mut SpatialTies, payload: &[u8]) -> Vec<u8> {
        ties.tie(Codec::Vp9, Lower::Known, None, (payload, &[])).0.to_vec()
    }

    #[test]
    fn a_frame_is_tied_to_the_one_before_it_in_its_picture_alone() {
        let mut ties = SpatialTies::default();
        assert_eq!(ties.lower(None, 7, 1), None, "nothing is known");
        assert_eq!(ties.lower(Some(&packet(7, &payload(0, true))), 7, 1), Some(Lower::Known));
        assert_eq!(ties.lower(None, 8, 1), Some(Lower::Supposed), "as it was last");
        assert_eq!(
            ties.lower(Some(&packet(8, &payload(0, true))), 9, 1),
            None,
            "the encoder has left the lower layer out"
        );
        assert_eq!(ties.lower(None, 10, 1), None, "as it was last");
        assert_eq!(ties.lower(Some(&packet(10, &payload(0, true))), 10, 2), None, "or the one between");
        assert_eq!(ties.lower(Some(&packet(10, &payload(1, true))), 10, 2), Some(Lower::Known));
        assert_eq!(ties.lower(Some(&packet(11, &[])), 11, 2), Some(Lower::Supposed), "padding says nothing");
        ties.restart();
        assert_eq!(ties.lower(None, 12, 2), None, "of another source nothing is known");
    }

    #[test]
    fn all_packets_of_a_frame_say_the_same() {
        let mut ties = SpatialTies::default();
        let first = tied(&mut ties, &payload(1, true));
        assert_eq!(ties.lower(Some(&packet(7, &first)), 7, 1), Some(Lower::Known));
        assert_eq!(ties.lower(Some(&packet(7, &payload(1, true))), 7, 1), None);
    }

    #[test]
    fn only_one_bit_is_another() {
        let mut ties = SpatialTies::default();
        for head in [&[0x28][..], &[0xa8, 0x05], &[0xa8, 0x85, 0x01]] {
            let (before, after) = ([head, &[0x22, 9, 0x86, 1]].concat(), [head, &[0x23, 9, 0x86, 1]].concat());
            assert_eq!(tied(&mut ties, &before), after);
            assert_eq!(tied(&mut ties, &after), after);
        }
        for cut in [&[][..], &[0x08, 0x82], &[0xa8], &[0xa8, 0x85, 0x01]] {
            assert_eq!(tied(&mut ties, cut), cut, "no layer to speak of");
        }
        let (other, descriptor) = ([0x28, 0x22, 9, 0x86], [0xc4, 0, 7]);
        let mut reader = DescriptorReader::default();
        let passed = ties.tie(Codec::Av1, Lower::Known, Some(&mut reader), (&other, &descriptor));
        assert_eq!(passed, (&other[..], &descriptor[..]), "of no structure that is known");
    }
}

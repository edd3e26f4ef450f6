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

use super::{Packet, vp9};

/// Finds out of which frames that may be said: a receiver would wait forever for a frame below that there is not.
#[derive(Debug, Default)]
pub struct SpatialTies {
    /// The last frame of an upper layer whose packet before was there came behind one of the layer below.
    comes_behind: bool,
    /// A payload that says so. Empty until the first.
    payload: Vec<u8>,
}

impl SpatialTies {
    /// Whether a packet of an upper `spatial` layer is of a frame that has one of the layer below in its picture, `timestamp`. `before` is
    /// the packet just before it in its track. Where that is missing, it is taken to be as it was last.
    pub fn has_lower(&mut self, before: Option<&Packet>, timestamp: u32, spatial: u8) -> bool {
        match before.filter(|before| !before.payload().is_empty()) {
            None => self.comes_behind,
            // Of the same frame, which matters of VP9 alone: there each packet says it.
            Some(before) if before.timestamp == timestamp && before.facts.spatial_layer == Some(spatial) => {
                vp9::rests_on_lower(before.payload())
            }
            Some(before) => {
                let lower = before.facts.spatial_layer.filter(|_| before.timestamp == timestamp);
                self.comes_behind = lower.is_some_and(|lower| lower + 1 == spatial);
                self.comes_behind
            }
        }
    }

    /// Another source has come.
    pub fn restart(&mut self) {
        self.comes_behind = false;
    }

    /// A VP9 payload of an upper layer with D set.
    pub fn tie_vp9(&mut self, payload: &[u8]) -> &[u8] {
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        vp9::rest_on_lower(&mut self.payload);
        &self.payload
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::media::{ClearPacket, Codec, Position, facts};

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

    #[test]
    fn a_frame_is_tied_to_the_one_before_it_in_its_picture_alone() {
        let mut ties = SpatialTies::default();
        assert!(!ties.has_lower(None, 7, 1), "nothing is known");
        assert!(ties.has_lower(Some(&packet(7, &payload(0, true))), 7, 1));
        assert!(ties.has_lower(None, 8, 1), "as it was last");
        assert!(!ties.has_lower(Some(&packet(8, &payload(0, true))), 9, 1), "the encoder has left the lower layer out");
        assert!(!ties.has_lower(None, 10, 1), "as it was last");
        assert!(!ties.has_lower(Some(&packet(10, &payload(0, true))), 10, 2), "or the one between");
        assert!(ties.has_lower(Some(&packet(10, &payload(1, true))), 10, 2));
        assert!(ties.has_lower(Some(&packet(11, &[])), 11, 2), "padding says nothing");
    }

    #[test]
    fn all_packets_of_a_frame_say_the_same() {
        let mut ties = SpatialTies::default();
        for tied in [true, false] {
            let first = if tied { ties.tie_vp9(&payload(1, true)).to_vec() } else { payload(1, true) };
            assert_eq!(ties.has_lower(Some(&packet(7, &first)), 7, 1), tied);
        }
    }

    #[test]
    fn only_one_bit_is_another() {
        let mut ties = SpatialTies::default();
        for head in [&[0x28][..], &[0xa8, 0x05], &[0xa8, 0x85, 0x01]] {
            let (before, after) = ([head, &[0x22, 9, 0x86, 1]].concat(), [head, &[0x23, 9, 0x86, 1]].concat());
            assert_eq!(ties.tie_vp9(&before), after);
            assert_eq!(ties.tie_vp9(&after), after);
        }
        for cut in [&[][..], &[0x08, 0x82], &[0xa8], &[0xa8, 0x85, 0x01]] {
            assert_eq!(ties.tie_vp9(cut), cut, "no layer to speak of");
        }
    }
}

//! What packets of a layer are moved by for a player that had another layer before.

use crate::media::{Codec, Packet, Vp8Numbers, is_newer};

/// Frames that are older than what was sent of the layer before follow it at this fraction of their distance.
const SQUEEZE: u32 = 64;

/// How far plain timestamps are past the squeezed ones when no packet can be among those any more: 11 s.
const SQUEEZE_IS_OVER: u32 = 1 << 20;

/// Moves one layer's times and numbers to where those of the layer before stopped. Layers of one picture count from random
/// numbers each; to a player all of them are one RTP stream.
///
/// Timestamps tell the time of capture as before, so that sound stays in step. Where the layer begins with frames that are
/// older than what the player has had, which it must not see going back, they follow close behind that, until the layer is
/// ahead by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift {
    /// Added to timestamps.
    offset: u32,
    squeeze: Option<Squeeze>,
    numbers: Numbers,
}

/// What is added to the numbers by which receivers tell whether a picture is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Of dependency descriptors.
    frame_number: u16,
    /// Of VP8's descriptors, which are part of the payload.
    vp8: Option<Vp8Numbers>,
}

impl Numbers {
    /// So that those of `first` follow those of `last`, which the player has with `before` added.
    pub(super) fn following(codec: Codec, last: &Packet, before: &Self, first: &Packet) -> Self {
        let after = |last: u16, before: u16, first: u16| last.wrapping_add(before).wrapping_add(1).wrapping_sub(first);
        let frame_number = frame_number(last.dependency_descriptor()).zip(frame_number(first.dependency_descriptor()));
        let vp8 = || {
            let (last, first) = (Vp8Numbers::of(last.payload()), Vp8Numbers::of(first.payload()));
            let before = before.vp8.unwrap_or_default();
            let ids = last.picture_id.zip(first.picture_id);
            let tl0 = last.tl0_picture_index.zip(first.tl0_picture_index);
            let tl0_before = before.tl0_picture_index.unwrap_or(0);
            Vp8Numbers {
                picture_id: ids.map(|(last, first)| after(last, before.picture_id.unwrap_or(0), first)),
                tl0_picture_index: tl0.map(|(last, first)| after(last.into(), tl0_before.into(), first.into()) as u8),
            }
        };
        Self {
            frame_number: frame_number.map_or(0, |(last, first)| after(last, before.frame_number, first)),
            vp8: (codec == Codec::Vp8).then(vp8),
        }
    }
}

impl Numbers {
    /// Nothing is added yet, but VP8's numbers are looked at.
    pub(super) fn of_vp8() -> Self {
        Self { vp8: Some(Vp8Numbers::default()), ..Self::default() }
    }

    /// So that picture ids go on where this many pictures were left out. TL0PICIDX counts those of the base layer, of which
    /// none ever is; a dependency descriptor names frames by their distance, and keeps its numbers.
    pub(super) fn without(self, pictures: u64) -> Self {
        let left_out = |vp8: Vp8Numbers| match pictures {
            0 => vp8,
            _ => Vp8Numbers { picture_id: Some(vp8.picture_id.unwrap_or(0).wrapping_sub(pictures as u16)), ..vp8 },
        };
        Self { vp8: self.vp8.map(left_out), ..self }
    }
}

/// The frame number of a dependency descriptor (RTP Payload Format For AV1, §A.8.1): behind the first byte.
fn frame_number(descriptor: &[u8]) -> Option<u16> {
    let &[_, high, low] = descriptor.first_chunk()?;
    Some(u16::from_be_bytes([high, low]))
}

/// Where timestamps begin that would else go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Squeeze {
    /// The layer's timestamp of its first frame here, and the player's.
    from: u32,
    to: u32,
}

impl Shift {
    /// The layer begins with a frame of `timestamp`, at the time for which the layer before has `at` by the player's count.
    /// The player has had frames up to `newest`.
    pub(super) fn new(timestamp: u32, at: u32, newest: u32, numbers: Numbers) -> Self {
        let least = newest.wrapping_add(1);
        let start = if is_newer(at, newest) { at } else { least };
        let squeeze = (start != at).then_some(Squeeze { from: timestamp, to: start });
        Self { offset: at.wrapping_sub(timestamp), squeeze, numbers }
    }

    /// The player's timestamp for one of the layer's. Strictly rising where the layer's is, if its frames are [`SQUEEZE`]
    /// ticks apart. The same each time, for a repetition of the packet as well.
    pub(super) fn timestamp(&self, timestamp: u32) -> u32 {
        let plain = timestamp.wrapping_add(self.offset);
        match self.squeezed(timestamp) {
            Some(squeezed) if is_newer(squeezed, plain) => squeezed,
            _ => plain,
        }
    }

    /// Changes nothing, and is asked about payloads of VP8.
    pub(super) fn of_vp8() -> Self {
        Self { offset: 0, squeeze: None, numbers: Numbers::of_vp8() }
    }

    /// Is asked about payloads of VP8 from now on.
    pub(super) fn look_at_vp8(&mut self) {
        self.numbers.vp8.get_or_insert_default();
    }

    /// Writes them into a header: the timestamp, and the frame number of the dependency descriptor that begins at
    /// `descriptor`, unless that is 0.
    pub(super) fn apply(&self, header: &mut [u8], descriptor: u8) {
        let timestamp = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        header[4..8].copy_from_slice(&self.timestamp(timestamp).to_be_bytes());
        let at = usize::from(descriptor);
        if let Some(number) = header.get_mut(at + 1..at + 3).filter(|_| at > 0) {
            let moved = u16::from_be_bytes([number[0], number[1]]).wrapping_add(self.numbers.frame_number);
            number.copy_from_slice(&moved.to_be_bytes());
        }
    }

    /// Whether [`Shift::apply_to_payload`] has to be asked.
    pub(super) fn changes_payload(&self) -> bool {
        self.numbers.vp8.is_some()
    }

    /// Moves the numbers in a private copy of a payload, of a player that was not given so many pictures before.
    pub(super) fn apply_to_payload(&self, payload: &mut [u8], left_out: u64) {
        if let Some(offset) = &self.numbers.without(left_out).vp8 {
            Vp8Numbers::advance(payload, offset);
        }
    }

    /// What it adds, for another layer that follows.
    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The layer is at `timestamp`: forgets what no packet needs any more, before the timestamps come round.
    pub(super) fn go_on(&mut self, timestamp: u32) {
        let plain = timestamp.wrapping_add(self.offset);
        let is_over = |squeezed: u32| is_newer(plain, squeezed) && plain.wrapping_sub(squeezed) > SQUEEZE_IS_OVER;
        if self.squeezed(timestamp).is_some_and(is_over) {
            self.squeeze = None;
        }
    }

    fn squeezed(&self, timestamp: u32) -> Option<u32> {
        let Squeeze { from, to } = self.squeeze?;
        Some(to.wrapping_add((timestamp.wrapping_sub(from) as i32 / SQUEEZE as i32) as u32))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_layer_tells_the_same_time() {
        let shift = Shift::new(77_000, 3500, 500, Numbers::default());
        assert_eq!((shift.timestamp(77_000), shift.timestamp(80_000)), (3500, 6500));
    }

    #[test]
    fn a_layer_that_is_behind_catches_up_without_going_back() {
        let newest = u32::MAX - 5000;
        // Its keyframe was captured three frames before the newest that was sent.
        let mut shift = Shift::new(1000, newest.wrapping_sub(9000), newest, Numbers::default());
        let frames: Vec<u32> = (0..8).map(|n| shift.timestamp(1000 + n * 3000)).collect();
        assert_eq!(frames[0], newest.wrapping_add(1));
        assert!(frames.windows(2).all(|pair| is_newer(pair[1], pair[0])), "{frames:?}");
        assert_eq!(frames[7], newest.wrapping_add(4 * 3000), "in step with sound again");
        shift.go_on(1000 + 7 * 3000);
        assert_eq!(shift.timestamp(4000), frames[1], "a repaired packet stays in its frame");
        // Whatever the timestamps do later, the squeeze is forgotten.
        for n in 1..60_u32 {
            let far = 1000_u32.wrapping_add(n.wrapping_mul(100_000_000));
            shift.go_on(far);
            assert_eq!(shift.timestamp(far), far.wrapping_sub(1000).wrapping_add(newest.wrapping_sub(9000)));
        }
    }

    proptest! {
        #[test]
        fn times_never_go_back(first: u32, newest: u32, behind in 0_u32..1 << 20, steps in prop::collection::vec(64_u32..90_000, 1..60)) {
            let mut shift = Shift::new(first, newest.wrapping_sub(behind), newest, Numbers::default());
            let (mut last, mut timestamp) = (newest, first);
            for step in steps {
                shift.go_on(timestamp);
                let now = shift.timestamp(timestamp);
                prop_assert!(is_newer(now, last));
                last = now;
                timestamp = timestamp.wrapping_add(step);
            }
        }
    }
}

//! One reference more for a frame that has none to the frame below it in its picture.

use super::{Bits, DescriptorReader, References, flag};
use crate::media::dependency_descriptor::MAX_DESCRIPTOR;

/// The most references of a frame: libwebrtc drops one that has more.
const TAKEN: usize = 5;

impl DescriptorReader {
    /// The descriptor `value`, which was [read](Self::read) last and begins a frame of an upper spatial layer, with a reference to
    /// the frame numbered just before, if it has none; how much was written to `buffer`. The number "increases strictly monotonically
    /// in decode order" (RTP Payload Format For AV1 §A.8), by one in what encoders write. `is_known`: a packet of that frame has
    /// come just before this one.
    ///
    /// `None` for one that stays as it is: it refers to that frame, is full, or frames are not numbered so.
    pub fn refer_to_lower(&mut self, value: &[u8], is_known: bool, buffer: &mut [u8; MAX_DESCRIPTOR]) -> Option<usize> {
        let mut bits = Bits::new(value);
        let mut written = Written { buffer, next: 0 };
        let head = bits.take(8)?;
        let number = bits.take(16)?;
        let flags = if value.len() > 3 { bits.take(5)? } else { 0 };
        let has = |flag: u64| flags & flag != 0;
        // A structure comes with the lowest layer, or where none rests on another, with each of a key picture.
        let known = self.known.as_deref_mut().filter(|_| !self.is_over && !has(flag::STRUCTURE))?;
        if is_known {
            known.are_numbered_on = known.has_seen((number as u16).wrapping_sub(1));
        }
        if !known.are_numbered_on {
            return None;
        }
        written.put(head, 8)?;
        written.put(number, 16)?;
        written.put(flags | flag::CUSTOM_REFERENCES, 5)?;
        let targets = usize::from(known.structure.targets);
        let copied = if has(flag::ACTIVE_TARGETS) { targets } else { 0 }
            + if has(flag::CUSTOM_INDICATIONS) { 2 * targets } else { 0 };
        written.copy(&mut bits, copied)?;
        let references = match has(flag::CUSTOM_REFERENCES) {
            true => References::read(&mut bits)?,
            false => known.structure.template(head as u8 & 0x3f)?.references,
        };
        let distances = &references.distances[..usize::from(references.count)];
        if references.is_cut || distances.len() >= TAKEN || distances.contains(&1) {
            return None;
        }
        for distance in distances.iter().chain([&1]) {
            // `next_fdiff_size`, and as many times four bits.
            let size = match distance - 1 {
                0..=0xf => 1,
                0x10..=0xff => 2,
                _ => 3,
            };
            written.put(size, 2)?;
            written.put(u64::from(distance - 1), 4 * size as usize)?;
        }
        written.put(0, 2)?;
        if has(flag::CUSTOM_CHAINS) {
            let rest = 8 * value.len() - bits.next;
            written.copy(&mut bits, rest)?;
        }
        Some(written.next.div_ceil(8))
    }
}

/// Bits that are written one after the other, the first the highest.
struct Written<'a> {
    buffer: &'a mut [u8; MAX_DESCRIPTOR],
    next: usize,
}

impl Written<'_> {
    fn put(&mut self, value: u64, count: usize) -> Option<()> {
        for bit in (0..count).rev() {
            let (at, within) = (self.next / 8, self.next % 8);
            let byte = self.buffer.get_mut(at)?;
            if within == 0 {
                *byte = 0;
            }
            *byte |= ((value >> bit & 1) as u8) << (7 - within);
            self.next += 1;
        }
        Some(())
    }

    fn copy(&mut self, from: &mut Bits<'_>, count: usize) -> Option<()> {
        for _ in 0..count {
            self.put(from.take(1)?, 1)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{L2T2_KEY, Writer, head, indication, plain, with_structure};
    use super::*;

    fn reader(number: u16) -> DescriptorReader {
        let mut reader = DescriptorReader::default();
        reader.read(0, &with_structure(&L2T2_KEY, 0, 0, number, 2, false).bytes()).expect("well-formed");
        reader
    }

    /// What `value` says of its frame's references once it has one more; `None` if it stays as it is.
    fn tied(reader: &mut DescriptorReader, value: &[u8], is_known: bool) -> Option<Vec<u16>> {
        let before = reader.read(0, value).expect("well-formed");
        let mut buffer = [0xff; MAX_DESCRIPTOR];
        let len = reader.refer_to_lower(value, is_known, &mut buffer)?;
        let written = &buffer[..len];
        assert_eq!((&written[..3], reader.read(0, written)), (&value[..3], Some(before)), "the rest stays");
        let mut bits = Bits { bytes: written, next: 24 };
        let flags = bits.take(5).expect("extended");
        let skipped = if flags & flag::ACTIVE_TARGETS != 0 { 4 } else { 0 }
            + if flags & flag::CUSTOM_INDICATIONS != 0 { 8 } else { 0 };
        bits.take(skipped).expect("room");
        let references = References::read(&mut bits).expect("some");
        Some(references.distances[..usize::from(references.count)].to_vec())
    }

    #[test]
    fn a_frame_of_an_upper_layer_refers_to_the_one_below_as_well() {
        let mut reader = reader(100);
        assert_eq!(tied(&mut reader, &plain(3, 101), true), None, "of a key picture it does already");
        reader.read(0, &plain(1, 104)).expect("well-formed");
        assert_eq!(tied(&mut reader, &plain(4, 105), true), Some(vec![4, 1]));
        assert_eq!(tied(&mut reader, &plain(5, 107), false), Some(vec![2, 1]), "the one below is lost, or late");
    }

    #[test]
    fn frames_that_are_numbered_otherwise_are_left_alone() {
        let mut reader = reader(100);
        reader.read(0, &plain(1, 104)).expect("well-formed");
        assert_eq!(tied(&mut reader, &plain(4, 109), true), None);
        assert_eq!(tied(&mut reader, &plain(4, 111), false), None, "nor is that believed of the next");
        reader.read(0, &plain(1, 112)).expect("well-formed");
        assert_eq!(tied(&mut reader, &plain(4, 113), true), Some(vec![4, 1]));
    }

    #[test]
    fn nothing_is_known_of_a_structure_that_is_over_and_none_is_written_anew() {
        let mut buffer = [0; MAX_DESCRIPTOR];
        assert_eq!(DescriptorReader::default().refer_to_lower(&plain(4, 105), true, &mut buffer), None);
        let mut known = reader(100);
        let key = with_structure(&L2T2_KEY, 0, 4, 101, 2, false).bytes();
        assert_eq!(known.refer_to_lower(&key, true, &mut buffer), None);
        assert_eq!(known.refer_to_lower(&plain(6, 101), true, &mut buffer), None, "no such template");
        known.read(1, &plain(4, 101));
        assert_eq!(known.refer_to_lower(&plain(4, 101), true, &mut buffer), None, "another source");
    }

    #[test]
    fn what_a_frame_says_for_itself_is_kept() {
        let mut reader = reader(100);
        let all = flag::ACTIVE_TARGETS | flag::CUSTOM_INDICATIONS | flag::CUSTOM_REFERENCES | flag::CUSTOM_CHAINS;
        let mut custom = head(4, 101, all);
        custom.put(0xf, 4);
        "--SS".chars().for_each(|letter| {
            custom.put(indication(letter), 2);
        });
        // Distances 17 and 300, and two chains.
        custom.put(2, 2).put(16, 8).put(3, 2).put(299, 12).put(0, 2).put(0xa5, 8).put(0x3c, 8);
        let value = custom.bytes();
        assert_eq!(tied(&mut reader, &value, true), Some(vec![17, 300, 1]));
        let mut expected = head(4, 101, all);
        expected.put(0xf, 4);
        "--SS".chars().for_each(|letter| {
            expected.put(indication(letter), 2);
        });
        expected.put(2, 2).put(16, 8).put(3, 2).put(299, 12).put(1, 2).put(0, 4).put(0, 2).put(0xa5, 8).put(0x3c, 8);
        let (mut buffer, expected) = ([0; MAX_DESCRIPTOR], expected.bytes());
        let len = reader.refer_to_lower(&value, true, &mut buffer).expect("as before");
        // What filled the last byte is copied with the chains.
        assert_eq!(&buffer[..expected.len()], expected);
        assert!(buffer[expected.len()..len].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_frame_has_no_more_references_than_receivers_take() {
        let mut reader = reader(100);
        let with = |count: u64| {
            let mut custom = head(4, 101, flag::CUSTOM_REFERENCES);
            (0..count).for_each(|at| {
                custom.put(1, 2).put(3 + at, 4);
            });
            custom.put(0, 2).bytes()
        };
        assert_eq!(tied(&mut reader, &with(4), true), Some(vec![4, 5, 6, 7, 1]));
        assert_eq!(tied(&mut reader, &with(5), true), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_written_so_that_they_say_the_same(values in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..30), any::<bool>()), 1..20,
        )) {
            let mut reader = reader(0);
            for (value, is_known) in values {
                let read = reader.read(0, &value);
                let mut buffer = [0; MAX_DESCRIPTOR];
                let Some(len) = reader.refer_to_lower(&value, is_known, &mut buffer) else { continue };
                let again = reader.read(0, &buffer[..len]);
                let plainly = |said: Option<super::super::Described>| {
                    said.map(|said| (said.spatial_layer, said.temporal_layer, said.ends_layer_frame))
                };
                prop_assert_eq!(plainly(again), plainly(read));
                let again = reader.refer_to_lower(&buffer[..len], is_known, &mut [0; MAX_DESCRIPTOR]);
                prop_assert_eq!(again, None, "once");
            }
        }

        #[test]
        fn bits_are_read_back(parts in prop::collection::vec((any::<u16>(), 1_usize..=16), 0..40)) {
            let (mut buffer, mut expected) = ([0xff; MAX_DESCRIPTOR], Writer::default());
            let mut written = Written { buffer: &mut buffer, next: 0 };
            for (value, count) in &parts {
                written.put(u64::from(*value), *count).expect("room");
                expected.put(u64::from(*value), *count as u32);
            }
            let len = written.next.div_ceil(8);
            prop_assert_eq!(&buffer[..len], expected.bytes());
        }
    }
}

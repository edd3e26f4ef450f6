//! The dependency descriptor (RTP Payload Format For AV1, Appendix A), as far as a forwarder that passes all layers on
//! touches it: the frame numbers, where the publisher is another.

/// The longest value in bytes that a header extension carries.
pub const MAX_DESCRIPTOR: usize = 255;

/// Frame numbers of a track's descriptors over epochs. A receiver drops a key frame whose number is behind that of the
/// structure it has, so that a publisher who came back with numbers of its own would stay dark.
///
/// Only the number is rewritten: a structure comes with the first packet of every coded video sequence (§A.8), and the
/// rest of a descriptor counts back from its own frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct DescriptorNumbers {
    epoch: Option<u32>,
    /// Added to the publisher's numbers.
    offset: u16,
    /// The newest number that went out.
    newest: Option<u16>,
}

impl DescriptorNumbers {
    /// `value` as it is passed on, written to `buffer`; empty if it is no descriptor.
    ///
    /// §A.8.1: every descriptor begins with start_of_frame, end_of_frame, a template id of 6 bits, and 16 bits of frame
    /// number.
    pub fn rewrite<'b>(&mut self, epoch: u32, value: &[u8], buffer: &'b mut [u8; MAX_DESCRIPTOR]) -> &'b [u8] {
        let (Some(written), Some(&[_, high, low])) = (buffer.get_mut(..value.len()), value.first_chunk()) else {
            return &[];
        };
        let number = u16::from_be_bytes([high, low]);
        if self.epoch.replace(epoch) != Some(epoch) {
            self.offset = self.newest.map_or(0, |newest| newest.wrapping_add(1).wrapping_sub(number));
        }
        let number = number.wrapping_add(self.offset);
        if self.newest.is_none_or(|newest| (number.wrapping_sub(newest) as i16) > 0) {
            self.newest = Some(number);
        }
        written.copy_from_slice(value);
        written[1..3].copy_from_slice(&number.to_be_bytes());
        written
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(numbers: &mut DescriptorNumbers, epoch: u32, number: u16) -> u16 {
        let [high, low] = number.to_be_bytes();
        let mut buffer = [0; MAX_DESCRIPTOR];
        let written = numbers.rewrite(epoch, &[0xc1, high, low, 0x80, 0xaa], &mut buffer);
        assert_eq!((written[0], &written[3..]), (0xc1, &[0x80, 0xaa][..]), "the rest stays");
        u16::from_be_bytes([written[1], written[2]])
    }

    #[test]
    fn numbers_go_on_over_epochs_and_the_wrap() {
        let mut numbers = DescriptorNumbers::default();
        assert_eq!(number(&mut numbers, 0, 65_534), 65_534, "those of the first epoch stay");
        assert_eq!(number(&mut numbers, 0, 65_535), 65_535);
        assert_eq!(number(&mut numbers, 1, 7), 0, "the next");
        assert_eq!(number(&mut numbers, 1, 9), 2);
        assert_eq!(number(&mut numbers, 1, 8), 1, "a late one");
        assert_eq!(number(&mut numbers, 2, 40_000), 3);
    }

    proptest! {
        #[test]
        fn what_is_no_descriptor_is_dropped_and_nothing_panics(value in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = [0; MAX_DESCRIPTOR];
            let len = DescriptorNumbers::default().rewrite(0, &value, &mut buffer).len();
            prop_assert_eq!(len, if (3..=MAX_DESCRIPTOR).contains(&value.len()) { value.len() } else { 0 });
        }
    }
}

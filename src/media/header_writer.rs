//! Writing an RTP header whose sequence number and extension values are patched later.

use super::extension::{ONE_BYTE_PROFILE, TWO_BYTE_PROFILE};
use super::rtp::{FIXED_HEADER_LEN, RtpError, SEQUENCE_NUMBER, SSRC, TIMESTAMP};

/// The most header extension elements that one header is written with.
pub const MAX_ELEMENTS: usize = 8;

/// The fixed header to write. There are never contributing sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// The P bit; whoever sets it ends the packet with the padding and its count.
    pub padding: bool,
    /// The marker bit.
    pub marker: bool,
    /// The payload type, 7 bits; a higher bit is dropped.
    pub payload_type: u8,
    /// The sequence number.
    pub sequence_number: u16,
    /// The timestamp.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: u32,
}

/// Where things are in a header that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderLayout {
    /// Length of the header in bytes: the payload begins here.
    pub header_len: usize,
    offsets: [(u8, u16); MAX_ELEMENTS],
}

impl HeaderLayout {
    /// Offset from the packet's first byte of the value of the element `id`, for patching in place.
    pub fn value_offset(&self, id: u8) -> Option<usize> {
        self.offsets.iter().find(|(other, _)| *other == id && id != 0).map(|(_, offset)| usize::from(*offset))
    }
}

/// Writes a header to the beginning of `buffer`, with `elements` as `(id, value)` in an extension block.
///
/// RFC 8285 §4.1.2 allows one form a packet. It is the one-byte form, unless an id is above 14 or a value is empty or
/// longer than 16 bytes; the receiver must then have agreed to `a=extmap-allow-mixed` or use the two-byte form
/// throughout. Without elements there is no extension block.
///
/// # Errors
/// [`RtpError::BufferTooSmall`]; [`RtpError::Extension`] with the id of an element that cannot be written: id 0, a
/// value above 255 bytes, or more than [`MAX_ELEMENTS`].
pub fn write_header(
    buffer: &mut [u8],
    fields: &HeaderFields,
    elements: &[(u8, &[u8])],
) -> Result<HeaderLayout, RtpError> {
    let fixed = buffer.get_mut(..FIXED_HEADER_LEN).ok_or(RtpError::BufferTooSmall)?;
    fixed[0] = 0x80 | u8::from(fields.padding) << 5 | u8::from(!elements.is_empty()) << 4;
    fixed[1] = u8::from(fields.marker) << 7 | fields.payload_type & 0x7f;
    fixed[SEQUENCE_NUMBER].copy_from_slice(&fields.sequence_number.to_be_bytes());
    fixed[TIMESTAMP].copy_from_slice(&fields.timestamp.to_be_bytes());
    fixed[SSRC].copy_from_slice(&fields.ssrc.to_be_bytes());
    let mut layout = HeaderLayout { header_len: FIXED_HEADER_LEN, offsets: [(0, 0); MAX_ELEMENTS] };
    if !elements.is_empty() {
        write_block(buffer, elements, &mut layout)?;
    }
    Ok(layout)
}

fn write_block(buffer: &mut [u8], elements: &[(u8, &[u8])], layout: &mut HeaderLayout) -> Result<(), RtpError> {
    if let Some((id, _)) = elements.get(MAX_ELEMENTS) {
        return Err(RtpError::Extension(*id));
    }
    let one_byte = elements.iter().all(|(id, value)| *id <= 14 && (1..=16).contains(&value.len()));
    let lead_len = if one_byte { 1 } else { 2 };
    let start = FIXED_HEADER_LEN + 4;
    let end = start + elements.iter().map(|(_, value)| lead_len + value.len()).sum::<usize>();
    // RFC 3550 §5.3.1: the length counts 32-bit words, without the four bytes that hold it.
    let words = (end - start).div_ceil(4);
    layout.header_len = start + 4 * words;
    let block = buffer.get_mut(FIXED_HEADER_LEN..layout.header_len).ok_or(RtpError::BufferTooSmall)?;
    let profile = if one_byte { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE };
    block[..2].copy_from_slice(&profile.to_be_bytes());
    block[2..4].copy_from_slice(&(words as u16).to_be_bytes());
    block[end - FIXED_HEADER_LEN..].fill(0);

    let mut at = 4;
    for (&(id, value), offset) in elements.iter().zip(&mut layout.offsets) {
        if id == 0 || value.len() > 255 {
            return Err(RtpError::Extension(id));
        }
        if one_byte {
            block[at] = id << 4 | (value.len() - 1) as u8;
        } else {
            block[at..at + 2].copy_from_slice(&[id, value.len() as u8]);
        }
        at += lead_len;
        *offset = (id, (FIXED_HEADER_LEN + at) as u16);
        block[at..at + value.len()].copy_from_slice(value);
        at += value.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::RtpHeader;

    const FIELDS: HeaderFields = HeaderFields {
        padding: false,
        marker: true,
        payload_type: 96,
        sequence_number: 0x0102,
        timestamp: 0x0304_0506,
        ssrc: 0x0708_090a,
    };

    #[test]
    fn without_elements_there_is_no_block() {
        let mut buffer = [0xaa; 20];
        let layout = write_header(&mut buffer, &FIELDS, &[]).expect("fits");
        assert_eq!(layout.header_len, 12);
        assert_eq!(buffer[..13], [0x80, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xaa]);
    }

    #[test]
    fn one_byte_block_is_padded_to_a_word() {
        let mut buffer = [0xaa; 32];
        let layout = write_header(&mut buffer, &FIELDS, &[(4, b"0"), (3, &[0x12, 0x34])]).expect("fits");
        assert_eq!(layout.header_len, 24);
        assert_eq!(buffer[12..25], [0xbe, 0xde, 0, 2, 0x40, b'0', 0x31, 0x12, 0x34, 0, 0, 0, 0xaa]);
        assert_eq!(layout.value_offset(3), Some(19));
        assert_eq!(layout.value_offset(4), Some(17));
        assert_eq!(layout.value_offset(0), None);
    }

    #[test]
    fn a_high_id_or_a_long_or_empty_value_forces_the_two_byte_form() {
        for elements in [[(15, &[1][..]), (1, &[2])], [(1, &[0; 17]), (2, &[2])], [(1, &[]), (2, &[2])]] {
            let mut buffer = [0; 64];
            write_header(&mut buffer, &FIELDS, &elements).expect("fits");
            assert_eq!(buffer[12..14], [0x10, 0x00]);
            let header = RtpHeader::parse(&buffer).expect("valid");
            assert!(header.extensions(&buffer).eq(elements));
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let mut buffer = [0; 400];
        assert_eq!(write_header(&mut buffer, &FIELDS, &[(0, &[1])]), Err(RtpError::Extension(0)));
        assert_eq!(write_header(&mut buffer, &FIELDS, &[(7, &[0; 256])]), Err(RtpError::Extension(7)));
        let many: Vec<(u8, &[u8])> = (1..=9).map(|id| (id, &[1][..])).collect();
        assert_eq!(write_header(&mut buffer, &FIELDS, &many), Err(RtpError::Extension(9)));
        assert_eq!(write_header(&mut buffer[..11], &FIELDS, &[]), Err(RtpError::BufferTooSmall));
        assert_eq!(write_header(&mut buffer[..19], &FIELDS, &[(1, &[1])]), Err(RtpError::BufferTooSmall));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (padding, marker) in any::<(bool, bool)>(),
            payload_type in 0u8..128,
            (sequence_number, timestamp, ssrc) in any::<(u16, u32, u32)>(),
            elements in prop::collection::btree_map(
                1u8..=255, prop::collection::vec(any::<u8>(), 0..20), 0..=MAX_ELEMENTS),
        ) {
            let fields = HeaderFields { padding, marker, payload_type, sequence_number, timestamp, ssrc };
            let elements: Vec<(u8, &[u8])> = elements.iter().map(|(id, value)| (*id, &value[..])).collect();
            let mut packet = [1; 300];
            let layout = write_header(&mut packet, &fields, &elements).expect("fits");

            let header = RtpHeader::parse(&packet).expect("valid");
            prop_assert_eq!(header.header_len, layout.header_len);
            prop_assert_eq!(header.has_padding, padding);
            prop_assert_eq!(
                (header.marker, header.payload_type, header.sequence_number, header.timestamp, header.ssrc),
                (marker, payload_type, sequence_number, timestamp, ssrc)
            );
            prop_assert!(header.extensions(&packet).eq(elements.iter().copied()));
            for (id, value) in elements {
                let at = layout.value_offset(id).expect("written");
                prop_assert_eq!(&packet[at..at + value.len()], value);
            }
        }
    }
}

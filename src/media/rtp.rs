//! The RTP header (RFC 3550 §5.1), read into offsets.

use std::ops::Range;

use super::extension::Extensions;

/// Length of the fixed part of the header in bytes.
pub const FIXED_HEADER_LEN: usize = 12;

/// Where a packet holds its sequence number, for patching in place.
pub const SEQUENCE_NUMBER: Range<usize> = 2..4;

/// Where a packet holds its timestamp.
pub const TIMESTAMP: Range<usize> = 4..8;

/// Where a packet holds its SSRC.
pub const SSRC: Range<usize> = 8..12;

/// What is wrong with an RTP packet, read or to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// The packet ends within its header.
    #[error("the packet ends within its RTP header")]
    Truncated,
    /// The version is not 2.
    #[error("RTP version {0} instead of 2")]
    Version(u8),
    /// The padding count is 0, or reaches into the header.
    #[error("the padding count {0} is not possible")]
    Padding(u8),
    /// A payload is longer than [`MAX_PAYLOAD`](super::MAX_PAYLOAD).
    #[error("a payload of {0} bytes is longer than a packet can be")]
    PayloadTooLong(usize),
    /// A header to be written does not fit into its buffer.
    #[error("the header does not fit into the buffer")]
    BufferTooSmall,
    /// A header extension to be written has id 0, a value above 255 bytes, or is one too many.
    #[error("header extension {0} cannot be written")]
    Extension(u8),
}

/// A packet's header extension block (RFC 3550 §5.3.1), without its four leading bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionBlock {
    /// "Defined by profile": `0xBEDE` for the one-byte form, `0x100x` for the two-byte form (RFC 8285).
    pub profile: u16,
    /// Offset of the first byte after profile and length.
    pub start: usize,
    /// Length in bytes, a multiple of four.
    pub len: usize,
}

/// An RTP header. Borrows nothing: its methods take the packet that it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// The marker bit: for video the last packet of a frame.
    pub marker: bool,
    /// The payload type, 7 bits.
    pub payload_type: u8,
    /// The sequence number.
    pub sequence_number: u16,
    /// The timestamp in units of the clock rate.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: u32,
    /// How many contributing sources follow the fixed header.
    pub csrc_count: u8,
    /// The header extension block, where the X bit is set.
    pub extension: Option<ExtensionBlock>,
    /// Length of the whole header in bytes, CSRCs and extension block included: the payload begins here, and what
    /// SRTP authenticates but does not encrypt ends here.
    pub header_len: usize,
    /// The P bit: the payload is followed by padding.
    pub has_padding: bool,
    /// Bytes of padding at the end. 0 until [`RtpHeader::resolve_padding`] has seen the clear packet.
    pub padding_len: u8,
}

impl RtpHeader {
    /// Reads the header of a clear packet, padding included.
    ///
    /// # Errors
    /// [`RtpError::Truncated`], [`RtpError::Version`], [`RtpError::Padding`].
    pub fn parse(packet: &[u8]) -> Result<Self, RtpError> {
        Self::parse_header(packet)?.resolve_padding(packet)
    }

    /// Reads the header alone, as it is possible while the payload is encrypted; ignores padding.
    ///
    /// # Errors
    /// [`RtpError::Truncated`], [`RtpError::Version`].
    pub fn parse_header(packet: &[u8]) -> Result<Self, RtpError> {
        let fixed: &[u8; FIXED_HEADER_LEN] = packet.first_chunk().ok_or(RtpError::Truncated)?;
        let [bits, marker_and_type, seq_0, seq_1, ts_0, ts_1, ts_2, ts_3, ssrc_0, ssrc_1, ssrc_2, ssrc_3] = *fixed;
        if bits >> 6 != 2 {
            return Err(RtpError::Version(bits >> 6));
        }
        let csrc_count = bits & 0x0f;
        let csrc_end = FIXED_HEADER_LEN + 4 * usize::from(csrc_count);
        let extension = if bits & 0x10 != 0 { Some(extension_block(packet, csrc_end)?) } else { None };
        let header_len = extension.map_or(csrc_end, |block| block.start + block.len);
        if packet.len() < header_len {
            return Err(RtpError::Truncated);
        }
        Ok(Self {
            marker: marker_and_type & 0x80 != 0,
            payload_type: marker_and_type & 0x7f,
            sequence_number: u16::from_be_bytes([seq_0, seq_1]),
            timestamp: u32::from_be_bytes([ts_0, ts_1, ts_2, ts_3]),
            ssrc: u32::from_be_bytes([ssrc_0, ssrc_1, ssrc_2, ssrc_3]),
            csrc_count,
            extension,
            header_len,
            has_padding: bits & 0x20 != 0,
            padding_len: 0,
        })
    }

    /// The same header with the padding of `packet`, now that it is clear.
    ///
    /// RFC 3550 §5.1: "The last octet of the padding contains a count of how many padding octets should be ignored,
    /// including itself."
    ///
    /// # Errors
    /// [`RtpError::Padding`] where the count is 0 or exceeds the payload, [`RtpError::Truncated`] where there is no
    /// payload at all, or `packet` ends within this header.
    pub fn resolve_padding(mut self, packet: &[u8]) -> Result<Self, RtpError> {
        let body = packet.get(self.header_len..).ok_or(RtpError::Truncated)?;
        if self.has_padding {
            let &count = body.last().ok_or(RtpError::Truncated)?;
            if count == 0 || usize::from(count) > body.len() {
                return Err(RtpError::Padding(count));
            }
            self.padding_len = count;
        }
        Ok(self)
    }

    /// The payload without padding; of a packet that is padding alone, nothing.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        let end = packet.len().saturating_sub(usize::from(self.padding_len));
        packet.get(self.header_len..end).unwrap_or_default()
    }

    /// The header extension elements of `packet` in their order, ids 1 to 14 or 1 to 255 (RFC 8285). None where the
    /// block is of neither form.
    pub fn extensions<'a>(&self, packet: &'a [u8]) -> Extensions<'a> {
        match self.extension {
            Some(block) => {
                Extensions::new(block.profile, packet.get(block.start..block.start + block.len).unwrap_or_default())
            }
            None => Extensions::default(),
        }
    }

    /// The value of the first header extension element with this id.
    pub fn extension<'a>(&self, packet: &'a [u8], id: u8) -> Option<&'a [u8]> {
        self.extensions(packet).find_map(|(other, value)| (other == id).then_some(value))
    }
}

/// Reads the four bytes in front of an extension block at `at`; the block itself may be beyond the packet's end.
fn extension_block(packet: &[u8], at: usize) -> Result<ExtensionBlock, RtpError> {
    let lead = packet.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(RtpError::Truncated)?;
    let words = u16::from_be_bytes([lead[2], lead[3]]);
    Ok(ExtensionBlock { profile: u16::from_be_bytes([lead[0], lead[1]]), start: at + 4, len: 4 * usize::from(words) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: [u8; 15] = [0x80, 0xe0, 0xff, 0xfe, 1, 2, 3, 4, 0xde, 0xad, 0xbe, 0xef, b'a', b'b', b'c'];

    #[test]
    fn fixed_header() {
        let header = RtpHeader::parse(&PLAIN).expect("valid");
        assert!(header.marker);
        assert_eq!(header.payload_type, 96);
        assert_eq!(header.sequence_number, 0xfffe);
        assert_eq!(header.timestamp, 0x0102_0304);
        assert_eq!(header.ssrc, 0xdead_beef);
        assert_eq!(header.header_len, 12);
        assert_eq!(header.payload(&PLAIN), b"abc");
        assert_eq!(header.extensions(&PLAIN).count(), 0);
    }

    #[test]
    fn contributing_sources_and_extension_block() {
        let mut packet = vec![0x92, 0x60, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        packet.extend([0, 0, 0, 4, 0, 0, 0, 5]);
        packet.extend([0xbe, 0xde, 0, 1, 0x10, 7, 0, 0]);
        packet.extend(b"xy");
        let header = RtpHeader::parse(&packet).expect("valid");
        assert_eq!(header.csrc_count, 2);
        assert_eq!(header.header_len, 28);
        assert_eq!(header.extension, Some(ExtensionBlock { profile: 0xbede, start: 24, len: 4 }));
        assert_eq!(header.extension(&packet, 1), Some(&[7][..]));
        assert_eq!(header.extension(&packet, 2), None);
        assert_eq!(header.payload(&packet), b"xy");
        for len in 12..28 {
            assert_eq!(RtpHeader::parse(&packet[..len]), Err(RtpError::Truncated), "{len} bytes");
        }
    }

    #[test]
    fn padding_is_stripped_and_checked() {
        let mut packet = PLAIN;
        packet[0] |= 0x20;
        packet[14] = 2;
        let header = RtpHeader::parse(&packet).expect("valid");
        assert_eq!((header.padding_len, header.payload(&packet)), (2, &b"a"[..]));
        packet[14] = 3;
        assert_eq!(RtpHeader::parse(&packet).expect("padding alone").payload(&packet), b"");
        for impossible in [0, 4, 255] {
            packet[14] = impossible;
            assert_eq!(RtpHeader::parse(&packet), Err(RtpError::Padding(impossible)));
        }
        assert_eq!(RtpHeader::parse(&packet[..12]), Err(RtpError::Truncated), "P bit without a count");
    }

    #[test]
    fn ciphertext_has_a_header_but_no_padding_yet() {
        let mut packet = PLAIN;
        packet[0] |= 0x20;
        packet[14] = 0;
        let header = RtpHeader::parse_header(&packet).expect("the header is clear");
        assert!(header.has_padding);
        assert_eq!(header.padding_len, 0);
        packet[14] = 1;
        assert_eq!(header.resolve_padding(&packet).expect("valid now").payload(&packet), b"ab");
        assert_eq!(header.resolve_padding(&packet[..5]), Err(RtpError::Truncated));
    }

    #[test]
    fn other_versions_are_refused() {
        for version in [0u8, 1, 3] {
            let mut packet = PLAIN;
            packet[0] = version << 6;
            assert_eq!(RtpHeader::parse(&packet), Err(RtpError::Version(version)));
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(mut packet in prop::collection::vec(any::<u8>(), 0..80), version_2 in any::<bool>()) {
            if let Some(first) = packet.first_mut().filter(|_| version_2) {
                *first = 0x80 | *first & 0x3f;
            }
            for parsed in [RtpHeader::parse(&packet), RtpHeader::parse_header(&packet)].into_iter().flatten() {
                let elements: usize = parsed.extensions(&packet).map(|(_, value)| value.len()).sum();
                prop_assert!(parsed.header_len + parsed.payload(&packet).len() <= packet.len());
                prop_assert!(elements <= parsed.header_len);
                // A shorter packet than the one parsed is a mistake of ours, and still no panic.
                parsed.payload(&packet[..packet.len() / 2]);
                parsed.extensions(&packet[..packet.len() / 2]).count();
            }
        }
    }
}

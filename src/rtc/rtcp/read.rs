//! RTCP read where it lies.

use super::records::take_u32;
use super::types::*;
use super::{
    FirEntry, HEADER_LEN, NackEntries, REMB, Record, Records, ReportBlock, RtcpError, SdesChunks, SenderInfo,
    TwccFeedback, XrBlocks,
};

/// The packets of a datagram: a compound packet, or a reduced-size one that begins with anything (RFC 5506).
///
/// An error in the body of a packet is that packet's item and the next one follows; after an error in the framing there
/// is nothing more.
pub fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets { rest: datagram }
}

/// Iterator of [`packets`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Frame::split(self.rest) {
            Ok((frame, rest)) => {
                self.rest = rest;
                Some(frame.and_then(|frame| frame.parse()))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// One RTCP packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet<'a> {
    /// SR (RFC 3550 §6.4.1).
    SenderReport {
        /// Who reports.
        ssrc: u32,
        /// What it has sent.
        info: SenderInfo,
        /// What it has received.
        blocks: Records<'a, ReportBlock>,
    },
    /// RR (RFC 3550 §6.4.2).
    ReceiverReport {
        /// Who reports.
        ssrc: u32,
        /// What it has received.
        blocks: Records<'a, ReportBlock>,
    },
    /// SDES (RFC 3550 §6.5).
    SourceDescription(SdesChunks<'a>),
    /// BYE (RFC 3550 §6.6). A reason is passed over.
    Bye {
        /// Who leaves.
        ssrcs: Records<'a, u32>,
    },
    /// Generic NACK (RFC 4585 §6.2.1).
    Nack {
        /// Who asks.
        sender: u32,
        /// The stream that lacks packets.
        media: u32,
        /// The sequence numbers that it lacks.
        entries: NackEntries<'a>,
    },
    /// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
    TransportFeedback(TwccFeedback<'a>),
    /// Picture loss indication (RFC 4585 §6.3.1).
    Pli {
        /// Who asks.
        sender: u32,
        /// The stream to refresh.
        media: u32,
    },
    /// Full intra request (RFC 5104 §4.3.1).
    Fir {
        /// Who asks.
        sender: u32,
        /// The streams to refresh.
        entries: Records<'a, FirEntry>,
    },
    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb §2.2).
    Remb {
        /// Who estimates.
        sender: u32,
        /// The estimate in bit/s, `u64::MAX` where it does not fit.
        bitrate_bps: u64,
        /// The streams that share it.
        ssrcs: Records<'a, u32>,
    },
    /// XR (RFC 3611).
    ExtendedReport {
        /// Who reports.
        sender: u32,
        /// Its blocks.
        blocks: XrBlocks<'a>,
    },
    /// Anything else, feedback of an unknown kind included: its packet type.
    Unknown(u8),
}

/// A packet without its header and padding.
struct Frame<'a> {
    /// Report count, source count or feedback message type.
    count: u8,
    packet_type: u8,
    body: &'a [u8],
}

/// A frame, or what is wrong inside it, and the bytes behind it.
type Split<'a> = (Result<Frame<'a>, RtcpError>, &'a [u8]);

impl<'a> Frame<'a> {
    fn split(bytes: &'a [u8]) -> Result<Split<'a>, RtcpError> {
        let (header, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(RtcpError::Truncated)?;
        if header[0] >> 6 != 2 {
            return Err(RtcpError::Version);
        }
        // "The length of this RTCP packet in 32-bit words minus one, including the header and any padding."
        let len = (usize::from(u16::from_be_bytes([header[2], header[3]])) + 1) * 4;
        let (packet, rest) = bytes.split_at_checked(len).ok_or(RtcpError::Truncated)?;
        let mut body = &packet[HEADER_LEN..];
        // RFC 3550 §6.4.1 allows padding on the last packet only. It is stripped from any: libwebrtc pads each transport
        // feedback to 32 bits in this way, and may put several into one datagram.
        if header[0] & 0x20 != 0 {
            let padding = usize::from(body.last().copied().unwrap_or(0));
            if padding == 0 || padding > body.len() {
                return Ok((Err(RtcpError::Padding), rest));
            }
            body = &body[..body.len() - padding];
        }
        Ok((Ok(Frame { count: header[0] & 0x1f, packet_type: header[1], body }), rest))
    }

    fn parse(&self) -> Result<Packet<'a>, RtcpError> {
        match (self.packet_type, self.count) {
            (SENDER_REPORT, _) => self.sender_report(),
            (RECEIVER_REPORT, _) => self.receiver_report(),
            (SOURCE_DESCRIPTION, count) => SdesChunks::new(self.body, count).map(Packet::SourceDescription),
            (BYE, count) => Records::new(self.body, count.into()).map(|ssrcs| Packet::Bye { ssrcs }),
            (TRANSPORT_FEEDBACK, FMT_NACK) => self.nack(),
            (TRANSPORT_FEEDBACK, FMT_TRANSPORT_CC) => TwccFeedback::parse(self.body).map(Packet::TransportFeedback),
            (PAYLOAD_FEEDBACK, FMT_PLI) => self.feedback().map(|(sender, media, _)| Packet::Pli { sender, media }),
            (PAYLOAD_FEEDBACK, FMT_FIR) => {
                self.feedback().map(|(sender, _, fci)| Packet::Fir { sender, entries: Records::all(fci) })
            }
            (PAYLOAD_FEEDBACK, FMT_APPLICATION) => self.application_feedback(),
            (EXTENDED_REPORT, _) => self.extended_report(),
            (other, _) => Some(Packet::Unknown(other)),
        }
        .ok_or(RtcpError::Malformed { packet_type: self.packet_type })
    }

    fn sender_report(&self) -> Option<Packet<'a>> {
        let (ssrc, rest) = take_u32(self.body)?;
        let (info, rest) = rest.split_at_checked(SenderInfo::LEN)?;
        let blocks = Records::new(rest, self.count.into())?;
        Some(Packet::SenderReport { ssrc, info: SenderInfo::read(info), blocks })
    }

    fn receiver_report(&self) -> Option<Packet<'a>> {
        let (ssrc, rest) = take_u32(self.body)?;
        Some(Packet::ReceiverReport { ssrc, blocks: Records::new(rest, self.count.into())? })
    }

    fn nack(&self) -> Option<Packet<'a>> {
        let (sender, media, fci) = self.feedback()?;
        Some(Packet::Nack { sender, media, entries: NackEntries::new(fci) })
    }

    fn application_feedback(&self) -> Option<Packet<'a>> {
        let (sender, _, fci) = self.feedback()?;
        let Some(fci) = fci.strip_prefix(&REMB) else {
            return Some(Packet::Unknown(self.packet_type));
        };
        let (word, rest) = take_u32(fci)?;
        let (count, exponent, mantissa) = (word >> 24, word >> 18 & 0x3f, u64::from(word & 0x3_ffff));
        let bitrate_bps = if mantissa.leading_zeros() >= exponent { mantissa << exponent } else { u64::MAX };
        Some(Packet::Remb { sender, bitrate_bps, ssrcs: Records::new(rest, count as usize)? })
    }

    fn extended_report(&self) -> Option<Packet<'a>> {
        let (sender, blocks) = take_u32(self.body)?;
        Some(Packet::ExtendedReport { sender, blocks: XrBlocks::new(blocks)? })
    }

    /// Sender SSRC, media SSRC and feedback control information (RFC 4585 §6.1).
    fn feedback(&self) -> Option<(u32, u32, &'a [u8])> {
        let (sender, rest) = take_u32(self.body)?;
        let (media, fci) = take_u32(rest)?;
        Some((sender, media, fci))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{NtpTime, RtcpWriter, SdesChunk, XrBlock};
    use super::*;
    use crate::rtc::srtp::unhex;

    fn one(text: &str) -> Result<Packet<'static>, RtcpError> {
        let bytes: &'static [u8] = unhex(text).leak();
        let mut packets = packets(bytes);
        let first = packets.next().unwrap();
        assert!(packets.next().is_none());
        first
    }

    const MALFORMED: fn(u8) -> Result<Packet<'static>, RtcpError> =
        |packet_type| Err(RtcpError::Malformed { packet_type });

    #[test]
    fn a_pli_of_a_browser() {
        assert_eq!(one("81ce0002 00000001 11223344"), Ok(Packet::Pli { sender: 1, media: 0x1122_3344 }));
    }

    #[test]
    fn a_nack_names_its_packets() {
        let Ok(Packet::Nack { sender: 1, media: 2, entries }) = one("81cd0004 00000001 00000002 ffff8001 00100000")
        else {
            panic!("not a NACK");
        };
        assert_eq!(entries.collect::<Vec<_>>(), [0xffff, 0, 15, 16]);
    }

    #[test]
    fn a_remb_of_a_browser_and_one_beyond_all_numbers() {
        let Ok(Packet::Remb { bitrate_bps, ssrcs, .. }) = one("8fce0005 00000001 00000000 52454d42 0103fd00 11223344")
        else {
            panic!("not a REMB");
        };
        assert_eq!((bitrate_bps, ssrcs.collect::<Vec<_>>()), (0x3fd00, vec![0x1122_3344]));
        let Ok(Packet::Remb { bitrate_bps, .. }) = one("8fce0004 00000001 00000000 52454d42 00ffffff") else {
            panic!("not a REMB");
        };
        assert_eq!(bitrate_bps, u64::MAX);
        assert_eq!(one("8fce0004 00000001 00000000 52454d42 02ffffff"), MALFORMED(206));
        assert_eq!(one("8fce0003 00000001 00000000 12345678"), Ok(Packet::Unknown(206)));
    }

    #[test]
    fn an_extended_report_and_its_blocks() {
        let Ok(Packet::ExtendedReport { sender: 7, blocks }) =
            one("80cf0006 00000007 04000002 0102030405060708 81000001 ffffffff")
        else {
            panic!("not an XR");
        };
        let expected = [XrBlock::ReceiverReferenceTime(NtpTime(0x0102_0304_0506_0708)), XrBlock::Unknown(0x81)];
        assert_eq!(blocks.collect::<Vec<_>>(), expected);
        assert_eq!(one("80cf0002 00000007 04000002"), MALFORMED(207));
    }

    #[test]
    fn a_source_description_of_two_sources() {
        let text = "82ca0007 00000001 01026162 00000000 00000002 02017a01 03636465 00000000";
        let Ok(Packet::SourceDescription(chunks)) = one(text) else { panic!("not an SDES") };
        let expected = [SdesChunk { ssrc: 1, cname: Some(b"ab") }, SdesChunk { ssrc: 2, cname: Some(b"cde") }];
        assert_eq!(chunks.collect::<Vec<_>>(), expected);
        assert_eq!(one("81ca0002 00000001 01026162"), MALFORMED(202), "the list does not end");
    }

    #[test]
    fn counts_beyond_the_packet_are_refused() {
        assert_eq!(one("81c90001 00000001"), MALFORMED(201));
        assert_eq!(one("81c80006 00000001 0000000000000000 00000000 00000000 00000000"), MALFORMED(200));
        assert_eq!(one("82cb0001 00000001"), MALFORMED(203));
        assert_eq!(one("81ce0001 00000001"), MALFORMED(206));
    }

    #[test]
    fn framing() {
        assert_eq!(one("81c9"), Err(RtcpError::Truncated));
        assert_eq!(one("80c90002 00000001"), Err(RtcpError::Truncated));
        assert_eq!(one("40c90001 00000001"), Err(RtcpError::Version));
        assert_eq!(one("a0c90002 00000001 00000004"), one("80c90001 00000001"), "padding is no content");
        assert_eq!(one("a0c90001 00000009"), Err(RtcpError::Padding));
        assert_eq!(one("a0c90001 00000000"), Err(RtcpError::Padding));
        assert_eq!(one("a0c90000"), Err(RtcpError::Padding));
        assert!(packets(&[]).next().is_none());
    }

    #[test]
    fn a_bad_body_does_not_hide_what_follows() {
        let bytes = unhex("81c90001 00000001 80cc0000 81ce0002 00000001 00000002");
        let all: Vec<_> = packets(&bytes).collect();
        assert_eq!(all, [MALFORMED(201), Ok(Packet::Unknown(204)), Ok(Packet::Pli { sender: 1, media: 2 })]);
    }

    /// Walks everything that a packet can be asked for.
    fn walk(datagram: &[u8]) -> usize {
        packets(datagram)
            .map(|packet| match packet {
                Err(_) | Ok(Packet::Pli { .. } | Packet::Unknown(_)) => 0,
                Ok(Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks, .. }) => blocks.count(),
                Ok(Packet::SourceDescription(chunks)) => chunks.count(),
                Ok(Packet::Bye { ssrcs } | Packet::Remb { ssrcs, .. }) => ssrcs.count(),
                Ok(Packet::Nack { entries, .. }) => entries.count(),
                Ok(Packet::TransportFeedback(feedback)) => feedback.statuses().count(),
                Ok(Packet::Fir { entries, .. }) => entries.count(),
                Ok(Packet::ExtendedReport { blocks, .. }) => blocks.count(),
            })
            .sum()
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            walk(&bytes);
        }

        #[test]
        fn arbitrary_bodies_of_known_types_are_read_to_the_end(
            first in 0x80_u8..=0xbf,
            packet_type in 200_u8..=208,
            words in prop::collection::vec(prop_oneof![any::<u32>(), 0..4_u32], 0..20),
        ) {
            let mut bytes = vec![first, packet_type, 0, words.len() as u8];
            words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
            walk(&bytes);
        }

        #[test]
        fn nack_entries_survive(first: u16, gaps in prop::collection::vec(1_u16..40, 1..60)) {
            let lost: Vec<u16> = gaps.iter().scan(first, |n, gap| { *n = n.wrapping_add(*gap); Some(*n) }).collect();
            let mut buffer = [0; 400];
            let mut writer = RtcpWriter::new(&mut buffer);
            writer.nack(1, 2, lost.iter().copied()).unwrap();
            let Some(Ok(Packet::Nack { sender: 1, media: 2, entries })) = packets(writer.as_bytes()).next() else {
                panic!("not a NACK");
            };
            prop_assert_eq!(entries.collect::<Vec<_>>(), lost);
        }
    }
}

//! RTCP written into a buffer of the caller.

use super::types::*;
use super::{FirEntry, HEADER_LEN, REMB, ReportBlock, RtcpError, SenderInfo};

/// The most that the five bits of a count can say.
const MAX_COUNT: usize = 31;

/// Appends packets to a buffer: a compound packet (RFC 3550 §6.1), or a reduced-size one (RFC 5506).
///
/// A packet is written whole or not at all; after an error the buffer holds what it held before.
#[derive(Debug)]
pub struct RtcpWriter<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> RtcpWriter<'a> {
    /// A writer at the start of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Bytes written, a multiple of four.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that are left.
    pub fn room(&self) -> usize {
        self.buffer.len() - self.len
    }

    /// SR (RFC 3550 §6.4.1).
    ///
    /// # Errors
    /// [`RtcpError::TooMany`] for more than 31 blocks, [`RtcpError::NoRoom`].
    pub fn sender_report(&mut self, ssrc: u32, info: &SenderInfo, blocks: &[ReportBlock]) -> Result<(), RtcpError> {
        self.packet(count(blocks.len())?, SENDER_REPORT, |w| {
            w.u32(ssrc)?;
            w.put(&info.ntp.0.to_be_bytes())?;
            [info.rtp_timestamp, info.packets, info.octets].into_iter().try_for_each(|word| w.u32(word))?;
            w.report_blocks(blocks)
        })
    }

    /// RR (RFC 3550 §6.4.2).
    ///
    /// # Errors
    /// [`RtcpError::TooMany`] for more than 31 blocks, [`RtcpError::NoRoom`].
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> Result<(), RtcpError> {
        self.packet(count(blocks.len())?, RECEIVER_REPORT, |w| {
            w.u32(ssrc)?;
            w.report_blocks(blocks)
        })
    }

    /// SDES with the CNAME of one source (RFC 3550 §6.5), which RFC 3550 §6.1 asks of every compound packet.
    ///
    /// # Errors
    /// [`RtcpError::TooMany`] for a name of more than 255 bytes, [`RtcpError::NoRoom`].
    pub fn source_description(&mut self, ssrc: u32, cname: &str) -> Result<(), RtcpError> {
        let len = u8::try_from(cname.len()).map_err(|_| RtcpError::TooMany)?;
        self.packet(1, SOURCE_DESCRIPTION, |w| {
            w.u32(ssrc)?;
            w.put(&[SDES_CNAME, len])?;
            w.put(cname.as_bytes())?;
            // At least one zero byte ends the list; the packet is filled up with more.
            w.put(&[0])
        })
    }

    /// BYE (RFC 3550 §6.6).
    ///
    /// # Errors
    /// [`RtcpError::TooMany`] for more than 31 sources, [`RtcpError::NoRoom`].
    pub fn bye(&mut self, ssrcs: &[u32]) -> Result<(), RtcpError> {
        self.packet(count(ssrcs.len())?, BYE, |w| ssrcs.iter().try_for_each(|ssrc| w.u32(*ssrc)))
    }

    /// PLI (RFC 4585 §6.3.1).
    ///
    /// # Errors
    /// [`RtcpError::NoRoom`].
    pub fn pli(&mut self, sender: u32, media: u32) -> Result<(), RtcpError> {
        self.feedback(PAYLOAD_FEEDBACK, FMT_PLI, sender, media, |_| Ok(()))
    }

    /// FIR (RFC 5104 §4.3.1).
    ///
    /// # Errors
    /// [`RtcpError::NoRoom`].
    pub fn fir(&mut self, sender: u32, entries: &[FirEntry]) -> Result<(), RtcpError> {
        // RFC 5104 §4.3.1.2: the media source's SSRC "is not used and SHALL be set to 0".
        self.feedback(PAYLOAD_FEEDBACK, FMT_FIR, sender, 0, |w| {
            entries.iter().try_for_each(|entry| {
                w.u32(entry.ssrc)?;
                w.put(&[entry.command_number, 0, 0, 0])
            })
        })
    }

    /// Generic NACK (RFC 4585 §6.2.1) for sequence numbers in rising order; nothing where there are none.
    ///
    /// Each entry names one number and, in a bitmap, those of the 16 after it. Numbers out of order cost an entry of
    /// their own and nothing more.
    ///
    /// # Errors
    /// [`RtcpError::NoRoom`].
    pub fn nack(&mut self, sender: u32, media: u32, lost: impl IntoIterator<Item = u16>) -> Result<(), RtcpError> {
        let mut lost = lost.into_iter();
        let Some(mut first) = lost.next() else {
            return Ok(());
        };
        self.feedback(TRANSPORT_FEEDBACK, FMT_NACK, sender, media, |w| {
            let mut bitmap = 0_u16;
            for sequence in lost {
                match sequence.wrapping_sub(first) {
                    0 => {}
                    distance @ 1..=16 => bitmap |= 1 << (distance - 1),
                    _ => {
                        w.u32(u32::from(first) << 16 | u32::from(bitmap))?;
                        (first, bitmap) = (sequence, 0);
                    }
                }
            }
            w.u32(u32::from(first) << 16 | u32::from(bitmap))
        })
    }

    /// REMB (draft-alvestrand-rmcat-remb §2.2). The bitrate keeps its 18 highest bits, rounded down.
    ///
    /// # Errors
    /// [`RtcpError::TooMany`] for more than 255 streams, [`RtcpError::NoRoom`].
    pub fn remb(&mut self, sender: u32, bitrate_bps: u64, ssrcs: &[u32]) -> Result<(), RtcpError> {
        let count = u8::try_from(ssrcs.len()).map_err(|_| RtcpError::TooMany)?;
        let exponent = (64 - bitrate_bps.leading_zeros()).saturating_sub(18);
        let mantissa = (bitrate_bps >> exponent) as u32;
        self.feedback(PAYLOAD_FEEDBACK, FMT_APPLICATION, sender, 0, |w| {
            w.put(&REMB)?;
            w.u32(u32::from(count) << 24 | exponent << 18 | mantissa)?;
            ssrcs.iter().try_for_each(|ssrc| w.u32(*ssrc))
        })
    }

    /// A feedback packet (RFC 4585 §6.1) whose control information `fill` writes.
    pub(super) fn feedback(
        &mut self,
        packet_type: u8,
        format: u8,
        sender: u32,
        media: u32,
        fill: impl FnOnce(&mut Self) -> Result<(), RtcpError>,
    ) -> Result<(), RtcpError> {
        self.packet(format, packet_type, |w| {
            w.u32(sender)?;
            w.u32(media)?;
            fill(w)
        })
    }

    /// Writes a header, what `fill` writes, zero bytes up to the next 32-bit boundary, and then the length.
    fn packet(
        &mut self,
        count: u8,
        packet_type: u8,
        fill: impl FnOnce(&mut Self) -> Result<(), RtcpError>,
    ) -> Result<(), RtcpError> {
        let start = self.len;
        let written = self.put(&[0x80 | count, packet_type, 0, 0]).and_then(|()| fill(self)).and_then(|()| {
            let end = start + (self.len - start).next_multiple_of(4);
            self.put(&[0; 3][..end - self.len])?;
            let words = u16::try_from((end - start) / 4 - 1).map_err(|_| RtcpError::TooMany)?;
            self.buffer[start + 2..start + HEADER_LEN].copy_from_slice(&words.to_be_bytes());
            Ok(())
        });
        if written.is_err() {
            self.len = start;
        }
        written
    }

    fn report_blocks(&mut self, blocks: &[ReportBlock]) -> Result<(), RtcpError> {
        blocks.iter().try_for_each(|block| {
            let lost = u32::from(block.fraction_lost) << 24 | (block.cumulative_lost as u32 & 0xff_ffff);
            [block.ssrc, lost, block.highest_sequence, block.jitter, block.last_sr, block.delay_since_last_sr]
                .into_iter()
                .try_for_each(|word| self.u32(word))
        })
    }

    fn u32(&mut self, word: u32) -> Result<(), RtcpError> {
        self.put(&word.to_be_bytes())
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), RtcpError> {
        let end = self.len + bytes.len();
        self.buffer.get_mut(self.len..end).ok_or(RtcpError::NoRoom)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}

fn count(entries: usize) -> Result<u8, RtcpError> {
    if entries <= MAX_COUNT { Ok(entries as u8) } else { Err(RtcpError::TooMany) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{NtpTime, Packet, SdesChunk, packets};
    use super::*;
    use crate::rtc::srtp::unhex;

    #[test]
    fn a_compound_packet_reads_back() {
        let info = SenderInfo { ntp: NtpTime(0x0102_0304_0506_0708), rtp_timestamp: 9, packets: 10, octets: 11 };
        let mut buffer = [0; 200];
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.sender_report(1, &info, &[]).unwrap();
        writer.source_description(1, "table-7").unwrap();
        writer.pli(1, 2).unwrap();
        writer.fir(1, &[FirEntry { ssrc: 3, command_number: 4 }]).unwrap();
        writer.bye(&[1, 2]).unwrap();

        let all: Vec<_> = packets(writer.as_bytes()).map(Result::unwrap).collect();
        assert!(
            matches!(&all[0], Packet::SenderReport { ssrc: 1, info: i, blocks } if *i == info && blocks.len() == 0)
        );
        assert!(matches!(&all[1], Packet::SourceDescription(chunks)
            if chunks.clone().eq([SdesChunk { ssrc: 1, cname: Some(b"table-7") }])));
        assert_eq!(all[2], Packet::Pli { sender: 1, media: 2 });
        assert!(matches!(&all[3], Packet::Fir { sender: 1, entries }
            if entries.clone().eq([FirEntry { ssrc: 3, command_number: 4 }])));
        assert!(matches!(&all[4], Packet::Bye { ssrcs } if ssrcs.clone().eq([1, 2])));
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn bytes_are_those_of_the_standards() {
        let mut buffer = [0xff; 100];
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.pli(1, 0x1122_3344).unwrap();
        writer.nack(1, 2, [0xffff, 0, 15, 16]).unwrap();
        writer.remb(1, 0x3_fd00, &[7]).unwrap();
        writer.source_description(5, "ab").unwrap();
        assert_eq!(
            writer.as_bytes(),
            unhex(
                "81ce0002 00000001 11223344
                 81cd0004 00000001 00000002 ffff8001 00100000
                 8fce0005 00000001 00000000 52454d42 0103fd00 00000007
                 81ca0003 00000005 01026162 00000000"
            )
        );
    }

    #[test]
    fn without_room_nothing_is_written() {
        let mut buffer = [0; 20];
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.pli(1, 2).unwrap();
        assert_eq!(writer.pli(1, 2), Err(RtcpError::NoRoom));
        assert_eq!(writer.nack(1, 2, [5]), Err(RtcpError::NoRoom));
        assert_eq!((writer.len(), writer.room()), (12, 8));
        writer.bye(&[1]).unwrap();
        assert_eq!(packets(writer.as_bytes()).filter(Result::is_ok).count(), 2);
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        let mut buffer = [0; 2000];
        let mut writer = RtcpWriter::new(&mut buffer);
        assert_eq!(writer.bye(&[0; 32]), Err(RtcpError::TooMany));
        assert_eq!(writer.receiver_report(1, &[ReportBlock::default(); 32]), Err(RtcpError::TooMany));
        assert_eq!(writer.source_description(1, &"x".repeat(256)), Err(RtcpError::TooMany));
        assert_eq!(writer.remb(1, 1, &[0; 256]), Err(RtcpError::TooMany));
        assert_eq!(writer.nack(1, 2, []), Ok(()));
        assert!(writer.is_empty());
    }

    fn block() -> impl Strategy<Value = ReportBlock> {
        (any::<[u32; 5]>(), any::<u8>(), -0x80_0000..=0x7f_ffff).prop_map(
            |([ssrc, highest_sequence, jitter, last_sr, delay_since_last_sr], fraction_lost, cumulative_lost)| {
                ReportBlock {
                    ssrc,
                    fraction_lost,
                    cumulative_lost,
                    highest_sequence,
                    jitter,
                    last_sr,
                    delay_since_last_sr,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn report_blocks_survive(ssrc: u32, reported in prop::collection::vec(block(), 0..=31)) {
            let mut buffer = [0; 800];
            let mut writer = RtcpWriter::new(&mut buffer);
            writer.receiver_report(ssrc, &reported).unwrap();
            let Some(Ok(Packet::ReceiverReport { ssrc: read, blocks })) = packets(writer.as_bytes()).next() else {
                panic!("not an RR");
            };
            prop_assert_eq!(read, ssrc);
            prop_assert_eq!(blocks.collect::<Vec<_>>(), reported);
        }

        #[test]
        fn a_bitrate_keeps_18_bits(bitrate: u64, streams in prop::collection::vec(any::<u32>(), 0..10)) {
            let mut buffer = [0; 100];
            let mut writer = RtcpWriter::new(&mut buffer);
            writer.remb(3, bitrate, &streams).unwrap();
            let Some(Ok(Packet::Remb { sender: 3, bitrate_bps, ssrcs })) = packets(writer.as_bytes()).next() else {
                panic!("not a REMB");
            };
            prop_assert!(bitrate_bps <= bitrate && bitrate - bitrate_bps <= bitrate >> 17);
            prop_assert_eq!(ssrcs.collect::<Vec<_>>(), streams);
        }

        #[test]
        fn names_survive(cname in "[a-z0-9@-]{0,40}") {
            let mut buffer = [0; 100];
            let mut writer = RtcpWriter::new(&mut buffer);
            writer.source_description(8, &cname).unwrap();
            let Some(Ok(Packet::SourceDescription(mut chunks))) = packets(writer.as_bytes()).next() else {
                panic!("not an SDES");
            };
            prop_assert_eq!(chunks.next(), Some(SdesChunk { ssrc: 8, cname: Some(cname.as_bytes()) }));
        }
    }
}

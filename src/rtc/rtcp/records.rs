//! What RTCP packets are made of: records of fixed length, and the lists whose items tell their own.

use std::marker::PhantomData;

use super::NtpTime;
use super::types::{SDES_CNAME, XR_RECEIVER_REFERENCE_TIME};

/// Something of fixed length that a packet repeats.
pub trait Record {
    /// Its length in bytes.
    const LEN: usize;

    /// Reads one from a slice of [`Record::LEN`] bytes.
    fn read(bytes: &[u8]) -> Self;
}

/// An iterator over the records of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<'a, T> {
    bytes: &'a [u8],
    record: PhantomData<T>,
}

impl<'a, T: Record> Records<'a, T> {
    /// The first `count` records of `bytes`, which must be there. What follows is a profile's extension or a reason.
    pub(super) fn new(bytes: &'a [u8], count: usize) -> Option<Self> {
        bytes.get(..count * T::LEN).map(|bytes| Self { bytes, record: PhantomData })
    }

    /// As many records as there are whole ones.
    pub(super) fn all(bytes: &'a [u8]) -> Self {
        Self { bytes, record: PhantomData }
    }
}

impl<T: Record> Iterator for Records<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let (record, rest) = self.bytes.split_at_checked(T::LEN)?;
        self.bytes = rest;
        Some(T::read(record))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.bytes.len() / T::LEN;
        (count, Some(count))
    }
}

impl<T: Record> ExactSizeIterator for Records<'_, T> {}

impl Record for u32 {
    const LEN: usize = 4;

    fn read(bytes: &[u8]) -> Self {
        u32_at(bytes, 0)
    }
}

/// What a sender report says of the sender (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// When the report was sent.
    pub ntp: NtpTime,
    /// The same moment in the stream's RTP clock.
    pub rtp_timestamp: u32,
    /// Packets sent, modulo 2³².
    pub packets: u32,
    /// Payload bytes sent, modulo 2³².
    pub octets: u32,
}

impl Record for SenderInfo {
    const LEN: usize = 20;

    fn read(bytes: &[u8]) -> Self {
        Self {
            ntp: NtpTime(u64::from(u32_at(bytes, 0)) << 32 | u64::from(u32_at(bytes, 4))),
            rtp_timestamp: u32_at(bytes, 8),
            packets: u32_at(bytes, 12),
            octets: u32_at(bytes, 16),
        }
    }
}

/// What a receiver says of one stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: u32,
    /// Part of the packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; 24 bits, below zero where duplicates came.
    pub cumulative_lost: i32,
    /// The highest sequence number received, with the count of its cycles in the upper 16 bits.
    pub highest_sequence: u32,
    /// Interarrival jitter in units of the RTP clock.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP time, 0 for none.
    pub last_sr: u32,
    /// How long ago it came, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

impl Record for ReportBlock {
    const LEN: usize = 24;

    fn read(bytes: &[u8]) -> Self {
        let lost = u32_at(bytes, 4);
        Self {
            ssrc: u32_at(bytes, 0),
            fraction_lost: (lost >> 24) as u8,
            cumulative_lost: (lost << 8) as i32 >> 8,
            highest_sequence: u32_at(bytes, 8),
            jitter: u32_at(bytes, 12),
            last_sr: u32_at(bytes, 16),
            delay_since_last_sr: u32_at(bytes, 20),
        }
    }
}

/// One request of a FIR (RFC 5104 §4.3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    /// The stream to refresh.
    pub ssrc: u32,
    /// Goes up with each new request; the same number again is a repetition.
    pub command_number: u8,
}

impl Record for FirEntry {
    const LEN: usize = 8;

    fn read(bytes: &[u8]) -> Self {
        Self { ssrc: u32_at(bytes, 0), command_number: bytes[4] }
    }
}

/// The sequence numbers of a NACK, in the order in which they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NackEntries<'a> {
    /// Packet id in the upper half of the word, bitmap of the following in the lower.
    records: Records<'a, u32>,
    first: u16,
    /// What is left of the current word's bitmap.
    bitmap: u16,
}

impl<'a> NackEntries<'a> {
    pub(super) fn new(fci: &'a [u8]) -> Self {
        Self { records: Records::all(fci), first: 0, bitmap: 0 }
    }
}

impl Iterator for NackEntries<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.bitmap != 0 {
            let distance = self.bitmap.trailing_zeros() as u16 + 1;
            self.bitmap &= self.bitmap - 1;
            return Some(self.first.wrapping_add(distance));
        }
        let word = self.records.next()?;
        (self.first, self.bitmap) = ((word >> 16) as u16, word as u16);
        Some(self.first)
    }
}

/// The chunks of a source description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdesChunks<'a> {
    rest: &'a [u8],
    left: u8,
}

impl<'a> SdesChunks<'a> {
    /// `None` where one of the `count` chunks is malformed.
    pub(super) fn new(bytes: &'a [u8], count: u8) -> Option<Self> {
        let mut rest = bytes;
        for _ in 0..count {
            (_, rest) = SdesChunk::split(rest)?;
        }
        Some(Self { rest: bytes, left: count })
    }
}

impl<'a> Iterator for SdesChunks<'a> {
    type Item = SdesChunk<'a>;

    fn next(&mut self) -> Option<SdesChunk<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (chunk, rest) = SdesChunk::split(self.rest)?;
        self.rest = rest;
        Some(chunk)
    }
}

/// What a source description says of one source. Items other than CNAME are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdesChunk<'a> {
    /// The source.
    pub ssrc: u32,
    /// Its canonical name (RFC 3550 §6.5.1), where it is given.
    pub cname: Option<&'a [u8]>,
}

impl<'a> SdesChunk<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (ssrc, mut rest) = take_u32(bytes)?;
        let mut cname = None;
        loop {
            let (kind, after) = rest.split_first()?;
            if *kind == 0 {
                break;
            }
            let (len, after) = after.split_first()?;
            let (text, after) = after.split_at_checked((*len).into())?;
            if *kind == SDES_CNAME {
                cname = Some(text);
            }
            rest = after;
        }
        // The list ends with one or more zero bytes, up to the next 32-bit boundary.
        let used = (bytes.len() - rest.len() + 1).next_multiple_of(4);
        Some((Self { ssrc, cname }, bytes.get(used..)?))
    }
}

/// The blocks of an extended report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XrBlocks<'a> {
    rest: &'a [u8],
}

impl<'a> XrBlocks<'a> {
    /// `None` where a block is malformed.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, rest) = XrBlock::split(rest)?;
        }
        Some(Self { rest: bytes })
    }
}

impl Iterator for XrBlocks<'_> {
    type Item = XrBlock;

    fn next(&mut self) -> Option<XrBlock> {
        let (block, rest) = XrBlock::split(self.rest)?;
        self.rest = rest;
        Some(block)
    }
}

/// A block of an extended report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XrBlock {
    /// When the receiver sent it, by the receiver's clock (RFC 3611 §4.4).
    ReceiverReferenceTime(NtpTime),
    /// Any other: its block type.
    Unknown(u8),
}

impl XrBlock {
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = bytes.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]])) * 4;
        let (body, rest) = rest.split_at_checked(len)?;
        let block = match (header[0], body) {
            (XR_RECEIVER_REFERENCE_TIME, &[a, b, c, d, e, f, g, h]) => {
                XrBlock::ReceiverReferenceTime(NtpTime(u64::from_be_bytes([a, b, c, d, e, f, g, h])))
            }
            (other, _) => XrBlock::Unknown(other),
        };
        Some((block, rest))
    }
}

pub(super) fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*word), rest))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

//! Transport-wide feedback, read (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
//!
//! ```text
//! sender SSRC (4) | media SSRC (4) | base sequence (2) | status count (2) | reference time (3) | feedback count (1)
//! packet chunks (2 each) | receive deltas (1 or 2 each)
//! ```

/// Which packets of a transport arrived, and when.
///
/// The status count is the peer's word: up to 65,535 statuses in some 20 bytes. Whoever walks them stops at what it has
/// sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwccFeedback<'a> {
    /// Who reports.
    pub sender: u32,
    /// A stream of the transport.
    pub media: u32,
    /// The transport-wide number of the first packet reported on.
    pub base_sequence: u16,
    /// How many packets are reported on.
    pub status_count: u16,
    /// What the first delta is added to, in 64 ms of the reporter's clock, 24 bits signed.
    pub reference_time: i32,
    /// Goes up with each feedback packet.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

/// Bytes in front of the chunks.
const FIXED_LEN: usize = 16;

impl<'a> TwccFeedback<'a> {
    /// Reads the body of the packet: chunks enough for all statuses, deltas enough for all that arrived.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = body.split_first_chunk::<FIXED_LEN>()?;
        let u32_at = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let status_count = u16::from_be_bytes([fixed[10], fixed[11]]);
        let (chunks, deltas) = split_chunks(rest, status_count)?;
        Some(Self {
            sender: u32_at(0),
            media: u32_at(4),
            base_sequence: u16::from_be_bytes([fixed[8], fixed[9]]),
            status_count,
            reference_time: u32_at(12) as i32 >> 8,
            feedback_count: fixed[15],
            chunks,
            deltas,
        })
    }

    /// The reference time in 250 µs, the unit of the deltas.
    pub fn reference_ticks(&self) -> i64 {
        i64::from(self.reference_time) * 256
    }

    /// The statuses, in the order of the transport-wide numbers: the number and, where the packet arrived, how long
    /// after the one before it that arrived (the first: after the reference time), in 250 µs.
    pub fn statuses(&self) -> TwccStatuses<'a> {
        TwccStatuses {
            sequence: self.base_sequence,
            left: self.status_count,
            chunk: Chunk(0),
            taken: 0,
            chunks: self.chunks,
            deltas: self.deltas,
        }
    }
}

/// Divides what follows the fixed part, and checks that nothing is missing.
fn split_chunks(bytes: &[u8], status_count: u16) -> Option<(&[u8], &[u8])> {
    let mut left = status_count;
    let (mut chunks_len, mut deltas_len) = (0, 0);
    while left > 0 {
        let chunk = Chunk(u16::from_be_bytes([*bytes.get(chunks_len)?, *bytes.get(chunks_len + 1)?]));
        chunks_len += 2;
        // The last chunk may have room for more than there are.
        let used = chunk.len().min(left);
        deltas_len += chunk.deltas_len(used)?;
        left -= used;
    }
    let (chunks, rest) = bytes.split_at(chunks_len);
    Some((chunks, rest.get(..deltas_len)?))
}

/// A packet chunk (§3.1.3, §3.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk(u16);

impl Chunk {
    /// How many statuses it holds.
    fn len(self) -> u16 {
        match self.0 >> 14 {
            0 | 1 => self.0 & 0x1fff,
            2 => 14,
            _ => 7,
        }
    }

    /// The symbol of a status: 0 for a packet that did not arrive, else the length of its delta. 3 is reserved.
    fn symbol(self, at: u16) -> u16 {
        match self.0 >> 14 {
            0 | 1 => self.0 >> 13 & 3,
            2 => self.0 >> (13 - at) & 1,
            _ => self.0 >> (12 - 2 * at) & 3,
        }
    }

    /// Bytes of deltas that its first `used` statuses have, `None` where one is reserved.
    fn deltas_len(self, used: u16) -> Option<usize> {
        if self.0 >> 15 == 0 {
            let symbol = self.symbol(0);
            return (symbol != 3).then_some(usize::from(symbol) * usize::from(used));
        }
        (0..used)
            .map(|at| self.symbol(at))
            .try_fold(0, |sum, symbol| (symbol != 3).then_some(sum + usize::from(symbol)))
    }
}

/// Iterator of [`TwccFeedback::statuses`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwccStatuses<'a> {
    sequence: u16,
    left: u16,
    chunk: Chunk,
    taken: u16,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl Iterator for TwccStatuses<'_> {
    type Item = (u16, Option<i16>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        while self.taken == self.chunk.len() {
            let (chunk, rest) = self.chunks.split_first_chunk::<2>()?;
            (self.chunk, self.taken, self.chunks) = (Chunk(u16::from_be_bytes(*chunk)), 0, rest);
        }
        let symbol = self.chunk.symbol(self.taken);
        self.taken += 1;
        let (delta, rest) = self.deltas.split_at_checked(symbol.into())?;
        self.deltas = rest;
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let delta = match *delta {
            [small] => Some(i16::from(small)),
            [high, low] => Some(i16::from_be_bytes([high, low])),
            _ => None,
        };
        Some((sequence, delta))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, RtcpError, packets};
    use crate::rtc::srtp::unhex;

    /// A feedback packet of `status_count` from number 65534, with what follows the fixed part.
    fn read(status_count: u16, rest: &str) -> Result<Vec<(u16, Option<i16>)>, RtcpError> {
        let mut bytes = unhex("8fcd0000 00000001 00000002 fffe0000 00000305");
        bytes.extend(unhex(rest));
        bytes[14..16].copy_from_slice(&status_count.to_be_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[3] = (bytes.len() / 4 - 1) as u8;
        match packets(&bytes).next().unwrap()? {
            Packet::TransportFeedback(feedback) => {
                assert_eq!((feedback.sender, feedback.media, feedback.base_sequence), (1, 2, 65534));
                assert_eq!((feedback.reference_ticks(), feedback.feedback_count), (3 * 256, 5));
                Ok(feedback.statuses().collect())
            }
            other => panic!("not transport feedback: {other:?}"),
        }
    }

    #[test]
    fn run_lengths() {
        let expected = vec![(65534, Some(1)), (65535, Some(2)), (0, None), (1, None)];
        assert_eq!(read(4, "2002 0002 01 02"), Ok(expected));
        assert_eq!(read(1, "5fff fffe"), Ok(vec![(65534, Some(-2))]), "a run may say more than there are");
    }

    #[test]
    fn vectors() {
        // 1 0 1, of 14
        assert_eq!(read(3, "a800 04 05"), Ok(vec![(65534, Some(4)), (65535, None), (0, Some(5))]));
        // 1 2 0, of 7
        assert_eq!(read(3, "d800 04 8000"), Ok(vec![(65534, Some(4)), (65535, Some(i16::MIN)), (0, None)]));
    }

    #[test]
    fn what_is_missing_or_reserved_is_refused() {
        let malformed = Err(RtcpError::Malformed { packet_type: 205 });
        assert_eq!(read(10, "2002 0000"), malformed, "chunks end too soon");
        assert_eq!(read(5, "4005 0001 0002"), malformed, "deltas end too soon");
        assert_eq!(read(1, "6001 0000"), malformed, "reserved symbol in a run");
        assert_eq!(read(1, "f000 0000"), malformed, "reserved symbol in a vector");
    }

    #[test]
    fn a_negative_reference_time() {
        let bytes = unhex("8fcd0005 00000001 00000002 00000001 ffffff00 2001 0700");
        let Some(Ok(Packet::TransportFeedback(feedback))) = packets(&bytes).next() else { panic!("not feedback") };
        assert_eq!(feedback.reference_time, -1);
        assert_eq!(feedback.statuses().collect::<Vec<_>>(), [(0, Some(7))]);
    }
}

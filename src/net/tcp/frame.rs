//! Packets on a byte stream (RFC 4571 §2), as RFC 6544 §3 asks for on every connection of ICE-TCP: two octets of length
//! in network byte order, then so many octets of one packet.

/// Octets of a frame's length.
pub const PREFIX: usize = 2;

/// The longest packet that is accepted. A peer sends over TCP what it would send over UDP, and that fits into an
/// Ethernet frame; the prefix could claim 64 KiB.
pub const MAX_PACKET: usize = 2048;

/// A frame claims to be longer than [`MAX_PACKET`]. Nothing behind it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of more than {MAX_PACKET} octets")]
pub struct TooLong;

/// Cuts a byte stream into packets. Between two reads it keeps the beginning of a frame, never more than one.
#[derive(Debug, Default)]
pub struct Deframer {
    beginning: Vec<u8>,
}

impl Deframer {
    /// Puts what the last read left over at the front of `buffer`, and says how long that is: there the next read goes.
    ///
    /// # Panics
    /// If `buffer` is shorter than a frame.
    pub fn resume(&mut self, buffer: &mut [u8]) -> usize {
        let len = self.beginning.len();
        buffer[..len].copy_from_slice(&self.beginning);
        self.beginning.clear();
        len
    }

    /// Gives each whole packet in `stream` to `take`, until that says `false`, and keeps what comes after the last one.
    ///
    /// # Errors
    /// [`TooLong`]; the connection is of no use any more.
    pub fn split(&mut self, mut stream: &mut [u8], mut take: impl FnMut(&mut [u8]) -> bool) -> Result<(), TooLong> {
        while let Some((prefix, rest)) = stream.split_at_mut_checked(PREFIX) {
            let len = usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
            if len > MAX_PACKET {
                return Err(TooLong);
            }
            if rest.len() < len {
                break;
            }
            let (packet, after) = std::mem::take(&mut stream)[PREFIX..].split_at_mut(len);
            stream = after;
            // "Zero is a valid value for LENGTH, and it codes the null packet", which is nothing.
            if len > 0 && !take(packet) {
                return Ok(());
            }
        }
        self.beginning.extend_from_slice(stream);
        Ok(())
    }
}

/// The length that goes before a packet.
///
/// # Panics
/// If the packet is longer than a prefix can say, which no datagram is.
pub fn prefix(packet: &[u8]) -> [u8; PREFIX] {
    u16::try_from(packet.len()).expect("a packet is shorter than 64 KiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `stream` in pieces of these lengths, over and over, and returns the packets.
    fn deframe(stream: &[u8], pieces: &[usize]) -> (Vec<Vec<u8>>, Result<(), TooLong>) {
        let (mut deframer, mut packets) = (Deframer::default(), Vec::new());
        let mut pieces = pieces.iter().cycle();
        let mut rest = stream;
        while !rest.is_empty() {
            let mut buffer = vec![0xee; PREFIX + MAX_PACKET + rest.len()];
            let start = deframer.resume(&mut buffer);
            assert!(start < PREFIX + MAX_PACKET, "no more than the beginning of one frame is kept");
            let (piece, after) = rest.split_at((*pieces.next().unwrap()).clamp(1, rest.len()));
            rest = after;
            let end = start + piece.len();
            buffer[start..end].copy_from_slice(piece);
            let result = deframer.split(&mut buffer[..end], |packet| {
                packets.push(packet.to_vec());
                true
            });
            if result.is_err() {
                return (packets, result);
            }
        }
        (packets, Ok(()))
    }

    fn frames(packets: &[Vec<u8>]) -> Vec<u8> {
        packets.iter().flat_map(|p| [&prefix(p)[..], p].concat()).collect()
    }

    #[test]
    fn a_claim_of_more_than_a_packet_ends_it_at_once() {
        let mut stream = frames(&[vec![1; 20]]);
        stream.extend(2049_u16.to_be_bytes());
        assert_eq!(deframe(&stream, &[1]), (vec![vec![1; 20]], Err(TooLong)));
        let longest = vec![vec![2; MAX_PACKET]];
        assert_eq!(deframe(&frames(&longest), &[700]), (longest, Ok(())));
    }

    #[test]
    fn null_packets_are_nothing() {
        let packets = [vec![], vec![7], vec![], vec![]];
        assert_eq!(deframe(&frames(&packets), &[3]).0, [vec![7]]);
    }

    #[test]
    fn who_says_no_gets_nothing_more() {
        let mut deframer = Deframer::default();
        let mut seen = 0;
        let mut stream = frames(&[vec![1], vec![2], vec![3]]);
        let result = deframer.split(&mut stream, |packet| {
            seen += 1;
            packet[0] != 2
        });
        assert_eq!((result, seen, deframer.resume(&mut [0; 8])), (Ok(()), 2, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// However TCP cuts the stream, the packets are those that were framed.
        #[test]
        fn any_split_gives_the_same_packets(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 0..30),
            long in prop::collection::vec(any::<u8>(), 1..=MAX_PACKET),
            pieces in prop::collection::vec(1_usize..200, 1..20),
        ) {
            let packets = [packets, vec![long]].concat();
            prop_assert_eq!(deframe(&frames(&packets), &pieces), (packets, Ok(())));
        }

        #[test]
        fn no_stream_panics(stream in prop::collection::vec(any::<u8>(), 0..3000), pieces in prop::collection::vec(1_usize..300, 1..9)) {
            let whole = deframe(&stream, &[stream.len().max(1)]);
            prop_assert!(whole.0.iter().all(|p| !p.is_empty() && p.len() <= MAX_PACKET));
            prop_assert_eq!(deframe(&stream, &pieces), whole);
        }
    }
}

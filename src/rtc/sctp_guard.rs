//! Which SCTP packets of a peer the library may read.
//!
//! A peer with keys is still a stranger. `rtc-sctp` 0.21 takes lengths inside of chunks on trust and panics where they lie,
//! and walks every number up to the one a FORWARD TSN names. So the syntax of RFC 9260 §3 is checked before, and numbers
//! may not run ahead of what was sent. What no WebRTC client sends is refused, be it legal.

/// How far a TSN may be ahead of the highest one seen: more than a receive window of any real message holds.
const MAX_AHEAD: u32 = 8192;

/// A fragment that is shorter, and not a message's last, is short: the library's memory for it is far more than its bytes.
const SHORT_FRAGMENT: usize = 64;

/// Short fragments that a peer may send more than other DATA. Chromium fills packets with them, down to 8 bytes: one stands at the end of
/// a packet, and what is left of its message at the beginning of the next. Ends of messages are limited by what comes of them.
const MAX_SHORT: u8 = 16;

/// Requests to reset streams that a peer may make: one for each channel it closes. The library keeps those that it
/// cannot carry out yet.
const MAX_RESETS: u16 = 256;

const COMMON_HEADER_LEN: usize = 12;
const CHUNK_HEADER_LEN: usize = 4;

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The library may read it.
    Admit,
    /// It is to be dropped.
    Refuse,
    /// The peer gives the association up (RFC 9260 §3.3.7).
    Abort,
}

/// What it has to remember of an association.
#[derive(Debug, Default)]
pub(super) struct SctpGuard {
    /// The highest TSN the peer has used, from its INIT on.
    highest: Option<u32>,
    resets: u16,
    /// By how many its short fragments outnumber other DATA.
    short: u8,
}

/// One chunk: type, flags, value without padding.
struct Chunk<'a> {
    kind: u8,
    flags: u8,
    value: &'a [u8],
}

impl SctpGuard {
    /// Judges a packet.
    pub(super) fn judge(&mut self, packet: &[u8]) -> Verdict {
        let Some(mut rest) = packet.get(COMMON_HEADER_LEN..).filter(|rest| !rest.is_empty()) else {
            return Verdict::Refuse;
        };
        let whole = rest;
        while !rest.is_empty() {
            let Some(chunk) = take_chunk(&mut rest) else { return Verdict::Refuse };
            // RFC 9260 §6.10: INIT stands alone.
            let alone = chunk.value.len() + CHUNK_HEADER_LEN >= whole.len().saturating_sub(3);
            match chunk.kind {
                6 => return Verdict::Abort,
                1 if !alone => return Verdict::Refuse,
                _ if !self.admits(&chunk) => return Verdict::Refuse,
                _ => {}
            }
        }
        Verdict::Admit
    }

    fn admits(&mut self, chunk: &Chunk<'_>) -> bool {
        let value = chunk.value;
        match chunk.kind {
            // DATA (§3.3.1). Without user data it is a protocol violation.
            0 => {
                if value.len() <= 12 {
                    return false;
                }
                let tsn = be_u32(value);
                if self.highest.is_none_or(|highest| tsn.wrapping_sub(highest) as i32 > 0) {
                    let is_last = chunk.flags & 0x01 != 0;
                    let is_short = !is_last && value.len() < 12 + SHORT_FRAGMENT;
                    if is_short && self.short == MAX_SHORT {
                        return false;
                    }
                    self.short = if is_short { self.short + 1 } else { self.short.saturating_sub(1) };
                }
                self.advance(tsn)
            }
            // INIT (§3.3.2). It sets the first TSN; a repetition names the same one.
            1 => {
                let admitted = value.len() >= 16 && parameters(&value[16..]).is_some();
                if admitted {
                    self.highest = Some(be_u32(&value[12..]).wrapping_sub(1));
                }
                admitted
            }
            3 => is_selective_ack(value),
            // HEARTBEAT and its acknowledgement (§3.3.5): one parameter.
            4 | 5 => parameters(value) == Some(1) && value[..2] == [0, 1],
            // SHUTDOWN (§3.3.8).
            7 => value.len() == 4,
            // SHUTDOWN ACK, COOKIE ACK, SHUTDOWN COMPLETE.
            8 | 11 | 14 => value.is_empty(),
            // COOKIE ECHO (§3.3.11).
            10 => !value.is_empty(),
            130 => self.admits_reset(value),
            // FORWARD TSN (RFC 3758 §3.2).
            192 => value.len() >= 4 && value.len().is_multiple_of(4) && self.advance(be_u32(value)),
            _ => false,
        }
    }

    /// RE-CONFIG (RFC 6525 §3.1): requests to reset what the peer sends on, and answers to ours.
    fn admits_reset(&mut self, value: &[u8]) -> bool {
        let well_formed = parameters(value).is_some_and(|count| (1..=2).contains(&count)) && {
            let (kind, len) = (be_u16(value), be_u16(&value[2..]));
            match kind {
                13 => len >= 16 && len.is_multiple_of(2),
                16 => len >= 12,
                _ => false,
            }
        };
        self.resets = self.resets.saturating_add(well_formed.into());
        well_formed && self.resets <= MAX_RESETS
    }

    fn advance(&mut self, tsn: u32) -> bool {
        let Some(highest) = self.highest else { return false };
        let ahead = tsn.wrapping_sub(highest);
        if ahead > MAX_AHEAD && ahead <= i32::MAX as u32 {
            return false;
        }
        if ahead <= MAX_AHEAD {
            self.highest = Some(tsn);
        }
        true
    }
}

/// SACK (§3.3.4): as long as its counts say, and blocks that rise and do not overlap.
fn is_selective_ack(value: &[u8]) -> bool {
    if value.len() < 12 {
        return false;
    }
    let (blocks, duplicates) = (usize::from(be_u16(&value[8..])), usize::from(be_u16(&value[10..])));
    if value.len() != 12 + 4 * (blocks + duplicates) {
        return false;
    }
    let mut end = 0;
    value[12..12 + 4 * blocks].chunks_exact(4).all(|block| {
        let rises = be_u16(block) > end && be_u16(&block[2..]) >= be_u16(block);
        end = be_u16(&block[2..]);
        rises
    })
}

/// Splits off the first chunk and its padding; `None` if it claims more than there is.
fn take_chunk<'a>(rest: &mut &'a [u8]) -> Option<Chunk<'a>> {
    let (&[kind, flags, high, low], _) = rest.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let value = rest.get(CHUNK_HEADER_LEN..len)?;
    // RFC 9260 §3.2: the length does not count the padding, which the last chunk may lack.
    *rest = &rest[len.next_multiple_of(4).min(rest.len())..];
    Some(Chunk { kind, flags, value })
}

/// How many parameters there are (§3.2.1); `None` if they are not well formed.
fn parameters(mut rest: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !rest.is_empty() {
        let len = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        rest.get(4..len)?;
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        count += 1;
    }
    Some(count)
}

fn be_u16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn be_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(chunks: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![0; COMMON_HEADER_LEN];
        for (kind, flags, value) in chunks {
            packet.extend([*kind, *flags]);
            packet.extend((value.len() as u16 + 4).to_be_bytes());
            packet.extend(*value);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    fn data(tsn: u32, len: usize) -> Vec<u8> {
        let mut value = tsn.to_be_bytes().to_vec();
        value.resize(12 + len, 0);
        value
    }

    fn established() -> SctpGuard {
        let mut guard = SctpGuard::default();
        let mut init = vec![0; 16];
        init[12..].copy_from_slice(&100_u32.to_be_bytes());
        assert_eq!(guard.judge(&packet(&[(1, 0, &init)])), Verdict::Admit);
        guard
    }

    #[test]
    fn chunks_are_judged_by_the_tables_of_rfc_9260() {
        let cases: [(&str, u8, u8, Vec<u8>, Verdict); 17] = [
            ("data", 0, 3, data(100, 1), Verdict::Admit),
            ("data without data", 0, 3, data(100, 0), Verdict::Refuse),
            ("a fragment", 0, 2, data(100, 1), Verdict::Admit),
            ("data far ahead", 0, 3, data(100 + 9000, 1), Verdict::Refuse),
            ("old data", 0, 3, data(50, 1), Verdict::Admit),
            ("a short INIT", 1, 0, vec![0; 15], Verdict::Refuse),
            ("INIT ACK, which we never ask for", 2, 0, vec![0; 16], Verdict::Refuse),
            ("a SACK", 3, 0, vec![0; 12], Verdict::Admit),
            ("a SACK of a block", 3, 0, [&[0; 9][..], &[1, 0, 0, 0, 1, 0, 2]].concat(), Verdict::Admit),
            ("a SACK whose block falls", 3, 0, [&[0; 9][..], &[1, 0, 0, 0, 2, 0, 1]].concat(), Verdict::Refuse),
            ("a SACK that counts wrong", 3, 0, [&[0; 9][..], &[1, 0, 0]].concat(), Verdict::Refuse),
            ("an abort whose cause lies", 6, 0, vec![0, 1, 0xff, 0xff], Verdict::Abort),
            ("a shutdown of nothing", 7, 0, vec![], Verdict::Refuse),
            ("a forward TSN far ahead", 192, 0, 0x7000_0000_u32.to_be_bytes().to_vec(), Verdict::Refuse),
            ("a forward TSN", 192, 0, 200_u32.to_be_bytes().to_vec(), Verdict::Admit),
            ("a reset whose parameter lies", 130, 0, vec![0, 13, 0, 99], Verdict::Refuse),
            ("unknown", 77, 0, vec![], Verdict::Refuse),
        ];
        for (name, kind, flags, value, verdict) in cases {
            assert_eq!(established().judge(&packet(&[(kind, flags, &value)])), verdict, "{name}");
        }
    }

    #[test]
    fn every_chunk_of_a_packet_counts() {
        let (good, bad) = (data(100, 5), data(100, 0));
        assert_eq!(established().judge(&packet(&[(3, 0, &[0; 12]), (0, 3, &good)])), Verdict::Admit);
        assert_eq!(established().judge(&packet(&[(0, 3, &good), (0, 3, &bad)])), Verdict::Refuse);
        assert_eq!(established().judge(&packet(&[(0, 3, &good), (1, 0, &[0; 16])])), Verdict::Refuse, "INIT is alone");
        assert_eq!(established().judge(&[0; 12]), Verdict::Refuse);
    }

    #[test]
    fn short_fragments_are_admitted_between_others() {
        let mut guard = established();
        let mut judge = |tsn, len| guard.judge(&packet(&[(0, 0, &data(tsn, len))]));
        for tsn in 100..300 {
            assert_eq!(judge(tsn, if tsn % 2 == 0 { 20 } else { 1100 }), Verdict::Admit);
        }
        let admitted = (300..400).take_while(|tsn| judge(*tsn, 20) == Verdict::Admit).count();
        assert!((15..=16).contains(&admitted), "{admitted} of them alone");
        assert_eq!(judge(300, 20), Verdict::Admit, "the same again");
        assert_eq!((judge(350, 1100), judge(351, 20)), (Verdict::Admit, Verdict::Admit));
    }

    /// As Chromium sends bets that have waited for a path: whole ones, and at the end as much of the next as there is room for.
    #[test]
    fn packets_that_are_filled_with_the_beginning_of_the_next_message_are_admitted() {
        let mut guard = established();
        let mut tsn = 100;
        let mut next = |len| {
            tsn += 1;
            data(tsn - 1, len)
        };
        for _ in 0..1000 {
            let (rest, whole, begin) = (next(146), [154; 6].map(&mut next), next(8));
            let mut chunks = vec![(0, 0x01, &*rest)];
            chunks.extend(whole.iter().map(|whole| (0, 0x03, &**whole)));
            chunks.push((0, 0x02, &begin));
            assert_eq!(guard.judge(&packet(&chunks)), Verdict::Admit);
        }
    }

    #[test]
    fn resets_are_bounded() {
        let mut guard = established();
        let mut reset = vec![0, 13, 0, 16];
        reset.resize(16, 0);
        let admitted = (0..1000).filter(|_| guard.judge(&packet(&[(130, 0, &reset)])) == Verdict::Admit).count();
        assert_eq!(admitted, usize::from(MAX_RESETS));
    }

    proptest! {
        #[test]
        fn any_packet_is_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            SctpGuard::default().judge(&bytes);
            established().judge(&bytes);
        }
    }
}

//! The first message of a handshake, put together from whatever datagrams, records and fragments it came in.
//!
//! Chromium and Firefox send their ClientHello in two datagrams, GStreamer in many, Firefox after some tries in other
//! pieces than before; the network reorders and repeats. Until the hello is whole nothing else of DTLS exists, and all that
//! is held are the bytes that came.

use super::client_hello::MAX_HELLO;

/// The most fragments that are held: a hello of [`MAX_HELLO`] in the pieces of GStreamer, which sends the smallest.
const MAX_FRAGMENTS: usize = 80;

const RECORD_HEADER_LEN: usize = 13;
const HANDSHAKE_HEADER_LEN: usize = 12;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// No part of a ClientHello was in a datagram: it is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoHello;

/// A part of the message.
#[derive(Debug, PartialEq, Eq)]
struct Fragment {
    offset: usize,
    bytes: Box<[u8]>,
}

impl Fragment {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }
}

/// Gathers the fragments of one ClientHello.
#[derive(Debug, Default)]
pub(super) struct HelloReader {
    /// By offset; none lies within another.
    fragments: Vec<Fragment>,
    /// Of the whole message, as all its fragments say (RFC 6347 §4.2.2).
    length: usize,
    /// The highest sequence number of a record that held a part of it, 48 bits.
    record: u64,
}

impl HelloReader {
    /// Takes a datagram. `Ok(true)` once the message is whole.
    pub(super) fn handle_datagram(&mut self, mut datagram: &[u8]) -> Result<bool, NoHello> {
        let mut found = false;
        while let Some((record, number, rest)) = read_record(datagram) {
            datagram = rest;
            let mut messages = record;
            while let Some((length, fragment, rest)) = read_fragment(messages) {
                messages = rest;
                found = true;
                self.record = self.record.max(number);
                self.add(length, fragment);
            }
        }
        if found { Ok(self.is_whole()) } else { Err(NoHello) }
    }

    /// The whole message as one record in one datagram, and the offset of its body there. Its number is the highest that
    /// the client used for a part of it, so that nothing that comes later looks like a repetition.
    ///
    /// # Panics
    /// Unless the message is whole.
    pub(super) fn into_datagram(self) -> (Vec<u8>, usize) {
        assert!(self.is_whole(), "a ClientHello with gaps");
        let body_at = RECORD_HEADER_LEN + HANDSHAKE_HEADER_LEN;
        let length = (self.length as u32).to_be_bytes();
        let mut datagram = Vec::with_capacity(body_at + self.length);
        datagram.extend([HANDSHAKE, 0xfe, 0xfd, 0, 0]);
        datagram.extend(&self.record.to_be_bytes()[2..]);
        datagram.extend(((HANDSHAKE_HEADER_LEN + self.length) as u16).to_be_bytes());
        datagram.extend([
            CLIENT_HELLO,
            length[1],
            length[2],
            length[3],
            0,
            0,
            0,
            0,
            0,
            length[1],
            length[2],
            length[3],
        ]);
        for fragment in &self.fragments {
            let known = datagram.len() - body_at - fragment.offset;
            datagram.extend(fragment.bytes.get(known..).unwrap_or_default());
        }
        (datagram, body_at)
    }

    fn is_whole(&self) -> bool {
        let reach = self.fragments.iter().try_fold(0, |reach, f| (f.offset <= reach).then(|| reach.max(f.end())));
        self.length > 0 && reach == Some(self.length)
    }

    fn add(&mut self, length: usize, fragment: Fragment) {
        // Another message than the one begun: the client that is there now has begun anew.
        if length != self.length {
            *self = Self { length, record: self.record, ..Self::default() };
        }
        let covers = |a: &Fragment, b: &Fragment| a.offset <= b.offset && b.end() <= a.end();
        if self.fragments.iter().any(|held| covers(held, &fragment)) {
            return;
        }
        self.fragments.retain(|held| !covers(&fragment, held));
        let held: usize = self.fragments.iter().map(|f| f.bytes.len()).sum();
        // Overlaps can make the sum more than the message: whoever sends so many sends them on purpose.
        if self.fragments.len() == MAX_FRAGMENTS || held + fragment.bytes.len() > MAX_HELLO {
            self.fragments.clear();
        }
        let at = self.fragments.partition_point(|held| held.offset < fragment.offset);
        self.fragments.insert(at, fragment);
    }
}

/// The next record of a handshake without encryption: its content, its number, and what follows it. Other records, of
/// which none is due here, are skipped.
fn read_record(mut datagram: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    loop {
        let (header, rest) = datagram.split_first_chunk::<RECORD_HEADER_LEN>()?;
        let [kind, major, _, e0, e1, n0, n1, n2, n3, n4, n5, l0, l1] = *header;
        let (content, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        if (kind, major, e0, e1) == (HANDSHAKE, 0xfe, 0, 0) {
            return Some((content, u64::from_be_bytes([0, 0, n0, n1, n2, n3, n4, n5]), rest));
        }
        datagram = rest;
    }
}

/// The next fragment of a ClientHello in a record: the length of the whole message, the fragment, and what follows it.
/// It is the first message of its client, number 0: we never ask for a second by HelloVerifyRequest.
fn read_fragment(messages: &[u8]) -> Option<(usize, Fragment, &[u8])> {
    let (header, rest) = messages.split_first_chunk::<HANDSHAKE_HEADER_LEN>()?;
    let [kind, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2] = *header;
    let number = |a, b, c| u32::from_be_bytes([0, a, b, c]) as usize;
    let (length, offset, len) = (number(l0, l1, l2), number(o0, o1, o2), number(f0, f1, f2));
    let (bytes, rest) = rest.split_at_checked(len)?;
    let usable = (kind, s0, s1) == (CLIENT_HELLO, 0, 0)
        && (1..=MAX_HELLO).contains(&length)
        && offset + len <= length
        && len > 0;
    usable.then(|| (length, Fragment { offset, bytes: bytes.into() }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record with a fragment of `message`.
    fn record(message: &[u8], number: u8, from: usize, to: usize) -> Vec<u8> {
        let three = |n: usize| (n as u32).to_be_bytes()[1..].to_vec();
        let mut bytes = vec![HANDSHAKE, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, number];
        bytes.extend(((HANDSHAKE_HEADER_LEN + to - from) as u16).to_be_bytes());
        bytes.push(CLIENT_HELLO);
        bytes.extend(three(message.len()));
        bytes.extend([0, 0]);
        bytes.extend(three(from));
        bytes.extend(three(to - from));
        bytes.extend(&message[from..to]);
        bytes
    }

    fn message(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n % 251) as u8).collect()
    }

    fn body(reader: HelloReader) -> Vec<u8> {
        let (datagram, at) = reader.into_datagram();
        datagram[at..].to_vec()
    }

    #[test]
    fn two_datagrams_in_either_order() {
        let hello = message(1400);
        let parts = [record(&hello, 4, 0, 1175), record(&hello, 5, 1175, 1400)];
        for order in [[0, 1], [1, 0]] {
            let mut reader = HelloReader::default();
            assert_eq!(reader.handle_datagram(&parts[order[0]]), Ok(false));
            assert_eq!(reader.handle_datagram(&parts[order[0]]), Ok(false), "once more");
            assert_eq!(reader.handle_datagram(&parts[order[1]]), Ok(true));
            let (datagram, at) = reader.into_datagram();
            assert_eq!(datagram[at..], hello);
            let mut whole = record(&hello, 5, 0, 1400);
            whole[2] = 0xfd;
            assert_eq!(datagram, whole, "as if it had come so");
        }
    }

    #[test]
    fn several_records_in_a_datagram_and_others_between() {
        let hello = message(300);
        let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 2, 40];
        let datagram = [&alert[..], &record(&hello, 0, 0, 150), &alert, &record(&hello, 1, 150, 300)].concat();
        let mut reader = HelloReader::default();
        assert_eq!(reader.handle_datagram(&alert), Err(NoHello));
        assert_eq!(reader.handle_datagram(&datagram), Ok(true));
        assert_eq!(body(reader), hello);
    }

    #[test]
    fn other_pieces_of_the_same_hello_fit_too() {
        let hello = message(1400);
        let mut reader = HelloReader::default();
        assert_eq!(reader.handle_datagram(&record(&hello, 0, 600, 1400)), Ok(false));
        assert_eq!(reader.handle_datagram(&record(&hello, 2, 500, 900)), Ok(false));
        assert_eq!(reader.handle_datagram(&record(&hello, 3, 0, 550)), Ok(true));
        assert_eq!(body(reader), hello);
    }

    #[test]
    fn another_hello_replaces_one_that_was_begun() {
        let (old, new) = (message(900), message(1000));
        let mut reader = HelloReader::default();
        assert_eq!(reader.handle_datagram(&record(&old, 0, 0, 500)), Ok(false));
        assert_eq!(reader.handle_datagram(&record(&new, 0, 0, 500)), Ok(false));
        assert_eq!(reader.handle_datagram(&record(&old, 1, 500, 900)), Ok(false));
        assert_eq!(reader.handle_datagram(&record(&new, 1, 0, 1000)), Ok(true));
        assert_eq!(body(reader), new);
    }

    #[test]
    fn lengths_that_lie_are_no_hello() {
        let hello = message(100);
        let good = record(&hello, 0, 0, 100);
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            assert_eq!(HelloReader::default().handle_datagram(&bytes), Err(NoHello), "{bytes:?}");
        };
        refused(&|b| b[0] = 23);
        refused(&|b| b[4] = 1);
        refused(&|b| b[12] += 1);
        refused(&|b| b[13] = 2);
        refused(&|b| b[18] = 1);
        refused(&|b| b[16] -= 1);
        refused(&|b| b[21] = 1);
        refused(&|b| b[24] += 1);
        refused(&|b| b[14] = 1);
        refused(&|b| b.truncate(24));
        refused(&|b| b.clear());
    }

    #[test]
    fn what_is_held_is_bounded_by_what_came_and_by_the_longest_hello() {
        let hello = message(MAX_HELLO);
        let mut reader = HelloReader::default();
        for n in 0..10_000 {
            let from = n * 7 % (MAX_HELLO - 1200);
            let _ = reader.handle_datagram(&record(&hello, 0, from, from + 1 + n % 1200));
            let held: usize = reader.fragments.iter().map(|f| f.bytes.len()).sum();
            assert!(held <= MAX_HELLO && reader.fragments.len() <= MAX_FRAGMENTS);
        }
        // And is of no harm to the client that means it.
        for from in (0..MAX_HELLO).step_by(230).chain((0..MAX_HELLO).step_by(230)) {
            if reader.handle_datagram(&record(&hello, 0, from, (from + 230).min(MAX_HELLO))) == Ok(true) {
                assert_eq!(body(reader), hello);
                return;
            }
        }
        panic!("the hello is never whole");
    }

    proptest! {
        #[test]
        fn no_input_panics(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let mut reader = HelloReader::default();
            for datagram in datagrams {
                let _ = reader.handle_datagram(&datagram);
            }
        }

        #[test]
        fn any_pieces_in_any_order_make_the_whole(
            len in 1..3000_usize,
            cuts in prop::collection::vec((any::<u16>(), 1..900_usize), 0..40),
            rest in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let hello = message(len);
            let mut reader = HelloReader::default();
            let mut whole = false;
            for (n, (from, size)) in cuts.into_iter().enumerate() {
                let from = usize::from(from) % len;
                whole = reader.handle_datagram(&record(&hello, n as u8, from, (from + size).min(len))).unwrap();
            }
            for n in rest {
                let (from, to) = (n * len / 12, (n + 1) * len / 12);
                if from < to {
                    whole = reader.handle_datagram(&record(&hello, 99, from, to)).unwrap();
                }
            }
            prop_assert!(whole);
            prop_assert_eq!(body(reader), hello);
        }
    }
}

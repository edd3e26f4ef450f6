//! Datagrams on their way out: filled by a shard, sent by `net`.

use std::net::SocketAddr;

use crate::rtc::{Transport, TransportAddress};

/// What a datagram carries; decides its DSCP marking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficClass {
    /// STUN and RTCP: as video.
    Control,
    /// DTLS: data channels (EF by default).
    Data,
    /// Audio (EF by default).
    Audio,
    /// Video (AF41 by default).
    Video,
}

/// One `sendmsg` over UDP: a run of equal-sized datagrams (only the last may be shorter) to one destination. Over TCP, as many
/// frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where the run goes.
    pub destination: SocketAddr,
    /// First byte in [`SendBatch::bytes`].
    pub start: usize,
    /// Length of the whole run in bytes.
    pub len: usize,
    /// Length of each datagram but the last; equals `len` for a single datagram.
    pub segment_size: usize,
    /// Marking.
    pub class: TrafficClass,
}

impl Message {
    /// How many datagrams the run holds.
    pub const fn segments(&self) -> usize {
        self.len.div_ceil(self.segment_size)
    }
}

/// The most datagrams in one run: the kernel's `UDP_MAX_SEGMENTS` was 64 before Linux 6.9.
pub const MAX_SEGMENTS: usize = 64;

/// The most bytes in one run: a UDP payload is below 64 KiB, and a run is one UDP payload to the kernel.
pub const MAX_RUN_BYTES: usize = 65_000;

/// A reusable buffer of outgoing messages. Never grows: when it says that there is no room, it is sent and cleared.
#[derive(Debug)]
pub struct SendBatch {
    bytes: Box<[u8]>,
    used: usize,
    messages: Vec<Message>,
    /// Apart, so that UDP's way to the kernel does not know of them.
    tcp_messages: Vec<Message>,
    message_limit: usize,
}

impl SendBatch {
    /// A batch for `bytes` bytes in `messages` messages.
    pub fn with_capacity(bytes: usize, messages: usize) -> Self {
        Self {
            bytes: vec![0; bytes].into_boxed_slice(),
            used: 0,
            messages: Vec::with_capacity(messages),
            tcp_messages: Vec::with_capacity(messages),
            message_limit: messages,
        }
    }

    /// Whether another datagram of `len` bytes fits, be it in a message of its own.
    pub fn has_room(&self, len: usize) -> bool {
        self.has_room_for_run(1, len)
    }

    /// Whether `datagrams` more of at most `max_len` bytes each fit, be they each in a message of its own: ask once
    /// for all that one player gets, so that a full batch does not cut the player's run in two.
    pub fn has_room_for_run(&self, datagrams: usize, max_len: usize) -> bool {
        datagrams.saturating_mul(max_len) <= self.bytes.len() - self.used
            && datagrams <= self.message_limit - self.messages.len() - self.tcp_messages.len()
    }

    /// Appends a datagram of at most `max_len` bytes: `fill` writes it and returns its length, 0 for none.
    ///
    /// The datagram joins the last message of its transport where destination and class are equal and the run stays legal: every
    /// datagram before it has the run's segment size, it is not longer, it lies right behind them, and the limits on a run
    /// hold.
    ///
    /// # Panics
    /// If it does not fit, which it does where [`SendBatch::has_room`] says so, or if `fill` returns more than `max_len`.
    // As `Layout::get`.
    #[inline]
    pub fn push(
        &mut self,
        destination: TransportAddress,
        class: TrafficClass,
        max_len: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let start = self.used;
        let len = fill(&mut self.bytes[start..start + max_len]);
        assert!(len <= max_len, "send batch: {len} bytes written to a room of {max_len}");
        if len == 0 {
            return;
        }
        self.used += len;
        let messages = match destination.transport {
            Transport::Udp => &mut self.messages,
            Transport::Tcp => &mut self.tcp_messages,
        };
        if let Some(last) = messages.last_mut()
            && last.destination == destination.socket
            && last.class == class
            && last.start + last.len == start
            && last.len % last.segment_size == 0
            && len <= last.segment_size
            && last.segments() < MAX_SEGMENTS
            && last.len + len <= MAX_RUN_BYTES
        {
            last.len += len;
            return;
        }
        assert!(messages.len() < self.message_limit, "send batch: no room for another message");
        messages.push(Message { destination: destination.socket, start, len, segment_size: len, class });
    }

    /// The messages over UDP, in the order in which they are to be sent.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The messages over TCP, in the order in which they are to be sent.
    pub fn tcp_messages(&self) -> &[Message] {
        &self.tcp_messages
    }

    /// The bytes that [`Message::start`] and [`Message::len`] refer to.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.tcp_messages.is_empty()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.messages.clear();
        self.tcp_messages.clear();
    }

    /// Each datagram with its destination, those over UDP first: for tests and simulated networks.
    pub fn datagrams(&self) -> impl Iterator<Item = (TransportAddress, TrafficClass, &[u8])> {
        let udp = self.messages.iter().map(|m| (TransportAddress::udp(m.destination), m));
        let tcp = self.tcp_messages.iter().map(|m| (TransportAddress::tcp(m.destination), m));
        udp.chain(tcp).flat_map(|(destination, m)| {
            self.bytes[m.start..m.start + m.len].chunks(m.segment_size).map(move |d| (destination, m.class, d))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn player(n: u8) -> TransportAddress {
        TransportAddress::udp(([192, 0, 2, n], 4000).into())
    }

    fn push(batch: &mut SendBatch, n: u8, class: TrafficClass, len: usize) {
        batch.push(player(n), class, len, |out| {
            out.fill(n);
            len
        });
    }

    fn lens(batch: &SendBatch) -> Vec<(usize, usize)> {
        batch.messages().iter().map(|m| (m.len, m.segment_size)).collect()
    }

    /// What the kernel asks of a message with `UDP_SEGMENT`, and what we promise beside it.
    fn assert_legal(batch: &SendBatch) {
        let mut end = 0;
        for m in batch.messages() {
            assert_eq!(m.start, end, "messages lie one behind the other");
            end += m.len;
            assert!(m.len > 0 && m.segment_size > 0 && m.segment_size <= m.len);
            assert!(m.segments() <= MAX_SEGMENTS);
            assert!(m.segments() == 1 || m.len <= MAX_RUN_BYTES);
        }
        assert_eq!(end, batch.bytes().len());
    }

    #[test]
    fn equal_datagrams_and_a_shorter_last_one_are_one_run() {
        let mut batch = SendBatch::with_capacity(10_000, 8);
        for len in [1000, 1000, 400, 400, 1000] {
            push(&mut batch, 1, TrafficClass::Video, len);
        }
        assert_eq!(lens(&batch), [(2400, 1000), (400, 400), (1000, 1000)]);
    }

    #[test]
    fn another_player_or_class_begins_a_message() {
        let mut batch = SendBatch::with_capacity(10_000, 8);
        push(&mut batch, 1, TrafficClass::Video, 100);
        push(&mut batch, 1, TrafficClass::Audio, 100);
        push(&mut batch, 2, TrafficClass::Audio, 100);
        assert_eq!(batch.messages().len(), 3);
        assert_eq!(
            batch.datagrams().map(|(to, class, bytes)| (to, class, bytes[0])).collect::<Vec<_>>(),
            [
                (player(1), TrafficClass::Video, 1),
                (player(1), TrafficClass::Audio, 1),
                (player(2), TrafficClass::Audio, 2)
            ]
        );
    }

    /// What lies between the datagrams of a run would be sent with it.
    #[test]
    fn a_message_over_tcp_lies_apart_and_ends_a_run() {
        let mut batch = SendBatch::with_capacity(10_000, 4);
        let over_tcp = TransportAddress::tcp(player(1).socket);
        for destination in [player(1), over_tcp, over_tcp, player(1)] {
            batch.push(destination, TrafficClass::Video, 100, |_| 100);
        }
        let of = |messages: &[Message]| messages.iter().map(|m| (m.start, m.len)).collect::<Vec<_>>();
        assert_eq!(of(batch.messages()), [(0, 100), (300, 100)]);
        assert_eq!(of(batch.tcp_messages()), [(100, 200)]);
        assert!(batch.has_room_for_run(1, 100) && !batch.has_room_for_run(2, 100), "both count");
        let destinations: Vec<_> = batch.datagrams().map(|(to, ..)| to).collect();
        assert_eq!(destinations, [player(1), player(1), over_tcp, over_tcp]);
        batch.clear();
        assert!(batch.is_empty() && batch.tcp_messages().is_empty());
    }

    #[test]
    fn a_run_ends_at_the_limits_of_segments_and_bytes() {
        let mut batch = SendBatch::with_capacity(200_000, 8);
        for _ in 0..=MAX_SEGMENTS {
            push(&mut batch, 1, TrafficClass::Video, 10);
        }
        assert_eq!(lens(&batch), [(640, 10), (10, 10)]);
        batch.clear();
        for _ in 0..3 {
            push(&mut batch, 1, TrafficClass::Video, MAX_RUN_BYTES / 2);
        }
        assert_eq!(lens(&batch), [(65_000, 32_500), (32_500, 32_500)]);
    }

    #[test]
    fn nothing_written_is_nothing_sent() {
        let mut batch = SendBatch::with_capacity(100, 1);
        batch.push(player(1), TrafficClass::Video, 100, |_| 0);
        assert!(batch.is_empty() && batch.bytes().is_empty());
        assert!(batch.has_room(100));
    }

    #[test]
    fn a_batch_has_room_until_its_bytes_or_messages_are_used_up() {
        let mut batch = SendBatch::with_capacity(100, 3);
        assert!(batch.has_room_for_run(3, 33) && !batch.has_room_for_run(3, 34) && !batch.has_room_for_run(4, 1));
        assert!(!batch.has_room_for_run(usize::MAX, usize::MAX));
        push(&mut batch, 1, TrafficClass::Video, 40);
        push(&mut batch, 2, TrafficClass::Video, 40);
        assert!(batch.has_room(20) && !batch.has_room(21));
        push(&mut batch, 3, TrafficClass::Video, 10);
        assert!(!batch.has_room(10));
        push(&mut batch, 3, TrafficClass::Video, 10);
        assert_eq!(lens(&batch), [(40, 40), (40, 40), (20, 10)]);
    }

    #[test]
    #[should_panic(expected = "no room for another message")]
    fn a_message_too_many_panics() {
        let mut batch = SendBatch::with_capacity(100, 1);
        push(&mut batch, 1, TrafficClass::Video, 10);
        push(&mut batch, 2, TrafficClass::Video, 10);
    }

    #[test]
    #[should_panic(expected = "11 bytes written to a room of 10")]
    fn a_length_beyond_the_room_panics() {
        let mut batch = SendBatch::with_capacity(100, 1);
        batch.push(player(1), TrafficClass::Video, 10, |_| 11);
    }

    fn class() -> impl Strategy<Value = TrafficClass> {
        prop::sample::select(vec![TrafficClass::Control, TrafficClass::Data, TrafficClass::Audio, TrafficClass::Video])
    }

    fn length() -> impl Strategy<Value = usize> {
        prop_oneof![4 => Just(1150_usize), 2 => 0_usize..1500, 1 => Just(1_usize), 1 => 20_000_usize..65_507]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Pushed where there is room, every datagram comes out as it went in, and every message is a legal run.
        #[test]
        fn every_message_is_a_legal_run(
            pushes in prop::collection::vec((0_u8..3, class(), length(), 1_usize..70), 0..40),
            messages in 1_usize..200,
        ) {
            let mut batch = SendBatch::with_capacity(500_000, messages);
            let mut expected = Vec::new();
            for (n, class, len, times) in pushes {
                for _ in 0..times {
                    if batch.has_room(len) {
                        push(&mut batch, n, class, len);
                        expected.extend((len > 0).then_some((player(n), class, len, n)));
                    }
                }
            }
            assert_legal(&batch);
            prop_assert!(batch.messages().len() <= messages);
            let found: Vec<_> = batch.datagrams().map(|(to, class, d)| (to, class, d.len(), d[0])).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

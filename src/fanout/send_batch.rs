//! Datagrams on their way out: filled by a shard, sent by `net`.

use std::net::SocketAddr;

/// What a datagram carries; decides its DSCP marking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficClass {
    /// STUN, DTLS, RTCP: unmarked by default.
    Control,
    /// Audio (EF by default).
    Audio,
    /// Video (AF41 by default).
    Video,
}

/// One `sendmsg`: a run of equal-sized datagrams (only the last may be shorter) to one destination.
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

/// A reusable buffer of outgoing messages. Never grows: when [`SendBatch::has_room`] says no, it is sent and cleared.
#[derive(Debug)]
pub struct SendBatch {
    bytes: Box<[u8]>,
    used: usize,
    messages: Vec<Message>,
}

impl SendBatch {
    /// A batch for `bytes` bytes in `messages` messages.
    pub fn with_capacity(bytes: usize, messages: usize) -> Self {
        Self { bytes: vec![0; bytes].into_boxed_slice(), used: 0, messages: Vec::with_capacity(messages) }
    }

    /// Whether another datagram of `len` bytes fits, be it in a message of its own.
    pub fn has_room(&self, len: usize) -> bool {
        self.used + len <= self.bytes.len() && self.messages.len() < self.messages.capacity()
    }

    /// Appends a datagram of at most `max_len` bytes: `fill` writes it and returns its length, 0 for none.
    ///
    /// The datagram joins the last message where destination and class are equal and the run stays legal: every
    /// datagram before it has the run's segment size, it is not longer, and the limits on a run hold.
    ///
    /// # Panics
    /// If [`SendBatch::has_room`] would have said no.
    pub fn push(
        &mut self,
        destination: SocketAddr,
        class: TrafficClass,
        max_len: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        assert!(self.has_room(max_len), "send batch overrun");
        let start = self.used;
        let len = fill(&mut self.bytes[start..start + max_len]);
        if len == 0 {
            return;
        }
        self.used += len;
        if let Some(last) = self.messages.last_mut()
            && last.destination == destination
            && last.class == class
            && last.len % last.segment_size == 0
            && len <= last.segment_size
            && last.segments() < MAX_SEGMENTS
            && last.len + len <= MAX_RUN_BYTES
        {
            last.len += len;
            return;
        }
        self.messages.push(Message { destination, start, len, segment_size: len, class });
    }

    /// The messages, in the order in which they are to be sent.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The bytes that [`Message::start`] and [`Message::len`] refer to.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.messages.clear();
    }

    /// Each datagram with its destination: for tests and simulated networks.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, TrafficClass, &[u8])> {
        self.messages.iter().flat_map(|m| {
            self.bytes[m.start..m.start + m.len].chunks(m.segment_size).map(|d| (m.destination, m.class, d))
        })
    }
}

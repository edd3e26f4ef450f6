//! A reusable buffer of received datagrams.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant, SystemTime};

use super::sys::{Received, RecvSlots};
use crate::rtc::TransportAddress;

/// How many messages one `recvmmsg` takes.
const MESSAGES: usize = 16;

/// The longest message: with `UDP_GRO` the kernel joins datagrams of one sender up to the length of an IP packet.
const MESSAGE_BYTES: usize = 65_536;

/// How long ago a datagram came at most, as far as its stamp is believed: the wall clock may have been set meanwhile.
const OLDEST: Duration = Duration::from_millis(500);

/// Datagrams as they came, the same memory every time.
pub struct RecvBatch {
    slots: RecvSlots,
    buffer: Box<[u8]>,
    capacity: usize,
    received: Vec<Received>,
    datagrams: usize,
    unusable: u64,
}

impl RecvBatch {
    /// A batch of 16 messages of up to 64 KiB. The memory is the kernel's until a datagram is written to it.
    pub fn new() -> Self {
        Self::with_capacity(MESSAGES, MESSAGE_BYTES)
    }

    /// A batch of `messages` messages of up to `bytes` bytes each. A message is one datagram, or several of one sender
    /// where the socket has `UDP_GRO`; what is longer is thrown away.
    ///
    /// # Panics
    /// If either is 0.
    pub fn with_capacity(messages: usize, bytes: usize) -> Self {
        assert!(messages > 0 && bytes > 0, "a receive batch without room");
        Self {
            slots: RecvSlots::new(messages),
            buffer: vec![0; messages * bytes].into_boxed_slice(),
            capacity: messages,
            received: Vec::with_capacity(messages),
            datagrams: 0,
            unusable: 0,
        }
    }

    /// How many datagrams the batch holds.
    pub fn len(&self) -> usize {
        self.datagrams
    }

    /// Holds no datagram.
    pub fn is_empty(&self) -> bool {
        self.datagrams == 0
    }

    /// How many messages were thrown away since the last call: empty, or longer than a message may be. No protocol that we
    /// speak sends either.
    pub fn take_unusable(&mut self) -> u64 {
        std::mem::take(&mut self.unusable)
    }

    /// The datagrams in order of arrival with their sources. An IPv4 source is an IPv4 address, however it came.
    pub fn datagrams_mut(&mut self) -> impl Iterator<Item = (TransportAddress, &mut [u8])> {
        self.messages_mut().flat_map(|(m, bytes)| {
            bytes.chunks_mut(m.segment_size).map(|datagram| (TransportAddress::udp(m.source), datagram))
        })
    }

    /// The same with the times of their arrival, where the kernel has stamped them; else it is `now`. `clock` is the wall
    /// clock at `now`.
    pub fn stamped_mut(
        &mut self,
        now: Instant,
        clock: SystemTime,
    ) -> impl Iterator<Item = (Instant, TransportAddress, &mut [u8])> {
        let clock = clock.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.messages_mut().flat_map(move |(m, bytes)| {
            let age = m.at.map_or(Duration::ZERO, |at| clock.saturating_sub(at).min(OLDEST));
            let (at, source) = (now.checked_sub(age).unwrap_or(now), TransportAddress::udp(m.source));
            bytes.chunks_mut(m.segment_size).map(move |datagram| (at, source, datagram))
        })
    }

    fn messages_mut(&mut self) -> impl Iterator<Item = (&Received, &mut [u8])> {
        let message_bytes = self.buffer.len() / self.capacity;
        self.buffer
            .chunks_exact_mut(message_bytes)
            .zip(&self.received)
            .filter(|(_, message)| is_usable(message))
            .map(|(bytes, message)| (message, &mut bytes[..message.len]))
    }

    /// Forgets the datagrams, keeps the memory.
    pub fn clear(&mut self) {
        self.received.clear();
        self.datagrams = 0;
    }

    /// Replaces the datagrams by what waits at the socket. True if the batch is full: more may be waiting.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.clear();
        match self.slots.receive(socket, &mut self.buffer, &mut self.received) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            result => result?,
        }
        for message in &mut self.received {
            message.source.set_ip(message.source.ip().to_canonical());
            if is_usable(message) {
                self.datagrams += message.len.div_ceil(message.segment_size);
            } else {
                self.unusable += 1;
            }
        }
        Ok(self.received.len() == self.capacity)
    }
}

fn is_usable(message: &Received) -> bool {
    message.len > 0 && !message.truncated
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBatch")
            .field("datagrams", &self.datagrams)
            .field("unusable", &self.unusable)
            .finish_non_exhaustive()
    }
}

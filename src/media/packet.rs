//! A packet as the room keeps it, and the memory that it lives in.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::{AbsCaptureTime, PayloadFacts, Position, RtpError};

/// The longest payload in bytes: no UDP datagram on an Ethernet path holds more.
pub const MAX_PAYLOAD: usize = 1500;

/// A clear packet on its way into memory: what is known of it, and its payload where it arrived.
#[derive(Clone, Copy, Debug)]
pub struct ClearPacket<'a> {
    /// Where it stands in its track.
    pub position: Position,
    /// The RTP marker.
    pub marker: bool,
    /// What its payload says.
    pub facts: PayloadFacts,
    /// When it was received.
    pub arrival: Instant,
    /// Its capture time, where it carries one.
    pub capture: Option<AbsCaptureTime>,
    /// The value of its dependency descriptor extension, empty where it carries none.
    pub dependency_descriptor: &'a [u8],
    /// The payload without padding. Empty for a packet that was padding alone, which still has an index.
    pub payload: &'a [u8],
}

/// A clear packet of a track, shared between ring, shards and senders. Its header is not kept: every class of players
/// gets its own.
pub struct Packet {
    /// See [`Position::epoch`].
    pub epoch: u32,
    /// See [`Position::index`].
    pub index: u64,
    /// See [`Position::timestamp`].
    pub timestamp: u32,
    /// The RTP marker: for video the last packet of a frame.
    pub marker: bool,
    /// What the payload says.
    pub facts: PayloadFacts,
    /// When it was received by this node.
    pub arrival: Instant,
    /// Its capture time, where it carries one.
    pub capture: Option<AbsCaptureTime>,
    payload_len: u16,
    descriptor_len: u8,
    /// The payload, and behind it the dependency descriptor: they came in one datagram, so they fit.
    bytes: [u8; MAX_PAYLOAD],
}

impl Packet {
    /// A packet in memory of its own. The hot path uses [`PacketPool::store`].
    ///
    /// # Errors
    /// [`RtpError::PayloadTooLong`].
    pub fn new(clear: &ClearPacket<'_>) -> Result<Self, RtpError> {
        let mut packet = Self {
            epoch: 0,
            index: 0,
            timestamp: 0,
            marker: false,
            facts: PayloadFacts::default(),
            arrival: clear.arrival,
            capture: None,
            payload_len: 0,
            descriptor_len: 0,
            bytes: [0; MAX_PAYLOAD],
        };
        packet.overwrite(clear)?;
        Ok(packet)
    }

    /// The payload without padding.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.payload_len)]
    }

    /// The value of the dependency descriptor extension (RTP Payload Format For AV1, Appendix A), empty for none.
    pub fn dependency_descriptor(&self) -> &[u8] {
        &self.bytes[usize::from(self.payload_len)..][..usize::from(self.descriptor_len)]
    }

    fn overwrite(&mut self, clear: &ClearPacket<'_>) -> Result<(), RtpError> {
        let len = clear.payload.len();
        self.bytes.get_mut(..len).ok_or(RtpError::PayloadTooLong(len))?.copy_from_slice(clear.payload);
        self.payload_len = len as u16;
        self.keep_descriptor(clear.dependency_descriptor);
        self.epoch = clear.position.epoch;
        self.index = clear.position.index;
        self.timestamp = clear.position.timestamp;
        self.marker = clear.marker;
        self.facts = clear.facts;
        self.arrival = clear.arrival;
        self.capture = clear.capture;
        Ok(())
    }

    /// One that does not fit behind the payload is dropped: it is worth less.
    fn keep_descriptor(&mut self, value: &[u8]) {
        let room = self.bytes[usize::from(self.payload_len)..].get_mut(..value.len());
        self.descriptor_len = match (room, u8::try_from(value.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(value);
                len
            }
            _ => 0,
        };
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("epoch", &self.epoch)
            .field("index", &self.index)
            .field("timestamp", &self.timestamp)
            .field("marker", &self.marker)
            .field("facts", &self.facts)
            .field("payload_len", &self.payload_len)
            .finish_non_exhaustive()
    }
}

/// How many of the oldest packets are asked whether they are free before a new one is allocated.
const PROBES: usize = 4;

/// Memory for packets, recycled: a packet is free again once every clone of its [`Arc`] is gone, and nobody has to give
/// it back. One pool per track.
///
/// The pool keeps its packets in a circle in the order in which they were handed out, and rings let go of them in the
/// same order, so that the next in the circle is nearly always free. With a capacity of the ring's slots plus what
/// other shards may lag behind, nothing is allocated once the circle is full. If other shards hold on to packets for
/// longer, the pool allocates, and forgets the packet that was not free: it never holds more than its capacity.
#[derive(Debug)]
pub struct PacketPool {
    circle: Vec<Arc<Packet>>,
    next: usize,
    capacity: usize,
    allocated: u64,
}

impl PacketPool {
    /// A pool that keeps up to `capacity` packets, each of which is allocated when it is first needed.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a pool of nothing");
        Self { circle: Vec::with_capacity(capacity), next: 0, capacity, allocated: 0 }
    }

    /// Copies a packet into free memory.
    ///
    /// # Errors
    /// [`RtpError::PayloadTooLong`]; nothing is taken from the pool then.
    pub fn store(&mut self, clear: &ClearPacket<'_>) -> Result<Arc<Packet>, RtpError> {
        let is_full = self.circle.len() == self.capacity;
        let probes = if is_full { PROBES } else { 1 };
        for _ in 0..probes.min(self.circle.len()) {
            let slot = &mut self.circle[self.next];
            if let Some(packet) = Arc::get_mut(slot) {
                packet.overwrite(clear)?;
                let packet = Arc::clone(slot);
                self.advance();
                return Ok(packet);
            }
            if is_full {
                self.advance();
            }
        }
        self.allocate(clear)
    }

    /// Packets allocated since the pool was made. What exceeds the capacity was allocated because the packets in the
    /// pool were held for too long.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    fn allocate(&mut self, clear: &ClearPacket<'_>) -> Result<Arc<Packet>, RtpError> {
        let packet = Arc::new(Packet::new(clear)?);
        self.allocated += 1;
        if self.circle.len() < self.capacity {
            self.circle.push(Arc::clone(&packet));
        } else {
            self.circle[self.next] = Arc::clone(&packet);
            self.advance();
        }
        Ok(packet)
    }

    fn advance(&mut self) {
        self.next = (self.next + 1) % self.circle.len();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn clear(index: u64, payload: &[u8]) -> ClearPacket<'_> {
        ClearPacket {
            position: Position { epoch: 1, index, timestamp: 2 },
            marker: true,
            facts: PayloadFacts::default(),
            arrival: Instant::now(),
            capture: None,
            dependency_descriptor: &[],
            payload,
        }
    }

    #[test]
    fn a_descriptor_is_kept_as_far_as_there_is_room() {
        let mut pool = PacketPool::new(1);
        let mut store = |len: usize, descriptor: &[u8]| {
            let payload = vec![7; len];
            let clear = ClearPacket { dependency_descriptor: descriptor, ..clear(1, &payload) };
            let packet = pool.store(&clear).expect("short enough");
            assert_eq!(packet.payload(), payload);
            packet.dependency_descriptor().to_vec()
        };
        assert_eq!(store(1200, &[1; 255]), [1; 255]);
        assert_eq!(store(MAX_PAYLOAD - 3, &[2; 3]), [2; 3]);
        assert_eq!(store(MAX_PAYLOAD - 2, &[3; 3]), [0; 0]);
        assert_eq!(store(10, &[4; 256]), [0; 0], "longer than an extension can be");
        assert_eq!(store(10, &[]), [0; 0], "nothing of the last use is left");
    }

    #[test]
    fn nothing_of_the_last_use_is_left() {
        let mut pool = PacketPool::new(1);
        drop(pool.store(&clear(1, b"a long payload")).expect("short enough"));
        let again = pool.store(&clear(2, b"short")).expect("short enough");
        assert_eq!((again.epoch, again.index, again.timestamp, again.payload()), (1, 2, 2, &b"short"[..]));
        assert_eq!(pool.allocated(), 1);
    }

    #[test]
    fn a_packet_in_use_is_never_overwritten() {
        let mut pool = PacketPool::new(2);
        let held: Vec<_> = (0..10).map(|index| pool.store(&clear(index, &[index as u8])).expect("fits")).collect();
        for (index, packet) in held.iter().enumerate() {
            assert_eq!(packet.payload(), [index as u8]);
        }
        assert_eq!(pool.allocated(), 10);
    }

    #[test]
    fn nothing_is_allocated_once_warm() {
        let mut pool = PacketPool::new(100);
        let (mut ring, mut lagging_ring) = (VecDeque::new(), VecDeque::new());
        for index in 0..10_000 {
            let packet = pool.store(&clear(index, &[0; 1200])).expect("fits");
            lagging_ring.push_back(Arc::clone(&packet));
            ring.push_back(packet);
            ring.drain(..ring.len().saturating_sub(64));
            // The other shard takes its packets in batches.
            if index % 32 == 0 {
                lagging_ring.drain(..lagging_ring.len().saturating_sub(64));
            }
        }
        assert!(pool.allocated() <= 100, "{} allocations", pool.allocated());
    }

    #[test]
    fn a_pool_recovers_from_a_shard_that_held_on_to_everything() {
        let mut pool = PacketPool::new(8);
        let held: Vec<_> = (0..32).map(|index| pool.store(&clear(index, b"x")).expect("fits")).collect();
        drop(held);
        let before = pool.allocated();
        for index in 0..100 {
            drop(pool.store(&clear(index, b"y")).expect("fits"));
        }
        assert_eq!(pool.allocated(), before);
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused_and_nothing_is_taken() {
        let mut pool = PacketPool::new(1);
        let long = [0; MAX_PAYLOAD + 1];
        assert_eq!(pool.store(&clear(1, &long)).unwrap_err(), RtpError::PayloadTooLong(1501));
        drop(pool.store(&clear(1, &long[1..])).expect("1500 bytes fit"));
        assert_eq!(pool.store(&clear(1, &long)).unwrap_err(), RtpError::PayloadTooLong(1501));
        assert_eq!(pool.allocated(), 1);
    }
}

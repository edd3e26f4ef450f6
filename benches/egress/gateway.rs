//! The gateway's own way out: a shard with players that went through ICE and DTLS, a publisher, the socket.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tableside::fanout::SendBatch;
use tableside::net::{SendOutcome, ShardSocket, UdpOptions};
use tableside::shard::{Shard, ShardConfig, TableId};

use crate::reference::viewer::HEADER_LEN;
use crate::turns::Contender;
use crate::world::{Dealer, World};

/// Longer than any bench: the players answer nothing and send no checks once they are connected.
const CONSENT: Duration = Duration::from_secs(24 * 3600);

/// For shards that send each frame at once and lose no player meanwhile.
pub fn unpaced(config: &mut ShardConfig) {
    config.pacing = false;
    config.endpoint.consent_timeout = CONSENT;
    config.grace = CONSENT;
}

/// A shard as it works in the node, from the publisher's packet in the clear to the system call. Timers run: each
/// player gets its sender report every second.
pub struct Gateway {
    shard: Shard,
    socket: ShardSocket,
    batch: SendBatch,
    table: TableId,
    dealer: Dealer,
    players: usize,
    packets: usize,
    /// Of the shard.
    now: Instant,
    /// How far the shard's time is ahead of ours: what happened before the measurement took virtual time.
    lead: Duration,
    outcome: SendOutcome,
}

impl Gateway {
    /// Connects a player at each of `players` and sends the first frame, a keyframe of `packets` packets of `bytes`
    /// bytes before encryption.
    ///
    /// # Errors
    /// No socket can be bound.
    ///
    /// # Panics
    /// If a handshake fails, or outside a tokio runtime.
    pub fn new(players: impl ExactSizeIterator<Item = SocketAddr>, packets: u16, bytes: u16) -> io::Result<Self> {
        let (socket, _) = ShardSocket::bind((Ipv6Addr::UNSPECIFIED, 0).into(), &UdpOptions::default())?;
        let count = players.len();
        let mut world = World::with(1, unpaced);
        // First, as in the node: a player who connects to a table without tracks is let go.
        world.shards[0].add_local_publisher(world.now, &world.table, Dealer::media());
        for address in players {
            world.add_player_at(0, address);
        }
        world.connect_all();
        let ring_packets = world.table.ring_packets;
        let mut gateway = Self {
            now: world.now,
            lead: Duration::ZERO,
            table: world.table.id,
            shard: world.shards.remove(0),
            socket,
            batch: Shard::send_batch(),
            dealer: Dealer::new(packets, usize::from(bytes) - HEADER_LEN),
            players: count,
            packets: packets.into(),
            outcome: SendOutcome::default(),
        };
        gateway.begin();
        gateway.warm_up(ring_packets);
        gateway.lead = gateway.now.saturating_duration_since(Instant::now());
        Ok(gateway)
    }

    /// What became of all that was sent.
    pub fn outcome(&self) -> SendOutcome {
        self.outcome
    }

    /// Packets that players got, by the shard's own account.
    pub fn packets_forwarded(&mut self) -> u64 {
        self.shard.report(self.now).tables.values().map(|table| table.packets_forwarded).sum()
    }

    /// The keyframe reaches the players as joiners, at the pace of a replay: a publisher in a hurry would stay ahead of
    /// them for ever.
    fn begin(&mut self) {
        self.forward(true);
        for _ in 0..self.packets {
            self.now += Duration::from_millis(2);
            self.send();
        }
    }

    /// Fills the ring and the pool behind it, which allocate a packet when it is first needed.
    fn warm_up(&mut self, ring_packets: usize) {
        for _ in 0..(2 * ring_packets).div_ceil(self.packets) {
            self.now += Duration::from_millis(33);
            self.forward(false);
        }
    }

    /// One turn of the shard's thread: a frame arrives, timers run, all is sent.
    fn forward(&mut self, keyframe: bool) {
        for packet in self.dealer.next_frame(keyframe) {
            self.shard.handle_local(self.now, self.table, packet);
        }
        self.send();
    }

    fn send(&mut self) {
        self.shard.handle_timeout(self.now);
        while self.shard.poll_transmit(self.now, &mut self.batch) {
            self.outcome += self.socket.send_batch(&self.batch);
        }
        while self.shard.poll_event().is_some() {}
    }
}

impl Contender for Gateway {
    fn name(&self) -> &str {
        "shard"
    }

    fn frame(&mut self, now: Instant) -> usize {
        self.now = now + self.lead;
        self.forward(false);
        self.players * self.packets
    }
}

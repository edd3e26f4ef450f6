//! A node's shards, publishers and players in one thread and in virtual time.

// Other tests and the benches borrow the world, and use a part of it.
#![allow(dead_code)]

mod bits;
mod dealer;
pub mod layered;
mod peer;
pub mod reporter;
pub mod studio;
pub mod svc;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tableside::bets::{Arrival, PlayerId};
use tableside::fanout::{SendBatch, TrafficClass};
use tableside::media::PlayoutDelay;
use tableside::rtc::data_channel::SctpConfig;
use tableside::rtc::dtls::{DtlsIdentity, DtlsVersion};
use tableside::rtc::ice_lite::new_credentials;
use tableside::rtc::rtcp::NtpTime;
use tableside::rtc::sdp::{IceCredentials, Negotiated};
use tableside::rtc::{EndpointConfig, Transport, TransportAddress};
use tableside::shard::{
    PeerMessage, Shard, ShardConfig, ShardEvent, ShardId, ShardReport, SlotKey, TableId, TableSpec, TableState,
};

use tableside_netsim::Link;

#[allow(unused_imports, reason = "for the egress bench and the allocation test, which share this world")]
pub use dealer::Dealer;
pub use peer::{Peer, Side};
#[allow(unused_imports, reason = "as above")]
pub use peer::{Received, Rewrite};
#[allow(unused_imports, reason = "likewise, by the scenarios")]
pub use peer::{offer_data, stream_mut, vp8_payload};
#[allow(unused_imports, reason = "for the scenarios with simulcast")]
pub use studio::Studio;

/// The step of virtual time.
pub const STEP: Duration = Duration::from_millis(1);

pub const VIDEO_SSRC: u32 = 0x1111_1110;
pub const VIDEO_RTX_SSRC: u32 = 0x1111_1111;
pub const AUDIO_SSRC: u32 = 0x1111_1112;

/// A datagram between two hosts.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// Says what happens to a datagram on its way: how late it is, or that it is lost.
pub type Network = Box<dyn FnMut(&Datagram) -> Option<Duration>>;

/// Sees what the shards send, with its class.
pub type Tap = Box<dyn FnMut(TrafficClass, &[u8])>;

/// Says whether a message to another shard arrives.
pub type Between = Box<dyn FnMut(&PeerMessage) -> bool>;

/// What the control plane would have heard.
#[derive(Debug, Default)]
pub struct Heard {
    pub ended: Vec<(SlotKey, tableside::shard::EndCause)>,
    pub states: Vec<TableState>,
    /// TCP connections that were to be closed.
    pub disconnected: Vec<SocketAddr>,
    /// Bets for the service.
    pub bets: Vec<Arrival<SlotKey>>,
}

pub struct World {
    pub now: Instant,
    pub shards: Vec<Shard>,
    pub peers: Vec<Peer>,
    pub table: TableSpec,
    pub heard: Heard,
    pub network: Network,
    /// Links that take the network's place, by the two ends: from, to.
    pub links: HashMap<(SocketAddr, SocketAddr), Link>,
    pub tap: Tap,
    /// What becomes of messages between shards.
    pub between: Between,
    /// Everything arrives a second time, so much later.
    pub echo: Option<Duration>,
    /// The only version of DTLS that new peers speak, if they do not speak all.
    pub only: Option<DtlsVersion>,
    /// How many steps of handshakes a shard has time for in a millisecond, if not for all at once.
    pub steps: Option<usize>,
    fingerprint: [u8; 32],
    in_flight: Vec<(Instant, u64, Datagram)>,
    sent: u64,
    next_sessions: u16,
    /// Bytes and messages of the batches that shards fill, if not a node's: smaller ones interrupt them more often.
    pub batch_size: Option<(usize, usize)>,
    batch: SendBatch,
}

impl World {
    /// `shards` shards and a network without delay or loss.
    pub fn new(shards: u16) -> Self {
        Self::with(shards, |_| {})
    }

    /// With one shard, a publisher, and a player that watches: their numbers.
    pub fn watched() -> (Self, usize, usize) {
        let mut world = Self::new(1);
        let publisher = world.add_publisher(Side::Client);
        world.connect(publisher);
        let player = world.add_player(0);
        world.connect(player);
        (world, publisher, player)
    }

    pub fn with_grace(shards: u16, grace: Duration) -> Self {
        Self::with_timeouts(shards, grace, Duration::from_secs(30))
    }

    /// `grace` for publishers, `consent` for whoever sends no checks.
    pub fn with_timeouts(shards: u16, grace: Duration, consent: Duration) -> Self {
        Self::with(shards, |config| {
            config.grace = grace;
            config.endpoint.consent_timeout = consent;
        })
    }

    /// With shards as `adapt` would have them.
    pub fn with(shards: u16, adapt: impl Fn(&mut ShardConfig)) -> Self {
        let now = Instant::now();
        let identity = Arc::new(DtlsIdentity::generate().expect("a certificate"));
        let fingerprint = identity.fingerprint();
        let config = |id| ShardConfig {
            id: ShardId(id),
            endpoint: EndpointConfig {
                identity: identity.clone(),
                sctp: SctpConfig::new(65_536),
                setup_timeout: Duration::from_secs(10),
                consent_timeout: Duration::from_secs(30),
            },
            silence: Duration::from_millis(1200),
            grace: Duration::from_secs(5),
            pacing: true,
            replay_bits_per_second: 20_000_000,
            epoch: (now, NtpTime::from_unix(Duration::from_secs(1_790_000_000))),
        };
        let adapted = |id| {
            let mut config = config(id);
            adapt(&mut config);
            config
        };
        Self {
            now,
            shards: (0..shards).map(|id| Shard::new(adapted(id))).collect(),
            peers: Vec::new(),
            table: TableSpec {
                id: TableId(0),
                name: "roulette".into(),
                home: ShardId(0),
                video_ssrc: VIDEO_SSRC,
                video_rtx_ssrc: VIDEO_RTX_SSRC,
                audio_ssrc: AUDIO_SSRC,
                playout_delay: PlayoutDelay { min_ms: 0, max_ms: 0 },
                ring_packets: 1024,
            },
            heard: Heard::default(),
            network: Box::new(|_| Some(Duration::ZERO)),
            links: HashMap::new(),
            tap: Box::new(|_, _| {}),
            between: Box::new(|_| true),
            echo: None,
            only: None,
            steps: None,
            fingerprint,
            in_flight: Vec::new(),
            sent: 0,
            next_sessions: 0,
            batch_size: None,
            batch: Shard::send_batch(),
        }
    }

    pub fn shard_address(shard: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 7000 + shard as u16))
    }

    /// A publisher of VP8 and Opus; returns its number among the peers.
    pub fn add_publisher(&mut self, side: Side) -> usize {
        self.add_publisher_with(side, |_| {})
    }

    /// A publisher of VP8 in layers with these rids, and Opus.
    pub fn add_simulcast_publisher(&mut self, rids: &[&str]) -> usize {
        self.add_publisher_with(Side::Client, |negotiated| peer::offer_layers(negotiated, rids))
    }

    /// A publisher that negotiated something else than usual.
    pub fn add_publisher_with(&mut self, side: Side, adapt: impl FnOnce(&mut Negotiated)) -> usize {
        let (random, number) = self.next_session();
        let mut peer = self.spoken(Peer::publisher(self.now, number, side));
        adapt(&mut peer.negotiated);
        let added = self.shards[0].add_publisher(self.now, &self.table, &peer.negotiated, &random);
        peer.begin(Self::shard_address(0), self.fingerprint, added.key, added.ice);
        self.peers.push(peer);
        self.peers.len() - 1
    }

    /// A player on a shard.
    pub fn add_player(&mut self, shard: usize) -> usize {
        let address = Peer::address_of(self.next_sessions + 1);
        self.add_player_at(shard, address)
    }

    /// A player at an address of the caller's choice.
    pub fn add_player_at(&mut self, shard: usize, address: SocketAddr) -> usize {
        self.add_player_as(shard, |peer| peer.address = address)
    }

    /// A player that negotiated something else than usual.
    pub fn add_player_with(&mut self, shard: usize, adapt: impl FnOnce(&mut Negotiated)) -> usize {
        self.add_player_as(shard, |peer| adapt(&mut peer.negotiated))
    }

    /// A player that is made another before it is admitted.
    pub fn add_player_as(&mut self, shard: usize, adapt: impl FnOnce(&mut Peer)) -> usize {
        let (random, number) = self.next_session();
        let mut peer = self.spoken(Peer::player(self.now, number));
        adapt(&mut peer);
        let added = self.shards[shard].add_player(
            self.now,
            &self.table,
            PlayerId::anonymous([number as u8; 16]),
            peer.max_layer,
            &peer.negotiated,
            &random,
        );
        peer.begin(Self::shard_address(shard), self.fingerprint, added.key, added.ice);
        self.peers.push(peer);
        self.peers.len() - 1
    }

    /// Gives a peer on `shard` new credentials, as a PATCH with `remote_ufrag` would, and returns them. The peer learns of them from
    /// the caller.
    pub fn restart_ice(&mut self, shard: usize, peer: usize, remote_ufrag: &str) -> IceCredentials {
        let (random, _) = self.next_session();
        let key = self.peers[peer].key.expect("begun");
        let secret = std::array::from_fn(|i| random[i]);
        let (ufrag, ice) = new_credentials(secret, shard as u16, key.slot);
        assert!(self.shards[shard].restart_ice(self.now, key, ufrag, &ice, remote_ufrag), "the session exists");
        ice
    }

    fn spoken(&self, peer: Peer) -> Peer {
        match self.only {
            Some(version) => peer.speaking_only(version),
            None => peer,
        }
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += STEP;
            self.step();
        }
    }

    /// Lets time pass until `condition` holds, at most `limit`.
    pub fn run_until(&mut self, limit: Duration, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        while !condition(self) {
            if self.now >= end {
                let reports: Vec<ShardReport> = self.shards.iter_mut().map(|s| s.report(self.now)).collect();
                panic!("{what} did not happen within {limit:?}: {:?} {reports:#?}", self.heard);
            }
            self.now += STEP;
            self.step();
        }
    }

    pub fn connect(&mut self, peer: usize) {
        self.run_until(Duration::from_secs(5), "connecting", |world| world.peers[peer].is_connected());
        // The last flight arrives, and with it the shard knows.
        self.run(3 * STEP);
    }

    /// As [`World::connect`], for everybody at once.
    pub fn connect_all(&mut self) {
        self.run_until(Duration::from_secs(5), "connecting", |world| world.peers.iter().all(Peer::is_connected));
        self.run(3 * STEP);
    }

    pub fn report(&mut self, shard: usize) -> ShardReport {
        self.shards[shard].report(self.now)
    }

    /// Sends a frame of `packets` packets from a publisher and one of its audio packets.
    pub fn publish_frame(&mut self, publisher: usize, packets: usize, keyframe: bool) {
        let datagrams = self.peers[publisher].frame(packets, keyframe);
        datagrams.into_iter().for_each(|d| self.send(d));
        self.deliver();
    }

    /// Puts links between a peer and its shard, of these conditions: to the shard, and to the peer.
    pub fn link(&mut self, peer: usize, shard: usize, up: &str, down: &str, seed: u64) {
        let (near, far) = (self.peers[peer].address, Self::shard_address(shard));
        let link = |conditions: &str, seed| Link::new(conditions.parse().expect("conditions"), seed);
        self.links.insert((near, far), link(up, 2 * seed));
        self.links.insert((far, near), link(down, 2 * seed + 1));
    }

    pub fn send(&mut self, datagram: Datagram) {
        if let Some(link) = self.links.get_mut(&(datagram.from, datagram.to)) {
            for arrival in link.handle_packet(self.now, datagram.bytes.len()) {
                self.sent += 1;
                self.in_flight.push((arrival, self.sent, datagram.clone()));
            }
            return;
        }
        if let Some(delay) = (self.network)(&datagram) {
            self.sent += 1;
            if let Some(later) = self.echo {
                self.in_flight.push((self.now + delay + later, self.sent, datagram.clone()));
            }
            self.in_flight.push((self.now + delay, self.sent, datagram));
        }
    }

    /// Everything that is due at this instant.
    pub fn deliver(&mut self) {
        loop {
            let (due, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.in_flight).into_iter().partition(|(at, ..)| *at <= self.now);
            self.in_flight = later;
            if due.is_empty() {
                break;
            }
            let mut due = due;
            due.sort_by_key(|(at, order, _)| (*at, *order));
            for (_, _, datagram) in due {
                self.arrive(datagram);
            }
            self.drain();
        }
    }

    fn arrive(&mut self, mut datagram: Datagram) {
        let shard = (0..self.shards.len()).find(|n| Self::shard_address(*n) == datagram.to);
        if let Some(shard) = shard {
            let sender = self.peers.iter().find(|p| p.address == datagram.from);
            let transport = sender.map_or(Transport::Udp, |p| p.transport);
            let source = TransportAddress { socket: datagram.from, transport };
            self.take(shard, source, &mut datagram.bytes);
        } else if let Some(peer) = self.peers.iter_mut().find(|p| p.address == datagram.to) {
            peer.handle_datagram(self.now, datagram);
        }
    }

    /// A datagram arrives at a shard.
    pub fn take(&mut self, shard: usize, source: TransportAddress, datagram: &mut [u8]) {
        let shard = &mut self.shards[shard];
        shard.handle_datagram(self.now, source, datagram);
        while self.steps.is_none() && shard.advance_handshake(self.now) {}
    }

    fn step(&mut self) {
        for shard in &mut self.shards {
            shard.handle_timeout(self.now);
            for _ in 0..self.steps.unwrap_or(0) {
                shard.advance_handshake(self.now);
            }
        }
        for peer in &mut self.peers {
            peer.handle_timeout(self.now);
        }
        self.drain();
        self.deliver();
    }

    /// Moves what shards and peers have to say.
    pub fn drain(&mut self) {
        let mut messages: VecDeque<(ShardId, PeerMessage)> = VecDeque::new();
        loop {
            let mut quiet = true;
            for n in 0..self.shards.len() {
                loop {
                    if let Some((bytes, messages)) = self.batch_size {
                        self.batch = SendBatch::with_capacity(bytes, messages);
                    }
                    if !self.shards[n].poll_transmit(self.now, &mut self.batch) {
                        break;
                    }
                    quiet = false;
                    self.batch.datagrams().for_each(|(_, class, bytes)| (self.tap)(class, bytes));
                    let datagrams: Vec<Datagram> = self
                        .batch
                        .datagrams()
                        .map(|(to, _, bytes)| Datagram {
                            from: Self::shard_address(n),
                            to: to.socket,
                            bytes: bytes.to_vec(),
                        })
                        .collect();
                    datagrams.into_iter().for_each(|d| self.send(d));
                }
                while let Some(event) = self.shards[n].poll_event() {
                    quiet = false;
                    match event {
                        ShardEvent::Peer { to, message } if (self.between)(&message) => {
                            messages.push_back((to, message))
                        }
                        ShardEvent::Peer { .. } => {}
                        ShardEvent::SessionEnded { key, cause, .. } => self.heard.ended.push((key, cause)),
                        ShardEvent::SessionConnected { .. } => {}
                        ShardEvent::Table { state, .. } => self.heard.states.push(state),
                        ShardEvent::Bet(bet) => self.heard.bets.push(*bet),
                        ShardEvent::Disconnect { peer } => self.heard.disconnected.push(peer),
                    }
                }
            }
            for (to, message) in messages.drain(..) {
                self.shards[usize::from(to.0)].handle_peer(self.now, message);
            }
            for n in 0..self.peers.len() {
                for datagram in self.peers[n].take_outgoing() {
                    quiet = false;
                    self.send(datagram);
                }
            }
            if quiet {
                break;
            }
        }
    }

    fn next_session(&mut self) -> ([u8; 32], u16) {
        self.next_sessions += 1;
        let n = self.next_sessions;
        (std::array::from_fn(|i| (n as u8).wrapping_mul(31).wrapping_add(i as u8 * 7)), n)
    }
}

/// Seeded dice (xorshift64*): the same seed throws the same.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

//! A node of one or two shards in virtual time, as a sequence of events that an input chooses: whatever comes, it does
//! not panic, its books balance, it comes to rest, and it sends nothing to an address that never asked.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tableside::config::MaxLayer;
use tableside::media::{HeaderFields, MediaKind, write_header};
use tableside::rtc::demux::{PacketKind, classify};
use tableside::rtc::sdp::{DataSection, ExtensionIds, Negotiated, Red, Section};
use tableside::shard::{EndCause, LayerIndex, LayerOffer, LayerShares, PeerMessage, ShardId, TableId, TemporalShares};

use super::channels::{Client, open};
use crate::checksums;
use crate::input::{Input, chunk, damage};
use world::{AUDIO_SSRC, Datagram, Peer, STEP, Side, VIDEO_RTX_SSRC, VIDEO_SSRC, World, stream_mut};

#[path = "../../../../tests/scenarios/world/mod.rs"]
mod world;

/// Virtual time is walked through in steps: an input may take so many.
const MOST_STEPS: u32 = 1500;
const MOST_EVENTS: usize = 400;
const MOST_PEERS: usize = 8;

/// Events of whoever has keys of a player or none.
const HOSTILE_EVENTS: usize = 14;
/// And those of everybody else: publishers, the control plane, other shards, the clock.
const ALL_EVENTS: usize = 22;

/// The publisher's payload type of RED, and its extension id of the dependency descriptor.
const RED: u8 = 63;
const DESCRIPTOR: u8 = 14;

/// A peer that does what the input says.
struct Hostile {
    peer: usize,
    sctp: Client,
    /// What its SCTP sent last, to be damaged.
    recent: Vec<Vec<u8>>,
}

/// The node and its peers.
pub(super) struct Node {
    pub(super) world: World,
    pub(super) publisher: usize,
    /// A player that does nothing wrong.
    pub(super) watcher: usize,
    hostile: Vec<Hostile>,
    steps_left: u32,
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut node = Node::new(&mut input, true);
    for _ in 0..MOST_EVENTS {
        if input.is_empty() {
            break;
        }
        node.event(&mut input, ALL_EVENTS);
    }
    node.check_books();
    node.end();
}

impl Node {
    /// A table that is live, with one player that watches and one that is hostile.
    pub(super) fn new(input: &mut Input<'_>, all_may_fail: bool) -> Self {
        let first = input.byte();
        let shards = if all_may_fail { 1 + u16::from(first & 1) } else { 1 };
        let mut world = World::new(shards);
        guard_the_network(&mut world);
        let publisher = world.add_publisher_with(if first & 2 == 0 { Side::Client } else { Side::Server }, describe);
        world.connect(publisher);
        world.publish_frame(publisher, 3, true);
        let watcher = world.add_player(usize::from(shards) - 1);
        world.connect(watcher);
        for peer in &mut world.peers {
            peer.may_fail = all_may_fail;
        }
        let mut node = Self { world, publisher, watcher, hostile: Vec::new(), steps_left: MOST_STEPS };
        node.add_hostile(first >> 2, 1);
        let peer = node.hostile[0].peer;
        node.world.connect(peer);
        node.talk_sctp(0);
        node
    }

    pub(super) fn hostile_event(&mut self, input: &mut Input<'_>) {
        self.event(input, HOSTILE_EVENTS);
    }

    fn event(&mut self, input: &mut Input<'_>, kinds: usize) {
        let kind = input.below(kinds);
        match kind {
            0 => self.pass(1 + u32::from(input.byte() % 64)),
            1 => self.frame(input),
            2 => {
                let from = self.address(input);
                self.throw(from, input.chunk().to_vec());
            }
            3 => self.check(input),
            4 => self.rtcp(input),
            5 => self.requests(input),
            6 => self.rtp(input),
            7 | 8 => self.sctp(input),
            9 => self.message(input),
            10 => self.forge(input),
            11 => self.join(input),
            12 => {
                let at = input.below(self.hostile.len());
                self.talk_sctp(at);
            }
            13 => self.leave(input),
            _ => self.other_event(kind, input),
        }
        self.world.deliver();
        self.world.drain();
    }

    /// What no player can bring about.
    fn other_event(&mut self, kind: usize, input: &mut Input<'_>) {
        match kind {
            14 => self.leap(Duration::from_millis(u64::from(input.word()))),
            15 => self.leap(Duration::from_secs(u64::from(input.byte() % 64))),
            16 => self.published(input),
            17 => self.delete(input),
            18 if self.world.peers.len() < MOST_PEERS => {
                let side = if input.flag() { Side::Client } else { Side::Server };
                self.publisher = self.world.add_publisher_with(side, describe);
                self.world.peers[self.publisher].may_fail = true;
            }
            19 => {
                let at = input.below(self.world.peers.len());
                let (peer, what) = (&mut self.world.peers[at], input.byte());
                peer.sends_checks = what & 1 == 0;
                peer.nominates = what & 2 == 0;
            }
            20 => self.shard_message(input),
            _ => self.check_books(),
        }
    }

    fn pass(&mut self, steps: u32) {
        let steps = steps.min(self.steps_left);
        self.steps_left -= steps;
        self.world.run(steps * STEP);
    }

    /// Time goes by at once, as for a process that was held up.
    fn leap(&mut self, by: Duration) {
        self.world.now += by;
        for n in 0..self.world.shards.len() {
            let mut rounds = 0;
            while self.world.shards[n].poll_timeout().is_some_and(|at| at <= self.world.now) {
                rounds += 1;
                assert!(rounds < 1000, "a timer that never rests");
                self.world.shards[n].handle_timeout(self.world.now);
                self.world.drain();
            }
        }
        self.world.run(STEP);
    }

    fn frame(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        if self.world.peers[self.publisher].is_connected() {
            self.world.publish_frame(self.publisher, 1 + usize::from(what % 12), what & 0x80 != 0);
        }
    }

    fn throw(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        self.world.send(Datagram { from, to: World::shard_address(0), bytes });
    }

    /// A stranger's, or one that is somebody's and can be forged.
    fn address(&self, input: &mut Input<'_>) -> SocketAddr {
        match input.byte() {
            which @ 0..32 => SocketAddr::from(([192, 0, 2, which], 6000)),
            which => self.world.peers[usize::from(which) % self.world.peers.len()].address,
        }
    }

    /// A check with the right password, from wherever.
    fn check(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.hostile.len());
        let from = self.address(input);
        let peer = &mut self.world.peers[self.hostile[at].peer];
        peer.nominates = input.flag();
        peer.check();
        for datagram in peer.take_outgoing() {
            self.world.send(Datagram { from, ..datagram });
        }
    }

    fn rtcp(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.hostile.len());
        let datagram = self.world.peers[self.hostile[at].peer].seal_rtcp(input.chunk());
        datagram.into_iter().for_each(|datagram| self.world.send(datagram));
    }

    /// NACK, PLI, FIR and reports that name the table's streams.
    fn requests(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.hostile.len());
        let mut compound = Vec::new();
        for _ in 0..=input.byte() % 4 {
            let media = [VIDEO_SSRC, VIDEO_RTX_SSRC, AUDIO_SSRC][input.below(3)];
            let kind = input.byte();
            let body: Vec<u8> = input.short().iter().copied().chain([0; 3]).collect();
            let body = &body[..body.len() / 4 * 4];
            let (first, second) =
                [(0x81, 205), (0x81, 206), (0x84, 206), (0x81, 201), (0x8f, 205), (0x80, 207)][usize::from(kind) % 6];
            compound.extend([first, second, 0, 2 + (body.len() / 4) as u8]);
            compound.extend(1_u32.to_be_bytes());
            compound.extend(media.to_be_bytes());
            compound.extend(body);
        }
        let datagram = self.world.peers[self.hostile[at].peer].seal_rtcp(&compound);
        datagram.into_iter().for_each(|datagram| self.world.send(datagram));
    }

    fn rtp(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.hostile.len());
        let roc = u32::from(input.byte() % 2);
        let datagram = self.world.peers[self.hostile[at].peer].seal_rtp(roc, input.chunk());
        datagram.into_iter().for_each(|datagram| self.world.send(datagram));
    }

    /// SCTP packets that no library makes.
    fn sctp(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.hostile.len());
        let hostile = &mut self.hostile[at];
        let how = input.byte();
        let packet = match (how % 4, hostile.recent.first()) {
            (0, Some(packet)) => {
                let mut packet = packet.clone();
                damage(input, &mut packet);
                checksums::sctp(&mut packet);
                packet
            }
            (1, _) => input.chunk().to_vec(),
            _ => hostile.sctp.made_up(input.chunk(), how & 4 == 0),
        };
        self.world.peers[hostile.peer].send_data(&packet);
    }

    /// A message on a stream, from a library that does as it should.
    fn message(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.hostile.len());
        let (stream, kind) = (u16::from(input.byte() % 12), input.byte());
        self.hostile[at].sctp.write(self.world.now, stream, kind, input.chunk());
        self.talk_sctp(at);
    }

    /// Lets a peer's SCTP send what it has, and hear what came.
    fn talk_sctp(&mut self, at: usize) {
        let hostile = &mut self.hostile[at];
        for _ in 0..6 {
            let packets = hostile.sctp.take_packets(self.world.now);
            packets.iter().for_each(|packet| self.world.peers[hostile.peer].send_data(packet));
            if !packets.is_empty() {
                hostile.recent = packets;
            }
            self.world.drain();
            self.world.deliver();
            let came = std::mem::take(&mut self.world.peers[hostile.peer].data);
            if came.is_empty() {
                break;
            }
            came.iter().for_each(|packet| hostile.sctp.handle(self.world.now, packet));
        }
    }

    /// A genuine datagram of somebody, damaged on its way.
    fn forge(&mut self, input: &mut Input<'_>) {
        let peer = &mut self.world.peers[self.publisher];
        if !peer.is_connected() {
            return;
        }
        // The numbers of the packet that is spoilt come again in the next frame, which is whole.
        let (sequence, timestamp) = (peer.sequence, peer.timestamp);
        let mut datagram = peer.sized_frame(&[40], false).remove(0);
        (peer.sequence, peer.timestamp) = (sequence, timestamp);
        let good = datagram.bytes.clone();
        damage(input, &mut datagram.bytes);
        if datagram.bytes != good && classify(&datagram.bytes) != PacketKind::Stun {
            self.world.send(datagram);
        }
    }

    fn join(&mut self, input: &mut Input<'_>) {
        let (ids, shard) = (input.byte(), input.byte());
        if self.world.peers.len() < MOST_PEERS {
            self.add_hostile(ids, usize::from(shard) % self.world.shards.len());
        }
    }

    fn add_hostile(&mut self, ids: u8, shard: usize) {
        let shard = shard % self.world.shards.len();
        let peer = self.world.add_player_as(shard, |peer| equip(peer, ids));
        self.hostile.push(Hostile { peer, sctp: Client::new(self.world.now), recent: Vec::new() });
    }

    fn leave(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.hostile.len());
        if at > 0 {
            self.world.peers[self.hostile[at].peer].close();
        }
    }

    /// What a publisher's keys seal: RTP and RTCP that say anything, or packets that go far with their numbers.
    fn published(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let peer = &mut self.world.peers[self.publisher];
        let datagram = match how % 4 {
            0 => peer.seal_rtcp(input.chunk()),
            1 => peer.seal_rtp(u32::from(how >> 6), input.chunk()),
            _ => {
                let fields = HeaderFields {
                    padding: false,
                    marker: how & 4 != 0,
                    payload_type: [96, RED, 111, input.byte()][usize::from(how >> 3) % 4],
                    sequence_number: peer.sequence.wrapping_add(input.word()),
                    timestamp: peer.timestamp.wrapping_add(input.long()),
                    ssrc: 0x2222_2220 + u32::from(input.byte() % 4),
                };
                let mut packet = [0; 1500];
                let element = (DESCRIPTOR, input.short());
                let header_len = write_header(&mut packet, &fields, &[element]).expect("room").header_len;
                let payload = input.chunk();
                let payload = &payload[..payload.len().min(1200)];
                packet[header_len..header_len + payload.len()].copy_from_slice(payload);
                peer.seal_rtp(u32::from(how >> 6), &packet[..header_len + payload.len()])
            }
        };
        datagram.into_iter().for_each(|datagram| self.world.send(datagram));
    }

    fn delete(&mut self, input: &mut Input<'_>) {
        let (at, now) = (input.below(self.world.peers.len()), self.world.now);
        let shard = input.below(self.world.shards.len());
        if let Some(key) = self.world.peers[at].key {
            self.world.shards[shard].close_session(now, key, EndCause::Deleted);
        }
    }

    /// What the other shard may say late, or of a table that is gone.
    fn shard_message(&mut self, input: &mut Input<'_>) {
        let (table, what) = (TableId(u32::from(input.byte() % 2)), input.byte());
        if self.world.shards.len() < 2 {
            return;
        }
        let from = ShardId(1);
        let layer = |byte: u8| LayerIndex(usize::from(byte % 8));
        let message = match what % 4 {
            0 => PeerMessage::Unsubscribe { table, from },
            1 => PeerMessage::KeyframeWanted { table, layer: layer(input.byte()) },
            2 => {
                // Also layers that there are not, and the same one twice.
                let offers = (0..input.byte() % 5).map(|_| {
                    let (layer, bits_per_second) = (layer(input.byte()), u64::from(input.byte()) << 14);
                    let temporal = TemporalShares([bits_per_second / 2, bits_per_second / 4, bits_per_second / 4, 0]);
                    LayerOffer { layer, bits_per_second, shares: LayerShares::of_one(temporal) }
                });
                let offers: Arc<[LayerOffer]> = offers.collect();
                let order = offers.iter().rev().map(|offer| offer.layer).collect();
                PeerMessage::Layers { table, offers, order }
            }
            _ => PeerMessage::Subscribe { table: self.world.table.clone(), from },
        };
        let to = usize::from(matches!(message, PeerMessage::Layers { .. }));
        self.world.shards[to].handle_peer(self.world.now, message);
    }

    /// Who came is here or has gone.
    pub(super) fn check_books(&mut self) {
        let mut ended = 0;
        for n in 0..self.world.shards.len() {
            let report = self.world.report(n);
            for role in 0..2 {
                let gone: u64 = report.ended[role].iter().sum();
                assert_eq!(report.created[role], report.sessions[role] + gone, "sessions of role {role}");
                assert!(report.connected[role] <= report.created[role]);
                ended += gone;
            }
        }
        assert_eq!(ended, self.world.heard.ended.len() as u64, "each end is told once");
        assert!(self.world.heard.states.len() < 2000, "a table's state that never rests");
    }

    /// Everybody is sent away; then nothing is left, and the node rests.
    pub(super) fn end(&mut self) {
        let now = self.world.now;
        self.world.shards.iter_mut().for_each(|shard| shard.close_all(now));
        self.world.drain();
        self.check_books();
        for n in 0..self.world.shards.len() {
            assert_eq!(self.world.report(n).sessions, [0, 0]);
        }
        self.leap(Duration::from_secs(60));
    }
}

/// What a browser's publisher negotiates beyond the world's.
fn describe(negotiated: &mut Negotiated) {
    stream_mut(negotiated, MediaKind::Audio).red = Some(Red { payload_type: RED, blocks: 2, preferred: true });
    stream_mut(negotiated, MediaKind::Video).extensions.dependency_descriptor = Some(DESCRIPTOR);
}

/// Data channels, which the world's players have not, and extension ids of the caller's choice.
fn equip(peer: &mut Peer, ids: u8) {
    peer.may_fail = true;
    peer.max_layer = MaxLayer::new(ids >> 5);
    // 15 is reserved, and above it the form is another (RFC 8285 §4.2).
    let first = if ids < 40 { 1 + ids % 11 } else { ids.clamp(16, 250) };
    for section in &mut peer.negotiated.sections {
        if let Section::Media(media) = section
            && let Some(stream) = &mut media.stream
        {
            stream.red = (media.kind == MediaKind::Audio && ids & 4 == 0).then_some(Red {
                payload_type: RED,
                blocks: 2,
                preferred: true,
            });
            stream.extensions = ExtensionIds {
                transport_cc: Some(first),
                playout_delay: Some(first + 1),
                abs_capture_time: (ids & 1 == 0).then_some(first + 2),
                dependency_descriptor: (ids & 2 == 0).then_some(DESCRIPTOR),
                ..ExtensionIds::default()
            };
        }
    }
    peer.negotiated.sections.push(Section::Data(DataSection {
        mid: "2".into(),
        remote_sctp_port: 5000,
        remote_max_message_size: 65_536,
    }));
}

/// The node answers a check where it came from, and sends everything else to where a check has come from.
fn guard_the_network(world: &mut World) {
    let asked: Rc<RefCell<HashSet<SocketAddr>>> = Rc::default();
    world.network = Box::new(move |datagram| {
        if datagram.to.ip() == World::shard_address(0).ip() {
            if classify(&datagram.bytes) == PacketKind::Stun {
                asked.borrow_mut().insert(datagram.from);
            }
        } else {
            assert!(asked.borrow().contains(&datagram.to), "a datagram to an address that never asked");
        }
        Some(Duration::ZERO)
    });
}

/// Events of the kinds below [`HOSTILE_EVENTS`]: a player's whole life, and attacks on it.
pub(super) fn hostile_seeds() -> Vec<Vec<u8>> {
    let channels = [
        [vec![9, 0, 0, 0], chunk(&open("bets"))].concat(),
        [vec![9, 0, 2, 0], chunk(&open("events"))].concat(),
        [vec![9, 0, 4, 0], chunk(&open("qos"))].concat(),
        [vec![9, 0, 0, 1], chunk(br#"{"type":"bet","betId":"b-1","roundId":"r-1"}"#)].concat(),
        [vec![9, 0, 4, 1], chunk(br#"{"type":"stats","fps":30}"#)].concat(),
        [vec![9, 0, 4, 1], chunk(br#"{"type":"timing","betId":"b-1","totalMs":12}"#)].concat(),
        vec![0, 50, 12, 0, 7, 0, 0, 0, 20, 1, 3],
        [vec![7, 0, 2], chunk(&[192, 0, 0, 8, 0, 0, 0, 9])].concat(),
    ];
    let compounds = super::rtcp::compounds();
    let mut reports: Vec<Vec<u8>> = compounds.iter().map(|c| [vec![4, 0], chunk(c), vec![0, 9]].concat()).collect();
    reports.push(vec![1, 0x83, 1, 3, 5, 0, 2, 0, 0, 4, 0, 1, 0, 0xff, 0, 1, 0, 0, 2, 4, 0x11, 0x11, 0x11, 0x10, 0, 30]);
    let addresses = vec![3, 0, 1, 1, 0, 5, 3, 0, 2, 0, 0, 5, 3, 0, 32, 1, 3, 0, 33, 1, 1, 5, 0, 40, 3, 0, 34, 1, 1, 3];
    let joining = vec![11, 0, 0, 0, 60, 11, 200, 0, 1, 0x85, 0, 60, 1, 4, 13, 1, 0, 9, 11, 7, 0, 0, 20, 13, 2];
    let packets = super::rtp::packets();
    let media: Vec<Vec<u8>> = packets
        .iter()
        .flat_map(|p| [[vec![6, 0, 0], chunk(p)].concat(), [vec![2, 1], chunk(p)].concat(), vec![10, 0, 20, 1, 3]])
        .collect();
    [channels.concat(), reports.concat(), addresses, joining, media.concat()].map(|e| [vec![0], e].concat()).to_vec()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let event = |kind: u8| kind;
    let clock = vec![event(14), 1, 0, 1, 5, event(15), 3, 1, 0x84, event(15), 31, event(15), 12, 1, 3, event(21)];
    let republished = vec![1, 0x83, event(18), 1, 0, 60, 0, 60, 1, 0x83, 0, 40, 1, 2, event(21), event(15), 7, 0, 10];
    let deleted = vec![event(17), 1, 0, 0, 5, event(17), 0, 0, event(14), 16, 0, event(21), event(15), 9, 1, 1];
    let silent = vec![event(19), 0, 1, event(19), 1, 1, event(15), 40, 0, 20, event(21)];
    let mut published = Vec::new();
    for how in [2, 6, 10, 18, 26] {
        published.extend([event(16), how, 0, 1, 0, 0, 11, 0xb8, 0, 4, 0xc1, 0, 7, 0x80]);
        published.extend(chunk(if how == 10 { super::payload::RED } else { super::payload::VP8_KEYFRAME }));
    }
    published.extend([event(16), 2, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0x10, 1, 2, event(16), 0]);
    published.extend(chunk(&super::rtcp::compounds()[4]));
    let messages = vec![event(20), 0, 0, 0, 20, event(20), 0, 1, 1, 0x82, event(20), 0, 2, 1, 2, 0, 9, event(20), 1, 0];
    // A kind below HOSTILE_EVENTS is the same one here.
    let mut seeds = hostile_seeds();
    for shards in [0, 1] {
        for events in [&clock, &republished, &deleted, &silent, &published, &messages] {
            seeds.push([&[shards], &events[..]].concat());
        }
    }
    seeds
}

//! Once warm, forwarding takes nothing from the heap: not on the way in, not from shard to shard, not on the way out,
//! timers and sender reports included.
//!
//! The channels between threads are `fleet`'s and not part of this: there, a block of the queue is allocated now and
//! then for many messages.

#![allow(clippy::disallowed_methods, reason = "virtual time begins at some instant")]

#[path = "../benches/allocations.rs"]
mod allocations;
#[path = "scenarios/world/mod.rs"]
mod world;

use std::time::{Duration, Instant};

use tableside::fanout::SendBatch;
use tableside::rtc::TransportAddress;
use tableside::rtc::stun::{IntegrityKey, RequestParameters, write_request};
use tableside::shard::{DropReason, EndCause, Role, Shard, ShardEvent, TableId};
use world::{Dealer, Side, World};

const FRAME: Duration = Duration::from_millis(33);
const PACKETS: u16 = 9;
/// On the table's home shard and on another.
const PLAYERS: [usize; 2] = [20, 4];
const KEYFRAME_EVERY: u64 = 30;

/// Enough to fill the ring, the pool behind it and the queues of reports.
const WARM_UP: u64 = 300;
const MEASURED: u64 = 300;

/// The shards of a node as their threads drive them.
struct Node {
    now: Instant,
    home: Shard,
    other: Shard,
    dealer: Dealer,
    table: TableId,
    batch: SendBatch,
    sent: u64,
}

impl Node {
    fn new() -> Self {
        let mut world = World::new(2);
        let (now, table) = (world.now, world.table.clone());
        world.shards[0].add_local_publisher(now, &table, Dealer::media());
        for (shard, count) in PLAYERS.into_iter().enumerate() {
            for _ in 0..count {
                world.add_player(shard);
            }
        }
        world.connect_all();
        let mut shards = world.shards.into_iter();
        let (Some(home), Some(other)) = (shards.next(), shards.next()) else { unreachable!("two were made") };
        let dealer = Dealer::new(PACKETS, 1100);
        Self { now: world.now, home, other, dealer, table: table.id, batch: Shard::send_batch(), sent: 0 }
    }

    fn forward(&mut self, keyframe: bool) {
        for packet in self.dealer.next_frame(keyframe) {
            self.home.handle_local(self.now, self.table, packet);
        }
        let end = self.now + FRAME;
        // Joiners get their share of the cached GOP every two milliseconds.
        while self.now < end {
            for shard in [&mut self.home, &mut self.other] {
                shard.handle_timeout(self.now);
                while shard.poll_transmit(self.now, &mut self.batch) {
                    self.sent += self.batch.messages().iter().map(|m| m.segments() as u64).sum::<u64>();
                }
            }
            while let Some(event) = self.home.poll_event() {
                if let ShardEvent::Peer { message, .. } = event {
                    self.other.handle_peer(self.now, message);
                }
            }
            while let Some(event) = self.other.poll_event() {
                if let ShardEvent::Peer { message, .. } = event {
                    self.home.handle_peer(self.now, message);
                }
            }
            self.now += Duration::from_millis(1);
        }
    }
}

#[test]
fn forwarding_does_not_allocate() {
    let mut node = Node::new();
    for frame in 0..WARM_UP {
        node.forward(frame % KEYFRAME_EVERY == 0);
    }
    let (warm, sent) = (allocations::of_this_thread(), node.sent);
    assert!(warm > 0, "the counter counts");
    for frame in 0..MEASURED {
        node.forward(frame % KEYFRAME_EVERY == 0);
    }
    let allocations = allocations::of_this_thread() - warm;
    let expected = MEASURED * u64::from(PACKETS) * PLAYERS.iter().sum::<usize>() as u64;
    assert!(node.sent - sent >= expected, "{} packets sent, of {expected}: the test is broken", node.sent - sent);
    assert_eq!(allocations, 0, "allocations for {expected} packets");
}

/// What strangers send is refused without a byte of memory: a ClientHello, checks for nobody, checks beyond the allowance
/// of their source, junk.
#[test]
fn refusing_does_not_allocate() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let stranger = TransportAddress::udp(([203, 0, 113, 9], 4000).into());
    let mut hello = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1];
    hello.resize(13 + 1024, 0);
    let false_check = |ufrag: &str| {
        let parameters = RequestParameters {
            transaction_id: [3; 12],
            local_ufrag: ufrag,
            remote_ufrag: "thief",
            priority: None,
            role: None,
            use_candidate: true,
        };
        let mut message = [0; 256];
        let len = write_request(&mut message, &parameters, &IntegrityKey::new("not the password of anybody"));
        message[..len].to_vec()
    };
    let for_somebody = false_check(&world.peers[publisher].remote_ufrag());
    let kinds = [
        (DropReason::UnknownSource, hello),
        (DropReason::StunUnknownUfrag, false_check("AAAA////AAAA")),
        (DropReason::StunRateLimited, for_somebody.clone()),
        (DropReason::Unrecognised, vec![250; 1200]),
    ];
    let now = world.now;
    for _ in 0..2000 {
        world.shards[0].handle_datagram(now, stranger, &mut for_somebody.clone());
    }
    for (reason, mut bytes) in kinds {
        let before = world.report(0).dropped[reason as usize];
        let allocations = allocations::of_this_thread();
        for _ in 0..100 {
            world.shards[0].handle_datagram(now, stranger, &mut bytes);
        }
        assert_eq!(allocations::of_this_thread() - allocations, 0, "{reason:?}");
        assert_eq!(world.report(0).dropped[reason as usize] - before, 100, "{reason:?}");
    }
}

/// A session that was asked for and never checked is small, and gone with the setup time.
#[test]
fn a_session_that_waits_is_small() {
    const SESSIONS: u16 = 200;
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    let (now, negotiated, table) = (world.now, world.peers[player].negotiated.clone(), world.table.clone());
    let before = allocations::bytes_of_this_thread();
    for n in 0..SESSIONS {
        let [high, low] = n.to_be_bytes();
        let random = std::array::from_fn(|i| if i % 2 == 0 { high } else { low });
        let player_id = tableside::bets::PlayerId::anonymous([low; 16]);
        world.shards[0].add_player(now, &table, player_id, None, &negotiated, &random);
    }
    let each = (allocations::bytes_of_this_thread() - before) / i64::from(SESSIONS);
    println!("{each} bytes for a session that waits");
    assert!((1..=4096).contains(&each), "{each} bytes for a session that waits");
    world.run(Duration::from_secs(9));
    world.publish_frame(publisher, 1, true);
    world.run(Duration::from_secs(2));
    let report = world.report(0);
    assert_eq!(report.ended[Role::Player as usize][EndCause::SetupTimeout as usize], u64::from(SESSIONS));
    assert_eq!(report.sessions, [1, 1]);
}

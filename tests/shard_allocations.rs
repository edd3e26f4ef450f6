//! Once warm, a frame from the publisher to the last player's datagram takes nothing from the heap.

#![allow(clippy::disallowed_methods, reason = "virtual time begins at some instant")]

#[path = "../benches/harness/allocations.rs"]
mod allocations;
#[path = "scenarios/world/mod.rs"]
mod world;

use std::time::Duration;

use tableside::fanout::SendBatch;
use tableside::shard::Shard;
use world::{Dealer, World};

const PLAYERS: usize = 20;
const PACKETS: usize = 9;
const PAYLOAD_LEN: usize = 1130;
/// Slots of the ring: few, so that the pool of packets is soon full.
const RING: usize = 128;
const FRAME_INTERVAL: Duration = Duration::from_millis(33);

/// Two seconds: the pool of packets has gone round and every window over a second is full.
const WARM_UP: usize = 60;
const MEASURED: usize = 100;

/// What a frame cost.
struct Cost {
    allocations: u64,
    datagrams: usize,
}

/// The way of a frame through the shard, and nothing of what time brings beside it: neither reports nor checks.
fn forward(world: &mut World, dealer: &mut Dealer, batch: &mut SendBatch, keyframe: bool) -> Cost {
    let (now, table) = (world.now, world.table.id);
    let frame = dealer.next_frame(keyframe);
    let before = allocations::of_this_thread();
    for packet in frame {
        world.shards[0].handle_local(now, table, packet);
    }
    let datagrams = transmit(world, batch);
    Cost { allocations: allocations::of_this_thread() - before, datagrams }
}

fn transmit(world: &mut World, batch: &mut SendBatch) -> usize {
    let mut datagrams = 0;
    while world.shards[0].poll_transmit(world.now, batch) {
        datagrams += batch.messages().iter().map(|message| message.segments()).sum::<usize>();
    }
    datagrams
}

/// Lets `duration` pass and throws away what it brings.
fn wait(world: &mut World, batch: &mut SendBatch, duration: Duration) {
    world.now += duration;
    world.shards[0].handle_timeout(world.now);
    transmit(world, batch);
    while world.shards[0].poll_event().is_some() {}
}

#[test]
fn forwarding_does_not_allocate() {
    let forever = Duration::from_secs(3600);
    let mut world = World::with_timeouts(1, forever, forever);
    world.table.ring_packets = RING;
    world.shards[0].add_local_publisher(world.now, &world.table, Dealer::media());
    for _ in 0..PLAYERS {
        world.add_player(0);
    }
    world.connect_all();
    let mut batch = Shard::send_batch();
    let mut dealer = Dealer::new(PACKETS as u16, PAYLOAD_LEN);

    let first = forward(&mut world, &mut dealer, &mut batch, true);
    assert!(first.allocations > 0, "the counter counts");
    // The players get the keyframe as joiners, at the pace of a replay.
    for _ in 0..PACKETS {
        wait(&mut world, &mut batch, Duration::from_millis(2));
    }
    for _ in 0..WARM_UP {
        wait(&mut world, &mut batch, FRAME_INTERVAL);
        forward(&mut world, &mut dealer, &mut batch, false);
    }
    for frame in 0..MEASURED {
        wait(&mut world, &mut batch, FRAME_INTERVAL);
        let cost = forward(&mut world, &mut dealer, &mut batch, false);
        assert_eq!(cost.datagrams, PLAYERS * PACKETS, "every player got frame {frame} at once");
        assert_eq!(cost.allocations, 0, "allocations in frame {frame}");
    }
}

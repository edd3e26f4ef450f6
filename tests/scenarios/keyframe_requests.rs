//! Keyframe requests are merged: a hundred players cost the publisher one.

use std::time::Duration;

use crate::world::{Side, VIDEO_SSRC, World};

#[test]
fn a_storm_of_plis_reaches_the_publisher_at_most_every_half_second() {
    let mut world = World::new(2);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players: Vec<usize> = (0..20).map(|n| world.add_player(n % 2)).collect();
    players.iter().for_each(|p| world.connect(*p));
    world.publish_frame(publisher, 3, true);
    world.run(Duration::from_millis(100));
    let before = world.peers[publisher].plis();
    for _ in 0..10 {
        for player in &players {
            world.peers[*player].send_rtcp(|w| w.pli(1, VIDEO_SSRC).unwrap());
        }
        world.publish_frame(publisher, 3, false);
        world.run(Duration::from_millis(100));
    }
    let plis = world.peers[publisher].plis() - before;
    assert!((1..=3).contains(&plis), "{plis} requests in a second");
    let report = world.report(0).tables["roulette"].clone();
    assert_eq!(report.keyframe_requests_sent as usize, world.peers[publisher].plis());
    assert_eq!(
        report.keyframe_requests_received + world.report(1).tables["roulette"].keyframe_requests_received,
        200,
        "each is counted where it came in"
    );
}

#[test]
fn a_player_without_a_cached_gop_asks_for_a_keyframe_and_starts_with_it() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    for _ in 0..5 {
        world.publish_frame(publisher, 3, false);
        world.run(Duration::from_millis(33));
    }
    assert!(world.peers[player].received_on(VIDEO_SSRC).is_empty(), "nothing that cannot be decoded");
    assert!(world.peers[publisher].plis() >= 1);
    world.publish_frame(publisher, 3, true);
    world.run(Duration::from_millis(50));
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 3);
}

/// No NACK brings it back: all pictures are broken, and one request mends them.
#[test]
fn a_loss_before_ingest_that_is_not_repaired_brings_one_request() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players: Vec<usize> = (0..3).map(|_| world.add_player(0)).collect();
    players.iter().for_each(|p| world.connect(*p));
    world.publish_frame(publisher, 9, true);
    world.run(Duration::from_millis(100));
    let before = world.peers[publisher].plis();
    let (from, mut n) = (world.peers[publisher].address, 0);
    world.network = Box::new(move |d| {
        n += u32::from(d.from == from && d.bytes.len() > 1000);
        (d.from != from || n != 4).then_some(Duration::ZERO)
    });
    for _ in 0..90 {
        world.publish_frame(publisher, 9, false);
        world.run(Duration::from_millis(33));
    }
    assert_eq!(world.peers[publisher].plis() - before, 1);
    let table = &world.report(0).tables["roulette"];
    let lost = (table.frames_lost_before_ingest, table.frames_dropped_ingest_loss);
    assert_eq!(lost, (1, 3), "and the frame is on the ledger, for each player");
}

/// A request that comes too early after another waits for its time, on every shard.
#[test]
fn a_request_that_is_held_back_is_sent_later() {
    for shard in [0, 1] {
        let mut world = World::new(2);
        let publisher = world.add_publisher(Side::Client);
        world.connect(publisher);
        let player = world.add_player(shard);
        world.connect(player);
        world.publish_frame(publisher, 3, true);
        world.run(Duration::from_millis(1000));
        let before = world.peers[publisher].plis();
        for _ in 0..2 {
            world.peers[player].send_rtcp(|w| w.pli(1, VIDEO_SSRC).unwrap());
            world.run(Duration::from_millis(300));
        }
        assert_eq!(world.peers[publisher].plis() - before, 1, "shard {shard}");
        world.publish_frame(publisher, 3, false);
        world.run(Duration::from_millis(600));
        assert_eq!(world.peers[publisher].plis() - before, 2, "shard {shard}");
    }
}

/// Every keyframe it brought about would take quality from all others.
#[test]
fn one_player_cannot_have_keyframes_without_end() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    let before = world.peers[publisher].plis();
    for n in 0..300 {
        world.peers[player].send_rtcp(|w| w.pli(1, VIDEO_SSRC).unwrap());
        world.publish_frame(publisher, 3, n % 30 == 0);
        world.run(Duration::from_millis(100));
    }
    let plis = world.peers[publisher].plis() - before;
    assert!((10..=20).contains(&plis), "{plis} requests in 30 s");
}

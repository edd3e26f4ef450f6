//! Sessions end, and nothing of them stays.

use std::time::Duration;

use tableside::shard::{EndCause, Role};

use crate::world::{Side, World};

/// The publisher sends while time passes.
fn on_air(world: &mut World, publisher: usize, seconds: usize) {
    for _ in 0..2 * seconds {
        world.publish_frame(publisher, 1, true);
        world.run(Duration::from_millis(500));
    }
}

#[test]
fn a_session_that_is_never_checked_is_freed() {
    let mut world = World::new(1);
    let player = world.add_player(0);
    world.peers[player].sends_checks = false;
    world.run(Duration::from_secs(11));
    assert_eq!(world.heard.ended, [(world.peers[player].key.unwrap(), EndCause::SetupTimeout)]);
    assert_eq!(world.report(0).sessions, [0, 0]);
}

/// RFC 7675 §5.1: consent expires 30 s after the last valid check.
#[test]
fn a_player_that_vanishes_is_freed_when_its_consent_expires() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    on_air(&mut world, publisher, 40);
    assert_eq!(world.heard.ended, [], "checks keep the session alive");
    world.peers[player].sends_checks = false;
    on_air(&mut world, publisher, 27);
    assert!(world.heard.ended.is_empty());
    on_air(&mut world, publisher, 6);
    assert_eq!(world.heard.ended, [(world.peers[player].key.unwrap(), EndCause::ConsentExpired)]);
    assert_eq!(world.report(0).sessions, [1, 0]);
}

#[test]
fn an_ended_session_answers_no_check_and_takes_no_media() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let key = world.peers[publisher].key.unwrap();
    assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
    assert!(!world.shards[0].close_session(world.now, key, EndCause::Deleted), "once");
    // The peer's own goodbye is on its way.
    world.run(Duration::from_millis(10));
    let before = world.report(0);
    world.publish_frame(publisher, 3, true);
    world.peers[publisher].check();
    world.run(Duration::from_millis(10));
    let after = world.report(0);
    let dropped = |r: &tableside::shard::ShardReport| r.dropped.iter().sum::<u64>();
    assert_eq!(dropped(&after) - dropped(&before), 5, "four packets and a check");
    assert_eq!(after.datagrams_sent, before.datagrams_sent);
}

#[test]
fn slots_are_reused_and_counters_agree() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    for round in 0..20 {
        let player = world.add_player(0);
        world.connect(player);
        assert_eq!(world.report(0).sessions[Role::Player as usize], 1);
        let key = world.peers[player].key.unwrap();
        assert_eq!(key.slot, 1, "round {round} reuses the slot beside the publisher's");
        assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
        world.run(Duration::from_millis(5));
    }
    let report = world.report(0);
    assert_eq!(report.sessions, [1, 0]);
    assert_eq!(report.created[Role::Player as usize], 20);
    assert_eq!(report.connected[Role::Player as usize], 20);
    assert_eq!(report.ended[Role::Player as usize][EndCause::Deleted as usize], 20);
}

#[test]
fn shutdown_says_goodbye_to_all() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    let now = world.now;
    world.shards[0].close_all(now);
    world.run(Duration::from_millis(5));
    assert!(world.peers[publisher].closed && world.peers[player].closed);
    assert_eq!(world.report(0).sessions, [0, 0]);
}

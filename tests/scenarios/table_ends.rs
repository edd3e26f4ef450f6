//! A table that is over lets everybody go, and begins anew as if it had never been.

use std::time::Duration;

use tableside::shard::{EndCause, TableState};

use crate::world::{Side, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

fn publish(world: &mut World, publisher: usize, frames: usize) {
    for n in 0..frames {
        world.publish_frame(publisher, 3, n % 30 == 0);
        world.run(FRAME);
    }
}

/// A world whose table has been published and is over again. The grace time is a second.
fn ended(shards: u16, players: &[usize]) -> World {
    let mut world = World::with_grace(shards, Duration::from_secs(1));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    for shard in players {
        world.add_player(*shard);
    }
    world.connect_all();
    publish(&mut world, publisher, 60);
    let key = world.peers[publisher].key.unwrap();
    assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
    world.run(Duration::from_millis(1500));
    assert_eq!(world.heard.states.last(), Some(&TableState::Absent));
    world
}

/// Shards keep what they have of a table for some seconds after its last player left.
#[test]
fn a_table_that_begins_anew_at_once_plays_on_every_shard() {
    let mut world = ended(2, &[1]);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    publish(&mut world, publisher, 10);
    let players = [world.add_player(0), world.add_player(1)];
    players.iter().for_each(|p| world.connect(*p));
    publish(&mut world, publisher, 30);
    for player in players {
        let received = world.peers[player].received_on(VIDEO_SSRC).len();
        assert!(received >= 40 * 3, "player {player} has {received} packets");
    }
}

#[test]
fn counters_never_go_back() {
    let mut world = ended(1, &[0]);
    let before = world.report(0).tables["roulette"].clone();
    assert!(before.frames_ingested >= 59);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    publish(&mut world, publisher, 10);
    let after = world.report(0).tables["roulette"].clone();
    assert!(after.frames_ingested >= before.frames_ingested + 9, "{} frames", after.frames_ingested);
}

#[test]
fn a_player_that_connects_elsewhere_when_the_table_is_over_is_let_go() {
    let mut world = ended(2, &[1]);
    let player = world.add_player(1);
    world.connect(player);
    world.run(Duration::from_millis(500));
    assert!(world.peers[player].closed);
    assert_eq!(world.heard.ended.last(), Some(&(world.peers[player].key.unwrap(), EndCause::TableEnded)));
}

/// It would hold the table's name for ever, and nothing it sent later would be taken.
#[test]
fn a_publisher_that_is_silent_beyond_the_grace_time_is_let_go() {
    let mut world = World::with_grace(1, Duration::from_secs(1));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    publish(&mut world, publisher, 10);
    world.run(Duration::from_secs(4));
    assert_eq!(world.heard.states.last(), Some(&TableState::Absent));
    assert_eq!(world.heard.ended, [(world.peers[publisher].key.unwrap(), EndCause::TableEnded)]);
    assert!(world.peers[publisher].closed, "and knows it");
}

#[test]
fn a_publisher_that_never_sends_is_let_go() {
    let mut world = World::with_grace(1, Duration::from_secs(1));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    world.run(Duration::from_secs(9));
    assert!(world.heard.ended.is_empty());
    world.run(Duration::from_secs(2));
    assert_eq!(world.heard.ended, [(world.peers[publisher].key.unwrap(), EndCause::TableEnded)]);
}

/// Whoever has come back gets the grace time to send its first packet.
#[test]
fn a_publisher_that_returns_at_the_last_moment_is_taken() {
    let mut world = World::with_grace(1, Duration::from_secs(2));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    publish(&mut world, publisher, 10);
    let key = world.peers[publisher].key.unwrap();
    assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
    world.run(Duration::from_millis(1900));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    world.run(Duration::from_millis(800));
    publish(&mut world, publisher, 10);
    assert_eq!(world.heard.states, [TableState::Live, TableState::Paused, TableState::Live]);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 60);
}

/// More goodbyes than one send batch holds.
#[test]
fn every_player_of_a_large_table_hears_of_the_end() {
    let world = ended(1, &[0; 600]);
    let deaf = world.peers.iter().skip(1).filter(|p| !p.closed).count();
    assert_eq!(deaf, 0, "of 600 players");
}

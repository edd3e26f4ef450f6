//! A table may change between a player's answer and its first packet.

use std::time::Duration;

use tableside::shard::EndCause;

use crate::world::{Side, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

/// Away from home, the tracks go when nobody watches; a player that connects just then brings them back.
#[test]
fn a_player_that_connects_after_the_last_one_left_still_plays() {
    let mut world = World::new(2);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let first = world.add_player(1);
    world.connect(first);
    let late = world.add_player(1);
    world.peers[late].sends_checks = false;
    let key = world.peers[first].key.unwrap();
    assert!(world.shards[1].close_session(world.now, key, EndCause::Deleted));
    for n in 0..200 {
        world.publish_frame(publisher, 3, n % 30 == 0);
        world.run(FRAME);
    }
    world.peers[late].sends_checks = true;
    world.connect(late);
    for n in 0..60 {
        world.publish_frame(publisher, 3, n % 30 == 0);
        world.run(FRAME);
    }
    assert!(world.peers[late].received_on(VIDEO_SSRC).len() >= 180);
}

#[test]
fn a_player_of_a_table_that_ended_meanwhile_is_let_go() {
    let mut world = World::with_grace(2, Duration::from_secs(1));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    world.publish_frame(publisher, 3, true);
    let player = world.add_player(0);
    world.peers[player].sends_checks = false;
    world.run(Duration::from_secs(4));
    world.peers[player].sends_checks = true;
    world.connect(player);
    assert_eq!(world.heard.ended.last(), Some(&(world.peers[player].key.unwrap(), EndCause::TableEnded)));
    assert!(world.peers[player].closed, "and knows it");
}

//! A publisher that leaves pauses its table; one that returns within the grace time goes on where it stopped.

use std::time::Duration;

use tableside::shard::{EndCause, TableState};

use crate::world::{Side, VIDEO_SSRC, World};

fn watched(world: &mut World) -> (usize, usize) {
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    for n in 0..30 {
        world.publish_frame(publisher, 5, n == 0);
        world.run(Duration::from_millis(33));
    }
    (publisher, player)
}

#[test]
fn silence_is_noticed_within_two_seconds() {
    let mut world = World::new(1);
    watched(&mut world);
    assert_eq!(world.heard.states, [TableState::Live]);
    world.run(Duration::from_millis(1900));
    assert_eq!(world.heard.states, [TableState::Live, TableState::Paused]);
}

#[test]
fn players_go_on_without_a_new_session_when_it_returns() {
    let mut world = World::new(2);
    let (publisher, player) = watched(&mut world);
    let other = world.add_player(1);
    world.connect(other);
    let key = world.peers[publisher].key.unwrap();
    assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
    world.run(Duration::from_secs(3));
    assert_eq!(world.heard.states.last(), Some(&TableState::Paused));
    let before = world.peers[player].received_on(VIDEO_SSRC).len();

    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    for n in 0..30 {
        world.publish_frame(publisher, 5, n == 0);
        world.run(Duration::from_millis(33));
    }
    assert_eq!(world.heard.states.last(), Some(&TableState::Live));
    for player in [player, other] {
        let video = world.peers[player].received_on(VIDEO_SSRC);
        let (old, new) = video.split_at(video.iter().position(|r| r.at > world.now - Duration::from_secs(2)).unwrap());
        assert_eq!(new.len(), 30 * 5, "every packet of the new publisher");
        let (last, first) = (old.last().unwrap(), new[0]);
        assert_eq!(first.index, last.index + 1, "the numbers go on without a gap");
        let pause = first.timestamp.wrapping_sub(last.timestamp);
        assert!((3 * 90_000..5 * 90_000).contains(&pause), "the timestamp goes on by the pause, not {pause}");
    }
    assert!(world.peers[player].received_on(VIDEO_SSRC).len() > before);
}

#[test]
fn players_are_let_go_when_the_grace_time_is_over() {
    let mut world = World::with_grace(2, Duration::from_secs(3));
    let (publisher, player) = watched(&mut world);
    let other = world.add_player(1);
    world.connect(other);
    world.run(Duration::from_secs(6));
    assert_eq!(world.heard.states.last(), Some(&TableState::Absent));
    for peer in [publisher, player, other] {
        assert!(world.peers[peer].closed, "the end is authenticated: close_notify");
    }
    let causes: Vec<EndCause> = world.heard.ended.iter().map(|(_, cause)| *cause).collect();
    assert_eq!(causes, [EndCause::TableEnded; 3]);
}

#[test]
fn a_silent_publisher_is_replaced() {
    let mut world = World::new(1);
    let (silent, _) = watched(&mut world);
    world.run(Duration::from_secs(2));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    world.publish_frame(publisher, 5, true);
    world.run(Duration::from_millis(100));
    assert_eq!(world.heard.ended, [(world.peers[silent].key.unwrap(), EndCause::Replaced)]);
    assert_eq!(world.heard.states.last(), Some(&TableState::Live));
}

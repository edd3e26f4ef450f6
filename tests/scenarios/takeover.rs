//! A publisher that takes over from another one: who watches sees the picture go on.

use std::time::Duration;

use tableside::media::{Codec, MediaKind};
use tableside::shard::{EndCause, TableState};

use crate::world::{Side, VIDEO_SSRC, World, stream_mut};

const FRAME: Duration = Duration::from_millis(33);

struct Watched {
    world: World,
    publisher: usize,
    /// One on each of two shards.
    players: [usize; 2],
}

fn watched() -> Watched {
    let mut world = World::new(2);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players = [world.add_player(0), world.add_player(1)];
    world.connect_all();
    frames(&mut world, publisher, 30);
    Watched { world, publisher, players }
}

/// A keyframe of five packets and frames after it.
fn frames(world: &mut World, publisher: usize, count: usize) {
    for n in 0..count {
        world.publish_frame(publisher, 5, n == 0);
        world.run(FRAME);
    }
}

#[test]
fn players_get_the_next_keyframe_and_nothing_else_changes() {
    let Watched { mut world, publisher: old, players } = watched();
    let new = world.add_publisher(Side::Client);
    world.connect(new);
    assert_eq!(world.heard.ended, [(world.peers[old].key.unwrap(), EndCause::Replaced)]);
    assert!(world.peers[old].closed, "the old one is told");
    let before = players.map(|player| world.peers[player].received_on(VIDEO_SSRC).len());
    frames(&mut world, new, 30);
    for (player, before) in players.into_iter().zip(before) {
        let video = world.peers[player].received_on(VIDEO_SSRC);
        let (of_old, of_new) = video.split_at(before);
        assert_eq!(of_new.len(), 30 * 5, "every packet of the new publisher");
        let (last, first) = (of_old.last().unwrap(), of_new[0]);
        assert_eq!(first.index, last.index + 1, "the numbers go on without a gap");
        let pause = first.timestamp.wrapping_sub(last.timestamp);
        assert!((1..90_000).contains(&pause), "the timestamp goes on by the pause, not {pause}");
        assert_eq!(world.peers[player].undecryptable, 0);
    }
    assert_eq!(world.heard.states, [TableState::Live], "nobody was told that the publisher left");
    assert_eq!(world.heard.ended.len(), 1, "nobody else's session ended");
}

#[test]
fn the_old_publisher_goes_on_until_the_new_one_is_connected() {
    let Watched { mut world, publisher: old, players } = watched();
    let never = world.add_publisher(Side::Client);
    world.peers[never].sends_checks = false;
    let before = world.peers[players[0]].received_on(VIDEO_SSRC).len();
    // Until its setup timeout, and on.
    frames(&mut world, old, 360);
    assert_eq!(world.peers[players[0]].received_on(VIDEO_SSRC).len(), before + 360 * 5);
    assert_eq!(world.heard.ended, [(world.peers[never].key.unwrap(), EndCause::SetupTimeout)]);
    assert_eq!(world.heard.states, [TableState::Live]);

    let new = world.add_publisher(Side::Client);
    world.connect(new);
    frames(&mut world, new, 5);
    assert_eq!(world.heard.ended.last(), Some(&(world.peers[old].key.unwrap(), EndCause::Replaced)));
}

#[test]
fn of_several_that_are_connecting_the_newest_may() {
    let Watched { mut world, publisher: old, .. } = watched();
    let second = world.add_publisher(Side::Client);
    world.peers[second].sends_checks = false;
    let third = world.add_publisher(Side::Client);
    world.connect(third);
    frames(&mut world, third, 5);
    let key = |peer: usize| world.peers[peer].key.unwrap();
    assert_eq!(world.heard.ended, [(key(second), EndCause::Replaced), (key(old), EndCause::Replaced)]);
    assert_eq!(world.heard.states, [TableState::Live]);
}

#[test]
fn an_old_publisher_that_leaves_first_is_returned_from_by_the_new_one() {
    let Watched { mut world, publisher: old, players } = watched();
    let new = world.add_publisher(Side::Client);
    let key = world.peers[old].key.unwrap();
    assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
    world.connect(new);
    frames(&mut world, new, 5);
    assert_eq!(world.heard.states, [TableState::Live, TableState::Paused, TableState::Live]);
    assert_eq!(world.heard.ended, [(key, EndCause::Deleted)]);
    assert!(!world.peers[players[0]].closed);
}

/// A new publisher that connects and falls silent is a publisher that falls silent.
#[test]
fn a_new_publisher_that_sends_nothing_pauses_the_table() {
    let Watched { mut world, .. } = watched();
    let new = world.add_publisher(Side::Client);
    world.connect(new);
    world.run(Duration::from_secs(2));
    assert_eq!(world.heard.states, [TableState::Live, TableState::Paused]);
    world.run(Duration::from_secs(20));
    assert_eq!(world.heard.states.last(), Some(&TableState::Absent));
    assert!(world.peers[new].closed, "and is let go with the grace time");
}

/// Players have negotiated the old one, and what they would get under its payload type is noise.
#[test]
fn a_new_publisher_with_another_codec_ends_the_players() {
    let Watched { mut world, publisher: old, players } = watched();
    let before = players.map(|player| world.peers[player].received_on(VIDEO_SSRC).len());
    let new = world.add_publisher_with(Side::Client, |n| stream_mut(n, MediaKind::Video).codec = Codec::Vp9);
    world.connect(new);
    frames(&mut world, new, 5);
    let key = |peer: usize| world.peers[peer].key.unwrap();
    let mut expected = vec![(key(old), EndCause::Replaced)];
    expected.extend(players.map(|player| (key(player), EndCause::TableEnded)));
    assert_eq!(world.heard.ended, expected);
    assert!(players.iter().all(|player| world.peers[*player].closed), "they are told");
    assert_eq!(players.map(|player| world.peers[player].received_on(VIDEO_SSRC).len()), before);
    assert_eq!(world.heard.states, [TableState::Live, TableState::Absent, TableState::Live]);
}

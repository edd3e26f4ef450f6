//! A joiner starts from the cached GOP and ends level with the others.

use std::time::Duration;

use crate::world::{Side, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

#[test]
fn a_joiner_starts_with_the_keyframe_and_ends_level() {
    let mut world = World::new(2);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let early = world.add_player(0);
    world.connect(early);
    for n in 0..45 {
        world.publish_frame(publisher, 9, n % 60 == 0);
        world.run(FRAME);
    }
    let joiners = [world.add_player(0), world.add_player(1)];
    let before = world.peers[publisher].plis();
    joiners.iter().for_each(|p| world.connect(*p));
    for _ in 0..15 {
        world.publish_frame(publisher, 9, false);
        world.run(FRAME);
    }
    for joiner in joiners {
        let peer = &world.peers[joiner];
        let video = peer.received_on(VIDEO_SSRC);
        assert_eq!(video[0].payload[1] & 1, 0, "the first packet is the keyframe's");
        assert_eq!(video.len(), 60 * 9, "the whole GOP so far, then every frame");
        assert!(video.windows(2).all(|w| w[1].index == w[0].index + 1), "in order");
        let watcher = world.peers[early].received_on(VIDEO_SSRC);
        assert_eq!(video.last().unwrap().timestamp, watcher.last().unwrap().timestamp, "level with the others");
        assert_eq!(video.last().unwrap().at, watcher.last().unwrap().at, "and at the same time");
        assert!(video[0].index < 1 << 15, "the first number is below 2^15 at rollover counter 0");
    }
    assert_eq!(world.peers[publisher].plis(), before, "no keyframe was asked for");
}

/// The replay is spread: 45 frames of 9 packets must not leave in one burst.
#[test]
fn the_replay_is_paced() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    for n in 0..45 {
        world.publish_frame(publisher, 9, n == 0);
        world.run(FRAME);
    }
    let joiner = world.add_player(0);
    world.connect(joiner);
    world.run(Duration::from_millis(400));
    let video = world.peers[joiner].received_on(VIDEO_SSRC);
    assert_eq!(video.len(), 45 * 9);
    let most_at_once = video.chunk_by(|a, b| a.at == b.at).map(<[_]>::len).max().unwrap();
    assert!(most_at_once <= 16, "{most_at_once} packets left at one instant");
}

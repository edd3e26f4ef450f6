//! A keyframe is spread over the time until the next frame, and nothing else is.

use std::time::{Duration, Instant};

use crate::world::{AUDIO_SSRC, Received, Side, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

/// Of a keyframe: six times what other frames have.
const KEYFRAME: usize = 54;

/// A second of frames for a player at home and one on another shard, after the keyframe that both joined with: the second
/// keyframe comes at `Instant`.
fn a_second(mut world: World) -> (Instant, World, [usize; 2]) {
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players = [world.add_player(0), world.add_player(1)];
    players.iter().for_each(|p| world.connect(*p));
    for n in 0..3 {
        world.publish_frame(publisher, 9, n == 0);
        world.run(FRAME);
    }
    world.run(Duration::from_millis(200));
    let begin = world.now;
    players.iter().for_each(|p| world.peers[*p].received.clear());
    for n in 0..30 {
        world.publish_frame(publisher, if n == 0 { KEYFRAME } else { 9 }, n == 0);
        world.run(FRAME);
    }
    (begin, world, players)
}

/// Packets that came together: when, and how many.
fn runs(packets: &[&Received]) -> Vec<(Instant, usize)> {
    packets.chunk_by(|a, b| a.at == b.at).map(|run| (run[0].at, run.len())).collect()
}

/// How many packets a link of so many bits a second with room for so many bytes loses.
fn lost(packets: &[&Received], bits_per_second: f64, room: f64) -> usize {
    let (mut last, mut queued, mut lost) = (packets[0].at, 0.0_f64, 0);
    for packet in packets {
        queued = (queued - (packet.at - last).as_secs_f64() * bits_per_second / 8.0).max(0.0);
        last = packet.at;
        if queued + packet.wire.len() as f64 > room {
            lost += 1;
        } else {
            queued += packet.wire.len() as f64;
        }
    }
    lost
}

#[test]
fn a_keyframe_comes_in_runs_within_a_frame_and_all_else_at_once() {
    let (begin, world, players) = a_second(World::new(2));
    for player in players {
        let peer = &world.peers[player];
        let video = peer.received_on(VIDEO_SSRC);
        assert_eq!(video.len(), KEYFRAME + 29 * 9, "every packet");
        assert!(video.windows(2).all(|w| w[1].index == w[0].index + 1), "in order");

        let (keyframe, others) = video.split_at(KEYFRAME);
        let found = runs(keyframe);
        assert!(found.len() >= 5 && found.iter().all(|(_, size)| (8..16).contains(size)), "{found:?}");
        assert_eq!(found[0].0, begin, "the first at once");
        assert!(keyframe.last().expect("some").at < begin + FRAME, "the last before the next frame");
        let found = runs(others);
        assert!(found.iter().all(|(_, size)| *size == 9), "{found:?}");
        assert!(found.iter().zip(1..).all(|((at, _), n)| *at == begin + n * FRAME), "no other frame waits");
        let sound = peer.received_on(AUDIO_SSRC);
        assert!(sound.iter().zip(0..).all(|(packet, n)| packet.at == begin + n * FRAME), "sound is not held up");
    }
}

/// Its publisher spreads it: what has arrived goes on after the half millisecond that a flush waits for the rest.
#[test]
fn a_keyframe_that_arrives_in_pieces_is_not_held_up() {
    let mut world = World::new(2);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players = [world.add_player(0), world.add_player(1)];
    players.iter().for_each(|p| world.connect(*p));
    world.publish_frame(publisher, 9, true);
    world.run(Duration::from_millis(200));
    players.iter().for_each(|p| world.peers[*p].received.clear());
    let mut keyframe = world.peers[publisher].frame(KEYFRAME, true);
    keyframe.truncate(KEYFRAME);
    let mut arrived = Vec::new();
    for piece in keyframe.chunks(18) {
        arrived.push(world.now);
        piece.iter().cloned().for_each(|datagram| world.send(datagram));
        world.deliver();
        world.run(Duration::from_millis(5));
    }
    world.run(Duration::from_millis(50));
    for player in players {
        let found = runs(&world.peers[player].received_on(VIDEO_SSRC));
        assert_eq!(found.iter().map(|(_, size)| size).sum::<usize>(), KEYFRAME);
        // The last piece ends the frame, so that it is there as a whole and may be spread.
        for ((at, size), arrived) in found.iter().zip(&arrived).take(2) {
            assert!(*size == 18 && *at <= *arrived + Duration::from_millis(2), "{found:?}");
        }
    }
}

/// Its publisher does not spread it, but the network splits it: what comes first is more than is sent at once.
#[test]
fn a_keyframe_that_arrives_in_two_bursts_is_spread() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    for n in 0..2 {
        world.publish_frame(publisher, 9, n == 0);
        world.run(FRAME);
    }
    world.run(Duration::from_millis(200));
    world.peers[player].received.clear();
    let mut keyframe = world.peers[publisher].frame(KEYFRAME, true);
    keyframe.truncate(KEYFRAME);
    let begin = world.now;
    for burst in [&keyframe[..30], &keyframe[30..]] {
        burst.iter().cloned().for_each(|datagram| world.send(datagram));
        world.deliver();
        world.run(Duration::from_millis(2));
    }
    world.run(Duration::from_millis(100));
    let video = world.peers[player].received_on(VIDEO_SSRC);
    assert_eq!(video.len(), KEYFRAME);
    let found = runs(&video);
    assert!(found.len() >= 3 && found.iter().all(|(_, size)| (8..30).contains(size)), "{found:?}");
    assert!(video.last().expect("some").at <= begin + 2 * FRAME, "{found:?}");
}

#[test]
fn without_pacing_everything_comes_at_once() {
    let (begin, world, players) = a_second(World::with(2, |config| config.pacing = false));
    for player in players {
        let video = world.peers[player].received_on(VIDEO_SSRC);
        assert_eq!(runs(&video)[0], (begin, KEYFRAME));
    }
}

#[test]
fn a_keyframe_fits_a_buffer_that_is_too_shallow_for_it() {
    let losses = [true, false].map(|pacing| {
        let (_, world, [player, _]) = a_second(World::with(2, |config| config.pacing = pacing));
        let video = world.peers[player].received_on(VIDEO_SSRC);
        let bytes: usize = video.iter().map(|packet| packet.wire.len()).sum();
        // Five times what the stream needs on average, and room for twelve packets.
        lost(&video, 5.0 * 8.0 * bytes as f64, 12.0 * video[0].wire.len() as f64)
    });
    assert_eq!(losses[0], 0);
    assert!(losses[1] > KEYFRAME / 2, "{losses:?}");
}

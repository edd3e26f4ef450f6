//! H.264 and H.265 whose keyframes come without parameter sets: the gateway puts the last ones before them, for all players
//! alike, and every number stays a number of one packet.

use std::time::Duration;

use tableside::media::{Codec, MediaKind};

use crate::world::{Side, VIDEO_SSRC, World, stream_mut};

const FRAME: Duration = Duration::from_millis(33);
const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0x95];
const PPS: &[u8] = &[0x68, 0xce, 0x3c];
/// SPS and PPS as one STAP-A (RFC 6184 §5.7.1).
const BOTH: &[u8] = &[0x78, 0, 5, 0x67, 0x42, 0xc0, 0x1e, 0x95, 0, 3, 0x68, 0xce, 0x3c];

/// A keyframe in two fragments, and a frame in two.
fn frame(number: u8, keyframe: bool) -> Vec<Vec<u8>> {
    let (indicator, kind) = if keyframe { (0x7c, 5) } else { (0x5c, 1) };
    [0x80, 0x40].map(|edge| [&[indicator, edge | kind, 0x88, number][..], &[edge; 700]].concat()).to_vec()
}

/// Whose SDP has the parameter sets, if `in_sdp`; whoever plays it needs nothing from there.
fn publisher_of_h264(world: &mut World, in_sdp: bool) -> usize {
    let publisher = world.add_publisher_with(Side::Client, |negotiated| {
        let video = stream_mut(negotiated, MediaKind::Video);
        video.codec = Codec::H264;
        if in_sdp {
            video.parameter_sets = vec![SPS.to_vec(), PPS.to_vec()];
        }
    });
    world.connect(publisher);
    publisher
}

fn player_of_h264(world: &mut World, shard: usize) -> usize {
    let player = world.add_player_with(shard, |n| stream_mut(n, MediaKind::Video).codec = Codec::H264);
    world.connect(player);
    player
}

fn publish(world: &mut World, publisher: usize, payloads: &[Vec<u8>]) {
    let datagrams = world.peers[publisher].picture(payloads);
    datagrams.into_iter().for_each(|datagram| world.send(datagram));
    world.deliver();
    world.run(FRAME);
}

fn payloads(world: &World, player: usize) -> Vec<Vec<u8>> {
    let video = world.peers[player].received_on(VIDEO_SSRC);
    assert!(video.windows(2).all(|w| w[1].index == w[0].index + 1), "in order and without a gap");
    video.iter().map(|packet| packet.payload.clone()).collect()
}

fn assert_joiner_begins_with_both(mut world: World, publisher: usize) {
    (0..40).for_each(|n| publish(&mut world, publisher, &frame(n, n % 8 == 0)));
    let joiners = [player_of_h264(&mut world, 0), player_of_h264(&mut world, 1)];
    (40..44).for_each(|n| publish(&mut world, publisher, &frame(n, n % 8 == 0)));
    let mut expected = vec![BOTH.to_vec()];
    (32..40).for_each(|n| expected.extend(frame(n, n == 32)));
    expected.push(BOTH.to_vec());
    (40..44).for_each(|n| expected.extend(frame(n, n == 40)));
    for joiner in joiners {
        assert!(payloads(&world, joiner) == expected, "{:?}", payloads(&world, joiner).len());
        let video = world.peers[joiner].received_on(VIDEO_SSRC);
        assert_eq!((video[0].timestamp, video[0].marker), (video[1].timestamp, false), "part of the keyframe");
    }
    let report = world.report(0);
    let table = &report.tables["roulette"];
    assert_eq!((table.frames_ingested, table.frames_lost_before_ingest), (44, 0));
    assert_eq!(table.packets_ingested, 44 * 2, "what the publisher sent");
}

#[test]
fn parameter_sets_of_the_sdp_go_before_every_keyframe() {
    let mut world = World::new(2);
    let publisher = publisher_of_h264(&mut world, true);
    assert_joiner_begins_with_both(world, publisher);
}

#[test]
fn parameter_sets_that_came_once_go_before_every_later_keyframe() {
    let mut world = World::new(2);
    let publisher = publisher_of_h264(&mut world, false);
    let watcher = player_of_h264(&mut world, 0);
    let mut first = frame(200, true);
    first.splice(0..0, [SPS.to_vec(), PPS.to_vec()]);
    publish(&mut world, publisher, &first);
    assert!(payloads(&world, watcher) == first, "the first keyframe has them: nothing is added");
    let keyframe = frame(201, true);
    publish(&mut world, publisher, &keyframe);
    let all = payloads(&world, watcher);
    assert!(all[4..] == [&[BOTH.to_vec()], &keyframe[..]].concat(), "those who watch see them as well");
}

#[test]
fn nothing_is_put_before_a_keyframe_whose_parameter_sets_came() {
    let mut world = World::new(1);
    let publisher = publisher_of_h264(&mut world, true);
    let watcher = player_of_h264(&mut world, 0);
    let mut sent = Vec::new();
    for n in 0..10 {
        let mut keyframe = frame(n, true);
        keyframe.splice(0..0, [SPS.to_vec(), PPS.to_vec()]);
        publish(&mut world, publisher, &keyframe);
        sent.extend(keyframe);
    }
    assert!(payloads(&world, watcher) == sent);
}

/// Reordered, lost and repeated packets around insertions: every number has one payload, on both shards.
#[test]
fn no_number_has_two_payloads() {
    use crate::world::Dice;
    for seed in 0..4 {
        let mut world = World::new(2);
        let publisher = publisher_of_h264(&mut world, true);
        let players = [player_of_h264(&mut world, 0), player_of_h264(&mut world, 1)];
        let mut dice = Dice::new(seed);
        let mut network = Dice::new(seed ^ 0x5a);
        world.network = Box::new(move |datagram| match network.below(12) {
            0 if datagram.bytes[0] >= 128 && datagram.to.port() >= 7000 => None,
            1..=3 if datagram.bytes[0] >= 128 => Some(Duration::from_millis(network.below(80) as u64)),
            _ => Some(Duration::from_millis(1)),
        });
        for n in 0..120 {
            publish(&mut world, publisher, &frame(n, dice.below(3) == 0));
            for player in players {
                let newest = world.peers[player].received_on(VIDEO_SSRC).last().map(|r| r.sequence_number);
                let Some(newest) = newest else { continue };
                let lost: Vec<u16> = (0..4).map(|i| newest.wrapping_sub(i * 2)).collect();
                world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, lost).unwrap());
            }
        }
        world.run(Duration::from_secs(1));
        for player in players {
            // A number that came twice would not have authenticated: to the peer it is a replay.
            assert_eq!(world.peers[player].undecryptable, 0, "seed {seed}");
            let video = world.peers[player].received_on(VIDEO_SSRC);
            let inserted = video.iter().filter(|packet| packet.payload == BOTH).count();
            assert!(inserted > 10, "seed {seed}: {inserted} keyframes were completed");
            let numbers: std::collections::HashSet<u64> = video.iter().map(|packet| packet.index).collect();
            assert_eq!(numbers.len(), video.len(), "seed {seed}");
            // The original number that RTX names belongs to the payload it repeats.
            let of_number: std::collections::HashMap<u16, &[u8]> =
                video.iter().map(|packet| (packet.sequence_number, &packet.payload[..])).collect();
            let repeated = world.peers[player].received_on(crate::world::VIDEO_RTX_SSRC);
            assert!(!repeated.is_empty());
            for packet in repeated {
                let (original, payload) = packet.payload.split_first_chunk().expect("RFC 4588 §4");
                if let Some(first) = of_number.get(&u16::from_be_bytes(*original)) {
                    assert!(*first == payload, "seed {seed}: another payload under the same number");
                }
            }
        }
    }
}

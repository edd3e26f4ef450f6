//! The dependency descriptor: passed on to players that negotiated it, with the structure for a joiner, and with frame numbers
//! that go on where a publisher comes back.

use std::time::Duration;

use tableside::media::MediaKind;

use crate::world::{Side, VIDEO_SSRC, World, stream_mut, vp8_payload};

const FRAME: Duration = Duration::from_millis(33);
/// At the publisher, whose ids are its own, and at the player: one that forces the two-byte form.
const PUBLISHED: u8 = 12;
const PLAYED: u8 = 17;

/// §A.8: start and end of frame, template 0, the number; for a keyframe with a structure, longer than 16 bytes.
fn descriptor(number: u16, keyframe: bool) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let mut value = vec![0xc0, high, low];
    if keyframe {
        value.push(0x80);
        value.resize(40, 0x5d);
    }
    value
}

fn publisher_with_descriptor(world: &mut World) -> usize {
    let publisher = world.add_publisher_with(Side::Client, |n| {
        stream_mut(n, MediaKind::Video).extensions.dependency_descriptor = Some(PUBLISHED);
    });
    world.connect(publisher);
    publisher
}

fn publish(world: &mut World, publisher: usize, number: u16, keyframe: bool) {
    let value = descriptor(number, keyframe);
    let payload = vp8_payload(u32::from(number), 0, keyframe, 800);
    let datagrams = world.peers[publisher].described_picture(&[(&[(PUBLISHED, &value[..])][..], &payload[..])]);
    datagrams.into_iter().for_each(|datagram| world.send(datagram));
    world.deliver();
    world.run(FRAME);
}

/// What a player got, and the numbers in it.
fn descriptors(world: &World, player: usize) -> Vec<Vec<u8>> {
    let video = world.peers[player].received_on(VIDEO_SSRC);
    video.iter().map(|packet| packet.extension(PLAYED).map(<[u8]>::to_vec).unwrap_or_default()).collect()
}

fn player_with_descriptor(world: &mut World, shard: usize) -> usize {
    let player = world.add_player_with(shard, |n| {
        stream_mut(n, MediaKind::Video).extensions.dependency_descriptor = Some(PLAYED);
    });
    world.connect(player);
    player
}

#[test]
fn a_joiner_gets_the_structure_and_every_descriptor_after_it() {
    let mut world = World::new(2);
    let publisher = publisher_with_descriptor(&mut world);
    (0..20).for_each(|n| publish(&mut world, publisher, 65_530_u16.wrapping_add(n), n % 8 == 0));
    let players = [player_with_descriptor(&mut world, 0), player_with_descriptor(&mut world, 1)];
    let without = world.add_player(0);
    world.connect(without);
    (20..24).for_each(|n| publish(&mut world, publisher, 65_530_u16.wrapping_add(n), n % 8 == 0));
    let expected: Vec<_> = (16..24).map(|n| descriptor(65_530_u16.wrapping_add(n), n == 16)).collect();
    for player in players {
        assert_eq!(descriptors(&world, player), expected);
        let video = world.peers[player].received_on(VIDEO_SSRC);
        assert!(video.iter().all(|packet| packet.transport_number.is_some()), "beside the other extensions");
    }
    let video = world.peers[without].received_on(VIDEO_SSRC);
    assert!(video.len() == 8 && video.iter().all(|packet| packet.extension(PLAYED).is_none()));
}

#[test]
fn frame_numbers_go_on_when_the_publisher_comes_back() {
    let mut world = World::new(1);
    let publisher = publisher_with_descriptor(&mut world);
    publish(&mut world, publisher, 100, true);
    let player = player_with_descriptor(&mut world, 0);
    publish(&mut world, publisher, 101, false);
    world.run(Duration::from_secs(2));
    let again = publisher_with_descriptor(&mut world);
    (0..3).for_each(|n| publish(&mut world, again, 40_000 + n, n == 0));
    let expected = [(100, true), (101, false), (102, true), (103, false), (104, false)].map(|(n, k)| descriptor(n, k));
    assert_eq!(descriptors(&world, player), expected);
}

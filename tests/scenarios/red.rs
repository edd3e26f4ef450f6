//! RED (RFC 2198) for Opus: passed on to players that have it, taken apart for the others, and used where a packet of the
//! publisher was lost.

use tableside::media::MediaKind;
use tableside::rtc::sdp::{Negotiated, Red};

use crate::world::{AUDIO_SSRC, Side, World, stream_mut};

const OPUS: u8 = 111;
const RED: u8 = 63;
const TICKS: u16 = 960;

/// An Opus packet that names its place.
fn opus(n: u8) -> Vec<u8> {
    vec![0xfc, n, 0xaa, 0xbb]
}

/// RED of packet `n`, with the `copies` packets before it.
fn red(n: u8, copies: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    for back in (1..=copies).rev() {
        let rest = u32::from(TICKS * u16::from(back)) << 10 | opus(n - back).len() as u32;
        payload.push(0x80 | OPUS);
        payload.extend(&rest.to_be_bytes()[1..]);
    }
    payload.push(OPUS);
    (1..=copies).rev().for_each(|back| payload.extend(opus(n - back)));
    payload.extend(opus(n));
    payload
}

fn with_red(negotiated: &mut Negotiated) {
    stream_mut(negotiated, MediaKind::Audio).red = Some(Red { payload_type: RED, blocks: 2, preferred: true });
}

/// A publisher with RED, a player with it and one without, all connected; the packets of `lost` never arrive.
fn play(packets: u8, copies: u8, lost: &[u8]) -> [Vec<(u8, u32, Vec<u8>)>; 2] {
    let mut world = World::new(2);
    let publisher = world.add_publisher_with(Side::Client, with_red);
    world.connect(publisher);
    world.publish_frame(publisher, 1, true);
    let players = [world.add_player_with(1, with_red), world.add_player(0)];
    players.iter().for_each(|player| world.connect(*player));
    for n in 0..packets {
        let datagram = world.peers[publisher].sound_as(RED, &red(n, copies.min(n)));
        if !lost.contains(&n) {
            world.send(datagram);
        }
        world.deliver();
        world.run(std::time::Duration::from_millis(20));
    }
    players.map(|player| {
        let received = world.peers[player].received_on(AUDIO_SSRC);
        assert!(received.windows(2).all(|w| w[0].timestamp < w[1].timestamp), "in order");
        received.iter().map(|r| (r.payload_type, r.timestamp, r.payload.clone())).collect()
    })
}

#[test]
fn a_player_with_red_gets_it_and_a_player_without_gets_the_primary_block() {
    let [with, without] = play(10, 1, &[]);
    let payloads = |received: &[(u8, u32, Vec<u8>)]| received.iter().map(|r| (r.0, r.2.clone())).collect::<Vec<_>>();
    assert_eq!(payloads(&with), (0..10).map(|n| (RED, red(n, 1.min(n)))).collect::<Vec<_>>());
    assert_eq!(payloads(&without), (0..10).map(|n| (OPUS, opus(n))).collect::<Vec<_>>());
    let timestamps = |received: &[(u8, u32, Vec<u8>)]| received.iter().map(|r| r.1).collect::<Vec<_>>();
    assert_eq!(timestamps(&with), timestamps(&without));
}

#[test]
fn lost_sound_is_recovered_from_the_packet_behind_it() {
    let [with, without] = play(10, 1, &[4]);
    assert_eq!(without.iter().map(|r| r.2.clone()).collect::<Vec<_>>(), (0..10).map(opus).collect::<Vec<_>>());
    assert!(without.windows(2).all(|w| w[1].1 - w[0].1 == u32::from(TICKS)), "at its own time");
    assert_eq!((with[4].0, &with[4].2), (OPUS, &opus(4)), "as plain Opus: its own redundancy is lost");
    assert_eq!((with[5].0, &with[5].2), (RED, &red(5, 1)));
}

#[test]
fn a_hole_is_recovered_as_a_whole_or_not_at_all() {
    let [_, two] = play(10, 2, &[4, 5]);
    assert_eq!(two.iter().map(|r| r.2.clone()).collect::<Vec<_>>(), (0..10).map(opus).collect::<Vec<_>>());
    let [_, three] = play(10, 2, &[4, 5, 6]);
    let expected: Vec<_> = (0..10).filter(|n| !(4..7).contains(n)).map(opus).collect();
    assert_eq!(three.iter().map(|r| r.2.clone()).collect::<Vec<_>>(), expected);
}

#[test]
fn red_that_makes_no_sense_is_dropped_and_counted() {
    let mut world = World::new(1);
    let publisher = world.add_publisher_with(Side::Client, with_red);
    world.connect(publisher);
    world.publish_frame(publisher, 1, true);
    let player = world.add_player_with(0, with_red);
    world.connect(player);
    for payload in [&[0x80 | OPUS, 0, 0][..], &[0x80 | OPUS, 0, 0x0f, 0xff, OPUS, 1], &[OPUS]] {
        let datagram = world.peers[publisher].sound_as(RED, payload);
        world.send(datagram);
    }
    world.deliver();
    assert!(world.peers[player].received_on(AUDIO_SSRC).is_empty());
    let malformed = tableside::shard::DropReason::RtpMalformed as usize;
    assert_eq!(world.report(0).dropped[malformed], 3);
}

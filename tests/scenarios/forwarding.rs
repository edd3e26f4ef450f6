//! What a publisher sends reaches every player, whole and in order, on the same shard and on others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tableside::fanout::TrafficClass;
use tableside::rtc::demux::{PacketKind, classify};

use crate::world::{AUDIO_SSRC, Side, VIDEO_RTX_SSRC, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

fn plays(mut world: World, publisher: usize, players: &[usize]) {
    for n in 0..60 {
        world.publish_frame(publisher, 9, n == 0);
        world.run(FRAME);
    }
    world.run(Duration::from_millis(500));
    for player in players {
        let peer = &world.peers[*player];
        assert_eq!(peer.undecryptable, 0);
        let video = peer.received_on(VIDEO_SSRC);
        assert_eq!(video.len(), 60 * 9, "player {player} has every packet");
        assert!(video.windows(2).all(|w| w[1].index == w[0].index + 1), "numbers without a gap");
        for (i, packet) in video.iter().enumerate() {
            assert_eq!(packet.marker, i % 9 == 8);
            let place = u16::from_be_bytes([packet.payload[6], packet.payload[7]]);
            assert_eq!(usize::from(place), i % 9, "the payload is the publisher's");
        }
        let steps = video.iter().step_by(9).map(|p| p.timestamp).collect::<Vec<_>>();
        assert!(steps.windows(2).all(|w| w[1].wrapping_sub(w[0]) == 3000), "timestamps go on as the publisher's");
        assert!(video.iter().all(|p| p.payload_type == 96));
        // One transport-wide counter over all SSRCs of the session.
        let mut numbers: Vec<u16> = peer.received.iter().filter_map(|p| p.transport_number).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "transport-wide numbers without gap or repetition");
        assert!(peer.received_on(AUDIO_SSRC).len() >= 59);
    }
}

#[test]
fn to_players_of_the_same_shard() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players: Vec<usize> = (0..5).map(|_| world.add_player(0)).collect();
    players.iter().for_each(|p| world.connect(*p));
    plays(world, publisher, &players);
}

#[test]
fn to_players_of_another_shard() {
    let mut world = World::new(3);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players: Vec<usize> = (0..6).map(|n| world.add_player(n % 3)).collect();
    players.iter().for_each(|p| world.connect(*p));
    plays(world, publisher, &players);
}

/// FFmpeg's WHIP offers `a=setup:passive`: then we are the DTLS client.
#[test]
fn from_a_publisher_that_is_dtls_server() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Server);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    plays(world, publisher, &[player]);
}

#[test]
fn packets_that_overtake_each_other_arrive_once() {
    let mut world = World::new(2);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players = [world.add_player(0), world.add_player(1)];
    players.iter().for_each(|p| world.connect(*p));
    let mut n = 0_u32;
    let from = world.peers[publisher].address;
    // Every seventh packet of the publisher is 40 ms late.
    world.network = Box::new(move |datagram| {
        n += u32::from(datagram.from == from);
        Some(Duration::from_millis(if datagram.from == from && n.is_multiple_of(7) { 40 } else { 0 }))
    });
    for n in 0..30 {
        world.publish_frame(publisher, 9, n == 0);
        world.run(FRAME);
    }
    world.run(Duration::from_secs(1));
    for player in players {
        let mut indices: Vec<u64> = world.peers[player].received_on(VIDEO_SSRC).iter().map(|r| r.index).collect();
        assert_eq!(world.peers[player].undecryptable, 0);
        indices.sort_unstable();
        assert_eq!(indices.len(), 30 * 9);
        assert!(indices.windows(2).all(|w| w[1] == w[0] + 1), "each number once");
    }
}

/// The marking in the IP header goes by the class.
#[test]
fn each_datagram_has_the_class_of_what_it_carries() {
    let mut world = World::new(1);
    let seen: Rc<RefCell<BTreeMap<&str, usize>>> = Rc::default();
    let counted = seen.clone();
    world.tap = Box::new(move |class, bytes| {
        let ssrc = bytes.get(8..12).map(|ssrc| u32::from_be_bytes(ssrc.try_into().unwrap()));
        let (what, expected) = match (classify(bytes), ssrc) {
            (PacketKind::Stun, _) => ("STUN", TrafficClass::Control),
            (PacketKind::Rtcp, _) => ("RTCP", TrafficClass::Control),
            (PacketKind::Dtls, _) => ("DTLS", TrafficClass::Data),
            (PacketKind::Rtp, Some(AUDIO_SSRC)) => ("audio", TrafficClass::Audio),
            (PacketKind::Rtp, Some(VIDEO_SSRC)) => ("video", TrafficClass::Video),
            (PacketKind::Rtp, Some(VIDEO_RTX_SSRC)) => ("repair", TrafficClass::Video),
            other => panic!("{other:?}"),
        };
        assert_eq!(class, expected, "{what}");
        *counted.borrow_mut().entry(what).or_default() += 1;
    });
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    for n in 0..30 {
        world.publish_frame(publisher, 3, n == 0);
        world.run(FRAME);
    }
    let newest = world.peers[player].received_on(VIDEO_SSRC).last().unwrap().sequence_number;
    world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, [newest]).unwrap());
    world.run(FRAME);
    assert_eq!(seen.borrow().keys().copied().collect::<Vec<_>>(), ["DTLS", "RTCP", "STUN", "audio", "repair", "video"]);
}

/// A frame comes as fast as its publisher's network lets it; each flush costs every player a run of its own.
#[test]
fn the_rest_of_a_frame_is_waited_for_and_not_for_long() {
    let mut world = World::new(2);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players = [world.add_player(0), world.add_player(1)];
    players.iter().for_each(|p| world.connect(*p));
    world.publish_frame(publisher, 9, true);
    world.run(Duration::from_millis(100));
    let received = |world: &World| players.map(|player| world.peers[player].received_on(VIDEO_SSRC).len());
    assert_eq!(received(&world), [9, 9]);

    // A whole frame within an instant: its first half alone goes nowhere, and with the second half all is sent at once.
    let mut frame = world.peers[publisher].frame(9, false);
    let rest = frame.split_off(4);
    for (part, has_come) in [(frame, [9, 9]), (rest, [18, 18])] {
        part.into_iter().for_each(|datagram| world.send(datagram));
        world.deliver();
        assert_eq!(received(&world), has_come);
    }

    // A frame that stays in pieces: what has come is sent a moment later.
    let mut frame = world.peers[publisher].frame(9, false);
    let rest = frame.split_off(4);
    frame.into_iter().for_each(|datagram| world.send(datagram));
    world.deliver();
    assert_eq!(received(&world), [18, 18]);
    world.run(Duration::from_millis(2));
    assert_eq!(received(&world), [22, 22]);
    rest.into_iter().for_each(|datagram| world.send(datagram));
    world.deliver();
    assert_eq!(received(&world), [27, 27]);
}

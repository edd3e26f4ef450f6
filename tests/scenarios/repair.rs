//! A NACK is answered on RTX from the ring, and only there.

use std::time::Duration;

use tableside::rtc::rtcp::{Packet, ReportBlock};

use crate::world::{Side, VIDEO_RTX_SSRC, VIDEO_SSRC, World};

#[test]
fn a_lost_packet_comes_again_on_rtx() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    for n in 0..10 {
        world.publish_frame(publisher, 9, n == 0);
        world.run(Duration::from_millis(33));
    }
    let sent: Vec<_> = world.peers[player].received_on(VIDEO_SSRC).into_iter().cloned().collect();
    let wanted = [sent[3].sequence_number, sent[40].sequence_number, sent[41].sequence_number];
    world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, wanted).unwrap());
    world.run(Duration::from_millis(20));
    let repaired = world.peers[player].received_on(VIDEO_RTX_SSRC);
    assert_eq!(repaired.len(), 3);
    for (repair, original) in repaired.iter().zip([&sent[3], &sent[40], &sent[41]]) {
        assert_eq!(repair.payload_type, 97);
        assert_eq!(repair.payload[..2], original.sequence_number.to_be_bytes(), "RFC 4588: the original number first");
        assert_eq!(repair.payload[2..], original.payload[..]);
        assert_eq!((repair.timestamp, repair.marker), (original.timestamp, original.marker));
    }
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), sent.len(), "nothing is repeated on the media SSRC");
    let report = &world.report(0).tables["roulette"];
    assert_eq!((report.retransmissions, report.retransmissions_missed), (3, 0));
}

/// As many NACKs as a shard is given before it is drained (`FEEDBACK_MESSAGES` in `fleet`), each for as much as one entry names.
#[test]
fn sixteen_nacks_at_once_are_all_answered() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    let players: Vec<usize> = (0..16).map(|_| world.add_player(0)).collect();
    world.connect_all();
    for n in 0..4 {
        world.publish_frame(publisher, 9, n == 0);
        world.run(Duration::from_millis(33));
    }
    for &player in &players {
        let sent: Vec<u16> = world.peers[player].received_on(VIDEO_SSRC).iter().map(|r| r.sequence_number).collect();
        world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, sent[3..20].iter().copied()).unwrap());
    }
    world.run(Duration::from_millis(20));
    for &player in &players {
        assert_eq!(world.peers[player].received_on(VIDEO_RTX_SSRC).len(), 17);
    }
    let report = &world.report(0).tables["roulette"];
    assert_eq!((report.retransmissions, report.retransmissions_missed), (16 * 17, 0));
}

#[test]
fn what_was_never_sent_is_not_repaired() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    world.publish_frame(publisher, 9, true);
    world.run(Duration::from_millis(33));
    let first = world.peers[player].received_on(VIDEO_SSRC)[0].sequence_number;
    world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, [first.wrapping_sub(1), first.wrapping_add(500)]).unwrap());
    world.run(Duration::from_millis(20));
    assert!(world.peers[player].received_on(VIDEO_RTX_SSRC).is_empty());
    assert_eq!(world.report(0).tables["roulette"].retransmissions_missed, 2);
}

/// A NACK of a few bytes must not become a flood.
#[test]
fn a_player_that_asks_without_end_gets_a_bounded_answer() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    for n in 0..20 {
        world.publish_frame(publisher, 9, n == 0);
        world.run(Duration::from_millis(33));
    }
    let all: Vec<u16> = world.peers[player].received_on(VIDEO_SSRC).iter().map(|r| r.sequence_number).collect();
    for _ in 0..100 {
        world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, all.iter().copied()).unwrap());
        world.run(Duration::from_millis(10));
    }
    let repairs = world.peers[player].received_on(VIDEO_RTX_SSRC).len();
    assert!((256..=520).contains(&repairs), "{repairs} repairs in a second for 18,000 requests");
}

/// The publisher's own losses are asked for, and its repairs reach the players.
#[test]
fn a_packet_lost_before_ingest_is_asked_for() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let from = world.peers[publisher].address;
    world.publish_frame(publisher, 9, true);
    world.run(Duration::from_millis(33));
    let mut n = 0;
    world.network = Box::new(move |d| {
        n += u32::from(d.from == from && d.bytes.len() > 1000);
        (d.from != from || n != 4).then_some(Duration::ZERO)
    });
    for _ in 0..5 {
        world.publish_frame(publisher, 9, false);
        world.run(Duration::from_millis(33));
    }
    world.run(Duration::from_secs(1));
    let nacks = world.peers[publisher].nacks();
    let lost = 65_500_u16.wrapping_add(9 + 3);
    assert!(nacks.contains(&lost), "{nacks:?} should name {lost}");
}

/// Plays for so many seconds, and answers each sender report on the video with one that says how much was lost, in 1/256.
fn play(world: &mut World, publisher: usize, player: usize, seconds: usize, fraction_lost: u8) {
    for _ in 0..seconds * 30 {
        world.publish_frame(publisher, 9, false);
        world.run(Duration::from_millis(33));
        let newest = world.peers[player].rtcp().filter_map(|packet| match packet {
            Packet::SenderReport { ssrc: VIDEO_SSRC, info, .. } => Some(info.ntp),
            _ => None,
        });
        let Some(ntp) = newest.last() else { continue };
        world.peers[player].reports.clear();
        let last_sr = (ntp.0 >> 16) as u32;
        let block = ReportBlock { ssrc: VIDEO_SSRC, fraction_lost, last_sr, ..ReportBlock::default() };
        world.peers[player].send_rtcp(|w| w.receiver_report(1, &[block]).unwrap());
    }
}

/// How often each of these of the newest packets comes again after one NACK.
fn repaired(world: &mut World, player: usize, back: &[usize]) -> Vec<usize> {
    let sent = world.peers[player].received_on(VIDEO_SSRC);
    let wanted: Vec<u16> = back.iter().map(|back| sent[sent.len() - back].sequence_number).collect();
    let before = world.peers[player].received_on(VIDEO_RTX_SSRC).len();
    world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, wanted.iter().copied()).unwrap());
    world.run(Duration::from_millis(5));
    let repairs = world.peers[player].received_on(VIDEO_RTX_SSRC);
    let of = |number: &u16| repairs[before..].iter().filter(|r| r.payload[..2] == number.to_be_bytes()).count();
    wanted.iter().map(of).collect()
}

/// Where a repair may well be lost as the packet was, it is sent twice: another round would cost a freeze.
#[test]
fn a_path_that_loses_gets_each_repair_twice() {
    let (mut world, publisher, player) = World::watched();
    world.publish_frame(publisher, 9, true);
    play(&mut world, publisher, player, 8, 1);
    assert_eq!(repaired(&mut world, player, &[20, 21]), [1, 1], "0.4 % are lost");
    play(&mut world, publisher, player, 8, 13);
    assert_eq!(repaired(&mut world, player, &[20, 21]), [2, 2], "5 % are lost");
    play(&mut world, publisher, player, 16, 0);
    assert_eq!(repaired(&mut world, player, &[20, 21]), [1, 1], "nothing is lost any more");
    world.run(Duration::from_millis(100));
    assert_eq!(repaired(&mut world, player, &[20, 22]), [2, 1], "it is asked for again, so a repair was lost");
    let report = &world.report(0).tables["roulette"];
    assert_eq!((report.retransmissions, report.retransmissions_withheld), (2 + 4 + 2 + 3, 0));
}

/// Sequence numbers that came again, unasked, since there were so many repairs, in the time of two frames of which the first is a keyframe.
fn once_more(world: &mut World, publisher: usize, player: usize) -> Vec<u16> {
    let before = world.peers[player].received_on(VIDEO_RTX_SSRC).len();
    for keyframe in [true, false] {
        world.publish_frame(publisher, 9, keyframe);
        world.run(Duration::from_millis(33));
    }
    let repairs = world.peers[player].received_on(VIDEO_RTX_SSRC);
    repairs[before..].iter().map(|r| u16::from_be_bytes([r.payload[0], r.payload[1]])).collect()
}

/// A receiver that has a keyframe whole shows nothing any more of what is before it: what is lost there could only be repaired too late.
#[test]
fn who_loses_packets_gets_what_a_keyframe_would_overtake_once_more() {
    let (mut world, publisher, player) = World::watched();
    world.network = Box::new(|_| Some(Duration::from_millis(20)));
    world.publish_frame(publisher, 9, true);
    play(&mut world, publisher, player, 8, 1);
    assert_eq!(once_more(&mut world, publisher, player), Vec::<u16>::new(), "0.4 % are lost");
    play(&mut world, publisher, player, 8, 13);
    let sent = world.peers[player].received_on(VIDEO_SSRC).last().unwrap().sequence_number + 9; // and a frame on its way
    let numbers = once_more(&mut world, publisher, player);
    // A round trip of 41 ms, and 150 until a packet is asked for: what was sent 33 to 165 ms ago, a burst at a time, the newest first.
    let five_frames: Vec<u16> = (0..45).map(|n| sent - 44 + n).collect();
    let bursts = [&five_frames[33..], &five_frames[21..33], &five_frames[9..21], &five_frames[..9]];
    assert_eq!(numbers, bursts.concat(), "5 % are lost");
    assert_eq!(
        once_more(&mut world, publisher, player).len(),
        18 / 4,
        "where keyframes are close, not more than a quarter"
    );
    let report = &world.report(0).tables["roulette"];
    assert_eq!((report.retransmissions, report.retransmissions_withheld), (45 + 4, 0));
    play(&mut world, publisher, player, 16, 0);
    assert_eq!(once_more(&mut world, publisher, player), Vec::<u16>::new(), "nothing is lost any more");
}

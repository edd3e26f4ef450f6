//! Our RTCP: sender reports to players, receiver reports and transport-wide feedback to publishers.

use std::time::Duration;

use tableside::media::{AbsCaptureTime, MediaKind};
use tableside::rtc::rtcp::{self, NtpTime, Packet, SenderInfo};
use tableside::rtc::sdp::Negotiated;
use tableside::shard::EndCause;

use crate::world::studio::{Label, STUDIO_EPOCH};
use crate::world::{AUDIO_SSRC, Dealer, Received, Side, Studio, VIDEO_SSRC, World, stream_mut, vp8_payload};

const FRAME: Duration = Duration::from_millis(33);

fn watched(seconds: u32) -> (World, usize, usize) {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    for n in 0..seconds * 30 {
        world.publish_frame(publisher, 3, n == 0);
        world.run(FRAME);
    }
    (world, publisher, player)
}

/// Lip sync needs both streams' timestamps on one clock (RFC 3550 §6.4.1).
#[test]
fn sender_reports_tie_timestamps_to_one_clock() {
    let (world, _, player) = watched(4);
    let peer = &world.peers[player];
    for (ssrc, rate) in [(VIDEO_SSRC, 90_000), (AUDIO_SSRC, 48_000)] {
        let infos: Vec<_> = peer
            .reports
            .iter()
            .flat_map(|r| rtcp::packets(r))
            .filter_map(|p| match p {
                Ok(Packet::SenderReport { ssrc: from, info, .. }) if from == ssrc => Some(info),
                _ => None,
            })
            .collect();
        assert!((3..=6).contains(&infos.len()), "{} reports in 4 s", infos.len());
        for pair in infos.windows(2) {
            let elapsed = pair[1].ntp.saturating_since(pair[0].ntp);
            let ticks = pair[1].rtp_timestamp.wrapping_sub(pair[0].rtp_timestamp);
            let expected = elapsed.as_secs_f64() * f64::from(rate);
            assert!((f64::from(ticks) - expected).abs() < 2.0, "{ticks} ticks in {elapsed:?}");
        }
        let last = infos.last().unwrap();
        let sent: Vec<_> = peer.received_on(ssrc);
        let before_report = sent.iter().filter(|r| r.at <= world.now).count() as u32;
        assert!(last.packets <= before_report && last.packets + 130 > before_report);
        // The report's timestamp is near what was being sent when it left.
        let behind = sent.last().unwrap().timestamp.wrapping_sub(last.rtp_timestamp) as i32;
        assert!(behind.abs() < 2 * rate, "{behind} ticks apart");
    }
}

#[test]
fn a_publisher_gets_receiver_reports_and_transport_feedback() {
    let (world, publisher, _) = watched(3);
    let packets: Vec<_> = world.peers[publisher].reports.iter().flat_map(|r| rtcp::packets(r)).collect();
    assert!(packets.iter().all(Result::is_ok));
    let blocks = |p: &Result<Packet<'_>, _>| match p {
        Ok(Packet::ReceiverReport { blocks, .. }) => blocks.clone().collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let last = packets.iter().rev().map(blocks).find(|b| !b.is_empty()).expect("a report with blocks");
    assert_eq!(last.len(), 2, "one block a stream");
    assert!(last.iter().all(|b| b.cumulative_lost == 0 && b.fraction_lost == 0));
}

/// The id of abs-capture-time, for everybody.
const CAPTURE: u8 = 12;

fn with_capture_time(negotiated: &mut Negotiated) {
    for kind in [MediaKind::Audio, MediaKind::Video] {
        stream_mut(negotiated, kind).extensions.abs_capture_time = Some(CAPTURE);
    }
}

/// What a packet says of its capture: when by the publisher's clock, and when by ours.
fn captured(packet: &Received) -> Option<[NtpTime; 2]> {
    let capture = AbsCaptureTime::decode(packet.extension(CAPTURE)?).expect("a value");
    let offset = capture.offset.expect("the edge knows it");
    Some([NtpTime(capture.ntp), NtpTime(capture.ntp.wrapping_add_signed(-offset))])
}

/// The wall clock of the world's shards at its beginning.
const OURS: Duration = Duration::from_secs(1_790_000_000);

#[track_caller]
fn assert_within_a_millisecond(what: NtpTime, expected: Duration) {
    let off = what.offset_from(NtpTime::from_unix(expected)) as f64 / (1_u64 << 32) as f64;
    assert!(off.abs() < 0.001, "off by {off} s");
}

/// A frame of one packet that names its time of capture; returns what the player is told of the offset between that clock
/// and ours, in whole seconds.
fn told_offset(world: &mut World, publisher: usize, player: usize) -> i64 {
    let mut capture = [0; AbsCaptureTime::MAX_LEN];
    let len = AbsCaptureTime { ntp: 1 << 40, offset: None }.encode(&mut capture).len();
    let payload = vp8_payload(world.peers[publisher].timestamp, 0, true, 100);
    let packets = [(&[(CAPTURE, &capture[..len])][..], &payload[..])];
    let datagrams = world.peers[publisher].described_picture(&packets);
    datagrams.into_iter().for_each(|datagram| world.send(datagram));
    world.deliver();
    world.run(FRAME);
    let received = world.peers[player].received_on(VIDEO_SSRC);
    let capture = AbsCaptureTime::decode(received.last().unwrap().extension(CAPTURE).unwrap()).unwrap();
    (capture.offset.unwrap() as f64 / (1_u64 << 32) as f64).round() as i64
}

/// A studio whose clock is wrong says nothing about the one that comes after it.
#[test]
fn each_publisher_is_measured_by_its_own_clock() {
    let mut world = World::new(1);
    let begin = world.now;
    let publisher = world.add_publisher_with(Side::Client, with_capture_time);
    world.connect(publisher);
    world.publish_frame(publisher, 1, true);
    let player = world.add_player_with(0, with_capture_time);
    world.connect(player);
    let report = |world: &mut World, publisher: usize, ahead: i64| {
        let ours = Duration::from_secs(1_790_000_000_u64.strict_add_signed(ahead)) + (world.now - begin);
        let rtp_timestamp = world.peers[publisher].timestamp;
        let info = SenderInfo { ntp: NtpTime::from_unix(ours), rtp_timestamp, packets: 1, octets: 1 };
        let ssrc = stream_mut(&mut world.peers[publisher].negotiated, MediaKind::Video).remote_ssrc.unwrap();
        world.peers[publisher].send_rtcp(|w| w.sender_report(ssrc, &info, &[]).unwrap());
        world.run(Duration::from_millis(1));
    };
    assert_eq!(told_offset(&mut world, publisher, player), 0, "nothing is known");
    report(&mut world, publisher, 1000);
    assert_eq!(told_offset(&mut world, publisher, player).abs(), 1000);

    let next = world.add_publisher_with(Side::Client, with_capture_time);
    world.connect(next);
    assert_eq!(told_offset(&mut world, next, player), 0, "nothing is known of this one");
    report(&mut world, next, -30);
    assert_eq!(told_offset(&mut world, next, player).abs(), 30);
}

/// Of a publisher that names no times of capture: they follow from its sender reports.
#[test]
fn capture_times_are_made_of_sender_reports_over_layers_and_a_restart() {
    let mut world = World::new(2);
    let begin = world.now;
    let [small, large] = [0, 1];
    let mut studio = Studio::connect(&mut world, &["q", "f"]);
    let players = [0, 1].map(|shard| world.add_player_with(shard, with_capture_time));
    world.connect_all();
    let mut seen = players.map(|_| 0);
    for restarted in [false, true] {
        studio.send(&mut world, 90);
        studio.active[large] = false;
        studio.send(&mut world, 60);
        studio.active[large] = true;
        studio.force_keyframe(large);
        studio.send(&mut world, 150);
        for (player, seen) in players.into_iter().zip(&mut seen) {
            let all = world.peers[player].received_on(VIDEO_SSRC);
            let (mut layers, mut last, mut known) = (Vec::new(), None, 0);
            for packet in &all[*seen..] {
                let label = Label::of(&packet.payload);
                let Some([theirs, ours]) = captured(packet) else {
                    let since = last.map_or(0, |last| label.frame.saturating_sub(last));
                    assert!(since <= 31, "{since} frames without a value: receivers extrapolate a second");
                    continue;
                };
                assert_within_a_millisecond(theirs, STUDIO_EPOCH + FRAME * label.frame);
                let age = (OURS + (packet.at - begin)).as_secs_f64() - ours.to_unix().as_secs_f64();
                assert!((-0.001..0.7).contains(&age), "{label:?} was captured {age} s before it came");
                assert_eq!(label.at, 0, "on the first packet of a frame");
                layers.push(label.layer);
                (last, known) = (Some(label.frame), known + 1);
            }
            layers.dedup();
            assert!(layers.ends_with(&[large, small, large]), "{layers:?}");
            assert!((9..60).contains(&known), "{known} values in ten seconds");
            *seen = all.len();
        }
        if !restarted {
            let key = world.peers[studio.peer].key.expect("connected");
            assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
            world.run(Duration::from_secs(3));
            studio = Studio::connect(&mut world, &["q", "f"]);
        }
    }
}

#[test]
fn sound_gets_a_capture_time_now_and_then() {
    let mut world = World::new(1);
    let begin = world.now;
    let publisher = world.add_publisher(Side::Client);
    let player = world.add_player_with(0, with_capture_time);
    world.connect_all();
    let ssrc = stream_mut(&mut world.peers[publisher].negotiated, MediaKind::Audio).remote_ssrc.unwrap();
    let first = u32::from(world.peers[publisher].audio_sequence);
    let mut sent = Vec::new();
    for n in 0..500_u32 {
        let sound = world.peers[publisher].sound(&n.to_be_bytes());
        world.send(sound);
        world.deliver();
        sent.push(OURS + (world.now - begin));
        if n == 20 {
            let info = SenderInfo {
                ntp: NtpTime::from_unix(STUDIO_EPOCH),
                rtp_timestamp: (first + n) * 960,
                packets: 1,
                octets: 1,
            };
            world.peers[publisher].send_rtcp(|w| w.sender_report(ssrc, &info, &[]).unwrap());
        }
        world.run(Duration::from_millis(20));
    }
    let received = world.peers[player].received_on(AUDIO_SSRC);
    let values = received.iter().filter_map(|packet| Some((packet, captured(packet)?)));
    let mut numbers = Vec::new();
    for (packet, [theirs, ours]) in values {
        let n = u32::from_be_bytes(packet.payload[..].try_into().unwrap());
        assert_within_a_millisecond(theirs, STUDIO_EPOCH + Duration::from_millis(20) * (n - 20));
        let late = ours.offset_from(NtpTime::from_unix(sent[n as usize])) as f64 / (1_u64 << 32) as f64;
        assert!((-0.021..0.021).contains(&late), "{late} s between capture and sending");
        numbers.push(n);
    }
    assert!(numbers.len() >= 9 && numbers.windows(2).all(|pair| pair[1] - pair[0] == 50), "{numbers:?}");
}

/// RFC 3550 §6.4.1: who has no notion of time says zero.
#[test]
fn of_a_sender_report_without_a_time_nothing_is_made() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    let player = world.add_player_with(0, with_capture_time);
    world.connect_all();
    let ssrc = stream_mut(&mut world.peers[publisher].negotiated, MediaKind::Video).remote_ssrc.unwrap();
    for n in 0..60 {
        world.publish_frame(publisher, 2, n == 0);
        let info =
            SenderInfo { ntp: NtpTime(0), rtp_timestamp: world.peers[publisher].timestamp, packets: 1, octets: 1 };
        world.peers[publisher].send_rtcp(|w| w.sender_report(ssrc, &info, &[]).unwrap());
        world.run(FRAME);
    }
    let received = world.peers[player].received_on(VIDEO_SSRC);
    assert!(received.len() >= 100 && received.iter().all(|packet| packet.extension(CAPTURE).is_none()));
}

#[test]
fn what_the_process_publishes_was_captured_when_it_came_by_our_clock() {
    let mut world = World::new(1);
    let (begin, table) = (world.now, world.table.clone());
    world.shards[0].add_local_publisher(begin, &table, Dealer::media());
    let mut dealer = Dealer::new(3, 900);
    let player = world.add_player_with(0, with_capture_time);
    world.connect_all();
    for n in 0..150 {
        for packet in dealer.next_frame(n % 60 == 0) {
            world.shards[0].handle_local(world.now, table.id, packet);
        }
        // Its timestamps are those of thirty frames a second.
        world.run(Duration::from_millis([33, 33, 34][n % 3]));
    }
    let values: Vec<_> =
        world.peers[player].received_on(VIDEO_SSRC).into_iter().filter_map(|p| Some((p.at, captured(p)?))).collect();
    assert!(values.len() >= 5, "{} values in five seconds", values.len());
    for (at, [theirs, ours]) in values {
        assert_eq!(theirs, ours, "it is the same clock");
        let age = (OURS + (at - begin)).as_secs_f64() - ours.to_unix().as_secs_f64();
        assert!((-0.001..0.05).contains(&age), "{age}");
    }
}

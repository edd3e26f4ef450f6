//! Our RTCP: sender reports to players, receiver reports and transport-wide feedback to publishers.

use std::time::Duration;

use tableside::media::{AbsCaptureTime, MediaKind};
use tableside::rtc::rtcp::{self, NtpTime, Packet, SenderInfo};
use tableside::rtc::sdp::Negotiated;

use crate::world::{AUDIO_SSRC, Side, VIDEO_SSRC, World, stream_mut, vp8_payload};

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
    stream_mut(negotiated, MediaKind::Video).extensions.abs_capture_time = Some(CAPTURE);
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

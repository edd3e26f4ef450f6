//! A publisher's simulcast: the best layer that really comes is forwarded, and players notice a switch as a keyframe.

use std::time::Duration;

use tableside::rtc::rtcp;
use tableside::shard::{EndCause, TableState};

use crate::world::studio::{FRAME_TICKS, Label};
use crate::world::{Datagram, Studio, VIDEO_RTX_SSRC, VIDEO_SSRC, World};

const RIDS: [&str; 3] = ["q", "h", "f"];
const SMALL: usize = 0;
const MIDDLE: usize = 1;
const LARGE: usize = 2;

/// A frame as a player got it.
#[derive(Clone, Copy, Debug)]
struct Frame {
    label: Label,
    timestamp: u32,
}

/// A studio that has sent for two seconds, and a player.
fn watched(shards: u16, player_on: usize) -> (World, Studio, usize) {
    let mut world = World::new(shards);
    let mut studio = Studio::connect(&mut world, &RIDS);
    let player = world.add_player(player_on);
    world.connect(player);
    studio.send(&mut world, 60);
    (world, studio, player)
}

/// What a player has got, checked: numbers without a gap or a repetition, whole frames of one layer each, times that only
/// rise, another layer only with a keyframe.
fn frames(world: &World, player: usize) -> Vec<Frame> {
    let mut packets = world.peers[player].received_on(VIDEO_SSRC);
    packets.sort_by_key(|packet| packet.index);
    let mut frames: Vec<Frame> = Vec::new();
    let mut expected = None;
    for packet in packets {
        let label = Label::of(&packet.payload);
        assert!(expected.is_none_or(|index| index == packet.index), "{} after {frames:?}", packet.index);
        expected = Some(packet.index + 1);
        match frames.last_mut().filter(|frame| frame.label.at + 1 < frame.label.of) {
            Some(open) => {
                let next = Label { at: open.label.at + 1, ..open.label };
                assert_eq!((label, packet.timestamp), (next, open.timestamp), "a torn frame");
                open.label = label;
            }
            None => {
                assert_eq!(label.at, 0, "a frame without its start: {label:?}");
                if let Some(before) = frames.last() {
                    let step = packet.timestamp.wrapping_sub(before.timestamp) as i32;
                    assert!(step > 0, "time went back from {before:?} to {label:?}");
                    assert!(label.keyframe || label.layer == before.label.layer, "{label:?} without its keyframe");
                }
                frames.push(Frame { label, timestamp: packet.timestamp });
            }
        }
        let ends = label.at + 1 == label.of;
        assert_eq!(packet.marker, ends);
    }
    assert!(frames.last().is_none_or(|frame| frame.label.at + 1 == frame.label.of), "the last frame is cut off");
    assert_eq!(world.peers[player].undecryptable, 0);
    frames
}

/// The layers in the order in which they were forwarded.
fn layers(frames: &[Frame]) -> Vec<usize> {
    let mut layers: Vec<usize> = frames.iter().map(|frame| frame.label.layer).collect();
    layers.dedup();
    layers
}

/// How many frames of the studio lie between two that the player got, at most.
fn longest_gap(frames: &[Frame]) -> u32 {
    frames.windows(2).map(|pair| pair[1].label.frame.saturating_sub(pair[0].label.frame)).max().unwrap_or(0)
}

fn plis(world: &World, studio: &Studio, layer: usize) -> usize {
    let wanted = Studio::ssrc(layer);
    world.peers[studio.peer]
        .rtcp()
        .filter(|packet| matches!(packet, rtcp::Packet::Pli { media, .. } if *media == wanted))
        .count()
}

#[test]
fn the_best_layer_is_forwarded() {
    for shard in [0, 1] {
        let (world, studio, player) = watched(2, shard);
        let frames = frames(&world, player);
        assert_eq!(layers(&frames).last(), Some(&LARGE), "shard {shard}");
        assert!(layers(&frames).len() <= 2, "and reached without a detour: {:?}", layers(&frames));
        assert!(longest_gap(&frames) <= 1, "no frame was left out");
        assert_eq!(plis(&world, &studio, MIDDLE), 0, "what nobody wants is not asked for");
    }
}

#[test]
fn an_upper_layer_that_vanishes_costs_less_than_half_a_second_and_comes_back() {
    for shard in [0, 1] {
        let (mut world, mut studio, player) = watched(2, shard);
        studio.active[LARGE] = false;
        studio.send(&mut world, 30);
        let down = frames(&world, player);
        assert_eq!(layers(&down).last(), Some(&MIDDLE));
        assert!(longest_gap(&down) <= 14, "{} frames without a picture", longest_gap(&down));
        assert_eq!(plis(&world, &studio, MIDDLE), 1, "asked once, answered at once");

        studio.active[LARGE] = true;
        studio.force_keyframe(LARGE);
        studio.send(&mut world, 25);
        assert_eq!(layers(&frames(&world, player)).last(), Some(&MIDDLE), "not steady yet");
        studio.send(&mut world, 60);
        let up = frames(&world, player);
        assert_eq!(layers(&up).last(), Some(&LARGE));
        assert!(longest_gap(&up[down.len()..]) <= 1, "the way up costs no frame");
        assert_eq!(world.heard.states, [TableState::Live], "nobody was told of a pause");
    }
}

/// Sound is another stream: it stays in step only if a frame of any layer has the timestamp of its capture.
#[test]
fn timestamps_tell_the_time_of_capture_over_all_switches() {
    let (mut world, mut studio, player) = watched(1, 0);
    let from = world.peers[studio.peer].address;
    // The large layer is always the last to arrive, by more than a frame.
    world.network = Box::new(move |d| {
        let large = d.from == from && d.bytes.len() > 12 && d.bytes[8..12] == Studio::ssrc(LARGE).to_be_bytes();
        Some(Duration::from_millis(if large { 40 } else { 0 }))
    });
    for _ in 0..3 {
        studio.active[LARGE] = false;
        studio.send(&mut world, 40);
        studio.active[LARGE] = true;
        studio.force_keyframe(LARGE);
        studio.send(&mut world, 300);
    }
    let frames = frames(&world, player);
    assert!(layers(&frames).len() >= 7, "{:?}", layers(&frames));
    let first = frames[0];
    let off = |frame: &Frame| {
        let due = first.timestamp.wrapping_add((frame.label.frame - first.label.frame) * FRAME_TICKS);
        frame.timestamp.wrapping_sub(due) as i32
    };
    let exact = frames.iter().filter(|frame| off(frame).abs() <= 1).count();
    assert!(exact + 20 >= frames.len(), "{} of {} frames are in time", exact, frames.len());
    // A layer that begins behind what was forwarded follows close after it, until it is ahead.
    let worst = frames.iter().map(|frame| off(frame).abs()).max().unwrap();
    assert!(worst <= 2 * FRAME_TICKS as i32, "off by {worst} ticks");
}

/// Without sender reports the arrivals have to do.
#[test]
fn without_sender_reports_time_goes_on_by_the_arrivals() {
    let mut world = World::new(1);
    let mut studio = Studio::connect(&mut world, &RIDS);
    studio.reports = false;
    let player = world.add_player(0);
    world.connect(player);
    studio.send(&mut world, 60);
    studio.active[LARGE] = false;
    studio.send(&mut world, 60);
    let frames = frames(&world, player);
    assert_eq!(layers(&frames).last(), Some(&MIDDLE));
    let (first, last) = (frames[0], frames[frames.len() - 1]);
    let due = (last.label.frame - first.label.frame) * FRAME_TICKS;
    let off = last.timestamp.wrapping_sub(first.timestamp).wrapping_sub(due) as i32;
    assert!(off.abs() <= 900, "off by {off} ticks, 10 ms are 900");
}

/// A layer whose reports are by another clock: by them the picture would freeze, or jump by the difference.
#[test]
fn sender_reports_that_contradict_the_arrivals_are_not_believed() {
    for ahead in [[0, 0, 5], [5, 5, 0]] {
        let mut world = World::new(1);
        let mut studio = Studio::connect(&mut world, &RIDS);
        studio.ahead = ahead.map(Duration::from_secs).to_vec();
        let player = world.add_player(0);
        world.connect(player);
        studio.send(&mut world, 60);
        let frames = frames(&world, player);
        assert_eq!(layers(&frames).last(), Some(&LARGE));
        let (first, last) = (frames[0], frames[frames.len() - 1]);
        let due = (last.label.frame - first.label.frame) * FRAME_TICKS;
        let off = last.timestamp.wrapping_sub(first.timestamp).wrapping_sub(due) as i32;
        assert!(off.abs() <= 900, "{ahead:?}: off by {off} ticks, 10 ms are 900");
    }
}

/// Loses the packets of one SSRC that `lost` picks by their number of arrival, from now on.
fn lose(world: &mut World, ssrc: u32, mut lost: impl FnMut(usize) -> bool + 'static) {
    let mut n = 0;
    world.network = Box::new(move |d: &Datagram| {
        if d.bytes.len() > 12 && d.bytes[0] >= 128 && d.bytes[8..12] == ssrc.to_be_bytes() {
            n += 1;
            return (!lost(n)).then_some(Duration::ZERO);
        }
        Some(Duration::ZERO)
    });
}

#[test]
fn a_keyframe_that_is_lost_in_part_is_waited_for_and_repaired() {
    let (mut world, mut studio, player) = watched(1, 0);
    studio.active[LARGE] = false;
    studio.send(&mut world, 10);
    // The next that comes of it is the keyframe that was asked for: 8 packets, of which two are lost.
    assert!(frames(&world, player).last().unwrap().label.layer == LARGE, "the switch is still to come");
    lose(&mut world, Studio::ssrc(MIDDLE), |n| n == 3 || n == 6);
    studio.send(&mut world, 30);
    let frames = frames(&world, player);
    assert_eq!(layers(&frames).last(), Some(&MIDDLE));
    assert!(longest_gap(&frames) <= 20);
}

/// The way up: the old layer still comes, and what it lost of its last frame is on its way.
#[test]
fn a_switch_waits_for_what_is_being_repaired_of_the_old_layer() {
    let mut world = World::new(1);
    let mut studio = Studio::connect(&mut world, &RIDS);
    studio.active[LARGE] = false;
    let player = world.add_player(0);
    world.connect(player);
    studio.send(&mut world, 60);
    assert_eq!(layers(&frames(&world, player)).last(), Some(&MIDDLE));
    // Of each of its frames the second packet of four is lost, and comes again after the next frame has begun.
    let middle = Studio::ssrc(MIDDLE);
    let mut n = 0;
    world.network = Box::new(move |d: &Datagram| {
        let is_middle = d.bytes.len() > 12 && d.bytes[0] >= 128 && d.bytes[8..12] == middle.to_be_bytes();
        let lost = is_middle && n % 4 == 1;
        n += usize::from(is_middle);
        (!lost).then_some(Duration::ZERO)
    });
    studio.active[LARGE] = true;
    studio.force_keyframe(LARGE);
    studio.send(&mut world, 60);
    world.network = Box::new(|_| Some(Duration::ZERO));
    studio.send(&mut world, 10);
    let frames = frames(&world, player);
    assert_eq!(layers(&frames).last(), Some(&LARGE));
    assert!(longest_gap(&frames) <= 1, "{} frames without a picture", longest_gap(&frames));
}

#[test]
fn a_keyframe_that_never_becomes_whole_is_asked_for_again() {
    let (mut world, mut studio, player) = watched(1, 0);
    studio.active = vec![false, true, false];
    studio.send(&mut world, 10);
    let middle = Studio::ssrc(MIDDLE);
    // Neither the third packet nor its repetition comes.
    let mut n = 0;
    world.network = Box::new(move |d: &Datagram| {
        let of = |ssrc: u32| d.bytes.len() > 12 && d.bytes[0] >= 128 && d.bytes[8..12] == ssrc.to_be_bytes();
        n += usize::from(of(middle));
        let lost = of(middle) && n == 3 || of(middle + 0x100);
        (!lost).then_some(Duration::ZERO)
    });
    studio.send(&mut world, 60);
    assert_eq!(layers(&frames(&world, player)).last(), Some(&MIDDLE));
    assert!(plis(&world, &studio, MIDDLE) >= 2);
}

/// A sender that stops a layer in the middle of a frame never ends it.
#[test]
fn a_frame_that_is_never_ended_is_not_waited_for_long() {
    let (mut world, mut studio, player) = watched(1, 0);
    let of = |d: &Datagram, ssrc: u32| d.bytes.len() > 12 && d.bytes[0] >= 128 && d.bytes[8..12] == ssrc.to_be_bytes();
    let large = Studio::ssrc(LARGE);
    world.network = Box::new(move |d| {
        let is_end = of(d, large) && d.bytes[1] & 0x80 != 0;
        (!is_end && !of(d, large + 0x100)).then_some(Duration::ZERO)
    });
    studio.send(&mut world, 1);
    studio.active[LARGE] = false;
    let cut = world.peers[player].received_on(VIDEO_SSRC).len();
    studio.send(&mut world, 30);
    let packets = world.peers[player].received_on(VIDEO_SSRC);
    let first = packets.get(cut).map(|packet| Label::of(&packet.payload));
    assert!(first.is_some_and(|label| (label.layer, label.at, label.keyframe) == (MIDDLE, 0, true)), "{first:?}");
    assert!(packets.len() - cut > 30, "and it goes on: {}", packets.len() - cut);
}

#[test]
fn losses_of_each_layer_are_asked_for_and_repaired_on_its_own_rtx() {
    let (mut world, mut studio, player) = watched(1, 0);
    // By now every stream is covered by a report, and a browser leaves the names out.
    studio.send(&mut world, 5);
    for layer in [LARGE, SMALL] {
        let before = frames(&world, player).len();
        lose(&mut world, Studio::ssrc(layer), |n| n == 4);
        studio.send(&mut world, 20);
        let nacked: Vec<u32> = world.peers[studio.peer]
            .rtcp()
            .filter_map(|packet| match packet {
                rtcp::Packet::Nack { media, .. } => Some(media),
                _ => None,
            })
            .collect();
        assert!(nacked.contains(&Studio::ssrc(layer)), "layer {layer}: {nacked:x?}");
        let after = frames(&world, player);
        assert_eq!((after.len() - before, longest_gap(&after)), (20, 1), "layer {layer}");
    }
    assert_eq!(world.report(0).tables["roulette"].frames_dropped_ingest_loss, 0);
}

#[test]
fn layers_are_known_by_their_ssrc_once_they_were_named() {
    let (mut world, mut studio, player) = watched(1, 0);
    let covered = |world: &World, ssrc: u32| {
        world.peers[studio.peer].rtcp().any(|packet| match packet {
            rtcp::Packet::ReceiverReport { blocks, .. } => blocks.into_iter().any(|block| block.ssrc == ssrc),
            _ => false,
        })
    };
    assert!((0..3).all(|layer| covered(&world, Studio::ssrc(layer))), "a report covers every layer");
    studio.names = false;
    studio.active[LARGE] = false;
    studio.send(&mut world, 30);
    studio.active[LARGE] = true;
    studio.force_keyframe(LARGE);
    studio.send(&mut world, 90);
    assert_eq!(layers(&frames(&world, player)).last_chunk(), Some(&[LARGE, MIDDLE, LARGE]));
}

#[test]
fn a_publisher_that_returns_begins_with_what_it_has() {
    let (mut world, studio, player) = watched(2, 1);
    let key = world.peers[studio.peer].key.unwrap();
    assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
    world.run(Duration::from_secs(2));
    let before = frames(&world, player).len();
    let mut studio = Studio::connect(&mut world, &RIDS);
    studio.active = vec![true, false, false];
    studio.send(&mut world, 30);
    studio.active = vec![true; 3];
    studio.force_keyframe(LARGE);
    studio.send(&mut world, 60);
    let packets = world.peers[player].received_on(VIDEO_SSRC);
    assert!(packets.windows(2).all(|pair| pair[1].index == pair[0].index + 1), "the numbers go on");
    let all: Vec<Label> =
        packets.iter().map(|packet| Label::of(&packet.payload)).filter(|label| label.at == 0).collect();
    let mut of_second: Vec<usize> = all[before..].iter().map(|label| label.layer).collect();
    of_second.dedup();
    assert_eq!(of_second, [SMALL, LARGE]);
}

#[test]
fn a_joiner_starts_with_the_layer_in_use() {
    let (mut world, mut studio, _) = watched(1, 0);
    studio.active[LARGE] = false;
    studio.send(&mut world, 40);
    let player = world.add_player(0);
    world.connect(player);
    studio.send(&mut world, 10);
    let frames = frames(&world, player);
    assert!(frames[0].label.keyframe && layers(&frames) == [MIDDLE], "{:?}", layers(&frames));
    assert!(frames.len() > 20, "it had the cached group of pictures: {}", frames.len());
}

#[test]
fn players_requests_go_to_the_layer_in_use() {
    let (mut world, mut studio, player) = watched(1, 0);
    let before = [SMALL, MIDDLE, LARGE].map(|layer| plis(&world, &studio, layer));
    world.peers[player].send_rtcp(|w| w.pli(1, VIDEO_SSRC).unwrap());
    studio.send(&mut world, 20);
    let after = [SMALL, MIDDLE, LARGE].map(|layer| plis(&world, &studio, layer));
    assert_eq!(after, [before[0], before[1], before[2] + 1]);
}

#[test]
fn what_a_switch_skips_is_on_the_ledger() {
    let (mut world, mut studio, player) = watched(1, 0);
    let before = world.report(0).tables["roulette"].clone();
    assert_eq!((before.layer_switches, before.frames_dropped_layer_switch), (1, 0));
    studio.active[LARGE] = false;
    studio.send(&mut world, 40);
    let skipped = u64::from(longest_gap(&frames(&world, player)) - 1);
    let report = world.report(0).tables["roulette"].clone();
    assert_eq!(report.frames_dropped_layer_switch, skipped);
    assert_eq!((report.layer_switches, report.frames_dropped_ingest_loss), (2, 0));
    assert_eq!(report.frames_forwarded, frames(&world, player).len() as u64);
}

/// An authenticated publisher that invents SSRCs takes no memory, and its own picture goes on.
#[test]
fn invented_ssrcs_are_dropped_and_a_real_change_is_followed() {
    let (mut world, mut studio, player) = watched(1, 0);
    let unexpected = tableside::shard::DropReason::UnexpectedRtp as usize;
    studio.change_ssrc(LARGE, 0x4444_0000);
    studio.send(&mut world, 60);
    let followed = frames(&world, player);
    assert_eq!(layers(&followed).last(), Some(&LARGE));
    assert_eq!(world.report(0).dropped[unexpected], 0);
    for ssrc in 1..200 {
        studio.change_ssrc(LARGE, 0x5555_0000 + ssrc);
        studio.send(&mut world, 1);
    }
    let report = world.report(0);
    let refused: u64 = report.dropped.iter().sum();
    assert!(refused > 500, "only {refused} packets were refused");
    studio.active[LARGE] = false;
    studio.send(&mut world, 60);
    let frames = frames(&world, player);
    assert_eq!(layers(&frames).last(), Some(&MIDDLE));
    assert!(world.peers[player].received_on(VIDEO_RTX_SSRC).is_empty());
}

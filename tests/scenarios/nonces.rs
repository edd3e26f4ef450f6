//! One (key, SSRC, index) is never sealed over different bytes: that would give away GCM's authentication key
//! (RFC 7714 §8.4). Loss, reordering, joins in mid-GOP, NACKs and republication, from committed seeds.

use std::collections::HashMap;
use std::time::Duration;

use tableside::media::{Codec, MediaKind};

use crate::world::layered::{Layered, Means};
use crate::world::svc::{Mode, Svc};
use crate::world::{Dice, Side, Studio, VIDEO_SSRC, World, stream_mut};

#[test]
fn no_nonce_is_used_for_two_packets() {
    for seed in 0..6 {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut world = World::new(2);
    if seed % 2 == 1 {
        // Six runs at a time: every flush is interrupted and goes on where it stopped.
        world.batch_size = Some((40_000, 6));
    }
    let mut dice = Dice::new(seed);
    let mut publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    harm_media(&mut world, seed);
    let mut players = Vec::new();
    for n in 0..150_u32 {
        if n % 20 == 5 {
            players.push(world.add_player((n as usize / 20) % 2));
        }
        if n == 90 {
            // The publisher falls silent and comes back as another, with numbers of its own.
            world.run(Duration::from_secs(2));
            publisher = world.add_publisher(Side::Client);
            world.connect(publisher);
        }
        let most = if n % 7 == 3 { 60 } else { 12 };
        world.publish_frame(publisher, 1 + dice.below(most), n % 30 == 0 || n == 90);
        ask_for_repairs(&mut world, &players, &mut dice);
        world.run(Duration::from_millis(33));
    }
    world.run(Duration::from_secs(1));
    assert_no_nonce_repeats(&world, &players, seed);
}

/// Layers come and go, keyframes and sender reports with them: each switch begins a line of numbers.
#[test]
fn no_nonce_is_used_twice_over_layer_switches() {
    for seed in 0..6 {
        let mut world = World::new(2);
        if seed % 2 == 1 {
            world.batch_size = Some((40_000, 6));
        }
        let mut dice = Dice::new(seed);
        let mut studio = Studio::connect(&mut world, &["q", "h", "f"]);
        studio.reports = seed % 3 != 0;
        harm_media(&mut world, seed);
        let mut players = Vec::new();
        for n in 0..900 {
            if n % 120 == 5 {
                players.push(world.add_player((n / 120) % 2));
            }
            if n % 45 == 44 {
                studio.active = vec![dice.below(3) > 0, dice.below(3) > 0, n / 45 % 2 == 1];
                studio.active[dice.below(2)] = true;
                studio.force_keyframe(dice.below(3));
            }
            studio.send(&mut world, 1);
            ask_for_repairs(&mut world, &players, &mut dice);
        }
        world.run(Duration::from_secs(1));
        let switches = world.report(0).tables["roulette"].layer_switches;
        assert!(switches >= 3, "seed {seed}: only {switches} switches, the scenario is broken");
        assert_no_nonce_repeats(&world, &players, seed);
    }
}

/// Players that say now that their paths carry little and now that they carry all: what each is given changes all the time, and
/// with it which packets have numbers.
#[test]
fn no_nonce_is_used_twice_where_temporal_layers_come_and_go() {
    for (seed, means) in (0..6).zip([Means::Vp8, Means::DependencyDescriptor].into_iter().cycle()) {
        let mut world = World::new(2);
        if seed % 2 == 1 {
            world.batch_size = Some((40_000, 6));
        }
        let mut dice = Dice::new(seed);
        let mut publisher = Layered::connect(&mut world, means);
        publisher.packets = [3, 2, 2];
        harm_media(&mut world, seed);
        let mut players = Vec::new();
        for n in 0..900 {
            if n % 120 == 5 {
                players.push(world.add_player_with((n / 120) % 2, |negotiated| {
                    // Who says nothing of single packets is believed what it says of its path.
                    let stream = stream_mut(negotiated, MediaKind::Video);
                    stream.feedback.transport_cc = false;
                    stream.extensions.dependency_descriptor = Some(17);
                }));
            }
            if n == 500 {
                world.run(Duration::from_secs(2));
                publisher = Layered::connect(&mut world, means);
                publisher.packets = [3, 2, 2];
            }
            publisher.send(&mut world, 1);
            for player in players.iter().filter(|_| n % 15 == 0) {
                let bits_per_second = [150_000, 420_000, 520_000, 5_000_000, 5_000_000][dice.below(5)];
                if world.peers[*player].is_connected() {
                    world.peers[*player].send_rtcp(|w| w.remb(1, bits_per_second, &[VIDEO_SSRC]).unwrap());
                }
            }
            ask_for_repairs(&mut world, &players, &mut dice);
        }
        world.run(Duration::from_secs(1));
        let left_out = world.report(0).tables["roulette"].frames_dropped_congestion;
        assert!(left_out >= 500, "seed {seed}: only {left_out} frames left out, the scenario is broken");
        assert_no_nonce_repeats(&world, &players, seed);
    }
}

/// Only media is harmed: the handshake is another test's subject.
fn harm_media(world: &mut World, seed: u64) {
    let mut network = Dice::new(seed ^ 0x55);
    world.network = Box::new(move |d| {
        let media = d.bytes[0] >= 128;
        match network.below(20) {
            0 if media => None,
            1 | 2 if media => Some(Duration::from_millis(network.below(60) as u64)),
            _ => Some(Duration::from_millis(2)),
        }
    });
}

fn ask_for_repairs(world: &mut World, players: &[usize], dice: &mut Dice) {
    for player in players {
        if dice.below(3) == 0 && world.peers[*player].is_connected() {
            let known = world.peers[*player].received_on(VIDEO_SSRC).last().map(|r| r.sequence_number);
            let Some(newest) = known else { continue };
            let lost: Vec<u16> = (0..6).map(|i| newest.wrapping_sub(i * 3)).collect();
            world.peers[*player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, lost).unwrap());
        }
    }
}

/// The end of a picture stands where a player's spatial layers end: it is in what is authenticated, and the same in each repetition.
#[test]
fn no_nonce_is_used_twice_where_spatial_layers_come_and_go() {
    let modes = [Mode::L3T3, Mode::L3T3Key, Mode::S3T3, Mode::L2T2KeyShift];
    for (seed, mode) in (0..8).zip(modes.into_iter().cycle()) {
        let codec = if seed < 4 { Codec::Vp9 } else { Codec::Av1 };
        let mut world = World::new(2);
        if seed % 2 == 1 {
            world.batch_size = Some((40_000, 6));
        }
        let mut dice = Dice::new(seed);
        let mut publisher = Svc::connect(&mut world, mode, codec);
        harm_media(&mut world, seed);
        let mut players = Vec::new();
        for n in 0..600 {
            if n % 120 == 5 {
                players.push(world.add_player_with((n / 120) % 2, |negotiated| {
                    let stream = stream_mut(negotiated, MediaKind::Video);
                    stream.codec = codec;
                    stream.feedback.transport_cc = false;
                    stream.extensions.dependency_descriptor = Some(17);
                }));
            }
            publisher.send(&mut world, 1);
            for player in players.iter().filter(|_| n % 15 == 0) {
                let bits_per_second = [330_000, 850_000, 450_000, 5_000_000][dice.below(4)];
                if world.peers[*player].is_connected() {
                    world.peers[*player].send_rtcp(|w| w.remb(1, bits_per_second, &[VIDEO_SSRC]).unwrap());
                }
            }
            ask_for_repairs(&mut world, &players, &mut dice);
        }
        world.run(Duration::from_secs(1));
        assert_no_nonce_repeats(&world, &players, seed);
    }
}

fn assert_no_nonce_repeats(world: &World, players: &[usize], seed: u64) {
    let mut packets = 0;
    for player in players {
        let mut seen: HashMap<(u32, u64), &[u8]> = HashMap::new();
        let peer = &world.peers[*player];
        assert_eq!(peer.undecryptable, 0, "seed {seed}: a repeated index is a replay to the receiver");
        for packet in &peer.received {
            packets += 1;
            let before = seen.insert((packet.ssrc, packet.index), &packet.wire);
            assert!(before.is_none_or(|b| b == packet.wire), "seed {seed}: index {} sealed twice", packet.index);
        }
    }
    assert!(packets > 1000, "seed {seed}: only {packets} packets, the scenario is broken");
}

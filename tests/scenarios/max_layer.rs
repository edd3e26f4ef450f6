//! Players with a highest layer: they get the best below it that comes, and never one above it.

use std::time::Duration;

use tableside::config::MaxLayer;
use tableside::rtc::rtcp;
use tableside::shard::{EndCause, TableReport};

use crate::world::studio::Label;
use crate::world::{AUDIO_SSRC, Side, Studio, VIDEO_SSRC, World};

const RIDS: [&str; 3] = ["q", "h", "f"];
const SMALL: usize = 0;
const MIDDLE: usize = 1;
const LARGE: usize = 2;

/// A studio that sends from small to large, and players of one shard with these highest layers.
fn watched(shards: u16, shard: usize, bounds: &[Option<u8>]) -> (World, Studio, Vec<usize>) {
    let mut world = World::new(shards);
    let mut studio = Studio::connect(&mut world, &RIDS);
    let players = bounds.iter().map(|bound| join(&mut world, shard, *bound)).collect();
    studio.send(&mut world, 60);
    (world, studio, players)
}

fn join(world: &mut World, shard: usize, bound: Option<u8>) -> usize {
    let player = world.add_player_as(shard, |peer| peer.max_layer = bound.and_then(MaxLayer::new));
    world.connect(player);
    player
}

/// The first packets of the frames that the player got, in order, from the `from`-th packet on.
fn frames(world: &World, player: usize, from: usize) -> Vec<Label> {
    let mut packets = world.peers[player].received_on(VIDEO_SSRC);
    packets.sort_by_key(|packet| packet.index);
    assert!(packets.windows(2).all(|pair| pair[1].index == pair[0].index + 1), "numbers without a gap");
    assert_eq!(world.peers[player].undecryptable, 0);
    packets[from..].iter().map(|packet| Label::of(&packet.payload)).filter(|label| label.at == 0).collect()
}

/// The layers in the order in which the player got them.
fn layers(frames: &[Label]) -> Vec<usize> {
    let mut layers: Vec<usize> = frames.iter().map(|frame| frame.layer).collect();
    layers.dedup();
    layers
}

fn packets(world: &World, player: usize) -> usize {
    world.peers[player].received_on(VIDEO_SSRC).len()
}

fn report(world: &mut World, shard: usize) -> TableReport {
    world.report(shard).tables["roulette"].clone()
}

fn plis(world: &World, studio: &Studio, layer: usize) -> usize {
    let wanted = Studio::ssrc(layer);
    let is_of = |packet: &rtcp::Packet<'_>| matches!(packet, rtcp::Packet::Pli { media, .. } if *media == wanted);
    world.peers[studio.peer].rtcp().filter(is_of).count()
}

fn come_again(world: &mut World, studio: &Studio) -> Studio {
    let key = world.peers[studio.peer].key.expect("connected");
    assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
    world.run(Duration::from_secs(2));
    Studio::connect(world, &RIDS)
}

/// All other packets of the studio take 20 ms, and so the others' keyframes come behind that of this layer.
fn comes_first(world: &mut World, studio: &Studio, layer: usize) {
    let (from, first) = (world.peers[studio.peer].address, Studio::ssrc(layer).to_be_bytes());
    world.network = Box::new(move |d| {
        let is_first = d.bytes.len() > 12 && d.bytes[8..12] == first;
        Some(Duration::from_millis(if d.from == from && !is_first { 20 } else { 0 }))
    });
}

#[test]
fn each_player_gets_the_best_layer_up_to_its_highest() {
    let bounds = [Some(0), Some(1), Some(2), Some(MaxLayer::HIGHEST), None];
    for shard in [0, 1] {
        let (mut world, mut studio, mut players) = watched(2, shard, &bounds);
        // And who joins later begins with it.
        players.extend(bounds.map(|bound| join(&mut world, shard, bound)));
        studio.send(&mut world, 30);
        for (n, player) in players.iter().enumerate() {
            let highest = [SMALL, MIDDLE, LARGE, LARGE, LARGE][n % bounds.len()];
            let got = layers(&frames(&world, *player, 0));
            assert_eq!((got.last(), got.iter().max()), (Some(&highest), Some(&highest)), "shard {shard}, {n}: {got:?}");
            assert!(n < bounds.len() || got.len() == 1, "shard {shard}, {n}: {got:?}");
        }
        // Each gets all frames of its own layer.
        let before = report(&mut world, shard);
        studio.send(&mut world, 30);
        let after = report(&mut world, shard);
        assert_eq!(after.frames_forwarded - before.frames_forwarded, 30 * players.len() as u64);
        assert_eq!([after.frames_dropped_layer_switch, after.frames_dropped_congestion], [0, 0]);
    }
}

#[test]
fn layers_that_come_and_go_take_nobody_above_its_highest() {
    for shard in [0, 1] {
        let (mut world, mut studio, players) = watched(2, shard, &[Some(1), Some(0), None]);
        let from = packets(&world, players[0]);
        studio.active[MIDDLE] = false;
        studio.send(&mut world, 60);
        studio.active[LARGE] = false;
        studio.send(&mut world, 60);
        (studio.active[MIDDLE], studio.active[LARGE]) = (true, true);
        studio.force_keyframe(MIDDLE);
        studio.force_keyframe(LARGE);
        studio.send(&mut world, 120);
        assert_eq!(layers(&frames(&world, players[0], from)), [SMALL, MIDDLE], "shard {shard}");
        assert_eq!(layers(&frames(&world, players[1], 0)), [SMALL], "shard {shard}");
        assert_eq!(layers(&frames(&world, players[2], 0)).last(), Some(&LARGE), "shard {shard}");
    }
}

#[test]
fn where_nothing_comes_that_it_may_have_a_player_has_no_picture_and_sound() {
    for shard in [0, 1] {
        let (mut world, mut studio, mut players) = watched(2, shard, &[Some(0), None]);
        studio.active[SMALL] = false;
        studio.send(&mut world, 30);
        players.push(join(&mut world, shard, Some(0)));
        studio.send(&mut world, 5);
        let sound = |world: &World, player: usize| world.peers[player].received_on(AUDIO_SSRC).len();
        let before: Vec<_> = players.iter().map(|player| (packets(&world, *player), sound(&world, *player))).collect();
        let (counted, asked) = (report(&mut world, shard), plis(&world, &studio, SMALL));
        studio.send(&mut world, 60);
        let during = report(&mut world, shard);
        for (n, player) in players.iter().enumerate() {
            assert_eq!(packets(&world, *player) == before[n].0, n != 1, "shard {shard}, {n}");
            assert_eq!(sound(&world, *player), before[n].1 + 60, "shard {shard}, {n}");
        }
        assert_eq!(before[2].0, 0, "what is cached is a picture of long ago");
        assert_eq!(plis(&world, &studio, SMALL), asked, "nobody asks for what does not come");
        assert_eq!(during.frames_forwarded - counted.frames_forwarded, 60, "shard {shard}: the other player's");
        assert_eq!(during.frames_dropped_layer_switch, counted.frames_dropped_layer_switch);
        assert_eq!(during.frames_dropped_congestion, counted.frames_dropped_congestion);

        // The keyframe that it comes back with is not whole at once: nobody begins with the one before meanwhile.
        let mut n = 0;
        world.network = Box::new(move |d| {
            let is_small = d.bytes.len() > 12 && d.bytes[8..12] == Studio::ssrc(SMALL).to_be_bytes();
            n += u32::from(is_small);
            Some(Duration::from_millis(if is_small && n == 3 { 10 } else { 0 }))
        });
        studio.active[SMALL] = true;
        studio.force_keyframe(SMALL);
        let returned = studio.frames_sent();
        studio.send(&mut world, 30);
        for (n, player) in players.iter().enumerate().filter(|(n, _)| *n != 1) {
            let got = frames(&world, *player, before[n].0);
            // Who has nothing yet may begin with the next one, for which it has asked.
            let later = got[0].frame - returned;
            assert!(got[0].keyframe && later <= u32::from(n == 2), "shard {shard}, {n}: {:?}", got[0]);
            assert_eq!((layers(&got), got.len() as u32), (vec![SMALL], 30 - later), "shard {shard}, {n}");
        }
    }
}

#[test]
fn a_publisher_that_returns_takes_nobody_above_its_highest() {
    for shard in [0, 1] {
        let (mut world, studio, players) = watched(2, shard, &[Some(1), Some(0)]);
        let mut studio = come_again(&mut world, &studio);
        comes_first(&mut world, &studio, LARGE);
        studio.send(&mut world, 90);
        for (player, highest) in players.iter().zip([MIDDLE, SMALL]) {
            let got = layers(&frames(&world, *player, 0));
            assert_eq!((got.last(), got.iter().max()), (Some(&highest), Some(&highest)), "shard {shard}: {got:?}");
        }
    }
}

/// As OBS sends them: what is least is told by the pictures, not by the offer.
#[test]
fn the_least_layer_is_the_one_of_the_smallest_picture() {
    for shard in [0, 1] {
        let mut world = World::new(2);
        let mut studio = Studio::connect(&mut world, &RIDS);
        (studio.sizes, studio.packets) = (vec![2, 1, 0], vec![6, 4, 2]);
        studio.send(&mut world, 60);
        let players = [Some(0), Some(1), None].map(|bound| join(&mut world, shard, bound));
        studio.send(&mut world, 30);
        let mut studio = come_again(&mut world, &studio);
        (studio.sizes, studio.packets) = (vec![2, 1, 0], vec![6, 4, 2]);
        // Expected to be as before while nothing has been seen but the large one.
        comes_first(&mut world, &studio, 0);
        studio.send(&mut world, 90);
        for (player, highest) in players.iter().zip([2, 1, 0]) {
            let got = layers(&frames(&world, *player, 0));
            assert_eq!((got.last(), got.iter().min()), (Some(&highest), Some(&highest)), "shard {shard}: {got:?}");
        }
    }
}

/// A camera page gives way to an encoder with the largest layer first.
#[test]
fn who_turns_out_to_be_above_its_highest_gets_no_more_of_that() {
    for shard in [0, 1] {
        let (mut world, studio, players) = watched(2, shard, &[Some(0), None]);
        let mut studio = come_again(&mut world, &studio);
        (studio.sizes, studio.packets) = (vec![2, 1, 0], vec![6, 4, 2]);
        comes_first(&mut world, &studio, 0);
        let from = packets(&world, players[0]);
        studio.send(&mut world, 60);
        let got = frames(&world, players[0], from);
        assert_eq!(layers(&got), [0, 2], "shard {shard}");
        assert_eq!(got.iter().filter(|frame| frame.layer == 0).count(), 1, "shard {shard}: the first frame of all");
        assert!(got.len() >= 55, "shard {shard}: {} of 60 frames", got.len());
        assert_eq!(report(&mut world, shard).frames_dropped_congestion, 0, "its path has carried all");
    }
}

#[test]
fn who_turns_out_to_be_above_its_highest_waits_for_a_layer_that_it_may_have() {
    for shard in [0, 1] {
        let (mut world, studio, players) = watched(2, shard, &[Some(0), None]);
        let mut studio = come_again(&mut world, &studio);
        (studio.sizes, studio.packets) = (vec![2, 1, 0], vec![6, 4, 2]);
        studio.active[2] = false;
        comes_first(&mut world, &studio, 0);
        let from = packets(&world, players[0]);
        studio.send(&mut world, 60);
        let got = frames(&world, players[0], from);
        assert_eq!((layers(&got), got.len()), (vec![0], 1), "shard {shard}: the first frame of all");
        studio.active[2] = true;
        studio.send(&mut world, 30);
        assert_eq!(layers(&frames(&world, players[0], from)), [0, 2], "shard {shard}");
        assert_eq!(report(&mut world, shard).frames_dropped_congestion, 0, "shard {shard}");
    }
}

#[test]
fn a_single_encoding_is_the_least_layer() {
    for shard in [0, 1] {
        let (mut world, studio, players) = watched(2, shard, &[Some(0), Some(1)]);
        let key = world.peers[studio.peer].key.expect("connected");
        assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
        world.run(Duration::from_secs(2));
        let before = players.iter().map(|player| packets(&world, *player)).collect::<Vec<_>>();
        let publisher = world.add_publisher(Side::Client);
        world.connect(publisher);
        for n in 0..60 {
            world.publish_frame(publisher, 2, n == 0);
            world.run(Duration::from_millis(33));
        }
        for (player, before) in players.iter().zip(before) {
            assert_eq!(packets(&world, *player) - before, 120, "shard {shard}");
        }
    }
}

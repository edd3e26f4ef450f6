//! Spatial layers of one encoding (SVC): each player gets those that its path carries and that it may have, pictures that are whole
//! and that it can decode.

use std::time::Duration;

use tableside::config::MaxLayer;
use tableside::media::{Codec, MediaKind};
use tableside::shard::TableReport;

use crate::world::svc::{Label, Mode, Shown, Svc, Viewer, refers_to_lower};
use crate::world::{Dice, Peer, VIDEO_SSRC, World, stream_mut};

/// What carries the least spatial layer, the two lower ones, and all.
const ONE_LAYER: u64 = 330_000;
const TWO_LAYERS: u64 = 850_000;
const ALL_LAYERS: u64 = 5_000_000;

/// What carries two spatial layers at half the frame rate.
const HALF_OF_TWO: u64 = 450_000;

/// The player's dependency descriptors.
const PLAYED: u8 = 17;

const ALL_MODES: [(Mode, Codec); 9] = [
    (Mode::L3T3, Codec::Vp9),
    (Mode::L3T3, Codec::Av1),
    (Mode::L3T3Key, Codec::Vp9),
    (Mode::L3T3Key, Codec::Av1),
    (Mode::S2T1, Codec::Av1),
    (Mode::S3T3, Codec::Vp9),
    (Mode::S3T3, Codec::Av1),
    (Mode::L2T2KeyShift, Codec::Vp9),
    (Mode::L2T2KeyShift, Codec::Av1),
];

fn join(world: &mut World, shard: usize, codec: Codec, max_layer: Option<u8>) -> usize {
    let player = world.add_player_as(shard, |peer: &mut Peer| {
        peer.max_layer = max_layer.and_then(MaxLayer::new);
        let stream = stream_mut(&mut peer.negotiated, MediaKind::Video);
        stream.codec = codec;
        stream.extensions.dependency_descriptor = (codec == Codec::Av1).then_some(PLAYED);
        // Who says nothing of single packets is believed what it says of its path.
        stream.feedback.transport_cc = false;
    });
    world.connect(player);
    player
}

/// A table of one encoding with several spatial layers, and a player that says what it believes that its path carries.
struct Table {
    world: World,
    publisher: Svc,
    player: usize,
    shard: usize,
    viewer: Viewer,
}

impl Table {
    fn new(mode: Mode, codec: Codec, shard: usize) -> Self {
        let mut world = World::new(2);
        let mut publisher = Svc::connect(&mut world, mode, codec);
        publisher.send(&mut world, 1);
        let player = join(&mut world, shard, codec, None);
        let mut table = Self { world, publisher, player, shard, viewer: Viewer::default() };
        // Until what the layers take is known.
        table.send(90);
        table
    }

    fn send(&mut self, pictures: usize) {
        self.publisher.send(&mut self.world, pictures);
        self.viewer.take(&self.world, self.player);
    }

    fn says(&mut self, bits_per_second: u64) {
        self.world.peers[self.player].send_rtcp(|w| w.remb(1, bits_per_second, &[VIDEO_SSRC]).expect("room"));
    }

    /// Goes on for so long, and tells of the path now and then.
    fn go_on(&mut self, bits_per_second: u64, pictures: usize) {
        for _ in 0..pictures / 15 {
            self.says(bits_per_second);
            self.send(15);
        }
    }

    fn plis(&self) -> usize {
        self.world.peers[self.publisher.peer].plis()
    }

    fn report(&mut self) -> TableReport {
        self.world.report(self.shard).tables["roulette"].clone()
    }

    /// The last so many pictures that the player has.
    fn last(&self, count: usize) -> Vec<Shown> {
        let pictures = self.viewer.pictures();
        pictures[pictures.len() - count..].to_vec()
    }

    fn ask_for_repairs(&mut self) {
        let missing: Vec<u16> = self.viewer.missing().iter().map(|number| *number as u16).collect();
        if !missing.is_empty() {
            self.world.peers[self.player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, missing).expect("room"));
        }
    }
}

#[test]
fn a_player_gets_the_spatial_layers_that_its_path_carries_and_all_again_from_a_key_picture_on() {
    for (n, (mode, codec)) in ALL_MODES.into_iter().enumerate() {
        let mut table = Table::new(mode, codec, n % 2);
        let top = mode.spatial_layers() - 1;
        assert!(table.last(80).iter().all(|shown| shown.spatial == top), "{mode:?}, {codec}: all at first");

        table.says(ONE_LAYER);
        table.send(45);
        let lower = table.last(40);
        assert!(lower.iter().all(|shown| shown.spatial == 0), "{mode:?}, {codec}: {lower:?}");
        assert!(
            lower.windows(2).all(|pair| pair[1].picture == pair[0].picture + 1),
            "{mode:?}, {codec}: every picture"
        );
        assert_eq!(table.plis(), 0, "{mode:?}, {codec}: there is nothing to wait for");
        // They were given, though not all of each.
        let report = table.report();
        assert_eq!((report.frames_dropped_congestion, report.frames_dropped_layer_switch), (0, 0), "{mode:?}, {codec}");
        assert!(report.frames_forwarded + 1 >= u64::from(table.publisher.pictures_sent()), "{report:?}");

        if top == 2 {
            table.go_on(TWO_LAYERS, 300);
            assert!(table.last(20).iter().all(|shown| shown.spatial == 1), "{mode:?}, {codec}: {:?}", table.last(20));
        }
        table.go_on(ALL_LAYERS, 450);
        let upper = table.last(40);
        assert!(upper.iter().all(|shown| shown.spatial == top), "{mode:?}, {codec}: {upper:?}");
        assert!(
            upper.windows(2).all(|pair| pair[1].picture == pair[0].picture + 1),
            "{mode:?}, {codec}: every picture"
        );
        let pictures = table.viewer.pictures();
        let rises: Vec<&[Shown]> = pictures.windows(2).filter(|pair| pair[1].spatial > pair[0].spatial).collect();
        assert!(rises.iter().all(|pair| pair[1].is_key), "{mode:?}, {codec}: {rises:?}");
        let plis = table.plis();
        assert_eq!(rises.len(), usize::from(top), "{mode:?}, {codec}: {rises:?}");
        // Who cannot be probed tries what its path may not carry.
        assert!((rises.len()..=rises.len() + 1).contains(&plis), "{mode:?}, {codec}: {plis} for {rises:?}");
        assert_eq!(table.world.peers[table.player].undecryptable, 0);
    }
}

/// Chromium shows a frame of an upper layer that does not refer to the one below it while that is still being repaired, and then nothing
/// any more for three seconds.
#[test]
fn a_frame_of_an_upper_layer_refers_to_the_one_below_whatever_its_encoder_does_and_what_is_lost_before() {
    for (n, (mode, codec)) in ALL_MODES.into_iter().enumerate() {
        let mut table = Table::new(mode, codec, n % 2);
        let mut losses = Dice::new(n as u64);
        for _ in 0..100 {
            for (at, datagram) in table.publisher.picture(&mut table.world).into_iter().enumerate() {
                // The lowest layer's packet, or one of the next.
                if at > 2 || losses.below(6) > 0 {
                    table.world.send(datagram);
                }
            }
            table.world.deliver();
            table.world.run(crate::world::svc::PICTURE);
        }
        let video = table.world.peers[table.player].received_on(VIDEO_SSRC);
        let of = |spatial: fn(u8) -> bool| {
            // In a key picture of a simulcast in one stream each layer has a structure of its own, and stays as it is.
            let counts = |label: Label| spatial(label.spatial) && !(label.is_key && codec == Codec::Av1);
            let counted = video.iter().filter(|packet| Label::of(&packet.payload).is_some_and(counts));
            counted.filter_map(|packet| refers_to_lower(packet, codec, PLAYED)).collect::<Vec<_>>()
        };
        let (lowest, upper) = (of(|spatial| spatial == 0), of(|spatial| spatial > 0));
        assert!(lowest.len() > 100 && lowest.iter().all(|refers| !refers), "{mode:?}, {codec}");
        let untied = upper.iter().filter(|refers| !**refers).count();
        assert!(upper.len() > 150 && untied == 0, "{mode:?}, {codec}: {untied} of {}", upper.len());
    }
}

#[test]
fn temporal_layers_are_given_up_before_a_spatial_one_where_each_picture_has_one() {
    for codec in [Codec::Vp9, Codec::Av1] {
        let mut table = Table::new(Mode::L3T3, codec, 0);
        table.says(1_000_000);
        table.send(45);
        assert!(table.last(20).iter().all(|shown| shown.spatial == 2 && shown.temporal < 2), "{:?}", table.last(20));
        table.says(HALF_OF_TWO);
        table.send(45);
        assert!(table.last(20).iter().all(|shown| shown.spatial == 1 && shown.temporal < 2), "{:?}", table.last(20));
        table.go_on(ALL_LAYERS, 450);
        assert!(table.last(40).iter().all(|shown| shown.spatial == 2), "{codec}: {:?}", table.last(40));
        let report = table.report();
        let left_out = u64::from(table.publisher.pictures_sent()) - table.viewer.pictures().len() as u64;
        assert!(left_out.abs_diff(report.frames_dropped_congestion) <= 2, "{left_out}: {report:?}");
    }
}

/// Packets of the publisher's that come late, up to two pictures after their own, while layers come and go.
#[test]
fn what_comes_late_tears_no_picture_and_leaves_no_number_open() {
    for (n, (mode, codec)) in ALL_MODES.into_iter().enumerate() {
        let (mut table, mut dice) = (Table::new(mode, codec, n % 2), Dice::new(n as u64));
        let (from, mut delays) = (table.world.peers[table.publisher.peer].address, Dice::new(100 + n as u64));
        table.world.network = Box::new(move |d| {
            let is_late = d.from == from && d.bytes.len() > 800 && delays.below(9) == 0;
            Some(if is_late { Duration::from_millis(10 + delays.below(60) as u64) } else { Duration::ZERO })
        });
        for _ in 0..4 {
            table.go_on([ONE_LAYER, HALF_OF_TWO][dice.below(2)], 60);
            table.go_on(ALL_LAYERS, 450);
        }
        table.world.network = Box::new(|_| Some(Duration::ZERO));
        table.send(5);
        let (pictures, got) = (table.viewer.pictures(), &table.viewer.got);
        assert!(got.values().filter(|had| had.label.is_none()).count() >= 10, "{mode:?}, {codec}: nothing was filled");
        let switches = pictures.windows(2).filter(|pair| pair[1].spatial != pair[0].spatial).count();
        assert!(switches >= 5, "{mode:?}, {codec}: {switches} switches of {} pictures", pictures.len());
        assert_eq!(table.world.peers[table.player].undecryptable, 0);
    }
}

#[test]
fn what_is_repaired_ends_pictures_where_they_ended() {
    for (mode, codec) in ALL_MODES {
        let mut table = Table::new(mode, codec, 0);
        let path = if mode.spatial_layers() == 3 { TWO_LAYERS } else { ONE_LAYER };
        table.says(path);
        table.send(30);
        let (to, mut losses) = (table.world.peers[table.player].address, Dice::new(7));
        table.world.network = Box::new(move |d| {
            let is_lost = d.to == to && d.bytes.len() > 800 && losses.below(8) == 0;
            Some(Duration::ZERO).filter(|_| !is_lost)
        });
        for _ in 0..40 {
            table.send(5);
            table.ask_for_repairs();
        }
        table.world.network = Box::new(|_| Some(Duration::ZERO));
        for _ in 0..8 {
            table.ask_for_repairs();
            table.send(5);
        }
        assert!(table.viewer.repaired >= 20, "{mode:?}, {codec}: {} repairs", table.viewer.repaired);
        let shown = table.last(200);
        assert!(shown.iter().all(|shown| shown.spatial + 2 == mode.spatial_layers()), "{mode:?}, {codec}: {shown:?}");
        assert!(
            shown.windows(2).all(|pair| pair[1].picture == pair[0].picture + 1),
            "{mode:?}, {codec}: every picture"
        );
    }
}

#[test]
fn a_highest_layer_counts_the_spatial_layers_of_the_only_encoding() {
    for (shard, codec, mode) in
        [(0, Codec::Vp9, Mode::L3T3Key), (1, Codec::Av1, Mode::L3T3), (1, Codec::Vp9, Mode::S3T3)]
    {
        let bounds = [Some(0), Some(1), Some(2), Some(MaxLayer::HIGHEST), None];
        let mut world = World::new(2);
        let mut publisher = Svc::connect(&mut world, mode, codec);
        publisher.send(&mut world, 1);
        let mut players: Vec<usize> = bounds.iter().map(|bound| join(&mut world, shard, codec, *bound)).collect();
        publisher.send(&mut world, 60);
        // And who joins when it is known what there is.
        players.extend(bounds.iter().map(|bound| join(&mut world, shard, codec, *bound)));
        publisher.send(&mut world, 30);
        let before = world.report(shard).tables["roulette"].clone();
        publisher.send(&mut world, 30);
        for (n, player) in players.iter().enumerate() {
            let mut viewer = Viewer::default();
            viewer.take(&world, *player);
            let (pictures, highest) = (viewer.pictures(), [0, 1, 2, 2, 2][n % bounds.len()]);
            assert!(pictures.iter().all(|shown| shown.spatial == highest), "{codec}, {n}: {pictures:?}");
            assert!(pictures.len() >= 60, "{codec}, {n}: {} pictures", pictures.len());
        }
        let after = world.report(shard).tables["roulette"].clone();
        assert_eq!(after.frames_forwarded - before.frames_forwarded, 30 * players.len() as u64);
        assert_eq!([after.frames_dropped_layer_switch, after.frames_dropped_congestion], [0, 0]);
    }
}

/// Also a publisher that comes later than its players, and again.
#[test]
fn a_highest_layer_holds_for_every_publisher() {
    let mut world = World::new(1);
    let mut publisher = Svc::connect(&mut world, Mode::L3T3, Codec::Vp9);
    publisher.send(&mut world, 30);
    let player = join(&mut world, 0, Codec::Vp9, Some(1));
    publisher.send(&mut world, 30);
    world.run(Duration::from_secs(2));
    let mut again = Svc::connect(&mut world, Mode::L3T3Key, Codec::Vp9);
    let from = world.peers[player].received_on(VIDEO_SSRC).len();
    again.send(&mut world, 30);
    let received = world.peers[player].received_on(VIDEO_SSRC);
    let labels: Vec<u8> = received.iter().filter_map(|p| Label::of(&p.payload)).map(|l| l.spatial).collect();
    assert!(from > 0 && labels[from..].len() == 30 * 3 && labels.iter().all(|spatial| *spatial < 2), "{labels:?}");
}

/// A picture that was given in part and is lost counts as lost, as one that was given whole does.
#[test]
fn a_picture_that_was_given_in_part_and_is_lost_is_lost() {
    let mut table = Table::new(Mode::L3T3, Codec::Vp9, 0);
    table.says(ONE_LAYER);
    table.send(30);
    let before = table.report();
    for (n, datagram) in table.publisher.picture(&mut table.world).into_iter().enumerate() {
        // A packet of the highest spatial layer, which is left out.
        if n != 4 {
            table.world.send(datagram);
        }
    }
    table.world.deliver();
    table.world.run(crate::world::svc::PICTURE);
    table.send(60);
    let after = table.report();
    assert_eq!(after.frames_lost_before_ingest - before.frames_lost_before_ingest, 1);
    assert_eq!(after.frames_dropped_ingest_loss - before.frames_dropped_ingest_loss, 1);
    assert_eq!(after.frames_dropped_congestion, 0);
    let forwarded = after.frames_forwarded - before.frames_forwarded;
    assert!(forwarded.abs_diff(60) <= 1, "{forwarded} of 61 pictures");
}

//! Packets of upper spatial layers, which libwebrtc asks for once: it gets them all the same, or a keyframe.

use std::collections::BTreeMap;
use std::time::Duration;

use tableside::media::{Codec, MediaKind};
use tableside::rtc::rtcp::TwccRecorder;

use crate::world::svc::{Mode, PICTURE, Svc, Viewer};
use crate::world::{Dice, VIDEO_RTX_SSRC, VIDEO_SSRC, World, stream_mut};

/// How often the player reports what arrived, and asks for what is missing of the lowest layer: as Chromium does.
const FEEDBACK: Duration = Duration::from_millis(250);
const NACKS: Duration = Duration::from_millis(100);

/// Packets of a picture, by its spatial layers.
const OF_PICTURE: u64 = 1 + 2 + 4;

struct Table {
    world: World,
    publisher: Svc,
    player: usize,
    viewer: Viewer,
    feedback: TwccRecorder,
    taken: usize,
    asked: BTreeMap<u64, Duration>,
    elapsed: Duration,
}

impl Table {
    fn new(shard: usize, codec: Codec) -> Self {
        let mut world = World::new(2);
        let mut publisher = Svc::connect(&mut world, Mode::L3T3Key, codec);
        publisher.send(&mut world, 1);
        let player = world.add_player_as(shard, |peer| {
            let stream = stream_mut(&mut peer.negotiated, MediaKind::Video);
            stream.codec = codec;
            stream.extensions.dependency_descriptor = (codec == Codec::Av1).then_some(17);
        });
        world.connect(player);
        let mut table = Self {
            world,
            publisher,
            player,
            viewer: Viewer::default(),
            feedback: TwccRecorder::new(FEEDBACK),
            taken: 0,
            asked: BTreeMap::new(),
            elapsed: Duration::ZERO,
        };
        table.run(90);
        table
    }

    fn run(&mut self, pictures: usize) {
        for _ in 0..pictures {
            self.publisher.send(&mut self.world, 1);
            self.elapsed += PICTURE;
            self.listen();
        }
    }

    fn listen(&mut self) {
        self.viewer.take(&self.world, self.player);
        let peer = &mut self.world.peers[self.player];
        for packet in &peer.received[self.taken..] {
            packet.transport_number.into_iter().for_each(|number| self.feedback.handle_packet(packet.at, number));
        }
        self.taken = peer.received.len();
        if self.feedback.is_due(self.world.now) {
            let feedback = &mut self.feedback;
            peer.send_rtcp(|writer| while feedback.write_feedback(1, VIDEO_SSRC, writer) {});
        }
        let (elapsed, got) = (self.elapsed, &self.viewer.got);
        // A packet of the lowest layer follows the end of a picture. What follows another that is missing may be either.
        let is_upper = |number: &u64| got.get(&(number - 1)).is_some_and(|before| !before.marker);
        let is_due = |number: &u64| match self.asked.get(number) {
            Some(at) => !is_upper(number) && elapsed >= *at + NACKS,
            None => true,
        };
        let missing: Vec<u64> = self.viewer.missing().into_iter().filter(is_due).collect();
        self.asked.extend(missing.iter().map(|number| (*number, elapsed)));
        if !missing.is_empty() {
            let numbers: Vec<u16> = missing.iter().map(|number| *number as u16).collect();
            peer.send_rtcp(|writer| writer.nack(1, VIDEO_SSRC, numbers).expect("room"));
        }
    }

    /// The number that the first packet of the second spatial layer will have in the next picture but some that is of the base layer
    /// in time.
    fn coming(&self) -> u64 {
        let is_one = |had: &crate::world::svc::Had| {
            had.label.is_some_and(|label| label.temporal == 0 && label.spatial == 1 && !had.marker)
        };
        let mut found = self.viewer.got.iter().rev().filter(|(_, had)| is_one(had)).map(|(number, _)| *number);
        let (second, first) = (found.next().expect("some"), found.next().expect("two packets"));
        assert_eq!(second, first + 1);
        first + 8 * OF_PICTURE
    }

    /// The network loses this packet, and so many copies of it.
    fn lose(&mut self, number: u64, mut copies: usize) {
        let to = self.world.peers[self.player].address;
        let mut is_there = true;
        self.world.network = Box::new(move |datagram| {
            let bytes = &datagram.bytes;
            let is = |ssrc: u32| datagram.to == to && bytes.len() > 800 && bytes[8..12] == ssrc.to_be_bytes();
            if is(VIDEO_SSRC) && bytes[2..4] == (number as u16).to_be_bytes() && std::mem::take(&mut is_there) {
                return None;
            }
            if is(VIDEO_RTX_SSRC) && copies > 0 {
                copies -= 1;
                return None;
            }
            Some(Duration::ZERO)
        });
    }

    fn plis(&self) -> usize {
        self.world.peers[self.publisher.peer].plis()
    }
}

#[test]
fn a_repair_that_is_lost_as_well_is_sent_again_unasked() {
    for (shard, codec, copies) in [(0, Codec::Vp9, 1), (1, Codec::Av1, 1), (0, Codec::Av1, 3), (1, Codec::Vp9, 3)] {
        let mut table = Table::new(shard, codec);
        let number = table.coming();
        table.lose(number, copies);
        table.run(20);
        let asked = table.asked.get(&number).copied().expect("it was lost and asked for");
        table.run((Duration::from_secs(1).as_millis() / PICTURE.as_millis()) as usize);
        assert!(table.viewer.got.contains_key(&number), "{codec}, {copies} copies lost");
        assert_eq!((table.asked.len(), table.asked[&number]), (1, asked), "asked for once");
        assert_eq!(table.plis(), 0);
        let pictures = table.viewer.pictures();
        assert!(pictures.windows(2).all(|pair| pair[1].picture == pair[0].picture + 1), "{codec}: every picture");
    }
}

#[test]
fn a_keyframe_is_asked_for_where_no_repair_comes_through() {
    let mut table = Table::new(1, Codec::Vp9);
    let number = table.coming();
    table.lose(number, usize::MAX);
    table.run(20);
    assert!(table.asked.contains_key(&number) && table.plis() == 0);
    table.run(20);
    assert_eq!(table.plis(), 1, "within a second and a third, where Chromium takes three");
    table.run(60);
    assert_eq!(table.plis(), 1, "who has had a keyframe is owed nothing");
}

/// A path that does not carry all layers any more loses some of each picture before the player has fewer.
#[test]
fn repairs_for_which_there_was_no_room_are_sent_when_there_is() {
    let (mut asked, mut withheld, mut plis) = (0, 0, 0);
    for seed in 0..24 {
        let (shard, codec) = (seed as usize % 2, if seed % 3 == 0 { Codec::Av1 } else { Codec::Vp9 });
        let (mut table, mut dice) = (Table::new(shard, codec), Dice::new(seed));
        let (rate, queue) = (400 + 10 * dice.below(16), 10 + dice.below(8));
        table.world.link(table.player, shard, "delay=20ms", "delay=20ms rate=4mbit/120kB", seed);
        table.run(30 + dice.below(30));
        let narrow = format!("delay=20ms rate={rate}kbit/{queue}kB");
        table.world.link(table.player, shard, "delay=20ms", &narrow, seed);
        table.run(150);
        let got = &table.viewer.got;
        // Behind a packet of a picture on which others rest, and not at its end.
        let is_needed = |number: &u64| {
            let before = got.range(..number).next_back().and_then(|(_, had)| Some((had.label?, had.marker)));
            before.is_some_and(|(label, marker)| !marker && label.temporal == 0)
        };
        let old = got.keys().next_back().expect("some") - 40;
        let missing = table.viewer.missing().into_iter().filter(|number| *number < old && is_needed(number)).count();
        // A keyframe helps as well.
        assert!(missing == 0 || table.plis() > 0, "{missing} after {rate} kbit/s, {queue} kB, {codec}");
        asked += table.asked.len();
        plis += table.plis();
        withheld += table.world.report(shard).tables["roulette"].retransmissions_withheld;
    }
    assert!(asked > 24 * 5 && withheld > 24, "{asked} packets were asked for, {withheld} repairs withheld");
    assert!(plis <= 4, "{plis} keyframes for 24 players");
}

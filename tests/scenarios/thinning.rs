//! Players whose networks carry less than all temporal layers: each gets those that its own carries, and no torn frame.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tableside::media::{Codec, MediaKind};
use tableside::rtc::rtcp::{ReportBlock, TwccRecorder};
use tableside::shard::TableReport;

use crate::world::layered::{FRAME, Layer, Layered, Means};
use crate::world::reporter::{Reporter, Totals};
use crate::world::{AUDIO_SSRC, Received, VIDEO_RTX_SSRC, VIDEO_SSRC, World, offer_data, stream_mut};

/// How often the player reports what arrived: as Chromium does with little bandwidth for feedback.
const FEEDBACK: Duration = Duration::from_millis(250);

/// How often it asks for what is missing, and how many times: as Chromium does.
const NACKS: Duration = Duration::from_millis(100);
const MOST_NACKS: usize = 10;

/// How often a page says how it plays (`docs/qos.md`).
const STATISTICS: Duration = Duration::from_secs(2);

const WIDE: &str = "delay=20ms rate=4mbit/120kB";

/// Sixty percent of what is published, and what the headers and the sound take.
const NARROW: &str = "delay=20ms rate=1700kbit/50kB";

/// What carries the base layer alone.
const NARROWEST: &str = "delay=20ms rate=1250kbit/40kB";

/// A table of one encoding with three temporal layers, and a player that reports, and asks for what it misses.
struct Table {
    world: World,
    publisher: Layered,
    player: usize,
    shard: usize,
    feedback: TwccRecorder,
    taken: usize,
    /// By the number on the media stream: what came there, or on RTX for it.
    got: BTreeMap<u64, Option<Layer>>,
    /// When it did.
    came: BTreeMap<u64, Duration>,
    asked: BTreeMap<u64, (Duration, usize)>,
    /// When it reports what it lost of all that was sent, and how much that was before.
    reported: Duration,
    counted: (u64, u64),
    /// How many numbers were asked for, and came on RTX.
    nacks: usize,
    repaired: usize,
}

impl Table {
    fn new(means: Means, shard: usize, path: &str) -> Self {
        Self::with_player(means, matches!(means, Means::DependencyDescriptor | Means::Mixed), shard, path)
    }

    /// With a player that has negotiated the dependency descriptor or not, whatever the publisher sends.
    fn with_player(means: Means, is_described: bool, shard: usize, path: &str) -> Self {
        let mut world = World::new(2);
        let mut publisher = Layered::connect(&mut world, means);
        let player = world.add_player_with(shard, |negotiated| {
            offer_data(negotiated);
            let stream = stream_mut(negotiated, MediaKind::Video);
            stream.extensions.dependency_descriptor = is_described.then_some(17);
            stream.codec = if means == Means::Vp9 { Codec::Vp9 } else { Codec::Vp8 };
        });
        world.link(player, shard, "delay=20ms", path, 1);
        world.connect(player);
        publisher.send(&mut world, 1);
        Self {
            world,
            publisher,
            player,
            shard,
            feedback: TwccRecorder::new(FEEDBACK),
            taken: 0,
            got: BTreeMap::new(),
            came: BTreeMap::new(),
            asked: BTreeMap::new(),
            reported: Duration::ZERO,
            counted: (0, 0),
            nacks: 0,
            repaired: 0,
        }
    }

    fn path(&mut self, down: &str) {
        self.world.link(self.player, self.shard, "delay=20ms", down, 1);
    }

    fn elapsed(&self) -> Duration {
        FRAME * self.publisher.frames_sent()
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / FRAME.as_millis() {
            self.publisher.send(&mut self.world, 1);
            self.listen();
        }
    }

    /// Runs for a number of [`STATISTICS`], after each of which the page says what it has.
    fn run_reporting(&mut self, reporter: &mut Reporter, times: usize) {
        for _ in 0..times {
            self.run(STATISTICS);
            let frames = self.frames().len();
            let totals = Totals { frames_received: frames, frames_decoded: frames, frames_dropped: 0 };
            reporter.report(&mut self.world, totals);
        }
    }

    /// What the player's shard has counted, and how many frames the player has whole.
    fn counts(&mut self) -> (TableReport, u64) {
        let report = self.world.report(self.shard).tables["roulette"].clone();
        (report, self.frames().len() as u64)
    }

    /// Runs until so many of the temporal layers have come lately, and no more; how long that took.
    fn until(&mut self, layers: usize, limit: Duration) -> Duration {
        let begun = self.elapsed();
        while self.layers_since(self.elapsed().saturating_sub(8 * FRAME)).len() != layers {
            assert!(self.elapsed() - begun < limit, "{:?} after {limit:?}", self.frames_since(begun));
            self.run(FRAME);
        }
        self.elapsed() - begun
    }

    fn listen(&mut self) {
        let (now, elapsed) = (self.world.now, self.elapsed());
        let peer = &self.world.peers[self.player];
        for packet in &peer.received[self.taken..] {
            if let Some(number) = packet.transport_number {
                self.feedback.handle_packet(packet.at, number);
            }
            match packet.ssrc {
                VIDEO_SSRC => {
                    self.got.insert(packet.index, Layer::of(&packet.payload));
                    self.came.entry(packet.index).or_insert(elapsed);
                }
                VIDEO_RTX_SSRC => {
                    let original = u16::from_be_bytes([packet.payload[0], packet.payload[1]]);
                    let newest = self.got.keys().next_back().copied().unwrap_or(0);
                    let number = newest.wrapping_add_signed(i64::from(original.wrapping_sub(newest as u16) as i16));
                    let layer = Layer::of(&packet.payload[2..]);
                    let before = self.got.insert(number, layer);
                    assert!(before.is_none_or(|before| before == layer), "{number} was {before:?}, now {layer:?}");
                    self.came.entry(number).or_insert(elapsed);
                    self.repaired += usize::from(before.is_none());
                }
                _ => {}
            }
        }
        self.taken = peer.received.len();
        if self.feedback.is_due(now) {
            let feedback = &mut self.feedback;
            self.world.peers[self.player].send_rtcp(|writer| while feedback.write_feedback(1, VIDEO_SSRC, writer) {});
        }
        if elapsed >= self.reported + SECOND / 2 {
            self.reported = elapsed;
            self.report();
        }
        let lost: Vec<u64> = self
            .missing(3000)
            .into_iter()
            .filter(|number| {
                let asked = self.asked.get(number);
                asked.is_none_or(|(at, times)| elapsed >= *at + NACKS && *times < MOST_NACKS)
            })
            .take(50)
            .collect();
        if !lost.is_empty() {
            self.nacks += lost.len();
            for number in &lost {
                let asked = self.asked.entry(*number).or_default();
                *asked = (elapsed, asked.1 + 1);
            }
            let lost: Vec<u16> = lost.iter().map(|number| *number as u16).collect();
            self.world.peers[self.player].send_rtcp(|writer| writer.nack(1, VIDEO_SSRC, lost).expect("room"));
        }
    }

    /// RFC 3550 §6.4.1, without a round trip.
    fn report(&mut self) {
        let peer = &self.world.peers[self.player];
        let received = peer.received_on(VIDEO_SSRC);
        let Some(highest) = received.iter().map(|packet| packet.index).max() else { return };
        let (expected, count) = (highest - self.counted.0, received.len() as u64 - self.counted.1);
        self.counted = (highest, received.len() as u64);
        let lost = expected.saturating_sub(count) * 256 / expected.max(1);
        let fraction_lost = lost.min(255) as u8;
        let block = ReportBlock { ssrc: VIDEO_SSRC, fraction_lost, ..ReportBlock::default() };
        self.world.peers[self.player].send_rtcp(|writer| writer.receiver_report(1, &[block]).expect("room"));
    }

    /// Of the last so many numbers, those that have not come.
    fn missing(&self, of: u64) -> Vec<u64> {
        let (Some(first), Some(last)) = (self.got.keys().next(), self.got.keys().next_back()) else {
            return Vec::new();
        };
        (last.saturating_sub(of).max(*first)..*last).filter(|number| !self.got.contains_key(number)).collect()
    }

    /// The frames that came whole, in the order of their numbers. Of the others a number is missing: the network lost a packet.
    fn frames(&self) -> Vec<Layer> {
        let mut frames: Vec<Layer> = Vec::new();
        let mut open: Option<(u64, Layer)> = None;
        for (number, layer) in self.got.iter().filter_map(|(number, layer)| Some((*number, (*layer)?))) {
            let before =
                open.filter(|(last, _)| (last + 1..number).all(|between| self.got.get(&between) == Some(&None)));
            match before.filter(|(_, before)| before.at + 1 < before.of) {
                Some((_, before)) => assert_eq!(layer, Layer { at: before.at + 1, ..before }, "a torn frame"),
                None if before.is_some() => assert_eq!(layer.at, 0, "a frame without its start: {layer:?}"),
                // Behind a loss; whether the rest of the frame came does not matter.
                None => {}
            }
            if layer.at == 0 {
                frames.push(layer);
            } else if frames.last().is_some_and(|frame| frame.frame == layer.frame && frame.at + 1 == layer.at) {
                *frames.last_mut().expect("just seen") = layer;
            }
            open = Some((number, layer));
        }
        frames.retain(|frame| frame.at + 1 == frame.of);
        frames
    }

    /// The longest time that the picture stood, where no frame of the layers up to `highest` is shown before all of those before it
    /// have come: of the base layer, or for who knows of frames by their numbers alone, of all.
    fn longest_stand(&self, highest: u8) -> Duration {
        let base = self.got.iter().filter(|(_, layer)| layer.is_some_and(|layer| layer.layer <= highest));
        let shown = base.scan(Duration::ZERO, |shown, (number, layer)| {
            *shown = (*shown).max(self.came[number]);
            Some((*shown, layer.is_some_and(|layer| layer.at + 1 == layer.of)))
        });
        let ends: Vec<Duration> = shown.filter(|(_, ends)| *ends).map(|(shown, _)| shown).collect();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    fn frames_since(&self, since: Duration) -> Vec<Layer> {
        let first = (since.as_millis() / FRAME.as_millis()) as u32;
        let all = self.got.values().flatten().copied();
        all.filter(|layer| layer.frame >= first && layer.at == 0).collect()
    }

    fn layers_since(&self, since: Duration) -> BTreeSet<u8> {
        self.frames_since(since).iter().map(|frame| frame.layer).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_path_of_sixty_percent_gets_the_lower_layers_whole_and_all_of_them_when_it_carries_them() {
    // The last is what Chromium sends to a page that does not ask for the descriptor: it knows of frames by the numbers alone.
    for (means, is_described, shard) in [
        (Means::Vp8, false, 0),
        (Means::Vp8, false, 1),
        (Means::Vp9, false, 0),
        (Means::DependencyDescriptor, true, 0),
        (Means::DependencyDescriptor, false, 1),
    ] {
        let mut table = Table::with_player(means, is_described, shard, WIDE);
        table.until(3, 2 * SECOND);
        table.run(5 * SECOND);
        assert!(table.frames().len() as u32 + 1 >= table.publisher.frames_sent(), "all but one under way");
        assert_eq!(table.nacks, 0, "nothing is missing");

        table.path(NARROW);
        let down = table.until(2, 3 * SECOND);
        assert!(down <= 1500 * SECOND / 1000, "{means:?}: down after {down:?}");
        table.run(3 * SECOND);
        let since = table.elapsed();
        let nacks = table.nacks;
        table.run(20 * SECOND);
        let frames = table.frames_since(since);
        assert_eq!(table.layers_since(since), BTreeSet::from([0, 1]), "{means:?}");
        assert!(frames.len() >= 285, "{means:?}: {} of 303 frames of the lower layers", frames.len());
        assert!(table.nacks - nacks <= 60, "{means:?}: {} NACKs for what was left out", table.nacks - nacks);

        table.path(WIDE);
        let up = table.until(3, 20 * SECOND);
        assert!(up <= 15 * SECOND, "{means:?}: up after {up:?}");
        let since = table.elapsed();
        table.run(30 * SECOND);
        assert!(table.frames_since(since).len() >= 900, "{means:?}: and there it stays");

        // Every frame that came is whole and rests on nothing that was left out.
        table.run(SECOND);
        assert_eq!(table.missing(u64::MAX), [0; 0], "{means:?}: no number without a packet");
        let frames = table.frames();
        let mut highest = 2;
        for pair in frames.windows(2) {
            let left_out = (pair[0].frame + 1..pair[1].frame).map(|frame| [0, 2, 1, 2][frame as usize % 4]).min();
            let frame = pair[1];
            highest = left_out.map_or(highest, |layer| highest.min(layer - 1));
            if frame.layer > highest && means == Means::Vp8 {
                assert!(frame.sync && frame.layer == highest + 1, "{frame:?} for who had layers up to {highest}");
            }
            highest = highest.max(frame.layer);
        }
        if means == Means::Vp9 {
            let is_as_published =
                |frame: &Layer| frame.picture_id == Some((frame.frame as u16).wrapping_add(32_700) & 0x7fff);
            assert!(frames.iter().all(is_as_published), "references are counted in picture ids");
        }
        if means != Means::Vp8 {
            let given: BTreeSet<u32> = frames.iter().map(|frame| frame.frame).collect();
            let refers_to = |frame: &Layer| frame.frame.checked_sub([4, 2, 1][usize::from(frame.layer)]);
            let is_orphan = |frame: &&Layer| refers_to(frame).is_some_and(|other| !given.contains(&other));
            assert_eq!(frames.iter().find(is_orphan), None, "what it refers to was left out");
        }
        if means == Means::Vp8 {
            let base_frames = frames.iter().all(|frame| frame.base_frame == Some((frame.frame / 4) as u8));
            assert!(base_frames, "of the base layer nothing is left out");
            let ids =
                frames.windows(2).map(|pair| pair[1].picture_id.unwrap().wrapping_sub(pair[0].picture_id.unwrap()));
            assert!(ids.into_iter().all(|step| step & 0x7fff == 1), "picture ids go on without a gap");
        }
        assert_eq!(table.world.peers[table.player].undecryptable, 0);
        assert_eq!(table.world.peers[table.publisher.peer].plis(), 0, "and nobody asked for a keyframe");
        let left_out = table.publisher.frames_sent() as usize - frames.len();
        let highest = if means == Means::DependencyDescriptor && !is_described { 2 } else { 0 };
        let stood = table.longest_stand(highest);
        assert!(stood <= SECOND, "{means:?}, {is_described}: the picture stood for {stood:?}");
        let report = table.world.report(table.shard).tables["roulette"].clone();
        assert!(left_out.abs_diff(report.frames_dropped_congestion as usize) <= 2, "{left_out}: {report:?}");
        // The frame that the player joined with was sent before it was there to be counted for.
        let counted = report.frames_forwarded + report.frames_dropped_congestion;
        assert!(u64::from(table.publisher.frames_sent()) - counted <= 1, "{report:?}");
        assert_eq!(
            (report.layer_switches, report.frames_dropped_layer_switch, report.frames_dropped_ingest_loss),
            (0, 0, 0)
        );
    }
}

#[test]
fn a_path_that_carries_the_base_layer_alone_gets_that() {
    let mut table = Table::new(Means::Vp8, 0, WIDE);
    table.until(3, 2 * SECOND);
    table.run(3 * SECOND);
    table.path(NARROWEST);
    table.until(1, 8 * SECOND);
    table.run(3 * SECOND);
    let since = table.elapsed();
    table.run(20 * SECOND);
    let frames = table.frames_since(since);
    assert!(frames.iter().all(|frame| frame.layer == 0));
    assert!(frames.len() >= 148, "{} of 151 frames of the base layer", frames.len());
    table.path(WIDE);
    table.until(3, 30 * SECOND);
    table.run(2 * SECOND);
    table.frames();
}

/// What is repaired is what was lost, of a stream of which three of four packets are left out.
#[test]
fn what_a_thinned_player_misses_is_repaired() {
    let mut table = Table::new(Means::Vp8, 0, WIDE);
    table.until(3, 2 * SECOND);
    table.run(3 * SECOND);
    table.path(NARROW);
    table.until(2, 3 * SECOND);
    table.run(3 * SECOND);
    let (since, repaired) = (table.elapsed(), table.repaired);
    table.path("delay=20ms rate=1700kbit/50kB loss=3%");
    table.run(10 * SECOND);
    assert!(table.repaired - repaired >= 20, "{} repairs", table.repaired - repaired);
    table.path(WIDE);
    table.run(2 * SECOND);
    assert!(table.missing(u64::MAX).is_empty(), "{:?}", table.missing(u64::MAX));
    assert!(table.frames_since(since).len() >= 140);
    table.frames();
    let report = table.world.report(0).tables["roulette"].clone();
    assert_eq!(report.retransmissions_missed, 0);
}

/// Packets that the publisher's network delays: those of a layer that is left out fill their numbers with nothing.
#[test]
fn what_comes_late_from_the_publisher_leaves_no_number_open() {
    let mut table = Table::new(Means::Vp8, 0, WIDE);
    table.until(3, 2 * SECOND);
    table.run(3 * SECOND);
    table.path(NARROW);
    table.until(2, 3 * SECOND);
    table.run(3 * SECOND);
    let from = table.world.peers[table.publisher.peer].address;
    let mut n = 0;
    table.world.network = Box::new(move |d| {
        let is_video = d.from == from && d.bytes.len() > 800;
        n += usize::from(is_video);
        Some(if is_video && n % 11 == 0 { Duration::from_millis(50) } else { Duration::ZERO })
    });
    table.run(10 * SECOND);
    table.world.network = Box::new(|_| Some(Duration::ZERO));
    table.run(SECOND);
    let hollow = table.got.values().filter(|layer| layer.is_none()).count();
    assert!(hollow >= 20, "{hollow} packets with nothing in them");
    assert_eq!(table.missing(u64::MAX), [0; 0]);
    table.frames();
}

/// One encoding without layers, more than the path carries: stretches of whole frames that begin with a keyframe, and sound all the
/// time.
#[test]
fn who_cannot_have_the_only_encoding_gets_whole_stretches_of_it() {
    for (group, shard) in [(60, 0), (u32::MAX, 1)] {
        let mut table = Table::new(Means::None, shard, WIDE);
        table.publisher.group = group;
        table.run(6 * SECOND);
        assert!(table.frames().len() as u32 + 1 >= table.publisher.frames_sent(), "nothing is missing");
        let sound = |table: &Table| table.world.peers[table.player].received_on(AUDIO_SSRC).len();
        let (sound_before, frames_before) = (sound(&table), table.publisher.frames_sent());
        let before = table.world.report(table.shard).tables["roulette"].clone();
        table.path(NARROWEST);
        for _ in 0..40 {
            table.run(SECOND);
            // A frame that is left out is on the ledger when it is, not when the rest is over.
            let report = table.world.report(table.shard).tables["roulette"].clone();
            let counted = report.frames_forwarded + report.frames_dropped_congestion;
            let sent = u64::from(table.publisher.frames_sent());
            assert!(sent.abs_diff(counted) <= 3, "{counted} of {sent} frames: {report:?}");
        }
        let report = table.world.report(table.shard).tables["roulette"].clone();
        let sent = table.publisher.frames_sent() - frames_before;
        let rested = report.frames_dropped_congestion - before.frames_dropped_congestion;
        assert!(rested > u64::from(sent) / 5, "{rested} of {sent} frames were left out");
        assert!(rested < u64::from(sent) * 9 / 10, "{rested} of {sent} frames were left out");
        assert_eq!(report.layer_switches, 0);
        let sound = sound(&table) - sound_before;
        assert!(sound as u32 >= sent * 8 / 10, "{sound} of {sent} packets of sound");
        // What is left out for longer than anything is lost ends with a keyframe.
        let all: Vec<Layer> = table.got.values().flatten().copied().collect();
        let rests = all.windows(2).filter(|pair| pair[1].frame >= pair[0].frame + 45);
        assert!(rests.clone().all(|pair| pair[1].keyframe), "{:?}", rests.clone().collect::<Vec<_>>());
        assert!(rests.count() >= 3);
        let shown: Vec<u32> = table.frames().iter().map(|frame| frame.frame).filter(|n| *n > frames_before).collect();
        let stood = shown.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u32::MAX);
        let longest = if group == 60 { 6 * 30 } else { 10 * 30 };
        assert!(stood <= longest, "the picture stood for {stood} frames");
        let least = if group == 60 { sent / 12 } else { sent / 25 };
        assert!(shown.len() as u32 >= least, "{} of {sent} frames came whole", shown.len());
        let home = table.world.report(0).tables["roulette"].clone();
        let most = if group == 60 { 0 } else { 40 / 4 };
        assert!(home.keyframe_requests_sent <= most, "{} keyframes were asked for", home.keyframe_requests_sent);

        table.path(WIDE);
        table.run(15 * SECOND);
        let since = table.elapsed();
        table.run(20 * SECOND);
        assert!(table.frames_since(since).len() >= 605, "{} of 606 frames", table.frames_since(since).len());
    }
}

/// Keyframes of a third of a second's bits, ten seconds apart, each of which fills the queue of a path that carries all else: the player
/// that has rested for a worse path does not rest for them.
#[test]
fn who_has_rested_gets_an_encoding_whose_keyframes_alone_are_too_much() {
    let mut table = Table::new(Means::None, 0, WIDE);
    (table.publisher.group, table.publisher.keyframe_packets) = (300, Some(90));
    table.run(6 * SECOND);
    table.path(NARROWEST);
    table.run(20 * SECOND);
    table.path("delay=20ms rate=2450kbit/130kB");
    table.run(30 * SECOND);
    let since = table.elapsed();
    table.run(30 * SECOND);
    let frames = table.frames_since(since).len();
    assert!(frames >= 850, "{frames} of 909 frames");
}

/// Of a page that reports: frames that it was not sent are missed because of its path, and neither the network nor its decoder
/// has lost them. What the network has lost of those that were sent, it has.
#[test]
fn while_a_player_rests_its_reports_blame_nobody_for_what_it_was_not_sent() {
    for shard in [0, 1] {
        let mut table = Table::new(Means::None, shard, WIDE);
        table.publisher.group = 60;
        table.run(SECOND);
        let mut reporter = Reporter::open(&mut table.world, table.player);
        table.run_reporting(&mut reporter, 3);
        let (before, whole_before) = table.counts();
        table.path(NARROWEST);
        table.run_reporting(&mut reporter, 30);
        table.path(WIDE);
        table.run_reporting(&mut reporter, 10);
        let (after, whole) = table.counts();

        assert!(after.qos.reports >= before.qos.reports + 38, "{:?}", after.qos);
        let left_out = after.frames_dropped_congestion - before.frames_dropped_congestion;
        assert!(left_out > 300, "{left_out} frames were left out");
        let sent = after.frames_forwarded - before.frames_forwarded;
        let lost = sent - (whole - whole_before);
        let losses = after.qos.losses;
        let elsewhere = [losses.ingest_loss, losses.node_overload, losses.node_queue, losses.decoder, losses.unknown];
        assert_eq!(elsewhere, [0; 5], "{losses:?}");
        assert!(losses.network.abs_diff(lost) <= 2 + lost / 20, "{lost} of {sent} frames were lost: {losses:?}");
        let missed = after.qos.frames_missed - before.qos.frames_missed;
        assert!(missed.abs_diff(left_out + lost) <= 4, "{missed} frames were missed, {left_out} left out, {lost} lost");
    }
}

/// A timestamp that shows two temporal layers: what rests on what is not known from them, and the player rests instead.
#[test]
fn of_frames_that_are_of_two_layers_none_is_left_out_by_its_layer() {
    let mut table = Table::new(Means::Mixed, 0, WIDE);
    table.publisher.group = 60;
    table.until(3, 2 * SECOND);
    table.run(3 * SECOND);
    table.path(NARROW);
    table.run(20 * SECOND);
    let frames = table.frames();
    assert!(frames.windows(2).any(|pair| pair[1].frame >= pair[0].frame + 45), "there was a rest");
    let lately: Vec<&Layer> = frames.iter().filter(|frame| frame.frame > 200).collect();
    let highest = lately.iter().filter(|frame| frame.layer == 2).count();
    assert!(highest * 3 >= lately.len(), "{highest} of {} frames are of the highest layer", lately.len());
}

/// Packets of the publisher's that come out of order: the first of each frame is late.
#[test]
fn a_rest_moves_no_timestamps() {
    let mut table = Table::new(Means::None, 0, WIDE);
    table.publisher.group = 60;
    table.run(3 * SECOND);
    let from = table.world.peers[table.publisher.peer].address;
    let mut newest = 0;
    table.world.network = Box::new(move |d| {
        let is_video = d.from == from && d.bytes.len() > 800;
        let timestamp = u32::from_be_bytes([d.bytes[4], d.bytes[5], d.bytes[6], d.bytes[7]]);
        let is_first = is_video && std::mem::replace(&mut newest, timestamp) != timestamp;
        Some(if is_first { Duration::from_millis(8) } else { Duration::ZERO })
    });
    table.path(NARROWEST);
    table.run(30 * SECOND);
    let received = table.world.peers[table.player].received_on(VIDEO_SSRC);
    let first_of = |packet: &&Received| Some((Layer::of(&packet.payload)?.frame, packet.timestamp));
    let frames: Vec<(u32, u32)> = received.iter().filter_map(first_of).collect();
    assert!(frames.windows(2).any(|pair| pair[1].0 > pair[0].0 + 45), "there was a rest");
    let starts: BTreeSet<u32> =
        frames.iter().map(|(frame, timestamp)| timestamp.wrapping_sub(frame.wrapping_mul(3000))).collect();
    assert_eq!(starts.len(), 1, "{starts:?}");
}

/// A table of three temporal layers, and a player that says what it believes that its path carries.
struct Believed {
    world: World,
    publisher: Layered,
    player: usize,
}

/// What carries two of them, and what carries one.
const TWO_LAYERS: u64 = 1_400_000;
const ONE_LAYER: u64 = 1_000_000;

impl Believed {
    fn new() -> Self {
        let mut world = World::new(2);
        let mut publisher = Layered::connect(&mut world, Means::Vp8);
        let player = world.add_player_with(0, |negotiated| {
            stream_mut(negotiated, MediaKind::Video).feedback.transport_cc = false;
        });
        world.connect(player);
        publisher.send(&mut world, 60);
        Self { world, publisher, player }
    }

    fn send(&mut self, frames: usize) {
        self.publisher.send(&mut self.world, frames);
    }

    fn says(&mut self, bits_per_second: u64) {
        self.world.peers[self.player].send_rtcp(|w| w.remb(1, bits_per_second, &[VIDEO_SSRC]).expect("room"));
    }

    /// Sends until the next frame is one of the highest layer, behind one of the base layer.
    fn reach_the_highest(&mut self) {
        while self.publisher.frames_sent() % 4 != 1 {
            self.send(1);
        }
    }

    fn got(&self) -> Vec<Layer> {
        let received = self.world.peers[self.player].received_on(VIDEO_SSRC);
        received.iter().filter_map(|packet| Layer::of(&packet.payload)).collect()
    }
}

/// Chromium's receiver of VP8 holds a frame of the middle layer back until it has all picture ids before it.
#[test]
fn what_was_lost_before_a_layer_was_left_out_is_repaired_where_others_wait_for_it() {
    for (carries, is_repaired) in [(TWO_LAYERS, true), (ONE_LAYER, false)] {
        let mut table = Believed::new();
        table.reach_the_highest();
        let (to, mut n) = (table.world.peers[table.player].address, 0);
        table.world.network = Box::new(move |d| {
            n += usize::from(d.to == to && d.bytes.len() > 800);
            Some(Duration::ZERO).filter(|_| n != 3)
        });
        table.send(1);
        table.world.network = Box::new(|_| Some(Duration::ZERO));
        table.says(carries);
        table.send(9);
        let (got, fell) = (table.got(), table.publisher.frames_sent() - 6);
        let layers: BTreeSet<u8> = got.iter().filter(|layer| layer.frame >= fell).map(|layer| layer.layer).collect();
        assert_eq!(layers, if carries == TWO_LAYERS { BTreeSet::from([0, 1]) } else { BTreeSet::from([0]) });
        let peer = &mut table.world.peers[table.player];
        let numbers: BTreeSet<u64> = peer.received_on(VIDEO_SSRC).iter().map(|packet| packet.index).collect();
        let (first, last) = (numbers.first().expect("some"), numbers.last().expect("some"));
        let lost: Vec<u16> = (*first..*last).filter(|n| !numbers.contains(n)).map(|number| number as u16).collect();
        assert_eq!(lost.len(), 1);
        peer.send_rtcp(|writer| writer.nack(1, VIDEO_SSRC, lost).expect("room"));
        table.send(2);
        let repairs = table.world.peers[table.player].received_on(VIDEO_RTX_SSRC).len();
        assert_eq!(repairs > 0, is_repaired, "{repairs} repairs where the path carries {carries}");
    }
}

#[test]
fn who_is_let_in_by_no_other_frame_gets_a_keyframe() {
    let mut table = Believed::new();
    table.publisher.syncs = false;
    table.says(TWO_LAYERS);
    table.send(30);
    assert_eq!(table.got().last().map(|layer| layer.layer < 2), Some(true));
    for _ in 0..30 {
        table.says(5_000_000);
        table.send(15);
    }
    let layers: BTreeSet<u8> = table.got().iter().rev().take(50).map(|layer| layer.layer).collect();
    assert_eq!(layers, BTreeSet::from([0, 1, 2]));
    assert_eq!(table.world.peers[table.publisher.peer].plis(), 1, "and once is enough");
}

#[test]
fn a_frame_that_was_left_out_and_is_lost_counts_once() {
    let mut table = Believed::new();
    table.says(TWO_LAYERS);
    table.send(8);
    table.reach_the_highest();
    let (before, first) = (table.world.report(0).tables["roulette"].clone(), table.publisher.frames_sent());
    for (n, datagram) in table.publisher.frame(&mut table.world).into_iter().enumerate() {
        if n != 3 {
            table.world.send(datagram);
        }
    }
    table.world.deliver();
    table.world.run(FRAME);
    table.send(60);
    let after = table.world.report(0).tables["roulette"].clone();
    assert_eq!(after.frames_lost_before_ingest - before.frames_lost_before_ingest, 1);
    assert_eq!(after.frames_dropped_ingest_loss, 0);
    let got: BTreeSet<u32> = table.got().iter().map(|layer| layer.frame).filter(|frame| *frame >= first).collect();
    let left_out = (after.frames_dropped_congestion - before.frames_dropped_congestion) as usize;
    assert_eq!(left_out, 61 - got.len());
    // A frame that is left out is taken off those that were forwarded with the next one.
    let forwarded = (after.frames_forwarded - before.frames_forwarded) as usize;
    assert!(forwarded.abs_diff(got.len()) <= 1, "{forwarded} of {} frames", got.len());
}

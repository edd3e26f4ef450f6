//! A node that sends one of three layers, a link in virtual time, and a receiver that tells what arrived.

use proptest::prelude::*;
use tableside_netsim::Link;

use super::*;

const MS: Duration = Duration::from_millis(1);
const LAYERS: [u64; 3] = [150_000, 600_000, 2_500_000];
const AUDIO: u64 = 64_000;

type Statuses = Vec<(u16, Option<i16>)>;

/// A path, a sender of one layer and audio, and the receiver's feedback.
struct Path {
    begun: Instant,
    now: Instant,
    down: Link,
    feedback_interval: Duration,
    one_way_back: Duration,
    layer: usize,
    frames_a_second: u64,
    has_audio: bool,
    /// Seconds between two keyframes, each as large as five frames.
    keyframes_every: Option<u64>,
    dice: u64,
    /// Pieces of frames that are to leave, by the millisecond.
    queue: Vec<(Duration, u64)>,
    next_frame: Duration,
    next_audio: Duration,
    frames: u64,
    /// Packets sent; the transport-wide number is the low half of it.
    sent: u64,
    arrived: Vec<(Instant, u64)>,
    next_to_tell: u64,
    next_feedback: Instant,
    feedbacks: Vec<(Instant, i64, Statuses)>,
    /// Of the receiver's clock at the beginning, in 250 µs.
    clock: i64,
    padding: u64,
    bandwidth: Box<Bandwidth>,
}

impl Path {
    fn new(conditions: &str, feedback_ms: u64, layer: usize, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            now,
            down: Link::new(conditions.parse().expect("conditions"), seed),
            feedback_interval: feedback_ms as u32 * MS,
            one_way_back: 40 * MS,
            layer,
            frames_a_second: 30,
            has_audio: true,
            keyframes_every: None,
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            queue: Vec::new(),
            next_frame: Duration::ZERO,
            next_audio: Duration::ZERO,
            frames: 0,
            sent: 0,
            arrived: Vec::new(),
            next_to_tell: 0,
            next_feedback: now + feedback_ms as u32 * MS,
            feedbacks: Vec::new(),
            clock: 1_000_000,
            padding: 0,
            bandwidth: Box::new(Bandwidth::new(now)),
        }
    }

    fn set(&mut self, conditions: &str) {
        self.down.set_conditions(self.down.conditions().with(conditions).expect("conditions"));
    }

    fn estimate(&self) -> Estimate {
        self.bandwidth.estimate(self.now).expect("an estimate")
    }

    /// 0 to 1.
    fn die(&mut self) -> f64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Passes time; `see` is shown the path after each millisecond.
    fn run(&mut self, time: Duration, mut see: impl FnMut(&mut Self)) {
        let end = self.now + time;
        while self.now < end {
            self.send();
            self.tell();
            self.now += MS;
            see(self);
        }
    }

    fn send(&mut self) {
        let at = self.now - self.begun;
        if at >= self.next_frame {
            let rate = self.frames_a_second;
            let mean = LAYERS[self.layer] as f64 / 8.0 / rate as f64;
            let is_key =
                self.keyframes_every.is_some_and(|seconds| self.frames % (rate * seconds) == rate * seconds - 1);
            let bytes = mean * (0.8 + 0.4 * self.die()) * if is_key { 5.0 } else { 1.0 };
            let pieces = if bytes > 16.0 * 1200.0 { (bytes / 9600.0).ceil().min(8.0) } else { 1.0 };
            for piece in 0..pieces as u32 {
                self.queue.push((at + 33 * MS / pieces as u32 * piece, (bytes / pieces) as u64));
            }
            self.frames += 1;
            self.next_frame += Duration::from_micros(1_000_000 / rate);
        }
        if self.has_audio && at >= self.next_audio {
            self.queue.push((at, AUDIO / 8 / 50));
            self.next_audio += 20 * MS;
        }
        let due: Vec<u64> = self.queue.extract_if(.., |(when, _)| *when <= at).map(|(_, bytes)| bytes).collect();
        for bytes in due {
            self.send_run(bytes);
        }
        if self.bandwidth.poll_timeout().is_some_and(|timeout| timeout <= self.now) {
            let padding = self.bandwidth.padding_due(self.now);
            self.padding += u64::from(padding);
            if padding > 0 {
                self.send_run(padding.into());
            }
        }
    }

    fn send_run(&mut self, bytes: u64) {
        let packets = bytes.div_ceil(1200);
        self.bandwidth.handle_sent(self.now, self.sent as u16, packets as u16, bytes as u32);
        for _ in 0..packets {
            let arrivals = self.down.handle_packet(self.now, (bytes / packets) as usize);
            self.arrived.extend(arrivals.into_iter().map(|at| (at, self.sent)));
            self.sent += 1;
        }
    }

    fn tell(&mut self) {
        if self.now >= self.next_feedback {
            self.next_feedback += self.feedback_interval;
            self.write_feedback();
        }
        let now = self.now;
        let due: Vec<_> = self.feedbacks.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, reference, statuses) in due {
            self.bandwidth.handle_feedback(now, reference, statuses.into_iter());
        }
    }

    /// As a receiver does: from the first packet not told of, or overtaken, to the last that arrived.
    fn write_feedback(&mut self) {
        let now = self.now;
        let mut arrived: Vec<(Instant, u64)> = self.arrived.extract_if(.., |(at, _)| *at <= now).collect();
        arrived.sort_by_key(|(at, number)| (*number, *at));
        arrived.dedup_by_key(|(_, number)| *number);
        let (Some(first), Some(last)) = (arrived.first(), arrived.last()) else { return };
        let (base, end) = (self.next_to_tell.min(first.1), last.1);
        let ticks_of = |at: Instant| ((at - self.begun).as_micros() / 250) as i64 + self.clock;
        let reference = ticks_of(first.0) / 256 * 256;
        let (mut before, mut statuses) = (reference, Vec::new());
        let mut each = arrived.iter().peekable();
        for number in base..=end {
            let delta = each.next_if(|(_, arrived)| *arrived == number).map(|(at, _)| {
                let delta = ticks_of(*at) - before;
                before += delta;
                delta as i16
            });
            statuses.push((number as u16, delta));
        }
        self.next_to_tell = self.next_to_tell.max(end + 1);
        // 24 bits of 64 ms, with a sign.
        let wrapped = (((reference / 256) << 40) >> 40) * 256;
        self.feedbacks.push((now + self.one_way_back, wrapped, statuses));
    }

    /// When the estimate says overuse for the first time, and the time to which it is told.
    fn overuse_within(&mut self, time: Duration) -> Option<Duration> {
        let (begin, mut first) = (self.now, None);
        self.run(time, |path| {
            if first.is_none() && path.estimate().usage == Usage::Overuse {
                first = Some(path.now - begin);
            }
        });
        first
    }

    /// The lowest estimate of this time.
    fn lowest(&mut self, time: Duration) -> u64 {
        let mut lowest = u64::MAX;
        self.run(time, |path| lowest = lowest.min(path.estimate().bits_per_second));
        lowest
    }

    fn probe(&mut self, bits_per_second: u64) -> Option<ProbeOutcome> {
        self.bandwidth.begin_probe(self.now, bits_per_second);
        let mut outcome = None;
        self.run(2000 * MS, |path| outcome = outcome.or(path.bandwidth.take_probe_outcome(path.now)));
        outcome
    }
}

/// A player's memory: it is all in one piece, and nothing is allocated later.
#[test]
fn a_player_costs_less_than_three_kibibytes() {
    assert!(size_of::<Bandwidth>() <= 3072, "{}", size_of::<Bandwidth>());
}

/// The capacity falls to less than a quarter. Reported: until overuse was seen, and the estimate after 1.5 s.
fn cut(feedback_ms: u64, queue: &str, seed: u64, switches_down: bool) -> (Duration, u64) {
    cut_of(Path::new("delay=40ms jitter=2ms rate=3mbit/60kB", feedback_ms, 2, seed), queue, seed, switches_down)
}

fn cut_of(mut path: Path, queue: &str, seed: u64, switches_down: bool) -> (Duration, u64) {
    path.run(10_000 * MS + seed as u32 * 37 * MS, |_| {});
    assert!(path.estimate().bits_per_second > 2_564_000);
    path.set(&format!("rate=600kbit/{queue}"));
    let (begin, mut first) = (path.now, None);
    path.run(1500 * MS, |path| {
        if first.is_none() && path.estimate().usage == Usage::Overuse {
            first = Some(path.now - begin);
            if switches_down {
                path.layer = 0;
            }
        }
    });
    (first.expect("overuse"), path.estimate().bits_per_second)
}

#[test]
fn a_cut_to_a_quarter_is_seen_at_once_and_the_estimate_is_what_remains() {
    for (feedback_ms, within) in [(100, 500), (250, 600)] {
        for queue in ["8kB", "22kB", "60kB"] {
            for switches_down in [false, true] {
                let (mut slowest, mut low, mut high) = (Duration::ZERO, u64::MAX, 0);
                for seed in 1..=10 {
                    let (first, estimate) = cut(feedback_ms, queue, seed, switches_down);
                    (slowest, low, high) = (slowest.max(first), low.min(estimate), high.max(estimate));
                }
                println!(
                    "cut: {feedback_ms} ms, queue {queue}, switches {switches_down}: {slowest:?}, {low} to {high}"
                );
                assert!(slowest <= within * MS, "{slowest:?}, queue {queue}, feedback {feedback_ms}");
                assert!(low >= 400_000 && high <= 660_000, "{low} to {high}, queue {queue}, feedback {feedback_ms}");
            }
        }
    }
}

/// As Chromium's pages of a camera without a microphone: large frames, far apart, are all that shows the queue.
#[test]
fn a_cut_is_seen_as_soon_without_sound_and_with_fewer_frames() {
    for frames_a_second in [20, 30] {
        let mut all: Vec<Duration> = (1..=40)
            .map(|seed| {
                let mut path = Path::new("delay=20ms rate=3mbit/94kB", 250, 2, seed);
                (path.frames_a_second, path.has_audio, path.one_way_back) = (frames_a_second, false, 20 * MS);
                cut_of(path, "19kB", seed, true).0
            })
            .collect();
        all.sort();
        println!("cut: no sound, {frames_a_second} frames a second: {:?}, {:?}, {:?}", all[0], all[20], all[39]);
        assert!(all[39] <= 600 * MS, "{all:?}");
    }
}

/// Nothing goes wrong for a minute, on ten paths of the same kind.
fn a_quiet_minute(conditions: &str, layer: usize, feedback_ms: u64, keyframes_every: Option<u64>) {
    let media = LAYERS[layer] + AUDIO;
    let mut least = u64::MAX;
    for seed in 1..=10 {
        let mut path = Path::new(conditions, feedback_ms, layer, seed);
        path.keyframes_every = keyframes_every;
        path.run(2000 * MS, |_| {});
        let mut overuse = None;
        path.run(60_000 * MS, |path| {
            let estimate = path.estimate();
            least = least.min(estimate.bits_per_second);
            if estimate.usage == Usage::Overuse && overuse.is_none() {
                overuse = Some(path.now - path.begun);
            }
        });
        assert_eq!(overuse, None, "overuse on {conditions}, seed {seed}");
        assert!(least >= media, "{least} on {conditions}, seed {seed}");
    }
    println!("minute: {conditions}, layer {layer}, feedback {feedback_ms} ms: never below {least}");
}

#[test]
fn random_loss_and_jitter_are_no_congestion() {
    for feedback_ms in [100, 250] {
        a_quiet_minute("delay=40ms jitter=30ms loss=5% rate=10mbit", 2, feedback_ms, None);
        a_quiet_minute("delay=40ms jitter=30ms loss=5% rate=10mbit", 0, feedback_ms, None);
    }
}

#[test]
fn loss_in_bursts_is_no_congestion() {
    for feedback_ms in [100, 250] {
        a_quiet_minute("delay=40ms jitter=30ms burst=5%/4 rate=10mbit", 2, feedback_ms, None);
        a_quiet_minute("delay=40ms burst=5%/4 rate=10mbit", 1, feedback_ms, None);
    }
}

#[test]
fn a_path_that_is_used_well_is_not_used_too_much() {
    for (rate, percent) in [("4273kbit", 60), ("3205kbit", 80), ("2699kbit", 95)] {
        println!("{percent} %");
        a_quiet_minute(&format!("delay=40ms jitter=2ms rate={rate}/60kB"), 2, 100, None);
        a_quiet_minute(&format!("delay=40ms jitter=2ms rate={rate}/60kB"), 2, 250, None);
    }
}

#[test]
fn a_keyframe_is_no_overuse() {
    for feedback_ms in [100, 250] {
        a_quiet_minute("delay=40ms jitter=5ms rate=4273kbit/100kB", 2, feedback_ms, Some(5));
        a_quiet_minute("delay=40ms jitter=5ms rate=1107kbit/60kB", 1, feedback_ms, Some(5));
    }
}

#[test]
fn reordering_and_duplicates_are_no_congestion() {
    a_quiet_minute("delay=40ms jitter=10ms reorder=2%/20ms duplicate=2% rate=10mbit", 2, 100, Some(10));
}

#[test]
fn a_fifth_lost_for_long_brings_the_estimate_down() {
    for loss in ["loss=20%", "burst=20%/3"] {
        let mut slowest = Duration::ZERO;
        for seed in 1..=10 {
            let mut path = Path::new("delay=40ms jitter=10ms rate=10mbit", 100, 2, seed);
            path.run(10_000 * MS, |_| {});
            path.set(loss);
            slowest = slowest.max(path.overuse_within(5000 * MS).expect("overuse"));
            assert!(path.estimate().bits_per_second < 2_200_000, "{}", path.estimate().bits_per_second);
        }
        println!("{loss}: overuse within {slowest:?}");
    }
}

#[test]
fn a_link_a_little_too_narrow_is_found_out() {
    let mut slowest = Duration::ZERO;
    for seed in 1..=10 {
        let mut path = Path::new("delay=40ms jitter=2ms rate=4mbit/100kB", 100, 2, seed);
        path.run(10_000 * MS, |_| {});
        path.set("rate=2400kbit/100kB");
        slowest = slowest.max(path.overuse_within(6000 * MS).expect("overuse"));
    }
    println!("7 % too narrow: overuse within {slowest:?}");
}

#[test]
fn a_probe_finds_room_for_the_next_layer() {
    for conditions in
        ["rate=4mbit jitter=2ms", "rate=4mbit jitter=30ms", "rate=4mbit jitter=10ms loss=5%", "rate=4mbit burst=3%/4"]
    {
        for feedback_ms in [100, 250] {
            for seed in 1..=10 {
                let mut path = Path::new(&format!("delay=40ms {conditions}"), feedback_ms, 1, seed);
                path.run(5000 * MS + seed as u32 * 13 * MS, |_| {});
                let before = path.estimate().bits_per_second;
                assert!(before < 1_200_000, "it does not rise by itself: {before}");
                let outcome = path.probe(3_000_000);
                let Some(ProbeOutcome::Sustained(rate)) = outcome else {
                    panic!("{outcome:?} on {conditions}, feedback {feedback_ms}, seed {seed}")
                };
                assert!((2_500_000..=3_200_000).contains(&rate), "{rate}");
                assert!(path.estimate().bits_per_second >= rate);
                assert!((80_000..150_000).contains(&path.padding), "{}", path.padding);
            }
        }
    }
}

#[test]
fn a_probe_fails_where_there_is_no_room_and_does_little_harm() {
    for rate in ["1mbit/12500B", "1mbit/37500B", "750kbit/20kB", "750kbit/60kB", "2mbit/50kB", "2500kbit/60kB"] {
        for feedback_ms in [100, 250] {
            let (mut lowest, mut longest) = (u64::MAX, 0_u32);
            for seed in 1..=10 {
                let mut path = Path::new(&format!("delay=40ms jitter=2ms rate={rate}"), feedback_ms, 1, seed);
                path.run(5000 * MS + seed as u32 * 13 * MS, |_| {});
                path.bandwidth.begin_probe(path.now, 3_000_000);
                let (mut outcome, mut below) = (None, 0);
                path.run(3000 * MS, |path| {
                    outcome = outcome.or(path.bandwidth.take_probe_outcome(path.now));
                    lowest = lowest.min(path.estimate().bits_per_second);
                    below += u32::from(path.estimate().bits_per_second < LAYERS[1] + AUDIO);
                });
                assert_eq!(outcome, Some(ProbeOutcome::Failed), "{rate}, feedback {feedback_ms}, seed {seed}");
                longest = longest.max(below);
            }
            println!(
                "failed probe at {rate}, feedback {feedback_ms} ms: lowest {lowest}, below media for {longest} ms"
            );
            assert!(longest <= 1000, "{longest} ms");
        }
    }
}

#[test]
fn a_probe_without_hope_is_broken_off() {
    for seed in 1..=10 {
        let mut path = Path::new("delay=40ms jitter=2ms rate=1mbit/60kB", 100, 1, seed);
        path.run(5000 * MS, |_| {});
        assert_eq!(path.probe(3_000_000), Some(ProbeOutcome::Failed));
        assert!(path.padding < 90_000, "{} of 117 kB", path.padding);
    }
}

#[test]
fn little_media_neither_raises_the_estimate_nor_lets_it_fall() {
    let mut path = Path::new("delay=40ms rate=10mbit", 100, 2, 1);
    path.run(10_000 * MS, |_| {});
    let high = path.estimate().bits_per_second;
    assert!((3_000_000..4_700_000).contains(&high), "{high}");
    path.layer = 0;
    assert!(path.lowest(30_000 * MS) >= 3_000_000, "it does not fall");
    let mut path = Path::new("delay=40ms rate=10mbit", 100, 0, 1);
    path.run(60_000 * MS, |_| {});
    assert!(path.estimate().bits_per_second < 400_000, "{}", path.estimate().bits_per_second);
}

#[test]
fn without_feedback_less_and_less_is_believed() {
    let mut path = Path::new("delay=40ms rate=10mbit", 100, 2, 1);
    path.run(10_000 * MS, |_| {});
    let before = path.estimate().bits_per_second;
    path.set("blackout=on");
    let first = path.overuse_within(1300 * MS).expect("overuse");
    assert!((900 * MS..=1200 * MS).contains(&first), "{first:?}");
    path.run(1000 * MS, |_| {});
    assert!((before / 5..=before / 3).contains(&path.estimate().bits_per_second));
    path.run(60_000 * MS, |_| {});
    assert_eq!(path.estimate().bits_per_second, LEAST);
    path.set("blackout=off");
    path.run(3000 * MS, |_| {});
    assert!(path.estimate().bits_per_second > 2_400_000, "{}", path.estimate().bits_per_second);
}

#[test]
fn who_is_sent_nothing_owes_no_feedback() {
    let mut path = Path::new("delay=40ms rate=10mbit", 100, 2, 1);
    path.run(5000 * MS, |_| {});
    let before = path.estimate();
    path.next_frame = Duration::from_secs(3600);
    path.next_audio = path.next_frame;
    path.run(500 * MS, |_| {});
    assert_eq!(path.bandwidth.poll_timeout(), None);
    assert!(path.lowest(20_000 * MS) >= before.bits_per_second);
}

#[test]
fn lost_feedback_is_no_lost_media() {
    for seed in 1..=10 {
        let mut path = Path::new("delay=40ms jitter=10ms rate=10mbit", 100, 2, seed);
        path.run(2000 * MS, |_| {});
        let (mut written, mut lost) = (seed, 0);
        path.run(30_000 * MS, |path| {
            let newest = path.feedbacks.last().map(|(at, ..)| *at);
            if newest == Some(path.now + path.one_way_back - MS) {
                written += 1;
                if written % 4 == 0 {
                    path.feedbacks.pop();
                    lost += 1;
                }
            }
            assert!(path.estimate().bits_per_second >= 2_564_000 && path.estimate().usage != Usage::Overuse);
        });
        assert!(lost >= 70, "{lost}");
        assert!(path.estimate().loss < 0.01, "{}", path.estimate().loss);
    }
}

#[test]
fn numbers_and_the_reference_time_wrap() {
    // Numbers do in the eighth second; the reference time, of 24 bits of 64 ms, and its sign in the sixth.
    for wrap in [1_i64 << 32, 1 << 31] {
        let mut path = Path::new("delay=40ms jitter=2ms rate=10mbit", 100, 2, 1);
        path.clock = wrap - 6 * 4000;
        path.sent = 65_536 - 8 * 290;
        path.next_to_tell = path.sent;
        path.run(2000 * MS, |_| {});
        let mut overuse = false;
        path.run(8_000 * MS, |path| overuse |= path.estimate().usage != Usage::Normal);
        assert!(!overuse && path.sent > 65_536);
        assert!(path.estimate().bits_per_second > 2_564_000 && path.estimate().loss < 0.001);
        path.set("rate=600kbit/22kB");
        assert!(path.overuse_within(600 * MS).is_some());
    }
}

#[test]
fn remb_is_all_there_is_without_feedback_and_a_limit_with_it() {
    let now = Instant::now();
    let mut bandwidth = Bandwidth::new(now);
    assert_eq!(bandwidth.estimate(now), None);
    bandwidth.handle_remb(now, 700_000);
    assert_eq!(bandwidth.estimate(now).map(|e| e.bits_per_second), Some(700_000));
    assert_eq!(bandwidth.estimate(now + REMB_LASTS), None);
    let mut path = Path::new("delay=40ms rate=10mbit", 100, 2, 1);
    path.run(5000 * MS, |_| {});
    path.bandwidth.handle_remb(path.now, 700_000);
    assert_eq!(path.estimate().bits_per_second, 700_000);
}

#[test]
fn a_peer_without_feedback_answers_a_probe_by_its_own_estimate() {
    for (remb, outcome) in [(3_000_000, ProbeOutcome::Sustained(3_000_000)), (900_000, ProbeOutcome::Failed)] {
        let now = Instant::now();
        let mut bandwidth = Bandwidth::new(now);
        bandwidth.handle_remb(now, 700_000);
        bandwidth.begin_probe(now, 3_000_000);
        bandwidth.handle_remb(now + 800 * MS, remb);
        assert_eq!(bandwidth.take_probe_outcome(now + 1000 * MS), None);
        assert_eq!(bandwidth.take_probe_outcome(now + 2000 * MS), Some(outcome));
        assert_eq!(bandwidth.take_probe_outcome(now + 2000 * MS), None, "once");
    }
}

#[test]
fn padding_keeps_the_rate_and_whoever_comes_late_sends_no_burst() {
    let now = Instant::now();
    let mut bandwidth = Bandwidth::new(now);
    bandwidth.begin_probe(now, 2_400_000);
    bandwidth.handle_sent(now, 0, 1, 1000);
    assert_eq!(bandwidth.padding_due(now + 10 * MS), 2000);
    bandwidth.handle_sent(now + 10 * MS, 1, 2, 2000);
    assert_eq!(bandwidth.poll_timeout(), Some(now + 20 * MS));
    bandwidth.handle_sent(now + 20 * MS, 3, 8, 9000);
    assert_eq!(bandwidth.padding_due(now + 20 * MS), 0, "media is enough");
    let late = bandwidth.padding_due(now + 200 * MS);
    assert!((5900..=6100).contains(&late), "{late}");
    assert_eq!(bandwidth.padding_due(now + probe::DURATION), 0, "over");
}

/// A peer that reports what it likes, as one that wants more than its share.
fn lies() -> impl Strategy<Value = Statuses> {
    let arrived = prop_oneof![3 => Just(0), 3 => 0_i16..400, 1 => any::<i16>()];
    let status = prop::option::weighted(0.9, arrived);
    let from = prop_oneof![3 => 0_u16..3000, 1 => any::<u16>()];
    (from, 1_u16..4, prop::collection::vec(status, 0..300)).prop_map(|(from, step, statuses)| {
        let numbered = statuses.into_iter().enumerate();
        numbered.map(|(n, status)| (from.wrapping_add(n as u16 * step), status)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever it is told, it does not panic, and believes in no more than 1.5 times of what it sent.
    #[test]
    fn lies_do_not_raise_the_estimate(
        steps in prop::collection::vec((any::<i64>(), any::<bool>(), lies(), 0_u64..300), 1..40),
    ) {
        let begin = Instant::now();
        let (mut now, mut bandwidth, mut number) = (begin, Bandwidth::new(begin), 0_u16);
        let mut reference = 0;
        for (random, is_wild, statuses, pause) in steps {
            for _ in 0..30 {
                // 1 Mbit/s, unevenly: 5,000 bytes each 40 ms.
                bandwidth.handle_sent(now, number, 4, 5000);
                number = number.wrapping_add(4);
                now += 40 * MS;
            }
            reference = if is_wild { random } else { reference + 4800 };
            bandwidth.handle_feedback(now, reference, statuses.into_iter());
            now += pause as u32 * MS;
            let _ = (bandwidth.padding_due(now), bandwidth.poll_timeout(), bandwidth.take_probe_outcome(now));
            let estimate = bandwidth.estimate(now).map_or(0, |estimate| estimate.bits_per_second);
            prop_assert!(estimate <= 1_900_000, "{}", estimate);
            if random % 7 == 0 {
                bandwidth.begin_probe(now, 3_000_000);
            }
        }
    }

    /// The most greedy lie: all arrives, at once.
    #[test]
    fn who_says_that_all_arrived_at_once_gets_no_more_either(every in 1_u16..9) {
        let begin = Instant::now();
        let (mut now, mut bandwidth) = (begin, Bandwidth::new(begin));
        for n in 0_u16..3000 {
            bandwidth.handle_sent(now, n * 4, 4, 5000);
            now += 40 * MS;
            if n % every == 0 {
                bandwidth.handle_feedback(now, i64::from(n) * 160, (n * 4..n * 4 + 4).map(|number| (number, Some(0))));
            }
        }
        let estimate = bandwidth.estimate(now).map_or(0, |estimate| estimate.bits_per_second);
        prop_assert!(estimate <= 1_700_000, "{}", estimate);
    }
}

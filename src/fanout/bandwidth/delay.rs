//! Whether the queue before the bottleneck grows, by the times at which bursts of packets arrive
//! (draft-ietf-rmcat-gcc-02 §5).

use std::array;

use super::Usage;

/// Packets that leave within it are a group (§5.2, `burst_time`).
const BURST_US: i32 = 5_000;

/// A group that arrives in one burst after a hold-up ends after so long (as in libwebrtc).
const LONGEST_BURST_US: i32 = 100_000;

/// No path is so uneven: the peer's clock jumped, or it makes its times up.
const ABSURD_US: i32 = 5_000_000;

/// Groups that a line is laid through, and the weight of the past in what it is laid through (as in libwebrtc, which
/// has replaced the Kalman filter of §5.3 by it).
const WINDOW: usize = 20;
const SMOOTHING: f32 = 0.9;

/// What makes a slope comparable to the threshold, in milliseconds (as in libwebrtc): groups that count at most, and a
/// gain.
const MOST_GROUPS: u16 = 60;
const GAIN: f32 = 4.0;

/// The threshold at first, its limits, and how fast it goes up and down (§5.4, `del_var_th(0)`, `K_u`, `K_d`).
const THRESHOLD_MS: f32 = 12.5;
const THRESHOLDS_MS: std::ops::RangeInclusive<f32> = 6.0..=600.0;
const GAIN_UP: f32 = 0.01;
const GAIN_DOWN: f32 = 0.000_18;

/// What is so far above the threshold does not move it (§5.4).
const SPIKE_MS: f32 = 15.0;

/// A steep slope is overuse if the queue is really longer: of the groups that arrived in the last 150 to 300 ms, the
/// fastest took so much longer than the fastest of all. The draft wants the slope to be steep for 10 ms instead (§5.4,
/// `overuse_time_th`), for senders that pace. Here a keyframe leaves within 33 ms at several times the mean rate, and
/// the queue that it makes goes away by itself; and jitter is a slope sometimes, but some packets come through without
/// it. Time is that of arrival: what waits in a long queue is known late, and what was sent in 100 ms may arrive within
/// 500.
const LONGER_MS: f32 = 30.0;
const RECENT_US: i32 = 150_000;

/// A queue that was never shorter for [`STANDING_US`] than this stands, however slowly it came.
const STANDING_MS: f32 = 60.0;
const STANDING_US: i32 = 500_000;

/// A queue that is so much longer is one, however it came: in each of the last four such pieces of the time of arrival
/// something arrived, and nothing that was faster. A slope through groups takes longer to see that, where frames are large
/// and all there is: on a path that is cut to a quarter each of them arrives for as long as four take to leave.
const LONG_MS: f32 = 60.0;
const PIECE_US: i32 = 50_000;
const PIECES: usize = 4;

/// The shortest delay is that of the last one to two such times: clocks drift and routes change.
const BASE_US: i32 = 10_000_000;

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: u32,
    last_sent: u32,
    first_arrival: u32,
    last_arrival: u32,
}

/// From one group to the next, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Step {
    sent: i32,
    arrived: i32,
}

/// The least of a time window, kept as the least of the half that runs and of the one before.
#[derive(Debug)]
struct Least {
    now: f32,
    before: f32,
    elapsed_us: i32,
}

impl Least {
    const fn new() -> Self {
        Self { now: f32::INFINITY, before: f32::INFINITY, elapsed_us: 0 }
    }

    /// Takes a value `us` after the one before; `true` if half a window was completed by it.
    fn add(&mut self, value: f32, us: i32, half_us: i32) -> bool {
        self.elapsed_us = self.elapsed_us.saturating_add(us.max(0));
        let is_over = self.elapsed_us >= half_us;
        if is_over {
            (self.before, self.now, self.elapsed_us) = (self.now, f32::INFINITY, 0);
        }
        self.now = self.now.min(value);
        is_over
    }

    fn get(&self) -> f32 {
        self.now.min(self.before)
    }
}

/// The delay of the fastest packet in each of the last pieces of time; infinite where none arrived.
#[derive(Debug)]
struct Fastest {
    /// The newest first.
    pieces: [f32; PIECES],
    /// When the newest began.
    began: Option<u32>,
}

impl Fastest {
    const fn new() -> Self {
        Self { pieces: [f32::INFINITY; PIECES], began: None }
    }

    fn add(&mut self, arrival: u32, delay_ms: f32) {
        match self.began.map(|began| (began, since(arrival, began) / PIECE_US)) {
            Some((began, passed)) if (passed.unsigned_abs() as usize) < PIECES => {
                // What was overtaken is of the same time as what it was overtaken by.
                let passed = passed.max(0);
                self.pieces.rotate_right(passed as usize);
                self.pieces[..passed as usize].fill(f32::INFINITY);
                self.began = Some(began.wrapping_add_signed(passed * PIECE_US));
            }
            _ => *self = Self { began: Some(arrival), ..Self::new() },
        }
        self.pieces[0] = self.pieces[0].min(delay_ms);
    }

    /// The least that no packet fell short of; `None` unless something arrived all the time.
    fn all_above(&self) -> Option<f32> {
        let is_all_known = self.pieces.iter().all(|piece| piece.is_finite());
        is_all_known.then(|| self.pieces.iter().copied().fold(f32::INFINITY, f32::min))
    }
}

/// The delay half of congestion control. Times are microseconds that wrap.
#[derive(Debug)]
pub(super) struct Delay {
    current: Option<Group>,
    /// The last group that is complete.
    previous: Option<Group>,
    /// Its one-way delay against that of the first group, in milliseconds.
    delay_ms: f32,
    smoothed_ms: f32,
    /// Arrival of the last group since the first, in milliseconds.
    at_ms: f32,
    points: [(f32, f32); WINDOW],
    next_point: u8,
    groups: u16,
    threshold_ms: f32,
    base: Least,
    standing: Least,
    recent: Least,
    fastest: Fastest,
    /// That the queue is long was said, and it is since.
    is_long: bool,
    usage: Usage,
}

impl Delay {
    pub(super) fn new() -> Self {
        Self {
            current: None,
            previous: None,
            delay_ms: 0.0,
            smoothed_ms: 0.0,
            at_ms: 0.0,
            points: array::from_fn(|_| (0.0, 0.0)),
            next_point: 0,
            groups: 0,
            threshold_ms: THRESHOLD_MS,
            base: Least::new(),
            standing: Least::new(),
            recent: Least::new(),
            fastest: Fastest::new(),
            is_long: false,
            usage: Usage::Normal,
        }
    }

    /// What the last groups show.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// How much longer packets take than the fastest of the last 10 to 20 s did.
    pub(super) fn queue_ms(&self) -> f32 {
        let queue = self.recent.get() - self.base.get();
        if queue.is_finite() { queue.max(0.0) } else { 0.0 }
    }

    /// The queue as it is now has a cause that is known and over: only what comes on top of it counts.
    pub(super) fn forgive(&mut self) {
        self.base = Least { now: self.recent.get().max(self.delay_ms), ..Least::new() };
        (self.standing, self.recent) = (Least::new(), Least::new());
        (self.fastest, self.is_long) = (Fastest::new(), false);
        (self.groups, self.smoothed_ms) = (0, self.delay_ms);
        self.usage = Usage::Normal;
    }

    /// A packet arrived. `true` if this shows overuse.
    pub(super) fn handle_arrival(&mut self, sent: u32, arrival: u32) -> bool {
        let lengthens = self.lengthens(sent, arrival);
        if lengthens {
            self.usage = Usage::Overuse;
        }
        self.completes_overuse(sent, arrival) || lengthens
    }

    /// A packet arrived. Whether the queue is long by now, and was not before.
    fn lengthens(&mut self, sent: u32, arrival: u32) -> bool {
        let Some(previous) = &self.previous else { return false };
        let later = since(arrival, previous.last_arrival).saturating_sub(since(sent, previous.last_sent));
        self.fastest.add(arrival, self.delay_ms + later as f32 / 1000.0);
        let Some(all_above) = self.fastest.all_above() else { return false };
        let was_long = std::mem::replace(&mut self.is_long, all_above - self.base.get() > LONG_MS);
        self.is_long && !was_long
    }

    /// A packet arrived. `true` if this completed a group that shows overuse.
    fn completes_overuse(&mut self, sent: u32, arrival: u32) -> bool {
        let Some(group) = &mut self.current else {
            self.current = Some(Group::of(sent, arrival));
            return false;
        };
        // The path reorders: what left before does not tell more.
        if since(sent, group.first_sent) < 0 {
            return false;
        }
        if group.has(sent, arrival) {
            group.add(sent, arrival);
            return false;
        }
        let complete = std::mem::replace(group, Group::of(sent, arrival));
        let Some(previous) = self.previous.replace(complete) else { return false };
        let step = Step {
            sent: since(complete.last_sent, previous.last_sent),
            arrived: since(complete.last_arrival, previous.last_arrival),
        };
        // Subtraction of what wraps may itself be anything.
        if step.arrived < 0 || step.arrived.saturating_sub(step.sent).saturating_abs() > ABSURD_US {
            if step.arrived < -ABSURD_US || step.arrived > ABSURD_US {
                *self = Self { threshold_ms: self.threshold_ms, ..Self::new() };
            }
            return false;
        }
        self.handle_step(step)
    }

    fn handle_step(&mut self, step: Step) -> bool {
        self.groups = self.groups.saturating_add(1);
        self.delay_ms += (step.arrived - step.sent) as f32 / 1000.0;
        self.at_ms += step.arrived as f32 / 1000.0;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.delay_ms;
        self.points[usize::from(self.next_point)] = (self.at_ms, self.smoothed_ms);
        self.next_point = (self.next_point + 1) % WINDOW as u8;
        let stands = self.stands(step);
        let slopes = self.slopes(step);
        self.usage = if stands { Usage::Overuse } else { slopes };
        if self.at_ms > 60_000.0 {
            self.rebase();
        }
        self.usage == Usage::Overuse
    }

    /// The queue has been long for half a second. Said once: from then on only what comes on top counts, so that a
    /// route that became longer is one mistake and not many. What drains finds the shortest delay again by itself.
    fn stands(&mut self, step: Step) -> bool {
        self.base.add(self.delay_ms, step.arrived, BASE_US);
        self.recent.add(self.delay_ms, step.arrived, RECENT_US);
        if !self.standing.add(self.delay_ms, step.arrived, STANDING_US) {
            return false;
        }
        let stands = self.standing.before - self.base.get() > STANDING_MS;
        if stands {
            self.base = Least { now: self.standing.before, ..Least::new() };
        }
        stands
    }

    /// The over-use detector of §5.4.
    fn slopes(&mut self, step: Step) -> Usage {
        if usize::from(self.groups) < WINDOW {
            return Usage::Normal;
        }
        let trend = self.slope() * f32::from(self.groups.min(MOST_GROUPS)) * GAIN;
        let found = if trend > self.threshold_ms {
            let is_longer = self.recent.get() - self.base.get() > LONGER_MS;
            if is_longer { Usage::Overuse } else { Usage::Normal }
        } else {
            if trend < -self.threshold_ms { Usage::Underuse } else { Usage::Normal }
        };
        self.adapt(trend.abs(), step);
        found
    }

    /// The threshold follows what the path is like, so that a competing TCP does not starve us (§5.4).
    fn adapt(&mut self, trend: f32, step: Step) {
        if trend > self.threshold_ms + SPIKE_MS {
            return;
        }
        let gain = if trend < self.threshold_ms { GAIN_DOWN } else { GAIN_UP };
        let elapsed_ms = (step.arrived as f32 / 1000.0).min(100.0);
        let moved = self.threshold_ms + gain * (trend - self.threshold_ms) * elapsed_ms;
        self.threshold_ms = moved.clamp(*THRESHOLDS_MS.start(), *THRESHOLDS_MS.end());
    }

    /// Least squares: milliseconds of delay for each millisecond.
    fn slope(&self) -> f32 {
        let n = WINDOW as f32;
        let (x, y) = self.points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
        let (over, under) = self.points.iter().fold((0.0, 0.0), |(over, under), point| {
            (over + (point.0 - x) * (point.1 - y), under + (point.0 - x) * (point.0 - x))
        });
        if under > 0.0 { over / under } else { 0.0 }
    }

    /// Counts from the last group on, before the numbers grow so large that they lose their fractions.
    fn rebase(&mut self) {
        let (at, delay) = (self.at_ms, self.delay_ms);
        for point in &mut self.points {
            *point = (point.0 - at, point.1 - delay);
        }
        for least in [&mut self.base, &mut self.standing, &mut self.recent] {
            (least.now, least.before) = (least.now - delay, least.before - delay);
        }
        for piece in &mut self.fastest.pieces {
            *piece -= delay;
        }
        (self.at_ms, self.delay_ms, self.smoothed_ms) = (0.0, 0.0, self.smoothed_ms - delay);
    }
}

/// From `before` to `now` on a clock that wraps.
pub(super) fn since(now: u32, before: u32) -> i32 {
    now.wrapping_sub(before).cast_signed()
}

impl Group {
    fn of(sent: u32, arrival: u32) -> Self {
        Self { first_sent: sent, last_sent: sent, first_arrival: arrival, last_arrival: arrival }
    }

    /// Whether a packet belongs to it: sent with it, or held up on the way until both arrived at once (§5.2).
    fn has(&self, sent: u32, arrival: u32) -> bool {
        let (sent_after, arrived_after) = (since(sent, self.last_sent), since(arrival, self.last_arrival));
        let came_at_once = arrived_after <= BURST_US
            && arrived_after < sent_after
            && since(arrival, self.first_arrival) < LONGEST_BURST_US;
        since(sent, self.first_sent) <= BURST_US || came_at_once
    }

    fn add(&mut self, sent: u32, arrival: u32) {
        if since(sent, self.last_sent) > 0 {
            self.last_sent = sent;
        }
        if since(arrival, self.last_arrival) > 0 {
            self.last_arrival = arrival;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group each 20 ms, delayed by so many microseconds each.
    fn feed(delay: &mut Delay, from: u32, delays: impl Iterator<Item = u32>) -> Vec<Usage> {
        let each = delays.zip(0_u32..).map(|(by, n)| {
            let sent = (from + n).wrapping_mul(20_000);
            delay.handle_arrival(sent, sent.wrapping_add(by));
            delay.usage()
        });
        each.collect()
    }

    #[test]
    fn a_delay_that_stays_is_normal_and_one_that_grows_is_overuse() {
        let mut delay = Delay::new();
        assert!(feed(&mut delay, 0, (0..200).map(|_| 40_000)).iter().all(|usage| *usage == Usage::Normal));
        let grows = feed(&mut delay, 200, (0..50).map(|n| 40_000 + n * 6_000));
        let first = grows.iter().position(|usage| *usage == Usage::Overuse).expect("overuse");
        assert!((5..=20).contains(&first), "{first}");
        let falls = feed(&mut delay, 250, (0..50).map(|n| 340_000 - n * 6_000));
        assert!(falls.contains(&Usage::Underuse));
    }

    /// Packets of frames that leave at once, 20 frames a second, as a link of so many packets a second lets them through. Returns for each
    /// how long after the first frame's leaving it arrived, in microseconds, and whether it showed overuse.
    fn feed_frames(delay: &mut Delay, frames: std::ops::Range<u32>, packets: u32, rate: u32) -> Vec<(u32, bool)> {
        let begun = frames.start.wrapping_mul(50_000);
        let (mut free, mut all) = (0, Vec::new());
        for frame in 0..frames.len() as u32 {
            let sent = frame * 50_000;
            for _ in 0..packets {
                free = free.max(sent) + 1_000_000 / rate;
                let overuse = delay.handle_arrival(begun.wrapping_add(sent), begun.wrapping_add(free + 20_000));
                all.push((free, overuse));
            }
        }
        all
    }

    #[test]
    fn frames_that_take_longer_to_arrive_than_to_come_are_a_long_queue_before_the_second_is_complete() {
        // Also where the clock is about to wrap, and beyond the middle of its circle.
        for start in [0, 43_000, 85_700] {
            let mut delay = Delay::new();
            let before = feed_frames(&mut delay, start..start + 200, 10, 300);
            assert!(before.iter().all(|(_, overuse)| !overuse));
            // 10 packets take 167 ms.
            let cut = feed_frames(&mut delay, start + 200..start + 240, 10, 60);
            let (after_us, _) = *cut.iter().find(|(_, overuse)| *overuse).expect("overuse");
            assert!((150_000..=300_000).contains(&after_us), "{after_us}");
        }
    }

    #[test]
    fn a_path_that_became_longer_is_a_long_queue_once() {
        let mut delay = Delay::new();
        feed(&mut delay, 0, (0..200).map(|_| 40_000));
        delay.fastest = Fastest::new();
        let long = (200..600_u32).filter(|n| delay.lengthens(n * 20_000, n * 20_000 + 140_000)).count();
        assert_eq!(long, 1);
    }

    #[test]
    fn what_was_held_up_and_comes_at_once_is_no_long_queue() {
        let mut delay = Delay::new();
        feed(&mut delay, 0, (0..200).map(|_| 40_000));
        // For 400 ms nothing arrives, and again a second later.
        for from in [200, 270] {
            let held = feed(&mut delay, from, (0..20).map(|n| 40_000 + 400_000 - n * 20_000));
            let then = feed(&mut delay, from + 20, (0..50).map(|_| 40_000));
            assert!(held.iter().chain(&then).all(|usage| *usage != Usage::Overuse), "{held:?} {then:?}");
        }
    }

    #[test]
    fn a_queue_that_grows_slowly_is_found_by_its_length_and_once() {
        let mut delay = Delay::new();
        feed(&mut delay, 0, (0..200).map(|_| 40_000));
        let slowly = feed(&mut delay, 200, (0..1500).map(|n| 40_000 + (n * 70).min(90_000)));
        let overuses = slowly.windows(2).filter(|two| two[0] != Usage::Overuse && two[1] == Usage::Overuse).count();
        assert_eq!(overuses, 1);
        assert!(delay.queue_ms() < 60.0);
    }

    #[test]
    fn the_shortest_delay_is_forgotten_when_a_route_has_become_longer() {
        let mut delay = Delay::new();
        feed(&mut delay, 0, (0..200).map(|_| 40_000));
        feed(&mut delay, 200, (0..200).map(|_| 90_000));
        assert!((45.0..55.0).contains(&delay.queue_ms()), "{}", delay.queue_ms());
        feed(&mut delay, 400, (0..1200).map(|_| 90_000));
        assert!(delay.queue_ms() < 1.0);
    }

    #[test]
    fn clocks_that_wrap_are_no_jump() {
        let mut delay = Delay::new();
        let start = u32::MAX / 20_000 - 100;
        assert!(feed(&mut delay, start, (0..200).map(|_| 40_000)).iter().all(|usage| *usage == Usage::Normal));
        assert!(delay.delay_ms.abs() < 1.0 + 20_000.0, "no step of an hour");
    }

    #[test]
    fn a_clock_that_jumps_begins_anew() {
        let mut delay = Delay::new();
        feed(&mut delay, 0, (0..100).map(|_| 40_000));
        feed(&mut delay, 100, (0..100).map(|_| 900_000_000));
        assert!(delay.delay_ms.abs() < 1.0, "{}", delay.delay_ms);
        assert_eq!(delay.usage(), Usage::Normal);
    }

    #[test]
    fn hours_later_a_slope_is_still_seen() {
        let mut delay = Delay::new();
        for n in 0..50 {
            feed(&mut delay, n * 10_000, (0..10_000).map(|_| 40_000));
        }
        assert!(feed(&mut delay, 500_000, (0..50).map(|n| 40_000 + n * 6_000)).contains(&Usage::Overuse));
    }
}

//! What becomes of each packet on a link.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use crate::conditions::{Bandwidth, Conditions, Loss, Probability};

/// When a packet arrives: not at all, once, or twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    first: Option<Instant>,
    second: Option<Instant>,
}

impl IntoIterator for Arrivals {
    type Item = Instant;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Instant>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        [self.first, self.second].into_iter().flatten()
    }
}

/// What has become of the packets so far: `taken` is the sum of `delivered` and the three ways to be lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets that came to the link.
    pub taken: u64,
    /// Packets that arrive, or will.
    pub delivered: u64,
    /// Lost at random or in a burst.
    pub lost: u64,
    /// Found the queue full.
    pub queue_full: u64,
    /// Came during a blackout.
    pub blacked_out: u64,
    /// Of those delivered: twice.
    pub duplicated: u64,
    /// Of those delivered: held up, so that others could overtake.
    pub held_up: u64,
    /// Bytes of the packets delivered, each counted once.
    pub bytes_delivered: u64,
}

/// One direction of a path.
///
/// A packet's fate is decided when it comes: new conditions hold for the packets that come after them. First it waits for its
/// turn in the queue of the bottleneck, then it may be lost, then it takes its time.
#[derive(Debug)]
pub struct Link {
    conditions: Conditions,
    dice: ChaCha8Rng,
    /// In the bad one of Gilbert's and Elliott's two states.
    is_bad: bool,
    /// What waits at the bottleneck or is being sent: when its last bit is gone, and its bytes. In rising order.
    waiting: VecDeque<(Instant, usize)>,
    waiting_bytes: usize,
    /// The latest arrival of a packet that others wait for.
    last_arrival: Option<Instant>,
    counts: Counts,
}

impl Link {
    /// A link of its own chance: two with the same seed treat the same packets alike.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            dice: ChaCha8Rng::seed_from_u64(seed),
            is_bad: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last_arrival: None,
            counts: Counts::default(),
        }
    }

    /// What it is like now.
    pub fn conditions(&self) -> Conditions {
        self.conditions
    }

    /// From now on it is like that. What is on its way arrives as it would have.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// What has become of the packets so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a packet of `bytes` at `now`, which never goes back, and says when it arrives.
    pub fn handle_packet(&mut self, now: Instant, bytes: usize) -> Arrivals {
        let dice = Dice::throw(&mut self.dice);
        self.counts.taken += 1;
        let is_lost = self.is_lost(&dice);
        let Some(sent) = self.pass_bottleneck(now, bytes) else {
            self.counts.queue_full += 1;
            return Arrivals::default();
        };
        if self.conditions.blackout {
            self.counts.blacked_out += 1;
            return Arrivals::default();
        }
        if is_lost {
            self.counts.lost += 1;
            return Arrivals::default();
        }
        let first = self.arrival(sent, &dice);
        // A second copy goes its own way, behind the first.
        let second = is(self.conditions.duplicates, dice.duplicate)
            .then(|| first + self.conditions.jitter.mul_f64(dice.second_jitter));
        self.counts.delivered += 1;
        self.counts.bytes_delivered += bytes as u64;
        self.counts.duplicated += u64::from(second.is_some());
        Arrivals { first: Some(first), second }
    }

    /// When the packet's last bit has left the queue; `None` if there is no room.
    fn pass_bottleneck(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        while self.waiting.front().is_some_and(|(sent, _)| *sent <= now) {
            self.waiting_bytes -= self.waiting.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        // What still waits for an earlier bottleneck is not overtaken.
        let free = self.waiting.back().map_or(now, |(sent, _)| *sent);
        let Some(Bandwidth { bits_per_second, queue }) = self.conditions.bandwidth else { return Some(free) };
        // A packet that finds nobody there is sent whatever the queue's size.
        if !self.waiting.is_empty() && self.waiting_bytes + bytes > queue {
            return None;
        }
        let sent = free + Duration::from_secs_f64(bytes as f64 * 8.0 / bits_per_second as f64);
        self.waiting.push_back((sent, bytes));
        self.waiting_bytes += bytes;
        Some(sent)
    }

    fn is_lost(&mut self, dice: &Dice) -> bool {
        match self.conditions.loss {
            Loss::None => false,
            Loss::Random(share) => is(share, dice.loss),
            Loss::GilbertElliott { to_bad, to_good, good, bad } => {
                self.is_bad = if self.is_bad { !is(to_good, dice.state) } else { is(to_bad, dice.state) };
                is(if self.is_bad { bad } else { good }, dice.loss)
            }
        }
    }

    fn arrival(&mut self, sent: Instant, dice: &Dice) -> Instant {
        let Conditions { delay, jitter, reordering, .. } = self.conditions;
        let arrival = sent + delay + jitter.mul_f64(dice.jitter);
        let in_order = arrival.max(self.last_arrival.unwrap_or(arrival));
        if is(reordering.share, dice.hold_up) {
            self.counts.held_up += 1;
            return in_order + reordering.by;
        }
        self.last_arrival = Some(in_order);
        in_order
    }
}

fn is(chance: Probability, die: f64) -> bool {
    die < chance.share()
}

/// The chances of one packet, all thrown for every packet: so the same ones are lost whatever else the link does to them, and
/// two runs that differ in one condition differ by that alone.
struct Dice {
    state: f64,
    loss: f64,
    jitter: f64,
    hold_up: f64,
    duplicate: f64,
    second_jitter: f64,
}

impl Dice {
    fn throw(dice: &mut ChaCha8Rng) -> Self {
        let [state, loss, jitter, hold_up, duplicate, second_jitter] = dice.random();
        Self { state, loss, jitter, hold_up, duplicate, second_jitter }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn link(conditions: &str) -> Link {
        Link::new(conditions.parse().unwrap(), 7)
    }

    /// Sends packets of 1000 bytes, one each `interval`; how long each took, `None` if it was lost.
    fn send(link: &mut Link, begin: Instant, count: u32, interval: Duration) -> Vec<Option<Duration>> {
        let one = |n| {
            let now = begin + interval * n;
            link.handle_packet(now, 1000).first.map(|at| at - now)
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_perfect_link_takes_no_time() {
        assert_eq!(send(&mut link(""), Instant::now(), 3, MS), [Some(Duration::ZERO); 3]);
    }

    #[test]
    fn jitter_is_spread_evenly_and_keeps_the_order() {
        let begin = Instant::now();
        let mut rare = link("delay=40ms jitter=30ms");
        let took = send(&mut rare, begin, 10_000, 100 * MS);
        let took: Vec<_> = took.into_iter().flatten().collect();
        assert!(took.iter().all(|t| (40 * MS..=70 * MS).contains(t)));
        let mean = took.iter().sum::<Duration>() / 10_000;
        assert!(mean > 54 * MS && mean < 56 * MS, "{mean:?}");
        let mut dense = link("delay=40ms jitter=30ms");
        let arrivals = (0..1000).map(|n| dense.handle_packet(begin + MS * n, 1000).first.unwrap());
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn random_loss_is_as_much_as_it_says() {
        let mut link = link("loss=5%");
        let lost = send(&mut link, Instant::now(), 100_000, MS).iter().filter(|took| took.is_none()).count();
        assert!((4700..5300).contains(&lost), "{lost}");
        assert_eq!(link.counts().lost, lost as u64);
    }

    #[test]
    fn bursts_are_as_long_and_as_many_as_they_say() {
        let took = send(&mut link("burst=5%/4"), Instant::now(), 200_000, MS);
        let lost = took.iter().filter(|t| t.is_none()).count() as f64;
        let bursts = took.windows(2).filter(|pair| pair[0].is_some() && pair[1].is_none()).count() as f64;
        assert!((0.045..0.055).contains(&(lost / 200_000.0)), "{lost}");
        assert!((3.7..4.3).contains(&(lost / bursts)), "{lost} in {bursts}");
    }

    #[test]
    fn a_bottleneck_sends_one_after_the_other_and_drops_what_finds_no_room() {
        let (begin, mut link) = (Instant::now(), link("rate=1mbit/4kB delay=10ms"));
        let took: Vec<_> = (0..6).map(|_| link.handle_packet(begin, 1000).first.map(|at| at - begin)).collect();
        assert_eq!(took, [Some(18 * MS), Some(26 * MS), Some(34 * MS), Some(42 * MS), None, None]);
        assert_eq!(link.counts().queue_full, 2);
        let later = begin + 9 * MS;
        assert_eq!(link.handle_packet(later, 1000).first, Some(begin + 50 * MS), "one is gone, and one has room");
        let idle = begin + Duration::from_secs(1);
        assert_eq!(link.handle_packet(idle, 5000).first, Some(idle + 50 * MS), "alone it needs no room");
    }

    #[test]
    fn a_faster_link_does_not_overtake_what_waits_for_the_slow_one() {
        let (begin, mut link) = (Instant::now(), link("rate=1mbit/4kB"));
        link.handle_packet(begin, 1000);
        link.set_conditions("rate=none".parse().unwrap());
        assert_eq!(link.handle_packet(begin, 1000).first, Some(begin + 8 * MS));
    }

    #[test]
    fn those_behind_do_not_wait_for_one_that_is_held_up() {
        let (begin, mut link) = (Instant::now(), link("reorder=10%/20ms"));
        let took = send(&mut link, begin, 10_000, MS);
        let held_up = took.iter().filter(|took| **took == Some(20 * MS)).count();
        assert!((900..1100).contains(&held_up), "{held_up}");
        assert_eq!(took.iter().filter(|took| **took == Some(Duration::ZERO)).count(), 10_000 - held_up);
        assert_eq!(link.counts().held_up, held_up as u64);
    }

    #[test]
    fn a_duplicate_comes_no_sooner_than_the_first() {
        let (begin, mut link) = (Instant::now(), link("duplicate=50% jitter=10ms"));
        let mut twice = 0;
        for n in 0..1000 {
            let arrivals = link.handle_packet(begin + MS * n, 1000);
            assert!(arrivals.into_iter().is_sorted());
            twice += u64::from(arrivals.into_iter().count() == 2);
        }
        assert!((400..600).contains(&twice));
        assert_eq!(link.counts().duplicated, twice);
    }

    #[test]
    fn the_same_packets_are_lost_whatever_else_the_link_does() {
        let lost = |conditions: &str| -> Vec<bool> {
            let mut link = link(conditions);
            let begin = Instant::now();
            let is_lost = |n| link.handle_packet(begin + 10 * MS * n, 1000).first.is_none();
            (0..1000).map(is_lost).collect()
        };
        let plain = lost("burst=5%/4");
        assert!(plain.contains(&true));
        for more in ["delay=40ms jitter=30ms", "reorder=10%/20ms", "duplicate=10%", "rate=3mbit/100kB"] {
            assert_eq!(lost(&format!("burst=5%/4 {more}")), plain, "{more}");
        }
    }

    #[test]
    fn after_a_blackout_all_is_as_if_there_had_been_none() {
        let begin = Instant::now();
        let fates = |blackout: &str| {
            let mut link = link(&format!("burst=30%/4 blackout={blackout}"));
            let during = send(&mut link, begin, 100, MS);
            link.set_conditions("burst=30%/4".parse().unwrap());
            (during, send(&mut link, begin + 100 * MS, 1000, MS))
        };
        let (dark, light) = (fates("on"), fates("off"));
        assert_eq!(dark.0, [None; 100]);
        assert_ne!(light.0, dark.0);
        assert_eq!(dark.1, light.1);
    }

    fn conditions() -> impl Strategy<Value = Conditions> {
        let percent = || 0u32..=100;
        (0u64..200, 0u64..100, percent(), percent(), percent(), prop::option::of((1u64..10_000, 0usize..50_000))).prop_map(
            |(delay, jitter, loss, reorder, duplicate, rate)| {
                let rate = rate.map_or("none".into(), |(rate, queue)| format!("{rate}kbit/{queue}B"));
                format!("delay={delay}ms jitter={jitter}ms loss={loss}% reorder={reorder}%/9ms duplicate={duplicate}% rate={rate}")
                    .parse()
                    .unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn every_packet_has_one_fate_and_none_arrives_before_its_time(
            plan in prop::collection::vec((conditions(), any::<bool>(), 0usize..50), 1..6),
            seed: u64,
        ) {
            let mut now = Instant::now();
            let mut twin = None;
            for _ in 0..2 {
                let mut link = Link::new(Conditions::default(), seed);
                let begin = now;
                let mut fates = Vec::new();
                for (conditions, blackout, packets) in &plan {
                    link.set_conditions(Conditions { blackout: *blackout, ..*conditions });
                    for n in 0..*packets {
                        now += MS * (n as u32 % 3);
                        let arrivals = link.handle_packet(now, 100 * n);
                        prop_assert!(arrivals.into_iter().all(|at| at >= now + conditions.delay));
                        fates.push(arrivals.into_iter().map(|at| at - begin).collect::<Vec<_>>());
                    }
                }
                let counts = link.counts();
                prop_assert_eq!(counts.taken, fates.len() as u64);
                prop_assert_eq!(counts.taken, counts.delivered + counts.lost + counts.queue_full + counts.blacked_out);
                prop_assert_eq!(counts.delivered, fates.iter().filter(|f| !f.is_empty()).count() as u64);
                prop_assert_eq!(counts.duplicated, fates.iter().filter(|f| f.len() == 2).count() as u64);
                prop_assert_eq!(&fates, twin.get_or_insert_with(|| fates.clone()), "the same seed, the same fates");
            }
        }
    }
}

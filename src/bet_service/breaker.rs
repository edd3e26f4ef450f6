//! A circuit breaker: a service that fails is spared, and signals for it are told so at once instead of waiting in vain.

use std::time::{Duration, Instant};

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Opens after so many failures in a row.
    pub consecutive: u32,
    /// Opens when at least this share of the requests of the last `window` failed, in percent.
    pub percent: u8,
    /// What is looked back at.
    pub window: Duration,
    /// Requests within the window below which the share says nothing.
    pub least: u32,
    /// How long nothing is sent, before one request tries whether the service is back.
    pub open: Duration,
}

/// What it does with requests. Exported as `tableside_bet_service_breaker{state}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum BreakerState {
    /// All are let through.
    #[default]
    Closed,
    /// None is.
    Open,
    /// One is, and the others wait for what becomes of it.
    HalfOpen,
}

impl BreakerState {
    /// Every state with its name, in the order of the discriminants.
    pub const ALL: [(BreakerState, &'static str); 3] =
        [(BreakerState::Closed, "closed"), (BreakerState::Open, "open"), (BreakerState::HalfOpen, "half_open")];
}

/// The right to ask about one signal, repetitions included. What became of that is told once, with [`Breaker::succeed`], [`Breaker::fail`] or
/// [`Breaker::forget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Permit {
    /// Counts changes of state: what comes back from before the last one says nothing of the service now.
    era: u64,
}

/// Counts failures and decides whether requests are sent.
///
/// ```text
///            failures                  time, then one request
///  ┌────────┐ ─────▶ ┌──────┐ ───────────────────▶ ┌───────────┐
///  │ closed │        │ open │                      │ half open │
///  └────────┘ ◀──┐   └──────┘ ◀─────── it failed ──└───────────┘
///                └────────────── it succeeded ───────────┘
/// ```
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: BreakerLimits,
    mode: Mode,
    era: u64,
    opened: u64,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Closed(Tally),
    Open { until: Instant },
    HalfOpen,
}

/// What became of requests lately, in two halves of the window: when the second is over, it becomes the first.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    in_a_row: u32,
    begun: Option<Instant>,
    halves: [Count; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: u32,
    failed: u32,
}

impl Breaker {
    /// A closed one.
    pub fn new(limits: BreakerLimits) -> Self {
        Self { limits, mode: Mode::Closed(Tally::default()), era: 0, opened: 0 }
    }

    /// What it does with requests.
    pub fn state(&self) -> BreakerState {
        match self.mode {
            Mode::Closed(_) => BreakerState::Closed,
            Mode::Open { .. } => BreakerState::Open,
            Mode::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// How often it has opened, not counting when a try failed.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// The right to send a request, if there is one.
    pub fn permit(&mut self, now: Instant) -> Option<Permit> {
        match self.mode {
            Mode::Closed(_) => {}
            Mode::Open { until } if until <= now => self.enter(Mode::HalfOpen),
            Mode::Open { .. } | Mode::HalfOpen => return None,
        }
        Some(Permit { era: self.era })
    }

    /// Whether a request may be repeated: not where the service is left alone meanwhile.
    pub fn allows(&self, permit: Permit) -> bool {
        permit.era == self.era || matches!(self.mode, Mode::Closed(_))
    }

    /// The service answered.
    pub fn succeed(&mut self, now: Instant, permit: Permit) {
        if permit.era != self.era {
            return;
        }
        match &mut self.mode {
            Mode::Closed(tally) => tally.count(now, self.limits.window, false),
            Mode::HalfOpen => self.enter(Mode::Closed(Tally::default())),
            Mode::Open { .. } => {}
        }
    }

    /// The service did not answer, or not as it should.
    pub fn fail(&mut self, now: Instant, permit: Permit) {
        if permit.era != self.era {
            return;
        }
        let until = now + self.limits.open;
        match &mut self.mode {
            Mode::Closed(tally) => {
                tally.count(now, self.limits.window, true);
                if tally.is_too_much(&self.limits) {
                    self.opened += 1;
                    self.enter(Mode::Open { until });
                }
            }
            Mode::HalfOpen => self.enter(Mode::Open { until }),
            Mode::Open { .. } => {}
        }
    }

    /// It was not sent after all, or nobody knows what became of it.
    pub fn forget(&mut self, now: Instant, permit: Permit) {
        if permit.era == self.era && matches!(self.mode, Mode::HalfOpen) {
            self.enter(Mode::Open { until: now });
        }
    }

    fn enter(&mut self, mode: Mode) {
        self.mode = mode;
        self.era += 1;
    }
}

impl Tally {
    fn count(&mut self, now: Instant, window: Duration, failed: bool) {
        let begun = *self.begun.get_or_insert(now);
        let halves = now.saturating_duration_since(begun).as_nanos() / (window / 2).as_nanos().max(1);
        if halves >= 1 {
            let before = if halves == 1 { self.halves[1] } else { Count::default() };
            self.halves = [before, Count::default()];
            self.begun = Some(now);
        }
        self.in_a_row = if failed { self.in_a_row + 1 } else { 0 };
        self.halves[1].all += 1;
        self.halves[1].failed += u32::from(failed);
    }

    fn is_too_much(&self, limits: &BreakerLimits) -> bool {
        let sum = |of: fn(&Count) -> u32| u64::from(of(&self.halves[0])) + u64::from(of(&self.halves[1]));
        let (all, failed) = (sum(|count| count.all), sum(|count| count.failed));
        let share = all >= u64::from(limits.least) && failed * 100 >= all * u64::from(limits.percent);
        self.in_a_row >= limits.consecutive || share
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: BreakerLimits =
        BreakerLimits { consecutive: 3, percent: 50, window: Duration::from_secs(10), least: 10, open: SECOND };

    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(LIMITS), Instant::now())
    }

    fn open() -> (Breaker, Instant) {
        let (mut breaker, now) = breaker();
        for _ in 0..3 {
            let permit = breaker.permit(now).unwrap();
            breaker.fail(now, permit);
        }
        assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 1));
        (breaker, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let (mut breaker, now) = breaker();
        for n in 0..9 {
            let permit = breaker.permit(now + n * 11 * SECOND).expect("closed");
            if n % 3 == 2 {
                breaker.succeed(now + n * 11 * SECOND, permit);
            } else {
                breaker.fail(now + n * 11 * SECOND, permit);
            }
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        let mut closed = Breaker::new(LIMITS);
        let before = closed.permit(now).unwrap();
        assert!(closed.allows(before));
        let (mut breaker, now) = open();
        assert_eq!((breaker.permit(now + SECOND / 2), breaker.allows(before)), (None, false));
    }

    #[test]
    fn a_share_of_failures_opens_it_once_there_are_enough_requests() {
        let (mut breaker, now) = breaker();
        for n in 0..10 {
            assert_eq!(breaker.state(), BreakerState::Closed, "after {n}");
            let permit = breaker.permit(now).unwrap();
            if n % 2 == 0 { breaker.succeed(now, permit) } else { breaker.fail(now, permit) }
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn what_is_longer_ago_than_the_window_is_forgotten() {
        let (mut breaker, now) = breaker();
        for n in 0..40 {
            // Half of them fail, a second or more apart: never ten in ten seconds.
            let at = now + n * SECOND * 3 / 2;
            let permit = breaker.permit(at).expect("closed");
            if n % 2 == 0 { breaker.succeed(at, permit) } else { breaker.fail(at, permit) }
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn after_its_time_one_request_tries_and_decides_for_all() {
        let (mut breaker, now) = open();
        let now = now + SECOND;
        let permit = breaker.permit(now).expect("the try");
        assert_eq!((breaker.state(), breaker.permit(now)), (BreakerState::HalfOpen, None));
        assert!(breaker.allows(permit), "the try may be repeated");
        breaker.fail(now, permit);
        assert_eq!((breaker.state(), breaker.permit(now + SECOND / 2)), (BreakerState::Open, None));
        let now = now + SECOND;
        let permit = breaker.permit(now).expect("the next try");
        breaker.succeed(now, permit);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.permit(now).is_some() && breaker.permit(now).is_some());
        assert_eq!(breaker.opened(), 1, "a try that fails is no new fault");
    }

    #[test]
    fn a_try_that_comes_to_nothing_leaves_room_for_the_next() {
        let (mut breaker, now) = open();
        let permit = breaker.permit(now + SECOND).expect("the try");
        breaker.forget(now + SECOND, permit);
        assert!(breaker.permit(now + SECOND).is_some());
    }

    #[test]
    fn what_was_sent_before_it_opened_does_not_close_it() {
        let (mut breaker, now) = breaker();
        let before = breaker.permit(now).unwrap();
        for _ in 0..3 {
            let permit = breaker.permit(now).unwrap();
            breaker.fail(now, permit);
        }
        breaker.succeed(now, before);
        assert_eq!(breaker.state(), BreakerState::Open);
        let permit = breaker.permit(now + SECOND).unwrap();
        breaker.fail(now + SECOND, before);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.succeed(now + SECOND, permit);
        breaker.fail(now + SECOND, before);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn names_are_in_the_order_of_the_discriminants() {
        assert!(BreakerState::ALL.iter().enumerate().all(|(n, (state, _))| *state as usize == n));
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Ask,
        Succeed(usize),
        Fail(usize),
        Forget(usize),
        Wait(u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => Just(Act::Ask),
            2 => (0..8_usize).prop_map(Act::Succeed),
            4 => (0..8_usize).prop_map(Act::Fail),
            1 => (0..8_usize).prop_map(Act::Forget),
            2 => (0..1500_u64).prop_map(Act::Wait),
        ];
        prop::collection::vec(act, 0..200)
    }

    proptest! {
        #[test]
        fn whatever_happens_an_open_one_sends_nothing_a_half_open_one_has_one_on_its_way_and_none_stays_open(
            acts in acts(),
        ) {
            let (mut breaker, mut now) = breaker();
            let mut under_way: Vec<Permit> = Vec::new();
            let mut opened_at = None;
            for act in acts {
                let before = breaker.state();
                match act {
                    Act::Ask => match breaker.permit(now) {
                        Some(permit) => {
                            prop_assert!(before != BreakerState::HalfOpen);
                            if before == BreakerState::Open {
                                let waited = opened_at.is_some_and(|at: Instant| now >= at + LIMITS.open);
                                prop_assert!(waited && breaker.state() == BreakerState::HalfOpen);
                            }
                            under_way.push(permit);
                        }
                        None => prop_assert!(before != BreakerState::Closed),
                    },
                    Act::Succeed(n) | Act::Fail(n) | Act::Forget(n) if !under_way.is_empty() => {
                        let permit = under_way.swap_remove(n % under_way.len());
                        match act {
                            Act::Succeed(_) => breaker.succeed(now, permit),
                            Act::Fail(_) => breaker.fail(now, permit),
                            _ => breaker.forget(now, permit),
                        }
                        if breaker.state() == BreakerState::Open && before != BreakerState::Open {
                            // Given up, the next may try at once.
                            let at_once = matches!(act, Act::Forget(_));
                            opened_at = Some(if at_once { now - LIMITS.open } else { now });
                        }
                    }
                    Act::Wait(ms) => now += Duration::from_millis(ms),
                    _ => {}
                }
                let current = under_way.iter().filter(|permit| permit.era == breaker.era).count();
                if breaker.state() == BreakerState::HalfOpen {
                    prop_assert_eq!(current, 1);
                }
            }
            // All that is under way comes to an end: then a request gets through.
            for permit in under_way {
                breaker.fail(now, permit);
            }
            prop_assert!(breaker.permit(now + LIMITS.open).is_some());
        }
    }
}

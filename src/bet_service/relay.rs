//! Signals on their way through a connector: how many at once, until when, how often, and what is told of those that
//! bring no answer. The same for every way to a service; a [`Transport`] asks it once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;

use crate::bets::{Outcome, Passed, PlayerId, TraceParent};
use crate::config::{BetService, BetServiceBreaker};
use crate::traces::{KeyValue, Span, SpanKind, Tracer};

use super::Said;
use super::backoff::{Backoff, chance};
use super::breaker::{Breaker, BreakerLimits, BreakerState, Permit};
use super::document::{Clocks, RequestId};
use super::report::{Failure, Meter, RequestResult};

/// Signals that wait until one of those under way is done. Beyond, they wait in the queue to the connector, and where
/// that is full they are refused.
const WAITING: usize = 1024;

/// What is not sent by then has no time to be answered: so long before its player is told `unconfirmed` it is refused.
const LAST_MOMENT: Duration = Duration::from_millis(250);

/// An attempt without an answer that had less says nothing of the service: its signal has waited here for most of its
/// time.
const FAIR: Duration = Duration::from_secs(1);

/// Between two attempts.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(30), longest: Duration::from_millis(400) };

/// What holds for all signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Signals that the service is asked about at once. Beyond their deadlines as many more are waited for.
    pub in_flight: usize,
    /// Attempts for each signal, the first among them.
    pub attempts: u32,
    /// How long an answer is awaited in all. Beyond the signal's deadline it comes to the player as a second ack.
    pub answer_timeout: Duration,
    /// When the service is left alone.
    pub breaker: BreakerLimits,
}

impl RelayLimits {
    /// Of a configuration.
    pub fn of(config: &BetService) -> Self {
        let BetServiceBreaker { consecutive_failures, failure_percent, window, least_requests, open } = config.breaker;
        Self {
            in_flight: config.max_in_flight,
            attempts: config.attempts,
            answer_timeout: config.answer_timeout,
            breaker: BreakerLimits {
                consecutive: consecutive_failures,
                percent: failure_percent,
                window,
                least: least_requests,
                open,
            },
        }
    }
}

/// One attempt to ask the service.
#[derive(Debug)]
pub struct Call<'a> {
    /// What the player says.
    pub passed: &'a Passed,
    /// The same for every attempt, and every repetition on any node.
    pub id: RequestId,
    /// Of this attempt.
    pub trace: TraceParent,
    /// Counted from 1.
    pub attempt: u32,
    /// Both clocks, to say when things were.
    pub clocks: &'a Clocks,
}

/// An attempt that brought no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub failure: Failure,
    /// Whether the service may have taken the signal. If in doubt, it may.
    pub maybe_taken: bool,
    /// Whether another attempt may bring one.
    pub again: bool,
    /// Whether it is about this request, and says nothing of the service.
    pub of_request: bool,
    /// How long the service wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failed {
    /// Nothing of it has reached the service.
    pub fn not_sent(failure: Failure) -> Self {
        Self { failure, maybe_taken: false, again: true, of_request: false, retry_after: None }
    }

    /// The service may have taken it.
    pub fn in_doubt(failure: Failure) -> Self {
        Self { maybe_taken: true, ..Self::not_sent(failure) }
    }

    /// Another attempt would bring the same.
    pub fn for_good(self) -> Self {
        Self { again: false, ..self }
    }

    /// Another request may do better.
    pub fn of_request(self) -> Self {
        Self { of_request: true, ..self.for_good() }
    }
}

/// A way to ask a service once.
pub trait Transport: Send + Sync + 'static {
    /// Asks. Whoever calls it limits the time, and drops it when that is over.
    fn ask(&self, call: Call<'_>) -> impl Future<Output = Result<Outcome, Failed>> + Send;
}

/// Serves until there are no more signals and those under way are done, or until nobody listens any more.
pub async fn relay<T: Transport>(
    transport: Arc<T>,
    limits: RelayLimits,
    mut requests: mpsc::Receiver<Passed>,
    said: mpsc::Sender<Said>,
    meter: Meter,
    tracer: Tracer,
    clocks: Clocks,
) {
    let (breaker, _) = watch::channel(BreakerState::Closed);
    let desk = Arc::new(Counter {
        transport,
        limits,
        slots: Semaphore::new(limits.in_flight),
        late: Semaphore::new(limits.in_flight),
        breaker: Mutex::new(Breaker::new(limits.breaker)),
        state: breaker,
        last_failure: AtomicUsize::new(Failure::Timeout as usize),
        last_player: Mutex::default(),
        meter,
        tracer,
        clocks,
    });
    let mut tasks = JoinSet::new();
    let mut open = true;
    while open || !tasks.is_empty() {
        tokio::select! {
            // Done ones first: they make room.
            biased;
            () = said.closed() => return,
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    // Its signal is unconfirmed by its deadline.
                    tracing::error!(%error, "a request to the bet service has failed");
                }
            }
            passed = requests.recv(), if open && tasks.len() < 2 * limits.in_flight + WAITING => match passed {
                Some(passed) => {
                    let (desk, said) = (Arc::clone(&desk), said.clone());
                    tasks.spawn(async move {
                        let word = desk.serve(passed).await;
                        // Only at the node's end is nobody listening.
                        let _ = said.send(word).await;
                    });
                }
                None => open = false,
            },
        }
    }
}

struct Counter<T> {
    transport: Arc<T>,
    limits: RelayLimits,
    slots: Semaphore,
    /// For those that wait on after their deadline, so that they take no slot from who comes then.
    late: Semaphore,
    breaker: Mutex<Breaker>,
    /// For those who wait for a slot.
    state: watch::Sender<BreakerState>,
    /// [`Failure`] discriminant: what the log says when the breaker opens.
    last_failure: AtomicUsize,
    /// Whose signal failed last. It may be what that player sends: further ones of the same player do not count.
    last_player: Mutex<Option<PlayerId>>,
    meter: Meter,
    tracer: Tracer,
    clocks: Clocks,
}

impl<T: Transport> Counter<T> {
    /// What there is to say of a signal.
    async fn serve(&self, passed: Passed) -> Said {
        // The desk has named one; who asks without a desk gets one here.
        let parent = passed.signal.trace.unwrap_or_else(|| self.tracer.begin(None).as_parent());
        let outcome = self.outcome(&passed, parent).await;
        let (result, said) = match outcome {
            Ok(outcome) => {
                let accepted = outcome == Outcome::Accepted;
                let result = if accepted { RequestResult::Accepted } else { RequestResult::Rejected };
                (result, Said::Answer { ticket: passed.ticket, outcome })
            }
            Err(false) => (RequestResult::NotSent, Said::NotSent(passed.ticket)),
            Err(true) => (RequestResult::Lost, Said::Lost(passed.ticket)),
        };
        self.meter.request(result);
        let (player, signal) = (&passed.player, &passed.signal);
        tracing::debug!(
            playerId = self.tracer.player(player), betId = %signal.bet_id, roundId = %signal.round_id,
            traceId = %parent.trace, table = &*passed.table, result = result.as_str(), "bet service asked"
        );
        said
    }

    /// # Errors
    /// Whether the service may have taken the signal.
    async fn outcome(&self, passed: &Passed, parent: TraceParent) -> Result<Outcome, bool> {
        let mut slot = self.slot(passed).await;
        if slot.is_none() {
            return Err(false);
        }
        let _in_flight = self.meter.begin();
        let Some(mut pass) = self.pass() else {
            self.meter.failure(Failure::BreakerOpen);
            return Err(false);
        };
        let id = RequestId::of(passed);
        let mut maybe_taken = false;
        for attempt in 1.. {
            if attempt > 1 {
                if !pass.allows() {
                    self.meter.failure(Failure::BreakerOpen);
                    break;
                }
                self.meter.retry();
            }
            let (active, begin) = (self.tracer.begin_part(parent), now());
            let call = Call { passed, id, trace: active.as_parent(), attempt, clocks: &self.clocks };
            let answer = self.ask(call, &mut pass, &mut slot).await;
            self.tracer.end(&active, || {
                let (status, failure) = match &answer {
                    Ok(outcome) => (Some(KeyValue::new("status", outcome.status().as_str())), None),
                    Err(failed) => (None, Some(failed.failure.as_str())),
                };
                let number = KeyValue::new("attempt", i64::from(attempt));
                let attributes = [Some(number), status].into_iter().flatten().collect();
                let (name, kind) = ("ask the bet service", SpanKind::Client);
                Span { active, name, kind, begin, end: now(), failure, attributes }
            });
            let failed = match answer {
                Ok(outcome) => return Ok(outcome),
                Err(failed) => failed,
            };
            maybe_taken |= failed.maybe_taken;
            let wait = BACKOFF.delay(attempt, chance()).max(failed.retry_after.unwrap_or_default());
            let in_time = now() + wait + LAST_MOMENT <= passed.deadline;
            if !failed.again || attempt >= self.limits.attempts || !in_time {
                if !failed.of_request {
                    pass.fail(&passed.player);
                }
                break;
            }
            tokio::time::sleep(wait).await;
        }
        Err(maybe_taken)
    }

    /// Waits for one of the slots, as long as the signal has time and the service is not left alone.
    async fn slot(&self, passed: &Passed) -> Option<SemaphorePermit<'_>> {
        let last = passed.deadline.checked_sub(LAST_MOMENT).unwrap_or(passed.deadline);
        // It may have waited in the queue to here.
        if now() >= last {
            self.meter.failure(Failure::Busy);
            return None;
        }
        if let Ok(slot) = self.slots.try_acquire() {
            return Some(slot);
        }
        let mut state = self.state.subscribe();
        let failure = tokio::select! {
            biased;
            slot = self.slots.acquire() => match slot {
                // It may have waited for long.
                Ok(slot) if now() < last => return Some(slot),
                _ => Failure::Busy,
            },
            _ = state.wait_for(|state| *state == BreakerState::Open) => Failure::BreakerOpen,
            () = tokio::time::sleep_until(last.into()) => Failure::Busy,
        };
        self.meter.failure(failure);
        None
    }

    /// Asks once. The breaker is told by the signal's deadline, and the slot is free from then on: an answer that comes
    /// later is for the player alone.
    async fn ask(
        &self,
        call: Call<'_>,
        pass: &mut Pass<'_, T>,
        slot: &mut Option<SemaphorePermit<'_>>,
    ) -> Result<Outcome, Failed> {
        let (begun, passed, timeout) = (now(), call.passed, self.limits.answer_timeout);
        let until = passed.until.min(begun + timeout);
        let deadline = passed.deadline.min(until);
        let mut answer = std::pin::pin!(self.transport.ask(call));
        let in_time = tokio::time::timeout_at(deadline.into(), &mut answer).await;
        let (answer, late) = match in_time {
            Ok(answer) => (answer, false),
            Err(_) => {
                self.failed(Failure::Timeout);
                if deadline.saturating_duration_since(begun) >= FAIR.min(timeout) {
                    pass.fail(&passed.player);
                }
                pass.forget();
                *slot = None;
                // The deadline is over by now, so there is no attempt after this one.
                let unanswered = Err(Failed::in_doubt(Failure::Timeout).for_good());
                let Ok(_late) = self.late.try_acquire() else { return unanswered };
                match tokio::time::timeout_at(until.into(), answer).await {
                    Ok(answer) => (answer, true),
                    Err(_) => return unanswered,
                }
            }
        };
        match &answer {
            Ok(_) => {
                self.meter.answered(now().saturating_duration_since(begun));
                pass.succeed();
            }
            Err(failed) if !late => self.failed(failed.failure),
            Err(_) => {}
        }
        answer
    }

    fn failed(&self, failure: Failure) {
        self.meter.failure(failure);
        self.last_failure.store(failure as usize, Ordering::Relaxed);
    }

    fn pass(&self) -> Option<Pass<'_, T>> {
        let permit = self.with_breaker(|breaker| breaker.permit(now()))?;
        Some(Pass { desk: self, permit: Some(permit) })
    }

    fn with_breaker<R>(&self, act: impl FnOnce(&mut Breaker) -> R) -> R {
        let mut breaker: MutexGuard<'_, Breaker> = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let before = breaker.state();
        let result = act(&mut breaker);
        let after = breaker.state();
        if before != after {
            self.meter.breaker(&breaker);
            self.state.send_replace(after);
            match (before, after) {
                (BreakerState::Closed, _) => {
                    let failure = Failure::ALL[self.last_failure.load(Ordering::Relaxed)].1;
                    tracing::warn!(failure, "the bet service fails: the circuit breaker is open, bets are refused");
                }
                (_, BreakerState::Closed) => tracing::info!("the bet service is back: the circuit breaker is closed"),
                _ => {}
            }
        }
        result
    }
}

/// A permit of the breaker that is given back, whatever becomes of the signal. What it is told after that is of no
/// account.
struct Pass<'a, T: Transport> {
    desk: &'a Counter<T>,
    permit: Option<Permit>,
}

impl<T: Transport> Pass<'_, T> {
    /// Whether the service may be asked again.
    fn allows(&self) -> bool {
        self.permit.is_some_and(|permit| self.desk.with_breaker(|breaker| breaker.allows(permit)))
    }

    fn succeed(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.desk.with_breaker(|breaker| breaker.succeed(now(), permit));
        }
    }

    fn fail(&mut self, player: &PlayerId) {
        let Some(permit) = self.permit.take() else { return };
        let last = self.desk.last_player.lock().unwrap_or_else(PoisonError::into_inner).replace(player.clone());
        self.desk.with_breaker(|breaker| {
            let is_same_again = breaker.state() == BreakerState::Closed && last.as_ref() == Some(player);
            let tell = if is_same_again { Breaker::forget } else { Breaker::fail };
            tell(breaker, now(), permit);
        });
    }

    fn forget(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.desk.with_breaker(|breaker| breaker.forget(now(), permit));
        }
    }
}

impl<T: Transport> Drop for Pass<'_, T> {
    fn drop(&mut self) {
        self.forget();
    }
}

#[expect(clippy::disallowed_methods, reason = "the connectors' clock; that of tokio, which tests may set")]
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::bet_service::document::tests::passed;
    use crate::config::Log;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: RelayLimits = RelayLimits {
        in_flight: 4,
        attempts: 3,
        answer_timeout: Duration::from_secs(5),
        breaker: BreakerLimits {
            consecutive: 5,
            percent: 50,
            window: Duration::from_secs(10),
            least: 1000,
            open: SECOND,
        },
    };

    /// What a service does with a key, attempt by attempt; the last for all further ones.
    #[derive(Clone, Copy)]
    enum Does {
        Accepts,
        AcceptsAfter(Duration),
        Fails(Failed),
        Hangs,
    }

    struct Scripted {
        script: HashMap<&'static str, Vec<Does>>,
        asked: AtomicU32,
    }

    impl Transport for Scripted {
        async fn ask(&self, call: Call<'_>) -> Result<Outcome, Failed> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let script = &self.script[call.passed.signal.key.as_str()];
            match script[(call.attempt as usize - 1).min(script.len() - 1)] {
                Does::Accepts => Ok(Outcome::Accepted),
                Does::AcceptsAfter(wait) => {
                    tokio::time::sleep(wait).await;
                    Ok(Outcome::Accepted)
                }
                Does::Fails(failed) => Err(failed),
                Does::Hangs => std::future::pending().await,
            }
        }
    }

    struct Service {
        transport: Arc<Scripted>,
        requests: mpsc::Sender<Passed>,
        said: mpsc::Receiver<Said>,
        meter: Meter,
        task: tokio::task::JoinHandle<()>,
    }

    fn service(limits: RelayLimits, script: &[(&'static str, &[Does])]) -> Service {
        let script = script.iter().map(|(key, does)| (*key, does.to_vec())).collect();
        let transport = Arc::new(Scripted { script, asked: AtomicU32::new(0) });
        let ((requests, passed), (sayings, said)) = (mpsc::channel(16_384), mpsc::channel(16_384));
        let (meter, clocks) = (Meter::default(), Clocks { monotonic: now(), unix: Duration::ZERO });
        let task = tokio::spawn(relay(
            transport.clone(),
            limits,
            passed,
            sayings,
            meter.clone(),
            Tracer::off(&Log::default()),
            clocks,
        ));
        Service { transport, requests, said, meter, task }
    }

    impl Service {
        /// Of a player of its own.
        async fn send(&self, key: &str) {
            static PLAYERS: AtomicU32 = AtomicU32::new(0);
            self.send_of(&format!("player-{}", PLAYERS.fetch_add(1, Ordering::Relaxed)), key).await;
        }

        async fn send_of(&self, player: &str, key: &str) {
            self.requests.send(passed(now(), player, "r", key)).await.unwrap();
        }

        async fn word(&mut self) -> &'static str {
            match self.said.recv().await.expect("a word") {
                Said::Answer { outcome: Outcome::Accepted, .. } => "accepted",
                Said::NotSent(_) => "not sent",
                Said::Lost(_) => "lost",
                other => panic!("{other:?}"),
            }
        }

        async fn asked(&mut self, key: &str) -> (&'static str, u32) {
            let before = self.transport.asked.load(Ordering::Relaxed);
            self.send(key).await;
            let word = self.word().await;
            (word, self.transport.asked.load(Ordering::Relaxed) - before)
        }
    }

    const FAILED: Failed = Failed {
        failure: Failure::NotConnected,
        maybe_taken: false,
        again: true,
        of_request: false,
        retry_after: None,
    };
    const REFUSED: Does = Does::Fails(FAILED);
    const BROKEN: Does = Does::Fails(Failed { failure: Failure::Broken, maybe_taken: true, ..FAILED });
    const NOBODY: Does = Does::Fails(Failed { failure: Failure::NoResponders, again: false, ..FAILED });
    const OF_REQUEST: Does =
        Does::Fails(Failed { failure: Failure::Status, maybe_taken: true, again: false, of_request: true, ..FAILED });

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tried_again_and_if_all_fail_doubt_is_told_as_doubt() {
        let mut limits = LIMITS;
        limits.breaker.consecutive = 100;
        let away = Does::Fails(Failed { retry_after: Some(3 * SECOND), ..Failed::not_sent(Failure::Unavailable) });
        let mut service = service(
            limits,
            &[
                ("good", &[Does::Accepts]),
                ("second", &[REFUSED, Does::Accepts]),
                ("third", &[BROKEN, REFUSED, Does::Accepts]),
                ("never", &[REFUSED]),
                ("doubt", &[BROKEN, REFUSED]),
                ("nobody", &[NOBODY]),
                ("away", &[away, Does::Accepts]),
            ],
        );
        assert_eq!(service.asked("good").await, ("accepted", 1));
        assert_eq!(service.asked("second").await, ("accepted", 2));
        assert_eq!(service.asked("third").await, ("accepted", 3));
        assert_eq!(service.asked("never").await, ("not sent", 3));
        assert_eq!(service.asked("doubt").await, ("lost", 3));
        assert_eq!(service.asked("nobody").await, ("not sent", 1));
        assert_eq!(service.asked("away").await, ("not sent", 1), "it wants more time than the signal has");
        let report = service.meter.report();
        assert_eq!((report.requests, report.retries, report.in_flight), ([3, 0, 3, 1], 7, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_told_and_one_that_never_comes_is_lost() {
        let mut service = service(
            LIMITS,
            &[
                ("slow", &[Does::AcceptsAfter(SECOND)]),
                ("late", &[Does::AcceptsAfter(4 * SECOND)]),
                ("hangs", &[Does::Hangs]),
            ],
        );
        let begun = now();
        for (key, word, seconds) in [("slow", "accepted", 1), ("late", "accepted", 5), ("hangs", "lost", 10)] {
            assert_eq!(service.asked(key).await, (word, 1));
            assert_eq!(now().duration_since(begun).as_millis() / 100, seconds * 10, "{key}");
        }
        let report = service.meter.report();
        assert_eq!((report.failures[Failure::Timeout as usize], report.answer_time.count()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_service_is_left_alone_after_a_few_deadlines_and_those_who_wait_are_told_at_once() {
        let mut service = service(LIMITS, &[("hangs", &[Does::Hangs]), ("good", &[Does::Accepts])]);
        let begun = now();
        for _ in 0..50 {
            service.send("hangs").await;
        }
        let mut words = HashMap::new();
        for _ in 0..50 {
            *words.entry(service.word().await).or_insert(0) += 1;
            assert!(now().duration_since(begun) <= Duration::from_millis(5100));
        }
        assert_eq!(words, HashMap::from([("lost", 4), ("not sent", 46)]), "four at once, and no time for the others");
        // Four failures in a row: the fifth opens the breaker.
        assert_eq!(service.asked("hangs").await, ("lost", 1));
        assert_eq!(service.asked("good").await, ("accepted", 1), "a try, since the breaker has been open for longer");
        assert_eq!(service.meter.report().breaker_opened, 1);
        assert_eq!(service.meter.report().breaker, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_breaker_is_open_nothing_is_sent_and_what_waits_for_a_slot_is_told() {
        let mut limits = LIMITS;
        (limits.in_flight, limits.breaker.consecutive, limits.attempts) = (3, 3, 1);
        let mut service = service(limits, &[("hangs", &[Does::Hangs]), ("good", &[Does::Accepts])]);
        for _ in 0..3 {
            service.send("hangs").await;
        }
        // These come later: at the deadline of the first three they still have time.
        tokio::time::sleep(SECOND).await;
        let begun = now();
        for _ in 0..20 {
            service.send("good").await;
        }
        for _ in 0..20 {
            assert_eq!(service.word().await, "not sent");
        }
        assert_eq!(now().duration_since(begun).as_millis() / 10, 100, "as soon as the breaker opens");
        assert_eq!(service.transport.asked.load(Ordering::Relaxed), 3);
        for _ in 0..3 {
            assert_eq!(service.word().await, "lost");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn late_answers_take_no_place_from_who_comes_after_the_deadline() {
        let mut limits = LIMITS;
        (limits.answer_timeout, limits.breaker.consecutive) = (30 * SECOND, 4);
        let mut service = service(limits, &[("hangs", &[Does::Hangs]), ("good", &[Does::Accepts])]);
        for _ in 0..4 {
            service.send("hangs").await;
        }
        tokio::time::sleep(2 * SECOND + 500 * MS).await;
        assert_eq!(service.meter.report().breaker, BreakerState::Open);
        assert_eq!(service.asked("good").await, ("not sent", 0));
        tokio::time::sleep(SECOND).await;
        assert_eq!(service.asked("good").await, ("accepted", 1), "the service is back after its second");
        assert_eq!((service.meter.report().breaker, service.meter.report().in_flight), (BreakerState::Closed, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_late_answers_are_waited_for_than_may() {
        let mut limits = LIMITS;
        (limits.in_flight, limits.answer_timeout, limits.breaker.consecutive) = (2, 30 * SECOND, 100);
        let mut service = service(limits, &[("hangs", &[Does::Hangs])]);
        let begun = now();
        for round in 0..3 {
            for _ in 0..2 {
                service.send("hangs").await;
            }
            tokio::time::sleep(2 * SECOND + MS).await;
            assert!(service.meter.report().in_flight <= 2, "round {round}");
        }
        for seconds in [6, 6, 6, 6, 30, 30] {
            assert_eq!(service.word().await, "lost");
            assert_eq!(
                now().duration_since(begun).as_secs(),
                seconds,
                "the first two are waited for, the others are not"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_counts_once_for_the_breaker_and_a_player_until_another_fails() {
        let broken = Does::Fails(Failed { maybe_taken: true, failure: Failure::Status, ..FAILED });
        let script: &[(&str, &[Does])] =
            &[("poison", &[broken]), ("wrong", &[OF_REQUEST]), ("good", &[Does::Accepts]), ("hangs", &[Does::Hangs])];
        let mut service = service(LIMITS, script);
        for _ in 0..4 {
            assert_eq!(service.asked("poison").await, ("lost", 3));
        }
        for _ in 0..20 {
            assert_eq!(service.asked("wrong").await, ("lost", 1), "about the request, not about the service");
        }
        assert_eq!(service.asked("good").await, ("accepted", 1), "four signals have failed, with three attempts each");
        for _ in 0..20 {
            service.send_of("eve", "poison").await;
            assert_eq!(service.word().await, "lost");
        }
        assert_eq!(service.meter.report().breaker, BreakerState::Closed);
        for _ in 0..4 {
            assert_eq!(service.asked("poison").await.0, "lost");
        }
        assert_eq!(service.meter.report().breaker, BreakerState::Open, "five in a row, of five players");
    }

    #[tokio::test(start_paused = true)]
    async fn who_had_no_time_left_says_nothing_of_the_service() {
        let mut service = service(LIMITS, &[("slow", &[Does::AcceptsAfter(700 * MS)]), ("hangs", &[Does::Hangs])]);
        // Of a service that needs 0.7 s, four at a time: the third four have half a second left.
        for _ in 0..12 {
            service.send("slow").await;
        }
        for _ in 0..12 {
            assert_eq!(service.word().await, "accepted");
        }
        let report = service.meter.report();
        assert_eq!((report.failures[Failure::Timeout as usize], report.breaker), (4, BreakerState::Closed));
        for _ in 0..2 {
            assert_eq!(service.asked("hangs").await.0, "lost");
        }
        assert_eq!(service.meter.report().breaker, BreakerState::Closed, "two failures, not six");
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_are_all_told_and_no_more_are_under_way_than_may() {
        let mut service = service(LIMITS, &[("slow", &[Does::AcceptsAfter(Duration::from_millis(1))])]);
        let signals = 5000;
        let mut peak = 0;
        for _ in 0..signals {
            service.send("slow").await;
        }
        let (mut accepted, mut not_sent) = (0, 0);
        for _ in 0..signals {
            match service.word().await {
                "accepted" => accepted += 1,
                "not sent" => not_sent += 1,
                other => panic!("{other}"),
            }
            peak = peak.max(service.meter.report().in_flight);
        }
        assert_eq!((accepted + not_sent, peak), (signals, 4));
        // Four each millisecond, as long as there is time.
        assert!((4000..=signals).contains(&accepted), "{accepted}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_waited_too_long_is_not_sent() {
        let mut service = service(LIMITS, &[("good", &[Does::Accepts])]);
        let stale = passed(now(), "ann", "r", "good");
        tokio::time::sleep(2 * SECOND).await;
        service.requests.send(stale).await.unwrap();
        assert_eq!((service.word().await, service.transport.asked.load(Ordering::Relaxed)), ("not sent", 0));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_there_are_no_more_signals_and_those_under_way_are_done_or_when_nobody_listens() {
        let script: &[(&str, &[Does])] = &[("slow", &[Does::AcceptsAfter(SECOND)]), ("hangs", &[Does::Hangs])];
        let first = service(LIMITS, script);
        first.send("slow").await;
        let Service { requests, mut said, task, .. } = first;
        drop(requests);
        assert!(matches!(said.recv().await, Some(Said::Answer { .. })), "what is under way is told");
        task.await.expect("it ends");

        let second = service(LIMITS, script);
        second.send("hangs").await;
        let Service { said, task, requests, .. } = second;
        drop(said);
        task.await.expect("it ends");
        assert!(requests.is_closed());
    }
}

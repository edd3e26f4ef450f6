//! The desk's side of the audit trail: what is recorded of each signal, and which outcomes wait until their records are
//! durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Level;

use crate::audit::{Recorder, Status};
use crate::bets::audit::{Digest, SignalRecord, Subject};
use crate::bets::{Answer, Status as OutcomeStatus};
use crate::shard::{ShardId, SlotKey};
use crate::traces::{Active, KeyValue, Span, SpanKind, Tracer};

use super::shard_thread::NodeBet;

/// How long an outcome waits for a disk. Then it is told all the same: a player must have one, and the service has decided.
const HOLD_LIMIT: Duration = Duration::from_secs(1);

/// Where an answer goes, and what its record says besides.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) to: (ShardId, SlotKey),
    /// What the edge does for it, from its arrival to its outcome.
    pub(super) active: Active,
    /// Only where somebody wants to know: the trail, a trace, a log line.
    subject: Option<Arc<Subject>>,
}

/// One connection is one origin, whichever of its signals is meant.
impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.to == other.to
    }
}

/// Records outcomes on their way to the players. Without a trail it lets them pass.
#[derive(Debug)]
pub(super) struct Ledger {
    recorder: Option<Recorder>,
    tracer: Tracer,
    /// One reading of the monotonic clock and of the time of day, which is counted from 1970: what acks are told by.
    epoch: (Instant, Duration),
    /// Outcomes whose records are not durable, with the number of the record, and since when.
    held: VecDeque<(u64, Instant, Answer<Origin>)>,
    ready: VecDeque<Answer<Origin>>,
}

impl Ledger {
    pub(super) fn new(recorder: Option<Recorder>, tracer: Tracer, epoch: (Instant, Duration)) -> Self {
        Self { recorder, tracer, epoch, held: VecDeque::new(), ready: VecDeque::new() }
    }

    /// What is to be remembered of a signal.
    pub(super) fn origin(&self, bet: &NodeBet) -> Origin {
        let active = self.tracer.begin(bet.signal.trace);
        let is_told_of = self.recorder.is_some() || self.tracer.records(&active) || tracing::enabled!(Level::DEBUG);
        let subject = is_told_of.then(|| {
            Arc::new(Subject {
                player: bet.player.clone(),
                table: bet.table.clone(),
                round: bet.signal.round_id.clone(),
                key: bet.signal.key.clone(),
                client_ts: bet.signal.client_ts,
                message: Digest::of(bet.signal.text().as_bytes()),
                last_mile: bet.last_mile,
            })
        });
        Origin { to: bet.from, active, subject }
    }

    /// Whether a bet may be passed on: what cannot be recorded is not to happen, if the configuration says so.
    pub(super) fn admits(&self) -> bool {
        self.recorder.as_ref().is_none_or(Recorder::admits)
    }

    /// An outcome is decided.
    pub(super) fn settle(&mut self, now: Instant, answer: Answer<Origin>) {
        if let Some(subject) = &answer.to.subject {
            self.log(&answer, subject);
        }
        let Some(recorder) = &mut self.recorder else { return self.let_go(now, answer) };
        if let Some(subject) = &answer.to.subject {
            let (epoch, unix) = self.epoch;
            let received = unix + answer.stamps.edge_in.saturating_duration_since(epoch);
            let record = SignalRecord::new(&answer, subject, received, now, recorder.names());
            recorder.record(Box::new(record));
        }
        if recorder.waits() {
            self.held.push_back((recorder.given(), now, answer));
            self.release(now);
        } else {
            self.let_go(now, answer);
        }
    }

    fn log(&self, answer: &Answer<Origin>, subject: &Subject) {
        let Answer { to: Origin { active, .. }, bet_id, outcome, late, .. } = answer;
        let (status, reason) = (outcome.status().as_str(), outcome.reason());
        tracing::debug!(
            playerId = self.tracer.player(&subject.player), betId = %bet_id, roundId = %subject.round,
            traceId = %active.trace, table = &*subject.table, status, reason, late, "bet outcome"
        );
    }

    /// It may be told: with that the edge has done its part.
    fn let_go(&mut self, now: Instant, answer: Answer<Origin>) {
        if let Some(subject) = &answer.to.subject {
            self.trace(now, &answer, subject);
        }
        self.ready.push_back(answer);
    }

    fn trace(&self, now: Instant, answer: &Answer<Origin>, subject: &Subject) {
        let Answer { to: Origin { active, .. }, bet_id, outcome, stamps, late } = answer;
        let (status, reason) = (outcome.status(), outcome.reason());
        // The signal's own span has ended by then.
        let late_word = late.then(|| self.tracer.begin_part(active.as_parent()));
        self.tracer.end(&late_word.unwrap_or(*active), || {
            let texts = [
                ("betId", Some(bet_id.to_string())),
                ("roundId", Some(subject.round.to_string())),
                ("table", Some(subject.table.to_string())),
                ("playerId", self.tracer.player(&subject.player)),
                ("status", Some(status.as_str().to_owned())),
                ("reason", reason.map(str::to_owned)),
            ];
            let texts = texts.into_iter().filter_map(|(key, text)| Some(KeyValue::new(key, text?)));
            let times = [("upstreamMs", stamps.upstream()), ("lastMileMs", subject.last_mile)];
            let times =
                times.into_iter().filter_map(|(key, time)| Some(KeyValue::new(key, 1000.0 * time?.as_secs_f64())));
            let (name, kind) = if *late { ("late outcome", SpanKind::Internal) } else { ("bet", SpanKind::Server) };
            let begin = stamps.upstream.filter(|_| *late).map_or(stamps.edge_in, |(asked, _)| asked);
            let failure = (status == OutcomeStatus::Unconfirmed).then_some("nobody knows whether the service has it");
            Span {
                active: late_word.unwrap_or(*active),
                name,
                kind,
                begin,
                end: now,
                failure,
                attributes: texts.chain(times).collect(),
            }
        });
    }

    /// What may be told now.
    pub(super) fn poll(&mut self) -> Option<Answer<Origin>> {
        self.ready.pop_front()
    }

    /// So many outcomes wait for the disk.
    pub(super) fn waiting(&self) -> usize {
        self.held.len()
    }

    /// When one of them has waited for long enough.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.held.front().map(|(_, since, _)| *since + HOLD_LIMIT)
    }

    /// Lets go what need not wait any more: all of it, while the trail fails.
    pub(super) fn release(&mut self, now: Instant) {
        let Some(recorder) = &self.recorder else { return };
        let Status { durable, failing } = recorder.status();
        let mut early = 0;
        while let Some((record, since, _)) = self.held.front() {
            let is_durable = *record <= durable;
            if !is_durable && !failing && now < *since + HOLD_LIMIT {
                break;
            }
            early += u64::from(!is_durable);
            if let Some((_, _, answer)) = self.held.pop_front() {
                self.let_go(now, answer);
            }
        }
        if let Some(recorder) = &self.recorder
            && early > 0
        {
            recorder.told_early(early);
        }
    }

    /// Waits for news of the trail; for ever, where there is none.
    pub(super) async fn changed(&mut self) {
        match &mut self.recorder {
            Some(recorder) => recorder.changed().await,
            None => std::future::pending().await,
        }
    }
}

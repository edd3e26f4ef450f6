//! The desk's side of the audit trail: what is recorded of each signal, and which outcomes wait until their records are
//! durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::{Recorder, Status};
use crate::bets::Answer;
use crate::bets::audit::{Digest, SignalRecord, Subject};
use crate::shard::{ShardId, SlotKey};

use super::shard_thread::NodeBet;

/// How long an outcome waits for a disk. Then it is told all the same: a player must have one, and the service has decided.
const HOLD_LIMIT: Duration = Duration::from_secs(1);

/// Where an answer goes, and what its record says besides.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) to: (ShardId, SlotKey),
    /// Only where there is a trail.
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
    /// One reading of the monotonic clock and of the time of day, which is counted from 1970: what acks are told by.
    epoch: (Instant, Duration),
    /// Outcomes whose records are not durable, with the number of the record, and since when.
    held: VecDeque<(u64, Instant, Answer<Origin>)>,
    ready: VecDeque<Answer<Origin>>,
}

impl Ledger {
    pub(super) fn new(recorder: Option<Recorder>, epoch: (Instant, Duration)) -> Self {
        Self { recorder, epoch, held: VecDeque::new(), ready: VecDeque::new() }
    }

    /// What is to be remembered of a signal.
    pub(super) fn origin(&self, bet: &NodeBet) -> Origin {
        let subject = self.recorder.is_some().then(|| {
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
        Origin { to: bet.from, subject }
    }

    /// Whether a bet may be passed on: what cannot be recorded is not to happen, if the configuration says so.
    pub(super) fn admits(&self) -> bool {
        self.recorder.as_ref().is_none_or(Recorder::admits)
    }

    /// An outcome is decided.
    pub(super) fn settle(&mut self, now: Instant, answer: Answer<Origin>) {
        let Some(recorder) = &mut self.recorder else { return self.ready.push_back(answer) };
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
            self.ready.push_back(answer);
        }
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
            self.ready.extend(self.held.pop_front().map(|(_, _, answer)| answer));
        }
        if early > 0 {
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

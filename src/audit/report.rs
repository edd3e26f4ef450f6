//! What the trail has done so far.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bets::audit::{GapRecord, Timestamp};

/// Counters since the start, and how things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AuditReport {
    /// Records that were written.
    pub records: u64,
    /// Records that could not be, for good.
    pub lost: u64,
    /// How often the disk has refused.
    pub write_errors: u64,
    /// Checkpoints that were signed.
    pub checkpoints: u64,
    /// How often records were forced to the disk.
    pub syncs: u64,
    /// Chains that were begun because the directory did not hold the one of which the sink has checkpoints.
    pub replaced: u64,
    /// Outcomes that were told before their record was durable, though it was to be.
    pub told_early: u64,
    /// Records that wait to be written.
    pub backlog: u64,
    /// How long the oldest record that is not durable has waited, seconds.
    pub lag: f64,
    /// Records cannot be written now.
    pub failing: bool,
    /// Segments that were copied to the sink.
    pub shipped: u64,
    /// How often the sink has refused.
    pub ship_errors: u64,
    /// Segments that wait to be copied.
    pub unshipped: u64,
}

/// The same, as its threads count it.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) records: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) write_errors: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) replaced: AtomicU64,
    pub(super) told_early: AtomicU64,
    /// Records that were given to the writer, and that it has taken out of the queue.
    pub(super) sent: AtomicU64,
    pub(super) taken: AtomicU64,
    /// When the oldest record that is not durable was taken; 0 for none.
    pub(super) oldest: AtomicU64,
    pub(super) failing: AtomicBool,
    pub(super) shipped: AtomicU64,
    pub(super) ship_errors: AtomicU64,
    pub(super) unshipped: AtomicU64,
    gap: Mutex<Option<GapRecord>>,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn report(&self, now: Timestamp) -> AuditReport {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let oldest = value(&self.oldest);
        AuditReport {
            records: value(&self.records),
            lost: value(&self.lost),
            write_errors: value(&self.write_errors),
            checkpoints: value(&self.checkpoints),
            syncs: value(&self.syncs),
            replaced: value(&self.replaced),
            told_early: value(&self.told_early),
            backlog: value(&self.sent).saturating_sub(value(&self.taken)),
            lag: if oldest == 0 { 0.0 } else { now.0.saturating_sub(oldest) as f64 / 1e6 },
            failing: self.failing.load(Ordering::Relaxed),
            shipped: value(&self.shipped),
            ship_errors: value(&self.ship_errors),
            unshipped: value(&self.unshipped),
        }
    }

    /// A record is lost.
    pub(super) fn lose(&self, at: Timestamp) {
        count(&self.lost);
        let mut gap = self.gap();
        let gap = gap.get_or_insert(GapRecord { lost: 0, from: at, to: at });
        gap.lost += 1;
        gap.to = at;
    }

    /// What was lost since it was asked for last: to be recorded.
    pub(super) fn take_gap(&self) -> Option<GapRecord> {
        self.gap().take()
    }

    fn gap(&self) -> MutexGuard<'_, Option<GapRecord>> {
        // Plain data, whole after each line of code.
        self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

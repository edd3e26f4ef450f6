//! Traces of bet signals: which are recorded, of what, and their way to a collector over OTLP.
//!
//! Enters: where in a trace a signal stands, by its player's word, and what was done for it. Leaves: the identifiers
//! that go on to the bet service, spans to the collector, and what logs may say of a player. Every signal has a trace
//! id, by which log lines of the page, the edge and the service are found; spans are recorded of a configured share of
//! them, and a signal that is not among them costs a few random bytes. Refuses to know: what the spans are of. See
//! `docs/traces.md`.

mod export;
mod span;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::bets::audit::PlayerNames;
use crate::bets::{PlayerId, SpanId, TraceId, TraceParent};
use crate::config::{Log, PlayerIds};

pub use export::{Exporter, StartError};
pub use span::{KeyValue, Span, SpanKind};

/// Spans that wait for the collector. Where it is full, further ones are dropped and counted.
const QUEUE: usize = 8192;

/// Something that is done for a signal now: a span, if it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// The trace.
    pub trace: TraceId,
    /// Its own name.
    pub span: SpanId,
    /// Whose part it is.
    pub parent: Option<SpanId>,
    /// Whether it is recorded here; without a collector, whether the page says that it records it.
    pub sampled: bool,
}

impl Active {
    /// What is told to who does the next thing.
    pub fn as_parent(&self) -> TraceParent {
        TraceParent { trace: self.trace, parent: self.span, sampled: self.sampled }
    }
}

/// Decides which signals are traced, and takes their spans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Of 2⁶⁴ traces so many are recorded, by a hash that nobody outside of this process can foresee: a repeated signal is
    /// recorded as the first one was, and no player picks what is.
    share: u128,
    hasher: RandomState,
    spans: Option<mpsc::Sender<Span>>,
    /// How logs and spans name players; `None` if they do not.
    names: Option<PlayerNames>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// What became of spans so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceReport {
    /// The collector has taken them.
    pub exported: u64,
    /// There was no room for them.
    pub dropped: u64,
    /// The collector was not to be had, or refused them.
    pub failed: u64,
}

impl Tracer {
    /// One that gives signals their trace ids and records nothing.
    pub fn off(log: &Log) -> Self {
        Self::new(log, 0.0, None)
    }

    fn new(log: &Log, ratio: f64, spans: Option<mpsc::Sender<Span>>) -> Self {
        let names = match (log.player_ids, log.player_key.as_bytes()) {
            (PlayerIds::Plain, _) => Some(PlayerNames::Plain),
            (PlayerIds::Hashed, Some(key)) => Some(PlayerNames::hashed(key)),
            // Without a key nothing is hidden by a hash; the configuration does not let that pass.
            (PlayerIds::Omitted, _) | (PlayerIds::Hashed, None) => None,
        };
        let share = (ratio.clamp(0.0, 1.0) * 2_f64.powi(64)) as u128;
        Self(Arc::new(Shared { share, hasher: RandomState::new(), spans, names, counts: Counts::default() }))
    }

    /// A signal has come, from `page` by its word. Whether the page records it says nothing where spans are: players would
    /// decide what the collector has to bear. Without a collector that goes on as it came.
    pub fn begin(&self, page: Option<TraceParent>) -> Active {
        let trace = page.map_or_else(|| TraceId::new(random()), |page| page.trace);
        let sampled = match &self.0.spans {
            Some(_) => u128::from(self.0.hasher.hash_one(trace)) < self.0.share,
            None => page.is_some_and(|page| page.sampled),
        };
        Active { trace, span: SpanId::new(random()), parent: page.map(|page| page.parent), sampled }
    }

    /// A part of something begins.
    pub fn begin_part(&self, of: TraceParent) -> Active {
        let TraceParent { trace, parent, sampled } = of;
        Active { trace, span: SpanId::new(random()), parent: Some(parent), sampled }
    }

    /// Whether its span is wanted.
    pub fn records(&self, active: &Active) -> bool {
        active.sampled && self.0.spans.is_some()
    }

    /// It is done: if it is recorded, `describe` says what it was.
    pub fn end(&self, active: &Active, describe: impl FnOnce() -> Span) {
        if !active.sampled {
            return;
        }
        let Some(spans) = &self.0.spans else { return };
        if spans.try_send(describe()).is_err() {
            self.0.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How logs and spans name a player, if they do.
    pub fn player(&self, player: &PlayerId) -> Option<String> {
        self.0.names.as_ref().map(|names| names.name(player))
    }

    /// What became of spans so far; nothing, where none are recorded.
    pub fn report(&self) -> TraceReport {
        let Counts { exported, dropped, failed } = &self.0.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TraceReport { exported: read(exported), dropped: read(dropped), failed: read(failed) }
    }
}

/// Without random numbers all signals would be one trace, which misleads nobody about a bet.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = getrandom::fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;

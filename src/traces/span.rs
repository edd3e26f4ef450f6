//! What was done for a signal, and when.

use std::time::{Instant, SystemTime};

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::Active;

pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;

/// A span that has ended.
#[derive(Debug)]
pub struct Span {
    /// Where it stands.
    pub active: Active,
    /// What it is, the same for all of its kind.
    pub name: &'static str,
    /// Who asked whom.
    pub kind: SpanKind,
    /// From when.
    pub begin: Instant,
    /// Until when.
    pub end: Instant,
    /// Why it has failed, if it has.
    pub failure: Option<&'static str>,
    /// What else there is to say.
    pub attributes: Vec<KeyValue>,
}

impl Span {
    /// As it is exported; `now` by both clocks, which says when it was.
    pub(super) fn into_data(self, now: (Instant, SystemTime), scope: &InstrumentationScope) -> SpanData {
        let Self { active, name, kind, begin, end, failure, attributes } = self;
        let at = |instant: Instant| now.1 - now.0.saturating_duration_since(instant);
        let parent = active.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.to_bytes()));
        let flags = if active.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let trace = TraceId::from_bytes(active.trace.to_bytes());
        let span = SpanId::from_bytes(active.span.to_bytes());
        let begin_time = at(begin);
        SpanData {
            span_context: SpanContext::new(trace, span, flags, false, TraceState::NONE),
            parent_span_id: parent,
            parent_span_is_remote: kind == SpanKind::Server && active.parent.is_some(),
            span_kind: kind,
            name: name.into(),
            start_time: begin_time,
            // Never before its begin, whatever was stamped by which thread.
            end_time: begin_time + end.saturating_duration_since(begin),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: failure.map_or(Status::Unset, Status::error),
            instrumentation_scope: scope.clone(),
        }
    }
}

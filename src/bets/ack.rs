//! The answer to a signal as the player gets it, with where its time went.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::outcome::{Outcome, Status};

/// When a signal was where on the edge, by the edge's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamps {
    /// It came off the wire.
    pub edge_in: Instant,
    /// It began to wait for the service, and the service's answer came; `None` if it never waited, or in vain.
    pub upstream: Option<(Instant, Instant)>,
}

impl Stamps {
    /// Of one that is answered without the service.
    pub fn at(edge_in: Instant) -> Self {
        Self { edge_in, upstream: None }
    }

    /// How long it waited for the service's answer.
    pub fn upstream(&self) -> Option<Duration> {
        self.upstream.map(|(out, back)| back.saturating_duration_since(out))
    }

    /// How long it was on the edge until `edge_out`, the wait for the service apart.
    pub fn edge(&self, edge_out: Instant) -> Duration {
        let all = edge_out.saturating_duration_since(self.edge_in);
        all.saturating_sub(self.upstream().unwrap_or_default())
    }
}

/// `timing` of an ack: milliseconds with three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// When the signal came to the edge, Unix milliseconds by its clock.
    pub received_ts: f64,
    /// From there to the ack, the wait for the service apart.
    pub edge_ms: f64,
    /// The wait for the service; not there where it gave no answer, or was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
    /// The round trip between player and edge by RTCP; not there until it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_mile_ms: Option<f64>,
}

impl Timing {
    /// Of a signal that is answered at `edge_out`; it came at `received`, counted from 1970.
    pub fn new(stamps: &Stamps, edge_out: Instant, received: Duration, last_mile: Option<Duration>) -> Self {
        Self {
            received_ts: milliseconds(received),
            edge_ms: milliseconds(stamps.edge(edge_out)),
            upstream_ms: stamps.upstream().map(milliseconds),
            last_mile_ms: last_mile.map(milliseconds),
        }
    }
}

/// With three decimals.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename = "ack", rename_all = "camelCase")]
pub struct Ack<'a> {
    /// Which bet; empty where the message did not say.
    pub bet_id: &'a str,
    /// What became of it.
    pub status: Status,
    /// Why, for `rejected` and `refused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// Where the time went.
    pub timing: Timing,
}

impl<'a> Ack<'a> {
    /// Says `outcome` of a bet.
    pub fn new(bet_id: &'a str, outcome: &'a Outcome, timing: Timing) -> Self {
        Self { bet_id, status: outcome.status(), reason: outcome.reason(), timing }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Refused;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_time_on_the_edge_is_without_the_wait_for_the_service() {
        let now = Instant::now();
        let stamps = Stamps { edge_in: now, upstream: Some((now + 2 * MS, now + 52 * MS)) };
        assert_eq!((stamps.upstream(), stamps.edge(now + 53 * MS)), (Some(50 * MS), 3 * MS));
        assert_eq!(Stamps::at(now).edge(now + 53 * MS), 53 * MS);
        let odd = Stamps { edge_in: now + MS, upstream: Some((now, now + 9 * MS)) };
        assert_eq!(odd.edge(now + 2 * MS), Duration::ZERO, "clocks of two threads");
    }

    #[test]
    fn an_ack_has_what_there_is() {
        let now = Instant::now();
        let received = Duration::from_micros(1_790_000_000_123_457);
        let stamps = Stamps { edge_in: now, upstream: Some((now, now + 7 * MS)) };
        let timing = Timing::new(&stamps, now + 8 * MS, received, Some(MS / 8));
        let text = serde_json::to_string(&Ack::new("b-1", &Outcome::Accepted, timing)).unwrap();
        assert_eq!(
            text,
            r#"{"type":"ack","betId":"b-1","status":"accepted","timing":{"receivedTs":1790000000123.457,"edgeMs":1.0,"upstreamMs":7.0,"lastMileMs":0.125}}"#
        );
        let timing = Timing::new(&Stamps::at(now), now, received, None);
        let text = serde_json::to_string(&Ack::new("", &Outcome::Refused(Refused::RateLimited), timing)).unwrap();
        assert_eq!(
            text,
            r#"{"type":"ack","betId":"","status":"refused","reason":"rate_limited","timing":{"receivedTs":1790000000123.457,"edgeMs":0.0}}"#
        );
    }
}

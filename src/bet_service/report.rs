//! What a connector has done: plain numbers since its start, which the admin listener reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bets::LegHistogram;

use super::breaker::{Breaker, BreakerState};

/// Which connector. Exported as label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum ServiceKind {
    /// The demo's own service.
    Embedded,
    /// `bet_service.kind = "http"`
    Http,
    /// `bet_service.kind = "nats"`
    Nats,
}

impl ServiceKind {
    /// Every kind with its name, in the order of the discriminants.
    pub const ALL: [(ServiceKind, &'static str); 3] =
        [(ServiceKind::Embedded, "embedded"), (ServiceKind::Http, "http"), (ServiceKind::Nats, "nats")];
}

/// What became of a signal. Exported as `tableside_bet_service_requests_total{kind,result}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum RequestResult {
    /// The service's word.
    Accepted,
    /// The service's word.
    Rejected,
    /// It has not reached the service, or the service says that it has not taken it.
    NotSent,
    /// Nobody knows what became of it.
    Lost,
}

impl RequestResult {
    /// Every result with its name, in the order of the discriminants.
    pub const ALL: [(RequestResult, &'static str); 4] = [
        (RequestResult::Accepted, "accepted"),
        (RequestResult::Rejected, "rejected"),
        (RequestResult::NotSent, "not_sent"),
        (RequestResult::Lost, "lost"),
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Why an attempt to ask the service brought no outcome. Exported as `tableside_bet_service_failures_total{kind,reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Failure {
    /// The circuit breaker is open: nothing was sent.
    BreakerOpen,
    /// As many requests are under way as may be, and none ended in time: nothing was sent.
    Busy,
    /// There is no connection: nothing was sent.
    NotConnected,
    /// Nobody listens on the subject (NATS): nothing was sent to a service.
    NoResponders,
    /// The service says that it has not taken the signal.
    Unavailable,
    /// No answer by the signal's deadline, or a late one was not waited for.
    Timeout,
    /// The connection ended before the answer.
    Broken,
    /// An HTTP status that says nothing of the signal.
    Status,
    /// An answer that cannot be read.
    Malformed,
    /// An answer that is too long.
    TooLarge,
}

impl Failure {
    /// Every failure with its name, in the order of the discriminants.
    pub const ALL: [(Failure, &'static str); 10] = [
        (Failure::BreakerOpen, "breaker_open"),
        (Failure::Busy, "busy"),
        (Failure::NotConnected, "not_connected"),
        (Failure::NoResponders, "no_responders"),
        (Failure::Unavailable, "unavailable"),
        (Failure::Timeout, "timeout"),
        (Failure::Broken, "broken"),
        (Failure::Status, "status"),
        (Failure::Malformed, "malformed"),
        (Failure::TooLarge, "too_large"),
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What became of a round event. Exported as `tableside_bet_service_events_total{kind,result}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum EventResult {
    /// Handed on, or kept until its table is live.
    Taken,
    /// It was told before.
    Repeated,
    /// Of a table that is not configured here.
    UnknownTable,
    /// It cannot be read.
    Malformed,
    /// It is too long.
    TooLarge,
}

impl EventResult {
    /// Every result with its name, in the order of the discriminants.
    pub const ALL: [(EventResult, &'static str); 5] = [
        (EventResult::Taken, "taken"),
        (EventResult::Repeated, "repeated"),
        (EventResult::UnknownTable, "unknown_table"),
        (EventResult::Malformed, "malformed"),
        (EventResult::TooLarge, "too_large"),
    ];
}

/// What a connector has done so far, and what it is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceReport {
    /// Which connector; `None` without a bet service.
    pub kind: Option<ServiceKind>,
    /// Signals by [`RequestResult`] discriminant.
    pub requests: [u64; RequestResult::ALL.len()],
    /// Attempts by [`Failure`] discriminant.
    pub failures: [u64; Failure::ALL.len()],
    /// Attempts after the first of a signal.
    pub retries: u64,
    /// Signals that the service is being asked about now, those that wait for a late answer among them.
    pub in_flight: u64,
    /// How long answers took.
    pub answer_time: LegHistogram,
    /// What the circuit breaker does.
    pub breaker: BreakerState,
    /// How often it opened.
    pub breaker_opened: u64,
    /// Whether there is a connection: with NATS the client's, with HTTP the stream of events. `None` where there is none
    /// to be had.
    pub connected: Option<bool>,
    /// How often that connection was made anew.
    pub reconnects: u64,
    /// Round events by [`EventResult`] discriminant.
    pub events: [u64; EventResult::ALL.len()],
}

impl ServiceReport {
    /// Whether bets can be placed and rounds followed, as far as the connector knows.
    ///
    /// # Errors
    /// Why not, for operators.
    pub fn health(&self) -> Result<(), &'static str> {
        match (self.connected, self.breaker, self.kind) {
            (Some(false), _, Some(ServiceKind::Nats)) => Err("there is no connection to a NATS server"),
            (Some(false), ..) => Err("there is no stream of round events"),
            (_, BreakerState::Closed, _) => Ok(()),
            // Nobody tries it until there is a bet.
            _ => Err("the circuit breaker is open: the service failed, and no bet has got through since"),
        }
    }
}

/// Where a connector counts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    report: Arc<Mutex<ServiceReport>>,
}

impl Meter {
    /// What was counted so far.
    pub fn report(&self) -> ServiceReport {
        self.lock().clone()
    }

    pub(super) fn is_of(&self, kind: ServiceKind) {
        self.lock().kind = Some(kind);
    }

    pub(super) fn request(&self, result: RequestResult) {
        self.lock().requests[result as usize] += 1;
    }

    pub(super) fn failure(&self, failure: Failure) {
        self.lock().failures[failure as usize] += 1;
    }

    pub(super) fn retry(&self) {
        self.lock().retries += 1;
    }

    pub(super) fn answered(&self, after: Duration) {
        self.lock().answer_time.observe(after);
    }

    pub(super) fn breaker(&self, breaker: &Breaker) {
        let mut report = self.lock();
        (report.breaker, report.breaker_opened) = (breaker.state(), breaker.opened());
    }

    /// There is a connection now, or none any more.
    pub(super) fn connected(&self, connected: bool) {
        self.lock().connected = Some(connected);
    }

    /// The connection that is there is not the first.
    pub(super) fn reconnected(&self) {
        self.lock().reconnects += 1;
    }

    pub(super) fn event(&self, result: EventResult) {
        self.lock().events[result as usize] += 1;
    }

    /// A signal that the service is asked about, until what is returned is dropped.
    pub(super) fn begin(&self) -> InFlight {
        self.lock().in_flight += 1;
        InFlight { meter: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, ServiceReport> {
        // Numbers, each changed by one step: a panic elsewhere leaves them whole.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Meter::begin`].
#[derive(Debug)]
pub(super) struct InFlight {
    meter: Meter,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.meter.lock().in_flight -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_discriminants() {
        assert!(ServiceKind::ALL.iter().enumerate().all(|(n, (kind, _))| *kind as usize == n));
        assert!(RequestResult::ALL.iter().enumerate().all(|(n, (result, _))| *result as usize == n));
        assert!(Failure::ALL.iter().enumerate().all(|(n, (failure, _))| *failure as usize == n));
        assert!(EventResult::ALL.iter().enumerate().all(|(n, (result, _))| *result as usize == n));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let meter = Meter::default();
        assert_eq!(meter.report().health(), Ok(()));
        meter.is_of(ServiceKind::Nats);
        meter.connected(false);
        assert_eq!(meter.report().health(), Err("there is no connection to a NATS server"));
        meter.connected(true);
        assert_eq!(meter.report().health(), Ok(()));
        for breaker in [BreakerState::Open, BreakerState::HalfOpen] {
            let failed = ServiceReport { breaker, ..meter.report() };
            assert!(failed.health().is_err_and(|why| why.contains("no bet has got through since")));
        }
        let under_way = meter.begin();
        assert_eq!(meter.report().in_flight, 1);
        drop(under_way);
        assert_eq!(meter.report().in_flight, 0);
    }
}

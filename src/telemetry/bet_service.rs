//! The part of the catalogue that is about the connector to the bet service.

use crate::bet_service::{BreakerState, EventResult, Failure, RequestResult, ServiceKind, ServiceReport};

use super::families::{Family, Sample, counter, gauge};
use super::totals::Totals;

/// Name and meaning of the histogram of answers.
pub(super) const ANSWER_TIME: (&str, &str) = (
    "tableside_bet_service_answer_seconds",
    "How long the bet service took to answer, in seconds, each attempt for itself, late answers included.",
);

pub(super) const BET_SERVICE: &[Family] = &[
    counter(
        "tableside_bet_service_requests_total",
        "Bet signals that were given to the connector, by what it made of them: accepted and rejected are the service's word, not_sent ones it has not taken, of lost ones nobody knows.",
        &["kind", "result"],
        |t| by_kind(t, &RequestResult::ALL, |report, result| report.requests[result as usize]),
    ),
    counter(
        "tableside_bet_service_failures_total",
        "Attempts to ask the bet service that brought no outcome, by reason; timeout is no answer by the signal's deadline.",
        &["kind", "reason"],
        |t| by_kind(t, &Failure::ALL, |report, failure| report.failures[failure as usize]),
    ),
    counter(
        "tableside_bet_service_retries_total",
        "Attempts to ask the bet service after the first of a signal.",
        &["kind"],
        |t| of_kind(t, |report| report.retries as f64),
    ),
    gauge("tableside_bet_service_in_flight", "Bet signals that the bet service is asked about now.", &["kind"], |t| {
        of_kind(t, |report| report.in_flight as f64)
    }),
    gauge(
        "tableside_bet_service_breaker",
        "1 for the state in which the circuit breaker of the bet service is, else 0.",
        &["kind", "state"],
        |t| by_kind(t, &BreakerState::ALL, |report, state| u64::from(report.kind.is_some() && report.breaker == state)),
    ),
    counter(
        "tableside_bet_service_breaker_opened_total",
        "How often the circuit breaker of the bet service has opened.",
        &["kind"],
        |t| of_kind(t, |report| report.breaker_opened as f64),
    ),
    gauge(
        "tableside_bet_service_connected",
        "1 while there is a connection: with nats the client's, with http the stream of round events, else 0.",
        &["kind"],
        |t| of_kind(t, |report| f64::from(report.connected == Some(true))),
    ),
    counter(
        "tableside_bet_service_reconnects_total",
        "How often the connection of tableside_bet_service_connected was made anew.",
        &["kind"],
        |t| of_kind(t, |report| report.reconnects as f64),
    ),
    counter(
        "tableside_bet_service_events_total",
        "Round events of the bet service, by what became of them: repeated ones were told before.",
        &["kind", "result"],
        |t| by_kind(t, &EventResult::ALL, |report, result| report.events[result as usize]),
    ),
];

/// A value for each kind: 0 for those that are not configured.
fn of_kind(totals: &Totals, value: impl Fn(&ServiceReport) -> f64) -> Vec<Sample> {
    let report = totals.bet_service();
    let sample = |(kind, label): (ServiceKind, &str)| {
        let is_it = report.kind == Some(kind);
        (vec![label.to_owned()], if is_it { value(report) } else { 0.0 })
    };
    ServiceKind::ALL.into_iter().map(sample).collect()
}

fn by_kind<T: Copy>(totals: &Totals, all: &[(T, &str)], value: impl Fn(&ServiceReport, T) -> u64) -> Vec<Sample> {
    let report = totals.bet_service();
    let sample = |(kind, label): (ServiceKind, &str), (of, name): (T, &str)| {
        let is_it = report.kind == Some(kind);
        (vec![label.to_owned(), name.to_owned()], if is_it { value(report, of) as f64 } else { 0.0 })
    };
    ServiceKind::ALL.into_iter().flat_map(|kind| all.iter().map(move |of| sample(kind, *of))).collect()
}

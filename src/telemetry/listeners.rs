//! What the HTTP listeners count: connections, what met a limit, the certificate.

use std::time::SystemTime;

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

/// A listener. Exported as label `listener`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// WHIP, WHEP, pages.
    Public,
    /// Metrics, health, status, drain.
    Admin,
}

impl Listener {
    /// Every listener with its label value.
    pub const ALL: [(Listener, &'static str); 2] = [(Listener::Public, "public"), (Listener::Admin, "admin")];

    const fn label(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A limit that a client met. Exported as `tableside_http_limited_total{listener,reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `max_connections`
    Connections,
    /// `max_connections_per_address`
    ConnectionsPerAddress,
    /// `tls.handshake_timeout_ms`
    TlsHandshakeTime,
    /// `header_timeout_ms`
    HeaderTime,
    /// `max_header_bytes`
    HeaderBytes,
    /// `idle_timeout_s`, which every client that keeps its connection meets.
    IdleTime,
    /// `request_timeout_ms`, for the request's body.
    RequestTime,
    /// Twice `request_timeout_ms`, for an answer that is not read.
    AnswerTime,
    /// `max_sdp_bytes`
    BodyBytes,
    /// `requests_per_second_per_address` and `request_burst_per_address`
    RequestRate,
}

impl Limit {
    /// Every limit with its label value.
    pub const ALL: [(Limit, &'static str); 10] = [
        (Limit::Connections, "connections"),
        (Limit::ConnectionsPerAddress, "connections_per_address"),
        (Limit::TlsHandshakeTime, "tls_handshake_time"),
        (Limit::HeaderTime, "header_time"),
        (Limit::HeaderBytes, "header_bytes"),
        (Limit::IdleTime, "idle_time"),
        (Limit::RequestTime, "request_time"),
        (Limit::AnswerTime, "answer_time"),
        (Limit::BodyBytes, "body_bytes"),
        (Limit::RequestRate, "request_rate"),
    ];

    const fn label(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What a connection speaks. Exported as label `protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpProtocol {
    /// HTTP/1.1 without TLS.
    Http1,
    /// HTTP/1.1 over TLS.
    Http1Tls,
    /// HTTP/2 over TLS.
    Http2Tls,
}

impl HttpProtocol {
    /// Every protocol with its label value.
    pub const ALL: [(HttpProtocol, &'static str); 3] =
        [(HttpProtocol::Http1, "http/1.1"), (HttpProtocol::Http1Tls, "https/1.1"), (HttpProtocol::Http2Tls, "https/2")];

    const fn label(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Outcomes of reading the certificate again.
const RELOADS: [&str; 2] = ["loaded", "failed"];

/// The counters of both listeners.
#[derive(Debug)]
pub struct ListenerMetrics {
    connections: IntGaugeVec,
    established: IntCounterVec,
    limited: IntCounterVec,
    handshakes_failed: IntCounterVec,
    certificate_reloads: IntCounterVec,
    certificate_expiry: IntGauge,
}

impl ListenerMetrics {
    /// With every label at 0; each collector is handed to `register`.
    pub(super) fn new(register: impl Fn(Box<dyn Collector>)) -> Self {
        let listeners = Listener::ALL.map(|(_, label)| label);
        let metrics = Self {
            connections: gauges("tableside_http_connections", "TCP connections of HTTP listeners now."),
            established: counters(
                "tableside_http_connections_established_total",
                "Connections of HTTP listeners that got as far as HTTP, by what they speak.",
                &["listener", "protocol"],
            ),
            limited: counters(
                "tableside_http_limited_total",
                "Connections closed and requests refused because of a limit of [http] or [admin], by limit.",
                &["listener", "reason"],
            ),
            handshakes_failed: counters(
                "tableside_tls_handshakes_failed_total",
                "TLS handshakes of HTTP listeners that failed, those that took too long apart.",
                &["listener"],
            ),
            certificate_reloads: counters(
                "tableside_tls_certificate_reloads_total",
                "New certificate files that were taken (loaded) or refused, with the old ones kept (failed).",
                &["outcome"],
            ),
            certificate_expiry: IntGauge::new(
                "tableside_tls_certificate_expiry_timestamp_seconds",
                "When the certificate that is served expires, Unix time; 0 without [http.tls].",
            )
            .expect("a valid name"),
        };
        for listener in listeners {
            metrics.connections.with_label_values(&[listener]);
            metrics.handshakes_failed.with_label_values(&[listener]);
            Limit::ALL.iter().for_each(|(_, limit)| drop(metrics.limited.with_label_values(&[listener, *limit])));
            for (_, protocol) in HttpProtocol::ALL {
                metrics.established.with_label_values(&[listener, protocol]);
            }
        }
        RELOADS.iter().for_each(|outcome| drop(metrics.certificate_reloads.with_label_values(&[outcome])));
        register(Box::new(metrics.connections.clone()));
        register(Box::new(metrics.established.clone()));
        register(Box::new(metrics.limited.clone()));
        register(Box::new(metrics.handshakes_failed.clone()));
        register(Box::new(metrics.certificate_reloads.clone()));
        register(Box::new(metrics.certificate_expiry.clone()));
        metrics
    }

    /// A TCP connection was accepted.
    pub fn opened(&self, listener: Listener) {
        self.connections.with_label_values(&[listener.label()]).inc();
    }

    /// It is gone.
    pub fn closed(&self, listener: Listener) {
        self.connections.with_label_values(&[listener.label()]).dec();
    }

    /// It speaks HTTP.
    pub fn established(&self, listener: Listener, protocol: HttpProtocol) {
        self.established.with_label_values(&[listener.label(), protocol.label()]).inc();
    }

    /// A client met a limit.
    pub fn limited(&self, listener: Listener, limit: Limit) {
        self.limited.with_label_values(&[listener.label(), limit.label()]).inc();
    }

    /// A TLS handshake failed.
    pub fn handshake_failed(&self, listener: Listener) {
        self.handshakes_failed.with_label_values(&[listener.label()]).inc();
    }

    /// A certificate is served from now on.
    pub fn certificate_served(&self, not_after: SystemTime) {
        let unix = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.certificate_expiry.set(unix.as_secs().try_into().unwrap_or(i64::MAX));
    }

    /// New certificate files were read: taken, or refused.
    pub fn certificate_reloaded(&self, taken: bool) {
        self.certificate_reloads.with_label_values(&[RELOADS[usize::from(!taken)]]).inc();
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name")
}

fn gauges(name: &str, help: &str) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), &["listener"]).expect("a valid name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_the_order_of_the_values() {
        Listener::ALL.iter().enumerate().for_each(|(i, (value, _))| assert_eq!(*value as usize, i));
        Limit::ALL.iter().enumerate().for_each(|(i, (value, _))| assert_eq!(*value as usize, i));
        HttpProtocol::ALL.iter().enumerate().for_each(|(i, (value, _))| assert_eq!(*value as usize, i));
    }
}

//! The way to the collector: OTLP over HTTP, in protobuf.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::OptionFuture;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter;
use prost::Message;
use rustls::RootCertStore;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::{Log, Traces, authorities};
use crate::outbound::{Client, Limits, OutboundError, system_roots};

use super::{QUEUE, Span, Tracer};

/// Spans in one request.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// What a request to the collector is held to.
const LIMITS: Limits = Limits { time: Duration::from_secs(5), body: 64 << 10 };

/// No further attempt begins after that.
const EXPORT_LIMIT: Duration = Duration::from_secs(10);

/// How long the end of the process waits for the last spans.
const CLOSING_LIMIT: Duration = Duration::from_secs(2);

/// How often it is said that spans do not get there.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// There is no way to the collector.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Whom to trust there.
    #[error("traces.endpoint: {0}")]
    Roots(#[from] OutboundError),
    /// The certificates of `traces.ca_file`.
    #[error("traces.ca_file: {0}")]
    Authorities(String),
    /// A header of `traces.headers_file`.
    #[error("traces.headers_file: {0} is no header of HTTP")]
    Header(String),
    /// Anything else.
    #[error("traces.endpoint: {0}")]
    Exporter(String),
}

/// What sends spans until it is closed. Without a collector it is nothing.
#[derive(Debug)]
pub struct Exporter {
    task: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Exporter {
    /// A tracer for a node of this name, and what sends its spans. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: &Traces, log: &Log, node: &str) -> Result<(Tracer, Self), StartError> {
        let Some(endpoint) = &config.endpoint else { return Ok((Tracer::off(log), Self { task: None })) };
        let roots = match &config.ca_file {
            Some(file) => authorities(file).map_err(StartError::Authorities)?,
            None if endpoint.is_https() => system_roots()?,
            None => RootCertStore::empty(),
        };
        let failed = |error: opentelemetry_otlp::ExporterBuildError| StartError::Exporter(error.to_string());
        let courier =
            Courier { client: Client::new(roots, LIMITS), headers: headers(config)?, failure: Arc::default() };
        let failure = Arc::clone(&courier.failure);
        let builder = OtlpExporter::builder().with_http().with_http_client(courier);
        let builder = builder.with_endpoint(endpoint.as_str()).with_timeout(EXPORT_LIMIT);
        let mut otlp = builder.build().map_err(failed)?;
        otlp.set_resource(&resource(node));
        let (sender, spans) = mpsc::channel(QUEUE);
        let tracer = Tracer::new(log, config.sample_ratio, Some(sender));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(otlp, failure, spans, tracer.clone(), stopped));
        Ok((tracer, Self { task: Some((stop, task)) }))
    }

    /// Sends what there is and ends; what the collector does not take in time is lost.
    pub async fn close(self) {
        let Some((stop, mut task)) = self.task else { return };
        let _ = stop.send(());
        if tokio::time::timeout(CLOSING_LIMIT, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the last traces have not reached their collector");
        }
    }
}

/// Who speaks, by the semantic conventions of OpenTelemetry.
fn resource(node: &str) -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "tableside"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_owned()),
        ])
        .build()
}

pub(super) async fn run(
    otlp: impl SpanExporter,
    failure: Failure,
    mut spans: mpsc::Receiver<Span>,
    tracer: Tracer,
    mut stopped: oneshot::Receiver<()>,
) {
    let scope = InstrumentationScope::builder("tableside").with_version(env!("CARGO_PKG_VERSION")).build();
    let counts = &tracer.0.counts;
    let (mut is_open, mut complained) = (true, None::<Instant>);
    loop {
        let mut batch = Vec::new();
        let mut gathered = pin!(None);
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                count = spans.recv_many(&mut batch, room) => match count {
                    // It is closed, and all of it was taken.
                    0 => break,
                    _ if gathered.is_none() => gathered.set(Some(tokio::time::sleep(GATHER))),
                    _ => {}
                },
                // What waits is sent at once.
                _ = &mut stopped, if is_open => {
                    is_open = false;
                    spans.close();
                }
                Some(()) = OptionFuture::from(gathered.as_mut().as_pin_mut()), if is_open => break,
            }
        }
        if batch.is_empty() {
            return;
        }
        let (count, now) = (batch.len() as u64, now());
        let sent = otlp.export(batch.into_iter().map(|span| span.into_data(now, &scope)).collect()).await;
        let NotTaken { spans: rejected, why } = std::mem::take(&mut *lock(&failure));
        let failed = if sent.is_ok() { rejected.min(count) } else { count };
        counts.exported.fetch_add(count - failed, Ordering::Relaxed);
        counts.failed.fetch_add(failed, Ordering::Relaxed);
        if failed > 0 && complained.is_none_or(|at| now.0.saturating_duration_since(at) >= COMPLAINT_INTERVAL) {
            complained = Some(now.0);
            let error = why.or(sent.err().map(|error| error.to_string())).unwrap_or_default();
            tracing::warn!(error, spans = failed, "traces do not reach their collector");
        }
    }
}

/// What of the last request was not taken, and why: the exporter itself says neither.
#[derive(Debug, Default)]
pub(super) struct NotTaken {
    spans: u64,
    why: Option<String>,
}

pub(super) type Failure = Arc<Mutex<NotTaken>>;

fn lock(failure: &Failure) -> MutexGuard<'_, NotTaken> {
    failure.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Our client, as the exporter wants it.
struct Courier {
    client: Client,
    headers: HeaderMap,
    failure: Failure,
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Last, so that they go before what the exporter takes from the environment.
        request.headers_mut().extend(self.headers.clone());
        let answer = self.client.send(request).await;
        *lock(&self.failure) = match &answer {
            Ok(response) if response.status().is_success() => partial(response.body()),
            Ok(response) => NotTaken { spans: 0, why: Some(format!("the collector answers {}", response.status())) },
            Err(error) => NotTaken { spans: 0, why: Some(error.to_string()) },
        };
        Ok(answer?)
    }
}

/// OTLP, "Partial Success": a collector that takes a request need not take all of its spans.
fn partial(body: &[u8]) -> NotTaken {
    let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|response| response.partial_success);
    let Some(partial) = partial else { return NotTaken::default() };
    let why = (!partial.error_message.is_empty()).then_some(partial.error_message);
    NotTaken { spans: partial.rejected_spans.try_into().unwrap_or(0), why }
}

/// Those of `traces.headers_file`.
fn headers(config: &Traces) -> Result<HeaderMap, StartError> {
    let parse = |(name, value): &(String, String)| {
        let name = HeaderName::try_from(name).ok()?;
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    let headers = config.headers.iter().map(|header| parse(header).ok_or_else(|| StartError::Header(header.0.clone())));
    headers.collect()
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Courier")
    }
}

#[expect(clippy::disallowed_methods, reason = "spans are stamped by the monotonic clock and told by the time of day")]
fn now() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn a_collector_that_takes_a_part_says_how_much_it_did_not() {
        let says = |rejected_spans, error_message: &str| {
            let partial = ExportTracePartialSuccess { rejected_spans, error_message: error_message.to_owned() };
            partial_of(&ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec())
        };
        assert_eq!(says(3, "no room"), (3, Some("no room".to_owned())));
        assert_eq!(says(-1, ""), (0, None));
        for nothing in [&b""[..], b"\xff\xff", b"<html>"] {
            assert_eq!(partial_of(nothing), (0, None));
        }
    }

    fn partial_of(body: &[u8]) -> (u64, Option<String>) {
        let NotTaken { spans, why } = partial(body);
        (spans, why)
    }
}

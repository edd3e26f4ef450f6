//! A bet service that is reached over HTTP: a POST for each signal, a stream of events for its rounds.
//!
//! `docs/bet-service.md` is the contract. What an answer means is decided in [`judge`] alone: a player must never be told
//! `refused` for a bet that may have been taken.

mod client;
mod events;
pub mod sse;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use tokio::sync::mpsc;

use crate::bets::{Outcome, TraceParent};
use crate::config::{BetService, ServiceUrl};
use crate::outbound::tls::ServiceTls;

use super::document::{self, Answer, MAX_ANSWER, RequestId};
use super::relay::{Call, Failed, RelayLimits, Transport, now, relay};
use super::report::{Failure, ServiceKind};
use super::rounds::Rounds;
use super::{Connector, ServiceEnd, StartError, clocks};
use client::{Body, HttpClient, NoAnswer};
use events::Events;
use tables::Tables;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TABLESIDE: HeaderValue = HeaderValue::from_static(concat!("tableside/", env!("CARGO_PKG_VERSION")));
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static(TraceParent::HEADER);

/// The longest time that `Retry-After` is heeded: no signal has longer.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The connector of `bet_service.kind = "http"`.
#[derive(Debug)]
pub struct HttpService {
    limits: RelayLimits,
    tls: ServiceTls,
    client: HttpClient,
    bets: Uri,
    events: Option<Uri>,
    tables: Option<Uri>,
    silence: Duration,
    rounds: Rounds,
}

impl HttpService {
    /// Of a checked configuration, for `tables`.
    ///
    /// # Errors
    /// A file of `[bet_service.tls]` cannot be used, or there is no URL.
    pub fn new(config: &BetService, tables: impl IntoIterator<Item = Arc<str>>) -> Result<Self, StartError> {
        let BetService { http, .. } = config;
        let tls = ServiceTls::new(&config.tls, "bet_service.tls")?;
        let uri = |url: &Option<ServiceUrl>| url.as_ref().and_then(|url| url.as_str().parse::<Uri>().ok());
        Ok(Self {
            limits: RelayLimits::of(config),
            client: HttpClient::new(tls.config.clone(), http.connect_timeout),
            tls,
            bets: uri(&http.url).ok_or(StartError::NoAddress("bet_service.http.url"))?,
            events: uri(&http.events_url),
            tables: uri(&http.tables_url),
            silence: http.events_silence,
            rounds: Rounds::new(tables),
        })
    }
}

impl Connector for HttpService {
    async fn run(self, end: ServiceEnd) {
        let Self { limits, tls, client, bets, events, tables, silence, rounds } = self;
        let ServiceEnd { requests, tables: changes, said, meter, tracer } = end;
        meter.is_of(ServiceKind::Http);
        let transport = Arc::new(Post { client: client.clone(), url: bets });
        let signals = relay(transport, limits, requests, said.clone(), meter.clone(), tracer, clocks());
        let (came, incoming) = mpsc::channel(64);
        let (tell, states) = mpsc::unbounded_channel();
        let stream = Events { client: client.clone(), url: events, silence, meter: meter.clone(), came };
        let around = async {
            tokio::join!(
                tls.keep_fresh(),
                stream.follow(),
                Tables { client, url: tables, states }.tell(),
                super::follow_rounds(rounds, incoming, changes, tell, said, meter),
            )
        };
        tokio::select! {
            () = signals => {}
            _ = around => {}
        }
    }
}

/// Asks with a POST.
struct Post {
    client: HttpClient,
    url: Uri,
}

impl Transport for Post {
    async fn ask(&self, call: Call<'_>) -> Result<Outcome, Failed> {
        let Call { passed, id, trace, attempt, clocks } = call;
        let unwritable = Failed::not_sent(Failure::Malformed).of_request();
        let document = document::bet(passed, clocks, now(), attempt).map_err(|_| unwritable)?;
        let mut request = request(Method::POST, &self.url, document);
        let headers = request.headers_mut();
        // draft-ietf-httpapi-idempotency-key-header-07 §2.1: a string of RFC 9651, which stands in quotes.
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::try_from(format!("\"{id}\"")).map_err(|_| unwritable)?);
        headers.insert(TRACEPARENT, HeaderValue::try_from(trace.to_string()).map_err(|_| unwritable)?);
        let response = self.client.send(request).await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = client::read(response.into_body(), MAX_ANSWER).await.map_err(failed)?;
        judge(status, &headers, &body, id).inspect_err(|failed| {
            let failure = failed.failure.as_str();
            tracing::debug!(
                traceId = %trace.trace, %status, bytes = body.len(), failure, "the bet service's answer is no outcome"
            );
        })
    }
}

fn request(method: Method, url: &Uri, body: Vec<u8>) -> Request<Body> {
    let mut request = Request::new(Body::new(Bytes::from(body)));
    (*request.method_mut(), *request.uri_mut()) = (method, url.clone());
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, TABLESIDE);
    headers.insert(ACCEPT, JSON);
    headers.insert(CONTENT_TYPE, JSON);
    request
}

fn failed(why: NoAnswer) -> Failed {
    match why {
        NoAnswer::NotConnected => Failed::not_sent(Failure::NotConnected),
        // The request, or a part of it, was on its way.
        NoAnswer::Broken => Failed::in_doubt(Failure::Broken),
        NoAnswer::TooLarge => Failed::in_doubt(Failure::TooLarge).for_good(),
    }
}

/// What an answer means. The document decides, where the status goes with it: a proxy answers with any status, but does
/// not write our documents.
///
/// | status | document | |
/// |---|---|---|
/// | 2xx | `accepted` | accepted |
/// | 2xx, 4xx | `rejected` | rejected |
/// | 2xx, 429, 503 | `unavailable` | not taken: may be tried again |
/// | 408, 429, 5xx | any other, or none | in doubt; may be tried again |
/// | other 4xx | | in doubt, and says nothing of the service: it is this request that is wrong |
/// | all else | | in doubt |
fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], id: RequestId) -> Result<Outcome, Failed> {
    let busy = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
    match document::parse_answer(body, id) {
        Ok(Answer::Outcome(Outcome::Accepted)) if status.is_success() => Ok(Outcome::Accepted),
        Ok(Answer::Outcome(outcome @ Outcome::Rejected { .. })) if status.is_success() || status.is_client_error() => {
            Ok(outcome)
        }
        Ok(Answer::Unavailable) if status.is_success() || busy => {
            Err(Failed { retry_after: retry_after(headers), ..Failed::not_sent(Failure::Unavailable) })
        }
        _ if status.is_success() => Err(Failed::in_doubt(Failure::Malformed).for_good()),
        _ if status.is_server_error() || busy || status == StatusCode::REQUEST_TIMEOUT => {
            Err(Failed { retry_after: retry_after(headers), ..Failed::in_doubt(Failure::Status) })
        }
        _ if status.is_client_error() => Err(Failed::in_doubt(Failure::Status).of_request()),
        _ => Err(Failed::in_doubt(Failure::Status).for_good()),
    }
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3); a date is not read, since it says little between two clocks.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::bet_service::document::tests::passed;

    #[test]
    fn an_answer_counts_where_status_and_document_agree() {
        let id = RequestId::of(&passed(Instant::now(), "ann", "r", "k"));
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        let judged =
            |status: u16, body: &str| judge(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), id);
        let (yes, no, away) =
            (r#"{"status":"accepted"}"#, r#"{"status":"rejected","reason":"late"}"#, r#"{"status":"unavailable"}"#);
        for status in [200, 201] {
            assert_eq!(judged(status, yes), Ok(Outcome::Accepted));
        }
        for status in [200, 400, 409, 422] {
            assert_eq!(judged(status, no), Ok(Outcome::rejected("late")));
        }
        for status in [200, 429, 503] {
            let failed = judged(status, away).unwrap_err();
            assert_eq!((failed.failure, failed.maybe_taken, failed.again), (Failure::Unavailable, false, true));
            assert_eq!(failed.retry_after, Some(Duration::from_secs(2)));
        }
        // All else may have been taken, whatever it says: the player is never told that it was not.
        for (status, body, failure, again) in [
            (200, "", Failure::Malformed, false),
            (200, "<html>", Failure::Malformed, false),
            (302, yes, Failure::Status, false),
            (404, "", Failure::Status, false),
            (409, yes, Failure::Status, false),
            (400, away, Failure::Status, false),
            (408, "", Failure::Status, true),
            (429, "", Failure::Status, true),
            (500, yes, Failure::Status, true),
            (500, no, Failure::Status, true),
            (502, away, Failure::Status, true),
            (503, "", Failure::Status, true),
            (504, "", Failure::Status, true),
        ] {
            let failed = judged(status, body).unwrap_err();
            let told = (failed.failure, failed.maybe_taken, failed.again);
            assert_eq!(told, (failure, true, again), "{status} {body}");
            assert_eq!(failed.of_request, [400, 404, 409].contains(&status), "{status} {body}");
        }
    }

    #[test]
    fn a_wait_is_a_number_of_seconds_and_bounded() {
        for (text, wait) in
            [("0", Some(0)), ("7", Some(7)), ("99999", Some(60)), ("-1", None), ("Fri, 31 Dec 1999", None)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(retry_after(&headers), wait.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}

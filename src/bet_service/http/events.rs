//! The stream of round events: opened, followed, and opened anew whenever it ends or falls silent.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};
use tokio::sync::mpsc;

use super::super::FromService;
use super::super::backoff::{Backoff, chance};
use super::super::relay::now;
use super::super::report::Meter;
use super::client::HttpClient;
use super::request;
use super::sse::{EventStream, ServerSent};

const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Between two streams.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

/// How long the head of the answer may take: a service that has nothing to say yet sends it all the same.
const HEAD: Duration = Duration::from_secs(5);

/// The longest that a service can ask to be left alone.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Follows the rounds of a service.
pub(super) struct Events {
    pub(super) client: HttpClient,
    pub(super) url: Option<Uri>,
    pub(super) silence: Duration,
    pub(super) meter: Meter,
    pub(super) came: mpsc::Sender<FromService>,
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It did not begin.
    NotOpened,
    /// It broke, or the service ended it.
    Closed,
    /// Nothing came for too long.
    Silent,
    /// Nobody listens any more.
    Unheard,
}

impl Events {
    /// For ever, or until nobody listens any more. Without a URL there is nothing to follow.
    pub(super) async fn follow(self) {
        let Some(url) = self.url.clone() else { return std::future::pending().await };
        self.meter.connected(false);
        // Without the query, which may hold a secret.
        let service = url.authority().map_or("", |authority| authority.as_str());
        let (mut failures, mut streams, mut last_id) = (0, 0_u64, None);
        loop {
            let mut stream = EventStream::new();
            let ended = match self.open(&url, last_id.as_deref()).await {
                Some(response) => {
                    if streams > 0 {
                        self.meter.reconnected();
                    }
                    streams += 1;
                    let begun = now();
                    self.meter.connected(true);
                    tracing::info!(service, "following the bet service's rounds");
                    // Whoever has just come (back) does not know which tables are live.
                    if self.came.send(FromService::Unaware).await.is_err() {
                        return;
                    }
                    let ended = self.read(response, &mut stream).await;
                    self.meter.connected(false);
                    // One that ends at once is no better than none.
                    if now().saturating_duration_since(begun) >= BACKOFF.longest {
                        failures = 0;
                    }
                    ended
                }
                None => Ended::NotOpened,
            };
            if ended == Ended::Unheard {
                return;
            }
            // Kept over a stream that had none.
            last_id = stream.last_id().map(str::to_owned).or(last_id);
            failures += 1;
            if failures == 1 {
                tracing::warn!(service, ?ended, "the stream of the bet service's rounds is over");
            }
            let wait = BACKOFF.delay(failures, chance()).max(stream.retry().unwrap_or_default().min(LONGEST_RETRY));
            tokio::time::sleep(wait).await;
        }
    }

    async fn open(&self, url: &Uri, last_id: Option<&str>) -> Option<Response<Incoming>> {
        let mut request = request(Method::GET, url, Vec::new());
        let headers = request.headers_mut();
        headers.remove(CONTENT_TYPE);
        headers.insert(ACCEPT, HeaderValue::from_static(EVENT_STREAM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(id) = last_id.and_then(|id| HeaderValue::try_from(id).ok()) {
            headers.insert(LAST_EVENT_ID, id);
        }
        let response = tokio::time::timeout(HEAD, self.client.send(request)).await.ok()?.ok()?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if response.status() != StatusCode::OK || !essence.eq_ignore_ascii_case(EVENT_STREAM) {
            tracing::debug!(status = %response.status(), kind, "no stream of events");
            return None;
        }
        Some(response)
    }

    async fn read(&self, response: Response<Incoming>, stream: &mut EventStream) -> Ended {
        let mut body = response.into_body();
        loop {
            let frame = tokio::select! {
                frame = tokio::time::timeout(self.silence, body.frame()) => frame,
                () = self.came.closed() => return Ended::Unheard,
            };
            let bytes: Bytes = match frame {
                Err(_) => return Ended::Silent,
                Ok(None | Some(Err(_))) => return Ended::Closed,
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            stream.push(&bytes);
            while let Some(event) = stream.next_event() {
                let event = match event {
                    ServerSent::Event { data } => FromService::Event { text: data.into(), table: None },
                    ServerSent::TooLarge => FromService::TooLarge,
                };
                if self.came.send(event).await.is_err() {
                    return Ended::Unheard;
                }
            }
        }
    }
}

//! What a request is held to before anything looks at it: whom it comes from, how large its head is, and how many there
//! were before.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{Extensions, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::config::Config;
use crate::fleet::ClientNetwork;
use crate::telemetry::Limit;

use super::forwarded;
use super::listener::ConnectedFrom;
use super::problem::Problem;
use super::request_rate::RequestRate;

/// What RFC 9113 §6.5.2 adds to the length of each field.
const FIELD_OVERHEAD: usize = 32;

/// The limits of a listener's requests.
#[derive(Debug)]
pub(super) struct RequestLimits {
    config: Arc<Config>,
    rate: Option<RequestRate>,
}

impl RequestLimits {
    pub(super) fn new(config: &Arc<Config>) -> Arc<Self> {
        let http = &config.http;
        let rate = RequestRate::new(http.requests_per_second_per_address, http.request_burst_per_address);
        Arc::new(Self { config: Arc::clone(config), rate })
    }

    fn check(&self, request: &Request, client: ClientNetwork) -> Result<(), Problem> {
        let limit = self.config.http.max_header_bytes;
        if head_bytes(request) > limit {
            return Err(Problem::HeadersTooLarge { limit });
        }
        match &self.rate {
            Some(rate) => rate.take(now(), client).map_err(|retry_after| Problem::TooManyRequests { retry_after }),
            None => Ok(()),
        }
    }
}

/// Middleware: refuses what exceeds a limit, and tells the rest whom the request comes from, see [`client`].
pub(super) async fn check(
    State(limits): State<Arc<RequestLimits>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let http = &limits.config.http;
    let connected = request.extensions().get::<ConnectedFrom>();
    let peer = connected.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connected| connected.0);
    let client = forwarded::client(peer, request.headers(), http.proxy_header, &http.trusted_proxies);
    let client = ClientNetwork::of(client);
    limits.check(&request, client)?;
    request.extensions_mut().insert(client);
    Ok(next.run(request).await)
}

/// Whom a request comes from, once [`check`] has passed it.
pub(super) fn client(extensions: &Extensions) -> ClientNetwork {
    extensions.get().copied().unwrap_or_else(|| ClientNetwork::of(Ipv4Addr::UNSPECIFIED.into()))
}

/// The limit that an answer of this status tells of.
pub(super) fn of_status(status: StatusCode) -> Option<Limit> {
    match status {
        StatusCode::REQUEST_TIMEOUT => Some(Limit::RequestTime),
        StatusCode::PAYLOAD_TOO_LARGE => Some(Limit::BodyBytes),
        StatusCode::TOO_MANY_REQUESTS => Some(Limit::RequestRate),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Some(Limit::HeaderBytes),
        _ => None,
    }
}

/// The size of a head as HTTP/2 counts it. HTTP/1.1 refuses a large one while reading it.
fn head_bytes(request: &Request) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let field = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_OVERHEAD
    };
    target + request.headers().iter().map(field).sum::<usize>()
}

#[expect(clippy::disallowed_methods, reason = "the rate of requests is measured by the clock on the wall")]
fn now() -> Instant {
    Instant::now()
}

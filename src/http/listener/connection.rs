//! One connection, from the handshake to its end.

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::telemetry::{HttpProtocol, Limit};

use super::activity::Activity;
use super::service::ConnectionService;
use super::watched::Watched;
use super::{ServedCertificate, Site, tls};

/// How long the other end may take to see that the connection is over.
const GOODBYE: Duration = Duration::from_millis(500);

/// HTTP/2 flow control windows (RFC 9113 §6.9.2): an offer fits, and what is never read stays small.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Serves a connection until it ends, meets a limit, or `stopped` says so.
pub(super) async fn run(site: Site, stream: TcpStream, address: IpAddr, mut stopped: watch::Receiver<bool>) {
    let Some(certificate) = &site.certificate else {
        return http1(&site, stream, address, HttpProtocol::Http1, stopped).await;
    };
    let stream = tokio::select! {
        stream = handshake(&site, certificate, stream) => stream,
        _ = stopped.wait_for(|stop| *stop) => None,
    };
    let Some(stream) = stream else { return };
    // RFC 7301 §3.1; a client that names no protocol is taken for one of HTTP/1.1.
    if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2) {
        http2(&site, stream, address, stopped).await;
    } else {
        http1(&site, stream, address, HttpProtocol::Http1Tls, stopped).await;
    }
}

async fn handshake(site: &Site, certificate: &ServedCertificate, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let accept = TlsAcceptor::from(certificate.server_config()).accept(stream);
    let (listener, listeners) = (site.limits.listener, &site.metrics.listeners);
    match tokio::time::timeout(site.limits.handshake_time, accept).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => {
            debug!(%error, "TLS handshake failed");
            listeners.handshake_failed(listener);
        }
        Err(_) => listeners.limited(listener, Limit::TlsHandshakeTime),
    }
    None
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    site: &Site,
    stream: S,
    address: IpAddr,
    protocol: HttpProtocol,
    stopped: watch::Receiver<bool>,
) {
    let activity = Activity::new(now());
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let connection = http1::Builder::new()
        // Its clock would also run between requests, where a client may rest longer: `Activity` tells the two apart.
        .header_read_timeout(None::<Duration>)
        .max_header_size(site.limits.header_bytes)
        .serve_connection(stream, service(site, address, &activity));
    site.metrics.listeners.established(site.limits.listener, protocol);
    drive(site, connection, &activity, stopped).await;
}

async fn http2(site: &Site, stream: TlsStream<TcpStream>, address: IpAddr, stopped: watch::Receiver<bool>) {
    let activity = Activity::new(now());
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(site.limits.streams)
        // The library refuses without a word what exceeds its own limit; `limit::check` refuses, and counts, less.
        .max_header_list_size(u32::try_from(2 * site.limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(stream), service(site, address, &activity));
    site.metrics.listeners.established(site.limits.listener, HttpProtocol::Http2Tls);
    drive(site, connection, &activity, stopped).await;
}

fn service(site: &Site, address: IpAddr, activity: &Arc<Activity>) -> ConnectionService {
    ConnectionService { router: site.router.clone(), address, activity: Arc::clone(activity) }
}

/// A connection of either version.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Takes no further request; ends once those under way are answered.
    fn close(self: Pin<&mut Self>);
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection
    for http1::Connection<TokioIo<S>, ConnectionService>
{
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Connection for http2::Connection<TokioIo<TlsStream<TcpStream>>, ConnectionService, TokioExecutor> {
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Lets a connection run as long as it keeps to the limits.
async fn drive(site: &Site, connection: impl Connection, activity: &Activity, mut stopped: watch::Receiver<bool>) {
    let (limits, listeners) = (&*site.limits, &site.metrics.listeners);
    let mut connection = pin!(connection);
    let mut clock = pin!(tokio::time::sleep(limits.header_time));
    let mut closing: Option<Instant> = None;
    loop {
        let (due, limit) = match closing {
            Some(by) if activity.is_quiet() => (by, Limit::IdleTime),
            _ => activity.due(limits),
        };
        clock.as_mut().reset(due.into());
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                match ended {
                    Err(error) if error.is_parse_too_large() => listeners.limited(limits.listener, Limit::HeaderBytes),
                    Err(error) => debug!(%error, "connection ended"),
                    Ok(()) => {}
                }
                return;
            }
            _ = stopped.wait_for(|stop| *stop), if closing.is_none() => {
                connection.as_mut().close();
                closing = Some(now() + GOODBYE);
            }
            () = activity.changed() => {}
            () = clock.as_mut() => {
                if closing.is_some() && activity.is_quiet() {
                    return;
                }
                listeners.limited(limits.listener, limit);
                if limit != Limit::IdleTime {
                    return;
                }
                connection.as_mut().close();
                closing = Some(now() + GOODBYE);
            }
        }
    }
}

/// Connections are timed by the clock on the wall.
#[expect(clippy::disallowed_methods, reason = "the one place where a listener's time comes from")]
pub(super) fn now() -> Instant {
    Instant::now()
}

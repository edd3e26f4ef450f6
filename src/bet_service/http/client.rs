//! An HTTP client: connections that are kept, HTTP/1.1, or HTTP/2 where TLS agrees on it, and answers of bounded size.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{self, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

/// ALPN identifiers (RFC 9113 §3.1, RFC 7301 §6).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// How long a connection without a request is kept: less than servers and the load balancers before them do, so that
/// hardly any request meets one that is being closed.
const IDLE: Duration = Duration::from_secs(20);

/// A connection that is silent while requests wait on it is found out by pings: by one after so long, without an answer
/// for as long again.
const PING: Duration = Duration::from_secs(1);

/// A request's body.
pub(super) type Body = Full<Bytes>;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct HttpClient {
    client: legacy::Client<Connector, Body>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// There was no connection: nothing of the request has been sent.
    NotConnected,
    /// The connection ended.
    Broken,
    /// The answer is longer than is read.
    TooLarge,
}

impl HttpClient {
    /// Connections over TLS are made with `tls`. `connect_timeout` is for all of a connection, TLS included.
    pub(super) fn new(mut tls: rustls::ClientConfig, connect_timeout: Duration) -> Self {
        tls.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        let tcp = tcp(GaiResolver::new(), connect_timeout);
        let connector = Connector { tcp, tls: TlsConnector::from(Arc::new(tls)), timeout: connect_timeout };
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).timer(TokioTimer::new());
        builder.http2_keep_alive_interval(PING).http2_keep_alive_timeout(PING);
        Self { client: builder.build(connector) }
    }

    /// Sends a request and waits for the head of the answer. The caller limits the time.
    ///
    /// # Errors
    /// See [`NoAnswer`].
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, NoAnswer> {
        self.client.request(request).await.map_err(|error: Error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "no answer of the bet service");
            if error.is_connect() { NoAnswer::NotConnected } else { NoAnswer::Broken }
        })
    }
}

/// Makes connections to the addresses of a host: each gets its share of the time, so that one that is silent does not
/// take that of the others.
fn tcp<R>(resolver: R, connect_timeout: Duration) -> HttpConnector<R> {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    // Connections of TLS are made from it as well.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(15)));
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp
}

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// It is longer, or the connection ended before it did.
pub(super) async fn read(body: Incoming, most: usize) -> Result<Bytes, NoAnswer> {
    match Limited::new(body, most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(NoAnswer::TooLarge),
        Err(_) => Err(NoAnswer::Broken),
    }
}

/// Makes connections.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: TlsConnector,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_ready(cx).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (tls, limit) = (self.tls.clone(), self.timeout);
        let host = (uri.scheme_str() == Some("https")).then(|| uri.host().unwrap_or_default().to_owned());
        let tcp = self.tcp.call(uri);
        let connect = async move {
            let tcp = tcp.await.map_err(io::Error::other)?;
            let Some(host) = host else { return Ok(Stream::Plain(tcp)) };
            // RFC 3986 §3.2.2: an IPv6 address stands in brackets, which are none of it.
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let stream = tls.connect(name, tcp.into_inner()).await?;
            Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
        };
        Box::pin(async move {
            let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the connection took too long"));
            tokio::time::timeout(limit, connect).await.unwrap_or_else(late)
        })
    }
}

/// A connection.
enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(_) => Connected::new(),
            Self::Tls(stream) if stream.inner().get_ref().1.alpn_protocol() == Some(HTTP2) => {
                Connected::new().negotiated_h2()
            }
            Self::Tls(_) => Connected::new(),
        }
    }
}

impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hyper_util::client::legacy::connect::dns::Name;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Names these for every host.
    #[derive(Clone)]
    struct Names([SocketAddr; 2]);

    impl Service<Name> for Names {
        type Response = std::array::IntoIter<SocketAddr, 2>;
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<Self::Response>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _name: Name) -> Self::Future {
            std::future::ready(Ok(self.0.into_iter()))
        }
    }

    #[tokio::test]
    async fn an_address_that_is_silent_leaves_time_for_the_next() {
        // A listener whose queue is full: what else comes gets no answer.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = socket.listen(1).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let limit = Duration::from_millis(500);
        let mut queue = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(limit, TcpStream::connect(silent_address)).await {
            queue.push(stream);
        }
        let good = TcpListener::bind(("127.0.0.2", silent_address.port())).await.unwrap();
        let mut tcp = tcp(Names([silent_address, good.local_addr().unwrap()]), 4 * limit);
        let connected = tokio::time::timeout(4 * limit, tcp.call(Uri::from_static("http://service.example"))).await;
        assert!(connected.expect("in time").is_ok());
    }
}

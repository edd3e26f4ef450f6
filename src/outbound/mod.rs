//! Requests to other services: HTTP/1.1, over TLS where the URL says `https`; and TLS for those who speak something else.
//!
//! Enters: a request with an absolute URL. Leaves: the whole response, or why there is none, within a time and a size.
//! Owns: whom a certificate has to come from. Keeps no connection: no player waits for what is asked here.
//! Refuses to know: what is asked for; redirects, which are answers like others.

pub mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// How long an address may be silent before the next one is tried as well.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Asks other services. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
    limits: Limits,
}

/// What a request is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the look-up of the host to the last byte of the answer.
    pub time: Duration,
    /// The longest answer, in bytes.
    pub body: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The system has no authorities to trust.
    #[error(
        "this system has no certificates of authorities ({0}): install them (Debian: ca-certificates), or configure a file of \
         your own"
    )]
    NoRoots(String),
    /// The URL is not one of `http` or `https` with a host.
    #[error("{0} is no URL of http or https")]
    Url(Uri),
    /// The host cannot be found or reached.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The host is not who it should be, or does not speak TLS.
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
    /// What comes is not HTTP, or ends early.
    #[error("no answer in HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is longer than it may be.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// The authorities that this system trusts (on Linux a file of the distribution, or what `SSL_CERT_FILE` names).
///
/// # Errors
/// [`OutboundError::NoRoots`]
pub fn system_roots() -> Result<RootCertStore, OutboundError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some that a distribution has are of a form that no verifier takes.
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    match (taken, found.errors.first()) {
        (0, Some(error)) => Err(OutboundError::NoRoots(error.to_string())),
        (0, None) => Err(OutboundError::NoRoots("none were found".to_owned())),
        _ => Ok(roots),
    }
}

impl Client {
    /// A client that takes certificates of `roots` alone; see [`system_roots`].
    pub fn new(roots: RootCertStore, limits: Limits) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { tls: Arc::new(tls), limits }
    }

    /// The same client, with other limits.
    pub fn with_limits(&self, limits: Limits) -> Self {
        Self { limits, ..self.clone() }
    }

    /// Sends a request, whose URL is absolute, and gives the response whatever its status.
    ///
    /// # Errors
    /// See [`OutboundError`].
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, OutboundError> {
        let exchange = self.exchange(request);
        tokio::time::timeout(self.limits.time, exchange).await.unwrap_or(Err(OutboundError::Late(self.limits.time)))
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, OutboundError> {
        let url = request.uri().clone();
        let is_url = || OutboundError::Url(url.clone());
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(is_url)?;
        // An IPv6 address stands in brackets in a URL, and nowhere else.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let secure = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(is_url()),
        };
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let addresses = lookup_host((bare, port)).await.map_err(OutboundError::Connect)?;
        let stream = connect(addresses).await.map_err(OutboundError::Connect)?;
        if !secure {
            return self.over(stream, request).await;
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| is_url())?;
        let connecting = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        let stream = connecting.await.map_err(OutboundError::Tls)?;
        self.over(stream, request).await
    }

    async fn over<S>(&self, stream: S, request: Request<Bytes>) -> Result<Response<Bytes>, OutboundError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Dropped with this future, however it ends.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(origin_form(request)?).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.limits.body).collect().await.map_err(|error| self.broken(error))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    fn broken(&self, error: Box<dyn std::error::Error + Send + Sync>) -> OutboundError {
        match error.downcast::<hyper::Error>() {
            Ok(error) => OutboundError::Http(*error),
            Err(error) => {
                debug_assert!(error.is::<LengthLimitError>());
                OutboundError::TooLong(self.limits.body)
            }
        }
    }
}

/// Connects to whichever of these answers first. They are begun one after the other, each [`ATTEMPT_DELAY`] after the one before
/// or as soon as that has failed (RFC 8305 §5): one that never answers takes no more than that from the others.
async fn connect(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        let next = waiting.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect(address));
        }
        let ended = if is_last {
            attempts.join_next().await
        } else {
            tokio::time::timeout(ATTEMPT_DELAY, attempts.join_next()).await.unwrap_or_default()
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => failure = error,
            Some(Err(error)) => failure = error.into(),
            None if is_last => return Err(failure),
            None => {}
        }
    }
}

/// RFC 9112 §3.2.1: path and query in the request line, the authority in Host.
fn origin_form(request: Request<Bytes>) -> Result<Request<Full<Bytes>>, OutboundError> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    let Some(Ok(authority)) = authority else { return Err(OutboundError::Url(head.uri)) };
    head.headers.insert(HOST, authority);
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    head.uri = target.parse().map_err(|_| OutboundError::Url(head.uri.clone()))?;
    Ok(Request::from_parts(head, Full::new(body)))
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! The HTTP side: offers posted, sessions deleted (RFC 9725, draft-ietf-wish-whep).

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::time::timeout;
use url::Url;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Redirects that are followed.
const REDIRECTS: usize = 5;

/// Answers are no longer; the rest of one that is says nothing more.
const MAX_ANSWER: usize = 1 << 20;

/// Posts offers and deletes sessions.
#[derive(Clone, Debug)]
pub struct Signalling {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A session that a server made.
#[derive(Clone, Debug)]
pub struct Session {
    /// The answer's text.
    pub answer: String,
    /// What to DELETE; `None` where the server names nothing.
    pub url: Option<Url>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The server said no.
    #[error("{status}: {detail}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What it said, in short.
        detail: String,
    },
    /// There was no answer.
    #[error("{0}")]
    Unreachable(String),
}

impl PostError {
    /// The table is not there yet, or not live: whoever publishes it has only just begun.
    pub fn is_not_live(&self) -> bool {
        matches!(self, PostError::Refused { status: StatusCode::CONFLICT | StatusCode::NOT_FOUND, .. })
    }

    /// Short and the same for all that failed in the same way, to be counted by.
    pub fn reason(&self) -> String {
        match self {
            PostError::Refused { status, .. } => format!("HTTP {}", status.as_u16()),
            PostError::Unreachable(why) => why.clone(),
        }
    }
}

impl Signalling {
    /// Trusts the certificates that the host trusts, or any if `insecure`.
    ///
    /// # Errors
    /// The host has no certificates that it trusts.
    pub fn new(insecure: bool) -> anyhow::Result<Self> {
        let builder = HttpsConnectorBuilder::new();
        let builder = if insecure {
            let provider = aws_lc_rs::default_provider();
            let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth();
            builder.with_tls_config(config)
        } else {
            builder.with_provider_and_native_roots(aws_lc_rs::default_provider())?
        };
        let connector = builder.https_or_http().enable_http1().build();
        let http = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { http })
    }

    /// Posts an offer; follows redirects, without the token where they lead to another origin.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn post(&self, url: &Url, token: Option<&str>, offer: String) -> Result<Session, PostError> {
        let offer = Bytes::from(offer);
        let mut at = url.clone();
        for _ in 0..=REDIRECTS {
            let token = token.filter(|_| at.origin() == url.origin());
            let response = self.send(Method::POST, &at, token, offer.clone()).await?;
            let status = response.status();
            // Against the URL that answered: a redirect may have led elsewhere.
            let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
            let location = location.and_then(|location| at.join(location).ok());
            if let (StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT, Some(next)) = (status, &location) {
                at = next.clone();
                continue;
            }
            let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
            let body = timeout(TIMEOUT, body.collect()).await.map_err(|_| late())?;
            let body = body.map_err(|error| PostError::Unreachable(error.to_string()))?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            if status != StatusCode::CREATED {
                return Err(PostError::Refused { status, detail: body.chars().take(200).collect() });
            }
            return Ok(Session { answer: body, url: location });
        }
        Err(PostError::Unreachable(format!("more than {REDIRECTS} redirects")))
    }

    /// Ends a session; the server ends it by itself where this fails.
    pub async fn delete(&self, url: &Url, token: Option<&str>) {
        let _ = self.send(Method::DELETE, url, token, Bytes::new()).await;
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<Response<hyper::body::Incoming>, PostError> {
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::USER_AGENT, concat!("tableside-load/", env!("CARGO_PKG_VERSION")));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/sdp");
        }
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| PostError::Unreachable(error.to_string()))?;
        let answered = timeout(TIMEOUT, self.http.request(request)).await.map_err(|_| late())?;
        answered.map_err(|error| PostError::Unreachable(innermost(&error)))
    }
}

fn late() -> PostError {
    PostError::Unreachable(format!("no answer within {} s", TIMEOUT.as_secs()))
}

/// The innermost cause, which is what helps.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// `--insecure`: whoever answers is who was meant, as long as the handshake itself is sound.
#[derive(Debug)]
struct AnyCertificate(rustls::crypto::CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

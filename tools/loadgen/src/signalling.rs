//! The HTTP side: offers posted, sessions deleted (RFC 9725, draft-ietf-wish-whep).

use std::time::Duration;

use reqwest::{Client, StatusCode, Url, header};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Posts offers and deletes sessions.
#[derive(Clone, Debug)]
pub struct Signalling {
    http: Client,
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
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(insecure: bool) -> reqwest::Result<Self> {
        let http = Client::builder()
            .timeout(TIMEOUT)
            .user_agent(concat!("tableside-load/", env!("CARGO_PKG_VERSION")))
            // A proxy of the environment would be what is measured.
            .no_proxy()
            .danger_accept_invalid_certs(insecure)
            .build()?;
        Ok(Self { http })
    }

    /// Posts an offer; follows redirects.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn post(&self, url: &str, token: Option<&str>, offer: String) -> Result<Session, PostError> {
        let mut request = self.http.post(url).header(header::CONTENT_TYPE, "application/sdp").body(offer);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        let (status, at) = (response.status(), response.url().clone());
        let location =
            response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
        let body = response.text().await.map_err(|error| unreachable(&error))?;
        if status != StatusCode::CREATED {
            return Err(PostError::Refused { status, detail: body.chars().take(200).collect() });
        }
        // Against the URL that answered: a redirect may have led elsewhere.
        Ok(Session { answer: body, url: location.and_then(|location| at.join(&location).ok()) })
    }

    /// Ends a session; the server ends it by itself where this fails.
    pub async fn delete(&self, url: Url, token: Option<&str>) {
        let mut request = self.http.delete(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let _ = request.send().await;
    }
}

/// The innermost cause, which is what helps.
fn unreachable(error: &reqwest::Error) -> PostError {
    if error.is_timeout() {
        return PostError::Unreachable(format!("no answer within {} s", TIMEOUT.as_secs()));
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    PostError::Unreachable(cause.to_string())
}

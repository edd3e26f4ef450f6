//! Where the issuer's keys come from.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::ACCEPT;
use hyper::{Request, StatusCode};

use crate::config::{self, Auth, JwksUrl};
use crate::identity::MAX_KEY_SET;
use crate::outbound::{Client, Limits, OutboundError, system_roots};

/// A file is looked at as often as those of the certificate are: by its content, since Kubernetes exchanges the files of a
/// Secret or ConfigMap by a link far up their path.
const FILE_INTERVAL: Duration = Duration::from_secs(3);

/// Between two looks because of keys that tokens name and nobody knows.
const LEAST_FILE_INTERVAL: Duration = Duration::from_secs(1);
const LEAST_URL_INTERVAL: Duration = Duration::from_secs(10);

const LIMITS: Limits = Limits { time: Duration::from_secs(5), body: MAX_KEY_SET };

/// A place with a key set in it.
#[derive(Debug)]
pub(super) enum Source {
    /// The keys of the configuration, for good.
    Fixed,
    File(PathBuf),
    Url {
        url: JwksUrl,
        client: Client,
        every: Duration,
    },
}

impl Source {
    /// # Errors
    /// There are no authorities to trust for the URL.
    pub(super) fn of(auth: &Auth) -> Result<Self, OutboundError> {
        let Some(url) = auth.jwks_url.clone() else {
            return Ok(auth.jwks_file.clone().map_or(Source::Fixed, Source::File));
        };
        let roots = match &auth.jwks_ca_file {
            Some(file) => config::authorities(file).map_err(OutboundError::NoRoots)?,
            None if url.as_str().starts_with("http://") => rustls::RootCertStore::empty(),
            None => system_roots()?,
        };
        Ok(Source::Url { url, client: Client::new(roots, LIMITS), every: auth.jwks_refresh })
    }

    /// How often it is looked at.
    pub(super) fn interval(&self) -> Duration {
        match self {
            Source::Fixed | Source::File(_) => FILE_INTERVAL,
            Source::Url { every, .. } => *every,
        }
    }

    /// How often it is looked at, at most, because of unknown keys.
    pub(super) fn least_interval(&self) -> Duration {
        match self {
            Source::Fixed | Source::File(_) => LEAST_FILE_INTERVAL,
            Source::Url { .. } => LEAST_URL_INTERVAL,
        }
    }

    /// Its content.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) async fn load(&self) -> Result<Vec<u8>, String> {
        match self {
            Source::Fixed => Err("they come with the configuration".to_owned()),
            Source::File(file) => {
                let file = file.clone();
                // It may lie on a network: not on a thread of the runtime.
                let read = tokio::task::spawn_blocking(move || read(&file)).await;
                read.unwrap_or_else(|error| Err(error.to_string()))
            }
            Source::Url { url, client, .. } => fetch(client, url).await,
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    // One byte more than is read, so that what is longer is noticed.
    let read = File::open(file).and_then(|file| file.take(MAX_KEY_SET as u64 + 1).read_to_end(&mut text));
    read.map(|_| text).map_err(|error| format!("cannot be read: {error}"))
}

async fn fetch(client: &Client, url: &JwksUrl) -> Result<Vec<u8>, String> {
    // RFC 7517 §8.5.2; issuers mostly say application/json.
    let request = Request::get(url.as_str()).header(ACCEPT, "application/jwk-set+json, application/json");
    let request = request.body(Bytes::new()).map_err(|error| error.to_string())?;
    let response = client.send(request).await.map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::OK => Ok(response.into_body().to_vec()),
        status if status.is_redirection() => {
            Err(format!("it answers {status}, and redirects are not followed: configure the URL that has the keys"))
        }
        status => Err(format!("it answers {status}")),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Fixed => f.write_str("the configuration"),
            Source::File(file) => write!(f, "{}", file.display()),
            Source::Url { url, .. } => write!(f, "{url}"),
        }
    }
}

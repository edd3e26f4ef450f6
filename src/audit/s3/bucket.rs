//! Requests to one bucket, and what their refusals mean.

use std::io;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, IF_NONE_MATCH};
use hyper::http::response::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use rustls::RootCertStore;

use crate::bets::audit::{Digest, Timestamp};
use crate::config::{LockMode, authorities};
use crate::outbound::{Client, Limits, OutboundError, system_roots};

use super::super::clock::timestamp;
use super::document::{Listing, error_of};
use super::sigv4::{encode, extended_time, sign};
use super::{S3Options, credentials};

/// The longest answer that is not an object: a page of a listing.
const MOST_TEXT: usize = 2 << 20;

/// A request may take a second more for so many bytes.
const BYTES_A_SECOND: u64 = 1 << 20;

const DAY: u64 = 86_400_000_000;

/// An object as it is there.
#[derive(Debug)]
pub(super) struct There {
    /// Its bytes are the ones that were asked for.
    pub(super) is_same: bool,
    /// Until when it is locked, and how, if the store says so.
    pub(super) lock: Option<(String, Timestamp)>,
}

/// A bucket, and the way to it.
pub(super) struct Bucket {
    options: S3Options,
    client: Client,
}

impl Bucket {
    /// # Errors
    /// There are no authorities to trust.
    pub(super) fn new(options: S3Options) -> io::Result<Self> {
        let roots = match &options.ca_file {
            Some(file) => authorities(file).map_err(io::Error::other)?,
            None if options.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")) => RootCertStore::empty(),
            None => system_roots().map_err(io::Error::other)?,
        };
        let limits = Limits { time: options.request_timeout, body: MOST_TEXT };
        Ok(Self { client: Client::new(roots, limits), options })
    }

    /// What is under a key, held against `bytes`; `None` for nothing.
    pub(super) async fn look(&self, key: &str, bytes: &Bytes) -> io::Result<Option<There>> {
        let head = self.request(Method::HEAD, Some(key), &[]).header("x-amz-checksum-mode", "ENABLED");
        let (head, body) = self.send(head, Bytes::new(), 0).await?;
        match head.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.say_why(key, &head, &body).await),
        }
        let lock = lock_of(&head.headers);
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let length = text(CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length != bytes.len() as u64) {
            return Ok(Some(There { is_same: false, lock }));
        }
        // That of an object in parts is a hash of hashes.
        let is_whole = text("x-amz-checksum-type").is_none_or(|kind| kind.eq_ignore_ascii_case("FULL_OBJECT"));
        let is_same = match text("x-amz-checksum-sha256").filter(|sum| is_whole && !sum.contains('-')) {
            Some(sum) => sum == checksum(bytes),
            None => self.read(key, None, bytes.len()).await? == *bytes,
        };
        Ok(Some(There { is_same, lock }))
    }

    /// Writes an object that is not there yet and locks it; `false` if there is one by now.
    pub(super) async fn write(&self, key: &str, bytes: &Bytes, until: Timestamp) -> io::Result<bool> {
        let request = self
            .request(Method::PUT, Some(key), &[])
            .header(IF_NONE_MATCH, "*")
            .header("x-amz-sdk-checksum-algorithm", "SHA256")
            .header("x-amz-checksum-sha256", checksum(bytes))
            .header("x-amz-object-lock-mode", self.lock_mode())
            .header("x-amz-object-lock-retain-until-date", extended_time(until));
        let (head, body) = self.send(request, bytes.clone(), 0).await?;
        match head.status {
            StatusCode::OK => Ok(true),
            StatusCode::PRECONDITION_FAILED => Ok(false),
            _ => Err(self.refusal(&Method::PUT, Some(key), &head, &body)),
        }
    }

    /// An object of at most so many bytes, or a version of it.
    pub(super) async fn read(&self, key: &str, version: Option<&str>, most: usize) -> io::Result<Bytes> {
        let query: Vec<(&str, &str)> = version.map(|id| ("versionId", id)).into_iter().collect();
        let (head, body) = self.send(self.request(Method::GET, Some(key), &query), Bytes::new(), most).await?;
        if head.status == StatusCode::OK { Ok(body) } else { Err(self.refusal(&Method::GET, Some(key), &head, &body)) }
    }

    /// A page of versions.
    pub(super) async fn list(&self, query: &[(&str, &str)]) -> io::Result<Listing> {
        let query = [&[("versions", "")], query].concat();
        let (head, body) = self.send(self.request(Method::GET, None, &query), Bytes::new(), 0).await?;
        if head.status != StatusCode::OK {
            return Err(self.refusal(&Method::GET, None, &head, &body));
        }
        std::str::from_utf8(&body).ok().and_then(Listing::parse).ok_or_else(|| {
            let what = format!("{} answers with something else than a list of versions", self.place(None));
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }

    /// That it is there: some stores list what is not, as empty.
    pub(super) async fn exists(&self) -> io::Result<()> {
        let (head, body) = self.send(self.request(Method::HEAD, None, &[]), Bytes::new(), 0).await?;
        if head.status == StatusCode::OK { Ok(()) } else { Err(self.refusal(&Method::GET, None, &head, &body)) }
    }

    /// Until when an object that is written now is locked.
    pub(super) fn retained_until(&self) -> Timestamp {
        Timestamp(timestamp().0 + DAY * u64::from(self.options.retain_days))
    }

    pub(super) fn lock_mode(&self) -> &'static str {
        match self.options.lock_mode {
            LockMode::Compliance => "COMPLIANCE",
            LockMode::Governance => "GOVERNANCE",
        }
    }

    /// A key, or the bucket, for people.
    pub(super) fn place(&self, key: Option<&str>) -> String {
        format!("s3://{}/{}", self.options.bucket, key.unwrap_or_default())
    }

    fn request(&self, method: Method, key: Option<&str>, query: &[(&str, &str)]) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(self.url(key, query))
    }

    /// Keys are of characters that need no encoding.
    pub(super) fn url(&self, key: Option<&str>, query: &[(&str, &str)]) -> String {
        let S3Options { bucket, region, endpoint, .. } = &self.options;
        let base = match endpoint {
            Some(endpoint) => format!("{endpoint}/{bucket}"),
            None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        };
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{base}/{}{mark}{}", key.unwrap_or_default(), query.join("&"))
    }

    /// Signs a request and sends it; at most `most` bytes of an object are answered.
    async fn send(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
        most: usize,
    ) -> io::Result<(Parts, Bytes)> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let length = body.len().max(most) as u64;
        let mut request = request.body(body).map_err(|error| invalid(error.to_string()))?;
        let variable = |name: &str| std::env::var(name).ok();
        let credentials = credentials::find(self.options.credentials_file.as_deref(), &variable).await?;
        sign(&mut request, &credentials, &self.options.region, timestamp())
            .map_err(|_| invalid("the credentials for audit.s3 have characters that no header can have".to_owned()))?;
        let time = self.options.request_timeout + Duration::from_secs(length / BYTES_A_SECOND);
        let answer = self.client.with_limits(Limits { time, body: most.max(MOST_TEXT) }).send(request).await;
        answer.map(Response::into_parts).map_err(|error| {
            let kind = match error {
                OutboundError::Late(_) => io::ErrorKind::TimedOut,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, format!("{}: {error}", self.place(None)))
        })
    }

    /// An answer to HEAD has no body, so another request is asked why.
    async fn say_why(&self, key: &str, head: &Parts, body: &[u8]) -> io::Error {
        match self.list(&[("prefix", key), ("max-keys", "1")]).await {
            Err(error) => error,
            Ok(_) => self.refusal(&Method::HEAD, Some(key), head, body),
        }
    }

    fn refusal(&self, method: &Method, key: Option<&str>, head: &Parts, body: &[u8]) -> io::Error {
        use io::ErrorKind::{InvalidInput, NotFound, Other, PermissionDenied, TimedOut, Unsupported};
        let (code, message) = error_of(body);
        let region = head.headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
        let (kind, advice) = match (head.status.as_u16(), code.as_str()) {
            (401 | 403, "RequestTimeTooSkewed") => (PermissionDenied, "set the clock of this host".to_owned()),
            (401 | 403, _) => (PermissionDenied, "docs/audit.md says which rights the node needs".to_owned()),
            (404, _) => (NotFound, String::new()),
            (400, "InvalidRequest") if *method != Method::PUT => (InvalidInput, String::new()),
            (400, "InvalidRequest") => {
                (InvalidInput, "the bucket has to have object lock, which it can be made with".to_owned())
            }
            (408 | 504, _) => (TimedOut, String::new()),
            (501, _) => (Unsupported, "this store cannot do what a sink needs".to_owned()),
            (301 | 307 | 400, _) if region.is_some() => {
                (Other, format!("set audit.s3.region = {:?}", region.unwrap_or_default()))
            }
            _ => (Other, String::new()),
        };
        let said = [code, message, advice].into_iter().filter(|said| !said.is_empty());
        let said: Vec<String> = [self.place(key), head.status.as_u16().to_string()].into_iter().chain(said).collect();
        io::Error::new(kind, said.join(": "))
    }
}

/// `x-amz-checksum-sha256`
pub(super) fn checksum(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(Digest::of(bytes).0)
}

/// Mode and date, or it is not locked.
fn lock_of(headers: &HeaderMap) -> Option<(String, Timestamp)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let until = text("x-amz-object-lock-retain-until-date")?.parse().ok()?;
    Some((text("x-amz-object-lock-mode")?.to_owned(), until))
}

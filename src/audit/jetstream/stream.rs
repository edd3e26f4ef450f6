//! A stream over one connection, and what is asked of it: how it is configured, which messages it has, that it takes one more.
//!
//! These are four documents of NATS' own protocol, written here instead of taken from the client library: its form of a stream's
//! configuration lacks fields that matter here, and the numbers of the server's errors matter too.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, Event, HeaderMap, Request, RequestErrorKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::bets::audit::Timestamp;
use crate::nats;

use super::JetstreamOptions;
use super::settings::{Settings, how_to_make};
use super::subject::Subjects;

/// With which sequence number the last message of a subject has to be there, for another one to be taken.
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// For the headers of a message, and what the protocol has around it.
const AROUND: usize = 4 << 10;

/// A message that a stream has.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub(super) subject: String,
    /// Its number in the stream.
    pub(super) sequence: u64,
    /// When the server has taken it.
    pub(super) time: Timestamp,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Reads the server's answer to `MSG.GET`; `None` where it is a refusal, or no such answer.
    pub fn read(answer: &[u8]) -> Option<Self> {
        let found: Found = read(answer)?.ok()?;
        Self::try_from(found.message).ok()
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.find(name)
    }

    /// What was published.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} on {}, {} bytes", self.sequence, self.subject, self.body.len())
    }
}

/// The headers of a message, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers(pub(super) Vec<u8>);

impl Headers {
    /// The value of the first of this name.
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.0).ok()?;
        let fields = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(field, _)| *field == name).map(|(_, value)| value.trim())
    }
}

/// Whether a message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// With this number.
    As(u64),
    /// Not: another one had come before it.
    Behind,
}

/// A stream, over a connection that ends with this.
pub(super) struct Stream {
    client: Client,
    name: String,
    settings: Settings,
    /// Why no answer will come.
    trouble: watch::Receiver<Option<(io::ErrorKind, String)>>,
    /// How long each may take.
    limit: Duration,
}

impl Stream {
    /// Connects as `subjects`' node, and looks whether the stream does.
    ///
    /// # Errors
    /// As [`Stream::connect`], or it would not keep what it is given.
    pub(super) async fn open(options: &JetstreamOptions, subjects: &Subjects) -> io::Result<Self> {
        let stream = Self::connect(options, subjects).await?;
        stream.check(options, subjects)?;
        Ok(stream)
    }

    /// Whether it keeps what it is given, as it is.
    ///
    /// # Errors
    /// What is otherwise.
    pub(super) fn check(&self, options: &JetstreamOptions, subjects: &Subjects) -> io::Result<()> {
        self.settings.check(&self.name, &options.subject_prefix, subjects, options.segments)
    }

    /// Connects as `subjects`' node.
    ///
    /// # Errors
    /// No server can be reached or lets the node in, or there is no such stream.
    pub(super) async fn connect(options: &JetstreamOptions, subjects: &Subjects) -> io::Result<Self> {
        let JetstreamOptions { access, stream: name, subject_prefix: prefix, .. } = options;
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let tls = nats::tls(access).map_err(invalid)?;
        let servers = nats::addresses(access);
        let (troubles, trouble) = watch::channel(None);
        let connecting = nats::options(access, tls.as_ref())
            .custom_inbox_prefix(subjects.inbox())
            .event_callback(move |event| {
                if let Some(trouble) = trouble_of(&event) {
                    troubles.send_replace(Some(trouble));
                }
                std::future::ready(())
            })
            .connect(servers.clone());
        let place = servers.join(", ");
        let failed = |kind, what: &dyn fmt::Display| io::Error::new(kind, format!("cannot connect to {place}: {what}"));
        let limit = options.connecting();
        let client = match timeout(limit, connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        io::ErrorKind::PermissionDenied
                    }
                    ConnectErrorKind::TimedOut => io::ErrorKind::TimedOut,
                    _ => io::ErrorKind::NotConnected,
                };
                return Err(failed(kind, &error));
            }
            Err(_) => return Err(failed(io::ErrorKind::TimedOut, &format!("not within {limit:?}"))),
        };
        let limit = options.request_timeout;
        let mut stream = Self { client, name: name.clone(), settings: Settings::default(), trouble, limit };
        let Info { config, .. } = stream.info(&json!({})).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), format!("{error}; make it: `{}`", how_to_make(name, prefix)))
            }
            _ => error,
        })?;
        stream.settings = config;
        Ok(stream)
    }

    /// The place of a message, for people.
    pub(super) fn place(&self, message: &Message) -> String {
        format!("message {} of the stream {}, on {}", message.sequence, self.name, message.subject)
    }

    /// The longest message that is taken.
    pub(super) fn longest(&self) -> usize {
        let server = self.client.server_info().max_payload;
        let stream = self.settings.longest_message().unwrap_or(usize::MAX);
        server.min(stream).saturating_sub(AROUND)
    }

    /// The subjects on which there are messages, of those that `filter` stands for.
    ///
    /// # Errors
    /// The stream does not tell, or there are more than `most`.
    pub(super) async fn subjects(&self, filter: &str, most: usize) -> io::Result<Vec<String>> {
        let mut found = BTreeMap::new();
        loop {
            let Info { state, total, .. } =
                self.info(&json!({ "subjects_filter": filter, "offset": found.len() })).await?;
            let page = state.subjects.unwrap_or_default();
            let known = found.len();
            found.extend(page);
            if found.len() > most {
                let what = format!("more than {most} subjects {filter} of the stream {}", self.name);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            if found.len() == known || found.len() >= total.unwrap_or(0) {
                return Ok(found.into_keys().collect());
            }
        }
    }

    /// The last message on a subject.
    ///
    /// # Errors
    /// The stream does not tell.
    pub(super) async fn last(&self, subject: &str) -> io::Result<Option<Message>> {
        self.message(subject, &json!({ "last_by_subj": subject })).await
    }

    /// The first message on a subject with a number from `sequence` on.
    ///
    /// # Errors
    /// The stream does not tell.
    pub(super) async fn next(&self, subject: &str, sequence: u64) -> io::Result<Option<Message>> {
        self.message(subject, &json!({ "next_by_subj": subject, "seq": sequence })).await
    }

    /// The first message on a subject that is such, of those with a number below `end`; all that follow one that is such are, too.
    ///
    /// # Errors
    /// The stream does not tell, or `is_such` cannot.
    pub(super) async fn first(
        &self,
        subject: &str,
        end: u64,
        is_such: impl Fn(&Message) -> io::Result<bool>,
    ) -> io::Result<Option<Message>> {
        let (mut low, mut high, mut found) = (1, end, None);
        while low < high {
            let middle = low.midpoint(high);
            match self.next(subject, middle).await? {
                Some(message) if message.sequence < high => {
                    if is_such(&message)? {
                        (high, found) = (middle, Some(message));
                    } else {
                        low = message.sequence + 1;
                    }
                }
                _ => high = middle,
            }
        }
        Ok(found)
    }

    /// Has a message taken after the one with the number `after` on its subject, 0 for none. The stream has it when this returns.
    ///
    /// # Errors
    /// It is not taken; it may have been if no answer came.
    pub(super) async fn publish(
        &self,
        subject: &str,
        after: u64,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> io::Result<Published> {
        headers.insert(EXPECTED, after.to_string());
        let request = Request::new().payload(body).headers(headers);
        match self.ask::<Acknowledged>(subject, request).await? {
            Ok(Acknowledged { stream, seq }) if stream == self.name => Ok(Published::As(seq)),
            Ok(Acknowledged { stream, .. }) => {
                let what = format!("{subject} goes to the stream {stream}, and not to {}", self.name);
                Err(io::Error::new(io::ErrorKind::Unsupported, what))
            }
            Err(Refused { err_code: WRONG_LAST | WRONG_LAST_CONSTANT, .. }) => Ok(Published::Behind),
            Err(refused) => Err(self.refused(&refused)),
        }
    }

    async fn info(&self, question: &serde_json::Value) -> io::Result<Info> {
        self.call("INFO", question).await?.map_err(|refused| self.refused(&refused))
    }

    async fn message(&self, subject: &str, question: &serde_json::Value) -> io::Result<Option<Message>> {
        let stored = match self.call::<Found>("MSG.GET", question).await? {
            Ok(Found { message }) => message,
            Err(Refused { err_code: NO_MESSAGE, .. }) => return Ok(None),
            Err(refused) => return Err(self.refused(&refused)),
        };
        match Message::try_from(stored) {
            Ok(message) if message.subject == subject => Ok(Some(message)),
            _ => Err(self.unfit(subject)),
        }
    }

    /// Asks for something of the protocol for streams.
    async fn call<T: DeserializeOwned>(
        &self,
        what: &str,
        question: &serde_json::Value,
    ) -> io::Result<Result<T, Refused>> {
        let subject = format!("$JS.API.STREAM.{what}.{}", self.name);
        self.ask(&subject, Request::new().payload(question.to_string().into())).await
    }

    /// The answer, or the server's word that there is none.
    async fn ask<T: DeserializeOwned>(&self, subject: &str, request: Request) -> io::Result<Result<T, Refused>> {
        let mut trouble = self.trouble.clone();
        let answer = tokio::select! {
            answer = self.client.send_request(subject.to_owned(), request.timeout(Some(self.limit))) => answer,
            Ok(trouble) = trouble.wait_for(Option::is_some) => {
                let (kind, what) = trouble.clone().unwrap_or((io::ErrorKind::Other, String::new()));
                return Err(io::Error::new(kind, what));
            }
        };
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => {
                io::Error::new(io::ErrorKind::TimedOut, format!("no answer on {subject} within {:?}", self.limit))
            }
            RequestErrorKind::NoResponders => {
                let what = format!(
                    "nobody answers on {subject}: JetStream is off, or not on for the account, or no stream takes the subject"
                );
                io::Error::new(io::ErrorKind::NotConnected, what)
            }
            _ => io::Error::other(format!("{subject}: {error}")),
        })?;
        read(&answer.payload).ok_or_else(|| self.unfit(subject))
    }

    fn refused(&self, refused: &Refused) -> io::Error {
        let Refused { err_code, description } = refused;
        let kind = match *err_code {
            NO_STREAM => io::ErrorKind::NotFound,
            MAXIMUM_BYTES | NO_RESOURCES | NO_STORAGE => io::ErrorKind::StorageFull,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, format!("the stream {}: {description} (NATS error {err_code})", self.name))
    }

    fn unfit(&self, subject: &str) -> io::Error {
        let what = format!("the stream {}: what came for {subject} is no answer of JetStream", self.name);
        io::Error::new(io::ErrorKind::InvalidData, what)
    }
}

/// What the server calls its errors.
const NO_RESOURCES: u32 = 10_023;
const NO_MESSAGE: u32 = 10_037;
const NO_STORAGE: u32 = 10_047;
const NO_STREAM: u32 = 10_059;
const WRONG_LAST: u32 = 10_071;
const MAXIMUM_BYTES: u32 = 10_077;
const WRONG_LAST_CONSTANT: u32 = 10_164;

/// Why an answer will not come, if it will not.
fn trouble_of(event: &Event) -> Option<(io::ErrorKind, String)> {
    match event {
        Event::Disconnected | Event::Closed => {
            Some((io::ErrorKind::ConnectionAborted, "the connection to the NATS server is lost".to_owned()))
        }
        Event::ServerError(error) => {
            let what = error.to_string();
            let is_denied = what.to_ascii_lowercase().contains("permissions violation");
            let kind = if is_denied { io::ErrorKind::PermissionDenied } else { io::ErrorKind::Other };
            Some((kind, format!("the NATS server says: {what}")))
        }
        _ => None,
    }
}

/// The server's word on why not.
#[derive(Debug, Deserialize)]
struct Refused {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: Refused,
}

#[derive(Deserialize)]
struct Acknowledged {
    stream: String,
    seq: u64,
}

#[derive(Deserialize)]
struct Info {
    config: Settings,
    #[serde(default)]
    state: State,
    /// How many subjects there are.
    total: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    subjects: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct Found {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    time: String,
    hdrs: Option<String>,
    data: Option<String>,
}

/// An answer of the protocol; `None` for anything else.
fn read<T: DeserializeOwned>(answer: &[u8]) -> Option<Result<T, Refused>> {
    match serde_json::from_slice::<Refusal>(answer) {
        Ok(Refusal { error }) => Some(Err(error)),
        Err(_) => serde_json::from_slice(answer).ok().map(Ok),
    }
}

struct NoMessage;

impl TryFrom<Stored> for Message {
    type Error = NoMessage;

    fn try_from(stored: Stored) -> Result<Self, NoMessage> {
        let Stored { subject, seq, time, hdrs, data } = stored;
        let bytes = |text: Option<String>| STANDARD.decode(text.unwrap_or_default()).map_err(|_| NoMessage);
        let time = time_of(&time).ok_or(NoMessage)?;
        Ok(Self { subject, sequence: seq, time, headers: Headers(bytes(hdrs)?), body: bytes(data)? })
    }
}

/// Reads a time of RFC 3339 in UTC, to the microsecond.
fn time_of(text: &str) -> Option<Timestamp> {
    let (second, fraction) = match text.strip_suffix('Z')?.split_once('.') {
        Some((second, fraction)) => (second, fraction),
        None => (text.strip_suffix('Z')?, ""),
    };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros = fraction.get(..fraction.len().min(6))?;
    let dot = if micros.is_empty() { "" } else { "." };
    format!("{second}{dot}{micros}").parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(answer: &str) -> Option<Message> {
        Message::read(answer.as_bytes())
    }

    #[test]
    fn a_message_is_read_with_its_headers() {
        let headers = STANDARD.encode("NATS/1.0\r\nTableside-Chunk: 3\r\nOther:x\r\n\r\n");
        let answer = format!(
            r#"{{"type":"io.nats","message":{{"subject":"a.b","seq":7,"hdrs":"{headers}","data":"bGluZQo=","time":"2026-09-21T14:13:27.048999123Z"}}}}"#
        );
        let message = stored(&answer).unwrap();
        assert_eq!((message.subject.as_str(), message.sequence, &message.body[..]), ("a.b", 7, &b"line\n"[..]));
        assert_eq!(message.time, Timestamp(1_790_000_007_048_999));
        assert_eq!(message.headers.find("Tableside-Chunk"), Some("3"));
        assert_eq!(message.headers.find("Other"), Some("x"));
        assert_eq!(message.headers.find("NATS/1.0"), None);
        let empty = r#"{"message":{"subject":"a","seq":1,"time":"2026-09-21T14:13:27Z"}}"#;
        assert!(stored(empty).unwrap().body.is_empty());
        for broken in
            ["", "{}", &answer.replace("bGluZQo=", "="), &answer.replace("2026", "now"), &answer.replace('7', "x")]
        {
            assert_eq!(stored(broken), None, "{broken}");
        }
        let refused = read::<Found>(br#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#);
        assert_eq!(refused.unwrap().err().unwrap().err_code, NO_MESSAGE);
    }

    #[test]
    fn times_of_the_server_are_read_whatever_their_fraction() {
        let second = 1_790_000_007_000_000;
        for (text, micros) in [("", 0), (".5", 500_000), (".000001", 1), (".1234567", 123_456), (".999999999", 999_999)]
        {
            assert_eq!(time_of(&format!("2026-09-21T14:13:27{text}Z")), Some(Timestamp(second + micros)), "{text}");
        }
        for none in ["", "Z", "2026-09-21T14:13:27", "2026-09-21T14:13:27.é99999Z", "2026-09-21T14:13:27+02:00"] {
            assert_eq!(time_of(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, time in "[0-9TZ:.é-]{0,30}", hdrs in "[A-Za-z0-9+/=]{0,40}") {
            let _ = (read::<Info>(&bytes), read::<Acknowledged>(&bytes), time_of(&time));
            let _ = Headers(bytes).find("Tableside-Chunk");
            let answer = format!(r#"{{"message":{{"subject":"a","seq":1,"hdrs":"{hdrs}","time":"{time}"}}}}"#);
            let _ = stored(&answer).map(|message| message.headers.find("a").is_some());
        }
    }
}

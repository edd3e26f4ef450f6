//! `[audit.jetstream]`: a stream of NATS JetStream as the sink of the audit trail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client_tls::ClientTls;
use super::nats::{NatsAccess, NatsServer};
use super::units::milliseconds;

/// `[audit.jetstream]`: without a stream it is no sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditJetstream {
    /// The name of a stream that removes nothing.
    pub stream: Option<String>,
    /// What all subjects begin with.
    pub subject_prefix: String,
    /// Servers of one cluster.
    pub servers: Vec<NatsServer>,
    /// A `.creds` file.
    pub credentials_file: Option<PathBuf>,
    /// With [`AuditJetstream::password_file`].
    pub username: Option<String>,
    /// A file with a password.
    pub password_file: Option<PathBuf>,
    /// A file with a token.
    pub token_file: Option<PathBuf>,
    /// How long a connection may take to be made, TLS included.
    #[serde(rename = "connect_timeout_ms", with = "milliseconds")]
    pub connect_timeout: Duration,
    /// How long an answer may take.
    #[serde(rename = "request_timeout_ms", with = "milliseconds")]
    pub request_timeout: Duration,
    /// Whether finished segments are copied as well, or checkpoints alone.
    pub segments: bool,
    /// `[audit.jetstream.tls]`
    pub tls: ClientTls,
}

impl Default for AuditJetstream {
    fn default() -> Self {
        Self {
            stream: None,
            subject_prefix: "tableside.audit".to_owned(),
            servers: Vec::new(),
            credentials_file: None,
            username: None,
            password_file: None,
            token_file: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            segments: false,
            tls: ClientTls::default(),
        }
    }
}

/// A key and what is wrong with it.
type Mistake = (String, String);

const SECTION: &str = "audit.jetstream";

fn wrong<T>(key: &str, message: impl Into<String>) -> Result<T, Mistake> {
    Err((format!("{SECTION}.{key}"), message.into()))
}

impl AuditJetstream {
    /// The way to its servers.
    pub fn access(&self) -> NatsAccess {
        let Self { servers, credentials_file, username, password_file, token_file, connect_timeout, tls, .. } =
            self.clone();
        NatsAccess {
            section: SECTION,
            servers,
            connect_timeout,
            credentials_file,
            username,
            password_file,
            token_file,
            tls_section: "audit.jetstream.tls",
            tls,
        }
    }

    /// What does not go together.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(super) fn check(&self, keep_shipped_days: u32) -> Result<(), Mistake> {
        let Some(stream) = &self.stream else {
            return match self.key_that_is_set() {
                Some(key) => wrong(key, "is for audit.jetstream.stream, which is not set"),
                None => Ok(()),
            };
        };
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=128).contains(&stream.len()) || !stream.bytes().all(is_fit) {
            let message = format!("{stream:?} is no stream; expected 1 to 128 letters, digits, `-` or `_`");
            return wrong("stream", message);
        }
        if self.servers.is_empty() {
            return wrong(
                "stream",
                "is set and audit.jetstream.servers is empty: name a server of the cluster, or several",
            );
        }
        self.tls.check("audit.jetstream.tls")?;
        self.access().check(&self.subject_prefix)?;
        if keep_shipped_days > 0 && !self.segments {
            let message =
                "is false, and audit.keep_shipped_days is set: segments are removed only after they were copied";
            return wrong("segments", message);
        }
        Ok(())
    }

    /// One besides the stream that has another value than by default.
    fn key_that_is_set(&self) -> Option<&'static str> {
        let defaults = Self::default();
        let set = [
            ("subject_prefix", self.subject_prefix != defaults.subject_prefix),
            ("servers", !self.servers.is_empty()),
            ("credentials_file", self.credentials_file.is_some()),
            ("username", self.username.is_some()),
            ("password_file", self.password_file.is_some()),
            ("token_file", self.token_file.is_some()),
            ("connect_timeout_ms", self.connect_timeout != defaults.connect_timeout),
            ("request_timeout_ms", self.request_timeout != defaults.request_timeout),
            ("segments", self.segments),
            ("tls", self.tls.is_set()),
        ];
        set.into_iter().find(|(_, is_set)| *is_set).map(|(key, _)| key)
    }

    /// Takes paths as being beside the configuration, and looks whether the files can be used.
    ///
    /// # Errors
    /// The first key whose file cannot be.
    pub(super) fn load(&mut self, beside: impl Fn(&Path) -> PathBuf) -> Result<(), Mistake> {
        let Self { tls, credentials_file, password_file, token_file, .. } = self;
        for path in tls.paths().into_iter().chain([credentials_file, password_file, token_file]).flatten() {
            *path = beside(path);
        }
        if self.stream.is_some() { self.access().load() } else { Ok(()) }
    }
}

//! `[audit]`: the trail of bet signals, and the keys that it needs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::audit_jetstream::AuditJetstream;
use super::audit_s3::AuditS3;
use super::check::Problem;
use super::secret::PlayerKey;
use super::units::{milliseconds, seconds};

/// `[audit]`: without a directory there is no audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Where segments are written. No two processes may have the same.
    pub directory: Option<PathBuf>,
    /// The node's name in records; the host's name if there is none.
    pub node: Option<String>,
    /// The Ed25519 key that signs checkpoints.
    pub signing_key_file: Option<PathBuf>,
    /// A secret by which players' ids are hashed; without it they are written as they are.
    pub player_key_file: Option<PathBuf>,
    /// What happens to bets while records cannot be written.
    pub when_failing: WhenFailing,
    /// When records are forced to the disk.
    pub fsync: Fsync,
    /// How often, with `interval`.
    #[serde(rename = "fsync_interval_ms", with = "milliseconds")]
    pub fsync_interval: Duration,
    /// How often what was written is signed for.
    #[serde(rename = "checkpoint_interval_s", with = "seconds")]
    pub checkpoint_interval: Duration,
    /// A segment of this size is the last one's predecessor.
    pub rotate_bytes: u64,
    /// The same by age.
    #[serde(rename = "rotate_after_s", with = "seconds")]
    pub rotate_after: Duration,
    /// Where finished segments and checkpoints are copied to, and never changed; a start holds the trail against them.
    pub sink_directory: Option<PathBuf>,
    /// `[audit.s3]`: a bucket in place of [`Audit::sink_directory`].
    pub s3: AuditS3,
    /// `[audit.jetstream]`: a stream in place of either.
    pub jetstream: AuditJetstream,
    /// How long segments are kept after they were copied, in days; 0 for ever.
    pub keep_shipped_days: u32,
    /// How long the end of the process waits for the last segment to be copied.
    #[serde(rename = "closing_timeout_ms", with = "milliseconds")]
    pub closing_timeout: Duration,
    /// The content of the key files.
    #[serde(skip)]
    pub keys: AuditKeys,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            directory: None,
            node: None,
            signing_key_file: None,
            player_key_file: None,
            when_failing: WhenFailing::Refuse,
            fsync: Fsync::Interval,
            fsync_interval: Duration::from_secs(1),
            checkpoint_interval: Duration::from_secs(60),
            rotate_bytes: 64 << 20,
            rotate_after: Duration::from_secs(3600),
            sink_directory: None,
            s3: AuditS3::default(),
            jetstream: AuditJetstream::default(),
            keep_shipped_days: 0,
            closing_timeout: Duration::from_secs(10),
            keys: AuditKeys::default(),
        }
    }
}

/// What happens to bets while records cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFailing {
    /// New ones are refused, `unavailable`.
    #[default]
    Refuse,
    /// They go on; what cannot be recorded is counted.
    Count,
}

/// When records are forced to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// Before the player is told the outcome.
    Always,
    /// Every so often.
    #[default]
    Interval,
    /// When the system thinks fit; with checkpoints and at the end of a segment all the same.
    Never,
}

/// Secrets of the audit trail.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuditKeys {
    /// PKCS #8, Ed25519.
    pub signing: Vec<u8>,
    /// Of HMAC-SHA-256.
    pub player: PlayerKey,
}

impl fmt::Debug for AuditKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKeys")
    }
}

const NO_KEY: &str = "is not set: a trail that nobody signs proves nothing. `tableside audit keygen FILE` makes a key";

impl Audit {
    /// Takes paths as being beside the configuration, and reads the keys.
    pub(super) fn load(&mut self, beside: impl Fn(&Path) -> PathBuf) -> Result<(), Problem> {
        let paths =
            [&mut self.directory, &mut self.signing_key_file, &mut self.player_key_file, &mut self.sink_directory];
        for path in paths.into_iter().flatten() {
            *path = beside(path);
        }
        // By itself it says where `tableside audit fetch` reads.
        self.jetstream.load(&beside).map_err(|(key, message)| Problem { key, message })?;
        if self.directory.is_none() {
            return Ok(());
        }
        let wrong = |(key, message): (&str, String)| Problem { key: format!("audit.s3.{key}"), message };
        self.s3.load(beside).map_err(wrong)?;
        let refuse = |key: &str, message: String| Problem { key: format!("audit.{key}"), message };
        let read = |key: &'static str, file: &Path| {
            fs::read(file).map_err(|error| refuse(key, format!("cannot read {}: {error}", file.display())))
        };
        let file = self.signing_key_file.as_deref().ok_or_else(|| refuse("signing_key_file", NO_KEY.to_owned()))?;
        let pem = read("signing_key_file", file)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).ok();
        let der = der.filter(|der| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).is_ok());
        let der = der.ok_or_else(|| {
            let what = "holds no Ed25519 key in PEM (PKCS #8); `tableside audit keygen FILE` makes one";
            refuse("signing_key_file", format!("{} {what}", file.display()))
        })?;
        self.keys.signing = der.secret_pkcs8_der().to_vec();
        if let Some(file) = self.player_key_file.as_deref() {
            self.keys.player = PlayerKey::read(file).map_err(|message| refuse("player_key_file", message))?;
        }
        Ok(())
    }

    /// Whether it is copied to anywhere.
    pub fn has_sink(&self) -> bool {
        !self.sinks().is_empty()
    }

    /// The keys by which sinks are named: one at most, in a configuration that was checked.
    pub(super) fn sinks(&self) -> Vec<&'static str> {
        let sinks = [
            ("audit.sink_directory", self.sink_directory.is_some()),
            ("audit.s3.bucket", self.s3.bucket.is_some()),
            ("audit.jetstream.stream", self.jetstream.stream.is_some()),
        ];
        sinks.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
    }

    /// Whether a text can be a node's name: it is part of paths.
    pub fn is_node_name(text: &str) -> bool {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=64).contains(&text.len()) && text.bytes().all(is_fit) && !text.starts_with('.')
    }
}

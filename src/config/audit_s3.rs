//! `[audit.s3]`: a bucket of an S3-compatible store as the sink of the audit trail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bet_service::ServiceUrl;
use super::certificate::authorities;
use super::units::milliseconds;

/// `[audit.s3]`: without a bucket it is no sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditS3 {
    /// A bucket with object lock.
    pub bucket: Option<String>,
    /// Where it is; part of each signature.
    pub region: String,
    /// A store other than AWS: scheme, host and port, and the bucket is the first part of paths.
    pub endpoint: Option<ServiceUrl>,
    /// What all keys begin with.
    pub prefix: String,
    /// Who may shorten the retention of an object.
    pub lock_mode: LockMode,
    /// How long an object is locked, in days. Has to be set.
    pub retain_days: u32,
    /// A PEM file: the authorities that the store's certificate is checked against, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A file of credentials in AWS's form; read again for each object.
    pub credentials_file: Option<PathBuf>,
    /// How long a request may take, besides a second for each MiB.
    #[serde(rename = "request_timeout_ms", with = "milliseconds")]
    pub request_timeout: Duration,
}

impl Default for AuditS3 {
    fn default() -> Self {
        Self {
            bucket: None,
            region: "us-east-1".to_owned(),
            endpoint: None,
            prefix: String::new(),
            lock_mode: LockMode::Compliance,
            retain_days: 0,
            ca_file: None,
            credentials_file: None,
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// A retention mode of object lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Nobody may, not even the owner of the account.
    #[default]
    Compliance,
    /// Who has `s3:BypassGovernanceRetention`.
    Governance,
}

/// A key of this section and what is wrong with it.
type Mistake = (&'static str, String);

/// A segment is sent in one piece.
const LARGEST_SEGMENT: u64 = 256 << 20;

impl AuditS3 {
    /// What is out of its range, or does not go together.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(super) fn check(&self, keep_shipped_days: u32, rotate_bytes: u64) -> Result<(), Mistake> {
        let Some(bucket) = &self.bucket else {
            return match self.key_that_is_set() {
                Some(key) => Err((key, "is for audit.s3.bucket, which is not set".to_owned())),
                None => Ok(()),
            };
        };
        if !is_bucket(bucket) {
            let message = format!(
                "{bucket:?} is no bucket; expected 3 to 63 lower-case letters, digits, `.` or `-`, with a letter or digit at \
                 both ends"
            );
            return Err(("bucket", message));
        }
        if self.endpoint.is_none() && bucket.contains('.') {
            let message = "has a dot, and no certificate of AWS is for its host; set audit.s3.endpoint, \
                           \"https://s3.REGION.amazonaws.com\"";
            return Err(("bucket", message.to_owned()));
        }
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=64).contains(&self.region.len()) || !self.region.bytes().all(is_name) {
            return Err(("region", format!("{:?} is no region; expected one such as \"eu-central-1\"", self.region)));
        }
        let has_path = |url: &ServiceUrl| {
            let after_scheme = url.as_str().split_once("://").map_or("", |(_, rest)| rest);
            after_scheme.strip_suffix('/').unwrap_or(after_scheme).contains(['/', '?'])
        };
        if self.endpoint.as_ref().is_some_and(has_path) {
            let message = "has a path; expected scheme, host and port, as in \"https://s3.example.com:9000\"";
            return Err(("endpoint", message.to_owned()));
        }
        if !is_prefix(&self.prefix) {
            let message = format!(
                "{:?} is no beginning of keys; expected at most 256 letters, digits, `-`, `_`, `.` and `/`, as in \
                 \"tableside/\"",
                self.prefix
            );
            return Err(("prefix", message));
        }
        if self.retain_days == 0 {
            let message = "is not set: for how long is an object to be locked? Nobody can remove it before, nor stop paying for it";
            return Err(("retain_days", message.to_owned()));
        }
        if self.retain_days > 36_500 {
            return Err(("retain_days", format!("{} is out of range; allowed are 1 to 36500", self.retain_days)));
        }
        if self.retain_days < keep_shipped_days {
            let message = format!("{} is less than audit.keep_shipped_days, {keep_shipped_days}", self.retain_days);
            return Err(("retain_days", message));
        }
        if self.ca_file.is_some() && self.endpoint.as_ref().is_some_and(|endpoint| !endpoint.is_https()) {
            return Err(("ca_file", "is for https, which audit.s3.endpoint is not".to_owned()));
        }
        if rotate_bytes > LARGEST_SEGMENT {
            let message = format!(
                "is set, and audit.rotate_bytes is {rotate_bytes}: a segment goes there in one piece, of at most \
                 {LARGEST_SEGMENT} bytes"
            );
            return Err(("bucket", message));
        }
        Ok(())
    }

    /// One besides the bucket that has another value than by default.
    fn key_that_is_set(&self) -> Option<&'static str> {
        let defaults = Self::default();
        let set = [
            ("region", self.region != defaults.region),
            ("endpoint", self.endpoint.is_some()),
            ("prefix", !self.prefix.is_empty()),
            ("lock_mode", self.lock_mode != defaults.lock_mode),
            ("retain_days", self.retain_days != 0),
            ("ca_file", self.ca_file.is_some()),
            ("credentials_file", self.credentials_file.is_some()),
            ("request_timeout_ms", self.request_timeout != defaults.request_timeout),
        ];
        set.into_iter().find(|(_, is_set)| *is_set).map(|(key, _)| key)
    }

    /// Takes paths as being beside the configuration, and looks whether the authorities can be used.
    ///
    /// # Errors
    /// The first key whose file cannot be.
    pub(super) fn load(&mut self, beside: impl Fn(&Path) -> PathBuf) -> Result<(), Mistake> {
        for path in [&mut self.ca_file, &mut self.credentials_file].into_iter().flatten() {
            *path = beside(path);
        }
        let Some(file) = &self.ca_file else { return Ok(()) };
        authorities(file).map(drop).map_err(|message| ("ca_file", message))
    }
}

fn is_bucket(text: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let bytes = text.as_bytes();
    (3..=63).contains(&text.len())
        && text.bytes().all(is_fit)
        && is_end(bytes.first())
        && is_end(bytes.last())
        && !text.contains("..")
}

/// Nothing that a proxy might take for another path.
fn is_prefix(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let folders = text.strip_suffix('/').unwrap_or(text);
    let is_folder = |name: &str| !name.is_empty() && name != "." && name != "..";
    text.len() <= 256 && text.bytes().all(is_fit) && (text.is_empty() || folders.split('/').all(is_folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_buckets_are_held_to_what_every_store_takes() {
        for good in ["", "tableside/", "a/b-c_d.e/", "edge-"] {
            assert!(is_prefix(good), "{good}");
        }
        for bad in ["/", "/a", "a//b", "a/../b", "./", "a b", "ä", &"a".repeat(257)] {
            assert!(!is_prefix(bad), "{bad}");
        }
        for good in ["abc", "audit.example-1", &"a".repeat(63)] {
            assert!(is_bucket(good), "{good}");
        }
        for bad in ["", "ab", "Abc", "a_b", "-ab", "ab-", "a..b", "a/b", &"a".repeat(64)] {
            assert!(!is_bucket(bad), "{bad}");
        }
    }
}

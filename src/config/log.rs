//! `[log]` and `[traces]`: what leaves the process besides media and metrics.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bet_service::ServiceUrl;
use super::certificate::authorities;
use super::check::Problem;
use super::secret::PlayerKey;

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// The least severe level that is logged; the environment variable `RUST_LOG` goes before it.
    pub level: Level,
    /// How lines, and traces, name players.
    pub player_ids: PlayerIds,
    /// A secret by which their ids are hashed.
    pub player_key_file: Option<PathBuf>,
    /// What was in the file.
    #[serde(skip)]
    pub player_key: PlayerKey,
}

/// How log lines and traces name players.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlayerIds {
    /// By their ids.
    #[default]
    Plain,
    /// By HMAC-SHA-256 of their ids.
    Hashed,
    /// Not at all.
    Omitted,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Human,
    /// One JSON object an event.
    Json,
}

/// Severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing at all.
    Off,
    /// Something that must work does not.
    Error,
    /// Something works worse than it should.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What a developer wants to know; session ends, addresses.
    Debug,
    /// Everything, each packet that is refused too.
    Trace,
}

impl Level {
    /// As it is written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

impl Log {
    /// Takes paths as being beside the configuration, and reads the key.
    pub(super) fn load(&mut self, beside: impl Fn(&Path) -> PathBuf) -> Result<(), Problem> {
        let refuse = |key: &str, message: String| Problem { key: key.to_owned(), message };
        if let Some(file) = &mut self.player_key_file {
            *file = beside(file);
            self.player_key = PlayerKey::read(file).map_err(|message| refuse("log.player_key_file", message))?;
        }
        if self.player_ids == PlayerIds::Hashed && self.player_key.as_bytes().is_none() {
            let message = "is \"hashed\", and log.player_key_file is not set: by what? It may be the file of \
                           audit.player_key_file, and then logs and trail name players alike";
            return Err(refuse("log.player_ids", message.to_owned()));
        }
        Ok(())
    }
}

/// `[traces]`: without an endpoint there are none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// A collector's URL for traces, OTLP over HTTP.
    pub endpoint: Option<ServiceUrl>,
    /// The share of signals that are recorded, 0 to 1.
    pub sample_ratio: f64,
    /// A PEM file: the authorities that the collector's certificate is checked against, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Headers of requests to it, one in a line.
    pub headers_file: Option<PathBuf>,
    /// What was in the file.
    #[serde(skip)]
    pub headers: Headers,
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, sample_ratio: 0.01, ca_file: None, headers_file: None, headers: Headers::default() }
    }
}

/// Names and values of HTTP headers, with secrets among them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Each with its value.
    pub fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }

    /// `Name: value` in each line; empty lines, and those that begin with `#`, say nothing.
    fn parse(text: &str) -> Result<Self, String> {
        let says_something = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| says_something(line));
        let parse = |(n, line): (usize, &str)| {
            let header = line.split_once(':').map(|(name, value)| (name.trim_end(), value.trim_start()));
            // RFC 9110 §5.1, §5.5: a token, and visible characters.
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            let is_fit = |(name, value): &(&str, &str)| {
                !name.is_empty() && name.bytes().all(is_name) && value.bytes().all(|b| (0x20..0x7f).contains(&b))
            };
            let (name, value) = header.filter(is_fit).ok_or_else(|| format!("line {} is no `Name: value`", n + 1))?;
            Ok((name.to_ascii_lowercase(), value.to_owned()))
        };
        lines.map(parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Traces {
    /// Takes paths as being beside the configuration, and reads the headers.
    pub(super) fn load(&mut self, beside: impl Fn(&Path) -> PathBuf) -> Result<(), Problem> {
        let refuse = |key: &str, message: String| Problem { key: format!("traces.{key}"), message };
        if let Some(file) = &mut self.ca_file {
            *file = beside(file);
            authorities(file).map_err(|message| refuse("ca_file", message))?;
        }
        if let Some(file) = &mut self.headers_file {
            *file = beside(file);
            let wrong = |what: String| refuse("headers_file", format!("{}: {what}", file.display()));
            let text = fs::read_to_string(&*file).map_err(|error| wrong(error.to_string()))?;
            self.headers = Headers::parse(&text).map_err(wrong)?;
        }
        Ok(())
    }

    /// What is out of its range, or is of no use.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let refuse =
            |key: &str, message: &str| Err(Problem { key: format!("traces.{key}"), message: message.to_owned() });
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return refuse("sample_ratio", "is out of range; allowed are 0 (none) to 1 (all)");
        }
        let Some(endpoint) = &self.endpoint else {
            return match (&self.ca_file, &self.headers_file) {
                (None, None) => Ok(()),
                (Some(_), _) => refuse("ca_file", "is for traces.endpoint, which is not set"),
                (None, Some(_)) => refuse("headers_file", "is for traces.endpoint, which is not set"),
            };
        };
        if !endpoint.is_https() && self.ca_file.is_some() {
            return refuse("ca_file", "is for https, which traces.endpoint is not");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_lines() {
        let headers = Headers::parse("# of the collector\nApi-Key: a%2Fb: c\r\n\nx-tenant:casino\n").unwrap();
        let pairs = [("api-key", "a%2Fb: c"), ("x-tenant", "casino")];
        assert!(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(pairs));
        assert_eq!(format!("{headers:?}"), r#"["api-key", "x-tenant"]"#, "no value is printed");
        for wrong in ["no colon", ": value", "a b: value", "name: \u{7f}", "näme: value"] {
            assert_eq!(Headers::parse(&format!("\n{wrong}")), Err("line 2 is no `Name: value`".to_owned()));
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_for_headers_can_be_sent(text in "([a-zA-Z#:\\- é\\x01]{0,12}\n){0,4}") {
            for (name, value) in Headers::parse(&text).unwrap_or_default().iter() {
                prop_assert!(hyper::header::HeaderName::try_from(name).is_ok(), "{}", name);
                prop_assert!(hyper::header::HeaderValue::try_from(value).is_ok(), "{}", value);
            }
        }
    }
}

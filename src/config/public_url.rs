//! Where the public listener is reached from outside.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An `http` or `https` URL with host, optional port and optional path; no user, query or fragment.
///
/// Kept without a trailing slash, so that a path can be appended. A query would break clients that append to it, and a
/// comma breaks OBS, which splits headers at each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicUrl(String);

/// Not a usable public URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a public URL; expected something like \"https://edge.example.com\" or \"https://example.com/live\"")]
pub struct InvalidPublicUrl;

impl PublicUrl {
    /// The URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = InvalidPublicUrl;

    fn try_from(s: String) -> Result<Self, InvalidPublicUrl> {
        let rest = s.strip_prefix("https://").or_else(|| s.strip_prefix("http://")).ok_or(InvalidPublicUrl)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let in_path = |b: u8| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b);
        if !is_authority(authority) || !path.bytes().all(in_path) {
            return Err(InvalidPublicUrl);
        }
        Ok(Self(s.trim_end_matches('/').to_owned()))
    }
}

/// Whether `s` is a host with an optional port (RFC 9110 §7.2), in the characters that real ones use.
pub(crate) fn is_authority(s: &str) -> bool {
    let (host, port) = match s.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (s, None),
    };
    let in_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let in_ipv6 = |b: u8| b.is_ascii_hexdigit() || b":.".contains(&b);
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(ipv6) => !ipv6.is_empty() && ipv6.bytes().all(in_ipv6),
        None => !host.is_empty() && host.bytes().all(in_name),
    };
    s.len() <= 255 && host_ok && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

impl From<PublicUrl> for String {
    fn from(url: PublicUrl) -> Self {
        url.0
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_trailing_slash_goes() {
        for (given, kept) in [
            ("https://edge.example.com", "https://edge.example.com"),
            ("https://edge.example.com/", "https://edge.example.com"),
            ("http://[::1]:8080/live/", "http://[::1]:8080/live"),
        ] {
            assert_eq!(PublicUrl::try_from(given.to_owned()).map(String::from), Ok(kept.to_owned()));
        }
    }

    #[test]
    fn what_would_break_a_client_is_refused() {
        for bad in [
            "",
            "edge.example.com",
            "ftp://a",
            "https://",
            "https://u@h",
            "https://h?q",
            "https://h#f",
            "https://h/a,b",
            "https://h:port",
            "https://h/a b",
            "https://[]",
            "https://h:70000",
        ] {
            assert_eq!(PublicUrl::try_from(bad.to_owned()), Err(InvalidPublicUrl), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_text_panics_and_what_is_kept_is_stable(text in "(https?://)?[ -~]{0,40}") {
            if let Ok(url) = PublicUrl::try_from(text) {
                prop_assert_eq!(PublicUrl::try_from(url.to_string()), Ok(url));
            }
        }
    }
}

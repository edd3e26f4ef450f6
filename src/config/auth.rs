//! `[auth]`: who may publish and watch. `check` holds the ranges.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::{Jurisdictions, Policy};

use super::is_authority;
use super::units::seconds;

/// `[auth]`: the tokens that are asked for, and the keys that they are verified with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Whether tokens are asked for at all.
    pub mode: AuthMode,
    /// The issuer's public keys, a JWK Set (RFC 7517 §5), from a file.
    pub jwks_file: Option<PathBuf>,
    /// The same from the issuer itself.
    pub jwks_url: Option<JwksUrl>,
    /// A PEM file: the authorities that the URL's certificate is checked against, instead of the system's.
    pub jwks_ca_file: Option<PathBuf>,
    /// How often the URL is asked.
    #[serde(rename = "jwks_refresh_s", with = "seconds")]
    pub jwks_refresh: Duration,
    /// How far the clocks of issuer and node may be apart.
    #[serde(rename = "leeway_s", with = "seconds")]
    pub leeway: Duration,
    /// What `iss` has to be.
    pub issuer: Option<String>,
    /// What `aud` has to name.
    pub audience: Option<String>,
    /// Where players and publishers may be, for the law; `*` for anywhere.
    pub jurisdictions: Vec<String>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::Token,
            jwks_file: None,
            jwks_url: None,
            jwks_ca_file: None,
            jwks_refresh: Duration::from_secs(300),
            leeway: Duration::from_secs(30),
            issuer: None,
            audience: None,
            jurisdictions: Vec::new(),
        }
    }
}

impl Auth {
    /// What tokens are held to.
    pub fn policy(&self) -> Policy {
        Policy { leeway: self.leeway, issuer: self.issuer.clone(), audience: self.audience.clone() }
    }

    /// What this node serves.
    pub fn served(&self) -> Jurisdictions {
        Jurisdictions::of(&self.jurisdictions)
    }
}

/// Whether tokens are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Of everybody.
    #[default]
    Token,
    /// Of nobody: whoever reaches the node publishes and watches.
    None,
}

/// Where an issuer publishes its keys: an `https` URL, or `http` on this very host. Whoever can change the answer on its way signs
/// tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JwksUrl(String);

/// Not such a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a URL for keys; expected something like \"https://id.example.com/.well-known/jwks.json\" (http:// only for \
     127.0.0.1, [::1] and localhost)"
)]
pub struct InvalidJwksUrl;

impl JwksUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JwksUrl {
    type Error = InvalidJwksUrl;

    fn try_from(url: String) -> Result<Self, InvalidJwksUrl> {
        let secure = url.strip_prefix("https://");
        let rest = secure.or_else(|| url.strip_prefix("http://")).ok_or(InvalidJwksUrl)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host =
            authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(authority, |(host, _)| host);
        let here = ["127.0.0.1", "[::1]", "localhost"].contains(&host);
        // RFC 3986 §3.3, §3.4: what path and query may hold.
        let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(&byte);
        if is_authority(authority) && path.bytes().all(in_path) && (secure.is_some() || here) {
            Ok(Self(url))
        } else {
            Err(InvalidJwksUrl)
        }
    }
}

impl From<JwksUrl> for String {
    fn from(url: JwksUrl) -> Self {
        url.0
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_come_over_https_or_from_this_host() {
        for good in [
            "https://id.example.com/.well-known/jwks.json",
            "https://id.example.com:8443/keys?tenant=a&v=1",
            "https://[2001:db8::1]/k",
            "https://id.example.com",
            "http://127.0.0.1:8000/jwks.json",
            "http://[::1]:8000/jwks.json",
            "http://localhost/jwks.json",
        ] {
            assert_eq!(JwksUrl::try_from(good.to_owned()).map(String::from), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "id.example.com/keys",
            "http://id.example.com/keys",
            "http://127.0.0.1.example.com/keys",
            "http://localhost.example.com/keys",
            "http://localhost@example.com/keys",
            "https://user@id.example.com/keys",
            "https:///keys",
            "https://id.example.com/a b",
            "https://id.example.com/<a>",
            "https://id.example.com/#fragment",
            "file:///etc/passwd",
        ] {
            assert_eq!(JwksUrl::try_from(bad.to_owned()), Err(InvalidJwksUrl), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(https?://)?\\PC{0,40}") {
            let _ = JwksUrl::try_from(text);
        }
    }
}

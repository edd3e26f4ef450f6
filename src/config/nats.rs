//! The way to NATS servers, whichever section names them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client_tls::ClientTls;
use super::nats_login::NatsLogin;
use super::public_url::is_authority;

/// `nats://HOST:PORT`, or `tls://HOST:PORT` where the connection has to be over TLS; without a port 4222.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NatsServer(String);

/// Not an address of a NATS server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a NATS server; expected something like \"tls://nats.example.com:4222\" or \"nats://127.0.0.1:4222\", without a \
     user (see username, password_file and credentials_file)"
)]
pub struct InvalidNatsServer;

impl NatsServer {
    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is to be reached over TLS in any case.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("tls:")
    }
}

impl TryFrom<String> for NatsServer {
    type Error = InvalidNatsServer;

    fn try_from(s: String) -> Result<Self, InvalidNatsServer> {
        let authority = s.strip_prefix("nats://").or_else(|| s.strip_prefix("tls://")).ok_or(InvalidNatsServer)?;
        if is_authority(authority) { Ok(Self(s)) } else { Err(InvalidNatsServer) }
    }
}

impl From<NatsServer> for String {
    fn from(server: NatsServer) -> Self {
        server.0
    }
}

impl fmt::Display for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How NATS servers are reached, and what they are told, of a section that names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsAccess {
    /// What its keys begin with, as `bet_service.nats`.
    pub section: &'static str,
    /// Servers of one cluster: over TLS the only ones that are used, else those it names are as well.
    pub servers: Vec<NatsServer>,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// A `.creds` file.
    pub credentials_file: Option<PathBuf>,
    /// With [`NatsAccess::password_file`].
    pub username: Option<String>,
    /// A file with a password.
    pub password_file: Option<PathBuf>,
    /// A file with a token.
    pub token_file: Option<PathBuf>,
    /// What the keys of [`NatsAccess::tls`] begin with, as `bet_service.tls`.
    pub tls_section: &'static str,
    /// Whose certificates are believed, and the node's own.
    pub tls: ClientTls,
}

impl NatsAccess {
    /// Whether connections are over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_set() || self.servers.iter().any(NatsServer::is_tls)
    }

    /// How it goes together, of one server or more, with what subjects begin with.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(super) fn check(&self, subject_prefix: &str) -> Result<(), (String, String)> {
        let Self { section, tls_section, servers, .. } = self;
        let wrong = |key: &str, message: &str| Err((format!("{section}.{key}"), message.to_owned()));
        let is_token = |token: &str| {
            !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if subject_prefix.len() > 64 || !subject_prefix.split('.').all(is_token) {
            let message = format!(
                "{subject_prefix:?} is no beginning of subjects; expected letters, digits, `-` and `_`, with dots between, as in \
                 \"casino.eu.tableside\""
            );
            return wrong("subject_prefix", &message);
        }
        let both = "username and password_file belong together: both or neither";
        match (&self.username, &self.password_file) {
            (Some(_), None) => return wrong("username", both),
            (None, Some(_)) => return wrong("password_file", both),
            _ => {}
        }
        let ways = [self.credentials_file.is_some(), self.username.is_some(), self.token_file.is_some()];
        if ways.into_iter().filter(|set| *set).count() > 1 {
            let message = "set one of credentials_file, username with password_file, and token_file";
            return Err(((*section).to_owned(), message.to_owned()));
        }
        if self.tls.is_set() && !servers.iter().any(NatsServer::is_tls) {
            return Err(((*tls_section).to_owned(), format!("is set and no server of {section} is tls://")));
        }
        if servers.iter().any(|server| server.is_tls() != servers[0].is_tls()) {
            return wrong("servers", "names tls:// and nats:// servers; expected one of both for all");
        }
        Ok(())
    }

    /// Whether the files can be used.
    ///
    /// # Errors
    /// The first key whose file cannot be.
    pub(super) fn load(&self) -> Result<(), (String, String)> {
        self.tls.load(self.tls_section)?;
        self.login().map(drop)
    }

    /// Reads what a server is told.
    ///
    /// # Errors
    /// The key whose file cannot be read or used, and why. Nothing of a secret is repeated.
    pub fn login(&self) -> Result<NatsLogin, (String, String)> {
        NatsLogin::read(self).map_err(|(key, message)| (format!("{}.{key}", self.section), message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn servers_are_checked() {
        for good in ["nats://127.0.0.1:4222", "tls://nats.example.com", "nats://[::1]:4222"] {
            assert_eq!(NatsServer::try_from(good.to_owned()).map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "127.0.0.1:4222", "ws://a", "nats://", "nats://u:p@h:4222", "nats://h/a", "tls://h:99999"] {
            assert_eq!(NatsServer::try_from(bad.to_owned()), Err(InvalidNatsServer), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_text_panics_and_what_is_kept_is_as_it_was(text in "(nats://|tls://)?[ -~é]{0,40}") {
            if let Ok(server) = NatsServer::try_from(text.clone()) {
                prop_assert_eq!(server.as_str(), &text);
            }
        }
    }
}

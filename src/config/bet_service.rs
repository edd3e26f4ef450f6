//! `[bet_service]`: which service decides on bets, and how it is reached. `check` holds the ranges.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::http::TlsFiles;
use super::nats_login::NatsLogin;
use super::public_url::is_authority;
use super::units::{milliseconds, seconds};
use super::{Certificate, beside};

/// `[bet_service]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BetService {
    /// Which way leads to it.
    pub kind: BetServiceKind,
    /// How long an answer is awaited.
    #[serde(rename = "answer_timeout_ms", with = "milliseconds")]
    pub answer_timeout: Duration,
    /// Signals that the service is asked about at once. As many more may wait for a late answer.
    pub max_in_flight: usize,
    /// Attempts for each signal.
    pub attempts: u32,
    /// `[bet_service.breaker]`
    pub breaker: BetServiceBreaker,
    /// `[bet_service.tls]`
    pub tls: BetServiceTls,
    /// `[bet_service.http]`
    pub http: BetServiceHttp,
    /// `[bet_service.nats]`
    pub nats: BetServiceNats,
}

impl Default for BetService {
    fn default() -> Self {
        Self {
            kind: BetServiceKind::default(),
            answer_timeout: Duration::from_secs(5),
            max_in_flight: 512,
            attempts: 3,
            breaker: BetServiceBreaker::default(),
            tls: BetServiceTls::default(),
            http: BetServiceHttp::default(),
            nats: BetServiceNats::default(),
        }
    }
}

/// Which connector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BetServiceKind {
    /// No bets: each is refused.
    #[default]
    None,
    /// The demo's wheel.
    Embedded,
    /// A POST for each bet.
    Http,
    /// A request for each bet, over a NATS server.
    Nats,
}

/// `[bet_service.breaker]`: when a service that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BetServiceBreaker {
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Or such a share of the requests in the window.
    pub failure_percent: u8,
    /// What is looked back at.
    #[serde(rename = "window_s", with = "seconds")]
    pub window: Duration,
    /// Requests in the window below which the share says nothing.
    pub least_requests: u32,
    /// How long nothing is sent.
    #[serde(rename = "open_ms", with = "milliseconds")]
    pub open: Duration,
}

impl Default for BetServiceBreaker {
    fn default() -> Self {
        Self {
            consecutive_failures: 10,
            failure_percent: 50,
            window: Duration::from_secs(10),
            least_requests: 20,
            open: Duration::from_secs(1),
        }
    }
}

/// `[bet_service.tls]`: how the service and the node know each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BetServiceTls {
    /// PEM: the authorities that may have signed the service's certificate; those of the system without it.
    pub ca_file: Option<PathBuf>,
    /// PEM: the node's certificate and its chain.
    pub certificate: Option<PathBuf>,
    /// PEM: its private key.
    pub key: Option<PathBuf>,
}

impl BetServiceTls {
    /// The node's certificate, where it has one.
    pub fn identity(&self) -> Option<TlsFiles> {
        Some(TlsFiles { certificate: self.certificate.clone()?, key: self.key.clone()? })
    }

    /// Whether anything is set.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// The authorities of [`BetServiceTls::ca_file`]; `None` without one.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn authorities(&self) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
        let Some(file) = &self.ca_file else { return Ok(None) };
        let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let read = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        match read {
            Ok(certificates) if !certificates.is_empty() => Ok(Some(certificates)),
            _ => Err(format!("{} holds no certificate in PEM", file.display())),
        }
    }
}

/// `[bet_service.http]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BetServiceHttp {
    /// Where bets are posted to.
    pub url: Option<ServiceUrl>,
    /// Where the stream of round events is.
    pub events_url: Option<ServiceUrl>,
    /// Where it is posted to which tables are live.
    pub tables_url: Option<ServiceUrl>,
    /// How long a connection may take to be made, TLS included.
    #[serde(rename = "connect_timeout_ms", with = "milliseconds")]
    pub connect_timeout: Duration,
    /// How long the stream of events may be silent.
    #[serde(rename = "events_silence_s", with = "seconds")]
    pub events_silence: Duration,
}

impl Default for BetServiceHttp {
    fn default() -> Self {
        Self {
            url: None,
            events_url: None,
            tables_url: None,
            connect_timeout: Duration::from_millis(500),
            events_silence: Duration::from_secs(45),
        }
    }
}

/// `[bet_service.nats]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BetServiceNats {
    /// Servers of one cluster: over TLS the only ones that are used, else those it names are as well.
    pub servers: Vec<NatsServer>,
    /// What all subjects begin with.
    pub subject_prefix: String,
    /// How long a connection may take to be made, TLS included.
    #[serde(rename = "connect_timeout_ms", with = "milliseconds")]
    pub connect_timeout: Duration,
    /// A `.creds` file.
    pub credentials_file: Option<PathBuf>,
    /// With [`BetServiceNats::password_file`].
    pub username: Option<String>,
    /// A file with a password.
    pub password_file: Option<PathBuf>,
    /// A file with a token.
    pub token_file: Option<PathBuf>,
}

impl Default for BetServiceNats {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            subject_prefix: "tableside".to_owned(),
            connect_timeout: Duration::from_secs(2),
            credentials_file: None,
            username: None,
            password_file: None,
            token_file: None,
        }
    }
}

/// An `http` or `https` URL with host, optional port, path and query; no user and no fragment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceUrl(String);

/// Not a usable URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of a service; expected something like \"https://bets.example.com/v1/bets\", without a user or `#`")]
pub struct InvalidServiceUrl;

impl ServiceUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `https`.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = InvalidServiceUrl;

    fn try_from(s: String) -> Result<Self, InvalidServiceUrl> {
        let rest = s.strip_prefix("https://").or_else(|| s.strip_prefix("http://")).ok_or(InvalidServiceUrl)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // RFC 3986 §3.3, §3.4: what path and query may hold.
        let in_path = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(&b);
        if s.len() > 2048 || !is_authority(authority) || !path.bytes().all(in_path) {
            return Err(InvalidServiceUrl);
        }
        Ok(Self(s))
    }
}

impl From<ServiceUrl> for String {
    fn from(url: ServiceUrl) -> Self {
        url.0
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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

/// A key of this section and what is wrong with it.
type Mistake = (&'static str, String);

impl BetService {
    /// Connections that may be open to it at once.
    pub fn most_connections(&self) -> usize {
        match self.kind {
            BetServiceKind::None | BetServiceKind::Embedded => 0,
            // One for each bet under way and each late answer, for events and for tables.
            BetServiceKind::Http => 2 * self.max_in_flight + 2,
            BetServiceKind::Nats => 1,
        }
    }

    /// What has to be set for the kind that is chosen, and how it goes together.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        match (&self.tls.certificate, &self.tls.key) {
            (Some(_), None) => {
                return Err(("bet_service.tls.certificate", "is set and bet_service.tls.key is not".to_owned()));
            }
            (None, Some(_)) => {
                return Err(("bet_service.tls.key", "is set and bet_service.tls.certificate is not".to_owned()));
            }
            _ => {}
        }
        match self.kind {
            BetServiceKind::None | BetServiceKind::Embedded => Ok(()),
            BetServiceKind::Http => self.check_http(),
            BetServiceKind::Nats => self.check_nats(),
        }
    }

    fn check_http(&self) -> Result<(), Mistake> {
        let http = &self.http;
        let Some(url) = &http.url else {
            let message = "is \"http\" and bet_service.http.url is not set: where are bets to be posted to?";
            return Err(("bet_service.kind", message.to_owned()));
        };
        if !self.tls.is_set() {
            return Ok(());
        }
        let urls = [
            ("bet_service.http.url", Some(url)),
            ("bet_service.http.events_url", http.events_url.as_ref()),
            ("bet_service.http.tables_url", http.tables_url.as_ref()),
        ];
        let is_plain = |url: Option<&ServiceUrl>| url.is_some_and(|url| !url.is_https());
        if !urls.iter().any(|(_, url)| url.is_some_and(ServiceUrl::is_https)) {
            return Err(("bet_service.tls", "is set and no URL of bet_service.http is https".to_owned()));
        }
        match urls.into_iter().find(|(_, url)| is_plain(*url)) {
            Some((key, _)) => {
                Err((key, "is not https, and bet_service.tls is set: all URLs have to be https".to_owned()))
            }
            None => Ok(()),
        }
    }

    fn check_nats(&self) -> Result<(), Mistake> {
        let nats = &self.nats;
        if nats.servers.is_empty() {
            let message = "is \"nats\" and bet_service.nats.servers is empty: name a server of the cluster, or several";
            return Err(("bet_service.kind", message.to_owned()));
        }
        let token = |token: &str| {
            !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if nats.subject_prefix.len() > 64 || !nats.subject_prefix.split('.').all(token) {
            let message = format!(
                "{:?} is no beginning of subjects; expected letters, digits, `-` and `_`, with dots between, as in \
                 \"casino.eu.tableside\"",
                nats.subject_prefix
            );
            return Err(("bet_service.nats.subject_prefix", message));
        }
        let both = || "username and password_file belong together: both or neither".to_owned();
        match (&nats.username, &nats.password_file) {
            (Some(_), None) => return Err(("bet_service.nats.username", both())),
            (None, Some(_)) => return Err(("bet_service.nats.password_file", both())),
            _ => {}
        }
        let ways = [nats.credentials_file.is_some(), nats.username.is_some(), nats.token_file.is_some()];
        if ways.into_iter().filter(|set| *set).count() > 1 {
            let message = "set one of credentials_file, username with password_file, and token_file";
            return Err(("bet_service.nats", message.to_owned()));
        }
        if self.tls.is_set() && !nats.servers.iter().any(NatsServer::is_tls) {
            return Err(("bet_service.tls", "is set and no server of bet_service.nats is tls://".to_owned()));
        }
        if nats.servers.iter().any(|server| server.is_tls() != nats.servers[0].is_tls()) {
            let message = "names tls:// and nats:// servers; expected one of both for all";
            return Err(("bet_service.nats.servers", message.to_owned()));
        }
        Ok(())
    }

    /// Takes the files as being beside `file`, and looks whether they can be used.
    ///
    /// # Errors
    /// The first key whose file cannot be.
    pub(super) fn load(&mut self, file: &Path) -> Result<(), Mistake> {
        let Self { tls, nats, .. } = self;
        let named = [
            &mut tls.ca_file,
            &mut tls.certificate,
            &mut tls.key,
            &mut nats.credentials_file,
            &mut nats.password_file,
            &mut nats.token_file,
        ];
        for named in named.into_iter().flatten() {
            *named = beside(file, named);
        }
        if matches!(self.kind, BetServiceKind::None | BetServiceKind::Embedded) {
            return Ok(());
        }
        self.tls.authorities().map_err(|message| ("bet_service.tls.ca_file", message))?;
        if let Some(files) = self.tls.identity() {
            Certificate::load(&files).map_err(|error| {
                let is_key = error.key.ends_with("key");
                let key = if is_key { "bet_service.tls.key" } else { "bet_service.tls.certificate" };
                (key, error.message)
            })?;
        }
        if self.kind == BetServiceKind::Nats {
            NatsLogin::read(&self.nats).map(drop)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_checked() {
        for good in ["https://bets.example.com/v1/bets", "http://[::1]:80", "http://a?x=1&y=%20", "https://a:8443/b/?c"]
        {
            let url = ServiceUrl::try_from(good.to_owned()).unwrap();
            assert_eq!((url.as_str(), url.is_https()), (good, good.starts_with("https")));
        }
        for bad in
            ["", "bets.example.com", "ftp://a", "https://", "https://u@h/", "https://h#f", "http://h/a b", "http://h:x"]
        {
            assert_eq!(ServiceUrl::try_from(bad.to_owned()), Err(InvalidServiceUrl), "{bad}");
        }
        for good in ["nats://127.0.0.1:4222", "tls://nats.example.com", "nats://[::1]:4222"] {
            assert_eq!(NatsServer::try_from(good.to_owned()).map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "127.0.0.1:4222", "ws://a", "nats://", "nats://u:p@h:4222", "nats://h/a", "tls://h:99999"] {
            assert_eq!(NatsServer::try_from(bad.to_owned()), Err(InvalidNatsServer), "{bad}");
        }
    }

    #[test]
    fn what_is_to_be_over_tls_is_so_at_every_address() {
        let url = |url: &str| Some(ServiceUrl::try_from(url.to_owned()).unwrap());
        let mut http = BetService { kind: BetServiceKind::Http, ..BetService::default() };
        http.tls.ca_file = Some("ca.crt".into());
        http.http.url = url("https://a");
        http.http.events_url = url("https://a/events");
        assert_eq!(http.check(), Ok(()));
        for (bets, tables, wrong) in [
            ("http://a", "https://a", "bet_service.http.url"),
            ("https://a", "http://a", "bet_service.http.tables_url"),
        ] {
            (http.http.url, http.http.tables_url) = (url(bets), url(tables));
            assert_eq!(http.check().unwrap_err().0, wrong);
        }
        http.tls = BetServiceTls::default();
        assert_eq!(http.check(), Ok(()));

        let mut nats = BetService { kind: BetServiceKind::Nats, ..BetService::default() };
        for (servers, good) in
            [(["tls://a", "tls://b"], true), (["nats://a", "nats://b"], true), (["tls://a", "nats://b"], false)]
        {
            nats.nats.servers = servers.map(|server| NatsServer::try_from(server.to_owned()).unwrap()).to_vec();
            assert_eq!(
                nats.check().map_err(|(key, _)| key),
                if good { Ok(()) } else { Err("bet_service.nats.servers") }
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_text_panics_and_what_is_kept_is_as_it_was(text in "(https?://|nats://|tls://)?[ -~é]{0,40}") {
            if let Ok(url) = ServiceUrl::try_from(text.clone()) {
                prop_assert_eq!(url.as_str(), &text);
            }
            if let Ok(server) = NatsServer::try_from(text.clone()) {
                prop_assert_eq!(server.as_str(), &text);
            }
        }
    }
}

//! `[bet_service]`: which service decides on bets, and how it is reached. `check` holds the ranges.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::beside;
use super::client_tls::ClientTls;
use super::nats::{NatsAccess, NatsServer};
use super::public_url::is_authority;
use super::units::{milliseconds, seconds};

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
    pub tls: ClientTls,
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
            tls: ClientTls::default(),
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

/// A key and what is wrong with it.
type Mistake = (String, String);

fn wrong<T>(key: &str, message: impl Into<String>) -> Result<T, Mistake> {
    Err((key.to_owned(), message.into()))
}

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

    /// The way to its NATS servers.
    pub fn nats_access(&self) -> NatsAccess {
        let BetServiceNats {
            servers,
            subject_prefix: _,
            connect_timeout,
            credentials_file,
            username,
            password_file,
            token_file,
        } = self.nats.clone();
        NatsAccess {
            section: "bet_service.nats",
            servers,
            connect_timeout,
            credentials_file,
            username,
            password_file,
            token_file,
            tls_section: "bet_service.tls",
            tls: self.tls.clone(),
        }
    }

    /// What has to be set for the kind that is chosen, and how it goes together.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        self.tls.check("bet_service.tls")?;
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
            return wrong("bet_service.kind", message);
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
            return wrong("bet_service.tls", "is set and no URL of bet_service.http is https");
        }
        match urls.into_iter().find(|(_, url)| is_plain(*url)) {
            Some((key, _)) => wrong(key, "is not https, and bet_service.tls is set: all URLs have to be https"),
            None => Ok(()),
        }
    }

    fn check_nats(&self) -> Result<(), Mistake> {
        if self.nats.servers.is_empty() {
            let message = "is \"nats\" and bet_service.nats.servers is empty: name a server of the cluster, or several";
            return wrong("bet_service.kind", message);
        }
        self.nats_access().check(&self.nats.subject_prefix)
    }

    /// Takes the files as being beside `file`, and looks whether they can be used.
    ///
    /// # Errors
    /// The first key whose file cannot be.
    pub(super) fn load(&mut self, file: &Path) -> Result<(), Mistake> {
        let Self { tls, nats, .. } = self;
        let logins = [&mut nats.credentials_file, &mut nats.password_file, &mut nats.token_file];
        for named in tls.paths().into_iter().chain(logins).flatten() {
            *named = beside(file, named);
        }
        match self.kind {
            BetServiceKind::None | BetServiceKind::Embedded => Ok(()),
            BetServiceKind::Http => self.tls.load("bet_service.tls"),
            BetServiceKind::Nats => self.nats_access().load(),
        }
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
        http.tls = ClientTls::default();
        assert_eq!(http.check(), Ok(()));

        let mut nats = BetService { kind: BetServiceKind::Nats, ..BetService::default() };
        for (servers, good) in
            [(["tls://a", "tls://b"], true), (["nats://a", "nats://b"], true), (["tls://a", "nats://b"], false)]
        {
            nats.nats.servers = servers.map(|server| NatsServer::try_from(server.to_owned()).unwrap()).to_vec();
            assert_eq!(
                nats.check().map_err(|(key, _)| key),
                if good { Ok(()) } else { Err("bet_service.nats.servers".to_owned()) }
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_text_panics_and_what_is_kept_is_as_it_was(text in "(https?://)?[ -~é]{0,40}") {
            if let Ok(url) = ServiceUrl::try_from(text.clone()) {
                prop_assert_eq!(url.as_str(), &text);
            }
        }
    }
}

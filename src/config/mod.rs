//! Files become checked types; unknown keys are errors.
//!
//! Enters: the path of a TOML file, and of the files it names. Leaves: a [`Config`] in which every value is in its range, or a [`ConfigError`]
//! that names file, line, column and key and says what is allowed.
//! Refuses to know: what the values are used for, the environment, the network.

mod audit;
mod audit_jetstream;
mod audit_s3;
mod auth;
mod bet_service;
mod certificate;
mod check;
mod client_tls;
mod document;
mod error;
mod http;
mod ice_server;
mod log;
mod max_layer;
mod nats;
mod nats_login;
mod network;
mod public_url;
mod secret;
mod sections;
mod summary;
mod table_name;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use audit::{Audit, AuditKeys, Fsync, WhenFailing};
pub use audit_jetstream::AuditJetstream;
pub use audit_s3::{AuditS3, LockMode};
pub use auth::{Auth, AuthMode, InvalidJwksUrl, JwksUrl};
pub use bet_service::{BetService, BetServiceBreaker, BetServiceHttp, BetServiceKind, BetServiceNats, ServiceUrl};
pub use certificate::{Certificate, CertificateError, CertificateText, authorities};
pub use client_tls::ClientTls;
pub use error::{ConfigError, Diagnostic};
pub use http::{Http, ProxyHeader, Tls, TlsFiles};
pub use ice_server::IceServer;
pub use log::{Headers, Level, Log, LogFormat, PlayerIds, Traces};
pub use max_layer::{InvalidMaxLayer, MaxLayer};
pub use nats::{NatsAccess, NatsServer};
pub use nats_login::NatsLogin;
pub use network::{InvalidNetwork, Network};
pub use public_url::PublicUrl;
pub(crate) use public_url::is_authority;
pub use secret::PlayerKey;
pub use sections::{Admin, Dscp, Media, Sessions, Table, Tcp};
pub use summary::Summary;
pub use table_name::TableName;

use crate::identity::KeySet;

use document::Document;

/// All that can be configured. `config/gateway.toml` documents every key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[http]`: the public listener.
    pub http: Http,
    /// `[admin]`: the listener for operators, never public.
    pub admin: Admin,
    /// `[media]`: UDP.
    pub media: Media,
    /// `[sessions]`: how long sessions live and how many there may be.
    pub sessions: Sessions,
    /// `[tables.NAME]`: the tables that may be published and watched.
    pub tables: BTreeMap<TableName, Table>,
    /// `[auth]`: who may publish and watch.
    pub auth: Auth,
    /// `[bet_service]`: who decides on bets.
    pub bet_service: BetService,
    /// `[audit]`: the trail of bet signals.
    pub audit: Audit,
    /// `[log]`
    pub log: Log,
    /// `[traces]`: what was done for bet signals.
    pub traces: Traces,
    /// What was in [`Auth::jwks_file`]; empty where the keys come from elsewhere.
    #[serde(skip)]
    pub keys: KeySet,
    /// The demo: every valid table name exists and nobody needs a token.
    #[serde(skip)]
    pub demo: bool,
}

impl Config {
    /// Reads and checks a configuration file and the files it names. Relative paths in it start at its own directory.
    ///
    /// # Errors
    /// If a file cannot be read, is not TOML, has an unknown key or a value out of range, or if there are no keys to verify
    /// tokens with: a gateway that anybody may use has to say so (`auth.mode`). If the certificate of `[http.tls]`, or a file that
    /// `[bet_service]` names, cannot be used.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = read(file)?;
        let document = Document::parse(file, &text)?;
        let mut config = Self::from_document(&document)?;
        config.check_certificate(file, &document)?;
        config.bet_service.load(file).map_err(|(key, message)| document.complaint(&key, message))?;
        config.load_keys(file, &document)?;
        let directory = file.parent().unwrap_or(Path::new(""));
        for server in &mut config.http.ice_servers {
            server.load(directory).map_err(|message| document.complaint("http.ice_servers", message))?;
        }
        let audit = config.audit.load(|named| beside(file, named));
        let log = audit.and_then(|()| config.log.load(|named| beside(file, named)));
        let traces = log.and_then(|()| config.traces.load(|named| beside(file, named)));
        traces.map_err(|problem| document.complaint(&problem.key, problem.message))?;
        Ok(config)
    }

    /// Checks the text of a configuration file without reading the files it names; `file` is for messages only.
    ///
    /// # Errors
    /// As [`Config::load`], apart from the keys, which stay empty.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::from_document(&Document::parse(file, text)?)
    }

    /// Takes the files of `[http.tls]` as being beside `file`, and looks whether they can be used.
    fn check_certificate(&mut self, file: &Path, document: &Document<'_>) -> Result<(), ConfigError> {
        for named in [&mut self.http.tls.certificate, &mut self.http.tls.key].into_iter().flatten() {
            *named = beside(file, named);
        }
        let Some(files) = self.http.tls.files() else { return Ok(()) };
        Certificate::load(&files).map(drop).map_err(|error| document.complaint(error.key, error.message))
    }

    /// Where the keys of tokens come from has to be said; a file of them has to be good.
    fn load_keys(&mut self, file: &Path, document: &Document<'_>) -> Result<(), ConfigError> {
        if self.auth.mode == AuthMode::None {
            return Ok(());
        }
        if self.auth.jwks_file.is_none() && self.auth.jwks_url.is_none() {
            return Err(document.complaint("auth.jwks_file", NO_KEYS.to_owned()));
        }
        if self.auth.jurisdictions.is_empty() {
            return Err(document.complaint("auth.jurisdictions", NO_JURISDICTIONS.to_owned()));
        }
        for named in [&mut self.auth.jwks_file, &mut self.auth.jwks_ca_file].into_iter().flatten() {
            *named = beside(file, named);
        }
        if let Some(ca_file) = &self.auth.jwks_ca_file {
            let roots = certificate::authorities(ca_file);
            roots.map_err(|message| document.complaint("auth.jwks_ca_file", message))?;
        }
        let Some(keys_file) = &self.auth.jwks_file else { return Ok(()) };
        let complaint = |what: String| document.complaint("auth.jwks_file", format!("{} {what}", keys_file.display()));
        let text = fs::read(keys_file).map_err(|error| complaint(format!("cannot be read: {error}. {HOW_TO_KEYS}")))?;
        self.keys =
            KeySet::parse(&text).map_err(|error| complaint(format!("cannot be used: {error}. {HOW_TO_KEYS}")))?;
        Ok(())
    }

    fn from_document(document: &Document<'_>) -> Result<Self, ConfigError> {
        let config: Self = document.deserialise()?;
        check::check(&config).map_err(|problem| document.complaint(&problem.key, problem.message))?;
        Ok(config)
    }

    /// What `tableside demo` runs with: HTTP on loopback, UDP on every address, any table, no tokens, its own bet service.
    pub fn demo() -> Self {
        Self {
            http: Http { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), ..Http::default() },
            bet_service: BetService { kind: BetServiceKind::Embedded, ..BetService::default() },
            demo: true,
            ..Self::default()
        }
    }

    /// Whether there is a table of this name.
    pub fn knows(&self, table: &TableName) -> bool {
        self.demo || self.tables.contains_key(table)
    }

    /// Whether whoever publishes or watches needs a token.
    pub fn wants_tokens(&self) -> bool {
        !self.demo && self.auth.mode == AuthMode::Token
    }

    /// For people: what a checked configuration amounts to.
    pub fn summary(&self) -> Summary<'_> {
        Summary(self)
    }
}

const NO_KEYS: &str = "is not set, nor is auth.jwks_url, so nobody could publish or watch. Set it to a JWK Set, the issuer's public keys \
     (`tableside token keygen` makes one for development), or jwks_url to where the issuer publishes them; docs/tokens.md says \
     how. `mode = \"none\"` asks nobody for a token; `tableside demo` needs no configuration at all";

const NO_JURISDICTIONS: &str = "is not set, so no token would be good here. List what this node may serve, as in \
     `jurisdictions = [\"MT\", \"GB\"]`; `[\"*\"]` is any, and asks tokens for none";

const HOW_TO_KEYS: &str = "It has to be the issuer's public keys, a JWK Set, {\"keys\": […]}; `tableside token keygen` makes one for \
     development";

fn read(file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })
}

fn beside(file: &Path, named: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(named)
}

#[cfg(test)]
mod tests;

//! Files become checked types; unknown keys are errors.
//!
//! Enters: the path of a TOML file, and of the files it names. Leaves: a [`Config`] in which every value is in its range, or a [`ConfigError`]
//! that names file, line, column and key and says what is allowed.
//! Refuses to know: what the values are used for, the environment, the network.

mod certificate;
mod check;
mod document;
mod error;
mod http;
mod ice_server;
mod network;
mod public_url;
mod publish_keys;
mod sections;
mod summary;
mod table_name;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use certificate::{Certificate, CertificateError, CertificateText};
pub use error::{ConfigError, Diagnostic};
pub use http::{Http, ProxyHeader, Tls, TlsFiles};
pub use ice_server::IceServer;
pub use network::{InvalidNetwork, Network};
pub use public_url::PublicUrl;
pub(crate) use public_url::is_authority;
pub use publish_keys::{Permission, PublishKeyId, PublishKeys};
pub use sections::{Admin, Dscp, Level, Log, LogFormat, Media, Publish, Sessions, Table, Tcp};
pub use summary::Summary;
pub use table_name::TableName;

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
    /// `[publish]`: who may publish.
    pub publish: Publish,
    /// `[log]`
    pub log: Log,
    /// The content of [`Publish::keys_file`].
    #[serde(skip)]
    pub publish_keys: PublishKeys,
    /// The demo: every valid table name exists and nobody needs a key.
    #[serde(skip)]
    pub demo: bool,
}

impl Config {
    /// Reads and checks a configuration file and the files it names. Relative paths in it start at its own directory.
    ///
    /// # Errors
    /// If a file cannot be read, is not TOML, has an unknown key or a value out of range, or if there is no publish
    /// key at all: a gateway that anybody may publish to is refused. If the certificate of `[http.tls]` cannot be used.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = read(file)?;
        let document = Document::parse(file, &text)?;
        let mut config = Self::from_document(&document)?;
        config.check_certificate(file, &document)?;
        let Some(keys_file) = config.publish.keys_file.clone() else {
            return Err(document.complaint("publish.keys_file", NO_KEYS_FILE.to_owned()));
        };
        let keys_file = beside(file, &keys_file);
        let keys_text = fs::read_to_string(&keys_file).map_err(|error| {
            document
                .complaint("publish.keys_file", format!("cannot read {}: {error}. {HOW_TO_KEYS}", keys_file.display()))
        })?;
        config.publish_keys = PublishKeys::parse(&keys_file, &keys_text)?;
        if config.publish_keys.is_empty() {
            let message = format!("there is no key in {}. {HOW_TO_KEYS}", keys_file.display());
            return Err(document.complaint("publish.keys_file", message));
        }
        config.publish.keys_file = Some(keys_file);
        let directory = file.parent().unwrap_or(Path::new(""));
        for server in &mut config.http.ice_servers {
            server.load(directory).map_err(|message| document.complaint("http.ice_servers", message))?;
        }
        Ok(config)
    }

    /// Checks the text of a configuration file without reading the files it names; `file` is for messages only.
    ///
    /// # Errors
    /// As [`Config::load`], apart from the publish keys, which stay empty.
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

    fn from_document(document: &Document<'_>) -> Result<Self, ConfigError> {
        let config: Self = document.deserialise()?;
        check::check(&config).map_err(|problem| document.complaint(&problem.key, problem.message))?;
        Ok(config)
    }

    /// What `tableside demo` runs with: HTTP on loopback, UDP on every address, any table, no keys.
    pub fn demo() -> Self {
        Self {
            http: Http { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), ..Http::default() },
            demo: true,
            ..Self::default()
        }
    }

    /// Whether there is a table of this name.
    pub fn knows(&self, table: &TableName) -> bool {
        self.demo || self.tables.contains_key(table)
    }

    /// Whether whoever presents `key` may publish `table`. Takes the same time whatever the key.
    pub fn may_publish(&self, table: &TableName, key: Option<&str>) -> Permission {
        if self.demo { Permission::Granted } else { self.publish_keys.permission(table, key) }
    }

    /// What tells the holder of `key` from other publishers; `None` in the demo, where a key proves nothing.
    pub fn publish_key_id(&self, key: Option<&str>) -> Option<PublishKeyId> {
        if self.demo { None } else { key.map(PublishKeyId::of) }
    }

    /// For people: what a checked configuration amounts to.
    pub fn summary(&self) -> Summary<'_> {
        Summary(self)
    }
}

const NO_KEYS_FILE: &str = "is not set, so nobody could publish. Write a file with a line `table = \"key\"` for each \
     table (config/publish-keys.example.toml shows how, `openssl rand -hex 24` makes a key) and name it here, as in \
     `keys_file = \"publish-keys.toml\"`; or run `tableside demo`, which needs no key";

const HOW_TO_KEYS: &str = "It holds a line `table = \"key\"` for each table, or `\"*\" = \"key\"` for all of them; \
     config/publish-keys.example.toml shows how, and `openssl rand -hex 24` makes a key";

fn read(file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })
}

fn beside(file: &Path, named: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(named)
}

#[cfg(test)]
mod tests;

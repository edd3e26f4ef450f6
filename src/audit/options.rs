//! What a configuration means for the trail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::bets::audit::{InvalidKey, PlayerNames, SigningKey};
use crate::config::{self, Fsync, WhenFailing};

use super::sink::SinkOptions;

/// How a trail is written.
#[derive(Debug)]
pub struct Options {
    /// Where.
    pub directory: PathBuf,
    /// The node's name.
    pub node: String,
    /// Who signs.
    pub key: Arc<SigningKey>,
    /// How players are named.
    pub names: PlayerNames,
    /// Whether bets are refused while it fails.
    pub when_failing: WhenFailing,
    /// When records are forced to the disk.
    pub fsync: Fsync,
    /// How often, with `interval`.
    pub fsync_interval: Duration,
    /// How often it is signed.
    pub checkpoint_interval: Duration,
    /// The size of a segment.
    pub rotate_bytes: u64,
    /// The age of a segment.
    pub rotate_after: Duration,
    /// Where it is copied to.
    pub sink: Option<SinkOptions>,
    /// How long segments stay after that, if not for ever.
    pub keep_shipped: Option<Duration>,
    /// How long the end waits.
    pub closing_timeout: Duration,
}

impl Options {
    /// `None` where no trail is configured.
    ///
    /// # Errors
    /// The signing key is none, which a loaded configuration has checked.
    pub fn from_config(config: &config::Audit) -> Result<Option<Self>, InvalidKey> {
        let Some(directory) = config.directory.clone() else { return Ok(None) };
        let days = Duration::from_secs(86_400) * config.keep_shipped_days;
        let keep_shipped = (config.keep_shipped_days > 0).then_some(days);
        Ok(Some(Self {
            directory,
            node: node_name(config),
            key: Arc::new(SigningKey::from_pkcs8(&config.keys.signing)?),
            names: config.keys.player.as_bytes().map_or(PlayerNames::Plain, PlayerNames::hashed),
            when_failing: config.when_failing,
            fsync: config.fsync,
            fsync_interval: config.fsync_interval,
            checkpoint_interval: config.checkpoint_interval,
            rotate_bytes: config.rotate_bytes,
            rotate_after: config.rotate_after,
            sink: SinkOptions::from_config(config, keep_shipped),
            keep_shipped,
            closing_timeout: config.closing_timeout,
        }))
    }
}

/// The node's name: as configured, else the host's.
pub fn node_name(config: &config::Audit) -> String {
    config.node.clone().unwrap_or_else(host_name)
}

/// The host's name, with `-` for what a node's name cannot have.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fit = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.trim().chars().take(64).map(fit).collect();
    if config::Audit::is_node_name(&name) { name } else { "node".to_owned() }
}

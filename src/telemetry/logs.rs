//! Log lines on standard error.

use std::env;
use std::io::stderr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Log, LogFormat};

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `RUST_LOG` is not a list of directives.
    #[error("RUST_LOG is not a log filter; expected something like `info,tableside::http=debug`")]
    Filter(#[from] ParseError),
    /// Somebody else did it before.
    #[error("logging is already set up")]
    Installed,
}

/// Sends every `tracing` event of this process to standard error, as `log` says. `RUST_LOG` goes before its level.
///
/// # Errors
/// If `RUST_LOG` is set and cannot be understood, or if logging was set up before.
pub fn init(log: &Log) -> Result<(), LogError> {
    let filter = match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives)?,
        _ => EnvFilter::try_new(log.level.as_str())?,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let installed = match log.format {
        LogFormat::Human => builder.with_ansi(std::io::IsTerminal::is_terminal(&stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|_| LogError::Installed)
}

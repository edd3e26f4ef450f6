//! The metrics registry and logs; sums what shards report.
//!
//! Enters: [`ShardReport`](crate::shard::ShardReport)s, HTTP outcomes, what the kernel granted. Leaves: the text that
//! Prometheus scrapes (`docs/metrics.md` is its catalogue), and log lines.
//! Refuses to know: how a shard counts, and anything about one session, player or address.

mod bet_service;
mod families;
mod listeners;
mod logs;
mod metrics;
mod tokens;
mod totals;

pub use listeners::{HttpProtocol, Limit, Listener, ListenerMetrics};
pub use logs::{LogError, init as init_logs};
pub use metrics::{CONTENT_TYPE, HttpRoute, Metrics};
pub use tokens::{TokenMetrics, TokenOutcome};

#[cfg(test)]
mod tests;

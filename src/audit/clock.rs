//! The clocks of the writer.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::bets::audit::Timestamp;

#[expect(clippy::disallowed_methods, reason = "the writer's clock: when to sync, sign and rotate")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The time of day that stands in lines.
#[expect(clippy::disallowed_methods, reason = "when a record was written is a fact of the host's clock")]
pub(super) fn timestamp() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros().try_into().unwrap_or(u64::MAX))
}

//! The clocks of a load test: this is a shell, and everything below is handed the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// For timers and for spans.
#[expect(clippy::disallowed_methods, reason = "the shell's clock: everything below is handed this instant")]
pub fn now() -> Instant {
    Instant::now()
}

/// For stamps that another process reads: nanoseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "publisher and player may be two processes: only the wall clock is theirs"
)]
pub fn unix_nanoseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

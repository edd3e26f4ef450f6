//! When RTCP that came on a socket of its own is read.

use std::time::{Duration, Instant};

use crate::net::RtcpLane;
use crate::shard::SLACK;

/// The least time from one reading of RTCP to the next where it comes densely. Much longer, and what has come by then would
/// hold up a frame.
pub(super) const RTCP_PACE: Duration = Duration::from_millis(4);

/// When RTCP of one kind is read.
#[derive(Debug)]
pub(super) struct Lane {
    /// How long a reading that is due may wait for a turn that is made anyway.
    slack: Duration,
    /// When it is read next, and when the thread is woken for it. Where it comes seldom, there is no such time: it is watched
    /// for.
    pub(super) due: Option<Instant>,
    pub(super) latest: Option<Instant>,
    /// When some came last.
    came: Instant,
}

impl Lane {
    pub(super) fn new(lane: RtcpLane, now: Instant) -> Self {
        let slack = if lane == RtcpLane::Reports { SLACK - RTCP_PACE } else { Duration::ZERO };
        Self { slack, due: None, latest: None, came: now }
    }

    /// It was read at `now`: did that bring anything, and may more be waiting?
    pub(super) fn note(&mut self, now: Instant, any: bool, more_waits: bool) {
        let dense = now.saturating_duration_since(self.came) < 2 * RTCP_PACE + self.slack;
        if any {
            self.came = now;
        }
        (self.due, self.latest) = match (more_waits, dense) {
            (true, _) => (Some(now), Some(now)),
            (false, true) => (Some(now + RTCP_PACE), Some(now + RTCP_PACE + self.slack)),
            (false, false) => (None, None),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::turn::now;
    use super::*;

    #[test]
    fn rtcp_that_is_left_over_is_read_in_the_next_turn() {
        let now = now();
        let mut lane = Lane::new(RtcpLane::Reports, now);
        lane.note(now, true, true);
        assert_eq!((lane.due, lane.latest), (Some(now), Some(now)));
    }
}

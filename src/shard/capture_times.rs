//! When a track's packets say when they were captured, and how that is known.
//!
//! A publisher that negotiated abs-capture-time says it by itself. For others it follows from their sender reports, for the
//! process' own publisher from our clock. Receivers extrapolate by RTP timestamps from one value to the next
//! (abs-capture-time, "Timestamp interpolation"), so that one a second is enough.

use std::time::{Duration, Instant};

use crate::media::{AbsCaptureTime, MediaKind, PayloadFacts, Position};

use super::ingest::Arrival;
use super::message::TrackClock;
use super::source::Source;
use super::table::Track;

/// "It SHOULD still send them at regular intervals (e.g. every second) to help mitigate the impact of clock drift and packet
/// loss."
const INTERVAL: Duration = Duration::from_secs(1);

/// For so long a publisher's own value is good for what follows: receivers take it for as long.
const EXTRAPOLATED: Duration = Duration::from_secs(5);

/// The last value of a track.
#[derive(Debug, Default)]
pub(super) struct CaptureTimes {
    last: Option<Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    epoch: u32,
    timestamp: u32,
    of: Of,
}

/// What a value was made of.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// The publisher's own.
    Publisher(AbsCaptureTime),
    /// The track's clock as it was measured then.
    Clock(Instant),
}

impl Source {
    /// The capture time that a packet is to carry, if any: its own, or one that is due for those who would miss it.
    pub(super) fn capture_time(
        &mut self,
        now: Instant,
        track: &Track,
        arrival: &Arrival<'_>,
        facts: &PayloadFacts,
        position: Position,
    ) -> Option<AbsCaptureTime> {
        let Position { epoch, timestamp, .. } = position;
        if let Some(capture) = arrival.capture {
            self.capture_times.last = Some(Last { epoch, timestamp, of: Of::Publisher(capture) });
            return Some(capture);
        }
        if !track.begins_frame(position.index, timestamp) {
            return None;
        }
        // Players may begin with any packet of audio.
        let is_start = track.codec.kind() == MediaKind::Video && (facts.keyframe || facts.parameter_sets);
        self.capture_times.next(position, is_start, track.codec.clock_rate(), track.clock.as_ref(), || {
            track.captured_at(now, timestamp)
        })
    }
}

impl CaptureTimes {
    /// The value for the first packet of a frame that has none of its own; `is_start` where players may begin with it. `made`
    /// is the one by `clock`.
    fn next(
        &mut self,
        position: Position,
        is_start: bool,
        clock_rate: u32,
        clock: Option<&TrackClock>,
        made: impl FnOnce() -> Option<AbsCaptureTime>,
    ) -> Option<AbsCaptureTime> {
        let Position { epoch, timestamp, .. } = position;
        let since = |last: &Last| (timestamp.wrapping_sub(last.timestamp), last.of);
        let measured = clock?.instant;
        match self.last.as_ref().filter(|last| last.epoch == epoch).map(since) {
            Some((ticks, Of::Publisher(capture))) if ticks <= ticks_in(EXTRAPOLATED, clock_rate) => {
                let later = Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / u64::from(clock_rate));
                return is_start.then(|| capture.plus(later));
            }
            // "Senders that detect 'jumps' between its NTP and RTP clock mappings SHOULD send abs-capture-time with the first
            // RTP packet after such a thing happening": every measurement may be one.
            Some((ticks, Of::Clock(then)))
                if then == measured && ticks < ticks_in(INTERVAL, clock_rate) && !is_start =>
            {
                return None;
            }
            _ => {}
        }
        let capture = made()?;
        self.last = Some(Last { epoch, timestamp, of: Of::Clock(measured) });
        Some(capture)
    }
}

fn ticks_in(span: Duration, clock_rate: u32) -> u32 {
    span.as_secs() as u32 * clock_rate
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 90_000;
    const SECOND: Duration = Duration::from_secs(1);

    fn at(epoch: u32, timestamp: u32) -> Position {
        Position { epoch, index: 0, timestamp }
    }

    fn seconds(ntp: u64) -> AbsCaptureTime {
        AbsCaptureTime { ntp: ntp << 32, offset: None }
    }

    /// A track of frames of a tenth of a second, and its clock.
    struct Frames {
        times: CaptureTimes,
        clock: TrackClock,
    }

    impl Frames {
        fn new() -> Self {
            let clock = TrackClock { instant: Instant::now(), timestamp: 0, capture: None };
            Self { times: CaptureTimes::default(), clock }
        }

        fn remember_publishers(&mut self, timestamp: u32, capture: AbsCaptureTime) {
            self.times.last = Some(Last { epoch: 0, timestamp, of: Of::Publisher(capture) });
        }

        fn next(&mut self, position: Position, is_start: bool) -> Option<AbsCaptureTime> {
            self.times.next(position, is_start, RATE, Some(&self.clock), || Some(seconds(7)))
        }
    }

    #[test]
    fn a_value_is_made_every_second_and_where_players_begin() {
        let mut frames = Frames::new();
        // Across the wrap.
        let begin = 0_u32.wrapping_sub(RATE / 2);
        let made: Vec<u32> =
            (0..25).filter(|n| frames.next(at(0, begin.wrapping_add(n * RATE / 10)), *n == 4).is_some()).collect();
        assert_eq!(made, [0, 4, 14, 24]);
    }

    #[test]
    fn a_clock_that_was_measured_anew_and_a_new_source_are_told_at_once() {
        let mut frames = Frames::new();
        assert!(frames.next(at(0, 0), false).is_some());
        assert_eq!(frames.next(at(0, 1), false), None);
        frames.clock.instant += SECOND;
        assert!(frames.next(at(0, 2), false).is_some());
        assert_eq!(frames.next(at(0, 3), false), None);
        assert!(frames.next(at(1, 4), false).is_some());
    }

    #[test]
    fn what_is_not_known_is_asked_for_again() {
        let mut frames = Frames::new();
        assert_eq!(frames.times.next(at(0, 0), true, RATE, None, || Some(seconds(7))), None, "there is no clock");
        assert_eq!(frames.times.next(at(0, 1), true, RATE, Some(&frames.clock), || None), None);
        assert!(frames.next(at(0, 2), false).is_some());
    }

    #[test]
    fn who_begins_with_a_frame_between_two_of_the_publishers_own_gets_what_lies_between() {
        let mut frames = Frames::new();
        frames.remember_publishers(100, seconds(50));
        assert_eq!(frames.next(at(0, 100 + RATE), false), None, "receivers extrapolate");
        assert_eq!(frames.next(at(0, 100 + 2 * RATE), true), Some(seconds(52)));
        assert_eq!(frames.next(at(0, 100 + 5 * RATE + 1), false), Some(seconds(7)), "it says no more");
        frames.remember_publishers(100, seconds(50));
        assert_eq!(frames.next(at(1, 100 + RATE), true), Some(seconds(7)), "it was another source's");
    }
}

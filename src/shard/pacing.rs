//! Spreads a large frame over the time until the next one.
//!
//! A keyframe is five to ten times as large as other frames. Sent at once it meets the shallowest buffer on the way to a player
//! at the full speed of the node's network card, and what does not fit is lost. What a track has to send beyond a run therefore
//! leaves in pieces, the same for all players of the table: each gets a run of eight packets or more from one flush, and the
//! next from the next. A frame of fifteen packets or less is left whole, and so is one that is still arriving and of which less
//! than [`BURST`] packets have come at once: whoever publishes it spreads it already.
//!
//! `fq` and `SO_TXTIME` could do it in the kernel, but all players of a shard share a socket, and to `fq` a socket is one flow: a
//! packet that is to leave later would hold up those of all others behind it.

use std::time::{Duration, Instant};

/// The least packets of a piece: shorter runs cost too much for each packet.
const LEAST: u64 = 8;

/// So many packets that come at once are no piece of a frame that its publisher spreads.
pub(super) const BURST: u64 = 3 * LEAST;

/// The most pieces of a frame: each costs a turn of the thread.
const MOST: u64 = 8;

/// The time between two frames, as far as it is believed: a table that sends two slides a second does not want half a second of
/// delay.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(40);

/// Where a track stands in spreading a frame.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    spread: Option<Spread>,
}

#[derive(Clone, Copy, Debug)]
struct Spread {
    begun: Instant,
    /// The first index of what is spread.
    from: u64,
    pieces: u64,
    /// From one to the next.
    step: Duration,
    /// When the next piece is due.
    next: Instant,
}

impl Pacer {
    /// A frame has been sent in part.
    pub(super) fn is_spreading(&self) -> bool {
        self.spread.is_some()
    }

    /// What waits is of a stream that is over.
    pub(super) fn reset(&mut self) {
        self.spread = None;
    }

    /// Up to which index what waits, `next..head`, may be sent now; or when to ask again. `interval` tells the time between this
    /// frame and the one before, if that is known. At most `most` packets are let go at once; the next piece may then be shorter
    /// than a run.
    ///
    /// # Errors
    /// Nothing may be sent before that time.
    pub(super) fn allow(
        &mut self,
        now: Instant,
        next: u64,
        head: u64,
        most: u64,
        interval: impl FnOnce() -> Option<Duration>,
    ) -> Result<u64, Instant> {
        // One that began above has the numbers of a stream that is over.
        let spread = match self.spread.filter(|spread| next >= spread.from) {
            Some(spread) => spread,
            None if head.saturating_sub(next) < 2 * LEAST => {
                self.spread = None;
                return Ok(head);
            }
            None => {
                let over = interval().unwrap_or(*INTERVALS.end()).clamp(*INTERVALS.start(), *INTERVALS.end());
                let pieces = ((head - next) / LEAST).min(MOST);
                Spread { begun: now, from: next, pieces, step: over / pieces as u32, next: now }
            }
        };
        if now < spread.next {
            return Err(spread.next);
        }
        let steps = now.saturating_duration_since(spread.begun).as_nanos() / spread.step.as_nanos();
        let due = u128::from(head - spread.from) * (steps + 1) / u128::from(spread.pieces);
        // More may be due than there is: whoever comes late must not be let go beyond the head.
        let end = (spread.from + due as u64).max(next + LEAST).min(head);
        if end > next + most {
            self.spread = Some(Spread { next: now, ..spread });
            return Ok(next + most);
        }
        if end + LEAST > head {
            self.spread = None;
            return Ok(head);
        }
        self.spread = Some(Spread { next: spread.begun + spread.step * (steps as u32 + 1), ..spread });
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: Duration = Duration::from_micros(33_333);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends `packets` that wait from the beginning on, asking whenever it is told to: when each piece left, and how large it was.
    fn pieces(packets: u64, interval: Duration) -> Vec<(Duration, u64)> {
        let (begin, mut pacer, mut found) = (Instant::now(), Pacer::default(), Vec::new());
        let (mut now, mut next) = (begin, 100);
        while next < 100 + packets {
            match pacer.allow(now, next, 100 + packets, u64::MAX / 2, || Some(interval)) {
                Ok(end) => {
                    found.push((now - begin, end - next));
                    next = end;
                }
                Err(at) => now = at,
            }
        }
        found
    }

    #[test]
    fn a_frame_of_one_run_leaves_at_once() {
        for packets in [1, 9, 15] {
            assert_eq!(pieces(packets, FRAME), [(Duration::ZERO, packets)]);
        }
    }

    #[test]
    fn a_keyframe_leaves_in_runs() {
        assert_eq!(pieces(16, ms(30)), [(ms(0), 8), (ms(15), 8)]);
        assert_eq!(pieces(23, ms(30)), [(ms(0), 11), (ms(15), 12)], "no run below eight");
        assert_eq!(pieces(54, ms(30)), [0, 5, 10, 15, 20, 25].map(|at| (ms(at), 9)));
        assert_eq!(pieces(400, ms(40)), [0, 5, 10, 15, 20, 25, 30, 35].map(|at| (ms(at), 50)), "eight pieces at most");
    }

    #[test]
    fn who_comes_late_sends_what_is_due_by_then() {
        let (begin, mut pacer) = (Instant::now(), Pacer::default());
        assert_eq!(pacer.allow(begin, 0, 80, 256, || Some(ms(40))), Ok(10));
        assert_eq!(pacer.allow(begin, 10, 80, 256, || None), Err(begin + ms(5)));
        assert_eq!(pacer.allow(begin + ms(20), 10, 80, 256, || None), Ok(50));
        assert_eq!(pacer.allow(begin + ms(60), 50, 80, 256, || None), Ok(80));
        assert_eq!(pacer.allow(begin + ms(60), 80, 89, 256, || None), Ok(89), "the next frame is not held");
        assert_eq!(pacer.allow(begin, 100, 154, 256, || Some(ms(40))), Ok(109));
        assert_eq!(pacer.allow(begin + ms(10_000), 109, 154, 256, || None), Ok(154), "and no more than there is");
    }

    #[test]
    fn a_new_stream_with_lower_numbers_begins_anew() {
        let (begin, mut pacer) = (Instant::now(), Pacer::default());
        assert_eq!(pacer.allow(begin, 1000, 1080, 256, || Some(ms(40))), Ok(1010));
        assert_eq!(pacer.allow(begin, 0, 9, 256, || Some(ms(40))), Ok(9));
        assert_eq!(pacer.allow(begin, 9, 9 + 80, 256, || Some(ms(40))), Ok(19));
    }

    #[test]
    fn what_is_too_much_for_one_flush_goes_with_the_next_at_once() {
        let (now, mut pacer) = (Instant::now(), Pacer::default());
        let over = || Some(ms(40));
        assert_eq!(pacer.allow(now, 0, 4000, 256, over), Ok(256), "500 are due");
        assert_eq!(pacer.allow(now, 256, 4000, 256, over), Ok(500));
        assert_eq!(pacer.allow(now, 500, 4000, 256, over), Err(now + ms(5)));
        pacer.reset();
        assert_eq!(pacer.allow(now, 500, 509, 256, over), Ok(509));
    }

    #[test]
    fn the_time_between_frames_is_believed_within_limits() {
        for (interval, last) in [(ms(500), ms(35)), (ms(0), Duration::from_micros(4375))] {
            assert_eq!(pieces(400, interval).last().expect("some").0, last);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever the frame, the whole of it leaves, within the time between frames, and in no piece below a run.
        #[test]
        fn a_frame_leaves_whole_and_in_time(packets in 1_u64..5000, interval in 5_u64..=40) {
            let found = pieces(packets, ms(interval));
            prop_assert_eq!(found.iter().map(|(_, size)| size).sum::<u64>(), packets);
            prop_assert!(found.iter().all(|(at, size)| *at < ms(interval) && *size >= LEAST.min(packets)));
        }

        /// Asked at any time while more arrives, it never stalls: what it holds back is due before another interval is over.
        #[test]
        fn it_never_stalls(steps in prop::collection::vec((0_u64..30, prop_oneof![9 => 0_u64..12_000, 1 => 0_u64..900_000]), 1..80)) {
            let (mut now, mut pacer, mut next, mut head) = (Instant::now(), Pacer::default(), 0, 0);
            for (arrived, micros) in steps {
                head += arrived;
                now += Duration::from_micros(micros);
                match pacer.allow(now, next, head, 256, || Some(FRAME)) {
                    Ok(end) => {
                        prop_assert!(end <= head && end >= next);
                        next = end;
                    }
                    Err(at) => prop_assert!(at > now && at <= now + FRAME / 2),
                }
            }
            let done = now + FRAME;
            now += FRAME;
            while next < head {
                match pacer.allow(now, next, head, 256, || Some(FRAME)) {
                    Ok(end) => next = end,
                    Err(at) => now = at,
                }
            }
            prop_assert!(now <= done + 2 * FRAME, "what is left leaves within a frame or two");
        }
    }
}

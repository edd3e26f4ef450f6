//! What one player has seen of what it was offered.

use std::time::{Duration, Instant};

use super::statistics::PlayerStatistics;

/// A player that has not reported for so long, three times in a row by ours, is taken to see nothing: a path that loses
/// everything loses reports too.
const SILENT_AFTER: Duration = Duration::from_secs(6);

/// The least time between two reports of a player: ours reports every two seconds.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// More frames than any table has in a second.
const MOST_FRAMES_PER_SECOND: u64 = 240;

/// More packets than any table sends in a second: 60 Mbit/s.
const MOST_PACKETS_PER_SECOND: u64 = 6_000;

/// A picture that stands for longer than this is counted as standing for this long: who has left reports no more.
const LONGEST_FREEZE: Duration = Duration::from_secs(60);

/// What a table has offered to each of its players since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// Video frames of which the last packet was there.
    pub frames: u64,
    /// RTP payload bytes of video.
    pub bytes: u64,
}

/// What happened to one player between two reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Increment {
    /// Offered meanwhile.
    pub offered: Offered,
    /// Of the frames offered, those that this player will never have decoded.
    pub frames_missed: u64,
    /// Of the bytes offered, those that it will never have received.
    pub bytes_missed: u64,
    /// Frames that came too late for it, or that its decoder was too slow for.
    pub frames_dropped: u64,
    /// How often the picture stood.
    pub freezes: u64,
    /// And for how long.
    pub frozen: Duration,
    /// Packets that never came.
    pub packets_lost: u64,
    /// How long a frame waits in the jitter buffer.
    pub jitter_buffer: Option<Duration>,
}

/// The reports of one player.
#[derive(Clone, Debug, Default)]
pub struct Playback {
    last: Option<Last>,
    frames: Shortfall,
    bytes: Shortfall,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: Instant,
    offered: Offered,
    statistics: PlayerStatistics,
}

impl Playback {
    /// Whether it has reported, and does no more.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last.at) >= SILENT_AFTER)
    }

    /// Takes a report that arrived at `now`, when the table had `offered` so much in all. `None` for the first, which tells
    /// where counting begins, and for one that came too soon.
    pub fn handle_report(&mut self, now: Instant, offered: Offered, said: &PlayerStatistics) -> Option<Increment> {
        let Some(last) = self.last else {
            self.last = Some(Last { at: now, offered, statistics: *said });
            return None;
        };
        let elapsed = now.saturating_duration_since(last.at);
        if elapsed < LEAST_INTERVAL {
            return None;
        }
        self.last = Some(Last { at: now, offered, statistics: *said });
        // A table that began anew on this shard counts from 0 again.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let offered = Offered {
            frames: since(offered.frames, last.offered.frames),
            bytes: since(offered.bytes, last.offered.bytes),
        };
        let grown =
            |total: fn(&PlayerStatistics) -> Option<u64>| Some(total(said)?.saturating_sub(total(&last.statistics)?));
        let at_most = |count: Option<u64>, each_second: u64| {
            count.unwrap_or(0).min(each_second.saturating_mul(elapsed.as_secs() + 1))
        };
        let frames = grown(|s| s.frames_decoded);
        let bytes = grown(|s| s.bytes_received);
        Some(Increment {
            offered,
            frames_missed: frames.map_or(0, |frames| self.frames.grow(offered.frames, frames)),
            bytes_missed: bytes.map_or(0, |bytes| self.bytes.grow(offered.bytes, bytes)),
            frames_dropped: at_most(grown(|s| s.frames_dropped), MOST_FRAMES_PER_SECOND),
            freezes: at_most(grown(|s| s.freeze_count), MOST_FRAMES_PER_SECOND / 2),
            frozen: Duration::from_millis(grown(|s| s.freezes_ms).unwrap_or(0)).min(LONGEST_FREEZE),
            packets_lost: at_most(grown(|s| s.packets_lost), MOST_PACKETS_PER_SECOND),
            jitter_buffer: said.jitter_buffer_delay.map(Duration::from_millis),
        })
    }
}

/// How far behind what was offered the player is for good.
///
/// A report says what was there when the browser wrote it, some frames and milliseconds before we count what was offered:
/// the distance goes up and down by that. Only what takes it above the highest that it has ever been is missing.
#[derive(Clone, Debug, Default)]
struct Shortfall {
    behind: i64,
    highest: i64,
}

impl Shortfall {
    /// Takes what was offered and arrived since the last time; returns what is missing of it, never more than was offered.
    fn grow(&mut self, offered: u64, arrived: u64) -> u64 {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        // A joiner that replays the cached pictures decodes more than it is offered, and no player gets ahead by more.
        self.behind = self.behind.saturating_add(signed(offered)).saturating_sub(signed(arrived));
        let missing = self.behind.saturating_sub(self.highest).max(0).cast_unsigned().min(offered);
        self.highest = self.highest.max(self.behind);
        missing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn decoded(frames: u64) -> PlayerStatistics {
        PlayerStatistics { frames_decoded: Some(frames), ..PlayerStatistics::default() }
    }

    fn frames(frames: u64) -> Offered {
        Offered { frames, bytes: 0 }
    }

    /// Frames missed, report by report: each says what was offered and decoded by then.
    fn missed(reports: &[(u64, u64)]) -> Vec<u64> {
        let (mut playback, mut now) = (Playback::default(), Instant::now());
        let mut each = Vec::new();
        for (offered, frames_decoded) in reports {
            now += INTERVAL;
            each.extend(playback.handle_report(now, frames(*offered), &decoded(*frames_decoded)));
        }
        each.iter().map(|increment| increment.frames_missed).collect()
    }

    #[test]
    fn who_decodes_all_misses_nothing_however_unevenly_it_reports() {
        assert_eq!(missed(&[(100, 90), (160, 150), (220, 210)]), [0, 0]);
        let uneven = missed(&[(100, 90), (160, 148), (220, 212), (280, 268), (340, 329), (400, 390)]);
        assert_eq!(uneven, [2, 0, 0, 0, 0], "what it was behind at first is found out once");
    }

    #[test]
    fn a_frame_that_never_comes_is_missed_once() {
        assert_eq!(missed(&[(100, 90), (160, 150), (220, 195), (280, 255), (340, 315)]), [0, 15, 0, 0]);
        assert_eq!(missed(&[(0, 0), (60, 0), (120, 0)]), [60, 60], "a picture that stands");
    }

    #[test]
    fn a_joiner_that_replays_the_cached_pictures_gets_no_credit_for_them_in_advance() {
        assert_eq!(missed(&[(1000, 0), (1060, 110), (1120, 170), (1180, 170)]), [0, 0, 10]);
    }

    #[test]
    fn a_table_that_begins_anew_is_no_loss() {
        assert_eq!(missed(&[(5000, 5000), (60, 5060), (120, 5120)]), [0, 0]);
    }

    #[test]
    fn the_first_report_and_one_too_soon_are_no_increment() {
        let (mut playback, now) = (Playback::default(), Instant::now());
        assert_eq!(playback.handle_report(now, frames(10), &decoded(10)), None);
        assert_eq!(playback.handle_report(now + LEAST_INTERVAL / 2, frames(25), &decoded(0)), None);
        let later = playback.handle_report(now + LEAST_INTERVAL, frames(40), &decoded(40)).unwrap();
        assert_eq!((later.offered.frames, later.frames_missed), (30, 0), "from the first on");
    }

    #[test]
    fn who_reports_no_more_is_silent_after_six_seconds_and_until_the_next_report() {
        let (mut playback, now) = (Playback::default(), Instant::now());
        assert!(!playback.is_silent(now + 100 * SILENT_AFTER), "it never said anything");
        playback.handle_report(now, frames(0), &decoded(0));
        assert!(!playback.is_silent(now + SILENT_AFTER - Duration::from_nanos(1)));
        assert!(playback.is_silent(now + SILENT_AFTER));
        playback.handle_report(now + SILENT_AFTER, frames(0), &decoded(0));
        assert!(!playback.is_silent(now + SILENT_AFTER));
    }

    #[test]
    fn every_number_is_what_grew() {
        let said = |n: u64| PlayerStatistics {
            frames_decoded: Some(60 * n),
            frames_dropped: Some(n),
            bytes_received: Some(1000 * n),
            packets_lost: Some(2 * n),
            freeze_count: Some(3 * n),
            freezes_ms: Some(400 * n),
            jitter_buffer_delay: Some(50 * n),
        };
        let (mut playback, now) = (Playback::default(), Instant::now());
        playback.handle_report(now, Offered { frames: 60, bytes: 2000 }, &said(1));
        let increment = playback.handle_report(now + INTERVAL, Offered { frames: 120, bytes: 3500 }, &said(2)).unwrap();
        let expected = Increment {
            offered: Offered { frames: 60, bytes: 1500 },
            frames_missed: 0,
            bytes_missed: 500,
            frames_dropped: 1,
            freezes: 3,
            frozen: Duration::from_millis(400),
            packets_lost: 2,
            jitter_buffer: Some(Duration::from_millis(100)),
        };
        assert_eq!(increment, expected);
    }

    proptest! {
        /// Whatever players say.
        #[test]
        fn no_report_says_more_than_can_be(reports in prop::collection::vec((0u64..5000, any::<[Option<u64>; 7]>(), any::<[u64; 2]>()), 1..20)) {
            let (mut playback, mut now) = (Playback::default(), Instant::now());
            for (milliseconds, said, [frames, bytes]) in reports {
                now += Duration::from_millis(milliseconds);
                let [frames_decoded, frames_dropped, bytes_received, packets_lost, freeze_count, freezes_ms, jitter_buffer_delay] = said;
                let said = PlayerStatistics {
                    frames_decoded, frames_dropped, bytes_received, packets_lost, freeze_count, freezes_ms, jitter_buffer_delay,
                };
                let Some(increment) = playback.handle_report(now, Offered { frames, bytes }, &said) else { continue };
                prop_assert!(increment.frames_missed <= increment.offered.frames);
                prop_assert!(increment.bytes_missed <= increment.offered.bytes);
                prop_assert!(increment.frames_dropped <= 100 * MOST_FRAMES_PER_SECOND);
                prop_assert!(increment.packets_lost <= 100 * MOST_PACKETS_PER_SECOND);
                prop_assert!(increment.frozen <= LONGEST_FREEZE);
            }
        }
    }
}

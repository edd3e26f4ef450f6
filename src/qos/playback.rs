//! What one player has seen of what it was offered.

use std::time::{Duration, Instant};

use super::statistics::PlayerStatistics;

/// A player that has not reported for so long, three times in a row by ours, is taken to see nothing: a path that loses
/// everything loses reports too.
const SILENT_AFTER: Duration = Duration::from_secs(6);

/// The least time between two reports of a player: ours reports every two seconds.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// More packets than any table sends in a second: 60 Mbit/s.
const MOST_PACKETS_PER_SECOND: u64 = 6_000;

/// A picture that stands for less than 150 ms is no freeze (W3C webrtc-stats, `freezeCount`).
const MOST_FREEZES_PER_SECOND: u64 = 7;

/// No frame of a live picture waits for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A live picture that is said to be older is not: somebody's clock is wrong.
const OLDEST_PICTURE: Duration = Duration::from_secs(60);

/// Reports from a word of a loss on in which that is found at the latest: it is missing in three in a row, of which the first may be the
/// next one or the one after.
const FOUND_WITHIN: u8 = 5;

/// A minute of the SDK's reports: frames that have not come by then are lost also to a player that never asks for anything.
const HELD_REPORTS: u8 = 30;

/// What a table has offered to each of its players since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// Video frames of which something was there in time.
    pub frames: u64,
    /// RTP payload bytes of video.
    pub bytes: u64,
}

/// What the node knows that a player did not get, since it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withheld {
    /// Frames that were not sent, for a reason that is on the ledger: lost before they came, or between two layers. Of those
    /// that were offered: a frame of which nothing came was not.
    pub frames: u64,
    /// Frames that were sent behind one that was not, and before a keyframe, by where that one was lost. Whether they were of
    /// use only the player can say.
    pub broken: [u64; 3],
    /// Frames that were sent and waited for the repair of one before them for longer than a picture waits.
    pub late: u64,
    /// Runs of packets that the kernel did not take. A retransmission may have mended them: whether they cost a frame only the
    /// player can say.
    pub runs: u64,
}

/// Where a frame was lost that others rest on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breach {
    /// On the way to the node.
    #[default]
    BeforeTheNode,
    /// In a receive buffer of the node.
    Overload,
    /// Between two shards.
    Queue,
}

/// Where frames were lost that a player was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// They rest on one that was lost before the node.
    pub ingest_loss: u64,
    /// They rest on one that was lost in a receive buffer of the node.
    pub node_overload: u64,
    /// The node could not send them, or one that they rest on.
    pub node_queue: u64,
    /// They never came whole, or so late that the picture had moved on.
    pub network: u64,
    /// They came whole and were not decoded.
    pub decoder: u64,
    /// The player does not say.
    pub unknown: u64,
}

/// What happened to one player between two reports. Where it did not say, there is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Increment {
    /// Offered meanwhile.
    pub offered: Offered,
    /// Of the frames offered, those that this player will never have decoded.
    pub frames_missed: Option<u64>,
    /// Of the bytes offered, those that it will never have received.
    pub bytes_missed: Option<u64>,
    /// Of the frames missed, those that the node had sent, by where they were lost.
    pub losses: Losses,
    /// Frames that came too late for it, or that its decoder was too slow for.
    pub frames_dropped: u64,
    /// How often the picture stood.
    pub freezes: u64,
    /// And for how long.
    pub frozen: Duration,
    /// Packets that were lost on the way, those repaired among them.
    pub packets_lost: u64,
    /// How long a frame waits in the jitter buffer.
    pub jitter_buffer: Option<Duration>,
    /// How old a frame is when it is shown.
    pub capture_to_shown: Option<Duration>,
}

/// The reports of one player.
#[derive(Clone, Debug, Default)]
pub struct Playback {
    last: Option<Last>,
    /// Of frames decoded behind frames offered.
    frames: Shortfall,
    bytes: Shortfall,
    /// Of frames received behind frames sent.
    sent: Shortfall,
    /// Of frames decoded behind frames sent, where it does not say what it received.
    shown: Shortfall,
    /// Of frames decoded behind frames received.
    decoded: Shortfall,
    /// Frames that were sent in vain and have not been found missing, by where the one was lost that they rest on.
    broken: [Suspects; 3],
    /// Frames that the way held up, likewise.
    late: Suspects,
    /// Runs that were not sent and have not been found missing.
    unsent: Suspects,
    /// What it was sent until each of the two reports before.
    recently: [u64; 2],
    /// Reports to come in which a loss may be found that it has complained of, or that the node knows a reason for.
    expecting: u8,
    /// Reports in a row that found it behind what it was sent without a word of a loss.
    held: u8,
    standing: Standing,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: Instant,
    offered: Offered,
    withheld: Withheld,
    statistics: PlayerStatistics,
}

impl Playback {
    /// Whether it has reported, and does so no more although there is something to see.
    pub fn is_silent(&self, now: Instant, offered: Offered) -> bool {
        let is_silent = |last: &Last| now.saturating_duration_since(last.at) >= SILENT_AFTER && offered != last.offered;
        self.last.as_ref().is_some_and(is_silent)
    }

    /// The player has asked for packets or for a keyframe, or said that packets were lost.
    pub fn note_complaint(&mut self) {
        self.expecting = FOUND_WITHIN;
    }

    /// Takes a report that arrived at `now`, when the table had `offered` so much in all, of which this player was not given
    /// what is `withheld`. `None` for the first, which tells where counting begins, and for one that came too soon.
    pub fn handle_report(
        &mut self,
        now: Instant,
        offered: Offered,
        withheld: Withheld,
        said: &PlayerStatistics,
    ) -> Option<Increment> {
        let Some(last) = self.last else {
            self.last = Some(Last { at: now, offered, withheld, statistics: *said });
            self.standing.unfrozen_since = Some(now);
            return None;
        };
        let elapsed = now.saturating_duration_since(last.at);
        if elapsed < LEAST_INTERVAL {
            return None;
        }
        // Reordered packets count as lost until they come (RFC 3550 §6.4.1): only a new highest is a loss.
        let statistics =
            PlayerStatistics { packets_lost: said.packets_lost.max(last.statistics.packets_lost), ..*said };
        self.last = Some(Last { at: now, offered, withheld, statistics });
        // A table that began anew on this shard counts from 0 again.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let offered = Offered {
            frames: since(offered.frames, last.offered.frames),
            bytes: since(offered.bytes, last.offered.bytes),
        };
        let grown = |total: fn(&PlayerStatistics) -> Option<u64>| {
            Some(total(&statistics)?.saturating_sub(total(&last.statistics)?))
        };
        let withheld = Withheld {
            frames: since(withheld.frames, last.withheld.frames),
            runs: since(withheld.runs, last.withheld.runs),
            late: since(withheld.late, last.withheld.late),
            broken: [0, 1, 2].map(|place| since(withheld.broken[place], last.withheld.broken[place])),
        };
        let sent = offered.frames.saturating_sub(withheld.frames);
        let received = grown(|s| s.frames_received);
        let decoded = grown(|s| s.frames_decoded);
        let losses = self.losses(sent, withheld, received, decoded);
        let at_most = |count: u64, each_second: u64| {
            let most = u128::from(each_second) * elapsed.as_millis() / 1000;
            count.min(u64::try_from(most).unwrap_or(u64::MAX))
        };
        let frozen = Stood {
            times: grown(|s| s.freeze_count).unwrap_or(0),
            time: Duration::from_millis(grown(|s| s.freezes_ms).unwrap_or(0)),
        };
        // A single frame may be on its way.
        let stands = decoded == Some(0) && offered.frames > 1;
        let stood = self.standing.take(now, stands.then_some(elapsed), frozen);
        Some(Increment {
            offered,
            frames_missed: decoded.map(|decoded| self.frames.grow(offered.frames, decoded)),
            losses,
            bytes_missed: grown(|s| s.bytes_received).map(|received| self.bytes.grow(offered.bytes, received)),
            frames_dropped: grown(|s| s.frames_dropped).unwrap_or(0).min(offered.frames),
            freezes: at_most(stood.times, MOST_FREEZES_PER_SECOND),
            frozen: stood.time,
            packets_lost: at_most(grown(|s| s.packets_lost).unwrap_or(0), MOST_PACKETS_PER_SECOND),
            jitter_buffer: said.jitter_buffer_delay.map(|ms| Duration::from_millis(ms).min(LONGEST_WAIT)),
            capture_to_shown: said.capture_to_shown_ms.map(Duration::from_millis).filter(|age| *age <= OLDEST_PICTURE),
        })
    }

    /// Where those are that were sent and not decoded.
    fn losses(&mut self, sent: u64, withheld: Withheld, received: Option<u64>, decoded: Option<u64>) -> Losses {
        self.broken.iter_mut().zip(withheld.broken).for_each(|(suspects, count)| suspects.add(count));
        self.unsent.add(withheld.runs);
        self.late.add(withheld.late);
        if withheld.runs > 0 || withheld.late > 0 || withheld.broken.iter().any(|count| *count > 0) {
            self.expecting = FOUND_WITHIN;
        }
        let mut on_the_way = received.map_or(0, |received| self.lost_on_the_way(sent, received));
        self.expecting = self.expecting.saturating_sub(1);
        let at_most = sent.max(self.recently[0]).max(self.recently[1]);
        self.recently = [self.recently[1], sent];
        let mut decoder = received.zip(decoded).map_or(0, |(received, decoded)| self.decoded.last(received, decoded));
        let mut unknown = match (received, decoded) {
            (None, Some(decoded)) => self.shown.last(sent, decoded),
            _ => 0,
        };
        // Nobody has lost more than it was sent, whatever it says: on the way none can be behind by more, and it may be found all at once.
        [&mut decoder, &mut unknown].into_iter().for_each(|count| *count = at_most.min(*count));
        // Some players count as received what rests on nothing, others do not.
        let mut by_place = self.broken.each_mut().map(|suspects| {
            suspects.explain(&mut on_the_way) + suspects.explain(&mut decoder) + suspects.explain(&mut unknown)
        });
        by_place[Breach::Queue as usize] += self.unsent.explain(&mut on_the_way);
        let [ingest_loss, node_overload, node_queue] = by_place;
        let network = on_the_way + self.late.explain(&mut decoder);
        Losses { ingest_loss, node_overload, node_queue, network, decoder, unknown }
    }

    /// Frames of those sent that have not been received for three reports. A player whose processor is taken away receives late, for as
    /// long as that takes, and has all in the end: without a word of a loss it is waited for.
    fn lost_on_the_way(&mut self, sent: u64, received: u64) -> u64 {
        let behind = self.sent.lasting(sent, received);
        self.held = if behind > self.sent.highest { self.held.saturating_add(1) } else { 0 };
        if self.expecting == 0 && self.held < HELD_REPORTS {
            return 0;
        }
        self.sent.take(behind, u64::MAX)
    }
}

/// How often the picture stood, and for how long.
#[derive(Clone, Copy, Debug, Default)]
struct Stood {
    times: u64,
    time: Duration,
}

/// What of standing pictures is counted.
///
/// A browser counts a freeze when the picture moves again, and never if the player leaves or connects anew before that. So a picture
/// that stood from one report to the next, with something to see, is counted then; and what the browser says of it later is not
/// counted again.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// When the picture may have begun to stand, for all that was counted of it: none stands for longer than there is time.
    unfrozen_since: Option<Instant>,
    /// What was counted and the browser has not said yet.
    unsaid: Stood,
    /// The picture has stood for all of the time between the last two reports.
    stands: bool,
}

impl Standing {
    /// A report that arrived at `now`: for how long nothing at all was decoded, if that is since the report before, and what the browser
    /// counts since that.
    fn take(&mut self, now: Instant, stood: Option<Duration>, said: Stood) -> Stood {
        let unsaid = self.unsaid;
        let mut counted =
            Stood { times: said.times.saturating_sub(unsaid.times), time: said.time.saturating_sub(unsaid.time) };
        match stood {
            Some(time) => {
                let begins = u64::from(!self.stands);
                self.unsaid = Stood {
                    times: unsaid.times.saturating_sub(said.times) + begins,
                    time: unsaid.time.saturating_sub(said.time) + time,
                };
                counted.times += begins;
                counted.time += time;
            }
            // What it has not said by the second report after the picture moved again it never says.
            None if self.stands && said.times == 0 => {}
            None => self.unsaid = Stood::default(),
        }
        self.stands = stood.is_some();
        let since = self.unfrozen_since.unwrap_or(now);
        counted.time = counted.time.min(now.saturating_duration_since(since));
        self.unfrozen_since = Some(since + counted.time);
        counted
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
    /// How far behind it was at the last two reports.
    recent: [i64; 2],
}

impl Shortfall {
    /// Takes what was offered and arrived since the last time; returns what is missing of it, never more than was offered.
    fn grow(&mut self, offered: u64, arrived: u64) -> u64 {
        self.update(offered, arrived);
        self.take(self.behind, offered)
    }

    /// The same, of what was missing at the two reports before and still is: what is repaired, or decoded a little later, is
    /// none.
    fn last(&mut self, offered: u64, arrived: u64) -> u64 {
        let behind = self.lasting(offered, arrived);
        self.take(behind, u64::MAX)
    }

    /// How far behind it is and was at the two reports before.
    fn lasting(&mut self, offered: u64, arrived: u64) -> i64 {
        self.update(offered, arrived);
        let [earlier, before] = self.recent;
        self.recent = [before, self.behind];
        self.behind.min(before).min(earlier)
    }

    fn update(&mut self, offered: u64, arrived: u64) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let behind = self.behind.saturating_add(signed(offered)).saturating_sub(signed(arrived));
        // Who decodes more than it is offered replays cached pictures, has things twice, or lies: nobody gets ahead by more
        // than half of an interval, which is more than reports are uneven by.
        self.behind = behind.max(self.highest.saturating_sub(signed(offered / 2)));
    }

    fn take(&mut self, behind: i64, at_most: u64) -> u64 {
        let missing = behind.saturating_sub(self.highest).max(0).cast_unsigned().min(at_most);
        self.highest = self.highest.max(behind);
        missing
    }
}

/// What may explain that a frame is missing, report by report, the newest last. It is found missing in three reports in a row,
/// of which this is the first, or the next if it was about to be repaired; or never.
#[derive(Clone, Debug, Default)]
struct Suspects([u64; 4]);

impl Suspects {
    /// So many more since the report before.
    fn add(&mut self, count: u64) {
        self.0.rotate_left(1);
        self.0[3] = count;
    }

    /// Takes from `missing` what they explain, the oldest first; returns it.
    fn explain(&mut self, missing: &mut u64) -> u64 {
        let before = *missing;
        for left in &mut self.0 {
            let explained = (*missing).min(*left);
            *left -= explained;
            *missing -= explained;
        }
        before - *missing
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
            each.extend(playback.handle_report(now, frames(*offered), Withheld::default(), &decoded(*frames_decoded)));
        }
        each.iter().map(|increment| increment.frames_missed.expect("it says")).collect()
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
    fn a_joiner_that_replays_the_cached_pictures_gets_credit_for_a_second_of_them() {
        assert_eq!(missed(&[(1000, 0), (1060, 300), (1120, 360), (1180, 360), (1240, 360)]), [0, 0, 30, 60]);
    }

    #[test]
    fn what_is_not_said_is_not_counted() {
        let (mut playback, now) = (Playback::default(), Instant::now());
        let nothing = PlayerStatistics::default();
        playback.handle_report(now, Offered { frames: 1, bytes: 1 }, Withheld::default(), &nothing);
        let increment = playback
            .handle_report(now + INTERVAL, Offered { frames: 61, bytes: 1001 }, Withheld::default(), &nothing)
            .unwrap();
        assert_eq!((increment.frames_missed, increment.bytes_missed, increment.jitter_buffer), (None, None, None));
        assert_eq!(increment.offered, Offered { frames: 60, bytes: 1000 });
    }

    /// Reports of one player: frames offered and withheld, runs not sent, frames received and decoded, all in total by then. It asks
    /// for what it lacks.
    fn losses(reports: &[(u64, u64, u64, Option<u64>, u64)]) -> Vec<[u64; 4]> {
        let (mut playback, mut now, mut each) = (Playback::default(), Instant::now(), Vec::new());
        for &(offered, withheld, runs, frames_received, frames_decoded) in reports {
            now += INTERVAL;
            playback.note_complaint();
            let said = PlayerStatistics { frames_received, ..decoded(frames_decoded) };
            let withheld = Withheld { frames: withheld, runs, ..Withheld::default() };
            each.extend(
                playback.handle_report(now, frames(offered), withheld, &said).map(|increment| increment.losses),
            );
        }
        each.iter().map(|l| [l.node_queue, l.network, l.decoder, l.unknown]).collect()
    }

    /// What three reports say of a loss between the first of them and the one before, which saw 60 frames.
    fn lost(offered: u64, withheld: u64, runs: u64, received: Option<u64>, decoded: u64) -> [u64; 4] {
        let well = (60, 0, 0, received.map(|_| 60), 60);
        let then = (offered, withheld, runs, received, decoded);
        let later = |n| (offered + n, withheld, runs, received.map(|received| received + n), decoded + n);
        let each = losses(&[well, then, later(60), later(120)]);
        assert_eq!(each[..2], [[0; 4]; 2], "it may still come");
        each[2]
    }

    #[test]
    fn frames_are_lost_where_they_were_last_seen() {
        assert_eq!(lost(120, 0, 0, Some(113), 113), [0, 7, 0, 0], "on the way");
        assert_eq!(lost(120, 0, 0, Some(120), 100), [0, 0, 20, 0], "in the decoder");
        assert_eq!(lost(120, 0, 0, Some(115), 100), [0, 5, 15, 0], "at both");
        assert_eq!(lost(120, 10, 0, Some(110), 110), [0; 4], "what was not sent is on the ledger");
        assert_eq!(lost(120, 10, 0, Some(107), 107), [0, 3, 0, 0]);
        assert_eq!(lost(120, 10, 0, None, 105), [0, 0, 0, 5], "it does not say");
    }

    #[test]
    fn a_frame_that_comes_later_is_not_lost() {
        let held_up = [(120, 0, 0, Some(100), 95), (180, 0, 0, Some(120), 110)];
        let reports = [&[(60, 0, 0, Some(60), 60)], &held_up[..], &[(240, 0, 0, Some(240), 240)]].concat();
        assert_eq!(losses(&reports), [[0; 4]; 3]);
        // A report that counts a frame more than was sent, and then one that counts one less, is no credit for the decoder.
        let uneven: Vec<_> = (0..40).map(|n| (60 * n, 0, 0, Some(60 * n + n % 2), 60 * n + n % 2)).collect();
        let slow = [40, 41, 42].map(|n| (60 * n, 0, 0, Some(60 * n), 60 * n - 10));
        let all = losses(&[uneven, slow.to_vec()].concat());
        assert_eq!(all.iter().map(|each| each[2]).sum::<u64>(), 10);
    }

    /// Frames found lost on the way, by report: of a player that has received so many of 60 for each report, and whether it complained
    /// before that.
    fn on_the_way(received: impl IntoIterator<Item = (u64, bool)>) -> Vec<u64> {
        let (mut playback, mut now) = (Playback::default(), Instant::now());
        let each = received.into_iter().zip(1..).filter_map(|((received, complains), n)| {
            now += INTERVAL;
            if complains {
                playback.note_complaint();
            }
            let said = PlayerStatistics { frames_received: Some(received), ..decoded(received) };
            Some(playback.handle_report(now, frames(60 * n), Withheld::default(), &said)?.losses.network)
        });
        each.collect()
    }

    #[test]
    fn who_receives_late_for_a_while_and_complains_of_nothing_has_lost_nothing() {
        let slow = |n: u64| (3..18).contains(&n);
        let late = (1..30).map(|n| (60 * n - if slow(n) { 14 } else { 0 }, false));
        assert_eq!(on_the_way(late), [0; 28]);
        // What it loses after that is found as ever, though it had been as far behind before.
        let lost = |n: u64| if slow(n) { 14 } else { 10 * u64::from(n >= 25) };
        let found = on_the_way((1..30).map(|n| (60 * n - lost(n), n == 25)));
        assert_eq!(found.iter().sum::<u64>(), 10);
        assert_eq!(found[25], 10, "in the third report of it");
    }

    #[test]
    fn what_a_player_lacks_is_lost_with_the_first_word_of_it_or_after_a_minute() {
        let behind = |n: u64| 60 * n - 7 * u64::from(n > 10);
        let found = on_the_way((1..30).map(|n| (behind(n), n == 20)));
        assert_eq!((found[18], found.iter().sum()), (7, 7), "with the report after it");
        let found = on_the_way((1..60).map(|n| (behind(n), false)));
        // Behind from the eleventh report on, and for three of them from the thirteenth on.
        assert_eq!((found[41 - 1], found.iter().sum()), (7, 7));
        let found = on_the_way((1..30).map(|n| (behind(n), n == 11)));
        assert_eq!((found[11], found.iter().sum()), (7, 7), "as soon as it is certain");
    }

    #[test]
    fn what_is_found_lost_at_once_is_all_that_was_lost_meanwhile() {
        let behind = |n: u64| 60 * n - 30 * n.saturating_sub(10).min(5);
        let found = on_the_way((1..30).map(|n| (behind(n), n == 20)));
        assert_eq!((found[18], found.iter().sum()), (150, 150), "of five reports");
        let never: u64 = on_the_way((1..100).map(|n| (0, n > 90))).iter().sum();
        assert_eq!(
            never,
            60 * 96,
            "nothing is received: all that was sent since the first report is lost, and of the last two it is not certain"
        );
    }

    #[test]
    fn a_run_that_was_not_sent_explains_one_frame_if_it_is_missing_soon() {
        assert_eq!(lost(120, 0, 4, Some(117), 117), [3, 0, 0, 0]);
        assert_eq!(lost(120, 0, 2, Some(115), 115), [2, 3, 0, 0], "the others were lost elsewhere");
    }

    #[test]
    fn frames_behind_a_lost_one_are_lost_where_that_one_was() {
        let (mut playback, mut now) = (Playback::default(), Instant::now());
        let mut report = |offered, broken, late, received, decoded| {
            now += INTERVAL;
            let withheld = Withheld { frames: 0, runs: 0, broken, late };
            let said = PlayerStatistics {
                frames_received: Some(received),
                frames_decoded: Some(decoded),
                ..PlayerStatistics::default()
            };
            playback.handle_report(now, frames(offered), withheld, &said).map(|increment| increment.losses)
        };
        // Nobody asks for anything: what was withheld is reason enough.
        report(60, [0; 3], 0, 60, 60);
        report(120, [20, 0, 0], 0, 95, 90);
        report(180, [20, 0, 0], 0, 155, 150);
        let losses = report(240, [20, 0, 0], 0, 215, 210);
        assert_eq!(losses, Some(Losses { ingest_loss: 20, network: 5, decoder: 5, ..Losses::default() }));
        report(300, [20, 0, 0], 30, 275, 250);
        report(360, [20, 0, 0], 30, 335, 310);
        let losses = report(420, [20, 0, 0], 30, 395, 370);
        assert_eq!(losses, Some(Losses { network: 20, ..Losses::default() }), "whole, and too late");
    }

    #[test]
    fn a_reordered_packet_is_lost_once_at_most() {
        let lost = |packets| PlayerStatistics { packets_lost: Some(packets), ..PlayerStatistics::default() };
        let (mut playback, mut now) = (Playback::default(), Instant::now());
        let mut counted = Vec::new();
        for packets in [3, 1, 4, 2, 4, 6] {
            now += INTERVAL;
            counted.extend(
                playback.handle_report(now, frames(0), Withheld::default(), &lost(packets)).map(|i| i.packets_lost),
            );
        }
        assert_eq!(counted, [0, 1, 0, 0, 2]);
    }

    #[test]
    fn no_picture_stands_for_longer_than_there_was_time() {
        let stood = |seconds: u64| PlayerStatistics { freezes_ms: Some(1000 * seconds), ..PlayerStatistics::default() };
        let (mut playback, mut now) = (Playback::default(), Instant::now());
        let mut counted = Vec::new();
        // A freeze of 4 s is counted when it is over; one of an hour is a lie.
        for seconds in [0, 0, 4, 3600, 7200, 7201] {
            now += INTERVAL;
            counted.extend(
                playback
                    .handle_report(now, frames(0), Withheld::default(), &stood(seconds))
                    .map(|i| i.frozen.as_secs()),
            );
        }
        assert_eq!(counted, [0, 4, 2, 2, 1]);
    }

    /// Frames offered and decoded by then, and how many freezes and seconds of them the browser has counted, if it counts any.
    type Report = (u64, u64, Option<(u64, u64)>);

    /// Freezes and seconds of them, report by report.
    fn freezes(reports: &[Report]) -> Vec<(u64, u64)> {
        let (mut playback, mut now) = (Playback::default(), Instant::now());
        let each = reports.iter().filter_map(|(offered, frames_decoded, counted)| {
            now += INTERVAL;
            let (freeze_count, freezes_ms) = counted.map(|(times, seconds)| (times, 1000 * seconds)).unzip();
            let said = PlayerStatistics { freeze_count, freezes_ms, ..decoded(*frames_decoded) };
            let increment = playback.handle_report(now, frames(*offered), Withheld::default(), &said)?;
            Some((increment.freezes, increment.frozen.as_secs()))
        });
        each.collect()
    }

    #[test]
    fn a_picture_that_stands_is_counted_while_it_does_and_not_again_when_the_browser_counts_it() {
        // For 7 s, the first of them after the last frame before a report.
        let reports =
            [(60, 60, 0, 0), (120, 90, 0, 0), (180, 90, 0, 0), (240, 90, 0, 0), (300, 100, 1, 7), (360, 160, 2, 8)];
        let with_counts = reports.map(|(offered, decoded, times, seconds)| (offered, decoded, Some((times, seconds))));
        assert_eq!(freezes(&with_counts), [(0, 0), (1, 2), (0, 2), (0, 3), (1, 1)]);
        let without = reports.map(|(offered, decoded, ..)| (offered, decoded, None));
        assert_eq!(freezes(&without), [(0, 0), (1, 2), (0, 2), (0, 0), (0, 0)], "a browser that counts none");
    }

    #[test]
    fn a_browser_that_has_not_counted_a_freeze_when_it_has_decoded_the_frame_after_it_has_a_report_more() {
        let reports = [(60, 60, 0, 0), (120, 60, 0, 0), (180, 61, 0, 0), (240, 121, 1, 3), (300, 181, 2, 4)];
        let reports = reports.map(|(offered, decoded, times, seconds)| (offered, decoded, Some((times, seconds))));
        assert_eq!(freezes(&reports), [(1, 2), (0, 0), (0, 1), (1, 1)]);
        // What it has not counted by then it never does: the next is another one.
        let reports = [(60, 60, 0, 0), (120, 60, 0, 0), (180, 90, 0, 0), (240, 150, 0, 0), (300, 180, 1, 1)];
        let reports = reports.map(|(offered, decoded, times, seconds)| (offered, decoded, Some((times, seconds))));
        assert_eq!(freezes(&reports), [(1, 2), (0, 0), (0, 0), (1, 1)]);
    }

    #[test]
    fn where_there_is_nothing_to_see_no_picture_stands() {
        assert_eq!(
            freezes(&[(60, 60, None), (60, 60, None), (61, 60, None), (63, 60, None)]),
            [(0, 0), (0, 0), (1, 2)]
        );
    }

    #[test]
    fn a_picture_older_than_a_minute_is_a_wrong_clock() {
        let (mut playback, now) = (Playback::default(), Instant::now());
        let mut age = |n: u32, milliseconds| {
            let said = PlayerStatistics { capture_to_shown_ms: Some(milliseconds), ..PlayerStatistics::default() };
            playback.handle_report(now + n * INTERVAL, frames(0), Withheld::default(), &said)?.capture_to_shown
        };
        assert_eq!(age(0, 100), None, "the first is no increment");
        assert_eq!(age(1, 60_000), Some(OLDEST_PICTURE));
        assert_eq!(age(2, 60_001), None);
        assert_eq!(age(3, u64::MAX), None);
    }

    #[test]
    fn a_table_that_begins_anew_is_no_loss() {
        assert_eq!(missed(&[(5000, 5000), (60, 5060), (120, 5120)]), [0, 0]);
    }

    #[test]
    fn the_first_report_and_one_too_soon_are_no_increment() {
        let (mut playback, now) = (Playback::default(), Instant::now());
        assert_eq!(playback.handle_report(now, frames(10), Withheld::default(), &decoded(10)), None);
        assert_eq!(
            playback.handle_report(now + LEAST_INTERVAL / 2, frames(25), Withheld::default(), &decoded(0)),
            None
        );
        let later =
            playback.handle_report(now + LEAST_INTERVAL, frames(40), Withheld::default(), &decoded(40)).unwrap();
        assert_eq!((later.offered.frames, later.frames_missed), (30, Some(0)), "from the first on");
    }

    #[test]
    fn who_reports_no_more_is_silent_after_six_seconds_and_until_the_next_report() {
        let (mut playback, now) = (Playback::default(), Instant::now());
        assert!(!playback.is_silent(now + 100 * SILENT_AFTER, frames(1)), "it never said anything");
        playback.handle_report(now, frames(0), Withheld::default(), &decoded(0));
        assert!(!playback.is_silent(now + SILENT_AFTER - Duration::from_nanos(1), frames(180)));
        assert!(playback.is_silent(now + SILENT_AFTER, frames(180)));
        assert!(!playback.is_silent(now + SILENT_AFTER, frames(0)), "there is nothing to see");
        playback.handle_report(now + SILENT_AFTER, frames(180), Withheld::default(), &decoded(0));
        assert!(!playback.is_silent(now + SILENT_AFTER, frames(181)));
    }

    #[test]
    fn every_number_is_what_grew() {
        let said = |n: u64| PlayerStatistics {
            frames_received: Some(60 * n),
            frames_decoded: Some(60 * n),
            frames_dropped: Some(n),
            bytes_received: Some(1000 * n),
            packets_lost: Some(2 * n),
            freeze_count: Some(3 * n),
            freezes_ms: Some(400 * n),
            jitter_buffer_delay: Some(50 * n),
            capture_to_shown_ms: Some(70 * n),
        };
        let (mut playback, now) = (Playback::default(), Instant::now());
        playback.handle_report(now, Offered { frames: 60, bytes: 2000 }, Withheld::default(), &said(1));
        let increment = playback
            .handle_report(now + INTERVAL, Offered { frames: 120, bytes: 3500 }, Withheld::default(), &said(2))
            .unwrap();
        let expected = Increment {
            offered: Offered { frames: 60, bytes: 1500 },
            frames_missed: Some(0),
            bytes_missed: Some(500),
            losses: Losses::default(),
            frames_dropped: 1,
            freezes: 3,
            frozen: Duration::from_millis(400),
            packets_lost: 2,
            jitter_buffer: Some(Duration::from_millis(100)),
            capture_to_shown: Some(Duration::from_millis(140)),
        };
        assert_eq!(increment, expected);
    }

    proptest! {
        /// Whatever players say.
        #[test]
        fn no_report_says_more_than_can_be(reports in prop::collection::vec((0u64..5000, any::<[Option<u64>; 9]>(), any::<[u64; 4]>(), any::<bool>()), 1..20)) {
            let (mut playback, begin) = (Playback::default(), Instant::now());
            let (mut now, mut frozen, mut lost, mut freezes, mut recent) = (begin, Duration::ZERO, 0, 0, [0; 3]);
            let (mut offered, mut on_the_way) = (0_u64, 0);
            for (milliseconds, said, [frames, bytes, withheld, runs], complains) in reports {
                now += Duration::from_millis(milliseconds);
                if complains {
                    playback.note_complaint();
                }
                let [
                    frames_received, frames_decoded, frames_dropped, bytes_received, packets_lost, freeze_count, freezes_ms, jitter_buffer_delay,
                    capture_to_shown_ms,
                ] = said;
                let said = PlayerStatistics {
                    frames_received, frames_decoded, frames_dropped, bytes_received, packets_lost, freeze_count, freezes_ms, jitter_buffer_delay,
                    capture_to_shown_ms,
                };
                let withheld = Withheld { frames: withheld, runs, ..Withheld::default() };
                let Some(increment) = playback.handle_report(now, Offered { frames, bytes }, withheld, &said) else { continue };
                let Losses { node_queue, network, decoder, unknown, .. } = increment.losses;
                // A loss is counted two reports later; one on the way when the player complains, but none twice.
                recent = [recent[1], recent[2], increment.offered.frames];
                let at_most = recent.into_iter().max().unwrap();
                offered = offered.saturating_add(increment.offered.frames);
                on_the_way += node_queue + network;
                prop_assert!(on_the_way <= offered);
                prop_assert!(decoder <= at_most && unknown <= at_most);
                prop_assert!(increment.frames_missed.is_none_or(|missed| missed <= increment.offered.frames));
                prop_assert!(increment.bytes_missed.is_none_or(|missed| missed <= increment.offered.bytes));
                prop_assert!(increment.frames_dropped <= increment.offered.frames);
                prop_assert!(increment.jitter_buffer.is_none_or(|wait| wait <= LONGEST_WAIT));
                prop_assert!(increment.capture_to_shown.is_none_or(|age| age <= OLDEST_PICTURE));
                frozen += increment.frozen;
                lost += increment.packets_lost;
                freezes += increment.freezes;
            }
            let time = now - begin;
            prop_assert!(frozen <= time);
            prop_assert!(lost as f64 <= MOST_PACKETS_PER_SECOND as f64 * time.as_secs_f64());
            prop_assert!(freezes as f64 <= MOST_FREEZES_PER_SECOND as f64 * time.as_secs_f64());
        }
    }
}

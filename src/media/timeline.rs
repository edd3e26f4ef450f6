//! One line of indexes and timestamps for a track, whoever publishes it.

use std::time::{Duration, Instant};

/// Indexes kept free below the first packet of an epoch, for packets that were overtaken by it.
const REORDERING_ROOM: u64 = 1024;

/// The first epoch begins above this. A multiple of 2¹⁶, so that an index ends in its sequence number.
const FIRST_INDEX: u64 = 1 << 16;

/// The least step of time between two epochs: room for frames that were overtaken by the one that was seen first.
const LEAST_STEP: Duration = Duration::from_millis(50);

/// The greatest step of the timestamp between two epochs, in ticks: more would look like a step back (RFC 3550 §5.1
/// timestamps are compared modulo 2³²).
const GREATEST_STEP: u32 = 1 << 30;

/// Insertions that late packets are told apart by: at 30 keyframes a second one second of them.
const REMEMBERED_INSERTIONS: usize = 32;

/// Where a packet stands in its track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// How often the source has changed before. The numbers between the last index of an epoch and the first of the
    /// next are not missing: nobody ever sent them.
    pub epoch: u32,
    /// The extended sequence number, moved on by one for every packet that was inserted before
    /// ([`Timeline::insert_before`]): never wraps, and grows over epochs.
    pub index: u64,
    /// The RTP timestamp, going on over epochs.
    pub timestamp: u32,
}

/// What [`Timeline::place`] says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The packet's position. It may still be a duplicate or older than the ring: the ring knows.
    At(Position),
    /// The packet is from before the epoch.
    TooOld,
}

/// Maps a publisher's sequence numbers and timestamps to a track's, one timeline per track.
///
/// An *epoch* is one SSRC of one publisher. Within it the index is the sequence number extended by its wraps, and the
/// timestamp is the publisher's plus a constant. A new epoch goes on above all indexes of the old one, and its
/// timestamp goes on by the wall time between the newest old packet and the first new one: players see a pause.
///
/// Sequence numbers of one SSRC that go back by more than reordering explains are not taken for a new source: SRTP's
/// replay protection (RFC 3711 §3.3.2) has refused such packets before they come here.
#[derive(Clone, Debug)]
pub struct Timeline {
    clock_rate: u32,
    current: Option<Epoch>,
    restarting: bool,
}

#[derive(Clone, Debug)]
struct Epoch {
    number: u32,
    /// The first packet that was seen, as the publisher numbers it.
    first_index: u64,
    /// Likewise.
    highest_index: u64,
    insertions: Insertions,
    /// Added to the publisher's timestamps.
    offset: u32,
    /// The newest timestamp, and when it was first seen.
    newest: (u32, Instant),
    /// Packets before the first one are refused unless they are newer than this: the newest timestamp of the epoch
    /// before.
    floor: Option<u32>,
}

impl Timeline {
    /// A timeline for timestamps of `clock_rate` ticks per second.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate, current: None, restarting: false }
    }

    /// Places a packet that arrived `now`.
    pub fn place(&mut self, now: Instant, sequence_number: u16, timestamp: u32) -> Placement {
        let epoch = match self.current.take_if(|_| !self.restarting) {
            Some(epoch) => epoch,
            None => self.next_epoch(now, sequence_number, timestamp),
        };
        self.current.insert(epoch).place(now, sequence_number, timestamp)
    }

    /// Makes room for a packet just before `newest`, the position that [`Timeline::place`] has returned last for a packet
    /// that is not in the ring yet, and returns the room: `newest` and all that follows it move on by one. A joiner's cached group of pictures, a repair and
    /// another shard thereby see the inserted packet like any other.
    ///
    /// `None` where a packet with a higher index came before: its number may be in a player's hands.
    pub fn insert_before(&mut self, newest: &mut Position) -> Option<Position> {
        let epoch = self.current.as_mut().filter(|epoch| epoch.number == newest.epoch)?;
        let is_newest = newest.index == epoch.highest_index + epoch.insertions.total;
        if !is_newest || !epoch.insertions.push(epoch.highest_index) {
            return None;
        }
        let room = *newest;
        newest.index += 1;
        Some(room)
    }

    /// The publisher came back or changed its SSRC: the next packet placed begins an epoch. Packets of the old source
    /// must not be placed any more.
    ///
    /// The pause ends with that packet, hence there is no `now` here.
    pub fn restart(&mut self) {
        self.restarting = self.current.is_some();
    }

    /// The track's timestamp for a `timestamp` of the current source, as in its sender reports. `None` before its first
    /// packet.
    pub fn translate(&self, timestamp: u32) -> Option<u32> {
        let epoch = self.current.as_ref().filter(|_| !self.restarting)?;
        Some(timestamp.wrapping_add(epoch.offset))
    }

    fn next_epoch(&mut self, now: Instant, sequence_number: u16, timestamp: u32) -> Epoch {
        self.restarting = false;
        let Some(old) = self.current.take() else {
            return Epoch::new(0, FIRST_INDEX + u64::from(sequence_number), timestamp, 0, now, None);
        };
        let index = old.index_after(sequence_number);
        let (newest, seen) = old.newest;
        let start = newest.wrapping_add(self.ticks(now.saturating_duration_since(seen)));
        Epoch::new(old.number.wrapping_add(1), index, start, start.wrapping_sub(timestamp), now, Some(newest))
    }

    /// Ticks in `elapsed`, within the limits of a step between epochs.
    fn ticks(&self, elapsed: Duration) -> u32 {
        let ticks = elapsed.max(LEAST_STEP).as_micros() * u128::from(self.clock_rate) / 1_000_000;
        u32::try_from(ticks).unwrap_or(GREATEST_STEP).clamp(1, GREATEST_STEP)
    }
}

impl Epoch {
    /// `start` is the track's timestamp of the first packet seen.
    fn new(number: u32, first_index: u64, start: u32, offset: u32, now: Instant, floor: Option<u32>) -> Self {
        let insertions = Insertions::default();
        let newest = (start, now);
        Self { number, first_index, highest_index: first_index, insertions, offset, newest, floor }
    }

    /// Where the next epoch begins, if with this sequence number.
    fn index_after(&self, sequence_number: u16) -> u64 {
        let least = self.highest_index + self.insertions.total + REORDERING_ROOM + 1;
        least + u64::from(sequence_number.wrapping_sub(least as u16))
    }

    fn place(&mut self, now: Instant, sequence_number: u16, timestamp: u32) -> Placement {
        // The nearest index that ends in the sequence number. Never underflows: the first index is above 2¹⁶.
        let distance = sequence_number.wrapping_sub(self.highest_index as u16) as i16;
        let index = self.highest_index.saturating_add_signed(i64::from(distance));
        let timestamp = timestamp.wrapping_add(self.offset);
        if index < self.first_index && self.is_before_epoch(index, timestamp) {
            return Placement::TooOld;
        }
        let Some(inserted) = self.insertions.up_to(index) else { return Placement::TooOld };
        self.highest_index = self.highest_index.max(index);
        if is_newer(timestamp, self.newest.0) {
            self.newest = (timestamp, now);
        }
        Placement::At(Position { epoch: self.number, index: index + inserted, timestamp })
    }

    /// Whether a packet overtaken by the first one finds no room: too far behind, or its time is that of the old epoch.
    fn is_before_epoch(&self, index: u64, timestamp: u32) -> bool {
        self.first_index - index > REORDERING_ROOM || self.floor.is_some_and(|floor| !is_newer(timestamp, floor))
    }
}

/// Before which of the publisher's indexes a packet was inserted.
#[derive(Clone, Debug, Default)]
struct Insertions {
    total: u64,
    /// The newest of them, at `n % REMEMBERED_INSERTIONS` the `n`-th.
    newest: [u64; REMEMBERED_INSERTIONS],
}

impl Insertions {
    /// `false` if there is one before `index` already.
    fn push(&mut self, index: u64) -> bool {
        if self.total > 0 && self.nth(self.total - 1) >= index {
            return false;
        }
        self.newest[self.total as usize % REMEMBERED_INSERTIONS] = index;
        self.total += 1;
        true
    }

    /// How many packets were inserted before `index` or before what comes before it; `None` if that is forgotten.
    fn up_to(&self, index: u64) -> Option<u64> {
        let remembered = self.total.min(REMEMBERED_INSERTIONS as u64);
        let behind = (0..remembered).take_while(|n| self.nth(self.total - 1 - n) > index).count() as u64;
        (behind < REMEMBERED_INSERTIONS as u64 || behind == self.total).then(|| self.total - behind)
    }

    fn nth(&self, n: u64) -> u64 {
        self.newest[n as usize % REMEMBERED_INSERTIONS]
    }
}

/// Whether RTP timestamp `a` is after `b`, modulo 2³².
pub(crate) fn is_newer(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(timeline: &mut Timeline, now: Instant, sequence_number: u16, timestamp: u32) -> Position {
        match timeline.place(now, sequence_number, timestamp) {
            Placement::At(position) => position,
            Placement::TooOld => panic!("{sequence_number} is too old"),
        }
    }

    #[test]
    fn sequence_numbers_extend_over_the_wrap_in_both_directions() {
        let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
        let first = at(&mut timeline, now, 65_534, 1000).index;
        assert_eq!(at(&mut timeline, now, 1, 1000).index, first + 3);
        assert_eq!(at(&mut timeline, now, 65_535, 1000).index, first + 1);
        assert_eq!(at(&mut timeline, now, 65_500, 1000).index, first - 34);
        assert_eq!(at(&mut timeline, now, 2, 1000).index, first + 4);
    }

    #[test]
    fn packets_overtaken_by_the_first_one_fit_before_it() {
        let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
        let first = at(&mut timeline, now, 0, 0).index;
        assert_eq!(at(&mut timeline, now, 65_535, 0u32.wrapping_sub(3000)).index, first - 1);
        assert_eq!(timeline.place(now, 0u16.wrapping_sub(1025), 0), Placement::TooOld);
    }

    #[test]
    fn a_pause_takes_the_time_it_took() {
        let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
        let old = at(&mut timeline, now, 7, 500);
        timeline.restart();
        assert_eq!(timeline.translate(500), None);
        let new = at(&mut timeline, now + 2000 * MS, 60_000, 4_000_000_000);
        assert_eq!(new.timestamp, old.timestamp + 180_000);
        assert_eq!(new.epoch, old.epoch + 1);
        assert_eq!(new.index as u16, 60_000);
        assert!(new.index > old.index + REORDERING_ROOM);
        assert_eq!(timeline.translate(4_000_003_000), Some(new.timestamp + 3000));
        let next = at(&mut timeline, now + 2033 * MS, 60_001, 4_000_003_000);
        assert_eq!((next.index, next.timestamp), (new.index + 1, new.timestamp + 3000));
    }

    #[test]
    fn a_new_epoch_keeps_a_frame_that_was_overtaken_and_refuses_one_from_before_the_pause() {
        let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
        let old = at(&mut timeline, now, 7, 500);
        timeline.restart();
        let new = at(&mut timeline, now + MS, 100, 9000);
        let overtaken = at(&mut timeline, now + MS, 99, 6000);
        assert!(overtaken.index == new.index - 1 && overtaken.timestamp > old.timestamp);
        assert_eq!(timeline.place(now + MS, 98, 9000 - 4500), Placement::TooOld);
    }

    #[test]
    fn a_restart_before_the_first_packet_is_nothing() {
        let (mut timeline, now) = (Timeline::new(48_000), Instant::now());
        timeline.restart();
        assert_eq!(at(&mut timeline, now, 1, 1).epoch, 0);
        assert_eq!(at(&mut timeline, now, 2, 2).epoch, 0);
    }

    #[test]
    fn a_pause_of_days_does_not_turn_back_the_timestamp() {
        let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
        let old = at(&mut timeline, now, 7, u32::MAX);
        timeline.restart();
        let new = at(&mut timeline, now + Duration::from_secs(3 * 86_400), 8, 0);
        assert!(is_newer(new.timestamp, old.timestamp));
    }

    #[test]
    fn timestamps_may_run_for_longer_than_half_their_range_after_a_restart() {
        let (mut timeline, mut now) = (Timeline::new(90_000), Instant::now());
        at(&mut timeline, now, 0, 0);
        timeline.restart();
        for step in 0..40u32 {
            now += Duration::from_secs(1000);
            at(&mut timeline, now, step as u16, step.wrapping_mul(90_000_000));
            at(&mut timeline, now, (step as u16).wrapping_sub(1), step.wrapping_mul(90_000_000));
        }
    }

    #[test]
    fn an_inserted_packet_moves_what_follows_and_nothing_else() {
        let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
        let before = at(&mut timeline, now, 10, 0);
        let mut keyframe = at(&mut timeline, now, 12, 3000);
        let room = timeline.insert_before(&mut keyframe).expect("the newest");
        assert_eq!((room.index, keyframe.index), (before.index + 2, before.index + 3));
        assert_eq!((room.epoch, room.timestamp), (keyframe.epoch, keyframe.timestamp));
        assert_eq!(at(&mut timeline, now, 11, 0).index, before.index + 1, "a late packet keeps its place");
        assert_eq!(at(&mut timeline, now, 12, 3000), keyframe, "a repetition has the number of the first");
        assert_eq!(at(&mut timeline, now, 13, 3000).index, keyframe.index + 1);
        timeline.restart();
        let next = at(&mut timeline, now, 500, 0);
        assert!(next.index > keyframe.index + 1 + REORDERING_ROOM && next.epoch == 1);
    }

    #[test]
    fn only_the_newest_packet_makes_room_and_once() {
        let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
        let mut late = at(&mut timeline, now, 10, 0);
        let mut newest = at(&mut timeline, now, 11, 0);
        assert_eq!(timeline.insert_before(&mut late), None);
        assert!(timeline.insert_before(&mut newest).is_some());
        assert_eq!(timeline.insert_before(&mut newest), None);
        let mut again = at(&mut timeline, now, 11, 0);
        assert_eq!(timeline.insert_before(&mut again), None);
        timeline.restart();
        at(&mut timeline, now, 11, 0);
        assert_eq!(timeline.insert_before(&mut again), None, "of an epoch that is over");
    }

    #[test]
    fn what_is_older_than_the_insertions_that_are_remembered_is_too_old() {
        let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
        at(&mut timeline, now, 99, 0);
        for n in 0..REMEMBERED_INSERTIONS as u16 {
            let mut position = at(&mut timeline, now, 100 + n, 0);
            assert!(timeline.insert_before(&mut position).is_some());
        }
        assert!(matches!(timeline.place(now, 99, 0), Placement::At(_)));
        let mut position = at(&mut timeline, now, 200, 0);
        timeline.insert_before(&mut position);
        assert!(matches!(timeline.place(now, 101, 0), Placement::At(_)));
        assert_eq!(timeline.place(now, 100, 0), Placement::TooOld, "before or behind the one that is forgotten");
    }

    /// How a simulated source sends: packets in true order, delivered up to eight places out of order.
    #[derive(Clone, Debug)]
    struct Source {
        first_sequence_number: u16,
        first_timestamp: u32,
        pause_ms: u64,
        /// Sequence numbers from one packet sent to the next, above 1 for losses.
        steps: Vec<u16>,
        priorities: Vec<u8>,
    }

    fn source() -> impl Strategy<Value = Source> {
        let steps = prop::collection::vec(prop_oneof![9 => Just(1u16), 1 => 1u16..3000], 1..60);
        (any::<u16>(), any::<u32>(), 0u64..5000, steps, prop::collection::vec(0u8..8, 60)).prop_map(
            |(first_sequence_number, first_timestamp, pause_ms, steps, priorities)| Source {
                first_sequence_number,
                first_timestamp,
                pause_ms,
                steps,
                priorities,
            },
        )
    }

    proptest! {
        #[test]
        fn indexes_follow_the_true_order_over_wraps_and_restarts(sources in prop::collection::vec(source(), 1..5)) {
            let mut timeline = Timeline::new(90_000);
            let mut now = Instant::now();
            let (mut past_index, mut past_timestamp) = (0, None);
            for (epoch, source) in sources.iter().enumerate() {
                timeline.restart();
                now += Duration::from_millis(source.pause_ms);
                let mut total = 0;
                let mut sent: Vec<(usize, u64)> = Vec::new();
                for (at, step) in source.steps.iter().enumerate() {
                    total += u64::from(*step);
                    sent.push((at + usize::from(source.priorities[at]), total));
                }
                sent.sort();

                let mut anchor = None;
                let (mut highest, mut newest) = (0, past_timestamp);
                for (_, n) in sent {
                    let sequence_number = source.first_sequence_number.wrapping_add(n as u16);
                    let timestamp = source.first_timestamp.wrapping_add(n as u32 * 30);
                    let Placement::At(position) = timeline.place(now, sequence_number, timestamp) else {
                        let (first, _) = anchor.expect("the first packet is never too old");
                        prop_assert!(n < first, "only what was overtaken can be too old");
                        continue;
                    };
                    let (first, at_first) = *anchor.get_or_insert((n, position));
                    prop_assert_eq!(position.epoch, epoch as u32);
                    prop_assert_eq!(position.index as u16, sequence_number);
                    prop_assert_eq!(position.index as i64 - at_first.index as i64, n as i64 - first as i64);
                    prop_assert_eq!(
                        position.timestamp.wrapping_sub(at_first.timestamp),
                        timestamp.wrapping_sub(source.first_timestamp.wrapping_add(first as u32 * 30))
                    );
                    prop_assert!(position.index > past_index);
                    prop_assert!(past_timestamp.is_none_or(|past| is_newer(position.timestamp, past)));
                    highest = highest.max(position.index);
                    if newest.is_none_or(|newest| is_newer(position.timestamp, newest)) {
                        newest = Some(position.timestamp);
                    }
                }
                (past_index, past_timestamp) = (highest, newest);
            }
        }

        /// No two packets get one index, in whatever order they come and wherever packets are inserted.
        #[test]
        fn indexes_are_of_one_packet_each(
            arrivals in prop::collection::vec((0u16..300, any::<bool>()), 1..400), first: u16,
        ) {
            let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
            let mut owners = std::collections::HashMap::new();
            for (n, insert) in arrivals {
                let Placement::At(mut position) = timeline.place(now, first.wrapping_add(n), 0) else { continue };
                let is_new = !owners.contains_key(&position.index);
                if insert && is_new && let Some(room) = timeline.insert_before(&mut position) {
                    prop_assert_eq!(owners.insert(room.index, None), None);
                }
                let owner = *owners.entry(position.index).or_insert(Some(n));
                prop_assert_eq!(owner, Some(n));
            }
        }

        #[test]
        fn no_sequence_panics(packets in prop::collection::vec((any::<u16>(), any::<u32>(), any::<bool>()), 0..100)) {
            let (mut timeline, now) = (Timeline::new(90_000), Instant::now());
            for (sequence_number, timestamp, restart) in packets {
                if restart {
                    timeline.restart();
                }
                timeline.place(now, sequence_number, timestamp);
            }
        }
    }
}

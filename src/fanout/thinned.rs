//! Which packets of a track a player is not given, and what its numbers are without them.

use crate::media::Packet;

/// Indices of which it is known whether they were left out: at 2.5 Mbit/s those of eight seconds.
const REMEMBERED: u64 = 2048;
const WORDS: usize = REMEMBERED as usize / 64;

/// Frames that are remembered: those of a second, after which nothing comes any more that was missing.
const FRAMES: usize = 32;

/// Of so many frames one at least is of the highest layer.
const LATELY: usize = 8;

/// A player that gets every temporal layer.
pub const ALL_TEMPORAL_LAYERS: u8 = u8::MAX;

/// What became of a packet at the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Given,
    LeftOut {
        /// It is the first of its frame.
        begins_frame: bool,
    },
}

/// A player that does not get every temporal layer of its track, or did not on its present line of numbers.
///
/// # Frames, not packets
/// The first packet of a frame decides about all of it, whatever the others say of themselves: those that come late,
/// and the first one if that does. What a player gets changes where a frame begins, and only if no packet is missing
/// just before. To fewer layers at any frame, since no lower layer refers to a higher one; to more at a frame that says
/// so ([`Climb`](crate::media::Climb)).
///
/// # What is missing at the cursor
/// keeps its number, as it may be of a layer that the player gets. If it comes late and is of a frame that the player
/// does not get, its number is filled by a packet with nothing in it: receivers count that as come. Left open, it would
/// be asked for again and again, and Chromium decodes nothing of H.264 behind a missing number. Of a frame of which
/// nothing was there, the packet that comes first decides, by its own layer and what the player got then.
#[derive(Debug)]
pub(super) struct Thinned {
    /// The highest layer that it is to get.
    wanted: u8,
    /// The highest that it gets.
    current: u8,
    /// What is below had no frames left out.
    start: u64,
    /// The fate of what is below is decided.
    decided: u64,
    /// The packet just below `decided` was there at its turn.
    follows: bool,
    packets: LeftOut,
    /// The first packets of frames.
    frames: LeftOut,
    /// What was missing at its turn and has not been given since.
    missing: Bits,
    /// The frame at the cursor.
    frame: Option<Frame>,
    recent: Recent,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Its first packet that was there.
    first: u64,
    timestamp: u32,
    is_left_out: bool,
    /// The highest layer that the player got behind its last packet.
    highest: u8,
}

impl Thinned {
    /// Of a player that has got all below `cursor` and has had packets of the frame with this timestamp.
    pub(super) fn new(cursor: u64, timestamp: Option<u32>) -> Self {
        let highest = ALL_TEMPORAL_LAYERS;
        let frame = timestamp.map(|timestamp| Frame { first: cursor, timestamp, is_left_out: false, highest });
        Self {
            wanted: ALL_TEMPORAL_LAYERS,
            current: ALL_TEMPORAL_LAYERS,
            start: cursor,
            decided: cursor,
            follows: false,
            packets: LeftOut::default(),
            frames: LeftOut::default(),
            missing: Bits::default(),
            frame,
            recent: Recent::new(frame),
        }
    }

    /// The highest layer that the player is to get.
    pub(super) fn wanted(&self) -> u8 {
        self.wanted
    }

    /// It is to get the layers up to this one.
    pub(super) fn want(&mut self, highest: u8) {
        self.wanted = highest;
    }

    /// Whether frames are left out that it is to get, since none has let it in yet.
    pub(super) fn is_climbing(&self) -> bool {
        self.wanted > self.current && self.recent.leaves_out()
    }

    /// A line of numbers begins with this packet, whose frame is given whatever it is; what was left out before is over.
    pub(super) fn begin(&mut self, first: &Packet) {
        *self = Self { wanted: self.wanted, ..Self::new(first.index, Some(first.timestamp)) };
    }

    /// Decides about the packet at the cursor.
    pub(super) fn decide(&mut self, packet: &Packet) -> Fate {
        let follows = self.follows && packet.index == self.decided;
        self.pass(packet.index + 1);
        self.missing.clear(packet.index);
        self.follows = true;
        // Padding is of no frame.
        if packet.payload().is_empty() {
            return Fate::Given;
        }
        let begun = self.frame.filter(|frame| frame.timestamp == packet.timestamp);
        let begins_frame = begun.is_none();
        // A packet of it may have come late, before any at the cursor.
        let known = begun.or_else(|| self.recent.find(packet.timestamp));
        if known.is_none() && follows {
            self.turn(packet);
        }
        let frame = known.unwrap_or_else(|| self.recent.push(Frame::of(packet, self.current)));
        self.frame = Some(frame);
        if !frame.is_left_out {
            if !begins_frame {
                // What lets others in may stand in an upper spatial layer, or behind parameter sets.
                self.climb(packet);
                self.recent.reaches(packet.timestamp, self.current);
            }
            return Fate::Given;
        }
        self.packets.add(packet.index);
        if begins_frame {
            self.frames.add(packet.index);
        }
        Fate::LeftOut { begins_frame }
    }

    /// What is below `end` and is not decided about was missing at its turn.
    pub(super) fn pass(&mut self, end: u64) {
        if end > self.decided {
            self.packets.bits.put(self.decided, end, false);
            self.frames.bits.put(self.decided, end, false);
            self.missing.put(self.decided, end, true);
            self.decided = end;
            self.follows = false;
        }
    }

    fn turn(&mut self, packet: &Packet) {
        if self.wanted < self.current {
            self.current = self.wanted;
        } else {
            self.climb(packet);
        }
    }

    fn climb(&mut self, packet: &Packet) {
        let reaches = match packet.facts.climb {
            _ if packet.facts.keyframe => self.wanted,
            Some(climb) if climb.needs <= self.current => climb.reaches.min(self.wanted),
            _ => return,
        };
        self.current = self.current.max(reaches);
    }

    /// How many packets of the line were left out before this one; `None` if it was itself, and if that is not known any more.
    pub(super) fn packets_before(&self, index: u64) -> Option<u64> {
        self.packets.before(index, self.decided).filter(|_| !self.has_left_out(index))
    }

    /// Whether this packet was left out, if it is not too long ago.
    pub(super) fn has_left_out(&self, index: u64) -> bool {
        index < self.decided && index + REMEMBERED >= self.decided && self.packets.bits.has(index)
    }

    /// How many frames of the line were left out before this packet's, of which [`Thinned::packets_before`] is known.
    pub(super) fn frames_before(&self, index: u64) -> u64 {
        self.frames.before(index, self.decided).unwrap_or(0)
    }

    /// How many frames of the line were left out so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames.count
    }

    /// How many packets of the line were left out so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets.count
    }

    /// How many packets of a line that began with `first` have a number so far.
    pub(super) fn numbers_since(&self, first: u64) -> u64 {
        self.decided - first - self.packets.count
    }

    /// The index of the packet that has the `behind`-th last number before the next, of a line that began with `first`; `None`
    /// if it is not known any more.
    pub(super) fn index_behind(&self, behind: u64, first: u64) -> Option<u64> {
        self.packets.given_behind(behind, first, self.decided)
    }

    /// Whether the number of a packet that has one, below the cursor, stands for nothing: it was missing at its turn,
    /// and its frame is left out. `None` if that is not known any more.
    pub(super) fn is_hollow(&self, packet: &Packet) -> Option<bool> {
        let index = packet.index;
        if index < self.start || packet.payload().is_empty() {
            return Some(false);
        }
        if index + REMEMBERED < self.decided {
            return None;
        }
        if index < self.decided && !self.missing.has(index) {
            return Some(false);
        }
        match self.recent.find(packet.timestamp) {
            Some(frame) => Some(frame.is_left_out),
            None => Some(layer_of(packet) > self.recent.highest_at(index)?),
        }
    }

    /// A packet that has a number, below the cursor, is given now, or its number alone: see [`Thinned::is_hollow`].
    pub(super) fn give_late(&mut self, packet: &Packet, cursor: u64) -> Option<bool> {
        self.pass(cursor);
        let is_hollow = self.is_hollow(packet)?;
        if packet.index < self.start || !self.missing.has(packet.index) {
            return Some(is_hollow);
        }
        if !packet.payload().is_empty() && self.recent.find(packet.timestamp).is_none() {
            let highest = self.recent.highest_at(packet.index)?;
            self.recent.push(Frame { is_left_out: is_hollow, ..Frame::of(packet, highest) });
        }
        if !is_hollow {
            self.missing.clear(packet.index);
        }
        Some(is_hollow)
    }
}

impl Frame {
    /// Of which this packet decides, where the player gets layers up to `highest`.
    fn of(packet: &Packet, highest: u8) -> Self {
        let is_left_out = layer_of(packet) > highest;
        Self { first: packet.index, timestamp: packet.timestamp, is_left_out, highest }
    }
}

/// The temporal layer of a packet. What names none is in every layer.
fn layer_of(packet: &Packet) -> u8 {
    packet.facts.temporal_layer.unwrap_or(0)
}

/// The frames that were decided about last, the latest last.
#[derive(Debug)]
struct Recent {
    all: [Frame; FRAMES],
    count: usize,
    /// From here on no frame is forgotten.
    known_from: u64,
}

impl Recent {
    fn new(frame: Option<Frame>) -> Self {
        let none = Frame { first: 0, timestamp: 0, is_left_out: false, highest: ALL_TEMPORAL_LAYERS };
        let first = frame.unwrap_or(none);
        Self { all: [first; FRAMES], count: usize::from(frame.is_some()), known_from: first.first }
    }

    fn push(&mut self, frame: Frame) -> Frame {
        if self.count == FRAMES {
            let gone = self.all[0].first;
            self.all.rotate_left(1);
            self.count -= 1;
            // Packets from that of the frame that is gone to the next frame may be of the one that is gone.
            let next = self.known().map(|frame| frame.first).filter(|first| *first > gone).min();
            self.known_from = self.known_from.max(next.unwrap_or(frame.first));
        }
        self.all[self.count] = frame;
        self.count += 1;
        frame
    }

    fn known(&self) -> impl DoubleEndedIterator<Item = &Frame> {
        self.all[..self.count].iter()
    }

    fn find(&self, timestamp: u32) -> Option<Frame> {
        self.known().rev().find(|frame| frame.timestamp == timestamp).copied()
    }

    /// Behind a frame the player gets layers up to this one.
    fn reaches(&mut self, timestamp: u32, highest: u8) {
        let frame = self.all[..self.count].iter_mut().rev().find(|frame| frame.timestamp == timestamp);
        if let Some(frame) = frame {
            frame.highest = highest;
        }
    }

    /// The highest layer that the player got at `index`, which is of none of the frames. It is that of the frame
    /// before, as nothing changes behind a missing packet.
    fn highest_at(&self, index: u64) -> Option<u8> {
        let before = self.known().filter(|frame| frame.first <= index && index >= self.known_from);
        before.max_by_key(|frame| frame.first).map(|frame| frame.highest)
    }

    /// Whether one of the last frames was left out.
    fn leaves_out(&self) -> bool {
        self.known().rev().take(LATELY).any(|frame| frame.is_left_out)
    }
}

/// A bit for each of the last [`REMEMBERED`] indices, at itself modulo that.
#[derive(Debug)]
struct Bits([u64; WORDS]);

impl Default for Bits {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Bits {
    fn has(&self, index: u64) -> bool {
        self.0[word(index)] >> (index % 64) & 1 == 1
    }

    fn set(&mut self, index: u64) {
        self.0[word(index)] |= 1 << (index % 64);
    }

    fn clear(&mut self, index: u64) {
        self.0[word(index)] &= !(1 << (index % 64));
    }

    /// Sets or clears the indices from `start` to before `end`.
    fn put(&mut self, start: u64, end: u64, value: bool) {
        for index in start.max(end.saturating_sub(REMEMBERED))..end {
            if value { self.set(index) } else { self.clear(index) }
        }
    }
}

/// Indices that were left out: how many in all, and which of the last [`REMEMBERED`].
#[derive(Debug, Default)]
struct LeftOut {
    count: u64,
    bits: Bits,
}

impl LeftOut {
    fn add(&mut self, index: u64) {
        self.bits.set(index);
        self.count += 1;
    }

    /// How many there are from `start` to before `end`: at most [`REMEMBERED`], all of them remembered.
    fn within(&self, start: u64, end: u64) -> u64 {
        let (mut at, mut count) = (start, 0);
        while at < end {
            let len = (64 - at % 64).min(end - at);
            let bits = self.bits.0[word(at)] >> (at % 64) & (u64::MAX >> (64 - len));
            count += u64::from(bits.count_ones());
            at += len;
        }
        count
    }

    /// How many there are before `index`, where all below `decided` are known to be some or not; `None` if that is too long ago.
    fn before(&self, index: u64, decided: u64) -> Option<u64> {
        if index >= decided || self.count == 0 {
            return Some(self.count);
        }
        (decided - index <= REMEMBERED).then(|| self.count - self.within(index, decided))
    }

    /// The `behind`-th last of those from `first` to before `decided` that were not left out.
    fn given_behind(&self, behind: u64, first: u64, decided: u64) -> Option<u64> {
        if self.count == 0 {
            return decided.checked_sub(behind).filter(|index| *index >= first);
        }
        let lowest = first.max(decided.saturating_sub(REMEMBERED));
        let (mut end, mut left) = (decided, behind);
        while end > lowest {
            let start = ((end - 1) / 64 * 64).max(lowest);
            let given = end - start - self.within(start, end);
            if given >= left {
                let mut newest_first = (start..end).rev().filter(|index| !self.bits.has(*index));
                return newest_first.nth(left.checked_sub(1)? as usize);
            }
            left -= given;
            end = start;
        }
        None
    }
}

fn word(index: u64) -> usize {
    (index % REMEMBERED / 64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The bitmap against a list of all indices, over several times its length.
        #[test]
        fn what_was_left_out_is_counted_as_a_list_would(
            first in 0_u64..1 << 40,
            steps in prop::collection::vec((0_u64..3, 1_usize..200), 1..60),
            asked in prop::collection::vec((0_usize..10_000, 0_u64..4000), 20),
        ) {
            let (mut left_out, mut list) = (LeftOut::default(), Vec::new());
            for (kind, count) in steps {
                for n in 0..count {
                    let index = first + list.len() as u64;
                    let is_left_out = match kind { 0 => false, 1 => true, _ => n % 3 == 0 };
                    left_out.bits.put(index, index + 1, false);
                    if is_left_out {
                        left_out.add(index);
                    }
                    list.push(is_left_out);
                }
            }
            let decided = first + list.len() as u64;
            for (at, behind) in asked {
                let at = at % list.len();
                let (index, known) = (first + at as u64, list.len() - at <= REMEMBERED as usize || left_out.count == 0);
                let before = list[..at].iter().filter(|out| **out).count() as u64;
                prop_assert_eq!(left_out.before(index, decided), known.then_some(before));
                let found = left_out.given_behind(behind + 1, first, decided);
                let given = (first..decided).rev().filter(|index| !list[(index - first) as usize]);
                let expected = given.clone().nth(behind as usize);
                prop_assert!(found == expected || found.is_none() && expected.is_none_or(|index| decided - index > REMEMBERED));
            }
        }
    }
}

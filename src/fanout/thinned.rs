//! Which packets of a track a player is not given, and what its numbers are without them.

use crate::media::Packet;

/// Indices of which it is known whether they were left out: at 2.5 Mbit/s those of eight seconds.
const REMEMBERED: u64 = 2048;
const WORDS: usize = REMEMBERED as usize / 64;

/// Pictures that are remembered: those of a second, after which nothing comes any more that was missing.
const PICTURES: usize = 32;

/// Of so many pictures one at least has all layers.
const LATELY: usize = 8;

/// The highest temporal layer of a player that gets every one.
pub const ALL_TEMPORAL_LAYERS: u8 = u8::MAX;

/// The highest spatial layer of a player that gets every one.
pub const ALL_SPATIAL_LAYERS: u8 = u8::MAX;

/// The highest layers of a track that a player gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Highest {
    /// [`ALL_SPATIAL_LAYERS`] for all.
    pub spatial: u8,
    /// [`ALL_TEMPORAL_LAYERS`] for all.
    pub temporal: u8,
}

impl Highest {
    /// Of a player that gets the track as it comes.
    pub const ALL: Self = Self { spatial: ALL_SPATIAL_LAYERS, temporal: ALL_TEMPORAL_LAYERS };

    /// All spatial layers, and the temporal ones up to this one.
    pub const fn temporal(temporal: u8) -> Self {
        Self { temporal, ..Self::ALL }
    }

    const fn has(self, spatial: u8, temporal: u8) -> bool {
        spatial <= self.spatial && temporal <= self.temporal
    }
}

/// What a player lacks that it is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacked {
    /// Temporal layers alone.
    TemporalLayers,
    /// Spatial layers, to which hardly any frame but a keyframe lets in.
    SpatialLayers,
}

/// What became of a packet at the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Given {
        /// It is the last that the player is given of its picture.
        ends_picture: bool,
    },
    LeftOut {
        /// It is the first of a picture of which nothing is given.
        begins_picture: bool,
        /// Of its picture nothing more is given.
        is_over: bool,
    },
}

/// A player that does not get every layer of its track, or did not on its present line of numbers.
///
/// # Layer frames, not packets
/// A picture has a frame of each of its spatial layers. The first packet of such a layer frame decides about all of it, whatever the
/// others say of themselves: those that come late, and the first one if that does. What a player gets changes where a picture begins,
/// and only if no packet is missing just before. To fewer layers at any picture, since no lower layer refers to a higher one; to
/// more at a frame that says so ([`Climb`](crate::media::Climb), [`spatial_switch`](crate::media::PayloadFacts::spatial_switch)),
/// which may be that of an upper spatial layer, as long as the player has all of the picture before it.
///
/// # Where a picture ends
/// The RTP marker stands on the last packet of a picture: of AV1 "if the packet is not the last packet of the temporal unit" it MUST
/// be 0 (RTP Payload Format For AV1 §4.2), and a receiver shows no picture before its end. So who is not given the upper
/// spatial layers gets it on the last packet of the highest that it is given. Which packets those are is remembered, since a
/// repetition has to say the same.
///
/// # What is missing at the cursor
/// keeps its number, as it may be of a layer that the player gets. If it comes late and is of a frame that the player
/// does not get, its number is filled by a packet with nothing in it: receivers count that as come. Left open, it would
/// be asked for again and again, and Chromium decodes nothing of H.264 behind a missing number. Of a frame of which
/// nothing was there, the packet that comes first decides, by its own layers and what the player got then.
#[derive(Debug)]
pub(super) struct Thinned {
    /// The highest layers that it is to get.
    wanted: Highest,
    /// The highest that it gets.
    current: Highest,
    /// What is below had nothing left out.
    start: u64,
    /// The fate of what is below is decided.
    decided: u64,
    /// The packet just below `decided` was there at its turn.
    follows: bool,
    packets: LeftOut,
    /// The first packets of pictures of which nothing was given.
    pictures: LeftOut,
    /// What was missing at its turn and has not been given since.
    missing: Bits,
    /// What ends a picture for the player.
    ends: Bits,
    /// The picture at the cursor.
    picture: Option<Picture>,
    recent: Recent,
}

/// What became of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Picture {
    /// Its first packet that was there.
    first: u64,
    timestamp: u32,
    /// The spatial layers whose frames are decided about, a bit for each, and those that are left out.
    decided: u8,
    left_out: u8,
    /// The last packet that the player is given of it was given.
    is_closed: bool,
    /// The highest layers that the player got behind its last packet.
    highest: Highest,
}

impl Thinned {
    /// Of a player that has got all below `cursor` and has had packets of the picture with this timestamp.
    pub(super) fn new(cursor: u64, timestamp: Option<u32>) -> Self {
        Self::with(cursor, timestamp, Highest::ALL)
    }

    fn with(cursor: u64, timestamp: Option<u32>, current: Highest) -> Self {
        let picture = timestamp.map(|timestamp| Picture::new(cursor, timestamp, current));
        Self {
            wanted: Highest::ALL,
            current,
            start: cursor,
            decided: cursor,
            follows: false,
            packets: LeftOut::default(),
            pictures: LeftOut::default(),
            missing: Bits::default(),
            ends: Bits::default(),
            picture,
            recent: Recent::new(picture),
        }
    }

    /// The highest layers that the player is to get.
    pub(super) fn wanted(&self) -> Highest {
        self.wanted
    }

    /// It is to get the layers up to these.
    pub(super) fn want(&mut self, highest: Highest) {
        self.wanted = highest;
    }

    /// Whether frames are left out that it is to get, since none has let it in yet.
    pub(super) fn lacks(&self) -> Option<Lacked> {
        let (wanted, current) = (self.wanted, self.current);
        let had = up_to(current.spatial);
        if wanted.spatial > current.spatial && self.recent.leaves_out(up_to(wanted.spatial) & !had) {
            return Some(Lacked::SpatialLayers);
        }
        let is_lower = wanted.temporal > current.temporal && self.recent.leaves_out(up_to(wanted.spatial) & had);
        is_lower.then_some(Lacked::TemporalLayers)
    }

    /// A line of numbers begins with this packet, whose temporal layer is given whatever it is; what was left out before is over.
    /// A line begins with a keyframe, of which any spatial layers can be left out.
    pub(super) fn begin(&mut self, first: &Packet) {
        let current = Highest { spatial: self.wanted.spatial, ..Highest::ALL };
        *self = Self { wanted: self.wanted, ..Self::with(first.index, Some(first.timestamp), current) };
    }

    /// Decides about the packet at the cursor.
    pub(super) fn decide(&mut self, packet: &Packet) -> Fate {
        let follows = self.follows && packet.index == self.decided;
        self.pass(packet.index + 1);
        self.missing.clear(packet.index);
        self.follows = true;
        // Padding is of no picture.
        if packet.payload().is_empty() {
            return Fate::Given { ends_picture: packet.marker };
        }
        let begun = self.picture.filter(|picture| picture.timestamp == packet.timestamp);
        // A packet of it may have come late, before any at the cursor.
        let known = begun.or_else(|| self.recent.find(packet.timestamp));
        if known.is_none() && follows {
            self.turn(packet);
        }
        let new = || Picture::new(packet.index, packet.timestamp, self.current);
        let mut picture = known.unwrap_or_else(new);
        if begun.is_some() && picture.lets_in(packet) {
            // What lets others in may stand in an upper spatial layer, or behind parameter sets.
            self.climb(packet, !picture.is_closed);
            picture.highest = self.current;
        }
        let is_given = picture.settle(packet);
        let ends_picture = is_given && picture.is_ended_by(packet);
        picture.is_closed |= ends_picture;
        if known != Some(picture) {
            self.recent.keep(picture);
        }
        self.picture = Some(picture);
        if is_given {
            if ends_picture {
                self.ends.set(packet.index);
            }
            return Fate::Given { ends_picture };
        }
        self.packets.add(packet.index);
        // What is left out for its spatial layer alone leaves a picture.
        let highest = picture.highest;
        let leaves_nothing =
            spatial_layer_of(packet) <= highest.spatial || temporal_layer_of(packet) > highest.temporal;
        let begins_picture = begun.is_none() && leaves_nothing;
        if begins_picture {
            self.pictures.add(packet.index);
        }
        Fate::LeftOut { begins_picture, is_over: picture.is_closed || packet.marker }
    }

    /// What is below `end` and is not decided about was missing at its turn.
    pub(super) fn pass(&mut self, end: u64) {
        if end > self.decided {
            self.packets.bits.put(self.decided, end, false);
            self.pictures.bits.put(self.decided, end, false);
            self.missing.put(self.decided, end, true);
            self.ends.put(self.decided, end, false);
            self.decided = end;
            self.follows = false;
        }
    }

    /// A picture begins with this packet.
    fn turn(&mut self, packet: &Packet) {
        self.current.spatial = self.current.spatial.min(self.wanted.spatial);
        self.current.temporal = self.current.temporal.min(self.wanted.temporal);
        self.climb(packet, true);
    }

    /// More layers, if the packet's frame lets the player in. More spatial ones only before the picture's end: where that is cannot
    /// be said again.
    fn climb(&mut self, packet: &Packet, is_open: bool) {
        let facts = &packet.facts;
        if facts.keyframe {
            self.current.temporal = self.current.temporal.max(self.wanted.temporal);
        } else if let Some(climb) = facts.climb.filter(|climb| climb.needs <= self.current.temporal)
            && let Some(reaches) = climb.reaches_with(self.current.spatial)
        {
            self.current.temporal = self.current.temporal.max(reaches.min(self.wanted.temporal));
        }
        if self.wanted.spatial <= self.current.spatial || !is_open {
            return;
        }
        let is_decodable = self.current.has(spatial_layer_of(packet), temporal_layer_of(packet));
        let lets_up_to = match facts.keyframe {
            true => u8::MAX,
            false if is_decodable => facts.spatial_switch,
            false => 0,
        };
        let above = lets_up_to & up_to(self.wanted.spatial) & !up_to(self.current.spatial);
        if let Some(highest) = above.checked_ilog2() {
            let is_all = up_to(self.wanted.spatial) >> highest == 1;
            self.current.spatial = if is_all { self.wanted.spatial } else { highest as u8 };
        }
    }

    /// How many packets of the line were left out before this one; `None` if it was itself, and if that is not known any more.
    pub(super) fn packets_before(&self, index: u64) -> Option<u64> {
        self.packets.before(index, self.decided).filter(|_| !self.has_left_out(index))
    }

    fn has_left_out(&self, index: u64) -> bool {
        index < self.decided && index + REMEMBERED >= self.decided && self.packets.bits.has(index)
    }

    /// Whether all of the picture of this packet was left out, if it is not too long ago.
    pub(super) fn has_left_out_picture(&self, index: u64) -> bool {
        self.has_left_out(index) && self.recent.at(index).is_none_or(|picture| picture.decided == picture.left_out)
    }

    /// How many pictures of the line were left out before this packet's, of which [`Thinned::packets_before`] is known.
    pub(super) fn pictures_before(&self, index: u64) -> u64 {
        self.pictures.before(index, self.decided).unwrap_or(0)
    }

    /// How many pictures of the line were left out so far.
    pub(super) fn pictures(&self) -> u64 {
        self.pictures.count
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
            Some(picture) => Some(!picture.gives(packet)),
            None => {
                let highest = self.recent.at(index)?.highest;
                Some(!highest.has(spatial_layer_of(packet), temporal_layer_of(packet)))
            }
        }
    }

    /// The marker of a packet that is given and is known.
    pub(super) fn ends_picture(&self, packet: &Packet) -> bool {
        if packet.index < self.start || packet.payload().is_empty() {
            return packet.marker;
        }
        self.ends.has(packet.index)
    }

    /// A packet that has a number, below the cursor, is given now, or its number alone: see [`Thinned::is_hollow`].
    pub(super) fn give_late(&mut self, packet: &Packet, cursor: u64) -> Option<bool> {
        self.pass(cursor);
        let is_hollow = self.is_hollow(packet)?;
        if packet.index < self.start || !self.missing.has(packet.index) {
            return Some(is_hollow);
        }
        if !packet.payload().is_empty() {
            let known = self.recent.find(packet.timestamp);
            let mut picture = match known {
                Some(picture) => picture,
                None => Picture::new(packet.index, packet.timestamp, self.recent.at(packet.index)?.highest),
            };
            if picture.settle(packet) && picture.is_ended_by(packet) {
                picture.is_closed = true;
                self.ends.set(packet.index);
            }
            if known != Some(picture) {
                self.recent.keep(picture);
            }
            if let Some(at_cursor) = self.picture.as_mut().filter(|other| other.timestamp == picture.timestamp) {
                *at_cursor = picture;
            }
        }
        if !is_hollow {
            self.missing.clear(packet.index);
        }
        Some(is_hollow)
    }
}

impl Picture {
    /// Of which nothing is decided, where the player gets the layers up to `highest`.
    fn new(first: u64, timestamp: u32, highest: Highest) -> Self {
        Self { first, timestamp, decided: 0, left_out: 0, is_closed: false, highest }
    }

    /// Whether the player gets what is in a packet of it.
    fn gives(&self, packet: &Packet) -> bool {
        let layer = bit(spatial_layer_of(packet));
        match self.decided & layer {
            0 => self.highest.has(spatial_layer_of(packet), temporal_layer_of(packet)),
            _ => self.left_out & layer == 0,
        }
    }

    /// The same, and so it is for all of its layer frame.
    fn settle(&mut self, packet: &Packet) -> bool {
        let (layer, is_given) = (bit(spatial_layer_of(packet)), self.gives(packet));
        self.decided |= layer;
        self.left_out |= if is_given { 0 } else { layer };
        is_given
    }

    /// Whether the packet is of a frame that the player gets, and so is all of the picture before it.
    fn lets_in(&self, packet: &Packet) -> bool {
        self.left_out == 0 && self.gives(packet)
    }

    /// Whether the packet, which is given, is the last that is.
    fn is_ended_by(&self, packet: &Packet) -> bool {
        packet.marker || packet.facts.ends_layer_frame && spatial_layer_of(packet) == self.highest.spatial
    }
}

/// The temporal layer of a packet. What names none is in every layer.
fn temporal_layer_of(packet: &Packet) -> u8 {
    packet.facts.temporal_layer.unwrap_or(0)
}

/// The spatial layer likewise.
fn spatial_layer_of(packet: &Packet) -> u8 {
    packet.facts.spatial_layer.unwrap_or(0)
}

/// A spatial layer in a set of them. Payloads name eight at most.
fn bit(spatial: u8) -> u8 {
    1 << spatial.min(7)
}

/// The spatial layers up to this one.
fn up_to(spatial: u8) -> u8 {
    u8::MAX >> (7 - spatial.min(7))
}

/// The pictures that were decided about last, the latest last.
#[derive(Debug)]
struct Recent {
    all: [Picture; PICTURES],
    count: usize,
    /// From here on no picture is forgotten.
    known_from: u64,
}

impl Recent {
    fn new(picture: Option<Picture>) -> Self {
        let first = picture.unwrap_or(Picture::new(0, 0, Highest::ALL));
        Self { all: [first; PICTURES], count: usize::from(picture.is_some()), known_from: first.first }
    }

    /// Takes a new picture, or what has changed of a known one.
    fn keep(&mut self, picture: Picture) {
        let known = self.all[..self.count].iter_mut().rev().find(|known| known.timestamp == picture.timestamp);
        if let Some(known) = known {
            *known = picture;
            return;
        }
        if self.count == PICTURES {
            let gone = self.all[0].first;
            self.all.rotate_left(1);
            self.count -= 1;
            // Packets from that of the picture that is gone to the next one may be of the one that is gone.
            let next = self.known().map(|picture| picture.first).filter(|first| *first > gone).min();
            self.known_from = self.known_from.max(next.unwrap_or(picture.first));
        }
        self.all[self.count] = picture;
        self.count += 1;
    }

    fn known(&self) -> impl DoubleEndedIterator<Item = &Picture> {
        self.all[..self.count].iter()
    }

    fn find(&self, timestamp: u32) -> Option<Picture> {
        self.known().rev().find(|picture| picture.timestamp == timestamp).copied()
    }

    /// The picture that `index` is behind, of which a packet there is, if it is of any. What the player gets does not change behind a
    /// missing packet.
    fn at(&self, index: u64) -> Option<&Picture> {
        self.known()
            .filter(|picture| picture.first <= index && index >= self.known_from)
            .max_by_key(|picture| picture.first)
    }

    /// Whether of one of the last pictures the frame of one of these spatial layers was left out.
    fn leaves_out(&self, layers: u8) -> bool {
        self.known().rev().take(LATELY).any(|picture| picture.left_out & layers != 0)
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

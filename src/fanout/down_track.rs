//! One track on its way to one player: position, numbering, retransmission.

use crate::media::{Codec, MAX_PAYLOAD, Packet};
use crate::rtc::TransportAddress;
use crate::rtc::srtp::RtpSealer;

use super::layout::{LaidOut, MAX_DATAGRAM};
use super::send_batch::{SendBatch, TrafficClass};
use super::shift::{Numbers, Shift};
use super::thinned::{Fate, Highest, Lacked, Thinned};

/// Where a player's first sequence number may lie: below 2¹⁵ at rollover counter 0, so that a loss around an early wrap
/// cannot leave the receiver one rollover behind (RFC 3711 §3.3.1).
pub const FIRST_SEQUENCE_LIMIT: u16 = 1 << 15;

/// RTX parameters of a player (RFC 4588).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtx {
    /// Its payload type.
    pub payload_type: u8,
    /// Its SSRC.
    pub ssrc: u32,
}

/// A player's view of a track.
///
/// # Why no nonce repeats
///
/// An AES-GCM nonce is (SSRC, extended sequence number) under the player's own key (RFC 7714 §8.1), and one nonce over
/// two plaintexts or headers gives away the authentication key. Here the extended number is
/// `index − first index + first number`: a bijection from ring indices, which the timeline never reuses; a new epoch of
/// the source, and another layer, takes the numbers from above all that were sent, late ones included. A packet is sealed on the media SSRC once: when the
/// cursor passes its index, or, if it was missing then, when it arrives late (the ring takes an index only once). Every
/// repetition goes out on the RTX SSRC under a number of its own.
///
/// Packets that the player is not given take no number, since a gap is a loss to a receiver: those that were left out before an
/// index are taken off its number (`Thinned`). What is left out is decided as the cursor passes, once, and never sent later.
/// So of the packets that are given each has a number above that of the one before, late ones in the places that were kept for
/// them. Of an index so old that it is not known any more how many were left out before it, nothing is sent or repeated.
#[derive(Debug)]
pub struct DownTrack {
    /// Which of the table's header classes.
    pub class: usize,
    /// How datagrams of this track are marked.
    pub traffic: TrafficClass,
    rtx: Option<Rtx>,
    /// The number of the next packet that begins a line: the first of all, or the first of an epoch.
    next_line: u64,
    line: Option<Line>,
    cursor: Option<u64>,
    /// Of a player that is given the layer otherwise than it comes.
    altered: Option<Box<Altered>>,
    newest: Option<Newest>,
    next_rtx_number: u64,
    packets_sent: u32,
    octets_sent: u32,
}

/// What few players have.
#[derive(Debug, Default)]
struct Altered {
    /// Where the player had another layer before.
    shift: Option<Shift>,
    /// Where it does not get all of the layer.
    thinned: Option<Box<Thinned>>,
}

/// The packet that the cursor passed last, sent or left out.
#[derive(Clone, Copy, Debug)]
struct Newest {
    /// Its layer's timestamp.
    timestamp: u32,
    /// It ended its picture, as the player has that.
    marker: bool,
}

/// A line of numbers without a break: one epoch of the source, as this player sees it.
#[derive(Clone, Copy, Debug)]
struct Line {
    epoch: u32,
    first_index: u64,
    first_number: u64,
}

impl DownTrack {
    /// A track that has not started. `seed` sets the first sequence numbers.
    pub fn new(class: usize, traffic: TrafficClass, rtx: Option<Rtx>, seed: u32) -> Self {
        Self {
            class,
            traffic,
            rtx,
            next_line: u64::from(seed as u16 % FIRST_SEQUENCE_LIMIT),
            line: None,
            cursor: None,
            altered: None,
            newest: None,
            next_rtx_number: u64::from((seed >> 16) as u16 % FIRST_SEQUENCE_LIMIT),
            packets_sent: 0,
            octets_sent: 0,
        }
    }

    /// Begins at `index`, or goes on from there if that is ahead.
    pub fn join_at(&mut self, index: u64) {
        self.cursor = self.cursor.max(Some(index));
    }

    /// The index that is sent next; `None` before the start.
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// Moves over indices that have no packet: the player sees a gap in the numbers.
    pub fn skip_to(&mut self, index: u64) {
        if let Some(cursor) = &mut self.cursor {
            *cursor = index.max(*cursor);
        }
    }

    /// Goes on with another layer of the picture, at `first`, which a keyframe begins with. `at` is the timestamp that the
    /// layer before has at that time, `last` a packet of its last frame that was sent.
    ///
    /// The cursor is the new layer's from now on, and whatever is missing of the old one stays so: its numbers are over.
    pub fn switch_layer(&mut self, codec: Codec, first: &Packet, at: u32, last: Option<&Packet>) {
        if let Some(newest) = self.newest {
            let before = self.shift().map(|shift| *shift.numbers()).unwrap_or_default();
            // Also where `last` was left out itself: the player has had the picture before.
            let left_out = self.thinned().map_or(0, Thinned::pictures);
            let numbers = last.map(|last| Numbers::following(codec, last, &before.without(left_out), first));
            let numbers = numbers.unwrap_or_default();
            let (at, newest) = (self.timestamp(at), self.timestamp(newest.timestamp));
            let shift = Shift::new(first.timestamp, at, newest, numbers);
            self.altered.get_or_insert_default().shift = Some(shift);
        }
        self.line = None;
        self.cursor = Some(first.index);
        self.count_pictures(codec);
    }

    /// Gives the player the layers up to `highest` from where that may change on: fewer from the next picture, more from the next frame
    /// that lets in who has fewer ([`PayloadFacts`](crate::media::PayloadFacts)).
    pub fn thin(&mut self, codec: Codec, highest: Highest) {
        if self.highest() == highest {
            return;
        }
        let (cursor, newest) = (self.cursor.unwrap_or(0), self.newest_timestamp());
        let altered = self.altered.get_or_insert_default();
        altered.thinned.get_or_insert_with(|| Box::new(Thinned::new(cursor, newest))).want(highest);
        self.count_pictures(codec);
    }

    /// The highest layers that the player is to get.
    pub fn highest(&self) -> Highest {
        self.thinned().map_or(Highest::ALL, Thinned::wanted)
    }

    /// What it lacks of the layers that it is to get, as no frame has let it in yet.
    pub fn lacks(&self) -> Option<Lacked> {
        self.thinned().and_then(Thinned::lacks)
    }

    /// A receiver of VP8 waits for picture ids that are missing: of a thinned player they are looked at.
    fn count_pictures(&mut self, codec: Codec) {
        if let Some(altered) = self.altered.as_mut().filter(|altered| codec == Codec::Vp8 && altered.thinned.is_some())
        {
            altered.shift.get_or_insert_with(Shift::of_vp8).look_at_vp8();
        }
    }

    fn shift(&self) -> Option<&Shift> {
        self.altered.as_ref()?.shift.as_ref()
    }

    fn thinned(&self) -> Option<&Thinned> {
        self.altered.as_ref()?.thinned.as_deref()
    }

    /// Forgets where it was to begin, as long as nothing was sent.
    pub fn restart(&mut self) {
        if self.newest.is_none() {
            self.cursor = None;
        }
    }

    /// The timestamp that the player is given for one of the layer's.
    pub fn timestamp(&self, timestamp: u32) -> u32 {
        self.shift().map_or(timestamp, |shift| shift.timestamp(timestamp))
    }

    /// The layer's timestamp of the packet that was sent last in order; `None` before the first.
    pub fn newest_timestamp(&self) -> Option<u32> {
        self.newest.map(|newest| newest.timestamp)
    }

    /// Whether what was sent so far ends with a frame's end.
    pub fn is_between_frames(&self) -> bool {
        self.newest.is_none_or(|newest| newest.marker)
    }

    /// Whether packets of `epoch` would begin a new line: the source has changed since this player's last packet.
    pub fn is_before_epoch(&self, epoch: u32) -> bool {
        self.line.is_some_and(|line| line.epoch != epoch)
    }

    /// Whether the cursor has passed `packet` without sending it, so that it may still be sent once.
    pub fn wants_late(&self, packet: &Packet) -> bool {
        let is_known = self.thinned().is_none_or(|thinned| thinned.is_hollow(packet).is_some());
        is_known && self.number_of(packet).is_some() && self.cursor.is_some_and(|cursor| packet.index < cursor)
    }

    /// Seals the packet at the cursor, unless it is to be left out, and moves on. A packet the cursor has passed is refused.
    /// Returns whether it begins a picture of which nothing is given.
    pub fn send_next(
        &mut self,
        packet: &Packet,
        laid_out: LaidOut<'_>,
        transport_number: &mut u16,
        egress: (&RtpSealer, TransportAddress),
        batch: &mut SendBatch,
    ) -> bool {
        if self.cursor.is_none_or(|cursor| packet.index < cursor) {
            debug_assert!(false, "packet {} behind the cursor", packet.index);
            return false;
        }
        if self.line.is_none_or(|line| line.epoch != packet.epoch) {
            self.begin_line(packet);
        }
        self.cursor = Some(packet.index + 1);
        let mut marker = packet.marker;
        if let Some(thinned) = self.altered.as_mut().and_then(|altered| altered.thinned.as_mut()) {
            match thinned.decide(packet) {
                Fate::Given { ends_picture } => marker = ends_picture,
                Fate::LeftOut { begins_picture, is_over } => {
                    self.newest = Some(Newest { timestamp: packet.timestamp, marker: is_over });
                    return begins_picture;
                }
            }
        }
        if let Some(number) = self.number_of(packet) {
            self.next_line = number + 1;
        }
        if let Some(shift) = self.altered.as_mut().and_then(|altered| altered.shift.as_mut()) {
            shift.go_on(packet.timestamp);
        }
        self.newest = Some(Newest { timestamp: packet.timestamp, marker });
        self.seal(packet, laid_out, transport_number, egress, batch);
        false
    }

    fn begin_line(&mut self, first: &Packet) {
        self.line = Some(Line { epoch: first.epoch, first_index: first.index, first_number: self.next_line });
        let Some(altered) = &mut self.altered else { return };
        // Who is to get all again has nothing left out from here on.
        altered.thinned.take_if(|thinned| thinned.wanted() == Highest::ALL);
        if let Some(thinned) = &mut altered.thinned {
            thinned.begin(first);
        }
    }

    /// Seals a packet that arrived after the cursor had passed it; the caller has asked [`DownTrack::wants_late`]. Of one that the
    /// player would not have been given, the number alone goes out.
    pub fn send_late(
        &mut self,
        packet: &Packet,
        laid_out: LaidOut<'_>,
        transport_number: &mut u16,
        egress: (&RtpSealer, TransportAddress),
        batch: &mut SendBatch,
    ) {
        // The cursor may have passed it with nothing sent behind it: the next line begins above it all the same.
        if let Some(number) = self.number_of(packet) {
            self.next_line = self.next_line.max(number + 1);
        }
        self.give_late(packet);
        self.seal(packet, laid_out, transport_number, egress, batch);
    }

    fn seal(
        &mut self,
        packet: &Packet,
        laid_out: LaidOut<'_>,
        transport_number: &mut u16,
        (sealer, destination): (&RtpSealer, TransportAddress),
        batch: &mut SendBatch,
    ) {
        let Some(number) = self.number_of(packet) else { return };
        let Some(content) = self.content(packet, laid_out.payload_offset) else { return };
        let (payload, altered) = (content.payload, self.altered.as_deref());
        self.packets_sent = self.packets_sent.wrapping_add(1);
        self.octets_sent = self.octets_sent.wrapping_add(payload.len() as u32);
        batch.push(destination, self.traffic, MAX_DATAGRAM, |out| {
            let len = laid_out.header.len();
            out[..len].copy_from_slice(laid_out.header);
            out[2..4].copy_from_slice(&(number as u16).to_be_bytes());
            if let Some(at) = laid_out.transport_cc {
                out[at..at + 2].copy_from_slice(&transport_number.to_be_bytes());
                *transport_number = transport_number.wrapping_add(1);
            }
            let rollover = (number >> 16) as u32;
            match altered {
                None => sealer.seal(rollover, out, len, payload, laid_out.padding),
                Some(altered) => altered.seal(sealer, (rollover, len, laid_out), out, &content),
            }
        });
    }

    /// Whether the player was given what this packet carries, as far as that is known, if the cursor has passed it and it was there.
    pub fn has_given(&self, packet: &Packet) -> bool {
        let is_hollow = self.thinned().map(|thinned| thinned.is_hollow(packet));
        is_hollow.is_none_or(|hollow| hollow == Some(false)) && self.number_of(packet).is_some()
    }

    /// Whether all of the picture of the packet at `index` was left out, as far as that is known.
    pub fn has_left_out_picture(&self, index: u64) -> bool {
        self.thinned().is_some_and(|thinned| thinned.has_left_out_picture(index))
    }

    /// Whether the player takes repetitions.
    pub fn has_rtx(&self) -> bool {
        self.rtx.is_some()
    }

    /// Sends `packet` again on RTX (RFC 4588 §4): its own SSRC, payload type and numbers; the payload is the original
    /// sequence number and the original payload. `false` where the player has no RTX.
    pub fn retransmit(
        &mut self,
        packet: &Packet,
        laid_out: LaidOut<'_>,
        transport_number: &mut u16,
        (sealer, destination): (&RtpSealer, TransportAddress),
        batch: &mut SendBatch,
    ) -> bool {
        let (Some(rtx), Some(original)) = (self.rtx, self.number_of(packet)) else { return false };
        self.give_late(packet);
        let Some(content) = self.content(packet, laid_out.payload_offset) else { return false };
        let (number, altered) = (self.next_rtx_number, self.altered.as_deref());
        self.next_rtx_number += 1;
        batch.push(destination, self.traffic, MAX_DATAGRAM + 2, |out| {
            let len = laid_out.header.len();
            out[..len].copy_from_slice(laid_out.header);
            // The class may have asked for padding; the repetition carries none.
            out[0] &= !0x20;
            out[1] = out[1] & 0x80 | rtx.payload_type;
            out[2..4].copy_from_slice(&(number as u16).to_be_bytes());
            out[8..12].copy_from_slice(&rtx.ssrc.to_be_bytes());
            if let Some(at) = laid_out.transport_cc {
                out[at..at + 2].copy_from_slice(&transport_number.to_be_bytes());
                *transport_number = transport_number.wrapping_add(1);
            }
            let mut payload = [0; 2 + MAX_PAYLOAD];
            let payload_len = 2 + content.payload.len();
            payload[..2].copy_from_slice(&(original as u16).to_be_bytes());
            payload[2..payload_len].copy_from_slice(content.payload);
            if let Some(altered) = altered {
                altered.apply(out, laid_out.descriptor, &content);
                altered.apply_to_payload(&mut payload[2..payload_len], &content);
            }
            sealer.seal((number >> 16) as u32, out, len, &payload[..payload_len], &[])
        });
        true
    }

    /// The ring index of a sequence number that the player names in a NACK: the newest one sent with these 16 bits, if
    /// it is of the source's present epoch.
    pub fn index_of(&self, sequence_number: u16) -> Option<u64> {
        let line = self.line?;
        let newest = self.next_line.checked_sub(1)?;
        let behind = (newest as u16).wrapping_sub(sequence_number);
        let number = newest.checked_sub(u64::from(behind))?;
        let nth = number.checked_sub(line.first_number)?;
        let Some(thinned) = self.thinned() else { return Some(nth + line.first_index) };
        match thinned.numbers_since(line.first_index).checked_sub(nth) {
            Some(behind) if behind > 0 => thinned.index_behind(behind, line.first_index),
            // A late packet may have the number of an index about which the cursor has still to decide.
            _ => Some(nth + line.first_index + thinned.packets()),
        }
    }

    /// Packets and payload octets sent on the media SSRC, for the sender report (RFC 3550 §6.4.1).
    pub fn sent(&self) -> (u32, u32) {
        (self.packets_sent, self.octets_sent)
    }

    /// What a packet carries that was missing at its turn is decided once.
    fn give_late(&mut self, packet: &Packet) {
        let cursor = self.cursor.unwrap_or(0);
        if let Some(thinned) = self.altered.as_mut().and_then(|altered| altered.thinned.as_mut()) {
            thinned.give_late(packet, cursor);
        }
    }

    fn number_of(&self, packet: &Packet) -> Option<u64> {
        let line = self.line.filter(|line| line.epoch == packet.epoch)?;
        let nth = packet.index.checked_sub(line.first_index)?;
        match self.thinned() {
            None => Some(nth + line.first_number),
            Some(thinned) => Some(nth + line.first_number - thinned.packets_before(packet.index)?),
        }
    }

    /// What goes out under a packet's number: what it carries from `offset` on, or nothing. `None` if that is not known any more.
    fn content<'p>(&self, packet: &'p Packet, offset: usize) -> Option<Content<'p>> {
        let payload = &packet.payload()[offset..];
        let Some(thinned) = self.thinned() else {
            return Some(Content { payload, left_out: 0, marker: packet.marker });
        };
        let left_out = thinned.pictures_before(packet.index);
        Some(match thinned.is_hollow(packet)? {
            true => Content { payload: &[], left_out, marker: false },
            false => Content { payload, left_out, marker: thinned.ends_picture(packet) },
        })
    }
}

/// What goes out under a number.
#[derive(Clone, Copy, Debug)]
struct Content<'p> {
    payload: &'p [u8],
    /// How many pictures were left out before it.
    left_out: u64,
    marker: bool,
}

impl Altered {
    /// Out of the way of the many whose packets go out as they are.
    #[inline(never)]
    fn seal(
        &self,
        sealer: &RtpSealer,
        (rollover, header_len, laid_out): (u32, usize, LaidOut<'_>),
        out: &mut [u8],
        content: &Content<'_>,
    ) -> usize {
        self.apply(out, laid_out.descriptor, content);
        if !self.shift.as_ref().is_some_and(Shift::changes_payload) {
            return sealer.seal(rollover, out, header_len, content.payload, laid_out.padding);
        }
        let mut copy = [0; MAX_PAYLOAD];
        let copy = &mut copy[..content.payload.len()];
        copy.copy_from_slice(content.payload);
        self.apply_to_payload(copy, content);
        sealer.seal(rollover, out, header_len, copy, laid_out.padding)
    }

    /// Writes into a header what it says otherwise than the layer's. Before the seal, which protects it.
    fn apply(&self, header: &mut [u8], descriptor: u8, content: &Content<'_>) {
        header[1] = header[1] & 0x7f | u8::from(content.marker) << 7;
        if let Some(shift) = &self.shift {
            shift.apply(header, descriptor);
        }
    }

    fn apply_to_payload(&self, payload: &mut [u8], content: &Content<'_>) {
        if let Some(shift) = &self.shift {
            shift.apply_to_payload(payload, content.left_out);
        }
    }
}

#[cfg(test)]
mod tests;

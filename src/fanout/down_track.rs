//! One track on its way to one player: position, numbering, retransmission.

use std::net::SocketAddr;

use crate::media::Packet;
use crate::rtc::srtp::RtpSealer;

use super::layout::{LaidOut, MAX_DATAGRAM};
use super::send_batch::{SendBatch, TrafficClass};

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
/// the source takes the numbers from where the last one stopped. A packet is sealed on the media SSRC once: when the
/// cursor passes its index, or, if it was missing then, when it arrives late (the ring takes an index only once). Every
/// repetition goes out on the RTX SSRC under a number of its own.
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
    next_rtx_number: u64,
    packets_sent: u32,
    octets_sent: u32,
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

    /// Whether packets of `epoch` would begin a new line: the source has changed since this player's last packet.
    pub fn is_before_epoch(&self, epoch: u32) -> bool {
        self.line.is_some_and(|line| line.epoch != epoch)
    }

    /// Whether the cursor has passed `packet` without sending it, so that it may still be sent once.
    pub fn wants_late(&self, packet: &Packet) -> bool {
        self.number_of(packet).is_some() && self.cursor.is_some_and(|cursor| packet.index < cursor)
    }

    /// Seals the packet at the cursor and moves on. A packet the cursor has passed is refused.
    pub fn send_next(
        &mut self,
        packet: &Packet,
        laid_out: LaidOut<'_>,
        transport_number: &mut u16,
        egress: (&RtpSealer, SocketAddr),
        batch: &mut SendBatch,
    ) {
        if self.cursor.is_none_or(|cursor| packet.index < cursor) {
            debug_assert!(false, "packet {} behind the cursor", packet.index);
            return;
        }
        if self.line.is_none_or(|line| line.epoch != packet.epoch) {
            let line = Line { epoch: packet.epoch, first_index: packet.index, first_number: self.next_line };
            self.line = Some(line);
        }
        self.cursor = Some(packet.index + 1);
        if let Some(number) = self.number_of(packet) {
            self.next_line = number + 1;
        }
        self.seal(packet, laid_out, transport_number, egress, batch);
    }

    /// Seals a packet that arrived after the cursor had passed it; the caller has asked [`DownTrack::wants_late`].
    pub fn send_late(
        &mut self,
        packet: &Packet,
        laid_out: LaidOut<'_>,
        transport_number: &mut u16,
        egress: (&RtpSealer, SocketAddr),
        batch: &mut SendBatch,
    ) {
        self.seal(packet, laid_out, transport_number, egress, batch);
    }

    fn seal(
        &mut self,
        packet: &Packet,
        laid_out: LaidOut<'_>,
        transport_number: &mut u16,
        (sealer, destination): (&RtpSealer, SocketAddr),
        batch: &mut SendBatch,
    ) {
        let Some(number) = self.number_of(packet) else { return };
        self.packets_sent = self.packets_sent.wrapping_add(1);
        self.octets_sent = self.octets_sent.wrapping_add(packet.payload().len() as u32);
        batch.push(destination, self.traffic, MAX_DATAGRAM, |out| {
            let len = laid_out.header.len();
            out[..len].copy_from_slice(laid_out.header);
            out[2..4].copy_from_slice(&(number as u16).to_be_bytes());
            if let Some(at) = laid_out.transport_cc {
                out[at..at + 2].copy_from_slice(&transport_number.to_be_bytes());
                *transport_number = transport_number.wrapping_add(1);
            }
            sealer.seal((number >> 16) as u32, out, len, packet.payload(), laid_out.padding)
        });
    }

    /// Sends `packet` again on RTX (RFC 4588 §4): its own SSRC, payload type and numbers; the payload is the original
    /// sequence number and the original payload. `false` where the player has no RTX.
    pub fn retransmit(
        &mut self,
        packet: &Packet,
        laid_out: LaidOut<'_>,
        transport_number: &mut u16,
        (sealer, destination): (&RtpSealer, SocketAddr),
        batch: &mut SendBatch,
    ) -> bool {
        let (Some(rtx), Some(original)) = (self.rtx, self.number_of(packet)) else { return false };
        let number = self.next_rtx_number;
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
            let mut payload = [0; 1502];
            let payload_len = 2 + packet.payload().len();
            payload[..2].copy_from_slice(&(original as u16).to_be_bytes());
            payload[2..payload_len].copy_from_slice(packet.payload());
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
        number.checked_sub(line.first_number).map(|n| n + line.first_index)
    }

    /// Packets and payload octets sent on the media SSRC, for the sender report (RFC 3550 §6.4.1).
    pub fn sent(&self) -> (u32, u32) {
        (self.packets_sent, self.octets_sent)
    }

    fn number_of(&self, packet: &Packet) -> Option<u64> {
        let line = self.line.filter(|line| line.epoch == packet.epoch)?;
        packet.index.checked_sub(line.first_index).map(|n| n + line.first_number)
    }
}

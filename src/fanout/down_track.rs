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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::fanout::{HeaderClass, Layout};
    use crate::media::{ClearPacket, PayloadFacts, PlayoutDelay, Position, RtpHeader};
    use crate::rtc::srtp::{MasterKey, Profile, RtpOpener};

    const CLASS: HeaderClass =
        HeaderClass { payload_type: 96, ssrc: 100, transport_cc: Some(3), playout_delay: None, abs_capture_time: None };
    const RTX: Rtx = Rtx { payload_type: 97, ssrc: 101 };

    /// What arrived at the player.
    #[derive(Debug, PartialEq)]
    struct Arrived {
        ssrc: u32,
        payload_type: u8,
        /// The extended sequence number.
        number: u64,
        transport_number: u16,
        payload: Vec<u8>,
    }

    /// A track on its way to a player who has the key.
    struct Way {
        down: DownTrack,
        sealer: RtpSealer,
        opener: RtpOpener,
        transport_number: u16,
        layout: Layout,
    }

    impl Way {
        fn new(seed: u32) -> Self {
            let key = || MasterKey::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12]).expect("lengths are right");
            Self {
                down: DownTrack::new(0, TrafficClass::Video, Some(RTX), seed),
                sealer: RtpSealer::new(&key()),
                opener: RtpOpener::new(&key()),
                transport_number: 0,
                layout: Layout::default(),
            }
        }

        fn at(seed: u32, index: u64) -> Self {
            let mut way = Self::new(seed);
            way.down.join_at(index);
            way
        }

        fn next(&mut self, packet: &Packet) -> Arrived {
            self.send(packet, |down, packet, laid_out, number, egress, batch| {
                down.send_next(packet, laid_out, number, egress, batch);
            })
            .expect("it was sent")
        }

        fn late(&mut self, packet: &Packet) -> Option<Arrived> {
            let wanted = self.down.wants_late(packet);
            self.send(packet, |down, packet, laid_out, number, egress, batch| {
                if wanted {
                    down.send_late(packet, laid_out, number, egress, batch);
                }
            })
        }

        fn again(&mut self, packet: &Packet) -> Option<Arrived> {
            self.send(packet, |down, packet, laid_out, number, egress, batch| {
                let sent = down.retransmit(packet, laid_out, number, egress, batch);
                assert_eq!(sent, !batch.is_empty());
            })
        }

        fn send(
            &mut self,
            packet: &Packet,
            send: impl FnOnce(&mut DownTrack, &Packet, LaidOut<'_>, &mut u16, (&RtpSealer, SocketAddr), &mut SendBatch),
        ) -> Option<Arrived> {
            self.layout.rebuild(&CLASS, PlayoutDelay { min_ms: 0, max_ms: 0 }, None, std::iter::once(packet));
            let mut batch = SendBatch::with_capacity(4000, 1);
            let egress = (&self.sealer, ([192, 0, 2, 1], 9).into());
            send(&mut self.down, packet, self.layout.get(0), &mut self.transport_number, egress, &mut batch);
            let mut bytes = batch.bytes().to_vec();
            (!bytes.is_empty()).then(|| open(&mut self.opener, &mut bytes))
        }
    }

    fn open(opener: &mut RtpOpener, bytes: &mut [u8]) -> Arrived {
        let header_len = RtpHeader::parse_header(bytes).expect("RTP").header_len;
        let opened = opener.open(bytes, header_len).expect("authentic, and never seen before");
        let clear = &bytes[..opened.len];
        let header = RtpHeader::parse(clear).expect("RTP");
        let transport_number = header.extension(clear, 3).expect("negotiated");
        Arrived {
            ssrc: header.ssrc,
            payload_type: header.payload_type,
            number: opened.index,
            transport_number: u16::from_be_bytes([transport_number[0], transport_number[1]]),
            payload: header.payload(clear).to_vec(),
        }
    }

    fn packet(epoch: u32, index: u64) -> Packet {
        let clear = ClearPacket {
            position: Position { epoch, index, timestamp: index as u32 },
            marker: false,
            facts: PayloadFacts::default(),
            arrival: Instant::now(),
            capture: None,
            payload: &[epoch.to_be_bytes(), (index as u32).to_be_bytes()].concat(),
        };
        Packet::new(&clear).expect("short")
    }

    #[test]
    fn numbers_begin_low_and_follow_the_index() {
        for seed in [0, 32_767, 32_768, u32::MAX] {
            let mut way = Way::at(seed, 70_000);
            let first = way.next(&packet(0, 70_000));
            assert!(first.number < u64::from(FIRST_SEQUENCE_LIMIT));
            assert_eq!((first.ssrc, first.payload_type, first.transport_number), (100, 96, 0));
            let second = way.next(&packet(0, 70_003));
            assert_eq!((second.number, second.transport_number), (first.number + 3, 1), "two are missing");
            assert_eq!(way.down.cursor(), Some(70_004));
            assert_eq!(way.down.sent(), (2, 16));
        }
    }

    #[test]
    fn a_player_joins_ahead_and_never_goes_back() {
        let mut way = Way::new(0);
        assert_eq!(way.down.cursor(), None);
        way.down.skip_to(50);
        assert_eq!(way.down.cursor(), None, "what has not begun has nothing to skip");
        way.down.join_at(100);
        way.down.join_at(90);
        way.down.skip_to(95);
        assert_eq!(way.down.cursor(), Some(100));
        assert!(!way.down.is_before_epoch(7), "nothing was sent, so nothing changes");
        assert!(!way.down.wants_late(&packet(0, 99)));
    }

    #[test]
    fn a_new_epoch_goes_on_where_the_numbers_stopped() {
        let mut way = Way::at(10, 100);
        way.next(&packet(0, 100));
        let last = way.next(&packet(0, 101)).number;
        assert!(way.down.is_before_epoch(1) && !way.down.is_before_epoch(0));
        way.down.join_at(80_000);
        assert_eq!(way.next(&packet(1, 80_000)).number, last + 1);
        assert_eq!(way.next(&packet(1, 80_001)).number, last + 2);
        assert_eq!(way.down.index_of(last as u16), None, "of the epoch before");
        assert_eq!(way.down.index_of((last + 1) as u16), Some(80_000));
        assert_eq!(way.late(&packet(0, 90)), None, "the old source's packets are nobody's");
    }

    #[test]
    fn what_arrives_late_gets_the_number_that_was_left_for_it() {
        let mut way = Way::at(0, 100);
        way.next(&packet(0, 100));
        way.next(&packet(0, 105));
        assert_eq!(way.late(&packet(0, 99)), None, "before the player's first");
        assert_eq!(way.late(&packet(0, 106)), None, "the cursor has yet to come there");
        let late = way.late(&packet(0, 102)).expect("it was missing");
        assert_eq!((late.number, late.transport_number), (2, 2));
        assert_eq!(way.next(&packet(0, 106)).number, 6);
    }

    #[test]
    fn a_nack_names_the_newest_packet_with_its_16_bits() {
        let mut way = Way::at(32_767, 1000);
        assert_eq!(way.down.index_of(32_767), None, "nothing was sent");
        for index in [1000, 21_000, 41_000] {
            way.next(&packet(0, index));
        }
        // The newest is 72,767, beyond the wrap.
        assert_eq!(way.down.index_of(72_767_u32 as u16), Some(41_000));
        assert_eq!(way.down.index_of(0), Some(1000 + 65_536 - 32_767));
        assert_eq!(way.down.index_of(65_535), Some(1000 + 65_535 - 32_767));
        assert_eq!(way.down.index_of(32_767), Some(1000));
        assert_eq!(way.down.index_of(32_766), None, "before the first");
        assert_eq!(way.down.index_of(72_768_u32 as u16), None, "not sent yet");
    }

    #[test]
    fn a_repetition_has_an_ssrc_and_numbers_of_its_own() {
        let mut way = Way::at(5 | 40 << 16, 100);
        let original = way.next(&packet(0, 100));
        for n in 0..2 {
            let again = way.again(&packet(0, 100)).expect("RTX is negotiated");
            assert_eq!((again.ssrc, again.payload_type), (RTX.ssrc, RTX.payload_type));
            assert_eq!((again.number, again.transport_number), (40 + n, 1 + n as u16));
            assert_eq!(again.payload, [&[0, 5][..], &original.payload].concat(), "RFC 4588 §4");
        }
        assert_eq!(way.down.sent(), (1, 8), "repetitions are another stream's");
        way.down.rtx = None;
        assert_eq!(way.again(&packet(0, 100)), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// The next packet, so many being missing before it.
        Next(u64),
        /// One of those that are missing arrives.
        Late(prop::sample::Index),
        /// The source changes.
        Epoch,
        /// The player asks for the packet so many numbers back.
        Nack(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => prop_oneof![4 => Just(0), 1 => 0..300_u64].prop_map(Step::Next),
            3 => any::<prop::sample::Index>().prop_map(Step::Late),
            1 => Just(Step::Epoch),
            3 => (0..400_u16).prop_map(Step::Nack),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each packet of a source is sealed once on the media SSRC, under a number that keeps its distance from its
        /// neighbours', and a NACK of that number finds it. No number serves twice: the opener refuses replays.
        #[test]
        fn a_number_belongs_to_one_packet(seed: u32, steps in prop::collection::vec(step(), 1..300)) {
            let (mut way, mut epoch, mut index) = (Way::at(seed, 70_000), 0, 70_000);
            let (mut missing, mut numbers) = (Vec::new(), HashSet::new());
            let mut newest: Option<(u64, u64)> = None;
            for step in steps {
                match step {
                    Step::Next(gap) => {
                        missing.extend(index..index + gap);
                        let first_of_epoch = way.down.is_before_epoch(epoch) || newest.is_none();
                        let arrived = way.next(&packet(epoch, index + gap));
                        match newest {
                            Some((number, _)) if first_of_epoch => {
                                prop_assert_eq!(arrived.number, number + 1);
                                // What was missing before the player's first packet has no number.
                                missing.clear();
                            }
                            Some((number, at)) => prop_assert_eq!(arrived.number - number, index + gap - at),
                            None => missing.clear(),
                        }
                        prop_assert!(numbers.insert(arrived.number));
                        prop_assert_eq!(way.down.index_of(arrived.number as u16), Some(index + gap));
                        newest = Some((arrived.number, index + gap));
                        index += gap + 1;
                    }
                    Step::Late(which) if !missing.is_empty() => {
                        let late = missing.swap_remove(which.index(missing.len()));
                        let (number, at) = newest.expect("something is missing");
                        // Beyond the opener's window it would be refused as too old, which is the player's loss.
                        if at - late < 900 {
                            let arrived = way.late(&packet(epoch, late)).expect("it was missing");
                            prop_assert_eq!(number - arrived.number, at - late);
                            prop_assert!(numbers.insert(arrived.number));
                        }
                    }
                    Step::Late(_) => {}
                    Step::Epoch => {
                        epoch += 1;
                        index += 5000;
                        way.down.join_at(index);
                        missing.clear();
                    }
                    Step::Nack(back) => {
                        let Some((number, _)) = newest else { continue };
                        if let Some(found) = way.down.index_of((number as u16).wrapping_sub(back)) {
                            // Until the new source's first packet, the line is still that of the old one.
                            let line = way.down.line.expect("something was sent").epoch;
                            let again = way.again(&packet(line, found)).expect("RTX is negotiated");
                            prop_assert_eq!(&again.payload[..2], &(number as u16).wrapping_sub(back).to_be_bytes());
                        }
                    }
                }
            }
        }
    }
}

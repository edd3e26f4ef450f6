//! One track on its way to one player: position, numbering, retransmission.

use crate::media::{Codec, MAX_PAYLOAD, Packet};
use crate::rtc::TransportAddress;
use crate::rtc::srtp::RtpSealer;

use super::layout::{LaidOut, MAX_DATAGRAM};
use super::send_batch::{SendBatch, TrafficClass};
use super::shift::{Numbers, Shift};

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
    /// Where the player had another layer before.
    shift: Option<Box<Shift>>,
    newest: Option<Newest>,
    next_rtx_number: u64,
    packets_sent: u32,
    octets_sent: u32,
}

/// The packet that went out last in order.
#[derive(Clone, Copy, Debug)]
struct Newest {
    /// Its layer's timestamp.
    timestamp: u32,
    /// It ended its frame.
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
            shift: None,
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
            let before = self.shift.as_ref().map(|shift| *shift.numbers()).unwrap_or_default();
            let numbers = last.map(|last| Numbers::following(codec, last, &before, first)).unwrap_or_default();
            let (at, newest) = (self.timestamp(at), self.timestamp(newest.timestamp));
            self.shift = Some(Box::new(Shift::new(first.timestamp, at, newest, numbers)));
        }
        self.line = None;
        self.cursor = Some(first.index);
    }

    /// Forgets where it was to begin, as long as nothing was sent.
    pub fn restart(&mut self) {
        if self.newest.is_none() {
            self.cursor = None;
        }
    }

    /// The timestamp that the player is given for one of the layer's.
    pub fn timestamp(&self, timestamp: u32) -> u32 {
        self.shift.as_ref().map_or(timestamp, |shift| shift.timestamp(timestamp))
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
        self.number_of(packet).is_some() && self.cursor.is_some_and(|cursor| packet.index < cursor)
    }

    /// Seals the packet at the cursor and moves on. A packet the cursor has passed is refused.
    pub fn send_next(
        &mut self,
        packet: &Packet,
        laid_out: LaidOut<'_>,
        transport_number: &mut u16,
        egress: (&RtpSealer, TransportAddress),
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
        if let Some(shift) = &mut self.shift {
            shift.go_on(packet.timestamp);
        }
        self.newest = Some(Newest { timestamp: packet.timestamp, marker: packet.marker });
        self.seal(packet, laid_out, transport_number, egress, batch);
    }

    /// Seals a packet that arrived after the cursor had passed it; the caller has asked [`DownTrack::wants_late`].
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
        let payload = &packet.payload()[laid_out.payload_offset..];
        let shift = self.shift.as_deref();
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
            let Some(shift) = shift else { return sealer.seal(rollover, out, len, payload, laid_out.padding) };
            shift.apply(out, laid_out.descriptor);
            if !shift.changes_payload() {
                return sealer.seal(rollover, out, len, payload, laid_out.padding);
            }
            let mut copy = [0; MAX_PAYLOAD];
            let copy = &mut copy[..payload.len()];
            copy.copy_from_slice(payload);
            shift.apply_to_payload(copy);
            sealer.seal(rollover, out, len, copy, laid_out.padding)
        });
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
        let number = self.next_rtx_number;
        let shift = self.shift.as_deref();
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
            if let Some(shift) = shift {
                shift.apply(out, laid_out.descriptor);
            }
            let mut payload = [0; 2 + MAX_PAYLOAD];
            let first = &packet.payload()[laid_out.payload_offset..];
            let payload_len = 2 + first.len();
            payload[..2].copy_from_slice(&(original as u16).to_be_bytes());
            payload[2..payload_len].copy_from_slice(first);
            if let Some(shift) = shift {
                shift.apply_to_payload(&mut payload[2..payload_len]);
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

    use super::super::{HeaderClass, Layout, Stamps};
    use super::*;
    use crate::media::{AbsSendTime, ClearPacket, PayloadFacts, PlayoutDelay, Position, RtpHeader};
    use crate::rtc::srtp::{MasterKey, Profile, RtpOpener};

    const SSRC: u32 = 0x1111_1110;
    const RTX: Rtx = Rtx { payload_type: 97, ssrc: 0x1111_1111 };
    const CLASS: HeaderClass = HeaderClass {
        payload_type: 96,
        red: None,
        ssrc: SSRC,
        transport_cc: Some(3),
        playout_delay: None,
        abs_capture_time: None,
        abs_send_time: None,
        dependency_descriptor: None,
    };
    const STAMPS: Stamps =
        Stamps { playout_delay: PlayoutDelay { min_ms: 0, max_ms: 0 }, clock_offset: None, send_time: AbsSendTime(0) };
    /// The highest first number: 16 bits are used up soonest.
    const LATEST_START: u32 = FIRST_SEQUENCE_LIMIT as u32 - 1;

    /// What the player made of a datagram.
    #[derive(Debug, PartialEq)]
    struct Received {
        ssrc: u32,
        payload_type: u8,
        /// The number that never wraps, by SRTP.
        number: u64,
        transport_number: u16,
        payload: Vec<u8>,
    }

    /// A player and the way to it.
    struct Player {
        down: DownTrack,
        sealer: RtpSealer,
        opener: RtpOpener,
        layout: Layout,
        batch: SendBatch,
        transport_number: u16,
    }

    impl Player {
        fn new(rtx: Option<Rtx>, seed: u32) -> Self {
            let profile = Profile::AeadAes256Gcm;
            let master = MasterKey::new(profile, &[7; 32], &[9; 12]).expect("lengths of the profile");
            Self {
                down: DownTrack::new(0, TrafficClass::Video, rtx, seed),
                sealer: RtpSealer::new(&master),
                opener: RtpOpener::new(&master),
                layout: Layout::default(),
                batch: SendBatch::with_capacity(2 * MAX_DATAGRAM, 1),
                transport_number: 65_535,
            }
        }

        fn next(&mut self, packet: &Packet) -> Received {
            self.send(packet, |down, laid_out, number, egress, batch| {
                down.send_next(packet, laid_out, number, egress, batch);
            })
        }

        fn late(&mut self, packet: &Packet) -> Received {
            self.send(packet, |down, laid_out, number, egress, batch| {
                down.send_late(packet, laid_out, number, egress, batch);
            })
        }

        fn again(&mut self, packet: &Packet) -> Received {
            self.send(packet, |down, laid_out, number, egress, batch| {
                assert!(down.retransmit(packet, laid_out, number, egress, batch));
            })
        }

        /// The one datagram that `send` pushes, opened.
        ///
        /// # Panics
        /// If it does not authenticate, or has a nonce that came before: to the player that is a replay.
        fn send(
            &mut self,
            packet: &Packet,
            send: impl FnOnce(&mut DownTrack, LaidOut<'_>, &mut u16, (&RtpSealer, TransportAddress), &mut SendBatch),
        ) -> Received {
            self.batch.clear();
            self.layout.rebuild(&CLASS, &STAMPS, [packet].into_iter());
            let egress = (&self.sealer, TransportAddress::udp(([192, 0, 2, 1], 4000).into()));
            send(&mut self.down, self.layout.get(0), &mut self.transport_number, egress, &mut self.batch);
            let mut bytes = self.batch.bytes().to_vec();
            let header_len = RtpHeader::parse_header(&bytes).expect("a header").header_len;
            let opened = self.opener.open(&mut bytes, header_len).expect("authentic and new");
            let clear = &bytes[..opened.len];
            let header = RtpHeader::parse(clear).expect("well-formed");
            assert_eq!(header.sequence_number, opened.index as u16);
            let transport_number = header.extension(clear, 3).expect("negotiated").try_into().expect("two bytes");
            Received {
                ssrc: header.ssrc,
                payload_type: header.payload_type,
                number: opened.index,
                transport_number: u16::from_be_bytes(transport_number),
                payload: header.payload(clear).to_vec(),
            }
        }
    }

    fn packet(epoch: u32, index: u64) -> Packet {
        let clear = ClearPacket {
            position: Position { epoch, index, timestamp: 0 },
            marker: false,
            facts: PayloadFacts::default(),
            arrival: Instant::now(),
            capture: None,
            dependency_descriptor: &[],
            payload: &index.to_be_bytes(),
        };
        Packet::new(&clear).expect("short")
    }

    #[test]
    fn numbers_follow_the_ring_and_show_its_gaps() {
        let mut player = Player::new(None, 5000);
        player.down.join_at(100);
        let first = player.next(&packet(0, 100));
        assert_eq!((first.ssrc, first.payload_type, first.number), (SSRC, 96, 5000));
        assert_eq!(first.payload, 100_u64.to_be_bytes());
        assert_eq!(player.next(&packet(0, 101)).number, 5001);
        player.down.skip_to(104);
        assert_eq!(player.down.cursor(), Some(104));
        assert_eq!(player.next(&packet(0, 104)).number, 5004);
        assert_eq!(player.down.sent(), (3, 24));
    }

    #[test]
    fn the_cursor_never_goes_back() {
        let mut down = DownTrack::new(0, TrafficClass::Video, None, 0);
        down.skip_to(50);
        assert_eq!(down.cursor(), None, "there is nothing to skip before the start");
        down.join_at(100);
        down.join_at(90);
        down.skip_to(80);
        assert_eq!(down.cursor(), Some(100));
    }

    #[test]
    fn first_numbers_leave_room_for_an_early_loss() {
        let mut player = Player::new(Some(RTX), u32::MAX);
        player.down.join_at(0);
        assert_eq!(player.next(&packet(0, 0)).number, u64::from(LATEST_START));
        assert_eq!(player.again(&packet(0, 0)).number, u64::from(LATEST_START));
    }

    #[test]
    fn a_new_source_goes_on_where_the_last_one_stopped() {
        let mut player = Player::new(None, 10);
        player.down.join_at(100);
        assert!(!player.down.is_before_epoch(0), "nothing was sent yet");
        player.next(&packet(0, 100));
        player.next(&packet(0, 101));
        assert!(player.down.is_before_epoch(1) && !player.down.is_before_epoch(0));
        player.down.join_at(70_000);
        assert_eq!(player.next(&packet(1, 70_000)).number, 12, "the indices between were never sent by anybody");
        assert_eq!(player.next(&packet(1, 70_002)).number, 14);
        assert!(!player.down.is_before_epoch(1));
    }

    #[test]
    fn what_the_cursor_passed_is_wanted_late() {
        let mut player = Player::new(None, 10);
        assert!(!player.down.wants_late(&packet(0, 100)), "not started");
        player.down.join_at(100);
        assert!(!player.down.wants_late(&packet(0, 99)), "nothing was sent, so 99 has no number");
        player.next(&packet(0, 100));
        player.next(&packet(0, 103));
        assert!(!player.down.wants_late(&packet(0, 99)), "before its start");
        assert!(!player.down.wants_late(&packet(0, 104)), "at the cursor");
        assert!(player.down.wants_late(&packet(0, 102)));
        assert_eq!(player.late(&packet(0, 102)).number, 12);
        player.next(&packet(1, 200));
        assert!(!player.down.wants_late(&packet(0, 101)), "the source is over");
        assert!(!player.down.wants_late(&packet(1, 199)), "before the new source's start");
    }

    #[test]
    fn a_repetition_has_an_ssrc_and_numbers_of_its_own() {
        let mut player = Player::new(Some(RTX), 700 << 16 | 5000);
        player.down.join_at(100);
        let transport_numbers = [
            player.next(&packet(0, 100)).transport_number,
            player.next(&packet(0, 101)).transport_number,
            player.again(&packet(0, 100)).transport_number,
        ];
        assert_eq!(transport_numbers, [65_535, 0, 1]);
        let again = player.again(&packet(0, 100));
        assert_eq!((again.ssrc, again.payload_type, again.number), (RTX.ssrc, RTX.payload_type, 701));
        assert_eq!(again.payload, [&5000_u16.to_be_bytes()[..], &100_u64.to_be_bytes()].concat());
        assert_eq!(player.down.sent(), (2, 16), "repetitions are not counted on the media SSRC");
    }

    #[test]
    fn without_rtx_nothing_is_repeated() {
        let mut player = Player::new(None, 0);
        player.down.join_at(100);
        player.next(&packet(0, 100));
        player.batch.clear();
        let egress = (&player.sealer, TransportAddress::udp(([192, 0, 2, 1], 4000).into()));
        let sent = player.down.retransmit(&packet(0, 100), player.layout.get(0), &mut 0, egress, &mut player.batch);
        assert!(!sent && player.batch.is_empty());
    }

    #[test]
    fn a_number_leads_back_to_its_index_over_the_wrap() {
        let mut player = Player::new(None, LATEST_START);
        assert_eq!(player.down.index_of(0), None, "nothing was sent");
        player.down.join_at(100);
        // Hops that the player's rollover counter can follow; the numbers are 32,767 and 20,000 more each.
        for index in [100, 20_100, 40_100, 60_100] {
            player.next(&packet(0, index));
        }
        let number = |extended: u64| extended as u16;
        assert_eq!(player.down.index_of(number(32_767 + 60_000)), Some(60_100), "the newest");
        assert_eq!(player.down.index_of(65_535), Some(100 + 65_535 - 32_767), "the last before the wrap");
        assert_eq!(player.down.index_of(0), Some(100 + 65_536 - 32_767), "the first behind it");
        assert_eq!(player.down.index_of(32_767), Some(100), "the first of all");
        assert_eq!(player.down.index_of(32_766), None, "before the first");
        player.next(&packet(0, 80_100));
        assert_eq!(player.down.index_of(32_767), Some(100 + 65_536), "the newest with these bits");
    }

    #[test]
    fn a_number_of_the_last_source_leads_nowhere() {
        let mut player = Player::new(None, 10);
        player.down.join_at(100);
        player.next(&packet(0, 100));
        player.next(&packet(1, 500));
        assert_eq!(player.down.index_of(11), Some(500));
        assert_eq!(player.down.index_of(10), None);
    }

    /// What happens to a player's track.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The next packet, after so many that are missing.
        Next(u64),
        /// The cursor passes so many that are missing, with nothing behind them yet.
        Skip(u64),
        /// One of the missing comes after all.
        Late(usize),
        /// One that was sent is asked for again.
        Again(usize),
        /// The source changes.
        Change,
        /// Another layer, whose indices are its own.
        Layer(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => prop_oneof![3 => Just(0), 1 => 1_u64..5].prop_map(Step::Next),
            3 => any::<usize>().prop_map(Step::Late),
            3 => any::<usize>().prop_map(Step::Again),
            2 => (1_u64..5).prop_map(Step::Skip),
            1 => Just(Step::Change),
            1 => (0_u64..1 << 40).prop_map(Step::Layer),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Whatever happens, no nonce comes twice, and every number that was sent leads back to its packet as long as
        /// the source is the same.
        #[test]
        fn no_nonce_comes_twice(seed: u32, start in 0_u64..1 << 40, steps in prop::collection::vec(step(), 1..150)) {
            let mut player = Player::new(Some(RTX), seed);
            let (mut epoch, mut index) = (0, start);
            let (mut missing, mut sent): (Vec<u64>, Vec<(u64, u64)>) = (Vec::new(), Vec::new());
            let (mut nonces, mut transport_number) = (HashSet::new(), 65_535_u16);
            player.down.join_at(start);
            for step in steps {
                let received = match step {
                    Step::Next(gap) => {
                        // A gap before the first packet of a source is none: the player starts behind it.
                        if !sent.is_empty() {
                            missing.extend(index..index + gap);
                        }
                        index += gap + 1;
                        let received = player.next(&packet(epoch, index - 1));
                        sent.push((index - 1, received.number));
                        received
                    }
                    Step::Skip(gap) if !sent.is_empty() => {
                        missing.extend(index..index + gap);
                        index += gap;
                        player.down.skip_to(index);
                        continue;
                    }
                    Step::Late(n) if !missing.is_empty() => {
                        let late = packet(epoch, missing.swap_remove(n % missing.len()));
                        prop_assert!(player.down.wants_late(&late));
                        let received = player.late(&late);
                        sent.push((late.index, received.number));
                        received
                    }
                    Step::Again(n) if !sent.is_empty() => {
                        let (index, number) = sent[n % sent.len()];
                        let received = player.again(&packet(epoch, index));
                        prop_assert_eq!(&received.payload[..2], &(number as u16).to_be_bytes());
                        received
                    }
                    Step::Change => {
                        for lost in missing.drain(..).chain(sent.drain(..).map(|(index, _)| index)) {
                            prop_assert!(!player.down.wants_late(&packet(epoch + 1, lost)));
                        }
                        epoch += 1;
                        index += 1000;
                        continue;
                    }
                    Step::Layer(begin) => {
                        let last = packet(epoch, index.saturating_sub(1));
                        (index, missing, sent) = (begin, Vec::new(), Vec::new());
                        player.down.switch_layer(Codec::H264, &packet(epoch, begin), 0, Some(&last));
                        continue;
                    }
                    Step::Late(_) | Step::Again(_) | Step::Skip(_) => continue,
                };
                prop_assert!(nonces.insert((received.ssrc, received.number)), "{received:?} repeats a nonce");
                prop_assert_eq!(received.transport_number, transport_number);
                transport_number = transport_number.wrapping_add(1);
                for &(index, number) in &sent {
                    prop_assert_eq!(player.down.index_of(number as u16), Some(index));
                }
            }
            prop_assert!(sent.windows(2).all(|w| (w[0].0 < w[1].0) == (w[0].1 < w[1].1)));
        }
    }
}

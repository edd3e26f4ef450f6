use std::collections::{HashMap, HashSet};
use std::time::Instant;

use proptest::prelude::*;

use super::super::{HeaderClass, Layout, Stamps};
use super::*;
use crate::media::{AbsSendTime, ClearPacket, PayloadFacts, PlayoutDelay, Position, RtpHeader, facts};
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
const ALL: u8 = u8::MAX;
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
    marker: bool,
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
        self.next_if_given(packet).expect("not thinned")
    }

    /// `None` if it is left out.
    fn next_if_given(&mut self, packet: &Packet) -> Option<Received> {
        self.send(packet, |down, laid_out, number, egress, batch| {
            down.send_next(packet, laid_out, number, egress, batch);
        })
    }

    fn late(&mut self, packet: &Packet) -> Received {
        self.send(packet, |down, laid_out, number, egress, batch| {
            down.send_late(packet, laid_out, number, egress, batch);
        })
        .expect("sent")
    }

    fn again(&mut self, packet: &Packet) -> Received {
        self.send(packet, |down, laid_out, number, egress, batch| {
            assert!(down.retransmit(packet, laid_out, number, egress, batch));
        })
        .expect("sent")
    }

    /// The one datagram that `send` pushes, if it does, opened.
    ///
    /// # Panics
    /// If it does not authenticate, or has a nonce that came before: to the player that is a replay.
    fn send(
        &mut self,
        packet: &Packet,
        send: impl FnOnce(&mut DownTrack, LaidOut<'_>, &mut u16, (&RtpSealer, TransportAddress), &mut SendBatch),
    ) -> Option<Received> {
        self.batch.clear();
        self.layout.rebuild(&CLASS, &STAMPS, [packet].into_iter());
        let egress = (&self.sealer, TransportAddress::udp(([192, 0, 2, 1], 4000).into()));
        send(&mut self.down, self.layout.get(0), &mut self.transport_number, egress, &mut self.batch);
        if self.batch.is_empty() {
            return None;
        }
        let mut bytes = self.batch.bytes().to_vec();
        let header_len = RtpHeader::parse_header(&bytes).expect("a header").header_len;
        let opened = self.opener.open(&mut bytes, header_len).expect("authentic and new");
        let clear = &bytes[..opened.len];
        let header = RtpHeader::parse(clear).expect("well-formed");
        assert_eq!(header.sequence_number, opened.index as u16);
        let transport_number = header.extension(clear, 3).expect("negotiated").try_into().expect("two bytes");
        Some(Received {
            ssrc: header.ssrc,
            payload_type: header.payload_type,
            number: opened.index,
            transport_number: u16::from_be_bytes(transport_number),
            marker: header.marker,
            payload: header.payload(clear).to_vec(),
        })
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

/// A packet of VP8 with three temporal layers, by its index: three a frame, and sync frames as encoders have them now and then.
fn layered(epoch: u32, index: u64) -> Packet {
    let (frame, at) = (index / 3, index % 3);
    let layer = [0, 2, 1, 2][frame as usize % 4];
    let sync = if layer > 0 && frame % 8 < 3 { 0x20 } else { 0 };
    let [high, low] = (frame as u16 & 0x7fff | 0x8000).to_be_bytes();
    let descriptor = [if at == 0 { 0x90 } else { 0x80 }, 0xa0, high, low, layer << 6 | sync, 0x01];
    let payload = [&descriptor[..], &index.to_be_bytes()].concat();
    let clear = ClearPacket {
        position: Position { epoch, index, timestamp: (frame as u32).wrapping_mul(3000) },
        marker: at == 2,
        facts: facts(Codec::Vp8, &payload),
        arrival: Instant::now(),
        capture: None,
        dependency_descriptor: &[],
        payload: &payload,
    };
    Packet::new(&clear).expect("short")
}

/// The same, but that packets behind the first of a frame name no layer, or another one.
fn oddly_layered(epoch: u32, index: u64) -> Packet {
    let mut packet = layered(epoch, index);
    packet.facts.temporal_layer = match (index / 3 % 5, index % 3) {
        (0 | 1, 1) => Some(0),
        (2, 1) => Some(2),
        (1 | 3, 2) => None,
        _ => packet.facts.temporal_layer,
    };
    packet
}

/// The picture id and the index that the payload of [`layered`] says.
fn said(payload: &[u8]) -> (u16, u64) {
    let id = u16::from_be_bytes([payload[2] & 0x7f, payload[3]]);
    (id, u64::from_be_bytes(payload[6..].try_into().expect("eight bytes")))
}

/// A player that has had 48 packets of [`layered`], the first of them with the number 5000, and then fewer layers.
fn thinned(highest: u8) -> (Player, Vec<Received>) {
    let mut player = Player::new(Some(RTX), 5000);
    player.down.join_at(0);
    (0..48).for_each(|index| drop(player.next(&layered(0, index))));
    player.down.thin(Codec::Vp8, Highest::temporal(highest));
    let received = (48..96).filter_map(|index| player.next_if_given(&layered(0, index))).collect();
    (player, received)
}

#[test]
fn what_is_left_out_takes_no_number_and_no_picture_id() {
    for (highest, frames) in [(1, 8), (0, 4)] {
        let (_, received) = thinned(highest);
        assert_eq!(received.len(), 3 * frames);
        for (n, packet) in received.iter().enumerate() {
            let (id, index) = said(&packet.payload);
            assert_eq!((packet.number, usize::from(id)), (5048 + n as u64, 16 + n / 3));
            assert!(layered(0, index).facts.temporal_layer <= Some(highest));
        }
    }
}

#[test]
fn a_frame_that_has_begun_is_given_to_its_end() {
    let mut player = Player::new(None, 0);
    player.down.join_at(0);
    // The second frame is of the highest layer.
    (0..4).for_each(|index| drop(player.next(&layered(0, index))));
    player.down.thin(Codec::Vp8, Highest::temporal(0));
    let given = (4..24).filter(|index| player.next_if_given(&layered(0, *index)).is_some());
    assert_eq!(given.collect::<Vec<_>>(), [4, 5, 12, 13, 14]);
}

#[test]
fn more_layers_come_one_by_one_at_their_sync_frames() {
    let (mut player, _) = thinned(0);
    player.down.thin(Codec::Vp8, Highest::ALL);
    let given = (96..192).filter(|index| player.next_if_given(&layered(0, *index)).is_some());
    let mut frames: Vec<u64> = given.map(|index| index / 3 - 32).collect();
    frames.dedup();
    // The middle layer from its sync frame on, then the highest from its own.
    assert_eq!(frames[..8], [0, 2, 4, 6, 8, 9, 10, 11]);
    assert_eq!(frames.len(), 4 + 24);
}

#[test]
fn a_late_packet_fills_its_number_with_what_the_player_was_to_get() {
    let (mut player, _) = thinned(1);
    // Of frame 32, of the base layer, the last packet is missing, and with it the first two of frame 33, of the highest.
    let number = player.next(&layered(0, 96)).number;
    player.next(&layered(0, 97));
    let after = player.next_if_given(&layered(0, 101));
    assert!(after.is_none(), "the rest of a frame that is left out");
    assert_eq!(player.next(&layered(0, 102)).number, number + 5, "three numbers were kept");
    let base = player.late(&layered(0, 98));
    assert_eq!((base.number, said(&base.payload).1), (number + 2, 98));
    let upper = player.late(&layered(0, 100));
    assert_eq!((upper.number, upper.payload.len()), (number + 4, 0), "nobody asks for it any more");
    assert!(!player.down.wants_late(&layered(0, 101)), "it was left out");
    assert_eq!(player.again(&layered(0, 100)).payload, ((number + 4) as u16).to_be_bytes(), "nor if it gets lost");
    assert_eq!(player.down.index_of((number + 5) as u16), Some(102));
}

#[test]
fn a_frame_is_given_whole_or_not_at_all_whatever_its_packets_name() {
    let naming = |index, temporal_layer| {
        let mut packet = layered(0, index);
        packet.facts.temporal_layer = temporal_layer;
        packet
    };
    let (mut player, _) = thinned(1);
    // The first packet of frame 32 is of the base layer, the second says that it is of the highest, the third comes
    // late.
    player.next(&layered(0, 96));
    assert_eq!(said(&player.next(&naming(97, Some(2))).payload).1, 97);
    // Of frame 33 the second packet comes late and names no layer, as one does that goes on with what the first began.
    assert!(player.next_if_given(&layered(0, 99)).is_none());
    assert!(player.next_if_given(&layered(0, 101)).is_none());
    assert_eq!(said(&player.late(&naming(98, Some(2))).payload).1, 98, "the rest of a frame that was given");
    assert!(player.late(&naming(100, None)).payload.is_empty(), "the rest of a frame that was left out");
    assert_eq!(said(&player.again(&naming(97, Some(2))).payload[2..]).1, 97, "and if they get lost");
    assert_eq!(said(&player.again(&naming(98, Some(2))).payload[2..]).1, 98);
    assert_eq!(player.again(&naming(100, None)).payload.len(), 2);
    // Of frame 35, of the highest layer, the first packet comes late, and before all others.
    (102..105).for_each(|index| drop(player.next(&layered(0, index))));
    player.down.skip_to(106);
    assert!(player.late(&layered(0, 105)).payload.is_empty());
    assert!(player.next_if_given(&naming(106, None)).is_none());
    assert!(player.next_if_given(&layered(0, 107)).is_none());
    // Of frame 36 nothing was there at its turn.
    player.down.skip_to(111);
    assert!(player.next_if_given(&layered(0, 111)).is_none());
    assert_eq!(said(&player.late(&naming(109, None)).payload).1, 109);
    assert_eq!(said(&player.late(&naming(108, Some(2))).payload).1, 108);
    // Nor of frame 39, of the highest layer: its picture id stays open.
    (112..114).for_each(|index| assert!(player.next_if_given(&layered(0, index)).is_none()));
    let before = (114..117).map(|index| said(&player.next(&layered(0, index)).payload).0).max();
    player.down.skip_to(120);
    assert_eq!(Some(said(&player.next(&layered(0, 120)).payload).0 - 2), before);
    assert!(player.late(&layered(0, 117)).payload.is_empty());
    assert!(player.late(&naming(118, None)).payload.is_empty());
}

#[test]
fn who_gets_more_layers_climbs_until_nothing_is_left_out() {
    let (mut player, _) = thinned(0);
    assert_eq!(player.down.lacks(), None, "it gets what it is to get");
    player.down.thin(Codec::Vp8, Highest::ALL);
    assert_eq!(player.down.lacks(), Some(Lacked::TemporalLayers));
    (96..192).for_each(|index| drop(player.next_if_given(&layered(0, index))));
    assert_eq!(player.down.lacks(), None, "there is no higher layer");
}

#[test]
fn what_is_too_long_ago_is_not_guessed() {
    let (mut player, received) = thinned(1);
    let first = said(&received[0].payload).1;
    assert_eq!(player.down.index_of(received[0].number as u16), Some(first));
    for index in 96..96 + 2100 {
        player.next_if_given(&layered(0, index));
    }
    assert_eq!(player.down.index_of(received[0].number as u16), None);
    assert!(!player.down.wants_late(&layered(0, first + 1)));
    player.batch.clear();
    let (packet, egress) = (layered(0, first), TransportAddress::udp(([192, 0, 2, 1], 4000).into()));
    player.layout.rebuild(&CLASS, &STAMPS, [&packet].into_iter());
    let (laid_out, egress) = (player.layout.get(0), (&player.sealer, egress));
    assert!(!player.down.retransmit(&packet, laid_out, &mut 0, egress, &mut player.batch));
}

#[test]
fn picture_ids_go_on_over_a_switch_of_a_thinned_player() {
    let (mut player, received) = thinned(1);
    let last = said(&received.last().expect("some").payload).0;
    // The last frame that the cursor passed was left out.
    player.down.switch_layer(Codec::Vp8, &layered(0, 3000), 0, Some(&layered(0, 95)));
    let next = player.next(&layered(0, 3000));
    assert_eq!((next.number, said(&next.payload).0), (received.last().expect("some").number + 1, last + 1));
    let given = (3001..3024).filter_map(|index| player.next_if_given(&layered(0, index)));
    let ids: Vec<u16> = given.map(|packet| said(&packet.payload).0).step_by(3).collect();
    assert_eq!(ids, [last + 1, last + 2, last + 3, last + 4], "and without the highest layer");
}

#[test]
fn who_gets_all_again_is_as_others_from_the_next_line_on() {
    let (mut player, _) = thinned(0);
    player.down.thin(Codec::Vp8, Highest::ALL);
    assert!(player.down.thinned().is_some());
    player.next(&layered(1, 4000));
    assert!(player.down.thinned().is_none());
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
    /// The player gets temporal layers up to this one.
    Thin(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop_oneof![5 => Just(0), 1 => 1_u64..5].prop_map(Step::Next),
        3 => any::<usize>().prop_map(Step::Late),
        3 => any::<usize>().prop_map(Step::Again),
        2 => (1_u64..5).prop_map(Step::Skip),
        1 => Just(Step::Change),
        1 => (0_u64..1 << 40).prop_map(Step::Layer),
        2 => prop_oneof![0_u8..3, Just(u8::MAX)].prop_map(Step::Thin),
    ]
}

/// What a line of numbers ought to be, index by index.
#[derive(Default)]
struct Model {
    /// Its first index and number.
    first: Option<(u64, u64)>,
    missing: Vec<u64>,
    /// Indices and numbers, late ones included, and those that were given in order.
    sent: Vec<(u64, u64)>,
    left_out: HashSet<u64>,
    /// Of each frame, whether it is given.
    fates: HashMap<u64, bool>,
    /// What is added to picture ids, but for what was left out.
    picture_id_offset: Option<u16>,
}

impl Model {
    fn check(&mut self, packet: &Packet, received: &Received, late: bool) -> Result<(), TestCaseError> {
        let (index, number) = (packet.index, received.number);
        let (first_index, first_number) = *self.first.get_or_insert((index, number));
        let before = self.left_out.iter().filter(|other| **other < index).count() as u64;
        prop_assert_eq!(number, first_number + index - first_index - before, "a gap, or a number twice");
        self.sent.push((index, number));
        let is_given = !received.payload.is_empty();
        self.is_whole(index, is_given)?;
        if !is_given {
            prop_assert!(late);
            return Ok(());
        }
        let (id, content) = said(&received.payload);
        prop_assert_eq!(content, index);
        let frames: HashSet<u64> =
            self.left_out.iter().map(|index| index / 3).filter(|frame| *frame < index / 3).collect();
        let offset = id.wrapping_add(frames.len() as u16).wrapping_sub((index / 3) as u16) & 0x7fff;
        prop_assert_eq!(*self.picture_id_offset.get_or_insert(offset), offset, "a picture id is missing");
        Ok(())
    }

    /// No frame is given in part.
    fn is_whole(&mut self, index: u64, is_given: bool) -> Result<(), TestCaseError> {
        let fate = *self.fates.entry(index / 3).or_insert(is_given);
        prop_assert_eq!(fate, is_given, "a frame is torn at {}", index);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens, no nonce comes twice, no number is left out but for what is missing, and every number that was sent
    /// leads back to its packet as long as the source is the same.
    #[test]
    fn no_nonce_comes_twice_and_no_frame_is_torn(
        seed: u32,
        start in 0_u64..1 << 40,
        is_odd: bool,
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let layered = if is_odd { oddly_layered } else { layered };
        let mut player = Player::new(Some(RTX), seed);
        let (mut epoch, mut index, mut model) = (0, start, Model::default());
        let (mut nonces, mut transport_number) = (HashSet::new(), 65_535_u16);
        player.down.join_at(start);
        for step in steps {
            let received = match step {
                Step::Next(gap) => {
                    // A gap before the first packet of a source is none: the player starts behind it.
                    if !model.sent.is_empty() {
                        model.missing.extend(index..index + gap);
                    }
                    index += gap + 1;
                    let next = layered(epoch, index - 1);
                    let Some(received) = player.next_if_given(&next) else {
                        model.is_whole(next.index, false)?;
                        prop_assert!(is_odd || next.facts.temporal_layer > Some(0));
                        prop_assert!(!player.down.wants_late(&next));
                        model.left_out.insert(next.index);
                        continue;
                    };
                    model.check(&next, &received, false)?;
                    received
                }
                Step::Skip(gap) if !model.sent.is_empty() => {
                    model.missing.extend(index..index + gap);
                    index += gap;
                    player.down.skip_to(index);
                    continue;
                }
                Step::Late(n) if !model.missing.is_empty() => {
                    let n = n % model.missing.len();
                    let late = layered(epoch, model.missing.swap_remove(n));
                    if !player.down.wants_late(&late) {
                        // After more frames than are remembered.
                        prop_assert!(player.down.thinned().is_some_and(|thinned| thinned.is_hollow(&late).is_none()));
                        continue;
                    }
                    let received = player.late(&late);
                    model.check(&late, &received, true)?;
                    received
                }
                Step::Again(n) if !model.sent.is_empty() => {
                    let (index, number) = model.sent[n % model.sent.len()];
                    let packet = layered(epoch, index);
                    if player.down.thinned().is_some_and(|thinned| thinned.is_hollow(&packet).is_none()) {
                        continue;
                    }
                    let received = player.again(&packet);
                    prop_assert_eq!(&received.payload[..2], &(number as u16).to_be_bytes());
                    model.is_whole(index, received.payload.len() > 2)?;
                    prop_assert!(received.payload.len() == 2 || said(&received.payload[2..]).1 == index);
                    received
                }
                Step::Change => {
                    let all = model.missing.drain(..).chain(model.sent.drain(..).map(|(index, _)| index));
                    for lost in all.chain(model.left_out.drain()) {
                        prop_assert!(!player.down.wants_late(&layered(epoch + 1, lost)));
                    }
                    (epoch, index, model) = (epoch + 1, index + 1000, Model::default());
                    continue;
                }
                Step::Layer(begin) => {
                    let last = layered(epoch, index.saturating_sub(1));
                    (index, model) = (begin, Model::default());
                    player.down.switch_layer(Codec::Vp8, &layered(epoch, begin), 0, Some(&last));
                    continue;
                }
                Step::Thin(highest) => {
                    player.down.thin(Codec::Vp8, Highest::temporal(highest));
                    prop_assert_eq!(player.down.highest(), Highest::temporal(highest));
                    continue;
                }
                Step::Late(_) | Step::Again(_) | Step::Skip(_) => continue,
            };
            prop_assert!(nonces.insert((received.ssrc, received.number)), "{received:?} repeats a nonce");
            prop_assert_eq!(received.transport_number, transport_number);
            transport_number = transport_number.wrapping_add(1);
            for &(index, number) in &model.sent {
                prop_assert_eq!(player.down.index_of(number as u16), Some(index));
            }
        }
        let sent = &model.sent;
        prop_assert!(sent.windows(2).all(|w| (w[0].0 < w[1].0) == (w[0].1 < w[1].1)));
    }
}

/// A packet of VP9 in three spatial and three temporal layers, by its index: two packets a layer frame, a key picture every eight.
fn spatial(epoch: u32, index: u64) -> Packet {
    let (picture, spatial, at) = (index / 6, (index / 2 % 3) as u8, index % 2);
    let is_key = picture % 8 == 0;
    let temporal = [0, 2, 1, 2][picture as usize % 4];
    let bounds = if at == 0 { 0x08 } else { 0x04 } | if is_key { 0 } else { 0x40 };
    let layers = temporal << 5 | if temporal == 0 { 0x10 } else { 0 } | spatial << 1 | u8::from(spatial > 0);
    let [high, low] = (picture as u16 & 0x7fff | 0x8000).to_be_bytes();
    let header = if is_key && spatial == 0 { 0x82 } else { 0x86 };
    let payload = [&[0xa0 | bounds, high, low, layers, 0, header][..], &index.to_be_bytes()].concat();
    let clear = ClearPacket {
        position: Position { epoch, index, timestamp: (picture as u32).wrapping_mul(3000) },
        marker: index % 6 == 5,
        facts: facts(Codec::Vp9, &payload),
        arrival: Instant::now(),
        capture: None,
        dependency_descriptor: &[],
        payload: &payload,
    };
    Packet::new(&clear).expect("short")
}

fn up_to(spatial: u8, temporal: u8) -> Highest {
    Highest { spatial, temporal }
}

/// The indices that a player gets of those, and which of them end its pictures.
fn given(player: &mut Player, indices: std::ops::Range<u64>) -> Vec<(u64, bool)> {
    let received = indices.filter_map(|index| player.next_if_given(&spatial(0, index)));
    received.map(|packet| (said(&packet.payload).1, packet.marker)).collect()
}

#[test]
fn the_last_packet_of_the_highest_spatial_layer_that_is_given_ends_the_picture() {
    let mut player = Player::new(Some(RTX), 0);
    player.down.join_at(0);
    // The second picture has begun.
    assert_eq!(given(&mut player, 0..7).len(), 7);
    player.down.thin(Codec::Vp9, up_to(1, ALL));
    let ends = |picture: u64, last: u64| (0..=last).map(move |at| (picture * 6 + at, at == last));
    assert_eq!(given(&mut player, 7..12), ends(1, 5).skip(1).collect::<Vec<_>>(), "and is given to its end");
    assert_eq!(given(&mut player, 12..24), ends(2, 3).chain(ends(3, 3)).collect::<Vec<_>>());
    player.down.thin(Codec::Vp9, up_to(0, 1));
    // Of the highest temporal layer nothing is given.
    assert_eq!(given(&mut player, 24..48), ends(4, 1).chain(ends(6, 1)).collect::<Vec<_>>());
    player.down.thin(Codec::Vp9, Highest::ALL);
    assert_eq!(given(&mut player, 48..60), ends(8, 5).chain(ends(9, 5)).collect::<Vec<_>>(), "a key picture");
    for (index, marker) in [(11, true), (13, false), (15, true), (25, true), (53, true)] {
        assert_eq!(player.again(&spatial(0, index)).marker, marker, "a repetition of {index}");
    }
}

#[test]
fn spatial_layers_come_back_with_a_key_picture_alone_and_temporal_ones_before() {
    let mut player = Player::new(None, 0);
    player.down.join_at(0);
    player.down.thin(Codec::Vp9, up_to(0, 0));
    let layers = |given: Vec<(u64, bool)>| {
        let mut all: Vec<(u64, u64)> = given.into_iter().map(|(index, _)| (index / 6, index / 2 % 3)).collect();
        all.dedup();
        all
    };
    assert_eq!(layers(given(&mut player, 0..30)), [(0, 0), (4, 0)], "a bound holds from the first packet on");
    player.down.thin(Codec::Vp9, Highest::ALL);
    assert_eq!(player.down.lacks(), Some(Lacked::SpatialLayers));
    assert_eq!(layers(given(&mut player, 30..54)), [(8, 0), (8, 1), (8, 2)]);
    assert_eq!(layers(given(&mut player, 54..60)), [(9, 0), (9, 1), (9, 2)]);
    assert!(player.down.is_between_frames());
    player.down.thin(Codec::Vp9, up_to(1, ALL));
    given(&mut player, 60..64);
    assert!(player.down.is_between_frames(), "the picture has ended for the player");
}

#[test]
fn what_comes_late_of_a_picture_goes_by_what_was_given_of_it() {
    let mut player = Player::new(Some(RTX), 0);
    player.down.join_at(0);
    player.down.thin(Codec::Vp9, up_to(1, ALL));
    given(&mut player, 0..9);
    // The end of the picture is missing, and the begin of what is left out of it.
    player.down.skip_to(11);
    assert_eq!(given(&mut player, 11..15).len(), 3);
    let end = player.late(&spatial(0, 9));
    assert!(end.marker && said(&end.payload).1 == 9);
    let hollow = player.late(&spatial(0, 10));
    assert!(!hollow.marker && hollow.payload.is_empty());
    assert!(player.again(&spatial(0, 9)).marker && !player.again(&spatial(0, 10)).marker);
    assert!(!player.down.has_left_out_picture(11), "a part of it was given");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is missing, late and changed: no layer frame is torn, none is given without those below it, a picture has one end at
    /// most, on the last packet of the highest frame that is given, and a repetition says what was said before.
    #[test]
    fn no_picture_of_several_spatial_layers_is_torn(
        steps in prop::collection::vec((0_usize..12, 0_usize..1000, 0_u8..4, 0_u8..4), 1..400),
    ) {
        let mut player = Player::new(Some(RTX), 0);
        let (mut index, mut missing) = (0, Vec::new());
        // What became of each packet: nothing of it, or its payload and marker.
        let mut fates: HashMap<u64, Option<(bool, bool)>> = HashMap::new();
        player.down.join_at(0);
        for (kind, n, most_spatial, most_temporal) in steps {
            match kind {
                0 if !fates.is_empty() => {
                    missing.push(index);
                    index += 1;
                }
                1 if !missing.is_empty() => {
                    let late = missing.swap_remove(n % missing.len());
                    if late < player.down.cursor().unwrap_or(0) && player.down.wants_late(&spatial(0, late)) {
                        let received = player.late(&spatial(0, late));
                        fates.insert(late, Some((!received.payload.is_empty(), received.marker)));
                    }
                }
                2 => {
                    let of = |most: u8| if most == 3 { ALL } else { most };
                    player.down.thin(Codec::Vp9, up_to(of(most_spatial), of(most_temporal)));
                }
                3 => {
                    let sent: Vec<u64> = fates.iter().filter_map(|(index, fate)| fate.map(|_| *index)).collect();
                    let Some(again) = sent.get(n % sent.len().max(1)) else { continue };
                    if player.down.has_given(&spatial(0, *again)) {
                        let received = player.again(&spatial(0, *again));
                        prop_assert_eq!(fates[again], Some((received.payload.len() > 2, received.marker)), "{}", again);
                    }
                }
                _ => {
                    let received = player.next_if_given(&spatial(0, index));
                    fates.insert(index, received.map(|packet| (!packet.payload.is_empty(), packet.marker)));
                    index += 1;
                }
            }
        }
        for picture in 0..index / 6 {
            let fate = |spatial: u64, at: u64| fates.get(&(picture * 6 + spatial * 2 + at)).copied();
            let is_given = |fate: Option<(bool, bool)>| fate.is_some_and(|(is_given, _)| is_given);
            let frames: Vec<Vec<Option<(bool, bool)>>> =
                (0..3).map(|spatial| (0..2).filter_map(|at| fate(spatial, at)).collect()).collect();
            for frame in &frames {
                let torn = frame.iter().any(|fate| is_given(*fate)) && frame.iter().any(|fate| !is_given(*fate));
                prop_assert!(!torn, "{}: {:?}", picture, frames);
            }
            let known: Vec<bool> = frames.iter().filter_map(|frame| Some(is_given(*frame.first()?))).collect();
            prop_assert!(known.windows(2).all(|pair| pair[0] || !pair[1]), "{}: {:?}", picture, frames);
            let flat: Vec<(bool, bool)> = frames.iter().flatten().flatten().copied().collect();
            let ends = flat.iter().filter(|(_, marker)| *marker).count();
            prop_assert!(ends <= 1 && flat.iter().all(|(is_given, marker)| *is_given || !marker), "{:?}", frames);
            let is_whole = frames.iter().all(|frame| frame.len() == 2);
            let last = flat.iter().rposition(|(is_given, _)| *is_given);
            prop_assert!(!is_whole || last.is_none_or(|last| flat[last].1), "{}: {:?}", picture, frames);
        }
    }
}

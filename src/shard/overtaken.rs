//! What a keyframe would overtake.
//!
//! A keyframe rests on nothing: a receiver that has it whole decodes it, and what was to be shown before it and is not whole then is
//! never shown (libwebrtc drops it). What is lost just before a keyframe is repaired too late for that: its loss takes a round trip to
//! be known here, and longer if what asks for it is lost as well. So who loses packets by chance gets what it was sent in that time once
//! more as a keyframe begins, unasked. That is paid by those alone, and only where it is little beside the group of pictures.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::fanout::{DownTrack, MAX_DATAGRAM, SendBatch};
use crate::media::Packet;

use super::adaptation::Adaptation;
use super::core::Shard;
use super::message::{LayerIndex, SlotKey, TableId};
use super::points::Choice;
use super::session::{Part, Session};

/// What it takes beside the round trip until a packet is asked for: at the end of a frame one is missed with the next frame, and what asks
/// for it may be lost as well, after which Chromium asks again in 100 ms.
const NOTICED: Duration = Duration::from_millis(150);

/// At most a packet for so many since the keyframe before, and so many in all: a quarter of a second of 5 Mbit/s.
const SHARE: u64 = 4;
const MOST: u64 = 128;

/// At most so many at once, and the next after so long: a keyframe is on the same way.
const BURST: u64 = 12;
const TICK: Duration = Duration::from_millis(5);

/// Players that get something once more, the next first.
pub(super) type Queue = VecDeque<Again>;

/// What is left for one of them.
#[derive(Debug)]
pub(super) struct Again {
    player: SlotKey,
    layer: LayerIndex,
    /// Indices of the layer. The newest goes first: of what is older more has been repaired.
    first: u64,
    end: u64,
    pub(super) due: Instant,
}

impl Shard {
    /// A keyframe of a layer goes out now, from this packet on.
    pub(super) fn note_keyframe(&mut self, now: Instant, id: TableId, layer: LayerIndex, first: &Packet) {
        let Some(track) = self.tables.get_mut(&id).and_then(|table| table.video.get_mut(layer.0)) else { return };
        let keyframe = first.index;
        let has_begun = keyframe.checked_sub(1).and_then(|before| track.ring.get(before));
        if has_begun.is_some_and(|before| before.timestamp == first.timestamp) {
            return;
        }
        let Some(before) = track.last_keyframe.replace(keyframe).filter(|before| *before < keyframe) else { return };
        let earliest = keyframe - ((keyframe - before) / SHARE).min(MOST);
        for slot in &track.players {
            let Some(session) = self.sessions[*slot as usize].session.as_deref() else { continue };
            let Some(player) = session.player().filter(|player| player.path.is_losing()) else { continue };
            if !player.video.as_ref().is_some_and(DownTrack::has_rtx) {
                continue;
            }
            let since = now.checked_sub(player.time_to_miss(now) + NOTICED);
            let packets = (earliest..keyframe).rev().filter_map(|index| track.ring.get(index));
            if let Some(first) = packets.take_while(|packet| Some(packet.arrival) >= since).last() {
                let (first, end) = (first.index, keyframe);
                self.overtaken.push_back(Again { player: session.key, layer, first, end, due: now });
            }
        }
    }

    /// Sends what is due; `false` when the batch is to be sent first.
    pub(super) fn send_overtaken(&mut self, now: Instant, batch: &mut SendBatch) -> bool {
        while self.overtaken.front().is_some_and(|again| now >= again.due) {
            if !batch.is_empty() && !batch.has_room_for_run(BURST as usize, MAX_DATAGRAM + 2) {
                return false;
            }
            let Some(mut again) = self.overtaken.pop_front() else { break };
            let from = again.first.max(again.end.saturating_sub(BURST));
            self.send_once_more(now, &again, from, batch);
            again.end = from;
            if again.first < again.end {
                again.due = now + TICK;
                self.overtaken.push_back(again);
            }
        }
        true
    }

    fn send_once_more(&mut self, now: Instant, again: &Again, from: u64, batch: &mut SendBatch) {
        let send_time = self.send_time(now);
        let slot = &mut self.sessions[again.player.slot as usize];
        let is_still = |session: &&mut Session| session.key == again.player;
        let Some(session) = slot.session.as_deref_mut().filter(is_still) else { return };
        let Some(table) = self.tables.get_mut(&session.table) else { return };
        let allowance = session.endpoint.allowance(now);
        let Part::Player(player) = &mut session.part else { return };
        if player.layer != again.layer || player.is_between_layers() {
            return;
        }
        let (Some(track), Some(down)) = (table.video.get(player.layer.0), player.video.as_mut()) else { return };
        let Some(egress) = session.endpoint.egress() else { return };
        let class = &table.video_classes.classes[down.class];
        let points = table.bounds.points(session.bound).for_class(track.codec, class);
        let choice = Choice { layer: player.layer, highest: down.highest() };
        let (stamps, before) = (track.stamps(&table.spec, send_time), (player.transport_number, batch.bytes().len()));
        let mut sent = 0;
        // What the cursor has not passed was never sent.
        let end = again.end.min(down.cursor().unwrap_or(0));
        for packet in (from..end).filter_map(|index| track.ring.get(index)) {
            let len = packet.payload().len();
            if !down.has_given(packet) {
                continue;
            }
            let has_room = |adaptation: &mut Box<Adaptation>| adaptation.may_repair(now, points, choice, len);
            if sent == allowance
                || !batch.has_room(MAX_DATAGRAM + 2)
                || !player.adaptation.as_mut().is_none_or(has_room)
                || !player.repairs.take_unasked(now)
            {
                break;
            }
            self.catch_up_layout.rebuild(class, &stamps, std::iter::once(&**packet));
            let layout = self.catch_up_layout.get(0);
            sent += usize::from(down.retransmit(packet, layout, &mut player.transport_number, egress, batch));
        }
        table.report.retransmissions += sent as u64;
        player.note_sent(now, before.0, batch.bytes().len() - before.1);
        session.endpoint.spend(now, sent);
    }
}

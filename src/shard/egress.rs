//! The way of packets out: control first, then late packets, then what is new for all, then the replay for joiners.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fanout::{DownTrack, Layout, MAX_DATAGRAM, SendBatch};
use crate::media::{AbsSendTime, MediaKind, Packet};
use crate::rtc::TransportAddress;
use crate::rtc::srtp::RtpSealer;

use super::adaptation::Adaptation;
use super::core::{Shard, Slot};
use super::ledger::count_left_out;
use super::message::{LayerIndex, TableId, TableState, TrackId};
use super::session::{Part, Player};
use super::table::{Table, Track};

/// The most packets that one flush lays out: a frame of 300 KB.
const FLUSH_PACKETS: usize = 256;

/// Packets for one player for which room is found at once, so that a full batch does not cut its run in two: a frame, or
/// of a large keyframe as much as one message takes.
const RUN: usize = 32;

/// A batch of a flush that has so much goes out before the flush goes on: some tenths of a millisecond, for which control, answers
/// to bets among it, waits.
const SLICE_MESSAGES: usize = 32;
const SLICE_BYTES: usize = 192 * 1024;

/// Players whose state is loaded together.
const TOUCHED: usize = 16;

/// How long a flush waits for the rest of a frame that has begun to arrive: its packets come as fast as the publisher's
/// network lets them, and each flush costs every player a run of its own.
const FRAME_HOLD: Duration = Duration::from_micros(500);

/// How often joiners get their next share of the cached GOP.
const CATCH_UP_TICK: Duration = Duration::from_millis(2);

/// A joiner's share is at most so many packets a tick.
const CATCH_UP_CHUNK: usize = 16;

/// A batch of a track's packets on its way to the table's players. Outlives a full send buffer: it goes on where it
/// stopped.
#[derive(Debug)]
pub(super) struct Flush {
    table: TableId,
    track: TrackId,
    /// The packets arrived too late for the flush that was theirs.
    late: bool,
    packets: Vec<Arc<Packet>>,
    /// Track indices: players at `start` or within get the packets and then stand at `end`.
    start: u64,
    end: u64,
    next_player: usize,
    /// Players that are not at the live edge.
    behind: Vec<u32>,
}

/// A player as a flush sees it.
struct Recipient<'a> {
    down: &'a mut DownTrack,
    transport_number: &'a mut u16,
    egress: (&'a RtpSealer, TransportAddress),
    /// Packets that may be sent there now: few until the player has proved to be there.
    allowance: usize,
    catching_up: bool,
    adaptation: Option<&'a mut Adaptation>,
    /// Frames that are left out for it.
    left_out: u64,
}

impl<'a> Recipient<'a> {
    /// `None` for a player that does not have the track, whose pair is not nominated, or to which nothing may be sent
    /// now.
    fn of(now: Instant, sessions: &'a mut [Slot], slot: u32, kind: MediaKind) -> Option<Self> {
        let session = sessions[slot as usize].session.as_deref_mut()?;
        let allowance = session.endpoint.allowance(now);
        if allowance == 0 {
            return None;
        }
        let egress = session.endpoint.egress()?;
        let Part::Player(player) = &mut session.part else { return None };
        let Player { video, audio, transport_number, catching_up, adaptation, .. } = player;
        let down = if kind == MediaKind::Audio { audio } else { video };
        let (catching_up, adaptation) = (*catching_up, adaptation.as_deref_mut());
        Some(Self { down: down.as_mut()?, transport_number, egress, allowance, catching_up, adaptation, left_out: 0 })
    }
}

/// How far a flush got with a player.
enum Served {
    /// The player has what the flush has for it.
    Done,
    /// The send buffer is full; the player's cursor says where to go on.
    Partly,
    /// The player is not at the live edge.
    Behind,
}

impl Flush {
    /// The first packet that it has of a keyframe.
    fn keyframe(&self) -> Option<&Packet> {
        let keyframe = self.packets.iter().find(|packet| packet.facts.keyframe).filter(|_| !self.late)?;
        self.packets.iter().find(|packet| packet.timestamp == keyframe.timestamp).map(|first| &**first)
    }

    /// What is new, for a player at the live edge.
    fn serve(&self, to: &mut Recipient<'_>, layout: &Layout, batch: &mut SendBatch) -> Served {
        let changed = !to.catching_up && self.packets.first().is_some_and(|p| to.down.is_before_epoch(p.epoch));
        if self.track == TrackId::Audio {
            // Sound is joined anywhere.
            to.down.join_at(self.start);
        } else if changed {
            // A source that has changed is joined at its keyframe.
            let keyframe = self.packets.iter().find(|p| p.facts.keyframe || p.facts.parameter_sets);
            let Some(keyframe) = keyframe else { return Served::Behind };
            to.down.join_at(keyframe.index);
        }
        let Some(cursor) = to.down.cursor().filter(|cursor| *cursor >= self.start) else {
            return if to.catching_up { Served::Done } else { Served::Behind };
        };
        let first = self.packets.partition_point(|p| p.index < cursor);
        for (n, packet) in self.packets.iter().enumerate().skip(first).take(to.allowance) {
            let begins_run = (n - first).is_multiple_of(RUN);
            if begins_run && !has_room_for_run(batch, self.packets.len() - n) || !batch.has_room(MAX_DATAGRAM) {
                return Served::Partly;
            }
            to.down.skip_to(packet.index);
            let left_out = to.down.send_next(packet, layout.get(n), to.transport_number, to.egress, batch);
            to.left_out += u64::from(left_out);
        }
        // The rest waits in the ring: once there is no limit, the player catches up from its cursor.
        if self.packets.len() - first <= to.allowance {
            to.down.skip_to(self.end);
        }
        Served::Done
    }

    /// What came after the flush that would have taken it, for players whose cursor has passed it. No cursor remembers
    /// what was sent late, so a player is served at once or in the next batch, and where a whole batch is too small, it goes
    /// without the rest.
    fn serve_late(&self, to: &mut Recipient<'_>, layout: &Layout, batch: &mut SendBatch) -> Served {
        if !has_room_for_run(batch, self.packets.len()) {
            return Served::Partly;
        }
        for (n, packet) in self.packets.iter().enumerate().take(to.allowance) {
            if to.down.wants_late(packet) && batch.has_room(MAX_DATAGRAM) {
                to.down.send_late(packet, layout.get(n), to.transport_number, to.egress, batch);
            }
        }
        Served::Done
    }
}

/// A track waits until then; `held_until` is for the first of them.
fn hold(held_until: &mut Option<Instant>, until: Instant) {
    *held_until = Some(held_until.map_or(until, |earlier| earlier.min(until)));
}

/// Loads what a flush reads first of the next players. Each has left the caches since the last frame, and to wait for all of
/// them at once takes hardly longer than to wait for one.
fn touch(now: Instant, sessions: &[Slot], players: &[u32], kind: MediaKind) {
    for slot in &players[..players.len().min(TOUCHED)] {
        let Some(session) = sessions[*slot as usize].session.as_deref() else { continue };
        let Some(player) = session.player() else { continue };
        let down = player.down(kind).map(|down| (down.cursor(), down.sent()));
        let way = (session.endpoint.allowance(now), session.endpoint.egress().is_some());
        std::hint::black_box((down, way, player.transport_number, player.catching_up));
    }
}

/// Whether a run of at most [`RUN`] packets fits, or would not fit better into another batch.
fn has_room_for_run(batch: &SendBatch, packets: usize) -> bool {
    batch.is_empty() || batch.has_room_for_run(packets.min(RUN), MAX_DATAGRAM)
}

impl Shard {
    /// Fills `batch` with datagrams to send; `false` when nothing is left.
    ///
    /// Late packets go first and nothing is sealed between their arrival and their flush, so that a player's cursor
    /// still says what the player got when they arrived: this is what keeps a nonce from being used twice. Before it is
    /// `false`, nothing may be handed to the shard but answers to bets, by which no session ends and no packet comes, and
    /// datagrams of DTLS, whose sessions begin and end afterwards.
    pub fn poll_transmit(&mut self, now: Instant, batch: &mut SendBatch) -> bool {
        self.is_sending = self.fill(now, batch);
        if !self.is_sending {
            self.remove_ended(now);
        }
        self.is_sending
    }

    /// `false` when nothing is left.
    fn fill(&mut self, now: Instant, batch: &mut SendBatch) -> bool {
        batch.clear();
        if self.control.take(batch) {
            return true;
        }
        while self.flush.is_some() || self.begin_flush(now) {
            if !self.run_flush(now, batch) {
                return true;
            }
            self.end_flush(now);
        }
        if !self.send_overtaken(now, batch) {
            return true;
        }
        if self.catch_up_due.is_some_and(|at| now >= at) && !self.catch_up(now, batch) {
            return true;
        }
        if self.probe_due.is_some_and(|at| now >= at) {
            self.send_padding(now, batch);
        }
        !batch.is_empty()
    }

    /// `now` for headers that are laid out.
    pub(super) fn send_time(&self, now: Instant) -> AbsSendTime {
        AbsSendTime::from_ntp(self.ntp(now).0)
    }

    /// Takes the next track that has something to send, and lays out its headers for every class.
    fn begin_flush(&mut self, now: Instant) -> bool {
        let send_time = self.send_time(now);
        self.held_until = None;
        let mut held = 0;
        while let Some(&(id, track_id)) = self.ready.get(held) {
            self.settle_changes(now, id);
            let Some(table) = self.tables.get_mut(&id) else {
                self.ready.remove(held);
                continue;
            };
            let Table { spec, video, audio, video_classes, audio_classes, .. } = table;
            let (track, classes) = match track_id {
                TrackId::Audio => (audio.as_mut(), audio_classes),
                TrackId::Video(LayerIndex(layer)) => (video.get_mut(layer), video_classes),
            };
            let track = match track {
                Some(track) if track.has_pending() => track,
                track => {
                    if let Some(track) = track {
                        track.queued = false;
                    }
                    self.ready.remove(held);
                    continue;
                }
            };
            if let Some(until) = track.unfinished_since().map(|at| at + FRAME_HOLD).filter(|until| now < *until) {
                hold(&mut self.held_until, until);
                held += 1;
                continue;
            }
            let no_players = track.players.is_empty();
            let head = track.ring.head();
            let next = track.flushed.unwrap_or(head).max(track.ring.oldest());
            let most = FLUSH_PACKETS as u64;
            let end = match track.is_paced() && self.config.pacing && !no_players {
                true => track.allowed(now, next, most),
                false => Ok(head.min(next + most)),
            };
            let end = match end {
                Ok(end) => end,
                Err(until) => {
                    hold(&mut self.held_until, until);
                    held += 1;
                    continue;
                }
            };
            if no_players {
                track.flushed = Some(head);
                track.late.clear();
                track.ending.clear();
                track.pacer.reset();
                continue;
            }
            let mut packets = std::mem::take(&mut self.scratch);
            packets.clear();
            let late = !track.late.is_empty();
            let (start, end) = if late {
                let taken = track.late.len().min(RUN);
                packets.extend(track.late.drain(..taken));
                packets.sort_unstable_by_key(|p| p.index);
                (0, 0)
            } else if !track.ending.is_empty() {
                let start = track.ending_from;
                let taken = track.ending.len().min(FLUSH_PACKETS);
                packets.extend(track.ending.drain(..taken));
                track.ending_from = packets.last().map_or(start, |p| p.index + 1);
                (start, track.ending_from)
            } else {
                packets.extend((next..end).filter_map(|index| track.ring.get(index).cloned()));
                track.flushed = Some(end);
                (next, end)
            };
            let stamps = track.stamps(spec, send_time);
            for (class, layout) in classes.classes.iter().zip(&mut classes.layouts) {
                layout.rebuild(class, &stamps, packets.iter().map(|p| &**p));
            }
            let next_player = 0;
            let behind = vec![];
            self.flush = Some(Flush { table: id, track: track_id, late, packets, start, end, next_player, behind });
            return true;
        }
        false
    }

    fn end_flush(&mut self, now: Instant) {
        let Some(mut flush) = self.flush.take() else { return };
        if let (TrackId::Video(layer), Some(keyframe)) = (flush.track, flush.keyframe()) {
            self.note_keyframe(now, flush.table, layer, keyframe);
        }
        flush.packets.clear();
        self.scratch = flush.packets;
        for slot in flush.behind {
            self.start_replay(now, slot, flush.table);
        }
    }

    /// Seals the batch for one player after the other; `false` when it is to be sent before it goes on.
    fn run_flush(&mut self, now: Instant, batch: &mut SendBatch) -> bool {
        let Some(flush) = &mut self.flush else { return true };
        let Some(table) = self.tables.get_mut(&flush.table) else { return true };
        let Table { video, audio, video_classes, audio_classes, report, unforwarded, .. } = table;
        let (track, classes) = match flush.track {
            TrackId::Audio => (audio.as_ref(), audio_classes),
            TrackId::Video(LayerIndex(layer)) => (video.get(layer), video_classes),
        };
        let Some(Track { players, .. }) = track else { return true };
        let kind = flush.track.kind();
        while let Some(&slot) = players.get(flush.next_player) {
            if flush.next_player.is_multiple_of(TOUCHED) {
                touch(now, &self.sessions, &players[flush.next_player..], kind);
            }
            if let Some(mut recipient) = Recipient::of(now, &mut self.sessions, slot, kind) {
                let layout = &classes.layouts[recipient.down.class];
                let before = recipient.down.sent().0;
                let noted = recipient.adaptation.is_some().then(|| (*recipient.transport_number, batch.bytes().len()));
                let served = match flush.late {
                    true => flush.serve_late(&mut recipient, layout, batch),
                    false => flush.serve(&mut recipient, layout, batch),
                };
                let sent = recipient.down.sent().0.wrapping_sub(before);
                if let (Some(adaptation), Some((first, len))) = (&mut recipient.adaptation, noted) {
                    adaptation.note_sent(now, first, *recipient.transport_number, batch.bytes().len() - len);
                }
                report.packets_forwarded += u64::from(sent);
                let (limited, left_out) = (recipient.allowance < usize::MAX, recipient.left_out);
                if left_out > 0 {
                    count_left_out(report, unforwarded, left_out);
                    withhold(&mut self.sessions, slot, left_out);
                }
                if limited {
                    spend(now, &mut self.sessions, slot, sent as usize);
                }
                match served {
                    Served::Done => {}
                    Served::Behind => flush.behind.push(slot),
                    Served::Partly => return false,
                }
            }
            flush.next_player += 1;
            let messages = batch.messages().len() + batch.tcp_messages().len();
            if messages >= SLICE_MESSAGES || batch.bytes().len() >= SLICE_BYTES {
                return false;
            }
        }
        true
    }

    /// A player whose video is not at the live edge, not started yet or behind: it replays the cached GOP.
    pub(super) fn start_replay(&mut self, now: Instant, slot: u32, id: TableId) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let has_media = table.state == TableState::Live;
        let Some(player) = self.sessions[slot as usize].session.as_mut().and_then(|s| s.player_mut()) else { return };
        let layer = player.layer;
        let Some(track) = table.track(TrackId::Video(layer)) else { return };
        let Some(down) = player.video.as_mut().filter(|_| !player.catching_up) else { return };
        // Nothing that it may have comes: what was cached of that is of long ago.
        if down.cursor().is_none() && table.is_silent(layer) {
            return;
        }
        if down.cursor().is_none() || down.is_before_epoch(track.ring.epoch()) {
            match track.joinable_from() {
                Some(start) => down.join_at(start),
                // Away from home the cached GOP may still be on its way: only a table that is live here lacks one.
                None if has_media => return self.await_keyframe(now, id, layer),
                None => return,
            }
        }
        player.catching_up = true;
        self.catching_up.push(slot);
        self.catch_up_due.get_or_insert(now);
    }

    /// Gives every joiner its share; `false` when the send buffer is full.
    fn catch_up(&mut self, now: Instant, batch: &mut SendBatch) -> bool {
        let share = share_of_replay(self.config.replay_bits_per_second);
        while let Some(&slot) = self.catching_up.get(self.catch_up_next) {
            if !batch.has_room_for_run(share, MAX_DATAGRAM) {
                return false;
            }
            if self.catch_up_player(now, slot, share, batch) {
                self.catching_up.swap_remove(self.catch_up_next);
            } else {
                self.catch_up_next += 1;
            }
        }
        self.catch_up_next = 0;
        self.catch_up_due = (!self.catching_up.is_empty()).then(|| now + CATCH_UP_TICK);
        true
    }

    /// The next packets of the cached GOP for one player; `true` when it is level with the others.
    fn catch_up_player(&mut self, now: Instant, slot: u32, share: usize, batch: &mut SendBatch) -> bool {
        let send_time = self.send_time(now);
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return true };
        let Some(table) = self.tables.get_mut(&session.table) else { return true };
        let allowance = session.endpoint.allowance(now);
        let share = share.min(allowance);
        let Part::Player(player) = &mut session.part else { return true };
        let (layer, classes) = (TrackId::Video(player.layer), &table.video_classes.classes);
        let (Some(track), Some(down)) = (table.track(layer), player.video.as_mut()) else { return true };
        let egress = session.endpoint.egress().filter(|_| allowance > 0);
        let goes_on = !player.change.as_ref().is_some_and(|change| change.has_left());
        let (Some(cursor), Some(egress), true) = (down.cursor(), egress, goes_on) else {
            player.catching_up = false;
            return true;
        };
        // What a flush has not taken yet is the flush's to send.
        let level = track.flushed.unwrap_or(cursor);
        let start = cursor.max(track.ring.oldest());
        let mut packets = std::mem::take(&mut self.scratch);
        packets.extend((start..level).filter_map(|i| track.ring.get(i).cloned()).take(share));
        let layout: &mut Layout = &mut self.catch_up_layout;
        let stamps = track.stamps(&table.spec, send_time);
        layout.rebuild(&classes[down.class], &stamps, packets.iter().map(|p| &**p));
        let before = (player.transport_number, batch.bytes().len());
        let (sent_before, mut left_out) = (down.sent().0, 0);
        for (n, packet) in packets.iter().enumerate() {
            down.skip_to(packet.index);
            left_out += u64::from(down.send_next(packet, layout.get(n), &mut player.transport_number, egress, batch));
        }
        table.report.packets_forwarded += u64::from(down.sent().0.wrapping_sub(sent_before));
        count_left_out(&mut table.report, &mut table.unforwarded, left_out);
        player.withheld.frames += left_out;
        let sent = packets.len();
        if packets.len() < share {
            down.skip_to(level);
        }
        let done = down.cursor().is_some_and(|c| c >= level);
        player.catching_up = !done;
        player.note_sent(now, before.0, batch.bytes().len() - before.1);
        packets.clear();
        self.scratch = packets;
        session.endpoint.spend(now, sent);
        done
    }
}

fn spend(now: Instant, sessions: &mut [Slot], slot: u32, packets: usize) {
    if let Some(session) = sessions[slot as usize].session.as_deref_mut() {
        session.endpoint.spend(now, packets);
    }
}

fn withhold(sessions: &mut [Slot], slot: u32, frames: u64) {
    if let Some(player) = sessions[slot as usize].session.as_deref_mut().and_then(|session| session.player_mut()) {
        player.withheld.frames += frames;
    }
}

/// Packets per tick at a replay rate, counted as full ones.
fn share_of_replay(bits_per_second: u64) -> usize {
    let bytes = bits_per_second / 8 * CATCH_UP_TICK.as_millis() as u64 / 1000;
    (bytes / 1200).clamp(1, CATCH_UP_CHUNK as u64) as usize
}

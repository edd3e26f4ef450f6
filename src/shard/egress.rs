//! The way of packets out: control first, then late packets, then what is new for all, then the replay for joiners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fanout::{DownTrack, Layout, MAX_DATAGRAM, SendBatch};
use crate::media::{MediaKind, Packet};
use crate::rtc::srtp::RtpSealer;

use super::core::Shard;
use super::message::{TableId, TableState};
use super::session::{Part, Session};
use super::table::Track;

/// The most packets that one flush lays out: a frame of 300 KB.
const FLUSH_PACKETS: usize = 256;

/// Packets for one player that lie side by side wherever their sizes allow it.
const RUN: usize = 32;

/// How often joiners get their next share of the cached GOP.
const CATCH_UP_TICK: Duration = Duration::from_millis(2);

/// A joiner's share is at least so many packets a tick.
const CATCH_UP_CHUNK: usize = 16;

/// A batch of a track's packets on its way to the table's players. Outlives a full send buffer: it goes on where it
/// stopped.
#[derive(Debug)]
pub(super) struct Flush {
    table: TableId,
    kind: MediaKind,
    /// The packets arrived too late for the flush that was theirs.
    late: bool,
    packets: Vec<Arc<Packet>>,
    /// Track indices: players at `start` or within get the packets and then stand at `end`.
    start: u64,
    end: u64,
    next_player: usize,
    /// Players that turned out not to be at the live edge; none allocates.
    lagging: Vec<u32>,
}

/// How far a player got in a flush.
enum Served {
    Done,
    /// It is behind, and nothing brings it up yet.
    Lagging,
    /// It goes on from its cursor in the next batch.
    BatchFull,
}

impl Flush {
    /// Seals for one player what it has not had, and says how many packets that was.
    fn serve(&self, session: &mut Session, track: &Track, batch: &mut SendBatch) -> (Served, u64) {
        let Part::Player(player) = &mut session.part else { return (Served::Done, 0) };
        let down = match self.kind {
            MediaKind::Audio => player.audio.as_mut(),
            MediaKind::Video => player.video.as_mut(),
        };
        let (Some(down), Some(egress)) = (down, session.endpoint.egress()) else { return (Served::Done, 0) };
        let layout = &track.layouts[down.class];
        let mut lane = Lane { layout, transport_number: &mut player.transport_number, egress, batch };
        if self.late {
            return self.serve_late(down, &mut lane);
        }
        let changed = !player.catching_up && self.packets.first().is_some_and(|p| down.is_before_epoch(p.epoch));
        if self.kind == MediaKind::Audio || changed {
            // Sound is joined anywhere. A source that has changed begins with this batch, the ring with it.
            down.join_at(self.start);
        }
        match down.cursor() {
            Some(cursor) if (self.start..self.end).contains(&cursor) => self.serve_new(down, cursor, &mut lane),
            Some(cursor) if cursor >= self.end => (Served::Done, 0),
            _ if player.catching_up => (Served::Done, 0),
            _ => (Served::Lagging, 0),
        }
    }

    fn serve_new(&self, down: &mut DownTrack, cursor: u64, lane: &mut Lane<'_>) -> (Served, u64) {
        let first = self.packets.partition_point(|p| p.index < cursor);
        let mut sent = 0;
        for (n, packet) in self.packets.iter().enumerate().skip(first) {
            if !lane.has_room(sent, self.packets.len() - n) {
                return (Served::BatchFull, sent);
            }
            down.skip_to(packet.index);
            down.send_next(packet, lane.layout.get(n), lane.transport_number, lane.egress, lane.batch);
            sent += 1;
        }
        down.skip_to(self.end);
        (Served::Done, sent)
    }

    /// All or nothing: the cursor does not tell which late packets a player has had.
    fn serve_late(&self, down: &mut DownTrack, lane: &mut Lane<'_>) -> (Served, u64) {
        if !lane.has_room(0, self.packets.len()) {
            return (Served::BatchFull, 0);
        }
        let mut sent = 0;
        for (n, packet) in self.packets.iter().enumerate() {
            // A batch that is too small for a run, empty as it is, cuts it short.
            if down.wants_late(packet) && lane.batch.has_room(MAX_DATAGRAM) {
                down.send_late(packet, lane.layout.get(n), lane.transport_number, lane.egress, lane.batch);
                sent += 1;
            }
        }
        (Served::Done, sent)
    }
}

/// The way from a track to one player.
struct Lane<'a> {
    layout: &'a Layout,
    transport_number: &'a mut u16,
    egress: (&'a RtpSealer, SocketAddr),
    batch: &'a mut SendBatch,
}

impl Lane<'_> {
    /// Whether another packet fits, the player having got `sent` and `left` being to come. At the beginning of each run
    /// there must be room for all of it: a run that is cut in two costs a message more.
    fn has_room(&self, sent: u64, left: usize) -> bool {
        let run = if sent.is_multiple_of(RUN as u64) && !self.batch.is_empty() { left.min(RUN) } else { 1 };
        self.batch.has_room_for_run(run, MAX_DATAGRAM)
    }
}

impl Shard {
    /// Fills `batch` with datagrams to send; `false` when nothing is left.
    ///
    /// Late packets go first and nothing is sealed between their arrival and their flush, so that a player's cursor
    /// still says what the player got when they arrived: this is what keeps a nonce from being used twice.
    pub fn poll_transmit(&mut self, now: Instant, batch: &mut SendBatch) -> bool {
        batch.clear();
        if !self.control.batch.is_empty() {
            std::mem::swap(batch, &mut self.control.batch);
            return true;
        }
        while self.flush.is_some() || self.begin_flush() {
            if !self.run_flush(batch) {
                return true;
            }
            self.end_flush(now);
        }
        if self.catch_up_due.is_some_and(|at| now >= at) && !self.catch_up(now, batch) {
            return true;
        }
        !batch.is_empty()
    }

    /// Takes the next track that has something to send, and lays out its headers for every class.
    fn begin_flush(&mut self) -> bool {
        while let Some(&(id, kind)) = self.ready.front() {
            let Some(table) = self.tables.get_mut(&id) else {
                self.ready.pop_front();
                continue;
            };
            let (playout_delay, state) = (table.spec.playout_delay, &mut table.players);
            let no_players = state.is_empty();
            let Some(track) = table.track_mut(kind).filter(|t| t.has_pending()) else {
                if let Some(track) = table.track_mut(kind) {
                    track.queued = false;
                }
                self.ready.pop_front();
                continue;
            };
            let head = track.ring.head();
            if no_players {
                track.flushed = Some(head);
                track.late.clear();
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
            } else {
                let start = track.flushed.unwrap_or(head).max(track.ring.oldest());
                let end = head.min(start + FLUSH_PACKETS as u64);
                packets.extend((start..end).filter_map(|index| track.ring.get(index).cloned()));
                track.flushed = Some(end);
                (start, end)
            };
            let offset = track.clock.and_then(|c| c.offset);
            for (class, layout) in track.classes.iter().zip(&mut track.layouts) {
                layout.rebuild(class, playout_delay, offset, packets.iter().map(|p| &**p));
            }
            self.flush = Some(Flush { table: id, kind, late, packets, start, end, next_player: 0, lagging: vec![] });
            return true;
        }
        false
    }

    fn end_flush(&mut self, now: Instant) {
        let Some(mut flush) = self.flush.take() else { return };
        flush.packets.clear();
        self.scratch = flush.packets;
        for slot in flush.lagging {
            self.start_replay(now, slot, flush.table);
        }
    }

    /// Seals the packets for one player after the other; `false` when the send buffer is full.
    fn run_flush(&mut self, batch: &mut SendBatch) -> bool {
        let Some(flush) = &mut self.flush else { return true };
        let Some(table) = self.tables.get_mut(&flush.table) else { return true };
        let track = match flush.kind {
            MediaKind::Audio => table.audio.as_ref(),
            MediaKind::Video => table.video.as_ref(),
        };
        let Some(track) = track else { return true };
        while let Some(&slot) = table.players.get(flush.next_player) {
            let session = self.sessions[slot as usize].session.as_deref_mut();
            let (served, packets) = session.map_or((Served::Done, 0), |session| flush.serve(session, track, batch));
            table.report.packets_forwarded += packets;
            match served {
                Served::Done => {}
                Served::Lagging => flush.lagging.push(slot),
                Served::BatchFull => return false,
            }
            flush.next_player += 1;
        }
        true
    }

    /// A player whose video is not at the live edge, not started yet or behind: it replays the cached GOP.
    pub(super) fn start_replay(&mut self, now: Instant, slot: u32, id: TableId) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let Some(track) = table.video.as_ref() else { return };
        let gop_start = track.ring.gop_start();
        let has_media = table.state == TableState::Live;
        let Some(player) = self.sessions[slot as usize].session.as_mut().and_then(|s| s.player_mut()) else { return };
        let Some(down) = player.video.as_mut().filter(|_| !player.catching_up) else { return };
        match (down.cursor(), gop_start) {
            (None, Some(start)) => down.join_at(start),
            // Away from home the cached GOP may still be on its way: only a table that is live here lacks one.
            (None, None) if has_media => return self.want_keyframe(now, id),
            (None, None) => return,
            (Some(_), _) => {}
        }
        player.catching_up = true;
        self.catching_up.push(slot);
        self.catch_up_due.get_or_insert(now);
    }

    /// Gives every joiner its share; `false` when the send buffer is full.
    fn catch_up(&mut self, now: Instant, batch: &mut SendBatch) -> bool {
        // No flush is under way: the memory for its packets is free.
        let mut packets = std::mem::take(&mut self.scratch);
        let mut has_room = true;
        while let Some(&slot) = self.catching_up.get(self.catch_up_next) {
            has_room = batch.is_empty() || batch.has_room_for_run(CATCH_UP_CHUNK, MAX_DATAGRAM);
            if !has_room {
                break;
            }
            if self.catch_up_player(slot, &mut packets, batch) {
                self.catching_up.swap_remove(self.catch_up_next);
            } else {
                self.catch_up_next += 1;
            }
        }
        packets.clear();
        self.scratch = packets;
        if has_room {
            self.catch_up_next = 0;
            self.catch_up_due = (!self.catching_up.is_empty()).then(|| now + CATCH_UP_TICK);
        }
        has_room
    }

    /// The next packets of the cached GOP for one player; `true` when it is level with the others.
    fn catch_up_player(&mut self, slot: u32, packets: &mut Vec<Arc<Packet>>, batch: &mut SendBatch) -> bool {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return true };
        let Some(table) = self.tables.get_mut(&session.table) else { return true };
        let playout_delay = table.spec.playout_delay;
        let Part::Player(player) = &mut session.part else { return true };
        let (Some(track), Some(down)) = (table.video.as_ref(), player.video.as_mut()) else { return true };
        let (Some(cursor), Some(egress)) = (down.cursor(), session.endpoint.egress()) else {
            player.catching_up = false;
            return true;
        };
        // What a flush has not taken yet is the flush's to send.
        let level = track.flushed.unwrap_or(cursor);
        let share = share_of_replay(self.config.replay_bits_per_second);
        let start = cursor.max(track.ring.oldest());
        packets.clear();
        packets.extend((start..level).filter_map(|i| track.ring.get(i).cloned()).take(share));
        let layout = &mut self.catch_up_layout;
        let offset = track.clock.and_then(|c| c.offset);
        layout.rebuild(&track.classes[down.class], playout_delay, offset, packets.iter().map(|p| &**p));
        for (n, packet) in packets.iter().enumerate() {
            if !batch.has_room(MAX_DATAGRAM) {
                return false;
            }
            down.skip_to(packet.index);
            down.send_next(packet, layout.get(n), &mut player.transport_number, egress, batch);
            table.report.packets_forwarded += 1;
        }
        if packets.len() < share {
            down.skip_to(level);
        }
        let done = down.cursor().is_some_and(|c| c >= level);
        player.catching_up = !done;
        done
    }
}

/// Packets per tick at a replay rate, counted as full ones.
fn share_of_replay(bits_per_second: u64) -> usize {
    let bytes = bits_per_second / 8 * CATCH_UP_TICK.as_millis() as u64 / 1000;
    (bytes / 1200).clamp(1, CATCH_UP_CHUNK as u64) as usize
}

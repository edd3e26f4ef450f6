//! The frame ledger: what became of the frames of a table, for each of its players.
//!
//! A frame counts once for each player of its track: as forwarded when all of it has come, or as lost, by where. What happens
//! behind the node only the players can say: that part of the ledger is [`TableQos`](crate::qos::TableQos)'s, which is told here
//! what a player was not given.

use std::time::{Duration, Instant};

use crate::fanout::DownTrack;
use crate::media::{FrameCounts, PayloadFacts};
use crate::qos::Breach;
use crate::rtc::TransportAddress;

use super::core::Shard;
use super::message::{LayerIndex, LossPlace, PeerMessage, ShardEvent, TableId, TableState, TrackId};
use super::report::{DropReason, TableReport};
use super::table::{Fresh, Table};

/// Frames that are found lost so long after a receive buffer overflowed were lost there. A packet is waited for half a second.
const LATELY: Duration = Duration::from_secs(2);

impl Shard {
    /// A packet came new into a track.
    pub(super) fn account(
        &mut self,
        now: Instant,
        id: TableId,
        track: TrackId,
        fresh: Fresh,
        bytes: usize,
        facts: &PayloadFacts,
    ) {
        let TrackId::Video(layer) = track else { return };
        let Some(table) = self.tables.get_mut(&id) else { return };
        table.bounds.count(layer, facts.spatial_layer, bytes, fresh.frame);
        let Some(known) = table.track_mut(track) else { return };
        if facts.keyframe {
            known.keyframe_wanted.satisfied();
        }
        let counts = known.take_frames(now);
        if counts != FrameCounts::default() {
            self.count_frames(now, id, layer, counts);
        }
    }

    /// Nothing more will come: what is missing is lost.
    pub(super) fn account_for_the_rest(&mut self, now: Instant, id: TableId) {
        for layer in (0..self.tables.get(&id).map_or(0, |table| table.video.len())).map(LayerIndex) {
            let track = self.tables.get_mut(&id).and_then(|table| table.track_mut(TrackId::Video(layer)));
            let Some(track) = track else { return };
            track.frames.flush(&track.ring);
            let counts = track.take_frames(now);
            self.count_frames(now, id, layer, counts);
        }
    }

    fn count_frames(&mut self, now: Instant, id: TableId, layer: LayerIndex, counts: FrameCounts) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        if table.home.is_some() && layer == table.best_layer() {
            table.report.frames_ingested += counts.whole;
            table.report.frames_lost_before_ingest += counts.lost;
        }
        let Some(track) = table.video.get_mut(layer.0) else { return };
        let mut players = track.players.len() as u64;
        let forwarded = counts.whole * players;
        for slot in &track.waiting {
            let session = self.sessions[*slot as usize].session.as_deref_mut();
            let Some(player) = session.and_then(|session| session.player_mut()) else { continue };
            let Some(change) = player.change.as_mut().filter(|change| change.has_left()) else { continue };
            // It gets nothing of the layer that it waits for.
            let missed = change.miss(counts);
            change.count(&mut table.report, missed);
            player.withheld.frames += missed + counts.lost - counts.vanished;
            players += 1;
        }
        table.count_forwarded(forwarded);
        let Some(track) = table.video.get_mut(layer.0) else { return };
        if counts.lost == 0 && counts.broken == 0 {
            return;
        }
        let is_overloaded = self.overloaded.is_some_and(|at| now < at + LATELY);
        let place = if is_overloaded { LossPlace::ReceiveBuffer } else { LossPlace::BeforeTheNode };
        // What home has, and this shard has not, was lost between them.
        let by_place = match (&table.home, place) {
            (Some(_), LossPlace::BeforeTheNode) => [counts.lost, 0, 0],
            (Some(_), LossPlace::ReceiveBuffer) => [0, counts.lost, 0],
            (None, _) => track.lost_before.take(counts.lost),
        };
        if counts.lost > 0 {
            let first = by_place.iter().position(|count| *count > 0).unwrap_or(0);
            track.broken_by = [Breach::BeforeTheNode, Breach::Overload, Breach::Queue][first];
        }
        let mut left_out = 0;
        for slot in &track.players {
            let session = self.sessions[*slot as usize].session.as_deref_mut();
            if let Some(player) = session.and_then(|session| session.player_mut()) {
                // One that was left out is counted already, and nobody waits for it to be forwarded.
                let is_left_out =
                    |down: &DownTrack| track.frames.last_lost().is_some_and(|lost| down.has_left_out_picture(lost));
                let has_none = counts.lost > counts.vanished && player.video.as_ref().is_some_and(is_left_out);
                left_out += u64::from(has_none);
                player.withheld.frames += counts.lost - counts.vanished - u64::from(has_none);
                player.withheld.broken[track.broken_by as usize] += counts.broken;
            }
        }
        table.unforwarded = table.unforwarded.saturating_sub(left_out);
        let mut dropped = by_place.map(|count| count * players);
        if let Some(count) = dropped.iter_mut().find(|count| **count > 0) {
            *count -= left_out;
        }
        let [by_ingest, by_overload, by_queue] = dropped;
        table.report.frames_dropped_ingest_loss += by_ingest;
        table.report.frames_dropped_node_overload += by_overload;
        table.report.frames_dropped_node_queue += by_queue;
        let Some(home) = table.home.as_ref().filter(|_| counts.lost > 0) else { return };
        for to in &home.subscribers {
            let message = PeerMessage::FramesLost { table: id, layer, count: counts.lost, place };
            self.events.push_back(ShardEvent::Peer { to: *to, message });
        }
    }

    /// The kernel did not take a run of packets for `destination`.
    pub fn handle_unsent(&mut self, destination: TransportAddress) {
        let Ok(slot) = self.session_at(destination) else { return };
        let session = self.sessions[slot as usize].session.as_deref_mut();
        if let Some(player) = session.and_then(|session| session.player_mut()) {
            player.withheld.runs += 1;
        }
    }

    /// Notes whether what arrives overflows.
    pub(super) fn watch_overload(&mut self, now: Instant) {
        let dropped = self.report.dropped[DropReason::ReceiveBufferFull as usize];
        if std::mem::replace(&mut self.overflows, dropped) != dropped {
            self.overloaded = Some(now);
        }
    }
}

/// So many frames were left out for players whose paths carry less. A frame is as a rule counted as forwarded before it is left
/// out; the total never goes back for that, as it is a counter, and is right again with the next frame.
pub(super) fn count_left_out(report: &mut TableReport, unforwarded: &mut u64, frames: u64) {
    report.frames_dropped_congestion += frames;
    *unforwarded += frames;
}

/// Away from home: frames that home has lost and told of, and that have not been missed here yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LostBefore {
    by_ingest: u64,
    by_overload: u64,
}

impl LostBefore {
    /// Home has lost so many there.
    pub(super) fn add(&mut self, count: u64, place: LossPlace) {
        match place {
            LossPlace::BeforeTheNode => self.by_ingest += count,
            LossPlace::ReceiveBuffer => self.by_overload += count,
        }
    }

    /// So many are missed here: how many of them home has lost, by where, and how many came no further than from there to here.
    fn take(&mut self, lost: u64) -> [u64; 3] {
        let by_ingest = lost.min(self.by_ingest);
        let by_overload = (lost - by_ingest).min(self.by_overload);
        self.by_ingest -= by_ingest;
        self.by_overload -= by_overload;
        [by_ingest, by_overload, lost - by_ingest - by_overload]
    }
}

impl Table {
    /// So many frames have come whole, one for each player; those that were left out for players are none of them.
    pub(super) fn count_forwarded(&mut self, frames: u64) {
        let left_out = self.unforwarded.min(frames);
        self.unforwarded -= left_out;
        self.report.frames_forwarded += frames - left_out;
    }

    /// Brings the gauges up to date.
    pub(super) fn refresh_report(&mut self, now: Instant) {
        self.report.players = self.players.len() as u64;
        self.report.qos = self.qos.report(now, self.silent);
        let best = self.track(TrackId::Video(self.best_layer()));
        let gop_cached = best.is_some_and(|track| track.ring.gop_start().is_some());
        let fps = best.map(|track| track.frames.fps(now));
        self.report.gop_cached = gop_cached;
        let Some(home) = &mut self.home else { return };
        self.report.live = self.state == TableState::Live;
        self.report.ingest_bits_per_second = home.rate.per_second(now) * 8.0;
        self.report.ingest_fps = fps.unwrap_or(self.report.ingest_fps);
    }
}

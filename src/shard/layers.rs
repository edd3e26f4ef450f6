//! Which layer of a publisher's simulcast a player gets, and how it goes from one to another.
//!
//! Each layer is a track of its own. A player goes on with another one only at a whole keyframe of that, and at the end of a
//! frame of the one it has: until then it gets what it had, as long as that comes. So no frame is torn, whatever is lost in
//! those moments. Only who has more than its path carries gets no more of it at once, so that the keyframe finds the queues on
//! the path empty. Its numbers and times go on without a break ([`DownTrack::switch_layer`](crate::fanout::DownTrack::switch_layer)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fanout::DownTrack;
use crate::media::{Codec, Packet, PictureSize, facts, picture_size};
use crate::rtc::sdp::SimulcastLayer;

use super::core::Shard;
use super::inbound::{Carried, Inbound};
use super::ladder::{Ladder, Seen};
use super::message::{LayerIndex, LayerOffer, PeerMessage, ShardEvent, TableId, TrackId};
use super::table::Table;

/// How long a whole keyframe waits for the end of the old layer's frame. Longer than a repair takes from a studio nearby.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often the shards are told what the layers take, if nothing else changes.
const RATES: Duration = Duration::from_secs(1);

/// A player is to go on with another layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) layer: LayerIndex,
    /// A keyframe from this index on will do: older ones are of before the picture that the player has.
    from: u64,
    /// Since when that keyframe is whole.
    whole_since: Option<Instant>,
    /// The path does not carry the layer that the player has: it is sent no more of that.
    gives_up: bool,
    /// It is not sent any more. Frames that were counted as forwarded by then, and a flush had still to come.
    left: Option<u64>,
}

impl Change {
    /// The old layer is not sent any more.
    pub(super) fn has_left(&self) -> bool {
        self.left.is_some()
    }
}

impl Ladder {
    /// The layers of an offer.
    pub(super) fn of(layers: &[SimulcastLayer]) -> Self {
        let declared = |layer: &SimulcastLayer| layer.max_picture.map(|(width, height)| PictureSize { width, height });
        Self::new(layers.iter().map(declared))
    }
}

impl Inbound {
    /// A packet of a layer came. Returns the layers to choose from if their order has changed.
    pub(super) fn rank(&mut self, now: Instant, layer: LayerIndex, carried: &Carried<'_>) -> Option<Vec<LayerOffer>> {
        let ladder = self.ladder.as_mut()?;
        let picture = picture_of(self.codec, carried.payload);
        let seen = Seen { layer, len: carried.payload.len(), begins_frame: carried.begins_frame, picture };
        ladder.handle_packet(now, &seen);
        ladder.take_changed().then(|| ladder.offers(now))
    }
}

/// The size that a keyframe's beginning names.
fn picture_of(codec: Codec, payload: &[u8]) -> Option<PictureSize> {
    let facts = facts(codec, payload);
    if facts.keyframe || facts.parameter_sets { picture_size(codec, payload) } else { None }
}

impl Shard {
    /// Home: which layers come has changed, or what they take.
    pub(super) fn offer_layers(&mut self, now: Instant, id: TableId, offers: Vec<LayerOffer>) {
        let Some(home) = self.tables.get_mut(&id).and_then(|table| table.home.as_mut()) else { return };
        home.layers_told = Some(now);
        let shared: Arc<[LayerOffer]> = offers.into();
        for to in &home.subscribers {
            let message = PeerMessage::Layers { table: id, offers: Arc::clone(&shared) };
            self.events.push_back(ShardEvent::Peer { to: *to, message });
        }
        self.layers_offered(now, id, &shared);
    }

    /// Home: tells what the layers take, now and then.
    pub(super) fn refresh_offers(&mut self, now: Instant, id: TableId) {
        let Some(home) = self.tables.get(&id).and_then(|table| table.home.as_ref()) else { return };
        if home.layers_told.is_some_and(|told| now < told + RATES) {
            return;
        }
        let session = home.publisher.and_then(|slot| self.sessions[slot as usize].session.as_deref_mut());
        let publisher = session.and_then(|session| session.publisher_mut());
        let ladder = publisher.and_then(|publisher| publisher.video_mut()?.ladder.as_deref());
        if let Some(offers) = ladder.map(|ladder| ladder.offers(now)).filter(|offers| !offers.is_empty()) {
            self.offer_layers(now, id, offers);
        }
    }

    /// On every shard: the layers to choose from, the best first.
    pub(super) fn layers_offered(&mut self, now: Instant, id: TableId, offers: &[LayerOffer]) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let order = |offers: &[LayerOffer]| offers.iter().map(|offer| offer.layer).collect::<Vec<_>>();
        let changed = order(&table.layers) != order(offers);
        table.layers.clear();
        table.layers.extend_from_slice(offers);
        if changed {
            for slot in table.players.clone() {
                self.choose_layer(now, slot);
            }
        }
    }

    /// Sees to it that a player gets the layer that is best for it.
    pub(super) fn choose_layer(&mut self, now: Instant, slot: u32) {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let id = session.table;
        let Some(table) = self.tables.get_mut(&id) else { return };
        let Some(player) = session.player_mut().filter(|player| player.video.is_some()) else { return };
        let next = player.next_layer();
        let can_probe = player.video.as_ref().is_some_and(DownTrack::has_rtx);
        let adapted = player.adaptation.as_mut().map(|a| a.decide(now, &table.layers, next, can_probe));
        let wanted = adapted.flatten().unwrap_or(table.best_layer());
        if wanted == next || table.track(TrackId::Video(wanted)).is_none() {
            return;
        }
        let given_up = player.change.take();
        if let Some(track) = given_up.and_then(|change| table.track_mut(TrackId::Video(change.layer))) {
            track.waiting.retain(|waiting| *waiting != slot);
        }
        let left = given_up.and_then(|change| change.left);
        // Who gets no more of a layer has to begin with a keyframe, also where it is the same layer again.
        if wanted == player.layer && left.is_none() {
            return;
        }
        if player.video.as_ref().is_some_and(|down| down.newest_timestamp().is_none()) {
            // It has had nothing yet: nothing has to go on.
            move_player(table, slot, player.layer, wanted);
            player.layer = wanted;
            player.video.iter_mut().for_each(|down| down.restart());
            return self.start_replay(now, slot, id);
        }
        let gives_up = player
            .adaptation
            .as_ref()
            .is_some_and(|adaptation| adaptation.is_too_much(now, &table.layers, player.layer));
        if let Some(track) = table.track_mut(TrackId::Video(wanted)) {
            let from = track.ring.head();
            player.change = Some(Change { layer: wanted, from, whole_since: None, gives_up, left });
            track.waiting.push(slot);
        }
        self.want_keyframe(now, id, wanted);
    }

    /// Lets the players go on with another layer for whom it is time.
    pub(super) fn settle_changes(&mut self, now: Instant, id: TableId) {
        for layer in (0..self.tables.get(&id).map_or(0, |table| table.video.len())).map(LayerIndex) {
            let Some(track) = self.tables.get(&id).and_then(|table| table.track(TrackId::Video(layer))) else { return };
            if track.waiting.is_empty() {
                continue;
            }
            let keyframe = track.ring.gop_start().and_then(|start| track.ring.get(start)).cloned();
            for slot in track.waiting.clone() {
                self.leave_layer(id, slot);
                if let Some(keyframe) = &keyframe {
                    self.settle_change(now, id, slot, keyframe);
                }
            }
        }
    }

    /// A player that is to get no more of its layer leaves it at the end of a frame.
    fn leave_layer(&mut self, id: TableId, slot: u32) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let session = self.sessions[slot as usize].session.as_deref_mut();
        let Some(player) = session.and_then(|session| session.player_mut()) else { return };
        let (Some(change), Some(down)) = (&mut player.change, &player.video) else { return };
        if !change.gives_up || change.left.is_some() || !down.is_between_frames() {
            return;
        }
        let Some(track) = table.track_mut(TrackId::Video(player.layer)) else { return };
        track.players.retain(|other| *other != slot);
        change.left = Some(down.cursor().map_or(0, |cursor| track.frames_since(cursor)));
    }

    /// A player goes on with `keyframe` of the layer that it waits for, if that is new, and if the layer that it has has come
    /// to the end of a frame or does not do so in time.
    fn settle_change(&mut self, now: Instant, id: TableId, slot: u32, keyframe: &Packet) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let session = self.sessions[slot as usize].session.as_deref_mut();
        let Some(player) = session.and_then(|session| session.player_mut()) else { return };
        let Some(change) = player.change.as_mut().filter(|change| keyframe.index >= change.from) else { return };
        let Some(down) = player.video.as_mut() else { return };
        let (old, new) = (player.layer, change.layer);
        let whole_since = *change.whole_since.get_or_insert(now);
        let had = table.track(TrackId::Video(old));
        let is_whole = change.left.is_some() || had.is_none_or(|track| track.has_no_hole());
        let between_frames = down.is_between_frames() && is_whole;
        if !between_frames && now < whole_since + PATIENCE {
            return;
        }
        // Counted as forwarded, though a flush had still to come.
        let pending = || had.zip(down.cursor()).map_or(0, |(track, cursor)| track.frames_since(cursor));
        let (unsent, gives_up) = (change.left.unwrap_or_else(pending), change.left.is_some());
        let at = table.same_time(old, new, keyframe).unwrap_or(keyframe.timestamp);
        let skipped = down.newest_timestamp().map_or(0, |newest| at.wrapping_sub(newest));
        let codec = had.map(|track| track.codec);
        let last = had.zip(down.cursor()).and_then(|(track, cursor)| track.last_before(cursor));
        if let Some(codec) = codec {
            down.switch_layer(codec, keyframe, at, last);
        }
        player.layer = new;
        player.change = None;
        move_player(table, slot, old, new);
        let Some(track) = table.track_mut(TrackId::Video(new)) else { return };
        track.waiting.retain(|waiting| *waiting != slot);
        let (skipped, replayed) = (track.frames.frames_within(skipped), track.frames_since(keyframe.index));
        let skipped = skipped + u64::from(!between_frames);
        player.withheld.frames += skipped;
        table.report.layer_switches += 1;
        match gives_up {
            true => table.report.frames_dropped_congestion += skipped,
            false => table.report.frames_dropped_layer_switch += skipped,
        }
        table.report.frames_forwarded += replayed.saturating_sub(unsent);
        self.start_replay(now, slot, id);
    }
}

/// A player is no longer one of those that get the old layer, but of those that get the new.
fn move_player(table: &mut Table, slot: u32, old: LayerIndex, new: LayerIndex) {
    if let Some(track) = table.track_mut(TrackId::Video(old)) {
        track.players.retain(|other| *other != slot);
    }
    if let Some(track) = table.track_mut(TrackId::Video(new)) {
        track.players.push(slot);
    }
}

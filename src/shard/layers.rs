//! Which layer of a publisher's simulcast a player gets, and how it goes from one to another.
//!
//! Each layer is a track of its own. A player goes on with another one only at a whole keyframe of that, and at the end of a
//! frame of the one it has: until then it gets what it had, as long as that comes. So no frame is torn, whatever is lost in
//! those moments. Only who has more than its path carries gets no more of it at once, so that the keyframe finds the queues on
//! the path empty; and who has a layer above the highest that it may have ([`super::bounds`]), of a publisher whose layers
//! turn out to go the other way. Its numbers and times go on without a break
//! ([`DownTrack::switch_layer`](crate::fanout::DownTrack::switch_layer)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fanout::Highest;
use crate::media::{Codec, FrameCounts, MediaKind, Packet, PictureSize, facts, picture_size};
use crate::rtc::sdp::SimulcastLayer;

use super::adaptation::{Padding, Rest};
use super::core::{Shard, Slot};
use super::inbound::{Carried, Inbound};
use super::ladder::{Ladder, Seen};
use super::ledger::count_left_out;
use super::message::{LayerIndex, LayerOffer, PeerMessage, ShardEvent, TableId, TrackId};
use super::points::Choice;
use super::report::TableReport;
use super::table::{Table, Track};

/// How long a whole keyframe waits for the end of the old layer's frame. Longer than a repair takes from a studio nearby.
const PATIENCE: Duration = Duration::from_millis(100);

/// What came before a layer was silent for so long is a picture of long ago.
const SILENCE: Duration = Duration::from_millis(250);

/// How often the shards are told what the layers take, if nothing else changes.
const RATES: Duration = Duration::from_secs(1);

/// A player is to go on with another layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) layer: LayerIndex,
    /// A keyframe from this index on will do: older ones are of before the picture that the player has.
    from: u64,
    /// When it was decided.
    since: Instant,
    /// Since when that keyframe is whole.
    whole_since: Option<Instant>,
    /// The path does not carry the layer that the player has, or it is above the highest that it may have: it is sent no
    /// more of that.
    gives_up: bool,
    /// It is above that.
    is_above: bool,
    /// It is not sent any more, and misses frames.
    left: Option<Missed>,
    /// Up to which it is to get the new layer's spatial and temporal layers.
    highest: Highest,
    /// It gets nothing for a time: its path carries less than the only layer.
    rest: Option<Rest>,
}

/// Frames that a player without a layer was not given.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    /// All that were counted since it has none, in whatever way.
    all: u64,
    /// Of those, the whole ones that were decided last and are not booked: it may go on with them.
    last: u64,
}

impl Change {
    /// The old layer is not sent any more.
    pub(super) fn has_left(&self) -> bool {
        self.left.is_some()
    }

    /// So many frames it did not get on the way.
    pub(super) fn count(&self, report: &mut TableReport, frames: u64) {
        let by_cause = match self.is_above {
            true => &mut report.frames_dropped_layer_switch,
            false => &mut report.frames_dropped_congestion,
        };
        *by_cause += frames;
    }

    /// So many frames of the layer that it waits for were decided. Returns those that it has missed for certain.
    pub(super) fn miss(&mut self, counts: FrameCounts) -> u64 {
        let Some(missed) = self.left.as_mut().filter(|_| counts.whole > 0) else { return 0 };
        missed.all += counts.whole + counts.lost;
        std::mem::replace(&mut missed.last, counts.whole)
    }

    /// No keyframe is to be asked for yet.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rest.is_some_and(|rest| now < rest.asks_from)
    }
}

impl Ladder {
    /// The layers of an offer.
    pub(super) fn of(layers: &[SimulcastLayer]) -> Self {
        let declared = |layer: &SimulcastLayer| layer.max_picture.map(|(width, height)| PictureSize { width, height });
        Self::new(layers.iter().map(declared))
    }
}

/// The layers of a publisher.
#[derive(Debug)]
pub(super) struct Ranked {
    /// Those to choose from, the best first.
    pub(super) offers: Vec<LayerOffer>,
    /// All of them, from the least to the best.
    pub(super) order: Vec<LayerIndex>,
}

impl Ranked {
    /// The only encoding.
    pub(super) fn single(offer: LayerOffer) -> Self {
        Self { offers: vec![offer], order: vec![offer.layer] }
    }

    fn by(ladder: &mut Ladder, now: Instant) -> Self {
        Self { offers: ladder.offers(now), order: ladder.order(now).to_vec() }
    }
}

impl Table {
    /// Whether others come and this one does not.
    pub(super) fn is_silent(&self, layer: LayerIndex) -> bool {
        !self.layers.is_empty() && self.layers.iter().all(|offer| offer.layer != layer)
    }

    /// No layer comes any more.
    pub(super) fn forget_layers(&mut self) {
        self.layers.clear();
        self.bounds.forget_layers();
    }
}

impl Track {
    /// The layer is one of those that come again.
    fn resume(&mut self, now: Instant) {
        let newest = self.ring.head().checked_sub(1).and_then(|newest| self.ring.get(newest));
        if newest.is_some_and(|newest| now >= newest.arrival + SILENCE) {
            self.resumed_at = self.ring.head();
        }
    }

    /// Where who has nothing of the layer begins.
    pub(super) fn joinable_from(&self) -> Option<u64> {
        self.ring.gop_start().filter(|start| *start >= self.resumed_at)
    }
}

impl Inbound {
    /// A packet of a layer came. Returns the layers to choose from if they or their order may have changed.
    pub(super) fn rank(&mut self, now: Instant, layer: LayerIndex, carried: &Carried<'_>) -> Option<Ranked> {
        let ladder = self.ladder.as_mut()?;
        let picture = picture_of(self.codec, carried.payload);
        let seen = Seen { layer, len: carried.payload.len(), begins_frame: carried.begins_frame, picture };
        ladder.handle_packet(now, &seen);
        ladder.take_changed().then(|| Ranked::by(ladder, now))
    }
}

/// The size that a keyframe's beginning names.
fn picture_of(codec: Codec, payload: &[u8]) -> Option<PictureSize> {
    let facts = facts(codec, payload);
    if facts.keyframe || facts.parameter_sets { picture_size(codec, payload) } else { None }
}

impl Shard {
    /// Home: which layers come has changed, or what they take.
    pub(super) fn offer_layers(&mut self, now: Instant, id: TableId, Ranked { mut offers, order }: Ranked) {
        let Some(home) = self.tables.get_mut(&id).and_then(|table| table.home.as_mut()) else { return };
        home.layers_told = Some(now);
        for offer in &mut offers {
            let source = home.video.get(offer.layer.0);
            offer.shares = source.map(|source| source.rates.shares(now)).unwrap_or_default();
        }
        let (shared, order): (Arc<[LayerOffer]>, Arc<[LayerIndex]>) = (offers.into(), order.into());
        for to in &home.subscribers {
            let message = PeerMessage::Layers { table: id, offers: Arc::clone(&shared), order: Arc::clone(&order) };
            self.events.push_back(ShardEvent::Peer { to: *to, message });
        }
        self.layers_offered(now, id, &shared, &order);
    }

    /// Home: tells what the layers take, now and then.
    pub(super) fn refresh_offers(&mut self, now: Instant, id: TableId) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let Some(home) = &mut table.home else { return };
        home.video.iter_mut().for_each(|source| source.rates.mark(now));
        if home.layers_told.is_some_and(|told| now < told + RATES) {
            return;
        }
        let session = home.publisher.and_then(|slot| self.sessions[slot as usize].session.as_deref_mut());
        let publisher = session.and_then(|session| session.publisher_mut());
        let ladder = publisher.and_then(|publisher| publisher.video_mut()?.ladder.as_deref_mut());
        let ranked = match ladder {
            Some(ladder) => Ranked::by(ladder, now),
            // The only encoding is told of where that is news: most tables have nothing to choose from.
            None => {
                let (Some(told), Some(source)) = (table.layers.first(), home.video.first()) else { return };
                // Of a simulcast whose publisher has left, nothing is new.
                if table.bounds.order().len() > 1 {
                    return;
                }
                let shares = source.rates.shares(now);
                let offer = LayerOffer { layer: told.layer, bits_per_second: shares.total(), shares };
                if !offer.is_news_after(told) {
                    return;
                }
                Ranked::single(offer)
            }
        };
        if !ranked.offers.is_empty() {
            self.offer_layers(now, id, ranked);
        }
    }

    /// A publisher begins whose layers may be those of the one before.
    pub(super) fn expect_order(&mut self, id: TableId) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let slot = table.home.as_ref().and_then(|home| home.publisher);
        let session = slot.and_then(|slot| self.sessions[slot as usize].session.as_deref_mut());
        let video = session.and_then(|session| session.publisher_mut()?.video_mut());
        if let Some(ladder) = video.and_then(|video| video.ladder.as_deref_mut()) {
            ladder.expect_order(table.bounds.order());
        }
    }

    /// On every shard: the layers to choose from, the best first, and all of them, from the least to the best.
    pub(super) fn layers_offered(&mut self, now: Instant, id: TableId, offers: &[LayerOffer], order: &[LayerIndex]) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let changed = !table.layers.iter().map(|offer| offer.layer).eq(offers.iter().map(|offer| offer.layer));
        for offer in offers {
            let resumes = table.is_silent(offer.layer);
            if let Some(track) = table.video.get_mut(offer.layer.0).filter(|_| resumes) {
                track.resume(now);
            }
        }
        table.layers.clear();
        table.layers.extend_from_slice(offers);
        if table.bounds.take(offers, order) || changed {
            for slot in table.players.clone() {
                self.choose_layer(now, slot);
            }
        }
    }

    /// A player is to get more layers, and no frame of the publisher's lets it in: not all of them send such
    /// frames.
    fn help_to_climb(&mut self, now: Instant, slot: u32) {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let id = session.table;
        let Some(player) = session.player_mut() else { return };
        let (Some(adaptation), Some(down)) = (&mut player.adaptation, &player.video) else { return };
        let layer = player.layer;
        let asks = adaptation.climbs(now, down.lacks());
        if asks && player.change.is_none() && player.keyframes.take(now) {
            self.want_keyframe(now, id, layer);
        }
    }

    /// Sees to it that a player gets the layer that is best for it.
    pub(super) fn choose_layer(&mut self, now: Instant, slot: u32) {
        self.help_to_climb(now, slot);
        let may_probe = self.may_probe();
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let (id, bound) = (session.table, session.bound);
        let Some(table) = self.tables.get_mut(&id).filter(|table| !table.layers.is_empty()) else { return };
        let Some(player) = session.player_mut() else { return };
        let (Some(down), Some(codec)) = (&mut player.video, table.codec(MediaKind::Video)) else { return };
        let current = Choice { layer: player.layer, highest: down.highest() };
        let pending = player.change.as_ref().map(|change| Choice { layer: change.layer, highest: change.highest });
        let (layer, next) = (player.layer, pending.unwrap_or(current));
        let points = table.points_for(down.class, bound);
        let padding = match table.video_classes.classes[down.class].transport_cc {
            Some(_) if down.has_rtx() && may_probe => Padding::Possible,
            Some(_) if down.has_rtx() => Padding::NotNow,
            _ => Padding::Impossible,
        };
        let adapted = player.adaptation.as_mut().map(|a| a.decide(now, points, next, padding));
        let best = table.best_for(down.class, bound);
        let Choice { layer: wanted, highest } = adapted.flatten().unwrap_or(best);
        let is_above = !table.bounds.allows(bound, layer);
        let gives_up = is_above || player.adaptation.as_ref().is_some_and(|a| a.is_too_much(now, points, current));
        if wanted == next.layer || table.track(TrackId::Video(wanted)).is_none() {
            match &mut player.change {
                _ if wanted != next.layer => {}
                Some(change) => change.highest = highest,
                None => {
                    let rest = player.adaptation.as_mut().and_then(|a| a.rest(now, points, current));
                    down.thin(codec, highest);
                    if let (Some(rest), true) = (rest, down.newest_timestamp().is_some()) {
                        self.begin_rest(now, slot, rest);
                    }
                    return;
                }
            }
            // What was to be changed for another reason may be urgent by now.
            if let Some(change) = player.change.as_mut().filter(|change| gives_up && !change.gives_up) {
                (change.gives_up, change.is_above) = (true, is_above);
                table.leaving.push(slot);
            }
            return;
        }
        let given_up = player.change.take().map(|change| *change);
        if let Some(track) = given_up.and_then(|change| table.track_mut(TrackId::Video(change.layer))) {
            track.waiting.retain(|waiting| *waiting != slot);
        }
        let left = given_up.and_then(|change| change.left);
        // Who gets no more of a layer has to begin with a keyframe, also where it is the same layer again.
        if wanted == layer && left.is_none() {
            return down.thin(codec, highest);
        }
        if down.newest_timestamp().is_none() {
            // It has had nothing yet: nothing has to go on.
            down.restart();
            down.thin(codec, highest);
            player.layer = wanted;
            move_player(table, slot, layer, wanted);
            return self.start_replay(now, slot, id);
        }
        // A request takes from the picture of everybody: a player has as many for this as for its PLIs.
        let may_ask = player.adaptation.is_none() || player.keyframes.take(now);
        let Some(track) = table.track_mut(TrackId::Video(wanted)) else { return };
        let from = track.next_keyframe_from(now);
        track.waiting.push(slot);
        track.waiting_from = track.waiting_from.min(from);
        // One that is no haste waits with others for whom one is asked for now and then.
        let asks = may_ask && !track.has_keyframe_from(from) && (gives_up || left.is_some() || track.is_due_again(now));
        let (layer, since, whole_since, rest) = (wanted, now, None, None);
        let change = Change { layer, from, since, whole_since, gives_up, is_above, left, highest, rest };
        player.change = Some(Box::new(change));
        if gives_up && left.is_none() {
            table.leaving.push(slot);
        }
        if asks {
            self.want_keyframe(now, id, wanted);
        }
    }

    /// A player gets no more of the only layer until `rest` ends, and goes on with a keyframe after that. Whole frames, or none: what it
    /// would get of them otherwise is what its full queue lets through.
    fn begin_rest(&mut self, now: Instant, slot: u32, rest: Rest) {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let Some(table) = self.tables.get_mut(&session.table) else { return };
        let Some(player) = session.player_mut() else { return };
        let Some(down) = &player.video else { return };
        let (layer, highest) = (player.layer, down.highest());
        let Some(track) = table.track_mut(TrackId::Video(layer)) else { return };
        let from = track.ring.head();
        track.waiting.push(slot);
        track.waiting_from = track.waiting_from.min(from);
        let change = Change {
            layer,
            from,
            since: now,
            whole_since: None,
            gives_up: true,
            is_above: false,
            left: None,
            highest,
            rest: Some(rest),
        };
        player.change = Some(Box::new(change));
        table.leaving.push(slot);
    }

    /// Lets the players go on with another layer for whom it is time.
    pub(super) fn settle_changes(&mut self, now: Instant, id: TableId) {
        self.leave_layers(now, id);
        for layer in (0..self.tables.get(&id).map_or(0, |table| table.video.len())).map(LayerIndex) {
            let track = self.tables.get_mut(&id).and_then(|table| table.track_mut(TrackId::Video(layer)));
            let Some(track) = track.filter(|track| !track.waiting.is_empty()) else { continue };
            let start = track.ring.gop_start().filter(|start| *start >= track.waiting_from);
            let Some(keyframe) = start.and_then(|start| track.ring.get(start)).cloned() else { continue };
            let replayed = track.frames_since(keyframe.index);
            let (mut moved, mut rest, mut rest_from) = (Vec::new(), std::mem::take(&mut track.waiting), u64::MAX);
            rest.retain(|slot| {
                let settled = self.settle_change(now, id, *slot, &keyframe, replayed);
                match settled {
                    Settled::Moved => moved.push(*slot),
                    Settled::Waits(from) => rest_from = rest_from.min(from),
                    Settled::Gone => {}
                }
                matches!(settled, Settled::Waits(_))
            });
            self.move_players(now, id, layer, moved, (rest, rest_from));
        }
    }

    /// `moved` get the layer from now on, `rest` still wait for it.
    fn move_players(
        &mut self,
        now: Instant,
        id: TableId,
        layer: LayerIndex,
        moved: Vec<u32>,
        (rest, rest_from): (Vec<u32>, u64),
    ) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        if !moved.is_empty() {
            // In one pass, however many there are.
            let sessions = &self.sessions;
            for (at, track) in table.video.iter_mut().enumerate() {
                track
                    .players
                    .retain(|slot| layer_of(sessions, *slot) == Some(LayerIndex(at)) && LayerIndex(at) != layer);
            }
            let all = table.players.iter().filter(|slot| layer_of(sessions, **slot) == Some(layer));
            if let Some(track) = table.video.get_mut(layer.0) {
                track.players.clear();
                track.players.extend(all);
            }
        }
        if let Some(track) = table.video.get_mut(layer.0) {
            (track.waiting, track.waiting_from) = (rest, rest_from);
        }
        for slot in moved {
            self.start_replay(now, slot, id);
        }
    }

    /// Players that are to get no more of their layers leave these at the end of a frame.
    fn leave_layers(&mut self, now: Instant, id: TableId) {
        let Some(table) = self.tables.get_mut(&id).filter(|table| !table.leaving.is_empty()) else { return };
        let (sessions, Table { video: tracks, leaving, report, unforwarded, .. }) = (&mut self.sessions, table);
        leaving.retain(|slot| {
            let session = sessions[*slot as usize].session.as_deref_mut();
            let Some(player) = session.and_then(|session| session.player_mut()) else { return false };
            let (Some(change), Some(down)) = (&mut player.change, &player.video) else { return false };
            // It may have been decided otherwise meanwhile.
            if !change.gives_up || change.left.is_some() {
                return false;
            }
            if !down.is_between_frames() && now < change.since + PATIENCE {
                return true;
            }
            if let Some(track) = tracks.get(player.layer.0) {
                // They were counted as forwarded, though a flush had still to come.
                let unsent = down.cursor().map_or(0, |cursor| track.frames_since(cursor));
                change.count(report, unsent);
                *unforwarded += unsent;
                player.withheld.frames += unsent;
                change.left = Some(Missed { all: unsent, last: 0 });
            }
            false
        });
        for (at, track) in tracks.iter_mut().enumerate() {
            track.players.retain(|slot| layer_of(sessions, *slot) == Some(LayerIndex(at)));
        }
    }

    /// A player goes on with `keyframe` of the layer that it waits for, if that is new, and if the layer that it has has come
    /// to the end of a frame or does not do so in time. `replayed` frames have ended since the keyframe.
    fn settle_change(&mut self, now: Instant, id: TableId, slot: u32, keyframe: &Packet, replayed: u64) -> Settled {
        let Some(table) = self.tables.get_mut(&id) else { return Settled::Gone };
        let session = self.sessions[slot as usize].session.as_deref_mut();
        let Some(player) = session.and_then(|session| session.player_mut()) else { return Settled::Gone };
        let (Some(change), Some(down)) = (&mut player.change, &mut player.video) else { return Settled::Gone };
        if let (Some(rest), Some(track)) = (change.rest, table.track(TrackId::Video(change.layer)))
            && now < rest.ends
        {
            change.from = track.ring.head();
        }
        if keyframe.index < change.from {
            return Settled::Waits(change.from);
        }
        let (old, new) = (player.layer, change.layer);
        let whole_since = *change.whole_since.get_or_insert(now);
        let had = table.track(TrackId::Video(old));
        let is_whole = change.left.is_some() || had.is_none_or(|track| track.has_no_hole());
        let between_frames = down.is_between_frames() && is_whole;
        if !between_frames && now < whole_since + PATIENCE {
            return Settled::Waits(change.from);
        }
        // Counted as forwarded, though a flush had still to come.
        let pending = || had.zip(down.cursor()).map_or(0, |(track, cursor)| track.frames_since(cursor));
        let (left, unsent) = (change.left, change.left.map_or_else(pending, |_| 0));
        // After a rest it is the same layer, whose times go on as they are.
        let same_time = if old == new { None } else { table.same_time(old, new, keyframe) };
        let at = same_time.unwrap_or(keyframe.timestamp);
        let skipped = down.newest_timestamp().map_or(0, |newest| at.wrapping_sub(newest));
        let last = had.zip(down.cursor()).and_then(|(track, cursor)| track.last_before(cursor));
        if let Some(codec) = had.map(|track| track.codec) {
            down.thin(codec, change.highest);
            down.switch_layer(codec, keyframe, at, last);
        }
        player.layer = new;
        player.held_up_to = 0;
        let change = player.change.take();
        let Some(track) = table.track(TrackId::Video(new)) else { return Settled::Moved };
        let skipped = track.frames.frames_within(skipped) + u64::from(!between_frames);
        let behind = track.frames_until(keyframe.index);
        table.report.layer_switches += u64::from(old != new);
        let (missed, replayed) = match left {
            None => {
                table.report.frames_dropped_layer_switch += skipped;
                player.withheld.frames += skipped;
                (0, replayed.saturating_sub(unsent))
            }
            // Other layers' frames come at other times.
            Some(missed) if old != new => (skipped.saturating_sub(missed.all - missed.last), replayed),
            Some(missed) => {
                count_left_out(&mut table.report, &mut table.unforwarded, behind);
                player.withheld.frames += behind;
                (missed.last.saturating_sub(replayed), replayed.min(missed.last))
            }
        };
        if let Some(change) = change {
            change.count(&mut table.report, missed);
        }
        player.withheld.frames += missed;
        table.count_forwarded(replayed);
        Settled::Moved
    }
}

/// What became of a player that waited for a keyframe.
#[derive(Clone, Copy, Debug)]
enum Settled {
    /// It goes on with it.
    Moved,
    /// It waits for one from that index on, or for the end of a frame.
    Waits(u64),
    /// It does not wait any more.
    Gone,
}

/// The layer that a player is sent, if it is sent any.
fn layer_of(sessions: &[Slot], slot: u32) -> Option<LayerIndex> {
    let player = sessions[slot as usize].session.as_deref().and_then(|session| session.player());
    player.filter(|player| player.video.is_some() && !player.is_between_layers()).map(|player| player.layer)
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

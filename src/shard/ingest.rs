//! The way of a publisher's packet: opened, put on the track's numbering, into the ring, to whoever forwards it.

use std::time::{Duration, Instant};

use crate::media::{
    AbsCaptureTime, ClearPacket, Codec, MAX_DESCRIPTOR, MediaKind, Packet, PayloadFacts, Placement, RtpHeader, facts,
    red_facts,
};
use crate::rtc::TransportAddress;
use crate::rtc::sdp::TableMedia;

use super::core::{Shard, drop_reason};
use super::feedback::ntp_at;
use super::inbound::route;
use super::layers::Ranked;
use super::message::{
    CaptureClock, LayerIndex, LayerOffer, LocalMedia, PeerMessage, ShardEvent, TableId, TableSpec, TableState,
    TrackClock, TrackId,
};
use super::report::{DropReason, EndCause};
use super::source::Source;
use super::table::{Fresh, Table};

use std::sync::Arc;

/// How long a publisher that has connected may take for its first packet.
const FIRST_PACKET: Duration = Duration::from_secs(10);

/// What a publisher sent, off the wire and in the clear.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) track: TrackId,
    pub(super) sequence_number: u16,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) capture: Option<AbsCaptureTime>,
    /// The value of its dependency descriptor, empty where it has none.
    pub(super) dependency_descriptor: &'a [u8],
    /// The payload is RED (RFC 2198).
    pub(super) red: bool,
    pub(super) payload: &'a [u8],
}

impl Arrival<'_> {
    /// What the payload says; `None` for RED that makes no sense, of which nothing could be given to a player without it.
    fn facts(&self, codec: Codec) -> Option<PayloadFacts> {
        if !self.red {
            return Some(facts(codec, self.payload));
        }
        Some(red_facts(self.payload)).filter(|facts| facts.primary.is_some())
    }
}

impl Shard {
    pub(super) fn handle_rtp(
        &mut self,
        now: Instant,
        source: TransportAddress,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let slot = self.session_at(source)?;
        let header = RtpHeader::parse_header(datagram).map_err(|_| DropReason::RtpMalformed)?;
        let session = self.sessions[slot as usize].session.as_deref_mut().ok_or(DropReason::UnknownSource)?;
        let table = session.table;
        let opened = session.endpoint.open_rtp(now, source, datagram, header.header_len).map_err(drop_reason)?;
        let publisher = session.publisher_mut().ok_or(DropReason::UnexpectedRtp)?;
        let clear = &datagram[..opened.len];
        let header = RtpHeader::parse(clear).map_err(|_| DropReason::RtpMalformed)?;
        let payload = header.payload(clear);
        publisher.note_transport_number(now, &header, clear);
        let route = route(&mut publisher.inbound, now, &header, clear).ok_or(DropReason::UnexpectedRtp)?;
        let inbound = &mut publisher.inbound[route.medium];
        let Some(carried) = inbound.receive(now, &route, &header, opened.index, payload) else { return Ok(()) };
        let extension = |id: Option<u8>| header.extension(clear, id?);
        let capture = extension(inbound.extensions.abs_capture_time);
        let descriptor = extension(inbound.extensions.dependency_descriptor);
        let track = match inbound.kind {
            MediaKind::Audio => TrackId::Audio,
            MediaKind::Video => TrackId::Video(route.layer),
        };
        let arrival = Arrival {
            track,
            sequence_number: carried.sequence_number,
            timestamp: header.timestamp,
            marker: header.marker,
            capture: capture.and_then(AbsCaptureTime::decode),
            dependency_descriptor: descriptor.unwrap_or_default(),
            red: inbound.is_red(header.payload_type),
            payload: carried.payload,
        };
        let ranked = inbound.rank(now, route.layer, &carried);
        if inbound.take_restart(route.layer)
            && let Some(home) = self.tables.get_mut(&table).and_then(|table| table.home.as_mut())
            && let Some(source) = home.source_mut(track)
        {
            source.timeline.restart();
        }
        if let Some(ranked) = ranked {
            self.offer_layers(now, table, ranked);
        }
        // The datagram's memory belongs to the caller: no borrow of self is left here.
        self.ingest(now, table, arrival)
    }

    /// A publisher inside the process begins: the demo's dealer.
    pub fn add_local_publisher(&mut self, now: Instant, spec: &TableSpec, media: TableMedia) {
        self.table(spec);
        // Nobody need be there yet.
        self.watch_tables(now);
        self.begin_publication(now, spec.id, media, 1);
    }

    /// A packet of a publisher inside the process.
    pub fn handle_local(&mut self, now: Instant, table: TableId, media: &LocalMedia) {
        let track = match media.kind {
            MediaKind::Audio => TrackId::Audio,
            MediaKind::Video => TrackId::Video(LayerIndex(0)),
        };
        let arrival = Arrival {
            track,
            sequence_number: media.sequence_number,
            timestamp: media.timestamp,
            marker: media.marker,
            capture: None,
            dependency_descriptor: &[],
            red: false,
            payload: &media.payload,
        };
        // After a stall that was longer than the grace time, the table begins anew.
        if let Some(Table { home: Some(home), state: TableState::Absent, video, audio: None, .. }) =
            self.tables.get(&table)
            && video.is_empty()
            && home.publisher.is_none()
        {
            let media = home.media.clone();
            self.begin_publication(now, table, media, 1);
        }
        if let Err(reason) = self.ingest(now, table, arrival) {
            self.dropped(reason, 1);
        }
    }

    /// Prepares the table's tracks for a publisher: the same codec goes on where the last one stopped; another codec
    /// ends the players, who negotiated the old one.
    pub(super) fn begin_publication(&mut self, now: Instant, id: TableId, media: TableMedia, layers: usize) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let changed = [MediaKind::Audio, MediaKind::Video]
            .into_iter()
            .any(|kind| table.codec(kind).is_some_and(|present| codec_of(&media, kind) != Some(present)));
        if changed {
            self.end_table(now, id);
        }
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let Some(codec) = codec_of(&media, kind) else { continue };
            match kind {
                MediaKind::Audio => self.begin_track(id, TrackId::Audio, codec, &media),
                // Also those that this publisher does not send: what it does send may have had another number before.
                MediaKind::Video => {
                    let known = self.tables.get(&id).map_or(0, |table| table.video.len());
                    for layer in (0..layers.max(known)).map(LayerIndex) {
                        self.begin_track(id, TrackId::Video(layer), codec, &media);
                    }
                }
            }
        }
        // A simulcast's are known once they come.
        if codec_of(&media, MediaKind::Video).is_some() && layers == 1 {
            self.offer_layers(now, id, Ranked::single(LayerOffer::unmeasured(LayerIndex(0))));
        }
        self.expect_order(id);
        let Some(table) = self.tables.get_mut(&id) else { return };
        // One that took over in mid-stream is waited for like any publisher that falls silent.
        let begun = (table.state != TableState::Live).then_some(now);
        if let Some(home) = &mut table.home {
            home.media = media;
            home.clock_offset = None;
            home.begun = begun;
        }
    }

    fn begin_track(&mut self, id: TableId, track: TrackId, codec: Codec, media: &TableMedia) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let ring_packets = table.spec.ring_packets;
        table.ensure_track(track, codec);
        let Some(home) = &mut table.home else { return };
        match home.source_mut(track) {
            Some(source) => source.timeline.restart(),
            None => home.add_source(track, Source::new(codec, ring_packets)),
        }
        if let (TrackId::Video(_), Some(source)) = (track, home.source_mut(track)) {
            source.parameter_sets.begin(codec, &media.parameter_sets);
        }
        for to in &home.subscribers {
            let message = PeerMessage::Track { table: id, track, codec };
            self.events.push_back(ShardEvent::Peer { to: *to, message });
        }
    }

    /// Home: a packet of the publisher joins its track, and before it what it brings for those who lack it.
    pub(super) fn ingest(&mut self, now: Instant, id: TableId, arrival: Arrival<'_>) -> Result<(), DropReason> {
        let epoch = self.config.epoch;
        let table = self.tables.get_mut(&id).ok_or(DropReason::UnexpectedRtp)?;
        let home = table.home.as_mut().ok_or(DropReason::UnexpectedRtp)?;
        let source = home.source_mut(arrival.track).ok_or(DropReason::UnexpectedRtp)?;
        let track = match arrival.track {
            TrackId::Audio => table.audio.as_mut(),
            TrackId::Video(LayerIndex(layer)) => table.video.get_mut(layer),
        }
        .ok_or(DropReason::UnexpectedRtp)?;
        let mut facts = arrival.facts(track.codec).ok_or(DropReason::RtpMalformed)?;
        let mut position = match source.timeline.place(now, arrival.sequence_number, arrival.timestamp) {
            Placement::At(position) => position,
            Placement::TooOld => return Err(DropReason::TooLate),
        };
        if position.epoch != track.ring.epoch() {
            source.parameter_sets.restart();
            source.ties.restart();
            // The old source's clock says nothing about the new one's timestamps.
            track.clock = None;
        }
        let (mut is_described, mut begins_layer_frame) = (false, false);
        // A repetition must not bring a structure back that is over.
        if !arrival.dependency_descriptor.is_empty()
            && track.ring.get(position.index).is_none()
            && let Some(said) = source.descriptor_reader.read(position.epoch, arrival.dependency_descriptor)
        {
            facts = said.correct(facts);
            (is_described, begins_layer_frame) = (true, said.begins_layer_frame);
        }
        if let TrackId::Video(_) = arrival.track {
            facts = source.layering.check(track.codec, position, is_described, facts);
        }
        let capture = source.capture_time(now, track, &arrival, &facts, position);
        let leading = source.lead_in(now, track, &arrival, &facts, &mut position);
        let mut passed_on = (arrival.payload, arrival.dependency_descriptor);
        if let (TrackId::Video(_), Some(spatial @ 1..)) = (arrival.track, facts.spatial_layer) {
            let before = position.index.checked_sub(1).and_then(|before| track.ring.get(before));
            if let Some(lower) = source.ties.lower(before.map(|before| &**before), position.timestamp, spatial) {
                // It is not the first of its picture.
                facts.starts_frame = false;
                let reader = begins_layer_frame.then_some(&mut source.descriptor_reader);
                passed_on = source.ties.tie(track.codec, lower, reader, passed_on);
            }
        }
        let (payload, dependency_descriptor) = passed_on;
        let mut descriptor = [0; MAX_DESCRIPTOR];
        let clear = ClearPacket {
            position,
            marker: arrival.marker,
            facts,
            arrival: now,
            capture,
            dependency_descriptor: match dependency_descriptor {
                [] => &[],
                value => source.descriptors.rewrite(position.epoch, value, &mut descriptor),
            },
            payload,
        };
        let packet = source.pool.store(&clear).map_err(|_| DropReason::RtpMalformed)?;
        let mut fresh = Fresh::default();
        let (mut leading, mut packet) = (leading, Some(packet));
        for place in leading.iter_mut().chain([&mut packet]).filter(|place| place.is_some()) {
            let inserted = place.clone().map(|packet| track.insert(packet)).unwrap_or_default();
            fresh = Fresh { packet: inserted.packet, frame: fresh.frame || inserted.frame };
            place.take_if(|_| !inserted.packet);
        }
        if !fresh.packet {
            return Ok(());
        }
        if let TrackId::Video(_) = arrival.track {
            source.rates.add(now, &facts, arrival.payload.len());
        }
        if track.clock.is_none() {
            // Who publishes from within the process sends no reports, and captures by our clock.
            let ours = || CaptureClock { ntp: ntp_at(epoch, now), offset: 0 };
            let capture = home.publisher.is_none().then(ours);
            track.clock = Some(TrackClock { instant: now, timestamp: position.timestamp, capture });
        }
        home.rate.add(now, arrival.payload.len() as u64);
        home.last_packet = Some(now);
        table.report.packets_ingested += 1;
        table.report.bytes_ingested += arrival.payload.len() as u64;
        let is_shared = !home.subscribers.is_empty();
        // What is found lost by this packet is told before it: the others find it by the same packet.
        self.account(now, id, arrival.track, fresh, arrival.payload.len(), &facts);
        if is_shared {
            self.share(id, arrival.track, leading.into_iter().chain([packet]).flatten());
        }
        self.make_ready(id, arrival.track);
        if self.tables[&id].state != TableState::Live {
            self.publisher_sends(now, id);
        }
        Ok(())
    }

    /// Home: gives new packets of a track to the shards that have players of the table.
    fn share(&mut self, id: TableId, track: TrackId, packets: impl Iterator<Item = Arc<Packet>>) {
        let Some(home) = self.tables.get(&id).and_then(|table| table.home.as_ref()) else { return };
        for packet in packets {
            for to in &home.subscribers {
                let message = PeerMessage::Media { table: id, track, packet: packet.clone() };
                self.events.push_back(ShardEvent::Peer { to: *to, message });
            }
        }
    }

    /// Away from home: a packet that the home shard sent.
    pub(super) fn accept_packet(&mut self, now: Instant, id: TableId, track: TrackId, packet: Arc<Packet>) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let (bytes, facts) = (packet.payload().len(), packet.facts);
        let Some(track_here) = table.track_mut(track) else { return };
        if packet.epoch != track_here.ring.epoch() && !track_here.ring.is_empty() {
            // As at home: another source may have another clock, which is told once it is known.
            track_here.clock = Some(TrackClock { instant: packet.arrival, timestamp: packet.timestamp, capture: None });
        }
        let fresh = track_here.insert(packet);
        if fresh.packet {
            self.account(now, id, track, fresh, bytes, &facts);
            self.make_ready(id, track);
        }
    }

    fn make_ready(&mut self, id: TableId, track: TrackId) {
        if let Some(known) = self.tables.get_mut(&id).and_then(|table| table.track_mut(track))
            && !known.queued
        {
            known.queued = true;
            self.ready.push_back((id, track));
        }
    }

    /// The first packet, or the first after a pause.
    fn publisher_sends(&mut self, now: Instant, id: TableId) {
        if let Some(home) = self.tables.get_mut(&id).and_then(|t| t.home.as_mut()) {
            home.paused_since = None;
            home.begun = None;
        }
        self.set_state(now, id, TableState::Live);
    }

    /// The publisher's session is gone.
    pub(super) fn publisher_left(&mut self, now: Instant, id: TableId) {
        let Some(Table { home: Some(home), state, .. }) = self.tables.get_mut(&id) else { return };
        home.begun = None;
        match *state {
            TableState::Live => {
                home.paused_since = Some(now);
                self.set_state(now, id, TableState::Paused);
            }
            TableState::Paused => {}
            // It never sent.
            TableState::Absent => self.end_table(now, id),
        }
    }

    /// Home: silence becomes a pause, a pause that lasts becomes the end.
    pub(super) fn tick_publisher(&mut self, now: Instant, id: TableId) {
        let (silence, grace) = (self.config.silence, self.config.grace);
        let Some(table) = self.tables.get_mut(&id) else { return };
        let Some(home) = &mut table.home else { return };
        match table.state {
            TableState::Live if home.last_packet.is_none_or(|at| now >= at + silence) => {
                home.paused_since = Some(now);
                self.set_state(now, id, TableState::Paused);
            }
            // Who has just come back is waited for.
            TableState::Paused | TableState::Absent if home.begun.is_some_and(|at| now < at + FIRST_PACKET) => {}
            TableState::Paused if home.paused_since.is_none_or(|at| now >= at + grace) => {
                self.end_table(now, id);
                self.end_publisher(now, id);
            }
            TableState::Absent if home.begun.take().is_some() => {
                self.end_table(now, id);
                self.end_publisher(now, id);
            }
            _ => {}
        }
    }

    /// Lets a connected publisher go that sends nothing: it would keep the table's name from others.
    fn end_publisher(&mut self, now: Instant, id: TableId) {
        let Some(slot) = self.tables.get(&id).and_then(|t| t.home.as_ref()?.publisher) else { return };
        let Some(session) = &self.sessions[slot as usize].session else { return };
        // One that is still connecting has the setup timeout for it.
        if session.endpoint.is_connected() {
            let key = session.key;
            self.close_session(now, key, EndCause::TableEnded);
        }
    }

    /// The table is over for its players.
    fn end_table(&mut self, now: Instant, id: TableId) {
        self.account_for_the_rest(now, id);
        self.set_state(now, id, TableState::Absent);
        let Some(table) = self.tables.get_mut(&id) else { return };
        table.video.clear();
        table.audio = None;
        table.forget_layers();
        let Some(home) = &mut table.home else { return };
        home.paused_since = None;
        home.video.iter_mut().chain(&mut home.audio).for_each(Source::rest);
    }

    fn set_state(&mut self, now: Instant, id: TableId, state: TableState) {
        let Some(home) = self.tables.get(&id).and_then(|t| t.home.as_ref()) else { return };
        for to in &home.subscribers {
            let message = PeerMessage::State { table: id, state: state.clone() };
            self.events.push_back(ShardEvent::Peer { to: *to, message });
        }
        self.table_state_changed(now, id, state);
        self.announce_state(id);
    }

    fn announce_state(&mut self, id: TableId) {
        let Some(Table { home: Some(home), state, .. }) = self.tables.get(&id) else { return };
        self.events.push_back(ShardEvent::Table { table: id, state: state.clone(), media: home.media.clone() });
    }

    /// On every shard: players are told, and let go when the table is over.
    pub(super) fn table_state_changed(&mut self, now: Instant, id: TableId, state: TableState) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let before = std::mem::replace(&mut table.state, state.clone());
        let players = table.players.clone();
        match state {
            TableState::Paused if before != state => self.notify(now, &players, "publisher_left"),
            TableState::Live if before == TableState::Paused => self.notify(now, &players, "publisher_returned"),
            TableState::Paused | TableState::Live => {}
            // Also where it was absent before: away from home, a player may have come after the end.
            TableState::Absent => self.end_players(now, id),
        }
        if let Some(table) = self.tables.get_mut(&id).filter(|t| t.home.is_none() && t.state == TableState::Absent) {
            table.video.clear();
            table.audio = None;
            table.forget_layers();
        }
    }
}

impl Shard {
    /// Lets the table's connected players go.
    pub(super) fn end_players(&mut self, now: Instant, id: TableId) {
        let Some(table) = self.tables.get(&id) else { return };
        let players = table.players.clone();
        self.notify(now, &players, "session_ended");
        for key in players.into_iter().filter_map(|slot| self.key_of(slot)).collect::<Vec<_>>() {
            self.close_session(now, key, EndCause::TableEnded);
        }
    }
}

fn codec_of(media: &TableMedia, kind: MediaKind) -> Option<crate::media::Codec> {
    match kind {
        MediaKind::Audio => media.audio.as_ref().map(|a| a.0),
        MediaKind::Video => media.video.as_ref().map(|v| v.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{roulette, shard_config};
    use super::*;

    const VIDEO: TrackId = TrackId::Video(LayerIndex(0));

    /// Chromium's structure for three temporal layers, with the key frame of it, which has number 10.
    const L1T3: &[u8] = &[0xc0, 0x00, 0x0a, 0x80, 0x02, 0x17, 0xaa, 0xa1, 0x81, 0x4d, 0x14, 0x00];

    /// A shard with a publisher of one encoding within the process.
    fn shard(now: Instant, codec: Codec) -> Shard {
        let mut shard = Shard::new(shard_config(now, Duration::from_secs(60)));
        let media = TableMedia { video: Some((codec, String::new())), ..TableMedia::default() };
        shard.add_local_publisher(now, &roulette(), media);
        shard
    }

    /// What is known of a packet that came, whose number is its frame's as well.
    fn taken(shard: &mut Shard, now: Instant, number: u16, descriptor: &[u8], payload: &[u8]) -> PayloadFacts {
        let arrival = Arrival {
            track: VIDEO,
            sequence_number: number,
            timestamp: u32::from(number) * 3000,
            marker: true,
            capture: None,
            dependency_descriptor: descriptor,
            red: false,
            payload,
        };
        shard.ingest(now, TableId(0), arrival).expect("accepted");
        let ring = &shard.tables[&TableId(0)].track(VIDEO).expect("begun").ring;
        let at = (ring.oldest()..ring.head()).find(|index| *index as u16 == number);
        at.and_then(|index| ring.get(index)).expect("just inserted").facts
    }

    /// A descriptor that names a template and nothing else.
    fn plain(template: u8, number: u16) -> Vec<u8> {
        [&[0xc0 | template][..], &number.to_be_bytes()].concat()
    }

    #[test]
    fn a_structure_that_comes_again_makes_nothing_be_forgotten() {
        let now = Instant::now();
        let mut shard = shard(now, Codec::Vp8);
        let payload = [0x10, 0x01, 0x00];
        taken(&mut shard, now, 10, L1T3, &payload);
        taken(&mut shard, now, 14, &plain(1, 14), &payload);
        taken(&mut shard, now, 10, L1T3, &payload);
        let climb = taken(&mut shard, now, 16, &plain(2, 16), &payload).climb;
        assert_eq!(climb.map(|climb| climb.needs), Some(0), "it refers to the base layer alone");
    }

    #[test]
    fn layers_of_other_codecs_need_descriptors_that_were_read() {
        let now = Instant::now();
        // An OBU with an extension header: temporal layer 2.
        let payload = [0x10, 0x34, 0x40, 0x00];
        let mut shard = shard(now, Codec::Av1);
        assert_eq!(facts(Codec::Av1, &payload).temporal_layer, Some(2));
        assert_eq!(taken(&mut shard, now, 9, &[], &payload).temporal_layer, None);
        assert_eq!(taken(&mut shard, now, 10, &plain(3, 10), &payload).temporal_layer, None, "no structure yet");
        taken(&mut shard, now, 11, L1T3, &payload);
        assert_eq!(taken(&mut shard, now, 12, &plain(3, 11), &payload).temporal_layer, Some(2));
    }
}

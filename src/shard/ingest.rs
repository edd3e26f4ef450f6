//! The way of a publisher's packet: opened, put on the track's numbering, into the ring, to whoever forwards it.

use std::time::{Duration, Instant};

use crate::media::{
    AbsCaptureTime, ClearPacket, Codec, MAX_DESCRIPTOR, MediaKind, Packet, PayloadFacts, Placement, RtpHeader, facts,
    red_facts,
};
use crate::rtc::TransportAddress;
use crate::rtc::sdp::TableMedia;

use super::core::{Shard, drop_reason};
use super::inbound::route;
use super::message::{LocalMedia, PeerMessage, ShardEvent, TableId, TableSpec, TableState, TrackClock};
use super::report::{DropReason, EndCause};
use super::table::{Source, Table};

use std::sync::Arc;

/// How long a publisher that has connected may take for its first packet.
const FIRST_PACKET: Duration = Duration::from_secs(10);

/// What a publisher sent, off the wire and in the clear.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) kind: MediaKind,
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
        let arrival = Arrival {
            kind: inbound.kind,
            sequence_number: carried.sequence_number,
            timestamp: header.timestamp,
            marker: header.marker,
            capture: capture.and_then(AbsCaptureTime::decode),
            dependency_descriptor: descriptor.unwrap_or_default(),
            red: inbound.is_red(header.payload_type),
            payload: carried.payload,
        };
        let codec = inbound.codec;
        let Some(simulcast) = &mut inbound.simulcast else {
            // The datagram's memory belongs to the caller: no borrow of self is left here.
            return self.ingest(now, table, arrival);
        };
        let result = if simulcast.handle_packet(now, codec, route.layer, &carried, &arrival) {
            self.ingest(now, table, arrival)
        } else {
            self.publisher_is_heard(now, table);
            Ok(())
        };
        self.steer_layers(now, slot, route.medium);
        result
    }

    /// A publisher inside the process begins: the demo's dealer.
    pub fn add_local_publisher(&mut self, now: Instant, spec: &TableSpec, media: TableMedia) {
        self.table(spec);
        self.begin_publication(now, spec.id, media);
    }

    /// A packet of a publisher inside the process.
    pub fn handle_local(&mut self, now: Instant, table: TableId, media: &LocalMedia) {
        let arrival = Arrival {
            kind: media.kind,
            sequence_number: media.sequence_number,
            timestamp: media.timestamp,
            marker: media.marker,
            capture: None,
            dependency_descriptor: &[],
            red: false,
            payload: &media.payload,
        };
        // After a stall that was longer than the grace time, the table begins anew.
        if let Some(Table { home: Some(home), state: TableState::Absent, video: None, audio: None, .. }) =
            self.tables.get(&table)
            && home.publisher.is_none()
        {
            let media = home.media.clone();
            self.begin_publication(now, table, media);
        }
        if let Err(reason) = self.ingest(now, table, arrival) {
            self.dropped(reason, 1);
        }
    }

    /// Prepares the table's tracks for a publisher: the same codec goes on where the last one stopped; another codec
    /// ends the players, who negotiated the old one.
    pub(super) fn begin_publication(&mut self, now: Instant, id: TableId, media: TableMedia) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let changed = [MediaKind::Audio, MediaKind::Video]
            .into_iter()
            .any(|kind| table.track(kind).is_some_and(|t| codec_of(&media, kind).is_none_or(|codec| codec != t.codec)));
        if changed {
            self.end_table(now, id);
        }
        let Some(table) = self.tables.get_mut(&id) else { return };
        let ring_packets = table.spec.ring_packets;
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let Some(codec) = codec_of(&media, kind) else { continue };
            table.ensure_track(kind, codec);
            let Some(home) = &mut table.home else { return };
            let source = match kind {
                MediaKind::Audio => &mut home.audio,
                MediaKind::Video => &mut home.video,
            };
            match source {
                Some(source) => source.timeline.restart(),
                None => *source = Some(Source::new(codec, ring_packets)),
            }
            if let (MediaKind::Video, Some(source)) = (kind, source) {
                source.parameter_sets.begin(codec, &media.parameter_sets);
            }
            for to in home.subscribers.clone() {
                self.events.push_back(ShardEvent::Peer { to, message: PeerMessage::Track { table: id, kind, codec } });
            }
        }
        // One that took over in mid-stream is waited for like any publisher that falls silent.
        let begun = (table.state != TableState::Live).then_some(now);
        if let Some(home) = &mut table.home {
            home.media = media;
            home.clock_offset = None;
            home.begun = begun;
        }
    }

    /// Home: a packet of the publisher joins its track, and before it what it brings for those who lack it.
    pub(super) fn ingest(&mut self, now: Instant, id: TableId, arrival: Arrival<'_>) -> Result<(), DropReason> {
        let table = self.tables.get_mut(&id).ok_or(DropReason::UnexpectedRtp)?;
        let home = table.home.as_mut().ok_or(DropReason::UnexpectedRtp)?;
        let source = home.source_mut(arrival.kind).ok_or(DropReason::UnexpectedRtp)?;
        let track = match arrival.kind {
            MediaKind::Audio => table.audio.as_mut(),
            MediaKind::Video => table.video.as_mut(),
        }
        .ok_or(DropReason::UnexpectedRtp)?;
        let facts = arrival.facts(track.codec).ok_or(DropReason::RtpMalformed)?;
        let mut position = match source.timeline.place(now, arrival.sequence_number, arrival.timestamp) {
            Placement::At(position) => position,
            Placement::TooOld => return Err(DropReason::TooLate),
        };
        if position.epoch != track.ring.epoch() && source.enter_epoch(position.epoch, &track.ring) {
            // The old source's clock says nothing about the new one's timestamps.
            track.clock = None;
        }
        let leading = source.lead_in(now, track, &arrival, &facts, &mut position);
        let mut descriptor = [0; MAX_DESCRIPTOR];
        let clear = ClearPacket {
            position,
            marker: arrival.marker,
            facts,
            arrival: now,
            capture: arrival.capture,
            dependency_descriptor: match arrival.dependency_descriptor {
                [] => &[],
                value => source.descriptors.rewrite(position.epoch, value, &mut descriptor),
            },
            payload: arrival.payload,
        };
        let packet = source.pool.store(&clear).map_err(|_| DropReason::RtpMalformed)?;
        let mut is_new = false;
        for packet in leading.into_iter().flatten().chain([packet]) {
            is_new = track.insert(packet.clone());
            for to in home.subscribers.iter().filter(|_| is_new) {
                let message = PeerMessage::Media { table: id, kind: arrival.kind, packet: packet.clone() };
                self.events.push_back(ShardEvent::Peer { to: *to, message });
            }
        }
        if !is_new {
            return Ok(());
        }
        if track.clock.is_none() {
            track.clock = Some(TrackClock { instant: now, timestamp: position.timestamp, offset: None });
        }
        if let (MediaKind::Video, Some(source)) = (arrival.kind, home.source_mut(arrival.kind)) {
            source.frames.observe(&track.ring, now);
        }
        home.rate.add(now, arrival.payload.len() as u64);
        home.last_packet = Some(now);
        table.report.packets_ingested += 1;
        table.report.bytes_ingested += arrival.payload.len() as u64;
        if facts.keyframe && arrival.kind == MediaKind::Video {
            table.keyframe_wanted.satisfied();
        }
        self.make_ready(id, arrival.kind);
        if self.tables[&id].state != TableState::Live {
            self.publisher_sends(now, id);
        }
        Ok(())
    }

    /// Home: the publisher sends, though nothing that is forwarded.
    fn publisher_is_heard(&mut self, now: Instant, id: TableId) {
        if let Some(home) = self.tables.get_mut(&id).and_then(|table| table.home.as_mut()) {
            home.last_packet = Some(now);
        }
    }

    /// Away from home: a packet that the home shard sent.
    pub(super) fn accept_packet(&mut self, id: TableId, kind: MediaKind, packet: Arc<Packet>) {
        let Some(track) = self.tables.get_mut(&id).and_then(|t| t.track_mut(kind)) else { return };
        let keyframe = packet.facts.keyframe && kind == MediaKind::Video;
        if track.insert(packet) {
            self.make_ready(id, kind);
        }
        if keyframe && let Some(table) = self.tables.get_mut(&id) {
            table.keyframe_wanted.satisfied();
        }
    }

    fn make_ready(&mut self, id: TableId, kind: MediaKind) {
        if let Some(track) = self.tables.get_mut(&id).and_then(|t| t.track_mut(kind))
            && !track.queued
        {
            track.queued = true;
            self.ready.push_back((id, kind));
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
        self.set_state(now, id, TableState::Absent);
        let Some(table) = self.tables.get_mut(&id) else { return };
        let tracks = [(MediaKind::Video, table.video.take()), (MediaKind::Audio, table.audio.take())];
        let Some(home) = &mut table.home else { return };
        home.paused_since = None;
        for (kind, track) in tracks {
            if let (Some(source), Some(track)) = (home.source_mut(kind), track) {
                source.rest(&track.ring);
            }
        }
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
            table.video = None;
            table.audio = None;
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

impl Table {
    /// Brings the gauges up to date.
    pub(super) fn refresh_report(&mut self, now: Instant) {
        self.report.players = self.players.len() as u64;
        self.report.qos = self.qos.report(now, self.silent);
        self.report.gop_cached = self.video.as_ref().is_some_and(|v| v.ring.gop_start().is_some());
        let Some(home) = &mut self.home else { return };
        self.report.live = self.state == TableState::Live;
        self.report.ingest_bits_per_second = home.rate.per_second(now) * 8.0;
        if let Some(video) = &mut home.video {
            self.report.ingest_fps = video.frames.fps(now);
            let counts = video.frames.counts();
            self.report.frames_forwarded = counts.whole;
            self.report.frames_dropped_ingest_loss = counts.lost;
            self.report.frames_dropped_layer_switch = counts.skipped;
        }
    }
}

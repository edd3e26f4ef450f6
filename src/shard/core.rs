//! The shard itself: sessions in slots, tables, and the way of a datagram in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bets::PlayerId;
use crate::config::MaxLayer;
use crate::fanout::{DownTrack, Rtx, SendBatch, TrafficClass};
use crate::media::{MediaKind, Packet};
use crate::qos::Withheld;
use crate::rtc::demux::{PacketKind, classify};
use crate::rtc::dtls::DtlsScratch;
use crate::rtc::ice_lite::{Ufrag, new_credentials};
use crate::rtc::rtcp::NtpTime;
use crate::rtc::sdp::{IceCredentials, Negotiated, StreamParameters};
use crate::rtc::srtp::SrtpError;
use crate::rtc::{CloseCause, Endpoint, EndpointConfig, EndpointError, EndpointEvent, Transmit, TransportAddress};

use super::addresses::Addresses;
use super::bets::{BetLine, Rounds};
use super::bounds::BoundId;
use super::egress::Flush;
use super::handshakes::Handshakes;
use super::message::{
    Added, LayerIndex, PeerMessage, ShardEvent, ShardId, SlotKey, TableId, TableSpec, TableState, TrackId,
};
use super::overtaken::Queue as Overtaken;
use super::owed::Owed;
use super::path::Path;
use super::repairs::Repairs;
use super::report::{DropReason, EndCause, ShardReport};
use super::session::{Budget, Channels, Part, Player, Publisher, Session};
use super::table::Table;
use super::timers::Timers;

/// Bytes and messages of a send batch. A batch is filled, sent, and filled again: it has to hold a burst of answers to
/// one batch of arrivals (64 buffers), and to stay in the second-level cache.
const BATCH_BYTES: usize = 512 * 1024;
const BATCH_MESSAGES: usize = 512;

/// How often tables are looked at: silence of publishers, ends of grace times.
const TABLE_TICK: Duration = Duration::from_millis(250);

/// How long a shard away from home keeps a table's tracks after its last player left.
const LINGER: Duration = Duration::from_secs(5);

/// Parameters of a shard.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard of the node this is.
    pub id: ShardId,
    /// For its endpoints.
    pub endpoint: EndpointConfig,
    /// A publisher that sent nothing for so long has left, as far as players are concerned.
    pub silence: Duration,
    /// How long players wait for a publisher's return.
    pub grace: Duration,
    /// Whether a large frame is spread over the time until the next.
    pub pacing: bool,
    /// The rate of a joiner's replay of the cached GOP, bits per second, at least.
    pub replay_bits_per_second: u64,
    /// Maps `Instant`s to NTP time: an instant and the wall clock at it. Taken once, so that a clock step changes
    /// nothing for the sender reports of a running node.
    pub epoch: (Instant, NtpTime),
}

/// One core's share of the node, without I/O.
pub struct Shard {
    pub(super) config: ShardConfig,
    pub(super) sessions: Vec<Slot>,
    free: Vec<u32>,
    pub(super) addresses: Addresses,
    handshakes: Handshakes,
    pub(super) tables: HashMap<TableId, Table>,
    pub(super) control: Control,
    pub(super) timers: Timers,
    next_table_tick: Option<Instant>,
    /// Memory for the ids of the tables that are looked at.
    ticking: Vec<TableId>,
    pub(super) dtls: DtlsScratch,
    pub(super) events: VecDeque<ShardEvent>,
    pub(super) report: ShardReport,
    /// Tracks with something to send, in the order in which they got it.
    pub(super) ready: VecDeque<(TableId, TrackId)>,
    pub(super) flush: Option<Flush>,
    /// There was something to send, and there may be more.
    pub(super) is_sending: bool,
    /// Sessions that their peers ended meanwhile: a flush goes through lists that they are in.
    pub(super) ended_meanwhile: Vec<(SlotKey, EndCause)>,
    /// When the first of the tracks goes on that wait: for the rest of a frame, or for its next piece.
    pub(super) held_until: Option<Instant>,
    pub(super) catching_up: Vec<u32>,
    pub(super) catch_up_due: Option<Instant>,
    pub(super) catch_up_next: usize,
    /// Datagrams that overflowed so far, and when they last did.
    pub(super) overflows: u64,
    pub(super) overloaded: Option<Instant>,
    pub(super) probing: Vec<u32>,
    pub(super) probe_due: Option<Instant>,
    /// Players that are owed repairs, and when these are tried next.
    pub(super) owing: Vec<u32>,
    pub(super) owed_due: Option<Instant>,
    pub(super) overtaken: Overtaken,
    pub(super) rounds: Rounds,
    pub(super) scratch: Vec<Arc<Packet>>,
    pub(super) catch_up_layout: crate::fanout::Layout,
}

/// A place for a session; the generation counts its tenants.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) session: Option<Box<Session>>,
}

/// Everything that is not media: answers to checks, DTLS, RTCP, repairs.
pub(super) struct Control {
    pub(super) batch: SendBatch,
    /// Batches that were filled before the one that is being filled: the end of a table says goodbye to thousands.
    full: VecDeque<SendBatch>,
    pub(super) overflowed: u64,
}

/// Full control batches that wait; what comes beyond them is dropped and counted. Only a goodbye is not repeated by its
/// protocol, and this is room for one to each of 8000 sessions.
const FULL_BATCHES: usize = 16;

impl Control {
    /// Moves what is to be sent next into `out`; `false` if there is nothing.
    pub(super) fn take(&mut self, out: &mut SendBatch) -> bool {
        match self.full.pop_front() {
            Some(first) => *out = first,
            None if self.batch.is_empty() => return false,
            None => std::mem::swap(out, &mut self.batch),
        }
        true
    }
}

impl Transmit for Control {
    fn transmit(&mut self, destination: TransportAddress, datagram: &[u8]) {
        if !self.batch.has_room(datagram.len()) {
            if self.full.len() == FULL_BATCHES {
                self.overflowed += 1;
                return;
            }
            self.full.push_back(std::mem::replace(&mut self.batch, Shard::send_batch()));
        }
        let class = if classify(datagram) == PacketKind::Dtls { TrafficClass::Data } else { TrafficClass::Control };
        self.batch.push(destination, class, datagram.len(), |out| {
            out.copy_from_slice(datagram);
            datagram.len()
        });
    }
}

impl Shard {
    /// A shard without sessions.
    pub fn new(config: ShardConfig) -> Self {
        Self {
            timers: Timers::default(),
            config,
            sessions: Vec::new(),
            free: Vec::new(),
            addresses: Addresses::new(),
            handshakes: Handshakes::default(),
            tables: HashMap::new(),
            control: Control { batch: Self::send_batch(), full: VecDeque::new(), overflowed: 0 },
            next_table_tick: None,
            ticking: Vec::new(),
            dtls: DtlsScratch::default(),
            events: VecDeque::new(),
            report: ShardReport::default(),
            ready: VecDeque::new(),
            flush: None,
            is_sending: false,
            ended_meanwhile: Vec::new(),
            held_until: None,
            catching_up: Vec::new(),
            catch_up_due: None,
            catch_up_next: 0,
            overflows: 0,
            overloaded: None,
            probing: Vec::new(),
            probe_due: None,
            owing: Vec::new(),
            owed_due: None,
            overtaken: Overtaken::new(),
            rounds: Rounds::default(),
            scratch: Vec::new(),
            catch_up_layout: crate::fanout::Layout::default(),
        }
    }

    /// A batch of the size that [`Shard::poll_transmit`] wants.
    pub fn send_batch() -> SendBatch {
        SendBatch::with_capacity(BATCH_BYTES, BATCH_MESSAGES)
    }

    /// Admits a publisher. Where the table has one, that goes on until this one is connected and takes over; of several
    /// that are connecting, the newest may.
    pub fn add_publisher(
        &mut self,
        now: Instant,
        spec: &TableSpec,
        negotiated: &Negotiated,
        random: &[u8; 32],
    ) -> Added {
        let part = Part::Publisher(Box::new(Publisher::new(negotiated)));
        let added = self.add_session(now, spec.id, negotiated, random, part);
        let slot = added.key.slot;
        let Some(home) = &mut self.table(spec).home else { return added };
        if home.publisher.is_none() {
            home.publisher = Some(slot);
            return added;
        }
        let overtaken = home.successor.replace(slot);
        if let Some(key) = overtaken.and_then(|slot| self.key_of(slot)) {
            self.close_session(now, key, EndCause::Replaced);
        }
        added
    }

    /// Admits a player, which is given no layer above `max_layer`. What it gets is decided when it connects: until then the
    /// table may have changed.
    pub fn add_player(
        &mut self,
        now: Instant,
        spec: &TableSpec,
        player: PlayerId,
        max_layer: Option<MaxLayer>,
        negotiated: &Negotiated,
        random: &[u8; 32],
    ) -> Added {
        let table = self.table(spec);
        let bound = table.bounds.of(max_layer, &table.layers);
        let stream = |kind| negotiated.stream(kind).map(|(_, stream)| stream.clone());
        let seed = |at: usize| u32::from_be_bytes([random[at], random[at + 1], random[at + 2], random[at + 3]]);
        let player = Player {
            wanted: Some(Box::new([(stream(MediaKind::Video), seed(24)), (stream(MediaKind::Audio), seed(28))])),
            video: None,
            audio: None,
            layer: LayerIndex::default(),
            change: None,
            adaptation: None,
            transport_number: 0,
            catching_up: false,
            untold: false,
            channels: Channels::default(),
            allowance: None,
            bets: BetLine::new(player),
            path: Path::new(),
            repairs: Repairs::new(),
            owed: Owed::default(),
            keyframes: Budget::of_keyframes(),
            withheld: Withheld::default(),
            held_up_to: 0,
            playback: None,
        };
        let added = self.add_session(now, spec.id, negotiated, random, Part::Player(player));
        if let Some(session) = self.session_mut(added.key) {
            session.bound = bound;
        }
        added
    }

    /// Gives a session new ICE credentials: ours, whose `ufrag` has to name its slot, and the peer's ufrag. All else goes
    /// on as it is.
    ///
    /// `false` if there is none of this key.
    pub fn restart_ice(
        &mut self,
        now: Instant,
        key: SlotKey,
        ufrag: Ufrag,
        local: &IceCredentials,
        remote_ufrag: &str,
    ) -> bool {
        debug_assert_eq!(
            (ufrag.shard, ufrag.slot),
            (self.config.id.0, key.slot),
            "checks find the session by its ufrag"
        );
        let Some(session) = self.session_mut(key) else { return false };
        session.endpoint.restart_ice(now, ufrag, local, remote_ufrag);
        true
    }

    /// Ends a session from our side: DELETE, replacement, shutdown.
    ///
    /// `false` if there is none of this key.
    pub fn close_session(&mut self, now: Instant, key: SlotKey, cause: EndCause) -> bool {
        let session = self.sessions.get_mut(key.slot as usize).and_then(|s| s.session.as_mut());
        let Some(session) = session.filter(|s| s.key == key) else { return false };
        session.endpoint.close(now, &mut self.dtls, &mut self.control);
        self.remove_session(now, key.slot, cause);
        true
    }

    /// Ends every session, for the node's shutdown.
    pub fn close_all(&mut self, now: Instant) {
        for slot in 0..self.sessions.len() as u32 {
            if let Some(key) = self.key_of(slot) {
                self.close_session(now, key, EndCause::Shutdown);
            }
        }
    }

    /// Takes one datagram; it is decrypted in place.
    pub fn handle_datagram(&mut self, now: Instant, source: TransportAddress, datagram: &mut [u8]) {
        self.handle_late(now, now, source, datagram);
    }

    /// The same for one that is taken later than it came, which was at `arrived`: a round trip ends then.
    pub fn handle_late(&mut self, now: Instant, arrived: Instant, source: TransportAddress, datagram: &mut [u8]) {
        self.report.datagrams_received += 1;
        self.report.bytes_received += datagram.len() as u64;
        let result = match classify(datagram) {
            PacketKind::Stun => self.handle_stun(now, source, datagram),
            PacketKind::Dtls => self.handle_dtls(now, source, datagram),
            PacketKind::Rtp => self.handle_rtp(now, source, datagram),
            PacketKind::Rtcp => self.handle_rtcp(now, arrived, source, datagram),
            PacketKind::Unrecognised => Err(DropReason::Unrecognised),
        };
        if let Err(reason) = result {
            self.dropped(reason, 1);
        }
    }

    /// Takes a message from another shard.
    pub fn handle_peer(&mut self, now: Instant, message: PeerMessage) {
        match message {
            PeerMessage::Subscribe { table, from } => self.subscribe(table, from),
            PeerMessage::Unsubscribe { table, from } => {
                if let Some(home) = self.tables.get_mut(&table).and_then(|t| t.home.as_mut()) {
                    home.subscribers.retain(|s| *s != from);
                }
            }
            PeerMessage::Media { table, track, packet } => self.accept_packet(now, table, track, packet),
            PeerMessage::Track { table, track, codec } => {
                let present = self.tables.get(&table).and_then(|known| known.codec(track.kind()));
                if present.is_some_and(|present| present != codec) {
                    self.end_players(now, table);
                }
                if let Some(known) = self.tables.get_mut(&table) {
                    known.ensure_track(track, codec);
                }
            }
            PeerMessage::Clock { table, track, clock } => {
                if let Some(track) = self.tables.get_mut(&table).and_then(|known| known.track_mut(track)) {
                    track.clock = Some(clock);
                }
                self.tell_untold(now);
            }
            PeerMessage::FramesLost { table, layer, count, place } => {
                let track = self.tables.get_mut(&table).and_then(|known| known.video.get_mut(layer.0));
                track.into_iter().for_each(|track| track.lost_before.add(count, place));
            }
            PeerMessage::Layers { table, offers, order } => self.layers_offered(now, table, &offers, &order),
            PeerMessage::State { table, state } => self.table_state_changed(now, table, state),
            PeerMessage::KeyframeWanted { table, layer } => self.want_keyframe(now, table, layer),
        }
    }

    /// When to call [`Shard::handle_timeout`] at the latest: it does more, the more often it is called, and what sessions wait
    /// for may be late by [`SLACK`](super::SLACK).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let announce = self.rounds.poll_timeout();
        let overtaken = self.overtaken.front().map(|again| again.due);
        let sending = [self.catch_up_due, self.probe_due, self.owed_due, overtaken, self.held_until];
        let due = [self.next_table_tick, self.timers.latest(), announce];
        due.into_iter().chain(sending).flatten().min()
    }

    /// Everything that time brings.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, key)) = self.timers.pop_due(now) {
            let Some(session) = self.session_mut(key).filter(|s| s.scheduled == Some(at)) else { continue };
            session.scheduled = None;
            self.wake_session(now, key);
        }
        if self.next_table_tick.is_some_and(|at| now >= at) {
            self.tick_tables(now);
        }
        if self.owed_due.is_some_and(|at| now >= at) {
            self.repay(now);
        }
        self.announce(now);
    }

    /// Whether [`Shard::advance_handshake`] has something to do.
    pub fn has_handshakes(&self) -> bool {
        !self.handshakes.is_empty()
    }

    /// Takes the next step of those who are joining: one datagram, which may cost a signature. `false` if none waits.
    pub fn advance_handshake(&mut self, now: Instant) -> bool {
        let Some(step) = self.handshakes.next() else { return false };
        if let Some(session) = self.session_mut(step.key) {
            session.steps_waiting -= 1;
            if let Err(reason) = self.take_dtls(now, step.key.slot, step.source, &step.datagram) {
                self.dropped(reason, 1);
            }
        }
        true
    }

    /// What the shard has to say.
    pub fn poll_event(&mut self) -> Option<ShardEvent> {
        self.events.pop_front()
    }

    /// The counters and gauges as they are now.
    pub fn report(&mut self, now: Instant) -> ShardReport {
        let overflowed = std::mem::take(&mut self.control.overflowed);
        self.dropped(DropReason::SendBufferFull, overflowed);
        let mut sessions = [0; 2];
        self.tables.values_mut().for_each(|table| table.silent = 0);
        for session in self.sessions.iter().filter_map(|s| s.session.as_ref()) {
            sessions[session.role() as usize] += 1;
            let Some((player, table)) = session.player().zip(self.tables.get_mut(&session.table)) else { continue };
            if let Some(playback) = &player.playback {
                table.silent += u64::from(playback.is_silent(now, table.bounds.offered(session.bound)));
            }
        }
        self.report.sessions = sessions;
        for table in self.tables.values_mut() {
            table.refresh_report(now);
            self.report.tables.insert(table.spec.name.to_string(), table.report.clone());
        }
        self.report.clone()
    }

    /// Counts what `net` did with a batch.
    pub fn count_sent(&mut self, datagrams: u64, bytes: u64, runs: u64, buffer_full: u64, errors: u64) {
        self.report.datagrams_sent += datagrams;
        self.report.bytes_sent += bytes;
        self.report.runs_sent += runs;
        self.dropped(DropReason::SendBufferFull, buffer_full);
        self.dropped(DropReason::SendError, errors);
    }

    /// Counts what was dropped before it reached the shard or after it left.
    pub fn dropped(&mut self, reason: DropReason, count: u64) {
        self.report.dropped[reason as usize] += count;
    }

    pub(super) fn key_of(&self, slot: u32) -> Option<SlotKey> {
        Some(self.sessions.get(slot as usize)?.session.as_ref()?.key)
    }

    pub(super) fn session_mut(&mut self, key: SlotKey) -> Option<&mut Session> {
        self.sessions.get_mut(key.slot as usize)?.session.as_deref_mut().filter(|s| s.key == key)
    }

    /// The table of `spec`, made if this shard has not seen it.
    pub(super) fn table(&mut self, spec: &TableSpec) -> &mut Table {
        let here = self.config.id;
        self.tables.entry(spec.id).or_insert_with(|| Table::new(spec.clone(), here))
    }

    fn add_session(
        &mut self,
        now: Instant,
        table: TableId,
        negotiated: &Negotiated,
        random: &[u8; 32],
        part: Part,
    ) -> Added {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(Slot::default());
            self.sessions.len() as u32 - 1
        });
        let place = &mut self.sessions[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        let key = SlotKey { slot, generation: place.generation };
        let mut secret = [0; 21];
        secret.copy_from_slice(&random[..21]);
        let (ufrag, ice) = new_credentials(secret, self.config.id.0, slot);
        let mut session = Box::new(Session {
            key,
            table,
            endpoint: Endpoint::new(now, self.config.endpoint.clone(), ufrag, &ice, negotiated),
            addresses: Vec::new(),
            scheduled: None,
            rtcp_due: None,
            steps_waiting: 0,
            bound: BoundId::default(),
            part,
        });
        if let Some(at) = session.endpoint.poll_timeout() {
            self.timers.schedule(now, key, at, &mut session.scheduled);
        }
        self.report.created[session.role() as usize] += 1;
        place.session = Some(session);
        self.watch_tables(now);
        Added { key, ice }
    }

    /// Frees everything of a session. The endpoint has said its last word.
    fn remove_session(&mut self, now: Instant, slot: u32, cause: EndCause) {
        let Some(session) = self.sessions[slot as usize].session.take() else { return };
        let role = session.role();
        session.addresses.iter().for_each(|address| self.unlearn_address(slot, *address));
        self.catching_up.retain(|s| *s != slot);
        self.probing.retain(|s| *s != slot);
        self.owing.retain(|s| *s != slot);
        self.free.push(slot);
        self.report.ended[role as usize][cause as usize] += 1;
        self.events.push_back(ShardEvent::SessionEnded { key: session.key, role, cause });
        let Some(table) = self.tables.get_mut(&session.table) else { return };
        if let Some(at) = table.players.iter().position(|s| *s == slot) {
            table.players.remove(at);
            if let Some(player) = session.player() {
                table.leave_tracks(slot, player);
            }
            if table.players.is_empty() {
                table.idle_since = Some(now);
            }
        }
        let Some(home) = &mut table.home else { return };
        if home.successor == Some(slot) {
            home.successor = None;
        } else if home.publisher == Some(slot) {
            home.publisher = home.successor.take();
            self.publisher_left(now, session.table);
        }
    }

    /// Whoever was ended by its peer while there was something to send.
    pub(super) fn remove_ended(&mut self, now: Instant) {
        while let Some((key, cause)) = self.ended_meanwhile.pop() {
            if self.session_mut(key).is_some() {
                self.remove_session(now, key.slot, cause);
            }
        }
    }

    fn handle_dtls(&mut self, now: Instant, source: TransportAddress, datagram: &[u8]) -> Result<(), DropReason> {
        let slot = self.session_at(source)?;
        let session = self.sessions[slot as usize].session.as_mut().ok_or(DropReason::UnknownSource)?;
        // Who joins comes into the lists of players, and that only after the flush that goes through them.
        let joins = !session.endpoint.is_connected() || session.steps_waiting > 0;
        if session.endpoint.is_keyed() && !(self.is_sending && joins) {
            self.take_dtls(now, slot, source, datagram)
        } else {
            self.handshakes.defer(session, source, datagram)
        }
    }

    fn take_dtls(
        &mut self,
        now: Instant,
        slot: u32,
        source: TransportAddress,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let session = self.sessions[slot as usize].session.as_mut().ok_or(DropReason::UnknownSource)?;
        let result = session.endpoint.handle_dtls(now, source, datagram, &mut self.dtls, &mut self.control);
        self.after_input(now, slot);
        result.map_err(drop_reason)
    }

    /// Reads an endpoint's events and schedules its next wake-up.
    pub(super) fn after_input(&mut self, now: Instant, slot: u32) {
        while let Some(event) = self.sessions[slot as usize].session.as_mut().and_then(|s| s.endpoint.poll_event()) {
            match event {
                EndpointEvent::Connected => self.session_connected(now, slot),
                EndpointEvent::Channel(event) => self.handle_channel(now, slot, event),
                EndpointEvent::Closed(cause) => {
                    let cause = match cause {
                        CloseCause::PeerClosed => EndCause::PeerClosed,
                        CloseCause::DtlsFailed => EndCause::DtlsFailed,
                        CloseCause::ConsentExpired => EndCause::ConsentExpired,
                        CloseCause::SetupTimeout => EndCause::SetupTimeout,
                    };
                    if !self.is_sending {
                        return self.remove_session(now, slot, cause);
                    }
                    self.ended_meanwhile.extend(self.key_of(slot).map(|key| (key, cause)));
                }
            }
        }
        self.reschedule(now, slot);
    }

    pub(super) fn reschedule(&mut self, now: Instant, slot: u32) {
        let Some(session) = &mut self.sessions[slot as usize].session else { return };
        if let Some(at) = [session.endpoint.poll_timeout(), session.rtcp_due].into_iter().flatten().min() {
            self.timers.schedule(now, session.key, at, &mut session.scheduled);
        }
    }

    fn wake_session(&mut self, now: Instant, key: SlotKey) {
        let Some(session) = &mut self.sessions[key.slot as usize].session else { return };
        session.endpoint.handle_timeout(now, &mut self.dtls, &mut self.control);
        if session.rtcp_due.is_some_and(|at| now >= at) {
            self.send_reports(now, key.slot);
        }
        self.after_input(now, key.slot);
    }

    fn session_connected(&mut self, now: Instant, slot: u32) {
        let Some(session) = &mut self.sessions[slot as usize].session else { return };
        let (role, table) = (session.role(), session.table);
        session.rtcp_due = Some(now);
        self.report.connected[role as usize] += 1;
        self.events.push_back(ShardEvent::SessionConnected { key: session.key });
        if let (Some(version), Some(profile)) = (session.endpoint.dtls_version(), session.endpoint.profile()) {
            self.report.handshakes[version as usize][profile as usize] += 1;
        }
        match &session.part {
            Part::Player(_) => self.player_connected(now, slot, table),
            Part::Publisher(publisher) => {
                let (media, layers) = (publisher.media.clone(), publisher.layers());
                self.take_over(now, slot, table);
                self.begin_publication(now, table, media, layers);
            }
        }
    }

    /// The table's publisher is from now on the one in `slot`, if it was to succeed another.
    fn take_over(&mut self, now: Instant, slot: u32, id: TableId) {
        let Some(home) = self.tables.get_mut(&id).and_then(|t| t.home.as_mut()) else { return };
        if home.successor.take_if(|successor| *successor == slot).is_none() {
            return;
        }
        // Replaced first, so that its end is not that of the publication.
        let old = home.publisher.replace(slot);
        if let Some(key) = old.and_then(|old| self.key_of(old)) {
            self.close_session(now, key, EndCause::Replaced);
        }
    }

    fn player_connected(&mut self, now: Instant, slot: u32, id: TableId) {
        if !self.open_tracks(slot, id) {
            // The table stopped, or came back with another codec, while the player was connecting.
            if let Some(key) = self.key_of(slot) {
                self.close_session(now, key, EndCause::TableEnded);
            }
            return;
        }
        let here = self.config.id;
        let Some(table) = self.tables.get_mut(&id) else { return };
        table.players.push(slot);
        if let Some(player) = self.sessions[slot as usize].session.as_ref().and_then(|session| session.player()) {
            table.join_tracks(slot, player);
        }
        table.idle_since = None;
        // Asked again where the table seems to be over: the answer says so, and lets the player go.
        if table.home.is_none() && (!table.subscribed || table.state == TableState::Absent) {
            table.subscribed = true;
            let message = PeerMessage::Subscribe { table: table.spec.clone(), from: here };
            self.events.push_back(ShardEvent::Peer { to: table.spec.home, message });
        }
        self.start_replay(now, slot, id);
        self.tell_connected(now, slot);
    }

    /// Ties a player to the table's tracks; `false` if they are not of the codecs that it negotiated.
    fn open_tracks(&mut self, slot: u32, id: TableId) -> bool {
        let Some(table) = self.tables.get_mut(&id) else { return false };
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return false };
        let bound = session.bound;
        let Some(player) = session.player_mut() else { return false };
        let wanted = player.wanted.take();
        // Before it is counted among those of a class.
        let fits = |stream: &StreamParameters| match table.codec(stream.codec.kind()) {
            Some(present) => present == stream.codec,
            // Away from home the track may not have come yet.
            None => table.home.is_none(),
        };
        if !wanted.iter().flat_map(|wanted| wanted.iter()).filter_map(|(stream, _)| stream.as_ref()).all(fits) {
            return false;
        }
        for (stream, seed) in wanted.into_iter().flat_map(|wanted| *wanted) {
            let Some(stream) = stream else { continue };
            let kind = stream.codec.kind();
            let ssrc = table.spec.ssrc(kind);
            let rtx_ssrc = table.spec.video_rtx_ssrc;
            player.layer = table.bounds.best(bound);
            let track = if kind == MediaKind::Audio { TrackId::Audio } else { TrackId::Video(player.layer) };
            table.ensure_track(track, stream.codec);
            let class = table.classes_mut(kind).join(&stream, ssrc);
            let rtx = stream
                .rtx_payload_type
                .filter(|_| stream.feedback.nack && kind == MediaKind::Video)
                .map(|payload_type| Rtx { payload_type, ssrc: rtx_ssrc });
            match kind {
                MediaKind::Video => {
                    let mut down = DownTrack::new(class, TrafficClass::Video, rtx, seed);
                    down.thin(stream.codec, table.best_for(class, bound).highest);
                    player.video = Some(down);
                }
                MediaKind::Audio => player.audio = Some(DownTrack::new(class, TrafficClass::Audio, rtx, seed)),
            }
        }
        true
    }

    /// Home only: another shard has players of the table.
    fn subscribe(&mut self, spec: TableSpec, from: ShardId) {
        let table = self.table(&spec);
        let Some(home) = &mut table.home else { return };
        if !home.subscribers.contains(&from) {
            home.subscribers.push(from);
        }
        let mut messages = Vec::new();
        let ids = table.track_ids();
        for (track, known) in ids.iter().filter_map(|id| Some((*id, table.track(*id)?))) {
            messages.push(PeerMessage::Track { table: spec.id, track, codec: known.codec });
            if let Some(clock) = known.clock {
                messages.push(PeerMessage::Clock { table: spec.id, track, clock });
            }
        }
        if !table.layers.is_empty() {
            let (offers, order) = (table.layers.as_slice().into(), table.bounds.order().into());
            messages.push(PeerMessage::Layers { table: spec.id, offers, order });
        }
        // The cached GOP, so that its players start at once as well.
        for (track, ring) in ids.iter().filter_map(|id| Some((*id, &table.track(*id)?.ring))) {
            let from = if track == TrackId::Audio { None } else { ring.gop_start() };
            for packet in (from.unwrap_or(ring.head())..ring.head()).filter_map(|index| ring.get(index)) {
                messages.push(PeerMessage::Media { table: spec.id, track, packet: packet.clone() });
            }
        }
        // Absent with tracks: a publication that begins just now. To say that it is over would end the players.
        if table.state != TableState::Absent || messages.is_empty() {
            messages.push(PeerMessage::State { table: spec.id, state: table.state.clone() });
        }
        self.events.extend(messages.into_iter().map(|message| ShardEvent::Peer { to: from, message }));
    }

    /// Begins to look at tables, where there are none yet.
    pub(super) fn watch_tables(&mut self, now: Instant) {
        self.next_table_tick.get_or_insert(now + TABLE_TICK);
    }

    fn tick_tables(&mut self, now: Instant) {
        self.watch_overload(now);
        self.tell_untold(now);
        let mut ids = std::mem::take(&mut self.ticking);
        ids.extend(self.tables.keys());
        for id in ids.drain(..) {
            self.tick_publisher(now, id);
            self.refresh_offers(now, id);
            self.request_keyframes(now, id);
            self.tick_subscription(now, id);
        }
        self.ticking = ids;
        // Without tables there is nothing to look at: an idle shard sleeps.
        self.next_table_tick = (!self.tables.is_empty()).then(|| now + TABLE_TICK);
    }

    fn tick_subscription(&mut self, now: Instant, id: TableId) {
        let here = self.config.id;
        let Some(table) = self.tables.get_mut(&id) else { return };
        let over = table.players.is_empty() && table.idle_since.is_some_and(|since| now >= since + LINGER);
        if table.home.is_none() && table.subscribed && over {
            table.subscribed = false;
            table.video.clear();
            table.audio = None;
            table.forget_layers();
            table.state = TableState::Absent;
            let message = PeerMessage::Unsubscribe { table: id, from: here };
            self.events.push_back(ShardEvent::Peer { to: table.spec.home, message });
        }
    }
}

pub(super) fn drop_reason(error: EndpointError) -> DropReason {
    match error {
        EndpointError::UnknownSource => DropReason::UnknownSource,
        EndpointError::NoKeys => DropReason::NoKeys,
        EndpointError::Dtls => DropReason::Dtls,
        EndpointError::NoClientHello => DropReason::DtlsNoClientHello,
        EndpointError::Srtp(SrtpError::Replay) => DropReason::SrtpReplay,
        EndpointError::Srtp(_) => DropReason::SrtpAuthentication,
    }
}

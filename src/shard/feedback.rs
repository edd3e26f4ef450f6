//! RTCP both ways: players' requests and reports in, our reports out, keyframe requests to publishers.

use std::time::{Duration, Instant};

use crate::fanout::MAX_DATAGRAM;
use crate::media::{Codec, MediaKind, Packet as MediaPacket, Vp8Numbers};
use crate::rtc::TransportAddress;
use crate::rtc::rtcp::{self, FirEntry, NtpTime, Packet as Rtcp, ReportBlock, RtcpError, RtcpWriter, SenderInfo};

use super::adaptation::Adaptation;
use super::core::{Shard, drop_reason};
use super::inbound::Inbound;
use super::message::{CaptureClock, LayerIndex, PeerMessage, ShardEvent, TableId, TableState, TrackClock, TrackId};
use super::points::Choice;
use super::report::DropReason;
use super::session::{Part, Player, Publisher, Session, TRANSPORT_FEEDBACK};
use super::table::Table;

/// Sender reports to players: often enough that lip sync holds, rare enough to cost nothing.
const PLAYER_REPORTS: Duration = Duration::from_secs(1);

/// Receiver reports to publishers without transport-wide feedback.
const PUBLISHER_REPORTS: Duration = Duration::from_millis(500);

/// The round trip to a publisher that NACKs assume: studios are near.
const STUDIO_ROUND_TRIP: Duration = Duration::from_millis(50);

/// The most streams that a publisher's receiver report covers: sound and all layers of a simulcast.
const MAX_BLOCKS: usize = 8;

/// The sender SSRC of our feedback where we send no media: 1, as browsers use it (RFC 3550 §6.4.2 asks for one).
const FEEDBACK_SSRC: u32 = 1;

/// A packet that is repaired so late holds the picture up: what waits behind it may be skipped for a newer keyframe.
const LATE: Duration = Duration::from_millis(300);

impl Shard {
    pub(super) fn handle_rtcp(
        &mut self,
        now: Instant,
        arrived: Instant,
        source: TransportAddress,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let slot = self.session_at(source)?;
        let session = self.sessions[slot as usize].session.as_deref_mut().ok_or(DropReason::UnknownSource)?;
        let len = session.endpoint.open_rtcp(arrived, source, datagram).map_err(drop_reason)?;
        let clear = &datagram[..len];
        let is_player = session.player().is_some();
        for packet in rtcp::packets(clear) {
            let packet = packet.map_err(|_| DropReason::RtcpMalformed)?;
            if is_player {
                self.handle_player_rtcp(now, arrived, slot, &packet);
            } else {
                self.handle_publisher_rtcp(now, slot, &packet);
            }
        }
        Ok(())
    }

    pub(super) fn handle_player_rtcp(&mut self, now: Instant, arrived: Instant, slot: u32, packet: &Rtcp<'_>) {
        let ntp = self.ntp(arrived);
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let id = session.table;
        let Some(table) = self.tables.get_mut(&id) else { return };
        match packet {
            Rtcp::Nack { media, entries, .. } if *media == table.spec.video_ssrc => {
                session.player_mut().into_iter().for_each(Player::note_complaint);
                self.repair(now, slot, entries.clone());
            }
            Rtcp::Pli { .. } | Rtcp::Fir { .. } => {
                table.report.keyframe_requests_received += 1;
                let Some(player) = session.player_mut() else { return };
                player.note_complaint();
                let (layer, allowed) = (player.layer, player.keyframes.take(now));
                if allowed && !player.rests(now) {
                    self.want_keyframe(now, id, layer);
                }
            }
            Rtcp::ReceiverReport { blocks, .. } | Rtcp::SenderReport { blocks, .. } => {
                let Some(player) = session.player_mut() else { return };
                for block in blocks.clone() {
                    player.path.handle_report(&block, ntp, block.ssrc == table.spec.video_ssrc);
                }
                // Who has nothing to choose from is looked at closely only where something is wrong.
                if player.adaptation.is_none() && player.video.is_some() && player.path.is_troubled() {
                    player.adaptation = Some(Box::new(Adaptation::new(now)));
                }
            }
            Rtcp::TransportFeedback(feedback) => self.handle_transport_feedback(arrived, slot, feedback),
            Rtcp::Remb { bitrate_bps, .. } => self.handle_remb(arrived, slot, *bitrate_bps),
            _ => {}
        }
    }

    fn handle_publisher_rtcp(&mut self, now: Instant, slot: u32, packet: &Rtcp<'_>) {
        let here = self.ntp(now);
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let id = session.table;
        let Some(publisher) = session.publisher_mut() else { return };
        let Rtcp::SenderReport { ssrc, info, .. } = packet else { return };
        let found = publisher.inbound.iter_mut().find_map(|i| i.layer_with_ssrc(*ssrc).map(|layer| (i, layer)));
        let Some((inbound, layer)) = found else { return };
        let stream = inbound.layer_mut(layer);
        if let Some(reception) = &mut stream.reception {
            reception.handle_sender_report(now, info.ntp);
        }
        let track = match inbound.kind {
            MediaKind::Audio => TrackId::Audio,
            MediaKind::Video => TrackId::Video(layer),
        };
        self.measure_clock(id, track, info, here, now);
    }

    /// A publisher's sender report ties its media clock to its wall clock, and that, by its arrival, to ours.
    fn measure_clock(&mut self, id: TableId, track: TrackId, info: &SenderInfo, ours: NtpTime, now: Instant) {
        // RFC 3550 §6.4.1: "A sender that has no notion of wallclock or elapsed time MAY set the NTP timestamp to zero."
        if info.ntp == NtpTime(0) {
            return;
        }
        let Some(table) = self.tables.get_mut(&id) else { return };
        let Some(home) = &mut table.home else { return };
        let measured = info.ntp.offset_from(ours);
        // Delay makes a report look older than it is: the largest difference is the least delayed.
        let offset = home.clock_offset.map_or(measured, |known| known.max(measured));
        home.clock_offset = Some(offset);
        let source = home.source_mut(track);
        let Some(timestamp) = source.and_then(|s| s.timeline.translate(info.rtp_timestamp)) else { return };
        let age = NtpTime(measured.abs_diff(offset)).saturating_since(NtpTime(0));
        let capture = Some(CaptureClock { ntp: info.ntp, offset });
        let clock = TrackClock { instant: now.checked_sub(age).unwrap_or(now), timestamp, capture };
        for to in &home.subscribers {
            let message = PeerMessage::Clock { table: id, track, clock };
            self.events.push_back(ShardEvent::Peer { to: *to, message });
        }
        if let Some(track) = table.track_mut(track) {
            track.clock = Some(clock);
        }
    }

    /// Answers a NACK.
    fn repair(&mut self, now: Instant, slot: u32, lost: impl Iterator<Item = u16>) {
        let withheld = self.send_again(now, slot, lost);
        let session = self.sessions[slot as usize].session.as_deref();
        let Some(table) = session.and_then(|session| self.tables.get_mut(&session.table)) else { return };
        table.report.retransmissions_withheld += withheld;
        let owes = session.and_then(Session::player).is_some_and(|player| !player.owed.is_empty());
        if owes {
            self.owe(now, slot);
        }
    }

    /// Sends what was asked for before, if there is room by now.
    pub(super) fn repair_owed(&mut self, now: Instant, slot: u32, lost: &[u16]) {
        self.send_again(now, slot, lost.iter().copied());
    }

    /// Repairs from the ring, on RTX only (RFC 4588): a repetition on the media SSRC would reuse a nonce. Returns how many packets were
    /// not sent that the ring has.
    fn send_again(&mut self, now: Instant, slot: u32, lost: impl Iterator<Item = u16>) -> u64 {
        let mut withheld = 0;
        let send_time = self.send_time(now);
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return 0 };
        let Some(table) = self.tables.get_mut(&session.table) else { return 0 };
        let allowance = session.endpoint.allowance(now);
        let Some(egress) = session.endpoint.egress() else { return 0 };
        let mut sent = 0;
        let Part::Player(player) = &mut session.part else { return 0 };
        if player.is_between_layers() {
            // What it would be repaired for is over, and its path is full.
            return lost.count() as u64;
        }
        let round_trip = player.time_to_miss(now);
        let before = (player.transport_number, self.control.batch.bytes().len());
        let (Some(track), Some(down)) = (table.video.get(player.layer.0), player.video.as_mut()) else { return 0 };
        let stamps = track.stamps(&table.spec, send_time);
        let layout = &mut self.catch_up_layout;
        let choice = Choice { layer: player.layer, highest: down.highest() };
        let highest = choice.highest.temporal;
        let points =
            table.bounds.points(session.bound).for_class(track.codec, &table.video_classes.classes[down.class]);
        let is_described = table.video_classes.classes[down.class].dependency_descriptor.is_some();
        for sequence_number in lost {
            let packet = down.index_of(sequence_number).and_then(|index| track.ring.get(index));
            let Some(packet) = packet else {
                player.owed.forget(sequence_number);
                table.report.retransmissions_missed += 1;
                continue;
            };
            // Who has had a keyframe since can do without.
            let keyframe = track.ring.gop_start().filter(|start| down.cursor().is_some_and(|cursor| *start < cursor));
            let is_asked_for_once = down.has_rtx()
                && packet.facts.spatial_layer > Some(0)
                && packet.facts.temporal_layer.is_none_or(|temporal| temporal == 0)
                && keyframe.is_none_or(|keyframe| keyframe <= packet.index);
            if !is_asked_for_once {
                player.owed.forget(sequence_number);
            }
            let batch = &mut self.control.batch;
            let len = packet.payload().len();
            // What is lost of a spatial layer that the player gets no more is repaired where other pictures rest on it: without it a
            // picture has no end, and Chromium decodes nothing of that. Of others there is one picture less.
            let is_of_no_more = packet.facts.spatial_layer > Some(choice.highest.spatial);
            let is_over = packet.facts.temporal_layer > Some(highest)
                && is_discardable(track.codec, is_described, packet, highest)
                || is_of_no_more && packet.facts.temporal_layer > Some(0);
            if is_over || sent >= allowance || player.repairs.is_under_way(now, sequence_number, round_trip) {
                withheld += 1;
                continue;
            }
            let first = player.transport_number;
            layout.rebuild(&table.video_classes.classes[down.class], &stamps, std::iter::once(&**packet));
            let mut copies = 0;
            for _ in 0..player.repairs.copies_of(sequence_number, player.path.is_losing()) {
                let has_room = |adaptation: &mut Box<Adaptation>| adaptation.may_repair(now, points, choice, len);
                if sent >= allowance
                    || !batch.has_room(MAX_DATAGRAM + 2)
                    || !player.adaptation.as_mut().is_none_or(has_room)
                    || !player.repairs.take(now, sequence_number)
                    || !down.retransmit(packet, layout.get(0), &mut player.transport_number, egress, batch)
                {
                    break;
                }
                copies += 1;
                sent += 1;
            }
            table.report.retransmissions += copies;
            match player.transport_number.wrapping_sub(first) {
                _ if !is_asked_for_once => {}
                _ if copies == 0 => player.owed.put_off(now, sequence_number),
                // Nobody tells of it.
                0 => player.owed.forget(sequence_number),
                numbers => player.owed.sent(now, sequence_number, first, numbers),
            }
            if copies == 0 {
                withheld += 1;
            } else if now.saturating_duration_since(packet.arrival) >= LATE {
                player.withheld.late += track.frames_since(packet.index.max(player.held_up_to));
                player.held_up_to = player.held_up_to.max(track.ring.head());
            }
        }
        let bytes = self.control.batch.bytes().len() - before.1;
        player.note_sent(now, before.0, bytes);
        session.endpoint.spend(now, sent);
        withheld
    }

    /// A player needs a keyframe that no ring has. Away from home, home is told.
    pub(super) fn want_keyframe(&mut self, now: Instant, id: TableId, layer: LayerIndex) {
        let Some(track) = self.tables.get_mut(&id).and_then(|t| t.track_mut(TrackId::Video(layer))) else { return };
        track.keyframe_wanted.want();
        self.request_keyframe(now, id, layer);
    }

    /// A player waits for the first picture, and says so again at each flush: nothing is remembered of it, for what is missing
    /// of the last keyframe may be repaired by the time that another request may be sent.
    pub(super) fn await_keyframe(&mut self, now: Instant, id: TableId, layer: LayerIndex) {
        let track = self.tables.get(&id).and_then(|table| table.track(TrackId::Video(layer)));
        if track.is_some_and(|track| track.keyframe_wanted.is_due(now)) {
            self.want_keyframe(now, id, layer);
        }
    }

    /// Sends the merged requests of the table's layers on that are due. Who waits to go on with a layer asks again.
    pub(super) fn request_keyframes(&mut self, now: Instant, id: TableId) {
        let layers = self.tables.get(&id).map_or(0, |table| table.video.len());
        for layer in (0..layers).map(LayerIndex) {
            let track = self.tables.get_mut(&id).and_then(|table| table.track_mut(TrackId::Video(layer)));
            let sessions = &self.sessions;
            let waits = |slot: &u32| {
                let player = sessions[*slot as usize].session.as_deref().and_then(Session::player);
                player.is_some_and(|player| !player.rests(now))
            };
            if let Some(track) = track.filter(|track| track.waiting.iter().any(waits) && track.is_due_again(now)) {
                track.keyframe_wanted.want();
            }
            self.request_keyframe(now, id, layer);
        }
    }

    fn request_keyframe(&mut self, now: Instant, id: TableId, layer: LayerIndex) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let track = table.track_mut(TrackId::Video(layer));
        if !track.is_some_and(|track| track.keyframe_wanted.take_due(now)) {
            return;
        }
        let Some(home) = &table.home else {
            let message = PeerMessage::KeyframeWanted { table: id, layer };
            return self.events.push_back(ShardEvent::Peer { to: table.spec.home, message });
        };
        if let Some(slot) = home.publisher {
            self.send_keyframe_request(slot, layer);
        }
    }

    /// Asks a publisher for a keyframe of a layer.
    fn send_keyframe_request(&mut self, slot: u32, layer: LayerIndex) {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let mut buffer = [0; 64];
        let mut writer = RtcpWriter::new(&mut buffer);
        if keyframe_request(session, layer, &mut writer).is_ok() && !writer.is_empty() {
            session.endpoint.send_rtcp(writer.as_bytes(), &mut self.control);
            if let Some(table) = self.tables.get_mut(&session.table) {
                table.report.keyframe_requests_sent += 1;
            }
        }
    }

    /// Reports that are due, and the time of the next.
    pub(super) fn send_reports(&mut self, now: Instant, slot: u32) {
        let ntp = self.ntp(now);
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let Some(table) = self.tables.get(&session.table) else { return };
        let live = table.state == TableState::Live;
        let mut buffer = [0; 1200];
        let mut writer = RtcpWriter::new(&mut buffer);
        // What does not fit waits for the next report: nothing here is urgent.
        let _ = match &mut session.part {
            Part::Player(player) => {
                session.rtcp_due = Some(now + PLAYER_REPORTS);
                write_player_report(&mut writer, table, player, now, ntp)
            }
            Part::Publisher(publisher) => {
                let interval = if publisher.twcc.is_some() { TRANSPORT_FEEDBACK } else { PUBLISHER_REPORTS };
                session.rtcp_due = Some(now + interval);
                write_publisher_report(&mut writer, table, publisher, now)
            }
        };
        let broken = session.publisher_mut().map(Publisher::take_broken_layers).unwrap_or_default();
        if writer.is_empty() {
            // Until the first packet there is nothing to report: look again soon, lip sync and a publisher's bandwidth
            // wait for it. Not for players where nobody publishes: there may be thousands.
            let idle = session.player().is_some() && !live;
            session.rtcp_due = Some(now + if idle { PLAYER_REPORTS } else { Duration::from_millis(20) });
        } else {
            session.endpoint.send_rtcp(writer.as_bytes(), &mut self.control);
        }
        let id = session.table;
        for layer in broken {
            self.mend_layer(now, id, layer);
        }
        self.watch_feedback(now, slot);
    }

    /// Packets of a layer will never come: whoever gets it needs a keyframe.
    fn mend_layer(&mut self, now: Instant, id: TableId, layer: LayerIndex) {
        let Some(table) = self.tables.get(&id) else { return };
        let is_watched_here = table.track(TrackId::Video(layer)).is_some_and(|track| !track.players.is_empty());
        let may_be_elsewhere = table.home.as_ref().is_some_and(|home| !home.subscribers.is_empty());
        if is_watched_here || may_be_elsewhere {
            self.want_keyframe(now, id, layer);
        }
    }

    pub(super) fn ntp(&self, now: Instant) -> NtpTime {
        ntp_at(self.config.epoch, now)
    }
}

/// The wall clock at `now`, where `epoch` is an instant and the wall clock at it.
pub(super) fn ntp_at(epoch: (Instant, NtpTime), now: Instant) -> NtpTime {
    let (instant, ntp) = epoch;
    ntp.plus(now.saturating_duration_since(instant))
}

/// Whether a receiver does without this packet, of a layer above the highest that the player gets. Nothing that it gets
/// rests on it, but the receiver has to know: by references that are named, or VP8's for the base layer by TL0PICIDX.
/// Frames of VP8's other layers wait for every picture id before them; who knows no more than the numbers waits for all
/// of them, and so does Chromium's of H.264.
fn is_discardable(codec: Codec, is_described: bool, packet: &MediaPacket, highest: u8) -> bool {
    match codec {
        Codec::Vp9 => true,
        Codec::H264 | Codec::H265 => false,
        _ if is_described && !packet.dependency_descriptor().is_empty() => true,
        _ => highest == 0 && Vp8Numbers::of(packet.payload()).tl0_picture_index.is_some(),
    }
}

fn write_player_report(
    writer: &mut RtcpWriter<'_>,
    table: &Table,
    player: &Player,
    now: Instant,
    ntp: NtpTime,
) -> Result<(), RtcpError> {
    for id in player.tracks().into_iter().rev().flatten() {
        let kind = id.kind();
        let (Some(track), Some(down)) = (table.track(id), player.down(kind)) else { continue };
        let (packets, octets) = down.sent();
        let Some(rtp_timestamp) = track.timestamp_at(now).filter(|_| packets > 0) else { continue };
        let rtp_timestamp = down.timestamp(rtp_timestamp);
        let ssrc = table.spec.ssrc(kind);
        writer.sender_report(ssrc, &SenderInfo { ntp, rtp_timestamp, packets, octets }, &[])?;
        writer.source_description(ssrc, &table.spec.name)?;
    }
    Ok(())
}

fn write_publisher_report(
    writer: &mut RtcpWriter<'_>,
    table: &Table,
    publisher: &mut Publisher,
    now: Instant,
) -> Result<(), RtcpError> {
    let mut blocks = [ReportBlock::default(); MAX_BLOCKS];
    let layers = publisher.inbound.iter_mut().flat_map(|inbound| &mut inbound.layers);
    let mut written = 0;
    for (block, report) in blocks.iter_mut().zip(layers.filter_map(|layer| layer.reception.as_mut()?.report(now))) {
        *block = report;
        written += 1;
    }
    if written == 0 {
        return Ok(());
    }
    writer.receiver_report(FEEDBACK_SSRC, &blocks[..written])?;
    writer.source_description(FEEDBACK_SSRC, &table.spec.name)?;
    for inbound in &mut publisher.inbound {
        // A layer's requests that find no room must not cost another its own, or the publisher its bandwidth.
        let _ = write_nacks(writer, inbound, now);
    }
    let media = publisher.inbound.iter().rev().find_map(|i| i.layers[i.best_layer().0].ssrc).unwrap_or(0);
    if let Some(twcc) = &mut publisher.twcc {
        while twcc.is_due(now) && twcc.write_feedback(FEEDBACK_SSRC, media, writer) {}
    }
    Ok(())
}

/// Asks for what is missing of every stream.
fn write_nacks(writer: &mut RtcpWriter<'_>, inbound: &mut Inbound, now: Instant) -> Result<(), RtcpError> {
    for layer in &mut inbound.layers {
        let Some(ssrc) = layer.ssrc else { continue };
        // Whoever takes no NACK is not asked, but its losses are given up in time all the same.
        let mut lost = layer.losses.take_requests(now, STUDIO_ROUND_TRIP).map(|index| index as u16).peekable();
        if !inbound.feedback.nack {
            lost.by_ref().for_each(drop);
        } else if lost.peek().is_some() {
            writer.nack(FEEDBACK_SSRC, ssrc, lost)?;
        }
    }
    Ok(())
}

/// PLI where the publisher takes it, else FIR, else nothing: FFmpeg negotiates neither.
fn keyframe_request(session: &mut Session, layer: LayerIndex, writer: &mut RtcpWriter<'_>) -> Result<(), RtcpError> {
    let Part::Publisher(publisher) = &mut session.part else { return Ok(()) };
    let Some(video) = publisher.video_mut() else { return Ok(()) };
    let feedback = video.feedback;
    // A table has the tracks of publishers before as well.
    let Some(stream) = video.layers.get_mut(layer.0) else { return Ok(()) };
    let Some(ssrc) = stream.ssrc else { return Ok(()) };
    if feedback.pli {
        writer.pli(FEEDBACK_SSRC, ssrc)
    } else if feedback.fir {
        stream.fir_number = stream.fir_number.wrapping_add(1);
        writer.fir(FEEDBACK_SSRC, &[FirEntry { ssrc, command_number: stream.fir_number }])
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{ClearPacket, Position, facts};

    #[test]
    fn what_a_receiver_waits_for_is_not_discardable() {
        let packet = |payload: &[u8], descriptor: &[u8]| {
            let clear = ClearPacket {
                position: Position { epoch: 0, index: 0, timestamp: 0 },
                marker: true,
                facts: facts(Codec::Vp8, payload),
                arrival: Instant::now(),
                capture: None,
                dependency_descriptor: descriptor,
                payload,
            };
            MediaPacket::new(&clear).expect("short")
        };
        let numbered = packet(&[0x90, 0xe0, 0x81, 0x23, 0x07, 0x80, 0x51], &[]);
        let without_index = packet(&[0x90, 0xa0, 0x81, 0x23, 0x80, 0x51], &[]);
        let described = packet(&[0x10, 0x51], &[0xc0, 0, 1]);
        for (codec, is_described, packet, by_highest) in [
            (Codec::Vp8, false, &numbered, [true, false]),
            (Codec::Vp8, true, &numbered, [true, false]),
            (Codec::Vp8, false, &without_index, [false, false]),
            (Codec::Vp8, false, &described, [false, false]),
            (Codec::Vp8, true, &described, [true, true]),
            (Codec::Vp9, false, &numbered, [true, true]),
            (Codec::H264, true, &described, [false, false]),
        ] {
            let discardable = [0, 1].map(|highest| is_discardable(codec, is_described, packet, highest));
            assert_eq!(discardable, by_highest, "{codec}, {is_described}, {packet:?}");
        }
    }
}

//! What is said over a player's data channels: which is which, and what the edge answers by itself. `bets.rs` has the bets.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::bets::MAX_MESSAGE;
use crate::qos::PlayerStatistics;
use crate::rtc::data_channel::{ChannelEvent, ChannelId};

use super::core::Shard;
use super::report::DropReason;

/// The longest round trip of a bet that a player is believed, in milliseconds.
const LONGEST_TOTAL_MS: f64 = 60_000.0;

/// From a player on `qos`.
#[derive(Debug)]
enum FromPlayer {
    Stats(PlayerStatistics),
    Timing(BetTiming),
}

/// What a message is, before the rest of it is read: reports are many, and so nothing is kept of them on the way.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BetTiming {
    bet_id: String,
    total_ms: f64,
}

impl FromPlayer {
    fn parse(message: &[u8]) -> Option<Self> {
        // serde would take an array of the fields as well.
        let message = message.trim_ascii_start();
        let Kind { kind } = serde_json::from_slice(message).ok().filter(|_| message.starts_with(b"{"))?;
        match &*kind {
            "stats" => serde_json::from_slice(message).ok().map(Self::Stats),
            "timing" => serde_json::from_slice(message).ok().map(Self::Timing),
            _ => None,
        }
    }
}

/// To a player.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum ToPlayer<'a> {
    Notice { code: &'a str },
    Latency { rtt_ms: f64 },
}

impl Shard {
    pub(super) fn handle_channel(&mut self, now: Instant, slot: u32, event: ChannelEvent) {
        let Some(player) = self.sessions[slot as usize].session.as_mut().and_then(|s| s.player_mut()) else { return };
        match event {
            ChannelEvent::Opened { id, label } => {
                let place = match label.as_str() {
                    "bets" => &mut player.channels.bets,
                    "events" => &mut player.channels.events,
                    "qos" => &mut player.channels.qos,
                    _ => return self.dropped(DropReason::DataChannel, 1),
                };
                // Answers go where the questions came from: there is one channel of a kind.
                if place.is_some() {
                    return self.misused(now, slot);
                }
                *place = Some(id);
                if label == "qos"
                    && let Some(allowance) = &mut player.allowance
                {
                    // Whoever asks there now may be new.
                    allowance.told = Told::default();
                }
                if label == "events" {
                    self.greet(now, slot);
                    self.tell_round(now, slot);
                }
            }
            ChannelEvent::Message { id, data } => {
                if self.handle_message(now, slot, id, &data).is_none() {
                    self.misused(now, slot);
                }
            }
            ChannelEvent::Oversized { id } => {
                if player.channels.bets == Some(id) {
                    self.refuse_oversized(now, slot);
                }
                self.misused(now, slot);
            }
            ChannelEvent::Closed { id } => player.channels.close(id),
            ChannelEvent::Violation => self.misused(now, slot),
            ChannelEvent::Lost => {
                player.channels = Default::default();
                // It cannot report any more, and is not silent because of that.
                player.playback = None;
            }
        }
    }

    /// A player says what makes no sense, or too much. Each is counted; who goes on like that loses its channels, for reading and
    /// answering it costs others time.
    pub(super) fn misused(&mut self, now: Instant, slot: u32) {
        self.dropped(DropReason::DataChannel, 1);
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let Some(player) = session.player_mut() else { return };
        if !player.allowance.get_or_insert_default().mistakes.take(now) {
            session.endpoint.abort_channels(now, &mut self.dtls, &mut self.control);
            self.reschedule(now, slot);
        }
    }

    /// Tells players a notice; who has no `events` channel sees the media stop.
    pub(super) fn notify(&mut self, now: Instant, players: &[u32], code: &str) {
        for slot in players {
            self.send_event(now, *slot, &ToPlayer::Notice { code });
        }
    }

    /// A channel that opens while the table is paused has missed the notice.
    fn greet(&mut self, now: Instant, slot: u32) {
        let table = self.sessions[slot as usize].session.as_ref().and_then(|s| self.tables.get(&s.table));
        if table.is_some_and(|t| t.state == super::message::TableState::Paused) {
            self.notify(now, &[slot], "publisher_left");
        }
    }

    /// `None` for a message that is not understood.
    fn handle_message(&mut self, now: Instant, slot: u32, id: ChannelId, data: &[u8]) -> Option<()> {
        let session = self.sessions[slot as usize].session.as_ref()?;
        let player = session.player()?;
        if player.channels.bets == Some(id) {
            return self.handle_bet(now, slot, data);
        }
        if player.channels.qos != Some(id) || data.len() > MAX_MESSAGE {
            return None;
        }
        let player = self.sessions[slot as usize].session.as_mut()?.player_mut()?;
        if !player.allowance.get_or_insert_default().reports.take(now) {
            return None;
        }
        let round_trip = player.path.round_trip();
        match FromPlayer::parse(data)? {
            FromPlayer::Stats(said) => self.handle_statistics(now, slot, &said),
            FromPlayer::Timing(BetTiming { bet_id, total_ms }) => {
                let total =
                    (0.0..LONGEST_TOTAL_MS).contains(&total_ms).then(|| Duration::from_secs_f64(total_ms / 1000.0))?;
                self.handle_timing(slot, &bet_id, total);
            }
        }
        self.send_latency(now, slot, id, round_trip);
        Some(())
    }

    /// Adds what a player says of its picture to what the table's players say.
    fn handle_statistics(&mut self, now: Instant, slot: u32, said: &PlayerStatistics) {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        let Some(table) = self.tables.get_mut(&session.table) else { return };
        let offered = table.bounds.offered(session.bound);
        let Some(player) = session.player_mut() else { return };
        let playback = player.playback.get_or_insert_default();
        if player.path.has_lost() {
            playback.note_complaint();
        }
        if let Some(increment) = playback.handle_report(now, offered, player.withheld, said) {
            table.qos.handle_increment(now, &increment, player.path.round_trip());
        }
    }

    /// Tells a player its round trip if that is news to it.
    fn send_latency(&mut self, now: Instant, slot: u32, id: ChannelId, round_trip: Option<Duration>) {
        let player = self.sessions[slot as usize].session.as_deref_mut().and_then(|session| session.player_mut());
        let (Some(round_trip), Some(player)) = (round_trip, player) else { return };
        if player.allowance.get_or_insert_default().told.takes(now, round_trip) {
            self.send_on(now, slot, id, &ToPlayer::Latency { rtt_ms: round_trip.as_secs_f64() * 1000.0 });
        }
    }

    fn send_event(&mut self, now: Instant, slot: u32, message: &ToPlayer<'_>) {
        let session = self.sessions[slot as usize].session.as_ref();
        if let Some(id) = session.and_then(|s| s.player()).and_then(|p| p.channels.events) {
            self.send_on(now, slot, id, message);
        }
    }

    fn send_on(&mut self, now: Instant, slot: u32, id: ChannelId, message: &ToPlayer<'_>) {
        let Ok(text) = serde_json::to_string(message) else { return };
        self.send_text(now, slot, id, &text);
    }

    pub(super) fn send_text(&mut self, now: Instant, slot: u32, id: ChannelId, text: &str) {
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        if session.endpoint.send_message(now, id, text, &mut self.dtls, &mut self.control).is_err() {
            self.dropped(DropReason::DataChannel, 1);
        }
        self.reschedule(now, slot);
    }
}

/// What a player was told of its round trip. What is told costs as much as the report that it answers: the player acknowledges it at
/// once, which wakes the shard again. Single round trips differ by some milliseconds on any path, and nobody sees that.
#[derive(Debug, Default)]
pub(super) struct Told(Option<(Instant, Duration)>);

impl Told {
    /// How long what was told holds.
    const HOLDS: Duration = Duration::from_secs(30);

    /// The least difference that is news, if it is also a quarter of what the player knows.
    const NEWS: Duration = Duration::from_millis(5);

    /// Whether it is to be told: for the first time, again after a while, or because it is news.
    fn takes(&mut self, now: Instant, round_trip: Duration) -> bool {
        let is_known = self.0.is_some_and(|(at, known)| {
            now < at + Self::HOLDS && known.abs_diff(round_trip) < (known / 4).max(Self::NEWS)
        });
        if !is_known {
            self.0 = Some((now, round_trip));
        }
        !is_known
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::message::{LayerIndex, LayerOffer, TableId, TrackId};
    use super::super::testing::{roulette, shard_config};
    use super::*;
    use crate::bets::PlayerId;
    use crate::config::MaxLayer;
    use crate::media::{ClearPacket, Codec, Packet, PayloadFacts, Position};
    use crate::qos::Losses;
    use crate::rtc::rtcp::{self, FirEntry, ReportBlock, RtcpError, RtcpWriter};
    use crate::rtc::sdp::{Offer, TableMedia, negotiate_player, negotiate_publisher};

    const PUBLISHER: &[u8] = include_bytes!("../../tests/fixtures/offers/chromium-publisher-vp8.sdp");
    const PLAYER: &[u8] = include_bytes!("../../tests/fixtures/offers/chromium-player.sdp");
    const QOS: ChannelId = 3;
    const SECOND: Duration = Duration::from_secs(1);

    /// A shard with a table and players who have opened their `qos` channel.
    struct Reporting {
        shard: Shard,
        now: Instant,
        index: u64,
        players: Vec<u32>,
    }

    impl Reporting {
        fn with(players: u8) -> Self {
            let now = Instant::now();
            let spec = roulette();
            let publisher = negotiate_publisher(&Offer::parse(PUBLISHER).expect("an offer")).expect("a publisher's");
            let offer = Offer::parse(PLAYER).expect("an offer");
            let negotiated = negotiate_player(&offer, &TableMedia::from(&publisher)).expect("a player's");
            let mut shard = Shard::new(shard_config(now, 60 * SECOND));
            let mut slots = Vec::new();
            for n in 0..players {
                let slot =
                    shard.add_player(now, &spec, PlayerId::anonymous([n; 16]), None, &negotiated, &[n; 32]).key.slot;
                shard.handle_channel(now, slot, ChannelEvent::Opened { id: QOS, label: "qos".into() });
                slots.push(slot);
            }
            Self { shard, now, index: 0, players: slots }
        }

        /// Two seconds of the table: 60 frames of two packets, of which the sender forgets every other marker.
        fn play(&mut self) {
            for frame in 0..60u32 {
                self.now += SECOND / 30;
                for n in 0..2 {
                    let timestamp = 3000 * (self.index / 2) as u32;
                    let clear = ClearPacket {
                        position: Position { epoch: 0, index: self.index, timestamp },
                        marker: n == 1 && frame % 2 == 0,
                        facts: PayloadFacts::default(),
                        arrival: self.now,
                        capture: None,
                        dependency_descriptor: &[],
                        payload: &[0; 500],
                    };
                    let packet = Arc::new(Packet::new(&clear).expect("fits"));
                    let (id, track) = (TableId(0), TrackId::Video(LayerIndex(0)));
                    self.shard.tables.get_mut(&id).expect("made").ensure_track(track, Codec::Vp8);
                    self.shard.accept_packet(self.now, id, track, packet);
                    self.index += 1;
                }
            }
        }

        fn says(&mut self, player: usize, frames_decoded: u64) {
            self.reports(player, &json!({ "type": "stats", "framesDecoded": frames_decoded }));
        }

        fn reports(&mut self, player: usize, said: &serde_json::Value) {
            let event = ChannelEvent::Message { id: QOS, data: said.to_string().into() };
            self.shard.handle_channel(self.now, self.players[player], event);
        }

        fn frames_seen(&mut self) -> f64 {
            self.shard.report(self.now).tables["roulette"].qos.frames_seen.mean()
        }
    }

    #[test]
    fn who_falls_silent_is_taken_to_see_nothing_until_it_reports_or_leaves() {
        let mut table = Reporting::with(2);
        for n in 0..3 {
            table.play();
            table.says(0, 60 * n);
            table.says(1, 60 * n);
        }
        assert_eq!(table.frames_seen(), 1.0, "frames are counted whatever becomes of their markers");
        for n in 3..9 {
            table.play();
            table.says(0, 60 * n);
        }
        let seen = table.frames_seen();
        assert!((0.3..0.7).contains(&seen), "one of two is silent: {seen}");
        table.shard.handle_channel(table.now, table.players[1], ChannelEvent::Lost);
        assert_eq!(table.frames_seen(), 1.0, "without a channel nobody is silent");
    }

    /// What is on the ledger of a player that never receives seven frames, and sends this meanwhile.
    fn lost_with(write: impl Fn(&mut RtcpWriter<'_>) -> Result<(), RtcpError>) -> Losses {
        let mut table = Reporting::with(1);
        for n in 0..8 {
            table.play();
            let received = if n < 3 { 60 * n } else { 60 * n - 7 };
            if n == 3 {
                let mut buffer = [0; 200];
                let mut writer = RtcpWriter::new(&mut buffer);
                write(&mut writer).expect("room");
                for packet in rtcp::packets(writer.as_bytes()) {
                    let packet = packet.expect("just written");
                    table.shard.handle_player_rtcp(table.now, table.now, table.players[0], &packet);
                }
            }
            table.reports(0, &json!({ "type": "stats", "framesReceived": received, "framesDecoded": received }));
        }
        table.shard.report(table.now).tables["roulette"].qos.losses
    }

    #[test]
    fn what_a_player_asks_for_or_says_is_lost_and_never_receives_is_lost_on_the_way() {
        let (video, audio) = (roulette().video_ssrc, roulette().audio_ssrc);
        let block = |ssrc, fraction_lost| ReportBlock { ssrc, fraction_lost, ..ReportBlock::default() };
        let on_the_way = Losses { network: 7, ..Losses::default() };
        assert_eq!(lost_with(|rtcp| rtcp.nack(1, video, [3]).map(drop)), on_the_way);
        assert_eq!(lost_with(|rtcp| rtcp.pli(1, video)), on_the_way);
        assert_eq!(lost_with(|rtcp| rtcp.fir(1, &[FirEntry { ssrc: video, command_number: 1 }])), on_the_way);
        assert_eq!(lost_with(|rtcp| rtcp.receiver_report(1, &[block(audio, 0), block(video, 1)])), on_the_way);
        let late = Losses::default();
        assert_eq!(
            lost_with(|rtcp| rtcp.receiver_report(1, &[block(audio, 1), block(video, 0)])),
            late,
            "it may be slow"
        );
        assert_eq!(lost_with(|rtcp| rtcp.nack(1, audio, [3]).map(drop)), late, "sound is no picture");
    }

    #[test]
    fn nobody_is_silent_while_there_is_nothing_to_see() {
        let mut table = Reporting::with(1);
        table.play();
        table.says(0, 60);
        table.now += 60 * SECOND;
        assert_eq!(table.frames_seen(), 1.0);
        table.play();
        assert_eq!(table.frames_seen(), 0.0);
    }

    #[test]
    fn a_round_trip_is_told_when_it_is_news() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut told = Told::default();
        let mut news = |at: u64, round_trip: Duration| told.takes(start + ms(1000 * at), round_trip);
        assert!(news(0, ms(80)));
        assert!(!news(2, ms(99)) && !news(4, ms(61)), "less than a quarter");
        assert!(news(6, ms(100)) && news(8, ms(75)));
        assert!(!news(37, ms(75)) && news(38, ms(75)), "thirty seconds later");
        assert!(news(40, ms(1)) && !news(42, Duration::from_micros(5900)) && news(44, ms(6)), "less than 5 ms");
    }

    #[test]
    fn who_sees_all_that_it_may_have_sees_all() {
        for (bound, expected) in [(None, 0.5), (MaxLayer::new(0), 1.0)] {
            let mut table = Reporting::with(1);
            let (now, id, spec) = (table.now, TableId(0), roulette());
            // What comes is the less of two layers; the other has twice as many frames.
            let offers = [LayerIndex(1), LayerIndex(0)].map(LayerOffer::unmeasured);
            table.shard.layers_offered(now, id, &offers, &[LayerIndex(0), LayerIndex(1)]);
            let known = table.shard.table(&spec);
            let bound = known.bounds.of(bound, &offers);
            let session = table.shard.sessions[table.players[0] as usize].session.as_deref_mut().expect("joined");
            session.bound = bound;
            for n in 0..6 {
                table.play();
                for _ in 0..120 {
                    table.shard.table(&spec).bounds.count(LayerIndex(1), None, 2000, true);
                }
                table.says(0, 60 * n);
            }
            let seen = table.frames_seen();
            assert!((seen - expected).abs() < 0.1, "{seen} of {expected}");
        }
    }

    #[test]
    fn what_a_message_is_for_stands_in_its_type() {
        let read = |text: &str| FromPlayer::parse(text.as_bytes());
        assert!(
            matches!(read(r#"{"type":"stats","fps":30,"framesDecoded":7}"#), Some(FromPlayer::Stats(s)) if s.frames_decoded == Some(7))
        );
        assert!(
            matches!(read(r#"{"type":"timing","betId":"b-1","totalMs":12.5}"#), Some(FromPlayer::Timing(BetTiming { bet_id, total_ms: 12.5 })) if bet_id == "b-1")
        );
        for wrong in [
            r#"{"type":"timing"}"#,
            r#"{"type":"bet","betId":"b"}"#,
            r#"{"type":"ack"}"#,
            r#"{"betId":"b"}"#,
            "[]",
            r#"["stats"]"#,
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            let _ = FromPlayer::parse(&bytes);
            let _ = FromPlayer::parse(format!("{{\"type\":{text}").as_bytes());
        }
    }
}

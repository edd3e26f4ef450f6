//! A player: receives, counts, and answers as a browser does, with receiver reports, transport-wide feedback and NACKs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tableside::media::RtpHeader;
use tableside::rtc::demux::{PacketKind, classify};
use tableside::rtc::rtcp::{self, LossDetector, LossPolicy, ReceptionStats, ReportBlock, RtcpWriter, TwccRecorder};
use tableside::rtc::sdp::IceCredentials;

use crate::answer::{Answer, Stream};
use crate::bettor::{BetTally, Bettor};
use crate::client::{Client, MAX_DATAGRAM, Shared, Wire, random};
use crate::data_side::{DataSide, Played, Says};
use crate::stamp;
use crate::tally::{Received, Times};

/// Chromium's, for video; thousands of players spread over it by its randomness (RFC 3550 §6.3.1: half to one and a half).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What Chromium puts in as the SSRC of a receiver that sends nothing.
const OWN_SSRC: u32 = 1;

/// Frames that are watched at a time for missing packets.
const OPEN_FRAMES: usize = 32;

/// What players of one group share while they are driven.
pub struct PlayerContext<'a> {
    /// For DTLS.
    pub shared: &'a mut Shared,
    /// Takes delays once the measurement has begun: from the publisher's send call to the kernel's receipt.
    pub delays: Option<&'a mut Times>,
    /// Takes what becomes of bets.
    pub bets: &'a mut BetTally,
    /// Who connects now bets at once.
    pub betting: bool,
    /// What of RTCP goes where: the peer's socket.
    pub send: &'a mut Wire<'a>,
}

/// See the module's text.
pub struct Player {
    client: Client,
    /// Opens every packet and checks its payload.
    verifies: bool,
    audio: Option<Track>,
    video: Option<Track>,
    feedback: Option<TwccRecorder>,
    feedback_interval: Duration,
    /// Chromium's feedback is periodic; the recorder alone would answer at once what we read late.
    next_feedback: Instant,
    next_report: Instant,
    /// When the first packet came: what was sent before is a joiner's replay, and says nothing of the delay.
    live_from: Option<u64>,
    frames: OpenFrames,
    counted: Received,
    reduced_size: bool,
    /// What it says over data channels.
    says: Says,
    /// Once it is connected.
    data: Option<Box<DataSide>>,
    /// Frames and bytes of video that came, by what an unopened packet shows.
    played: Played,
    /// When the first RTP packet came.
    pub first_packet: Option<Instant>,
    /// When the first frame was whole, where packets are opened.
    pub first_frame: Option<Instant>,
}

/// One received stream.
struct Track {
    reception: ReceptionStats,
    loss: LossDetector,
    highest: u64,
    recovered: u64,
    reordered: u64,
    duplicates: u64,
    nacked: u64,
}

impl Player {
    /// The answer has come.
    pub fn new(
        now: Instant,
        ice: IceCredentials,
        answer: Arc<Answer>,
        verifies: bool,
        feedback: Option<Duration>,
        says: Says,
    ) -> Self {
        let feedback = feedback.unwrap_or_else(|| feedback_interval(answer.video.and_then(|video| video.limit)));
        let wants_feedback = answer.video.is_some_and(|video| video.transport_feedback && video.transport_cc.is_some());
        let reduced_size = answer.video.or(answer.audio).is_some_and(|stream| stream.reduced_size);
        Self {
            client: Client::new(now, ice, answer),
            reduced_size,
            says,
            data: None,
            played: Played::default(),
            verifies,
            audio: None,
            video: None,
            feedback: wants_feedback.then(|| TwccRecorder::new(feedback)),
            feedback_interval: feedback,
            next_feedback: now,
            next_report: now + REPORT_INTERVAL / 2,
            live_from: None,
            frames: OpenFrames::default(),
            counted: Received::default(),
            first_packet: None,
            first_frame: None,
        }
    }

    /// The connection below.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What came so far.
    pub fn received(&self) -> Received {
        let mut all = self.counted;
        for track in [&self.audio, &self.video].into_iter().flatten() {
            all += track.received();
        }
        all.frames = self.frames.whole;
        all.torn_frames = self.frames.torn();
        all.said = self.data.as_ref().map_or(0, |data| data.reports());
        all
    }

    /// A datagram came; `at` is when, by the kernel, and `unix` the same in nanoseconds since 1970.
    pub fn handle_datagram(&mut self, at: Instant, unix: u64, datagram: &mut [u8], context: &mut PlayerContext<'_>) {
        self.counted.bytes += datagram.len() as u64;
        match classify(datagram) {
            PacketKind::Rtp => self.handle_rtp(at, unix, datagram, context.delays.as_deref_mut()),
            PacketKind::Rtcp => self.handle_rtcp(at, datagram),
            PacketKind::Stun => self.client.handle_stun(at, datagram, context.shared, context.send),
            PacketKind::Dtls => {
                self.client.handle_dtls(at, datagram, context.shared, context.send);
                self.handle_data(at, context);
            }
            PacketKind::Unrecognised => self.counted.undecryptable += 1,
        }
    }

    /// The player that bets, if it does and is connected.
    pub fn bettor(&mut self) -> Option<&mut Bettor> {
        self.data.as_mut()?.bettor()
    }

    /// What came over its channels.
    fn handle_data(&mut self, at: Instant, context: &mut PlayerContext<'_>) {
        if self.data.is_none() && self.says.anything() && self.client.is_connected() && self.client.answer().data {
            self.data = DataSide::new(at, self.client.role(), self.says).map(Box::new);
            self.bettor().into_iter().filter(|_| context.betting).for_each(|bettor| bettor.begin(at));
        }
        let Some(data) = &mut self.data else { return };
        for packet in self.client.take_data() {
            data.handle_packet(at, &packet, context.bets);
        }
        self.send_data(at, context);
    }

    fn send_data(&mut self, now: Instant, context: &mut PlayerContext<'_>) {
        let Some(data) = &mut self.data else { return };
        let mut packets = Vec::new();
        data.poll_transmit(now, |packet| packets.push(packet.to_vec()));
        self.client.send_data(packets.iter().map(Vec::as_slice), context.shared, context.send);
    }

    fn handle_rtp(&mut self, at: Instant, unix: u64, packet: &mut [u8], delays: Option<&mut Times>) {
        let (audio, video) = (self.client.answer().audio, self.client.answer().video);
        let Some(keys) = self.client.keys() else { return };
        let Ok(header) = RtpHeader::parse_header(packet) else {
            self.counted.undecryptable += 1;
            return;
        };
        let is = |stream: Option<Stream>| stream.is_some_and(|s| s.payload_type == header.payload_type);
        let is_rtx = video.is_some_and(|s| s.rtx == Some(header.payload_type));
        // The number is in every packet of the transport, whatever its stream.
        if let (Some(recorder), Some(id)) = (&mut self.feedback, video.and_then(|s| s.transport_cc))
            && let Some(&[high, low]) = header.extension(packet, id)
        {
            recorder.handle_packet(at, u16::from_be_bytes([high, low]));
        }
        let mut clear_len = None;
        if self.verifies || is_rtx {
            match keys.rtp_opener.open(packet, header.header_len) {
                Ok(opened) => clear_len = Some(opened.len),
                Err(_) => {
                    self.counted.undecryptable += 1;
                    return;
                }
            }
        }
        if is_rtx {
            let clear = &packet[..clear_len.unwrap_or(0)];
            let Ok(header) = header.resolve_padding(clear) else { return };
            // Padding alone probes for bandwidth, and repairs nothing (RFC 4588 §4: OSN, then the payload).
            if let (Some(track), Some((osn, payload))) =
                (&mut self.video, header.payload(clear).split_first_chunk::<2>())
                && track.repair(at, u16::from_be_bytes(*osn))
                && self.verifies
            {
                self.check(at, unix, payload, None);
            }
            return;
        }
        let (track, rate) = match () {
            () if is(video) => (&mut self.video, 90_000),
            () if is(audio) => (&mut self.audio, 48_000),
            () => {
                self.counted.undecryptable += 1;
                return;
            }
        };
        self.first_packet.get_or_insert(at);
        self.live_from.get_or_insert(unix);
        if track.as_ref().is_some_and(|track| track.reception.ssrc() != header.ssrc) {
            // Another stream took its place: what the old one counted stays.
            self.counted += track.take().map(|track| track.received()).unwrap_or_default();
        }
        let track = track.get_or_insert_with(|| Track::new(header.ssrc, rate));
        let new = track.handle_packet(at, header.sequence_number, header.timestamp);
        if new && is(video) {
            self.played.frames += u64::from(header.marker);
            self.played.bytes += packet.len().saturating_sub(header.header_len) as u64;
        }
        if let (true, true, Some(len)) = (new, is(video), clear_len) {
            let clear = &packet[..len];
            let Ok(header) = header.resolve_padding(clear) else {
                self.counted.changed += 1;
                return;
            };
            let payload = header.payload(clear).len();
            let start = header.header_len;
            // The payload borrows the packet, not the player.
            let payload = &packet[start..start + payload];
            self.check(at, unix, payload, delays);
        }
    }

    fn check(&mut self, at: Instant, unix: u64, payload: &[u8], delays: Option<&mut Times>) {
        if payload.is_empty() {
            return; // padding alone
        }
        match stamp::read(payload) {
            Ok(stamp) => {
                if let Some(delays) = delays.filter(|_| self.live_from.is_some_and(|from| from <= stamp.sent_at)) {
                    delays.record(unix.saturating_sub(stamp.sent_at) / 1000);
                }
                if self.frames.note(stamp) {
                    self.first_frame.get_or_insert(at);
                }
            }
            // Another's publisher: there is nothing to check.
            Err(stamp::PayloadError::NoStamp) => {}
            Err(stamp::PayloadError::Changed) => self.counted.changed += 1,
        }
    }

    fn handle_rtcp(&mut self, at: Instant, packet: &mut [u8]) {
        let Some(keys) = self.client.keys() else { return };
        let Ok(len) = keys.rtcp_opener.open(packet) else {
            self.counted.undecryptable += 1;
            return;
        };
        for report in rtcp::packets(&packet[..len]).filter_map(Result::ok) {
            if let rtcp::Packet::SenderReport { ssrc, info, .. } = report {
                for track in [&mut self.audio, &mut self.video].into_iter().flatten() {
                    if track.reception.ssrc() == ssrc {
                        track.reception.handle_sender_report(at, info.ntp);
                    }
                }
            }
        }
    }

    /// When to call [`Player::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let client = self.client.poll_timeout()?;
        if !self.client.is_connected() {
            return Some(client);
        }
        let rtt = self.client.rtt();
        let feedback = self.feedback.as_ref().and_then(TwccRecorder::poll_timeout).map(|at| at.max(self.next_feedback));
        let nack = self.video.as_ref().and_then(|track| track.loss.poll_timeout(rtt));
        let data = self.data.as_ref().and_then(|data| data.poll_timeout());
        [Some(self.next_report), feedback, nack, data].into_iter().flatten().min().map(|at| at.min(client))
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Instant, context: &mut PlayerContext<'_>) {
        self.client.handle_timeout(now, context.shared, context.send);
        if !self.client.is_connected() {
            return;
        }
        if let Some(data) = &mut self.data
            && data.poll_timeout().is_some_and(|at| at <= now)
        {
            let lost = self.video.as_ref().map_or(0, |track| track.received().lost);
            data.handle_timeout(now, &Played { lost, ..self.played }, context.bets);
            self.send_data(now, context);
        }
        let media = self.video.as_ref().map_or(0, |track| track.reception.ssrc());
        let mut buffer = [0; MAX_DATAGRAM - 100];
        if now >= self.next_report {
            self.next_report =
                now + REPORT_INTERVAL / 2 + Duration::from_micros(random() % REPORT_INTERVAL.as_micros() as u64);
            let blocks: Vec<_> = [&mut self.audio, &mut self.video]
                .into_iter()
                .flatten()
                .filter_map(|track| track.reception.report(now))
                .collect();
            let mut writer = RtcpWriter::new(&mut buffer);
            if begin(&mut writer, &blocks, true, self.reduced_size) {
                let report = writer.as_bytes();
                Self::send(&mut self.client, &mut self.counted, report, context.send);
            }
        }
        if let Some(recorder) =
            self.feedback.as_mut().filter(|recorder| recorder.is_due(now) && now >= self.next_feedback)
        {
            self.next_feedback = now + self.feedback_interval;
            loop {
                let mut writer = RtcpWriter::new(&mut buffer);
                begin(&mut writer, &[], false, self.reduced_size);
                if !recorder.write_feedback(OWN_SSRC, media, &mut writer) {
                    break;
                }
                Self::send(&mut self.client, &mut self.counted, writer.as_bytes(), context.send);
            }
        }
        let rtt = self.client.rtt();
        if let Some(track) = &mut self.video
            && track.loss.poll_timeout(rtt).is_some_and(|at| now >= at)
        {
            let missing: Vec<u16> = track.loss.take_requests(now, rtt).map(|index| index as u16).collect();
            track.nacked += missing.len() as u64;
            let mut writer = RtcpWriter::new(&mut buffer);
            if !missing.is_empty() {
                // Of the picture alone, as Chromium does, whose streams report each for itself.
                let block = Some(&mut track.reception).filter(|_| !self.reduced_size).and_then(|r| r.report(now));
                begin(&mut writer, block.as_slice(), false, self.reduced_size);
            }
            if !missing.is_empty() && writer.nack(OWN_SSRC, media, missing).is_ok() {
                Self::send(&mut self.client, &mut self.counted, writer.as_bytes(), context.send);
            }
        }
    }

    fn send(client: &mut Client, counted: &mut Received, report: &[u8], send: &mut Wire<'_>) {
        let Some(keys) = client.keys() else { return };
        let mut sealed = [0; MAX_DATAGRAM];
        let len = keys.rtcp_sealer.seal(report, &mut sealed);
        send(&sealed[..len]);
        counted.reports += 1;
    }
}

/// What a packet to the server begins with: a report if it is one, and in any case, with a name, where the server has not
/// agreed to reduced-size packets (RFC 3550 §6.1, RFC 5506 §3.4.1). Whether there was room for it.
fn begin(writer: &mut RtcpWriter<'_>, blocks: &[ReportBlock], is_report: bool, reduced_size: bool) -> bool {
    let report = !is_report && reduced_size || writer.receiver_report(OWN_SSRC, blocks).is_ok();
    report && (reduced_size || writer.source_description(OWN_SSRC, "load").is_ok())
}

impl Track {
    fn new(ssrc: u32, clock_rate: u32) -> Self {
        Self {
            reception: ReceptionStats::new(ssrc, clock_rate),
            loss: LossDetector::new(LossPolicy::default()),
            highest: 0,
            recovered: 0,
            reordered: 0,
            duplicates: 0,
            nacked: 0,
        }
    }

    /// Whether the packet is new.
    fn handle_packet(&mut self, at: Instant, sequence: u16, timestamp: u32) -> bool {
        let index = self.extend(sequence);
        if self.reception.received() > 0 && index <= self.highest {
            if !self.loss.handle_packet(at, index) {
                self.duplicates += 1;
                return false;
            }
            self.reordered += 1;
        } else {
            self.loss.handle_packet(at, index);
            self.highest = index;
        }
        self.reception.handle_rtp(at, index, timestamp);
        true
    }

    /// A retransmission came. Whether its packet had been missing.
    fn repair(&mut self, at: Instant, sequence: u16) -> bool {
        let index = self.extend(sequence);
        let missing = index < self.highest && self.loss.handle_packet(at, index);
        if missing {
            self.recovered += 1;
        } else {
            self.duplicates += 1;
        }
        missing
    }

    /// The number beyond 16 bits: the nearest to the highest.
    fn extend(&self, sequence: u16) -> u64 {
        if self.reception.received() == 0 {
            return 0x1_0000 + u64::from(sequence);
        }
        let ahead = sequence.wrapping_sub(self.highest as u16) as i16;
        self.highest.saturating_add_signed(ahead.into())
    }

    fn received(&self) -> Received {
        let unique = self.reception.received();
        Received {
            packets: unique,
            lost: self.reception.expected().saturating_sub(unique + self.recovered),
            recovered: self.recovered,
            reordered: self.reordered,
            duplicates: self.duplicates,
            nacked: self.nacked,
            ..Received::default()
        }
    }
}

/// Counts frames of which all packets came.
#[derive(Default)]
struct OpenFrames {
    open: Vec<(u32, u16)>,
    newest: u32,
    newest_sent_at: u64,
    whole: u64,
    torn: u64,
    /// The frame in whose middle the stream began for us, if it did: nobody can know what was before, or ask for it. Nor does
    /// that count as lost.
    joined_within: Option<u32>,
    begun: bool,
}

impl OpenFrames {
    /// A packet came, for the first time. Whether its frame is whole now.
    fn note(&mut self, stamp: stamp::Stamp) -> bool {
        if !std::mem::replace(&mut self.begun, true) && stamp.packet > 0 {
            self.joined_within = Some(stamp.frame);
        }
        if self.joined_within == Some(stamp.frame) {
            return false;
        }
        if stamp.frame < self.newest && stamp.sent_at > self.newest_sent_at {
            // Another publisher, who counts from 0: of the one before, as of a cached picture, nothing more comes.
            self.torn += self.open.len() as u64;
            self.open.clear();
            self.newest = stamp.frame;
        }
        self.newest_sent_at = self.newest_sent_at.max(stamp.sent_at);
        let at = self.open.iter().position(|(frame, _)| *frame == stamp.frame).unwrap_or_else(|| {
            if self.open.len() == OPEN_FRAMES {
                self.open.remove(0);
                self.torn += 1;
            }
            self.open.push((stamp.frame, 0));
            self.open.len() - 1
        });
        self.newest = self.newest.max(stamp.frame);
        self.open[at].1 += 1;
        let whole = self.open[at].1 == stamp.packets;
        if whole {
            self.open.remove(at);
            self.whole += 1;
        }
        whole
    }

    /// Frames that lack a packet, and will lack it for ever: repair takes no longer than a second or so.
    fn torn(&self) -> u64 {
        let hopeless = |frame: u32| frame.saturating_add(OPEN_FRAMES as u32) < self.newest;
        self.torn + self.open.iter().filter(|(frame, _)| hopeless(*frame)).count() as u64
    }
}

/// Between two transport-wide feedbacks of a Chromium that may send `limit` bits per second, if there is a limit: they
/// get a twentieth of it, at 544 bits each, and there are at most 16 a second and at least 4 (measured: `docs/load.md`).
fn feedback_interval(limit: Option<u32>) -> Duration {
    let interval = limit.map_or(0, |limit| 20 * 544 * 1000 / u64::from(limit.max(1)));
    Duration::from_millis(interval.clamp(60, 250))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a track counts of these sequence numbers.
    fn counted(numbers: &[u16]) -> (Track, Received) {
        let now = Instant::now();
        let mut track = Track::new(1, 90_000);
        for number in numbers {
            track.handle_packet(now, *number, 0);
        }
        let received = track.received();
        (track, received)
    }

    #[test]
    fn losses_reorderings_and_duplicates_are_told_apart() {
        let received = |numbers: &[u16]| {
            let received = counted(numbers).1;
            (received.packets, received.lost, received.reordered, received.duplicates)
        };
        assert_eq!(received(&[65_534, 65_535, 0, 1]), (4, 0, 0, 0));
        assert_eq!(received(&[65_534, 1]), (2, 2, 0, 0));
        assert_eq!(received(&[65_534, 0, 65_535]), (3, 0, 1, 0));
        assert_eq!(received(&[7, 8, 8, 7]), (2, 0, 0, 2));
    }

    #[test]
    fn a_retransmission_is_no_loss_and_counts_once() {
        let (mut track, before) = counted(&[10, 13]);
        assert_eq!(before.lost, 2);
        let now = Instant::now();
        assert!(track.repair(now, 11));
        assert!(!track.repair(now, 11) && !track.repair(now, 10));
        let after = track.received();
        assert_eq!((after.packets, after.lost, after.recovered, after.duplicates), (2, 1, 1, 2));
        // The original comes after all.
        assert!(!track.handle_packet(now, 11, 0));
    }

    #[test]
    fn frames_that_lack_a_packet_are_torn_in_the_end() {
        let mut frames = OpenFrames::default();
        for frame in 0..100 {
            for packet in 0..3 {
                if (frame, packet) != (20, 1) {
                    frames.note(stamp::Stamp { sent_at: 0, frame, packet, packets: 3 });
                }
            }
        }
        assert_eq!((frames.whole, frames.torn()), (99, 1));
    }

    #[test]
    fn a_frame_that_the_stream_began_within_is_neither_whole_nor_torn() {
        let mut frames = OpenFrames::default();
        for (frame, packet) in (0..100).flat_map(|frame| [(frame, 0), (frame, 1)]).skip(1) {
            frames.note(stamp::Stamp { sent_at: 0, frame, packet, packets: 2 });
        }
        assert_eq!((frames.whole, frames.torn()), (99, 0));
    }

    #[test]
    fn what_another_publisher_left_open_is_torn_at_once() {
        let mut frames = OpenFrames::default();
        let stamp = |sent_at, frame, packet| stamp::Stamp { sent_at, frame, packet, packets: 2 };
        for (frame, packet) in [(200, 0), (200, 1), (201, 0)] {
            frames.note(stamp(u64::from(frame), frame, packet));
        }
        assert_eq!((frames.whole, frames.torn()), (1, 0));
        frames.note(stamp(500, 0, 0));
        assert_eq!((frames.whole, frames.torn()), (1, 1));
        // A retransmission is no other publisher.
        frames.note(stamp(501, 1, 0));
        frames.note(stamp(501, 1, 1));
        frames.note(stamp(500, 0, 1));
        assert_eq!((frames.whole, frames.torn()), (3, 1));
    }

    #[test]
    fn a_request_comes_with_a_report_unless_the_server_takes_it_without() {
        let kinds = |is_report, reduced_size| {
            let mut buffer = [0; 200];
            let mut writer = RtcpWriter::new(&mut buffer);
            assert!(begin(&mut writer, &[], is_report, reduced_size));
            writer.nack(OWN_SSRC, 2, [3]).unwrap();
            // The packet type is the second byte, and the length in words the two after it (RFC 3550 §6.4.1).
            let (mut kinds, mut rest) = (Vec::new(), writer.as_bytes());
            while let [_, kind, high, low, ..] = *rest {
                kinds.push(kind);
                rest = &rest[4 * (1 + usize::from(u16::from_be_bytes([high, low])))..];
            }
            kinds
        };
        let [rr, sdes, nack] = [201, 202, 205];
        assert_eq!(kinds(false, true), [nack]);
        assert_eq!(kinds(false, false), [rr, sdes, nack]);
        assert_eq!(kinds(true, true), [rr, nack]);
    }

    #[test]
    fn feedback_comes_as_often_as_from_chromium() {
        let intervals =
            [None, Some(1_000_000), Some(86_000), Some(63_000), Some(43_000), Some(0)].map(feedback_interval);
        assert_eq!(intervals.map(|interval| interval.as_millis()), [60, 60, 126, 172, 250, 250]);
    }

    proptest! {
        #[test]
        fn what_is_dropped_is_what_is_lost(first: u16, dropped in prop::collection::vec(any::<bool>(), 1..200)) {
            let numbers: Vec<u16> = (0..).zip(&dropped).filter(|(_, drop)| !**drop).map(|(n, _)| first.wrapping_add(n)).collect();
            // What is lost before the first and after the last packet cannot be known.
            let inner = dropped.iter().skip_while(|d| **d).collect::<Vec<_>>();
            let inner = inner.iter().rev().skip_while(|d| ***d).filter(|d| ***d).count();
            let received = counted(&numbers).1;
            prop_assert_eq!((received.packets, received.lost), (numbers.len() as u64, inner as u64));
        }
    }
}

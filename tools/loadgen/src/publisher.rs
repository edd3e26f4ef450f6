//! A publisher: synthetic video and audio at the pace of a camera, sender reports, retransmissions, keyframes on request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tableside::media::{HeaderFields, write_header};
use tableside::rtc::demux::{PacketKind, classify};
use tableside::rtc::rtcp::{self, NtpTime, RtcpWriter, SenderInfo};
use tableside::rtc::sdp::IceCredentials;

use crate::answer::Answer;
use crate::client::{Client, Keys, MAX_DATAGRAM, Shared, Wire, random};
use crate::offer::{self, Sends};
use crate::source::{Sizes, Source};
use crate::stamp::{self, Stamp};
use crate::tally::Sent;

const AUDIO_INTERVAL: Duration = Duration::from_millis(20);

/// Payload bytes of an Opus packet at 40 kbit/s.
const AUDIO_BYTES: usize = 100;

const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Between two keyframes that were asked for.
const KEYFRAME_DISTANCE: Duration = Duration::from_millis(300);

/// Packets that can be sent again.
const HISTORY: usize = 512;

/// Room in a packet for header, extensions and tag.
const MAX_PAYLOAD: usize = MAX_DATAGRAM - 100;

/// What a publisher is to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Programme {
    /// Frames a second.
    pub fps: u32,
    /// How large frames are; of a simulcast the best layer's.
    pub sizes: Sizes,
    /// From keyframe to keyframe.
    pub keyframe_interval: Duration,
    /// Layers of a simulcast, each a quarter of the one before; 1 for one encoding.
    pub layers: usize,
    /// Also sound.
    pub audio: bool,
    /// How late a frame is sent at most; later it is left out.
    pub latest: Option<Duration>,
}

/// See the module's text.
pub struct Publisher {
    client: Client,
    programme: Programme,
    audio: Stream,
    layers: Vec<Layer>,
    transport_number: u16,
    next_frame: Option<Instant>,
    /// How far into a frame interval this one sends its frames, so that tables do not send all at once.
    phase: Duration,
    next_audio: Instant,
    next_report: Instant,
    last_keyframe: Option<Instant>,
    frame: u32,
    sent: Sent,
}

/// One SSRC.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    /// Rollover counter and sequence number of the next packet.
    next: u64,
    packets: u32,
    octets: u32,
}

struct Layer {
    rid: Option<String>,
    source: Source,
    video: Stream,
    rtx: Stream,
    /// In the clear.
    history: VecDeque<Past>,
}

struct Past {
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

/// The SSRCs and layers of a publisher that has yet to offer.
pub fn sends(programme: &Programme) -> Sends {
    let ssrc = || random() as u32 | 1;
    let rids: Vec<String> = match programme.layers {
        0 | 1 => Vec::new(),
        layers => (0..layers).map(|n| format!("l{n}")).collect(),
    };
    Sends { audio_ssrc: ssrc(), video_ssrcs: rids.is_empty().then(|| (ssrc(), ssrc())), rids }
}

impl Stream {
    fn new(ssrc: u32) -> Self {
        // RFC 3550 §5.1: random, and low enough for the rollover counter to begin at 0 at both ends.
        Self { ssrc, next: random() % (1 << 15), packets: 0, octets: 0 }
    }
}

impl Publisher {
    /// The answer to an offer with `sends` has come. `phase` is where in a frame interval the frames lie, from 0 to 1.
    pub fn new(
        now: Instant,
        ice: IceCredentials,
        answer: Arc<Answer>,
        sends: &Sends,
        programme: &Programme,
        phase: f64,
    ) -> Self {
        let layers = programme.layers.max(1);
        let layer = |n: usize| {
            let (video, rtx) = sends.video_ssrcs.unwrap_or_else(|| (random() as u32, random() as u32));
            let sizes = programme.sizes.of_layer(n);
            Layer {
                rid: sends.rids.get(n).cloned(),
                source: Source::new(sizes, programme.fps, programme.keyframe_interval, random()),
                video: Stream::new(video),
                rtx: Stream::new(rtx),
                history: VecDeque::with_capacity(HISTORY),
            }
        };
        Self {
            client: Client::new(now, ice, answer),
            audio: Stream::new(sends.audio_ssrc),
            layers: (0..layers).map(layer).collect(),
            transport_number: 0,
            next_frame: None,
            phase: (Duration::from_secs(1) / programme.fps.max(1)).mul_f64(phase),
            programme: programme.clone(),
            next_audio: now,
            next_report: now,
            last_keyframe: None,
            frame: 0,
            sent: Sent::default(),
        }
    }

    /// The connection below.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// A datagram came.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &mut [u8], shared: &mut Shared, send: &mut Wire<'_>) {
        match classify(datagram) {
            PacketKind::Stun => self.client.handle_stun(now, datagram, shared, send),
            PacketKind::Dtls => self.client.handle_dtls(now, datagram, shared, send),
            PacketKind::Rtcp => self.handle_rtcp(now, datagram, send),
            PacketKind::Rtp | PacketKind::Unrecognised => {}
        }
    }

    fn handle_rtcp(&mut self, now: Instant, datagram: &mut [u8], send: &mut Wire<'_>) {
        let Some(keys) = self.client.keys() else { return };
        let Ok(len) = keys.rtcp_opener.open(datagram) else { return };
        for packet in rtcp::packets(&datagram[..len]).filter_map(Result::ok) {
            match packet {
                rtcp::Packet::Pli { media, .. } => self.keyframe_requested(now, media),
                rtcp::Packet::Fir { entries, .. } => entries.for_each(|entry| self.keyframe_requested(now, entry.ssrc)),
                rtcp::Packet::Nack { media, entries, .. } => {
                    for sequence in entries {
                        self.retransmit(media, sequence, send);
                    }
                }
                _ => {}
            }
        }
    }

    fn keyframe_requested(&mut self, now: Instant, media: u32) {
        self.sent.keyframe_requests += 1;
        if self.last_keyframe.is_some_and(|at| now.saturating_duration_since(at) < KEYFRAME_DISTANCE) {
            return;
        }
        if let Some(layer) = self.layers.iter_mut().find(|layer| layer.video.ssrc == media) {
            layer.source.request_keyframe();
        }
    }

    /// RFC 4588 §4: the original number, then the payload, on the stream's RTX.
    fn retransmit(&mut self, media: u32, sequence: u16, send: &mut Wire<'_>) {
        let Some(n) = self.layers.iter().position(|layer| layer.video.ssrc == media) else { return };
        let layer = &mut self.layers[n];
        let Some(past) = layer.history.iter().rev().find(|past| past.sequence == sequence) else { return };
        let payload = [&sequence.to_be_bytes()[..], &past.payload].concat();
        let packet = Packet {
            payload_type: offer::RTX,
            timestamp: past.timestamp,
            marker: past.marker,
            rid: layer.rid.as_deref().map(|rid| (offer::REPAIRED_RID, rid)),
            mid: offer::VIDEO_MID,
            payload: &payload,
        };
        let Some(keys) = self.client.keys() else { return };
        self.sent.retransmitted += 1;
        packet.send(keys, &mut layer.rtx, &mut self.transport_number, &mut self.sent, send);
    }

    /// When to call [`Publisher::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let client = self.client.poll_timeout()?;
        if !self.client.is_connected() {
            return Some(client);
        }
        let audio = self.programme.audio.then_some(self.next_audio);
        [self.next_frame, audio, Some(self.next_report)].into_iter().flatten().min().map(|at| at.min(client))
    }

    /// Sends what is due; `unix` is `now` in nanoseconds since 1970.
    pub fn handle_timeout(&mut self, now: Instant, unix: u64, shared: &mut Shared, send: &mut Wire<'_>) {
        self.client.handle_timeout(now, shared, send);
        if !self.client.is_connected() {
            return;
        }
        let interval = Duration::from_secs(1) / self.programme.fps.max(1);
        let due = *self.next_frame.get_or_insert_with(|| {
            self.next_audio = now;
            now + until_phase(unix, interval, self.phase)
        });
        if self.programme.audio && now >= self.next_audio {
            self.next_audio += AUDIO_INTERVAL;
            self.send_audio(unix, send);
        }
        if now >= due {
            let turn = FrameTurn::at(now, due, interval, self.programme.latest);
            self.next_frame = Some(turn.next);
            self.sent.late_frames += u64::from(turn.is_late);
            if turn.is_left_out {
                self.sent.left_out += self.layers.len() as u64;
            } else {
                self.send_frame(now, unix, send);
            }
        }
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            self.send_reports(unix, send);
        }
    }

    fn send_audio(&mut self, unix: u64, send: &mut Wire<'_>) {
        let Some(keys) = self.client.keys() else { return };
        let packet = Packet {
            payload_type: offer::AUDIO,
            timestamp: media_time(unix, 48_000),
            marker: false,
            rid: None,
            mid: offer::AUDIO_MID,
            payload: &[0xfc; AUDIO_BYTES],
        };
        packet.send(keys, &mut self.audio, &mut self.transport_number, &mut self.sent, send);
    }

    fn send_frame(&mut self, now: Instant, unix: u64, send: &mut Wire<'_>) {
        let Some(keys) = self.client.keys() else { return };
        let timestamp = media_time(unix, 90_000);
        for layer in &mut self.layers {
            let frame = layer.source.next_frame();
            self.sent.frames += 1;
            if frame.keyframe {
                self.sent.keyframes += 1;
                self.last_keyframe = Some(now);
            }
            let packets = frame.packets.len();
            for (n, len) in frame.packets.into_iter().enumerate() {
                // The oldest packet's memory is the newest's.
                let mut past = match layer.history.len() {
                    HISTORY => layer.history.pop_front(),
                    _ => None,
                }
                .unwrap_or_else(|| Past {
                    sequence: 0,
                    timestamp: 0,
                    marker: false,
                    payload: Vec::new(),
                });
                let stamp = Stamp { sent_at: unix, frame: self.frame, packet: n as u16, packets: packets as u16 };
                past.payload.resize(len.min(MAX_PAYLOAD), 0);
                stamp::write(&mut past.payload, frame.keyframe, &stamp);
                (past.sequence, past.timestamp, past.marker) = (layer.video.next as u16, timestamp, n + 1 == packets);
                let packet = Packet {
                    payload_type: offer::VIDEO,
                    timestamp,
                    marker: past.marker,
                    rid: layer.rid.as_deref().map(|rid| (offer::RID, rid)),
                    mid: offer::VIDEO_MID,
                    payload: &past.payload,
                };
                packet.send(keys, &mut layer.video, &mut self.transport_number, &mut self.sent, send);
                layer.history.push_back(past);
            }
        }
        self.frame = self.frame.wrapping_add(1);
    }

    fn send_reports(&mut self, unix: u64, send: &mut Wire<'_>) {
        let Some(keys) = self.client.keys() else { return };
        let ntp = NtpTime::from_unix(Duration::from_nanos(unix));
        let video = self.layers.iter().map(|layer| (&layer.video, 90_000));
        for (stream, rate) in video.chain([(&self.audio, 48_000)]).filter(|(stream, _)| stream.packets > 0) {
            let info = SenderInfo {
                ntp,
                rtp_timestamp: media_time(unix, rate),
                packets: stream.packets,
                octets: stream.octets,
            };
            let mut buffer = [0; 256];
            let mut writer = RtcpWriter::new(&mut buffer);
            if writer.sender_report(stream.ssrc, &info, &[]).is_err()
                || writer.source_description(stream.ssrc, "load").is_err()
            {
                continue;
            }
            let mut sealed = [0; 320];
            let len = keys.rtcp_sealer.seal(writer.as_bytes(), &mut sealed);
            send(&sealed[..len]);
        }
    }
}

/// A time in the units of an RTP clock: all streams of a publisher tell the same time.
fn media_time(unix: u64, rate: u64) -> u32 {
    (u128::from(unix) * u128::from(rate) / 1_000_000_000) as u32
}

/// A packet before it has a number.
struct Packet<'a> {
    payload_type: u8,
    timestamp: u32,
    marker: bool,
    rid: Option<(u8, &'a str)>,
    mid: &'static str,
    payload: &'a [u8],
}

impl Packet<'_> {
    fn send(&self, keys: &Keys, stream: &mut Stream, transport_number: &mut u16, sent: &mut Sent, send: &mut Wire<'_>) {
        let fields = HeaderFields {
            padding: false,
            marker: self.marker,
            payload_type: self.payload_type,
            sequence_number: stream.next as u16,
            timestamp: self.timestamp,
            ssrc: stream.ssrc,
        };
        let number = transport_number.to_be_bytes();
        let mut elements = vec![(offer::MID, self.mid.as_bytes()), (offer::TRANSPORT_CC, &number[..])];
        elements.extend(self.rid.map(|(id, rid)| (id, rid.as_bytes())));
        let mut datagram = [0; MAX_DATAGRAM];
        let Ok(header) = write_header(&mut datagram, &fields, &elements) else { return };
        let roc = (stream.next >> 16) as u32;
        let len = keys.rtp_sealer.seal(roc, &mut datagram, header.header_len, self.payload, &[]);
        stream.next += 1;
        stream.packets = stream.packets.wrapping_add(1);
        stream.octets = stream.octets.wrapping_add(self.payload.len() as u32);
        *transport_number = transport_number.wrapping_add(1);
        sent.packets += 1;
        sent.bytes += len as u64;
        sent.refused += u64::from(!send(&datagram[..len]));
    }
}

/// The turn of a frame that is due.
#[derive(Debug, PartialEq)]
struct FrameTurn {
    /// When the next is due.
    next: Instant,
    /// By more than a frame interval.
    is_late: bool,
    /// It would be sent too late.
    is_left_out: bool,
}

impl FrameTurn {
    /// Who has fallen behind does not catch up in a burst, and keeps its phase.
    fn at(now: Instant, due: Instant, interval: Duration, latest: Option<Duration>) -> Self {
        let late = now.saturating_duration_since(due);
        let missed = late.as_nanos() / interval.as_nanos();
        Self {
            next: due + interval * (1 + missed as u32),
            is_late: late > interval,
            is_left_out: latest.is_some_and(|latest| late > latest),
        }
    }
}

/// How long it is from `unix` until a frame is due: by the wall clock, so that the phases of publishers that connect one
/// after the other lie as they should to each other.
fn until_phase(unix: u64, interval: Duration, phase: Duration) -> Duration {
    let interval = interval.as_nanos() as u64;
    let phase = phase.as_nanos() as u64 % interval;
    Duration::from_nanos((phase + interval - unix % interval) % interval)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_lie_at_their_phase_whenever_the_publisher_connects(unix in 0..1u64 << 62, frames in 1..240u32, share in 0.0..1.0) {
            let interval = Duration::from_secs(1) / frames;
            let phase = interval.mul_f64(share);
            let wait = until_phase(unix, interval, phase);
            prop_assert!(wait < interval);
            let at = Duration::from_nanos((unix + wait.as_nanos() as u64) % interval.as_nanos() as u64);
            prop_assert_eq!(at.as_nanos(), phase.as_nanos() % interval.as_nanos());
        }

        #[test]
        fn who_has_fallen_behind_goes_on_in_its_phase(frames in 1..240u32, behind in 0..5_000_000u64, latest in 0..5_000_000u64) {
            let (interval, behind) = (Duration::from_secs(1) / frames, Duration::from_micros(behind));
            let latest = Duration::from_micros(latest);
            let due = crate::clock::now();
            let turn = FrameTurn::at(due + behind, due, interval, Some(latest));
            prop_assert_eq!((turn.is_late, turn.is_left_out), (behind > interval, behind > latest));
            prop_assert!(turn.next > due + behind && turn.next <= due + behind + interval);
            prop_assert_eq!((turn.next - due).as_nanos() % interval.as_nanos(), 0);
            prop_assert!(!FrameTurn::at(due + behind, due, interval, None).is_left_out);
        }
    }
}

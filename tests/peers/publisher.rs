//! A publisher over WHIP with synthetic media: VP8 that no decoder would like and a forwarder cannot tell from real.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Client;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8};
use rtc::rtp::{Packet, header::Header};
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::peer_connection::{PeerConnectionEventHandler, RTCPeerConnectionState, SettingEngine};

use super::session::{Session, connection};

/// Frames from one keyframe to the next.
const KEYFRAME_EVERY: u32 = 30;

const FRAMES_PER_SECOND: u32 = 30;
const PACKETS_PER_FRAME: u32 = 4;
const PAYLOAD: usize = 900;
/// The crate's default payload types.
const VP8: u8 = 96;
const OPUS: u8 = 111;
const VIDEO_SSRC: u32 = 0x7601_0001;
const AUDIO_SSRC: u32 = 0x7601_0002;

/// A publisher, sending.
pub struct Publisher {
    session: Session,
    stop: oneshot::Sender<()>,
    /// Resolves to the number of video packets sent.
    sending: JoinHandle<anyhow::Result<u32>>,
}

impl Publisher {
    /// Connects to a WHIP endpoint and begins to send 30 frames a second with Opus beside them.
    pub async fn start(http: &Client, endpoint: &str, limit: Duration) -> anyhow::Result<Self> {
        let (tell, mut state) = watch::channel(RTCPeerConnectionState::New);
        let connection = connection(SettingEngine::default(), Arc::new(Handler(tell))).await?;
        let audio = Arc::new(track(RtpCodecKind::Audio));
        let video = Arc::new(track(RtpCodecKind::Video));
        connection.add_track(audio.clone()).await?;
        connection.add_track(video.clone()).await?;
        let session = Session::negotiate(http, endpoint, connection).await?;
        let connected = state.wait_for(|state| *state == RTCPeerConnectionState::Connected);
        tokio::time::timeout(limit, connected).await.map_err(|_| anyhow!("not connected within {limit:?}"))??;
        let (stop, stopped) = oneshot::channel();
        let sending = tokio::spawn(send(audio, video, stopped));
        Ok(Self { session, stop, sending })
    }

    /// Sends no more and leaves with DELETE. Returns how many video packets were sent in all.
    pub async fn leave(self) -> anyhow::Result<u32> {
        let _ = self.stop.send(());
        let sent = self.sending.await.context("sending")??;
        self.session.delete().await?;
        Ok(sent)
    }
}

struct Handler(watch::Sender<RTCPeerConnectionState>);

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.0.send_replace(state);
    }
}

fn track(kind: RtpCodecKind) -> TrackLocalStaticRTP {
    let (mime_type, clock_rate, channels, ssrc) = match kind {
        RtpCodecKind::Video => (MIME_TYPE_VP8, 90_000, 0, VIDEO_SSRC),
        _ => (MIME_TYPE_OPUS, 48_000, 2, AUDIO_SSRC),
    };
    let codec = RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate,
        channels,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: Vec::new(),
    };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
        codec,
        ..Default::default()
    };
    let name = |part: &str| format!("studio-{part}");
    TrackLocalStaticRTP::new(MediaStreamTrack::new(
        name("stream"),
        name(&format!("{ssrc:x}")),
        name("label"),
        kind,
        vec![encoding],
    ))
}

/// In real time until it is stopped: a frame and the Opus packets that begin with it.
async fn send(
    audio: Arc<TrackLocalStaticRTP>,
    video: Arc<TrackLocalStaticRTP>,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<u32> {
    let mut ticks = interval(Duration::from_secs(1) / FRAMES_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut sent, mut sounds) = (0, 0);
    for frame in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut stopped => break,
        }
        for part in 0..PACKETS_PER_FRAME {
            video.write_rtp(video_packet(frame, part, sent)).await?;
            sent += 1;
        }
        while sounds * FRAMES_PER_SECOND <= frame * 50 {
            audio.write_rtp(audio_packet(sounds)).await?;
            sounds += 1;
        }
    }
    Ok(sent)
}

/// RFC 7741 §4.2 and §4.3: a descriptor without extension, then the frame, whose first byte has P = 0 for a keyframe.
fn video_packet(frame: u32, part: u32, number: u32) -> Packet {
    let keyframe = frame.is_multiple_of(KEYFRAME_EVERY);
    let mut payload = vec![0xA5; PAYLOAD];
    payload[0] = if part == 0 { 0x10 } else { 0x00 };
    if part == 0 {
        payload[1] = if keyframe { 0x10 } else { 0x11 };
    }
    payload[PAYLOAD - 4..].copy_from_slice(&number.to_be_bytes());
    let timestamp = frame.wrapping_mul(90_000 / FRAMES_PER_SECOND);
    packet(VP8, VIDEO_SSRC, number, timestamp, part + 1 == PACKETS_PER_FRAME, payload)
}

fn audio_packet(number: u32) -> Packet {
    packet(OPUS, AUDIO_SSRC, number, number.wrapping_mul(960), number == 0, vec![0x78; 80])
}

fn packet(payload_type: u8, ssrc: u32, number: u32, timestamp: u32, marker: bool, payload: Vec<u8>) -> Packet {
    let header = Header {
        version: 2,
        marker,
        payload_type,
        // Wraps soon after the start.
        sequence_number: (number as u16).wrapping_add(65_400),
        timestamp,
        ssrc,
        ..Header::default()
    };
    Packet { header, payload: Bytes::from(payload) }
}

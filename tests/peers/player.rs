//! A player over WHEP that receives audio and video and opens the three data channels.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use reqwest::Client;
use rtc::data_channel::RTCDataChannelInit;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use serde_json::{Value, json};
use tokio::sync::watch;
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionEventHandler, RTCPeerConnectionState, SettingEngineBuilder, SrtpProtectionProfile,
    StatsSelector,
};

use super::session::{Session, connection};
use super::tally::Tally;

/// The channels that a player opens: `bets` and `events` ordered and reliable, `qos` neither.
const CHANNELS: [&str; 3] = ["bets", "events", "qos"];

/// Messages that are kept; a player that lives long forgets none that a test asks for.
const MESSAGES_KEPT: usize = 1000;

/// How a player differs from the usual one.
#[derive(Clone, Default)]
pub struct PlayerOptions {
    /// The SRTP profiles it offers; empty for those of the crate.
    pub srtp: Vec<SrtpProtectionProfile>,
}

/// A message from the gateway.
#[derive(Clone, Debug)]
pub struct Message {
    /// The label of its channel.
    pub channel: &'static str,
    /// Its JSON; `null` if it is none.
    pub body: Value,
}

/// What a player has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Of the connection as a whole.
    pub state: RTCPeerConnectionState,
    /// The audio stream.
    pub audio: Tally,
    /// The video stream.
    pub video: Tally,
    /// Labels of open channels.
    pub open: Vec<&'static str>,
    /// In the order of arrival.
    pub messages: Vec<Message>,
}

impl Seen {
    /// What was answered to a bet.
    pub fn ack(&self, bet_id: &str) -> Option<&Value> {
        self.messages.iter().map(|m| &m.body).find(|body| body["type"] == "ack" && body["betId"] == bet_id)
    }
}

/// A player.
pub struct Player {
    session: Session,
    seen: watch::Receiver<Seen>,
    channels: BTreeMap<&'static str, Arc<dyn DataChannel>>,
}

impl Player {
    /// Joins a WHEP endpoint. Returns when the answer is applied; the connection comes up by itself.
    pub async fn join(http: &Client, endpoint: &str, options: &PlayerOptions) -> anyhow::Result<Self> {
        let (tell, seen) = watch::channel(Seen::default());
        let tell = Arc::new(tell);
        let mut settings = SettingEngineBuilder::new();
        if !options.srtp.is_empty() {
            settings = settings.with_srtp_protection_profiles(options.srtp.clone());
        }
        let handler = Handler { tell: tell.clone() };
        let connection = connection(settings.build(), Arc::new(handler)).await?;
        let receive =
            || RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
        for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
            connection.add_transceiver_from_kind(kind, Some(receive())).await?;
        }
        let channels = open_channels(&connection, &tell).await?;
        Ok(Self { session: Session::negotiate(http, endpoint, connection).await?, seen, channels })
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits for what `holds` says.
    ///
    /// # Errors
    /// If it does not within `limit`; says what was seen instead.
    pub async fn until(&self, what: &str, limit: Duration, holds: impl FnMut(&Seen) -> bool) -> anyhow::Result<Seen> {
        let mut seen = self.seen.clone();
        let waited = tokio::time::timeout(limit, seen.wait_for(holds)).await;
        match waited {
            Ok(Ok(found)) => Ok(found.clone()),
            Ok(Err(_)) => Err(anyhow!("{what}: the player has ended: {}", self.outline())),
            Err(_) => Err(anyhow!("{what}: not within {limit:?}: {}", self.outline())),
        }
    }

    /// Waits until media of both kinds flows and every channel is open.
    pub async fn playing(&self, limit: Duration) -> anyhow::Result<Seen> {
        let all = |seen: &Seen| {
            seen.video.packets > 0 && seen.audio.packets > 0 && CHANNELS.iter().all(|label| seen.open.contains(label))
        };
        self.until("media and channels", limit, all).await
    }

    /// Sends a message on a channel.
    pub async fn send(&self, channel: &str, message: &Value) -> anyhow::Result<()> {
        let channel = self.channels.get(channel).context("no such channel")?;
        Ok(channel.send_text(&message.to_string()).await?)
    }

    /// Places a bet and waits for the gateway's answer to it.
    pub async fn bet(&self, bet_id: &str, limit: Duration) -> anyhow::Result<Value> {
        let bet = json!({
            "type": "bet", "betId": bet_id, "roundId": "r1", "idempotencyKey": bet_id, "clientTs": 0,
            "payload": { "red": 5 },
        });
        self.send("bets", &bet).await?;
        let seen = self.until("the ack", limit, |seen| seen.ack(bet_id).is_some()).await?;
        seen.ack(bet_id).cloned().context("no ack")
    }

    /// The SRTP profile that DTLS settled on, by the crate's name for it.
    pub async fn srtp_profile(&self) -> Option<String> {
        let report = self.session.connection.get_stats(Instant::now(), StatsSelector::None).await;
        report.transport().map(|transport| transport.srtp_cipher.clone())
    }

    /// Leaves with DELETE.
    pub async fn leave(self) -> anyhow::Result<Seen> {
        let seen = self.seen();
        self.session.delete().await?;
        Ok(seen)
    }

    /// Leaves as a page that is closed does: without DELETE.
    pub async fn hang_up(self) -> anyhow::Result<Seen> {
        let seen = self.seen();
        self.session.close().await?;
        Ok(seen)
    }

    fn outline(&self) -> String {
        let seen = self.seen.borrow();
        let (audio, video) = (&seen.audio.packets, &seen.video.packets);
        format!(
            "{:?}, {video} video and {audio} audio packets, open {:?}, {:?}",
            seen.state,
            seen.open,
            seen.messages.iter().rev().take(5).collect::<Vec<_>>()
        )
    }
}

async fn open_channels(
    connection: &Arc<dyn PeerConnection>,
    tell: &Arc<watch::Sender<Seen>>,
) -> anyhow::Result<BTreeMap<&'static str, Arc<dyn DataChannel>>> {
    let mut channels = BTreeMap::new();
    for label in CHANNELS {
        let unreliable = label == "qos";
        let init = RTCDataChannelInit {
            ordered: !unreliable,
            max_retransmits: unreliable.then_some(0),
            ..RTCDataChannelInit::default()
        };
        let channel = connection.create_data_channel(label, Some(init)).await?;
        tokio::spawn(listen(label, channel.clone(), tell.clone()));
        channels.insert(label, channel);
    }
    Ok(channels)
}

/// Until the channel ends.
async fn listen(label: &'static str, channel: Arc<dyn DataChannel>, tell: Arc<watch::Sender<Seen>>) {
    while let Some(event) = channel.poll().await {
        match event {
            DataChannelEvent::OnOpen => tell.send_modify(|seen| seen.open.push(label)),
            DataChannelEvent::OnClose => tell.send_modify(|seen| seen.open.retain(|open| *open != label)),
            DataChannelEvent::OnMessage(message) => {
                let body = serde_json::from_slice(&message.data).unwrap_or(Value::Null);
                tell.send_if_modified(|seen| {
                    let room = seen.messages.len() < MESSAGES_KEPT;
                    if room {
                        seen.messages.push(Message { channel: label, body });
                    }
                    room
                });
            }
            _ => {}
        }
    }
}

struct Handler {
    tell: Arc<watch::Sender<Seen>>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.tell.send_modify(|seen| seen.state = state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        tokio::spawn(receive(track, self.tell.clone()));
    }
}

/// Until the track ends.
async fn receive(track: Arc<dyn TrackRemote>, tell: Arc<watch::Sender<Seen>>) {
    let kind = track.kind().await;
    while let Some(event) = track.poll().await {
        if let TrackRemoteEvent::OnRtpPacket(packet) = event {
            tell.send_modify(|seen| {
                let tally = if kind == RtpCodecKind::Video { &mut seen.video } else { &mut seen.audio };
                tally.receive(packet.header.sequence_number);
            });
        }
    }
}

//! Data channels: SCTP (RFC 9260, RFC 8831) over `rtc-sctp`, and their establishment (DCEP, RFC 8832).
//!
//! The player opens every channel; we answer. A channel is named by its SCTP stream here; what a label means is the
//! owner's business.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rtc_sctp::{
    Association, DatagramEvent, Endpoint, EndpointConfig, Event, Payload, PayloadProtocolIdentifier, ReliabilityType,
    ServerConfig, StreamEvent, TransportConfig,
};
use rtc_shared::TransportProtocol;

/// The most channels a peer may open.
pub const MAX_CHANNELS: usize = 8;

/// The most bytes queued towards a peer per channel before [`DataChannels::send`] refuses: a player that reads nothing
/// must not hold our memory.
const MAX_BUFFERED: usize = 256 * 1024;

/// The receive window we advertise: bounds what a peer can make us buffer.
const RECEIVE_WINDOW: u32 = 128 * 1024;

/// `DATA_CHANNEL_ACK` (RFC 8832 §5.2): one byte.
const DCEP_ACK: [u8; 1] = [0x02];

/// `DATA_CHANNEL_OPEN` (RFC 8832 §5.1).
const DCEP_OPEN: u8 = 0x03;

/// An SCTP stream that carries a channel.
pub type ChannelId = u16;

/// What came over the channels.
#[derive(Debug, PartialEq)]
pub enum ChannelEvent {
    /// The peer opened a channel.
    Opened {
        /// Its stream.
        id: ChannelId,
        /// Its label, at most 64 bytes.
        label: String,
    },
    /// A whole message.
    Message {
        /// Its stream.
        id: ChannelId,
        /// The payload.
        data: Bytes,
    },
    /// The peer broke a rule: a message that is too large, a bad DCEP message, too many channels. Counted, dropped.
    Violation,
    /// The association is gone; no channel works any more.
    Lost,
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no such channel, or it is closed.
    #[error("the channel is closed")]
    Closed,
    /// The peer does not take what is sent: the channel's queue is full.
    #[error("the channel's queue is full")]
    Full,
}

/// The SCTP association of one session with its channels.
pub struct DataChannels {
    endpoint: Endpoint,
    association: Option<Association>,
    remote: SocketAddr,
    open: Vec<ChannelId>,
    max_message_size: usize,
}

impl std::fmt::Debug for DataChannels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataChannels").field("open", &self.open).finish_non_exhaustive()
    }
}

/// SCTP parameters, shared by all sessions.
#[derive(Clone, Debug)]
pub struct SctpConfig {
    endpoint: Arc<EndpointConfig>,
    server: Arc<ServerConfig>,
    max_message_size: usize,
}

impl SctpConfig {
    /// Parameters that accept messages of up to `max_message_size` bytes.
    pub fn new(max_message_size: u32) -> Self {
        let transport = TransportConfig::default()
            .with_max_message_size(max_message_size)
            .with_max_receive_buffer_size(RECEIVE_WINDOW);
        Self {
            endpoint: Arc::new(EndpointConfig::new()),
            server: Arc::new(ServerConfig::new(transport)),
            max_message_size: max_message_size as usize,
        }
    }
}

impl DataChannels {
    /// Waits for the peer's INIT: every WebRTC client sends one right after DTLS (RFC 8831 §6.2 lets both sides).
    pub fn new(config: &SctpConfig) -> Self {
        // SCTP over DTLS has no addresses of its own: any constant does, ICE moves the path underneath.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 5000));
        Self {
            endpoint: Endpoint::new(
                nowhere,
                TransportProtocol::UDP,
                config.endpoint.clone(),
                Some(config.server.clone()),
            ),
            association: None,
            remote: nowhere,
            open: Vec::new(),
            max_message_size: config.max_message_size,
        }
    }

    /// Takes one decrypted SCTP packet.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let Some((_, event)) = self.endpoint.handle(now, self.remote, None, Bytes::copy_from_slice(packet)) else {
            return;
        };
        match event {
            DatagramEvent::NewAssociation(association) if self.association.is_none() => {
                self.association = Some(association);
            }
            DatagramEvent::AssociationEvent(event) => {
                if let Some(association) = &mut self.association {
                    association.handle_event(event);
                }
            }
            // A second association on the same DTLS transport: RFC 8831 §6.3 has one.
            _ => {}
        }
    }

    /// Retransmission, delayed acknowledgement and the like.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(association) = &mut self.association {
            association.handle_timeout(now);
        }
    }

    /// When to call [`DataChannels::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.association.as_ref().and_then(Association::poll_timeout)
    }

    /// Sends a text message (PPID 51) on a channel the peer has opened.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was queued.
    pub fn send(&mut self, now: Instant, id: ChannelId, text: &str) -> Result<(), SendError> {
        if !self.open.contains(&id) {
            return Err(SendError::Closed);
        }
        let association = self.association.as_mut().ok_or(SendError::Closed)?;
        let mut stream = association.stream(id).map_err(|_| SendError::Closed)?;
        if stream.buffered_amount().map_err(|_| SendError::Closed)? + text.len() > MAX_BUFFERED {
            return Err(SendError::Full);
        }
        stream
            .write_with_ppi(now, text.as_bytes(), PayloadProtocolIdentifier::String)
            .map(|_| ())
            .map_err(|_| SendError::Closed)
    }

    /// Hands every SCTP packet that is due to `send`, which seals it with DTLS.
    pub fn poll_transmit(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        let Some(association) = &mut self.association else { return };
        while let Some(transmit) = association.poll_transmit(now) {
            if let Payload::RawEncode(packets) = transmit.message {
                packets.iter().for_each(|p| send(p));
            }
        }
        while let Some(event) = association.poll_endpoint_event() {
            // Only `Drained` exists: the endpoint forgets its one association, ours stays until the session ends.
            let _ = event;
        }
    }

    /// Reads what arrived.
    pub fn poll_events(&mut self, now: Instant, mut sink: impl FnMut(ChannelEvent)) {
        let Some(association) = &mut self.association else { return };
        while let Some(event) = association.poll() {
            match event {
                Event::Stream(StreamEvent::Readable { id }) => {
                    read_stream(association, &mut self.open, self.max_message_size, now, id, &mut sink);
                }
                Event::Stream(StreamEvent::Stopped { id, .. } | StreamEvent::Finished { id }) => {
                    self.open.retain(|open| *open != id);
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => {
                    self.open.clear();
                    sink(ChannelEvent::Lost);
                }
                _ => {}
            }
        }
        // A message that arrives with the stream's first packet raises `Opened` only.
        while let Some(stream) = association.accept_stream() {
            let id = stream.stream_identifier();
            read_stream(association, &mut self.open, self.max_message_size, now, id, &mut sink);
        }
    }
}

fn read_stream(
    association: &mut Association,
    open: &mut Vec<ChannelId>,
    max_message_size: usize,
    now: Instant,
    id: ChannelId,
    sink: &mut impl FnMut(ChannelEvent),
) {
    let Ok(mut stream) = association.stream(id) else { return };
    while let Ok(Some(message)) = stream.read() {
        let Ok(data) = message.to_payload(max_message_size) else {
            sink(ChannelEvent::Violation);
            continue;
        };
        match message.ppi {
            PayloadProtocolIdentifier::Dcep => match Open::parse(&data) {
                // RFC 8832 §6: an OPEN on a stream in use is an error.
                Some(request) if open.len() < MAX_CHANNELS && !open.contains(&id) => {
                    let _ = stream.set_reliability_params(request.unordered, request.reliability, request.limit);
                    let _ = stream.write_with_ppi(now, &DCEP_ACK, PayloadProtocolIdentifier::Dcep);
                    open.push(id);
                    sink(ChannelEvent::Opened { id, label: request.label });
                }
                _ => sink(ChannelEvent::Violation),
            },
            PayloadProtocolIdentifier::String | PayloadProtocolIdentifier::Binary if open.contains(&id) => {
                sink(ChannelEvent::Message { id, data: data.freeze() });
            }
            _ => sink(ChannelEvent::Violation),
        }
    }
}

/// `DATA_CHANNEL_OPEN` (RFC 8832 §5.1).
#[derive(Debug, PartialEq)]
struct Open {
    unordered: bool,
    reliability: ReliabilityType,
    limit: u32,
    label: String,
}

impl Open {
    fn parse(message: &[u8]) -> Option<Self> {
        let (head, rest) = message.split_at_checked(12)?;
        if head[0] != DCEP_OPEN {
            return None;
        }
        let reliability = match head[1] & 0x7f {
            0x00 => ReliabilityType::Reliable,
            0x01 => ReliabilityType::Rexmit,
            0x02 => ReliabilityType::Timed,
            _ => return None,
        };
        let label_len = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let label = rest.get(..label_len).filter(|l| l.len() <= 64)?;
        Some(Self {
            unordered: head[1] & 0x80 != 0,
            reliability,
            limit: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            label: std::str::from_utf8(label).ok()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(channel_type: u8, limit: u32, label: &str) -> Vec<u8> {
        let mut m = vec![DCEP_OPEN, channel_type, 0, 0];
        m.extend(limit.to_be_bytes());
        m.extend((label.len() as u16).to_be_bytes());
        m.extend([0, 0]);
        m.extend(label.as_bytes());
        m
    }

    #[test]
    fn reads_the_channel_types_of_rfc_8832() {
        let unreliable = Open::parse(&open(0x81, 0, "qos")).unwrap();
        assert_eq!(
            unreliable,
            Open { unordered: true, reliability: ReliabilityType::Rexmit, limit: 0, label: "qos".into() }
        );
        assert_eq!(Open::parse(&open(0x00, 0, "bets")).unwrap().reliability, ReliabilityType::Reliable);
        assert_eq!(Open::parse(&open(0x03, 0, "bets")), None, "unknown channel type");
        assert_eq!(Open::parse(&open(0x00, 0, &"x".repeat(65))), None, "label too long");
        assert_eq!(Open::parse(&open(0x00, 0, "bets")[..14]), None, "truncated label");
    }

    proptest! {
        #[test]
        fn any_dcep_message_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Open::parse(&bytes);
        }

        #[test]
        fn any_packet_is_survived(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..8)) {
            let mut channels = DataChannels::new(&SctpConfig::new(65_536));
            let now = Instant::now();
            for packet in packets {
                channels.handle_packet(now, &packet);
                channels.poll_events(now, |_| {});
                channels.poll_transmit(now, |_| {});
            }
        }
    }
}

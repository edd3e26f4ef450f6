//! Data channels of a player: SCTP as the side that begins, and DCEP (RFC 8831, RFC 8832).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ReliabilityType, TransportConfig,
};
use rtc_shared::TransportProtocol;
use tableside::rtc::sdp::DtlsRole;

/// The message type of `DATA_CHANNEL_OPEN` (RFC 8832 §5.1).
const OPEN: u8 = 0x03;

/// A channel to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its label.
    pub name: &'static str,
    /// Ordered, and sent again until it comes; else unordered, and never again.
    pub reliable: bool,
}

/// The largest message that is read.
const MAX_MESSAGE: usize = 64 * 1024;

/// See the module's text.
pub struct Channels {
    endpoint: Endpoint,
    association: Association,
    handle: AssociationHandle,
    /// In the order of their streams.
    labels: &'static [Label],
    role: DtlsRole,
    connected: bool,
    lost: bool,
}

impl Channels {
    /// Begins an association, and channels with these labels once it is there. `None` if the library refuses.
    pub fn new(now: Instant, role: DtlsRole, labels: &'static [Label]) -> Option<Self> {
        let mut endpoint = Endpoint::new(nowhere(), TransportProtocol::UDP, Arc::new(EndpointConfig::new()), None);
        let config = ClientConfig::new(TransportConfig::default());
        let (handle, association) = endpoint.connect(now, config, nowhere()).ok()?;
        Some(Self { endpoint, association, handle, labels, role, connected: false, lost: false })
    }

    /// A decrypted SCTP packet.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let event = self.endpoint.handle(now, nowhere(), None, bytes::Bytes::copy_from_slice(packet));
        if let Some((handle, DatagramEvent::AssociationEvent(event))) = event
            && handle == self.handle
        {
            self.association.handle_event(event);
        }
    }

    /// Retransmissions and delayed acknowledgements.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.association.handle_timeout(now);
    }

    /// When to call [`Channels::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.association.poll_timeout().filter(|_| !self.lost)
    }

    /// Hands each packet that is due to `send`.
    pub fn poll_transmit(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        while let Some(transmit) = self.association.poll_transmit(now) {
            if let Payload::RawEncode(packets) = transmit.message {
                packets.iter().for_each(|packet| send(packet));
            }
        }
        while self.association.poll_endpoint_event().is_some() {}
    }

    /// Hands each message that came to `sink`, with its channel's label.
    pub fn poll_messages(&mut self, now: Instant, mut sink: impl FnMut(&'static str, &[u8])) {
        while let Some(event) = self.association.poll() {
            self.lost |= matches!(event, Event::AssociationLost { .. } | Event::HandshakeFailed { .. });
        }
        if !self.connected && !self.association.is_handshaking() && !self.lost {
            self.connected = true;
            self.open(now);
        }
        for (n, label) in self.labels.iter().enumerate() {
            let Ok(mut stream) = self.association.stream(self.id(n)) else { continue };
            while let Ok(Some(message)) = stream.read() {
                if message.ppi == PayloadProtocolIdentifier::String
                    && let Ok(data) = message.to_payload(MAX_MESSAGE)
                {
                    sink(label.name, &data);
                }
            }
        }
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.connected && !self.lost
    }

    /// Sends a text message on the channel of this label; `false` if it cannot be.
    pub fn send(&mut self, now: Instant, label: &str, text: &str) -> bool {
        let Some(n) = self.labels.iter().position(|known| known.name == label) else { return false };
        let id = self.id(n);
        let Ok(mut stream) = self.association.stream(id) else { return false };
        self.connected && stream.write_with_ppi(now, text.as_bytes(), PayloadProtocolIdentifier::String).is_ok()
    }

    fn open(&mut self, now: Instant) {
        for (n, label) in self.labels.iter().enumerate() {
            // Channel type, priority, reliability (here the number of retransmissions), length of the label and of the protocol.
            let channel_type = if label.reliable { 0x00 } else { 0x81 };
            let mut message = vec![OPEN, channel_type, 0, 0, 0, 0, 0, 0];
            message.extend((label.name.len() as u16).to_be_bytes());
            message.extend([0, 0]);
            message.extend(label.name.as_bytes());
            let id = self.id(n);
            let opened = self.association.open_stream(id, PayloadProtocolIdentifier::Dcep);
            let written = opened.and_then(|mut s| {
                s.write_with_ppi(now, &message, PayloadProtocolIdentifier::Dcep)?;
                if label.reliable { Ok(()) } else { s.set_reliability_params(true, ReliabilityType::Rexmit, 0) }
            });
            self.lost |= written.is_err();
        }
    }

    /// RFC 8832 §6: "If the side is acting as the DTLS client, it MUST choose an even stream identifier; if the side is acting
    /// as the DTLS server, it MUST choose an odd one."
    fn id(&self, n: usize) -> u16 {
        2 * n as u16 + u16::from(self.role == DtlsRole::Server)
    }
}

/// Over DTLS an association has no addresses of its own.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5000))
}

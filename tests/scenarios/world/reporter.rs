//! A page's `qos` data channel, SCTP as the side that begins (RFC 8831, RFC 8832), and what it reports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Payload,
    PayloadProtocolIdentifier, ReliabilityType, TransportConfig,
};
use rtc_shared::TransportProtocol;

use super::World;

/// The channel's stream: "If the side is acting as the DTLS client, it MUST choose an even stream identifier" (RFC 8832 §6).
const STREAM: u16 = 0;

/// `DATA_CHANNEL_OPEN` (RFC 8832 §5.1) of `qos`: unordered (0x81), never sent again.
const OPEN: &[u8] = b"\x03\x81\0\0\0\0\0\0\0\x03\0\0qos";

/// Totals of a page, as its browser counts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub frames_received: usize,
    pub frames_decoded: usize,
    pub frames_dropped: usize,
}

/// See the module.
pub struct Reporter {
    player: usize,
    endpoint: Endpoint,
    association: Association,
    handle: AssociationHandle,
    /// What the edge said, as text.
    pub heard: Vec<String>,
}

impl Reporter {
    /// Opens the channel of a connected player.
    pub fn open(world: &mut World, player: usize) -> Self {
        let mut endpoint = Endpoint::new(nowhere(), TransportProtocol::UDP, Arc::new(EndpointConfig::new()), None);
        let config = ClientConfig::new(TransportConfig::default());
        let (handle, association) = endpoint.connect(world.now, config, nowhere()).expect("an association begins");
        let mut reporter = Self { player, endpoint, association, handle, heard: Vec::new() };
        let limit = world.now + Duration::from_secs(2);
        while reporter.association.is_handshaking() {
            assert!(world.now < limit, "the association is there in time");
            reporter.pump(world);
            world.run(Duration::from_millis(5));
        }
        let mut stream =
            reporter.association.open_stream(STREAM, PayloadProtocolIdentifier::Dcep).expect("there is no stream yet");
        stream.write_with_ppi(world.now, OPEN, PayloadProtocolIdentifier::Dcep).expect("it opens");
        stream.set_reliability_params(true, ReliabilityType::Rexmit, 0).expect("it is open");
        reporter.pump(world);
        reporter
    }

    /// Sends a report.
    pub fn report(&mut self, world: &mut World, totals: Totals) {
        let Totals { frames_received, frames_decoded, frames_dropped } = totals;
        let text = format!(
            r#"{{"type":"stats","framesReceived":{frames_received},"framesDecoded":{frames_decoded},"framesDropped":{frames_dropped}}}"#
        );
        let mut stream = self.association.stream(STREAM).expect("it is open");
        stream.write_with_ppi(world.now, text.as_bytes(), PayloadProtocolIdentifier::String).expect("there is room");
        self.pump(world);
    }

    /// Reads what came, and sends what is due.
    pub fn pump(&mut self, world: &mut World) {
        let (now, peer) = (world.now, &mut world.peers[self.player]);
        for packet in std::mem::take(&mut peer.data) {
            if let Some((handle, DatagramEvent::AssociationEvent(event))) =
                self.endpoint.handle(now, nowhere(), None, packet.into())
                && handle == self.handle
            {
                self.association.handle_event(event);
            }
        }
        self.handle_timeout(now);
        while self.association.poll().is_some() {}
        if let Ok(mut stream) = self.association.stream(STREAM) {
            while let Ok(Some(message)) = stream.read() {
                if message.ppi == PayloadProtocolIdentifier::String {
                    let text = message.to_payload(1000).expect("short");
                    self.heard.push(String::from_utf8(text.to_vec()).expect("text"));
                }
            }
        }
        while let Some(transmit) = self.association.poll_transmit(now) {
            if let Payload::RawEncode(packets) = transmit.message {
                packets.iter().for_each(|packet| peer.send_data(packet));
            }
        }
        while self.association.poll_endpoint_event().is_some() {}
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.association.poll_timeout().is_some_and(|at| now >= at) {
            self.association.handle_timeout(now);
        }
    }
}

/// Over DTLS an association has no addresses of its own.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5000))
}

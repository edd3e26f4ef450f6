//! Data channels: SCTP (RFC 9260, RFC 8831) over `rtc-sctp`, and their establishment (DCEP, RFC 8832).
//!
//! The player opens every channel; we answer. A channel is named by its SCTP stream here; what a label means is the
//! owner's business.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc_sctp::{
    Association, AssociationError, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};
use rtc_shared::TransportProtocol;

use super::sctp_guard::{SctpGuard, Verdict};
use super::sctp_prompt::{acknowledged_at_once, asking_for_sack};

/// The most channels a peer may open.
pub const MAX_CHANNELS: usize = 8;

/// The most bytes queued towards a peer per channel before [`DataChannels::send`] refuses: a player that reads nothing
/// must not hold our memory.
const MAX_BUFFERED: usize = 256 * 1024;

/// Associations that a peer may begin until one is established: each repetition of its INIT begins one.
const MAX_ATTEMPTS: usize = 4;

/// Streams that a peer may send on, whether or not it opens a channel there.
const MAX_STREAMS: usize = 4 * MAX_CHANNELS;

/// The receive window we advertise: bounds what a peer can make us buffer.
const RECEIVE_WINDOW: u32 = 128 * 1024;

/// How much faster time passes for SCTP than for us.
///
/// RFC 9260 §16 recommends an RTO.Min of 1 second, and `rtc-sctp` keeps to it: an answer to a bet whose packet is lost would
/// come that much later. At eight times the speed it is 125 ms, and SACKs are held back for 25 ms instead of 200 ms; §6.2: an
/// acknowledgement "SHOULD be generated within 200 ms of the arrival of any unacknowledged DATA chunk". Round trips are measured
/// by the same clock, so a longer path has its longer timeout, and it still doubles each time. What is sent twice in vain is an answer of 200 bytes.
const SPEED: u32 = 8;

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
    /// A message that is larger than we accept.
    Oversized {
        /// Its stream.
        id: ChannelId,
    },
    /// The peer closed a channel.
    Closed {
        /// Its stream.
        id: ChannelId,
    },
    /// The peer broke a rule: a packet that is refused, a bad DCEP message, too many channels, a message where none is open. Counted,
    /// dropped.
    Violation,
    /// The association is gone; no channel works any more.
    Lost,
}

/// The time that SCTP is told, from the first that we were.
#[derive(Clone, Copy, Debug, Default)]
struct FastClock(Option<Instant>);

impl FastClock {
    /// SCTP's time.
    fn at(&mut self, now: Instant) -> Instant {
        let began = *self.0.get_or_insert(now);
        began + now.saturating_duration_since(began) * SPEED
    }

    /// Our time when it is `at` for SCTP; never before.
    fn back(self, at: Instant) -> Instant {
        let Some(began) = self.0 else { return at };
        let nanoseconds = at.saturating_duration_since(began).as_nanos().div_ceil(u128::from(SPEED));
        began + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
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
    guard: SctpGuard,
    /// The association, or until one is established, the attempts: a peer that misses our INIT ACK repeats its INIT, and
    /// may answer either.
    associations: Vec<(AssociationHandle, Association)>,
    established: bool,
    /// The peer gave up, or was given up.
    lost: bool,
    /// A packet was refused, and nobody was told yet.
    refused: bool,
    open: Vec<ChannelId>,
    max_message_size: usize,
    clock: FastClock,
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
        Self {
            endpoint: Endpoint::new(
                nowhere(),
                TransportProtocol::UDP,
                config.endpoint.clone(),
                Some(config.server.clone()),
            ),
            guard: SctpGuard::default(),
            associations: Vec::new(),
            established: false,
            lost: false,
            refused: false,
            open: Vec::new(),
            max_message_size: config.max_message_size,
            clock: FastClock::default(),
        }
    }

    /// Takes one decrypted SCTP packet.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let now = self.clock.at(now);
        match self.guard.judge(packet) {
            Verdict::Admit if !self.lost => self.contain(|channels| channels.read(now, packet)),
            Verdict::Abort => self.give_up(),
            Verdict::Refuse => self.refused = !self.lost,
            Verdict::Admit => {}
        }
    }

    /// Retransmission, delayed acknowledgement and the like.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.at(now);
        self.contain(|channels| channels.associations.iter_mut().for_each(|(_, a)| a.handle_timeout(now)));
    }

    /// When to call [`DataChannels::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.associations.iter().filter_map(|(_, a)| a.poll_timeout()).min()?;
        Some(self.clock.back(next))
    }

    /// Sends a text message (PPID 51) on a channel the peer has opened.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was queued.
    pub fn send(&mut self, now: Instant, id: ChannelId, text: &str) -> Result<(), SendError> {
        if !self.open.contains(&id) {
            return Err(SendError::Closed);
        }
        let now = self.clock.at(now);
        let (_, association) = self.associations.first_mut().ok_or(SendError::Closed)?;
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
        let now = self.clock.at(now);
        self.contain(|channels| {
            for (_, association) in &mut channels.associations {
                while let Some(transmit) = association.poll_transmit(now) {
                    if let Payload::RawEncode(packets) = transmit.message {
                        packets.iter().for_each(|packet| match asking_for_sack(packet) {
                            Some(asking) => send(&asking),
                            None => send(packet),
                        });
                    }
                }
                // Only `Drained` exists: the endpoint may keep its handle, the association goes with the session.
                while association.poll_endpoint_event().is_some() {}
            }
        });
    }

    /// Ends the association, and with it all channels, and says so to the peer (RFC 9260 §9.1). The session goes on.
    pub fn abort(&mut self, now: Instant, send: impl FnMut(&[u8])) {
        self.contain(|channels| {
            for (_, association) in &mut channels.associations {
                // Of one that is closed there is nothing to end.
                let _ = association.abort();
            }
        });
        self.poll_transmit(now, send);
        self.give_up();
    }

    /// Reads what arrived.
    pub fn poll_events(&mut self, now: Instant, mut sink: impl FnMut(ChannelEvent)) {
        let now = self.clock.at(now);
        self.contain(|channels| channels.read_events(now, &mut sink));
        if std::mem::take(&mut self.refused) {
            sink(ChannelEvent::Violation);
        }
        if self.lost && (self.established || !self.open.is_empty()) {
            self.established = false;
            self.open.clear();
            sink(ChannelEvent::Lost);
        }
    }

    fn read(&mut self, now: Instant, packet: &[u8]) {
        let packet = acknowledged_at_once(packet).map_or_else(|| Bytes::copy_from_slice(packet), Bytes::from);
        match self.endpoint.handle(now, nowhere(), None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                self.associations.push((handle, association));
                if self.associations.len() >= MAX_ATTEMPTS {
                    self.endpoint.reject_new_associations();
                }
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, association)) = self.associations.iter_mut().find(|(known, _)| *known == handle) {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
        if !self.established
            && let Some(at) = self.associations.iter().position(|(_, a)| !a.is_handshaking())
        {
            self.established = true;
            self.associations.swap(0, at);
            self.associations.truncate(1);
            // RFC 8831 §6.3 has one association on a DTLS transport.
            self.endpoint.reject_new_associations();
        }
    }

    fn read_events(&mut self, now: Instant, sink: &mut impl FnMut(ChannelEvent)) {
        let Some((_, association)) = self.associations.first_mut().filter(|_| self.established) else { return };
        while let Some(event) = association.poll() {
            match event {
                Event::Stream(StreamEvent::Readable { id }) => {
                    read_stream(association, &mut self.open, self.max_message_size, now, id, sink);
                }
                // The library calls it so when the peer resets one stream (RFC 8831 §6.7); the association goes on.
                Event::AssociationLost { reason: AssociationError::Reset, id } if !association.is_closed() => {
                    if let Some(at) = self.open.iter().position(|open| *open == id) {
                        self.open.swap_remove(at);
                        sink(ChannelEvent::Closed { id });
                    }
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => self.lost = true,
                _ => {}
            }
        }
        // A message that arrives with the stream's first packet raises `Opened` only.
        while let Some(stream) = association.accept_stream() {
            let id = stream.stream_identifier();
            read_stream(association, &mut self.open, self.max_message_size, now, id, sink);
            self.lost |= association.stream_ids().len() > MAX_STREAMS;
        }
        if self.lost {
            self.associations.clear();
        }
    }

    /// Runs code of the library on what a stranger sent. If it panics in spite of the guard, this peer loses its channels;
    /// else it would be all sessions of the shard that end.
    fn contain(&mut self, work: impl FnOnce(&mut Self)) {
        // The association that may be left half changed is dropped, never looked at again.
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.lost = true;
        self.associations.clear();
        self.endpoint.reject_new_associations();
    }
}

/// SCTP over DTLS has no addresses of its own: any constant does, ICE moves the path underneath.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5000))
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
            let is_open = open.contains(&id);
            sink(if is_open { ChannelEvent::Oversized { id } } else { ChannelEvent::Violation });
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
            // RFC 8831 §6.6: SCTP carries no empty message, so a zero byte stands for it: "the receiver MUST ignore the SCTP
            // user message and process it as an empty message".
            PayloadProtocolIdentifier::StringEmpty | PayloadProtocolIdentifier::BinaryEmpty if open.contains(&id) => {
                sink(ChannelEvent::Message { id, data: Bytes::new() });
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
    use proptest::prelude::*;
    use rtc_sctp::ClientConfig;

    use super::*;

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

    /// The peer's SCTP, and ours.
    struct Pair {
        now: Instant,
        endpoint: Endpoint,
        client: Association,
        channels: DataChannels,
        to_client: Vec<Bytes>,
        events: Vec<ChannelEvent>,
    }

    impl Pair {
        fn new() -> Self {
            let (nowhere, now) = (SocketAddr::from(([127, 0, 0, 1], 5000)), Instant::now());
            let mut endpoint = Endpoint::new(nowhere, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), None);
            let config = ClientConfig::new(TransportConfig::default());
            let (_, client) = endpoint.connect(now, config, nowhere).expect("an association");
            let channels = DataChannels::new(&SctpConfig::new(65_536));
            Self { now, endpoint, client, channels, to_client: Vec::new(), events: Vec::new() }
        }

        fn connected() -> Self {
            let mut pair = Self::new();
            pair.exchange();
            assert!(!pair.client.is_handshaking());
            pair
        }

        fn take_from_client(&mut self) -> Vec<Bytes> {
            let mut packets = Vec::new();
            while let Some(transmit) = self.client.poll_transmit(self.now) {
                if let Payload::RawEncode(encoded) = transmit.message {
                    packets.extend(encoded);
                }
            }
            packets
        }

        fn deliver(&mut self, packet: &[u8]) {
            self.channels.handle_packet(self.now, packet);
            self.channels.poll_events(self.now, |event| self.events.push(event));
            self.channels.poll_transmit(self.now, |packet| self.to_client.push(Bytes::copy_from_slice(packet)));
        }

        /// Until nobody has more to say.
        fn exchange(&mut self) {
            loop {
                let packets = self.take_from_client();
                let quiet = packets.is_empty() && self.to_client.is_empty();
                packets.iter().for_each(|p| self.deliver(p));
                for packet in std::mem::take(&mut self.to_client) {
                    let nowhere = SocketAddr::from(([127, 0, 0, 1], 5000));
                    if let Some((_, DatagramEvent::AssociationEvent(event))) =
                        self.endpoint.handle(self.now, nowhere, None, packet)
                    {
                        self.client.handle_event(event);
                    }
                }
                while self.client.poll().is_some() {}
                if quiet {
                    break;
                }
            }
        }

        fn open(&mut self, id: u16, label: &str) {
            let message = open(0, 0, label);
            let mut stream = self.client.open_stream(id, PayloadProtocolIdentifier::Dcep).expect("a stream");
            stream.write_with_ppi(self.now, &message, PayloadProtocolIdentifier::Dcep).expect("room");
            self.exchange();
        }

        /// Delivers what we have to say, and then what follows.
        fn flush(&mut self) {
            let Self { channels, to_client, now, .. } = self;
            channels.poll_transmit(*now, |packet| to_client.push(Bytes::copy_from_slice(packet)));
            self.exchange();
        }

        fn tick(&mut self) {
            self.now += Duration::from_millis(300);
            self.client.handle_timeout(self.now);
            self.channels.handle_timeout(self.now);
        }
    }

    /// RFC 9260 appendix A: CRC32c, in the byte order of the wire.
    fn with_checksum(packet: &mut [u8]) {
        packet[8..12].fill(0);
        let mut crc = !0_u32;
        for byte in packet.iter() {
            crc ^= u32::from(*byte);
            (0..8).for_each(|_| crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()));
        }
        packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
    }

    #[test]
    fn channels_open_and_carry_messages() {
        let mut pair = Pair::connected();
        pair.open(0, "bets");
        assert_eq!(pair.events, [ChannelEvent::Opened { id: 0, label: "bets".into() }]);
        assert_eq!(pair.channels.send(pair.now, 0, "hello"), Ok(()));
        assert_eq!(pair.channels.send(pair.now, 2, "hello"), Err(SendError::Closed));
    }

    #[test]
    fn an_answer_that_is_lost_is_given_again() {
        let mut pair = Pair::new();
        let init = pair.take_from_client();
        init.iter().for_each(|p| pair.deliver(p));
        assert!(!pair.to_client.is_empty());
        pair.to_client.clear();
        (0..12).for_each(|_| pair.tick());
        pair.exchange();
        pair.open(0, "bets");
        assert_eq!(pair.events, [ChannelEvent::Opened { id: 0, label: "bets".into() }]);
    }

    #[test]
    fn who_is_aborted_hears_of_it() {
        let mut pair = Pair::connected();
        pair.open(0, "bets");
        pair.events.clear();
        let Pair { channels, to_client, now, .. } = &mut pair;
        channels.abort(*now, |packet| to_client.push(Bytes::copy_from_slice(packet)));
        pair.channels.poll_events(pair.now, |event| pair.events.push(event));
        assert_eq!(pair.events, [ChannelEvent::Lost]);
        pair.exchange();
        assert!(pair.client.is_closed());
        assert_eq!(pair.channels.send(pair.now, 0, "hello"), Err(SendError::Closed));
    }

    #[test]
    fn empty_and_oversized_messages_and_closed_channels_are_told() {
        let mut pair = Pair::connected();
        pair.open(0, "bets");
        pair.events.clear();
        for (text, kind) in
            [(vec![0], PayloadProtocolIdentifier::StringEmpty), (vec![b'x'; 65_537], PayloadProtocolIdentifier::String)]
        {
            let mut stream = pair.client.stream(0).expect("it is open");
            stream.write_with_ppi(pair.now, &text, kind).expect("room");
            (0..20).for_each(|_| pair.flush());
        }
        assert_eq!(
            pair.events,
            [ChannelEvent::Message { id: 0, data: Bytes::new() }, ChannelEvent::Oversized { id: 0 }]
        );
        pair.client.stream(0).expect("it is open").close(pair.now).expect("a reset");
        (0..20).for_each(|_| pair.flush());
        assert_eq!(pair.events.last(), Some(&ChannelEvent::Closed { id: 0 }));
    }

    /// The word on a bet must not wait for a second.
    #[test]
    fn what_is_lost_comes_again_after_an_eighth_of_a_second() {
        let mut pair = Pair::connected();
        pair.open(0, "bets");
        // Two packets are acknowledged at once, so that the round trip is known.
        pair.channels.send(pair.now, 0, "welcome").expect("room");
        pair.flush();
        pair.now += Duration::from_millis(50);
        pair.channels.handle_timeout(pair.now);
        pair.flush();
        let sent = |pair: &mut Pair| {
            let mut packets = 0;
            pair.channels.poll_transmit(pair.now, |_| packets += 1);
            packets
        };
        pair.channels.send(pair.now, 0, "accepted").expect("room");
        assert_eq!(sent(&mut pair), 1, "and it is lost");
        let (lost_at, mut wait) = (pair.now, Duration::from_millis(125));
        for _ in 0..3 {
            assert_eq!(pair.channels.poll_timeout().map(|at| at - pair.now), Some(wait));
            pair.now += wait - Duration::from_nanos(1);
            pair.channels.handle_timeout(pair.now);
            assert_eq!(sent(&mut pair), 0, "too early");
            pair.now = pair.channels.poll_timeout().expect("a retransmission");
            pair.channels.handle_timeout(pair.now);
            assert_eq!(sent(&mut pair), 1);
            // RFC 9260 §6.3.3, E2: "set RTO = RTO * 2".
            wait *= 2;
        }
        assert_eq!(pair.now - lost_at, Duration::from_millis(125 + 250 + 500));
    }

    /// A peer's answer waits for our SACK.
    #[test]
    fn what_came_is_acknowledged_within_25_milliseconds() {
        let mut pair = Pair::connected();
        pair.open(0, "bets");
        // Nothing waits to be acknowledged.
        pair.tick();
        pair.flush();
        let mut stream = pair.client.stream(0).expect("it is open");
        stream.write_with_ppi(pair.now, b"bet", PayloadProtocolIdentifier::String).expect("room");
        pair.take_from_client().iter().for_each(|packet| pair.deliver(packet));
        assert!(pair.to_client.is_empty());
        let due = pair.channels.poll_timeout().expect("a SACK");
        assert_eq!(due - pair.now, Duration::from_millis(25));
    }

    /// Each INIT may make an association, each DATA chunk a stream.
    #[test]
    fn a_report_is_acknowledged_at_once_and_leaves_no_timer() {
        let mut pair = Pair::connected();
        let message = open(0x81, 0, "qos");
        let mut stream = pair.client.open_stream(2, PayloadProtocolIdentifier::Dcep).expect("a stream");
        stream.write_with_ppi(pair.now, &message, PayloadProtocolIdentifier::Dcep).expect("room");
        stream.set_reliability_params(true, ReliabilityType::Rexmit, 0).expect("known");
        (0..3).for_each(|_| {
            pair.exchange();
            pair.tick();
        });
        let rested = pair.channels.poll_timeout();
        let mut stream = pair.client.stream(2).expect("opened");
        stream.write_with_ppi(pair.now, b"{}", PayloadProtocolIdentifier::String).expect("room");
        let report = pair.take_from_client();
        assert_eq!(report.len(), 1);
        pair.deliver(&report[0]);
        let kinds: Vec<u8> = pair.to_client.iter().map(|packet| packet[12]).collect();
        assert_eq!((kinds, pair.channels.poll_timeout()), (vec![3], rested), "a SACK (RFC 9260 §3.3.4)");
    }

    #[test]
    fn a_peer_cannot_make_us_hold_associations_or_streams_without_end() {
        let mut pair = Pair::new();
        let init = pair.take_from_client().remove(0);
        for tag in 1..2000_u32 {
            let mut again = init.to_vec();
            again[16..20].copy_from_slice(&tag.to_be_bytes());
            with_checksum(&mut again);
            pair.deliver(&again);
        }
        assert!(pair.to_client.len() <= MAX_ATTEMPTS, "{} answers", pair.to_client.len());

        let mut pair = Pair::connected();
        for id in 0..2000 {
            let Ok(mut stream) = pair.client.open_stream(id, PayloadProtocolIdentifier::String) else { break };
            let _ = stream.write_with_ppi(pair.now, b"x", PayloadProtocolIdentifier::String);
            pair.exchange();
        }
        assert!(pair.events.len() < 200, "{} events", pair.events.len());
        assert_eq!(pair.events.last(), Some(&ChannelEvent::Lost));
    }

    proptest! {
        /// From a peer that has keys: everything but the checksum may be wrong.
        #[test]
        fn any_packet_is_survived(
            damages in proptest::collection::vec((0_usize..4, any::<usize>(), any::<u8>(), any::<u16>()), 1..60),
        ) {
            let mut pair = Pair::connected();
            pair.open(0, "bets");
            let mut samples: Vec<Vec<u8>> = Vec::new();
            for (n, (kind, at, byte, len)) in damages.into_iter().enumerate() {
                if let Ok(mut stream) = pair.client.stream(0) {
                    let text = vec![b'x'; usize::from(len) % 3000];
                    let _ = stream.write_with_ppi(pair.now, &text, PayloadProtocolIdentifier::String);
                }
                if n % 4 == 3 {
                    pair.tick();
                }
                samples.extend(pair.take_from_client().iter().map(|p| p.to_vec()));
                let Some(sample) = samples.get(at % samples.len().max(1)) else { continue };
                let mut packet = sample.clone();
                let place = 12 + at % (packet.len() - 12);
                match kind {
                    0 => packet[place] = byte,
                    // Another chunk type, or another length.
                    1 => packet[12] = (byte % 20) | (byte & 0xc0),
                    2 => packet[14..16].copy_from_slice(&(len % 2000).to_be_bytes()),
                    _ => packet.truncate(place.max(16)),
                }
                with_checksum(&mut packet);
                pair.deliver(&packet);
                pair.to_client.clear();
                if let Some(at) = pair.channels.poll_timeout() {
                    pair.now = pair.now.max(at);
                    pair.channels.handle_timeout(pair.now);
                    prop_assert!(pair.channels.poll_timeout().is_none_or(|next| next > pair.now), "a timer that never rests");
                }
            }
        }

        #[test]
        fn any_dcep_message_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Open::parse(&bytes);
        }

        #[test]
        fn noise_is_survived(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..8)) {
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

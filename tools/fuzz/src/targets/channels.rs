//! A player's SCTP: packets that its library makes, damaged or made up, with a right tag and checksum: all that a peer
//! with keys can send. Channels, messages and their bounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc_sctp::{
    Association, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Payload, PayloadProtocolIdentifier,
    TransportConfig,
};
use rtc_shared::TransportProtocol;
use tableside::rtc::data_channel::{ChannelEvent, DataChannels, MAX_CHANNELS, SctpConfig};

use crate::checksums;
use crate::input::{Input, chunk, damage};

const MAX_MESSAGE: u32 = 65_536;
const HEADER_LEN: usize = 12;

/// A player's side of an association. Also the shard target's.
pub(super) struct Client {
    endpoint: Endpoint,
    association: Association,
    /// Source and destination port and verification tag, once a packet with our tag was sent.
    header: [u8; 8],
    tsn: u32,
}

impl Client {
    pub(super) fn new(now: Instant) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 5000));
        let mut endpoint = Endpoint::new(nowhere, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), None);
        let config = ClientConfig::new(TransportConfig::default());
        let (_, association) = endpoint.connect(now, config, nowhere).expect("an association");
        Self { endpoint, association, header: [0; 8], tsn: 0 }
    }

    pub(super) fn take_packets(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut packets: Vec<Vec<u8>> = Vec::new();
        while let Some(transmit) = self.association.poll_transmit(now) {
            if let Payload::RawEncode(encoded) = transmit.message {
                packets.extend(encoded.iter().map(|packet| packet.to_vec()));
            }
        }
        for packet in &packets {
            self.header.copy_from_slice(&packet[..8]);
            if let [0, _, _, _, a, b, c, d, ..] = packet[HEADER_LEN..] {
                self.tsn = u32::from_be_bytes([a, b, c, d]);
            }
        }
        packets
    }

    pub(super) fn handle(&mut self, now: Instant, packet: &[u8]) {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 5000));
        let packet = Bytes::copy_from_slice(packet);
        if let Some((_, DatagramEvent::AssociationEvent(event))) = self.endpoint.handle(now, nowhere, None, packet) {
            self.association.handle_event(event);
        }
        while self.association.poll().is_some() {}
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.association.handle_timeout(now);
    }

    /// A message on a stream: DCEP, text, or something else.
    pub(super) fn write(&mut self, now: Instant, stream: u16, kind: u8, message: &[u8]) {
        let ppi = match kind % 4 {
            0 => PayloadProtocolIdentifier::Dcep,
            1 => PayloadProtocolIdentifier::String,
            2 => PayloadProtocolIdentifier::Binary,
            _ => PayloadProtocolIdentifier::Unknown,
        };
        if self.association.stream(stream).is_err() {
            let _ = self.association.open_stream(stream, ppi);
        }
        if let Ok(mut stream) = self.association.stream(stream) {
            let _ = stream.write_with_ppi(now, message, ppi);
        }
    }

    /// A packet of these chunks, with the association's tag. Where `relative` says so, the first four bytes of the
    /// first chunk's value count from the newest TSN, which nobody can guess.
    pub(super) fn made_up(&self, chunks: &[u8], relative: bool) -> Vec<u8> {
        let mut packet = self.header.to_vec();
        packet.extend([0; 4]);
        packet.extend(chunks);
        if let (true, Some(place)) = (relative, packet.get_mut(HEADER_LEN + 4..HEADER_LEN + 8)) {
            let offset = u32::from_be_bytes([place[0], place[1], place[2], place[3]]);
            place.copy_from_slice(&self.tsn.wrapping_add(offset).to_be_bytes());
        }
        checksums::sctp(&mut packet);
        packet
    }
}

/// `DATA_CHANNEL_OPEN` (RFC 8832 §5.1).
pub(super) fn open(label: &str) -> Vec<u8> {
    let mut message = vec![3, 0, 0, 0, 0, 0, 0, 0, 0, label.len() as u8, 0, 0];
    message.extend(label.as_bytes());
    message
}

struct World {
    now: Instant,
    client: Client,
    channels: DataChannels,
    open: Vec<u16>,
    to_client: Vec<Vec<u8>>,
    events: usize,
}

impl World {
    fn deliver(&mut self, packet: &[u8]) {
        self.channels.handle_packet(self.now, packet);
        self.drain();
    }

    fn drain(&mut self) {
        let (open, events, to_client) = (&mut self.open, &mut self.events, &mut self.to_client);
        self.channels.poll_events(self.now, |event| {
            *events += 1;
            match event {
                ChannelEvent::Opened { id, label } => {
                    assert!(label.len() <= 64);
                    open.push(id);
                }
                ChannelEvent::Message { data, .. } => assert!(data.len() <= MAX_MESSAGE as usize),
                ChannelEvent::Oversized { id } => assert!(open.contains(&id)),
                ChannelEvent::Closed { id } => {
                    assert!(open.contains(&id));
                    open.retain(|other| *other != id);
                }
                ChannelEvent::Lost => open.clear(),
                ChannelEvent::Violation => {}
            }
        });
        self.channels.poll_transmit(self.now, |packet| to_client.push(packet.to_vec()));
        assert!(to_client.len() < 2000, "one packet is answered with {}", to_client.len());
    }

    /// What both have to say, until nobody has more.
    fn exchange(&mut self) {
        for _ in 0..100 {
            let packets = self.client.take_packets(self.now);
            if packets.is_empty() && self.to_client.is_empty() {
                break;
            }
            packets.iter().for_each(|packet| self.deliver(packet));
            for packet in std::mem::take(&mut self.to_client) {
                self.client.handle(self.now, &packet);
            }
        }
    }

    fn pass_time(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.client.handle_timeout(self.now);
        self.channels.handle_timeout(self.now);
        self.drain();
        assert!(self.channels.poll_timeout().is_none_or(|at| at > self.now), "a timer that never rests");
    }
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let now = Instant::now();
    let mut world = World {
        now,
        client: Client::new(now),
        channels: DataChannels::new(&SctpConfig::new(MAX_MESSAGE)),
        open: Vec::new(),
        to_client: Vec::new(),
        events: 0,
    };
    if input.flag() {
        world.exchange();
    }
    let mut recent: Vec<Vec<u8>> = Vec::new();
    while !input.is_empty() {
        match input.byte() % 10 {
            0 => world.deliver(input.chunk()),
            1 | 2 => {
                let relative = input.flag();
                let packet = world.client.made_up(input.chunk(), relative);
                world.deliver(&packet);
            }
            3 | 4 => {
                let (stream, kind) = (u16::from(input.byte()), input.byte());
                world.client.write(world.now, stream, kind, input.chunk());
                recent = world.client.take_packets(world.now);
                recent.clone().iter().for_each(|packet| world.deliver(packet));
            }
            5 | 6 => {
                let Some(packet) = recent.get(input.below(recent.len().max(1))) else { continue };
                let mut packet = packet.clone();
                damage(&mut input, &mut packet);
                checksums::sctp(&mut packet);
                world.deliver(&packet);
            }
            7 => world.exchange(),
            8 => world.pass_time(u64::from(input.word())),
            _ => {
                let id = u16::from(input.byte());
                let sent = world.channels.send(world.now, id, &"x".repeat(input.word().into()));
                assert!(sent.is_err() || world.open.contains(&id), "sent on a channel that nobody opened");
                world.drain();
            }
        }
        assert!(world.open.len() <= MAX_CHANNELS || world.open.len() <= world.events);
    }
}

/// A player that opens its channels and talks on them; made-up chunks of every type of RFC 9260 and RFC 6525.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let write = |stream, kind, message: &[u8]| [vec![3, stream, kind], chunk(message)].concat();
    let made_up = |relative, chunks: &[u8]| [vec![1, relative], chunk(chunks)].concat();
    let data = |flags: u8, tsn: u8, text: &[u8]| {
        let mut chunk = vec![0, flags, 0, 16 + text.len() as u8, 0, 0, 0, tsn, 0, 0, 0, 0, 0, 0, 0, 51];
        chunk.extend(text);
        chunk.resize(chunk.len().next_multiple_of(4), 0);
        chunk
    };
    let player = [
        vec![1],
        write(0, 0, &open("bets")),
        write(2, 0, &open("events")),
        vec![7],
        write(0, 1, br#"{"type":"bet","betId":"b-1"}"#),
        vec![5, 0, 0, 30, 0, 9],
        vec![9, 0, 0, 200, 7],
        vec![8, 1, 0, 7],
    ];
    let chunks = [
        vec![1],
        write(0, 0, &open("qos")),
        vec![7],
        made_up(1, &data(3, 1, b"hello")),
        made_up(1, &data(2, 3, &[b'x'; 70])),
        made_up(1, &[192, 0, 0, 8, 0, 0, 0, 9]),
        made_up(0, &[3, 0, 0, 16, 0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 0]),
        made_up(0, &[4, 0, 0, 8, 0, 1, 0, 4]),
        made_up(1, &[130, 0, 0, 20, 0, 13, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]),
        vec![7],
        made_up(0, &[7, 0, 0, 8, 0, 0, 0, 1]),
        made_up(0, &[6, 0, 0, 4]),
    ];
    let early = [vec![0], made_up(0, &[1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]), vec![7]];
    vec![player.concat(), chunks.concat(), early.concat()]
}

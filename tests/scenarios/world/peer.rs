//! A client in the world: ICE checks, DTLS, SRTP, and a record of what came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tableside::config::MaxLayer;
use tableside::media::{Codec, HeaderFields, MediaKind, RtpHeader, write_header};
use tableside::rtc::Transport;
use tableside::rtc::demux::{PacketKind, classify};
use tableside::rtc::dtls::{DtlsIdentity, DtlsOutput, DtlsScratch, DtlsTransport, DtlsVersion};
use tableside::rtc::rtcp::{self, RtcpWriter};
use tableside::rtc::sdp::{
    DataSection, DtlsRole, ExtensionIds, Feedback, Fingerprint, FingerprintHash, IceCredentials, MediaDirection,
    MediaSection, Negotiated, Section, SimulcastLayer, StreamParameters,
};
use tableside::rtc::srtp::{RtcpOpener, RtcpSealer, RtpOpener, RtpSealer};
use tableside::rtc::stun::{BindingResponse, IceRole, IntegrityKey, RequestParameters, write_request};
use tableside::shard::SlotKey;

use super::Datagram;

pub const VIDEO_PAYLOAD_TYPE: u8 = 96;
pub const RTX_PAYLOAD_TYPE: u8 = 97;
pub const AUDIO_PAYLOAD_TYPE: u8 = 111;
const TRANSPORT_CC: u8 = 3;
pub const MID: u8 = 9;
pub const RID: u8 = 10;
pub const REPAIRED_RID: u8 = 11;
const PUBLISHER_VIDEO_SSRC: u32 = 0x2222_2220;
const PUBLISHER_AUDIO_SSRC: u32 = 0x2222_2222;

/// The peer's side of the DTLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Header extension elements: id and value of each.
pub type Elements<'a> = &'a [(u8, &'a [u8])];

/// An RTP packet that came and authenticated.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub at: Instant,
    pub ssrc: u32,
    pub payload_type: u8,
    /// The extended sequence number by SRTP.
    pub index: u64,
    pub sequence_number: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub transport_number: Option<u16>,
    pub payload: Vec<u8>,
    /// The datagram as it was on the wire.
    pub wire: Vec<u8>,
}

/// What becomes of a datagram.
pub type Rewrite = fn(Vec<u8>) -> Vec<Vec<u8>>;

struct Keys {
    rtp_sealer: RtpSealer,
    rtcp_sealer: RtcpSealer,
    rtp_opener: RtpOpener,
    rtcp_opener: RtcpOpener,
}

pub struct Peer {
    pub address: SocketAddr,
    /// What carries its packets.
    pub transport: Transport,
    pub negotiated: Negotiated,
    /// The highest layer that it asks for.
    pub max_layer: Option<MaxLayer>,
    pub key: Option<SlotKey>,
    pub received: Vec<Received>,
    /// RTCP compound packets, in the clear.
    pub reports: Vec<Vec<u8>>,
    pub refused_checks: usize,
    /// Datagrams that did not authenticate: always a fault of the gateway.
    pub undecryptable: usize,
    /// SCTP packets that came, in the clear.
    pub data: Vec<Vec<u8>>,
    pub closed: bool,
    pub sends_checks: bool,
    /// Whether its handshake may go wrong, and answers to other peers' checks come to it.
    pub may_fail: bool,
    /// Whether its checks carry USE-CANDIDATE.
    pub nominates: bool,
    /// What becomes of its DTLS datagrams on the way to the wire: none, itself, or others.
    pub rewrite: Rewrite,
    /// Its own ufrag: the one of its offer, until it restarts ICE.
    pub ufrag: String,
    node: Option<SocketAddr>,
    remote: Option<(IceCredentials, IntegrityKey)>,
    side: Side,
    /// Of the gateway, as its answer would say.
    fingerprint: [u8; 32],
    identity: Arc<DtlsIdentity>,
    dtls: Option<DtlsTransport>,
    keys: Option<Keys>,
    scratch: DtlsScratch,
    next_check: Instant,
    outgoing: Vec<Datagram>,
    pub sequence: u16,
    pub audio_sequence: u16,
    pub timestamp: u32,
}

/// Of every peer's offer.
const UFRAG: &str = "peer";

impl Peer {
    pub fn publisher(now: Instant, number: u16, side: Side) -> Self {
        Self::new(now, number, MediaDirection::Receive, side)
    }

    pub fn player(now: Instant, number: u16) -> Self {
        Self::new(now, number, MediaDirection::Send, Side::Client)
    }

    fn new(now: Instant, number: u16, direction: MediaDirection, side: Side) -> Self {
        let identity = Arc::new(DtlsIdentity::generate().expect("a certificate"));
        Self {
            address: Self::address_of(number),
            transport: Transport::Udp,
            negotiated: negotiated(direction, side, identity.fingerprint()),
            max_layer: None,
            key: None,
            received: Vec::new(),
            reports: Vec::new(),
            refused_checks: 0,
            undecryptable: 0,
            data: Vec::new(),
            closed: false,
            sends_checks: true,
            may_fail: false,
            nominates: true,
            rewrite: |datagram| vec![datagram],
            ufrag: UFRAG.into(),
            node: None,
            remote: None,
            side,
            fingerprint: [0; 32],
            identity,
            dtls: None,
            keys: None,
            scratch: DtlsScratch::default(),
            next_check: now,
            outgoing: Vec::new(),
            sequence: 65_500,
            audio_sequence: 10,
            timestamp: 4_294_900_000,
        }
    }

    /// The same, without the other versions of DTLS.
    pub fn speaking_only(mut self, version: DtlsVersion) -> Self {
        let identity = DtlsIdentity::generate().expect("a certificate").speaking_only(version);
        self.negotiated.remote_fingerprints = vec![fingerprint_line(identity.fingerprint())];
        self.identity = Arc::new(identity);
        self
    }

    pub fn dtls_version(&self) -> Option<DtlsVersion> {
        self.dtls.as_ref()?.version()
    }

    /// Where the session with this number is, unless it is put elsewhere.
    pub fn address_of(number: u16) -> SocketAddr {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([10, 1, high, low], 5000))
    }

    /// The answer has come.
    pub fn begin(&mut self, node: SocketAddr, fingerprint: [u8; 32], key: SlotKey, ice: IceCredentials) {
        self.fingerprint = fingerprint;
        self.node = Some(node);
        self.key = Some(key);
        self.remote = Some((ice.clone(), IntegrityKey::new(&ice.pwd)));
    }

    /// The answer to an ICE restart has come, for which it had `ufrag`.
    pub fn restart_ice(&mut self, ufrag: &str, ice: IceCredentials) {
        self.ufrag = ufrag.into();
        self.remote = Some((ice.clone(), IntegrityKey::new(&ice.pwd)));
    }

    pub fn is_connected(&self) -> bool {
        self.keys.is_some()
    }

    pub fn take_outgoing(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.outgoing)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.sends_checks && now >= self.next_check {
            self.next_check =
                now + if self.is_connected() { Duration::from_secs(2) } else { Duration::from_millis(50) };
            self.check();
        }
        if let Some(dtls) = &mut self.dtls
            && dtls.poll_timeout().is_some_and(|at| now >= at)
        {
            let result = dtls.handle_timeout(now);
            assert!(result.is_ok() || self.may_fail, "the handshake goes on: {result:?}");
            self.drive();
        }
    }

    pub fn check(&mut self) {
        let Some((credentials, key)) = &self.remote else { return };
        let parameters = RequestParameters {
            transaction_id: [7; 12],
            local_ufrag: &credentials.ufrag,
            remote_ufrag: &self.ufrag,
            priority: Some(1),
            role: Some((IceRole::Controlling, 1)),
            use_candidate: self.nominates,
        };
        let mut message = [0; 256];
        let len = write_request(&mut message, &parameters, key);
        self.emit(message[..len].to_vec());
    }

    pub fn handle_datagram(&mut self, now: Instant, mut datagram: Datagram) {
        match classify(&datagram.bytes) {
            PacketKind::Stun => self.handle_stun(now, &datagram.bytes),
            PacketKind::Dtls => {
                if self.dtls.is_none() {
                    self.start_dtls(now);
                }
                let dtls = self.dtls.as_mut().expect("just started");
                let result = dtls.handle_datagram(now, &datagram.bytes);
                assert!(result.is_ok() || self.may_fail, "the handshake goes on: {result:?}");
                self.drive();
            }
            PacketKind::Rtp => self.handle_rtp(now, &mut datagram.bytes),
            PacketKind::Rtcp => {
                let Some(keys) = &mut self.keys else { return };
                match keys.rtcp_opener.open(&mut datagram.bytes) {
                    Ok(len) => self.reports.push(datagram.bytes[..len].to_vec()),
                    Err(_) => self.undecryptable += 1,
                }
            }
            PacketKind::Unrecognised => panic!("the gateway sent something unrecognisable"),
        }
    }

    fn handle_stun(&mut self, now: Instant, message: &[u8]) {
        let response = BindingResponse::parse(message).expect("a binding response");
        let (_, key) = self.remote.as_ref().expect("we have asked");
        if !response.verify(key) {
            return assert!(self.may_fail, "the response is authenticated");
        }
        match response.result() {
            Ok(mapped) => assert_eq!(mapped, self.address),
            Err(_) => self.refused_checks += 1,
        }
        if self.dtls.is_none() && self.side == Side::Client {
            self.start_dtls(now);
            self.drive();
        }
    }

    fn start_dtls(&mut self, now: Instant) {
        let role = if self.side == Side::Client { DtlsRole::Client } else { DtlsRole::Server };
        let dtls = DtlsTransport::new(now, &self.identity, role, vec![fingerprint_line(self.fingerprint)]);
        self.dtls = Some(dtls.expect("DTLS starts"));
    }

    fn drive(&mut self) {
        let (Some(dtls), Some(node)) = (&mut self.dtls, self.node) else { return };
        let (outgoing, keys, closed, from) = (&mut self.outgoing, &mut self.keys, &mut self.closed, self.address);
        let (data, rewrite) = (&mut self.data, self.rewrite);
        let result = dtls.drive(&mut self.scratch, |output| match output {
            DtlsOutput::Datagram(bytes) => {
                let datagrams = rewrite(bytes.to_vec()).into_iter();
                outgoing.extend(datagrams.map(|bytes| Datagram { from, to: node, bytes }));
            }
            DtlsOutput::Connected { local, remote } => {
                *keys = Some(Keys {
                    rtp_sealer: RtpSealer::new(&local),
                    rtcp_sealer: RtcpSealer::new(&local),
                    rtp_opener: RtpOpener::new(&remote),
                    rtcp_opener: RtcpOpener::new(&remote),
                });
            }
            DtlsOutput::Data(packet) => data.push(packet.to_vec()),
            DtlsOutput::Closed => *closed = true,
        });
        assert!(result.is_ok() || self.may_fail, "the handshake succeeds: {result:?}");
    }

    fn handle_rtp(&mut self, at: Instant, packet: &mut [u8]) {
        let wire = packet.to_vec();
        let Some(keys) = &mut self.keys else { return };
        let header = RtpHeader::parse_header(packet).expect("RTP");
        let Ok(opened) = keys.rtp_opener.open(packet, header.header_len) else {
            self.undecryptable += 1;
            return;
        };
        let clear = &packet[..opened.len];
        let header = RtpHeader::parse(clear).expect("RTP in the clear");
        self.received.push(Received {
            at,
            ssrc: header.ssrc,
            payload_type: header.payload_type,
            index: opened.index,
            sequence_number: header.sequence_number,
            timestamp: header.timestamp,
            marker: header.marker,
            transport_number: header.extension(clear, TRANSPORT_CC).map(|v| u16::from_be_bytes([v[0], v[1]])),
            payload: header.payload(clear).to_vec(),
            wire,
        });
    }

    /// The packets of one VP8 frame and one of audio. The payload says which frame and packet it is.
    pub fn frame(&mut self, packets: usize, keyframe: bool) -> Vec<Datagram> {
        self.sized_frame(&vec![1000; packets], keyframe)
    }

    /// As [`Peer::frame`], with packets of these payload lengths.
    pub fn sized_frame(&mut self, sizes: &[usize], keyframe: bool) -> Vec<Datagram> {
        let timestamp = self.timestamp.wrapping_add(3000);
        let payload = |(n, len): (usize, &usize)| vp8_payload(timestamp, n, keyframe, *len);
        let mut datagrams = self.picture(&sizes.iter().enumerate().map(payload).collect::<Vec<_>>());
        datagrams.push(self.sound(&[0xfc; 100]));
        datagrams
    }

    /// The next frame of video with these payloads, the marker on the last.
    pub fn picture(&mut self, payloads: &[Vec<u8>]) -> Vec<Datagram> {
        let packets: Vec<_> = payloads.iter().map(|payload| (&[][..], payload.as_slice())).collect();
        self.described_picture(&packets)
    }

    /// As [`Peer::picture`], each payload with the header extension elements that it gets.
    pub fn described_picture(&mut self, packets: &[(Elements<'_>, &[u8])]) -> Vec<Datagram> {
        self.timestamp = self.timestamp.wrapping_add(3000);
        let mut datagrams = Vec::new();
        for (n, (elements, payload)) in packets.iter().enumerate() {
            let fields = HeaderFields {
                padding: false,
                marker: n + 1 == packets.len(),
                payload_type: VIDEO_PAYLOAD_TYPE,
                sequence_number: self.sequence,
                timestamp: self.timestamp,
                ssrc: PUBLISHER_VIDEO_SSRC,
            };
            self.sequence = self.sequence.wrapping_add(1);
            datagrams.push(self.seal(&fields, elements, payload));
        }
        datagrams
    }

    /// The next packet of audio.
    pub fn sound(&mut self, payload: &[u8]) -> Datagram {
        self.sound_as(AUDIO_PAYLOAD_TYPE, payload)
    }

    /// The next packet of audio, under another payload type than Opus has.
    pub fn sound_as(&mut self, payload_type: u8, payload: &[u8]) -> Datagram {
        let fields = HeaderFields {
            padding: false,
            marker: false,
            payload_type,
            sequence_number: self.audio_sequence,
            timestamp: u32::from(self.audio_sequence) * 960,
            ssrc: PUBLISHER_AUDIO_SSRC,
        };
        self.audio_sequence = self.audio_sequence.wrapping_add(1);
        self.seal(&fields, &[], payload)
    }

    fn seal(&mut self, fields: &HeaderFields, elements: Elements<'_>, payload: &[u8]) -> Datagram {
        // The peers of the world send fewer packets than would roll over twice.
        let roc = u32::from(fields.ssrc == PUBLISHER_VIDEO_SSRC && fields.sequence_number < 60_000);
        self.seal_with(fields, roc, elements, payload)
    }

    /// A packet with header extension elements, at a rollover counter.
    pub fn seal_with(&mut self, fields: &HeaderFields, roc: u32, elements: Elements<'_>, payload: &[u8]) -> Datagram {
        let keys = self.keys.as_ref().expect("connected");
        let mut packet = [0; 1500];
        let header = write_header(&mut packet, fields, elements).expect("room");
        let len = keys.rtp_sealer.seal(roc, &mut packet, header.header_len, payload, &[]);
        Datagram { from: self.address, to: self.node.expect("begun"), bytes: packet[..len].to_vec() }
    }

    /// Seals an RTP packet that is whole, whatever it says; `None` for what has no header.
    pub fn seal_rtp(&mut self, roc: u32, clear: &[u8]) -> Option<Datagram> {
        let header_len = RtpHeader::parse_header(clear).ok()?.header_len;
        let keys = self.keys.as_ref()?;
        let mut packet = clear.to_vec();
        packet.resize(clear.len() + 16, 0);
        let len = keys.rtp_sealer.seal_in_place(roc, &mut packet, header_len, clear.len());
        packet.truncate(len);
        Some(Datagram { from: self.address, to: self.node?, bytes: packet })
    }

    /// Seals an RTCP packet, whatever it says.
    pub fn seal_rtcp(&mut self, clear: &[u8]) -> Option<Datagram> {
        let keys = self.keys.as_mut()?;
        let mut sealed = vec![0; clear.len() + 20];
        let len = keys.rtcp_sealer.seal(clear, &mut sealed);
        sealed.truncate(len);
        Some(Datagram { from: self.address, to: self.node?, bytes: sealed })
    }

    /// Sends an SCTP packet, whatever it says.
    pub fn send_data(&mut self, packet: &[u8]) {
        if let Some(dtls) = self.dtls.as_mut().filter(|_| self.keys.is_some()) {
            // What DTLS refuses is not sent.
            let _ = dtls.send(packet);
            self.drive();
        }
    }

    /// Ends DTLS.
    pub fn close(&mut self) {
        if let Some(dtls) = &mut self.dtls {
            dtls.close();
            self.drive();
        }
    }

    /// Sends an RTCP packet.
    pub fn send_rtcp(&mut self, write: impl FnOnce(&mut RtcpWriter<'_>)) {
        let mut buffer = [0; 1200];
        let mut writer = RtcpWriter::new(&mut buffer);
        write(&mut writer);
        let keys = self.keys.as_mut().expect("connected");
        let mut sealed = [0; 1300];
        let len = keys.rtcp_sealer.seal(writer.as_bytes(), &mut sealed);
        self.emit(sealed[..len].to_vec());
    }

    /// What of one SSRC came, in order of arrival.
    pub fn received_on(&self, ssrc: u32) -> Vec<&Received> {
        self.received.iter().filter(|r| r.ssrc == ssrc).collect()
    }

    /// All that came over RTCP.
    pub fn rtcp(&self) -> impl Iterator<Item = rtcp::Packet<'_>> {
        self.reports.iter().flat_map(|report| rtcp::packets(report).filter_map(Result::ok))
    }

    /// How many PLI came.
    pub fn plis(&self) -> usize {
        let all = self.reports.iter().flat_map(|r| rtcp::packets(r).collect::<Vec<_>>());
        all.filter(|p| matches!(p, Ok(rtcp::Packet::Pli { .. }))).count()
    }

    /// The sequence numbers that the gateway asked for again.
    pub fn nacks(&self) -> Vec<u16> {
        let all = self.reports.iter().flat_map(|r| rtcp::packets(r).collect::<Vec<_>>());
        all.filter_map(|p| match p {
            Ok(rtcp::Packet::Nack { entries, .. }) => Some(entries.collect::<Vec<u16>>()),
            _ => None,
        })
        .flatten()
        .collect()
    }

    /// The gateway's ufrag for this peer.
    pub fn remote_ufrag(&self) -> String {
        self.remote_ice().ufrag
    }

    /// The gateway's credentials for this peer.
    pub fn remote_ice(&self) -> IceCredentials {
        self.remote.as_ref().expect("begun").0.clone()
    }

    pub fn emit(&mut self, bytes: Vec<u8>) {
        self.outgoing.push(Datagram { from: self.address, to: self.node.expect("begun"), bytes });
    }
}

impl Received {
    /// The value of a header extension; headers are in the clear.
    pub fn extension(&self, id: u8) -> Option<&[u8]> {
        RtpHeader::parse_header(&self.wire).expect("it was parsed before").extension(&self.wire, id)
    }
}

/// What was negotiated for the one stream of this kind.
pub fn stream_mut(negotiated: &mut Negotiated, kind: MediaKind) -> &mut StreamParameters {
    let mut streams = negotiated.sections.iter_mut().filter_map(|section| match section {
        Section::Media(media) if media.kind == kind => media.stream.as_mut(),
        _ => None,
    });
    streams.next().expect("every peer of the world has both")
}

fn fingerprint_line(digest: [u8; 32]) -> Fingerprint {
    Fingerprint { hash: FingerprintHash::Sha256, digest: digest.to_vec() }
}

/// Negotiates data channels as well.
pub fn offer_data(negotiated: &mut Negotiated) {
    let data = DataSection { mid: "2".into(), remote_sctp_port: 5000, remote_max_message_size: 65_536 };
    negotiated.sections.push(Section::Data(data));
}

/// Negotiates video in layers, told apart by rid; the SSRCs are for the gateway to learn.
pub fn offer_layers(negotiated: &mut Negotiated, rids: &[&str]) {
    let stream = stream_mut(negotiated, MediaKind::Video);
    let layer = |rid: &&str| SimulcastLayer { rid: (*rid).to_owned(), restricted_to: None, max_picture: None };
    stream.layers = rids.iter().map(layer).collect();
    stream.remote_ssrc = None;
    let ids = &mut stream.extensions;
    (ids.mid, ids.rid, ids.repaired_rid) = (Some(MID), Some(RID), Some(REPAIRED_RID));
}

/// A VP8 payload (RFC 7741 §4.2) that names its frame and place.
pub fn vp8_payload(timestamp: u32, n: usize, keyframe: bool, len: usize) -> Vec<u8> {
    let start = n == 0;
    let mut payload = vec![if start { 0x10 } else { 0x00 }, u8::from(!keyframe)];
    payload.extend(timestamp.to_be_bytes());
    payload.extend((n as u16).to_be_bytes());
    payload.resize(len, 0xaa);
    payload
}

fn negotiated(direction: MediaDirection, side: Side, fingerprint: [u8; 32]) -> Negotiated {
    let stream = |codec, payload_type, rtx, ssrc| StreamParameters {
        codec,
        payload_type,
        fmtp: String::new(),
        rtx_payload_type: rtx,
        red: None,
        parameter_sets: Vec::new(),
        feedback: Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false },
        extensions: ExtensionIds { transport_cc: Some(TRANSPORT_CC), playout_delay: Some(5), ..Default::default() },
        directed_extensions: ExtensionIds::default(),
        remote_ssrc: ssrc,
        remote_rtx_ssrc: None,
        layers: Vec::new(),
    };
    let section = |mid: &str, kind, stream| {
        Section::Media(MediaSection {
            mid: mid.to_owned(),
            kind,
            stream: Some(stream),
            fallback_format: (0, String::new()),
            reduced_size_rtcp: true,
        })
    };
    let publishes = direction == MediaDirection::Receive;
    Negotiated {
        direction,
        dtls_role: if side == Side::Client { DtlsRole::Server } else { DtlsRole::Client },
        remote_ice: IceCredentials { ufrag: UFRAG.into(), pwd: "p".repeat(24) },
        remote_fingerprints: vec![fingerprint_line(fingerprint)],
        offered_tls_id: false,
        extmap_allow_mixed: true,
        bundled: true,
        layers: false,
        sections: vec![
            section(
                "0",
                MediaKind::Audio,
                stream(Codec::Opus, AUDIO_PAYLOAD_TYPE, None, publishes.then_some(PUBLISHER_AUDIO_SSRC)),
            ),
            section(
                "1",
                MediaKind::Video,
                stream(
                    Codec::Vp8,
                    VIDEO_PAYLOAD_TYPE,
                    Some(RTX_PAYLOAD_TYPE),
                    publishes.then_some(PUBLISHER_VIDEO_SSRC),
                ),
            ),
        ],
    }
}

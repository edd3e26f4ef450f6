//! A publisher whose video comes in layers: it answers keyframe requests and NACKs as a browser does.

use std::collections::HashMap;
use std::time::Duration;

use tableside::media::HeaderFields;
use tableside::rtc::rtcp::{self, NtpTime, SenderInfo};

use super::World;
use super::peer::{MID, REPAIRED_RID, RID, RTX_PAYLOAD_TYPE, VIDEO_PAYLOAD_TYPE};

/// From frame to frame: 30 a second, in steps of virtual time.
pub const FRAME: Duration = Duration::from_millis(33);

/// Its length in ticks of the video clock, 33 ms.
pub const FRAME_TICKS: u32 = 2970;

/// The wall clock of the studio at its first frame.
pub const STUDIO_EPOCH: Duration = Duration::from_secs(1_600_000_000);

/// A simulcast sender.
pub struct Studio {
    /// Its number among the peers.
    pub peer: usize,
    /// Which layers it sends, by index.
    pub active: Vec<bool>,
    /// Whether it sends sender reports, every half second.
    pub reports: bool,
    /// By how much the clock of each layer's reports is ahead.
    pub ahead: Vec<Duration>,
    /// Whether packets carry mid, rid and repaired rid.
    pub names: bool,
    /// The width of each layer's picture is 320 times two to the power of this.
    pub sizes: Vec<u16>,
    /// Packets of a frame of each layer, 900 bytes each; a keyframe has twice as many.
    pub packets: Vec<usize>,
    layers: Vec<Layer>,
    frames: u32,
    /// RTCP compound packets that were read.
    read: usize,
}

struct Layer {
    rid: String,
    ssrc: u32,
    /// Extended numbers of the media and the RTX stream.
    next: u64,
    next_rtx: u64,
    first_timestamp: u32,
    wants_keyframe: bool,
    sent: HashMap<u16, (HeaderFields, Vec<u8>)>,
}

impl Studio {
    /// A connected publisher of layers with these rids, from small to large.
    pub fn connect(world: &mut World, rids: &[&str]) -> Self {
        let peer = world.add_simulcast_publisher(rids);
        world.connect(peer);
        let layer = |(n, rid): (usize, &&str)| Layer {
            rid: (*rid).to_owned(),
            ssrc: Self::ssrc(n),
            // They wrap soon, each at another time.
            next: 65_400 + 20 * n as u64,
            next_rtx: 7,
            first_timestamp: 4_294_000_000 + 300_000 * n as u32,
            wants_keyframe: true,
            sent: HashMap::new(),
        };
        Self {
            peer,
            active: vec![true; rids.len()],
            reports: true,
            ahead: vec![Duration::ZERO; rids.len()],
            names: true,
            sizes: (0..rids.len() as u16).collect(),
            packets: (1..=rids.len()).map(|n| 2 * n).collect(),
            layers: rids.iter().enumerate().map(layer).collect(),
            frames: 0,
            read: 0,
        }
    }

    pub fn ssrc(layer: usize) -> u32 {
        0x3333_0000 + layer as u32
    }

    /// Sends `count` frames of every active layer and sound, in real time.
    pub fn send(&mut self, world: &mut World, count: usize) {
        for _ in 0..count {
            self.hear(world);
            self.frame(world);
            world.run(FRAME);
        }
    }

    /// How many frames it has captured.
    pub fn frames_sent(&self) -> u32 {
        self.frames
    }

    /// Sends a keyframe of a layer next.
    pub fn force_keyframe(&mut self, layer: usize) {
        self.layers[layer].wants_keyframe = true;
    }

    /// The SSRC of a layer is another from now on, and its stream begins anew.
    pub fn change_ssrc(&mut self, layer: usize, ssrc: u32) {
        let changed = &mut self.layers[layer];
        (changed.ssrc, changed.next, changed.wants_keyframe) = (ssrc, 1000, true);
    }

    fn frame(&mut self, world: &mut World) {
        let peer = &mut world.peers[self.peer];
        let mut datagrams = vec![peer.sound(&[0xfc; 100])];
        for (n, layer) in self.layers.iter_mut().enumerate().filter(|(n, _)| self.active[*n]) {
            let keyframe = std::mem::take(&mut layer.wants_keyframe);
            let timestamp = layer.first_timestamp.wrapping_add(self.frames * FRAME_TICKS);
            let packets = self.packets[n] * if keyframe { 2 } else { 1 };
            for at in 0..packets {
                let fields = HeaderFields {
                    padding: false,
                    marker: at + 1 == packets,
                    payload_type: VIDEO_PAYLOAD_TYPE,
                    sequence_number: layer.next as u16,
                    timestamp,
                    ssrc: layer.ssrc,
                };
                let payload = payload(n, self.sizes[n], self.frames, at, packets, keyframe);
                let elements: [(u8, &[u8]); 2] = [(MID, b"1"), (RID, layer.rid.as_bytes())];
                let elements = if self.names { &elements[..] } else { &[] };
                datagrams.push(peer.seal_with(&fields, (layer.next >> 16) as u32, elements, &payload));
                layer.sent.insert(fields.sequence_number, (fields, payload));
                layer.next += 1;
            }
            if self.reports && self.frames.is_multiple_of(15) {
                let ntp = NtpTime::from_unix(STUDIO_EPOCH).plus(FRAME * self.frames + self.ahead[n]);
                let info = SenderInfo { ntp, rtp_timestamp: timestamp, packets: 1, octets: 1 };
                peer.send_rtcp(|w| w.sender_report(layer.ssrc, &info, &[]).unwrap());
            }
        }
        self.frames += 1;
        datagrams.into_iter().for_each(|d| world.send(d));
        world.deliver();
    }

    /// Reads what the gateway asked for: keyframes, and lost packets, which go out again on RTX.
    fn hear(&mut self, world: &mut World) {
        let peer = &world.peers[self.peer];
        let mut asked = Vec::new();
        for packet in peer.reports[self.read..].iter().flat_map(|report| rtcp::packets(report)) {
            match packet {
                Ok(rtcp::Packet::Pli { media, .. }) => {
                    self.layers.iter_mut().filter(|l| l.ssrc == media).for_each(|l| l.wants_keyframe = true);
                }
                Ok(rtcp::Packet::Nack { media, entries, .. }) => asked.extend(entries.map(|n| (media, n))),
                _ => {}
            }
        }
        self.read = peer.reports.len();
        for (ssrc, sequence_number) in asked {
            self.repeat(world, ssrc, sequence_number);
        }
    }

    fn repeat(&mut self, world: &mut World, ssrc: u32, sequence_number: u16) {
        let Some(layer) = self.layers.iter_mut().find(|layer| layer.ssrc == ssrc) else { return };
        let Some((fields, payload)) = layer.sent.get(&sequence_number) else { return };
        let repair = HeaderFields {
            payload_type: RTX_PAYLOAD_TYPE,
            sequence_number: layer.next_rtx as u16,
            ssrc: ssrc + 0x100,
            ..*fields
        };
        let payload = [&sequence_number.to_be_bytes(), &payload[..]].concat();
        let elements: [(u8, &[u8]); 2] = [(MID, b"1"), (REPAIRED_RID, layer.rid.as_bytes())];
        let elements = if self.names { &elements[..] } else { &[] };
        let datagram = world.peers[self.peer].seal_with(&repair, (layer.next_rtx >> 16) as u32, elements, &payload);
        layer.next_rtx += 1;
        world.send(datagram);
        world.deliver();
    }
}

/// What a packet of the studio says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub layer: usize,
    /// Which of the frames that the studio has captured.
    pub frame: u32,
    /// Which packet of the frame, and of how many.
    pub at: usize,
    pub of: usize,
    pub keyframe: bool,
}

impl Label {
    pub fn of(payload: &[u8]) -> Self {
        let &[_, tag, _, _, _, _, _, _, _, _, _, layer, at, of, a, b, c, d, ..] = payload else {
            panic!("{} bytes are no payload of the studio", payload.len());
        };
        let frame = u32::from_be_bytes([a, b, c, d]);
        Self { layer: layer.into(), frame, at: at.into(), of: of.into(), keyframe: tag & 1 == 0 }
    }
}

/// A VP8 payload (RFC 7741 §4.2) whose key frame says the size of its picture (RFC 6386 §9.1).
fn payload(layer: usize, size: u16, frame: u32, at: usize, of: usize, keyframe: bool) -> Vec<u8> {
    let (width, height) = ((320u16 << size).to_le_bytes(), (180u16 << size).to_le_bytes());
    let mut payload = vec![if at == 0 { 0x10 } else { 0x00 }, u8::from(!keyframe), 0, 0, 0x9d, 0x01, 0x2a];
    payload.extend(width.into_iter().chain(height));
    payload.extend([layer as u8, at as u8, of as u8]);
    payload.extend(frame.to_be_bytes());
    payload.resize(900, 0xaa);
    payload
}

//! A publisher of one encoding in three temporal layers, as Chromium sends `L1T3`.

use std::time::Duration;

use tableside::media::{Codec, MediaKind};

use super::bits::Bits;
use super::peer::{Elements, stream_mut};
use super::{Side, World};

/// From frame to frame: 30 a second, in steps of virtual time.
pub const FRAME: Duration = Duration::from_millis(33);

/// Of the publisher's dependency descriptors.
const PUBLISHED: u8 = 12;

/// The temporal layers of frames, over and over.
const PATTERN: [u8; 4] = [0, 2, 1, 2];

/// How the publisher says which layer a frame is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// By VP8's own descriptor, with picture ids.
    Vp8,
    /// By VP9's own descriptor, which says where who has fewer may have more again.
    Vp9,
    /// By dependency descriptors alone: Chromium leaves all of that out of VP8's then.
    DependencyDescriptor,
    /// Likewise, but that the two halves of a frame are of two layers, as spatial layers can be.
    Mixed,
    /// Not at all, as there are none.
    None,
}

/// See the module.
pub struct Layered {
    pub peer: usize,
    /// Packets of a frame of each temporal layer, 1000 bytes each.
    pub packets: [usize; 3],
    /// Of a keyframe, if other than of a frame of the base layer.
    pub keyframe_packets: Option<usize>,
    /// From keyframe to keyframe, if nobody asks for one.
    pub group: u32,
    /// There are frames of upper layers that let in who has the layer below.
    pub syncs: bool,
    means: Means,
    frames: u32,
    /// When the last keyframe was sent, and how many PLI had come.
    keyframe: u32,
    plis: usize,
}

impl Layered {
    /// A connected publisher of some 2.1 Mbit/s, of which the base layer takes 40 % and the middle one 20 %.
    pub fn connect(world: &mut World, means: Means) -> Self {
        let peer = world.add_publisher_with(Side::Client, |negotiated| {
            let stream = stream_mut(negotiated, MediaKind::Video);
            match means {
                Means::DependencyDescriptor | Means::Mixed => {
                    stream.extensions.dependency_descriptor = Some(PUBLISHED);
                }
                Means::Vp9 => stream.codec = Codec::Vp9,
                Means::Vp8 | Means::None => {}
            }
        });
        world.connect(peer);
        Self {
            peer,
            packets: [14, 7, 7],
            keyframe_packets: None,
            group: u32::MAX,
            syncs: true,
            means,
            frames: 0,
            keyframe: 0,
            plis: 0,
        }
    }

    /// How many frames it has sent.
    pub fn frames_sent(&self) -> u32 {
        self.frames
    }

    /// Sends so many frames and sound, in real time. A PLI is answered with a keyframe.
    pub fn send(&mut self, world: &mut World, count: usize) {
        for _ in 0..count {
            for datagram in self.frame(world) {
                world.send(datagram);
            }
            world.deliver();
            world.run(FRAME);
        }
    }

    /// The datagrams of the next frame.
    pub fn frame(&mut self, world: &mut World) -> Vec<super::Datagram> {
        let plis = world.peers[self.peer].plis();
        let is_asked = std::mem::replace(&mut self.plis, plis) != plis;
        let keyframe = self.frames == 0 || is_asked || self.frames - self.keyframe >= self.group;
        if keyframe {
            self.keyframe = self.frames;
        }
        let nth = self.frames - self.keyframe;
        let layer = PATTERN[nth as usize % PATTERN.len()];
        // The first frames of the upper layers of every eight refer to the base layer alone.
        let sync = layer > 0 && nth % 8 < 3 && self.syncs;
        let packets = self.keyframe_packets.filter(|_| keyframe).unwrap_or(self.packets[usize::from(layer)]);
        let payloads: Vec<Vec<u8>> = (0..packets).map(|at| self.payload(layer, sync, keyframe, at, packets)).collect();
        let values: Vec<Vec<u8>> = (0..packets).map(|at| self.descriptor(layer, keyframe, at, packets)).collect();
        let elements: Vec<[(u8, &[u8]); 1]> = values.iter().map(|value| [(PUBLISHED, &value[..])]).collect();
        let described: Vec<(Elements<'_>, &[u8])> = match self.means {
            Means::Vp8 | Means::Vp9 | Means::None => payloads.iter().map(|payload| (&[][..], &payload[..])).collect(),
            Means::DependencyDescriptor | Means::Mixed => {
                elements.iter().map(|e| &e[..]).zip(payloads.iter().map(|p| &p[..])).collect()
            }
        };
        let publisher = &mut world.peers[self.peer];
        let mut datagrams = publisher.described_picture(&described);
        datagrams.push(publisher.sound(&[0xfc; 100]));
        self.frames += 1;
        datagrams
    }

    fn payload(&self, layer: u8, sync: bool, keyframe: bool, at: usize, of: usize) -> Vec<u8> {
        let first = if at == 0 { 0x10 } else { 0x00 };
        let base_frames = (self.frames / 4) as u8;
        let id = ((self.frames as u16).wrapping_add(32_700) | 0x8000).to_be_bytes();
        let mut payload = match self.means {
            Means::Vp9 => {
                let bounds = if at == 0 { 0x08 } else { 0 } | if at + 1 == of { 0x04 } else { 0 };
                let predicted = if keyframe { 0 } else { 0x40 };
                let switches_up = if layer == 0 { 0x10 } else { 0 };
                vec![0xa0 | predicted | bounds, id[0], id[1], layer << 5 | switches_up, base_frames]
            }
            Means::Vp8 => {
                vec![first | 0x80, 0xe0, id[0], id[1], base_frames, layer << 6 | if sync { 0x20 } else { 0 }]
            }
            Means::DependencyDescriptor | Means::Mixed | Means::None => vec![first],
        };
        payload.push(match self.means {
            Means::Vp9 if keyframe => 0x82,
            Means::Vp9 => 0x86,
            _ => u8::from(!keyframe),
        });
        payload.extend(self.frames.to_be_bytes());
        payload.extend([layer, u8::from(sync), u8::from(keyframe), at as u8, of as u8]);
        payload.resize(1000, 0xaa);
        payload
    }

    /// Chromium's structure for L1T3 (RTP Payload Format For AV1, Appendix A).
    fn descriptor(&self, layer: u8, keyframe: bool, at: usize, of: usize) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.put(u64::from(at == 0), 1).put(u64::from(at + 1 == of), 1);
        let is_other = self.means == Means::Mixed && at >= of / 2;
        let template = match layer {
            _ if keyframe => 0,
            _ if is_other => 1,
            _ => 1 + u64::from(layer),
        };
        bits.put(template, 6).put(u64::from(self.frames as u16), 16);
        if keyframe && at == 0 {
            // A structure follows: templates from 0 on, three decode targets.
            bits.put(0b1_0000, 5).put(0, 6).put(2, 5);
            // Four templates: of the base layer two, then one each.
            bits.put(0, 2).put(1, 2).put(1, 2).put(3, 2);
            // What they are to each target: 0 not there, 1 discardable, 2 a switch.
            for indications in [[2, 2, 2], [2, 2, 2], [0, 1, 2], [0, 0, 1]] {
                indications.into_iter().for_each(|indication| {
                    bits.put(indication, 2);
                });
            }
            for distance in [None, Some(4), Some(2), Some(1)] {
                if let Some(distance) = distance {
                    bits.put(1, 1).put(distance - 1, 4);
                }
                bits.put(0, 1);
            }
            // No chains: one of four values. No resolutions.
            bits.put(0, 2).put(0, 1);
        }
        bits.bytes()
    }
}

/// What a packet of the publisher says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    pub frame: u32,
    pub layer: u8,
    pub sync: bool,
    pub keyframe: bool,
    pub at: u8,
    pub of: u8,
    /// As the player has it.
    pub picture_id: Option<u16>,
    /// Likewise, TL0PICIDX.
    pub base_frame: Option<u8>,
}

impl Layer {
    /// Of a payload that a player got; `None` of one with nothing in it.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let &first = payload.first()?;
        let has_id = first & 0x80 != 0;
        // VP9's L: VP8 has N in its place, which is not set.
        let is_vp9 = first & 0x20 != 0;
        let said = &payload[if is_vp9 {
            6
        } else if has_id {
            7
        } else {
            2
        }..];
        let &[a, b, c, d, layer, sync, keyframe, at, of, ..] = said else { return None };
        let id = if is_vp9 { &payload[1..3] } else { &payload[2..4] };
        let picture_id = has_id.then(|| u16::from_be_bytes([id[0] & 0x7f, id[1]]));
        let base_frame = has_id.then(|| payload[4]);
        let (sync, keyframe) = (sync == 1, keyframe == 1);
        Some(Self { frame: u32::from_be_bytes([a, b, c, d]), layer, sync, keyframe, at, of, picture_id, base_frame })
    }
}

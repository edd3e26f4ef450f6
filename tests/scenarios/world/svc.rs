//! A publisher of one encoding in several spatial layers, and who checks that a player can decode what it is given of that.
//!
//! What refers to what is written into the payloads beside what the descriptors say, so that the checker goes by none of these.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tableside::media::{Codec, MediaKind};

use super::bits::Bits;
use super::peer::{Elements, Received, stream_mut};
use super::{Datagram, Side, VIDEO_RTX_SSRC, VIDEO_SSRC, World};

/// From picture to picture: 30 a second, in steps of virtual time.
pub const PICTURE: Duration = Duration::from_millis(33);

/// Of the publisher's dependency descriptors.
const PUBLISHED: u8 = 12;

/// Bytes of a packet's payload, at the end of which its label stands.
const PAYLOAD: usize = 1000;

/// By the names of the W3C's scalability modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    L3T3,
    L3T3Key,
    S2T1,
    S3T3,
    L2T2KeyShift,
}

impl Mode {
    pub fn spatial_layers(self) -> u8 {
        if matches!(self, Mode::S2T1 | Mode::L2T2KeyShift) { 2 } else { 3 }
    }

    fn temporal_layers(self) -> u8 {
        match self {
            Mode::L3T3 | Mode::L3T3Key | Mode::S3T3 => 3,
            Mode::S2T1 => 1,
            Mode::L2T2KeyShift => 2,
        }
    }

    /// The temporal layer of a frame, and how many pictures before it is the one of its own layer that it refers to.
    fn in_time(self, nth: u32, spatial: u8) -> (u8, Option<u8>) {
        let (temporal, distance) = match (self.temporal_layers(), nth % 4) {
            _ if nth == 0 => return (0, None),
            (1, _) => (0, 1),
            (2, at) if (at % 2 == 1) != (spatial == 1) => (1, 1),
            (2, _) => (0, if nth == 1 { 1 } else { 2 }),
            (_, 0) => (0, 4),
            (_, 2) => (1, 2),
            _ => (2, 1),
        };
        (temporal, Some(distance))
    }

    /// Whether a frame refers to the one below it in its picture.
    fn is_inter_layer(self, nth: u32, spatial: u8) -> bool {
        let has = match self {
            Mode::L3T3 => true,
            Mode::L3T3Key | Mode::L2T2KeyShift => nth == 0,
            Mode::S2T1 | Mode::S3T3 => false,
        };
        has && spatial > 0
    }

    /// What a frame is to the decode target of these layers, as table A.2 counts.
    fn indication(self, frame: &Template, target: (u8, u8)) -> u64 {
        let is_part = match self {
            Mode::L3T3 => frame.spatial <= target.0,
            Mode::L3T3Key | Mode::L2T2KeyShift => frame.spatial == target.0 || frame.is_key && frame.spatial < target.0,
            Mode::S2T1 | Mode::S3T3 => frame.spatial == target.0,
        };
        match frame.temporal {
            _ if !is_part || frame.temporal > target.1 => 0,
            _ if frame.is_key => 2,
            _ if frame.spatial < target.0 => 3,
            0 => 2,
            temporal if temporal < target.1 => 2,
            _ => 1,
        }
    }

    /// Every kind of frame that there is, in the order of layers.
    fn templates(self) -> Vec<Template> {
        let frames =
            (0..8).flat_map(|nth| (0..self.spatial_layers()).map(move |spatial| Template::of(self, nth, spatial)));
        let all: BTreeSet<Template> = frames.collect();
        all.into_iter().collect()
    }
}

/// A kind of frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Template {
    spatial: u8,
    temporal: u8,
    is_key: bool,
    /// How many frames before.
    references: Vec<u64>,
}

impl Template {
    fn of(mode: Mode, nth: u32, spatial: u8) -> Self {
        let (temporal, distance) = mode.in_time(nth, spatial);
        let below = mode.is_inter_layer(nth, spatial).then_some(1);
        let own = distance.map(|distance| u64::from(distance) * u64::from(mode.spatial_layers()));
        Self { spatial, temporal, is_key: nth == 0, references: own.into_iter().chain(below).collect() }
    }
}

/// See the module.
pub struct Svc {
    pub peer: usize,
    pub mode: Mode,
    codec: Codec,
    /// Packets of a frame of each spatial layer.
    packets: [usize; 3],
    pictures: u32,
    /// When the last key picture was sent, and how many PLI had come.
    key: u32,
    plis: usize,
}

impl Svc {
    /// A connected publisher of some 240 kbit/s for the least spatial layer, as much again for the next, and 720 kbit/s for a third. VP9
    /// says what is what by its own descriptor, AV1 by dependency descriptors.
    pub fn connect(world: &mut World, mode: Mode, codec: Codec) -> Self {
        let peer = world.add_publisher_with(Side::Client, |negotiated| {
            let stream = stream_mut(negotiated, MediaKind::Video);
            stream.codec = codec;
            stream.extensions.dependency_descriptor = (codec == Codec::Av1).then_some(PUBLISHED);
        });
        world.connect(peer);
        Self { peer, mode, codec, packets: [1, 2, 4], pictures: 0, key: 0, plis: 0 }
    }

    pub fn pictures_sent(&self) -> u32 {
        self.pictures
    }

    /// Sends so many pictures and sound, in real time. A PLI is answered with a key picture.
    pub fn send(&mut self, world: &mut World, count: usize) {
        for _ in 0..count {
            for datagram in self.picture(world) {
                world.send(datagram);
            }
            world.deliver();
            world.run(PICTURE);
        }
    }

    /// The datagrams of the next picture.
    pub fn picture(&mut self, world: &mut World) -> Vec<Datagram> {
        let plis = world.peers[self.peer].plis();
        if self.pictures == 0 || std::mem::replace(&mut self.plis, plis) != plis {
            self.key = self.pictures;
        }
        let (mut values, mut payloads) = (Vec::new(), Vec::new());
        for spatial in 0..self.mode.spatial_layers() {
            let of = self.packets[usize::from(spatial)];
            values.extend((0..of).map(|at| self.descriptor(spatial, at, of)));
            payloads.extend((0..of).map(|at| self.payload(spatial, at, of)));
        }
        let elements: Vec<[(u8, &[u8]); 1]> = values.iter().map(|value| [(PUBLISHED, &value[..])]).collect();
        let elements = elements.iter().map(|elements| if self.codec == Codec::Av1 { &elements[..] } else { &[][..] });
        let described: Vec<(Elements<'_>, &[u8])> = elements.zip(payloads.iter().map(|p| &p[..])).collect();
        let publisher = &mut world.peers[self.peer];
        let mut datagrams = publisher.described_picture(&described);
        datagrams.push(publisher.sound(&[0xfc; 100]));
        self.pictures += 1;
        datagrams
    }

    fn nth(&self) -> u32 {
        self.pictures - self.key
    }

    fn payload(&self, spatial: u8, at: usize, of: usize) -> Vec<u8> {
        let template = Template::of(self.mode, self.nth(), spatial);
        let (temporal, distance) = self.mode.in_time(self.nth(), spatial);
        let is_inter_layer = self.mode.is_inter_layer(self.nth(), spatial);
        let mut payload = match self.codec {
            Codec::Vp9 => {
                let id = (self.pictures as u16 | 0x8000).to_be_bytes();
                let bounds = if at == 0 { 0x08 } else { 0 } | if at + 1 == of { 0x04 } else { 0 };
                let predicted = if distance.is_some() { 0x40 } else { 0 };
                let switches_up = if temporal == 0 { 0x10 } else { 0 };
                let layers = temporal << 5 | switches_up | spatial << 1 | u8::from(is_inter_layer);
                let is_key_frame = template.is_key && (spatial == 0 || !is_inter_layer);
                let header = if is_key_frame { 0x82 } else { 0x86 };
                vec![0xa0 | predicted | bounds, id[0], id[1], layers, (self.pictures / 4) as u8, header]
            }
            // A part of an OBU; the first of a coded video sequence behind its sequence header.
            _ if at > 0 => vec![0x90],
            _ if template.is_key && !is_inter_layer => vec![0x28, 3, 0x08, 0, 0, 0x34, temporal << 5 | spatial << 3],
            _ => vec![0x10, 0x34, temporal << 5 | spatial << 3],
        };
        payload.resize(PAYLOAD - Label::LEN, 0xaa);
        let label = Label {
            picture: self.pictures,
            spatial,
            temporal,
            is_key: template.is_key,
            distance: distance.unwrap_or(0),
            is_inter_layer,
            at: at as u8,
            of: of as u8,
            layers: self.mode.spatial_layers(),
        };
        payload.extend(label.bytes());
        payload
    }

    /// RTP Payload Format For AV1, Appendix A.
    fn descriptor(&self, spatial: u8, at: usize, of: usize) -> Vec<u8> {
        let templates = self.mode.templates();
        let template = Template::of(self.mode, self.nth(), spatial);
        let id = templates.iter().position(|other| *other == template).expect("one of them");
        let number = self.pictures * u32::from(self.mode.spatial_layers()) + u32::from(spatial);
        let mut bits = Bits::default();
        bits.put(u64::from(at == 0), 1).put(u64::from(at + 1 == of), 1).put(id as u64, 6);
        bits.put(u64::from(number as u16), 16);
        let has_structure = template.is_key && at == 0 && !self.mode.is_inter_layer(self.nth(), spatial);
        if has_structure {
            self.structure(&templates, &mut bits);
        }
        bits.bytes()
    }

    fn structure(&self, templates: &[Template], bits: &mut Bits) {
        let temporal = self.mode.temporal_layers();
        let spatial = self.mode.spatial_layers();
        let targets: Vec<(u8, u8)> = (0..spatial).flat_map(|s| (0..temporal).map(move |t| (s, t))).collect();
        bits.put(0b1_0000, 5).put(0, 6).put(targets.len() as u64 - 1, 5);
        for pair in templates.windows(2) {
            let is_spatial = pair[1].spatial > pair[0].spatial;
            bits.put(if is_spatial { 2 } else { u64::from(pair[1].temporal > pair[0].temporal) }, 2);
        }
        bits.put(3, 2);
        for template in templates {
            for target in &targets {
                bits.put(self.mode.indication(template, *target), 2);
            }
        }
        for template in templates {
            for distance in &template.references {
                bits.put(1, 1).put(distance - 1, 4);
            }
            bits.put(0, 1);
        }
        // No chains, as one of so many values and one more: as many bits as that takes, less one where it is short. No resolutions.
        let width = u64::BITS - (targets.len() as u64 + 1).leading_zeros();
        bits.put(0, width - 1).put(0, 1);
    }
}

/// What a packet of the publisher says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub picture: u32,
    pub spatial: u8,
    pub temporal: u8,
    pub is_key: bool,
    /// How many pictures before is the one whose frame of the same spatial layer it refers to; 0 for none.
    distance: u8,
    /// It refers to the frame below it.
    is_inter_layer: bool,
    at: u8,
    of: u8,
    /// How many spatial layers there are.
    layers: u8,
}

impl Label {
    const LEN: usize = 12;

    fn bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.picture.to_be_bytes();
        let (key, below) = (u8::from(self.is_key), u8::from(self.is_inter_layer));
        [a, b, c, d, self.spatial, self.temporal, key, self.distance, below, self.at, self.of, self.layers]
    }

    /// Of a payload that a player got; `None` of one with nothing in it.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let &[a, b, c, d, spatial, temporal, key, distance, below, at, of, layers] = payload.last_chunk()?;
        let (is_key, is_inter_layer) = (key == 1, below == 1);
        let picture = u32::from_be_bytes([a, b, c, d]);
        Some(Self { picture, spatial, temporal, is_key, distance, is_inter_layer, at, of, layers })
    }
}

/// Whether a packet that a player got says of its frame that it refers to the one below it: by VP9's D, or by the dependency descriptor of the
/// first packet of a frame that refers to it always, as its template says, or in this picture. `None` where it says nothing.
pub fn refers_to_lower(packet: &Received, codec: Codec, played: u8) -> Option<bool> {
    let label = Label::of(&packet.payload)?;
    if codec == Codec::Vp9 {
        return Some(packet.payload[3] & 1 == 1);
    }
    if label.at > 0 {
        return None;
    }
    let value = packet.extension(played)?;
    let mut bits = value.iter().flat_map(|byte| (0..8).rev().map(move |bit| u64::from(byte >> bit & 1))).skip(24);
    let mut take = |count: u64| (0..count).fold(0, |value, _| value << 1 | bits.next().expect("cut off"));
    // Of custom fields there are references alone.
    if value.len() == 3 || take(5) != 0b0_0010 {
        return Some(label.is_inter_layer);
    }
    let mut distances = Vec::new();
    loop {
        match take(2) {
            0 => break,
            size => distances.push(take(4 * size) + 1),
        }
    }
    let own = u64::from(label.distance) * u64::from(label.layers);
    assert_eq!(distances, [own, 1], "{label:?}");
    Some(true)
}

/// What a player has under one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Had {
    pub label: Option<Label>,
    pub marker: bool,
}

/// What a player has got, repairs included.
#[derive(Debug, Default)]
pub struct Viewer {
    taken: usize,
    /// By extended sequence number.
    pub got: BTreeMap<u64, Had>,
    pub repaired: usize,
}

/// A picture as a player has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub picture: u32,
    /// Of its frames, the highest.
    pub spatial: u8,
    pub temporal: u8,
    pub is_key: bool,
}

impl Viewer {
    /// Takes what has come to `peer`. A repetition says what the packet said.
    pub fn take(&mut self, world: &World, peer: usize) {
        let received: &[Received] = &world.peers[peer].received;
        for packet in &received[self.taken..] {
            match packet.ssrc {
                VIDEO_SSRC => {
                    let had = Had { label: Label::of(&packet.payload), marker: packet.marker };
                    let before = self.got.insert(packet.index, had);
                    assert_eq!(before.unwrap_or(had), had, "{} came otherwise on RTX", packet.index);
                }
                VIDEO_RTX_SSRC => {
                    let original = u16::from_be_bytes([packet.payload[0], packet.payload[1]]);
                    let newest = self.got.keys().next_back().copied().unwrap_or(0);
                    let number = newest.wrapping_add_signed(i64::from(original.wrapping_sub(newest as u16) as i16));
                    let had = Had { label: Label::of(&packet.payload[2..]), marker: packet.marker };
                    let before = self.got.insert(number, had);
                    assert_eq!(before.unwrap_or(had), had, "{number} is another on RTX");
                    self.repaired += usize::from(before.is_none());
                }
                _ => {}
            }
        }
        self.taken = received.len();
    }

    /// The numbers that have not come, from the first to the last that has.
    pub fn missing(&self) -> Vec<u64> {
        let (Some((first, _)), Some((last, _))) = (self.got.first_key_value(), self.got.last_key_value()) else {
            return Vec::new();
        };
        (*first..*last).filter(|number| !self.got.contains_key(number)).collect()
    }

    /// The pictures in the order of their numbers, of which each is whole and can be decoded: all numbers have come, each frame has
    /// all of its packets and what it refers to, each picture all frames below its highest, and the marker on its last packet.
    ///
    /// # Panics
    /// If it is not so. The last picture may still be on its way.
    pub fn pictures(&self) -> Vec<Shown> {
        assert_eq!(self.missing(), [0; 0], "a number without a packet");
        let packets: Vec<(Label, bool)> = self.got.values().filter_map(|had| Some((had.label?, had.marker))).collect();
        assert!(self.got.values().all(|had| had.label.is_some() || !had.marker), "what has nothing in it ends nothing");
        let mut all: Vec<&[(Label, bool)]> = packets.chunk_by(|a, b| a.0.picture == b.0.picture).collect();
        if all.last().is_some_and(|last| last.last().is_some_and(|packet| !packet.1)) {
            all.pop();
        }
        let (mut decoded, mut shown) = (BTreeSet::new(), Vec::<Shown>::new());
        for picture in all {
            let (last, others) = picture.split_last().expect("a chunk has some");
            let at = last.0.picture;
            assert!(shown.last().is_none_or(|before| before.picture < at), "{at} is torn: {picture:?}");
            assert!(last.1 && others.iter().all(|packet| !packet.1), "the end of {at}: {picture:?}");
            let frames: Vec<&[(Label, bool)]> = picture.chunk_by(|a, b| a.0.spatial == b.0.spatial).collect();
            for (spatial, frame) in frames.iter().enumerate() {
                let label = frame[0].0;
                assert_eq!(usize::from(label.spatial), spatial, "a frame of {at} is missing: {picture:?}");
                let expected = (0..frame.len()).map(|at| Label { at: at as u8, ..label });
                assert!(frame.iter().map(|packet| packet.0).eq(expected), "{at} is torn: {picture:?}");
                assert_eq!(frame.len(), usize::from(label.of), "{at} is torn: {picture:?}");
                let has = |picture: u32, spatial: u8| decoded.contains(&(picture, spatial));
                assert!(
                    label.distance == 0 || has(at - u32::from(label.distance), label.spatial),
                    "no reference: {label:?}"
                );
                assert!(!label.is_inter_layer || has(at, label.spatial - 1), "nothing below: {label:?}");
                decoded.insert((at, label.spatial));
            }
            let Label { spatial, temporal, is_key, .. } = last.0;
            shown.push(Shown { picture: at, spatial, temporal, is_key });
        }
        shown
    }
}

//! What a dependency descriptor says of layers (RTP Payload Format For AV1, Appendix A).
//!
//! A structure comes with the first packet of a coded video sequence: templates, of which each frame names one. Of that is
//! read which layers a frame is of, and whether it lets in who lacked some of them.

mod reference;

use super::codec::{Climb, PayloadFacts, SPATIAL_LAYERS};

/// Appendix A: template ids have six bits, and decode targets are counted in five.
const MOST_TEMPLATES: usize = 64;
const MOST_TARGETS: usize = 32;

/// `MAX_SPATIAL_ID` and `MAX_TEMPORAL_ID`.
const MAX_SPATIAL_ID: u8 = 3;
const MAX_TEMPORAL_ID: u8 = 7;

/// Frames that a template refers to: encoders have one to three. One that refers to more is taken to refer to something unknown.
const MOST_REFERENCES: usize = 8;

/// Frames whose temporal layer is remembered.
const REMEMBERED: usize = 64;

/// Decode target indications (table A.2) that matter here.
const NOT_PRESENT: u64 = 0;
const SWITCH: u64 = 2;

/// What a descriptor says of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// `FrameTemporalId`
    pub temporal_layer: u8,
    /// `FrameSpatialId`
    pub spatial_layer: u8,
    /// `start_of_frame`: "MUST be set to 1 if the first payload byte of the RTP packet is the beginning of a new frame".
    pub begins_layer_frame: bool,
    /// `end_of_frame`: "MUST be set to 1 for the final RTP packet of a frame", more of the same temporal unit may follow.
    pub ends_layer_frame: bool,
    /// See [`PayloadFacts::climb`].
    pub climb: Option<Climb>,
    /// See [`PayloadFacts::spatial_switch`].
    pub spatial_switch: u8,
}

impl Described {
    /// What the payload says, with what this says instead.
    pub fn correct(self, facts: PayloadFacts) -> PayloadFacts {
        PayloadFacts {
            temporal_layer: Some(self.temporal_layer),
            spatial_layer: Some(self.spatial_layer),
            ends_layer_frame: self.ends_layer_frame,
            climb: self.climb,
            spatial_switch: self.spatial_switch,
            ..facts
        }
    }
}

/// Reads the descriptors of one stream.
///
/// A publisher writes them, so nothing in them is believed but within bounds; what makes no sense says nothing. Nothing is
/// allocated after the first structure.
#[derive(Clone, Debug, Default)]
pub struct DescriptorReader {
    epoch: u32,
    known: Option<Box<Known>>,
    /// What is known does not hold any more.
    is_over: bool,
}

#[derive(Clone, Debug)]
struct Known {
    structure: Structure,
    /// The frame number, and whether it is of the base layer in time, of each frame at its number modulo [`REMEMBERED`].
    recent: [Option<(u16, bool)>; REMEMBERED],
    /// The frames of a picture are numbered one after the other, by the last that was looked at.
    are_numbered_on: bool,
}

/// `template_dependency_structure`
#[derive(Clone, Debug)]
struct Structure {
    id_offset: u8,
    targets: u8,
    templates: [Template; MOST_TEMPLATES],
    count: u8,
    /// The spatial and temporal layer of each decode target.
    layers: [(u8, u8); MOST_TARGETS],
    max_spatial: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Template {
    temporal: u8,
    spatial: u8,
    /// Two bits a decode target, the first in the lowest.
    indications: u64,
    references: References,
}

/// How many frames before its own those are that a frame refers to.
#[derive(Clone, Copy, Debug, Default)]
struct References {
    distances: [u16; MOST_REFERENCES],
    count: u8,
    /// There are more.
    is_cut: bool,
}

impl References {
    fn push(&mut self, distance: u16) {
        match self.distances.get_mut(usize::from(self.count)) {
            Some(place) => {
                *place = distance;
                self.count += 1;
            }
            None => self.is_cut = true,
        }
    }

    /// `frame_fdiffs`
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let mut references = Self::default();
        loop {
            match bits.take(2)? as u32 {
                0 => return Some(references),
                size => references.push(bits.take(4 * size)? as u16 + 1),
            }
        }
    }
}

impl DescriptorReader {
    /// Reads the value of a descriptor; `None` where it makes no sense, or no structure for it has come. `epoch` is that of the
    /// source: another one has another structure.
    pub fn read(&mut self, epoch: u32, value: &[u8]) -> Option<Described> {
        self.is_over |= std::mem::replace(&mut self.epoch, epoch) != epoch;
        let mut bits = Bits::new(value);
        // mandatory_descriptor_fields: start_of_frame, end_of_frame, frame_dependency_template_id, frame_number
        let (begins_layer_frame, ends_layer_frame) = (bits.take(1)? == 1, bits.take(1)? == 1);
        let template_id = bits.take(6)? as u8;
        let number = bits.take(16)? as u16;
        // "if (sz > 3)": extended_descriptor_fields
        let flags = if value.len() > 3 { bits.take(5)? } else { 0 };
        let has = |flag: u64| flags & flag != 0;
        if has(flag::STRUCTURE) {
            let structure = Structure::read(&mut bits);
            let Some(structure) = structure else {
                // What comes now is by a structure that nobody knows.
                self.is_over = true;
                return None;
            };
            self.is_over = false;
            match &mut self.known {
                Some(known) => {
                    known.structure = structure;
                    known.recent = [None; REMEMBERED];
                }
                None => {
                    let known = Known { structure, recent: [None; REMEMBERED], are_numbered_on: false };
                    self.known = Some(Box::new(known));
                }
            }
        }
        let known = self.known.as_mut().filter(|_| !self.is_over)?;
        if has(flag::ACTIVE_TARGETS) {
            bits.take(u32::from(known.structure.targets))?;
        }
        let custom = (has(flag::CUSTOM_INDICATIONS), has(flag::CUSTOM_REFERENCES));
        Some(Described { begins_layer_frame, ends_layer_frame, ..known.frame(&mut bits, template_id, number, custom)? })
    }
}

/// The first bits of extended_descriptor_fields, in their order from 16 down.
mod flag {
    pub const STRUCTURE: u64 = 0x10;
    pub const ACTIVE_TARGETS: u64 = 0x08;
    pub const CUSTOM_INDICATIONS: u64 = 0x04;
    pub const CUSTOM_REFERENCES: u64 = 0x02;
    pub const CUSTOM_CHAINS: u64 = 0x01;
}

impl Known {
    /// `frame_dependency_definition`, up to the chains, which nobody asks for.
    fn frame(
        &mut self,
        bits: &mut Bits<'_>,
        template_id: u8,
        number: u16,
        (custom_indications, custom_references): (bool, bool),
    ) -> Option<Described> {
        let structure = &self.structure;
        let mut template = *structure.template(template_id)?;
        if custom_indications {
            template.indications = read_indications(bits, structure.targets)?;
        }
        if custom_references {
            template.references = References::read(bits)?;
        }
        self.recent[usize::from(number) % REMEMBERED] = Some((number, template.temporal == 0));
        Some(Described {
            temporal_layer: template.temporal,
            spatial_layer: template.spatial,
            begins_layer_frame: false,
            ends_layer_frame: false,
            climb: self.climb(&template, number),
            spatial_switch: self.structure.spatial_switch(&template),
        })
    }

    /// Whether a packet of the frame with this number has come, lately.
    fn has_seen(&self, number: u16) -> bool {
        self.recent[usize::from(number) % REMEMBERED].is_some_and(|(seen, _)| seen == number)
    }

    /// "Switch indication: An indication associated with a specific Decode target that all subsequent frames for that Decode
    /// target will be decodable if the frame containing the indication is decodable."
    ///
    /// It is decodable for who has its layer, or, if it refers to the base layer alone, for everybody.
    fn climb(&self, template: &Template, number: u16) -> Option<Climb> {
        let reaches = self.structure.reached(template);
        reaches.iter().flatten().next()?;
        let references = &template.references;
        let is_base = |distance: &u16| {
            let referred = number.wrapping_sub(*distance);
            self.recent[usize::from(referred) % REMEMBERED] == Some((referred, true))
        };
        let from_base = !references.is_cut && references.distances[..usize::from(references.count)].iter().all(is_base);
        Some(Climb { needs: if from_base { 0 } else { template.temporal }, reaches })
    }
}

impl Structure {
    /// The template that a frame names.
    fn template(&self, id: u8) -> Option<&Template> {
        let index = (id + MOST_TEMPLATES as u8 - self.id_offset) % MOST_TEMPLATES as u8;
        self.templates[..usize::from(self.count)].get(usize::from(index))
    }

    /// The decode targets whose highest spatial layer is this one, each with its temporal layer and what the frame is to it. Above
    /// all that there are, those of the highest.
    fn targets_of(&self, spatial: u8, template: &Template) -> impl Iterator<Item = (u8, u64)> {
        let layers = self.layers[..usize::from(self.targets)].iter().enumerate();
        let (spatial, indications) = (spatial.min(self.max_spatial), template.indications);
        layers
            .filter(move |(_, layers)| layers.0 == spatial)
            .map(move |(at, layers)| (layers.1, indications >> (2 * at) & 3))
    }

    /// The highest temporal layer that the frame is a switch to, by the highest spatial layer.
    fn reached(&self, template: &Template) -> [Option<u8>; SPATIAL_LAYERS] {
        std::array::from_fn(|spatial| {
            let targets = self.targets_of(spatial as u8, template);
            targets.filter(|(_, indication)| *indication == SWITCH).map(|(temporal, _)| temporal).max()
        })
    }

    /// The spatial layers to all of whose decode targets the frame is a switch: whoever has the frame can go up to them.
    fn spatial_switch(&self, template: &Template) -> u8 {
        let is_switch = |spatial: &u8| {
            let mut targets = self.targets_of(*spatial, template).peekable();
            targets.peek().is_some() && targets.all(|(_, indication)| indication == SWITCH)
        };
        (0..u8::BITS as u8).filter(is_switch).fold(0, |switch, spatial| switch | 1 << spatial)
    }

    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let id_offset = bits.take(6)? as u8;
        let targets = bits.take(5)? as u8 + 1;
        let mut templates = [Template::default(); MOST_TEMPLATES];
        let count = read_layers(bits, &mut templates)?;
        let used = &mut templates[..count];
        for template in used.iter_mut() {
            template.indications = read_indications(bits, targets)?;
        }
        for template in used.iter_mut() {
            while bits.take(1)? == 1 {
                template.references.push(bits.take(4)? as u16 + 1);
            }
        }
        skip_chains(bits, targets, count)?;
        let max_spatial = used.iter().map(|template| template.spatial).max()?;
        if bits.take(1)? == 1 {
            for _ in 0..=max_spatial {
                bits.take(32)?;
            }
        }
        // decode_target_layers: a target has the highest layers of the frames that are in it.
        let mut layers = [(0, 0); MOST_TARGETS];
        for (at, layers) in layers.iter_mut().enumerate().take(usize::from(targets)) {
            let within = || used.iter().filter(|template| template.indications >> (2 * at) & 3 != NOT_PRESENT);
            let highest = |of: fn(&Template) -> u8| within().map(of).max().unwrap_or(0);
            *layers = (highest(|template| template.spatial), highest(|template| template.temporal));
        }
        Some(Self { id_offset, targets, templates, count: count as u8, layers, max_spatial })
    }
}

/// `template_layers`: how many templates there are.
fn read_layers(bits: &mut Bits<'_>, templates: &mut [Template; MOST_TEMPLATES]) -> Option<usize> {
    let (mut temporal, mut spatial) = (0, 0);
    for (at, template) in templates.iter_mut().enumerate() {
        (template.temporal, template.spatial) = (temporal, spatial);
        match bits.take(2)? {
            0 => {}
            1 => temporal += 1,
            2 => (temporal, spatial) = (0, spatial + 1),
            _ => return Some(at + 1),
        }
        if temporal > MAX_TEMPORAL_ID || spatial > MAX_SPATIAL_ID {
            return None;
        }
    }
    None
}

/// `template_dtis` of one template, or `frame_dtis`.
fn read_indications(bits: &mut Bits<'_>, targets: u8) -> Option<u64> {
    let mut all = 0;
    for at in 0..targets {
        all |= bits.take(2)? << (2 * at);
    }
    Some(all)
}

/// `template_chains`
fn skip_chains(bits: &mut Bits<'_>, targets: u8, templates: usize) -> Option<()> {
    let chains = bits.take_non_symmetric(u64::from(targets) + 1)?;
    if chains > 0 {
        for _ in 0..targets {
            bits.take_non_symmetric(chains)?;
        }
        for _ in 0..templates as u64 * chains {
            bits.take(4)?;
        }
    }
    Some(())
}

/// Bits of a value, the first the highest.
struct Bits<'a> {
    bytes: &'a [u8],
    next: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0 }
    }

    /// `f(n)`: the next `count` bits, 32 at most.
    fn take(&mut self, count: u32) -> Option<u64> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.next / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.next % 8) & 1);
            self.next += 1;
        }
        Some(value)
    }

    /// `ns(n)`: one of `values`, at least one (AV1 bitstream specification §4.10.7).
    fn take_non_symmetric(&mut self, values: u64) -> Option<u64> {
        let width = u64::BITS - values.leading_zeros();
        let short = (1 << width) - values;
        let value = self.take(width - 1)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + self.take(1)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes what [`Bits`] reads.
    #[derive(Default)]
    pub(super) struct Writer(Vec<bool>);

    impl Writer {
        pub(super) fn put(&mut self, value: u64, count: u32) -> &mut Self {
            self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        pub(super) fn put_non_symmetric(&mut self, value: u64, values: u64) -> &mut Self {
            let width = u64::BITS - values.leading_zeros();
            let short = (1 << width) - values;
            match value < short {
                true => self.put(value, width - 1),
                false => self.put(value + short, width),
            }
        }

        pub(super) fn bytes(&self) -> Vec<u8> {
            let byte =
                |bits: &[bool]| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at));
            self.0.chunks(8).map(byte).collect()
        }
    }

    /// A template: `(spatial, temporal)`, what it is to each target as the standard's tables write it, and its references.
    pub(super) type Row = ((u8, u8), &'static str, &'static [u64]);

    /// Chromium's L1T3: the key frame, the base layer, the middle one and the upper, twice.
    const L1T3: [Row; 5] = [
        ((0, 0), "SSS", &[]),
        ((0, 0), "SSS", &[4]),
        ((0, 1), "-DS", &[2]),
        ((0, 2), "--D", &[1]),
        ((0, 2), "--D", &[1]),
    ];

    /// The temporal layers of VP8, where a frame of the base layer lets nobody in: the middle one is joined by a frame that refers
    /// to the base layer alone.
    const VP8_L1T3: [Row; 6] = [
        ((0, 0), "SSS", &[]),
        ((0, 0), "SRR", &[4]),
        ((0, 1), "-SS", &[2]),
        ((0, 1), "-SR", &[4, 2]),
        ((0, 2), "--D", &[1]),
        ((0, 2), "--D", &[3, 1]),
    ];

    /// Two spatial layers of two temporal ones each; the upper refers to the lower.
    const L2T2: [Row; 4] =
        [((0, 0), "SSSS", &[]), ((0, 1), "-D-R", &[2]), ((1, 0), "--SS", &[1]), ((1, 1), "---D", &[2, 1])];

    /// The same, but the upper refers to the lower in key pictures alone.
    pub(super) const L2T2_KEY: [Row; 6] = [
        ((0, 0), "SSSS", &[]),
        ((0, 0), "SS--", &[4]),
        ((0, 1), "-D--", &[2]),
        ((1, 0), "--SS", &[1]),
        ((1, 0), "--SS", &[4]),
        ((1, 1), "---D", &[2]),
    ];

    pub(super) fn indication(letter: char) -> u64 {
        "-DSR".find(letter).expect("one of the four") as u64
    }

    /// The head of a descriptor with these flags.
    pub(super) fn head(template: u64, number: u16, flags: u64) -> Writer {
        let mut writer = Writer::default();
        writer.put(3, 2).put(template, 6).put(number.into(), 16).put(flags, 5);
        writer
    }

    pub(super) fn with_structure(
        rows: &[Row],
        offset: u64,
        template: u64,
        number: u16,
        chains: u64,
        resolutions: bool,
    ) -> Writer {
        let mut writer = head(template, number, flag::STRUCTURE);
        let targets = rows[0].1.len() as u64;
        writer.put(offset, 6).put(targets - 1, 5);
        for pair in rows.windows(2) {
            let ((spatial, temporal), (next_spatial, next_temporal)) = (pair[0].0, pair[1].0);
            let step = if next_spatial > spatial { 2 } else { u64::from(next_temporal > temporal) };
            writer.put(step, 2);
        }
        writer.put(3, 2);
        rows.iter().flat_map(|row| row.1.chars()).for_each(|letter| {
            writer.put(indication(letter), 2);
        });
        for row in rows {
            row.2.iter().for_each(|distance| {
                writer.put(1, 1).put(distance - 1, 4);
            });
            writer.put(0, 1);
        }
        writer.put_non_symmetric(chains, targets + 1);
        if chains > 0 {
            (0..targets).for_each(|at| {
                writer.put_non_symmetric(at % chains, chains);
            });
            (0..rows.len() as u64 * chains).for_each(|_| {
                writer.put(5, 4);
            });
        }
        writer.put(u64::from(resolutions), 1);
        if resolutions {
            let highest = rows.iter().map(|row| row.0.0).max().expect("some");
            (0..=highest).for_each(|_| {
                writer.put(639, 16).put(359, 16);
            });
        }
        writer
    }

    /// A descriptor of three bytes.
    pub(super) fn plain(template: u64, number: u16) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.put(3, 2).put(template, 6).put(number.into(), 16).bytes()
    }

    fn read(reader: &mut DescriptorReader, value: &[u8]) -> (u8, u8, Option<(u8, u8)>) {
        let read = reader.read(1, value).expect("well-formed");
        let whole = |climb: Climb| Some((climb.needs, climb.reaches_with(u8::MAX)?));
        (read.temporal_layer, read.spatial_layer, read.climb.and_then(whole))
    }

    #[test]
    fn every_frame_of_the_base_layer_lets_in_where_the_structure_says_so() {
        let mut reader = DescriptorReader::default();
        assert_eq!(reader.read(1, &plain(8, 99)), None, "no structure yet");
        let key = with_structure(&L1T3, 7, 7, 100, 1, true).bytes();
        assert_eq!(read(&mut reader, &key), (0, 0, Some((0, 2))));
        assert_eq!(read(&mut reader, &plain(10, 101)), (2, 0, None));
        assert_eq!(read(&mut reader, &plain(9, 102)), (1, 0, Some((0, 2))), "it refers to the key frame alone");
        assert_eq!(read(&mut reader, &plain(11, 103)), (2, 0, None));
        assert_eq!(read(&mut reader, &plain(8, 104)), (0, 0, Some((0, 2))));
        assert_eq!(reader.read(1, &plain(12, 105)), None, "no such template");
        assert_eq!(reader.read(2, &plain(8, 104)), None, "another source");
    }

    #[test]
    fn a_frame_lets_in_nobody_who_lacks_what_it_refers_to() {
        let mut reader = DescriptorReader::default();
        read(&mut reader, &with_structure(&VP8_L1T3, 0, 0, 65_532, 0, false).bytes());
        read(&mut reader, &plain(4, 65_533));
        assert_eq!(read(&mut reader, &plain(2, 65_534)), (1, 0, Some((0, 2))));
        read(&mut reader, &plain(5, 65_535));
        assert_eq!(read(&mut reader, &plain(1, 0)), (0, 0, Some((0, 0))), "over the wrap");
        read(&mut reader, &plain(4, 1));
        assert_eq!(read(&mut reader, &plain(3, 2)), (1, 0, Some((1, 1))), "it refers to its own layer as well");
        // A frame whose number was never seen may be of any layer.
        assert_eq!(read(&mut reader, &plain(2, 40)), (1, 0, Some((1, 2))));
    }

    #[test]
    fn what_a_frame_says_itself_goes_before_its_template() {
        let mut reader = DescriptorReader::default();
        read(&mut reader, &with_structure(&L1T3, 0, 0, 10, 2, false).bytes());
        let mut custom = head(2, 12, flag::ACTIVE_TARGETS | flag::CUSTOM_INDICATIONS | flag::CUSTOM_REFERENCES);
        custom.put(7, 3);
        "-DR".chars().for_each(|letter| {
            custom.put(indication(letter), 2);
        });
        custom.put(2, 2).put(1, 8).put(0, 2);
        assert_eq!(read(&mut reader, &custom.bytes()), (1, 0, None));
    }

    #[test]
    fn targets_count_for_who_has_their_spatial_layers() {
        let mut reader = DescriptorReader::default();
        let key = with_structure(&L2T2, 0, 0, 10, 0, true).bytes();
        assert_eq!(read(&mut reader, &key), (0, 0, Some((0, 1))));
        let upper = reader.read(1, &plain(2, 11)).expect("well-formed");
        assert_eq!(upper.climb, Some(Climb { needs: 0, reaches: [None, Some(1), Some(1), Some(1)] }));
        assert_eq!(read(&mut reader, &plain(1, 12)), (1, 0, None));
    }

    /// The structures of Chromium's encoders, in part: what each frame lets who has it go up to.
    #[test]
    fn a_frame_lets_into_spatial_layers_if_it_is_a_switch_to_all_of_their_targets() {
        // Each layer refers to the one below: only the key picture lets up.
        const L3T1: [Row; 6] = [
            ((0, 0), "SSS", &[]),
            ((0, 0), "SRR", &[3]),
            ((1, 0), "-SS", &[1]),
            ((1, 0), "-SR", &[3, 1]),
            ((2, 0), "--S", &[1]),
            ((2, 0), "--S", &[3, 1]),
        ];
        // To none: simulcast in one stream.
        const S2T1: [Row; 4] = [((0, 0), "S-", &[]), ((0, 0), "S-", &[2]), ((1, 0), "-S", &[]), ((1, 0), "-S", &[2])];
        // The upper layer begins anew at each frame, and so does who lacked it.
        const REFRESHED: [Row; 2] = [((0, 0), "SS", &[2]), ((1, 0), "-S", &[1])];
        let above = |highest: u8| u8::MAX << highest;
        for (rows, switches) in [
            (&L3T1[..], &[above(0), 1, above(1), 2, above(2), above(2)][..]),
            (&L2T2_KEY, &[above(0), 1, 0, above(1), above(1), 0]),
            (&S2T1, &[1, 1, above(1), above(1)]),
            (&REFRESHED, &[above(0), above(1)]),
        ] {
            for (template, switch) in switches.iter().enumerate() {
                let value = with_structure(rows, 0, template as u64, 10, 0, false).bytes();
                let read = DescriptorReader::default().read(1, &value).expect("well-formed");
                assert_eq!(read.spatial_switch, *switch, "{:?}", rows[template]);
            }
        }
    }

    #[test]
    fn the_end_of_a_frame_is_read_from_each_descriptor() {
        let mut reader = DescriptorReader::default();
        read(&mut reader, &with_structure(&L2T2, 0, 0, 10, 0, true).bytes());
        let ends = |first: u8| reader.clone().read(1, &[first | 2, 0, 11]).map(|read| read.ends_layer_frame);
        assert_eq!([0x80, 0x00, 0x40, 0xc0].map(ends), [false, false, true, true].map(Some));
    }

    #[test]
    fn a_structure_that_makes_no_sense_is_as_good_as_none() {
        let mut reader = DescriptorReader::default();
        let key = with_structure(&L1T3, 0, 0, 10, 1, true).bytes();
        read(&mut reader, &key);
        assert_eq!(reader.read(1, &key[..key.len() - 2]), None, "cut off");
        assert_eq!(reader.read(1, &plain(1, 14)), None, "and the one before does not hold any more");
    }

    #[test]
    fn a_publisher_that_alternates_good_and_bad_makes_nothing_be_allocated() {
        let mut reader = DescriptorReader::default();
        let key = with_structure(&L1T3, 0, 0, 10, 1, true).bytes();
        read(&mut reader, &key);
        let place = |reader: &DescriptorReader| reader.known.as_deref().map(std::ptr::from_ref);
        let first = place(&reader);
        for epoch in 1..20 {
            assert!(reader.read(epoch, &key).is_some());
            assert_eq!(reader.read(epoch, &key[..key.len() - 2]), None);
            assert_eq!(place(&reader), first, "the same memory all the time");
        }
    }

    proptest! {
        #[test]
        fn structures_are_read_back(
            offset in 0_u64..64,
            number: u16,
            chains in 0_u64..4,
            resolutions: bool,
            which in 0_usize..2,
            template in 0_usize..5,
        ) {
            let rows: &[Row] = [&L1T3[..], &VP8_L1T3][which];
            let id = (offset + template as u64) % 64;
            let mut reader = DescriptorReader::default();
            let value = with_structure(rows, offset, id, number, chains, resolutions).bytes();
            let described = reader.read(0, &value).expect("well-formed");
            prop_assert_eq!((described.spatial_layer, described.temporal_layer), rows[template].0);
            let next = plain((offset + 1) % 64, number.wrapping_add(4));
            prop_assert!(reader.read(0, &next).is_some(), "all of it was read");
        }

        #[test]
        fn numbers_of_any_width_are_read_back(values in 1_u64..40, seed: u64) {
            let value = seed % values;
            let bytes = Writer::default().put_non_symmetric(value, values).put(1, 1).bytes();
            let mut bits = Bits::new(&bytes);
            prop_assert_eq!(bits.take_non_symmetric(values), Some(value));
            prop_assert_eq!(bits.take(1), Some(1));
        }

        #[test]
        fn any_bytes_say_something_within_bounds_or_nothing(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..20),
        ) {
            let mut reader = DescriptorReader::default();
            for value in values {
                if let Some(described) = reader.read(0, &value) {
                    prop_assert!(described.temporal_layer <= MAX_TEMPORAL_ID && described.spatial_layer <= MAX_SPATIAL_ID);
                    let reaches = described.climb.into_iter().flat_map(|climb| climb.reaches).flatten();
                    prop_assert!(described.climb.is_none_or(|climb| climb.needs <= 7) && reaches.max() <= Some(MAX_TEMPORAL_ID));
                }
            }
        }
    }
}

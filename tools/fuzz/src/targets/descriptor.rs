//! Dependency descriptors of one stream: one byte says of which epoch each is, and one how long it is.

use tableside::media::{Described, DescriptorReader, MAX_DESCRIPTOR};

use crate::input::Input;

/// Chromium's structure for three temporal layers, with the first frame of it.
const L1T3: &[u8] = &[0xc0, 0x00, 0x0a, 0x80, 0x02, 0x17, 0xaa, 0xa1, 0x81, 0x4d, 0x14, 0x00];
/// Two spatial layers of two temporal ones each, their templates counted from 7.
const L2T2: &[u8] = &[
    0xc7, 0xff, 0xff, 0x80, 0xe3, 0x67, 0xaa, 0x13, 0x0a, 0x01, 0x45, 0x04, 0x60, 0x20, 0x4f, 0xe0, 0x2c, 0xe0, 0x4f,
    0xe0, 0x2c, 0xe0,
];
/// A frame that says itself which targets it is of, and what it refers to.
const CUSTOM: &[u8] = &[0xc2, 0x00, 0x0c, 0x77, 0x1e, 0x01, 0x00];

pub(crate) fn run(data: &[u8]) {
    let (mut input, mut reader) = (Input::new(data), DescriptorReader::default());
    while !input.is_empty() {
        let epoch = u32::from(input.byte());
        let value = input.short();
        let read = reader.read(epoch, value);
        check_tie(&mut reader, epoch, value, read);
        let Some(read) = read else { continue };
        assert!(value.len() >= 3, "{read:?} of {value:?}");
        assert!(read.temporal_layer <= 7 && read.spatial_layer <= 3, "{read:?}");
        assert_eq!(read.ends_layer_frame, value[0] & 0x40 != 0, "{read:?} of {value:?}");
        let reaches = read.climb.iter().flat_map(|climb| climb.reaches).flatten();
        assert!(read.climb.is_none_or(|climb| climb.needs <= read.temporal_layer), "{read:?}");
        assert!(reaches.max() <= Some(7), "{read:?}");
    }
}

/// With a reference to the frame before it, a descriptor says the same of all else, and is not given another.
fn check_tie(reader: &mut DescriptorReader, epoch: u32, value: &[u8], read: Option<Described>) {
    let mut buffer = [0; MAX_DESCRIPTOR];
    let Some(len) = reader.refer_to_lower(value, value.len().is_multiple_of(2), &mut buffer) else { return };
    let written = &buffer[..len];
    let plainly = |read: Described| Described { climb: None, ..read };
    assert_eq!(reader.read(epoch, written).map(plainly), read.map(plainly), "{value:?} as {written:?}");
    assert_eq!(reader.refer_to_lower(written, false, &mut [0; MAX_DESCRIPTOR]), None, "{value:?} as {written:?}");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let stream = |epoch: u8, values: &[&[u8]]| -> Vec<u8> {
        values.iter().flat_map(|value| [&[epoch, value.len() as u8][..], value].concat()).collect()
    };
    // Frames that are described by their template alone: start and end, the template, a number.
    let plain = |template: u8, number: u8| [0xc0 | template, 0, number];
    vec![
        stream(0, &[L1T3, &plain(3, 11), &plain(2, 12), &plain(3, 13), &plain(1, 14), CUSTOM]),
        stream(1, &[L2T2, &plain(8, 0), &plain(9, 1), &plain(10, 2)]),
        stream(0, &[&L1T3[..7], &plain(1, 3)]),
    ]
}

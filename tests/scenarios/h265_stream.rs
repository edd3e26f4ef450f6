//! H.265 of a real encoder (x265; `tests/fixtures/streams/make`), put into packets by RFC 7798: no browser that runs here
//! has the codec.

use std::time::Duration;

use tableside::media::{Codec, MediaKind};

use crate::world::{Side, VIDEO_SSRC, World, stream_mut};

const STREAM: &[u8] = include_bytes!("../fixtures/streams/x265.h265");
const FRAME: Duration = Duration::from_millis(100);
const MAX_PAYLOAD: usize = 600;

/// NAL unit types (ITU-T H.265 table 7-1).
const VPS: u8 = 32;
const PPS: u8 = 34;
const AUD: u8 = 35;
const CRA: u8 = 21;

fn kind(unit: &[u8]) -> u8 {
    unit[0] >> 1 & 0x3f
}

fn is_parameter_set(unit: &[u8]) -> bool {
    (VPS..=PPS).contains(&kind(unit))
}

/// The access units of the stream, each with its NAL units.
fn access_units() -> Vec<Vec<Vec<u8>>> {
    let mut starts: Vec<usize> = (0..STREAM.len() - 2).filter(|at| STREAM[*at..].starts_with(&[0, 0, 1])).collect();
    starts.push(STREAM.len());
    let mut access_units: Vec<Vec<Vec<u8>>> = Vec::new();
    for pair in starts.windows(2) {
        let mut unit = &STREAM[pair[0] + 3..pair[1]];
        while let [rest @ .., 0] = unit {
            unit = rest;
        }
        if kind(unit) == AUD {
            access_units.push(Vec::new());
        }
        access_units.last_mut().expect("each begins with a delimiter").push(unit.to_vec());
    }
    access_units
}

/// RFC 7798 §4.4: small units in one aggregation packet, large ones in fragments.
fn packetize(units: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (small, large): (Vec<_>, Vec<_>) = units.iter().partition(|unit| unit.len() < 100);
    let mut payloads = Vec::new();
    match small.as_slice() {
        [] => {}
        [one] => payloads.push(one.to_vec()),
        several => {
            let mut aggregation = vec![48 << 1, 1];
            for unit in several {
                aggregation.extend((unit.len() as u16).to_be_bytes());
                aggregation.extend(*unit);
            }
            payloads.push(aggregation);
        }
    }
    for unit in large {
        let pieces: Vec<_> = unit[2..].chunks(MAX_PAYLOAD).collect();
        for (n, piece) in pieces.iter().enumerate() {
            let (start, end) = (u8::from(n == 0) << 7, u8::from(n + 1 == pieces.len()) << 6);
            payloads.push([&[49 << 1, unit[1], start | end | kind(unit)][..], piece].concat());
        }
    }
    payloads
}

/// Publishes `access_units`, and then joins. Returns what the joiner got.
fn join_after(access_units: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
    let mut world = World::new(1);
    let publisher = world.add_publisher_with(Side::Client, |n| stream_mut(n, MediaKind::Video).codec = Codec::H265);
    world.connect(publisher);
    for units in access_units {
        let datagrams = world.peers[publisher].picture(&packetize(units));
        datagrams.into_iter().for_each(|datagram| world.send(datagram));
        world.deliver();
        world.run(FRAME);
    }
    let report = world.report(0);
    let table = &report.tables["roulette"];
    assert_eq!((table.frames_ingested, table.frames_lost_before_ingest), (access_units.len() as u64, 0));
    assert!(table.gop_cached);
    let joiner = world.add_player_with(0, |n| stream_mut(n, MediaKind::Video).codec = Codec::H265);
    world.connect(joiner);
    world.run(FRAME);
    world.peers[joiner].received_on(VIDEO_SSRC).iter().map(|packet| packet.payload.clone()).collect()
}

#[test]
fn a_joiner_starts_at_the_newest_picture_that_can_be_decoded_alone() {
    let all = access_units();
    let at = all.iter().rposition(|units| units.iter().any(|unit| kind(unit) == CRA)).expect("after one second");
    assert!(
        at > 0 && all.len() == 20 && all[at].iter().any(|unit| is_parameter_set(unit)),
        "the stream is as described"
    );
    let expected: Vec<_> = all[at..].iter().flat_map(|units| packetize(units)).collect();
    assert!(join_after(&all) == expected);
}

#[test]
fn parameter_sets_that_came_once_are_given_to_a_joiner() {
    let mut all = access_units();
    let at = all.iter().rposition(|units| units.iter().any(|unit| kind(unit) == CRA)).expect("after one second");
    let sets: Vec<_> = all[0].iter().filter(|unit| is_parameter_set(unit)).cloned().collect();
    all[at].retain(|unit| !is_parameter_set(unit));
    let received = join_after(&all);
    // The delimiter leads; the sets stand before the first slice.
    assert_eq!(received[0], all[at][0]);
    assert_eq!(received[1], packetize(&sets)[0]);
    let slices = packetize(&all[at][1..]);
    assert!(received[2..][..slices.len()] == slices);
}

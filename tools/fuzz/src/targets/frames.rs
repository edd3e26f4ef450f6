//! The byte stream of an ICE-TCP connection (RFC 4571), however the network cuts it: one byte says how many bytes each
//! read brings, all of them over and over, then the stream.

use tableside::net::frame::{Deframer, MAX_PACKET, PREFIX, TooLong, prefix};

use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let pieces: Vec<usize> = (0..=input.below(8)).map(|_| usize::from(input.byte()) + 1).collect();
    let stream = input.rest();
    assert_eq!(deframe(stream, &pieces), by_the_book(stream), "in pieces of {pieces:?}");
}

/// Through the product, as a connection reads.
fn deframe(mut stream: &[u8], pieces: &[usize]) -> (Vec<Vec<u8>>, Result<(), TooLong>) {
    let (mut deframer, mut packets) = (Deframer::default(), Vec::new());
    let mut buffer = [0xee; PREFIX + MAX_PACKET + 256];
    for &piece in pieces.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let start = deframer.resume(&mut buffer);
        assert!(start < PREFIX + MAX_PACKET, "more than the beginning of one frame was kept");
        let (read, rest) = stream.split_at(piece.min(stream.len()));
        stream = rest;
        let end = start + read.len();
        buffer[start..end].copy_from_slice(read);
        let result = deframer.split(&mut buffer[..end], |packet| {
            packets.push(packet.to_vec());
            true
        });
        if result.is_err() {
            return (packets, result);
        }
    }
    (packets, Ok(()))
}

/// RFC 4571 §2 with the whole stream at hand.
fn by_the_book(mut stream: &[u8]) -> (Vec<Vec<u8>>, Result<(), TooLong>) {
    let mut packets = Vec::new();
    while let [high, low, rest @ ..] = stream {
        let len = usize::from(*high) << 8 | usize::from(*low);
        if len > 2048 {
            return (packets, Err(TooLong));
        }
        let Some((packet, after)) = rest.split_at_checked(len) else { break };
        if len > 0 {
            packets.push(packet.to_vec());
        }
        stream = after;
    }
    (packets, Ok(()))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let packets: Vec<Vec<u8>> = super::demux::seeds();
    let stream: Vec<u8> = packets.iter().flat_map(|packet| [&prefix(packet)[..], packet].concat()).collect();
    vec![
        [&[0, 255][..], &stream].concat(),
        [&[2, 0, 1, 40][..], &stream].concat(),
        [&[0, 9][..], &[0, 0, 0, 1, 7, 0, 0, 8, 1, 2]].concat(),
    ]
}

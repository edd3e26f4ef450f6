//! What the shard does first with a datagram of anybody: which protocol it is, then that protocol's first look.

use tableside::media::RtpHeader;
use tableside::rtc::demux::{PacketKind, classify};
use tableside::rtc::stun::BindingRequest;

use crate::checksums;

pub(crate) fn run(data: &[u8]) {
    let kind = classify(data);
    assert_eq!(kind, by_the_table(data));
    match kind {
        PacketKind::Stun => drop(BindingRequest::parse(data)),
        PacketKind::Rtp => drop(RtpHeader::parse_header(data)),
        PacketKind::Rtcp => super::rtcp::walk(data),
        PacketKind::Dtls | PacketKind::Unrecognised => {}
    }
}

/// RFC 7983 §7 and RFC 5761 §4, written down once more.
fn by_the_table(data: &[u8]) -> PacketKind {
    let (Some(&first), Some(second)) = (data.first(), data.get(1).or(Some(&0))) else {
        return PacketKind::Unrecognised;
    };
    match (first, second) {
        (0..4, _) => PacketKind::Stun,
        (20..64, _) => PacketKind::Dtls,
        (128..192, 192..224) => PacketKind::Rtcp,
        (128..192, _) if data.len() > 1 => PacketKind::Rtp,
        _ => PacketKind::Unrecognised,
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        checksums::stun(0x0001, b"\x00\x06\x00\x09evtj:h6vY\0\0\0", Some("VOkJxbRl1RmTxUk/WvJxBt")),
        vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        vec![64],
    ];
    seeds.extend(super::rtp::seeds().into_iter().chain(super::rtcp::seeds()));
    seeds
}

//! DTLS comes through whatever the network does to it: any datagram lost, some doubled, all out of order, the ClientHello
//! in pieces. With either version, in either role.

use std::time::Duration;

use tableside::rtc::demux::{PacketKind, classify};
use tableside::rtc::dtls::DtlsVersion;
use tableside::shard::{DropReason, EndCause, Role};

use crate::world::{Datagram, Dice, Rewrite, Side, VIDEO_SSRC, World};

const DELAY: Duration = Duration::from_millis(5);

/// What one lost datagram may cost: two retransmission timers at their first value, 150 ms and a quarter of it for jitter.
const ONE_LOSS: Duration = Duration::from_millis(375);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToNode,
    FromNode,
}

fn is_on(way: Way, datagram: &Datagram) -> bool {
    let from_node = datagram.from == World::shard_address(0);
    classify(&datagram.bytes) == PacketKind::Dtls && from_node == (way == Way::FromNode)
}

/// Every pair of a version and the peer's role.
fn kinds() -> impl Iterator<Item = (DtlsVersion, Side)> {
    DtlsVersion::ALL.into_iter().flat_map(|version| [(version, Side::Client), (version, Side::Server)])
}

fn world(version: DtlsVersion, side: Side) -> (World, usize) {
    let mut world = World::new(1);
    world.only = Some(version);
    let peer = world.add_publisher(side);
    (world, peer)
}

/// Lets time pass until both sides have the keys; how long that took, and how many datagrams of DTLS went each way.
fn handshake(world: &mut World, peer: usize, limit: Duration) -> Duration {
    let begin = world.now;
    world.run_until(limit, "the handshake", |world| {
        world.peers[peer].is_connected() && world.report(0).connected[Role::Publisher as usize] == 1
    });
    world.now - begin
}

/// The datagrams of a handshake on a perfect path, and its time.
fn undisturbed(version: DtlsVersion, side: Side, way: Way) -> (usize, Duration) {
    let (mut world, peer) = world(version, side);
    let seen = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = seen.clone();
    world.network = Box::new(move |datagram| {
        count.set(count.get() + usize::from(is_on(way, datagram)));
        Some(DELAY)
    });
    let time = handshake(&mut world, peer, Duration::from_secs(1));
    (seen.get(), time)
}

#[test]
fn each_peer_gets_its_version_in_each_role() {
    for (version, side) in kinds() {
        let (mut world, peer) = world(version, side);
        handshake(&mut world, peer, Duration::from_secs(1));
        assert_eq!(world.peers[peer].dtls_version(), Some(version));
        let report = world.report(0);
        assert_eq!(report.handshakes[version as usize].iter().sum::<u64>(), 1, "{version:?}, {side:?}");
        assert_eq!(report.handshakes.as_flattened().iter().sum::<u64>(), 1);
    }
}

/// A crowd that joins a busy shard waits for itself: those who watch get each frame when it comes.
#[test]
fn a_shard_without_time_for_handshakes_goes_on_with_its_media() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    let watcher = world.add_player(0);
    world.connect_all();
    world.steps = Some(0);
    let crowd = 20;
    for _ in 0..crowd {
        world.add_player(0);
    }
    let connected = |world: &mut World| world.report(0).connected[Role::Player as usize] - 1;
    for n in 0..10 {
        world.publish_frame(publisher, 3, n == 0);
        world.run(Duration::from_millis(33));
    }
    assert!(world.shards[0].has_handshakes());
    assert_eq!(connected(&mut world), 0);
    assert_eq!(world.peers[watcher].received_on(VIDEO_SSRC).len(), 30);
    // Two flights of each have to come in, whatever is sent twice meanwhile.
    world.steps = Some(1);
    world.run(Duration::from_millis(crowd));
    assert!(connected(&mut world) < crowd);
    world.run_until(Duration::from_secs(3), "the crowd's handshakes", |world| connected(world) == crowd);
    assert_eq!(world.report(0).dropped[DropReason::HandshakeQueueFull as usize], 0);
}

#[test]
fn a_publisher_is_not_kept_waiting_by_players() {
    let mut world = World::new(1);
    world.steps = Some(0);
    for _ in 0..20 {
        world.add_player(0);
    }
    world.run(Duration::from_millis(50));
    world.add_publisher(Side::Client);
    world.run(Duration::from_millis(50));
    world.steps = Some(1);
    world.run_until(Duration::from_millis(10), "the publisher's handshake", |world| {
        world.report(0).connected[Role::Publisher as usize] == 1
    });
}

/// Who sends one ClientHello after the other has a share of what may wait, and no more.
#[test]
fn what_waits_of_one_session_is_bounded_and_counted() {
    let mut world = World::new(1);
    world.steps = Some(0);
    let hellos = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let keep = hellos.clone();
    world.network = Box::new(move |datagram| {
        if is_on(Way::ToNode, datagram) {
            keep.borrow_mut().push(datagram.clone());
        }
        Some(Duration::ZERO)
    });
    world.add_publisher(Side::Client);
    world.run(Duration::from_millis(50));
    let hello = hellos.borrow().first().cloned().expect("a ClientHello");
    let waiting = hellos.borrow().len() as u64;
    for _ in 0..100 {
        world.send(hello.clone());
    }
    world.deliver();
    let dropped = |world: &mut World| world.report(0).dropped[DropReason::HandshakeQueueFull as usize];
    assert_eq!(dropped(&mut world), 100 + waiting - 16);
    let player = world.add_player(0);
    world.steps = Some(1);
    world.connect(player);
    assert_eq!(world.report(0).connected, [1, 1]);
}

/// The peers of the world list AES-GCM first, as Firefox does.
#[test]
fn a_peer_of_both_versions_gets_the_newer_one() {
    for side in [Side::Client, Side::Server] {
        let mut world = World::new(1);
        let peer = world.add_publisher(side);
        handshake(&mut world, peer, Duration::from_secs(1));
        assert_eq!(world.peers[peer].dtls_version(), Some(DtlsVersion::Dtls13), "{side:?}");
    }
}

#[test]
fn the_loss_of_any_one_datagram_costs_a_retransmission() {
    for (version, side) in kinds() {
        for way in [Way::ToNode, Way::FromNode] {
            let (datagrams, time) = undisturbed(version, side, way);
            assert!(datagrams >= 2, "{version:?}, {side:?}, {way:?}: {datagrams} datagrams");
            for lost in 0..datagrams {
                let (mut world, peer) = world(version, side);
                let mut seen = 0;
                world.network = Box::new(move |datagram| {
                    let is_lost = is_on(way, datagram) && seen == lost;
                    seen += usize::from(is_on(way, datagram));
                    (!is_lost).then_some(DELAY)
                });
                println!("{version:?}, {side:?}, {way:?}: {lost} of {datagrams} lost");
                let took = handshake(&mut world, peer, Duration::from_secs(2));
                assert!(took <= time + ONE_LOSS, "{took:?} instead of {time:?}");
            }
        }
    }
}

/// Loses every fourth datagram for three seconds. Whatever falls to it, even the same flight each time, the handshake ends
/// once the path is good again: the last retransmission within sight is sent 7 s after its flight (RFC 6347 §4.2.4.1).
fn come_through_losses(world: &mut World, peer: usize, seed: u64) {
    let mut dice = Dice::new(seed);
    world.network = Box::new(move |_| (dice.below(100) >= 25).then_some(DELAY));
    world.run(Duration::from_secs(3));
    world.network = Box::new(|_| Some(DELAY));
    handshake(world, peer, Duration::from_secs(5));
}

#[test]
fn a_lossy_path_delays_and_does_not_prevent() {
    for (version, side) in kinds() {
        for seed in 0..12 {
            let (mut world, peer) = world(version, side);
            println!("{version:?}, {side:?}, seed {seed}");
            come_through_losses(&mut world, peer, seed);
        }
    }
}

#[test]
fn order_and_repetition_do_not_matter() {
    for (version, side) in kinds() {
        for seed in 0..12 {
            let (mut world, peer) = world(version, side);
            let mut dice = Dice::new(seed);
            world.network = Box::new(move |_| Some(Duration::from_millis(1 + dice.below(30) as u64)));
            world.echo = Some(Duration::from_millis(7));
            println!("{version:?}, {side:?}, seed {seed}");
            handshake(&mut world, peer, Duration::from_secs(3));
            world.run(Duration::from_secs(1));
            assert_eq!(world.heard.ended, [], "repetitions end nothing");
        }
    }
}

/// Cuts a record with a ClientHello into several of at most `size` bytes of it each, as GStreamer and the browsers do.
fn in_pieces(record: &[u8], size: usize) -> Vec<Vec<u8>> {
    if record[0] != 22 || record[13] != 1 {
        return vec![record.to_vec()];
    }
    let body = &record[25..];
    let piece = |(n, part): (usize, &[u8])| {
        let mut bytes = record[..25].to_vec();
        bytes[10] = bytes[10].wrapping_mul(64).wrapping_add(n as u8);
        bytes[11..13].copy_from_slice(&(12 + part.len() as u16).to_be_bytes());
        bytes[19..22].copy_from_slice(&(n as u32 * size as u32).to_be_bytes()[1..]);
        bytes[22..25].copy_from_slice(&(part.len() as u32).to_be_bytes()[1..]);
        bytes.extend(part);
        bytes
    };
    body.chunks(size).enumerate().map(piece).collect()
}

#[test]
fn a_client_hello_in_pieces_is_read_in_any_order() {
    let ways: [Rewrite; 4] = [
        |record| in_pieces(&record, 700),
        |record| in_pieces(&record, 230),
        |record| in_pieces(&record, 230).into_iter().rev().collect(),
        |record| in_pieces(&record, 100).into_iter().flat_map(|piece| [piece.clone(), piece]).collect(),
    ];
    for version in DtlsVersion::ALL {
        for way in ways {
            let (mut world, peer) = world(version, Side::Client);
            world.peers[peer].rewrite = way;
            handshake(&mut world, peer, Duration::from_secs(1));
            assert_eq!(world.peers[peer].dtls_version(), Some(version));
        }
    }
}

/// Each piece that is lost comes again with all others.
#[test]
fn a_lossy_path_for_a_client_hello_in_pieces() {
    for (version, seed) in DtlsVersion::ALL.into_iter().flat_map(|version| (0..8).map(move |seed| (version, seed))) {
        let (mut world, peer) = world(version, Side::Client);
        world.peers[peer].rewrite = |record| in_pieces(&record, 230);
        println!("{version:?}, seed {seed}");
        come_through_losses(&mut world, peer, seed);
    }
}

/// The records of a datagram: of DTLS 1.2 and plaintext ones of 1.3 (RFC 9147 §4), or with 1.3's unified header.
fn records(mut datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !datagram.is_empty() {
        let (header, len) = match datagram[0] {
            unified if unified & 0xe0 == 0x20 => {
                let at = 1 + if unified & 8 == 0 { 1 } else { 2 };
                match unified & 4 {
                    0 => (datagram.len(), 0),
                    _ => (at + 2, usize::from(u16::from_be_bytes([datagram[at], datagram[at + 1]]))),
                }
            }
            _ => (13, usize::from(u16::from_be_bytes([datagram[11], datagram[12]]))),
        };
        let (record, rest) = datagram.split_at(header + len);
        found.push(record.to_vec());
        datagram = rest;
    }
    found
}

/// A client of DTLS 1.3 acknowledges what lies behind the hole (RFC 9147 §7.1), at once and again and again. That the shard goes
/// on meanwhile is what ends this test.
#[test]
fn a_hole_in_a_flight_is_filled_and_does_not_stop_the_shard() {
    let without_the_second: Rewrite = |datagram| {
        let mut records = records(&datagram);
        if records.len() > 2 {
            records.remove(1);
        }
        records
    };
    let (mut world, peer) = world(DtlsVersion::Dtls13, Side::Server);
    world.peers[peer].rewrite = without_the_second;
    world.peers[peer].may_fail = true;
    world.run_until(Duration::from_secs(5), "the rest", |world| world.peers[peer].is_connected());
}

/// What is no ClientHello, or a broken one, is counted and harms nobody: it may be anybody's who can forge an address.
#[test]
fn junk_before_the_hello_is_counted_and_harmless() {
    let (mut world, peer) = world(DtlsVersion::Dtls12, Side::Client);
    world.peers[peer].rewrite = |_| Vec::new();
    world.run(Duration::from_millis(50));
    let (from, to) = (world.peers[peer].address, World::shard_address(0));
    let broken =
        [vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 22, 1, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 10], vec![7; 10]];
    for bytes in [broken.concat(), vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 2, 40], vec![23; 1200]] {
        world.send(Datagram { from, to, bytes });
    }
    world.deliver();
    assert_eq!(world.report(0).dropped[DropReason::DtlsNoClientHello as usize], 3);
    world.peers[peer].rewrite = |record| vec![record];
    handshake(&mut world, peer, Duration::from_secs(2));
}

#[test]
fn a_hello_that_never_gets_whole_ends_with_the_setup_time() {
    let (mut world, peer) = world(DtlsVersion::Dtls13, Side::Client);
    world.peers[peer].may_fail = true;
    world.peers[peer].rewrite = |record| in_pieces(&record, 230).into_iter().skip(1).collect();
    world.run(Duration::from_secs(9));
    assert_eq!(world.heard.ended, []);
    world.run(Duration::from_secs(2));
    assert_eq!(world.heard.ended, [(world.peers[peer].key.unwrap(), EndCause::SetupTimeout)]);
    assert_eq!(world.report(0).ended[Role::Publisher as usize][EndCause::SetupTimeout as usize], 1);
}

/// RFC 8842 §5.1: the fingerprint of the offer is all that tells the peer from whoever else might answer.
#[test]
fn a_certificate_that_the_offer_did_not_name_ends_the_session() {
    for (version, side) in kinds() {
        let mut world = World::new(1);
        world.only = Some(version);
        let peer = world.add_publisher_with(side, |negotiated| negotiated.remote_fingerprints[0].digest[31] ^= 1);
        world.peers[peer].may_fail = true;
        world.run(Duration::from_secs(2));
        let key = world.peers[peer].key.unwrap();
        assert_eq!(world.heard.ended, [(key, EndCause::DtlsFailed)], "{version:?}, {side:?}");
        assert_eq!(world.report(0).connected, [0, 0], "{version:?}, {side:?}");
    }
}

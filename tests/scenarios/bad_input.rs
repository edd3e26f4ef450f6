//! Hostile and broken datagrams are counted by reason, answered with nothing, and hurt nobody.

use std::net::SocketAddr;
use std::time::Duration;

use tableside::rtc::TransportAddress;
use tableside::rtc::stun::{IntegrityKey, RequestParameters, write_request};
use tableside::shard::{DropReason, EndCause};

use crate::world::{Datagram, Dice, Side, VIDEO_SSRC, World};

fn stranger() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 66], 6666))
}

/// A world with a publisher and a player that watches.
fn watched() -> (World, usize, usize) {
    let (mut world, publisher, player) = World::watched();
    world.publish_frame(publisher, 3, true);
    world.run(Duration::from_millis(50));
    (world, publisher, player)
}

fn throw(world: &mut World, from: SocketAddr, bytes: Vec<u8>) {
    world.send(Datagram { from, to: World::shard_address(0), bytes });
    world.deliver();
}

fn dropped(world: &mut World, reason: DropReason) -> u64 {
    world.report(0).dropped[reason as usize]
}

/// The watching player still gets everything, and the stranger nothing.
fn nobody_is_hurt(mut world: World, publisher: usize, player: usize) {
    let before = world.peers[player].received_on(VIDEO_SSRC).len();
    for _ in 0..10 {
        world.publish_frame(publisher, 3, false);
        world.run(Duration::from_millis(33));
    }
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len() - before, 30);
    assert_eq!(world.peers[player].undecryptable, 0);
    assert!(world.heard.ended.is_empty());
}

#[test]
fn stun_with_a_wrong_password() {
    let (mut world, publisher, player) = watched();
    let sent = world.report(0).datagrams_sent;
    let ufrag = world.peers[player].remote_ufrag();
    let parameters = RequestParameters {
        transaction_id: [1; 12],
        local_ufrag: &ufrag,
        remote_ufrag: "peer",
        priority: Some(1),
        role: None,
        use_candidate: true,
    };
    let mut message = [0; 256];
    let len = write_request(&mut message, &parameters, &IntegrityKey::new("a guess of the password"));
    throw(&mut world, stranger(), message[..len].to_vec());
    assert_eq!(dropped(&mut world, DropReason::StunIntegrity), 1);
    assert_eq!(world.report(0).datagrams_sent, sent, "no answer");
    nobody_is_hurt(world, publisher, player);
}

#[test]
fn stun_for_nobody() {
    let (mut world, publisher, player) = watched();
    for ufrag in ["nobody", "AAAAAAAAAAAA", "zzzz"] {
        let parameters = RequestParameters {
            transaction_id: [1; 12],
            local_ufrag: ufrag,
            remote_ufrag: "peer",
            priority: Some(1),
            role: None,
            use_candidate: true,
        };
        let mut message = [0; 256];
        let len = write_request(&mut message, &parameters, &IntegrityKey::new("whatever"));
        throw(&mut world, stranger(), message[..len].to_vec());
    }
    assert_eq!(dropped(&mut world, DropReason::StunUnknownUfrag), 3);
    nobody_is_hurt(world, publisher, player);
}

#[test]
fn dtls_and_srtp_from_an_address_that_passed_no_check() {
    let (mut world, publisher, player) = watched();
    let mut hello = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 1];
    hello.resize(73, 0);
    throw(&mut world, stranger(), hello);
    let rtp = world.peers[publisher].frame(1, false).remove(0);
    throw(&mut world, stranger(), rtp.bytes);
    assert_eq!(dropped(&mut world, DropReason::UnknownSource), 2);
    nobody_is_hurt(world, publisher, player);
}

#[test]
fn replayed_srtp() {
    let (mut world, publisher, player) = watched();
    let packets = world.peers[publisher].frame(3, false);
    let from = world.peers[publisher].address;
    for packet in packets.iter().chain(&packets) {
        throw(&mut world, from, packet.bytes.clone());
    }
    assert_eq!(dropped(&mut world, DropReason::SrtpReplay), 4, "three of video, one of audio");
    nobody_is_hurt(world, publisher, player);
}

#[test]
fn srtp_that_was_tampered_with() {
    let (mut world, publisher, player) = watched();
    let mut packet = world.peers[publisher].frame(1, false).remove(0);
    packet.bytes[40] ^= 1;
    let from = world.peers[publisher].address;
    throw(&mut world, from, packet.bytes);
    assert_eq!(dropped(&mut world, DropReason::SrtpAuthentication), 1);
    nobody_is_hurt(world, publisher, player);
}

#[test]
fn a_player_that_sends_media() {
    let (mut world, publisher, player) = watched();
    let packet = world.peers[player].frame(1, true).remove(0);
    let from = world.peers[player].address;
    throw(&mut world, from, packet.bytes);
    assert_eq!(dropped(&mut world, DropReason::UnexpectedRtp), 1);
    nobody_is_hurt(world, publisher, player);
}

/// The table's numbering is made ready for a publisher when its pair is nominated, not before.
#[test]
fn media_before_the_nomination() {
    let (mut world, publisher, player) = watched();
    world.run(Duration::from_secs(2));
    let early = world.add_publisher(Side::Client);
    world.peers[early].nominates = false;
    world.connect(early);
    let before = world.report(0).tables["roulette"].packets_ingested;
    world.publish_frame(early, 3, true);
    assert_eq!(world.report(0).tables["roulette"].packets_ingested, before);
    assert_eq!(dropped(&mut world, DropReason::NoKeys), 4);
    assert_eq!(world.heard.ended, []);
    world.peers[early].nominates = true;
    world.run(Duration::from_secs(3));
    assert_eq!(world.heard.ended, [(world.peers[publisher].key.unwrap(), EndCause::Replaced)]);
    world.heard.ended.clear();
    // Another publisher's picture is joined at its keyframe.
    world.publish_frame(early, 3, true);
    nobody_is_hurt(world, early, player);
}

/// Random, truncated and mutated datagrams, from strangers and from the peers' own addresses.
#[test]
fn noise() {
    let (mut world, publisher, player) = watched();
    let mut dice = Dice::new(9);
    let sources = [stranger(), world.peers[publisher].address, world.peers[player].address];
    world.peers[player].check();
    let check = world.peers[player].take_outgoing().remove(0).bytes;
    let packet = world.peers[publisher].frame(1, false).remove(0).bytes;
    let before = world.report(0);
    let count = 3000;
    for n in 0..count {
        let mut bytes = match n % 4 {
            0 => check.clone(),
            1 => packet.clone(),
            _ => {
                let len = dice.below(1400);
                (0..len).map(|_| dice.below(256) as u8).collect()
            }
        };
        if !bytes.is_empty() {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << (dice.below(8));
            // DTLS records from a peer's own address can end its session: that is between the two of them.
            if (20..64).contains(&bytes[0]) {
                bytes[0] = 200;
            }
            // An indication is no fault, wants no answer, and is not counted.
            if bytes[..2] == [0, 0x11] {
                bytes[0] = 200;
            }
            if n % 3 == 0 {
                bytes.truncate(at);
            }
        }
        throw(&mut world, sources[n % 3], bytes);
    }
    let after = world.report(0);
    let dropped: u64 = after.dropped.iter().sum::<u64>() - before.dropped.iter().sum::<u64>();
    assert_eq!(dropped, count as u64, "every one of them is counted, none had an effect");
    nobody_is_hurt(world, publisher, player);
}

/// Damaged handshakes fail or get through; nobody else notices.
#[test]
fn damaged_handshakes() {
    let (mut world, publisher, player) = watched();
    for seed in 0..150 {
        let address = SocketAddr::from(([10, 2, 0, seed as u8], 7000));
        let victim = world.add_player_at(0, address);
        world.peers[victim].may_fail = true;
        let (mut dice, mut last) = (Dice::new(seed), Vec::new());
        for _ in 0..60 {
            world.peers[victim].handle_timeout(world.now);
            for mut datagram in world.peers[victim].take_outgoing() {
                let is_dtls = (20..64).contains(&datagram.bytes[0]);
                if is_dtls {
                    last.clone_from(&datagram.bytes);
                }
                if is_dtls && dice.below(3) == 0 {
                    let at = dice.below(datagram.bytes.len());
                    match dice.below(4) {
                        0 => datagram.bytes[at] = dice.below(256) as u8,
                        // A length, a fragment's offset, an extension: the head is where structure is.
                        1 => datagram.bytes[13.min(at) + dice.below(30).min(at)] = dice.below(256) as u8,
                        2 => datagram.bytes.truncate(at.max(1)),
                        _ => datagram.bytes.extend_from_slice(&last[..at]),
                    }
                }
                let source = TransportAddress::udp(address);
                world.take(0, source, &mut datagram.bytes);
            }
            let mut batch = tableside::shard::Shard::send_batch();
            while world.shards[0].poll_transmit(world.now, &mut batch) {
                for (_, _, bytes) in batch.datagrams().filter(|(to, ..)| to.socket == address) {
                    let datagram = Datagram { from: World::shard_address(0), to: address, bytes: bytes.to_vec() };
                    world.peers[victim].handle_datagram(world.now, datagram);
                }
            }
            world.now += Duration::from_micros(100);
        }
        let key = world.peers[victim].key.unwrap();
        world.shards[0].close_session(world.now, key, tableside::shard::EndCause::Deleted);
        world.peers.pop();
    }
    world.run(Duration::from_millis(10));
    world.heard.ended.clear();
    nobody_is_hurt(world, publisher, player);
}

//! One address, one session: who has it, and how it changes hands.

use std::time::Duration;

use tableside::shard::EndCause;

use crate::world::{Datagram, Side, VIDEO_RTX_SSRC, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

fn watched() -> (World, usize, usize) {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    world.publish_frame(publisher, 9, true);
    world.run(FRAME);
    (world, publisher, player)
}

/// Whether the player's RTCP still reaches its own session.
fn is_heard(world: &mut World, player: usize) -> bool {
    let newest = world.peers[player].received_on(VIDEO_SSRC).last().unwrap().sequence_number;
    let before = world.peers[player].received_on(VIDEO_RTX_SSRC).len();
    world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, [newest]).unwrap());
    world.run(Duration::from_millis(5));
    world.peers[player].received_on(VIDEO_RTX_SSRC).len() > before
}

/// A session's check from `address`, as somebody who can forge source addresses sends it.
fn forge_check(world: &mut World, peer: usize, address: std::net::SocketAddr) {
    world.peers[peer].check();
    let check = world.peers[peer].take_outgoing().pop().unwrap();
    world.send(Datagram { from: address, ..check });
    world.deliver();
}

#[test]
fn a_player_cannot_take_the_address_of_another() {
    let (mut world, publisher, player) = watched();
    let thief = world.add_player(0);
    world.connect(thief);
    for victim in [player, publisher] {
        let address = world.peers[victim].address;
        forge_check(&mut world, thief, address);
    }
    assert!(is_heard(&mut world, player));
    let before = world.report(0).tables["roulette"].packets_ingested;
    world.publish_frame(publisher, 3, false);
    assert_eq!(world.report(0).tables["roulette"].packets_ingested - before, 4);
}

#[test]
fn a_player_that_was_deleted_may_come_again_from_its_address() {
    let (mut world, publisher, player) = watched();
    let (address, key) = (world.peers[player].address, world.peers[player].key.unwrap());
    assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
    world.run(Duration::from_millis(5));
    // The old page is gone: what comes to its address is the new one's.
    world.peers[player].address = ([10, 9, 9, 9], 9).into();
    world.peers[player].sends_checks = false;
    let again = world.add_player_at(0, address);
    world.connect(again);
    world.publish_frame(publisher, 3, false);
    world.run(FRAME);
    assert!(is_heard(&mut world, again));
}

/// A page that crashed says no goodbye, and a new one may get its port.
#[test]
fn an_address_that_fell_silent_changes_hands() {
    let (mut world, publisher, player) = watched();
    let address = world.peers[player].address;
    world.peers[player].address = ([10, 9, 9, 9], 9).into();
    world.peers[player].sends_checks = false;
    for _ in 0..10 {
        world.publish_frame(publisher, 1, false);
        world.run(Duration::from_secs(1));
    }
    let again = world.add_player_at(0, address);
    world.connect(again);
    world.publish_frame(publisher, 3, true);
    world.run(FRAME);
    assert!(is_heard(&mut world, again));
}

/// RFC 6347 §4.1.2.7: invalid records SHOULD be silently discarded.
#[test]
fn forged_dtls_does_not_end_a_session() {
    let (mut world, publisher, player) = watched();
    let mut dice = crate::world::Dice::new(3);
    let hello = |body: u8| {
        let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 60, body];
        record.resize(73, 0);
        record
    };
    for peer in [publisher, player] {
        let (from, to) = (world.peers[peer].address, World::shard_address(0));
        // An alert in the clear: fatal, handshake_failure; close_notify.
        for alert in [[2, 40], [1, 0], [2, 0]] {
            let mut bytes = vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2];
            bytes.extend(alert);
            world.send(Datagram { from, to, bytes });
        }
        for body in 0..40 {
            world.send(Datagram { from, to, bytes: hello(body) });
        }
        for n in 0..2000_usize {
            let len = 13 + dice.below(80);
            let mut bytes: Vec<u8> = (0..len).map(|_| dice.below(256) as u8).collect();
            bytes[0] = 20 + (n % 6) as u8;
            bytes[1..3].copy_from_slice(&[0xfe, 0xfd]);
            bytes[3..5].copy_from_slice(&[0, (n % 3) as u8]);
            bytes[11..13].copy_from_slice(&(len as u16 - 13).to_be_bytes());
            world.send(Datagram { from, to, bytes });
        }
        world.deliver();
    }
    world.run(Duration::from_millis(100));
    assert_eq!(world.heard.ended, []);
    world.publish_frame(publisher, 3, false);
    world.run(FRAME);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 12);
    assert!(is_heard(&mut world, player));
}

//! One address, one session: who has it, and how it changes hands.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tableside::rtc::Transport;
use tableside::rtc::stun::{IceRole, IntegrityKey, RequestParameters, write_request};
use tableside::shard::EndCause;

use crate::world::{Datagram, Side, VIDEO_RTX_SSRC, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

fn watched() -> (World, usize, usize) {
    let (mut world, publisher, player) = World::watched();
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
fn forge_check(world: &mut World, peer: usize, address: SocketAddr) {
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

/// An offer is answered to anybody, and a check can be forged: the address of somebody who is still to come is not taken
/// by that.
#[test]
fn a_session_that_is_not_connected_holds_no_address() {
    let (mut world, publisher, _) = watched();
    let squatter = world.add_player(0);
    world.peers[squatter].sends_checks = false;
    let victim = world.add_player(0);
    // It gets the answer to a check that it never sent.
    world.peers[victim].may_fail = true;
    let address = world.peers[victim].address;
    forge_check(&mut world, squatter, address);
    world.connect(victim);
    publish(&mut world, publisher, 1);
    assert!(is_heard(&mut world, victim));
}

/// RFC 8445 §7.3.1.1: a peer that takes itself for controlled is told, so that it changes its mind.
#[test]
fn a_conflict_of_roles_is_answered() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Server);
    let peer = &mut world.peers[publisher];
    peer.sends_checks = false;
    let ice = peer.remote_ice();
    let parameters = RequestParameters {
        transaction_id: [7; 12],
        local_ufrag: &ice.ufrag,
        remote_ufrag: "peer",
        priority: Some(1),
        role: Some((IceRole::Controlled, u64::MAX)),
        use_candidate: false,
    };
    let mut message = [0; 256];
    let len = write_request(&mut message, &parameters, &IntegrityKey::new(&ice.pwd));
    peer.emit(message[..len].to_vec());
    world.drain();
    world.deliver();
    assert_eq!(world.peers[publisher].refused_checks, 1);
    world.peers[publisher].sends_checks = true;
    world.connect(publisher);
    assert_eq!(world.peers[publisher].refused_checks, 1);
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

const ELSEWHERE: ([u8; 4], u16) = ([10, 7, 7, 7], 7777);

/// A report from the player, as a browser sends one for what it got.
fn report(world: &mut World, player: usize) {
    world.peers[player].send_rtcp(|w| w.receiver_report(1, &[]).unwrap());
    world.run(Duration::from_millis(1));
}

/// So many frames of three packets.
fn publish(world: &mut World, publisher: usize, frames: usize) {
    for _ in 0..frames {
        world.publish_frame(publisher, 3, false);
        world.run(FRAME);
    }
}

/// The player's video has no gap, and it has all that was sent.
fn has_everything(world: &World, player: usize, packets: usize) {
    let received = world.peers[player].received_on(VIDEO_SSRC);
    let first = received.first().expect("it got something").index;
    let mut indices: Vec<u64> = received.iter().map(|r| r.index - first).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..packets as u64).collect::<Vec<_>>());
}

/// A NAT forgets a binding: the next check comes from another port, and the picture goes on with it.
#[test]
fn a_checked_address_takes_over_without_a_handshake() {
    let (mut world, publisher, player) = watched();
    world.peers[player].sends_checks = false;
    world.peers[player].address = ELSEWHERE.into();
    publish(&mut world, publisher, 5);
    world.peers[player].check();
    world.drain();
    world.run(FRAME);
    publish(&mut world, publisher, 1);
    assert!(world.peers[player].received_on(VIDEO_SSRC).len() > 9, "something to report on");
    report(&mut world, player);
    publish(&mut world, publisher, 5);
    // What went to the old port is lost and can be asked for; from the check on nothing is.
    let received = world.peers[player].received_on(VIDEO_SSRC);
    let lost = received.windows(2).filter(|w| w[1].index != w[0].index + 1).count();
    assert_eq!((lost, received.len()), (1, 9 + 18));
    assert!(is_heard(&mut world, player));
    assert_eq!(world.report(0).address_changes, 1);
    assert_eq!((world.report(0).connected[1], world.heard.ended.as_slice()), (1, &[][..]));
}

/// Firefox says USE-CANDIDATE once in a session.
#[test]
fn a_check_without_the_flag_takes_over_where_the_old_address_is_silent() {
    let (mut world, publisher, player) = watched();
    world.peers[player].nominates = false;
    let old = world.peers[player].address;
    // A check on a spare path, while the other one lives, changes nothing.
    forge_check(&mut world, player, ELSEWHERE.into());
    publish(&mut world, publisher, 3);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 18);
    report(&mut world, player);

    world.peers[player].address = ELSEWHERE.into();
    world.peers[player].sends_checks = false;
    world.run(Duration::from_millis(1900));
    forge_check(&mut world, player, ELSEWHERE.into());
    publish(&mut world, publisher, 1);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 18, "not silent for long enough");
    world.run(Duration::from_millis(200));
    forge_check(&mut world, player, ELSEWHERE.into());
    publish(&mut world, publisher, 1);
    report(&mut world, player);
    publish(&mut world, publisher, 1);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 24);
    assert!(is_heard(&mut world, player));

    // And back, with the flag, at once.
    world.peers[player].nominates = true;
    world.peers[player].address = old;
    forge_check(&mut world, player, old);
    publish(&mut world, publisher, 1);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 27);
}

/// Media to an address from which nothing but checks comes is a stream aimed at somebody by a player with forged checks.
#[test]
fn a_stream_cannot_be_aimed_at_a_stranger() {
    let (mut world, publisher, player) = watched();
    let victims: [SocketAddr; 2] = [([10, 66, 0, 1], 1).into(), ([10, 66, 0, 2], 2).into()];
    let hits: Rc<RefCell<HashMap<SocketAddr, (usize, usize)>>> = Rc::default();
    let seen = hits.clone();
    world.network = Box::new(move |d| {
        let mut seen = seen.borrow_mut();
        let (media, other) = seen.entry(d.to).or_default();
        *(if (128..192).contains(&d.bytes[0]) && !(192..224).contains(&d.bytes[1]) { media } else { other }) += 1;
        Some(Duration::ZERO)
    });
    world.peers[player].sends_checks = false;
    // Ten seconds of a table, 5 MB; the aim changes at every frame, and losses are reported from the real address.
    for frame in 0..300 {
        forge_check(&mut world, player, victims[frame % 2]);
        world.publish_frame(publisher, 9, frame % 60 == 0);
        world.run(FRAME);
        let newest = world.peers[player].received_on(VIDEO_SSRC).last().unwrap().sequence_number;
        world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, (0..17).map(|n| newest.wrapping_sub(n))).unwrap());
    }
    let hits = hits.borrow();
    let media: usize = victims.iter().map(|v| hits[v].0).sum();
    // Eight, and four a second.
    assert!((8..=8 + 42).contains(&media), "{media} packets");
    let other: usize = victims.iter().map(|v| hits[v].1).sum();
    assert!(other <= 300 + 2 * 11, "an answer to each check, and a report a second: {other}");
}

/// Neither does what looks like a sign of life there and has no keys.
#[test]
fn an_address_is_not_proved_by_what_does_not_authenticate() {
    let mut media = Vec::new();
    for first in [[0x80, 96], [0x81, 201], [23, 0xfe]] {
        let (mut world, publisher, player) = watched();
        let victim: SocketAddr = ([10, 66, 0, 1], 1).into();
        let hits = Rc::new(Cell::new(0));
        let seen = hits.clone();
        world.network = Box::new(move |d| {
            let is_media = (128..192).contains(&d.bytes[0]) && !(192..224).contains(&d.bytes[1]);
            seen.set(seen.get() + usize::from(d.to == victim && is_media));
            Some(Duration::ZERO)
        });
        world.peers[player].sends_checks = false;
        forge_check(&mut world, player, victim);
        let mut forged = [&first[..], &[0xfd; 98]].concat();
        if first[0] == 23 {
            forged[2..13].copy_from_slice(&[0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 87]);
        }
        world.send(Datagram { from: victim, to: World::shard_address(0), bytes: forged });
        world.deliver();
        publish(&mut world, publisher, 30);
        media.push(hits.get());
    }
    // Eight, and four a second.
    assert!(media.iter().all(|packets| (8..=12).contains(packets)), "packets after RTP, RTCP, DTLS: {media:?}");
}

/// One over TCP: its connection is its address.
fn over_tcp() -> (World, usize, usize) {
    // The table outlives a minute without a picture.
    let mut world = World::with_grace(1, Duration::from_secs(60));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.peers[player].transport = Transport::Tcp;
    world.connect(player);
    world.publish_frame(publisher, 9, true);
    world.run(FRAME);
    (world, publisher, player)
}

#[test]
fn a_closed_connection_is_no_path_and_the_next_one_is() {
    let (mut world, publisher, player) = over_tcp();
    has_everything(&world, player, 9);
    let closed = world.peers[player].address;
    world.shards[0].handle_disconnect(closed);
    world.peers[player].sends_checks = false;
    publish(&mut world, publisher, 30);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 9, "nothing is sent to nobody");
    // It comes again from another port, and says nothing of nomination: there is no other way to send.
    (world.peers[player].address, world.peers[player].nominates) = (ELSEWHERE.into(), false);
    world.peers[player].check();
    world.drain();
    publish(&mut world, publisher, 2);
    has_everything(&world, player, 9 + 96);
    assert!(is_heard(&mut world, player));
    assert!(world.heard.disconnected.is_empty(), "the one that is gone need not be closed");
}

#[test]
fn the_connection_ends_with_its_session() {
    let (mut world, _, player) = over_tcp();
    let (address, key) = (world.peers[player].address, world.peers[player].key.unwrap());
    assert!(world.shards[0].close_session(world.now, key, EndCause::Deleted));
    world.drain();
    world.deliver();
    assert_eq!(world.heard.disconnected, [address]);
    assert!(world.peers[player].closed, "the goodbye was sent before");
}

/// RFC 7675 §5.1 knows no transport: a connection that stands is no consent.
#[test]
fn consent_expires_over_tcp_as_well() {
    let (mut world, _, player) = over_tcp();
    world.peers[player].sends_checks = false;
    world.run(Duration::from_secs(31));
    let key = world.peers[player].key.unwrap();
    assert_eq!(world.heard.ended, [(key, EndCause::ConsentExpired)]);
    assert_eq!(world.heard.disconnected, [world.peers[player].address]);
}

/// Firefox nominates every pair, the one over TCP last, and then uses the one over UDP.
#[test]
fn tcp_does_not_take_over_from_udp_unless_it_is_meant() {
    let (mut world, publisher, player) = watched();
    let udp = world.peers[player].address;
    let nominate_over_tcp = |world: &mut World| {
        (world.peers[player].address, world.peers[player].transport) = (ELSEWHERE.into(), Transport::Tcp);
        world.peers[player].check();
        world.drain();
        world.deliver();
    };
    nominate_over_tcp(&mut world);
    (world.peers[player].address, world.peers[player].transport) = (udp, Transport::Udp);
    publish(&mut world, publisher, 1);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 12, "still over UDP");
    nominate_over_tcp(&mut world);
    publish(&mut world, publisher, 1);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 15, "said twice");
}

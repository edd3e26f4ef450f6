//! Checks with a wrong password, by the ten thousand: counted, cheap, and of no consequence to anybody else.

use std::time::Duration;

use tableside::rtc::stun::{IceRole, IntegrityKey, RequestParameters, write_request};
use tableside::shard::DropReason;

use crate::world::{Datagram, Dice, Side, VIDEO_SSRC, World};

fn forged(ufrag: &str) -> Vec<u8> {
    let parameters = RequestParameters {
        transaction_id: [3; 12],
        local_ufrag: ufrag,
        remote_ufrag: "thief",
        priority: Some(1),
        role: Some((IceRole::Controlling, 1)),
        use_candidate: true,
    };
    let mut message = [0; 256];
    let len = write_request(&mut message, &parameters, &IntegrityKey::new("not the password of anybody"));
    message[..len].to_vec()
}

fn dropped(world: &mut World, reason: DropReason) -> u64 {
    world.report(0).dropped[reason as usize]
}

/// Shorter than a flood, longer than from one of the player's checks to the next.
const CONSENT: Duration = Duration::from_secs(3);

/// A publisher and a player, and what forges checks for the player's session from a port beside it.
fn watched() -> (World, usize, usize, Datagram) {
    let mut world = World::with_timeouts(1, Duration::from_secs(5), CONSENT);
    let publisher = world.add_publisher(Side::Client);
    let player = world.add_player(0);
    world.connect_all();
    let mut from = world.peers[player].address;
    from.set_port(6000);
    let bytes = forged(&world.peers[player].remote_ufrag());
    (world, publisher, player, Datagram { from, to: World::shard_address(0), bytes })
}

/// 50,000 a second.
fn flood(world: &mut World, forged: &Datagram, milliseconds: usize) {
    for _ in 0..milliseconds {
        (0..50).for_each(|_| world.send(forged.clone()));
        world.run(Duration::from_millis(1));
    }
}

#[test]
fn a_source_that_fails_too_often_is_no_longer_verified() {
    let (mut world, _, _, forged) = watched();
    flood(&mut world, &forged, 1000);
    let verified = dropped(&mut world, DropReason::StunIntegrity);
    assert_eq!(verified + dropped(&mut world, DropReason::StunRateLimited), 50_000);
    assert!((10_000..=11_000).contains(&verified), "{verified} were worth an HMAC");
}

/// Behind one address translator with the flood: its source port is not the flood's.
#[test]
fn who_watches_from_the_same_source_goes_on_and_keeps_its_consent() {
    let (mut world, publisher, player, forged) = watched();
    for n in 0..120 {
        flood(&mut world, &forged, 33);
        world.publish_frame(publisher, 3, n % 30 == 0);
    }
    assert_eq!(world.heard.ended, [], "its checks were heard");
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 360);
}

/// Its checks come every 50 ms, and one in five is looked at.
#[test]
fn a_player_can_join_from_the_source_of_a_flood() {
    let (mut world, _, player, forged) = watched();
    // Else the flood would be first in every millisecond, and whatever is forgiven in one would always be its.
    let mut dice = Dice::new(1);
    world.network = Box::new(move |_| Some(Duration::from_micros(dice.below(1000) as u64)));
    flood(&mut world, &forged, 500);
    let mut address = world.peers[player].address;
    address.set_port(6001);
    let joiner = world.add_player_at(0, address);
    let mut waited = 0;
    while !world.peers[joiner].is_connected() {
        flood(&mut world, &forged, 1);
        waited += 1;
        assert!(waited < 3000, "not connected after three seconds");
    }
}

/// Who forges the player's very address makes us compute, and silences nobody.
#[test]
fn the_address_of_a_session_is_always_heard() {
    let (mut world, publisher, player, mut forged) = watched();
    forged.from = world.peers[player].address;
    for _ in 0..120 {
        flood(&mut world, &forged, 33);
        world.publish_frame(publisher, 1, true);
    }
    assert_eq!(dropped(&mut world, DropReason::StunRateLimited), 0);
    assert_eq!(world.heard.ended, [], "its checks were heard");
}

#[test]
fn checks_for_nobody_cost_no_allowance() {
    let (mut world, _, _, mut forged) = watched();
    forged.bytes = self::forged("AAAAAAAAAAAA");
    flood(&mut world, &forged, 400);
    assert_eq!(dropped(&mut world, DropReason::StunUnknownUfrag), 20_000);
    assert_eq!(dropped(&mut world, DropReason::StunRateLimited), 0);
}

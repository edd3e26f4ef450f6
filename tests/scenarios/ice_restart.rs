//! ICE restarts (RFC 9725 §4.3.3): the pair changes, everything above it goes on.

use std::time::Duration;

use tableside::shard::{DropReason, EndCause, TableState};

use crate::world::{Side, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

/// The ufrag of a peer that restarts.
const AGAIN: &str = "peer-again";

fn watched() -> (World, usize, usize) {
    let mut world = World::with_timeouts(1, Duration::from_secs(300), Duration::from_secs(20));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let player = world.add_player(0);
    world.connect(player);
    frames(&mut world, publisher, 5, true);
    (world, publisher, player)
}

/// Frames of three packets.
fn frames(world: &mut World, publisher: usize, count: usize, keyframe: bool) {
    for n in 0..count {
        world.publish_frame(publisher, 3, keyframe && n == 0);
        world.run(FRAME);
    }
}

/// That the player has got every packet so far, under the same keys and numbers.
#[track_caller]
fn assert_whole(world: &World, player: usize, frames: usize) {
    let video = world.peers[player].received_on(VIDEO_SSRC);
    assert_eq!(video.len(), 3 * frames);
    assert!(video.windows(2).all(|pair| pair[1].index == pair[0].index + 1));
    assert_eq!(world.peers[player].undecryptable, 0);
    assert_eq!(world.heard.ended, []);
}

#[test]
fn media_goes_to_the_old_pair_until_the_new_credentials_nominate_another() {
    let (mut world, publisher, player) = watched();
    let ice = world.restart_ice(0, player, AGAIN);
    frames(&mut world, publisher, 5, false);
    assert_whole(&world, player, 10);

    // The phone has changed its network: from the old address nobody answers any more.
    world.peers[player].address = ([10, 7, 7, 7], 777).into();
    world.peers[player].restart_ice(AGAIN, ice);
    world.peers[player].nominates = false;
    world.peers[player].check();
    world.run(FRAME);
    let before = world.peers[player].received_on(VIDEO_SSRC).len();
    world.publish_frame(publisher, 3, false);
    world.run(FRAME);
    assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), before, "a check alone moves no media");
    world.peers[player].nominates = true;
    world.peers[player].check();
    // As a browser does for what it gets: until something encrypted has come from the new address, little goes there.
    world.peers[player].send_rtcp(|w| w.receiver_report(1, &[]).unwrap());
    world.run(FRAME);
    frames(&mut world, publisher, 5, false);
    let video = world.peers[player].received_on(VIDEO_SSRC);
    assert_eq!(video.len(), before + 3 * 5, "the new pair carries the media");
    assert_eq!(video[before].index, video[before - 1].index + 4, "under numbers that go on");
    assert_eq!((world.peers[player].undecryptable, &world.heard.ended[..]), (0, &[][..]));
}

/// What Chromium does: the offer of a restart opens new sockets, and until the answer has come they check our old ufrag in the
/// name of their new one. A pair of such a check would be nominated, and die with our old credentials.
#[test]
fn a_peer_that_waits_for_the_answer_to_its_restart_gets_no_pair_by_the_old_one() {
    let (mut world, publisher, player) = watched();
    let (home, first) = (world.peers[player].address, world.peers[player].ufrag.clone());
    let unknown = |world: &mut World| world.report(0).dropped[DropReason::StunUnknownUfrag as usize];

    world.peers[player].ufrag = AGAIN.into();
    world.peers[player].address = ([10, 7, 7, 7], 777).into();
    world.peers[player].check();
    world.run(FRAME);
    assert_eq!(unknown(&mut world), 1, "before the PATCH");
    world.peers[player].address = home;
    frames(&mut world, publisher, 5, false);
    assert_whole(&world, player, 10);

    let ice = world.restart_ice(0, player, AGAIN);
    world.peers[player].address = ([10, 7, 7, 7], 777).into();
    world.peers[player].check();
    world.run(FRAME);
    assert_eq!(unknown(&mut world), 2, "after it");
    world.peers[player].restart_ice(&first, ice.clone());
    world.peers[player].check();
    world.run(FRAME);
    assert_eq!(unknown(&mut world), 3, "nor by our new one in the name of its old one");

    world.peers[player].restart_ice(AGAIN, ice);
    world.peers[player].check();
    world.peers[player].send_rtcp(|w| w.receiver_report(1, &[]).unwrap());
    world.run(FRAME);
    frames(&mut world, publisher, 5, false);
    assert_whole(&world, player, 15);
    assert_eq!(unknown(&mut world), 3);
}

#[test]
fn a_publisher_goes_on_from_another_network() {
    let (mut world, publisher, player) = watched();
    let ice = world.restart_ice(0, publisher, AGAIN);
    world.peers[publisher].restart_ice(AGAIN, ice);
    world.peers[publisher].address = ([10, 8, 8, 8], 888).into();
    world.peers[publisher].check();
    world.run(FRAME);
    frames(&mut world, publisher, 20, false);
    assert_whole(&world, player, 25);
    assert_eq!(world.heard.states, [TableState::Live], "no player is told of it");
}

#[test]
fn a_restart_before_the_first_pair_is_as_good_as_any() {
    let (mut world, publisher, _) = watched();
    let player = world.add_player(0);
    let ice = world.restart_ice(0, player, AGAIN);
    world.peers[player].restart_ice(AGAIN, ice);
    world.connect(player);
    frames(&mut world, publisher, 5, true);
    assert!(world.peers[player].received_on(VIDEO_SSRC).len() >= 15);
}

#[test]
fn the_old_credentials_are_good_for_30_seconds() {
    let (mut world, _, player) = watched();
    let (first, old) = (world.peers[player].ufrag.clone(), world.peers[player].remote_ice());
    let new = world.restart_ice(0, player, AGAIN);
    world.peers[player].restart_ice(AGAIN, new);
    world.run(Duration::from_millis(29_900));
    world.peers[player].sends_checks = false;
    world.peers[player].restart_ice(&first, old);
    let unknown = |world: &mut World| world.report(0).dropped[DropReason::StunUnknownUfrag as usize];
    world.peers[player].check();
    world.run(FRAME);
    assert_eq!(unknown(&mut world), 0);
    world.run(Duration::from_millis(100));
    world.peers[player].check();
    world.run(FRAME);
    assert_eq!(unknown(&mut world), 1);
}

/// RFC 9725 §4.3.3: the session MUST be terminated if consent expires as a consequence of the failed restart.
#[test]
fn a_restart_that_the_peer_does_not_follow_ends_with_its_consent() {
    let (mut world, _, player) = watched();
    world.restart_ice(0, player, AGAIN);
    world.run(Duration::from_secs(45));
    assert_eq!(world.heard.ended, [], "the old credentials counted for 30 s, and consent lasts 20 s more");
    world.run(Duration::from_secs(6));
    assert_eq!(world.heard.ended, [(world.peers[player].key.unwrap(), EndCause::ConsentExpired)]);
}

//! Every frame that a player does not get is on the ledger, with where it was lost.

use std::time::Duration;

use tableside::shard::{DropReason, PeerMessage, TableReport};

use crate::world::{Side, World};

const PACKETS: usize = 3;
const FRAME: Duration = Duration::from_millis(33);

/// A table at home on the first of two shards, with two players there and three on the other.
fn table() -> (World, usize) {
    let mut world = World::new(2);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    for shard in [0, 0, 1, 1, 1] {
        let player = world.add_player(shard);
        world.connect(player);
    }
    play(&mut world, publisher, 30);
    (world, publisher)
}

fn play(world: &mut World, publisher: usize, frames: usize) {
    for n in 0..frames {
        world.publish_frame(publisher, PACKETS, n == 0);
        world.run(FRAME);
    }
}

/// The table as each shard has counted it.
fn reports(world: &mut World) -> [TableReport; 2] {
    [0, 1].map(|shard| world.report(shard).tables["roulette"].clone())
}

/// Frames for players: forwarded, and lost by ingest loss, in queues of the node, and by its overload.
fn counts(world: &mut World) -> [[u64; 4]; 2] {
    reports(world).map(|table| {
        let lost = [table.frames_dropped_ingest_loss, table.frames_dropped_node_queue];
        [table.frames_forwarded, lost[0], lost[1], table.frames_dropped_node_overload]
    })
}

/// Loses each `n`-th of the next frames' second packets for good, `times` times.
fn lose_frames(world: &mut World, publisher: usize, times: usize) {
    for _ in 0..times {
        let datagrams = world.peers[publisher].frame(PACKETS, false);
        for (n, datagram) in datagrams.into_iter().enumerate() {
            if n != 1 {
                world.send(datagram);
            }
        }
        world.deliver();
        world.run(FRAME);
    }
}

#[test]
fn what_comes_is_forwarded_to_each_player() {
    let (mut world, publisher) = table();
    let before = counts(&mut world);
    play(&mut world, publisher, 60);
    let after = counts(&mut world);
    assert_eq!([after[0][0] - before[0][0], after[1][0] - before[1][0]], [2 * 60, 3 * 60]);
    assert!(after.iter().all(|counts| counts[1..] == [0; 3]), "{after:?}");
    let [home, away] = reports(&mut world);
    assert_eq!((home.frames_ingested, away.frames_ingested), (90, 0), "the publisher's are counted once");
}

#[test]
fn what_the_publisher_lost_is_lost_for_each_player() {
    let (mut world, publisher) = table();
    lose_frames(&mut world, publisher, 4);
    play(&mut world, publisher, 60);
    let [home, away] = counts(&mut world);
    assert_eq!((&home[1..], &away[1..]), (&[2 * 4, 0, 0][..], &[3 * 4, 0, 0][..]));
    assert_eq!(reports(&mut world)[0].frames_lost_before_ingest, 4);
}

#[test]
fn what_was_lost_while_receive_buffers_overflow_is_the_node_s_own() {
    let (mut world, publisher) = table();
    lose_frames(&mut world, publisher, 2);
    world.shards[0].dropped(DropReason::ReceiveBufferFull, 2);
    play(&mut world, publisher, 40);
    let [home, away] = counts(&mut world);
    assert_eq!((&home[1..], &away[1..]), (&[0, 0, 2 * 2][..], &[0, 0, 3 * 2][..]));
    // And no more when that is over.
    play(&mut world, publisher, 90);
    lose_frames(&mut world, publisher, 1);
    play(&mut world, publisher, 40);
    assert_eq!(counts(&mut world)[0][1..], [2, 0, 2 * 2]);
}

#[test]
fn what_a_full_queue_between_shards_loses_is_the_node_s_own() {
    let (mut world, publisher) = table();
    let mut n = 0;
    world.between = Box::new(move |message| {
        let is_media = matches!(message, PeerMessage::Media { track: tableside::shard::TrackId::Video(_), .. });
        n += usize::from(is_media);
        !(is_media && n <= 5 * PACKETS && n % PACKETS == 2)
    });
    play(&mut world, publisher, 60);
    let [home, away] = counts(&mut world);
    assert_eq!((&home[1..], &away[1..]), (&[0; 3][..], &[0, 3 * 5, 0][..]));
    // Together with what the publisher lost, each stays where it was.
    lose_frames(&mut world, publisher, 2);
    play(&mut world, publisher, 60);
    assert_eq!(counts(&mut world)[1][1..], [3 * 2, 3 * 5, 0]);
}

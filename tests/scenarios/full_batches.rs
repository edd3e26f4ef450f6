//! A send batch may be full at any point: work goes on with the next, nothing is lost, sealed twice or out of bounds.

use std::collections::HashMap;
use std::time::Duration;

use tableside::fanout::{MAX_DATAGRAM, SendBatch, TrafficClass};
use tableside::rtc::TransportAddress;
use tableside::shard::{EndCause, Role};

use crate::world::{Dealer, Dice, Side, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

/// Players who have had a keyframe, and a shard that has the next frame for them, of so many packets.
fn about_to_send(players: usize, packets: u16) -> (World, Vec<usize>) {
    let mut world = World::new(1);
    let (now, table) = (world.now, world.table.clone());
    world.shards[0].add_local_publisher(now, &table, Dealer::media());
    let players = (0..players).map(|_| world.add_player(0)).collect();
    world.connect_all();
    let mut dealer = Dealer::new(packets, 1000);
    for keyframe in [true, false] {
        for packet in dealer.next_frame(keyframe) {
            world.shards[0].handle_local(world.now, table.id, packet);
        }
        if keyframe {
            world.run(FRAME);
        }
    }
    (world, players)
}

/// Every packet is smaller than the next, so none can share a message with the one before it.
#[test]
fn a_burst_of_joiners_fits_however_few_messages_there_are() {
    let mut world = World::new(1);
    world.batch_size = Some((512 * 1024, 20));
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    for n in 0..40 {
        let packets = world.peers[publisher].sized_frame(&[200 + 20 * n], n == 0);
        packets.into_iter().for_each(|d| world.send(d));
        world.run(FRAME);
    }
    let players: Vec<usize> = (0..30).map(|_| world.add_player(0)).collect();
    world.connect_all();
    world.run(Duration::from_secs(1));
    for player in players {
        assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 40);
    }
}

/// A run that is cut in two costs a system call's message more: who no longer fits whole waits for the next batch.
#[test]
fn a_frame_to_a_player_is_one_run_wherever_a_batch_ends() {
    const PACKETS: usize = 9;
    let (mut world, _) = about_to_send(5, PACKETS as u16);
    // Room for two and a half players.
    let mut batch = SendBatch::with_capacity(5 * PACKETS * MAX_DATAGRAM / 2, 100);
    let mut runs = Vec::new();
    while world.shards[0].poll_transmit(world.now, &mut batch) {
        runs.extend(batch.messages().iter().map(|message| message.segments()));
    }
    assert_eq!(runs, [PACKETS; 5]);
}

/// A frame for many players leaves in slices, between which an answer to a bet, or a goodbye, need not wait.
#[test]
fn control_goes_out_in_the_midst_of_a_frame() {
    const PLAYERS: usize = 150;
    let (mut world, players) = about_to_send(PLAYERS, 2);
    let shard = &mut world.shards[0];
    let mut batch = SendBatch::with_capacity(512 * 1024, 512);
    assert!(shard.poll_transmit(world.now, &mut batch));
    let first = batch.messages().len();
    assert!(first < PLAYERS / 2, "{first} players at once");
    shard.close_session(world.now, world.peers[players[PLAYERS - 1]].key.expect("a session"), EndCause::Deleted);
    assert!(shard.poll_transmit(world.now, &mut batch));
    assert!(
        batch.messages().iter().all(|message| message.class == TrafficClass::Data),
        "the goodbye goes before the rest"
    );
    let mut rest = 0;
    while shard.poll_transmit(world.now, &mut batch) {
        rest += batch.messages().len();
    }
    assert_eq!(first + rest, PLAYERS - 1, "all but who has left");
}

/// DTLS is read between the slices of a frame: who says goodbye there costs nobody a part of it, wherever he is in the list of players,
/// and is gone afterwards.
#[test]
fn who_leaves_in_the_midst_of_a_frame_leaves_after_it() {
    const PLAYERS: usize = 150;
    for leaver in [0, 20, PLAYERS - 1] {
        let (mut world, players) = about_to_send(PLAYERS, 2);
        let peer = &mut world.peers[players[leaver]];
        peer.close();
        let goodbye = peer.take_outgoing();
        assert!(!goodbye.is_empty());
        let mut batch = SendBatch::with_capacity(512 * 1024, 512);
        assert!(world.shards[0].poll_transmit(world.now, &mut batch));
        let mut to = vec![];
        let mut note = |batch: &SendBatch| {
            let video = batch.messages().iter().filter(|message| message.class == TrafficClass::Video);
            to.extend(video.map(|message| message.destination));
        };
        note(&batch);
        for mut datagram in goodbye {
            world.shards[0].handle_datagram(world.now, TransportAddress::udp(datagram.from), &mut datagram.bytes);
        }
        assert_eq!(world.report(0).sessions[Role::Player as usize], PLAYERS as u64, "it is in the lists");
        while world.shards[0].poll_transmit(world.now, &mut batch) {
            note(&batch);
        }
        let mut expected: Vec<_> = players.iter().map(|player| world.peers[*player].address).collect();
        if leaver == PLAYERS - 1 {
            expected.pop();
        }
        assert!(to == expected, "each who is there its frame, once");
        assert_eq!(world.report(0).sessions[Role::Player as usize], PLAYERS as u64 - 1);
        assert_eq!(world.report(0).ended[Role::Player as usize][EndCause::PeerClosed as usize], 1);
    }
}

/// What comes late comes to everybody, also where it does not fit into one batch.
#[test]
fn late_packets_wait_for_the_next_batch() {
    let mut world = World::new(1);
    let publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let players: Vec<usize> = (0..12).map(|_| world.add_player(0)).collect();
    world.connect_all();
    world.publish_frame(publisher, 9, true);
    world.run(FRAME);
    world.batch_size = Some((20 * MAX_DATAGRAM, 20));
    let (from, mut n) = (world.peers[publisher].address, 0);
    world.network = Box::new(move |datagram| {
        n += usize::from(datagram.from == from && datagram.bytes.len() > 500);
        let late = datagram.from == from && n < 30 && n % 3 == 0;
        Some(Duration::from_millis(if late { 200 } else { 0 }))
    });
    for _ in 0..5 {
        world.publish_frame(publisher, 9, false);
        world.run(FRAME);
    }
    world.run(Duration::from_secs(1));
    for player in players {
        assert_eq!(world.peers[player].received_on(VIDEO_SSRC).len(), 6 * 9, "player {player}");
    }
}

/// Loss, reordering, joins, NACKs, a republished table; and a batch so small that flushes stop at every point.
#[test]
fn no_nonce_is_used_twice_when_flushes_are_interrupted() {
    for seed in 0..12 {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut world = World::new(2);
    let mut dice = Dice::new(seed);
    let messages = 16 + dice.below(20);
    world.batch_size = Some((messages * (MAX_DATAGRAM + 2), messages));
    let mut publisher = world.add_publisher(Side::Client);
    world.connect(publisher);
    let mut network = Dice::new(seed ^ 0x77);
    world.network = Box::new(move |d| {
        let media = d.bytes[0] >= 128 && d.bytes.len() > 150;
        match network.below(20) {
            0 if media => None,
            1..4 if media => Some(Duration::from_millis(network.below(60) as u64)),
            _ => Some(Duration::from_millis(1)),
        }
    });
    let mut players = Vec::new();
    let republished = 40 + dice.below(40);
    for n in 0..110_usize {
        if n % 6 == 3 {
            players.push(world.add_player(n % 2));
        }
        if n == republished {
            // In mid-flow: packets of the old one may still be on their way.
            world.run(Duration::from_millis(1500));
            publisher = world.add_publisher(Side::Client);
            world.connect(publisher);
        }
        let sizes: Vec<usize> = (0..1 + dice.below(14)).map(|_| 100 + dice.below(1000)).collect();
        let packets = world.peers[publisher].sized_frame(&sizes, n % 25 == 0 || n == republished);
        packets.into_iter().for_each(|d| world.send(d));
        for player in &players {
            let newest = world.peers[*player].received_on(VIDEO_SSRC).last().map(|r| r.sequence_number);
            if let Some(newest) = newest.filter(|_| dice.below(4) == 0) {
                let lost: Vec<u16> = (0..20).map(|i| newest.wrapping_sub(i * 2)).collect();
                world.peers[*player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, lost).unwrap());
            }
        }
        world.run(Duration::from_millis(10 + dice.below(25) as u64));
    }
    world.run(Duration::from_secs(1));
    let mut packets = 0;
    for player in players {
        let peer = &world.peers[player];
        assert_eq!(peer.undecryptable, 0, "seed {seed}: a repeated index is a replay to the receiver");
        let mut seen: HashMap<(u32, u64), &[u8]> = HashMap::new();
        for packet in &peer.received {
            packets += 1;
            let before = seen.insert((packet.ssrc, packet.index), &packet.wire);
            assert!(before.is_none(), "seed {seed}: index {} twice", packet.index);
        }
    }
    assert!(packets > 1000, "seed {seed}: only {packets} packets, the scenario is broken");
}

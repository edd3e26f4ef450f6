//! A send batch may be full at any point: work goes on with the next, nothing is lost, sealed twice or out of bounds.

use std::collections::HashMap;
use std::time::Duration;

use tableside::fanout::MAX_DATAGRAM;

use crate::world::{Dice, Side, VIDEO_SSRC, World};

const FRAME: Duration = Duration::from_millis(33);

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

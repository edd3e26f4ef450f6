//! Networks that lose, delay, reorder and repeat, on either side of the node: everything arrives once, and soon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::world::{Datagram, VIDEO_RTX_SSRC, VIDEO_SSRC, World};

const PACKETS: usize = 3;
const MS: Duration = Duration::from_millis(1);

/// A publisher that keeps what it has sent, and sends it again when it is asked.
#[derive(Default)]
struct Keeper {
    kept: BTreeMap<u16, Datagram>,
    asked: usize,
}

impl Keeper {
    fn publish(&mut self, world: &mut World, publisher: usize, keyframe: bool) {
        let first = world.peers[publisher].sequence;
        for (n, datagram) in world.peers[publisher].frame(PACKETS, keyframe).into_iter().enumerate() {
            if n < PACKETS {
                self.kept.insert(first.wrapping_add(n as u16), datagram.clone());
            }
            world.send(datagram);
        }
    }

    fn answer(&mut self, world: &mut World, publisher: usize) {
        let nacks = world.peers[publisher].nacks();
        world.peers[publisher].reports.clear();
        self.asked += nacks.len();
        for datagram in nacks.iter().filter_map(|number| self.kept.get(number)) {
            world.send(datagram.clone());
        }
    }
}

#[test]
fn what_a_bad_way_to_the_node_does_no_player_sees() {
    for (up, seed) in [
        ("delay=20ms loss=5%", 1),
        ("delay=20ms jitter=15ms burst=5%/3 reorder=2%/15ms duplicate=1%", 2),
        ("delay=100ms loss=3%", 3),
    ] {
        let (mut world, publisher, player) = World::watched();
        world.link(publisher, 0, up, "delay=20ms loss=5%", seed);
        let mut keeper = Keeper::default();
        for n in 0..600 {
            keeper.publish(&mut world, publisher, n % 60 == 0);
            for _ in 0..33 {
                world.run(MS);
                keeper.answer(&mut world, publisher);
            }
        }
        for _ in 0..1500 {
            world.run(MS);
            keeper.answer(&mut world, publisher);
        }
        let mut indexes: Vec<u64> = world.peers[player].received_on(VIDEO_SSRC).iter().map(|p| p.index).collect();
        indexes.sort_unstable();
        let first = indexes[0];
        assert_eq!(indexes, (first..first + 600 * PACKETS as u64).collect::<Vec<_>>(), "{up}: each once");
        assert!(keeper.asked > 20, "{up}: {} packets were asked for", keeper.asked);
        let report = world.report(0).tables["roulette"].clone();
        assert_eq!(report.frames_dropped_ingest_loss, 0, "{up}");
        // The player may have waited for the first one to be repaired.
        assert!(report.keyframe_requests_sent <= 1, "{up}: {} requests", report.keyframe_requests_sent);
    }
}

/// A player that asks for what is missing, again after each round trip, as browsers do.
#[derive(Default)]
struct Receiver {
    has: BTreeSet<u64>,
    taken: usize,
}

impl Receiver {
    /// Takes what has come since the last time.
    fn take(&mut self, world: &World, player: usize) {
        for packet in &world.peers[player].received[self.taken..] {
            match (packet.ssrc, self.has.last()) {
                (VIDEO_SSRC, _) => _ = self.has.insert(packet.index),
                (VIDEO_RTX_SSRC, Some(newest)) => {
                    // RFC 4588 §4: the original sequence number comes first.
                    let number = u16::from_be_bytes([packet.payload[0], packet.payload[1]]);
                    let back = (*newest as u16).wrapping_sub(number).cast_signed();
                    self.has.insert(newest.wrapping_sub_signed(back.into()));
                }
                _ => {}
            }
        }
        self.taken = world.peers[player].received.len();
    }

    fn missing(&self) -> Vec<u64> {
        let (Some(first), Some(last)) = (self.has.first(), self.has.last()) else { return Vec::new() };
        (*first..*last).filter(|index| !self.has.contains(index)).collect()
    }

    fn ask(&self, world: &mut World, player: usize) {
        let missing = self.missing();
        if !missing.is_empty() {
            let numbers = missing.iter().map(|index| *index as u16);
            world.peers[player].send_rtcp(|w| w.nack(1, VIDEO_SSRC, numbers).unwrap());
        }
    }
}

#[test]
fn what_a_bad_way_to_the_player_loses_is_repaired() {
    for (down, seed) in [
        ("delay=40ms loss=5%", 1),
        ("delay=40ms loss=10%", 2),
        ("delay=40ms jitter=30ms burst=5%/4", 3),
        ("delay=10ms burst=10%/8 duplicate=2%", 4),
    ] {
        let (mut world, publisher, player) = World::watched();
        world.link(player, 0, "delay=40ms loss=5%", down, seed);
        let mut receiver = Receiver::default();
        for n in 0..600 {
            world.publish_frame(publisher, PACKETS, n % 60 == 0);
            for tick in 0..33 {
                world.run(MS);
                if (33 * n + tick) % 100 == 0 {
                    receiver.take(&world, player);
                    receiver.ask(&mut world, player);
                }
            }
        }
        // One more, so that the last ones are seen to be missing.
        for _ in 0..10 {
            world.publish_frame(publisher, PACKETS, false);
            world.run(200 * MS);
            receiver.take(&world, player);
            receiver.ask(&mut world, player);
        }
        let (first, last) = (*receiver.has.first().unwrap(), *receiver.has.last().unwrap());
        assert!(last - first >= 600 * PACKETS as u64, "{down}: {first} to {last}");
        let old: Vec<u64> = receiver.missing().into_iter().filter(|index| index + 20 < last).collect();
        assert!(old.is_empty(), "{down}: never repaired: {old:?}");
        let report = world.report(0).tables["roulette"].clone();
        assert!(report.retransmissions > 20, "{down}");
        assert_eq!(report.retransmissions_missed, 0, "{down}: the ring has had them all");
        assert_eq!(world.peers[publisher].plis(), 0, "{down}: no keyframe was needed");
    }
}

/// Each asks for a keyframe as long as it has nothing, five times a second.
#[test]
fn a_hundred_joiners_within_a_second_on_bad_links_cost_the_publisher_two_keyframes_at_most() {
    let (mut world, publisher, _) = World::watched();
    for n in 0..60 {
        world.publish_frame(publisher, PACKETS, n == 0);
        world.run(33 * MS);
    }
    let before = world.peers[publisher].plis();
    let mut joiners = Vec::new();
    for n in 0..100 {
        let player = world.add_player(0);
        world.link(player, 0, "delay=20ms loss=5%", "delay=20ms loss=5%", 100 + n);
        joiners.push((player, Receiver::default()));
        if n % 3 == 0 {
            world.publish_frame(publisher, PACKETS, false);
        }
        world.run(10 * MS);
    }
    for n in 0..90 {
        world.publish_frame(publisher, PACKETS, false);
        world.run(33 * MS);
        for (player, receiver) in &mut joiners {
            if !world.peers[*player].is_connected() {
                continue;
            }
            receiver.take(&world, *player);
            if n % 3 == 0 {
                receiver.ask(&mut world, *player);
            }
            if receiver.has.is_empty() && n % 6 == 0 {
                world.peers[*player].send_rtcp(|w| w.pli(1, VIDEO_SSRC).unwrap());
            }
        }
    }
    assert!(world.peers[publisher].plis() - before <= 2, "{} requests", world.peers[publisher].plis() - before);
    for (player, receiver) in &joiners {
        let (first, last) = (receiver.has.first(), receiver.has.last());
        assert!(last > first, "player {player} sees the table");
        assert!(receiver.missing().len() < 20, "player {player} misses {:?}", receiver.missing());
    }
}

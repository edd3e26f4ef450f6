//! A hostile player with keys, and strangers, beside a publisher and a player that do nothing wrong: whatever the former
//! do, the latter lose no packet, get none that does not open, and are not sent away.

use std::time::Duration;

use super::shard::Node;
use crate::input::Input;

const MOST_EVENTS: usize = 300;
const FRAMES: usize = 10;
const PACKETS: usize = 3;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut node = Node::new(&mut input, false);
    for _ in 0..MOST_EVENTS {
        if input.is_empty() {
            break;
        }
        node.hostile_event(&mut input);
    }
    node.check_books();
    assert_unhurt(&mut node);
    node.end();
}

fn assert_unhurt(node: &mut Node) {
    let (publisher, watcher) = (node.publisher, node.watcher);
    // What is on its way arrives.
    node.world.run(Duration::from_millis(5));
    let before = node.world.peers[watcher].received.len();
    for frame in 0..FRAMES {
        node.world.publish_frame(publisher, PACKETS, frame == 5);
        node.world.run(Duration::from_millis(10));
    }
    let received = node.world.peers[watcher].received.len() - before;
    assert_eq!(received, FRAMES * (PACKETS + 1), "packets of the frames and of audio");
    for honest in [publisher, watcher] {
        let peer = &node.world.peers[honest];
        assert_eq!(peer.undecryptable, 0);
        assert!(!peer.closed);
        assert!(node.world.heard.ended.iter().all(|(key, _)| Some(*key) != peer.key), "an honest peer was sent away");
    }
    let mut indices: Vec<(u32, u64)> = node.world.peers[watcher].received.iter().map(|r| (r.ssrc, r.index)).collect();
    let count = indices.len();
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), count, "a packet came twice");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    super::shard::hostile_seeds()
}

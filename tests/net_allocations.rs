//! Once warm, sending and receiving take nothing from the heap.
// A global allocator cannot be written without.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use tableside::fanout::{SendBatch, TrafficClass};
use tableside::net::{RecvBatch, ShardSocket, UdpOptions};
use tableside::rtc::TransportAddress;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator; the counter neither allocates nor needs to be dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRAMES: usize = 200;
const PLAYERS: usize = 3;
const PACKETS: usize = 9;

fn fill(batch: &mut SendBatch, players: &[SocketAddr]) {
    batch.clear();
    for player in players.iter().copied().map(TransportAddress::udp) {
        for _ in 0..PACKETS {
            batch.push(player, TrafficClass::Video, 1150, |_| 1150);
        }
        batch.push(player, TrafficClass::Audio, 100, |_| 100);
    }
    // Refused by the kernel: errors must not allocate either.
    batch.push(TransportAddress::udp(([127, 0, 0, 1], 0).into()), TrafficClass::Video, 100, |_| 100);
}

#[tokio::test]
async fn send_and_receive_do_not_allocate() {
    let bind = || ShardSocket::bind(([127, 0, 0, 1], 0).into(), &UdpOptions::default()).expect("loopback").0;
    let (mut node, mut player) = (bind(), bind());
    let players = [player.local_address(); PLAYERS];
    let mut batch = SendBatch::with_capacity(64 * 1024, 64);
    let mut received = RecvBatch::new();

    let before_warm_up = ALLOCATIONS.get();
    assert!(before_warm_up > 0, "the counter counts");
    let mut warm = 0;
    for frame in 0..FRAMES {
        if frame == 1 {
            warm = ALLOCATIONS.get();
        }
        fill(&mut batch, &players);
        let outcome = node.send_batch(&batch);
        assert_eq!((outcome.datagrams, outcome.dropped_error), ((PLAYERS * (PACKETS + 1)) as u64, 1));
        let mut left = PLAYERS * (PACKETS + 1);
        while left > 0 {
            player.readable().await.expect("runtime");
            player.recv_batch(&mut received).expect("receives");
            left -= received.datagrams_mut().map(|(_, bytes)| assert!(!bytes.is_empty())).count();
        }
    }
    assert_eq!(ALLOCATIONS.get() - warm, 0, "allocations in {FRAMES} frames");
}

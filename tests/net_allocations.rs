//! Once warm, sending and receiving take nothing from the heap.
// A global allocator cannot be written without.
#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "connections are admitted at some instant")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tableside::fanout::{SendBatch, TrafficClass};
use tableside::net::{IceTcp, RecvBatch, ShardSocket, TcpOptions, UdpOptions, Waiter};
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

const LIMIT: Duration = Duration::from_secs(10);
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

/// Packets over TCP come and go without the heap as well, a whole frame in a write.
#[test]
fn tcp_does_not_allocate_once_warm() {
    let mut node = IceTcp::bind(([127, 0, 0, 1], 0).into(), TcpOptions::default()).expect("loopback");
    let beside = ShardSocket::bind(node.local_address(), &UdpOptions::default()).expect("loopback").0;
    let mut waiter = Waiter::new(&beside, Some(&node)).expect("descriptors");
    let mut player = TcpStream::connect(node.local_address()).expect("loopback");
    let address = TransportAddress::tcp(player.local_addr().expect("bound"));
    let mut batch = SendBatch::with_capacity(64 * 1024, 64);
    let mut stream = vec![0; PACKETS * (2 + 1150)];
    let mut end_and_beginning = [7; 102];
    end_and_beginning[100..].copy_from_slice(&[0, 100]);
    player.write_all(&[0, 100]).expect("room");
    let (now, mut warm) = (Instant::now(), 0);
    for frame in 0..FRAMES {
        if frame == 1 {
            warm = ALLOCATIONS.get();
        }
        // The end of a packet and the beginning of the next one: something is always kept between two reads.
        player.write_all(&end_and_beginning).expect("room");
        let mut came = 0;
        while came == 0 {
            assert!(waiter.wait(LIMIT).expect("waits").tcp);
            node.receive(now, |_, packet| {
                came += packet.len();
                true
            });
        }
        batch.clear();
        (0..PACKETS).for_each(|_| batch.push(address, TrafficClass::Video, 1150, |_| 1150));
        assert_eq!(node.send_batch(&batch).datagrams, PACKETS as u64);
        player.read_exact(&mut stream).expect("a frame");
    }
    assert_eq!(ALLOCATIONS.get() - warm, 0, "allocations in {FRAMES} frames");
}

#[test]
fn send_and_receive_do_not_allocate() {
    let bind = || ShardSocket::bind(([127, 0, 0, 1], 0).into(), &UdpOptions::default()).expect("loopback").0;
    let (mut node, mut player) = (bind(), bind());
    let mut waiter = Waiter::new(&player, None).expect("descriptors");
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
            assert!(waiter.wait(LIMIT).expect("waits").datagrams);
            player.recv_batch(&mut received).expect("receives");
            left -= received.datagrams_mut().map(|(_, bytes)| assert!(!bytes.is_empty())).count();
        }
    }
    assert_eq!(ALLOCATIONS.get() - warm, 0, "allocations in {FRAMES} frames");
}

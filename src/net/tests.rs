//! Sockets over loopback: what one sends is what the other receives.

use std::collections::HashSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use socket2::{Domain, Protocol, Socket, Type};

use super::sys::receive_traffic_class;
use super::{Arrivals, Dscp, Markings, RecvBatch, RtcpLane, ShardSocket, UdpOptions, Waiter};
use crate::fanout::{SendBatch, TrafficClass};
use crate::rtc::TransportAddress;
use crate::rtc::demux::{PacketKind, classify};

const LIMIT: Duration = Duration::from_secs(10);
const V4: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const ANY: (Ipv6Addr, u16) = (Ipv6Addr::UNSPECIFIED, 0);
const V6: (Ipv6Addr, u16) = (Ipv6Addr::LOCALHOST, 0);

fn bind(address: impl Into<SocketAddr>) -> ShardSocket {
    ShardSocket::bind(address.into(), &UdpOptions::default()).expect("loopback").0
}

fn push(batch: &mut SendBatch, destination: SocketAddr, fill: u8, len: usize) {
    batch.push(TransportAddress::udp(destination), TrafficClass::Video, len, |out| {
        out.fill(fill);
        len
    });
}

/// The address at which a peer on this host reaches a socket bound to `[::]`.
fn over_ipv4(socket: &ShardSocket) -> SocketAddr {
    (V4.0, socket.local_address().port()).into()
}

/// The next `count` datagrams: source, first byte, length.
fn receive(socket: &mut ShardSocket, count: usize) -> Vec<(SocketAddr, u8, usize)> {
    let mut batch = RecvBatch::new();
    let mut found = Vec::new();
    while found.len() < count {
        wait(socket);
        socket.recv_batch(&mut batch).expect("receives");
        assert_eq!(batch.len(), batch.datagrams_mut().count());
        found.extend(batch.datagrams_mut().map(|(from, d)| {
            assert!(d.iter().all(|&b| b == d[0]), "a datagram was cut in the wrong place");
            (from.socket, d[0], d.len())
        }));
    }
    found
}

fn wait(socket: &ShardSocket) {
    let mut waiter = Waiter::new(socket, None).expect("descriptors");
    assert!(waiter.wait(LIMIT).expect("waits").datagrams, "datagrams arrive");
}

#[test]
fn runs_of_mixed_sizes_arrive_whole_and_in_order() {
    let (mut from, mut a, mut b) = (bind(V4), bind(V4), bind(V4));
    let mut batch = SendBatch::with_capacity(200_000, 64);
    let sizes = [1150, 1150, 1150, 700, 1150, 80, 1, 1200, 1200, 1200, 1200, 3];
    for to in [&a, &b] {
        sizes.iter().enumerate().for_each(|(i, &len)| push(&mut batch, to.local_address(), i as u8, len));
    }
    let outcome = from.send_batch(&batch);
    assert_eq!(outcome.datagrams, 24);
    assert_eq!(outcome.bytes, 2 * sizes.iter().sum::<usize>() as u64);
    assert_eq!(outcome.runs, batch.messages().len() as u64);
    assert_eq!((outcome.dropped_buffer_full, outcome.dropped_error), (0, 0));

    let expected: Vec<_> = sizes.iter().enumerate().map(|(i, &len)| (from.local_address(), i as u8, len)).collect();
    assert_eq!(receive(&mut a, 12), expected);
    assert_eq!(receive(&mut b, 12), expected);
    assert_eq!(a.receive_drops().expect("SO_MEMINFO"), 0);
}

#[test]
fn the_longest_run_arrives_in_one_message() {
    let (mut from, mut to) = (bind(V4), bind(V4));
    let mut batch = SendBatch::with_capacity(100_000, 8);
    (0..64).for_each(|i| push(&mut batch, to.local_address(), i, 1000));
    assert_eq!(from.send_batch(&batch).runs, 1);

    wait(&to);
    let mut received = RecvBatch::with_capacity(1, 65_536);
    to.recv_batch(&mut received).expect("receives");
    assert_eq!(received.len(), 64);
    assert!(received.datagrams_mut().enumerate().all(|(i, (_, d))| d.len() == 1000 && d[0] == i as u8));
}

#[test]
fn a_destination_that_cannot_be_reached_does_not_hold_up_the_others() {
    let (mut from, mut a, mut b) = (bind(ANY), bind(V4), bind(V4));
    let (a_address, b_address) = (a.local_address(), b.local_address());
    let mut batch = SendBatch::with_capacity(100_000, 64);
    // Port 0 and, without SO_BROADCAST, the broadcast address are refused whatever routes the host has.
    let unreachable = [SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from(([255, 255, 255, 255], 9))];
    for to in [a_address, unreachable[0], a_address, unreachable[1], b_address] {
        (0..3).for_each(|i| push(&mut batch, to, i, 500));
    }
    let outcome = from.send_batch(&batch);
    assert_eq!((outcome.datagrams, outcome.dropped_error, outcome.dropped_buffer_full), (9, 6, 0));
    assert!(from.offloads_segmentation(), "one bad destination must not cost the others their runs");
    assert_eq!(receive(&mut a, 6).len(), 6);
    assert_eq!(receive(&mut b, 3).len(), 3);
}

#[test]
fn a_closed_port_costs_nothing_but_what_is_sent_to_it() {
    let closed = bind(V4).local_address();
    let (mut from, mut to) = (bind(V4), bind(V4));
    let mut batch = SendBatch::with_capacity(10_000, 8);
    for destination in [closed, to.local_address(), closed, to.local_address()] {
        push(&mut batch, destination, 7, 100);
    }
    for _ in 0..2 {
        assert_eq!(from.send_batch(&batch).datagrams, 4);
    }
    assert_eq!(receive(&mut to, 4).len(), 4);
}

#[test]
fn a_dual_stack_socket_speaks_both_and_names_ipv4_peers_as_such() {
    let (mut node, mut v4, mut v6) = (bind(ANY), bind(V4), bind(V6));
    let port = node.local_address().port();
    let mut batch = SendBatch::with_capacity(10_000, 8);

    push(&mut batch, over_ipv4(&node), 4, 100);
    v4.send_batch(&batch);
    assert_eq!(receive(&mut node, 1), [(v4.local_address(), 4, 100)]);

    batch.clear();
    push(&mut batch, (V6.0, port).into(), 6, 100);
    v6.send_batch(&batch);
    assert_eq!(receive(&mut node, 1), [(v6.local_address(), 6, 100)]);

    batch.clear();
    for to in [&v4, &v6] {
        (0..4).for_each(|i| push(&mut batch, to.local_address(), i, 900));
    }
    assert_eq!(node.send_batch(&batch).runs, 2);
    assert_eq!(receive(&mut v4, 4)[3], (over_ipv4(&node), 3, 900));
    assert_eq!(receive(&mut v6, 4)[3], ((V6.0, port).into(), 3, 900));
}

#[test]
fn what_does_not_fit_one_receive_is_there_at_the_next() {
    let (mut from, mut to) = (bind(V4), bind(V4));
    let mut batch = SendBatch::with_capacity(10_000, 16);
    // Each longer than the one before, so that neither side joins them to a run.
    (1..=10).for_each(|i| push(&mut batch, to.local_address(), i, usize::from(i)));
    assert_eq!(from.send_batch(&batch).runs, 10);

    let mut received = RecvBatch::with_capacity(4, 2048);
    let mut counts = Vec::new();
    wait(&to);
    while to.recv_batch(&mut received).expect("receives") {
        counts.push(received.len());
    }
    counts.push(received.len());
    assert_eq!(counts, [4, 4, 2]);
}

#[test]
fn empty_and_overlong_datagrams_are_counted_and_dropped() {
    let mut to = bind(V4);
    let from = std::net::UdpSocket::bind(SocketAddr::from(V4)).expect("loopback");
    for len in [0, 101, 100] {
        from.send_to(&vec![1; len], to.local_address()).expect("sends");
    }
    wait(&to);
    let mut received = RecvBatch::with_capacity(8, 100);
    to.recv_batch(&mut received).expect("receives");
    assert_eq!(received.datagrams_mut().map(|(_, d)| d.len()).collect::<Vec<_>>(), [100]);
    assert_eq!((received.take_unusable(), received.take_unusable()), (2, 0));
}

#[test]
fn nothing_to_receive_is_no_error() {
    let (mut socket, mut batch) = (bind(V4), RecvBatch::new());
    assert!(!socket.recv_batch(&mut batch).expect("not an error"));
    assert!(RtcpLane::ALL.into_iter().all(|lane| !socket.recv_rtcp(lane, &mut batch).expect("not an error")));
    assert!(batch.is_empty());
}

/// Sends each, in order; over loopback they are there when this returns.
fn send_each(to: &ShardSocket, datagrams: &[&[u8]]) {
    let from = std::net::UdpSocket::bind(SocketAddr::from(V4)).expect("loopback");
    for datagram in datagrams {
        from.send_to(datagram, over_ipv4(to)).expect("sends");
    }
}

#[test]
fn rtcp_and_encrypted_records_come_apart_from_all_else_and_reports_from_requests() {
    for address in [SocketAddr::from(V4), SocketAddr::from(ANY)] {
        let mut to = bind(address);
        let others: [&[u8]; 9] =
            [&[0, 1], &[22, 254], &[0x80, 96], &[0x80, 191], &[0x80, 224], &[0x80], &[0x40, 200], &[0xc0, 200], &[200]];
        // NACK, PLI, FIR, BYE, a sender report, the first and last types there may be.
        let requests: [&[u8]; 7] =
            [&[0x81, 205], &[0x81, 206], &[0x84, 206], &[0x81, 203], &[0x80, 200], &[0x8f, 192], &[0x8f, 223]];
        // Receiver reports of one and 15 streams, extended reports, transport-wide feedback with padding, REMB.
        let reports: [&[u8]; 5] = [&[0x81, 201], &[0x8f, 201], &[0x80, 207], &[0xaf, 205], &[0x8f, 206]];
        // Application data of DTLS 1.2, and the unified headers of DTLS 1.3.
        let data: [&[u8]; 4] = [&[23, 254], &[0x20], &[0x3f, 200], &[0x2c, 205]];
        for datagrams in [&others[..], &requests, &reports, &data] {
            send_each(&to, datagrams);
        }
        let mut waiter = Waiter::new(&to, None).expect("descriptors");
        let arrivals = waiter.wait(LIMIT).expect("waits");
        assert_eq!(arrivals, Arrivals { datagrams: true, data: true, rtcp: [true, true], ..Arrivals::default() });

        let mut batch = RecvBatch::with_capacity(16, 64);
        to.recv_batch(&mut batch).expect("receives");
        assert_eq!(batch.datagrams_mut().map(|(_, d)| &*d).collect::<Vec<_>>(), others);
        to.recv_rtcp(RtcpLane::Requests, &mut batch).expect("receives");
        assert_eq!(batch.datagrams_mut().map(|(_, d)| &*d).collect::<Vec<_>>(), requests);
        to.recv_rtcp(RtcpLane::Reports, &mut batch).expect("receives");
        assert_eq!(batch.datagrams_mut().map(|(_, d)| &*d).collect::<Vec<_>>(), reports);
        to.recv_data(&mut batch).expect("receives");
        assert_eq!(batch.datagrams_mut().map(|(_, d)| &*d).collect::<Vec<_>>(), data);
        assert_eq!(waiter.wait(Duration::ZERO).expect("waits"), Arrivals::default());
        send_each(&to, &data);
        for _ in 0..2 {
            let data = Arrivals { data: true, ..Arrivals::default() };
            assert_eq!(waiter.wait(LIMIT).expect("waits"), data, "until it is read");
        }
    }
}

#[test]
fn the_kernel_tells_rtcp_and_encrypted_records_by_the_same_rule_as_we_do() {
    let mut to = bind(V4);
    let mut batch = RecvBatch::with_capacity(64, 64);
    let (mut rtcp, mut data, mut others) = (0, 0, 0);
    for first in [0, 3, 20, 22, 23, 24, 31, 32, 63, 64, 127, 128, 129, 160, 191, 192, 255] {
        let datagrams: Vec<[u8; 2]> = (0..=255).map(|second| [first, second]).collect();
        send_each(&to, &datagrams.iter().map(|d| &d[..]).collect::<Vec<_>>());
        for lane in RtcpLane::ALL {
            while to.recv_rtcp(lane, &mut batch).expect("receives") || !batch.is_empty() {
                assert!(batch.datagrams_mut().all(|(_, d)| classify(d) == PacketKind::Rtcp));
                rtcp += batch.len();
            }
        }
        while to.recv_data(&mut batch).expect("receives") || !batch.is_empty() {
            assert!(batch.datagrams_mut().all(|(_, d)| classify(d) == PacketKind::Dtls));
            data += batch.len();
        }
        while to.recv_batch(&mut batch).expect("receives") || !batch.is_empty() {
            assert!(batch.datagrams_mut().all(|(_, d)| classify(d) != PacketKind::Rtcp));
            others += batch.len();
        }
    }
    assert_eq!((rtcp, data, others), (4 * 32, 3 * 256, 14 * 256 - 4 * 32));
}

#[test]
fn rtcp_wakes_once_for_each_time_it_is_watched() {
    for (lane, datagram) in [(RtcpLane::Requests, [0x81, 205]), (RtcpLane::Reports, [0x81, 201])] {
        let to = bind(V4);
        let mut waiter = Waiter::new(&to, None).expect("descriptors");
        let mut arrivals = Arrivals::default();
        arrivals.rtcp[lane as usize] = true;
        send_each(&to, &[&datagram]);
        assert_eq!(waiter.wait(LIMIT).expect("waits"), arrivals);
        send_each(&to, &[&datagram]);
        assert_eq!(waiter.wait(Duration::from_millis(20)).expect("waits"), Arrivals::default(), "nobody watches");
        waiter.watch_rtcp(&to, lane).expect("watches");
        assert_eq!(waiter.wait(LIMIT).expect("waits"), arrivals, "what came meanwhile is there");
    }
}

#[test]
fn a_report_comes_with_the_time_of_its_arrival() {
    const LATER: Duration = Duration::from_millis(30);
    for address in [SocketAddr::from(V4), SocketAddr::from(ANY)] {
        let mut to = bind(address);
        let mut batch = RecvBatch::with_capacity(4, 64);
        let deadline = Instant::now() + LIMIT;
        // The kernel begins to stamp a little after it is asked to; until then the time is that of the reading.
        let (now, later) = loop {
            let before = SystemTime::now();
            send_each(&to, &[&[0x81, 201], &[0x81, 205]]);
            let (now, later) = (Instant::now(), SystemTime::now() + LATER);
            to.recv_rtcp(RtcpLane::Reports, &mut batch).expect("receives");
            let age = now.duration_since(batch.stamped_mut(now, later).next().expect("has arrived").0);
            assert!(age <= later.duration_since(before).expect("no step"), "{age:?}");
            if age >= LATER {
                break (now, later);
            }
            assert!(now < deadline, "never stamped");
        };
        // A wall clock that was set meanwhile does no harm.
        let hour = Duration::from_secs(3600);
        for (clock, most) in [(later - hour, 0), (later + hour, 500)] {
            let at = batch.stamped_mut(now, clock).next().expect("is still there").0;
            assert_eq!(now.duration_since(at), Duration::from_millis(most));
        }
        to.recv_rtcp(RtcpLane::Requests, &mut batch).expect("receives");
        assert_eq!(batch.stamped_mut(now, later).next().expect("has arrived").0, now, "these carry no stamp");
    }
}

#[test]
fn a_sleeping_thread_can_be_woken_and_a_thread_about_to_sleep_too() {
    let socket = bind(V4);
    let mut waiter = Waiter::new(&socket, None).expect("descriptors");
    let rung = Arrivals { rung: true, ..Arrivals::default() };
    let waker = waiter.waker();
    waker.wake_by_ref();
    waker.wake_by_ref();
    assert_eq!(waiter.wait(LIMIT).expect("waits"), rung);
    assert_eq!(waiter.wait(Duration::ZERO).expect("waits"), Arrivals::default(), "however often it was rung");
    std::thread::scope(|threads| {
        threads.spawn(|| waker.wake_by_ref());
        assert_eq!(waiter.wait(LIMIT).expect("waits"), rung);
    });
}

#[test]
fn ports_that_the_system_chooses_differ() {
    let sockets: Vec<ShardSocket> = (0..64).map(|_| bind(V4)).collect();
    let ports: HashSet<u16> = sockets.iter().map(|socket| socket.local_address().port()).collect();
    assert_eq!(ports.len(), sockets.len());
}

/// A plain receiver on `domain`'s loopback that is told the traffic class octet of what it receives.
fn octet_reader(domain: Domain) -> (Socket, SocketAddr) {
    let address = if domain == Domain::IPV4 { SocketAddr::from(V4) } else { SocketAddr::from(V6) };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).expect("socket");
    socket.bind(&address.into()).expect("loopback");
    if domain == Domain::IPV4 {
        socket.set_recv_tos_v4(true).expect("IP_RECVTOS");
    } else {
        socket.set_recv_tclass_v6(true).expect("IPV6_RECVTCLASS");
    }
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let address = socket.local_addr().expect("bound").as_socket().expect("IP");
    (socket, address)
}

#[test]
fn each_class_of_traffic_carries_its_marking() {
    let af42 = Dscp::new(36).expect("a code point");
    for (domain, bound) in [
        (Domain::IPV4, SocketAddr::from(V4)),
        (Domain::IPV4, SocketAddr::from(ANY)),
        (Domain::IPV6, SocketAddr::from(ANY)),
    ] {
        let markings = Markings { video: af42, data: Dscp::new(40).expect("a code point"), ..Markings::default() };
        let options = UdpOptions { markings, ..UdpOptions::default() };
        let (mut from, report) = ShardSocket::bind(bound, &options).expect("loopback");
        assert!(report.iter().any(|setting| setting.name == "dscp" && setting.ok));
        let (reader, to) = octet_reader(domain);
        let mut batch = SendBatch::with_capacity(10_000, 8);
        for class in [TrafficClass::Data, TrafficClass::Audio, TrafficClass::Video, TrafficClass::Control] {
            // Two, so that run and marking go in one control buffer.
            (0..2).for_each(|_| batch.push(TransportAddress::udp(to), class, 200, |_| 200));
        }
        assert_eq!(from.send_batch(&batch).runs, 4);
        let octets: Vec<_> = (0..8).map(|_| receive_traffic_class(reader.as_fd()).expect("receives")).collect();
        let expected = [40, 46, 36, 36].map(|code_point| [code_point << 2; 2]).concat();
        assert_eq!(octets, expected, "{domain:?} from {bound}");
    }
}

#[test]
fn the_report_says_what_the_socket_got() {
    let options = UdpOptions { receive_buffer: 64 << 10, send_buffer: 64 << 10, ..UdpOptions::default() };
    let (socket, report) = ShardSocket::bind(V4.into(), &options).expect("loopback");
    let find = |name: &str| report.iter().find(|setting| setting.name == name).expect("reported");
    assert!(find("receive_buffer").ok && find("send_buffer").ok, "{report:?}");
    assert_eq!(find("send_buffer").found, "65536");
    assert_eq!(socket.offloads_segmentation(), find("gso").ok);

    let greedy = UdpOptions { receive_buffer: usize::MAX, ..UdpOptions::default() };
    let (_socket, report) = ShardSocket::bind(V4.into(), &greedy).expect("a refused buffer is no error");
    assert!(!report.iter().find(|setting| setting.name == "receive_buffer").expect("reported").ok);
}

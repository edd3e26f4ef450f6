//! Connections over loopback: what peers may do, and what it costs them and others.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::frame::{MAX_PACKET, PREFIX};
use super::{ACCEPT_PAUSE, IceTcp, PROOF_WITHIN, TcpEnd, TcpOptions};
use crate::fanout::{SendBatch, TrafficClass};
use crate::net::Dscp;
use crate::net::sys;
use crate::rtc::TransportAddress;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const LIMIT: Duration = Duration::from_secs(10);

/// The listener, in a time of its own, and who came by it.
struct Node {
    tcp: IceTcp,
    now: Instant,
    /// The first byte of packets whose sender is known.
    known: Option<u8>,
    received: Vec<(SocketAddr, Vec<u8>)>,
}

impl Node {
    fn new(options: TcpOptions) -> Self {
        Self::at(LOOPBACK, options)
    }

    fn at(address: SocketAddr, options: TcpOptions) -> Self {
        let tcp = IceTcp::bind(address, options).expect("loopback");
        Self { tcp, now: Instant::now(), known: None, received: Vec::new() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp.local_address()).expect("loopback");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream
    }

    /// Turns until `condition` holds.
    fn until(&mut self, mut condition: impl FnMut(&Self) -> bool) {
        let (mut set, mut ready) = (sys::Epoll::new().expect("descriptors"), Vec::new());
        set.add(self.tcp.as_fd(), 0, sys::Wanted::Reading).expect("can be watched");
        while !condition(self) {
            set.wait(&mut ready, LIMIT).expect("waits");
            assert!(!ready.is_empty(), "happens in time");
            self.turn();
        }
    }

    fn turn(&mut self) {
        let (known, received) = (self.known, &mut self.received);
        self.tcp.receive(self.now, |peer, packet| {
            received.push((peer, packet.to_vec()));
            known.is_none_or(|first| packet[0] == first)
        });
    }

    fn ended(&self, cause: TcpEnd) -> u64 {
        self.tcp.report().ended[cause as usize]
    }

    fn connections(&self) -> u64 {
        self.tcp.report().connections
    }

    /// Sends packets of these lengths to `peer`, each filled with its number.
    fn send(&mut self, peer: SocketAddr, lens: &[usize]) -> super::SendOutcome {
        let mut batch = SendBatch::with_capacity(lens.iter().sum::<usize>().max(1), lens.len());
        for (n, &len) in lens.iter().enumerate() {
            batch.push(TransportAddress::tcp(peer), TrafficClass::Video, len, |out| {
                out.fill(n as u8);
                len
            });
        }
        self.tcp.send_batch(&batch)
    }
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u16).to_be_bytes()[..], packet].concat()
}

fn read_packet(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut prefix = [0; PREFIX];
    match stream.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
        Err(error) => panic!("{error}"),
    }
    let mut packet = vec![0; usize::from(u16::from_be_bytes(prefix))];
    stream.read_exact(&mut packet).expect("a whole packet");
    Some(packet)
}

/// It is closed, by an end or by a reset.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn packets_go_both_ways_over_both_families() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let mut node = Node::at(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), TcpOptions::default());
        let port = node.tcp.local_address().port();
        let mut peer = TcpStream::connect(SocketAddr::new(ip, port)).expect("loopback");
        peer.set_read_timeout(Some(LIMIT)).expect("a timeout");
        peer.write_all(&[framed(&[1; 100]), framed(&[2; MAX_PACKET])].concat()).expect("room");
        node.until(|node| node.received.len() == 2);
        let address = peer.local_addr().expect("bound");
        assert_eq!(node.received, [(address, vec![1; 100]), (address, vec![2; MAX_PACKET])]);

        let outcome = node.send(address, &[1200, 1200, 700, 20]);
        assert_eq!((outcome.datagrams, outcome.bytes, outcome.dropped_buffer_full), (4, 3120, 0));
        for (n, len) in [1200, 1200, 700, 20].into_iter().enumerate() {
            assert_eq!(read_packet(&mut peer), Some(vec![n as u8; len]));
        }
    }
}

#[test]
fn who_is_not_known_by_the_first_packet_is_closed() {
    let mut node = Node::new(TcpOptions::default());
    node.known = Some(7);
    let (mut stranger, mut friend) = (node.connect(), node.connect());
    stranger.write_all(&[framed(&[1; 40]), framed(&[7; 40])].concat()).expect("room");
    friend.write_all(&framed(&[7; 40])).expect("room");
    node.until(|node| node.received.len() == 2 && node.ended(TcpEnd::NoCheck) == 1);
    assert!(is_closed(&mut stranger));
    assert_eq!((node.connections(), node.tcp.poll_gone()), (1, None));
    // A session that ends takes its connection with it, at the next packet at the latest.
    friend.write_all(&framed(&[8; 40])).expect("room");
    node.until(|node| node.ended(TcpEnd::SessionEnded) == 1);
    assert!(is_closed(&mut friend));
}

#[test]
fn who_says_nothing_is_closed_in_time() {
    let mut node = Node::new(TcpOptions::default());
    let (mut silent, mut half, mut friend) = (node.connect(), node.connect(), node.connect());
    half.write_all(&framed(&[7; 40])[..41]).expect("room");
    friend.write_all(&framed(&[7; 40])).expect("room");
    node.until(|node| node.connections() == 3 && node.received.len() == 1);
    assert_eq!(node.tcp.poll_timeout(), Some(node.now + PROOF_WITHIN));
    node.tcp.handle_timeout(node.now + PROOF_WITHIN - Duration::from_millis(1));
    assert_eq!(node.connections(), 3);
    node.tcp.handle_timeout(node.now + PROOF_WITHIN);
    assert_eq!((node.connections(), node.ended(TcpEnd::NoCheck)), (1, 2));
    assert!(is_closed(&mut silent) && is_closed(&mut half));
    assert_eq!(node.tcp.poll_timeout(), None, "who has proved itself may be silent");
}

#[test]
fn a_claim_that_is_too_long_is_the_end() {
    let mut node = Node::new(TcpOptions::default());
    let mut peer = node.connect();
    peer.write_all(&framed(&[7; 40])).expect("room");
    peer.write_all(&u16::MAX.to_be_bytes()).expect("room");
    node.until(|node| node.ended(TcpEnd::FrameTooLong) == 1);
    assert!(is_closed(&mut peer));
    assert_eq!(node.tcp.poll_gone(), Some(peer.local_addr().expect("bound")), "its session loses the path");
}

#[test]
fn a_peer_that_closes_is_gone() {
    let mut node = Node::new(TcpOptions::default());
    let mut peer = node.connect();
    peer.write_all(&framed(&[7; 40])).expect("room");
    node.until(|node| node.received.len() == 1);
    peer.shutdown(Shutdown::Both).expect("open");
    node.until(|node| node.ended(TcpEnd::Peer) == 1);
    let address = peer.local_addr().expect("bound");
    assert_eq!((node.tcp.poll_gone(), node.tcp.poll_gone()), (Some(address), None));
    assert_eq!(node.send(address, &[10, 10]).dropped_error, 2, "nobody is there");
}

#[test]
fn the_oldest_unproven_makes_room_and_the_proven_do_not() {
    let mut node = Node::new(TcpOptions { max_connections: 2, ..TcpOptions::default() });
    let (mut friend, mut squatter) = (node.connect(), node.connect());
    friend.write_all(&framed(&[7; 40])).expect("room");
    node.until(|node| node.connections() == 2 && node.received.len() == 1);
    let mut second = node.connect();
    second.write_all(&framed(&[7; 40])).expect("room");
    node.until(|node| node.received.len() == 2);
    assert!(is_closed(&mut squatter));
    let mut third = node.connect();
    node.until(|node| node.ended(TcpEnd::Full) == 1);
    assert!(is_closed(&mut third));
    assert_eq!((node.connections(), node.ended(TcpEnd::Displaced), node.tcp.report().accepted), (2, 1, 4));
}

#[test]
fn one_address_gets_so_many_and_no_more() {
    let mut node = Node::new(TcpOptions { max_per_address: 2, ..TcpOptions::default() });
    let (first, _second, mut third) = (node.connect(), node.connect(), node.connect());
    node.until(|node| node.ended(TcpEnd::AddressLimit) == 1);
    assert!(is_closed(&mut third));
    drop(first);
    node.until(|node| node.ended(TcpEnd::Peer) == 1);
    let _fourth = node.connect();
    node.until(|node| node.connections() == 2);
    assert_eq!(node.ended(TcpEnd::AddressLimit), 1);
}

#[test]
fn a_host_without_descriptors_is_asked_again_after_a_pause() {
    let mut node = Node::new(TcpOptions::default());
    node.tcp.pause_accepting(node.now);
    let mut friend = node.connect();
    friend.write_all(&framed(&[7; 40])).expect("room");
    assert_eq!(node.tcp.poll_timeout(), Some(node.now + ACCEPT_PAUSE));
    node.turn();
    assert_eq!((node.connections(), node.ended(TcpEnd::NoResources)), (0, 1));
    node.tcp.handle_timeout(node.now + ACCEPT_PAUSE);
    node.until(|node| node.received.len() == 1);
}

#[test]
fn an_ipv6_network_counts_as_one_host() {
    let of = |ip: &str| super::network(ip.parse().expect("an address"));
    assert_eq!(of("2001:db8::1:2:3:4"), of("2001:db8::5:6:7:8"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
}

/// A reader that does not read fills the kernel's buffers and ours; what goes missing are whole packets.
#[test]
fn a_full_queue_drops_whole_packets_and_never_half_of_one() {
    let mut node = Node::new(TcpOptions::default());
    let mut peer = node.connect();
    peer.write_all(&framed(&[7; 40])).expect("room");
    node.until(|node| node.received.len() == 1);
    let address = peer.local_addr().expect("bound");
    let (mut sent, mut dropped, mut batches) = (0, 0, 0);
    while dropped < 100 {
        let outcome = node.send(address, &[1153; 50]);
        assert_eq!(outcome.datagrams + outcome.dropped_buffer_full, 50);
        (sent, dropped, batches) = (sent + outcome.datagrams, dropped + outcome.dropped_buffer_full, batches + 1);
        assert!(batches < 10_000, "neither the kernel nor the queue is without limit");
    }
    let reader = std::thread::spawn(move || {
        let mut packets = 0;
        while let Some(packet) = read_packet(&mut peer) {
            assert!(packet.len() == 1153 && packet.iter().all(|b| *b == packet[0]), "packet {packets} is whole");
            packets += 1;
        }
        packets
    });
    // The queue drains as the reader reads; then there is room again.
    node.until(|node| !node.tcp.places.iter().flatten().any(|c| c.is_queueing()));
    let outcome = node.send(address, &[1153]);
    sent += outcome.datagrams;
    node.tcp.close(address);
    assert_eq!(reader.join().expect("reads"), sent);
}

#[test]
fn a_connection_is_marked_whatever_it_carries() {
    let af42 = Dscp::new(36).expect("a code point");
    for address in [LOOPBACK, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)] {
        let mut node = Node::at(address, TcpOptions { marking: af42, ..TcpOptions::default() });
        let port = node.tcp.local_address().port();
        let _peer = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("loopback");
        node.until(|node| node.connections() == 1);
        let connection = node.tcp.places.iter().flatten().next().expect("it stands");
        let tos = sys::option(connection.socket().as_fd(), libc::IPPROTO_IP, libc::IP_TOS).expect("IP_TOS");
        assert_eq!(tos, 36 << 2);
        if address.is_ipv6() {
            let class = sys::option(connection.socket().as_fd(), libc::IPPROTO_IPV6, libc::IPV6_TCLASS);
            assert_eq!(class.expect("IPV6_TCLASS"), 36 << 2);
        }
    }
}

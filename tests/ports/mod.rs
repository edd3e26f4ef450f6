//! Ports for processes that tests start.

use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first of `count` ports that are free over UDP and TCP. They are below those that the system gives to whoever asks for any
/// (`net.ipv4.ip_local_port_range`), so that nobody has them a moment later; other tests of this process get others.
pub fn free_ports(count: u16) -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let is_free = |port: u16| {
        let (udp, tcp) = ((Ipv6Addr::UNSPECIFIED, port), (Ipv6Addr::UNSPECIFIED, port));
        UdpSocket::bind(udp).is_ok() && TcpListener::bind(tcp).is_ok()
    };
    loop {
        let offset = TAKEN.fetch_add(count, Ordering::Relaxed);
        let first = 20_000 + (std::process::id() as u16 % 5_000) + offset;
        assert!(first < 32_000, "free ports");
        if (first..first + count).all(is_free) {
            return first;
        }
    }
}

//! The addresses that a peer may reach the host at, for ICE candidates.

use std::io;
use std::net::IpAddr;

use super::sys::{self, InterfaceAddress};

/// Interfaces that lead to containers and virtual machines on this very host, by the beginning of their names.
const VIRTUAL_INTERFACES: [&str; 12] =
    ["docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "cilium", "lxc", "podman", "kube-", "nodelocaldns"];

/// The host's own addresses, IPv4 before IPv6, each in the kernel's order; loopback last, and only if asked for.
///
/// Left out: interfaces that are down, bridges to containers and virtual machines, and link-local addresses, since an
/// IPv6 one needs a zone that the peer cannot know.
///
/// RFC 8445 §5.1.1.1: "Addresses from a loopback interface MUST NOT be included in the candidate addresses." A gateway
/// for peers on its own host, as in a demonstration, is the reason to ask for them all the same.
///
/// # Errors
/// The host does not list its interfaces.
pub fn host_addresses(loopback: bool) -> io::Result<Vec<IpAddr>> {
    Ok(reachable(sys::interface_addresses()?, loopback))
}

fn reachable(found: Vec<InterfaceAddress>, loopback: bool) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for InterfaceAddress { interface, running, address } in found {
        let wanted = if address.is_loopback() { loopback } else { is_routable(address) && !is_virtual(&interface) };
        if running && wanted && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    addresses
}

fn is_virtual(interface: &str) -> bool {
    VIRTUAL_INTERFACES.iter().any(|prefix| interface.starts_with(prefix))
}

fn is_routable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !link_local && !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(interface: &str, address: &str) -> InterfaceAddress {
        InterfaceAddress { interface: interface.to_owned(), running: true, address: address.parse().expect("address") }
    }

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|a| a.parse().expect("address")).collect()
    }

    #[test]
    fn ipv4_comes_first_and_loopback_last() {
        let found = || {
            vec![
                on("lo", "127.0.0.1"),
                on("lo", "::1"),
                on("eth0", "2001:db8::7"),
                on("eth0", "203.0.113.7"),
                on("eth1", "10.0.0.7"),
            ]
        };
        assert_eq!(reachable(found(), false), addresses(&["203.0.113.7", "10.0.0.7", "2001:db8::7"]));
        assert_eq!(
            reachable(found(), true),
            addresses(&["203.0.113.7", "10.0.0.7", "2001:db8::7", "127.0.0.1", "::1"])
        );
    }

    #[test]
    fn what_no_peer_can_reach_is_left_out() {
        let mut found = vec![
            on("docker0", "172.17.0.1"),
            on("br-0123456789ab", "172.18.0.1"),
            on("virbr0", "192.168.122.1"),
            on("eth0", "169.254.3.4"),
            on("eth0", "fe80::1"),
            on("eth0", "198.51.100.1"),
            on("wg0", "198.51.100.1"),
        ];
        found.push(InterfaceAddress { running: false, ..on("eth1", "198.51.100.2") });
        assert_eq!(reachable(found, true), addresses(&["198.51.100.1"]));
    }

    #[test]
    fn the_kernel_lists_loopback_on_request() {
        let localhost = IpAddr::from([127, 0, 0, 1]);
        assert!(host_addresses(true).expect("getifaddrs").contains(&localhost));
        assert!(!host_addresses(false).expect("getifaddrs").contains(&localhost));
    }
}

//! Whom a request comes from, where a proxy stands between: X-Forwarded-For, or Forwarded (RFC 7239).

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::config::{Network, ProxyHeader};

/// More proxies than this are in no chain; a client may send any number of lines.
const MOST_HOPS: usize = 32;

/// The client behind `peer`, the other end of the connection.
///
/// Only what a trusted proxy says is believed: each adds, at the end, whom it heard the request from. So the chain is
/// read backwards for as long as its members are trusted. What stands before was written by anybody.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, header: ProxyHeader, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    if !is_trusted(client) {
        return client;
    }
    for hop in hops(headers, header).into_iter().rev().take(MOST_HOPS) {
        // `unknown`, an obfuscated name, nonsense: whoever said that is the last one known.
        let Some(address) = hop else { return client };
        client = address;
        if !is_trusted(client) {
            return client;
        }
    }
    client
}

/// The chain as it was written, the client first; `None` for a member without an address.
fn hops(headers: &HeaderMap, header: ProxyHeader) -> Vec<Option<IpAddr>> {
    let name = match header {
        ProxyHeader::XForwardedFor => "x-forwarded-for",
        ProxyHeader::Forwarded => "forwarded",
    };
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or(""));
    match header {
        ProxyHeader::XForwardedFor => lines.flat_map(|line| line.split(',')).map(address).collect(),
        ProxyHeader::Forwarded => lines.flat_map(|line| split(line, ',')).map(forwarded_for).collect(),
    }
}

/// The address of a forwarded-element (RFC 7239 §4).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = split(element, ';').into_iter();
    let mut named = pairs.filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = named.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    // RFC 7239 §4: a node with a colon or brackets is quoted. No address has a backslash to undo.
    let bare = node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node);
    address(bare)
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711` (RFC 7239 §6).
fn address(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let bracketed = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    node.parse().ok().or_else(|| node.parse::<SocketAddr>().ok().map(|a| a.ip())).or_else(bracketed)
}

/// `text` at each `separator` outside quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c: char| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return c == separator && !quoted,
        }
        false
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trusted() -> Vec<Network> {
        ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|network| network.parse().unwrap()).to_vec()
    }

    fn client_of(peer: &str, header: ProxyHeader, name: &'static str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        client(peer.parse().unwrap(), &headers, header, &trusted()).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_say_is_believed() {
        for (peer, lines, expected) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["6.6.6.6", "203.0.113.9,10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, garbage, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.9:1234"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("::ffff:10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("2001:db8:ffff::1", &["203.0.113.9"], "203.0.113.9"),
        ] {
            assert_eq!(client_of(peer, ProxyHeader::XForwardedFor, "x-forwarded-for", lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_the_rfc_writes_it() {
        for (lines, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
            (&["host=\"a,b;for=6.6.6.6\";for=192.0.2.43"], "192.0.2.43"),
            (&["host=\"\\\",for=6.6.6.6\";for=192.0.2.43"], "192.0.2.43"),
            (&["for=192.0.2.43, for=\"_gazonk\""], "10.0.0.1"),
            (&["for=unknown"], "10.0.0.1"),
            (&["proto=https"], "10.0.0.1"),
        ] {
            assert_eq!(client_of("10.0.0.1", ProxyHeader::Forwarded, "forwarded", lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_other_header_is_not_looked_at() {
        assert_eq!(client_of("10.0.0.1", ProxyHeader::XForwardedFor, "forwarded", &["for=6.6.6.6"]), "10.0.0.1");
        assert_eq!(client_of("10.0.0.1", ProxyHeader::Forwarded, "x-forwarded-for", &["6.6.6.6"]), "10.0.0.1");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_text_panics(text in "([ -~]|for=|\"|,|;|\\\\|10\\.0\\.0\\.2){0,30}", forwarded: bool) {
            let (header, name) = match forwarded {
                true => (ProxyHeader::Forwarded, "forwarded"),
                false => (ProxyHeader::XForwardedFor, "x-forwarded-for"),
            };
            client_of("10.0.0.1", header, name, &[&text]);
        }

        #[test]
        fn what_is_written_is_read(bits: u128, v4: bool, port: Option<u16>) {
            let ip = if v4 { IpAddr::from((bits as u32).to_be_bytes()) } else { IpAddr::from(bits.to_be_bytes()) };
            let node = port.map_or_else(|| ip.to_string(), |port| SocketAddr::new(ip, port).to_string());
            prop_assert_eq!(address(&node), Some(ip));
            prop_assert_eq!(forwarded_for(&format!("for=\"{node}\"")), Some(ip));
        }
    }
}

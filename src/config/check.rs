//! Ranges, and values that exclude each other.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::identity::Jurisdictions;

use super::sections::Media;
use super::{Audit, Config, MaxLayer};

/// A value that is refused.
pub(super) struct Problem {
    /// `section.key`
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

type Checked = Result<(), Problem>;

/// # Errors
/// The first value that is out of its range.
pub(super) fn check(config: &Config) -> Checked {
    http(config)?;
    media(config)?;
    sessions(config)?;
    auth(config)?;
    audit(config)?;
    tables(config)?;
    config.traces.check()?;
    bet_service(config)
}

fn http(config: &Config) -> Checked {
    within("http.max_sdp_bytes", config.http.max_sdp_bytes as u128, 4096..=1 << 20)?;
    within("http.request_timeout_ms", config.http.request_timeout.as_millis(), 100..=60_000)?;
    for server in &config.http.ice_servers {
        server.check().or_else(|message| refuse("http.ice_servers", message))?;
    }
    connections(config)?;
    let (public, admin) = (config.http.listen, config.admin.listen);
    let same_host = public.ip() == admin.ip() || public.ip().is_unspecified() || admin.ip().is_unspecified();
    if public.port() != 0 && public.port() == admin.port() && same_host {
        return refuse(
            "admin.listen",
            format!("{admin} collides with http.listen, {public}; give it a port of its own"),
        );
    }
    Ok(())
}

fn connections(config: &Config) -> Checked {
    let http = &config.http;
    within("http.max_header_bytes", http.max_header_bytes as u128, 8192..=1 << 18)?;
    within("http.header_timeout_ms", http.header_timeout.as_millis(), 100..=60_000)?;
    within("http.idle_timeout_s", http.idle_timeout.as_secs().into(), 1..=3600)?;
    within("http.max_connections", http.max_connections as u128, 1..=1_000_000)?;
    within("http.max_connections_per_address", http.max_connections_per_address as u128, 1..=1_000_000)?;
    within("http.max_streams_per_connection", http.max_streams_per_connection.into(), 1..=1000)?;
    within("http.requests_per_second_per_address", http.requests_per_second_per_address.into(), 0..=1_000_000)?;
    within("http.request_burst_per_address", http.request_burst_per_address.into(), 1..=1_000_000)?;
    within("http.tls.handshake_timeout_ms", http.tls.handshake_timeout.as_millis(), 100..=60_000)?;
    within("admin.max_connections", config.admin.max_connections as u128, 1..=100_000)?;
    match (&http.tls.certificate, &http.tls.key) {
        (Some(_), None) => refuse("http.tls.certificate", ONE_OF_TWO.replace("THIS", "key")),
        (None, Some(_)) => refuse("http.tls.key", ONE_OF_TWO.replace("THIS", "certificate")),
        _ => Ok(()),
    }
}

const ONE_OF_TWO: &str = "is set and http.tls.THIS is not; HTTPS needs both, plain HTTP neither";

fn media(config: &Config) -> Checked {
    let media = &config.media;
    within("media.first_port", media.first_port.into(), 1..=65_535)?;
    within("media.shards", media.shards as u128, 0..=256)?;
    if usize::from(media.first_port) + media.shards.max(1) - 1 > 65_535 {
        let message = format!("{} shards from port {} need ports above 65535", media.shards, media.first_port);
        return refuse("media.first_port", message);
    }
    announced(media)?;
    within("media.receive_buffer_bytes", media.receive_buffer_bytes as u128, 65_536..=1 << 30)?;
    within("media.send_buffer_bytes", media.send_buffer_bytes as u128, 65_536..=1 << 30)?;
    within("media.ring_packets", media.ring_packets as u128, 256..=32_768)?;
    if !media.ring_packets.is_power_of_two() {
        return refuse("media.ring_packets", format!("{} is not a power of two, such as 2048", media.ring_packets));
    }
    within("media.dscp.audio", media.dscp.audio.into(), 0..=63)?;
    within("media.dscp.video", media.dscp.video.into(), 0..=63)?;
    within("media.dscp.data", media.dscp.data.into(), 0..=63)?;
    within("media.tcp.max_connections_per_shard", media.tcp.max_connections_per_shard as u128, 1..=100_000)?;
    within("media.tcp.max_connections_per_address", media.tcp.max_connections_per_address as u128, 1..=100_000)
}

/// Every address makes a candidate or two in each section of each answer.
const MAX_ANNOUNCED: usize = 8;

fn announced(media: &Media) -> Checked {
    let key = "media.announce";
    if media.announce.len() > MAX_ANNOUNCED {
        return refuse(key, format!("{} addresses; at most {MAX_ANNOUNCED} are allowed", media.announce.len()));
    }
    for (n, ip) in media.announce.iter().enumerate() {
        let reason = match ip {
            _ if ip.is_unspecified() || ip.is_multicast() => "is no address that players can send to",
            IpAddr::V4(v4) if v4.is_broadcast() => "is no address that players can send to",
            IpAddr::V6(v6) if v6.is_unicast_link_local() => "means another host on each link (link-local)",
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "is an IPv4 address in disguise; write it as one",
            // RFC 8445 §5.2: at most one candidate for each IP address.
            _ if media.announce[..n].contains(ip) => "is there twice",
            IpAddr::V6(_) if media.listen.is_ipv4() => "cannot be reached: media.listen is an IPv4 address",
            IpAddr::V4(_) if media.listen.is_ipv6() && !media.listen.is_unspecified() => {
                "cannot be reached: media.listen is an IPv6 address"
            }
            _ => continue,
        };
        return refuse(key, format!("{ip} {reason}"));
    }
    Ok(())
}

fn sessions(config: &Config) -> Checked {
    let sessions = &config.sessions;
    within("sessions.setup_timeout_ms", sessions.setup_timeout.as_millis(), 1000..=120_000)?;
    within("sessions.consent_timeout_s", sessions.consent_timeout.as_secs().into(), 5..=120)?;
    within("sessions.publisher_grace_s", sessions.publisher_grace.as_secs().into(), 0..=3600)?;
    within("sessions.max_players_per_shard", sessions.max_players_per_shard as u128, 1..=1_000_000)?;
    within("sessions.max_shard_utilisation_percent", sessions.max_shard_utilisation_percent.into(), 10..=100)?;
    within("sessions.offers_at_once", sessions.offers_at_once as u128, 0..=1024)?;
    within("sessions.offers_waiting", sessions.offers_waiting as u128, 0..=100_000)?;
    within("sessions.offer_wait_ms", sessions.offer_wait.as_millis(), 0..=60_000)?;
    within("sessions.max_half_open_per_shard", sessions.max_half_open_per_shard as u128, 1..=1_000_000)?;
    within("sessions.max_half_open_per_address", sessions.max_half_open_per_address as u128, 1..=1_000_000)
}

fn auth(config: &Config) -> Checked {
    let auth = &config.auth;
    within("auth.jwks_refresh_s", auth.jwks_refresh.as_secs().into(), 10..=86_400)?;
    within("auth.leeway_s", auth.leeway.as_secs().into(), 0..=300)?;
    if auth.jwks_file.is_some() && auth.jwks_url.is_some() {
        return refuse("auth.jwks_url", "is set and so is auth.jwks_file; keys come from one place".to_owned());
    }
    if auth.jwks_ca_file.is_some() && auth.jwks_url.is_none() {
        return refuse("auth.jwks_ca_file", "is for auth.jwks_url, which is not set".to_owned());
    }
    for (key, name) in [("auth.issuer", &auth.issuer), ("auth.audience", &auth.audience)] {
        if name.as_ref().is_some_and(String::is_empty) {
            return refuse(key, "is empty; leave it out instead".to_owned());
        }
    }
    match auth.jurisdictions.iter().find(|name| !Jurisdictions::is_name(name)) {
        Some(name) => refuse(
            "auth.jurisdictions",
            format!("{name:?} is no jurisdiction; a name has 1 to {} visible ASCII characters", Jurisdictions::MAX),
        ),
        None => Ok(()),
    }
}

fn audit(config: &Config) -> Checked {
    let audit = &config.audit;
    if let Some(node) = audit.node.as_ref().filter(|node| !Audit::is_node_name(node)) {
        let allowed = "expected 1 to 64 letters, digits, `-`, `_` or `.`, none of these last at the beginning";
        return refuse("audit.node", format!("{node:?} is no name for a node; {allowed}"));
    }
    within("audit.fsync_interval_ms", audit.fsync_interval.as_millis(), 10..=60_000)?;
    within("audit.checkpoint_interval_s", audit.checkpoint_interval.as_secs().into(), 1..=3600)?;
    within("audit.rotate_bytes", audit.rotate_bytes.into(), 65_536..=1 << 32)?;
    within("audit.rotate_after_s", audit.rotate_after.as_secs().into(), 10..=604_800)?;
    within("audit.keep_shipped_days", audit.keep_shipped_days.into(), 0..=36_500)?;
    within("audit.s3.request_timeout_ms", audit.s3.request_timeout.as_millis(), 100..=60_000)?;
    within("audit.closing_timeout_ms", audit.closing_timeout.as_millis(), 100..=600_000)?;
    let jetstream = &audit.jetstream;
    within("audit.jetstream.connect_timeout_ms", jetstream.connect_timeout.as_millis(), 50..=30_000)?;
    within("audit.jetstream.request_timeout_ms", jetstream.request_timeout.as_millis(), 100..=60_000)?;
    if let [first, .., last] = audit.sinks()[..] {
        return refuse(last, format!("is set and so is {first}; a trail is copied to one place"));
    }
    audit
        .s3
        .check(audit.keep_shipped_days, audit.rotate_bytes)
        .or_else(|(key, message)| refuse(&format!("audit.s3.{key}"), message))?;
    jetstream.check(audit.keep_shipped_days).or_else(|(key, message)| refuse(&key, message))?;
    if audit.keep_shipped_days > 0 && !audit.has_sink() {
        let message = "is set, and none of audit.sink_directory, audit.s3.bucket and audit.jetstream.stream is: segments are \
                       removed only after they were copied there";
        return refuse("audit.keep_shipped_days", message.to_owned());
    }
    if audit.directory.is_some() && audit.directory == audit.sink_directory {
        return refuse("audit.sink_directory", "is audit.directory; a copy has to be elsewhere".to_owned());
    }
    Ok(())
}

/// The header extension has 12 bits for each delay, in units of 10 ms.
const MAX_PLAYOUT_DELAY_MS: u16 = 40_950;

fn tables(config: &Config) -> Checked {
    for (name, table) in &config.tables {
        if let Some(place) = table.max_layer {
            within(&format!("tables.{name}.max_layer"), place.into(), 0..=MaxLayer::HIGHEST.into())?;
        }
        let told = match (table.playout_delay_min_ms, table.playout_delay_max_ms) {
            (None, None) => continue,
            (Some(min), Some(max)) if min <= max && max <= MAX_PLAYOUT_DELAY_MS => continue,
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} to nothing"),
            (None, Some(max)) => format!("nothing to {max}"),
        };
        let message = format!(
            "playout_delay_min_ms and playout_delay_max_ms of `{name}` are {told}; expected both, the first not above \
             the second, at most {MAX_PLAYOUT_DELAY_MS}"
        );
        return refuse(&format!("tables.{name}"), message);
    }
    Ok(())
}

fn bet_service(config: &Config) -> Checked {
    let service = &config.bet_service;
    within("bet_service.answer_timeout_ms", service.answer_timeout.as_millis(), 500..=30_000)?;
    within("bet_service.max_in_flight", service.max_in_flight as u128, 1..=100_000)?;
    within("bet_service.attempts", service.attempts.into(), 1..=10)?;
    let breaker = &service.breaker;
    within("bet_service.breaker.consecutive_failures", breaker.consecutive_failures.into(), 1..=1_000_000)?;
    within("bet_service.breaker.failure_percent", breaker.failure_percent.into(), 1..=100)?;
    within("bet_service.breaker.window_s", breaker.window.as_secs().into(), 1..=600)?;
    within("bet_service.breaker.least_requests", breaker.least_requests.into(), 1..=1_000_000)?;
    within("bet_service.breaker.open_ms", breaker.open.as_millis(), 100..=60_000)?;
    within("bet_service.http.connect_timeout_ms", service.http.connect_timeout.as_millis(), 50..=10_000)?;
    within("bet_service.http.events_silence_s", service.http.events_silence.as_secs().into(), 2..=600)?;
    within("bet_service.nats.connect_timeout_ms", service.nats.connect_timeout.as_millis(), 50..=30_000)?;
    service.check().or_else(|(key, message)| refuse(&key, message))
}

fn within(key: &str, value: u128, allowed: RangeInclusive<u128>) -> Checked {
    if allowed.contains(&value) {
        return Ok(());
    }
    refuse(key, format!("{value} is out of range; allowed are {} to {}", allowed.start(), allowed.end()))
}

fn refuse(key: &str, message: String) -> Checked {
    Err(Problem { key: key.to_owned(), message })
}

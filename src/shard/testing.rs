//! A shard's configuration and a table, for unit tests here and of what drives a shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fanout::HeaderClass;
use crate::media::PlayoutDelay;
use crate::rtc::EndpointConfig;
use crate::rtc::data_channel::SctpConfig;
use crate::rtc::dtls::DtlsIdentity;
use crate::rtc::rtcp::NtpTime;

use super::core::ShardConfig;
use super::message::{ShardId, TableId, TableSpec};

/// Of the only shard, which waits for everything as long as `patience`.
pub(crate) fn shard_config(now: Instant, patience: Duration) -> ShardConfig {
    ShardConfig {
        id: ShardId(0),
        endpoint: EndpointConfig {
            identity: Arc::new(DtlsIdentity::generate().expect("a certificate")),
            sctp: SctpConfig::new(1024),
            setup_timeout: patience,
            consent_timeout: patience,
        },
        silence: patience,
        grace: patience,
        pacing: true,
        replay_bits_per_second: 1,
        epoch: (now, NtpTime::from_unix(Duration::from_secs(1_790_000_000))),
    }
}

/// `roulette`, at home on that shard.
pub(crate) fn roulette() -> TableSpec {
    TableSpec {
        id: TableId(0),
        name: "roulette".into(),
        home: ShardId(0),
        video_ssrc: 1,
        video_rtx_ssrc: 2,
        audio_ssrc: 3,
        playout_delay: PlayoutDelay { min_ms: 0, max_ms: 0 },
        ring_packets: 64,
    }
}

/// Of a player without extensions.
pub(crate) fn class() -> HeaderClass {
    HeaderClass {
        payload_type: 96,
        red: None,
        ssrc: 1,
        transport_cc: None,
        playout_delay: None,
        abs_capture_time: None,
        abs_send_time: None,
        dependency_descriptor: None,
    }
}

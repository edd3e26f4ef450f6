//! A node begins: from its configuration to shards that run.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::audit::{self, Audit, Recorder};
use crate::bet_service::{self, Link, connect_configured};
use crate::bets::RoundReport;
use crate::config::Config;
use crate::net::{Dscp, Markings, Setting, TcpOptions, UdpOptions, host_addresses, raise_open_files, verify_sysctls};
use crate::rtc::EndpointConfig;
use crate::rtc::data_channel::SctpConfig;
use crate::rtc::dtls::{DtlsIdentity, IdentityError};
use crate::rtc::rtcp::NtpTime;
use crate::shard::{ShardConfig, ShardId, ShardReport};
use crate::traces::Tracer;

use super::super::admission::Admission;
use super::super::bet_desk::{self, ShardWays};
use super::super::bet_ledger::Ledger;
use super::super::shard_thread::{self, Seat, ShardHandle};
use super::{Changes, Inner, MAX_MESSAGE_SIZE, Node};

/// A publisher that sent nothing for so long has left, as far as players are concerned: they are to know within 2 s,
/// and shards look every quarter of a second.
const SILENCE: Duration = Duration::from_millis(1200);

/// The least rate of a joiner's replay: eight times a table of 2.5 Mbit/s.
const REPLAY_BITS_PER_SECOND: u64 = 20_000_000;

/// Descriptors beside TCP connections for media: requests, sockets, epoll.
const OTHER_FILES: usize = 1024;

/// Why the node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The DTLS certificate could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A shard's socket or thread.
    #[error("cannot listen for media on {address}: {source} (media.listen, media.first_port, media.tcp.enabled)")]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No address to put into candidates.
    #[error("the host has no address to announce to players; set media.announce")]
    NoAddress,
    /// The addresses of the host cannot be read.
    #[error("cannot read the host's addresses: {0}")]
    Addresses(std::io::Error),
    /// The connector to the bet service.
    #[error("cannot connect to the bet service: {0}")]
    BetService(#[from] bet_service::StartError),
    /// The thread for bets.
    #[error("cannot start the thread for bets: {0}")]
    Desk(std::io::Error),
    /// The audit trail.
    #[error(transparent)]
    Audit(#[from] audit::StartError),
    /// The system's random number generator.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

impl Node {
    /// Starts the shards, and the connector to the bet service. Must be called inside a multi-threaded tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`]: ports in use, no addresses, a file of `[bet_service]` that cannot be used.
    pub async fn start(config: &Config, tracer: &Tracer) -> Result<Self, StartError> {
        Self::start_on(&[], config, tracer).await
    }

    /// The same, each shard on one of `cores`; those beyond them, or all without any, where the kernel wants.
    ///
    /// # Errors
    /// As [`Node::start`], and a core that a shard may not run on.
    pub async fn start_on(cores: &[usize], config: &Config, tracer: &Tracer) -> Result<Self, StartError> {
        Self::begin(cores, config, connect_configured(config, tracer.clone())?, tracer).await
    }

    /// Starts the shards; bets go to `bet_service`. Where there is none, they are refused.
    ///
    /// # Errors
    /// See [`StartError`]: ports in use, no addresses.
    pub async fn start_with(config: &Config, bet_service: Option<Link>, tracer: &Tracer) -> Result<Self, StartError> {
        Self::begin(&[], config, bet_service, tracer).await
    }

    async fn begin(
        cores: &[usize],
        config: &Config,
        bet_service: Option<Link>,
        tracer: &Tracer,
    ) -> Result<Self, StartError> {
        let identity = Arc::new(DtlsIdentity::generate()?);
        let addresses = announced(config)?;
        let options = udp_options(config);
        let (audit, recorder) = start_audit(config).await?;
        let count = match config.media.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let (events, said) = mpsc::unbounded_channel();
        let (bets, incoming_bets) = mpsc::channel(bet_desk::QUEUE);
        let epoch = epoch();
        let mut tuning = Vec::new();
        let mut shards = Vec::new();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| shard_thread::queue()).unzip();
        let (tellers, answers): (Vec<_>, Vec<_>) = (0..count).map(|_| shard_thread::answers()).unzip();
        for (n, (commands, answers)) in receivers.into_iter().zip(answers).enumerate() {
            let address = SocketAddr::new(config.media.listen, config.media.first_port + n as u16);
            let (report, reports) = watch::channel(ShardReport::default());
            let seat = Seat {
                config: ShardConfig {
                    id: ShardId(n as u16),
                    endpoint: EndpointConfig {
                        identity: identity.clone(),
                        sctp: SctpConfig::new(MAX_MESSAGE_SIZE),
                        setup_timeout: config.sessions.setup_timeout,
                        consent_timeout: config.sessions.consent_timeout,
                    },
                    silence: SILENCE,
                    grace: config.sessions.publisher_grace,
                    pacing: config.media.pacing,
                    replay_bits_per_second: REPLAY_BITS_PER_SECOND,
                    epoch,
                },
                core: cores.get(n).copied(),
                address,
                options: options.clone(),
                tcp: tcp_options(config),
                commands,
                answers,
                peers: senders.clone(),
                events: events.clone(),
                bets: bet_service.is_some().then(|| bets.clone()),
                report,
            };
            let (bound, granted) =
                shard_thread::start(seat).await.map_err(|source| StartError::Bind { address, source })?;
            merge_tuning(&mut tuning, granted);
            shards.push(ShardHandle { commands: senders[n].clone(), report: reports, port: bound.port() });
        }
        merge_tuning(&mut tuning, verify_sysctls("/proc/sys".as_ref(), &options));
        merge_tuning(&mut tuning, vec![raise_open_files(open_files(config, count))]);
        let (round_report, rounds) = watch::channel(RoundReport::default());
        let meter = bet_service.as_ref().map(|link| link.meter.clone()).unwrap_or_default();
        let bet_service = bet_service.map(|link| {
            let (desk, news) = mpsc::unbounded_channel();
            let (instant, ntp) = epoch;
            let room = bet_desk::Room {
                link,
                bets: incoming_bets,
                news,
                shards: tellers
                    .into_iter()
                    .zip(&senders)
                    .map(|(answers, commands)| ShardWays { answers, commands: commands.clone() })
                    .collect(),
                report: round_report,
                ledger: Ledger::new(recorder, tracer.clone(), (instant, ntp.to_unix())),
            };
            (desk, room)
        });
        let desk = match bet_service {
            Some((desk, room)) => {
                bet_desk::start(room).map_err(StartError::Desk)?;
                Some(desk)
            }
            None => None,
        };
        let inner = Inner {
            config: config.clone(),
            identity,
            shards,
            addresses,
            tuning,
            directory: Mutex::default(),
            admission: Admission::new(&config.sessions),
            desk,
            rounds,
            bet_service: meter,
            audit,
            tracer: tracer.clone(),
            draining: AtomicBool::new(false),
            changes: Changes::default(),
        };
        let node = Self { inner: Arc::new(inner) };
        tokio::spawn(node.clone().listen(said));
        tokio::spawn(node.clone().record_totals(config.audit.checkpoint_interval));
        Ok(node)
    }
}

fn announced(config: &Config) -> Result<Vec<IpAddr>, StartError> {
    if !config.media.announce.is_empty() {
        let mut addresses = config.media.announce.clone();
        // FFmpeg knows no candidate but the first. Among their own kind they stay in the order of the file.
        addresses.sort_by_key(IpAddr::is_ipv6);
        return Ok(addresses);
    }
    let listen = config.media.listen;
    if !listen.is_unspecified() {
        return Ok(vec![listen]);
    }
    let mut addresses = host_addresses(config.demo).map_err(StartError::Addresses)?;
    addresses.retain(|a| listen.is_ipv6() || a.is_ipv4());
    if addresses.is_empty() { Err(StartError::NoAddress) } else { Ok(addresses) }
}

/// The trail, where one is configured. Whoever calls keeps the recorder, or drops it: then no record will come.
async fn start_audit(config: &Config) -> Result<(Option<Audit>, Option<Recorder>), audit::StartError> {
    let Some(options) = audit::Options::from_config(&config.audit)? else { return Ok((None, None)) };
    // A sink may be asked over the network, and takes its time.
    let starting = tokio::task::spawn_blocking(|| audit::start(options));
    let (audit, recorder) = starting.await.map_err(std::io::Error::from)??;
    Ok((Some(audit), Some(recorder)))
}

fn udp_options(config: &Config) -> UdpOptions {
    UdpOptions {
        receive_buffer: config.media.receive_buffer_bytes,
        send_buffer: config.media.send_buffer_bytes,
        busy_poll_micros: None,
        markings: Markings {
            data: dscp(config.media.dscp.data),
            audio: dscp(config.media.dscp.audio),
            video: dscp(config.media.dscp.video),
        },
    }
}

fn tcp_options(config: &Config) -> Option<TcpOptions> {
    let tcp = config.media.tcp;
    tcp.enabled.then_some(TcpOptions {
        max_connections: tcp.max_connections_per_shard,
        max_per_address: tcp.max_connections_per_address,
        marking: dscp(config.media.dscp.video),
    })
}

/// Descriptors that the node can come to need.
fn open_files(config: &Config, shards: usize) -> u64 {
    let tcp = &config.media.tcp;
    let connections = if tcp.enabled { shards * tcp.max_connections_per_shard } else { 0 };
    (OTHER_FILES + connections + config.bet_service.most_connections()) as u64
}

/// What the configuration's check has let through is below 64.
fn dscp(code_point: u8) -> Dscp {
    Dscp::new(code_point).unwrap_or(Dscp::DEFAULT)
}

/// A setting counts as granted when every shard got it.
fn merge_tuning(all: &mut Vec<Setting>, more: Vec<Setting>) {
    for setting in more {
        match all.iter_mut().find(|s| s.name == setting.name) {
            Some(known) if known.ok => *known = setting,
            Some(_) => {}
            None => all.push(setting),
        }
    }
}

/// One reading of both clocks, from which the shards compute NTP time.
#[expect(clippy::disallowed_methods, reason = "the one place where the media plane learns the time of day")]
fn epoch() -> (Instant, NtpTime) {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), NtpTime::from_unix(unix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_marking_that_is_configured_for_it() {
        let mut config = Config::demo();
        config.media.dscp = crate::config::Dscp { audio: 10, video: 20, data: 30 };
        config.media.tcp.enabled = true;
        let Markings { data, audio, video } = udp_options(&config).markings;
        assert_eq!([audio, video, data].map(Dscp::traffic_class_octet), [10 << 2, 20 << 2, 30 << 2]);
        let tcp = tcp_options(&config).expect("enabled");
        assert_eq!(tcp.marking, video, "one byte stream, and most of it is video");
    }

    #[test]
    fn tcp_has_the_limits_that_are_configured() {
        let mut config = Config::demo();
        config.media.tcp.enabled = true;
        (config.media.tcp.max_connections_per_shard, config.media.tcp.max_connections_per_address) = (300, 4);
        let options = tcp_options(&config).expect("enabled");
        assert_eq!((options.max_connections, options.max_per_address), (300, 4));
        config.media.tcp.enabled = false;
        assert_eq!(tcp_options(&config), None);
    }
}

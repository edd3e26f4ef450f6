//! One node: its tables, its sessions, its shards.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::audit::{self, Audit, AuditReport, Recorder};
use crate::bet_service::{self, Link, Meter, ServiceReport, connect_configured};
use crate::bets::{BetCounts, PlayerId, RoundReport};
use crate::config::{Config, MaxLayer, Sessions, Table, TableName};
use crate::identity::Subject;
use crate::media::{MediaKind, PlayoutDelay};
use crate::net::{Dscp, Markings, Setting, TcpOptions, UdpOptions, host_addresses, raise_open_files, verify_sysctls};
use crate::rtc::EndpointConfig;
use crate::rtc::data_channel::SctpConfig;
use crate::rtc::dtls::{DtlsIdentity, IdentityError};
use crate::rtc::rtcp::NtpTime;
use crate::rtc::sdp::{
    LocalDescription, Negotiated, Offer, TableMedia, negotiate_player, negotiate_publisher, write_answer,
};
use crate::shard::{
    Added, EndCause, LocalMedia, Role, ShardConfig, ShardEvent, ShardId, ShardReport, TableId, TableSpec, TableState,
};
use crate::traces::{TraceReport, Tracer};

use super::admission::{Admission, AdmissionReport, RETRY_WHEN_FULL};
use super::bet_desk::{self, News, ShardWays, TableNews};
use super::bet_ledger::Ledger;
use super::client::ClientNetwork;
use super::directory::{Directory, IceSession, Session, TableSeed};
use super::half_open::HalfOpenLimits;
use super::refusal::Refusal;
use super::session::{Created, SessionId};
use super::shard_thread::{self, Command, Seat, ShardHandle};
use super::utilisation::Load;

/// The largest data channel message we accept.
const MAX_MESSAGE_SIZE: u32 = 65_536;

/// A publisher that sent nothing for so long has left, as far as players are concerned: they are to know within 2 s,
/// and shards look every quarter of a second.
const SILENCE: Duration = Duration::from_millis(1200);

/// The least rate of a joiner's replay: eight times a table of 2.5 Mbit/s.
const REPLAY_BITS_PER_SECOND: u64 = 20_000_000;
/// The demo takes any name: this many of them.
const MOST_DEMO_TABLES: usize = 256;

/// Descriptors beside TCP connections for media: requests, sockets, epoll.
const OTHER_FILES: usize = 1024;

/// How long shards may take to say goodbye to their sessions.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// How long the node waits with its end until everybody who waits for an outcome was told that it ends.
const OUTCOMES_LIMIT: Duration = Duration::from_millis(200);

/// A table as others see it; names and counts only.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableStatus {
    /// The table's name.
    pub name: String,
    /// A publisher is connected and sends.
    pub live: bool,
    /// Players connected now.
    pub players: u64,
    /// `H264`, `VP8`, if known.
    pub video_codec: Option<String>,
    /// `opus`, if known.
    pub audio_codec: Option<String>,
    /// Frames per second from the publisher.
    pub fps: f64,
    /// Bits per second from the publisher.
    pub bits_per_second: f64,
}

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

/// The node's control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    identity: Arc<DtlsIdentity>,
    shards: Vec<ShardHandle>,
    addresses: Vec<IpAddr>,
    tuning: Vec<Setting>,
    directory: Mutex<Directory>,
    admission: Admission,
    /// Tells the desk of tables, where there is one.
    desk: Option<mpsc::UnboundedSender<News>>,
    rounds: watch::Receiver<RoundReport>,
    /// What the connector counts; of none without one.
    bet_service: Meter,
    audit: Option<Audit>,
    tracer: Tracer,
    draining: AtomicBool,
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
        };
        let node = Self { inner: Arc::new(inner) };
        tokio::spawn(node.clone().listen(said));
        tokio::spawn(node.clone().record_totals(config.audit.checkpoint_interval));
        Ok(node)
    }

    /// WHIP: takes an offer to publish `table`, from `publisher`, where it is known who that is. From the publisher of a live
    /// table the same subject takes over, once its session is connected.
    ///
    /// # Errors
    /// Every [`Refusal`] but `NotLive`.
    pub async fn publish(
        &self,
        client: ClientNetwork,
        table: &str,
        publisher: Option<Subject>,
        offer: Bytes,
    ) -> Result<Created, Refusal> {
        self.admitting(table)?;
        let _turn = self.inner.admission.enter().await?;
        let negotiated = apart(move || Ok(negotiate_publisher(&Offer::parse(&offer)?)?)).await?;
        let spec = self.reserve(table, publisher.as_ref())?;
        // A task of its own: a client that goes away in mid-request must not leave the reservation behind.
        let (node, table) = (self.clone(), table.to_owned());
        let created = tokio::spawn(async move {
            let created = node.create(Part::Publisher(publisher), client, &spec, negotiated, spec.home).await;
            if created.is_err()
                && let Some(entry) = node.directory().table_mut(&table)
            {
                entry.release();
            }
            created
        });
        created.await.unwrap_or(Err(Refusal::ShuttingDown))
    }

    /// WHEP: takes an offer to watch `table`, from `player`; without a name it is one that never comes again. It is given
    /// no layer above `max_layer`, nor above the table's.
    ///
    /// # Errors
    /// Every [`Refusal`] but `AlreadyPublished`.
    pub async fn play(
        &self,
        client: ClientNetwork,
        table: &str,
        player: Option<PlayerId>,
        max_layer: Option<MaxLayer>,
        offer: Bytes,
    ) -> Result<Created, Refusal> {
        self.admitting(table)?;
        let _turn = self.inner.admission.enter().await?;
        let (node, name) = (self.clone(), table.to_owned());
        let (spec, negotiated) = apart(move || {
            let offer = Offer::parse(&offer)?;
            let (spec, media) = node.live(&name)?;
            Ok((spec, negotiate_player(&offer, &media)?))
        })
        .await?;
        let part = Part::Player(player.map_or_else(anonymous, Ok)?, self.max_layer(table, max_layer));
        let shard = self.take_place()?;
        let node = self.clone();
        let created = tokio::spawn(async move {
            let created = node.create(part, client, &spec, negotiated, shard).await;
            if created.is_err() {
                node.directory().release_place(shard);
            }
            created
        });
        created.await.unwrap_or(Err(Refusal::ShuttingDown))
    }

    /// Publishes `table` from inside this process: the demo's dealer.
    ///
    /// # Errors
    /// The table is already published, or the node is on its way out.
    pub async fn publish_local(&self, table: &str, media: TableMedia) -> Result<LocalPublisher, Refusal> {
        self.admitting(table)?;
        let spec = self.reserve(table, None)?;
        if let Some(entry) = self.directory().table_mut(table) {
            entry.publish_locally();
        }
        let commands = self.inner.shards[usize::from(spec.home.0)].commands.clone();
        let id = spec.id;
        commands.send(Command::AddLocalPublisher { spec, media }).await.map_err(|_| Refusal::ShuttingDown)?;
        Ok(LocalPublisher { commands, table: id })
    }

    /// DELETE on a session URL: ends the session and frees all of it. `false` if there is none of this role and table.
    pub async fn close(&self, role: Role, table: &str, session: SessionId) -> bool {
        let found = self.directory().session(role, table, session).map(|s| (s.shard, s.key));
        let Some((shard, key)) = found else { return false };
        let (reply, done) = oneshot::channel();
        let command = Command::Close { key, cause: EndCause::Deleted, reply };
        if self.commands(shard).send(command).await.is_err() {
            return false;
        }
        let closed = done.await.unwrap_or(false);
        // The shard's own word comes a moment later; who asked must not find the session again.
        self.directory().end_session(shard, key);
        closed
    }

    /// The current entity-tag of a session, `None` if there is no such session.
    pub fn etag(&self, role: Role, table: &str, session: SessionId) -> Option<String> {
        self.directory().session(role, table, session).map(|s| s.ice.etag.clone())
    }

    /// Whether the configuration knows the table (in the demo: any valid name).
    pub fn knows(&self, table: &str) -> bool {
        table.parse::<TableName>().is_ok_and(|name| self.inner.config.knows(&name))
    }

    /// The tables, by name: those that are configured and those that have been published.
    pub fn tables(&self) -> Vec<TableStatus> {
        let reports = self.reports();
        let directory = self.directory();
        let configured = self.inner.config.tables.keys().map(|name| name.as_str().to_owned());
        let mut names: Vec<String> = directory.tables().map(|t| t.spec.name.to_string()).chain(configured).collect();
        names.sort();
        names.dedup();
        names.into_iter().map(|name| status(&directory, &reports, name)).collect()
    }

    /// The last report of every shard.
    pub fn reports(&self) -> Vec<ShardReport> {
        self.inner.shards.iter().map(|s| s.report.borrow().clone()).collect()
    }

    /// What the kernel and the host granted of what was asked.
    pub fn tuning(&self) -> &[Setting] {
        &self.inner.tuning
    }

    /// What admission has done so far.
    pub fn admission(&self) -> AdmissionReport {
        let half_open = self.directory().half_open.count();
        self.inner.admission.report(half_open)
    }

    /// How rounds have ended so far.
    pub fn rounds(&self) -> RoundReport {
        self.inner.rounds.borrow().clone()
    }

    /// What the connector to the bet service has done so far.
    pub fn bet_service(&self) -> ServiceReport {
        self.inner.bet_service.report()
    }

    /// What the audit trail has done so far; nothing, where there is none.
    pub fn audit(&self) -> AuditReport {
        self.inner.audit.as_ref().map(Audit::report).unwrap_or_default()
    }

    /// What became of the spans of traced signals so far.
    pub fn traces(&self) -> TraceReport {
        self.inner.tracer.report()
    }

    /// Ends the audit trail: after [`Node::shutdown`], when no record comes any more. Waits until it is in its sink, for as
    /// long as the configuration allows.
    pub async fn close_audit(&self) {
        let Some(audit) = &self.inner.audit else { return };
        if !audit.close(Some((&self.bet_counts()).into())).await {
            tracing::warn!("the audit trail is not complete, or not in its sink: it stays in its directory");
        }
    }

    fn bet_counts(&self) -> BetCounts {
        let mut sum = BetCounts::default();
        self.inner.shards.iter().for_each(|shard| sum.add(&shard.report.borrow().bets));
        sum
    }

    /// Has the trail say how many signals there were in all, where there were any.
    async fn record_totals(self, interval: Duration) {
        let Some(audit) = &self.inner.audit else { return };
        let mut last = BetCounts::default();
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            let counts = self.bet_counts();
            if (counts.outcomes, counts.late) != (last.outcomes, last.late) {
                audit.totals((&counts).into());
                last = counts;
            }
        }
    }

    /// The UDP ports, one per shard.
    pub fn ports(&self) -> Vec<u16> {
        self.inner.shards.iter().map(|s| s.port).collect()
    }

    /// The addresses in candidates.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.inner.addresses
    }

    /// What serving depends on, each with its name and, if it fails, why (for `/readyz`).
    pub fn readiness(&self) -> Vec<(&'static str, Result<(), String>)> {
        let stopped = self.inner.shards.iter().filter(|s| s.commands.is_closed()).count();
        let shards = if stopped == 0 { Ok(()) } else { Err(format!("{stopped} shards have stopped")) };
        let draining = self.inner.draining.load(Ordering::Relaxed);
        let admission = if draining { Err("the node is draining".to_owned()) } else { Ok(()) };
        vec![("config", Ok(())), ("certificate", Ok(())), ("sockets", shards), ("admission", admission)]
    }

    /// Waits for the end of any shard. Before [`Node::shutdown`] it means that the shard's socket or code failed: its
    /// sessions are lost, and only a new process makes the node whole again.
    pub async fn shard_ended(&self) {
        let mut ends = JoinSet::new();
        for shard in &self.inner.shards {
            let commands = shard.commands.clone();
            ends.spawn(async move { commands.closed().await });
        }
        ends.join_next().await;
    }

    /// Stops admitting; sessions go on.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// Ends every session with an authenticated alert and stops the shards.
    pub async fn shutdown(&self) {
        self.drain();
        if let Some(desk) = &self.inner.desk {
            let (done, told) = oneshot::channel();
            // If the desk has ended, nobody waits for it.
            let _ = desk.send(News::Ending { done });
            let _ = tokio::time::timeout(OUTCOMES_LIMIT, told).await;
        }
        let mut goodbyes = Vec::new();
        for shard in &self.inner.shards {
            let (reply, done) = oneshot::channel();
            if shard.commands.send(Command::Shutdown { reply }).await.is_ok() {
                goodbyes.push(done);
            }
        }
        let all = async {
            for goodbye in goodbyes {
                let _ = goodbye.await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_LIMIT, all).await.is_err() {
            tracing::warn!("not every session could be ended in time");
        }
    }

    fn admitting(&self, table: &str) -> Result<(), Refusal> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(Refusal::ShuttingDown);
        }
        if self.knows(table) { Ok(()) } else { Err(Refusal::UnknownTable) }
    }

    /// What players of a live table are offered.
    fn live(&self, table: &str) -> Result<(TableSpec, TableMedia), Refusal> {
        let directory = self.directory();
        let live = directory.table(table).filter(|entry| entry.state == TableState::Live);
        let found = live.map(|entry| (entry.spec.clone(), entry.media.clone()));
        found.ok_or(Refusal::NotLive { retry_after: Duration::from_secs(2) })
    }

    /// A place for a player, by the shards' load.
    fn take_place(&self) -> Result<ShardId, Refusal> {
        let Sessions { max_players_per_shard, max_shard_utilisation_percent, .. } = self.inner.config.sessions;
        let loads: Vec<Load> = self.inner.shards.iter().map(|shard| Load::of(&shard.report.borrow())).collect();
        // All of it is no limit: what has come since the measurement may be counted as more.
        let utilisation = match max_shard_utilisation_percent {
            100.. => f64::INFINITY,
            percent => f64::from(percent) / 100.0,
        };
        let place = self.directory().take_place(&loads, max_players_per_shard, utilisation);
        place.map_err(|reason| self.inner.admission.refuse(reason))
    }

    /// The right to publish, for one.
    fn reserve(&self, table: &str, publisher: Option<&Subject>) -> Result<TableSpec, Refusal> {
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|_| Refusal::ShuttingDown)?;
        let seed = TableSeed {
            random,
            playout_delay: self.playout_delay(table),
            ring_packets: self.inner.config.media.ring_packets.next_power_of_two(),
            shards: self.inner.shards.len() as u16,
            most_tables: if self.inner.config.demo { MOST_DEMO_TABLES } else { usize::MAX },
        };
        let mut directory = self.directory();
        let entry = directory.ensure_table(table, seed).ok_or(Refusal::Full { retry_after: RETRY_WHEN_FULL })?;
        if entry.reserve(publisher) { Ok(entry.spec.clone()) } else { Err(Refusal::AlreadyPublished) }
    }

    fn configured(&self, table: &str) -> Option<&Table> {
        self.inner.config.tables.get(&table.parse::<TableName>().ok()?)
    }

    /// The highest layer of a player of the table that has asked for `asked`: the lower of both holds.
    fn max_layer(&self, table: &str, asked: Option<MaxLayer>) -> Option<MaxLayer> {
        MaxLayer::lower(asked, self.configured(table).and_then(Table::max_layer))
    }

    fn playout_delay(&self, table: &str) -> PlayoutDelay {
        let (min, max) = self.configured(table).and_then(Table::playout_delay).unwrap_or_default();
        PlayoutDelay { min_ms: min.as_millis() as u16, max_ms: max.as_millis() as u16 }
    }

    /// A session from what was negotiated, half open until it connects.
    async fn create(
        &self,
        part: Part,
        client: ClientNetwork,
        spec: &TableSpec,
        negotiated: Negotiated,
        shard: ShardId,
    ) -> Result<Created, Refusal> {
        let limits = HalfOpenLimits {
            per_shard: self.inner.config.sessions.max_half_open_per_shard,
            per_client: self.inner.config.sessions.max_half_open_per_address,
        };
        let begun = self.directory().half_open.begin(shard, client, limits);
        begun.map_err(|reason| self.inner.admission.refuse(reason))?;
        let created = self.add_session(part, client, spec, negotiated, shard).await;
        if created.is_err() {
            self.directory().half_open.end(shard, client);
        }
        created
    }

    async fn add_session(
        &self,
        part: Part,
        client: ClientNetwork,
        spec: &TableSpec,
        negotiated: Negotiated,
        shard: ShardId,
    ) -> Result<Created, Refusal> {
        let mut random = [0; 32];
        let mut id = [0; 16];
        let mut session_id = [0; 8];
        let mut tag = [0; 8];
        for bytes in [&mut random[..], &mut id[..], &mut session_id[..], &mut tag[..]] {
            getrandom::fill(bytes).map_err(|_| Refusal::ShuttingDown)?;
        }
        let handle = &self.inner.shards[usize::from(shard.0)];
        let (reply, added) = oneshot::channel();
        let boxed = Box::new(negotiated.clone());
        let spec_of_shard = spec.clone();
        let (role, publisher, command) = match part {
            Part::Publisher(publisher) => {
                let command = Command::AddPublisher { spec: spec_of_shard, negotiated: boxed, random, reply };
                (Role::Publisher, publisher, command)
            }
            Part::Player(player, max_layer) => {
                let (spec, negotiated) = (spec_of_shard, boxed);
                let command = Command::AddPlayer { spec, player, max_layer, negotiated, random, reply };
                (Role::Player, None, command)
            }
        };
        handle.commands.send(command).await.map_err(|_| Refusal::ShuttingDown)?;
        let Added { key, ice } = added.await.map_err(|_| Refusal::ShuttingDown)?;
        let local = LocalDescription {
            // RFC 8866 §5.2: fits a signed 64-bit number, since browsers read it so.
            session_id: u64::from_be_bytes(session_id) >> 1,
            ice,
            fingerprint: self.inner.identity.fingerprint(),
            candidates: self.inner.addresses.iter().map(|ip| SocketAddr::new(*ip, handle.port)).collect(),
            tcp_candidates: self.inner.config.media.tcp.enabled,
            video_ssrc: spec.video_ssrc,
            video_rtx_ssrc: spec.video_rtx_ssrc,
            audio_ssrc: spec.audio_ssrc,
            stream_id: spec.name.to_string(),
            max_message_size: MAX_MESSAGE_SIZE,
        };
        let session = SessionId(id);
        let answer = write_answer(&negotiated, &local);
        let ice = IceSession::new(&negotiated.remote_ice.ufrag, &answer, tag);
        let etag = ice.etag.clone();
        let (table, half_open) = (spec.name.to_string(), Some(client));
        let entry = Session { role, table, shard, key, ice, half_open };
        self.directory().add_session(session, entry, publisher);
        Ok(Created { session, answer, etag })
    }

    /// Keeps the directory in step with the shards.
    async fn listen(self, mut said: mpsc::UnboundedReceiver<(ShardId, ShardEvent)>) {
        while let Some((shard, event)) = said.recv().await {
            match event {
                ShardEvent::SessionEnded { key, role, cause } => {
                    tracing::debug!(?role, ?cause, shard = shard.0, slot = key.slot, "session ended");
                    self.directory().end_session(shard, key);
                }
                ShardEvent::SessionConnected { key } => self.directory().session_connected(shard, key),
                ShardEvent::Table { table, state, media } => self.table_changed(table, state, media),
                // The shard's thread has taken these.
                ShardEvent::Peer { .. } | ShardEvent::Disconnect { .. } | ShardEvent::Bet(_) => {}
            }
        }
    }

    fn table_changed(&self, id: TableId, state: TableState, media: TableMedia) {
        let mut directory = self.directory();
        let Some(table) = directory.table_by_id(id) else { return };
        if table.state != state {
            tracing::info!(table = &*table.spec.name, ?state, "table state changed");
        }
        let live = state == TableState::Live;
        if let Some(news) = self.inner.desk.as_ref().filter(|_| live != (table.state == TableState::Live)) {
            // Only at the node's end is nobody listening.
            let _ = news.send(News::Table(TableNews { id, name: table.spec.name.clone(), live }));
        }
        table.state = state;
        table.media = media;
    }

    pub(super) fn commands(&self, shard: ShardId) -> &mpsc::Sender<Command> {
        &self.inner.shards[usize::from(shard.0)].commands
    }

    pub(super) fn directory(&self) -> MutexGuard<'_, Directory> {
        // The directory is plain data and every change to it is one call: a panic elsewhere leaves it whole.
        self.inner.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session is to be.
#[derive(Debug)]
enum Part {
    /// Who it is, where that is known.
    Publisher(Option<Subject>),
    /// Who it is, and the highest layer that it is given.
    Player(PlayerId, Option<MaxLayer>),
}

/// Who has no name has one of its own, so that no other session is the same player.
fn anonymous() -> Result<PlayerId, Refusal> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Refusal::ShuttingDown)?;
    Ok(PlayerId::anonymous(random))
}

/// Judges an offer where that holds up no thread of the runtime: 64 KiB of SDP take their time.
async fn apart<T: Send + 'static>(judge: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(judge).await.unwrap_or(Err(Refusal::ShuttingDown))
}

/// Sends a table from inside the process.
#[derive(Clone, Debug)]
pub struct LocalPublisher {
    commands: mpsc::Sender<Command>,
    table: TableId,
}

impl LocalPublisher {
    /// Sends the packets of a frame; `false` when the node is gone.
    pub async fn send(&self, media: Vec<LocalMedia>) -> bool {
        self.commands.send(Command::Local { table: self.table, media }).await.is_ok()
    }
}

fn status(directory: &Directory, reports: &[ShardReport], name: String) -> TableStatus {
    let entry = directory.table(&name);
    let of_table = || reports.iter().filter_map(|r| r.tables.get(&name));
    let codec = |kind: MediaKind| {
        let media = entry.map(|e| &e.media)?;
        let stream = if kind == MediaKind::Video { &media.video } else { &media.audio };
        stream.as_ref().map(|(codec, _)| codec.to_string())
    };
    TableStatus {
        live: entry.is_some_and(|e| e.state == TableState::Live),
        players: of_table().map(|t| t.players).sum(),
        video_codec: codec(MediaKind::Video),
        audio_codec: codec(MediaKind::Audio),
        fps: of_table().map(|t| t.ingest_fps).sum(),
        bits_per_second: of_table().map(|t| t.ingest_bits_per_second).sum(),
        name,
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
    use std::pin::{Pin, pin};
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::media::{Codec, MediaKind};

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

    const PUBLISHER: Bytes = Bytes::from_static(include_bytes!("../../tests/fixtures/offers/obs-publisher.sdp"));
    const PLAYER: Bytes = Bytes::from_static(include_bytes!("../../tests/fixtures/offers/chromium-player.sdp"));

    async fn node(change: impl FnOnce(&mut Config)) -> Node {
        let mut config = Config::demo();
        config.media.listen = IpAddr::from([127, 0, 0, 1]);
        (config.media.first_port, config.media.shards) = (0, 1);
        change(&mut config);
        Node::start(&config, &Tracer::off(&config.log)).await.expect("one shard on a free port")
    }

    fn client() -> ClientNetwork {
        ClientNetwork::of([192, 0, 2, 1].into())
    }

    fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Keeps the runtime's only thread for blocking work until it is dropped: offers wait to be judged.
    fn nothing_is_judged() -> mpsc::Sender<()> {
        let (until, dropped) = mpsc::channel();
        tokio::task::spawn_blocking(move || dropped.recv());
        until
    }

    #[test]
    fn an_offer_keeps_its_turn_until_it_is_answered() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).max_blocking_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let node = node(|config| (config.sessions.offers_at_once, config.sessions.offers_waiting) = (1, 0)).await;
            let others_are_refused = || {
                let publisher = poll_once(pin!(node.publish(client(), "other", None, PUBLISHER)));
                let player = poll_once(pin!(node.play(client(), "other", None, None, PLAYER)));
                let busy = |answer| matches!(answer, Poll::Ready(Err(Refusal::Busy { .. })));
                busy(publisher) && busy(player)
            };
            let judging = nothing_is_judged();
            let mut publisher = pin!(node.publish(client(), "one", None, PUBLISHER));
            assert!(poll_once(publisher.as_mut()).is_pending() && others_are_refused());
            drop(judging);
            publisher.await.expect("an answer");

            let judging = nothing_is_judged();
            let mut player = pin!(node.play(client(), "two", None, None, PLAYER));
            assert!(poll_once(player.as_mut()).is_pending() && others_are_refused());
            drop(judging);
            assert!(matches!(player.await, Err(Refusal::NotLive { .. })));
            node.publish(client(), "other", None, PUBLISHER).await.expect("an answer");
            node.shutdown().await;
        });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_player_that_is_refused_leaves_its_place() {
        let limits = |config: &mut Config| {
            (config.sessions.max_players_per_shard, config.sessions.max_half_open_per_shard) = (1, 0);
        };
        let node = node(limits).await;
        let media = TableMedia { video: Some((Codec::Vp8, String::new())), ..TableMedia::default() };
        let dealer = node.publish_local("watched", media).await.expect("nobody publishes it");
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while node.live("watched").is_err() {
            let payload = Bytes::from_static(&[0x10, 0, 0, 0, 0x9d, 0x01, 0x2a, 0, 0, 0, 0]);
            let frame = LocalMedia { kind: MediaKind::Video, sequence_number: 1, timestamp: 1, marker: true, payload };
            assert!(dealer.send(vec![frame]).await);
            looks.tick().await;
        }
        for _ in 0..3 {
            let refused = node.play(client(), "watched", None, None, PLAYER).await;
            assert!(matches!(refused, Err(Refusal::HalfOpen { .. })), "{refused:?}");
        }
        node.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_player_is_given_no_layer_above_its_own_bound_or_the_tables() {
        let [one, two] = [1, 2].map(MaxLayer::new);
        let bounded = Table { max_layer: Some(1), ..Table::default() };
        let node = node(|config| _ = config.tables.insert("bounded".parse().expect("a name"), bounded)).await;
        assert_eq!(
            [None, two, one, MaxLayer::new(0)].map(|asked| node.max_layer("bounded", asked)),
            [one, one, one, MaxLayer::new(0)]
        );
        assert_eq!([None, two].map(|asked| node.max_layer("other", asked)), [None, two]);
        node.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_of_a_shard_is_noticed() {
        let node = node(|_| {}).await;
        let mut ended = std::pin::pin!(node.shard_ended());
        tokio::select! {
            biased;
            () = &mut ended => panic!("the shard runs"),
            () = std::future::ready(()) => {}
        }
        node.shutdown().await;
        ended.await;
    }
}

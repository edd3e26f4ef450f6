//! One node: its tables, its sessions, its shards.

mod pause;
mod start;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::audit::{Audit, AuditReport};
use crate::bet_service::{Meter, ServiceReport};
use crate::bets::{BetCounts, PlayerId, RoundReport};
use crate::config::{Config, MaxLayer, Sessions, Table, TableName};
use crate::identity::Subject;
use crate::media::{MediaKind, PlayoutDelay};
use crate::net::Setting;
use crate::rtc::dtls::DtlsIdentity;
use crate::rtc::sdp::{
    LocalDescription, Negotiated, Offer, TableMedia, negotiate_player, negotiate_publisher, write_answer,
};
use crate::shard::{
    Added, EndCause, LocalMedia, Role, ShardEvent, ShardId, ShardReport, TableId, TableSpec, TableState,
};
use crate::traces::{TraceReport, Tracer};

use super::admission::{Admission, AdmissionReport, RETRY_WHEN_FULL};
use super::bet_desk::{News, TableNews};
use super::client::ClientNetwork;
use super::directory::{Directory, IceSession, Session, TableSeed};
use super::half_open::HalfOpenLimits;
use super::refusal::Refusal;
use super::session::{Created, SessionId};
use super::shard_thread::{Command, ShardHandle};
use super::utilisation::Load;
use pause::Changes;

pub use start::StartError;

/// The largest data channel message we accept.
const MAX_MESSAGE_SIZE: u32 = 65_536;

/// The demo takes any name: this many of them.
const MOST_DEMO_TABLES: usize = 256;

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
    changes: Changes,
}

impl Node {
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
    /// no layer above `max_layer`, nor above the table's. While the table is paused the answer waits, for two seconds at most.
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
        self.while_paused(table).await;
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
        self.inner.changes.tell();
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
        self.inner.changes.tell();
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

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::media::{Codec, MediaKind};

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

    /// Waits until it is so.
    async fn until(so: impl Fn() -> bool) {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !so() {
            looks.tick().await;
        }
    }

    /// The same, while `dealer` sends, from `sequence_number` on.
    async fn sends_until(dealer: &LocalPublisher, sequence_number: &mut u16, so: impl Fn() -> bool) {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !so() {
            let payload = Bytes::from_static(&[0x10, 0, 0, 0, 0x9d, 0x01, 0x2a, 0, 0, 0, 0]);
            let timestamp = u32::from(*sequence_number) * 450;
            let sequence_number = std::mem::replace(sequence_number, *sequence_number + 1);
            let frame = LocalMedia { kind: MediaKind::Video, sequence_number, timestamp, marker: true, payload };
            assert!(dealer.send(vec![frame]).await);
            looks.tick().await;
        }
    }

    fn vp8() -> TableMedia {
        TableMedia { video: Some((Codec::Vp8, String::new())), ..TableMedia::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_comes_during_a_pause_is_let_in_when_it_is_over_and_told_to_ask_again_when_it_lasts() {
        let node = node(|_| ()).await;
        let dealer = node.publish_local("watched", vp8()).await.expect("nobody publishes it");
        let mut number = 1;
        sends_until(&dealer, &mut number, || node.live("watched").is_ok()).await;
        let paused = || node.directory().table("watched").is_some_and(|entry| entry.state == TableState::Paused);
        until(&paused).await;

        let mut player = pin!(node.play(client(), "watched", None, None, PLAYER));
        assert!(poll_once(player.as_mut()).is_pending());
        sends_until(&dealer, &mut number, || node.live("watched").is_ok()).await;
        player.await.expect("it is live again");

        until(&paused).await;
        let refused = node.play(client(), "watched", None, None, PLAYER).await;
        assert!(matches!(refused, Err(Refusal::NotLive { .. })), "{refused:?}");

        let mut player = pin!(node.play(client(), "watched", None, None, PLAYER));
        assert!(paused() && poll_once(player.as_mut()).is_pending());
        node.drain();
        assert!(
            matches!(poll_once(player.as_mut()), Poll::Ready(Err(Refusal::ShuttingDown))),
            "nobody waits for its end"
        );
        node.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_player_that_is_refused_leaves_its_place() {
        let limits = |config: &mut Config| {
            (config.sessions.max_players_per_shard, config.sessions.max_half_open_per_shard) = (1, 0);
        };
        let node = node(limits).await;
        let dealer = node.publish_local("watched", vp8()).await.expect("nobody publishes it");
        sends_until(&dealer, &mut 1, || node.live("watched").is_ok()).await;
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

//! A whole node, from its configuration to its end: what `tableside gateway` and `tableside demo` run.

pub mod token;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::audit;
use crate::config::{Config, Media, TlsFiles};
use crate::demo;
use crate::fleet::Node;
use crate::gatekeeper::Gatekeeper;
use crate::http::{self, App, ServedCertificate, Site};
use crate::net::{self, Setting};
use crate::telemetry::{self, Metrics};
use crate::traces::Exporter;

/// How long sessions may take to say goodbye and requests to be answered, once the process was told to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(1500);

/// How often the certificate's files are looked at. Whoever replaces them has hours before the old one expires.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(3);

/// Open files besides the connections of the public listener: sockets of shards, the admin listener, files.
const OTHER_FILES: u64 = 512;

/// Runs a node until SIGTERM or SIGINT. SIGHUP has it read the certificate again.
///
/// # Errors
/// If logs cannot be set up, a listener or a shard cannot start, or a shard failed.
pub fn gateway(mut config: Config) -> anyhow::Result<()> {
    telemetry::init_logs(&config.log).context("cannot set up logs")?;
    fit_open_files(&mut config);
    let cores = divide_cores(&mut config.media)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // A flood of requests may slow down the answers to them, never the media.
    runtime.on_thread_start(|| drop(net::yield_to_shards()));
    let runtime = runtime.enable_all().build().context("cannot start threads")?;
    let outcome = runtime.block_on(serve(Arc::new(config), cores));
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Arc<Config>, shard_cores: Vec<usize>) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let public = bind(config.http.listen, "[http] listen", "--http").await?;
    let admin = bind(config.admin.listen, "[admin] listen", "--admin").await?;
    let (public_address, admin_address) = (public.local_addr()?, admin.local_addr()?);

    let name = audit::node_name(&config.audit);
    let (tracer, exporter) = Exporter::start(&config.traces, &config.log, &name).context("cannot send traces")?;
    let node = Node::start_on(&shard_cores, &config, &tracer).await.context("cannot start the media plane")?;
    let metrics = Arc::new(Metrics::new(&config, node.ports().len()));
    warn_of_tuning(node.tuning());
    metrics.set_tuning(node.tuning().to_vec());
    if config.demo {
        start_dealers(&node).context("cannot start the dealers")?;
    }
    let gatekeeper = keep_keys(&config, &metrics)?;
    let app = App::new(node.clone(), Arc::clone(&config), Arc::clone(&metrics), gatekeeper);
    let site = secure(http::public(app.clone()), config.http.tls.files(), metrics)?;

    let (stop, stopped) = watch::channel(false);
    let until_stop = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let public = tokio::spawn(http::serve(public, site, until_stop(stopped.clone())));
    let admin = tokio::spawn(http::serve(admin, http::admin(app), until_stop(stopped)));
    announce(&config, &node, public_address, admin_address);

    let broken = tokio::select! {
        () = signals.next() => false,
        // Whoever started us starts us again: a node without one of its shards refuses a part of its players for ever.
        () = node.shard_ended() => true,
    };
    info!(broken, "shutting down");
    node.drain();
    let ended = async {
        node.shutdown().await;
        stop.send_replace(true);
        let _ = tokio::join!(public, admin);
    };
    tokio::select! {
        _ = ended => {}
        // Not an error: a connection that will not end is no reason to keep the rest waiting.
        _ = tokio::time::sleep(SHUTDOWN_LIMIT) => warn!("some connections did not end in time"),
        _ = signals.next() => warn!("told twice: ending at once"),
    }
    tokio::select! {
        // All players have been told by now: what comes after is of attempts that nobody waits for.
        ((), ()) = async { tokio::join!(node.close_audit(), exporter.close()) } => {}
        _ = signals.next() => warn!("told again: the audit trail and the last traces are not waited for"),
    }
    anyhow::ensure!(!broken, "a shard has failed");
    info!("ended");
    Ok(())
}

/// Whoever judges tokens, with keys that are kept fresh from now on. Whoever comes before they have been read waits for them; that
/// an issuer cannot be reached does not keep the node from starting, but it is not ready until it has keys.
fn keep_keys(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Gatekeeper> {
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let gatekeeper = Gatekeeper::new(config, Arc::clone(metrics)).context("cannot fetch keys from auth.jwks_url")?;
    tokio::spawn(gatekeeper.clone().keep_fresh(hangups));
    Ok(gatekeeper)
}

/// HTTPS where a certificate is configured, and kept fresh from then on.
fn secure(site: Site, files: Option<TlsFiles>, metrics: Arc<Metrics>) -> anyhow::Result<Site> {
    let mut hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let Some(files) = files else {
        // Not the end of the process, which it is by default: whoever sends it means to have something read again.
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                info!("SIGHUP: there is no certificate to read again");
            }
        });
        return Ok(site);
    };
    let certificate = ServedCertificate::load(files, metrics)?;
    tokio::spawn(certificate.clone().keep_fresh(CERTIFICATE_CHECK, hangups));
    Ok(site.over_tls(certificate))
}

/// Makes room for the connections that are configured, or the configuration fit the room there is.
fn fit_open_files(config: &mut Config) {
    let limit = match net::raise_open_file_limit() {
        Ok(limit) => limit,
        Err(error) => return warn!(%error, "the limit of open files is not known"),
    };
    let other = OTHER_FILES + config.bet_service.most_connections() as u64;
    let room = usize::try_from(limit.saturating_sub(other).max(limit / 2)).unwrap_or(usize::MAX);
    let wanted = config.http.max_connections;
    if room < wanted {
        warn!(wanted, room, limit, "http.max_connections is lowered: raise the limit of open files (ulimit -Hn)");
        config.http.max_connections = room;
    }
}

/// The cores of pinned shards. This thread, and all that it starts, keep to the others; the number of shards is settled.
fn divide_cores(media: &mut Media) -> anyhow::Result<Vec<usize>> {
    if !media.pin_shards {
        return Ok(Vec::new());
    }
    let mut shards = net::allowed_cores().context("cannot tell which cores there are")?;
    let wanted = if media.shards == 0 { shards.len().saturating_sub(1) } else { media.shards };
    if wanted == 0 || wanted >= shards.len() {
        let (shards, cores) = (wanted.max(1), shards.len());
        bail!(
            "media.pin_shards: {shards} shards with a core each need {} cores, and this process may use {cores} \
             (set fewer shards, or pin_shards to false)",
            shards + 1
        );
    }
    let others = shards.split_off(wanted);
    net::keep_to(&others).context("cannot keep off the shards' cores")?;
    media.shards = wanted;
    info!(?shards, ?others, "each shard has a core of its own");
    Ok(shards)
}

async fn bind(address: SocketAddr, key: &str, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on TCP {address} (change {key} in the configuration, or {option} of the demo)")
    })
}

/// What the kernel and the host did not grant is said once, with what to do about it.
fn warn_of_tuning(tuning: &[Setting]) {
    for missing in tuning.iter().filter(|s| !s.ok) {
        let Setting { name, wanted, found, advice, .. } = missing;
        warn!(setting = name, wanted, found, advice, "node tuning");
    }
}

/// The demo's tables, each with a dealer of its own. They have a thread for themselves: on those of the control plane a
/// flood of requests would hold up the picture, as it cannot that of a publisher that comes over the network.
fn start_dealers(node: &Node) -> io::Result<()> {
    let node = node.clone();
    std::thread::Builder::new().name("dealers".to_owned()).spawn(move || deal(&node)).map(drop)
}

fn deal(node: &Node) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return error!(%error, "there is no dealer"),
    };
    runtime.block_on(async {
        let mut dealers = JoinSet::new();
        for (table, codec) in demo::TABLES {
            let node = node.clone();
            dealers.spawn(async move {
                if let Err(error) = demo::deal(node, table, codec).await {
                    error!(table, %error, "the dealer has left");
                }
            });
        }
        while dealers.join_next().await.is_some() {}
    });
}

fn announce(config: &Config, node: &Node, public: SocketAddr, admin: SocketAddr) {
    let (udp, addresses) = (node.ports(), node.addresses());
    info!(%public, %admin, ?udp, ?addresses, tables = config.tables.len(), "listening");
    if config.tables.is_empty() && !config.demo {
        warn!("no [tables.NAME] section is configured: nothing can be published or watched");
    }
    if !config.demo && !config.wants_tokens() {
        warn!(
            "auth.mode is \"none\": nobody is asked for a token, whoever reaches this node publishes, watches and bets"
        );
    }
    if config.demo {
        // Nobody may be reading; the demo runs all the same.
        let _ = print_urls(public, admin);
    }
}

fn print_urls(public: SocketAddr, admin: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Watch the dealer     http://{public}/play/demo")?;
    writeln!(out, "The same in VP8      http://{public}/play/demo-vp8")?;
    writeln!(out, "Use your own camera  http://{public}/publish/my-table")?;
    writeln!(out, "What is going on     http://{public}/dashboard")?;
    writeln!(out, "Metrics, health      http://{admin}/metrics, http://{admin}/readyz")?;
    writeln!(out, "Nobody is asked for a token here: this is a demo.")?;
    writeln!(out, "Ctrl-C ends it.")?;
    out.flush()
}

/// What tells a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

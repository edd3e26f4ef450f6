//! A listener: who may connect, how long a connection may take over what, and its end.
//!
//! `axum::serve` would accept any number of connections and wait for ever for each.

mod activity;
mod connection;
mod gate;
mod service;
mod tls;
mod watched;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::config::{Config, Network};
use crate::fleet::ClientNetwork;
use crate::telemetry::{Listener, Metrics};

use gate::Gate;

pub(super) use service::ConnectedFrom;
pub use tls::ServedCertificate;

/// What connections of a listener are held to.
#[derive(Clone, Debug)]
pub(super) struct ConnectionLimits {
    pub(super) listener: Listener,
    pub(super) header_bytes: usize,
    pub(super) header_time: Duration,
    pub(super) idle_time: Duration,
    /// From a request's head to the end of its answer.
    pub(super) answer_time: Duration,
    pub(super) handshake_time: Duration,
    pub(super) streams: u32,
    pub(super) connections: usize,
    pub(super) connections_per_client: usize,
    /// Connections from there are many clients': only their sum is limited.
    pub(super) proxies: Vec<Network>,
}

impl ConnectionLimits {
    pub(super) fn public(config: &Config) -> Self {
        let http = &config.http;
        Self {
            listener: Listener::Public,
            header_bytes: http.max_header_bytes,
            header_time: http.header_timeout,
            idle_time: http.idle_timeout,
            answer_time: 2 * http.request_timeout,
            handshake_time: http.tls.handshake_timeout,
            streams: http.max_streams_per_connection,
            connections: http.max_connections,
            connections_per_client: http.max_connections_per_address,
            proxies: http.trusted_proxies.clone(),
        }
    }

    pub(super) fn admin(config: &Config) -> Self {
        let connections = config.admin.max_connections;
        Self {
            listener: Listener::Admin,
            connections,
            connections_per_client: connections,
            proxies: Vec::new(),
            ..Self::public(config)
        }
    }

    /// Who is counted for a connection from `address`; `None` for a proxy.
    fn client(&self, address: IpAddr) -> Option<ClientNetwork> {
        let is_proxy = self.proxies.iter().any(|network| network.contains(address));
        (!is_proxy).then(|| ClientNetwork::of(address))
    }
}

/// What [`serve`] serves: a router, how its connections are limited, and with which certificate.
#[derive(Clone, Debug)]
pub struct Site {
    router: Router,
    limits: Arc<ConnectionLimits>,
    metrics: Arc<Metrics>,
    certificate: Option<ServedCertificate>,
}

impl Site {
    pub(super) fn new(router: Router, limits: ConnectionLimits, metrics: Arc<Metrics>) -> Self {
        Self { router, limits: Arc::new(limits), metrics, certificate: None }
    }

    /// The same over TLS.
    #[must_use]
    pub fn over_tls(self, certificate: ServedCertificate) -> Self {
        Self { certificate: Some(certificate), ..self }
    }
}

/// How long nothing is accepted once the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `site` on `listener` until `stop` completes, then lets requests that are being answered finish.
///
/// # Errors
/// None at present: a connection that fails concerns only itself.
pub async fn serve(
    listener: TcpListener,
    site: Site,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let gate = Arc::new(Gate::new(site.limits.connections, site.limits.connections_per_client));
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    let mut short = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                short = false;
                admit(&site, &gate, &mut connections, &stopped, stream, peer.ip());
            }
            Err(error) if concerns_one_connection(&error) => debug!(%error, "a connection was not accepted"),
            Err(error) => {
                if !std::mem::replace(&mut short, true) {
                    warn!(%error, "cannot accept connections: is the limit of open files too low?");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Starts a connection if there is room for it; else it is closed at once, which costs least.
fn admit(
    site: &Site,
    gate: &Arc<Gate>,
    connections: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
    stream: TcpStream,
    address: IpAddr,
) {
    let listeners = &site.metrics.listeners;
    match gate.enter(site.limits.client(address)) {
        Err(limit) => listeners.limited(site.limits.listener, limit),
        Ok(place) => {
            // An answer is one small write: waiting for more would only delay the player's first frame.
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "cannot set TCP_NODELAY");
            }
            let open = Open::new(site);
            let connection = connection::run(site.clone(), stream, address, stopped.clone());
            connections.spawn(async move {
                connection.await;
                drop((place, open));
            });
        }
    }
}

/// A connection in the gauge; taken out when dropped.
struct Open(Arc<Metrics>, Listener);

impl Open {
    fn new(site: &Site) -> Self {
        site.metrics.listeners.opened(site.limits.listener);
        Self(Arc::clone(&site.metrics), site.limits.listener)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.listeners.closed(self.1);
    }
}

/// Errors of a connection that was gone before it was accepted (accept(2)).
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

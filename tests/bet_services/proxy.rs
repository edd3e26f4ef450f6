//! What may be between a node and a service: it falls silent, closes, or says something else than the service did.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::node::LIMIT;

/// What becomes of the first line that the service says.
pub type Rewrite = Arc<dyn Fn(&str) -> String + Send + Sync>;

#[derive(Clone, Copy, Default)]
struct Mode {
    /// Connections of before hear and say nothing any more.
    silences: u32,
    /// There are no connections.
    is_closed: bool,
}

/// On a port of its own. Ends with the test.
pub struct Proxy {
    pub port: u16,
    mode: watch::Sender<Mode>,
    /// How many connections pass on what comes.
    passing: watch::Sender<u32>,
    accepted: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: SocketAddr, rewrite: Option<Rewrite>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (mode, heard) = watch::channel(Mode::default());
        let passing = watch::Sender::new(0);
        let accepted = Arc::new(AtomicU32::new(0));
        let (counter, passes) = (accepted.clone(), passing.clone());
        let task = tokio::spawn(async move {
            // Aborted with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                connections.spawn(pass(stream, to, rewrite.clone(), heard.clone(), passes.clone()));
            }
        });
        Self { port, mode, passing, accepted, task }
    }

    /// How many connections were made to it.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Nothing passes over the connections that there are, from when this returns. Nobody may connect meanwhile.
    pub async fn silence(&self) {
        self.mode.send_modify(|mode| mode.silences += 1);
        let silent = async { self.passing.subscribe().wait_for(|passing| *passing == 0).await.map(|_| ()) };
        timeout(LIMIT, silent).await.expect("they fall silent").expect("the proxy counts");
    }

    pub fn close(&self) {
        self.mode.send_modify(|mode| mode.is_closed = true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut node: TcpStream,
    to: SocketAddr,
    rewrite: Option<Rewrite>,
    mut mode: watch::Receiver<Mode>,
    passing: watch::Sender<u32>,
) {
    let Mode { silences, is_closed } = *mode.borrow_and_update();
    if is_closed {
        return;
    }
    let Ok(mut service) = TcpStream::connect(to).await else { return };
    let copy = async {
        if let Some(rewrite) = rewrite {
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                line.push(service.read_u8().await?);
            }
            node.write_all(rewrite(&String::from_utf8_lossy(&line)).as_bytes()).await?;
        }
        copy_bidirectional(&mut node, &mut service).await
    };
    passing.send_modify(|passing| *passing += 1);
    let is_silent = tokio::select! {
        _ = copy => false,
        changed = mode.wait_for(|mode| mode.is_closed || mode.silences != silences) => {
            changed.is_ok_and(|mode| !mode.is_closed)
        }
    };
    passing.send_modify(|passing| *passing -= 1);
    if is_silent {
        std::future::pending::<()>().await;
    }
}

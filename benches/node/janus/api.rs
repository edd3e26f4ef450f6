//! Janus' API over its Unix socket: one session, requests that are answered, and events that answer them later.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixDatagram;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long an answer may take. A generator's patience is longer, so that it hears of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// The same for the first one: Janus may be about to end (`Janus::start`).
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Janus' own limit is far below.
const MAX_MESSAGE: usize = 64 * 1024;

const PLUGIN: &str = "janus.plugin.videoroom";

/// Requests by their transaction.
type Pending = Mutex<HashMap<String, oneshot::Sender<Value>>>;

/// One side of a call in Janus.
pub type HandleId = u64;

/// See the module's text.
pub struct Janus {
    socket: UnixDatagram,
    pending: Pending,
    transactions: AtomicU64,
    /// None until it is made.
    session: Option<u64>,
    version: String,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Janus says no, or its plugin does.
    #[error("Janus: {reason} ({code})")]
    Refused {
        /// Its number.
        code: u64,
        /// Its words.
        reason: String,
    },
    /// It says nothing.
    #[error("Janus does not answer")]
    Late,
    /// The socket fails.
    #[error("Janus' socket: {0}")]
    Socket(#[from] std::io::Error),
    /// It answers with what it should not.
    #[error("Janus' answer has no {0}")]
    Missing(&'static str),
}

impl Janus {
    /// Binds `own` and connects to Janus at `path`, makes a session, and reads from then on.
    ///
    /// # Errors
    /// Janus is not there, or refuses.
    pub async fn connect(own: &Path, path: &Path) -> Result<Arc<Self>, ApiError> {
        let socket = UnixDatagram::bind(own)?;
        socket.connect(path)?;
        let janus = Self {
            socket,
            pending: Pending::default(),
            transactions: AtomicU64::new(0),
            session: None,
            version: String::new(),
        };
        // Alone on the socket, they can be read one after the other.
        let info = janus.ask_alone(json!({ "janus": "info" })).await?;
        let version = info["version_string"].as_str().ok_or(ApiError::Missing("version"))?.to_owned();
        let session = id(&janus.ask_alone(json!({ "janus": "create" })).await?)?;
        let janus = Arc::new(Self { session: Some(session), version, ..janus });
        let reader = Arc::clone(&janus);
        tokio::spawn(async move {
            let mut buffer = vec![0; MAX_MESSAGE];
            while let Ok(len) = reader.socket.recv(&mut buffer).await {
                reader.settle(&buffer[..len]);
            }
        });
        Ok(janus)
    }

    /// Of the running Janus.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A new handle of the VideoRoom.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn attach(&self) -> Result<HandleId, ApiError> {
        id(&self.ask(json!({ "janus": "attach", "plugin": PLUGIN })).await?)
    }

    /// Ends what the handle is: a publisher, a subscriber.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn detach(&self, handle: HandleId) -> Result<(), ApiError> {
        self.ask(json!({ "janus": "detach", "handle_id": handle })).await.map(drop)
    }

    /// Tells the plugin something, with an SDP of this kind if there is one. Returns the SDP that it answers with, if any.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn message(
        &self,
        handle: HandleId,
        body: Value,
        jsep: Option<(&str, &str)>,
    ) -> Result<Option<String>, ApiError> {
        let mut message = json!({ "janus": "message", "handle_id": handle, "body": body });
        if let Some((kind, sdp)) = jsep {
            message["jsep"] = json!({ "type": kind, "sdp": sdp });
        }
        let answer = self.ask(message).await?;
        let data = &answer["plugindata"]["data"];
        if let Some(code) = data["error_code"].as_u64() {
            return Err(ApiError::Refused { code, reason: data["error"].as_str().unwrap_or_default().to_owned() });
        }
        Ok(answer["jsep"]["sdp"].as_str().map(str::to_owned))
    }

    async fn ask(&self, message: Value) -> Result<Value, ApiError> {
        let (answer, answered) = oneshot::channel();
        let transaction = self.transaction();
        self.pending().insert(transaction.clone(), answer);
        let asked = async {
            self.send(message, &transaction).await?;
            // The sender is in the table until it has sent.
            answered.await.map_err(|_| ApiError::Late)
        };
        let answer = timeout(ANSWER_WITHIN, asked).await.unwrap_or(Err(ApiError::Late));
        self.pending().remove(&transaction);
        accepted(answer?)
    }

    async fn ask_alone(&self, message: Value) -> Result<Value, ApiError> {
        self.send(message, &self.transaction()).await?;
        let mut buffer = vec![0; MAX_MESSAGE];
        let len = timeout(FIRST_ANSWER_WITHIN, self.socket.recv(&mut buffer)).await.map_err(|_| ApiError::Late)??;
        accepted(serde_json::from_slice(&buffer[..len]).map_err(std::io::Error::from)?)
    }

    async fn send(&self, mut message: Value, transaction: &str) -> Result<(), ApiError> {
        message["transaction"] = transaction.into();
        if let Some(session) = self.session {
            message["session_id"] = session.into();
        }
        self.socket.send(message.to_string().as_bytes()).await?;
        Ok(())
    }

    /// A message came: the answer to a request, the promise of one, or an event that nobody asked for.
    fn settle(&self, message: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(message) else { return };
        if message["janus"] == "ack" {
            return;
        }
        let waiting = message["transaction"].as_str().and_then(|transaction| self.pending().remove(transaction));
        if let Some(waiting) = waiting {
            // Whoever has given up waiting wants it no more.
            let _ = waiting.send(message);
        }
    }

    fn transaction(&self) -> String {
        self.transactions.fetch_add(1, Ordering::Relaxed).to_string()
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Value>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accepted(answer: Value) -> Result<Value, ApiError> {
    if answer["janus"] != "error" {
        return Ok(answer);
    }
    let (code, reason) = (&answer["error"]["code"], &answer["error"]["reason"]);
    Err(ApiError::Refused {
        code: code.as_u64().unwrap_or_default(),
        reason: reason.as_str().unwrap_or_default().to_owned(),
    })
}

fn id(answer: &Value) -> Result<u64, ApiError> {
    answer["data"]["id"].as_u64().ok_or(ApiError::Missing("id"))
}

//! WHIP and WHEP for Janus, which has neither: offers in, its own API out. It is at the players' end and no part of what is
//! measured.
//!
//! A publisher's offer goes to the VideoRoom as it is, and so does the answer back. A subscriber of the VideoRoom is
//! offered to: that offer and the player's answer each other (`sdp`).

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{self, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use serde_json::json;
use tokio::net::TcpListener;

use super::api::{ApiError, HandleId, Janus};
use super::sdp::{self, CallError};
use crate::lab;

/// Of WHIP and WHEP, at the players' address.
pub const PORT: u16 = 8080;

/// Of the VideoRoom: the room is there already; it, or the publisher, is not.
const ROOM_EXISTS: u64 = 427;
const NO_SUCH_ROOM: u64 = 426;
const NO_SUCH_FEED: u64 = 428;

/// Answers WHIP and WHEP for the Janus whose socket is in `folder`, until standard input ends. Says on standard output
/// which Janus that is, once it is ready.
///
/// # Errors
/// Janus does not answer, or the address is taken.
pub fn run(folder: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let janus = Janus::connect(&folder.join("bridge.socket"), &folder.join(super::SOCKET)).await?;
        let listener = TcpListener::bind((lab::FAR, PORT)).await.context("the bridge's address")?;
        println!("{}", janus.version());
        let bridge = Arc::new(Bridge { janus, feeds: Mutex::default(), count: AtomicU64::new(0) });
        let routes = Router::new()
            .route("/whip/{table}", post(publish))
            .route("/whep/{table}", post(watch))
            .route("/session/{handle}", delete(end))
            .with_state(bridge);
        let served = tokio::spawn(async { axum::serve(listener, routes).await });
        // A blocking read, since nothing ever comes.
        tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
        served.abort();
        Ok(())
    })
}

struct Bridge {
    janus: Arc<Janus>,
    /// Who publishes which table, as the VideoRoom calls it.
    feeds: Mutex<HashMap<String, String>>,
    /// Publishers so far.
    count: AtomicU64,
}

/// Why an offer was turned down.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("nobody publishes the table")]
    NotLive,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            // A VideoRoom knows its publisher only once that is connected.
            Self::NotLive | Self::Api(ApiError::Refused { code: NO_SUCH_ROOM | NO_SUCH_FEED, .. }) => {
                StatusCode::CONFLICT
            }
            Self::Api(ApiError::Late) => StatusCode::GATEWAY_TIMEOUT,
            Self::Api(_) => StatusCode::BAD_GATEWAY,
            Self::Call(_) => StatusCode::NOT_ACCEPTABLE,
        };
        (status, self.to_string()).into_response()
    }
}

async fn publish(
    State(bridge): State<Arc<Bridge>>,
    extract::Path(table): extract::Path<String>,
    offer: String,
) -> Result<Response, Refusal> {
    let feed = format!("{table} {}", bridge.count.fetch_add(1, Ordering::Relaxed));
    let handle = bridge.janus.attach().await?;
    let published = async {
        // All that costs Janus something and is of no use to a player who only watches is off.
        let room = json!({
            "request": "create", "room": table, "publishers": 2, "fir_freq": 0, "bitrate": 0, "record": false,
            "audiocodec": "opus", "videocodec": "vp8,h264", "notify_joining": false, "audiolevel_ext": false,
            "videoorient_ext": false, "playoutdelay_ext": false, "transport_wide_cc_ext": false,
        });
        match bridge.janus.message(handle, room, None).await {
            Ok(_) | Err(ApiError::Refused { code: ROOM_EXISTS, .. }) => {}
            Err(error) => return Err(error),
        }
        let join = json!({ "request": "joinandconfigure", "ptype": "publisher", "room": table, "id": feed });
        bridge.janus.message(handle, join, Some(("offer", &offer))).await?.ok_or(ApiError::Missing("SDP"))
    };
    match published.await {
        Ok(answer) => {
            bridge.feeds().insert(table, feed);
            Ok(created(handle, answer))
        }
        Err(error) => bridge.give_up(handle, error.into()).await,
    }
}

async fn watch(
    State(bridge): State<Arc<Bridge>>,
    extract::Path(table): extract::Path<String>,
    offer: String,
) -> Result<Response, Refusal> {
    let feed = bridge.feeds().get(&table).cloned().ok_or(Refusal::NotLive)?;
    let handle = bridge.janus.attach().await?;
    let watching = async {
        let join = json!({
            "request": "join", "ptype": "subscriber", "room": table, "autoupdate": false, "streams": [{ "feed": feed }],
        });
        let offered = bridge.janus.message(handle, join, None).await?.ok_or(ApiError::Missing("SDP"))?;
        let answers = sdp::connect(&offered, &offer)?;
        let start = json!({ "request": "start" });
        bridge.janus.message(handle, start, Some(("answer", &answers.to_janus))).await?;
        Ok(answers.to_player)
    };
    match watching.await {
        Ok(answer) => Ok(created(handle, answer)),
        Err(refusal) => bridge.give_up(handle, refusal).await,
    }
}

async fn end(
    State(bridge): State<Arc<Bridge>>,
    extract::Path(handle): extract::Path<HandleId>,
) -> Result<StatusCode, Refusal> {
    bridge.janus.detach(handle).await?;
    Ok(StatusCode::OK)
}

impl Bridge {
    fn feeds(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn give_up(&self, handle: HandleId, refusal: Refusal) -> Result<Response, Refusal> {
        // What it has to say to that is not the reason.
        let _ = self.janus.detach(handle).await;
        Err(refusal)
    }
}

/// RFC 9725 §4.2.
fn created(handle: HandleId, answer: String) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/sdp".to_owned()), (header::LOCATION, format!("/session/{handle}"))];
    (StatusCode::CREATED, headers, answer).into_response()
}

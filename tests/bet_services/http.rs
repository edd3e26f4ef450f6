//! A bet service over HTTP, as `docs/bet-service.md` describes it, which can be killed and made to fail.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use axum::body::{Body, Bytes};
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tableside::bet_service::{HttpService, Link};
use tableside::config::Config;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::bench::{Bench, ForeignBench, run};
use super::ledger::{Fault, Ledger};
use super::node::Node;

/// What all connections of a service share.
#[derive(Clone)]
pub struct State {
    pub ledger: Ledger,
    events: broadcast::Sender<String>,
    /// Of each request for a bet.
    pub heads: Arc<Mutex<Vec<HeaderMap>>>,
    /// Ends each connection after its first answer.
    pub ends_connections: Arc<Mutex<bool>>,
    /// Opens streams, and says nothing on them.
    pub is_mute: Arc<Mutex<bool>>,
    pub streams: Arc<Mutex<u32>>,
    /// It does not want to hear of this one.
    pub unknown_table: Arc<Mutex<Option<String>>>,
}

pub struct HttpBench {
    pub address: SocketAddr,
    pub state: State,
    pub tls: Option<TlsAcceptor>,
    pub config: String,
    /// Where nodes look for it.
    pub port: u16,
    server: Option<JoinHandle<()>>,
}

impl HttpBench {
    /// A service with or without TLS; `config` is what a node's section says besides the URLs.
    pub async fn with(tls: Option<TlsAcceptor>, config: &str) -> Self {
        let (events, _) = broadcast::channel(1024);
        let state = State {
            ledger: Ledger::default(),
            events,
            heads: Arc::default(),
            ends_connections: Arc::default(),
            is_mute: Arc::default(),
            streams: Arc::default(),
            unknown_table: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = Some(tokio::spawn(serve(listener, state.clone(), tls.clone())));
        Self { address, state, tls, config: config.to_owned(), port: address.port(), server }
    }

    pub fn config(&self) -> Config {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = if self.tls.is_some() { "localhost" } else { "127.0.0.1" };
        let base = format!("{scheme}://{host}:{}", self.port);
        let text = format!(
            "[bet_service]\nkind = \"http\"\nbreaker.consecutive_failures = 8\n[bet_service.http]\nurl = \"{base}/bets\"\n\
             events_url = \"{base}/events\"\ntables_url = \"{base}/tables\"\nevents_silence_s = 2\n{}\n[tables.one]\n[tables.two]\n",
            self.config
        );
        Config::parse("test.toml".as_ref(), &text).expect("a configuration")
    }
}

impl Bench for HttpBench {
    async fn start() -> Self {
        Self::with(None, "").await
    }

    async fn connect(&self) -> (Node, JoinHandle<()>) {
        let (link, task) = self.join();
        let mut node = Node::new(link);
        node.until("the stream of events", |node| node.report().connected == Some(true)).await;
        (node, task)
    }
}

impl ForeignBench for HttpBench {
    fn join(&self) -> (Link, JoinHandle<()>) {
        let config = self.config();
        let tables = config.tables.keys().map(|name| name.as_str().into());
        run(HttpService::new(&config.bet_service, tables).expect("a connector"))
    }

    fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    async fn kill(&mut self) {
        // With the listener and all connections.
        let server = self.server.take().expect("it runs");
        server.abort();
        let _ = server.await;
    }

    async fn back(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port of before");
        self.server = Some(tokio::spawn(serve(listener, self.state.clone(), self.tls.clone())));
    }

    async fn say(&self, table: &str, kind: &str) {
        let event = self.state.ledger.say(table, kind);
        let _ = self.state.events.send(written(&event));
    }

    async fn say_again(&self, table: &str) {
        for event in self.state.ledger.current(table) {
            let _ = self.state.events.send(written(&event));
        }
    }
}

/// A server-sent event.
fn written(event: &Value) -> String {
    format!("id: 1\ndata: {event}\n\n")
}

async fn serve(listener: TcpListener, state: State, tls: Option<TlsAcceptor>) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (state, tls) = (state.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => converse(stream, false, state).await,
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    converse(stream, is_http2, state).await;
                }
            }
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_http2: bool, state: State) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { answer(request, state).await }
    });
    // How it ends is the client's business.
    if is_http2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

async fn answer(request: Request<Incoming>, state: State) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(status(StatusCode::BAD_REQUEST)) };
    let document: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let mut response = match (head.method, head.uri.path()) {
        (Method::POST, "/bets") => {
            let id = head.headers["idempotency-key"].to_str().expect("text").trim_matches('"').to_owned();
            state.heads.lock().expect("whole").push(head.headers);
            bet(&id, &document, &state).await
        }
        (Method::POST, "/tables")
            if document["table"].as_str() == state.unknown_table.lock().expect("whole").as_deref() =>
        {
            status(StatusCode::NOT_FOUND)
        }
        (Method::POST, "/tables") => {
            for event in state.ledger.handle_table(&document) {
                let _ = state.events.send(written(&event));
            }
            status(StatusCode::NO_CONTENT)
        }
        (Method::GET, "/events") => events(&state),
        _ => status(StatusCode::NOT_FOUND),
    };
    if *state.ends_connections.lock().expect("whole") {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn bet(id: &str, document: &Value, state: &State) -> Response<Body> {
    match state.ledger.fault() {
        Fault::None => say(StatusCode::OK, &state.ledger.take(id, document)),
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            say(StatusCode::OK, &state.ledger.take(id, document))
        }
        Fault::Hang => {
            state.ledger.take(id, document);
            std::future::pending().await
        }
        Fault::Decline => {
            let mut response = say(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "unavailable" }));
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("0"));
            response
        }
        Fault::Garbage => {
            state.ledger.take(id, document);
            Response::new(Body::from("<html>accepted</html>"))
        }
        Fault::Flood => {
            let mut answer = state.ledger.take(id, document);
            answer["more"] = "x".repeat(100_000).into();
            say(StatusCode::OK, &answer)
        }
        Fault::Error => say(StatusCode::INTERNAL_SERVER_ERROR, &state.ledger.take(id, document)),
    }
}

fn events(state: &State) -> Response<Body> {
    *state.streams.lock().expect("whole") += 1;
    let is_mute = *state.is_mute.lock().expect("whole");
    let first: String = state.ledger.all_current().iter().map(written).collect();
    let mut news = Box::pin(follow(state.events.subscribe()));
    let mut first = Some(Bytes::from(format!(": welcome\n\n{first}")));
    let mut beats = tokio::time::interval(std::time::Duration::from_millis(500));
    let body = stream::poll_fn(move |cx| {
        if let Some(first) = first.take() {
            return Poll::Ready(Some(Ok::<_, Infallible>(first)));
        }
        if is_mute {
            return Poll::Pending;
        }
        if let Poll::Ready(event) = news.as_mut().poll(cx) {
            let (event, receiver) = event;
            news = Box::pin(follow(receiver));
            return Poll::Ready(event.map(|event| Ok(Bytes::from(event))));
        }
        beats.poll_tick(cx).map(|_| Some(Ok(Bytes::from_static(b": still here\n\n"))))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    response
}

type Followed = (Option<String>, broadcast::Receiver<String>);

fn follow(mut receiver: broadcast::Receiver<String>) -> Pin<Box<dyn Future<Output = Followed> + Send>> {
    Box::pin(async move { (receiver.recv().await.ok(), receiver) })
}

fn say(status: StatusCode, answer: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

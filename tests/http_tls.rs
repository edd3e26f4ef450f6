//! HTTPS on the public listener: both versions of HTTP and of TLS, and a certificate that is exchanged under way.

mod http_support;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use http_support::*;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion, version};
use tableside::config::{AuthMode, Config, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const NAME: &str = "edge.example.com";
/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A directory with a certificate in it; gone at the end of the test.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("tableside-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A directory below it, or a link to one.
    fn below(&self, name: &str) -> Self {
        let path = self.0.join(name);
        if !name.starts_with('.') {
            std::fs::create_dir_all(&path).unwrap();
        }
        Self(path)
    }

    fn write(&self, made: &CertifiedKey<KeyPair>) {
        std::fs::write(self.0.join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(self.0.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    }

    fn config(&self) -> Config {
        let mut config = config();
        config.http.tls =
            Tls { certificate: Some(self.0.join("tls.crt")), key: Some(self.0.join("tls.key")), ..Tls::default() };
        config
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn made() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed([NAME.to_owned()]).unwrap()
}

/// A TLS connection of a client that trusts `root` alone.
async fn connect(
    address: SocketAddr,
    root: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).unwrap();
    tokio::time::timeout(LIMIT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("in time")
}

async fn connect_any(address: SocketAddr, root: &CertificateDer<'static>) -> io::Result<TlsStream<TcpStream>> {
    connect(address, root, rustls::ALL_VERSIONS, &["h2", "http/1.1"]).await
}

/// POSTs an offer, over whichever version of HTTP was agreed on; the answer with its text.
async fn offer(stream: TlsStream<TcpStream>) -> (Response<()>, String) {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let request = Request::post(if is_http2 { "https://edge.example.com/whep/roulette" } else { "/whep/roulette" })
        .header("content-type", SDP)
        .header("authorization", format!("Bearer {}", *PLAYER));
    let body = Full::new(Bytes::from_static(OFFER.as_bytes()));
    let response = if is_http2 {
        let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client.send_request(request.body(body).unwrap()).await.unwrap()
    } else {
        let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client.send_request(request.header("host", NAME).body(body).unwrap()).await.unwrap()
    };
    let (parts, body) = response.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, ()), String::from_utf8(text.to_vec()).unwrap())
}

#[tokio::test]
async fn an_offer_is_answered_over_every_version_of_http_and_tls() {
    let (files, made) = (Files::new(), made());
    files.write(&made);
    let server = Server::public_with(files.config(), FakeSessions::default()).await;
    let root = made.cert.der();
    for (tls, protocols, agreed) in [
        (&version::TLS13, &["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&version::TLS12, &["h2", "http/1.1"], Some(b"h2")),
        (&version::TLS13, &["http/1.1"], Some(b"http/1.1")),
        (&version::TLS12, &[], None),
    ] {
        let stream = connect(server.address, root, &[tls], protocols).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        let spoken =
            if tls.version == ProtocolVersion::TLSv1_3 { ProtocolVersion::TLSv1_3 } else { ProtocolVersion::TLSv1_2 };
        assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
        let (response, text) = offer(stream).await;
        assert_eq!(response.status(), 201);
        let location = response.headers()["location"].to_str().unwrap();
        assert_eq!(location, format!("https://{NAME}/whep/roulette/{SESSION}"));
        assert_eq!(text, ANSWER);
    }
    let metrics = server.metrics.render();
    assert!(metrics.contains("_established_total{listener=\"public\",protocol=\"https/2\"} 2\n"), "{metrics}");
    assert!(metrics.contains("_established_total{listener=\"public\",protocol=\"https/1.1\"} 2\n"), "{metrics}");
}

#[tokio::test]
async fn a_large_head_over_http2_is_refused_with_a_problem() {
    let (files, made) = (Files::new(), made());
    files.write(&made);
    let server = Server::public_with(files.config(), FakeSessions::default()).await;
    let stream = connect_any(server.address, made.cert.der()).await.unwrap();
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://edge.example.com/").header("x-large", "x".repeat(20_000));
    let response = client.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 431);
    assert_cors(response.headers());
    let problem = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&problem).contains("urn:tableside:problem:headers-too-large"));
    server.metric("tableside_http_limited_total{listener=\"public\",reason=\"header_bytes\"} 1").await;
}

#[tokio::test]
async fn the_streams_of_a_connection_are_limited() {
    let (files, made) = (Files::new(), made());
    files.write(&made);
    let mut config = files.config();
    config.http.max_streams_per_connection = 3;
    config.auth.mode = AuthMode::None;
    let server = Server::public_with(config, FakeSessions::default()).await;
    let mut stream = connect_any(server.address, made.cert.der()).await.unwrap();
    // RFC 9113 §3.4: the preface of a client, with empty settings.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // §3.4, §6.5: that of a server MUST be its settings: pairs of an identifier and a value.
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!(header[3], 4, "SETTINGS");
    let mut settings = vec![0; usize::from(header[2]) + 256 * usize::from(header[1])];
    stream.read_exact(&mut settings).await.unwrap();
    let most_streams = settings.chunks_exact(6).find(|pair| pair[..2] == [0, 3]).expect("MAX_CONCURRENT_STREAMS");
    assert_eq!(most_streams[2..], [0, 0, 0, 3]);

    // §5.1.2: one more is refused. Requests whose offer never comes, in literal fields (RFC 7541 §6.2.2).
    let literal = |name: &[u8], value: &str| [name, &[value.len() as u8], value.as_bytes()].concat();
    let (path, kind) = (literal(&[0x04], "/whep/roulette"), literal(&[0x0f, 0x10], SDP));
    let fields = [&[0x83, 0x87][..], &path, &literal(&[0x01], NAME), &kind].concat();
    for number in [1, 3, 5, 7] {
        let header = [0, 0, fields.len() as u8, 1, 4, 0, 0, 0, number];
        stream.write_all(&[&header[..], &fields].concat()).await.unwrap();
    }
    let refused = async {
        loop {
            stream.read_exact(&mut header).await.unwrap();
            let mut payload = vec![0; usize::from(header[2]) + 256 * usize::from(header[1])];
            stream.read_exact(&mut payload).await.unwrap();
            // §6.4: RST_STREAM.
            if header[3] == 3 {
                return (header[8], payload);
            }
        }
    };
    let (number, code) = tokio::time::timeout(LIMIT, refused).await.expect("in time");
    assert_eq!((number, code), (7, vec![0, 0, 0, 7]), "REFUSED_STREAM");
    assert!(server.sessions.asked.lock().unwrap().is_empty());
}

/// Takes an answer's head and gives no room for its body.
#[tokio::test]
async fn an_answer_that_is_never_taken_ends_the_connection() {
    let (files, made) = (Files::new(), made());
    files.write(&made);
    let mut config = files.config();
    let long = Duration::from_secs(3600);
    (config.http.header_timeout, config.http.idle_timeout) = (long, long);
    config.http.request_timeout = Duration::from_millis(100);
    let server = Server::public_with(config, FakeSessions::default()).await;
    let stream = connect_any(server.address, made.cert.der()).await.unwrap();
    let client =
        http2::Builder::new(TokioExecutor::new()).initial_stream_window_size(0).handshake(TokioIo::new(stream)).await;
    let (mut client, connection) = client.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("https://edge.example.com/sdk/player.js").body(Full::<Bytes>::default()).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let ended = tokio::time::timeout(LIMIT, connection).await;
    assert!(ended.is_ok(), "the other end closes");
    server.metric("tableside_http_limited_total{listener=\"public\",reason=\"answer_time\"} 1").await;
    server.metric("tableside_http_connections{listener=\"public\"} 0").await;
}

#[tokio::test]
async fn who_does_not_speak_tls_is_let_go_and_counted() {
    let (files, made) = (Files::new(), made());
    files.write(&made);
    let server = Server::public_with(files.config(), FakeSessions::default()).await;
    assert!(server.request("GET", "/").send().await.is_err(), "there is no plain HTTP beside HTTPS");
    server.metric("tableside_tls_handshakes_failed_total{listener=\"public\"} 1").await;
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_is_ended_in_time_and_counted() {
    let (files, made) = (Files::new(), made());
    files.write(&made);
    let mut config = files.config();
    config.http.tls.handshake_timeout = Duration::from_millis(100);
    let server = Server::public_with(config, FakeSessions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let ended = tokio::time::timeout(LIMIT, stream.read_u8()).await.expect("the other end closes");
    assert!(ended.is_err());
    server.metric("tableside_http_limited_total{listener=\"public\",reason=\"tls_handshake_time\"} 1").await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_a_bad_one_for_none() {
    let (files, old, new) = (Files::new(), made(), made());
    files.write(&old);
    let server = Server::public_with(files.config(), FakeSessions::default()).await;
    let certificate = server.certificate.clone().expect("HTTPS");
    let kept = connect_any(server.address, old.cert.der()).await.unwrap();
    certificate.reload();
    assert!(connect_any(server.address, new.cert.der()).await.is_err(), "nothing has changed yet");

    // A key that belongs to nothing: the old pair stays, and the mistake is counted once however often one looks.
    std::fs::write(files.0.join("tls.key"), made().signing_key.serialize_pem()).unwrap();
    certificate.reload();
    certificate.reload();
    connect_any(server.address, old.cert.der()).await.expect("the old one");
    server.metric("tableside_tls_certificate_reloads_total{outcome=\"failed\"} 1").await;
    std::fs::remove_file(files.0.join("tls.key")).unwrap();
    certificate.reload();
    certificate.reload();
    connect_any(server.address, old.cert.der()).await.expect("the old one");
    server.metric("tableside_tls_certificate_reloads_total{outcome=\"failed\"} 2").await;

    files.write(&new);
    certificate.reload();
    connect_any(server.address, new.cert.der()).await.expect("the new one");
    assert!(connect_any(server.address, old.cert.der()).await.is_err(), "the old one is served no more");
    server.metric("tableside_tls_certificate_reloads_total{outcome=\"loaded\"} 1").await;
    let (response, _) = offer(kept).await;
    assert_eq!(response.status(), 201, "a connection that was there goes on");
}

#[tokio::test]
async fn the_expiry_of_the_certificate_is_a_metric() {
    let files = Files::new();
    let key = KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(2040, 2, 29);
    let cert = parameters.self_signed(&key).unwrap();
    files.write(&CertifiedKey { cert, signing_key: key });
    let server = Server::public_with(files.config(), FakeSessions::default()).await;
    server.metric("tableside_tls_certificate_expiry_timestamp_seconds 2214086400").await;
}

#[tokio::test]
async fn changed_files_are_found_without_being_told() {
    let (files, old, new) = (Files::new(), made(), made());
    let (first, second, data) = (files.below("first"), files.below("second"), files.below("..data"));
    first.write(&old);
    second.write(&new);
    std::os::unix::fs::symlink("first", files.0.join("..data")).unwrap();
    let server = Server::public_with(data.config(), FakeSessions::default()).await;
    let hangups = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
    let certificate = server.certificate.clone().expect("HTTPS");
    let keeper = tokio::spawn(certificate.keep_fresh(Duration::from_millis(5), hangups));
    // As Kubernetes does: the directory behind a link is exchanged.
    std::os::unix::fs::symlink("second", files.0.join("..data.new")).unwrap();
    std::fs::rename(files.0.join("..data.new"), files.0.join("..data")).unwrap();
    server.metric("tableside_tls_certificate_reloads_total{outcome=\"loaded\"} 1").await;
    connect_any(server.address, new.cert.der()).await.expect("the new one");
    keeper.abort();
}

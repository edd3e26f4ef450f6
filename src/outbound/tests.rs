use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const LIMITS: Limits = Limits { time: Duration::from_secs(20), body: 100 };

/// Answers one connection with `text`, and gives what was asked.
async fn serve(text: &'static str, tls: Option<TlsAcceptor>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        match tls {
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => answer(stream, text).await,
                Err(_) => String::new(),
            },
            None => answer(stream, text).await,
        }
    });
    (address, asked)
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> String {
    let (mut asked, mut byte) = (Vec::new(), [0]);
    while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap() == 1 {
        asked.push(byte[0]);
    }
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(asked).unwrap()
}

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).header("accept", "application/json").body(Bytes::new()).unwrap()
}

fn client(limits: Limits) -> Client {
    Client::new(RootCertStore::empty(), limits)
}

#[tokio::test]
async fn a_request_has_its_host_and_the_answer_comes_whole() {
    let (address, asked) = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\nhello", None).await;
    let response = client(LIMITS).send(get(&format!("http://{address}/keys?a=b"))).await.unwrap();
    assert_eq!((response.status().as_u16(), response.body().as_ref()), (200, &b"hello"[..]));
    assert_eq!(response.headers()["etag"], "\"a\"");
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("GET /keys?a=b HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains(&format!("host: {address}\r\n")) && asked.contains("accept: application/json\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_body_is_sent_and_a_redirect_is_an_answer() {
    let (address, asked) =
        serve("HTTP/1.1 307 x\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n", None).await;
    let request = Request::post(format!("http://{address}")).body(Bytes::from_static(b"bet")).unwrap();
    let response = client(LIMITS).send(request).await.unwrap();
    assert_eq!(response.status(), 307);
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST / HTTP/1.1\r\n") && asked.contains("content-length: 3\r\n"), "{asked}");
}

#[tokio::test]
async fn an_answer_is_bounded_in_size_and_time() {
    let long = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n\
                40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n0\r\n\r\n";
    let (address, _asked) = serve(long, None).await;
    let refused = client(LIMITS).send(get(&format!("http://{address}/"))).await;
    assert!(matches!(refused, Err(OutboundError::TooLong(100))), "{refused:?}");

    // Accepted by the kernel, and by nobody else.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hurried = client(Limits { time: Duration::from_millis(50), ..LIMITS });
    let refused = hurried.send(get(&format!("http://{}/", silent.local_addr().unwrap()))).await;
    assert!(matches!(refused, Err(OutboundError::Late(_))), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_http_or_not_there_is_an_error() {
    let (address, _asked) = serve("SSH-2.0-x\r\n", None).await;
    let refused = client(LIMITS).send(get(&format!("http://{address}/"))).await;
    assert!(matches!(refused, Err(OutboundError::Http(_))), "{refused:?}");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = client(LIMITS).send(get(&format!("http://{gone}/"))).await;
    assert!(matches!(refused, Err(OutboundError::Connect(_))), "{refused:?}");
    for url in ["ftp://127.0.0.1/", "/keys", "127.0.0.1:80"] {
        let refused = client(LIMITS).send(get(url)).await;
        assert!(matches!(refused, Err(OutboundError::Url(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn only_a_trusted_certificate_of_the_host_is_taken() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();

    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (roots, host, trusted) in
        [(roots.clone(), "localhost", true), (roots, "127.0.0.1", false), (RootCertStore::empty(), "localhost", false)]
    {
        let (address, _asked) = serve(ok, Some(acceptor.clone())).await;
        let answered = Client::new(roots, LIMITS).send(get(&format!("https://{host}:{}/", address.port()))).await;
        match answered {
            Ok(response) => assert!(trusted && response.body() == "ok", "{host}"),
            Err(OutboundError::Tls(_)) => assert!(!trusted, "{host}"),
            Err(other) => panic!("{host}: {other:?}"),
        }
    }
}

/// Nobody is at an address for documentation (RFC 5737), and a port without a listener refuses.
#[tokio::test]
async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (silent, here) = (SocketAddr::from(([192, 0, 2, 1], 9)), listener.local_addr().unwrap());
    let connecting = tokio::time::timeout(Duration::from_secs(20), connect([silent, closed, here]));
    assert_eq!(connecting.await.expect("in time").unwrap().peer_addr().unwrap(), here);
    assert_eq!(connect([closed]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(connect([]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

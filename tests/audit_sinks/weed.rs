//! A real S3-compatible store: SeaweedFS, one for all tests of this process.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::{Request, Response};
use tableside::audit::SinkOptions;
use tableside::audit::s3::S3Options;
use tableside::audit::s3::sigv4::{Credentials, sign};
use tableside::bets::audit::Timestamp;
use tableside::config::LockMode;
use tableside::outbound::{Client, Limits};

use crate::foreign::program;
use crate::runtime;

/// The bucket with object lock, and the one without.
pub const LOCKED: &str = "locked";
pub const PLAIN: &str = "plain";

const ID: &str = "tableside";
const SECRET: &str = "of-the-tests";

/// Until it is up, on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Weed {
    /// Where it listens.
    pub endpoint: String,
    /// Where it keeps everything.
    folder: PathBuf,
    /// The shell that ends it once this process, and so the other end of its input, is gone.
    _shell: Child,
}

pub fn weed() -> &'static Weed {
    static WEED: OnceLock<Weed> = OnceLock::new();
    WEED.get_or_init(Weed::start)
}

const SHELL: &str = r#"
"$@" >"$FOLDER/log" 2>&1 &
read -r _
kill -9 $!
wait $! 2>/dev/null
rm -rf "$FOLDER"
"#;

impl Weed {
    fn start() -> Self {
        // Somebody else may be given a port between its choice and its use.
        (0..5).find_map(Self::try_start).expect("SeaweedFS starts; what it says is above")
    }

    fn try_start(attempt: u32) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("tableside-weed-{}-{attempt}", std::process::id()));
        fs::create_dir_all(folder.join("data")).unwrap();
        // Held together, so that none is given twice.
        let held: Vec<TcpListener> = (0..8).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(held);
        let mut command = Command::new("sh");
        command.args(["-c", SHELL, "weed"]).arg(program("weed")).arg("mini");
        command.arg(format!("-dir={}", folder.join("data").display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.electionTimeout=1s"]);
        for (name, ports) in ["s3", "master", "volume", "filer"].iter().zip(ports.chunks(2)) {
            command.arg(format!("-{name}.port={}", ports[0])).arg(format!("-{name}.port.grpc={}", ports[1]));
        }
        command.env("FOLDER", &folder).env("AWS_ACCESS_KEY_ID", ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = command.spawn().expect("a shell starts");
        let weed = Self { endpoint: format!("http://127.0.0.1:{}", ports[0]), folder, _shell: shell };
        weed.is_ready().then_some(weed)
    }

    /// Whether its buckets could be made.
    fn is_ready(&self) -> bool {
        let begun = Instant::now();
        let is_up = runtime().block_on(async {
            let mut looks = tokio::time::interval(Duration::from_millis(50));
            for (bucket, headers) in [(LOCKED, &[("x-amz-bucket-object-lock-enabled", "true")][..]), (PLAIN, &[][..])] {
                while !self.send("PUT", bucket, headers, b"").await.is_ok_and(|answer| answer.status() == 200) {
                    let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                    let is_taken = log.contains("address already in use");
                    if is_taken || begun.elapsed() >= LIMIT {
                        println!("SeaweedFS makes no bucket {bucket}:\n{log}");
                        assert!(is_taken, "not for want of a port");
                        return false;
                    }
                    looks.tick().await;
                }
            }
            true
        });
        if !is_up {
            return false;
        }
        fs::write(
            self.credentials(),
            format!("[default]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n"),
        )
        .unwrap();
        true
    }

    /// A file of good credentials.
    pub fn credentials(&self) -> PathBuf {
        self.folder.join("credentials")
    }

    /// The bucket with object lock, below a prefix.
    pub fn options(&self, prefix: &str) -> S3Options {
        S3Options {
            bucket: LOCKED.to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(self.endpoint.clone()),
            prefix: prefix.to_owned(),
            lock_mode: LockMode::Compliance,
            retain_days: 1,
            ca_file: None,
            credentials_file: Some(self.credentials()),
            request_timeout: Duration::from_secs(20),
            keep_shipped: None,
            page: 200,
        }
    }

    /// As [`Weed::options`].
    pub fn sink(&self, prefix: &str) -> SinkOptions {
        SinkOptions::S3(Box::new(self.options(prefix)))
    }

    /// Asks for something, as its owner.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response<Bytes> {
        runtime().block_on(self.send(method, target, headers, body)).unwrap()
    }

    async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response<Bytes>, tableside::outbound::OutboundError> {
        let mut request = Request::builder().method(method).uri(format!("{}/{target}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Bytes::copy_from_slice(body)).unwrap();
        let credentials =
            Credentials { access_key_id: ID.into(), secret_access_key: SECRET.into(), session_token: None };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        sign(&mut request, &credentials, "us-east-1", Timestamp(now.as_micros() as u64)).unwrap();
        let limits = Limits { time: Duration::from_secs(20), body: 1 << 20 };
        Client::new(rustls::RootCertStore::empty(), limits).send(request).await
    }
}

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const GATEWAY_TOML: &str = include_str!("../../config/gateway.toml");
/// The key of RFC 8037 appendix A.2.
const JWKS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const AUTH: &str = "[auth]\njwks_file = \"jwks.json\"\njurisdictions = [\"MT\"]\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("gateway.toml"), text)
}

fn refusal(text: &str) -> Diagnostic {
    let error = parse(text).expect_err(text);
    error.diagnostic().expect("a diagnostic").clone()
}

/// A directory that is gone at the end of the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("tableside-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn every_section_is_read() {
    let config = parse(
        "[http]\nlisten = \"[::1]:81\"\npublic_url = \"https://edge.example.com/\"\nmax_sdp_bytes = 5000\n\
         request_timeout_ms = 250\n[admin]\nlisten = \"0.0.0.0:82\"\n[media]\nlisten = \"192.0.2.1\"\nshards = 3\n\
         announce = [\"203.0.113.7\", \"198.51.100.7\"]\nring_packets = 4096\npacing = false\ndscp.audio = 0\n[sessions]\n\
         consent_timeout_s = 7\npublisher_grace_s = 0\n[tables.a]\n[tables.b-2]\nplayout_delay_min_ms = 0\n\
         playout_delay_max_ms = 400\nmax_layer = 1\n[auth]\njwks_url = \"https://id.example/keys\"\n\
         leeway_s = 0\nissuer = \"i\"\njurisdictions = [\"MT\", \"US-NJ\"]\n[log]\nformat = \"json\"\nlevel = \"debug\"\n",
    )
    .unwrap();
    assert_eq!(config.http.listen.to_string(), "[::1]:81");
    assert_eq!(config.http.public_url.as_ref().map(PublicUrl::as_str), Some("https://edge.example.com"));
    assert_eq!(config.http.request_timeout.as_millis(), 250);
    assert_eq!(config.media.announce.len(), 2);
    assert!(!config.media.pacing);
    assert_eq!((config.media.shards, config.media.dscp), (3, Dscp { audio: 0, video: 34, data: 46 }));
    assert_eq!(config.sessions.consent_timeout.as_secs(), 7);
    assert!(config.knows(&"b-2".parse().unwrap()) && !config.knows(&"c".parse().unwrap()));
    let delay = config.tables["b-2"].playout_delay().unwrap();
    assert_eq!((delay.0.as_millis(), delay.1.as_millis()), (0, 400));
    assert_eq!(["a", "b-2"].map(|name| config.tables[name].max_layer()), [None, MaxLayer::new(1)]);
    assert!(config.summary().to_string().contains("tables       a, b-2 (max_layer 1)"));
    assert_eq!((config.auth.leeway.as_secs(), config.auth.jwks_refresh.as_secs()), (0, 300));
    assert_eq!(config.auth.policy().issuer.as_deref(), Some("i"));
    assert!(config.wants_tokens());
    assert_eq!((config.log.format, config.log.level), (LogFormat::Json, Level::Debug));
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_a_suggestion() {
    for (text, line, column, key, says) in [
        ("[http]\nlisen = \"0.0.0.0:80\"\n", 2, 1, "http.lisen", "did you mean `listen`?"),
        ("\n  [htp]\n", 2, 4, "htp", "did you mean `http`?"),
        ("[media]\nfirst_port = 1\ndscp.vido = 3\n", 3, 6, "media.dscp.vido", "did you mean `video`?"),
        ("[tables.x]\nplayout_delay_min = 3\n", 2, 1, "tables.x.playout_delay_min", "`playout_delay_min_ms`?"),
        ("[http]\nring_packets = 1\n", 2, 1, "http.ring_packets", "it belongs under [media]"),
        ("[admin]\nzzz = 1\n", 2, 1, "admin.zzz", "known here: listen, max_connections"),
        ("[bet_service.http]\nevent_url = 1\n", 2, 1, "bet_service.http.event_url", "did you mean `events_url`?"),
    ] {
        let at = refusal(text);
        assert_eq!((at.line, at.column, at.key.as_deref()), (line, column, Some(key)), "{at}");
        assert!(at.message.starts_with("unknown key") && at.message.contains(says), "{at}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_what_is_allowed() {
    for (text, line, key, says) in [
        ("[media]\nfirst_port = 70000\n", 2, "media.first_port", "a whole number from 0 to 65535"),
        ("[media]\nfirst_port = 0\n", 2, "media.first_port", "allowed are 1 to 65535"),
        ("[media]\nshards = -1\n", 2, "media.shards", "a whole number, 0 or more"),
        ("[media]\nshards = 2\nfirst_port = 65535\n", 3, "media.first_port", "need ports above 65535"),
        ("[media]\nring_packets = 3000\n", 2, "media.ring_packets", "power of two"),
        ("[media]\nannounce = [\"0.0.0.0\"]\n", 2, "media.announce", "no address that players can send to"),
        ("[media]\nannounce = [\"fe80::7\"]\n", 2, "media.announce", "link-local"),
        ("[media]\nannounce = [\"::ffff:192.0.2.7\"]\n", 2, "media.announce", "write it as one"),
        ("[media]\nannounce = [\"192.0.2.7\", \"192.0.2.7\"]\n", 2, "media.announce", "192.0.2.7 is there twice"),
        ("[media]\nlisten = \"0.0.0.0\"\nannounce = [\"2001:db8::7\"]\n", 3, "media.announce", "is an IPv4 address"),
        ("[media.dscp]\ndata = 64\n", 2, "media.dscp.data", "allowed are 0 to 63"),
        ("[media.tcp]\nmax_connections_per_address = 0\n", 2, "media.tcp.max_connections_per_address", "1 to 100000"),
        ("[media]\nlisten = \"*\"\n", 2, "media.listen", "expected one like \"[::]\""),
        ("[media.dscp]\naudio = 64\n", 2, "media.dscp.audio", "allowed are 0 to 63"),
        ("[http]\nlisten = \"8080\"\n", 2, "http.listen", "expected one like \"0.0.0.0:8080\""),
        ("[http]\npublic_url = \"edge\"\n", 2, "http.public_url", "https://edge.example.com"),
        ("[http]\n\nmax_sdp_bytes = 5\n", 3, "http.max_sdp_bytes", "allowed are 4096 to 1048576"),
        ("[admin]\nlisten = \"127.0.0.1:8080\"\n", 2, "admin.listen", "collides with http.listen"),
        (
            "[http]\ntrusted_proxies = [\"10.0.0.0/33\"]\n",
            2,
            "http.trusted_proxies",
            "expected one like \"10.0.0.0/8\"",
        ),
        ("[http.tls]\nkey = \"tls.key\"\n", 2, "http.tls.key", "http.tls.certificate is not"),
        ("[http.tls]\n\ncertificate = \"tls.crt\"\n", 3, "http.tls.certificate", "http.tls.key is not"),
        ("[auth]\nmode = \"off\"\n", 2, "auth.mode", "expected `token` or `none`"),
        ("[auth]\nleeway_s = 301\n", 2, "auth.leeway_s", "allowed are 0 to 300"),
        ("[auth]\njwks_refresh_s = 9\n", 2, "auth.jwks_refresh_s", "allowed are 10 to 86400"),
        ("[auth]\njwks_url = \"http://id.example/keys\"\n", 2, "auth.jwks_url", "\"https://id.example.com/"),
        ("[auth]\njwks_file = \"a\"\njwks_url = \"https://a/b\"\n", 3, "auth.jwks_url", "one place"),
        ("[auth]\njwks_ca_file = \"a\"\n", 2, "auth.jwks_ca_file", "jwks_url, which is not set"),
        ("[auth]\naudience = \"\"\n", 2, "auth.audience", "leave it out"),
        ("[auth]\njurisdictions = [\"MT\", \"\"]\n", 2, "auth.jurisdictions", "visible ASCII"),
        ("[auth]\njurisdictions = \"MT\"\n", 2, "auth.jurisdictions", "a list in square brackets"),
        ("[publish]\nkeys_file = \"keys.toml\"\n", 1, "publish", "unknown key"),
        ("[log]\nformat = \"xml\"\n", 2, "log.format", "expected `human` or `json`"),
        ("[log]\nlevel = \"loud\"\n", 2, "log.level", "`info`"),
        ("[audit]\nfsync = \"often\"\n", 2, "audit.fsync", "`always`, `interval`, `never`"),
        ("[audit]\nnode = \"a/b\"\n", 2, "audit.node", "expected 1 to 64 letters"),
        ("[audit]\nrotate_bytes = 5\n", 2, "audit.rotate_bytes", "allowed are 65536 to"),
        (
            "[audit]\nkeep_shipped_days = 5\n",
            2,
            "audit.keep_shipped_days",
            "none of audit.sink_directory, audit.s3.bucket",
        ),
        ("[audit]\ndirectory = \"a\"\nsink_directory = \"a\"\n", 3, "audit.sink_directory", "has to be elsewhere"),
        ("[audit]\nsink_directory = \"a\"\ns3.bucket = \"abc\"\n", 3, "audit.s3.bucket", "copied to one place"),
        ("[audit.s3]\nbucket = \"A/B\"\n", 2, "audit.s3.bucket", "expected 3 to 63 lower-case"),
        ("[audit.s3]\nbucket = \"a.b.c\"\n", 2, "audit.s3.bucket", "set audit.s3.endpoint"),
        ("[audit.s3]\nregion = \"eu-west-1\"\n", 2, "audit.s3.region", "audit.s3.bucket, which is not set"),
        ("[audit.s3]\nrequest_timeout_ms = 500\n", 2, "audit.s3.request_timeout_ms", "bucket, which is not set"),
        ("[audit.s3]\nbucket = \"abc\"\nregion = \"EU\"\n", 3, "audit.s3.region", "\"eu-central-1\""),
        ("[audit.s3]\nbucket = \"abc\"\nendpoint = \"https://h/p\"\n", 3, "audit.s3.endpoint", "has a path"),
        ("[audit.s3]\nbucket = \"abc\"\nendpoint = \"https://h?p\"\n", 3, "audit.s3.endpoint", "has a path"),
        ("[audit.s3]\nbucket = \"abc\"\nprefix = \"/a\"\n", 3, "audit.s3.prefix", "\"tableside/\""),
        ("[audit.s3]\nbucket = \"abc\"\n", 1, "audit.s3.retain_days", "is not set"),
        ("[audit.s3]\nbucket = \"abc\"\nretain_days = 36501\n", 3, "audit.s3.retain_days", "allowed are 1 to 36500"),
        (
            "[audit]\nkeep_shipped_days = 3\n[audit.s3]\nbucket = \"abc\"\nretain_days = 2\n",
            5,
            "audit.s3.retain_days",
            "less than audit.keep_shipped_days",
        ),
        (
            "[audit.s3]\nbucket = \"abc\"\nretain_days = 2\nendpoint = \"http://h\"\nca_file = \"ca.pem\"\n",
            5,
            "audit.s3.ca_file",
            "is for https",
        ),
        (
            "[audit]\nrotate_bytes = 268435457\n[audit.s3]\nbucket = \"abc\"\nretain_days = 2\n",
            4,
            "audit.s3.bucket",
            "in one piece",
        ),
        ("[audit.s3]\nlock_mode = \"legal\"\n", 2, "audit.s3.lock_mode", "expected `compliance` or `governance`"),
        ("[audit.s3]\nrequest_timeout_ms = 1\n", 2, "audit.s3.request_timeout_ms", "allowed are 100 to 60000"),
        (
            "[audit]\ns3.bucket = \"abc\"\njetstream.stream = \"A\"\n",
            3,
            "audit.jetstream.stream",
            "so is audit.s3.bucket; a trail is copied to one place",
        ),
        ("[audit.jetstream]\nstream = \"A.B\"\n", 2, "audit.jetstream.stream", "expected 1 to 128 letters"),
        ("[audit.jetstream]\nstream = \"A\"\n", 2, "audit.jetstream.stream", "servers is empty"),
        ("[audit.jetstream]\nsegments = true\n", 2, "audit.jetstream.segments", "stream, which is not set"),
        ("[audit.jetstream.tls]\nca_file = \"a\"\n", 1, "audit.jetstream.tls", "stream, which is not set"),
        ("[audit.jetstream]\nservers = [\"h\"]\n", 2, "audit.jetstream.servers", "not a NATS server"),
        ("[audit.jetstream]\nrequest_timeout_ms = 1\n", 2, "audit.jetstream.request_timeout_ms", "100 to 60000"),
        ("[audit.jetstream]\nconnect_timeout_ms = 1\n", 2, "audit.jetstream.connect_timeout_ms", "50 to 30000"),
        (
            "[audit.jetstream]\nstream = \"A\"\nservers = [\"nats://h\"]\nsubject_prefix = \"a.>\"\n",
            4,
            "audit.jetstream.subject_prefix",
            "casino.eu.tableside",
        ),
        (
            "[audit.jetstream]\nstream = \"A\"\nservers = [\"nats://h\"]\npassword_file = \"p\"\n",
            4,
            "audit.jetstream.password_file",
            "belong together",
        ),
        (
            "[audit.jetstream]\nstream = \"A\"\nservers = [\"nats://h\"]\ntls.ca_file = \"p\"\n",
            4,
            "audit.jetstream.tls",
            "no server of audit.jetstream is tls://",
        ),
        (
            "[audit.jetstream]\nstream = \"A\"\nservers = [\"tls://h\"]\ntls.key = \"p\"\n",
            4,
            "audit.jetstream.tls.key",
            "audit.jetstream.tls.certificate is not",
        ),
        (
            "[audit]\nkeep_shipped_days = 3\njetstream.stream = \"A\"\njetstream.servers = [\"nats://h\"]\n",
            3,
            "audit.jetstream.segments",
            "audit.keep_shipped_days is set",
        ),
        ("[sessions]\nconsent_timeout_s = \"30\"\n", 2, "sessions.consent_timeout_s", "a whole number, 0 or more"),
        ("[bet_service]\nkind = \"grpc\"\n", 2, "bet_service.kind", "expected one of"),
        ("[bet_service]\nkind = \"http\"\n", 2, "bet_service.kind", "bet_service.http.url is not set"),
        ("[bet_service]\nkind = \"nats\"\n", 2, "bet_service.kind", "bet_service.nats.servers is empty"),
        ("[bet_service]\nanswer_timeout_ms = 1\n", 2, "bet_service.answer_timeout_ms", "allowed are 500 to 30000"),
        ("[bet_service.http]\nurl = \"bets\"\n", 2, "bet_service.http.url", "https://bets.example.com/v1/bets"),
        ("[bet_service.nats]\nservers = [\"nats://u:p@h\"]\n", 2, "bet_service.nats.servers", "without a user"),
        ("[bet_service.breaker]\nfailure_percent = 0\n", 2, "bet_service.breaker.failure_percent", "1 to 100"),
        ("[bet_service.tls]\nkey = \"a\"\n", 2, "bet_service.tls.key", "bet_service.tls.certificate is not"),
        (
            "[bet_service]\nkind = \"http\"\nhttp.url = \"http://a\"\ntls.ca_file = \"a\"\n",
            4,
            "bet_service.tls",
            "no URL of bet_service.http is https",
        ),
        (
            "[bet_service]\nkind = \"nats\"\nnats.servers = [\"nats://a\"]\nnats.subject_prefix = \"a.*\"\n",
            4,
            "bet_service.nats.subject_prefix",
            "casino.eu.tableside",
        ),
        (
            "[bet_service]\nkind = \"nats\"\nnats.servers = [\"nats://a\"]\nnats.username = \"a\"\n",
            4,
            "bet_service.nats.username",
            "belong together",
        ),
        (
            "[bet_service]\nkind = \"nats\"\nnats = { servers = [\"nats://a\"], token_file = \"a\", credentials_file = \"b\" }\n",
            3,
            "bet_service.nats",
            "set one of",
        ),
        ("[tables.\"a b\"]\n", 1, "tables.a b", "letters, digits"),
        ("http = 3\n", 1, "http", "expected a section"),
        ("[tables.a]\n[tables.b]\nplayout_delay_min_ms = 3\n", 2, "tables.b", "expected both"),
        ("[tables.a]\nmax_layer = 6\n", 2, "tables.a.max_layer", "allowed are 0 to 5"),
        ("[tables.a]\nmax_layer = 720\n", 2, "tables.a.max_layer", "a whole number from 0 to 255"),
    ] {
        let at = refusal(text);
        assert_eq!((at.line, at.key.as_deref()), (line, Some(key)), "{at}");
        assert!(at.message.contains(says), "{at}");
    }
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_place() {
    let at = refusal("[http]\nlisten = \n");
    assert_eq!((at.line, at.key), (2, None));
    assert!(at.message.starts_with("not valid TOML"), "{}", at.message);
    let at = refusal("[http]\n[http]\n");
    assert_eq!(at.line, 2);
}

#[test]
fn columns_count_characters() {
    assert_eq!(refusal("tables.\"ä\".x = 1\n").column, 8);
}

#[test]
fn keys_are_read_from_beside_the_file() {
    let directory = Directory::new();
    directory.write("jwks.json", JWKS);
    let file = directory.write("gateway.toml", &format!("{AUTH}[tables.demo]\n[tables.other]\n"));
    let config = Config::load(&file).unwrap();
    assert_eq!(config.keys.len(), 1);
    assert_eq!(config.auth.jwks_file.as_deref(), Some(directory.0.join("jwks.json").as_path()));
    let summary = config.summary().to_string();
    assert!(
        summary.contains("demo, other") && summary.contains("1 keys in") && summary.contains("jurisdictions MT"),
        "{summary}"
    );
}

#[test]
fn a_gateway_without_keys_is_refused_and_told_what_to_do() {
    let directory = Directory::new();
    directory.write("toml.json", "# none yet\n");
    directory.write("empty.json", "{\"keys\":[]}");
    directory.write("secret.json", &JWKS.replace("\"kid\"", "\"d\":\"AAAA\",\"kid\""));
    let with = |name: &str| format!("\n[auth]\njurisdictions = [\"*\"]\njwks_file = \"{name}\"\n");
    for (text, line, says) in [
        ("[http]\n".to_owned(), 1, "is not set, nor is auth.jwks_url"),
        ("[http]\n[auth]\nleeway_s = 3\n".to_owned(), 2, "is not set, nor is auth.jwks_url"),
        (with("missing.json"), 4, "missing.json cannot be read"),
        (with("toml.json"), 4, "not a JWK Set"),
        (with("empty.json"), 4, "none of its keys can be used"),
        (with("secret.json"), 4, "private or symmetric"),
    ] {
        let file = directory.write("gateway.toml", &text);
        let error = Config::load(&file).unwrap_err();
        let at = error.diagnostic().unwrap();
        assert_eq!((at.line, at.key.as_deref()), (line, Some("auth.jwks_file")), "{error}");
        assert!(at.message.contains(says) && at.message.contains("tableside token keygen"), "{error}");
        assert!(error.to_string().starts_with(&format!("{}:{line}:", file.display())), "{error}");
    }
}

#[test]
fn where_it_serves_has_to_be_said() {
    let directory = Directory::new();
    directory.write("jwks.json", JWKS);
    let file = directory.write("gateway.toml", "[auth]\njwks_file = \"jwks.json\"\n");
    let error = Config::load(&file).unwrap_err();
    assert_eq!(error.diagnostic().unwrap().key.as_deref(), Some("auth.jurisdictions"));
    assert!(error.to_string().contains("[\"*\"]"), "{error}");
}

#[test]
fn authorities_of_the_issuer_are_read_from_beside_the_file() {
    let directory = Directory::new();
    let made = rcgen::generate_simple_self_signed(["id.example".to_owned()]).unwrap();
    directory.write("ca.pem", &made.cert.pem());
    directory.write("key.pem", &made.signing_key.serialize_pem());
    let load = |name: &str| {
        let text = format!(
            "[auth]\njurisdictions = [\"*\"]\njwks_url = \"https://id.example/keys\"\njwks_ca_file = \"{name}\"\n"
        );
        Config::load(&directory.write("gateway.toml", &text))
    };
    let config = load("ca.pem").unwrap();
    assert_eq!(config.auth.jwks_ca_file, Some(directory.0.join("ca.pem")));
    assert!(config.keys.is_empty() && config.summary().to_string().contains("keys from https://id.example/keys"));
    for (name, says) in [("none.pem", "cannot be read"), ("key.pem", "holds no `-----BEGIN CERTIFICATE-----`")] {
        let error = load(name).unwrap_err();
        let at = error.diagnostic().unwrap();
        assert_eq!((at.line, at.key.as_deref()), (4, Some("auth.jwks_ca_file")), "{error}");
        assert!(at.message.contains(says), "{error}");
    }
}

#[test]
fn who_asks_nobody_for_a_token_is_told_so() {
    let directory = Directory::new();
    let file = directory.write("gateway.toml", "[auth]\nmode = \"none\"\n[tables.a]\n");
    let config = Config::load(&file).unwrap();
    assert!(!config.wants_tokens());
    assert!(config.summary().to_string().contains("NONE ARE ASKED FOR"));
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_with_its_place() {
    let directory = Directory::new();
    let [one, two] = [(); 2].map(|()| rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap());
    directory.write("tls.crt", &one.cert.pem());
    directory.write("tls.key", &one.signing_key.serialize_pem());
    directory.write("other.key", &two.signing_key.serialize_pem());
    directory.write("jwks.json", JWKS);
    let load = |certificate: &str, key: &str| {
        let text = format!("[http.tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n{AUTH}");
        Config::load(&directory.write("gateway.toml", &text))
    };
    let config = load("tls.crt", "tls.key").unwrap();
    let beside = |name: &str| Some(directory.0.join(name));
    assert_eq!((config.http.tls.certificate, config.http.tls.key), (beside("tls.crt"), beside("tls.key")));
    for (certificate, key, line, wrong, says) in [
        ("none.crt", "tls.key", 2, "http.tls.certificate", "none.crt cannot be read"),
        ("tls.key", "tls.key", 2, "http.tls.certificate", "holds no `-----BEGIN CERTIFICATE-----`"),
        ("tls.crt", "none.key", 3, "http.tls.key", "none.key cannot be read"),
        ("tls.crt", "other.key", 3, "http.tls.key", "is not the key of the first certificate"),
    ] {
        let error = load(certificate, key).unwrap_err();
        let at = error.diagnostic().unwrap();
        assert_eq!((at.line, at.key.as_deref()), (line, Some(wrong)), "{error}");
        assert!(at.message.contains(says), "{error}");
    }
}

#[test]
fn files_of_the_bet_service_are_looked_at_and_named() {
    let directory = Directory::new();
    let made = rcgen::generate_simple_self_signed(["node.example".to_owned()]).unwrap();
    directory.write("node.crt", &made.cert.pem());
    directory.write("node.key", &made.signing_key.serialize_pem());
    directory.write("empty", "");
    directory.write("jwks.json", JWKS);
    let load = |section: &str| {
        let text = format!("{AUTH}[bet_service]\n{section}");
        Config::load(&directory.write("gateway.toml", &text))
    };
    let http = "kind = \"http\"\nhttp.url = \"https://bets.example.com/bets\"\n";
    let nats = "kind = \"nats\"\nnats.servers = [\"tls://nats.example.com\"]\n";
    let pair = "tls.certificate = \"node.crt\"\ntls.key = \"node.key\"\n";
    let config = load(&format!("{http}{pair}tls.ca_file = \"node.crt\"\n")).unwrap();
    assert_eq!(config.bet_service.tls.ca_file, Some(directory.0.join("node.crt")));
    assert!(config.summary().to_string().contains("bet service  https://bets.example.com/bets, with a certificate"));
    for (section, line, key, says) in [
        (format!("{http}tls.ca_file = \"none\"\n"), 7, "bet_service.tls.ca_file", "cannot read"),
        (format!("{http}tls.ca_file = \"empty\"\n"), 7, "bet_service.tls.ca_file", "holds no certificate"),
        (format!("{http}{}", pair.replace("node.key", "empty")), 8, "bet_service.tls.key", "holds no private key"),
        (format!("{nats}{}", pair.replace("node.crt", "none")), 7, "bet_service.tls.certificate", "cannot be read"),
        (format!("{nats}nats.token_file = \"empty\"\n"), 7, "bet_service.nats.token_file", "is empty"),
        (format!("{nats}nats.credentials_file = \"jwks.json\"\n"), 7, "bet_service.nats.credentials_file", ".creds"),
    ] {
        let error = load(&section).unwrap_err();
        let at = error.diagnostic().unwrap();
        assert_eq!((at.line, at.key.as_deref()), (line, Some(key)), "{error}");
        assert!(at.message.contains(says) && !at.message.contains("11qYAYKx"), "{error}");
    }
}

#[test]
fn files_of_a_bucket_are_beside_the_configuration() {
    let directory = Directory::new();
    directory.write("jwks.json", JWKS);
    let made = rcgen::generate_simple_self_signed(["s3.example".to_owned()]).unwrap();
    directory.write("ca.pem", &made.cert.pem());
    directory.write("audit.key", &made.signing_key.serialize_pem());
    let load = |ca: &str| {
        let text = format!(
            "{AUTH}[audit]\ndirectory = \"trail\"\nsigning_key_file = \"audit.key\"\n[audit.s3]\nbucket = \"abc\"\n\
             prefix = \"p/\"\nretain_days = 9\ncredentials_file = \"c\"\nca_file = \"{ca}\"\n"
        );
        let text = text.replace("ca_file = \"\"\n", "");
        Config::load(&directory.write("gateway.toml", &text))
    };
    let error = load("none.pem").unwrap_err();
    assert_eq!(error.diagnostic().unwrap().key.as_deref(), Some("audit.s3.ca_file"), "{error}");
    // The next that is wrong.
    let error = load("ca.pem").unwrap_err();
    assert_eq!(error.diagnostic().unwrap().key.as_deref(), Some("audit.signing_key_file"), "{error}");
    let pkcs8 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    directory.write("audit.key", &pkcs8.serialize_pem());
    let config = load("").unwrap();
    assert_eq!(config.audit.s3.credentials_file, Some(directory.0.join("c")));
    let summary = config.summary().to_string();
    assert!(summary.contains(", copied to s3://abc/p/ and locked for 9 days"), "{summary}");
}

#[test]
fn the_files_of_a_stream_are_read_beside_the_configuration() {
    let directory = Directory::new();
    directory.write("jwks.json", JWKS);
    let load = |lines: &str| {
        let text = format!("{AUTH}[audit.jetstream]\nstream = \"A\"\nservers = [\"tls://h\", \"tls://i\"]\n{lines}");
        Config::load(&directory.write("gateway.toml", &text))
    };
    let made = rcgen::generate_simple_self_signed(["nats.example".to_owned()]).unwrap();
    directory.write("ca.pem", &made.cert.pem());
    directory.write("password", "hidden-in-a-file\n");
    for (lines, wrong) in [
        ("tls.ca_file = \"none\"\n", "audit.jetstream.tls.ca_file"),
        ("tls.certificate = \"ca.pem\"\ntls.key = \"none\"\n", "audit.jetstream.tls.key"),
        ("token_file = \"none\"\n", "audit.jetstream.token_file"),
        ("credentials_file = \"password\"\n", "audit.jetstream.credentials_file"),
        ("username = \"a\"\npassword_file = \"none\"\n", "audit.jetstream.password_file"),
        ("token_file = \"password\"\ncredentials_file = \"password\"\n", "audit.jetstream"),
    ] {
        let error = load(lines).unwrap_err();
        assert_eq!(error.diagnostic().unwrap().key.as_deref(), Some(wrong), "{error}");
        assert!(!error.to_string().contains("hidden-in-a-file"), "{error}");
    }
    let mut config = load("username = \"a\"\npassword_file = \"password\"\ntls.ca_file = \"ca.pem\"\n").unwrap();
    assert_eq!(config.audit.jetstream.password_file, Some(directory.0.join("password")));
    assert!(config.audit.has_sink());
    config.audit.directory = Some("trail".into());
    let summary = config.summary().to_string();
    assert!(
        summary
            .contains("trail, its checkpoints alone copied to the stream A as tableside.audit.> on tls://h, tls://i"),
        "{summary}"
    );
}

#[test]
fn an_audit_trail_without_a_key_that_signs_is_refused() {
    let directory = Directory::new();
    directory.write("jwks.json", JWKS);
    let pkcs8 = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
    let pem = |der: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    };
    directory.write("audit.key", &pem(pkcs8.as_ref()));
    let other = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    directory.write("other.key", &other.signing_key.serialize_pem());
    directory.write("player.key", &"x".repeat(32));
    directory.write("short.key", "secret");
    let load = |lines: &str| {
        let text = format!("{AUTH}[audit]\ndirectory = \"trail\"\n{lines}");
        Config::load(&directory.write("gateway.toml", &text))
    };
    let config = load("signing_key_file = \"audit.key\"\nplayer_key_file = \"player.key\"\n").unwrap();
    assert_eq!(config.audit.directory, Some(directory.0.join("trail")));
    assert_eq!(
        (config.audit.keys.signing.as_slice(), config.audit.keys.player.as_bytes()),
        (pkcs8.as_ref(), Some(&[b'x'; 32][..]))
    );
    for (lines, line, key, says) in [
        ("", 4, "audit.signing_key_file", "tableside audit keygen"),
        ("signing_key_file = \"none.key\"\n", 6, "audit.signing_key_file", "none.key: No such file"),
        ("signing_key_file = \"other.key\"\n", 6, "audit.signing_key_file", "holds no Ed25519 key"),
        (
            "signing_key_file = \"audit.key\"\nplayer_key_file = \"short.key\"\n",
            7,
            "audit.player_key_file",
            "fewer than 32 bytes",
        ),
    ] {
        let error = load(lines).unwrap_err();
        let at = error.diagnostic().unwrap();
        assert_eq!((at.line, at.key.as_deref()), (line, Some(key)), "{error}");
        assert!(at.message.contains(says), "{error}");
    }
}

#[test]
fn logs_and_traces_are_held_to_what_they_need() {
    let directory = Directory::new();
    directory.write("jwks.json", JWKS);
    directory.write("players.key", &format!(" {}\n", "x".repeat(32)));
    directory.write("short.key", "secret");
    directory.write("headers.txt", "api-key: secret");
    directory.write("broken.txt", "no header");
    directory.write("ca.pem", "no certificate");
    let load = |lines: &str| Config::load(&directory.write("gateway.toml", &format!("{AUTH}{lines}")));
    let config = load("[log]\nplayer_ids = \"hashed\"\nplayer_key_file = \"players.key\"\n[traces]\nendpoint = \"https://c/v1/traces?k=1\"\nheaders_file = \"headers.txt\"\nsample_ratio = 0.07\n").unwrap();
    assert_eq!(config.log.player_key.as_bytes(), Some(&[b'x'; 32][..]));
    assert!(config.traces.headers.iter().eq([&("api-key".to_owned(), "secret".to_owned())]));
    assert!(config.summary().to_string().contains("traces       0.07 of all bet signals, to https://c/v1/traces"));
    assert!(!format!("{config:?}").contains("secret") && !config.summary().to_string().contains("k=1"));
    for (lines, key, says) in [
        ("[log]\nplayer_ids = \"hashed\"\n", "log.player_ids", "log.player_key_file is not set"),
        ("[log]\nplayer_key_file = \"short.key\"\n", "log.player_key_file", "fewer than 32 bytes"),
        ("[traces]\nsample_ratio = 1.5\n", "traces.sample_ratio", "0 (none) to 1 (all)"),
        ("[traces]\nsample_ratio = nan\n", "traces.sample_ratio", "0 (none) to 1 (all)"),
        ("[traces]\nca_file = \"ca.pem\"\n", "traces.ca_file", "traces.endpoint, which is not set"),
        ("[traces]\nheaders_file = \"headers.txt\"\n", "traces.headers_file", "traces.endpoint, which is not set"),
        ("[traces]\nendpoint = \"http://c/\"\nca_file = \"ca.pem\"\n", "traces.ca_file", "is for https"),
        ("[traces]\nendpoint = \"https://c/\"\nca_file = \"ca.pem\"\n", "traces.ca_file", "BEGIN CERTIFICATE"),
        ("[traces]\nendpoint = \"https://c/\"\nheaders_file = \"broken.txt\"\n", "traces.headers_file", "line 1"),
    ] {
        let error = load(lines).unwrap_err();
        let at = error.diagnostic().unwrap();
        assert_eq!(at.key.as_deref(), Some(key), "{error}");
        assert!(at.message.contains(says), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/gateway.toml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nonexistent/gateway.toml");
    assert!(error.diagnostic().is_none());
}

#[test]
fn the_demo_asks_for_nothing() {
    let demo = Config::demo();
    let any = "whatever".parse().unwrap();
    assert!(demo.knows(&any));
    assert!(!demo.wants_tokens());
    assert!(demo.http.listen.ip().is_loopback() && demo.admin.listen.ip().is_loopback());
}

/// Paths of all keys, `[tables.*]` as `tables.roulette-1`, with their values.
fn leaves(prefix: &str, value: &Value, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(keys) if !keys.is_empty() => {
            for (key, inner) in keys {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                leaves(&path, inner, into);
            }
        }
        Value::Object(_) => {}
        _ => into.push((prefix.to_owned(), value.clone())),
    }
}

fn keys_of(config: &Config) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    leaves("", &serde_json::to_value(config).unwrap(), &mut found);
    found
}

/// Both places of keys at once are refused, and several sinks: the file's line goes where the URL's example comes, and the
/// directory's where the bucket's does.
fn with_defaults_uncommented() -> String {
    let is_default = |line: &str| line.starts_with('#') && line.len() > 1 && !line.starts_with("# ");
    let lines = GATEWAY_TOML
        .lines()
        .filter(|line| !line.starts_with("jwks_file") && !line.starts_with("#sink_directory"))
        .map(|line| if is_default(line) { &line[1..] } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_documented_file_loads_once_there_are_keys() {
    let directory = Directory::new();
    directory.write("jwks.json", JWKS);
    let file = directory.write("gateway.toml", GATEWAY_TOML);
    let config = Config::load(&file).unwrap();
    assert_eq!(config.http, Http::default());
    assert!(config.knows(&"roulette-1".parse().unwrap()));
}

#[test]
fn every_key_is_documented_with_its_default() {
    let text = with_defaults_uncommented();
    // One sink at a time, and one way to log in.
    let (before, rest) = text.split_once("\n[audit.s3]\n").unwrap();
    let (bucket, rest) = rest.split_once("\n[audit.jetstream]\n").unwrap();
    let (stream, after) = rest.split_once("\n[log]\n").unwrap();
    let is_other = |line: &&str| ["username", "password_file", "token_file"].iter().any(|key| line.starts_with(key));
    let stream: Vec<&str> = stream.lines().filter(|line| !is_other(line)).collect();
    for sink in [format!("[audit.s3]\n{bucket}"), format!("[audit.jetstream]\n{}", stream.join("\n"))] {
        parse(&format!("{before}\n{sink}\n[log]\n{after}")).expect("the file, every default uncommented");
    }
    let mut documented = Vec::new();
    leaves("", &toml::from_str::<Value>(&text).unwrap(), &mut documented);
    let mut documented: BTreeMap<_, _> = documented.into_iter().collect();
    for key in ["auth.jwks_file", "audit.sink_directory"] {
        documented.insert(key.to_owned(), Value::Null);
    }

    let tables = BTreeMap::from([("roulette-1".parse().unwrap(), Table::default())]);
    for (key, default) in keys_of(&Config { tables, ..Config::default() }) {
        let shown = documented.get(&key).unwrap_or_else(|| panic!("config/gateway.toml lacks {key}"));
        let must_be_set =
            ["auth.jurisdictions", "audit.s3.retain_days", "audit.jetstream.servers"].contains(&key.as_str());
        assert!(must_be_set || default.is_null() || *shown == default, "{key} is {default}, documented as {shown}");
    }
}

#[test]
fn every_documented_key_is_commented_out_but_those_that_must_be_set() {
    let set: BTreeSet<_> = GATEWAY_TOML.lines().filter(|l| !l.starts_with('#') && l.contains('=')).collect();
    assert_eq!(set, BTreeSet::from(["jwks_file = \"jwks.json\"", "jurisdictions = [\"*\"]"]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_text_is_a_config_or_an_error(text in "(\\[(http|media|tables.a|log)\\]\n)?[a-z_]{0,8} ?= ?[ -~é\n]{0,30}") {
        if let Err(error) = parse(&text) {
            let at = error.diagnostic().unwrap();
            prop_assert!(at.line >= 1 && at.line <= text.lines().count() + 1 && at.column >= 1);
        }
    }
}

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use prometheus::proto::MetricType;

use crate::audit::AuditReport;
use crate::bets::{Leg, RoundReport};
use crate::config::Config;
use crate::fleet::AdmissionReport;
use crate::qos::{QosReport, Shares};
use crate::shard::{DropReason, EndCause, Role, ShardReport, TableReport};

use super::*;

fn metrics() -> Metrics {
    let text = "[tables.roulette]\n[tables.blackjack]\n";
    Metrics::new(&Config::parse(Path::new("test"), text).unwrap(), 2)
}

fn report(table: &str, table_report: TableReport) -> ShardReport {
    ShardReport { tables: BTreeMap::from([(table.to_owned(), table_report)]), ..ShardReport::default() }
}

#[track_caller]
fn assert_line(metrics: &Metrics, line: &str) {
    let text = metrics.render();
    assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
}

#[test]
fn metrics_with_closed_labels_exist_from_the_start() {
    let metrics = metrics();
    for line in [
        "tableside_players{table=\"roulette\"} 0",
        "tableside_frames_total{table=\"blackjack\",outcome=\"forwarded\",cause=\"none\"} 0",
        "tableside_node_tuning_ok{setting=\"gso\"} 0",
        "tableside_bitrate_ratio{table=\"blackjack\"} 1",
        "tableside_shard_cpu_seconds_total{shard=\"1\"} 0",
        "tableside_send_runs_total 0",
        "tableside_bet_signals_total{outcome=\"unconfirmed\"} 0",
        "tableside_bet_signals_refused_total{reason=\"rate_limited\"} 0",
        "tableside_bet_signals_late_total 0",
        "tableside_bet_signal_rtt_seconds_count{leg=\"last_mile\"} 0",
        "tableside_round_aborts_total{table=\"blackjack\",cause=\"void\"} 0",
        "tableside_round_settle_seconds_count 0",
        "tableside_bet_service_requests_total{kind=\"http\",result=\"lost\"} 0",
        "tableside_bet_service_breaker{kind=\"nats\",state=\"open\"} 0",
        "tableside_bet_service_answer_seconds_count{kind=\"embedded\"} 0",
        "tableside_offers_refused_total{reason=\"half_open_address\"} 0",
        "tableside_http_limited_total{listener=\"admin\",reason=\"header_time\"} 0",
        "tableside_tls_certificate_expiry_timestamp_seconds 0",
        "tableside_http_requests_total{class=\"4xx\",route=\"whep\"} 0",
        &format!("tableside_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
    ] {
        assert_line(&metrics, line);
    }
    for cause in [
        "ingest_loss",
        "relay_loss",
        "node_queue",
        "node_overload",
        "layer_switch",
        "congestion",
        "network",
        "decoder",
        "unknown",
    ] {
        let line = format!("tableside_frames_total{{table=\"roulette\",outcome=\"dropped\",cause=\"{cause}\"}} 0");
        assert_line(&metrics, &line);
    }
    for (_, reason) in DropReason::ALL {
        assert_line(&metrics, &format!("tableside_packets_dropped_total{{reason=\"{reason}\"}} 0"));
    }
    for (_, cause) in EndCause::ALL {
        assert_line(&metrics, &format!("tableside_sessions_ended_total{{role=\"player\",cause=\"{cause}\"}} 0"));
    }
}

#[test]
fn reports_are_summed_over_shards_and_replace_those_before() {
    let metrics = metrics();
    let shard = |players, frames_forwarded, sent| {
        let table = TableReport { players, frames_forwarded, ..TableReport::default() };
        ShardReport { datagrams_sent: sent, ..report("roulette", table) }
    };
    metrics.replace_reports(vec![shard(3, 100, 7), shard(4, 0, 5)]);
    metrics.replace_reports(vec![shard(2, 110, 9), shard(4, 0, 6)]);
    assert_line(&metrics, "tableside_players{table=\"roulette\"} 6");
    assert_line(&metrics, "tableside_frames_total{table=\"roulette\",outcome=\"forwarded\",cause=\"none\"} 110");
    assert_line(&metrics, "tableside_datagrams_total{direction=\"sent\"} 15");
    assert_line(&metrics, "tableside_players{table=\"blackjack\"} 0");
}

#[test]
fn a_table_that_is_no_longer_reported_keeps_its_counters_and_loses_its_gauges() {
    let metrics = metrics();
    let table = TableReport {
        players: 3,
        live: true,
        ingest_fps: 30.0,
        retransmissions: 5,
        frames_dropped_ingest_loss: 2,
        ..TableReport::default()
    };
    metrics.replace_reports(vec![report("roulette", table)]);
    assert_line(&metrics, "tableside_table_live{table=\"roulette\"} 1");
    metrics.replace_reports(vec![ShardReport::default()]);
    assert_line(&metrics, "tableside_table_live{table=\"roulette\"} 0");
    assert_line(&metrics, "tableside_players{table=\"roulette\"} 0");
    assert_line(&metrics, "tableside_ingest_frames_per_second{table=\"roulette\"} 0");
    assert_line(&metrics, "tableside_retransmissions_total{table=\"roulette\"} 5");
    assert_line(&metrics, "tableside_frames_total{table=\"roulette\",outcome=\"dropped\",cause=\"ingest_loss\"} 2");
}

#[test]
fn what_players_report_is_added_up_before_it_is_divided() {
    let metrics = metrics();
    assert_line(&metrics, "tableside_fps_ratio{table=\"roulette\"} 1");
    assert_line(&metrics, "tableside_player_round_trip_seconds_count{table=\"roulette\"} 0");
    let shard = |sum, count, waits: &[u64]| {
        let mut qos = QosReport { frames_seen: Shares { sum, count }, frames_missed: 5, ..QosReport::default() };
        for wait in waits.iter().map(|ms| Duration::from_millis(*ms)) {
            qos.jitter_buffer.observe(wait);
            qos.skew.observe(wait);
        }
        report("roulette", TableReport { qos, ..TableReport::default() })
    };
    metrics.replace_reports(vec![shard(0.0, 1, &[15, 300]), shard(2.7, 3, &[90])]);
    for line in [
        "tableside_fps_ratio{table=\"roulette\"} 0.675",
        "tableside_bitrate_ratio{table=\"roulette\"} 1",
        "tableside_player_frames_missed_total{table=\"roulette\"} 10",
        "tableside_player_jitter_buffer_seconds_bucket{table=\"roulette\",le=\"0.01\"} 0",
        "tableside_player_jitter_buffer_seconds_bucket{table=\"roulette\",le=\"0.1\"} 2",
        "tableside_player_jitter_buffer_seconds_bucket{table=\"roulette\",le=\"+Inf\"} 3",
        "tableside_player_jitter_buffer_seconds_sum{table=\"roulette\"} 0.405",
        "tableside_player_skew_seconds{table=\"roulette\"} 0.2845",
        "tableside_fps_ratio{table=\"blackjack\"} 1",
    ] {
        assert_line(&metrics, line);
    }
    metrics.replace_reports(vec![ShardReport::default(), ShardReport::default()]);
    assert_line(&metrics, "tableside_fps_ratio{table=\"roulette\"} 1");
    assert_line(&metrics, "tableside_player_frames_missed_total{table=\"roulette\"} 10");
    assert_line(&metrics, "tableside_player_skew_seconds{table=\"roulette\"} 0");
}

#[test]
fn bets_are_summed_over_shards_and_rounds_counted_by_table() {
    let metrics = metrics();
    let shard = |outcomes, edge: u64| {
        let mut report = ShardReport::default();
        (report.bets.outcomes, report.bets.late) = (outcomes, 1);
        report.bets.observe(Leg::Edge, Duration::from_micros(edge));
        report
    };
    metrics.replace_reports(vec![shard([1, 2, 3, 4], 90), shard([10, 0, 0, 0], 900)]);
    let mut rounds = RoundReport { aborts: BTreeMap::from([("roulette".into(), [0, 5, 0])]), ..RoundReport::default() };
    rounds.settle.observe(Duration::from_secs(6));
    metrics.replace_rounds(rounds);
    for line in [
        "tableside_bet_signals_total{outcome=\"accepted\"} 11",
        "tableside_bet_signals_total{outcome=\"unconfirmed\"} 4",
        "tableside_bet_signals_late_total 2",
        "tableside_bet_signal_rtt_seconds_bucket{leg=\"edge\",le=\"0.0001\"} 1",
        "tableside_bet_signal_rtt_seconds_bucket{leg=\"edge\",le=\"0.001\"} 2",
        "tableside_round_aborts_total{table=\"roulette\",cause=\"no_result\"} 5",
        "tableside_round_settle_seconds_bucket{le=\"7.5\"} 1",
        "tableside_round_settle_seconds_sum 6",
    ] {
        assert_line(&metrics, line);
    }
}

#[test]
fn the_audit_trail_is_counted() {
    let metrics = metrics();
    assert_line(&metrics, "tableside_audit_failing 0");
    let report = AuditReport {
        records: 1,
        lost: 2,
        write_errors: 3,
        checkpoints: 4,
        syncs: 5,
        replaced: 11,
        told_early: 6,
        backlog: 7,
        lag: 1.5,
        failing: true,
        shipped: 8,
        ship_errors: 9,
        unshipped: 10,
    };
    metrics.replace_audit(report);
    for line in [
        "tableside_audit_records_total 1",
        "tableside_audit_records_lost_total 2",
        "tableside_audit_write_errors_total 3",
        "tableside_audit_checkpoints_total 4",
        "tableside_audit_syncs_total 5",
        "tableside_audit_outcomes_told_early_total 6",
        "tableside_audit_backlog_records 7",
        "tableside_audit_lag_seconds 1.5",
        "tableside_audit_failing 1",
        "tableside_audit_segments_shipped_total 8",
        "tableside_audit_ship_errors_total 9",
        "tableside_audit_segments_unshipped 10",
        "tableside_audit_trails_replaced_total 11",
    ] {
        assert_line(&metrics, line);
    }
}

#[test]
fn every_number_goes_where_its_label_says() {
    let metrics = metrics();
    let mut shard = report(
        "roulette",
        TableReport {
            ingest_bits_per_second: 800.0,
            keyframe_requests_received: 11,
            keyframe_requests_sent: 12,
            ..TableReport::default()
        },
    );
    shard.dropped[DropReason::SrtpReplay as usize] = 1;
    shard.ended[Role::Publisher as usize][EndCause::ConsentExpired as usize] = 2;
    shard.sessions = [3, 4];
    shard.created = [5, 6];
    shard.connected = [7, 8];
    (shard.bytes_received, shard.bytes_sent, shard.runs_sent) = (9, 10, 13);
    (shard.cpu_seconds, shard.utilisation) = (1.5, 0.25);
    metrics.replace_reports(vec![ShardReport::default(), shard]);
    for line in [
        "tableside_packets_dropped_total{reason=\"srtp_replay\"} 1",
        "tableside_sessions_ended_total{role=\"publisher\",cause=\"consent_expired\"} 2",
        "tableside_sessions{role=\"publisher\"} 3",
        "tableside_sessions{role=\"player\"} 4",
        "tableside_sessions_created_total{role=\"player\"} 6",
        "tableside_sessions_connected_total{role=\"publisher\"} 7",
        "tableside_datagram_bytes_total{direction=\"received\"} 9",
        "tableside_datagram_bytes_total{direction=\"sent\"} 10",
        "tableside_send_runs_total 13",
        "tableside_shard_cpu_seconds_total{shard=\"1\"} 1.5",
        "tableside_shard_utilisation_ratio{shard=\"1\"} 0.25",
        "tableside_ingest_bytes_per_second{table=\"roulette\"} 100",
        "tableside_keyframe_requests_total{table=\"roulette\",direction=\"received\"} 11",
        "tableside_keyframe_requests_total{table=\"roulette\",direction=\"sent\"} 12",
    ] {
        assert_line(&metrics, line);
    }
}

#[test]
fn admission_and_listeners_are_counted() {
    let metrics = metrics();
    metrics.replace_admission(AdmissionReport { refused: [1, 2, 3, 4, 9, 10], waiting: 5, half_open: 6 });
    metrics.listeners.opened(Listener::Public);
    metrics.listeners.opened(Listener::Public);
    metrics.listeners.closed(Listener::Public);
    metrics.listeners.established(Listener::Public, HttpProtocol::Http2Tls);
    metrics.listeners.limited(Listener::Admin, Limit::HeaderTime);
    metrics.listeners.handshake_failed(Listener::Public);
    metrics.listeners.certificate_served(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7));
    metrics.listeners.certificate_reloaded(true);
    metrics.listeners.certificate_reloaded(false);
    metrics.listeners.certificate_reloaded(false);
    for line in [
        "tableside_offers_refused_total{reason=\"queue_full\"} 1",
        "tableside_offers_refused_total{reason=\"half_open_address\"} 4",
        "tableside_offers_refused_total{reason=\"shard_utilisation\"} 10",
        "tableside_offers_waiting 5",
        "tableside_sessions_half_open 6",
        "tableside_http_connections{listener=\"public\"} 1",
        "tableside_http_connections_established_total{listener=\"public\",protocol=\"https/2\"} 1",
        "tableside_http_limited_total{listener=\"admin\",reason=\"header_time\"} 1",
        "tableside_tls_handshakes_failed_total{listener=\"public\"} 1",
        "tableside_tls_certificate_expiry_timestamp_seconds 7",
        "tableside_tls_certificate_reloads_total{outcome=\"loaded\"} 1",
        "tableside_tls_certificate_reloads_total{outcome=\"failed\"} 2",
    ] {
        assert_line(&metrics, line);
    }
}

#[test]
fn requests_and_tuning_are_counted() {
    let metrics = metrics();
    metrics.http_request(HttpRoute::WhipSession, 200);
    metrics.http_request(HttpRoute::Whip, 415);
    metrics.http_request(HttpRoute::Whip, 401);
    let (wanted, found) = ("on".to_owned(), "on".to_owned());
    metrics.set_tuning(vec![crate::net::Setting { name: "gso", ok: true, wanted, found, advice: "" }]);
    assert_line(&metrics, "tableside_http_requests_total{class=\"2xx\",route=\"whip_session\"} 1");
    assert_line(&metrics, "tableside_http_requests_total{class=\"4xx\",route=\"whip\"} 2");
    assert_line(&metrics, "tableside_node_tuning_ok{setting=\"gso\"} 1");
    assert_line(&metrics, "tableside_node_tuning_ok{setting=\"gro\"} 0");
    assert_eq!(metrics.tuning()[0].found, "on");
}

#[test]
fn route_labels_are_in_the_order_of_the_routes() {
    for (index, (route, _)) in HttpRoute::ALL.into_iter().enumerate() {
        assert_eq!(route as usize, index);
    }
    assert_eq!((Role::Publisher as usize, Role::Player as usize), (0, 1));
}

#[test]
fn names_follow_the_rules() {
    for family in metrics().gather() {
        let name = family.name();
        assert!(name.starts_with("tableside_"), "{name}");
        assert_eq!(name.ends_with("_total"), family.get_field_type() == MetricType::COUNTER, "{name}");
        assert!(family.help().ends_with('.'), "{name} has no sentence for help");
        let labels: Vec<_> = family.get_metric()[0].get_label().iter().map(|pair| pair.name().to_owned()).collect();
        for banned in ["session", "player", "ssrc", "address", "ip", "ufrag"] {
            assert!(!labels.iter().any(|label| label == banned), "{name} has an unbounded label");
        }
    }
}

/// The catalogue as Markdown.
fn catalogue() -> String {
    let mut page = String::from(
        "# Metrics\n\nWhat `/metrics` on the admin listener exports, in the Prometheus text format. Generated from the \
         registry: `UPDATE_DOCS=1 cargo test --lib telemetry` rewrites this page, and a test fails where it is out of \
         date.\n\nLabels come from small closed sets, plus `table`, which is bounded by the configuration; none names a \
         session, player, SSRC or address. Metrics with closed labels exist from the start, with value 0; ratios of \
         what players see with 1.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in metrics().gather() {
        let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            let values = labels.entry(pair.name()).or_default();
            if !values.contains(&pair.value()) {
                values.push(pair.value());
            }
        }
        let open = |name: &str| matches!(name, "table" | "shard" | "version");
        let shown = labels.iter().map(|(name, values)| match open(name) {
            true => format!("`{name}`"),
            false => format!("`{name}`: {}", values.join(", ")),
        });
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let shown = shown.collect::<Vec<_>>().join("; ");
        page.push_str(&format!("| `{}` | {kind} | {shown} | {} |\n", family.name(), family.help()));
    }
    page
}

#[test]
fn the_catalogue_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let generated = catalogue();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == generated, "docs/metrics.md is out of date: run UPDATE_DOCS=1 cargo test --lib telemetry");
}

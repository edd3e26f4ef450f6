//! The registry and its text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::audit::AuditReport;
use crate::bet_service::{ServiceKind, ServiceReport};
use crate::bets::{Leg, LegHistogram, RoundReport};
use crate::config::Config;
use crate::fleet::AdmissionReport;
use crate::net::Setting;
use crate::qos::{Bounds, Histogram, TimeHistogram};
use crate::shard::ShardReport;
use crate::traces::TraceReport;

use super::bet_service::{ANSWER_TIME, BET_SERVICE};
use super::families::{BET_RTT, FAMILIES, Family, ROUND_SETTLE, TABLE_HISTOGRAMS, TableHistogram};
use super::listeners::ListenerMetrics;
use super::tokens::TokenMetrics;
use super::totals::Totals;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a public HTTP request was for. Exported as `tableside_http_requests_total{route,class}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpRoute {
    /// `/whip/{table}`
    Whip,
    /// `/whip/{table}/{session}`
    WhipSession,
    /// `/whep/{table}`
    Whep,
    /// `/whep/{table}/{session}`
    WhepSession,
    /// `/api/…`
    Api,
    /// Pages, scripts and styles.
    Page,
    /// Everything else, which is a 404.
    Other,
}

impl HttpRoute {
    /// Every route with its label value.
    pub const ALL: [(HttpRoute, &'static str); 7] = [
        (HttpRoute::Whip, "whip"),
        (HttpRoute::WhipSession, "whip_session"),
        (HttpRoute::Whep, "whep"),
        (HttpRoute::WhepSession, "whep_session"),
        (HttpRoute::Api, "api"),
        (HttpRoute::Page, "page"),
        (HttpRoute::Other, "other"),
    ];

    const fn label(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Label values for the first digit of a status code. There are no 1xx here.
const STATUS_CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Every metric of the node. Metrics with closed labels exist from the start, with value 0.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    totals: Arc<Mutex<Totals>>,
    tuning: Mutex<Vec<Setting>>,
    http_requests: IntCounterVec,
    /// Connections, limits, certificate.
    pub listeners: ListenerMetrics,
    /// Tokens and their keys.
    pub tokens: TokenMetrics,
}

impl Metrics {
    /// The metrics of a node that is configured so and will run `shards` shards.
    ///
    /// # Panics
    /// If two metrics have the same name, which a test would have found.
    pub fn new(config: &Config, shards: usize) -> Self {
        let registry = Registry::new();
        let register = |collector: Box<dyn Collector>| registry.register(collector).expect("metric names are unique");

        let totals = Totals::new(config.tables.keys().map(ToString::to_string), shards);
        let totals = Arc::new(Mutex::new(totals));
        register(Box::new(ReportCollector::new(Arc::clone(&totals))));
        register(Box::new(build_info()));
        let http_requests = http_requests();
        register(Box::new(http_requests.clone()));
        let listeners = ListenerMetrics::new(register);
        let tokens = TokenMetrics::new(config.wants_tokens(), register);
        Self { registry, totals, tuning: Mutex::default(), http_requests, listeners, tokens }
    }

    /// Takes the last report of every shard, in the order of the shards: cumulative values replace those before.
    pub fn replace_reports(&self, reports: Vec<ShardReport>) {
        lock(&self.totals).replace(reports);
    }

    /// Takes what admission has done.
    pub fn replace_admission(&self, report: AdmissionReport) {
        lock(&self.totals).replace_admission(report);
    }

    /// Takes how rounds have ended.
    pub fn replace_rounds(&self, report: RoundReport) {
        lock(&self.totals).replace_rounds(report);
    }

    /// Takes what the connector to the bet service has done.
    pub fn replace_bet_service(&self, report: ServiceReport) {
        lock(&self.totals).replace_bet_service(report);
    }

    /// Takes what the audit trail has done.
    pub fn replace_audit(&self, report: AuditReport) {
        lock(&self.totals).replace_audit(report);
    }

    /// Takes what became of spans.
    pub fn replace_traces(&self, report: TraceReport) {
        lock(&self.totals).replace_traces(report);
    }

    /// Takes how the node is tuned.
    pub fn set_tuning(&self, tuning: Vec<Setting>) {
        lock(&self.totals).set_tuning(&tuning);
        *lock(&self.tuning) = tuning;
    }

    /// What was last given to [`Metrics::set_tuning`].
    pub fn tuning(&self) -> Vec<Setting> {
        lock(&self.tuning).clone()
    }

    /// Counts one answered request of the public listener.
    pub fn http_request(&self, route: HttpRoute, status: u16) {
        let class = STATUS_CLASSES[usize::from(status / 100).clamp(2, 5) - 2];
        self.http_requests.with_label_values(&[route.label(), class]).inc();
    }

    /// Everything in the Prometheus text format, [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        // Encoding into memory fails only for a family without samples, and `gather` leaves those out.
        TextEncoder::new().encode_to_string(&self.gather()).unwrap_or_default()
    }

    /// Every metric with its samples, by name.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

/// A holder of one of these locks only copies numbers; even if it panicked they are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn build_info() -> GaugeVec {
    let opts = Opts::new("tableside_build_info", "Always 1; the label says which version runs.");
    let gauge = GaugeVec::new(opts, &["version"]).expect("a valid name");
    gauge.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    gauge
}

fn http_requests() -> IntCounterVec {
    let help = "Requests answered by the public HTTP listener, by route and class of the status code.";
    let opts = Opts::new("tableside_http_requests_total", help);
    let counter = IntCounterVec::new(opts, &["route", "class"]).expect("a valid name");
    for (_, route) in HttpRoute::ALL {
        for class in STATUS_CLASSES {
            counter.with_label_values(&[route, class]);
        }
    }
    counter
}

/// Computes [`FAMILIES`], [`BET_SERVICE`] and [`TABLE_HISTOGRAMS`] from the reports at each scrape.
struct ReportCollector {
    totals: Arc<Mutex<Totals>>,
    descriptions: Vec<Desc>,
}

impl ReportCollector {
    fn new(totals: Arc<Mutex<Totals>>) -> Self {
        let describe = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(ToString::to_string).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new()).expect("a valid name")
        };
        let families = FAMILIES.iter().chain(BET_SERVICE);
        let numbers = families.map(|family| describe(family.name, family.help, family.labels));
        let histograms = TABLE_HISTOGRAMS.iter().map(|histogram| describe(histogram.name, histogram.help, &["table"]));
        let bets = [(BET_RTT, &["leg"][..]), (ROUND_SETTLE, &[]), (ANSWER_TIME, &["kind"])];
        let bets = bets.map(|((name, help), labels)| describe(name, help, labels));
        Self { totals, descriptions: numbers.chain(histograms).chain(bets).collect() }
    }
}

impl Collector for ReportCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let totals = lock(&self.totals);
        let numbers = FAMILIES.iter().chain(BET_SERVICE).map(|family| collect(family, &totals));
        let histograms = TABLE_HISTOGRAMS.iter().map(|histogram| collect_histogram(histogram, &totals));
        numbers
            .chain(histograms)
            .chain([bet_round_trips(&totals), settle_times(&totals), answer_times(&totals)])
            .collect()
    }
}

fn collect(family: &Family, totals: &Totals) -> MetricFamily {
    let samples = (family.samples)(totals).into_iter();
    let mut collected = MetricFamily::default();
    collected.set_name(family.name.to_owned());
    collected.set_help(family.help.to_owned());
    collected.set_field_type(family.kind);
    collected.set_metric(samples.map(|(values, value)| sample(family, values, value)).collect());
    collected
}

fn collect_histogram(family: &TableHistogram, totals: &Totals) -> MetricFamily {
    let tables = totals.fold_by_table(|sum: &mut Histogram, table| sum.add((family.of)(&table.qos))).into_iter();
    let metric = |(table, histogram): (&str, Histogram)| time_metric(&["table"], vec![table.to_owned()], &histogram);
    histogram_family((family.name, family.help), tables.map(metric).collect())
}

fn bet_round_trips(totals: &Totals) -> MetricFamily {
    let bets = totals.bets();
    let metric = |(leg, name): (Leg, &str)| time_metric(&["leg"], vec![name.to_owned()], &bets.legs[leg as usize]);
    histogram_family(BET_RTT, Leg::ALL.into_iter().map(metric).collect())
}

fn settle_times(totals: &Totals) -> MetricFamily {
    histogram_family(ROUND_SETTLE, vec![time_metric(&[], Vec::new(), &totals.rounds().settle)])
}

fn answer_times(totals: &Totals) -> MetricFamily {
    let report = totals.bet_service();
    let metric = |(kind, name): (ServiceKind, &str)| {
        let none = LegHistogram::default();
        let of_kind = if report.kind == Some(kind) { &report.answer_time } else { &none };
        time_metric(&["kind"], vec![name.to_owned()], of_kind)
    };
    histogram_family(ANSWER_TIME, ServiceKind::ALL.into_iter().map(metric).collect())
}

fn time_metric<B: Bounds>(names: &[&str], values: Vec<String>, histogram: &TimeHistogram<B>) -> Metric {
    let mut metric = labelled(names, values);
    metric.set_histogram(proto_of(histogram));
    metric
}

fn histogram_family((name, help): (&str, &str), metrics: Vec<Metric>) -> MetricFamily {
    let mut collected = MetricFamily::default();
    collected.set_name(name.to_owned());
    collected.set_help(help.to_owned());
    collected.set_field_type(MetricType::HISTOGRAM);
    collected.set_metric(metrics);
    collected
}

fn proto_of<B: Bounds>(histogram: &TimeHistogram<B>) -> prometheus::proto::Histogram {
    let bucket = |(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut proto = prometheus::proto::Histogram::default();
    proto.set_bucket(histogram.cumulative().map(bucket).collect());
    proto.set_sample_count(histogram.count());
    proto.set_sample_sum(histogram.sum());
    proto
}

fn labelled(names: &[&str], values: Vec<String>) -> Metric {
    let label = |(name, value): (&&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    };
    let mut metric = Metric::default();
    metric.set_label(names.iter().zip(values).map(label).collect());
    metric
}

fn sample(family: &Family, values: Vec<String>, value: f64) -> Metric {
    let mut metric = labelled(family.labels, values);
    if family.kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

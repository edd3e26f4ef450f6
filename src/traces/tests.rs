use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::oneshot;

use super::export::{Failure, run};
use super::*;

const PAGE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn log(player_ids: PlayerIds) -> Log {
    Log { player_ids, ..Log::default() }
}

fn span(active: Active) -> Span {
    let now = Instant::now();
    Span {
        active,
        name: "bet",
        kind: SpanKind::Server,
        begin: now,
        end: now + Duration::from_millis(3),
        failure: None,
        attributes: vec![KeyValue::new("betId", "b-1")],
    }
}

#[test]
fn a_signal_stands_in_the_trace_of_its_page_or_in_one_of_its_own() {
    let tracer = Tracer::off(&Log::default());
    let page = TraceParent::parse(PAGE);
    let active = tracer.begin(page);
    assert_eq!((Some(active.trace), active.parent), (page.map(|p| p.trace), page.map(|p| p.parent)));
    assert!(active.sampled && !tracer.begin(None).sampled, "what the page says goes on to the service");
    let (one, other) = (tracer.begin(None), tracer.begin(None));
    assert!(one.trace != other.trace && one.span != other.span && one.parent.is_none());
    let part = tracer.begin_part(one.as_parent());
    assert_eq!((part.trace, part.parent, part.sampled), (one.trace, Some(one.span), false));
    assert_ne!(part.span, one.span);
}

#[test]
fn the_configured_share_is_recorded_whatever_pages_say() {
    for (ratio, allowed) in [(0.0, 0..=0), (0.25, 800..=1200), (1.0, 4000..=4000)] {
        let (sender, _spans) = mpsc::channel(1);
        let tracer = Tracer::new(&Log::default(), ratio, Some(sender));
        let page = || tracer.begin(None).as_parent();
        let sampled = (0..4000).filter(|_| tracer.begin(Some(TraceParent { sampled: true, ..page() })).sampled).count();
        assert!(allowed.contains(&sampled), "{sampled} of 4000 at {ratio}");
        let page = TraceParent::parse(PAGE);
        let again: Vec<bool> = (0..20).map(|_| tracer.begin(page).sampled).collect();
        assert!(again.iter().all(|sampled| *sampled == again[0]), "all of a trace or nothing");
    }
}

#[test]
fn what_is_not_recorded_is_not_even_described() {
    let (sender, mut spans) = mpsc::channel(1);
    let tracer = Tracer::new(&Log::default(), 0.0, Some(sender));
    tracer.end(&tracer.begin(None), || panic!("nobody asked"));
    assert!(spans.try_recv().is_err());
    let off = Tracer::off(&Log::default());
    off.end(&Active { sampled: true, ..off.begin(None) }, || panic!("there is no collector"));
}

#[test]
fn players_are_named_as_configured() {
    let ann = PlayerId::new("ann").unwrap();
    let name = |ids| Tracer::off(&log(ids)).player(&ann);
    assert_eq!(name(PlayerIds::Plain), Some("ann".to_owned()));
    assert_eq!(name(PlayerIds::Omitted), None);
    assert_eq!(name(PlayerIds::Hashed), None, "without a key there is no hash that hides anything");
    let key = crate::config::PlayerKey::from_bytes(&[7; 32]);
    let hashed = Tracer::off(&Log { player_key: key, ..log(PlayerIds::Hashed) }).player(&ann);
    assert_eq!(hashed, Some(PlayerNames::hashed(&[7; 32]).name(&ann)), "as in the audit trail");
}

#[test]
fn spans_beyond_the_queue_are_dropped_and_counted() {
    let (sender, _spans) = mpsc::channel(2);
    let tracer = Tracer::new(&Log::default(), 1.0, Some(sender));
    for _ in 0..5 {
        let active = tracer.begin(None);
        tracer.end(&active, || span(active));
    }
    assert_eq!(tracer.report(), TraceReport { dropped: 3, ..TraceReport::default() });
}

/// A collector in the same process.
#[derive(Clone, Debug, Default)]
struct Collector {
    batches: Arc<Mutex<Vec<Vec<SpanData>>>>,
    is_down: bool,
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.batches.lock().unwrap().push(batch);
        if self.is_down { Err(OTelSdkError::InternalFailure("down".to_owned())) } else { Ok(()) }
    }
}

impl Collector {
    fn sizes(&self) -> Vec<usize> {
        self.batches.lock().unwrap().iter().map(Vec::len).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn spans_go_in_batches_and_the_last_ones_at_the_end() {
    let collector = Collector::default();
    let (sender, spans) = mpsc::channel(2000);
    let tracer = Tracer::new(&Log::default(), 1.0, Some(sender));
    let (stop, stopped) = oneshot::channel();
    let send = |count: usize| (0..count).for_each(|_| tracer.end(&tracer.begin(None), || span(tracer.begin(None))));
    send(1030);
    let task = tokio::spawn(run(collector.clone(), Failure::default(), spans, tracer.clone(), stopped));
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(collector.sizes(), [512, 512], "six wait for others");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(collector.sizes(), [512, 512, 6]);
    send(600);
    stop.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(collector.sizes(), [512, 512, 6, 512, 88]);
    assert_eq!(tracer.report(), TraceReport { exported: 1630, ..TraceReport::default() });
    send(1);
    assert_eq!(tracer.report().dropped, 1, "nobody takes it any more");
}

#[tokio::test(start_paused = true)]
async fn what_the_collector_does_not_take_is_counted() {
    let collector = Collector { is_down: true, ..Collector::default() };
    let (sender, spans) = mpsc::channel(10);
    let tracer = Tracer::new(&Log::default(), 1.0, Some(sender));
    let (stop, stopped) = oneshot::channel();
    tracer.end(&tracer.begin(None), || span(tracer.begin(None)));
    stop.send(()).unwrap();
    run(collector, Failure::default(), spans, tracer.clone(), stopped).await;
    assert_eq!(tracer.report(), TraceReport { failed: 1, ..TraceReport::default() });
}

#[test]
fn a_span_is_told_by_the_time_of_day_and_never_ends_before_it_begins() {
    let tracer = Tracer::off(&Log::default());
    let active = tracer.begin(TraceParent::parse(PAGE));
    let mut done = span(active);
    let scope = opentelemetry::InstrumentationScope::builder("test").build();
    let now = (done.begin + Duration::from_secs(2), SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
    done.failure = Some("late");
    let attributes: BTreeMap<String, String> =
        done.attributes.iter().map(|kv| (kv.key.to_string(), kv.value.to_string())).collect();
    let data = done.into_data(now, &scope);
    assert_eq!(data.start_time, SystemTime::UNIX_EPOCH + Duration::from_secs(998));
    assert_eq!(data.end_time, data.start_time + Duration::from_millis(3));
    assert_eq!(
        (data.span_context.trace_id().to_string(), data.parent_span_id.to_string()),
        (PAGE[3..35].to_owned(), PAGE[36..52].to_owned())
    );
    assert!(data.parent_span_is_remote && data.status == opentelemetry::trace::Status::error("late"));
    assert_eq!(attributes["betId"], "b-1");
    let mut odd = span(tracer.begin(None));
    odd.end = odd.begin - Duration::from_millis(1);
    let data = odd.into_data(now, &scope);
    assert_eq!(data.start_time, data.end_time);
    assert_eq!(data.parent_span_id, opentelemetry::trace::SpanId::INVALID);
}

//! One event is followed from its POST through refine and both metric stages to its rows in ClickHouse and to the push, by
//! what an OpenTelemetry collector is told; and no event waits for a collector that is away.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::{Client, LIMIT, basic};
use crate::collector::{Collector, Told};
use crate::real_stack::wait_until;
use crate::sse_client::SseClient;
use crate::stack::{Backbone, Options, Role, Stack, WRITE_KEY};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENDER: &str = "00f067aa0ba902b7";

pub fn run(backbone: Backbone) {
    let collector = Collector::start();
    let settings = vec![("NEONHUB_OTLP_ENDPOINT", collector.url.clone()), ("NEONHUB_TRACE_RATIO", "0".to_owned())];
    let mut stack = Stack::start_with(backbone, Options { settings, ..Options::default() }, None);
    let client = stack.client();
    // Somebody listens, so that there is a push.
    let mut listener = SseClient::open(client.api_port, "/v1/live/metrics?metrics=clicks", "");
    post(&client, "c-untraced", &[]);
    post(&client, "c-unsampled", &[("traceparent", &format!("00-{TRACE}-{SENDER}-00"))]);
    post(&client, "c-traced", &[("traceparent", &format!("00-{TRACE}-{SENDER}-01"))]);
    client.wait_for_events(3);
    while !listener.next_message().data.contains("spring") {}

    let mut trace = Trace(Vec::new());
    let told = wait_until("the collector is told of every stage", LIMIT, || {
        trace = Trace::of(&collector, TRACE);
        Ok(trace.missing().is_none())
    });
    told.unwrap_or_else(|error| panic!("{error}: {:?}", trace.missing()));
    let astray = collector.spans().into_iter().find(|told| told.trace_id() != TRACE);
    assert!(astray.is_none(), "of the traced event alone: {astray:?}");
    trace.assert_connected();
    assert_services(backbone, &trace);
    assert_row_is_found(&client, &trace);

    // What is not told yet is told at the end.
    let last = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    post(&client, "c-last", &[("traceparent", &format!("00-{last}-{SENDER}-01"))]);
    client.wait_for_events(4);
    for role in stack.roles().iter().rev() {
        stack.terminate(*role).unwrap();
    }
    let names = Trace::of(&collector, last).names();
    assert!(
        names.is_superset(&BTreeSet::from(["POST /v1/campaigns/events", "refine", "landing"].map(str::to_owned))),
        "{names:?}"
    );

    drop(collector);
    for role in stack.roles() {
        stack.spawn(*role);
        if *role == Role::Olap {
            stack.wait_for(Role::Olap);
        }
    }
    stack.wait_until_ready();
    for number in 0..50 {
        post(&client, &format!("c-alone-{number}"), &[("traceparent", &format!("00-{TRACE}-{SENDER}-01"))]);
    }
    client.wait_for_events(54);
    stack.assert_audit_clean();
}

fn post(client: &Client, message_id: &str, headers: &[(&str, &str)]) {
    let event = json!({
        "type": "click", "campaign": "spring", "anonymousId": "a-1", "messageId": message_id,
        "timestamp": "2026-05-01T12:00:00Z",
    });
    let authorization = basic(WRITE_KEY);
    let mut all = vec![("authorization", authorization.as_str()), ("content-type", "application/json")];
    all.extend_from_slice(headers);
    let answer = client.send(client.ingest_port, "POST", "/v1/campaigns/events", &all, event.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body);
}

struct Trace(Vec<Told>);

impl Trace {
    fn of(collector: &Collector, id: &str) -> Self {
        Self(collector.spans().into_iter().filter(|told| told.trace_id() == id).collect())
    }

    fn names(&self) -> BTreeSet<String> {
        self.0.iter().map(|told| told.span.name.clone()).collect()
    }

    fn landed_into(&self, table: &str) -> Vec<&Told> {
        let is_it = |told: &&Told| told.span.name == "landing" && told.attribute("db.collection.name") == table;
        self.0.iter().filter(is_it).collect()
    }

    /// A stage that nobody has told of.
    fn missing(&self) -> Option<String> {
        let stages = ["POST /v1/campaigns/events", "refine", "metrics.partial", "metrics.merge", "live push"];
        let names = self.names();
        let stage = stages.into_iter().find(|stage| !names.contains(*stage)).map(str::to_owned);
        let table = || ["events", "metric_windows"].into_iter().find(|table| self.landed_into(table).is_empty());
        // Each process tells of its own in its own time.
        let is_there = |id: &str| id == SENDER || self.0.iter().any(|told| told.span_id() == id);
        let orphan = || self.0.iter().find(|told| !is_there(&told.parent()));
        stage
            .or_else(|| table().map(|table| format!("landing into {table}")))
            .or_else(|| orphan().map(|told| format!("what {} follows from", told.span.name)))
    }

    /// Each span follows from the one of the stage before it.
    fn assert_connected(&self) {
        for told in &self.0 {
            let before = match (told.span.name.as_str(), told.attribute("messaging.destination.name")) {
                ("POST /v1/campaigns/events", _) => {
                    assert_eq!(told.parent(), SENDER);
                    continue;
                }
                ("refine", _) => "POST /v1/campaigns/events",
                ("metrics.partial", _) => "refine",
                ("metrics.merge", _) => "metrics.partial",
                ("landing", topic) if topic.ends_with("events.campaign") => "refine",
                ("landing" | "live push", topic) if topic.ends_with("metrics.windows") => "metrics.merge",
                other => panic!("nobody awaits {other:?}"),
            };
            let parent = self.0.iter().find(|parent| parent.span_id() == told.parent());
            assert_eq!(parent.map(|parent| parent.span.name.as_str()), Some(before), "{}", told.span.name);
            assert!(told.span.start_time_unix_nano <= told.span.end_time_unix_nano);
        }
    }
}

fn assert_services(backbone: Backbone, trace: &Trace) {
    let services: BTreeSet<&str> = trace.0.iter().map(|told| told.service.as_str()).collect();
    let expected: &[&str] = match backbone {
        Backbone::Embedded => &["neonhub"],
        Backbone::Kafka => &["neonhub-api", "neonhub-ingest", "neonhub-processors"],
    };
    assert_eq!(services.into_iter().collect::<Vec<_>>(), expected);
}

/// From the span to the row.
fn assert_row_is_found(client: &Client, trace: &Trace) {
    let landings = trace.landed_into("events");
    assert_eq!(landings.len(), 1);
    let landing = landings[0];
    assert_eq!(landing.attribute("neonhub.message_id"), "c-traced");
    let (partition, offset) =
        (landing.attribute("messaging.destination.partition.id"), landing.attribute("messaging.kafka.offset"));
    let sql = format!(
        "SELECT message_id FROM events WHERE source = 'campaign' AND partition = {partition} AND offset = {offset}"
    );
    assert_eq!(client.sql(&sql), "c-traced");
    let received: Value = client.sql("SELECT count() FROM metric_windows WHERE metric = 'clicks'").parse().unwrap();
    assert!(received.as_u64() >= Some(6), "{received}");
}

//! Live push: a client that reconnects with `Last-Event-ID` has seen every revision, none twice; and the newest ones are
//! those that the table holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::live_socket;
use crate::client::{Client, LIMIT};
use crate::real_stack::wait_until;
use crate::sse_client::{SseClient, SseMessage};
use crate::stack::{Backbone, Stack, WORKSPACE};

const CONNECTIONS_THAT_BREAK: usize = 8;
/// Windows that are read before the connection breaks.
const WINDOWS_A_CONNECTION: usize = 60;
const EVENTS_A_BATCH: usize = 25;
/// More than that and the reader is not getting on.
const MOST_BATCHES: usize = 4_000;
const GRAINS: [&str; 6] = ["minute", "quarter", "hour", "day", "week", "month"];

pub fn run(backbone: Backbone) {
    let stack = Stack::start(backbone);
    let client = stack.client();
    let (is_enough, batches) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut live = Seen::default();
    std::thread::scope(|threads| {
        let poster = threads.spawn(|| {
            for number in 0..MOST_BATCHES {
                if is_enough.load(Ordering::SeqCst) {
                    return;
                }
                post_batch(&client, number);
                batches.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Whatever happens to the reader, the poster must end.
        let _stop = StopsAtDrop(&is_enough);
        let mut last_id = String::new();
        for _ in 0..CONNECTIONS_THAT_BREAK {
            last_id = read_and_break_off(&client, &last_id, &mut live);
        }
        assert!(!poster.is_finished(), "events were still being posted at the last break");
        live.last_id = last_id;
    });
    let posted = batches.load(Ordering::SeqCst) * EVENTS_A_BATCH;
    client.wait_for_events(posted);
    let whole = drain_until_complete(&client, &mut live, posted as u64);
    assert!(whole.revisions.len() > CONNECTIONS_THAT_BREAK * WINDOWS_A_CONNECTION);
    assert_table_agrees(&client, &whole);
    stack.assert_audit_clean();
    live_socket::run(&client, |grain, campaign| {
        let wanted = |window: &&Value| {
            window["metric"] == "impressions"
                && window["grain"] == grain
                && window["dimensions"]["campaign"] == campaign
        };
        whole.revisions.values().filter(wanted).count()
    });
}

struct StopsAtDrop<'a>(&'a AtomicBool);

impl Drop for StopsAtDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Each batch is of another minute, so that there is much to revise.
fn post_batch(client: &Client, number: usize) {
    let events: Vec<Value> = (0..EVENTS_A_BATCH)
        .map(|place| {
            json!({
                "type": "impression", "messageId": format!("live-{number}-{place}"),
                "campaign": format!("c-{}", place % 5), "anonymousId": format!("a-{}", place % 11),
                "timestamp": format!("2026-02-{:02}T{:02}:{:02}:00Z", number / 60 % 20 + 1, number % 24, number % 60),
            })
        })
        .collect();
    client.accept("/v1/campaigns/events", &events);
}

/// A window's name: metric, series, grain, zone, start, dimensions and epoch.
type WindowName = String;

/// What a client has heard.
#[derive(Debug, Default)]
struct Seen {
    /// By window and revision: the window as it came.
    revisions: BTreeMap<(WindowName, u64), Value>,
    newest: BTreeMap<WindowName, u64>,
    last_id: String,
}

impl Seen {
    fn take(&mut self, message: &SseMessage) {
        assert_eq!(message.name, "window", "nothing was compacted away: {message:?}");
        let window: Value = serde_json::from_str(&message.data).unwrap();
        assert_eq!(window["workspace"], WORKSPACE, "{window}");
        let (name, revision) = (name_of(&window), window["revision"].as_u64().unwrap());
        let before = self.newest.insert(name.clone(), revision);
        assert!(before.is_none_or(|before| before < revision), "{before:?} came before {window}");
        let twice = self.revisions.insert((name, revision), window);
        assert!(twice.is_none(), "seen twice: {twice:?}");
        self.last_id.clone_from(&message.id);
    }

    /// Of the newest revisions of all epochs of a metric's windows.
    fn count(&self, metric: &str, grain: &str) -> u64 {
        let newest = self.newest.iter().map(|(name, revision)| &self.revisions[&(name.clone(), *revision)]);
        let wanted = newest.filter(|window| window["metric"] == metric && window["grain"] == grain);
        wanted.map(|window| window["count"].as_u64().unwrap()).sum()
    }
}

fn name_of(window: &Value) -> WindowName {
    let fields = ["metric", "series", "grain", "zone", "window_start", "dimensions", "epoch"];
    fields.map(|field| window[field].to_string()).join(" ")
}

/// Reads some windows and drops the connection; returns the place to go on from.
fn read_and_break_off(client: &Client, last_id: &str, live: &mut Seen) -> String {
    // The first connection begins at the beginning, so that it can be compared with a whole reading.
    let mut stream = SseClient::open(client.api_port, "/v1/live/metrics?from=earliest", last_id);
    for _ in 0..WINDOWS_A_CONNECTION {
        live.take(&stream.next_message());
    }
    live.last_id.clone()
}

/// Reads everything from `last_id` (or the beginning) to the log's end as it was when the connection was opened: the
/// first heartbeat comes there.
fn drain(client: &Client, seen: &mut Seen) {
    let mut stream = SseClient::open(client.api_port, "/v1/live/metrics?from=earliest", &seen.last_id);
    while let Some(message) = stream.next_message_before_heartbeat() {
        seen.take(&message);
    }
    seen.last_id = stream.last_id().to_owned();
}

/// Goes on reading until every grain has counted every event, and a client that reads all in one go saw just the same.
fn drain_until_complete(client: &Client, live: &mut Seen, posted: u64) -> Seen {
    let mut whole = Seen::default();
    let outcome = wait_until("the live client has seen all", LIMIT, || {
        drain(client, live);
        whole = Seen::default();
        drain(client, &mut whole);
        let is_counted = GRAINS.iter().all(|grain| live.count("impressions", grain) == posted);
        Ok(is_counted && live.revisions == whole.revisions)
    });
    let counts = GRAINS.map(|grain| (grain, live.count("impressions", grain), whole.count("impressions", grain)));
    let missed: Vec<_> = whole.revisions.keys().filter(|key| !live.revisions.contains_key(*key)).take(5).collect();
    assert!(outcome.is_ok(), "{posted} were posted; by grain, live and whole: {counts:?}; missed: {missed:#?}");
    whole
}

/// The landed table has the same windows, each with the newest revision and its count.
fn assert_table_agrees(client: &Client, whole: &Seen) {
    let sql = format!(
        "SELECT metric, toString(series) AS series, grain, zone, toUnixTimestamp(window_start) AS start, \
         dimensions, epoch, toString(max(revision)) AS newest, toString(argMax(count, revision)) AS counted \
         FROM metric_windows WHERE workspace = '{WORKSPACE}' \
         GROUP BY metric, series, grain, zone, window_start, key, dimensions, epoch FORMAT JSONEachRow"
    );
    let expected: BTreeMap<String, String> = whole
        .newest
        .iter()
        .map(|(name, revision)| {
            let window = &whole.revisions[&(name.clone(), *revision)];
            let start: jiff::Timestamp = window["window_start"].as_str().unwrap().parse().unwrap();
            let fields =
                [&window["metric"], &window["grain"], &window["zone"], &window["dimensions"], &window["epoch"]];
            (
                row_name(fields, &window["series"].to_string(), start.as_second()),
                format!("{revision} {}", window["count"]),
            )
        })
        .collect();
    let mut found = BTreeMap::new();
    let outcome = wait_until("the table has the newest revisions", LIMIT, || {
        let rows = client.sql(&sql);
        found = rows
            .lines()
            .map(|line| {
                let row: Value = serde_json::from_str(line).unwrap();
                let text = |name: &str| row[name].as_str().unwrap();
                let fields = [&row["metric"], &row["grain"], &row["zone"], &row["dimensions"], &row["epoch"]];
                let name = row_name(fields, text("series"), row["start"].as_i64().unwrap());
                (name, format!("{} {}", text("newest"), text("counted")))
            })
            .collect();
        Ok(found == expected)
    });
    let keys = expected.keys().chain(found.keys()).filter(|key| expected.get(*key) != found.get(*key));
    let differing: Vec<_> = keys.take(5).map(|key| (key, expected.get(key), found.get(key))).collect();
    assert!(outcome.is_ok(), "window, live, table: {differing:#?}");
}

fn row_name(fields: [&Value; 5], series: &str, start_s: i64) -> String {
    format!("{} {series} {start_s}", fields.map(Value::to_string).join(" "))
}

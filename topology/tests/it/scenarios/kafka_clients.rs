//! Unmodified Kafka clients on the topics: kcat, with the librdkafka of the distribution, and kafka-python, which has nothing
//! of it. Both read what is committed, as JSON; kcat on every topic.

use std::path::Path;
use std::process::Command;

use neonhub_schemas::topics::TOPICS;
use serde_json::{Value, json};

use super::clients::{client_folder, fetched_program, output_of, script};
use crate::client::{Client, LIMIT, basic};
use crate::real_stack::wait_until;
use crate::stack::{Backbone, Stack, WORKSPACE, WRITE_KEY};

const PAGES: usize = 30;
const SPENDS: usize = 3;
const DAY: &str = "2026-01-07T00:00:00Z";

pub fn run() {
    let python = client_folder("test-clients-python").join("bin/python");
    let kcat = fetched_program("fetch-program.sh", &["kcat", "-V"]);
    let stack = Stack::start(Backbone::Kafka);
    let client = stack.client();
    let topics =
        Topics { brokers: stack.setting("NEONHUB_KAFKA_BROKERS"), prefix: stack.setting("NEONHUB_TOPIC_PREFIX") };
    // Twice, so that there is something to tell accepted events from refined ones.
    for _ in 0..2 {
        client.accept("/v1/batch", &pages());
        client.accept("/v1/campaigns/events", &spends());
    }
    client.wait_for_events(PAGES + SPENDS);

    let raw = topics.read_by_kcat(&kcat, "raw.behavior");
    assert_eq!(message_ids(&raw).len(), 2 * PAGES, "accepted twice");
    let refined = topics.read_by_kcat(&kcat, "events.behavior");
    let mut ids = message_ids(&refined);
    ids.sort_unstable();
    let mut expected: Vec<String> = (0..PAGES).map(|number| format!("page-{number:02}")).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected, "each once");

    // Windows go out a little after their events.
    let views = json!({
        "2026-01-07T08:00:00Z": { "count": 10, "sum": "0" },
        "2026-01-07T08:01:00Z": { "count": 10, "sum": "0" },
        "2026-01-07T08:02:00Z": { "count": 10, "sum": "0" },
    });
    topics.wait_for_windows(&python, "page_views", "minute", &views);
    topics.wait_for_windows(&python, "page_views", "day", &json!({ DAY: { "count": 30, "sum": "0" } }));
    topics.wait_for_windows(&python, "spend", "day", &json!({ DAY: { "count": 3, "sum": "0.3" } }));
    assert_every_topic_is_readable(&client, &topics, &kcat);
    let windows = topics.read_by_kcat(&kcat, "metrics.windows");
    // Of one window the newest is the last: they are in one partition.
    let is_days_spend = |(key, window): &&(String, Value)| key.contains("|spend|") && window["grain"] == "day";
    let (_, newest) = windows.iter().rfind(is_days_spend).expect("a window of the day's spend");
    assert_eq!((&newest["window_start"], &newest["sum"]), (&json!(DAY), &json!("0.3")), "{newest}");
    stack.assert_audit_clean();
}

/// Something happens that goes on each of them, and kcat reads it as JSON.
fn assert_every_topic_is_readable(client: &Client, topics: &Topics, kcat: &Path) {
    let seen = json!({ "type": "identify", "messageId": "seen", "userId": "user-1", "anonymousId": "visitor-1" });
    client.accept("/v1/batch", &[seen]);
    client.accept("/v1/integrations/stripe/events", &[json!({ "type": "invoice.paid", "payload": { "id": "in_1" } })]);
    let nameless = json!({ "type": "track", "userId": "user-1" }).to_string();
    let key = basic(WRITE_KEY);
    let refused = client.send(client.ingest_port, "POST", "/v1/track", &[("authorization", &key)], nameless.as_bytes());
    assert_eq!(refused.status, 400, "{}", refused.body);
    let definition = json!({ "source": "behavior", "aggregation": "count" });
    let answer = client.api("PUT", "/v1/metrics/definitions/anything", Some(&definition));
    assert!(answer.status < 300, "{}", answer.body);
    let mut unread: Vec<&str> = TOPICS.iter().map(|topic| topic.name).collect();
    let outcome = wait_until("every topic has a record", LIMIT, || {
        unread.retain(|topic| topics.count_by_kcat(kcat, topic) == 0);
        Ok(unread.is_empty())
    });
    assert!(outcome.is_ok(), "nothing on {unread:?}");
}

/// Ten in each of three minutes.
fn pages() -> Vec<Value> {
    let page = |number: usize| {
        json!({
            "type": "page", "messageId": format!("page-{number:02}"), "userId": format!("user-{}", number % 7),
            "timestamp": format!("2026-01-07T08:0{}:00Z", number % 3),
            "properties": { "path": format!("/{}", number % 4) },
        })
    };
    (0..PAGES).map(page).collect()
}

fn spends() -> Vec<Value> {
    let spend = |number: usize| {
        json!({
            "type": "spend", "messageId": format!("spend-{number}"), "campaign": "spring", "cost": 0.1,
            "timestamp": "2026-01-07T09:00:00Z",
        })
    };
    (0..SPENDS).map(spend).collect()
}

struct Topics {
    brokers: String,
    prefix: String,
}

impl Topics {
    fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// Records, each with a key in words and a value in JSON, or none.
    fn count_by_kcat(&self, kcat: &Path, topic: &str) -> usize {
        let mut command = Command::new(kcat);
        command.args(["-b", &self.brokers, "-t", &self.name(topic), "-C", "-e", "-q", "-J"]);
        let printed = output_of(command.args(["-X", "isolation.level=read_committed"]));
        for line in printed.lines() {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{topic}: {error}: {line}"));
            assert!(record["key"].is_string(), "{record}");
            if let Some(payload) = record["payload"].as_str() {
                let value: Value =
                    serde_json::from_str(payload).unwrap_or_else(|error| panic!("{topic}: {error}: {payload}"));
                assert!(value.is_object(), "{topic}: {payload}");
            }
        }
        printed.lines().count()
    }

    /// Key and value of every record, but for heartbeats.
    fn read_by_kcat(&self, kcat: &Path, topic: &str) -> Vec<(String, Value)> {
        let mut command = Command::new(kcat);
        command.args(["-b", &self.brokers, "-t", &self.name(topic), "-C", "-e", "-q", "-J"]);
        command.args(["-X", "isolation.level=read_committed"]);
        let printed = output_of(&mut command);
        let records = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let keys_and_values = records.map(|record| {
            let text = |name: &str| record[name].as_str().unwrap_or_else(|| panic!("{name} in {record}"));
            (text("key").to_owned(), serde_json::from_str(text("payload")).unwrap())
        });
        keys_and_values.filter(|(key, _)| key != "heartbeat").collect()
    }

    fn wait_for_windows(&self, python: &Path, metric: &str, grain: &str, expected: &Value) {
        let mut last = Value::Null;
        let outcome = wait_until("the windows are on the topic", LIMIT, || {
            let mut command = Command::new(python);
            command.arg(script("sum_windows.py")).args([&self.brokers, &self.name("metrics.windows")]);
            command.args([WORKSPACE, metric, grain]);
            last = serde_json::from_str(&output_of(&mut command)).unwrap();
            Ok(last["windows"] == *expected)
        });
        assert!(outcome.is_ok(), "{metric} by {grain}: {last}");
    }
}

fn message_ids(events: &[(String, Value)]) -> Vec<String> {
    events.iter().map(|(_, event)| event["message_id"].as_str().unwrap().to_owned()).collect()
}

//! Unmodified SDKs: what each was given is in ClickHouse once, as it was given; also when ingest first answers 503, and when
//! it takes a batch but its answer is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::clients::{client_folder, output_of, script};
use crate::client::Client;
use crate::stack::{Backbone, Stack, WORKSPACE, WRITE_KEY};

/// Of each run. They take turns: track, page, identify, screen, group, alias.
const EVENTS: usize = 60;
const PAGES: f64 = EVENTS as f64 / 6.0;
/// What becomes of a client's first posts: refused; taken, the answer lost; taken, but answered with 503.
const BAD_LUCK: &str = "refuse,cut,late";
/// RudderStack's SDK sends its first event alone, and the others after it.
const BAD_LUCK_TWICE: &str = "refuse,cut,late,pass,refuse,cut,late";
/// An event's time may be off by as long as its request was under way.
const MOST_CORRECTION_MS: u64 = 10_000;

pub fn run(backbone: Backbone) {
    let python = client_folder("test-clients-python").join("bin/python");
    let node_modules = client_folder("test-clients-node");
    let stack = Stack::start(backbone);
    let client = stack.client();
    let host = format!("http://127.0.0.1:{}", client.ingest_port);
    let rudder = |host: &str| sdk("node".as_ref(), "rudder_node.mjs", host, Some(&node_modules));
    let segment_python = |host: &str| sdk(&python, "segment_python.py", host, None);
    let segment_node = |host: &str| sdk("node".as_ref(), "segment_node.mjs", host, Some(&node_modules));

    let mut sent = Vec::new();
    sent.extend(rows(&printed_by(rudder(&host))));
    sent.extend(rows(&printed_by(segment_python(&host))));
    sent.extend(rows(&printed_behind_bad_network(&host, BAD_LUCK_TWICE, &rudder("{host}"))));
    sent.extend(rows(&printed_behind_bad_network(&host, BAD_LUCK, &segment_python("{host}"))));
    assert_eq!(sent.len(), 4 * EVENTS);
    // Its fields are looked at in `clients`.
    let segment = printed_behind_bad_network(&host, BAD_LUCK, &segment_node("{host}"));
    assert_eq!(segment["sent"], EVENTS);

    client.wait_for_events(5 * EVENTS);
    assert_landed(&client, &sent);
    assert_counted_by_day(&client);
    stack.assert_audit_clean();
}

fn sdk(program: &Path, name: &str, host: &str, modules: Option<&Path>) -> Command {
    let mut command = Command::new(program);
    command.arg(script(name)).args([host, WRITE_KEY, &EVENTS.to_string()]).args(modules);
    command
}

fn printed_by(mut command: Command) -> Value {
    serde_json::from_str(&output_of(&mut command)).unwrap()
}

/// Runs a client, whose command has `{host}` in ingest's place, behind a proxy that fails its first posts. Some of them were
/// taken nevertheless, so ingest has got events twice.
pub(super) fn printed_behind_bad_network(host: &str, steps: &str, client: &Command) -> Value {
    let mut command = Command::new("node");
    command.arg(script("unreliable_network.mjs")).args([host, steps]).arg(client.get_program()).args(client.get_args());
    let outcome = printed_by(command);
    assert!(outcome["delivered_twice"].as_u64().unwrap() > 0, "{outcome}");
    outcome["client"].clone()
}

fn rows(printed: &Value) -> Vec<Value> {
    printed["sent"].as_array().unwrap().clone()
}

/// Each event is in the table once, with the fields that its script printed; its properties may be more.
pub(super) fn assert_landed(client: &Client, sent: &[Value]) {
    let ids: Vec<String> = sent.iter().map(|row| format!("'{}'", row["message_id"].as_str().unwrap())).collect();
    let sql = format!(
        "SELECT message_id, kind, name, user_id, anonymous_id, group_id, previous_id, campaign, toFloat64(value) AS value, \
         toUnixTimestamp64Milli(timestamp) AS timestamp_ms, properties, \
         ifNull(toString(context.library.name), '') AS library \
         FROM events WHERE workspace = '{WORKSPACE}' AND message_id IN ({}) \
         SETTINGS output_format_json_quote_64bit_integers = 0 FORMAT JSONEachRow",
        ids.join(",")
    );
    let answer = client.sql(&sql);
    assert_eq!(answer.lines().count(), sent.len(), "each event is landed once");
    let landed: BTreeMap<String, Value> = answer
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| (row["message_id"].as_str().unwrap().to_owned(), row))
        .collect();
    for row in sent {
        let id = row["message_id"].as_str().unwrap();
        assert_same(row, landed.get(id).unwrap_or_else(|| panic!("{id} is not landed")));
    }
}

fn assert_same(sent: &Value, landed: &Value) {
    for (field, value) in sent.as_object().unwrap() {
        match field.as_str() {
            "properties" => {
                for (name, property) in value.as_object().unwrap() {
                    assert_eq!(&landed["properties"][name], property, "{name} of {landed}, sent {sent}");
                }
            }
            "timestamp" => {
                let stated: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
                let difference = landed["timestamp_ms"].as_i64().unwrap().abs_diff(stated.as_millisecond());
                assert!(difference <= MOST_CORRECTION_MS, "{difference} ms between {landed} and {sent}");
            }
            _ => assert_eq!(&landed[field], value, "{field} of {landed}, sent {sent}"),
        }
    }
}

/// Each SDK's events are of a day of their own, from two runs.
fn assert_counted_by_day(client: &Client) {
    let days = [
        ("2025-03-01T00:00:00Z", "2025-03-02T00:00:00Z", PAGES),
        ("2025-04-01T00:00:00Z", "2025-04-02T00:00:00Z", 2.0 * PAGES),
        ("2025-05-01T00:00:00Z", "2025-05-02T00:00:00Z", 2.0 * PAGES),
    ];
    for (from, to, pages) in days {
        client.wait_for_total("page_views", from, to, pages);
    }
}

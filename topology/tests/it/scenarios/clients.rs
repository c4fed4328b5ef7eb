//! Unmodified clients: events sent by Segment's SDK for Node are counted by clickhouse-connect in Python and by the query
//! API; and the official ClickHouse clients work with the front.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::clickhouse_crate;
use crate::clickhouse_curl;
use crate::client::Client;
use crate::real_stack::cache_folder;
use crate::real_stack::scratch::ScratchFolder;
use crate::stack::{Backbone, CLICKHOUSE_PASSWORD, CLICKHOUSE_WRITER, Stack, WORKSPACE, WRITE_KEY};

/// They take turns: track, page, identify, screen, group, alias.
const EVENTS: usize = 120;

pub fn run(backbone: Backbone) {
    let python = client_folder("test-clients-python").join("bin/python");
    let node_modules = client_folder("test-clients-node");
    let stack = Stack::start(backbone);
    let client = stack.client();
    let clickhouse = format!("http://127.0.0.1:{}", client.clickhouse_port);
    let as_writer = format!("http://{CLICKHOUSE_WRITER}:{CLICKHOUSE_PASSWORD}@127.0.0.1:{}", client.clickhouse_port);

    let sent = send_by_segment(&client, &node_modules);
    client.wait_for_events(EVENTS);
    let counted = output_of(Command::new(&python).arg(script("count_events.py")).args([
        "127.0.0.1",
        &client.clickhouse_port.to_string(),
        WORKSPACE,
    ]));
    assert_counted(&serde_json::from_str(&counted).unwrap(), &sent);
    assert_seen_by_queries(&client);
    stack.assert_audit_clean();

    output_of(Command::new(&python).arg(script("clickhouse_connect_check.py")).arg(&as_writer));
    // An import statement finds its packages beside the file only.
    let folder = ScratchFolder::create("node-check").unwrap();
    let check = folder.path().join("check.mjs");
    std::fs::copy(script("clickhouse_node_check.mjs"), &check).unwrap();
    std::os::unix::fs::symlink(node_modules.join("node_modules"), folder.path().join("node_modules")).unwrap();
    output_of(Command::new("node").arg(&check).arg(&as_writer));
    clickhouse_crate::check(&clickhouse);
    clickhouse_curl::check(&fetched_program("fetch-program.sh", &["curl", "--version"]), &as_writer);
    // The checks leave the events alone.
    client.wait_for_events(EVENTS);
}

/// Where the set-up put a set of clients.
pub(super) fn client_folder(name: &str) -> PathBuf {
    let folder = cache_folder().unwrap().join(name);
    // The mark that the script writes last: without it the folder is not whole.
    let is_whole = folder.join("made-from.sha256").is_file();
    assert!(
        is_whole,
        "{} is not there: run `make test-clients-setup` (deploy/fetch-test-clients.sh) once",
        folder.display()
    );
    folder
}

/// The program that a script in `deploy/` finds or fetches, and prints as its last line.
pub(super) fn fetched_program(deploy_script: &str, arguments: &[&str]) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(deploy_script);
    PathBuf::from(output_of(Command::new(path).args(arguments)).lines().next_back().unwrap())
}

pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a client to its end, which must be a good one.
pub(super) fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (printed, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{printed}\n{complaints}", output.status);
    printed.into_owned()
}

fn send_by_segment(client: &Client, node_modules: &Path) -> Value {
    let host = format!("http://127.0.0.1:{}", client.ingest_port);
    let mut command = Command::new("node");
    command.arg(script("segment_node.mjs")).args([host.as_str(), WRITE_KEY, &EVENTS.to_string()]).arg(node_modules);
    let sent: Value = serde_json::from_str(&output_of(&mut command)).unwrap();
    assert_eq!(sent["sent"], EVENTS);
    sent
}

fn assert_counted(counted: &Value, sent: &Value) {
    assert_eq!((&counted["total"], &counted["distinct_message_ids"]), (&json!(EVENTS), &json!(EVENTS)), "{counted}");
    assert_eq!(counted["by_kind"], sent["byKind"], "{counted}");
    let fields = &counted["fields"];
    let users: Vec<String> = (0..10).map(|number| format!("user-{number}")).collect();
    let expected = json!({
        "revenue": 20.0 * 12.5, "track_names": ["Order Completed"], "track_countries": ["de"],
        "page_paths": ["/pricing"], "screen_names": ["Checkout"],
        "group_ids": ["company-1"], "previous_ids": 20, "user_ids": users,
        "libraries": ["@segment/analytics-node"], "first_day": "2025-03-01",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&fields[name], value, "{name} in {fields}");
    }
    // One event a second; each request's clock is corrected by the time that it was under way.
    let seconds = fields["seconds"].as_u64().unwrap();
    assert!((EVENTS as u64 - 2..=EVENTS as u64).contains(&seconds), "{fields}");
}

fn assert_seen_by_queries(client: &Client) {
    let (from, to) = ("2025-03-01T00:00:00Z", "2025-03-02T00:00:00Z");
    client.wait_for_total("page_views", from, to, 20.0);
    client.wait_for_total("visitors", from, to, 10.0);
    client.wait_for_total("sessions", from, to, 10.0);
    let by_path = json!({ "metrics": ["page_views"], "grain": "day", "from": from, "to": to, "group_by": ["path"] });
    let rows = client.wait_for_rows(&by_path, |rows| rows.len() == 1);
    assert_eq!((&rows[0]["path"], &rows[0]["page_views"]), (&json!("/pricing"), &json!(20)));
    let orders = json!({
        "from": from, "to": to, "limit": 1_000, "columns": ["message_id", "name", "user_id", "properties.order_id"],
        "filters": [{ "field": "kind", "op": "eq", "value": "track" }],
    });
    let answer = client.api("POST", "/v1/events/query", Some(&orders)).json();
    let events = answer["events"].as_array().unwrap();
    assert_eq!(events.len(), 20, "{answer}");
    assert!(events.iter().all(|event| event["name"] == "Order Completed"), "{answer}");
}

//! A real browser, headless: a page with Segment's SDK and with beacons sends its events, also as it goes, and sees its own
//! view on both live feeds. And the live feeds followed by Node's clients, which go on where they were cut off.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::clients::{client_folder, fetched_program, output_of, script};
use super::sdk_clients::{assert_landed, printed_behind_bad_network};
use crate::client::Client;
use crate::stack::{API_KEY, Backbone, Options, Stack, WRITE_KEY};

/// Six calls and two beacons, an event sent as its page goes, two in a batch when its page goes.
const EVENTS: usize = 11;
/// Of the six calls' posts three fail and are repeated; then the one of the page that goes.
const BAD_LUCK: &str = "refuse,cut,late,pass,pass,pass,pass,pass,pass,late";

pub fn run(backbone: Backbone) {
    let node_modules = client_folder("test-clients-node");
    let chromium = fetched_program("fetch-chromium.sh", &[]);
    let options = Options { settings: vec![("NEONHUB_ALLOW_ANY_ORIGIN", "true".to_owned())], ..Options::default() };
    let stack = Stack::start_with(backbone, options, None);
    let client = stack.client();
    let host = format!("http://127.0.0.1:{}", client.ingest_port);

    let visit: Value =
        serde_json::from_str(&output_of(&mut session(&client, &host, &chromium, &node_modules))).unwrap();
    assert_visited(&visit);
    let unlucky = session(&client, "{host}", &chromium, &node_modules);
    let unlucky_visit = printed_behind_bad_network(&host, BAD_LUCK, &unlucky);
    assert_visited(&unlucky_visit);
    assert!(unlucky_visit["kept"].as_u64().unwrap() > 0, "the SDK took an event along: {unlucky_visit}");

    let mut live = node("live_node.mjs", &client, &host);
    let followed: Value = serde_json::from_str(&output_of(live.arg(&node_modules))).unwrap();
    for feed in ["event_source", "web_socket"] {
        assert_eq!(followed[feed]["values"], json!([1, 2]), "{followed}");
        assert!(followed[feed]["resumed_after"].is_string(), "{followed}");
    }

    let sent: Vec<Value> = [&visit, &unlucky_visit, &followed]
        .iter()
        .flat_map(|printed| printed["sent"].as_array().unwrap().clone())
        .collect();
    client.wait_for_events(sent.len());
    assert_landed(&client, &sent);
    stack.assert_audit_clean();
}

fn session(client: &Client, host: &str, chromium: &Path, node_modules: &Path) -> Command {
    let mut command = node("browser_session.mjs", client, host);
    command.arg(chromium).arg(node_modules);
    command
}

fn node(name: &str, client: &Client, host: &str) -> Command {
    let api = format!("http://127.0.0.1:{}", client.api_port);
    let mut command = Command::new("node");
    command.arg(script(name)).args([host, WRITE_KEY, &api, API_KEY]);
    command
}

fn assert_visited(visit: &Value) {
    assert_eq!(visit["sent"].as_array().unwrap().len(), EVENTS, "{visit}");
    for feed in ["event_source", "web_socket"] {
        let window = &visit["live"][feed];
        assert_eq!((&window["metric"], &window["grain"]), (&json!("page_views"), &json!("minute")), "{visit}");
        assert_eq!(window["dimensions"], json!({ "campaign": "spring", "path": "/pricing" }), "{visit}");
    }
    assert_eq!((&visit["foreign"], &visit["errors"]), (&json!([]), &json!([])), "{visit}");
}

//! A stack that is put back from its backup in another place has everything, counts on, and takes retries for what they are.

use serde_json::{Value, json};

use crate::client::LIMIT;
use crate::real_stack::scratch::ScratchFolder;
use crate::real_stack::wait_until;
use crate::stack::{Backbone, Role, Stack};

pub fn run() {
    let mut stack = Stack::start(Backbone::Embedded);
    let client = stack.client();
    let (from, to) = ("2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z");
    let pages = |numbers: std::ops::Range<usize>| -> Vec<Value> {
        let page = |number| {
            json!({ "type": "page", "userId": format!("u-{number}"), "name": "Home", "messageId": format!("p-{number}"),
                    "timestamp": "2026-05-01T12:00:00Z" })
        };
        numbers.map(page).collect()
    };
    client.accept("/v1/batch", &pages(0..200));
    client.wait_for_events(200);
    client.wait_for_total("page_views", from, to, 200.0);
    let definition = json!({ "source": "behavior", "aggregation": "count", "event": "page" });
    assert!(client.api("PUT", "/v1/metrics/definitions/mine", Some(&definition)).status < 300);
    let (_, made) = stack.try_command(&["keys", "create", "--label", "kept", "--scopes", "admin"]);
    assert!(made);

    let scratch = ScratchFolder::create("backup").unwrap();
    let file = scratch.path().join("neonhub.tar.zst").display().to_string();
    let (refused, success) = stack.try_command(&["backup", &file]);
    assert!(!success && refused.contains("in use"), "{refused}");
    // What was accepted at the very end is in it, too, wherever it is on its way.
    client.accept("/v1/batch", &pages(200..300));
    stack.terminate(Role::Up).unwrap();
    let (text, success) = stack.try_command(&["backup", &file]);
    assert!(success, "{text}");

    stack.set("NEONHUB_DATA_DIR", &scratch.path().join("another").display().to_string());
    let (text, success) = stack.try_command(&["restore", &file]);
    assert!(success, "{text}");
    stack.spawn(Role::Up);
    stack.wait_until_ready();
    client.accept("/v1/batch", &pages(250..350));
    client.wait_for_events(350);
    client.wait_for_total("page_views", from, to, 350.0);
    stack.assert_audit_clean();
    assert_eq!(client.api("GET", "/v1/metrics/definitions/mine", None).status, 200);
    let keys = client.api("GET", "/v1/keys", None).json();
    assert_eq!(keys["keys"][0]["label"], "kept");
    wait_until("the audit log is there", LIMIT, || {
        Ok(client.api("GET", "/v1/audit", None).json()["entries"].as_array().is_some_and(|entries| entries.len() == 2))
    })
    .unwrap();
}

//! Both services do what their OpenAPI documents say: Schemathesis sends what the documents allow, and what they do not.
//! No answer is a server's error, has a status that is not declared, or a body that is not as declared.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::client::{Client, basic};
use crate::real_stack::cache_folder;
use crate::stack::{API_KEY, Backbone, Stack, WRITE_KEY};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";
/// Of each operation and phase.
const EXAMPLES: &str = "40";

pub fn run() {
    let stack = Stack::start(Backbone::Embedded);
    let client = stack.client();
    // Something to find.
    let events = [
        json!({ "type": "track", "event": "Order Completed", "userId": "u", "properties": { "revenue": 5 } }),
        json!({ "type": "page", "userId": "u", "name": "Pricing" }),
    ];
    client.accept("/v1/batch", &events);
    client.wait_for_events(events.len());
    let ingest = format!("http://127.0.0.1:{}", client.ingest_port);
    let api = format!("http://127.0.0.1:{}", client.api_port);
    check(&ingest, &format!("Authorization: {}", basic(WRITE_KEY)), &[]);
    // A live stream has no end to wait for.
    check(&api, &format!("Authorization: Bearer {API_KEY}"), &["--exclude-path", "/v1/live/metrics"]);
    assert!(Client::answers(&format!("{ingest}/health/ready")) && Client::answers(&format!("{api}/health/ready")));
    let log = std::fs::read_to_string(stack.log()).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

fn check(service: &str, authorization: &str, more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(schemathesis())
        .current_dir(folder.path())
        .args(["run", &format!("{service}/openapi.json"), "--checks", CHECKS, "--header", authorization])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", "1", "--workers", "1"])
        .args(["--generation-database", "none", "--no-color", "--request-timeout", "20", "--warnings", "off"])
        .args(["--suppress-health-check", "all"])
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{service}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
}

fn schemathesis() -> PathBuf {
    let program = cache_folder().unwrap().join("test-clients-python/bin/schemathesis");
    assert!(Path::new(&program).is_file(), "{} is not there: run deploy/fetch-test-clients.sh", program.display());
    program
}

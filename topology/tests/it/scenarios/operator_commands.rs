//! What operators type: `status` and `doctor` tell what is there and what is not, `keys` makes keys that open.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::LIMIT;
use crate::real_stack::scratch::ScratchFolder;
use crate::real_stack::wait_until;
use crate::stack::{Backbone, Options, Role, Stack};

pub fn run(backbone: Backbone) {
    let folder = ScratchFolder::create("settings").unwrap();
    let config = folder.path().join("neonhub.toml");
    std::fs::write(&config, "log = \"info\"\n").unwrap();
    let settings = vec![
        ("NEONHUB_KEY_SECRET", "key-secret-of-the-tests-long-enough".to_owned()),
        ("NEONHUB_CONFIG", config.display().to_string()),
    ];
    let mut stack = Stack::start_with(backbone, Options { settings, ..Options::default() }, None);
    let client = stack.client();

    let (made, success) =
        stack.try_command(&["keys", "create", "--label", "web", "--scopes", "ingest:write", "--json"]);
    assert!(success, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    let key = made["secret"].as_str().unwrap();
    let event = json!({ "writeKey": key, "type": "track", "event": "x", "userId": "u", "messageId": "m" }).to_string();
    let post = || client.send(client.ingest_port, "POST", "/v1/track", &[], event.as_bytes()).status;
    wait_until("ingest knows the key", LIMIT, || Ok(post() == 200)).unwrap();
    let (listed, _) = stack.try_command(&["keys", "list"]);
    assert!(listed.contains("ingest:write") && !listed.contains(key), "{listed}");
    let (refused, success) = stack.try_command(&["keys", "revoke", "0000000000000000"]);
    assert!(!success && refused.contains("no key of this workspace"), "{refused}");

    client.wait_for_events(1);
    wait_until("the landing shows in the status", LIMIT, || Ok(status(&stack).0["processors"]["refine"].is_object()))
        .unwrap();
    let (shown, success) = status(&stack);
    assert!(success, "{shown}");
    assert_eq!(shown["roles"].as_array().unwrap().len(), 3);
    assert_eq!(shown["processors"]["refine"]["lag_records"], 0.0, "{shown}");
    let (examined, success) = stack.try_command(&["doctor"]);
    assert!(success && examined.contains("✓ migrations"), "{examined}");

    if backbone == Backbone::Kafka {
        assert_topics_are_planned_and_applied(&stack);
    }
    assert_log_can_be_changed(&stack, &config);

    let role = if backbone == Backbone::Embedded { Role::Up } else { Role::Api };
    stack.kill(role);
    let (shown, success) = status(&stack);
    let api = shown["roles"].as_array().unwrap().iter().find(|found| found["role"] == "api").unwrap();
    assert!(!success && api["ready"] == false && api["detail"] == "does not answer", "{shown}");
    let (examined, success) = stack.try_command_with(&["doctor"], &[("NEONHUB_CLICKHOUSE_URL", "http://127.0.0.1:9")]);
    assert!(!success && examined.contains("✗ clickhouse") && examined.contains("→ look whether"), "{examined}");
}

/// Another retention is told of, and changed when that is asked for; a topic's other settings stay.
fn assert_topics_are_planned_and_applied(stack: &Stack) {
    use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
    let topic = format!("{}raw.behavior", stack.setting("NEONHUB_TOPIC_PREFIX"));
    let admin: AdminClient<_> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", stack.setting("NEONHUB_KAFKA_BROKERS")).create().unwrap();
    let by_hand = AlterConfig::new(ResourceSpecifier::Topic(&topic))
        .set("retention.ms", "86400000")
        .set("max.message.bytes", "2000000");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.alter_configs(&[by_hand], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
    let topics = |arguments: &[&str]| {
        let (text, success) = stack.try_command(&[&["topics"], arguments].concat());
        assert!(success, "{text}");
        text.lines().find(|line| line.contains("raw.behavior ")).unwrap().to_owned()
    };
    wait_until("the change is seen", LIMIT, || Ok(topics(&["--check"]).contains("retention.ms is 86400000"))).unwrap();
    let changed = topics(&["--apply"]);
    assert!(changed.contains("changed: ") && changed.contains("not 604800000"), "{changed}");
    wait_until("the retention is back", LIMIT, || Ok(topics(&["--check"]).trim_end().ends_with("present"))).unwrap();
    let (text, success) = stack.try_command_with(&["topics", "--check"], &[("NEONHUB_REPLICATION", "3")]);
    assert!(success && text.contains("its replication factor is 1, not 3"), "{text}");
    let resource = [ResourceSpecifier::Topic(&topic)];
    let described = runtime.block_on(admin.describe_configs(&resource, &AdminOptions::new())).unwrap();
    let entries = &described[0].as_ref().unwrap().entries;
    let kept = entries.iter().find(|entry| entry.name == "max.message.bytes").unwrap();
    assert_eq!(kept.value.as_deref(), Some("2000000"));
}

/// What is logged, by module, while a process runs.
fn assert_log_can_be_changed(stack: &Stack, config: &Path) {
    assert_eq!(stack.log_lines_with(&["DEBUG"]), 0, "nobody asked for details");
    std::fs::write(config, "log = \"debug\"\n").unwrap();
    let argument = if stack.backbone == Backbone::Embedded { "up" } else { "api" };
    for process in stack.processes_with(argument) {
        let sent = Command::new("kill").args(["-HUP", &process.to_string()]).status().unwrap();
        assert!(sent.success());
    }
    let client = stack.client();
    let are_details_logged = || {
        // Something has to happen; readiness asks ClickHouse.
        client.send(client.api_port, "GET", "/health/ready", &[], b"");
        Ok(stack.log_lines_with(&["DEBUG"]) > 0)
    };
    wait_until("details are logged", LIMIT, are_details_logged).unwrap();
    assert!(stack.log_lines_with(&["what is logged was changed"]) > 0);
    std::fs::write(config, "log = \"info\"\n").unwrap();
}

fn status(stack: &Stack) -> (Value, bool) {
    let (text, success) = stack.try_command(&["status", "--json"]);
    (serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")), success)
}

//! `neonhub up` speaks TLS to Node's clients, over HTTP/1.1 and HTTP/2, with a certificate that is changed under way; and plain
//! HTTP to nobody.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Client, LIMIT, basic};
use crate::real_stack::scratch::ScratchFolder;
use crate::real_stack::wait_until;
use crate::stack::{API_KEY, Backbone, Role, Stack, WRITE_KEY};

pub fn run() {
    let mut stack = Stack::start(Backbone::Embedded);
    let client = stack.client();
    let folder = ScratchFolder::create("tls").unwrap();
    let (first, second) = (Pair::issue(folder.path(), "first"), Pair::issue(folder.path(), "second"));
    let used = Pair::named(folder.path(), "used");
    used.become_like(&first);
    stack.kill(Role::Up);
    stack.set("NEONHUB_TLS_CERTIFICATE_FILE", used.certificate.to_str().unwrap());
    stack.set("NEONHUB_TLS_KEY_FILE", used.key.to_str().unwrap());
    stack.spawn(Role::Up);
    for port in [client.ingest_port, client.api_port] {
        let is_ready = || Ok(first.get(port, "/health/ready").is_some_and(|(status, _)| status == 200));
        wait_until("ready over TLS", LIMIT, is_ready).unwrap();
    }

    let event = json!({"userId": "u-1", "event": "Order Completed", "messageId": "over-tls"}).to_string();
    let headers = json!({"authorization": basic(WRITE_KEY), "content-type": "application/json"});
    let wish = json!({"version": "2", "port": client.ingest_port, "method": "POST", "path": "/v1/track",
        "headers": headers, "body": event});
    let (status, answer) = first.ask(&wish).unwrap();
    assert_eq!(status, 200, "{answer}");
    client.wait_for_events(1);
    let wish = json!({"version": "1.1", "port": client.api_port, "method": "GET", "path": "/v1/metrics",
        "headers": {"authorization": format!("Bearer {API_KEY}")}, "body": ""});
    let (status, answer) = first.ask(&wish).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(serde_json::from_str::<Value>(&answer).unwrap()["metrics"].is_array());
    assert!(!Client::answers(&format!("http://127.0.0.1:{}/health/live", client.ingest_port)));

    used.become_like(&second);
    wait_until("the new certificate is shown", LIMIT, || {
        let ports = [client.ingest_port, client.api_port];
        Ok(ports.iter().all(|port| second.get(*port, "/health/live").is_some()))
    })
    .unwrap();
    assert!(first.get(client.ingest_port, "/health/live").is_none(), "the former one is not trusted any more");

    commands_speak_tls_too(&mut stack, folder.path(), &first);
    stack.terminate(Role::Up).unwrap();
    std::fs::remove_file(&used.key).unwrap();
    let (text, success) = stack.try_command(&["up"]);
    assert!(!success && text.contains("NEONHUB_TLS_KEY_FILE"), "{text}");
}

/// With the certificate of the settings, whatever name it is for; and with no other.
fn commands_speak_tls_too(stack: &mut Stack, folder: &Path, other: &Pair) {
    let (text, success) = stack.try_command(&["status"]);
    assert!(success && text.contains("https://127.0.0.1"), "{text}");
    let (text, success) = stack.try_command(&["keys", "list", "--json"]);
    assert!(success && text.contains("\"keys\""), "{text}");
    let events = folder.join("events.jsonl");
    std::fs::write(&events, json!({"type": "track", "userId": "u-2", "event": "Signed Up"}).to_string()).unwrap();
    let (text, success) = stack.try_command(&["replay", events.to_str().unwrap()]);
    assert!(success, "{text}");
    stack.client().wait_for_events(2);
    let of_another = ("NEONHUB_TLS_CERTIFICATE_FILE", other.certificate.to_str().unwrap());
    let (text, success) = stack.try_command_with(&["keys", "list"], &[of_another]);
    assert!(!success && text.contains("certificate"), "{text}");
}

struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn named(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key.pem")) }
    }

    fn issue(folder: &Path, name: &str) -> Self {
        let pair = Self::named(folder, name);
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&pair.certificate, issued.cert.pem()).unwrap();
        std::fs::write(&pair.key, issued.signing_key.serialize_pem()).unwrap();
        pair
    }

    fn become_like(&self, other: &Self) {
        std::fs::copy(&other.certificate, &self.certificate).unwrap();
        std::fs::copy(&other.key, &self.key).unwrap();
    }

    fn get(&self, port: u16, path: &str) -> Option<(u64, String)> {
        let wish = json!({"version": "2", "port": port, "method": "GET", "path": path, "headers": {}, "body": ""});
        self.ask(&wish)
    }

    /// Status and body for a client that trusts this certificate alone; `None`: it does not get through.
    fn ask(&self, wish: &Value) -> Option<(u64, String)> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/over_tls.mjs");
        let output = Command::new("node").arg(script).arg(&self.certificate).arg(wish.to_string()).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some((answer["status"].as_u64()?, answer["body"].as_str()?.to_owned()))
    }
}

//! Keys that people make: one sends events and nothing else; revoked, it opens nothing in any role; the audit log tells of
//! it; all of that outlives a kill; and no secret is in a log, at whatever level.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Answer, Client, LIMIT, basic};
use crate::real_stack::wait_until;
use crate::stack::{API_KEY, Backbone, CLICKHOUSE_PASSWORD, Options, Role, Stack, WRITE_KEY};

const KEY_SECRET: &str = "key-secret-of-the-tests-long-enough";
const WEBHOOK_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
/// Signed by nobody who is known.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.bm90LXNpZ25lZC1ieS1hbnlib2R5";
/// How soon every role knows of a change.
const PROMISED: Duration = Duration::from_secs(2);

pub fn run(backbone: Backbone) {
    let settings = vec![
        ("NEONHUB_KEY_SECRET", KEY_SECRET.to_owned()),
        ("NEONHUB_BOOTSTRAP_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
        ("NEONHUB_LOG", "debug".to_owned()),
    ];
    let mut stack = Stack::start_with(backbone, Options { settings, ..Options::default() }, None);
    let client = stack.client();

    let (write_id, write_key) = make(&client, &json!({"label": "shop-web", "scopes": ["ingest:write"]}));
    let (_, read_key) = make(&client, &json!({"label": "dashboards", "scopes": ["metrics:read"]}));
    let heard = wait_until("ingest knows the key", LIMIT, || Ok(post(&client, &write_key, 0).status == 200)).unwrap();
    assert!(heard <= PROMISED, "ingest knew the key after {heard:?}");
    for number in 1..20 {
        assert_eq!(post(&client, &write_key, number).status, 200);
    }
    client.wait_for_events(20);
    // A write key can do nothing but write, and a reading key not even that.
    assert_eq!(get(&client, &write_key, "/v1/metrics").status, 403);
    assert_eq!(post(&client, &read_key, 20).status, 401);
    assert_eq!(get(&client, &read_key, "/v1/metrics").status, 200);
    assert_eq!(get(&client, &read_key, "/v1/keys").status, 403);
    let (_, signing_key) =
        make(&client, &json!({"label": "shop", "purpose": "token_signing", "scopes": ["metrics:read"]}));
    assert_eq!(get(&client, TOKEN, "/v1/metrics").status, 401);
    let unsigned = [("webhook-id", "m-1"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,AAAA")];
    let webhook = client.send(client.ingest_port, "POST", "/v1/integrations/stripe/webhook", &unsigned, b"{}");
    assert_eq!(webhook.status, 401, "{}", webhook.body);

    restart(&mut stack);
    assert_eq!(post(&client, &write_key, 20).status, 200, "a key outlives a kill");
    assert_eq!(get(&client, &read_key, "/v1/metrics").status, 200);

    let answer = client.api("DELETE", &format!("/v1/keys/{write_id}"), None);
    assert_eq!(answer.status, 204, "{}", answer.body);
    // What is posted meanwhile counts if it is accepted.
    let mut accepted = 21;
    let heard = wait_until("ingest knows that the key is revoked", LIMIT, || {
        let is_refused = post(&client, &write_key, accepted).status == 401;
        accepted += usize::from(!is_refused);
        Ok(is_refused)
    });
    let heard = heard.unwrap();
    assert!(heard <= PROMISED, "ingest knew after {heard:?} that the key was revoked");
    restart(&mut stack);
    assert_eq!(post(&client, &write_key, accepted).status, 401, "a revocation outlives a kill");
    client.wait_for_events(accepted);

    assert_audited(&client, &write_id);
    let log = std::fs::read_to_string(stack.log()).unwrap();
    assert!(log.contains("DEBUG"), "the processes were to say everything");
    let (of_writer, of_shop) = (basic(WRITE_KEY), basic(&write_key));
    let secrets = [
        WRITE_KEY,
        API_KEY,
        KEY_SECRET,
        CLICKHOUSE_PASSWORD,
        WEBHOOK_SECRET,
        &signing_key,
        TOKEN,
        &write_key,
        &read_key,
        &of_writer,
        &of_shop,
    ];
    for secret in secrets {
        assert!(!log.contains(secret), "`{secret}` is in a log");
    }
    for path in ["/metrics", "/health/ready"] {
        for port in [client.ingest_port, client.api_port] {
            let shown = client.send(port, "GET", path, &[], b"").body;
            assert!(secrets.iter().all(|secret| !shown.contains(secret)), "a secret is in {path}");
        }
    }
}

/// Its id and the key itself.
fn make(client: &Client, wish: &Value) -> (String, String) {
    let answer = client.api("POST", "/v1/keys", Some(wish));
    assert_eq!(answer.status, 201, "{}", answer.body);
    let made = answer.json();
    (made["key"]["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

fn post(client: &Client, key: &str, number: usize) -> Answer {
    let event = json!({
        "type": "track", "event": "Order Completed", "messageId": format!("key-{number}"), "userId": "u-1",
        "timestamp": "2026-05-01T12:00:00Z",
    });
    let headers = [("authorization", basic(key)), ("content-type", "application/json".to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    client.send(client.ingest_port, "POST", "/v1/track", &headers, event.to_string().as_bytes())
}

fn get(client: &Client, key: &str, path: &str) -> Answer {
    client.send(client.api_port, "GET", path, &[("authorization", &format!("Bearer {key}"))], b"")
}

/// Kills everything that knows keys.
fn restart(stack: &mut Stack) {
    let roles: &[Role] = match stack.backbone {
        Backbone::Embedded => &[Role::Up],
        Backbone::Kafka => &[Role::Ingest, Role::Api],
    };
    for role in roles {
        stack.kill(*role);
        stack.spawn(*role);
    }
    stack.wait_until_ready();
}

fn assert_audited(client: &Client, id: &str) {
    let path = format!("/v1/audit?resource=key/{id}");
    let actions = || -> Vec<String> {
        let page = client.api("GET", &path, None);
        assert_eq!(page.status, 200, "{}", page.body);
        let entries = page.json()["entries"].as_array().cloned().unwrap();
        entries.iter().map(|entry| format!("{} {}", entry["actor"], entry["action"]).replace('"', "")).collect()
    };
    wait_until("the audit log is landed", LIMIT, || Ok(actions().len() == 2)).unwrap();
    assert_eq!(actions(), ["bootstrap key.revoke", "bootstrap key.create"]);
}

//! The audit log: what is written with each change, and how it is read.

use axum::http::Method;
use neonhub_api::olap::{AuditRow, Param};
use neonhub_schemas::audit::AuditRecord;
use neonhub_schemas::topics::Topic;
use serde_json::json;

use crate::rig::Rig;

#[tokio::test]
async fn each_change_says_who_did_what_to_which_resource() {
    let rig = Rig::new();
    let (id, _) = rig.make_key(json!({"label": "web", "scopes": ["ingest:write"]})).await;
    let (admin, key) = rig.make_key(json!({"label": "ops", "scopes": ["admin", "definitions:write"]})).await;
    rig.with_key(&key, Method::DELETE, &format!("/v1/keys/{id}"), None).await;
    let definition = json!({"source": "behavior", "aggregation": "count"});
    rig.with_key(&key, Method::PUT, "/v1/metrics/definitions/orders", Some(definition)).await;
    rig.with_key(&key, Method::DELETE, "/v1/metrics/definitions/orders", None).await;

    let records = rig.control.records();
    let entries: Vec<AuditRecord> = records
        .iter()
        .filter(|record| record.topic == Topic::AuditLog)
        .map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap())
        .collect();
    let told: Vec<(&str, &str, String, u64)> = entries
        .iter()
        .map(|entry| (entry.actor.as_str(), entry.action.as_str(), entry.resource.clone(), entry.revision))
        .collect();
    let by_key = format!("nhk_{admin}");
    assert_eq!(
        told,
        [
            ("bootstrap", "key.create", format!("key/{id}"), 1),
            ("bootstrap", "key.create", format!("key/{admin}"), 1),
            (by_key.as_str(), "key.revoke", format!("key/{id}"), 2),
            (by_key.as_str(), "definition.put", "metric/orders".to_owned(), 1),
            (by_key.as_str(), "definition.delete", "metric/orders".to_owned(), 2),
        ]
    );
    assert_eq!(entries[2].id, format!("acme|key|{id}|2"));
    assert!(entries.iter().all(|entry| entry.workspace == "acme"));
}

#[tokio::test]
async fn pages_are_read_newest_first() {
    let rig = Rig::new();
    let row = |at_ms: i64, id: &str| AuditRow {
        id: id.into(),
        at_ms,
        actor: "bootstrap".into(),
        action: "key.create".into(),
        resource: "key/ab".into(),
        revision: 1,
        state: r#"{"label":"x"}"#.into(),
    };
    rig.olap.answers().audit = vec![row(2_000, "b.c"), row(1_000, "a")];
    let page = rig.get("/v1/audit?limit=1&resource=key/ab&from=1970-01-01T00:00:00Z").await;
    assert_eq!(page.status.as_u16(), 200, "{}", page.text);
    assert_eq!(page.json["entries"].as_array().unwrap().len(), 1);
    assert_eq!(page.json["entries"][0]["state"]["label"], "x");
    assert_eq!(page.json["entries"][0]["at"], "1970-01-01T00:00:02.000Z");
    assert_eq!(page.json["next_cursor"], "2000.b.c");
    let cursor = page.json["next_cursor"].as_str().unwrap().to_owned();
    rig.get(&format!("/v1/audit?limit=1&cursor={cursor}")).await;
    let asked = rig.olap.answers().asked.clone();
    assert!(asked[0].params.iter().any(|(_, value)| *value == Param::Text("key/ab".into())));
    assert!(!asked[0].sql.contains("key/ab"), "outside values are bound: {}", asked[0].sql);
    assert!(asked[1].params.iter().any(|(_, value)| *value == Param::Text("b.c".into())));
    for (query, field) in [("limit=0", "limit"), ("limit=9999", "limit"), ("from=x", "from"), ("cursor=x", "cursor")] {
        assert_eq!(rig.get(&format!("/v1/audit?{query}")).await.problem(400).as_deref(), Some(field));
    }
}

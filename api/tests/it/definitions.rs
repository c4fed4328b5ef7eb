//! `/v1/metrics/definitions/{name}` and the catalogue.

use axum::http::Method;
use neonhub_api::olap::ActivationRow;
use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::topics::Topic;
use serde_json::{Value, json};

use crate::rig::Rig;

fn orders() -> Value {
    json!({"source": "behavior", "event": "Order Completed", "value": "properties.revenue", "aggregation": "sum",
           "dimensions": ["properties.country"]})
}

fn published(rig: &Rig) -> Vec<(String, u64, bool)> {
    let read = |record: neonhub_schemas::NewRecord| {
        let parsed: DefinitionRecord = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        assert_eq!(record.key, parsed.key().as_bytes());
        (parsed.name, parsed.revision, parsed.definition.is_some())
    };
    let of_control = rig.control.records().into_iter().filter(|record| record.topic == Topic::Control);
    of_control.map(read).collect()
}

#[tokio::test]
async fn a_definition_goes_to_the_store_and_to_control() {
    let rig = Rig::new();
    let created = rig.put("orders", orders()).await;
    assert_eq!((created.status.as_u16(), &created.json["revision"]), (201, &json!(1)));
    assert_eq!(created.headers["etag"], "\"1\"");
    let again = rig.put("orders", orders()).await;
    assert_eq!((again.status.as_u16(), &again.json["revision"]), (200, &json!(1)));
    let mut changed = orders();
    changed["aggregation"] = json!("avg");
    assert_eq!(rig.put("orders", changed).await.json["revision"], 2);
    let row = ActivationRow { source: "behavior".into(), partition: 1, from_offset: 7, until_offset: None };
    rig.olap.answers().activations = vec![row];
    let read = rig.get("/v1/metrics/definitions/orders").await;
    assert_eq!(read.json["activations"][0]["from_offset"], 7);
    assert_eq!(read.json["definition"]["aggregation"], "avg");
    let catalogue = rig.get("/v1/metrics").await.json;
    let entry = catalogue["metrics"].as_array().unwrap().iter().find(|entry| entry["name"] == "orders").unwrap();
    assert_eq!((&entry["dimensions"], &entry["revision"]), (&json!(["country"]), &json!(2)));
    let path = "/v1/metrics/definitions/orders";
    assert_eq!(rig.call(Method::DELETE, path, None).await.status, 204);
    rig.get(path).await.problem(404);
    rig.call(Method::DELETE, path, None).await.problem(404);
    assert_eq!(rig.put("orders", orders()).await.json["revision"], 4);
    let expected = [(1, true), (1, true), (2, true), (3, false), (4, true)];
    assert_eq!(published(&rig), expected.map(|(revision, is_there)| ("orders".to_owned(), revision, is_there)));
}

#[tokio::test]
async fn built_in_definitions_can_be_read() {
    let rig = Rig::new();
    rig.store.set_away(true);
    let ctr = rig.get("/v1/metrics/definitions/ctr").await;
    assert_eq!((ctr.status.as_u16(), &ctr.headers["etag"]), (200, &"\"0\"".parse().unwrap()));
    assert_eq!((&ctr.json["built_in"], &ctr.json["revision"]), (&json!(true), &json!(0)));
    assert!(ctr.json["definition"]["expression"].as_str().unwrap().contains("clicks"), "{}", ctr.text);
    assert!(ctr.json.get("activations").is_none() && ctr.json.get("updated_at").is_none(), "{}", ctr.text);
    rig.store.set_away(false);
    assert_eq!(rig.put("orders", orders()).await.json["built_in"], false);
    assert!(rig.get("/v1/metrics/definitions/orders").await.json["updated_at"].is_string());
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let rig = Rig::new();
    assert_eq!(rig.put("orders", json!({"source": "behavior"})).await.problem(400).as_deref(), Some("aggregation"));
    assert_eq!(rig.put("orders", json!({"color": "red"})).await.problem(400).as_deref(), Some("color"));
    assert_eq!(rig.put("Orders", orders()).await.problem(400).as_deref(), Some("name"));
    rig.put("clicks", orders()).await.problem(409);
    rig.call(Method::DELETE, "/v1/metrics/definitions/ctr", None).await.problem(409);
    let unknown = rig.put("ratio", json!({"expression": "clicks / nothing"})).await;
    assert_eq!(unknown.problem(400).as_deref(), Some("expression"));
    assert!(rig.control.records().is_empty());
}

#[tokio::test]
async fn derived_metrics_protect_what_they_need() {
    let rig = Rig::new();
    rig.put("orders", orders()).await;
    assert_eq!(rig.put("per_click", json!({"expression": "orders / clicks"})).await.status, 201);
    let refused = rig.call(Method::DELETE, "/v1/metrics/definitions/orders", None).await;
    refused.problem(409);
    assert!(refused.text.contains("per_click"));
    let circle = rig.put("orders", json!({"expression": "per_click + 1"})).await;
    assert_eq!(circle.problem(400).as_deref(), Some("expression"));
}

#[tokio::test]
async fn writers_can_say_what_they_expect() {
    let rig = Rig::new();
    let path = "/v1/metrics/definitions/orders";
    let put =
        |headers: &'static [(&'static str, &'static str)]| rig.call_with(Method::PUT, path, Some(orders()), headers);
    put(&[("if-match", "\"1\"")]).await.problem(412);
    assert_eq!(put(&[("if-none-match", "*")]).await.status, 201);
    put(&[("if-none-match", "*")]).await.problem(412);
    put(&[("if-match", "\"7\"")]).await.problem(412);
    assert_eq!(put(&[("if-match", "\"1\"")]).await.status, 200);
    rig.call_with(Method::DELETE, path, None, &[("if-match", "\"9\"")]).await.problem(412);
}

#[tokio::test]
async fn a_crash_between_store_and_control_heals() {
    let rig = Rig::new();
    rig.control.set_away(true);
    let half = rig.put("orders", orders()).await;
    half.problem(503);
    assert!(half.headers.contains_key("retry-after"));
    rig.control.set_away(false);
    assert!(published(&rig).is_empty());
    assert_eq!(rig.state.definitions().reconcile().await.unwrap(), 1);
    assert_eq!(published(&rig), [("orders".to_owned(), 1, true)]);
    assert_eq!(rig.state.definitions().reconcile().await.unwrap(), 0);
    // The client's own retry heals it too.
    rig.control.set_away(true);
    rig.put("more_orders", orders()).await.problem(503);
    rig.control.set_away(false);
    assert_eq!(rig.put("more_orders", orders()).await.status, 200);
    assert_eq!(published(&rig).last().unwrap().0, "more_orders");
    rig.store.set_away(true);
    rig.put("orders", orders()).await.problem(503);
}

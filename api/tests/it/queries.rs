//! `POST /v1/metrics/query` and `POST /v1/events/query`.

use std::sync::atomic::Ordering;

use axum::http::Method;
use neonhub_api::olap::{ClosedRow, EventRow, WindowRow};
use serde_json::{Value, json};

use crate::rig::Rig;

fn query() -> Value {
    json!({"metrics": ["revenue", "roas"], "grain": "hour", "from": "2019-11-24T00:00:00Z", "to": "2019-11-24T02:00:00Z",
           "timezone": "Asia/Kathmandu", "group_by": ["campaign"],
           "filters": [{"dimension": "policy", "op": "in", "values": ["bts"]}]})
}

#[tokio::test]
async fn rows_come_with_exact_decimals() {
    let rig = Rig::new();
    let row = WindowRow {
        metric_name: "revenue".into(),
        bucket: 1_574_553_600,
        group_values: vec!["men".into()],
        total_count: 2,
        total_sum: "12345678901234567890.123456".into(),
        least: "1".into(),
        greatest: "2".into(),
        ..WindowRow::default()
    };
    rig.olap.answers().windows.push_back(vec![row]);
    let answer = rig.call(Method::POST, "/v1/metrics/query", Some(query())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(
        answer.text.contains(r#""campaign":"men","revenue":12345678901234567890.123456,"roas":null"#),
        "{}",
        answer.text
    );
    assert!(answer.text.contains(r#""window_start":"2019-11-24T05:00:00+05:45""#), "{}", answer.text);
    assert_eq!(answer.json["meta"]["stored_grain"], "quarter");
}

#[tokio::test]
async fn an_answer_is_kept_for_a_moment_and_says_so() {
    let rig = Rig::with_cache();
    let ask = async |query: Value, headers: &[(&str, &str)]| {
        rig.olap.answers().asked.clear();
        let answer = rig.call_with(Method::POST, "/v1/metrics/query", Some(query), headers).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        let age = answer.headers.get("age").map(|age| age.to_str().unwrap().to_owned());
        (answer.text, age, rig.olap.answers().asked.len())
    };
    let (first, age, asked) = ask(query(), &[]).await;
    assert_eq!((age, asked > 0), (None, true));
    rig.elapsed.store(999, Ordering::SeqCst);
    assert_eq!(ask(query(), &[]).await, (first.clone(), Some("0".to_owned()), 0));
    // Seconds are widened to minutes, so this is the same question.
    let mut same = query();
    same["from"] = json!("2019-11-24T00:00:30Z");
    assert_eq!(ask(same, &[]).await.2, 0);
    let mut other = query();
    other["filters"][0]["values"] = json!(["random"]);
    assert!(ask(other, &[]).await.2 > 0);
    for wish in ["no-cache", "max-age=0, No-Cache"] {
        let (_, age, asked) = ask(query(), &[("cache-control", wish)]).await;
        assert_eq!((age, asked > 0), (None, true), "{wish}");
    }
    rig.elapsed.store(2_000, Ordering::SeqCst);
    assert!(ask(query(), &[]).await.2 > 0);
}

#[tokio::test]
async fn what_is_closed_is_kept_for_longer() {
    let rig = Rig::with_cache();
    let mut query = query();
    query["metrics"] = json!(["clicks"]);
    let asked_after_a_second = async |closed_until: i64| {
        rig.olap.answers().closed = vec![ClosedRow { metric_name: "clicks".into(), closed_until }];
        rig.call_with(Method::POST, "/v1/metrics/query", Some(query.clone()), &[("cache-control", "no-cache")]).await;
        rig.olap.answers().asked.clear();
        rig.elapsed.fetch_add(1_000, Ordering::SeqCst);
        let answer = rig.call(Method::POST, "/v1/metrics/query", Some(query.clone())).await;
        assert_eq!(answer.status.as_u16(), 200);
        rig.olap.answers().asked.len()
    };
    let end = 1_574_560_800;
    assert!(asked_after_a_second(end - 1).await > 0);
    assert_eq!(asked_after_a_second(end).await, 0);
}

/// The revision of a definition is part of the question: what it counted before is not told after.
#[tokio::test]
async fn a_definition_that_changed_is_another_question() {
    let rig = Rig::with_cache();
    let definition = |event: &str| json!({"source": "behavior", "aggregation": "count", "event": event});
    assert!(rig.put("orders", definition("Order Completed")).await.status.is_success());
    let ask = async || {
        rig.olap.answers().asked.clear();
        let mut query = query();
        query["metrics"] = json!(["orders"]);
        query["group_by"] = json!([]);
        query["filters"] = json!([]);
        let answer = rig.call(Method::POST, "/v1/metrics/query", Some(query)).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        rig.olap.answers().asked.len()
    };
    assert!(ask().await > 0);
    assert_eq!(ask().await, 0);
    assert!(rig.put("orders", definition("Checkout Started")).await.status.is_success());
    assert!(ask().await > 0);
}

#[tokio::test]
async fn what_other_metrics_closed_makes_rows_final() {
    let rig = Rig::new();
    let first_half = WindowRow {
        metric_name: "clicks".into(),
        bucket: 1_574_553_600,
        total_count: 2,
        total_sum: "0".into(),
        all_final: 1,
        final_until: 1_574_554_500,
        ..WindowRow::default()
    };
    let finals = async |grain: &str, closed_until: i64| {
        rig.olap.answers().windows.push_back(vec![WindowRow {
            bucket: if grain == "total" { 0 } else { first_half.bucket },
            ..first_half.clone()
        }]);
        rig.olap.answers().closed = vec![ClosedRow { metric_name: "spend".into(), closed_until }];
        let mut query = query();
        query["metrics"] = json!(["clicks"]);
        query["grain"] = json!(grain);
        query["fill"] = json!(true);
        query["group_by"] = json!([]);
        let answer = rig.call(Method::POST, "/v1/metrics/query", Some(query)).await;
        let rows = answer.json["rows"].as_array().unwrap().clone();
        rows.iter().map(|row| row["final"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    // Kathmandu's hours begin at a quarter: 23:15, 00:15, 01:15; the range cuts the first and the last.
    assert_eq!(finals("hour", 0).await, [true, false, false]);
    assert_eq!(finals("hour", 1_574_558_100).await, [true, true, false]);
    assert_eq!(finals("hour", 1_574_560_800).await, [true, true, true]);
    assert_eq!(finals("total", 1_574_560_799).await, [false]);
    assert_eq!(finals("total", 1_574_560_800).await, [true]);
    let asked = &rig.olap.answers().asked;
    assert!(asked[0].sql.contains("AS closed_until") && !asked[0].sql.contains("w.dimensions"), "{}", asked[0].sql);
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_named() {
    let rig = Rig::new();
    let mut wrong = query();
    wrong["group_by"] = json!(["planet"]);
    let answer = rig.call(Method::POST, "/v1/metrics/query", Some(wrong)).await;
    assert_eq!(answer.problem(400).as_deref(), Some("group_by[0]"));
    let mut huge = query();
    huge["grain"] = json!("minute");
    huge["from"] = json!("2000-01-01T00:00:00Z");
    rig.call(Method::POST, "/v1/metrics/query", Some(huge)).await.problem(422);
    assert!(rig.olap.answers().asked.is_empty());
}

#[tokio::test]
async fn events_come_in_pages() {
    let rig = Rig::new();
    let row = |id: &str, offset| EventRow {
        id: id.into(),
        place_offset: offset,
        timestamp_ms: 1_574_553_600_000,
        texts: vec![id.to_owned()],
        ..EventRow::default()
    };
    rig.olap.answers().events.push_back(vec![row("b", 1), row("a", 0)]);
    let body = json!({"columns": ["message_id", "timestamp"], "limit": 1});
    let first = rig.call(Method::POST, "/v1/events/query", Some(body.clone())).await;
    let expected = json!([{"message_id": "b", "timestamp": "2019-11-24T00:00:00.000Z"}]);
    assert_eq!(first.json["events"], expected);
    let link = first.headers["link"].to_str().unwrap().to_owned();
    assert!(link.ends_with("; rel=\"next\""));
    let next = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    rig.olap.answers().events.push_back(vec![row("a", 0)]);
    let second = rig.call(Method::POST, &next, Some(body)).await;
    assert_eq!(second.json, json!({"events": [{"message_id": "a", "timestamp": "2019-11-24T00:00:00.000Z"}]}));
    assert!(rig.olap.answers().asked[1].sql.contains("e.message_id, toInt8(e.source)"));
    let wrong = json!({"filters": [{"field": "planet", "op": "eq", "value": 1}]});
    let answer = rig.call(Method::POST, "/v1/events/query", Some(wrong)).await;
    assert_eq!(answer.problem(400).as_deref(), Some("filters[0].field"));
}

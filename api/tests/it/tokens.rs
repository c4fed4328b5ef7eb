//! Row-scoped tokens, and attempts to break out of them.

use axum::http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use neonhub_api::olap::Param;
use serde_json::{Value, json};

use crate::rig::{Answer, Rig};

/// Long after the rig's clock.
const LATER_S: i64 = 4_000_000_000;

struct Signer {
    id: String,
    secret: String,
}

impl Signer {
    async fn new(rig: &Rig) -> Self {
        let body = json!({"label": "customers", "purpose": "token_signing", "scopes": ["metrics:read"]});
        let (id, secret) = rig.make_key(body).await;
        Self { id, secret }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::HS256) };
        encode(&header, claims, &EncodingKey::from_secret(self.secret.as_bytes())).unwrap()
    }
}

fn of_men() -> Value {
    json!({"exp": LATER_S, "sub": "customer-17", "filters": {"campaign": "men"}, "metrics": ["clicks", "ctr"]})
}

fn changed(changes: Value) -> Value {
    let mut claims = of_men();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

async fn query(rig: &Rig, token: &str, changes: Value) -> Answer {
    let mut body = json!({
        "metrics": ["clicks"], "grain": "day", "from": "2019-11-24T00:00:00Z", "to": "2019-11-25T00:00:00Z"
    });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    rig.with_key(token, Method::POST, "/v1/metrics/query", Some(body)).await
}

#[tokio::test]
async fn every_statement_is_held_to_the_tokens_rows() {
    let rig = Rig::new();
    let token = Signer::new(&rig).await.sign(&of_men());
    let attempts = [
        json!({}),
        json!({"group_by": ["campaign"]}),
        json!({"metrics": ["ctr"], "compare": "previous_period", "fill": true}),
        json!({"filters": [{"dimension": "campaign", "op": "eq", "value": "women"}]}),
        json!({"filters": [{"dimension": "campaign", "op": "ne", "value": "men' OR 1=1 --"}]}),
        json!({"filters": [{"dimension": "campaign", "op": "not_in", "values": ["') OR ('1'='1"]}]}),
    ];
    for attempt in attempts {
        rig.olap.answers().asked.clear();
        let answer = query(&rig, &token, attempt.clone()).await;
        assert_eq!(answer.status.as_u16(), 200, "{attempt}: {}", answer.text);
        let asked = rig.olap.answers().asked.clone();
        // How far time is closed is asked, too: it tells of times alone.
        let of_rows: Vec<_> = asked.iter().filter(|statement| !statement.sql.contains("closed_until")).collect();
        assert!(!of_rows.is_empty());
        for statement in of_rows {
            let is_held = statement.params.iter().any(|(_, value)| *value == Param::Texts(vec!["men".into()]));
            assert!(is_held, "{attempt}: {statement:?}");
            assert!(!statement.sql.contains("1=1") && !statement.sql.contains("OR ('1'"), "{}", statement.sql);
        }
    }
}

/// Answers that are kept are told apart by the rows that may be seen.
#[tokio::test]
async fn nobody_is_given_the_answer_of_a_wider_grant() {
    let rig = Rig::with_cache();
    let signer = Signer::new(&rig).await;
    let of_women = signer.sign(&changed(json!({"filters": {"campaign": "women"}})));
    let tokens = ["secret", &signer.sign(&of_men()), &of_women];
    for token in tokens {
        rig.olap.answers().asked.clear();
        let answer = query(&rig, token, json!({})).await;
        assert_eq!((answer.status.as_u16(), answer.headers.get("age")), (200, None), "{}", answer.text);
        assert!(!rig.olap.answers().asked.is_empty());
    }
    rig.olap.answers().asked.clear();
    // Another customer who may see the same is.
    let same = signer.sign(&changed(json!({"sub": "customer-18", "metrics": ["clicks"]})));
    assert!(query(&rig, &same, json!({})).await.headers.contains_key("age"));
    assert!(rig.olap.answers().asked.is_empty());
}

#[tokio::test]
async fn a_token_shows_its_metrics_and_nothing_else() {
    let rig = Rig::new();
    let token = Signer::new(&rig).await.sign(&of_men());
    query(&rig, &token, json!({"metrics": ["impressions"]})).await.problem(403);
    query(&rig, &token, json!({"metrics": ["clicks", "spend"]})).await.problem(403);
    let catalogue = rig.with_key(&token, Method::GET, "/v1/metrics", None).await.json;
    let names: Vec<&str> =
        catalogue["metrics"].as_array().unwrap().iter().map(|metric| metric["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["clicks", "ctr"]);
    let others = [
        (Method::POST, "/v1/events/query", Some(json!({"from": "2019-11-24T00:00:00Z", "to": "2019-11-25T00:00:00Z"}))),
        (Method::GET, "/v1/metrics/definitions/orders", None),
        (Method::PUT, "/v1/metrics/definitions/orders", Some(json!({"source": "behavior", "aggregation": "count"}))),
        (Method::GET, "/v1/keys", None),
        (Method::POST, "/v1/keys", Some(json!({"label": "mine", "scopes": ["admin"]}))),
        (Method::GET, "/v1/audit", None),
    ];
    for (method, path, body) in others {
        rig.with_key(&token, method, path, body).await.problem(403);
    }
    rig.with_key(&token, Method::GET, "/v1/live/metrics?metrics=impressions", None).await.problem(403);
    // Whether there is such a metric, and what dimensions it has, is not told either.
    for metric in ["page_views", "no_such_metric"] {
        let answer = query(&rig, &token, json!({"metrics": [metric], "group_by": ["nope"]})).await;
        assert_eq!(answer.problem(403), None);
        assert_eq!(answer.json["detail"], format!("the token does not show `{metric}`"));
    }
    let of_ctr = changed(json!({"metrics": ["ctr"]}));
    let signer = Signer::new(&rig).await;
    rig.with_key(&signer.sign(&of_ctr), Method::GET, "/v1/live/metrics", None).await.problem(403);
}

#[tokio::test]
async fn what_is_not_signed_or_not_in_force_opens_nothing() {
    let rig = Rig::new();
    let signer = Signer::new(&rig).await;
    let good = signer.sign(&of_men());
    assert_eq!(query(&rig, &good, json!({})).await.status.as_u16(), 200);

    let (bearer_id, bearer) = rig.make_key(json!({"label": "bearer", "scopes": ["metrics:read"]})).await;
    let with_bearer = Signer { id: bearer_id, secret: bearer };
    let guessed = Signer { secret: "guessed".into(), id: signer.id.clone() };
    let unknown = Signer { id: "00000000000000ff".into(), secret: signer.secret.clone() };
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let forged = [
        with_bearer.sign(&of_men()),
        guessed.sign(&of_men()),
        unknown.sign(&of_men()),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{header}.{claims}."),
        format!("{header}.{}.{signature}", claims.replace('e', "f")),
        "..".to_owned(),
        "a.b.c".to_owned(),
        signer.sign(&changed(json!({"exp": 1_500_000_000}))),
        signer.sign(&changed(json!({"nbf": LATER_S}))),
        signer.sign(&changed(json!({"workspace": "other"}))),
        signer.sign(&changed(json!({"filters": {"campaign": []}}))),
        signer.sign(&changed(json!({"filters": {"campaign": {"or": ["men", "women"]}}}))),
        signer.sign(&changed(json!({"filters": [{"campaign": "men"}]}))),
        signer.sign(&changed(json!({"scopes": ["admin"]}))),
        signer.sign(&json!({"filters": {"campaign": "men"}})),
        signer.sign(&json!({"exp": LATER_S})),
        signer.secret.clone(),
    ];
    for token in forged {
        query(&rig, &token, json!({})).await.problem(401);
    }

    rig.call(Method::DELETE, &format!("/v1/keys/{}", signer.id), None).await;
    query(&rig, &good, json!({})).await.problem(401);
}

#[tokio::test]
async fn a_token_has_a_quota_of_its_own() {
    let rig = Rig::new();
    let signer = Signer::new(&rig).await;
    let slow = signer.sign(&changed(json!({"requests_per_minute": 2})));
    let other = signer.sign(&changed(json!({"requests_per_minute": 2, "sub": "customer-18"})));
    for _ in 0..2 {
        assert_eq!(query(&rig, &slow, json!({})).await.status.as_u16(), 200);
    }
    query(&rig, &slow, json!({})).await.problem(429);
    assert_eq!(query(&rig, &other, json!({})).await.status.as_u16(), 200);
}

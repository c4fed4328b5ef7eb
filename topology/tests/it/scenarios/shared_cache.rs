//! Two processes of the query API share answers in a real Redis; without it they answer all the same.

use std::time::Instant;

use serde_json::{Value, json};

use super::clients::fetched_program;
use crate::client::{Answer, Client, LIMIT};
use crate::real_stack::redis::{PASSWORD, Redis};
use crate::real_stack::wait_until;
use crate::stack::{API_KEY, Backbone, Options, Role, Stack};

pub fn run() {
    let mut redis = Redis::start(fetched_program("fetch-program.sh", &["redis-server", "--version"])).unwrap();
    let settings = vec![
        ("NEONHUB_REDIS_URL", redis.url()),
        ("NEONHUB_LOG", "debug".to_owned()),
        // Longer than the test.
        ("NEONHUB_QUERY_CACHE_MS", "600000".to_owned()),
        ("NEONHUB_QUERY_CACHE_CLOSED_MS", "600000".to_owned()),
    ];
    let mut stack = Stack::start_with(Backbone::Kafka, Options { settings, ..Options::default() }, None);
    stack.spawn(Role::SecondApi);
    stack.wait_for(Role::SecondApi);
    let first = stack.client();
    let second = Client::new(first.ingest_port, stack.second_api_port(), first.clickhouse_port);
    let page = json!({"type": "page", "userId": "u-1", "timestamp": "2026-01-07T10:00:00Z"});
    first.accept("/v1/batch", &[page]);
    wait_until("the page view is counted", LIMIT, || Ok(rows(&ask(&first, "hour", true)) == 1)).unwrap();

    // What one process computed the other answers with.
    let mut limits = 1_000..;
    assert_shared(&first, &second, &mut limits);
    // Something else is computed, and is new.
    let of_day = ask(&second, "day", false);
    assert_eq!((rows(&of_day), of_day.age), (1, None));

    // Without Redis, whether it is frozen or dead, everything is answered, and the process is ready.
    redis.freeze();
    let asked_at = Instant::now();
    assert_eq!(rows(&ask(&second, "week", false)), 1);
    assert!(asked_at.elapsed() < LIMIT / 4, "a cache that hangs held up an answer for {:?}", asked_at.elapsed());
    redis.kill();
    let ready = second.send(second.api_port, "GET", "/health/ready", &[], b"");
    assert_eq!((ready.status, &ready.json()["parts"]["redis"]["ready"]), (200, &json!(false)), "{}", ready.body);
    assert_eq!(rows(&ask(&second, "month", false)), 1);
    let (text, success) = stack.try_command(&["doctor"]);
    assert!(success && text.contains("! redis"), "{text}");

    // When it is back it is used again.
    redis.restart().unwrap();
    assert_shared(&first, &second, &mut limits);
    let ready = second.send(second.api_port, "GET", "/health/ready", &[], b"");
    assert_eq!(ready.json()["parts"]["redis"], json!({"ready": true}), "{}", ready.body);
    assert!(stack.log_lines_with(&["the shared cache failed"]) > 0);
    assert_eq!(stack.log_lines_with(&[PASSWORD]), 0);
}

/// Each time a plan that neither has kept, for on a slow machine Redis may once answer too late.
fn assert_shared(first: &Client, second: &Client, limits: &mut impl Iterator<Item = usize>) {
    let taken_before = answers(second, "redis");
    let mut last = None;
    wait_until("answers are shared", LIMIT, || {
        let another = json!({"limit": limits.next()});
        let (of_first, of_second) = (ask_of(first, &another, false), ask_of(second, &another, false));
        assert_eq!((&of_first.body, &of_first.age), (&of_second.body, &None));
        last = of_second.age;
        Ok(answers(second, "redis") > taken_before)
    })
    .unwrap();
    assert!(last.is_some());
}

fn ask(client: &Client, grain: &str, anew: bool) -> Answer {
    ask_of(client, &json!({"grain": grain}), anew)
}

fn ask_of(client: &Client, changes: &Value, anew: bool) -> Answer {
    let mut query = json!({"metrics": ["page_views"], "grain": "total",
        "from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"});
    for (name, value) in changes.as_object().unwrap() {
        query[name] = value.clone();
    }
    let key = format!("Bearer {API_KEY}");
    let mut headers = vec![("authorization", key.as_str()), ("content-type", "application/json")];
    if anew {
        headers.push(("cache-control", "no-cache"));
    }
    let body = query.to_string();
    let answer = client.send(client.api_port, "POST", "/v1/metrics/query", &headers, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

fn rows(answer: &Answer) -> usize {
    answer.json()["rows"].as_array().unwrap().len()
}

/// How many answers to metric queries a process has taken from there.
fn answers(client: &Client, from: &str) -> u64 {
    let metrics = client.send(client.api_port, "GET", "/metrics", &[], b"").body;
    let name = format!("neonhub_api_metric_answers_total{{from=\"{from}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |value| value.parse().unwrap())
}

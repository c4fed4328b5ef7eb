//! Pure: no I/O, no clock, no async.
//!
//! What to try while the stack keeps serving.

use super::answers::{Period, metric_query};
use super::stack::DemoStack;

#[must_use]
pub fn try_next(stack: &DemoStack, period: &Period) -> String {
    let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
    let (ingest, api) = (trimmed(&stack.ingest_url), trimmed(&stack.api_url));
    let clickhouse = trimmed(&stack.clickhouse_url);
    let query = metric_query("day", period);
    format!(
        r#"
NeonHub keeps serving; Ctrl-C stops it. Try next:

  # send an event of your own
  curl -u '{write_key}:' {ingest}/v1/campaigns/events -H 'content-type: application/json' \
    -d '{{"type":"click","campaign":"men","anonymousId":"me","properties":{{"policy":"bts"}}}}'

  # ask for impressions, clicks and CTR by day
  curl -H 'authorization: Bearer {api_key}' {api}/v1/metrics/query -H 'content-type: application/json' \
    -d '{query}'

  # watch windows as they move, then send events from another terminal
  curl -N -H 'authorization: Bearer {api_key}' '{api}/v1/live/metrics?metrics=impressions,clicks&grain=minute'

  # SQL on the raw events
  curl '{clickhouse}/' --data-binary \
    "SELECT campaign, kind, count() FROM {database}.events WHERE workspace = '{workspace}' GROUP BY ALL ORDER BY ALL"

  every route: {api}/docs
"#,
        write_key = stack.write_key,
        api_key = stack.api_key,
        database = stack.database,
        workspace = stack.workspace,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_can_be_pasted() {
        let stack = DemoStack {
            ingest_url: "http://127.0.0.1:1/".into(),
            api_url: "http://127.0.0.1:2".into(),
            clickhouse_url: "http://127.0.0.1:3".into(),
            database: "neonhub".into(),
            workspace: "demo".into(),
            write_key: "wk".into(),
            api_key: "ak".into(),
        };
        let text = try_next(&stack, &Period::of_days("2019-11-24", "2019-11-30").unwrap());
        assert!(text.contains("curl -u 'wk:' http://127.0.0.1:1/v1/campaigns/events"), "{text}");
        assert!(text.contains(r#"-d '{"type":"click""#), "{text}");
        assert!(text.contains("Bearer ak' http://127.0.0.1:2/v1/metrics/query"), "{text}");
        assert!(text.contains("FROM neonhub.events WHERE workspace = 'demo'"), "{text}");
        assert!(text.contains("http://127.0.0.1:2/docs"), "{text}");
    }
}

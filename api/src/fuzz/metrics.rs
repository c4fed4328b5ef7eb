//! Pure: no I/O, no clock, no async.
//!
//! Bodies of `POST /v1/metrics/query`.

use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::metric::DefinitionText;

use super::check_statement;
use crate::auth::Grant;
use crate::catalog::Catalog;
use crate::extract::parse;
use crate::query::plan::Plan;
use crate::query::request::MetricQuery;
use crate::query::span::Span;
use crate::query::statement::{closed, sketches, sums};

const MAX_ROWS: usize = 2_000;
/// Beside the built-in metrics: a quantile, which is read from sketches.
const LATENCY: &str = r#"{"source":"behavior","aggregation":"quantile(0.9)","value":"properties.ms",
    "dimensions":["properties.country","properties.it's \"odd\""]}"#;

pub(super) fn check(bytes: &[u8]) {
    let Ok(query) = parse::<MetricQuery>(bytes) else { return };
    let written = serde_json::to_vec(&query).unwrap_or_default();
    assert_eq!(parse::<MetricQuery>(&written).ok().as_ref(), Some(&query), "a query is another after a round trip");
    let plan = match Plan::new(&query, &catalog(), &Grant::whole("acme"), "Europe/Berlin", MAX_ROWS) {
        Ok(plan) => plan,
        Err(problem) => {
            assert!(matches!(problem.status.as_u16(), 400 | 422), "{problem:?}");
            return;
        }
    };
    check_span(&plan.span);
    let filters = plan.filters.iter().flat_map(|filter| filter.values.iter().chain([&filter.dimension]));
    let outside: Vec<&str> = filters.chain(&plan.group_by).map(String::as_str).collect();
    for span in [Some(&plan.span), plan.previous.as_ref()].into_iter().flatten() {
        check_span(span);
        for statement in [sums(&plan, span), sketches(&plan, span)].into_iter().flatten() {
            check_statement(&statement, &outside);
        }
    }
    for around in [None, Some(1_774_000_800)] {
        check_statement(&closed(&plan, around), &outside);
    }
}

fn check_span(span: &Span) {
    assert!(!span.buckets.is_empty() && span.buckets.len() <= MAX_ROWS, "{} windows", span.buckets.len());
    assert!(span.buckets.is_sorted_by(|left, right| left.first_s < right.first_s), "windows out of order");
    assert!(span.from_s < span.to_s && span.labels.0 < span.labels.1, "{span:?}");
    assert!(span.buckets.iter().all(|bucket| bucket.first_s < bucket.end_s), "{span:?}");
}

fn catalog() -> Catalog {
    let definition = serde_json::from_str::<DefinitionText>(LATENCY).ok();
    let (workspace, name) = ("acme".to_owned(), "latency".to_owned());
    Catalog::new(&[DefinitionRecord { workspace, name, revision: 3, definition, updated_at: 0 }])
}

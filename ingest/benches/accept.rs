//! What runs for every request: the pure acceptance of bodies.
#![expect(clippy::unwrap_used, reason = "a bench on fixed input")]

#[path = "../../schemas/benches/hot_paths/runner.rs"]
mod runner;

use std::hint::black_box;

use neonhub_ingest::Limits;
use neonhub_ingest::accept::{Route, Sender, accept};
use neonhub_schemas::Kind;
use runner::HotPath;

const TRACK: &str = r#"{"userId":"user-2","anonymousId":"anon-1","event":"Order Completed","messageId":"order-17",
    "timestamp":"2026-02-03T00:00:01.000Z","sentAt":"2026-02-03T00:00:02.000Z",
    "context":{"userAgent":"Mozilla/5.0","page":{"path":"/cart","url":"https://shop.example/cart?utm_campaign=spring"}},
    "properties":{"revenue":5.01,"currency":"EUR","country":"fr","products":[{"sku":"a-1","quantity":2}]}}"#;

fn main() {
    let event = |number: u32| {
        format!(
            r#"{{"type":"impression","messageId":"bench-{number:012}","campaign":"campaign-7","anonymousId":"person-1",
            "timestamp":1770076800000,"channel":"display","policy":"bts","position":2,"item":"item-041"}}"#
        )
    };
    let batch = format!("{{\"batch\":[{}]}}", (0..20).map(event).collect::<Vec<_>>().join(","));
    runner::run(vec![
        HotPath::new("accept, a track call", || accepted(Route::Call(Kind::Track), black_box(TRACK))),
        HotPath::new("accept, 20 campaign events", move || accepted(Route::Campaign, black_box(&batch))),
        HotPath::new("accept and encode, a track call", || {
            let sender = Sender { workspace: "acme", received_at_ms: 1_770_076_803_000 };
            let limits = Limits::default();
            let route = Route::Call(Kind::Track);
            let accepted = accept(route, black_box(TRACK).as_bytes(), sender, &limits, &mut || 0).unwrap();
            accepted.events[0].to_raw_record()
        }),
    ]);
}

/// Events of a body; all are good.
fn accepted(route: Route<'_>, body: &str) -> usize {
    let sender = Sender { workspace: "acme", received_at_ms: 1_770_076_803_000 };
    let accepted = accept(route, body.as_bytes(), sender, &Limits::default(), &mut || 0).unwrap();
    assert!(accepted.rejections.is_empty(), "{:?}", accepted.rejections);
    accepted.events.len()
}

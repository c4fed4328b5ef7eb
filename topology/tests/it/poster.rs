//! A sender that behaves as an SDK does: one batch after the other, each repeated with the same messageIds until it is
//! answered with 200.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, LIMIT};
use crate::real_stack::wait_until;

const BATCH: usize = 50;

pub struct Poster {
    accepted: Arc<AtomicUsize>,
    turned_away: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Of a test that fails: else it would go on into whatever listens at this port next.
impl Drop for Poster {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Poster {
    /// Posts until it is told to stop; `name` makes its messageIds its own.
    pub fn start(client: Client, name: &'static str) -> Self {
        let (accepted, turned_away, stop) = (Arc::default(), Arc::default(), Arc::default());
        let shared = (Arc::clone(&accepted), Arc::clone(&turned_away), Arc::clone(&stop));
        let thread = std::thread::spawn(move || post(&client, name, &shared.0, &shared.1, &shared.2));
        Self { accepted, turned_away, stop, thread: Some(thread) }
    }

    /// Events answered with 200 so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Requests answered with 503 and Retry-After so far.
    pub fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::Relaxed)
    }

    pub fn wait_for_more(&self, events: usize) {
        let target = self.accepted() + events;
        wait_until("events are accepted", LIMIT, || Ok(self.accepted() >= target)).unwrap();
    }

    /// Ends after the batch under way is accepted. Returns the number of events, all of them accepted.
    pub fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.accepted.load(Ordering::Relaxed)
    }
}

fn post(client: &Client, name: &str, accepted: &AtomicUsize, turned_away: &AtomicUsize, stop: &AtomicBool) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<Value> = (0..BATCH).map(|index| event(name, number + index)).collect();
        let body = json!({ "batch": batch }).to_string();
        let answered = wait_until("the batch is accepted", LIMIT * 2, || {
            match client.try_post("/v1/campaigns/events", body.as_bytes()) {
                Ok(answer) if answer.status == 200 => Ok(true),
                Ok(answer) if answer.status == 503 => {
                    assert!(answer.retry_after.is_some(), "a 503 without Retry-After: {}", answer.body);
                    assert!(answer.content_type.starts_with("application/problem+json"), "{}", answer.content_type);
                    turned_away.fetch_add(1, Ordering::Relaxed);
                    Ok(false)
                }
                Ok(answer) => Err(format!("{}: {}", answer.status, answer.body)),
                // Nobody listens: the process is being started again.
                Err(_) => Ok(false),
            }
        });
        answered.unwrap();
        number += BATCH;
        accepted.fetch_add(BATCH, Ordering::Relaxed);
        // A steady sender, not a flood.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn event(name: &str, number: usize) -> Value {
    let (hour, minute, second) = (number / 3_600 % 24, number / 60 % 60, number % 60);
    json!({
        "type": (["impression", "click", "conversion", "spend"][number % 4]), "messageId": format!("{name}-{number}"),
        "campaign": format!("c-{}", number % 7), "anonymousId": format!("a-{}", number % 101),
        "timestamp": format!("2026-02-03T{hour:02}:{minute:02}:{second:02}Z"),
        "revenue": format!("{}.01", number % 13), "cost": 0.3,
    })
}

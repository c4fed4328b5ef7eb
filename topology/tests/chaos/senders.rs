//! Senders that behave as SDKs do: several connections at a steady rate, each batch repeated with the same messageIds
//! until it is answered with 200, and what could not be sent meanwhile sent later. Now and then a batch is posted once more
//! after its 200, as by a client that did not get the answer.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::real_stack::wait_until;

const CONNECTIONS: usize = 8;
const BATCH: usize = 50;
/// One batch of so many is posted again after its 200.
const ONE_ANSWER_LOST_OF: usize = 100;
/// An SDK gives up waiting for an answer, and sends again.
const PATIENCE: Duration = Duration::from_secs(10);
/// No batch has to wait longer for its 200, whatever befalls the servers.
const LIMIT: Duration = Duration::from_secs(300);

/// Events answered with 200.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acknowledged {
    pub campaign: usize,
    pub behavior: usize,
}

impl Acknowledged {
    pub fn total(self) -> usize {
        self.campaign + self.behavior
    }
}

#[derive(Default)]
struct Shared {
    campaign: AtomicUsize,
    behavior: AtomicUsize,
    turned_away: AtomicUsize,
    unanswered: AtomicUsize,
    stop: AtomicBool,
}

pub struct Senders {
    shared: Arc<Shared>,
    events_per_second: f64,
    began: Instant,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    pub fn start(client: &Client, events_per_second: u32) -> Self {
        let shared = Arc::<Shared>::default();
        let batches_per_second = f64::from(events_per_second) / (CONNECTIONS * BATCH) as f64;
        let interval = Duration::from_secs_f64(1.0 / batches_per_second);
        let threads = (0..CONNECTIONS)
            .map(|connection| {
                let (client, shared) = (client.with_patience(PATIENCE), Arc::clone(&shared));
                std::thread::spawn(move || send(&client, connection, interval, &shared))
            })
            .collect();
        Self { shared, events_per_second: f64::from(events_per_second), began: Instant::now(), threads }
    }

    /// Whether what could not be sent in an outage is sent meanwhile.
    pub fn have_caught_up(&self) -> bool {
        const SLACK_SECONDS: f64 = 0.5;
        let due = (self.began.elapsed().as_secs_f64() - SLACK_SECONDS) * self.events_per_second;
        self.acknowledged().total() as f64 >= due
    }

    pub fn acknowledged(&self) -> Acknowledged {
        Acknowledged {
            campaign: self.shared.campaign.load(Ordering::Relaxed),
            behavior: self.shared.behavior.load(Ordering::Relaxed),
        }
    }

    /// Requests answered with 503 and Retry-After so far.
    pub fn turned_away(&self) -> usize {
        self.shared.turned_away.load(Ordering::Relaxed)
    }

    /// Requests without an answer so far.
    pub fn unanswered(&self) -> usize {
        self.shared.unanswered.load(Ordering::Relaxed)
    }

    /// Ends after the batches under way are acknowledged.
    pub fn finish(self) -> Acknowledged {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        Acknowledged {
            campaign: self.shared.campaign.load(Ordering::Relaxed),
            behavior: self.shared.behavior.load(Ordering::Relaxed),
        }
    }
}

fn send(client: &Client, connection: usize, interval: Duration, shared: &Shared) {
    let is_campaign = connection.is_multiple_of(2);
    let (path, acknowledged) = match is_campaign {
        true => ("/v1/campaigns/events", &shared.campaign),
        false => ("/v1/import", &shared.behavior),
    };
    let began = Instant::now();
    let mut batches = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let due = interval * batches;
        if let Some(early) = due.checked_sub(began.elapsed()) {
            std::thread::park_timeout(early.min(Duration::from_millis(100)));
            continue;
        }
        let number = batches as usize;
        let body = batch(connection, number, due, is_campaign);
        post_until_accepted(client, path, &body, shared);
        if number % ONE_ANSWER_LOST_OF == 1 {
            post_until_accepted(client, path, &body, shared);
        }
        acknowledged.fetch_add(BATCH, Ordering::Relaxed);
        batches += 1;
    }
}

fn post_until_accepted(client: &Client, path: &str, body: &str, shared: &Shared) {
    let mut backoff = Duration::from_millis(50);
    let outcome = wait_until("a batch is accepted", LIMIT, || {
        match client.try_post(path, body.as_bytes()) {
            Ok(answer) if answer.status == 200 => {
                assert_eq!(answer.json()["accepted"], BATCH, "{}", answer.body);
                return Ok(true);
            }
            Ok(answer) if answer.status == 503 => {
                assert!(answer.retry_after.is_some(), "a 503 without Retry-After: {}", answer.body);
                shared.turned_away.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => return Err(format!("{}: {}", answer.status, answer.body)),
            // Nobody listens, or nobody answers.
            Err(_) => drop(shared.unanswered.fetch_add(1, Ordering::Relaxed)),
        }
        std::thread::park_timeout(backoff);
        backoff = (backoff * 2).min(Duration::from_secs(1));
        Ok(false)
    });
    outcome.unwrap();
}

/// Event time goes on as the sender's clock does.
fn batch(connection: usize, number: usize, due: Duration, is_campaign: bool) -> String {
    let mut body = String::from(r#"{"batch":["#);
    let seconds = due.as_secs();
    let timestamp = format!("2026-02-03T{:02}:{:02}:{:02}Z", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    for index in 0..BATCH {
        let serial = number * BATCH + index;
        let common = format!(
            r#""messageId":"{connection}-{serial}","anonymousId":"a-{connection}-{}","timestamp":"{timestamp}""#,
            serial % 997
        );
        let separator = if index == 0 { "" } else { "," };
        let _ = if is_campaign {
            let kind = if serial.is_multiple_of(5) { "click" } else { "impression" };
            write!(body, r#"{separator}{{"type":"{kind}","campaign":"c-{}",{common}}}"#, serial % 7)
        } else {
            let revenue = serial % 90;
            write!(
                body,
                r#"{separator}{{"type":"track","event":"Order Completed","properties":{{"revenue":{revenue}.25}},{common}}}"#
            )
        };
    }
    body.push_str("]}");
    body
}

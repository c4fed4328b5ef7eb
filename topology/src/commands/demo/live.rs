//! Listens to the live push while the data goes in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::event_stream::EventStream;
use super::live_windows::LiveWindows;
use super::stack::DemoStack;
use crate::clients::http_client;
use crate::commands::replay::verdict::backoff;

/// What was heard so far.
#[derive(Debug, Default)]
pub struct Heard {
    pub windows: LiveWindows,
    /// When the last revision came.
    pub last_at: Option<Instant>,
    pub connections: u64,
    /// Of the last connection that ended.
    pub trouble: Option<String>,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct LiveListener {
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

impl LiveListener {
    /// Shows what it hears on `line`.
    #[must_use]
    pub fn start(stack: &DemoStack, line: ProgressBar) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let task = tokio::spawn(listen(stack.clone(), heard.clone(), line));
        Self { heard, task }
    }

    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LiveListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(stack: DemoStack, heard: Arc<Mutex<Heard>>, line: ProgressBar) {
    let mut stream = EventStream::default();
    let mut attempt = 0;
    loop {
        let before = heard.lock().unwrap_or_else(PoisonError::into_inner).windows.revisions;
        let ended = follow(&stack, &heard, &line, &mut stream).await;
        stream.restart();
        let pause = {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.trouble = Some(ended.map_or_else(|error| format!("{error:#}"), |()| "the stream ended".to_owned()));
            attempt = if heard.windows.revisions > before { 1 } else { attempt + 1 };
            backoff(attempt).min(Duration::from_secs(1))
        };
        sleep(pause).await;
    }
}

/// One connection, from the last event's place on.
async fn follow(
    stack: &DemoStack,
    heard: &Mutex<Heard>,
    line: &ProgressBar,
    stream: &mut EventStream,
) -> anyhow::Result<()> {
    let path = "/v1/live/metrics?metrics=impressions,clicks&grain=day&from=earliest";
    let url = format!("{}{path}", stack.api_url.trim_end_matches('/'));
    let mut request = http_client(None)?.get(url).bearer_auth(&stack.api_key).header("accept", "text/event-stream");
    if !stream.last_id().is_empty() {
        request = request.header("last-event-id", stream.last_id());
    }
    let mut response = request.send().await?;
    if !response.status().is_success() {
        bail!("live push: {}", response.status());
    }
    heard.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
    while let Some(bytes) = response.chunk().await? {
        let events = stream.push(&bytes);
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_news = false;
        for event in &events {
            is_news |= event.name == "window" && heard.windows.push(&event.data);
        }
        if is_news {
            heard.last_at = Some(Instant::now());
            line.set_message(heard.windows.to_line());
        }
    }
    Ok(())
}

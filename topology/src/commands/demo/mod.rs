//! `neonhub demo`: 60,000 real impressions and their clicks through the whole stack, then the same counts from three
//! places: the files, the query API, and SQL on the raw events.
//!
//! It talks HTTP only, as anybody would; the caller starts the stack and says where it is.

mod agree;
mod answers;
pub(crate) mod event_stream;
mod live;
mod live_windows;
mod outcome;
mod plot;
mod report;
mod rows;
mod stack;
mod tally;
#[cfg(test)]
mod tests;
mod try_next;
mod wilson;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::clients::http_client;
use crate::commands::replay::lanes::{LaneLimits, Lanes, OnBatch};
use crate::commands::replay::poster::{BatchReport, Poster};
use answers::Period;
use live::LiveListener;
pub use outcome::DemoOutcome;
use outcome::{ATTRIBUTION, LiveOutcome, Sending, Source, Truth, results};
use rows::{CAMPAIGNS, POLICIES, Row, in_time_order, read_rows};
pub use stack::DemoStack;
use stack::Questions;
use tally::Tally;

#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The folder with `{random,bts}/{all,men,women}.csv`.
    pub data: PathBuf,
    /// Print one JSON object and no progress.
    pub json: bool,
    /// Say what to try next; the caller keeps serving.
    pub interactive: bool,
}

/// Runs the demo and prints what it came to. The caller exits 1 unless the outcome agrees.
///
/// # Errors
/// The data cannot be read, the workspace is not empty, or the stack does not answer.
pub async fn run(options: DemoOptions, stack: DemoStack) -> anyhow::Result<DemoOutcome> {
    let started = Instant::now();
    let folder = options.data.clone();
    let rows = tokio::task::spawn_blocking(move || read_folder(&folder)).await??;
    let truth = Tally::of(&rows);
    let Some((first, last)) = truth.first_and_last_day() else { bail!("the files hold no rows") };
    let period = Period::of_days(first, last)?;
    let questions = Questions::new(&stack)?;
    let events = questions.events_so_far().await.context("counting the workspace's events before the start")?;
    if events > 0 {
        bail!(
            "the workspace `{}` already holds {events} events, so nothing could be checked; \
            run the demo with a fresh data folder or workspace",
            stack.workspace
        );
    }
    let progress = Progress::new(&truth, options.json);
    let listener = LiveListener::start(&stack, progress.live.clone());
    let sending = send(rows, &stack, &progress.events).await?;
    let sent_at = Instant::now();
    progress.events.set_message("sent; waiting until every count is visible");
    let settled = agree::wait_until_agreed(&questions, &listener, &truth, &period, sent_at).await;
    progress.finish();
    let live = {
        let heard = listener.heard();
        let trouble = heard.trouble.clone();
        let (revisions, total) = (heard.windows.revisions, heard.windows.total());
        LiveOutcome { revisions, connections: heard.connections, total, trouble }
    };
    let outcome = DemoOutcome {
        agree: settled.agreement.api && settled.agreement.sql,
        agreement: settled.agreement,
        results: results(&truth, &settled.api),
        truth: Source { total: truth.total(), answer: Truth { days: truth } },
        api: Source { total: settled.api.days.total(), answer: settled.api },
        sql: Source { total: settled.sql.days.total(), answer: settled.sql },
        live,
        sending,
        latency: settled.latency,
        seconds: started.elapsed().as_secs_f64(),
        troubles: settled.troubles,
        attribution: ATTRIBUTION,
    };
    print(&outcome, &options, &stack, &period)?;
    Ok(outcome)
}

fn print(outcome: &DemoOutcome, options: &DemoOptions, stack: &DemoStack, period: &Period) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer(&mut out, outcome)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", report::report(outcome))?;
        if options.interactive {
            write!(out, "{}", try_next::try_next(stack, period))?;
        }
    }
    out.flush()?;
    Ok(())
}

fn read_folder(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut files = Vec::new();
    for policy in POLICIES {
        for campaign in CAMPAIGNS {
            let path = folder.join(policy).join(format!("{campaign}.csv"));
            let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let rows = read_rows(campaign, policy, &text).map_err(anyhow::Error::msg);
            files.push(rows.with_context(|| path.display().to_string())?);
        }
    }
    Ok(in_time_order(files))
}

/// Posts every event in time order; returns when all are durable.
async fn send(rows: Vec<Row>, stack: &DemoStack, bar: &ProgressBar) -> anyhow::Result<Sending> {
    let run = uuid::Uuid::new_v4().simple().to_string();
    let total = Arc::new(Mutex::new(BatchReport::default()));
    let on_batch: OnBatch = {
        let (total, bar) = (total.clone(), bar.clone());
        Arc::new(move |report: BatchReport| {
            bar.inc(report.accepted);
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.accepted += report.accepted;
            total.retries += report.retries;
            total.rejected.extend(report.rejected);
        })
    };
    let poster = Arc::new(Poster::new(http_client(None)?, &stack.ingest_url, &stack.write_key)?);
    let started = Instant::now();
    let lanes = Lanes::start(&poster, LaneLimits::default(), &on_batch);
    let mut events = 0;
    'rows: for row in &rows {
        for event in row.events(&run) {
            events += 1;
            // The reason comes from `finish`.
            if lanes.send(event).await.is_err() {
                break 'rows;
            }
        }
    }
    lanes.finish().await.context("posting the events")?;
    let total = total.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = total.rejected.first() {
        bail!("ingest rejected {} of {events} events; the first is {first}", total.rejected.len());
    }
    let seconds = started.elapsed().as_secs_f64();
    let events_per_second = if seconds > 0.0 { events as f64 / seconds } else { 0.0 };
    Ok(Sending { events, accepted: total.accepted, retries: total.retries, seconds, events_per_second })
}

/// The bar, and the live windows under it.
struct Progress {
    events: ProgressBar,
    live: ProgressBar,
    _both: MultiProgress,
}

impl Progress {
    fn new(truth: &Tally, is_hidden: bool) -> Self {
        let hides = is_hidden || !std::io::stderr().is_terminal();
        let target = if hides { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let both = MultiProgress::with_draw_target(target);
        let style = |template: &str| {
            // The templates are our own text; should one be wrong, the default bar will do.
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let total = truth.total();
        let events = both.add(ProgressBar::new(total.impressions + total.clicks));
        events.set_style(style("{bar:40} {human_pos}/{human_len} events  {per_sec}  {msg}"));
        let live = both.add(ProgressBar::new_spinner());
        live.set_style(style("{msg}"));
        live.set_message("live windows: waiting for the first");
        Self { events, live, _both: both }
    }

    fn finish(&self) {
        self.events.finish_and_clear();
        // The last windows stay on the screen.
        self.live.finish();
    }
}

//! `neonhub replay FILE…`: posts recorded events to ingest, over HTTP as an SDK would.
//!
//! NDJSON (one tracking, campaign or integration event a line) or tables with a [mapping]; `.gz` is unpacked on the
//! way. Ids are made from file name, line and content, so replaying twice within the dedup window counts once.

mod cell;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod lanes;
mod lines;
pub mod mapping;
pub mod outgoing;
mod pace;
pub mod poster;
mod recorded;
mod rows;
mod source;
mod summary;
mod table;
#[cfg(test)]
mod tests;
pub mod verdict;

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use lanes::{LaneLimits, Lanes, OnBatch};
use mapping::Mapping;
use pace::Pace;
use poster::{BatchReport, Poster};
use source::{Item, Source};
pub use summary::Summary;

#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// `-` is standard input.
    pub files: Vec<PathBuf>,
    /// For tables; see [`mapping`].
    pub mapping: Option<PathBuf>,
    /// Ingest's base URL: `http://127.0.0.1:7001`.
    pub url: String,
    pub write_key: String,
    /// Events a second at most.
    pub rate: Option<u32>,
    /// Events a request at most.
    pub batch: usize,
    pub client: reqwest::Client,
    /// Print the summary as one JSON object, and no progress.
    pub json: bool,
    /// Take event times as given: behaviour goes to `/v1/import`.
    pub as_import: bool,
}

/// Posts all files and prints a summary. The caller exits 1 unless it is clean.
///
/// # Errors
/// Nothing was sent: a file, the mapping or the URL is wrong.
pub async fn run(options: ReplayOptions) -> anyhow::Result<Summary> {
    let source = prepare(&options)?;
    let bar = progress_bar(source.check()?, options.json);
    let poster = Arc::new(Poster::new(options.client.clone(), &options.url, &options.write_key)?);
    let summary = replay(source, poster, &options, &bar).await;
    bar.finish_and_clear();
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer(&mut out, &summary)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", summary.to_text())?;
    }
    Ok(summary)
}

fn prepare(options: &ReplayOptions) -> anyhow::Result<Source> {
    if options.files.is_empty() {
        bail!("name at least one file, or - for standard input");
    }
    let mapping = match &options.mapping {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let mapping = Mapping::parse(&text).map_err(anyhow::Error::msg);
            Some(mapping.with_context(|| format!("the mapping {}", path.display()))?)
        }
    };
    Ok(Source { files: options.files.clone(), mapping, as_import: options.as_import })
}

fn progress_bar(bytes: Option<u64>, is_hidden: bool) -> ProgressBar {
    let hides = is_hidden || !std::io::stderr().is_terminal();
    let target = if hides { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let template = match bytes {
        Some(_) => "{bar:40} {percent:>3} %  {decimal_bytes}/{decimal_total_bytes}  {msg}  {eta} left",
        None => "{spinner} {decimal_bytes}  {msg}",
    };
    let bar = ProgressBar::with_draw_target(bytes, target);
    // The template is our own text; should it be wrong, the default bar will do.
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn replay(source: Source, poster: Arc<Poster>, options: &ReplayOptions, bar: &ProgressBar) -> Summary {
    let summary = Arc::new(Mutex::new(Summary::default()));
    let on_batch: OnBatch = {
        let (summary, bar) = (summary.clone(), bar.clone());
        Arc::new(move |report: BatchReport| {
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.add_batch(report);
            bar.set_message(format!("{} events", summary.sent));
        })
    };
    let started = Instant::now();
    let limits = LaneLimits { batch_events: options.batch.max(1), ..LaneLimits::default() };
    let lanes = Lanes::start(&poster, limits, &on_batch);
    let (sender, mut items) = mpsc::channel(1_024);
    let reader_bar = bar.clone();
    let reader = tokio::task::spawn_blocking(move || {
        source.read(&reader_bar, &mut |item| match sender.blocking_send(item) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    });
    let mut pace = Pace::new(options.rate);
    while let Some(item) = items.recv().await {
        match item {
            Item::Bad(rejection) => {
                summary.lock().unwrap_or_else(PoisonError::into_inner).add_unreadable(&rejection);
            }
            Item::Event(event) => {
                if let Some(pace) = &mut pace {
                    sleep_until(started + pace.next_due()).await;
                }
                // The reason comes from `finish`.
                if lanes.send(event).await.is_err() {
                    break;
                }
            }
        }
    }
    drop(items);
    let delivered = lanes.finish().await.map_err(anyhow::Error::from);
    let read = reader.await.map_err(anyhow::Error::from).flatten();
    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner).clone();
    summary.failure = delivered.and(read).err().map(|error| format!("{error:#}"));
    summary.seconds = (started.elapsed().max(Duration::from_millis(1))).as_secs_f64();
    summary
}

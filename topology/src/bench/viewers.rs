//! The dashboard of the query bench, loaded by many people at one time: with answers that are kept, and without.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;

use super::Figure;
use super::dashboard::widgets;
use super::embedded::{Up, scratch_folder};
use super::ingest::per_second;
use super::query::{as_ms, ask, histogram, load, load_dashboard};
use super::usage::peak_rss_mb;
use crate::settings::Settings;

/// What the viewers saw.
struct Seen {
    dashboards_per_second: f64,
    times: Histogram<u64>,
    peak_rss_mb: Option<f64>,
    right: bool,
}

pub async fn run(
    settings: &Settings,
    library: PathBuf,
    days: u32,
    viewers: u32,
    seconds: u64,
) -> anyhow::Result<Figure> {
    let folder = scratch_folder()?;
    let up = start(folder.path(), &library, "0").await?;
    load(settings, &up, days).await?;
    let without = view(&up, days, viewers, Duration::from_secs(seconds)).await?;
    drop(up);
    let up = start(folder.path(), &library, "64").await?;
    let with = view(&up, days, viewers, Duration::from_secs(seconds)).await?;
    let quantile = |q: f64| Some(as_ms(with.times.value_at_quantile(q)));
    let mut figure = Figure {
        bench: "viewers".to_owned(),
        value: with.dashboards_per_second,
        unit: "dashboards/s",
        p50_ms: quantile(0.5),
        p95_ms: quantile(0.95),
        p99_ms: quantile(0.99),
        peak_rss_mb: with.peak_rss_mb,
        right: with.right && without.right,
        ..Figure::default()
    }
    .against(without.dashboards_per_second);
    figure.details.insert("without_p50_ms", as_ms(without.times.value_at_quantile(0.5)));
    figure.details.insert("without_p95_ms", as_ms(without.times.value_at_quantile(0.95)));
    Ok(figure)
}

async fn start(folder: &Path, library: &Path, cache_mb: &str) -> anyhow::Result<Up> {
    Up::start_in(folder, library, &[("NEONHUB_QUERY_CACHE_MB", cache_mb.to_owned())]).await
}

/// Each viewer loads the dashboard, and again as soon as it is there, for so long.
async fn view(up: &Up, days: u32, viewers: u32, time: Duration) -> anyhow::Result<Seen> {
    let (widgets, days, began) = (widgets(), i64::from(days), Instant::now());
    let viewer = async |_| {
        let mut times = Vec::new();
        while began.elapsed() < time {
            times.push(load_dashboard(&widgets, |widget| ask(up, widget.query(days))).await?);
        }
        anyhow::Ok(times)
    };
    let all: Vec<u64> = try_join_all((0..viewers).map(viewer)).await?.concat();
    let dashboards_per_second = per_second(all.len() as u64, began.elapsed().as_secs_f64());
    let mut times = histogram()?;
    all.into_iter().try_for_each(|micros| times.record(micros))?;
    let mut right = true;
    for widget in &widgets {
        let answer = serde_json::from_str(&ask(up, widget.query(days)).await?)?;
        if let Err(error) = widget.check(&answer, days) {
            eprintln!("{error}");
            right = false;
        }
    }
    Ok(Seen { dashboards_per_second, times, peak_rss_mb: peak_rss_mb(up.role.id()), right })
}

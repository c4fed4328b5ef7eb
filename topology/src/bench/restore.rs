//! The merge stage's windows after kill -9: when the process is ready again with its local state, and how fast all windows are
//! read back from the log when that is gone.

use std::path::Path;
use std::time::{Duration, Instant};

use neonhub_processors::engine::kafka::KafkaReader;
use neonhub_processors::engine::{EngineMetrics, LogReader, Part, Stage as _, Worker, WorkerConfig};
use neonhub_processors::metrics::{MergeConfig, MetricsMerge};
use neonhub_schemas::micros::Micros;
use neonhub_schemas::record::{NewRecord, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::Sample;
use prometheus::Registry;

use super::Figure;
use super::children::{Role, free_address};
use super::embedded::{Up, scratch_folder};
use super::ingest::per_second;
use super::memory::{WINDOWS_A_KEY, partial};
use super::scratch::Scratch;
use super::usage::peak_rss_mb;
use crate::clients::http_client;
use crate::clock;
use crate::embedded;
use crate::embedded::log::{Log, LogOptions};
use crate::settings::Settings;

const LIMIT: Duration = Duration::from_secs(600);
/// Of the data folder: what workers keep of their state.
const STATE: &str = "state";
/// Longer than the longest time that a window waits to be put out, and then to be saved.
const SETTLED: Duration = Duration::from_secs(20);

pub async fn run(settings: &Settings, library: std::path::PathBuf, windows: u64) -> anyhow::Result<Figure> {
    let keys = windows / WINDOWS_A_KEY;
    let windows = keys * WINDOWS_A_KEY;
    let partials = partials(keys)?;
    if settings.is_embedded_log() {
        return on_embedded_log(settings, &library, partials, windows).await;
    }
    on_kafka(settings, partials, windows).await
}

/// A record a key, each with the windows of the last whole quarter of an hour.
fn partials(keys: u64) -> anyhow::Result<Vec<NewRecord>> {
    let quarter_s = (clock::now_ms() / 1_000).div_euclid(900) * 900 - 900;
    let sample = |key, minute| vec![Sample::Number(Micros::from_raw(i128::from(key * 1_000 + minute)))];
    (0..keys).map(|key| partial(key, quarter_s, &sample)).collect()
}

async fn on_kafka(settings: &Settings, partials: Vec<NewRecord>, windows: u64) -> anyhow::Result<Figure> {
    let scratch = Scratch::new(settings).await?;
    let producer = scratch.producer()?;
    scratch.produce(&producer, &partials)?;
    scratch.flush(&producer)?;
    let folder = scratch_folder()?;
    let address = free_address()?;
    let url = format!("http://{address}");
    let start = || {
        Role::start(
            &["run", "processors", "--only", "metrics"],
            &[
                ("NEONHUB_DATA_DIR", folder.path().display().to_string()),
                ("NEONHUB_PROCESSORS_ADDR", address.to_string()),
                ("NEONHUB_KAFKA_BROKERS", scratch.brokers.clone()),
                ("NEONHUB_TOPIC_PREFIX", scratch.prefix.clone()),
                ("NEONHUB_PARTITIONS", scratch.partitions.to_string()),
                ("NEONHUB_MAX_METRIC_KEYS", windows.to_string()),
            ],
        )
    };
    let http = http_client(None)?;
    let mut role = start()?;
    role.ready(&http, &format!("{url}/health/ready")).await?;
    let mut reader = KafkaReader::new(&scratch.config)?;
    let places = places(scratch.partitions);
    settle(&mut reader, &places, windows).await?;
    // SIGKILL.
    drop(role);
    let killed = Instant::now();
    let role = start()?;
    let ready = restored(&http, &url, scratch.partitions, killed).await?.ready;
    drop(role);
    std::fs::remove_dir_all(folder.path().join(STATE))?;
    let killed = Instant::now();
    let role = start()?;
    let restored = restored(&http, &url, scratch.partitions, killed).await?;
    let right = entries(&http, &url, windows).await?;
    let peak = peak_rss_mb(role.id());
    drop(role);
    let limit = tokio::task::spawn_blocking(move || read_all(&mut reader, &places)).await??;
    Ok(figure("restore (Kafka)", ready, &restored, limit, right, peak))
}

async fn on_embedded_log(
    settings: &Settings,
    library: &Path,
    partials: Vec<NewRecord>,
    windows: u64,
) -> anyhow::Result<Figure> {
    let folder = scratch_folder()?;
    let log_folder = folder.path().join("log");
    std::fs::create_dir_all(&log_folder)?;
    let partitions = settings.backbone.partitions;
    let options = LogOptions { partitions, ..LogOptions::default() };
    let (log_options, filled) = (options.clone(), log_folder.clone());
    tokio::task::spawn_blocking(move || fill(&Log::open(&filled, log_options)?, &partials, partitions)).await??;
    let more = [("NEONHUB_PARTITIONS", partitions.to_string()), ("NEONHUB_MAX_METRIC_KEYS", windows.to_string())];
    let up = Up::start_in(folder.path(), library, &more).await?;
    let deadline = Instant::now() + LIMIT;
    // What has landed has been put out.
    while up.sql("SELECT count() FROM neonhub.metric_windows").await? < windows {
        anyhow::ensure!(Instant::now() < deadline, "the windows do not land");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(SETTLED).await;
    drop(up);
    let killed = Instant::now();
    let up = Up::start_in(folder.path(), library, &more).await?;
    let ready = restored(&up.http, &up.processors_url, partitions, killed).await?.ready;
    drop(up);
    std::fs::remove_dir_all(folder.path().join(STATE))?;
    let killed = Instant::now();
    let up = Up::start_in(folder.path(), library, &more).await?;
    let restored = restored(&up.http, &up.processors_url, partitions, killed).await?;
    let right = entries(&up.http, &up.processors_url, windows).await?;
    let peak = peak_rss_mb(up.role.id());
    drop(up);
    let limit = tokio::task::spawn_blocking(move || {
        let log = Log::open(&log_folder, options)?;
        let mut ports = embedded::engine::ports(&log, "bench", "0", &[], Part::Whole);
        read_all(ports.reader.as_mut(), &places(partitions))
    })
    .await??;
    Ok(figure("restore (embedded)", ready, &restored, limit, right, peak))
}

/// Lets the merge stage put all windows out, portion by portion: what a commit puts out must fit the log's queue.
fn fill(log: &Log, partials: &[NewRecord], partitions: u32) -> anyhow::Result<()> {
    let at_once = MergeConfig { cadence: [Duration::ZERO; 6], ..MergeConfig::default() };
    let merge = MetricsMerge::new(MergeConfig { partitions, max_keys: u32::MAX, ..at_once })?;
    let ports = embedded::engine::ports(log, "metrics-merge", "0-0", &merge.inputs(), Part::KeyAndValue);
    let metrics = EngineMetrics::register(&Registry::new())?;
    let mut worker = Worker::new(merge, ports, clock::wall(), WorkerConfig::default(), metrics)?;
    let (mut appended, mut taken) = (0, 0);
    for portion in partials.chunks(1_000) {
        log.append(portion.to_vec())?;
        appended += portion.len();
        while taken < appended {
            taken += worker.step()?.records;
        }
    }
    Ok(worker.finish()?)
}

fn figure(bench: &str, ready: Duration, restored: &Restored, limit: Read, right: bool, peak: Option<f64>) -> Figure {
    let mut figure = Figure {
        bench: bench.to_owned(),
        value: per_second(limit.records, restored.seconds),
        unit: "records/s",
        peak_rss_mb: peak,
        right,
        ..Figure::default()
    }
    .against(per_second(limit.records, limit.seconds));
    figure.details.insert("ready_ms", ready.as_secs_f64() * 1_000.0);
    figure.details.insert("ready_without_local_state_ms", restored.ready.as_secs_f64() * 1_000.0);
    figure.details.insert("restore_ms", restored.seconds * 1_000.0);
    figure
}

fn places(partitions: u32) -> Vec<TopicPartition> {
    (0..partitions).map(|partition| TopicPartition { topic: Topic::MetricsWindows, partition }).collect()
}

/// Until no more windows are put out.
async fn settle(reader: &mut KafkaReader, places: &[TopicPartition], windows: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    let (mut known, mut since) = (0, Instant::now());
    while known < windows || since.elapsed() < SETTLED {
        let mut ends = 0;
        for place in places {
            ends += reader.bounds(*place)?.1;
        }
        if ends != known {
            (known, since) = (ends, Instant::now());
        }
        anyhow::ensure!(Instant::now() < deadline, "{known} windows of {windows} were put out");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

struct Restored {
    /// Of all partitions, one after the other.
    seconds: f64,
    /// From the kill on.
    ready: Duration,
}

/// Until every partition is restored.
async fn restored(http: &reqwest::Client, url: &str, partitions: u32, killed: Instant) -> anyhow::Result<Restored> {
    loop {
        if let Ok(text) = metrics(http, url).await
            && sum_of(&text, "neonhub_processor_restore_seconds_count") >= f64::from(partitions)
        {
            let seconds = sum_of(&text, "neonhub_processor_restore_seconds_sum");
            return Ok(Restored { seconds, ready: killed.elapsed() });
        }
        anyhow::ensure!(killed.elapsed() < LIMIT, "the partitions are not restored");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the windows in memory are as many as there should be, once the gauge has been set.
async fn entries(http: &reqwest::Client, url: &str, windows: u64) -> anyhow::Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(10);
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let expected = windows as f64;
    while Instant::now() < deadline {
        if (sum_of(&metrics(http, url).await?, "neonhub_processor_state_entries") - expected).abs() < 0.5 {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(false)
}

async fn metrics(http: &reqwest::Client, url: &str) -> anyhow::Result<String> {
    Ok(http.get(format!("{url}/metrics")).send().await?.error_for_status()?.text().await?)
}

/// Of the merge stage, all partitions together. The text format of Prometheus: name{label="value",…} number.
fn sum_of(text: &str, name: &str) -> f64 {
    let of_merge = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')) && line.contains("\"metrics.merge\"")
    };
    text.lines().filter(of_merge).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

struct Read {
    records: u64,
    seconds: f64,
}

/// Every byte, and nothing done with it.
fn read_all(reader: &mut dyn LogReader, places: &[TopicPartition]) -> anyhow::Result<Read> {
    let began = Instant::now();
    let mut records = 0;
    for place in places {
        let (from, to) = reader.bounds(*place)?;
        reader.read(*place, from, to, &mut |_| records += 1)?;
    }
    Ok(Read { records, seconds: began.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_merge_stage_is_added_up() {
        let text = "# TYPE x histogram\nx_sum{processor=\"metrics.merge\"} 1.5\nx_sum{processor=\"refine\"} 7\n\
                    x_sum{partition=\"1\",processor=\"metrics.merge\"} 2\nx_sum_of{processor=\"metrics.merge\"} 9\n";
        assert!((sum_of(text, "x_sum") - 3.5).abs() < 1e-9);
        assert!(sum_of(text, "y").abs() < 1e-9);
    }
}

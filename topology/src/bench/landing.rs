//! The landing, from Kafka into the embedded ClickHouse.

use std::path::PathBuf;

use neonhub_processors::engine::{EngineMetrics, kafka};
use neonhub_processors::landing::{
    Block, BlockBuilder, ClickHouseTables, LANDED_TOPICS, Landing, LandingConfig, Tables as _,
};
use neonhub_schemas::record::{Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use prometheus::Registry;

use super::children::{Role, free_address};
use super::events::Spread;
use super::ingest::per_second;
use super::scratch::Scratch;
use super::usage::{Meter, Used, peak_rss_mb};
use super::writer;
use super::{Figure, refine};
use crate::clients::{self, http_client, migrate};
use crate::clock;
use crate::settings::Settings;

pub async fn run(settings: &Settings, library: PathBuf, events: u64) -> anyhow::Result<Figure> {
    let scratch = Scratch::new(settings).await?;
    let folder = tempfile::Builder::new().prefix("neonhub-bench-").tempdir()?;
    let address = free_address()?;
    let mut of_olap = vec![
        ("NEONHUB_DATA_DIR", folder.path().display().to_string()),
        ("NEONHUB_CLICKHOUSE_ADDR", address.to_string()),
        ("NEONHUB_LIBCHDB", library.display().to_string()),
    ];
    of_olap.extend(writer::of_front());
    let mut olap = Role::start(&["run", "olap"], &of_olap)?;
    olap.ready(&http_client(None)?, &format!("http://{address}/ping")).await?;
    let settings = writer::settings(settings, format!("http://{address}"));
    migrate(&settings).await?;
    let mut beside = settings.clone();
    beside.clickhouse.database = format!("{}_limit", settings.clickhouse.database);
    migrate(&beside).await?;
    tokio::task::spawn_blocking(move || measure(&scratch, &settings, &beside, events)).await?
}

fn measure(scratch: &Scratch, settings: &Settings, beside: &Settings, events: u64) -> anyhow::Result<Figure> {
    refine::load(scratch, Spread::Few, events)?;
    refine::refine(scratch, events)?;
    let (landed, used) = land(scratch, settings, events)?;
    let peak = peak_rss_mb(std::process::id());
    let limit = straight(scratch, beside, events)?;
    let figure = Figure {
        bench: "landing".to_owned(),
        value: per_second(landed, used.wall),
        unit: "rows/s",
        events_per_second: Some(per_second(landed, used.wall)),
        peak_rss_mb: peak,
        right: landed == events,
        ..Figure::default()
    };
    Ok(figure.against(limit))
}

/// From when the group has its partitions, as the other roles are measured from when they are ready, to the last commit.
fn land(scratch: &Scratch, settings: &Settings, events: u64) -> anyhow::Result<(u64, Used)> {
    let ports = kafka::offsets_only(&scratch.config, "landing", "0", &LANDED_TOPICS)?;
    let inserters = clients::inserters(settings, "landing")?;
    let config = LandingConfig { token_prefix: scratch.prefix.clone(), ..LandingConfig::default() };
    let metrics = EngineMetrics::register(&Registry::new())?;
    let mut landing = Landing::new(ports, Box::new(inserters), clock::wall(), config, metrics);
    let mut landed = 0;
    while !landing.has_partitions() {
        landed += landing.step()? as u64;
    }
    let meter = Meter::this_process()?;
    while landed < events {
        landed += landing.step()? as u64;
    }
    landing.finish()?;
    Ok((landed, meter.used()?))
}

/// Rows per second when they are ready in memory, as the bytes that are sent, in blocks of the landing's size.
fn straight(scratch: &Scratch, settings: &Settings, events: u64) -> anyhow::Result<f64> {
    let mut records: Vec<Record> = Vec::new();
    scratch.read(Topic::EventsCampaign, |record| records.push(record))?;
    let blocks = records.chunks(100_000).map(block_of).collect::<anyhow::Result<Vec<Block>>>()?;
    drop(records);
    let mut tables = ClickHouseTables::new(&clients::landing_config(settings)?)?;
    let began = std::time::Instant::now();
    for (number, rows) in blocks.iter().enumerate() {
        tables.insert(rows, &format!("limit-{number}"))?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let rows: usize = blocks.iter().map(Block::len).sum();
    anyhow::ensure!(rows as u64 == events, "{rows} rows of {events} events");
    Ok(per_second(events, seconds))
}

fn block_of(records: &[Record]) -> anyhow::Result<Block> {
    let mut rows = BlockBuilder::new(TopicPartition { topic: Topic::EventsCampaign, partition: 0 });
    for record in records {
        rows.push(record).map_err(anyhow::Error::msg)?;
    }
    Ok(rows.finish())
}

//! ClickHouse: settings for its users, and the migrations.

use std::time::Duration;

use anyhow::Context as _;
use clickhouse::Client;
use neonhub_processors::landing::{ClickHouseConfig, ClickHouseTables, InsertThreads, Tables};
use neonhub_schemas::migrations::{CLICKHOUSE, ClickHouseTarget, reading_user};

use crate::clock;
use crate::embedded::olap::READER;
use crate::settings::Settings;

/// Of whoever writes.
///
/// # Errors
/// The data folder, where the embedded front's password is kept, cannot be used.
pub fn landing_config(settings: &Settings) -> anyhow::Result<ClickHouseConfig> {
    let (user, password) = settings.clickhouse.writer(&settings.data_dir)?;
    Ok(ClickHouseConfig {
        url: settings.clickhouse.effective_url(),
        database: settings.clickhouse.database.clone(),
        user,
        password,
        timeout: Duration::from_secs(60),
    })
}

/// Threads with a connection each, as many as the settings name.
///
/// # Errors
/// The system gives no threads, or the data folder cannot be used.
pub fn inserters(settings: &Settings, name: &str) -> anyhow::Result<InsertThreads> {
    let config = landing_config(settings)?;
    let tables = |_| Ok(Box::new(ClickHouseTables::new(&config)?) as Box<dyn Tables>);
    let tables = (0..settings.processing.landing_inserts).map(tables).collect::<std::io::Result<_>>()?;
    Ok(InsertThreads::start(name, tables)?)
}

/// Of the query API, which only reads: at the embedded front without a user.
#[must_use]
pub fn api_config(settings: &Settings) -> neonhub_api::olap::http::ClickHouseConfig {
    let server = &settings.clickhouse;
    // A writer that has the reader's name has taken its place.
    let is_named = server.url.is_some() || server.user.as_deref() == Some(READER);
    let (user, password) = if is_named { (server.user.clone(), server.password.clone()) } else { (None, None) };
    neonhub_api::olap::http::ClickHouseConfig {
        url: settings.clickhouse.effective_url(),
        database: settings.clickhouse.database.clone(),
        user,
        password,
        timeout: Duration::from_secs(60),
    }
}

/// ClickHouse 25.3: the `JSON` type is ready for production from there on.
const MINIMUM_VERSION: (u32, u32) = (25, 3);

/// # Errors
/// It is too old: what it is, and what is needed.
pub fn check_version(version: &str) -> anyhow::Result<()> {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (year, release) = MINIMUM_VERSION;
    anyhow::ensure!(found >= MINIMUM_VERSION, "its version is {version}; {year}.{release} or newer is needed");
    Ok(())
}

const NO_READER: &str = "the user neonhub_reader could not be made (with NEONHUB_CLICKHOUSE_READER_PASSWORD): the user that \
     migrates needs ACCESS MANAGEMENT and SELECT WITH GRANT OPTION (in ClickHouse's image CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT=1); a user of that \
     name in a users.xml has to go";

/// Applies what has not been applied, in order; refuses a file that changed since. Returns the names of those applied. On a
/// server, the user who reads is made as the settings have it.
///
/// # Errors
/// ClickHouse does not answer, is too old, refuses a statement, or a file has changed.
pub async fn migrate(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let client = landing_config(settings)?.client();
    // The database may not exist yet: these statements name it themselves.
    let unbound = client.clone().with_database("default");
    let url = settings.clickhouse.effective_url();
    let version: String = unbound
        .query("SELECT version()")
        .fetch_one()
        .await
        .map_err(|error| anyhow::anyhow!("ClickHouse at {url} does not answer: {error}"))?;
    check_version(&version).map_err(|error| anyhow::anyhow!("ClickHouse at {url}: {error}"))?;
    let target =
        ClickHouseTarget { database: &settings.clickhouse.database, cluster: settings.clickhouse.cluster.as_deref() };
    let (on_cluster, engine) = match target.cluster {
        Some(cluster) => (format!(" ON CLUSTER `{cluster}`"), "ReplicatedMergeTree"),
        None => (String::new(), "MergeTree"),
    };
    let database = target.database;
    unbound.query(&format!("CREATE DATABASE IF NOT EXISTS `{database}`{on_cluster}")).execute().await?;
    let table = format!(
        "CREATE TABLE IF NOT EXISTS `{database}`.schema_migrations{on_cluster} (number UInt32, name String, \
         hash String, applied_at DateTime DEFAULT now()) ENGINE = {engine} ORDER BY number"
    );
    unbound.query(&table).execute().await?;
    let applied = applied_migrations(&unbound, database).await?;
    let mut done = Vec::new();
    for migration in CLICKHOUSE {
        if let Some((_, hash)) = applied.iter().find(|(number, _)| *number == migration.number) {
            anyhow::ensure!(
                *hash == migration.hash(),
                "migration {} was changed after it was applied: write a new one instead",
                migration.name
            );
            continue;
        }
        for statement in migration.statements(&target) {
            unbound.query(&statement.replace('?', "??")).execute().await?;
        }
        let insert = format!("INSERT INTO `{database}`.schema_migrations (number, name, hash) VALUES (?, ?, ?)");
        unbound.query(&insert).bind(migration.number).bind(migration.name).bind(migration.hash()).execute().await?;
        done.push(migration.name.to_owned());
    }
    if let (Some(_server), Some(password)) = (&settings.clickhouse.url, &settings.clickhouse.reader_password) {
        for statement in reading_user(&target, password, clock::secret_bits()?) {
            unbound.query(&statement).execute().await.context(NO_READER)?;
        }
    }
    Ok(done)
}

/// Numbers and hashes.
///
/// # Errors
/// ClickHouse does not answer, or has no such table yet.
pub async fn applied_migrations_of(settings: &Settings) -> anyhow::Result<Vec<(u32, String)>> {
    applied_migrations(&landing_config(settings)?.client(), &settings.clickhouse.database).await
}

/// Its version, and milliseconds since the Unix epoch as it has them.
///
/// # Errors
/// ClickHouse does not answer.
pub async fn clickhouse_server(settings: &Settings) -> anyhow::Result<(String, i64)> {
    let client = landing_config(settings)?.client().with_database("default");
    let url = settings.clickhouse.effective_url();
    let now = client.query("SELECT version(), toUnixTimestamp64Milli(now64(3))").fetch_one().await;
    now.map_err(|error| anyhow::anyhow!("ClickHouse at {url} does not answer: {error}"))
}

async fn applied_migrations(client: &Client, database: &str) -> anyhow::Result<Vec<(u32, String)>> {
    let query = format!("SELECT number, hash FROM `{database}`.schema_migrations ORDER BY number");
    Ok(client.query(&query).fetch_all().await?)
}

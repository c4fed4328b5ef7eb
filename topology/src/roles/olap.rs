//! The role `olap`: the embedded ClickHouse, as a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;

use super::stop::asked_to_end;
use crate::embedded::olap::supervisor::{OlapChild, OlapChildOptions};
use crate::embedded::olap::{Access, OlapOptions, parent, serve};
use crate::settings::{Settings, Values};

/// The library's folder in the cache, as `deploy/fetch-libchdb.sh` names it.
const LIBRARY: &str = "libchdb-26.7.3-stable.1/libchdb.so";

/// After the parent's end, running statements get so long.
const GRACE: Duration = Duration::from_secs(15);

/// Where libchdb is: the setting, else the cache.
#[must_use]
pub fn library(settings: &Settings, values: &Values) -> PathBuf {
    let in_cache = || values.path("cache_dir").unwrap_or_default().join(LIBRARY);
    settings.clickhouse.libchdb.clone().unwrap_or_else(in_cache)
}

/// Serves until it is asked to end, or, as a supervised child, until its parent is gone.
///
/// # Errors
/// The library or the data directory cannot be used.
pub async fn run(settings: &Settings, library: PathBuf, is_supervised: bool) -> anyhow::Result<()> {
    let data_dir = settings.data_dir.join("olap");
    let address = settings.clickhouse.front_addr;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::anyhow!("NEONHUB_CLICKHOUSE_ADDR = `{address}` cannot be listened on: {error}"))?;
    let mut options = OlapOptions::new(library, data_dir, listener);
    options.connections = settings.clickhouse.connections;
    if let (Some(user), Some(password)) = settings.clickhouse.writer(&settings.data_dir)? {
        options.access = Access::with_writer(&user, &password);
    }
    let shutdown = async move {
        let parent_gone = async {
            if is_supervised {
                parent::gone(GRACE).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = parent_gone => {}
            ended = asked_to_end() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "signals cannot be listened to");
                }
            }
        }
    };
    serve(options, shutdown).await?;
    Ok(())
}

/// Starts the role as a supervised child of this process.
///
/// # Errors
/// It does not start; its own message is on standard error.
pub async fn start_child(settings: &Settings, library: PathBuf) -> anyhow::Result<OlapChild> {
    let mut options = OlapChildOptions::current_program(settings.clickhouse.front_addr)?;
    options.arguments = vec!["run".into(), "olap".into(), "--supervised".into()];
    options.environment = vec![
        ("NEONHUB_DATA_DIR".into(), settings.data_dir.clone().into()),
        ("NEONHUB_CLICKHOUSE_ADDR".into(), settings.clickhouse.front_addr.to_string().into()),
        ("NEONHUB_LIBCHDB".into(), library.into()),
        ("NEONHUB_OLAP_CONNECTIONS".into(), settings.clickhouse.connections.to_string().into()),
        ("NEONHUB_CLICKHOUSE_USER".into(), settings.clickhouse.user.clone().unwrap_or_default().into()),
        ("NEONHUB_CLICKHOUSE_PASSWORD".into(), settings.clickhouse.password.clone().unwrap_or_default().into()),
        ("NEONHUB_LOG".into(), settings.log.filter.clone().into()),
    ];
    Ok(OlapChild::start(options).await?)
}

//! Logs on standard error: for people or as JSON, one line a happening. What is logged can be changed while a process runs.

pub mod traces;

use std::io::IsTerminal as _;

use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_log::{AsLog as _, log};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::settings::{LogSettings, Settings};

/// Changes the filter of the process's logs.
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(text).map_err(|error| anyhow::anyhow!("NEONHUB_LOG = `{text}` is no log filter: {error}"))
}

/// # Errors
/// The filter is none.
pub fn init(settings: &LogSettings) -> anyhow::Result<LogFilter> {
    let (filter, handle) = reload::Layer::new(filter(&settings.filter)?);
    // A line that cannot be written is lost. Told of on the same standard error it would panic, and the log may be on the very
    // disk that is full.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines =
        if settings.json { lines.json().boxed() } else { lines.with_ansi(std::io::stderr().is_terminal()).boxed() };
    // A process that has a subscriber already (a test) keeps it.
    drop(tracing_subscriber::registry().with(filter).with(lines).try_init());
    Ok(LogFilter(handle))
}

impl LogFilter {
    /// Reads the settings file again at each SIGHUP and takes its `log`. What stands in the environment wins, there as at the
    /// start, and cannot be changed.
    ///
    /// # Errors
    /// The system lets nobody listen to signals.
    pub async fn follow_settings(self) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        while hangup.recv().await.is_some() {
            match self.read_again() {
                Ok(text) => tracing::info!(filter = text, "what is logged was changed"),
                Err(error) => tracing::error!(%error, "what is logged stays as it was"),
            }
        }
        Ok(())
    }

    fn read_again(&self) -> anyhow::Result<String> {
        let (settings, _) = Settings::from_process()?;
        self.0.reload(filter(&settings.log.filter)?)?;
        // What speaks through the crate `log` is held back by a level of its own, which only the start sets.
        log::set_max_level(LevelFilter::current().as_log());
        Ok(settings.log.filter)
    }
}

//! Logs on standard error: for people or as JSON, one line a happening.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::settings::LogSettings;

/// # Errors
/// The filter is none.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|error| anyhow::anyhow!("NEONHUB_LOG = `{}` is no log filter: {error}", settings.filter))?;
    // A line that cannot be written is lost. Told of on the same standard error it would panic, and the log may be on the very
    // disk that is full.
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let set = if settings.json {
        subscriber.json().try_init()
    } else {
        subscriber.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    // A process that has a subscriber already (a test) keeps it.
    drop(set);
    Ok(())
}

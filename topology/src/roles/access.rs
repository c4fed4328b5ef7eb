//! Follows `control`, so that a key that was made or revoked anywhere counts in this process a moment later.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use neonhub_api::feed::{FeedError, FeedLog};
use neonhub_schemas::access::{KeyRing, KeySecret, SharedKeyRing};
use neonhub_schemas::topics::Topic;

use super::Stop;
use crate::clients::Backbone;
use crate::clock;
use crate::settings::Settings;

/// How long a look at the log waits for records.
const LOOK: Duration = Duration::from_millis(500);
/// Between two attempts while the log is away.
const PAUSE: Duration = Duration::from_secs(1);
const RECORDS_AT_ONCE: usize = 1_000;

/// Starts a thread that follows `control` until it is told to stop; the keys are in the ring that is returned.
///
/// # Errors
/// The log's settings cannot be worked with, or there is no thread.
pub fn follow(settings: &Settings, backbone: &Backbone, stop: &Stop) -> anyhow::Result<SharedKeyRing> {
    let ring: SharedKeyRing = Arc::new(RwLock::new(KeyRing::new(secret(settings)?)));
    let feed = backbone.feed_log(Topic::Control)?;
    let (of_thread, stop) = (Arc::clone(&ring), stop.clone());
    let body = move || {
        let mut next = 0;
        while !stop.is_stopped() {
            match read_on(feed.as_ref(), &of_thread, &mut next, &stop) {
                Ok(()) => {}
                Err(FeedError::OutOfRange { start, .. }) => next = start,
                Err(error @ FeedError::Away(_)) => {
                    tracing::warn!(%error, "keys that are made or revoked now are not heard of; trying again");
                    if stop.wait(PAUSE) {
                        return;
                    }
                }
            }
        }
    };
    std::thread::Builder::new().name("access".to_owned()).spawn(body)?;
    Ok(ring)
}

fn read_on(feed: &dyn FeedLog, ring: &SharedKeyRing, next: &mut u64, stop: &Stop) -> Result<(), FeedError> {
    let mut reader = feed.reader(&[*next])?;
    while !stop.is_stopped() {
        let batch = reader.poll(LOOK, RECORDS_AT_ONCE)?;
        if batch.records.is_empty() && batch.at_end.is_empty() {
            continue;
        }
        let mut ring = ring.write().unwrap_or_else(PoisonError::into_inner);
        batch.records.iter().for_each(|record| ring.observe(record));
        *next = batch.next.first().copied().unwrap_or(*next);
        if !batch.at_end.is_empty() {
            ring.complete();
        }
    }
    Ok(())
}

/// The setting's; the embedded stack, which is alone with its data, makes one for itself.
fn secret(settings: &Settings) -> anyhow::Result<Option<KeySecret>> {
    match &settings.access.key_secret {
        Some(secret) => Ok(Some(secret.clone())),
        None if settings.is_embedded_log() => secret_of(&settings.data_dir.join("key-secret")).map(Some),
        None => Ok(None),
    }
}

fn secret_of(path: &Path) -> anyhow::Result<KeySecret> {
    if !path.exists() {
        let text = format!("{:032x}{:032x}\n", clock::random(), clock::random());
        // Under its own name only when it is whole.
        let unfinished = path.with_extension("unfinished");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
        let mut file = file.with_context(|| unfinished.display().to_string())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
    }
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    KeySecret::new(text.trim()).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_embedded_stack_keeps_its_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key-secret");
        let first = secret_of(&path).unwrap();
        let again = secret_of(&path).unwrap();
        assert_eq!(first.digest("nhk_x"), again.digest("nhk_x"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(secret_of(&path).is_err());
    }
}

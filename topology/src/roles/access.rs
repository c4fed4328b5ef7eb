//! Follows `control`, so that a key that was made or revoked anywhere counts in this process a moment later.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use neonhub_api::feed::{FeedError, FeedLog};
use neonhub_schemas::access::{KeyRing, KeySecret, SharedKeyRing};
use neonhub_schemas::topics::Topic;

use super::Stop;
use crate::clients::Backbone;
use crate::settings::{Settings, kept_secret};

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
        None if settings.is_embedded_log() => {
            let path = settings.data_dir.join("key-secret");
            let secret = KeySecret::new(&kept_secret(&path)?).with_context(|| path.display().to_string())?;
            Ok(Some(secret))
        }
        None => Ok(None),
    }
}

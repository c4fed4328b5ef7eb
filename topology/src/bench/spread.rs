//! What a hot key costs the metric stages, and what a second worker costs.

use super::Figure;
use super::events::Spread;
use super::ingest::per_second;
use super::metrics::{Load, measure};
use crate::settings::Settings;

/// One key has half the traffic, against a thousand keys that are alike.
pub async fn skew(settings: &Settings, events: u64) -> anyhow::Result<Figure> {
    let of = |spread| Load { spread, events, builtin: false };
    let (_, uniform) = measure(settings, of(Spread::Uniform), 1).await?;
    let (_, skewed) = measure(settings, of(Spread::Skewed), 1).await?;
    let mut figure = skewed.figure("skew", events).against(per_second(events, uniform.used.cpu));
    figure.details.insert("uniform_events_per_second", per_second(events, uniform.used.wall));
    figure.right &= uniform.right;
    Ok(figure)
}

/// Two workers of each stage, against one.
pub async fn workers(settings: &Settings, events: u64) -> anyhow::Result<Figure> {
    let load = Load { spread: Spread::Uniform, events, builtin: false };
    let (_, one) = measure(settings, load, 1).await?;
    let (_, two) = measure(settings, load, 2).await?;
    let mut figure = two.figure("workers 1 -> 2", events).against(per_second(events, one.used.cpu));
    figure.details.insert("one_worker_events_per_second", per_second(events, one.used.wall));
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    for (name, outcome) in [("events_per_partial", &two), ("one_worker_events_per_partial", &one)] {
        figure.details.insert(name, events as f64 / outcome.partials.max(1) as f64);
    }
    figure.right &= one.right;
    Ok(figure)
}

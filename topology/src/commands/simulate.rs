//! `neonhub simulate`: seeds on several threads, up to the first that fails, which is made short.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::simulation::breaks::Break;
use crate::simulation::{self, Failure, Totals};

/// Plays that making a failing plan short may take.
const SHRINK_TRIES: usize = 400;

#[derive(Clone, Copy, Debug)]
pub struct SimulateOptions {
    pub seeds: u64,
    pub from: u64,
    pub jobs: Option<usize>,
    pub broken: Option<Break>,
}

#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    pub totals: Totals,
    pub failure: Option<Failure>,
    #[serde(skip)]
    broken: Option<Break>,
}

/// Plays `seeds` seeds, beginning with `from`.
#[must_use]
pub fn run(options: SimulateOptions) -> Report {
    let bar = ProgressBar::new(options.seeds).with_style(style());
    let (next, failed) = (AtomicU64::new(options.from), AtomicBool::new(false));
    let end = options.from.saturating_add(options.seeds);
    let outcomes = Mutex::new((Totals::default(), None::<u64>));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let outcome = simulation::run(seed, options.broken);
            let (totals, first_failure) = &mut *outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(one) => totals.add(one),
                Err(_) => {
                    *first_failure = Some(first_failure.map_or(seed, |known| known.min(seed)));
                    failed.store(true, Ordering::Relaxed);
                }
            }
            bar.inc(1);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.unwrap_or(cores).max(1) {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    let (totals, failed_seed) = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failure = failed_seed.and_then(|seed| {
        eprintln!("seed {seed} fails; it is being made short");
        simulation::shrink(seed, options.broken, SHRINK_TRIES)
    });
    Report { totals, failure, broken: options.broken }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len} seeds  {per_sec}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { seeds, events, retries, crashes, upserts, evictions } = self.totals;
        writeln!(
            f,
            "{seeds} seeds hold: {events} events, {retries} retries, {crashes} crashes, {upserts} upserts, {evictions} evictions"
        )?;
        let Some(Failure { seed, detail, turns, trace }) = &self.failure else { return Ok(()) };
        writeln!(f, "seed {seed} does not, after {turns} turns:")?;
        for line in trace {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "{detail}")?;
        write!(f, "again: neonhub simulate --from {seed} --seeds 1")?;
        match self.broken.and_then(|broken| broken.to_possible_value()) {
            Some(broken) => writeln!(f, " --break {}", broken.get_name()),
            None => writeln!(f),
        }
    }
}

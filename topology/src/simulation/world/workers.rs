//! Its workers: how they start, work, crash, leave, and go on although others have taken their places.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use neonhub_processors::engine::{Clock, EngineError, Part, Worker};
use neonhub_processors::landing::{LANDED_TOPICS, Landing, LandingConfig};
use neonhub_processors::metrics::{MergeConfig, MetricsMerge, MetricsPartial, PartialConfig};
use neonhub_processors::refine::{Refine, RefineConfig};
use neonhub_schemas::event::Source;
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::Tracer;

use super::{World, open_log};
use crate::embedded::engine::ports;
use crate::simulation::breaks;
use crate::simulation::faults::wrap;
use crate::simulation::inserters::SlowInserters;
use crate::simulation::tables::FakeTables;

/// More windows than any world has.
const BATCH: usize = 10_000;
/// Bytes that a partition's seen-set needs whatever its budget: which runs it has on the disk.
const LISTS_OF_RUNS: usize = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Refine,
    Partial,
    Merge,
    Landing,
}

pub(super) const ROLES: [Role; 4] = [Role::Refine, Role::Partial, Role::Merge, Role::Landing];

impl Role {
    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Refine => "refine",
            Self::Partial => "metrics-partial",
            Self::Merge => "metrics-merge",
            Self::Landing => "landing",
        }
    }

    /// Under this name its state is on the local disk.
    fn stage_with_state(self) -> Option<&'static str> {
        match self {
            Self::Refine => Some("refine"),
            Self::Merge => Some("metrics.merge"),
            Self::Partial | Self::Landing => None,
        }
    }
}

pub(super) enum Running {
    /// With whether its last step committed.
    Refine(Box<Worker<Refine>>, bool),
    Partial(Box<Worker<MetricsPartial>>),
    /// The same.
    Merge(Box<Worker<MetricsMerge>>, bool),
    Landing(Box<Landing>),
}

impl Running {
    fn step(&mut self) -> Result<(), EngineError> {
        match self {
            Self::Refine(worker, committed) => {
                *committed = false;
                worker.step().map(|progress| *committed = progress.committed)
            }
            Self::Partial(worker) => worker.step().map(drop),
            Self::Merge(worker, committed) => {
                *committed = false;
                worker.step().map(|progress| *committed = progress.committed)
            }
            Self::Landing(landing) => landing.step().map(drop),
        }
    }

    fn finish(self) -> Result<(), EngineError> {
        match self {
            Self::Refine(worker, _) => worker.finish(),
            Self::Partial(worker) => worker.finish(),
            Self::Merge(worker, _) => worker.finish(),
            Self::Landing(landing) => landing.finish(),
        }
    }
}

/// A place that a worker may fill.
pub(super) struct Slot {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) running: Option<Running>,
}

impl Slot {
    fn title(&self) -> String {
        format!("{}/{}", self.role.group(), self.name)
    }
}

impl World {
    /// The first slot of a role always comes back at once, the second now and then.
    pub(super) fn step(&mut self, index: usize) -> Result<(), String> {
        if self.slots[index].running.is_none() {
            if index % 2 == 1 && !self.rng.chance(100) {
                return Ok(());
            }
            match self.start(index) {
                Ok(running) => self.slots[index].running = Some(running),
                Err(error) => return self.fatal(&error),
            }
        }
        let Some(running) = &mut self.slots[index].running else { return Ok(()) };
        let outcome = running.step();
        self.memory_is_bounded(index)?;
        let title = self.slots[index].title();
        match outcome {
            Ok(()) if self.faults.lock().rates.commits == 0 => {}
            Ok(()) => self.note(format_args!("{title} steps")),
            Err(error) => {
                self.note(format_args!("{title}: {error}"));
                self.crash(index);
                self.fatal(&error)?;
            }
        }
        self.observer.look(&self.log)
    }

    /// After a commit refine and the merge stage keep no more in memory than they may.
    fn memory_is_bounded(&self, index: usize) -> Result<(), String> {
        let partitions = self.settings.partitions as usize;
        let ((entries, bytes), allowed) = match (&self.slots[index].running, self.settings.memory_per_partition) {
            (Some(Running::Refine(worker, true)), Some(_)) => {
                let of_partition = self.settings.refine_memory.saturating_add(LISTS_OF_RUNS);
                (worker.state_size(), of_partition.saturating_mul(partitions * Source::ALL.len()))
            }
            // With fewer upserts in a commit it may take several until memory is saved.
            (Some(Running::Merge(worker, true)), Some(budget)) if self.settings.windows_per_commit >= BATCH => {
                (worker.state_size(), budget.saturating_mul(partitions))
            }
            _ => return Ok(()),
        };
        if bytes > allowed {
            let title = self.slots[index].title();
            return Err(format!(
                "{entries} entries of {title} take {bytes} bytes of memory, and only {allowed} may be"
            ));
        }
        Ok(())
    }

    fn fatal(&self, error: &EngineError) -> Result<(), String> {
        if matches!(error, EngineError::Fatal(_)) { Err(error.to_string()) } else { Ok(()) }
    }

    fn start(&mut self, index: usize) -> Result<Running, EngineError> {
        let Slot { role, name, .. } = &self.slots[index];
        let tracer = if self.settings.has_traces { self.traces.tracer() } else { Tracer::default() };
        let (topics, part) = match role {
            Role::Refine => (Source::ALL.map(Source::raw_topic).to_vec(), Part::of_stage(&tracer)),
            Role::Partial => (Source::ALL.map(Source::events_topic).to_vec(), Part::of_stage(&tracer)),
            Role::Merge => (vec![Topic::MetricsPartials], Part::of_stage(&tracer)),
            Role::Landing => (LANDED_TOPICS.to_vec(), Part::Whole),
        };
        let mut ports = ports(&self.log, role.group(), name, &topics, part);
        ports.tracer = tracer;
        if self.settings.memory_per_partition.is_some() {
            ports.states = Some(Box::new(self.disks.entry(name.clone()).or_default().clone()));
        }
        let ports = breaks::wrap(wrap(ports, &self.faults), &self.log, &self.faults);
        let shared_clock = Arc::clone(&self.clock);
        let clock: Clock = Arc::new(move || shared_clock.load(Ordering::Relaxed));
        let (config, metrics) = (self.settings.worker, self.metrics.clone());
        let partitions = self.settings.partitions;
        Ok(match role {
            Role::Refine => {
                let stage = Refine::new(RefineConfig {
                    memory_per_partition: self.settings.refine_memory,
                    save_interval: self.settings.save_interval,
                    ..RefineConfig::default()
                });
                Running::Refine(Box::new(Worker::new(stage, ports, clock, config, metrics)?), false)
            }
            Role::Partial => {
                let stage =
                    MetricsPartial::new(PartialConfig { partials_partitions: partitions, ..PartialConfig::default() });
                Running::Partial(Box::new(Worker::new(stage, ports, clock, config, metrics)?))
            }
            Role::Merge => {
                let stage = MetricsMerge::new(MergeConfig {
                    partitions,
                    default_zone: self.settings.zone.name.to_owned(),
                    max_keys: self.settings.max_keys,
                    memory_per_partition: self.settings.memory_per_partition.unwrap_or(usize::MAX),
                    save_interval: self.settings.save_interval,
                    windows_per_commit: self.settings.windows_per_commit,
                    ..MergeConfig::default()
                });
                let stage = stage.map_err(|error| EngineError::Fatal(error.to_string()))?;
                Running::Merge(Box::new(Worker::new(stage, ports, clock, config, metrics)?), false)
            }
            Role::Landing => {
                let tables = FakeTables { stored: Arc::clone(&self.stored), faults: self.faults.clone() };
                let inserters = Box::new(SlowInserters::new(tables, &self.faults, &self.orphans));
                let config = LandingConfig { limits: self.settings.landing, ..LandingConfig::default() };
                Running::Landing(Box::new(Landing::new(ports, inserters, clock, config, metrics)))
            }
        })
    }

    /// The process dies: its group learns of it.
    pub(super) fn crash(&mut self, index: usize) {
        if self.slots[index].running.take().is_some() {
            self.crashes += 1;
            let title = self.slots[index].title();
            self.note(format_args!("{title} dies"));
            let Slot { role, name, .. } = &self.slots[index];
            if let (Some(stage), Some(disk)) = (role.stage_with_state(), self.disks.get(name))
                && self.rng.chance(500)
            {
                disk.lose_unflushed(stage);
                self.note(format_args!("what {title} had not flushed is lost"));
            }
        }
    }

    /// Everything dies at once; only what the log has stored is left.
    pub(super) fn restart_process(&mut self) -> Result<(), String> {
        (0..self.slots.len()).for_each(|index| self.crash(index));
        self.zombies.clear();
        self.log = open_log(&self.store, self.settings.partitions)?;
        self.observer.look(&self.log)
    }

    /// The process is thought dead: another takes its slot, while it may go on for a while.
    pub(super) fn bury_alive(&mut self, index: usize) {
        self.crashes += 1;
        if let Some(running) = self.slots[index].running.take() {
            let title = self.slots[index].title();
            self.note(format_args!("{title} is thought dead"));
            if let Ok(successor) = self.start(index) {
                self.slots[index].running = Some(successor);
            }
            self.zombies.push(running);
        }
    }

    /// A clean end; the commit may fail like any other.
    pub(super) fn leave(&mut self, index: usize) {
        if let Some(running) = self.slots[index].running.take() {
            let outcome = running.finish();
            let title = self.slots[index].title();
            self.note(format_args!("{title} leaves: {outcome:?}"));
        }
    }

    pub(super) fn step_zombie(&mut self) -> Result<(), String> {
        if self.zombies.is_empty() {
            return Ok(());
        }
        let index = usize::try_from(self.rng.below(self.zombies.len() as u64)).unwrap_or(0);
        let outcome = self.zombies[index].step();
        self.note(format_args!("zombie {index} steps: {outcome:?}"));
        if outcome.is_err() || self.rng.chance(200) {
            drop(self.zombies.swap_remove(index));
        }
        self.observer.look(&self.log)
    }
}

//! The world of one seed: the log in memory, the workers, and the scheduler that lets them work, crash, leave and come
//! back. Everything follows from the seed.

mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use neonhub_processors::engine::{EngineMetrics, MemoryStates};
use neonhub_schemas::event::Source;
use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;
use prometheus::Registry;

use self::workers::{ROLES, Role, Running, Slot};
use super::breaks::Break;
use super::definitions::Sayings;
use super::faults::{Faults, Moment, Rates, SharedFaults};
use super::inserters::Orphans;
use super::observer::Observer;
use super::plan::{self, Turn};
use super::rng::Rng;
use super::settings::Settings;
use super::tables::{FakeTables, Stored};
use super::traces::{self, Traces};
use super::traffic::{Post, Traffic};
use crate::embedded::log::{CommitMode, Log, LogOptions, MemoryStore};

/// 2026-03-20T10:00:00Z.
const BEGIN_MS: i64 = 1_774_000_800_000;
const MINUTE: i64 = 60_000;

pub struct World {
    pub settings: Settings,
    pub log: Log,
    store: Arc<MemoryStore>,
    pub traffic: Traffic,
    pub sayings: Sayings,
    pub observer: Observer,
    pub stored: Arc<Mutex<Stored>>,
    pub traces: Traces,
    orphans: Orphans,
    pub crashes: u64,
    clock: Arc<AtomicI64>,
    /// Reseeded by each turn, so that leaving one out changes nothing about the others.
    rng: Rng,
    faults: SharedFaults,
    /// Requests that were not answered with 200 yet: they are made again.
    outbox: Vec<Post>,
    /// What happened, if anyone wants to know.
    trace: Option<Vec<String>>,
    slots: Vec<Slot>,
    /// The local disks of the places where workers run.
    disks: BTreeMap<String, MemoryStates>,
    /// Workers that were given up for dead and whose slots others have taken; they do not know it.
    zombies: Vec<Running>,
    metrics: EngineMetrics,
}

fn open_log(store: &Arc<MemoryStore>, partitions: u32) -> Result<Log, String> {
    let options = LogOptions { partitions, compaction_min_dirty_records: 1, ..LogOptions::for_testing() };
    Log::over(store.clone(), options, CommitMode::Inline).map_err(|error| error.to_string())
}

impl World {
    pub fn new(seed: u64, broken: Option<Break>, is_traced: bool) -> Result<Self, String> {
        let mut rng = Rng::new(seed);
        let settings = Settings::of(seed, &mut rng);
        let store = Arc::new(MemoryStore::new());
        let log = open_log(&store, settings.partitions)?;
        let faults = Faults { rng: rng.fork(), rates: Rates::NONE, slow: None, broken };
        let slots = ROLES
            .into_iter()
            .flat_map(|role| (0..2).map(move |number| Slot { role, name: format!("sim-{number}"), running: None }));
        Ok(Self {
            settings,
            traffic: Traffic::new(rng.fork()),
            sayings: Sayings::default(),
            observer: Observer::new(settings.partitions, settings.has_traces),
            stored: Arc::default(),
            traces: Traces::default(),
            orphans: Arc::default(),
            crashes: 0,
            clock: Arc::new(AtomicI64::new(BEGIN_MS + rng.between(0, 40 * 24 * 60) * MINUTE)),
            faults: SharedFaults::new(faults),
            outbox: Vec::new(),
            trace: is_traced.then(Vec::new),
            slots: slots.collect(),
            disks: BTreeMap::new(),
            zombies: Vec::new(),
            metrics: EngineMetrics::register(&Registry::new()).map_err(|error| error.to_string())?,
            rng,
            log,
            store,
        })
    }

    /// What happened, one line a turn.
    pub fn into_trace(self) -> Vec<String> {
        self.trace.unwrap_or_default()
    }

    fn note(&mut self, what: fmt::Arguments<'_>) {
        if let Some(trace) = &mut self.trace {
            trace.push(what.to_string());
        }
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn advance(&self, by_ms: i64) {
        self.clock.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Plays a plan to its end; after it, everything is done.
    ///
    /// # Errors
    /// What must always hold does not.
    pub fn play(&mut self, plan: &[Turn]) -> Result<(), String> {
        for turn in plan {
            let seed = match *turn {
                Turn::Busy(seed) | Turn::Idle(seed) => seed,
                Turn::Settle | Turn::Jump(_) => 0,
            };
            self.rng = Rng::new(seed);
            self.traffic.rng = self.rng.fork();
            {
                let faults = &mut *self.faults.lock();
                faults.rng = self.rng.fork();
                faults.rates = if *turn == Turn::Settle { Rates::NONE } else { Rates::TROUBLE };
            }
            match *turn {
                Turn::Busy(_) => self.act(true)?,
                Turn::Idle(_) => self.act(false)?,
                Turn::Settle => self.settle()?,
                Turn::Jump(by_ms) => {
                    self.note(format_args!("the clock goes on by {} min", by_ms / MINUTE));
                    self.deliver_outbox()?;
                    self.advance(by_ms);
                    self.maintain()?;
                }
            }
        }
        self.zombies.clear();
        Ok(())
    }

    fn act(&mut self, is_busy: bool) -> Result<(), String> {
        if is_busy && self.rng.chance(plan::POSTS_PER_MILLE) {
            for post in self.traffic.next_posts(self.now_ms()) {
                self.send(post)?;
            }
        }
        if !self.outbox.is_empty() && self.rng.chance(200) {
            let post = self.outbox.swap_remove(0);
            self.send(post)?;
        }
        let advance_ms = match self.rng.below(200) {
            0 => self.rng.between(1, 8) * MINUTE,
            1..=5 => self.rng.between(1_000, 30_000),
            // Somebody sets the clock.
            6 => self.rng.between(-3_000, 0),
            _ => self.rng.between(0, 300),
        };
        if advance_ms > 1_000 {
            self.note(format_args!("{advance_ms} ms go by"));
            self.deliver_outbox()?;
        }
        self.advance(advance_ms);
        let index = usize::try_from(self.rng.below(self.slots.len() as u64)).unwrap_or(0);
        match self.rng.below(1_000) {
            0 => return self.restart_process(),
            1..=14 => self.crash(index),
            15..=24 => self.bury_alive(index),
            25..=29 => self.leave(index),
            30..=44 => return self.step_zombie(),
            45..=52 => return self.say_definition(),
            53..=60 => return self.maintain(),
            61..=75 => self.slow_down(),
            76..=85 => return self.let_orphan_arrive(),
            _ => return self.step(index),
        }
        Ok(())
    }

    /// One request, answered with 200 or made again later.
    fn send(&mut self, post: Post) -> Result<(), String> {
        // Several ingest nodes: their clocks differ a little.
        let received_ms = self.now_ms() - self.rng.between(0, 2_000);
        let (moment, is_broken) = {
            let faults = &mut *self.faults.lock();
            let rate = faults.rates.posts;
            (faults.strikes(rate), faults.breaks(Break::AcknowledgedTooEarly, 30))
        };
        // What nobody made nobody makes again.
        let moment = moment.filter(|_| !post.events.is_empty());
        self.note(format_args!("post of {} events, lost: {moment:?}", post.events.len()));
        if is_broken {
            return Ok(());
        }
        if moment != Some(Moment::Before) {
            let mut records = post.accept(received_ms)?;
            if self.settings.has_traces {
                traces::begin(&mut records);
            }
            self.log.append(records).map_err(|error| error.to_string())?;
            self.traffic.arrived(&post, received_ms);
        }
        if moment.is_some() {
            self.outbox.push(post);
        }
        Ok(())
    }

    fn deliver_outbox(&mut self) -> Result<(), String> {
        let rates = std::mem::replace(&mut self.faults.lock().rates, Rates::NONE);
        let outcome = std::mem::take(&mut self.outbox).into_iter().try_for_each(|post| self.send(post));
        self.faults.lock().rates = rates;
        outcome
    }

    /// A partition delivers nothing for a while, or again.
    fn slow_down(&mut self) {
        let topic = *self.rng.pick(&Topic::ALL);
        let partition = u32::try_from(self.rng.below(topic.partitions(self.settings.partitions).into())).unwrap_or(0);
        let faults = &mut *self.faults.lock();
        faults.slow = if faults.slow.is_some() { None } else { Some(TopicPartition { topic, partition }) };
    }

    /// What was under way when its landing died is inserted after all.
    fn let_orphan_arrive(&mut self) -> Result<(), String> {
        let mut orphans = self.orphans.lock().map_err(|error| error.to_string())?;
        if orphans.is_empty() {
            return Ok(());
        }
        let index = usize::try_from(self.rng.below(orphans.len() as u64)).unwrap_or(0);
        let orphan = orphans.swap_remove(index);
        drop(orphans);
        let mut tables = FakeTables { stored: Arc::clone(&self.stored), faults: self.faults.clone() };
        let outcome = orphan.run(&mut tables);
        self.note(format_args!("an insert of a dead landing arrives for {}: {outcome:?}", orphan.place));
        Ok(())
    }

    fn say_definition(&mut self) -> Result<(), String> {
        let mut stood = BTreeMap::new();
        for source in Source::ALL {
            for partition in 0..self.settings.partitions {
                let place = TopicPartition { topic: source.events_topic(), partition };
                let committed =
                    self.log.committed(Role::Partial.group(), &[place]).map_err(|error| error.to_string())?;
                let committed = committed[0].as_ref().map_or(0, |committed| committed.offset);
                let end = self.log.end_offset(place).map_err(|error| error.to_string())?;
                stood.insert((source, partition), (committed, end));
            }
        }
        let now_ms = self.now_ms();
        let record = self.sayings.next_record(&mut self.rng, now_ms, stood);
        self.log.append(vec![record]).map(drop).map_err(|error| error.to_string())
    }

    fn maintain(&mut self) -> Result<(), String> {
        self.observer.look(&self.log)?;
        while self.log.maintain(self.now_ms()).map_err(|error| error.to_string())?.more {}
        Ok(())
    }

    /// Lets everybody work until nothing changes any more, finals, evictions and the slow grains included.
    fn settle(&mut self) -> Result<(), String> {
        self.note(format_args!("everybody settles"));
        self.faults.lock().slow = None;
        self.deliver_outbox()?;
        let mut quiet_rounds = 0;
        for _ in 0..2_000 {
            let before = self.state();
            self.advance(500);
            for index in 0..self.slots.len() {
                // First slots are always there; second ones that are there stay.
                if index % 2 == 0 || self.slots[index].running.is_some() {
                    self.step(index)?;
                }
            }
            quiet_rounds = if self.state() == before { quiet_rounds + 1 } else { 0 };
            if quiet_rounds >= 30 {
                return Ok(());
            }
        }
        Err("the world never comes to rest".to_owned())
    }

    /// How far everything has come.
    fn state(&self) -> (Vec<u64>, Vec<u64>) {
        let mut ends = Vec::new();
        let mut committed = Vec::new();
        for topic in Topic::ALL {
            for partition in 0..topic.partitions(self.settings.partitions) {
                let place = TopicPartition { topic, partition };
                ends.push(self.log.end_offset(place).unwrap_or(0));
                for role in ROLES {
                    let offset = self.log.committed(role.group(), &[place]).unwrap_or_default();
                    committed.extend(offset.into_iter().flatten().map(|offset| offset.offset));
                }
            }
        }
        (ends, committed)
    }
}

//! Pure: no I/O, no clock, no async.
//!
//! Watermarks across the repartition topic: each upstream partition tells how far it has come; a source's watermark is
//! the least of those that are not idle. A partition that was never heard of holds everything: it may just be slow.
//!
//! Words are taken in their order and each once: a replay that told again that a partition is idle, beside what is known of the others
//! since, would put time where it never was.

use std::collections::BTreeMap;

use neonhub_schemas::control::UpstreamWatermarks;
use neonhub_schemas::event::Source;
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::PartialHeader;

#[derive(Debug)]
pub struct Watermarks {
    partitions: u32,
    upstreams: BTreeMap<(Source, u32), (Option<i64>, bool)>,
    /// Offset of the last word that was taken.
    as_of: Option<u64>,
    /// By source; never goes back.
    current_ms: [Option<i64>; 3],
    changed: bool,
}

impl Watermarks {
    /// `partitions`: how many upstream partitions each source has.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        Self { partitions, upstreams: BTreeMap::new(), as_of: None, current_ms: [None; 3], changed: false }
    }

    /// The source that a header speaks of; `None` for a topic that is none of ours.
    #[must_use]
    pub fn source_of(header: &PartialHeader) -> Option<Source> {
        Source::of_topic(Topic::from_name(&header.topic)?)
    }

    /// Takes a word from `metrics.partials`.
    pub fn observe(&mut self, offset: u64, header: &PartialHeader) {
        if Some(offset) <= self.as_of {
            return;
        }
        self.as_of = Some(offset);
        if let Some(source) = self.set(header) {
            self.changed = true;
            self.advance(source);
        }
    }

    /// The source, if that is news.
    fn set(&mut self, header: &PartialHeader) -> Option<Source> {
        let source = Self::source_of(header)?;
        let known = self.upstreams.entry((source, header.partition)).or_insert((None, false));
        let next = (known.0.max(header.watermark_ms), header.idle);
        (std::mem::replace(known, next) != next).then_some(source)
    }

    fn advance(&mut self, source: Source) {
        let index = source as usize;
        self.current_ms[index] = self.current_ms[index].max(self.least(source));
    }

    /// Every event of the source before this instant has been merged, but for late ones.
    #[must_use]
    pub fn current_ms(&self, source: Source) -> Option<i64> {
        self.current_ms[source as usize]
    }

    fn least(&self, source: Source) -> Option<i64> {
        let of_source = || self.upstreams.range((source, 0)..=(source, u32::MAX)).map(|(_, state)| *state);
        if of_source().count() < self.partitions as usize {
            return None;
        }
        let live = of_source().filter(|(_, idle)| !idle);
        match live.map(|(watermark_ms, _)| watermark_ms).min() {
            Some(least) => least,
            // All idle: nobody holds anything back, and event time stands where the newest event put it.
            None => of_source().filter_map(|(watermark_ms, _)| watermark_ms).max(),
        }
    }

    /// What the changelog keeps, when something changed since it was last asked.
    pub fn take_changed(&mut self) -> Option<UpstreamWatermarks> {
        std::mem::take(&mut self.changed).then(|| self.upstreams())
    }

    /// How far each upstream partition has come.
    #[must_use]
    pub fn upstreams(&self) -> UpstreamWatermarks {
        let header =
            |((source, partition), (watermark_ms, idle)): (&(Source, u32), &(Option<i64>, bool))| PartialHeader {
                topic: source.events_topic().name().to_owned(),
                partition: *partition,
                watermark_ms: *watermark_ms,
                idle: *idle,
            };
        UpstreamWatermarks { upstreams: self.upstreams.iter().map(header).collect(), as_of: self.as_of }
    }

    /// Takes up what was saved, unless something newer was.
    pub fn restore(&mut self, saved: &UpstreamWatermarks) {
        if saved.as_of < self.as_of {
            return;
        }
        self.as_of = saved.as_of;
        for header in &saved.upstreams {
            self.set(header);
        }
        Source::ALL.into_iter().for_each(|source| self.advance(source));
        self.changed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(partition: u32, watermark_ms: Option<i64>, idle: bool) -> PartialHeader {
        PartialHeader { topic: "events.campaign".to_owned(), partition, watermark_ms, idle }
    }

    #[test]
    fn the_slowest_live_partition_decides() {
        let mut watermarks = Watermarks::new(2);
        watermarks.observe(1, &header(0, Some(1_000), false));
        // Partition 1 was never heard of: it may be slow.
        assert_eq!(watermarks.current_ms(Source::Campaign), None);
        watermarks.observe(2, &header(1, Some(10), false));
        assert_eq!(watermarks.current_ms(Source::Campaign), Some(10));
        watermarks.observe(3, &header(1, Some(10), true));
        assert_eq!(watermarks.current_ms(Source::Campaign), Some(1_000));
        assert_eq!(watermarks.current_ms(Source::Behavior), None);
    }

    #[test]
    fn an_idle_partition_holds_nothing_and_waking_up_does_not_turn_time_back() {
        let mut watermarks = Watermarks::new(2);
        watermarks.observe(4, &header(0, None, true));
        watermarks.observe(5, &header(1, Some(500), false));
        assert_eq!(watermarks.current_ms(Source::Campaign), Some(500));
        watermarks.observe(6, &header(0, Some(100), false));
        assert_eq!(watermarks.current_ms(Source::Campaign), Some(500));
        watermarks.observe(7, &header(0, Some(100), true));
        watermarks.observe(8, &header(1, Some(700), true));
        assert_eq!(watermarks.current_ms(Source::Campaign), Some(700));
    }

    #[test]
    fn saved_watermarks_are_taken_up_again() {
        let mut watermarks = Watermarks::new(1);
        watermarks.observe(9, &header(0, Some(5), false));
        let saved = watermarks.take_changed().unwrap();
        assert_eq!(watermarks.take_changed(), None);
        let mut restored = Watermarks::new(1);
        restored.restore(&saved);
        assert_eq!(restored.current_ms(Source::Campaign), Some(5));
        assert_eq!(restored.take_changed(), None);
    }

    #[test]
    fn a_replay_says_nothing_new() {
        let mut watermarks = Watermarks::new(2);
        let words = [header(0, Some(10), false), header(1, Some(10), true), header(1, Some(20), false)];
        (0..).zip(&words).for_each(|(offset, word)| watermarks.observe(offset, word));
        watermarks.observe(3, &header(0, Some(500), false));
        let saved = watermarks.take_changed().unwrap();
        assert_eq!(watermarks.current_ms(Source::Campaign), Some(20));
        let mut restored = Watermarks::new(2);
        restored.restore(&saved);
        // With partition 1 idle again, as it once was, 500 would count.
        (0..).zip(&words).for_each(|(offset, word)| restored.observe(offset, word));
        assert_eq!(restored.current_ms(Source::Campaign), Some(20));
        restored.restore(&UpstreamWatermarks { upstreams: vec![header(1, Some(20), true)], as_of: Some(2) });
        assert_eq!(restored.current_ms(Source::Campaign), Some(20), "older than what is known");
        restored.observe(4, &header(1, Some(20), true));
        assert_eq!(restored.current_ms(Source::Campaign), Some(500));
    }
}

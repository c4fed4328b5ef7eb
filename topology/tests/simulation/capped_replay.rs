//! A delta that went to `__other__` must not be counted again by a replay that finds the cap free, because the windows
//! that filled it have been evicted in the meantime. It takes an eviction, a slow grain and a crash within five seconds,
//! which is why the scheduler hardly ever gets there by itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use neonhub_processors::engine::{Outputs, Stage};
use neonhub_processors::metrics::{MergeConfig, MetricsMerge};
use neonhub_schemas::metric::{MetricKey, OTHER};
use neonhub_schemas::record::{CommittedOffset, Headers, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Delta, Grain, Partial, PartialHeader, WindowState, WindowUpsert};

const PLACE: TopicPartition = TopicPartition { topic: Topic::MetricsPartials, partition: 0 };
const MINUTE_S: i64 = 1_774_000_800;

fn partial(offset: u64, campaign: Option<&str>) -> Record {
    let upstream = PartialHeader {
        topic: Topic::EventsCampaign.name().to_owned(),
        partition: 0,
        watermark_ms: Some((MINUTE_S + 86_400) * 1_000),
        idle: false,
    };
    let key = campaign.map(|campaign| MetricKey {
        workspace: "acme".to_owned(),
        metric: "clicks".to_owned(),
        series: 0,
        dimensions: BTreeMap::from([("campaign".to_owned(), campaign.to_owned())]),
    });
    let state = WindowState { count: 1, ..WindowState::default() };
    let deltas = if key.is_some() { vec![Delta { minute: MINUTE_S, state }] } else { Vec::new() };
    as_read(
        NewRecord {
            topic: Topic::MetricsPartials,
            partition: Some(0),
            key: Bytes::from_static(b"any"),
            value: Some(Bytes::from(serde_json::to_vec(&Partial { upstream, key, deltas }).unwrap())),
            headers: Headers::new(),
            timestamp_ms: 0,
        },
        offset,
    )
}

fn as_read(new: NewRecord, offset: u64) -> Record {
    let NewRecord { topic, partition, key, value, headers, timestamp_ms } = new;
    Record { topic, partition: partition.unwrap_or(0), offset, timestamp_ms, key, value, headers }
}

/// One life of the task, and what it put out.
struct Life {
    stage: MetricsMerge,
    task: <MetricsMerge as Stage>::Task,
    written: Vec<Record>,
    committed: Option<CommittedOffset>,
}

impl Life {
    fn new(committed: Option<CommittedOffset>, written: Vec<Record>) -> Self {
        let stage = MetricsMerge::new(MergeConfig { partitions: 1, max_keys: 2, ..MergeConfig::default() }).unwrap();
        let mut task = stage.open(PLACE, committed.as_ref(), None).unwrap();
        for topic in [Topic::MetricsWindows, Topic::MetricsChangelog] {
            written
                .iter()
                .filter(|record| record.topic == topic)
                .for_each(|record| stage.restore(&mut task, record).unwrap());
        }
        Self { stage, task, written, committed }
    }

    fn commit(&mut self, at_s: i64, records: &[Record]) {
        let mut out = Outputs::default();
        records.iter().for_each(|record| self.stage.process(&mut self.task, record, at_s * 1_000, &mut out));
        let next = records.last().map(|record| record.offset + 1);
        let committed = self.stage.prepare_commit(&mut self.task, next, at_s * 1_000, &mut out);
        self.committed = committed.or(self.committed.take());
        self.written.extend(out.records.into_iter().map(|record| as_read(record, 0)));
    }

    /// By campaign: the counts of the minute, epochs added up.
    fn minute(&self) -> BTreeMap<String, u64> {
        let mut newest = BTreeMap::new();
        for record in self.written.iter().filter(|record| record.topic == Topic::MetricsWindows) {
            let Some(value) = &record.value else { continue };
            let upsert: WindowUpsert = serde_json::from_slice(value).unwrap();
            if upsert.grain == Grain::Minute {
                newest.insert(record.key.clone(), upsert);
            }
        }
        let mut counts = BTreeMap::new();
        for upsert in newest.into_values() {
            *counts.entry(upsert.key.dimensions["campaign"].clone()).or_default() += upsert.state.count;
        }
        counts
    }
}

#[test]
fn what_other_holds_is_not_counted_again_when_the_cap_is_free() {
    let mut life = Life::new(None, Vec::new());
    // Two keys fill the cap; their windows are final from the start, because they are late.
    life.commit(1_000, &[partial(0, None), partial(1, Some("a")), partial(2, Some("b"))]);
    life.commit(1_055, &[partial(3, Some(OTHER))]);
    life.commit(1_062, &[partial(4, Some(OTHER))]);
    // "c" goes to `__other__`; "a" and "b" are evicted in the same commit; the day still waits to be put out.
    let capped = partial(5, Some("c"));
    life.commit(1_066, std::slice::from_ref(&capped));
    let committed = life.committed.clone().unwrap();
    assert_eq!(committed.offset, 5, "the day has not been put out: its delta will be read again");
    let counts = life.minute();
    assert_eq!(counts.values().sum::<u64>(), 5, "{counts:?}");

    let mut next_life = Life::new(Some(committed), life.written);
    next_life.commit(1_067, &[capped]);
    next_life.commit(1_080, &[]);
    assert_eq!(next_life.minute(), counts);
}

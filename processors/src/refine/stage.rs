//! Pure but for the local state: no clock, no async.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use neonhub_schemas::codec::{HEARTBEAT_KEY, header};
use neonhub_schemas::control::{Heartbeat, IdentityLink};
use neonhub_schemas::event::{Envelope, Source};
use neonhub_schemas::record::{CommittedOffset, Headers, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use super::enrichment::Enricher;
use super::identity::link_record;
use super::seen::SeenSet;
use super::session::Place;
use super::state::{Spans, State};
use crate::engine::{EngineError, LocalState, Marker, Outputs, Restore, Stage};

#[derive(Clone, Copy, Debug)]
pub struct RefineConfig {
    /// A message id that comes again from the same actor within this time is a retry.
    pub dedup_window: Duration,
    pub session_gap: Duration,
    /// A partition that has been at its end for so long is idle.
    pub idle_after: Duration,
    /// Bytes of state that each partition of a source keeps in memory; the rest waits on the local disk, where there is one.
    pub memory_per_partition: usize,
    /// How often the local state is brought up to date.
    pub save_interval: Duration,
}

impl Default for RefineConfig {
    fn default() -> Self {
        Self {
            dedup_window: Duration::from_secs(3_600),
            session_gap: Duration::from_secs(30 * 60),
            idle_after: Duration::from_millis(500),
            memory_per_partition: 40 << 20,
            save_interval: Duration::from_secs(10),
        }
    }
}

/// `raw.*` → `events.*`, the same partition.
#[derive(Clone, Debug)]
pub struct Refine {
    config: RefineConfig,
}

/// One partition. What the local state does not hold of its seen-set and sessions is rebuilt from the stage's own output,
/// what it does not hold of the identities from their changelog.
pub struct RefineTask {
    partition: u32,
    source: Source,
    state: State,
    enricher: Enricher,
    last_received_ms: Option<i64>,
    at_end_since_ms: Option<i64>,
    said_idle: bool,
    saved_at_ms: i64,
    /// A save is to follow the commit that was prepared last.
    may_save: bool,
    /// Outputs went with the commit of the last save: its marker lies before them.
    marker_is_behind: bool,
}

impl Refine {
    #[must_use]
    pub fn new(config: RefineConfig) -> Self {
        Self { config }
    }

    fn dedup_ms(&self) -> i64 {
        millis(self.config.dedup_window)
    }

    fn is_idle(&self, task: &RefineTask, now_ms: i64) -> bool {
        let idle_after_ms = millis(self.config.idle_after);
        !task.said_idle && task.at_end_since_ms.is_some_and(|since| now_ms - since >= idle_after_ms)
    }

    fn is_save_due(&self, task: &RefineTask, now_ms: i64) -> bool {
        let has_anything = !task.state.is_saved() || task.marker_is_behind;
        let is_time = now_ms.saturating_sub(task.saved_at_ms).abs() >= millis(self.config.save_interval);
        task.state.is_over_budget() || has_anything && is_time
    }

    /// Says whose a behaviour event is, and of which session.
    fn attribute(
        task: &mut RefineTask,
        record: &Record,
        event: &mut Envelope<'_>,
        out: &mut Outputs,
    ) -> Result<(), EngineError> {
        let State { local, identities, sessions, .. } = &mut task.state;
        let local = local.as_ref();
        if let Some(link) = identities.learn(event, local)? {
            out.put(link_record(&link, task.partition, record.timestamp_ms));
        }
        let user_id = match (&event.user_id, event.anonymous_id.as_deref()) {
            (None, Some(anonymous_id)) => identities.user_of(&event.workspace, anonymous_id, local)?,
            _ => None,
        };
        if let Some(user_id) = user_id {
            event.user_id = Some(Cow::Owned(user_id.to_owned()));
        }
        let place = Place {
            key: &record.key,
            workspace: &event.workspace,
            actor: event.actor(),
            message_id: &event.message_id,
        };
        let session_id = sessions.assign(&place, event.timestamp_ms, record.timestamp_ms, local)?;
        event.session_id = Some(Cow::Owned(session_id));
        Ok(())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Stage for Refine {
    type Task = RefineTask;

    fn name(&self) -> &'static str {
        "refine"
    }

    fn inputs(&self) -> Vec<Topic> {
        Source::ALL.map(Source::raw_topic).to_vec()
    }

    fn outputs(&self) -> Vec<Topic> {
        let mut outputs = Source::ALL.map(Source::events_topic).to_vec();
        outputs.extend([Topic::EventsRejected, Topic::RefineChangelog]);
        outputs
    }

    fn has_local_state(&self) -> bool {
        true
    }

    fn open(
        &self,
        partition: TopicPartition,
        committed: Option<&CommittedOffset>,
        local: Option<LocalState>,
    ) -> Result<RefineTask, EngineError> {
        let source = Source::of_topic(partition.topic).unwrap_or(Source::Behavior);
        let spans = Spans { dedup_ms: self.dedup_ms(), session_gap_ms: millis(self.config.session_gap) };
        let last_received_ms = committed.and_then(last_received);
        Ok(RefineTask {
            partition: partition.partition,
            source,
            state: State::open(source, spans, self.config.memory_per_partition, local, last_received_ms)?,
            enricher: Enricher::default(),
            last_received_ms,
            at_end_since_ms: None,
            said_idle: false,
            saved_at_ms: i64::MIN,
            may_save: false,
            marker_is_behind: false,
        })
    }

    fn restore_plan(&self, partition: TopicPartition, committed: Option<&CommittedOffset>) -> Vec<Restore> {
        let Some(last_received_ms) = committed.and_then(last_received) else { return Vec::new() };
        let source = Source::of_topic(partition.topic).unwrap_or(Source::Behavior);
        let own = TopicPartition { topic: source.events_topic(), partition: partition.partition };
        // One bucket more than the window, as the seen-set keeps it.
        let since_ms = last_received_ms.saturating_sub(self.dedup_ms() + self.dedup_ms() / 8);
        let mut plan = vec![Restore::Since(own, since_ms)];
        if source == Source::Behavior {
            plan.push(Restore::Whole(TopicPartition { topic: Topic::RefineChangelog, ..own }));
        }
        plan
    }

    fn restore(&self, task: &mut RefineTask, record: &Record) -> Result<(), EngineError> {
        if record.topic == Topic::RefineChangelog {
            let link = record.value.as_ref().and_then(|value| serde_json::from_slice::<IdentityLink>(value).ok());
            link.into_iter().for_each(|link| task.state.identities.restore(link));
            return task.state.stay_within_budget();
        }
        let Some(message_id) = record.headers.get(header::MESSAGE_ID) else { return Ok(()) };
        let State { local, seen, sessions, .. } = &mut task.state;
        seen.restore(SeenSet::hash(&record.key, message_id), record.timestamp_ms);
        let session = record.headers.get(header::SESSION).and_then(|bytes| std::str::from_utf8(bytes).ok());
        if let Some((id, event_ms)) = session.and_then(|text| text.rsplit_once('@'))
            && let Ok(event_ms) = event_ms.parse()
        {
            sessions.restore(&record.key, id, event_ms, record.timestamp_ms, local.as_ref())?;
        }
        task.state.stay_within_budget()
    }

    fn process(&self, task: &mut RefineTask, record: &Record, _now_ms: i64, out: &mut Outputs) {
        task.at_end_since_ms = None;
        task.said_idle = false;
        task.last_received_ms = Some(task.last_received_ms.unwrap_or(i64::MIN).max(record.timestamp_ms));
        let Some(value) = &record.value else { return };
        let mut event = match Envelope::decode(value) {
            Ok(event) if event.source() == task.source => event,
            Ok(event) => {
                let detail = format!("a {} event on {}", event.source().as_str(), record.topic);
                return out.reject(record, "refine", "wrong_topic", detail);
            }
            Err(error) => return out.reject(record, "refine", "undecodable", error),
        };
        let State { local, seen, .. } = &mut task.state;
        let hash = SeenSet::hash(&record.key, event.message_id.as_bytes());
        match seen.insert(hash, record.timestamp_ms, local.as_ref()) {
            Ok(true) => {}
            Ok(false) => {
                out.duplicates += 1;
                return;
            }
            Err(error) => return out.fail(error),
        }
        if task.source == Source::Behavior
            && let Err(error) = Self::attribute(task, record, &mut event, out)
        {
            return out.fail(error);
        }
        let (campaign, context) = task.enricher.enrich(&event);
        if let Some(campaign) = campaign {
            event.campaign = Some(Cow::Owned(campaign));
        }
        if let Some(context) = context {
            event.context = Cow::Owned(context);
        }
        let value = Bytes::from(event.encode());
        out.put(NewRecord {
            topic: task.source.events_topic(),
            partition: Some(task.partition),
            key: record.key.clone(),
            headers: event.headers(&value),
            value: Some(value),
            timestamp_ms: record.timestamp_ms,
        });
    }

    fn at_end(&self, task: &mut RefineTask, now_ms: i64) {
        task.at_end_since_ms.get_or_insert(now_ms);
    }

    fn is_due(&self, task: &RefineTask, now_ms: i64) -> bool {
        self.is_idle(task, now_ms) || self.is_save_due(task, now_ms)
    }

    fn prepare_commit(
        &self,
        task: &mut RefineTask,
        next_offset: Option<u64>,
        now_ms: i64,
        out: &mut Outputs,
    ) -> Option<CommittedOffset> {
        if self.is_idle(task, now_ms) {
            task.said_idle = true;
            out.records.push(heartbeat(task, now_ms));
        }
        task.may_save = self.is_save_due(task, now_ms);
        if task.may_save {
            task.marker_is_behind = !out.records.is_empty();
        }
        let metadata = task.last_received_ms.map_or_else(String::new, |ms| format!("received={ms}"));
        next_offset.map(|offset| CommittedOffset { offset, metadata })
    }

    fn state_size(&self, task: &RefineTask) -> (usize, usize) {
        task.state.size()
    }

    fn may_save(&self, task: &RefineTask) -> bool {
        task.may_save
    }

    fn save(&self, task: &mut RefineTask, marker: &Marker) -> Result<(), EngineError> {
        task.may_save = false;
        task.saved_at_ms = marker.saved_at_ms();
        task.state.save(marker)
    }
}

/// Tells downstream that the partition has been read to its end: it holds no window open until its next event.
fn heartbeat(task: &RefineTask, now_ms: i64) -> NewRecord {
    NewRecord {
        topic: task.source.events_topic(),
        partition: Some(task.partition),
        key: Bytes::from_static(HEARTBEAT_KEY),
        value: Some(Bytes::from(serde_json::to_vec(&Heartbeat { idle: true }).unwrap_or_default())),
        headers: Headers::new().with(header::TYPE, Bytes::from_static(b"heartbeat")),
        // Not before the newest event: times within a partition do not go back.
        timestamp_ms: task.last_received_ms.unwrap_or(now_ms),
    }
}

fn last_received(committed: &CommittedOffset) -> Option<i64> {
    committed.metadata.strip_prefix("received=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{MemoryStates, StateStores as _};

    const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");

    fn record(offset: u64, text: &str) -> Record {
        let event = Envelope::decode(text.as_bytes()).unwrap();
        let new = event.to_raw_record();
        Record {
            topic: new.topic,
            partition: 0,
            offset,
            timestamp_ms: new.timestamp_ms,
            key: new.key,
            value: new.value,
            headers: new.headers,
        }
    }

    fn place() -> TopicPartition {
        TopicPartition { topic: Topic::RawBehavior, partition: 0 }
    }

    fn as_read(records: &[NewRecord]) -> Vec<Record> {
        let numbered = records.iter().cloned().zip(0..);
        numbered
            .map(|(new, offset)| Record {
                topic: new.topic,
                partition: new.partition.unwrap_or(0),
                offset,
                timestamp_ms: new.timestamp_ms,
                key: new.key,
                value: new.value,
                headers: new.headers,
            })
            .collect()
    }

    #[test]
    fn each_message_comes_out_once_also_after_a_restore_from_the_output() {
        let stage = Refine::new(RefineConfig::default());
        let mut task = stage.open(place(), None, None).unwrap();
        let mut out = Outputs::default();
        stage.process(&mut task, &record(0, TRACK), 0, &mut out);
        stage.process(&mut task, &record(1, TRACK), 0, &mut out);
        assert_eq!(out.duplicates, 1);
        let committed = stage.prepare_commit(&mut task, Some(2), 0, &mut out).unwrap();
        assert_eq!(committed.offset, 2);
        let written = as_read(&out.records);
        let events = written.iter().filter(|record| record.topic == Topic::EventsBehavior);
        assert_eq!(events.count(), 1);

        let plan = stage.restore_plan(place(), Some(&committed));
        assert_eq!(plan.len(), 2);
        let mut restored = stage.open(place(), Some(&committed), None).unwrap();
        written.iter().for_each(|record| stage.restore(&mut restored, record).unwrap());
        let mut out = Outputs::default();
        stage.process(&mut restored, &record(2, TRACK), 0, &mut out);
        assert_eq!((out.duplicates, out.records.len()), (1, 0));
        // The identity was restored too: the next event without a user id gets it, and goes on in the same session.
        let next = TRACK.replace("m-1", "m-9").replace("\"user_id\":\"user-1\",", "");
        stage.process(&mut restored, &record(3, &next), 0, &mut out);
        let next = Envelope::decode(out.records[0].value.as_ref().unwrap()).unwrap();
        assert_eq!(next.user_id.as_deref(), Some("user-1"));
        let first = Envelope::decode(
            written.iter().find(|r| r.topic == Topic::EventsBehavior).unwrap().value.as_ref().unwrap(),
        )
        .unwrap()
        .session_id
        .unwrap()
        .into_owned();
        assert_eq!(next.session_id.as_deref(), Some(first.as_str()));
    }

    #[test]
    fn poison_goes_to_dead_letters_and_the_partition_goes_on() {
        let stage = Refine::new(RefineConfig::default());
        let mut task = stage.open(place(), None, None).unwrap();
        let mut out = Outputs::default();
        let mut poison = record(0, TRACK);
        poison.value = Some(Bytes::from_static(b"{\xff"));
        stage.process(&mut task, &poison, 0, &mut out);
        assert_eq!((out.dead_letters, out.records[0].topic), (1, Topic::EventsRejected));
        stage.process(&mut task, &record(1, TRACK), 0, &mut out);
        assert!(out.records.iter().any(|record| record.topic == Topic::EventsBehavior));
    }

    #[test]
    fn idle_is_said_once_and_only_at_the_end() {
        let stage = Refine::new(RefineConfig::default());
        let mut task = stage.open(place(), None, None).unwrap();
        assert!(!stage.is_due(&task, 10_000));
        stage.at_end(&mut task, 10_000);
        assert!(!stage.is_due(&task, 10_400));
        assert!(stage.is_due(&task, 10_500));
        let mut out = Outputs::default();
        assert_eq!(stage.prepare_commit(&mut task, None, 10_500, &mut out), None);
        assert_eq!(out.records[0].headers.get(header::TYPE).unwrap(), "heartbeat");
        assert!(!stage.is_due(&task, 20_000));
        stage.process(&mut task, &record(0, TRACK), 0, &mut out);
        stage.at_end(&mut task, 30_000);
        assert!(stage.is_due(&task, 30_500));
    }

    /// Its own outputs lie after the marker of a save: were it the last one, each start would read them again.
    #[test]
    fn a_save_whose_commit_had_outputs_is_followed_by_another() {
        let stage = Refine::new(RefineConfig::default());
        let local = LocalState::empty(MemoryStates::default().open("refine", place()).unwrap()).unwrap();
        let mut task = stage.open(place(), None, Some(local)).unwrap();
        let mut out = Outputs::default();
        stage.process(&mut task, &record(0, TRACK), 0, &mut out);
        let mut saves = 0;
        for now_ms in (0..60_000).step_by(1_000).skip(1) {
            if stage.is_due(&task, now_ms) {
                stage.prepare_commit(&mut task, Some(1), now_ms, &mut std::mem::take(&mut out));
                assert!(stage.may_save(&task));
                stage.save(&mut task, &Marker::detached(now_ms)).unwrap();
                saves += 1;
            }
        }
        assert_eq!(saves, 2);
    }
}

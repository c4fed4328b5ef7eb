//! What the stages say of themselves, and what the engine takes for granted where they say nothing.

use bytes::Bytes;
use neonhub_processors::engine::{EngineError, LocalState, Outputs, Restore, Stage};
use neonhub_processors::metrics::{MergeConfig, MetricsMerge, MetricsPartial, PartialConfig};
use neonhub_processors::refine::{Refine, RefineConfig};
use neonhub_schemas::dead_letter::DeadLetter;
use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use crate::fake_ports::record;

#[test]
fn each_stage_reads_and_writes_its_topics() {
    let refine = Refine::new(RefineConfig::default());
    assert_eq!(refine.name(), "refine");
    assert_eq!(refine.inputs(), [Topic::RawBehavior, Topic::RawCampaign, Topic::RawIntegration]);
    let events = [Topic::EventsBehavior, Topic::EventsCampaign, Topic::EventsIntegration];
    assert_eq!(refine.outputs(), [&events[..], &[Topic::EventsRejected, Topic::RefineChangelog]].concat());

    let partial = MetricsPartial::new(PartialConfig::default());
    assert_eq!(partial.name(), "metrics.partial");
    assert_eq!(partial.inputs(), events);
    assert_eq!(partial.globals(), [Topic::Control]);
    assert_eq!(partial.outputs(), [Topic::MetricsPartials, Topic::MetricsActivations, Topic::EventsRejected]);

    let merge = MetricsMerge::new(MergeConfig::default()).unwrap();
    assert_eq!(merge.name(), "metrics.merge");
    assert_eq!(merge.inputs(), [Topic::MetricsPartials]);
    assert_eq!(merge.outputs(), [Topic::MetricsWindows, Topic::MetricsChangelog, Topic::EventsRejected]);
}

/// A stage that says no more than it must.
struct Silent;

impl Stage for Silent {
    type Task = ();

    fn name(&self) -> &'static str {
        "silent"
    }

    fn inputs(&self) -> Vec<Topic> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<Topic> {
        Vec::new()
    }

    fn open(
        &self,
        _place: TopicPartition,
        _committed: Option<&CommittedOffset>,
        _local: Option<LocalState>,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    fn restore_plan(&self, _place: TopicPartition, _committed: Option<&CommittedOffset>) -> Vec<Restore> {
        Vec::new()
    }

    fn restore(&self, _task: &mut (), _record: &Record) -> Result<(), EngineError> {
        Ok(())
    }

    fn process(&self, _task: &mut (), _record: &Record, _now_ms: i64, _out: &mut Outputs) {}

    fn prepare_commit(&self, _: &mut (), _: Option<u64>, _now_ms: i64, _: &mut Outputs) -> Option<CommittedOffset> {
        None
    }
}

#[test]
fn a_stage_that_says_nothing_is_never_due_and_has_no_state() {
    assert!(!Silent.is_due(&(), i64::MAX));
    assert_eq!((Silent.watermark_ms(&()), Silent.state_size(&())), (None, (0, 0)));
    assert!(!Silent.has_local_state() && !Silent.may_save(&()));
}

#[test]
fn a_dead_letter_says_where_its_record_stood_and_why_it_was_set_aside() {
    let place = TopicPartition { topic: Topic::RawCampaign, partition: 2 };
    let key = Bytes::from_static(b"acme|anna");
    let mut out = Outputs::default();
    out.reject(&Record { key, ..record(place, 9, "{") }, "refine", "undecodable", "ends early");
    let letter: DeadLetter = serde_json::from_slice(out.records[0].value.as_ref().unwrap()).unwrap();
    let expected = DeadLetter {
        workspace: "acme".into(),
        reason: "undecodable".into(),
        detail: "ends early".into(),
        stage: "refine".into(),
        place: "raw.campaign/2@9".into(),
        received_at: 9,
        original: "{".into(),
        original_size: 1,
        ..DeadLetter::default()
    };
    assert_eq!((out.dead_letters, letter), (1, expected));
}

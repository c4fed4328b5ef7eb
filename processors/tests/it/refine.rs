//! The refine stage over records: its window, its restore plan, what it learns and what it sets aside.

use std::time::Duration;

use neonhub_processors::engine::{Outputs, Restore, Stage};
use neonhub_processors::refine::{Refine, RefineConfig, RefineTask};
use neonhub_schemas::dead_letter::DeadLetter;
use neonhub_schemas::event::{Envelope, Source};
use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");
const CAMPAIGN: &str = include_str!("../../../schemas/golden/envelope-v1-campaign.json");
const MINUTE_MS: i64 = 60_000;

struct Bench {
    stage: Refine,
    task: RefineTask,
    place: TopicPartition,
    out: Outputs,
}

impl Bench {
    fn of(source: Source) -> Self {
        let stage = Refine::new(RefineConfig::default());
        let place = TopicPartition { topic: source.raw_topic(), partition: 0 };
        Self { task: stage.open(place, None, None).unwrap(), stage, place, out: Outputs::default() }
    }

    /// Processes an event that was received at this time.
    fn feed(&mut self, text: &str, received_ms: i64) {
        let raw = Envelope::decode(text.as_bytes()).unwrap().to_raw_record();
        let record = Record {
            topic: self.place.topic,
            partition: 0,
            offset: 0,
            timestamp_ms: received_ms,
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
        };
        self.stage.process(&mut self.task, &record, 0, &mut self.out);
    }

    fn refined(&self) -> Vec<Envelope<'_>> {
        let values = self.out.records.iter().filter(|record| Source::of_topic(record.topic).is_some());
        values.map(|record| Envelope::decode(record.value.as_ref().unwrap()).unwrap()).collect()
    }
}

fn message(id: &str) -> String {
    TRACK.replace("m-1", id)
}

#[test]
fn a_retry_is_dropped_for_the_whole_window_and_not_much_longer() {
    let mut bench = Bench::of(Source::Behavior);
    for minute in [0, 30, 59] {
        bench.feed(TRACK, minute * MINUTE_MS);
    }
    assert_eq!((bench.refined().len(), bench.out.duplicates), (1, 2));
    bench.feed(TRACK, 120 * MINUTE_MS);
    assert_eq!((bench.refined().len(), bench.out.duplicates), (2, 2));
}

#[test]
fn what_is_restored_reaches_back_the_window_and_an_eighth() {
    let stage = Refine::new(RefineConfig { dedup_window: Duration::from_secs(8), ..RefineConfig::default() });
    let committed = CommittedOffset { offset: 3, metadata: "received=100000".to_owned() };
    let plan = |topic| stage.restore_plan(TopicPartition { topic, partition: 2 }, Some(&committed));
    let place = |topic| TopicPartition { topic, partition: 2 };
    let since = |topic| Restore::Since(place(topic), 91_000);
    let behavior = [since(Topic::EventsBehavior), Restore::Whole(place(Topic::RefineChangelog))];
    assert_eq!(plan(Topic::RawBehavior), behavior);
    assert_eq!(plan(Topic::RawCampaign), [since(Topic::EventsCampaign)]);
    assert_eq!(stage.restore_plan(place(Topic::RawCampaign), None), [], "nothing was ever committed");
}

#[test]
fn an_event_of_another_source_is_set_aside() {
    let mut bench = Bench::of(Source::Behavior);
    bench.feed(CAMPAIGN, 0);
    assert_eq!((bench.out.dead_letters, bench.refined().len()), (1, 0));
    let letter: DeadLetter = serde_json::from_slice(bench.out.records[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((letter.reason.as_str(), letter.stage.as_str()), ("wrong_topic", "refine"));
}

#[test]
fn an_alias_teaches_whose_the_former_id_was() {
    let mut bench = Bench::of(Source::Behavior);
    let alias = message("m-2")
        .replace(r#""kind":"track","name":"Order Completed""#, r#""kind":"alias","name":"""#)
        .replace(r#""anonymous_id":"anon-1""#, r#""previous_id":"guest-7""#);
    bench.feed(&alias, 0);
    let later = |id: &str, anonymous: &str| {
        let text = message(id).replace(r#""user_id":"user-1","#, "");
        text.replace("anon-1", anonymous)
    };
    bench.feed(&later("m-3", "guest-7"), 0);
    bench.feed(&later("m-4", "guest-8"), 0);
    let users: Vec<_> = bench.refined().iter().map(|event| event.user_id.as_deref().map(str::to_owned)).collect();
    assert_eq!(users[1..], [Some("user-1".to_owned()), None], "only the id that was named");
}

#[test]
fn a_campaign_that_the_sender_named_stays() {
    let mut bench = Bench::of(Source::Behavior);
    bench.feed(&TRACK.replace(r#""context":{"#, r#""context":{"campaign":{"name":"winter"},"#), 0);
    assert_eq!(bench.refined()[0].campaign.as_deref(), Some("spring"));
}

#[test]
fn the_state_grows_with_messages_sessions_and_identities() {
    let state_after = |source: Source, texts: &[String]| {
        let mut bench = Bench::of(source);
        texts.iter().for_each(|text| bench.feed(text, 0));
        bench.stage.state_size(&bench.task)
    };
    // Two messages of one actor, whose user is known, and one of an actor without.
    let unknown = message("m-9").replace("anon-1", "anon-9").replace(r#""user_id":"user-1","#, "");
    let (entries, bytes) = state_after(Source::Behavior, &[message("m-1"), message("m-2"), unknown]);
    let campaigns = ["m-1", "m-2", "m-3"].map(|id| CAMPAIGN.replace("m-2", id));
    let (campaign_entries, campaign_bytes) = state_after(Source::Campaign, &campaigns);
    assert_eq!(campaign_entries, 3, "messages");
    assert_eq!(entries, 3 + 2 + 1, "messages, sessions, links");
    assert!((2 * 80 + 60..1_000).contains(&(bytes - campaign_bytes)), "{bytes} and {campaign_bytes} bytes");
}

//! Records as rows: each topic into its table, and what is no row into dead letters.

use bytes::Bytes;
use neonhub_processors::landing::{
    ActivationRow, AuditRow, BatchLimits, Block, DeadLetterRow, EventRow, PartitionBuffer, Table, WindowRow,
};
use neonhub_schemas::audit::AuditRecord;
use neonhub_schemas::codec::header;
use neonhub_schemas::control::Activation;
use neonhub_schemas::dead_letter::DeadLetter;
use neonhub_schemas::event::{Envelope, Source};
use neonhub_schemas::metric::{DefinitionText, MetricKey};
use neonhub_schemas::record::{Headers, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Epoch, Grain, WindowState, WindowUpsert};

use crate::fake_ports::record;

const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");
const CAMPAIGN: &str = include_str!("../../../schemas/golden/envelope-v1-campaign.json");
const INTEGRATION: &str = include_str!("../../../schemas/golden/envelope-v1-integration.json");

fn at(topic: Topic, offset: u64, value: &str) -> Record {
    record(TopicPartition { topic, partition: 3 }, offset, value)
}

/// The rows of some records, and a dead letter for each that is none.
fn rows(records: &[Record]) -> (Block, Vec<DeadLetterRow>) {
    let limits = BatchLimits { max_rows: 100, max_bytes: usize::MAX };
    let mut buffer = PartitionBuffer::open(records[0].topic_partition(), None, limits);
    assert!(records.iter().all(|record| buffer.push(record, 0)));
    buffer.plan(0).unwrap();
    let batch = buffer.begin().unwrap();
    (batch.rows.clone(), batch.unlandable.clone())
}

#[test]
fn each_table_has_the_name_that_the_migrations_give_it() {
    let tables = [Table::Events, Table::MetricWindows, Table::MetricActivations, Table::DeadLetters, Table::AuditLog];
    let names = ["events", "metric_windows", "metric_activations", "dead_letters", "audit_log"];
    assert_eq!(tables.map(Table::name), names);
}

#[test]
fn events_of_every_source_become_event_rows() {
    let of_source =
        [(Source::Behavior, TRACK, 1), (Source::Campaign, CAMPAIGN, 2), (Source::Integration, INTEGRATION, 3)];
    for (source, text, number) in of_source {
        let raw = Envelope::decode(text.as_bytes()).unwrap().to_raw_record();
        let event = Record { value: raw.value, headers: raw.headers, ..at(source.events_topic(), 8, "") };
        let headers = Headers::new().with(header::TYPE, Bytes::from_static(b"heartbeat"));
        let heartbeat = Record { headers, offset: 7, ..event.clone() };
        let tombstone = Record { value: None, offset: 9, ..event.clone() };
        let (block, dead) = rows(&[heartbeat, event, tombstone]);
        assert_eq!((block.table, block.len(), dead.len()), (Table::Events, 1, 0), "others have no row");
        let row = EventRow::read(block.rows().next().unwrap()).unwrap();
        assert_eq!((row.source, row.partition, row.offset), (number, 3, 8));
    }
}

fn window(grain: Grain) -> WindowRow {
    let key = MetricKey {
        workspace: "acme".into(),
        metric: "spend".into(),
        series: 2,
        dimensions: [("campaign".into(), "men".into())].into(),
    };
    let upsert = WindowUpsert {
        key,
        source: Source::Campaign,
        grain,
        zone: "Asia/Tokyo".into(),
        window_start: 1_574_553_600,
        window_end: 1_574_557_200,
        epoch: Epoch { partition: 1, offset: 7 },
        revision: 4,
        r#final: true,
        state: WindowState { count: 3, ..WindowState::default() },
        as_of: 9,
        updated_at: 5,
    };
    let value = serde_json::to_string(&upsert).unwrap();
    let (block, _) = rows(&[at(Topic::MetricsWindows, 0, &value)]);
    assert_eq!(block.table, Table::MetricWindows);
    WindowRow::read(block.rows().next().unwrap()).unwrap()
}

#[test]
fn windows_become_window_rows() {
    let row = window(Grain::Hour);
    assert_eq!((row.workspace.as_str(), row.metric.as_str(), row.series), ("acme", "spend", 2));
    assert_eq!((row.key.as_str(), row.epoch.as_str(), row.revision), (r#"{"campaign":"men"}"#, "1-7", 4));
    assert_eq!((row.window_start, row.window_end, row.zone.as_str()), (1_574_553_600, 1_574_557_200, "Asia/Tokyo"));
    assert_eq!((row.count, row.r#final, row.updated_at), (3, true, 5));
    // As the enum of the table numbers them.
    assert_eq!(Grain::ALL.map(|grain| window(grain).grain), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn activations_and_dead_letters_have_tables_of_their_own() {
    let activation = Activation {
        workspace: "acme".into(),
        metric: "orders".into(),
        series: 5,
        source: Source::Campaign,
        partition: 1,
        from_offset: 10,
        until_offset: Some(20),
        definition: DefinitionText::default(),
    };
    let value = serde_json::to_string(&activation).unwrap();
    let (block, dead) = rows(&[at(Topic::MetricsActivations, 6, &value)]);
    assert!(dead.is_empty());
    assert_eq!(block.table, Table::MetricActivations);
    let row = ActivationRow::read(block.rows().next().unwrap()).unwrap();
    assert_eq!((row.source, row.partition, row.from_offset, row.until_offset, row.position), (2, 1, 10, Some(20), 6));

    let letter = DeadLetter { workspace: "acme".into(), reason: "invalid_field".into(), ..DeadLetter::default() };
    let NewRecord { value, .. } = letter.to_record();
    let letters: Vec<Record> =
        (4..6).map(|offset| Record { value: value.clone(), ..at(Topic::EventsRejected, offset, "") }).collect();
    let (found, dead) = rows(&letters);
    assert!(dead.is_empty() && !found.is_empty());
    assert_eq!((found.table, found.len()), (Table::DeadLetters, 2));
    let extent = found.extent().unwrap();
    assert_eq!((extent.first_offset, extent.last_offset), (4, 5));
    let left = found.without(&[4].into());
    assert_eq!(left.offsets().collect::<Vec<_>>(), [5]);
    let row = DeadLetterRow::read(left.rows().next().unwrap()).unwrap();
    assert_eq!((row.offset, row.reason.as_str()), (5, "invalid_field"));
}

#[test]
fn changes_become_rows_of_the_audit_log() {
    let change = AuditRecord {
        id: "acme|key|00ab|2".into(),
        workspace: "acme".into(),
        at: 1_574_553_600_000,
        actor: "bootstrap".into(),
        action: "key.revoke".into(),
        resource: "key/00ab".into(),
        revision: 2,
        state: "{}".into(),
    };
    let NewRecord { value, .. } = change.to_record();
    let (block, dead) = rows(&[Record { value, ..at(Topic::AuditLog, 4, "") }]);
    assert!(dead.is_empty());
    assert_eq!(block.table, Table::AuditLog);
    let row = AuditRow::read(block.rows().next().unwrap()).unwrap();
    assert_eq!((row.id.as_str(), row.action.as_str(), row.at), ("acme|key|00ab|2", "key.revoke", 1_574_553_600_000));
    assert_eq!((row.revision, row.partition, row.offset), (2, 3, 4));
}

#[test]
fn what_is_no_row_is_set_aside_with_its_place() {
    let topics = [
        Topic::EventsCampaign,
        Topic::MetricsWindows,
        Topic::MetricsActivations,
        Topic::EventsRejected,
        Topic::AuditLog,
    ];
    for topic in topics {
        let headers = Headers::new().with(header::WORKSPACE, Bytes::from_static(b"acme"));
        let (rows, dead) = rows(&[Record { headers, ..at(topic, 12, "{\"not\":") }]);
        assert!(rows.is_empty());
        let [letter] = dead.as_slice() else { panic!("{} dead letters", dead.len()) };
        assert_eq!((letter.workspace.as_str(), letter.reason.as_str()), ("acme", "unlandable"));
        assert_eq!((letter.stage.as_str(), letter.place.clone()), ("landing", format!("{topic}/3@12")));
        assert!(!letter.detail.is_empty());
        assert_eq!((letter.received_at, letter.original.as_str(), letter.original_size), (12, "{\"not\":", 7));
        assert_eq!((letter.partition, letter.offset), (3, 12));
    }
}

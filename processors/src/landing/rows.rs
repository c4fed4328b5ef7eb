//! Pure: no I/O, no clock, no async.
//!
//! Records as rows. Field order and types are those of the migrations.

use clickhouse::Row;
use neonhub_schemas::codec::header;
use neonhub_schemas::control::Activation;
use neonhub_schemas::dead_letter::{DeadLetter, Encoding};
use neonhub_schemas::event::{Envelope, Source};
use neonhub_schemas::record::Record;
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::WindowUpsert;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Events,
    MetricWindows,
    MetricActivations,
    DeadLetters,
}

impl Table {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::MetricWindows => "metric_windows",
            Self::MetricActivations => "metric_activations",
            Self::DeadLetters => "dead_letters",
        }
    }
}

/// Times are milliseconds (`DateTime64(3)`) or seconds (`DateTime`), decimals millionths.
#[derive(Clone, Debug, PartialEq, Row, Serialize)]
pub struct EventRow {
    pub workspace: String,
    pub message_id: String,
    pub source: i8,
    pub kind: &'static str,
    pub name: String,
    pub user_id: String,
    pub anonymous_id: String,
    pub group_id: String,
    pub previous_id: String,
    pub session_id: String,
    pub campaign: String,
    pub platform: String,
    pub value: Option<i128>,
    pub timestamp: i64,
    pub received_at: i64,
    /// JSON text.
    pub properties: String,
    pub context: String,
    pub partition: u32,
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq, Row, Serialize)]
pub struct WindowRow {
    pub workspace: String,
    pub metric: String,
    pub series: u64,
    pub grain: i8,
    pub zone: String,
    pub window_start: u32,
    pub window_end: u32,
    pub key: String,
    pub dimensions: std::collections::BTreeMap<String, String>,
    pub epoch: String,
    pub revision: u64,
    pub r#final: bool,
    pub count: u64,
    pub sum: i128,
    pub min: Option<i128>,
    pub max: Option<i128>,
    #[serde(with = "serde_bytes")]
    pub distinct: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub distribution: Vec<u8>,
    pub updated_at: i64,
}

#[derive(Clone, Debug, PartialEq, Row, Serialize)]
pub struct ActivationRow {
    pub workspace: String,
    pub metric: String,
    pub series: u64,
    pub source: i8,
    pub partition: u32,
    pub from_offset: u64,
    pub until_offset: Option<u64>,
    /// JSON text.
    pub definition: String,
    pub position: u64,
}

#[derive(Clone, Debug, PartialEq, Row, Serialize)]
pub struct DeadLetterRow {
    pub workspace: String,
    pub reason: String,
    pub detail: String,
    pub field: String,
    pub stage: String,
    pub place: String,
    pub received_at: i64,
    pub original: String,
    pub encoding: &'static str,
    pub original_size: u64,
    pub partition: u32,
    pub offset: u64,
}

/// Rows for one table, in the order of their offsets.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    Events(Vec<EventRow>),
    Windows(Vec<WindowRow>),
    Activations(Vec<ActivationRow>),
    DeadLetters(Vec<DeadLetterRow>),
}

impl Rows {
    #[must_use]
    pub fn table(&self) -> Table {
        match self {
            Self::Events(_) => Table::Events,
            Self::Windows(_) => Table::MetricWindows,
            Self::Activations(_) => Table::MetricActivations,
            Self::DeadLetters(_) => Table::DeadLetters,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Events(rows) => rows.len(),
            Self::Windows(rows) => rows.len(),
            Self::Activations(rows) => rows.len(),
            Self::DeadLetters(rows) => rows.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves out the rows with these offsets. Only events and dead letters have an offset; other tables replace rows.
    #[must_use]
    pub fn without(self, landed: &std::collections::BTreeSet<u64>) -> Self {
        match self {
            Self::Events(mut rows) => {
                rows.retain(|row| !landed.contains(&row.offset));
                Self::Events(rows)
            }
            Self::DeadLetters(mut rows) => {
                rows.retain(|row| !landed.contains(&row.offset));
                Self::DeadLetters(rows)
            }
            other => other,
        }
    }

    /// Cuts in two halves, to find the row that is at fault.
    #[must_use]
    pub fn halves(self) -> (Self, Self) {
        fn cut<T>(mut rows: Vec<T>) -> (Vec<T>, Vec<T>) {
            let second = rows.split_off(rows.len() / 2);
            (rows, second)
        }
        match self {
            Self::Events(rows) => {
                let (first, second) = cut(rows);
                (Self::Events(first), Self::Events(second))
            }
            Self::Windows(rows) => {
                let (first, second) = cut(rows);
                (Self::Windows(first), Self::Windows(second))
            }
            Self::Activations(rows) => {
                let (first, second) = cut(rows);
                (Self::Activations(first), Self::Activations(second))
            }
            Self::DeadLetters(rows) => {
                let (first, second) = cut(rows);
                (Self::DeadLetters(first), Self::DeadLetters(second))
            }
        }
    }
}

/// The rows of a batch, and a dead letter for each record that is none. Heartbeats and tombstones have no row.
#[must_use]
pub fn rows_of<'a>(topic: Topic, records: impl Iterator<Item = &'a Record>) -> (Rows, Vec<DeadLetterRow>) {
    let mut dead = Vec::new();
    let with_value = records.filter(|record| record.headers.get(header::TYPE).is_none());
    let with_value = with_value.filter_map(|record| record.value.as_deref().map(|value| (record, value)));
    let mut keep = |row: Result<(), String>, record: &Record| {
        if let Err(detail) = row {
            dead.push(dead_letter_of(record, &detail));
        }
    };
    let rows = match topic {
        Topic::MetricsWindows => {
            let mut rows = Vec::new();
            with_value.for_each(|(record, value)| keep(window_row(value).map(|row| rows.push(row)), record));
            Rows::Windows(rows)
        }
        Topic::MetricsActivations => {
            let mut rows = Vec::new();
            with_value
                .for_each(|(record, value)| keep(activation_row(record, value).map(|row| rows.push(row)), record));
            Rows::Activations(rows)
        }
        Topic::EventsRejected => {
            let mut rows = Vec::new();
            with_value
                .for_each(|(record, value)| keep(dead_letter_row(record, value).map(|row| rows.push(row)), record));
            Rows::DeadLetters(rows)
        }
        _ => {
            let mut rows = Vec::new();
            with_value.for_each(|(record, value)| keep(event_row(record, value).map(|row| rows.push(row)), record));
            Rows::Events(rows)
        }
    };
    (rows, dead)
}

fn source_number(source: Source) -> i8 {
    match source {
        Source::Behavior => 1,
        Source::Campaign => 2,
        Source::Integration => 3,
    }
}

fn event_row(record: &Record, value: &[u8]) -> Result<EventRow, String> {
    let event = Envelope::decode(value).map_err(|error| error.to_string())?;
    let text = |id: Option<std::borrow::Cow<'_, str>>| id.map_or_else(String::new, std::borrow::Cow::into_owned);
    Ok(EventRow {
        source: source_number(event.source()),
        workspace: event.workspace.into_owned(),
        message_id: event.message_id.into_owned(),
        kind: event.kind.as_str(),
        name: event.name.into_owned(),
        user_id: text(event.user_id),
        anonymous_id: text(event.anonymous_id),
        group_id: text(event.group_id),
        previous_id: text(event.previous_id),
        session_id: text(event.session_id),
        campaign: text(event.campaign),
        platform: text(event.platform),
        value: event.value.map(neonhub_schemas::Micros::raw),
        timestamp: event.timestamp_ms,
        received_at: event.received_at_ms,
        properties: event.properties.into_owned(),
        context: event.context.into_owned(),
        partition: record.partition,
        offset: record.offset,
    })
}

fn window_row(value: &[u8]) -> Result<WindowRow, String> {
    let upsert: WindowUpsert = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let (distinct, distribution) = upsert.state.sketch_bytes().map_err(|error| error.to_string())?;
    let second = |second: i64| u32::try_from(second).map_err(|_| format!("window at {second} is out of range"));
    Ok(WindowRow {
        key: upsert.key.dimensions_text(),
        workspace: upsert.key.workspace,
        metric: upsert.key.metric,
        series: upsert.key.series,
        grain: upsert.grain as i8 + 1,
        zone: upsert.zone,
        window_start: second(upsert.window_start)?,
        window_end: second(upsert.window_end)?,
        dimensions: upsert.key.dimensions,
        epoch: upsert.epoch.to_string(),
        revision: upsert.revision,
        r#final: upsert.r#final,
        count: upsert.state.count,
        sum: upsert.state.sum.raw(),
        min: upsert.state.min.map(neonhub_schemas::Micros::raw),
        max: upsert.state.max.map(neonhub_schemas::Micros::raw),
        distinct,
        distribution,
        updated_at: upsert.updated_at,
    })
}

fn activation_row(record: &Record, value: &[u8]) -> Result<ActivationRow, String> {
    let activation: Activation = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    Ok(ActivationRow {
        source: source_number(activation.source),
        workspace: activation.workspace,
        metric: activation.metric,
        series: activation.series,
        partition: activation.partition,
        from_offset: activation.from_offset,
        until_offset: activation.until_offset,
        definition: serde_json::to_string(&activation.definition).map_err(|error| error.to_string())?,
        position: record.offset,
    })
}

fn dead_letter_row(record: &Record, value: &[u8]) -> Result<DeadLetterRow, String> {
    let letter: DeadLetter = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    Ok(letter_row(record, letter))
}

fn letter_row(record: &Record, letter: DeadLetter) -> DeadLetterRow {
    DeadLetterRow {
        workspace: letter.workspace,
        reason: letter.reason,
        detail: letter.detail,
        field: letter.field.unwrap_or_default(),
        stage: letter.stage,
        place: letter.place,
        received_at: letter.received_at,
        original: letter.original,
        encoding: match letter.encoding {
            Encoding::Text => "text",
            Encoding::Base64 => "base64",
        },
        original_size: letter.original_size,
        partition: record.partition,
        offset: record.offset,
    }
}

/// The landing's own dead letter for a record that has no row.
#[must_use]
pub fn dead_letter_of(record: &Record, detail: &str) -> DeadLetterRow {
    let workspace = record.headers.get(header::WORKSPACE);
    let letter = DeadLetter {
        workspace: workspace.map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned()),
        reason: "unlandable".to_owned(),
        detail: detail.to_owned(),
        stage: "landing".to_owned(),
        place: format!("{}/{}@{}", record.topic, record.partition, record.offset),
        received_at: record.timestamp_ms,
        ..DeadLetter::default()
    };
    letter_row(record, letter.with_original(record.value.as_deref().unwrap_or_default()))
}

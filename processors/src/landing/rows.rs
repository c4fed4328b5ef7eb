//! Pure: no I/O, no clock, no async.
//!
//! Records as rows. Field order and types are those of the migrations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use neonhub_schemas::audit::AuditRecord;
use neonhub_schemas::codec::header;
use neonhub_schemas::control::Activation;
use neonhub_schemas::dead_letter::{DeadLetter, Encoding};
use neonhub_schemas::event::{Envelope, Source};
use neonhub_schemas::record::Record;
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::WindowUpsert;

use super::row_binary::Column;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Events,
    MetricWindows,
    MetricActivations,
    DeadLetters,
    AuditLog,
}

impl Table {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::MetricWindows => "metric_windows",
            Self::MetricActivations => "metric_activations",
            Self::DeadLetters => "dead_letters",
            Self::AuditLog => "audit_log",
        }
    }

    /// The table of a topic's rows.
    #[must_use]
    pub fn of(topic: Topic) -> Self {
        match topic {
            Topic::MetricsWindows => Self::MetricWindows,
            Topic::MetricsActivations => Self::MetricActivations,
            Topic::EventsRejected => Self::DeadLetters,
            Topic::AuditLog => Self::AuditLog,
            _ => Self::Events,
        }
    }

    /// In the order of a row's values.
    #[must_use]
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Events => EventRow::COLUMNS,
            Self::MetricWindows => WindowRow::COLUMNS,
            Self::MetricActivations => ActivationRow::COLUMNS,
            Self::DeadLetters => DeadLetterRow::COLUMNS,
            Self::AuditLog => AuditRow::COLUMNS,
        }
    }
}

/// A struct whose fields are the columns of a table, in the order in which they are written.
macro_rules! row {
    ($(#[$attribute:meta])* $name:ident<$life:lifetime> { $($(#[$of_field:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name<$life> { $($(#[$of_field])* pub $field: $kind,)* }
        row!(impl [<$life>] $name<$life>, &$life [u8] { $($field: $kind,)* });
    };
    ($(#[$attribute:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$of_field])* pub $field: $kind,)* }
        row!(impl [] $name, &[u8] { $($field: $kind,)* });
    };
    (impl [$($generics:tt)*] $name:ty, $bytes:ty { $($field:ident: $kind:ty,)* }) => {
        impl $($generics)* $name {
            pub(super) const COLUMNS: &'static [&'static str] = &[$(stringify!($field)),*];

            pub(super) fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)*
            }

            /// The row that was written as `bytes`; `None`: they are none, or more than one.
            #[must_use]
            pub fn read(mut bytes: $bytes) -> Option<Self> {
                let row = Self { $($field: <$kind>::read(&mut bytes)?,)* };
                bytes.is_empty().then_some(row)
            }
        }
    };
}

row! {
    /// Times are milliseconds (`DateTime64(3)`) or seconds (`DateTime`), decimals millionths.
    EventRow<'a> {
        workspace: Cow<'a, str>,
        message_id: Cow<'a, str>,
        source: i8,
        kind: Cow<'a, str>,
        name: Cow<'a, str>,
        user_id: Cow<'a, str>,
        anonymous_id: Cow<'a, str>,
        group_id: Cow<'a, str>,
        previous_id: Cow<'a, str>,
        session_id: Cow<'a, str>,
        campaign: Cow<'a, str>,
        platform: Cow<'a, str>,
        value: Option<i128>,
        timestamp: i64,
        received_at: i64,
        /// JSON text.
        properties: Cow<'a, str>,
        context: Cow<'a, str>,
        partition: u32,
        offset: u64,
    }
}

row! {
    WindowRow {
        workspace: String,
        metric: String,
        series: u64,
        grain: i8,
        zone: String,
        window_start: u32,
        window_end: u32,
        key: String,
        dimensions: BTreeMap<String, String>,
        epoch: String,
        revision: u64,
        r#final: bool,
        count: u64,
        sum: i128,
        min: Option<i128>,
        max: Option<i128>,
        distinct: Vec<u8>,
        distribution: Vec<u8>,
        updated_at: i64,
    }
}

row! {
    ActivationRow {
        workspace: String,
        metric: String,
        series: u64,
        source: i8,
        partition: u32,
        from_offset: u64,
        until_offset: Option<u64>,
        /// JSON text.
        definition: String,
        position: u64,
    }
}

row! {
    DeadLetterRow {
        workspace: String,
        reason: String,
        detail: String,
        field: String,
        stage: String,
        place: String,
        received_at: i64,
        original: String,
        encoding: String,
        original_size: u64,
        partition: u32,
        offset: u64,
    }
}

row! {
    AuditRow {
        workspace: String,
        id: String,
        at: i64,
        actor: String,
        action: String,
        resource: String,
        revision: u64,
        /// JSON text.
        state: String,
        partition: u32,
        offset: u64,
    }
}

/// Writes the row of a record and returns its own time (milliseconds); heartbeats and tombstones have no row.
///
/// # Errors
/// The record is none of its topic's; nothing is written.
pub(super) fn write_row(record: &Record, out: &mut Vec<u8>) -> Result<Option<i64>, String> {
    let Some(value) = record.value.as_deref().filter(|_| record.headers.get(header::TYPE).is_none()) else {
        return Ok(None);
    };
    let at_ms = match Table::of(record.topic) {
        Table::Events => {
            let row = event_row(record, value)?;
            row.write(out);
            row.timestamp
        }
        Table::MetricWindows => {
            let row = window_row(value)?;
            row.write(out);
            row.updated_at
        }
        Table::MetricActivations => {
            activation_row(record, value)?.write(out);
            record.timestamp_ms
        }
        Table::DeadLetters => {
            let letter: DeadLetter = serde_json::from_slice(value).map_err(|error| error.to_string())?;
            let row = letter_row(record, letter);
            row.write(out);
            row.received_at
        }
        Table::AuditLog => {
            let row = audit_row(record, value)?;
            row.write(out);
            row.at
        }
    };
    Ok(Some(at_ms))
}

/// The number of a family of events in the tables' enums.
pub(super) fn source_number(source: Source) -> i8 {
    match source {
        Source::Behavior => 1,
        Source::Campaign => 2,
        Source::Integration => 3,
    }
}

fn event_row<'a>(record: &Record, value: &'a [u8]) -> Result<EventRow<'a>, String> {
    let event = Envelope::decode(value).map_err(|error| error.to_string())?;
    Ok(EventRow {
        source: source_number(event.source()),
        workspace: event.workspace,
        message_id: event.message_id,
        kind: Cow::Borrowed(event.kind.as_str()),
        name: event.name,
        user_id: event.user_id.unwrap_or_default(),
        anonymous_id: event.anonymous_id.unwrap_or_default(),
        group_id: event.group_id.unwrap_or_default(),
        previous_id: event.previous_id.unwrap_or_default(),
        session_id: event.session_id.unwrap_or_default(),
        campaign: event.campaign.unwrap_or_default(),
        platform: event.platform.unwrap_or_default(),
        value: event.value.map(neonhub_schemas::Micros::raw),
        timestamp: event.timestamp_ms,
        received_at: event.received_at_ms,
        properties: event.properties,
        context: event.context,
        partition: record.partition,
        offset: record.offset,
    })
}

fn window_row(value: &[u8]) -> Result<WindowRow, String> {
    let upsert = WindowUpsert::decode(value).map_err(|error| error.to_string())?;
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
            Encoding::Text => "text".to_owned(),
            Encoding::Base64 => "base64".to_owned(),
        },
        original_size: letter.original_size,
        partition: record.partition,
        offset: record.offset,
    }
}

fn audit_row(record: &Record, value: &[u8]) -> Result<AuditRow, String> {
    let audit: AuditRecord = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    Ok(AuditRow {
        workspace: audit.workspace,
        id: audit.id,
        at: audit.at,
        actor: audit.actor,
        action: audit.action,
        resource: audit.resource,
        revision: audit.revision,
        state: audit.state,
        partition: record.partition,
        offset: record.offset,
    })
}

/// The landing's own dead letter for a record that has no row.
#[must_use]
pub(super) fn dead_letter_of(record: &Record, detail: &str) -> DeadLetterRow {
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

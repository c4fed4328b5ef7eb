//! Pure: no I/O, no clock, no async.
//!
//! The recount: plain loops over raw events.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use clickhouse::Row;
use neonhub_schemas::event::{Envelope, Kind};
use neonhub_schemas::metric::{Definition, DefinitionText, Program, built_in};
use neonhub_schemas::window::{Aggregate, Calendar, Grain};
use serde::Deserialize;

use super::{Place, Range};

/// A raw event as the table has it.
#[derive(Clone, Debug, Row, Deserialize)]
pub struct EventRow {
    pub workspace: String,
    pub message_id: String,
    pub source: String,
    pub kind: String,
    pub name: String,
    pub user_id: String,
    pub anonymous_id: String,
    pub group_id: String,
    pub previous_id: String,
    pub session_id: String,
    pub campaign: String,
    pub platform: String,
    pub value: String,
    pub timestamp_ms: i64,
    pub properties: String,
    pub context: String,
    pub partition: u32,
    pub offset: u64,
}

/// A definition by people and the offsets it counts, by source and partition.
pub struct Series {
    pub workspace: String,
    pub metric: String,
    pub series: u64,
    pub definition: DefinitionText,
    pub counts: BTreeMap<(String, u32), (u64, u64)>,
}

/// Windows counted from raw events.
pub struct Recount {
    calendar: Calendar,
    series: Vec<Series>,
    programs: BTreeMap<String, Program>,
    known: BTreeSet<(String, String, u64)>,
    windows: BTreeMap<Place, (i64, Aggregate)>,
}

impl Recount {
    pub fn new(calendar: Calendar, series: Vec<Series>) -> Self {
        let known =
            series.iter().map(|series| (series.workspace.clone(), series.metric.clone(), series.series)).collect();
        Self { calendar, series, programs: BTreeMap::new(), known, windows: BTreeMap::new() }
    }

    /// Whether the place's series has a definition here; built-in ones always have.
    pub fn knows(&self, place: &Place) -> bool {
        place.series == 0 || self.known.contains(&(place.workspace.clone(), place.metric.clone(), place.series))
    }

    fn program(&self, workspace: &str) -> Program {
        let events = |text: &DefinitionText| match text.check() {
            Ok(Definition::Events(metric)) => Some(metric),
            _ => None,
        };
        let built_in = built_in().into_iter().filter_map(|(name, text)| Some((name.to_owned(), 0, events(&text)?)));
        let own = self.series.iter().filter(|series| series.workspace == workspace);
        let own = own.filter_map(|series| Some((series.metric.clone(), series.series, events(&series.definition)?)));
        Program::compile(built_in.chain(own))
    }

    /// # Errors
    /// The row is no event.
    pub fn add(&mut self, row: &EventRow) -> anyhow::Result<()> {
        if !self.programs.contains_key(&row.workspace) {
            self.programs.insert(row.workspace.clone(), self.program(&row.workspace));
        }
        let Some(program) = self.programs.get(&row.workspace) else { return Ok(()) };
        let event = envelope(row)?;
        let mut failed = None;
        let (calendar, windows, series) = (&mut self.calendar, &mut self.windows, &self.series);
        program.evaluate(&event, |hit| {
            let metric = &program.metrics()[hit.metric];
            if metric.series > 0 {
                let counts = series.iter().find(|series| {
                    series.workspace == row.workspace && series.metric == metric.name && series.series == metric.series
                });
                let offsets = counts.and_then(|series| series.counts.get(&(row.source.clone(), row.partition)));
                if !offsets.is_some_and(|(from, until)| (*from..*until).contains(&row.offset)) {
                    return;
                }
            }
            let key = metric.key(&row.workspace, hit.dimensions.iter().map(AsRef::as_ref));
            for grain in Grain::ALL {
                let window = calendar.window(grain, row.timestamp_ms.div_euclid(1_000));
                let place = Place {
                    workspace: row.workspace.clone(),
                    metric: metric.name.clone(),
                    series: metric.series,
                    grain,
                    window_start: window.start_s,
                    key: key.dimensions_text(),
                };
                let (_, aggregate) = windows.entry(place).or_insert_with(|| (window.end_s, Aggregate::default()));
                if let Err(error) = aggregate.add(hit.sample) {
                    failed = Some(error);
                }
            }
        });
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The windows that lie wholly in the range.
    pub fn finish(&mut self, range: Range) -> BTreeMap<Place, Aggregate> {
        let whole =
            |place: &Place, end_s: i64| place.window_start * 1_000 >= range.from_ms && end_s * 1_000 <= range.to_ms;
        let windows = std::mem::take(&mut self.windows).into_iter();
        let inside = windows.filter(|(place, (end_s, _))| whole(place, *end_s));
        inside.map(|(place, (_, aggregate))| (place, aggregate)).collect()
    }
}

fn envelope(row: &EventRow) -> anyhow::Result<Envelope<'_>> {
    let kind = Kind::behavior_from(&row.kind).or_else(|| Kind::campaign_from(&row.kind)).unwrap_or(Kind::Integration);
    anyhow::ensure!(kind.as_str() == row.kind, "event {} has the unknown kind {}", row.message_id, row.kind);
    let optional = |text: &'_ str| (!text.is_empty()).then(|| Cow::Owned(text.to_owned()));
    Ok(Envelope {
        workspace: Cow::Borrowed(&row.workspace),
        message_id: Cow::Borrowed(&row.message_id),
        kind,
        name: Cow::Borrowed(&row.name),
        user_id: optional(&row.user_id),
        anonymous_id: optional(&row.anonymous_id),
        group_id: optional(&row.group_id),
        previous_id: optional(&row.previous_id),
        session_id: optional(&row.session_id),
        campaign: optional(&row.campaign),
        platform: optional(&row.platform),
        value: super::decimal(&row.value)?,
        timestamp_ms: row.timestamp_ms,
        received_at_ms: row.timestamp_ms,
        properties: Cow::Borrowed(&row.properties),
        context: Cow::Borrowed(&row.context),
    })
}

//! Pure: no I/O, no clock, no async.
//!
//! Definitions compiled into one program that reads an event once for all of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::aggregation::Aggregation;
use super::definition::EventMetric;
use super::key::MetricKey;
use crate::event::{Envelope, FieldSet, Kind, Source};
use crate::window::Sample;

/// One metric of a program.
#[derive(Clone, Debug)]
pub struct ProgramMetric {
    pub name: String,
    pub series: u64,
    pub definition: EventMetric,
    dimension_names: Vec<String>,
    condition_slots: Vec<usize>,
    dimension_slots: Vec<usize>,
    value_slot: Option<usize>,
}

/// What an event adds to one metric.
#[derive(Debug)]
pub struct Hit<'a> {
    /// Index into [`Program::metrics`].
    pub metric: usize,
    /// In the order of the metric's dimensions; empty where the event has none.
    pub dimensions: SmallVec<[Cow<'a, str>; 4]>,
    pub sample: Sample,
}

/// The metrics of one workspace.
#[derive(Clone, Debug, Default)]
pub struct Program {
    metrics: Vec<ProgramMetric>,
    fields: FieldSet,
    by_event: HashMap<Source, HashMap<String, Vec<usize>>>,
    by_source: HashMap<Source, Vec<usize>>,
}

impl Program {
    /// Compiles `(name, series, definition)` triples.
    #[must_use]
    pub fn compile(definitions: impl IntoIterator<Item = (String, u64, EventMetric)>) -> Self {
        let mut program = Self::default();
        for (name, series, definition) in definitions {
            let index = program.metrics.len();
            let fields = &mut program.fields;
            let condition_slots = definition.conditions.iter().map(|condition| fields.slot(&condition.field)).collect();
            let dimension_slots = definition.dimensions.iter().map(|(_, path)| fields.slot(path)).collect();
            let value_slot = definition.value.as_ref().map(|path| fields.slot(path));
            match &definition.event {
                Some(event) => {
                    let by_name = program.by_event.entry(definition.source).or_default();
                    by_name.entry(event.clone()).or_default().push(index);
                }
                None => program.by_source.entry(definition.source).or_default().push(index),
            }
            let dimension_names = definition.dimensions.iter().map(|(name, _)| name.clone()).collect();
            program.metrics.push(ProgramMetric {
                name,
                series,
                definition,
                dimension_names,
                condition_slots,
                dimension_slots,
                value_slot,
            });
        }
        program
    }

    #[must_use]
    pub fn metrics(&self) -> &[ProgramMetric] {
        &self.metrics
    }

    /// Calls `emit` for each metric the event counts for. An event without the metric's value counts for nothing.
    pub fn evaluate<'a>(&self, event: &'a Envelope<'_>, mut emit: impl FnMut(Hit<'a>)) {
        let source = event.source();
        // A track event may be called `page` by its sender; that does not make it a page.
        let poses_as_kind =
            event.kind == Kind::Track && Kind::behavior_from(&event.name).is_some_and(|kind| !kind.is_named());
        let event_name = if event.kind.is_named() { event.name.as_ref() } else { event.kind.as_str() };
        let named = self.by_event.get(&source).and_then(|by_name| by_name.get(event_name)).filter(|_| !poses_as_kind);
        let named = named.map_or(&[][..], Vec::as_slice);
        let unnamed = self.by_source.get(&source).map_or(&[][..], Vec::as_slice);
        if named.is_empty() && unnamed.is_empty() {
            return;
        }
        let extracted = self.fields.extract(event);
        for index in named.iter().chain(unnamed) {
            let metric = &self.metrics[*index];
            let holds = metric
                .definition
                .conditions
                .iter()
                .zip(&metric.condition_slots)
                .all(|(condition, slot)| condition.holds(self.fields.value(*slot, event, &extracted).as_ref()));
            if !holds {
                continue;
            }
            let sample = match metric.value_slot {
                None => Sample::One,
                Some(slot) => {
                    let Some(value) = self.fields.value(slot, event, &extracted) else { continue };
                    if metric.definition.aggregation == Aggregation::Count {
                        Sample::One
                    } else if metric.definition.aggregation == Aggregation::Uniques {
                        Sample::Distinct(xxh3_64(value.to_text().as_bytes()))
                    } else {
                        let Some(number) = value.to_decimal() else { continue };
                        match metric.definition.aggregation {
                            Aggregation::Quantile(_) => Sample::Distribution(number),
                            _ => Sample::Number(number),
                        }
                    }
                }
            };
            let dimensions = metric.dimension_slots.iter().map(|slot| {
                self.fields.value(*slot, event, &extracted).map_or(Cow::Borrowed(""), |value| bounded(value.to_text()))
            });
            emit(Hit { metric: *index, dimensions: dimensions.collect(), sample });
        }
    }
}

/// A dimension's value is at most this long; the rest is cut off.
const MAX_DIMENSION_BYTES: usize = 256;

fn bounded(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= MAX_DIMENSION_BYTES {
        return text;
    }
    let end = text.floor_char_boundary(MAX_DIMENSION_BYTES);
    Cow::Owned(text[..end].to_owned())
}

impl ProgramMetric {
    #[must_use]
    pub fn key<'a>(&self, workspace: &str, values: impl Iterator<Item = &'a str>) -> MetricKey {
        let dimensions: BTreeMap<String, String> =
            self.dimension_names.iter().cloned().zip(values.map(str::to_owned)).collect();
        MetricKey { workspace: workspace.to_owned(), metric: self.name.clone(), series: self.series, dimensions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{Definition, DefinitionText, built_in};

    fn program(definitions: &[(&str, DefinitionText)]) -> Program {
        Program::compile(definitions.iter().filter_map(|(name, text)| match text.check().unwrap() {
            Definition::Events(metric) => Some(((*name).to_owned(), 0, metric)),
            Definition::Derived(_) => None,
        }))
    }

    fn hits(program: &Program, event: &Envelope<'_>) -> Vec<(String, String, Sample)> {
        let mut found = Vec::new();
        program.evaluate(event, |hit| {
            let metric = &program.metrics()[hit.metric];
            let key = metric.key("w", hit.dimensions.iter().map(AsRef::as_ref));
            found.push((metric.name.clone(), key.dimensions_text(), hit.sample));
        });
        found
    }

    #[test]
    fn built_in_metrics_count_what_their_names_say() {
        let program = program(&built_in());
        let golden = include_str!("../../golden/envelope-v1-campaign.json");
        let impression = Envelope::decode(golden.as_bytes()).unwrap();
        let dimensions = r#"{"campaign":"men","channel":"","policy":"bts"}"#.to_owned();
        assert_eq!(hits(&program, &impression), [("impressions".to_owned(), dimensions, Sample::One)]);
        let golden = include_str!("../../golden/envelope-v1-track.json");
        let track = Envelope::decode(golden.as_bytes()).unwrap();
        let names: Vec<String> = hits(&program, &track).into_iter().map(|(name, _, _)| name).collect();
        assert_eq!(names, ["visitors", "sessions"]);
    }

    #[test]
    fn a_track_event_called_page_is_no_page_view() {
        let program = program(&built_in());
        let golden = include_str!("../../golden/envelope-v1-track.json").replace("Order Completed", "page");
        let track = Envelope::decode(golden.as_bytes()).unwrap();
        assert!(hits(&program, &track).iter().all(|(name, ..)| name != "page_views"));
        let page = golden.replace("\"kind\":\"track\"", "\"kind\":\"page\"");
        let page = Envelope::decode(page.as_bytes()).unwrap();
        assert!(hits(&program, &page).iter().any(|(name, ..)| name == "page_views"));
    }

    #[test]
    fn a_count_with_a_field_counts_the_events_that_have_it() {
        let text: DefinitionText = serde_json::from_str(
            r#"{"source":"behavior","event":"Order Completed","aggregation":"count","value":"properties.revenue"}"#,
        )
        .unwrap();
        let program = program(&[("orders", text)]);
        let golden = include_str!("../../golden/envelope-v1-track.json");
        assert_eq!(hits(&program, &Envelope::decode(golden.as_bytes()).unwrap()).len(), 1);
        let without = golden.replace("\"revenue\":19.99,", "");
        assert!(hits(&program, &Envelope::decode(without.as_bytes()).unwrap()).is_empty());
    }

    #[test]
    fn conditions_values_and_dimensions_are_read_from_the_event() {
        let text: DefinitionText = serde_json::from_str(
            r#"{"source":"behavior","event":"Order Completed","where":[{"field":"properties.country","op":"in",
                "values":["de","fr"]}],"value":"properties.revenue","aggregation":"sum","dimensions":["properties.country"]}"#,
        )
        .unwrap();
        let program = program(&[("orders", text)]);
        let golden = include_str!("../../golden/envelope-v1-track.json");
        let event = Envelope::decode(golden.as_bytes()).unwrap();
        let expected = Sample::Number("19.99".parse().unwrap());
        assert_eq!(hits(&program, &event), [("orders".to_owned(), r#"{"country":"de"}"#.to_owned(), expected)]);
        let elsewhere = golden.replace("\"de\"", "\"us\"");
        assert!(hits(&program, &Envelope::decode(elsewhere.as_bytes()).unwrap()).is_empty());
        let worthless = golden.replace("\"revenue\":19.99", "\"revenue\":\"a lot\"");
        assert!(hits(&program, &Envelope::decode(worthless.as_bytes()).unwrap()).is_empty());
    }
}

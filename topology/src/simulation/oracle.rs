//! Pure: no I/O, no clock, no async.
//!
//! What the windows must hold, by plain loops over the posted events. Shares no code with the stages.

use std::collections::{BTreeMap, BTreeSet};

use neonhub_schemas::event::Kind;

use super::civil::FixedZone;
use super::traffic::Posted;

/// What a window is called: workspace, metric, series, dimensions, grain (1 minute … 6 month), start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub workspace: String,
    pub metric: String,
    pub series: u64,
    pub dimensions: BTreeMap<String, String>,
    pub grain: i8,
    pub start_s: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    pub end_s: i64,
    pub count: u64,
    pub sum: i128,
    pub min: Option<i128>,
    pub max: Option<i128>,
    pub distinct: BTreeSet<String>,
}

/// What an event adds.
pub enum Gain {
    One,
    Number(i128),
    Distinct(String),
}

pub struct Oracle {
    zone: FixedZone,
    pub cells: BTreeMap<Place, Cell>,
}

impl Oracle {
    pub fn new(zone: FixedZone) -> Self {
        Self { zone, cells: BTreeMap::new() }
    }

    pub fn add(
        &mut self,
        workspace: &str,
        metric: &str,
        series: u64,
        dimensions: &[(&str, Option<&str>)],
        at_ms: i64,
        gain: &Gain,
    ) {
        for grain in 1..=6 {
            let (start_s, end_s) = self.zone.window(grain, at_ms.div_euclid(60_000) * 60);
            let place = Place {
                workspace: workspace.to_owned(),
                metric: metric.to_owned(),
                series,
                dimensions: dimensions
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.unwrap_or_default().to_owned()))
                    .collect(),
                grain,
                start_s,
            };
            let cell = self.cells.entry(place).or_default();
            cell.end_s = end_s;
            cell.count += 1;
            match gain {
                Gain::One => {}
                Gain::Number(number) => {
                    cell.sum += number;
                    cell.min = Some(cell.min.map_or(*number, |least| least.min(*number)));
                    cell.max = Some(cell.max.map_or(*number, |greatest| greatest.max(*number)));
                }
                Gain::Distinct(value) => {
                    cell.distinct.insert(value.clone());
                }
            }
        }
    }

    /// The built-in metrics, but for sessions, which depend on the order of arrival.
    pub fn count_built_in(&mut self, event: &Posted) {
        let (workspace, at_ms) = (event.workspace, event.timestamp_ms);
        let ad = [("campaign", event.campaign), ("channel", event.channel), ("policy", event.policy)];
        let amount = event.value.map(Gain::Number);
        match event.kind {
            Kind::Impression => self.add(workspace, "impressions", 0, &ad, at_ms, &Gain::One),
            Kind::Click => self.add(workspace, "clicks", 0, &ad, at_ms, &Gain::One),
            Kind::Send => self.add(workspace, "sends", 0, &ad[..2], at_ms, &Gain::One),
            Kind::Conversion => {
                self.add(workspace, "conversions", 0, &ad, at_ms, &Gain::One);
                amount.iter().for_each(|gain| self.add(workspace, "revenue", 0, &ad, at_ms, gain));
            }
            Kind::Spend => amount.iter().for_each(|gain| self.add(workspace, "spend", 0, &ad, at_ms, gain)),
            _ => {}
        }
        if event.kind == Kind::Page {
            let dimensions = [("campaign", event.campaign), ("path", event.path)];
            self.add(workspace, "page_views", 0, &dimensions, at_ms, &Gain::One);
        }
        if matches!(event.kind, Kind::Page | Kind::Track) {
            let visitor = Gain::Distinct(event.actor().to_owned());
            self.add(workspace, "visitors", 0, &[("campaign", event.campaign)], at_ms, &visitor);
        }
    }

    pub fn count_session(&mut self, event: &Posted, session_id: &str) {
        if matches!(event.kind, Kind::Page | Kind::Track) {
            let gain = Gain::Distinct(session_id.to_owned());
            self.add(event.workspace, "sessions", 0, &[("campaign", event.campaign)], event.timestamp_ms, &gain);
        }
    }
}

/// Without dimensions: what stays the same when the cap moves keys to `__other__`.
pub fn without_dimensions(cells: BTreeMap<Place, Cell>) -> BTreeMap<Place, Cell> {
    let mut collapsed: BTreeMap<Place, Cell> = BTreeMap::new();
    for (place, cell) in cells {
        let whole = collapsed.entry(Place { dimensions: BTreeMap::new(), ..place }).or_default();
        whole.end_s = cell.end_s;
        whole.count += cell.count;
        whole.sum += cell.sum;
        whole.min = [whole.min, cell.min].into_iter().flatten().min();
        whole.max = whole.max.max(cell.max);
        whole.distinct.extend(cell.distinct);
    }
    collapsed
}

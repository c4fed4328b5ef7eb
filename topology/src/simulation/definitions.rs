//! Metric definitions that people change while events come in.

use std::collections::BTreeMap;

use bytes::Bytes;
use neonhub_schemas::Topic;
use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::event::{Kind, Source};
use neonhub_schemas::metric::DefinitionText;
use neonhub_schemas::record::{Headers, NewRecord};

use super::oracle::Gain;
use super::rng::Rng;
use super::traffic::Posted;

/// Name and value; absent where the event has none.
type Dimensions = Vec<(&'static str, Option<&'static str>)>;

/// What a definition counts, said twice: as text for NeonHub, as code for the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    RevenueByCountry,
    LargestOrderInTwoCountries,
    ActorsThatTrack,
    ImpressionsOfOnePolicy,
}

pub const VARIANTS: [Variant; 4] = [
    Variant::RevenueByCountry,
    Variant::LargestOrderInTwoCountries,
    Variant::ActorsThatTrack,
    Variant::ImpressionsOfOnePolicy,
];

impl Variant {
    fn json(self) -> &'static str {
        match self {
            Self::RevenueByCountry => {
                r#"{"source":"behavior","event":"Order Completed","value":"properties.revenue","aggregation":"sum","dimensions":["properties.country"]}"#
            }
            Self::LargestOrderInTwoCountries => {
                r#"{"source":"behavior","event":"Order Completed","where":[{"field":"properties.country","op":"in","values":["de","fr"]}],"value":"properties.revenue","aggregation":"max"}"#
            }
            Self::ActorsThatTrack => {
                r#"{"source":"behavior","where":[{"field":"kind","op":"eq","value":"track"}],"value":"actor","aggregation":"uniques"}"#
            }
            Self::ImpressionsOfOnePolicy => {
                r#"{"source":"campaign","event":"impression","where":[{"field":"properties.policy","op":"eq","value":"bts"}],"aggregation":"count","dimensions":["campaign"]}"#
            }
        }
    }

    pub fn source(self) -> Source {
        if self == Self::ImpressionsOfOnePolicy { Source::Campaign } else { Source::Behavior }
    }

    pub fn gain(self, event: &Posted) -> Option<(Dimensions, Gain)> {
        let is_order = event.kind == Kind::Track && event.name == "Order Completed";
        match self {
            Self::RevenueByCountry if is_order => {
                event.value.map(|value| (vec![("country", event.country)], Gain::Number(value)))
            }
            Self::LargestOrderInTwoCountries if is_order && matches!(event.country, Some("de" | "fr")) => {
                event.value.map(|value| (Vec::new(), Gain::Number(value)))
            }
            Self::ActorsThatTrack if event.kind == Kind::Track => {
                Some((Vec::new(), Gain::Distinct(event.actor().to_owned())))
            }
            Self::ImpressionsOfOnePolicy if event.kind == Kind::Impression && event.policy == Some("bts") => {
                Some((vec![("campaign", event.campaign)], Gain::One))
            }
            _ => None,
        }
    }
}

/// A word on `control`, and where the upstream partitions stood when it was said: the offset up to which the group had
/// committed, and the end. It must take effect between the two.
#[derive(Clone, Debug)]
pub struct Said {
    pub workspace: &'static str,
    pub name: &'static str,
    pub revision: u64,
    pub variant: Option<Variant>,
    pub stood: BTreeMap<(Source, u32), (u64, u64)>,
}

#[derive(Default)]
pub struct Sayings {
    pub said: Vec<Said>,
}

impl Sayings {
    /// A new, changed, repeated or deleted definition.
    pub fn next_record(&mut self, rng: &mut Rng, now_ms: i64, stood: BTreeMap<(Source, u32), (u64, u64)>) -> NewRecord {
        let workspace = *rng.pick(&["acme", "acme", "globex"]);
        let name = *rng.pick(&["own_a", "own_b"]);
        let newest = self.said.iter().filter(|said| said.workspace == workspace && said.name == name);
        let revision = newest.map(|said| said.revision).max().unwrap_or(0) + 1;
        let variant = rng.chance(800).then(|| *rng.pick(&VARIANTS));
        let definition = variant.and_then(|variant| serde_json::from_str::<DefinitionText>(variant.json()).ok());
        let record = DefinitionRecord {
            workspace: workspace.to_owned(),
            name: name.to_owned(),
            revision,
            definition,
            updated_at: now_ms,
        };
        self.said.push(Said { workspace, name, revision, variant, stood });
        NewRecord {
            topic: Topic::Control,
            partition: None,
            key: Bytes::from(record.key()),
            value: serde_json::to_vec(&record).ok().map(Bytes::from),
            headers: Headers::new(),
            timestamp_ms: now_ms,
        }
    }
}

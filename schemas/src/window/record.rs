//! Pure: no I/O, no clock, no async.
//!
//! What goes over `metrics.partials` and `metrics.windows`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::aggregate::Aggregate;
use super::calendar::Grain;
use super::canonical;
use crate::event::Source;
use crate::metric::MetricKey;
use crate::micros::Micros;
use crate::sketch::{DdSketch, HyperLogLog, SketchError};
use crate::time;

/// An aggregate on the wire; sketches are base64 of their stable bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WindowState {
    pub count: u64,
    pub sum: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Micros>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Micros>,
    /// HyperLogLog bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub distinct: String,
    /// DDSketch bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub distribution: String,
}

impl WindowState {
    #[must_use]
    pub fn of(aggregate: &Aggregate) -> Self {
        Self {
            count: aggregate.count,
            sum: aggregate.sum,
            min: aggregate.min(),
            max: aggregate.max(),
            distinct: aggregate.distinct.as_ref().map_or_else(String::new, |sketch| BASE64.encode(sketch.to_bytes())),
            distribution: aggregate
                .distribution
                .as_ref()
                .map_or_else(String::new, |sketch| BASE64.encode(sketch.to_bytes())),
        }
    }

    /// The sketches' bytes: distinct, distribution. Empty where there is none.
    ///
    /// # Errors
    /// Not base64.
    pub fn sketch_bytes(&self) -> Result<(Vec<u8>, Vec<u8>), SketchError> {
        let decode = |text: &str| BASE64.decode(text).map_err(|_| SketchError::Length);
        Ok((decode(&self.distinct)?, decode(&self.distribution)?))
    }

    /// # Errors
    /// The sketches' bytes are damaged.
    pub fn to_aggregate(&self) -> Result<Aggregate, SketchError> {
        let (distinct, distribution) = self.sketch_bytes()?;
        Ok(Aggregate {
            count: self.count,
            sum: self.sum,
            range: self.min.zip(self.max).map(Box::new),
            distinct: if distinct.is_empty() { None } else { Some(Box::new(HyperLogLog::from_bytes(&distinct)?)) },
            distribution: if distribution.is_empty() {
                None
            } else {
                Some(Box::new(DdSketch::from_bytes(&distribution)?))
            },
        })
    }
}

/// What a minute gained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Delta {
    #[serde(with = "minute_text")]
    #[schemars(with = "String")]
    pub minute: i64,
    #[serde(flatten)]
    pub state: WindowState,
}

/// Where a partial comes from: the upstream partition, and how far its event time has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PartialHeader {
    /// Name of the upstream topic, `events.campaign`.
    pub topic: String,
    pub partition: u32,
    /// Every event before this instant has been seen (but for late ones); milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark_ms: Option<i64>,
    /// The upstream partition has nothing more for now: it holds no window open.
    #[serde(default)]
    pub idle: bool,
}

/// A record on `metrics.partials`: what a key's minutes gained since the last commit, or, without a key, only how far
/// an upstream partition has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Partial {
    pub upstream: PartialHeader,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<MetricKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deltas: Vec<Delta>,
}

impl Partial {
    /// The value of a record on `metrics.partials`. Times within the range of instants always have a text form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        canonical::write_partial(self).unwrap_or_else(|| serde_json::to_vec(self).unwrap_or_default())
    }

    /// # Errors
    /// The bytes are no partial.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        canonical::read_partial(bytes).map_or_else(|| serde_json::from_slice(bytes), Ok)
    }
}

/// One life of a window in memory: named by the place in `metrics.partials` that opened it. A window that was evicted
/// and gets a late event lives again as another epoch; readers merge the epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch {
    pub partition: u32,
    pub offset: u64,
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl std::str::FromStr for Epoch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (partition, offset) = text.split_once('-').ok_or_else(|| format!("`{text}` is no epoch"))?;
        let parts = partition.parse().ok().zip(offset.parse().ok());
        let (partition, offset) = parts.ok_or_else(|| format!("`{text}` is no epoch"))?;
        Ok(Self { partition, offset })
    }
}

impl Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A record on `metrics.windows`: the whole state of one epoch of a window. A higher revision replaces a lower one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WindowUpsert {
    #[serde(flatten)]
    pub key: MetricKey,
    /// The family of events it is made of.
    pub source: Source,
    pub grain: Grain,
    /// IANA name; `UTC` for minutes and quarters, which are the same everywhere.
    pub zone: String,
    #[serde(with = "minute_text")]
    #[schemars(with = "String")]
    pub window_start: i64,
    #[serde(with = "minute_text")]
    #[schemars(with = "String")]
    pub window_end: i64,
    #[schemars(with = "String")]
    pub epoch: Epoch,
    pub revision: u64,
    /// The watermark has passed the end. Late events may still raise the revision; `final` stays.
    pub r#final: bool,
    #[serde(flatten)]
    pub state: WindowState,
    /// Offset in `metrics.partials` up to which this state counts: of the last delta it holds.
    pub as_of: u64,
    /// When this revision was written.
    #[serde(with = "time::rfc3339")]
    #[schemars(with = "String")]
    pub updated_at: i64,
}

impl WindowUpsert {
    /// The value of a record on `metrics.windows`. Times within the range of instants always have a text form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        canonical::write_upsert(self).unwrap_or_else(|| serde_json::to_vec(self).unwrap_or_default())
    }

    /// # Errors
    /// The bytes are no upsert.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        canonical::read_upsert(bytes).map_or_else(|| serde_json::from_slice(bytes), Ok)
    }
}

/// Unix seconds as RFC 3339 text.
mod minute_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(second: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        let timestamp = jiff::Timestamp::from_second(*second).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&timestamp)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Sample;

    #[test]
    fn an_upsert_round_trips_as_readable_json() {
        let mut aggregate = Aggregate::default();
        aggregate.add(Sample::Distribution("2.5".parse().unwrap())).unwrap();
        aggregate.add(Sample::Distinct(42)).unwrap();
        let key = MetricKey {
            workspace: "acme".into(),
            metric: "orders".into(),
            series: 3,
            dimensions: [("country".to_owned(), "de".to_owned())].into(),
        };
        let upsert = WindowUpsert {
            key,
            source: Source::Behavior,
            grain: Grain::Hour,
            zone: "Asia/Kathmandu".into(),
            window_start: 1_574_554_500,
            window_end: 1_574_558_100,
            epoch: Epoch { partition: 2, offset: 77 },
            revision: 5,
            r#final: false,
            state: WindowState::of(&aggregate),
            as_of: 80,
            updated_at: 1_574_554_500_000,
        };
        let json = serde_json::to_string(&upsert).unwrap();
        assert!(
            json.contains(
                r#""dimensions":{"country":"de"},"source":"behavior","grain":"hour","zone":"Asia/Kathmandu""#
            ),
            "{json}"
        );
        assert!(json.contains(r#""window_start":"2019-11-24T00:15:00Z""#), "{json}");
        assert!(json.contains(r#""epoch":"2-77","revision":5,"final":false,"count":2,"sum":"2.5""#), "{json}");
        let back: WindowUpsert = serde_json::from_str(&json).unwrap();
        assert_eq!(back, upsert);
        assert_eq!(back.state.to_aggregate().unwrap(), aggregate);
    }
}

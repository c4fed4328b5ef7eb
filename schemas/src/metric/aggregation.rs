//! Pure: no I/O, no clock, no async.

use std::fmt;
use std::str::FromStr;

use crate::micros::Micros;
use crate::window::Aggregate;

/// How a metric's events become one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregation {
    Count,
    Sum,
    Min,
    Max,
    Avg,
    Uniques,
    /// In 0..=1.
    Quantile(f64),
}

/// A metric's number: exact where it can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Integer(u64),
    Decimal(Micros),
    /// Ratios and estimates.
    Double(f64),
}

impl Number {
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 53 bits")]
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Decimal(number) => number.to_f64(),
            Self::Double(number) => number,
        }
    }
}

impl Aggregation {
    /// Whether the events need a value to aggregate.
    #[must_use]
    pub fn needs_value(self) -> bool {
        self != Self::Count
    }

    /// Whether the value must be a number.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        !matches!(self, Self::Count | Self::Uniques)
    }

    /// The number of a window; `None` where it has none (the average of nothing).
    #[must_use]
    pub fn read(self, aggregate: &Aggregate) -> Option<Number> {
        match self {
            Self::Count => Some(Number::Integer(aggregate.count)),
            Self::Sum => Some(Number::Decimal(aggregate.sum)),
            Self::Min => aggregate.min().map(Number::Decimal),
            Self::Max => aggregate.max().map(Number::Decimal),
            Self::Avg if aggregate.count == 0 => None,
            #[expect(clippy::cast_precision_loss, reason = "an average is a ratio")]
            Self::Avg => Some(Number::Double(aggregate.sum.to_f64() / aggregate.count as f64)),
            Self::Uniques => Some(Number::Integer(aggregate.distinct.as_ref().map_or(0, |sketch| sketch.estimate()))),
            Self::Quantile(q) => aggregate.distribution.as_ref()?.quantile(q).map(Number::Double),
        }
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::Uniques => "uniques",
            Self::Quantile(q) => return write!(f, "quantile({q})"),
        })
    }
}

impl FromStr for Aggregation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let aggregation = match text {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "min" => Self::Min,
            "max" => Self::Max,
            "avg" => Self::Avg,
            "uniques" => Self::Uniques,
            _ => {
                let q = text.strip_prefix("quantile(").and_then(|rest| rest.strip_suffix(')'));
                let q = q.and_then(|q| q.trim().parse::<f64>().ok()).filter(|q| (0.0..=1.0).contains(q));
                return q.map(Self::Quantile).ok_or_else(|| {
                    format!("`{text}` is not an aggregation: use count, sum, min, max, avg, uniques or quantile(q) with q in 0..1")
                });
            }
        };
        Ok(aggregation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["count", "sum", "min", "max", "avg", "uniques", "quantile(0.95)", "quantile(1)"] {
            assert_eq!(name.parse::<Aggregation>().unwrap().to_string(), name);
        }
        for name in ["", "median", "quantile(2)", "quantile(NaN)", "quantile(-0.1)", "quantile()"] {
            assert!(name.parse::<Aggregation>().is_err(), "{name}");
        }
    }
}

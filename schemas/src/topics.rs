//! Pure: no I/O, no clock, no async.
//!
//! The one table of topics: name, key, partitions, cleanup, and who owns it.

use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

/// Every topic of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Topic {
    RawBehavior,
    RawCampaign,
    RawIntegration,
    EventsBehavior,
    EventsCampaign,
    EventsIntegration,
    EventsRejected,
    RefineChangelog,
    MetricsPartials,
    MetricsWindows,
    MetricsChangelog,
    MetricsActivations,
    Control,
    AuditLog,
}

/// How a topic forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records older than this are deleted.
    Delete { retention: Duration },
    /// The newest record of each key stays; nothing younger than `min_lag` is compacted, so that live readers can replay it.
    Compact { min_lag: Duration },
}

/// Partitions of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// As many as the setting `partitions` says: the unit of parallelism.
    PerSetting,
    One,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct TopicSpec {
    pub topic: Topic,
    pub name: &'static str,
    /// What the record's key is made of.
    pub key: &'static str,
    pub partitions: Partitions,
    pub cleanup: Cleanup,
    pub about: &'static str,
}

const fn deleted(retention: Duration) -> Cleanup {
    Cleanup::Delete { retention }
}

/// For so long compacted topics keep everything, tombstones included.
pub const COMPACTION_LAG: Duration = HOUR;
/// The key of records without a value that say nothing: a worker on Kafka ends with them a transaction whose end the broker
/// forgot. Readers pass over them.
pub const TRANSACTION_END_KEY: &[u8] = b"neonhub.transaction-end";

const COMPACTED: Cleanup = Cleanup::Compact { min_lag: COMPACTION_LAG };

/// The table, in the order of [`Topic`]'s variants.
pub const TOPICS: [TopicSpec; 14] = {
    use Partitions::{One, PerSetting};
    use Topic::*;
    const fn row(
        topic: Topic,
        name: &'static str,
        key: &'static str,
        partitions: Partitions,
        cleanup: Cleanup,
        about: &'static str,
    ) -> TopicSpec {
        TopicSpec { topic, name, key, partitions, cleanup, about }
    }
    const RAW: Cleanup = deleted(Duration::from_secs(7 * 24 * 3_600));
    [
        row(RawBehavior, "raw.behavior", "workspace|actor", PerSetting, RAW, "behaviour events as accepted"),
        row(RawCampaign, "raw.campaign", "workspace|actor", PerSetting, RAW, "campaign events as accepted"),
        row(RawIntegration, "raw.integration", "workspace|actor", PerSetting, RAW, "integration events as accepted"),
        row(
            EventsBehavior,
            "events.behavior",
            "workspace|actor",
            PerSetting,
            RAW,
            "behaviour events, each once, refined",
        ),
        row(
            EventsCampaign,
            "events.campaign",
            "workspace|actor",
            PerSetting,
            RAW,
            "campaign events, each once, refined",
        ),
        row(
            EventsIntegration,
            "events.integration",
            "workspace|actor",
            PerSetting,
            RAW,
            "integration events, each once, refined",
        ),
        row(
            EventsRejected,
            "events.rejected",
            "workspace|place",
            PerSetting,
            deleted(Duration::from_secs(30 * 24 * 3_600)),
            "dead letters: reason and original bytes",
        ),
        row(
            RefineChangelog,
            "refine.changelog",
            "workspace|anonymous id",
            PerSetting,
            COMPACTED,
            "which user an anonymous id belongs to",
        ),
        row(MetricsPartials, "metrics.partials", "metric key", PerSetting, RAW, "deltas of minutes, and watermarks"),
        row(
            MetricsWindows,
            "metrics.windows",
            "metric key|grain|start|epoch",
            PerSetting,
            COMPACTED,
            "metric windows with their whole state",
        ),
        row(
            MetricsChangelog,
            "metrics.changelog",
            "what",
            PerSetting,
            COMPACTED,
            "watermarks of the upstream partitions, as the merge stage last knew them",
        ),
        row(
            MetricsActivations,
            "metrics.activations",
            "workspace|metric|series|partition",
            One,
            COMPACTED,
            "from which offset on a metric definition counts",
        ),
        row(Control, "control", "workspace|what|name", One, COMPACTED, "metric definitions and access keys"),
        row(
            AuditLog,
            "audit.log",
            "workspace|what|name|revision",
            One,
            deleted(Duration::from_secs(400 * 24 * 3_600)),
            "who did what, when, to which resource",
        ),
    ]
};

impl Topic {
    pub const ALL: [Self; 14] = {
        let mut all = [Self::Control; 14];
        let mut index = 0;
        while index < TOPICS.len() {
            all[index] = TOPICS[index].topic;
            index += 1;
        }
        all
    };

    #[must_use]
    pub fn spec(self) -> &'static TopicSpec {
        &TOPICS[self as usize]
    }

    /// The name without the deployment's prefix.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TOPICS.iter().find(|spec| spec.name == name).map(|spec| spec.topic)
    }

    /// Stable number for compact encodings; the place in the table.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        TOPICS.get(usize::from(number)).map(|spec| spec.topic)
    }

    #[must_use]
    pub fn partitions(self, setting: u32) -> u32 {
        match self.spec().partitions {
            Partitions::PerSetting => setting,
            Partitions::One => 1,
        }
    }
}

impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The partition a key belongs to: Kafka's default partitioner (murmur2, sign bit cleared), so that every Kafka
/// client and the embedded log agree.
#[must_use]
pub fn partition_for(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// Murmur2 as in Kafka's `org.apache.kafka.common.utils.Utils.murmur2` (seed 0x9747b28c).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if rest.len() == 3 {
        hash ^= u32::from(rest[2]) << 16;
    }
    if rest.len() >= 2 {
        hash ^= u32::from(rest[1]) << 8;
    }
    if let Some(first) = rest.first() {
        hash = (hash ^ u32::from(*first)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_variants() {
        for (index, spec) in TOPICS.iter().enumerate() {
            assert_eq!(usize::from(spec.topic.number()), index, "{}", spec.name);
            assert_eq!(Topic::from_name(spec.name), Some(spec.topic));
        }
    }

    /// Golden values from Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let cases: [(&[u8], i32); 5] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key), expected.cast_unsigned(), "{}", String::from_utf8_lossy(key));
        }
    }
}

//! Pure: no I/O, no clock, no async.
//!
//! The graph: who writes and who reads each topic, and who owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use neonhub_schemas::topics::{Cleanup, Partitions, TOPICS, Topic};

/// A part of the system, as a node of the graph.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub name: &'static str,
    /// The crate it lives in.
    pub house: &'static str,
    pub reads: &'static [Topic],
    pub writes: &'static [Topic],
    /// Topics whose shape it decides.
    pub owns: &'static [Topic],
    /// Topics of its own that it reads back to restore its state: no edge of the flow.
    pub restores: &'static [Topic],
}

use Topic::{
    AuditLog, Control, EventsBehavior, EventsCampaign, EventsIntegration, EventsRejected, MetricsActivations,
    MetricsChangelog, MetricsPartials, MetricsWindows, RawBehavior, RawCampaign, RawIntegration, RefineChangelog,
};

const RAW: [Topic; 3] = [RawBehavior, RawCampaign, RawIntegration];

/// Every stage is one line here.
pub const NODES: &[Node] = &[
    Node {
        name: "ingest",
        house: "ingest",
        reads: &[Control],
        writes: &[RawBehavior, RawCampaign, RawIntegration, EventsRejected],
        owns: &[RawBehavior, RawCampaign, RawIntegration, EventsRejected],
        restores: &[],
    },
    Node {
        name: "administration",
        house: "api",
        reads: &[],
        writes: &[Control, AuditLog],
        owns: &[Control, AuditLog],
        restores: &[],
    },
    Node { name: "access", house: "api", reads: &[Control], writes: &[], owns: &[], restores: &[] },
    Node {
        name: "refine",
        house: "processors",
        reads: &RAW,
        writes: &[EventsBehavior, EventsCampaign, EventsIntegration, EventsRejected, RefineChangelog],
        owns: &[EventsBehavior, EventsCampaign, EventsIntegration, RefineChangelog],
        restores: &[EventsBehavior, EventsCampaign, EventsIntegration, RefineChangelog],
    },
    Node {
        name: "metrics.partial",
        house: "processors",
        reads: &[EventsBehavior, EventsCampaign, EventsIntegration, Control],
        writes: &[MetricsPartials, MetricsActivations, EventsRejected],
        owns: &[MetricsPartials, MetricsActivations],
        restores: &[MetricsActivations],
    },
    Node {
        name: "metrics.merge",
        house: "processors",
        reads: &[MetricsPartials],
        writes: &[MetricsWindows, MetricsChangelog, EventsRejected],
        owns: &[MetricsWindows, MetricsChangelog],
        restores: &[MetricsWindows, MetricsChangelog],
    },
    Node {
        name: "landing",
        house: "processors",
        reads: &neonhub_processors::landing::LANDED_TOPICS,
        writes: &[],
        owns: &[],
        restores: &[],
    },
    Node { name: "live", house: "api", reads: &[MetricsWindows], writes: &[], owns: &[], restores: &[] },
];

/// As a table of topics and a list of nodes.
#[must_use]
pub fn to_text(partitions: u32) -> String {
    let mut out = String::new();
    for spec in &TOPICS {
        let names = |pick: fn(&Node) -> &'static [Topic]| {
            let nodes = NODES.iter().filter(|node| pick(node).contains(&spec.topic));
            nodes.map(|node| node.name).collect::<Vec<_>>().join(", ")
        };
        let count = match spec.partitions {
            Partitions::PerSetting => partitions,
            Partitions::One => 1,
        };
        let cleanup = match spec.cleanup {
            Cleanup::Delete { retention } => format!("kept {} h", retention.as_secs() / 3_600),
            Cleanup::Compact { .. } => "compacted".to_owned(),
        };
        // Writing into a string cannot fail.
        let _infallible = writeln!(
            out,
            "{:<20} {count:>3} partitions, {cleanup:<12} key {:<36} {} → {}",
            spec.name,
            spec.key,
            names(|node| node.writes),
            [names(|node| node.reads), names(|node| node.restores)]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join("; restored by "),
        );
    }
    out
}

/// As a Mermaid flowchart.
#[must_use]
pub fn to_mermaid() -> String {
    let mut out = String::from("flowchart LR\n");
    let id = |name: &str| name.replace('.', "_");
    for node in NODES {
        let _infallible = writeln!(out, "  {}[{}]", id(node.name), node.name);
    }
    for spec in &TOPICS {
        let _infallible = writeln!(out, "  {}([{}])", id(spec.name).replace("control", "control_topic"), spec.name);
    }
    for node in NODES {
        for topic in node.writes {
            let _infallible = writeln!(out, "  {} --> {}", id(node.name), topic_id(*topic));
        }
        for topic in node.reads {
            let _infallible = writeln!(out, "  {} --> {}", topic_id(*topic), id(node.name));
        }
        for topic in node.restores {
            let _infallible = writeln!(out, "  {} -.-> {}", topic_id(*topic), id(node.name));
        }
    }
    out.push_str("  landing --> ClickHouse[(ClickHouse)]\n");
    out
}

fn topic_id(topic: Topic) -> String {
    topic.name().replace('.', "_").replace("control", "control_topic")
}

/// A circle among the nodes, if there is one: a node from which its own output comes back to it.
#[must_use]
pub fn circle() -> Option<&'static str> {
    let mut downstream: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for writer in NODES {
        for reader in NODES {
            if writer.writes.iter().any(|topic| reader.reads.contains(topic)) {
                downstream.entry(writer.name).or_default().insert(reader.name);
            }
        }
    }
    NODES.iter().map(|node| node.name).find(|start| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = downstream.get(start).into_iter().flatten().copied().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(downstream.get(next).into_iter().flatten());
            }
        }
        reached.contains(start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_producer_a_consumer_and_one_owner() {
        for spec in &TOPICS {
            let count = |pick: fn(&Node) -> &'static [Topic]| {
                NODES.iter().filter(|node| pick(node).contains(&spec.topic)).count()
            };
            assert!(count(|node| node.writes) >= 1, "{} has no producer", spec.name);
            assert!(count(|node| node.reads) + count(|node| node.restores) >= 1, "{} has no consumer", spec.name);
            assert_eq!(count(|node| node.owns), 1, "{} must have one owner", spec.name);
        }
    }

    #[test]
    fn the_flow_has_no_circle_and_owners_write_what_they_own() {
        assert_eq!(circle(), None);
        for node in NODES {
            assert!(node.owns.iter().all(|topic| node.writes.contains(topic)), "{}", node.name);
            assert!(node.restores.iter().all(|topic| node.writes.contains(topic)), "{}", node.name);
        }
    }

    #[test]
    fn every_stage_is_registered_once_and_reads_and_writes_what_its_code_says() {
        use neonhub_processors::engine::Stage;
        use neonhub_processors::{metrics, refine};
        let refine = refine::Refine::new(refine::RefineConfig::default());
        let partial = metrics::MetricsPartial::new(metrics::PartialConfig::default());
        let merge = metrics::MetricsMerge::new(metrics::MergeConfig::default()).unwrap();
        let stages = [
            (refine.name(), refine.inputs(), refine.globals(), refine.outputs()),
            (partial.name(), partial.inputs(), partial.globals(), partial.outputs()),
            (merge.name(), merge.inputs(), merge.globals(), merge.outputs()),
        ];
        for (name, inputs, globals, outputs) in stages {
            let nodes: Vec<&Node> = NODES.iter().filter(|node| node.name == name).collect();
            assert_eq!(nodes.len(), 1, "{name}");
            let reads: BTreeSet<Topic> = inputs.into_iter().chain(globals).collect();
            assert_eq!(nodes[0].reads.iter().copied().collect::<BTreeSet<_>>(), reads, "{name}");
            let writes: BTreeSet<Topic> = outputs.into_iter().collect();
            assert_eq!(nodes[0].writes.iter().copied().collect::<BTreeSet<_>>(), writes, "{name}");
        }
    }

    /// `ingest`, `processors` and `api` depend on `schemas` only, and `schemas` on none of them.
    #[test]
    fn houses_import_in_one_direction() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let houses = ["schemas", "ingest", "processors", "api", "topology"];
        for house in houses {
            let manifest: toml::Table =
                std::fs::read_to_string(root.join(house).join("Cargo.toml")).unwrap().parse().unwrap();
            let allowed: &[&str] = match house {
                "schemas" => &[],
                "topology" => &["schemas", "ingest", "processors", "api"],
                _ => &["schemas"],
            };
            for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let names = manifest.get(section).and_then(|table| table.as_table()).into_iter().flat_map(|t| t.keys());
                for name in names.filter_map(|name| name.strip_prefix("neonhub-")) {
                    assert!(allowed.contains(&name), "{house} must not depend on {name}");
                }
            }
        }
    }

    #[test]
    fn the_readme_shows_the_graph() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        assert!(
            readme.contains(to_mermaid().trim()),
            "README.md: replace the Mermaid chart by `neonhub graph --mermaid`"
        );
    }
}

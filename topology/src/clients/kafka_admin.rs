//! Topics on Kafka: made where they are missing, checked where they are there, and their settings changed where that is asked
//! for. Nothing is ever deleted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use neonhub_schemas::topics::{Cleanup, TOPICS, TopicSpec};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;

use crate::settings::BackboneSettings;

/// What was found or done for one topic.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TopicReport {
    pub topic: String,
    pub partitions: u32,
    /// `created`, `present`, `missing`, or what is wrong.
    pub state: String,
    pub is_fine: bool,
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// What may be done to the topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicWork {
    Check,
    /// What is missing is created.
    Create,
    /// And settings that differ are set.
    Apply,
}

/// Does what may be done, and reports the rest. Settings that differ are no fault: an operator may want them so.
///
/// # Errors
/// The cluster does not answer.
pub async fn check_or_create_topics(settings: &BackboneSettings, work: TopicWork) -> anyhow::Result<Vec<TopicReport>> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &settings.kafka_brokers);
    for (name, value) in &settings.kafka_properties {
        client.set(name, value);
    }
    let consumer: BaseConsumer = client.clone().set("group.id", "neonhub-admin").create()?;
    let consumer = Arc::new(consumer);
    let of_task = Arc::clone(&consumer);
    let metadata =
        tokio::task::spawn_blocking(move || of_task.fetch_metadata(None, TIMEOUT)).await?.map_err(|error| {
            anyhow::anyhow!("Kafka at NEONHUB_KAFKA_BROKERS = `{}` does not answer: {error}", settings.kafka_brokers)
        })?;
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let mut reports = Vec::new();
    for spec in &TOPICS {
        let name = format!("{}{}", settings.topic_prefix, spec.name);
        let wanted = spec.topic.partitions(settings.partitions);
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        let state = match found {
            Some(topic) if topic.partitions().len() == wanted as usize => {
                let state = present(&admin, spec, &name, work).await?;
                let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
                match replicas.filter(|replicas| *replicas != settings.replication as usize) {
                    // Which broker takes which replica is for a person, or a tool that knows the brokers' load.
                    Some(replicas) => format!(
                        "{state}; its replication factor is {replicas}, not {} (kafka-reassign-partitions.sh changes it)",
                        settings.replication
                    ),
                    None => state,
                }
            }
            // More would move keys to other partitions, and take them from their order and their state.
            Some(topic) => format!("has {} partitions, the settings say {wanted}", topic.partitions().len()),
            None if work == TopicWork::Check => "missing".to_owned(),
            None => create(&admin, spec, &name, wanted, settings.replication).await?,
        };
        let is_fine = state.starts_with("present") || state == "created";
        reports.push(TopicReport { topic: name, partitions: wanted, state, is_fine });
    }
    let created: Vec<String> =
        reports.iter().filter(|report| report.state == "created").map(|report| report.topic.clone()).collect();
    tokio::task::spawn_blocking(move || created.iter().try_for_each(|topic| await_leaders(&consumer, topic))).await??;
    Ok(reports)
}

/// The controller answers before the brokers know the topic.
fn await_leaders(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions()).peekable();
        if partitions.peek().is_some() && partitions.all(|partition| partition.leader() >= 0) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "topic {topic} was created, but the brokers do not serve it");
        // Paces the question; there is nothing to be woken by.
        drop(consumer.poll(Duration::from_millis(50)));
    }
}

async fn create(
    admin: &AdminClient<DefaultClientContext>,
    spec: &TopicSpec,
    name: &str,
    partitions: u32,
    replication: u32,
) -> anyhow::Result<String> {
    let settings = topic_settings(spec);
    let mut topic =
        NewTopic::new(name, i32::try_from(partitions)?, TopicReplication::Fixed(i32::try_from(replication)?));
    for (key, value) in &settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    match admin.create_topics([&topic], &options).await?.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok("present".to_owned()),
        Some(Err((_, error))) => anyhow::bail!("topic {name} cannot be created: {error}"),
        _ => Ok("created".to_owned()),
    }
}

/// Compares the settings of a topic that is there, and sets what differs if that is asked for.
async fn present(
    admin: &AdminClient<DefaultClientContext>,
    spec: &TopicSpec,
    name: &str,
    work: TopicWork,
) -> anyhow::Result<String> {
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let described = admin.describe_configs(&[ResourceSpecifier::Topic(name)], &options).await?;
    let found = match described.into_iter().next() {
        Some(Ok(found)) => found.entries,
        // Who may see topics need not see their settings.
        Some(Err(error)) => return Ok(format!("present; its settings cannot be seen: {error}")),
        None => return Ok("present".to_owned()),
    };
    let wanted = topic_settings(spec);
    let value_of = |name: &str| found.iter().find(|entry| entry.name == name).and_then(|entry| entry.value.as_deref());
    let differing: Vec<String> = wanted
        .iter()
        .filter(|(name, wanted)| value_of(name) != Some(wanted.as_str()))
        .map(|(name, wanted)| format!("{name} is {}, not {wanted}", value_of(name).unwrap_or("unknown")))
        .collect();
    if differing.is_empty() {
        return Ok("present".to_owned());
    }
    if work != TopicWork::Apply {
        return Ok(format!("present; {} (neonhub topics --apply changes it)", differing.join(", ")));
    }
    // The request sets all of a topic's own settings at once: what is not in it is forgotten.
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(name));
    let own = found.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
    for (name, value) in own.filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?))) {
        change = change.set(name, value);
    }
    for (name, value) in &wanted {
        change = change.set(name, value);
    }
    match admin.alter_configs(&[change], &options).await?.into_iter().next() {
        Some(Err((_, error))) => anyhow::bail!("the settings of topic {name} cannot be changed: {error}"),
        _ => Ok(format!("present, changed: {}", differing.join(", "))),
    }
}

fn topic_settings(spec: &TopicSpec) -> Vec<(&'static str, String)> {
    let mut settings = vec![("message.timestamp.type", "CreateTime".to_owned())];
    match spec.cleanup {
        Cleanup::Delete { retention } => {
            settings.push(("cleanup.policy", "delete".to_owned()));
            settings.push(("retention.ms", retention.as_millis().to_string()));
        }
        Cleanup::Compact { min_lag } => {
            settings.push(("cleanup.policy", "compact".to_owned()));
            settings.push(("min.compaction.lag.ms", min_lag.as_millis().to_string()));
            settings.push(("delete.retention.ms", min_lag.as_millis().to_string()));
            // Small segments: the active one is never compacted, and a restore reads it whole.
            settings.push(("segment.bytes", (64 * 1024 * 1024).to_string()));
        }
    }
    settings
}

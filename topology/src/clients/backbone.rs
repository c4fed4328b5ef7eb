//! The backbone: the embedded log or Kafka, and the ports on it.

use std::sync::Arc;
use std::time::Duration;

use neonhub_api::control::ControlLog;
use neonhub_api::control::kafka::{KafkaConfig as ApiKafkaConfig, KafkaControl};
use neonhub_api::feed::FeedLog;
use neonhub_api::feed::kafka::KafkaFeed;
use neonhub_ingest::sink::EventSink;
use neonhub_ingest::sink::kafka::{KafkaSettings, KafkaSink};
use neonhub_processors::engine::kafka::{self, KafkaConfig, Scope};
use neonhub_processors::engine::{EngineError, Part, Ports};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::Tracer;

use crate::embedded;
use crate::embedded::log::{Log, LogOptions};
use crate::settings::Settings;

#[derive(Clone)]
pub enum Backbone {
    Embedded(Log),
    Kafka { engine: KafkaConfig, api: ApiKafkaConfig, ingest: Box<KafkaSettings>, partitions: u32 },
}

impl Backbone {
    /// # Errors
    /// The embedded log cannot be opened.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let backbone = &settings.backbone;
        if settings.is_embedded_log() {
            let folder = settings.data_dir.join("log");
            std::fs::create_dir_all(&folder)?;
            let options = LogOptions { partitions: backbone.partitions, ..LogOptions::default() };
            return Ok(Self::Embedded(Log::open(&folder, options)?));
        }
        let mut engine = KafkaConfig::new(&backbone.kafka_brokers, &backbone.topic_prefix);
        engine.properties = backbone.kafka_properties.clone();
        engine.session_timeout = settings.processing.session_timeout;
        let api = ApiKafkaConfig {
            brokers: backbone.kafka_brokers.clone(),
            topic_prefix: backbone.topic_prefix.clone(),
            timeout: Duration::from_secs(10),
            extra: backbone.kafka_properties.clone().into_iter().collect(),
        };
        let ingest = KafkaSettings {
            brokers: backbone.kafka_brokers.clone(),
            topic_prefix: backbone.topic_prefix.clone(),
            extra: backbone.kafka_properties.clone(),
            ..KafkaSettings::default()
        };
        Ok(Self::Kafka { engine, api, ingest: Box::new(ingest), partitions: backbone.partitions })
    }

    /// Ports of a worker that commits outputs and offsets together.
    ///
    /// # Errors
    /// Kafka is away or refuses.
    pub fn engine_ports(&self, scope: Scope<'_>, slot: &str, tracer: Tracer) -> Result<Ports, EngineError> {
        match self {
            Self::Embedded(log) => {
                let part = Part::of_stage(&tracer);
                Ok(Ports { tracer, ..embedded::engine::ports(log, scope.group, slot, scope.inputs, part) })
            }
            Self::Kafka { engine, .. } => kafka::transactional(engine, scope, slot, tracer),
        }
    }

    /// Ports of the landing.
    ///
    /// # Errors
    /// Kafka is away or refuses.
    pub fn landing_ports(&self, group: &str, slot: &str, topics: &[Topic]) -> Result<Ports, EngineError> {
        match self {
            Self::Embedded(log) => Ok(embedded::engine::ports(log, group, slot, topics, Part::Whole)),
            Self::Kafka { engine, .. } => kafka::offsets_only(engine, group, slot, topics),
        }
    }

    /// # Errors
    /// The Kafka settings cannot be worked with.
    pub fn event_sink(&self) -> anyhow::Result<Arc<dyn EventSink>> {
        Ok(match self {
            Self::Embedded(log) => Arc::new(embedded::sink::LogSink::new(log.clone())),
            Self::Kafka { ingest, .. } => Arc::new(KafkaSink::new((**ingest).clone())?),
        })
    }

    /// # Errors
    /// The Kafka settings cannot be worked with.
    pub fn control_log(&self) -> anyhow::Result<Arc<dyn ControlLog>> {
        Ok(match self {
            Self::Embedded(log) => Arc::new(embedded::control::LogControl::new(log.clone())),
            Self::Kafka { api, .. } => Arc::new(KafkaControl::new(api.clone())?),
        })
    }

    /// # Errors
    /// The Kafka settings cannot be worked with.
    pub fn feed_log(&self, topic: Topic) -> anyhow::Result<Arc<dyn FeedLog>> {
        Ok(match self {
            Self::Embedded(log) => Arc::new(embedded::feed::LogFeed::new(log.clone(), topic)),
            Self::Kafka { api, partitions, .. } => {
                Arc::new(KafkaFeed::new(api.clone(), topic, topic.partitions(*partitions))?)
            }
        })
    }
}

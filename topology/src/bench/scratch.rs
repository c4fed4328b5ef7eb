//! Topics of one run, on the broker that the settings name.

use std::time::{Duration, Instant};

use neonhub_processors::engine::kafka::{KafkaConfig, KafkaReader};
use neonhub_processors::engine::{
    Clock, EngineError, EngineMetrics, LogReader as _, Ports, Stage, Worker, WorkerConfig,
};
use neonhub_schemas::record::{NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use prometheus::Registry;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use crate::clients::{TopicWork, check_or_create_topics};
use crate::clock;
use crate::settings::Settings;
use crate::telemetry::traces::Traces;

const LIMIT: Duration = Duration::from_secs(120);

/// A step that only waits for records is not longer.
const IDLE_STEP: Duration = Duration::from_millis(100);

pub struct Scratch {
    pub brokers: String,
    pub prefix: String,
    pub partitions: u32,
    pub config: KafkaConfig,
    /// On where the settings name a collector: then its cost is in the figure.
    traces: Traces,
}

impl Scratch {
    pub async fn new(settings: &Settings) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !settings.is_embedded_log(),
            "set NEONHUB_KAFKA_BROKERS: this is measured on a broker (`make bench` starts one)"
        );
        let mut backbone = settings.backbone.clone();
        backbone.topic_prefix = format!("{}bench-{:x}.", backbone.topic_prefix, clock::now_ms());
        for report in check_or_create_topics(&backbone, TopicWork::Create).await? {
            anyhow::ensure!(report.is_fine, "topic {}: {}", report.topic, report.state);
        }
        let mut config = KafkaConfig::new(&backbone.kafka_brokers, &backbone.topic_prefix);
        config.properties = backbone.kafka_properties.clone();
        Ok(Self {
            brokers: backbone.kafka_brokers,
            prefix: backbone.topic_prefix,
            partitions: backbone.partitions,
            config,
            traces: Traces::start(settings, "neonhub-bench")?,
        })
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        for (name, value) in &self.config.properties {
            client.set(name, value);
        }
        client
    }

    /// An idempotent producer that waits for all replicas, as ingest's.
    pub fn producer(&self) -> anyhow::Result<BaseProducer> {
        Ok(self
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "1000000")
            .create()?)
    }

    /// As ingest begins traces.
    pub fn begin_traces(&self, records: &mut [NewRecord]) {
        for record in records {
            if let Some(span) = self.traces.tracer().begin(None, clock::now_ms().saturating_mul(1_000)) {
                record.headers = span.context.stamp(std::mem::take(&mut record.headers));
            }
        }
    }

    pub fn produce(&self, producer: &BaseProducer, records: &[NewRecord]) -> anyhow::Result<()> {
        for record in records {
            let topic = self.config.topic_name(record.topic);
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in record.headers.iter() {
                headers = headers.insert(Header { key, value: Some(value.as_ref()) });
            }
            let value = record.value.as_deref().unwrap_or_default();
            let mut message = BaseRecord::<[u8], [u8]>::to(&topic)
                .key(record.key.as_ref())
                .payload(value)
                .timestamp(record.timestamp_ms)
                .headers(headers);
            loop {
                match producer.send(message) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        producer.poll(Duration::from_millis(10));
                        message = back;
                    }
                    Err((error, _)) => return Err(error.into()),
                }
            }
        }
        producer.poll(Duration::ZERO);
        Ok(())
    }

    pub fn flush(&self, producer: &BaseProducer) -> anyhow::Result<()> {
        Ok(producer.flush(LIMIT)?)
    }

    /// A consumer of all partitions of a topic from the beginning, in no group.
    pub fn consumer(&self, topic: Topic) -> anyhow::Result<BaseConsumer> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..topic.partitions(self.partitions) {
            list.add_partition_offset(&self.config.topic_name(topic), partition.cast_signed(), Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        Ok(consumer)
    }

    /// Records of a topic, markers not counted.
    pub fn read(&self, topic: Topic, mut each: impl FnMut(Record)) -> anyhow::Result<()> {
        let mut reader = KafkaReader::new(&self.config)?;
        for partition in 0..topic.partitions(self.partitions) {
            let place = TopicPartition { topic, partition };
            let (start, end) = reader.bounds(place)?;
            reader.read(place, start, end, &mut each)?;
        }
        Ok(())
    }

    /// Runs one worker of a stage until `is_done` (asked after each step, with the records of all steps and for how long it
    /// had nothing to do), and commits. As in production a worker that lost its place is made anew. Returns the records it took.
    pub fn run_stage<S: Stage>(
        &self,
        make: impl Fn() -> anyhow::Result<S>,
        group: &str,
        slot: &str,
        is_done: impl Fn(u64, Duration) -> bool,
    ) -> anyhow::Result<u64> {
        let metrics = EngineMetrics::register(&Registry::new())?;
        let (mut records, mut quiet) = (0, Duration::ZERO);
        loop {
            let mut outcome = self.worker(make()?, group, slot, &metrics);
            while let Ok(worker) = &mut outcome {
                let began = Instant::now();
                match worker.step() {
                    Ok(progress) => {
                        records += progress.records as u64;
                        if progress.records > 0 {
                            quiet = Duration::ZERO;
                        } else {
                            // A commit or a restore may take long, with much to be read after it.
                            quiet += began.elapsed().min(IDLE_STEP);
                        }
                        if is_done(records, quiet) {
                            outcome.and_then(Worker::finish)?;
                            return Ok(records);
                        }
                    }
                    Err(error) => outcome = Err(error),
                }
            }
            match outcome {
                Err(error @ EngineError::Fatal(_)) => return Err(error.into()),
                Err(error) => tracing::info!(group, slot, %error, "begins again"),
                Ok(_) => {}
            }
        }
    }

    fn worker<S: Stage>(
        &self,
        stage: S,
        group: &str,
        slot: &str,
        metrics: &EngineMetrics,
    ) -> Result<Worker<S>, EngineError> {
        let (inputs, outputs) = (stage.inputs(), stage.outputs());
        let scope = neonhub_processors::engine::kafka::Scope { group, inputs: &inputs, outputs: &outputs };
        let ports: Ports =
            neonhub_processors::engine::kafka::transactional(&self.config, scope, slot, self.traces.tracer().clone())?;
        let clock: Clock = clock::wall();
        Worker::new(stage, ports, clock, WorkerConfig::default(), metrics.clone())
    }
}

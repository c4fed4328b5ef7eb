//! The sink on Apache Kafka: one idempotent producer, acknowledged by all in-sync replicas.
//!
//! A request's records are enqueued in order and their reports awaited together under one deadline. The producer gives
//! up on a record before that deadline, so that nothing is delivered after its failure was reported, as far as a client
//! can know. A full queue is an immediate answer, never a wait.

mod delivery;
mod probe;
mod settings;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use neonhub_schemas::topics::TOPICS;
use neonhub_schemas::{NewRecord, Topic};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::{EventSink, SinkError, SinkFuture};
use delivery::Delivery;
use probe::{Probe, Reachability};
pub use settings::{KafkaSettings, SettingsError};

/// The sink. Its threads (delivery reports, probe) end when it is dropped.
pub struct KafkaSink {
    settings: KafkaSettings,
    topic_names: Vec<String>,
    producer: RwLock<Arc<Producer>>,
    reachability: Arc<Reachability>,
    _probe: Probe,
}

pub(crate) type Producer = ThreadedProducer<Context>;

pub(crate) struct Context {
    reachability: Arc<Reachability>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka producer");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.reachability.lost("all brokers are down");
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &rdkafka::producer::DeliveryResult<'_>, delivery: Arc<Delivery>) {
        match result {
            Ok(_) => {
                self.reachability.found();
                delivery.done(None);
            }
            Err((error, _)) => delivery.done(Some(error.clone())),
        }
    }
}

impl KafkaSink {
    /// Does not wait for a broker: [`EventSink::ready`] says when there is one.
    ///
    /// # Errors
    /// A setting is wrong, or unknown to librdkafka.
    pub fn new(settings: KafkaSettings) -> Result<Self, SettingsError> {
        settings.check()?;
        let reachability = Arc::new(Reachability::default());
        let producer = Arc::new(create_producer(&settings, &reachability)?);
        let topic_names: Vec<String> =
            TOPICS.iter().map(|spec| format!("{}{}", settings.topic_prefix, spec.name)).collect();
        let watched = topic_names[usize::from(Topic::RawBehavior.number())].clone();
        let probe = Probe::start(settings.client_config(), watched, Arc::clone(&reachability))?;
        Ok(Self { settings, topic_names, producer: RwLock::new(producer), reachability, _probe: probe })
    }

    /// The producer; a new one where the old one is beyond repair (an idempotent producer may end in a fatal error).
    fn producer(&self) -> Result<Arc<Producer>, SinkError> {
        let producer = Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner));
        let Some((code, reason)) = producer.client().fatal_error() else { return Ok(producer) };
        let mut slot = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&slot, &producer) {
            tracing::error!(%code, reason, "the Kafka producer failed for good; starting another");
            let fresh = create_producer(&self.settings, &self.reachability);
            *slot = Arc::new(fresh.map_err(|error| SinkError::unavailable(error.to_string()))?);
        }
        Ok(Arc::clone(&slot))
    }

    async fn append_all(&self, records: Vec<NewRecord>) -> Result<(), SinkError> {
        if records.is_empty() {
            return Ok(());
        }
        let producer = self.producer()?;
        // Half a batch in the queue would be written though the sender was told to send it again.
        let waiting = usize::try_from(producer.in_flight_count()).unwrap_or(0);
        if waiting + records.len() > self.settings.max_queued_records {
            return Err(SinkError::queue_full());
        }
        let (delivery, outcome) = Delivery::of(records.len());
        for (sent, record) in records.iter().enumerate() {
            if let Err(error) = self.enqueue(&producer, record, &delivery) {
                delivery.abandon(records.len() - sent, error);
                break;
            }
        }
        drop(producer);
        match tokio::time::timeout(self.settings.append_deadline, outcome).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(error))) => Err(classify(&error)),
            Ok(Err(_)) => Err(SinkError::unavailable("the producer was stopped")),
            Err(_) => Err(SinkError::unavailable("no confirmation in time")),
        }
    }

    fn enqueue(&self, producer: &Producer, record: &NewRecord, delivery: &Arc<Delivery>) -> Result<(), KafkaError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in record.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value.as_ref()) });
        }
        let topic = &self.topic_names[usize::from(record.topic.number())];
        let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, Arc::clone(delivery))
            .key(record.key.as_ref())
            .timestamp(record.timestamp_ms)
            .headers(headers);
        if let Some(value) = &record.value {
            message = message.payload(value.as_ref());
        }
        if let Some(partition) = record.partition {
            message = message.partition(i32::try_from(partition).unwrap_or(i32::MAX));
        }
        producer.send(message).map_err(|(error, _)| error)
    }
}

impl EventSink for KafkaSink {
    fn append(&self, records: Vec<NewRecord>) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(self.append_all(records))
    }

    fn ready(&self) -> Result<(), String> {
        self.reachability.verdict()
    }

    fn close(&self, deadline: Duration) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            let producer = Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner));
            let flushed = tokio::task::spawn_blocking(move || producer.flush(deadline)).await;
            match flushed {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(classify(&error)),
                Err(error) => Err(SinkError::unavailable(error.to_string())),
            }
        })
    }
}

fn create_producer(settings: &KafkaSettings, reachability: &Arc<Reachability>) -> Result<Producer, KafkaError> {
    settings.client_config().create_with_context(Context { reachability: Arc::clone(reachability) })
}

fn classify(error: &KafkaError) -> SinkError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => SinkError::queue_full(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp,
        ) => SinkError::Rejected { detail: error.to_string() },
        _ => SinkError::unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests;

//! The sink on Apache Kafka: one idempotent producer, acknowledged by all in-sync replicas.
//!
//! A request's records are enqueued in order and their reports awaited together under one deadline. The producer gives
//! up on a record before that deadline, so that nothing is delivered after its failure was reported, as far as a client
//! can know. A full queue is an immediate answer, never a wait.
//!
//! One thread hands over what the requests of a moment have brought, and gives out the reports (`outbox`). It hands over the
//! next bunch when the last one is on the log, or is late: bunches grow with the time that a round trip takes, and few
//! requests are under way. (librdkafka's thread turns without a pause while it has records and the five requests that an
//! idempotent producer may have under way are; each request is of one partition.)

mod delivery;
mod outbox;
mod probe;
mod settings;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use neonhub_schemas::topics::TOPICS;
use neonhub_schemas::{NewRecord, Topic};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::{EventSink, SinkError, SinkFuture};
use delivery::Delivery;
use outbox::{Append, Outbox, Outstanding};
use probe::{Probe, Reachability};
pub use settings::{KafkaSettings, SettingsError};

/// How long the outbox's thread waits for a request before it looks at the producer all the same.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// Between two looks at the reports: a small part of what a round trip takes.
const REPORTS_PAUSE: Duration = Duration::from_micros(500);

/// The sink. Its threads (outbox, probe) end when it is dropped.
pub struct KafkaSink {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _probe: Probe,
}

struct Shared {
    settings: KafkaSettings,
    topic_names: Vec<String>,
    producer: RwLock<Arc<Producer>>,
    reachability: Arc<Reachability>,
    outbox: Outbox,
    outstanding: Arc<Outstanding>,
}

pub(crate) type Producer = BaseProducer<Context>;

pub(crate) struct Context {
    reachability: Arc<Reachability>,
    vain: Vain,
}

/// When records timed out, if none has been delivered since the first of them.
#[derive(Default)]
struct Vain {
    is_in_vain: AtomicBool,
    first_and_last: Mutex<Option<(Instant, Instant)>>,
}

impl Vain {
    fn delivered(&self) {
        if self.is_in_vain.load(Ordering::Relaxed) {
            *self.first_and_last.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.is_in_vain.store(false, Ordering::Relaxed);
        }
    }

    fn timed_out(&self) {
        let now = Instant::now();
        self.first_and_last.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((now, now)).1 = now;
        self.is_in_vain.store(true, Ordering::Relaxed);
    }

    /// How long it has been so, from the first time-out to the last.
    fn lasts(&self) -> Duration {
        if !self.is_in_vain.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let first_and_last = *self.first_and_last.lock().unwrap_or_else(PoisonError::into_inner);
        first_and_last.map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }
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
                self.vain.delivered();
                delivery.done(None);
            }
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut) {
                    self.vain.timed_out();
                }
                delivery.done(Some(error.clone()));
            }
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
        let shared = Arc::new(Shared {
            settings,
            topic_names,
            producer: RwLock::new(producer),
            reachability,
            outbox: Outbox::default(),
            outstanding: Arc::default(),
        });
        let of_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("ingest-kafka".to_owned()).spawn(move || of_thread.hand_over())?;
        Ok(Self { shared, thread: Some(thread), _probe: probe })
    }

    #[cfg(test)]
    fn producer(&self) -> Result<Arc<Producer>, KafkaError> {
        self.shared.producer()
    }

    async fn append_all(&self, records: Vec<NewRecord>) -> Result<(), SinkError> {
        if records.is_empty() {
            return Ok(());
        }
        let Shared { settings, outbox, outstanding, .. } = &*self.shared;
        // Half a batch in the queue would be written though the sender was told to send it again.
        if !outstanding.admit(records.len(), settings.max_queued_records) {
            return Err(SinkError::queue_full());
        }
        let (delivery, outcome) = Delivery::of(records.len(), outstanding);
        outbox.push(Append { records, delivery });
        match tokio::time::timeout(settings.append_deadline, outcome).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(error))) => Err(classify(&error)),
            Ok(Err(_)) => Err(SinkError::unavailable("the producer was stopped")),
            Err(_) => Err(SinkError::unavailable("no confirmation in time")),
        }
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        self.shared.outbox.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that hands records to Kafka panicked");
        }
    }
}

impl Shared {
    /// The thread: hands over what has gathered, then gives out reports while more may gather.
    fn hand_over(&self) {
        let mut appends = Vec::new();
        let mut handed_over = 0;
        loop {
            // Whoever comes first when nothing is under way is not made to wait for others.
            let is_idle = self.outstanding.reported_so_far() == handed_over;
            let is_open = self.outbox.take(&mut appends, if is_idle { IDLE_WAIT } else { Duration::ZERO });
            if !is_open {
                return;
            }
            let producer = self.producer();
            for append in appends.drain(..) {
                handed_over += append.records.len() as u64;
                match &producer {
                    Ok(producer) => self.enqueue_all(producer, append),
                    Err(error) => append.delivery.abandon(append.records.len(), error.clone()),
                }
            }
            self.await_reports(handed_over);
        }
    }

    /// Gives out reports until all that was handed over is reported, and at most for [`KafkaSettings::longest_round`], so that
    /// one broker that is slow or away does not hold the partitions of the others back.
    fn await_reports(&self, handed_over: u64) {
        let deadline = Instant::now() + self.settings.longest_round;
        let mut pause = self.settings.linger;
        loop {
            self.give_out_reports();
            if self.outstanding.reported_so_far() == handed_over || Instant::now() >= deadline {
                return;
            }
            // Not by polling for so long: rdkafka spins through the last millisecond of a deadline.
            std::thread::sleep(pause);
            pause = REPORTS_PAUSE;
        }
    }

    /// Those that have come. A call takes one batch of them.
    fn give_out_reports(&self) {
        let producer = self.current();
        loop {
            let reported = self.outstanding.reported_so_far();
            producer.poll(Duration::ZERO);
            if self.outstanding.reported_so_far() == reported {
                return;
            }
        }
    }

    fn current(&self) -> Arc<Producer> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The producer; a new one where the old one is beyond repair.
    fn producer(&self) -> Result<Arc<Producer>, KafkaError> {
        let producer = self.current();
        let Some(why) = self.beyond_repair(&producer) else { return Ok(producer) };
        let mut slot = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&slot, &producer) {
            tracing::error!(why, "the Kafka producer is replaced");
            *slot = Arc::new(create_producer(&self.settings, &self.reachability)?);
            // What it still has is reported as lost when it is dropped, which may take its time.
            let end = move || drop(producer);
            if let Err(error) = std::thread::Builder::new().name("ingest-kafka-end".to_owned()).spawn(end) {
                tracing::warn!(%error, "no thread to end a Kafka producer in");
            }
        }
        Ok(Arc::clone(&slot))
    }

    /// An idempotent producer may end in a fatal error. And after restarts of a broker one was seen to send nothing any more,
    /// connected as it was: all its records timed out, for minutes, while another client was answered.
    fn beyond_repair(&self, producer: &Producer) -> Option<String> {
        if let Some((code, reason)) = producer.client().fatal_error() {
            return Some(format!("{code}: {reason}"));
        }
        let patience = self.settings.delivery_timeout;
        let is_stuck = producer.context().vain.lasts() >= patience && self.reachability.answers_for() >= patience;
        is_stuck.then(|| "it delivers nothing, though the log answers".to_owned())
    }

    fn enqueue_all(&self, producer: &Producer, append: Append) {
        let Append { records, delivery } = append;
        for (sent, record) in records.iter().enumerate() {
            if let Err(error) = self.enqueue(producer, record, &delivery) {
                delivery.abandon(records.len() - sent, error);
                break;
            }
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
        self.shared.reachability.verdict()
    }

    fn close(&self, deadline: Duration) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            let drained = tokio::time::timeout(deadline, self.shared.outstanding.none()).await;
            drained.map_err(|_| SinkError::unavailable("records were still waiting for the log"))
        })
    }
}

fn create_producer(settings: &KafkaSettings, reachability: &Arc<Reachability>) -> Result<Producer, KafkaError> {
    let context = Context { reachability: Arc::clone(reachability), vain: Vain::default() };
    settings.client_config().create_with_context(context)
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

//! Against librdkafka's mock cluster, with faults injected at the broker.

use std::time::{Duration, Instant};

use bytes::Bytes;
use neonhub_schemas::{Headers, NewRecord, Topic};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t.raw.behavior", 4, 1).unwrap();
    cluster.create_topic("t.events.rejected", 1, 1).unwrap();
    cluster
}

fn settings(cluster: &MockCluster<'_, DefaultProducerContext>) -> KafkaSettings {
    KafkaSettings { topic_prefix: "t.".to_owned(), ..KafkaSettings::for_testing(cluster.bootstrap_servers()) }
}

fn record(topic: Topic, key: &str, value: &str) -> NewRecord {
    NewRecord {
        topic,
        partition: None,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Headers::new().with("mid", Bytes::from_static(b"m")),
        timestamp_ms: 1_600_000_000_000,
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_can_be_read_in_order_with_key_and_headers() {
    let cluster = cluster();
    let sink = KafkaSink::new(settings(&cluster)).unwrap();
    let mut batch: Vec<NewRecord> =
        (0..100).map(|number| record(Topic::RawBehavior, "acme|a", &number.to_string())).collect();
    batch.push(record(Topic::EventsRejected, "acme|p", "dead"));
    sink.append(batch).await.unwrap();
    wait_until("readiness", || sink.ready().is_ok());

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "g")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["t.raw.behavior"]).unwrap();
    let partition = i32::try_from(neonhub_schemas::topics::partition_for(b"acme|a", 4)).unwrap();
    let mut seen = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen < 100 {
        assert!(Instant::now() < deadline, "only {seen} records came");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        assert_eq!(message.payload().unwrap(), seen.to_string().as_bytes());
        assert_eq!((message.key().unwrap(), message.partition()), (b"acme|a".as_slice(), partition));
        assert_eq!(message.headers().unwrap().get(0).value, Some(b"m".as_slice()));
        seen += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_broker_errors_are_retried_and_lasting_ones_reported() {
    let cluster = cluster();
    let sink = KafkaSink::new(settings(&cluster)).unwrap();
    let passing = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2];
    cluster.request_errors(RDKafkaApiKey::Produce, &passing);
    sink.append(vec![record(Topic::RawBehavior, "k", "1")]).await.unwrap();

    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    let error = sink.append(vec![record(Topic::RawBehavior, "k", "2")]).await.unwrap_err();
    assert!(matches!(error, SinkError::Rejected { .. }), "{error}");
    sink.append(vec![record(Topic::RawBehavior, "k", "3")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_failed_for_good_is_replaced() {
    let cluster = cluster();
    let sink = KafkaSink::new(settings(&cluster)).unwrap();
    sink.append(vec![record(Topic::RawBehavior, "k", "1")]).await.unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let first = sink.producer().unwrap();
    let outcome = sink.append(vec![record(Topic::RawBehavior, "k", "2")]).await;
    assert!(matches!(outcome, Err(SinkError::Unavailable { .. })), "{outcome:?}");
    assert!(first.client().fatal_error().is_some());
    sink.append(vec![record(Topic::RawBehavior, "k", "2")]).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &sink.producer().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_makes_the_sink_unavailable_until_it_is_back() {
    let cluster = cluster();
    let sink = KafkaSink::new(settings(&cluster)).unwrap();
    sink.append(vec![record(Topic::RawBehavior, "k", "1")]).await.unwrap();
    cluster.broker_down(1).unwrap();
    let started = Instant::now();
    let error = sink.append(vec![record(Topic::RawBehavior, "k", "2")]).await.unwrap_err();
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    wait_until("unreadiness", || sink.ready().is_err());

    cluster.broker_up(1).unwrap();
    wait_until("readiness", || sink.ready().is_ok());
    sink.append(vec![record(Topic::RawBehavior, "k", "3")]).await.unwrap();
    sink.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_an_immediate_answer() {
    let cluster = cluster();
    cluster.broker_down(1).unwrap();
    let sink = Arc::new(KafkaSink::new(KafkaSettings { max_queued_records: 10, ..settings(&cluster) }).unwrap());
    let too_many = (0..11).map(|_| record(Topic::RawBehavior, "k", "1")).collect();
    assert_eq!(sink.append(too_many).await, Err(SinkError::queue_full()));
    let filling = {
        let sink = Arc::clone(&sink);
        tokio::spawn(async move { sink.append((0..10).map(|_| record(Topic::RawBehavior, "k", "1")).collect()).await })
    };
    wait_until("the queue's filling", || sink.producer().is_ok_and(|producer| producer.in_flight_count() == 10));
    let started = Instant::now();
    assert_eq!(sink.append(vec![record(Topic::RawBehavior, "k", "2")]).await, Err(SinkError::queue_full()));
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(matches!(filling.await.unwrap(), Err(SinkError::Unavailable { .. })));
}

#[test]
fn settings_that_could_lose_truth_are_refused() {
    let wrong = KafkaSettings { append_deadline: Duration::from_secs(1), ..KafkaSettings::for_testing("b:1") };
    assert!(matches!(KafkaSink::new(wrong), Err(SettingsError::DeadlineTooShort { .. })));
    let wrong = KafkaSettings { extra: [("no.such".to_owned(), "1".to_owned())].into(), ..KafkaSettings::default() };
    assert!(matches!(KafkaSink::new(wrong), Err(SettingsError::Kafka(_))));
    assert!(matches!(KafkaSink::new(KafkaSettings::for_testing(" ")), Err(SettingsError::NoBrokers)));
    let secret =
        KafkaSettings { extra: [("sasl.password".to_owned(), "pw-1".to_owned())].into(), ..KafkaSettings::default() };
    assert!(!format!("{secret:?}").contains("pw-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_delivers_nothing_though_the_log_answers_is_replaced() {
    let cluster = cluster();
    let settings = KafkaSettings { delivery_timeout: Duration::from_secs(1), ..settings(&cluster) };
    let sink = KafkaSink::new(settings).unwrap();
    let append = async || sink.append(vec![record(Topic::RawBehavior, "acme|a", "1")]).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    // A producer's first record waits for its id, on a slow machine for longer than it is delivered for.
    while append().await.is_err() {
        assert!(Instant::now() < deadline, "nothing is delivered");
    }
    let first = sink.producer().unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT; 10_000]);
    while Arc::ptr_eq(&first, &sink.shared.current()) {
        assert!(Instant::now() < deadline, "it was not replaced");
        append().await.unwrap_err();
    }
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    while append().await.is_err() {
        assert!(Instant::now() < deadline, "nor does the new one deliver");
    }
}

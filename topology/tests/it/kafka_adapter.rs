//! The engine's ports on a real broker, without a stage.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use neonhub_processors::engine::kafka::{self, KafkaConfig, KafkaSource, Scope};
use neonhub_processors::engine::{CommitUnit, EngineError, Part, Ports, Source as _, SourceEvent};
use neonhub_schemas::record::{CommittedOffset, Headers, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::Tracer;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::real_stack::{Kafka, shared_kafka, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn create_topic(name: &str, partitions: i32) {
    create_topic_on(&shared_kafka().bootstrap_servers(), name, partitions);
}

fn create_topic_on(brokers: &str, name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    block_on(admin(brokers).create_topics([&topic], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
}

fn add_partitions(name: &str, partitions: usize) {
    let wanted = NewPartitions::new(name, partitions);
    block_on(admin(&shared_kafka().bootstrap_servers()).create_partitions([&wanted], &AdminOptions::new())).unwrap()[0]
        .as_ref()
        .unwrap();
}

fn config(prefix: &str) -> KafkaConfig {
    let mut config = KafkaConfig::new(shared_kafka().bootstrap_servers(), prefix);
    // Longer than the test: a member that is gone stays in the group.
    config.session_timeout = LIMIT * 4;
    config
}

fn scope<'a>(inputs: &'a [Topic], outputs: &'a [Topic]) -> Scope<'a> {
    Scope { group: "group", inputs, outputs }
}

const INPUT: TopicPartition = TopicPartition { topic: Topic::RawCampaign, partition: 0 };

fn unit(value: &'static str) -> CommitUnit {
    CommitUnit {
        records: vec![NewRecord {
            topic: Topic::EventsCampaign,
            partition: Some(0),
            key: value.into(),
            value: Some(value.into()),
            headers: Headers::new(),
            timestamp_ms: 0,
        }],
        offsets: vec![(INPUT, CommittedOffset { offset: 0, metadata: value.to_owned() })],
    }
}

fn assigned(ports: &mut Ports, so_far: &mut BTreeSet<u32>) -> Result<(), EngineError> {
    for event in ports.source.poll(Duration::from_millis(50))? {
        match event {
            SourceEvent::Assigned(places) => so_far.extend(places.iter().map(|place| place.partition)),
            SourceEvent::Revoked(places) => places.iter().for_each(|place| {
                so_far.remove(&place.partition);
            }),
            _ => {}
        }
    }
    Ok(())
}

/// A static member that comes back gets its old share; nobody is told of the partitions that were added meanwhile.
#[test]
fn partitions_that_nobody_has_are_noticed_and_divided() {
    let config = config("unowned.");
    create_topic("unowned.events.campaign", 1);
    let join = || kafka::transactional(&config, scope(&[Topic::EventsCampaign], &[]), "0", Tracer::default());
    let mut owned = BTreeSet::new();
    let mut ports = join().unwrap();
    wait_until("the only partition is assigned", LIMIT, || {
        assigned(&mut ports, &mut owned).map_err(|error| error.to_string())?;
        Ok(owned.len() == 1)
    })
    .unwrap();
    drop(ports);
    add_partitions("unowned.events.campaign", 4);
    let (mut ports, mut complaints) = (join().unwrap(), Vec::new());
    owned.clear();
    wait_until("all partitions are assigned", LIMIT, || {
        if let Err(error) = assigned(&mut ports, &mut owned) {
            complaints.push(error.to_string());
            owned.clear();
            ports = join().map_err(|error| error.to_string())?;
        }
        Ok(owned.len() == 4)
    })
    .unwrap_or_else(|error| panic!("{error}; assigned: {owned:?}; {complaints:?}"));
    assert!(complaints.iter().any(|complaint| complaint.contains("no member of the group has")), "{complaints:?}");
}

/// What a worker writes whose place was taken over is never read.
#[test]
fn a_worker_whose_slot_is_taken_cannot_commit() {
    let config = config("fenced.");
    for topic in [Topic::RawCampaign, Topic::EventsCampaign] {
        create_topic(&config.topic_name(topic), 1);
    }
    let join = || {
        kafka::transactional(&config, scope(&[Topic::RawCampaign], &[Topic::EventsCampaign]), "0", Tracer::default())
            .unwrap()
    };
    let assign = |ports: &mut Ports| {
        let mut owned = BTreeSet::new();
        wait_until("the partition is assigned", LIMIT, || {
            assigned(ports, &mut owned).map_err(|error| error.to_string())?;
            Ok(!owned.is_empty())
        })
        .unwrap();
    };
    let mut zombie = join();
    assign(&mut zombie);
    zombie.committer.commit(unit("first")).unwrap();
    let mut successor = join();
    assign(&mut successor);
    let refusal = zombie.committer.commit(unit("zombie")).unwrap_err();
    assert!(matches!(refusal, EngineError::Fenced(_)), "{refusal}");
    successor.committer.commit(unit("second")).unwrap();
    let output = TopicPartition { topic: Topic::EventsCampaign, partition: 0 };
    let (start, end) = successor.reader.bounds(output).unwrap();
    let mut values = Vec::new();
    successor.reader.read(output, start, end, &mut |record| values.push(record.value.unwrap())).unwrap();
    assert_eq!(values, ["first", "second"]);
    let committed = successor.source.committed(&[INPUT]).unwrap();
    assert_eq!(committed[0].as_ref().unwrap().metadata, "second");
}

/// The group takes a partition for a member's whose client lost it: the member gives up its place, and the next one reads it.
#[test]
fn a_partition_that_a_member_lost_without_the_group_is_noticed() {
    let config = config("lost.");
    create_topic(&config.topic_name(Topic::RawCampaign), 1);
    let subscribe = || KafkaSource::subscribe(&config, "group", "0", &[Topic::RawCampaign], Part::KeyAndValue).unwrap();
    let is_assigned = |source: &mut KafkaSource| {
        let events = source.poll(Duration::from_millis(100)).map_err(|error| error.to_string())?;
        Ok(events.iter().any(|event| matches!(event, SourceEvent::Assigned(places) if places == &[INPUT])))
    };
    let mut source = subscribe();
    wait_until("the partition is assigned", LIMIT, || is_assigned(&mut source)).unwrap();
    let held = source.consumer().assignment().unwrap();
    source.consumer().incremental_unassign(&held).unwrap();
    let mut noticed = None;
    wait_until("it is noticed", LIMIT, || {
        noticed = source.poll(Duration::from_millis(100)).err();
        Ok(noticed.is_some())
    })
    .unwrap();
    assert!(matches!(&noticed, Some(EngineError::Unavailable(detail)) if detail.contains("lost.raw.campaign/0")));
    drop(source);
    let mut successor = subscribe();
    wait_until("the successor has it", LIMIT, || is_assigned(&mut successor)).unwrap();
}

/// The broker dies with a transaction open; when it is back, what was open is neither read nor in anybody's way. (A
/// broker of Kafka 4 may forget the markers: see `hanging.rs`.)
#[test]
fn what_was_open_when_the_broker_died_is_never_read() {
    let mut broker = Kafka::start().unwrap_or_else(|error| panic!("{error}"));
    let mut config = KafkaConfig::new(broker.bootstrap_servers(), "open.");
    // Over before the broker is back.
    config.timeout = Duration::from_secs(2);
    for topic in [Topic::RawCampaign, Topic::EventsCampaign] {
        create_topic_on(&broker.bootstrap_servers(), &config.topic_name(topic), 1);
    }
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("transactional.id", "open.group-0")
        .set("transaction.timeout.ms", "2000")
        .set("message.timeout.ms", "2000")
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    let name = config.topic_name(Topic::EventsCampaign);
    producer.send(BaseRecord::to(&name).key("open").payload("open")).unwrap();
    producer.flush(LIMIT).unwrap();
    broker.kill();
    broker.restart().unwrap();
    config.timeout = Duration::from_secs(10);
    let mut ports = None;
    wait_until("a worker begins", LIMIT, || {
        ports = kafka::transactional(
            &config,
            scope(&[Topic::RawCampaign], &[Topic::EventsCampaign]),
            "0",
            Tracer::default(),
        )
        .ok();
        Ok(ports.is_some())
    })
    .unwrap();
    let mut ports = ports.unwrap();
    let mut owned = BTreeSet::new();
    wait_until("the partition is assigned", LIMIT, || {
        assigned(&mut ports, &mut owned).map_err(|error| error.to_string())?;
        Ok(!owned.is_empty())
    })
    .unwrap();
    ports.committer.commit(unit("committed")).unwrap();
    let output = TopicPartition { topic: Topic::EventsCampaign, partition: 0 };
    let (start, end) = ports.reader.bounds(output).unwrap();
    let mut values = Vec::new();
    ports.reader.read(output, start, end, &mut |record| values.push(record.value.unwrap())).unwrap();
    assert_eq!(values, ["committed"]);
}

/// Workers, each with a group of its own, and the partitions that each of their units goes to.
const WORKERS: usize = 8;
const OUTPUTS: u32 = 4;

fn output(partition: u32) -> TopicPartition {
    TopicPartition { topic: Topic::EventsCampaign, partition }
}

/// The unit after which the input is committed up to `number`.
fn numbered(worker: usize, number: u64) -> CommitUnit {
    let record = |partition| NewRecord {
        topic: Topic::EventsCampaign,
        partition: Some(partition),
        key: worker.to_be_bytes().to_vec().into(),
        value: Some(number.to_be_bytes().to_vec().into()),
        headers: Headers::new(),
        timestamp_ms: 0,
    };
    CommitUnit {
        records: (0..OUTPUTS).map(record).collect(),
        offsets: vec![(INPUT, CommittedOffset { offset: number, metadata: String::new() })],
    }
}

/// Begins as a worker does whose log is away at first, and waits for its partition.
fn begin(config: &KafkaConfig, group: &str) -> Ports {
    let scope = Scope { group, inputs: &[Topic::RawCampaign], outputs: &[Topic::EventsCampaign] };
    let (mut ports, mut owned, mut last) = (None, BTreeSet::new(), None);
    wait_until("a worker begins", LIMIT, || {
        let begun = kafka::transactional(config, scope, "0", Tracer::default()).and_then(|mut begun| {
            wait_until("the partition is assigned", LIMIT, || {
                assigned(&mut begun, &mut owned).map_err(|error| error.to_string())?;
                Ok(!owned.is_empty())
            })
            .map_err(EngineError::Unavailable)?;
            Ok(begun)
        });
        match begun {
            Ok(begun) => ports = Some(begun),
            Err(error) => last = Some(error),
        }
        Ok(ports.is_some())
    })
    .unwrap_or_else(|error| panic!("{error}: {last:?}"));
    ports.unwrap()
}

/// Commits until it is told to stop or a commit fails; the last number that was acknowledged.
fn commit_on(worker: usize, mut ports: Ports, first: u64, acknowledged: &AtomicUsize, stop: &AtomicBool) -> u64 {
    let mut number = first;
    while !stop.load(Ordering::Relaxed) && ports.committer.commit(numbered(worker, number)).is_ok() {
        acknowledged.fetch_add(1, Ordering::Relaxed);
        number += 1;
    }
    number - 1
}

/// The numbers that are to be read in a partition, by worker.
fn numbers(ports: &mut Ports, place: TopicPartition) -> Vec<Vec<u64>> {
    let (start, end) = ports.reader.bounds(place).unwrap();
    let mut numbers = vec![Vec::new(); WORKERS];
    let mut take = |record: Record| {
        let worker = usize::from_be_bytes(record.key.as_ref().try_into().unwrap());
        numbers[worker].push(u64::from_be_bytes(record.value.unwrap().as_ref().try_into().unwrap()));
    };
    ports.reader.read(place, start, end, &mut take).unwrap();
    numbers
}

/// A broker that dies while it writes the markers of a transaction may forget the rest of them when it is back: what was
/// decided must hold all the same, in every partition and for the offsets. (Not every kill hits such a moment.)
#[test]
fn what_was_decided_when_the_broker_died_holds_everywhere() {
    const KILLS: usize = 3;
    let mut broker = Kafka::start().unwrap_or_else(|error| panic!("{error}"));
    let mut config = KafkaConfig::new(broker.bootstrap_servers(), "decided.");
    config.timeout = Duration::from_secs(5);
    create_topic_on(&broker.bootstrap_servers(), &config.topic_name(Topic::RawCampaign), 1);
    create_topic_on(&broker.bootstrap_servers(), &config.topic_name(Topic::EventsCampaign), OUTPUTS.cast_signed());
    let groups: Vec<String> = (0..WORKERS).map(|worker| format!("group-{worker}")).collect();
    let mut last = [0; WORKERS];
    for kills in 0..=KILLS {
        // All at once, as after a real restart: each finds what the others left open, too.
        let mut workers: Vec<Ports> = std::thread::scope(|threads| {
            let beginning: Vec<_> = groups.iter().map(|group| threads.spawn(|| begin(&config, group))).collect();
            beginning.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let committed: Vec<u64> = workers
            .iter_mut()
            .map(|ports| ports.source.committed(&[INPUT]).unwrap()[0].as_ref().map_or(0, |committed| committed.offset))
            .collect();
        let expected: Vec<Vec<u64>> = committed.iter().map(|committed| (1..=*committed).collect()).collect();
        for partition in 0..OUTPUTS {
            let found = numbers(&mut workers[0], output(partition));
            assert_eq!(found, expected, "{} after {kills} kills; acknowledged: {last:?}", output(partition));
        }
        for (committed, last) in committed.iter().zip(&mut last) {
            assert!((*last..=*last + 1).contains(committed), "{committed} committed, {last} acknowledged");
            *last = *committed;
        }
        if kills == KILLS {
            break;
        }
        let (acknowledged, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|threads| {
            let first = last.map(|last| last + 1);
            let running: Vec<_> = (workers.into_iter().zip(first).enumerate())
                .map(|(worker, (ports, first))| {
                    let (acknowledged, stop) = (&acknowledged, &stop);
                    threads.spawn(move || commit_on(worker, ports, first, acknowledged, stop))
                })
                .collect();
            let enough = 20 * WORKERS;
            wait_until("units are committed", LIMIT, || Ok(acknowledged.load(Ordering::Relaxed) >= enough)).unwrap();
            broker.kill();
            stop.store(true, Ordering::Relaxed);
            broker.restart().unwrap();
            for (worker, last) in running.into_iter().zip(&mut last) {
                *last = worker.join().unwrap();
            }
        });
    }
}

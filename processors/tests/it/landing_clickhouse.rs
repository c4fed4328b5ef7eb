//! What the landing says to ClickHouse, as a server on loopback hears it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use neonhub_processors::landing::{
    BatchLimits, Block, ClickHouseConfig, ClickHouseTables, InsertError, PartitionBuffer, Tables,
};
use neonhub_schemas::event::Envelope;
use neonhub_schemas::record::{Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use crate::fake_ports::record;

const CAMPAIGN: &str = include_str!("../../../schemas/golden/envelope-v1-campaign.json");

/// Head (decoded as far as the tests need it) and body of a request.
#[derive(Debug)]
struct Request {
    head: String,
    body: Vec<u8>,
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut body) = (String::new(), Vec::new());
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    if let Some((_, length)) = lower.split_once("content-length: ") {
        let length: usize = length.lines().next()?.parse().ok()?;
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
    } else {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(Request { head: head.replace("%3A", ":").replace("%2F", "/"), body })
}

/// A server that answers each request with the next of these, and the requests that it got.
fn server(answers: Vec<(&'static str, Vec<u8>)>) -> (ClickHouseTables, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (requests, received) = channel();
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let Some(request) = read_request(&stream) else { return };
            requests.send(request).unwrap();
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    let config = ClickHouseConfig {
        url,
        database: "shop".into(),
        user: Some("writer".into()),
        password: Some("hunter2".into()),
        timeout: Duration::from_secs(20),
    };
    (ClickHouseTables::new(&config).unwrap(), received)
}

fn heard(requests: &Receiver<Request>) -> Request {
    requests.recv_timeout(Duration::from_secs(10)).unwrap()
}

/// The rows of some records, and the landing's dead letters for those that are none.
fn blocks(topic: Topic, records: &[Record]) -> (Block, Block) {
    let place = TopicPartition { topic, partition: 3 };
    let mut buffer = PartitionBuffer::open(place, None, BatchLimits { max_rows: 100, max_bytes: usize::MAX });
    assert!(records.iter().all(|record| buffer.push(record, 0)));
    buffer.plan(0).unwrap();
    let batch = buffer.begin().unwrap();
    (batch.rows.clone(), Block::of_dead_letters(place, &batch.unlandable))
}

fn events(topic: Topic) -> Block {
    let raw = Envelope::decode(CAMPAIGN.as_bytes()).unwrap().to_raw_record();
    let at = |offset| Record { value: raw.value.clone(), ..record(TopicPartition { topic, partition: 3 }, offset, "") };
    blocks(topic, &[at(11), at(14)]).0
}

fn broken(topic: Topic) -> (Block, Block) {
    blocks(topic, &[record(TopicPartition { topic, partition: 3 }, 11, "{")])
}

fn offsets(offsets: &[u64]) -> Vec<u8> {
    offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect()
}

#[test]
fn a_batch_is_one_insert_with_its_token_and_without_async_inserts() {
    let (mut tables, requests) = server(vec![("200 OK", Vec::new())]);
    tables.insert(&events(Topic::EventsCampaign), "t:events.campaign:3:11-15").unwrap();
    let Request { head, body } = heard(&requests);
    for part in [
        "insert_deduplication_token=t:events.campaign:3:11-15",
        "async_insert=0",
        "insert_deduplicate=1",
        "database=shop",
        "INSERT",
        "FORMAT",
        "RowBinary",
        "writer",
        "hunter2",
    ] {
        assert!(head.contains(part), "{part} is missing in {head}");
    }
    assert!(!body.is_empty(), "the rows");
}

#[test]
fn an_insert_that_fails_says_whether_the_rows_are_at_fault() {
    let bad = |text: &str| ("500 Internal Server Error", text.as_bytes().to_vec());
    let (mut tables, _requests) =
        server(vec![bad("Code: 117. DB::Exception: no JSON"), bad("Code: 242. DB::Exception: read-only")]);
    let rows = events(Topic::EventsCampaign);
    assert!(matches!(tables.insert(&rows, "a"), Err(InsertError::Data(_))));
    assert!(matches!(tables.insert(&rows, "a"), Err(InsertError::Transient(_))));
}

#[test]
fn the_offsets_of_events_are_asked_for_by_source_partition_and_extent() {
    let (mut tables, requests) = server(vec![("200 OK", offsets(&[11]))]);
    let found = tables.landed_offsets(&events(Topic::EventsCampaign)).unwrap();
    assert_eq!(found, Some([11].into()));
    let query = String::from_utf8(heard(&requests).body).unwrap();
    let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
    // Both rows have the time of the golden event.
    let expected = "SELECT offset FROM events WHERE partition = 3 AND offset >= 11 AND offset <= 14 AND toInt8(source) = 2 \
                    AND timestamp >= fromUnixTimestamp64Milli(1574553602000) \
                    AND timestamp <= fromUnixTimestamp64Milli(1574553602000)";
    assert!(query.starts_with(expected), "{query}");
}

#[test]
fn the_offsets_of_dead_letters_leave_out_those_of_the_landing() {
    let (mut tables, requests) = server(vec![("200 OK", offsets(&[]))]);
    assert_eq!(tables.landed_offsets(&broken(Topic::EventsRejected).1).unwrap(), Some([].into()));
    let query = String::from_utf8(heard(&requests).body).unwrap();
    assert!(query.contains("FROM dead_letters WHERE partition = 3"), "{query}");
    assert!(query.contains("stage != 'landing'") && query.contains("received_at >="), "{query}");
}

#[test]
fn tables_that_replace_rows_are_not_asked() {
    let (mut tables, _requests) = server(Vec::new());
    assert_eq!(tables.landed_offsets(&broken(Topic::MetricsWindows).0).unwrap(), None);
    assert_eq!(tables.landed_offsets(&broken(Topic::EventsCampaign).0).unwrap(), None);
}

#[test]
fn the_configuration_shows_where_it_goes_but_no_password() {
    let config = ClickHouseConfig {
        url: "http://localhost:8123".into(),
        database: "shop".into(),
        user: None,
        password: Some("hunter2".into()),
        timeout: Duration::from_secs(1),
    };
    let shown = format!("{config:?}");
    assert!(shown.contains("localhost:8123") && shown.contains("shop") && !shown.contains("hunter2"), "{shown}");
}

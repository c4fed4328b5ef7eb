//! Ten thousand idle connections, slow heads, bodies that never come, floods of headers, clients and followers of the live
//! feed that do not read: memory is bounded, and others are served meanwhile. It has nothing to do with the backbone, so it
//! runs on the embedded one.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use socket2::SockRef;

use crate::client::{Client, LIMIT, basic};
use crate::poster::Poster;
use crate::real_stack::wait_until;
use crate::stack::{API_KEY, Backbone, Options, Stack, WRITE_KEY};

const IDLE: u64 = 10_000;
/// What all of them may take together; what each of them takes is about a kilobyte.
const MOST_FOR_IDLE: u64 = 100 << 20;
/// And the worst of the others, beyond what the normal client's events take for themselves. 20 to 105 MB were seen.
const MOST_FOR_OTHERS: u64 = 128 << 20;
/// And all of them, with what the log and the windows keep of the normal client's events meanwhile.
const MOST_IN_ALL: u64 = 512 << 20;

/// Of each kind, at each service. Bodies of so many senders are stated to be larger than what bodies may take in memory.
const SLOW: usize = 100;
const HALF_SENT: usize = 600;
const STATED: usize = 500_000;
const DEAF: usize = 100;
/// By server-sent events, and as many by WebSocket.
const FOLLOWERS: usize = 50;

/// Of 50 events each.
const ROUNDS_ALONE: usize = 200;

/// A normal client waits for no answer as long as this.
const DEADLINE: Duration = Duration::from_secs(5);

pub fn run() {
    let idle = raise_descriptors();
    // The idle ones are to be there at the end, however long the others take on a slow machine.
    let settings = [
        ("NEONHUB_HEAD_TIMEOUT_MS", "2000"),
        ("NEONHUB_STALL_TIMEOUT_MS", "2000"),
        ("NEONHUB_IDLE_TIMEOUT_MS", "600000"),
        // The normal client is served by all there is, and at the same pace with the others as without.
        ("NEONHUB_QUERY_CACHE_MB", "0"),
    ];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    let stack = Stack::start_with(Backbone::Embedded, Options { settings, ..Options::default() }, None);
    let client = stack.client();
    let first = Poster::start(client.clone(), "first");
    first.wait_for_more(5_000);
    let mut posted = first.finish();
    client.wait_for_events(posted);
    let process = stack.processes_with("up")[0];
    let before = resident_bytes(process);
    let grown = || resident_bytes(process).saturating_sub(before);

    let mut crowd = Crowd::gather(&client, idle);
    let mut least = u64::MAX;
    let settled = wait_until("the idle connections take little", LIMIT, || {
        least = least.min(grown());
        Ok(least < MOST_FOR_IDLE)
    });
    assert!(settled.is_ok(), "{least} bytes for {idle} idle connections");
    println!("{idle} idle connections: {least} bytes, {} each", least / idle);
    let poster = Poster::start(client.clone(), "normal");
    assert_served(&client, &poster);

    // The normal client alone, for as long as the others will take, for its events stay in memory for a while.
    for _ in 0..ROUNDS_ALONE {
        assert_served(&client, &poster);
    }
    let alone = grown();
    println!("the normal client beside them: {alone} bytes");
    let mut most = 0;
    let everywhere: [Kind; 4] = [slow_heads, half_sent_bodies, floods_of_headers, deaf_clients];
    let both = [Service::Ingest, Service::Api];
    let kinds = both.into_iter().flat_map(|service| everywhere.map(|kind| (service, kind)));
    for (service, kind) in kinds.chain([(Service::Api, deaf_followers as Kind)]) {
        let mut here = 0;
        let mut meanwhile = || {
            here = here.max(grown());
            assert_served(&client, &poster);
        };
        let name = kind(&client, service, service.port(&client), &mut meanwhile);
        println!("{name} at {service:?}: {here} bytes at most");
        most = most.max(here);
    }
    assert!(most < MOST_IN_ALL, "{most} bytes");
    assert!(most < alone + MOST_FOR_OTHERS, "{most} bytes, {alone} without them");

    crowd.assert_alive();
    posted += poster.finish();
    client.wait_for_events(posted);
    let log = std::fs::read_to_string(stack.log()).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

/// So many connections can be held open here, and as many at the server.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let spare = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |most| most.saturating_sub(3_000));
    let idle = spare.min(IDLE);
    assert!(idle >= 3_000, "the limit of open files is too low for this test: {limit:?}");
    idle
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// Events are accepted and queries answered, soon.
fn assert_served(client: &Client, poster: &Poster) {
    let begun = Instant::now();
    poster.wait_for_more(50);
    let day = json!({ "metrics": ["clicks"], "grain": "total", "from": "2026-02-03T00:00:00Z", "to": "2026-02-04T00:00:00Z" });
    client.query(&day);
    assert!(begun.elapsed() < DEADLINE, "a normal client waited for {:?}", begun.elapsed());
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Ingest,
    Api,
}

impl Service {
    fn port(self, client: &Client) -> u16 {
        match self {
            Self::Ingest => client.ingest_port,
            Self::Api => client.api_port,
        }
    }

    /// The head of a request whose body is to be large.
    fn large_request(self) -> String {
        let (path, authorization) = match self {
            Self::Ingest => ("/v1/track", basic(WRITE_KEY)),
            Self::Api => ("/v1/metrics/query", format!("Bearer {API_KEY}")),
        };
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\ncontent-type: application/json\r\n\
             content-length: {STATED}\r\n\r\n"
        )
    }
}

const GET: &[u8] = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Connections that are open and do nothing.
struct Crowd {
    silent: Vec<TcpStream>,
    answered: Vec<TcpStream>,
}

impl Crowd {
    /// Two thirds at ingest; half of each have had an answer.
    fn gather(client: &Client, count: u64) -> Self {
        let mut crowd = Self { silent: Vec::new(), answered: Vec::new() };
        for number in 0..count {
            let mut stream = connect(if number % 3 == 2 { client.api_port } else { client.ingest_port });
            if number % 2 == 0 {
                crowd.silent.push(stream);
                continue;
            }
            ask(&mut stream);
            crowd.answered.push(stream);
        }
        crowd
    }

    fn assert_alive(&mut self) {
        self.silent.iter_mut().chain(&mut self.answered).step_by(100).for_each(ask);
    }
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(GET).unwrap();
    let mut answer = [0; 1_024];
    let read = stream.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..read]));
}

/// A connection that is read until the server closes it.
struct Watched {
    stream: TcpStream,
    heard: Vec<u8>,
    is_over: bool,
}

impl Watched {
    fn new(port: u16, first: &[u8]) -> Self {
        let mut stream = connect(port);
        stream.write_all(first).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream, heard: Vec::new(), is_over: false }
    }

    /// Whether the server has closed it.
    fn is_over(&mut self) -> bool {
        let mut into = [0; 16 * 1_024];
        while !self.is_over {
            match self.stream.read(&mut into) {
                Ok(0) => self.is_over = true,
                Ok(read) => self.heard.extend_from_slice(&into[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => self.is_over = true,
            }
        }
        true
    }

    fn assert_heard(&self, status: u16) {
        let heard = String::from_utf8_lossy(&self.heard);
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{status} is expected: {heard:?}");
    }
}

fn until_all_are_over(watched: &mut [Watched], meanwhile: &mut dyn FnMut(), mut each: impl FnMut(&mut TcpStream)) {
    let outcome = wait_until("the server closes all of them", LIMIT, || {
        let mut open = 0;
        for client in watched.iter_mut() {
            if !client.is_over() {
                open += 1;
                each(&mut client.stream);
            }
        }
        meanwhile();
        Ok(open == 0)
    });
    outcome.unwrap();
}

/// Hostile clients of one kind at a service and its port; `meanwhile` is called again and again. Answers what they are.
type Kind = fn(&Client, Service, u16, &mut dyn FnMut()) -> &'static str;

/// A byte at a time.
fn slow_heads(_: &Client, _: Service, port: u16, meanwhile: &mut dyn FnMut()) -> &'static str {
    let mut clients: Vec<Watched> = (0..SLOW).map(|_| Watched::new(port, b"GET / HTTP/1.1\r\nx-slow: ")).collect();
    // The server may have closed just now.
    until_all_are_over(&mut clients, meanwhile, |stream| drop(stream.write(b"y")));
    clients.iter().for_each(|client| client.assert_heard(408));
    "slow heads"
}

fn half_sent_bodies(_: &Client, service: Service, port: u16, meanwhile: &mut dyn FnMut()) -> &'static str {
    let request = service.large_request() + "{\"event\":";
    let mut clients: Vec<Watched> = (0..HALF_SENT).map(|_| Watched::new(port, request.as_bytes())).collect();
    until_all_are_over(&mut clients, meanwhile, |_| {});
    for client in &clients {
        client.assert_heard(408);
        assert!(String::from_utf8_lossy(&client.heard).contains("application/problem+json"));
    }
    "half-sent bodies"
}

fn floods_of_headers(_: &Client, _: Service, port: u16, meanwhile: &mut dyn FnMut()) -> &'static str {
    let many = (0..1_000).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    let huge = format!("x-huge: {}\r\n", "y".repeat(256 * 1_024));
    for headers in [many, huge] {
        let mut stream = connect(port);
        // Refused before it has taken all of it.
        let _written = stream.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes());
        let mut answer = [0; 64];
        match stream.read(&mut answer) {
            Ok(read) => assert!(answer[..read].starts_with(b"HTTP/1.1 431 "), "{answer:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        meanwhile();
    }
    "floods of headers"
}

/// They ask for more than the system buffers, and read nothing of it.
fn deaf_clients(client: &Client, _: Service, port: u16, meanwhile: &mut dyn FnMut()) -> &'static str {
    let requests = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
    until_cut_off(client, port, &vec![requests; DEAF], meanwhile);
    "clients that do not read"
}

/// They follow every window there ever was, and those to come.
fn deaf_followers(client: &Client, _: Service, port: u16, meanwhile: &mut dyn FnMut()) -> &'static str {
    let head = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {API_KEY}\r\n{more}\r\n").into_bytes()
    };
    let events = head("/v1/live/metrics?from=earliest", "");
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let subscribe = br#"{"subscribe":{"id":"a","from":"earliest"}}"#;
    // A text frame with a mask of zeros (RFC 6455, 5.2).
    let frame = [&[0x81, 0x80 | u8::try_from(subscribe.len()).unwrap(), 0, 0, 0, 0], subscribe.as_slice()].concat();
    let socket = [head("/v1/live", upgrade), frame].concat();
    until_cut_off(client, port, &[vec![events; FOLLOWERS], vec![socket; FOLLOWERS]].concat(), meanwhile);
    "followers that do not read"
}

/// Sends each of the requests by a connection of its own, and reads nothing.
fn until_cut_off(client: &Client, port: u16, requests: &[Vec<u8>], meanwhile: &mut dyn FnMut()) {
    let cut_off = || {
        let metrics = client.send(port, "GET", "/metrics", &[], b"").body;
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix("neonhub_connections_ended_total{cause=\"slow_reader\"} ")?.parse::<usize>().ok()
        });
        line.unwrap_or(0)
    };
    let before = cut_off();
    let send = |request: &Vec<u8>| {
        let mut stream = connect(port);
        // The system takes little for it.
        SockRef::from(&stream).set_recv_buffer_size(4_096).unwrap();
        stream.write_all(request).unwrap();
        stream
    };
    let _deaf: Vec<TcpStream> = requests.iter().map(send).collect();
    let outcome = wait_until("all of them are cut off", LIMIT, || {
        meanwhile();
        Ok(cut_off() >= before + requests.len())
    });
    assert!(outcome.is_ok(), "{outcome:?}: {} of {} are", cut_off() - before, requests.len());
}

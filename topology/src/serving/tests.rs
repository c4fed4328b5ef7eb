//! Clients of every kind against a server with little patience, over real sockets.

mod over_tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use neonhub_schemas::over_limit::OverLimit;
use prometheus::Registry;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::counters::Counters;
use super::{ClientLimits, ConnectionLimits, Server, Shared};

const DEADLINE: Duration = Duration::from_secs(20);

impl Shared {
    pub fn for_testing(limits: ConnectionLimits) -> Arc<Self> {
        let counters = Counters::register(&Registry::new()).unwrap();
        Arc::new(Self::new(Router::new(), limits, ClientLimits::default(), counters))
    }
}

/// A server, and what its handlers wait for and tell.
struct Rig {
    address: std::net::SocketAddr,
    registry: Registry,
    begun: Arc<AtomicUsize>,
    go_on: Arc<Notify>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Rig {
    async fn start(limits: ConnectionLimits) -> Self {
        Self::start_with(limits, |server| server).await
    }

    async fn start_with(limits: ConnectionLimits, with: impl FnOnce(Server) -> Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (registry, begun, go_on) = (Registry::new(), Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let server = with(Server::new(listener, limits, &registry).unwrap());
        let (stop, stopped) = oneshot::channel();
        let router = router(Arc::clone(&begun), Arc::clone(&go_on));
        let serving = tokio::spawn(server.serve(router, async move { drop(stopped.await) }));
        Self { address, registry, begun, go_on, stop, serving }
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn metric(&self, line: &str) -> i64 {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    fn parked(&self) -> i64 {
        self.metric("neonhub_connections_parked")
    }

    fn ended(&self, cause: &str) -> i64 {
        self.metric(&format!("neonhub_connections_ended_total{{cause=\"{cause}\"}}"))
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < end, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn router(begun: Arc<AtomicUsize>, go_on: Arc<Notify>) -> Router {
    let of_refusals = Arc::clone(&begun);
    let refuse = move || {
        of_refusals.fetch_add(1, Ordering::Relaxed);
        std::future::ready(StatusCode::UNAUTHORIZED)
    };
    let wait = move || {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        async move {
            begun.fetch_add(1, Ordering::Relaxed);
            go_on.notified().await;
            "waited"
        }
    };
    let endless = || async {
        let piece = || Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 * 1_024]));
        Body::from_stream(futures_util::stream::repeat_with(piece))
    };
    let read = |request: Request| async move {
        match request.into_body().collect().await {
            Ok(body) => (StatusCode::OK, body.to_bytes().len().to_string()),
            Err(error) => (StatusCode::REQUEST_TIMEOUT, error.to_string()),
        }
    };
    let limited = |request: Request| async move {
        let over = request.extensions().get::<OverLimit>();
        over.map_or("let in", |_| "over the limit")
    };
    Router::new()
        .route("/", get(|| async { "here" }))
        .route("/limited", get(limited))
        .route("/wait", get(wait))
        .route("/endless", get(endless))
        .route("/read", post(read))
        .route("/refuse", post(refuse))
}

/// Reads until `end` has come.
async fn read_until(client: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let (mut text, mut into) = (String::new(), [0; 4_096]);
    while !text.ends_with(end) {
        let read = timeout(DEADLINE, client.read(&mut into)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&into[..read]).unwrap());
    }
    text
}

/// Reads until the server closes.
async fn read_all(client: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    timeout(DEADLINE, client.read_to_end(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_quiet_connection_is_parked_and_serves_again() {
    let rig = Rig::start(ConnectionLimits { idle_timeout: DEADLINE, ..ConnectionLimits::for_testing() }).await;
    let mut client = rig.client().await;
    rig.until("parked before its first byte", |rig| rig.parked() == 1).await;
    for _ in 0..2 {
        client.write_all(GET).await.unwrap();
        read_until(&mut client, "here").await;
        rig.until("parked after its answer", |rig| rig.parked() == 1).await;
    }
    assert_eq!(rig.metric("neonhub_connections_open"), 1);
    drop(client);
    rig.until("gone", |rig| rig.metric("neonhub_connections_open") == 0 && rig.parked() == 0).await;
}

#[tokio::test]
async fn what_came_of_the_next_request_is_not_lost_when_it_is_quiet() {
    let patient = ConnectionLimits { head_timeout: DEADLINE, ..ConnectionLimits::for_testing() };
    let rig = Rig::start(patient).await;
    let mut client = rig.client().await;
    let (beginning, rest) = GET.split_at(7);
    client.write_all(&[GET, beginning].concat()).await.unwrap();
    read_until(&mut client, "here").await;
    // Longer than a connection rests before it is parked.
    assert!(timeout(Duration::from_millis(800), client.read_u8()).await.is_err());
    assert_eq!(rig.parked(), 0);
    client.write_all(rest).await.unwrap();
    read_until(&mut client, "here").await;
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let rig = Rig::start(ConnectionLimits::for_testing()).await;
    let ask = async |request: &'static str| {
        let mut client = rig.client().await;
        client.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut client).await
    };
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "200"),
        ("GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404"),
        ("DELETE / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\nhost: x\r\nx-a: ", "408"),
    ] {
        let answer = ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        for line in [
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
            "referrer-policy: no-referrer",
            "content-security-policy: default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'",
        ] {
            assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line} in {answer}");
        }
    }
}

#[tokio::test]
async fn silence_is_ended_and_slow_heads_are_told_why() {
    let rig = Rig::start(ConnectionLimits::for_testing()).await;
    let mut silent = rig.client().await;
    assert_eq!(read_all(&mut silent).await, "");
    for beginning in ["G", "P", "PRI * HT", "GET / HTTP/1.1\r\nhost: x\r\nx-a: "] {
        let mut slow = rig.client().await;
        slow.write_all(beginning.as_bytes()).await.unwrap();
        let answer = read_all(&mut slow).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{beginning}: {answer}");
        assert!(answer.contains("\"type\":\"urn:neonhub:problem:head_too_slow\""), "{answer}");
    }
    assert_eq!((rig.ended("idle"), rig.ended("slow_head")), (1, 4));
}

#[tokio::test]
async fn a_body_that_stops_is_broken_off() {
    let rig = Rig::start(ConnectionLimits::for_testing()).await;
    let mut slow = rig.client().await;
    slow.write_all(b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\nabc").await.unwrap();
    let answer = read_all(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("the body came too slowly"), "{answer}");
    assert_eq!(rig.ended("slow_body"), 1);
    let mut quick = rig.client().await;
    quick.write_all(b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
    assert!(read_until(&mut quick, "\r\n\r\n3").await.starts_with("HTTP/1.1 200 "));
}

/// As when the head is refused: the client has sent it by then, or is about to, and goes on with its next request.
#[tokio::test]
async fn a_body_that_nobody_reads_does_not_end_the_connection() {
    let rig = Rig::start(ConnectionLimits::for_testing()).await;
    let mut client = rig.client().await;
    let (head, body) = ("POST /refuse HTTP/1.1\r\nhost: x\r\n", "content-length: 3\r\n\r\n");
    for refused in 1..=3 {
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(body.as_bytes()).await.unwrap();
        rig.until("the head is refused", |rig| rig.begun.load(Ordering::Relaxed) == refused).await;
        client.write_all(b"abc").await.unwrap();
        assert!(read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 401 "));
    }
    client.write_all(GET).await.unwrap();
    assert!(read_until(&mut client, "here").await.starts_with("HTTP/1.1 200 "));
    // Whoever waits to be told to send it is not made to.
    let mut waits = rig.client().await;
    waits.write_all(format!("{head}expect: 100-continue\r\n{body}").as_bytes()).await.unwrap();
    assert!(read_until(&mut waits, "\r\n\r\n").await.starts_with("HTTP/1.1 401 "));
    // And whoever never sends it is answered, too, for the last time.
    let mut silent = rig.client().await;
    silent.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    assert!(read_all(&mut silent).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn floods_of_headers_are_refused() {
    let rig = Rig::start(ConnectionLimits::for_testing()).await;
    let many = (0..101).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    let huge = format!("x-huge: {}\r\n", "y".repeat(super::limits::MAX_HEAD_BYTES));
    for headers in [many, huge] {
        let mut client = rig.client().await;
        client.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await.unwrap();
        assert!(read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 431 "));
    }
}

#[tokio::test]
async fn who_does_not_read_is_cut_off() {
    let rig = Rig::start(ConnectionLimits::for_testing()).await;
    let mut deaf = rig.client().await;
    deaf.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    rig.until("cut off", |rig| rig.ended("slow_reader") == 1 && rig.metric("neonhub_connections_open") == 0).await;
}

#[tokio::test]
async fn idle_ones_make_room_and_beyond_busy_ones_is_none() {
    let limits = ConnectionLimits { max_open: 2, idle_timeout: DEADLINE, ..ConnectionLimits::for_testing() };
    let rig = Rig::start(limits).await;
    let mut idle = rig.client().await;
    rig.until("parked", |rig| rig.parked() == 1).await;
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(rig.ended("displaced"), 1);
    for busy in [&mut first, &mut second] {
        busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    }
    rig.until("both are busy", |rig| rig.begun.load(Ordering::Relaxed) == 2).await;
    let mut third = rig.client().await;
    third.write_all(GET).await.unwrap();
    let answer = read_all(&mut third).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert_eq!(rig.metric("neonhub_connections_refused_total"), 1);
    rig.go_on.notify_waiters();
    read_until(&mut first, "waited").await;
    rig.until("the first is idle", |rig| rig.parked() > 0).await;
    let mut fourth = rig.client().await;
    fourth.write_all(GET).await.unwrap();
    read_until(&mut fourth, "here").await;
}

#[tokio::test]
async fn told_to_stop_it_ends_idle_connections_and_answers_busy_ones() {
    let limits = ConnectionLimits { idle_timeout: DEADLINE, ..ConnectionLimits::for_testing() };
    let rig = Rig::start(limits).await;
    let mut idle = rig.client().await;
    let mut busy = rig.client().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    rig.until("one idle, one busy", |rig| rig.parked() == 1 && rig.begun.load(Ordering::Relaxed) == 1).await;
    rig.stop.send(()).unwrap();
    assert_eq!(read_all(&mut idle).await, "");
    assert!(TcpStream::connect(rig.address).await.is_err());
    assert!(!rig.serving.is_finished());
    rig.go_on.notify_waiters();
    assert!(read_all(&mut busy).await.ends_with("waited"));
    timeout(DEADLINE, rig.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_was_let_in_by_the_system_before_the_end_is_answered() {
    let rig = Rig::start(ConnectionLimits::for_testing()).await;
    // Nothing of the server runs meanwhile.
    let connect = || {
        let mut client = std::net::TcpStream::connect(rig.address).unwrap();
        std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        client.set_nonblocking(true).unwrap();
        client
    };
    let clients: Vec<_> = (0..20).map(|_| connect()).collect();
    rig.stop.send(()).unwrap();
    for client in clients {
        let answer = read_all(&mut TcpStream::from_std(client).unwrap()).await;
        assert!(answer.ends_with("here"), "{answer}");
    }
    timeout(DEADLINE, rig.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_http2_client_that_grants_no_window_is_cut_off() {
    let rig = Rig::start(ConnectionLimits::for_testing()).await;
    let stream = hyper_util::rt::TokioIo::new(rig.client().await);
    let mut builder = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
    let connecting = builder.initial_stream_window_size(0).handshake::<_, http_body_util::Empty<Bytes>>(stream);
    let (mut client, connection) = connecting.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = || Request::get(format!("http://{}/", rig.address)).body(http_body_util::Empty::new()).unwrap();
    // The head comes, the body waits for a window.
    let answer = client.send_request(request()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    rig.until("cut off", |rig| rig.ended("slow_reader") == 1 && rig.metric("neonhub_connections_open") == 0).await;
    drop(timeout(DEADLINE, connection).await.unwrap());
}

#[tokio::test]
async fn an_address_has_its_own_limits_of_connections_and_of_requests() {
    let client_limits = ClientLimits { connections: 2, requests_per_minute: 3, trusted_proxies: Vec::new() };
    let limits = ConnectionLimits { idle_timeout: DEADLINE, ..ConnectionLimits::for_testing() };
    let rig = Rig::start_with(limits, |server| server.with_client_limits(client_limits)).await;
    let (mut first, second) = (rig.client().await, rig.client().await);
    rig.until("both are in", |rig| rig.parked() == 2).await;
    let mut third = rig.client().await;
    third.write_all(GET).await.unwrap();
    let answer = read_all(&mut third).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    let refused = |rig: &Rig| rig.metric("neonhub_connections_refused_by_address_total");
    assert_eq!((refused(&rig), rig.ended("displaced"), rig.metric("neonhub_connections_refused_total")), (1, 0, 0));
    drop(second);
    rig.until("it has gone", |rig| rig.metric("neonhub_connections_open") == 1).await;
    let mut fourth = rig.client().await;
    for number in 1..=3 {
        let client = if number == 2 { &mut fourth } else { &mut first };
        // Nobody's proxy: what it states is not believed.
        let request = format!("GET /limited HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.{number}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        read_until(client, "let in").await;
    }
    fourth.write_all(b"GET /limited HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.4\r\n\r\n").await.unwrap();
    read_until(&mut fourth, "over the limit").await;
    assert_eq!(rig.metric("neonhub_requests_over_address_limit_total"), 1);
}

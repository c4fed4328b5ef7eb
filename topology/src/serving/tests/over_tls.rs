//! Clients that speak TLS, half of it, or none where it is spoken.

use std::future::poll_fn;
use std::pin::Pin;

use hyper::rt::Write as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::activity::Activity;
use super::super::socket::Socket;
use super::super::stream::Stream;
use super::super::tls::tests::Issued;
use super::super::tls::{Reload, Tls};
use super::*;

/// How a record with a handshake begins (RFC 8446, 5.1).
const HALF_A_HANDSHAKE: &[u8] = &[22, 3, 1, 2, 0, 1];

/// Trusts this certificate alone.
fn connector(trusted: &Issued, protocol: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn shake(stream: TcpStream, trusted: &Issued, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    timeout(DEADLINE, connector(trusted, protocol).connect(name, stream)).await.unwrap()
}

async fn start(limits: ConnectionLimits, issued: &Issued) -> (Rig, Arc<Tls>) {
    let tls = Arc::new(Tls::load(&issued.files).unwrap());
    (Rig::start_with(limits, |server| server.with_tls(Some(Arc::clone(&tls)))).await, tls)
}

fn patient() -> ConnectionLimits {
    ConnectionLimits { head_timeout: DEADLINE, idle_timeout: DEADLINE, ..ConnectionLimits::for_testing() }
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_and_a_quiet_connection_is_parked() {
    let issued = Issued::new();
    let (rig, _) = start(patient(), &issued).await;
    let mut client = shake(rig.client().await, &issued, b"http/1.1").await.unwrap();
    rig.until("parked before its first byte", |rig| rig.parked() == 1).await;
    for _ in 0..2 {
        client.write_all(GET).await.unwrap();
        assert!(read_until(&mut client, "here").await.starts_with("HTTP/1.1 200 "));
        rig.until("parked after its answer", |rig| rig.parked() == 1).await;
    }
    let second = shake(rig.client().await, &issued, b"h2").await.unwrap();
    assert_eq!(second.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let connecting = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(second));
    let (mut second, connection) = connecting.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("https://localhost/").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let answer = second.send_request(request).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, axum::http::Version::HTTP_2));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "here");
    assert_eq!(rig.metric("neonhub_connections_open"), 2);
    // Told to stop, it says so: without close_notify the clients would read an error.
    rig.stop.send(()).unwrap();
    assert_eq!(read_all(&mut client).await, "");
    timeout(DEADLINE, connection).await.unwrap().unwrap().unwrap();
    timeout(DEADLINE, rig.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_the_old_ones_go_on() {
    let (first, second) = (Issued::new(), Issued::new());
    let (rig, tls) = start(patient(), &first).await;
    let mut old = shake(rig.client().await, &first, b"http/1.1").await.unwrap();
    first.replace_with(&second);
    assert!(matches!(tls.look_again(), Reload::Taken));
    let new = shake(rig.client().await, &second, b"http/1.1").await.unwrap();
    assert_eq!(new.get_ref().1.peer_certificates().unwrap(), std::slice::from_ref(&second.certificate));
    old.write_all(GET).await.unwrap();
    read_until(&mut old, "here").await;
    assert!(shake(rig.client().await, &first, b"http/1.1").await.is_err());
    rig.until("counted", |rig| rig.ended("bad_handshake") == 1).await;
}

#[tokio::test]
async fn a_client_that_speaks_plain_http_is_closed_and_counted() {
    let issued = Issued::new();
    let (rig, _) = start(patient(), &issued).await;
    let mut plain = rig.client().await;
    plain.write_all(GET).await.unwrap();
    let answer = read_all(&mut plain).await;
    assert!(!answer.contains("HTTP"), "{answer}");
    rig.until("gone", |rig| rig.metric("neonhub_connections_open") == 0).await;
    assert_eq!(rig.ended("bad_handshake"), 1);
    // A probe that connects and leaves is no fault.
    drop(rig.client().await);
    let mut client = shake(rig.client().await, &issued, b"http/1.1").await.unwrap();
    client.write_all(GET).await.unwrap();
    read_until(&mut client, "here").await;
    assert_eq!(rig.ended("bad_handshake"), 1);
}

#[tokio::test]
async fn half_a_handshake_ends_in_time_and_so_does_silence() {
    let issued = Issued::new();
    let limits = ConnectionLimits { head_timeout: Duration::from_secs(2), ..patient() };
    let (rig, _) = start(limits, &issued).await;
    let (mut half, mut silent) = (rig.client().await, rig.client().await);
    half.write_all(HALF_A_HANDSHAKE).await.unwrap();
    assert_eq!((read_all(&mut half).await, read_all(&mut silent).await), (String::new(), String::new()));
    assert_eq!(rig.ended("slow_handshake"), 2);
    // The limit is the handshake's alone.
    let mut client = shake(rig.client().await, &issued, b"http/1.1").await.unwrap();
    assert!(timeout(Duration::from_millis(2_300), client.read_u8()).await.is_err());
    client.write_all(GET).await.unwrap();
    read_until(&mut client, "here").await;
}

#[tokio::test]
async fn half_a_handshake_makes_room_and_ends_when_the_server_stops() {
    let issued = Issued::new();
    let (rig, _) = start(ConnectionLimits { max_open: 1, ..patient() }, &issued).await;
    let mut half = rig.client().await;
    half.write_all(HALF_A_HANDSHAKE).await.unwrap();
    rig.until("it has the only place", |rig| rig.metric("neonhub_connections_open") == 1).await;
    // Refused for as long as the other one has not begun to wait.
    let mut client = loop {
        match shake(rig.client().await, &issued, b"http/1.1").await {
            Ok(client) => break client,
            Err(_) => assert_eq!(rig.ended("displaced"), 0),
        }
    };
    client.write_all(GET).await.unwrap();
    read_until(&mut client, "here").await;
    assert_eq!((read_all(&mut half).await, rig.ended("displaced")), (String::new(), 1));
    drop(client);
    rig.until("gone", |rig| rig.metric("neonhub_connections_open") == 0).await;
    let mut half = rig.client().await;
    half.write_all(HALF_A_HANDSHAKE).await.unwrap();
    rig.until("it is in", |rig| rig.metric("neonhub_connections_open") == 1).await;
    rig.stop.send(()).unwrap();
    assert_eq!(read_all(&mut half).await, "");
    timeout(DEADLINE, rig.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_does_not_read_is_cut_off_over_tls_too() {
    let issued = Issued::new();
    let limits = ConnectionLimits { stall_timeout: Duration::from_millis(700), ..patient() };
    let (rig, _) = start(limits, &issued).await;
    let mut deaf = shake(rig.client().await, &issued, b"http/1.1").await.unwrap();
    deaf.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    rig.until("cut off", |rig| rig.ended("slow_reader") == 1 && rig.metric("neonhub_connections_open") == 0).await;
}

#[tokio::test]
async fn what_waits_in_the_session_keeps_a_connection_busy_and_has_its_time() {
    let issued = Issued::new();
    let tls = Tls::load(&issued.files).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // So little room in the system that an answer does not fit.
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(1).unwrap();
    let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    SockRef::from(&stream).set_send_buffer_size(1).unwrap();
    let (stream, client) = tokio::join!(tls.acceptor().accept(stream), shake(client, &issued, b"http/1.1"));
    let client = client.unwrap();
    let server = Shared::for_testing(ConnectionLimits::for_testing());
    let activity = Activity::new(Arc::clone(&server), std::net::Ipv4Addr::LOCALHOST.into());
    let mut socket = Socket::new(Stream::Tls(Box::new(stream.unwrap())), Arc::clone(&activity));
    let answer = [b'x'; 60 * 1_024];
    let written = poll_fn(|context| Pin::new(&mut socket).poll_write(context, &answer)).await.unwrap();
    assert_eq!(written, answer.len(), "the session takes all of it");
    let flushing = poll_fn(|context| {
        let flushed = Pin::new(&mut socket).poll_flush(context);
        assert!(flushed.is_ready() || activity.quiet_since().is_none(), "busy as long as it waits");
        flushed
    });
    let flushed = timeout(DEADLINE, flushing).await.unwrap();
    assert_eq!(flushed.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(server.counters.ended_by(super::super::counters::Cause::SlowReader), 1);
    drop(client);
}

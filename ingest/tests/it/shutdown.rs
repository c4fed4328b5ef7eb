//! Shutdown over real sockets: what was under way is answered, then the sink is closed.

use std::time::Duration;

use axum::Router;
use neonhub_ingest::http::{ServeError, ToldToStop, serve};
use neonhub_ingest::{IngestConfig, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::house::House;

const REQUEST: &[u8] = b"POST /v1/t?writeKey=test-key HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 26\r\n\r\n{\"event\":\"e\",\"userId\":\"u\"}";

async fn axum_on(listener: TcpListener, router: Router, told: ToldToStop) {
    axum::serve(listener, router).with_graceful_shutdown(told).await.unwrap();
}

#[tokio::test]
async fn requests_under_way_are_answered_and_the_sink_is_closed() {
    let house = House::new();
    house.sink.hold(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let axum = |router, told| axum_on(listener, router, told);
    let server = tokio::spawn(serve(house.state.clone(), stopped, axum));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    house.sink.begun(1).await;
    stop.send(()).unwrap();
    // The listener is gone, the request is not.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the listener stays open");
        tokio::task::yield_now().await;
    }
    assert!(!house.sink.is_closed());
    house.sink.hold(false);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.await.unwrap().unwrap();
    assert!(house.sink.is_closed());
    assert_eq!(house.sink.records().len(), 1);
}

#[tokio::test]
async fn draining_has_an_end() {
    let limits = Limits { drain_timeout: Duration::from_millis(50), ..IngestConfig::for_testing().limits };
    let house = House::with(IngestConfig { limits, ..IngestConfig::for_testing() });
    house.sink.hold(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let axum = |router, told| axum_on(listener, router, told);
    let server = tokio::spawn(serve(house.state.clone(), stopped, axum));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    house.sink.begun(1).await;
    stop.send(()).unwrap();
    assert!(matches!(server.await.unwrap(), Err(ServeError::DrainTimeout)));
    assert!(house.sink.is_closed());
}

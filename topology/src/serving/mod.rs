//! Serving HTTP to clients of any kind: slow ones, silent ones, ten thousand of them.
//!
//! `axum::serve` waits for every client as long as it likes. [`Server`] serves the same routers with an end to each wait,
//! and with a bound on what a connection holds in memory:
//!
//! | a client that | is |
//! |---|---|
//! | sends no request | parked for about a kilobyte; ended after `idle_timeout`, or when its place is needed |
//! | sends no TLS handshake, half of one or plain HTTP, where TLS is spoken | ended after `head_timeout`, or at once |
//! | sends a head slowly | answered 408 after `head_timeout` |
//! | sends a head over 64 KiB, or over 100 headers | answered 431 |
//! | sends a body slowly | broken off: the service reads `TimedOut`, and answers 408 |
//! | does not read its answer, stream or socket | reset after `stall_timeout`; twice that while the system buffers all of it |
//! | comes when all places are taken by busy clients | answered 503 at once, with `Retry-After`; over TLS just closed |
//! | has as many connections as an address may | answered 429 at once, with `Retry-After`; over TLS just closed |
//! | makes more requests a minute than an address may | answered 429 by the service |
//!
//! It is told 503, and does not wait in the listen backlog: there it would wait behind the same clients that took the
//! places, without knowing, and so would the probes of a load balancer, which has better instances to send it to. Over TLS
//! the words would cost a handshake, which is more than there is to spare then.
//!
//! | file | what |
//! |---|---|
//! | `limits`, `counters` | what clients may take; what became of connections |
//! | `room` | how many connections there are, and which idle one makes room |
//! | `client`, `client_limits` | whom a request is from; what one address may take |
//! | `connection` | parked, awake, over |
//! | `tls`, `stream` | the certificate and its reload; TCP, or TLS on it |
//! | `socket`, `request_body`, `exchange`, `unread` | hyper's parts, each with an end to waiting |
//! | `activity` | what a connection is doing |
//! | `farewell` | answers where no service speaks |
//! | `security_headers` | what every answer tells browsers |
//! | `descriptors` | how many connections the system allows |

mod activity;
mod client;
mod client_limits;
mod connection;
mod counters;
pub mod descriptors;
mod exchange;
mod farewell;
mod limits;
mod remainder;
mod request_body;
mod room;
mod security_headers;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod unread;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prometheus::Registry;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use activity::Activity;
pub use client_limits::ClientLimits;
use client_limits::Clients;
use counters::Counters;
pub use limits::ConnectionLimits;
use room::{Entry, Room};
use socket::Socket;
use stream::Stream;
pub use tls::{Tls, TlsError, TlsFiles};

/// Farewells to clients without a place, at one time; beyond them they are just closed.
const MOST_FAREWELLS: usize = 256;

/// Between two tries to accept when the system refuses, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves one router on one address.
pub struct Server {
    listener: TcpListener,
    limits: ConnectionLimits,
    counters: Counters,
    tls: Option<Arc<Tls>>,
    client_limits: ClientLimits,
}

/// What all connections of a server share.
struct Shared {
    router: Router,
    limits: ConnectionLimits,
    counters: Counters,
    room: Room,
    clients: Clients,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Server {
    /// Counts its connections in `registry`.
    ///
    /// # Errors
    /// The registry has metrics of these names.
    pub fn new(
        listener: TcpListener,
        limits: ConnectionLimits,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let limits = ConnectionLimits { max_open: descriptors::connections_at_most(limits.max_open), ..limits };
        let (counters, client_limits) = (Counters::register(registry)?, ClientLimits::default());
        Ok(Self { listener, limits, counters, tls: None, client_limits })
    }

    /// Limits what one address takes.
    #[must_use]
    pub fn with_client_limits(self, client_limits: ClientLimits) -> Self {
        Self { client_limits, ..self }
    }

    /// Speaks TLS alone, if there is a certificate.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    /// Serves until `stop` resolves; then accepts no more, and returns when every request under way is answered.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()>) {
        let shared = Arc::new(Shared::new(router, self.limits, self.client_limits, self.counters));
        let (stopping, told_to_stop) = watch::channel(false);
        let farewells = Arc::new(Semaphore::new(MOST_FAREWELLS));
        // Ends with this function.
        let mut following = JoinSet::new();
        if let Some(tls) = &self.tls {
            following.spawn(Arc::clone(tls).follow_files());
        }
        let mut stop = pin!(stop);
        let take_in = |stream: TcpStream, peer: IpAddr| {
            prepare(&stream, &shared.limits);
            if let Err(last_words) = shared.let_in(peer) {
                if self.tls.is_none()
                    && let Ok(permit) = Arc::clone(&farewells).try_acquire_owned()
                {
                    tokio::spawn(async move {
                        farewell::reply(stream, last_words).await;
                        drop(permit);
                    });
                }
                return;
            }
            let (activity, told_to_stop) = (Activity::new(Arc::clone(&shared), peer), told_to_stop.clone());
            match &self.tls {
                None => {
                    let socket = Socket::new(Stream::Plain(stream), activity);
                    tokio::spawn(connection::live(socket, told_to_stop));
                }
                Some(tls) => {
                    tokio::spawn(connection::live_over_tls(stream, tls.acceptor(), activity, told_to_stop));
                }
            }
        };
        loop {
            tokio::select! {
                (stream, peer) = accept(&self.listener, &shared.room) => take_in(stream, peer),
                () = stop.as_mut() => break,
            }
        }
        take_waiting(self.listener, take_in);
        drop(told_to_stop);
        stopping.send_replace(true);
        // Every connection that lives listens to it.
        stopping.closed().await;
    }
}

/// The system has let them in: closed with the listener, they would be reset, whatever they have sent.
fn take_waiting(listener: TcpListener, take_in: impl Fn(TcpStream, IpAddr)) {
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            take_in(stream, peer.ip());
        }
    }
}

impl Shared {
    fn new(router: Router, limits: ConnectionLimits, client_limits: ClientLimits, counters: Counters) -> Self {
        let mut http1 = http1::Builder::new();
        http1.max_buf_size(limits::MAX_HEAD_BYTES);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.stall_timeout)
            .keep_alive_timeout(limits.stall_timeout)
            .max_header_list_size(limits::MAX_HEADER_LIST_BYTES)
            .max_concurrent_streams(limits::MAX_STREAMS)
            .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(limits::STREAM_SEND_BYTES)
            .enable_connect_protocol();
        let (room, clients) = (Room::new(limits.max_open), Clients::new(client_limits));
        // With its state the router is made once, and not for each request.
        Self { router: router.with_state(()), limits, counters, room, clients, http1, http2 }
    }

    /// Counts a new connection, or says what it is to be told.
    fn let_in(&self, peer: IpAddr) -> Result<(), &'static str> {
        // First the client's own limit: beyond it, it displaces nobody.
        if !self.clients.enter(peer) {
            self.counters.refused_by_address.inc();
            return Err(&farewell::TOO_MANY_OF_ADDRESS);
        }
        if self.room.enter() == Entry::Full {
            self.clients.leave(peer);
            self.counters.refused.inc();
            return Err(&farewell::TOO_MANY);
        }
        Ok(())
    }
}

/// A client that has vanished reads nothing either, and nothing but the system notices: what it does not acknowledge is
/// given up long before the quarter of an hour that is usual.
fn prepare(stream: &TcpStream, limits: &ConnectionLimits) {
    let set = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(stream).set_tcp_user_timeout(Some(limits.stall_timeout * 2)));
    if let Err(error) = set {
        tracing::debug!(%error, "a socket's options");
    }
}

/// The next connection. A system that gives none for now is asked again, later, and a parked connection makes room.
async fn accept(listener: &TcpListener, room: &Room) -> (TcpStream, IpAddr) {
    let mut is_first = true;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip()),
            // The fault of that client alone.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                if std::mem::take(&mut is_first) {
                    tracing::warn!(%error, open = room.open(), "connections cannot be accepted for now");
                }
                room.displace();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

//! A connection's life. While nothing is under way it is parked: a socket and a timer, about a kilobyte. hyper's part of a
//! connection is some 25 KiB, mostly two buffers of 8 KiB that it never lets go. It lives only while there is something to
//! do for it.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1::UpgradeableConnection;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::activity::Activity;
use super::counters::Cause;
use super::exchange::Exchanges;
use super::farewell;
use super::socket::{Protocol, Socket};
use super::stream::Stream;

/// A quiet connection is parked after so long: beyond the pause between two requests of a busy client, so that it pays
/// nothing for this; and short, since the connections that had a request within this time are those that need memory.
const REST: Duration = Duration::from_millis(200);

/// Becomes true when the server is told to stop.
pub type Stopping = watch::Receiver<bool>;

async fn told_to_stop(stopping: &mut Stopping) {
    // An error means that the server is gone, which is the same.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

fn is_told_to_stop(stopping: &Stopping) -> bool {
    *stopping.borrow() || stopping.has_changed().is_err()
}

/// Shakes hands, then serves what comes over TLS.
pub async fn live_over_tls(stream: TcpStream, acceptor: TlsAcceptor, activity: Arc<Activity>, mut stopping: Stopping) {
    // On the heap, to be given back when it is done.
    let shaking = Box::pin(shake_hands(stream, acceptor, activity, &mut stopping));
    if let Some(socket) = shaking.await {
        live(socket, stopping).await;
    }
}

/// `None`: the connection is over. One that waits for its client makes room for others, like one without a request.
async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    activity: Arc<Activity>,
    stopping: &mut Stopping,
) -> Option<Socket> {
    let server = Arc::clone(&activity.server);
    let spot = server.room.park();
    let cause = tokio::select! {
        shaken = timeout(server.limits.head_timeout, acceptor.accept(stream)) => match shaken {
            Ok(Ok(stream)) => return Some(Socket::new(Stream::Tls(Box::new(stream)), activity)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::debug!(%error, "a TLS handshake failed");
                Cause::BadHandshake
            }
            // The client has gone.
            Ok(Err(_)) => return None,
            Err(_) => Cause::SlowHandshake,
        },
        () = spot.told_to_go() => Cause::Displaced,
        () = told_to_stop(stopping) => return None,
    };
    server.counters.ended(cause);
    None
}

/// Serves what comes over the socket until one side has had enough.
pub async fn live(mut socket: Socket, mut stopping: Stopping) {
    while parked(&mut socket, &mut stopping).await {
        // On the heap, to be given back when the connection is parked again.
        let Some(quiet) = Box::pin(awake(socket, stopping.clone())).await else { return };
        socket = quiet;
    }
    socket.into_stream().close();
}

/// When the server stops, for a request that is on its way: it was sent before its sender could know.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Waits for the next request to begin. False: the connection is over.
async fn parked(socket: &mut Socket, stopping: &mut Stopping) -> bool {
    let server = Arc::clone(&socket.activity().server);
    let spot = server.room.park();
    server.counters.parked.inc();
    let ended = tokio::select! {
        heard = socket.hear() => Ok(heard),
        () = sleep(server.limits.idle_timeout) => Err(Cause::Idle),
        () = spot.told_to_go() => Err(Cause::Displaced),
        () = told_to_stop(stopping) => Ok(timeout(LAST_WORDS, socket.hear()).await.unwrap_or(false)),
    };
    server.counters.parked.dec();
    ended.unwrap_or_else(|cause| {
        server.counters.ended(cause);
        false
    })
}

/// Serves until it is quiet again. `None`: the connection is over.
async fn awake(mut socket: Socket, stopping: Stopping) -> Option<Socket> {
    socket.activity().now_quiet();
    let head_end = Instant::now() + socket.activity().server.limits.head_timeout;
    loop {
        match socket.protocol() {
            Protocol::Http1 => return http1(socket, stopping).await,
            Protocol::Http2 => {
                http2(socket, stopping).await;
                return None;
            }
            Protocol::Undecided => match timeout_at(head_end, socket.hear()).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) => {
                    too_slow(socket).await;
                    return None;
                }
            },
        }
    }
}

async fn http1(mut socket: Socket, stopping: Stopping) -> Option<Socket> {
    let activity = Arc::clone(socket.activity());
    let mut patience = REST;
    loop {
        let exchanges = Exchanges { activity: Arc::clone(&activity), protocol: Protocol::Http1 };
        let connection = activity.server.http1.serve_connection(socket, exchanges).with_upgrades();
        socket = until_quiet(connection, &activity, patience, &stopping).await?;
        if !socket.has_unread() {
            return Some(socket);
        }
        // The beginning of a head: it gets all the time that a head may take, and no more.
        patience = activity.server.limits.head_timeout;
        if activity.quiet_since().is_some_and(|since| since.elapsed() >= patience) {
            too_slow(socket).await;
            return None;
        }
    }
}

type Http1Connection = UpgradeableConnection<Socket, Exchanges>;

fn end_when_answered(connection: &mut Http1Connection) {
    Pin::new(connection).graceful_shutdown();
}

/// Drives hyper until the connection has been quiet for `patience`, or [`REST`] after a request was served.
async fn until_quiet(
    mut connection: Http1Connection,
    activity: &Activity,
    patience: Duration,
    stopping: &Stopping,
) -> Option<Socket> {
    let begun_quiet = activity.quiet_since();
    let mut alarm = pin!(sleep(REST));
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return None;
            }
            // The only other thing that is polled with hyper, so that a request pays for nothing else.
            () = alarm.as_mut() => {
                if is_told_to_stop(stopping) {
                    end_when_answered(&mut connection);
                }
                let (now, quiet_since) = (Instant::now(), activity.quiet_since());
                let patience = if quiet_since == begun_quiet { patience } else { REST };
                let end = quiet_since.unwrap_or(now) + patience;
                if quiet_since.is_some() && end <= now {
                    break;
                }
                alarm.as_mut().reset(end.min(now + REST));
            }
        }
    }
    // Nothing is under way and nothing waits to be written, so hyper has no more than what it has read.
    let parts = connection.into_parts()?;
    let mut socket = parts.io;
    socket.give_back(parts.read_buf);
    Some(socket)
}

/// HTTP/2 is not parked: its state goes on between requests. Pings tell whether the client is there.
async fn http2(socket: Socket, mut stopping: Stopping) {
    let activity = Arc::clone(socket.activity());
    let (server, limits) = (&activity.server, &activity.server.limits);
    let exchanges = Exchanges { activity: Arc::clone(&activity), protocol: Protocol::Http2 };
    let mut connection = pin!(server.http2.serve_connection(socket, exchanges));
    let look_again = limits.idle_timeout.min(limits.stall_timeout);
    let mut alarm = pin!(sleep(look_again));
    let mut is_ending = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP/2 connection broke");
                }
                return;
            }
            () = told_to_stop(&mut stopping), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = alarm.as_mut() => {
                if activity.unread.longest_since().is_some_and(|since| since.elapsed() >= limits.stall_timeout) {
                    server.counters.ended(Cause::SlowReader);
                    return;
                }
                let is_idle = activity.quiet_since().is_some_and(|since| since.elapsed() >= limits.idle_timeout);
                match (is_idle, is_ending) {
                    (true, true) => return,
                    (true, false) => {
                        is_ending = true;
                        server.counters.ended(Cause::Idle);
                        connection.as_mut().graceful_shutdown();
                    }
                    (false, _) => {}
                }
                alarm.as_mut().reset(Instant::now() + look_again);
            }
        }
    }
}

async fn too_slow(socket: Socket) {
    socket.activity().server.counters.ended(Cause::SlowHead);
    farewell::say(socket.into_stream(), &farewell::SLOW_HEAD).await;
}

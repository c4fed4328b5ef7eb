//! The embedded OLAP store: the ClickHouse engine (libchdb) behind ClickHouse's own HTTP interface.
//!
//! It runs in a child process of its own ([`supervisor::OlapChild`] starts and restarts it), since the engine is a guest with
//! threads and an allocator of its own that may take the process down with it.
//!
//! | file | what |
//! |---|---|
//! | `library` | the C interface; all unsafe code |
//! | `engine` | data directory, lock, connections |
//! | `writes` | what the library does not look at: whether a write failed |
//! | `http`, `parameters`, `multipart`, `access` | requests |
//! | `body`, `encoding`, `blocks` | bodies and their compression |
//! | `reader`, `reader_sessions` | what the reading user may do |
//! | `lexer`, `statement`, `formats`, `exception` | what statements, formats and errors are (pure) |
//! | `execute`, `session`, `settings_scope`, `reply` | running a statement and answering |
//! | `supervisor`, `parent` | the child process, from both sides |

mod access;
mod blocks;
mod body;
mod encoding;
mod engine;
mod exception;
mod execute;
mod formats;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod http;
mod lexer;
mod library;
mod multipart;
mod parameters;
pub mod parent;
mod reader;
mod reader_sessions;
mod reply;
mod session;
mod settings_scope;
mod statement;
pub mod supervisor;
mod writes;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

pub use access::{Access, READER};

use crate::serving::{ConnectionLimits, Server};

const SESSION_SWEEP: Duration = Duration::from_secs(1);

/// What the front needs. [`OlapOptions::new`] has the defaults.
pub struct OlapOptions {
    /// The file libchdb.so.
    pub library: PathBuf,
    pub data_dir: PathBuf,
    pub listener: TcpListener,
    /// Statements that run at the same time.
    pub connections: usize,
    /// Requests that may wait for a connection; more are refused with 503.
    pub queue_length: usize,
    /// How long one waits before it is refused with 503.
    pub queue_wait: Duration,
    /// The largest body, packed and unpacked; a larger one is refused with 413.
    pub max_body_bytes: usize,
    /// The bodies of all requests together; beyond it they are refused with 503.
    pub max_bodies_bytes: usize,
    pub max_sessions: usize,
    /// How long a client may take nothing of a streamed result before it is cut off.
    pub send_timeout: Duration,
    /// How long to wait for a dying process to let go of the data directory.
    pub lock_deadline: Duration,
    /// How long running statements may take to end on shutdown; then reads are stopped, and inserts get as long again.
    pub drain_deadline: Duration,
    pub access: Access,
}

impl OlapOptions {
    pub fn new(library: PathBuf, data_dir: PathBuf, listener: TcpListener) -> Self {
        Self {
            library,
            data_dir,
            listener,
            connections: 4,
            queue_length: 1024,
            queue_wait: Duration::from_secs(30),
            max_body_bytes: 1 << 30,
            max_bodies_bytes: 2 << 30,
            max_sessions: 256,
            send_timeout: Duration::from_secs(300),
            lock_deadline: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(5),
            access: Access::default(),
        }
    }
}

/// Why the front cannot start, or stopped. None of them heals by trying again with the same settings, except `Locked`.
#[derive(Debug, thiserror::Error)]
pub enum OlapError {
    #[error("the OLAP engine's library {path} cannot be loaded: {source}; deploy/fetch-libchdb.sh fetches it")]
    Library { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the OLAP data directory {path} cannot be used: {source}")]
    DataDirectory { path: PathBuf, source: std::io::Error },
    #[error("another process holds the OLAP data directory {data_dir}; waited {waited:?} for it")]
    Locked { data_dir: PathBuf, waited: Duration },
    #[error("the OLAP engine doesn't start on {data_dir}: {reason}")]
    Boot { data_dir: PathBuf, reason: String },
    #[error("the OLAP front stopped serving: {0}")]
    Serve(#[source] std::io::Error),
}

/// Boots the engine, serves until `shutdown`, lets running statements end, closes every connection.
///
/// # Errors
/// When the library or the data directory cannot be used, or serving fails.
pub async fn serve(options: OlapOptions, shutdown: impl Future<Output = ()>) -> Result<(), OlapError> {
    let (library, data_dir, lock_deadline) = (options.library, options.data_dir.clone(), options.lock_deadline);
    let booted = tokio::task::spawn_blocking(move || engine::Engine::boot(&library, &data_dir, lock_deadline)).await;
    let engine = booted.map_err(|error| OlapError::Serve(std::io::Error::other(error)))?.map(Arc::new)?;
    let connections = options.connections.clamp(1, 1024);
    let front = Arc::new(http::Front {
        engine: Arc::clone(&engine),
        sessions: Arc::new(session::Sessions::new(options.max_sessions)),
        reader_sessions: Arc::new(reader_sessions::ReaderSessions::new(options.max_sessions)),
        access: options.access,
        connections: Arc::new(Semaphore::new(connections)),
        reader_connections: Arc::new(Semaphore::new(connections.saturating_sub(1).max(1))),
        waiting: Arc::new(Semaphore::new(options.queue_length + connections)),
        queue_wait: options.queue_wait,
        send_timeout: options.send_timeout,
        max_body_bytes: options.max_body_bytes,
        body_budget: Arc::new(Semaphore::new(options.max_bodies_bytes.div_ceil(body::BUDGET_UNIT_BYTES))),
        statements: AtomicU64::new(0),
    });
    tracing::info!(
        address = ?options.listener.local_addr().ok(),
        version = engine.version(),
        data_dir = %options.data_dir.display(),
        "the OLAP front is up"
    );
    let sweeper = tokio::spawn(sweep_sessions(Arc::clone(&front.sessions)));
    let (stopping, stopped) = oneshot::channel::<()>();
    // Nobody asks the front for metrics.
    let server = Server::new(options.listener, ConnectionLimits::for_clickhouse(), &prometheus::Registry::new());
    let server = server.map_err(|error| OlapError::Serve(std::io::Error::other(error)))?;
    let router = http::router(Arc::clone(&front));
    let mut server = tokio::spawn(server.serve(router, async {
        // A dropped sender means the same.
        let _ = stopped.await;
    }));
    let served = tokio::select! {
        () = shutdown => {
            drop(stopping);
            // Idle connections of clients may stay open for long: only statements are waited for.
            match tokio::time::timeout(options.drain_deadline, &mut server).await {
                Ok(ended) => ended.map_err(std::io::Error::other),
                Err(_) => {
                    stop_reads(&engine).await;
                    Ok(())
                }
            }
        }
        ended = &mut server => ended.map_err(std::io::Error::other),
    };
    server.abort();
    sweeper.abort();
    close_engine(&front, connections, options.drain_deadline).await;
    served.map_err(OlapError::Serve)
}

/// Every connection must be closed before the process ends, or the engine crashes on its way out.
async fn close_engine(front: &Arc<http::Front>, connections: usize, drain_deadline: Duration) {
    front.sessions.close_all();
    let every = u32::try_from(connections).unwrap_or(u32::MAX);
    let idle = tokio::time::timeout(drain_deadline, front.connections.acquire_many(every)).await.is_ok();
    front.connections.close();
    if idle {
        front.sessions.close_all();
        front.engine.close();
        tracing::info!("the OLAP engine is closed");
    } else {
        tracing::warn!("statements still run: the OLAP engine is left open");
    }
}

/// Inserts are left to end: stopped ones would keep what they had written.
async fn stop_reads(engine: &Arc<engine::Engine>) {
    let engine = Arc::clone(engine);
    if let Err(error) = tokio::task::spawn_blocking(move || engine.kill(MARKER_PREFIX)).await {
        tracing::error!(%error, "running statements could not be stopped");
    }
}

async fn sweep_sessions(sessions: Arc<session::Sessions>) {
    let mut ticks = tokio::time::interval(SESSION_SWEEP);
    loop {
        ticks.tick().await;
        sessions.close_expired();
    }
}

const MARKER_PREFIX: &str = "neonhub statement ";

/// A comment that finds one statement among the running ones.
fn statement_marker(number: u64) -> String {
    format!("{MARKER_PREFIX}{number}.")
}

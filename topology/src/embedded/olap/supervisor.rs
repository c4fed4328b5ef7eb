//! The parent's side: starts the OLAP engine as a child of the same binary, restarts it when it dies, stops it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const PING_INTERVAL: Duration = Duration::from_millis(20);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// A child that lived this long starts the backoff anew.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// How to start the child. Its standard input is a pipe: see [`super::parent`].
#[derive(Debug, Clone)]
pub struct OlapChildOptions {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    /// Where the child will answer `/ping`.
    pub address: SocketAddr,
    pub ready_deadline: Duration,
    pub stop_deadline: Duration,
    pub first_backoff: Duration,
    pub longest_backoff: Duration,
}

impl OlapChildOptions {
    /// This very binary with `run olap`.
    ///
    /// # Errors
    /// When the system doesn't tell which file the process runs.
    pub fn current_program(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            arguments: vec!["run".into(), "olap".into()],
            environment: Vec::new(),
            address,
            ready_deadline: Duration::from_secs(30),
            stop_deadline: Duration::from_secs(20),
            first_backoff: Duration::from_millis(100),
            longest_backoff: Duration::from_secs(5),
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OlapChildError {
    #[error("the OLAP process {program} cannot be started: {source}")]
    Spawn { program: PathBuf, source: std::io::Error },
    #[error("the OLAP process ended before it was ready, with {0}; its own message is above")]
    Ended(ExitStatus),
    #[error("the OLAP process was not ready at http://{address}/ping after {waited:?}")]
    NotReady { address: SocketAddr, waited: Duration },
    #[error("the OLAP process cannot be waited for: {0}")]
    Wait(#[source] std::io::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OlapChildState {
    Ready,
    Restarting,
    Stopped,
}

/// A supervised child. Dropping it without [`OlapChild::stop`] ends the child, too: its standard input closes.
pub struct OlapChild {
    stop: watch::Sender<bool>,
    state: watch::Receiver<OlapChildState>,
    restarts: Arc<AtomicU64>,
    supervision: JoinHandle<()>,
}

impl OlapChild {
    /// Starts the child and returns when it answers.
    ///
    /// # Errors
    /// When it doesn't start, ends, or isn't ready in time; nothing is left running then.
    pub async fn start(options: OlapChildOptions) -> Result<Self, OlapChildError> {
        let child = start_once(&options).await?;
        let (stop, stop_requested) = watch::channel(false);
        let (state_sender, state) = watch::channel(OlapChildState::Ready);
        let restarts = Arc::new(AtomicU64::new(0));
        let supervision = tokio::spawn(supervise(options, child, stop_requested, state_sender, Arc::clone(&restarts)));
        Ok(Self { stop, state, restarts, supervision })
    }

    /// How often the child was started anew.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub fn state(&self) -> watch::Receiver<OlapChildState> {
        self.state.clone()
    }

    /// Asks the child to stop and kills it at the deadline.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.supervision.await {
            tracing::error!(%error, "the OLAP supervision failed");
        }
    }
}

/// A child and the pipe that tells it that its parent lives; waiting for a child would close its own handle of the pipe.
struct Running {
    child: Child,
    lifeline: Option<ChildStdin>,
}

async fn start_once(options: &OlapChildOptions) -> Result<Running, OlapChildError> {
    let mut child = Command::new(&options.program)
        .args(&options.arguments)
        .envs(options.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| OlapChildError::Spawn { program: options.program.clone(), source })?;
    let lifeline = child.stdin.take();
    let mut running = Running { child, lifeline };
    let deadline = Instant::now() + options.ready_deadline;
    loop {
        if let Some(status) = running.child.try_wait().map_err(OlapChildError::Wait)? {
            return Err(OlapChildError::Ended(status));
        }
        if tokio::time::timeout(PING_TIMEOUT, answers_ping(options.address)).await.is_ok_and(|answered| answered) {
            return Ok(running);
        }
        if Instant::now() >= deadline {
            end(running, Duration::ZERO).await;
            return Err(OlapChildError::NotReady { address: options.address, waited: options.ready_deadline });
        }
        tokio::time::sleep(PING_INTERVAL).await;
    }
}

/// True when `http://address/ping` says `Ok.`
pub async fn answers_ping(address: SocketAddr) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    exchange.await.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"Ok.\n"))
}

async fn supervise(
    options: OlapChildOptions,
    first: Running,
    mut stop: watch::Receiver<bool>,
    state: watch::Sender<OlapChildState>,
    restarts: Arc<AtomicU64>,
) {
    let mut running = Some(first);
    let mut backoff = options.first_backoff;
    loop {
        if let Some(mut current) = running.take() {
            let started = Instant::now();
            tokio::select! {
                ended = current.child.wait() => tracing::warn!(?ended, "the OLAP process died: restarting it"),
                () = requested(&mut stop) => {
                    end(current, options.stop_deadline).await;
                    break;
                }
            }
            if started.elapsed() >= HEALTHY_AFTER {
                backoff = options.first_backoff;
            }
        }
        state.send_replace(OlapChildState::Restarting);
        let restarted = async {
            tokio::time::sleep(backoff).await;
            restarts.fetch_add(1, Ordering::Relaxed);
            start_once(&options).await
        };
        tokio::select! {
            outcome = restarted => match outcome {
                Ok(current) => {
                    running = Some(current);
                    state.send_replace(OlapChildState::Ready);
                }
                Err(error) => tracing::error!(%error, "the OLAP process could not be restarted"),
            },
            // A child that is starting is killed when its handle drops with `restarted`.
            () = requested(&mut stop) => break,
        }
        backoff = (backoff * 2).min(options.longest_backoff);
    }
    state.send_replace(OlapChildState::Stopped);
}

/// Asks by closing standard input and by SIGTERM, then kills.
async fn end(running: Running, deadline: Duration) {
    let Running { mut child, lifeline } = running;
    drop(lifeline);
    let process = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(process) = process
        && let Err(error) = rustix::process::kill_process(process, rustix::process::Signal::TERM)
    {
        tracing::debug!(%error, "the OLAP process could not be asked to stop");
    }
    if let Ok(ended) = tokio::time::timeout(deadline, child.wait()).await {
        tracing::debug!(?ended, "the OLAP process ended");
        return;
    }
    if let Err(error) = child.kill().await {
        tracing::error!(%error, "the OLAP process could not be killed");
    }
}

/// A dropped [`OlapChild`] asks for the same.
async fn requested(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, address: SocketAddr) -> OlapChildOptions {
        OlapChildOptions {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            ready_deadline: Duration::from_millis(300),
            first_backoff: Duration::from_millis(1),
            ..OlapChildOptions::current_program(address).unwrap()
        }
    }

    /// Answers every connection as the front answers `/ping`.
    async fn pinger() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 256];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nOk.\n").await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_child_that_ends_or_never_answers_is_an_error() {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let ended = OlapChild::start(shell("exit 3", nobody).await).await.err().unwrap();
        assert!(matches!(ended, OlapChildError::Ended(status) if status.code() == Some(3)), "{ended}");
        let silent = OlapChild::start(shell("cat", nobody).await).await.err().unwrap();
        assert!(matches!(silent, OlapChildError::NotReady { .. }), "{silent}");
    }

    #[tokio::test]
    async fn a_child_is_restarted_when_it_dies_and_ends_when_its_input_closes() {
        // It dies at every start; each start counts.
        let dying = OlapChild::start(shell("sleep 0.05", pinger().await).await).await.unwrap();
        let mut state = dying.state();
        let restarted = async {
            while dying.restarts() < 2 {
                state.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), restarted).await.unwrap();
        dying.stop().await;

        let living = OlapChild::start(shell("trap '' TERM; cat", pinger().await).await).await.unwrap();
        assert_eq!(*living.state().borrow(), OlapChildState::Ready);
        tokio::time::timeout(Duration::from_secs(10), living.stop()).await.unwrap();
    }
}

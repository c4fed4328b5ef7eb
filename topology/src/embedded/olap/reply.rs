//! The way of an answer from the thread that runs the statement to the HTTP response: whole when it is short, else piece by
//! piece with backpressure, and broken off with ClickHouse's exception block when the statement fails midway.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::encoding::Encoder;
use super::engine::Engine;
use super::exception::Exception;
use super::library::Counts;

const PIECES_IN_FLIGHT: usize = 4;
const KILL_ATTEMPTS: usize = 50;
const KILL_INTERVAL: Duration = Duration::from_millis(100);

/// What the headers of an answer say.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub format: Option<String>,
    pub counts: Counts,
    pub elapsed: Duration,
}

pub enum Reply {
    Failed(Exception),
    Complete { head: Head, body: Bytes },
    Streaming { head: Head, pieces: mpsc::Receiver<Piece> },
}

pub enum Piece {
    Data(Bytes),
    /// The statement failed: the response must not end well.
    Broken,
}

/// The sending half, used by the thread that runs the statement.
pub struct Responder {
    head: Option<oneshot::Sender<Reply>>,
    pieces: Option<mpsc::Sender<Piece>>,
    encoder: Encoder,
    started: Instant,
    version: String,
    exception_tag: String,
    send_timeout: Duration,
    runtime: Handle,
}

impl Responder {
    pub fn new(
        encoder: Encoder,
        version: &str,
        exception_tag: &str,
        send_timeout: Duration,
    ) -> (Self, oneshot::Receiver<Reply>) {
        let (head, receiver) = oneshot::channel();
        let responder = Self {
            head: Some(head),
            pieces: None,
            encoder,
            started: Instant::now(),
            version: version.to_owned(),
            exception_tag: exception_tag.to_owned(),
            send_timeout,
            runtime: Handle::current(),
        };
        (responder, receiver)
    }

    fn send_head(&mut self, reply: Reply) -> bool {
        self.head.take().is_some_and(|head| head.send(reply).is_ok())
    }

    fn head_of(&self, format: Option<&str>, counts: Counts) -> Head {
        Head { format: format.map(str::to_owned), counts, elapsed: self.started.elapsed() }
    }

    /// The whole answer at once.
    pub fn complete(mut self, format: Option<&str>, counts: Counts, body: Bytes) {
        let head = self.head_of(format, counts);
        let encoder = std::mem::replace(&mut self.encoder, Encoder::Identity);
        match encode_whole(encoder, body) {
            Ok(body) => self.send_head(Reply::Complete { head, body }),
            Err(error) => self.send_head(Reply::Failed(Exception::bad_arguments(format!("cannot compress: {error}")))),
        };
    }

    /// Begins an answer of several pieces. False: the client is gone.
    pub fn start(&mut self, format: Option<&str>, counts: Counts) -> bool {
        let (sender, pieces) = mpsc::channel(PIECES_IN_FLIGHT);
        self.pieces = Some(sender);
        let head = self.head_of(format, counts);
        self.send_head(Reply::Streaming { head, pieces })
    }

    /// Waits for the client to take earlier pieces. False: it is gone, or takes nothing any more.
    pub fn piece(&mut self, piece: Bytes) -> bool {
        self.encoder.encode(piece).is_ok_and(|encoded| self.send(Piece::Data(encoded)))
    }

    fn send(&self, piece: Piece) -> bool {
        if matches!(&piece, Piece::Data(data) if data.is_empty()) {
            return true;
        }
        let Some(pieces) = &self.pieces else { return false };
        let sending = tokio::time::timeout(self.send_timeout, pieces.send(piece));
        self.runtime.block_on(sending).is_ok_and(|sent| sent.is_ok())
    }

    pub fn end(mut self) {
        let encoder = std::mem::replace(&mut self.encoder, Encoder::Identity);
        let last = match encoder.finish() {
            Ok(rest) => Piece::Data(rest),
            Err(_) => Piece::Broken,
        };
        self.send(last);
    }

    /// Before the head: an error response. After it: the exception block, and a body that breaks off.
    pub fn fail(mut self, exception: Exception) {
        if self.head.is_some() {
            self.send_head(Reply::Failed(exception));
            return;
        }
        let block = exception.tagged_block(&self.version, &self.exception_tag);
        // The block is a piece of its own: clients look for it in the last chunk that they decode.
        let earlier = self.encoder.flush();
        let encoded = self.encoder.encode(block.into()).and_then(|first| Ok([first, self.encoder.flush()?]));
        if let (Ok(earlier), Ok(encoded)) = (earlier, encoded) {
            let _ = self.send(Piece::Data(earlier)) && self.send(Piece::Data(encoded.concat().into()));
        }
        self.send(Piece::Broken);
    }
}

fn encode_whole(mut encoder: Encoder, body: Bytes) -> io::Result<Bytes> {
    let first = encoder.encode(body)?;
    let rest = encoder.finish()?;
    Ok(if rest.is_empty() { first } else { [first, rest].concat().into() })
}

/// Shared by a statement and its response: whether one is done, and whether the other is gone.
#[derive(Debug, Default)]
pub struct Progress {
    pub finished: AtomicBool,
    pub abandoned: AtomicBool,
    /// Only reads are stopped: an insert that is stopped keeps what it had written.
    pub stoppable: AtomicBool,
}

/// Stops a read when its response is dropped before its end.
pub struct StopOnDrop {
    pub engine: Arc<Engine>,
    pub progress: Arc<Progress>,
    pub marker: String,
    pub runtime: Handle,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.progress.abandoned.store(true, Ordering::Release);
        if self.progress.finished.load(Ordering::Acquire) || !self.progress.stoppable.load(Ordering::Acquire) {
            return;
        }
        let (engine, progress) = (Arc::clone(&self.engine), Arc::clone(&self.progress));
        let marker = std::mem::take(&mut self.marker);
        self.runtime.spawn_blocking(move || {
            // Repeated, since the statement may not have reached the engine's list yet.
            for _ in 0..KILL_ATTEMPTS {
                if progress.finished.load(Ordering::Acquire) {
                    return;
                }
                engine.kill(&marker);
                std::thread::sleep(KILL_INTERVAL);
            }
        });
    }
}

/// The body of a streaming response.
pub struct PieceStream {
    pieces: mpsc::Receiver<Piece>,
    breaking: bool,
    _stop: StopOnDrop,
}

impl PieceStream {
    pub fn new(pieces: mpsc::Receiver<Piece>, stop: StopOnDrop) -> Self {
        Self { pieces, breaking: false, _stop: stop }
    }
}

impl Stream for PieceStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.breaking {
            return Poll::Ready(Some(Err(io::Error::other("the statement failed"))));
        }
        match self.pieces.poll_recv(context) {
            Poll::Ready(Some(Piece::Data(data))) => Poll::Ready(Some(Ok(data))),
            Poll::Ready(Some(Piece::Broken)) => {
                // One pause, so that the connection sends what it has before it is cut.
                self.breaking = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

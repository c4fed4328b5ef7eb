//! A client's socket, as hyper reads and writes it: with bytes that were read before, and an end to waiting for a client
//! that does not read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Sleep, sleep};

use super::activity::Activity;
use super::counters::Cause;
use super::stream::Stream;

/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the bytes so far say about the client's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    Undecided,
}

pub struct Socket {
    stream: TokioIo<Stream>,
    /// Read, but not yet taken by hyper.
    unread: Bytes,
    /// Runs while a write waits. On the heap, since most never do.
    stall: Option<Pin<Box<Sleep>>>,
    activity: Arc<Activity>,
}

impl Socket {
    pub fn new(stream: Stream, activity: Arc<Activity>) -> Self {
        Self { stream: TokioIo::new(stream), unread: Bytes::new(), stall: None, activity }
    }

    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Waits for a few more bytes, and keeps them for whoever reads next. False: the client has closed.
    pub async fn hear(&mut self) -> bool {
        let mut few = [0; HTTP2_PREFACE.len()];
        let read = self.stream.inner_mut().read(&mut few).await;
        self.count_time_out(&read);
        let heard = read.unwrap_or(0);
        self.put_back(Bytes::copy_from_slice(&few[..heard]), self.unread.clone());
        heard > 0
    }

    pub fn protocol(&self) -> Protocol {
        if self.unread.starts_with(HTTP2_PREFACE) {
            Protocol::Http2
        } else if HTTP2_PREFACE.starts_with(&self.unread) {
            Protocol::Undecided
        } else {
            Protocol::Http1
        }
    }

    /// What hyper had read of a next request, when it gave the socket back.
    pub fn give_back(&mut self, unread: Bytes) {
        let rest = std::mem::take(&mut self.unread);
        self.put_back(rest, unread);
    }

    /// An empty buffer may be large all the same: it must not be kept.
    fn put_back(&mut self, later: Bytes, sooner: Bytes) {
        self.unread = match (sooner.is_empty(), later.is_empty()) {
            (true, true) => Bytes::new(),
            (true, false) => later,
            (false, true) => sooner,
            (false, false) => [sooner, later].concat().into(),
        };
    }

    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    pub fn into_stream(self) -> Stream {
        self.stream.into_inner()
    }

    fn bounded<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stall.take().is_some() {
                self.activity.set_write_blocked(false);
            }
            return self.counted(written);
        }
        let (activity, patience) = (&self.activity, self.activity.server.limits.stall_timeout);
        let stall = self.stall.get_or_insert_with(|| {
            activity.set_write_blocked(true);
            Box::pin(sleep(patience))
        });
        ready!(stall.as_mut().poll(context));
        self.activity.server.counters.ended(Cause::SlowReader);
        // What the system still holds for this client goes with it.
        if let Err(error) = self.stream.inner().tcp().set_zero_linger() {
            tracing::debug!(%error, "SO_LINGER");
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The last bytes of an answer may wait in the stream, after all of it was written.
    fn bounded_if_held(&mut self, context: &mut Context<'_>, flushed: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if self.stream.inner().holds_written() { self.bounded(context, flushed) } else { flushed }
    }

    fn counted<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(outcome) = &outcome {
            self.count_time_out(outcome);
        }
        outcome
    }

    /// The system times out (`TCP_USER_TIMEOUT`) when its own buffer holds all of an answer that the client does not take.
    fn count_time_out<T>(&self, outcome: &io::Result<T>) {
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.activity.server.counters.ended(Cause::SlowReader);
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            let read = Pin::new(&mut self.stream).poll_read(context, into);
            return self.counted(read);
        }
        let fitting = self.unread.len().min(into.remaining());
        into.put_slice(&self.unread.split_to(fitting));
        if self.unread.is_empty() {
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded_if_held(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded_if_held(context, shut_down)
    }
}

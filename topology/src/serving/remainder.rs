//! What a handler did not read of a body over HTTP/1, as when it says 401 at the head: a little of it is read all the same,
//! before the answer. Else hyper would close the connection behind the answer without a word, and a client that uses it again
//! would lose its next request (RFC 9112, section 9.3: an unread body ends a connection's use).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use tokio::time::{Sleep, sleep};

/// More is not waited for.
const MOST: u64 = 64 * 1024;
/// The client has sent it already, or is about to.
const PATIENCE: Duration = Duration::from_millis(500);

pub struct Remainder<B> {
    body: B,
    read: u64,
    /// Once it did not come at once.
    end: Option<Pin<Box<Sleep>>>,
}

impl<B> Remainder<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// `None`: there is too much of it, or none.
    pub fn of(body: B) -> Option<Self> {
        let is_wanted = !body.is_end_stream() && body.size_hint().lower() <= MOST;
        is_wanted.then_some(Self { body, read: 0, end: None })
    }

    /// Ready when it is read, or not worth more.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            match frame {
                Some(Ok(frame)) => self.read += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(_)) | None => return Poll::Ready(()),
            }
            if self.read > MOST {
                return Poll::Ready(());
            }
        }
        self.end.get_or_insert_with(|| Box::pin(sleep(PATIENCE))).as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use tokio::time::Instant;

    use super::*;

    /// How long it takes, and how much was read of pieces of a kilobyte, which may end.
    async fn read(pieces: usize, ends: bool) -> (Duration, u64) {
        let pieces = stream::repeat_with(|| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; 1_024])))).take(pieces);
        let silence = stream::pending();
        let body = if ends { pieces.boxed() } else { pieces.chain(silence).boxed() };
        let mut remainder = Remainder::of(StreamBody::new(body)).unwrap();
        let began = Instant::now();
        std::future::poll_fn(|context| remainder.poll_read(context)).await;
        (began.elapsed(), remainder.read)
    }

    #[tokio::test(start_paused = true)]
    async fn a_little_is_read_and_not_waited_for_long() {
        assert_eq!(read(10, true).await, (Duration::ZERO, 10 * 1_024));
        assert_eq!(read(10, false).await, (PATIENCE, 10 * 1_024));
        assert_eq!(read(1_000, true).await, (Duration::ZERO, 65 * 1_024));
        assert!(Remainder::of(Full::new(Bytes::from(vec![0; 64 * 1_024 + 1]))).is_none());
        assert!(Remainder::of(Full::new(Bytes::new())).is_none());
    }
}

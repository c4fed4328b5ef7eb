//! A request's body whose sender must keep going. One that stops breaks off with `TimedOut`, which the services answer with
//! 408. Nothing is paid for a body that is there when it is asked for, as small ones are.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, Exchange};
use super::counters::Cause;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub struct RequestBody<B: Left> {
    /// `None` only while it is dropped.
    body: Option<B>,
    exchange: Exchange,
    /// Whether what is not read of it may still be.
    leaves_rest: bool,
    received: u64,
    wait: Option<Wait>,
}

/// A body that did not come at once.
struct Wait {
    /// When it was first waited for.
    begun: Instant,
    /// Whether `end` is for the wait that is on now.
    is_on: bool,
    end: Pin<Box<Sleep>>,
}

/// A body that is not read to its end.
pub trait Left: Sized {
    fn leave_to(self, activity: &Activity);
}

impl Left for Incoming {
    fn leave_to(self, activity: &Activity) {
        activity.leave(self);
    }
}

impl<B: Left> Drop for RequestBody<B> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|_| self.leaves_rest) {
            body.leave_to(self.exchange.activity());
        }
    }
}

impl<B: Left> RequestBody<B> {
    pub fn new(body: B, exchange: Exchange, leaves_rest: bool) -> Self {
        Self { body: Some(body), exchange, leaves_rest, received: 0, wait: None }
    }

    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (limits, received) = (&self.exchange.activity().server.limits, self.received);
        let end_of_wait = |begun: Instant| {
            let pause = Instant::now() + limits.stall_timeout;
            limits.body_time(received).map_or(pause, |whole| pause.min(begun + whole))
        };
        let wait = self.wait.get_or_insert_with(|| {
            let begun = Instant::now();
            Wait { begun, is_on: true, end: Box::pin(sleep_until(end_of_wait(begun))) }
        });
        if !wait.is_on {
            wait.end.as_mut().reset(end_of_wait(wait.begun));
            wait.is_on = true;
        }
        wait.end.as_mut().poll(context)
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Left + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            if let Some(wait) = &mut self.wait {
                wait.is_on = false;
            }
            if let Some(Ok(frame)) = &frame {
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.poll_overdue(context));
        self.exchange.activity().server.counters.ended(Cause::SlowBody);
        let overdue = io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly");
        Poll::Ready(Some(Err(overdue.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::sleep;

    use super::super::{ConnectionLimits, Shared};
    use super::*;

    impl<S> Left for StreamBody<S> {
        fn leave_to(self, _: &Activity) {}
    }

    /// Ten seconds of patience, a kilobyte a second.
    fn server() -> Arc<Shared> {
        let stall_timeout = Duration::from_secs(10);
        Shared::for_testing(ConnectionLimits { stall_timeout, min_body_rate: 1_000, ..ConnectionLimits::default() })
    }

    /// Bytes that came, of pieces that each come so many seconds after the one before.
    async fn received(server: &Arc<Shared>, pieces: Vec<(u64, usize)>) -> Option<usize> {
        let pieces = stream::unfold(pieces.into_iter(), |mut pieces| async move {
            let (seconds, bytes) = pieces.next()?;
            sleep(Duration::from_secs(seconds)).await;
            Some((Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; bytes]))), pieces))
        });
        let body = StreamBody::new(Box::pin(pieces));
        let body = RequestBody::new(
            body,
            Exchange::begin(&Activity::new(Arc::clone(server), Ipv4Addr::LOCALHOST.into())),
            true,
        );
        match body.collect().await {
            Ok(whole) => Some(whole.to_bytes().len()),
            Err(error) => {
                assert_eq!(error.downcast::<io::Error>().unwrap().kind(), io::ErrorKind::TimedOut);
                None
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_and_trickles_are_too_slow() {
        let server = server();
        assert_eq!(received(&server, vec![(0, 100_000), (11, 1)]).await, None);
        assert_eq!(received(&server, vec![(5, 1); 100]).await, None);
        assert_eq!(server.counters.ended_by(Cause::SlowBody), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn steady_senders_are_waited_for() {
        let server = server();
        assert_eq!(received(&server, vec![(9, 9_000); 50]).await, Some(450_000));
        assert_eq!(received(&server, vec![]).await, Some(0));
        assert_eq!(server.counters.ended_by(Cause::SlowBody), 0);
    }
}

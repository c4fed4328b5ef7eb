//! One request and its answer, between hyper and a service's router.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body as AxumBody;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use hyper::service::Service;
use hyper::{Request, Response};
use tower_service::Service as _;

use super::activity::{Activity, Exchange};
use super::remainder::Remainder;
use super::request_body::RequestBody;
use super::security_headers;
use super::socket::Protocol;

/// The router, as one connection's hyper calls it.
pub struct Exchanges {
    pub activity: Arc<Activity>,
    pub protocol: Protocol,
}

impl Service<Request<Incoming>> for Exchanges {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let exchange = Exchange::begin(&self.activity);
        // Whoever waits to be told to go on sends nothing after another answer.
        let leaves_rest = self.protocol == Protocol::Http1 && !request.headers().contains_key(EXPECT);
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                AxumBody::empty()
            } else {
                AxumBody::new(RequestBody::new(body, exchange.clone(), leaves_rest))
            }
        });
        let server = &self.activity.server;
        if let Err(over) = server.clients.take_request(self.activity.peer, request.uri().path(), request.headers()) {
            server.counters.requests_over_limit.inc();
            // The service answers, in its own words and with what browsers of other origins need to read them.
            request.extensions_mut().insert(over);
        }
        // A router is always ready.
        let answering = server.router.clone().call(request);
        Answering { answering, unfinished: None, exchange: Some(exchange), protocol: self.protocol }
    }
}

pub struct Answering {
    answering: RouteFuture<Infallible>,
    unfinished: Option<Box<Unfinished>>,
    exchange: Option<Exchange>,
    protocol: Protocol,
}

/// An answer that waits for what its handler did not read.
struct Unfinished {
    rest: Remainder<Incoming>,
    response: Response<AxumBody>,
}

impl Answering {
    fn finish(&mut self, mut response: Response<AxumBody>) -> Response<Answer> {
        security_headers::add(response.headers_mut());
        let exchange = self.exchange.take();
        let number = match (&exchange, self.protocol) {
            (Some(exchange), Protocol::Http2) => Some(exchange.activity().unread.new_answer()),
            _ => None,
        };
        response.map(|body| Answer { body, exchange, number })
    }
}

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut unfinished = match self.unfinished.take() {
            Some(unfinished) => unfinished,
            None => {
                let response = match ready!(Pin::new(&mut self.answering).poll(context)) {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                let left = self.exchange.as_ref().and_then(|exchange| exchange.activity().take_left());
                match left.and_then(Remainder::of) {
                    Some(rest) => Box::new(Unfinished { rest, response }),
                    None => return Poll::Ready(Ok(self.finish(response))),
                }
            }
        };
        if unfinished.rest.poll_read(context).is_pending() {
            self.unfinished = Some(unfinished);
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.finish(unfinished.response)))
    }
}

/// An answer's body. The exchange ends with it.
pub struct Answer {
    body: AxumBody,
    exchange: Option<Exchange>,
    /// Over HTTP/2, which it is of its connection's answers.
    number: Option<u64>,
}

impl Answer {
    fn numbered(&self) -> Option<(&Activity, u64)> {
        Some((self.exchange.as_ref()?.activity(), self.number?))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Some((activity, number)) = self.numbered() {
            match frame {
                Poll::Ready(Some(_)) => activity.unread.waits(number),
                // It waits for us, or it is over.
                Poll::Pending | Poll::Ready(None) => activity.unread.goes_on(number),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some((activity, number)) = self.numbered() {
            activity.unread.goes_on(number);
        }
    }
}

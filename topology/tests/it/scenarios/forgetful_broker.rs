//! A broker that knows of no broker for a moment, as one that starts: every client goes on by itself.

use std::time::Duration;

use crate::forgetful_proxy::ForgetfulProxy;
use crate::poster::Poster;
use crate::real_stack::kafka::Site;
use crate::real_stack::scratch::ReservedPort;
use crate::real_stack::{Kafka, wait_until};
use crate::sse_client::SseClient;
use crate::stack::{Backbone, Options, Stack};

const LIMIT: Duration = Duration::from_secs(60);

pub fn run() {
    let port = ReservedPort::reserve().unwrap();
    let site = Site { proxy_port: Some(port.number()), ..Site::default() };
    let kafka = Kafka::start_at(&site).unwrap_or_else(|error| panic!("{error}"));
    let proxy = ForgetfulProxy::start(port, kafka.client_port());
    let stack = Stack::start_with(Backbone::Kafka, Options::default(), Some(kafka));
    let client = stack.client();
    let poster = Poster::start(client.clone(), "forgetful");
    poster.wait_for_more(500);
    proxy.forget();
    wait_until("the clients have asked, each several times", LIMIT, || Ok(proxy.answered() >= 100)).unwrap();
    proxy.remember();
    poster.wait_for_more(500);
    let mut live = SseClient::open(client.api_port, "/v1/live/metrics", "");
    wait_until("a window is pushed", LIMIT, || Ok(live.next_message_before_heartbeat().is_some())).unwrap();
    let posted = poster.finish();
    client.wait_for_events(posted);
    stack.assert_audit_clean();
}

//! What one address may take: connections at one time, and requests a minute (GCRA, on a clock that is never set).

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::HeaderMap;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use ipnet::IpNet;
use neonhub_schemas::over_limit::OverLimit;
use parking_lot::Mutex;

use super::client::{Client, is_trusted, origin};

/// Clients whose requests are remembered at one time. Beyond them newcomers are not counted: whoever has so many addresses
/// has as many quotas, and counting him for one more would help nobody.
const MOST_REMEMBERED: usize = 100_000;

/// Those whose quota is whole again are forgotten after so many requests.
const FORGET_EVERY: u32 = 4_096;

/// What probes and Prometheus ask for.
const FREE: [&str; 3] = ["/health/live", "/health/ready", "/metrics"];

/// Limits of one service's clients. By default there are none: behind a proxy that is not named as trusted, all clients have
/// its address, and a limit would be one for all of them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Open at one time; 0: any.
    pub connections: usize,
    /// 0: any.
    pub requests_per_minute: u32,
    /// Whose `X-Forwarded-For` is believed, and whose connections are not limited, since they are many clients'.
    pub trusted_proxies: Vec<IpNet>,
}

/// Counts what clients take.
pub struct Clients {
    connections: usize,
    trusted_proxies: Vec<IpNet>,
    open: Mutex<HashMap<Client, usize>>,
    requests: Option<RequestLimit<MonotonicClock>>,
}

impl Clients {
    pub fn new(limits: ClientLimits) -> Self {
        let requests = NonZeroU32::new(limits.requests_per_minute);
        Self {
            connections: limits.connections,
            trusted_proxies: limits.trusted_proxies,
            open: Mutex::default(),
            requests: requests.map(|per_minute| RequestLimit::new(per_minute, MOST_REMEMBERED, MonotonicClock)),
        }
    }

    /// Counts one more connection. False: there are as many as there may be, and nothing was counted.
    pub fn enter(&self, peer: IpAddr) -> bool {
        let Some(client) = self.counted(peer) else { return true };
        let mut open = self.open.lock();
        let of_client = open.entry(client).or_default();
        let is_let_in = *of_client < self.connections;
        *of_client += usize::from(is_let_in);
        is_let_in
    }

    /// One that was let in is over.
    pub fn leave(&self, peer: IpAddr) {
        let Some(client) = self.counted(peer) else { return };
        let mut open = self.open.lock();
        if let Some(of_client) = open.get_mut(&client) {
            *of_client = of_client.saturating_sub(1);
            if *of_client == 0 {
                open.remove(&client);
            }
        }
    }

    fn counted(&self, peer: IpAddr) -> Option<Client> {
        (self.connections > 0 && !is_trusted(peer, &self.trusted_proxies)).then(|| Client::from(peer))
    }

    /// Takes one request. Those of probes and of Prometheus are free.
    ///
    /// # Errors
    /// The client has used up its quota.
    pub fn take_request(&self, peer: IpAddr, path: &str, headers: &HeaderMap) -> Result<(), OverLimit> {
        match &self.requests {
            Some(limit) if !FREE.contains(&path) => limit.take(origin(peer, headers, &self.trusted_proxies).into()),
            _ => Ok(()),
        }
    }
}

type Limiter<C> = RateLimiter<Client, Remembered, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Requests a minute of each client, all of them at once if it likes.
struct RequestLimit<C: Clock> {
    limiter: Limiter<C>,
    clock: C,
    per_minute: NonZeroU32,
    taken: AtomicU32,
}

impl<C: Clock + Clone> RequestLimit<C> {
    fn new(per_minute: NonZeroU32, most_remembered: usize, clock: C) -> Self {
        let remembered = Remembered { most: most_remembered, arrivals: Mutex::default() };
        let limiter = RateLimiter::new(Quota::per_minute(per_minute), remembered, clock.clone());
        Self { limiter, clock, per_minute, taken: AtomicU32::new(0) }
    }

    fn take(&self, client: Client) -> Result<(), OverLimit> {
        if self.taken.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.limiter.retain_recent();
        }
        self.limiter
            .check_key(&client)
            .map_err(|until| OverLimit { wait: until.wait_time_from(self.clock.now()), per_minute: self.per_minute })
    }
}

/// When each client's quota is whole again, for no more clients than there may be.
struct Remembered {
    most: usize,
    arrivals: Mutex<HashMap<Client, Nanos>>,
}

impl StateStore for Remembered {
    type Key = Client;

    fn measure_and_replace<T, F, E>(&self, client: &Client, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut arrivals = self.arrivals.lock();
        let before = arrivals.get(client).copied();
        let (outcome, arrival) = measure(before)?;
        if before.is_some() || arrivals.len() < self.most {
            arrivals.insert(*client, arrival);
        }
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<Client> for Remembered {
    fn retain_recent(&self, drop_below: Nanos) {
        self.arrivals.lock().retain(|_, arrival| *arrival > drop_below);
    }

    fn len(&self) -> usize {
        self.arrivals.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.arrivals.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn limit(per_minute: u32, most_remembered: usize) -> (RequestLimit<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (RequestLimit::new(NonZeroU32::new(per_minute).unwrap(), most_remembered, clock.clone()), clock)
    }

    #[test]
    fn each_client_has_its_own_quota_is_told_the_wait_and_gets_it_back() {
        let (limit, clock) = limit(3, 10);
        let (first, second) = (address(1).into(), address(2).into());
        for _ in 0..3 {
            assert_eq!(limit.take(first), Ok(()));
        }
        let over = limit.take(first).unwrap_err();
        assert_eq!((over.wait, over.per_minute.get()), (Duration::from_secs(20), 3));
        assert_eq!(limit.take(second), Ok(()));
        clock.advance(Duration::from_secs(20));
        assert_eq!(limit.take(first), Ok(()));
        assert!(limit.take(first).is_err());
    }

    #[test]
    fn memory_is_bounded_and_whole_quotas_are_forgotten() {
        let (limit, clock) = limit(1, 10);
        for number in 1..=1_000 {
            assert_eq!(limit.take(address(number).into()), Ok(()));
        }
        assert_eq!(limit.limiter.len(), 10);
        assert!(limit.take(address(10).into()).is_err(), "who is remembered is limited still");
        clock.advance(Duration::from_secs(121));
        for number in 0..FORGET_EVERY {
            let _verdict = limit.take(address(2_000 + number % 3).into());
        }
        assert_eq!(limit.limiter.len(), 3);
    }

    #[test]
    fn connections_are_counted_by_client_and_not_for_proxies() {
        let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let clients = Clients::new(ClientLimits { connections: 2, trusted_proxies, ..ClientLimits::default() });
        let (first, second) = (address(1), address(2));
        assert_eq!([first, first, first, second].map(|peer| clients.enter(peer)), [true, true, false, true]);
        clients.leave(first);
        assert!(clients.enter(first));
        let proxy = "10.1.2.3".parse().unwrap();
        assert!((0..10).all(|_| clients.enter(proxy)));
        for peer in [first, first, second] {
            clients.leave(peer);
        }
        assert!(clients.open.lock().is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn probes_are_free_and_no_limit_is_none() {
        let limits = ClientLimits { requests_per_minute: 1, ..ClientLimits::default() };
        let (clients, headers) = (Clients::new(limits), HeaderMap::new());
        let take = |clients: &Clients, path| clients.take_request(address(1), path, &headers).is_ok();
        let taken = ["/health/ready", "/v1/track", "/v1/track", "/health/live", "/metrics", "/healthy"];
        assert_eq!(taken.map(|path| take(&clients, path)), [true, true, false, true, true, false]);
        let unlimited = Clients::new(ClientLimits::default());
        assert!((0..10).all(|_| take(&unlimited, "/v1/track") && unlimited.enter(address(1))));
        assert!(unlimited.open.lock().is_empty());
    }
}

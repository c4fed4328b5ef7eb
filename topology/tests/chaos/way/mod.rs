//! The way to the broker, which can be cut off, slowed down, and made to lose and reorder packets. In the order of
//! preference:
//!
//! | module | the broker is | what gets through is decided by | needs |
//! |---|---|---|---|
//! | `netem` | in a network namespace, behind a veth pair | `tc netem` | root, iproute2, the kernel's `sch_netem` |
//! | `tun` | in a network namespace, behind two TUN devices | threads of this process that hand packets on | root, iproute2, `/dev/net/tun` |
//! | `proxy` | on loopback | a TCP proxy, which knows no packets | nothing |
//!
//! The first two take and lose packets, so that both ends' TCP does what it does on a bad network.

mod namespace;
mod netem;
mod proxy;
mod tun;

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::real_stack::Kafka;
use crate::real_stack::kafka::Site;
use crate::real_stack::scratch::ReservedPort;
use namespace::Namespace;
use netem::Netem;
use proxy::Proxy;
use tun::TunPair;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Nothing gets through, and nobody is told.
    Cut,
    /// Everything takes so much longer, in each direction.
    Slow(Duration),
    /// In each direction two packets in a hundred are lost, and every fourth comes so late that others overtake it.
    Lossy,
}

/// Of [`Way::Lossy`], in percent.
const LOST: u8 = 2;
const OVERTAKEN: u8 = 25;
const LATE_BY: Duration = Duration::from_millis(10);

/// Gone with everything that it made when dropped; the broker has to go first.
pub struct Link(Kind);

enum Kind {
    Netem(Netem),
    Tun(TunPair),
    Proxy(Proxy),
}

impl Link {
    /// A broker, and the way to it. `kind` chooses one by its name; the best that there is where it is empty.
    pub fn to_new_broker(kind: &str) -> (Kafka, Self) {
        match Self::through_namespace(kind) {
            Ok(link) => (start(&link.site()), link),
            Err(reason) => {
                println!("the way to the broker: a proxy, {reason}");
                let port = ReservedPort::reserve().unwrap();
                let kafka = start(&Site { proxy_port: Some(port.number()), ..Site::default() });
                let proxy = Proxy::start(port, kafka.client_port());
                (kafka, Self(Kind::Proxy(proxy)))
            }
        }
    }

    /// `Err`: why there is none.
    fn through_namespace(kind: &str) -> Result<Self, String> {
        if kind == "proxy" {
            return Err("as was asked for".to_owned());
        }
        let namespace = Namespace::create().map_err(|error| format!("as there is no network namespace: {error}"))?;
        let no_netem = match kind {
            "tun" => "as was asked for".to_owned(),
            _ => match netem::check(&namespace) {
                Ok(()) => {
                    println!("the way to the broker: a network namespace and tc netem");
                    return Netem::join(namespace).map(|netem| Self(Kind::Netem(netem)));
                }
                Err(error) if kind == "netem" => return Err(error),
                Err(error) => format!("as there is no tc netem: {error}"),
            },
        };
        println!("the way to the broker: a network namespace and TUN devices, {no_netem}");
        TunPair::join(namespace).map(|pair| Self(Kind::Tun(pair)))
    }

    fn namespace(&self) -> Option<&Namespace> {
        match &self.0 {
            Kind::Netem(netem) => Some(netem.namespace()),
            Kind::Tun(pair) => Some(pair.namespace()),
            Kind::Proxy(_) => None,
        }
    }

    fn site(&self) -> Site {
        let prefix: &[&str] = &["ip", "netns", "exec"];
        self.namespace().map_or_else(Site::default, |namespace| Site {
            prefix: prefix.iter().copied().chain([namespace.name()]).map(OsString::from).collect(),
            address: namespace.inner_address(),
            proxy_port: None,
        })
    }

    /// `false`: this is beyond a proxy, and nothing was done.
    #[must_use]
    pub fn set(&self, way: Way) -> bool {
        match &self.0 {
            Kind::Netem(netem) => netem.set(way),
            Kind::Tun(pair) => pair.set(way),
            Kind::Proxy(_) if way == Way::Lossy => return false,
            Kind::Proxy(proxy) => proxy.set(way),
        }
        true
    }
}

fn start(site: &Site) -> Kafka {
    Kafka::start_at(site).unwrap_or_else(|error| panic!("{error}"))
}

/// How long the far end takes to say that nobody listens there. `None`: nothing came back.
#[cfg(test)]
fn round_trip(to: Ipv4Addr, limit: Duration) -> Option<Duration> {
    let began = std::time::Instant::now();
    let outcome = std::net::TcpStream::connect_timeout(&(to, 9).into(), limit);
    let is_refused = outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    is_refused.then(|| began.elapsed())
}

#[test]
fn packets_are_lost_late_or_cut_off_as_the_way_says() {
    for kind in ["netem", "tun"] {
        let link = match Link::through_namespace(kind) {
            Ok(link) => link,
            Err(reason) => {
                println!("the way to the broker, {kind}: LEFT OUT, {reason}");
                continue;
            }
        };
        let address = link.namespace().unwrap().inner_address();
        let (soon, limit) = (Duration::from_millis(50), Duration::from_secs(10));
        let quickest = |trips: usize| (0..trips).filter_map(|_| round_trip(address, limit)).min();
        assert!(quickest(10).is_some_and(|took| took < soon), "it is open from the start");
        let slow = Way::Slow(soon);
        assert!(link.set(slow));
        assert!(quickest(3).is_some_and(|took| took >= soon * 2), "{slow:?}");
        assert!(link.set(Way::Cut));
        assert_eq!(round_trip(address, Duration::from_millis(300)), None, "nothing comes back");
        assert!(link.set(Way::Open));
        assert!(quickest(10).is_some_and(|took| took < soon), "as it was");
        assert!(link.set(Way::Lossy));
        let trips: Vec<_> = (0..300).map(|_| round_trip(address, Duration::from_millis(200))).collect();
        let late = trips.iter().flatten().filter(|took| **took >= LATE_BY).count();
        let lost = trips.iter().filter(|trip| trip.is_none()).count();
        assert!((30..270).contains(&late) && (1..100).contains(&lost), "of 300 {late} were late and {lost} lost");
        println!("the way to the broker, {kind}: of 300 round trips {late} were late and {lost} lost");
    }
}

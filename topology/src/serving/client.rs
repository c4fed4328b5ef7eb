//! Pure: no I/O, no clock, no async.
//!
//! Whom a request is from: the peer, or whom proxies that are trusted say that it is from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Of an IPv6 address, what tells customers of a network apart: each gets at least 64 bits for itself (RFC 6177).
const IPV6_NETWORK: u128 = u128::MAX << 64;

/// Those that share a limit: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into()),
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// The rightmost address in `X-Forwarded-For` that is no trusted proxy's, if the peer is one. What stands left of it could
/// have been made up by whoever it is. Where something else than an address stands, it is the proxy that wrote it.
pub fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer;
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    for stated in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        if !is_trusted(nearest, trusted) {
            return nearest;
        }
        match std::str::from_utf8(stated).ok().and_then(|stated| parse(stated.trim())) {
            Some(address) => nearest = address,
            None => return nearest,
        }
    }
    nearest
}

/// Some proxies add the port.
fn parse(stated: &str) -> Option<IpAddr> {
    stated.parse().ok().or_else(|| stated.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(address: &str) -> Client {
        Client::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_customers_ipv6_network_is_one_client() {
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[test]
    fn only_what_trusted_proxies_have_written_is_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let origin_of = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            origin(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(origin_of("192.0.2.1", &["198.51.100.1"]), "192.0.2.1", "the peer is nobody's proxy");
        assert_eq!(origin_of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(origin_of("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(origin_of("::ffff:10.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(origin_of("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(
            origin_of("fd00::1", &["203.0.113.9", "198.51.100.1,10.0.0.2"]),
            "198.51.100.1",
            "one list in lines"
        );
        assert_eq!(origin_of("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(origin_of("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "a client of the inner network");
        assert_eq!(origin_of("10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(origin_of("10.0.0.1", &["é, 198.51.100.1"]), "198.51.100.1", "whatever the client wrote before it");
    }
}

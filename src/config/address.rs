//! Addresses in the configuration: where a service listens, and what one connects to.

use crate::model::Endpoint;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// RFC 1035, section 2.3.4.
const MAX_DNS_NAME_BYTES: usize = 253;
const MAX_DNS_LABEL_BYTES: usize = 63;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("an address must not be empty; write host:port")]
    Empty,
    #[error("{0:?} begins with a scheme; write only host:port")]
    Scheme(String),
    #[error("{0:?} names no host; write host:port")]
    NoHost(String),
    #[error("{0:?} is not a port; ports are numbers from {1} to 65535")]
    Port(String, u16),
    #[error("{0:?} is not a host name or an IP address")]
    Host(String),
    #[error("the IPv6 address {0:?} must stand in brackets, as in [::1]:5432")]
    Brackets(String),
    #[error("{0:?} holds more than host and port; user, database and options are the client's to give")]
    MoreThanHostAndPort(String),
    #[error("{0:?} must be host:port or postgres://host:port")]
    DatabaseScheme(String),
}

impl Endpoint {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    /// There is no host, or host or port are not of their form.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        let (host, port) = split(text, 1)?;
        if host.is_empty() {
            return Err(AddressError::NoHost(text.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.unwrap_or(default_port),
        })
    }

    /// Reads the `uri` of a database: as [`Endpoint::parse`], with `postgres://` or `postgresql://` allowed in front.
    ///
    /// # Errors
    /// As of [`Endpoint::parse`], and when there is a user, a database name or an option in it.
    pub fn parse_database_uri(text: &str) -> Result<Self, AddressError> {
        let rest = match text.split_once("://") {
            Some(("postgres" | "postgresql", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(_) => return Err(AddressError::DatabaseScheme(text.to_owned())),
            None => text,
        };
        if let Some(at) = rest.find(['@', '/', '?', '#']) {
            // What stands before an `@` may be a password; only what follows is repeated.
            let shown = rest.rsplit_once('@').map_or(rest, |(_, after)| after);
            let shown = if rest.as_bytes().get(at) == Some(&b'@') {
                format!("…@{shown}")
            } else {
                shown.to_owned()
            };
            return Err(AddressError::MoreThanHostAndPort(shown));
        }
        Self::parse(rest, super::DEFAULT_POSTGRES_PORT)
    }
}

/// Where a service listens. Port 0 lets the system choose one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddr {
    pub host: ListenHost,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenHost {
    /// Every address of the machine, IPv4 and IPv6: `:443`.
    All,
    Ip(IpAddr),
    /// Looked up when the service starts.
    Name(String),
}

impl ListenAddr {
    /// `0.0.0.0:port`.
    pub const fn any_v4(port: u16) -> Self {
        Self {
            host: ListenHost::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            port,
        }
    }

    /// Reads `:port`, `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    /// Host or port are not of their form.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        let (host, port) = split(text, 0)?;
        let host = if host.is_empty() {
            ListenHost::All
        } else {
            host.parse::<IpAddr>()
                .map_or_else(|_| ListenHost::Name(host.to_owned()), ListenHost::Ip)
        };
        Ok(Self {
            host,
            port: port.unwrap_or(default_port),
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            ListenHost::All => write!(f, ":{}", self.port),
            ListenHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            ListenHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// The addresses to try in order until one can be bound: for all addresses first `[::]`, which on Linux takes IPv4 too, then
/// `0.0.0.0` for machines without IPv6. Only a name is looked up, which may block.
impl ToSocketAddrs for ListenAddr {
    type Iter = std::vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let ips = match &self.host {
            ListenHost::All => vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            ListenHost::Ip(ip) => vec![*ip],
            ListenHost::Name(name) => return (name.as_str(), self.port).to_socket_addrs(),
        };
        let addresses: Vec<_> = ips.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect();
        Ok(addresses.into_iter())
    }
}

/// Splits into host (perhaps empty, an IPv6 address without brackets) and port.
fn split(text: &str, least_port: u16) -> Result<(&str, Option<u16>), AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if text.contains("://") {
        return Err(AddressError::Scheme(text.to_owned()));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or_else(|| AddressError::Host(text.to_owned()))?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(AddressError::Host(text.to_owned()));
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(AddressError::Host(text.to_owned())),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(AddressError::Brackets(text.to_owned()));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if !host.is_empty() && host.parse::<IpAddr>().is_err() && !is_dns_name(host) {
        return Err(AddressError::Host(host.to_owned()));
    }
    let port = port.map(|port| parse_port(port, least_port)).transpose()?;
    Ok((host, port))
}

fn parse_port(text: &str, least: u16) -> Result<u16, AddressError> {
    text.parse::<u16>()
        .ok()
        .filter(|port| *port >= least && text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| AddressError::Port(text.to_owned(), least))
}

/// Whether `text` can be a DNS name. `_` is not one of RFC 1123's characters, but resolvers and container networks use it.
pub(super) fn is_dns_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |l: &str| !l.is_empty() && l.len() <= MAX_DNS_LABEL_BYTES && l.bytes().all(allowed);
    let text = text.strip_suffix('.').unwrap_or(text);
    // Digits and dots alone are a mistyped IPv4 address, which no resolver should see.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.len() <= MAX_DNS_NAME_BYTES && text.split('.').all(label) && !numeric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_takes_its_default_port_where_none_is_given() {
        let port = |text| Endpoint::parse(text, 3080).map(|e| e.to_string());
        assert_eq!(port("example.com").as_deref(), Ok("example.com:3080"));
        assert_eq!(port("example.com:443").as_deref(), Ok("example.com:443"));
        assert_eq!(port("[::1]").as_deref(), Ok("[::1]:3080"));
        assert_eq!(port("[::1]:1").as_deref(), Ok("[::1]:1"));
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_the_reason() {
        let refused = |text: &str| Endpoint::parse(text, 1).expect_err(text);
        assert_eq!(refused(""), AddressError::Empty);
        assert!(matches!(refused(":443"), AddressError::NoHost(_)));
        assert!(matches!(refused("::1"), AddressError::Brackets(_)));
        assert!(matches!(refused("https://example.com"), AddressError::Scheme(_)));
        assert!(matches!(refused("[not-v6]:1"), AddressError::Host(_)));
        assert!(matches!(refused("[::1]x"), AddressError::Host(_)));
        assert!(matches!(refused("a b:1"), AddressError::Host(_)));
        assert!(matches!(refused("10.0.0.256:1"), AddressError::Host(_)));
        for port in ["0", "65536", "+1", "x", ""] {
            assert!(
                matches!(refused(&format!("host:{port}")), AddressError::Port(..)),
                "{port}"
            );
        }
    }

    #[test]
    fn a_colon_and_a_port_listen_on_all_addresses() {
        let all = ListenAddr::parse(":443", 1).expect("valid");
        assert_eq!(all.host, ListenHost::All);
        assert_eq!(all.to_string(), ":443");
        let tried: Vec<_> = all
            .to_socket_addrs()
            .expect("no look-up")
            .map(|a| a.to_string())
            .collect();
        assert_eq!(tried, ["[::]:443", "0.0.0.0:443"]);
    }

    #[test]
    fn a_database_uri_holds_host_and_port_only() {
        let ok = |text| Endpoint::parse_database_uri(text).map(|e| e.to_string());
        assert_eq!(ok("db:5433").as_deref(), Ok("db:5433"));
        assert_eq!(ok("postgres://db:5433").as_deref(), Ok("db:5433"));
        assert_eq!(ok("postgresql://[::1]/").as_deref(), Ok("[::1]:5432"));
        assert!(matches!(ok("mysql://db:3306"), Err(AddressError::DatabaseScheme(_))));
        assert!(matches!(ok("db/orders"), Err(AddressError::MoreThanHostAndPort(_))));
    }

    #[test]
    fn a_password_in_a_database_uri_is_not_repeated() {
        let refused = Endpoint::parse_database_uri("postgres://me:hunter2@db:5432/x").expect_err("a user");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
}

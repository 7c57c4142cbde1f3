//! Where something is reached: a host and a port.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// What one connects to: a DNS name or an IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// An IPv6 address is held without brackets.
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Whether the host is a link-local address itself; a name may still lead to one.
    pub fn is_link_local(&self) -> bool {
        self.host.parse().is_ok_and(is_link_local)
    }
}

/// An address of the machine's own link (RFC 3927; RFC 4291, section 2.5.6). Clouds give a machine its credentials there.
pub fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

//! A network of IP addresses, written as an operator does: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// All addresses that begin as `address` does, in the first `prefix` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("{0:?} is not a network; write for example 10.0.0.0/8, 2001:db8::/32, or one address")]
    NotANetwork(String),
    #[error("{given} has bits behind its prefix; write {meant} for the network, or the address alone")]
    BitsBehindPrefix { given: String, meant: IpNetwork },
}

impl IpNetwork {
    /// Whether an address is of this network; one of IPv4 that is written as IPv6 counts as what it is.
    pub fn contains(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.address.is_ipv4() && masked(ip, self.prefix) == self.address
    }
}

fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

impl FromStr for IpNetwork {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let not_one = || NetworkError::NotANetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| not_one())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| not_one())?
            }
            Some(_) => return Err(not_one()),
        };
        if prefix > bits {
            return Err(not_one());
        }
        let network = Self {
            address: masked(address, prefix),
            prefix,
        };
        if network.address == address {
            Ok(network)
        } else {
            Err(NetworkError::BitsBehindPrefix {
                given: text.to_owned(),
                meant: network,
            })
        }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Result<IpNetwork, NetworkError> {
        text.parse()
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_as_it_does() {
        for (network_text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
        ] {
            let network = network(network_text).expect(network_text);
            assert!(network.contains(inside.parse().unwrap()), "{network_text} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network_text} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_and_a_slip_is_named() {
        for text in [
            "",
            "10",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "::/129",
            "example.com",
            "10.0.0.0 /8",
        ] {
            assert!(matches!(network(text), Err(NetworkError::NotANetwork(_))), "{text}");
        }
        let slip = network("10.1.0.0/8").expect_err("bits behind the prefix");
        assert!(slip.to_string().contains("write 10.0.0.0/8"), "{slip}");
    }
}

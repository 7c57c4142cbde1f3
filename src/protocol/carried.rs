//! What a proxy says before the bytes of a client that it carries to auth: where the client connects from.
//!
//! 18 bytes: the address, an IPv4 one as IPv6 (RFC 4291, section 2.5.5.2), and the port, both big-endian.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub const CLIENT_BYTES: usize = 18;

pub fn write_client(client: SocketAddr) -> [u8; CLIENT_BYTES] {
    let ip = match client.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; CLIENT_BYTES];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&client.port().to_be_bytes());
    bytes
}

pub fn read_client(bytes: [u8; CLIENT_BYTES]) -> SocketAddr {
    let (mut ip, mut port) = ([0; 16], [0; 2]);
    ip.copy_from_slice(&bytes[..16]);
    port.copy_from_slice(&bytes[16..]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_either_family_arrives_as_it_was_sent() {
        for text in ["192.0.2.7:5432", "[2001:db8::1]:443"] {
            let client: SocketAddr = text.parse().unwrap();
            assert_eq!(read_client(write_client(client)), client);
        }
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:5432".parse().unwrap();
        assert_eq!(read_client(write_client(mapped)).to_string(), "192.0.2.7:5432");
    }
}

//! The PROXY protocol's header, versions 1 and 2: what a balancer says before the bytes of a client that it passes on, so that
//! it is known where the client connects from.
//!
//! Read before anybody is known, so strictly: nothing behind the header is touched, what it holds besides the client's address is
//! passed over without being kept, and what the document does not allow ends the connection.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, its CR and LF included (section 2.1).
pub const V1_MAX_BYTES: usize = 107;
/// What may follow the fixed part of version 2: addresses have at most 216 bytes, and what balancers add (names, ids, a client
/// certificate's subject) some hundred. The field itself could say 65,535.
pub const V2_MAX_LENGTH: usize = 4096;

const V1_PREFIX: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_FIXED_BYTES: usize = 16;

/// Whom the balancer speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Client(SocketAddr),
    /// It connects for itself (its health checks), or says that it does not know for whom. The socket's address counts.
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    #[error("the PROXY protocol header (version 1) has no end within 107 bytes")]
    TooLong,
    #[error("the PROXY protocol header (version 1) is malformed: {0}")]
    Line(&'static str),
    #[error("the PROXY protocol header has version {0}; 1 and 2 are understood")]
    Version(u8),
    #[error("the PROXY protocol header (version 2) has the command {0}, which is reserved")]
    Command(u8),
    #[error(
        "the PROXY protocol header (version 2) has the family and transport {0:#04x}: TCP over IPv4 or IPv6 is served"
    )]
    Family(u8),
    #[error("the PROXY protocol header (version 2) says that {length} bytes follow; {need} to 4096 can be right")]
    Length { length: usize, need: usize },
}

/// Reads one header, in whatever pieces it comes.
#[derive(Debug)]
pub struct HeaderReader {
    /// What is looked at, at most [`V1_MAX_BYTES`].
    kept: Vec<u8>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// A line of version 1, or the fixed part of version 2.
    Beginning,
    Addresses(V2),
    PassingOver {
        left: usize,
        said: Said,
    },
}

impl Default for HeaderReader {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            stage: Stage::Beginning,
        }
    }
}

impl HeaderReader {
    /// Reads on. The answer is how many of `bytes` belong to the header, and what it says when that was its end; what is behind
    /// them is not looked at.
    ///
    /// # Errors
    /// At the first byte that cannot be of a header.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Said>), ProxyHeaderError> {
        let mut count = 0;
        while let Some(byte) = bytes.get(count) {
            if let Stage::PassingOver { left, .. } = &mut self.stage {
                let passed = (bytes.len() - count).min(*left);
                *left -= passed;
                count += passed;
            } else {
                self.kept.push(*byte);
                count += 1;
                self.look()?;
            }
            if let Stage::PassingOver { left: 0, said } = self.stage {
                return Ok((count, Some(said)));
            }
        }
        Ok((count, None))
    }

    fn look(&mut self) -> Result<(), ProxyHeaderError> {
        let kept = self.kept.as_slice();
        if let Stage::Addresses(v2) = self.stage {
            self.addresses(v2);
        } else if let Some(words) = kept.strip_prefix(V1_PREFIX) {
            match words.strip_suffix(b"\n") {
                Some(line) => {
                    let said = line_says(line)?;
                    self.stage = Stage::PassingOver { left: 0, said };
                }
                None if kept.len() >= V1_MAX_BYTES => return Err(ProxyHeaderError::TooLong),
                None => {}
            }
        } else if let Some(fixed) = kept.first_chunk::<V2_FIXED_BYTES>() {
            let v2 = V2::read(*fixed)?;
            self.addresses(v2);
        } else if !V1_PREFIX.starts_with(kept) && !V2_SIGNATURE.starts_with(&kept[..kept.len().min(V2_SIGNATURE.len())])
        {
            return Err(ProxyHeaderError::Missing);
        }
        Ok(())
    }

    /// The fixed part is known, and as much of the addresses as has come.
    fn addresses(&mut self, v2: V2) {
        let addresses = &self.kept[V2_FIXED_BYTES..];
        self.stage = if addresses.len() < v2.looked_at() {
            Stage::Addresses(v2)
        } else {
            Stage::PassingOver {
                left: v2.length - v2.looked_at(),
                said: v2.says(addresses),
            }
        };
    }
}

/// What follows `PROXY ` in version 1, without the LF at its end.
fn line_says(line: &[u8]) -> Result<Said, ProxyHeaderError> {
    let bad = ProxyHeaderError::Line;
    let line = line
        .strip_suffix(b"\r")
        .ok_or(bad("its line does not end with CR LF"))?;
    let line = std::str::from_utf8(line).map_err(|_| bad("it is not ASCII"))?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // Whatever follows has to be ignored.
        return Ok(Said::Nobody);
    }
    let [
        Some(source),
        Some(destination),
        Some(source_port),
        Some(destination_port),
        None,
    ] = [words.next(), words.next(), words.next(), words.next(), words.next()]
    else {
        return Err(bad("it has not two addresses and two ports"));
    };
    let address = |text: &str| -> Result<IpAddr, ProxyHeaderError> {
        let read = match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
            _ => return Err(bad("its protocol is none of TCP4, TCP6 and UNKNOWN")),
        };
        read.map_err(|_| bad("an address is not of its protocol"))
    };
    let port = |text: &str| {
        let is_plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
        let read = text.parse::<u16>().ok().filter(|_| is_plain);
        read.ok_or(bad("a port is not a number of 0 to 65535"))
    };
    let client = address(source)?;
    address(destination)?;
    port(destination_port)?;
    Ok(client_says(client, port(source_port)?))
}

fn client_says(ip: IpAddr, port: u16) -> Said {
    Said::Client(SocketAddr::new(ip.to_canonical(), port))
}

/// The fixed part of version 2.
#[derive(Debug, Clone, Copy)]
struct V2 {
    family: Family,
    /// Of what follows.
    length: usize,
}

#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    V6,
    /// Nothing that follows counts.
    None,
}

impl V2 {
    fn read(fixed: [u8; V2_FIXED_BYTES]) -> Result<Self, ProxyHeaderError> {
        let [.., version_and_command, family, high, low] = fixed;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (version, command) = (version_and_command >> 4, version_and_command & 0xf);
        if version != 2 {
            return Err(ProxyHeaderError::Version(version));
        }
        let (family, need) = match (command, family) {
            // LOCAL: the balancer's own connection, whatever family it says.
            (0, _) => (Family::None, 0),
            (1, 0x00) => (Family::None, 0),
            (1, 0x11) => (Family::V4, 12),
            (1, 0x21) => (Family::V6, 36),
            // A Unix socket: somebody on the balancer's own machine.
            (1, 0x31) => (Family::None, 216),
            (1, other) => return Err(ProxyHeaderError::Family(other)),
            (other, _) => return Err(ProxyHeaderError::Command(other)),
        };
        if !(need..=V2_MAX_LENGTH).contains(&length) {
            return Err(ProxyHeaderError::Length { length, need });
        }
        Ok(Self { family, length })
    }

    /// The address block; what is behind it is passed over.
    fn looked_at(self) -> usize {
        match self.family {
            Family::V4 => 12,
            Family::V6 => 36,
            Family::None => 0,
        }
    }

    /// Source and destination address, source and destination port.
    fn says(self, addresses: &[u8]) -> Said {
        match (self.family, addresses) {
            (Family::V4, [a, b, c, d, _, _, _, _, high, low, ..]) => {
                client_says(Ipv4Addr::new(*a, *b, *c, *d).into(), u16::from_be_bytes([*high, *low]))
            }
            (Family::V6, addresses) => match (addresses.first_chunk::<16>(), addresses.get(32..34)) {
                (Some(ip), Some([high, low])) => {
                    client_says(Ipv6Addr::from(*ip).into(), u16::from_be_bytes([*high, *low]))
                }
                _ => Said::Nobody,
            },
            _ => Said::Nobody,
        }
    }
}

#[cfg(test)]
#[path = "proxy_header_tests.rs"]
mod tests;

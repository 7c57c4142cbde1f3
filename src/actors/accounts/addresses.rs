//! How often one client address may try: a bucket of tries for each, as the reference has it for those who are not known yet.

use crate::model::Timestamp;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// How many tries one address has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// Microseconds after which one more is there.
    pub refill_micros: i64,
}

impl Rate {
    /// The reference's, for whatever may guess a secret: 40, then 20 in a minute.
    pub const GUESSES: Self = Self {
        burst: 40,
        refill_micros: 3_000_000,
    };
    /// The reference's, for what tells everybody the same: 480, then 120 in a minute.
    pub const HIGH: Self = Self {
        burst: 480,
        refill_micros: 500_000,
    };

    /// What a client that was refused is told to wait.
    pub fn refill_secs(self) -> u64 {
        u64::try_from(self.refill_micros).unwrap_or(0).div_ceil(1_000_000)
    }
}

/// Addresses that are remembered. When it is full, and all have tried within the last minutes, further ones share a bucket.
const ADDRESSES_MAX: usize = 8192;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Network(IpAddr),
    /// Texts that are no address, and those for whom there was no room.
    Others,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// When the bucket is full again (the generic cell rate algorithm: one number is the whole state).
    full_at: Timestamp,
    /// The refusal was told to the audit log.
    told: bool,
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    Allowed,
    /// The first that is refused since one was allowed: it is worth an event, the ones after it are not.
    FirstRefused,
    Refused,
}

#[derive(Debug)]
pub struct AddressRates {
    rate: Rate,
    buckets: HashMap<Key, Bucket>,
}

impl AddressRates {
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: HashMap::new(),
        }
    }

    pub fn take(&mut self, address: &str, now: Timestamp) -> Try {
        let mut key = key_of(address);
        if !self.buckets.contains_key(&key) && self.buckets.len() >= ADDRESSES_MAX {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
            if self.buckets.len() >= ADDRESSES_MAX {
                key = Key::Others;
            }
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket {
            full_at: now,
            told: false,
        });
        let used_micros = bucket.full_at.max(now).as_micros() - now.as_micros();
        if used_micros > self.rate.refill_micros * i64::from(self.rate.burst - 1) {
            let told = std::mem::replace(&mut bucket.told, true);
            return if told { Try::Refused } else { Try::FirstRefused };
        }
        bucket.told = false;
        bucket.full_at = Timestamp::from_micros(now.as_micros() + used_micros + self.rate.refill_micros);
        Try::Allowed
    }
}

/// The address without its port.
fn key_of(address: &str) -> Key {
    let ip = address
        .parse::<SocketAddr>()
        .map(|with_port| with_port.ip())
        .or_else(|_| address.parse::<IpAddr>());
    ip.map_or(Key::Others, |ip| Key::Network(network_of(ip)))
}

/// Whom an address stands for. A household or a machine has a /64 of IPv6 to choose from, so that this counts as one.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BURST: u32 = Rate::GUESSES.burst;
    const START: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn forty_tries_at_once_then_one_every_three_seconds() {
        let mut rates = AddressRates::new(Rate::GUESSES);
        for _ in 0..BURST {
            assert_eq!(rates.take("192.0.2.1:5000", START), Try::Allowed);
        }
        assert_eq!(rates.take("192.0.2.1:5001", START), Try::FirstRefused);
        assert_eq!(rates.take("::ffff:192.0.2.1", START), Try::Refused);
        assert_eq!(rates.take("192.0.2.2:5000", START), Try::Allowed);
        let later = START + Duration::from_secs(3);
        assert_eq!(rates.take("192.0.2.1", later), Try::Allowed);
        assert_eq!(rates.take("192.0.2.1", later), Try::FirstRefused);
        for _ in 0..BURST {
            assert_eq!(rates.take("192.0.2.1", later + Duration::from_secs(120)), Try::Allowed);
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        assert_eq!(key_of("2001:db8::1"), key_of("[2001:db8::ffff:1]:443"));
        assert_ne!(key_of("2001:db8::1"), key_of("2001:db8:0:1::1"));
    }

    #[test]
    fn the_table_is_bounded_and_those_beyond_it_share_a_bucket() {
        let mut rates = AddressRates::new(Rate::GUESSES);
        for number in 0..u32::try_from(ADDRESSES_MAX).unwrap() + 2 * BURST {
            rates.take(&std::net::Ipv4Addr::from_bits(number).to_string(), START);
        }
        assert!(rates.buckets.len() <= ADDRESSES_MAX + 1);
        assert_eq!(rates.take("203.0.113.1", START), Try::Refused);
        let later = START + Duration::from_secs(120);
        assert_eq!(rates.take("203.0.113.1", later), Try::Allowed);
        assert!(rates.buckets.len() < 3);
    }
}

//! How often one client address may try: a bucket of tries for each, as the reference has it for those who are not known yet.

use crate::model::Timestamp;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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
/// A full table is looked through no more often, as whoever comes from many addresses would have it done for each.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Network(IpAddr),
    /// Texts that are no address, and those for whom there was no room.
    Others,
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    Allowed,
    /// The first that is refused since one was allowed: it is worth an event, the ones after it are not.
    FirstRefused,
    Refused,
}

/// The tries that one address, or whatever else is counted, has left.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// When the bucket is full again (the generic cell rate algorithm: one number is the whole state).
    full_at: Timestamp,
    /// The refusal was told to the audit log.
    told: bool,
}

impl Bucket {
    pub fn full(now: Timestamp) -> Self {
        Self {
            full_at: now,
            told: false,
        }
    }

    /// What is missing: never more than the whole, also where the clock was set back meanwhile.
    fn used_micros(&mut self, rate: Rate, now: Timestamp) -> i64 {
        let used = self.full_at.max(now).as_micros() - now.as_micros();
        let used = used.min(rate.refill_micros * i64::from(rate.burst));
        self.full_at = Timestamp::from_micros(now.as_micros() + used);
        used
    }

    pub fn has_try(&mut self, rate: Rate, now: Timestamp) -> bool {
        self.used_micros(rate, now) <= rate.refill_micros * i64::from(rate.burst - 1)
    }

    pub fn take(&mut self, rate: Rate, now: Timestamp) -> Try {
        if !self.has_try(rate, now) {
            let told = std::mem::replace(&mut self.told, true);
            return if told { Try::Refused } else { Try::FirstRefused };
        }
        self.told = false;
        self.full_at = Timestamp::from_micros(self.full_at.as_micros() + rate.refill_micros);
        Try::Allowed
    }

    /// A try that turned out to be none that is counted.
    pub fn give_back(&mut self, rate: Rate) {
        self.full_at = Timestamp::from_micros(self.full_at.as_micros() - rate.refill_micros);
    }
}

#[derive(Debug)]
pub struct AddressRates {
    rate: Rate,
    buckets: HashMap<Key, Bucket>,
    swept: Option<Timestamp>,
}

impl AddressRates {
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: HashMap::new(),
            swept: None,
        }
    }

    pub fn take(&mut self, address: &str, now: Timestamp) -> Try {
        self.take_of(key_of(address), now)
    }

    pub fn take_ip(&mut self, ip: IpAddr, now: Timestamp) -> Try {
        self.take_of(Key::Network(network_of(ip)), now)
    }

    /// Whether this address has a try left. One that is not remembered has all of them, or what the others share.
    pub fn has_try(&mut self, ip: IpAddr, now: Timestamp) -> bool {
        let key = self.place_of(Key::Network(network_of(ip)), now);
        let rate = self.rate;
        self.buckets
            .get_mut(&key)
            .is_none_or(|bucket| bucket.has_try(rate, now))
    }

    /// A try of this address that turned out to be none that is counted.
    pub fn give_back(&mut self, ip: IpAddr) {
        let rate = self.rate;
        if let Some(bucket) = self.buckets.get_mut(&Key::Network(network_of(ip))) {
            bucket.give_back(rate);
        }
    }

    /// Where this one is counted: with the others, where there is no room.
    fn place_of(&mut self, key: Key, now: Timestamp) -> Key {
        if self.buckets.len() < ADDRESSES_MAX || self.buckets.contains_key(&key) {
            return key;
        }
        if self
            .swept
            .is_none_or(|swept| now < swept || now.since(swept) >= SWEEP_EVERY)
        {
            self.swept = Some(now);
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        if self.buckets.len() < ADDRESSES_MAX {
            key
        } else {
            Key::Others
        }
    }

    fn take_of(&mut self, key: Key, now: Timestamp) -> Try {
        let key = self.place_of(key, now);
        let bucket = self.buckets.entry(key).or_insert(Bucket::full(now));
        bucket.take(self.rate, now)
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
    fn a_try_that_was_right_is_given_back() {
        let mut rates = AddressRates::new(Rate::GUESSES);
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..10 * BURST {
            assert_eq!(rates.take_ip(ip, START), Try::Allowed);
            rates.give_back(ip);
        }
        for _ in 0..BURST {
            assert!(rates.has_try(ip, START));
            rates.take_ip(ip, START);
        }
        assert!(!rates.has_try(ip, START));
        assert_eq!(rates.take("192.0.2.1:1", START), Try::FirstRefused);
    }

    #[test]
    fn a_clock_that_is_set_back_costs_an_address_no_more_than_its_tries() {
        let rate = Rate::GUESSES;
        let mut bucket = Bucket::full(START + Duration::from_secs(3600));
        assert!(!bucket.has_try(rate, START));
        assert!(bucket.has_try(rate, START + Duration::from_secs(3)));
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

//! Cancels that failed, for the audit log: the first of an address at once, those after it as a number. Strangers can cause
//! them, so that what they can make of it has a bound: at most 65 events in a minute.

use crate::actors::accounts::network_of;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// What comes after an address' first one is counted for so long.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Addresses (networks, of IPv6) with events of their own in a window; the others are one number.
const ADDRESSES_MAX: usize = 32;

/// Why a cancel came to nothing. Whoever sent it learns none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelFailure {
    /// The configuration takes none without TLS.
    WithoutTls,
    /// Its address has failed too often.
    TooOften,
    NoSuchKey,
    /// As many keys of other proxies are looked for as may be.
    Busy,
    /// No key had to do with it: this part of the proxy failed, or the agent or PostgreSQL could not be reached.
    NotCarried,
}

impl CancelFailure {
    /// Whether it may have been a stranger's; the others are the agent's to audit, if anybody's.
    pub fn is_audited(self) -> bool {
        self != Self::NotCarried
    }
}

impl fmt::Display for CancelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WithoutTls => "it came without TLS, which the configuration does not take",
            Self::TooOften => "its address has failed too often, so its key was not looked at",
            Self::NoSuchKey => "no session has this key",
            Self::Busy => "too many keys of other proxies are looked for",
            Self::NotCarried => "it was not carried to PostgreSQL",
        })
    }
}

/// What is to be written when a window is over.
#[derive(Debug, PartialEq, Eq)]
pub struct More {
    /// `None` stands for all those that had no place of their own.
    pub network: Option<IpAddr>,
    /// Beyond the one that was written.
    pub failures: u64,
}

#[derive(Debug, Default)]
pub struct Failures {
    /// Those after the first, of each address.
    more: BTreeMap<IpAddr, u64>,
    others: u64,
}

impl Failures {
    /// Whether nothing is counted: no window is open.
    pub fn is_empty(&self) -> bool {
        self.more.is_empty() && self.others == 0
    }

    /// Whether this one is worth an event now.
    #[must_use]
    pub fn count(&mut self, ip: IpAddr) -> bool {
        let network = network_of(ip);
        if let Some(more) = self.more.get_mut(&network) {
            *more += 1;
            return false;
        }
        if self.more.len() >= ADDRESSES_MAX {
            self.others += 1;
            return false;
        }
        self.more.insert(network, 0);
        true
    }

    /// The window is over.
    pub fn take(&mut self) -> Vec<More> {
        let more = std::mem::take(&mut self.more).into_iter();
        let mut all: Vec<More> = more
            .filter(|(_, failures)| *failures > 0)
            .map(|(network, failures)| More {
                network: Some(network),
                failures,
            })
            .collect();
        let failures = std::mem::take(&mut self.others);
        if failures > 0 {
            all.push(More {
                network: None,
                failures,
            });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn ip(number: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap()))
    }

    #[test]
    fn the_first_failure_of_an_address_is_an_event_and_those_after_it_are_a_number() {
        let mut failures = Failures::default();
        assert!(failures.count(ip(1)));
        for _ in 0..1000 {
            assert!(!failures.count(ip(1)));
        }
        assert!(failures.count(ip(2)));
        let more = More {
            network: Some(ip(1)),
            failures: 1000,
        };
        assert_eq!(failures.take(), [more]);
        assert!(failures.is_empty());
        assert!(failures.count(ip(1)), "the next window's first");
    }

    #[test]
    fn failures_of_many_addresses_are_no_more_events_than_of_a_few() {
        let mut failures = Failures::default();
        let mut events = 0;
        for number in 0..200_000 {
            events += usize::from(failures.count(ip(number % 100_000)));
        }
        assert!(failures.more.len() <= ADDRESSES_MAX);
        let summed = failures.take();
        assert_eq!(events + summed.len(), 2 * ADDRESSES_MAX + 1);
        let counted: u64 = summed.iter().map(|more| more.failures).sum();
        assert_eq!(counted + events as u64, 200_000, "none is left out of the numbers");
    }
}

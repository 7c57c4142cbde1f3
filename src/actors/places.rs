//! How many connections of strangers are open, of all and of each client address: whoever holds every place of one address
//! leaves the others theirs.

use super::accounts::network_of;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How many may be open.
#[derive(Debug, Clone, Copy)]
pub struct PlaceLimits {
    pub all: usize,
    /// Of one client address, or of one network of IPv6 (`network_of`).
    pub per_address: usize,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// The counts; its copies are the same places.
#[derive(Debug, Clone)]
pub struct Places {
    limits: PlaceLimits,
    open: Arc<Mutex<Open>>,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    network: IpAddr,
}

impl Places {
    pub fn new(limits: PlaceLimits) -> Self {
        Self {
            limits,
            open: Arc::default(),
        }
    }

    pub fn limits(&self) -> PlaceLimits {
        self.limits
    }

    pub fn enter(&self, ip: IpAddr) -> Option<Place> {
        let network = network_of(ip);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.of.get(&network).copied().unwrap_or(0);
        if open.all >= self.limits.all || here >= self.limits.per_address {
            return None;
        }
        open.all += 1;
        open.of.insert(network, here + 1);
        Some(Place {
            places: self.clone(),
            network,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        let left = open.of.get(&self.network).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            open.of.remove(&self.network);
        } else {
            open.of.insert(self.network, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_every_place_and_places_come_back() {
        let limits = PlaceLimits {
            all: 10,
            per_address: 4,
        };
        let places = Places::new(limits);
        let address = |number: u32| IpAddr::V4(number.into());
        let taken: Vec<_> = (0..limits.per_address)
            .map(|_| places.enter(address(1)).expect("a place"))
            .collect();
        assert!(places.enter(address(1)).is_none());
        let others: Vec<_> = (2..).map_while(|number| places.enter(address(number))).collect();
        assert_eq!(others.len(), limits.all - limits.per_address);
        drop((taken, others));
        assert!(places.enter(address(1)).is_some());
        let open = places.open.lock().unwrap();
        assert_eq!((open.all, open.of.len()), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let places = Places::new(PlaceLimits {
            all: 10,
            per_address: 1,
        });
        let _held = places.enter("2001:db8::1".parse().unwrap()).expect("a place");
        assert!(places.enter("2001:db8::2".parse().unwrap()).is_none());
        assert!(places.enter("2001:db8:0:1::1".parse().unwrap()).is_some());
    }
}

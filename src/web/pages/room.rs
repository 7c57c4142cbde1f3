//! How many HTTP connections are open, of all and of each client address.

use crate::actors::accounts::network_of;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// People who set a password, and command lines that ask where they are: each for a moment.
const CONNECTIONS_MAX: usize = 1024;
/// Of one address, behind which an office may be.
const CONNECTIONS_PER_ADDRESS: usize = 64;

#[derive(Debug, Default)]
struct Open {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// The counts; its copies are the same room.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(Arc<Mutex<Open>>);

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Room,
    network: IpAddr,
}

impl Room {
    pub fn enter(&self, ip: IpAddr) -> Option<Place> {
        let network = network_of(ip);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.of.get(&network).copied().unwrap_or(0);
        if open.all >= CONNECTIONS_MAX || here >= CONNECTIONS_PER_ADDRESS {
            return None;
        }
        open.all += 1;
        open.of.insert(network, here + 1);
        Some(Place {
            room: self.clone(),
            network,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let room = Room::default();
        let address = |number: u32| IpAddr::V4(number.into());
        let places: Vec<_> = (0..CONNECTIONS_PER_ADDRESS)
            .map(|_| room.enter(address(1)).expect("room"))
            .collect();
        assert!(room.enter(address(1)).is_none());
        let others: Vec<_> = (2..).map_while(|number| room.enter(address(number))).collect();
        assert_eq!(others.len(), CONNECTIONS_MAX - CONNECTIONS_PER_ADDRESS);
        drop((places, others));
        assert!(room.enter(address(1)).is_some());
        let open = room.0.lock().unwrap();
        assert_eq!((open.all, open.of.len()), (0, 0));
    }
}

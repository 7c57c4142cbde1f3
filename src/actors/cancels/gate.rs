//! Whether a CancelRequest is looked at, and by whom: who fails too often waits, and few keys are looked for elsewhere.

use super::TryCancel;
use super::failures::CancelFailure;
use super::keys::{Keys, Target};
use crate::actors::accounts::{AddressRates, Bucket, Rate, Try};
use crate::model::{ConnectionId, Timestamp};
use std::net::IpAddr;

/// Keys that this proxy does not know, looked for at the agents: 200 at once, for a pool that cancels all it does through a
/// balancer, then 20 in a second. Those that are found do not count.
const SEARCHES: Rate = Rate {
    burst: 200,
    refill_micros: 50_000,
};

/// What becomes of a CancelRequest.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried<T> {
    /// It is this session's.
    Here(ConnectionId, T),
    /// It may be one of another proxy's; it counts against its address until it is found.
    Elsewhere,
    Failed(CancelFailure),
}

pub struct Gate<T> {
    keys: Keys<T>,
    takes_without_tls: bool,
    addresses: AddressRates,
    searches: Bucket,
}

impl<T: Target> Gate<T> {
    pub fn new(keys: Keys<T>, takes_without_tls: bool, now: Timestamp) -> Self {
        Self {
            keys,
            takes_without_tls,
            addresses: AddressRates::new(Rate::GUESSES),
            searches: Bucket::full(now),
        }
    }

    /// One that fails is counted before anybody is asked elsewhere, so that those that come at once get no more tries.
    pub fn try_cancel(&mut self, asked: &TryCancel, now: Timestamp) -> Tried<T> {
        if !asked.is_encrypted && !self.takes_without_tls {
            return Tried::Failed(CancelFailure::WithoutTls);
        }
        // Nobody guesses a long key: who shares the address of somebody who tries still cancels with one.
        if asked.key.is_short && !self.addresses.has_try(asked.from, now) {
            return Tried::Failed(CancelFailure::TooOften);
        }
        if let Some((connection, target)) = self.keys.find(&asked.key, now) {
            return Tried::Here(connection, target);
        }
        if self.addresses.take_ip(asked.from, now) != Try::Allowed {
            return Tried::Failed(CancelFailure::TooOften);
        }
        match self.searches.take(SEARCHES, now) {
            Try::Allowed => Tried::Elsewhere,
            Try::FirstRefused | Try::Refused => Tried::Failed(CancelFailure::Busy),
        }
    }

    pub fn found_elsewhere(&mut self, from: IpAddr) {
        self.addresses.give_back(from);
        self.searches.give_back(SEARCHES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::cancels::CancelKey;
    use crate::model::Secret;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
    const SHORT: &[u8] = b"kkkk";
    const LONG: &[u8] = &[7; 32];

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Session;

    impl Target for Session {
        fn is_alive(&self) -> bool {
            true
        }
    }

    /// With two sessions: process 1 has a short key, and process 2 a long one.
    fn gate(takes_without_tls: bool) -> Gate<Session> {
        let keys = Keys::default();
        for (process_id, secret) in [(1, SHORT), (2, LONG)] {
            let connection = ConnectionId::from_random([u8::try_from(process_id).unwrap(); 8]);
            keys.keep(
                connection,
                CancelKey::new(process_id, &Secret::new(secret.to_vec())),
                Session,
            );
        }
        Gate::new(keys, takes_without_tls, NOW)
    }

    fn asked(process_id: u32, secret: &[u8], from: u32) -> TryCancel {
        TryCancel {
            key: CancelKey::new(process_id, &Secret::new(secret.to_vec())),
            from: IpAddr::V4(Ipv4Addr::from_bits(from)),
            is_encrypted: false,
        }
    }

    fn is_here(tried: &Tried<Session>) -> bool {
        matches!(tried, Tried::Here(..))
    }

    #[test]
    fn an_address_that_guesses_gets_forty_tries_and_then_one_every_three_seconds_whatever_it_guesses_at() {
        let mut gate = gate(true);
        for guess in 0..Rate::GUESSES.burst {
            let tried = gate.try_cancel(&asked(guess % 5, &guess.to_be_bytes(), 1), NOW);
            assert_eq!(tried, Tried::Elsewhere);
        }
        for secret in [SHORT, b"gues"] {
            let tried = gate.try_cancel(&asked(1, secret, 1), NOW);
            assert_eq!(tried, Tried::Failed(CancelFailure::TooOften), "right or wrong");
        }
        let later = NOW + Duration::from_secs(3);
        assert!(
            is_here(&gate.try_cancel(&asked(1, SHORT, 1), later)),
            "a right one costs no try"
        );
        assert_eq!(gate.try_cancel(&asked(1, b"gues", 1), later), Tried::Elsewhere);
        let tried = gate.try_cancel(&asked(1, b"gues", 1), later);
        assert_eq!(tried, Tried::Failed(CancelFailure::TooOften));
    }

    #[test]
    fn who_shares_the_address_of_a_guesser_cancels_with_a_long_key_and_another_address_with_any() {
        let mut gate = gate(true);
        while gate.try_cancel(&asked(1, b"gues", 1), NOW) == Tried::Elsewhere {}
        assert!(is_here(&gate.try_cancel(&asked(2, LONG, 1), NOW)));
        assert!(is_here(&gate.try_cancel(&asked(1, SHORT, 2), NOW)));
        let another = gate.try_cancel(&asked(3, LONG, 1), NOW);
        assert_eq!(
            another,
            Tried::Failed(CancelFailure::TooOften),
            "it is not looked for elsewhere"
        );
    }

    #[test]
    fn cancels_that_are_right_are_never_limited_here_or_found_elsewhere() {
        let mut gate = gate(true);
        for _ in 0..1000 {
            assert!(is_here(&gate.try_cancel(&asked(1, SHORT, 1), NOW)));
            let elsewhere = asked(3, SHORT, 1);
            assert_eq!(gate.try_cancel(&elsewhere, NOW), Tried::Elsewhere);
            gate.found_elsewhere(elsewhere.from);
        }
    }

    #[test]
    fn a_flood_from_many_addresses_is_looked_for_elsewhere_at_a_bounded_rate_and_known_keys_are_still_found() {
        let mut gate = gate(true);
        let mut searched = 0;
        for from in 0..100_000 {
            let at = NOW + Duration::from_micros(u64::from(from) * 100);
            searched += u32::from(gate.try_cancel(&asked(3, LONG, from), at) == Tried::Elsewhere);
        }
        // In ten seconds, and fewer as there are more addresses than are remembered.
        assert!(
            (SEARCHES.burst..=SEARCHES.burst + 200).contains(&searched),
            "{searched}"
        );
        let end = NOW + Duration::from_secs(10);
        assert!(is_here(&gate.try_cancel(&asked(2, LONG, 0), end)));
    }

    #[test]
    fn without_tls_none_is_taken_where_the_configuration_says_so_and_with_tls_it_is() {
        let mut gate = gate(false);
        let plain = asked(1, SHORT, 1);
        let tried = gate.try_cancel(&plain, NOW);
        assert_eq!(tried, Tried::Failed(CancelFailure::WithoutTls));
        let encrypted = TryCancel {
            is_encrypted: true,
            ..plain
        };
        assert!(is_here(&gate.try_cancel(&encrypted, NOW)));
    }
}

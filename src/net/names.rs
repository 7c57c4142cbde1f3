//! The addresses of a host's name. The machine's resolver reads files or asks servers, and blocks meanwhile: it is asked on a thread of its
//! own, and what it said is used again for a second. Several that find nothing at the same time each ask.

use crate::telemetry::panics;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer is used again: for the many connections to one PostgreSQL, and less than the life of any record that a failover
/// changes, which is seconds at least.
const FRESH: Duration = Duration::from_secs(1);
/// Names of the databases and nodes that this node dials. Beyond it they are asked for again.
const MOST: usize = 256;

type Name = (String, u16);

struct Known {
    addresses: Arc<[SocketAddr]>,
    /// Before the resolver was asked.
    since: Instant,
}

/// What the resolver has said.
pub struct Names(Mutex<BTreeMap<Name, Known>>);

/// Of this process.
pub static NAMES: Names = Names::none();

impl Names {
    const fn none() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// # Errors
    /// The name has no address, or the resolver does not answer in this time.
    pub async fn resolve(&self, host: &str, port: u16, within: Duration) -> io::Result<Arc<[SocketAddr]>> {
        let name = (host.to_owned(), port);
        self.resolve_by(name, within, |name| name.to_socket_addrs().map(Vec::from_iter))
            .await
    }

    async fn resolve_by(
        &self,
        name: Name,
        within: Duration,
        ask: impl FnOnce(&Name) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Arc<[SocketAddr]>> {
        if let Some(known) = self.lock().get(&name).filter(|known| known.since.elapsed() < FRESH) {
            return Ok(known.addresses.clone());
        }
        let since = Instant::now();
        let asked = name.clone();
        let late = format!("the name {} was not resolved in time", name.0);
        let answer = tokio::task::spawn_blocking(move || ask(&asked));
        let addresses: Arc<[SocketAddr]> = tokio::time::timeout(within, answer)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, late))?
            .map_err(|error| io::Error::other(panics::of_task(error)))??
            .into();
        let mut names = self.lock();
        if names.len() >= MOST && !names.contains_key(&name) {
            names.clear();
        }
        let known = Known {
            addresses: addresses.clone(),
            since,
        };
        names.insert(name, known);
        Ok(addresses)
    }

    /// None of its addresses answers: the next one who connects asks anew.
    pub fn forget(&self, host: &str, port: u16) {
        self.lock().remove(&(host.to_owned(), port));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Known>> {
        // An answer is there as a whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 5432))
    }

    async fn asked(names: &Names, host: &str, last: u8) -> SocketAddr {
        let answer = move |_: &Name| Ok(vec![address(last)]);
        let name = (host.to_owned(), 5432);
        names.resolve_by(name, WITHIN, answer).await.expect("it has one")[0]
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_resolver_said_is_used_for_a_second_and_not_when_its_address_did_not_answer() {
        let names = Names::none();
        assert_eq!(asked(&names, "db", 1).await, address(1));
        assert_eq!(asked(&names, "db", 2).await, address(1), "within the second");
        assert_eq!(asked(&names, "other", 3).await, address(3), "another name");
        names.forget("db", 5432);
        assert_eq!(asked(&names, "db", 4).await, address(4), "after it was forgotten");
        tokio::time::advance(FRESH).await;
        assert_eq!(asked(&names, "db", 5).await, address(5), "a second later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_answer_is_asked_for_again_at_once() {
        let names = Names::none();
        let fails = |_: &Name| Err(io::ErrorKind::NotFound.into());
        let failed = names.resolve_by(("db".to_owned(), 5432), WITHIN, fails).await;
        assert_eq!(failed.expect_err("it has none").kind(), io::ErrorKind::NotFound);
        assert_eq!(asked(&names, "db", 1).await, address(1));
    }

    #[tokio::test]
    async fn names_beyond_the_most_that_are_kept_are_asked_for_again() {
        let names = Names::none();
        for number in 0..=MOST {
            asked(&names, &format!("db-{number}"), 1).await;
        }
        assert!(names.lock().len() <= MOST);
        assert_eq!(asked(&names, "db-0", 2).await, address(2));
    }
}

//! Those who have proved nothing yet: how many of one address are let in at once, and what the log and the audit trail say of
//! them. Whoever knocks often fills neither: of one minute, the first of each address are told, and the others are counted.

use super::accounts::network_of;
use super::listener::CONNECTIONS_MAX;
use super::places::{Place, PlaceLimits, Places};
use super::trail::Trail;
use crate::audit::EventKind;
use crate::model::Moment;
use crate::net::greeting::Unwelcome;
use crate::telemetry::metrics::METRICS;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// More than a proxy carries to auth at a time (`carried.rs`: 2048 nodes and 512 people), which all come from its address; and a
/// fifth of what a port has, so that nobody takes every place. It counts those whose handshake is not done: an office behind one
/// address has as many sessions as it likes.
const LIMITS: PlaceLimits = PlaceLimits {
    all: CONNECTIONS_MAX,
    per_address: 3_000,
};
/// What is told of one matter within this time is bounded; the rest is counted, and the counts are told at its end.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are told of one matter in a window. An operator reads as many; a scan of the whole internet has more.
const TOLD_MAX: usize = 10;

/// What is told for itself, so that much of one does not hide another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matter {
    /// Something that is not spoken here, or a handshake that was refused or too slow.
    Handshake,
    /// The balancer's header.
    Header,
    TooMany,
    /// Somebody else's certificate.
    Certificate,
    /// A start-up without any.
    NoCertificate,
    /// A port that is full.
    Full,
}

impl Matter {
    const ALL: [Self; 6] = [
        Self::Handshake,
        Self::Header,
        Self::TooMany,
        Self::Certificate,
        Self::NoCertificate,
        Self::Full,
    ];

    fn of(unwelcome: &Unwelcome) -> Option<Self> {
        match unwelcome {
            // Balancers look at a port so, every few seconds; and connections are lost.
            Unwelcome::SaidNothing | Unwelcome::Lost(_) => None,
            Unwelcome::Late(_) | Unwelcome::Foreign { .. } | Unwelcome::Refused(_) | Unwelcome::Tls(_) => {
                Some(Self::Handshake)
            }
            Unwelcome::Header(_) | Unwelcome::NotABalancer => Some(Self::Header),
            Unwelcome::Certificate(_) => Some(Self::Certificate),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Handshake => "handshakes that came to nothing",
            Self::Header => "headers of the PROXY protocol that were missing or refused",
            Self::TooMany => "connections beyond the limit of their address",
            Self::Certificate => "certificates that were not accepted",
            Self::NoCertificate => "start-ups without a certificate",
            Self::Full => "connections beyond the limit of the port",
        }
    }

    /// It is about who somebody is.
    fn is_audited(self) -> bool {
        matches!(self, Self::Certificate | Self::NoCertificate)
    }
}

/// Further cases of one address or, without one, of those that were not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Further {
    network: Option<IpAddr>,
    times: u64,
}

/// One matter in the window that runs.
#[derive(Debug, Default)]
struct Window {
    since: Option<Moment>,
    /// Those that were told, and how often each came since.
    told: HashMap<IpAddr, u64>,
    others: u64,
}

impl Window {
    /// Whether this one is to be told, and what is left to be told of a window that is over.
    fn hear(&mut self, network: IpAddr, now: Moment) -> (bool, Vec<Further>) {
        let further = self.end(now);
        self.since.get_or_insert(now);
        if let Some(times) = self.told.get_mut(&network) {
            *times += 1;
            return (false, further);
        }
        if self.told.len() < TOLD_MAX {
            self.told.insert(network, 0);
            return (true, further);
        }
        self.others += 1;
        (false, further)
    }

    /// What is left to be told, where the window is over.
    fn end(&mut self, now: Moment) -> Vec<Further> {
        match self.since {
            Some(since) if now.since(since) >= WINDOW => self.close(),
            _ => Vec::new(),
        }
    }

    /// What is left to be told.
    fn close(&mut self) -> Vec<Further> {
        let Self { told, others, .. } = std::mem::take(self);
        let mut further: Vec<_> = told
            .into_iter()
            .map(|(network, times)| (Some(network), times))
            .chain([(None, others)])
            .filter(|(_, times)| *times > 0)
            .map(|(network, times)| Further { network, times })
            .collect();
        further.sort_unstable_by_key(|further| (further.network.is_none(), further.network));
        further
    }
}

/// Of one port. Its copies are the same.
#[derive(Clone)]
pub struct Strangers {
    trail: Trail,
    places: Places,
    windows: Arc<Mutex<[Window; Matter::ALL.len()]>>,
}

impl Strangers {
    pub fn new(trail: Trail) -> Self {
        Self::limited(trail, LIMITS)
    }

    pub(super) fn limited(trail: Trail, limits: PlaceLimits) -> Self {
        Self {
            trail,
            places: Places::new(limits),
            windows: Arc::default(),
        }
    }

    /// A place for somebody at this address, until it is dropped. `None` where there are too many, which is told and counted.
    pub(super) fn enter(&self, client: SocketAddr) -> Option<Place> {
        let place = self.places.enter(client.ip());
        if place.is_none() {
            METRICS.strangers_turned_away.one_more();
            if self.is_to_be_told(Matter::TooMany, client) {
                let limit = self.places.limits().per_address;
                tracing::warn!(
                    peer = %client,
                    "connection closed: {limit} of this address are open that have not shown yet who they are, which is the limit"
                );
            }
        }
        place
    }

    /// Tells that a connection came to nothing.
    pub(super) fn turned_away(&self, client: SocketAddr, why: &Unwelcome) {
        let Some(matter) = Matter::of(why) else {
            return tracing::debug!(peer = %client, reason = %why, "connection closed");
        };
        if !self.is_to_be_told(matter, client) {
            return;
        }
        tracing::info!(peer = %client, reason = %why, "connection closed");
        if matter.is_audited() {
            let event = self
                .trail
                .event(EventKind::AuthFailed)
                .field("success", false)
                .field("addr.remote", client.to_string())
                .field("error", why.to_string());
            self.trail.note_now(event);
        }
    }

    /// Tells the counts of windows that are over. Somebody calls this now and then, as perhaps nobody else comes.
    pub(super) fn tell_counts(&self) {
        self.tell_each(|window| window.end(Moment::now()));
    }

    /// Tells the counts of windows that run, too: this port ends.
    pub(super) fn tell_counts_now(&self) {
        self.tell_each(Window::close);
    }

    fn tell_each(&self, end: impl Fn(&mut Window) -> Vec<Further>) {
        for matter in Matter::ALL {
            let further = self.window(matter, &end);
            self.tell(matter, &further);
        }
    }

    /// Whether this one is told for itself; else it is counted.
    pub(super) fn is_to_be_told(&self, matter: Matter, client: SocketAddr) -> bool {
        let network = network_of(client.ip());
        let (is_told, further) = self.window(matter, |window| window.hear(network, Moment::now()));
        self.tell(matter, &further);
        is_told
    }

    fn window<T>(&self, matter: Matter, look: impl FnOnce(&mut Window) -> T) -> T {
        // Each use leaves it whole.
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut windows[matter as usize])
    }

    fn tell(&self, matter: Matter, further: &[Further]) {
        for Further { network, times } in further {
            let whose = network.map_or_else(|| "others".to_owned(), |network| network.to_string());
            tracing::info!(
                peer = whose,
                times,
                "in the last minute there were further {}",
                matter.label()
            );
            if matter.is_audited() {
                let mut event = self
                    .trail
                    .event(EventKind::AuthFailed)
                    .field("success", false)
                    .field("error", format!("further {} in the last minute", matter.label()))
                    .field("times", *times);
                if let Some(network) = network {
                    event = event.field("addr.remote", network.to_string());
                }
                self.trail.note_now(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * SECOND)
    }

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn the_first_of_each_address_is_told_and_the_others_are_counted_until_the_minute_is_over() {
        let mut window = Window::default();
        assert_eq!(window.hear(ip(1), at(0)), (true, vec![]));
        for second in 1..=5 {
            assert_eq!(window.hear(ip(1), at(second)), (false, vec![]));
        }
        assert_eq!(window.hear(ip(2), at(6)), (true, vec![]));
        assert_eq!(window.end(at(59)), []);
        let further = Further {
            network: Some(ip(1)),
            times: 5,
        };
        assert_eq!(window.end(at(60)), [further]);
        assert_eq!(window.end(at(1000)), [], "it is told once");
        assert_eq!(window.hear(ip(1), at(1000)), (true, vec![]));
    }

    #[test]
    fn however_many_come_from_however_many_addresses_what_is_told_and_remembered_has_a_bound() {
        let mut window = Window::default();
        let told = (0..100_000)
            .filter(|number| window.hear(ip(number % 5_000), at(1)).0)
            .count();
        assert_eq!(told, TOLD_MAX);
        assert_eq!(window.told.len(), TOLD_MAX);
        let (is_told, further) = window.hear(ip(7), at(61));
        assert!(is_told);
        assert_eq!(further.len(), TOLD_MAX + 1);
        let counted: u64 = further.iter().map(|further| further.times).sum();
        assert_eq!(counted + TOLD_MAX as u64, 100_000, "nobody is forgotten");
        assert_eq!(
            further.last().map(|further| further.network),
            Some(None),
            "others come last"
        );
    }
}

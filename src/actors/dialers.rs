//! The tunnels of this agent: to the proxy that it was configured with, and to every other that the cluster lists.
//!
//! **Owns** the dialers, one for each proxy and runtime.
//! **Hears** `SeedTunnel` from the dialers of the configured address: which proxy is behind it; the list of proxies from
//! [`ProxiesView`].
//! **Tells** its dialers which proxies are wanted; one whose proxy is not wanted any more ends when its tunnel does.
//! **Never** cuts a tunnel that is up: sessions may be in it.
//! **Ends** with the agent. Permanent; its dialers live on when it is rebuilt, and where they have come to is kept outside of its
//! state.

use super::address::{Reply, message};
use super::dialer::{Dialer, DialerParts, Target, TunnelSlot};
use super::host::{Behavior, Ctx, Handle, Runtime, Spec};
use super::proxies::ProxiesView;
use super::supervisor::ChildExited;
use crate::model::{Endpoint, NodeId};
use crate::protocol::tunnel::ProxyRecord;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Tunnels to proxies of one cluster: with four for each, more proxies than anybody runs. Beyond it the first by their ids
/// are dialled.
const PROXIES_MAX: usize = 64;
/// A dialer of the configured address that comes nowhere for so long counts no longer as a way to the proxy that it led to, or
/// that its siblings have reached: that one may be listed with another address now.
const SEED_LOST_AFTER: Duration = Duration::from_secs(10);

/// Which proxy a dialer of the configured address has reached; `None` when that tunnel is lost.
pub struct SeedTunnel {
    pub dialer: Arc<str>,
    pub proxy: Option<NodeId>,
}
message!(SeedTunnel => ());

pub struct DialersParts {
    /// The proxy of the configuration; `None` where an agent is reached by the proxy of its own process, without a tunnel.
    pub seed: Option<Endpoint>,
    pub proxies: ProxiesView,
    /// One tunnel to each proxy for each of these.
    pub runtimes: Vec<Runtime>,
    pub dialer: Arc<DialerParts>,
}

/// What outlives a rebuild, as the dialers do: made once, outside of the actor.
#[derive(Clone, Default)]
pub struct DialersStock {
    /// The dialers of the configured address.
    seeds: Arc<Mutex<BTreeMap<Arc<str>, Seed>>>,
    /// The listed proxies that are dialled, which the dialers read.
    wanted: Arc<watch::Sender<Vec<ProxyRecord>>>,
}

impl DialersStock {
    /// Locked by the one actor for the length of a turn.
    fn seeds(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Seed>> {
        // Each use leaves the map whole.
        self.seeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a dialer of the configured address has come to.
struct Seed {
    proxy: Option<NodeId>,
    /// How often that has changed.
    changes: u64,
    /// Its tunnel is not up, be it for the first time or again, and not for longer than [`SEED_LOST_AFTER`].
    awaited: bool,
}

impl Seed {
    const fn new() -> Self {
        Self {
            proxy: None,
            changes: 0,
            awaited: true,
        }
    }

    /// Whether its way ends at this proxy, or may yet: one that dials for the first time will most likely come where its
    /// siblings have.
    fn may_lead_to(&self, proxy: NodeId) -> bool {
        self.proxy.map_or(self.awaited, |reached| reached == proxy)
    }
}

/// Whether the dialers of the configured address see to this proxy, so that no others are needed.
fn see_to<'a>(seeds: impl Iterator<Item = &'a Seed> + Clone, address: &Endpoint, proxy: &ProxyRecord) -> bool {
    if seeds.clone().all(|seed| seed.proxy.is_none()) {
        return proxy.addresses.contains(address);
    }
    seeds.clone().any(|seed| seed.proxy == Some(proxy.node)) && seeds.clone().all(|seed| seed.may_lead_to(proxy.node))
}

pub struct Dialers {
    parts: Arc<DialersParts>,
    proxies: ProxiesView,
    running: HashSet<Arc<str>>,
    stock: DialersStock,
}

impl Dialers {
    pub fn new(parts: Arc<DialersParts>, stock: DialersStock) -> Self {
        Self {
            proxies: parts.proxies.clone(),
            parts,
            running: HashSet::new(),
            stock,
        }
    }

    fn await_news(&self, ctx: &mut Ctx<'_, Self>) {
        let mut proxies = self.proxies.clone();
        ctx.run(
            async move { (proxies.changed().await, proxies) },
            |dialers, (more, proxies), ctx| {
                dialers.proxies = proxies;
                dialers.dial_those_wanted(ctx);
                if more {
                    dialers.await_news(ctx);
                }
            },
        );
    }

    /// Whether the dialers of the configured address see to this proxy.
    fn is_the_seeds(&self, proxy: &ProxyRecord) -> bool {
        let Some(seed) = &self.parts.seed else {
            return false;
        };
        see_to(self.stock.seeds().values(), seed, proxy)
    }

    fn dial_those_wanted(&mut self, ctx: &mut Ctx<'_, Self>) {
        let own = self.parts.dialer.own_node;
        let mut wanted = self.proxies.known();
        wanted.retain(|proxy| proxy.node != own && !self.is_the_seeds(proxy));
        if wanted.len() > PROXIES_MAX {
            tracing::warn!(
                proxies = wanted.len(),
                "only {PROXIES_MAX} proxies are dialled, which is the limit"
            );
            wanted.truncate(PROXIES_MAX);
        }
        self.stock.wanted.send_replace(wanted.clone());
        for proxy in wanted {
            for number in 1..=self.parts.runtimes.len() {
                // With its id: names need not be unique.
                let name = format!("dialer#{}-{}-{number}", proxy.name, proxy.node);
                self.start(&name, number, Target::Listed(proxy.node), ctx);
            }
        }
    }

    /// A dialer of the configured address that has not come anywhere until then stands for its former proxy no longer.
    fn await_seed(dialer: Arc<str>, changes: u64, ctx: &mut Ctx<'_, Self>) {
        ctx.after(SEED_LOST_AFTER, move |dialers, ctx| {
            if let Some(seed) = dialers
                .stock
                .seeds()
                .get_mut(&dialer)
                .filter(|seed| seed.changes == changes)
            {
                seed.proxy = None;
                seed.awaited = false;
            }
            dialers.dial_those_wanted(ctx);
        });
    }

    fn start(&mut self, name: &str, number: usize, target: Target, ctx: &mut Ctx<'_, Self>) {
        if !self.running.insert(name.into()) {
            return;
        }
        let parts = self.parts.dialer.clone();
        let (wanted, reached) = (self.stock.wanted.subscribe(), ctx.address::<SeedTunnel>());
        let runtime = self.parts.runtimes[number - 1].clone();
        let tunnel = TunnelSlot::default();
        ctx.spawn_child(&runtime, Spec::transient(name), move || {
            Dialer::new(
                parts.clone(),
                target.clone(),
                wanted.clone(),
                reached.clone(),
                tunnel.clone(),
            )
        });
    }
}

impl Behavior for Dialers {
    /// What the dialers of one address have to say; each says it again with its next tunnel.
    const MAILBOX: usize = 64;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.running = ctx.children().cloned().collect();
        if let Some(seed) = self.parts.seed.clone() {
            for number in 1..=self.parts.runtimes.len() {
                let name = format!("dialer#{number}");
                self.stock.seeds().entry(name.as_str().into()).or_insert_with(Seed::new);
                self.start(&name, number, Target::Seed(seed.clone()), ctx);
            }
        }
        let dialling: Vec<_> = {
            let seeds = self.stock.seeds();
            let dialling = seeds.iter().filter(|(_, seed)| seed.awaited);
            dialling.map(|(dialer, seed)| (dialer.clone(), seed.changes)).collect()
        };
        for (dialer, changes) in dialling {
            Self::await_seed(dialer, changes, ctx);
        }
        self.dial_those_wanted(ctx);
        self.await_news(ctx);
    }

    fn child_exited(&mut self, exit: ChildExited, ctx: &mut Ctx<'_, Self>) {
        self.running.remove(&exit.name);
        // It ended because its proxy was not wanted; meanwhile it may be again. One that is exhausted is this actor's failure,
        // and is started anew with the rebuilt state.
        self.dial_those_wanted(ctx);
    }
}

impl Handle<SeedTunnel> for Dialers {
    fn handle(&mut self, SeedTunnel { dialer, proxy }: SeedTunnel, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        let changes = {
            let mut seeds = self.stock.seeds();
            let Some(seed) = seeds.get_mut(&dialer) else {
                return Reply::Now(());
            };
            seed.changes += 1;
            seed.proxy = proxy.or(seed.proxy);
            seed.awaited = proxy.is_none();
            seed.changes
        };
        if proxy.is_some() {
            self.dial_those_wanted(ctx);
        } else {
            Self::await_seed(dialer, changes, ctx);
        }
        Reply::Now(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeName;

    fn endpoint(host: &str) -> Endpoint {
        Endpoint {
            host: host.to_owned(),
            port: 3080,
        }
    }

    fn proxy(number: u8, host: &str) -> ProxyRecord {
        ProxyRecord {
            node: NodeId::from_random([number; 16]),
            name: NodeName::new("proxy").expect("a name"),
            addresses: vec![endpoint(host)],
        }
    }

    fn at(proxy: &ProxyRecord) -> Seed {
        Seed {
            proxy: Some(proxy.node),
            changes: 1,
            awaited: false,
        }
    }

    fn are_enough(seeds: &[Seed], proxy: &ProxyRecord) -> bool {
        see_to(seeds.iter(), &endpoint("front"), proxy)
    }

    #[test]
    fn before_any_has_arrived_the_proxy_with_the_configured_address_is_theirs_alone() {
        let seeds = [Seed::new(), Seed::new()];
        assert!(are_enough(&seeds, &proxy(1, "front")));
        assert!(!are_enough(&seeds, &proxy(2, "back")));
    }

    #[test]
    fn one_that_has_not_yet_arrived_does_not_have_its_siblings_proxy_dialled_twice() {
        let (one, other) = (proxy(1, "one"), proxy(2, "other"));
        let seeds = [at(&one), Seed::new()];
        assert!(are_enough(&seeds, &one));
        assert!(!are_enough(&seeds, &other), "no dialer is there for it");
    }

    #[test]
    fn of_two_proxies_behind_one_address_neither_is_left_to_half_of_the_dialers() {
        let (one, other) = (proxy(1, "one"), proxy(2, "other"));
        let seeds = [at(&one), at(&other)];
        assert!(!are_enough(&seeds, &one) && !are_enough(&seeds, &other));
    }

    #[test]
    fn one_that_does_not_arrive_in_time_is_no_way_to_anywhere() {
        let one = proxy(1, "one");
        let given_up = Seed {
            awaited: false,
            ..Seed::new()
        };
        assert!(!are_enough(&[at(&one), given_up], &one));
    }
}

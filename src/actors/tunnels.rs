//! The agents that this proxy can reach.
//!
//! **Owns** who serves what, and through which tunnel.
//! **Hears** `AdoptTunnel` from connections that turned out to be an agent's, `AgentAnnounced` from its tunnels,
//! `ServeLocally` from an agent in this process.
//! **Tells** whoever holds a [`RoutesView`], by reading; starts a `tunnel#agent` for each connection of an agent.
//! **Never** carries a session's bytes.
//! **Ends** with the node, its tunnels with it. After a failure its tunnels live on, and so do the routes.

use super::address::{Address, Reply, message};
use super::agent::ServeStream;
use super::agent_way::{AgentWay, Older};
use super::host::{Behavior, Ctx, Handle, Runtime, Spec};
use super::policy::PolicyView;
use super::supervisor::ChildExited;
use super::trail::Trail;
use super::tunnel::{Carrier, Tunnel};
use crate::model::{Labels, Moment, NodeId, NodeName, ServiceName, SharedClock, Timestamp};
use crate::net::BoxStream;
use crate::net::mux::{Mux, MuxError};
use crate::net::tls::ServerTls;
use crate::pki::HostIdentity;
use crate::protocol::tunnel::{DatabaseHealth, DatabaseRecord, HealthState};
use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long a service is remembered after its last agent went away, so that a client reads "the agent is offline" and not
/// "no such database".
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Between the two ends of a stream inside one process; one copy buffer.
const LOCAL_PIPE_BYTES: usize = 64 * 1024;

/// How a stream to an agent is opened. All else is the same.
#[derive(Clone)]
pub enum Transport {
    Tunnel(Mux),
    /// The agent is in this process.
    Local(Address<ServeStream>),
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Mux(#[from] MuxError),
    #[error("the agent of this process is not up")]
    LocalAgentDown,
}

impl Transport {
    pub async fn open(&self, origin: &super::address::Origin) -> Result<BoxStream, OpenError> {
        match self {
            Self::Tunnel(mux) => Ok(Box::new(mux.open().await?)),
            Self::Local(agent) => {
                let (near, far) = tokio::io::duplex(LOCAL_PIPE_BYTES);
                let serve = ServeStream {
                    stream: Box::new(far),
                    runtime: Runtime::current(),
                    from: "proxy".into(),
                    proxy: None,
                };
                agent.tell(origin, serve).map_err(|_| OpenError::LocalAgentDown)?;
                Ok(Box::new(near))
            }
        }
    }

    fn is_down(&self) -> bool {
        match self {
            Self::Tunnel(mux) => mux.is_down(),
            Self::Local(_) => false,
        }
    }

    /// When the agent at the other end said something last; `None` of one in this process.
    pub fn last_heard(&self) -> Option<Moment> {
        match self {
            Self::Tunnel(mux) => Some(mux.gauge().heard()),
            Self::Local(_) => None,
        }
    }
}

/// A way to a database service.
#[derive(Clone)]
pub struct Candidate {
    pub way: AgentWay,
    pub labels: Labels,
    pub uri: String,
    /// As the agent sees it.
    pub health: HealthState,
    /// The proxy's runtime that the tunnel lives on; a connection prefers its own.
    pub runtime: usize,
}

#[derive(Default, Clone)]
pub struct Routes {
    serving: HashMap<ServiceName, Vec<Candidate>>,
    /// Every tunnel with the proxy's runtime that it lives on; those of agents that take no new sessions, too.
    tunnels: Vec<(AgentWay, usize)>,
    /// Services without an agent.
    offline: BTreeMap<ServiceName, Offline>,
}

/// The last agent of a service that nobody serves.
#[derive(Clone)]
struct Offline {
    node: NodeId,
    agent: NodeName,
    since: Timestamp,
    /// Its tunnel is up, and it says that it serves nothing.
    withdrawn: bool,
}

pub enum Lookup {
    /// At least one, the ones to try first in front.
    Candidates(Vec<Candidate>),
    Offline {
        agent: NodeName,
        since: Timestamp,
    },
    /// The agent is there and takes no new sessions: it is going down.
    Withdrawn {
        agent: NodeName,
    },
    Unknown,
}

impl Routes {
    /// One way to each agent, in the order of their ids, of a connection on `runtime`.
    pub fn agents(&self, runtime: usize) -> Vec<AgentWay> {
        let mut best: BTreeMap<NodeId, &AgentWay> = BTreeMap::new();
        for (way, lives_on) in self.tunnels.iter().filter(|(way, _)| !way.transport.is_down()) {
            let known = best.entry(way.node).or_insert(way);
            if *lives_on == runtime {
                *known = way;
            }
        }
        best.into_values().cloned().collect()
    }

    /// The ways to a service for a connection on `runtime`. One tunnel of each agent; those that reach PostgreSQL first, and
    /// among them an order that `spread` shifts, so that several agents of a database share the load.
    pub fn lookup(&self, service: &ServiceName, runtime: usize, spread: u64) -> Lookup {
        let Some(all) = self.serving.get(service) else {
            return match self.offline.get(service) {
                Some(Offline {
                    agent, withdrawn: true, ..
                }) => Lookup::Withdrawn { agent: agent.clone() },
                Some(Offline { agent, since, .. }) => Lookup::Offline {
                    agent: agent.clone(),
                    since: *since,
                },
                None => Lookup::Unknown,
            };
        };
        let mut best: BTreeMap<NodeId, &Candidate> = BTreeMap::new();
        for candidate in all.iter().filter(|candidate| !candidate.way.transport.is_down()) {
            let known = best.entry(candidate.way.node).or_insert(candidate);
            if candidate.runtime == runtime {
                *known = candidate;
            }
        }
        let mut candidates: Vec<Candidate> = Vec::with_capacity(best.len());
        // An agent that says that it cannot reach PostgreSQL may be wrong by now: it is the last to be tried, not left out.
        for health in [HealthState::Healthy, HealthState::Unknown, HealthState::Unhealthy] {
            let alike = best.values().filter(|candidate| candidate.health == health);
            let mut alike: Vec<Candidate> = alike.map(|candidate| (*candidate).clone()).collect();
            if let Some(shift) = spread.checked_rem(alike.len() as u64) {
                alike.rotate_left(usize::try_from(shift).unwrap_or(0));
            }
            candidates.append(&mut alike);
        }
        match (candidates.is_empty(), all.first()) {
            (true, Some(last)) => Lookup::Offline {
                agent: last.way.name.clone(),
                since: Timestamp::from_secs(0),
            },
            _ => Lookup::Candidates(candidates),
        }
    }
}

#[derive(Clone)]
pub struct RoutesView(watch::Receiver<Arc<Routes>>);

impl RoutesView {
    pub fn routes(&self) -> Arc<Routes> {
        self.0.borrow().clone()
    }
}

/// What outlives a rebuild of the actor, made once per node: the published routes, and from what they are made. The tunnels
/// live on, too, and an agent of this process says only once that it is there.
#[derive(Clone, Default)]
pub struct RoutesStock {
    routes: Arc<watch::Sender<Arc<Routes>>>,
    /// By the name of the tunnel's actor. Locked for the length of a map operation, by the one actor.
    served: Arc<Mutex<HashMap<Arc<str>, Served>>>,
    tunnels: Arc<AtomicU64>,
}

impl RoutesStock {
    pub fn view(&self) -> RoutesView {
        RoutesView(self.routes.subscribe())
    }

    fn served(&self) -> MutexGuard<'_, HashMap<Arc<str>, Served>> {
        // Each use leaves the map whole.
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has proved to be an agent's.
pub struct AdoptTunnel {
    pub stream: ServerTls,
    pub agent: HostIdentity,
    pub runtime: Runtime,
    pub runtime_index: usize,
}

/// What an agent serves, said through one of its tunnels.
pub struct AgentAnnounced {
    pub tunnel: Arc<str>,
    pub agent: NodeId,
    pub agent_name: NodeName,
    pub databases: Vec<DatabaseRecord>,
    pub health: Vec<DatabaseHealth>,
    pub mux: Mux,
    pub runtime_index: usize,
}

/// An agent in this process; no tunnel is between.
pub struct ServeLocally {
    pub agent: NodeId,
    pub agent_name: NodeName,
    pub databases: Vec<DatabaseRecord>,
    pub health: Vec<DatabaseHealth>,
    pub serve: Address<ServeStream>,
}

message!(AdoptTunnel => (), AgentAnnounced => (), ServeLocally => ());

struct Served {
    way: AgentWay,
    databases: Vec<DatabaseRecord>,
    health: Vec<DatabaseHealth>,
    runtime: usize,
}

impl Served {
    fn services(&self) -> Vec<ServiceName> {
        self.databases.iter().map(|database| database.service.clone()).collect()
    }

    fn health_of(&self, service: &ServiceName) -> HealthState {
        let health = self.health.iter().find(|health| health.service == *service);
        health.map_or(HealthState::Unknown, |health| health.state)
    }
}

pub struct Tunnels {
    stock: RoutesStock,
    policy: PolicyView,
    trail: Trail,
    clock: SharedClock,
}

impl Tunnels {
    pub fn new(stock: RoutesStock, policy: PolicyView, trail: Trail, clock: SharedClock) -> Self {
        Self {
            stock,
            policy,
            trail,
            clock,
        }
    }

    fn publish(&self) {
        let now = self.clock.now();
        let before = self.stock.routes.borrow().clone();
        let mut routes = Routes {
            serving: HashMap::new(),
            tunnels: Vec::new(),
            offline: before.offline.clone(),
        };
        for served in self.stock.served().values() {
            routes.tunnels.push((served.way.clone(), served.runtime));
            for database in &served.databases {
                routes.offline.remove(&database.service);
                routes
                    .serving
                    .entry(database.service.clone())
                    .or_default()
                    .push(Candidate {
                        way: served.way.clone(),
                        labels: database.labels.clone(),
                        uri: database.uri.clone(),
                        health: served.health_of(&database.service),
                        runtime: served.runtime,
                    });
            }
        }
        for (service, candidates) in &before.serving {
            if let (false, Some(last)) = (routes.serving.contains_key(service), candidates.first()) {
                let offline = Offline {
                    node: last.way.node,
                    agent: last.way.name.clone(),
                    since: now,
                    withdrawn: false,
                };
                routes.offline.insert(service.clone(), offline);
            }
        }
        routes
            .offline
            .retain(|_, offline| now.since(offline.since) < REMEMBERED);
        for offline in routes.offline.values_mut() {
            let is_up = |served: &Served| served.way.node == offline.node && !served.way.transport.is_down();
            offline.withdrawn = self.stock.served().values().any(is_up);
        }
        self.stock.routes.send_replace(Arc::new(routes));
    }
}

impl Behavior for Tunnels {
    /// Announcements of every tunnel each two seconds, beside what opens and closes.
    const MAILBOX: usize = 1024;

    fn child_exited(&mut self, exit: ChildExited, _: &mut Ctx<'_, Self>) {
        let gone = self.stock.served().remove(&exit.name);
        if let Some(gone) = gone {
            tracing::warn!(actor = %exit.name, agent = %gone.way.name, "tunnel down");
            self.publish();
        }
    }
}

impl Handle<AdoptTunnel> for Tunnels {
    fn handle(&mut self, adopt: AdoptTunnel, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        let number = self.stock.tunnels.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("tunnel#{}-{number}", adopt.agent.node_name);
        tracing::info!(actor = %name, agent = %adopt.agent.node_name, "tunnel up");
        let announced = ctx.address::<AgentAnnounced>();
        let (policy, trail) = (self.policy.clone(), self.trail.clone());
        let (agent, runtime_index) = (adopt.agent, adopt.runtime_index);
        // Begun on the tunnel's runtime, and once, however often its actor is built.
        let carrier = LazyCell::new(move || Carrier::start(adopt.stream));
        ctx.spawn_child(&adopt.runtime, Spec::transient(&name), move || {
            Tunnel::new(
                LazyCell::force(&carrier).clone(),
                agent.clone(),
                runtime_index,
                announced.clone(),
                policy.clone(),
                trail.clone(),
            )
        });
        Reply::Now(())
    }
}

impl Handle<AgentAnnounced> for Tunnels {
    fn handle(&mut self, said: AgentAnnounced, _: &mut Ctx<'_, Self>) -> Reply<()> {
        let known = self.stock.served();
        let is_old = known
            .get(&said.tunnel)
            .is_some_and(|known| known.databases == said.databases && known.health == said.health);
        let served: Vec<ServiceName> = known.get(&said.tunnel).map(Served::services).unwrap_or_default();
        let is_older = known.get(&said.tunnel).map(|known| known.way.is_older.clone());
        drop(known);
        if is_old || said.mux.is_down() {
            return Reply::Now(());
        }
        if said.databases.is_empty() {
            tracing::info!(agent = %said.agent_name, actor = %said.tunnel, "the agent takes no new sessions");
        }
        let is_new = |database: &&DatabaseRecord| !served.contains(&database.service);
        for database in said.databases.iter().filter(is_new) {
            tracing::info!(agent = %said.agent_name, database = %database.service, "database served");
        }
        self.stock.served().insert(
            said.tunnel,
            Served {
                way: AgentWay {
                    node: said.agent,
                    name: said.agent_name,
                    transport: Transport::Tunnel(said.mux),
                    is_older: is_older.unwrap_or_default(),
                },
                databases: said.databases,
                health: said.health,
                runtime: said.runtime_index,
            },
        );
        self.publish();
        Reply::Now(())
    }
}

impl Handle<ServeLocally> for Tunnels {
    fn handle(&mut self, local: ServeLocally, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.stock.served().insert(
            "local".into(),
            Served {
                way: AgentWay {
                    node: local.agent,
                    name: local.agent_name,
                    transport: Transport::Local(local.serve),
                    is_older: Older::default(),
                },
                databases: local.databases,
                health: local.health,
                runtime: 0,
            },
        );
        self.publish();
        Reply::Now(())
    }
}

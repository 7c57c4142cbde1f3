//! The simulated cluster: the actors of a proxy and of its agents as a node starts them, with pipes in place of sockets, a spool in
//! memory, and a PostgreSQL that is played.

use super::cluster::{Authority, Cluster, NOW};
use super::postgres::{Postgres, Way};
use super::record::{Record, What};
use super::rules;
use crate::actors::address::{Address, Message, Origin};
use crate::actors::agent::{Agent, AgentParts, ServeStream};
use crate::actors::cancels::requests::CancelParts;
use crate::actors::cancels::{ClientKeys, Keys, UpstreamKeys};
use crate::actors::carried::ToAuthRoom;
use crate::actors::connection::{ConnectionParts, ProxyParts, ServePages};
use crate::actors::databases::{Database, DatabasesStock, Offer};
use crate::actors::door::Door;
use crate::actors::host::{ActorRef, Behavior, Runtime, Spec, spawn_detached, start_on};
use crate::actors::inspector::Inspector;
use crate::actors::passages::Passages;
use crate::actors::policy::{Policy, PolicyReceived, PolicyStock, PolicyView};
use crate::actors::sessions::{Drain, EndAll, Sessions};
use crate::actors::sessions_stock::SessionsStock;
use crate::actors::strangers::Strangers;
use crate::actors::trail::Trail;
use crate::actors::tunnels::{AgentAnnounced, RoutesStock, ServeLocally, Tunnels};
use crate::audit::{EventContext, memory_spool};
use crate::config::ProxyProtocol;
use crate::model::clock::Clock;
use crate::model::{
    ConnectionId, Endpoint, NodeId, NodeName, Refusal, RefusalKind, ServiceName, SharedClock, Timestamp,
};
use crate::net::mux::{self, Mux, MuxSide, Window};
use crate::net::tls::{Http, ServerTls};
use crate::net::upstream_tls::UpstreamTrust;
use crate::pki::entropy;
use crate::pki::entropy::seeded::Draws;
use crate::policy::DatabaseTlsMode;
use crate::telemetry::observe::{About, Observer};
use futures::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// For what an actor answers at once; virtual time costs nothing.
const SOON: Duration = Duration::from_secs(30);
/// Rules are good for the length of any run.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// As of a socket.
const TUNNEL_PIPE_BYTES: usize = 64 * 1024;

/// Follows the virtual time of the runtime.
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        NOW + self.0.elapsed()
    }
}

/// What every node has. Number 0 is the proxy.
pub struct Node {
    number: usize,
    pub policy: ActorRef<Policy>,
    pub sessions: ActorRef<Sessions>,
    view: PolicyView,
    trail: Trail,
}

pub struct AgentNode {
    pub node: Node,
    pub parts: Arc<AgentParts>,
    agent: ActorRef<Agent>,
    /// `None`: it is in the process of the proxy.
    tunnel: Mutex<Option<Mux>>,
    databases: Offer,
}

pub struct World {
    pub record: Record,
    pub proxy: Node,
    pub proxy_parts: Arc<ConnectionParts>,
    pub agents: Vec<AgentNode>,
    pub postgres: Arc<Postgres>,
    announce: Address<AgentAnnounced>,
    cluster: &'static Cluster,
    /// The newest version that was published, and how many tunnels there have been.
    numbers: Mutex<(u64, u64)>,
}

fn start<B: Behavior>(name: &str, factory: impl FnMut() -> B + Send + 'static) -> ActorRef<B> {
    start_on(&Runtime::current(), Spec::permanent(name), Arc::new(|_| {}), factory)
}

impl World {
    pub async fn start(seed: u64) -> Arc<Self> {
        let mut draws = Draws::new(seed, 10);
        let (record, cluster) = (Record::begin(), Cluster::of_the_tests());
        let clock: SharedClock = Arc::new(VirtualClock(Instant::now()));
        let postgres = Postgres::new(record.clone(), Draws::new(seed, 11));
        let proxy = Node::start(0, cluster, &clock, &record, &mut draws);
        let (stock, view, trail) = (RoutesStock::default(), proxy.view.clone(), proxy.trail.clone());
        let routes = stock.view();
        let tunnels = {
            let clock = clock.clone();
            start("tunnels", move || {
                Tunnels::new(stock.clone(), view.clone(), trail.clone(), clock.clone())
            })
        };
        let cancels = start("cancels", {
            let (keys, clock, trail) = (Keys::default(), clock.clone(), proxy.trail.clone());
            move || ClientKeys::new(keys.clone(), true, clock.clone(), trail.clone())
        });
        let proxy_parts = Arc::new(ConnectionParts {
            cluster: cluster.name.clone(),
            identity: cluster.identity.view(),
            policy: proxy.view.clone(),
            clock: clock.clone(),
            trail: proxy.trail.clone(),
            door: Door {
                identity: cluster.identity.view(),
                http: Http::Pages,
                proxy_protocol: ProxyProtocol::Off,
                strangers: Strangers::new(proxy.trail.clone()),
            },
            proxy: Some(ProxyParts {
                routes,
                register: proxy.sessions.address(),
                closed: proxy.sessions.address(),
                keep_key: cancels.address(),
                forget_key: cancels.address(),
                cancels: CancelParts {
                    try_cancel: cancels.address(),
                    found_elsewhere: cancels.address(),
                    failed: cancels.address(),
                    searches: CancelParts::searches(),
                },
                adopt_tunnel: tunnels.address(),
                auth: Vec::new(),
                pages: Arc::new(NoPages),
                to_auth_room: ToAuthRoom::default(),
                agents: Passages::default(),
            }),
            auth: None,
        });
        let authority = start("ca", move || Authority { cluster });
        let agents = (1..=1 + draws.below(2))
            .map(|number| {
                let node = Node::start(number as usize, cluster, &clock, &record, &mut draws);
                AgentNode::start(node, cluster, &clock, &postgres, &authority)
            })
            .collect();
        let world = Arc::new(Self {
            record,
            proxy,
            proxy_parts,
            agents,
            postgres,
            announce: tunnels.address(),
            cluster,
            numbers: Mutex::new((0, 0)),
        });
        let version = world.next_version();
        for node in 0..=world.agents.len() {
            world.publish(node, version, 0).await;
        }
        let first_is_local = draws.percent(30);
        for agent in 0..world.agents.len() {
            match (agent, first_is_local) {
                (0, true) => world.serve_locally(&tunnels.address()).await,
                _ => world.connect_tunnel(agent).await,
            }
        }
        world
    }

    pub fn chain_of(&self, person: &str) -> Vec<CertificateDer<'static>> {
        self.cluster.chain_of(person)
    }

    pub fn node(&self, number: usize) -> &Node {
        match number.checked_sub(1) {
            None => &self.proxy,
            Some(agent) => &self.agents[agent].node,
        }
    }

    pub fn next_version(&self) -> u64 {
        let mut numbers = self.numbers.lock().unwrap();
        numbers.0 += 1;
        numbers.0
    }

    /// Tells one node of these rules.
    pub async fn publish(&self, node: usize, version: u64, rules: usize) {
        let received = PolicyReceived {
            snapshot: rules::snapshot(rules, version, NOW),
            max_age: MAX_AGE,
        };
        self.record.note(What::Told { node, rules });
        let heard = ask(&self.node(node).policy.address(), received).await;
        // It may have newer ones already.
        if heard && self.node(node).view.version() == Some(version) {
            self.record.note(What::Rules { node, version, rules });
        }
    }

    async fn serve_locally(&self, to: &Address<ServeLocally>) {
        let agent = &self.agents[0];
        let local = ServeLocally {
            agent: agent.node.trail.node,
            agent_name: agent.node.trail.node_name.clone(),
            databases: agent.parts.databases.records(),
            health: Vec::new(),
            serve: agent.agent.address(),
        };
        ask(to, local).await;
    }

    /// As the agent's dialer and the proxy's tunnel do once TLS is done.
    pub async fn connect_tunnel(&self, agent: usize) {
        let (dialled, accepted) = tokio::io::duplex(TUNNEL_PIPE_BYTES);
        let (agents_side, mut inbound, driver) = mux::start(dialled, MuxSide::Dialled, Window::FIXED);
        spawn_detached(async move { drop(driver.await) });
        let (proxys_side, _no_control_stream, driver) = mux::start(accepted, MuxSide::Accepted, Window::FIXED);
        spawn_detached(async move { drop(driver.await) });
        let agent = &self.agents[agent];
        let serve: Address<ServeStream> = agent.agent.address();
        spawn_detached(async move {
            let origin = Origin::outside("dialer");
            while let Some(stream) = inbound.recv().await {
                let serve_stream = ServeStream {
                    stream: Box::new(stream),
                    runtime: Runtime::current(),
                    from: "proxy".into(),
                    proxy: None,
                };
                let _agent_gone = serve.tell(&origin, serve_stream);
            }
        });
        let number = {
            let mut numbers = self.numbers.lock().unwrap();
            numbers.1 += 1;
            numbers.1
        };
        let announced = AgentAnnounced {
            tunnel: format!("tunnel#{number}").into(),
            agent: agent.node.trail.node,
            agent_name: agent.node.trail.node_name.clone(),
            databases: agent
                .databases
                .databases
                .values()
                .map(|database| database.record())
                .collect(),
            health: Vec::new(),
            mux: proxys_side,
            runtime_index: 0,
        };
        *agent.tunnel.lock().unwrap() = Some(agents_side);
        ask(&self.announce, announced).await;
    }

    /// Loses an agent's tunnel. False for an agent that has none.
    pub fn cut_tunnel(&self, agent: usize) -> bool {
        let tunnel = self.agents[agent].tunnel.lock().unwrap().take();
        tunnel.inspect(Mux::kill).is_some()
    }

    /// Ends an agent's actor, with the sessions that it has.
    pub async fn stop(&self, agent: usize) {
        self.agents[agent].agent.clone().stop(SOON).await;
    }

    /// Whether the node has heard that all its sessions are over.
    pub async fn drain(&self, node: usize, within: Duration) -> bool {
        let address: Address<Drain> = self.node(node).sessions.address();
        let asked = address.ask(&Origin::outside("sim"), Drain(going_down()), within).await;
        asked.is_ok()
    }

    pub async fn end_all(&self, node: usize) {
        let address: Address<EndAll> = self.node(node).sessions.address();
        ask(&address, EndAll(going_down())).await;
    }
}

fn going_down() -> Refusal {
    Refusal::new(RefusalKind::ShuttingDown, "this node is going down")
}

/// Whether it was handled; an actor that fails with it in hand has not.
async fn ask<M: Message>(address: &Address<M>, message: M) -> bool {
    address.ask(&Origin::outside("sim"), message, SOON).await.is_ok()
}

impl Node {
    fn start(number: usize, cluster: &Cluster, clock: &SharedClock, record: &Record, draws: &mut Draws) -> Self {
        let trail = trail(number, cluster, clock, record, Draws::new(draws.draw(), 0));
        let kind = if number == 0 { "proxy" } else { "agent" };
        let stock = PolicyStock::default();
        let view = stock.view(clock.clone());
        let policy_clock = clock.clone();
        let policy = start(&format!("{kind}-policy"), move || {
            Policy::new(stock.clone(), policy_clock.clone())
        });
        let (stock, sessions_view, sessions_clock) = (SessionsStock::default(), view.clone(), clock.clone());
        let sessions = start(&format!("{kind}-sessions"), move || {
            Sessions::new(stock.clone(), sessions_view.clone(), sessions_clock.clone())
        });
        Self {
            number,
            policy,
            sessions,
            view,
            trail,
        }
    }
}

impl AgentNode {
    fn start(
        node: Node,
        cluster: &Cluster,
        clock: &SharedClock,
        postgres: &Arc<Postgres>,
        authority: &ActorRef<Authority>,
    ) -> Self {
        let database = Database {
            service: ServiceName::new("orders").unwrap(),
            description: String::new(),
            labels: Default::default(),
            endpoint: Endpoint::parse("pg.example:5432", 5432).unwrap(),
            trust: Arc::new(UpstreamTrust {
                mode: DatabaseTlsMode::VerifyFull,
                server_name: "pg.example".to_owned(),
                authorities: cluster.anchors.db.clone(),
            }),
        };
        let databases = Offer {
            databases: [(database.service.clone(), Arc::new(database))].into(),
            health: Vec::new(),
        };
        let stock = DatabasesStock::default();
        stock.publish(databases.clone());
        let cancels = start("upstream-cancels", {
            let (keys, clock) = (Keys::default(), clock.clone());
            move || UpstreamKeys::new(keys.clone(), clock.clone())
        });
        let parts = Arc::new(AgentParts {
            node: node.trail.node,
            databases: stock.view(),
            anchors: cluster.anchors.clone(),
            policy: node.view.clone(),
            trail: node.trail.clone(),
            clock: clock.clone(),
            dial: Arc::new(Way {
                agent: node.number,
                postgres: postgres.clone(),
            }),
            issue: authority.address(),
            register: node.sessions.address(),
            closed: node.sessions.address(),
            keep_key: cancels.address(),
            find_key: cancels.address(),
            forget_key: cancels.address(),
            opened_by: Passages::default(),
            inspector: nobody_looks(node.trail.node),
        });
        let agent = {
            let parts = parts.clone();
            let numbers = Arc::default();
            start(&format!("agent#{}", node.number), move || {
                Agent::new(parts.clone(), Arc::clone(&numbers))
            })
        };
        Self {
            node,
            parts,
            agent,
            tunnel: Mutex::new(None),
            databases,
        }
    }
}

/// A trail whose disk takes a while, and now and then a long one.
fn trail(number: usize, cluster: &Cluster, clock: &SharedClock, record: &Record, mut draws: Draws) -> Trail {
    let (spool, writer) = memory_spool::open(clock.clone());
    let record = record.clone();
    spawn_detached(async move {
        while let Some(entered) = writer.next().await {
            let longest = if draws.percent(3) { 800 } else { 8 };
            tokio::time::sleep(Duration::from_millis(draws.below(longest))).await;
            for line in &entered.lines {
                record.note(on_disk(number, line));
            }
            writer.synced(entered);
        }
    });
    Trail {
        spool,
        context: EventContext::new(&cluster.name, clock.clone(), entropy::fill),
        node: NodeId::from_random([u8::try_from(number).unwrap(); 16]),
        node_name: NodeName::new(format!("node-{number}")).unwrap(),
    }
}

fn on_disk(node: usize, line: &str) -> What {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    let client = text("connection").and_then(|id| id.parse::<ConnectionId>().ok());
    let results = event["results"].as_array().into_iter().flatten();
    let requests = results.chain([&event]).filter_map(|about| about["request"].as_u64());
    What::OnDisk {
        node,
        event: text("code").unwrap_or_default(),
        sid: text("sid"),
        client: client.map(ConnectionId::as_u64),
        statement: text("db_query"),
        requests: requests.collect(),
    }
}

/// No client of the simulation speaks HTTP.
struct NoPages;

impl ServePages for NoPages {
    fn serve(&self, _: ServerTls, _: SocketAddr, _: Origin) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Nobody asks these nodes about themselves.
fn nobody_looks(node: NodeId) -> Inspector {
    let about = About {
        node: "simulated".to_owned(),
        node_id: node.to_string(),
        version: String::new(),
        services: Vec::new(),
    };
    Inspector::new(Observer::new(about).shared(), node, Passages::default())
}

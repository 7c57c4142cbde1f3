//! The databases that this agent serves, kept up to date.
//!
//! **Owns** which databases are served, the values of their dynamic labels, and how PostgreSQL was when it was looked at last.
//! **Hears** nothing; it follows the policy for databases that are registered, runs commands and looks at PostgreSQL when their
//! time has come.
//! **Tells** whoever holds a `DatabasesView`, and auth with the node's report, by publishing; the sessions of a database that is
//! not served any more, or is defined anew, that they are over.
//! **Never** logs in to PostgreSQL, and never serves a database before each of its dynamic labels has been asked for once: a role
//! may deny by it.
//! **Ends** with the node. What it serves and knows of it is kept outside of its state: after a failure it looks and asks again, and
//! what is served stays so.

use super::health::{Health, Look};
use super::registered::{Chosen, choose};
use super::{Database, DatabasesStock, Offer, dynamic_labels};
use crate::actors::address::{Address, Origin};
use crate::actors::host::{Behavior, Ctx, spawn_here};
use crate::actors::policy::PolicyView;
use crate::actors::sessions::EndService;
use crate::config::DynamicLabel;
use crate::model::{Refusal, RefusalKind, ServiceName, SharedClock, Timestamp};
use crate::net::upstream;
use crate::net::upstream_tls::UpstreamClient;
use crate::pki::CertificateFacts;
use crate::policy::{DatabaseTlsMode, PolicySnapshot, ResourceMatcher};
use crate::protocol::tunnel::{DatabaseHealth, HealthState, NodeReport};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// The reference's timeout of a look.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// Looks and commands at the same time; the others wait for their turn.
const AT_ONCE: usize = 16;

/// A database as it is defined: its labels are the static ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub database: Database,
    pub dynamic_labels: Vec<DynamicLabel>,
    /// The agent renews the certificate that PostgreSQL presents, and says itself when it cannot.
    pub renews_certificate: bool,
}

pub struct KeeperParts {
    /// Of the configuration file.
    pub configured: Vec<Arc<Definition>>,
    /// Which registered databases are served in addition.
    pub matchers: Vec<ResourceMatcher>,
    /// Whom PostgreSQL's certificate must be of where a registered database does not say.
    pub db_authorities: Vec<CertificateDer<'static>>,
    pub policy: PolicyView,
    pub end_sessions: Address<EndService>,
    pub stock: DatabasesStock,
    pub report: Arc<watch::Sender<NodeReport>>,
    pub clock: SharedClock,
}

impl KeeperParts {
    /// Offers what needs no command to be known, before the actor runs.
    pub fn offer_at_once(&self) {
        let unknown = Health::unknown(self.clock.now());
        let plain = self
            .configured
            .iter()
            .filter(|definition| definition.dynamic_labels.is_empty());
        self.publish(plain.map(|definition| {
            let database = definition.database.clone();
            let health = unknown.record(&database.service);
            (database, health)
        }));
    }

    fn publish(&self, ready: impl Iterator<Item = (Database, DatabaseHealth)>) {
        let mut offer = Offer::default();
        let known = self.stock.view();
        for (database, health) in ready {
            // A definition that did not change stays the allocation that it was; whoever compares finds out quickly.
            let database = known
                .get(&database.service)
                .filter(|known| **known == database)
                .unwrap_or_else(|| Arc::new(database));
            offer.databases.insert(database.service.clone(), database);
            offer.health.push(health);
        }
        self.stock.publish(offer);
        let (databases, health) = (known.records(), known.health());
        self.report.send_if_modified(|report| {
            let is_new = report.databases != databases || report.health != health;
            report.databases = databases;
            report.health = health;
            is_new
        });
    }
}

/// A database that is served, or will be when its labels are known.
struct Served {
    definition: Arc<Definition>,
    /// Of this definition; what was begun for an earlier one is dropped.
    number: u64,
    health: Health,
    /// What each dynamic label's command printed last.
    printed: BTreeMap<String, String>,
    /// Those whose last run failed, and that has been logged.
    failing: Vec<String>,
}

impl Served {
    /// With all its labels; `None` while one is not known: without it a role that denies by it would deny nothing.
    fn database(&self) -> Option<Database> {
        let mut database = self.definition.database.clone();
        for label in &self.definition.dynamic_labels {
            let value = self.printed.get(&label.name)?;
            database.labels.0.insert(label.name.clone(), value.clone());
        }
        Some(database)
    }

    /// What a look has found. The answer is when to look again.
    fn looked(&mut self, look: Look, now: Timestamp) -> Duration {
        let service = &self.definition.database.service;
        if self.health.looked(look, now) {
            tell_of_change(service, &self.health);
        }
        if !self.definition.renews_certificate
            && let Some(until) = self.health.warn_of_end(now)
        {
            let host = &self.definition.database.trust.server_name;
            tracing::warn!(
                database = %service, %until,
                "the certificate of PostgreSQL ends soon; renew it with: postern ctl auth sign --format=db --host={host} \
                 --out=server, put the files in place and reload PostgreSQL"
            );
        }
        self.health.next_look()
    }

    fn label_printed(&mut self, name: &str, printed: Result<String, String>) {
        let service = &self.definition.database.service;
        match printed {
            Ok(value) => {
                self.failing.retain(|failing| failing != name);
                self.printed.insert(name.to_owned(), value);
            }
            Err(why) => {
                if !self.failing.iter().any(|failing| failing == name) {
                    match self.printed.get(name) {
                        Some(value) => {
                            tracing::warn!(database = %service, label = name, reason = why, value, "a dynamic label keeps its value");
                        }
                        None => tracing::error!(
                            database = %service, label = name, reason = why,
                            "the database is not served: a dynamic label has no value yet"
                        ),
                    }
                    self.failing.push(name.to_owned());
                }
            }
        }
    }
}

/// What is served, made once for each agent, outside of the actor.
#[derive(Clone, Default)]
pub struct ServedStock(Arc<Mutex<BTreeMap<ServiceName, Served>>>);

impl ServedStock {
    /// Locked by the one actor for the length of a turn.
    fn all(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Served>> {
        // Each use leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct DatabaseKeeper {
    parts: Arc<KeeperParts>,
    served: ServedStock,
    /// Registered databases that match and are not served, as far as that has been logged.
    passed_over: BTreeMap<ServiceName, String>,
    next_number: u64,
    at_once: Arc<Semaphore>,
}

impl DatabaseKeeper {
    pub fn new(parts: Arc<KeeperParts>, served: ServedStock) -> Self {
        Self {
            parts,
            served,
            passed_over: BTreeMap::new(),
            next_number: 1,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    fn serve(&mut self, definition: Arc<Definition>, ctx: &mut Ctx<'_, Self>) {
        let service = definition.database.service.clone();
        if definition.database.trust.mode == DatabaseTlsMode::Insecure {
            warn_of_insecure(&definition.database);
        }
        let served = Served {
            definition,
            number: 0,
            health: Health::unknown(self.parts.clock.now()),
            printed: BTreeMap::new(),
            failing: Vec::new(),
        };
        self.served.all().insert(service.clone(), served);
        self.follow(service, ctx);
    }

    /// Looks at a database and asks for its labels, from now on.
    fn follow(&mut self, service: ServiceName, ctx: &mut Ctx<'_, Self>) {
        let number = self.next_number;
        self.next_number += 1;
        let labels = match self.served.all().get_mut(&service) {
            Some(served) => {
                served.number = number;
                served.definition.dynamic_labels.clone()
            }
            None => return,
        };
        self.look(service.clone(), number, Duration::ZERO, ctx);
        for label in labels {
            self.ask_label(service.clone(), number, label, Duration::ZERO, ctx);
        }
    }

    fn follow_policy(&self, mut policy: PolicyView, ctx: &mut Ctx<'_, Self>) {
        ctx.run(
            async move { (policy.changed().await, policy) },
            |keeper, (news, policy), ctx| {
                if let Some(snapshot) = news {
                    keeper.reconcile(&snapshot, ctx);
                    keeper.follow_policy(policy, ctx);
                }
            },
        );
    }

    /// Serves the registered databases of this snapshot, and no other.
    fn reconcile(&mut self, snapshot: &PolicySnapshot, ctx: &mut Ctx<'_, Self>) {
        let parts = self.parts.clone();
        let configured = |name: &ServiceName| parts.configured.iter().any(|own| own.database.service == *name);
        let Chosen {
            definitions,
            passed_over,
        } = choose(
            snapshot.databases.values(),
            &parts.matchers,
            configured,
            &parts.db_authorities,
        );
        for (service, why) in &passed_over {
            if self.passed_over.get(service) != Some(why) {
                tracing::warn!(database = %service, reason = why, "a registered database is not served");
            }
        }
        self.passed_over = passed_over;
        let mut known = self.served.all();
        let gone: Vec<ServiceName> = known
            .iter()
            .filter(|(service, served)| !configured(service) && definitions.get(*service) != Some(&served.definition))
            .map(|(service, _)| service.clone())
            .collect();
        let new: Vec<Arc<Definition>> = definitions
            .into_iter()
            .filter(|(service, definition)| known.get(service).is_none_or(|served| served.definition != *definition))
            .map(|(_, definition)| definition)
            .collect();
        for service in &gone {
            tracing::info!(database = %service, "a registered database is not served any more as it was");
            known.remove(service);
        }
        drop(known);
        for definition in new {
            tracing::info!(database = %definition.database.service, address = %definition.database.endpoint, "a registered database is served");
            self.serve(definition, ctx);
        }
        // First nobody gets in any more, then those who are in have to leave.
        self.publish();
        for service in gone {
            let refusal = Refusal::new(
                RefusalKind::AccessRevoked,
                format!("this session is over: database service {service} was removed or defined anew"),
            )
            .hint("connect again; if that is refused, ask an administrator");
            let (end, origin) = (parts.end_sessions.clone(), ctx.origin());
            let told = async move { end.tell_when_room(&origin, EndService { service, refusal }).await };
            ctx.run(told, |_, told, _| {
                if let Err(error) = told {
                    tracing::error!(%error, "the sessions of a database were not told that they are over");
                }
            });
        }
    }

    /// The database, if it is still the one that something was begun for.
    fn with_served<T>(&self, service: &ServiceName, number: u64, work: impl FnOnce(&mut Served) -> T) -> Option<T> {
        let mut served = self.served.all();
        let still = served.get_mut(service).filter(|served| served.number == number);
        still.map(work)
    }

    fn ask_label(
        &self,
        service: ServiceName,
        number: u64,
        label: DynamicLabel,
        wait: Duration,
        ctx: &mut Ctx<'_, Self>,
    ) {
        let at_once = self.at_once.clone();
        let command = label.command.clone();
        // Tasks of their own, this and the look: a fault over one database is not one of the others.
        let printed = spawn_here(async move {
            tokio::time::sleep(wait).await;
            let _turn = at_once.acquire().await;
            dynamic_labels::value_of(&command).await
        });
        ctx.run(printed.join(), move |keeper, printed, ctx| {
            let printed = printed.unwrap_or_else(Err);
            let known = keeper.with_served(&service, number, |served| served.label_printed(&label.name, printed));
            if known.is_none() {
                return;
            }
            keeper.publish();
            let period = label.period;
            keeper.ask_label(service, number, label, period, ctx);
        });
    }

    fn look(&mut self, service: ServiceName, number: u64, wait: Duration, ctx: &mut Ctx<'_, Self>) {
        let Some(definition) = self.with_served(&service, number, |served| served.definition.clone()) else {
            return;
        };
        let (clock, at_once) = (self.parts.clock.clone(), self.at_once.clone());
        let origin = ctx.origin();
        let looked = spawn_here(async move {
            tokio::time::sleep(wait).await;
            let _turn = at_once.acquire().await;
            look_at(&definition.database, &clock, &origin).await
        });
        ctx.run(looked.join(), move |keeper, look, ctx| {
            let (look, now) = (look.unwrap_or_else(Err), keeper.parts.clock.now());
            let Some(wait) = keeper.with_served(&service, number, |served| served.looked(look, now)) else {
                return;
            };
            keeper.publish();
            keeper.look(service, number, wait, ctx);
        });
    }

    fn publish(&self) {
        let served = self.served.all();
        let ready = served.iter().filter_map(|(service, served)| {
            let database = served.database()?;
            Some((database, served.health.record(service)))
        });
        self.parts.publish(ready);
    }
}

fn tell_of_change(service: &ServiceName, health: &Health) {
    match health.state() {
        HealthState::Unhealthy => {
            tracing::warn!(database = %service, reason = health.detail(), "database is unhealthy")
        }
        HealthState::Healthy | HealthState::Unknown => tracing::info!(database = %service, "database is healthy"),
    }
}

/// Said at every start, so that nobody forgets it.
fn warn_of_insecure(database: &Database) {
    tracing::warn!(
        database = %database.service,
        "tls.mode: insecure: the certificate of PostgreSQL is not verified. Whoever can put a machine between this agent and \
         {} can pose as the database, read and change everything that people send and receive, and nobody sees it. Use \
         verify-full; postern ctl auth sign --format=db makes a certificate that it accepts",
        database.endpoint
    );
}

async fn look_at(database: &Database, clock: &SharedClock, origin: &Origin) -> Look {
    let peer: Arc<str> = format!("PostgreSQL at {}", database.endpoint).into();
    let waits = |step, _| origin.waits_for(step, peer.clone(), LOOK_DEADLINE);
    let client = UpstreamClient::anonymous(&database.trust, clock).map_err(|error| error.to_string())?;
    match upstream::probe(&database.endpoint, &client, LOOK_DEADLINE, &waits).await {
        Ok(certificate) => Ok(certificate.and_then(|der| Some(CertificateFacts::read(&der).ok()?.valid_until))),
        Err(error) => Err(error.sentence(&database.endpoint, &database.trust.server_name)),
    }
}

impl Behavior for DatabaseKeeper {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        let known: Vec<ServiceName> = self.served.all().keys().cloned().collect();
        let is_new = |definition: &&Arc<Definition>| !known.contains(&definition.database.service);
        let new: Vec<_> = self.parts.configured.iter().filter(is_new).cloned().collect();
        for service in known {
            self.follow(service, ctx);
        }
        for definition in new {
            self.serve(definition, ctx);
        }
        self.publish();
        if !self.parts.matchers.is_empty() {
            let policy = self.parts.policy.clone();
            if let Some(snapshot) = policy.newest() {
                self.reconcile(&snapshot, ctx);
            }
            self.follow_policy(policy, ctx);
        }
    }
}

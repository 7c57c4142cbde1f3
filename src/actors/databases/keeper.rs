//! The databases that this agent serves, kept up to date.
//!
//! **Owns** which databases are served, the values of their dynamic labels, and how PostgreSQL was when it was looked at last.
//! **Hears** nothing; it runs commands and looks at PostgreSQL when their time has come.
//! **Tells** whoever holds a `DatabasesView`, and auth with the node's report, by publishing.
//! **Never** logs in to PostgreSQL, and never serves a database before each of its dynamic labels has been asked for once: a role
//! may deny by it.
//! **Ends** with the node. After a failure it begins anew; what it published stays until then.

use super::health::{Health, Look};
use super::{Database, DatabasesStock, Offer, dynamic_labels};
use crate::actors::host::{Behavior, Ctx};
use crate::config::DynamicLabel;
use crate::model::{ServiceName, SharedClock};
use crate::net::upstream;
use crate::net::upstream_tls::UpstreamClient;
use crate::pki::valid_until;
use crate::protocol::tunnel::{DatabaseHealth, HealthState, NodeReport};
use std::collections::BTreeMap;
use std::sync::Arc;
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
}

pub struct KeeperParts {
    /// Of the configuration file.
    pub configured: Vec<Arc<Definition>>,
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
    /// What each dynamic label's command printed last; `None` while it has only failed.
    printed: BTreeMap<String, Option<String>>,
    /// Those whose last run failed, and that has been logged.
    failing: Vec<String>,
}

impl Served {
    /// With all its labels; `None` while one has never been asked for.
    fn database(&self) -> Option<Database> {
        let mut database = self.definition.database.clone();
        for label in &self.definition.dynamic_labels {
            if let Some(value) = self.printed.get(&label.name)? {
                database.labels.0.insert(label.name.clone(), value.clone());
            }
        }
        Some(database)
    }

    fn label_printed(&mut self, name: &str, printed: Result<String, String>) {
        let service = &self.definition.database.service;
        match printed {
            Ok(value) => {
                self.failing.retain(|failing| failing != name);
                self.printed.insert(name.to_owned(), Some(value));
            }
            Err(why) => {
                if !self.failing.iter().any(|failing| failing == name) {
                    tracing::warn!(database = %service, label = name, why, "a dynamic label keeps the value that it had");
                    self.failing.push(name.to_owned());
                }
                self.printed.entry(name.to_owned()).or_insert(None);
            }
        }
    }
}

pub struct DatabaseKeeper {
    parts: Arc<KeeperParts>,
    served: BTreeMap<ServiceName, Served>,
    next_number: u64,
    at_once: Arc<Semaphore>,
}

impl DatabaseKeeper {
    pub fn new(parts: Arc<KeeperParts>) -> Self {
        Self {
            parts,
            served: BTreeMap::new(),
            next_number: 1,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    fn serve(&mut self, definition: Arc<Definition>, ctx: &mut Ctx<'_, Self>) {
        let service = definition.database.service.clone();
        let number = self.next_number;
        self.next_number += 1;
        let labels = definition.dynamic_labels.clone();
        let served = Served {
            definition,
            number,
            health: Health::unknown(self.parts.clock.now()),
            printed: BTreeMap::new(),
            failing: Vec::new(),
        };
        self.served.insert(service.clone(), served);
        self.look(service.clone(), number, Duration::ZERO, ctx);
        for label in labels {
            self.ask_label(service.clone(), number, label, Duration::ZERO, ctx);
        }
    }

    /// The database, if it is still the one that something was begun for.
    fn still(&mut self, service: &ServiceName, number: u64) -> Option<&mut Served> {
        self.served.get_mut(service).filter(|served| served.number == number)
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
        let printed = async move {
            tokio::time::sleep(wait).await;
            let _turn = at_once.acquire().await;
            (dynamic_labels::value_of(&label.command).await, label)
        };
        ctx.run(printed, move |keeper, (printed, label), ctx| {
            let Some(served) = keeper.still(&service, number) else {
                return;
            };
            served.label_printed(&label.name, printed);
            keeper.publish();
            let period = label.period;
            keeper.ask_label(service, number, label, period, ctx);
        });
    }

    fn look(&mut self, service: ServiceName, number: u64, wait: Duration, ctx: &mut Ctx<'_, Self>) {
        let Some(served) = self.still(&service, number) else {
            return;
        };
        let (definition, clock, at_once) = (
            served.definition.clone(),
            self.parts.clock.clone(),
            self.at_once.clone(),
        );
        let looked = async move {
            tokio::time::sleep(wait).await;
            let _turn = at_once.acquire().await;
            look_at(&definition.database, &clock).await
        };
        ctx.run(looked, move |keeper, look, ctx| {
            let now = keeper.parts.clock.now();
            let Some(served) = keeper.still(&service, number) else {
                return;
            };
            if served.health.looked(look, now) {
                tell_of_change(&service, &served.health);
            }
            if let Some(until) = served.health.warn_of_end(now) {
                let host = &served.definition.database.trust.server_name;
                tracing::warn!(
                    database = %service, %until,
                    "the certificate of PostgreSQL ends soon; renew it with: postern ctl auth sign --format=db --host={host} \
                     --out=server, put the files in place and reload PostgreSQL"
                );
            }
            let wait = served.health.next_look();
            keeper.publish();
            keeper.look(service, number, wait, ctx);
        });
    }

    fn publish(&self) {
        let ready = self.served.iter().filter_map(|(service, served)| {
            let database = served.database()?;
            Some((database, served.health.record(service)))
        });
        self.parts.publish(ready);
    }
}

fn tell_of_change(service: &ServiceName, health: &Health) {
    match health.state() {
        HealthState::Unhealthy => tracing::warn!(database = %service, why = health.detail(), "database is unhealthy"),
        HealthState::Healthy | HealthState::Unknown => tracing::info!(database = %service, "database is healthy"),
    }
}

async fn look_at(database: &Database, clock: &SharedClock) -> Look {
    let client = UpstreamClient::anonymous(&database.trust, clock).map_err(|error| error.to_string())?;
    match upstream::probe(&database.endpoint, &client, LOOK_DEADLINE).await {
        Ok(certificate) => Ok(certificate.and_then(|der| valid_until(&der).ok())),
        Err(error) => Err(error.sentence(&database.endpoint, &database.trust.server_name)),
    }
}

impl Behavior for DatabaseKeeper {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        for definition in self.parts.configured.clone() {
            self.serve(definition, ctx);
        }
        self.publish();
    }
}

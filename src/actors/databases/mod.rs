//! The databases that this agent serves, published for whoever needs them now.
//!
//! The stock outlives every actor; a view always has the newest set, and can wait for the next. [`keeper`] is the actor that
//! keeps it up to date.

mod command;
mod dynamic_labels;
mod health;
pub mod keeper;
mod registered;
pub mod server_certificates;
pub mod server_files;

use crate::model::{Endpoint, Labels, ServiceName};
use crate::net::upstream_tls::UpstreamTrust;
use crate::protocol::tunnel::{DatabaseHealth, DatabaseRecord};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// A database that this agent may dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub service: ServiceName,
    pub description: String,
    pub labels: Labels,
    pub endpoint: Endpoint,
    pub trust: Arc<UpstreamTrust>,
}

impl Database {
    /// The names that PostgreSQL's certificate may have: what it is verified as, and where it is dialled.
    pub fn hosts(&self) -> Vec<String> {
        let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
        let mut hosts = vec![bare(&self.endpoint.host), bare(&self.trust.server_name)];
        hosts.dedup();
        hosts
    }

    pub fn record(&self) -> DatabaseRecord {
        DatabaseRecord {
            service: self.service.clone(),
            description: self.description.clone(),
            labels: self.labels.clone(),
            uri: self.endpoint.to_string(),
            hosts: self.hosts(),
        }
    }
}

/// All databases of an agent. A connection keeps the definition that it began with.
pub type Databases = BTreeMap<ServiceName, Arc<Database>>;

/// What an agent offers: its databases, and how they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    pub databases: Databases,
    /// By service, of those that are served.
    pub health: Vec<DatabaseHealth>,
}

#[derive(Debug, Clone)]
pub struct DatabasesStock(Arc<watch::Sender<Arc<Offer>>>);

impl Default for DatabasesStock {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::default())))
    }
}

impl DatabasesStock {
    pub fn view(&self) -> DatabasesView {
        DatabasesView(self.0.subscribe())
    }

    /// Whoever watches is woken only when something is new.
    pub(super) fn publish(&self, offer: Offer) {
        self.0.send_if_modified(|known| {
            let is_new = **known != offer;
            if is_new {
                *known = Arc::new(offer);
            }
            is_new
        });
    }
}

#[derive(Debug, Clone)]
pub struct DatabasesView(watch::Receiver<Arc<Offer>>);

impl DatabasesView {
    pub fn get(&self, service: &ServiceName) -> Option<Arc<Database>> {
        self.0.borrow().databases.get(service).cloned()
    }

    /// What the rest of the cluster may know of them.
    pub fn records(&self) -> Vec<DatabaseRecord> {
        let offer = self.0.borrow();
        offer.databases.values().map(|database| database.record()).collect()
    }

    pub fn health(&self) -> Vec<DatabaseHealth> {
        self.0.borrow().health.clone()
    }

    /// Waits for an offer that this view has not seen. False when there will be none any more.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

//! The databases that this agent serves, published for whoever needs them now.
//!
//! The stock outlives every actor; a view always has the newest set, and can wait for the next.

use crate::model::{Endpoint, Labels, ServiceName};
use crate::protocol::tunnel::DatabaseRecord;
use rustls_pki_types::CertificateDer;
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
    /// The name that PostgreSQL's certificate must have.
    pub server_name: String,
    /// Whom PostgreSQL's certificate must be of.
    pub trusted: Vec<CertificateDer<'static>>,
}

impl Database {
    pub fn record(&self) -> DatabaseRecord {
        DatabaseRecord {
            service: self.service.clone(),
            description: self.description.clone(),
            labels: self.labels.clone(),
            uri: self.endpoint.to_string(),
        }
    }
}

/// All databases of an agent. A connection keeps the set that it began with.
pub type Databases = BTreeMap<ServiceName, Arc<Database>>;

#[derive(Debug, Clone)]
pub struct DatabasesStock(Arc<watch::Sender<Arc<Databases>>>);

impl DatabasesStock {
    pub fn new(databases: Databases) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(databases))))
    }

    pub fn view(&self) -> DatabasesView {
        DatabasesView(self.0.subscribe())
    }
}

#[derive(Debug, Clone)]
pub struct DatabasesView(watch::Receiver<Arc<Databases>>);

impl DatabasesView {
    pub fn get(&self, service: &ServiceName) -> Option<Arc<Database>> {
        self.0.borrow().get(service).cloned()
    }

    /// What the rest of the cluster may know of them.
    pub fn records(&self) -> Vec<DatabaseRecord> {
        self.0.borrow().values().map(|database| database.record()).collect()
    }

    /// Waits for a set that this view has not seen. False when there will be none any more.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

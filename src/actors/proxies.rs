//! The proxies of the cluster, as this node has last heard from auth.

use crate::protocol::tunnel::ProxyRecord;
use std::sync::Arc;
use tokio::sync::watch;

/// Written by whoever hears auth; it outlives every actor.
#[derive(Debug, Clone, Default)]
pub struct ProxiesStock(Arc<watch::Sender<Vec<ProxyRecord>>>);

impl ProxiesStock {
    pub fn view(&self) -> ProxiesView {
        ProxiesView(self.0.subscribe())
    }

    /// Readers hear of it only where something is different.
    pub fn heard(&self, proxies: Vec<ProxyRecord>) {
        self.0.send_if_modified(|known| {
            let news = *known != proxies;
            *known = proxies;
            news
        });
    }
}

#[derive(Debug, Clone)]
pub struct ProxiesView(watch::Receiver<Vec<ProxyRecord>>);

impl ProxiesView {
    pub fn known(&self) -> Vec<ProxyRecord> {
        self.0.borrow().clone()
    }

    /// Waits for a list that this view has not seen. False when there will be none any more.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

//! The debug socket of a node: there before anything else, and gone after everything else.

use super::data_dir::DataDir;
use super::facts::FactSources;
use crate::actors::address::Origin;
use crate::actors::inspector::Inspector;
use crate::config::Config;
use crate::model::NodeId;
use crate::telemetry::observe::{About, Observer, SharedObserver, Watch};
use crate::web::debug::{AskOthers, DebugParts, DebugService, nobody};
use std::sync::Arc;
use tokio::sync::watch;

/// Asks the processes that a connection of this one goes on in.
pub(crate) fn others_of(inspector: Inspector) -> AskOthers {
    Arc::new(move |connection| {
        let inspector = inspector.clone();
        Box::pin(async move {
            let origin = Origin::outside("debug").for_connection(connection);
            let (parts, missing) = inspector.parts_of_others(connection, &origin).await;
            parts.into_iter().map(Ok).chain(missing.into_iter().map(Err)).collect()
        })
    })
}

/// The service, and what it is told when it is known.
pub(crate) struct Debug {
    /// `None` where the socket could not be bound.
    _service: Option<DebugService>,
    /// The look of each second is the service's; this one's where there is none.
    _watch: Option<Watch>,
    observer: SharedObserver,
    others: watch::Sender<AskOthers>,
}

impl Debug {
    /// A node that cannot be looked into does its work all the same, so that a failure is only logged.
    pub fn start(config: &Config, data_dir: &DataDir) -> Self {
        let observer = Observer::new(About {
            node: config.nodename.to_string(),
            node_id: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            services: config.services().iter().map(ToString::to_string).collect(),
        })
        .shared();
        let (others, ask_others) = watch::channel(nobody());
        let parts = DebugParts {
            observer: observer.clone(),
            others: ask_others,
        };
        let path = data_dir.debug_socket();
        let service = DebugService::start(&path, parts)
            .inspect_err(|error| {
                tracing::error!(
                    path = %path.display(), %error,
                    "there is no debug socket: this node cannot be looked into; what is stuck is in its log and metrics all the same"
                );
            })
            .ok();
        let watch = match &service {
            Some(_) => None,
            None => observer
                .watch()
                .inspect_err(|error| tracing::error!(%error, "nobody looks at what is stuck"))
                .ok(),
        };
        Self {
            _service: service,
            _watch: watch,
            observer,
            others,
        }
    }

    pub fn knows_who_it_is(&self, node: NodeId) {
        self.observer.observer().is_node(node.to_string());
    }

    pub fn knows(&self, sources: Arc<FactSources>) {
        self.observer.observer().knows(move || sources.facts());
    }

    pub fn observer(&self) -> SharedObserver {
        self.observer.clone()
    }

    pub fn asks_others(&self, others: AskOthers) {
        self.others.send_replace(others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Moment;
    use crate::telemetry::label::Label;
    use crate::telemetry::registry::Seat;
    use crate::telemetry::stuck::StuckRule;
    use std::time::Duration;

    #[test]
    fn what_is_stuck_is_counted_and_logged_also_where_the_debug_socket_cannot_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = DataDir::open(directory.path()).expect("ours");
        // What is in its place is no socket that an earlier process left.
        std::fs::create_dir_all(data_dir.debug_socket().join("occupied")).expect("ours");
        let config = Config::parse("auth_service: {enabled: yes}", "debug-tests").expect("a configuration");
        let debug = Debug::start(&config, &data_dir);
        assert!(debug._service.is_none(), "the place is taken");
        let thread = Seat::of_thread("store-of-debug-tests", 8);
        thread.takes(Label::of("write"), None, Moment::now());
        let began = || {
            let counts = debug.observer().observer().counts().into_iter();
            let slow = counts.filter(|(rule, _)| *rule == StuckRule::StoreSlow);
            slow.map(|(_, count)| count.began).sum::<u64>()
        };
        let deadline = Moment::now();
        while began() == 0 {
            assert!(Moment::now().since(deadline) < Duration::from_secs(30), "nobody looks");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

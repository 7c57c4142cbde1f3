//! What the cluster is made of: its authorities, nodes and databases, as auth knows them at this moment.

use super::api::{
    Authorities, Authority, AuthorityStatus, DatabaseStatus, HealthStatus, HealthWord, NodeStatus, Status,
};
use super::routes::{Answer, Api, Failed, bad, pins};
use crate::actors::inventory::NodeRecord;
use crate::pki::pem::certificates_to_pem;
use crate::pki::{CaKind, CaPin, summary};
use crate::policy::{ResourceKind, Verb};
use crate::protocol::tunnel::{DatabaseHealth, HealthState};
use axum::Json;
use axum::extract::State;

/// No authority can be rotated yet, so that this is true of each.
const NEVER_ROTATED: &str = "never updated";

/// Whoever is signed in reads what the cluster is; its nodes and databases are for those who may list them.
pub(super) async fn status(State(api): State<Api>) -> Answer<Status> {
    let authorities = all_authorities(&api)?;
    let sees = |kind| api.permit(kind, Verb::List).is_ok();
    let (sees_nodes, sees_databases) = (sees(ResourceKind::Node), sees(ResourceKind::DbServer));
    let mut nodes: Vec<NodeStatus> = api.parts.inventory.nodes().into_iter().map(node_status).collect();
    nodes.retain(|_| sees_nodes);
    if !sees_databases {
        nodes.iter_mut().for_each(|node| node.databases.clear());
    }
    Ok(Json(Status {
        cluster: api.parts.cluster.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ca_pins: pins(&api)?,
        policy_version: api.parts.published.borrow().as_ref().map(|snapshot| snapshot.version),
        time: api.parts.clock.now().to_string(),
        authorities: authorities.into_iter().map(|authority| authority.status).collect(),
        nodes,
    }))
}

pub(super) async fn authorities(State(api): State<Api>) -> Answer<Authorities> {
    api.permit(ResourceKind::CertAuthority, Verb::ReadNoSecrets)?;
    let authorities = all_authorities(&api)?;
    Ok(Json(Authorities { authorities }))
}

/// The certificates only: a key never leaves auth.
pub(super) fn all_authorities(api: &Api) -> Result<Vec<Authority>, Failed> {
    let mut found = Vec::new();
    for kind in CaKind::ALL {
        for certificate in api.parts.anchors.of(kind) {
            let read = summary(certificate).map_err(bad)?;
            found.push(Authority {
                status: AuthorityStatus {
                    authority: kind.to_string(),
                    rotation: NEVER_ROTATED.to_owned(),
                    algorithm: read.algorithm,
                    valid_until: read.not_after.to_string(),
                },
                serial: read.serial,
                fingerprint: CaPin::of(certificate).map_err(bad)?.to_string(),
                certificate: certificates_to_pem(std::slice::from_ref(certificate)).map_err(bad)?,
            });
        }
    }
    Ok(found)
}

pub(super) fn node_status(record: NodeRecord) -> NodeStatus {
    let report = record.report;
    NodeStatus {
        id: record.node.to_string(),
        name: record.name.to_string(),
        kinds: record.kinds.iter().map(ToString::to_string).collect(),
        version: report.version,
        addresses: report.proxy_addresses.iter().map(ToString::to_string).collect(),
        databases: report
            .databases
            .into_iter()
            .map(|database| DatabaseStatus {
                health: health(report.health.iter().find(|health| health.service == database.service)),
                name: database.service.to_string(),
                description: database.description,
                labels: database.labels.0,
                uri: database.uri,
            })
            .collect(),
    }
}

fn health(reported: Option<&DatabaseHealth>) -> HealthStatus {
    reported.map_or_else(HealthStatus::default, |health| HealthStatus {
        state: match health.state {
            HealthState::Unknown => HealthWord::Unknown,
            HealthState::Healthy => HealthWord::Healthy,
            HealthState::Unhealthy => HealthWord::Unhealthy,
        },
        since: Some(health.since.to_string()),
        detail: health.detail.clone(),
        certificate_until: health.certificate_until.map(|until| until.to_string()),
    })
}

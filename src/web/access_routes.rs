//! The administrator's API for locks and for the question who may do what, and why.

use super::access_api::{AddLock, ExplainQuery, ExplainedAgent, Explanations, LockAdded, LockOn};
use super::routes::{ASK_DEADLINE, Answer, Api, Failed, bad};
use crate::actors::inventory::NodeRecord;
use crate::actors::rbac::PutResource;
use crate::model::{
    ClusterName, DbUser, Labels, LockName, PersonName, Principal, RoleName, ServiceName, Timestamp, Traits,
};
use crate::pki::entropy;
use crate::policy::{AccessRequest, Lock, LockTarget, Resource, ResourceKind, Verb, effective_db_name, explain};
use axum::Json;
use axum::extract::{Query as UrlQuery, State};
use axum::http::StatusCode;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// The certificate that an explanation supposes is valid at the moment of the question.
const SUPPOSED_LIFE: Duration = Duration::from_secs(60);

pub(super) async fn add_lock(State(api): State<Api>, Json(ask): Json<AddLock>) -> Answer<LockAdded> {
    api.permit(ResourceKind::Lock, Verb::Create)?;
    let now = api.parts.clock.now();
    let name = uuid::Builder::from_random_bytes(entropy::bytes())
        .into_uuid()
        .to_string();
    let mut lock = Lock::new(LockName::new(name.as_str()).map_err(bad)?, target(ask.target)?);
    lock.message = ask.message.filter(|message| !message.is_empty());
    lock.expires = expires(now, ask.ttl_secs, ask.expires.as_deref())?;
    lock.created_at = Some(now);
    lock.created_by = Some(api.caller.name());
    // Read back: what the rules of documents do not take is refused with its place.
    let resource = Resource::from_json(&Resource::Lock(lock).to_json()).map_err(bad)?;
    let message = PutResource {
        resource,
        replace: false,
        instead_of: None,
        by: api.caller.name(),
    };
    api.parts.put.ask(&api.origin(), message, ASK_DEADLINE).await??;
    Ok(Json(LockAdded { name }))
}

fn target(on: LockOn) -> Result<LockTarget, Failed> {
    Ok(match on {
        LockOn::User(name) => LockTarget::User(PersonName::new(name).map_err(bad)?),
        LockOn::Role(name) => LockTarget::Role(RoleName::new(name).map_err(bad)?),
        LockOn::Node(name) => LockTarget::node(&name).map_err(bad)?,
    })
}

fn expires(now: Timestamp, ttl_secs: Option<u64>, expires: Option<&str>) -> Result<Option<Timestamp>, Failed> {
    match (ttl_secs, expires) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(bad("use only one of --expires and --ttl")),
        (Some(ttl), None) => Ok(Some(now + Duration::from_secs(ttl))),
        (None, Some(text)) => {
            let at = Timestamp::parse_rfc3339(text);
            let at = at.ok_or_else(|| bad(format!("{text:?} is not a time; write RFC 3339: 2026-01-31T12:00:00Z")))?;
            match at > now {
                true => Ok(Some(at)),
                false => Err(bad(format!(
                    "the lock would expire at {at}, which is over; it is {now}"
                ))),
            }
        }
    }
}

pub(super) async fn explain_access(
    State(api): State<Api>,
    UrlQuery(ask): UrlQuery<ExplainQuery>,
) -> Answer<Explanations> {
    // It tells of one person and of all of their roles.
    api.permit(ResourceKind::User, Verb::Read)?;
    api.permit(ResourceKind::Role, Verb::Read)?;
    let person = PersonName::new(ask.user).map_err(bad)?;
    let service = ServiceName::new(ask.db).map_err(bad)?;
    let db_user = DbUser::new(ask.db_user).map_err(bad)?;
    let db_name = effective_db_name(ask.db_name.as_deref(), &db_user, ask.replication).map_err(bad)?;
    let (snapshot, now) = (api.snapshot()?, api.parts.clock.now());
    if !snapshot.users.contains_key(&person) {
        let why = format!(
            "there is no user called {:?}; to see those that there are: ctl users ls",
            person.as_str()
        );
        return Err(Failed(StatusCode::NOT_FOUND, why));
    }
    let principal = Arc::new(supposed(person, api.parts.cluster.clone(), now));
    let mut agents = Vec::new();
    for (record, labels) in serving(api.parts.inventory.nodes(), &service)? {
        let request = AccessRequest {
            principal: principal.clone(),
            service: service.clone(),
            labels,
            db_user: db_user.clone(),
            db_name: db_name.clone(),
            replication: ask.replication,
            nodes: vec![(record.node, record.name.clone())],
            client_ip: None,
        };
        let explanation = explain(&snapshot, &request, now);
        agents.push(ExplainedAgent {
            agent: record.name.to_string(),
            allowed: explanation.allowed,
            text: explanation.to_string(),
            explanation: serde_json::to_value(&explanation).map_err(bad)?,
        });
    }
    Ok(Json(Explanations { agents }))
}

/// Somebody with a certificate that is valid, for any service, and pinned to the address that it is used from.
fn supposed(name: PersonName, cluster: ClusterName, now: Timestamp) -> Principal {
    Principal {
        name,
        cluster,
        roles: Vec::new(),
        traits: Traits::new(),
        mfa: true,
        valid_until: now + SUPPOSED_LIFE,
        route: None,
        pinned_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    }
}

/// The agents that serve the database, each with its labels.
fn serving(nodes: Vec<NodeRecord>, service: &ServiceName) -> Result<Vec<(NodeRecord, Labels)>, Failed> {
    let mut there: Vec<ServiceName> = Vec::new();
    let mut serving = Vec::new();
    for record in nodes {
        there.extend(record.report.databases.iter().map(|database| database.service.clone()));
        let databases = &mut record.report.databases.iter();
        if let Some(database) = databases.find(|database| database.service == *service) {
            let labels = database.labels.clone();
            serving.push((record, labels));
        }
    }
    if !serving.is_empty() {
        return Ok(serving);
    }
    there.sort();
    there.dedup();
    let there: Vec<&str> = there.iter().map(ServiceName::as_str).collect();
    let which = match there.is_empty() {
        true => "no agent serves any".to_owned(),
        false => format!("those that are served: {}", there.join(", ")),
    };
    let why = format!(
        "no agent serves database {:?} now, so its labels are not known; {which}",
        service.as_str()
    );
    Err(Failed(StatusCode::NOT_FOUND, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn a_lock_ends_after_its_ttl_or_at_its_time_or_never() {
        let end = |ttl, at: Option<&str>| expires(NOW, ttl, at).map_err(|Failed(_, why)| why);
        assert_eq!(end(None, None), Ok(None));
        assert_eq!(end(Some(60), None), Ok(Some(NOW + Duration::from_secs(60))));
        let later = NOW + Duration::from_secs(3600);
        assert_eq!(end(None, Some(&later.to_string())), Ok(Some(later)));
        assert_eq!(
            end(Some(60), Some("2030-01-01T00:00:00Z")),
            Err("use only one of --expires and --ttl".to_owned())
        );
        assert!(end(None, Some("tomorrow")).unwrap_err().contains("RFC 3339"));
        assert!(end(None, Some(&NOW.to_string())).unwrap_err().contains("is over"));
    }
}

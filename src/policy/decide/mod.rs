//! The decision: may this person use this database user and name at this service, now?
//!
//! In this order: no lock is in force, the person exists, the certificate is valid, not bound to another service and used from
//! where it may be, no role denies, one role allows. Roles and traits are those of the current record, by name; what the
//! certificate says of them is not looked at.

#[cfg(test)]
mod cases;
mod denial;
mod explain;
#[cfg(test)]
mod locked_tests;
mod matching;
#[cfg(test)]
mod oracle;
mod permit;
#[cfg(test)]
mod tests;
mod visible;

pub use denial::{DENIED_HINT, DENIED_MESSAGE, Denial, NotAllowed, PINNED_IP_MESSAGE, REPLICATION_HINT, Shortfall};
pub use explain::{
    ExplainedCondition, ExplainedLock, ExplainedOption, ExplainedRole, Explanation, RoleVerdict, explain,
};
pub use permit::Permit;
pub use visible::{Visible, visible};

use super::options::SessionOptions;
use super::snapshot::PolicySnapshot;
use super::user::UserRecord;
use crate::model::{
    DbName, DbUser, Labels, NameError, NodeId, NodeName, Principal, Replication, ServiceName, Timestamp,
};
use matching::{denying_rule, misses};
use std::net::IpAddr;
use std::sync::Arc;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct AccessRequest {
    pub principal: Arc<Principal>,
    pub service: ServiceName,
    /// The labels of the service.
    pub labels: Labels,
    pub db_user: DbUser,
    /// The effective name; see `effective_db_name`.
    pub db_name: DbName,
    /// A replication connection, which a role has to allow by itself.
    pub replication: Option<Replication>,
    /// The proxy and the agent that the session goes through, so far as whoever decides knows them: a lock may be on them.
    pub nodes: Vec<(NodeId, NodeName)>,
    /// Where the client connects from. `None` where whoever decides cannot see it: then a pinned certificate is not compared
    /// with it, because the node in front of the client has done so.
    pub client_ip: Option<IpAddr>,
}

/// What a physical replication connection has in place of a database, of which it is in none: PostgreSQL passes over the name
/// that it is given, and pg_hba.conf asks for this one.
pub const PHYSICAL_REPLICATION_NAME: &str = "replication";

/// The database that a session will be in: as PostgreSQL does, an absent or empty name is the user's (libpq, `dbname`).
///
/// It is computed before the decision, so that what is decided on is what is used.
pub fn effective_db_name(
    requested: Option<&str>,
    user: &DbUser,
    replication: Option<Replication>,
) -> Result<DbName, NameError> {
    match (replication, requested) {
        (Some(Replication::Physical), _) => DbName::new(PHYSICAL_REPLICATION_NAME),
        (_, Some(name)) if !name.is_empty() => DbName::new(name),
        _ => DbName::new(user.as_str()),
    }
}

/// Decides. A certificate is expired from the moment it names on.
///
/// # Errors
/// The denial, with the role and the rule.
pub fn decide(snapshot: &PolicySnapshot, request: &AccessRequest, now: Timestamp) -> Result<Permit, Denial> {
    let person = &request.principal.name;
    let user = snapshot.users.get(person);
    let roles = user.map(|user| user.roles.as_slice()).unwrap_or_default();
    if let Some(lock) = snapshot.lock_in_force(person, roles, &request.nodes, now) {
        return Err(Denial::Locked(Box::new(lock.clone())));
    }
    let Some(user) = user else {
        let person = person.clone();
        return Err(Denial::UnknownPerson { person });
    };
    let options = snapshot.options_of(person);
    check_certificate(request, &options, now)?;
    for role in snapshot.roles_of(user) {
        if let Some(rule) = denying_rule(role, request, &user.traits) {
            let role = role.name.clone();
            let replication = request.replication;
            return Err(Denial::DeniedByRole {
                role,
                rule,
                replication,
            });
        }
    }
    let allowing = snapshot
        .roles_of(user)
        .find(|role| misses(role, request, &user.traits).next().is_none());
    match allowing {
        Some(role) => Ok(Permit::issue(request, snapshot.version, role.name.clone(), options)),
        None => Err(not_allowed(snapshot, user, request)),
    }
}

/// Whether the certificate is good for this request at all.
fn check_certificate(request: &AccessRequest, options: &SessionOptions, now: Timestamp) -> Result<(), Denial> {
    let principal = &request.principal;
    let person = || principal.name.clone();
    if now >= principal.valid_until {
        let until = principal.valid_until;
        return Err(Denial::Expired {
            person: person(),
            until,
        });
    }
    let bound = principal.route.as_ref().map(|route| &route.service);
    if let Some(bound) = bound.filter(|bound| **bound != request.service) {
        return Err(Denial::OtherService {
            person: person(),
            bound: bound.clone(),
            requested: request.service.clone(),
        });
    }
    if options.pin_source_ip && !is_pinned_to(principal.pinned_ip, request.client_ip) {
        return Err(Denial::PinnedIp {
            person: person(),
            pinned: principal.pinned_ip,
            observed: request.client_ip,
        });
    }
    Ok(())
}

/// An IPv4 address is the same one when a socket of both families shows it as IPv6.
fn is_pinned_to(pinned: Option<IpAddr>, observed: Option<IpAddr>) -> bool {
    match (pinned, observed) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(pinned), Some(observed)) => pinned.to_canonical() == observed.to_canonical(),
    }
}

/// Asks every role again, for the reasons. Only a request that is refused pays for it.
fn not_allowed(snapshot: &PolicySnapshot, user: &UserRecord, request: &AccessRequest) -> Denial {
    let mut considered: Vec<_> = snapshot
        .roles_of(user)
        .map(|role| Shortfall {
            role: role.name.clone(),
            misses: misses(role, request, &user.traits)
                .map(|(asked, field)| asked.reason(field))
                .collect(),
        })
        .collect();
    // Stable: of roles that are equally near, the first in the person's order is named.
    considered.sort_by_key(|shortfall| shortfall.misses.len());
    let missing = user
        .roles
        .iter()
        .filter(|name| !snapshot.roles.contains_key(*name))
        .cloned()
        .collect();
    Denial::NotAllowed(Box::new(NotAllowed {
        person: request.principal.name.clone(),
        service: request.service.clone(),
        db_user: request.db_user.clone(),
        db_name: request.db_name.clone(),
        replication: request.replication,
        considered,
        missing,
    }))
}

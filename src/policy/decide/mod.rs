//! The decision: may this person use this database user and name at this service, now?
//!
//! In this order: the person exists, the certificate is valid and not bound to another service, no role denies, one role
//! allows. Roles and traits are those of the current record, by name; what the certificate says of them is not looked at.

#[cfg(test)]
mod cases;
mod denial;
#[cfg(test)]
mod oracle;
mod permit;
#[cfg(test)]
mod tests;

pub use denial::{DENIED_HINT, DENIED_MESSAGE, Denial, NotAllowed, Shortfall};
pub use permit::Permit;

use super::matchers::{LabelMismatch, LabelSelector, NamePatterns, Section};
use super::role::Role;
use super::snapshot::PolicySnapshot;
use super::user::UserRecord;
use crate::model::{DbName, DbUser, Labels, NameError, Principal, ServiceName, Timestamp, Traits};
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
}

/// The database that a session will be in: as PostgreSQL does, an absent or empty name is the user's (libpq, `dbname`).
///
/// It is computed before the decision, so that what is decided on is what is used.
pub fn effective_db_name(requested: Option<&str>, user: &DbUser) -> Result<DbName, NameError> {
    match requested {
        Some(name) if !name.is_empty() => DbName::new(name),
        _ => DbName::new(user.as_str()),
    }
}

/// Decides. A certificate is expired from the moment it names on.
///
/// # Errors
/// The denial, with the role and the rule.
pub fn decide(snapshot: &PolicySnapshot, request: &AccessRequest, now: Timestamp) -> Result<Permit, Denial> {
    let principal = &request.principal;
    let Some(user) = snapshot.users.get(&principal.name) else {
        return Err(Denial::UnknownPerson {
            person: principal.name.clone(),
        });
    };
    if now >= principal.valid_until {
        return Err(Denial::Expired {
            person: principal.name.clone(),
            until: principal.valid_until,
        });
    }
    if let Some(route) = principal
        .route
        .as_ref()
        .filter(|route| route.service != request.service)
    {
        return Err(Denial::OtherService {
            person: principal.name.clone(),
            bound: route.service.clone(),
            requested: request.service.clone(),
        });
    }
    for role in snapshot.roles_of(user) {
        if let Some(rule) = denying_rule(role, request, &user.traits) {
            return Err(Denial::DeniedByRole {
                role: role.name.clone(),
                rule,
            });
        }
    }
    match snapshot.roles_of(user).find(|role| allows(role, request, &user.traits)) {
        Some(role) => Ok(Permit::issue(request, snapshot.version, role.name.clone())),
        None => Err(not_allowed(snapshot, user, request)),
    }
}

/// The first rule of a role's `deny` that matches. Any one is enough: labels, user or name.
fn denying_rule(role: &Role, request: &AccessRequest, traits: &Traits) -> Option<String> {
    let deny = &role.deny;
    if let Some(selector) = &deny.db_labels
        && selector.check(&request.labels, traits, Section::Deny).is_ok()
    {
        return Some(format!(
            "deny.db_labels {selector} match the labels \"{}\"",
            request.labels
        ));
    }
    let user = request.db_user.as_str();
    if let Some(pattern) = deny.db_users.find(user, traits, Section::Deny) {
        return Some(format!(
            "deny.db_users {:?} matches database user {user:?}",
            pattern.source()
        ));
    }
    let name = request.db_name.as_str();
    if let Some(pattern) = deny.db_names.find(name, traits, Section::Deny) {
        return Some(format!(
            "deny.db_names {:?} matches database name {name:?}",
            pattern.source()
        ));
    }
    None
}

/// Labels, user and name must all match within the one role.
fn allows(role: &Role, request: &AccessRequest, traits: &Traits) -> bool {
    let allow = &role.allow;
    role.allowed_labels()
        .check(&request.labels, traits, Section::Allow)
        .is_ok()
        && allow
            .db_users
            .find(request.db_user.as_str(), traits, Section::Allow)
            .is_some()
        && allow
            .db_names
            .find(request.db_name.as_str(), traits, Section::Allow)
            .is_some()
}

/// Asks every role again, for the reasons. Only a request that is refused pays for it.
fn not_allowed(snapshot: &PolicySnapshot, user: &UserRecord, request: &AccessRequest) -> Denial {
    let mut considered: Vec<_> = snapshot
        .roles_of(user)
        .map(|role| Shortfall {
            role: role.name.clone(),
            misses: misses(role, request, &user.traits),
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
        considered,
        missing,
    }))
}

fn misses(role: &Role, request: &AccessRequest, traits: &Traits) -> Vec<String> {
    let mut misses = Vec::new();
    let selector = role.allowed_labels();
    if let Err(mismatch) = selector.check(&request.labels, traits, Section::Allow) {
        misses.push(label_miss(&selector, &mismatch));
    }
    let name_miss = |what: &str, field: &str, name: &str, patterns: &NamePatterns| {
        let found = patterns.find(name, traits, Section::Allow).is_some();
        (!found).then(|| format!("{what} {name:?} is not among allow.{field} {patterns}"))
    };
    let allow = &role.allow;
    misses.extend(name_miss(
        "database user",
        "db_users",
        request.db_user.as_str(),
        &allow.db_users,
    ));
    misses.extend(name_miss(
        "database name",
        "db_names",
        request.db_name.as_str(),
        &allow.db_names,
    ));
    misses
}

fn label_miss(selector: &LabelSelector, mismatch: &LabelMismatch) -> String {
    match mismatch {
        LabelMismatch::NoSelector => "allow.db_labels selects no database".to_owned(),
        LabelMismatch::KeyMissing(key) => {
            format!("allow.db_labels {selector} asks for label {key:?}, which the database does not have")
        }
        LabelMismatch::ValueDiffers { key, value } => {
            format!("allow.db_labels {selector} do not match label {key:?} with value {value:?}")
        }
    }
}

//! How a decision comes about: every lock, option, role and rule that has a part in it, for `ctl` and for people.
//!
//! The verdict is that of `decide`; roles and rules are asked with the same code, all of them and not only up to the first that
//! settles it.

use super::matching::{Asked, FIELDS};
use super::{AccessRequest, decide};
use crate::model::{Replication, Timestamp};
use crate::policy::matchers::Section;
use crate::policy::options::SessionOptions;
use crate::policy::role::Role;
use crate::policy::snapshot::PolicySnapshot;
use crate::policy::user::UserRecord;
use serde::Serialize;
use std::fmt;

/// Why somebody may or may not use a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub person: String,
    pub service: String,
    pub labels: String,
    pub db_user: String,
    pub db_name: String,
    /// `physical` or `logical`, of a replication connection.
    pub replication: Option<Replication>,
    pub policy_version: u64,
    pub allowed: bool,
    /// The role that allows it, that denies it, or that comes nearest to allowing it.
    pub role: Option<String>,
    /// The denial in full; of what is allowed, the role that allows it.
    pub reason: String,
    pub locks: Vec<ExplainedLock>,
    pub options: Vec<ExplainedOption>,
    /// In the person's order.
    pub roles: Vec<ExplainedRole>,
}

/// A lock on the person, on one of the roles or on a node of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedLock {
    pub name: String,
    pub target: String,
    pub message: Option<String>,
    pub expires: Option<String>,
    pub in_force: bool,
}

/// An option of the session, and the first role that asks for it in this strength.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedOption {
    pub option: &'static str,
    pub value: String,
    pub role: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedRole {
    pub role: String,
    pub verdict: RoleVerdict,
    pub conditions: Vec<ExplainedCondition>,
}

/// What one role says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleVerdict {
    Denies,
    Allows,
    /// It neither denies nor allows.
    Silent,
    /// There is no role of that name.
    Missing,
}

/// One condition of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedCondition {
    /// `allow` or `deny`.
    pub section: &'static str,
    pub field: &'static str,
    pub matched: bool,
    pub why: String,
}

/// Explains what `decide` says of the same request at the same moment.
pub fn explain(snapshot: &PolicySnapshot, request: &AccessRequest, now: Timestamp) -> Explanation {
    let user = snapshot.users.get(&request.principal.name);
    let (allowed, role, reason) = match decide(snapshot, request, now) {
        Ok(permit) => {
            let role = permit.role().to_string();
            let reason = format!("role {role:?} allows it");
            (true, Some(role), reason)
        }
        Err(denial) => (false, denial.role().map(ToString::to_string), denial.to_string()),
    };
    Explanation {
        person: request.principal.name.to_string(),
        service: request.service.to_string(),
        labels: request.labels.to_string(),
        db_user: request.db_user.to_string(),
        db_name: request.db_name.to_string(),
        replication: request.replication,
        policy_version: snapshot.version,
        allowed,
        role,
        reason,
        locks: locks(snapshot, user, request, now),
        options: user.map(|user| options(snapshot, user)).unwrap_or_default(),
        roles: user.map(|user| roles(snapshot, user, request)).unwrap_or_default(),
    }
}

fn locks(
    snapshot: &PolicySnapshot,
    user: Option<&UserRecord>,
    request: &AccessRequest,
    now: Timestamp,
) -> Vec<ExplainedLock> {
    let roles = user.map(|user| user.roles.as_slice()).unwrap_or_default();
    let locks = snapshot.locks.about(&request.principal.name, roles, &request.nodes);
    let explained = locks.map(|lock| ExplainedLock {
        name: lock.name.to_string(),
        target: lock.target.to_string(),
        message: lock.message.clone(),
        expires: lock.expires.map(|at| at.to_string()),
        in_force: lock.is_in_force(now),
    });
    explained.collect()
}

fn options(snapshot: &PolicySnapshot, user: &UserRecord) -> Vec<ExplainedOption> {
    let asks = |role: &&Role, wanted: &(&'static str, String)| {
        let alone = SessionOptions::of(&role.options);
        alone.set().any(|set| set == *wanted)
    };
    let merged = snapshot.options_of(&user.name);
    let explained = merged.set().filter_map(|wanted| {
        let role = snapshot.roles_of(user).find(|role| asks(role, &wanted))?;
        Some(ExplainedOption {
            option: wanted.0,
            value: wanted.1,
            role: role.name.to_string(),
        })
    });
    explained.collect()
}

fn roles(snapshot: &PolicySnapshot, user: &UserRecord, request: &AccessRequest) -> Vec<ExplainedRole> {
    let explained = user.roles.iter().map(|name| match snapshot.roles.get(name) {
        Some(role) => explain_role(role, user, request),
        None => ExplainedRole {
            role: name.to_string(),
            verdict: RoleVerdict::Missing,
            conditions: Vec::new(),
        },
    });
    explained.collect()
}

fn explain_role(role: &Role, user: &UserRecord, request: &AccessRequest) -> ExplainedRole {
    let section = |section, word| {
        let asked = Asked {
            role,
            section,
            request,
            traits: &user.traits,
        };
        FIELDS.into_iter().filter_map(move |field| {
            Some(ExplainedCondition {
                section: word,
                field: field.key(),
                matched: asked.matches(field)?,
                why: asked.reason(field),
            })
        })
    };
    let deny: Vec<_> = section(Section::Deny, "deny").collect();
    let allow: Vec<_> = section(Section::Allow, "allow").collect();
    let verdict = if deny.iter().any(|condition| condition.matched) {
        RoleVerdict::Denies
    } else if allow.iter().all(|condition| condition.matched) {
        RoleVerdict::Allows
    } else {
        RoleVerdict::Silent
    };
    ExplainedRole {
        role: role.name.to_string(),
        verdict,
        conditions: deny.into_iter().chain(allow).collect(),
    }
}

impl RoleVerdict {
    fn words(self) -> &'static str {
        match self {
            Self::Denies => "denies",
            Self::Allows => "would allow",
            Self::Silent => "does not allow",
            Self::Missing => "does not exist and grants nothing",
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} as database user {:?} and database name {:?}{} at {} (labels \"{}\")",
            if self.allowed { "ALLOWED" } else { "DENIED" },
            self.person,
            self.db_user,
            self.db_name,
            self.replication
                .map_or(String::new(), |mode| format!(" for {} replication", mode.label())),
            self.service,
            self.labels
        )?;
        writeln!(f, "because: {}", self.reason)?;
        writeln!(f, "by version {} of the rules", self.policy_version)?;
        for lock in &self.locks {
            let state = if lock.in_force { "in force" } else { "expired" };
            write!(f, "lock {}: {}, {state}", lock.name, lock.target)?;
            if let Some(expires) = &lock.expires {
                write!(f, ", until {expires}")?;
            }
            if let Some(message) = &lock.message {
                write!(f, ": {message}")?;
            }
            writeln!(f)?;
        }
        for option in &self.options {
            writeln!(
                f,
                "option {}: {}, from role {:?}",
                option.option, option.value, option.role
            )?;
        }
        for role in &self.roles {
            writeln!(f, "role {:?} {}", role.role, role.verdict.words())?;
            for condition in &role.conditions {
                let mark = if condition.matched { "yes" } else { " no" };
                writeln!(f, "  {mark}  {:5}  {}", condition.section, condition.why)?;
            }
        }
        Ok(())
    }
}

//! The permit: proof that the rules said yes.

use crate::model::{DbName, DbUser, PersonName, Replication, RoleName, ServiceName, Timestamp};
use crate::policy::options::SessionOptions;

/// Proof that `decide` allowed one person one database user and name at one service.
///
/// Only `decide` can make one, and it cannot be copied: code that takes a `Permit` cannot run without a decision of its own.
#[derive(Debug)]
#[must_use = "a permit is made to be used for the access it was asked for"]
pub struct Permit {
    person: PersonName,
    service: ServiceName,
    db_user: DbUser,
    db_name: DbName,
    replication: Option<Replication>,
    until: Timestamp,
    policy_version: u64,
    role: RoleName,
    options: SessionOptions,
}

impl Permit {
    pub(super) fn issue(
        request: &super::AccessRequest,
        policy_version: u64,
        role: RoleName,
        options: SessionOptions,
    ) -> Self {
        Self {
            person: request.principal.name.clone(),
            service: request.service.clone(),
            db_user: request.db_user.clone(),
            db_name: request.db_name.clone(),
            replication: request.replication,
            until: request.principal.valid_until,
            policy_version,
            role,
            options,
        }
    }

    pub fn person(&self) -> &PersonName {
        &self.person
    }

    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    pub fn db_user(&self) -> &DbUser {
        &self.db_user
    }

    pub fn db_name(&self) -> &DbName {
        &self.db_name
    }

    /// The replication connection that it is for; `None` allows none.
    pub fn replication(&self) -> Option<Replication> {
        self.replication
    }

    /// When the certificate expires that was decided on.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// The version of the snapshot that was decided on.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }

    /// The role that allowed it: the first in the person's order.
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    /// What the options of all of the person's roles come to.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }
}

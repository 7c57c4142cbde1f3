//! Who may use which database: roles, users, databases and locks as documents, and the decision over them, as pure functions.
//!
//! Nothing here reads a clock, a file or the network. Resources are read from YAML (or the canonical JSON that is stored and
//! sent), a `PolicySnapshot` holds all of them at one version, and `decide` turns a snapshot and a request into a `Permit` or a
//! `Denial`; `explain` says how, and `may` decides about the cluster's own resources. What a role may ask for and this version
//! does not enforce is refused when the role is read.

mod conditions;
mod database;
mod decide;
mod document;
mod error;
mod expression;
mod fields;
mod lock;
mod matchers;
mod options;
mod presets;
mod resource;
mod role;
mod rules;
mod snapshot;
mod template;
mod user;

pub use conditions::Conditions;
pub use database::{DatabaseResource, DatabaseTls, DatabaseTlsMode, ResourceMatcher};
pub use decide::{
    AccessRequest, DENIED_HINT, DENIED_MESSAGE, Denial, ExplainedCondition, ExplainedLock, ExplainedOption,
    ExplainedRole, Explanation, NotAllowed, PHYSICAL_REPLICATION_NAME, PINNED_IP_MESSAGE, Permit, REPLICATION_HINT,
    RoleVerdict, Shortfall, Visible, decide, effective_db_name, explain, visible,
};
pub use document::{MAX_DOCUMENT_BYTES, MAX_STREAM_BYTES, MAX_STREAM_DOCUMENTS};
pub use error::{Position, Problem, ResourceError};
pub use expression::{Expression, ExpressionError, Facts};
pub use lock::{Lock, LockTarget, Locks};
pub use matchers::{LabelPattern, LabelSelector, NamePattern, NamePatterns};
pub use options::{RoleOptions, SessionOptions};
pub use presets::{PRESETS, presets};
pub use resource::{Resource, parse_resources};
pub use role::{Role, RoleVersion};
pub use rules::{ResourceKind, Rule, RuleDenied, RuleResource, RuleVerb, Verb, may};
pub use snapshot::{PolicySnapshot, max_session_ttl};
pub use template::Template;
pub use user::UserRecord;

//! Who may use which database: roles and users as documents, and the decision over them, as pure functions.
//!
//! Nothing here reads a clock, a file or the network. `Role` and `UserRecord` are read from YAML (or the canonical JSON that is
//! stored and sent), a `PolicySnapshot` holds all of them at one version, and `decide` turns a snapshot and a request into a
//! `Permit` or a `Denial`. What a role may ask for and this version does not enforce is refused when the role is read.

mod decide;
mod document;
mod error;
mod fields;
mod matchers;
mod presets;
mod resource;
mod role;
mod snapshot;
mod template;
mod user;

pub use decide::{
    AccessRequest, DENIED_HINT, DENIED_MESSAGE, Denial, NotAllowed, Permit, Shortfall, decide, effective_db_name,
};
pub use document::{MAX_DOCUMENT_BYTES, MAX_STREAM_BYTES, MAX_STREAM_DOCUMENTS};
pub use error::{Position, Problem, ResourceError};
pub use matchers::{LabelPattern, LabelSelector, NamePattern, NamePatterns};
pub use presets::{PRESETS, presets};
pub use resource::{Resource, parse_resources};
pub use role::{Conditions, Role, RoleVersion};
pub use snapshot::{PolicySnapshot, max_session_ttl};
pub use template::Template;
pub use user::UserRecord;

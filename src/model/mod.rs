//! The words that every room uses: ids, names, labels, who someone is, why something was refused, time, secrets.
//! No I/O and nothing asynchronous; every other room may use this one, and this one uses none.

pub mod clock;
pub mod endpoint;
pub mod failures;
pub mod ids;
pub mod labels;
pub mod names;
pub mod network;
pub mod node;
pub mod percent;
pub mod principal;
pub mod refusal;
pub mod replication;
pub mod secret;

pub use clock::{Clock, Moment, SharedClock, SystemClock, Timestamp};
pub use endpoint::Endpoint;
pub use ids::{ConnectionId, MessageId, NodeId, SessionId};
pub use labels::Labels;
pub use names::{ClusterName, DbName, DbUser, LockName, NameError, NodeName, PersonName, RoleName, ServiceName};
pub use network::IpNetwork;
pub use node::NodeKind;
pub use percent::percent_encoded;
pub use principal::{Principal, Route, Traits};
pub use refusal::{Refusal, RefusalKind, Side};
pub use replication::Replication;
pub use secret::Secret;

//! The actors: supervised, with typed messages between them. `host` is the only file that knows actix.
//!
//! One file per actor; `ARCHITECTURE.md` draws who starts whom and who speaks to whom.

mod account_words;
pub mod accounts;
pub mod address;
pub mod admission;
pub mod agent;
pub mod agent_question;
pub mod agent_way;
pub mod audit;
mod audit_entry;
pub mod audit_log;
pub mod audit_taps;
pub mod auth_link;
pub mod ca;
pub mod cancels;
pub mod carried;
pub mod certificate_words;
pub mod connection;
pub mod databases;
pub mod dialer;
pub mod dialers;
pub mod door;
pub mod host;
pub mod identity;
pub mod inspector;
pub mod inventory;
pub mod joins;
mod kept_identity;
pub mod links;
pub mod listener;
pub mod node_questions;
mod open_sessions;
pub mod passages;
pub mod peers;
pub mod phase;
pub mod places;
pub mod policy;
pub mod proxies;
pub mod rbac;
pub mod relay;
mod result_event;
pub mod routing;
pub mod session_limits;
pub mod session_taps;
pub mod sessions;
pub mod sessions_stock;
mod signable_hosts;
#[cfg(test)]
mod sim;
pub mod strangers;
pub mod supervisor;
pub mod tokens;
pub mod trail;
pub mod tunnel;
pub mod tunnels;
pub mod upstream;

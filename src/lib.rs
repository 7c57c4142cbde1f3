//! Postern: access to PostgreSQL without passwords, VPNs or shared accounts.
//!
//! `ARCHITECTURE.md` draws the rooms and the path of a connection through them. Dependencies between rooms go one way:
//! `model ← policy, protocol ← pki, net, store, audit, config ← actors ← web ← node ← cli`.

pub mod actors;
pub mod audit;
pub mod cli;
pub mod config;
pub mod model;
pub mod net;
pub mod node;
pub mod pki;
pub mod policy;
pub mod protocol;
pub mod store;
pub mod telemetry;
pub mod web;

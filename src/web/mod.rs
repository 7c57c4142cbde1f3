//! What people and programs say to Postern over HTTP and JSON. For now the administrator's half, on a socket of the machine.

pub mod admin;
pub mod api;
pub mod kinds;
mod listed;
mod routes;
mod status;
mod token_routes;

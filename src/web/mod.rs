//! What people and programs say to Postern over HTTP: the administrator's half, on a socket of the machine; the same and logins
//! for people, on auth's port; the pages and answers of a proxy; the diagnostic port; and
//! the debug socket.

pub mod access_api;
mod access_routes;
pub mod admin;
pub mod api;
pub mod debug;
pub mod diag;
pub mod kinds;
mod listed;
pub mod metrics;
pub mod pages;
pub mod people;
pub mod people_api;
mod people_routes;
mod permits;
mod routes;
mod status;
mod token_routes;
pub mod trace_api;
mod trace_routes;
mod user_routes;

#[cfg(test)]
mod tests;

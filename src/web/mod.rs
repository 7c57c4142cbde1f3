//! What people and programs say to Postern over HTTP and JSON: the administrator's half, on a socket of the machine; the same and
//! logins for people, on auth's port; and the diagnostic port.

pub mod admin;
pub mod api;
pub mod diag;
pub mod pages;
pub mod people;
pub mod people_api;
mod people_routes;
mod permits;
mod routes;
mod token_routes;
mod user_routes;

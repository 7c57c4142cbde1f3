//! What people and programs say to Postern over HTTP: the administrator's half, on a socket of the machine, the pages and answers of
//! a proxy, and the diagnostic port.

pub mod admin;
pub mod api;
pub mod diag;
pub mod pages;
pub mod people_api;
mod routes;
mod token_routes;
mod user_routes;

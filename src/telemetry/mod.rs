//! How the program is watched: logs, and the places where tests make it fail.

pub mod fault;
pub mod logging;

//! How the program is watched: logs, what is said of a panic, and the places where tests make it fail.

pub mod fault;
pub mod logging;
pub mod panics;

//! How the program is watched: logs, and the places where tests make it fail.

pub mod fault;
mod log_directives;
mod log_lines;
pub mod logging;

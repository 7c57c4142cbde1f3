//! How the program is watched: logs, what is counted, whether it turns, and the places where tests make it fail.

pub mod count;
pub mod fault;
mod log_directives;
mod log_lines;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod pulse;

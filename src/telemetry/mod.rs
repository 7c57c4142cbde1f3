//! How the program is watched: logs, who lives in this process and what they did lately, what is counted, whether the runtimes
//! turn, and the places where tests make it fail.

pub mod announce;
pub mod count;
mod drawn;
pub mod fault;
pub mod label;
mod log_directives;
mod log_lines;
pub mod logging;
pub mod look;
pub mod metrics;
pub mod observe;
pub mod panics;
mod part;
pub mod process;
pub mod pulse;
pub mod record;
pub mod registry;
pub mod relays;
pub mod stuck;
pub mod threads;
pub mod tree;
pub mod tunnels;
pub mod view;

//! How the program is watched: logs, who lives in this process and what they did lately, and the places where tests make it
//! fail.

pub mod fault;
pub mod label;
mod log_directives;
mod log_lines;
pub mod logging;
pub mod record;
pub mod registry;
pub mod relays;
pub mod tunnels;
pub mod view;

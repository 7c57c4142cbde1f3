//! How the program is watched: logs, who lives in this process and what they did lately, and the places where tests make it
//! fail.

pub mod announce;
mod drawn;
pub mod fault;
pub mod label;
pub mod logging;
pub mod look;
pub mod observe;
mod part;
pub mod record;
pub mod registry;
pub mod relays;
pub mod stuck;
pub mod view;

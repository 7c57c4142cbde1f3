//! The actors: supervised, with typed messages between them. `host` is the only file that knows actix.

pub mod address;
pub mod host;
pub mod supervisor;

//! The PostgreSQL protocol, version 3, as far as a gateway has to know it: the first packet of a client, the frames of
//! both directions, for the audit log the statements of the client's direction and what became of them, and the few messages
//! that we write.
//!
//! Everything here works on slices that somebody else has read: no sockets, no clock, no waiting. What a peer claims
//! (a length, a count) is checked before it is believed, and nothing is set aside for bytes that have not come.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

pub mod answers;
pub mod backend;
pub mod bind;
mod command_line;
pub mod error;
pub mod exchange;
pub mod fields;
pub mod frames;
mod frontend;
pub mod parameters;
pub mod results;
pub mod startup;
pub mod statements;

pub use answers::{Answer, AnswerReader};
pub use error::ProtocolError;
pub use exchange::Exchange;
pub use frames::{Direction, FrameWalker, Piece};
pub use results::{Outcome, Results};
pub use startup::{CancelRequest, FirstPacket, StartupMessage};
pub use statements::{Asked, Part, Statement, StatementTap};

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod result_properties;
#[cfg(test)]
mod results_tests;
#[cfg(test)]
mod startup_tests;
#[cfg(test)]
mod statement_tests;

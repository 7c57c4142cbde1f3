//! What nodes say to each other: frames of typed messages on yamux streams inside mutual TLS.
//!
//! A closed enum for each kind of peer and direction ([`messages`]); each has a tag, its dialect, that stands in the
//! header of every frame, so that a message of another peer's enum is recognised and never read as one of ours. Version 1
//! is frozen (`tests/golden/frozen/wire-v1.txt`): fields are positional, so new variants come at the end of their enum, and any other
//! change is a new version.

pub mod frame;
#[cfg(test)]
mod golden_tests;
mod key_digest;
pub mod messages;
#[cfg(test)]
mod refusal_tests;
mod secret_text;

pub use frame::{Frame, FrameError, FrameKind, Header, MAX_HEADER_BYTES, PREFIX_BYTES};
pub use key_digest::KeyDigest;
pub use messages::{
    AccountRefusal, Anchors, AuthToNode, DatabaseHealth, DatabaseRecord, DbToAuth, DbToProxy, Dialect, HealthState,
    Inspection, JoinAnswer, JoinToAuth, NodeReport, PART_MAX_BYTES, ProxyRecord, ProxyToAuth, ProxyToDb,
    STREAM_ACCEPTED, Wire,
};
pub use secret_text::SecretText;

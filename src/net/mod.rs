//! The only code with sockets: listening and dialling, TLS, multiplexing, copying.
//!
//! Above it nobody names `tokio::net`; below it nobody knows what a session is.

pub mod auth_dialer;
pub mod big_reads;
pub mod buffers;
pub mod carry;
pub mod copy;
#[cfg(test)]
mod counted_writes;
mod cryptography;
pub mod deferred_flush;
pub mod direction;
#[cfg(test)]
mod fairness_tests;
pub mod frames;
pub mod greeting;
mod halves;
pub mod mux;
mod mux_end;
#[cfg(test)]
mod mux_writes_tests;
mod names;
pub mod rare;
pub mod socket;
mod stall;
#[cfg(test)]
mod stalled_upstream_tests;
#[cfg(test)]
mod stops;
#[cfg(test)]
mod test_thread;
pub mod tls;
mod turns;
pub mod upstream;
pub mod upstream_tls;
pub mod web_certificates;
pub mod web_client;

use tokio::io::{AsyncRead, AsyncWrite};

/// Any stream of bytes: a socket, TLS, a stream of a tunnel, or memory.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

pub type BoxStream = Box<dyn Stream>;

//! Bytes to types and back: no sockets, no clock, nothing asynchronous.

pub mod alpn;
pub mod carried;
pub mod foreign;
pub mod postgres;
pub mod proxy_header;
pub mod tunnel;

//! Bytes in and out of one client. What they mean is decided elsewhere.

mod handshake;
pub(crate) mod websocket;

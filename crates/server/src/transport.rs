//! Bytes in and out of one client. What they mean is decided elsewhere.

pub(crate) mod actix_ws;
mod handshake;
mod registered;
mod session;
mod stream;
pub(crate) mod websocket;
pub(crate) mod xhr;

pub(crate) use self::stream::Stream;

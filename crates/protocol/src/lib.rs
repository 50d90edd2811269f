//! The Pusher Channels wire format, for servers.
//!
//! Everything here is a pure function of its arguments: no I/O, no async, no clock. The crate knows how frames, request
//! bodies and signatures look; what they mean for a connection or a channel is the server's part.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`channel`] | channel names and what their prefix says |
//! | [`client_event`] | frames from clients, parsed |
//! | [`server_event`] | frames to clients, encoded (the double encoding of `data` lives there alone) |
//! | [`presence`] | `channel_data`, `user_data`, members |
//! | [`signature`] | channel, user and webhook signatures |
//! | [`request`] | signatures of HTTP API requests |
//! | [`trigger`] | bodies of the HTTP API |
//! | [`webhook`] | bodies of webhooks |
//! | [`position`] | how far a client has come in a channel's events |
//! | [`close_code`], [`limits`], [`socket_id`], [`credentials`], [`json`] | the small vocabulary |

pub mod channel;
pub mod client_event;
pub mod close_code;
pub mod credentials;
pub mod json;
pub mod limits;
pub mod position;
pub mod presence;
pub mod request;
pub mod server_event;
pub mod signature;
pub mod socket_id;
pub mod trigger;
pub mod webhook;

pub use channel::{ChannelKind, ChannelName};
pub use client_event::ClientEvent;
pub use close_code::CloseCode;
pub use credentials::{AppId, AppKey, AppSecret};
pub use position::Position;
pub use signature::Signer;
pub use socket_id::SocketId;

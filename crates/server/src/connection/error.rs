//! Why the server ends a connection, and what the client is told.

use bytes::Bytes;
use fanfare_protocol::{CloseCode, server_event};

use crate::{
    frame::{self, Frame},
    metrics::Refusal,
};

/// Why the server ends a connection. `Display` is the reason in the close frame: pusher.com's text where it is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("Application only accepts SSL connections, reconnect using wss://")]
    TlsRequired,
    #[error("App key {0} not in this cluster. Did you forget to specify the cluster?")]
    AppNotFound(String),
    #[error("Application disabled")]
    AppDisabled,
    #[error("Application is over connection quota")]
    OverQuota,
    #[error("Over capacity: the server cannot look up its apps now")]
    AppsUnavailable,
    #[error("Over capacity: the server has {limit} connections (limits.max_connections)")]
    NodeFull { limit: usize },
    #[error("Over capacity: the server is short of memory (limits.max_memory)")]
    ShortOfMemory,
    #[error("Over capacity: {limit} connections from one address (limits.max_connections_per_address)")]
    AddressFull { limit: u32 },
    #[error("Over capacity: over {limit} connects/s from one address (limits.max_connects_per_second_per_address)")]
    AddressTooFast { limit: u32 },
    #[error("Path not found")]
    PathNotFound,
    #[error("Invalid version string format")]
    InvalidVersion,
    #[error("Unsupported protocol version")]
    UnsupportedVersion,
    #[error("No protocol version supplied")]
    NoVersion,
    #[error("Origin not allowed")]
    OriginNotAllowed,
    #[error("Connection not authorized within timeout")]
    NotAuthorizedInTime,
    #[error("Connection is unauthorized: the user was disconnected by the application")]
    Terminated { code: u16 },
    #[error("Over capacity: the connection reads too slowly")]
    SlowReader,
    #[error("Over capacity: the server is shutting down")]
    RefusedWhileDraining,
    #[error("Over capacity: {limit} HTTP sessions are open ({setting})")]
    TooManySessions { setting: &'static str, limit: usize },
    #[error("Generic reconnect immediately")]
    Draining,
    #[error("Generic reconnect immediately: events may have been missed")]
    Gap,
    #[error("Pong reply not received")]
    PongTimeout,
    #[error("message is larger than {limit} bytes (max_message_bytes)")]
    MessageTooLarge { limit: usize },
    #[error("message is not UTF-8")]
    InvalidUtf8,
    #[error("WebSocket protocol error: {0}")]
    Protocol(String),
}

impl ConnectionError {
    /// The code of the close frame; its band says whether the client comes back.
    pub(crate) fn close_code(&self) -> CloseCode {
        match self {
            Self::TlsRequired => CloseCode::TLS_ONLY,
            Self::AppNotFound(_) => CloseCode::APP_NOT_FOUND,
            Self::AppDisabled => CloseCode::APP_DISABLED,
            Self::OverQuota => CloseCode::OVER_QUOTA,
            Self::PathNotFound => CloseCode::PATH_NOT_FOUND,
            Self::InvalidVersion => CloseCode::INVALID_VERSION,
            Self::UnsupportedVersion => CloseCode::UNSUPPORTED_VERSION,
            Self::NoVersion => CloseCode::NO_VERSION,
            Self::OriginNotAllowed | Self::NotAuthorizedInTime => CloseCode::UNAUTHORIZED,
            Self::Terminated { code } => CloseCode::new(*code).unwrap_or(CloseCode::UNAUTHORIZED),
            // A code of the 42xx band would bring the client back at once, to be refused again.
            Self::SlowReader
            | Self::RefusedWhileDraining
            | Self::TooManySessions { .. }
            | Self::AppsUnavailable
            | Self::NodeFull { .. }
            | Self::ShortOfMemory
            | Self::AddressFull { .. }
            | Self::AddressTooFast { .. } => CloseCode::OVER_CAPACITY,
            Self::Draining | Self::Gap => CloseCode::RECONNECT,
            Self::PongTimeout => CloseCode::PONG_TIMEOUT,
            Self::MessageTooLarge { .. } => CloseCode::TOO_BIG,
            Self::InvalidUtf8 => CloseCode::INVALID_DATA,
            Self::Protocol(_) => CloseCode::PROTOCOL,
        }
    }

    /// What it is counted as, where somebody was not let in.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::TlsRequired => Some(Refusal::NoTls),
            Self::AppNotFound(_) => Some(Refusal::AppUnknown),
            Self::AppDisabled => Some(Refusal::AppDisabled),
            Self::OverQuota => Some(Refusal::Connections),
            Self::TooManySessions { .. } => Some(Refusal::Sessions),
            Self::PathNotFound => Some(Refusal::Path),
            Self::InvalidVersion | Self::UnsupportedVersion | Self::NoVersion => Some(Refusal::ProtocolVersion),
            Self::OriginNotAllowed => Some(Refusal::Origin),
            Self::RefusedWhileDraining => Some(Refusal::Draining),
            Self::AppsUnavailable => Some(Refusal::AppsUnavailable),
            Self::NodeFull { .. } => Some(Refusal::NodeConnections),
            Self::ShortOfMemory => Some(Refusal::Memory),
            Self::AddressFull { .. } => Some(Refusal::AddressConnections),
            Self::AddressTooFast { .. } => Some(Refusal::AddressConnects),
            Self::NotAuthorizedInTime
            | Self::Terminated { .. }
            | Self::SlowReader
            | Self::Draining
            | Self::Gap
            | Self::PongTimeout
            | Self::MessageTooLarge { .. }
            | Self::InvalidUtf8
            | Self::Protocol(_) => None,
        }
    }

    /// Whether a `pusher:error` frame goes before the close frame: where the client did, or asked for, something it cannot have.
    fn has_error_frame(&self) -> bool {
        match self {
            Self::TlsRequired
            | Self::AppNotFound(_)
            | Self::AppDisabled
            | Self::OverQuota
            | Self::PathNotFound
            | Self::InvalidVersion
            | Self::UnsupportedVersion
            | Self::NoVersion
            | Self::OriginNotAllowed
            | Self::NotAuthorizedInTime
            | Self::Terminated { .. }
            | Self::RefusedWhileDraining
            | Self::TooManySessions { .. }
            | Self::AppsUnavailable
            | Self::NodeFull { .. }
            | Self::ShortOfMemory
            | Self::AddressFull { .. }
            | Self::AddressTooFast { .. } => true,
            Self::SlowReader
            | Self::Draining
            | Self::Gap
            | Self::PongTimeout
            | Self::MessageTooLarge { .. }
            | Self::InvalidUtf8
            | Self::Protocol(_) => false,
        }
    }

    /// The last frames of the connection.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Bytes> + use<> {
        let (code, message) = (self.close_code(), self.to_string());
        let error =
            self.has_error_frame().then(|| Frame::text(&server_event::error(Some(code), &message)).into_bytes());
        error.into_iter().chain([frame::close(code, &message)])
    }
}

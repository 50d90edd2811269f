//! Close codes. The band of a code tells pusher-js whether to come back.

use std::fmt;

/// The code of a close frame, and of the `pusher:error` frame before it.
///
/// What pusher-js does (its `Protocol.getCloseAction`): 4000 reconnect over TLS; 4001 to 4099 stop for good; 4100 to 4199
/// reconnect after 1 s; 4200 to 4299 reconnect at once; from 4300 stop for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The peer asked to close. RFC 6455.
    pub const NORMAL: Self = Self(1000);
    /// The peer broke the WebSocket protocol. RFC 6455.
    pub const PROTOCOL: Self = Self(1002);
    /// A text message was not UTF-8. RFC 6455.
    pub const INVALID_DATA: Self = Self(1007);
    /// A message was larger than allowed. RFC 6455.
    pub const TOO_BIG: Self = Self(1009);
    /// The app wants TLS.
    pub const TLS_ONLY: Self = Self(4000);
    /// Nobody has this app key.
    pub const APP_NOT_FOUND: Self = Self(4001);
    /// The app is switched off.
    pub const APP_DISABLED: Self = Self(4003);
    /// The app has as many connections as it may have.
    pub const OVER_QUOTA: Self = Self(4004);
    /// The URL is not `/app/{key}`.
    pub const PATH_NOT_FOUND: Self = Self(4005);
    /// `protocol` is not a number.
    pub const INVALID_VERSION: Self = Self(4006);
    /// `protocol` is a version nobody speaks.
    pub const UNSUPPORTED_VERSION: Self = Self(4007);
    /// `protocol` is missing, where the server insists on it.
    pub const NO_VERSION: Self = Self(4008);
    /// Origin not allowed, user terminated, or not authorized in time.
    pub const UNAUTHORIZED: Self = Self(4009);
    /// The node or this connection's outbox is full: come back in a second.
    pub const OVER_CAPACITY: Self = Self(4100);
    /// The node goes away: come back at once, to another.
    pub const RECONNECT: Self = Self(4200);
    /// No answer to a ping.
    pub const PONG_TIMEOUT: Self = Self(4201);
    /// Error frame only: too many client events.
    pub const CLIENT_EVENT_RATE: Self = Self(4301);
    /// Error frame only: more than the allowed number of watched users.
    pub const WATCHLIST_LIMIT: Self = Self(4302);

    /// A code by its number; `None` for numbers that may not stand in a close frame (RFC 6455, 7.4).
    pub fn new(code: u16) -> Option<Self> {
        let registered = matches!(code, 1000..=1003 | 1007..=1014);
        (registered || (3000..=4999).contains(&code)).then_some(Self(code))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

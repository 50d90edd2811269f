//! Errors of the HTTP API: a status and one line of text, which SDKs show to the developer.

use crate::metrics::Refusal;
use actix_web::{
    HttpResponse,
    http::{Method, StatusCode, header},
};
use fanfare_protocol::{channel::InvalidChannelName, request::RequestError, trigger::InvalidTrigger};

use super::with_allowance;
use crate::{
    app::Metered,
    broker::{Refused, Unreachable},
    bucket::Exceeded,
};

/// Why a request is not answered with 200. `Display` is the body: pusher.com's text where it is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("404 NOT FOUND")]
    NotFound,
    #[error("404 NOT FOUND")]
    AppUnknown,
    /// Of a request that tells its app by the key alone.
    #[error("{}", RequestError::UnknownKey)]
    KeyUnknown,
    #[error(
        "Metrics are told to this machine alone here; give them a port of their own for others (metrics.port, metrics.host)"
    )]
    MetricsElsewhere,
    #[error("No such session: it has ended, or never began on this node")]
    NoSession,
    #[error("The body must be a JSON array of strings, each a message")]
    NotMessages,
    #[error("A message is larger than {limit} bytes (server.max_message_bytes)")]
    MessageTooLarge { limit: usize },
    #[error("Method not allowed: use {0}")]
    MethodNotAllowed(Method),
    #[error("This path is for WebSocket connections: ask for an upgrade")]
    UpgradeRequired,
    #[error(transparent)]
    Request(RequestError),
    #[error("Application disabled")]
    AppDisabled,
    #[error("Application only accepts SSL connections: use https://")]
    TlsRequired,
    #[error("The request body is larger than {limit} bytes (server.max_request_bytes)")]
    TooLarge { limit: usize },
    #[error("The request body ended early or is not well-formed")]
    BrokenBody,
    #[error("The request body took too long (server.request_timeout)")]
    BodyTimeout,
    #[error(transparent)]
    Trigger(InvalidTrigger),
    #[error("Invalid channel name '{name}': {error}")]
    Channel { name: String, error: InvalidChannelName },
    #[error(
        "user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-"
    )]
    UserCountNeedsPrefix,
    #[error("Cannot retrieve the user count unless the channel is a presence channel")]
    UserCountNeedsPresence,
    #[error("Cannot retrieve the cache unless the channel is a cache channel")]
    CacheNeedsCacheChannel,
    #[error("Users can only be retrieved for presence channels")]
    UsersNeedPresence,
    #[error("The server is too busy to take this event now; nothing was published. Try again in a second")]
    Busy,
    #[error("{0}; nothing was published. Try again in a few seconds")]
    Refused(Refused),
    #[error("{0}. Try again in a few seconds")]
    Unreachable(Unreachable),
    #[error("The server cannot look up its apps now. Try again in a second")]
    AppsUnavailable,
    #[error(
        "Too many {}: {} in a second are allowed ({}); {}try again in {} s",
        .what.name(), .exceeded.allowance.limit, .what.setting(), .what.note(), .exceeded.seconds()
    )]
    TooMany { what: Metered, exceeded: Exceeded },
    #[error(
        "Too many signatures from this address did not fit: {} in a minute are allowed \
         (limits.max_failed_signatures_per_minute_per_address); try again in {} s",
        .0.allowance.limit, .0.seconds()
    )]
    TooManyBadSignatures(Exceeded),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::AppUnknown | Self::NoSession => StatusCode::NOT_FOUND,
            Self::MetricsElsewhere => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::Request(_) | Self::KeyUnknown => StatusCode::UNAUTHORIZED,
            Self::AppDisabled | Self::TlsRequired => StatusCode::FORBIDDEN,
            Self::TooLarge { .. }
            | Self::MessageTooLarge { .. }
            | Self::Trigger(InvalidTrigger::DataTooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenBody
            | Self::NotMessages
            | Self::Trigger(_)
            | Self::Channel { .. }
            | Self::UserCountNeedsPrefix
            | Self::UserCountNeedsPresence
            | Self::CacheNeedsCacheChannel
            | Self::UsersNeedPresence => StatusCode::BAD_REQUEST,
            Self::TooMany { .. } | Self::TooManyBadSignatures(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::AppsUnavailable | Self::Busy | Self::Refused(_) | Self::Unreachable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// What it is counted as; a path or method that does not exist concerns no app.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::NotFound
            | Self::NoSession
            | Self::MethodNotAllowed(_)
            | Self::UpgradeRequired
            | Self::MetricsElsewhere => None,
            Self::AppUnknown | Self::KeyUnknown => Some(Refusal::AppUnknown),
            Self::Request(_) => Some(Refusal::Signature),
            Self::AppDisabled => Some(Refusal::AppDisabled),
            Self::TlsRequired => Some(Refusal::NoTls),
            Self::TooLarge { .. }
            | Self::MessageTooLarge { .. }
            | Self::Trigger(InvalidTrigger::DataTooLarge { .. }) => Some(Refusal::RequestSize),
            Self::BodyTimeout => Some(Refusal::RequestTimeout),
            Self::BrokenBody
            | Self::NotMessages
            | Self::Trigger(_)
            | Self::Channel { .. }
            | Self::UserCountNeedsPrefix
            | Self::UserCountNeedsPresence
            | Self::CacheNeedsCacheChannel
            | Self::UsersNeedPresence => Some(Refusal::Request),
            Self::Busy => Some(Refusal::Busy),
            Self::Refused(_) | Self::Unreachable(_) => Some(Refusal::Broker),
            Self::AppsUnavailable => Some(Refusal::AppsUnavailable),
            Self::TooMany { what, .. } => Some(what.refusal()),
            Self::TooManyBadSignatures(_) => Some(Refusal::AddressSignatures),
        }
    }

    pub(super) fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status());
        response.insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"));
        match self {
            Self::MethodNotAllowed(method) => {
                response.insert_header((header::ALLOW, method.as_str()));
            }
            Self::UpgradeRequired => {
                response.insert_header((header::UPGRADE, "websocket"));
            }
            Self::Busy | Self::AppsUnavailable => {
                response.insert_header((header::RETRY_AFTER, "1"));
            }
            Self::TooMany { exceeded, .. } | Self::TooManyBadSignatures(exceeded) => {
                response.insert_header((header::RETRY_AFTER, exceeded.seconds()));
                let response = response.body(format!("{self}\n"));
                return with_allowance(response, Some(exceeded.allowance));
            }
            Self::Refused(_) | Self::Unreachable(_) => {
                response.insert_header((header::RETRY_AFTER, "3"));
            }
            // The rest of the body is not read, so the connection cannot be used again.
            Self::TooLarge { .. } | Self::BodyTimeout => {
                response.force_close();
            }
            _ => {}
        }
        response.body(format!("{self}\n"))
    }
}

//! What the pages are told when something cannot be done.

use actix_web::{HttpResponse, ResponseError, error::BlockingError, http::StatusCode};
use serde_json::json;
use tracing::error;

/// Why a request is refused. The text is shown to the person at the till.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request makes no sense.
    #[error("{0}")]
    Bad(String),
    /// There is no session.
    #[error("please sign in")]
    NotSignedIn,
    /// Name and password do not belong together.
    #[error("this name and password do not belong together")]
    WrongPassword,
    /// The signed-in person may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done now.
    #[error("{0}")]
    Conflict(String),
    /// Our fault; the log says more.
    #[error("something went wrong at our end and nothing was changed; please try again")]
    Internal(#[source] anyhow::Error),
}

impl ApiError {
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::Bad(text.into())
    }

    pub(crate) fn forbidden(text: impl Into<String>) -> Self {
        Self::Forbidden(text.into())
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        Self::Internal(error.into())
    }
}

impl From<BlockingError> for ApiError {
    fn from(error: BlockingError) -> Self {
        Self::Internal(error.into())
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NotSignedIn | Self::WrongPassword => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::Internal(cause) = self {
            error!(error = format!("{cause:#}"), "request failed");
        }
        HttpResponse::build(self.status_code()).json(json!({"error": self.to_string()}))
    }
}

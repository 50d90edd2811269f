//! What requests bring: its limits, and refusals that a person can read.

use actix_web::web;

use crate::error::ApiError;

/// A request's body; the largest is an order with all its lines.
const MAX_BODY_BYTES: usize = 32 * 1024;

/// The limits of bodies, queries and paths.
pub(crate) fn limits(config: &mut web::ServiceConfig) {
    config
        .app_data(web::JsonConfig::default().limit(MAX_BODY_BYTES).error_handler(|error, _| bad(&error)))
        .app_data(web::FormConfig::default().limit(MAX_BODY_BYTES).error_handler(|error, _| bad(&error)))
        .app_data(web::QueryConfig::default().error_handler(|error, _| bad(&error)))
        .app_data(web::PathConfig::default().error_handler(|error, _| bad(&error)));
}

fn bad(error: &dyn std::fmt::Display) -> actix_web::Error {
    ApiError::bad(error.to_string()).into()
}

/// A line of text without the spaces around it.
pub(crate) fn text(field: &str, value: &str, max_chars: usize) -> Result<String, ApiError> {
    let value = value.trim();
    let chars = value.chars().count();
    if chars == 0 {
        return Err(ApiError::bad(format!("{field} is empty")));
    }
    if chars > max_chars {
        return Err(ApiError::bad(format!("{field} has {chars} characters, the limit is {max_chars}")));
    }
    Ok(value.to_owned())
}

//! Requests that change something have to come from our own pages: the cookie alone would let any site act for who is signed in.

use actix_web::{
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
};

use crate::error::ApiError;

/// Refuses what the browser says comes from another site. Without a browser there is no cookie to abuse.
pub(crate) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if !request.method().is_safe() && !is_own(&request) {
        return Err(ApiError::forbidden("this request comes from another site").into());
    }
    next.call(request).await
}

fn is_own(request: &ServiceRequest) -> bool {
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    // Browsers send it to https and loopback addresses; it holds behind a proxy that changes `Host`, too.
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_some() && host == text(header::HOST)
}

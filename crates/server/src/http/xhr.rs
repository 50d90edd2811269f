//! The requests of clients without a WebSocket: what they get as HTTP. What it means is the session's.
//!
//! Browsers send them from pages of other origins, so each answer says that any page may read it, errors included: who may
//! connect is decided here, by `allowed_origins`, and told in words that pusher-js shows.

use std::rc::Rc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method,
        header::{self, HeaderValue},
    },
    web,
};

use super::{
    direct_tls,
    error::ApiError,
    read,
    route::{Xhr, XhrCall},
};
use crate::{
    limits::FOREIGN_BODY_BYTES,
    timing::in_time,
    transport::xhr::{self, Ended, SessionId},
    worker::Worker,
};

/// Bytes of a send beside its messages.
const BRACKETS: usize = 1024;

/// Answers one request of a session.
pub(super) async fn respond(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
    route: &Xhr<'_>,
) -> HttpResponse {
    let answer = answer(worker, request, payload, route).await;
    let mut response = answer.unwrap_or_else(|error| {
        if let Some(cause) = error.refusal() {
            let app = worker.node.apps.by_key(&route.key);
            app.as_ref().map_or(&worker.node.metrics.refusals, |app| &app.metrics.refusals).count(cause);
        }
        error.response()
    });
    // Any origin may read the answer: requests carry no cookies, and the app's `allowed_origins` are checked apart.
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

async fn answer(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
    route: &Xhr<'_>,
) -> Result<HttpResponse, ApiError> {
    let config = &worker.node.config;
    let id = SessionId::new(route.server, route.session);
    // Looked for before the body is read, so that nobody has a large one read without a session.
    let session = match (route.call, &id) {
        (XhrCall::Send, Some(id)) => {
            worker.node.apps.by_key(&route.key).and_then(|app| xhr::find(&app, request.head(), id))
        }
        _ => None,
    };
    // A message of JSON that is quoted once more, as text in JSON, can be twice as long.
    let limit = if session.is_some() { 2 * config.max_message_bytes + BRACKETS } else { FOREIGN_BODY_BYTES };
    let body = in_time(config.request_timeout, read(request, payload, limit)).await.ok_or(ApiError::BodyTimeout)?;
    match *request.method() {
        Method::OPTIONS => return Ok(preflight(request)),
        Method::POST => {}
        _ => return Err(ApiError::MethodNotAllowed(Method::POST)),
    }
    let streaming = match route.call {
        XhrCall::Stream => true,
        XhrCall::Poll => false,
        XhrCall::Send => {
            let session = session.ok_or(ApiError::NoSession)?;
            let messages = body.and_then(|body| messages(&body, config.max_message_bytes));
            if matches!(messages, Err(ApiError::TooLarge { .. } | ApiError::MessageTooLarge { .. })) {
                session.too_large().await;
            }
            session.send(messages?, request.uri().query()).await.map_err(|Ended| ApiError::NoSession)?;
            return Ok(HttpResponse::NoContent().finish());
        }
    };
    body?;
    let id = id.ok_or(ApiError::NoSession)?;
    let received = xhr::receive(worker, request.head(), &route.key, id, streaming, direct_tls(request)).await;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "application/javascript; charset=UTF-8"))
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        // Without it nginx would hold lines back until its buffer is full.
        .insert_header(("x-accel-buffering", "no"));
    Ok(match received {
        Ok(reader) if streaming => response.body(reader),
        // Empty for a poll in whose place a newer one has come.
        Ok(reader) => response.body(std::future::poll_fn(|cx| reader.poll_chunk(cx)).await.unwrap_or_default()),
        Err(refusal) => response.body(refusal),
    })
}

/// The messages of a send.
fn messages(body: &[u8], limit: usize) -> Result<Vec<String>, ApiError> {
    let messages: Vec<String> = serde_json::from_slice(body).map_err(|_| ApiError::NotMessages)?;
    if messages.iter().any(|message| message.len() > limit) {
        return Err(ApiError::MessageTooLarge { limit });
    }
    Ok(messages)
}

/// What a browser asks before each request, since each has a URL of its own.
fn preflight(request: &HttpRequest) -> HttpResponse {
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let headers = asked.cloned().unwrap_or(HeaderValue::from_static("content-type"));
    HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "POST, OPTIONS"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, headers))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"))
        .finish()
}

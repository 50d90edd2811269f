//! The HTTP API: who asks, what for, and the answers in the words that SDKs expect.

mod channels;
mod companion;
mod error;
mod events;
mod metrics;
mod route;
mod users;
mod xhr;

use std::{rc::Rc, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, MessageBody},
    http::{
        ConnectionType, Method,
        header::{self, HeaderName},
    },
    web,
};
use bytes::{Bytes, BytesMut};
use fanfare_protocol::request::{Query, RequestError, SignedRequest};
use futures_util::StreamExt;
use tokio::time::Instant;

pub(crate) use self::metrics::respond as respond_metrics;
pub(crate) use self::route::XHR_SCOPE;
use self::{
    error::ApiError,
    route::{Api, Route},
};
use crate::{
    app::{App, Metered, Missing},
    bucket::{Allowance, whole_seconds},
    client_address::{client_address, is_secure},
    limits::FOREIGN_BODY_BYTES,
    node::Node,
    timing::{in_time, unix_time},
    worker::Worker,
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const RATE_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
/// Seconds until the bucket is full again.
const RATE_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Answers any HTTP request. One handler for all paths: the routes are few, and matching them by hand keeps regular
/// expressions off the way of every trigger.
pub(crate) async fn respond(worker: Rc<Worker>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let node = &worker.node;
    if let Some(route) = route::find_xhr(request.uri().path(), &node.config.path_prefix).filter(|_| node.xhr.enabled) {
        return xhr::respond(&worker, &request, payload, &route).await;
    }
    let mut app = None;
    let answer = answer(node, &request, payload, &mut app).await;
    let response = answer.unwrap_or_else(|error| {
        if let Some(cause) = error.refusal() {
            app.as_ref().map_or(&node.metrics.refusals, |app| &app.metrics.refusals).count(cause);
        }
        error.response()
    });
    let Some(app) = app else { return response };
    if let BodySize::Sized(bytes) = response.body().size() {
        app.metrics.http_bytes_sent.add(bytes);
    }
    // Backends keep their connections: they shall make the next one to another server before this one is gone.
    if node.is_stopping() { closing(response) } else { response }
}

/// `asked` is the app that the request is for, also if the answer is an error.
async fn answer(
    node: &Node,
    request: &HttpRequest,
    payload: web::Payload,
    asked: &mut Option<Arc<App>>,
) -> Result<HttpResponse, ApiError> {
    let path = request.uri().path();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let target = match route::find(path, &node.config.path_prefix) {
        Some(Route::Api { app_id, api }) => app(node, app_id.as_deref(), &query).await.map(|app| Target::Api(app, api)),
        Some(other) => Ok(Target::Other(other)),
        None => Err(ApiError::NotFound),
    };
    if let Ok(Target::Api(app, _)) = &target {
        *asked = Some(Arc::clone(app));
        app.metrics.http_calls.increment();
    }
    // The body is read before anything is answered, errors too: an answer to a request whose body is unread would cost the connection.
    let limit = if target.is_ok() { node.config.max_request_bytes } else { FOREIGN_BODY_BYTES };
    let body = in_time(node.config.request_timeout, read(request, payload, limit)).await;
    let body = match (body.ok_or(ApiError::BodyTimeout)?, &target) {
        (Err(ApiError::TooLarge { .. }), Err(error)) => return Ok(closing(error.response())),
        (body, _) => body?,
    };
    let since = Instant::now();
    if let Some(app) = asked {
        app.metrics.http_bytes_received.add(body.len() as u64);
    }
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let (app, api) = match target? {
        Target::Other(Route::Index) => {
            allow(method, &Method::GET)?;
            return Ok(text("Fanfare is running. Point pusher-js or Laravel Echo at this host and port.\n"));
        }
        Target::Other(Route::Health) => {
            allow(method, &Method::GET)?;
            return Ok(health(node));
        }
        Target::Other(Route::Metrics) => {
            allow(method, &Method::GET)?;
            return metrics::on_main_port(node, request);
        }
        Target::Other(Route::Companion { module }) => {
            allow(method, &Method::GET)?;
            return Ok(companion::answer(request, module));
        }
        Target::Other(_) => return Err(ApiError::UpgradeRequired),
        Target::Api(app, api) => (app, api),
    };
    allow(method, &api.method())?;
    let (address, asked_at) = (client_address(&node.config, request.head()), Instant::now());
    node.admission.may_sign(address, asked_at).map_err(ApiError::TooManyBadSignatures)?;
    let policy = app.policy();
    let prefix = &*node.config.path_prefix;
    let now = unix_time().as_secs();
    SignedRequest { method: request.method().as_str(), path, prefix, query: &query, body: &body }
        .verify(now, |key| policy.signer(key))
        .inspect_err(|_| node.admission.bad_signature(address, asked_at))
        .map_err(ApiError::Request)?;
    if !policy.config.enabled {
        return Err(ApiError::AppDisabled);
    }
    if policy.config.require_tls && !is_secure(&node.config, request.head(), direct_tls(request)) {
        return Err(ApiError::TlsRequired);
    }
    drop(policy);
    let (app, read) = (&*app, Metered::Reads);
    let allowance = match api.method() == Method::GET {
        true => app.take(read, 1).map_err(|exceeded| ApiError::TooMany { what: read, exceeded })?,
        false => None,
    };
    let answer = match api {
        Api::Events => events::trigger(node, app, &query, &body, since).await,
        Api::BatchEvents => events::batch(node, app, &body, since).await,
        Api::Channels => channels::list(app, &query).await,
        Api::Channel { channel } => channels::one(app, &channel, &query).await,
        Api::ChannelUsers { channel } => users::of_channel(app, &channel, &query).await,
        Api::TerminateConnections { user_id } => users::terminate(app, &user_id).await,
        Api::Connections => {
            let connections = match app.broker.cluster() {
                Some(cluster) => cluster.connections(app.id.as_str()).await.map_err(ApiError::Unreachable)?,
                None => app.connections(),
            };
            Ok(json(format!(r#"{{"connections":{connections}}}"#)))
        }
    };
    answer.map(|answer| with_allowance(answer, allowance))
}

/// Tells what is left of what the app may do, if that is limited.
fn with_allowance(mut response: HttpResponse, allowance: Option<Allowance>) -> HttpResponse {
    if let Some(Allowance { limit, remaining, reset }) = allowance {
        let headers = response.headers_mut();
        headers.insert(RATE_LIMIT, limit.into());
        headers.insert(RATE_REMAINING, remaining.into());
        headers.insert(RATE_RESET, whole_seconds(reset).into());
    }
    response
}

/// Whether a request came over TLS: our own listener says so, or the application that embeds us.
fn direct_tls(request: &HttpRequest) -> bool {
    request.conn_data::<DirectTls>().is_some() || request.app_config().secure()
}

/// Kept with each connection of our own listeners that is one of TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectTls;

/// What a request is for.
enum Target<'p> {
    Api(Arc<App>, Api<'p>),
    Other(Route<'p>),
}

/// The app of the path; where an SDK leaves it out, the app of the key.
async fn app(node: &Node, id: Option<&str>, query: &Query<'_>) -> Result<Arc<App>, ApiError> {
    let (app, error) = match id {
        Some(id) => (node.apps.find_by_id(id).await, ApiError::AppUnknown),
        None => {
            let key = query.get("auth_key").ok_or(ApiError::Request(RequestError::Missing("auth_key")))?;
            (node.apps.find_by_key(&key).await, ApiError::KeyUnknown)
        }
    };
    app.map_err(|missing| match missing {
        Missing::Unknown => error,
        Missing::Unavailable => ApiError::AppsUnavailable,
    })
}

/// An answer behind which the connection is closed.
fn closing(mut response: HttpResponse) -> HttpResponse {
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

fn allow(method: &Method, allowed: &Method) -> Result<(), ApiError> {
    if method == allowed { Ok(()) } else { Err(ApiError::MethodNotAllowed(allowed.clone())) }
}

/// Takes the whole body. Small ones arrive in one piece, which is then not copied.
async fn read(request: &HttpRequest, mut payload: web::Payload, limit: usize) -> Result<Bytes, ApiError> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(ApiError::TooLarge { limit });
    }
    let Some(first) = payload.next().await else { return Ok(Bytes::new()) };
    let first = first.map_err(|_| ApiError::BrokenBody)?;
    if announced == Some(first.len()) {
        return Ok(first);
    }
    let mut body = BytesMut::from(first);
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| ApiError::BrokenBody)?;
        if body.len() + chunk.len() > limit {
            return Err(ApiError::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    if body.len() > limit {
        return Err(ApiError::TooLarge { limit });
    }
    Ok(body.freeze())
}

fn text(body: &'static str) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(body)
}

/// 200 and a JSON object: SDKs take nothing else for success.
fn json(body: impl Into<Bytes>) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/json")).body(body.into())
}

fn health(node: &Node) -> HttpResponse {
    let (mut response, body) = match node.is_stopping() {
        true => (HttpResponse::ServiceUnavailable(), r#"{"health":"DRAINING"}"#),
        false => (HttpResponse::Ok(), r#"{"health":"OK"}"#),
    };
    response.insert_header((header::CONTENT_TYPE, "application/json")).body(body)
}

//! Who may connect: the URL, the app, the origin and the quota. Answers 101 to whoever speaks WebSocket: after any other
//! answer pusher-js shows no error and keeps trying for minutes.

use std::sync::Arc;

use actix_http::{
    RequestHead,
    header::{self, HeaderValue},
    ws,
};
use fanfare_protocol::request::Query;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use crate::{
    admission::{Admitted, Caller},
    app::{App, Missing},
    client_address::{client_address, is_secure},
    connection::ConnectionError,
    node::Node,
};

/// Protocol versions of pusher.com that work alike here.
const VERSIONS: std::ops::RangeInclusive<u32> = 5..=7;

/// The answer to a WebSocket handshake, or the HTTP error to a request that is none.
pub(super) fn answer(head: &RequestHead) -> Result<Vec<u8>, &'static str> {
    ws::verify_handshake(head).map_err(|error| match error {
        ws::HandshakeError::UnsupportedVersion => {
            "HTTP/1.1 426 Upgrade Required\r\nsec-websocket-version: 13\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        }
        _ => "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    })?;
    let key = head.headers().get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ",
    );
    out.extend_from_slice(&ws::hash_key(key));
    // Browsers fail a connection when they offered protocols and none was chosen.
    let offered = head.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    if let Some(first) = offered.and_then(|list| list.split(',').next()).map(str::trim).filter(|name| !name.is_empty())
    {
        out.extend_from_slice(b"\r\nsec-websocket-protocol: ");
        out.extend_from_slice(first.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
    Ok(out)
}

/// A client on its way in: counted for its address, and not yet for its app.
pub(super) struct Visitor {
    key: String,
    caller: Option<Caller>,
    /// The connection itself is one of TLS.
    direct_tls: bool,
}

/// Lets a client in, or asks for its app in the database first.
pub(super) enum Admission {
    Decided(Result<Admitted, ConnectionError>),
    Undecided(Visitor),
}

/// Decides on a WebSocket at once, where its app is known. `direct_tls`: the connection itself is one of TLS.
pub(super) fn admit(node: &Node, head: &RequestHead, direct_tls: bool) -> Admission {
    let path = head.uri.path().strip_prefix(&*node.config.path_prefix).unwrap_or_default();
    let key = path.strip_prefix("/app/").map(|key| percent_decode_str(key).decode_utf8_lossy());
    let visitor = match key.filter(|key| !key.is_empty() && !key.contains('/')) {
        Some(key) => visit(node, &key, head, direct_tls),
        None => Err(ConnectionError::PathNotFound).inspect_err(|error| refused(node, None, head, error)),
    };
    let visitor = match visitor {
        Ok(visitor) => visitor,
        Err(error) => return Admission::Decided(Err(error)),
    };
    match node.apps.by_key(&visitor.key) {
        Some(app) => Admission::Decided(enter(node, head, visitor, Ok(app))),
        None if node.apps.may_know_key(&visitor.key) => Admission::Undecided(visitor),
        None => Admission::Decided(enter(node, head, visitor, Err(Missing::Unknown))),
    }
}

/// Decides on a client whose app the database may know.
pub(super) async fn admit_later(
    node: &Node,
    head: &RequestHead,
    visitor: Visitor,
) -> Result<Admitted, ConnectionError> {
    let app = node.apps.find_by_key(&visitor.key).await;
    enter(node, head, visitor, app)
}

/// Decides on a client of the app of this key.
pub(super) async fn admit_to(
    node: &Node,
    key: &str,
    head: &RequestHead,
    direct_tls: bool,
) -> Result<Admitted, ConnectionError> {
    let visitor = visit(node, key, head, direct_tls)?;
    admit_later(node, head, visitor).await
}

/// Counts a refusal and mentions it.
pub(super) fn refused(node: &Node, app: Option<&App>, head: &RequestHead, error: &ConnectionError) {
    if let Some(cause) = error.refusal() {
        app.map_or(&node.metrics.refusals, |app| &app.metrics.refusals).count(cause);
    }
    tracing::debug!(address = ?client_address(&node.config, head), %error, "connection refused");
}

/// What can be said before the app is looked for.
fn visit(node: &Node, key: &str, head: &RequestHead, direct_tls: bool) -> Result<Visitor, ConnectionError> {
    let address = client_address(&node.config, head);
    let caller = match node.is_draining() {
        true => Err(ConnectionError::RefusedWhileDraining),
        false => node.admission.connect(address, Instant::now()),
    };
    let caller = caller.inspect_err(|error| refused(node, node.apps.by_key(key).as_deref(), head, error))?;
    Ok(Visitor { key: key.to_owned(), caller, direct_tls })
}

fn enter(
    node: &Node,
    head: &RequestHead,
    visitor: Visitor,
    app: Result<Arc<App>, Missing>,
) -> Result<Admitted, ConnectionError> {
    let Visitor { key, caller, direct_tls } = visitor;
    let app = app.map_err(|missing| match missing {
        Missing::Unknown => ConnectionError::AppNotFound(key),
        Missing::Unavailable => ConnectionError::AppsUnavailable,
    });
    let app = app.inspect_err(|error| refused(node, None, head, error))?;
    let secure = is_secure(&node.config, head, direct_tls);
    check(node, &app, head, secure).inspect_err(|error| refused(node, Some(&app), head, error))?;
    tracing::debug!(app.id = %app.id, address = ?client_address(&node.config, head), "connection accepted");
    Ok(Admitted { app, caller, secure })
}

/// Whether the page that makes the request may.
pub(super) fn allows_origin(app: &App, head: &RequestHead) -> bool {
    app.policy().allows_origin(head.headers().get(header::ORIGIN).map(|value| value.to_str().unwrap_or_default()))
}

fn check(node: &Node, app: &App, head: &RequestHead, secure: bool) -> Result<(), ConnectionError> {
    check_version(head.uri.query().unwrap_or_default(), node.config.require_protocol_version)?;
    if let Some(error) = app.refuses(secure) {
        return Err(error);
    }
    if !allows_origin(app, head) {
        return Err(ConnectionError::OriginNotAllowed);
    }
    app.connected(node.admission.max_connections())
}

/// `protocol` has to be a version that is spoken. Many hand-written clients leave it out: they count as version 7.
fn check_version(query: &str, required: bool) -> Result<(), ConnectionError> {
    match Query::parse(query).get("protocol") {
        None if required => Err(ConnectionError::NoVersion),
        None => Ok(()),
        Some(text) => match text.parse::<u32>() {
            Ok(version) if VERSIONS.contains(&version) => Ok(()),
            Ok(_) => Err(ConnectionError::UnsupportedVersion),
            Err(_) => Err(ConnectionError::InvalidVersion),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_checked_as_pusher_com_does() {
        assert_eq!(check_version("protocol=7&client=js", true), Ok(()));
        assert_eq!(check_version("protocol=5", false), Ok(()));
        assert_eq!(check_version("client=js", false), Ok(()));
        assert_eq!(check_version("client=js", true), Err(ConnectionError::NoVersion));
        assert_eq!(check_version("protocol=3", false), Err(ConnectionError::UnsupportedVersion));
        assert_eq!(check_version("protocol=99999", false), Err(ConnectionError::UnsupportedVersion));
        for text in ["protocol=seven", "protocol=", "protocol=7.0", "protocol=-1"] {
            assert_eq!(check_version(text, false), Err(ConnectionError::InvalidVersion), "{text}");
        }
    }
}

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

use crate::{
    app::App,
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

/// The app that a WebSocket is for, with the connection counted in. `direct_tls`: the connection itself is one of TLS.
pub(super) fn admit(node: &Node, head: &RequestHead, direct_tls: bool) -> Result<Arc<App>, ConnectionError> {
    let path = head.uri.path().strip_prefix(&*node.config.path_prefix).unwrap_or_default();
    let key = path.strip_prefix("/app/").map(|key| percent_decode_str(key).decode_utf8_lossy());
    match key.filter(|key| !key.is_empty() && !key.contains('/')) {
        Some(key) => admit_to(node, &key, head, direct_tls),
        None => Err(ConnectionError::PathNotFound).inspect_err(|error| refused(node, None, head, error)),
    }
}

/// The app of this key, with the connection counted in.
pub(super) fn admit_to(
    node: &Node,
    key: &str,
    head: &RequestHead,
    direct_tls: bool,
) -> Result<Arc<App>, ConnectionError> {
    let app = find(node, key).inspect_err(|error| refused(node, None, head, error))?;
    check(node, &app, head, direct_tls).inspect_err(|error| refused(node, Some(&app), head, error))?;
    tracing::debug!(app.id = %app.id, address = ?client_address(&node.config, head), "connection accepted");
    Ok(app)
}

/// Counts a refusal and mentions it.
pub(super) fn refused(node: &Node, app: Option<&App>, head: &RequestHead, error: &ConnectionError) {
    if let Some(cause) = error.refusal() {
        app.map_or(&node.metrics.refusals, |app| &app.metrics.refusals).count(cause);
    }
    tracing::debug!(address = ?client_address(&node.config, head), %error, "connection refused");
}

fn find(node: &Node, key: &str) -> Result<Arc<App>, ConnectionError> {
    if node.is_draining() {
        return Err(ConnectionError::RefusedWhileDraining);
    }
    node.apps.by_key(key).ok_or_else(|| ConnectionError::AppNotFound(key.to_owned()))
}

/// Whether the page that makes the request may.
pub(super) fn allows_origin(app: &App, head: &RequestHead) -> bool {
    app.policy().allows_origin(head.headers().get(header::ORIGIN).map(|value| value.to_str().unwrap_or_default()))
}

fn check(node: &Node, app: &App, head: &RequestHead, direct_tls: bool) -> Result<(), ConnectionError> {
    check_version(head.uri.query().unwrap_or_default(), node.config.require_protocol_version)?;
    if let Some(error) = app.closed() {
        return Err(error);
    }
    if app.policy().config.require_tls && !is_secure(&node.config, head, direct_tls) {
        return Err(ConnectionError::TlsRequired);
    }
    if !allows_origin(app, head) {
        return Err(ConnectionError::OriginNotAllowed);
    }
    if !app.connected() {
        return Err(ConnectionError::OverQuota);
    }
    Ok(())
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

//! `GET /metrics`. It tells ids of apps and how much they are used, so the main port tells it to this machine alone. A port of
//! its own is for whoever reaches it: that is asked for, and where it listens is chosen.

use std::net::IpAddr;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, Version, header},
};

use super::{error::ApiError, text};
use crate::{metrics, node::Node};

/// Headers by which proxies say for whom they ask.
const OF_PROXIES: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];

/// Answers on the server's port.
pub(super) fn on_main_port(node: &Node, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let config = node.metrics.config();
    if !config.enabled || config.port.is_some() {
        Err(ApiError::NotFound)
    } else if is_of_this_machine(request) {
        Ok(answer(node))
    } else {
        Err(ApiError::MetricsElsewhere)
    }
}

/// Answers on a port of its own, where nothing else is told.
pub(crate) fn respond(node: &Node, request: &HttpRequest) -> HttpResponse {
    match request.path() {
        "/metrics" if matches!(*request.method(), Method::GET | Method::HEAD) => answer(node),
        "/metrics" => ApiError::MethodNotAllowed(Method::GET).response(),
        "/" => text("Metrics are at /metrics.\n"),
        _ => ApiError::NotFound.response(),
    }
}

fn answer(node: &Node) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, metrics::CONTENT_TYPE))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(metrics::render(node))
}

/// Whether a request was made on this machine, and not for somebody else by a proxy that runs here.
///
/// Proxies say so, or pass on the name that was asked for. One that is told to do neither, as nginx is unless configured, still
/// speaks HTTP/1.0, or has `Connection: upgrade` in each request, as WebSocket clients need it.
fn is_of_this_machine(request: &HttpRequest) -> bool {
    let value = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback())
        && value(header::HOST).is_some_and(is_this_machine)
        && !OF_PROXIES.iter().any(|name| request.headers().contains_key(*name))
        && request.version() == Version::HTTP_11
        && value(header::CONNECTION).is_none_or(|connection| !connection.eq_ignore_ascii_case("upgrade"))
}

/// Whether a `Host` header names a loopback address.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn request(peer: &str, host: &str) -> TestRequest {
        TestRequest::get().peer_addr(peer.parse().unwrap()).insert_header((header::HOST, host))
    }

    #[test]
    fn this_machine_asks_from_a_loopback_address_for_one() {
        let asked = |peer, host| is_of_this_machine(&request(peer, host).to_http_request());
        for host in ["127.0.0.1:6001", "localhost", "LOCALHOST:6001", "[::1]:6001", "127.0.0.2"] {
            assert!(asked("127.0.0.1:5000", host), "{host}");
            assert!(asked("[::1]:5000", host), "{host}");
            assert!(asked("[::ffff:127.0.0.1]:5000", host), "{host}");
            assert!(!asked("192.0.2.1:5000", host), "{host}");
        }
        for host in ["ws.example.com", "192.0.2.1:6001", "localhost.example.com", "fanfare", "", "[::2]:6001"] {
            assert!(!asked("127.0.0.1:5000", host), "{host}");
        }
        assert!(!is_of_this_machine(&TestRequest::get().insert_header((header::HOST, "localhost")).to_http_request()));
    }

    #[test]
    fn a_proxy_on_this_machine_asks_for_others() {
        let here = || request("127.0.0.1:5000", "127.0.0.1:6001");
        assert!(is_of_this_machine(&here().to_http_request()));
        for name in OF_PROXIES {
            assert!(!is_of_this_machine(&here().insert_header((name, "127.0.0.1")).to_http_request()), "{name}");
        }
        let bare = here().version(Version::HTTP_10);
        assert!(!is_of_this_machine(&bare.to_http_request()), "nginx without proxy_http_version");
        let upgrading = here().insert_header((header::CONNECTION, "upgrade"));
        assert!(!is_of_this_machine(&upgrading.to_http_request()), "nginx with a constant Connection header");
    }
}

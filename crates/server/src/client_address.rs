//! Whose request it is. The one place that says so: limits for each address and log lines ask here.

use std::net::IpAddr;

use actix_http::RequestHead;

/// The address of the client that a request is counted for; `None` if its socket has no such address.
pub(crate) fn client_address(head: &RequestHead) -> Option<IpAddr> {
    // An IPv4 client of a socket that takes both families is the same client.
    head.peer_addr.map(|peer| peer.ip().to_canonical())
}

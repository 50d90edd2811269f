//! Whose request it is, and whether it came by TLS. The one place that says so: limits for each address, `require_tls` and log
//! lines ask here.
//!
//! A proxy in front is the peer of every connection, and tells in a header whose request it passes on. Anybody can send such
//! a header, so only those of `server.trusted_proxies` are believed, hop by hop from the nearest one: what stands to the left
//! of the first address that is not trusted was written by who knows whom.

use std::net::{IpAddr, SocketAddr};

use actix_http::{
    RequestHead,
    header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR, X_FORWARDED_PROTO},
};

use crate::config::{ForwardedHeader, ServerConfig};

/// The address of the client that a request is counted for; `None` if its socket has no such address.
pub(crate) fn client_address(config: &ServerConfig, head: &RequestHead) -> Option<IpAddr> {
    // A dual-stack socket shows IPv4 clients as `::ffff:a.b.c.d`; they are the same clients.
    let peer = head.peer_addr?.ip().to_canonical();
    if !config.is_trusted_proxy(peer) {
        return Some(peer);
    }
    let header = config.forwarded_headers.iter().find(|header| head.headers().contains_key(header.name()));
    Some(header.map_or(peer, |header| first_untrusted(config, peer, &header.hops(head.headers()))))
}

/// Whether the client speaks TLS: with a trusted proxy, if that says so or the contrary, else with us (`direct`).
pub(crate) fn is_secure(config: &ServerConfig, head: &RequestHead, direct: bool) -> bool {
    if !head.peer_addr.is_some_and(|peer| config.is_trusted_proxy(peer.ip())) {
        return direct;
    }
    let headers = head.headers();
    let proto = match last_value(headers, &X_FORWARDED_PROTO) {
        Some(proto) => Some(proto.trim()),
        // Its last element is the nearest proxy's.
        None => last_value(headers, &FORWARDED).and_then(|element| parameter(element, "proto")),
    };
    proto.map_or(direct, |proto| proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss"))
}

/// Goes from the nearest hop to the first that is not a trusted proxy. A hop that hides or says nothing of use ends the way:
/// then the last one that is known is all that can be said.
fn first_untrusted(config: &ServerConfig, peer: IpAddr, hops: &[&str]) -> IpAddr {
    let mut known = peer;
    for hop in hops.iter().rev() {
        let Some(address) = address(hop) else { break };
        known = address;
        if !config.is_trusted_proxy(address) {
            break;
        }
    }
    known
}

impl ServerConfig {
    /// Whether what this peer says of its clients is believed.
    pub(crate) fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }
}

impl ForwardedHeader {
    fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => FORWARDED,
        }
    }

    /// Where the request came by, the nearest hop last. A header may stand in several lines, which are one list.
    fn hops(self, headers: &HeaderMap) -> Vec<&str> {
        let elements = headers.get_all(self.name()).flat_map(|line| elements(line.as_bytes()));
        match self {
            Self::XForwardedFor => elements.collect(),
            Self::Forwarded => elements.map(|element| parameter(element, "for").unwrap_or_default()).collect(),
        }
    }
}

/// The last element of a list header.
fn last_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get_all(name).last().and_then(|line| elements(line.as_bytes()).last())
}

/// The elements of a list: divided by commas, but not by those in quotes. A quote that is never closed is the client's, and
/// bytes that are no text cost their own element: neither may hide what a proxy has written behind them.
fn elements(list: &[u8]) -> impl Iterator<Item = &str> {
    let closed = list.iter().filter(|byte| **byte == b'"').count() % 2 == 0;
    let mut quoted = false;
    let elements = list.split(move |byte| {
        quoted ^= closed && *byte == b'"';
        *byte == b',' && !quoted
    });
    elements.map(|element| std::str::from_utf8(element).unwrap_or_default())
}

/// A parameter of an element of `Forwarded`, without its quotes.
fn parameter<'e>(element: &'e str, name: &str) -> Option<&'e str> {
    element.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// An address as hops are written: `192.0.2.7`, `2001:db8::7`, and either with a port (`[2001:db8::7]:4711`).
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().or_else(|_| hop.parse().map(|address: SocketAddr| address.ip()));
    address.map(|address: IpAddr| address.to_canonical()).ok()
}

#[cfg(test)]
mod tests {
    use actix_http::{Request, header::HeaderValue, test::TestRequest};

    use super::*;
    use crate::config::Network;

    fn config(trusted: &[&str]) -> ServerConfig {
        let trusted_proxies = trusted.iter().map(|text| Network::parse(text).unwrap()).collect();
        ServerConfig { trusted_proxies, ..ServerConfig::default() }
    }

    fn request(peer: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = TestRequest::default();
        for header in headers {
            request.append_header(*header);
        }
        let mut request = request.finish();
        request.head_mut().peer_addr = Some(SocketAddr::new(peer.parse().unwrap(), 1234));
        request
    }

    #[track_caller]
    fn is(config: &ServerConfig, peer: &str, headers: &[(&str, &str)], expected: &str) {
        let address = client_address(config, request(peer, headers).head());
        assert_eq!(address.map(|address| address.to_string()).as_deref(), Some(expected), "{headers:?}");
    }

    #[test]
    fn nobody_else_is_believed() {
        let headers = [("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")];
        is(&config(&[]), "127.0.0.1", &headers, "127.0.0.1");
        is(&config(&["10.0.0.0/8"]), "192.0.2.1", &headers, "192.0.2.1");
        is(&config(&["10.0.0.0/8"]), "::ffff:192.0.2.1", &[], "192.0.2.1");
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_trusted_proxys() {
        let config = config(&["10.0.0.0/8", "fd00::/8"]);
        for (header, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            // What the client itself claims stands further left.
            ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
            ("10.6.6.6, 192.0.2.7 , 10.0.0.2,10.0.0.3", "192.0.2.7"),
            ("192.0.2.7:4711", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("192.0.2.7, fd00::1", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            // All are proxies: the farthest one.
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            // Nothing of use: who is known for sure.
            ("", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
            ("192.0.2.7, nonsense", "10.0.0.1"),
            ("192.0.2.7, nonsense, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.7,", "10.0.0.1"),
            // Nor can it hide what the proxy says behind it.
            ("\"6.6.6.6, 192.0.2.7", "192.0.2.7"),
            ("\"6.6.6.6, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ] {
            is(&config, "10.0.0.1", &[("x-forwarded-for", header)], expected);
        }
        let mut request = request("10.0.0.1", &[]);
        let no_text = HeaderValue::from_bytes(b"\xff, 192.0.2.7").unwrap();
        request.headers_mut().append(X_FORWARDED_FOR, no_text);
        assert_eq!(client_address(&config, request.head()), Some("192.0.2.7".parse().unwrap()));
        is(&config, "10.0.0.1", &[], "10.0.0.1");
        is(&config, "10.0.0.1", &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.7")], "192.0.2.7");
    }

    #[test]
    fn forwarded_says_the_same_in_other_words() {
        let config = config(&["10.0.0.0/8"]);
        for (header, expected) in [
            ("for=192.0.2.7", "192.0.2.7"),
            ("For=\"[2001:db8::7]:4711\";proto=https;by=10.0.0.1", "2001:db8::7"),
            ("for=6.6.6.6, for=192.0.2.7;proto=http, for=10.0.0.2", "192.0.2.7"),
            ("for=\"_a,b\", for=192.0.2.7", "192.0.2.7"),
            ("for=192.0.2.7, for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
            ("for=\"192.0.2.7", "192.0.2.7"),
            ("for=\"6.6.6.6, for=192.0.2.7", "192.0.2.7"),
            ("for=\"6.6.6.6, for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
        ] {
            is(&config, "10.0.0.1", &[("forwarded", header)], expected);
        }
    }

    #[test]
    fn of_both_headers_the_first_of_the_setting_counts() {
        let mut config = config(&["10.0.0.0/8"]);
        let headers = [("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "192.0.2.2")];
        is(&config, "10.0.0.1", &headers, "192.0.2.2");
        config.forwarded_headers = vec![ForwardedHeader::Forwarded];
        is(&config, "10.0.0.1", &headers, "192.0.2.1");
        is(&config, "10.0.0.1", &headers[1..], "10.0.0.1");
    }

    #[test]
    fn a_trusted_proxy_knows_best_whether_its_client_speaks_tls() {
        let config = config(&["10.0.0.0/8"]);
        let secure = |peer, headers: &[(&str, &str)], direct| is_secure(&config, request(peer, headers).head(), direct);
        assert!(secure("192.0.2.1", &[], true));
        assert!(!secure("192.0.2.1", &[], false));
        assert!(!secure("192.0.2.1", &[("x-forwarded-proto", "https")], false));
        assert!(secure("10.0.0.1", &[("x-forwarded-proto", "https")], false));
        assert!(secure("10.0.0.1", &[("x-forwarded-proto", "WSS")], false));
        assert!(!secure("10.0.0.1", &[("x-forwarded-proto", "http")], false));
        assert!(!secure("10.0.0.1", &[("x-forwarded-proto", "https, http")], false));
        assert!(secure("10.0.0.1", &[("forwarded", "for=6.6.6.6;proto=http, for=192.0.2.7;proto=https")], false));
        assert!(!secure("10.0.0.1", &[("forwarded", "for=192.0.2.7;proto=https, for=10.0.0.2;proto=http")], false));
        assert!(!secure("10.0.0.1", &[("forwarded", "proto=https;x=\", for=192.0.2.7;proto=http")], false));
        assert!(!secure("10.0.0.1", &[], false));
        assert!(secure("10.0.0.1", &[], true));
        assert!(!secure("10.0.0.1", &[("x-forwarded-proto", "http")], true));
    }
}

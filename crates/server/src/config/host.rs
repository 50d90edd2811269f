//! Addresses: the one to bind is an IP address, since a name could mean several.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, de::Error};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!(
            "must be an IP address, such as \"127.0.0.1\" or \"0.0.0.0\", not {}",
            super::strict::quoted(&text)
        ))
    })
}

/// The same for a key that may be absent.
pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    deserialize(deserializer).map(Some)
}

/// The parts of `host:port`; an IPv6 address stands in brackets.
pub(crate) fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let plain =
        !host.is_empty() && !host.contains(['/', '@', '[', ']', ' ']) && (bare.is_some() || !host.contains(':'));
    Some((host.to_owned(), port.parse().ok()?)).filter(|(_, port)| plain && *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        let parts = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(host_and_port("redis.test:6380"), parts("redis.test", 6380));
        assert_eq!(host_and_port("[::1]:6380"), parts("::1", 6380));
        for text in
            ["redis.test", "::1:6380", "redis://redis.test:6380", "a@b:1", ":6380", "a:0", "a:65536", "a b:1", ""]
        {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }
}

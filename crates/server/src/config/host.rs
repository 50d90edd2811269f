//! The address to bind is an IP address: a name could mean several.

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

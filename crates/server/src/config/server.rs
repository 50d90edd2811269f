//! `[server]` and `[tls]`: where and how the server listens.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use fanfare_protocol::limits;
use serde::{Deserialize, Serialize};

use super::{Network, duration, host};

/// `[server]`: where and how the server listens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The address to bind.
    #[serde(deserialize_with = "host::deserialize")]
    pub host: IpAddr,
    /// The port to bind; 0 takes a free one.
    pub port: u16,
    /// Put before every route, such as `/ws`. Empty: none.
    pub path_prefix: String,
    /// Where clients reach the server, such as `https://ws.example.com`: for the lines to paste and for `fanfare trigger` and its like. Empty: where it listens.
    pub public_url: String,
    /// Proxies that are believed what they say of a client's address and of TLS: addresses and networks. Empty: none.
    pub trusted_proxies: Vec<Network>,
    /// Which headers of trusted proxies tell the client's address; of several in a request the first of this list counts.
    pub forwarded_headers: Vec<ForwardedHeader>,
    /// Connections of trusted proxies begin with a header of the PROXY protocol, version 1 or 2.
    pub proxy_protocol: bool,
    /// Worker threads; 0: one per core, less one for the rest of the machine.
    pub workers: usize,
    /// Take changes of the configuration file while the server runs; else on SIGHUP only.
    pub watch_config: bool,
    /// How long a shutdown is only told at `/up` before it begins, so that load balancers notice first.
    #[serde(with = "duration")]
    pub shutdown_delay: Duration,
    /// How long connections get to leave on shutdown.
    #[serde(with = "duration")]
    pub shutdown_grace: Duration,
    /// Silence after which either side pings. Whole seconds; told to clients. An app may have its own.
    #[serde(with = "duration")]
    pub activity_timeout: Duration,
    /// How long to wait for the answer to a ping.
    #[serde(with = "duration")]
    pub pong_timeout: Duration,
    /// Refuse connections without a `protocol` in their URL (4008), as pusher.com announced; else they count as version 7.
    pub require_protocol_version: bool,
    /// Bytes of one WebSocket message from a client; larger ones close with 1009.
    pub max_message_bytes: usize,
    /// Bytes of one HTTP request body; larger ones are answered with 413.
    pub max_request_bytes: usize,
    /// Bytes that may wait for one connection before it is closed with 4100.
    pub max_outbox_bytes: usize,
    /// How long a connection may take nothing of what waits for it, or leave what was written unacknowledged, before it is ended.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// Bytes of events, and of answers, that may wait for one worker before publishers have to wait, and clients are not read;
    /// each delivery of an event counts 64 more.
    pub max_inbox_bytes: usize,
    /// How long a publisher waits for a busy worker before it is answered 503.
    #[serde(with = "duration")]
    pub publish_timeout: Duration,
    /// How long a client may take for a TLS handshake, for the head of a connection's first request, and for the body of any.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// How long an idle HTTP connection is kept.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 6001,
            path_prefix: String::new(),
            public_url: String::new(),
            trusted_proxies: Vec::new(),
            forwarded_headers: vec![ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded],
            proxy_protocol: false,
            workers: 0,
            watch_config: true,
            shutdown_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(5),
            activity_timeout: limits::ACTIVITY_TIMEOUT,
            pong_timeout: limits::PONG_TIMEOUT,
            require_protocol_version: false,
            max_message_bytes: limits::CLIENT_MESSAGE_BYTES,
            max_request_bytes: 1024 * 1024,
            max_outbox_bytes: 1024 * 1024,
            write_timeout: Duration::from_secs(30),
            max_inbox_bytes: 16 * 1024 * 1024,
            publish_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
        }
    }
}

/// A header by which proxies pass on whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses, the nearest proxy's last.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): the same with names, and whether the client used TLS.
    Forwarded,
}

/// `[tls]`: the certificate of the listener. Without one it speaks plain HTTP and `ws`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file with the certificate and those between it and the root. Empty: no TLS.
    pub certificate: String,
    /// A PEM file with the certificate's key.
    pub key: String,
    /// A second port, without TLS; 0 takes a free one. Absent: none.
    pub plain_port: Option<u16>,
    /// The address to bind for the plain port; absent: the server's.
    #[serde(deserialize_with = "host::optional")]
    pub plain_host: Option<IpAddr>,
}

impl TlsConfig {
    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.certificate.is_empty() { "http" } else { "https" }
    }
}

//! Which server is loaded, and that it is ours to load.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use anyhow::Context as _;
use fanfare_protocol::Signer;
use reqwest::Url;

use super::{
    super::{CliError, target},
    BenchArgs,
};

/// A server and one of its apps.
#[derive(Debug)]
pub(super) struct Target {
    /// Host and port as in the URL, for the `Host` header.
    authority: String,
    host: String,
    address: SocketAddr,
    app: Arc<target::Target>,
}

impl Target {
    pub(super) fn new(args: &BenchArgs) -> Result<Self, CliError> {
        let app = Arc::new(args.target.target()?);
        let url = app.url().clone();
        Self::find("--url", &url, app, args)
    }

    /// Another node that has the same app.
    pub(super) fn at(&self, url: &str, args: &BenchArgs) -> Result<Self, CliError> {
        let parsed = Url::parse(url).map_err(|error| CliError::Usage(format!("--subscribe-at: {error}: {url}")))?;
        Self::find("--subscribe-at", &parsed, Arc::clone(&self.app), args)
    }

    fn find(flag: &str, url: &Url, app: Arc<target::Target>, args: &BenchArgs) -> Result<Self, CliError> {
        let bad = |why: &str| CliError::Usage(format!("{flag}: {why}: {url}"));
        if !matches!(url.scheme(), "ws" | "http") {
            return Err(bad("TLS is not measured here; give the ws:// address of a listener without it"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let authority = format!("{host}:{port}");
        let address = authority.to_socket_addrs().ok().and_then(|mut all| all.next());
        let address = address.with_context(|| format!("cannot find the address of {host}"))?;
        if !address.ip().is_loopback() && !args.i_may_load_this_host {
            return Err(bad("is not this machine; add --i-may-load-this-host if its owner agrees"));
        }
        Ok(Self { authority, host, address, app })
    }

    /// Where connections go.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Host and port, for a `Host` header.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The host's name or address, without a port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Path and query for a WebSocket.
    pub(super) fn websocket_path(&self) -> String {
        self.app.websocket_path("fanfare-bench")
    }

    /// Path for events.
    pub(super) fn events_path(&self) -> String {
        format!("{}/apps/{}/events", self.app.prefix(), self.app.id())
    }

    /// The app's key.
    pub(super) fn key(&self) -> &str {
        self.app.key()
    }

    /// Signs with the app's secret.
    pub(super) fn signer(&self) -> &Signer {
        self.app.signer()
    }
}

//! Which server and app are loaded.

use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::Context as _;
use fanfare_protocol::{AppSecret, Signer};
use reqwest::Url;

use super::{BenchArgs, CliError};
use crate::config::{AppConfig, Overrides};

/// A server and one of its apps.
#[derive(Debug)]
pub(super) struct Target {
    /// Host and port as in the URL, for the `Host` header.
    authority: String,
    host: String,
    address: SocketAddr,
    /// The server's path prefix, without a slash at its end.
    prefix: String,
    app: AppConfig,
    signer: Signer,
}

impl Target {
    pub(super) fn new(args: &BenchArgs) -> Result<Self, CliError> {
        let bad = |why: &str| CliError::Usage(format!("--url: {why}: {}", args.url));
        let url = Url::parse(&args.url).map_err(|error| bad(&error.to_string()))?;
        match url.scheme() {
            "ws" => {}
            "wss" => return Err(bad("TLS is not measured here; give the ws:// address of a listener without it")),
            _ => return Err(bad("has to begin with ws://")),
        }
        let host = url.host_str().ok_or_else(|| bad("has no host"))?.to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let authority = format!("{host}:{port}");
        let address = authority.to_socket_addrs().ok().and_then(|mut all| all.next());
        let address = address.with_context(|| format!("cannot find the address of {host}"))?;
        if !address.ip().is_loopback() && !args.i_may_load_this_host {
            return Err(bad("is not this machine; add --i-may-load-this-host if its owner agrees"));
        }
        let app = app(args)?;
        let signer = Signer::new(&app.secret);
        Ok(Self { authority, host, address, prefix: url.path().trim_end_matches('/').to_owned(), app, signer })
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
        let (prefix, key, version) = (&self.prefix, &self.app.key, env!("CARGO_PKG_VERSION"));
        format!("{prefix}/app/{key}?protocol=7&client=fanfare-bench&version={version}&flash=false")
    }

    /// Path for events.
    pub(super) fn events_path(&self) -> String {
        format!("{}/apps/{}/events", self.prefix, self.app.id)
    }

    /// The app's key.
    pub(super) fn key(&self) -> &str {
        self.app.key.as_str()
    }

    /// Signs with the app's secret.
    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }
}

/// The app of the flags; what they leave out is in the configuration.
fn app(args: &BenchArgs) -> Result<AppConfig, CliError> {
    let mut app = match (&args.app_id, &args.key, &args.secret) {
        (Some(_), Some(_), Some(_)) => AppConfig::default(),
        (wanted, ..) => {
            let config = args.config.sources(Overrides::default())?.load()?.config;
            let wanted = |app: &AppConfig| wanted.as_ref().is_none_or(|id| app.id.as_str() == id);
            let missing = || CliError::Usage("--app-id: the configuration has no such app".to_owned());
            config.apps.into_iter().find(wanted).ok_or_else(missing)?
        }
    };
    if let Some(id) = &args.app_id {
        app.id = fanfare_protocol::AppId::new(id);
    }
    if let Some(key) = &args.key {
        app.key = fanfare_protocol::AppKey::new(key);
    }
    if let Some(secret) = &args.secret {
        app.secret = AppSecret::new(secret);
    }
    Ok(app)
}

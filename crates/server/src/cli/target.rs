//! Which server and app a command is for. Flags win over `PUSHER_` variables, as Laravel's `.env` has them, and those over the
//! configuration.

use std::{env, net::IpAddr};

use clap::Args;
use fanfare_protocol::{AppId, AppKey, AppSecret, Signer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use super::{CliError, ConfigArgs, app::Database};
use crate::{
    config::{AppConfig, Config, Overrides},
    startup::reachable,
};

/// What is not percent-encoded in a segment of a path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The server, with its path prefix if it has one [default: `PUSHER_HOST`, else as the configuration says]
    #[arg(long)]
    url: Option<String>,
    /// The app [default: the first one of the configuration, the only one of its database, or the demo app]
    #[arg(long, value_name = "ID", env = "PUSHER_APP_ID")]
    app_id: Option<String>,
    /// The app's key [default: as the configuration says]
    #[arg(long, env = "PUSHER_APP_KEY")]
    key: Option<String>,
    /// The app's secret [default: as the configuration says]
    #[arg(long, env = "PUSHER_APP_SECRET", hide_env_values = true)]
    secret: Option<String>,
}

/// A server and one of its apps.
#[derive(Debug)]
pub(super) struct Target {
    /// Scheme, host, port and path prefix.
    url: Url,
    id: AppId,
    key: AppKey,
    signer: Signer,
}

impl TargetArgs {
    /// What the arguments, the environment and the configuration come to.
    pub(super) fn target(&self) -> Result<Target, CliError> {
        let mut config = None;
        let app = self.app(&mut config)?;
        let url = self.url(&mut config)?;
        Ok(Target { url, id: app.id, key: app.key, signer: Signer::new(&app.secret) })
    }

    /// The configuration, read when it is first needed.
    fn config<'c>(&self, config: &'c mut Option<Config>) -> Result<&'c Config, CliError> {
        if config.is_none() {
            *config = Some(self.config.sources(Overrides::default())?.load()?.config);
        }
        Ok(config.get_or_insert_default())
    }

    fn app(&self, config: &mut Option<Config>) -> Result<AppConfig, CliError> {
        // A line such as `PUSHER_APP_ID=` is as good as none.
        let [id, key, secret] =
            [&self.app_id, &self.key, &self.secret].map(|value| value.as_deref().filter(|value| !value.is_empty()));
        let mut app = match (id, key, secret) {
            (Some(_), Some(_), Some(_)) => AppConfig::default(),
            _ => configured_app(self.config(config)?, id)?,
        };
        if let Some(id) = id {
            app.id = AppId::new(id);
        }
        if let Some(key) = key {
            app.key = AppKey::new(key);
        }
        if let Some(secret) = secret {
            app.secret = AppSecret::new(secret);
        }
        Ok(app)
    }

    fn url(&self, config: &mut Option<Config>) -> Result<Url, CliError> {
        let (name, text) = match &self.url {
            Some(url) => ("--url", url.clone()),
            None => match pusher_url(|name| env::var(name).ok().filter(|value| !value.is_empty())) {
                Some(url) => ("PUSHER_HOST, PUSHER_PORT or PUSHER_SCHEME", url),
                None => ("the configuration's address", configured_url(self.config(config)?)?),
            },
        };
        let bad = |why: &str| CliError::Usage(format!("{name}: {why}: {text}"));
        let url = Url::parse(&text).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
            return Err(bad("has to begin with http://, https://, ws:// or wss://"));
        }
        url.host_str().ok_or_else(|| bad("has no host"))?;
        Ok(url)
    }
}

/// The app of this id, or the first one: of the configuration, else of the database that it names.
fn configured_app(config: &Config, id: Option<&str>) -> Result<AppConfig, CliError> {
    let find = |apps: &[AppConfig]| apps.iter().find(|app| id.is_none_or(|id| app.id.as_str() == id)).cloned();
    if let Some(app) = find(&config.apps) {
        return Ok(app);
    }
    let mut places = "the configuration has";
    if !config.database.url.is_empty() {
        places = "the configuration and its database have";
        let (apps, _) = Database::open(&config.database)?.apps()?;
        if id.is_none() && apps.len() > 1 {
            let text = "--app-id: which of the database's apps? `fanfare app list` shows them";
            return Err(CliError::Usage(text.to_owned()));
        }
        if let Some(app) = find(&apps) {
            return Ok(app);
        }
    }
    let text = match id {
        Some(id) => format!("--app-id: {places} no app with the id {id}"),
        None => format!("--app-id: {places} no app"),
    };
    Err(CliError::Usage(text))
}

/// Where Laravel would send events, if the variables say so.
fn pusher_url(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let host = variable("PUSHER_HOST")?;
    let scheme = variable("PUSHER_SCHEME").unwrap_or_else(|| "https".to_owned());
    let port = variable("PUSHER_PORT").map(|port| format!(":{port}")).unwrap_or_default();
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host,
    };
    Some(format!("{scheme}://{host}{port}"))
}

/// Where clients reach a server with this configuration.
fn configured_url(config: &Config) -> Result<String, CliError> {
    let (server, scheme) = (&config.server, config.tls.scheme());
    if !server.public_url.is_empty() {
        return Ok(format!("{}{}", server.public_url.trim_end_matches('/'), server.path_prefix));
    }
    if server.port == 0 {
        return Err(CliError::Usage("server.port is 0, so nobody knows the port: give the server's --url".to_owned()));
    }
    Ok(format!("{scheme}://{}:{}{}", reachable(server.host), server.port, server.path_prefix))
}

impl Target {
    /// The server.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The server's path prefix, without a slash at its end.
    pub(super) fn prefix(&self) -> &str {
        self.url.path().trim_end_matches('/')
    }

    /// The app's id.
    pub(super) fn id(&self) -> &str {
        self.id.as_str()
    }

    /// The app's key.
    pub(super) fn key(&self) -> &str {
        self.key.as_str()
    }

    /// Signs with the app's secret.
    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// `key:signature`, as clients send it.
    pub(super) fn auth(&self, string_to_sign: &str) -> String {
        format!("{}:{}", self.key, self.signer.sign(&[string_to_sign.as_bytes()]))
    }

    /// Scheme, host and port for HTTP.
    pub(super) fn origin(&self) -> String {
        let scheme = match self.url.scheme() {
            "ws" | "http" => "http",
            _ => "https",
        };
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{}{port}", self.url.host_str().unwrap_or_default())
    }

    /// Path and query for a WebSocket.
    pub(super) fn websocket_path(&self, client: &str) -> String {
        let (prefix, key, version) = (self.prefix(), encode(self.key()), env!("CARGO_PKG_VERSION"));
        format!("{prefix}/app/{key}?protocol=7&client={client}&version={version}&flash=false")
    }
}

/// A segment of a path, percent-encoded.
pub(super) fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, UNRESERVED).to_string()
}

/// A path, percent-encoded but for its slashes.
pub(super) fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pusher_variables_are_read_as_laravel_does() {
        let url = |variables: &[(&str, &str)]| {
            pusher_url(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(url(&[("PUSHER_PORT", "6001")]), None);
        assert_eq!(url(&[("PUSHER_HOST", "ws.test")]).unwrap(), "https://ws.test");
        assert_eq!(
            url(&[("PUSHER_HOST", "127.0.0.1"), ("PUSHER_PORT", "6001"), ("PUSHER_SCHEME", "http")]).unwrap(),
            "http://127.0.0.1:6001"
        );
        assert_eq!(url(&[("PUSHER_HOST", "::1"), ("PUSHER_PORT", "80")]).unwrap(), "https://[::1]:80");
    }

    #[test]
    fn without_any_the_configuration_says_where_it_listens() {
        let mut config = Config::default();
        config.server.host = IpAddr::from([0, 0, 0, 0]);
        config.server.path_prefix = "/ws".to_owned();
        assert_eq!(configured_url(&config).unwrap(), "http://127.0.0.1:6001/ws");
        config.server.port = 0;
        assert!(configured_url(&config).is_err());
        config.server.public_url = "https://ws.test".to_owned();
        assert_eq!(configured_url(&config).unwrap(), "https://ws.test/ws");
    }
}

//! The settings, under the names that Laravel applications use already.

use std::{path::PathBuf, str::FromStr};

use fanfare_protocol::{AppId, AppKey, AppSecret};
use serde::Serialize;

/// The app that `fanfare` serves without any configuration.
const DEMO: (&str, &str, &str) = ("app-id", "app-key", "app-secret");

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// `POS_HOST`: the address to listen on.
    pub host: String,
    /// `POS_PORT`; 0 takes a free one.
    pub port: u16,
    /// `POS_DATABASE`: the SQLite file, made when missing.
    pub database: PathBuf,
    /// `POS_WEB`: the built front end.
    pub web: PathBuf,
    /// The `PUSHER_*` settings.
    pub pusher: Pusher,
}

/// Where broadcasts go, and with whose signature.
#[derive(Clone, Debug)]
pub struct Pusher {
    /// `PUSHER_APP_ID`.
    pub app_id: AppId,
    /// `PUSHER_APP_KEY`.
    pub key: AppKey,
    /// `PUSHER_APP_SECRET`.
    pub secret: AppSecret,
    /// Scheme, host, port and path prefix of the HTTP API, without a slash at the end.
    pub api: String,
    /// What browsers connect with.
    pub realtime: Realtime,
}

/// The options of Echo's `pusher` broadcaster.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Realtime {
    /// The app's key.
    pub key: String,
    /// pusher.com's cluster; with a server of one's own it only has to be there.
    pub cluster: String,
    /// Whether to connect with TLS only.
    #[serde(rename = "forceTLS")]
    pub force_tls: bool,
    /// Where one's own server is; absent for pusher.com.
    #[serde(flatten)]
    pub server: Option<RealtimeServer>,
}

/// The options for a server of one's own.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RealtimeServer {
    /// Host, port and path prefix for WebSockets.
    pub ws_host: String,
    /// Without TLS.
    pub ws_port: u16,
    /// With TLS.
    pub wss_port: u16,
    /// Before `/app/{key}`; empty if there is none.
    pub ws_path: String,
    /// The same for the transports over HTTP.
    pub http_host: String,
    /// Without TLS.
    pub http_port: u16,
    /// With TLS.
    pub https_port: u16,
    /// Before `/app/{key}`.
    pub http_path: String,
}

/// What is wrong with a setting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Some of an app's three credentials are set, but not this one.
    #[error("{0} is not set, while others of PUSHER_APP_ID, PUSHER_APP_KEY and PUSHER_APP_SECRET are")]
    Missing(&'static str),
    /// Not a port.
    #[error("{name} is \"{value}\", which is not a port (0 to 65535)")]
    Port {
        /// The setting.
        name: &'static str,
        /// What it says.
        value: String,
    },
    /// Another scheme.
    #[error("{name} is \"{value}\", which is neither http nor https")]
    Scheme {
        /// The setting.
        name: &'static str,
        /// What it says.
        value: String,
    },
}

impl Config {
    /// Reads the settings; empty ones count as not set.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let get = |name: &str| lookup(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let default_web = concat!(env!("CARGO_MANIFEST_DIR"), "/web/dist");
        Ok(Self {
            host: get("POS_HOST").unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: port("POS_PORT", &get)?.unwrap_or(8000),
            database: get("POS_DATABASE").unwrap_or_else(|| "pos.sqlite".to_owned()).into(),
            web: get("POS_WEB").unwrap_or_else(|| default_web.to_owned()).into(),
            pusher: Pusher::from_lookup(&get)?,
        })
    }
}

impl Pusher {
    fn from_lookup(get: &impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let names = ["PUSHER_APP_ID", "PUSHER_APP_KEY", "PUSHER_APP_SECRET"];
        let [id, key, secret] = names.map(get);
        let of_ones_own = id.is_some() || key.is_some() || secret.is_some();
        let (id, key, secret) = if of_ones_own {
            (
                id.ok_or(ConfigError::Missing(names[0]))?,
                key.ok_or(ConfigError::Missing(names[1]))?,
                secret.ok_or(ConfigError::Missing(names[2]))?,
            )
        } else {
            (DEMO.0.to_owned(), DEMO.1.to_owned(), DEMO.2.to_owned())
        };
        let cluster = get("PUSHER_APP_CLUSTER").unwrap_or_else(|| "mt1".to_owned());
        // Nothing set means Fanfare as it starts by itself; an app without a host is one of pusher.com's.
        let host = get("PUSHER_HOST").or_else(|| (!of_ones_own).then(|| "127.0.0.1".to_owned()));
        let demo_scheme = if of_ones_own { Scheme::Https } else { Scheme::Http };
        let scheme = setting("PUSHER_SCHEME", get, |name, value| ConfigError::Scheme { name, value })?;
        let scheme = scheme.unwrap_or(demo_scheme);
        let demo_port = if of_ones_own { scheme.port() } else { 6001 };
        let given_port = port("PUSHER_PORT", get)?.unwrap_or(demo_port);
        let path = get("PUSHER_PATH").map(|path| format!("/{}", path.trim_matches('/'))).unwrap_or_default();

        let api = match &host {
            Some(host) => format!("{}://{host}:{given_port}{path}", scheme.as_str()),
            None => format!("https://api-{cluster}.pusher.com"),
        };
        let server = match host {
            Some(host) => {
                let ws_host = get("VITE_PUSHER_HOST").unwrap_or(host);
                let ws_port = port("VITE_PUSHER_PORT", get)?.unwrap_or(given_port);
                Some(RealtimeServer {
                    ws_port,
                    wss_port: ws_port,
                    ws_path: path.clone(),
                    http_host: ws_host.clone(),
                    http_port: ws_port,
                    https_port: ws_port,
                    // Without a prefix of its own, where pusher-js looks for it by itself.
                    http_path: if path.is_empty() { "/pusher".to_owned() } else { path },
                    ws_host,
                })
            }
            None => None,
        };
        let browser_scheme = setting("VITE_PUSHER_SCHEME", get, |name, value| ConfigError::Scheme { name, value })?;
        let force_tls = server.is_none() || browser_scheme.unwrap_or(scheme) == Scheme::Https;
        let realtime = Realtime { key: key.clone(), cluster, force_tls, server };
        Ok(Self { app_id: AppId::new(id), key: AppKey::new(key), secret: AppSecret::new(secret), api, realtime })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl FromStr for Scheme {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Http, Self::Https].into_iter().find(|scheme| scheme.as_str() == text).ok_or(())
    }
}

fn port(name: &'static str, get: &impl Fn(&str) -> Option<String>) -> Result<Option<u16>, ConfigError> {
    setting(name, get, |name, value| ConfigError::Port { name, value })
}

fn setting<T: FromStr>(
    name: &'static str,
    get: &impl Fn(&str) -> Option<String>,
    error: impl FnOnce(&'static str, String) -> ConfigError,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = get(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| error(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let found = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::from_lookup(found)
    }

    const OWN: [(&str, &str); 3] = [("PUSHER_APP_ID", "0123"), ("PUSHER_APP_KEY", "k"), ("PUSHER_APP_SECRET", "s")];

    #[test]
    fn without_settings_it_speaks_to_a_fanfare_started_without_settings() {
        let config = read(&[]).unwrap();
        assert_eq!(config.pusher.api, "http://127.0.0.1:6001");
        assert_eq!(config.pusher.realtime.server.unwrap().ws_port, 6001);
        assert!(!config.pusher.realtime.force_tls);
        assert_eq!(config.port, 8000);
    }

    #[test]
    fn an_app_without_a_host_is_at_pusher_com() {
        let config = read(&[&OWN[..], &[("PUSHER_APP_CLUSTER", "eu"), ("PUSHER_HOST", "")]].concat()).unwrap();
        assert_eq!(config.pusher.api, "https://api-eu.pusher.com");
        assert_eq!(config.pusher.app_id.as_str(), "0123");
        let realtime = serde_json::to_value(&config.pusher.realtime).unwrap();
        assert_eq!(realtime, serde_json::json!({"key": "k", "cluster": "eu", "forceTLS": true}));
    }

    #[test]
    fn browsers_can_have_another_way_to_the_server() {
        let own = [("PUSHER_HOST", "fanfare.internal"), ("PUSHER_PORT", "6001"), ("PUSHER_SCHEME", "http")];
        let public =
            [("VITE_PUSHER_HOST", "ws.example.test"), ("VITE_PUSHER_PORT", "443"), ("VITE_PUSHER_SCHEME", "https")];
        let config = read(&[&OWN[..], &own, &public].concat()).unwrap();
        assert_eq!(config.pusher.api, "http://fanfare.internal:6001");
        let server = config.pusher.realtime.server.unwrap();
        assert_eq!((server.ws_host.as_str(), server.wss_port), ("ws.example.test", 443));
        assert!(config.pusher.realtime.force_tls);
    }

    #[test]
    fn bad_settings_are_named() {
        assert_eq!(read(&[("PUSHER_APP_ID", "1")]).unwrap_err(), ConfigError::Missing("PUSHER_APP_KEY"));
        assert!(read(&[("POS_PORT", "eighty")]).unwrap_err().to_string().contains("POS_PORT is \"eighty\""));
        assert!(read(&[("PUSHER_SCHEME", "ws")]).unwrap_err().to_string().contains("PUSHER_SCHEME is \"ws\""));
    }
}

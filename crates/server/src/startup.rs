//! What a person needs after a start: the lines to paste into a Laravel application.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use crate::config::{AppConfig, Config};

/// The `.env` and Echo lines for the first app of the configuration of a server that listens at `address`.
///
/// The demo secret is shown, as everybody knows it; any other is not.
pub(crate) fn paste_lines(config: &Config, address: SocketAddr) -> String {
    let (id, key, secret) = match config.apps.first() {
        Some(app) if app.has_demo_secret() => (app.id.as_str(), app.key.as_str(), AppConfig::DEMO_SECRET),
        Some(app) => (app.id.as_str(), app.key.as_str(), "<the app's secret>"),
        // All apps are in the database.
        None => ("<the app's id>", "<the app's key>", "<the app's secret>"),
    };
    let (scheme, host, port) = public_address(config)
        .unwrap_or_else(|| (config.tls.scheme().to_owned(), reachable(address.ip()), address.port()));
    let force_tls = scheme == "https";
    let prefix = &config.server.path_prefix;

    let mut text = format!(
        "\
# Laravel: .env
BROADCAST_CONNECTION=pusher
PUSHER_APP_ID={id}
PUSHER_APP_KEY={key}
PUSHER_APP_SECRET={secret}
PUSHER_HOST={host}
PUSHER_PORT={port}
PUSHER_SCHEME={scheme}
PUSHER_APP_CLUSTER=mt1
"
    );
    if !prefix.is_empty() {
        // Laravel's stock configuration reads no path from the environment. (Writing to a string cannot fail.)
        let _ = write!(
            text,
            "
// Laravel: config/broadcasting.php, in connections.pusher.options
'path' => '{prefix}',
"
        );
    }
    let path = |option: &str| if prefix.is_empty() { String::new() } else { format!("  {option}: '{prefix}',\n") };
    let ws_path = path("wsPath");
    let other_transports = if config.xhr.enabled {
        // Where pusher-js finds the server if WebSockets do not get through; by itself it would ask pusher.com.
        format!("  httpHost: '{host}',\n  httpPort: {port},\n  httpsPort: {port},\n{}", path("httpPath"))
    } else {
        "  enabledTransports: ['ws', 'wss'],\n".to_owned()
    };
    let _ = write!(
        text,
        "
// Laravel Echo
window.Echo = new Echo({{
  broadcaster: 'pusher',
  key: '{key}',
  cluster: 'mt1',
  wsHost: '{host}',
  wsPort: {port},
  wssPort: {port},
{ws_path}  forceTLS: {force_tls},
{other_transports}}});
"
    );
    text
}

/// Scheme, host and port of `server.public_url`.
fn public_address(config: &Config) -> Option<(String, String, u16)> {
    let url = reqwest::Url::parse(&config.server.public_url).ok()?;
    Some((url.scheme().to_owned(), url.host_str()?.to_owned(), url.port_or_known_default()?))
}

/// The host to connect to: a server on all addresses is reachable at the loopback one. IPv6 goes in brackets, as the
/// clients put it in front of a colon and the port.
pub(crate) fn reachable(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use fanfare_protocol::{AppId, AppKey, AppSecret};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_demo_app_is_shown_ready_to_paste() {
        let expected = "\
# Laravel: .env
BROADCAST_CONNECTION=pusher
PUSHER_APP_ID=app-id
PUSHER_APP_KEY=app-key
PUSHER_APP_SECRET=app-secret
PUSHER_HOST=127.0.0.1
PUSHER_PORT=6001
PUSHER_SCHEME=http
PUSHER_APP_CLUSTER=mt1

// Laravel Echo
window.Echo = new Echo({
  broadcaster: 'pusher',
  key: 'app-key',
  cluster: 'mt1',
  wsHost: '127.0.0.1',
  wsPort: 6001,
  wssPort: 6001,
  forceTLS: false,
  httpHost: '127.0.0.1',
  httpPort: 6001,
  httpsPort: 6001,
});
";
        let config = Config { apps: vec![AppConfig::demo()], ..Config::default() };
        assert_eq!(paste_lines(&config, address("127.0.0.1:6001")), expected);
    }

    #[test]
    fn a_configured_secret_is_not_shown() {
        let app = AppConfig {
            id: AppId::new("till"),
            key: AppKey::new("till-key"),
            secret: AppSecret::new("hunter2"),
            ..AppConfig::default()
        };
        let lines = paste_lines(&Config { apps: vec![app], ..Config::default() }, address("0.0.0.0:80"));
        assert!(!lines.contains("hunter2"));
        assert!(
            lines.contains("PUSHER_APP_KEY=till-key\nPUSHER_APP_SECRET=<the app's secret>\nPUSHER_HOST=127.0.0.1\n")
        );
    }

    #[test]
    fn where_clients_reach_the_server_may_be_somewhere_else() {
        let mut config = Config::default();
        config.server.public_url = "https://ws.example.com".to_owned();
        let lines = paste_lines(&config, address("127.0.0.1:6001"));
        assert!(lines.contains("PUSHER_HOST=ws.example.com\nPUSHER_PORT=443\nPUSHER_SCHEME=https\n"), "{lines}");
        assert!(
            lines.contains("  wsHost: 'ws.example.com',\n  wsPort: 443,\n  wssPort: 443,\n  forceTLS: true,\n"),
            "{lines}"
        );
    }

    #[test]
    fn a_path_prefix_and_an_ipv6_address_reach_both_sides() {
        let mut config = Config::default();
        config.server.path_prefix = "/ws".to_owned();
        let lines = paste_lines(&config, address("[::1]:6001"));
        assert!(lines.contains("PUSHER_HOST=[::1]\n"));
        assert!(lines.contains("\n'path' => '/ws',\n"));
        assert!(lines.contains("  wsHost: '[::1]',\n  wsPort: 6001,\n  wssPort: 6001,\n  wsPath: '/ws',\n"));
        assert!(lines.contains("  httpHost: '[::1]',\n  httpPort: 6001,\n  httpsPort: 6001,\n  httpPath: '/ws',\n});"));
    }

    #[test]
    fn where_only_websockets_are_served_clients_use_no_other_transport() {
        let mut config = Config::default();
        config.xhr.enabled = false;
        let lines = paste_lines(&config, address("127.0.0.1:6001"));
        assert!(lines.contains("  forceTLS: false,\n  enabledTransports: ['ws', 'wss'],\n});"), "{lines}");
    }
}

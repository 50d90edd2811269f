//! What a type cannot say: which values make sense, alone and together.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};

use super::{
    AppConfig, BrokerConfig, BrokerDriver, Config, ConfigError, DatabaseConfig, RecoveryChannelConfig, RecoveryConfig,
    ServerConfig, WebhookConfig, WebhooksConfig, host_and_port,
};
use crate::{app::is_database_url, limits::MAX_WORKERS};

/// Ten years: far beyond any use, and a point in time plus this still exists.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Set by the server on each webhook, so not by an app.
const OWN_HEADERS: [&str; 5] = ["x-pusher-key", "x-pusher-signature", "content-type", "content-length", "host"];

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first bad key, and what would be right.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.server.validate()?;
        self.webhooks.validate()?;
        self.database.validate()?;
        self.broker.validate()?;
        check_durations("xhr", &[("grace", self.xhr.grace), ("heartbeat", self.xhr.heartbeat)], &[])?;
        self.recovery.validate()?;
        let (certificate, key) = (&self.tls.certificate, &self.tls.key);
        require(certificate.is_empty() || !key.is_empty(), "tls.key", "must be set, too, where tls.certificate is")?;
        require(key.is_empty() || !certificate.is_empty(), "tls.certificate", "must be set, too, where tls.key is")?;
        let prefix = &self.metrics.prefix;
        require(
            prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !prefix.starts_with(|c: char| c.is_ascii_digit()),
            "metrics.prefix",
            "begins the names of metrics, so it must be of ASCII letters, digits and _, and not begin with a digit",
        )?;
        let same_port = self.metrics.port == Some(self.server.port) && self.server.port != 0;
        require(!same_port, "metrics.port", "must not be that of server.port; leave it out to have metrics there")?;
        crate::logging::filter(&self.log.level).map_err(|problem| ConfigError::key("log.level", problem))?;
        self.validate_credentials()?;
        for (index, app) in self.apps.iter().enumerate() {
            app.validate(&format!("apps[{index}]"))?;
            app.validate_sizes(&format!("apps[{index}]"), &self.server)?;
        }
        Ok(())
    }

    /// Ids, keys and secrets, which have to be each app's own.
    fn validate_credentials(&self) -> Result<(), ConfigError> {
        let host = self.server.host;
        let public = !host.to_canonical().is_loopback();
        if public && (self.apps == [AppConfig::demo()] || (self.apps.is_empty() && self.database.url.is_empty())) {
            return Err(ConfigError::key(
                "server.host",
                format!(
                    "{host} is not a loopback address, and there is only the demo app, whose secret everybody knows; \
                     configure an app of your own: [[apps]] with id, key and secret, or FANFARE__APPS__0__ID, \
                     FANFARE__APPS__0__KEY and FANFARE__APPS__0__SECRET"
                ),
            ));
        }
        let (mut ids, mut keys) = (HashMap::new(), HashMap::new());
        for (index, app) in self.apps.iter().enumerate() {
            app.validate_keys(&format!("apps[{index}]"))?;
            let previous = (!app.previous_key.as_str().is_empty()).then_some(app.previous_key.as_str());
            let names = [("id", Some(app.id.as_str())), ("key", Some(app.key.as_str())), ("previous_key", previous)];
            for (name, value) in names.into_iter().filter_map(|(name, value)| Some((name, value?))) {
                let seen = if name == "id" { &mut ids } else { &mut keys };
                if let Some(other) = seen.insert(value, index) {
                    let problem = format!("must not be that of apps[{other}]");
                    return Err(ConfigError::key(format!("apps[{index}].{name}"), problem));
                }
            }
            app.validate_secret(&format!("apps[{index}]"), host)?;
        }
        Ok(())
    }
}

impl ServerConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let prefix = &self.path_prefix;
        let segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
        };
        require(
            prefix.is_empty() || prefix.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment)),
            "server.path_prefix",
            "must be empty or a path such as \"/ws\": begin with a slash, not end with one, and have only letters, digits \
             and - . _ ~ between",
        )?;
        require(self.workers <= MAX_WORKERS, "server.workers", &format!("must be at most {MAX_WORKERS}"))?;
        let url = Url::parse(&self.public_url);
        let is_base = |url: Url| {
            matches!(url.scheme(), "http" | "https")
                && url.path() == "/"
                && url.query().is_none()
                && url.username().is_empty()
        };
        require(
            self.public_url.is_empty() || url.is_ok_and(is_base),
            "server.public_url",
            "must be empty or a URL without a path, such as \"https://ws.example.com\" or \"http://localhost:6001\"",
        )?;
        require(
            !self.proxy_protocol || !self.trusted_proxies.is_empty(),
            "server.proxy_protocol",
            "needs server.trusted_proxies: anybody could claim to be anybody else",
        )?;
        require(
            !self.forwarded_headers.is_empty(),
            "server.forwarded_headers",
            "must list a header; to believe no proxy, leave server.trusted_proxies empty",
        )?;
        check_activity_timeout("server.activity_timeout", self.activity_timeout)?;
        check_durations(
            "server",
            &[
                ("pong_timeout", self.pong_timeout),
                ("write_timeout", self.write_timeout),
                ("request_timeout", self.request_timeout),
                ("keep_alive", self.keep_alive),
            ],
            &[
                ("shutdown_delay", self.shutdown_delay),
                ("shutdown_grace", self.shutdown_grace),
                ("publish_timeout", self.publish_timeout),
            ],
        )?;
        check_limits(
            "server",
            &[
                ("max_message_bytes", self.max_message_bytes),
                ("max_request_bytes", self.max_request_bytes),
                ("max_outbox_bytes", self.max_outbox_bytes),
                ("max_inbox_bytes", self.max_inbox_bytes),
            ],
        )
    }
}

impl BrokerConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        check_durations("broker", &[("buffer_time", self.buffer_time), ("window", self.window)], &[])?;
        check_limits("broker", &[("max_buffer_bytes", self.max_buffer_bytes)])?;
        require(
            self.window >= self.buffer_time,
            "broker.window",
            "must be at least broker.buffer_time: what waited that long has still to be found by other nodes",
        )?;
        require(
            !self.prefix.is_empty() && self.prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)),
            "broker.prefix",
            "must be of ASCII letters, digits and - _ . :",
        )?;
        if self.driver == BrokerDriver::Local {
            return Ok(());
        }
        let known = ["redis", "rediss", "valkey", "valkeys"];
        require(
            Url::parse(&self.url).is_ok_and(|url| {
                known.contains(&url.scheme()) && url.has_host() && url.query().is_none() && url.fragment().is_none()
            }),
            "broker.url",
            "must look like redis://user:password@host:6379/0, or rediss:// for TLS",
        )?;
        for (name, addresses) in [("sentinels", &self.sentinels), ("cluster_nodes", &self.cluster_nodes)] {
            for (index, address) in addresses.iter().enumerate() {
                let path = format!("broker.{name}[{index}]");
                require(
                    host_and_port(address).is_some(),
                    &path,
                    "must be like 10.0.0.1:26379; user, password and TLS are in broker.url",
                )?;
            }
        }
        require(
            self.sentinels.is_empty() || self.cluster_nodes.is_empty(),
            "broker.cluster_nodes",
            "cannot be there together with broker.sentinels: a cluster has no sentinels",
        )?;
        require(!self.sentinel_master.is_empty(), "broker.sentinel_master", "must not be empty")?;
        require(
            self.sentinel_username.is_empty() || !self.sentinel_password.is_empty(),
            "broker.sentinel_username",
            "needs broker.sentinel_password",
        )?;
        let database = Url::parse(&self.url).map(|url| url.path().trim_matches('/').to_owned()).unwrap_or_default();
        require(
            self.cluster_nodes.is_empty() || matches!(&*database, "" | "0"),
            "broker.url",
            "must not name a database: a cluster has only one",
        )
    }
}

impl DatabaseConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let whole = Url::parse(&self.url).is_ok_and(|url| url.has_host() || url.query().is_some());
        require(
            self.url.is_empty() || (whole && is_database_url(&self.url)),
            "database.url",
            "must be like postgres://user:password@host:5432/name or mysql://user:password@host:3306/name; marks in a password \
             as %40 for @, %2F for /; options such as ?sslmode=require (PostgreSQL) or ?ssl-mode=REQUIRED (MySQL)",
        )?;
        let word = |part: &str| {
            !part.is_empty() && part.len() <= 64 && part.chars().all(|c| c.is_ascii_alphanumeric() || "_$".contains(c))
        };
        require(
            self.table.split('.').all(word),
            "database.table",
            "must be the name of a table, of letters, digits, _ and $; with its schema as in \"public.apps\"",
        )?;
        check_durations("database", &[("cache_ttl", self.cache_ttl), ("timeout", self.timeout)], &[])?;
        require(
            self.cache_ttl >= Duration::from_millis(100),
            "database.cache_ttl",
            "must be at least \"100ms\": each time all apps in use are looked up again",
        )?;
        require(self.max_connections > 0, "database.max_connections", "must be more than 0")
    }
}

impl WebhooksConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        check_durations(
            "webhooks",
            &[("timeout", self.timeout), ("retry_initial", self.retry_initial)],
            &[("vacated_delay", self.vacated_delay), ("retry_for", self.retry_for)],
        )?;
        check_limits(
            "webhooks",
            &[("max_batch_events", self.max_batch_events), ("max_queued_events", self.max_queued_events)],
        )
    }
}

impl RecoveryConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        check_durations("recovery", &[], &[("window", self.window)])?;
        check_limits(
            "recovery",
            &[
                ("max_events", self.max_events),
                ("max_bytes", self.max_bytes),
                ("max_total_bytes", self.max_total_bytes),
                ("max_replay_bytes", self.max_replay_bytes),
            ],
        )?;
        check_recovery_channels("recovery.channels", &self.channels)
    }
}

fn check_recovery_channels(key: &str, channels: &[RecoveryChannelConfig]) -> Result<(), ConfigError> {
    for (index, channel) in channels.iter().enumerate() {
        let key = format!("{key}[{index}]");
        require(
            !channel.pattern.is_empty(),
            &format!("{key}.pattern"),
            "must be the name of a channel, with * for any characters, such as \"feed-*\"",
        )?;
        if let Some(window) = channel.window {
            check_durations(&key, &[], &[("window", window)])?;
            require(
                !window.is_zero() || (channel.history.last, channel.history.on_subscribe) == (0, 0),
                &format!("{key}.window"),
                "must be more than 0s where there is a history",
            )?;
        }
    }
    Ok(())
}

impl AppConfig {
    /// Checks whether id, keys and secrets can be used. Whether other apps have the same is checked elsewhere.
    pub(super) fn validate_keys(&self, app: &str) -> Result<(), ConfigError> {
        let previous = !self.previous_key.as_str().is_empty();
        for (name, value, needed) in [
            ("id", self.id.as_str(), true),
            ("key", self.key.as_str(), true),
            ("previous_key", self.previous_key.as_str(), false),
        ] {
            let key = format!("{app}.{name}");
            require(!needed || !value.is_empty(), &key, "must not be empty")?;
            require(
                is_name(value),
                &key,
                "is a part of URLs and signatures, so it must be of ASCII letters, digits and marks such as - _ .",
            )?;
        }
        require(!self.secret.expose().is_empty(), &format!("{app}.secret"), "must not be empty")?;
        require(
            previous != self.previous_secret.expose().is_empty(),
            &format!("{app}.{}", if previous { "previous_secret" } else { "previous_key" }),
            "must be set, too: a key and its secret go together",
        )
    }

    /// Whether its secret can be used by a server on this address.
    pub(super) fn validate_secret(&self, app: &str, host: IpAddr) -> Result<(), ConfigError> {
        if host.to_canonical().is_loopback() || !self.has_demo_secret() {
            return Ok(());
        }
        Err(ConfigError::key(
            format!("{app}.secret"),
            format!(
                "everybody knows the demo secret, and server.host {host} is not a loopback address; \
                 set a secret of your own, such as what `openssl rand -hex 32` prints"
            ),
        ))
    }

    pub(super) fn validate(&self, key: &str) -> Result<(), ConfigError> {
        check_limits(
            key,
            &[
                ("max_client_event_bytes", self.max_client_event_bytes),
                ("max_channels_per_connection", self.max_channels_per_connection),
                ("max_channel_name_length", self.max_channel_name_length),
                ("max_event_name_length", self.max_event_name_length),
                ("max_event_bytes", self.max_event_bytes),
                ("max_channels_per_trigger", self.max_channels_per_trigger),
                ("max_batch_events", self.max_batch_events),
                ("max_presence_members", self.max_presence_members),
                ("max_user_info_bytes", self.max_user_info_bytes),
            ],
        )?;
        check_durations(
            key,
            &[("cache_ttl", self.cache_ttl)],
            &[("authorization_timeout", self.authorization_timeout)],
        )?;
        if let Some(timeout) = self.activity_timeout {
            check_activity_timeout(&format!("{key}.activity_timeout"), timeout)?;
        }
        require(
            (4000..=4999).contains(&self.terminate_code),
            &format!("{key}.terminate_code"),
            "must be from 4000 to 4999, such as 4009 (stop) or 4200 (return at once)",
        )?;
        require(
            !self.allowed_origins.is_empty(),
            &format!("{key}.allowed_origins"),
            "must list an origin; \"*\" stands for all",
        )?;
        for (index, origin) in self.allowed_origins.iter().enumerate() {
            require(
                is_origin(origin),
                &format!("{key}.allowed_origins[{index}]"),
                "must be \"*\", a host such as \"example.com\", \"*.example.com\" or \"app-*.example.com\", or an origin such as \
                 \"https://example.com\" or \"http://localhost:5173\", without a path",
            )?;
        }
        let recovery = &self.recovery;
        let section = format!("{key}.recovery");
        check_durations(&section, &[], &[("window", recovery.window.unwrap_or_default())])?;
        for (name, limit) in [("max_events", recovery.max_events), ("max_bytes", recovery.max_bytes)] {
            check_limits(&section, &[(name, limit.unwrap_or(1))])?;
        }
        check_recovery_channels(&format!("{section}.channels"), &recovery.channels)?;
        for (index, webhook) in self.webhooks.iter().enumerate() {
            webhook.validate(&format!("{key}.webhooks[{index}]"))?;
        }
        Ok(())
    }

    /// An event that is allowed has to fit through what carries it.
    fn validate_sizes(&self, key: &str, server: &ServerConfig) -> Result<(), ConfigError> {
        for (name, bytes, carrier, room) in [
            ("max_event_bytes", self.max_event_bytes, "max_request_bytes", server.max_request_bytes),
            ("max_event_bytes", self.max_event_bytes, "max_outbox_bytes", server.max_outbox_bytes),
            ("max_client_event_bytes", self.max_client_event_bytes, "max_message_bytes", server.max_message_bytes),
        ] {
            if bytes > room {
                return Err(ConfigError::key(
                    format!("{key}.{name}"),
                    format!("must be at most server.{carrier}, which is {room}; raise that, too"),
                ));
            }
        }
        Ok(())
    }
}

impl WebhookConfig {
    pub(super) fn validate(&self, key: &str) -> Result<(), ConfigError> {
        let is_http = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        require(
            Url::parse(&self.url).is_ok_and(is_http),
            &format!("{key}.url"),
            "must be a whole URL that begins with https:// or http://",
        )?;
        let mut seen = HashMap::new();
        for (name, value) in &self.headers {
            let key = format!("{key}.headers.{name}");
            require(HeaderName::try_from(name).is_ok(), &key, "must be the name of a header, such as X-Team")?;
            require(
                HeaderValue::try_from(value).is_ok(),
                &key,
                "must be a header value: text without control characters",
            )?;
            let name_folded = name.to_ascii_lowercase();
            require(!OWN_HEADERS.contains(&name_folded.as_str()), &key, "is set by the server; leave it out")?;
            if let Some(other) = seen.insert(name_folded, name) {
                return Err(ConfigError::key(key, format!("the same header as {other}; set one of them")));
            }
        }
        Ok(())
    }
}

/// Whether a text can be an id or key.
pub(crate) fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic() && !"/?#%&:\"'<>\\".contains(c))
}

fn require(holds: bool, key: &str, otherwise: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::key(key, otherwise)) }
}

fn check_limits(section: &str, limits: &[(&str, usize)]) -> Result<(), ConfigError> {
    for (name, limit) in limits {
        require(*limit > 0, &format!("{section}.{name}"), "must be more than 0")?;
    }
    Ok(())
}

fn check_durations(section: &str, positive: &[(&str, Duration)], any: &[(&str, Duration)]) -> Result<(), ConfigError> {
    for (name, duration) in positive {
        require(!duration.is_zero(), &format!("{section}.{name}"), "must be more than 0s")?;
    }
    for (name, duration) in positive.iter().chain(any) {
        require(*duration <= LONGEST, &format!("{section}.{name}"), "must be at most 10 years")?;
    }
    Ok(())
}

/// Clients are told it as a number of seconds.
fn check_activity_timeout(key: &str, timeout: Duration) -> Result<(), ConfigError> {
    require(
        timeout >= Duration::from_secs(1) && timeout.subsec_nanos() == 0 && timeout <= LONGEST,
        key,
        "must be whole seconds, at least \"1s\"",
    )
}

/// `*`, a host, `*.host`, or `scheme://host[:port]`.
fn is_origin(text: &str) -> bool {
    match text.split_once("://") {
        _ if text == "*" => true,
        None => is_host(text),
        Some((scheme, authority)) => {
            let (host, port) = match authority.rsplit_once(':') {
                // The last colon of an IPv6 address is inside its brackets.
                Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
                _ => (authority, None),
            };
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
                && is_host(host)
                && port.is_none_or(|port| port.parse::<u16>().is_ok())
        }
    }
}

/// A name or an IP address, as it stands in an `Origin` header: IPv6 in brackets, other alphabets as punycode. `*` stands for
/// any characters.
fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_*".contains(c));
    text.split('.').all(label)
}

#[cfg(test)]
mod tests;

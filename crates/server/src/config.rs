//! The configuration: one struct per concern. Defaults < file < `.env` file < environment < flags; the defaults run as they are.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `load` | reads the sources, in their order |
//! | `environment` | `FANFARE__SECTION__KEY` variables as paths into the configuration |
//! | `env_file` | `.env` files, as Laravel reads them |
//! | `alias`, `laravel`, `soketi` | names that people have in their settings already |
//! | `merge` | all sources in one tree |
//! | `follow`, `soketi_database` | what they say together, for keys that none of them sets |
//! | `strict` | typed values out of the merged tree: nothing unknown, no silent conversion |
//! | `validate` | what a type cannot say |
//! | `origin` | where values come from |
//! | `annotated`, `redacted` | the configuration as text, without its secrets |
//! | `database`, `node_limits` | their sections |
//! | `row` | an app out of a row of a database |
//! | `duration`, `host`, `memory`, `network` | how such values are written |
//! | `error` | one line: source, key, what would be right |

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use fanfare_protocol::{AppId, AppKey, AppSecret, limits, webhook::WebhookEventType};
use serde::{Deserialize, Serialize};

mod alias;
mod annotated;
mod database;
mod duration;
mod env_file;
mod environment;
mod error;
mod follow;
mod host;
mod laravel;
mod load;
mod memory;
mod merge;
mod network;
mod node_limits;
mod origin;
mod redacted;
mod row;
mod soketi;
mod soketi_database;
mod strict;
mod validate;
mod xhr;

pub use self::{
    alias::{alias_rows, app_field_rows},
    annotated::Loaded,
    database::{DatabaseConfig, RowDefaults},
    environment::process_environment,
    error::ConfigError,
    load::{EnvFile, Overrides, Sources},
    memory::MemoryLimit,
    network::Network,
    node_limits::LimitsConfig,
    xhr::XhrConfig,
};
pub(crate) use self::{host::host_and_port, validate::is_name};

/// Everything that can be set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where and how the server listens.
    pub server: ServerConfig,
    /// The certificate of the listener.
    pub tls: TlsConfig,
    /// Clients that cannot use a WebSocket.
    pub xhr: XhrConfig,
    /// The apps. A configuration that lists none is loaded with the demo app, on loopback addresses only.
    pub apps: Vec<AppConfig>,
    /// A table with more apps.
    pub database: DatabaseConfig,
    /// What the node takes on, and what one client address may.
    pub limits: LimitsConfig,
    /// What connects this node with others.
    pub broker: BrokerConfig,
    /// How webhooks are delivered.
    pub webhooks: WebhooksConfig,
    /// What clients that lost their connection get back.
    pub recovery: RecoveryConfig,
    /// What is written to the log, and how.
    pub log: LogConfig,
    /// Whether and where metrics are told.
    pub metrics: MetricsConfig,
}

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
    /// How long a connection may leave written bytes unacknowledged before it is ended.
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

/// `[[apps]]`: one tenant, its credentials, policy and limits.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppConfig {
    /// Part of HTTP API paths.
    pub id: AppId,
    /// Public; part of WebSocket URLs.
    pub key: AppKey,
    /// Signs requests and subscriptions.
    #[serde(serialize_with = "redacted::secret")]
    pub secret: AppSecret,
    /// The key before this one, during a rotation; empty: none. Both are active, and webhooks are signed as before.
    pub previous_key: AppKey,
    /// The secret of the key before.
    #[serde(serialize_with = "redacted::secret")]
    pub previous_secret: AppSecret,
    /// Refuse everybody with 4003, and API requests with 403, when false.
    pub enabled: bool,
    /// Refuse connections without TLS with 4000, and API requests without it with 403.
    pub require_tls: bool,
    /// Clients may send `client-` events on private and presence channels.
    pub client_events: bool,
    /// They may do so on public channels, too, as with Soketi and Reverb; pusher.com refuses it.
    pub client_events_on_public_channels: bool,
    /// Client events one connection may send in a second; 0: no limit.
    pub max_client_events_per_second: u32,
    /// Bytes of a client event's data.
    pub max_client_event_bytes: usize,
    /// Announce the number of subscribers of channels that are not presence channels.
    pub subscription_count: bool,
    /// Reads of channels say how many subscribe, and presence channels how many users, whether or not `info` asks, as
    /// Soketi's do.
    pub always_counts: bool,
    /// Tell signed-in users when the users they watch come and go.
    pub watchlist: bool,
    /// Users on one watchlist.
    pub max_watchlist_users: usize,
    /// `Origin` values that may connect: `*`, a host (`*.example.com` with its subdomains) or `scheme://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// Live connections; 0: no limit.
    pub max_connections: usize,
    /// Live connections over HTTP, of those; 0: no limit.
    pub max_xhr_sessions: usize,
    /// Events the HTTP API may publish in a second, each channel of an event counted; 0: no limit.
    pub max_backend_events_per_second: u32,
    /// Client events all connections together may send in a second; 0: no limit.
    pub max_total_client_events_per_second: u32,
    /// Reads of the HTTP API in a second; 0: no limit.
    pub max_reads_per_second: u32,
    /// Subscriptions of one connection.
    pub max_channels_per_connection: usize,
    /// Channels that have subscribers or keep an event.
    pub max_channels: usize,
    /// Bytes of a channel name.
    pub max_channel_name_length: usize,
    /// Characters of an event name.
    pub max_event_name_length: usize,
    /// Bytes of an event's data.
    pub max_event_bytes: usize,
    /// Channels of one trigger.
    pub max_channels_per_trigger: usize,
    /// Events of one batch.
    pub max_batch_events: usize,
    /// Distinct users in a presence channel.
    pub max_presence_members: usize,
    /// Bytes of a `user_info` as JSON.
    pub max_user_info_bytes: usize,
    /// How long a cache channel keeps its event.
    #[serde(with = "duration")]
    pub cache_ttl: Duration,
    /// Events all cache channels of the app may keep; the next one is published, but not kept, and that is counted.
    pub max_cached_events: usize,
    /// Silence after which either side pings; absent: the server's.
    #[serde(with = "duration::optional")]
    pub activity_timeout: Option<Duration>,
    /// Close connections with 4009 that have neither signed in nor joined a private or presence channel by then; 0: never.
    #[serde(with = "duration")]
    pub authorization_timeout: Duration,
    /// The close code of terminated users: 4009 stops pusher-js, 4200 lets it return at once.
    pub terminate_code: u16,
    /// Triggers may use event names that begin with `pusher:` or `pusher_internal:`.
    pub allow_reserved_event_names: bool,
    /// Where the app is told of what happens.
    pub webhooks: Vec<WebhookConfig>,
    /// What the app wants otherwise than `[recovery]`.
    pub recovery: AppRecoveryConfig,
}

impl Default for AppConfig {
    fn default() -> Self {
        Self {
            id: AppId::new(""),
            key: AppKey::new(""),
            secret: AppSecret::new(""),
            previous_key: AppKey::new(""),
            previous_secret: AppSecret::new(""),
            enabled: true,
            require_tls: false,
            client_events: true,
            client_events_on_public_channels: false,
            max_client_events_per_second: limits::CLIENT_EVENTS_PER_SECOND,
            max_client_event_bytes: limits::EVENT_DATA_BYTES,
            subscription_count: true,
            always_counts: false,
            watchlist: true,
            max_watchlist_users: limits::WATCHLIST_USERS,
            allowed_origins: vec!["*".to_owned()],
            max_connections: 0,
            max_xhr_sessions: 10_000,
            max_backend_events_per_second: 0,
            max_total_client_events_per_second: 0,
            max_reads_per_second: 0,
            max_channels_per_connection: 1_000,
            max_channels: 1_000_000,
            max_channel_name_length: limits::CHANNEL_NAME_BYTES,
            max_event_name_length: limits::EVENT_NAME_CHARS,
            max_event_bytes: limits::EVENT_DATA_BYTES,
            max_channels_per_trigger: limits::CHANNELS_PER_TRIGGER,
            max_batch_events: limits::EVENTS_PER_BATCH,
            max_presence_members: limits::PRESENCE_MEMBERS,
            max_user_info_bytes: limits::USER_INFO_BYTES,
            cache_ttl: limits::CACHE_TTL,
            max_cached_events: 100_000,
            activity_timeout: None,
            authorization_timeout: Duration::ZERO,
            terminate_code: 4009,
            allow_reserved_event_names: false,
            webhooks: Vec::new(),
            recovery: AppRecoveryConfig::default(),
        }
    }
}

impl AppConfig {
    /// The secret of the demo app. Everybody knows it, so it is refused on addresses that others can reach.
    pub const DEMO_SECRET: &str = "app-secret";

    /// The app of a configuration that lists none.
    pub fn demo() -> Self {
        Self {
            id: AppId::new("app-id"),
            key: AppKey::new("app-key"),
            secret: AppSecret::new(Self::DEMO_SECRET),
            ..Self::default()
        }
    }

    /// Whether a secret of the app is the demo app's.
    pub fn has_demo_secret(&self) -> bool {
        self.keys().any(|(_, secret)| secret.expose() == Self::DEMO_SECRET)
    }

    /// The active keys with their secrets, the newest first.
    pub fn keys(&self) -> impl Iterator<Item = (&AppKey, &AppSecret)> {
        let previous = (!self.previous_key.as_str().is_empty()).then_some((&self.previous_key, &self.previous_secret));
        [(&self.key, &self.secret)].into_iter().chain(previous)
    }

    /// The active key that everybody knows who knows one.
    pub(crate) fn oldest_key(&self) -> (&AppKey, &AppSecret) {
        self.keys().last().unwrap_or((&self.key, &self.secret))
    }
}

/// `[[apps.webhooks]]`: one endpoint of an app.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where to POST to.
    #[serde(serialize_with = "redacted::url")]
    pub url: String,
    /// What to tell; empty: everything.
    pub event_types: Vec<WebhookEventType>,
    /// Which channels to tell of.
    pub filter: WebhookFilter,
    /// Sent along; cannot replace the signature's headers.
    #[serde(serialize_with = "redacted::headers")]
    pub headers: BTreeMap<String, String>,
}

// By hand, as headers and URLs may carry credentials.
impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("url", &self.redacted_url())
            .field("event_types", &self.event_types)
            .field("filter", &self.filter)
            .field("headers", &self.headers.keys())
            .finish()
    }
}

/// `filter` of a webhook; both have to hold, and an empty one always does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookFilter {
    /// How the channel's name begins.
    pub channel_name_starts_with: String,
    /// How the channel's name ends.
    pub channel_name_ends_with: String,
}

/// `[broker]`: what connects this node with others.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// One node alone, or several that share a Redis.
    pub driver: BrokerDriver,
    /// Where Redis is: `redis://user:password@host:port/db`, `rediss://` with TLS.
    #[serde(serialize_with = "redacted::url")]
    pub url: String,
    /// Sentinels that tell which server is the primary, each as `host:port`; then the host in `url` does not matter.
    pub sentinels: Vec<String>,
    /// What the sentinels call the primary.
    pub sentinel_master: String,
    /// User at the sentinels. Empty: none.
    pub sentinel_username: String,
    /// Password at the sentinels. Empty: none.
    #[serde(serialize_with = "redacted::password")]
    pub sentinel_password: String,
    /// Some servers of a Redis Cluster, each as `host:port`; then the host in `url` does not matter.
    pub cluster_nodes: Vec<String>,
    /// What the names of all keys and channels in Redis begin with.
    pub prefix: String,
    /// How long events may wait for a Redis that is out of reach before triggers are answered 503.
    #[serde(with = "duration")]
    pub buffer_time: Duration,
    /// Bytes of events that may wait for Redis; as many again are kept for one that loses its log.
    pub max_buffer_bytes: usize,
    /// How long events are kept in Redis, and by the node that published them, for nodes that missed them.
    #[serde(with = "duration")]
    pub window: Duration,
}

/// What connects nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokerDriver {
    /// Nothing: this node is alone.
    #[default]
    Local,
    /// A Redis that all nodes share.
    Redis,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            driver: BrokerDriver::Local,
            url: "redis://127.0.0.1:6379".to_owned(),
            sentinels: Vec::new(),
            sentinel_master: "mymaster".to_owned(),
            sentinel_username: String::new(),
            sentinel_password: String::new(),
            cluster_nodes: Vec::new(),
            prefix: "fanfare".to_owned(),
            buffer_time: Duration::from_secs(10),
            max_buffer_bytes: 16 * 1024 * 1024,
            window: Duration::from_secs(60),
        }
    }
}

// By hand, as the URL may carry a password.
impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("driver", &self.driver)
            .field("url", &self.redacted_url())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// `[webhooks]`: how webhooks are delivered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Put what has gathered for an endpoint into one request; else each event has its own.
    pub batching: bool,
    /// Events of one request, when batching.
    pub max_batch_events: usize,
    /// How long `channel_vacated` and `member_removed` wait whether somebody comes back.
    #[serde(with = "duration")]
    pub vacated_delay: Duration,
    /// How long one request may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The first pause after a failure; it doubles with each one.
    #[serde(with = "duration")]
    pub retry_initial: Duration,
    /// How long an event is tried before it is dropped.
    #[serde(with = "duration")]
    pub retry_for: Duration,
    /// Events that may wait for one endpoint; further ones are dropped, counted and logged.
    pub max_queued_events: usize,
}

impl Default for WebhooksConfig {
    fn default() -> Self {
        Self {
            batching: false,
            max_batch_events: 100,
            vacated_delay: limits::VACATED_DELAY,
            timeout: Duration::from_secs(10),
            retry_initial: Duration::from_secs(1),
            retry_for: limits::WEBHOOK_RETRY,
            max_queued_events: 10_000,
        }
    }
}

/// `[metrics]`: `GET /metrics` for Prometheus.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Tell them at all.
    pub enabled: bool,
    /// A port of their own; absent: the server's, and then to this machine alone. 0 takes a free one.
    pub port: Option<u16>,
    /// The address to bind, with a port of their own.
    #[serde(deserialize_with = "host::deserialize")]
    pub host: IpAddr,
    /// How every name begins.
    pub prefix: String,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { enabled: true, port: None, host: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: "fanfare_".to_owned() }
    }
}

/// `[recovery]`: what clients that lost their connection, and ask for it, get back.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryConfig {
    /// Keep events for clients that ask; when false, whoever asks is told that nothing could be recovered.
    pub enabled: bool,
    /// How long an event is kept, and how long a channel keeps events after the last client that asked has left. 0: no recovery.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Events kept of one channel.
    pub max_events: usize,
    /// Bytes kept of one channel.
    pub max_bytes: usize,
    /// Bytes kept of all channels together; beyond it the oldest go, whatever their channel.
    pub max_total_bytes: usize,
    /// Bytes one subscription may get back; more is told as a gap. Half of `server.max_outbox_bytes` is a bound as well.
    pub max_replay_bytes: usize,
    /// Where a server that shuts down leaves what it keeps for the next start; empty: nowhere.
    pub file: String,
    /// Channels with a window or a history of their own; the first whose pattern fits counts.
    pub channels: Vec<RecoveryChannelConfig>,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            window: Duration::from_secs(120),
            max_events: 1_000,
            max_bytes: 256 * 1024,
            max_total_bytes: 64 * 1024 * 1024,
            max_replay_bytes: 256 * 1024,
            file: String::new(),
            channels: Vec::new(),
        }
    }
}

/// `[[recovery.channels]]`: channels that are treated in another way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryChannelConfig {
    /// The names this is about; `*` stands for any characters.
    pub pattern: String,
    /// How long; absent: as for other channels. 0: no recovery.
    #[serde(with = "duration::optional")]
    pub window: Option<Duration>,
    /// What those who subscribe may have of the time before.
    pub history: HistoryConfig,
}

/// `history` of a channel pattern: events for subscribers who were not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// Events a client may ask for with `{last: n}`.
    pub last: usize,
    /// Events everybody gets who subscribes, asked or not.
    pub on_subscribe: usize,
    /// Holds for channels that need an authorisation, too.
    pub private: bool,
}

/// `[apps.recovery]`: what is absent is as in `[recovery]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppRecoveryConfig {
    /// As `recovery.enabled`.
    pub enabled: Option<bool>,
    /// As `recovery.window`.
    #[serde(with = "duration::optional")]
    pub window: Option<Duration>,
    /// As `recovery.max_events`.
    pub max_events: Option<usize>,
    /// As `recovery.max_bytes`.
    pub max_bytes: Option<usize>,
    /// Looked at before `recovery.channels`.
    pub channels: Vec<RecoveryChannelConfig>,
}

/// `[log]`: what is written to stderr, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list such as `info,fanfare_server::webhook=debug`.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info,actix_server=warn".to_owned(), format: LogFormat::Text }
    }
}

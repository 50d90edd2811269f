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
//! | `server`, `app`, `database`, `node_limits`, `xhr`, `broker`, `recovery` | sections, with their defaults |
//! | `row` | an app out of a row of a database |
//! | `duration`, `host`, `memory`, `network` | how such values are written |
//! | `error` | one line: source, key, what would be right |

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use fanfare_protocol::limits;
use serde::{Deserialize, Serialize};

mod alias;
mod annotated;
mod app;
mod broker;
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
mod recovery;
mod redacted;
mod row;
mod server;
mod soketi;
mod soketi_database;
mod strict;
mod validate;
mod xhr;

pub use self::{
    alias::{alias_rows, app_field_rows},
    annotated::Loaded,
    app::{AppConfig, WebhookConfig, WebhookFilter},
    broker::{BrokerConfig, BrokerDriver},
    database::{DatabaseConfig, RowDefaults},
    environment::process_environment,
    error::ConfigError,
    load::{EnvFile, Overrides, Sources},
    memory::MemoryLimit,
    network::Network,
    node_limits::LimitsConfig,
    recovery::{AppRecoveryConfig, HistoryConfig, RecoveryChannelConfig, RecoveryConfig},
    server::{ForwardedHeader, ServerConfig, TlsConfig},
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

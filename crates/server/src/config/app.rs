//! `[[apps]]`: one app, and the endpoints of its webhooks.

use std::{collections::BTreeMap, fmt, time::Duration};

use fanfare_protocol::{AppId, AppKey, AppSecret, limits, webhook::WebhookEventType};
use serde::{Deserialize, Serialize};

use super::{AppRecoveryConfig, duration, redacted};

/// `[[apps]]`: one app with its credentials, policy and limits.
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

//! What is configured of an app, made ready for use. Never changed: a new one takes its place.

use std::time::Duration;

use fanfare_protocol::{AppKey, AppSecret, Signer, limits, presence::MemberLimits, trigger::EventLimits};

use super::origin::OriginPattern;
use crate::config::{AppConfig, ServerConfig};

/// An app's configuration with all that follows from it.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) config: AppConfig,
    pub(crate) event_limits: EventLimits,
    pub(crate) member_limits: MemberLimits,
    pub(crate) activity_timeout: Duration,
    /// Changes of its subscriptions a connection may make at once: enough to leave all its channels and join as many others.
    pub(crate) subscription_changes: u32,
    /// The active keys; a second one during a rotation.
    keys: Vec<(AppKey, Signer)>,
    origins: Vec<OriginPattern>,
}

impl Policy {
    pub(super) fn new(config: AppConfig, server: &ServerConfig) -> Self {
        let keyed = |(key, secret): (&AppKey, &AppSecret)| (key.clone(), Signer::new(secret));
        Self {
            event_limits: EventLimits {
                event_name_chars: config.max_event_name_length,
                data_bytes: config.max_event_bytes,
                channel_name_bytes: config.max_channel_name_length,
                channels: config.max_channels_per_trigger,
                batch: config.max_batch_events,
                reserved_names: config.allow_reserved_event_names,
            },
            member_limits: MemberLimits { user_id: limits::USER_ID_CHARS, user_info: config.max_user_info_bytes },
            activity_timeout: config.activity_timeout.unwrap_or(server.activity_timeout),
            subscription_changes: u32::try_from(config.max_channels_per_connection)
                .unwrap_or(u32::MAX)
                .saturating_mul(2),
            keys: config.keys().map(keyed).collect(),
            origins: config.allowed_origins.iter().map(|pattern| OriginPattern::new(pattern)).collect(),
            config,
        }
    }

    /// The prepared secret of one of the app's keys.
    pub(crate) fn signer(&self, key: &str) -> Option<&Signer> {
        self.keys.iter().find(|(active, _)| active.as_str() == key).map(|(_, signer)| signer)
    }

    /// Whether pages of this origin may connect. Clients that are no browsers send none, and could send any.
    pub(crate) fn allows_origin(&self, origin: Option<&str>) -> bool {
        origin.is_none_or(|origin| self.origins.iter().any(|pattern| pattern.matches(origin)))
    }
}

//! Bodies of webhooks.

use serde::Serialize;

/// What an app is told. All values are strings but the count; SDKs in typed languages rely on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum WebhookEvent {
    /// A channel got its first subscriber.
    ChannelOccupied {
        /// The channel.
        channel: Box<str>,
    },
    /// A channel lost its last subscriber.
    ChannelVacated {
        /// The channel.
        channel: Box<str>,
    },
    /// A user's first connection joined a presence channel.
    MemberAdded {
        /// The channel.
        channel: Box<str>,
        /// The user.
        user_id: Box<str>,
    },
    /// A user's last connection left a presence channel.
    MemberRemoved {
        /// The channel.
        channel: Box<str>,
        /// The user.
        user_id: Box<str>,
    },
    /// A client sent an event.
    ClientEvent {
        /// The channel.
        channel: Box<str>,
        /// The event's name.
        event: Box<str>,
        /// Its data, as subscribers got it.
        data: Box<str>,
        /// Who sent it.
        socket_id: Box<str>,
        /// The member who sent it, on presence channels.
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<Box<str>>,
    },
    /// A subscriber found a cache channel empty.
    CacheMiss {
        /// The channel.
        channel: Box<str>,
    },
    /// The number of connections of a channel changed.
    SubscriptionCount {
        /// The channel.
        channel: Box<str>,
        /// Connections.
        subscription_count: usize,
    },
}

/// The kinds of [`WebhookEvent`], as an app chooses them for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookEventType {
    /// [`WebhookEvent::ChannelOccupied`]
    ChannelOccupied,
    /// [`WebhookEvent::ChannelVacated`]
    ChannelVacated,
    /// [`WebhookEvent::MemberAdded`]
    MemberAdded,
    /// [`WebhookEvent::MemberRemoved`]
    MemberRemoved,
    /// [`WebhookEvent::ClientEvent`]
    ClientEvent,
    /// [`WebhookEvent::CacheMiss`]
    CacheMiss,
    /// [`WebhookEvent::SubscriptionCount`]
    SubscriptionCount,
}

impl WebhookEvent {
    /// The kind.
    pub fn event_type(&self) -> WebhookEventType {
        match self {
            Self::ChannelOccupied { .. } => WebhookEventType::ChannelOccupied,
            Self::ChannelVacated { .. } => WebhookEventType::ChannelVacated,
            Self::MemberAdded { .. } => WebhookEventType::MemberAdded,
            Self::MemberRemoved { .. } => WebhookEventType::MemberRemoved,
            Self::ClientEvent { .. } => WebhookEventType::ClientEvent,
            Self::CacheMiss { .. } => WebhookEventType::CacheMiss,
            Self::SubscriptionCount { .. } => WebhookEventType::SubscriptionCount,
        }
    }

    /// The channel it is about.
    pub fn channel(&self) -> &str {
        match self {
            Self::ChannelOccupied { channel }
            | Self::ChannelVacated { channel }
            | Self::MemberAdded { channel, .. }
            | Self::MemberRemoved { channel, .. }
            | Self::ClientEvent { channel, .. }
            | Self::CacheMiss { channel }
            | Self::SubscriptionCount { channel, .. } => channel,
        }
    }
}

/// The body of a webhook: `{"time_ms":1327078148132,"events":[..]}`.
///
/// `time_ms` is Unix **milliseconds** of this attempt: the Python SDK refuses bodies older than five minutes.
pub fn body<'a>(time_ms: u64, events: impl IntoIterator<Item = &'a WebhookEvent>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        time_ms: u64,
        events: Vec<&'a WebhookEvent>,
    }
    // Strings and numbers into memory: nothing here can fail.
    serde_json::to_vec(&Body { time_ms, events: events.into_iter().collect() }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_look_as_the_documentation_shows_them() {
        let events = [
            WebhookEvent::ChannelOccupied { channel: "c".into() },
            WebhookEvent::MemberAdded { channel: "presence-c".into(), user_id: "u".into() },
            WebhookEvent::ClientEvent {
                channel: "private-c".into(),
                event: "client-x".into(),
                data: "{\"a\":1}".into(),
                socket_id: "1.2".into(),
                user_id: None,
            },
            WebhookEvent::SubscriptionCount { channel: "c".into(), subscription_count: 3 },
        ];
        assert_eq!(
            String::from_utf8(body(1_327_078_148_132, &events)).unwrap(),
            r#"{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"c"},{"name":"member_added","channel":"presence-c","user_id":"u"},{"name":"client_event","channel":"private-c","event":"client-x","data":"{\"a\":1}","socket_id":"1.2"},{"name":"subscription_count","channel":"c","subscription_count":3}]}"#
        );
    }
}

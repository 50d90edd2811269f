//! The limits of pusher.com, which are the defaults here. All of them are settings of an app.
//!
//! Source unless said otherwise: Channels documentation, "Limits" and the pages of the features.

use std::time::Duration;

/// Bytes of a channel name, prefix included.
pub const CHANNEL_NAME_BYTES: usize = 164;
/// Characters of an event name.
pub const EVENT_NAME_CHARS: usize = 200;
/// Bytes of an event's `data` string after JSON decoding.
pub const EVENT_DATA_BYTES: usize = 10 * 1024;
/// Channels of one trigger. Laravel cuts longer lists into requests of this size.
pub const CHANNELS_PER_TRIGGER: usize = 100;
/// Events of one batch.
pub const EVENTS_PER_BATCH: usize = 10;
/// Distinct users in one presence channel.
pub const PRESENCE_MEMBERS: usize = 100;
/// Characters of a user id.
pub const USER_ID_CHARS: usize = 128;
/// Bytes of a `user_info` as JSON.
pub const USER_INFO_BYTES: usize = 1024;
/// Client events per second and connection.
pub const CLIENT_EVENTS_PER_SECOND: u32 = 10;
/// Users on one watchlist.
pub const WATCHLIST_USERS: usize = 100;
/// How long a cache channel keeps its event.
pub const CACHE_TTL: Duration = Duration::from_secs(30 * 60);
/// How far `auth_timestamp` may be from the server's clock.
pub const AUTH_WINDOW: Duration = Duration::from_secs(600);
/// Silence after which a client, and the server, sends a ping.
pub const ACTIVITY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long to wait for the answer to a ping (pusher-js waits as long).
pub const PONG_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of one WebSocket message from a client; larger ones close with 1009. Our choice: pusher.com names none.
/// Six times the largest event, as JSON escaping can make it that long.
pub const CLIENT_MESSAGE_BYTES: usize = 64 * 1024;
/// Subscribers up to which each change of a `subscription_count` is announced at once.
pub const COUNT_AT_ONCE: usize = 100;
/// Above [`COUNT_AT_ONCE`] subscribers: the interval of announcements.
pub const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a webhook waits whether a user or subscriber comes back.
pub const VACATED_DELAY: Duration = Duration::from_secs(3);
/// How long a webhook is tried again.
pub const WEBHOOK_RETRY: Duration = Duration::from_secs(5 * 60);

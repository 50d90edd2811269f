//! Every bound of the server, and what happens at it. What a protocol document bounds is in `fanfare_protocol::limits`.
//!
//! Nothing that grows with what clients send is without one:
//!
//! | what | setting, or constant | at the bound |
//! | --- | --- | --- |
//! | **a connection** | | |
//! | a message, in one frame or many | `server.max_message_bytes` | close 1009; the rest is not read |
//! | subscriptions | `max_channels_per_connection` | `pusher:error` and `pusher:subscription_error` |
//! | changes of subscriptions | [`SUBSCRIPTION_CHANGES_PER_SECOND`], and twice the subscriptions at once | the connection is not read until it may go on |
//! | client events in a second | `max_client_events_per_second` | `pusher:error` 4301 |
//! | data of a client event | `max_client_event_bytes` | `pusher:error` |
//! | watched users | `max_watchlist_users` | the first ones count; `pusher:error` 4302 |
//! | positions for channels without a subscription | `max_channels_per_connection`, each with a name of `max_channel_name_length` | further ones are answered as a gap |
//! | earlier sockets it names | 8 | further ones do not count |
//! | what it gets back in 10 s, on all channels | twice `server.max_outbox_bytes` | nothing is given back; told |
//! | bytes that wait to be written | `server.max_outbox_bytes`, and [`UNSENT_BYTES`] in the kernel | close 4100, counted, logged |
//! | time in which nothing is taken | `server.write_timeout` | close 4100, counted, logged; the kernel ends the connection |
//! | time for the last frames | [`CLOSE_TIMEOUT`] | the socket is reset |
//! | silence | `activity_timeout`, `server.pong_timeout` | a ping, then close 4201 |
//! | **a session over HTTP** | | |
//! | time without a receive request | `xhr.grace` | the session ends |
//! | what waits for its next request | `server.max_outbox_bytes` | close 4100, counted, logged |
//! | messages that wait to be acted on | [`SESSION_MESSAGES`], each of `server.max_message_bytes` | sends are answered later |
//! | the last answer to a poll, kept should the browser ask again | 16 KiB and a message | – |
//! | a stream's response | [`STREAM_LENGTH`] | nothing is sent until the client opens the next one, or for [`STREAM_REOPEN_TIMEOUT`] |
//! | **a request** | | |
//! | time for its head (a connection's first), idle time | `server.request_timeout`, `server.keep_alive` | 408; closed |
//! | time for the TLS handshake before it | `server.request_timeout` | closed |
//! | body | `server.max_request_bytes` | 413 |
//! | body of a request for nobody | [`FOREIGN_BODY_BYTES`] | the connection is closed behind the answer |
//! | time for its body | `server.request_timeout` | 408 |
//! | name, data, channels, events of a batch | `max_event_name_length`, `max_event_bytes`, … | 400, 413 |
//! | **an app** | | |
//! | connections | `max_connections` | close 4004 |
//! | sessions over HTTP | `max_xhr_sessions`, `xhr.max_sessions_per_address` | close 4100 |
//! | events of its backends, and reads, in a second | `max_backend_events_per_second`, `max_reads_per_second` | 429 |
//! | events of its clients in a second | `max_total_client_events_per_second` | `pusher:error` 4301 |
//! | channels | `max_channels` | `pusher:error` and `pusher:subscription_error` |
//! | name of a channel | `max_channel_name_length` | `pusher:error`, or 400 |
//! | members of a presence channel | `max_presence_members`, `max_user_info_bytes` | `pusher:error` and `pusher:subscription_error` |
//! | events kept of a channel for clients that come back | `recovery.max_events`, `recovery.max_bytes`, `recovery.window` | the oldest go; who missed them is told |
//! | what one subscription gets back | `recovery.max_replay_bytes`, half of `server.max_outbox_bytes` | nothing is given back; told |
//! | events kept by cache channels | `max_cached_events`, `cache_ttl` | published but not kept; counted |
//! | events that wait for a webhook's endpoint | `webhooks.max_queued_events`, [`WEBHOOK_QUEUE_BYTES`] | dropped, counted, logged |
//! | **an address** | | |
//! | connections, and connects in a second | `limits.max_connections_per_address`, `limits.max_connects_per_second_per_address` | close 4100 |
//! | signatures that do not fit, in a minute | `limits.max_failed_signatures_per_minute_per_address` | 429, or an error for the channel |
//! | **the node** | | |
//! | connections | `limits.max_connections` | close 4100 |
//! | memory | `limits.max_memory` | new connections are closed with 4100 |
//! | addresses that are counted | [`ADDRESSES`] | others are not counted |
//! | ids and keys the database is being asked for | [`APP_LOOKUPS`] | close 4100, 503 |
//! | ids and keys known not to exist | [`APP_MISSES`] | the oldest is forgotten |
//! | events kept for clients that come back | `recovery.max_total_bytes` | the oldest go, whatever their channel |
//! | events that wait for a worker | `server.max_inbox_bytes` | publishers wait; after `server.publish_timeout` 503 |
//! | answers that wait for a worker | `server.max_inbox_bytes` | clients are not read |
//! | TLS handshakes and HTTP connections of a worker at a time | [`HTTP_CONNECTIONS`] | others wait |
//! | a PROXY header, and time for it | [`PROXY_HEADER_BYTES`], [`PROXY_HEADER_TIMEOUT`] | the socket is closed |
//! | connections not yet accepted | [`BACKLOG`] | the kernel lets clients try again |
//! | webhook events not yet sorted | [`WEBHOOK_INTAKE_EVENTS`] | dropped, counted, logged |
//! | events that wait for Redis | `broker.max_buffer_bytes`, `broker.buffer_time` | 503; `pusher:error` to clients that send events |
//! | events of this node kept for a Redis that lost its log | `broker.max_buffer_bytes`, `broker.window` | the oldest is forgotten |
//! | webhook events of clients that wait for Redis | [`UNTOLD_WEBHOOK_EVENTS`] of a shard | dropped, counted |
//! | webhook events that wait in Redis | 100,000 of a shard (`membership.lua`) | the oldest is dropped |
//! | time for Redis to answer a join of a presence channel | [`JOIN_TIMEOUT`] | `pusher:error` and `pusher:subscription_error` |
//! | events of cache channels that Redis keeps | an eighth of `max_cached_events`, and 8, of a shard (`kept.lua`) | published, not kept |
//! | time for Redis to tell a cache channel's event | [`JOIN_TIMEOUT`] | the subscriber is let in without it, and gets it later |
//! | time for the log to answer a client that comes back | [`RECALL_TIMEOUT`] | it is told of a gap |
//! | entries of the log that are read for clients that come back | [`RECALLED_ENTRIES`] at once | who was away for longer is told of a gap |
//! | changes of members while all are asked for | [`MISSED_CHANGES`] | they are asked for again |
//! | events that came from Redis and wait for workers | [`BROKER_PUSHED_BYTES`] | a new connection; they are read from the log |
//! | webhook events whose app the database cannot tell of | 200 of a shard (`hooks.rs`) | the others wait in Redis |
//! | webhook events held back for who may return | [`WEBHOOK_HELD_BACK_EVENTS`] | the oldest is sent early |
//!
//! Users and members need no bound of their own: each is there because of a connection, and goes with it.

use std::time::Duration;

/// Bytes the kernel holds unsent for one client. More would hide a slow reader, and cost memory where nobody counts it.
pub(crate) const UNSENT_BYTES: u32 = 64 * 1024;

/// How long a client may take to read the last frames and to close its side.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages of one session over HTTP that were accepted and wait for their turn.
pub(crate) const SESSION_MESSAGES: usize = 16;

/// The length of a stream, in UTF-16 units, above which pusher-js opens the next one (`MAX_BUFFER_LENGTH` in its
/// `http_request.ts`).
pub(crate) const STREAM_LENGTH: usize = 256 * 1024;

/// How long to wait for the next stream after [`STREAM_LENGTH`]. A client that is not pusher-js may open none.
pub(crate) const STREAM_REOPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses with connections or a recent past. Some 10 MB.
pub(crate) const ADDRESSES: usize = 100_000;

/// Connects and requests that wait for the database to tell of their app.
pub(crate) const APP_LOOKUPS: usize = 1024;

/// Ids and keys that the database does not know, remembered so that it is not asked for them again at once.
pub(crate) const APP_MISSES: usize = 10_000;

/// How often a connection may join or leave channels in the long run. Others are told of each change, and shall not be flooded.
pub(crate) const SUBSCRIPTION_CHANGES_PER_SECOND: u32 = 1_000;

/// Bytes that are read of a request whose path or app does not exist, to keep its connection for the next one.
pub(crate) const FOREIGN_BODY_BYTES: usize = 64 * 1024;

/// TLS handshakes and HTTP connections of a worker at a time; clients are no longer among them after their upgrade.
pub(crate) const HTTP_CONNECTIONS: usize = 25_600;

/// Worker threads: what actix-server starts at most.
pub(crate) const MAX_WORKERS: usize = 512;

/// How long a trusted proxy may take for its PROXY header. It is the first thing it sends.
pub(crate) const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes of addresses and fields in a PROXY header of version 2. Load balancers send some hundred.
pub(crate) const PROXY_HEADER_BYTES: usize = 4096;

/// Connections the kernel holds for us while we are busy; it caps this at `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// Events between the directory and the webhooks' dispatcher. The dispatcher only sorts, so this fills when its thread gets
/// no CPU: room for what 10,000 connections that vanish at once report, several times over.
pub(crate) const WEBHOOK_INTAKE_EVENTS: usize = 65_536;

/// Webhook events held back, of all apps together.
pub(crate) const WEBHOOK_HELD_BACK_EVENTS: usize = 100_000;

/// How long a client that joins a presence channel waits for Redis before it is refused; and one that joins a cache channel, before it
/// is let in without the kept event.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client that comes back waits for the log before it is told of a gap.
pub(crate) const RECALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Entries of a shard's log that are read at once for clients that come back: a second or two of Redis and this node.
pub(crate) const RECALLED_ENTRIES: u64 = 50_000;

/// Webhook events of a shard that wait for Redis.
pub(crate) const UNTOLD_WEBHOOK_EVENTS: usize = 10_000;

/// Changes of a channel's members that are kept while all of them are asked for.
pub(crate) const MISSED_CHANGES: usize = 10_000;

/// Bytes of events that came from Redis and wait for busy workers. As many as Redis itself keeps for a slow reader.
pub(crate) const BROKER_PUSHED_BYTES: usize = 32 * 1024 * 1024;

/// Bytes that may wait for one endpoint. Events differ in size: ten thousand client events can be 100 MB.
pub(crate) const WEBHOOK_QUEUE_BYTES: usize = 32 * 1024 * 1024;

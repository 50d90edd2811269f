//! Webhook events of the whole cluster: scripts put them into a stream per shard, and one node at a time delivers a shard's.
//!
//! It has to be one node: whoever leaves one node and comes to another within a moment has not left, and only somebody who sees both can
//! tell. It holds the shard for a lease and renews it every second. An entry stays in the stream, pending in its consumer group, until an
//! endpoint took it or it was given up; when the node dies, the next one claims what is pending and begins anew with it. So an event is
//! delivered at least once, and twice only if a node dies between an endpoint's answer and the acknowledgement.

use std::{sync::Arc, time::Duration};

use fanfare_protocol::{ChannelKind, webhook::WebhookEvent};
use redis::{RedisResult, Value};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    SHARDS, Shared, announcement,
    keeper::LEASE,
    link::{Link, script},
    server::Backoff,
};
use crate::{
    node::Node,
    webhook::{Entry, Tenure},
};

/// Ids of entries, and their fields' names and values.
type Entries = Vec<(String, Vec<Vec<u8>>)>;

/// How often streams are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two renewals of the hold on the shards.
const TICKS_PER_RENEWAL: u32 = 10;
/// Entries read from a shard at once.
const ENTRIES: usize = 200;
/// The consumer group; there is only one.
const GROUP: &str = "delivery";

/// Takes or renews the hold on a shard, and makes its consumer group if there is none (in a Redis that came back empty, events may be there
/// before the group). `KEYS` owner, stream; `ARGV` node, lease in ms, group. Returns whether the shard is this node's.
const HOLD_SCRIPT: &str = r"
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 0 or #redis.call('XINFO', 'GROUPS', KEYS[2]) == 0 then
  redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0', 'MKSTREAM')
end
return 1
";

/// Reads what is new in a shard, if it is still this node's. The node may have stood still since it asked, and events that are read by a
/// node which does not deliver them would stay pending. `KEYS` owner, stream; `ARGV` node, group, how many.
const READ_SCRIPT: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[1], 'COUNT', ARGV[3], 'STREAMS', KEYS[2], '>')
return read and read[1][2] or {}
";

/// Gives a shard up. `KEYS[1]` owner; `ARGV[1]` node.
const RELEASE_SCRIPT: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
";

/// Delivers for as long as it is polled.
pub(super) async fn run(shared: &Shared, node: &Node) {
    // Nothing to do until an app has an endpoint; apps may be added while the server runs.
    while !node.apps.all().iter().any(|app| app.webhooks.any()) {
        if node.webhooks.is_flushed() {
            shared.delivered.notify_one();
            return std::future::pending().await;
        }
        sleep(TICK).await;
    }
    let mut backoff = Backoff::default();
    let tenure = Tenure::new(SHARDS);
    loop {
        let error = session(shared, node, &tenure, &mut backoff).await;
        tracing::debug!("the connection for webhooks failed: {:?}", error.err());
        backoff.pause().await;
    }
}

async fn session(
    shared: &Shared,
    node: &Node,
    tenure: &Arc<Tenure>,
    backoff: &mut Backoff,
) -> RedisResult<std::convert::Infallible> {
    let link = shared.server.connect_plain().await?;
    let (hold, read) = (link.load(HOLD_SCRIPT).await?, link.load(READ_SCRIPT).await?);
    let release = link.load(RELEASE_SCRIPT).await?;
    // Before anything is claimed, so that what was delivered already is not claimed again.
    acknowledge(shared, &link, tenure).await?;
    let (mut ticks, mut since_renewal) = (interval(TICK), TICKS_PER_RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut held = [false; SHARDS];
    loop {
        ticks.tick().await;
        since_renewal += 1;
        if since_renewal >= TICKS_PER_RENEWAL {
            since_renewal = 0;
            shared.server.still_leads_to(&link)?;
            let asked = Instant::now();
            let holds = renew(shared, &link, &hold).await?;
            for shard in 0..SHARDS {
                let had = std::mem::replace(&mut held[shard], holds[shard]);
                if !holds[shard] {
                    tenure.end(shard);
                } else if !(had && tenure.renew(shard, asked + LEASE)) {
                    tenure.begin(shard, asked + LEASE);
                    claim(shared, node, tenure, &link, shard).await?;
                }
            }
            backoff.reset();
        }
        // A node that is draining takes no new events: its clients return elsewhere, and another node sees whether they do.
        if !node.is_draining() {
            read_new(shared, node, tenure, (&link, &read), &held).await?;
        }
        acknowledge(shared, &link, tenure).await?;
        if node.webhooks.is_flushed() {
            let give_up = |shard| {
                let mut command = script(&release, &[shared.keys.owner(shard)]);
                command.arg(&shared.node_name);
                (shard, command)
            };
            link.ask::<Value>((0..SHARDS).map(give_up).collect()).await?;
            shared.delivered.notify_one();
            return std::future::pending().await;
        }
    }
}

/// Takes or renews the hold on all shards. Returns which ones are this node's.
async fn renew(shared: &Shared, link: &Link, hold: &str) -> RedisResult<Vec<bool>> {
    let renew = |shard| {
        let mut command = script(hold, &[shared.keys.owner(shard), shared.keys.hooks(shard)]);
        command.arg(&shared.node_name).arg(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)).arg(GROUP);
        (shard, command)
    };
    link.ask((0..SHARDS).map(renew).collect()).await
}

/// Takes over what others left pending.
async fn claim(shared: &Shared, node: &Node, tenure: &Arc<Tenure>, link: &Link, shard: usize) -> RedisResult<()> {
    let mut start = "0-0".to_owned();
    loop {
        let mut command = redis::cmd("XAUTOCLAIM");
        command
            .arg(shared.keys.hooks(shard))
            .arg(GROUP)
            .arg(&shared.node_name)
            .arg(0)
            .arg(&start)
            .arg("COUNT")
            .arg(ENTRIES);
        let (next, entries, _): (String, Entries, Value) = command.query_async(&mut link.to(shard)).await?;
        enqueue(node, tenure, shard, entries);
        if next == "0-0" {
            return Ok(());
        }
        start = next;
    }
}

async fn read_new(
    shared: &Shared,
    node: &Node,
    tenure: &Arc<Tenure>,
    (link, script_hash): (&Link, &str),
    held: &[bool; SHARDS],
) -> RedisResult<()> {
    let shards: Vec<_> = (0..SHARDS).filter(|shard| held[*shard]).collect();
    let read = |shard: &usize| {
        let mut command = script(script_hash, &[shared.keys.owner(*shard), shared.keys.hooks(*shard)]);
        command.arg(&shared.node_name).arg(GROUP).arg(ENTRIES);
        (*shard, command)
    };
    let replies: Vec<Entries> = link.ask(shards.iter().map(read).collect()).await?;
    for (shard, entries) in shards.into_iter().zip(replies) {
        enqueue(node, tenure, shard, entries);
    }
    Ok(())
}

async fn acknowledge(shared: &Shared, link: &Link, tenure: &Tenure) -> RedisResult<()> {
    let done = tenure.take_done();
    if done.is_empty() {
        return Ok(());
    }
    let both = |Entry { shard, id }: &Entry| {
        let (mut acknowledge, mut delete) = (redis::cmd("XACK"), redis::cmd("XDEL"));
        acknowledge.arg(shared.keys.hooks(*shard)).arg(GROUP).arg(id);
        delete.arg(shared.keys.hooks(*shard)).arg(id);
        [(*shard, acknowledge), (*shard, delete)]
    };
    link.ask::<Value>(done.iter().flat_map(both).collect()).await.map(|_| ())
}

/// Hands entries to this node's webhooks.
fn enqueue(node: &Node, tenure: &Arc<Tenure>, shard: usize, entries: Entries) {
    for (id, fields) in entries {
        let claim = tenure.claim(Entry { shard, id });
        // A claim that is dropped marks its entry as done, also where the event goes nowhere.
        let Some((app, event)) = fields.get(1).and_then(|bytes| read(bytes)) else { continue };
        let Some(app) = node.apps.by_id(&app) else { continue };
        // A node that takes back a dead node's counts does not know the app's settings, so they are looked at here.
        let told = !matches!(event, WebhookEvent::SubscriptionCount { .. }) || app.policy().config.subscription_count;
        if told {
            app.webhooks.enqueue_shared(event, claim);
        }
    }
}

/// Writes an event as an entry: its name, whose it is, the channel, and what else there is to say.
pub(super) fn write(app: &str, event: &WebhookEvent) -> Box<[u8]> {
    let (name, more): (&str, Vec<&str>) = match event {
        WebhookEvent::ClientEvent { event, data, socket_id, user_id, .. } => {
            ("client_event", [&**event, &**data, &**socket_id].into_iter().chain(user_id.as_deref()).collect())
        }
        // The scripts in Redis write these themselves, in the step that makes them true.
        WebhookEvent::CacheMiss { .. }
        | WebhookEvent::ChannelOccupied { .. }
        | WebhookEvent::ChannelVacated { .. }
        | WebhookEvent::MemberAdded { .. }
        | WebhookEvent::MemberRemoved { .. }
        | WebhookEvent::SubscriptionCount { .. } => ("", Vec::new()),
    };
    let mut out = Vec::new();
    for text in [name, app, event.channel()].into_iter().chain(more) {
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.into_boxed_slice()
}

/// Reads an entry, as scripts and [`write()`] make them.
fn read(mut bytes: &[u8]) -> Option<(String, WebhookEvent)> {
    let mut next = || {
        let (text, rest) = announcement::text(bytes).ok()?;
        bytes = rest;
        Some(text)
    };
    let (name, app, channel) = (next()?, next()?, next()?);
    let (text, kind) = (Box::from(channel), ChannelKind::of(channel));
    let event = match name {
        "channel_occupied" => WebhookEvent::ChannelOccupied { channel: text },
        "channel_vacated" => WebhookEvent::ChannelVacated { channel: text },
        "member_added" => WebhookEvent::MemberAdded { channel: text, user_id: next()?.into() },
        "member_removed" => WebhookEvent::MemberRemoved { channel: text, user_id: next()?.into() },
        "subscription_count" if !kind.presence => {
            WebhookEvent::SubscriptionCount { channel: text, subscription_count: next()?.parse().ok()? }
        }
        "client_event" => WebhookEvent::ClientEvent {
            channel: text,
            event: next()?.into(),
            data: next()?.into(),
            socket_id: next()?.into(),
            user_id: next().map(Into::into),
        },
        "cache_miss" => WebhookEvent::CacheMiss { channel: text },
        _ => return None,
    };
    Some((app.to_owned(), event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_scripts_write_them() {
        let entry = |texts: &[&str]| {
            let mut out = Vec::new();
            for text in texts {
                out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            out
        };
        let added = read(&entry(&["member_added", "app", "presence-c", "u"])).unwrap();
        assert_eq!(
            added,
            ("app".to_owned(), WebhookEvent::MemberAdded { channel: "presence-c".into(), user_id: "u".into() })
        );
        assert!(read(&entry(&["subscription_count", "app", "c", "7"])).is_some());
        for user_id in [None, Some("u\0é".into())] {
            let event = WebhookEvent::ClientEvent {
                channel: "private-c".into(),
                event: "client-e".into(),
                data: "{}".into(),
                socket_id: "1.2".into(),
                user_id,
            };
            assert_eq!(read(&write("app", &event)), Some(("app".to_owned(), event)));
        }
        for entry in [entry(&["subscription_count", "app", "presence-c", "7"]), entry(&["x", "app", "c"]), Vec::new()] {
            assert_eq!(read(&entry), None);
        }
    }
}

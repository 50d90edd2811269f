//! Webhook events of the whole cluster: scripts put them into a stream per shard, and one node at a time delivers a shard's.
//!
//! It has to be one node: whoever leaves one node and comes to another within a moment has not left, and only somebody who sees both can
//! tell. It holds the shard for a lease and renews it every second. An entry stays in the stream, pending in its consumer group, until an
//! endpoint took it or it was given up; when the node dies, the next one claims what is pending and begins anew with it. So an event is
//! delivered at least once, and twice only if a node dies between an endpoint's answer and the acknowledgement.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use fanfare_protocol::{ChannelKind, webhook::WebhookEvent};
use redis::{RedisResult, Value};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::{
    SHARDS, Shared, announcement,
    keeper::LEASE,
    link::{Link, script},
    server::{Backoff, Refusals},
};
use crate::{
    app::Missing,
    node::Node,
    webhook::{Claim, Entry, Tenure},
};

/// Ids of entries, and their fields' names and values.
type Entries = Vec<(String, Vec<Vec<u8>>)>;

/// How often streams are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often the hold on the shards is renewed.
const RENEWAL: Duration = Duration::from_secs(1);
/// How long one look at the streams may spend on asking the database for apps: the hold has to be renewed meanwhile.
const LOOKUPS: Duration = Duration::from_secs(1);
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
    // Apps and their endpoints may come later; one of the database may be known to another node, which dies.
    while !node.apps.may_know_more() && !node.apps.all().iter().any(|app| app.webhooks.any()) {
        if node.webhooks.is_flushed() {
            shared.delivered.notify_one();
            return std::future::pending().await;
        }
        sleep(TICK).await;
    }
    let mut hooks = Hooks {
        shared,
        node,
        tenure: Tenure::new(SHARDS),
        held: [false; SHARDS],
        unknown: std::array::from_fn(|_| VecDeque::new()),
        away: false,
        lookups_until: Instant::now(),
        refusals: Refusals::of("webhooks"),
    };
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = hooks.session(&mut backoff).await;
        hooks.refusals.failed(&error);
        backoff.pause().await;
    }
}

/// What this node delivers of the cluster's events.
struct Hooks<'a> {
    shared: &'a Shared,
    node: &'a Node,
    tenure: Arc<Tenure>,
    /// The shards that it had when it last asked.
    held: [bool; SHARDS],
    /// Events whose app the database has to tell of, and what came behind them.
    unknown: [VecDeque<(String, WebhookEvent, Arc<Claim>)>; SHARDS],
    /// It cannot be asked.
    away: bool,
    /// When it has been asked for long enough for now.
    lookups_until: Instant,
    refusals: Refusals,
}

/// The scripts, loaded on one connection's servers.
struct HooksScripts {
    hold: String,
    read: String,
    release: String,
}

impl Hooks<'_> {
    async fn session(&mut self, backoff: &mut Backoff) -> RedisResult<Infallible> {
        let link = self.shared.server.connect_plain().await?;
        let scripts = HooksScripts {
            hold: link.load(HOLD_SCRIPT).await?,
            read: link.load(READ_SCRIPT).await?,
            release: link.load(RELEASE_SCRIPT).await?,
        };
        let (mut ticks, mut renewed) = (interval(TICK), None::<Instant>);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What was read over the last connection may not have arrived.
        let mut claimed = [false; SHARDS];
        loop {
            ticks.tick().await;
            self.lookups_until = Instant::now() + LOOKUPS;
            // Whoever is sent away now returns elsewhere, and another node sees whether they do: a node that is draining takes nothing
            // more.
            let draining = self.node.is_draining();
            let renews = renewed.is_none_or(|at| at.elapsed() >= RENEWAL);
            if renews {
                self.shared.server.still_leads_to(&link)?;
                let asked = Instant::now();
                renewed = Some(asked);
                let holds = self.renew(&link, &scripts.hold, draining).await?;
                self.away = false;
                // Before anything is claimed, in a new session or term, so that what was delivered already is not claimed again.
                self.acknowledge(&link).await?;
                for shard in 0..SHARDS {
                    let had = std::mem::replace(&mut self.held[shard], holds[shard]);
                    if !holds[shard] {
                        self.tenure.end(shard);
                        continue;
                    }
                    if !(had && self.tenure.renew(shard, asked + LEASE)) {
                        self.tenure.begin(shard, asked + LEASE);
                        claimed[shard] = false;
                    }
                    if draining {
                        continue;
                    }
                    self.hand_over(shard).await;
                    if !claimed[shard] {
                        claimed[shard] = self.claim(&link, shard).await?;
                    }
                }
            }
            if !draining {
                self.read_new(&link, &scripts.read).await?;
            }
            // Asked before: what is done with by then is acknowledged here, and the shards are given up without it.
            let flushed = self.node.webhooks.is_flushed();
            self.acknowledge(&link).await?;
            if renews {
                backoff.reset();
                self.refusals.over();
            }
            if flushed {
                let give_up = |shard| {
                    let mut command = script(&scripts.release, &[self.shared.keys.owner(shard)]);
                    command.arg(&self.shared.node_name);
                    (shard, command)
                };
                link.ask::<Value>((0..SHARDS).map(give_up).collect()).await?;
                self.shared.delivered.notify_one();
                return std::future::pending().await;
            }
        }
    }

    /// Renews the hold on this node's shards, and, unless it is draining, takes those that nobody has. Returns which ones are its own.
    async fn renew(&self, link: &Link, hold: &str, draining: bool) -> RedisResult<[bool; SHARDS]> {
        let shards: Vec<_> = (0..SHARDS).filter(|shard| self.held[*shard] || !draining).collect();
        let renew = |shard| {
            let keys = &self.shared.keys;
            let mut command = script(hold, &[keys.owner(shard), keys.hooks(shard)]);
            let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
            command.arg(&self.shared.node_name).arg(lease).arg(GROUP);
            (shard, command)
        };
        let replies: Vec<bool> = link.ask(shards.iter().copied().map(renew).collect()).await?;
        let mut holds = [false; SHARDS];
        shards.into_iter().zip(replies).for_each(|(shard, held)| holds[shard] = held);
        Ok(holds)
    }

    /// Takes over what others left pending, or what was read in vain. Whether that was all: nothing is taken while there are events
    /// that cannot be handed over.
    async fn claim(&mut self, link: &Link, shard: usize) -> RedisResult<bool> {
        let mut start = "0-0".to_owned();
        while self.unknown[shard].is_empty() {
            let mut command = redis::cmd("XAUTOCLAIM");
            command
                .arg(self.shared.keys.hooks(shard))
                .arg(GROUP)
                .arg(&self.shared.node_name)
                .arg(0)
                .arg(&start)
                .arg("COUNT")
                .arg(ENTRIES);
            let (next, entries, _): (String, Entries, Value) = command.query_async(&mut link.to(shard)).await?;
            self.take(shard, entries).await;
            if next == "0-0" {
                return Ok(true);
            }
            start = next;
        }
        Ok(false)
    }

    async fn read_new(&mut self, link: &Link, hash: &str) -> RedisResult<()> {
        let shards: Vec<_> = (0..SHARDS).filter(|shard| self.held[*shard] && self.unknown[*shard].is_empty()).collect();
        let read = |shard: &usize| {
            let keys = &self.shared.keys;
            let mut command = script(hash, &[keys.owner(*shard), keys.hooks(*shard)]);
            command.arg(&self.shared.node_name).arg(GROUP).arg(ENTRIES);
            (*shard, command)
        };
        let replies: Vec<Entries> = link.ask(shards.iter().map(read).collect()).await?;
        for (shard, entries) in shards.into_iter().zip(replies) {
            self.take(shard, entries).await;
        }
        Ok(())
    }

    async fn acknowledge(&self, link: &Link) -> RedisResult<()> {
        let done = self.tenure.take_done();
        if done.is_empty() {
            return Ok(());
        }
        let both = |Entry { shard, id }: &Entry| {
            let (mut delete, mut acknowledge) = (redis::cmd("XDEL"), redis::cmd("XACK"));
            delete.arg(self.shared.keys.hooks(*shard)).arg(id);
            acknowledge.arg(self.shared.keys.hooks(*shard)).arg(GROUP).arg(id);
            [(*shard, delete), (*shard, acknowledge)]
        };
        match link.ask::<Value>(done.iter().flat_map(both).collect()).await {
            Ok(_) => {
                self.tenure.noted(&done);
                Ok(())
            }
            Err(error) => {
                self.tenure.not_noted(done);
                Err(error)
            }
        }
    }

    /// Takes entries that are not this node's yet.
    async fn take(&mut self, shard: usize, entries: Entries) {
        for (id, fields) in entries {
            // A claim that is dropped marks its entry as done, also where the event goes nowhere.
            let Some(claim) = self.tenure.claim(Entry { shard, id }) else { continue };
            if let Some((app, event)) = fields.get(1).and_then(|bytes| read(bytes)) {
                self.unknown[shard].push_back((app, event, claim));
            }
        }
        self.hand_over(shard).await;
    }

    /// Hands what was taken to this node's webhooks, as far as it is known whose it is.
    async fn hand_over(&mut self, shard: usize) {
        while let Some((id, _, claim)) = self.unknown[shard].front() {
            let app = match self.node.apps.by_id(id) {
                // It waited for too long: it is claimed again, or another node has it.
                _ if !claim.holds() => None,
                Some(app) => Some(app),
                None if self.away || Instant::now() >= self.lookups_until => return,
                None => match timeout(TICK, self.node.apps.find_by_id(id)).await {
                    Ok(Ok(app)) => Some(app),
                    Ok(Err(Missing::Unknown)) => None,
                    Ok(Err(Missing::Unavailable)) | Err(_) => {
                        self.away = true;
                        return;
                    }
                },
            };
            let (Some((_, event, claim)), Some(app)) = (self.unknown[shard].pop_front(), app) else { continue };
            // A node that takes back a dead node's counts does not know the app's settings, so they are looked at here.
            let told =
                !matches!(event, WebhookEvent::SubscriptionCount { .. }) || app.policy().config.subscription_count;
            if told {
                app.webhooks.enqueue_shared(event, claim);
            }
        }
    }
}

/// Writes an event as an entry: its name, whose it is, the channel, and what else there is to say.
pub(super) fn write(app: &str, event: &WebhookEvent) -> Box<[u8]> {
    let (name, more): (&str, Vec<&str>) = match event {
        WebhookEvent::ClientEvent { event, data, socket_id, user_id, .. } => {
            ("client_event", [&**event, &**data, &**socket_id].into_iter().chain(user_id.as_deref()).collect())
        }
        // The others are made by the script that makes them true.
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

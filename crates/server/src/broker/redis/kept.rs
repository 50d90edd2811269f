//! The last events of cache channels: put into Redis in the same step as into the log, and asked for where a node has none.
//!
//! Only entries with such events go through a script, so other events cost nothing more.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::{Cmd, RedisResult};

use super::{
    Keys, Shared, entry,
    link::{Link, script},
    log::Scripts,
    membership::Question,
    outgoing::Batch,
    shard,
};
use crate::{config::AppConfig, directory::Kept, node::Node};

/// Channels that are asked about, or given back, at once.
pub(super) const PAGE: usize = 100;

/// How a cache channel's event is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep {
    ttl: Duration,
    /// Events of the app that a shard may keep.
    limit: usize,
}

/// An event in an entry that is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InEntry {
    /// Its sequence number.
    pub(super) number: u64,
    /// Where it begins and ends in the entry.
    pub(super) place: std::ops::Range<usize>,
    pub(super) keep: Keep,
}

/// An event as Redis keeps it, and for how long it still does so.
pub(super) type Stored = Option<(Vec<u8>, Duration)>;

impl Keep {
    pub(super) fn of(app: &AppConfig) -> Self {
        // A sixteenth would be each shard's share. Twice that, because shards do not fill evenly.
        let limit = if app.max_cached_events == 0 { 0 } else { app.max_cached_events / 8 + 8 };
        Self { ttl: app.cache_ttl, limit }
    }

    /// How an event of this age has to be kept; `None`: not at all any more.
    pub(super) fn after(self, age: Duration) -> Option<Self> {
        let ttl = self.ttl.checked_sub(age).filter(|ttl| *ttl >= Duration::from_millis(1))?;
        Some(Self { ttl, ..self })
    }
}

/// As [`super::log::add`], for an entry with events to keep. One command, with one reply.
pub(super) fn add(scripts: &Scripts, keys: &Keys, header: (u64, u64, Duration), batch: &Batch) -> Cmd {
    let (publisher, epoch, remember) = header;
    let base = keys.base(batch.shard);
    let publisher = format!("{publisher:016x}");
    // If an entry has several events of a channel, only the last one is kept.
    let (mut had, mut last) = (HashSet::new(), Vec::new());
    for kept in batch.kept.iter().rev() {
        if let Some((app, channel)) = batch.entry.get(kept.place.clone()).and_then(entry::app_and_channel)
            && had.insert((app, channel))
        {
            last.push((app, channel, kept));
        }
    }
    let mut touched = vec![keys.log(batch.shard), format!("{base}had:{publisher}")];
    touched.extend(last.iter().flat_map(|(app, channel, _)| keys.around_kept(batch.shard, app, channel)));
    let mut command = script(&scripts.keep, &touched);
    command.arg(base).arg(epoch).arg(&batch.entry).arg(publisher).arg(milliseconds(remember));
    for (app, channel, InEntry { number, place, keep }) in last.into_iter().rev() {
        command.arg(app).arg(channel).arg(place.start + 1).arg(place.end).arg(*number);
        command.arg(milliseconds(keep.ttl)).arg(keep.limit);
    }
    command
}

/// Asks for the last events of channels, in their order.
pub(super) async fn ask(
    link: &Link,
    keys: &Keys,
    channels: impl Iterator<Item = (&str, &str)>,
) -> RedisResult<Vec<Stored>> {
    let mut commands = Vec::new();
    for (app, channel) in channels {
        let shard = shard(app, channel);
        let key = keys.kept(shard, app, channel);
        for name in ["GET", "PTTL"] {
            let mut command = redis::cmd(name);
            command.arg(&key);
            commands.push((shard, command));
        }
    }
    let replies: Vec<redis::Value> = link.ask(commands).await?;
    let stored = |pair: &[redis::Value]| {
        let event: Vec<u8> = redis::from_redis_value::<Option<_>>(pair[0].clone()).ok()??;
        let ttl: i64 = redis::from_redis_value(pair.get(1)?.clone()).ok()?;
        // It may have expired between the two commands.
        let ttl = u64::try_from(ttl).ok().filter(|ttl| *ttl > 0)?;
        Some((event, Duration::from_millis(ttl)))
    };
    Ok(replies.chunks(2).map(stored).collect())
}

/// Hands the answer to a question to the directory.
pub(super) fn answer(node: &Node, Question { app, channel, number }: &Question, stored: &Stored) {
    let Some(app) = node.apps.by_id(app) else { return };
    let kept = stored.as_ref().and_then(|(bytes, ttl)| {
        let (event, data) = entry::name_and_data(bytes)?;
        Some(Kept { event, data, ttl: *ttl })
    });
    app.directory.answer_kept(channel, *number, kept.as_ref());
}

/// Gives the last events of a shard that this node knows to a Redis that has lost them.
pub(super) async fn give_back(shared: &Shared, node: &Node, link: &Link, wanted: usize) -> RedisResult<()> {
    let text = concat!(include_str!("kept.lua"), include_str!("give_back.lua"));
    let hash = link.load(text).await?;
    for app in node.apps.all() {
        let id = app.id.as_str();
        let limit = Keep::of(&app.policy().config).limit;
        let channels = app.directory.kept_channels(|channel| shard(id, channel) == wanted);
        for channels in channels.chunks(PAGE) {
            let mut commands = Vec::new();
            let mut add = |channel: &Arc<str>| {
                app.directory.with_kept(channel, |kept| {
                    let event = entry::kept(id, channel, kept.event, &kept.data);
                    let mut command = script(&hash, &shared.keys.around_kept(wanted, id, channel));
                    command.arg(shared.keys.base(wanted)).arg(id).arg(&**channel).arg(&*event);
                    command.arg(milliseconds(kept.ttl).max(1)).arg(limit);
                    commands.push((wanted, command));
                });
            };
            channels.iter().for_each(&mut add);
            link.ask::<()>(commands).await?;
        }
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! What the HTTP API and sign-ins ask of the whole cluster. Redis has the answers, so no other node is asked.

use fanfare_protocol::trigger::CachedData;
use redis::{Cmd, RedisResult};

use super::{Redis, SHARDS, entry, kept, link::Link, membership::ALL_CHANNELS, shard};

/// Names that one answer of a shard holds: some 50 µs of Redis.
const PAGE: usize = 1000;
/// Channels that are asked about at once.
const CHANNELS: usize = 500;

/// Redis cannot be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis is out of reach, and with it what is true of all nodes")]
pub(crate) struct Unreachable;

/// What is true of a channel in the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelCounts {
    pub(crate) connections: usize,
    /// Of a presence channel.
    pub(crate) users: usize,
}

impl Redis {
    fn reads(&self) -> Result<Link, Unreachable> {
        self.shared.reads().ok_or(Unreachable)
    }

    /// The occupied channels of an app with a prefix, by name.
    pub(crate) async fn occupied(&self, app: &str, prefix: &str) -> Result<Vec<String>, Unreachable> {
        let link = self.reads()?;
        let mut names = Vec::new();
        let mut shards: Vec<(usize, String)> = (0..SHARDS).map(|shard| (shard, format!("[{prefix}"))).collect();
        // Names are ASCII, so this sorts behind every name that begins with the prefix.
        let end = [b"(", prefix.as_bytes(), b"\xff"].concat();
        while !shards.is_empty() {
            let page = |(shard, start): &(usize, String)| {
                let mut command = redis::cmd("ZRANGEBYLEX");
                command.arg(format!("{}occ:{app}", self.shared.keys.base(*shard)));
                command.arg(start).arg(&end).arg("LIMIT").arg(0).arg(PAGE);
                (*shard, command)
            };
            let pages: Vec<Vec<String>> = ask(&link, shards.iter().map(page).collect()).await?;
            let mut more = Vec::new();
            for ((shard, _), page) in shards.into_iter().zip(pages) {
                if page.len() == PAGE
                    && let Some(last) = page.last()
                {
                    more.push((shard, format!("({last}")));
                }
                names.extend(page);
            }
            shards = more;
        }
        names.retain(|name| name != ALL_CHANNELS);
        names.sort_unstable();
        Ok(names)
    }

    /// How many are in channels of an app, in their order.
    pub(crate) async fn counts<T: AsRef<str>>(
        &self,
        app: &str,
        channels: &[T],
    ) -> Result<Vec<ChannelCounts>, Unreachable> {
        let link = self.reads()?;
        let mut counts = Vec::with_capacity(channels.len());
        for channels in channels.chunks(CHANNELS) {
            let both = |channel: &T| {
                let channel = channel.as_ref();
                let shard = shard(app, channel);
                let base = self.shared.keys.base(shard);
                let (mut connections, mut users) = (redis::cmd("HGET"), redis::cmd("HLEN"));
                connections.arg(format!("{base}tot:{app}")).arg(channel);
                users.arg(format!("{base}m:{app}\0{channel}"));
                [(shard, connections), (shard, users)]
            };
            let replies: Vec<Option<usize>> = ask(&link, channels.iter().flat_map(both).collect()).await?;
            counts.extend(replies.chunks(2).map(|pair| ChannelCounts {
                connections: pair[0].unwrap_or(0),
                users: pair.get(1).copied().flatten().unwrap_or(0),
            }));
        }
        Ok(counts)
    }

    /// The events that cache channels of an app keep, in the channels' order.
    pub(crate) async fn kept<T: AsRef<str>>(
        &self,
        app: &str,
        channels: &[T],
    ) -> Result<Vec<Option<CachedData>>, Unreachable> {
        let link = self.reads()?;
        let mut all = Vec::with_capacity(channels.len());
        for channels in channels.chunks(kept::PAGE) {
            let channels = channels.iter().map(|channel| (app, channel.as_ref()));
            let stored = kept::ask(&link, &self.shared.keys, channels).await.map_err(unreachable)?;
            all.extend(stored.into_iter().map(|stored| {
                let (bytes, ttl) = stored?;
                let (_, data) = entry::name_and_data(&bytes)?;
                Some(CachedData { data: data.text().into_owned(), ttl: ttl.as_secs() })
            }));
        }
        Ok(all)
    }

    /// The live connections of an app.
    pub(crate) async fn connections(&self, app: &str) -> Result<usize, Unreachable> {
        let counts = self.counts(app, &[ALL_CHANNELS]).await?;
        Ok(counts.first().map_or(0, |counts| counts.connections))
    }

    /// The distinct users of a presence channel; each with its info as JSON, if that is asked for and there is some.
    pub(crate) async fn users(
        &self,
        app: &str,
        channel: &str,
        with_info: bool,
    ) -> Result<Vec<(String, Option<String>)>, Unreachable> {
        let link = self.reads()?;
        let shard = shard(app, channel);
        let base = self.shared.keys.base(shard);
        let mut command = redis::cmd(if with_info { "HGETALL" } else { "HKEYS" });
        command.arg(format!("{base}{}:{app}\0{channel}", if with_info { "i" } else { "m" }));
        if with_info {
            let mut replies: Vec<Vec<(String, String)>> = ask(&link, vec![(shard, command)]).await?;
            let info = |info: String| (info != "null").then_some(info);
            Ok(replies.pop().unwrap_or_default().into_iter().map(|(id, text)| (id, info(text))).collect())
        } else {
            let mut replies: Vec<Vec<String>> = ask(&link, vec![(shard, command)]).await?;
            Ok(replies.pop().unwrap_or_default().into_iter().map(|id| (id, None)).collect())
        }
    }

    /// Whether anybody is signed in as each of these users.
    pub(crate) async fn online<T: AsRef<str>>(&self, app: &str, users: &[T]) -> Result<Vec<bool>, Unreachable> {
        let link = self.reads()?;
        let exists = |user_id: &T| {
            let user_id = user_id.as_ref();
            let shard = shard(app, user_id);
            let mut command = redis::cmd("HEXISTS");
            command.arg(format!("{}u:{app}", self.shared.keys.base(shard))).arg(user_id);
            (shard, command)
        };
        ask(&link, users.iter().map(exists).collect()).await
    }
}

async fn ask<T: redis::FromRedisValue>(link: &Link, commands: Vec<(usize, Cmd)>) -> Result<Vec<T>, Unreachable> {
    let replies: RedisResult<Vec<T>> = link.ask(commands).await;
    replies.map_err(unreachable)
}

#[expect(clippy::needless_pass_by_value, reason = "it is for map_err")]
fn unreachable(error: redis::RedisError) -> Unreachable {
    tracing::warn!("Redis did not answer a read: {error}");
    Unreachable
}

//! Connections to the servers that hold the shards: one, or the primaries of a Redis Cluster.
//!
//! Everything of a shard is in one slot, so it is on one server, and what is sent over the one connection there keeps its order. A `Link`
//! never follows a redirection: when a slot has moved or is moving, the command fails, and with it the session that sent it. The next
//! session connects to where the slots are then, and goes on as after any other lost connection. So a moved slot needs no code of its own.

use futures_util::future::try_join_all;
use redis::{
    Cmd, ConnectionAddr, FromRedisValue, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection,
};

use super::{
    SHARDS,
    log::{LIFETIME_MS, unexpected},
};

/// What belongs to no shard: the signs of life.
pub(super) const COMMON: usize = SHARDS;

/// Connections that lead to all shards. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    connections: Vec<MultiplexedConnection>,
    /// Which of them leads to each shard, and to what belongs to none.
    places: [usize; SHARDS + 1],
    cluster: bool,
    /// The server, where sentinels name it.
    primary: Option<ConnectionAddr>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({} servers)", self.connections.len())
    }
}

impl Link {
    /// All shards on one server.
    pub(super) fn single(connection: MultiplexedConnection, primary: Option<ConnectionAddr>) -> Self {
        Self { connections: vec![connection], places: [0; SHARDS + 1], cluster: false, primary }
    }

    /// Shards on the primaries of a cluster.
    pub(super) fn cluster(connections: Vec<MultiplexedConnection>, places: [usize; SHARDS + 1]) -> Self {
        Self { connections, places, cluster: true, primary: None }
    }

    /// The server that sentinels had named.
    pub(super) fn primary(&self) -> Option<&ConnectionAddr> {
        self.primary.as_ref()
    }

    /// Whether a transaction may hold commands of one shard only.
    pub(super) fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// The command that pushes: in a cluster, to the subscribers at the shard's own server.
    pub(super) fn publish(&self) -> &'static str {
        if self.cluster { "SPUBLISH" } else { "PUBLISH" }
    }

    /// The connection to a shard.
    pub(super) fn to(&self, shard: usize) -> MultiplexedConnection {
        self.connections[self.places[shard]].clone()
    }

    /// The connections to all servers.
    pub(super) fn servers(&self) -> impl Iterator<Item = MultiplexedConnection> + '_ {
        self.connections.iter().cloned()
    }

    /// Loads a script on all servers. In it, `publish` is the command that pushes, and `lifetime` how long keys live, in ms.
    pub(super) async fn load(&self, text: &str) -> RedisResult<String> {
        let text = format!("local publish, lifetime = '{}', '{LIFETIME_MS}'\n{text}", self.publish());
        let load = self.servers().map(async |mut connection| {
            redis::cmd("SCRIPT").arg("LOAD").arg(&text).query_async::<String>(&mut connection).await
        });
        try_join_all(load).await?.pop().ok_or_else(unexpected)
    }

    /// Gets what pushes to the shards' channels brings. Channels of several slots cannot be in one command.
    pub(super) async fn subscribe(&self, channels: &[String]) -> RedisResult<()> {
        if !self.cluster {
            return self.to(0).subscribe(channels).await;
        }
        for (shard, channel) in channels.iter().enumerate() {
            redis::cmd("SSUBSCRIBE").arg(channel).query_async::<()>(&mut self.to(shard)).await?;
        }
        Ok(())
    }

    /// Sends commands, each for a shard, all at once. Their replies, in their order.
    pub(super) async fn ask<T: FromRedisValue>(&self, commands: Vec<(usize, Cmd)>) -> RedisResult<Vec<T>> {
        let mut pipes = vec![Pipeline::new(); self.connections.len()];
        let mut order = Vec::with_capacity(commands.len());
        for (shard, command) in commands {
            let place = self.places[shard];
            pipes[place].add_command(command);
            order.push(place);
        }
        let asked = pipes.iter().zip(self.servers()).map(async |(pipe, mut connection)| {
            if pipe.is_empty() {
                return Ok(Vec::new());
            }
            pipe.query_async::<Vec<Value>>(&mut connection).await
        });
        let mut replies: Vec<_> = try_join_all(asked).await?.into_iter().map(Vec::into_iter).collect();
        let reply = |place: usize| {
            let reply = replies[place].next().ok_or_else(unexpected)?;
            redis::from_redis_value(reply).map_err(RedisError::from)
        };
        order.into_iter().map(reply).collect()
    }
}

/// A call of a loaded script, with the keys it touches.
pub(super) fn script<K: AsRef<str>>(hash: &str, keys: &[K]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(hash).arg(keys.len());
    for key in keys {
        command.arg(key.as_ref());
    }
    command
}

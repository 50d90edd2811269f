//! `[broker]`: what connects this node with others.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{duration, redacted};

/// `[broker]`: what connects this node with others.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// One node alone, or several that share a Redis.
    pub driver: BrokerDriver,
    /// Where Redis is: `redis://user:password@host:port/db`, `rediss://` with TLS.
    #[serde(serialize_with = "redacted::url")]
    pub url: String,
    /// Sentinels that tell which server is the primary, each as `host:port`; then the host in `url` does not matter.
    pub sentinels: Vec<String>,
    /// What the sentinels call the primary.
    pub sentinel_master: String,
    /// User at the sentinels. Empty: none.
    pub sentinel_username: String,
    /// Password at the sentinels. Empty: none.
    #[serde(serialize_with = "redacted::password")]
    pub sentinel_password: String,
    /// Some servers of a Redis Cluster, each as `host:port`; then the host in `url` does not matter.
    pub cluster_nodes: Vec<String>,
    /// What the names of all keys and channels in Redis begin with.
    pub prefix: String,
    /// How long events may wait for a Redis that is out of reach before triggers are answered 503.
    #[serde(with = "duration")]
    pub buffer_time: Duration,
    /// Bytes of events that may wait for Redis; as many again are kept for one that loses its log.
    pub max_buffer_bytes: usize,
    /// How long events are kept in Redis, and by the node that published them, for nodes that missed them.
    #[serde(with = "duration")]
    pub window: Duration,
}

/// What connects nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokerDriver {
    /// Nothing: this node is alone.
    #[default]
    Local,
    /// A Redis that all nodes share.
    Redis,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            driver: BrokerDriver::Local,
            url: "redis://127.0.0.1:6379".to_owned(),
            sentinels: Vec::new(),
            sentinel_master: "mymaster".to_owned(),
            sentinel_username: String::new(),
            sentinel_password: String::new(),
            cluster_nodes: Vec::new(),
            prefix: "fanfare".to_owned(),
            buffer_time: Duration::from_secs(10),
            max_buffer_bytes: 16 * 1024 * 1024,
            window: Duration::from_secs(60),
        }
    }
}

// By hand, as the URL may carry a password.
impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("driver", &self.driver)
            .field("url", &self.redacted_url())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

//! The connection to Redis: address, time-outs, back-off, and what has to hold of the server.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{join_all, try_join_all};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, RedisResult, Value,
    aio::{AsyncPushSender, MultiplexedConnection},
    io::tcp::TcpSettings,
};
use tokio::time::{Instant, sleep};

use super::{
    SHARDS,
    link::Link,
    log::{Keys, unexpected},
};
use crate::config::{BrokerConfig, host_and_port};

/// How long connecting, and any command, may take. A Redis that is stopped keeps its connections open and says nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The longest pause between two attempts to connect is drawn from zero to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The first pause is drawn from zero to this, and the range doubles with each attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The same for a sentinel, which is asked while everybody waits, and may have died together with the primary.
const SENTINEL_PATIENCE: Duration = Duration::from_millis(500);
/// How often sentinels are asked which server is the primary.
const WATCH: Duration = Duration::from_secs(1);
/// The oldest version that will do: `XADD` with an id of `epoch-*` came with it.
const OLDEST_VERSION: (u32, u32) = (7, 0);

/// Where Redis is. `Debug` shows no credentials.
pub(super) struct Server {
    /// How to connect; and, without sentinels and cluster, where.
    info: ConnectionInfo,
    place: Place,
    /// The server that holds everything, as sentinels tell.
    primary: Mutex<Option<ConnectionAddr>>,
    attempts: AtomicUsize,
}

/// How the servers are found.
enum Place {
    /// At the address of `info`.
    Fixed,
    /// Sentinels tell.
    Sentinels { sentinels: Vec<ConnectionInfo>, master: String },
    /// Every server of a cluster tells.
    Cluster { nodes: Vec<ConnectionAddr> },
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address())
    }
}

impl Server {
    /// # Errors
    /// A URL, or an address, that names no server.
    pub(super) fn new(config: &BrokerConfig) -> RedisResult<Self> {
        // By default the library leaves Nagle's algorithm on, and does not notice a peer that vanished.
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(PATIENCE * 2);
        let info = config.url.as_str().into_connection_info()?;
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        let info = info.set_redis_settings(redis).set_tcp_settings(tcp.clone());
        let addresses = |texts: &[String]| -> Vec<_> {
            texts.iter().filter_map(|text| Some(like(info.addr(), host_and_port(text)?))).collect()
        };
        let place = if !config.sentinels.is_empty() {
            let mut redis = RedisConnectionInfo::default().set_skip_set_lib_name();
            if !config.sentinel_username.is_empty() {
                redis = redis.set_username(&config.sentinel_username);
            }
            if !config.sentinel_password.is_empty() {
                redis = redis.set_password(&config.sentinel_password);
            }
            let sentinel = |addr| info.clone().set_addr(addr).set_redis_settings(redis.clone());
            let sentinels = addresses(&config.sentinels).into_iter().map(sentinel).collect();
            Place::Sentinels { sentinels, master: config.sentinel_master.clone() }
        } else if !config.cluster_nodes.is_empty() {
            Place::Cluster { nodes: addresses(&config.cluster_nodes) }
        } else {
            Place::Fixed
        };
        Ok(Self { info, place, primary: Mutex::default(), attempts: AtomicUsize::new(rand::random_range(0..1024)) })
    }

    /// Where it is, for the log.
    pub(super) fn address(&self) -> String {
        match &self.place {
            Place::Fixed => self.info.addr().to_string(),
            Place::Sentinels { master, .. } => match self.primary() {
                Some(primary) => format!("{primary}, which is {master:?} of the sentinels"),
                None => format!("{master:?} of the sentinels"),
            },
            Place::Cluster { nodes } => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                format!("the cluster with {}", nodes.join(", "))
            }
        }
    }

    fn primary(&self) -> Option<ConnectionAddr> {
        self.primary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_primary(&self, primary: ConnectionAddr) {
        *self.primary.lock().unwrap_or_else(PoisonError::into_inner) = Some(primary);
    }

    /// Connects for commands only.
    pub(super) async fn connect_plain(&self) -> RedisResult<Link> {
        self.connect(None::<fn(redis::PushInfo) -> Result<(), Infallible>>).await
    }

    /// Connects, and checks what the servers are. Pushed messages go to `pushes`.
    pub(super) async fn connect(&self, pushes: Option<impl AsyncPushSender + Clone>) -> RedisResult<Link> {
        match &self.place {
            Place::Fixed => Ok(Link::single(self.open(self.info.addr(), pushes).await?, None)),
            Place::Sentinels { sentinels, master } => {
                let mut failed = None;
                for primary in self.ask_sentinels(sentinels, master).await? {
                    match self.open(&primary, pushes.clone()).await {
                        Ok(connection) => {
                            self.set_primary(primary.clone());
                            return Ok(Link::single(connection, Some(primary)));
                        }
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                Err(failed.unwrap_or_else(unexpected))
            }
            Place::Cluster { nodes } => {
                let (addresses, places) = self.find_primaries(nodes).await?;
                let open = addresses.iter().map(|address| self.open(address, pushes.clone()));
                Ok(Link::cluster(try_join_all(open).await?, places))
            }
        }
    }

    /// Connects to one server, and checks what it is.
    async fn open(
        &self,
        address: &ConnectionAddr,
        pushes: Option<impl AsyncPushSender>,
    ) -> RedisResult<MultiplexedConnection> {
        let mut config = patience();
        if let Some(pushes) = pushes {
            config = config.set_push_sender(pushes);
        }
        let client = Client::open(self.info.clone().set_addr(address.clone()))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
        check(&info)?;
        Ok(connection)
    }

    /// Asks all sentinels which server is the primary: what most say comes first. During a failover they may differ, and some may be cut
    /// off together with a primary that was replaced.
    async fn ask_sentinels(&self, sentinels: &[ConnectionInfo], master: &str) -> RedisResult<Vec<ConnectionAddr>> {
        let mut failed = RedisError::from((ErrorKind::Io, "no sentinel can be asked"));
        let mut found: Vec<(usize, ConnectionAddr)> = Vec::new();
        for answer in join_all(sentinels.iter().map(|sentinel| ask_sentinel(sentinel, master))).await {
            match answer {
                Ok(Some(address)) => {
                    let address = like(self.info.addr(), address);
                    match found.iter_mut().find(|(_, other)| *other == address) {
                        Some((votes, _)) => *votes += 1,
                        None => found.push((1, address)),
                    }
                }
                Ok(None) => failed = RedisError::from((ErrorKind::Io, "no sentinel knows broker.sentinel_master")),
                Err(error) => failed = error,
            }
        }
        found.sort_by_key(|(votes, _)| std::cmp::Reverse(*votes));
        if found.is_empty() { Err(failed) } else { Ok(found.into_iter().map(|(_, address)| address).collect()) }
    }

    /// Asks servers of a cluster, one after the other, which are the primaries, and which one has each shard.
    async fn find_primaries(
        &self,
        nodes: &[ConnectionAddr],
    ) -> RedisResult<(Vec<ConnectionAddr>, [usize; SHARDS + 1])> {
        let mut failed = RedisError::from((ErrorKind::Io, "no server of the cluster can be asked"));
        for node in in_turn(nodes, self.attempts.fetch_add(1, Ordering::Relaxed)) {
            match self.ask_node(node).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::debug!("the cluster's server at {node} cannot be asked: {error}");
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    async fn ask_node(&self, node: &ConnectionAddr) -> RedisResult<(Vec<ConnectionAddr>, [usize; SHARDS + 1])> {
        let client = Client::open(self.info.clone().set_addr(node.clone()))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&patience()).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("CLUSTER").arg("SLOTS");
        for shard in 0..=SHARDS {
            pipe.cmd("CLUSTER").arg("KEYSLOT").arg(Keys::tag(shard));
        }
        let mut replies = pipe.query_async::<Vec<Value>>(&mut connection).await?.into_iter();
        let ranges: Vec<Vec<Value>> = redis::from_redis_value(replies.next().ok_or_else(unexpected)?)?;
        let (mut addresses, mut places) = (Vec::new(), [0; SHARDS + 1]);
        for (place, slot) in places.iter_mut().zip(replies) {
            let slot: u16 = redis::from_redis_value(slot)?;
            let holder = ranges.iter().find_map(|range| holder(range, slot, node));
            let holder = holder.ok_or_else(|| {
                RedisError::from((ErrorKind::Io, "the cluster is not whole: some slots are with no server"))
            })?;
            *place = addresses.iter().position(|address| *address == holder).unwrap_or_else(|| {
                addresses.push(holder);
                addresses.len() - 1
            });
        }
        Ok((addresses, places))
    }

    /// Follows what sentinels tell for as long as it is polled. A primary that was replaced may live on, cut off from everybody else.
    pub(super) async fn watch(&self) {
        let Place::Sentinels { sentinels, master } = &self.place else { return std::future::pending().await };
        loop {
            sleep(WATCH).await;
            // Sessions that cannot connect ask the sentinels by themselves. A new primary counts only once it confirms its role: sentinels
            // may still name the old one.
            if let Some(known) = self.primary()
                && let Ok(found) = self.ask_sentinels(sentinels, master).await
                && let Some(primary) = found.into_iter().next().filter(|primary| *primary != known)
                && self.open(&primary, None::<fn(redis::PushInfo) -> Result<(), Infallible>>).await.is_ok()
            {
                tracing::warn!("the sentinels have made {primary} the primary, in place of {known}");
                self.set_primary(primary);
            }
        }
    }

    /// Whether a connection is still the right one. Sessions ask from time to time.
    ///
    /// # Errors
    /// The primary is not the one it was when the session began.
    pub(super) fn still_leads_to(&self, link: &Link) -> RedisResult<()> {
        match (link.primary(), self.primary()) {
            (Some(then), Some(now)) if *then != now => {
                Err(RedisError::from((ErrorKind::Io, "another server is the primary now")))
            }
            _ => Ok(()),
        }
    }
}

fn patience() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE))
}

/// The same things in the same order, but beginning with another one each time, so that one that does not answer is not always the first.
fn in_turn<T>(things: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let (before, from) = things.split_at(turn % things.len().max(1));
    from.iter().chain(before)
}

async fn ask_sentinel(sentinel: &ConnectionInfo, master: &str) -> RedisResult<Option<(String, u16)>> {
    let client = Client::open(sentinel.clone())?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SENTINEL_PATIENCE))
        .set_response_timeout(Some(SENTINEL_PATIENCE));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(master).query_async(&mut connection).await
}

/// The primary of a range of slots, as `CLUSTER SLOTS` tells it, if the slot is in it.
fn holder(range: &[Value], slot: u16, asked: &ConnectionAddr) -> Option<ConnectionAddr> {
    let number = |index: usize| redis::from_redis_value::<u16>(range.get(index)?.clone()).ok();
    if !(number(0)?..=number(1)?).contains(&slot) {
        return None;
    }
    let Value::Array(primary) = range.get(2)? else { return None };
    let host: Option<String> = redis::from_redis_value(primary.first()?.clone()).ok()?;
    let port: u16 = redis::from_redis_value(primary.get(1)?.clone()).ok()?;
    // An empty host or `?` means that the server does not know its own address: it is the one that was asked.
    let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| match asked {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => String::new(),
    });
    Some(like(asked, (host, port)))
}

/// Another address that is reached in the same way.
fn like(model: &ConnectionAddr, (host, port): (String, u16)) -> ConnectionAddr {
    match model {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    }
}

/// The value of a line of `INFO`.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Whether the server is new enough and no replica.
fn check(info: &str) -> RedisResult<()> {
    let refuse = |why: &'static str| Err(RedisError::from((ErrorKind::Client, why)));
    let version = field(info, "redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST_VERSION {
        return refuse("the server is older than Redis 7.0, which is the oldest that works");
    }
    match field(info, "role") {
        Some("slave") => refuse("the server is a replica; events have to go to the primary"),
        _ => Ok(()),
    }
}

/// What an operator should change about the server, in words.
pub(super) fn advice(info: &str) -> Option<String> {
    let policy = field(info, "maxmemory_policy")?;
    (policy != "noeviction" && field(info, "maxmemory") != Some("0")).then(|| {
        format!(
            "Redis may evict what Fanfare keeps in it: its maxmemory-policy is {policy}. Set it to noeviction, or give \
             Fanfare a Redis of its own"
        )
    })
}

/// Whether an error is one of those that pass: a line that broke, a server that is being replaced, a slot that is on its way to another,
/// scripts that were flushed.
fn passes(error: &RedisError) -> bool {
    use redis::ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, NoScript, ReadOnly, TryAgain};
    match error.kind() {
        ErrorKind::Io => true,
        ErrorKind::Server(kind) => {
            matches!(kind, Ask | BusyLoading | ClusterDown | MasterDown | Moved | NoScript | ReadOnly | TryAgain)
        }
        _ => false,
    }
}

/// What Redis said, for the log. Commands that go together fail together: the first one says why.
pub(super) fn brief(error: &RedisError) -> String {
    let errors = error.clone().into_server_errors();
    match errors.as_deref() {
        Some([(_, first), ..]) => {
            // Which script it was, and where in it, helps nobody.
            let details = first.details().unwrap_or_default().split(" script: ").next().unwrap_or_default();
            format!("{} {}", first.code(), details.trim_end_matches('.'))
        }
        _ => error.to_string(),
    }
}

/// What the log is told while Redis answers, but refuses what a task asks for: one line when that begins, and one when it is over. Lost
/// connections are left to the reader and the publisher, which log an outage.
#[derive(Debug)]
pub(super) struct Refusals {
    /// What is refused.
    what: &'static str,
    since: Option<Instant>,
}

impl Refusals {
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, since: None }
    }

    /// A session has failed.
    pub(super) fn failed(&mut self, error: &RedisError) {
        let what = self.what;
        if passes(error) || self.since.is_some() {
            tracing::debug!("the connection for {what} failed: {error}");
        } else {
            self.since = Some(Instant::now());
            tracing::error!(
                "Redis refuses commands about {what}: {}. They are repeated until it takes them",
                brief(error)
            );
        }
    }

    /// A session has done all that there was to do.
    pub(super) fn over(&mut self) {
        if let Some(since) = self.since.take() {
            tracing::info!("Redis takes {} again after {:?}", self.what, since.elapsed());
        }
    }
}

/// The pauses between attempts: random, so that nodes that lost Redis together do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Waits before the next attempt.
    pub(super) async fn pause(&mut self) {
        let range = FIRST_PAUSE.saturating_mul(1 << self.attempts.min(16)).min(LONGEST_PAUSE);
        self.attempts += 1;
        sleep(range.mul_f64(rand::random::<f64>())).await;
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_and_replicas_are_refused() {
        assert!(check("redis_version:7.0.15\r\nrole:master\r\n").is_ok());
        assert!(check("redis_version:8.2.0\r\nrole:master\r\n").is_ok());
        for info in ["redis_version:6.2.14\r\nrole:master\r\n", "redis_version:7.2.4\r\nrole:slave\r\n", ""] {
            assert!(check(info).is_err(), "{info}");
        }
    }

    #[test]
    fn a_server_that_evicts_is_spoken_of() {
        let info = |policy, memory| format!("# Memory\r\nmaxmemory:{memory}\r\nmaxmemory_policy:{policy}\r\n");
        assert_eq!(advice(&info("noeviction", 100)), None);
        assert_eq!(advice(&info("allkeys-lru", 0)), None);
        assert!(advice(&info("allkeys-lru", 100)).unwrap().contains("allkeys-lru"));
    }

    #[test]
    fn neither_debug_nor_address_show_the_password() {
        let mut config =
            BrokerConfig { url: "redis://till:hunter2@redis.test:6380/3".to_owned(), ..BrokerConfig::default() };
        let server = Server::new(&config).unwrap();
        assert_eq!(server.address(), "redis.test:6380");
        assert!(!format!("{server:?}").contains("hunter2"));
        config.sentinels = vec!["10.0.0.1:26379".to_owned()];
        config.sentinel_password = "hunter3".to_owned();
        let server = Server::new(&config).unwrap();
        assert!(!format!("{server:?} {config:?}").contains("hunter"));
    }

    #[test]
    fn the_holder_of_a_slot_is_the_primary_of_its_range() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let range = |host| {
            let primary = Value::Array(vec![host, Value::Int(7001), text("id")]);
            let replica = Value::Array(vec![text("10.0.0.9"), Value::Int(7009), text("id")]);
            vec![Value::Int(100), Value::Int(200), primary, replica]
        };
        let asked = ConnectionAddr::Tcp("10.0.0.1".to_owned(), 7000);
        let at = |host: &str| Some(ConnectionAddr::Tcp(host.to_owned(), 7001));
        assert_eq!(holder(&range(text("10.0.0.2")), 200, &asked), at("10.0.0.2"));
        for unknown in [Value::Nil, text(""), text("?")] {
            assert_eq!(holder(&range(unknown), 100, &asked), at("10.0.0.1"));
        }
        assert_eq!(holder(&range(text("10.0.0.2")), 201, &asked), None);
        assert_eq!(holder(&[], 1, &asked), None);
    }

    #[test]
    fn everybody_is_asked_and_another_one_first_each_time() {
        let turn = |number| in_turn(&[1, 2, 3], number).copied().collect::<Vec<_>>();
        assert_eq!((turn(0), turn(1), turn(5)), (vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]));
        assert_eq!(in_turn(&[0; 0], 7).count(), 0);
    }
}

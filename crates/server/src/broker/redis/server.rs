//! The connection to Redis: address, time-outs, back-off, and what has to hold of the server.

use std::{convert::Infallible, fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult,
    aio::{AsyncPushSender, MultiplexedConnection},
    io::tcp::TcpSettings,
};
use tokio::time::sleep;

/// How long connecting, and any command, may take. A Redis that is stopped keeps its connections open and says nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The longest pause between two attempts to connect is drawn from zero to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The first pause is drawn from zero to this, and the range doubles with each attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The oldest Redis with all that is used: `XADD` that counts within an epoch.
const OLDEST_VERSION: (u32, u32) = (7, 0);

/// Where Redis is. `Debug` shows no credentials.
pub(super) struct Server {
    client: Client,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address())
    }
}

impl Server {
    /// # Errors
    /// A URL that names no server.
    pub(super) fn new(url: &str) -> RedisResult<Self> {
        let info = url.into_connection_info()?;
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        // The library leaves Nagle's algorithm on, and a vanished peer unnoticed.
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(PATIENCE * 2);
        Ok(Self { client: Client::open(info.set_redis_settings(redis).set_tcp_settings(tcp))? })
    }

    /// Host and port, for the log.
    pub(super) fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// Connects for commands only.
    pub(super) async fn connect_plain(&self) -> RedisResult<MultiplexedConnection> {
        self.connect(None::<fn(redis::PushInfo) -> Result<(), Infallible>>).await
    }

    /// Connects, and checks what the server is. Pushed messages go to `pushes`.
    pub(super) async fn connect(&self, pushes: Option<impl AsyncPushSender>) -> RedisResult<MultiplexedConnection> {
        let mut config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        if let Some(pushes) = pushes {
            config = config.set_push_sender(pushes);
        }
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
        check(&info)?;
        Ok(connection)
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
        let server = Server::new("redis://till:hunter2@redis.test:6380/3").unwrap();
        assert_eq!(server.address(), "redis.test:6380");
        assert!(!format!("{server:?}").contains("hunter2"));
    }
}

//! The same scenario with its clients and requests spread over several nodes: `FANFARE_TEST_NODES=3`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use fanfare_protocol::{AppId, AppKey, AppSecret};
use fanfare_server::{
    Server,
    config::{AppConfig, BrokerDriver, Config},
};
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};

use crate::{
    Api, Client, RedisServer, TestServer, eventually,
    server::{Credentials, websocket_path},
};

/// The channel of [`Markers`], in an app of its own.
const CHANNEL: &str = "markers";

/// How many nodes a server of a scenario shall be, if it is not one.
pub(crate) fn wanted() -> Option<usize> {
    let nodes = std::env::var_os("FANFARE_TEST_NODES")?;
    let nodes = nodes.to_str().and_then(|nodes| nodes.parse().ok()).filter(|nodes| *nodes > 1);
    Some(nodes.expect("FANFARE_TEST_NODES: a number of nodes, 2 or more"))
}

/// The nodes beside the first one, and what they share.
#[derive(Debug)]
pub(crate) struct Spread {
    peers: Vec<TestServer>,
    turn: AtomicUsize,
    /// Of each node.
    markers: Vec<Arc<Markers>>,
    /// Outlives the nodes.
    _redis: RedisServer,
}

impl Spread {
    /// Starts nodes with the same configuration, in this process, and a Redis for them.
    pub(crate) fn start(nodes: usize, mut config: Config, credentials: &Credentials) -> TestServer {
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(RedisServer::start())
        };
        // The scenario's own runtime is busy with the scenario.
        let redis = thread::spawn(start).join().expect("Redis starts");
        config.broker.driver = BrokerDriver::Redis;
        config.broker.url = format!("redis://{}", redis.address());
        let markers = AppConfig {
            id: AppId::new("markers"),
            key: AppKey::new("markers-key"),
            secret: AppSecret::new("markers-secret"),
            subscription_count: false,
            ..AppConfig::demo()
        };
        let observer = Credentials::of(&markers);
        config.apps.push(markers);
        let node = || TestServer::run(Server::bind(config.clone()).expect("a free port"), credentials.clone());
        let (mut first, peers) = (node(), (1..nodes).map(|_| node()).collect::<Vec<_>>());
        let marker = |node: &TestServer| {
            Arc::new(Markers { address: node.address(), credentials: observer.clone(), line: OnceCell::new() })
        };
        let markers = [&first].into_iter().chain(&peers).map(marker).collect();
        first.spread = Some(Self { peers, turn: AtomicUsize::new(0), markers, _redis: redis });
        first
    }

    /// Whose turn it is; none: the first node's.
    pub(crate) fn next(&self) -> Option<&TestServer> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.peers.len() + 1);
        turn.checked_sub(1).map(|peer| &self.peers[peer])
    }

    /// What tells when events have come to a node.
    pub(crate) fn markers(&self, node: SocketAddr) -> Option<Arc<Markers>> {
        self.markers.iter().find(|markers| markers.address == node).cloned()
    }

    pub(crate) fn peers(&mut self) -> &mut [TestServer] {
        &mut self.peers
    }
}

/// Tells when what was published has come to a node. On one node it has when its trigger is answered; here it has when an event that
/// was published afterwards has.
#[derive(Debug)]
pub(crate) struct Markers {
    address: SocketAddr,
    credentials: Credentials,
    line: OnceCell<Mutex<Line>>,
}

#[derive(Debug)]
struct Line {
    publisher: Api,
    observer: Client,
    number: usize,
}

impl Markers {
    async fn connect(&self) -> Mutex<Line> {
        let path = websocket_path(&self.credentials.key);
        let observer = Client::connect(self.address, &path, self.credentials.clone());
        let mut observer = observer.await.expect("the node lets its observer in");
        observer.subscribe(CHANNEL).await;
        let publisher = Api::connect(self.address, self.credentials.clone()).await;
        Mutex::new(Line { publisher, observer, number: 0 })
    }

    /// Waits until the node has given its workers all that was accepted before, and what its own clients had sent.
    pub(crate) async fn pass(&self) {
        let mut line = self.line.get_or_init(|| self.connect()).await.lock().await;
        let Line { publisher, observer, number } = &mut *line;
        // A first one goes out together with what waits, maybe in front of it; the second one after it.
        for _ in 0..2 {
            *number += 1;
            let mark = format!("{} {number}", self.address);
            let body = json!({"name": "mark", "channel": CHANNEL, "data": mark}).to_string();
            // The node may still have no room for more.
            let publish = async || publisher.post("/events", &body).await.status;
            eventually("the node takes a mark", publish, |status| *status == 200).await;
            // Those of other nodes are on the same channel.
            observer.until(|event| event.data == mark).await;
        }
    }
}

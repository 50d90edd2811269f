//! A cluster, a load on it, and what has to hold of what arrives.

use std::time::Duration;

use fanfare_tests::{Api, Client, DEADLINE, Event, Node, RedisServer};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Lets a load run on. What happens meanwhile is the scenario, not something to wait for.
pub(crate) async fn let_it_run(time: Duration) {
    sleep(time).await;
}

/// A Redis and nodes that share it.
pub(crate) struct Cluster {
    pub(crate) redis: RedisServer,
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// Nodes that receive what others publish when this returns.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[]).await
    }

    pub(crate) async fn start_with(nodes: usize, variables: &[(&str, &str)]) -> Self {
        let redis = RedisServer::start().await;
        let start = (0..nodes).map(|_| node(&redis, variables));
        let nodes = futures_util::future::join_all(start).await;
        for node in &nodes {
            node.logs("receiving events of all nodes").await;
            node.logs("publishing through Redis").await;
        }
        Self { redis, nodes }
    }

    /// Subscribes a client at each node to channels.
    pub(crate) async fn subscribers(&self, channels: &[&str]) -> Vec<Client> {
        let mut clients = Vec::new();
        for node in &self.nodes {
            let mut client = node.connect().await;
            for channel in channels {
                client.subscribe(channel).await;
            }
            clients.push(client);
        }
        clients
    }
}

/// A node at a Redis, which need not run yet.
pub(crate) async fn node(redis: &RedisServer, variables: &[(&str, &str)]) -> Node {
    node_at(&format!("redis://{}", redis.address()), variables).await
}

pub(crate) async fn node_at(url: &str, variables: &[(&str, &str)]) -> Node {
    let mut all = vec![("FANFARE__BROKER__DRIVER", "redis"), ("FANFARE__BROKER__URL", url)];
    all.extend_from_slice(variables);
    Node::start(env!("CARGO_BIN_EXE_node"), &all).await
}

/// Triggers numbered events in turn on channels until it is told to stop, and tells what was accepted.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    task: JoinHandle<Accepted>,
}

/// What a load has published.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    /// Data of the events that were answered 200, in order.
    pub(crate) events: Vec<String>,
    /// Answers of 503.
    pub(crate) refused: usize,
    /// The longest time to an answer.
    pub(crate) slowest: Duration,
}

/// Time between two triggers of a load.
const PACE: Duration = Duration::from_millis(5);

impl Load {
    pub(crate) fn start(mut api: Api, name: &'static str, channels: &'static [&'static str]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut accepted = Accepted::default();
            let mut next = Instant::now();
            for number in 0.. {
                if *stopped.borrow() {
                    break;
                }
                sleep_until(next).await;
                let start = Instant::now();
                next = start.max(next + PACE);
                let channel = channels[number % channels.len()];
                let data = format!("{name}:{number}");
                let body = json!({"name": "numbered", "channel": channel, "data": data}).to_string();
                // The node may be killed under it: then what was asked last is neither accepted nor refused.
                let Ok(response) = tokio::spawn(post(api, body)).await else { break };
                let response = response;
                api = response.0;
                accepted.slowest = accepted.slowest.max(start.elapsed());
                match response.1 {
                    200 => accepted.events.push(format!("{channel} {data}")),
                    503 => accepted.refused += 1,
                    status => panic!("a trigger was answered {status}"),
                }
            }
            accepted
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Accepted {
        let _ = self.stop.send(true);
        self.task.await.expect("the load ends")
    }
}

async fn post(mut api: Api, body: String) -> (Api, u16) {
    let response = api.post("/events", &body).await;
    if response.status == 503 {
        assert!(response.headers.to_lowercase().contains("retry-after: "), "{response:?}");
    }
    (api, response.status)
}

/// Collects the events of a client, as `channel data`, until `end` events have come, and nothing more.
pub(crate) async fn collect(client: &mut Client, count: usize) -> Vec<String> {
    let mut received = Vec::with_capacity(count);
    while received.len() < count {
        let event = match timeout(DEADLINE, client.next_event()).await {
            Ok(event) => event,
            Err(_) => panic!("{} of {count} events came; the last was {:?}", received.len(), received.last()),
        };
        received.push(format!("{} {}", event.channel.unwrap_or_default(), event.data));
    }
    let more = client.settled().await;
    assert!(more.is_empty(), "more came than was published: {more:?}");
    received
}

/// Each subscriber has each event once, each channel's in the order in which it was published, and all see one order.
#[track_caller]
pub(crate) fn assert_whole(received: &[Vec<String>], publishers: &[&Accepted]) {
    assert_complete(received, publishers);
    for (number, events) in received.iter().enumerate() {
        for channel_events in by_channel(events) {
            let channel = channel_of(&channel_events[0]);
            let first: Vec<_> = received[0].iter().filter(|event| channel_of(event) == channel).collect();
            let same = first.into_iter().eq(&channel_events);
            assert!(same, "subscribers 0 and {number} saw different orders in {channel}");
        }
    }
}

/// Each subscriber has each event once, and those of each publisher in the order in which it published them.
#[track_caller]
pub(crate) fn assert_complete(received: &[Vec<String>], publishers: &[&Accepted]) {
    let total: usize = publishers.iter().map(|accepted| accepted.events.len()).sum();
    for (number, events) in received.iter().enumerate() {
        assert_eq!(events.len(), total, "subscriber {number} has another number of events");
        for accepted in publishers {
            for channel_events in by_channel(&accepted.events) {
                let channel = channel_of(&channel_events[0]).to_owned();
                let name = publisher_of(&channel_events[0]).to_owned();
                let got: Vec<_> = events
                    .iter()
                    .filter(|event| channel_of(event) == channel && publisher_of(event) == name)
                    .cloned()
                    .collect();
                assert_eq!(got, channel_events, "subscriber {number}, channel {channel}");
            }
        }
    }
}

fn channel_of(event: &str) -> &str {
    event.split(' ').next().unwrap_or_default()
}

fn publisher_of(event: &str) -> &str {
    event.split([' ', ':']).nth(1).unwrap_or_default()
}

fn by_channel(events: &[String]) -> Vec<Vec<String>> {
    let mut channels: Vec<Vec<String>> = Vec::new();
    for event in events {
        match channels.iter_mut().find(|channel| channel_of(&channel[0]) == channel_of(event)) {
            Some(channel) => channel.push(event.clone()),
            None => channels.push(vec![event.clone()]),
        }
    }
    channels
}

/// Changes a list of members as a frame says; a member comes only when it is not there, and goes only when it is.
pub(crate) fn follow(members: &mut Vec<String>, event: &Event) {
    match event.name.as_str() {
        "pusher_internal:member_added" => {
            let place = members.binary_search(&event.member()).expect_err("a member who was there came");
            members.insert(place, event.member());
        }
        "pusher_internal:member_removed" => {
            let place = members.binary_search(&event.member()).expect("a member who was not there went");
            members.remove(place);
        }
        "pusher:pong" => {}
        _ => panic!("{event:?}"),
    }
}

/// A certificate for every server of a scenario, and a file that makes nodes trust it.
pub(crate) struct Trust {
    made: rcgen::CertifiedKey<rcgen::KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Trust {
    pub(crate) fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), made.cert.pem()).expect("a file");
        Self { made, file }
    }

    /// A server that speaks nothing but TLS.
    pub(crate) fn server(&self, server: RedisServer) -> RedisServer {
        server.with_tls(&self.made.cert.pem(), &self.made.signing_key.serialize_pem())
    }

    /// What a node is told.
    pub(crate) fn variable(&self) -> (&str, &str) {
        ("SSL_CERT_FILE", self.file.path().to_str().expect("a path in UTF-8"))
    }
}

/// Settings with which the log reaches back as little as it may.
pub(crate) const SHORT_WINDOW: [(&str, &str); 3] =
    [("FANFARE__BROKER__WINDOW", "2s"), ("FANFARE__BROKER__BUFFER_TIME", "2s"), ("FANFARE__RECOVERY__WINDOW", "2s")];

/// The log of a channel of the demo app, by the hash that all nodes have to agree on.
pub(crate) fn log_of(channel: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in "app-id\0".bytes().chain(channel.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    format!("fanfare:{{{}}}:log", (hash ^ (hash >> 32)) % 16)
}

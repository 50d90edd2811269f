//! A Redis that is watched by sentinels: one server dies, another takes its place.

use std::time::Duration;

use fanfare_tests::{Node, RedisServer, eventually};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    presence::users,
    recovery::assert_honest_while,
    support::{Load, Trust, assert_complete, collect, let_it_run, node_at},
};

const CHANNELS: &[&str] = &["news", "orders", "cache-a"];

/// What docs/scaling.md tells operators to allow at the servers, and at the sentinels.
const USERS: [&str; 2] = [
    "till on >hunter2 resetkeys ~fanfare:* resetchannels &fanfare:* -@all +@read +@write +@scripting +@pubsub +@transaction \
     -@dangerous +ping +info +hello +time",
    "watcher on >hunter4 -@all +sentinel|get-master-addr-by-name +hello",
];

/// A primary with a replica, and their sentinel, each with a password.
struct Watched {
    primary: RedisServer,
    replica: RedisServer,
    sentinel: RedisServer,
    /// There: everything speaks TLS, and nodes are users of their own.
    trust: Option<Trust>,
}

impl Watched {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(trust: Option<Trust>) -> Self {
        let passwords = ["--requirepass", "hunter2", "--masterauth", "hunter2", "--repl-diskless-sync-delay", "0"];
        let mut arguments = passwords.to_vec();
        if trust.is_some() {
            arguments.push("--user");
            arguments.extend(USERS[0].split_whitespace());
        }
        let prepare = |server| match &trust {
            Some(trust) => trust.server(server),
            None => server,
        };
        let mut primary = prepare(RedisServer::prepare(&arguments));
        primary.run().await;
        let port = primary.address().port().to_string();
        arguments.extend(["--replicaof", "127.0.0.1", &port]);
        let mut replica = prepare(RedisServer::prepare(&arguments));
        replica.run().await;
        let watcher = format!("user {}", USERS[1]);
        let lines = ["requirepass hunter3", "sentinel auth-pass orders hunter2", &watcher];
        let mut sentinel = prepare(RedisServer::prepare_sentinel(primary.address(), &lines));
        sentinel.run().await;
        let replicas = async || sentinel.ask(&["-a", "hunter3", "SENTINEL", "REPLICAS", "orders"]);
        eventually("the sentinel knows the replica", replicas, |answer| answer.contains("master-link-status\nok"))
            .await;
        Self { primary, replica, sentinel, trust }
    }

    /// A node that is told of a sentinel that does not run, too.
    async fn node(&self) -> Node {
        let gone = RedisServer::prepare(&[]);
        let sentinels = format!("{},{}", gone.address(), self.sentinel.address());
        let mut variables = vec![
            ("FANFARE__BROKER__SENTINELS", &*sentinels),
            ("FANFARE__BROKER__SENTINEL_MASTER", "orders"),
            ("FANFARE__BROKER__SENTINEL_PASSWORD", "hunter3"),
        ];
        let url = match &self.trust {
            None => "redis://:hunter2@unused.test",
            Some(trust) => {
                variables.pop();
                variables.push(("FANFARE__BROKER__SENTINEL_USERNAME", "watcher"));
                variables.push(("FANFARE__BROKER__SENTINEL_PASSWORD", "hunter4"));
                variables.push(trust.variable());
                "rediss://till:hunter2@unused.test"
            }
        };
        let node = node_at(url, &variables).await;
        node.logs("receiving events of all nodes").await;
        node.logs("publishing through Redis").await;
        node
    }
}

#[tokio::test]
async fn sentinels_and_servers_are_followed_over_tls_by_users_of_their_own() {
    let mut redis = Watched::start_with(Some(Trust::new())).await;
    let nodes = [redis.node().await, redis.node().await];
    let mut client = nodes[1].connect().await;
    client.subscribe("news").await;
    let mut api = nodes[0].api().await;
    api.trigger("news", "e", "before").await;
    assert_eq!(client.next_event().await.data, "before");
    redis.primary.kill();
    api.trigger("news", "e", "after").await;
    assert_eq!(client.next_event().await.data, "after");
    assert!(nodes.iter().all(|node| !node.has_logged("hunter")));
}

#[tokio::test]
async fn a_failover_loses_no_event_and_no_member() {
    let mut redis = Watched::start().await;
    let nodes = [redis.node().await, redis.node().await];
    let mut clients = Vec::new();
    let mut members = Vec::new();
    for (node, user) in nodes.iter().zip(["ann", "bob"]) {
        let mut client = node.connect().await;
        for channel in CHANNELS {
            let frames = client.subscribe(channel).await;
            assert_eq!(frames.len(), 0);
        }
        assert_eq!(client.next_event().await.name, "pusher:cache_miss");
        clients.push(client);
        let mut member = node.connect().await;
        member.join("presence-room", user).await;
        members.push(member);
    }
    assert_eq!(members[0].next_event().await.name, "pusher_internal:member_added");
    let mut leaver = nodes[1].connect().await;
    leaver.join("presence-room", "cid").await;
    for member in &mut members {
        assert_eq!(member.next_event().await.member(), "cid");
    }
    let loads = [Load::start(nodes[0].api().await, "a", CHANNELS), Load::start(nodes[1].api().await, "b", CHANNELS)];
    let_it_run(Duration::from_millis(500)).await;
    redis.primary.kill();
    let start = Instant::now();
    leaver.close().await;
    for node in &nodes {
        node.logs("Redis takes events again").await;
        node.logs("events come again").await;
    }
    let took = start.elapsed();
    let_it_run(Duration::from_millis(300)).await;
    let [a, b] = loads.map(Load::stop);
    let (a, b) = tokio::join!(a, b);
    let total = a.events.len() + b.events.len();
    let received = join_all(clients.iter_mut().map(|client| collect(client, total))).await;
    // What the replica had not got yet is sent again by each publisher for itself.
    assert_complete(&received, &[&a, &b]);
    assert_eq!(a.refused + b.refused, 0);
    for node in &nodes {
        let members = async || users(node, "presence-room").await;
        eventually("both are members", members, |users| *users == ["ann", "bob"]).await;
        assert!(!node.has_logged("hunter"));
    }
    // Whoever left meanwhile is gone, and nobody else is.
    for member in &mut members {
        let event = member.next_event().await;
        assert!(event.name.ends_with("member_removed") && event.member() == "cid", "{event:?}");
        assert_eq!(member.settled().await, []);
    }
    println!(
        "a primary killed under sentinels: {total} events accepted, none refused, lost 0, twice 0; events again after {took:?}, \
         slowest answer {:?}",
        a.slowest.max(b.slowest)
    );
}

#[tokio::test]
async fn who_travels_during_a_failover_misses_nothing_unless_told() {
    let mut redis = Watched::start().await;
    let nodes = [redis.node().await, redis.node().await];
    assert_honest_while(&nodes, &["news", "orders"], async || {
        let_it_run(Duration::from_millis(300)).await;
        redis.primary.kill();
        // The other one has nothing to publish, and does not notice.
        nodes[0].logs("Redis takes events again").await;
        for node in &nodes {
            node.logs("events come again").await;
        }
        let_it_run(Duration::from_millis(500)).await;
    })
    .await;
}

#[tokio::test]
async fn a_primary_that_was_replaced_while_it_lives_is_left() {
    let redis = Watched::start().await;
    let nodes = [redis.node().await, redis.node().await];
    let mut client = nodes[1].connect().await;
    client.subscribe("news").await;
    // Sentinels would end its clients' connections when they make it a replica, but a server that stands still cannot be told to.
    redis.primary.pause();
    let primary = async || redis.sentinel.ask(&["-a", "hunter3", "SENTINEL", "get-master-addr-by-name", "orders"]);
    let port = redis.replica.address().port().to_string();
    eventually("the replica is the primary", primary, |answer| answer.ends_with(&port)).await;
    let mut api = nodes[0].api().await;
    api.trigger("news", "e", "1").await;
    assert_eq!(client.next_event().await.data, "1");
    // The old primary comes back and takes itself for one for a moment. Nobody connects to it.
    redis.primary.resume();
    let role = async || redis.primary.ask(&["-a", "hunter2", "ROLE"]);
    eventually("it is a replica", role, |answer| answer.starts_with("slave")).await;
    for number in 2..20 {
        api.trigger("news", "e", &number.to_string()).await;
        assert_eq!(client.next_event().await.data, number.to_string());
    }
    assert_eq!(client.settled().await, []);
}

#[tokio::test]
async fn sentinels_that_do_not_know_the_name_are_said() {
    let redis = Watched::start().await;
    let address = redis.sentinel.address().to_string();
    let variables = [("FANFARE__BROKER__SENTINELS", &*address), ("FANFARE__BROKER__SENTINEL_PASSWORD", "hunter3")];
    let node = node_at("redis://:hunter2@unused.test", &variables).await;
    node.logs("no sentinel knows broker.sentinel_master").await;
}

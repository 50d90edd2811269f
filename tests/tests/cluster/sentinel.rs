//! A Redis that is watched by sentinels: one server dies, another takes its place.

use std::time::Duration;

use fanfare_tests::{Node, RedisServer, eventually};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    presence::users,
    recovery::assert_honest_while,
    support::{Load, assert_complete, collect, let_it_run, node_at},
};

const CHANNELS: &[&str] = &["news", "orders", "cache-a"];

/// A primary with a replica, and their sentinel, each with a password.
struct Watched {
    primary: RedisServer,
    replica: RedisServer,
    sentinel: RedisServer,
}

impl Watched {
    async fn start() -> Self {
        let passwords = ["--requirepass", "hunter2", "--masterauth", "hunter2", "--repl-diskless-sync-delay", "0"];
        let primary = RedisServer::start_with(&passwords).await;
        let port = primary.address().port().to_string();
        let mut arguments = passwords.to_vec();
        arguments.extend(["--replicaof", "127.0.0.1", &port]);
        let replica = RedisServer::start_with(&arguments).await;
        let lines = ["requirepass hunter3", "sentinel auth-pass orders hunter2"];
        let mut sentinel = RedisServer::prepare_sentinel(primary.address(), &lines);
        sentinel.run().await;
        let replicas = async || sentinel.ask(&["-a", "hunter3", "SENTINEL", "REPLICAS", "orders"]);
        eventually("the sentinel knows the replica", replicas, |answer| answer.contains("master-link-status\nok"))
            .await;
        Self { primary, replica, sentinel }
    }

    /// A node that is told of a sentinel that does not run, too.
    async fn node(&self) -> Node {
        let gone = RedisServer::prepare(&[]);
        let sentinels = format!("{},{}", gone.address(), self.sentinel.address());
        let variables = [
            ("FANFARE__BROKER__SENTINELS", &*sentinels),
            ("FANFARE__BROKER__SENTINEL_MASTER", "orders"),
            ("FANFARE__BROKER__SENTINEL_PASSWORD", "hunter3"),
        ];
        let node = node_at("redis://:hunter2@unused.test", &variables).await;
        node.logs("receiving events of all nodes").await;
        node.logs("publishing through Redis").await;
        node
    }
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

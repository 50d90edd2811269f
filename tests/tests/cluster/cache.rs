//! The last event of a cache channel is the cluster's: also a node that never saw it has it.

use std::time::Duration;

use fanfare_tests::{Api, Client, Node, RedisServer, WebhookReceiver, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{Cluster, Load, collect, node};

const PRICES: &str = "cache-prices";

/// A node that has seen no event that was published before.
async fn late(redis: &RedisServer, variables: &[(&str, &str)]) -> Node {
    let node = node(redis, variables).await;
    node.logs("receiving events").await;
    node.logs("publishing through Redis").await;
    node
}

/// Subscribes a new client, and takes what comes right behind.
async fn look(node: &Node, channel: &str) -> (Client, String) {
    let mut client = node.connect().await;
    client.subscribe(channel).await;
    let event = client.next_event().await;
    assert_eq!(event.channel.as_deref(), Some(channel), "{event:?}");
    let found = if event.name == "pusher:cache_miss" { "miss".to_owned() } else { event.data };
    (client, found)
}

async fn kept(api: &mut Api, channel: &str) -> Value {
    let path = format!("/channels/{channel}");
    let answer = async || api.get(&path, &[("info", "cache")]).await;
    // For a moment after a start nothing can be read.
    eventually("Redis is asked", answer, |answer| answer.status == 200).await.json()["cache"].take()
}

#[tokio::test]
async fn who_waits_for_the_event_hears_the_count_that_it_makes() {
    let cluster = Cluster::start_with(2, &[("FANFARE__APPS__0__SUBSCRIPTION_COUNT", "true")]).await;
    for round in 0..10 {
        let channel = format!("cache-counted-{round}");
        let mut clients = Vec::new();
        for (count, node) in (1..).zip(&cluster.nodes) {
            let (client, _) = look(node, &channel).await;
            clients.push(client);
            for client in &mut clients {
                let event = client.next_event().await;
                assert_eq!(event.data, format!(r#"{{"subscription_count":{count}}}"#), "{event:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_never_saw_the_event_has_it_and_all_forget_it_in_time() {
    let variables = [("FANFARE__APPS__0__CACHE_TTL", "3s")];
    let cluster = Cluster::start_with(1, &variables).await;
    let mut api = cluster.nodes[0].api().await;
    let (mut early, found) = look(&cluster.nodes[0], PRICES).await;
    assert_eq!(found, "miss");
    api.trigger(PRICES, "price", "1").await;
    let start = Instant::now();
    api.trigger("presence-cache-room", "price", "2").await;
    assert_eq!(early.next_event().await.data, "1");

    let other = late(&cluster.redis, &variables).await;
    let mut there = other.api().await;
    assert_eq!(kept(&mut there, PRICES).await["data"], "1");
    let (mut client, found) = look(&other, PRICES).await;
    assert_eq!(found, "1");
    let mut member = other.connect().await;
    assert_eq!(member.join("presence-cache-room", "ann").await.members(), ["ann"]);
    assert_eq!(member.next_event().await.data, "2");
    // It came once: it is neither repeated nor sent to those who had it.
    assert_eq!(client.settled().await, []);
    assert_eq!(early.settled().await, []);

    // It is forgotten in time everywhere, also by a node that heard of it later.
    let gone = async || kept(&mut other.api().await, PRICES).await;
    eventually("the event is forgotten", gone, Value::is_null).await;
    assert!(start.elapsed() >= Duration::from_millis(2900), "{:?}", start.elapsed());
    // Each node has a clock of its own.
    for node in [&cluster.nodes[0], &other] {
        let found = async || look(node, PRICES).await.1;
        eventually("the node has forgotten it, too", found, |found| found == "miss").await;
    }
    let left = async || cluster.redis.ask(&["KEYS", "*kep*"]);
    eventually("nothing of it is left", left, String::is_empty).await;
}

#[tokio::test]
async fn a_miss_is_told_of_once_in_the_cluster() {
    let mut receiver = WebhookReceiver::start();
    let url = receiver.url();
    let variables = [
        ("FANFARE__APPS__0__WEBHOOKS__0__URL", &*url),
        ("FANFARE__APPS__0__WEBHOOKS__0__EVENT_TYPES__0", "cache_miss"),
        ("FANFARE__APPS__0__CACHE_TTL", "2s"),
    ];
    let cluster = Cluster::start_with(3, &variables).await;
    let looks = join_all(cluster.nodes.iter().chain(&cluster.nodes).map(|node| look(node, PRICES))).await;
    assert!(looks.iter().all(|(_, found)| found == "miss"));
    assert_eq!(receiver.next_event().await, json!({"name": "cache_miss", "channel": PRICES}));
    // An event ends the miss. When that event is forgotten, the next miss is told again.
    cluster.nodes[1].api().await.trigger(PRICES, "price", "1").await;
    let found = async || look(&cluster.nodes[2], PRICES).await.1;
    eventually("the event is forgotten", found, |found| found == "miss").await;
    assert_eq!(receiver.next_event().await["name"], "cache_miss");
    look(&cluster.nodes[0], PRICES).await;
    // The same holds when all have left. Two are never told within a second, hence the pause.
    sleep(Duration::from_secs(1)).await;
    for (client, _) in looks {
        client.close().await;
    }
    let occupied = async || cluster.nodes[0].api().await.get("/channels", &[]).await.json()["channels"].clone();
    eventually("the channel is vacated", occupied, |channels| *channels == json!({})).await;
    look(&cluster.nodes[1], PRICES).await;
    assert_eq!(receiver.next_event().await["name"], "cache_miss");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(receiver.names(), [""; 0]);
}

#[tokio::test]
async fn what_is_kept_comes_before_what_is_newer_and_nothing_twice() {
    const CHANNELS: usize = 150;
    let cluster = Cluster::start(1).await;
    let channels: Vec<_> = (0..CHANNELS).map(|number| format!("cache-{number}")).collect();
    let mut api = cluster.nodes[0].api().await;
    for channel in &channels {
        api.trigger(channel, "e", "1").await;
    }
    let other = late(&cluster.redis, &[]).await;
    // One connection publishes while others subscribe: in each channel at about the same time.
    let publish = async {
        for channel in &channels {
            api.trigger(channel, "e", "2").await;
        }
    };
    let subscribe = async {
        let mut clients = Vec::new();
        for channel in &channels {
            let mut client = other.connect().await;
            let data = client.subscription(channel, None);
            client.begin_subscribe(data).await;
            clients.push(client);
        }
        clients
    };
    let ((), clients) = tokio::join!(publish, subscribe);
    let mut both = 0;
    for (mut client, channel) in clients.into_iter().zip(&channels) {
        let mut data = Vec::new();
        while data.last().is_none_or(|last| last != "2") {
            let event = client.next_event().await;
            assert_eq!(event.channel.as_ref(), Some(channel));
            if event.name != "pusher_internal:subscription_succeeded" {
                data.push(event.data);
            }
        }
        assert!(data == ["2"] || data == ["1", "2"], "{channel}: {data:?}");
        both += usize::from(data.len() == 2);
        assert_eq!(client.settled().await, []);
    }
    println!("kept events under way with newer ones: {both} of {CHANNELS} subscribers had the kept one first");
}

#[tokio::test]
async fn a_redis_that_lost_the_events_is_given_them_back() {
    let mut cluster = Cluster::start(2).await;
    let mut api = cluster.nodes[0].api().await;
    api.trigger(PRICES, "price", "1").await;
    api.trigger(PRICES, "price", "2").await;
    let given = async || kept(&mut cluster.nodes[1].api().await, PRICES).await["data"].clone();
    eventually("it is kept", given, |data| data == "2").await;
    // The node that published them must not be there to send them again.
    cluster.nodes[0].kill();
    cluster.redis.kill();
    cluster.redis.run().await;
    let start = Instant::now();
    let given = async || kept(&mut cluster.nodes[1].api().await, PRICES).await["data"].clone();
    eventually("it is kept again", given, |data| data == "2").await;
    println!("Redis emptied: kept events are there again after {:?}", start.elapsed());
    let other = late(&cluster.redis, &[]).await;
    assert_eq!(look(&other, PRICES).await.1, "2");
}

#[tokio::test]
async fn redis_under_load_keeps_the_last_event_whatever_is_sent_again() {
    let cluster = Cluster::start(2).await;
    let (mut witness, _) = look(&cluster.nodes[0], PRICES).await;
    let loads = [
        Load::start(cluster.nodes[0].api().await, "a", &[PRICES]),
        Load::start(cluster.nodes[1].api().await, "b", &[PRICES]),
    ];
    for _ in 0..15 {
        sleep(Duration::from_millis(100)).await;
        cluster.redis.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    let [a, b] = loads.map(Load::stop);
    let (a, b) = tokio::join!(a, b);
    let received = collect(&mut witness, a.events.len() + b.events.len()).await;
    let other = late(&cluster.redis, &[]).await;
    assert_eq!(Some(&format!("{PRICES} {}", look(&other, PRICES).await.1)), received.last());
}

#[tokio::test]
async fn without_redis_a_subscriber_gets_the_event_when_it_is_back() {
    let cluster = Cluster::start(1).await;
    cluster.nodes[0].api().await.trigger(PRICES, "price", "1").await;
    let other = late(&cluster.redis, &[]).await;
    cluster.redis.pause();
    let mut client = other.connect().await;
    client.subscribe(PRICES).await;
    cluster.redis.resume();
    assert_eq!(client.next_event().await.data, "1");
    assert_eq!(client.settled().await, []);
}

//! Parts fail under load. Nothing that was accepted is lost, comes twice or in another order.

use std::{process::Command, time::Duration};

use fanfare_tests::{Client, Proxy, RedisServer, WebhookReceiver, eventually};
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};

use crate::{
    support::{
        Accepted, Cluster, Load, SHORT_WINDOW, assert_complete, assert_whole, collect, let_it_run, log_of, node,
        node_at,
    },
    witnesses::{Witnesses, noted, variables},
};

const CHANNELS: &[&str] = &["news", "orders", "private-a"];

async fn receive_all(clients: &mut [Client], accepted: &[&Accepted]) -> Vec<Vec<String>> {
    let total = accepted.iter().map(|accepted| accepted.events.len()).sum();
    join_all(clients.iter_mut().map(|client| collect(client, total))).await
}

/// As `tell`, when members and webhooks were looked at, too.
fn tell_all(what: &str, accepted: &[&Accepted], start: Instant, members: Duration) {
    tell(what, accepted, start);
    println!("{what}: all members agreed {members:?} later; each change told to them and to the endpoint once");
}

fn tell(what: &str, accepted: &[&Accepted], start: Instant) {
    let events: usize = accepted.iter().map(|accepted| accepted.events.len()).sum();
    let refused: usize = accepted.iter().map(|accepted| accepted.refused).sum();
    let slowest = accepted.iter().map(|accepted| accepted.slowest).max().unwrap_or_default();
    println!(
        "{what}: {events} events accepted, {refused} refused, slowest answer {slowest:?}; all subscribers had all of them \
         {:?} after the end of the fault; lost 0, twice 0, out of order 0",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_redis_that_stops_for_five_seconds_delays_events_and_loses_none() {
    let (cluster, receiver) = Witnesses::cluster(3).await;
    let mut clients = cluster.subscribers(CHANNELS).await;
    let mut witnesses = Witnesses::gather(&cluster, receiver, CHANNELS).await;
    let loads = [
        Load::start(cluster.nodes[0].api().await, "a", CHANNELS),
        Load::start(cluster.nodes[1].api().await, "b", CHANNELS),
    ];
    let_it_run(Duration::from_millis(500)).await;
    cluster.redis.pause();
    witnesses.leave("a0").await;
    let_it_run(Duration::from_secs(5)).await;
    cluster.redis.resume();
    let end = Instant::now();
    witnesses.join(&cluster.nodes[2], "late").await;
    let_it_run(Duration::from_millis(500)).await;
    let [a, b] = loads.map(Load::stop);
    let (a, b) = tokio::join!(a, b);
    let received = receive_all(&mut clients, &[&a, &b]).await;
    assert_whole(&received, &[&a, &b]);
    assert_eq!(a.refused + b.refused, 0);
    let members = witnesses.check(&cluster.nodes.iter().collect::<Vec<_>>()).await;
    tell_all("Redis stopped for 5 s", &[&a, &b], end, members);
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_loses_no_event() {
    let (mut cluster, receiver) = Witnesses::cluster(3).await;
    let mut clients = cluster.subscribers(CHANNELS).await;
    let mut witnesses = Witnesses::gather(&cluster, receiver, CHANNELS).await;
    let loads = [
        Load::start(cluster.nodes[0].api().await, "a", CHANNELS),
        Load::start(cluster.nodes[1].api().await, "b", CHANNELS),
    ];
    for leaver in ["a0", "b0", "c0"] {
        let_it_run(Duration::from_millis(700)).await;
        cluster.redis.kill();
        witnesses.leave(leaver).await;
        let_it_run(Duration::from_millis(500)).await;
        cluster.redis.run().await;
    }
    let end = Instant::now();
    witnesses.join(&cluster.nodes[2], "late").await;
    let_it_run(Duration::from_millis(500)).await;
    let [a, b] = loads.map(Load::stop);
    let (a, b) = tokio::join!(a, b);
    let received = receive_all(&mut clients, &[&a, &b]).await;
    // Two publishers fill a new log each at its own time, and nodes may have had different parts of the old one.
    assert_complete(&received, &[&a, &b]);
    let members = witnesses.check(&cluster.nodes.iter().collect::<Vec<_>>()).await;
    tell_all("Redis killed and started empty, three times", &[&a, &b], end, members);
}

#[tokio::test]
async fn a_redis_that_is_emptied_under_way_loses_no_event() {
    let cluster = Cluster::start(2).await;
    let mut clients = cluster.subscribers(CHANNELS).await;
    let load = Load::start(cluster.nodes[0].api().await, "a", CHANNELS);
    for _ in 0..5 {
        let_it_run(Duration::from_millis(200)).await;
        assert_eq!(cluster.redis.ask(&["FLUSHALL"]), "OK");
    }
    let end = Instant::now();
    let_it_run(Duration::from_millis(200)).await;
    let a = load.stop().await;
    assert_whole(&receive_all(&mut clients, &[&a]).await, &[&a]);
    for node in &cluster.nodes {
        let told = node.lines("this node reads what others send again");
        assert!(told.len() <= 5, "a line for each shard: {told:?}");
    }
    tell("Redis emptied by FLUSHALL, five times", &[&a], end);
}

#[tokio::test]
async fn an_outage_longer_than_the_buffer_refuses_and_keeps_what_it_took() {
    let variables = [("FANFARE__BROKER__BUFFER_TIME", "1s")];
    let mut cluster = Cluster::start_with(2, &variables).await;
    let mut clients = cluster.subscribers(CHANNELS).await;
    let load = Load::start(cluster.nodes[0].api().await, "a", CHANNELS);
    let_it_run(Duration::from_millis(300)).await;
    cluster.redis.kill();
    let_it_run(Duration::from_millis(2500)).await;
    // Connections stay up, and answer.
    for client in &mut clients {
        client.send(&serde_json::json!({"event": "pusher:ping", "data": {}})).await;
    }
    cluster.redis.run().await;
    let end = Instant::now();
    let_it_run(Duration::from_millis(2500)).await;
    let a = load.stop().await;
    assert!(a.refused > 100, "{} were refused", a.refused);
    let total = a.events.len();
    let received = join_all(clients.iter_mut().map(async |client| {
        let mut all = collect_with_pong(client, total).await;
        all.retain(|event| !event.starts_with(" {}"));
        all
    }));
    assert_whole(&received.await, &[&a]);
    tell("Redis gone for longer than the buffer lasts", &[&a], end);
}

/// As `collect`, with the answer to one ping somewhere among the events.
async fn collect_with_pong(client: &mut Client, count: usize) -> Vec<String> {
    collect(client, count + 1).await
}

#[tokio::test]
async fn a_slow_line_to_redis_that_breaks_again_and_again_loses_no_event() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.address(), Duration::from_millis(50));
    let url = format!("redis://{}", proxy.address());
    let receiver = WebhookReceiver::start();
    let endpoint = receiver.url();
    let nodes = vec![node_at(&url, &variables(&endpoint)).await, node_at(&url, &variables(&endpoint)).await];
    let cluster = Cluster { redis, nodes };
    for node in &cluster.nodes {
        node.logs("receiving events").await;
        node.logs("publishing through").await;
    }
    let mut clients = cluster.subscribers(CHANNELS).await;
    let mut witnesses = Witnesses::gather(&cluster, receiver, CHANNELS).await;
    let load = Load::start(cluster.nodes[0].api().await, "a", CHANNELS);
    for round in 0..10 {
        let_it_run(Duration::from_millis(300)).await;
        proxy.cut();
        if round == 5 {
            witnesses.leave("a0").await;
        }
    }
    let end = Instant::now();
    witnesses.join(&cluster.nodes[1], "late").await;
    let_it_run(Duration::from_millis(500)).await;
    let a = load.stop().await;
    assert_whole(&receive_all(&mut clients, &[&a]).await, &[&a]);
    assert_eq!(a.refused, 0);
    let members = witnesses.check(&cluster.nodes.iter().collect::<Vec<_>>()).await;
    tell_all("a line of 100 ms that broke ten times", &[&a], end, members);
}

#[tokio::test]
async fn connections_that_redis_ends_lose_no_event() {
    let cluster = Cluster::start(2).await;
    let mut clients = cluster.subscribers(CHANNELS).await;
    let load = Load::start(cluster.nodes[0].api().await, "a", CHANNELS);
    for round in 0..30 {
        let_it_run(Duration::from_millis(100)).await;
        let kind = ["normal", "pubsub"][round % 2];
        cluster.redis.ask(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
    }
    let end = Instant::now();
    let_it_run(Duration::from_millis(300)).await;
    let a = load.stop().await;
    assert_whole(&receive_all(&mut clients, &[&a]).await, &[&a]);
    tell("CLIENT KILL, thirty times", &[&a], end);
}

#[tokio::test]
async fn a_node_that_is_killed_takes_nothing_with_it_that_was_answered() {
    let (mut cluster, receiver) = Witnesses::cluster(3).await;
    let mut clients = cluster.subscribers(CHANNELS).await;
    let mut witnesses = Witnesses::gather(&cluster, receiver, CHANNELS).await;
    let loads = [
        Load::start(cluster.nodes[0].api().await, "a", CHANNELS),
        Load::start(cluster.nodes[1].api().await, "b", CHANNELS),
    ];
    let_it_run(Duration::from_millis(700)).await;
    cluster.nodes[0].kill();
    let end = Instant::now();
    witnesses.died(&["a0", "a1"]);
    witnesses.leave("b0").await;
    witnesses.join(&cluster.nodes[2], "late").await;
    let_it_run(Duration::from_millis(500)).await;
    let [a, b] = loads.map(Load::stop);
    let (a, b) = tokio::join!(a, b);
    // The trigger that was under way when the node died may have got through without an answer.
    let mut survivors = clients.split_off(1);
    let last = format!("a:{}", a.events.len());
    let received = join_all(survivors.iter_mut().map(async |client| {
        let mut events = collect_until_quiet(client, a.events.len() + b.events.len()).await;
        if events.iter().any(|event| event.ends_with(&last)) {
            events.retain(|event| !event.ends_with(&format!(" {last}")));
        }
        events
    }));
    assert_whole(&received.await, &[&a, &b]);
    let members = witnesses.check(&[&cluster.nodes[1], &cluster.nodes[2]]).await;
    tell_all("a publishing node killed", &[&a, &b], end, members);
}

/// Collects at least so many events, and what else has come by then.
async fn collect_until_quiet(client: &mut Client, count: usize) -> Vec<String> {
    let mut received = Vec::new();
    while received.len() < count {
        let event = client.next_event().await;
        received.push(format!("{} {}", event.channel.unwrap_or_default(), event.data));
    }
    for event in client.settled().await {
        received.push(format!("{} {}", event.channel.unwrap_or_default(), event.data));
    }
    received
}

#[tokio::test]
async fn a_node_that_was_paused_delivers_what_it_missed() {
    let (cluster, receiver) = Witnesses::cluster(2).await;
    let mut clients = cluster.subscribers(CHANNELS).await;
    let mut witnesses = Witnesses::gather(&cluster, receiver, CHANNELS).await;
    let load = Load::start(cluster.nodes[0].api().await, "a", CHANNELS);
    let_it_run(Duration::from_millis(300)).await;
    cluster.nodes[1].pause();
    let_it_run(Duration::from_secs(3)).await;
    cluster.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    cluster.nodes[0].logs("a node is gone").await;
    witnesses.were_away(&["b0", "b1"]);
    witnesses.leave("a0").await;
    cluster.nodes[1].resume();
    let end = Instant::now();
    witnesses.join(&cluster.nodes[1], "late").await;
    let_it_run(Duration::from_millis(300)).await;
    let a = load.stop().await;
    assert_whole(&receive_all(&mut clients, &[&a]).await, &[&a]);
    let members = witnesses.check(&cluster.nodes.iter().collect::<Vec<_>>()).await;
    tell_all("a node paused past its lease", &[&a], end, members);
}

/// A node that stood still does not know yet that others took its place. What it took then would be delivered by nobody.
#[tokio::test]
async fn a_node_takes_no_webhook_of_a_shard_that_another_one_has() {
    let (cluster, mut receiver) = Witnesses::cluster(1).await;
    let redis = &cluster.redis;
    let all = |command: &str| format!("for shard = 0, 15 do redis.call({command}) end");
    let owned = "local n = 0 for s = 0, 15 do n = n + redis.call('EXISTS', 'fanfare:{'..s..'}:owner') end return n";
    let count = async || redis.ask(&["EVAL", owned, "0"]);
    eventually("the node has all shards", count, |count| count == "16").await;
    redis.ask(&["EVAL", &all("'SET', 'fanfare:{'..shard..'}:owner', 'another'"), "0"]);
    let mut client = cluster.nodes[0].connect().await;
    client.subscribe("news").await;
    let hooks = log_of("news").replace(":log", ":hooks");
    eventually("it is known", async || redis.ask(&["XLEN", &hooks]), |length| length == "1").await;
    let_it_run(Duration::from_millis(300)).await;
    assert!(redis.ask(&["XPENDING", &hooks, "delivery"]).starts_with('0'));
    redis.ask(&["EVAL", &all("'DEL', 'fanfare:{'..shard..'}:owner'"), "0"]);
    assert_eq!(receiver.next_events().await, [("channel_occupied".to_owned(), "news".to_owned())]);
}

#[tokio::test]
async fn webhooks_that_are_in_an_emptied_redis_before_their_group_are_delivered() {
    let (cluster, mut receiver) = Witnesses::cluster(1).await;
    let hooks = log_of("news").replace(":log", ":hooks");
    let lose = "redis.call('DEL', KEYS[1]) redis.call('XADD', KEYS[1], '*', 'h', '')";
    cluster.redis.ask(&["EVAL", lose, "1", &hooks]);
    let mut client = cluster.nodes[0].connect().await;
    client.subscribe("news").await;
    assert_eq!(receiver.next_events().await, [("channel_occupied".to_owned(), "news".to_owned())]);
}

/// Two processes that cannot be told apart from outside: the same host, the same configuration, the same address of Redis.
#[tokio::test]
async fn nodes_of_one_name_are_two_nodes() {
    let redis = RedisServer::start().await;
    let receiver = WebhookReceiver::start();
    let url = receiver.url();
    let [webhook, delay] = variables(&url);
    let named = [("HOSTNAME", "till"), webhook, delay];
    let mut cluster = Cluster { nodes: vec![node(&redis, &named).await, node(&redis, &named).await], redis };
    assert_eq!(cluster.redis.ask(&["ZCARD", "fanfare:{nodes}:alive"]), "2");
    let mut clients = cluster.subscribers(CHANNELS).await;
    let mut witnesses = Witnesses::gather(&cluster, receiver, CHANNELS).await;
    let loads = [
        Load::start(cluster.nodes[0].api().await, "a", CHANNELS),
        Load::start(cluster.nodes[1].api().await, "b", CHANNELS),
    ];
    let_it_run(Duration::from_secs(2)).await;
    let [a, b] = loads.map(Load::stop);
    let (a, b) = tokio::join!(a, b);
    let received = receive_all(&mut clients, &[&a, &b]).await;
    assert_whole(&received, &[&a, &b]);
    cluster.nodes[0].kill();
    let end = Instant::now();
    witnesses.died(&["a0", "a1"]);
    let members = witnesses.check(&[&cluster.nodes[1]]).await;
    tell_all("two nodes of one name, one of them killed", &[&a, &b], end, members);
}

#[tokio::test]
async fn a_gap_beyond_the_window_is_counted_and_logged() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.address(), Duration::ZERO);
    let variables = SHORT_WINDOW;
    let near = node(&redis, &variables).await;
    let far = node_at(&format!("redis://{}", proxy.address()), &variables).await;
    for node in [&near, &far] {
        node.logs("receiving events").await;
    }
    let mut client = far.connect().await;
    client.subscribe("news").await;
    let mut api = near.api().await;
    api.trigger("news", "e", "before").await;
    assert_eq!(client.next_event().await.data, "before");
    proxy.close();
    // Enough to fill whole nodes of the stream: Redis trims nothing less.
    for number in 0..250 {
        api.trigger("news", "e", &format!("lost {number}")).await;
    }
    let gone = async || redis.ask(&["XLEN", &log_of("news")]).parse::<usize>().unwrap_or_default();
    eventually("the log is trimmed", gone, |length| *length < 150).await;
    api.trigger("news", "e", "after").await;
    proxy.open();
    let line = far.logs("events come again").await;
    let (mut received, last) = client.until(|event| event.data == "after").await;
    received.push(last);
    let lost = 251 - received.len();
    assert!(lost > 0 && line.contains(&format!("lost={lost}")), "{lost} were lost: {line}");
    assert!(far.has_logged("events are lost"));
    println!("a gap beyond the window: {lost} of 250 events lost, counted and logged");
}

#[tokio::test]
async fn nodes_start_without_redis_and_deliver_when_it_comes() {
    let mut redis = RedisServer::prepare(&[]);
    let nodes = [node(&redis, &[]).await, node(&redis, &[]).await];
    nodes[0].logs("cannot publish through Redis").await;
    nodes[1].logs("cannot receive events through Redis").await;
    let mut client = nodes[1].connect().await;
    client.subscribe("news").await;
    nodes[0].api().await.trigger("news", "e", "early").await;
    redis.run().await;
    let start = Instant::now();
    assert_eq!(client.next_event().await.data, "early");
    println!("Redis started after the nodes: what waited came after {:?}", start.elapsed());
}

#[tokio::test]
async fn a_node_that_drains_gives_its_events_to_redis() {
    let cluster = Cluster::start(2).await;
    let mut client = cluster.nodes[1].connect().await;
    client.subscribe("news").await;
    cluster.redis.pause();
    let mut api = cluster.nodes[0].api().await;
    // Answered when the node has noticed that Redis says nothing.
    for number in 0..3 {
        api.trigger("news", "e", &number.to_string()).await;
    }
    cluster.nodes[0].terminate();
    cluster.redis.resume();
    assert_eq!(collect(&mut client, 3).await, ["news 0", "news 1", "news 2"]);
}

#[tokio::test]
async fn a_redis_that_is_full_is_said_once_and_costs_nothing_but_time() {
    let (cluster, receiver) = Witnesses::cluster(2).await;
    let mut clients = cluster.subscribers(CHANNELS).await;
    let mut witnesses = Witnesses::gather(&cluster, receiver, CHANNELS).await;
    let load = Load::start(cluster.nodes[0].api().await, "a", CHANNELS);
    let_it_run(Duration::from_millis(300)).await;
    cluster.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    witnesses.leave("a0").await;
    let_it_run(Duration::from_secs(4)).await;
    cluster.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    let end = Instant::now();
    witnesses.join(&cluster.nodes[1], "late").await;
    for node in &cluster.nodes {
        node.logs("Redis takes members and counts again").await;
        let errors = node.lines("ERROR");
        let about = |what: &str| {
            let said =
                format!("Redis refuses commands about {what}: OOM command not allowed when used memory > 'maxmemory'.");
            errors.iter().filter(|line| line.contains(&said)).count()
        };
        // Whether webhooks have something to write meanwhile is a matter of chance.
        let (members, webhooks) = (about("members and counts"), about("webhooks"));
        assert!(members == 1 && webhooks <= 1 && members + webhooks == errors.len(), "{errors:?}");
    }
    assert!(cluster.nodes[0].logs("cannot publish").await.contains("OOM command not allowed"));
    let a = load.stop().await;
    assert_whole(&receive_all(&mut clients, &[&a]).await, &[&a]);
    assert_eq!(a.refused, 0);
    let members = witnesses.check(&cluster.nodes.iter().collect::<Vec<_>>()).await;
    tell_all("Redis full for 4 s", &[&a], end, members);
}

#[tokio::test]
async fn a_webhook_that_is_under_way_is_not_sent_again_when_redis_ends_the_connections() {
    let endpoint = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/hooks", endpoint.local_addr().expect("an address"));
    let cluster = Cluster::start_with(1, &variables(&url)).await;
    let mut client = cluster.nodes[0].connect().await;
    client.subscribe("news").await;
    let (mut request, _) = endpoint.accept().await.expect("a connection");
    request.readable().await.expect("a request");
    let hooks = log_of("news").replace(":log", ":hooks");
    cluster.redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    // The last number says how often it was taken.
    let taken = async || cluster.redis.ask(&["XPENDING", &hooks, "delivery", "-", "+", "1"]);
    eventually("it is looked for again", taken, |pending| pending.ends_with('2')).await;
    request.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("an answer");
    noted(&cluster.redis).await;
    // What comes behind it is the next that is sent.
    client.subscribe("orders").await;
    let mut requests = String::new();
    while !requests.contains("orders") {
        let mut bytes = [0; 4096];
        let length = request.read(&mut bytes).await.expect("a request");
        assert_ne!(length, 0, "{requests}");
        requests.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    assert_eq!(requests.matches("POST /hooks").count(), 2, "{requests}");
}

/// One that is configured later would be told of something long past.
#[tokio::test]
async fn of_a_dead_node_no_webhook_waits_that_no_endpoint_wants() {
    let mut cluster = Cluster::start(2).await;
    let mut client = cluster.nodes[1].connect().await;
    client.join("presence-room", "ann").await;
    cluster.nodes[1].kill();
    cluster.nodes[0].logs("a node is gone").await;
    noted(&cluster.redis).await;
}

/// Clients may publish at any node, and no setting says that clocks have to agree.
#[tokio::test]
async fn a_node_whose_clock_is_an_hour_behind_is_heard_after_an_outage() {
    let asked = Command::new("faketime").args(["-f", "-1h", "printenv", "LD_PRELOAD", "FAKETIME"]).output();
    let asked = asked.expect("faketime runs").stdout;
    let asked = String::from_utf8(asked).expect("UTF-8");
    let [library, offset] = asked.lines().collect::<Vec<_>>()[..] else { panic!("{asked}") };
    let late = [("LD_PRELOAD", library), ("FAKETIME", offset), ("DONT_FAKE_MONOTONIC", "1")];
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.address(), Duration::ZERO);
    let behind = node(&redis, &late).await;
    let near = node_at(&format!("redis://{}", proxy.address()), &[]).await;
    for node in [&behind, &near] {
        node.logs("receiving events").await;
        node.logs("publishing through").await;
    }
    let (mut ann, mut bob) = (behind.connect().await, near.connect().await);
    for client in [&mut ann, &mut bob] {
        client.subscribe("private-a").await;
    }
    proxy.close();
    near.logs("cannot receive events through Redis").await;
    // The first that it ever publishes.
    ann.send_event("private-a", "client-hello", serde_json::json!({"n": 1})).await;
    let logged = async || redis.ask(&["XLEN", &log_of("private-a")]);
    eventually("it is in the log", logged, |length| length == "2").await;
    proxy.open();
    assert_eq!(bob.next_event().await.name, "client-hello");
}

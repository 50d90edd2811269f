//! A Redis Cluster between the nodes: slots that move, and servers that fail.

use std::time::Duration;

use fanfare_tests::{Client, Node, RedisServer, WebhookReceiver, eventually};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    recovery::{Page, assert_honest_while, numbers, publish},
    support::{Accepted, Load, Trust, assert_complete, assert_whole, collect, let_it_run, log_of, node_at},
};

const CHANNELS: &[&str] = &["news", "orders", "private-a", "cache-a", "x1", "x2", "x3", "x4"];
const SLOTS: u16 = 16384;

/// What docs/scaling.md tells operators to allow.
const ACL: &str = "till on >hunter2 resetkeys ~fanfare:* resetchannels &fanfare:* -@all +@read +@write +@scripting +@pubsub \
    +@transaction -@dangerous +ping +info +hello +time +cluster|slots +cluster|keyslot";

/// Three primaries, and a replica of the first one if asked for.
struct RedisCluster {
    servers: Vec<RedisServer>,
    ids: Vec<String>,
    /// There: all speak TLS.
    trust: Option<Trust>,
}

impl RedisCluster {
    async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, None).await
    }

    async fn start_with(replicas: usize, trust: Option<Trust>) -> Self {
        let start = (0..3 + replicas).map(async |_| {
            let server = RedisServer::prepare_in_cluster(&["--repl-diskless-sync-delay", "0"]);
            let mut server = match &trust {
                Some(trust) => trust.server(server),
                None => server,
            };
            server.run().await;
            server
        });
        let servers = join_all(start).await;
        let ids: Vec<_> = servers.iter().map(|server| server.ask(&["CLUSTER", "MYID"])).collect();
        for (number, server) in servers.iter().enumerate() {
            let epoch = (number + 1).to_string();
            assert_eq!(server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), "OK");
            for (count, right) in ACL.split_whitespace().enumerate().skip(1) {
                assert_eq!(server.ask(&["ACL", "SETUSER", "till", right]), "OK", "{count}");
            }
            let port = server.address().port().to_string();
            let bus = server.ask(&["CONFIG", "GET", "cluster-port"]);
            let bus = bus.lines().last().expect("a port");
            assert_eq!(servers[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]), "OK");
        }
        for number in 0..3u16 {
            let (first, end) = (SLOTS * number / 3, SLOTS * (number + 1) / 3 - 1);
            let range = [first.to_string(), end.to_string()];
            assert_eq!(servers[usize::from(number)].ask(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]), "OK");
        }
        let cluster = Self { servers, ids, trust };
        for server in &cluster.servers {
            let known = async || server.ask(&["CLUSTER", "INFO"]);
            let count = format!("cluster_known_nodes:{}", cluster.servers.len());
            let whole = |info: &String| info.contains("cluster_state:ok") && info.contains(&count);
            eventually("the cluster is whole", known, whole).await;
        }
        for replica in &cluster.servers[3..] {
            let begin = async || replica.ask(&["CLUSTER", "REPLICATE", &cluster.ids[0]]);
            eventually("it replicates", begin, |answer| answer == "OK").await;
            let linked = async || replica.ask(&["INFO", "replication"]);
            eventually("it is in step", linked, |info| info.contains("master_link_status:up")).await;
        }
        cluster
    }

    /// A node that is told of two of the servers.
    async fn node(&self, variables: &[(&str, &str)]) -> Node {
        let servers = format!("{},{}", self.servers[1].address(), self.servers[2].address());
        let mut all = vec![("FANFARE__BROKER__CLUSTER_NODES", &*servers)];
        all.extend_from_slice(variables);
        all.extend(self.trust.iter().map(Trust::variable));
        let scheme = if self.trust.is_some() { "rediss" } else { "redis" };
        let node = node_at(&format!("{scheme}://till:hunter2@unused.test"), &all).await;
        node.logs("receiving events of all nodes").await;
        node.logs("publishing through Redis").await;
        node
    }

    /// Which server has a slot.
    fn holder(&self, slot: &str) -> usize {
        let slot: u32 = slot.parse().expect("a slot");
        usize::try_from((slot * 3 + 2) / u32::from(SLOTS)).expect("a small number").min(2)
    }

    /// Moves a slot from a server to another, key by key, as `redis-cli --cluster reshard` does.
    async fn move_slot(&self, slot: &str, from: usize, to: usize) -> usize {
        let [source, target] = [from, to].map(|number| &self.servers[number]);
        assert_eq!(target.ask(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &self.ids[from]]), "OK");
        assert_eq!(source.ask(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &self.ids[to]]), "OK");
        let port = target.address().port().to_string();
        let mut moved = 0;
        loop {
            let keys = source.ask(&["CLUSTER", "GETKEYSINSLOT", slot, "1"]);
            if keys.is_empty() {
                break;
            }
            let answer = source.ask(&["MIGRATE", "127.0.0.1", &port, &keys, "0", "5000"]);
            assert!(answer == "OK" || answer == "NOKEY", "{answer}");
            moved += 1;
            // Long enough for nodes to ask in the middle of it.
            sleep(Duration::from_millis(40)).await;
        }
        for number in [to, from, 3 - from - to] {
            assert_eq!(self.servers[number].ask(&["CLUSTER", "SETSLOT", slot, "NODE", &self.ids[to]]), "OK");
        }
        moved
    }
}

async fn subscribers(nodes: &[Node]) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in nodes {
        let mut client = node.connect().await;
        for channel in CHANNELS {
            client.subscribe(channel).await;
            if channel.starts_with("cache-") {
                assert_eq!(client.next_event().await.name, "pusher:cache_miss");
            }
        }
        clients.push(client);
    }
    clients
}

async fn received(clients: &mut [Client], accepted: &[&Accepted]) -> Vec<Vec<String>> {
    let total = accepted.iter().map(|accepted| accepted.events.len()).sum();
    join_all(clients.iter_mut().map(|client| collect(client, total))).await
}

#[tokio::test]
async fn everything_works_with_a_cluster_and_while_its_slots_move() {
    let mut receiver = WebhookReceiver::start();
    let url = receiver.url();
    let variables = [("FANFARE__APPS__0__WEBHOOKS__0__URL", &*url), ("FANFARE__WEBHOOKS__VACATED_DELAY", "0s")];
    let redis = RedisCluster::start(0).await;
    let mut nodes = vec![redis.node(&variables).await, redis.node(&variables).await];

    // Members, counts, lists, users.
    let (mut ann, mut bob) = (nodes[0].connect().await, nodes[1].connect().await);
    ann.join("presence-room", "ann").await;
    assert_eq!(bob.join("presence-room", "bob").await.members(), ["ann", "bob"]);
    assert_eq!(ann.next_event().await.member(), "bob");
    bob.sign_in(r#"{"id":"bob"}"#).await;
    for node in &nodes {
        let mut api = node.api().await;
        let channels = async || api.get("/channels", &[]).await.json();
        eventually("it is listed", channels, |json| *json == json!({"channels": {"presence-room": {}}})).await;
        assert_eq!(node.api().await.users("presence-room").await, ["ann", "bob"]);
    }
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(receiver.next_event().await["name"].as_str().unwrap_or_default().to_owned());
    }
    told.sort();
    assert_eq!(told, ["channel_occupied", "member_added", "member_added"]);

    // Slots move while events pass.
    let mut clients = subscribers(&nodes).await;
    let loads = [Load::start(nodes[0].api().await, "a", CHANNELS), Load::start(nodes[1].api().await, "b", CHANNELS)];
    let (mut moved, start) = (0, Instant::now());
    for shard in ["3", "7"] {
        let slot = redis.servers[0].ask(&["CLUSTER", "KEYSLOT", shard]);
        let from = redis.holder(&slot);
        moved += redis.move_slot(&slot, from, (from + 1) % 3).await;
    }
    let took = start.elapsed();
    let_it_run(Duration::from_millis(500)).await;
    let [a, b] = loads.map(Load::stop);
    let (a, b) = tokio::join!(a, b);
    let all = received(&mut clients, &[&a, &b]).await;
    assert_whole(&all, &[&a, &b]);
    assert_eq!((a.refused, b.refused), (0, 0));
    println!(
        "Redis Cluster: {moved} keys of two slots moved in {took:?}; {} events accepted, none refused, lost 0, twice 0, out of \
         order 0; slowest answer {:?}",
        a.events.len() + b.events.len(),
        a.slowest.max(b.slowest)
    );

    // A late node knows what cache channels keep, and a dead one is noticed.
    let late = redis.node(&variables).await;
    let mut client = late.connect().await;
    client.subscribe("cache-a").await;
    let last = all[0].iter().rev().find_map(|event| event.strip_prefix("cache-a ")).expect("an event");
    assert_eq!(client.next_event().await.data, last);
    // The position of an event is known, whichever server has it.
    let mut api = nodes[0].api().await;
    let trigger = json!({"name": "placed", "channels": CHANNELS, "data": "", "info": "position"}).to_string();
    let answer = api.post("/events", &trigger).await.json();
    for channel in CHANNELS {
        assert!(answer["channels"][*channel]["position"].is_string(), "{channel}: {answer}");
    }
    assert_eq!(ann.settled().await, []);
    assert_eq!(late.api().await.post("/users/bob/terminate_connections", "{}").await.status, 200);
    assert_eq!(bob.ended().await.code, Some(4009));
    assert_eq!(ann.next_event().await.member(), "bob");
    let mut cid = nodes[1].connect().await;
    cid.join("presence-room", "cid").await;
    assert_eq!(ann.next_event().await.member(), "cid");
    nodes[1].kill();
    let start = Instant::now();
    let event = ann.next_event().await;
    assert!(event.name.ends_with("member_removed") && event.member() == "cid", "{event:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // Each step touched one slot only, or the servers would have refused it.
    for node in nodes.iter().chain([&late]) {
        assert!(!node.has_logged("CROSSSLOT") && !node.has_logged("ERROR"));
    }
}

#[tokio::test]
async fn a_primary_of_a_cluster_that_fails_is_replaced_and_no_event_is_lost() {
    let mut redis = RedisCluster::start(1).await;
    let nodes = [redis.node(&[]).await, redis.node(&[]).await];
    let mut clients = subscribers(&nodes).await;
    let loads = [Load::start(nodes[0].api().await, "a", CHANNELS), Load::start(nodes[1].api().await, "b", CHANNELS)];
    let_it_run(Duration::from_millis(500)).await;
    redis.servers[0].kill();
    let start = Instant::now();
    for node in &nodes {
        node.logs("Redis takes events again").await;
        node.logs("events come again").await;
    }
    let took = start.elapsed();
    let_it_run(Duration::from_millis(300)).await;
    let [a, b] = loads.map(Load::stop);
    let (a, b) = tokio::join!(a, b);
    assert_complete(&received(&mut clients, &[&a, &b]).await, &[&a, &b]);
    assert_eq!((a.refused, b.refused), (0, 0));
    println!(
        "a primary of a Redis Cluster killed: {} events accepted, none refused, lost 0, twice 0; events again after {took:?}, slowest \
         answer {:?}",
        a.events.len() + b.events.len(),
        a.slowest.max(b.slowest)
    );
}

#[tokio::test]
async fn servers_of_a_cluster_are_reached_over_tls() {
    let redis = RedisCluster::start_with(0, Some(Trust::new())).await;
    let nodes = [redis.node(&[]).await, redis.node(&[]).await];
    let mut client = nodes[1].connect().await;
    let mut api = nodes[0].api().await;
    for channel in of_each_server(&redis).await.as_flattened() {
        client.subscribe(channel).await;
        api.trigger(channel, "e", channel).await;
        assert_eq!(client.next_event().await.data, *channel);
    }
}

/// Channels for clients that come back, by the server that has their log: two of different logs at each.
async fn of_each_server(redis: &RedisCluster) -> [[&'static str; 2]; 3] {
    let mut found: [Vec<&'static str>; 3] = [const { Vec::new() }; 3];
    for number in 0.. {
        let name = format!("orders.{number}");
        let log = log_of(&name);
        let at = &mut found[redis.holder(&redis.servers[0].ask(&["CLUSTER", "KEYSLOT", &log]))];
        if at.len() < 2 && at.iter().all(|other| log_of(other) != log) {
            at.push(name.leak());
        }
        if found.iter().all(|channels| channels.len() == 2) {
            break;
        }
    }
    found.map(|channels| [channels[0], channels[1]])
}

#[tokio::test]
async fn who_comes_back_to_another_node_gets_what_it_missed_from_every_server() {
    let redis = RedisCluster::start(0).await;
    let mut nodes = vec![redis.node(&[]).await, redis.node(&[]).await];
    let channels = of_each_server(&redis).await;
    let all: Vec<_> = channels.as_flattened().to_vec();
    let mut pages: Vec<_> = join_all(all.iter().map(|channel| Page::open(&nodes[0], channel))).await;
    let mut next = 0;
    for (node, missed) in [(1, 2), (1, 0), (0, 3), (2, 2)] {
        if node == nodes.len() {
            nodes.push(redis.node(&[]).await);
        }
        let mut api = nodes[1].api().await;
        for page in &mut pages {
            publish(&mut api, page.channel, next..next + 1).await;
            page.read_up_to(next + 1).await;
            publish(&mut api, page.channel, next + 1..next + 1 + missed).await;
        }
        next += 1 + missed;
        // All at once, as after the end of a node.
        let verdicts = join_all(pages.iter_mut().map(|page| page.come_back(&nodes[node]))).await;
        let whole = verdicts.iter().all(|(recovered, count)| *recovered && *count <= missed as u64);
        assert!(whole, "{missed} missed, at {node}: {verdicts:?}");
        for page in &mut pages {
            // The last of them may come to this node only now.
            page.read_up_to(next).await;
            assert_eq!(page.has, numbers(0..next));
        }
    }

    // A log that moves to another server begins a new epoch, for its own channels alone.
    let [[moved, stays], ..] = channels;
    let slot = redis.servers[0].ask(&["CLUSTER", "KEYSLOT", &log_of(moved)]);
    redis.move_slot(&slot, 0, 1).await;
    let mut api = nodes[0].api().await;
    let mut witnesses = Vec::new();
    for node in &nodes[..2] {
        let mut client = node.connect().await;
        for channel in [moved, stays] {
            client.subscribe(channel).await;
        }
        witnesses.push(client);
    }
    for page in pages.iter_mut().filter(|page| [moved, stays].contains(&page.channel)) {
        page.leave(&nodes[0]).await;
        publish(&mut api, page.channel, next..next + 1).await;
        for client in &mut witnesses {
            let (channel, data) = (Some(page.channel), next.to_string());
            client.until(|event| event.channel.as_deref() == channel && event.data == data).await;
        }
        let verdict = page.come_back(&nodes[1]).await;
        assert_eq!(verdict, if page.channel == stays { (true, 1) } else { (false, 0) }, "{}", page.channel);
        publish(&mut api, page.channel, next + 1..next + 2).await;
        page.read_until(&(next + 1).to_string()).await;
        publish(&mut api, page.channel, next + 2..next + 4).await;
        assert!(page.come_back(&nodes[0]).await.0, "{}: the next gap is none", page.channel);
        page.read_until(&(next + 3).to_string()).await;
        assert_eq!(page.has[page.has.len() - 3..], numbers(next + 1..next + 4));
    }
}

#[tokio::test]
async fn who_travels_while_slots_move_misses_nothing_unless_told() {
    let redis = RedisCluster::start(0).await;
    let nodes = [redis.node(&[]).await, redis.node(&[]).await];
    let channels = of_each_server(&redis).await.as_flattened().to_vec().leak();
    let slots: Vec<_> =
        channels[..2].iter().map(|channel| redis.servers[0].ask(&["CLUSTER", "KEYSLOT", &log_of(channel)])).collect();
    assert_honest_while(&nodes, channels, async || {
        let_it_run(Duration::from_millis(300)).await;
        for (slot, to) in slots.iter().zip([1, 2]) {
            redis.move_slot(slot, 0, to).await;
        }
        redis.move_slot(&slots[0], 1, 0).await;
        let_it_run(Duration::from_millis(500)).await;
    })
    .await;
}

#[tokio::test]
async fn who_travels_while_a_primary_of_a_cluster_fails_misses_nothing_unless_told() {
    let mut redis = RedisCluster::start(1).await;
    let nodes = [redis.node(&[]).await, redis.node(&[]).await];
    let channels = of_each_server(&redis).await.as_flattened().to_vec().leak();
    assert_honest_while(&nodes, channels, async || {
        let_it_run(Duration::from_millis(300)).await;
        redis.servers[0].kill();
        // The other one has nothing to publish, and does not notice.
        nodes[0].logs("Redis takes events again").await;
        for node in &nodes {
            node.logs("events come again").await;
        }
        let_it_run(Duration::from_millis(500)).await;
    })
    .await;
}

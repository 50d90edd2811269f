//! Clients that come back get what they missed from whatever node they reach, once and in order, or are told that they do not.

use std::time::Duration;

use fanfare_tests::{Api, Client, DEADLINE, Event, Node, Proxy, RedisServer, eventually};
use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::support::{Accepted, Cluster, Load, SHORT_WINDOW, log_of, node, node_at};

const CHANNELS: [&str; 2] = ["orders", "presence-orders"];
const RECOVERED: &str = "pusher_internal:recovery";

/// A client as the companion makes it: it holds the last position of a channel.
pub(crate) struct Page {
    client: Client,
    pub(crate) channel: &'static str,
    position: Option<String>,
    /// Where it wants to begin.
    from: Option<Value>,
    sockets: Vec<String>,
    /// Data of the events it has.
    pub(crate) has: Vec<String>,
    /// Where it was told that something is missing: in front of these.
    gaps: Vec<usize>,
}

impl Page {
    async fn new(node: &Node, channel: &'static str) -> Self {
        let client = node.connect().await;
        Self { client, channel, position: None, from: None, sockets: Vec::new(), has: Vec::new(), gaps: Vec::new() }
    }

    pub(crate) async fn open(node: &Node, channel: &'static str) -> Self {
        let mut page = Self::new(node, channel).await;
        page.subscribe("pusher_internal:subscription_succeeded").await;
        page
    }

    /// Subscribes, saying where it was; up to a frame of this name.
    async fn subscribe(&mut self, last: &str) -> Event {
        let from = self.position.as_ref().map(|position| json!(position)).or(self.from.take());
        let from = from.into_iter().map(|from| (self.channel.to_owned(), from));
        let from: serde_json::Map<String, Value> = from.collect();
        self.client.send(&json!({"event": "fanfare:recover", "data": {"from": from, "sockets": self.sockets}})).await;
        let member = self.channel.starts_with("presence-").then_some(r#"{"user_id":"alice"}"#);
        let data = self.client.subscription(self.channel, member);
        self.client.begin_subscribe(data).await;
        self.read(last).await
    }

    /// Reads up to a frame of this name.
    async fn read(&mut self, last: &str) -> Event {
        let end = Instant::now() + DEADLINE;
        loop {
            let event = timeout_at(end, self.client.next_event()).await;
            let event = event.unwrap_or_else(|_| panic!("no {last} came; events: {:?}", self.has));
            self.note(&event);
            if event.is(last, self.channel) {
                return event;
            }
        }
    }

    /// Reads what has come.
    async fn settle(&mut self) {
        for event in self.client.settled().await {
            self.note(&event);
        }
    }

    fn note(&mut self, event: &Event) {
        if event.channel.as_deref() != Some(self.channel) {
            return;
        }
        let frame: Value = serde_json::from_str(&event.text).expect("JSON");
        if let Some(position) = frame["user_id"][0].as_str() {
            self.position = Some(position.to_owned());
        }
        if event.name == RECOVERED && event.data.contains("false") {
            self.gaps.push(self.has.len());
        }
        if !event.name.starts_with("pusher") {
            self.has.push(event.data.clone());
        }
    }

    /// Goes from node to node until it is told to stop. How often.
    pub(crate) async fn travel(&mut self, nodes: &[Node], seed: u64, stop: &watch::Receiver<bool>) -> usize {
        let mut random = StdRng::seed_from_u64(seed);
        for hops in 0.. {
            if *stop.borrow() {
                return hops;
            }
            let wanted = self.has.len() + random.random_range(0..20);
            self.read_up_to(wanted).await;
            self.come_back(&nodes[random.random_range(0..nodes.len())]).await;
        }
        0
    }

    /// It has every event that was published since it came, once and in order; but where it was told of a gap it begins anew, at a node that
    /// may not be as far as the last one. How often it was told.
    pub(crate) fn assert_honest(&self, published: &[String]) -> usize {
        let place = |data: &String| published.iter().position(|event| event == data).expect("it was published");
        let places: Vec<_> = self.has.iter().map(place).collect();
        for (index, pair) in places.windows(2).enumerate() {
            let (expected, told) = (pair[0] + 1, self.gaps.contains(&(index + 1)));
            assert!(
                pair[1] == expected || told,
                "{}: {} follows {}, told: {told}",
                self.channel,
                published[pair[1]],
                published[pair[0]]
            );
        }
        self.gaps.len()
    }

    /// Reads until it has so many events.
    pub(crate) async fn read_up_to(&mut self, count: usize) {
        while self.has.len() < count {
            self.read("numbered").await;
        }
    }

    /// Reads until it has this one.
    pub(crate) async fn read_until(&mut self, data: &str) {
        while self.has.last().is_none_or(|last| last != data) {
            self.read("numbered").await;
        }
    }

    /// Loses its connection.
    pub(crate) async fn leave(&mut self, node: &Node) {
        self.sockets.insert(0, self.client.socket_id.clone());
        self.client = node.connect().await;
    }

    /// Loses its connection, and comes back to a node. Whether it got everything, and how many events that were.
    pub(crate) async fn come_back(&mut self, node: &Node) -> (bool, u64) {
        self.leave(node).await;
        self.verdict().await
    }

    async fn verdict(&mut self) -> (bool, u64) {
        let verdict: Value = serde_json::from_str(&self.subscribe(RECOVERED).await.data).expect("JSON");
        (verdict["recovered"].as_bool().expect("a verdict"), verdict["count"].as_u64().expect("a count"))
    }
}

pub(crate) async fn publish(api: &mut Api, channel: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        api.trigger(channel, "numbered", &number.to_string()).await;
    }
}

pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// What was accepted on a channel, in order.
pub(crate) fn on(channel: &str, accepted: &Accepted) -> Vec<String> {
    let data = |event: &String| event.strip_prefix(channel)?.strip_prefix(' ').map(str::to_owned);
    accepted.events.iter().filter_map(data).collect()
}

#[tokio::test]
async fn who_comes_back_to_another_node_gets_what_it_missed() {
    let cluster = Cluster::start(3).await;
    let mut api = cluster.nodes[1].api().await;
    for channel in CHANNELS {
        let mut page = Page::open(&cluster.nodes[0], channel).await;
        publish(&mut api, channel, 0..3).await;
        page.read_up_to(3).await;
        let mut next = 3;
        // Each pair is the node that the client comes back to, and how many events it has missed.
        for (node, missed) in [(1, 2), (2, 4), (1, 0), (0, 3), (0, 1)] {
            publish(&mut api, channel, next..next + missed).await;
            next += missed;
            let (recovered, count) = page.come_back(&cluster.nodes[node]).await;
            assert!(recovered && count <= missed as u64, "{channel} at {node}: {recovered}, {count}");
            // The last of them may come to this node only now.
            page.read_up_to(next).await;
        }
        publish(&mut api, channel, next..next + 2).await;
        page.read_up_to(next + 2).await;
        assert_eq!(page.has, numbers(0..next + 2), "once, and in order");
    }
}

/// A node that cannot tell where in the log an event is hands it on without a position.
#[tokio::test]
async fn who_got_an_event_without_a_position_does_not_get_it_again() {
    let cluster = Cluster::start(2).await;
    let mut api = cluster.nodes[1].api().await;
    let mut page = Page::open(&cluster.nodes[0], "orders").await;
    publish(&mut api, "orders", 0..2).await;
    page.read_up_to(2).await;
    // Nodes count pushes, and cannot tell whether this one stands for an entry.
    let pushes = log_of("orders").replace(":log", ":push");
    assert_eq!(cluster.redis.ask(&["PUBLISH", &pushes, "no entry"]), "2");
    publish(&mut api, "orders", 2..3).await;
    page.read_up_to(3).await;
    // Soon they know again where they are; another channel of this log shows when.
    let near = (0..).map(|number| format!("orders.{number}")).find(|name| log_of(name) == log_of("orders"));
    let near = near.expect("a name").leak();
    let mut witness = Page::open(&cluster.nodes[1], near).await;
    for next in 0.. {
        publish(&mut api, near, next..next + 1).await;
        witness.read("numbered").await;
        if witness.come_back(&cluster.nodes[1]).await.0 {
            break;
        }
    }
    page.leave(&cluster.nodes[1]).await;
    page.verdict().await;
    page.settle().await;
    assert_eq!(page.has.iter().filter(|data| *data == "2").count(), 1, "{:?}", page.has);
}

#[tokio::test]
async fn an_event_that_excepts_an_earlier_socket_is_not_given_back_to_it() {
    let cluster = Cluster::start(2).await;
    let mut api = cluster.nodes[1].api().await;
    let mut page = Page::open(&cluster.nodes[0], "orders").await;
    let except = page.client.socket_id.clone();
    let body = json!({"name": "numbered", "channel": "orders", "data": "own", "socket_id": except}).to_string();
    assert_eq!(api.post("/events", &body).await.status, 200);
    publish(&mut api, "orders", 0..1).await;
    assert_eq!(page.come_back(&cluster.nodes[1]).await, (true, 1));
    assert_eq!(page.has, ["0"]);
}

/// Where the event of a trigger is, as the answer tells it for each channel.
async fn positions(api: &mut Api, channels: &[&str], data: &str) -> Vec<Option<String>> {
    let body = json!({"name": "numbered", "channels": channels, "data": data, "info": "position"}).to_string();
    let response = api.post("/events", &body).await;
    assert_eq!(response.status, 200, "{response:?}");
    let answer = response.json();
    let position =
        |channel: &&str| Some(answer["channels"][*channel].as_object()?.get("position")?.as_str()?.to_owned());
    channels.iter().map(position).collect()
}

#[tokio::test]
async fn a_trigger_tells_where_its_event_is_and_a_page_begins_there() {
    const WHERE: [&str; 3] = ["orders", "presence-orders", "cache-orders"];
    let cluster = Cluster::start(3).await;
    let (mut api, mut other) = (cluster.nodes[0].api().await, cluster.nodes[1].api().await);
    let mut live = Vec::new();
    for channel in WHERE {
        live.push(Page::open(&cluster.nodes[1], channel).await);
    }
    publish(&mut other, "orders", 0..3).await;
    // Entries of other publishers around it, and other events in its own.
    let loads = [
        Load::start(cluster.nodes[0].api().await, "a", &["news", "others"]),
        Load::start(cluster.nodes[2].api().await, "b", &["news", "others"]),
    ];
    for round in 0..10 {
        let data = format!("round {round}");
        let told = positions(&mut api, &WHERE, &data).await;
        for (page, told) in live.iter_mut().zip(&told) {
            page.read_until(&data).await;
            assert!(told.is_some(), "{}", page.channel);
            assert_eq!(page.position, *told, "as who is there got it with the event: {}", page.channel);
        }
        for (index, channel) in WHERE.into_iter().enumerate() {
            publish(&mut other, channel, 0..round).await;
            publish(&mut api, channel, round..round + 2).await;
            // The clients come back to nodes that know the channel and to nodes that do not.
            for node in &cluster.nodes[1..] {
                let mut page = Page::new(node, channel).await;
                page.position.clone_from(&told[index]);
                let (recovered, _) = page.verdict().await;
                assert!(recovered, "{channel}");
                // The last of them may come to this node only now.
                page.read_up_to(round + 2).await;
                page.settle().await;
                assert_eq!(page.has, numbers(0..round + 2), "exactly what is behind it");
            }
        }
    }
    for load in loads {
        assert!(!load.stop().await.events.is_empty());
    }
}

#[tokio::test]
async fn a_batch_tells_where_each_event_is() {
    let cluster = Cluster::start(2).await;
    let mut api = cluster.nodes[0].api().await;
    let mut page = Page::open(&cluster.nodes[1], "orders").await;
    let event = |channel: &str, number: usize, info: Option<&str>| match info {
        Some(info) => json!({"name": "numbered", "channel": channel, "data": number.to_string(), "info": info}),
        None => json!({"name": "numbered", "channel": channel, "data": number.to_string()}),
    };
    let batch = [
        event("orders", 0, None),
        event("news", 0, Some("position")),
        event("orders", 1, Some("position")),
        event("orders", 2, None),
        event("cache-orders", 0, Some("position,subscription_count")),
        event("orders", 3, Some("position")),
    ];
    let answer = api.post("/batch_events", &json!({"batch": batch}).to_string()).await.json();
    let told = |index: usize| answer["batch"][index]["position"].as_str().map(str::to_owned);
    assert_eq!([0, 3].map(told), [None, None], "not asked");
    page.read_up_to(4).await;
    assert_eq!(page.position, told(5), "{answer}");
    publish(&mut api, "news", 1..3).await;
    for (channel, index, expected) in [("orders", 2, 2..4), ("news", 1, 1..3), ("cache-orders", 4, 0..0)] {
        let mut page = Page::new(&cluster.nodes[1], channel).await;
        page.position = told(index);
        assert!(page.position.is_some(), "{answer}");
        assert!(page.verdict().await.0, "{channel}");
        page.read_up_to(expected.len()).await;
        page.settle().await;
        assert_eq!(page.has, numbers(expected), "{channel}");
    }
}

#[tokio::test]
async fn a_trigger_tells_no_position_that_is_not_sure() {
    let mut cluster = Cluster::start(2).await;
    let mut api = cluster.nodes[0].api().await;
    let mut live = Page::open(&cluster.nodes[1], "orders").await;
    let before = positions(&mut api, &["orders"], "before").await;
    live.read_until("before").await;
    assert_eq!(before, [live.position.clone()]);
    // Redis gets it, but cannot answer: it may be in the log, so it is sent again.
    cluster.redis.pause();
    assert_eq!(positions(&mut api, &["orders"], "unanswered").await, [None]);
    cluster.redis.resume();
    live.read_until("unanswered").await;
    // Redis is gone: this one waits in the node's buffer.
    cluster.redis.kill();
    let buffered = async || positions(&mut cluster.nodes[1].api().await, &["orders"], "buffered").await;
    assert_eq!(buffered().await, [None]);
    cluster.redis.run().await;
    live.read_until("buffered").await;
    // From here on there is a new log.
    let mut api = cluster.nodes[0].api().await;
    let again = async || positions(&mut cluster.nodes[0].api().await, &["orders"], "again").await;
    let told = eventually("positions are sure again", again, |told| told[0].is_some()).await;
    assert_ne!(told, before);
    publish(&mut api, "orders", 0..2).await;
    live.read_until("1").await;
    for (position, expected) in [(before, (false, 0)), (told, (true, 2))] {
        let mut page = Page::new(&cluster.nodes[1], "orders").await;
        page.position.clone_from(&position[0]);
        assert_eq!(page.verdict().await, expected);
    }
}

#[tokio::test]
async fn a_node_that_has_just_started_knows_what_went_on_before() {
    let mut cluster = Cluster::start(1).await;
    let mut api = cluster.nodes[0].api().await;
    let history =
        [("FANFARE__RECOVERY__CHANNELS__0__PATTERN", "feed"), ("FANFARE__RECOVERY__CHANNELS__0__HISTORY__LAST", "5")];
    let mut page = Page::open(&cluster.nodes[0], "orders").await;
    let body = api.get("/channels/orders", &[("info", "position")]).await.json();
    let mut rendered = Page::new(&cluster.nodes[0], "orders").await;
    rendered.position = body["position"].as_str().map(str::to_owned);
    assert!(rendered.position.is_some(), "{body}");
    publish(&mut api, "orders", 0..3).await;
    publish(&mut api, "feed", 0..9).await;
    cluster.nodes.push(node(&cluster.redis, &history).await);
    let new = &cluster.nodes[1];
    assert_eq!(page.come_back(new).await, (true, 3));
    assert_eq!(rendered.come_back(new).await, (true, 3), "from where the page was made");
    let mut feed = Page::new(new, "feed").await;
    feed.from = Some(json!({"last": 3}));
    assert_eq!(feed.verdict().await, (true, 3));
    assert_eq!(feed.has, ["6", "7", "8"]);
}

#[tokio::test]
async fn the_clients_of_a_killed_node_go_on_elsewhere() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(cluster.nodes[1].api().await, "a", &["orders", "presence-orders"]);
    let mut pages = Vec::new();
    for channel in CHANNELS {
        pages.push(Page::open(&cluster.nodes[0], channel).await);
    }
    for page in &mut pages {
        let has = page.has.len() + 20;
        page.read_up_to(has).await;
    }
    cluster.nodes[0].kill();
    let (before, start) = (pages[0].has.len(), Instant::now());
    for page in &mut pages {
        let (recovered, _) = page.come_back(&cluster.nodes[2]).await;
        assert!(recovered, "{}", page.channel);
    }
    println!("a node is killed: its clients had what they missed after {:?}", start.elapsed());
    let accepted = load.stop().await;
    for page in &mut pages {
        let all = on(page.channel, &accepted);
        let begin = all.iter().position(|data| *data == page.has[0]).expect("it was accepted");
        page.read_up_to(all.len() - begin).await;
        assert_eq!(page.has, all[begin..], "once, and in order");
        assert!(page.has.len() > before);
    }
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_a_gap_and_the_next_is_none() {
    let mut cluster = Cluster::start(2).await;
    let mut api = cluster.nodes[1].api().await;
    let mut away = Page::open(&cluster.nodes[0], "orders").await;
    let mut stays = Page::open(&cluster.nodes[0], "orders").await;
    publish(&mut api, "orders", 0..2).await;
    away.read_up_to(2).await;
    stays.read_up_to(2).await;
    cluster.redis.kill();
    cluster.redis.run().await;
    publish(&mut api, "orders", 2..4).await;
    stays.read_up_to(4).await;
    assert_eq!(away.come_back(&cluster.nodes[1]).await, (false, 0));
    assert_eq!(away.has, ["0", "1"], "not a part of it");
    // A node that is not sure yet where the new log begins hands events on without a position.
    let mut last = 3;
    let are_placed =
        |pages: [&Page; 2]| pages.iter().all(|page| page.position.as_ref().is_some_and(|at| !at.is_empty()));
    while last == 3 || !are_placed([&away, &stays]) {
        last += 1;
        publish(&mut api, "orders", last..last + 1).await;
        for page in [&mut away, &mut stays] {
            page.read_until(&last.to_string()).await;
        }
    }
    let mut witness = Page::open(&cluster.nodes[0], "orders").await;
    publish(&mut api, "orders", last + 1..last + 3).await;
    witness.read_until(&(last + 2).to_string()).await;
    for page in [&mut away, &mut stays] {
        assert_eq!(page.come_back(&cluster.nodes[0]).await, (true, 2));
        assert_eq!(page.has[page.has.len() - 3..], numbers(last..last + 3));
    }
    assert_eq!(stays.has, numbers(0..last + 3));
}

/// Pages that go from node to node under load while something happens to Redis: none of them misses or repeats an event without being told.
pub(crate) async fn assert_honest_while(nodes: &[Node], channels: &'static [&'static str], what: impl AsyncFnOnce()) {
    let mut pages = Vec::new();
    for channel in channels {
        for node in nodes {
            pages.push(Page::open(node, channel).await);
        }
    }
    let load = Load::start(nodes[0].api().await, "a", channels);
    let (stop, stopped) = watch::channel(false);
    let travel = pages.iter_mut().zip(0..).map(|(page, seed)| page.travel(nodes, seed, &stopped));
    let until = async {
        what().await;
        let _ = stop.send(true);
    };
    let (hops, ()) = tokio::join!(join_all(travel), until);
    let accepted = load.stop().await;
    assert_eq!(accepted.refused, 0);
    let mut api = nodes[1].api().await;
    for channel in channels {
        api.trigger(channel, "numbered", "last").await;
    }
    let mut gaps = 0;
    for page in &mut pages {
        page.read_until("last").await;
        let mut published = on(page.channel, &accepted);
        published.push("last".to_owned());
        gaps += page.assert_honest(&published);
    }
    // After that all is quiet, and nobody misses anything the next time.
    for page in &mut pages {
        api.trigger(page.channel, "numbered", "calm").await;
        page.read_until("calm").await;
        api.trigger(page.channel, "numbered", "rest").await;
        assert!(page.come_back(&nodes[0]).await.0, "{}", page.channel);
    }
    println!(
        "{} pages went {} times from node to node: {} events, told of {gaps} gaps, of which none was silent",
        pages.len(),
        hops.iter().sum::<usize>(),
        accepted.events.len()
    );
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_not_taken_for_one_without_news() {
    let cluster = Cluster::start(2).await;
    let mut api = cluster.nodes[0].api().await;
    let mut page = Page::open(&cluster.nodes[0], "orders").await;
    publish(&mut api, "orders", 0..1).await;
    page.read_up_to(1).await;
    page.leave(&cluster.nodes[0]).await;
    publish(&mut api, "orders", 1..4).await;
    // Another log in its place, before the second node asks for the end of the one that it knows.
    let log = log_of("orders");
    let epoch = cluster.redis.ask(&["GET", &log.replace(":log", ":epoch")]).parse::<u64>().expect("an epoch");
    let new = (epoch + 1).to_string();
    let entry = format!("{new}-0");
    let lose = format!(
        "redis.call('DEL', '{log}') redis.call('XADD', '{log}', '{entry}', 'begin', '') \
         redis.call('SET', '{}', '{new}')",
        log.replace(":log", ":epoch")
    );
    cluster.redis.ask(&["EVAL", &lose, "0"]);
    assert_eq!(page.come_back(&cluster.nodes[1]).await, (false, 0));
}

#[tokio::test]
async fn a_redis_that_stops_for_seconds_costs_no_event() {
    let cluster = Cluster::start(3).await;
    let load = Load::start(cluster.nodes[1].api().await, "a", &["orders"]);
    let mut pages = [Page::open(&cluster.nodes[0], "orders").await, Page::open(&cluster.nodes[0], "orders").await];
    for page in &mut pages {
        page.read_up_to(20).await;
    }
    cluster.redis.pause();
    let [first, second] = &mut pages;
    let come_back = async {
        // While it stands still, and after it.
        let first = first.come_back(&cluster.nodes[2]).await;
        (first, second.come_back(&cluster.nodes[2]).await)
    };
    let resume = async {
        sleep(Duration::from_secs(3)).await;
        cluster.redis.resume();
    };
    let ((first, second), ()) = tokio::join!(come_back, resume);
    println!("Redis stops for 3 s: {first:?} for who comes back meanwhile, {second:?} for who comes back after it");
    publish(&mut cluster.nodes[2].api().await, "orders", 0..1).await;
    let accepted = load.stop().await;
    let all = on("orders", &accepted);
    for (page, (recovered, _)) in pages.iter_mut().zip([first, second]) {
        while page.has.last() != all.last() && !(page.has.contains(all.last().expect("events"))) {
            page.read("numbered").await;
        }
        page.has.retain(|data| data != "0");
        let mut rest = all.iter();
        assert!(page.has.iter().all(|data| rest.any(|event| event == data)), "each once, and in order");
        let begin = all.iter().position(|data| *data == page.has[0]).expect("it was accepted");
        assert!(!recovered || page.has == all[begin..], "who is told that nothing is missing misses nothing");
    }
}

/// A channel whose events are in the same log as another one's.
fn in_the_log_of(channel: &str) -> &'static str {
    let name = (0..).map(|number| format!("quiet.{number}")).find(|name| log_of(name) == log_of(channel));
    name.expect("one of sixteen").leak()
}

#[tokio::test]
async fn a_position_is_good_for_as_long_as_the_log_and_a_silent_one_is_renewed() {
    let cluster = Cluster::start_with(2, &SHORT_WINDOW).await;
    let mut api = cluster.nodes[1].api().await;
    let mut away = Page::open(&cluster.nodes[0], "news").await;
    let mut quiet = Page::open(&cluster.nodes[0], in_the_log_of("news")).await;
    publish(&mut api, "news", 0..1).await;
    away.read_up_to(1).await;
    drop(std::mem::replace(&mut away.client, cluster.nodes[0].connect().await));
    let first = quiet.position.clone();
    // Enough to fill whole nodes of the stream: Redis trims nothing less.
    publish(&mut api, "news", 1..250).await;
    let gone = async || cluster.redis.ask(&["XLEN", &log_of("news")]).parse::<usize>().unwrap_or_default();
    eventually("the log is trimmed", gone, |length| *length < 150).await;
    assert_eq!(away.come_back(&cluster.nodes[1]).await, (false, 0));
    quiet.settle().await;
    quiet.read("pusher_internal:position").await;
    assert_ne!(quiet.position, first);
    publish(&mut api, quiet.channel, 0..1).await;
    assert_eq!(quiet.come_back(&cluster.nodes[1]).await, (true, 1));
    publish(&mut api, "news", 250..251).await;
    assert_eq!(away.come_back(&cluster.nodes[0]).await, (true, 1));
    assert_eq!(away.has, ["0", "250"]);
}

#[tokio::test]
async fn who_is_there_when_events_are_lost_hears_of_it() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.address(), Duration::ZERO);
    let near = node(&redis, &SHORT_WINDOW).await;
    let far = node_at(&format!("redis://{}", proxy.address()), &SHORT_WINDOW).await;
    let mut page = Page::open(&far, "news").await;
    let mut api = near.api().await;
    publish(&mut api, "news", 0..1).await;
    page.read_up_to(1).await;
    proxy.close();
    publish(&mut api, "news", 1..250).await;
    let gone = async || redis.ask(&["XLEN", &log_of("news")]).parse::<usize>().unwrap_or_default();
    eventually("the log is trimmed", gone, |length| *length < 150).await;
    publish(&mut api, "news", 250..251).await;
    proxy.open();
    let verdict = page.read(RECOVERED).await;
    assert_eq!(verdict.data, r#"{"recovered":false,"count":0}"#, "although it never lost its connection");
    assert!(page.has.len() == 1, "before anything newer: {:?}", page.has);
    page.read_until("250").await;
    publish(&mut api, "news", 251..253).await;
    assert_eq!(page.come_back(&near).await, (true, 2));
}

#[tokio::test]
async fn clients_that_go_from_node_to_node_under_load_have_every_event_once() {
    let cluster = Cluster::start(3).await;
    let channels = &["news", "orders", "presence-orders"];
    let mut reference = cluster.nodes[0].connect().await;
    for channel in channels {
        match channel.starts_with("presence-") {
            true => drop(reference.join(channel, "watcher").await),
            false => drop(reference.subscribe(channel).await),
        }
    }
    let loads = [
        Load::start(cluster.nodes[0].api().await, "a", channels),
        Load::start(cluster.nodes[1].api().await, "b", channels),
    ];
    let end = Instant::now() + Duration::from_secs(5);
    let travel = async |seed: u64, channel: &'static str| {
        let mut random = StdRng::seed_from_u64(seed);
        let mut page = Page::open(&cluster.nodes[0], channel).await;
        let (mut hops, mut given) = (0, 0);
        while Instant::now() < end {
            let wanted = page.has.len() + random.random_range(0..30);
            page.read_up_to(wanted).await;
            let (recovered, count) = page.come_back(&cluster.nodes[random.random_range(0..3)]).await;
            assert!(recovered, "{channel}, after {hops} others");
            (hops, given) = (hops + 1, given + count);
        }
        (page, hops, given)
    };
    let pages = (0..9).map(|number: usize| travel(number as u64, channels[number % 3]));
    let pages = join_all(pages).await;
    let [a, b] = loads.map(Load::stop);
    let (a, b) = tokio::join!(a, b);
    let total = a.events.len() + b.events.len();
    let mut all = Vec::new();
    while all.len() < total {
        let event = reference.next_event().await;
        if event.name == "numbered" {
            all.push((event.channel.unwrap_or_default(), event.data));
        }
    }
    let (mut hops, mut given) = (0, 0);
    for (mut page, page_hops, page_given) in pages {
        let events: Vec<String> =
            all.iter().filter(|(channel, _)| channel == page.channel).map(|(_, data)| data.clone()).collect();
        let begin = events.iter().position(|data| page.has.first() == Some(data)).expect("it has one");
        page.read_up_to(events.len() - begin).await;
        assert_eq!(page.has, events[begin..], "once, and in the order of all");
        (hops, given) = (hops + page_hops, given + page_given);
    }
    println!("9 clients went {hops} times from node to node and got {given} of {total} events back; lost 0, twice 0");
}

//! Members, counts and channel lists of the whole cluster, and what happens to them when parts of it fail.

use std::time::Duration;

use fanfare_tests::{Client, Event, Node, WebhookReceiver, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    support::{Cluster, follow},
    witnesses::noted,
};

const ROOM: &str = "presence-room";

/// Waits for a member to come or go, and nothing else before it.
async fn next_is(client: &mut Client, name: &str, user_id: &str) {
    let event = client.next_event().await;
    assert!(event.is(&format!("pusher_internal:{name}"), ROOM) && event.member() == user_id, "{event:?}");
}

/// The distinct users of a channel; none while the node cannot ask Redis.
pub(crate) async fn users(node: &Node, channel: &str) -> Vec<String> {
    let mut api = node.api().await;
    let response = api.get(&format!("/channels/{channel}/users"), &[]).await;
    if response.status == 503 {
        return vec!["Redis is away".to_owned()];
    }
    let json = response.json();
    let users = json["users"].as_array();
    let mut ids: Vec<_> =
        users.expect("an array").iter().filter_map(|user| Some(user["id"].as_str()?.to_owned())).collect();
    ids.sort();
    ids
}

/// Waits until all nodes tell of the same users, and says how long that took.
async fn agree(cluster: &[&Node], channel: &str, expected: &[&str]) -> Duration {
    let start = Instant::now();
    for node in cluster {
        eventually("the users are as they should be", async || users(node, channel).await, |users| *users == expected)
            .await;
    }
    start.elapsed()
}

async fn get(node: &Node, path: &str, params: &[(&str, &str)]) -> Value {
    node.api().await.get(path, params).await.json()
}

#[tokio::test]
async fn a_user_on_two_nodes_is_one_member() {
    let cluster = Cluster::start_with(2, &[("FANFARE__APPS__0__SUBSCRIPTION_COUNT", "true")]).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let (mut watcher, mut there) = (a.connect().await, b.connect().await);
    assert_eq!(watcher.join(ROOM, "watcher").await.members(), ["watcher"]);
    assert_eq!(there.join(ROOM, "ann").await.members(), ["ann", "watcher"]);
    next_is(&mut watcher, "member_added", "ann").await;
    let mut here = a.connect().await;
    assert_eq!(here.join(ROOM, "ann").await.members(), ["ann", "watcher"]);
    assert_eq!(
        get(b, "/channels/presence-room", &[("info", "user_count,subscription_count")]).await,
        json!({"occupied": true, "user_count": 2, "subscription_count": 3})
    );
    let with_info = get(b, "/channels/presence-room/users", &[("with_user_info", "1")]).await;
    let mut with_info = with_info["users"].as_array().expect("a list").clone();
    with_info.sort_by_key(|user| user["id"].to_string());
    let known = |id: &str| json!({"id": id, "user_info": {"name": id}});
    assert_eq!(with_info, [known("ann"), known("watcher")]);
    there.close().await;
    eventually(
        "the connection is counted out",
        async || get(a, "/channels/presence-room", &[("info", "subscription_count")]).await,
        |json| json["subscription_count"] == 2,
    )
    .await;
    assert_eq!(watcher.settled().await, []);
    assert_eq!(users(b, ROOM).await, ["ann", "watcher"]);
    here.close().await;
    next_is(&mut watcher, "member_removed", "ann").await;
    // Once more, to show that nothing is left of the first time.
    let mut again = b.connect().await;
    assert_eq!(again.join(ROOM, "ann").await.members(), ["ann", "watcher"]);
    next_is(&mut watcher, "member_added", "ann").await;
}

#[tokio::test]
async fn what_a_joiner_is_told_agrees_with_what_follows() {
    const EACH: usize = 30;
    let cluster = Cluster::start(3).await;
    // Everybody joins at once, some leave again; each keeps count from its snapshot and what follows.
    let join = (0..3 * EACH).map(async |number| {
        let mut client = cluster.nodes[number % 3].connect().await;
        let me = format!("u{number:02}");
        let mut members = client.join(ROOM, &me).await.members();
        assert!(members.contains(&me));
        if number % 5 == 0 {
            client.close().await;
            return None;
        }
        client.send(&json!({"event": "pusher:ping", "data": {}})).await;
        members.sort();
        Some((client, members))
    });
    let mut stayed: Vec<_> = join_all(join).await.into_iter().flatten().collect();
    let expected: Vec<_> =
        (0..3 * EACH).filter(|number| number % 5 != 0).map(|number| format!("u{number:02}")).collect();
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    let expected_ids: Vec<_> = expected.iter().map(String::as_str).collect();
    agree(&nodes, ROOM, &expected_ids).await;
    // Everything was announced before this, in one order with it.
    cluster.nodes[0].api().await.trigger(ROOM, "end", "").await;
    for (client, members) in &mut stayed {
        let (events, _) = client.until(|event| event.is("end", ROOM)).await;
        for event in events {
            follow(members, &event);
        }
        assert_eq!(*members, expected);
        assert_eq!(client.settled().await, []);
    }
}

#[tokio::test]
async fn a_channel_has_no_more_members_than_it_may_on_all_nodes_together() {
    let cluster = Cluster::start_with(2, &[("FANFARE__APPS__0__MAX_PRESENCE_MEMBERS", "2")]).await;
    let (mut a, mut b) = (cluster.nodes[0].connect().await, cluster.nodes[1].connect().await);
    a.join(ROOM, "ann").await;
    b.join(ROOM, "bob").await;
    let mut third = cluster.nodes[1].connect().await;
    let member = json!({"user_id": "cid"}).to_string();
    let data = third.subscription(ROOM, Some(&member));
    third.begin_subscribe(data).await;
    let error = third.next_event().await;
    assert!(error.name == "pusher:error" && error.data.contains("max_presence_members"), "{error:?}");
    assert_eq!(third.next_event().await.name, "pusher:subscription_error");
    // Known users may have as many tabs as they like, and the refused one may try again.
    let mut tab = cluster.nodes[1].connect().await;
    assert_eq!(tab.join(ROOM, "ann").await.members(), ["ann", "bob"]);
    next_is(&mut a, "member_added", "bob").await;
    b.close().await;
    next_is(&mut a, "member_removed", "bob").await;
    assert_eq!(third.join(ROOM, "cid").await.members(), ["ann", "cid"]);
}

#[tokio::test]
async fn counts_and_lists_are_of_all_nodes() {
    let cluster = Cluster::start_with(3, &[("FANFARE__APPS__0__SUBSCRIPTION_COUNT", "true")]).await;
    let mut clients = Vec::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let mut client = node.connect().await;
        let data = client.subscription("news", None);
        client.begin_subscribe(data).await;
        client
            .until(|event| {
                event.name == "pusher_internal:subscription_count" && event.data.contains(&format!(":{}}}", number + 1))
            })
            .await;
        clients.push(client);
    }
    for client in &mut clients[..2] {
        client.until(|event| event.data == r#"{"subscription_count":3}"#).await;
    }
    let data = clients[0].subscription("private-a", None);
    clients[0].begin_subscribe(data).await;
    clients[1].join(ROOM, "ann").await;
    for node in &cluster.nodes {
        eventually(
            "all channels are listed",
            async || get(node, "/channels", &[]).await,
            |json| *json == json!({"channels": {"news": {}, "presence-room": {}, "private-a": {}}}),
        )
        .await;
        assert_eq!(
            get(node, "/channels", &[("filter_by_prefix", "presence-"), ("info", "user_count")]).await,
            json!({"channels": {"presence-room": {"user_count": 1}}})
        );
        assert_eq!(
            get(node, "/channels/news", &[("info", "subscription_count")]).await,
            json!({"occupied": true, "subscription_count": 3})
        );
        assert_eq!(get(node, "/channels/nobody", &[]).await, json!({"occupied": false}));
    }
    let trigger =
        json!({"name": "e", "channels": ["news", ROOM], "data": "x", "info": "subscription_count,user_count"});
    let answer = cluster.nodes[2].api().await.post("/events", &trigger.to_string()).await.json();
    assert_eq!(
        answer,
        json!({"channels": {"news": {"subscription_count": 3}, "presence-room": {"subscription_count": 1, "user_count": 1}}})
    );
    clients.remove(0).close().await;
    clients[0].until(|event| event.data.contains(":2}")).await;
}

#[tokio::test]
async fn the_members_of_a_killed_node_are_gone_within_ten_seconds_and_told_of_once() {
    let mut receiver = WebhookReceiver::start();
    let url = receiver.url();
    let variables = [("FANFARE__APPS__0__WEBHOOKS__0__URL", &*url), ("FANFARE__WEBHOOKS__VACATED_DELAY", "0s")];
    let mut cluster = Cluster::start_with(3, &variables).await;
    let mut survivors = vec![cluster.nodes[0].connect().await, cluster.nodes[2].connect().await];
    survivors[0].join(ROOM, "s0").await;
    survivors[1].join(ROOM, "s1").await;
    next_is(&mut survivors[0], "member_added", "s1").await;
    let mut lost = Vec::new();
    for number in 0..5 {
        let mut client = cluster.nodes[1].connect().await;
        client.join(ROOM, &format!("u{number}")).await;
        client.subscribe("only-there").await;
        lost.push(client);
        for survivor in &mut survivors {
            next_is(survivor, "member_added", &format!("u{number}")).await;
        }
    }
    // One of them is on another node, too.
    let mut twin = cluster.nodes[2].connect().await;
    twin.join(ROOM, "u4").await;
    // Two channels and seven members.
    let mut told = Vec::new();
    while told.len() < 9 {
        told.push(receiver.next_event().await["name"].as_str().unwrap_or_default().to_owned());
    }
    noted(&cluster.redis).await;
    cluster.nodes[1].kill();
    let start = Instant::now();
    for survivor in survivors.iter_mut().chain([&mut twin]) {
        let mut gone = Vec::new();
        for _ in 0..4 {
            let event = survivor.next_event().await;
            assert_eq!(event.name, "pusher_internal:member_removed", "{event:?}");
            gone.push(event.member());
        }
        gone.sort();
        assert_eq!(gone, ["u0", "u1", "u2", "u3"]);
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    agree(&[&cluster.nodes[0], &cluster.nodes[2]], ROOM, &["s0", "s1", "u4"]).await;
    eventually(
        "the other channel is vacated",
        async || get(&cluster.nodes[0], "/channels", &[]).await,
        |json| *json == json!({"channels": {"presence-room": {}}}),
    )
    .await;
    for client in survivors.iter_mut().chain([&mut twin]) {
        assert_eq!(client.settled().await, []);
    }
    let vacated = |told: &[String]| told.iter().any(|name| name == "channel_vacated");
    let removed = |told: &[String]| told.iter().filter(|name| *name == "member_removed").count() >= 4;
    while !(vacated(&told) && removed(&told)) {
        told.push(receiver.next_event().await["name"].as_str().unwrap_or_default().to_owned());
    }
    sleep(Duration::from_secs(1)).await;
    told.extend(receiver.names());
    let count = |name: &str| told.iter().filter(|told| *told == name).count();
    assert_eq!(
        ["channel_occupied", "channel_vacated", "member_added", "member_removed", "subscription_count"].map(count),
        [2, 1, 7, 4, 0],
        "{told:?}"
    );
    println!("a node killed: its members were gone {took:?} later; webhooks 14, each once");
}

#[tokio::test]
async fn a_node_that_was_paused_past_its_lease_comes_back_with_its_members() {
    let cluster = Cluster::start(2).await;
    let (mut near, mut far) = (cluster.nodes[0].connect().await, cluster.nodes[1].connect().await);
    near.join(ROOM, "near").await;
    far.join(ROOM, "far").await;
    next_is(&mut near, "member_added", "far").await;
    cluster.nodes[1].pause();
    let start = Instant::now();
    next_is(&mut near, "member_removed", "far").await;
    let took = start.elapsed();
    assert_eq!(users(&cluster.nodes[0], ROOM).await, ["near"]);
    cluster.nodes[1].resume();
    let start = Instant::now();
    next_is(&mut near, "member_added", "far").await;
    println!("a node paused: its member gone after {took:?}, back {:?} after it went on", start.elapsed());
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    agree(&nodes, ROOM, &["far", "near"]).await;
    assert_eq!(near.settled().await, []);
    let mut members = vec!["far".to_owned(), "near".to_owned()];
    for event in far.settled().await {
        follow(&mut members, &event);
    }
    assert_eq!(members, ["far", "near"]);
    far.close().await;
    next_is(&mut near, "member_removed", "far").await;
    near.close().await;
    agree(&nodes, ROOM, &[]).await;
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_told_who_is_there_and_nobody_notices() {
    let mut receiver = WebhookReceiver::start();
    let url = receiver.url();
    let variables = [("FANFARE__APPS__0__WEBHOOKS__0__URL", &*url), ("FANFARE__WEBHOOKS__VACATED_DELAY", "0s")];
    let mut cluster = Cluster::start_with(2, &variables).await;
    let (mut near, mut far) = (cluster.nodes[0].connect().await, cluster.nodes[1].connect().await);
    near.join(ROOM, "near").await;
    far.join(ROOM, "far").await;
    next_is(&mut near, "member_added", "far").await;
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(receiver.next_event().await["name"].as_str().unwrap_or_default().to_owned());
    }
    told.sort();
    assert_eq!(told, ["channel_occupied", "member_added", "member_added"]);
    cluster.redis.kill();
    cluster.redis.run().await;
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    let took = agree(&nodes, ROOM, &["far", "near"]).await;
    // A new member is announced; those who were there all the time are not announced again.
    let mut late = cluster.nodes[1].connect().await;
    assert_eq!(late.join(ROOM, "late").await.members(), ["far", "late", "near"]);
    next_is(&mut near, "member_added", "late").await;
    next_is(&mut far, "member_added", "late").await;
    let event = receiver.next_event().await;
    assert_eq!((&event["name"], &event["user_id"]), (&json!("member_added"), &json!("late")));
    println!("Redis emptied: members complete again after {took:?}");
    assert_eq!(receiver.names(), [""; 0]);
}

#[tokio::test]
async fn nothing_is_left_behind_when_all_have_gone() {
    let cluster = Cluster::start(2).await;
    let mut client = cluster.nodes[0].connect().await;
    client.join(ROOM, "ann").await;
    client.subscribe("news").await;
    client.sign_in(r#"{"id":"ann"}"#).await;
    cluster.nodes[0].api().await.trigger("cache-a", "e", "1").await;
    let keys = |text: &str| {
        let keys = cluster.redis.ask(&["--raw", "KEYS", text]);
        keys.lines().filter(|key| !key.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    // A killed node leaves keys behind, which expire. While they are in use, nodes renew them.
    let room = async || keys("*:m:*presence-room");
    let room = eventually("the member is told", room, |keys| keys.len() == 1).await.remove(0);
    let lives = "for _, key in ipairs(redis.call('KEYS', '*')) do if redis.call('PTTL', key) < 0 then return key end end \
                 return 'all'";
    assert_eq!(cluster.redis.ask(&["EVAL", lives, "0"]), "all");
    let short = format!("return redis.call('PEXPIRE', '{}', 60000)", room.replace('\0', "\\0"));
    assert_eq!(cluster.redis.ask(&["EVAL", &short, "0"]), "1");
    cluster.redis.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let time = format!("return redis.call('PTTL', '{}')", room.replace('\0', "\\0"));
    let time = async || cluster.redis.ask(&["EVAL", &time, "0"]).parse::<u64>().unwrap_or_default();
    eventually("its time is renewed", time, |time| *time > 60_000).await;
    for node in &cluster.nodes {
        node.terminate();
    }
    let left = async || {
        let keys = cluster.redis.ask(&["KEYS", "*"]);
        let mut keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).map(str::to_owned).collect();
        // These belong to the log, and expire by themselves.
        keys.retain(|key| [":log", ":epoch", ":said", ":server"].iter().all(|end| !key.ends_with(end)));
        // These belong to the kept event of the cache channel, which expires by its own `cache_ttl`.
        keys.retain(|key| [":kept:", ":keeps:", ":had:"].iter().all(|part| !key.contains(part)));
        keys
    };
    eventually("only the logs are left", left, Vec::is_empty).await;
}

/// A watchlist's frame as the names and users in it.
fn watched(event: &Event) -> Vec<(String, Vec<String>)> {
    assert_eq!(event.name, "pusher_internal:watchlist_events", "{event:?}");
    let json = event.json();
    let groups = json["events"].as_array().expect("events");
    let ids = |group: &Value| serde_json::from_value(group["user_ids"].clone()).expect("user ids");
    groups.iter().map(|group| (group["name"].as_str().unwrap_or_default().to_owned(), ids(group))).collect()
}

fn group(name: &str, ids: &[&str]) -> Vec<(String, Vec<String>)> {
    vec![(name.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect())]
}

#[tokio::test]
async fn who_is_online_is_known_on_all_nodes() {
    let mut cluster = Cluster::start(3).await;
    let mut early = cluster.nodes[0].connect().await;
    early.sign_in(r#"{"id":"early"}"#).await;
    let mut watcher = cluster.nodes[1].connect().await;
    let online = async || {
        let mut asker = cluster.nodes[1].connect().await;
        asker.sign_in(r#"{"id":"asker","watchlist":["early"]}"#).await;
        watched(&asker.next_event().await)
    };
    eventually("the first sign-in is known", online, |groups| *groups == group("online", &["early"])).await;
    watcher.sign_in(r#"{"id":"watcher","watchlist":["early","late","never"]}"#).await;
    let mut expected = group("online", &["early"]);
    expected.extend(group("offline", &["late", "never"]));
    assert_eq!(watched(&watcher.next_event().await), expected);

    let mut late = cluster.nodes[2].connect().await;
    late.sign_in(r#"{"id":"late"}"#).await;
    assert_eq!(watched(&watcher.next_event().await), group("online", &["late"]));
    // A second node of the same user, and a page that reloads, change nothing.
    let mut twin = cluster.nodes[0].connect().await;
    twin.sign_in(r#"{"id":"late"}"#).await;
    early.close().await;
    let mut back = cluster.nodes[2].connect().await;
    back.sign_in(r#"{"id":"early"}"#).await;
    cluster.nodes[2].kill();
    assert_eq!(watched(&watcher.next_event().await), group("offline", &["early"]));
    assert_eq!(watcher.settled().await, []);
    twin.close().await;
    assert_eq!(watched(&watcher.next_event().await), group("offline", &["late"]));
}

#[tokio::test]
async fn a_killed_nodes_webhooks_are_delivered_by_another() {
    // The endpoint's port is free, but nobody listens on it yet, so the node keeps trying. An address of its own (127.0.0.7) keeps other
    // scenarios from taking the port.
    let listener = std::net::TcpListener::bind("127.0.0.7:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let url = format!("http://{address}/hooks");
    let variables = [
        ("FANFARE__APPS__0__WEBHOOKS__0__URL", &*url),
        ("FANFARE__WEBHOOKS__VACATED_DELAY", "0s"),
        ("FANFARE__WEBHOOKS__RETRY_INITIAL", "100ms"),
    ];
    let mut cluster = Cluster::start_with(2, &variables).await;
    let mut client = cluster.nodes[0].connect().await;
    client.join(ROOM, "ann").await;
    let mut other = cluster.nodes[1].connect().await;
    other.join(ROOM, "bob").await;
    let owner = async || {
        let failing = |node: &Node| node.has_logged("webhook endpoint fails");
        cluster.nodes.iter().position(failing)
    };
    let owner = eventually("a node tries to deliver", owner, Option::is_some).await.expect("a node");
    cluster.nodes[owner].kill();
    let start = Instant::now();
    let mut receiver = WebhookReceiver::start_at(address);
    let mut told = Vec::new();
    while told.len() < 4 {
        let event = receiver.next_event().await;
        told.push(format!(
            "{} {}",
            event["name"].as_str().unwrap_or_default(),
            event["user_id"].as_str().unwrap_or_default()
        ));
    }
    let took = start.elapsed();
    told.sort();
    let gone = if owner == 0 { "ann" } else { "bob" };
    let removed = format!("member_removed {gone}");
    assert_eq!(told, ["channel_occupied ", "member_added ann", "member_added bob", &removed]);
    println!("a node killed with webhooks it could not deliver: another had delivered all of them after {took:?}");
}

//! The rules of the protocol that stock clients depend on, one test each, over two workers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_tests::{Client, Event, TestServer, WebhookReceiver};
use serde_json::{Value, json};

fn server() -> TestServer {
    TestServer::builder().config(|config| config.server.workers = 2).start()
}

/// Several clients on one channel. Connections go to the workers in turns, so that each worker has some.
async fn subscribers(server: &TestServer, count: usize, channel: &str) -> Vec<Client> {
    let mut clients = server.connect_many(count).await;
    for client in &mut clients {
        client.subscribe(channel).await;
    }
    clients
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| &*event.name).collect()
}

#[tokio::test]
async fn rule_01_connection_established_comes_first_and_is_well_formed() {
    let server = server();
    let mut ids = std::collections::HashSet::new();
    for path in [server.path(), "/app/app-key".to_owned(), "/app/app-key?protocol=5".to_owned()] {
        let client = server.try_connect(&path).await.expect("a connection");
        let established = &client.established;
        assert_eq!(established.name, "pusher:connection_established");
        assert!(established.data_is_string);
        let data = established.json();
        assert_eq!(data["activity_timeout"], json!(120));
        let (high, low) = client.socket_id.split_once('.').expect("a dot");
        for part in [high, low] {
            assert!(!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()), "{}", client.socket_id);
        }
        assert!(ids.insert(client.socket_id.clone()));
    }
}

#[tokio::test]
async fn rule_02_data_is_always_there_and_a_string_except_in_errors() {
    let server = TestServer::builder()
        .config(|config| config.server.workers = 2)
        .app(|app| {
            app.subscription_count = true;
            app.max_client_events_per_second = 1;
        })
        .start();
    let mut other = server.connect().await;
    other.join("presence-room", "bob").await;
    other.subscribe("private-room").await;
    let mut client = server.connect().await;
    let sign_in = client.sign_in(r#"{"id":"ada","watchlist":["bob"]}"#).await;
    client.begin_subscribe(json!({"channel": "news"})).await;
    client.begin_subscribe(json!({"channel": "news"})).await;
    client.begin_subscribe(json!({"channel": "cache-news"})).await;
    client.begin_subscribe(json!({"channel": "private-room", "auth": "app-key:0"})).await;
    let data = client.subscription("private-room", None);
    client.begin_subscribe(data).await;
    let data = client.subscription("presence-room", Some(r#"{"user_id":1}"#));
    client.begin_subscribe(data).await;
    client.send_text("{").await;
    client.unsubscribe("nowhere").await;
    client.send_event("news", "client-x", json!({})).await;
    let mut events = client.settled().await;
    other.send_event("private-room", "client-x", json!({"a": 1})).await;
    other.send_event("private-room", "client-x", json!({"a": 1})).await;
    other.unsubscribe("presence-room").await;
    events.extend(other.settled().await);
    server.api().await.trigger("private-room", "e", "{}").await;
    events.extend(client.settled().await);
    events.push(sign_in);
    events.iter().for_each(assert_data);
    let seen: std::collections::BTreeSet<_> = events.iter().map(|event| &*event.name).collect();
    for name in [
        "client-x",
        "e",
        "pusher:cache_miss",
        "pusher:error",
        "pusher:signin_success",
        "pusher:subscription_error",
        "pusher_internal:member_added",
        "pusher_internal:member_removed",
        "pusher_internal:subscription_count",
        "pusher_internal:subscription_succeeded",
    ] {
        assert!(seen.contains(name), "the scenario has no {name}: {seen:?}");
    }
}

fn assert_data(event: &Event) {
    let frame: Value = serde_json::from_str(&event.text).expect("JSON");
    if event.name == "pusher:error" {
        let data = frame["data"].as_object().expect("an object");
        assert!(data["message"].is_string() && (data["code"].is_null() || data["code"].is_u64()), "{}", event.text);
        assert!(frame.get("channel").is_none(), "{}", event.text);
    } else {
        assert!(event.data_is_string, "{}", event.text);
    }
}

#[tokio::test]
async fn rule_03_a_refusal_is_a_101_an_error_frame_and_a_close_with_the_same_code() {
    let server = server();
    for (path, code, message) in [
        ("/app/nobody?protocol=7", 4001, "App key nobody not in this cluster. Did you forget to specify the cluster?"),
        ("/app/?protocol=7", 4005, "Path not found"),
        ("/app/a/b", 4005, "Path not found"),
        ("/elsewhere", 4005, "Path not found"),
        ("/app/app-key?protocol=seven", 4006, "Invalid version string format"),
        ("/app/app-key?protocol=3", 4007, "Unsupported protocol version"),
    ] {
        let ended = server.try_connect(path).await.expect_err("a refusal");
        assert_eq!(names(&ended.events), ["pusher:error"], "{path}");
        assert_eq!(ended.events[0].json(), json!({"code": code, "message": message}), "{path}");
        assert_eq!((ended.code, &*ended.reason), (Some(code), message), "{path}");
    }
    let disabled = TestServer::builder().app(|app| app.enabled = false).start();
    let ended = disabled.try_connect(&disabled.path()).await.expect_err("a refusal");
    assert_eq!((ended.code, ended.events[0].code()), (Some(4003), Some(4003)));
    assert_eq!(server.api().await.connections().await, 0);
}

#[tokio::test]
async fn rule_04_signed_strings_are_bytes() {
    let server = server();
    let mut client = server.connect().await;
    // As PHP writes it, as Python writes it, and with a number for an id.
    for (channel, text, info) in [
        ("presence-php", r#"{"user_id":"1","user_info":{"a":"\/\u00eb"}}"#, json!({"a": "/ë"})),
        ("presence-py", r#"{"user_id": "1", "user_info": {"a": 1.0}}"#, json!({"a": 1.0})),
        ("presence-number", "{\n\"user_info\":[1,2],\"user_id\":1\n}", json!([1, 2])),
    ] {
        let data = client.subscription(channel, Some(text));
        client.begin_subscribe(data).await;
        let answer = client.next_event().await;
        assert_eq!(answer.name, "pusher_internal:subscription_succeeded", "{answer:?}");
        assert_eq!(answer.json()["presence"]["hash"], json!({"1": info}));
        // The same meaning in other bytes is not what was signed.
        let mut changed = client.subscription(&format!("{channel}-2"), Some(text));
        changed["channel_data"] = format!("{text} ").into();
        client.begin_subscribe(changed).await;
        assert_eq!(names(&client.settled().await), ["pusher:error", "pusher:subscription_error"]);
    }
    let user_data = r#"{"id": "\u0061da", "user_info": {"n": "\/"}}"#;
    let answer = client.sign_in(user_data).await;
    assert_eq!(answer.json(), json!({"user_data": user_data}));

    // A body is verified as it came, before anything reads it.
    let mut api = server.api().await;
    let body = "{ \"name\":\"e\",\n\"channel\":\"news\", \"data\":\"\\u00e9\" }";
    assert_eq!(api.post("/events", body).await.status, 200);
    let query = api.sign("POST", "/apps/app-id/events", &[], body);
    let target = format!("/apps/app-id/events?{query}");
    assert_eq!(api.request("POST", &target, &body.replace('\n', " ")).await.status, 401);
    assert_eq!(api.request("POST", &target, "{").await.status, 401);
}

#[tokio::test]
async fn rule_05_published_data_goes_through_byte_for_byte() {
    let server = server();
    let mut clients = subscribers(&server, 2, "news").await;
    let mut api = server.api().await;
    let literals = [
        r#""""#,
        r#"" ""#,
        r#""0""#,
        r#""null""#,
        r#""not JSON""#,
        r#""{\"a\":\"\\/\"}""#,
        r#""{\"a\": 1.0, \"b\":1e400}""#,
        r#""\/""#,
        r#""\u00e9 \ud83d\ude00 é 😀""#,
        r#""\u0000\u001f\u2028\u2029""#,
        r#""\"\\\b\f\n\r\t""#,
        r#""{\"nonce\":\"AAAA+/==\",\"ciphertext\":\"b64\"}""#,
    ];
    for literal in literals {
        let body = format!(r#"{{"data":{literal},"name":"e","channels":["news"]}}"#);
        assert_eq!(api.post("/events", &body).await.json(), json!({}), "{literal}");
        let expected: String = serde_json::from_str(literal).expect("a JSON string");
        for client in &mut clients {
            let event = client.next_event().await;
            assert!(event.data_is_string);
            assert_eq!(event.data, expected, "{literal}");
        }
    }
    // Backslashes, colons and spaces belong to names as well.
    let name = r"App\Events\Order: shipped é";
    api.trigger("news", name, "{}").await;
    assert_eq!(clients[0].next_event().await.name, name);
}

#[tokio::test]
async fn rule_06_success_is_200_with_an_object() {
    let server = server();
    let mut api = server.api().await;
    assert_eq!(api.get("/channels", &[]).await.json(), json!({"channels": {}}));
    assert_eq!(api.get("/channels/news", &[]).await.json(), json!({"occupied": false}));
    assert_eq!(api.get("/channels/presence-a/users", &[]).await.json(), json!({"users": []}));
    let event = |channel: &str| json!({"name": "e", "channel": channel, "data": ""});
    assert_eq!(api.post("/events", &event("news").to_string()).await.json(), json!({}));
    let batch = json!({"batch": [event("news"), event("other")]}).to_string();
    assert_eq!(api.post("/batch_events", &batch).await.json(), json!({}));
    for body in ["{}", ""] {
        assert_eq!(api.post("/users/nobody/terminate_connections", body).await.json(), json!({}));
    }

    let mut client = server.connect().await;
    client.join("presence-a", "7").await;
    assert_eq!(api.get("/channels", &[]).await.json(), json!({"channels": {"presence-a": {}}}));
    let params = [("filter_by_prefix", "presence-"), ("info", "user_count")];
    assert_eq!(api.get("/channels", &params).await.json(), json!({"channels": {"presence-a": {"user_count": 1}}}));
    let params = [("info", "user_count")];
    assert_eq!(api.get("/channels/presence-a", &params).await.json(), json!({"occupied": true, "user_count": 1}));
    assert_eq!(api.get("/channels/presence-a/users", &[]).await.json(), json!({"users": [{"id": "7"}]}));
    let body = json!({"name": "e", "channels": ["presence-a", "b"], "data": "", "info": "user_count"}).to_string();
    let expected = json!({"channels": {"presence-a": {"user_count": 1}, "b": {}}});
    assert_eq!(api.post("/events", &body).await.json(), expected);
    let mut counted = event("presence-a");
    counted["info"] = "user_count".into();
    let batch = json!({"batch": [event("b"), counted]}).to_string();
    assert_eq!(api.post("/batch_events", &batch).await.json(), json!({"batch": [{}, {"user_count": 1}]}));
}

#[tokio::test]
async fn rule_07_query_values_are_decoded_before_they_are_signed() {
    let server = TestServer::builder().app(|app| app.subscription_count = true).start();
    let mut api = server.api().await;
    let params = [("info", "user_count,subscription_count")];
    let query = api.sign("GET", "/apps/app-id/channels/presence-a", &params, "");
    assert!(query.contains("user_count%2Csubscription_count"), "{query}");
    // A comma is signed as a comma, however it was sent.
    for query in [query.clone(), query.replace("%2C", ","), query.replace("%2C", "%2c")] {
        let answer = api.request("GET", &format!("/apps/app-id/channels/presence-a?{query}"), "").await;
        assert_eq!(answer.json(), json!({"occupied": false, "user_count": 0, "subscription_count": 0}));
    }
    // The MD5 of nothing, as the Python SDK sends it.
    let params = [("body_md5", "d41d8cd98f00b204e9800998ecf8427e")];
    assert_eq!(api.get("/channels", &params).await.json(), json!({"channels": {}}));
    let wrong = [("body_md5", "00000000000000000000000000000000")];
    assert_eq!(api.get("/channels", &wrong).await.status, 401);
}

#[tokio::test]
async fn rule_08_a_socket_id_is_left_out_on_all_channels_whichever_worker_has_it() {
    let server = server();
    let mut clients = subscribers(&server, 6, "a").await;
    for client in &mut clients {
        client.subscribe("b").await;
    }
    let mut api = server.api().await;
    for excluded in 0..clients.len() {
        let socket_id = clients[excluded].socket_id.clone();
        let body = json!({"name": "e", "channels": ["a", "b", "a"], "data": "", "socket_id": socket_id});
        assert_eq!(api.post("/events", &body.to_string()).await.status, 200);
        let item = |channel: &str| json!({"name": "item", "channel": channel, "data": ""});
        let mut without = item("b");
        without["socket_id"] = socket_id.into();
        let batch = json!({"batch": [item("a"), without]});
        assert_eq!(api.post("/batch_events", &batch.to_string()).await.status, 200);
        for (index, client) in clients.iter_mut().enumerate() {
            let events = client.settled().await;
            let got: Vec<_> =
                events.iter().map(|event| (&*event.name, event.channel.as_deref().unwrap_or_default())).collect();
            if index == excluded {
                assert_eq!(got, [("item", "a")]);
            } else {
                assert_eq!(got, [("e", "a"), ("e", "b"), ("item", "a"), ("item", "b")]);
            }
        }
    }
    let unknown = json!({"name": "e", "channel": "a", "data": "", "socket_id": "1.1"});
    assert_eq!(api.post("/events", &unknown.to_string()).await.status, 200);
    let bad = json!({"name": "e", "channel": "a", "data": "", "socket_id": "x"});
    assert_eq!(api.post("/events", &bad.to_string()).await.status, 400);
}

#[tokio::test]
async fn rule_09_presence_is_per_user() {
    const ROOM: &str = "presence-room";
    let server = server();
    let mut observer = server.connect().await;
    assert_eq!(observer.join(ROOM, "observer").await.members(), ["observer"]);
    let mut tabs = server.connect_many(3).await;
    for tab in &mut tabs {
        assert_eq!(tab.join(ROOM, "ada").await.members(), ["ada", "observer"]);
    }
    let events = observer.settled().await;
    assert_eq!(names(&events), ["pusher_internal:member_added"]);
    assert_eq!(events[0].json(), json!({"user_id": "ada", "user_info": {"name": "ada"}}));
    // Nobody is told of itself, nor of its own next tab.
    for tab in &mut tabs {
        assert_eq!(tab.settled().await, []);
    }
    let mut api = server.api().await;
    assert_eq!(api.users(ROOM).await, ["ada", "observer"]);
    let mut last = tabs.pop().expect("a tab");
    tabs.pop().expect("a tab").close().await;
    tabs[0].unsubscribe(ROOM).await;
    tabs[0].settled().await;
    assert_eq!(observer.settled().await, []);
    last.unsubscribe(ROOM).await;
    assert_eq!(last.settled().await, []);
    let events = observer.settled().await;
    assert_eq!(names(&events), ["pusher_internal:member_removed"]);
    assert_eq!(events[0].json(), json!({"user_id": "ada"}));
    assert_eq!(api.users(ROOM).await, ["observer"]);
}

#[tokio::test]
async fn rule_10_nothing_of_a_channel_before_subscription_succeeded_or_after_unsubscribe() {
    let server = server();
    let mut clients = server.connect_many(4).await;
    let publish = async {
        let mut api = server.api().await;
        for _ in 0..200 {
            api.trigger("news", "e", "").await;
        }
    };
    let churn = futures_util::future::join_all(clients.iter_mut().map(async |client| {
        for _ in 0..30 {
            // Fails on an early event.
            client.subscribe("news").await;
            client.unsubscribe("news").await;
            client.settled().await;
            assert_eq!(client.settled().await, [], "an event after the unsubscribe");
        }
    }));
    tokio::join!(publish, churn);
}

#[tokio::test]
async fn rule_11_client_events_reach_the_others_with_the_servers_user_id() {
    const ROOM: &str = "presence-room";
    let server = server();
    let mut sender = server.connect().await;
    sender.join(ROOM, "ada").await;
    sender.subscribe("private-room").await;
    let mut others = server.connect_many(4).await;
    for (index, other) in others.iter_mut().enumerate() {
        other.join(ROOM, &format!("user-{index}")).await;
        other.subscribe("private-room").await;
    }
    for other in &mut others {
        other.settled().await;
    }
    sender.settled().await;
    let spoofed =
        json!({"event": "client-x", "channel": ROOM, "data": {"a": 1}, "user_id": "mallory", "socket_id": "1.1"});
    sender.send(&spoofed).await;
    sender.send_event("private-room", "client-y", json!("plain")).await;
    assert_eq!(sender.settled().await, []);
    for other in &mut others {
        // Two channels are two orders.
        let mut events = [other.next_event().await, other.next_event().await];
        events.sort_by(|a, b| a.name.cmp(&b.name));
        let [event, plain] = events;
        assert!(event.is("client-x", ROOM), "{event:?}");
        assert_eq!((&*event.data, event.user_id.as_deref()), (r#"{"a":1}"#, Some("ada")));
        assert!(!event.text.contains("mallory") && !event.text.contains("1.1"), "{event:?}");
        assert!(plain.is("client-y", "private-room"), "{plain:?}");
        assert_eq!((&*plain.data, plain.user_id), ("plain", None));
    }
    // Not on public channels, not where the sender is no subscriber, and not under other names.
    sender.subscribe("news").await;
    sender.send_event("news", "client-x", json!({})).await;
    sender.send_event("private-other", "client-x", json!({})).await;
    sender.send_event(ROOM, "x", json!({})).await;
    let errors = sender.settled().await;
    assert_eq!(names(&errors), ["pusher:error"; 3]);
    for other in &mut others {
        assert_eq!(other.settled().await, []);
    }
}

#[tokio::test]
async fn rule_12_a_cached_event_comes_after_subscription_succeeded_and_to_that_socket_only() {
    let server = server();
    let mut api = server.api().await;
    for (channel, misses) in [("cache-news", true), ("private-cache-news", true), ("my-cache-news", false)] {
        let mut first = server.connect().await;
        first.subscribe(channel).await;
        let events = first.settled().await;
        if !misses {
            assert_eq!(events, []);
            continue;
        }
        assert_eq!(names(&events), ["pusher:cache_miss"]);
        assert_eq!((events[0].channel.as_deref(), &*events[0].data), (Some(channel), "{}"));
        api.trigger(channel, "old", "1").await;
        // An excluded socket still gets the event as the kept one.
        let body = json!({"name": "new", "channel": channel, "data": r#"{"a":"\/"}"#, "socket_id": first.socket_id});
        assert_eq!(api.post("/events", &body.to_string()).await.status, 200);
        if channel.starts_with("private-") {
            first.send_event(channel, "client-x", json!("not kept")).await;
        }
        assert_eq!(names(&first.settled().await), ["old"]);
        for mut client in server.connect_many(2).await {
            client.subscribe(channel).await;
            let events = client.settled().await;
            assert_eq!(names(&events), ["new"]);
            assert_eq!((events[0].channel.as_deref(), &*events[0].data), (Some(channel), r#"{"a":"\/"}"#));
        }
        assert_eq!(first.settled().await, []);
        // It outlives its subscribers.
        first.close().await;
        let cache = api.get(&format!("/channels/{channel}"), &[("info", "cache")]).await.json();
        assert_eq!(cache["cache"]["data"], r#"{"a":"\/"}"#);
    }
}

#[tokio::test]
async fn rule_09_webhooks_report_a_user_not_its_connections() {
    const ROOM: &str = "presence-room";
    let mut webhooks = WebhookReceiver::start();
    let server = TestServer::builder().webhooks(&webhooks).start();
    let mut tabs = server.connect_many(6).await;
    for tab in &mut tabs {
        tab.join(ROOM, "ada").await;
    }
    // Over three workers, some leave and some vanish.
    for (number, mut tab) in tabs.into_iter().enumerate() {
        if number % 2 == 0 {
            tab.unsubscribe(ROOM).await;
            tab.settled().await;
        } else {
            tab.close().await;
        }
    }
    for (name, user) in [
        ("channel_occupied", None),
        ("member_added", Some("ada")),
        ("member_removed", Some("ada")),
        ("channel_vacated", None),
    ] {
        let event = webhooks.next_event().await;
        assert_eq!((&event["name"], event["user_id"].as_str()), (&json!(name), user));
    }
    drop(server);
    assert_eq!(webhooks.names(), [""; 0]);
}

#[tokio::test]
async fn rule_14_webhooks_are_signed_and_tried_again_with_a_fresh_signature_in_order() {
    let mut webhooks = WebhookReceiver::failing(2);
    let builder = TestServer::builder().webhooks(&webhooks);
    let server = builder.config(|config| config.webhooks.retry_initial = Duration::from_millis(20)).start();
    let mut client = server.connect().await;
    client.join("presence-room", "7").await;
    client.send_event("presence-room", "client-x", json!({"a": 1})).await;
    let occupied = json!({"name": "channel_occupied", "channel": "presence-room"});
    let expected = [
        occupied.clone(),
        occupied.clone(),
        occupied,
        json!({"name": "member_added", "channel": "presence-room", "user_id": "7"}),
        json!({
            "name": "client_event", "channel": "presence-room", "event": "client-x", "data": r#"{"a":1}"#,
            "socket_id": client.socket_id, "user_id": "7"
        }),
    ];
    let mut last = 0;
    for expected in expected {
        let delivery = webhooks.next().await;
        assert_eq!(delivery.header("content-type"), "application/json");
        assert_eq!(delivery.header("x-pusher-key"), "app-key");
        assert_eq!(delivery.header("x-pusher-signature"), server.sign(&delivery.body));
        let body = delivery.json();
        assert_eq!(body["events"], json!([expected]));
        let time_ms = u128::from(body["time_ms"].as_u64().expect("a whole number"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis();
        assert!((last..=now).contains(&time_ms), "{time_ms} is not between {last} and {now}");
        assert!(now - time_ms < 60_000, "{time_ms} is not in milliseconds");
        last = time_ms;
    }
}

#[tokio::test]
async fn rule_15_sequential_triggers_arrive_in_their_order() {
    let server = server();
    let mut clients = subscribers(&server, 6, "news").await;
    // One publisher, whose requests take turns over connections that different workers serve.
    let mut apis = Vec::new();
    for _ in 0..4 {
        apis.push(server.api().await);
    }
    for number in 0..200 {
        apis[number % 4].trigger("news", "numbered", &number.to_string()).await;
    }
    for client in &mut clients {
        for number in 0..200 {
            assert_eq!(client.next_event().await.data, number.to_string());
        }
    }
}

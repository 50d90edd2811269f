//! What recovery looks like on the wire, and over HTTP. The semantics have their tests beside the code, and real clients in
//! `tests/clients/js`.

use fanfare_server::config::{HistoryConfig, RecoveryChannelConfig};
use fanfare_tests::{Client, Event, TestServer};
use serde_json::{Value, json};

async fn recover(client: &mut Client, from: Value, sockets: &[&str]) {
    client.send(&json!({"event": "fanfare:recover", "data": {"from": from, "sockets": sockets}})).await;
}

/// The position in a frame.
fn position(event: &Event) -> String {
    let frame: Value = serde_json::from_str(&event.text).expect("JSON");
    let tag = frame["user_id"].as_array().unwrap_or_else(|| panic!("no position: {}", event.text));
    assert_eq!(tag.len(), 1, "{}", event.text);
    tag[0].as_str().expect("text").to_owned()
}

/// Subscribes, and returns what came up to the answer to a ping behind it.
async fn subscribed(client: &mut Client, channel: &str) -> Vec<Event> {
    let data = client.subscription(channel, None);
    client.begin_subscribe(data).await;
    client.settled().await
}

#[tokio::test]
async fn frames_look_as_they_are_documented() {
    let server = TestServer::start();
    let mut api = server.api().await;
    let mut client = server.connect().await;
    recover(&mut client, json!({}), &[]).await;
    let start = position(&subscribed(&mut client, "orders").await[0]);
    let (epoch, number) = start.split_once('.').expect("epoch and number");
    assert_eq!((epoch.len(), number), (11, "0"));
    api.trigger("orders", "shipped", "{\"i\":8}").await;
    let live = client.next_event().await.text;
    assert_eq!(
        live,
        format!(r#"{{"event":"shipped","channel":"orders","data":"{{\"i\":8}}","user_id":["{epoch}.1"]}}"#)
    );

    let mut again = server.connect().await;
    again.send_text(format!(r#"{{"event":"fanfare:recover","data":"{{\"from\":{{\"orders\":\"{start}\"}}}}"}}"#)).await;
    let texts: Vec<_> = subscribed(&mut again, "orders").await.into_iter().map(|event| event.text).collect();
    assert_eq!(
        texts,
        [
            format!(
                r#"{{"event":"pusher_internal:subscription_succeeded","channel":"orders","data":"{{}}","user_id":["{start}"]}}"#
            ),
            live,
            format!(
                r#"{{"event":"pusher_internal:recovery","channel":"orders","data":"{{\"recovered\":true,\"count\":1}}","user_id":["{epoch}.1"]}}"#
            ),
        ]
    );
    let mut late = server.connect().await;
    subscribed(&mut late, "orders").await;
    recover(&mut late, json!({}), &[]).await;
    assert_eq!(
        late.next_event().await.text,
        format!(r#"{{"event":"pusher_internal:position","channel":"orders","data":"{{}}","user_id":["{epoch}.1"]}}"#)
    );
}

#[tokio::test]
async fn a_presence_channel_tells_its_members_and_a_position() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    recover(&mut client, json!({}), &[]).await;
    let answer = client.join("presence-room", "alice").await;
    assert_eq!(answer.members(), ["alice"]);
    let start = position(&answer);
    server.api().await.trigger("presence-room", "moved", "1").await;
    let mut again = server.connect().await;
    recover(&mut again, json!({"presence-room": start}), &[]).await;
    assert_eq!(again.join("presence-room", "alice").await.members(), ["alice"]);
    let names: Vec<_> = again.settled().await.into_iter().map(|event| event.name).collect();
    assert_eq!(names, ["moved", "pusher_internal:recovery"]);
}

#[tokio::test]
async fn nothing_in_a_recover_frame_hurts_the_connection() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for data in [
        json!(null),
        json!("?"),
        json!([]),
        json!({"from": "x"}),
        json!({"from": {"orders": {"last": 1e99}}, "sockets": 7}),
        json!({"from": {"orders": "x".repeat(60_000)}}),
    ] {
        client.send(&json!({"event": "fanfare:recover", "data": data})).await;
    }
    let many: Value = (0..1_500).map(|number| (format!("c{number}"), json!("x"))).collect();
    recover(&mut client, many, &["1.1"; 100]).await;
    let errors = client.settled().await;
    assert!(errors.iter().all(|event| event.name == "pusher:error"), "{errors:?}");
    let names: Vec<_> = subscribed(&mut client, "orders").await.into_iter().map(|event| event.name).collect();
    assert_eq!(names, ["pusher_internal:subscription_succeeded", "pusher_internal:recovery"]);
}

#[tokio::test]
async fn positions_are_told_over_http_to_who_renders_a_page() {
    let server = TestServer::start();
    let mut api = server.api().await;
    let before = api.get("/channels/orders", &[("info", "position")]).await.json();
    let before = before["position"].as_str().expect("a position").to_owned();
    let body = json!({"name": "e", "channels": ["orders", "others"], "data": "1", "info": "position"}).to_string();
    let answer = api.post("/events", &body).await.json();
    let after = answer["channels"]["orders"]["position"].as_str().expect("a position").to_owned();
    assert_eq!(after, before.replace(".0", ".1"));
    assert!(answer["channels"]["others"]["position"].as_str().is_some_and(|position| position.ends_with(".1")));
    let batch = json!({"batch": [
        {"name": "e", "channel": "orders", "data": "2"},
        {"name": "e", "channel": "orders", "data": "3", "info": "position"},
    ]});
    let answer = api.post("/batch_events", &batch.to_string()).await.json();
    assert_eq!(answer["batch"][0], json!({}));
    assert_eq!(answer["batch"][1]["position"], json!(before.replace(".0", ".3")));

    let mut client = server.connect().await;
    recover(&mut client, json!({"orders": after}), &[]).await;
    let data: Vec<_> = subscribed(&mut client, "orders").await.into_iter().map(|event| event.data).collect();
    assert_eq!(data[1..], ["2", "3", r#"{"recovered":true,"count":2}"#]);
    let listed = api.get("/channels", &[("info", "position")]).await.json();
    assert_eq!(listed["channels"]["orders"]["position"], json!(before.replace(".0", ".3")));
    assert!(api.get("/channels/orders", &[]).await.json().get("position").is_none());

    let off = TestServer::builder().config(|config| config.recovery.enabled = false).start();
    let mut api = off.api().await;
    assert!(api.get("/channels/orders", &[("info", "position")]).await.json().get("position").is_none());
    assert_eq!(api.post("/events", &body).await.json(), json!({"channels": {"orders": {}, "others": {}}}));
}

#[tokio::test]
async fn a_history_is_allowed_by_pattern() {
    let history = HistoryConfig { last: 2, on_subscribe: 0, private: false };
    let rule = RecoveryChannelConfig { pattern: "*feed".to_owned(), window: None, history };
    let server = TestServer::builder().app(|app| app.recovery.channels.push(rule)).start();
    let mut api = server.api().await;
    for number in 1..=3 {
        for channel in ["feed", "private-feed"] {
            api.trigger(channel, "numbered", &number.to_string()).await;
        }
    }
    let mut client = server.connect().await;
    recover(&mut client, json!({"feed": {"last": 20}, "private-feed": {"last": 20}, "other": {"last": 1}}), &[]).await;
    let data = async |client: &mut Client, channel| {
        let events = subscribed(client, channel).await;
        events.into_iter().map(|event| event.data).collect::<Vec<_>>()
    };
    assert_eq!(data(&mut client, "feed").await, ["{}", "2", "3", r#"{"recovered":true,"count":2}"#]);
    for refused in ["private-feed", "other"] {
        assert_eq!(data(&mut client, refused).await, ["{}", r#"{"recovered":false,"count":0}"#]);
    }
}

/// Also under a prefix: the script stands where the routes are.
#[tokio::test]
async fn the_companion_is_served_and_cached() {
    let server = TestServer::builder().config(|config| config.server.path_prefix = "/ws".to_owned()).start();
    let mut api = server.api().await;
    for (path, what) in [("/ws/recover.js", "Fanfare"), ("/ws/recover.mjs", "export")] {
        let response = api.request("GET", path, "").await;
        let headers = response.headers.to_lowercase();
        assert_eq!(response.status, 200);
        assert!(response.body.contains(what) && response.body.contains("fanfare:recover"), "{}", response.body);
        assert!(headers.contains("content-type: text/javascript"), "{headers}");
        assert!(headers.contains("access-control-allow-origin: *") && headers.contains("cache-control: public"));
        let etag = headers.lines().find_map(|line| line.strip_prefix("etag: ")).expect("an etag").to_owned();
        let conditional = format!("{path} HTTP/1.1\r\nif-none-match: \"other\", W/{etag}\r\nx-rest:");
        let response = api.request("GET", &conditional, "").await;
        assert_eq!((response.status, &*response.body), (304, ""));
    }
    assert_eq!(api.request("POST", "/ws/recover.js", "").await.status, 405);
    assert_eq!(api.request("GET", "/recover.js", "").await.status, 404);
}

#[tokio::test]
async fn a_deploy_loses_nothing_and_a_crash_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("kept").to_str().expect("text").to_owned();
    let start = |file: &str| {
        let file = file.to_owned();
        TestServer::builder().config(|config| config.recovery.file = file).start()
    };
    let server = start(&file);
    let mut client = server.connect().await;
    recover(&mut client, json!({}), &[]).await;
    let begin = position(&subscribed(&mut client, "orders").await[0]);
    let mut api = server.api().await;
    api.trigger("orders", "numbered", "1").await;
    // Published while everybody leaves.
    client.close().await;
    api.trigger("orders", "numbered", "2").await;
    drop(api);
    drop(server);

    let server = start(&file);
    let mut client = server.connect().await;
    assert!(!std::path::Path::new(&file).exists(), "it is used once");
    recover(&mut client, json!({"orders": begin}), &[]).await;
    let data: Vec<_> = subscribed(&mut client, "orders").await.into_iter().map(|event| event.data).collect();
    assert_eq!(data, ["{}", "1", "2", r#"{"recovered":true,"count":2}"#]);
    // A process that ends in any other way leaves no file, and so does one that has no setting for it.
    let server = TestServer::start();
    let mut client = server.connect().await;
    recover(&mut client, json!({"orders": begin}), &[]).await;
    let data: Vec<_> = subscribed(&mut client, "orders").await.into_iter().map(|event| event.data).collect();
    assert_eq!(data, ["{}", r#"{"recovered":false,"count":0}"#]);
}

#[tokio::test]
async fn a_reader_that_was_closed_as_too_slow_comes_back_to_everything() {
    const CHANNELS: usize = 8;
    let server = TestServer::builder().config(|config| config.server.max_outbox_bytes = 128 * 1024).start();
    let names: Vec<_> = (0..CHANNELS).map(|number| format!("orders-{number}")).collect();
    let mut slow = server.raw().await;
    slow.send_text(r#"{"event":"fanfare:recover","data":{}}"#).await;
    for name in &names {
        slow.subscribe(name).await;
    }
    let mut api = server.api().await;
    let mut published = 0;
    while api.connections().await > 0 {
        for name in &names {
            api.trigger(name, "numbered", &format!("{published:0>1000}")).await;
        }
        published += 1;
        assert!(published < 1_000, "a reader that does not read is never closed");
    }
    let mut received = vec![Vec::new(); CHANNELS];
    let mut held = vec![None; CHANNELS];
    let mut take = |event: &Event, held: &mut Vec<Option<String>>| {
        let index = names.iter().position(|name| event.channel.as_ref() == Some(name)).expect("one of the channels");
        held[index] = Some(position(event));
        if event.name == "numbered" {
            received[index].push(event.data.parse::<usize>().expect("a number"));
        }
    };
    for frame in slow.rest().await.iter().filter(|frame| frame.opcode == 1) {
        take(&frame.event(), &mut held);
    }
    let mut client = server.connect().await;
    // The success frames were read when it subscribed: where nothing came behind them, it begins at the beginning.
    let from: Value =
        names.iter().zip(&held).filter_map(|(name, held)| Some((name.clone(), json!(held.clone()?)))).collect();
    assert_eq!(from.as_object().expect("an object").len(), CHANNELS, "each channel had an event");
    recover(&mut client, from, &[]).await;
    for name in &names {
        for event in subscribed(&mut client, name).await {
            if event.name == "pusher_internal:recovery" {
                assert_eq!(event.json()["recovered"], true, "{}", event.text);
            }
            take(&event, &mut held);
        }
    }
    for numbers in received {
        assert_eq!(numbers, (0..published).collect::<Vec<_>>());
    }
}

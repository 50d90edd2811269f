//! What one client does without end costs the others nothing.

use std::{fmt::Write as _, time::Duration};

use fanfare_tests::{Client, Event, Frame, Opcode, TestServer, deadline};
use futures_util::future::{join_all, select_all};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

const COUNT: &str = "pusher_internal:subscription_count";

fn subscribe(channel: &str) -> Frame {
    Frame::text(&json!({"event": "pusher:subscribe", "data": {"channel": channel}}).to_string())
}

fn unsubscribe(channel: &str) -> Frame {
    Frame::text(&json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}).to_string())
}

async fn subscribers(server: &TestServer, count: usize, channel: &str) -> Vec<Client> {
    let mut clients = server.connect_many(count).await;
    join_all(clients.iter_mut().map(|client| client.subscribe(channel))).await;
    clients
}

/// Each change is told to all subscribers; without a bound, one client's changes fill the outboxes of all the others.
#[tokio::test]
async fn endless_joining_and_leaving_does_not_close_other_subscribers() {
    let server = TestServer::builder().app(|app| app.subscription_count = true).start();
    let mut others = subscribers(&server, 20, "busy").await;
    let mut flooder = server.raw().await;
    let changes = [subscribe("busy").encode(), unsubscribe("busy").encode()].concat().repeat(20_000);

    let mut api = server.api().await;
    let watch = async {
        // More than its burst, so that what comes after that is looked at too.
        join_all(others.iter_mut().map(async |other| {
            for _ in 0..3_000 {
                other.until(|event| event.name == COUNT).await;
            }
            other.settled().await;
        }))
        .await;
        let begin = Instant::now();
        api.trigger("busy", "news", "1").await;
        join_all(others.iter_mut().map(|other| other.until(|event| event.is("news", "busy")))).await;
        assert!(begin.elapsed() < Duration::from_secs(5), "the event took {:?}", begin.elapsed());
    };
    tokio::select! {
        biased;
        () = watch => {}
        () = flooder.flood(&changes) => panic!("the flooder is slowed down, not closed"),
    }
    drop(flooder);
    join_all(others.iter_mut().map(Client::settled)).await;
}

/// Sends a request as it is, and returns all the server sends until it closes the connection.
async fn answer_and_end(server: &TestServer, request: &str) -> String {
    let mut socket = TcpStream::connect(server.address()).await.expect("a connection");
    socket.write_all(request.as_bytes()).await.expect("a live connection");
    let mut answer = String::new();
    let read = deadline("the server answers and closes", socket.read_to_string(&mut answer)).await;
    assert!(read.is_ok() || !answer.is_empty(), "{read:?}");
    answer
}

#[tokio::test]
async fn a_body_that_never_ends_is_answered_with_408() {
    let server = TestServer::builder().config(|config| config.server.request_timeout = Duration::from_secs(1)).start();
    let half = "x".repeat(500);
    let request = format!("POST /apps/app-id/events HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{half}");
    let answer = answer_and_end(&server, &request).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    // Others are served as before.
    server.api().await.trigger("news", "event", "1").await;
}

#[tokio::test]
async fn a_large_body_for_nobody_is_not_waited_for() {
    let server = TestServer::start();
    let targets = ["POST /nowhere", "POST /apps/nobody/events", "PUT /apps/nobody/nothing"];
    for target in targets {
        let request = format!("{target} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 * 1024 + 1);
        let answer = answer_and_end(&server, &request).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{target}: {answer}");
    }
    // A small one is read, and its connection kept.
    let mut api = server.api().await;
    assert_eq!(api.request("POST", "/nowhere", &"x".repeat(64 * 1024)).await.status, 404);
    api.trigger("news", "event", "1").await;
}

/// A worker whose inbox is never empty still serves its other tasks.
#[tokio::test]
async fn one_worker_that_is_kept_busy_still_answers_pings() {
    // Of two workers, which take connections in turns, one has the subscribers and the other those who publish to them.
    let server = TestServer::builder()
        .config(|config| {
            config.server.workers = 2;
            // Nobody is to be closed for a test process that reads slowly.
            config.server.max_outbox_bytes = 256 * 1024 * 1024;
        })
        .start();
    // Each publication is a lot of work for the subscribers' worker, although it writes to a few connections only.
    let channels: Vec<_> = (0..100).map(|number| format!("busy-{number}")).collect();
    let trigger = json!({"name": "event", "channels": channels, "data": "1"}).to_string();
    let (mut readers, mut publishers) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let mut reader = server.raw().await;
        for channel in &channels {
            reader.subscribe(channel).await;
        }
        readers.push(reader);
        publishers.push(server.api().await);
    }
    // One on each worker.
    let mut pingers = [server.raw().await, server.raw().await];

    let publish = select_all(publishers.iter_mut().take(4).map(|api| {
        Box::pin(async {
            loop {
                assert_eq!(api.post("/events", &trigger).await.status, 200);
            }
        })
    }));
    let read = join_all(readers.iter_mut().map(|reader| reader.flood(&[])));
    // Pings of WebSocket: only the reading of them has to wait for others, and not their answers for what waits in the inbox.
    let ping = join_all(pingers.iter_mut().map(async |pinger| {
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..15 {
            ticks.tick().await;
            pinger.send(&Frame::new(Opcode::Ping, [number])).await;
            let pong = timeout(Duration::from_secs(1), pinger.next()).await;
            let pong = pong.unwrap_or_else(|_| panic!("no answer to ping {number} within a second"));
            assert_eq!((pong.opcode, pong.payload), (Opcode::Pong as u8, vec![number]));
        }
    }));
    tokio::select! {
        biased;
        _ = ping => {}
        (never, ..) = publish => never,
        _ = read => panic!("the readers' connections ended"),
    }
}

fn count(event: &Event) -> u64 {
    event.json()["subscription_count"].as_u64().expect("a number")
}

#[tokio::test]
async fn counts_above_a_hundred_are_announced_once() {
    let server = TestServer::builder().app(|app| app.subscription_count = true).start();
    let mut clients = subscribers(&server, 101, "large").await;
    let mut toggling = clients.pop().expect("a client");
    let reader = &mut clients[0];
    reader.settled().await;
    for _ in 0..10 {
        toggling.unsubscribe("large").await;
        toggling.settled().await;
        toggling.subscribe("large").await;
    }
    toggling.settled().await;
    reader.settled().await;
    // Announcements at intervals of five seconds: all that are still to come of these changes.
    let end = Instant::now() + Duration::from_secs(6);
    let mut counts = Vec::new();
    while let Ok(event) = timeout_at(end, reader.next_event()).await {
        assert!(event.is(COUNT, "large"), "{event:?}");
        counts.push(count(&event));
    }
    assert!((1..=2).contains(&counts.len()), "{counts:?}");
    assert_eq!(counts.last(), Some(&101), "{counts:?}");
}

#[tokio::test]
async fn the_app_has_a_bound_on_channels() {
    let server = TestServer::builder().app(|app| app.max_channels = 3).start();
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    for channel in ["one", "two"] {
        first.subscribe(channel).await;
    }
    second.subscribe("three").await;

    for client in [&mut first, &mut second] {
        client.begin_subscribe(json!({"channel": "four"})).await;
        let (before, refused) = client.until(|event| event.name == "pusher:subscription_error").await;
        assert!(before.iter().all(|event| event.name == "pusher:error"), "{before:?}");
        assert_eq!(refused.channel.as_deref(), Some("four"));
        assert_eq!(refused.json()["type"], "LimitReached", "{refused:?}");
    }
    // The refused channel is not there, and a publication to it needs none.
    let mut api = server.api().await;
    let channels = api.get("/channels", &[]).await.json();
    assert_eq!(channels["channels"].as_object().map(serde_json::Map::len), Some(3), "{channels}");
    api.trigger("four", "event", "1").await;

    // One that exists takes more subscribers.
    second.subscribe("one").await;
    // The bound counts channels, not subscriptions: this one still has a subscriber.
    first.unsubscribe("one").await;
    first.begin_subscribe(json!({"channel": "four"})).await;
    let (_, refused) = first.until(|event| event.name == "pusher:subscription_error").await;
    assert_eq!(refused.json()["type"], "LimitReached", "{refused:?}");
    // Now it has none.
    second.unsubscribe("one").await;
    second.subscribe("four").await;
    api.trigger("four", "event", "1").await;
    assert_eq!(second.next_event().await.name, "event");
}

#[tokio::test]
async fn signing_in_again_as_the_same_user_brings_a_new_watchlist() {
    const WATCHLIST: &str = "pusher_internal:watchlist_events";
    let server = TestServer::start();
    let mut ada = server.connect().await;
    assert_eq!(ada.sign_in(r#"{"id":"ada","watchlist":["bob"]}"#).await.name, "pusher:signin_success");
    ada.settled().await;
    assert_eq!(ada.sign_in(r#"{"id":"ada","watchlist":["carol"]}"#).await.name, "pusher:signin_success");
    let snapshot = ada.settled().await;
    let text = snapshot.iter().fold(String::new(), |mut text, event| {
        let _ = write!(text, "{}", event.text);
        text
    });
    assert!(text.contains("carol") && !text.contains("bob"), "{text}");

    let mut bob = server.connect().await;
    assert_eq!(bob.sign_in(r#"{"id":"bob"}"#).await.name, "pusher:signin_success");
    bob.settled().await;
    let mut carol = server.connect().await;
    assert_eq!(carol.sign_in(r#"{"id":"carol"}"#).await.name, "pusher:signin_success");
    let event = ada.next_event().await;
    assert_eq!(event.name, WATCHLIST);
    assert_eq!(event.json(), json!({"events": [{"name": "online", "user_ids": ["carol"]}]}), "bob is watched no more");
    bob.close().await;
    carol.close().await;
    let event = ada.next_event().await;
    assert_eq!(event.json(), json!({"events": [{"name": "offline", "user_ids": ["carol"]}]}), "bob is watched no more");
}

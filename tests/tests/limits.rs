//! Limits hold exactly, and nothing is lost where one is reached.

use std::time::Duration;

use fanfare_tests::{Api, Client, Frame, TestServer, eventually};
use futures_util::future::join_all;
use serde_json::json;

#[tokio::test]
async fn a_connection_has_no_more_channels_than_allowed() {
    let server = TestServer::builder().app(|app| app.max_channels_per_connection = 3).start();
    let mut client = server.connect().await;
    for channel in ["a", "b", "c"] {
        client.subscribe(channel).await;
    }
    client.begin_subscribe(json!({"channel": "d"})).await;
    let events = client.settled().await;
    let names: Vec<_> = events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["pusher:error", "pusher:subscription_error"]);
    assert_eq!(events[0].code(), None);
    assert!(events[0].data.contains("max_channels_per_connection"), "{events:?}");
    assert_eq!((events[1].channel.as_deref(), &events[1].json()["status"]), (Some("d"), &json!(403)));
    client.unsubscribe("b").await;
    client.subscribe("d").await;
    let mut api = server.api().await;
    // Several nodes have it from Redis, a moment later.
    let occupied = async || {
        let [b, d] = ["/channels/b", "/channels/d"];
        [api.get(b, &[]).await.json(), api.get(d, &[]).await.json()]
    };
    let expected = [json!({"occupied": false}), json!({"occupied": true})];
    eventually("it has left one and is in the other", occupied, |occupied| *occupied == expected).await;
}

/// What is refused costs nothing that stays, however often it is asked for.
#[tokio::test]
async fn a_hundred_thousand_subscriptions_are_answered_and_end_at_the_limit() {
    const ATTEMPTS: usize = 100_000;
    const BATCH: usize = 500;
    const LIMIT: usize = 1000;
    let server = TestServer::builder().app(|app| app.max_channels_per_connection = LIMIT).start();
    let mut client = server.raw().await;
    let is = |frame: &Frame, name: &str| frame.payload.starts_with(format!(r#"{{"event":"{name}""#).as_bytes());
    let (mut succeeded, mut refused) = (0, 0);
    for batch in 0..ATTEMPTS / BATCH {
        let mut bytes = Vec::new();
        for number in 0..BATCH {
            let channel = format!("news-{}", batch * BATCH + number);
            let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
            bytes.extend(Frame::text(&text).encode());
        }
        bytes.extend(Frame::text(r#"{"event":"pusher:ping"}"#).encode());
        client.send_bytes(&bytes).await;
        loop {
            let frame = client.next().await;
            if is(&frame, "pusher:pong") {
                break;
            }
            succeeded += usize::from(is(&frame, "pusher_internal:subscription_succeeded"));
            refused += usize::from(is(&frame, "pusher:subscription_error"));
        }
    }
    assert_eq!((succeeded, refused), (LIMIT, ATTEMPTS - LIMIT));
    let mut api = server.api().await;
    let count = async |api: &mut Api| {
        let answer = api.get("/channels", &[]).await.json();
        answer["channels"].as_object().expect("an object").len()
    };
    assert_eq!(count(&mut api).await, LIMIT);
    drop(client);
    eventually("it is counted out", async || api.connections().await, |count| *count == 0).await;
    eventually("its channels are gone", async || count(&mut api).await, |count| *count == 0).await;
}

#[tokio::test]
async fn exactly_as_many_connections_as_allowed_get_in_at_once() {
    const LIMIT: usize = 10;
    let server = TestServer::builder().app(|app| app.max_connections = LIMIT).start();
    let mut api = server.api().await;
    for _ in 0..3 {
        let path = server.path();
        let results = join_all((0..50).map(|_| server.try_connect(&path))).await;
        let mut admitted = Vec::new();
        for result in results {
            match result {
                Ok(client) => admitted.push(client),
                Err(ended) => {
                    assert_eq!(ended.code, Some(4004));
                    assert_eq!(ended.reason, "Application is over connection quota");
                    assert_eq!(ended.events[0].code(), Some(4004));
                }
            }
        }
        assert_eq!(admitted.len(), LIMIT);
        assert_eq!(api.connections().await, LIMIT as u64, "refused connections count");
        // One leaves, one may come.
        admitted.pop().expect("a client").close().await;
        eventually("one is counted out", async || api.connections().await, |count| *count == 9).await;
        admitted.push(server.connect().await);
        assert!(server.try_connect(&path).await.is_err());
        join_all(admitted.into_iter().map(Client::close)).await;
        eventually("all are counted out", async || api.connections().await, |count| *count == 0).await;
    }
}

#[tokio::test]
async fn a_full_presence_channel_takes_no_new_user_but_any_tab_of_its_users() {
    const ROOM: &str = "presence-room";
    let server = TestServer::builder().app(|app| app.max_presence_members = 2).start();
    let mut clients = server.connect_many(5).await;
    let [ada, bob, ada_again, eve, carol] = &mut clients[..] else { unreachable!("five clients") };
    ada.join(ROOM, "ada").await;
    bob.join(ROOM, "bob").await;
    assert_eq!(ada_again.join(ROOM, "ada").await.members(), ["ada", "bob"]);

    let data = eve.subscription(ROOM, Some(r#"{"user_id":"eve"}"#));
    eve.begin_subscribe(data).await;
    let events = eve.settled().await;
    let names: Vec<_> = events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["pusher:error", "pusher:subscription_error"]);
    assert_eq!(events[1].json()["status"], 403);
    let mut api = server.api().await;
    assert_eq!(api.users(ROOM).await, ["ada", "bob"]);
    // The refused one is told nothing of the channel, and the members nothing of the refused one.
    api.trigger(ROOM, "hello", "").await;
    assert_eq!(eve.settled().await, []);
    let names: Vec<_> = ada.settled().await.into_iter().map(|event| event.name).collect();
    assert_eq!(names, ["pusher_internal:member_added", "hello"]);

    bob.unsubscribe(ROOM).await;
    bob.settled().await;
    assert_eq!(carol.join(ROOM, "carol").await.members(), ["ada", "carol"]);
}

/// As ten thousand members are to the default bound: the list alone is larger, and other frames follow at once.
#[tokio::test]
async fn a_list_of_members_may_be_larger_than_the_outbox_and_have_more_behind_it() {
    const CROWD: &str = "presence-cache-crowd";
    let builder = TestServer::builder().config(|config| config.server.max_outbox_bytes = 8 * 1024);
    let server = builder.start();
    server.api().await.trigger(CROWD, "cached", "").await;
    let mut members = server.connect_many(50).await;
    for (number, member) in members.iter_mut().enumerate() {
        let user = json!({"user_id": number.to_string(), "user_info": "x".repeat(900)});
        let data = member.subscription(CROWD, Some(&user.to_string()));
        member.begin_subscribe(data).await;
        assert_eq!(member.next_event().await.members().len(), number + 1);
        assert_eq!(member.next_event().await.name, "cached");
    }
    for (number, member) in members.iter_mut().enumerate() {
        let added = member.settled().await;
        assert_eq!(added.len(), 49 - number, "{added:?}");
    }
}

/// Publishers wait for busy workers: whatever was accepted arrives, and what was refused was not published.
#[tokio::test]
async fn a_tiny_inbox_delivers_whatever_was_accepted_and_nothing_else() {
    for publish_timeout in [Duration::from_secs(5), Duration::from_millis(1)] {
        let builder = TestServer::builder().config(|config| {
            config.server.max_inbox_bytes = 1024;
            config.server.publish_timeout = publish_timeout;
        });
        let server = builder.start();
        let mut clients = server.connect_many(100).await;
        join_all(clients.iter_mut().map(|client| client.subscribe("news"))).await;
        let publishers = join_all((0..8).map(|publisher| {
            let server = &server;
            async move {
                let mut api = server.api().await;
                let mut accepted = Vec::new();
                for number in 0..50 {
                    let data = format!("{publisher}:{number}:{:512}", "");
                    let body = json!({"name": "padded", "channel": "news", "data": data});
                    let answer = api.post("/events", &body.to_string()).await;
                    match answer.status {
                        200 => accepted.push(data),
                        503 => assert!(answer.headers.contains("retry-after: 1"), "{answer:?}"),
                        _ => panic!("{answer:?}"),
                    }
                }
                accepted
            }
        }));
        let accepted: Vec<Vec<String>> = publishers.await;
        let total = accepted.iter().map(Vec::len).sum::<usize>();
        println!("accepted: {total}");
        if publish_timeout > Duration::from_secs(1) {
            assert_eq!(total, 400, "a worker that works on makes room in time");
        }
        for client in &mut clients {
            let received: Vec<_> = client.settled().await.into_iter().map(|event| event.data).collect();
            assert_eq!(received.len(), total);
            for (publisher, accepted) in accepted.iter().enumerate() {
                let prefix = format!("{publisher}:");
                let received: Vec<_> = received.iter().filter(|data| data.starts_with(&prefix)).collect();
                assert_eq!(received, accepted.iter().collect::<Vec<_>>());
            }
        }
    }
}

/// Client events obey the same bound: the sender is not read from for a while, and nothing is lost.
#[tokio::test]
async fn a_tiny_inbox_slows_senders_of_client_events_and_loses_nothing() {
    const ROOM: &str = "private-room";
    let builder = TestServer::builder()
        .config(|config| config.server.max_inbox_bytes = 2048)
        .app(|app| app.max_client_events_per_second = 0);
    let server = builder.start();
    let mut clients = server.connect_many(12).await;
    join_all(clients.iter_mut().map(|client| client.subscribe(ROOM))).await;
    let (senders, readers) = clients.split_at_mut(3);
    let send = join_all(senders.iter_mut().enumerate().map(async |(sender, client)| {
        for number in 0..100 {
            client.send_event(ROOM, "client-padded", json!(format!("{sender}:{number}:{:512}", ""))).await;
        }
    }));
    let read = join_all(readers.iter_mut().map(async |client| {
        let mut next = [0; 3];
        for _ in 0..300 {
            let event = client.next_event().await;
            let mut parts = event.data.split(':').map(|part| part.trim().parse::<usize>().unwrap_or(0));
            let (sender, number) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
            assert_eq!(number, next[sender]);
            next[sender] += 1;
        }
    }));
    tokio::join!(send, read);
}

#[tokio::test]
async fn client_events_over_the_rate_are_answered_with_4301_and_not_relayed() {
    let server = TestServer::builder().app(|app| app.max_client_events_per_second = 5).start();
    let (mut sender, mut reader) = (server.connect().await, server.connect().await);
    sender.subscribe("private-room").await;
    reader.subscribe("private-room").await;
    for number in 0..50 {
        sender.send_event("private-room", "client-x", json!(number)).await;
    }
    let errors = sender.settled().await;
    assert!(errors.iter().all(|error| error.code() == Some(4301)), "{errors:?}");
    let received = reader.settled().await;
    assert_eq!(received.len() + errors.len(), 50);
    assert!((5..50).contains(&received.len()), "{}", received.len());
}

#[tokio::test]
async fn the_data_of_an_event_may_have_its_limit_and_no_byte_more() {
    let server = TestServer::builder().app(|app| app.max_event_bytes = 100).start();
    let mut client = server.connect().await;
    client.subscribe("news").await;
    let mut api = server.api().await;
    let body = |length: usize| json!({"name": "e", "channel": "news", "data": "é".repeat(length / 2)}).to_string();
    assert_eq!(api.post("/events", &body(100)).await.status, 200);
    assert_eq!(api.post("/events", &body(102)).await.status, 413);
    // One bad event of a batch, and none is published.
    let event = |length: usize| json!({"name": "e", "channel": "news", "data": "x".repeat(length)});
    let batch = json!({"batch": [event(1), event(101), event(2)]}).to_string();
    assert_eq!(api.post("/batch_events", &batch).await.status, 413);
    assert_eq!(client.settled().await.len(), 1);
}

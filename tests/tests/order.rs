//! What is published on a channel arrives in one order, whole, at everybody.

use std::{cell::Cell, collections::BTreeMap};

use fanfare_tests::{Client, Event, Frame, TestServer};
use futures_util::future::join_all;
use serde_json::json;

const PUBLISHERS: usize = 4;
const EVENTS: usize = 100;

/// Publishes `count` events whose data is `publisher:number`.
async fn publish(server: &TestServer, channel: &str, publisher: usize, count: usize) {
    let mut api = server.api().await;
    for number in 0..count {
        api.trigger(channel, "numbered", &format!("{publisher}:{number}")).await;
    }
}

async fn receive(client: &mut Client, count: usize) -> Vec<String> {
    let mut received = Vec::with_capacity(count);
    for _ in 0..count {
        received.push(client.next_event().await.data);
    }
    received
}

fn numbers_of(sequence: &[String], publisher: usize) -> Vec<usize> {
    let prefix = format!("{publisher}:");
    sequence.iter().filter_map(|data| data.strip_prefix(&prefix)).map(|number| number.parse().unwrap_or(99)).collect()
}

#[tokio::test]
async fn all_subscribers_see_one_sequence_with_each_publishers_order() {
    let server = TestServer::start();
    let mut clients = server.connect_many(60).await;
    join_all(clients.iter_mut().map(|client| client.subscribe("news"))).await;

    let publishers = join_all((0..PUBLISHERS).map(|publisher| publish(&server, "news", publisher, EVENTS)));
    let readers = join_all(clients.iter_mut().map(|client| receive(client, PUBLISHERS * EVENTS)));
    let (_, sequences) = tokio::join!(publishers, readers);

    for publisher in 0..PUBLISHERS {
        assert_eq!(numbers_of(&sequences[0], publisher), (0..EVENTS).collect::<Vec<_>>());
    }
    for (client, sequence) in clients.iter_mut().zip(&sequences) {
        assert_eq!(sequence, &sequences[0], "two subscribers saw different sequences");
        assert_eq!(client.settled().await, [], "something arrived twice");
    }
}

/// Clients and triggers publish on one channel. Who sends sees the same sequence, without what it sent itself.
#[tokio::test]
async fn client_events_and_triggers_are_one_sequence() {
    const CHANNEL: &str = "private-news";
    const SENDERS: usize = 3;
    let server = TestServer::builder().app(|app| app.max_client_events_per_second = 0).start();
    let mut clients = server.connect_many(12).await;
    join_all(clients.iter_mut().map(|client| client.subscribe(CHANNEL))).await;
    let (senders, readers) = clients.split_at_mut(SENDERS);
    let send = join_all(senders.iter_mut().enumerate().map(async |(sender, client)| {
        for number in 0..EVENTS {
            client.send_event(CHANNEL, "client-numbered", json!(format!("{sender}:{number}"))).await;
        }
    }));
    let publish = join_all((SENDERS..SENDERS + 2).map(|publisher| publish(&server, CHANNEL, publisher, EVENTS)));
    let read = join_all(readers.iter_mut().map(|client| receive(client, (SENDERS + 2) * EVENTS)));
    let (_, _, sequences) = tokio::join!(send, publish, read);

    for publisher in 0..SENDERS + 2 {
        assert_eq!(numbers_of(&sequences[0], publisher), (0..EVENTS).collect::<Vec<_>>());
    }
    for (reader, sequence) in readers.iter_mut().zip(&sequences) {
        assert_eq!(sequence, &sequences[0], "two subscribers saw different sequences");
        assert_eq!(reader.settled().await, [], "something arrived twice");
    }
    for (sender, client) in senders.iter_mut().enumerate() {
        let own = format!("{sender}:");
        let others: Vec<_> = sequences[0].iter().filter(|data| !data.starts_with(&own)).cloned().collect();
        let received: Vec<_> = client.settled().await.into_iter().map(|event| event.data).collect();
        assert_eq!(received, others, "sender {sender}");
    }
}

/// A trigger of many channels is many events, each in the order of its own channel.
#[tokio::test]
async fn triggers_of_many_channels_keep_the_order_of_each() {
    const CHANNELS: usize = 10;
    const TRIGGERS: usize = 40;
    let server = TestServer::start();
    let names: Vec<_> = (0..CHANNELS).map(|number| format!("news-{number}")).collect();
    let mut clients = server.connect_many(6).await;
    for client in &mut clients {
        for name in &names {
            client.subscribe(name).await;
        }
    }
    let publishers = join_all((0..PUBLISHERS).map(async |publisher| {
        let mut api = server.api().await;
        for number in 0..TRIGGERS {
            let body = json!({"name": "numbered", "channels": names, "data": format!("{publisher}:{number}")});
            assert_eq!(api.post("/events", &body.to_string()).await.status, 200);
        }
    }));
    let readers = join_all(clients.iter_mut().map(async |client| {
        let mut sequences = BTreeMap::<_, Vec<String>>::new();
        for _ in 0..PUBLISHERS * TRIGGERS * CHANNELS {
            let event = client.next_event().await;
            sequences.entry(event.channel.expect("a channel")).or_default().push(event.data);
        }
        sequences
    }));
    let (_, received) = tokio::join!(publishers, readers);
    for sequences in &received {
        assert_eq!(sequences, &received[0], "two subscribers saw different sequences");
    }
    for sequence in received[0].values() {
        for publisher in 0..PUBLISHERS {
            assert_eq!(numbers_of(sequence, publisher), (0..TRIGGERS).collect::<Vec<_>>());
        }
    }
}

/// What a cache channel replays is the event before the first live one: nothing is missing in between, nothing comes twice.
#[tokio::test]
async fn a_replayed_event_is_followed_by_the_next_one() {
    const LAST: usize = 500;
    let server = TestServer::start();
    let mut api = server.api().await;
    api.trigger("cache-news", "numbered", "0").await;
    let publisher = async {
        for number in 1..=LAST {
            api.trigger("cache-news", "numbered", &number.to_string()).await;
        }
    };
    let mut clients = server.connect_many(8).await;
    let subscribers = join_all(clients.iter_mut().map(async |client| {
        let (mut replayed, mut live) = (0, 0);
        while replayed < LAST {
            client.subscribe("cache-news").await;
            let mut run = client.settled().await;
            client.unsubscribe("cache-news").await;
            run.extend(client.settled().await);
            let numbers: Vec<usize> = run.iter().map(|event| event.data.parse().expect("a number")).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "not contiguous: {numbers:?}");
            let first = *numbers.first().expect("a replayed event");
            assert!(first >= replayed, "{first} was replayed after {replayed}");
            replayed = first;
            live += numbers.len() - 1;
        }
        live
    }));
    let ((), live) = tokio::join!(publisher, subscribers);
    assert!(live.iter().sum::<usize>() > 0, "no replay was followed by anything");
}

#[tokio::test]
async fn a_subscription_is_one_contiguous_run_of_the_channel() {
    const ROUNDS: usize = 40;
    let server = TestServer::start();
    let mut witness = server.connect().await;
    witness.subscribe("news").await;
    let mut clients = server.connect_many(12).await;

    // Publishes for as long as anybody comes and goes.
    let done = Cell::new(false);
    let publisher = async {
        let mut api = server.api().await;
        let mut number = 0;
        while !done.get() {
            api.trigger("news", "numbered", &format!("0:{number}")).await;
            number += 1;
        }
        number
    };
    let subscribers = join_all(clients.iter_mut().map(async |client| {
        for round in 0..ROUNDS {
            client.subscribe("news").await;
            // Some leave before anything came, some after a few events.
            let wanted = round % 3;
            let mut run = Vec::new();
            while run.len() < wanted {
                run.push(client.next_event().await);
            }
            client.unsubscribe("news").await;
            // The pong comes after everything that was decided before the server read the unsubscribe.
            run.extend(client.settled().await);
            assert_eq!(client.settled().await, [], "an event after pusher:unsubscribe");
            let numbers: Vec<_> = run.iter().map(|event| event.data.clone()).collect();
            let numbers = numbers_of(&numbers, 0);
            assert_eq!(numbers.len(), run.len(), "{run:?}");
            assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "not contiguous: {numbers:?}");
        }
    }));
    let subscribers = async {
        subscribers.await;
        done.set(true);
    };
    let (count, ()) = tokio::join!(publisher, subscribers);
    let expected: Vec<_> = (0..count).map(|number| format!("0:{number}")).collect();
    assert_eq!(receive(&mut witness, count).await, expected);
}

#[tokio::test]
async fn subscribe_and_unsubscribe_in_one_burst_are_taken_in_order() {
    let server = TestServer::start();
    let mut witness = server.connect().await;
    witness.subscribe("news").await;
    let mut client = server.connect().await;
    let rounds = async {
        for _ in 0..100 {
            for _ in 0..5 {
                client.begin_subscribe(json!({"channel": "news"})).await;
                client.unsubscribe("news").await;
            }
            let events = client.settled().await;
            let errors: Vec<&Event> = events.iter().filter(|event| event.name == "pusher:error").collect();
            assert!(errors.is_empty(), "{errors:?}");
            let answers = events.iter().filter(|event| event.name == "pusher_internal:subscription_succeeded");
            assert_eq!(answers.count(), 5);
            assert_ne!(events[0].name, "numbered", "an event before subscription_succeeded");
        }
    };
    tokio::join!(publish(&server, "news", 0, 300), rounds);
    assert_eq!(receive(&mut witness, 300).await.len(), 300);
}

/// A client may say goodbye in the same segment as its unsubscribe: whoever comes next must not inherit anything.
#[tokio::test]
async fn leaving_a_channel_and_the_server_in_one_segment_harms_nobody() {
    let server = TestServer::builder().config(|config| config.server.workers = 1).start();
    let mut witness = server.connect().await;
    witness.subscribe("news").await;
    let mut api = server.api().await;
    for round in 0..20 {
        let mut leaver = server.raw().await;
        leaver.subscribe("news").await;
        let unsubscribe = Frame::text(r#"{"event":"pusher:unsubscribe","data":{"channel":"news"}}"#);
        let bytes = [unsubscribe.encode(), Frame::close(1000, "").encode()].concat();
        leaver.send_bytes(&bytes).await;
        leaver.rest().await;
        // It may get the place that the leaver had; without it, the place is empty.
        let mut stranger = if round % 2 == 0 { Some(server.connect().await) } else { None };
        api.trigger("news", "numbered", &round.to_string()).await;
        assert_eq!(witness.next_event().await.data, round.to_string());
        if let Some(stranger) = &mut stranger {
            assert_eq!(stranger.settled().await, [], "an event of a channel it never subscribed to");
        }
    }
}

//! What is published on a channel arrives in one order, whole, at everybody.

use std::cell::Cell;

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

//! A client that does not read costs itself its connection, and nobody else anything.

use fanfare_tests::{Frame, RawClient, TestServer, eventually, resident_megabytes};
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::watch;

const READERS: usize = 80;
const STALLED: usize = 20;

fn server() -> TestServer {
    TestServer::builder().config(|config| config.server.max_outbox_bytes = 128 * 1024).start()
}

fn padded(number: usize) -> String {
    format!("{number:0>1024}")
}

async fn stalled(server: &TestServer) -> RawClient {
    let mut client = server.raw().await;
    client.subscribe("news").await;
    client
}

#[tokio::test]
async fn stalled_readers_are_closed_and_the_others_get_everything_in_order() {
    let server = server();
    let mut readers = server.connect_many(READERS).await;
    join_all(readers.iter_mut().map(|reader| reader.subscribe("news"))).await;
    let stalled = join_all((0..STALLED).map(|_| stalled(&server))).await;
    let mut api = server.api().await;
    assert_eq!(api.connections().await, (READERS + STALLED) as u64);

    let (published, last) = watch::channel(None);
    let publish = async {
        let mut number = 0;
        while api.connections().await > READERS as u64 {
            assert!(number < 20_000, "stalled readers are never closed");
            // A few at a time: readers that keep up have to be able to.
            for _ in 0..10 {
                api.trigger("news", "padded", &padded(number)).await;
                number += 1;
            }
            tokio::task::yield_now().await;
        }
        api.trigger("news", "last", "").await;
        published.send_replace(Some(number));
    };
    let read = join_all(readers.iter_mut().map(async |reader| {
        let mut number = 0;
        loop {
            let event = reader.next_event().await;
            if event.name == "last" {
                return number;
            }
            assert!(event.data == padded(number), "event {number} is missing; got {}", event.data);
            number += 1;
        }
    }));
    let ((), counts) = tokio::join!(publish, read);
    let number = last.borrow().expect("a number");
    assert!(counts.iter().all(|count| *count == number), "{counts:?} of {number}");

    // Each stalled client that reads at last finds what it got without gaps, and then the end of its socket.
    for mut client in stalled {
        let mut expected = 0;
        for frame in client.rest().await {
            match frame.opcode {
                1 => {
                    assert!(frame.event().data == padded(expected), "a gap before the end");
                    expected += 1;
                }
                8 => assert_eq!(frame.close_code().0, 4100),
                other => panic!("an unexpected frame {other}"),
            }
        }
        assert!(expected < number);
    }
    let connections =
        eventually("stalled ones are counted out", async || api.connections().await, |count| *count <= 80);
    assert_eq!(connections.await, READERS as u64);
}

/// Whoever reads slowly, but reads, within the bound of its outbox stays.
#[tokio::test]
async fn a_burst_within_the_outbox_costs_nobody_the_connection() {
    let server = TestServer::builder().config(|config| config.server.max_outbox_bytes = 1024 * 1024).start();
    let mut client = stalled(&server).await;
    let mut api = server.api().await;
    for number in 0..500 {
        api.trigger("news", "padded", &padded(number)).await;
    }
    for number in 0..500 {
        assert!(client.next_event().await.data == padded(number));
    }
}

/// Always so many events behind that a part of them waits in the server: the bound is about what waits, not about time.
#[tokio::test]
async fn a_reader_that_lags_behind_but_keeps_up_stays() {
    const LAG: usize = 150;
    const EVENTS: usize = 1000;
    let server = TestServer::builder().config(|config| config.server.max_outbox_bytes = 256 * 1024).start();
    let mut client = stalled(&server).await;
    let mut api = server.api().await;
    for number in 0..EVENTS + LAG {
        if number < EVENTS {
            api.trigger("news", "padded", &padded(number)).await;
        }
        if let Some(due) = number.checked_sub(LAG) {
            assert!(client.next_in_bites(300).await.event().data == padded(due));
        }
    }
}

/// Each has channels of its own, so that what waits for one shares no memory with what waits for another.
#[tokio::test]
async fn what_waits_for_stalled_readers_is_bounded() {
    const TRIGGERS: usize = 150;
    let server = server();
    let channels: Vec<_> = (0..100).map(|number| format!("news-{number}")).collect();
    let mut clients = Vec::new();
    for channels in channels.chunks(100 / STALLED) {
        let mut client = server.raw().await;
        for channel in channels {
            client.subscribe(channel).await;
        }
        clients.push(client);
    }
    let mut api = server.api().await;
    let body = json!({"name": "padded", "channels": channels, "data": "x".repeat(10_000)}).to_string();
    let before = resident_megabytes();
    let mut most = before;
    for _ in 0..TRIGGERS {
        assert_eq!(api.post("/events", &body).await.status, 200);
        most = most.max(resident_megabytes());
    }
    println!("{TRIGGERS} MB were published; memory grew from {before} to {most} MB");
    assert!(most - before < 60, "{STALLED} stalled readers cost {} MB", most - before);
    eventually("they are closed", async || api.connections().await, |count| *count == 0).await;
    assert_eq!(api.get("/channels", &[]).await.json(), json!({"channels": {}}));
}

/// Answers wait like events do.
#[tokio::test]
async fn a_client_that_asks_and_does_not_read_the_answers_is_closed() {
    let server = server();
    let mut api = server.api().await;
    let ping = Frame::text(r#"{"event":"pusher:ping","data":{}}"#).encode();
    let mut client = server.raw().await;
    while client.try_send_bytes(&ping.repeat(100)).await.is_ok() {}
    eventually("it is closed", async || api.connections().await, |count| *count == 0).await;
}

/// What is left of a stalled client is given up after a while, so that its socket is not kept for ever.
#[tokio::test]
async fn the_socket_of_a_stalled_client_ends_although_it_never_reads() {
    let server = server();
    let client = stalled(&server).await;
    let mut api = server.api().await;
    let mut number = 0;
    while api.connections().await > 0 {
        api.trigger("news", "padded", &padded(number)).await;
        number += 1;
        assert!(number < 20_000, "the stalled client is never closed");
    }
    client.forgotten().await;
}

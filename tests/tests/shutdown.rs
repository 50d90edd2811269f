//! A server that stops sends everybody to reconnect, lets nobody in, and ends.

use std::time::Duration;

use fanfare_tests::{TestServer, WebhookReceiver, deadline, eventually};
use futures_util::future::join_all;
use tokio::time::Instant;

#[tokio::test]
async fn a_draining_server_says_so_refuses_newcomers_and_sends_everybody_away() {
    let builder = TestServer::builder().config(|config| {
        config.server.workers = 2;
        // Time enough to look at it while it drains.
        config.server.shutdown_grace = Duration::from_secs(3);
    });
    let mut server = builder.start();
    let mut clients = server.connect_many(20).await;
    join_all(clients.iter_mut().map(|client| client.subscribe("news"))).await;
    let mut probe = server.api().await;
    let up = probe.request("GET", "/up", "").await;
    assert_eq!((up.status, &*up.body), (200, r#"{"health":"OK"}"#));

    server.begin_shutdown();
    let path = server.path();
    let look = async {
        let health = async || probe.request("GET", "/up", "").await;
        eventually("/up says that it drains", health, |answer| answer.status == 503).await;
        let refused = server.try_connect(&path).await.expect_err("nobody is let in");
        assert_eq!(refused.code, Some(4100), "{refused:?}");
        assert_eq!(refused.events[0].code(), Some(4100), "{refused:?}");
        // Whoever is still here is still served.
        let mut api = server.api().await;
        api.trigger("news", "last", "words").await;
    };
    let ((), ended) = tokio::join!(look, join_all(clients.iter_mut().map(fanfare_tests::Client::ended)));
    for ended in &ended {
        assert_eq!(ended.code, Some(4200), "{ended:?}");
        assert_eq!(ended.reason, "Generic reconnect immediately");
    }
    assert!(ended.iter().any(|ended| ended.events.iter().any(|event| event.data == "words")));
    server.stopped().await;
}

/// Load balancers look every second or so: until they have, whoever comes is let in.
#[tokio::test]
async fn a_shutdown_is_told_before_it_begins() {
    let mut server =
        TestServer::builder().config(|config| config.server.shutdown_delay = Duration::from_secs(1)).start();
    let mut early = server.connect().await;
    let mut probe = server.api().await;
    server.begin_shutdown();
    let health = async || probe.request("GET", "/up", "").await;
    eventually("/up says that it will end", health, |answer| answer.status == 503).await;
    let mut late = server.connect().await;
    late.subscribe("news").await;
    let answer = probe.post("/events", r#"{"name": "hello", "channel": "news", "data": "world"}"#).await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers.to_lowercase().contains("connection: close"), "backends shall go elsewhere: {answer:?}");
    assert_eq!(late.next_event().await.data, "world");
    for client in [&mut early, &mut late] {
        assert_eq!(client.ended().await.code, Some(4200));
    }
    server.stopped().await;
}

/// All at once they would be a burst for the node that takes them.
#[tokio::test]
async fn goodbyes_are_spread_over_the_grace_period() {
    const GRACE: Duration = Duration::from_secs(2);
    let builder = TestServer::builder().config(|config| config.server.shutdown_grace = GRACE);
    let mut server = builder.start();
    let mut clients = server.connect_many(60).await;
    let start = Instant::now();
    server.begin_shutdown();
    let mut times = join_all(clients.iter_mut().map(async |client| {
        assert_eq!(client.ended().await.code, Some(4200));
        start.elapsed()
    }))
    .await;
    times.sort();
    println!("first {:?}, median {:?}, last {:?}", times[0], times[30], times[59]);
    let early = times.iter().filter(|time| **time < GRACE / 10).count();
    assert!(early < 30, "{early} of 60 were sent away in the first tenth");
    assert!(times[59] - times[0] > GRACE / 4, "all were sent away within {:?}", times[59] - times[0]);
    server.stopped().await;
}

/// What an application has to know of the end is delivered before it, without the delay for those who may come back.
#[tokio::test]
async fn webhooks_are_delivered_before_the_end() {
    let mut webhooks = WebhookReceiver::start();
    let builder = TestServer::builder().webhooks(&webhooks).config(|config| {
        config.server.shutdown_grace = Duration::from_secs(5);
        config.webhooks.vacated_delay = Duration::from_secs(60);
    });
    let mut server = builder.start();
    let mut client = server.connect().await;
    client.join("presence-room", "ada").await;
    let mut gone = server.connect().await;
    gone.subscribe("news").await;
    gone.close().await;
    server.begin_shutdown();
    assert_eq!(client.ended().await.code, Some(4200));
    server.stopped().await;
    let mut names = webhooks.names();
    names.sort();
    let expected = [
        "channel_occupied",
        "channel_occupied",
        "channel_vacated",
        "channel_vacated",
        "member_added",
        "member_removed",
    ];
    assert_eq!(names, expected);
}

/// The socket of a client that has stopped reading ends with the others.
#[tokio::test]
async fn a_stalled_reader_does_not_delay_the_end() {
    let mut server =
        TestServer::builder().config(|config| config.server.shutdown_grace = Duration::from_secs(1)).start();
    let mut stalled = server.raw().await;
    stalled.subscribe("news").await;
    let mut api = server.api().await;
    for _ in 0..40 {
        api.trigger("news", "padded", &"x".repeat(10_000)).await;
    }
    drop(api);
    let start = Instant::now();
    server.begin_shutdown();
    server.stopped().await;
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(5), "it took {elapsed:?}");
    deadline("the socket ends", stalled.rest()).await;
}

#[tokio::test]
async fn an_idle_server_ends_at_once() {
    let mut server =
        TestServer::builder().config(|config| config.server.shutdown_grace = Duration::from_secs(30)).start();
    let mut api = server.api().await;
    api.trigger("news", "hello", "").await;
    drop(api);
    server.begin_shutdown();
    server.stopped().await;
}

/// Clients that do not read, do not close or are half-way through something cannot hold it up.
#[tokio::test]
async fn clients_that_do_nothing_do_not_delay_the_end_beyond_the_grace_period() {
    let mut server =
        TestServer::builder().config(|config| config.server.shutdown_grace = Duration::from_secs(1)).start();
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(server.raw().await);
    }
    silent[0].send_bytes(&[0x81]).await;
    let idle = server.api().await;
    let start = Instant::now();
    server.begin_shutdown();
    server.stopped().await;
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(5), "it took {elapsed:?}");
    for mut client in silent {
        let rest = deadline("the socket ends", client.rest()).await;
        assert_eq!(rest[0].close_code().0, 4200);
    }
    drop(idle);
}

/// Events that were accepted before the end are with the clients before the goodbye.
#[tokio::test]
async fn accepted_events_come_before_the_goodbye() {
    let mut server = TestServer::start();
    let mut client = server.connect().await;
    client.subscribe("news").await;
    let mut api = server.api().await;
    for number in 0..50 {
        api.trigger("news", "numbered", &number.to_string()).await;
    }
    server.begin_shutdown();
    let ended = client.ended().await;
    let received: Vec<_> = ended.events.into_iter().map(|event| event.data).collect();
    assert_eq!(received, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(ended.code, Some(4200));
    server.stopped().await;
}

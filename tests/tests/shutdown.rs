//! A server that stops sends everybody to reconnect, lets nobody in, and ends.

use std::time::Duration;

use fanfare_tests::{TestServer, deadline, eventually};
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

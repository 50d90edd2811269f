//! Limits of rates, of addresses and of the node: who is refused is told why and when to come again, and others notice nothing.

use std::fs;

use fanfare_server::config::MemoryLimit;
use fanfare_tests::{Log, Metrics, Response, TestServer, eventually, resident_megabytes};
use serde_json::json;

fn header(answer: &Response, name: &str) -> Option<u64> {
    answer.headers.lines().find_map(|line| {
        let (header, value) = line.split_once(": ")?;
        header.eq_ignore_ascii_case(name).then(|| value.trim().parse().ok())?
    })
}

fn rate_limit(answer: &Response) -> [Option<u64>; 3] {
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| header(answer, name))
}

/// How often something was refused for this cause, as the demo app's metrics say.
async fn refusals(server: &TestServer, cause: &str) -> usize {
    let labels = [("app_id", "app-id"), ("cause", cause)];
    let count = Metrics::of(&mut server.api().await).await.get("fanfare_refusals_total", &labels);
    count.to_string().parse().expect("a whole number")
}

#[tokio::test]
async fn a_first_run_never_throttles_anybody() {
    let server = TestServer::start();
    let (mut api, mut client) = (server.api().await, server.connect().await);
    client.subscribe("news").await;
    for number in 0..500 {
        api.trigger("news", "e", &number.to_string()).await;
        let answer = api.get("/channels", &[]).await;
        assert_eq!((answer.status, rate_limit(&answer)), (200, [None; 3]));
        assert_eq!(api.get("/channels", &[("info", "user_count")]).await.status, 400);
        drop(server.connect().await);
    }
    assert_eq!(client.settled().await.len(), 500);
}

#[tokio::test]
async fn backend_events_over_the_rate_are_answered_with_429_and_published_for_nobody() {
    let server = TestServer::builder().app(|app| app.max_backend_events_per_second = 4).start();
    let (mut api, mut client) = (server.api().await, server.connect().await);
    client.subscribe("a").await;
    let event = |channels: &[&str]| json!({"name": "e", "channels": channels, "data": ""}).to_string();
    // Each channel counts.
    let answer = api.post("/events", &event(&["a", "b", "c"])).await;
    assert_eq!((answer.status, rate_limit(&answer)), (200, [Some(4), Some(1), Some(1)]));
    let (mut accepted, mut refused) = (1, None);
    let batch = json!({"batch": [
        {"name": "e", "channel": "a", "data": ""}, {"name": "e", "channel": "b", "data": ""},
        {"name": "e", "channel": "b", "data": ""}, {"name": "e", "channel": "b", "data": ""},
    ]});
    for _ in 0..20 {
        let answer = api.post("/batch_events", &batch.to_string()).await;
        match answer.status {
            200 => accepted += 1,
            _ => refused = Some(answer),
        }
    }
    let refused = refused.expect("twenty times four is more than four in a second");
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("4 in a second are allowed (max_backend_events_per_second)"), "{refused:?}");
    assert_eq!(header(&refused, "retry-after"), Some(1));
    assert_eq!(rate_limit(&refused)[0], Some(4));
    assert!(refused.headers.to_lowercase().contains("content-type: text/plain"), "{refused:?}");
    assert_eq!(client.settled().await.len(), accepted);
    assert_eq!(refusals(&server, "backend_events").await, 21 - accepted);
    // A batch that is larger than the limit passes when nothing else did for a while. Reads are not affected.
    assert_eq!(api.get("/channels", &[]).await.status, 200);
    let many = event(&["1", "2", "3", "4", "5", "6"]);
    eventually("the bucket is full", async || api.post("/events", &many).await.status, |status| *status == 200).await;
}

#[tokio::test]
async fn reads_over_the_rate_are_answered_with_429() {
    let server = TestServer::builder().app(|app| app.max_reads_per_second = 3).start();
    let mut api = server.api().await;
    let answer = api.get("/channels/news", &[]).await;
    assert_eq!((answer.status, rate_limit(&answer)), (200, [Some(3), Some(2), Some(1)]));
    let mut refused = Vec::new();
    for path in ["/channels", "/connections", "/channels/presence-a/users"].into_iter().cycle().take(30) {
        let answer = api.get(path, &[]).await;
        if answer.status != 200 {
            refused.push(answer);
        }
    }
    assert!(refused.len() > 10, "{}", refused.len());
    assert!(
        refused.iter().all(|answer| answer.status == 429 && header(answer, "retry-after") == Some(1)),
        "{refused:?}"
    );
    assert!(refused[0].body.contains("max_reads_per_second"), "{refused:?}");
    assert_eq!(refusals(&server, "reads").await, refused.len());
    // Events are not affected.
    api.trigger("news", "e", "").await;
}

#[tokio::test]
async fn client_events_of_all_connections_count_together() {
    let builder = TestServer::builder().app(|app| {
        app.max_total_client_events_per_second = 6;
        app.max_client_events_per_second = 0;
    });
    let server = builder.start();
    let mut clients = server.connect_many(3).await;
    for client in &mut clients {
        client.subscribe("private-room").await;
    }
    let (reader, senders) = clients.split_first_mut().expect("three");
    let mut errors = Vec::new();
    for _ in 0..20 {
        for sender in &mut *senders {
            sender.send_event("private-room", "client-x", json!({})).await;
        }
    }
    let mut relayed = 0;
    // Twice: when the first one is settled, events of the second may still be on their way to it.
    for _ in 0..2 {
        for sender in &mut *senders {
            for event in sender.settled().await {
                match event.name.as_str() {
                    "pusher:error" => errors.push(event),
                    _ => relayed += 1,
                }
            }
        }
    }
    assert!(errors.iter().all(|error| error.code() == Some(4301)), "{errors:?}");
    assert!(errors[0].data.contains("max_total_client_events_per_second"), "{errors:?}");
    let received = reader.settled().await.len();
    assert_eq!(received + errors.len(), 40);
    assert_eq!(refusals(&server, "total_client_events").await, errors.len());
    assert_eq!(received, relayed, "each is relayed to the reader and to the other sender");
    assert!((6..40).contains(&received), "{received}");
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_allowed() {
    let server = TestServer::builder().config(|config| config.limits.max_connections_per_address = 3).start();
    let clients = server.connect_many(3).await;
    let refused = server.try_connect(&server.path()).await.expect_err("one too many");
    assert_eq!(refused.code, Some(4100));
    assert!(refused.reason.contains("limits.max_connections_per_address"), "{refused:?}");
    assert_eq!(refused.events[0].code(), Some(4100));
    assert_eq!(refusals(&server, "address_connections").await, 1);
    drop(clients);
    let mut api = server.api().await;
    eventually("they are counted out", async || api.connections().await, |count| *count == 0).await;
    server.connect_many(3).await;
}

#[tokio::test]
async fn an_address_connects_no_faster_than_allowed() {
    let server = TestServer::builder().config(|config| config.limits.max_connects_per_second_per_address = 5).start();
    let path = server.path();
    let attempts = futures_util::future::join_all((0..40).map(|_| server.try_connect(&path))).await;
    let (admitted, refused): (Vec<_>, Vec<_>) = attempts.into_iter().partition(Result::is_ok);
    assert!((5..40).contains(&admitted.len()), "{}", admitted.len());
    assert_eq!(refusals(&server, "address_connects").await, refused.len());
    for refused in refused.into_iter().filter_map(Result::err) {
        assert_eq!(refused.code, Some(4100));
        assert!(refused.reason.contains("limits.max_connects_per_second_per_address"), "{refused:?}");
    }
    // Who was let in stays, and later there is room again.
    let again = async || server.try_connect(&path).await.is_ok();
    eventually("there is room again", again, |connected| *connected).await;
}

#[tokio::test]
async fn an_address_with_many_bad_signatures_has_to_wait() {
    let builder = TestServer::builder();
    let server = builder.config(|config| config.limits.max_failed_signatures_per_minute_per_address = 3).start();
    let (mut api, mut client) = (server.api().await, server.connect().await);
    let bad = |api: &fanfare_tests::Api| {
        let query = api.sign("GET", "/apps/app-id/channels", &[], "");
        format!("/apps/app-id/channels?{}", query.replace("auth_signature=", "auth_signature=0"))
    };
    for _ in 0..2 {
        let target = bad(&api);
        assert_eq!(api.request("GET", &target, "").await.status, 401);
    }
    assert_eq!(api.get("/channels", &[]).await.status, 200);
    let data = json!({"channel": "private-a", "auth": "app-key:00"});
    client.begin_subscribe(data.clone()).await;
    assert!(client.settled().await[0].data.contains("Invalid signature"));
    // From now on also good ones have to wait: nobody looks at them.
    let answer = api.get("/channels", &[]).await;
    assert_eq!(answer.status, 429);
    assert!(answer.body.contains("limits.max_failed_signatures_per_minute_per_address"), "{answer:?}");
    assert!((1..=20).contains(&header(&answer, "retry-after").expect("a time")), "{answer:?}");
    client.begin_subscribe(data).await;
    let events = client.settled().await;
    assert!(events[0].data.contains("limits.max_failed_signatures_per_minute_per_address"), "{events:?}");
    assert_eq!(events[1].json()["status"], 429);
    assert_eq!((refusals(&server, "signature").await, refusals(&server, "address_signatures").await), (3, 2));
    // What needs no signature goes on.
    client.subscribe("news").await;
}

#[tokio::test]
async fn the_node_has_no_more_connections_than_allowed_whatever_the_app() {
    let log = Log::read();
    let server = TestServer::builder().config(|config| config.limits.max_connections = 4).start();
    let mut clients = server.connect_many(4).await;
    let refused = server.try_connect(&server.path()).await.expect_err("one too many");
    assert_eq!(refused.code, Some(4100));
    assert!(refused.reason.contains("limits.max_connections"), "{refused:?}");
    log.line(&["WARN", "refused with 4100", "limits.max_connections"]).await;
    assert_eq!(refusals(&server, "node_connections").await, 1);
    assert_eq!(clients[0].settled().await, []);
    clients.pop();
    let path = server.path();
    eventually("there is room again", async || server.try_connect(&path).await.is_ok(), |connected| *connected).await;
}

/// Connections are counted before there is a limit, and whoever is there has to keep to a new one.
#[tokio::test]
async fn limits_of_addresses_and_of_the_node_hold_for_those_who_were_there_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fanfare.toml");
    let write = |limits: &str| {
        let app = "[[apps]]\nid = \"one\"\nkey = \"k\"\nsecret = \"s\"\nsubscription_count = false\n";
        fs::write(&file, format!("{app}[limits]\n{limits}\n")).expect("a file");
    };
    write("");
    let server = TestServer::of_file(&file);
    let mut clients = server.connect_many(3).await;
    let path = server.path();
    for setting in ["max_connections", "max_connections_per_address"] {
        write(&format!("{setting} = 3"));
        let refused = async || server.try_connect(&path).await.err();
        let refused = eventually("the limit holds", refused, Option::is_some).await.expect("a refusal");
        assert!(refused.reason.contains(&format!("limits.{setting})")), "{refused:?}");
        write(&format!("{setting} = 4"));
        eventually("one more fits", async || server.try_connect(&path).await.is_ok(), |connected| *connected).await;
    }

    write("max_failed_signatures_per_minute_per_address = 2");
    let client = &mut clients[0];
    let guess = async || {
        client.begin_subscribe(json!({"channel": "private-a", "auth": "k:00"})).await;
        client.settled().await
    };
    let told = |events: &Vec<fanfare_tests::Event>| events[0].data.contains("limits.max_failed_signatures");
    eventually("who was there has to wait", guess, told).await;
}

#[tokio::test]
async fn a_node_that_is_short_of_memory_lets_nobody_new_in_and_keeps_whom_it_has() {
    let log = Log::read();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fanfare.toml");
    let app = "[[apps]]\nid = \"one\"\nkey = \"k\"\nsecret = \"s\"\nsubscription_count = false\n";
    let limited = |limit: &str| format!("{app}[limits]\nmax_memory = \"{limit}\"\n");
    fs::write(&file, limited("off")).expect("a file");
    let server = TestServer::of_file(&file);
    let mut client = server.connect().await;
    client.subscribe("news").await;

    fs::write(&file, limited("1MB")).expect("a file");
    let path = server.path();
    let refused = async || server.try_connect(&path).await.err();
    let refused = eventually("nobody is let in", refused, Option::is_some).await.expect("a refusal");
    assert_eq!(refused.code, Some(4100), "{refused:?}");
    assert!(refused.reason.contains("limits.max_memory"), "{refused:?}");
    let labels = [("app_id", "one"), ("cause", "memory")];
    Metrics::reach(&mut server.api().await, "fanfare_refusals_total", &labels, 1.0).await;
    server.api().await.trigger("news", "hello", "world").await;
    assert_eq!(client.next_event().await.data, "world");

    let enough = MemoryLimit::Bytes((resident_megabytes() as u64 + 1000) << 20);
    fs::write(&file, limited(&enough.to_string())).expect("a file");
    eventually("there is memory again", async || server.try_connect(&path).await.is_ok(), |connected| *connected).await;
    for text in ["short of memory (limits.max_memory)", "enough memory: new connections"] {
        assert_eq!(log.lines(&[text]).len(), 1, "{:?}", log.lines(&[text]));
    }
}

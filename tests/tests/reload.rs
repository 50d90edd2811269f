//! The configuration changes while clients are connected: apps follow at once, and nobody misses an event.

use std::{fs, path::PathBuf};

use fanfare_tests::{Crowd, Log, Metrics, Receiving, TestServer, WebhookReceiver, eventually};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;

/// A configuration file in a folder of its own.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fanfare.toml");
        fs::write(&path, text).expect("a file");
        Self { _folder: folder, path }
    }

    /// Replaces the file as editors do: a new one takes its name.
    fn replace(&self, text: &str) {
        let new = self.path.with_extension("new");
        fs::write(&new, text).expect("a file");
        fs::rename(&new, &self.path).expect("a renamed file");
    }
}

/// An app as it stands in the file; `more` are further lines of it.
fn app(id: &str, more: &str) -> String {
    format!(
        "[[apps]]\nid = \"{id}\"\nkey = \"{id}-key\"\nsecret = \"{id}-secret\"\nsubscription_count = false\n{more}\n"
    )
}

async fn status(server: &TestServer) -> u16 {
    server.api().await.get("/channels", &[]).await.status
}

async fn becomes(server: &TestServer, expected: u16) {
    let what = format!("the API answers {expected}");
    eventually(&what, async || status(server).await, |status| *status == expected).await;
}

#[tokio::test]
async fn changed_limits_hold_for_live_connections() {
    let file = File::new(&app("one", ""));
    let server = TestServer::of_file(&file.path);
    let mut client = server.connect().await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    file.replace(&app("one", "max_channels_per_connection = 2\nmax_event_bytes = 5"));
    let mut api = server.api().await;
    let body = json!({"name": "e", "channel": "other", "data": "123456"}).to_string();
    eventually("the limit holds", async || api.post("/events", &body).await.status, |status| *status == 413).await;
    client.begin_subscribe(json!({"channel": "c"})).await;
    let events = client.settled().await;
    assert_eq!(
        events.iter().map(|event| &*event.name).collect::<Vec<_>>(),
        ["pusher:error", "pusher:subscription_error"]
    );
    assert!(events[0].data.contains("2 subscriptions"), "{events:?}");
}

#[tokio::test]
async fn each_limit_of_an_app_holds_for_live_connections_when_it_changes() {
    let file = File::new(&app("one", "client_events_on_public_channels = true\nwatchlist = true"));
    let server = TestServer::of_file(&file.path);
    let (mut api, mut client, mut other) = (server.api().await, server.connect().await, server.connect().await);
    for channel in ["private-a", "presence-a"] {
        let data = client.subscription(channel, channel.starts_with("pres").then_some(r#"{"user_id":"1"}"#));
        client.begin_subscribe(data).await;
    }
    client.settled().await;
    let limits = "max_connections = 2\nmax_channels = 2\nmax_channels_per_connection = 3\nmax_channel_name_length = 12\n\
        max_event_name_length = 10\nmax_event_bytes = 5\nmax_client_event_bytes = 4\nmax_channels_per_trigger = 2\n\
        max_batch_events = 1\nmax_presence_members = 1\nmax_user_info_bytes = 8\nmax_watchlist_users = 1";
    file.replace(&app("one", limits));
    let event = |name: &str, channels: &[&str], data: &str| json!({"name": name, "channels": channels, "data": data});
    let too_large = event("e", &["a"], "123456").to_string();
    eventually("limits hold", async || api.post("/events", &too_large).await.status, |status| *status == 413).await;

    let refused = server.try_connect(&server.path()).await.expect_err("two are there");
    assert_eq!(refused.code, Some(4004));
    let batch =
        json!({"batch": [{"name": "e", "channel": "a", "data": ""}, {"name": "e", "channel": "a", "data": ""}]});
    for (path, body, limit) in [
        ("/events", event("e", &["a"], "123456"), "max_event_bytes"),
        ("/events", event("longer-than-ten", &["a"], ""), "max_event_name_length"),
        ("/events", event("e", &["a", "b", "c"], ""), "channels (3 > 2)"),
        ("/events", event("e", &["longer-than-twelve"], ""), "max_channel_name_length"),
        ("/batch_events", batch, "Batch too large (2 > 1)"),
    ] {
        let answer = api.post(path, &body.to_string()).await;
        assert!([400, 413].contains(&answer.status) && answer.body.contains(limit), "{limit}: {answer:?}");
    }

    let subscribe = |data| json!({"event": "pusher:subscribe", "data": data});
    let long_name = subscribe(json!({"channel": "longer-than-twelve"}));
    let one_too_many = subscribe(json!({"channel": "third"}));
    let relay = |name: &str, data: &str| json!({"event": name, "channel": "private-a", "data": data});
    for (message, limit) in [
        (long_name, "max_channel_name_length"),
        (one_too_many, "max_channels"),
        (relay("client-longer", "x"), "max_event_name_length"),
        (relay("client-x", "12345"), "max_client_event_bytes"),
    ] {
        client.send(&message).await;
        let errors = client.settled().await;
        assert!(errors[0].name == "pusher:error" && errors[0].data.contains(limit), "{limit}: {errors:?}");
    }
    for (member, limit) in [
        (r#"{"user_id":"2"}"#, "max_presence_members"),
        (r#"{"user_id":"1","user_info":{"name":"a long one"}}"#, "max_user_info_bytes"),
    ] {
        let data = other.subscription("presence-a", Some(member));
        other.begin_subscribe(data).await;
        let errors = other.settled().await;
        assert!(errors[0].data.contains(limit), "{limit}: {errors:?}");
    }
    let signed_in = other.sign_in(r#"{"id":"2","watchlist":["3","4"]}"#).await;
    let errors = other.settled().await;
    assert!(errors.iter().any(|error| error.code() == Some(4302)), "{signed_in:?} {errors:?}");

    // Rates, and what clients may do at all.
    let rates = "max_client_events_per_second = 1\nmax_total_client_events_per_second = 2\nmax_reads_per_second = 1\n\
        max_backend_events_per_second = 1\nmax_channels_per_connection = 2";
    file.replace(&app("one", rates));
    let read = async || api.get("/channels", &[]).await.status;
    eventually("rates hold", read, |status| *status == 429).await;
    let body = event("e", &["a"], "").to_string();
    let trigger = async || api.post("/events", &body).await;
    let answer = eventually("events are too many", trigger, |answer| answer.status == 429).await;
    assert!(answer.body.contains("max_backend_events_per_second"), "{answer:?}");
    client.send(&subscribe(json!({"channel": "third"}))).await;
    let errors = client.settled().await;
    assert!(errors[0].data.contains("max_channels_per_connection"), "{errors:?}");
    for _ in 0..3 {
        client.send(&relay("client-x", "x")).await;
    }
    let errors = client.settled().await;
    assert!(errors.iter().any(|error| error.code() == Some(4301)), "{errors:?}");
    let mut idle = server.connect().await;
    file.replace(&app("one", "client_events = false\nauthorization_timeout = \"10ms\""));
    assert_eq!(idle.ended().await.code, Some(4009));
    let relayed = async || {
        client.send(&relay("client-x", "x")).await;
        client.settled().await
    };
    let off =
        |events: &Vec<fanfare_tests::Event>| events.first().is_some_and(|error| error.data.contains("enable this"));
    eventually("client events are off", relayed, off).await;
}

#[tokio::test]
async fn what_is_kept_who_comes_over_http_and_when_silence_ends_change_for_a_live_app() {
    let file = File::new(&app("one", ""));
    let mut server = TestServer::of_file(&file.path);
    let (mut api, mut silent, mut client) = (server.api().await, server.connect().await, server.connect().await);
    assert_eq!(silent.established.json()["activity_timeout"], 120);
    api.trigger("cache-a", "kept", "").await;
    let _session = server.session().receive(Receiving::Stream).await;

    file.replace(&app(
        "one",
        "max_cached_events = 1\ncache_ttl = \"1s\"\nmax_xhr_sessions = 1\nactivity_timeout = \"1s\"",
    ));
    // Who is connected is pinged by the new time, and who connects is told it.
    silent.until(|event| event.name == "pusher:ping").await;
    assert_eq!(server.connect().await.established.json()["activity_timeout"], 1);
    // What is kept stays, a new event in its place is kept for the new time, and there is no room for another channel's.
    client.subscribe("cache-a").await;
    assert!(client.settled().await.iter().any(|event| event.is("kept", "cache-a")));
    api.trigger("cache-b", "kept", "").await;
    client.subscribe("cache-b").await;
    assert!(client.settled().await.iter().any(|event| event.is("pusher:cache_miss", "cache-b")));
    Metrics::reach(&mut api, "fanfare_cache_overflows_total", &[("app_id", "one")], 1.0).await;
    api.trigger("cache-a", "renewed", "").await;
    let kept = async || api.get("/channels/cache-a", &[("info", "cache")]).await.json();
    eventually("it is kept for a second", kept, |channel| channel["cache"].is_null()).await;
    // And makes room.
    Metrics::reach(&mut api, "fanfare_cached_events", &[("app_id", "one")], 0.0).await;
    // One session is there.
    server.be_without_websockets(Receiving::Stream);
    assert_eq!(server.try_connect(&server.path()).await.expect_err("one is there").code, Some(4100));
    file.replace(&app("one", "max_xhr_sessions = 2"));
    let connected = async || server.try_connect(&server.path()).await.is_ok();
    eventually("there is room for another session", connected, |connected| *connected).await;
}

#[tokio::test]
async fn apps_come_and_go_with_the_file() {
    let file = File::new(&app("one", ""));
    let mut server = TestServer::of_file(&file.path);
    let mut first = server.connect().await;

    file.replace(&[app("one", ""), app("two", "")].concat());
    server.be_app("two", "two-key", "two-secret");
    becomes(&server, 200).await;
    let mut second = server.connect().await;
    second.subscribe("news").await;

    file.replace(&app("one", ""));
    let ended = second.ended().await;
    assert_eq!(ended.code, Some(4001), "{ended:?}");
    assert_eq!(ended.events[0].code(), Some(4001));
    assert_eq!(status(&server).await, 404);
    let refused = server.try_connect(&server.path()).await.expect_err("the app is gone");
    assert_eq!(refused.code, Some(4001));

    // The same app again, and nobody of the other one has noticed anything.
    file.replace(&[app("two", ""), app("one", "")].concat());
    becomes(&server, 200).await;
    server.connect().await.subscribe("news").await;
    assert_eq!(first.settled().await, []);
}

#[tokio::test]
async fn a_disabled_app_sends_its_connections_away_until_it_is_enabled() {
    let file = File::new(&app("one", ""));
    let server = TestServer::of_file(&file.path);
    let mut clients = server.connect_many(30).await;
    file.replace(&app("one", "enabled = false"));
    for client in &mut clients {
        let ended = client.ended().await;
        assert_eq!((ended.code, &*ended.reason), (Some(4003), "Application disabled"));
        assert_eq!(ended.events[0].code(), Some(4003));
    }
    let answer = server.api().await.get("/channels", &[]).await;
    assert_eq!((answer.status, &*answer.body), (403, "Application disabled\n"));
    assert_eq!(server.try_connect(&server.path()).await.expect_err("it is disabled").code, Some(4003));
    file.replace(&app("one", ""));
    becomes(&server, 200).await;
    server.connect().await;
}

#[tokio::test]
async fn a_broken_edit_keeps_the_last_good_state_and_says_what_is_wrong() {
    let log = Log::read();
    let file = File::new(&app("one", ""));
    let server = TestServer::of_file(&file.path);
    let mut client = server.connect().await;
    let path = file.path.display().to_string();
    for (broken, problem) in [
        ("[[apps]\nid = 1", "not a TOML file: line 1, column 8"),
        (&*app("one", "max_conections = 5"), r#"apps[0].max_conections: unknown key; did you mean "max_connections"?"#),
        (&*app("one", "previous_key = \"k\""), "apps[0].previous_secret: must be set, too"),
        (&*[app("one", ""), app("one", "")].concat(), "apps[1].id: must not be that of apps[0]"),
    ] {
        file.replace(broken);
        let line = log.line(&["the last good one stays in effect", &path, problem]).await;
        assert!(line.contains("ERROR"), "{line}");
        assert_eq!(status(&server).await, 200);
    }
    // An edit that was cut short: no reason to send everybody away for the demo app.
    file.replace("# apps\n");
    log.line(&["the last good one stays in effect", &path, "no app is left"]).await;
    assert_eq!(status(&server).await, 200);
    fs::remove_file(&file.path).expect("a file");
    log.line(&["the last good one stays in effect", &path, "cannot read"]).await;
    assert_eq!(client.settled().await, []);

    // Once each, however often the file was looked at, and a mended file is taken.
    assert_eq!(log.lines(&["the last good one stays in effect", &path]).len(), 6);
    file.replace(&app("one", "enabled = false"));
    assert_eq!(client.ended().await.code, Some(4003));
}

/// Soketi's default id, which many keep, is the demo app's.
#[tokio::test]
async fn the_demo_app_does_not_take_the_place_of_an_own_app_of_its_id() {
    let log = Log::read();
    let file = File::new(&app("app-id", ""));
    let server = TestServer::of_file(&file.path);
    file.replace("# apps\n");
    log.line(&["the last good one stays in effect", &file.path.display().to_string(), "no app is left"]).await;
    assert_eq!(status(&server).await, 200);
}

#[tokio::test]
async fn the_demo_app_does_not_come_where_a_database_had_the_apps() {
    let log = Log::read();
    let file = File::new("[database]\nurl = \"postgres://nobody@127.0.0.1:1/apps\"\ntimeout = \"100ms\"\n");
    let mut server = TestServer::of_file(&file.path);
    file.replace("");
    log.line(&["the last good one stays in effect", &file.path.display().to_string(), "no app is left"]).await;
    server.be_app("app-id", "app-key", "app-secret");
    assert_eq!(status(&server).await, 503, "it is asked for where apps are");
}

#[tokio::test]
async fn a_setting_that_needs_a_restart_is_named() {
    let log = Log::read();
    let file = File::new(&[app("one", ""), "[server]\npong_timeout = \"77s\"\n".to_owned()].concat());
    let server = TestServer::of_file(&file.path);
    file.replace(
        &[app("one", "enabled = false"), "[server]\npong_timeout = \"78s\"\nworkers = 9\n".to_owned()].concat(),
    );
    becomes(&server, 403).await;
    let line = log.line(&["hold after a restart only", "server.pong_timeout"]).await;
    assert!(line.contains("WARN") && line.contains(r#"["server.pong_timeout", "server.workers"]"#), "{line}");
}

/// The file is not watched here, so only the signal can be what makes the server read it.
#[tokio::test]
async fn sighup_reads_the_file() {
    // The process would end by a signal that comes before the server listens for it.
    let _hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).expect("a signal handler");
    let watch = "[server]\nwatch_config = false\n";
    let file = File::new(&[&app("one", ""), watch].concat());
    let server = TestServer::of_file(&file.path);
    let mut client = server.connect().await;
    file.replace(&[&app("one", "enabled = false"), watch].concat());
    let hang_up = async || {
        kill_process(getpid(), Signal::HUP).expect("a signal");
        status(&server).await
    };
    eventually("the file is read", hang_up, |status| *status == 403).await;
    assert_eq!(client.ended().await.code, Some(4003));
}

#[tokio::test]
async fn both_keys_work_during_a_rotation_and_webhooks_are_signed_with_the_older_one() {
    let mut receiver = WebhookReceiver::start();
    let keys = |keys: &str| {
        let url = receiver.url();
        format!(
            "[webhooks]\nvacated_delay = \"0s\"\n[[apps]]\nid = \"one\"\n{keys}\nsubscription_count = false\n\
             [[apps.webhooks]]\nurl = \"{url}\"\n"
        )
    };
    let old = "key = \"old\"\nsecret = \"old-secret\"";
    let both = "key = \"new\"\nsecret = \"new-secret\"\nprevious_key = \"old\"\nprevious_secret = \"old-secret\"";
    let new = "key = \"new\"\nsecret = \"new-secret\"";
    let (before, during, after) = (keys(old), keys(both), keys(new));
    let file = File::new(&before);
    let mut server = TestServer::of_file(&file.path);
    let mut by_old = server.connect().await;
    by_old.subscribe("private-a").await;
    assert_eq!(receiver.next().await.header("x-pusher-key"), "old");

    file.replace(&during);
    server.be_app("one", "new", "new-secret");
    becomes(&server, 200).await;
    let mut by_new = server.connect().await;
    by_new.subscribe("private-b").await;
    let delivery = receiver.next().await;
    assert_eq!(delivery.header("x-pusher-key"), "old");
    server.be_app("one", "old", "old-secret");
    assert_eq!(delivery.header("x-pusher-signature"), server.sign(&delivery.body));
    assert_eq!(status(&server).await, 200);
    by_old.subscribe("private-c").await;
    receiver.next().await;

    file.replace(&after);
    becomes(&server, 401).await;
    assert_eq!(server.try_connect(&server.path()).await.expect_err("the key is gone").code, Some(4001));
    server.be_app("one", "new", "new-secret");
    by_new.subscribe("private-d").await;
    let delivery = receiver.next().await;
    assert_eq!(delivery.header("x-pusher-key"), "new");
    assert_eq!(delivery.header("x-pusher-signature"), server.sign(&delivery.body));
    // Who came with the old key stays, and gets events.
    server.api().await.trigger("private-a", "hello", "world").await;
    assert_eq!(by_old.next_event().await.data, "world");
}

#[tokio::test]
async fn a_thousand_clients_miss_nothing_while_the_file_changes_and_keys_rotate() {
    let log = Log::read();
    let file = File::new(&app("one", ""));
    let mut server = TestServer::of_file(&file.path);
    let crowd = Crowd::gather(&server, 1000).await;
    let path = file.path.display().to_string();

    file.replace(&[app("one", "max_connections = 2000"), app("two", "")].concat());
    server.be_app("two", "two-key", "two-secret");
    becomes(&server, 200).await;
    crowd.some_more().await;
    file.replace("[[apps]]\nid = \"one\"");
    log.line(&["the last good one stays in effect", &path]).await;
    crowd.some_more().await;

    // Two rotations.
    let keys = |key: &str, previous: &str| {
        let one = |name: &str, key: &str| match key {
            "" => String::new(),
            key => format!("{name}key = \"{key}\"\n{name}secret = \"{key}-secret\"\n"),
        };
        format!("[[apps]]\nid = \"one\"\n{}{}subscription_count = false\n", one("", key), one("previous_", previous))
    };
    let mut last = "one-key".to_owned();
    for key in ["second", "third"] {
        let last_secret = if last == "one-key" { "one-secret".to_owned() } else { format!("{last}-secret") };
        file.replace(&keys(key, &last).replace("one-key-secret", "one-secret"));
        server.be_app("one", key, &format!("{key}-secret"));
        becomes(&server, 200).await;
        crowd.some_more().await;
        crowd.publish_through(server.api().await).await;
        file.replace(&keys(key, ""));
        server.be_app("one", &last, &last_secret);
        becomes(&server, 401).await;
        crowd.some_more().await;
        last = key.to_owned();
    }
    println!("events that each of 1000 clients got: {}", crowd.leave().await);
}

//! Clients without a WebSocket: what their requests get, line by line. The servers have three workers, and each request
//! is a connection of its own, so those of a session reach all of them.

use std::time::{Duration, Instant};

use fanfare_tests::{
    DEADLINE, Event, Exchange, Line, Receiving, STREAM_LENGTH, TestServer, XhrSession, deadline, eventually,
};
use futures_util::future::{Either, select};
use serde_json::json;

/// The events of a line of messages.
fn events(line: Option<Line>) -> Vec<Event> {
    match line {
        Some(Line::Messages(messages)) => messages.iter().map(|message| Event::parse(message)).collect(),
        other => panic!("not messages: {other:?}"),
    }
}

/// Opens a session over a stream: its socket id, and the stream.
async fn open_stream(session: &XhrSession) -> (String, Exchange) {
    let mut stream = session.receive(Receiving::Stream).await;
    assert_eq!(stream.line().await, Some(Line::Heartbeat), "the prelude");
    assert_eq!(stream.line().await, Some(Line::Open));
    let established = events(stream.line().await).remove(0);
    assert_eq!(established.name, "pusher:connection_established");
    (established.json()["socket_id"].as_str().expect("a string socket_id").to_owned(), stream)
}

/// Opens a session over polls.
async fn open_poll(session: &XhrSession) {
    let mut poll = session.receive(Receiving::Poll).await;
    assert_eq!(poll.line().await, Some(Line::Open));
    assert_eq!(events(poll.line().await)[0].name, "pusher:connection_established");
    assert_eq!(poll.line().await, None, "the first poll ends at once");
}

/// Lines until a predicate on one of their events holds; the events in between are returned.
async fn events_until(stream: &mut Exchange, mut last: impl FnMut(&Event) -> bool) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        for event in events(stream.line().await) {
            let is_last = last(&event);
            all.push(event);
            if is_last {
                return all;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_begins_with_open_and_goes_on_line_by_line() {
    let server = TestServer::start();
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("content-type"), Some("application/javascript; charset=utf-8"));
    assert_eq!(stream.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    assert_eq!(stream.header("content-encoding"), None);
    session.subscribe("news").await;
    assert!(events(stream.line().await)[0].is("pusher_internal:subscription_succeeded", "news"));
    let mut api = server.api().await;
    for number in 0..10 {
        api.trigger("news", "story", &number.to_string()).await;
        assert_eq!(events(stream.line().await)[0].data, number.to_string());
    }
}

#[tokio::test]
async fn a_poll_is_held_until_something_comes_and_what_comes_between_polls_waits() {
    let server = TestServer::start();
    let session = server.session();
    open_poll(&session).await;
    session.subscribe("news").await;
    let mut poll = session.receive(Receiving::Poll).await;
    assert!(events(poll.line().await)[0].is("pusher_internal:subscription_succeeded", "news"));
    assert_eq!(poll.line().await, None);
    assert!(poll.header("content-length").is_some());

    let held = session.hold_poll().await;
    let mut api = server.api().await;
    api.trigger("news", "story", "held").await;
    assert_eq!(events(held.answer().await.line().await)[0].data, "held");

    for number in 0..3 {
        api.trigger("news", "story", &number.to_string()).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let mut poll = session.receive(Receiving::Poll).await;
        seen.extend(events(poll.line().await).into_iter().map(|event| event.data));
    }
    assert_eq!(seen, ["0", "1", "2"]);
}

#[tokio::test]
async fn events_of_one_turn_share_a_line() {
    let server = TestServer::start();
    let session = server.session();
    open_poll(&session).await;
    session.subscribe("news").await;
    session.receive(Receiving::Poll).await.text().await;
    let mut api = server.api().await;
    let batch: Vec<_> =
        (0..10).map(|number| json!({"channel": "news", "name": "story", "data": format!("{number}")})).collect();
    api.post("/batch_events", &json!({"batch": batch}).to_string()).await.json();
    // They wait together, as no request receives.
    let mut poll = session.receive(Receiving::Poll).await;
    let mut numbers: Vec<_> = events(poll.line().await).into_iter().map(|event| event.data).collect();
    while numbers.len() < 10 {
        numbers.extend(events(session.receive(Receiving::Poll).await.line().await).into_iter().map(|event| event.data));
    }
    assert_eq!(numbers, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_resumed_stream_has_no_second_open_and_what_waited_comes_first() {
    let server = TestServer::start();
    let session = server.session();
    let (socket_id, mut stream) = open_stream(&session).await;
    session.subscribe("news").await;
    events(stream.line().await);
    stream.hang_up().await;
    let mut api = server.api().await;
    for number in 0..5 {
        api.trigger("news", "story", &number.to_string()).await;
    }
    let mut stream = session.receive(Receiving::Stream).await;
    let seen = events_until(&mut stream, |event| event.data == "4").await;
    assert_eq!(seen.iter().map(|event| &*event.data).collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
    // It is the same connection: what it sends itself does not come back.
    let body = json!({"name": "story", "channel": "news", "data": "own", "socket_id": socket_id}).to_string();
    api.post("/events", &body).await.json();
    api.trigger("news", "story", "other").await;
    assert_eq!(events(stream.line().await)[0].data, "other");
    assert_eq!(api.connections().await, 1);
}

#[tokio::test]
async fn a_stream_that_goes_on_says_so_when_nothing_waits() {
    let server = TestServer::start();
    let session = server.session();
    let (_, stream) = open_stream(&session).await;
    let mut next = session.receive(Receiving::Stream).await;
    assert_eq!(next.line().await, Some(Line::Messages(Vec::new())));
    drop(stream);
}

/// pusher-js drops a stream above 256 KiB once it has consumed it, whatever may be on the way by then.
#[tokio::test]
async fn nothing_is_sent_behind_what_makes_pusher_js_open_the_next_stream() {
    const EVENTS: usize = 1_000;
    let server = TestServer::start();
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    session.subscribe("news").await;
    events(stream.line().await);
    let publish = async {
        let mut api = server.api().await;
        for number in 0..EVENTS {
            // Of characters that UTF-8 and UTF-16 count differently.
            api.trigger("news", "story", &format!("{number} {}", "é🎺日".repeat(100))).await;
        }
    };
    let read = async {
        let (mut seen, mut streams) = (0, 1);
        while seen < EVENTS {
            for event in events(stream.line().await) {
                assert!(event.data.starts_with(&format!("{seen} ")), "{seen} is missing: {}", event.data);
                seen += 1;
            }
            // What pusher-js does, at the end of a line.
            if stream.length > STREAM_LENGTH {
                stream = session.receive(Receiving::Stream).await;
                streams += 1;
            }
        }
        streams
    };
    let ((), streams) = tokio::join!(publish, read);
    assert!(streams > 1, "it never came to that");
}

/// Reads on where pusher-js would open the next stream.
async fn read_on(server: &TestServer, session: &XhrSession) -> Exchange {
    let (_, mut stream) = open_stream(session).await;
    session.subscribe("news").await;
    events(stream.line().await);
    let mut api = server.api().await;
    let data = "x".repeat(10_000);
    for _ in 0..40 {
        api.trigger("news", "story", &data).await;
    }
    api.trigger("news", "last", "").await;
    let seen = events_until(&mut stream, |event| event.name == "last").await;
    assert_eq!(seen.len(), 41);
    stream
}

#[tokio::test]
async fn a_client_that_reads_on_gets_everything_too() {
    let server = TestServer::start();
    // If it then opens another stream, nobody knows how much of the first it has read, whether that one is still open or not.
    for close_first in [false, true] {
        let session = server.session();
        let mut stream = Some(read_on(&server, &session).await);
        if close_first {
            stream = None;
        }
        let mut next = session.receive(Receiving::Stream).await;
        let reason = "Generic reconnect immediately: events may have been missed".to_owned();
        assert_eq!(next.line().await, Some(Line::Closed(4200, reason)));
        assert_eq!(next.line().await, None);
        drop(stream);
    }
}

/// As over a line so slow that the client has not read the old stream by the time that the server gives up waiting.
#[tokio::test]
async fn a_late_next_stream_goes_on_if_nothing_has_happened_since() {
    let server = TestServer::start();
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    session.subscribe("news").await;
    events(stream.line().await);
    let mut api = server.api().await;
    let data = "x".repeat(10_000);
    while stream.length <= STREAM_LENGTH {
        api.trigger("news", "story", &data).await;
        events(stream.line().await);
    }
    // The server has given up waiting for the next stream once it answers on this one again.
    session.send(&[]).await;
    assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
    drop(stream);
    api.trigger("news", "late", "").await;
    let mut next = session.receive(Receiving::Stream).await;
    events_until(&mut next, |event| event.name == "late").await;
}

#[tokio::test]
async fn an_empty_send_is_answered_with_an_empty_line_and_never_with_a_heartbeat() {
    let server = TestServer::start();
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    for _ in 0..3 {
        session.send(&[]).await;
        assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
    }
    let session = server.session();
    open_poll(&session).await;
    let held = session.hold_poll().await;
    session.send(&[]).await;
    assert_eq!(held.answer().await.line().await, Some(Line::Messages(Vec::new())));
}

#[tokio::test]
async fn quiet_streams_get_empty_lines_and_quiet_polls_an_empty_answer() {
    let server = TestServer::builder().config(|config| config.xhr.heartbeat = Duration::from_millis(100)).start();
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    for _ in 0..3 {
        assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
    }
    let session = server.session();
    open_poll(&session).await;
    for _ in 0..3 {
        let mut poll = session.receive(Receiving::Poll).await;
        assert_eq!((poll.status, poll.line().await, poll.line().await), (200, Some(Line::Heartbeat), None));
    }
}

#[tokio::test]
async fn a_newer_poll_supersedes_a_held_one_silently() {
    let server = TestServer::start();
    let session = server.session();
    open_poll(&session).await;
    let (one, other) = (session.hold_poll().await, session.hold_poll().await);
    // They are requests of their own, and either may be the newer one.
    let answers = select(Box::pin(one.answer()), Box::pin(other.answer())).await;
    let (Either::Left((superseded, newer)) | Either::Right((superseded, newer))) = answers;
    assert_eq!((superseded.status, superseded.header("content-length")), (200, Some("0")));
    session.subscribe("news").await;
    assert!(events(newer.await.line().await)[0].is("pusher_internal:subscription_succeeded", "news"));
}

/// A browser sends a request again whose connection broke before the answer's head was there; the page hears nothing of that.
#[tokio::test]
async fn a_poll_that_is_sent_again_gets_its_answer_again() {
    let server = TestServer::start();
    let session = server.session();
    open_poll(&session.numbered(1)).await;
    open_poll(&session.numbered(1)).await;
    session.subscribe("news").await;
    let mut poll = session.numbered(2).receive(Receiving::Poll).await;
    assert!(events(poll.line().await)[0].is("pusher_internal:subscription_succeeded", "news"));
    let mut api = server.api().await;
    for number in 3..6 {
        let held = session.numbered(number).hold_poll().await;
        api.trigger("news", "story", &number.to_string()).await;
        drop(held);
        api.trigger("news", "more", &number.to_string()).await;
        let mut data = Vec::new();
        for request in [number, number + 100] {
            for event in events(session.numbered(request).receive(Receiving::Poll).await.line().await) {
                data.push((event.name, event.data));
            }
            if data.len() == 2 {
                break;
            }
        }
        let data_of = |name: &str| (name.to_owned(), number.to_string());
        assert_eq!(data, [data_of("story"), data_of("more")]);
    }
}

#[tokio::test]
async fn what_a_client_sends_is_acted_on_once() {
    let server = TestServer::start();
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    let unsubscribe = r#"{"event":"pusher:unsubscribe","data":{"channel":"news"}}"#;
    session.numbered(1).subscribe("news").await;
    session.numbered(2).send(&[unsubscribe]).await;
    session.numbered(3).subscribe("news").await;
    session.numbered(2).send(&[unsubscribe]).await;
    session.numbered(3).subscribe("news").await;
    server.api().await.trigger("news", "story", "").await;
    let names: Vec<_> =
        events_until(&mut stream, |event| event.name == "story").await.into_iter().map(|event| event.name).collect();
    assert_eq!(names, ["pusher_internal:subscription_succeeded", "pusher_internal:subscription_succeeded", "story"]);
}

#[tokio::test]
async fn a_stream_that_is_sent_again_tells_what_may_be_missing() {
    let server = TestServer::start();
    let session = server.session();
    open_stream(&session.numbered(1)).await;
    let mut stream = session.numbered(1).receive(Receiving::Stream).await;
    let reason = "Generic reconnect immediately: events may have been missed".to_owned();
    assert_eq!(stream.line().await, Some(Line::Closed(4200, reason)));
}

#[tokio::test]
async fn a_client_that_is_gone_has_left_after_the_grace_time() {
    let grace = Duration::from_millis(300);
    let server = TestServer::builder().config(|config| config.xhr.grace = grace).start();
    let mut api = server.api().await;
    let streaming = server.session();
    let (_, stream) = open_stream(&streaming).await;
    let polling = server.session();
    open_poll(&polling).await;
    let held = polling.hold_poll().await;
    streaming.subscribe("news").await;
    assert_eq!(api.connections().await, 2);
    drop((stream, held));
    eventually("both have left", async || api.connections().await, |count| *count == 0).await;
    assert_eq!(streaming.request("POST", "xhr_send", "[]").await.status, 404);
    assert_eq!(api.get("/channels", &[]).await.json(), json!({"channels": {}}));
}

#[tokio::test]
async fn who_stops_reading_a_stream_is_closed_by_what_waits() {
    let server = TestServer::builder()
        .config(|config| {
            config.server.max_outbox_bytes = 64 * 1024;
            config.xhr.grace = Duration::from_secs(60);
        })
        .start();
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    session.subscribe("news").await;
    events(stream.line().await);
    // Neither read nor closed, as by a browser that hangs.
    let mut api = server.api().await;
    let data = "x".repeat(10_000);
    let mut triggered = 0;
    while api.connections().await > 0 {
        assert!(triggered < 5_000, "never closed");
        api.trigger("news", "story", &data).await;
        triggered += 1;
    }
    // A session whose client does not come back ends, too.
    let session = server.session();
    open_poll(&session).await;
    session.subscribe("news").await;
    eventually(
        "it has subscribed",
        async || api.get("/channels/news", &[]).await.json(),
        |json| json["occupied"] == true,
    )
    .await;
    for _ in 0..20 {
        api.trigger("news", "story", &data).await;
    }
    eventually("it is closed", async || api.connections().await, |count| *count == 0).await;
    drop(stream);
}

#[tokio::test]
async fn refusals_are_told_in_lines() {
    let server = TestServer::builder().app(|app| app.allowed_origins = vec!["shop.test".to_owned()]).start();
    for (path, code, reason) in [
        ("/app/nobody", 4001, "App key nobody not in this cluster. Did you forget to specify the cluster?"),
        ("/app/app-key?protocol=3", 4007, "Unsupported protocol version"),
        ("/app/app-key?protocol=x", 4006, "Invalid version string format"),
    ] {
        for receiving in [Receiving::Stream, Receiving::Poll] {
            let mut answer = XhrSession::new(server.address(), path).receive(receiving).await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
            assert_eq!(answer.line().await, Some(Line::Open));
            assert_eq!(answer.line().await, Some(Line::Closed(code, reason.to_owned())));
            assert_eq!(answer.line().await, None);
        }
    }
    assert_eq!(server.api().await.connections().await, 0);

    let elsewhere = TestServer::builder().app(|app| app.allowed_origins = vec!["other.test".to_owned()]).start();
    let answer = elsewhere.session().receive(Receiving::Poll).await;
    assert_eq!(answer.text().await, "o\nc[4009,\"Origin not allowed\"]\n");
    let disabled = TestServer::builder().app(|app| app.enabled = false).start();
    assert_eq!(disabled.session().receive(Receiving::Poll).await.text().await, "o\nc[4003,\"Application disabled\"]\n");
}

#[tokio::test]
async fn browsers_may_read_every_answer() {
    let server = TestServer::start();
    let session = server.session();
    let (_, _stream) = open_stream(&session).await;
    let too_large = format!("[\"{}\"]", "x".repeat(300_000));
    for (method, call, body, status) in [
        ("OPTIONS", "xhr", "", 204),
        ("OPTIONS", "xhr_send", "", 204),
        ("OPTIONS", "xhr_streaming", "", 204),
        ("GET", "xhr", "", 405),
        ("PUT", "xhr_send", "[]", 405),
        ("POST", "xhr_send", "[]", 204),
        ("POST", "xhr_send", "", 400),
        ("POST", "xhr_send", "{}", 400),
        ("POST", "xhr_send", "[1]", 400),
        ("POST", "xhr_send", "[\"\\ud800\"]", 400),
        ("POST", "xhr_send", "[\"a\"", 400),
        ("POST", "xhr_send", &*too_large, 413),
    ] {
        let answer = session.request(method, call, body).await;
        assert_eq!(answer.status, status, "{method} {call}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{method} {call}");
        if method == "OPTIONS" {
            assert_eq!(answer.header("access-control-allow-methods"), Some("post, options"));
            assert_eq!(answer.header("access-control-allow-headers"), Some("content-type"));
            assert_eq!(answer.header("access-control-max-age"), Some("86400"));
        }
    }
    let answer = server.session().request("POST", "xhr_send", "[]").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (404, Some("*")));
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_session_as_it_ends_a_websocket() {
    let server = TestServer::start();
    for size in [70_000, 300_000] {
        let session = server.session();
        let (_, mut stream) = open_stream(&session).await;
        let message = serde_json::to_string(&["x".repeat(size)]).expect("JSON");
        assert_eq!(session.request("POST", "xhr_send", &message).await.status, 413);
        let reason = "message is larger than 65536 bytes (max_message_bytes)".to_owned();
        assert_eq!(stream.line().await, Some(Line::Closed(1009, reason)));
    }
    // One that fits does, however it is escaped.
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    session.send(&[&"\"".repeat(65_536)]).await;
    assert_eq!(events(stream.line().await)[0].name, "pusher:error");
}

#[tokio::test]
async fn a_session_is_found_at_all_its_paths_and_only_in_its_app() {
    let server = TestServer::builder()
        .config(|config| {
            config.server.path_prefix = "/ws".to_owned();
            let mut other = fanfare_server::config::AppConfig::demo();
            other.id = fanfare_protocol::AppId::new("other");
            other.key = fanfare_protocol::AppKey::new("other-key");
            config.apps.push(other);
        })
        .start();
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    session.at("/ws/app/app-key").send(&[]).await;
    assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
    for path in ["/app/app-key", "/ws/app/other-key", "/pusher/app/other-key", "/pusher/app/nobody"] {
        assert_eq!(session.at(path).request("POST", "xhr_send", "[]").await.status, 404, "{path}");
    }
    // The same name in another app is another session.
    let (_, mut other) = open_stream(&session.at("/pusher/app/other-key")).await;
    session.send(&[]).await;
    assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
    session.at("/ws/app/other-key").subscribe("news").await;
    assert!(events(other.line().await)[0].is("pusher_internal:subscription_succeeded", "news"));
}

#[tokio::test]
async fn there_are_so_many_sessions_for_an_app_and_for_an_address() {
    for setting in ["max_xhr_sessions", "xhr.max_sessions_per_address"] {
        let of_app = setting == "max_xhr_sessions";
        let server = TestServer::builder()
            .config(|config| {
                config.xhr.grace = Duration::from_millis(300);
                config.xhr.max_sessions_per_address = if of_app { 0 } else { 3 };
            })
            .app(|app| app.max_xhr_sessions = if of_app { 3 } else { 0 })
            .start();
        let mut kept = Vec::new();
        for _ in 0..3 {
            let session = server.session();
            kept.push((open_stream(&session).await, session));
        }
        let refused = format!("o\nc[4100,\"Over capacity: 3 HTTP sessions are open ({setting})\"]\n");
        for _ in 0..50 {
            assert_eq!(server.session().receive(Receiving::Stream).await.text().await, refused);
        }
        // Sessions that are there go on, and a WebSocket is not counted as one.
        kept[0].1.send(&[]).await;
        assert_eq!(server.api().await.connections().await, 3);
        kept.pop();
        let again = async || server.session().receive(Receiving::Poll).await.text().await;
        eventually("there is room again", again, |answer| answer.starts_with("o\na[")).await;
    }
}

#[tokio::test]
async fn a_shutdown_tells_streams_and_polls_to_reconnect() {
    let mut server =
        TestServer::builder().config(|config| config.server.shutdown_grace = Duration::from_secs(3)).start();
    let streaming = server.session();
    let (_, mut stream) = open_stream(&streaming).await;
    let (polling, between) = (server.session(), server.session());
    open_poll(&polling).await;
    open_poll(&between).await;
    let held = polling.hold_poll().await;
    server.begin_shutdown();
    let goodbye = Line::Closed(4200, "Generic reconnect immediately".to_owned());
    assert_eq!(stream.line().await, Some(goodbye.clone()));
    assert_eq!(held.answer().await.line().await, Some(goodbye.clone()));
    // One that had no request open is told with its next one.
    let mut poll = between.hold_poll().await.answer().await;
    assert_eq!(poll.line().await, Some(goodbye));
    let asked = Instant::now();
    deadline("the server stops", server.stopped()).await;
    assert!(asked.elapsed() < DEADLINE);
}

#[tokio::test]
async fn nobody_keeps_a_stream_without_answering_pings() {
    let server = TestServer::builder()
        .config(|config| config.server.pong_timeout = Duration::from_secs(1))
        .app(|app| app.activity_timeout = Some(Duration::from_secs(1)))
        .start();
    let session = server.session();
    let (_, mut stream) = open_stream(&session).await;
    assert_eq!(events(stream.line().await)[0].name, "pusher:ping");
    // Also browsers whose timers sleep answer this.
    assert_eq!(stream.line().await, Some(Line::Heartbeat));
    session.send(&[]).await;
    assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
    assert_eq!(events(stream.line().await)[0].name, "pusher:ping");
    assert_eq!(stream.line().await, Some(Line::Heartbeat));
    assert_eq!(stream.line().await, Some(Line::Closed(4201, "Pong reply not received".to_owned())));
}

#[tokio::test]
async fn switched_off_there_are_no_such_routes() {
    let server = TestServer::builder().config(|config| config.xhr.enabled = false).start();
    assert_eq!(server.session().receive(Receiving::Poll).await.status, 404);
}

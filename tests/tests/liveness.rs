//! Clients that vanished are noticed, and quiet ones are left alone.

use std::time::Duration;

use fanfare_tests::{Frame, Opcode, TestServer, eventually};
use tokio::{task::yield_now, time::Instant};

fn server() -> TestServer {
    let builder = TestServer::builder().config(|config| {
        config.server.activity_timeout = Duration::from_secs(1);
        config.server.pong_timeout = Duration::from_secs(1);
    });
    builder.start()
}

#[tokio::test]
async fn a_silent_client_is_pinged_in_both_ways_and_closed_with_4201() {
    let server = server();
    let mut client = server.raw().await;
    let start = Instant::now();
    let ping = client.next_event().await;
    assert_eq!((&*ping.name, &*ping.data), ("pusher:ping", "{}"));
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(900), "pinged after {elapsed:?}");
    let control = client.next().await;
    assert_eq!((control.opcode, control.payload.len()), (Opcode::Ping as u8, 0));

    let rest = client.rest().await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0].close_code(), (4201, "Pong reply not received".to_owned()));
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(1900), "closed after {elapsed:?}");
    let mut api = server.api().await;
    eventually("it is counted out", async || api.connections().await, |count| *count == 0).await;
}

#[tokio::test]
async fn a_control_pong_alone_keeps_a_client_alive() {
    let server = server();
    let mut client = server.raw().await;
    for _ in 0..2 {
        assert_eq!(client.next_event().await.name, "pusher:ping");
        assert_eq!(client.next().await.opcode, Opcode::Ping as u8);
        client.send(&Frame::new(Opcode::Pong, [])).await;
    }
    client.subscribe("news").await;
}

#[tokio::test]
async fn a_pusher_pong_keeps_a_client_alive() {
    let server = server();
    let mut client = server.raw().await;
    for _ in 0..2 {
        assert_eq!(client.next_event().await.name, "pusher:ping");
        assert_eq!(client.next().await.opcode, Opcode::Ping as u8);
        client.send_text(r#"{"event":"pusher:pong","data":{}}"#).await;
    }
    client.subscribe("news").await;
}

/// What the server sends says nothing about the client: a stream of events is no sign of life.
#[tokio::test]
async fn events_to_a_silent_client_do_not_keep_it_alive() {
    let server = server();
    let mut client = server.raw().await;
    client.subscribe("news").await;
    let mut api = server.api().await;
    let publish = async {
        while api.connections().await > 0 {
            api.trigger("news", "tick", "").await;
            tokio::task::yield_now().await;
        }
    };
    let (rest, ()) = tokio::join!(client.rest(), publish);
    let last = rest.last().expect("a close frame");
    assert_eq!(last.close_code().0, 4201);
}

#[tokio::test]
async fn a_connection_nobody_vouches_for_is_closed_with_4009() {
    let builder = TestServer::builder().app(|app| app.authorization_timeout = Duration::from_secs(1));
    let server = builder.start();
    let (mut stranger, mut failed) = (server.connect().await, server.connect().await);
    let (mut subscriber, mut member, mut user) =
        (server.connect().await, server.connect().await, server.connect().await);
    subscriber.subscribe("private-room").await;
    member.join("presence-room", "ada").await;
    assert_eq!(user.sign_in(r#"{"id":"bob"}"#).await.name, "pusher:signin_success");
    // Neither a public channel nor a failed attempt counts as an authorisation.
    stranger.subscribe("news").await;
    failed.begin_subscribe(serde_json::json!({"channel": "private-room", "auth": "app-key:0"})).await;

    for client in [&mut stranger, &mut failed] {
        let ended = client.ended().await;
        assert_eq!(ended.code, Some(4009), "{ended:?}");
        assert_eq!(ended.reason, "Connection not authorized within timeout");
        assert_eq!(ended.events.last().and_then(fanfare_tests::Event::code), Some(4009), "{ended:?}");
    }
    for client in [&mut subscriber, &mut member, &mut user] {
        client.settled().await;
    }
    assert_eq!(server.api().await.connections().await, 3);
}

/// Half a frame and then nothing: bytes came, but they stop.
#[tokio::test]
async fn half_a_frame_does_not_keep_a_connection_for_ever() {
    let server = server();
    let mut client = server.raw().await;
    client.send_bytes(&Frame::text(r#"{"event":"pusher:ping"}"#).encode()[..9]).await;
    let rest = client.rest().await;
    assert_eq!(rest.last().expect("a close frame").close_code().0, 4201);
}

/// Too little waits for the bound of the outbox to end it: its silence does.
#[tokio::test]
async fn a_stalled_reader_is_closed_for_its_silence() {
    let server = server();
    // Everything for one is in the kernel's buffers; for the other a part still waits in the server.
    let (mut few, mut many) = (server.raw().await, server.raw().await);
    few.subscribe("few").await;
    many.subscribe("many").await;
    let mut api = server.api().await;
    api.trigger("few", "e", "").await;
    for _ in 0..40 {
        api.trigger("many", "e", &"x".repeat(10_000)).await;
    }
    assert_eq!(api.connections().await, 2);
    eventually("both are closed", async || api.connections().await, |count| *count == 0).await;
    assert_eq!(few.next_event().await.name, "e");
    assert_eq!(few.next_event().await.name, "pusher:ping");
    let rest = few.rest().await;
    assert_eq!((rest.len(), rest[1].close_code().0), (2, 4201));
    many.forgotten().await;
}

/// Its pongs say that it is there, and put off the kernel's own look at it.
#[tokio::test]
async fn a_client_that_talks_but_never_reads_is_given_up() {
    let builder = TestServer::builder().config(|config| config.server.write_timeout = Duration::from_secs(1));
    let server = builder.start();
    let mut client = server.raw().await;
    client.subscribe("news").await;
    let mut api = server.api().await;
    for _ in 0..40 {
        api.trigger("news", "e", &"x".repeat(10_000)).await;
    }
    let pong = Frame::new(Opcode::Pong, []).encode();
    let talk = async || {
        for _ in 0..20 {
            let _ = client.try_send_bytes(&pong).await;
            yield_now().await;
        }
        api.connections().await
    };
    eventually("it is closed", talk, |count| *count == 0).await;
}

/// The end of what a client sends is the end of the client, though it may still be reading.
#[tokio::test]
async fn a_client_that_closed_its_half_has_left() {
    let server = TestServer::start();
    let mut witness = server.connect().await;
    witness.join("presence-room", "witness").await;
    let mut client = server.raw().await;
    let data = r#"{"user_id":"ada"}"#;
    let auth = witness.sign(&format!("{}:presence-room:{data}", client.socket_id));
    let data = serde_json::json!({"channel": "presence-room", "auth": auth, "channel_data": data});
    client.send_text(&serde_json::json!({"event": "pusher:subscribe", "data": data}).to_string()).await;
    assert_eq!(witness.next_event().await.name, "pusher_internal:member_added");
    client.half_close().await;
    assert_eq!(witness.next_event().await.name, "pusher_internal:member_removed");
    let rest = client.rest().await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(rest[0].event().is("pusher_internal:subscription_succeeded", "presence-room"));
}

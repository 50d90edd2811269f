//! WebSocket framing as clients may send it, and as they must not.

use fanfare_tests::{Frame, Opcode, RawClient, TestServer, eventually};

const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;

async fn assert_pong(client: &mut RawClient) {
    let event = client.next_event().await;
    assert_eq!((&*event.name, &*event.data), ("pusher:pong", "{}"));
}

/// Sends frames that break the protocol, and checks how the connection ends.
async fn assert_closed(bytes: &[u8], code: u16) {
    let server = TestServer::builder().config(|config| config.server.workers = 1).start();
    let mut client = server.raw().await;
    client.send_bytes(bytes).await;
    let rest = client.rest().await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    let (actual, reason) = rest[0].close_code();
    assert_eq!(actual, code, "{reason}");
    assert!(!reason.is_empty());
    let mut api = server.api().await;
    eventually("it is counted out", async || api.connections().await, |count| *count == 0).await;
}

#[tokio::test]
async fn fragments_make_one_message_and_control_frames_may_come_between() {
    let server = TestServer::start();
    let mut client = server.raw().await;
    let (first, rest) = PING.split_at(7);
    let (second, third) = rest.split_at(5);
    client.send(&Frame::text(first).unfinished()).await;
    client.send(&Frame::new(Opcode::Ping, "between")).await;
    client.send(&Frame::new(Opcode::Continuation, second).unfinished()).await;
    client.send(&Frame::new(Opcode::Pong, "")).await;
    client.send(&Frame::new(Opcode::Continuation, "").unfinished()).await;
    client.send(&Frame::new(Opcode::Continuation, third)).await;
    let pong = client.next().await;
    assert_eq!((pong.opcode, &*pong.payload), (Opcode::Pong as u8, b"between".as_slice()));
    assert_pong(&mut client).await;
    // The next message begins afresh.
    client.send_text(PING).await;
    assert_pong(&mut client).await;
}

/// A character may be cut by a fragment's end: only the whole message has to be UTF-8.
#[tokio::test]
async fn a_fragment_may_end_inside_a_character() {
    let server = TestServer::start();
    let mut client = server.raw().await;
    let text = r#"{"event":"pusher:subscribe","data":{"channel":"é"}}"#.as_bytes();
    let middle = text.iter().position(|byte| *byte == 0xC3).expect("an é") + 1;
    client.send(&Frame::new(Opcode::Text, &text[..middle]).unfinished()).await;
    client.send(&Frame::new(Opcode::Continuation, &text[middle..])).await;
    let error = client.next_event().await;
    assert_eq!(error.code(), None);
    assert!(error.data.contains("Invalid channel name 'é'"), "{error:?}");
}

#[tokio::test]
async fn a_message_may_be_cut_at_every_byte() {
    let server = TestServer::start();
    let mut client = server.raw().await;
    for length in [PING.len(), 200, 60_000] {
        let bytes = Frame::text(&format!("{PING}{:1$}", "", length - PING.len())).encode();
        let cuts: Vec<_> = (1..bytes.len().min(24)).chain([bytes.len() / 2, bytes.len() - 1]).collect();
        for cut in cuts {
            client.send_bytes(&bytes[..cut]).await;
            client.send_bytes(&bytes[cut..]).await;
            assert_pong(&mut client).await;
        }
    }
    for byte in Frame::text(PING).encode() {
        client.send_bytes(&[byte]).await;
    }
    assert_pong(&mut client).await;
}

#[tokio::test]
async fn many_frames_in_one_segment_are_taken_in_order() {
    let server = TestServer::start();
    let mut client = server.raw().await;
    let mut bytes = Vec::new();
    for number in 0..300 {
        let data = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"c{number}"}}}}"#);
        bytes.extend(Frame::text(&data).encode());
    }
    bytes.extend(Frame::text(PING).encode());
    let mut half = Frame::text(PING).encode();
    let rest = half.split_off(8);
    bytes.extend(half);
    client.send_bytes(&bytes).await;
    for number in 0..300 {
        let event = client.next_event().await;
        assert!(event.is("pusher_internal:subscription_succeeded", &format!("c{number}")), "{event:?}");
    }
    assert_pong(&mut client).await;
    client.send_bytes(&rest).await;
    assert_pong(&mut client).await;
}

/// Frames may come in the segment of the handshake, before its answer is read.
#[tokio::test]
async fn frames_right_behind_the_handshake_are_taken() {
    let server = TestServer::start();
    let subscribe = Frame::text(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#).encode();
    let mut half = Frame::text(PING).encode();
    let rest = half.split_off(3);
    let mut client = server.raw_with(&[subscribe, half].concat()).await;
    assert!(client.next_event().await.is("pusher_internal:subscription_succeeded", "news"));
    client.send_bytes(&rest).await;
    assert_pong(&mut client).await;
}

#[tokio::test]
async fn binary_messages_with_json_count_as_text() {
    let server = TestServer::start();
    let mut client = server.raw().await;
    client.send(&Frame::new(Opcode::Binary, PING)).await;
    assert_pong(&mut client).await;
    client.send(&Frame::new(Opcode::Binary, [0xff, 0xfe])).await;
    assert_eq!(client.next_event().await.code(), None);
    client.send_text(PING).await;
    assert_pong(&mut client).await;
}

#[tokio::test]
async fn the_payload_of_a_ping_comes_back() {
    let server = TestServer::start();
    let mut client = server.raw().await;
    for payload in [&b""[..], b"x", &[0; 125]] {
        client.send(&Frame::new(Opcode::Ping, payload)).await;
        let pong = client.next().await;
        assert_eq!((pong.opcode, &*pong.payload), (Opcode::Pong as u8, payload));
    }
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_code_and_nothing_more() {
    let server = TestServer::start();
    for (frame, code) in [
        (Frame::close(1000, "bye"), 1000),
        (Frame::close(1001, ""), 1001),
        (Frame::close(4999, "mine"), 4999),
        (Frame::new(Opcode::Close, []), 1000),
    ] {
        let mut client = server.raw().await;
        client.send(&frame).await;
        let rest = client.rest().await;
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert_eq!(rest[0].close_code().0, code);
    }
    let mut api = server.api().await;
    eventually("all are counted out", async || api.connections().await, |count| *count == 0).await;
}

/// What was asked for before the goodbye is answered before the goodbye.
#[tokio::test]
async fn frames_before_a_close_frame_in_one_segment_are_acted_on() {
    let server = TestServer::start();
    let mut witness = server.connect().await;
    witness.subscribe("private-room").await;
    let mut client = server.raw().await;
    let auth = witness.sign(&format!("{}:private-room", client.socket_id));
    let subscribe = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"private-room","auth":"{auth}"}}}}"#);
    let bye = r#"{"event":"client-bye","channel":"private-room","data":"see you"}"#;
    let bytes = [Frame::text(&subscribe).encode(), Frame::text(bye).encode(), Frame::close(1000, "").encode()];
    client.send_bytes(&bytes.concat()).await;
    let rest = client.rest().await;
    assert_eq!(rest.last().expect("a close frame").close_code().0, 1000);
    assert_eq!(witness.next_event().await.data, "see you");
}

#[tokio::test]
async fn an_error_costs_no_connection_as_long_as_the_frames_are_sound() {
    let server = TestServer::start();
    let mut client = server.raw().await;
    for text in ["", "{", "[]", "null", r#"{"event":7}"#, r#"{"event":"pusher:nonsense"}"#, "\u{0}", "\"\u{1F600}\""] {
        client.send_text(text).await;
        let error = client.next_event().await;
        assert_eq!((&*error.name, error.data_is_string, error.code()), ("pusher:error", false, None), "{text}");
    }
    client.send_text(PING).await;
    assert_pong(&mut client).await;
}

#[tokio::test]
async fn a_message_as_large_as_allowed_is_taken_and_one_byte_more_is_not() {
    let server = TestServer::builder().config(|config| config.server.max_message_bytes = 4096).start();
    let padded = |length: usize| format!("{PING}{:1$}", "", length - PING.len());
    let mut client = server.raw().await;
    client.send_text(&padded(4096)).await;
    assert_pong(&mut client).await;
    client.send(&Frame::text(&padded(4000)).unfinished()).await;
    client.send(&Frame::new(Opcode::Continuation, [b' '; 96])).await;
    assert_pong(&mut client).await;

    client.send_text(&padded(4097)).await;
    assert_eq!(client.rest().await[0].close_code().0, 1009);
    let mut client = server.raw().await;
    client.send(&Frame::text(&padded(4000)).unfinished()).await;
    client.send(&Frame::new(Opcode::Continuation, [b' '; 97]).unfinished()).await;
    assert_eq!(client.rest().await[0].close_code().0, 1009);
    // The length alone is enough: nobody waits for what will not be taken.
    for head in [[0x81, 0xFE, 0x10, 0x01].as_slice(), &[0x81, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0]] {
        let mut client = server.raw().await;
        client.send_bytes(head).await;
        assert_eq!(client.rest().await[0].close_code().0, 1009);
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_closes_with_1007() {
    for payload in [&b"\xff"[..], b"{\"event\":\"\xc3\"}", b"\xed\xa0\x80"] {
        assert_closed(&Frame::new(Opcode::Text, payload).encode(), 1007).await;
    }
    let fragments = [
        Frame::new(Opcode::Text, b"\xc3".as_slice()).unfinished().encode(),
        Frame::new(Opcode::Continuation, "x").encode(),
    ];
    assert_closed(&fragments.concat(), 1007).await;
}

#[tokio::test]
async fn reserved_bits_and_opcodes_close_with_1002() {
    for rsv in [1, 2, 4] {
        assert_closed(&Frame { rsv, ..Frame::text(PING) }.encode(), 1002).await;
    }
    for opcode in [3, 7, 11, 15] {
        assert_closed(&Frame { opcode, ..Frame::text(PING) }.encode(), 1002).await;
    }
}

#[tokio::test]
async fn an_unmasked_frame_closes_with_1002() {
    assert_closed(&Frame { masked: false, ..Frame::text(PING) }.encode(), 1002).await;
}

#[tokio::test]
async fn broken_fragments_and_control_frames_close_with_1002() {
    let broken = [
        // A continuation of nothing.
        vec![Frame::new(Opcode::Continuation, "x")],
        // A message inside another.
        vec![Frame::text("x").unfinished(), Frame::text("x")],
        vec![Frame::text("x").unfinished(), Frame::text("x").unfinished()],
        // Control frames are small and whole.
        vec![Frame::new(Opcode::Ping, "").unfinished()],
        vec![Frame::new(Opcode::Ping, [b'x'; 126])],
        vec![Frame::new(Opcode::Close, [b'x'; 126])],
        // A close code is two bytes.
        vec![Frame::new(Opcode::Close, [3])],
    ];
    for frames in broken {
        println!("{frames:?}");
        assert_closed(&frames.iter().flat_map(Frame::encode).collect::<Vec<_>>(), 1002).await;
    }
}

//! Every vector of `vectors/`: what real SDKs signed and sent, and what real clients put on the wire.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a vector without its fields is a broken vector")]

use fanfare_protocol::{
    AppSecret, ChannelName, ClientEvent, Signer, SocketId,
    json::EventData,
    limits,
    presence::{Member, MemberLimits, User},
    request::{Query, RequestError, SignedRequest},
    server_event,
    signature::{self, AuthError, channel_string, user_string},
    trigger::{Event, EventLimits},
    webhook::{self, WebhookEvent},
};
use serde_json::Value;

const MEMBER_LIMITS: MemberLimits = MemberLimits { user_id: limits::USER_ID_CHARS, user_info: limits::USER_INFO_BYTES };

/// The vectors of a file. The count is spelt out, so that none is lost unnoticed.
fn vectors(file: &str, count: usize) -> Vec<Value> {
    let mut document: Value = serde_json::from_str(file).unwrap();
    let Value::Array(vectors) = document["vectors"].take() else { panic!("no vectors") };
    assert_eq!(vectors.len(), count, "vectors in the file");
    vectors
}

fn text<'a>(vector: &'a Value, pointer: &str) -> &'a str {
    optional(vector, pointer).unwrap_or_else(|| panic!("{}: no text at {pointer}", vector["id"]))
}

fn optional<'a>(vector: &'a Value, pointer: &str) -> Option<&'a str> {
    vector.pointer(pointer).and_then(Value::as_str)
}

fn signer(vector: &Value) -> Signer {
    Signer::new(&AppSecret::new(text(vector, "/input/secret")))
}

/// `signature` with another hex digit at each of its places, and once in upper case.
fn wrong_signatures(signature: &str) -> Vec<String> {
    let mut wrong: Vec<String> = (0..signature.len())
        .map(|place| {
            let other = if &signature[place..=place] == "0" { "1" } else { "0" };
            format!("{}{other}{}", &signature[..place], &signature[place + 1..])
        })
        .collect();
    wrong.push(signature.to_uppercase());
    wrong.push(signature[1..].to_owned());
    wrong.push(format!("{signature}0"));
    wrong
}

/// `bytes` with one bit changed, at each of its places; nothing becomes something.
fn changed(bytes: &[u8]) -> Vec<Vec<u8>> {
    if bytes.is_empty() {
        return vec![b"{".to_vec()];
    }
    let flip = |place: usize| {
        let mut bytes = bytes.to_vec();
        bytes[place] ^= 1;
        bytes
    };
    (0..bytes.len()).map(flip).collect()
}

#[test]
fn channel_auth() {
    let mut verified_whole = 0;
    for vector in vectors(include_str!("vectors/channel_auth.json"), 15) {
        let id = text(&vector, "/id");
        let (key, channel) = (text(&vector, "/input/key"), text(&vector, "/input/channel"));
        let socket_id = text(&vector, "/input/socket_id");
        let (auth, data) = (text(&vector, "/expected/auth"), optional(&vector, "/expected/channel_data"));
        let signer = signer(&vector);

        let string = channel_string(socket_id, channel, data);
        assert_eq!(string, text(&vector, "/string_to_sign"), "{id}");
        let (sent_key, signature) = auth.split_once(':').unwrap();
        assert_eq!(sent_key, key, "{id}");
        assert_eq!(signer.sign(&[string.as_bytes()]), signature, "{id}");
        assert!(signer.verify(&[string.as_bytes()], signature), "{id}");
        for wrong in wrong_signatures(signature) {
            assert!(!signer.verify(&[string.as_bytes()], &wrong), "{id}: {wrong}");
        }
        for other in changed(string.as_bytes()) {
            assert!(!signer.verify(&[&other], signature), "{id}: {}", String::from_utf8_lossy(&other));
        }

        let name = ChannelName::parse(channel, limits::CHANNEL_NAME_BYTES).unwrap();
        assert_eq!(name.kind().presence, data.is_some(), "{id}");
        assert_eq!(name.kind().encrypted, optional(&vector, "/expected/shared_secret").is_some(), "{id}");
        if let Some(data) = data {
            let member = Member::from_channel_data(data, MEMBER_LIMITS).unwrap();
            let object = &vector["input"]["channel_data_object"];
            assert_eq!(*member.user_id, object["user_id"].to_string().replace('"', ""), "{id}");
            let info: Option<Value> = member.user_info.map(|info| serde_json::from_str(&info).unwrap());
            assert_eq!(info.as_ref(), object.get("user_info"), "{id}");
        }

        assert!(SocketId::is_well_formed(socket_id), "{id}");
        let Ok(socket_id) = socket_id.parse::<SocketId>() else { continue };
        verified_whole += 1;
        let verify = |auth: &str, channel: &str, data: Option<&str>| {
            signature::verify_channel(auth, socket_id, channel, data, |asked| (asked == key).then_some(&signer))
        };
        assert_eq!(verify(auth, channel, data), Ok(()), "{id}");
        assert_eq!(verify(&format!("x{auth}"), channel, data), Err(AuthError::Key(format!("x{key}"))), "{id}");
        assert!(matches!(verify(key, channel, data), Err(AuthError::Signature { .. })), "{id}");
        assert!(matches!(verify(auth, &format!("{channel}x"), data), Err(AuthError::Signature { .. })), "{id}");
        assert!(matches!(verify(auth, channel, Some("{}")), Err(AuthError::Signature { .. })), "{id}");
    }
    assert_eq!(verified_whole, 13, "vectors with a socket id that this server could have given out");
}

#[test]
fn user_auth() {
    for vector in vectors(include_str!("vectors/user_auth.json"), 5) {
        let id = text(&vector, "/id");
        let (key, socket_id) = (text(&vector, "/input/key"), text(&vector, "/input/socket_id"));
        let (auth, data) = (text(&vector, "/expected/auth"), text(&vector, "/expected/user_data"));
        let signer = signer(&vector);

        assert_eq!(user_string(socket_id, data), text(&vector, "/string_to_sign"), "{id}");
        let socket_id = socket_id.parse::<SocketId>().unwrap();
        let verify = |auth: &str, data: &str| {
            signature::verify_user(auth, socket_id, data, |asked| (asked == key).then_some(&signer))
        };
        assert_eq!(verify(auth, data), Ok(()), "{id}");
        let (_, signature) = auth.split_once(':').unwrap();
        for wrong in wrong_signatures(signature) {
            assert!(verify(&format!("{key}:{wrong}"), data).is_err(), "{id}: {wrong}");
        }
        assert!(verify(auth, &format!("{data} ")).is_err(), "{id}");

        let user = User::from_user_data(data, MEMBER_LIMITS).unwrap();
        let object = &vector["input"]["user_data_object"];
        assert_eq!(Some(&*user.member.user_id), object["id"].as_str(), "{id}");
        let info: Option<Value> = user.member.user_info.map(|info| serde_json::from_str(&info).unwrap());
        assert_eq!(info.as_ref(), object.get("user_info"), "{id}");
        let watchlist: Vec<_> =
            object["watchlist"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(user.watchlist.iter().map(|id| &**id).collect::<Vec<_>>(), watchlist, "{id}");
    }
}

/// A request of `http_signature.json`.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    body: &'a [u8],
    key: &'a str,
    now: u64,
}

impl Request<'_> {
    fn verify(&self, signer: &Signer) -> Result<(), RequestError> {
        let query = Query::parse(self.query);
        SignedRequest { method: self.method, path: self.path, prefix: "", query: &query, body: self.body }
            .verify(self.now, |key| (key == self.key).then_some(signer))
    }
}

#[test]
fn http_signature() {
    let mut also = 0;
    for vector in vectors(include_str!("vectors/http_signature.json"), 25) {
        let id = text(&vector, "/id");
        let signer = signer(&vector);
        let (path, query) = text(&vector, "/wire_request_target").split_once('?').unwrap();
        let request = Request {
            method: text(&vector, "/input/method"),
            path,
            query,
            body: optional(&vector, "/input/body").unwrap_or_default().as_bytes(),
            key: text(&vector, "/input/key"),
            now: text(&vector, "/input/auth_timestamp").parse().unwrap(),
        };
        assert_eq!(request.verify(&signer), Ok(()), "{id}");
        if let Some(query) = optional(&vector, "/also_must_verify_query") {
            also += 1;
            assert_eq!(Request { query, ..request }.verify(&signer), Ok(()), "{id}, encoded");
        }

        let signature = text(&vector, "/expected_auth_signature");
        for wrong in wrong_signatures(signature) {
            let query = query.replace(signature, &wrong);
            let error = Request { query: &query, ..request }.verify(&signer).unwrap_err();
            let RequestError::Signature { string_to_sign, given } = error else { panic!("{id}: {error}") };
            assert_eq!(given, wrong, "{id}");
            if path == text(&vector, "/input/path") {
                assert_eq!(string_to_sign, text(&vector, "/string_to_sign"), "{id}");
            }
        }
        for body in changed(request.body) {
            let error = Request { body: &body, ..request }.verify(&signer).unwrap_err();
            assert!(matches!(error, RequestError::BodyMd5 { .. } | RequestError::BodyMd5Missing), "{id}: {error}");
        }
        for path in changed(path.as_bytes()) {
            let path = String::from_utf8(path).unwrap();
            let error = Request { path: &path, ..request }.verify(&signer).unwrap_err();
            assert!(matches!(error, RequestError::Signature { .. }), "{id}: {path}: {error}");
        }
        let more = format!("{query}&more=1");
        let error = Request { query: &more, ..request }.verify(&signer).unwrap_err();
        assert!(matches!(error, RequestError::Signature { .. }), "{id}: {error}");
        let error = Request { now: request.now + 600, ..request }.verify(&signer).unwrap_err();
        assert!(matches!(error, RequestError::TimestampExpired { .. }), "{id}: {error}");
    }
    assert_eq!(also, 2, "vectors with a second query");
}

/// The event of a webhook body, made from its JSON.
fn webhook_event(event: &Value) -> WebhookEvent {
    let field = |key: &str| -> Box<str> { event[key].as_str().unwrap().into() };
    let channel = field("channel");
    match &*field("name") {
        "channel_occupied" => WebhookEvent::ChannelOccupied { channel },
        "channel_vacated" => WebhookEvent::ChannelVacated { channel },
        "member_added" => WebhookEvent::MemberAdded { channel, user_id: field("user_id") },
        "member_removed" => WebhookEvent::MemberRemoved { channel, user_id: field("user_id") },
        "client_event" => WebhookEvent::ClientEvent {
            channel,
            event: field("event"),
            data: field("data"),
            socket_id: field("socket_id"),
            user_id: event.get("user_id").map(|_| field("user_id")),
        },
        "cache_miss" => WebhookEvent::CacheMiss { channel },
        "subscription_count" => {
            let count = event["subscription_count"].as_u64().unwrap();
            WebhookEvent::SubscriptionCount { channel, subscription_count: count.try_into().unwrap() }
        }
        name => panic!("unknown event {name}"),
    }
}

#[test]
fn webhooks() {
    for vector in vectors(include_str!("vectors/webhook.json"), 8) {
        let id = text(&vector, "/id");
        let signer = signer(&vector);
        let body = text(&vector, "/input/body");

        let parsed: Value = serde_json::from_str(body).unwrap();
        let events: Vec<_> = parsed["events"].as_array().unwrap().iter().map(webhook_event).collect();
        let ours = webhook::body(parsed["time_ms"].as_u64().unwrap(), &events);
        assert_eq!(String::from_utf8(ours).unwrap(), body, "{id}");

        let signature = text(&vector, "/expected/headers/X-Pusher-Signature");
        assert_eq!(signer.sign(&[body.as_bytes()]), signature, "{id}");
        assert!(signer.verify(&[body.as_bytes()], signature), "{id}");
        for body in changed(body.as_bytes()) {
            assert!(!signer.verify(&[&body], signature), "{id}");
        }
    }
}

#[test]
fn encrypted_data_passes_byte_for_byte() {
    for vector in vectors(include_str!("vectors/encrypted.json"), 5) {
        let id = text(&vector, "/id");
        let channel = text(&vector, "/input/channel");
        // Two vectors hold the data alone, without the request around it.
        let body = match vector.pointer("/expected/request_body_object") {
            Some(body) => body.clone(),
            None => serde_json::json!({"name": "ev", "data": vector["expected"]["data"], "channels": [channel]}),
        };
        let sent = body["data"].as_str().unwrap();
        let as_node_writes = body.to_string();
        let as_php_writes = as_node_writes.replace('/', "\\/");
        assert!(ChannelName::parse(channel, limits::CHANNEL_NAME_BYTES).unwrap().kind().encrypted, "{id}");

        for body in [as_node_writes, as_php_writes] {
            let query = Query::default();
            let event = Event::parse(body.as_bytes(), &query, &EventLimits::default()).unwrap();
            assert_eq!((&*event.name, &*event.channels), ("ev", &[channel.into()][..]), "{id}");
            let frame = server_event::channel_event(&event.name, channel, &event.data, None);
            let frame: Value = serde_json::from_slice(&frame).unwrap();
            assert_eq!(frame["data"].as_str(), Some(sent), "{id}");
        }
    }
}

#[test]
fn frames_of_pusher_js() {
    let document: Value = serde_json::from_str(include_str!("vectors/client_frames.json")).unwrap();
    let frames: Vec<_> = document["frames"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let signer = Signer::new(&AppSecret::new("app-secret"));
    let find = |key: &str| (key == "app-key").then_some(&signer);
    let socket_id: SocketId = "55.66".parse().unwrap();

    let mut seen = Vec::new();
    for frame in frames {
        let sent: Value = serde_json::from_str(frame).unwrap();
        let sent_data = |key: &str| sent["data"][key].as_str();
        seen.push(match ClientEvent::parse(frame.as_bytes()).unwrap() {
            ClientEvent::Subscribe(subscribe) => {
                assert_eq!(Some(subscribe.channel()), sent_data("channel"));
                assert_eq!(Some(subscribe.auth()), sent_data("auth"));
                assert_eq!(subscribe.channel_data(), sent_data("channel_data"));
                let channel = ChannelName::parse(subscribe.channel(), limits::CHANNEL_NAME_BYTES).unwrap();
                if channel.kind().auth {
                    let data = subscribe.channel_data();
                    let verified = signature::verify_channel(subscribe.auth(), socket_id, channel.as_str(), data, find);
                    assert_eq!(verified, Ok(()), "{channel}");
                }
                format!("subscribe {channel}")
            }
            ClientEvent::Unsubscribe { channel } => format!("unsubscribe {channel}"),
            ClientEvent::SignIn(sign_in) => {
                let data = sign_in.user_data();
                assert_eq!(Some(data), sent_data("user_data"));
                assert_eq!(signature::verify_user(sign_in.auth(), socket_id, data, find), Ok(()));
                format!("signin {}", User::from_user_data(data, MEMBER_LIMITS).unwrap().member.user_id)
            }
            ClientEvent::Recover(recover) => panic!("pusher-js sends no {recover:?}"),
            ClientEvent::Ping => "ping".to_owned(),
            ClientEvent::Pong => "pong".to_owned(),
            ClientEvent::Relay(relay) => {
                let data = EventData::from_value(relay.data.unwrap()).unwrap();
                format!("{} to {}: {}", relay.event, relay.channel.unwrap(), data.text())
            }
        });
    }
    assert_eq!(
        seen,
        [
            "subscribe pub",
            "subscribe cache-d",
            "signin u1",
            "subscribe private-a",
            "subscribe #server-to-user-u1",
            "client-x to private-a: {\"a\":1}",
            "client-s to private-a: str",
            "subscribe presence-b",
            "subscribe private-encrypted-c",
            "ping",
            "unsubscribe pub",
        ]
    );
}

//! What holds for any input: parsers never panic, and what goes in comes out on the other side.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the property")]

use std::time::Duration;

use fanfare_protocol::{
    AppSecret, ChannelKind, ChannelName, ClientEvent, CloseCode, Position, Signer, SocketId,
    channel::SERVER_TO_USER,
    json::{self, EventData},
    limits,
    presence::{Member, MemberLimits, User},
    request::{Query, SignedRequest, signed_query},
    server_event::{self, MemberFragments},
    trigger::{Event, EventLimits, Info},
};
use proptest::{collection::vec, option, prelude::*, sample::Index};
use serde_json::{Value, value::RawValue};

const NO_LIMITS: MemberLimits = MemberLimits { user_id: usize::MAX, user_info: usize::MAX };
const NOW: u64 = 1_700_000_000;

/// Any text, control characters and all planes of Unicode included.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        vec(any::<char>(), 0..24).prop_map(String::from_iter),
        "[ -~]{0,24}",
        r#"["\\/\u{0}-\u{20}%+&=:.\u{7f}-\u{a0}\u{2028}]{0,12}"#,
    ]
}

/// A JSON string literal and the text it stands for: each character raw or escaped in one of the ways JSON knows.
fn literal() -> impl Strategy<Value = (String, String)> {
    text().prop_flat_map(|text| {
        let ways = vec(0..3_u8, text.chars().count());
        (ways, Just(text)).prop_map(|(ways, text)| (write_literal(&text, &ways), text))
    })
}

fn write_literal(text: &str, ways: &[u8]) -> String {
    let mut out = String::from("\"");
    for (character, way) in text.chars().zip(ways) {
        match (way, character) {
            (0, _) | (_, '"' | '\\' | '\0'..='\x1f') => out.push_str(&json::escaped(&character.to_string())),
            (1, '/') => out.push_str("\\/"),
            (1, _) => out.push(character),
            (..) => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
    out
}

/// A JSON document as pieces between which white space may stand.
fn tokens() -> impl Strategy<Value = Vec<String>> {
    let number = r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?";
    let leaf = prop_oneof![
        number.prop_map(|number| vec![number]),
        literal().prop_map(|(literal, _)| vec![literal]),
        prop::sample::select(vec!["null", "true", "false"]).prop_map(|word| vec![word.to_owned()]),
    ];
    let token = |token: &str| std::iter::once(token.to_owned());
    let joined = move |open: &str, items: Vec<Vec<String>>, close: &str| -> Vec<String> {
        let mut out: Vec<_> = token(open).collect();
        for (index, item) in items.into_iter().enumerate() {
            out.extend(token(",").filter(|_| index > 0));
            out.extend(item);
        }
        out.extend(token(close));
        out
    };
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let array = vec(inner.clone(), 0..4).prop_map(move |items| joined("[", items, "]"));
        let entry = (literal(), inner).prop_map(|((key, _), value)| [vec![key, ":".to_owned()], value].concat());
        prop_oneof![array, vec(entry, 0..4).prop_map(move |entries| joined("{", entries, "}"))]
    })
}

/// A JSON document without and with white space.
fn document() -> impl Strategy<Value = (String, String)> {
    let spaces = vec("[ \t\r\n]{0,2}", 1..8);
    (tokens(), spaces).prop_map(|(tokens, spaces)| {
        let spaced = tokens.iter().zip(spaces.iter().cycle()).map(|(token, space)| format!("{space}{token}"));
        (tokens.concat(), spaced.collect())
    })
}

fn members() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
    let id = text().prop_filter("an id is not empty", |id| !id.is_empty());
    let info = option::of(document().prop_map(|(compact, _)| compact));
    prop::collection::btree_map(id, info, 0..5).prop_map(|members| members.into_iter().collect())
}

fn fragments((user_id, user_info): &(String, Option<String>)) -> MemberFragments {
    MemberFragments::new(&Member { user_id: user_id.as_str().into(), user_info: user_info.as_deref().map(Into::into) })
}

/// What a client reads of an info; `null` when there is none.
fn info_value(info: Option<&str>) -> Value {
    serde_json::from_str(info.unwrap_or("null")).unwrap()
}

/// A frame as a client reads it: the envelope, and the text in its `data`.
fn decode(frame: &[u8]) -> (Value, String) {
    let frame: Value = serde_json::from_slice(frame).unwrap();
    assert!(frame["event"].is_string());
    let data = frame["data"].as_str().unwrap().to_owned();
    (frame, data)
}

/// A frame of the protocol's own: its `data` holds a JSON object.
fn decode_twice(frame: &[u8], event: &str, channel: Option<&str>) -> Value {
    let (frame, data) = decode(frame);
    assert_eq!(frame["event"], event);
    assert_eq!(frame.get("channel").map(|channel| channel.as_str().unwrap()), channel);
    let data: Value = serde_json::from_str(&data).unwrap();
    assert!(data.is_object());
    data
}

/// Texts that parsers take, then spoilt in a few places, so that inputs get past the first check.
fn spoilt(samples: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<Index>(), 0..3_u8, prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}[],:%&=+u"[..])]);
    (prop::sample::select(samples), vec(change, 0..4)).prop_map(|(sample, changes)| {
        let mut bytes = sample.as_bytes().to_vec();
        for (place, way, byte) in changes {
            let place = place.index(bytes.len().max(1));
            match way {
                0 => bytes.insert(place, byte),
                1 if place < bytes.len() => bytes[place] = byte,
                _ if place < bytes.len() => drop(bytes.remove(place)),
                _ => {}
            }
        }
        bytes
    })
}

const FRAMES: &[&str] = &[
    r#"{"event":"pusher:subscribe","data":{"auth":"k:0a","channel":"presence-b","channel_data":"{\"user_id\":\"u\"}"}}"#,
    r#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\",\"auth\":null}"}"#,
    r#"{"event":"pusher:unsubscribe","data":{"channel":"\u0061\ud83d\ude00"}}"#,
    r#"{"event":"pusher:signin","data":{"auth":"k:0a","user_data":"{\"id\":\"u1\"}"}}"#,
    r#"{"event":"client-x","data":{"a":[1.0,"\u00e9",null]},"channel":"private-a"}"#,
    r#"{"event":"pusher:ping","data":""}"#,
];

const TRIGGERS: &[&str] = &[
    r#"{"name":"e","data":"{\"a\":\"\\\/\u00e9\"}","channels":["a","presence-b"],"socket_id":"1.2","info":"user_count"}"#,
    r#"{"batch":[{"name":"e","data":{"a":1},"channel":"a"},{"name":"f","data":"\ud83d\ude00","channel":"b"}]}"#,
];

const USERS: &[&str] = &[
    r#"{"user_id":10,"user_info":{"name":"Zo\u00eb \/"}}"#,
    r#"{"user_id":"a","user_info":["\ud83d\ude00\ud800",1e9]}"#,
    r#"{"id":"u1","user_info":[1.0],"watchlist":["u2",3,null]}"#,
];

const QUERIES: &[&str] = &[
    "auth_key=key&auth_timestamp=1700000000&auth_version=1.0&body_md5=d41d8cd98f00b204e9800998ecf8427e&auth_signature=",
    "auth_key=key&auth_timestamp=1700000000&auth_version=1.0&info=a%2Cb+c&channels[]=a&channels[]=b&%zz=%&auth_signature=0000000000000000000000000000000000000000000000000000000000000000",
];

fn signer() -> Signer {
    Signer::new(&AppSecret::new("secret"))
}

fn verify(method: &str, path: &str, prefix: &str, query: &str, body: &[u8]) -> bool {
    let (query, signer) = (Query::parse(query), signer());
    let request = SignedRequest { method, path, prefix, query: &query, body };
    let result = request.verify(NOW, |key| (key == "key").then_some(&signer));
    result.map_err(|error| error.to_string()).is_ok()
}

/// Feeds every parser of JSON. Errors have a text, and a valid result can be encoded.
fn parse_everything(bytes: &[u8]) {
    match ClientEvent::parse(bytes) {
        Ok(ClientEvent::Relay(relay)) => {
            if let Some(Ok(data)) = relay.data.map(EventData::from_value) {
                let channel = relay.channel.as_deref().unwrap_or_default();
                decode(&server_event::channel_event(&relay.event, channel, &data, None));
            }
        }
        Ok(event) => drop(format!("{event:?}")),
        Err(error) => drop(error.to_string()),
    }
    let (query, limits) = (Query::default(), EventLimits::default());
    let events = match Event::parse_batch(bytes, &limits) {
        Ok(events) => events,
        Err(error) => Vec::from_iter(error.to_string().is_empty().then(|| panic!("no text"))),
    };
    for event in events.iter().chain(Event::parse(bytes, &query, &limits).as_ref()) {
        let frame = server_event::channel_event(&event.name, &event.channels[0], &event.data, None);
        assert_eq!(decode(&frame).1, event.data.text());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(member) = Member::from_channel_data(text, NO_LIMITS) {
        decode_twice(
            &server_event::member_added("c", &MemberFragments::new(&member)),
            "pusher_internal:member_added",
            Some("c"),
        );
    }
    if let Ok(user) = User::from_user_data(text, NO_LIMITS) {
        decode_twice(&server_event::signin_success(text), "pusher:signin_success", None);
        assert!(!user.member.user_id.is_empty());
    }
}

proptest! {
    #[test]
    fn parsers_of_json_take_any_bytes(bytes in prop_oneof![
        vec(any::<u8>(), 0..64),
        spoilt(FRAMES),
        spoilt(TRIGGERS),
        spoilt(USERS),
        document().prop_map(|(_, spaced)| spaced.into_bytes()),
    ]) {
        parse_everything(&bytes);
    }

    #[test]
    fn verification_takes_any_request(
        method in text(),
        path in prop_oneof![text(), "/[%a-f0-9/]{0,8}"],
        prefix in prop_oneof![Just(String::new()), Just("/".to_owned()), text()],
        query in prop_oneof![
            text(),
            spoilt(QUERIES).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        ],
        body in vec(any::<u8>(), 0..16),
    ) {
        prop_assert!(!verify(&method, &path, &prefix, &query, &body), "an unsigned request was let in");
    }

    #[test]
    fn names_and_ids_take_any_text(name in prop_oneof![text(), "[#a-z-]{0,32}"], max_length in 0..64_usize) {
        let _ = ChannelKind::of(&name);
        let _ = Info::parse(&name);
        for name in [name.clone(), format!("{SERVER_TO_USER}{name}")] {
            match ChannelName::parse(&name, max_length) {
                Ok(channel) => {
                    prop_assert_eq!(channel.as_str(), &name);
                    prop_assert_eq!(channel.kind(), ChannelKind::of(&name));
                    prop_assert_eq!(channel.user_id().is_some(), channel.kind().user);
                    prop_assert!(channel.kind().user || name.len() <= max_length);
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn a_socket_id_reads_back_what_it_prints(high: u32, low: u32) {
        let id = SocketId::from_random(high, low);
        prop_assert!(SocketId::is_well_formed(&id.to_string()));
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn a_text_is_a_socket_id_only_if_the_id_prints_it(id in prop_oneof![text(), "[0-9]{0,11}[.][0-9]{0,11}", "[0-9.+-]{0,8}"]) {
        if let Ok(parsed) = id.parse::<SocketId>() {
            prop_assert!(SocketId::is_well_formed(&id));
            prop_assert_eq!(parsed.to_string(), id);
        }
    }

    #[test]
    fn published_text_arrives_unchanged((literal, data) in literal(), name in "[^\u{0}]{1,8}") {
        let body = format!(r#"{{ "name": {}, "channels": ["a"], "data": {literal} }}"#, Value::from(name.as_str()));
        let query = Query::default();
        let event = Event::parse(body.as_bytes(), &query, &EventLimits::default()).unwrap();
        prop_assert_eq!(event.data.text(), data.as_str());
        prop_assert_eq!(event.data.is_longer_than(data.len()), false);
        prop_assert_eq!(event.data.is_longer_than(data.len().saturating_sub(1)), !data.is_empty());
        let (frame, arrived) = decode(&server_event::channel_event(&event.name, "a", &event.data, None));
        prop_assert_eq!(arrived, data);
        prop_assert_eq!(frame["event"].as_str(), Some(name.as_str()));
    }

    #[test]
    fn data_of_a_client_event_arrives_as_text_or_as_compact_json((compact, spaced) in document()) {
        let frame = format!(r#"{{"event":"client-x","channel":"private-a","data":{spaced}}}"#);
        let Ok(ClientEvent::Relay(relay)) = ClientEvent::parse(frame.as_bytes()) else { panic!("not relayed") };
        let Some(data) = relay.data else {
            prop_assert_eq!(compact, "null");
            return Ok(());
        };
        let data = EventData::from_value(data).unwrap();
        let frame = server_event::channel_event(&relay.event, "private-a", &data, Some("u1"));
        let (frame, arrived) = decode(&frame);
        prop_assert_eq!(&frame["user_id"], "u1");
        let expected = serde_json::from_str::<String>(&compact).unwrap_or(compact);
        prop_assert_eq!(arrived, expected);
    }

    #[test]
    fn compact_removes_white_space_and_nothing_else((compact, spaced) in document()) {
        prop_assert_eq!(json::compact(&spaced), compact.as_str());
        prop_assert_eq!(json::compact(&compact), compact.as_str());
        let value: Value = serde_json::from_str(&compact).unwrap();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(json::compact(&pretty), serde_json::to_string(&value).unwrap());
    }

    #[test]
    fn mended_documents_are_unicode_and_others_stay((compact, _) in document(), halves in "(\\\\u[dD][89abcdef][0-9a-f]{2}|\\\\n|x|é){0,6}") {
        prop_assert_eq!(json::mended((&compact).into()), compact.as_str());
        let mended = json::mended(format!("\"{halves}\"").into()).into_owned();
        prop_assert!(serde_json::from_str::<String>(&mended).is_ok(), "{}", mended);
    }

    #[test]
    fn compact_and_mended_take_any_text(text in text()) {
        let once = json::compact(&text).into_owned();
        prop_assert_eq!(json::compact(&once), once.as_str());
        let once = json::mended(text.into()).into_owned();
        prop_assert_eq!(json::mended(once.as_str().into()), once.as_str());
    }

    #[test]
    fn members_arrive_unchanged(channel in text(), members in members()) {
        let prepared: Vec<_> = members.iter().map(fragments).collect();
        let frame = server_event::presence_succeeded(&channel, prepared.iter());
        let data = decode_twice(&frame, "pusher_internal:subscription_succeeded", Some(&channel));
        let presence = &data["presence"];
        prop_assert_eq!(&presence["count"], members.len());
        let ids: Vec<_> = members.iter().map(|(id, _)| id.as_str()).collect();
        prop_assert_eq!(&presence["ids"], &Value::from(ids));
        let hash = members.iter().map(|(id, info)| (id.clone(), info_value(info.as_deref())));
        prop_assert_eq!(&presence["hash"], &Value::Object(hash.collect()));

        for ((id, info), prepared) in members.iter().zip(&prepared) {
            let frame = server_event::member_added(&channel, prepared);
            let data = decode_twice(&frame, "pusher_internal:member_added", Some(&channel));
            prop_assert_eq!(&data, &serde_json::json!({"user_id": id, "user_info": info_value(info.as_deref())}));
            let frame = server_event::member_removed(&channel, prepared);
            let data = decode_twice(&frame, "pusher_internal:member_removed", Some(&channel));
            prop_assert_eq!(&data, &serde_json::json!({"user_id": id}));
        }
    }

    #[test]
    fn a_user_is_read_as_the_app_wrote_it((id_literal, id) in literal(), (compact, spaced) in document()) {
        let info = Some(compact.as_str()).filter(|info| *info != "null");
        let channel_data = format!(r#"{{"user_info":{spaced},"user_id" : {id_literal}}}"#);
        let user_data = format!(r#"{{"user_info":{spaced},"id" : {id_literal}, "watchlist":[{id_literal}]}}"#);
        let member = Member::from_channel_data(&channel_data, NO_LIMITS);
        let user = User::from_user_data(&user_data, NO_LIMITS);
        if id.is_empty() {
            prop_assert!(member.is_err() && user.is_err());
            return Ok(());
        }
        let (member, user) = (member.unwrap(), user.unwrap());
        prop_assert_eq!(&*member.user_id, id.as_str());
        prop_assert_eq!(member.user_info.as_deref(), info);
        prop_assert_eq!(&user.member, &member);
        prop_assert_eq!(&user.watchlist, &[member.user_id]);
    }

    #[test]
    fn frames_of_the_protocol_are_json_with_a_string_as_data(
        channel in text(),
        message in text(),
        users in vec(text(), 0..3),
        more_users in vec(text(), 0..3),
        (count, status) in any::<(usize, u16)>(),
        (high, low, seconds) in any::<(u32, u32, u32)>(),
    ) {
        let channel = channel.as_str();
        let id = SocketId::from_random(high, low);
        let frame = server_event::connection_established(id, Duration::from_secs(seconds.into()));
        let data = decode_twice(&frame, "pusher:connection_established", None);
        prop_assert_eq!(&data["socket_id"], &id.to_string());
        prop_assert_eq!(&data["activity_timeout"], seconds.max(1));

        for (frame, event) in [(server_event::PING, "pusher:ping"), (server_event::PONG, "pusher:pong")] {
            prop_assert_eq!(decode_twice(frame, event, None), serde_json::json!({}));
        }
        let frame = server_event::subscription_succeeded(channel);
        let data = decode_twice(&frame, "pusher_internal:subscription_succeeded", Some(channel));
        prop_assert_eq!(data, serde_json::json!({}));
        let data = decode_twice(&server_event::cache_miss(channel), "pusher:cache_miss", Some(channel));
        prop_assert_eq!(data, serde_json::json!({}));
        let frame = server_event::subscription_count(channel, count);
        let data = decode_twice(&frame, "pusher_internal:subscription_count", Some(channel));
        prop_assert_eq!(data, serde_json::json!({"subscription_count": count}));
        let frame = server_event::subscription_error(channel, "LimitReached", &message, status);
        let data = decode_twice(&frame, "pusher:subscription_error", Some(channel));
        prop_assert_eq!(data, serde_json::json!({"type": "LimitReached", "error": message, "status": status}));
        let data = decode_twice(&server_event::signin_success(&message), "pusher:signin_success", None);
        prop_assert_eq!(data, serde_json::json!({"user_data": message}));

        let frame = server_event::watchlist_events(&users, &more_users);
        let data = decode_twice(&frame, "pusher_internal:watchlist_events", None);
        let groups = [("online", &users), ("offline", &more_users)].into_iter().filter(|(_, users)| !users.is_empty());
        let groups: Vec<_> = groups.map(|(name, users)| serde_json::json!({"name": name, "user_ids": users})).collect();
        prop_assert_eq!(data, serde_json::json!({"events": groups}));
    }

    #[test]
    fn an_error_has_an_object_as_data(message in text(), code in option::of(any::<u16>())) {
        let code = code.and_then(CloseCode::new);
        let frame: Value = serde_json::from_slice(&server_event::error(code, &message)).unwrap();
        let data = serde_json::json!({"code": code.map(CloseCode::get), "message": message});
        prop_assert_eq!(frame, serde_json::json!({"event": "pusher:error", "data": data}));
    }

    #[test]
    fn an_event_is_what_it_was_made_of(event in text(), channel in text(), data in text(), user_id in option::of(text())) {
        let frame = server_event::channel_event(&event, &channel, &EventData::from_text(&data), user_id.as_deref());
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        let mut expected = serde_json::json!({"event": event, "channel": channel, "data": data});
        if let Some(user_id) = user_id {
            expected["user_id"] = user_id.into();
        }
        prop_assert_eq!(frame, expected);
    }

    #[test]
    fn a_literal_is_kept_and_other_json_is_not((compact, spaced) in document()) {
        let raw: &RawValue = serde_json::from_str(spaced.trim()).unwrap();
        let data = EventData::from_value(raw).unwrap();
        if compact.starts_with('"') {
            prop_assert_eq!(data.literal(), compact);
        } else {
            prop_assert_eq!(data.text(), compact);
        }
    }

    #[test]
    fn what_is_signed_verifies(
        path in prop_oneof![text(), "/apps/[0-9]{1,3}/channels/[a-z%=@,.;-]{0,12}"],
        params in vec((text(), text()), 0..4),
        body in vec(any::<u8>(), 0..16),
    ) {
        let params: Vec<_> = params.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let query = signed_query(&signer(), "key", "POST", &path, &params, &body, NOW);
        let prefixed = format!("/prefix{path}");
        let encoded: String = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
        prop_assert!(verify("POST", &path, "", &query, &body), "as it was signed");
        prop_assert!(verify("POST", &prefixed, "/prefix", &query, &body), "with a prefix that was not signed");
        prop_assert!(verify("POST", &encoded, "", &query, &body), "with a path that the HTTP client encoded");

        let (other_path, other_body) = (format!("{path}x"), [&body[..], b"x"].concat());
        let other_query = format!("{query}&x=y");
        prop_assert!(!verify("GET", &path, "", &query, &body), "with another method");
        prop_assert!(!verify("POST", &other_path, "", &query, &body), "with another path");
        prop_assert!(!verify("POST", &path, "", &query, &other_body), "with another body");
        prop_assert!(!verify("POST", &path, "", &other_query, &body), "with one more parameter");
        for part in query.split('&').filter(|part| part.starts_with("auth_") || part.starts_with("body_md5")) {
            let rest: Vec<_> = query.split('&').filter(|other| *other != part).collect();
            prop_assert!(!verify("POST", &path, "", &rest.join("&"), &body), "without {}", part);
        }
    }
}

proptest! {
    #[test]
    fn a_position_reads_back_and_nothing_else_does(epoch: u64, number: u64, other in text()) {
        let position = Position { epoch, number };
        prop_assert_eq!(position.to_string().parse(), Ok(position));
        if let Ok(read) = other.parse::<Position>() {
            prop_assert_eq!(read.to_string(), other);
        }
    }

    #[test]
    fn a_position_changes_nothing_else_of_a_frame(epoch: u64, number: u64, event in text(), sent in text()) {
        let position = Position { epoch, number };
        let stock = server_event::channel_event(&event, "orders", &EventData::from_text(&sent), None);
        let frame = server_event::with_position(&stock, position);
        let read: Value = serde_json::from_slice(&frame).unwrap();
        prop_assert_eq!(&read["user_id"], &serde_json::json!([position.to_string()]));
        prop_assert_eq!((read["event"].as_str(), read["data"].as_str()), (Some(&*event), Some(&*sent)));
        prop_assert_eq!(server_event::without_position(&frame, position), Some(stock));
    }
}

#[test]
fn limits_of_a_member_hold_at_their_edge() {
    let limits = MemberLimits { user_id: limits::USER_ID_CHARS, user_info: limits::USER_INFO_BYTES };
    let data = |id: usize, info: usize| {
        format!(r#"{{"user_id":"{}","user_info":"{}"}}"#, "i".repeat(id), "n".repeat(info - 2))
    };
    assert!(Member::from_channel_data(&data(128, 1024), limits).is_ok());
    assert!(Member::from_channel_data(&data(129, 1024), limits).is_err());
    assert!(Member::from_channel_data(&data(128, 1025), limits).is_err());
}

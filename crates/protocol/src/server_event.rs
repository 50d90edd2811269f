//! Frames to clients, encoded. The only place where wire names are spelt and `data` is encoded into a string.
//!
//! Every frame has `data`, as a JSON string; `pusher:error` alone has an object (pysher and .NET read it so).

use std::{fmt::Write as _, time::Duration};

use crate::{
    CloseCode, Position, SocketId,
    json::{self, EventData, write_escaped, write_string},
    presence::Member,
};

/// The first frame of a connection.
pub fn connection_established(socket_id: SocketId, activity_timeout: Duration) -> Vec<u8> {
    // pusher-js refuses 0, and reads whole seconds.
    let seconds = activity_timeout.as_secs().max(1);
    format!(
        r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{socket_id}\",\"activity_timeout\":{seconds}}}"}}"#
    )
    .into_bytes()
}

/// A question whether the client is still there.
pub const PING: &[u8] = br#"{"event":"pusher:ping","data":"{}"}"#;
/// The answer to a client's ping.
pub const PONG: &[u8] = br#"{"event":"pusher:pong","data":"{}"}"#;

/// `pusher:error`. Without a code it reports a problem that concerns one request only.
///
/// During the handshake a code is a must: pusher-js hangs on `null` there.
pub fn error(code: Option<CloseCode>, message: &str) -> Vec<u8> {
    let code = code.map_or_else(|| "null".to_owned(), |code| code.to_string());
    let mut out = format!(r#"{{"event":"pusher:error","data":{{"code":{code},"message":"#).into_bytes();
    write_string(&mut out, message);
    out.extend_from_slice(b"}}");
    out
}

/// An event of a channel. `user_id` names the member who sent a client event, on presence channels alone.
pub fn channel_event(event: &str, channel: &str, data: &EventData<'_>, user_id: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + event.len() + channel.len() + data.literal().len());
    out.extend_from_slice(br#"{"event":"#);
    write_string(&mut out, event);
    out.extend_from_slice(br#","channel":"#);
    write_string(&mut out, channel);
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(data.literal().as_bytes());
    if let Some(user_id) = user_id {
        out.extend_from_slice(br#","user_id":"#);
        write_string(&mut out, user_id);
    }
    out.push(b'}');
    out
}

/// Begins a frame of the protocol up to the opening quote of `data`.
fn begin(event: &str, channel: Option<&str>, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity + 64);
    out.extend_from_slice(br#"{"event":""#);
    out.extend_from_slice(event.as_bytes());
    out.push(b'"');
    if let Some(channel) = channel {
        out.extend_from_slice(br#","channel":"#);
        write_string(&mut out, channel);
    }
    out.extend_from_slice(br#","data":""#);
    out
}

fn end(mut out: Vec<u8>) -> Vec<u8> {
    out.extend_from_slice(b"\"}");
    out
}

/// A frame whose `data` is a JSON document given as text.
fn with_document(event: &str, channel: Option<&str>, document: &str) -> Vec<u8> {
    let mut out = begin(event, channel, document.len() * 2);
    write_escaped(&mut out, document);
    end(out)
}

/// The answer to a subscription of a channel without members.
pub fn subscription_succeeded(channel: &str) -> Vec<u8> {
    end({
        let mut out = begin("pusher_internal:subscription_succeeded", Some(channel), channel.len() + 2);
        out.extend_from_slice(b"{}");
        out
    })
}

/// A member's parts of a presence snapshot, escaped once when the member joins, so that a snapshot is only copied together.
#[derive(Clone, Debug)]
pub struct MemberFragments {
    /// The id as a JSON string inside a JSON string: `\"u1\"`.
    id: Box<str>,
    /// The info as JSON inside a JSON string, `null` when absent.
    info: Box<str>,
}

impl MemberFragments {
    /// Prepares a member's parts.
    pub fn new(member: &Member) -> Self {
        let mut id = Vec::new();
        write_string(&mut id, &member.user_id);
        Self {
            id: json::escaped(&String::from_utf8_lossy(&id)).into(),
            info: json::escaped(member.user_info.as_deref().unwrap_or("null")).into(),
        }
    }

    /// The info as JSON again; `None` if the member has none.
    pub fn user_info(&self) -> Option<String> {
        let json = serde_json::from_str::<String>(&format!("\"{}\"", self.info)).ok()?;
        (json != "null").then_some(json)
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.id.len() * 2 + self.info.len() + 3
    }

    /// Never true: an id has at least its quotes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer to a subscription of a presence channel: all members, the subscriber included.
pub fn presence_succeeded<'a>(
    channel: &str,
    members: impl ExactSizeIterator<Item = &'a MemberFragments> + Clone,
) -> Vec<u8> {
    let size: usize = members.clone().map(MemberFragments::len).sum();
    let mut out = begin("pusher_internal:subscription_succeeded", Some(channel), channel.len() + size + 96);
    out.extend_from_slice(format!(r#"{{\"presence\":{{\"count\":{},\"ids\":["#, members.len()).as_bytes());
    for (index, member) in members.clone().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member.id.as_bytes());
    }
    out.extend_from_slice(br#"],\"hash\":{"#);
    for (index, member) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member.id.as_bytes());
        out.push(b':');
        out.extend_from_slice(member.info.as_bytes());
    }
    out.extend_from_slice(b"}}}");
    end(out)
}

/// A user's first connection joined a presence channel.
pub fn member_added(channel: &str, member: &MemberFragments) -> Vec<u8> {
    let mut out = begin("pusher_internal:member_added", Some(channel), channel.len() + member.len() + 40);
    out.extend_from_slice(br#"{\"user_id\":"#);
    out.extend_from_slice(member.id.as_bytes());
    out.extend_from_slice(br#",\"user_info\":"#);
    out.extend_from_slice(member.info.as_bytes());
    out.push(b'}');
    end(out)
}

/// A user's last connection left a presence channel.
pub fn member_removed(channel: &str, member: &MemberFragments) -> Vec<u8> {
    let mut out = begin("pusher_internal:member_removed", Some(channel), channel.len() + member.len() + 24);
    out.extend_from_slice(br#"{\"user_id\":"#);
    out.extend_from_slice(member.id.as_bytes());
    out.push(b'}');
    end(out)
}

/// A subscription was refused. pusher-js hands this frame to the channel, and so to Echo's `error()`. It does not do so with
/// `pusher:error`.
///
/// `kind` and `status` tell why: `AuthError` and 401 as pusher-js itself reports a failing auth endpoint.
pub fn subscription_error(channel: &str, kind: &'static str, message: &str, status: u16) -> Vec<u8> {
    let mut text = Vec::new();
    write_string(&mut text, message);
    let text = String::from_utf8_lossy(&text);
    let document = format!(r#"{{"type":"{kind}","error":{text},"status":{status}}}"#);
    with_document("pusher:subscription_error", Some(channel), &document)
}

/// How many connections a channel has.
pub fn subscription_count(channel: &str, count: usize) -> Vec<u8> {
    with_document("pusher_internal:subscription_count", Some(channel), &format!(r#"{{"subscription_count":{count}}}"#))
}

/// A cache channel holds no event for its new subscriber.
pub fn cache_miss(channel: &str) -> Vec<u8> {
    with_document("pusher:cache_miss", Some(channel), "{}")
}

/// A frame with a position, for clients that asked to recover what they miss. `user_id` is the one key beside `event`, `channel` and
/// `data` that pusher-js keeps, whatever its type, and no user has an array for an id.
pub fn with_position(frame: &[u8], position: Position) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len() + 48);
    out.extend_from_slice(&frame[..frame.len().saturating_sub(1)]);
    out.extend_from_slice(position_key(position).as_bytes());
    out
}

fn position_key(position: Position) -> String {
    format!(r#","user_id":["{position}"]}}"#)
}

/// The frame that [`with_position`] was given, if this is one.
pub fn without_position(frame: &[u8], position: Position) -> Option<Vec<u8>> {
    let mut out = frame.strip_suffix(position_key(position).as_bytes())?.to_vec();
    out.push(b'}');
    Some(out)
}

/// Whether a client has everything that came on a channel since the position it gave, and how many events of that were sent just now. The
/// caller adds a position ([`with_position`]).
pub fn recovery(channel: &str, recovered: bool, count: usize) -> Vec<u8> {
    let document = format!(r#"{{"recovered":{recovered},"count":{count}}}"#);
    with_document("pusher_internal:recovery", Some(channel), &document)
}

/// Carries a position ([`with_position`]) where no event carries it.
pub fn position(channel: &str) -> Vec<u8> {
    with_document("pusher_internal:position", Some(channel), "{}")
}

/// The answer to a sign-in. `user_data` comes back as it was.
pub fn signin_success(user_data: &str) -> Vec<u8> {
    let mut document = br#"{"user_data":"#.to_vec();
    write_string(&mut document, user_data);
    document.push(b'}');
    with_document("pusher:signin_success", None, &String::from_utf8_lossy(&document))
}

/// Which watched users are, or came, online and offline. Empty groups are left out.
pub fn watchlist_events<T: AsRef<str>>(online: &[T], offline: &[T]) -> Vec<u8> {
    let mut document = String::from(r#"{"events":["#);
    for (name, users) in [("online", online), ("offline", offline)] {
        if users.is_empty() {
            continue;
        }
        if document.ends_with('}') {
            document.push(',');
        }
        let _ = write!(document, r#"{{"name":"{name}","user_ids":["#);
        for (index, user) in users.iter().enumerate() {
            let mut id = Vec::new();
            write_string(&mut id, user.as_ref());
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(document, "{comma}{}", String::from_utf8_lossy(&id));
        }
        document.push_str("]}");
    }
    document.push_str("]}");
    with_document("pusher_internal:watchlist_events", None, &document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: &[u8]) -> &str {
        std::str::from_utf8(frame).unwrap()
    }

    fn member(user_id: &str, user_info: Option<&str>) -> MemberFragments {
        MemberFragments::new(&Member { user_id: user_id.into(), user_info: user_info.map(Into::into) })
    }

    #[test]
    fn frames_look_as_the_documentation_shows_them() {
        let established = connection_established(SocketId::from_random(0, 1), Duration::from_secs(120));
        assert_eq!(
            text(&established),
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#
        );
        assert_eq!(
            text(&subscription_succeeded("private-a")),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"private-a","data":"{}"}"#
        );
        let members = [member("u1", Some(r#"{"name":"N"}"#)), member("u2", None)];
        assert_eq!(
            text(&presence_succeeded("presence-b", members.iter())),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-b","data":"{\"presence\":{\"count\":2,\"ids\":[\"u1\",\"u2\"],\"hash\":{\"u1\":{\"name\":\"N\"},\"u2\":null}}}"}"#
        );
        assert_eq!(
            text(&member_added("presence-b", &members[0])),
            r#"{"event":"pusher_internal:member_added","channel":"presence-b","data":"{\"user_id\":\"u1\",\"user_info\":{\"name\":\"N\"}}"}"#
        );
        assert_eq!(
            text(&member_removed("presence-b", &members[1])),
            r#"{"event":"pusher_internal:member_removed","channel":"presence-b","data":"{\"user_id\":\"u2\"}"}"#
        );
        assert_eq!(
            text(&subscription_count("my-channel", 3)),
            r#"{"event":"pusher_internal:subscription_count","channel":"my-channel","data":"{\"subscription_count\":3}"}"#
        );
        assert_eq!(text(&cache_miss("cache-d")), r#"{"event":"pusher:cache_miss","channel":"cache-d","data":"{}"}"#);
        assert_eq!(
            text(&signin_success(r#"{"id":"u1"}"#)),
            r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"u1\\\"}\"}"}"#
        );
        assert_eq!(
            text(&watchlist_events(&["u2", "u3"], &["u4"])),
            r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"u2\",\"u3\"]},{\"name\":\"offline\",\"user_ids\":[\"u4\"]}]}"}"#
        );
        assert_eq!(
            text(&error(None, "Existing subscription to channel a")),
            r#"{"event":"pusher:error","data":{"code":null,"message":"Existing subscription to channel a"}}"#
        );
        assert_eq!(
            text(&subscription_error("private-x", "AuthError", "a \"b\"", 401)),
            r#"{"event":"pusher:subscription_error","channel":"private-x","data":"{\"type\":\"AuthError\",\"error\":\"a \\\"b\\\"\",\"status\":401}"}"#
        );
    }

    #[test]
    fn an_event_carries_its_data_literal_unread() {
        let data = EventData::from_text("{\"a\":\"\\/\"}");
        let frame = channel_event("App\\Events\\X", "presence-b", &data, Some("u1"));
        assert_eq!(
            text(&frame),
            r#"{"event":"App\\Events\\X","channel":"presence-b","data":"{\"a\":\"\\/\"}","user_id":"u1"}"#
        );
    }

    #[test]
    fn a_position_is_added_and_taken_off_again() {
        let position = Position { epoch: 63, number: 7 };
        let stock = channel_event("e", "orders", &EventData::from_text("x"), None);
        let frame = with_position(&stock, position);
        assert_eq!(text(&frame), r#"{"event":"e","channel":"orders","data":"x","user_id":["AAAAAAAAAA_.7"]}"#);
        assert_eq!(without_position(&frame, position), Some(stock.clone()));
        assert_eq!(without_position(&stock, position), None);
        assert_eq!(
            text(&with_position(&recovery("orders", true, 2), position)),
            r#"{"event":"pusher_internal:recovery","channel":"orders","data":"{\"recovered\":true,\"count\":2}","user_id":["AAAAAAAAAA_.7"]}"#
        );
    }

    #[test]
    fn ids_with_quotes_survive_both_encodings() {
        let frame = presence_succeeded("presence-b", [member("a\"\\b", None)].iter());
        let outer: serde_json::Value = serde_json::from_slice(&frame).unwrap();
        let inner: serde_json::Value = serde_json::from_str(outer["data"].as_str().unwrap()).unwrap();
        assert_eq!(inner["presence"]["ids"][0], "a\"\\b");
        assert!(inner["presence"]["hash"]["a\"\\b"].is_null());
    }
}

//! Frames from clients, parsed. Says what a frame is, not whether it may be.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    Position, SocketId,
    json::{self, Text},
};

/// A frame from a client.
#[derive(Debug)]
pub enum ClientEvent<'a> {
    /// `pusher:subscribe`
    Subscribe(Subscribe<'a>),
    /// `pusher:unsubscribe`
    Unsubscribe {
        /// The channel to leave.
        channel: Cow<'a, str>,
    },
    /// `pusher:signin`
    SignIn(SignIn<'a>),
    /// `pusher:ping`
    Ping,
    /// `pusher:pong`
    Pong,
    /// `fanfare:recover`
    Recover(Recover),
    /// Any other name that does not begin with `pusher:` or `pusher_internal:`, to be relayed to a channel.
    Relay(Relay<'a>),
}

/// `{"event":"pusher:subscribe","data":{"auth":"key:signature","channel":"private-a","channel_data":"{..}"}}`
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with a channel")]
pub struct Subscribe<'a> {
    channel: Cow<'a, str>,
    auth: Option<Cow<'a, str>>,
    channel_data: Option<Cow<'a, str>>,
}

impl Subscribe<'_> {
    /// The channel to join.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// `key:signature`; empty for public channels.
    pub fn auth(&self) -> &str {
        self.auth.as_deref().unwrap_or_default()
    }

    /// The signed text about the member, byte for byte as it was received.
    pub fn channel_data(&self) -> Option<&str> {
        self.channel_data.as_deref().filter(|data| !data.is_empty())
    }
}

/// `{"event":"pusher:signin","data":{"auth":"key:signature","user_data":"{\"id\":\"u1\"}"}}`
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with auth and user_data")]
pub struct SignIn<'a> {
    auth: Cow<'a, str>,
    user_data: Cow<'a, str>,
}

impl SignIn<'_> {
    /// `key:signature`
    pub fn auth(&self) -> &str {
        &self.auth
    }

    /// The signed text about the user, byte for byte as it was received.
    pub fn user_data(&self) -> &str {
        &self.user_data
    }
}

/// `{"event":"fanfare:recover","data":{"from":{"orders":"k3v9QmZaAbc.7","feed":{"last":20}},"sockets":["81.7"]}}`
///
/// Nothing in it is an error: what cannot be used still asks, and is answered that nothing could be recovered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recover {
    /// For each channel, where the client wants to go on.
    pub from: Vec<(String, RecoverFrom)>,
    /// The client's earlier socket ids, as far as they are of this server, the latest first.
    pub sockets: Vec<SocketId>,
}

/// Where a client wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverFrom {
    /// Behind an event it has.
    Position(Position),
    /// Before the newest so many events: `{"last":20}`.
    Last(usize),
    /// Something that this server never said: nothing can be recovered from it.
    Nowhere,
}

/// Earlier socket ids that are kept of one frame. The companion sends four.
const MAX_SOCKETS: usize = 8;
/// Entries of one frame that are looked at; those behind are answered as if they made no sense. The companion sends as many.
const MAX_ENTRIES: usize = 100;

impl RecoverFrom {
    fn read(value: &Value) -> Self {
        match value {
            Value::String(text) => text.parse().map_or(Self::Nowhere, Self::Position),
            Value::Object(entries) => {
                let last = entries.get("last").filter(|_| entries.len() == 1).and_then(Value::as_u64);
                last.and_then(|last| usize::try_from(last).ok()).map_or(Self::Nowhere, Self::Last)
            }
            _ => Self::Nowhere,
        }
    }
}

impl<'de> Deserialize<'de> for Recover {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(expecting = "an object with from and sockets")]
        struct Fields {
            #[serde(default)]
            from: Value,
            #[serde(default)]
            sockets: Value,
        }
        let Fields { from, sockets } = Fields::deserialize(deserializer)?;
        let entries = match from {
            Value::Object(entries) => entries,
            _ => Map::new(),
        };
        let read = |(index, (channel, value))| {
            let from = if index < MAX_ENTRIES { RecoverFrom::read(&value) } else { RecoverFrom::Nowhere };
            (channel, from)
        };
        let ids = sockets.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Self {
            from: entries.into_iter().enumerate().map(read).collect(),
            sockets: ids.iter().take(MAX_SOCKETS).filter_map(|id| id.as_str()?.parse().ok()).collect(),
        })
    }
}

/// `{"event":"client-x","channel":"private-a","data":<any>}`; other keys are dropped.
#[derive(Debug)]
pub struct Relay<'a> {
    /// The event's name.
    pub event: Cow<'a, str>,
    /// Where to.
    pub channel: Option<Cow<'a, str>>,
    /// Any JSON value.
    pub data: Option<&'a RawValue>,
}

/// Why a frame cannot be used. The text goes to the client; its connection stays open.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEvent {
    /// Not a JSON object with a string `event` (and a string `channel`, if any).
    #[error("Invalid message format: {0}")]
    Frame(serde_json::Error),
    /// `data` is not what this event needs.
    #[error("Invalid data for {event}: {error}")]
    Data {
        /// The event's name.
        event: &'static str,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// A reserved name that clients do not send.
    #[error("Unknown event: {0}")]
    Unknown(String),
}

#[derive(Deserialize)]
#[serde(expecting = "an object with an event")]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow, default)]
    channel: Option<Text<'a>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with a channel")]
struct Unsubscribe<'a> {
    channel: Cow<'a, str>,
}

impl<'a> ClientEvent<'a> {
    /// Parses one text message. `data` of the protocol's own events may be an object or a string that holds one.
    ///
    /// # Errors
    /// [`InvalidEvent`], whose text says what was expected.
    pub fn parse(message: &'a [u8]) -> Result<Self, InvalidEvent> {
        let Envelope { event, channel, data } = json::object(message).map_err(InvalidEvent::Frame)?;
        match &*event {
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => read("pusher:subscribe", data).map(Self::Subscribe),
            "pusher:unsubscribe" => {
                read("pusher:unsubscribe", data).map(|Unsubscribe { channel }| Self::Unsubscribe { channel })
            }
            "pusher:signin" => read("pusher:signin", data).map(Self::SignIn),
            "fanfare:recover" => read("fanfare:recover", data).map(Self::Recover),
            name if name.starts_with("pusher:") || name.starts_with("pusher_internal:") => {
                Err(InvalidEvent::Unknown(event.0.into_owned()))
            }
            _ => Ok(Self::Relay(Relay { event: event.0, channel: channel.map(|text| text.0), data })),
        }
    }
}

/// Reads `data` as an object, or as a string that holds one. The result borrows from neither: such a string is decoded here.
fn read<T: DeserializeOwned>(event: &'static str, data: Option<&RawValue>) -> Result<T, InvalidEvent> {
    let text = data.map_or("null", RawValue::get);
    let object = if text.starts_with('"') {
        serde_json::from_str::<String>(text).and_then(|inner| json::object(inner.as_bytes()))
    } else {
        json::object(text.as_bytes())
    };
    object.map_err(|error| InvalidEvent::Data { event, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_protocol_events_may_be_a_string_that_holds_the_object() {
        let frame = br#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\",\"auth\":null,\"channel_data\":\"\"}"}"#;
        let Ok(ClientEvent::Subscribe(subscribe)) = ClientEvent::parse(frame) else { panic!("not a subscribe") };
        assert_eq!((subscribe.channel(), subscribe.auth(), subscribe.channel_data()), ("a", "", None));
    }

    #[test]
    fn ping_needs_no_data() {
        for frame in [
            r#"{"event":"pusher:ping"}"#,
            r#"{"event":"pusher:ping","data":""}"#,
            r#"{"event":"pusher:ping","data":{}}"#,
        ] {
            assert!(matches!(ClientEvent::parse(frame.as_bytes()), Ok(ClientEvent::Ping)), "{frame}");
        }
    }

    #[test]
    fn whatever_a_recover_frame_holds_it_asks() {
        let recover = |data: &str| {
            let frame = format!(r#"{{"event":"fanfare:recover","data":{data}}}"#);
            let Ok(ClientEvent::Recover(recover)) = ClientEvent::parse(frame.as_bytes()) else { panic!("{frame}") };
            recover
        };
        let position = Position { epoch: 5, number: 7 };
        let data = format!(r#"{{"from":{{"a":"{position}","b":{{"last":20}}}},"sockets":["81.7"]}}"#);
        let expected = Recover {
            from: vec![("a".to_owned(), RecoverFrom::Position(position)), ("b".to_owned(), RecoverFrom::Last(20))],
            sockets: vec!["81.7".parse().unwrap()],
        };
        assert_eq!(recover(&data), expected);
        assert_eq!(recover(&serde_json::to_string(&data).unwrap()), expected);
        for none in ["{}", r#"{"from":[],"sockets":{}}"#, r#"{"from":"a","sockets":["x",7,"0.1"]}"#, r#"{"from":null}"#]
        {
            assert_eq!(recover(none), Recover::default(), "{none}");
        }
        let garbage = r#"{"from":{"a":"x","b":7,"c":{"last":-1},"d":null,"e":{"last":1,"first":2},"f":{"last":"3"}}}"#;
        assert!(recover(garbage).from.iter().all(|(_, from)| *from == RecoverFrom::Nowhere));
        assert_eq!(recover(garbage).from.len(), 6);
        let many: Vec<_> = (0..101).map(|n| format!(r#""{n}":"{position}""#)).collect();
        let many = recover(&format!(r#"{{"from":{{{}}}}}"#, many.join(","))).from;
        assert_eq!(many.iter().filter(|(_, from)| *from == RecoverFrom::Nowhere).count(), 1);
        let sockets = ["\"1.2\""; 20].join(",");
        assert_eq!(recover(&format!(r#"{{"sockets":[{sockets}]}}"#)).sockets.len(), 8);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let text = |frame: &str| ClientEvent::parse(frame.as_bytes()).unwrap_err().to_string();
        assert!(text("{").starts_with("Invalid message format: "));
        assert!(text("[]").starts_with("Invalid message format: "));
        assert!(text(r#"{"event":7}"#).starts_with("Invalid message format: "));
        assert!(text(r#"{"event":"client-x","channel":7}"#).starts_with("Invalid message format: "));
        assert!(text(r#"["pusher:ping"]"#).contains("expected an object"));
        assert!(text(r#"{"event":"pusher:subscribe"}"#).starts_with("Invalid data for pusher:subscribe: "));
        assert!(text(r#"{"event":"pusher:subscribe","data":{}}"#).contains("channel"));
        assert_eq!(text(r#"{"event":"pusher:nonsense"}"#), "Unknown event: pusher:nonsense");
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!(
            r#"{{"event":"client-x","channel":"private-a","data":{}1{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(ClientEvent::parse(deep.as_bytes()).is_ok());
        let deep = format!(r#"{{"event":"pusher:subscribe","data":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(ClientEvent::parse(deep.as_bytes()).is_err());
    }
}

//! Frames from clients, parsed. Says what a frame is, not whether it may be.

use std::borrow::Cow;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::json::{self, Text};

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
    /// Any name that does not begin with `pusher:` or `pusher_internal:`, to be relayed to a channel.
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

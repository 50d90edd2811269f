//! Frames from clients, parsed. Says what a frame is, not whether it may be.

use std::borrow::Cow;

use serde::Deserialize;
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
pub struct Subscribe<'a> {
    /// The channel to join.
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow, default)]
    auth: Option<Text<'a>>,
    #[serde(borrow, default)]
    channel_data: Option<Text<'a>>,
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
pub struct SignIn<'a> {
    #[serde(borrow)]
    auth: Text<'a>,
    #[serde(borrow)]
    user_data: Text<'a>,
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
struct Envelope<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow, default)]
    channel: Option<Text<'a>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Unsubscribe<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
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
            "pusher:subscribe" => with_data("pusher:subscribe", data, Self::Subscribe),
            "pusher:unsubscribe" => with_data("pusher:unsubscribe", data, |Unsubscribe { channel }| {
                Self::Unsubscribe { channel: channel.0 }
            }),
            "pusher:signin" => with_data("pusher:signin", data, Self::SignIn),
            name if name.starts_with("pusher:") || name.starts_with("pusher_internal:") => {
                Err(InvalidEvent::Unknown(event.0.into_owned()))
            }
            _ => Ok(Self::Relay(Relay { event: event.0, channel: channel.map(|text| text.0), data })),
        }
    }
}

/// Reads `data` as an object, or as a string that holds one; such a string costs an owned copy.
fn with_data<'a, T: Deserialize<'a> + IntoOwned<'a>>(
    event: &'static str,
    data: Option<&'a RawValue>,
    make: impl FnOnce(T) -> ClientEvent<'a>,
) -> Result<ClientEvent<'a>, InvalidEvent> {
    let invalid = |error| InvalidEvent::Data { event, error };
    let text = data.map_or("null", RawValue::get);
    if text.starts_with('"') {
        let inner: String = serde_json::from_str(text).map_err(invalid)?;
        T::from_owned(&inner).map_err(invalid).map(make)
    } else {
        json::object(text.as_bytes()).map_err(invalid).map(make)
    }
}

/// Types that can also be read from a text that does not live as long as they do.
trait IntoOwned<'a>: Sized {
    fn from_owned(text: &str) -> serde_json::Result<Self>;
}

fn owned<'a>(text: Text<'_>) -> Text<'a> {
    Text(Cow::Owned(text.0.into_owned()))
}

impl<'a> IntoOwned<'a> for Subscribe<'a> {
    fn from_owned(text: &str) -> serde_json::Result<Self> {
        let Subscribe { channel, auth, channel_data } = json::object(text.as_bytes())?;
        Ok(Self { channel: owned(channel), auth: auth.map(owned), channel_data: channel_data.map(owned) })
    }
}

impl<'a> IntoOwned<'a> for Unsubscribe<'a> {
    fn from_owned(text: &str) -> serde_json::Result<Self> {
        let Unsubscribe { channel } = json::object(text.as_bytes())?;
        Ok(Self { channel: owned(channel) })
    }
}

impl<'a> IntoOwned<'a> for SignIn<'a> {
    fn from_owned(text: &str) -> serde_json::Result<Self> {
        let SignIn { auth, user_data } = json::object(text.as_bytes())?;
        Ok(Self { auth: owned(auth), user_data: owned(user_data) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_recorded_from_pusher_js_parse() {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../tests/vectors/client_frames.json")).unwrap();
        let names: Vec<_> = recorded["frames"]
            .as_array()
            .unwrap()
            .iter()
            .map(|frame| match ClientEvent::parse(frame.as_str().unwrap().as_bytes()).unwrap() {
                ClientEvent::Subscribe(subscribe) => format!("subscribe {}", subscribe.channel()),
                ClientEvent::Unsubscribe { channel } => format!("unsubscribe {channel}"),
                ClientEvent::SignIn(_) => "signin".into(),
                ClientEvent::Ping => "ping".into(),
                ClientEvent::Pong => "pong".into(),
                ClientEvent::Relay(relay) => format!("{} {}", relay.event, relay.data.unwrap()),
            })
            .collect();
        assert_eq!(
            names,
            [
                "subscribe pub",
                "subscribe cache-d",
                "signin",
                "subscribe private-a",
                "subscribe #server-to-user-u1",
                "client-x {\"a\":1}",
                "client-s \"str\"",
                "subscribe presence-b",
                "subscribe private-encrypted-c",
                "ping",
                "unsubscribe pub",
            ]
        );
    }

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

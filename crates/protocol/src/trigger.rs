//! Bodies of the HTTP API: what a trigger asks for, and the shapes of the answers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    channel::{ChannelName, InvalidChannelName},
    json::{self, EventData, Text},
    limits,
    request::Query,
    socket_id::SocketId,
};

/// What one event, trigger or batch may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// Characters of an event name.
    pub event_name_chars: usize,
    /// Bytes of the decoded `data`.
    pub data_bytes: usize,
    /// Bytes of a channel name.
    pub channel_name_bytes: usize,
    /// Channels of one trigger.
    pub channels: usize,
    /// Events of one batch.
    pub batch: usize,
    /// Whether event names may begin with `pusher:` or `pusher_internal:`.
    pub reserved_names: bool,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self {
            event_name_chars: limits::EVENT_NAME_CHARS,
            data_bytes: limits::EVENT_DATA_BYTES,
            channel_name_bytes: limits::CHANNEL_NAME_BYTES,
            channels: limits::CHANNELS_PER_TRIGGER,
            batch: limits::EVENTS_PER_BATCH,
            reserved_names: false,
        }
    }
}

/// An event to publish.
#[derive(Debug)]
pub struct Event<'a> {
    /// The event's name.
    pub name: Cow<'a, str>,
    /// Where to, each name once.
    pub channels: Vec<Cow<'a, str>>,
    /// What subscribers get.
    pub data: EventData<'a>,
    /// The connection that shall not get it. `None` also for a well-formed id that this server cannot have given out.
    pub except: Option<SocketId>,
    /// What the answer shall tell of the channels; `None` if nothing was asked.
    pub info: Option<Info>,
}

/// The attributes of channels that a request asks for: `info=user_count,subscription_count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Distinct users of presence channels.
    pub user_count: bool,
    /// Connections.
    pub subscription_count: bool,
    /// The kept event of cache channels.
    pub cache: bool,
    /// How far the channel has come, for clients that go on from there.
    pub position: bool,
}

impl Info {
    /// Reads a comma separated list. Attributes nobody knows are left out of the answer.
    pub fn parse(list: &str) -> Self {
        let mut info = Self::default();
        for attribute in list.split(',') {
            match attribute.trim() {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                "position" => info.position = true,
                _ => {}
            }
        }
        info
    }
}

/// Why a trigger is refused. The texts are pusher.com's where they are known.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTrigger {
    /// The body is not the JSON that is expected.
    #[error("Invalid JSON body: {0}")]
    Json(serde_json::Error),
    /// A field is missing.
    #[error("Missing required parameter: {0}")]
    Missing(&'static str),
    /// `data` is a string that is no Unicode text.
    #[error("Invalid data: {0}")]
    Data(serde_json::Error),
    /// `data` is too long.
    #[error(
        "The data content of this event exceeds the allowed maximum ({limit} bytes). See max_event_bytes in the server's configuration"
    )]
    DataTooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The name is too long.
    #[error("The event name has {length} characters, the limit is {limit} (max_event_name_length)")]
    NameTooLong {
        /// Characters of the name.
        length: usize,
        /// Characters allowed.
        limit: usize,
    },
    /// The name is the protocol's own.
    #[error("Invalid event name: names that begin with 'pusher:' or 'pusher_internal:' are reserved")]
    ReservedName,
    /// A channel's name is not valid.
    #[error("Invalid channel name '{name}': {error}")]
    Channel {
        /// The name.
        name: String,
        /// What is wrong with it.
        error: InvalidChannelName,
    },
    /// Too many channels.
    #[error("Too many channels ({count} > {limit})")]
    TooManyChannels {
        /// Channels given.
        count: usize,
        /// Channels allowed.
        limit: usize,
    },
    /// `socket_id` does not look like one.
    #[error("Invalid socket id: '{0}'")]
    SocketId(String),
    /// Too many events.
    #[error("Batch too large ({count} > {limit})")]
    BatchTooLarge {
        /// Events given.
        count: usize,
        /// Events allowed.
        limit: usize,
    },
}

#[derive(Default, Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel: Option<Text<'a>>,
    #[serde(borrow, default)]
    channels: Option<Vec<Text<'a>>>,
    #[serde(borrow, default)]
    socket_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    info: Option<Text<'a>>,
}

impl<'a> Event<'a> {
    /// Reads the body of `POST /apps/{id}/events`. `name`, `channel`, `socket_id` and `info` may stand in the query as well.
    ///
    /// # Errors
    /// [`InvalidTrigger`], whose text is the answer's body.
    pub fn parse(body: &'a [u8], query: &'a Query<'a>, limits: &EventLimits) -> Result<Self, InvalidTrigger> {
        let mut body: Body<'a> = json::object(body).map_err(InvalidTrigger::Json)?;
        let from_query = |field: &mut Option<Text<'a>>, key| {
            if field.is_none() {
                *field = query.get(key).map(Text);
            }
        };
        from_query(&mut body.name, "name");
        from_query(&mut body.socket_id, "socket_id");
        from_query(&mut body.info, "info");
        if body.channels.is_none() {
            from_query(&mut body.channel, "channel");
        }
        Self::check(body, limits)
    }

    /// Reads the body of `POST /apps/{id}/batch_events`. Nothing may be published unless all events are valid.
    ///
    /// # Errors
    /// [`InvalidTrigger`], whose text is the answer's body.
    pub fn parse_batch(body: &'a [u8], limits: &EventLimits) -> Result<Vec<Self>, InvalidTrigger> {
        #[derive(Deserialize)]
        struct Batch<'a> {
            #[serde(borrow, default)]
            batch: Option<Vec<&'a RawValue>>,
        }
        let Batch { batch } = json::object(body).map_err(InvalidTrigger::Json)?;
        let batch = batch.ok_or(InvalidTrigger::Missing("batch"))?;
        if batch.len() > limits.batch {
            return Err(InvalidTrigger::BatchTooLarge { count: batch.len(), limit: limits.batch });
        }
        let one = |event: &'a RawValue| {
            let mut body: Body<'a> = json::object(event.get().as_bytes()).map_err(InvalidTrigger::Json)?;
            // One channel an event: a list is not looked at, so that it cannot be half obeyed.
            body.channels = None;
            Self::check(body, limits)
        };
        batch.into_iter().map(one).collect()
    }

    fn check(body: Body<'a>, limits: &EventLimits) -> Result<Self, InvalidTrigger> {
        let name = body.name.ok_or(InvalidTrigger::Missing("name"))?.0;
        // A character has at least one byte, so most names need no counting.
        if name.len() > limits.event_name_chars {
            let length = name.chars().count();
            if length > limits.event_name_chars {
                return Err(InvalidTrigger::NameTooLong { length, limit: limits.event_name_chars });
            }
        }
        if name.is_empty() {
            return Err(InvalidTrigger::Missing("name"));
        }
        if !limits.reserved_names && (name.starts_with("pusher:") || name.starts_with("pusher_internal:")) {
            return Err(InvalidTrigger::ReservedName);
        }
        let data =
            EventData::from_value(body.data.ok_or(InvalidTrigger::Missing("data"))?).map_err(InvalidTrigger::Data)?;
        if data.is_longer_than(limits.data_bytes) {
            return Err(InvalidTrigger::DataTooLarge { limit: limits.data_bytes });
        }
        let except = match body.socket_id {
            Some(id) if !SocketId::is_well_formed(&id) => return Err(InvalidTrigger::SocketId(id.0.into_owned())),
            Some(id) => id.parse().ok(),
            None => None,
        };
        let channels = channels(body.channel, body.channels, limits)?;
        Ok(Self { name, channels, data, except, info: body.info.map(|list| Info::parse(&list)) })
    }
}

fn channels<'a>(
    one: Option<Text<'a>>,
    many: Option<Vec<Text<'a>>>,
    limits: &EventLimits,
) -> Result<Vec<Cow<'a, str>>, InvalidTrigger> {
    let named: Vec<_> = match (many, one) {
        (Some(many), _) if !many.is_empty() => many,
        (_, Some(one)) => vec![one],
        (Some(_), None) => return Err(InvalidTrigger::Missing("channels")),
        (None, None) => return Err(InvalidTrigger::Missing("channel")),
    };
    if named.len() > limits.channels {
        return Err(InvalidTrigger::TooManyChannels { count: named.len(), limit: limits.channels });
    }
    let mut channels: Vec<Cow<'a, str>> = Vec::with_capacity(named.len());
    for Text(name) in named {
        ChannelName::parse(&name, limits.channel_name_bytes)
            .map_err(|error| InvalidTrigger::Channel { name: name.clone().into_owned(), error })?;
        // At most a hundred names: a set would cost more than it saves.
        if !channels.contains(&name) {
            channels.push(name);
        }
    }
    Ok(channels)
}

/// What an answer tells of one channel. What was not asked for, or does not apply, is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChannelInfo {
    /// Whether anybody is subscribed (single channel only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occupied: Option<bool>,
    /// Distinct users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_count: Option<usize>,
    /// Connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_count: Option<usize>,
    /// The kept event; `null` if there is none, absent if nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Option<CachedData>>,
    /// How far the channel has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

/// The event a cache channel keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CachedData {
    /// As it was published.
    pub data: String,
    /// Seconds it will still be kept.
    pub ttl: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: &str) -> Result<(String, Vec<String>, String), String> {
        let query = Query::parse("");
        let event =
            Event::parse(body.as_bytes(), &query, &EventLimits::default()).map_err(|error| error.to_string())?;
        let channels = event.channels.iter().map(ToString::to_string).collect();
        Ok((event.name.into_owned(), channels, event.data.literal().to_owned()))
    }

    fn channels(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn channel_and_channels_are_both_fine() {
        let expected = Ok(("e".to_owned(), channels(&["a"]), "\"{}\"".to_owned()));
        assert_eq!(event(r#"{"name":"e","data":"{}","channel":"a"}"#), expected);
        assert_eq!(event(r#"{"name":"e","data":"{}","channels":["a","a"]}"#), expected);
        assert_eq!(event(r#"{"name":"e","data":{},"channels":["a"],"extra":1}"#), expected);
        assert_eq!(event(r#"{"name":"e","data":null,"channel":"a"}"#).unwrap().2, "\"null\"");
    }

    #[test]
    fn data_may_be_any_string() {
        for literal in [r#""""#, r#""0""#, r#""null""#, r#""\/\u00e9""#] {
            let body = format!(r#"{{"name":"e","channel":"a","data":{literal}}}"#);
            assert_eq!(event(&body).unwrap().2, literal);
        }
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let text = |body: &str| event(body).unwrap_err();
        assert_eq!(text(r#"{"data":"","channel":"a"}"#), "Missing required parameter: name");
        assert_eq!(text(r#"{"name":"e","channel":"a"}"#), "Missing required parameter: data");
        assert_eq!(text(r#"{"name":"e","data":""}"#), "Missing required parameter: channel");
        assert_eq!(text(r#"{"name":"e","data":"","channels":[]}"#), "Missing required parameter: channels");
        assert_eq!(text(r#"{"name":"e","data":"","channel":"a","socket_id":"x"}"#), "Invalid socket id: 'x'");
        assert!(text(r#"{"name":"pusher:x","data":"","channel":"a"}"#).starts_with("Invalid event name"));
        assert!(text(r#"{"name":"e","data":"","channel":"a b"}"#).starts_with("Invalid channel name 'a b'"));
        assert!(text("[]").starts_with("Invalid JSON body"));
        let many: Vec<_> = (0..101).map(|n| format!("\"c{n}\"")).collect();
        let body = format!(r#"{{"name":"e","data":"","channels":[{}]}}"#, many.join(","));
        assert_eq!(text(&body), "Too many channels (101 > 100)");
        let body = format!(r#"{{"name":"e","data":"{}","channel":"a"}}"#, "x".repeat(10_241));
        assert!(text(&body).starts_with("The data content of this event exceeds the allowed maximum (10240 bytes)"));
    }

    #[test]
    fn a_batch_has_one_channel_an_event() {
        let limits = EventLimits::default();
        let text = |body: &str| Event::parse_batch(body.as_bytes(), &limits).unwrap_err().to_string();
        assert_eq!(
            text(r#"{"batch":[{"name":"e","data":"","channels":["a"]}]}"#),
            "Missing required parameter: channel"
        );
        let events = [r#"{"name":"e","data":"","channel":"a"}"#; 11].join(",");
        assert_eq!(text(&format!(r#"{{"batch":[{events}]}}"#)), "Batch too large (11 > 10)");
        assert_eq!(text("{}"), "Missing required parameter: batch");
        assert!(text(r#"{"batch":[["e","","a"]]}"#).contains("expected an object, not an array"));
    }
}

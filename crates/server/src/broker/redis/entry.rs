//! What stands in the log and travels with a push: a header, and the events that were packed together.
//!
//! ```text
//! version 1 | publisher 8 | epoch 8 | first sequence number 8 | sent at, Unix ms 8 | flags 1 | events 2 | events, each:
//! kind 1 | app, channel, event, data: length 4 and bytes | excepted socket, user: length 4 and bytes, or 0xFFFF_FFFF for none
//! ```
//!
//! All numbers are big-endian. The sequence number counts events, per publisher and shard, from 1, without holes: whoever reads
//! can drop what it has had, and tell how many are missing.

use bytes::{Buf, BufMut};
use fanfare_protocol::json::EventData;

use crate::{
    broker::{Published, Source},
    directory::Publication,
};

/// The format that is written, and the only one that is read.
const VERSION: u8 = 1;
/// Bytes in front of the first event.
pub(super) const HEADER_BYTES: usize = 36;
/// The length of an absent text.
const NONE: u32 = u32::MAX;

const TRIGGER: u8 = 0;
const CLIENT: u8 = 1;
const TERMINATE: u8 = 2;

/// Flags of an entry.
const REPLAY: u8 = 1;
const AGAIN: u8 = 2;

/// What is true of all events of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Names a process that publishes, for as long as it lives.
    pub(super) publisher: u64,
    /// The epoch of the log that the entry was meant for.
    pub(super) epoch: u64,
    /// The sequence number of the first event.
    pub(super) first: u64,
    /// When it was sent, in ms since 1970, by the publisher's clock.
    pub(super) sent_ms: u64,
    /// Whether the events are sent again because a log that had them was lost.
    pub(super) replay: bool,
    /// Whether some of the events may be in this log already: they were sent before, but no answer came.
    pub(super) again: bool,
}

/// One thing that all nodes are told.
#[derive(Debug, PartialEq)]
pub(super) enum Told<'a> {
    /// An event for the subscribers of a channel.
    Event {
        app: &'a str,
        channel: &'a str,
        event: &'a str,
        data: EventData<'a>,
        except: Option<&'a str>,
        source: Source<'a>,
    },
    /// All connections of a user shall end.
    Terminate { app: &'a str, user_id: &'a str },
}

/// Not an entry, or one of a later version of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is of format {0}; this node reads format {VERSION}: run the same version on all nodes")]
    Version(u8),
    #[error("it is cut short or not well-formed")]
    Malformed,
}

/// Encodes an event.
pub(super) fn event(app: &str, Published { publication, source, .. }: &Published<'_>) -> Box<[u8]> {
    let Publication { channel, event, data, except, since: _ } = publication;
    let (kind, user_id) = match source {
        Source::Api => (TRIGGER, None),
        Source::Client { user_id } => (CLIENT, *user_id),
    };
    let except = except.map(|socket_id| socket_id.to_string());
    encode(kind, [Some(app), Some(channel), Some(event), Some(data.literal()), except.as_deref(), user_id])
}

/// Encodes the last event of a cache channel, as [`event`] does.
pub(super) fn kept(app: &str, channel: &str, event: &str, data: &EventData<'_>) -> Box<[u8]> {
    encode(TRIGGER, [Some(app), Some(channel), Some(event), Some(data.literal()), None, None])
}

/// The app and the channel of an encoded event.
pub(super) fn app_and_channel(mut bytes: &[u8]) -> Option<(&str, &str)> {
    match told(&mut bytes).ok()? {
        Told::Event { app, channel, .. } => Some((app, channel)),
        Told::Terminate { .. } => None,
    }
}

/// The name and the data of an encoded event.
pub(super) fn name_and_data(mut bytes: &[u8]) -> Option<(&str, EventData<'_>)> {
    match told(&mut bytes).ok()? {
        Told::Event { event, data, .. } => Some((event, data)),
        Told::Terminate { .. } => None,
    }
}

/// Encodes the end of a user's connections.
pub(super) fn terminate(app: &str, user_id: &str) -> Box<[u8]> {
    encode(TERMINATE, [Some(app), None, None, None, None, Some(user_id)])
}

fn encode(kind: u8, texts: [Option<&str>; 6]) -> Box<[u8]> {
    let length: usize = texts.iter().map(|text| 4 + text.map_or(0, str::len)).sum();
    let mut out = Vec::with_capacity(1 + length);
    out.put_u8(kind);
    for text in texts {
        match text {
            Some(text) => {
                out.put_u32(u32::try_from(text.len()).unwrap_or(NONE));
                out.put_slice(text.as_bytes());
            }
            None => out.put_u32(NONE),
        }
    }
    out.into_boxed_slice()
}

/// Packs encoded events behind their header.
pub(super) fn pack<'a>(header: Header, events: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let length: usize = events.clone().map(<[u8]>::len).sum();
    let mut out = Vec::with_capacity(HEADER_BYTES + length);
    out.put_u8(VERSION);
    out.put_u64(header.publisher);
    out.put_u64(header.epoch);
    out.put_u64(header.first);
    out.put_u64(header.sent_ms);
    out.put_u8((u8::from(header.replay) * REPLAY) | (u8::from(header.again) * AGAIN));
    out.put_u16(u16::try_from(events.len()).unwrap_or(u16::MAX));
    events.for_each(|event| out.put_slice(event));
    out
}

/// Reads an entry: its header, and its events in order.
///
/// # Errors
/// [`Unreadable`]; whatever the bytes are, nothing panics.
pub(super) fn read(mut bytes: &[u8]) -> Result<(Header, Vec<Told<'_>>), Unreadable> {
    let version = number(&mut bytes, Buf::try_get_u8)?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    let [publisher, epoch, first, sent_ms] = [(); 4].map(|()| number(&mut bytes, Buf::try_get_u64));
    let flags = number(&mut bytes, Buf::try_get_u8)?;
    let header = Header {
        publisher: publisher?,
        epoch: epoch?,
        first: first?,
        sent_ms: sent_ms?,
        replay: flags & REPLAY != 0,
        again: flags & AGAIN != 0,
    };
    let count = number(&mut bytes, Buf::try_get_u16)?;
    let events: Vec<_> = (0..count).map(|_| told(&mut bytes)).collect::<Result<_, _>>()?;
    if bytes.is_empty() { Ok((header, events)) } else { Err(Unreadable::Malformed) }
}

fn told<'a>(bytes: &mut &'a [u8]) -> Result<Told<'a>, Unreadable> {
    let kind = number(bytes, Buf::try_get_u8)?;
    let mut texts = [None; 6];
    for slot in &mut texts {
        *slot = text(bytes)?;
    }
    let [app, channel, event, data, except, user_id] = texts;
    let must = |text: Option<&'a str>| text.ok_or(Unreadable::Malformed);
    let app = must(app)?;
    match kind {
        TRIGGER | CLIENT => Ok(Told::Event {
            app,
            channel: must(channel)?,
            event: must(event)?,
            data: EventData::from_literal(must(data)?).ok_or(Unreadable::Malformed)?,
            except,
            source: if kind == CLIENT { Source::Client { user_id } } else { Source::Api },
        }),
        TERMINATE => Ok(Told::Terminate { app, user_id: must(user_id)? }),
        _ => Err(Unreadable::Malformed),
    }
}

fn number<'a, T>(
    bytes: &mut &'a [u8],
    get: impl Fn(&mut &'a [u8]) -> Result<T, bytes::TryGetError>,
) -> Result<T, Unreadable> {
    get(bytes).map_err(|_| Unreadable::Malformed)
}

fn text<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a str>, Unreadable> {
    let length = number(bytes, Buf::try_get_u32)?;
    if length == NONE {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| Unreadable::Malformed)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or(Unreadable::Malformed)?;
    *bytes = rest;
    std::str::from_utf8(text).map(Some).map_err(|_| Unreadable::Malformed)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const HEADER: Header = Header { publisher: u64::MAX, epoch: 5, first: 7, sent_ms: 9, replay: true, again: false };

    #[test]
    fn an_entry_reads_back_as_it_was_packed() {
        let data = EventData::from_text("{\"a\":\"\\/ é\"}");
        let except = "12.34".parse().ok();
        let publication =
            Publication { channel: "presence-c", event: "client-é", data: &data, except, since: Instant::now() };
        let source = Source::Client { user_id: Some("u\0 1") };
        let events = [event("app", &Published { publication, source, position: None }), terminate("app", "u")];
        let entry = pack(HEADER, events.iter().map(|event| &**event));
        let expected = Told::Event {
            app: "app",
            channel: "presence-c",
            event: "client-é",
            data: EventData::from_literal(data.literal()).unwrap(),
            except: Some("12.34"),
            source,
        };
        let (header, told) = read(&entry).unwrap();
        assert_eq!((header, told), (HEADER, vec![expected, Told::Terminate { app: "app", user_id: "u" }]));
    }

    #[test]
    fn whatever_is_not_an_entry_is_refused() {
        let data = EventData::from_text("x");
        let publication = Publication { channel: "c", event: "e", data: &data, except: None, since: Instant::now() };
        let events = [event("app", &Published { publication, source: Source::Api, position: None })];
        let entry = pack(HEADER, events.iter().map(|event| &**event));
        for length in 0..entry.len() {
            assert_eq!(read(&entry[..length]), Err(Unreadable::Malformed), "{length} bytes");
        }
        for place in 34..entry.len() {
            let mut damaged = entry.clone();
            damaged[place] = 0xFE;
            let _ = read(&damaged);
        }
        let mut newer = entry;
        newer[0] = 2;
        assert_eq!(read(&newer), Err(Unreadable::Version(2)));
    }
}

//! How an event is printed.

use std::{
    io::{self, Write as _},
    time::SystemTime,
};

use humantime::format_rfc3339_seconds;
use serde_json::Value;

use super::super::printable;

/// Prints events, until there are enough of them.
pub(super) struct Output {
    json: bool,
    all: bool,
    left: Option<u64>,
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// More may follow.
    More,
    /// It was the last one, or nobody reads any more.
    Enough,
}

impl Output {
    pub(super) fn new(json: bool, all: bool, count: Option<u64>) -> Self {
        Self { json, all, left: count }
    }

    /// Prints a frame that belongs to a channel, if it is of interest.
    pub(super) fn frame(&mut self, text: &str, frame: &Value) -> Printed {
        let event = frame["event"].as_str().unwrap_or_default();
        let own = event.starts_with("pusher_internal:member_") || event == "pusher:cache_miss";
        if event.starts_with("pusher") && event.contains(':') && !own && !self.all {
            return Printed::More;
        }
        let line = if self.json { format!("{text}\n") } else { readable(frame, SystemTime::now()) };
        let mut stdout = io::stdout().lock();
        // Flushed at once, also into a pipe. An error means that the reader has closed it.
        if stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            return Printed::Enough;
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        if self.left == Some(0) { Printed::Enough } else { Printed::More }
    }
}

/// `time channel event data`, for people. Others have written it, so nothing in it reaches the terminal as a command.
fn readable(frame: &Value, now: SystemTime) -> String {
    let text = |key: &str| frame[key].as_str().unwrap_or_default();
    let data = frame["data"].as_str().map_or_else(|| frame["data"].to_string(), str::to_owned);
    let sender = frame["user_id"].as_str().map(|user| format!(" (from {})", printable(user))).unwrap_or_default();
    let (time, channel, event) = (format_rfc3339_seconds(now), printable(text("channel")), printable(text("event")));
    format!("{time} {channel} {event}{sender} {}\n", printable(&data))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line_whatever_is_in_it() {
        let frame = json!({"event": "e", "channel": "c", "data": "a\u{1b}[2Jb\n", "user_id": "7"});
        assert_eq!(readable(&frame, SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z c e (from 7) a\\u{1b}[2Jb\\n\n");
        let frame = json!({"event": "e", "channel": "c", "data": {"id": 7}});
        assert_eq!(readable(&frame, SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z c e {\"id\":7}\n");
    }
}

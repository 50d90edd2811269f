//! What a receive request carries: lines, whose first character says what they are. As `SockJS` has it, and pusher-js reads it.

use std::io::Write as _;

use bytes::Bytes;

use crate::frame::Content;

/// Answers a client that asks whether anybody is there, and keeps proxies from ending a quiet stream. Costs no answer.
pub(super) const NOTHING: &str = "a[]\n";

/// Asks the client for a sign of life: over a stream it answers each with an empty send.
const HEARTBEAT: &str = "h\n";

/// Bytes before the first line of a stream. Some proxies and old browsers hold back the beginning of a response; while it
/// connects, pusher-js takes heartbeats for nothing.
const PRELUDE_BYTES: usize = 2048;

/// The lines of one chunk, under construction. Messages that follow each other share one line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    in_messages: bool,
}

impl Lines {
    /// The session is open: once, and before anything else.
    pub(super) fn open(&mut self, streaming: bool) {
        if streaming {
            self.bytes.resize(PRELUDE_BYTES, b'h');
            self.bytes.push(b'\n');
        }
        self.line("o\n");
    }

    /// Adds what a frame says. Returns whether it was the last one.
    pub(super) fn add(&mut self, frame: &Content<'_>) -> bool {
        match frame {
            Content::Text(json) => self.message(json),
            Content::Ping => self.heartbeat(),
            Content::Pong => {}
            Content::Close { code, reason } => {
                self.close(*code, reason);
                return true;
            }
        }
        false
    }

    fn message(&mut self, json: &str) {
        self.bytes.extend_from_slice(if self.in_messages { b"," } else { b"a[" });
        self.in_messages = true;
        self.string(json);
    }

    /// A whole line of its own.
    pub(super) fn line(&mut self, line: &str) {
        self.end_messages();
        self.bytes.extend_from_slice(line.as_bytes());
    }

    /// A heartbeat.
    pub(super) fn heartbeat(&mut self) {
        self.line(HEARTBEAT);
    }

    /// The session is over.
    pub(super) fn close(&mut self, code: u16, reason: &str) {
        self.end_messages();
        // Writing to memory cannot fail.
        let _ = write!(self.bytes, "c[{code},");
        self.string(reason);
        self.bytes.extend_from_slice(b"]\n");
    }

    fn end_messages(&mut self) {
        if std::mem::take(&mut self.in_messages) {
            self.bytes.extend_from_slice(b"]\n");
        }
    }

    fn string(&mut self, value: &str) {
        let _ = serde_json::to_writer(&mut self.bytes, value);
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The chunk.
    pub(super) fn finish(mut self) -> Bytes {
        self.end_messages();
        self.bytes.into()
    }
}

/// How long a text is for a browser, which counts in UTF-16.
pub(super) fn utf16_length(chunk: &[u8]) -> usize {
    // Every character has one byte that does not continue another; those of four bytes become two units.
    chunk.iter().map(|byte| usize::from(byte & 0xC0 != 0x80) + usize::from(*byte >= 0xF0)).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanfare_protocol::CloseCode;

    use super::*;
    use crate::frame::{self, Frame};

    fn lines(frames: &[Bytes]) -> String {
        let mut lines = Lines::default();
        for frame in frames {
            lines.add(&frame::read(frame).unwrap());
        }
        String::from_utf8(lines.finish().to_vec()).unwrap()
    }

    fn text(json: &str) -> Bytes {
        Frame::text(json.as_bytes()).into_bytes()
    }

    #[test]
    fn messages_share_a_line_until_something_else_comes() {
        let frames = [
            text(r#"{"data":"\"é\""}"#),
            text("{}"),
            frame::PING,
            text("{}"),
            frame::close(CloseCode::RECONNECT, "say \"bye\""),
        ];
        assert_eq!(
            lines(&frames),
            "a[\"{\\\"data\\\":\\\"\\\\\\\"é\\\\\\\"\\\"}\",\"{}\"]\nh\na[\"{}\"]\nc[4200,\"say \\\"bye\\\"\"]\n"
        );
    }

    #[test]
    fn frames_of_any_length_are_read() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let json = "x".repeat(length);
            assert_eq!(lines(&[text(&json)]), format!("a[\"{json}\"]\n"));
        }
    }

    #[test]
    fn length_is_counted_as_browsers_do() {
        for text in ["", "abc\n", "é", "日本", "🎺 fanfare", "\u{10FFFF}\u{FFFF}"] {
            assert_eq!(utf16_length(text.as_bytes()), text.encode_utf16().count(), "{text}");
        }
    }
}

//! WebSocket frames to clients, encoded once and shared by all who get them.

use bytes::{BufMut, Bytes, BytesMut};
use fanfare_protocol::{CloseCode, Position, server_event};

/// A text frame: header and JSON in one piece of shared memory. Cloning counts a reference.
#[derive(Clone, Debug)]
pub(crate) struct Frame(Bytes);

impl Frame {
    /// Puts the header before a JSON text.
    pub(crate) fn text(json: &[u8]) -> Self {
        Self(encode(0x81, json))
    }

    /// The JSON text.
    pub(crate) fn json(&self) -> &[u8] {
        payload(&self.0).unwrap_or_default()
    }

    /// The same with a position in it.
    pub(crate) fn with_position(&self, position: Position) -> Self {
        Self::text(&server_event::with_position(self.json(), position))
    }

    /// The frame without this position, as it was before [`Frame::with_position`].
    pub(crate) fn without_position(&self, position: Position) -> Option<Self> {
        server_event::without_position(self.json(), position).map(|json| Self::text(&json))
    }

    /// What goes over a WebSocket.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A control ping without payload.
pub(crate) const PING: Bytes = Bytes::from_static(&[0x89, 0]);

/// The answer to a control ping.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    encode(0x8A, payload)
}

/// A close frame. A control frame has room for 123 bytes of reason; a longer one is cut between characters.
pub(crate) fn close(code: CloseCode, reason: &str) -> Bytes {
    let end = (0..=reason.len().min(123)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or_default();
    let mut payload = code.get().to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    encode(0x88, &payload)
}

/// A frame of ours, taken apart for those who do not speak WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Text(&'a str),
    Ping,
    Pong,
    Close { code: u16, reason: &'a str },
}

/// Reads a whole frame that was encoded here; `None` if it is none.
pub(crate) fn read(frame: &[u8]) -> Option<Content<'_>> {
    let payload = payload(frame)?;
    match frame[0] {
        0x81 => std::str::from_utf8(payload).ok().map(Content::Text),
        0x89 => Some(Content::Ping),
        0x8A => Some(Content::Pong),
        0x88 => {
            let (code, reason) = payload.split_at_checked(2)?;
            let code = u16::from_be_bytes(code.try_into().ok()?);
            Some(Content::Close { code, reason: std::str::from_utf8(reason).ok()? })
        }
        _ => None,
    }
}

/// What stands behind the header of a frame that was encoded here.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    match frame.get(1)? {
        126 => frame.get(4..),
        127 => frame.get(10..),
        _ => frame.get(2..),
    }
}

/// RFC 6455, 5.2: a final, unmasked frame.
fn encode(first: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    out.put_u8(first);
    match payload.len() {
        length @ 0..=125 => out.put_u8(u8::try_from(length).unwrap_or_default()),
        length => match u16::try_from(length) {
            Ok(short) => {
                out.put_u8(126);
                out.put_u16(short);
            }
            Err(_) => {
                out.put_u8(127);
                out.put_u64(length as u64);
            }
        },
    }
    out.extend_from_slice(payload);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        let header = |length: usize| Frame::text(&vec![b'x'; length]).into_bytes()[..4].to_vec();
        assert_eq!(header(2), [0x81, 2, b'x', b'x']);
        assert_eq!(header(125)[..2], [0x81, 125]);
        assert_eq!(header(126), [0x81, 126, 0, 126]);
        assert_eq!(header(65_535), [0x81, 126, 0xff, 0xff]);
        assert_eq!(header(65_536), [0x81, 127, 0, 0]);
    }

    #[test]
    fn the_text_is_found_behind_every_header() {
        for length in [2, 125, 126, 65_535, 65_536] {
            assert_eq!(Frame::text(&vec![b'x'; length]).json().len(), length);
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(CloseCode::RECONNECT, &"é".repeat(100));
        assert_eq!(frame[..4], [0x88, 124, 0x10, 0x68]);
        assert_eq!(std::str::from_utf8(&frame[4..]).unwrap(), "é".repeat(61));
    }
}

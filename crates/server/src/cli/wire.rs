//! RFC 6455 as far as a subscriber needs it.

/// A frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// The first byte: final, and the kind.
    pub(super) first: u8,
    /// What is in it.
    pub(super) payload: &'a [u8],
}

/// A whole text message.
pub(super) const TEXT: u8 = 0x81;
/// A close frame.
pub(super) const CLOSE: u8 = 0x88;
/// A ping.
pub(super) const PING: u8 = 0x89;
/// A pong.
pub(super) const PONG: u8 = 0x8A;

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes` and what follows it; `None` if it is not all there.
    pub(super) fn take(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[first, length], rest) = bytes.split_first_chunk()?;
        let (length, rest) = match length & 0x7f {
            126 => rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
            127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
            length => (u64::from(length), rest),
        };
        let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        Some((Self { first, payload }, rest))
    }
}

/// A frame for the server. Its mask is zero, which is allowed and spares the work: no proxy needs protection from us.
pub(super) fn encode(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => out.push(0x80 | length),
        (_, Ok(length)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_when_they_are_whole() {
        let mut bytes = vec![TEXT, 126, 0, 200];
        bytes.extend([b'x'; 200]);
        bytes.extend([CLOSE, 0]);
        let (frame, rest) = Frame::take(&bytes).unwrap();
        assert_eq!((frame.first, frame.payload.len(), rest), (TEXT, 200, &[CLOSE, 0][..]));
        assert_eq!(Frame::take(rest).unwrap(), (Frame { first: CLOSE, payload: &[] }, &[][..]));
        assert_eq!([0, 1, 3, 50, 203].map(|cut| Frame::take(&bytes[..cut])), [None; 5]);
        assert_eq!(encode(TEXT, b"ab"), [TEXT, 0x82, 0, 0, 0, 0, b'a', b'b']);
    }
}

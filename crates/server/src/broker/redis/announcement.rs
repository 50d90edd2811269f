//! What scripts announce in the log: who came, who left, how many are there. Made in `membership.lua`, read here.

use super::{entry::Unreadable, log::Position};

/// The first byte of a pushed announcement; entries with events begin with their version, which is another one.
pub(super) const PUSHED: u8 = 2;

/// A change in the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Announcement<'a> {
    /// A user has come to a presence channel, at the first of its nodes.
    Joined { app: &'a str, channel: &'a str, user_id: &'a str, info: &'a str },
    /// A user has left a presence channel, at the last of its nodes.
    Left { app: &'a str, channel: &'a str, user_id: &'a str },
    /// So many connections are subscribed to a channel, on all nodes.
    Count { app: &'a str, channel: &'a str, count: usize },
    /// A user has signed in, at the first of its nodes.
    Online { app: &'a str, user_id: &'a str },
    /// A user is not signed in at any node any more.
    Offline { app: &'a str, user_id: &'a str },
    /// Nothing has changed. Tells the number of the last entry before it, from which pushes can be counted.
    Mark,
}

/// Reads a pushed announcement, the first byte included, and its place in the log.
///
/// # Errors
/// [`Unreadable`]; whatever the bytes are, nothing panics.
pub(super) fn read_pushed(bytes: &[u8]) -> Result<(Position, Announcement<'_>), Unreadable> {
    let (position, rest) = text(bytes.get(1..).unwrap_or_default())?;
    let position = Position::from_text(position).ok_or(Unreadable::Malformed)?;
    Ok((position, read(rest)?))
}

/// Reads an announcement as it stands in the log.
///
/// # Errors
/// As [`read_pushed`].
pub(super) fn read(bytes: &[u8]) -> Result<Announcement<'_>, Unreadable> {
    let (kind, mut rest) = bytes.split_first().ok_or(Unreadable::Malformed)?;
    if bytes == b"M" {
        return Ok(Announcement::Mark);
    }
    let mut next = || {
        let (value, behind) = text(rest)?;
        rest = behind;
        Ok(value)
    };
    let app = next()?;
    let announcement = match kind {
        b'J' => Announcement::Joined { app, channel: next()?, user_id: next()?, info: next()? },
        b'L' => Announcement::Left { app, channel: next()?, user_id: next()? },
        b'C' => {
            Announcement::Count { app, channel: next()?, count: next()?.parse().map_err(|_| Unreadable::Malformed)? }
        }
        b'O' => Announcement::Online { app, user_id: next()? },
        b'F' => Announcement::Offline { app, user_id: next()? },
        _ => return Err(Unreadable::Malformed),
    };
    if rest.is_empty() { Ok(announcement) } else { Err(Unreadable::Malformed) }
}

/// Takes a text from the front: four bytes of length, then the text.
pub(super) fn text(bytes: &[u8]) -> Result<(&str, &[u8]), Unreadable> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(Unreadable::Malformed)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Unreadable::Malformed)?;
    let (value, rest) = rest.split_at_checked(length).ok_or(Unreadable::Malformed)?;
    Ok((std::str::from_utf8(value).map_err(|_| Unreadable::Malformed)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: &[u8], texts: &[&str]) -> Vec<u8> {
        let mut out = kind.to_vec();
        for text in texts {
            out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    #[test]
    fn announcements_are_read_as_scripts_make_them() {
        let joined = bytes(b"J", &["app", "presence-c", "u\0é", "{}"]);
        let expected = Announcement::Joined { app: "app", channel: "presence-c", user_id: "u\0é", info: "{}" };
        assert_eq!(read(&joined).unwrap(), expected);
        let mut pushed = bytes(&[PUSHED], &["5-7"]);
        pushed.extend_from_slice(&joined);
        assert_eq!(read_pushed(&pushed).unwrap(), (Position { epoch: 5, number: 7 }, expected));
        let count = bytes(b"C", &["app", "c", "12"]);
        assert_eq!(read(&count).unwrap(), Announcement::Count { app: "app", channel: "c", count: 12 });
        for length in 0..pushed.len() {
            assert!(read_pushed(&pushed[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(read(b"M").unwrap(), Announcement::Mark);
        assert!(read(&bytes(b"X", &["app"])).is_err());
        assert!(read(&bytes(b"C", &["app", "c", "many"])).is_err());
    }
}

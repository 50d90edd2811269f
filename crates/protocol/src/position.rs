//! Positions: how far a client has come in the events of a channel.

use std::{fmt, str::FromStr};

/// The place of an event among those of its channel, `<epoch>.<number>`. Clients keep it and hand it back unread.
///
/// The epoch is 64 bits that nobody can guess: random ones of a server that is alone, or made of the log that several nodes share. Numbers
/// grow within an epoch and mean nothing in another one, so a position of another channel, or from before events were lost, matches
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which run of numbers this is one of.
    pub epoch: u64,
    /// Grows from event to event.
    pub number: u64,
}

/// Letters of an epoch: each stands for six bits, so eleven hold 64.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const EPOCH_LETTERS: usize = 11;
/// Bytes of the longest text that is looked at.
const MAX_BYTES: usize = 64;

impl Position {
    /// Matches no event of any channel, since no epoch is 0: for a client that has nothing to go on from.
    pub const NONE: Self = Self { epoch: 0, number: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut letters = [0; EPOCH_LETTERS];
        let mut rest = self.epoch;
        for letter in letters.iter_mut().rev() {
            *letter = LETTERS[usize::from(rest.to_le_bytes()[0] & 63)];
            rest >>= 6;
        }
        // Letters are ASCII.
        f.write_str(std::str::from_utf8(&letters).unwrap_or_default())?;
        write!(f, ".{}", self.number)
    }
}

/// The text is not what [`Position`] could have printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position of this server")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (letters, digits) = text.split_once('.').filter(|_| text.len() <= MAX_BYTES).ok_or(NotAPosition)?;
        let mut epoch = 0_u64;
        for letter in letters.bytes() {
            let value = LETTERS.iter().position(|candidate| *candidate == letter).ok_or(NotAPosition)?;
            epoch = epoch << 6 | value as u64;
        }
        let position = Self { epoch, number: digits.parse().map_err(|_| NotAPosition)? };
        // Eleven letters have two bits too many, and a number may be written in several ways: only ours counts.
        if position.to_string() == text { Ok(position) } else { Err(NotAPosition) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_what_it_prints() {
        for (epoch, number) in [(0, 0), (1, 2), (u64::MAX, u64::MAX), (1 << 63, 1), (0x0123_4567_89ab_cdef, 499)] {
            let position = Position { epoch, number };
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        assert_eq!(Position { epoch: 63, number: 7 }.to_string(), "AAAAAAAAAA_.7");
    }

    #[test]
    fn anything_else_is_no_position() {
        for text in [
            "",
            ".",
            "1.2",
            "AAAAAAAAAAA",
            "AAAAAAAAAAA.",
            "AAAAAAAAAAA.01",
            "AAAAAAAAAAA.+1",
            "AAAAAAAAAAA.1.2",
            "QAAAAAAAAAA.1",
            "AAAAAAAAAA=.1",
            "AAAAAAAAAAAA.1",
            "AAAAAAAAAAA.18446744073709551616",
            "ÄAAAAAAAAA.1",
        ] {
            assert_eq!(text.parse::<Position>(), Err(NotAPosition), "{text:?}");
        }
        assert_eq!("x".repeat(100_000).parse::<Position>(), Err(NotAPosition));
    }
}

//! Socket ids: the public name of one connection.

use std::{fmt, str::FromStr};

/// The public id of a connection, `<number>.<number>`.
///
/// Both numbers are 1 to 999,999,999, so that every SDK's check `^\d+\.\d+$` holds and 60 random bits make it unique in a
/// cluster and impossible to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    high: u32,
    low: u32,
}

/// The largest value of either number.
const MAX: u32 = 999_999_999;

impl SocketId {
    /// Makes an id of two random numbers; any value will do.
    pub fn from_random(high: u32, low: u32) -> Self {
        Self { high: high % MAX + 1, low: low % MAX + 1 }
    }

    /// Whether `text` has the shape of a socket id (`^\d+\.\d+$`), be it ours or another server's.
    pub fn is_well_formed(text: &str) -> bool {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('.').is_some_and(|(high, low)| digits(high) && digits(low))
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.high, self.low)
    }
}

/// The text is not an id that [`SocketId`] could have printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a socket id of this server")]
pub struct NotOurs;

impl FromStr for SocketId {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let number = |part: &str| {
            let canonical = !part.starts_with('0') && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|number| canonical && *number <= MAX).ok_or(NotOurs)
        };
        let (high, low) = text.split_once('.').ok_or(NotOurs)?;
        Ok(Self { high: number(high)?, low: number(low)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        for (high, low) in [(0, 0), (1, 2), (u32::MAX, u32::MAX), (999_999_998, 999_999_999)] {
            let id = SocketId::from_random(high, low);
            assert!(SocketId::is_well_formed(&id.to_string()));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn ids_of_other_servers_are_well_formed_but_not_ours() {
        for text in ["10000000000.9999999999", "0.0", "01.2"] {
            assert!(SocketId::is_well_formed(text));
            assert_eq!(text.parse::<SocketId>(), Err(NotOurs));
        }
        for text in ["", ".", "1.", ".1", "1", "1.2.3", "a.b", "+1.2", "1.2\n", "1 .2"] {
            assert!(!SocketId::is_well_formed(text), "{text:?}");
            assert_eq!(text.parse::<SocketId>(), Err(NotOurs));
        }
    }
}

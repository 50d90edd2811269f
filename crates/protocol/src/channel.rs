//! Channel names and what their prefix says. One parser; the facts are independent of each other.

use std::fmt;

use crate::limits;

/// The prefix of a user's own channel, where server-to-user events arrive. No other name may begin with `#`.
pub const SERVER_TO_USER: &str = "#server-to-user-";

const PREFIXES: [(&str, ChannelKind); 8] = [
    // Longest first: `private-encrypted-cache-x` is more than a private channel.
    (
        "private-encrypted-cache-",
        ChannelKind { auth: true, presence: false, encrypted: true, cache: true, user: false },
    ),
    ("private-encrypted-", ChannelKind { auth: true, presence: false, encrypted: true, cache: false, user: false }),
    ("private-cache-", ChannelKind { auth: true, presence: false, encrypted: false, cache: true, user: false }),
    ("presence-cache-", ChannelKind { auth: true, presence: true, encrypted: false, cache: true, user: false }),
    ("private-", ChannelKind { auth: true, presence: false, encrypted: false, cache: false, user: false }),
    ("presence-", ChannelKind { auth: true, presence: true, encrypted: false, cache: false, user: false }),
    ("cache-", ChannelKind { auth: false, presence: false, encrypted: false, cache: true, user: false }),
    (SERVER_TO_USER, ChannelKind { auth: false, presence: false, encrypted: false, cache: false, user: true }),
];

/// What a channel's prefix says about it.
///
/// Prefixes are literal, case-sensitive and end with their dash: `privatefoo` is a public channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelKind {
    /// Subscribing needs a signature of the app (`private-`, `presence-`).
    pub auth: bool,
    /// Subscribers are members with a user id (`presence-`).
    pub presence: bool,
    /// `data` is ciphertext that only clients can read (`private-encrypted-`).
    pub encrypted: bool,
    /// The last event is kept for new subscribers (`cache-`, also behind another prefix).
    pub cache: bool,
    /// The channel of one signed-in user ([`SERVER_TO_USER`]).
    pub user: bool,
}

impl ChannelKind {
    /// The facts of a name that is known to be valid. Never fails: a name without a known prefix is public.
    pub fn of(name: &str) -> Self {
        PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or_else(Self::default, |(_, kind)| *kind)
    }
}

/// A valid channel name with the facts of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelName<'a> {
    name: &'a str,
    kind: ChannelKind,
}

impl<'a> ChannelName<'a> {
    /// Checks the characters (`A-Z a-z 0-9 _ - = @ , . ;`) and their number.
    ///
    /// [`SERVER_TO_USER`] names may hold any character in the user id except control characters, and only the id counts for the length:
    /// whoever may sign in may have this channel. Source: Channels documentation, "Channel naming conventions".
    ///
    /// # Errors
    /// [`InvalidChannelName`] says which rule the name breaks.
    pub fn parse(name: &'a str, max_length: usize) -> Result<Self, InvalidChannelName> {
        if name.is_empty() {
            return Err(InvalidChannelName::Empty);
        }
        let kind = ChannelKind::of(name);
        if let Some(user_id) = kind.user.then(|| &name[SERVER_TO_USER.len()..]) {
            if user_id.is_empty() || user_id.chars().any(char::is_control) {
                return Err(InvalidChannelName::Characters);
            }
            // The prefix is ours, so the user id alone is measured.
            let (length, max_length) = (user_id.chars().count(), limits::USER_ID_CHARS.max(max_length));
            if length > max_length {
                return Err(InvalidChannelName::TooLong { length, max_length });
            }
            return Ok(Self { name, kind });
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
        if !name.bytes().all(allowed) {
            return Err(InvalidChannelName::Characters);
        }
        // All are ASCII, so a byte is a character.
        if name.len() > max_length {
            return Err(InvalidChannelName::TooLong { length: name.len(), max_length });
        }
        Ok(Self { name, kind })
    }

    /// The name as it goes over the wire, prefix included.
    pub fn as_str(self) -> &'a str {
        self.name
    }

    /// What the prefix says.
    pub fn kind(self) -> ChannelKind {
        self.kind
    }

    /// The user whose channel this is, for [`SERVER_TO_USER`] names.
    pub fn user_id(self) -> Option<&'a str> {
        self.name.strip_prefix(SERVER_TO_USER)
    }
}

impl fmt::Display for ChannelName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Why a channel name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChannelName {
    /// No name at all.
    #[error("it is empty")]
    Empty,
    /// A character outside `A-Z a-z 0-9 _ - = @ , . ;`.
    #[error("only letters, digits and _ - = @ , . ; are allowed")]
    Characters,
    /// More characters than the app's `max_channel_name_length`.
    #[error("it has {length} characters, the limit is {max_length} (max_channel_name_length)")]
    TooLong {
        /// Characters of the name, or of the user id in it.
        length: usize,
        /// Characters allowed.
        max_length: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> ChannelKind {
        ChannelName::parse(name, limits::CHANNEL_NAME_BYTES).unwrap().kind()
    }

    #[test]
    fn each_prefix_has_its_facts() {
        let facts = |name| {
            let ChannelKind { auth, presence, encrypted, cache, user } = kind(name);
            [auth, presence, encrypted, cache, user].map(u8::from)
        };
        assert_eq!(facts("orders"), [0, 0, 0, 0, 0]);
        assert_eq!(facts("private-a"), [1, 0, 0, 0, 0]);
        assert_eq!(facts("presence-a"), [1, 1, 0, 0, 0]);
        assert_eq!(facts("private-encrypted-a"), [1, 0, 1, 0, 0]);
        assert_eq!(facts("cache-a"), [0, 0, 0, 1, 0]);
        assert_eq!(facts("private-cache-a"), [1, 0, 0, 1, 0]);
        assert_eq!(facts("presence-cache-a"), [1, 1, 0, 1, 0]);
        assert_eq!(facts("private-encrypted-cache-a"), [1, 0, 1, 1, 0]);
        assert_eq!(facts("#server-to-user-a b/ü"), [0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_prefix_counts_only_whole_and_at_the_beginning() {
        for name in ["privatefoo", "presence_x", "cachex", "Private-x", "my-cache-x", "my-private-x"] {
            assert_eq!(kind(name), ChannelKind::default(), "{name}");
        }
    }

    #[test]
    fn bad_names_are_refused() {
        let parse = |name: &str| ChannelName::parse(name, 164).map(|_| ());
        assert_eq!(parse(""), Err(InvalidChannelName::Empty));
        for name in ["a b", "a/b", "ä", "#x", "#server-to-user-", "#server-to-user-a\n", "a\0"] {
            assert_eq!(parse(name), Err(InvalidChannelName::Characters), "{name:?}");
        }
        assert_eq!(parse(&"ä".repeat(165)), Err(InvalidChannelName::Characters));
        assert_eq!(parse(&"a".repeat(164)), Ok(()));
        assert_eq!(parse(&"a".repeat(165)), Err(InvalidChannelName::TooLong { length: 165, max_length: 164 }));
        let of_user = |id: &str, count| parse(&format!("{SERVER_TO_USER}{}", id.repeat(count)));
        assert_eq!(of_user("ж", 164), Ok(()));
        assert_eq!(of_user("ж", 165), Err(InvalidChannelName::TooLong { length: 165, max_length: 164 }));
    }
}

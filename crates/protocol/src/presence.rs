//! What an app says about a user: `channel_data` of presence channels and `user_data` of a sign-in.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json;

/// Who a subscriber of a presence channel is: `{"user_id":"7","user_info":{..}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The user id as text: `10` and `"10"` are the same user.
    pub user_id: Box<str>,
    /// Any JSON value as the app wrote it, without white space around tokens, and [`json::mended`].
    pub user_info: Option<Box<str>>,
}

/// Who a connection is signed in as: `{"id":"u1","user_info":{..},"watchlist":["u2"]}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id and what the app tells others about the user.
    pub member: Member,
    /// The users whose coming and going interests this one.
    pub watchlist: Vec<Box<str>>,
}

/// Why `channel_data` or `user_data` is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUser {
    /// Not a JSON object of the right shape.
    #[error("{field} is not valid: {error}")]
    Json {
        /// `channel_data` or `user_data`.
        field: &'static str,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// No id, an empty one, or one that is neither string nor number.
    #[error("{field} must have a non-empty {id}")]
    Id {
        /// `channel_data` or `user_data`.
        field: &'static str,
        /// `user_id` or `id`.
        id: &'static str,
    },
    /// Longer than the limit.
    #[error("user id has {length} characters, the limit is {limit}")]
    IdTooLong {
        /// Characters of the id.
        length: usize,
        /// Characters allowed.
        limit: usize,
    },
    /// Larger than the limit.
    #[error("user_info has {length} bytes, the limit is {limit} (max_user_info_bytes)")]
    InfoTooLarge {
        /// Bytes of the JSON.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Sizes a [`Member`] may have.
#[derive(Clone, Copy, Debug)]
pub struct MemberLimits {
    /// Characters of the user id.
    pub user_id: usize,
    /// Bytes of `user_info` as JSON.
    pub user_info: usize,
}

impl Member {
    /// Reads `channel_data`, after its signature was verified.
    ///
    /// # Errors
    /// [`InvalidUser`] says what the app has to change.
    pub fn from_channel_data(text: &str, limits: MemberLimits) -> Result<Self, InvalidUser> {
        #[derive(Deserialize)]
        struct ChannelData<'a> {
            #[serde(borrow, default)]
            user_id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            user_info: Option<&'a RawValue>,
        }
        let field = "channel_data";
        let ChannelData { user_id, user_info } =
            json::object(text.as_bytes()).map_err(|error| InvalidUser::Json { field, error })?;
        let user_id = user_id.and_then(id_text).ok_or(InvalidUser::Id { field, id: "user_id" })?;
        Self::new(&user_id, user_info, limits)
    }

    fn new(user_id: &str, user_info: Option<&RawValue>, limits: MemberLimits) -> Result<Self, InvalidUser> {
        let length = user_id.chars().count();
        if length > limits.user_id {
            return Err(InvalidUser::IdTooLong { length, limit: limits.user_id });
        }
        let user_info = user_info.map(|info| json::mended(json::compact(info.get())));
        if let Some(info) = user_info.as_ref().filter(|info| info.len() > limits.user_info) {
            return Err(InvalidUser::InfoTooLarge { length: info.len(), limit: limits.user_info });
        }
        Ok(Self { user_id: user_id.into(), user_info: user_info.map(Into::into) })
    }
}

impl User {
    /// Reads `user_data`, after its signature was verified. The id has to be a string here: pusher-js insists on it.
    ///
    /// # Errors
    /// [`InvalidUser`] says what the app has to change.
    pub fn from_user_data(text: &str, limits: MemberLimits) -> Result<Self, InvalidUser> {
        #[derive(Deserialize)]
        struct UserData<'a> {
            #[serde(default)]
            id: Option<serde_json::Value>,
            #[serde(borrow, default)]
            user_info: Option<&'a RawValue>,
            #[serde(default)]
            watchlist: Option<Vec<serde_json::Value>>,
        }
        let field = "user_data";
        let UserData { id, user_info, watchlist } =
            json::object(text.as_bytes()).map_err(|error| InvalidUser::Json { field, error })?;
        let id = id.as_ref().and_then(|id| id.as_str()).filter(|id| !id.is_empty());
        let member = Member::new(id.ok_or(InvalidUser::Id { field, id: "id" })?, user_info, limits)?;
        let watchlist = watchlist.unwrap_or_default().into_iter().filter_map(|id| match id {
            serde_json::Value::String(id) => Some(id.into_boxed_str()),
            serde_json::Value::Number(id) => Some(id.to_string().into_boxed_str()),
            _ => None,
        });
        Ok(Self { member, watchlist: watchlist.filter(|id| !id.is_empty()).collect() })
    }
}

/// The text of an id that is a non-empty string or a number.
fn id_text(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    let id = match text.as_bytes().first()? {
        b'"' => Cow::Owned(serde_json::from_str::<String>(text).ok()?),
        b'-' | b'0'..=b'9' => Cow::Borrowed(text),
        _ => return None,
    };
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MemberLimits = MemberLimits { user_id: 8, user_info: 16 };

    fn member(text: &str) -> Result<(String, Option<String>), String> {
        let member = Member::from_channel_data(text, LIMITS).map_err(|error| error.to_string())?;
        Ok((member.user_id.into(), member.user_info.map(Into::into)))
    }

    #[test]
    fn an_id_is_text_whatever_it_was() {
        assert_eq!(member(r#"{"user_id":10}"#), Ok(("10".into(), None)));
        assert_eq!(
            member(r#"{"user_id": "10", "user_info": { "a": 1.0 } }"#),
            Ok(("10".into(), Some(r#"{"a":1.0}"#.into())))
        );
        assert_eq!(member(r#"{"user_id":"1","user_info":null}"#), Ok(("1".into(), None)));
    }

    #[test]
    fn an_unusable_id_is_refused() {
        for text in ["{}", r#"{"user_id":""}"#, r#"{"user_id":null}"#, r#"{"user_id":{}}"#, r#"{"user_id":true}"#] {
            assert_eq!(member(text), Err("channel_data must have a non-empty user_id".into()), "{text}");
        }
        assert!(member("nonsense").unwrap_err().starts_with("channel_data is not valid"));
    }

    #[test]
    fn half_a_surrogate_pair_does_not_spoil_the_frame_for_all_members() {
        let text = r#"{"user_id":"1","user_info":"cut \ud83d"}"#;
        assert_eq!(member(text), Ok(("1".into(), Some(r#""cut \ufffd""#.into()))));
        let user = User::from_user_data(r#"{"id":"1","user_info":{"n":"\ud83d"}}"#, LIMITS).unwrap();
        assert_eq!(user.member.user_info.as_deref(), Some(r#"{"n":"\ufffd"}"#));
    }

    #[test]
    fn sizes_are_limited() {
        assert_eq!(member(r#"{"user_id":"123456789"}"#), Err("user id has 9 characters, the limit is 8".into()));
        assert_eq!(member(r#"{"user_id":"Светлана"}"#), Ok(("Светлана".into(), None)));
        let text = member(r#"{"user_id":"1","user_info":"123456789012345"}"#).unwrap_err();
        assert_eq!(text, "user_info has 17 bytes, the limit is 16 (max_user_info_bytes)");
    }

    #[test]
    fn a_user_needs_a_string_id() {
        assert!(User::from_user_data(r#"{"id":7}"#, LIMITS).is_err());
        assert!(User::from_user_data(r#"{"id":""}"#, LIMITS).is_err());
        let user = User::from_user_data(r#"{"id":"u1","watchlist":["u2",3,null,""]}"#, LIMITS).unwrap();
        assert_eq!(user.watchlist, ["u2".into(), "3".into()]);
    }
}

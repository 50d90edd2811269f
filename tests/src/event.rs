//! What a client receives.

use serde_json::Value;

/// One frame of the protocol, as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `event`
    pub name: String,
    /// `channel`, or nothing.
    pub channel: Option<String>,
    /// `data` if it is a string; else its JSON text.
    pub data: String,
    /// `user_id`, or nothing.
    pub user_id: Option<String>,
    /// Whether `data` was a string.
    pub data_is_string: bool,
    /// The whole text.
    pub text: String,
}

impl Event {
    /// Reads a text message.
    pub fn parse(text: &str) -> Self {
        let frame: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"));
        let field = |key: &str| frame.get(key).and_then(Value::as_str).map(str::to_owned);
        let data = frame.get("data").unwrap_or_else(|| panic!("a frame without data: {text}"));
        Self {
            name: field("event").unwrap_or_else(|| panic!("a frame without event: {text}")),
            channel: field("channel"),
            data: data.as_str().map_or_else(|| data.to_string(), str::to_owned),
            user_id: field("user_id"),
            data_is_string: data.is_string(),
            text: text.to_owned(),
        }
    }

    /// The JSON inside `data`.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("data is not JSON ({error}): {}", self.text))
    }

    /// Whether it is the event of this name on this channel.
    pub fn is(&self, name: &str, channel: &str) -> bool {
        self.name == name && self.channel.as_deref() == Some(channel)
    }

    /// The user of a `member_added` or `member_removed`.
    pub fn member(&self) -> String {
        let json = self.json();
        json["user_id"].as_str().unwrap_or_else(|| panic!("no user_id: {}", self.text)).to_owned()
    }

    /// The code of a `pusher:error`.
    pub fn code(&self) -> Option<u64> {
        assert_eq!(self.name, "pusher:error", "{}", self.text);
        self.json()["code"].as_u64()
    }

    /// The users of a presence channel's `subscription_succeeded`, sorted. Its parts have to agree with each other.
    pub fn members(&self) -> Vec<String> {
        let json = self.json();
        let presence = &json["presence"];
        let ids = presence["ids"].as_array().unwrap_or_else(|| panic!("no ids: {}", self.text));
        let mut ids: Vec<_> = ids.iter().map(|id| id.as_str().unwrap_or_default().to_owned()).collect();
        ids.sort();
        let hash = presence["hash"].as_object().unwrap_or_else(|| panic!("no hash: {}", self.text));
        let mut keys: Vec<_> = hash.keys().cloned().collect();
        keys.sort();
        assert_eq!(ids, keys, "ids and hash differ: {}", self.text);
        assert_eq!(presence["count"].as_u64(), Some(ids.len() as u64), "wrong count: {}", self.text);
        ids
    }
}

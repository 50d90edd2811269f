//! How values under other servers' names are written, and what they are here.

use serde_json::Value;

use crate::config::strict::quoted;

/// How a value is written. What comes of it is text, of which the key's own type decides.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) enum As {
    /// As it is.
    Text,
    Switch,
    /// A number, of which -1 means none.
    Limit,
    Kilobytes,
    Megabytes,
    Milliseconds,
    Seconds,
    /// An address to bind.
    Host,
    /// A path that may have slashes at its ends.
    Prefix,
    /// Whether to log more.
    Debug,
    /// Whether to insist on sign-ins, for which Soketi gives 30 seconds.
    UserAuthentication,
    /// Who may send client events.
    EventsFrom,
    /// What connects nodes.
    Adapter,
    /// A list of hosts and ports as JSON.
    Addresses,
    /// A list of webhooks as JSON.
    Webhooks,
}

impl As {
    /// The value for a key; `None`: this one asks for what is so anyway.
    pub(in crate::config) fn convert(self, key: &str, text: &str) -> Result<Option<String>, String> {
        let text = text.trim();
        Ok(Some(match self {
            Self::Text => text.to_owned(),
            Self::Switch => switch(text)?.to_string(),
            Self::Limit => match text.parse::<f64>() {
                Ok(number) if number < 0.0 => "0".to_owned(),
                // In Soketi 0 forbids it; here 0 would mean that there is no limit.
                Ok(0.0) => return Err("must not be 0, which would be no limit here; -1 is none".to_owned()),
                _ => text.to_owned(),
            },
            Self::Kilobytes => bytes(text, 1024.0)?,
            Self::Megabytes => bytes(text, 1024.0 * 1024.0)?,
            Self::Milliseconds => format!("{}ms", whole(text, "of milliseconds")?),
            Self::Seconds => format!("{}s", whole(text, "of seconds")?),
            Self::Host if text == "localhost" => "127.0.0.1".to_owned(),
            Self::Host => text.to_owned(),
            Self::Prefix => match text.trim_matches('/') {
                "" => String::new(),
                path => format!("/{path}"),
            },
            Self::Debug if switch(text)? => "debug".to_owned(),
            Self::UserAuthentication if switch(text)? => "30s".to_owned(),
            Self::Debug | Self::UserAuthentication => return Ok(None),
            Self::EventsFrom => match (text, key.ends_with("_on_public_channels")) {
                ("all", _) | ("members", false) => "true".to_owned(),
                ("members", true) | ("none", _) => "false".to_owned(),
                _ => return Err(format!("must be all, members or none, not {}", quoted(text))),
            },
            Self::Adapter => match text {
                "local" | "redis" => text.to_owned(),
                "cluster" | "nats" => return Ok(None),
                _ => return Err(format!("must be local, redis, cluster or nats, not {}", quoted(text))),
            },
            Self::Addresses => addresses(text)?,
            Self::Webhooks => webhooks(text)?,
        }))
    }

    /// The same for people.
    pub(in crate::config) fn note(self) -> &'static str {
        match self {
            Self::Text => "as it is",
            Self::Switch => "`true`, `false`, `1`, `0`",
            Self::Limit => "-1: no limit",
            Self::Kilobytes => "in KB",
            Self::Megabytes => "in MB",
            Self::Milliseconds => "in milliseconds",
            Self::Seconds => "in seconds",
            Self::Host => "an IP address, or `localhost`",
            Self::Prefix => "with or without a slash in front",
            Self::Debug => "`true`: \"debug\"",
            Self::UserAuthentication => "`true`: 30 s, or the time-out below",
            Self::EventsFrom => "`all`, `members` (private and presence channels), `none`",
            Self::Adapter => "`local`, `redis`; `cluster` and `nats` have no counterpart: use Redis",
            Self::Addresses => "JSON: `[{\"host\":\"…\",\"port\":…}]`",
            Self::Webhooks => "JSON; without `lambda_function`",
        }
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        // Soketi takes any other text, "off" and "no" included, for true. Nobody means that.
        _ => Err(format!("must be true, false, 1 or 0, not {}", quoted(text))),
    }
}

fn addresses(text: &str) -> Result<String, String> {
    let problem = || format!(r#"must be JSON such as [{{"host":"10.0.0.1","port":26379}}], not {}"#, quoted(text));
    let address = |address: &Value| {
        let host = address["host"].as_str()?;
        // A number, or the text of one: in Soketi's file each value has become text.
        let port: u16 = address["port"].to_string().trim_matches('"').parse().ok()?;
        Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    };
    let list: Vec<Value> = serde_json::from_str(text).map_err(|_| problem())?;
    let addresses: Option<Vec<_>> = list.iter().map(address).collect();
    Ok(Value::from(addresses.ok_or_else(problem)?).to_string())
}

fn whole(text: &str, of: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("must be a whole number {of}, not {}", quoted(text)))
}

/// A size, of which there may be fractions.
fn bytes(text: &str, unit: f64) -> Result<String, String> {
    let size: f64 = text.parse().map_err(|_| format!("must be a number, not {}", quoted(text)))?;
    let bytes = (size * unit).round();
    if bytes >= 1.0 && bytes <= 2f64.powi(53) {
        Ok(format!("{bytes:.0}"))
    } else {
        Err(format!("must be a size above 0, not {}", quoted(text)))
    }
}

/// Soketi's webhooks without those that call a function of a cloud.
fn webhooks(text: &str) -> Result<String, String> {
    let list: Vec<Value> =
        serde_json::from_str(text).map_err(|error| format!("must be a JSON array of webhooks ({error})"))?;
    let kept = list.into_iter().filter(|webhook| webhook.get("lambda_function").is_none_or(Value::is_null));
    let kept = kept.map(|mut webhook| {
        if let Some(fields) = webhook.as_object_mut() {
            fields.retain(|name, _| name != "lambda" && name != "lambda_function");
        }
        webhook
    });
    Ok(Value::from_iter(kept).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_what_they_are_here() {
        for (kind, text, expected) in [
            (As::Text, "0123", Ok(Some("0123"))),
            (As::Switch, "1", Ok(Some("true"))),
            (As::Switch, "off", Err("must be true, false, 1 or 0, not \"off\"")),
            (As::Limit, "-1", Ok(Some("0"))),
            (As::Limit, "50", Ok(Some("50"))),
            (As::Limit, "0", Err("must not be 0, which would be no limit here; -1 is none")),
            (As::Kilobytes, "0.5", Ok(Some("512"))),
            (As::Kilobytes, "100", Ok(Some("102400"))),
            (As::Kilobytes, "-1", Err("must be a size above 0, not \"-1\"")),
            (As::Kilobytes, "ten", Err("must be a number, not \"ten\"")),
            (As::Megabytes, "100", Ok(Some("104857600"))),
            (As::Milliseconds, "3000", Ok(Some("3000ms"))),
            (As::Seconds, "3600", Ok(Some("3600s"))),
            (As::Seconds, "1h", Err("must be a whole number of seconds, not \"1h\"")),
            (As::Host, "localhost", Ok(Some("127.0.0.1"))),
            (As::Host, "0.0.0.0", Ok(Some("0.0.0.0"))),
            (As::Prefix, "ws/", Ok(Some("/ws"))),
            (As::Prefix, "/ws", Ok(Some("/ws"))),
            (As::Debug, "0", Ok(None)),
            (As::Debug, "true", Ok(Some("debug"))),
            (As::Adapter, "nats", Ok(None)),
            (As::Addresses, r#"[{"host":"a","port":1},{"host":"::1","port":"2"}]"#, Ok(Some(r#"["a:1","[::1]:2"]"#))),
            (
                As::Addresses,
                r#"[{"host":"a"}]"#,
                Err(r#"must be JSON such as [{"host":"10.0.0.1","port":26379}], not "[{"host":"a"}]""#),
            ),
            (As::EventsFrom, "all", Ok(Some("true"))),
            (As::EventsFrom, "some", Err("must be all, members or none, not \"some\"")),
            (
                As::Webhooks,
                r#"[{"url":"https://a.test"},{"lambda_function":"f","lambda":{}}]"#,
                Ok(Some(r#"[{"url":"https://a.test"}]"#)),
            ),
        ] {
            let result = kind.convert("key", text);
            assert_eq!(result.as_ref().map(Option::as_deref).map_err(String::as_str), expected, "{kind:?} {text}");
        }
        let public = |text| As::EventsFrom.convert("apps[0].client_events_on_public_channels", text).unwrap();
        assert_eq!(public("all").as_deref(), Some("true"));
        assert_eq!(public("members").as_deref(), Some("false"));
    }
}

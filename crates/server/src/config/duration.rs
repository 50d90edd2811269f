//! Durations are written with their unit: `"500ms"`, `"30s"`, `"5m"`, `"1h 30m"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// `duration` as it is written in a configuration: the largest unit that leaves a whole number.
pub(super) fn text(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    match (seconds, nanos) {
        (0, 0) => "0s".to_owned(),
        (_, 0) if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        (_, 0) if seconds % 60 == 0 => format!("{}m", seconds / 60),
        (_, 0) => format!("{seconds}s"),
        (_, nanos) if nanos % 1_000_000 == 0 => format!("{}ms", duration.as_millis()),
        _ => humantime::format_duration(duration).to_string(),
    }
}

pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*duration))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        D::Error::custom(format!(
            "must be a number with its unit, such as \"500ms\", \"30s\" or \"5m\", not {}",
            super::strict::quoted(&text)
        ))
    })
}

/// The same for a key that may be absent.
pub(super) mod optional {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read_back() {
        for (milliseconds, expected) in
            [(0, "0s"), (500, "500ms"), (1_500, "1500ms"), (75_000, "75s"), (120_000, "2m"), (7_200_000, "2h")]
        {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(text(duration), expected);
            assert_eq!(humantime::parse_duration(expected).unwrap(), duration);
        }
    }
}

//! A limit of memory: a share of what there is, a size, or none.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// How much memory may be in use: `"90%"`, `"1500MB"`, `"2GB"` or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// No limit.
    Off,
    /// Of the control group's limit, else of the machine's memory.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

impl MemoryLimit {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("off") {
            return Some(Self::Off);
        }
        if let Some(percent) = text.strip_suffix('%') {
            return percent.trim().parse().ok().filter(|percent| (1..=100).contains(percent)).map(Self::Percent);
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &*text[digits.len()..].to_ascii_uppercase() {
            "KB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            _ => return None,
        };
        digits.trim().parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0).map(Self::Bytes)
    }
}

impl std::fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) if bytes % (1 << 30) == 0 => write!(f, "{}GB", bytes >> 30),
            Self::Bytes(bytes) if bytes % (1 << 20) == 0 => write!(f, "{}MB", bytes >> 20),
            Self::Bytes(bytes) => write!(f, "{}KB", bytes >> 10),
        }
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "must be a share such as \"90%\", a size such as \"1500MB\" or \"2GB\", or \"off\", not {}",
                super::strict::quoted(&text)
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read_back() {
        for text in ["off", "90%", "1500MB", "2GB", "3KB"] {
            assert_eq!(MemoryLimit::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(MemoryLimit::parse(" 2 gb"), Some(MemoryLimit::Bytes(2 << 30)));
        for text in ["", "0%", "101%", "0MB", "12", "2TB", "-1MB", "99999999999999999999GB", "MB", "é"] {
            assert_eq!(MemoryLimit::parse(text), None, "{text}");
        }
    }
}

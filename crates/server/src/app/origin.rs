//! Which pages may connect.

use crate::glob::glob;

/// One entry of `allowed_origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginPattern {
    /// `Some` for `scheme://host[:port]`: then the whole origin has to fit, not the host alone.
    whole: bool,
    pattern: String,
}

impl OriginPattern {
    /// `*`, a host, or `scheme://host[:port]`; `*` stands for any characters, as Reverb's `allowed_origins` has it.
    pub(crate) fn new(pattern: &str) -> Self {
        Self { whole: pattern.contains("://"), pattern: pattern.trim_end_matches('/').to_ascii_lowercase() }
    }

    /// Whether an `Origin` header fits.
    pub(crate) fn matches(&self, origin: &str) -> bool {
        let origin = origin.trim_end_matches('/').to_ascii_lowercase();
        glob(&self.pattern, if self.whole { &origin } else { host(&origin) })
    }
}

/// The host of `scheme://host:port`; an IPv6 address keeps its brackets.
fn host(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    authority[end..].find(':').map_or(authority, |colon| &authority[..end + colon])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, origin: &str) -> bool {
        OriginPattern::new(pattern).matches(origin)
    }

    #[test]
    fn a_host_fits_with_any_scheme_and_port() {
        assert!(matches("*", "null"));
        assert!(matches("example.com", "https://example.com"));
        assert!(matches("Example.com", "http://EXAMPLE.com:8080"));
        assert!(matches("[::1]", "http://[::1]:3000"));
        assert!(!matches("example.com", "https://www.example.com"));
        assert!(!matches("example.com", "https://example.com.evil.test"));
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(matches("*.example.com", "https://a.b.example.com"));
        assert!(!matches("*.example.com", "https://example.com"));
        assert!(!matches("*.example.com", "https://example.com.evil.test"));
        assert!(matches("app-*.example.*", "https://app-7.example.org"));
        assert!(!matches("a*a", "https://a"));
    }

    #[test]
    fn an_origin_fits_as_a_whole() {
        assert!(matches("https://example.com", "https://example.com"));
        assert!(!matches("https://example.com", "http://example.com"));
        assert!(!matches("https://example.com", "https://example.com:8443"));
        assert!(matches("https://*.example.com", "https://a.example.com"));
    }
}

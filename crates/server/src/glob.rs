//! Patterns with `*`.

/// Whether a text fits a pattern, in which `*` stands for any characters and everything else for itself.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(glob("*", "") && glob("*", "orders") && glob("orders", "orders") && glob("or*s", "orders"));
        assert!(glob("*-*", "a-b") && glob("a*b*c", "aXbYc") && glob("feed-*", "feed-"));
        assert!(!glob("orders", "orders2") && !glob("feed-*", "xfeed-1") && !glob("a*a", "a") && !glob("", "a"));
    }
}

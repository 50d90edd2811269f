//! JSON texts that pass through unread: string literals and compact documents.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;

/// A JSON string that borrows from its document where it holds no escapes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Reads a JSON object. Derived types would take an array of their fields, too, which nobody means.
pub(crate) fn object<'a, T: Deserialize<'a>>(document: &'a [u8]) -> serde_json::Result<T> {
    match document.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Err(serde_json::Error::custom("expected an object, not an array")),
        _ => serde_json::from_slice(document),
    }
}

/// Any value that is there, `null` as well: a field without one is `None`.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Appends `text` as a JSON string literal, quotes included.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string into memory has no way to fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends the inside of a JSON string literal, without quotes.
pub fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    write_string(out, text);
    out.pop();
    out.remove(start);
}

/// `text` escaped for the inside of a JSON string literal.
pub fn escaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 8);
    write_escaped(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

/// A JSON document without the white space between its tokens. Numbers, escapes and key order stay as written.
pub fn compact(document: &str) -> Cow<'_, str> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    if !document.bytes().any(is_space) {
        return Cow::Borrowed(document);
    }
    let mut out = Vec::with_capacity(document.len());
    let (mut in_string, mut escape) = (false, false);
    for byte in document.bytes() {
        if in_string {
            in_string = escape || byte != b'"';
            escape = !escape && byte == b'\\';
        } else if is_space(byte) {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    // Only ASCII was left out, so this is still UTF-8.
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// A JSON document whose strings are Unicode: half of a surrogate pair (`\ud800` alone) becomes `\ufffd`.
///
/// JavaScript writes such halves when a text was cut inside an emoji, and reads them, too. Stricter parsers refuse the whole
/// document, so that one user's text would keep everybody from reading what stands beside it.
pub fn mended(document: Cow<'_, str>) -> Cow<'_, str> {
    if !document.contains("\\ud") && !document.contains("\\uD") {
        return document;
    }
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let mut out = String::with_capacity(document.len());
    let mut rest = &*document;
    while let Some(place) = rest.find('\\') {
        let (before, escape) = rest.split_at(place);
        let (length, broken) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
            (Some(0xd800..=0xdfff), _) => (6, true),
            (Some(_), _) => (6, false),
            (None, _) => (2, false),
        };
        let (escape, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        out.push_str(before);
        out.push_str(if broken { "\\ufffd" } else { escape });
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The `data` of an event: a JSON string literal, ready to stand in a frame.
///
/// A literal is kept as it was written, so that decoding it yields the published string byte for byte, and no work is done
/// on it. Any other JSON value becomes a string that holds the value's compact JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventData<'a> {
    literal: Cow<'a, str>,
}

impl<'a> EventData<'a> {
    /// Takes the value that stands behind `data` in a request or frame.
    ///
    /// # Errors
    /// [`serde_json::Error`] for a string that is no Unicode text, such as half of a surrogate pair.
    pub fn from_value(value: &'a RawValue) -> Result<Self, serde_json::Error> {
        let text = value.get();
        if !text.starts_with('"') {
            return Ok(Self::from_text(&compact(text)));
        }
        // The document's parser skimmed over the literal; only \u escapes can still be wrong.
        if text.contains("\\u") {
            serde_json::from_str::<Cow<'_, str>>(text)?;
        }
        Ok(Self { literal: Cow::Borrowed(text) })
    }

    /// Takes the literal of event data that was read before, by this server or another of its kind. Only the quotes are
    /// looked at.
    pub fn from_literal(literal: &'a str) -> Option<Self> {
        let quoted = literal.len() >= 2 && literal.starts_with('"') && literal.ends_with('"');
        quoted.then_some(Self { literal: Cow::Borrowed(literal) })
    }

    /// Takes the decoded string.
    pub fn from_text(text: &str) -> EventData<'static> {
        let mut out = Vec::with_capacity(text.len() + 16);
        write_string(&mut out, text);
        EventData { literal: Cow::Owned(String::from_utf8_lossy(&out).into_owned()) }
    }

    /// The literal, quotes included.
    pub fn literal(&self) -> &str {
        &self.literal
    }

    /// The decoded string.
    pub fn text(&self) -> Cow<'_, str> {
        let inside = &self.literal[1..self.literal.len() - 1];
        if inside.contains('\\') {
            serde_json::from_str::<String>(&self.literal).map_or(Cow::Borrowed(inside), Cow::Owned)
        } else {
            Cow::Borrowed(inside)
        }
    }

    /// Whether the decoded string has more than `limit` bytes. Decoding never makes a string longer.
    pub fn is_longer_than(&self, limit: usize) -> bool {
        self.literal.len() - 2 > limit && self.text().len() > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(value: &str) -> Result<String, serde_json::Error> {
        let raw: &RawValue = serde_json::from_str(value)?;
        Ok(EventData::from_value(raw)?.literal().to_owned())
    }

    #[test]
    fn a_string_stays_as_it_was_written() {
        for literal in [r#""""#, r#""\/""#, r#""\u00e9""#, r#""a \"b\" 1.0""#, r#""é""#, r#""null""#] {
            assert_eq!(data(literal).unwrap(), literal);
        }
    }

    #[test]
    fn other_values_become_strings_of_compact_json() {
        assert_eq!(
            data("{ \"a\" : [ 1.0 , \"x y\\\" z\" , \"é ☃ \" ] }").unwrap(),
            r#""{\"a\":[1.0,\"x y\\\" z\",\"é ☃ \"]}""#
        );
        assert_eq!(data(" null ").unwrap(), r#""null""#);
    }

    #[test]
    fn half_a_surrogate_pair_is_refused() {
        assert!(data(r#""\ud800""#).is_err());
        assert!(data(r#""\ud83d\ude00""#).is_ok());
    }

    #[test]
    fn half_a_surrogate_pair_is_mended() {
        let mend = |document| mended(Cow::Borrowed(document));
        assert_eq!(
            mend(r#"["\ud83d","\uDe00x","\ud83d\ud83d\ude00"]"#),
            r#"["\ufffd","\ufffdx","\ufffd\ud83d\ude00"]"#
        );
        // A backslash before an ordinary text, a pair, and escapes of other kinds stay.
        for document in [r#""\\ud800""#, r#"{"\ud83d\uDE00":"\u00e9\n\/\"\\"}"#, r#""\uD7FF\ue000""#] {
            assert_eq!(mend(document), document);
        }
        for no_json in ["\\", "\\ud", "\\ud800", "\\ud800\\", "\\ud8ää", "\\ä\\ud800"] {
            mend(no_json);
        }
    }

    #[test]
    fn length_is_of_the_decoded_string() {
        let raw: &RawValue = serde_json::from_str(r#""\u00e9\u00e9""#).unwrap();
        let data = EventData::from_value(raw).unwrap();
        assert!(data.is_longer_than(3));
        assert!(!data.is_longer_than(4));
        assert_eq!(data.text(), "éé");
    }

    #[test]
    fn escaping_twice_nests() {
        let mut out = Vec::new();
        write_escaped(&mut out, "a\"b");
        assert_eq!(out, br#"a\"b"#);
        assert_eq!(escaped(&escaped("\"")), r#"\\\""#);
    }
}

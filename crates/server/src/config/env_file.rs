//! `.env` files, as Laravel reads them: quotes, `${NAME}`, comments, `export`.
//!
//! The rules are those of vlucas/phpdotenv, which Laravel uses; the table in the tests is what it makes of the same files. Crates for
//! `.env` files differ where it hurts most: `$` and `#` in a secret without quotes.

use std::collections::HashMap;

use super::ConfigError;

/// A variable of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Its value, or why it has none. The value is not part of the reason.
    pub(super) value: Result<String, &'static str>,
    /// The line it begins in, from 1.
    pub(super) line: usize,
}

/// The variables of a file, in its order. `outer` are those that are set already: they win in references.
///
/// A line that makes no sense is somebody else's matter as long as its name is, so it is only told with the name.
///
/// # Errors
/// A quote that is not closed: nothing behind it can be told apart.
pub(super) fn parse(text: &str, outer: impl Fn(&str) -> Option<String>) -> Result<Vec<Entry>, Unclosed> {
    let mut entries = Vec::new();
    let mut known = HashMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let here = line;
        let first = rest.split('\n').next().unwrap_or_default();
        // A value in double quotes goes on to its end, all else to the end of the line.
        let (statement, after) = match opening(first) {
            Some(start) => {
                let end = start + closing(&rest[start..]).ok_or(Unclosed { line: here })?;
                let end = rest[end..].find('\n').map_or(rest.len(), |length| end + length);
                (&rest[..end], rest.get(end + 1..))
            }
            None => (first, rest.get(first.len() + 1..)),
        };
        line += statement.matches('\n').count() + 1;
        rest = after.unwrap_or_default();
        let Some((name, value)) = statement.split_once('=') else { continue };
        let Some(name) = variable_name(name) else { continue };
        let lookup = |name: &str| outer(name).or_else(|| known.get(name).cloned());
        let value = evaluate(value.trim(), lookup);
        if let Ok(value) = &value {
            known.insert(name.to_owned(), value.clone());
        }
        entries.push(Entry { name: name.to_owned(), value, line: here });
    }
    Ok(entries)
}

/// A quote that is not closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    line: usize,
}

impl Unclosed {
    pub(super) fn in_file(&self, file: &str) -> ConfigError {
        ConfigError::variable(&format!("{file}:{}", self.line), "the quote that begins here is not closed")
    }
}

/// Where the text in double quotes begins, if the line's value is one.
fn opening(line: &str) -> Option<usize> {
    let equals = line.find('=').filter(|_| !line.trim_start().starts_with('#'))?;
    let value = &line[equals + 1..];
    value.trim_start().starts_with('"').then(|| line.len() - value.trim_start().len() + 1)
}

/// Where the text in double quotes ends.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })
}

/// A name without `export` and its own quotes; `None` if it is none.
fn variable_name(text: &str) -> Option<&str> {
    let text = text.trim();
    let text = text.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(text).trim_start();
    let unquoted = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    let name = unquoted('"').or_else(|| unquoted('\'')).unwrap_or(text);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    (!name.is_empty() && name.chars().all(allowed)).then_some(name)
}

/// What the text behind the `=` stands for.
fn evaluate(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, &'static str> {
    const BEHIND: &str = "there is text behind the closing quote; put the whole value in quotes";
    if let Some(quoted) = text.strip_prefix('"') {
        let end = closing(quoted).ok_or("its quote is not closed")?;
        let behind = quoted[end + 1..].trim_start();
        return if behind.is_empty() || behind.starts_with('#') {
            unescape(&quoted[..end], lookup)
        } else {
            Err(BEHIND)
        };
    }
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, behind) = quoted.split_once('\'').ok_or("its quote is not closed")?;
        let behind = behind.trim_start();
        return if behind.is_empty() || behind.starts_with('#') { Ok(value.to_owned()) } else { Err(BEHIND) };
    }
    let value = text.split('#').next().unwrap_or_default().trim_end();
    if value.contains(char::is_whitespace) {
        return Err("there is a blank in the value; put it in quotes");
    }
    Ok(with_references(value, lookup))
}

/// The text in double quotes without its escapes, and with its references replaced.
fn unescape(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, &'static str> {
    let mut value = String::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        value += &with_references(plain, &lookup);
        let mut characters = escaped.chars();
        value.push(match characters.next() {
            Some(c @ ('"' | '\\' | '$')) => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('f') => '\u{c}',
            Some('v') => '\u{b}',
            _ => return Err("there is a backslash in front of a character that needs none; write two for one"),
        });
        rest = characters.as_str();
    }
    Ok(value + &with_references(rest, &lookup))
}

/// Replaces each `${NAME}` of a known name. One that is not known stays as it is, and so does any other `$`.
fn with_references(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut value = String::new();
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once("${") {
        value += before;
        match reference.split_once('}').and_then(|(name, after)| Some((lookup(name)?, after))) {
            Some((known, after)) => {
                value += &known;
                rest = after;
            }
            None => {
                value += "${";
                rest = reference;
            }
        }
    }
    value + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables of a file; one that makes no sense has `None`.
    fn variables(text: &str) -> Vec<(String, Option<String>)> {
        let outer = |name: &str| (name == "OUTER").then(|| "outside".to_owned());
        parse(text, outer).unwrap().into_iter().map(|entry| (entry.name, entry.value.ok())).collect()
    }

    #[track_caller]
    fn is(text: &str, expected: &[(&str, Option<&str>)]) {
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
        assert_eq!(variables(text), expected, "{text}");
    }

    #[test]
    fn values_are_what_laravel_makes_of_them() {
        for (value, expected) in [
            ("abc", "abc"),
            ("\"a b\" # c", "a b"),
            ("'a b'#c", "a b"),
            ("a#b", "a"),
            ("a #b", "a"),
            ("#c", ""),
            ("\"#x\"", "#x"),
            ("a$b", "a$b"),
            ("\"a$b\"", "a$b"),
            ("\"${B}\"", "${B}"),
            ("a${B", "a${B"),
            ("'${OUTER}'", "${OUTER}"),
            ("\"x${OUTER}y\"", "xoutsidey"),
            ("x${OUTER}y", "xoutsidey"),
            ("\"\\${OUTER}\"", "${OUTER}"),
            ("  1  ", "1"),
            ("1 \t", "1"),
            ("", ""),
            ("null", "null"),
            ("a\\b", "a\\b"),
            ("ab\"cd\"", "ab\"cd\""),
            ("a=b=c", "a=b=c"),
            ("é", "é"),
            ("0123", "0123"),
            ("\"a\\nb\\\"c\\\\d\\$e\"", "a\nb\"c\\d$e"),
        ] {
            is(&format!("A={value}"), &[("A", Some(expected))]);
            is(&format!("A={value}\r\nB=2\r\n"), &[("A", Some(expected)), ("B", Some("2"))]);
        }
    }

    #[test]
    fn names_may_be_exported_and_quoted() {
        is("export NAMED=1", &[("NAMED", Some("1"))]);
        is("export\tNAMED=1", &[("NAMED", Some("1"))]);
        is("  A = 1  ", &[("A", Some("1"))]);
        is("\"A\"=1", &[("A", Some("1"))]);
        is("exported=1", &[("exported", Some("1"))]);
        is("\u{feff}A=1", &[("A", Some("1"))]);
        is("A\nA-B=1\n=x\nключ=1\nC=1", &[("C", Some("1"))]);
    }

    #[test]
    fn references_are_to_what_stands_before_and_to_what_is_set_already() {
        is("B=x\nA=\"${B}y${C}\"", &[("B", Some("x")), ("A", Some("xy${C}"))]);
        is("A=${B}\nB=later", &[("A", Some("${B}")), ("B", Some("later"))]);
        is("A=1\nA=2\nB=${A}", &[("A", Some("1")), ("A", Some("2")), ("B", Some("2"))]);
        is("OUTER=inside\nA=${OUTER}", &[("OUTER", Some("inside")), ("A", Some("outside"))]);
    }

    #[test]
    fn only_double_quotes_go_over_several_lines() {
        is("A=\"line1\nline2\" # c\nB=2", &[("A", Some("line1\nline2")), ("B", Some("2"))]);
        is("# A=\"x\nB=2", &[("B", Some("2"))]);
        is("A='line1\nB=2", &[("A", None), ("B", Some("2"))]);
        assert_eq!(parse("B=1\nA=\"x\nC=1", |_| None), Err(Unclosed { line: 2 }));
        assert_eq!(parse("A=\"x\\\"", |_| None), Err(Unclosed { line: 1 }));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_told_with_its_name_and_number() {
        is("A=a b\nB=2", &[("A", None), ("B", Some("2"))]);
        is("A=\"x\"y\nB=2", &[("A", None), ("B", Some("2"))]);
        is("A=\"a\\qb\"\nB=2", &[("A", None), ("B", Some("2"))]);
        let entries = parse("# c\n\nA=\"1\n2\"\nB=2\n", |_| None).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [3, 5]);
    }
}

//! Typed values out of the merged tree, without guessing.
//!
//! The `config` crate's own deserializer converts what it can (`true` becomes the port 1, `3.7` becomes 4, `123` becomes
//! an id) and quotes values in its errors, secrets included. This one converts only the text of environment variables, and
//! quotes a value only where the key takes a number, a switch or one of a few words.

use std::fmt::Display;

use ::config::{Value, ValueKind};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

use super::ConfigError;

/// A value of the merged tree and the path of its key. A value with an origin comes from outside the file.
/// Without `Debug`, as it may be a secret.
pub(super) struct Node {
    value: Value,
    key: String,
}

impl Node {
    pub(super) fn root(value: Value) -> Self {
        Self { value, key: String::new() }
    }

    /// An error that says what the value must be. The value is not quoted.
    fn must_be(&self, what: impl Display) -> ConfigError {
        let problem = match self.value.kind {
            // The merge leaves a gap where a variable sets a later element of a list, but none sets this one.
            ValueKind::Nil => "missing; the elements of a list are numbered from 0 without gaps".to_owned(),
            _ => format!("must be {what}"),
        };
        ConfigError::key(&self.key, problem)
    }

    /// The same, and quotes the value: never for keys that take any text.
    fn must_be_not(&self, what: impl Display) -> ConfigError {
        let value = match &self.value.kind {
            ValueKind::Nil => return self.must_be(what),
            ValueKind::Boolean(value) => value.to_string(),
            ValueKind::I64(value) => value.to_string(),
            ValueKind::Float(value) => value.to_string(),
            ValueKind::String(value) => quoted(value),
            ValueKind::Array(_) => "a list".to_owned(),
            _ => "a table".to_owned(),
        };
        ConfigError::key(&self.key, format!("must be {what}, not {value}"))
    }

    /// The text of a variable, which may stand for any type.
    fn variable_text(&self) -> Option<&str> {
        match &self.value.kind {
            ValueKind::String(text) if self.value.origin().is_some() => Some(text.trim()),
            _ => None,
        }
    }

    fn whole_number(&self, max: u64) -> Result<u64, ConfigError> {
        // The largest integer that TOML has.
        let max = max.min(i64::MAX.unsigned_abs());
        let number = match &self.value.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok(),
            _ => self.variable_text().and_then(|text| text.parse().ok()),
        };
        number.filter(|number| *number <= max).ok_or_else(|| {
            let range = if max <= u64::from(u32::MAX) { format!("from 0 to {max}") } else { "of 0 or more".to_owned() };
            self.must_be_not(format!("a whole number {range}"))
        })
    }

    /// A table's entries in a fixed order. A variable may hold them as JSON.
    fn entries(mut self) -> Result<Vec<(String, Node)>, ConfigError> {
        if self.variable_text().is_some_and(|text| text.starts_with('{')) {
            self = self.parse_json()?;
        }
        let ValueKind::Table(table) = self.value.kind else {
            return Err(self.must_be("a table"));
        };
        let mut entries: Vec<_> = table
            .into_iter()
            .map(|(name, value)| {
                let key = if self.key.is_empty() { name.clone() } else { format!("{}.{name}", self.key) };
                (name, Node { value, key })
            })
            .collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    }

    /// A list's elements. A variable may hold them as JSON or divided by commas.
    fn elements(mut self) -> Result<Vec<Node>, ConfigError> {
        if self.variable_text().is_some_and(|text| text.starts_with('[')) {
            self = self.parse_json()?;
        } else if let Some(text) = self.variable_text() {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            let parts = parts.map(|part| self.with_same_origin(part)).collect::<Vec<_>>();
            self.value.kind = parts.into();
        }
        let ValueKind::Array(array) = self.value.kind else {
            return Err(self.must_be("a list"));
        };
        Ok(array.into_iter().enumerate().map(|(n, value)| Node { value, key: format!("{}[{n}]", self.key) }).collect())
    }

    fn parse_json(mut self) -> Result<Self, ConfigError> {
        let json = serde_json::from_str(self.variable_text().unwrap_or_default());
        let json = json.map_err(|error| ConfigError::key(&self.key, format!("must be valid JSON ({error})")))?;
        self.value = self.json_value(json);
        Ok(self)
    }

    fn json_value(&self, json: serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => self.with_same_origin(ValueKind::Nil),
            serde_json::Value::Bool(value) => self.with_same_origin(value),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => self.with_same_origin(number),
                None => self.with_same_origin(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => self.with_same_origin(text),
            serde_json::Value::Array(elements) => {
                self.with_same_origin(elements.into_iter().map(|value| self.json_value(value)).collect::<Vec<_>>())
            }
            serde_json::Value::Object(entries) => {
                // As TOML has no null, it can only mean that the key is not set.
                let set = entries.into_iter().filter(|(_, value)| !value.is_null());
                let entries = set.map(|(name, value)| (name, self.json_value(value)));
                self.with_same_origin(ValueKind::Table(entries.collect()))
            }
        }
    }

    fn read<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, ConfigError> {
        let key = self.key.clone();
        seed.deserialize(self).map_err(|error| error.at(&key))
    }

    fn with_same_origin(&self, kind: impl Into<ValueKind>) -> Value {
        Value::new(self.value.origin().map(str::to_owned).as_ref(), kind)
    }
}

macro_rules! unsigned {
    ($($method:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            let number = self.whole_number(<$type>::MAX.into())?;
            visitor.visit_u64(number)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node {
    type Error = ConfigError;

    unsigned!(deserialize_u8 u8, deserialize_u16 u16, deserialize_u32 u32, deserialize_u64 u64);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let value = match (&self.value.kind, self.variable_text()) {
            (ValueKind::Boolean(value), _) => *value,
            (_, Some("true" | "1")) => true,
            (_, Some("false" | "0")) => false,
            _ => return Err(self.must_be_not("true or false")),
        };
        visitor.visit_bool(value)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self.value.kind {
            ValueKind::String(text) => visitor.visit_string(text),
            _ => Err(self.must_be("text in quotes")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match &self.value.kind {
            ValueKind::String(text) if words.contains(&text.as_str()) => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            _ => {
                let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
                Err(self.must_be_not(words.join(" or ")))
            }
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_seq(Elements(self.elements()?.into_iter()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_map(Entries::new(self.entries()?))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let entries = self.entries()?;
        match entries.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, node)) => Err(unknown(&node.key, name, known)),
            None => visitor.visit_map(Entries::new(entries)),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ConfigError> {
        Err(ConfigError::custom("this key has a type that cannot be configured"))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// Hands out a list's elements and puts the key on their errors.
struct Elements(std::vec::IntoIter<Node>);

impl<'de> SeqAccess<'de> for Elements {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ConfigError> {
        self.0.next().map(|node| node.read(seed)).transpose()
    }
}

/// Hands out a table's entries and puts the key on their errors.
struct Entries {
    entries: std::vec::IntoIter<(String, Node)>,
    /// The value of the name that was handed out last.
    node: Option<Node>,
}

impl Entries {
    fn new(entries: Vec<(String, Node)>) -> Self {
        Self { entries: entries.into_iter(), node: None }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        let Some((name, node)) = self.entries.next() else { return Ok(None) };
        self.node = Some(node);
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ConfigError> {
        let node = self.node.take().ok_or_else(|| ConfigError::custom("a value without a key"))?;
        node.read(seed)
    }
}

/// The error of a key that does not exist: the one that was probably meant, else all there are.
fn unknown(key: &str, name: &str, known: &[&str]) -> ConfigError {
    let distance = |candidate: &str| strsim::damerau_levenshtein(&name.to_lowercase(), candidate);
    let problem = match known.iter().min_by_key(|candidate| distance(candidate)) {
        Some(nearest) if distance(nearest) <= (name.len() / 3).max(1) => {
            format!("unknown key; did you mean \"{nearest}\"?")
        }
        _ => format!("unknown key; known are {}", known.join(", ")),
    };
    ConfigError::key(key, problem)
}

/// Replaces a list of the root that is given as JSON by its elements.
pub(super) fn expand_list(root: &mut Value, name: &str) -> Result<(), ConfigError> {
    let ValueKind::Table(table) = &mut root.kind else { return Ok(()) };
    let Some(value) = table.get_mut(name) else { return Ok(()) };
    let node = Node { value: value.clone(), key: name.to_owned() };
    if node.variable_text().is_some_and(|text| text.starts_with('[')) {
        *value = node.parse_json()?.value;
    }
    Ok(())
}

/// A value for an error: in quotes, and cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("\"{}…\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}

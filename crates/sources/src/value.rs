//! A payload as a value in memory, bounded while it is read.
//!
//! ```text
//!  text ─▶ values, each counted as it comes ─▶ Value
//!                      └─ too many ─▶ TooMany: nothing more is read
//! ```
//!
//! Invariant: what a payload takes in memory depends on [`MOST`], not on how few bytes it has for each of its values:
//! three bytes of JSON (`[],`) are an empty list that takes thirty times as many.

use std::{cell::Cell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Most values of one payload. A key counts as one, an object that is not empty as eight more, and text as one more for
/// each 128 bytes; each takes about 128 bytes, as JSON and as what an expression sees.
pub(crate) const MOST: usize = 500_000;
/// What an object takes beside its entries.
const OBJECT: usize = 8;
/// How many bytes of text count as one value.
const TEXT: usize = 128;

/// Why there is no value.
#[derive(Debug)]
pub(crate) enum Unread {
    /// There are more than [`MOST`] values.
    TooMany,
    /// It is not JSON.
    Json,
    /// It is not YAML.
    Yaml,
}

/// What a user is told of [`Unread::TooMany`].
pub(crate) fn too_many() -> String {
    format!("the payload has more than {MOST} values, where a key counts as one and an object as eight")
}

/// How many more values may come.
#[derive(Debug)]
pub(crate) struct Room {
    left: Cell<usize>,
    spent: Cell<bool>,
}

impl Room {
    /// Room for one payload.
    pub(crate) fn new() -> Self {
        Self {
            left: Cell::new(MOST),
            spent: Cell::new(false),
        }
    }

    /// Room for the next payload.
    pub(crate) fn renew(&self) {
        self.left.set(MOST);
    }

    /// Whether more came than there was room for.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.get()
    }

    /// Takes room for so many values. Returns whether there was as much.
    #[must_use]
    pub(crate) fn take(&self, count: usize) -> bool {
        let left = self.left.get().checked_sub(count);
        self.spent.set(self.spent.get() || left.is_none());
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Takes room for a text.
    #[must_use]
    pub(crate) fn take_text(&self, text: &str) -> bool {
        self.take(1 + text.len() / TEXT)
    }
}

fn need<E: serde::de::Error>(enough: bool) -> Result<(), E> {
    if enough {
        Ok(())
    } else {
        Err(E::custom("too many values"))
    }
}

/// The value of a JSON text.
pub(crate) fn json(text: &str) -> Result<Value, Unread> {
    let room = Room::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Bounded(&room).deserialize(&mut reader);
    read.and_then(|value| reader.end().map(|()| value))
        .map_err(|_| if room.is_spent() { Unread::TooMany } else { Unread::Json })
}

/// The value of a YAML text of one document.
pub(crate) fn yaml(text: &str) -> Result<Value, Unread> {
    let room = Room::new();
    serde_saphyr::with_deserializer_from_str_with_options(text, options(), |reader| Bounded(&room).deserialize(reader))
        .map_err(|error| {
            if room.is_spent() || is_too_much(&error) {
                Unread::TooMany
            } else {
                Unread::Yaml
            }
        })
}

/// Whether YAML was refused for how much it is, written out or by its aliases.
pub(crate) fn is_too_much(error: &serde_saphyr::Error) -> bool {
    use serde_saphyr::Error as E;
    let mut error = error;
    while let E::AliasError { error: inner, .. } | E::WithSnippet { error: inner, .. } = error {
        error = inner;
    }
    matches!(
        error,
        E::Budget { .. }
            | E::AliasReplayCounterOverflow { .. }
            | E::AliasReplayLimitExceeded { .. }
            | E::AliasReplayStackDepthExceeded { .. }
            | E::AliasExpansionLimitExceeded { .. }
    )
}

/// The number of values that one YAML document has at most, and, `aliases`, of those that its aliases stand for.
pub(crate) const DOCUMENT: usize = 250_000;
const ALIASES: usize = 100_000;

/// How YAML is read: what aliases stand for is bounded as if it were written out, and no error repeats the text.
pub(crate) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: DOCUMENT },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIASES },
    }
}

/// Reads a value with the room that there is.
#[derive(Clone, Copy)]
pub(crate) struct Bounded<'a>(pub(crate) &'a Room);

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<Value, E> {
        need(self.0.take(1))?;
        Ok(truth.into())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        need(self.0.take(1))?;
        Ok(number.into())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        need(self.0.take(1))?;
        Ok(number.into())
    }

    fn visit_i128<E: serde::de::Error>(self, number: i128) -> Result<Value, E> {
        need(self.0.take(1))?;
        let number = Number::from_i128(number).ok_or_else(|| E::custom("a number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_u128<E: serde::de::Error>(self, number: u128) -> Result<Value, E> {
        need(self.0.take(1))?;
        let number = Number::from_u128(number).ok_or_else(|| E::custom("a number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        need(self.0.take(1))?;
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        need(self.0.take_text(text))?;
        Ok(text.into())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        need(self.0.take_text(&text))?;
        Ok(text.into())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        need(self.0.take(1))?;
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        self.deserialize(reader)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        need(self.0.take(1))?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        need(self.0.take(1))?;
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let object = if fields.is_empty() { OBJECT } else { 0 };
            need(self.0.take(object) && self.0.take_text(&key))?;
            fields.insert(key, entries.next_value_seed(self)?);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::lists("[]", 1)]
    #[case::numbers("1", 1)]
    #[case::objects("{\"a\":1}", 1 + OBJECT + 2)]
    #[case::text(
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        2
    )]
    fn as_many_as_there_is_room_for(#[case] item: &str, #[case] counts: usize) {
        let fits = (MOST - 1) / counts;
        let list = |count: usize| format!("[{}]", vec![item; count].join(","));
        assert!(json(&list(fits)).is_ok());
        assert!(matches!(json(&list(fits + 1)), Err(Unread::TooMany)));
    }

    #[test]
    fn yaml_is_bounded_too_and_so_is_what_its_aliases_stand_for() {
        assert!(matches!(
            yaml(&format!("[{}]", "[],".repeat(MOST))),
            Err(Unread::TooMany)
        ));
        let aliases = format!("a: &a [{}]\nb: [{}]\n", "1,".repeat(1000), "*a,".repeat(1000));
        assert!(matches!(yaml(&aliases), Err(Unread::TooMany)));
    }

    #[test]
    fn what_is_neither_is_said() {
        assert!(matches!(json("[1] 2"), Err(Unread::Json)));
        assert!(matches!(yaml("a: ["), Err(Unread::Yaml)));
    }

    fn some_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[ -~]{0,9}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(|fields| json!(fields)),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// What is bounded is read as it is without bounds.
        #[test]
        fn a_value_is_the_value(value in some_json()) {
            prop_assert_eq!(json(&value.to_string()).unwrap(), value.clone());
            prop_assert_eq!(yaml(&value.to_string()).unwrap(), value);
        }
    }
}

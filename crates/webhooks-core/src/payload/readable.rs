//! The check that receivers can read a JSON text: `serde_json` reads it as a value, and none is made.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How many arrays and objects may be in each other: `serde_json` reads 127, of which the body that a
/// payload is in takes one.
pub(super) const MAX_DEPTH: usize = 126;

/// Keys by which `serde_json` marks values of its own: an object with one of them is read as something
/// else, or refused. The second one is a key of every number if the feature `arbitrary_precision` is on.
const RAW_VALUE: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

/// Reads a valid JSON text and keeps nothing of it.
///
/// # Errors
/// The error that a reader of the text would get, with line and column.
pub(super) fn check(json: &str) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    Value { levels: MAX_DEPTH, names_number: json.contains(NUMBER) }.deserialize(&mut reader)
}

/// A value that may hold `levels` arrays and objects in each other.
#[derive(Clone, Copy)]
struct Value {
    levels: usize,
    /// Whether the text holds the key of numbers.
    names_number: bool,
}

impl Value {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1).ok_or_else(|| {
            E::custom(format_args!("more than {MAX_DEPTH} arrays and objects in each other"))
        })?;
        Ok(Self { levels, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while members.next_key_seed(Key { names_number: self.names_number })?.is_some() {
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// A key, which must not be one of `serde_json`'s own.
struct Key {
    names_number: bool,
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        if key == RAW_VALUE || (self.names_number && key == NUMBER) {
            return Err(E::custom("a key that serde_json keeps for itself"));
        }
        Ok(())
    }
}

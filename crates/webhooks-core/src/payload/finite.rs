//! Numbers that JSON cannot write: `serde_json` writes `null` in their place.

use std::fmt;

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Returns the first number of a value that is infinite or none, and the fields of structs that lead
/// to it.
pub(super) fn find_other(value: &impl Serialize) -> Option<(f64, Option<String>)> {
    match value.serialize(Search) {
        Ok(()) | Err(Found::Nothing) => None,
        Err(Found::Number { number, fields }) => {
            let fields: Vec<&str> = fields.into_iter().rev().collect();
            Some((number, (!fields.is_empty()).then(|| fields.join("."))))
        }
    }
}

/// A serializer that writes nothing and stops at the first such number.
#[derive(Clone, Copy)]
struct Search;

/// Why a search stopped.
#[derive(Debug)]
enum Found {
    /// The value refuses this serializer. It did not refuse that of JSON.
    Nothing,
    /// A number, and the fields that lead to it, the innermost first.
    Number { number: f64, fields: Vec<&'static str> },
}

impl Found {
    fn of(number: f64) -> Result<(), Self> {
        if number.is_finite() { Ok(()) } else { Err(Self::Number { number, fields: Vec::new() }) }
    }

    fn inside(mut self, field: &'static str) -> Self {
        if let Self::Number { fields, .. } = &mut self {
            fields.push(field);
        }
        self
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number that JSON cannot write")
    }
}

impl std::error::Error for Found {}

impl Error for Found {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Nothing
    }
}

impl Serializer for Search {
    type Ok = ();
    type Error = Found;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fn serialize_f32(self, number: f32) -> Result<(), Found> {
        Found::of(number.into())
    }

    fn serialize_f64(self, number: f64) -> Result<(), Found> {
        Found::of(number)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Found> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Found> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Found> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_bool(self, _: bool) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_i8(self, _: i8) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_i16(self, _: i16) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_i32(self, _: i32) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_i64(self, _: i64) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_i128(self, _: i128) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_u8(self, _: u8) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_u16(self, _: u16) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_u32(self, _: u32) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_u64(self, _: u64) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_u128(self, _: u128) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_char(self, _: char) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_str(self, _: &str) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Found> {
        Ok(())
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<(), Found> {
        Ok(())
    }
}

impl SerializeSeq for Search {
    type Ok = ();
    type Error = Found;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Found> {
        value.serialize(*self)
    }

    fn end(self) -> Result<(), Found> {
        Ok(())
    }
}

impl SerializeTuple for Search {
    type Ok = ();
    type Error = Found;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Found> {
        value.serialize(*self)
    }

    fn end(self) -> Result<(), Found> {
        Ok(())
    }
}

impl SerializeTupleStruct for Search {
    type Ok = ();
    type Error = Found;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Found> {
        value.serialize(*self)
    }

    fn end(self) -> Result<(), Found> {
        Ok(())
    }
}

impl SerializeTupleVariant for Search {
    type Ok = ();
    type Error = Found;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Found> {
        value.serialize(*self)
    }

    fn end(self) -> Result<(), Found> {
        Ok(())
    }
}

impl SerializeMap for Search {
    type Ok = ();
    type Error = Found;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Found> {
        value.serialize(*self)
    }

    fn end(self) -> Result<(), Found> {
        Ok(())
    }
}

impl SerializeStruct for Search {
    type Ok = ();
    type Error = Found;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Found> {
        value.serialize(*self).map_err(|found| found.inside(key))
    }

    fn end(self) -> Result<(), Found> {
        Ok(())
    }
}

impl SerializeStructVariant for Search {
    type Ok = ();
    type Error = Found;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Found> {
        value.serialize(*self).map_err(|found| found.inside(key))
    }

    fn end(self) -> Result<(), Found> {
        Ok(())
    }
}

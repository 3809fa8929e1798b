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

/// Methods for values that cannot be such a number.
macro_rules! others {
    ($($method:ident($($argument:ty),*);)+) => {
        $(fn $method(self, $(_: $argument),*) -> Result<(), Found> {
            Ok(())
        })+
    };
}

/// A trait for values that hold others, each of which may be a `field` with a name.
macro_rules! inside {
    ($kind:ident, $method:ident($($field:ident)?)) => {
        impl $kind for Search {
            type Ok = ();
            type Error = Found;

            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($field: &'static str,)?
                value: &T,
            ) -> Result<(), Found> {
                value.serialize(*self)$(.map_err(|found| found.inside($field)))?
            }

            fn end(self) -> Result<(), Found> {
                Ok(())
            }
        }
    };
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

    others! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<(), Found> {
        Ok(())
    }
}

inside! { SerializeSeq, serialize_element() }
inside! { SerializeTuple, serialize_element() }
inside! { SerializeTupleStruct, serialize_field() }
inside! { SerializeTupleVariant, serialize_field() }
inside! { SerializeStruct, serialize_field(field) }
inside! { SerializeStructVariant, serialize_field(field) }

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

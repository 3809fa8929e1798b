//! Bodies and queries of requests, with errors that name the field.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Path as AxumPath, Request};
use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use webhooks_core::Timestamp;

use crate::deadline::is_too_slow;
use crate::error::ApiError;
use crate::service::Service;

/// A body of JSON, nothing after it.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Service> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, service: &Service) -> Result<Self, ApiError> {
        let body = read_body(request.into_body(), service.settings().max_request).await?;
        parse(&body).map(|Object(value)| Self(value))
    }
}

/// A body of JSON that may be absent: then it is an empty object.
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Service> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, service: &Service) -> Result<Self, ApiError> {
        let body = read_body(request.into_body(), service.settings().max_request).await?;
        let body = if body.is_empty() { b"{}" } else { &*body };
        parse(body).map(|Object(value)| Self(value))
    }
}

/// Reads a body of `max` bytes at most.
pub(crate) async fn read_body(body: axum::body::Body, max: usize) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, max).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ApiError::too_large(max)
        } else if is_too_slow(&*error) {
            ApiError::too_slow()
        } else {
            ApiError::bad_request("The body did not arrive as a whole.")
        }
    });
    Ok(body?.to_bytes())
}

/// Reads JSON, nothing after it.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Err(ApiError::field(["body"], "the body is empty; send JSON", "value_error.json"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().iter().map(ToString::to_string);
        let inner = error.inner();
        if !inner.is_data() {
            return ApiError::field(
                ["body"],
                format!("it is not JSON: {inner}"),
                "value_error.json",
            );
        }
        let mut loc: Vec<String> = std::iter::once("body".to_owned()).chain(path).collect();
        let message = inner.to_string();
        if let Some(name) = missing(&message) {
            loc.push(name.to_owned());
            return ApiError::field(loc, "it is missing", "value_error.missing");
        }
        ApiError::field(loc, told(&message), "value_error")
    })?;
    json.end().map_err(|_unreadable| {
        ApiError::field(["body"], "something follows the JSON", "value_error.json")
    })?;
    Ok(value)
}

/// Returns the name of the field that serde misses.
fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// Returns a message of serde without the place in the text and without values: these may be secrets.
fn told(message: &str) -> String {
    let message = message.rsplit_once(" at line ").map_or(message, |(told, _)| told);
    match message.split_once("invalid value: ").or_else(|| message.split_once("invalid type: ")) {
        Some((_, rest)) => match rest.rsplit_once(", expected ") {
            Some((_, expected)) => format!("it must be {}", in_json(expected)),
            None => "it is not valid".to_owned(),
        },
        None => told_otherwise(message),
    }
}

/// Returns the words of JSON for what serde expected, in words of Rust.
fn in_json(expected: &str) -> &str {
    match expected {
        "a sequence" => "an array",
        "a map" => "an object",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, not below 0",
        "a nonzero u32" => "a whole number from 1 to 4294967295",
        expected if expected.starts_with("struct ") => "an object",
        expected => expected,
    }
}

fn told_otherwise(message: &str) -> String {
    if message.starts_with("unknown variant ") {
        let expected =
            message.rsplit_once(", expected ").map_or("another word", |(_, words)| words);
        return format!("it must be {expected}");
    }
    // Of an array in place of an object.
    if message.contains(" struct ") {
        "it must be an object".to_owned()
    } else {
        message.to_owned()
    }
}

/// A JSON object. serde alone reads a struct from an array of its fields, too.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// Reads a field that is an object, or `null`.
pub(crate) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.map(|Object(value)| value))
}

/// The names in a path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Service> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, ApiError> {
        // A name that is no UTF-8 is the name of nothing.
        let path = AxumPath::from_request_parts(parts, service).await;
        path.map(|AxumPath(names)| Self(names)).map_err(|_unreadable| ApiError::unknown("path"))
    }
}

/// The parameters of a query.
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Params {
    /// Returns the value of a parameter; of the last, if there are several.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the values of a parameter that can be there several times.
    pub(crate) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.0.iter().filter(move |(key, _)| key == name);
        found.flat_map(|(_, value)| value.split(',')).filter(|value| !value.is_empty())
    }

    /// Reads the value of a parameter.
    pub(crate) fn read<T: FromStr>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        let value = self.text(name).map(str::parse).transpose();
        value
            .map_err(|_unreadable| ApiError::bad_request(format!("{name}: it must be {expected}.")))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false")
    }

    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.read(name, "a time such as 2026-01-31T12:00:00Z")
    }
}

/// A field of a change that can be absent, `null` or a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Patch<T> {
    /// It is absent: the old value stays.
    #[default]
    Keep,
    /// It is `null`.
    Clear,
    Set(T),
}

impl<T: Clone> Patch<T> {
    /// Returns the value after the change.
    pub(crate) fn apply(&self, old: Option<T>) -> Option<T> {
        match self {
            Self::Keep => old,
            Self::Clear => None,
            Self::Set(new) => Some(new.clone()),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

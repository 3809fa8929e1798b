//! Payloads against JSON Schemas, within bounds.

use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::LocationSegment;
use jsonschema::{PatternOptions, Validator};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::schema_part::{Reach, parts};

/// The most schemas, when each `$ref` is replaced by that to which it leads. A check looks at no part of a
/// payload more often.
const MAX_SCHEMAS: usize = 10_000;

/// The deepest that schemas may be in each other, each `$ref` replaced. A check takes a few stack frames for
/// each.
const MAX_DEPTH: usize = 64;

/// The most regular expressions, each `$ref` replaced, and the most bytes of each as a program.
const MAX_PATTERNS: (usize, usize) = (100, 1024 * 1024);

/// Keywords whose meaning changes with the way that led to them, so that no bound is known.
const DYNAMIC: [&str; 2] = ["$dynamicRef", "$recursiveRef"];

/// A JSON Schema that payloads are checked against.
///
/// A check ends soon, whatever the schema: no schema applies to itself, regular expressions take linear time,
/// and nothing is read from files or networks.
pub struct PayloadSchema {
    validator: Validator,
    schemas: usize,
}

/// The reason why payloads cannot be checked against a schema.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PayloadSchemaError {
    /// A `$ref` leads elsewhere than to a place in the same schema.
    #[error("the $ref {0:?} does not lead to a place in the same schema, such as #/$defs/order")]
    Elsewhere(String),
    /// It is no JSON Schema.
    #[error("it is not a valid JSON Schema at {0:?}")]
    Invalid(String),
    /// It has too many schemas or patterns.
    #[error(
        "it has more than 10000 schemas or 100 patterns, each $ref counted as what it leads to"
    )]
    TooLarge,
    /// It applies to itself, or nearly so.
    #[error("a $ref leads back to where it is, or more than 64 schemas are in each other")]
    TooDeep,
    /// A keyword is not supported.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

/// The place at which a payload does not match, and the rule. It does not hold a value of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The names and numbers that lead to the place in the payload.
    pub place: Vec<String>,
    /// The place of the rule in the schema, as a JSON pointer.
    pub rule: String,
    /// The name of the property that is missing there.
    pub missing: Option<String>,
}

impl PayloadSchema {
    /// Returns the checks of a schema.
    ///
    /// # Errors
    /// [`PayloadSchemaError`] when it is not valid, or its bounds are not known.
    pub fn new(schema: &Value) -> Result<Self, PayloadSchemaError> {
        let mut extent = Extent { root: schema, schemas: 0, patterns: 0 };
        extent.add(schema, 0, 1)?;
        let patterns = PatternOptions::regex().size_limit(MAX_PATTERNS.1);
        let options = jsonschema::options().with_pattern_options(patterns).offline();
        // JSON Schema 2020-12, Validation §7.2: a format is a note unless somebody wants more.
        let options = options.should_validate_formats(false);
        let validator = options.build(schema).map_err(|error| {
            PayloadSchemaError::Invalid(error.instance_path().as_str().to_owned())
        })?;
        Ok(Self { validator, schemas: extent.schemas })
    }

    /// Returns the number of schemas that it has, each `$ref` counted as that to which it leads: a check looks
    /// at no part of a payload more often.
    pub fn schemas(&self) -> usize {
        self.schemas
    }

    /// Checks a payload.
    ///
    /// # Errors
    /// The first [`Mismatch`] that is found.
    pub fn check(&self, payload: &Value) -> Result<(), Mismatch> {
        self.validator.validate(payload).map_err(|error| {
            let place = error.instance_path().segments().map(|segment| match segment {
                LocationSegment::Property(name) => name.into_owned(),
                LocationSegment::Index(number) => number.to_string(),
            });
            let missing = match error.kind() {
                ValidationErrorKind::Required { property } => property.as_str().map(str::to_owned),
                _ => None,
            };
            let rule = error.schema_path().as_str().to_owned();
            Mismatch { place: place.collect(), rule, missing }
        })
    }
}

impl fmt::Debug for PayloadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadSchema").field("schemas", &self.schemas).finish_non_exhaustive()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.missing {
            Some(name) => write!(f, "the property {name:?} is missing"),
            None => write!(f, "it does not match the rule {} of its schema", self.rule),
        }
    }
}

/// The extent of a schema, each `$ref` replaced by that to which it leads.
struct Extent<'s> {
    root: &'s Value,
    schemas: usize,
    patterns: usize,
}

impl<'s> Extent<'s> {
    /// Adds a schema that is applied `times` times to one value. It ends after [`MAX_SCHEMAS`] steps.
    fn add(
        &mut self,
        schema: &'s Value,
        depth: usize,
        times: usize,
    ) -> Result<(), PayloadSchemaError> {
        self.schemas = self.schemas.saturating_add(times);
        if depth > MAX_DEPTH {
            return Err(PayloadSchemaError::TooDeep);
        }
        if let Some(fields) = schema.as_object() {
            self.add_own(fields, depth, times)?;
            // A validator finds unevaluated parts as it goes through the schemas of the value again.
            let is_twice = fields.keys().any(|keyword| keyword.starts_with("unevaluated"));
            let again = if is_twice { times.saturating_mul(3) } else { times };
            for (reach, part) in parts(fields) {
                match reach {
                    Reach::Same => self.add(part, depth + 1, again)?,
                    Reach::Inside => self.add(part, depth + 1, times)?,
                    Reach::Defined => {}
                }
            }
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let to = self.find(reference);
                let to = to.ok_or_else(|| PayloadSchemaError::Elsewhere(reference.to_owned()))?;
                self.add(to, depth + 1, again)?;
            }
        }
        if self.schemas > MAX_SCHEMAS || self.patterns > MAX_PATTERNS.0 {
            return Err(PayloadSchemaError::TooLarge);
        }
        Ok(())
    }

    /// Adds the keywords of one schema that have no schemas.
    fn add_own(
        &mut self,
        fields: &Map<String, Value>,
        depth: usize,
        times: usize,
    ) -> Result<(), PayloadSchemaError> {
        let has = |keyword: &str| fields.contains_key(keyword);
        if let Some(keyword) = DYNAMIC.into_iter().find(|keyword| has(keyword)) {
            return Err(PayloadSchemaError::Unsupported(keyword));
        }
        // Below another `$id`, `#` is no longer the whole schema.
        if depth > 0 && has("$id") {
            return Err(PayloadSchemaError::Unsupported("an $id within the schema"));
        }
        let names = fields.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
        self.patterns = self.patterns.saturating_add(usize::from(has("pattern")) + names);
        // The values are compared one by one.
        let values = fields.get("enum").and_then(Value::as_array).map_or(0, Vec::len);
        self.schemas = self.schemas.saturating_add((values / 16).saturating_mul(times));
        Ok(())
    }

    /// Returns the place to which a `$ref` leads (RFC 6901 §6).
    fn find(&self, reference: &str) -> Option<&'s Value> {
        let pointer = percent_decode_str(reference.strip_prefix('#')?).decode_utf8().ok()?;
        self.root.pointer(&pointer)
    }
}

#[cfg(test)]
mod tests;

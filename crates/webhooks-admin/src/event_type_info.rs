//! Event types: what applications publish, with schemas.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use webhooks_core::EventType;

use crate::payload_schema::PayloadSchema;
use crate::public_id::IdKind;
use crate::record::RecordKind;
use crate::resource::{FieldError, Resource, check_name};

/// The longest description in bytes.
const MAX_DESCRIPTION: usize = 16 * 1024;

/// The deepest that schemas may be: with what lies around them, a parser of JSON still reads them.
const MAX_DEPTH: usize = 64;

/// The most bytes of all schemas together.
const MAX_SCHEMAS: usize = 512 * 1024;

/// The treatment of an event whose payload does not match the newest schema of its type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "a word that a publish ignores must not compile")]
pub enum SchemaEnforcement {
    /// It is published: payloads are not looked at.
    #[default]
    Off,
    /// It is published, and a warning is logged and counted.
    Warn,
    /// It is refused.
    Refuse,
}

/// The description of an event type. Its key is the name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct EventTypeInfo {
    /// Its description for people.
    pub description: String,
    /// Whether it is hidden from those who choose among event types.
    #[serde(default)]
    pub archived: bool,
    /// Whether it should not be used in new code.
    #[serde(default)]
    pub deprecated: bool,
    /// The JSON Schemas of its payload, by version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemas: Option<BTreeMap<String, Value>>,
    /// The flag that an application needs to see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_flag: Option<String>,
    /// The group in which it is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_name: Option<String>,
    /// The treatment of events that do not match the newest schema.
    #[serde(default)]
    pub schema_enforcement: SchemaEnforcement,
}

impl EventTypeInfo {
    /// Checks the name of an event type. One that looks like an id would hide that an iterator is of another
    /// list.
    ///
    /// # Errors
    /// [`FieldError`] when it is not valid.
    pub fn check_name(name: &str) -> Result<(), FieldError> {
        EventType::new(name).map_err(|error| FieldError::new("name", error.to_string()))?;
        if IdKind::is_any(name) {
            return Err(FieldError::new("name", "it looks like an id that this service makes"));
        }
        Ok(())
    }

    /// Returns the newest version of the schemas. Versions that are no numbers are older than all others.
    pub fn newest_version(&self) -> Option<&str> {
        let versions = self.schemas.as_ref()?.keys();
        let newest = versions.max_by_key(|version| version.parse::<u64>().unwrap_or(0));
        newest.map(String::as_str)
    }

    /// Returns the number of bytes of all schemas together.
    pub fn schemas_len(&self) -> usize {
        let schemas = self.schemas.iter().flat_map(BTreeMap::values);
        schemas.map(|schema| schema.to_string().len()).sum()
    }

    /// Returns the schema of the newest version.
    pub fn newest_schema(&self) -> Option<&Value> {
        self.schemas.as_ref()?.get(self.newest_version()?)
    }
}

impl Resource for EventTypeInfo {
    const KIND: RecordKind = RecordKind::EventType;

    fn is_key(key: &str) -> bool {
        Self::check_name(key).is_ok()
    }

    fn check(&self) -> Result<(), FieldError> {
        if self.description.len() > MAX_DESCRIPTION {
            return Err(FieldError::new("description", "it has more than 16 KiB"));
        }
        for (field, name) in [("featureFlag", &self.feature_flag), ("groupName", &self.group_name)]
        {
            if let Some(name) = name {
                check_name(field, name)?;
            }
        }
        if let Some(schemas) = &self.schemas {
            if schemas.values().any(|schema| !schema.is_object()) {
                return Err(FieldError::new("schemas", "a schema is not a JSON object"));
            }
            if schemas.values().any(|schema| depth(schema) > MAX_DEPTH) {
                return Err(FieldError::new("schemas", "they are nested more than 64 deep"));
            }
            if self.schemas_len() > MAX_SCHEMAS {
                return Err(FieldError::new("schemas", "they have more than 512 KiB"));
            }
        }
        match self.newest_schema().filter(|_| self.schema_enforcement != SchemaEnforcement::Off) {
            Some(schema) => PayloadSchema::new(schema).map(drop).map_err(|error| {
                FieldError::new("schemas", format!("payloads cannot be checked: {error}"))
            }),
            None => Ok(()),
        }
    }
}

/// Returns the depth of arrays and objects in each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

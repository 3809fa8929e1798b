//! Event types as webhooks of an OpenAPI document, and back.

mod inline;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use webhooks_admin::{Entry, EventTypeInfo, SchemaEnforcement, change_schemas, check_name};

use self::inline::{Inliner, Place};
use crate::extract::Patch;

/// The most webhooks of a document.
const MAX_WEBHOOKS: usize = 1_000;

/// The fields of an operation for what OpenAPI has no word for.
const EXTENSION: &str = "x-event-type";

/// The operations of a path item that a webhook may have; the first counts.
const METHODS: [&str; 5] = ["post", "put", "patch", "delete", "get"];

/// An event type, as a document describes it.
#[derive(Debug, PartialEq)]
pub(crate) struct Described {
    pub(crate) name: String,
    description: String,
    deprecated: bool,
    schemas: Option<BTreeMap<String, Value>>,
    group_name: Option<String>,
    extension: Extension,
}

/// A place of a document that cannot be read, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) place: Vec<String>,
    pub(crate) reason: String,
}

/// The fields of [`EXTENSION`].
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extension {
    #[serde(default)]
    feature_flag: Patch<String>,
    schema_enforcement: Option<SchemaEnforcement>,
    /// All versions, if there are more than the one of the document.
    schemas: Option<BTreeMap<String, Value>>,
}

impl Described {
    /// Returns the event type after the import. An event type keeps what the document does not tell.
    pub(crate) fn onto(&self, before: Option<&EventTypeInfo>) -> EventTypeInfo {
        let kept = before.cloned().unwrap_or_default();
        let Extension { feature_flag, schema_enforcement, .. } = &self.extension;
        EventTypeInfo {
            description: self.description.clone(),
            archived: false,
            deprecated: self.deprecated,
            schemas: self.schemas.clone(),
            feature_flag: feature_flag.apply(kept.feature_flag),
            group_name: self.group_name.clone(),
            schema_enforcement: schema_enforcement.unwrap_or(kept.schema_enforcement),
        }
    }
}

impl Fault {
    fn new(place: &[&str], reason: impl Into<String>) -> Self {
        let place = place.iter().map(|part| (*part).to_owned()).collect();
        Self { place, reason: reason.into() }
    }
}

/// Returns the event types of a document, which has them as `webhooks` or, before OpenAPI 3.1, `x-webhooks`.
pub(crate) fn read(document: &Value) -> Result<Vec<Described>, Fault> {
    let version = document["openapi"].as_str().unwrap_or_default();
    if !version.starts_with("3.") {
        return Err(Fault::new(&["openapi"], "it is not 3.0, 3.1 or a later 3"));
    }
    let mut inliner = Inliner::new(document, version.starts_with("3.0"));
    let mut found = Vec::new();
    for part in ["webhooks", "x-webhooks"] {
        for (name, _) in document[part].as_object().into_iter().flatten() {
            if found.len() >= MAX_WEBHOOKS {
                return Err(Fault::new(&[part], "there are more than 1000"));
            }
            let fault = |reason| Fault::new(&[part, name], reason);
            let item = Place::root(document).get(part).get(name);
            found.push(describe(&mut inliner, name, &item).map_err(fault)?);
        }
    }
    if found.is_empty() {
        return Err(Fault::new(&["webhooks"], "there are none"));
    }
    Ok(found)
}

fn describe<'d>(
    inliner: &mut Inliner<'d>,
    name: &str,
    item: &Place<'d>,
) -> Result<Described, String> {
    let item = inliner.follow(item)?;
    let operation = METHODS.into_iter().map(|method| item.get(method));
    let operation = operation.into_iter().find(|operation| operation.value.is_object());
    let operation = operation.ok_or("it has no operation, such as post")?;
    let body = inliner.follow(&operation.get("requestBody"))?;
    let texts = [(&operation, "description"), (&body, "description"), (&operation, "summary")];
    let texts = texts.into_iter().chain([(&item, "description"), (&item, "summary")]);
    let description = texts.into_iter().find_map(|(place, field)| place.value[field].as_str());
    let tag = operation.value["tags"][0].as_str().filter(|tag| check_name("tags", tag).is_ok());
    let extension = match operation.value.get(EXTENSION) {
        Some(extension) => Extension::deserialize(extension)
            .map_err(|error| format!("{EXTENSION} cannot be read: {error}"))?,
        None => Extension::default(),
    };
    let schema = inliner.schema(&body.get("content"))?;
    Ok(Described {
        name: name.to_owned(),
        description: description.unwrap_or_default().to_owned(),
        deprecated: operation.value["deprecated"] == true,
        schemas: versions(schema, extension.schemas.clone()),
        group_name: tag.map(str::to_owned),
        extension,
    })
}

/// Returns the schemas by version: the one of the document is the newest.
fn versions(
    schema: Option<Value>,
    all: Option<BTreeMap<String, Value>>,
) -> Option<BTreeMap<String, Value>> {
    let Some(schema) = schema else { return all };
    let mut info = EventTypeInfo { schemas: all, ..EventTypeInfo::default() };
    let newest = info.newest_version().unwrap_or("1").to_owned();
    info.schemas.get_or_insert_default().insert(newest, schema);
    info.schemas
}

/// Returns the document of event types, from which [`read`] reads the same.
pub(crate) fn write(event_types: &[Entry<EventTypeInfo>]) -> Value {
    let (mut webhooks, mut schemas) = (Map::new(), Map::new());
    for Entry { id: name, value: info, .. } in event_types {
        let mut operation = json!({
            "description": info.description,
            "responses": { "2XX": { "description": "It was received." } },
            EXTENSION: {
                "featureFlag": info.feature_flag,
                "schemaEnforcement": info.schema_enforcement,
            },
        });
        if info.deprecated {
            operation["deprecated"] = json!(true);
        }
        if let Some(group) = &info.group_name {
            operation["tags"] = json!([group]);
        }
        let is_plain = info.schemas.iter().all(|all| all.len() == 1 && all.contains_key("1"));
        if !is_plain {
            operation[EXTENSION]["schemas"] = json!(info.schemas);
        }
        if let Some(schema) = info.newest_schema() {
            let place = format!("#/components/schemas/{name}");
            operation["requestBody"] = json!({
                "required": true,
                "content": { "application/json": { "schema": { "$ref": place } } },
            });
            schemas.insert(name.clone(), within(schema.clone(), &place));
        }
        webhooks.insert(name.clone(), json!({ "post": operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Event types", "version": "1" },
        "webhooks": webhooks,
        "components": { "schemas": schemas },
    })
}

/// Returns a schema for a place of a document: each `$ref` to a place in the schema leads there.
fn within(mut schema: Value, place: &str) -> Value {
    change_schemas(&mut schema, &mut |fields| {
        if let Some(Value::String(reference)) = fields.get_mut("$ref")
            && let Some(rest) = reference.strip_prefix('#')
            && (rest.is_empty() || rest.starts_with('/'))
        {
            *reference = format!("{place}{rest}");
        }
    });
    schema
}

#[cfg(test)]
mod tests;

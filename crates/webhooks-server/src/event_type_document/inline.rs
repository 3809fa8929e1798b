//! Schemas of a document as documents of their own.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use webhooks_admin::change_schemas;

/// The most bytes that all schemas of a document may have together, each with copies of what it refers to.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How many references may follow each other.
const MAX_STEPS: usize = 16;

/// A value of a document, and the reference that leads to it.
#[derive(Debug, Clone)]
pub(super) struct Place<'d> {
    reference: String,
    pub(super) value: &'d Value,
}

impl<'d> Place<'d> {
    pub(super) fn root(document: &'d Value) -> Self {
        Self { reference: "#".to_owned(), value: document }
    }

    /// Returns a field of it; `null` if there is none.
    pub(super) fn get(&self, field: &str) -> Self {
        let name = field.replace('~', "~0").replace('/', "~1");
        Self { reference: format!("{}/{name}", self.reference), value: &self.value[field] }
    }
}

/// Takes schemas out of a document.
pub(super) struct Inliner<'d> {
    document: &'d Value,
    /// Whether the schemas are those of OpenAPI 3.0.
    is_old: bool,
    /// The bytes that may still be copied.
    left: usize,
}

impl<'d> Inliner<'d> {
    pub(super) fn new(document: &'d Value, is_old: bool) -> Self {
        Self { document, is_old, left: MAX_BYTES }
    }

    /// Returns the place to which a place refers, or itself.
    pub(super) fn follow(&self, place: &Place<'d>) -> Result<Place<'d>, String> {
        let mut place = place.clone();
        for _ in 0..MAX_STEPS {
            let Some(reference) = place.value["$ref"].as_str() else { return Ok(place) };
            place = self.find(reference)?;
        }
        Err(format!("the $ref {:?} leads in a circle", place.reference))
    }

    fn find(&self, reference: &str) -> Result<Place<'d>, String> {
        // RFC 6901 §6.
        let pointer = reference.strip_prefix('#').map(percent_decode_str);
        let pointer = pointer.and_then(|pointer| pointer.decode_utf8().ok());
        let value = pointer.and_then(|pointer| self.document.pointer(&pointer));
        let value = value.ok_or_else(|| {
            format!("the $ref {reference:?} does not lead to a place in the document")
        })?;
        Ok(Place { reference: reference.to_owned(), value })
    }

    /// Returns the schema of a body's content of JSON, with an example if the content has one.
    pub(super) fn schema(&mut self, content: &Place<'d>) -> Result<Option<Value>, String> {
        let media = content.value.as_object().into_iter().flatten().map(|(media, _)| media);
        let json = media.clone().find(|media| *media == "application/json");
        let json = json.or_else(|| media.clone().find(|media| media.contains("json")));
        let Some(content) = json.map(|media| content.get(media)) else { return Ok(None) };
        let at = content.get("schema");
        if at.value.is_null() {
            return Ok(None);
        }
        // One step alone: behind it, a $ref may lead back to where it is.
        let root = match at.value.as_object() {
            Some(fields) if fields.len() == 1 => match fields.get("$ref").and_then(Value::as_str) {
                Some(reference) => self.find(reference)?,
                None => at,
            },
            _ => at,
        };
        let mut schema = self.take_out(&root)?;
        let named = content.value["examples"].as_object().and_then(|named| named.keys().next());
        let named =
            named.map(|name| self.follow(&content.get("examples").get(name))).transpose()?;
        let example = content.value.get("example");
        let example = example.or_else(|| named.as_ref().and_then(|named| named.value.get("value")));
        if let (Some(fields), Some(example)) = (schema.as_object_mut(), example)
            && !fields.contains_key("example")
        {
            self.pay(example)?;
            fields.entry("examples").or_insert_with(|| json!([example]));
        }
        Ok(Some(schema))
    }

    /// Returns a copy of a schema, with copies of what it refers to in its `$defs`.
    fn take_out(&mut self, root: &Place<'d>) -> Result<Value, String> {
        let mut schema = self.copy(root.value)?;
        let own = schema.get("$defs").and_then(Value::as_object);
        let mut moved = Moved {
            root: &root.reference,
            names: BTreeMap::new(),
            taken: own.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
            waiting: Vec::new(),
        };
        self.refer(&mut schema, &mut moved);
        let mut parts = Map::new();
        while let Some((reference, name)) = moved.waiting.pop() {
            let mut part = self.copy(self.find(&reference)?.value)?;
            self.refer(&mut part, &mut moved);
            parts.insert(name, part);
        }
        if !parts.is_empty() {
            let defs = schema
                .as_object_mut()
                .map(|fields| fields.entry("$defs").or_insert_with(|| json!({})));
            let defs = defs.and_then(Value::as_object_mut);
            defs.ok_or("the $defs of its schema are no object")?.extend(parts);
        }
        Ok(schema)
    }

    /// Makes each `$ref` to the document one to the schema.
    fn refer(&self, schema: &mut Value, moved: &mut Moved<'_>) {
        change_schemas(schema, &mut |fields| {
            if let Some(Value::String(reference)) = fields.get_mut("$ref") {
                *reference = moved.reference(reference);
            }
            if self.is_old {
                renew(fields);
            }
        });
    }

    fn copy(&mut self, value: &Value) -> Result<Value, String> {
        self.pay(value)?;
        Ok(value.clone())
    }

    /// Counts the bytes of a copy.
    fn pay(&mut self, value: &Value) -> Result<(), String> {
        if subtract(&mut self.left, value) {
            return Ok(());
        }
        Err("the schemas have more than 16 MiB, each with what it refers to".to_owned())
    }
}

/// The schemas that are moved to the `$defs` of another one.
struct Moved<'r> {
    /// The reference to the schema whose `$defs` they are.
    root: &'r str,
    /// Their names by reference.
    names: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    /// Those that are not copied yet.
    waiting: Vec<(String, String)>,
}

impl Moved<'_> {
    /// Returns the reference in the schema in place of one in the document.
    fn reference(&mut self, reference: &str) -> String {
        if let Some(rest) = reference.strip_prefix(self.root)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return format!("#{rest}");
        }
        // Other documents are not read, and anchors are found wherever they are.
        if !reference.starts_with("#/") {
            return reference.to_owned();
        }
        if let Some(name) = self.names.get(reference) {
            return format!("#/$defs/{name}");
        }
        let wanted = reference.rsplit('/').next().unwrap_or_default();
        let is_plain =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        let wanted: String = wanted.chars().filter(|character| is_plain(*character)).collect();
        let more = (2..).map(|number: u32| format!("{wanted}-{number}"));
        let mut names = std::iter::once(wanted.clone()).chain(more);
        let name = names.find(|name| !name.is_empty() && !self.taken.contains(name));
        let name = name.unwrap_or_default();
        self.taken.insert(name.clone());
        self.names.insert(reference.to_owned(), name.clone());
        self.waiting.push((reference.to_owned(), name.clone()));
        format!("#/$defs/{name}")
    }
}

/// Takes the size of a value from `left`; returns whether it was enough.
fn subtract(left: &mut usize, value: &Value) -> bool {
    let own = match value {
        Value::String(text) => text.len(),
        Value::Object(fields) => fields.keys().map(String::len).sum(),
        _ => 0,
    };
    let Some(rest) = left.checked_sub(own + size_of::<Value>()) else { return false };
    *left = rest;
    match value {
        Value::Array(items) => items.iter().all(|item| subtract(left, item)),
        Value::Object(fields) => fields.values().all(|field| subtract(left, field)),
        _ => true,
    }
}

/// Makes keywords of OpenAPI 3.0 those of JSON Schema 2020-12.
fn renew(fields: &mut Map<String, Value>) {
    if fields.remove("nullable") == Some(Value::Bool(true))
        && let Some(Value::String(only)) = fields.get("type")
    {
        let types = json!([only, "null"]);
        fields.insert("type".to_owned(), types);
    }
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match fields.get(exclusive) {
            Some(Value::Bool(true)) => {
                let bound = fields.remove(bound).unwrap_or_default();
                fields.insert(exclusive.to_owned(), bound);
            }
            Some(Value::Bool(false)) => {
                fields.remove(exclusive);
            }
            _ => {}
        }
    }
}

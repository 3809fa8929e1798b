//! The parts of a JSON Schema that are schemas themselves.

use serde_json::{Map, Value};

/// The value that a schema within another one is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The same value.
    Same,
    /// A part of the value.
    Inside,
    /// Nothing by itself: a `$ref` leads to it.
    Defined,
}

/// The form in which a keyword has schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    List,
    OneOrList,
    Map,
}

/// The keywords that have schemas, of all drafts (JSON Schema 2020-12, Core §10 and §11).
const KEYWORDS: [(&str, Form, Reach); 25] = [
    ("$defs", Form::Map, Reach::Defined),
    ("additionalItems", Form::One, Reach::Inside),
    ("additionalProperties", Form::One, Reach::Inside),
    ("allOf", Form::List, Reach::Same),
    ("anyOf", Form::List, Reach::Same),
    ("contains", Form::One, Reach::Inside),
    ("contentSchema", Form::One, Reach::Defined),
    ("definitions", Form::Map, Reach::Defined),
    ("dependencies", Form::Map, Reach::Same),
    ("dependentSchemas", Form::Map, Reach::Same),
    ("disallow", Form::OneOrList, Reach::Same),
    ("else", Form::One, Reach::Same),
    ("extends", Form::OneOrList, Reach::Same),
    ("if", Form::One, Reach::Same),
    ("items", Form::OneOrList, Reach::Inside),
    ("not", Form::One, Reach::Same),
    ("oneOf", Form::List, Reach::Same),
    ("patternProperties", Form::Map, Reach::Inside),
    ("prefixItems", Form::List, Reach::Inside),
    ("properties", Form::Map, Reach::Inside),
    ("propertyNames", Form::One, Reach::Inside),
    ("then", Form::One, Reach::Same),
    ("type", Form::OneOrList, Reach::Same),
    ("unevaluatedItems", Form::One, Reach::Inside),
    ("unevaluatedProperties", Form::One, Reach::Inside),
];

fn find(keyword: &str) -> Option<(Form, Reach)> {
    let found = KEYWORDS.binary_search_by_key(&keyword, |(name, ..)| name).ok()?;
    KEYWORDS.get(found).map(|(_, form, reach)| (*form, *reach))
}

fn is_schema(value: &Value) -> bool {
    value.is_object() || value.is_boolean()
}

/// Returns the schemas directly within a schema.
pub(crate) fn parts(schema: &Map<String, Value>) -> impl Iterator<Item = (Reach, &Value)> {
    schema.iter().flat_map(|(keyword, value)| {
        let (form, reach) = find(keyword).unwrap_or((Form::One, Reach::Defined));
        let is_known = find(keyword).is_some();
        let one = Some(value).filter(|_| matches!(form, Form::One | Form::OneOrList));
        let list = value.as_array().filter(|_| matches!(form, Form::List | Form::OneOrList));
        let map = value.as_object().filter(|_| form == Form::Map);
        let all = one.into_iter().chain(list.into_iter().flatten());
        let all = all.chain(map.into_iter().flat_map(Map::values));
        all.filter(move |part| is_known && is_schema(part)).map(move |part| (reach, part))
    })
}

/// Calls `change` with each object among a schema and the schemas within it, those outside first. Examples,
/// constants and other values are left alone, whatever they look like.
pub fn change_schemas(schema: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    let Some(fields) = schema.as_object_mut() else { return };
    change(fields);
    for (keyword, value) in fields {
        let Some((form, _)) = find(keyword) else { continue };
        match value {
            Value::Array(items) if matches!(form, Form::List | Form::OneOrList) => {
                for part in items {
                    change_schemas(part, change);
                }
            }
            Value::Object(parts) if form == Form::Map => {
                for part in parts.values_mut() {
                    change_schemas(part, change);
                }
            }
            Value::Object(_) if matches!(form, Form::One | Form::OneOrList) => {
                change_schemas(value, change);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted_by_key(|(name, ..)| *name));
    }

    #[test]
    fn schemas_are_told_from_values() {
        let mut schema = json!({
            "type": ["object", "null"],
            "properties": { "const": { "$ref": "#/a" }, "$ref": { "items": [{ "$ref": "#/b" }] } },
            "dependencies": { "a": ["b"], "c": { "$ref": "#/c" } },
            "const": { "$ref": "#/value" },
            "examples": [{ "$ref": "#/value" }],
            "not": { "enum": [{ "$ref": "#/value" }] },
        });
        let mut found = Vec::new();
        change_schemas(&mut schema, &mut |fields| {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
        });
        found.sort_unstable();
        assert_eq!(found, ["#/a", "#/b", "#/c"]);
        let fields = schema.as_object().unwrap();
        let (same, inside): (Vec<_>, Vec<_>) =
            parts(fields).partition(|(reach, _)| *reach == Reach::Same);
        assert_eq!((same.len(), inside.len()), (2, 2));
    }
}

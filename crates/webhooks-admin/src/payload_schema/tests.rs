use proptest::prelude::*;
use serde_json::json;

use super::*;

fn check(schema: &Value, payload: &Value) -> Result<(), Mismatch> {
    PayloadSchema::new(schema).unwrap().check(payload)
}

fn refused(schema: &Value) -> PayloadSchemaError {
    PayloadSchema::new(schema).unwrap_err()
}

#[test]
fn a_mismatch_names_the_place_and_the_rule_and_no_value() {
    let schema = json!({
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": { "type": "integer" },
            "lines": { "items": { "$ref": "#/$defs/line" } },
            "kind": { "anyOf": [{ "const": "a" }, { "pattern": "^b+$" }] },
        },
        "additionalProperties": false,
        "$defs": { "line": { "required": ["sku"], "properties": { "sku": { "maxLength": 3 } } } },
    });
    let cases = [
        (json!({ "id": "secret" }), "id", "/properties/id/type"),
        (json!({}), "", "/required"),
        (json!({ "id": 1, "lines": [{ "sku": "a" }, { "sku": "secret" }] }), "lines.1.sku", ""),
        (json!({ "id": 1, "kind": "secret" }), "kind", "/properties/kind/anyOf"),
        (json!({ "id": 1, "secret": 2 }), "", "/additionalProperties"),
    ];
    for (payload, place, rule) in cases {
        let found = check(&schema, &payload).unwrap_err();
        assert_eq!(found.place.join("."), place, "{found:?}");
        assert!(rule.is_empty() || found.rule == rule, "{found:?}");
        assert!(!format!("{found:?}{found}").contains("secret"), "{found:?}");
    }
    let missing = check(&schema, &json!({ "id": 1, "lines": [{}] })).unwrap_err();
    assert_eq!(missing.to_string(), "the property \"sku\" is missing");
    assert_eq!(check(&schema, &json!({ "id": 1, "kind": "bb", "lines": [] })), Ok(()));
}

#[test]
fn nothing_outside_of_the_schema_is_read() {
    for reference in [
        "https://example.com/schema.json",
        "file:///etc/passwd",
        "other.json#/$defs/a",
        "#/$defs/none",
        "#anchor",
        "#%ff",
        "",
    ] {
        let schema = json!({ "properties": { "a": { "$ref": reference } } });
        assert_eq!(refused(&schema), PayloadSchemaError::Elsewhere(reference.to_owned()));
    }
    let unknown = json!({ "$schema": "https://example.com/unknown" });
    assert!(matches!(refused(&unknown), PayloadSchemaError::Invalid(_)));
}

#[test]
fn a_schema_that_applies_to_itself_is_refused() {
    for schema in [
        json!({ "$ref": "#" }),
        json!({ "properties": { "next": { "$ref": "#" } } }),
        json!({ "$ref": "#/$defs/a",
                "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } }),
    ] {
        assert_eq!(refused(&schema), PayloadSchemaError::TooDeep);
    }
    let dynamic = json!({ "$dynamicRef": "#meta" });
    assert_eq!(refused(&dynamic), PayloadSchemaError::Unsupported("$dynamicRef"));
    let other = json!({ "properties": { "a": { "$id": "https://example.com/a" } } });
    assert!(matches!(refused(&other), PayloadSchemaError::Unsupported(_)));
}

/// Goal: schemas of a few lines that would take 2^40 steps are refused at once.
#[test]
fn a_schema_that_unfolds_without_end_is_refused() {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for inside in [false, true] {
            let mut schema = json!({ "$ref": "#/$defs/0", "$defs": { "40": { "const": 1 } } });
            for number in 0..40 {
                let next = json!({ "$ref": format!("#/$defs/{}", number + 1) });
                let next = if inside { json!({ "properties": { "a": next } }) } else { next };
                schema["$defs"][number.to_string()] = json!({ keyword: [next, next] });
            }
            let told = refused(&schema);
            let bounds = [PayloadSchemaError::TooLarge, PayloadSchemaError::TooDeep];
            assert!(bounds.contains(&told), "{told:?}");
        }
    }
    let mut nested = json!({ "const": 1 });
    for _ in 0..20 {
        nested = json!({ "unevaluatedProperties": false, "anyOf": [nested] });
    }
    assert_eq!(refused(&nested), PayloadSchemaError::TooLarge);
}

#[test]
fn patterns_take_linear_time_and_bounded_memory() {
    let schema = json!({ "pattern": "^(a+)+$" });
    let payload = json!(format!("{}b", "a".repeat(100_000)));
    assert!(check(&schema, &payload).is_err());
    for pattern in ["(?=a)b", "(a)\\1", "((a{1,1000}){1,1000}){1,1000}", "("] {
        let told = refused(&json!({ "properties": { "a": { "pattern": pattern } } }));
        assert!(matches!(told, PayloadSchemaError::Invalid(_)), "{pattern}: {told:?}");
    }
    let many: Map<String, Value> =
        (0..101).map(|number| (number.to_string(), json!({ "pattern": "a" }))).collect();
    assert_eq!(refused(&json!({ "properties": many })), PayloadSchemaError::TooLarge);
}

/// Goal: the deepest schemas and payloads that are accepted fit the stack of a thread of the runtime, 2 MiB,
/// which is that of a test, too.
#[test]
fn the_deepest_schema_fits_the_stack() {
    let (mut schema, mut payload) = (json!({ "const": 1 }), json!(1));
    for level in 0..MAX_DEPTH {
        schema = match level % 4 {
            0 => json!({ "properties": { "a": schema }, "required": ["a"] }),
            1 => json!({ "anyOf": [schema, false] }),
            2 => json!({ "oneOf": [schema] }),
            _ => json!({ "items": schema }),
        };
        payload = match level % 4 {
            0 => json!({ "a": payload }),
            3 => json!([payload]),
            _ => payload,
        };
    }
    assert_eq!(check(&schema, &payload), Ok(()));
    let (text, deep) = (payload.to_string(), json!({ "properties": { "a": schema } }));
    let other: Value = serde_json::from_str(&text.replace('1', "2")).unwrap();
    assert!(check(&schema, &other).is_err());
    assert_eq!(refused(&deep), PayloadSchemaError::TooDeep);
}

#[test]
fn drafts_differ_and_formats_are_notes() {
    let draft = "http://json-schema.org/draft-07/schema#";
    let tuple = json!({ "$schema": draft, "items": [{ "type": "string" }] });
    assert!(check(&tuple, &json!([1])).is_err());
    assert_eq!(check(&json!({ "format": "email" }), &json!("nobody")), Ok(()));
    assert!(matches!(refused(&json!({ "type": "text" })), PayloadSchemaError::Invalid(_)));
}

fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(true)),
        Just(json!({ "type": "string" })),
        Just(json!({ "$ref": "#" })),
        Just(json!({ "$ref": "#/$defs/a" })),
        Just(json!({ "$ref": "#/properties/b", "unevaluatedProperties": false })),
        Just(json!({ "pattern": "^a" })),
        Just(json!({ "required": ["a"] })),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|all| json!({ "anyOf": all })),
            (inner.clone(), inner.clone()).prop_map(
                |(a, b)| json!({ "properties": { "a": a, "b": b }, "$defs": { "a": b } })
            ),
            (inner.clone(), inner).prop_map(|(a, b)| json!({ "if": a, "not": b, "items": a })),
        ]
    })
}

proptest! {
    #[test]
    fn each_schema_is_refused_or_ends(schema in any_schema(), text in "[a-c]{0,3}") {
        if let Ok(schema) = PayloadSchema::new(&schema) {
            let payload = json!({ "a": [text, { "b": 1 }], "b": { "a": {} } });
            let _either = schema.check(&payload);
            prop_assert!((1..=MAX_SCHEMAS).contains(&schema.schemas()));
        }
    }
}

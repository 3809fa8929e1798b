use webhooks_core::Timestamp;

use super::*;

/// Returns the event types of a document.
fn imported(document: &Value) -> BTreeMap<String, EventTypeInfo> {
    let described = read(document).unwrap();
    described.iter().map(|one| (one.name.clone(), one.onto(None))).collect()
}

fn fault(document: &Value) -> Fault {
    read(document).unwrap_err()
}

fn document(webhooks: &Value, schemas: &Value) -> Value {
    json!({ "openapi": "3.1.0", "webhooks": webhooks, "components": { "schemas": schemas } })
}

/// Returns the item of a webhook whose body has a schema.
fn item(schema: &Value) -> Value {
    json!({ "post": { "requestBody": { "content": { "application/json": { "schema": schema } } } } })
}

#[test]
fn a_webhook_becomes_an_event_type() {
    let webhooks = json!({ "pet.new": { "post": {
        "deprecated": true,
        "tags": ["a pet", "pet"],
        "requestBody": {
            "description": "A pet.",
            "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/Pet" },
                "example": { "id": 1 },
            } },
        },
    } }, "pet.gone": { "put": { "tags": ["pet"], "summary": "It left." } } });
    let schemas = json!({
        "Pet": { "properties": { "id": { "$ref": "#/components/schemas/Id" },
                                 "mother": { "$ref": "#/components/schemas/Pet" } } },
        "Id": { "type": "integer" },
    });
    let found = imported(&document(&webhooks, &schemas));
    let schema = json!({
        "properties": { "id": { "$ref": "#/$defs/Id" }, "mother": { "$ref": "#" } },
        "examples": [{ "id": 1 }],
        "$defs": { "Id": { "type": "integer" } },
    });
    let new = EventTypeInfo {
        description: "A pet.".to_owned(),
        deprecated: true,
        schemas: Some([("1".to_owned(), schema)].into()),
        ..EventTypeInfo::default()
    };
    assert_eq!(found["pet.new"], new, "a tag that is no name of a group is passed over");
    assert_eq!(found["pet.gone"].description, "It left.");
    assert_eq!(found["pet.gone"].group_name.as_deref(), Some("pet"));
    assert_eq!(found["pet.gone"].schemas, None);
}

#[test]
fn an_import_keeps_what_the_document_does_not_tell() {
    let before = EventTypeInfo {
        archived: true,
        feature_flag: Some("beta".to_owned()),
        schema_enforcement: SchemaEnforcement::Warn,
        ..EventTypeInfo::default()
    };
    let mut plain = document(&json!({ "a": item(&json!({ "type": "object" })) }), &json!({}));
    let after = read(&plain).unwrap()[0].onto(Some(&before));
    assert_eq!((after.archived, after.schema_enforcement), (false, SchemaEnforcement::Warn));
    assert_eq!(after.feature_flag, before.feature_flag);
    plain["webhooks"]["a"]["post"][EXTENSION] =
        json!({ "featureFlag": null, "schemaEnforcement": "refuse" });
    let after = read(&plain).unwrap()[0].onto(Some(&before));
    assert_eq!(after.feature_flag, None);
    assert_eq!(after.schema_enforcement, SchemaEnforcement::Refuse);
}

#[test]
fn schemas_of_openapi_3_0_become_json_schemas() {
    let old = json!({
        "openapi": "3.0.3",
        "x-webhooks": { "a": item(&json!({ "properties": {
            "a": { "type": "string", "nullable": true },
            "b": { "minimum": 1, "exclusiveMinimum": true, "maximum": 2, "exclusiveMaximum": false },
        } })) },
    });
    let schema = imported(&old)["a"].newest_schema().cloned().unwrap();
    let expected = json!({ "properties": {
        "a": { "type": ["string", "null"] },
        "b": { "exclusiveMinimum": 1, "maximum": 2 },
    } });
    assert_eq!(schema, expected);
}

#[test]
fn references_that_lead_nowhere_or_far_are_refused() {
    let component = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    for reference in ["#/components/schemas/None", "https://example.com/a.json", "other.yaml#/a"] {
        let told =
            fault(&document(&json!({ "a": item(&json!({ "$ref": reference })) }), &json!({})));
        assert_eq!(told.place, ["webhooks", "a"]);
        assert!(told.reason.contains("does not lead"), "{told:?}");
    }
    let circle = json!({ "a": { "$ref": "#/webhooks/b" }, "b": { "$ref": "#/webhooks/a" } });
    assert!(fault(&document(&circle, &json!({}))).reason.contains("circle"));
    // A file that is referred to deep within is not read, and the reference stays.
    let far = json!({ "items": { "$ref": "https://example.com/a.json" } });
    let found = imported(&document(&json!({ "a": item(&far) }), &json!({})));
    assert_eq!(found["a"].newest_schema(), Some(&far));
    // Schemas may refer to each other in circles: each is copied once.
    let circle = json!({ "A": { "items": component("B") }, "B": { "items": component("A") } });
    let found =
        imported(&document(&json!({ "a": item(&json!({ "items": component("A") })) }), &circle));
    let schema = found["a"].newest_schema().cloned().unwrap();
    let expected = json!({ "A": { "items": { "$ref": "#/$defs/B" } },
                           "B": { "items": { "$ref": "#/$defs/A" } } });
    assert_eq!(schema["$defs"], expected);
}

#[test]
fn a_document_that_copies_much_is_refused() {
    let large = json!({ "description": "a".repeat(100_000) });
    let webhooks: Map<String, Value> = (0..300)
        .map(|number| {
            (format!("a.{number}"), item(&json!({ "items": { "$ref": "#/components/schemas/L" } })))
        })
        .collect();
    let told = fault(&document(&json!(webhooks), &json!({ "L": large })));
    assert!(told.reason.contains("16 MiB"), "{told:?}");
    let many: Map<String, Value> =
        (0..=MAX_WEBHOOKS).map(|number| (format!("a.{number}"), json!({ "post": {} }))).collect();
    assert_eq!(fault(&document(&json!(many), &json!({}))).place, ["webhooks"]);
}

#[test]
fn documents_of_other_kinds_are_refused() {
    for (other, place) in [
        (json!({}), "openapi"),
        (json!({ "openapi": "2.0" }), "openapi"),
        (json!({ "openapi": "3.1.0" }), "webhooks"),
        (json!({ "openapi": "3.1.0", "webhooks": [1] }), "webhooks"),
        (json!({ "openapi": "3.1.0", "webhooks": { "a": 1 } }), "webhooks"),
        (json!({ "openapi": "3.1.0", "webhooks": { "a": { "post": [] } } }), "webhooks"),
    ] {
        assert_eq!(fault(&other).place[0], place, "{other}");
    }
}

/// Goal: each set of event types is read back from the document that is written of it.
#[test]
fn what_is_written_is_read_back() {
    let schemas = [
        json!({ "type": "object" }),
        json!({ "$ref": "#" }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "items": { "$ref": "#/$defs/a" } } } }),
        json!({ "properties": { "$ref": { "$ref": "#/properties/a~1b" }, "a/b": {} } }),
        json!({ "items": { "$ref": "https://example.com/far" }, "not": { "$ref": "#anchor" } }),
        json!({ "const": { "$ref": "#/const" }, "examples": [{ "$ref": "#" }], "example": 1 }),
        json!({}),
    ];
    let mut random = 7_u64;
    let mut draw = move |below: u64| {
        // The constants of a linear congruential generator of 64 bits.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..200 {
        let mut all = BTreeMap::new();
        for number in 0..=draw(4) {
            let versions = ["1", "2", "10", "draft"];
            let mut one = EventTypeInfo {
                description: ["", "Paid."][usize::try_from(draw(2)).unwrap()].to_owned(),
                deprecated: draw(2) == 0,
                feature_flag: (draw(2) == 0).then(|| "beta".to_owned()),
                group_name: (draw(2) == 0).then(|| "order".to_owned()),
                ..EventTypeInfo::default()
            };
            let modes =
                [SchemaEnforcement::Off, SchemaEnforcement::Warn, SchemaEnforcement::Refuse];
            one.schema_enforcement = modes[usize::try_from(draw(3)).unwrap()];
            if draw(4) > 0 {
                let all = one.schemas.get_or_insert_default();
                for version in &versions[..usize::try_from(draw(4)).unwrap()] {
                    let schema = &schemas[usize::try_from(draw(7)).unwrap()];
                    all.insert((*version).to_owned(), schema.clone());
                }
            }
            all.insert(format!("order.{number}"), one);
        }
        let written = write(&entries(&all));
        assert_eq!(imported(&written), all, "{written:#}");
    }
}

/// Returns the entries of event types, as a store has them.
fn entries(all: &BTreeMap<String, EventTypeInfo>) -> Vec<Entry<EventTypeInfo>> {
    let now = Timestamp::from_unix_seconds(1);
    all.iter().map(|(name, info)| Entry::new(name.clone(), info.clone(), now)).collect()
}

//! The OpenAPI document: that it is true, and in which way it differs from the one of Svix.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::running::{Kind, Running, client};

/// The facts of the OpenAPI document of the open-source Svix server 1.100.0, as [`facts`] finds them.
const REFERENCE: &str = include_str!("openapi-reference.json");

/// The facts of the operations of Svix's cloud that the open-source server lacks, except those that we do not
/// offer.
const CLOUD: &str = include_str!("openapi-cloud-reference.json");

/// The operations of Svix's cloud that we lack, and those that we have alone.
const CLOUD_OPERATIONS: &str = include_str!("openapi-cloud-operations.json");

/// The facts in which we differ, with the reasons.
const DIFFERENCES: &str = include_str!("openapi-differences.json");

/// The facts of each operation, by its method and path.
type Facts = BTreeMap<String, BTreeSet<String>>;

/// Facts of the reference that we lack (`-`), and facts of ours that it lacks (`+`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    #[expect(dead_code, reason = "people read it")]
    reason: String,
    operations: Vec<String>,
    facts: Vec<String>,
}

/// The operations in which the lists of operations differ.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudOperations {
    /// Those that answer 501, and the reason is told.
    not_offered: BTreeSet<String>,
    /// Those that are unknown.
    missing: Vec<Listed>,
    /// Those that Svix has nowhere.
    own: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[expect(dead_code, reason = "people read it")]
    reason: String,
    operations: Vec<String>,
}

/// Returns listed operations, without the names in their paths.
fn listed(lists: &[Listed]) -> BTreeSet<String> {
    lists.iter().flat_map(|list| &list.operations).map(|operation| unnamed(operation)).collect()
}

/// Returns an operation with `{}` in place of the names in its path: they are not the same everywhere.
fn unnamed(operation: &str) -> String {
    let mut parts = operation.split('{');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (_name, rest) = part.split_once('}').unwrap();
        format!("{text}{{}}{rest}")
    })
}

fn unnamed_facts(facts: &Facts) -> Facts {
    facts.iter().map(|(operation, facts)| (unnamed(operation), facts.clone())).collect()
}

async fn document() -> (Running, Value) {
    let running = Running::start(Kind::Sqlite).await;
    let (status, document) = running.ask_as(None, "GET", "/api/v1/openapi.json", None).await;
    assert_eq!(status, 200);
    (running, document)
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Returns each reference in a document.
fn references(value: &Value) -> Vec<&str> {
    let own = value["$ref"].as_str();
    let below = fields(value).map(|(_, value)| value).chain(items(value));
    own.into_iter().chain(below.flat_map(references)).collect()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Returns each operation: its method and path, and its description. HEAD is not one of its own: each GET
/// answers it.
fn operations(document: &Value) -> impl Iterator<Item = (String, &String, &Value)> {
    fields(&document["paths"]).flat_map(|(path, item)| {
        let methods = fields(item).filter(|(method, _)| *method != "head");
        methods.map(move |(method, operation)| (method.to_uppercase(), path, operation))
    })
}

/// Returns what matters to client libraries: query parameters, fields of bodies and answers with whether
/// they are required, and statuses of success.
fn facts(document: &Value) -> Facts {
    let of = |operation: &Value| {
        let parameters = items(&operation["parameters"]).filter(|found| found["in"] == "query");
        let mut facts: BTreeSet<String> =
            parameters.map(|found| format!("query {}", found["name"].as_str().unwrap())).collect();
        let body = &operation["requestBody"];
        properties(document, &body["content"]["application/json"]["schema"], "body ", &mut facts);
        for (status, response) in
            fields(&operation["responses"]).filter(|(status, _)| status.starts_with('2'))
        {
            facts.insert(format!("status {status}"));
            let schema = &response["content"]["application/json"]["schema"];
            properties(document, schema, "answer ", &mut facts);
        }
        facts
    };
    let all = operations(document);
    all.map(|(method, path, operation)| (format!("{method} {path}"), of(operation))).collect()
}

/// Adds the properties of a schema and of those below it: `prefix`, the way to it, whether it is required.
fn properties(document: &Value, schema: &Value, prefix: &str, facts: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        return properties(document, found, prefix, facts);
    }
    for part in items(&schema["allOf"]).chain(items(&schema["oneOf"])) {
        properties(document, part, prefix, facts);
    }
    properties_of_items(document, schema, prefix, facts);
    for (name, field) in fields(&schema["properties"]) {
        let is_required = items(&schema["required"]).any(|required| required == name.as_str());
        let required = if is_required { "required" } else { "optional" };
        facts.insert(format!("{prefix}{name} {required}"));
        properties(document, field, &format!("{prefix}{name}."), facts);
    }
}

fn properties_of_items(
    document: &Value,
    schema: &Value,
    prefix: &str,
    facts: &mut BTreeSet<String>,
) {
    if let Some(items) = schema.get("items") {
        properties(document, items, prefix, facts);
    }
}

/// Goal: a client library made for Svix finds each operation, parameter, field and status of success, except
/// the listed ones. A listed difference that is none fails too.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_differs_from_that_of_svix_only_where_it_is_listed() {
    let (_running, document) = document().await;
    let mut reference = serde_json::from_str::<Facts>(REFERENCE).unwrap();
    assert_eq!(reference.len(), 41);
    let cloud = serde_json::from_str::<Facts>(CLOUD).unwrap();
    let missing =
        listed(&serde_json::from_str::<CloudOperations>(CLOUD_OPERATIONS).unwrap().missing);
    let is_ours = |operation: &String| !missing.contains(&unnamed(operation));
    reference.extend(cloud.into_iter().filter(|(operation, _)| is_ours(operation)));
    let ours = unnamed_facts(&facts(&document));
    let mut found = BTreeSet::new();
    for (operation, theirs) in &reference {
        let ours = ours.get(&unnamed(operation)).unwrap_or_else(|| panic!("no {operation}"));
        let lacking = theirs.difference(ours).map(|fact| format!("- {fact}"));
        let added = ours.difference(theirs).map(|fact| format!("+ {fact}"));
        found.extend(lacking.chain(added).map(|fact| (operation.clone(), fact)));
    }
    let listed: Vec<Difference> = serde_json::from_str(DIFFERENCES).unwrap();
    let listed: BTreeSet<(String, String)> = listed
        .iter()
        .flat_map(|difference| {
            let facts =
                difference.operations.iter().map(|operation| (operation, &difference.facts));
            facts.flat_map(|(operation, facts)| {
                facts.iter().map(move |fact| (operation.clone(), fact.clone()))
            })
        })
        .collect();
    let unlisted: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(unlisted.is_empty() && gone.is_empty(), "unlisted: {unlisted:#?}\nnone: {gone:#?}");
}

/// Goal: each operation of the two references is ours, is refused with a sentence, or is listed as missing, and
/// nothing else is ours that is not listed.
#[tokio::test(flavor = "multi_thread")]
async fn each_operation_is_in_a_reference_or_listed() {
    let (running, document) = document().await;
    let lists: CloudOperations = serde_json::from_str(CLOUD_OPERATIONS).unwrap();
    let read = |text| unnamed_facts(&serde_json::from_str(text).unwrap()).into_keys();
    let ours: BTreeSet<String> = unnamed_facts(&facts(&document)).into_keys().collect();
    let theirs: BTreeSet<String> = read(REFERENCE).chain(read(CLOUD)).collect();
    let (missing, own) = (listed(&lists.missing), listed(&lists.own));
    assert_eq!(ours.difference(&theirs).cloned().collect::<BTreeSet<_>>(), own, "ours alone");
    assert_eq!(theirs.difference(&ours).cloned().collect::<BTreeSet<_>>(), missing, "missing");
    for operation in &lists.not_offered {
        assert!(!ours.contains(&unnamed(operation)), "{operation}");
        let (method, path) = operation.split_once(' ').unwrap();
        let path = path.replace(['{', '}'], "");
        let (status, _) = running.ask_as(None, method, &path, None).await;
        assert_eq!(status, 401, "{operation}");
        let (status, answer) = running.ask(method, &path, Value::Null).await;
        assert_eq!((status, &answer["code"]), (501, &"not_implemented".into()), "{operation}");
        assert!(answer["detail"].as_str().unwrap().contains("does not offer"), "{answer}");
    }
    assert_eq!((theirs.len(), lists.not_offered.len()), (106, 147));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reference_leads_somewhere() {
    let (_running, document) = document().await;
    for reference in references(&document) {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

/// Goal: each documented operation is routed, and needs a key unless the document says otherwise; a method
/// that is not documented is none.
#[tokio::test(flavor = "multi_thread")]
async fn each_documented_operation_is_there_and_no_other() {
    let (running, document) = document().await;
    let client = client();
    let mut paths: BTreeMap<&String, BTreeSet<String>> = BTreeMap::new();
    for (method, path, operation) in operations(&document) {
        let url = format!("{}{}", running.url, path.replace(['{', '}'], ""));
        let answer = client.request(method.parse().unwrap(), url).send().await.unwrap();
        let is_public = operation["security"] == serde_json::json!([{}]);
        let status = answer.status().as_u16();
        assert_eq!(status == 401, !is_public, "{method} {path}: {status}");
        // The body of one that strangers may call is missing here.
        let is_right = status < 300 || (status == 422 && operation.get("requestBody").is_some());
        assert!(status == 401 || is_right, "{method} {path}: {status}");
        paths.entry(path).or_default().insert(method);
    }
    for (path, methods) in paths {
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE"] {
            if !methods.contains(method) {
                let path = path.replace(['{', '}'], "");
                let (status, _) = running.ask_as(None, method, &path, None).await;
                assert_eq!(status, 405, "{method} {path}");
            }
        }
    }
}

/// Goal: the document tells of each body whether it may be absent. Method: without one, each operation that needs it
/// answers 422, and no other one does.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_absent_where_the_document_says_so() {
    let (running, document) = document().await;
    // Some read the body after they have found the application.
    running.add_app("app_id").await;
    let mut optional = 0;
    for (method, path, operation) in operations(&document) {
        let Some(body) = operation.get("requestBody") else { continue };
        let path = path.replace(['{', '}'], "");
        let (status, answer) = running.ask(&method, &path, Value::Null).await;
        let is_required = body["required"].as_bool().unwrap_or_default();
        assert_eq!(status == 422, is_required, "{method} {path}: {status} {answer}");
        optional += usize::from(!is_required);
        // One that is there is never `null`.
        for (_, content) in fields(&body["content"]) {
            assert!(content["schema"]["oneOf"].is_null(), "{method} {path}: {content}");
        }
    }
    assert!(optional > 0);
}

/// Returns the words about a field, which stand beside a reference where the field may be `null`.
fn words(field: &Value) -> &str {
    let mut parts = [field].into_iter().chain(items(&field["oneOf"])).chain(items(&field["allOf"]));
    parts.find_map(|part| part["description"].as_str()).unwrap_or_default()
}

/// Returns each field of each object in a document: the way to it, and its schema.
fn described<'d>(value: &'d Value, way: &str, found: &mut Vec<(String, &'d Value)>) {
    if let Some(properties) = value["properties"].as_object() {
        found.extend(properties.iter().map(|(name, field)| (format!("{way}.{name}"), field)));
    }
    for (name, value) in fields(value) {
        described(value, &format!("{way}.{name}"), found);
    }
    for value in items(value) {
        described(value, way, found);
    }
}

/// Goal: a reader of the document or of the page finds what each field, parameter and operation means.
#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_document_is_described() {
    let (running, document) = document().await;
    let page = client().get(format!("{}/docs", running.url)).send().await.unwrap();
    let page = page.text().await.unwrap();
    let mut bare = Vec::new();
    let mut found = Vec::new();
    described(&document, "", &mut found);
    assert!(found.len() > 250, "{}", found.len());
    for (way, field) in found {
        let words = words(field);
        let shown = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        if words.is_empty() || !page.contains(&shown.replace('"', "&quot;")) {
            bare.push(way);
        }
    }
    for (method, path, operation) in operations(&document) {
        let parameters = items(&operation["parameters"]);
        let answers = fields(&operation["responses"]);
        let answers = answers.map(|(_, answer)| answer).filter(|answer| answer["$ref"].is_null());
        for part in parameters.chain(answers).chain([operation]) {
            if words(part).is_empty() {
                bare.push(format!("{method} {path} {}", part["name"]));
            }
        }
        let mut statuses = fields(&operation["responses"]).map(|(status, _)| &**status);
        let has_errors = statuses.any(|status| status.starts_with('4'));
        assert!(has_errors || operation["security"].is_array(), "{method} {path}");
    }
    assert!(bare.is_empty(), "{bare:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_page_shows_each_operation_and_needs_no_other_host() {
    let (running, document) = document().await;
    let page = client().get(format!("{}/docs", running.url)).send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let page = page.text().await.unwrap();
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(page.contains(&format!("id=\"{id}\"")), "{method} {path}");
        assert!(
            operation["summary"].as_str().is_some_and(|summary| summary.ends_with('.')),
            "{id}"
        );
    }
    for outside in ["//", "<script", "src=", "{{"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

//! The document as a page for people: HTML that needs no script and no other host.

use serde_json::Value;

/// The page without its content.
const SHELL: &str = include_str!("reference.html");

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Returns the page of a document.
pub(crate) fn page(document: &Value) -> String {
    let mut content = Vec::new();
    for tag in items(&document["tags"]) {
        let (name, about) = (text(&tag["name"]), text(&tag["description"]));
        content.push(format!("<h2>{name}</h2>\n<p>{about}</p>\n"));
        for (path, item) in fields(&document["paths"]) {
            let of_tag = METHODS.iter().filter(|method| item[method]["tags"][0] == tag["name"]);
            content.extend(of_tag.map(|method| show(document, (method, path), &item[method])));
        }
    }
    content.push("<h2>Schemas</h2>\n<p>The objects of bodies and answers.</p>\n".to_owned());
    for (name, schema) in fields(&document["components"]["schemas"]) {
        let rows = rows(document, schema, |field| link(field).unwrap_or_default());
        let about = text(&schema["description"]);
        content.push(format!(
            "<details id=\"schema-{name}\"><summary><code>{name}</code> {about}</summary>\n\
             <table>\n{rows}</table></details>\n"
        ));
    }
    SHELL
        .replace("{{version}}", &text(&document["info"]["version"]))
        .replace("{{content}}", &content.concat())
}

fn show(document: &Value, (method, path): (&str, &str), operation: &Value) -> String {
    let mut rows = Vec::new();
    for parameter in items(&operation["parameters"]) {
        let is_required = parameter["required"] == true;
        let (place, name) = (text(&parameter["in"]), text(&parameter["name"]));
        rows.push(row((&place, &name, is_required), &text(&parameter["description"])));
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    rows.push(self::rows(document, body, |field| link(field).unwrap_or_else(|| "body".to_owned())));
    for (status, response) in fields(&operation["responses"]) {
        let response = resolve(document, response);
        let schema = &response["content"]["application/json"]["schema"];
        let about = text(&response["description"]);
        let shown = link(schema).unwrap_or_default();
        rows.push(format!("<tr><td>{status}<td>{shown}<td><td>{about}\n"));
    }
    let rows = rows.concat();
    let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
    let (method, path) = (method.to_uppercase(), escape(path));
    format!(
        "<details id=\"{id}\"><summary><b>{method}</b> <code>{path}</code> {summary}</summary>\n\
         <table>\n{rows}</table></details>\n"
    )
}

/// Returns the rows of the fields of an object. `place` says what stands before the name of a field.
fn rows(document: &Value, schema: &Value, place: impl Fn(&Value) -> String) -> String {
    let row = |(name, is_required, field): (&str, bool, &Value)| {
        row((&place(field), &escape(name), is_required), &description(document, field))
    };
    properties(document, schema).into_iter().map(row).collect()
}

/// Returns the words about a field. One without words of its own has those of its schema.
fn description(document: &Value, field: &Value) -> String {
    let parts = items(&field["oneOf"]).chain(items(&field["allOf"])).chain([field]);
    let parts: Vec<&Value> = parts.collect();
    let own = parts.iter().find_map(|part| part["description"].as_str());
    let schemas = || parts.iter().map(|part| resolve(document, part));
    let found = own.or_else(|| schemas().find_map(|schema| schema["description"].as_str()));
    escape(found.unwrap_or_default())
}

/// Returns a link to the schema to which a field refers, by itself or with its entries.
fn link(schema: &Value) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escape(reference.rsplit('/').next()?);
        return Some(format!("<a href=\"#schema-{name}\">{name}</a>"));
    }
    let entries = schema.get("items");
    let mut parts = items(&schema["oneOf"]).chain(items(&schema["allOf"])).chain(entries);
    parts.find_map(link)
}

fn row((place, name, is_required): (&str, &str, bool), about: &str) -> String {
    let required = if is_required { "required" } else { "" };
    format!("<tr><td>{place}<td><code>{name}</code><td>{required}<td>{about}\n")
}

/// Returns the fields of an object: names, whether they are required, schemas.
fn properties<'d>(document: &'d Value, schema: &'d Value) -> Vec<(&'d str, bool, &'d Value)> {
    let schema = resolve(document, schema);
    let parts = items(&schema["allOf"]).flat_map(|part| properties(document, part));
    let own = fields(&schema["properties"]).map(|(name, field)| {
        let is_required = items(&schema["required"]).any(|required| required == name);
        (name, is_required, field)
    });
    parts.chain(own).collect()
}

fn resolve<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

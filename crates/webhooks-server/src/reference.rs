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
    SHELL
        .replace("{{version}}", &text(&document["info"]["version"]))
        .replace("{{content}}", &content.concat())
}

fn show(document: &Value, (method, path): (&str, &str), operation: &Value) -> String {
    let mut rows = Vec::new();
    for parameter in items(&operation["parameters"]) {
        let is_required = parameter["required"] == true;
        let (place, name) = (text(&parameter["in"]), text(&parameter["name"]));
        rows.push(row((&place, &name, is_required), parameter));
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    for (name, is_required, schema) in properties(document, body) {
        // A field without words of its own has those of its schema, which may be `null` too.
        let of_schema = resolve(document, schema.pointer("/oneOf/0").unwrap_or(schema));
        let described = if schema["description"].is_null() { of_schema } else { schema };
        rows.push(row(("body", &escape(name), is_required), described));
    }
    for (status, response) in fields(&operation["responses"]) {
        let response = resolve(document, response);
        let schema = &response["content"]["application/json"]["schema"];
        let names: Vec<&str> =
            properties(document, schema).iter().map(|(name, ..)| *name).collect();
        let (about, names) = (text(&response["description"]), escape(&names.join(", ")));
        rows.push(format!("<tr><td>{status}<td><code>{names}</code><td><td>{about}\n"));
    }
    let rows = rows.concat();
    let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
    let (method, path) = (method.to_uppercase(), escape(path));
    format!(
        "<details id=\"{id}\"><summary><b>{method}</b> <code>{path}</code> {summary}</summary>\n\
         <table>\n{rows}</table></details>\n"
    )
}

fn row((place, name, is_required): (&str, &str, bool), described: &Value) -> String {
    let required = if is_required { "required" } else { "" };
    let about = text(&described["description"]);
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
